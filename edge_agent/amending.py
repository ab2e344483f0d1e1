"""Amend the work under way: other stops, more of them, fewer; what is under way or done stays as it is.

Only what changes is decided here: which stops are taken and which are not, why the driver should know, and where in
the order a new one costs least.
"""

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from edge_agent.assignment import Assignment
from edge_agent.outlook import Bearing, orders_beyond, plans_own, route_problem, spans_left
from edge_agent.reasons import Cause, Reason
from shared.contracts import DEPOT_PLACE, LegTimes, LegTimesWrong, Plan
from shared.messages import WorkAmended
from shared.routes import RouteProblem, check, evaluate
from shared.work import Stop, StopId

NO_LEGS = "its place is new and there are no leg times for it"


class Amended(NamedTuple):
    """What becomes of an amendment.

    `taken` are the stops that are as it wants them, whether or not they were so before; `refused` are the others, with
    the reason. `added` and `withdrawn` are stops the order gains and loses, `retimed` are those of other windows than
    before. `wish` says what is new about the work; None when nothing is.
    """

    work: Assignment
    taken: tuple[StopId, ...]
    refused: tuple[tuple[StopId, str], ...]
    added: tuple[StopId, ...] = ()
    withdrawn: tuple[StopId, ...] = ()
    retimed: tuple[StopId, ...] = ()
    wish: Reason | None = None


def amend(
    work: Assignment, said: WorkAmended, under_way: StopId | None, visited: Container[StopId], is_over: bool = False
) -> Amended:
    """Judge every stop of an amendment by itself, and put those that can be taken into the work."""
    everybody = tuple(dict.fromkeys((*(stop.stop_id for stop in said.stops), *said.withdrawn)))
    if said.plan_version != work.plan.plan_version:
        return _none(work, everybody, f"agent drives plan {work.plan.plan_version}")
    if is_over:
        return _none(work, everybody, "the shift has ended")
    why = _legs_objection(said)
    if why:
        return _none(work, everybody, why)
    refused = {stop_id: why for stop_id in everybody if (why := _objection(work, stop_id, said, under_way, visited))}
    wanted = {stop.stop_id: stop for stop in said.stops if stop.stop_id not in refused}
    gone = tuple(stop_id for stop_id in said.withdrawn if stop_id in work.stops and stop_id not in refused)
    legs, without_legs = _legs(work, said, wanted)
    refused |= without_legs
    new = {s: stop for s, stop in wanted.items() if s not in refused and work.stops.get(s) != stop}
    if not _covers(legs, work, new, gone):
        return _none(work, everybody, "its leg times leave out stops that are under way or done")
    taken = tuple(stop_id for stop_id in everybody if stop_id not in refused)
    if not new and not gone:
        return Amended(work, taken, tuple(refused.items()))
    added = tuple(stop_id for stop_id in new if stop_id not in work.stops)
    retimed = tuple(s for s in new if s in work.stops and _cause(work.stops[s], new[s]) != "other_details")
    return Amended(
        _changed(work, new, gone, None if legs is work.legs else legs),
        taken,
        tuple(refused.items()),
        added,
        gone,
        retimed,
        _wish(work, new, gone),
    )


WAITS_LESS_S = 300
"""A stop keeps its place unless another one saves five minutes of driving, waiting or lateness."""


def placed(bearing: Bearing, added: Sequence[StopId], retimed: Sequence[StopId] = ()) -> tuple[StopId, ...]:
    """The bearing's order with each added or retimed stop where it costs least, one after the other.

    Judged by the plan's own times, with waiting at a door as dear as driving, which the kernel's cost leaves out: it is
    asked at once for something better, and begins from here. The stop under way stays first.
    """
    foreseen = plans_own(bearing, bearing.order)
    spans = spans_left(bearing, foreseen.legs, foreseen.stops)
    problem = replace(route_problem(bearing, spans), changed_arc_cost=0)
    beyond = orders_beyond(bearing)
    node = {stop_id: k + 1 for k, stop_id in enumerate(beyond)}
    order = tuple(node[stop_id] for stop_id in beyond if stop_id not in added)
    for stop_id in added:
        order = _with(problem, order, node[stop_id])
    for stop_id in retimed:
        if stop_id in node:
            others = tuple(k for k in order if k != node[stop_id])
            better = _with(problem, others, node[stop_id])
            order = better if _cost_s(problem, better) + WAITS_LESS_S <= _cost_s(problem, order) else order
    head = bearing.order[: len(bearing.order) - len(beyond)]
    return head + tuple(beyond[k - 1] for k in order)


def _with(problem: RouteProblem, order: tuple[int, ...], node: int) -> tuple[int, ...]:
    """The cheapest allowed order with one node more; at the end when none is allowed."""
    found = [(*order[:k], node, *order[k:]) for k in range(len(order) + 1)]
    among = replace(problem, order=found[-1])
    allowed = [candidate for candidate in found if not check(among, candidate)]
    return min(allowed, key=lambda candidate: _cost_s(among, candidate), default=found[-1])


def _cost_s(problem: RouteProblem, order: tuple[int, ...]) -> int:
    cost = evaluate(problem, order)
    return cost.total + cost.finish


def _none(work: Assignment, everybody: tuple[StopId, ...], why: str) -> Amended:
    return Amended(work, (), tuple((stop_id, why) for stop_id in everybody))


def _objection(
    work: Assignment, stop_id: StopId, said: WorkAmended, under_way: StopId | None, visited: Container[StopId]
) -> str:
    wanted = [stop for stop in said.stops if stop.stop_id == stop_id]
    if len(wanted) > 1 or (wanted and stop_id in said.withdrawn):
        return "the amendment contradicts itself"
    if wanted and wanted[0] == work.stops.get(stop_id):
        return ""
    if stop_id in visited:
        return "it is done"
    if stop_id == under_way:
        return "it is under way"
    if wanted and wanted[0].told.opens_ms < wanted[0].slot.opens_ms:
        return "its told window begins before its slot"
    return ""


def _legs_objection(said: WorkAmended) -> str:
    if said.legs is None:
        return ""
    try:
        said.legs.matrix()
    except LegTimesWrong as wrong:
        return str(wrong)
    return ""


def _legs(work: Assignment, said: WorkAmended, wanted: dict[StopId, Stop]) -> tuple[LegTimes, dict[StopId, str]]:
    """The leg times of the amended work, and which stops they cannot serve.

    A new stop at a place the plan knows (another attempt at a door) needs no leg times of its own.
    """
    legs = said.legs or work.legs
    missing = [stop_id for stop_id in wanted if stop_id not in legs.places]
    moved = [] if said.legs else [s for s in wanted if s in work.stops and not _same_place(work, wanted[s])]
    refused = dict.fromkeys(moved, NO_LEGS)
    known = {**{s.stop_id: s for s in work.withdrawn}, **work.stops}
    for stop_id in missing:
        place = wanted[stop_id].position
        twin = next((s for s in legs.places if s in known and known[s].position == place), None)
        if twin is None:
            refused[stop_id] = NO_LEGS
        else:
            legs = _with_twin(legs, twin, stop_id)
    return legs, refused


def _same_place(work: Assignment, stop: Stop) -> bool:
    return work.stops[stop.stop_id].position == stop.position


def _with_twin(legs: LegTimes, twin: StopId, stop_id: StopId) -> LegTimes:
    """The same leg times with one place more, which lies where another does."""
    rows = [*range(DEPOT_PLACE, len(legs.places) + 1), legs.places.index(twin) + 1]
    seconds: np.ndarray = legs.matrix()[:, rows, :][:, :, rows]
    return LegTimes.from_matrix(legs.roads_version, (*legs.places, stop_id), legs.slice_ends_ms, seconds)


def _covers(legs: LegTimes, work: Assignment, new: dict[StopId, Stop], gone: tuple[StopId, ...]) -> bool:
    places = set(legs.places)
    return all(stop_id in places or stop_id in gone for stop_id in (*work.stops, *new))


def _changed(work: Assignment, new: dict[StopId, Stop], gone: tuple[StopId, ...], legs: LegTimes | None) -> Assignment:
    kept = [new.get(stop_id, stop) for stop_id, stop in work.stops.items() if stop_id not in gone]
    more = [stop for stop_id, stop in new.items() if stop_id not in work.stops]
    plan: Plan = msgspec.structs.replace(
        work.plan,
        stops=(*kept, *more),
        before=tuple(pair for pair in work.plan.before if not set(pair) & set(gone)),
        legs=legs or work.plan.legs,
    )
    withdrawn = [stop for stop in work.withdrawn if stop.stop_id not in new]
    return Assignment(
        plan,
        None if legs else work.newer_legs,
        {stop_id: told for stop_id, told in work.told.items() if stop_id not in new and stop_id not in gone},
        (*withdrawn, *(work.stops[stop_id] for stop_id in gone)),
    )


def _wish(work: Assignment, new: dict[StopId, Stop], gone: tuple[StopId, ...]) -> Reason | None:
    """What the driver should hear first: more work, less work, other times, other words at the door."""
    found: dict[Cause, list[StopId]] = {}
    for stop_id, stop in new.items():
        found.setdefault(_cause(work.stops.get(stop_id), stop), []).append(stop_id)
    for stop_id in gone:
        found.setdefault("withdrawn", []).append(stop_id)
    ranks: tuple[Cause, ...] = (
        "another_attempt", "new_stop", "withdrawn", "not_home_until", "other_window", "other_details",
    )  # fmt: skip
    for cause in ranks:
        if cause in found:
            first = found[cause][0]
            at_ms = _opens_ms(new[first]) if cause == "not_home_until" else 0
            return Reason(cause, cause_stop=first, cause_ms=at_ms, cause_count=len(found[cause]))
    return None


def _cause(before: Stop | None, stop: Stop) -> Cause:
    if before is None:
        return "another_attempt" if stop.attempt > 1 else "new_stop"
    if _opens_ms(stop) > _opens_ms(before):
        return "not_home_until"
    is_same_time = (before.slot, before.told, before.open_hours) == (stop.slot, stop.told, stop.open_hours)
    return "other_details" if is_same_time else "other_window"


def _opens_ms(stop: Stop) -> int:
    """When somebody is there at all."""
    hours = stop.open_hours
    return max(stop.slot.opens_ms, 0 if hours is None else hours.opens_ms)
