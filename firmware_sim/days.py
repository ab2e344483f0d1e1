"""Whole days: the named bad ones, and days by the hundred that vans drive alone, to train models on.

A training day knows nothing of agents: every van drives a fixed route over random addresses of the town, and what
the map said beside what was true is written down. Seeds are days; which seeds train, calibrate and test is for the
one who trains to say.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_sim.city import Traffic, World
from firmware_sim.ground import HOUR_MS, LocalTime
from firmware_sim.luck import Luck
from firmware_sim.person import Errand, driver
from firmware_sim.vehicle import Arrived, Departed, Happening, Served, Van
from shared.citymap import Address, CityMap
from shared.features import Pace
from shared.quantities import EpochMs, Position, Seconds, TimeWindow
from shared.streets import Streets
from shared.work import Depot

VANS_A_DAY = 3
DETOUR = 1.35
"""Metres driven for a metre of straight line, as agents reckon (Boscoe, Henry and Zdeb 2012)."""

FEWEST_STOPS, MOST_STOPS = 35, 45
FIRST_DAY_MS = 1_735_682_400_000
"""Local midnight (UTC+2) of 1 January 2025, a Wednesday: the day of seed 0. The next seed is the next working day."""

LEG_COLUMNS = (
    "day_seed", "van", "departed_ms", "map_s", "metres", "hour", "weekday", "pace", "is_stem", "driven_s",
)  # fmt: skip
STOP_COLUMNS = (
    "day_seed", "van", "arrived_ms", "service", "parcels", "litres", "floor", "has_lift", "is_business",
    "same_door_index", "hour", "weekday", "dwell_pace", "planned_service_s", "dwell_s", "outcome",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mishap:
    """Something of a named day that befalls one van: `at_hour` of local time, `command` as on the control port.

    `van` counts from 0, None means every van. A `close_way` without a way closes the next street ahead.
    """

    at_hour: float
    van: int | None
    command: dict[str, Any]


BAD_DAYS: dict[str, tuple[Mishap, ...]] = {
    "ordinary": (),
    "crawl": (Mishap(9.5, None, {"do": "slow", "factor": 1.5}), Mishap(12.5, None, {"do": "slow", "factor": 0.75})),
    "roadworks": (
        Mishap(9.25, 0, {"do": "close_way"}),
        Mishap(10.0, 1, {"do": "close_way"}),
        Mishap(11.0, 0, {"do": "close_way"}),
    ),
    "lorry": (Mishap(9.75, 0, {"do": "hold", "minutes": 25}), Mishap(11.5, 2, {"do": "hold", "minutes": 18})),
    "nobody-home": tuple(
        Mishap(9 + k / 3, van, {"do": "customer_out", "stop_id": None}) for k in range(6) for van in range(3)
    ),
    "everything": (
        Mishap(9.25, 0, {"do": "close_way"}),
        Mishap(9.5, 1, {"do": "hold", "minutes": 22}),
        Mishap(9.75, None, {"do": "slow", "factor": 1.35}),
        Mishap(10.25, 2, {"do": "customer_out", "stop_id": None}),
        Mishap(10.5, 1, {"do": "customer_out", "stop_id": None}),
    ),
}
"""Days one asks for by name; the demo and the tests are played on them."""


def town_luck(city: CityMap) -> Luck:
    """What is always so in this town, whatever the day."""
    return Luck("town", city.name)


def day_luck(city: CityMap, seed: int) -> Luck:
    """The luck of one day in one town."""
    return town_luck(city).of("day", seed)


def world_of(city: CityMap, seed: int, local: LocalTime | None = None) -> World:
    """The true town on the day of this seed."""
    return World(city, Streets(city), Traffic(city, town_luck(city), day_luck(city, seed)), local or LocalTime())


def midnight_of(seed: int) -> int:
    """The local midnight with which the day of this seed begins: Mondays to Saturdays from FIRST_DAY_MS on."""
    # Seed 0 is a Wednesday, three working days remain in its week.
    weeks, day = divmod(seed + 2, 6)
    return FIRST_DAY_MS + (weeks * 7 + day - 2) * 24 * HOUR_MS


def drive_days(
    seeds: Iterable[int],
    city_folder: Path,
    out_folder: Path,
    orders: Sequence[Errand] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Drive the days of these seeds and write legs.csv and stops.csv into `out_folder`; gives their row counts.

    Times are seconds: `map_s` is the hub's map for the hour of departure, `driven_s` and `dwell_s` the truth. `pace`
    and `dwell_pace` are what the van's agent would know of its day before that row (`shared.features.Pace`). `hour` is
    local, 0 to 24, `weekday` 0 for Monday. `orders`, when given, is the pool that stops are drawn from instead of
    random addresses. `metres` is what a van can know, whose plan carries no distances: DETOUR times the straight line,
    from the gateway when it leaves the depot. Raises shared.citymap.BundleUnreadable.
    """
    city = CityMap.load(city_folder)
    world = world_of(city, 0)
    out_folder.mkdir(parents=True, exist_ok=True)
    legs_count = stops_count = 0
    with (
        (out_folder / "legs.csv").open("w", newline="") as legs_file,
        (out_folder / "stops.csv").open("w", newline="") as stops_file,
    ):
        legs, stops = csv.writer(legs_file), csv.writer(stops_file)
        legs.writerow(LEG_COLUMNS)
        stops.writerow(STOP_COLUMNS)
        for seed in seeds:
            day = day_luck(city, seed)
            world = world.on_another_day(Traffic(city, town_luck(city), day))
            for number in range(VANS_A_DAY):
                leg_rows, stop_rows = _drive_van(world, day, seed, number, orders)
                legs.writerows(leg_rows)
                stops.writerows(stop_rows)
                legs_count += len(leg_rows)
                stops_count += len(stop_rows)
            if progress is not None:
                progress(seed)
    return legs_count, stops_count


def drive_route(van: Van, route: Sequence[Errand], depart_ms: int, rest_from_ms: int) -> list[Happening]:
    """Drive a fixed route to its end, with a half-hour break at the first stop that ends after `rest_from_ms`."""
    now_ms, happened, has_rested = depart_ms, [], False
    for errand in route:
        if not has_rested and now_ms >= rest_from_ms:
            has_rested = True
            van.rest(1800, now_ms)
            now_ms = _until_free(van, now_ms)
        van.head_to(errand, now_ms)
        now_ms = _until_free(van, now_ms)
        happened += van.taken()
    van.go_home(now_ms)
    _until_free(van, now_ms)
    return happened + van.taken()


def _until_free(van: Van, now_ms: int) -> int:
    while not van.is_free:
        now_ms = van.next_ms()
        van.step(now_ms)
    return now_ms


def _drive_van(
    world: World, day: Luck, seed: int, number: int, orders: Sequence[Errand] | None
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    name = f"van-{number + 1}"
    luck = day.of("route", name)
    midnight_ms = midnight_of(seed)
    depart_ms = midnight_ms + round(luck.uniform("departs", 7.5, 9.5) * HOUR_MS)
    depot = random_depot(world.city, luck)
    errands = _drawn_from(orders, luck) if orders else random_errands(world.city, luck, midnight_ms)
    route = fixed_route(world, errands, depot.gateway, depart_ms + depot.stem_s * 1200)
    van = Van(name, world, depot, driver(day, name), day, depart_ms)
    rest_from_ms = midnight_ms + round(luck.uniform("rests", 11, 13) * HOUR_MS)
    return _as_rows(drive_route(van, route, depart_ms, rest_from_ms), world.local, seed, name)


def _as_rows(
    happened: Sequence[Happening], local: LocalTime, seed: int, name: str
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    legs: list[tuple[object, ...]] = []
    stops: list[tuple[object, ...]] = []
    pace, dwell_pace = Pace(), Pace()
    leg: Departed | None = None
    for event in happened:
        if isinstance(event, Departed):
            leg = None if event.is_same_door else event
        elif isinstance(event, Arrived) and leg is not None:
            driven_s = (event.at_ms - leg.at_ms) / 1000
            legs.append(_leg_row(leg, driven_s, pace, local, (seed, name)))
            pace = pace.learned(driven_s, leg.map_s)
            leg = None
        elif isinstance(event, Served):
            dwell_s = (event.at_ms - event.began_ms) / 1000
            stops.append(_stop_row(event, dwell_s, dwell_pace, local, (seed, name)))
            dwell_pace = dwell_pace.learned(dwell_s, event.errand.service_s)
    return legs, stops


def _leg_row(
    leg: Departed, driven_s: float, pace: Pace, local: LocalTime, whose: tuple[int, str]
) -> tuple[object, ...]:
    return (
        *whose,
        leg.at_ms,
        round(leg.map_s, 1),
        round(leg.by_air_m * DETOUR, 1),
        round(local.hour(leg.at_ms), 3),
        local.weekday(leg.at_ms),
        round(pace.ratio, 4),
        int(leg.is_stem),
        round(driven_s, 1),
    )


def _stop_row(
    served: Served, dwell_s: float, dwell_pace: Pace, local: LocalTime, whose: tuple[int, str]
) -> tuple[object, ...]:
    errand = served.errand
    return (
        *whose,
        served.began_ms,
        errand.service,
        len(errand.parcels),
        round(errand.litres, 1),
        errand.floor,
        int(errand.has_lift),
        int(errand.is_business),
        served.same_door_index,
        round(local.hour(served.began_ms), 3),
        local.weekday(served.began_ms),
        round(dwell_pace.ratio, 4),
        errand.service_s,
        round(dwell_s, 1),
        served.outcome.value,
    )


def random_depot(city: CityMap, luck: Luck) -> Depot:
    """A depot outside the town, 12 to 20 minutes in free flow from a gateway at the town's northern edge."""
    south, west, north, east = city.bounds
    gateway = city.snap(Position(north - (north - south) * 0.03, luck.uniform("gateway", west, east))).position
    stem_s = luck.uniform("stem", 720, 1200)
    there = Position(gateway.lat + stem_s * 11.0 * 0.75 / 111_195, gateway.lon)
    return Depot("depot", "the depot", there, gateway, Seconds(round(stem_s)))


def random_errands(city: CityMap, luck: Luck, midnight_ms: int) -> list[Errand]:
    """35 to 45 stops at random doors, often several at one parking place, with a parcel round's slots and services."""
    wanted = round(luck.uniform("stops", FEWEST_STOPS, MOST_STOPS))
    found: list[Errand] = []
    while len(found) < wanted:
        own = luck.of("place", len(found))
        slot = _slot(own, midnight_ms)
        place = own.pick("address", city.addresses)
        group = f"group-{len(found)}"
        doors = own.pick("doors", (1, 2, 3, 4), (0.68, 0.2, 0.08, 0.04))
        for nth in range(min(doors, wanted - len(found))):
            found.append(_errand(f"s{len(found)}", place, group, own.of(nth), slot))
    return found


def _errand(stop_id: str, place: Address, group: str, luck: Luck, slot: TimeWindow) -> Errand:
    is_business = place.kind == "shop" or luck.chance("office", 0.12)
    service = luck.pick(
        "service",
        ("hand_over", "leave_safe", "signature", "age_check", "collection"),
        (0.56, 0.14, 0.14, 0.06, 0.10) if not is_business else (0.62, 0.0, 0.24, 0.02, 0.12),
    )
    parcels = 1 + min(7, luck.poisson("parcels", 1.4 if is_business else 0.35))
    litres = sum(luck.lognormal(f"litres {k}", 11.0, 0.7) for k in range(parcels))
    levels = place.levels or 5
    floor = 0 if is_business else min(levels - 1, int(luck.uniform("floor", 0, levels)))
    has_lift = luck.chance("lift", 0.75 if levels >= 4 else 0.2)
    return Errand(
        stop_id,
        f"{place.street} {place.number}".strip() or place.name,
        place.position,
        slot,
        slot,
        service,
        planned_service_s(service, parcels, floor, has_lift, is_business),
        max(0, floor),
        has_lift,
        is_business,
        TimeWindow(slot.opens_ms, EpochMs(slot.closes_ms + HOUR_MS)) if is_business else None,
        group,
        tuple(f"WW:{stop_id}/{k + 1}" for k in range(parcels)),
        round(litres, 1),
    )


def _slot(luck: Luck, midnight_ms: int) -> TimeWindow:
    opens_h, closes_h = luck.pick(
        "slot", ((8, 17), (8, 10), (8, 12), (10, 12), (10, 14), (12, 14), (12, 17), (14, 17)),
        (0.5, 0.04, 0.1, 0.05, 0.1, 0.05, 0.1, 0.06),
    )  # fmt: skip
    return TimeWindow(EpochMs(midnight_ms + opens_h * HOUR_MS), EpochMs(midnight_ms + closes_h * HOUR_MS))


def planned_service_s(service: str, parcels: int, floor: int, has_lift: bool, is_business: bool) -> int:
    """What the hub plans for a stop from parking to leaving, in seconds: the formula of `docs/orders.md`.

    The models multiply it, so what they are trained on must be planned as orders are.
    """
    seconds = 60 + (30 if is_business else 45)
    if floor:
        seconds += 30 + 6 * floor if has_lift else 30 * floor
    if service != "leave_safe":
        seconds += 45 if is_business else 30
    at_the_door = {"hand_over": 25, "leave_safe": 20, "signature": 45, "age_check": 60, "collection": 75}
    return seconds + at_the_door[service] + 15 * (parcels - 1)


def _drawn_from(orders: Sequence[Errand], luck: Luck) -> list[Errand]:
    count = min(len(orders), round(luck.uniform("stops", FEWEST_STOPS, MOST_STOPS)))
    return sorted(orders, key=lambda errand: luck.uniform(errand.stop_id))[:count]


def fixed_route(world: World, errands: Sequence[Errand], start: Position, from_ms: int) -> list[Errand]:
    """Nearest neighbour by the map's noon among the doors open by then, all doors of a parking place at once.

    Doors that close within the hour go first. `start` is the gateway, reached at `from_ms`.
    """
    seconds = world.noon_seconds([start, *(errand.position for errand in errands)])
    node = {errand.stop_id: k + 1 for k, errand in enumerate(errands)}
    left = list(errands)
    route: list[Errand] = []
    here, now_ms = 0, from_ms
    while left:
        now_ms = max(now_ms, min(errand.slot.opens_ms for errand in left))
        choice = [errand for errand in left if errand.slot.opens_ms <= now_ms]
        urgent = [errand for errand in choice if errand.slot.closes_ms < now_ms + HOUR_MS]
        nearest = min(urgent or choice, key=lambda errand: seconds[here, node[errand.stop_id]])
        group = [errand for errand in choice if errand is nearest or errand.door_group == nearest.door_group != ""]
        route += group
        left = [errand for errand in left if errand not in group]
        there = node[nearest.stop_id]
        now_ms += round(seconds[here, there] * 1000) + sum(errand.service_s for errand in group) * 1000
        here = there
    return route
