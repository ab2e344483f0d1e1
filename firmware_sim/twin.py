"""The same day without orchestration: every van drives its first plan to the end, whatever befalls it.

Same seed, same town, same luck by name, same drivers; the order never changes, no told window moves, nobody is told
anything after the morning. A twin van is asked for an instant and plays itself up to it, event by event, so that its
day does not depend on how often anybody looks.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from firmware_sim.city import World
from firmware_sim.control import AnyCommand, CloseWay, CustomerOut, DigIn, Hold, Impossible, Slow
from firmware_sim.luck import Luck
from firmware_sim.person import Errand, driver
from firmware_sim.vehicle import NEVER_MS, Arrived, Served, Van
from firmware_sim.wheel import Break, Gate
from shared.costs import Costs
from shared.quantities import EpochMs
from shared.reckoning import TWIN_ASSUMPTIONS, DayFigures, PromiseFacts, VanFacts, reckon, twin_interventions

SAMPLE_MS = 5_000
"""Kilometres and turning wheels are looked at as often as an agent's telemetry does."""

MOVING_MPS = 0.5


class FirstPlan(msgspec.Struct, frozen=True):
    """What one van was first given to do, as the hub tells it (`GET /api/day/first-plan`): `stops` in planned order,
    each with the window its customer was first told.
    """

    agent: str
    depart_ms: int
    shift_end_ms: int
    depot: Gate
    stops: tuple[Errand, ...]
    rest: Break | None = msgspec.field(default=None, name="break")


class FirstPlans(msgspec.Struct, frozen=True):
    """The first plans of a day. `is_planned` is False while they are still made."""

    day: str
    is_planned: bool
    vans: tuple[FirstPlan, ...]


class TwinVan:
    """One van on its fixed round."""

    def __init__(self, plan: FirstPlan, world: World, day: Luck) -> None:
        """`world` is this van's own: streets that close close in it. Times before its departure are spent waiting."""
        self.plan = plan
        self._world = world
        who = driver(day, plan.agent)
        self._van = Van(plan.agent, world, plan.depot.depot(), who, day, plan.depart_ms)
        self._now_ms = plan.depart_ms
        self._left = list(plan.stops)
        self._served: dict[str, Served] = {}
        self._ended_ms: int | None = None
        self._goes_home = self._has_rested = False
        rest = plan.rest
        self._rests_ms = (
            NEVER_MS if rest is None else rest.earliest_ms + who.break_lean * (rest.latest_ms - rest.earliest_ms)
        )
        self._sampled_ms: list[int] = [plan.depart_ms]
        self._metres: list[float] = [0.0]
        self._moving_s: list[float] = [0.0]

    @property
    def is_home(self) -> bool:
        """Whether the round is driven."""
        return self._ended_ms is not None

    @property
    def now_ms(self) -> int:
        """How far the round is played."""
        return self._now_ms

    @property
    def ended_ms(self) -> int | None:
        """When the van came home; None while it is out."""
        return self._ended_ms

    @property
    def served(self) -> dict[str, Served]:
        """The visits made so far, by stop, in the order made."""
        return dict(self._served)

    def play(self, until_ms: int = NEVER_MS) -> None:
        """Play the round up to this instant, or to its end; an instant before the last changes nothing."""
        while self._now_ms < until_ms and not self.is_home:
            if self._van.is_free:
                self._set_off()
                self._take()
                if self._van.is_free:
                    continue  # No street led there, or the round was empty.
            step_ms = min(until_ms, self._van.next_ms(), self._sampled_ms[-1] + SAMPLE_MS)
            self._now_ms = max(self._now_ms, step_ms)
            self._van.step(self._now_ms)
            self._take()
            if self._now_ms - self._sampled_ms[-1] >= SAMPLE_MS or self.is_home:
                self._sample()

    def befall(self, command: AnyCommand, said_ms: int) -> dict[str, Any]:
        """What befell the van it is the twin of befalls it too. Raises Impossible.

        A street that is not ahead of the twin is closed all the same, and a customer who is out is out for everybody.
        """
        self.play(said_ms)
        at_ms = max(said_ms, self._now_ms)
        if isinstance(command, CloseWay):
            return self._close(command.way, at_ms)
        if isinstance(command, CustomerOut):
            stop_id = command.stop_id or self._van.heading_to or (self._left[0].stop_id if self._left else None)
            if stop_id is None:
                raise Impossible("every stop has been served: nobody is waited for")
            self._van.customer_out(stop_id, command.until_ms)
            return {"ok": True, "stop_id": stop_id}
        if isinstance(command, Slow):
            self._van.slow(command.factor, at_ms)
            return {"ok": True, "factor": command.factor}
        if isinstance(command, Hold):
            self._hold(said_ms + round(command.minutes * 60_000), at_ms)
            return {"ok": True, "minutes": command.minutes}
        if isinstance(command, DigIn):
            raise Impossible("the twin's driver is never asked to change anything")
        return self.state()

    def state(self) -> dict[str, Any]:
        """Where the twin is and what it does, as a van's control port says it."""
        return {
            "position": self._van.motion().position,
            "heading_to": self._van.heading_to,
            "phase": "depot" if not self._van.driven and self._van.is_free else self._van.phase,
            "ways_ahead": [],
            "remaining": [errand.stop_id for errand in self._left],
            "driven": list(self._van.driven),
            "now_ms": self._now_ms,
        }

    def promises(self) -> list[PromiseFacts]:
        """What became of every promise of the round, with the one window its customer was told."""
        return [self._facts(errand) for errand in self.plan.stops]

    def facts(self, at_ms: int, driven_until_ms: int) -> VanFacts:
        """What the round took up to `at_ms`; kilometres up to `driven_until_ms`."""
        ends_ms = at_ms if self._ended_ms is None else min(at_ms, self._ended_ms)
        return VanFacts(
            self.plan.agent,
            metres=self._at(self._metres, driven_until_ms),
            driving_s=self._at(self._moving_s, driven_until_ms),
            working_s=max(0, ends_ms - self.plan.depart_ms) / 1000,
            overtime_s=max(0, ends_ms - max(self.plan.shift_end_ms, self.plan.depart_ms)) / 1000,
        )

    def _set_off(self) -> None:
        """The next thing on the list: rest, drive to a stop, or home."""
        rest = self.plan.rest
        if rest is not None and self._left and not self._has_rested and self._now_ms >= self._rests_ms:
            self._has_rested = True
            self._van.rest(rest.duration_s, self._now_ms)
        elif self._left:
            self._van.head_to(self._left[0], self._now_ms)
        elif not self._goes_home:
            self._goes_home = True
            self._van.go_home(self._now_ms)

    def _take(self) -> None:
        for happening in self._van.taken():
            if isinstance(happening, Served):
                self._served[happening.errand.stop_id] = happening
                self._left = [e for e in self._left if e.stop_id != happening.errand.stop_id]
            elif isinstance(happening, Arrived) and happening.stop_id is None:
                self._ended_ms = happening.at_ms

    def _sample(self) -> None:
        motion = self._van.motion()
        gap_s = (self._now_ms - self._sampled_ms[-1]) / 1000
        self._sampled_ms.append(self._now_ms)
        self._metres.append(motion.odometer_m)
        self._moving_s.append(self._moving_s[-1] + (gap_s if motion.speed_mps > MOVING_MPS else 0.0))

    def _at(self, series: list[float], at_ms: int) -> float:
        return series[max(0, bisect_right(self._sampled_ms, at_ms) - 1)]

    def _close(self, way: int | None, at_ms: int) -> dict[str, Any]:
        if way is None:
            ahead = [way for way, metres in self._van.ways_ahead(self._left[0] if self._left else None) if metres > 30]
            if not ahead:
                raise Impossible("no street lies ahead of the twin now: name a way")
            way = ahead[0]
        if not (self._world.city.edge_way == way).any():
            raise Impossible(f"way {way} is not a street of {self._world.city.name}")
        self._van.close_way(way, at_ms)
        return {"ok": True, "way": way}

    def _hold(self, until_ms: int, at_ms: int) -> None:
        """Before its departure the twin stands anyway: only what is left of the hold delays it."""
        if until_ms > at_ms and not self.is_home:
            self._van.hold(until_ms - at_ms, at_ms)

    def _facts(self, errand: Errand) -> PromiseFacts:
        served = self._served.get(errand.stop_id)
        return PromiseFacts(
            stop_id=errand.stop_id,
            slot=errand.slot,
            told_first=errand.told,
            told_last=errand.told,
            served_ms=None if served is None else EpochMs(served.arrived_ms),
            outcome="" if served is None else served.outcome.value,
            told_by=("email",),
        )


def drive_twin(world: World, day: Luck, plans: Iterable[FirstPlan], until_ms: int = NEVER_MS) -> list[TwinVan]:
    """Every van of the day on its first plan, played up to `until_ms` or, by default, to the end of its round.

    `world` is the town on its day (`firmware_sim.days.world_of`); every van gets its own copy, with the streets closed
    in `world` closed. `day` is the day's luck (`firmware_sim.days.day_luck`), so drivers and customers are those of the
    same names on the day it is the twin of. Bad luck comes by `TwinVan.befall`, in the order of its instants: make the
    vans with `until_ms=0`, befall, then `play`.
    """
    vans = [TwinVan(plan, own_world(world), day) for plan in plans]
    for van in vans:
        van.play(until_ms)
    return vans


def own_world(world: World) -> World:
    """The same town and day, in which other streets may close."""
    own = world.on_another_day(world.traffic)
    own.closed |= world.closed
    return own


def twin_figures(vans: Sequence[TwinVan], costs: Costs, at_ms: int, driven_until_ms: int | None = None) -> DayFigures:
    """What the twin's day came to up to `at_ms`, to which every van must have been played."""
    until_ms = at_ms if driven_until_ms is None else min(at_ms, driven_until_ms)
    promises = [facts for van in vans for facts in van.promises()]
    return reckon(
        promises,
        [van.facts(at_ms, until_ms) for van in vans],
        twin_interventions(promises, at_ms),
        costs,
        at_ms,
        TWIN_ASSUMPTIONS,
        until_ms,
    )
