"""Lay out the day as the driver's page reads it, and give it a revision when it is another than before.

The names are the page's own wire: whoever changes one changes the page and everybody who reads it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from edge_agent.dialogue import DAY_TOPIC
from edge_agent.memory import Day
from shared.contracts import Plan
from shared.ledger import spoken
from shared.messages import Estimate
from shared.quantities import TimeWindow
from shared.steps import Envelope
from shared.work import AgentId, Stop, StopId, Visit


class Screen:
    """What the page was last given. Whoever changes what it shows makes it stale."""

    def __init__(self) -> None:
        self.is_stale = True
        self._revision = 0
        self._shown = b""

    def begin(self, now_ms: int) -> None:
        """Revisions count on from the instant a life begins, so that a page never takes a new day for an old one."""
        self._revision = now_ms

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
    plan: Plan | None,
    day: Day,
    visits: Mapping[StopId, Visit],
    told: Mapping[StopId, TimeWindow],
    estimates: Iterable[Estimate],
    link_is_up: bool,
) -> dict[str, Any]:
    """Everything the page shows but its revision and the present instant; stops in the order shown."""
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
        "stops": [],
        "done": [_done(visits[stop_id]) for stop_id in day.driven if stop_id in visits],
        "change": _change(day, plan),
    }
    if plan is None:
        return found
    stops = {stop.stop_id: stop for stop in plan.stops}
    expected = {estimate.stop_id: estimate for estimate in estimates}
    depot = plan.depot
    return found | {
        "plan_version": plan.plan_version,
        "depart_ms": plan.depart_ms,
        "shift_end_ms": plan.shift_end_ms,
        "break": _break(plan, day),
        "depot": {
            "name": depot.name,
            "position": depot.position,
            "gateway": depot.gateway,
            "stem_s": depot.stem_s,
        },
        "stops": [
            _stop(stops[stop_id], told.get(stop_id, stops[stop_id].told), expected.get(stop_id))
            for stop_id in day.shown
        ],
    }


def _done(visit: Visit) -> dict[str, Any]:
    return {"stop_id": visit.stop_id, "outcome": visit.outcome, "left_ms": visit.left_ms}


def _change(day: Day, plan: Plan | None) -> dict[str, Any] | None:
    change = day.change
    if change is None:
        return None
    addresses: dict[str, str] = {} if plan is None else {stop.stop_id: stop.address for stop in plan.stops}
    return {
        "change_id": change.change_id,
        "at_ms": change.at_ms,
        "why": spoken(change.why, addresses),
        "before": change.before,
        "after": change.after,
    }


def _break(plan: Plan, day: Day) -> dict[str, Any] | None:
    if plan.rest is None:
        return None
    return {
        "earliest_ms": plan.rest.begins.opens_ms,
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
        "litres": sum(parcel.litres for parcel in stop.parcels),
        "estimate": None if estimate is None else [estimate.p10_ms, estimate.p50_ms, estimate.p90_ms],
    }
