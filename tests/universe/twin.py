"""The same day without us: the demo's own twin on the first plans of a lived day, with the same mishaps.

The vans drive the first plan in its planned order. The drivers are the same people and take their break where they
like it, as in our day; streets close and lorries stand in the way at the same instants. Nobody strays: a fixed route
is driven as it was printed, which is in the twin's favour.
"""

from dataclasses import dataclass, field

from firmware_sim import twin
from firmware_sim.control import AnyCommand, CloseWay, Hold, Slow
from firmware_sim.person import Errand
from firmware_sim.twin import FirstPlan
from firmware_sim.vehicle import Served
from firmware_sim.wheel import Break, Gate
from shared.contracts import Plan
from shared.work import Stop
from tests.universe.day import LAST_HOUR
from tests.universe.town import Mishap, Town


@dataclass(slots=True)
class TwinTrace:
    """What became of the twin's day."""

    served: dict[str, Served] = field(default_factory=dict)
    metres: dict[str, float] = field(default_factory=dict)
    ended_ms: dict[str, int] = field(default_factory=dict)


def drive_twin(town: Town, seed: int, plans: dict[str, Plan], mishaps: list[Mishap]) -> TwinTrace:
    """Drive the twin of this day; `plans` are the first plans, `mishaps` what befell our own day, in time's order."""
    first = [_first_plan(name, plan) for name, plan in sorted(plans.items())]
    vans = twin.drive_twin(town.world(seed), town.luck(seed), first, until_ms=0)
    for mishap in mishaps:
        for van in vans:
            van.play(mishap.at_ms)
            # As in our own day: what befalls a van at home or in the depot's yard befalls nobody.
            is_out = not van.is_home and van.state()["phase"] != "depot"
            if mishap.van in (None, van.plan.agent) and (is_out or mishap.kind != "hold"):
                van.befall(_command(mishap), mishap.at_ms)
    last_ms = town.at(seed, LAST_HOUR)
    trace = TwinTrace()
    for van in vans:
        van.play(last_ms)
        trace.served |= van.served
        trace.metres[van.plan.agent] = van.facts(last_ms, last_ms).metres
        if van.ended_ms is not None:
            trace.ended_ms[van.plan.agent] = van.ended_ms
    return trace


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


def _first_plan(name: str, plan: Plan) -> FirstPlan:
    depot = plan.depot
    rest = None
    if plan.rest is not None:
        rest = Break(plan.rest.begins.opens_ms, plan.rest.begins.closes_ms, plan.rest.duration_s)
    return FirstPlan(
        name,
        plan.depart_ms,
        plan.shift_end_ms,
        Gate(depot.name, depot.position, depot.gateway, depot.stem_s),
        tuple(errand_of(stop) for stop in plan.stops),
        rest,
    )


def _command(mishap: Mishap) -> AnyCommand:
    if mishap.kind == "slow":
        return Slow(factor=mishap.amount)
    if mishap.kind == "hold":
        return Hold(minutes=mishap.amount)
    return CloseWay(way=int(mishap.amount))
