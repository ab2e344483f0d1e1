"""Turn the plan and the moment into what the models read and what the kernel improves.

A `Bearing` is the whole of what the agent knows that bears on the rest of the day, frozen at one instant. Everything
here is computed from it, so a job carries its bearing along and any thread gets the same rows, the same problem and
the same estimates from it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.arrivals import Arrivals, HeldUp, Honesty, Pause, join
from shared.contracts import DEPOT_PLACE, LegTimes, Plan, Rest
from shared.features import Correlation, LegSeen, StopSeen, leg_rows, stop_rows
from shared.messages import Estimate
from shared.quantities import EpochMs, Position, TimeWindow, metres_between
from shared.routes import ALWAYS_OPEN, NEVER_CLOSES, Break, RouteProblem, evaluate
from shared.steps import Job
from shared.work import Stop, StopId

Quantiles = npt.NDArray[np.floating]
"""float [n, 3] seconds: in one, five and nine cases of ten it takes no longer."""

DETOUR = 1.35
"""Metres driven for a metre of straight line, because plans carry seconds only. The models are trained on tables made
with the same factor (and lean on seconds: the shipped town's own median is 1.6, with quartiles of 1.3 and 1.9)."""

LEG_SPREAD = (0.82, 1.0, 1.35)
STOP_SPREAD = (0.65, 1.0, 1.7)
"""P10, P50 and P90 over the plan's own time when no model is there: legs and stops both run late further than early."""

PLAN_CORRELATION = Correlation(legs=0.3, dwells=0.15, between=0.1)
"""A slow day is slow on every leg: what we assume while no model's card says how much."""

SHORTEST_REST_OF_A_STOP_S = 45.0
"""A driver who has been longer at a door than nine of ten still has to walk back."""


class Margin(NamedTuple):
    """What is kept in hand before the end of a window: a share of the way from P50 to P90, at most so many seconds."""

    share: float
    most_s: float


TOLD_MARGIN = Margin(0.6, 600.0)
"""A told window can be told anew; one van in four comes that late or later."""
SLOT_MARGIN = Margin(1.0, 2_400.0)
"""A slot cannot: one van in ten, as far as the two hours that are sold allow."""

BREAK_LIKED = (0.1, 0.7)
"""Drivers take their break in this part of its window: so the simulated ones do, a fleet's own record may say other."""

HELD_UP = HeldUp(per_hour=0.09, from_s=600.0, to_s=1_800.0)
"""Once in eleven hours of work something holds a van up for ten minutes to half an hour: so it does on simulated days,
and what it leaves out `HONESTY` measures."""

HONESTY = Honesty(
    ahead_min=(0, 10, 20, 35, 60, 90, 140, 200, 280, 400),
    shift_s=(0,) * 10,
    below=(0.94, 1.08, 1.10, 1.24, 1.37, 1.73, 2.59, 4.27, 6.29, 4.70),
    above=(2.50, 2.07, 1.92, 1.98, 2.22, 2.53, 3.10, 3.73, 4.41, 2.98),
)
HONEST_HOURS = (7.5, 8.5, 9.5, 10.5, 11.5, 12.0, 12.5, 13.5)
BELOW_BY_HOUR = (0.77, 0.94, 1.17, 1.17, 1.00, 0.87, 0.83, 1.02)
ABOVE_BY_HOUR = (0.92, 1.04, 0.99, 0.96, 1.14, 1.40, 0.73, 0.48)
"""Measured on simulated days 400 to 439 (120 van-days, 82,616 expectations): in every distance, and in every local hour
in which it is said, the stretch that lets one arrival in ten come before P10 and one after P90, fitted in turn
(`python -m tests.bench.promises --fit`). Half of it is the re-ordering that is still to come, which no scenario of the
present order holds; the rest are slow hours. Noon has a knot of its own: most breaks are over soon after it."""

ORDER_STAYS = Honesty((0, 30, 60), (0, 0, 0), (1.1, 1.2, 1.4), (2.0, 1.8, 1.9))
"""The same for vans whose order stayed as it was: slow hours and weather alone."""

ADVISE_EVERY_MS = 1_800_000
"""How finely the break is placed: a finer advice changes more often and spares nobody more."""
WORTH_WAITING = 0.1
"""A later break must spare a tenth of a customer's slot: less is noise of the scenarios."""

SHIFT_WEIGHT = 2
"""Weighted seconds for each second of overtime; a customer's lateness weighs `Stop.lateness_weight`, 3 as a rule."""
REST_WEIGHT = 3
"""Weighted seconds for each second that the break begins too late."""


class Bearing(msgspec.Struct, frozen=True):
    """Where one van's day stands at one instant.

    `order` holds the stops still to come as shown, the one under way first; `under_way` is None while the van stands
    between two stops. `from_place` is the place last left (None: the depot), which the van leaves, or left, at
    `leaves_ms`; what lies ahead goes on at `resumes_ms`: now, or when the van will be free. `share_left` of the leg to
    the stop under way still lies ahead. `rest` is the break still to be taken.
    `at_stop_since_ms` is None unless the van stands at the stop under way.
    """

    plan: Plan
    legs: LegTimes
    matrix: npt.NDArray[np.int32]
    zone: tzinfo
    now_ms: int
    order: tuple[StopId, ...]
    under_way: StopId | None
    from_place: StopId | None
    from_position: Position
    leaves_ms: int
    resumes_ms: int
    share_left: float
    at_stop_since_ms: int | None
    rest: Rest | None
    pace: float
    dwell_pace: float
    told: dict[StopId, TimeWindow]

    def stop(self, stop_id: StopId) -> Stop:
        """The stop of this id, as the plan has it."""
        return _stops(self.plan)[stop_id]

    def told_window(self, stop_id: StopId) -> TimeWindow:
        """The window last told to the customer."""
        return self.told.get(stop_id, self.stop(stop_id).told)


_last_stops: tuple[Plan | None, dict[StopId, Stop]] = (None, {})


def _stops(plan: Plan) -> dict[StopId, Stop]:
    # One plan is asked about thousands of times; the pair is replaced whole, so any thread sees plan and table agree.
    global _last_stops  # noqa: PLW0603 - a cache of a pure function.
    known = _last_stops
    if known[0] is not plan:
        known = (plan, {stop.stop_id: stop for stop in plan.stops})
        _last_stops = known
    return known[1]


class Rows(NamedTuple):
    """What the models read for an order: one leg to each stop and one home, and one row for each stop."""

    legs: npt.NDArray[np.float32]
    stops: npt.NDArray[np.float32]


class Foreseen(msgspec.Struct, frozen=True):
    """What a model said of an order's legs [n + 1, 3] and stops [n, 3], whole and in seconds.

    `correlation` is how much of their luck a day shares; `model` names who said so, "none" when it was the plan.
    """

    legs: Quantiles
    stops: Quantiles
    correlation: Correlation
    model: str


class Predict(Job, frozen=True):
    """How long everything ahead will take, in the order shown."""

    bearing: Bearing


class Predicted(msgspec.Struct, frozen=True):
    """The answer to a `Predict`."""

    need: str
    foreseen: Foreseen
    took_ms: float = 0.0


class Improve(Job, frozen=True):
    """A better order of what lies beyond the stop under way, if there is one, and how long everything takes in it."""

    bearing: Bearing
    problem: RouteProblem
    limit_ms: int
    seed: int


class Improved(msgspec.Struct, frozen=True):
    """The answer to an `Improve`: nodes of the problem in their new order, and what is foreseen for it.

    `foreseen` is of the whole order, the stop under way included; None when the order stayed.
    """

    need: str
    nodes: tuple[int, ...]
    iterations: int
    foreseen: Foreseen | None
    took_ms: float = 0.0


class Spans(NamedTuple):
    """How long everything ahead takes, in seconds at three quantiles; the first leg and stop only what is left of them.

    `legs` has one entry more than `stops`: the way home.
    """

    legs: Quantiles
    stops: Quantiles


def place_row(legs: LegTimes, place: StopId | None) -> int:
    """Row and column of a place in the leg times; the depot's for None and for a place they do not know."""
    return DEPOT_PLACE if place is None or place not in legs.places else legs.places.index(place) + 1


def slice_at(legs: LegTimes, instant_ms: float) -> int:
    """Which slice of the leg times serves a departure at this instant."""
    passed = sum(end <= instant_ms for end in legs.slice_ends_ms)
    return min(passed, len(legs.slice_ends_ms) - 1)


def map_seconds(bearing: Bearing, order: Sequence[StopId]) -> list[float]:
    """The plan's own time for each leg of an order and the way home, by the hour at which it is likely to begin."""
    rows = {place: row + 1 for row, place in enumerate(bearing.legs.places)}
    here = DEPOT_PLACE if bearing.from_place is None else rows.get(bearing.from_place, DEPOT_PLACE)
    clock_ms = float(bearing.leaves_ms)
    found = []
    for stop_id in (*order, None):
        there = DEPOT_PLACE if stop_id is None else rows[stop_id]
        seconds = float(bearing.matrix[slice_at(bearing.legs, clock_ms), here, there])
        found.append(seconds)
        clock_ms += seconds * bearing.pace * 1000
        if stop_id is not None:
            stop = bearing.stop(stop_id)
            clock_ms = max(clock_ms, _earliest_ms(stop)) + stop.service_s * bearing.dwell_pace * 1000
        here = there
    return found


def rows_for(bearing: Bearing, order: Sequence[StopId]) -> Rows:
    """What the models read to foresee this order."""
    legs, stops = [], []
    clock_ms, here = float(bearing.leaves_ms), bearing.from_position
    depot = bearing.plan.depot
    is_stem = bearing.from_place is None and depot.stem_s > 0
    left = None if bearing.from_place is None else _stops(bearing.plan).get(bearing.from_place)
    group, at_same_door = "" if left is None else left.door_group, 0
    for stop_id, map_s in zip((*order, None), map_seconds(bearing, order), strict=True):
        there = depot.gateway if stop_id is None else bearing.stop(stop_id).position
        hour, weekday = _local_hour(bearing.zone, clock_ms)
        is_stem = is_stem or (stop_id is None and depot.stem_s > 0)
        metres = metres_between(here, there) * DETOUR
        legs.append(LegSeen(map_s, metres, hour, weekday, bearing.pace, is_stem))
        clock_ms += map_s * bearing.pace * 1000
        if stop_id is not None:
            stop = bearing.stop(stop_id)
            at_same_door = at_same_door + 1 if stop.door_group and stop.door_group == group else 0
            group = stop.door_group
            hour, _ = _local_hour(bearing.zone, clock_ms)
            stops.append(_stop_seen(stop, at_same_door, hour, bearing.dwell_pace))
            clock_ms = max(clock_ms, _earliest_ms(stop)) + stop.service_s * bearing.dwell_pace * 1000
        here, is_stem = there, False
    return Rows(leg_rows(legs), stop_rows(stops))


def _stop_seen(stop: Stop, at_same_door: int, hour: float, dwell_pace: float) -> StopSeen:
    return StopSeen(
        planned_service_s=stop.service_s,
        service=stop.service,
        parcels=len(stop.parcels),
        litres=sum(parcel.litres for parcel in stop.parcels),
        floor=stop.floor,
        has_lift=stop.has_lift,
        is_business=stop.is_business,
        same_door_index=at_same_door,
        hour_of_day=hour,
        dwell_pace=dwell_pace,
    )


def plans_own(bearing: Bearing, order: Sequence[StopId]) -> Foreseen:
    """What the plan itself expects, with the stated spreads: for a van whose models are missing or have failed."""
    legs = np.array(map_seconds(bearing, order), np.float32) * bearing.pace
    stops = np.array([bearing.stop(stop_id).service_s for stop_id in order], np.float32) * bearing.dwell_pace
    return Foreseen(
        np.outer(legs, LEG_SPREAD).astype(np.float32),
        np.outer(stops, STOP_SPREAD).astype(np.float32),
        PLAN_CORRELATION,
        "none",
    )


def spans_left(bearing: Bearing, legs: Quantiles, stops: Quantiles) -> Spans:
    """What is left of the leg or the stop under way, and the whole of everything after it.

    Between two stops of one door there is no leg, whatever a model makes of one that takes no time.
    """
    legs, stops = legs.astype(np.float32), stops.astype(np.float32)
    legs[:-1][_stays_parked(bearing)] = 0.0
    if bearing.at_stop_since_ms is not None and len(stops):
        passed_s = (bearing.now_ms - bearing.at_stop_since_ms) / 1000
        begins_in_s = max(0.0, (_earliest_ms(bearing.stop(bearing.order[0])) - bearing.now_ms) / 1000)
        legs[0] = 0.0
        if begins_in_s == 0:
            stops[0] = np.maximum(stops[0] - passed_s, SHORTEST_REST_OF_A_STOP_S * np.array([0.3, 1.0, 2.5]))
    elif bearing.under_way is not None:
        legs[0] *= bearing.share_left
    return Spans(legs, stops)


def _stays_parked(bearing: Bearing) -> npt.NDArray[np.bool_]:
    """Which stops of the order are served from where the van stands already, bool[n]."""
    left = None if bearing.from_place is None else _stops(bearing.plan).get(bearing.from_place)
    groups = ["" if left is None else left.door_group, *(bearing.stop(stop_id).door_group for stop_id in bearing.order)]
    return np.array([here == there != "" for here, there in pairwise(groups)], bool)


def arrivals(bearing: Bearing, order: Sequence[StopId], spans: Spans, correlation: Correlation) -> Arrivals:
    """When service at each stop of an order begins, in scenarios; the driver has his break when he likes it."""
    return _joined(bearing, order, spans, correlation, _honesty(bearing))


def arrivals_in_this_order(
    bearing: Bearing, order: Sequence[StopId], spans: Spans, correlation: Correlation
) -> Arrivals:
    """The same for an order that stays as it is: what decisions about the order and the break are made by.

    That another order may come later is no danger to this one.
    """
    return _joined(bearing, order, spans, correlation, ORDER_STAYS)


def _joined(
    bearing: Bearing, order: Sequence[StopId], spans: Spans, correlation: Correlation, honesty: Honesty
) -> Arrivals:
    opens, pause = opens_ms(bearing, order), pause_ahead(bearing)
    return join(bearing.resumes_ms, spans.legs[:-1], spans.stops, opens, correlation, pause, HELD_UP, honesty)


def _honesty(bearing: Bearing) -> Honesty:
    """What measurement adds in this local hour; in hours never measured as in the nearest that was."""
    hour, _ = _local_hour(bearing.zone, bearing.now_ms)
    below, above = (float(np.interp(hour, HONEST_HOURS, by_hour)) for by_hour in (BELOW_BY_HOUR, ABOVE_BY_HOUR))
    return HONESTY.scaled(below, above)


def with_rest_advised(bearing: Bearing, order: Sequence[StopId], spans: Spans, correlation: Correlation) -> Bearing:
    """The bearing with its break where it breaks the fewest promises: the driver is shown it from then on.

    The earliest begin, by half hours inside the break's own window, after which the fewest customers are expected
    to be served after their slot. The driver still takes it when he likes; the plan's window is never left.
    """
    rest, planned = bearing.rest, bearing.plan.rest
    if rest is None or planned is None:
        return bearing
    first_ms, closes_ms = int(planned.begins.opens_ms), planned.begins.closes_ms
    while first_ms + ADVISE_EVERY_MS <= min(bearing.resumes_ms, closes_ms):
        first_ms += ADVISE_EVERY_MS
    slots = np.array([bearing.stop(stop_id).slot.closes_ms for stop_id in order], np.int64)
    best, fewest = bearing, math.inf
    for begin_ms in range(first_ms, closes_ms + 1, ADVISE_EVERY_MS):
        begins = TimeWindow(EpochMs(begin_ms), closes_ms)
        tried = msgspec.structs.replace(bearing, rest=Rest(rest.duration_s, begins))
        broken = float(arrivals_in_this_order(tried, order, spans, correlation).late_probabilities(slots).sum())
        if broken < fewest - WORTH_WAITING:
            best, fewest = tried, broken
        if broken < WORTH_WAITING:
            break
    return best


def pause_ahead(bearing: Bearing) -> Pause | None:
    """The break still to be taken, and when the driver may like it; None when there is none."""
    rest = bearing.rest
    if rest is None:
        return None
    opens_ms_, lasts_ms = rest.begins.opens_ms, rest.begins.closes_ms - rest.begins.opens_ms
    from_ms, to_ms = (opens_ms_ + share * lasts_ms for share in BREAK_LIKED)
    from_s, to_s = (max(0.0, (at_ms - bearing.resumes_ms) / 1000) for at_ms in (from_ms, to_ms))
    return Pause(rest.duration_s, from_s, to_s, bearing.under_way is not None)


def estimates(bearing: Bearing, order: Sequence[StopId], joined: Arrivals) -> tuple[Estimate, ...]:
    """What is told of the arrivals: three quantiles for each stop; where the van stands already, when service began."""
    found = []
    for stop_id, instants in zip(order, joined.quantiles_ms().tolist(), strict=True):
        low, middle, high = instants
        if bearing.at_stop_since_ms is not None and stop_id == bearing.under_way:
            low = middle = high = max(bearing.at_stop_since_ms, _earliest_ms(bearing.stop(stop_id)))
        found.append(Estimate(stop_id, EpochMs(round(low)), EpochMs(round(middle)), EpochMs(round(high))))
    return tuple(found)


def opens_ms(bearing: Bearing, order: Sequence[StopId]) -> list[int]:
    """When service can first begin at each stop: a driver waits for the slot, not for the told window."""
    return [_earliest_ms(bearing.stop(stop_id)) for stop_id in order]


def route_problem(bearing: Bearing, spans: Spans, is_by_slot: bool = False) -> RouteProblem:
    """The rest of the day beyond the stop under way, as the kernel sees it: seconds counted from the plan's departure.

    Node 0 is where it begins (the stop under way, else the place the van stands at), node k + 1 the k-th stop beyond,
    the last node the depot. Windows close as told, or as sold when `is_by_slot`, and open when a driver would begin.
    """
    plan, beyond = bearing.plan, orders_beyond(bearing)
    base_ms = plan.depart_ms
    begin, leave_ms = _beginning(bearing, spans)
    places = [place_row(bearing.legs, begin), *(place_row(bearing.legs, s) for s in beyond), DEPOT_PLACE]
    first = 0 if bearing.under_way is None else 1
    travel = bearing.matrix[:, places, :][:, :, places].astype(np.float32) * _leg_factor(bearing, spans)
    end = len(beyond) + 1
    order = tuple(range(1, end))
    stops = [bearing.stop(stop_id) for stop_id in beyond]
    windows = [_promised(bearing, stop, is_by_slot) for stop in stops]
    loads = [_load_change(stop) for stop in stops]
    capacity = plan.capacity_litres * 10
    load_now = -sum(min(0, load) for load in loads)
    node = {stop_id: k + 1 for k, stop_id in enumerate(beyond)}
    wanted = [(node[a], node[b]) for a, b in plan.before if a in node and b in node]
    rest = bearing.rest
    return RouteProblem(
        travel=np.rint(travel).astype(np.int32),
        order=order,
        start=0,
        leave=_seconds(leave_ms, base_ms),
        service=(0, *(max(0, round(float(s))) for s in spans.stops[first:, 1]), 0),
        earliest=(ALWAYS_OPEN, *(_seconds(w.opens_ms, base_ms) for w in windows), ALWAYS_OPEN),
        latest=(NEVER_CLOSES, *(_seconds(w.closes_ms, base_ms) for w in windows), NEVER_CLOSES),
        lateness_weight=(0, *(stop.lateness_weight for stop in stops), 0),
        end=end,
        slice_ends=tuple(_seconds(end_ms, base_ms) for end_ms in bearing.legs.slice_ends_ms[:-1]),
        changed_arc_cost=plan.freedom.changed_arc_s,
        # A driver who went elsewhere may have broken a precedence already; the kernel keeps the others.
        precedence=tuple((a, b) for a, b in wanted if a < b),
        load_change=(0, *loads, 0),
        load_now=load_now,
        capacity=capacity if load_now + sum(max(0, load) for load in loads) > capacity >= load_now else None,
        rest=None if rest is None else _break(rest, base_ms),
        shift_end=_seconds(plan.shift_end_ms, base_ms),
        shift_weight=SHIFT_WEIGHT,
    )


def with_margins(
    problem: RouteProblem, bearing: Bearing, expected: Sequence[Estimate], margin: Margin = TOLD_MARGIN
) -> RouteProblem:
    """The same problem as the promises want it, which the kernel is given: less room at both ends of every window.

    It closes earlier by a share of how much later than expected the van may get there: a van on time only if nothing
    goes wrong is in trouble already, and the hub, too, moves a window on its P90. And nobody is to be served before the
    told window opens, unless the present order does so anyway.
    """
    doubts = {estimate.stop_id: (estimate.p90_ms - estimate.p50_ms) / 1000 for estimate in expected}
    begins = evaluate(problem, problem.order).begins
    earliest, latest = list(problem.earliest), list(problem.latest)
    for node, stop_id in enumerate(orders_beyond(bearing), start=1):
        told_opens = _seconds(bearing.told_window(stop_id).opens_ms, bearing.plan.depart_ms)
        earliest[node] = max(earliest[node], min(told_opens, begins[node - 1], latest[node]))
        room_s = (latest[node] - earliest[node]) / 3
        margin_s = min(margin.share * doubts.get(stop_id, 0.0), margin.most_s, room_s)
        latest[node] -= max(0, round(margin_s))
    return replace(problem, earliest=tuple(earliest), latest=tuple(latest))


def orders_beyond(bearing: Bearing) -> tuple[StopId, ...]:
    """The stops that may still be re-ordered: all but the one under way."""
    return bearing.order[1:] if bearing.under_way is not None else bearing.order


def _beginning(bearing: Bearing, spans: Spans) -> tuple[StopId | None, int]:
    if bearing.under_way is None:
        return bearing.from_place, bearing.resumes_ms
    begins_ms = max(bearing.resumes_ms + float(spans.legs[0, 1]) * 1000, _earliest_ms(bearing.stop(bearing.under_way)))
    return bearing.under_way, round(begins_ms + float(spans.stops[0, 1]) * 1000)


def _leg_factor(bearing: Bearing, spans: Spans) -> float:
    """How much longer than the plan the legs ahead take by the model: what the kernel's leg times are scaled by."""
    first = 0 if bearing.under_way is None else 1
    planned = sum(map_seconds(bearing, bearing.order)[first:])
    foreseen = float(spans.legs[first:, 1].sum())
    return min(4.0, max(0.25, foreseen / planned)) if planned > 0 else 1.0


def _promised(bearing: Bearing, stop: Stop, is_by_slot: bool) -> TimeWindow:
    """When service can begin and must have begun: as told, within the hours somebody is there and the slot sold.

    A driver waits for the slot to open, not for the told window. A window told beyond its slot has been apologised
    for; coming inside the slot after all is still what was sold.
    """
    opens = _earliest_ms(stop)
    told_closes = stop.slot.closes_ms if is_by_slot else bearing.told_window(stop.stop_id).closes_ms
    closes = min(told_closes, stop.slot.closes_ms)
    if stop.open_hours is not None and stop.open_hours.closes_ms >= opens:
        closes = min(closes, stop.open_hours.closes_ms)
    return TimeWindow(EpochMs(min(opens, closes)), EpochMs(closes))


def _earliest_ms(stop: Stop) -> int:
    hours = stop.open_hours
    if hours is None or hours.opens_ms > stop.slot.closes_ms:
        return stop.slot.opens_ms
    return max(stop.slot.opens_ms, hours.opens_ms)


def _load_change(stop: Stop) -> int:
    """Decilitres the van gains at this stop."""
    litres = sum(parcel.litres for parcel in stop.parcels)
    return round(10 * litres) * (1 if stop.service == "collection" else -1)


def _break(rest: Rest, base_ms: int) -> Break:
    opens_ms_, closes_ms = rest.begins.opens_ms, rest.begins.closes_ms
    liked_ms = opens_ms_ + sum(BREAK_LIKED) / 2 * (closes_ms - opens_ms_)
    return Break(rest.duration_s, _seconds(liked_ms, base_ms), _seconds(closes_ms, base_ms), REST_WEIGHT)


def _seconds(instant_ms: float, base_ms: int) -> int:
    return round((instant_ms - base_ms) / 1000)


def _local_hour(zone: tzinfo, instant_ms: float) -> tuple[float, int]:
    local = datetime.fromtimestamp(instant_ms / 1000, UTC).astimezone(zone)
    return local.hour + local.minute / 60 + local.second / 3600, local.weekday()
