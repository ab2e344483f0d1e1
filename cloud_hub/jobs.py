"""The slow work the hub's core wants: a day planned, leg times asked, a notice sent.

Plan: PyVRP shares the stops out and orders them with the day's mean travel times; then each route is judged by the
exact evaluator (times of day, the driver's break, true lateness) and repaired by the kernel. What PyVRP left out is
put where it costs least, if the shift allows, and listed otherwise.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from cloud_hub import planning
from cloud_hub.events import (
    LedgerFound,
    LedgerWanted,
    LegTimesFound,
    LegTimesWanted,
    NoticeWanted,
    Planned,
    PlanWanted,
    Route,
)
from cloud_hub.fleet import Vehicle
from cloud_hub.planning import Whole
from cloud_hub.roads import Roads, StopsUnreachable
from cloud_hub.solver import Solver, SolverAnswer
from cloud_hub.storage import Taken
from shared.contracts import LegTimes
from shared.ledger import Alternative, Input
from shared.resequence import resequence
from shared.routes import Cost, RouteProblem, evaluate
from shared.steps import Job
from shared.work import AgentId, Stop, StopId

REPAIR_ITERATIONS = 20_000
"""Looks the kernel gives each route: some tens of milliseconds for 60 stops, and the same answer every time."""

MOST_OVERTIME_S = 1_800
"""A stop the solver left out is still put into a route when the driver is home at most this late."""


class Jobs:
    """Does the jobs of one hub. Called from the runner's worker threads."""

    def __init__(
        self,
        roads: Roads,
        solver: Solver,
        send_notice: Callable[[NoticeWanted], Any],
        ledger: Callable[[AgentId, str], Taken] = lambda _agent, _boot: Taken(1 << 53, ()),
    ) -> None:
        """`ledger` says which batches of one life of an agent's telemetry were taken; without one, all."""
        self._ledger = ledger
        self._roads = roads
        self._solver = solver
        self._send_notice = send_notice
        self._planning = threading.Lock()

    def do(self, job: Job) -> Any:
        """The job's answer, as an event. Raises what the job raises: the core hears of it and asks again."""
        if isinstance(job, PlanWanted):
            with self._planning:
                return plan(job, self._roads, self._solver)
        if isinstance(job, LegTimesWanted):
            return leg_times(job, self._roads)
        if isinstance(job, NoticeWanted):
            return self._send_notice(job)
        if isinstance(job, LedgerWanted):
            taken = self._ledger(job.agent, job.boot)
            return LedgerFound(job, taken.upto, taken.beyond)
        raise TypeError(f"nobody does the job {type(job).__name__}")


def leg_times(wanted: LegTimesWanted, roads: Roads) -> LegTimesFound:
    """The leg times of one contract. Raises StopsUnreachable."""
    legs = roads.leg_times(
        wanted.depot,
        wanted.stops,
        wanted.begins_ms,
        wanted.ends_ms,
        wanted.zone,
        closed=wanted.closed,
        roads_version=wanted.roads_version,
    )
    return LegTimesFound(wanted.need, wanted.agent, wanted.plan_version, planning.with_shared_doors(legs, wanted.stops))


def plan(wanted: PlanWanted, roads: Roads, solver: Solver) -> Planned:
    """The fleet's first plan. Raises SolverFailed, and StopsUnreachable when a depot cannot be reached."""
    stops, legs, unserved = _reachable(wanted, roads)
    stops = [planning.paced(stop, wanted.pace) for stop in stops]
    tables = {depot_id: np.rint(table.matrix() * wanted.pace.legs).astype(np.int32) for depot_id, table in legs.items()}
    problem = planning.fleet_problem(
        wanted.vehicles, wanted.depots, stops, planning.mean_travel(wanted.depots, legs, tables)
    )
    answer = solver.solve(problem)
    routes = [
        _Draft(vehicle, stops, legs[vehicle.depot_id], tables[vehicle.depot_id], order)
        for vehicle, order in zip(wanted.vehicles, answer.routes, strict=True)
    ]
    solver_cost_s = sum(route.cost.total for route in routes)
    for route in routes:
        route.repair(solver.seed)
    unserved += _put_back(answer, routes, stops)
    for route in routes:
        route.repair(solver.seed)
    final_cost_s = sum(route.cost.total for route in routes)
    return Planned(
        need=wanted.need,
        routes=tuple(route.finished() for route in routes),
        unserved=tuple(unserved),
        how=f"PyVRP searched {answer.seconds:.1f} s, the kernel repaired each route",
        seed=solver.seed,
        iterations=answer.iterations,
        solver_cost_s=solver_cost_s,
        final_cost_s=final_cost_s,
        looked_at=_looked_at(wanted, solver, answer, solver_cost_s, final_cost_s),
    )


def _looked_at(
    wanted: PlanWanted, solver: Solver, answer: SolverAnswer, solver_cost_s: int, final_cost_s: int
) -> tuple[Input, ...]:
    """What the plan was made from, for its record."""
    pace = wanted.pace
    return (
        Input("orders", str(len(wanted.stops))),
        Input("vehicles", ", ".join(vehicle.agent for vehicle in wanted.vehicles)),
        Input("roads", f"version {wanted.roads_version}, {len(wanted.closed)} ways closed"),
        Input("solver", f"seed {solver.seed}, limit {solver.limit_s:g} s, {answer.iterations} iterations"),
        Input("pace", f"stops {pace.stops:g} times as long as planned, legs {pace.legs:g} times as on the map"),
        Input("cost of the fleet", f"{solver_cost_s} s by the solver, {final_cost_s} s after repair"),
    )


def _reachable(wanted: PlanWanted, roads: Roads) -> tuple[list[Stop], dict[str, LegTimes], list[tuple[StopId, str]]]:
    """The stops that can be driven to, the leg times between them by depot, and the stops that cannot."""
    stops = list(wanted.stops)
    unserved: list[tuple[StopId, str]] = []
    begins_ms = min(vehicle.begins_ms for vehicle in wanted.vehicles)
    ends_ms = max(vehicle.ends_ms for vehicle in wanted.vehicles)
    while True:
        try:
            legs = {
                depot.depot_id: planning.with_shared_doors(
                    roads.leg_times(depot, stops, begins_ms, ends_ms, wanted.zone, wanted.closed, wanted.roads_version),
                    stops,
                )
                for depot in wanted.depots
            }
            return stops, legs, unserved
        except StopsUnreachable as lost:
            gone = set(lost.names) & {stop.stop_id for stop in stops}
            if not gone:
                raise
            why = "no permitted drive leads there and back"
            unserved += [(stop.stop_id, why) for stop in stops if stop.stop_id in gone]
            stops = [stop for stop in stops if stop.stop_id not in gone]


class _Draft:
    """One vehicle's route while it is being made: an order of stops, and what it costs exactly."""

    def __init__(
        self, vehicle: Vehicle, stops: Sequence[Stop], legs: LegTimes, table: Whole, order: Sequence[int]
    ) -> None:
        self._vehicle = vehicle
        self._stops = stops
        self._legs = legs
        self._table = table
        self.order = list(order)
        self.problem, self.cost = self.judged(self.order)
        self._solvers = self._compared("the solver's order")

    def judged(self, order: Sequence[int]) -> tuple[RouteProblem, Cost]:
        """The route problem with this order, and its exact cost."""
        rows = np.array([0, *(stop + 1 for stop in order)])
        seconds: Whole = self._table[:, rows[:, None], rows[None, :]]
        stops = [self._stops[stop] for stop in order]
        problem = planning.route_problem(self._vehicle, stops, seconds, self._legs.slice_ends_ms)
        return problem, evaluate(problem, problem.order)

    def repair(self, seed: int) -> None:
        """Improve the order; it never gets worse."""
        if len(self.order) < 2:
            return
        better = resequence(self.problem, iterations=REPAIR_ITERATIONS, seed=seed)
        self.order = [self.order[node - 1] for node in better.order]
        self.problem, self.cost = self.judged(self.order)

    def with_stop(self, stop: int) -> tuple[int, list[int]] | None:
        """The cheapest place for one more stop, as (added cost, order); None when it would make the driver too late."""
        best: tuple[int, list[int]] | None = None
        shift_s = (self._vehicle.ends_ms - self._vehicle.begins_ms) // 1000
        for place in range(len(self.order) + 1):
            order = [*self.order[:place], stop, *self.order[place:]]
            _, cost = self.judged(order)
            added = cost.total - self.cost.total
            if cost.finish <= shift_s + MOST_OVERTIME_S and (best is None or added < best[0]):
                best = (added, order)
        return best

    def take(self, order: list[int]) -> None:
        """Have this order from now on."""
        self.order = order
        self.problem, self.cost = self.judged(order)

    def finished(self) -> Route:
        """The route with the leg times of its contract."""
        stops = [self._stops[stop] for stop in self.order]
        legs = planning.narrowed(self._legs, [stop.stop_id for stop in stops])
        route = planning.route_of(self._vehicle, stops, self.cost, self.problem, legs)
        return msgspec.structs.replace(route, compared=(self._solvers, self._compared("the order after exact repair")))

    def _compared(self, what: str) -> Alternative:
        """The order as it is now, by this vehicle's own numbers."""
        late_s = planning.late_s(self._vehicle, [self._stops[stop] for stop in self.order], self.cost)
        return Alternative(f"{what}, {len(self.order)} stops", self.cost.total, late_s, self.cost.driving)


def _put_back(answer: SolverAnswer, routes: list[_Draft], stops: Sequence[Stop]) -> list[tuple[StopId, str]]:
    """Put what the solver left out where it costs least; what no shift has room for is named."""
    unserved = []
    for stop in answer.left_out:
        choices = [(found[0], k, found[1]) for k, route in enumerate(routes) if (found := route.with_stop(stop))]
        if choices:
            _, k, order = min(choices)
            routes[k].take(order)
        else:
            unserved.append((stops[stop].stop_id, "no vehicle has room for it before its shift ends"))
    return unserved
