"""`python -m tests.simulation`: many universes from as many seeds, and whether every promise held in each of them.

--seeds 2000 [--from N]     so many seeds, from N on
--seed K [--trace]          one seed, with every line of what happened
--planted [--seeds N]       each planted fault in at most N seeds, until it is caught
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable

import shared.logs
from tests.simulation import planted
from tests.simulation.promises import ALL, Broken
from tests.simulation.universe import Stage, Universe

ENOUGH = 3
"""A fault that so many seeds have caught is looked for in no more."""


def main() -> int:
    """The command; its exit status is 0 when every promise held, or every planted fault was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, help="how many (2000, and 200 for each planted fault)")
    parser.add_argument("--from", dest="first", type=int, default=1, metavar="N", help="the first of them")
    parser.add_argument("--seed", type=int, metavar="K", help="this one alone")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--planted", action="store_true", help="plant faults and see them caught")
    asked = parser.parse_args()
    _hush()
    stage = Stage()
    try:
        if asked.planted:
            return _plant(stage, range(asked.first, asked.first + (asked.seeds or 200)))
        seeds = range(asked.seed, asked.seed + 1) if asked.seed is not None else None
        seeds = seeds or range(asked.first, asked.first + (asked.seeds or 2_000))
        return _play(stage, seeds, asked.trace)
    finally:
        stage.close()


def _hush() -> None:
    """A thousand days' logs of processes that die and wake are no use to anybody."""
    quiet: Callable[..., None] = lambda *_, **__: None  # noqa: E731 - a name for what takes print's place.
    vars(shared.logs)["print"] = quiet


def _play(stage: Stage, seeds: range, is_traced: bool) -> int:
    began_s, failed, digest = time.process_time(), [], ""
    for seed in seeds:
        universe = stage.universe(seed, keep_lines=is_traced)
        try:
            digest = universe.run()
        except (Broken, Exception) as broken:  # noqa: BLE001 - whatever broke, the next seed is played.
            failed.append(seed)
            _tell(universe, broken)
        if is_traced:
            print("\n".join(universe.lines))
        if len(seeds) >= 100 and (seed - seeds.start) % 100 == 99:
            spent_s = time.process_time() - began_s
            print(
                f"seed {seed}: {len(failed)} failed, {spent_s / (seed - seeds.start + 1):.2f} s each", file=sys.stderr
            )
    if len(seeds) == 1 and digest:
        print(f"trace {digest}")
    seconds = time.process_time() - began_s
    print(f"{len(seeds)} seeds from {seeds.start}, {len(ALL)} promises, {len(failed)} failures, {seconds:.0f} s of CPU")
    print(
        json.dumps({"seeds": len(seeds), "failures": len(failed), "failed": failed[:50], "seconds": round(seconds, 1)})
    )
    return 1 if failed else 0


def _tell(universe: Universe, broken: BaseException) -> None:
    """A seed that failed: the promise, how it was broken, what happened last, and how to see it again."""
    print("\n".join(universe.lines[-20:]))
    if isinstance(broken, Broken):
        print(f"seed {universe.seed} broke a promise, {broken.promise}: {broken.sentence}\n  {broken}")
    else:
        print("".join(traceback.format_exception(broken)[-6:]), f"seed {universe.seed} broke down", sep="\n")
    print(f"  {universe.weather}\n  again: python -m tests.simulation --seed {universe.seed} --trace\n")


def _plant(stage: Stage, seeds: range) -> int:
    began_s, caught = time.process_time(), []
    width = max(len(one.name) for one in planted.FAULTS)
    for one in planted.FAULTS:
        found = planted.hunt(stage, one, seeds, ENOUGH)
        caught.append(found)
        by = ", ".join(f"{name} {count}" for name, count in found.by.items()) or "NOBODY"
        print(f"{found.name:<{width}}  {found.caught:>3} of {found.seeds:>3} seeds  {by}", flush=True)
    seen = sum(bool(each.caught) for each in caught)
    seconds = round(time.process_time() - began_s, 1)
    print(f"{len(caught)} faults planted, {seen} caught, {seconds} s of CPU")
    faults = {
        each.name: {"caught": each.caught, "seeds": each.seeds, "first": each.first_seed, "by": each.by}
        for each in caught
    }
    print(json.dumps({"planted": len(caught), "planted_caught": seen, "seconds": seconds, "faults": faults}))
    return 0 if seen == len(caught) else 1


if __name__ == "__main__":
    sys.exit(main())
