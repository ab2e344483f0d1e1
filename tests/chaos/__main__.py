"""Kill agents, hub, broker and database in any order, cut links, and audit what was said against what was stored.

    python -m tests.chaos --rounds 100 --store embedded|postgres|URL --broker embedded|mosquitto [--control puback]

Real processes, SIGKILL, cables that are pulled. At the end everything is left alone until the outboxes are empty. What
was said must be stored, or thinned and declared; nothing may be there twice. `--control puback` runs outboxes that
believe the broker: it must lose some, or the run proves nothing.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.chaos.audit import Column, columns, drain_ratio, records_of, recoveries_s, waits_for_the_hub
from tests.chaos.stage import STOPS_EACH, NotBack, Stage

CUT_S = 10.0
DRAINED_WITHIN_S = 120.0


def run(arguments: argparse.Namespace, folder: Path, say: Console) -> dict[str, object]:
    """One whole run; its figures. Raises NotBack when something did not come back."""
    draw = random.Random(arguments.seed)
    is_control = arguments.control == "puback"
    stage = Stage(folder, arguments.store, arguments.broker, arguments.talkers, arguments.events_per_s, is_control)
    wounds = []
    try:
        stage.open()
        stage.tend(1.0)
        victims = stage.victims
        for number in track(range(arguments.rounds), "rounds", console=say, disable=not say.is_terminal):
            stage.ask_window(number % (STOPS_EACH * len(stage.talkers)), number)
            # Every kind of wound comes once before any comes twice.
            if number % len(victims) == 0:
                draw.shuffle(victims)
            wounds.append(stage.strike(victims[number % len(victims)], draw.uniform(0.05, 1.5), draw))
            stage.tend(draw.uniform(0.3, 1.5))
        plugged_ms = _cut_and_plug(stage)
        stage.silence()
        stores = [folder / f"{name}.db" for name in stage.talkers]
        is_drained = True
        try:
            stage.wait_until(
                lambda: not any(map(waits_for_the_hub, stores)), "all outboxes are empty", DRAINED_WITHIN_S
            )
        except NotBack:
            if not is_control:
                raise
            is_drained = False
        stage.tend(1.0)
        stage.stack.stop()
        records = records_of(stage.database.url, stage.talkers)
        found = columns(stage.database.url, stores, stage.talkers, records)
    finally:
        stage.close()
    _show(found, say)
    waits = recoveries_s(records, wounds)
    return {
        "store": arguments.store,
        "broker": arguments.broker,
        "control": arguments.control or "",
        "rounds": arguments.rounds,
        "lost": sum(column.lost for column in found),
        "twice": sum(column.twice for column in found),
        "said": {column.what: column.said for column in found},
        "stored": {column.what: column.stored for column in found},
        "thinned": {column.what: column.thinned for column in found},
        "chain_breaks": sum(not record.follows for record in records),
        "recovery_s_p50": round(float(np.percentile(waits, 50)), 2) if waits else None,
        "recovery_s_p95": round(float(np.percentile(waits, 95)), 2) if waits else None,
        "messages_hit": len(waits),
        "drain_ratio": drain_ratio(records, plugged_ms, arguments.events_per_s * arguments.talkers),
        "is_drained": is_drained,
        "windows_asked": stage.windows_asked,
        "slowest": _slowest(records, wounds),
    }


def _cut_and_plug(stage: Stage) -> int:
    """Cut everybody for a while, so that a backlog grows; the instant the cables are in again, in domain time."""
    with stage.all_cut():
        stage.tend(CUT_S)
    plugged_ms = stage.clock.now_ms()
    stage.tend(CUT_S)
    return plugged_ms


def _slowest(records: list, wounds: list) -> dict[str, float]:  # type: ignore[type-arg]  # as audit has them
    """The 95th percentile of the wait by kind of wound."""
    kinds: dict[str, list[float]] = {}
    for wound in wounds:
        kinds.setdefault(wound.what, []).extend(recoveries_s(records, [wound]))
    return {what: round(float(np.percentile(waits, 95)), 2) for what, waits in sorted(kinds.items()) if waits}


def _show(found: list[Column], say: Console) -> None:
    table = Table("what", "said", "stored", "thinned and declared", "lost", "twice", title="the audit")
    for column in found:
        numbers = (column.said, column.stored, column.thinned, column.lost, column.twice)
        table.add_row(column.what, *(f"{number:,}" for number in numbers))
    say.print(table)


def main() -> int:
    """Run it; 0 when nothing was lost and nothing is there twice (or, for a control, when something was lost)."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--store", default="embedded", help="embedded, postgres (one of our own), or a URL")
    parser.add_argument("--broker", default="embedded", choices=("embedded", "mosquitto"))
    parser.add_argument("--control", choices=("puback",), help="outboxes that believe the broker; must lose some")
    parser.add_argument("--talkers", type=int, default=3)
    parser.add_argument("--events-per-s", type=float, default=40.0, help="of each talker")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep stores and logs here")
    arguments = parser.parse_args()
    say = Console(stderr=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="waywarden-chaos-") as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)  # Mosquitto drops to its own user, and must get to its folder in this one.
        try:
            figures = run(arguments, folder.resolve(), say)
        except NotBack as wrong:
            say.print(f"[red]{wrong}[/]")
            return 2
    print(json.dumps(figures | {"seconds": round(time.monotonic() - began)}))
    is_clean = figures["lost"] == 0 and figures["twice"] == 0
    return 0 if (not is_clean if arguments.control else is_clean) else 1


if __name__ == "__main__":
    sys.exit(main())
