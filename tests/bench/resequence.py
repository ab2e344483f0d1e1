"""Measure the re-sequencing kernel: gaps to best-known orders, rivals beside it, its deadline, its size.

    python -m tests.bench.resequence --instances FOLDER --scenarios FILE.jsonl [--limits 10,50,1000] [--peers]

Two families of jobs. TSPTW: a closed tour from node 0, lateness weighs 100 per unit, the order given is the stops
sorted by the middle of their windows; the gap is to the best-known cost and capped at 100 %. Delay scenarios: a planned
order, some stops served, the clock pushed forward; lateness weighs 3, a changed arc costs 2; the gap is to the stored
reference or to anything better found in this run. Limits are CPU time: the kernel's own of its thread, a rival's of its
process, whose clocks are made to follow the CPU (`cpuclock`).
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from shared import resequence as kernel
from shared.routes import Break, RouteProblem, evaluate
from tests.bench.rivals import run_rivals

TSPTW_LATENESS_WEIGHT = 100
SCENARIO_LATENESS_WEIGHT = 3
SCENARIO_CHANGED_ARC_COST = 2
MOST_GAP = 100.0
LARGE = 150
"""From this many stops on an instance counts for gap_5ms_large."""

OVERRUN_CALLS = 1000


class UnreadableInstance(ValueError):
    """An instance or scenario file does not hold what its format promises."""


@dataclass(slots=True)
class Job:
    """One problem, the cost to be compared with (None: nobody knows one) and what was found, by solver and limit."""

    name: str
    problem: RouteProblem
    reference: int | None
    found: dict[tuple[str, int], int] = field(default_factory=dict)

    def gap(self, cost: int) -> float:
        """Percent above the best known cost, capped."""
        best = min([cost if self.reference is None else self.reference, *self.found.values()])
        if self.reference is not None and self.name.startswith("tsptw:"):
            best = self.reference
        return min(MOST_GAP, 100.0 * (cost - best) / best) if best > 0 else 0.0 if cost == best else MOST_GAP


def read_instance(path: Path) -> tuple[list[list[float]], list[tuple[float, float]], int]:
    """Travel times and windows of a TSPTW file (n, matrix, windows; # starts a comment), and the factor that makes them
    whole.
    """
    words = [word for line in path.read_text().splitlines() for word in line.split("#")[0].split()]
    try:
        n = int(float(words[0]))
        numbers = [float(word) for word in words[1 : 1 + n * n + 2 * n]]
    except (IndexError, ValueError) as error:
        raise UnreadableInstance(f"{path}: {error}") from error
    if len(numbers) != n * n + 2 * n:
        raise UnreadableInstance(f"{path}: {len(numbers)} numbers after n = {n}, expected {n * n + 2 * n}")
    travel = [numbers[i * n : (i + 1) * n] for i in range(n)]
    windows = [(numbers[n * n + 2 * i], numbers[n * n + 2 * i + 1]) for i in range(n)]
    return travel, windows, 1 if all(number.is_integer() for number in numbers) else 100


def tsptw_problem(path: Path) -> RouteProblem:
    """The instance as a closed tour from node 0; the end is a copy of node 0 with the number n."""
    travel, windows, scale = read_instance(path)
    n = len(travel)
    matrix = np.rint(np.array(travel) * scale).astype(np.int32)
    opens = [round(a * scale) for a, _ in windows]
    closes = [max(round(a * scale), round(b * scale)) for a, b in windows]
    middle = sorted(range(1, n), key=lambda i: (windows[i][0] + windows[i][1], i))
    return RouteProblem(
        travel=matrix,
        order=tuple(middle),
        start=0,
        end=0,
        leave=max(0, opens[0]),
        service=(0,) * n,
        earliest=tuple(opens),
        latest=tuple(closes),
        lateness_weight=(TSPTW_LATENESS_WEIGHT,) * n,
    )


def best_known(folder: Path) -> dict[str, tuple[float, list[int]]]:
    """Cost and permutation by "family/instance", from the files of `best_known`; empty when there are none."""
    known = {}
    for path in sorted((folder / "best_known").glob("*.txt")):
        for line in path.read_text().splitlines():
            words = line.split("#")[0].split()
            if len(words) > 3:
                name = words[0].removesuffix(".txt")
                known[f"{path.stem}/{name}"] = (float(words[1]), [int(word) for word in words[3:]])
    return known


def tsptw_jobs(folder: Path) -> list[Job]:
    """Every instance under the folder, with its best-known cost re-evaluated by the exact evaluator."""
    known = best_known(folder)
    jobs = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith((".", "README")) or path.parent.name == "best_known":
            continue
        try:
            problem = tsptw_problem(path)
        except UnreadableInstance:
            continue
        name = f"{path.parent.name}/{path.name.removesuffix('.txt')}"
        reference = None
        if name in known and sorted(known[name][1]) == sorted(problem.order):
            reference = evaluate(problem, known[name][1]).total
        jobs.append(Job(f"tsptw:{name}", problem, reference))
    return jobs


def scenario_jobs(path: Path, instances: Path) -> list[Job]:
    """The delay scenarios of a JSON-lines file; instance paths count from `instances` or from the file's own folder."""
    jobs = []
    for line in path.read_text().splitlines():
        if not line.strip():
            continue
        scenario = json.loads(line)
        folders = [instances, path.parent, path.parent / "tsptw"]
        found = next(
            (folder / scenario["instance"] for folder in folders if (folder / scenario["instance"]).is_file()), None
        )
        if found is None:
            raise UnreadableInstance(f"{scenario['name']}: no {scenario['instance']} in {', '.join(map(str, folders))}")
        jobs.append(
            Job(f"scenario:{scenario['name']}", scenario_problem(scenario, found), scenario.get("reference_cost"))
        )
    return jobs


def scenario_problem(scenario: dict[str, Any], path: Path) -> RouteProblem:
    """One delay scenario over the instance in `path`."""
    travel, windows, scale = read_instance(path)
    if scale != 1:
        raise UnreadableInstance(f"{path}: a scenario needs whole travel times")
    n = len(travel)
    slow = scenario["slow"]
    return RouteProblem(
        travel=np.array([[round(leg * slow) for leg in row] for row in travel], dtype=np.int32),
        order=tuple(scenario["stops"]),
        start=scenario["start"],
        end=0 if scenario["closed"] else None,
        leave=int(scenario["leave"]),
        service=(0,) * n,
        earliest=tuple(int(a) for a, _ in windows),
        latest=tuple(int(b) for _, b in windows),
        lateness_weight=(SCENARIO_LATENESS_WEIGHT,) * n,
        changed_arc_cost=SCENARIO_CHANGED_ARC_COST,
    )


def large_problem(seed: int, is_timed: bool) -> RouteProblem:
    """A made-up route of 250 stops to measure the deadline; timed ones have six slices of travel times and a break."""
    draw = random.Random(seed)
    n = 252
    places = np.array([[draw.randrange(3000), draw.randrange(3000)] for _ in range(n)])
    free_flow = np.rint(np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))).astype(np.int32) // 10
    slices = [free_flow * tenths // 10 for tenths in ((10, 13, 16, 12, 10, 14) if is_timed else (10,))]
    opens = [draw.randrange(40_000) for _ in range(n)]
    return RouteProblem(
        travel=np.array(slices),
        order=tuple(sorted(range(1, n - 1), key=lambda i: opens[i])),
        start=0,
        end=n - 1,
        leave=0,
        service=(60,) * n,
        earliest=tuple(opens),
        latest=tuple(start + 3600 for start in opens),
        lateness_weight=(3,) * n,
        slice_ends=(7200, 14_400, 21_600, 28_800, 36_000) if is_timed else (),
        changed_arc_cost=2,
        rest=Break(1800, 14_400, 18_000, 5) if is_timed else None,
        shift_end=43_000,
        shift_weight=5,
    )


@dataclass(slots=True)
class Calls:
    """What all calls of the kernel had in common."""

    overruns_ms: list[float] = field(default_factory=list)
    worse: int = 0

    def run(self, problem: RouteProblem, limit_ms: float, seed: int) -> kernel.Resequenced:
        """One call under the CPU clock, noted."""
        result = kernel.resequence(problem, limit_ms=limit_ms, seed=seed, clock="thread_cpu")
        self.overruns_ms.append(result.elapsed_ms - limit_ms)
        self.worse += evaluate(problem, result.order).total > evaluate(problem, problem.order).total
        return result


def measure_kernel(jobs: Sequence[Job], limits: Sequence[int], seed: int, calls: Calls, progress: Progress) -> int:
    """Run every job at every limit (and large ones at 5 ms); returns how many TSPTW instances are late at 50 ms."""
    late = 0
    bar = progress.add_task("kernel", total=len(jobs))
    for job in jobs:
        own = sorted({*limits, *([5] if len(job.problem.order) + 1 >= LARGE else [])})
        for limit in own:
            result = calls.run(job.problem, limit, seed)
            job.found["kernel", limit] = result.cost.total
            late += limit == 50 and job.name.startswith("tsptw:") and result.cost.lateness > 0
        progress.advance(bar)
    return late


def measure_deadline(calls: Calls, progress: Progress) -> float:
    """p99.9 of how far calls outlast their limit, over everything run so far plus OVERRUN_CALLS with 250 stops."""
    problems = [large_problem(seed, is_timed=seed % 2 == 1) for seed in range(10)]
    bar = progress.add_task("deadline", total=OVERRUN_CALLS)
    for call in range(OVERRUN_CALLS):
        calls.run(problems[call % len(problems)], 5, call)
        progress.advance(bar)
    return sorted(calls.overruns_ms)[int(0.999 * len(calls.overruns_ms))]


def measure_import() -> float:
    """Milliseconds of CPU to import `shared.resequence` with its `shared.routes` and the library: median of 7 fresh
    processes.

    numpy is already loaded (any agent has it) and bytecode is already compiled, as it is after an installation.
    """
    code = (
        "import numpy, time; began = time.thread_time(); import shared.resequence;"
        "print((time.thread_time() - began) * 1000)"
    )
    took = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(8):
            run = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
            )
            took.append(float(run.stdout))
    return statistics.median(took[1:])


def label(limit_ms: int) -> str:
    """How a limit is spelt in names: 50ms, 1s."""
    return f"{limit_ms // 1000}s" if limit_ms % 1000 == 0 else f"{limit_ms}ms"


def mean_gap(jobs: Sequence[Job], solver: str, limit: int) -> float | None:
    """Mean gap in percent over the jobs this solver has run at this limit and whose best is known."""
    gaps = [
        job.gap(job.found[solver, limit]) for job in jobs if (solver, limit) in job.found and job.reference is not None
    ]
    return statistics.fmean(gaps) if gaps else None


def worse_than_rival(jobs: Sequence[Job], limit: int) -> float | None:
    """Share in percent of jobs whose order costs over 0.1 % more than OR-Tools' after one second."""
    pairs = [
        (job.found["kernel", limit], job.found["ortools", 1000])
        for job in jobs
        if ("kernel", limit) in job.found and ("ortools", 1000) in job.found
    ]
    return 100.0 * sum(ours > theirs * 1.001 for ours, theirs in pairs) / len(pairs) if pairs else None


def gap_table(families: dict[str, list[Job]], limits: Sequence[int]) -> Table:
    """Mean gap in percent: one row per solver and limit, one column per family."""
    table = Table(title="Mean gap to best known, % (CPU time)")
    table.add_column("solver")
    table.add_column("limit", justify="right")
    for family in families:
        table.add_column(family, justify="right")
    solvers = dict.fromkeys(
        (solver, limit) for jobs in families.values() for job in jobs for solver, limit in job.found
    )
    for solver, limit in sorted(solvers, key=lambda row: (row[0] != "kernel", row)):
        gaps = [mean_gap(jobs, solver, limit) for jobs in families.values()]
        table.add_row(solver, label(limit), *("" if gap is None else f"{gap:.3f}" for gap in gaps))
    return table


def main() -> None:
    """Run the benchmark the module's first lines describe."""
    data = Path(__file__).resolve().parents[3] / "shared" / "data" / "routing"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--instances", type=Path, default=data / "tsptw", help="folder of TSPTW files (and best_known/)"
    )
    parser.add_argument(
        "--scenarios", type=Path, default=data / "delay_scenarios.jsonl", help="delay scenarios, JSON lines"
    )
    parser.add_argument("--limits", default="10,50,1000", help="CPU milliseconds, separated by commas")
    parser.add_argument("--peers", action="store_true", help="also run OR-Tools and PyVRP (minutes)")
    parser.add_argument("--sample", type=int, help="so many jobs of each family, drawn by --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one flat object as the last line")
    asked = parser.parse_args()
    limits = sorted({int(limit) for limit in asked.limits.split(",")})

    console = Console(stderr=asked.json)
    tours = tsptw_jobs(asked.instances) if asked.instances.is_dir() else []
    delays = scenario_jobs(asked.scenarios, asked.instances) if asked.scenarios.is_file() else []
    if not tours and not delays:
        sys.exit(f"nothing to measure: no instances in {asked.instances}, no scenarios at {asked.scenarios}")
    if asked.sample is not None:
        draw = random.Random(asked.seed)
        tours = draw.sample(tours, min(asked.sample, len(tours)))
        delays = draw.sample(delays, min(asked.sample, len(delays)))

    calls = Calls()
    with Progress(console=console, transient=True) as progress:
        late = measure_kernel([*tours, *delays], limits, asked.seed, calls, progress)
        if asked.peers:
            bar = progress.add_task("rivals", total=len(tours) + len(delays))
            run_rivals([*tours, *delays], limits, lambda: progress.advance(bar))
        overrun_ms = measure_deadline(calls, progress)

    figures: dict[str, float | None] = {}
    for limit in limits:
        figures[f"tsptw_gap_{label(limit)}"] = mean_gap(tours, "kernel", limit)
        figures[f"scenario_gap_{label(limit)}"] = mean_gap(delays, "kernel", limit)
        if asked.peers:
            figures[f"worse_than_ortools_{label(limit)}"] = worse_than_rival(delays, limit)
    large = [job for job in [*tours, *delays] if len(job.problem.order) + 1 >= LARGE]
    figures |= {
        "tsptw_late": late if tours and 50 in limits else None,
        "worse_than_given": calls.worse,
        "gap_5ms_large": mean_gap(large, "kernel", 5),
        "overrun_ms": max(0.0, overrun_ms),
        "import_ms": measure_import(),
        "library_kb": Path(kernel.LIBRARY).stat().st_size / 1024,
        "tsptw_jobs": len(tours),
        "scenario_jobs": len(delays),
    }
    families = {
        "TSPTW": tours,
        "delay scenarios": delays,
        f"TSPTW n>={LARGE}": [job for job in tours if job in large],
        f"delays n>={LARGE}": [job for job in delays if job in large],
    }
    console.print(gap_table(families, limits))
    facts = Table(title="The kernel itself", show_header=False)
    for name, figure in figures.items():
        facts.add_row(name, "" if figure is None else f"{figure:.3f}")
    console.print(facts)
    console.print(
        f"{len(tours)} TSPTW instances, {len(delays)} delay scenarios, seed {asked.seed}; {time.strftime('%Y-%m-%d')}"
    )
    if asked.json:
        known = {name: round(figure, 4) for name, figure in figures.items() if figure is not None}
        print(json.dumps(known))


if __name__ == "__main__":
    main()
