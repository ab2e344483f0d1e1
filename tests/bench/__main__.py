"""Every benchmark behind the README's figures, one after the other: `make bench`.

Whole instances take their time; `--quick` takes a sample of them.
"""

import argparse
import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def main() -> None:
    """Run them; the exit status is 1 when one of them could not be run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="instances and trips (default: beside the project)")
    parser.add_argument("--quick", action="store_true", help="a sample of the instances")
    arguments = parser.parse_args()
    sample = ["--sample", "20", "--seed", "1"] if arguments.quick else []
    ingest = ["--seconds", "8", "--rounds", "1"] if arguments.quick else []
    routing, trips = arguments.data / "routing", arguments.data / "eta" / "chicago_taxi_15k.csv"
    benches = [
        ["tests.bench.resequence", "--instances", str(routing / "tsptw"),
         "--scenarios", str(routing / "delay_scenarios.jsonl"), "--limits", "10,50,1000", *sample],
        ["tests.bench.eta", "--trips", str(trips)],
        ["tests.bench.agent"],
        ["tests.bench.promises", *(["--quick"] if arguments.quick else [])],
        ["tests.bench.page"],
        ["tests.bench.install"],
        ["tests.bench.ingest", *ingest],
        ["tests.bench.ingest", "--store", "postgres", "--broker", "mosquitto", *ingest],
        ["tests.bench.ingest", "--store", "postgres", "--broker", "mosquitto", "--channels", "8", *ingest],
        ["tests.bench.cost", *(["--minutes", "5"] if arguments.quick else [])],
        ["tests.bench.takeover"],
        ["tests.bench.reconnect"],
    ]  # fmt: skip
    failed = [bench[0] for bench in benches if subprocess.run([sys.executable, "-m", *bench], check=False).returncode]
    if failed:
        sys.exit(f"could not be run: {', '.join(failed)}")


if __name__ == "__main__":
    main()
