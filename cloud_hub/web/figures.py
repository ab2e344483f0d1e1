"""The day in figures over HTTP: what it came to so far, and the first plan it is measured against.

The sums are those of `shared.reckoning`, which the twin and the bench use too.
"""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from fastapi import APIRouter

from cloud_hub.access.asking import sight
from cloud_hub.events import Notice
from cloud_hub.fleet import AgentRecord, KeptDecision, StopRecord, Vehicle
from cloud_hub.promises import Promise
from cloud_hub.settings import costs_of
from cloud_hub.storage import DecisionsAsked, Readings
from cloud_hub.web.desk import Desk
from cloud_hub.web.forms import Json
from cloud_hub.web.picture import Picture
from shared.contracts import Plan
from shared.quantities import EpochMs, TimeWindow
from shared.reckoning import DayFigures, GoesOn, Interventions, PromiseFacts, VanFacts, reckon
from shared.work import Stop

MOVING_MPS = 0.5
"""Slower than this, wheels do not turn: GNSS alone never says 0."""

LONGEST_GAP_MS = 30_000
"""A sample speaks for the time since the one before it, though not across a gap in the telemetry."""

MOST_SAMPLES = 1_000_000
"""Of one channel of one van in one day; one sample in five seconds makes 17,280."""

MOST_DECISIONS = 100_000

HANDS = {"corrections": "order_corrected", "windows_by_hand": "window_by_hand"}
"""What a person did, and the kind of the hub's decisions that say so. Nothing asks for approvals yet."""

NEXT_STEPS: dict[str, GoesOn] = {
    "": "", "today": "today", "tomorrow": "next_day", "locker": "locker", "return": "return_to_sender",
}  # fmt: skip
"""How it goes on after a failed visit, as the costs name it."""

REACHED = frozenset({"delivered", "kept"})
"""Notices that count as messages: those taken by a receiver, and those a hub without receivers would have sent."""


def figures_pages(desk: Desk, picture: Picture) -> APIRouter:
    """The day in figures."""
    router = APIRouter(tags=["day"])

    @router.get(
        "/api/day/figures",
        summary="What the day came to so far",
        description="Visits, windows kept, lateness, messages, kilometres, people's interventions and cost, each as "
        "docs/twin.md defines it.",
    )
    def figures() -> Json:
        return Json(day_figures(desk, picture))

    @router.get(
        "/api/day/first-plan",
        summary="The first plan of each van of the day",
        description="With the windows first told: what fixed routes would drive. `is_planned` is false while the hub "
        "still plans.",
    )
    def first_plan() -> Json:
        return Json(first_plans(desk, picture))

    return router


def day_figures(desk: Desk, picture: Picture) -> DayFigures:
    """The figures of the hub's day at this instant."""
    at_ms = desk.clock.now_ms()
    vans, until_ms = _vans(desk, picture, at_ms)
    costs = costs_of(desk.settings)
    day = _hours_of(desk)
    return reckon(_promises(picture, day), vans, _interventions(desk, day), costs, at_ms, driven_until_ms=until_ms)


def _hours_of(desk: Desk) -> TimeWindow:
    """The hub's day from midnight to midnight, in its own zone."""
    midnight = datetime.combine(desk.day_named(None), datetime.min.time(), ZoneInfo(desk.settings.zone))
    opens_ms, closes_ms = (int(moment.timestamp() * 1000) for moment in (midnight, midnight + timedelta(days=1)))
    return TimeWindow(EpochMs(opens_ms), EpochMs(closes_ms))


def first_plans(desk: Desk, picture: Picture) -> dict[str, Any]:
    """The plan each van of the hub's day was first given, with its stops as a driver needs them."""
    day = desk.today()
    first: dict[str, Plan] = {}
    for plan in picture.all("plan_history", Plan).values():
        known = first.get(plan.agent)
        if plan.day == day and (known is None or plan.plan_version < known.plan_version):
            first[plan.agent] = plan
    return {
        "day": day,
        "is_planned": bool(first) and not desk.store.documents("needs"),
        "vans": [_plan_shown(first[agent]) for agent in sorted(first)],
    }


def _plan_shown(plan: Plan) -> dict[str, Any]:
    rest = plan.rest
    return {
        "agent": plan.agent,
        "plan_version": plan.plan_version,
        "depart_ms": plan.depart_ms,
        "shift_end_ms": plan.shift_end_ms,
        "depot": msgspec.to_builtins(plan.depot),
        "break": None
        if rest is None
        else {
            "earliest_ms": rest.begins.opens_ms,
            "latest_ms": rest.begins.closes_ms,
            "duration_s": rest.duration_s,
        },
        "stops": [_stop_shown(stop) for stop in plan.stops],
    }


def _stop_shown(stop: Stop) -> dict[str, Any]:
    """What decides how a visit goes: no door code and no note, which help the driver alone."""
    return {
        "stop_id": stop.stop_id,
        "order_id": stop.order_id,
        "address": stop.address,
        "position": stop.position,
        "slot": stop.slot,
        "told": stop.told,
        "service": stop.service,
        "service_s": stop.service_s,
        "floor": stop.floor,
        "has_lift": stop.has_lift,
        "is_business": stop.is_business,
        "open_hours": stop.open_hours,
        "door_group": stop.door_group,
        "parcels": [parcel.barcode for parcel in stop.parcels],
        "litres": sum(parcel.litres for parcel in stop.parcels),
        "safe_place": stop.safe_place,
        "neighbour": stop.neighbour,
    }


def _promises(picture: Picture, day: TimeWindow) -> list[PromiseFacts]:
    """What was promised for this day; a window told after midnight still belongs to the day it was told for."""
    stops = picture.all("stops", StopRecord)
    notices = sorted(picture.all("notices", Notice).values(), key=lambda n: (n.at_ms, n.notice_id))
    told_by: dict[str, tuple[str, ...]] = {}
    for notice in notices:
        if notice.state in REACHED:
            told_by[notice.stop_id] = (*told_by.get(notice.stop_id, ()), notice.channel or "webhook")
    return [
        PromiseFacts(
            stop_id=promise.stop_id,
            slot=promise.slot,
            told_first=promise.tellings[0].told if promise.tellings else promise.told,
            told_last=promise.told,
            served_ms=promise.served_ms,
            outcome=promise.outcome,
            told_by=told_by.get(promise.stop_id, ()),
            goes_on=NEXT_STEPS.get(stops[promise.stop_id].next_step, "") if promise.stop_id in stops else "",
            is_called_off=promise.served_ms is None and _is_off_the_day(stops.get(promise.stop_id)),
        )
        for promise in picture.all("promises", Promise).values()
        if day.holds(promise.tellings[0].told.opens_ms if promise.tellings else promise.told.opens_ms)
    ]


def _is_off_the_day(stop: StopRecord | None) -> bool:
    """Whether no van is to visit the stop any more, though its customer was told a window."""
    return stop is None or stop.state not in ("planned", "heading", "arrived", "done")


def _vans(desk: Desk, picture: Picture, at_ms: int) -> tuple[list[VanFacts], int]:
    """Every van that has left, and the instant up to which the telemetry of all of them is here."""
    vehicles = picture.all("vehicles", Vehicle)
    out = [agent for agent in picture.all("agents", AgentRecord).values() if agent.begun_ms is not None]
    heard = [desk.telemetry.latest(agent.agent) for agent in out if agent.ended_ms is None]
    # Before the first batch nothing is known of any kilometre, and the twin is asked for none either.
    begun_ms = min((agent.begun_ms for agent in out if agent.begun_ms is not None and heard), default=at_ms)
    until_ms = min((latest["odometer_km"][0] for latest in heard if "odometer_km" in latest), default=begun_ms)
    return [_van(desk, agent, vehicles.get(agent.agent), at_ms, until_ms) for agent in out], until_ms


def _van(desk: Desk, agent: AgentRecord, vehicle: Vehicle | None, at_ms: int, until_ms: int) -> VanFacts:
    assert agent.begun_ms is not None, f"{agent.agent} has not left"
    begun_ms, ends_ms = agent.begun_ms, agent.ended_ms or at_ms
    odometer = desk.telemetry.read(agent.agent, "odometer_km", begun_ms, until_ms, MOST_SAMPLES)
    return VanFacts(
        agent.agent,
        metres=float(odometer.values.max() - odometer.values.min()) * 1000 if len(odometer.values) else 0.0,
        driving_s=_moving_s(desk.telemetry.read(agent.agent, "speed_mps", begun_ms, until_ms, MOST_SAMPLES)),
        working_s=max(0, ends_ms - begun_ms) / 1000,
        overtime_s=0.0 if vehicle is None else max(0, ends_ms - vehicle.ends_ms) / 1000,
    )


def _moving_s(speed: Readings) -> float:
    """Seconds the wheels turned, each sample standing for the time since the one before it."""
    if len(speed.at_ms) < 2:
        return 0.0
    order = np.argsort(speed.at_ms, kind="stable")
    gaps = np.minimum(np.diff(speed.at_ms[order]), LONGEST_GAP_MS)
    return float(gaps[speed.values[order][1:] > MOVING_MPS].sum()) / 1000


def _interventions(desk: Desk, day: TimeWindow) -> Interventions:
    """Decisions that a person took on this day. Closing a street is news of the world, not work on the day."""
    return Interventions(**{name: _taken(desk, kind, day) for name, kind in HANDS.items()})


def _taken(desk: Desk, kind: str, day: TimeWindow) -> int:
    kept = desk.store.decisions(DecisionsAsked(agent="hub", kind=kind, most=MOST_DECISIONS))
    bound = sight()
    own = [row for row in kept if bound is None or bound.sees_decision(row.doc)]
    return sum(day.holds(msgspec.json.decode(row.doc, type=KeptDecision).heard_ms) for row in own)
