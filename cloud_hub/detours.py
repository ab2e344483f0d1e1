"""What one more stop would do to the rest of a van's day, in the place where it costs the least money."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from cloud_hub import planning
from cloud_hub.events import Pace
from cloud_hub.fleet import AgentRecord
from cloud_hub.memory import Memory
from cloud_hub.nextstep import Detour
from shared.contracts import LegTimes, Plan
from shared.quantities import EpochMs
from shared.routes import BadRoute, Cost, evaluate
from shared.steps import Now
from shared.work import Stop, StopId


class Detours:
    """Places for another stop among those a van still has before it, judged by the exact evaluator."""

    def __init__(self, memory: Memory, pace: Pace) -> None:
        self._memory = memory
        self._pace = pace

    def cheapest(
        self,
        here: StopId,
        agent: AgentRecord,
        plan: Plan,
        legs: LegTimes,
        extra: Stop,
        now: Now,
        money: Callable[[Detour], float],
    ) -> Detour | None:
        """The detour to `extra` for a van at `here` that costs the least by `money`; None when no place fits."""
        stops = self._before_it(agent, plan)
        row = extra.stop_id if extra.stop_id in legs.places else here
        table = _rows(
            legs,
            [here, *(stop.stop_id for stop in stops), row],
            [here, *(stop.stop_id for stop in stops), extra.stop_id],
        )
        rest = None if agent.shift == "off_break" else plan.rest
        try:
            problem = planning.rest_of_day(plan, table, (*stops, extra), here, now.domain_ms, self._pace, rest)
        except BadRoute:
            self._memory.counts["redelivery.day_not_reckoned"] += 1
            return None
        plain, own = problem.order[:-1], len(stops) + 1
        before = evaluate(problem, plain)
        is_under_way = bool(stops) and stops[0].stop_id == agent.heading_to
        base_ms = plan.depart_ms
        shift_s = (plan.shift_end_ms - base_ms) // 1000
        found: list[Detour] = []
        for place in range(int(is_under_way), len(plain) + 1):
            after = evaluate(problem, (*plain[:place], own, *plain[place:]))
            begin_s = after.begins[place]
            if after.finish > max(shift_s, before.finish) or begin_s > (extra.slot.closes_ms - base_ms) // 1000:
                continue
            late_min, breaches = _harm(stops, before, after, place, base_ms)
            found.append(
                Detour(
                    EpochMs(base_ms + begin_s * 1000),
                    after.driving - before.driving,
                    max(0, after.finish - before.finish),
                    late_min,
                    breaches,
                    after.total - before.total,
                )
            )
        return min(found, key=money, default=None)

    def _before_it(self, agent: AgentRecord, plan: Plan) -> list[Stop]:
        """What the van still has before it, in its own order, with the windows told since its plan."""
        known = {stop.stop_id: stop for stop in plan.stops}
        ahead = [agent.heading_to] if agent.heading_to in known else []
        ahead += [one for one in agent.order if one in known and one != agent.heading_to]
        left = self._memory.left_to(agent.agent, (one for one in ahead if one is not None))
        return [self._told(known[one]) for one in left if not self._memory.stops[one].is_leaving]

    def _told(self, stop: Stop) -> Stop:
        promise = self._memory.promises.get(stop.stop_id)
        return stop if promise is None else msgspec.structs.replace(stop, told=promise.told)


def _rows(legs: LegTimes, rows: Sequence[StopId], names: Sequence[StopId]) -> LegTimes:
    """The leg times between these places, each under another name where it stands for another stop."""
    row = {stop_id: place + 1 for place, stop_id in enumerate(legs.places)}
    keep = np.array([0, *(row[stop_id] for stop_id in rows)])
    seconds = legs.matrix()[:, keep[:, None], keep[None, :]]
    return LegTimes.from_matrix(legs.roads_version, tuple(names), legs.slice_ends_ms, seconds)


def _harm(stops: Sequence[Stop], before: Cost, after: Cost, place: int, base_ms: int) -> tuple[float, int]:
    """Minutes by which others miss the windows they were told beyond those missed anyway, and slots newly broken."""
    begins = (*after.begins[:place], *after.begins[place + 1 :])
    late_s = 0.0
    breaches = 0
    for stop, was_s, is_s in zip(stops, before.begins, begins, strict=True):
        was_ms, is_ms = base_ms + was_s * 1000, base_ms + is_s * 1000
        late_s += stop.told.late_s(is_ms) - stop.told.late_s(was_ms)
        breaches += was_ms <= stop.slot.closes_ms < is_ms
    return max(0.0, late_s) / 60, breaches
