"""Which stops go to which vehicle: the fleet's problem in whole seconds, and the contract made of its answer.

The solver speaks of nodes and seconds from the day's origin: depots first, then stops. It knows no breaks and no time
of day, so a break is reserved by taking its length out of the middle of the day, and travel is the day's mean; every
route it finds is then judged and repaired with the exact evaluator, which knows both.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from cloud_hub.events import Pace, Route
from cloud_hub.fleet import Vehicle
from cloud_hub.promises import Rule, first_told
from shared.contracts import DEPOT_PLACE, LegTimes, Plan, Rest
from shared.messages import Estimate
from shared.quantities import EpochMs, Seconds, TimeWindow
from shared.routes import ALWAYS_OPEN, NEVER_CLOSES, Break, Cost, RouteProblem
from shared.work import Depot, Stop, StopId

Whole = npt.NDArray[np.int32]

SHIFT_WEIGHT = 5
REST_WEIGHT = 2
"""A second of overtime weighs like five of driving, a second of a late break like two."""

RIGHTS_OUTLAST_SHIFT_MS = 2 * 3_600_000
"""A contract expires this long after the shift, so that a van on overtime may still re-order its work."""

SPREAD_AT_H = (0.75, 1.75, 2.5, 3.5, 4.5, 6.0)
EARLY_MIN = (4.0, 4.0, 8.0, 11.0, 20.0, 22.0)
LATE_MIN = (5.0, 11.0, 19.0, 26.0, 28.0, 28.0)
"""How early (P10) and how late (P90) a planned arrival may be, by the hours since leaving, before any van has said so:
measured on simulated days 400 to 423, the driver's break and everything that befell them included. The agent's own
models replace this with its first estimate.
"""

BREAK_LIKED = 0.4
"""Where in the break's window drivers begin it on average: so the simulated ones do."""


class VehicleNumbers(msgspec.Struct, frozen=True):
    """A vehicle in the solver's terms: depot node, working time and break in seconds from the origin, litres."""

    depot: int
    begins_s: int
    ends_s: int
    litres: int
    most_work_s: tuple[int, ...]


FAIR_SHARE = 1.12
"""No van gets more than this much of an even share of the work: using every van that is there anyway leaves each some
slack, and slack is what absorbs a delay.
"""

SLACK_MS = 15 * 60_000
SLACK_SHARE = 0.25
"""A planned arrival keeps this far from the end of its window, but at most this share of the window: a plan that is on
time to the minute is late on any real day.
"""

PARTS_OF_DAY = 3
"""Shared as a whole, one van got the morning and another the afternoon, each without slack while it lasted; so every
third of the stops, by the end of their windows, is shared out apart.
"""

BETWEEN_STOPS_S = 90
"""A leg between neighbouring stops in town, parking search included, for guessing what a stop's work is."""


class FleetProblem(msgspec.Struct, frozen=True):
    """Vehicles and stops in whole seconds from `origin_ms`; nodes are the depots, then the stops.

    `travel` has shape (n, n). `opens_s`, `closes_s`, `service_s`, `litres` have one entry per stop; litres below 0
    are collected. `work_s` is what a stop adds to the work of each part of the day; a vehicle takes at most its
    `most_work_s` of each.
    """

    origin_ms: EpochMs
    depots: int
    travel: list[list[int]]
    opens_s: tuple[int, ...]
    closes_s: tuple[int, ...]
    service_s: tuple[int, ...]
    litres: tuple[int, ...]
    work_s: tuple[tuple[int, ...], ...]
    vehicles: tuple[VehicleNumbers, ...]


def paced(stop: Stop, pace: Pace) -> Stop:
    """The stop with the time it really takes."""
    return msgspec.structs.replace(stop, service_s=Seconds(round(stop.service_s * pace.stops)))


def window_of(stop: Stop) -> TimeWindow:
    """When service may begin: the slot, narrowed to the hours in which somebody is there, unless the two never meet."""
    if stop.open_hours is None:
        return stop.slot
    opens = max(stop.slot.opens_ms, stop.open_hours.opens_ms)
    closes = min(stop.slot.closes_ms, stop.open_hours.closes_ms)
    return TimeWindow(opens, closes) if opens < closes else stop.slot


def aimed_at(stop: Stop) -> TimeWindow:
    """The part of the window that is planned for: its end is left as slack."""
    window = window_of(stop)
    slack_ms = min(SLACK_MS, int(SLACK_SHARE * (window.closes_ms - window.opens_ms)))
    return TimeWindow(window.opens_ms, EpochMs(window.closes_ms - slack_ms))


def litres_of(stop: Stop) -> int:
    """What a stop takes off the van, in whole litres; below 0 what it brings on board."""
    litres = round(sum(parcel.litres for parcel in stop.parcels))
    return -litres if stop.service == "collection" else litres


def fleet_problem(
    vehicles: Sequence[Vehicle], depots: Sequence[Depot], stops: Sequence[Stop], travel_s: npt.NDArray[np.int64]
) -> FleetProblem:
    """The fleet's day as the solver sees it; `travel_s` has shape (depots + stops, depots + stops)."""
    origin_ms = min(vehicle.begins_ms for vehicle in vehicles)
    rest = _common_rest(vehicles)
    place = {depot.depot_id: node for node, depot in enumerate(depots)}

    def squeezed_s(instant_ms: int) -> int:
        return (_without_rest(instant_ms, rest) - origin_ms) // 1000

    return FleetProblem(
        origin_ms=origin_ms,
        depots=len(depots),
        travel=travel_s.tolist(),
        opens_s=tuple(max(0, squeezed_s(aimed_at(stop).opens_ms)) for stop in stops),
        closes_s=tuple(max(0, squeezed_s(aimed_at(stop).closes_ms)) for stop in stops),
        service_s=tuple(stop.service_s for stop in stops),
        litres=tuple(litres_of(stop) for stop in stops),
        vehicles=tuple(
            VehicleNumbers(
                place[vehicle.depot_id],
                squeezed_s(vehicle.begins_ms),
                squeezed_s(vehicle.ends_ms),
                vehicle.capacity_litres,
                _fair_share_s(vehicle, vehicles, _work_s(stops)),
            )
            for vehicle in vehicles
        ),
        work_s=_work_s(stops),
    )


def route_problem(
    vehicle: Vehicle, stops: Sequence[Stop], travel_s: Whole, slice_ends_ms: Sequence[int]
) -> RouteProblem:
    """One vehicle's route in whole seconds from its shift's begin, for the evaluator and the kernel.

    Node 0 is the depot; stop k of `stops`, in the order now planned, is node k + 1; the last node is the depot again.
    `travel_s` has shape (slices, 1 + stops, 1 + stops).
    """
    begins_ms = vehicle.begins_ms
    windows = [aimed_at(stop) for stop in stops]
    to_depot = np.concatenate((travel_s, travel_s[:, :, :1]), axis=2)
    closed = np.concatenate((to_depot, to_depot[:, :1, :]), axis=1)
    home = len(stops) + 1
    return RouteProblem(
        travel=closed,
        order=tuple(range(1, home)),
        start=0,
        leave=0,
        service=(0, *(stop.service_s for stop in stops), 0),
        earliest=(0, *((window.opens_ms - begins_ms) // 1000 for window in windows), 0),
        latest=(0, *((window.closes_ms - begins_ms) // 1000 for window in windows), 1 << 40),
        lateness_weight=(0, *(stop.lateness_weight for stop in stops), 0),
        end=home,
        slice_ends=tuple((end - begins_ms) // 1000 for end in slice_ends_ms[:-1]),
        load_change=(0, *(-litres_of(stop) for stop in stops), 0),
        load_now=sum(max(0, litres_of(stop)) for stop in stops),
        capacity=max(vehicle.capacity_litres, sum(max(0, litres_of(stop)) for stop in stops)),
        rest=_break(vehicle.rest, begins_ms),
        shift_end=(vehicle.ends_ms - begins_ms) // 1000,
        shift_weight=SHIFT_WEIGHT,
    )


def route_of(vehicle: Vehicle, stops: Sequence[Stop], cost: Cost, problem: RouteProblem, legs: LegTimes) -> Route:
    """A route from its exact cost; `stops` are in the order `cost` was found for.

    A van that would wait in front of its first door leaves that much later.
    """
    begins_ms = vehicle.begins_ms
    wait_s = _wait_at_depot_s(problem, cost)
    return Route(
        agent=vehicle.agent,
        order=tuple(stop.stop_id for stop in stops),
        depart_ms=EpochMs(begins_ms + wait_s * 1000),
        estimates=tuple(
            first_estimate(stop.stop_id, begins_ms + begin_s * 1000, begin_s - wait_s)
            for stop, begin_s in zip(stops, cost.begins, strict=True)
        ),
        legs=legs,
        finish_ms=EpochMs(begins_ms + cost.finish * 1000),
        driving_s=cost.driving,
        late_s=late_s(vehicle, stops, cost),
    )


def late_s(vehicle: Vehicle, stops: Sequence[Stop], cost: Cost) -> int:
    """By how many seconds a route misses its stops' windows in all; `stops` are in the order `cost` was found for."""
    return sum(
        round(window_of(stop).late_s(vehicle.begins_ms + begin_s * 1000))
        for stop, begin_s in zip(stops, cost.begins, strict=True)
    )


def contract(
    route: Route,
    vehicle: Vehicle,
    depot: Depot,
    stops: dict[StopId, Stop],
    version: int,
    told: dict[StopId, TimeWindow],
) -> Plan:
    """The plan an agent is handed: its work in planned order, with the windows told and a place for every parcel."""
    return Plan(
        plan_version=version,
        agent=vehicle.agent,
        day=vehicle.day,
        depot=depot,
        depart_ms=route.depart_ms,
        shift_end_ms=vehicle.ends_ms,
        expires_ms=EpochMs(vehicle.ends_ms + RIGHTS_OUTLAST_SHIFT_MS),
        stops=stowed([with_told(stops[stop_id], told[stop_id]) for stop_id in route.order], vehicle.capacity_litres),
        legs=route.legs,
        rest=vehicle.rest,
        capacity_litres=vehicle.capacity_litres,
    )


def with_told(stop: Stop, told: TimeWindow) -> Stop:
    """The stop with its told window, cut to its slot: a plan never asks an agent to be outside what was sold."""
    opens = min(max(told.opens_ms, stop.slot.opens_ms), stop.slot.closes_ms)
    closes = max(min(told.closes_ms, stop.slot.closes_ms), opens)
    return msgspec.structs.replace(stop, told=TimeWindow(opens, closes))


def first_windows(route: Route, stops: dict[StopId, Stop], rule: Rule) -> dict[StopId, TimeWindow]:
    """The first window told for every stop of a route."""
    return {estimate.stop_id: first_told(stops[estimate.stop_id].slot, estimate, rule) for estimate in route.estimates}


def remaining_plan(plan: Plan, stop_ids: Sequence[StopId], told: dict[StopId, TimeWindow], version: int) -> Plan:
    """The same contract for the stops still to come, in this order, with the windows told since."""
    stops = {stop.stop_id: stop for stop in plan.stops}
    return msgspec.structs.replace(
        plan,
        plan_version=version,
        stops=tuple(with_told(stops[stop_id], told.get(stop_id, stops[stop_id].told)) for stop_id in stop_ids),
        legs=narrowed(plan.legs, stop_ids),
        before=tuple(pair for pair in plan.before if set(pair) <= set(stop_ids)),
    )


def legs_by_place(plan: Plan, stops: Sequence[Stop]) -> LegTimes | None:
    """The leg times between these stops as the plan's own leg times know them; None when one stands at a place where no
    stop of the plan does. Two visits to one place have no way between them.
    """
    row = {stop_id: place + 1 for place, stop_id in enumerate(plan.legs.places)}
    at_place = {stop.position: row[stop.stop_id] for stop in reversed(plan.stops)}
    rows = [at_place.get(stop.position) for stop in stops]
    if None in rows:
        return None
    own = [row.get(stop.stop_id, found) for stop, found in zip(stops, rows, strict=True)]
    keep = np.array([0, *own], dtype=np.int64)
    ids = tuple(stop.stop_id for stop in stops)
    seconds = plan.legs.matrix()[:, keep[:, None], keep[None, :]]
    return LegTimes.from_matrix(plan.legs.roads_version, ids, plan.legs.slice_ends_ms, seconds)


def narrowed(legs: LegTimes, stop_ids: Sequence[StopId]) -> LegTimes:
    """The leg times between the depot and these stops alone."""
    row = {stop_id: place + 1 for place, stop_id in enumerate(legs.places)}
    keep = np.array([0, *(row[stop_id] for stop_id in stop_ids)])
    return LegTimes.from_matrix(
        legs.roads_version, tuple(stop_ids), legs.slice_ends_ms, legs.matrix()[:, keep[:, None], keep[None, :]]
    )


def mean_travel(
    depots: Sequence[Depot], legs: Mapping[str, LegTimes], tables: Mapping[str, Whole]
) -> npt.NDArray[np.int64]:
    """The day's mean travel times in seconds between depots and stops: int64 [depots + stops, depots + stops].

    `legs` holds the same places for every depot, by depot id; `tables` their seconds, [slices, 1 + stops, 1 + stops]. A
    slice weighs as long as it lasts.
    """
    first = legs[depots[0].depot_id]
    ends = np.array(first.slice_ends_ms, dtype=np.int64)
    lasts = np.diff(ends, prepend=ends[0] - 3_600_000).astype(float)
    count, stops = len(depots), len(first.places)
    mean = np.zeros((count + stops, count + stops))
    for node, depot in enumerate(depots):
        table = np.average(tables[depot.depot_id], axis=0, weights=lasts)
        mean[count:, count:] = table[1:, 1:]
        mean[node, count:] = table[0, 1:]
        mean[count:, node] = table[1:, 0]
    # No van drives from depot to depot.
    mean[:count, :count] = np.where(np.eye(count, dtype=bool), 0.0, 86_400.0)
    return np.rint(mean).astype(np.int64)


def with_shared_doors(legs: LegTimes, stops: Sequence[Stop]) -> LegTimes:
    """The leg times with none between stops of one door: they are served from one parking place.

    `stops` are those of `legs.places`, in the same order.
    """
    groups: dict[str, list[int]] = {}
    for row, stop in enumerate(stops, start=1):
        if stop.door_group:
            groups.setdefault(stop.door_group, []).append(row)
    seconds = legs.matrix()
    for rows in groups.values():
        seconds[:, np.array(rows)[:, None], np.array(rows)[None, :]] = 0
    return LegTimes.from_matrix(legs.roads_version, legs.places, legs.slice_ends_ms, seconds)


def rest_of_day(
    plan: Plan,
    legs: LegTimes,
    stops: Sequence[Stop],
    begins_at: StopId | None,
    leaves_ms: int,
    pace: Pace,
    rest: Rest | None,
) -> RouteProblem:
    """What a van under way still has to do, in whole seconds from the plan's departure.

    Node 0 is where it is (a place of `legs`, None for the depot), stop k of `stops` is node k + 1, the last node the
    depot. Windows open with the slot and close as told. `pace` is how much longer things take than planned; `rest` is
    the break if it is still to come. A van that is over its capacity already has none.
    """
    base_ms = plan.depart_ms
    row = {stop_id: place + 1 for place, stop_id in enumerate(legs.places)}
    here = DEPOT_PLACE if begins_at is None else row[begins_at]
    rows = np.array([here, *(row[stop.stop_id] for stop in stops), DEPOT_PLACE])
    travel = np.rint(legs.matrix()[:, rows[:, None], rows[None, :]] * pace.legs).astype(np.int32)
    opens = [window_of(stop).opens_ms for stop in stops]
    windows = [TimeWindow(begin, max(begin, stop.told.closes_ms)) for begin, stop in zip(opens, stops, strict=True)]
    loads = [-litres_of(stop) for stop in stops]
    load_now = -sum(min(0, load) for load in loads)
    end = len(stops) + 1
    return RouteProblem(
        travel=travel,
        order=tuple(range(1, end)),
        start=0,
        leave=(leaves_ms - base_ms) // 1000,
        service=(0, *(paced(stop, pace).service_s for stop in stops), 0),
        earliest=(ALWAYS_OPEN, *((window.opens_ms - base_ms) // 1000 for window in windows), ALWAYS_OPEN),
        latest=(NEVER_CLOSES, *((window.closes_ms - base_ms) // 1000 for window in windows), NEVER_CLOSES),
        lateness_weight=(0, *(stop.lateness_weight for stop in stops), 0),
        end=end,
        slice_ends=tuple((end_ms - base_ms) // 1000 for end_ms in legs.slice_ends_ms[:-1]),
        load_change=(0, *loads, 0),
        load_now=load_now,
        capacity=plan.capacity_litres if load_now <= plan.capacity_litres else None,
        rest=_break(rest, base_ms),
        shift_end=(plan.shift_end_ms - base_ms) // 1000,
        shift_weight=SHIFT_WEIGHT,
    )


SHELVES = "ABCDEF"
"""A is at hand from the door, F is at the far end."""


def stowed(stops: Sequence[Stop], capacity_litres: int) -> tuple[Stop, ...]:
    """The stops, in the order in which they are served, with a place in the van for every parcel that has none.

    What is delivered first is at hand. Six shelves hold a sixth of the van each and are filled from A on in the order
    of the stops; the parcels of one stop lie side by side on one shelf, and when they do not fit on what is left of it
    the next one is begun. The last shelf takes what is left. Places on a shelf are counted from 1 ("B3"). A place the
    order itself names is kept, and a collection has none: nothing of it is on board.
    """
    taken = {parcel.stow for stop in stops for parcel in stop.parcels}
    holds = capacity_litres / len(SHELVES)
    shelf, used, place = 0, 0.0, 0
    found = []
    for stop in stops:
        given: dict[str, str] = {}
        bare = () if stop.service == "collection" else tuple(parcel for parcel in stop.parcels if not parcel.stow)
        litres = sum(parcel.litres for parcel in bare)
        if used and used + litres > holds and shelf < len(SHELVES) - 1:
            shelf, used, place = shelf + 1, 0.0, 0
        used += litres
        for parcel in bare:
            place += 1
            while f"{SHELVES[shelf]}{place}" in taken:
                place += 1
            given[parcel.barcode] = f"{SHELVES[shelf]}{place}"
        found.append(with_stow(stop, given))
    return tuple(found)


def with_stow(stop: Stop, places: Mapping[str, str]) -> Stop:
    """The stop with these places of its parcels, by barcode; others keep theirs."""
    parcels = tuple(
        msgspec.structs.replace(parcel, stow=places[parcel.barcode]) if parcel.barcode in places else parcel
        for parcel in stop.parcels
    )
    return msgspec.structs.replace(stop, parcels=parcels)


def _wait_at_depot_s(problem: RouteProblem, cost: Cost) -> int:
    """How much later the van may leave and still begin its first service at the same instant, two minutes kept back."""
    if not cost.begins or (cost.rest_begins is not None and cost.rest_begins < cost.begins[0]):
        return 0
    longest_leg_s = int(problem.travel[:, 0, problem.order[0]].max())
    return max(0, cost.begins[0] - longest_leg_s - 120)


def first_estimate(stop_id: StopId, begin_ms: int, since_leaving_s: int) -> Estimate:
    """What is expected before any van has said so; `since_leaving_s` is how long it will have been under way."""
    hours = since_leaving_s / 3600
    early_s, late_s = (60 * float(np.interp(hours, SPREAD_AT_H, minutes)) for minutes in (EARLY_MIN, LATE_MIN))
    return Estimate(
        stop_id, EpochMs(begin_ms - round(early_s) * 1000), EpochMs(begin_ms), EpochMs(begin_ms + round(late_s) * 1000)
    )


def _work_s(stops: Sequence[Stop]) -> tuple[tuple[int, ...], ...]:
    """Each stop's work, in the part of the day its window ends in."""
    ranks = {close: rank for rank, close in enumerate(sorted(aimed_at(stop).closes_ms for stop in stops))}
    parts = [PARTS_OF_DAY * ranks[aimed_at(stop).closes_ms] // max(1, len(stops)) for stop in stops]
    return tuple(
        tuple(stop.service_s + BETWEEN_STOPS_S if part == own else 0 for part in range(PARTS_OF_DAY))
        for stop, own in zip(stops, parts, strict=True)
    )


def _fair_share_s(vehicle: Vehicle, vehicles: Sequence[Vehicle], work_s: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """A vehicle's share of every part, by the length of its shift, with some room; never less than two stops'."""
    shift_ms = vehicle.ends_ms - vehicle.begins_ms
    share = FAIR_SHARE * shift_ms / sum(each.ends_ms - each.begins_ms for each in vehicles)
    two_stops_s = 2 * max((max(work) for work in work_s), default=0)
    return tuple(max(round(share * sum(work[k] for work in work_s)), two_stops_s) for k in range(PARTS_OF_DAY))


def _break(rest: Rest | None, begins_ms: int) -> Break | None:
    if rest is None:
        return None
    liked_ms = rest.begins.opens_ms + round(BREAK_LIKED * (rest.begins.closes_ms - rest.begins.opens_ms))
    return Break(
        rest.duration_s,
        (liked_ms - begins_ms) // 1000,
        (rest.begins.closes_ms - begins_ms) // 1000,
        REST_WEIGHT,
    )


def _common_rest(vehicles: Sequence[Vehicle]) -> Rest | None:
    """The break reserved for all: stops have one window whoever serves them, so one break must stand for the fleet's.

    It is as long as the longest, and begins in the middle of the mean window.
    """
    rests = [vehicle.rest for vehicle in vehicles if vehicle.rest is not None]
    if not rests:
        return None
    middle_ms = sum((rest.begins.opens_ms + rest.begins.closes_ms) // 2 for rest in rests) // len(rests)
    middle = EpochMs(middle_ms)
    return Rest(Seconds(max(rest.duration_s for rest in rests)), TimeWindow(middle, middle))


def _without_rest(instant_ms: int, rest: Rest | None) -> int:
    """The instant on a day from which the break has been cut out; instants inside the break fall on its begin."""
    if rest is None:
        return instant_ms
    begins_ms = rest.begins.opens_ms
    return instant_ms if instant_ms <= begins_ms else max(begins_ms, instant_ms - rest.duration_s * 1000)
