"""Lay out the day as the driver's page reads it, and give it a revision when it is another than before.

The names are the page's own wire: whoever changes one changes the page and everybody who reads it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from edge_agent.assignment import Assignment
from edge_agent.dialogue import DAY_TOPIC, ENTRY_TOPIC, Entry
from edge_agent.memory import Day
from edge_agent.turns import on_page
from shared.contracts import Plan
from shared.ledger import spoken
from shared.messages import Estimate
from shared.quantities import TimeWindow
from shared.steps import Envelope
from shared.work import AgentId, Outcome, Stop, StopId, Visit

STAYS = frozenset({Outcome.ATTEMPTED, Outcome.REFUSED, Outcome.DAMAGED, Outcome.COLLECTED})
"""After a visit that ended so all its parcels are in the van."""


class Screen:
    """What the page was last given. Whoever changes what it shows makes it stale."""

    def __init__(self) -> None:
        self.is_stale = True
        self._revision = 0
        self._shown = b""
        self._entry: Entry | None = None

    def begin(self, now_ms: int) -> None:
        """Revisions count on from the instant a life begins, so that a page never takes a new day for an old one."""
        self._revision = now_ms

    def admits(self, entry: Entry) -> list[Envelope]:
        """Who may read the page, when it is others than before. It must be sent before the day."""
        if entry == self._entry:
            return []
        self._entry = entry
        return [Envelope(ENTRY_TOPIC, msgspec.json.encode(entry))]

    def shows(self, day: dict[str, Any]) -> list[Envelope]:
        """The day for the page under a new revision; nothing when the page shows it already."""
        self.is_stale = False
        encoded = msgspec.json.encode(day)
        if encoded == self._shown:
            return []
        self._shown = encoded
        self._revision += 1
        return [Envelope(DAY_TOPIC, b'{"revision":%d,' % self._revision + encoded[1:])]


def day_shown(
    agent: AgentId,
    work: Assignment | None,
    day: Day,
    visits: Mapping[StopId, Visit],
    estimates: Iterable[Estimate],
    link_is_up: bool,
    is_moving: bool,
    rest_from_ms: int | None = None,
    is_tight: bool = False,
    is_dated: bool = True,
) -> dict[str, Any]:
    """Everything the page shows but its revision and the present instant; stops in the order shown.

    `is_tight` says that the disk is full, `is_dated` whether the time is known.

    While the van moves that is the order it set off with, and nothing waits for an answer. `rest_from_ms` is from when
    on the break does the least harm; None when nobody knows better than the plan.
    """
    plan = None if work is None else work.plan
    found: dict[str, Any] = {
        "agent": agent,
        "plan_version": None,
        "shift": day.shift,
        "depart_ms": None,
        "break": None,
        "shift_end_ms": None,
        "depot": None,
        "heading_to": day.heading_to,
        "at_stop": day.at_stop,
        "link_is_up": link_is_up,
        "is_moving": is_moving,
        "is_tight": is_tight,
        "is_dated": is_dated,
        "question": None if is_moving else _question(day, work),
        "stops": [],
        "done": [_done(visits[stop_id]) for stop_id in day.driven if stop_id in visits],
        "change": None if day.held else _change(day, work),
        "scans": day.scans,
    }
    if work is None or plan is None:
        return found
    stops = _known(work)
    expected = {estimate.stop_id: estimate for estimate in estimates}
    depot = plan.depot
    return found | {
        "plan_version": plan.plan_version,
        "depart_ms": plan.depart_ms,
        "shift_end_ms": plan.shift_end_ms,
        "on_board": len(_left_over(stops, day, visits)),
        "break": _break(plan, day, rest_from_ms),
        "depot": {
            "name": depot.name,
            "position": depot.position,
            "gateway": depot.gateway,
            "stem_s": depot.stem_s,
        },
        "stops": [
            _stop(stops[stop_id], work.told.get(stop_id, stops[stop_id].told), expected.get(stop_id))
            for stop_id in on_page(day)
            if stop_id in stops
        ],
    }


def _known(work: Assignment) -> dict[StopId, Stop]:
    """Withdrawn stops, too: the page may still show one while the van moves."""
    return {stop.stop_id: stop for stop in (*work.withdrawn, *work.plan.stops)}


def _left_over(stops: Mapping[StopId, Stop], day: Day, visits: Mapping[StopId, Visit]) -> list[str]:
    """The parcels that go back to the depot: visits left them in the van, and no stop to come is for them."""
    found: dict[str, None] = {}
    for stop_id in day.driven:
        if stop_id not in stops or stop_id not in visits:
            continue
        stop, visit = stops[stop_id], visits[stop_id]
        codes = [parcel.barcode for parcel in stop.parcels]
        left = visit.parcels_left if visit.outcome is Outcome.PART else codes if visit.outcome in STAYS else ()
        for code in codes:
            found.pop(code, None)
        if stop.service != "collection" or visit.outcome is Outcome.COLLECTED:
            found |= dict.fromkeys(left)
    to_come = {parcel.barcode for stop_id in on_page(day) if stop_id in stops for parcel in stops[stop_id].parcels}
    return [code for code in found if code not in to_come]


def _question(day: Day, work: Assignment | None) -> dict[str, Any] | None:
    question = day.question
    if question is None:
        return None
    stop = None if work is None else _known(work).get(question.stop_id)
    address = "" if stop is None else stop.address
    return {"stop_id": question.stop_id, "instead_of": question.instead_of, "address": address}


def _done(visit: Visit) -> dict[str, Any]:
    return {"stop_id": visit.stop_id, "outcome": visit.outcome, "left_ms": visit.left_ms}


def _change(day: Day, work: Assignment | None) -> dict[str, Any] | None:
    change = day.change
    if change is None:
        return None
    addresses: dict[str, str] = {} if work is None else {s.stop_id: s.address for s in _known(work).values()}
    return {
        "change_id": change.change_id,
        "at_ms": change.at_ms,
        "why": spoken(change.why, addresses),
        "reason": change.reason,
        "about": addresses.get(change.reason.cause_stop, "") if change.reason else "",
        "before": change.before,
        "after": change.after,
    }


def _break(plan: Plan, day: Day, from_ms: int | None) -> dict[str, Any] | None:
    if plan.rest is None:
        return None
    return {
        "earliest_ms": max(plan.rest.begins.opens_ms, from_ms or 0),
        "latest_ms": plan.rest.begins.closes_ms,
        "duration_s": plan.rest.duration_s,
        "taken": day.is_rest_taken,
    }


def _stop(stop: Stop, told: TimeWindow, estimate: Estimate | None) -> dict[str, Any]:
    return {
        "stop_id": stop.stop_id,
        "order_id": stop.order_id,
        "address": stop.address,
        "position": stop.position,
        "slot": stop.slot,
        "told": told,
        "service": stop.service,
        "service_s": stop.service_s,
        "floor": stop.floor,
        "has_lift": stop.has_lift,
        "is_business": stop.is_business,
        "open_hours": stop.open_hours,
        "door_group": stop.door_group,
        "parcels": [parcel.barcode for parcel in stop.parcels],
        "stow": {parcel.barcode: parcel.stow for parcel in stop.parcels if parcel.stow},
        "door_code": stop.door_code,
        "note": stop.note,
        "safe_place": stop.safe_place,
        "neighbour": stop.neighbour,
        "attempt": stop.attempt,
        "litres": sum(parcel.litres for parcel in stop.parcels),
        "estimate": None if estimate is None else [estimate.p10_ms, estimate.p50_ms, estimate.p90_ms],
    }
