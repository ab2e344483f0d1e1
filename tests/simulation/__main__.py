"""`python -m tests.simulation`: many universes, and whether every promise held in each of them."""

import argparse
import json
import sys
import time
from pathlib import Path

from tests.simulation.promises import Broken
from tests.simulation.universe import Stage


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--from", dest="first", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    asked = parser.parse_args()
    stage = Stage()
    began, failures = time.process_time(), []
    seeds = [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    try:
        for seed in seeds:
            universe = stage.universe(seed, keep_lines=asked.trace)
            try:
                digest = universe.run()
                if asked.seed is not None:
                    print(f"seed {seed}: {digest}")
            except Exception as broken:
                if not isinstance(broken, Broken):
                    import traceback
                    traceback.print_exc()
                failures.append((seed, type(broken).__name__, getattr(broken, "promise", ""), str(broken)))
                print("FAIL", failures[-1], universe.weather)
                if asked.trace:
                    pass
            if asked.trace:
                print("\n".join(universe.lines))
    finally:
        stage.close()
    seconds = time.process_time() - began
    print(json.dumps({"seeds": len(seeds), "failures": len(failures), "seconds": round(seconds, 1)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
