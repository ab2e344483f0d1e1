"""How long a region is without a hub that acts, on a real PostgreSQL and a real broker.

`python -m tests.bench.takeover [--rounds N] [--json]`

- takeover_s_KIND: from the moment the acting hub was killed (SIGKILL), cut off (its links to broker and database carry
  nothing and break nothing: half-open) or put to sleep (SIGSTOP) until the standby answers that it is ready.
- heard_s_KIND: until it has acknowledged what an agent said at that moment.

The worst of all rounds is what is promised: at most 5 s. The standby has everything loaded before each round begins.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from deploy import cable
from deploy.stack import Stack
from tests.postgres import Databases, PostgresServer
from tests.shells.region_parts import PATIENCE_S, Region, wait

KINDS = ("killed", "half_open", "asleep")
LIMIT_S = 5.0


def strike(region: Region, kind: str) -> None:
    """Take the acting hub away in one of three ways."""
    hub = region.acting
    if kind == "killed":
        region.stack.kill(hub.name)
    elif kind == "half_open":
        cable.tell(hub.broker_control, "freeze")
        cable.tell(hub.database_control, "freeze")
    else:
        os.kill(hub.process.pid, signal.SIGSTOP)


def measure(region: Region, kind: str) -> tuple[float, float]:
    """Seconds until the standby is ready, and until it has heard the agent."""
    standby, old = region.ready_standby(), region.acting
    strike(region, kind)
    since_s = time.monotonic()
    region.say_something()
    wait(lambda: standby.why_not_ready() == "", "the standby acts")
    ready_s = time.monotonic() - since_s
    region.van.wait_acked()
    heard_s = time.monotonic() - since_s
    if kind == "asleep":
        os.kill(old.process.pid, signal.SIGCONT)
    old.process.wait(PATIENCE_S)
    region.acting, region.standby = standby, region.another()
    return ready_s, heard_s


def main() -> None:
    """Measure and print; exit 1 when a takeover took longer than is promised."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        PostgresServer() as server,
        Stack(Path(folder) / "logs", {}) as stack,
    ):
        region = Region(stack, server, Databases(server.url).fresh_database(), Path(folder))
        with region.van:
            region.van.wait_plan()
            rounds = {kind: [measure(region, kind) for _ in range(arguments.rounds)] for kind in KINDS}
            region.assert_nothing_lost_and_nothing_twice([])
    figures = {
        f"{name}_{kind}": {"median": round(statistics.median(found), 2), "worst": round(max(found), 2)}
        for kind, pairs in rounds.items()
        for name, found in zip(("takeover_s", "heard_s"), zip(*pairs, strict=True), strict=True)
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        print(f"{'':24}{'median':>8}{'worst':>8}   of {arguments.rounds}")
        for name, figure in figures.items():
            print(f"{name:24}{figure['median']:8.2f}{figure['worst']:8.2f}")
    sys.exit(int(any(figure["worst"] > LIMIT_S for figure in figures.values())))


if __name__ == "__main__":
    main()
