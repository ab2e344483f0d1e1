"""A small town: who waits for what, which vans there are, and slow work done by straight lines and counted looks."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloud_hub import planning
from cloud_hub.contacts import Customer, Wishes
from cloud_hub.events import LegTimesFound, LegTimesWanted, Planned, PlanWanted
from cloud_hub.fleet import Order, Vehicle
from edge_agent.outlook import Improve, Improved, Predict, Predicted, orders_beyond, plans_own
from shared.contracts import LegTimes, Rest
from shared.quantities import EpochMs, Position, Seconds, TimeWindow, metres_between
from shared.resequence import resequence
from shared.routes import evaluate
from shared.steps import Job
from shared.work import AgentId, Depot, OrderId, Parcel, Service, Stop, StopId
from tests.simulation.luck import Luck

REGION = "town"
DAY = "2026-11-23"
ZONE = "Etc/UTC"
MIDNIGHT_MS = 1_795_392_000_000
"""Monday, 23 November 2026, 00:00 UTC."""
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
RISES_MS = MIDNIGHT_MS + 7 * HOUR_MS
DEPARTS_MS = MIDNIGHT_MS + 7 * HOUR_MS + 20 * MINUTE_MS
SHIFT_ENDS_MS = MIDNIGHT_MS + 10 * HOUR_MS
EARLY_MS = MIDNIGHT_MS + 8 * HOUR_MS
"""When some shifts are over: what is to be begun by then comes too late."""
ENDS_MS = (SHIFT_ENDS_MS, SHIFT_ENDS_MS, EARLY_MS)
CENTRE = Position(60.170, 24.940)
DEPOT = Depot("d", "Depot", Position(60.165, 24.930), Position(60.165, 24.930))
MPS = 8.0
DETOUR = 1.35
KERNEL_LOOKS = 400


def place(east_m: float, north_m: float) -> Position:
    """A place so far from the centre."""
    return Position(CENTRE.lat + north_m / 111_195, CENTRE.lon + east_m / 55_300)


def clock_face(instant_ms: int) -> str:
    """HH:MM in the town's time."""
    minutes = (instant_ms // MINUTE_MS) % (24 * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def at(hour: float) -> EpochMs:
    """The instant of an hour of the day."""
    return EpochMs(MIDNIGHT_MS + round(hour * HOUR_MS))


@dataclass(frozen=True, slots=True)
class Household:
    """One customer with one order. `secrets` are texts that are nowhere once they are forgotten."""

    order: Order
    customer: Customer
    secrets: tuple[str, ...]


SLOTS = ((7, 11), (7, 10), (8, 10), (7, 9))
TIGHT_SLOTS = ((7, 7.45), (7, 7.6), (7.3, 7.75), (7, 10))
"""Hours of the day: the tight ones end while the vans are on the road."""


def households(luck: Luck, seed: int, count: int, is_tight_day: bool = False) -> list[Household]:
    """Who waits for what on this day."""
    slots = TIGHT_SLOTS if is_tight_day else SLOTS
    return [_household(luck.of("household", number), seed, number, slots) for number in range(1, count + 1)]


def _household(luck: Luck, seed: int, number: int, slots: Sequence[tuple[float, float]]) -> Household:
    word = f"zq{seed}h{number}q"
    where = place(luck.share(-900, 900), luck.share(-900, 900))
    opens, closes = luck.pick(slots)
    slot = TimeWindow(at(opens), at(closes))
    service: Service = luck.pick(("hand_over", "hand_over", "hand_over", "signature", "leave_safe", "collection"))
    parcels = tuple(Parcel(f"WW:S{seed}-{number}/{k + 1}", litres=4.0) for k in range(luck.between(1, 2)))
    stop = Stop(
        StopId(f"s{number}"), OrderId(f"o{number}"), f"{word} street {number}", where, slot, slot,
        Seconds(luck.between(60, 180)), parcels, service, door_code=f"c{word}",
        note=f"note {word}", safe_place=f"shed {word}" if service == "leave_safe" else "",
    )  # fmt: skip
    consents = luck.pick((("email",), ("sms", "email"), (), ("sms",)))
    customer = Customer(
        f"ref-{seed}-{number}", f"Name {word}", f"{word}@example.org", f"+358 40 {word}", luck.pick(("en", "fi", "sv")),
        consents, wishes=Wishes(on_its_way=luck.chance(0.5)),
    )  # fmt: skip
    order = Order(
        stop.order_id, "accepted", at(6), f'{{"address":"{word}"}}', f"f{seed}.{number}", stop,
        customer_ref=customer.customer_ref,
    )  # fmt: skip
    return Household(order, customer, (word, f"{where.lat!r}"))


def vehicles(names: Sequence[AgentId], luck: Luck) -> tuple[Vehicle, ...]:
    """The vans of the day; some have a break."""
    rest = Rest(Seconds(900), TimeWindow(at(8), at(9)))
    return tuple(
        Vehicle(
            name, DEPOT.depot_id, DAY, EpochMs(DEPARTS_MS), EpochMs(luck.pick(ENDS_MS)),
            rest if luck.chance(0.3) else None,
        )
        for name in names
    )  # fmt: skip


# The slow work.


def do_hub_job(job: Job) -> object:
    """What the solver and the roads would answer; notices are the post office's."""
    if isinstance(job, PlanWanted):
        return plan(job)
    if isinstance(job, LegTimesWanted):
        legs = legs_between(job.stops, job.closed, job.roads_version)
        return LegTimesFound(job.need, job.agent, job.plan_version, planning.with_shared_doors(legs, job.stops))
    raise TypeError(f"nobody does the job {type(job).__name__}")


def legs_between(stops: Sequence[Stop], closed: Sequence[int], roads_version: int) -> LegTimes:
    """Straight lines with a detour, longer while streets are closed."""
    places = [DEPOT.position, *(stop.position for stop in stops)]
    slower = DETOUR / MPS * (1 + 0.3 * len(closed))
    seconds = np.array([[round(slower * metres_between(a, b)) for b in places] for a in places])
    ids = tuple(stop.stop_id for stop in stops)
    return LegTimes.from_matrix(roads_version, ids, (EpochMs(SHIFT_ENDS_MS),), seconds[None, :, :])


def plan(job: PlanWanted) -> Planned:
    """Deal the stops out by the end of their windows, each time from another van on, and drive each hand to the nearest
    next.
    """
    hands: list[list[Stop]] = [[] for _ in job.vehicles]
    unserved = []
    ordered = sorted(job.stops, key=lambda stop: (stop.slot.closes_ms, stop.stop_id))
    for number, stop in enumerate(ordered, zlib.crc32(job.need.encode())):
        # A van that would have to set out after its shift has ended refuses such a plan, and rightly.
        able = [hand for hand, van in enumerate(job.vehicles) if stop.slot.opens_ms < van.ends_ms - 30 * MINUTE_MS]
        if able:
            hands[able[number % len(able)]].append(stop)
        else:
            unserved.append((stop.stop_id, "no van is there when its slot begins"))
    routes, cost_s = [], 0
    for vehicle, hand in zip(job.vehicles, hands, strict=True):
        stops = _nearest_next(hand)
        legs = legs_between(stops, job.closed, job.roads_version)
        problem = planning.route_problem(vehicle, stops, legs.matrix(), legs.slice_ends_ms)
        cost = evaluate(problem, problem.order)
        routes.append(planning.route_of(vehicle, stops, cost, problem, legs))
        cost_s += cost.total
    return Planned(job.need, tuple(routes), tuple(unserved), "dealt out", 1, 1, cost_s, cost_s)


def _nearest_next(stops: Sequence[Stop]) -> list[Stop]:
    here, left, found = DEPOT.position, list(stops), []
    while left:
        nearest = min(left, key=lambda stop: (metres_between(here, stop.position), stop.stop_id))
        left.remove(nearest)
        found.append(nearest)
        here = nearest.position
    return found


def do_agent_job(job: Job) -> object:
    """What a van's workshop without models answers, its kernel by counted looks."""
    if isinstance(job, Predict):
        return Predicted(job.need, plans_own(job.bearing, job.bearing.order))
    assert isinstance(job, Improve)
    found = resequence(job.problem, iterations=KERNEL_LOOKS, seed=job.seed)
    beyond = orders_beyond(job.bearing)
    head = job.bearing.order[: len(job.bearing.order) - len(beyond)]
    order = head + tuple(beyond[node - 1] for node in found.order)
    foreseen = plans_own(job.bearing, order) if found.improved else None
    return Improved(job.need, found.order, found.iterations_used, foreseen)


__all__ = ["DAY", "DEPOT", "REGION", "Household", "do_agent_job", "do_hub_job", "households", "vehicles"]
