"""Let OR-Tools and PyVRP re-sequence the same routes as the kernel, under a clock that follows their CPU time.

As a program it reads pickled jobs from standard input and prints one line of JSON per finished run; `run_rivals` starts
it that way with `cpuclock.c` preloaded, because both solvers read wall clocks. Every order they return is costed by
`routes.evaluate`.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deploy.packaging.build_kernel import compiler
from shared.routes import RouteProblem, evaluate

CLOCK_SOURCE = Path(__file__).with_name("cpuclock.c")
ORTOOLS_ALSO_MS = 1000
"""OR-Tools is always given this long too: worse_than_ortools compares with it."""


class Comparable(Protocol):
    """What a bench job must have."""

    name: str
    problem: RouteProblem
    found: dict[tuple[str, int], int]


def run_rivals(jobs: Sequence[Any], limits: Sequence[int], advance: Callable[[], object]) -> None:
    """Add each rival's cost at each limit to the jobs' `found`; calls `advance` after each job."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "cpuclock.so"
        subprocess.run([*compiler(None), "-O2", "-shared", "-fPIC", "-o", str(clock), str(CLOCK_SOURCE)], check=True)
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.rivals"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": str(clock), "OMP_NUM_THREADS": "1"},
        )
        assert child.stdin is not None
        assert child.stdout is not None
        pickle.dump([[_plain(job.problem) for job in jobs], sorted(limits)], child.stdin)
        child.stdin.close()
        for line in child.stdout:
            said = json.loads(line)
            if "done" in said:
                advance()
                continue
            job = jobs[said["job"]]
            job.found[said["solver"], said["limit"]] = evaluate(job.problem, said["order"]).total
        if child.wait() != 0:
            raise RuntimeError(f"the rivals' process ended with {child.returncode}")


def _plain(problem: RouteProblem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in RouteProblem.__dataclass_fields__}


class _Model:
    """The job as both rivals want it: node 0 the start, 1..m the stops in the order now driven, m + 1 the end."""

    def __init__(self, problem: RouteProblem) -> None:
        self.problem = problem
        nodes = [problem.start, *problem.order]
        self.size = len(nodes) + 1
        self.travel = np.zeros((self.size, self.size), dtype=np.int64)
        self.travel[:-1, :-1] = problem.travel[0][np.ix_(nodes, nodes)]
        if problem.end is not None:
            self.travel[:-1, -1] = problem.travel[0][nodes, problem.end]
        self.cost = self.travel.copy()
        for a in range(self.size - 1):
            for b in range(1, self.size):
                if b != a + 1 and not (problem.end is None and b == self.size - 1):
                    self.cost[a, b] += problem.changed_arc_cost
        for matrix in (self.travel, self.cost):
            np.fill_diagonal(matrix, 0)
        leave = problem.leave
        ends = [] if problem.end is None else [problem.end]
        self.opens = [0, *(max(0, problem.earliest[node] - leave) for node in [*problem.order, *ends])]
        self.closes = [2**30, *(min(2**30, problem.latest[node] - leave) for node in [*problem.order, *ends])]
        self.weights = [0, *(problem.lateness_weight[node] for node in [*problem.order, *ends])]
        if not ends:
            self.opens.append(0)
            self.closes.append(2**30)
            self.weights.append(0)

    def order(self, inner: Sequence[int]) -> list[int]:
        return [self.problem.order[node - 1] for node in inner]


def ortools_order(problem: RouteProblem, limit_ms: int) -> list[int]:
    """OR-Tools' answer: soft upper bounds on the cumul, warm start, guided local search."""
    from ortools.constraint_solver import (  # type: ignore[import-untyped]  # OR-Tools ships no types.
        pywrapcp,
        routing_enums_pb2,
    )

    model = _Model(problem)
    manager = pywrapcp.RoutingIndexManager(model.size, 1, [0], [model.size - 1])
    routing = pywrapcp.RoutingModel(manager)
    cost = routing.RegisterTransitMatrix(model.cost.tolist())
    travel = routing.RegisterTransitMatrix(model.travel.tolist())
    routing.SetArcCostEvaluatorOfAllVehicles(cost)
    routing.AddDimension(travel, 2**30, 2**30, False, "time")
    clock = routing.GetDimensionOrDie("time")
    clock.CumulVar(routing.Start(0)).SetRange(0, 0)
    for node in range(1, model.size):
        index = routing.End(0) if node == model.size - 1 else manager.NodeToIndex(node)
        clock.CumulVar(index).SetMin(model.opens[node])
        if model.weights[node]:
            # A bound below 0 only adds a constant, which OR-Tools cannot hold.
            clock.SetCumulVarSoftUpperBound(index, max(0, model.closes[node]), model.weights[node])
    for node in range(1, model.size - 1):
        routing.AddVariableMinimizedByFinalizer(clock.CumulVar(manager.NodeToIndex(node)))
    parameters = pywrapcp.DefaultRoutingSearchParameters()
    parameters.local_search_metaheuristic = routing_enums_pb2.LocalSearchMetaheuristic.GUIDED_LOCAL_SEARCH
    parameters.time_limit.FromMilliseconds(limit_ms)
    routing.CloseModelWithParameters(parameters)
    warm = routing.ReadAssignmentFromRoutes([list(range(1, model.size - 1))], True)
    solution = routing.SolveFromAssignmentWithParameters(warm, parameters)
    if solution is None:
        return list(problem.order)
    inner = []
    index = solution.Value(routing.NextVar(routing.Start(0)))
    while not routing.IsEnd(index):
        inner.append(manager.IndexToNode(index))
        index = solution.Value(routing.NextVar(index))
    return model.order(inner)


def pyvrp_order(problem: RouteProblem, limit_ms: int) -> list[int]:
    """PyVRP's answer: time warp at a fixed penalty, starting from the order now driven."""
    import pyvrp
    from pyvrp.stop import MaxRuntime

    model = _Model(problem)
    end = model.size - 1
    windows = [(opens, max(opens, closes)) for opens, closes in zip(model.opens, model.closes, strict=True)]
    clients = [pyvrp.Client(node, tw_early=windows[node][0], tw_late=windows[node][1]) for node in range(1, end)]
    depots = [pyvrp.Depot(0), pyvrp.Depot(end, tw_early=windows[end][0], tw_late=windows[end][1])]
    van = pyvrp.VehicleType(start_depot=0, end_depot=1, start_late=0)
    places = [pyvrp.Location(0, 0) for _ in range(model.size)]
    data = pyvrp.ProblemData(places, clients, depots, [van], [model.cost], [model.travel])  # type: ignore[list-item]  # PyVRP's stub spells ndarray[int].
    penalty = max(model.weights) or 1
    result = pyvrp.solve(
        data,
        MaxRuntime(limit_ms / 1000),
        seed=1,
        collect_stats=False,
        params=pyvrp.SolveParams(penalty=pyvrp.PenaltyParams(min_penalty=penalty, max_penalty=penalty)),
        initial_solution=pyvrp.Solution(data, [pyvrp.Route(data, list(range(end - 1)), 0)]),
    )
    routes = result.best.routes()
    if len(routes) != 1 or routes[0].num_clients() != end - 1:
        return list(problem.order)
    return model.order([visit.idx + 1 for visit in routes[0] if visit.is_client()])


def main() -> None:
    """Read jobs, run every rival at every limit, print each order as it is found."""
    problems, limits = pickle.load(sys.stdin.buffer)
    for number, fields in enumerate(problems):
        problem = RouteProblem(**fields)
        for solver, answer, own in (
            ("ortools", ortools_order, sorted({*limits, ORTOOLS_ALSO_MS})),
            ("pyvrp", pyvrp_order, limits),
        ):
            for limit in own:
                order = answer(problem, limit)
                print(json.dumps({"job": number, "solver": solver, "limit": limit, "order": order}), flush=True)
        print(json.dumps({"done": number}), flush=True)


if __name__ == "__main__":
    main()
