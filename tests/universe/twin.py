"""The same day without us: fixed routes, the first windows never changed, and the same luck.

The vans drive the first plan in its planned order. The drivers are the same people and take their break where they
like it, as in our day; streets close and lorries stand in the way at the same instants. Nobody strays: a fixed route
is driven as it was printed, which is in the twin's favour.
"""

from collections import deque
from dataclasses import dataclass, field

from firmware_sim.person import Errand
from firmware_sim.vehicle import Served, Van
from shared.contracts import Plan
from shared.work import Stop
from tests.universe.day import LAST_HOUR, befall, driver_of
from tests.universe.town import Mishap, Town


@dataclass(slots=True)
class TwinTrace:
    """What became of the twin's day."""

    served: dict[str, Served] = field(default_factory=dict)
    metres: dict[str, float] = field(default_factory=dict)
    ended_ms: dict[str, int] = field(default_factory=dict)


def errand_of(stop: Stop) -> Errand:
    """What a printed route sheet says of a stop."""
    return Errand(
        stop.stop_id,
        stop.address,
        stop.position,
        stop.slot,
        stop.told,
        stop.service,
        stop.service_s,
        stop.floor,
        stop.has_lift,
        stop.is_business,
        stop.open_hours,
        stop.door_group,
        tuple(parcel.barcode for parcel in stop.parcels),
        sum(parcel.litres for parcel in stop.parcels),
    )


class _Round:
    """One van on its fixed route."""

    def __init__(self, van: Van, plan: Plan, break_lean: float) -> None:
        self.van, self.plan = van, plan
        self.left = deque(errand_of(stop) for stop in plan.stops)
        rest = plan.rest
        self.rests_at_ms = None
        if rest is not None:
            window = rest.begins
            self.rests_at_ms = window.opens_ms + break_lean * (window.closes_ms - window.opens_ms)
        self.served: dict[str, Served] = {}

    def next_ms(self) -> int:
        """When something happens here by itself."""
        if self.van.is_free and self.van.phase == "depot":
            return self.plan.depart_ms
        return self.van.next_ms()

    def turn(self, now_ms: int) -> None:
        """What happened until now, and what the driver does next."""
        van, rest = self.van, self.plan.rest
        van.step(now_ms)
        for happening in van.taken():
            if isinstance(happening, Served):
                self.served[happening.errand.stop_id] = happening
        if not van.is_free or van.phase == "done" or now_ms < self.plan.depart_ms:
            return
        if not self.left:
            van.go_home(now_ms)
        elif rest is not None and self.rests_at_ms is not None and now_ms >= self.rests_at_ms:
            self.rests_at_ms = None
            van.rest(rest.duration_s, now_ms)
        else:
            van.head_to(self.left.popleft(), now_ms)


def drive_twin(town: Town, seed: int, plans: dict[str, Plan], mishaps: list[Mishap]) -> TwinTrace:
    """Drive the twin of this day; `plans` are the first plans, `mishaps` what befell our own day."""
    world, luck = town.world(seed), town.luck(seed)
    begins_ms = town.at(seed, 6.5)
    rounds = {}
    for name, plan in sorted(plans.items()):
        who = driver_of(town, seed, name)
        rounds[name] = _Round(Van(name, world, town.depot, who, luck, begins_ms), plan, who.break_lean)
    vans = {name: round_.van for name, round_ in rounds.items()}
    to_come = deque(mishaps)
    now_ms, last_ms = int(begins_ms), town.at(seed, LAST_HOUR)
    trace = TwinTrace()
    while now_ms < last_ms:
        active = {name: each for name, each in rounds.items() if each.van.phase != "done"}
        if not active:
            break
        moments = [each.next_ms() for each in active.values()]
        if to_come:
            moments.append(to_come[0].at_ms)
        now_ms = max(now_ms, min(moments))
        while to_come and to_come[0].at_ms <= now_ms:
            befall(to_come.popleft(), vans, now_ms)
        for name, each in active.items():
            each.turn(now_ms)
            if each.van.phase == "done":
                trace.ended_ms[name] = now_ms
    for name, each in rounds.items():
        trace.served |= each.served
        trace.metres[name] = each.van.motion().odometer_m
    return trace
