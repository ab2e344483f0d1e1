"""The fleet's first plan by PyVRP, in a process of its own that may be killed at any time.

`python -m cloud_hub.solver` answers one JSON line with one JSON line. PyVRP is compiled code with its own threads of
thought: when it hangs or falls, the hub kills the process and starts another, and no event of a van has waited for
it.

A stop may be left out, at a price higher than any detour, so an impossible day still has an answer: what was left out
is named.
"""

import selectors
import subprocess
import sys
import time
from typing import Any

import msgspec

from cloud_hub.planning import FleetProblem

GRACE_S = 20.0
"""What start, import and reading the problem may take beyond the search itself, on a small and busy machine."""

LEFT_OUT_PRICE = 1_000_000
"""What leaving a stop out costs, ten to a second of driving: more than a whole day's."""


class SolverFailed(RuntimeError):
    """The solver's process hung, fell or answered nonsense; it has been killed and will be started anew."""


class SolverTask(msgspec.Struct, frozen=True):
    """A problem, how long to search (`limit_s`, at most), how many iterations (0 for no limit but time), and the
    seed.
    """

    problem: FleetProblem
    limit_s: float
    iterations: int
    seed: int


class SolverAnswer(msgspec.Struct, frozen=True):
    """The routes found: for each vehicle, in the problem's order, its stops (from 0) in order.

    `left_out` are stops in no route. `cost_s` is the driving in seconds, without prices. `error` is "" when all went
    well.
    """

    routes: tuple[tuple[int, ...], ...] = ()
    left_out: tuple[int, ...] = ()
    cost_s: int = 0
    iterations: int = 0
    seconds: float = 0.0
    error: str = ""


class Solver:
    """The solver's process, started when first needed and again after it was killed. Use it from one thread at a
    time.
    """

    def __init__(self, limit_s: float, seed: int = 0) -> None:
        self.limit_s = limit_s
        self.seed = seed
        self.kills = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process_id(self) -> int | None:
        """The running process; None when there is none now."""
        return None if self._process is None else self._process.pid

    def warm_up(self) -> None:
        """Start the process, so that the first plan does not wait for it to import what it needs."""
        self._running()

    def solve(self, problem: FleetProblem, iterations: int = 0) -> SolverAnswer:
        """The best routes found within the limit. Raises SolverFailed."""
        process = self._running()
        task = msgspec.json.encode(SolverTask(problem, self.limit_s, iterations, self.seed))
        assert process.stdin is not None
        try:
            process.stdin.write(task + b"\n")
            process.stdin.flush()
            answer = msgspec.json.decode(self._line(process, self.limit_s + GRACE_S), type=SolverAnswer)
        except (OSError, msgspec.DecodeError) as wrong:
            self.kill()
            raise SolverFailed(f"the solver's process fell or answered nonsense: {wrong}") from None
        if answer.error:
            raise SolverFailed(f"the solver refused the problem: {answer.error}")
        return answer

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
            self.kills += 1

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cloud_hub.solver"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], patience_s: float) -> bytes:
        assert process.stdout is not None
        deadline = time.monotonic() + patience_s
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not selector.select(left_s):
                    self.kill()
                    raise SolverFailed(f"the solver gave no answer in {patience_s:.0f} s and was killed")
                part = process.stdout.read(1 << 16)
                if not part:
                    self.kill()
                    raise SolverFailed("the solver's process fell")
                received += part
        return bytes(received)


def search(task: SolverTask) -> SolverAnswer:
    """Search for routes, here and now (PyVRP's hybrid genetic search, Wouda, Lan and Kool 2024)."""
    import numpy as np
    from pyvrp import Client, Depot, Location, ProblemData, VehicleType, solve
    from pyvrp.stop import MaxIterations, MaxRuntime, MultipleCriteria, StoppingCriterion

    problem = task.problem
    travel: Any = np.array(problem.travel, dtype=np.int64)
    stops = len(problem.service_s)
    data = ProblemData(
        locations=[Location(0, 0) for _ in range(problem.depots + stops)],
        clients=[
            Client(
                problem.depots + stop,
                delivery=[max(0, problem.litres[stop]), *problem.work_s[stop]],
                pickup=[max(0, -problem.litres[stop]), *(0 for _ in problem.work_s[stop])],
                service_duration=problem.service_s[stop],
                tw_early=problem.opens_s[stop],
                tw_late=max(problem.opens_s[stop], problem.closes_s[stop]),
                prize=LEFT_OUT_PRICE,
                required=False,
            )
            for stop in range(stops)
        ],
        depots=[Depot(depot) for depot in range(problem.depots)],
        vehicle_types=[
            VehicleType(
                1,
                capacity=[vehicle.litres, *vehicle.most_work_s],
                start_depot=vehicle.depot,
                end_depot=vehicle.depot,
                tw_early=vehicle.begins_s,
                tw_late=max(vehicle.begins_s, vehicle.ends_s),
                # Standing in front of closed doors is work too: a tenth of driving keeps routes dense.
                unit_distance_cost=10,
                unit_duration_cost=1,
                name=str(number),
            )
            for number, vehicle in enumerate(problem.vehicles)
        ],
        distance_matrices=[travel],
        duration_matrices=[travel],
    )
    began = time.monotonic()
    limits: list[StoppingCriterion] = [MaxRuntime(task.limit_s)]
    if task.iterations:
        limits.append(MaxIterations(task.iterations))
    result = solve(data, MultipleCriteria(limits), seed=task.seed, collect_stats=False, display=False)
    routes: list[tuple[int, ...]] = [() for _ in problem.vehicles]
    for route in result.best.routes():
        routes[route.vehicle_type()] = tuple(visit.idx for visit in route if visit.is_client())
    served = {stop for route in routes for stop in route}
    return SolverAnswer(
        routes=tuple(routes),
        left_out=tuple(stop for stop in range(stops) if stop not in served),
        cost_s=result.best.distance(),
        iterations=result.num_iterations,
        seconds=round(time.monotonic() - began, 3),
    )


def main() -> None:
    """Answer tasks from standard input until it ends."""
    import pyvrp  # noqa: F401 - half a second, better spent before the first task than in it.

    answers = sys.stdout.buffer
    # Whatever a library prints must not stand between our answers.
    sys.stdout = sys.stderr
    for line in sys.stdin.buffer:
        try:
            answer = search(msgspec.json.decode(line, type=SolverTask))
        except Exception as wrong:  # noqa: BLE001 - the outermost loop of a process that only answers.
            answer = SolverAnswer(error=repr(wrong))
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
