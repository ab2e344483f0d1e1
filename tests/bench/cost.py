"""What a mid-size operator pays: the hub's processor and memory, mobile data, storage, bytes on the agents' cards.

    python -m tests.bench.cost --vans 300 --robots 60 --sorters 4 [--store embedded|postgres] [--broker mosquitto]

The hub is the real process with a fleet's books in its store (`fleet_day`), and hears everything that fleet said in a
busy stretch of the day, over a real broker, some times faster than it was said. Its idle cost at real speed is measured
apart and added once. Robots and sort centres are telemetry at the pace their machines have: 10 channels a second for a
robot, 24 channels ten times a second for a sort centre.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.table import Table

from cloud_hub.fleet import AgentRecord
from cloud_hub.storage import open_stores
from deploy.stack import Stack, free_ports
from shared.clock import SETTING, Clock
from shared.steps import Row
from tests.bench.card import measure_card
from tests.bench.fleet_day import HOUR_MS, Copies, RecordedDay, record
from tests.bench.fleet_load import Load, Meter
from tests.bench.mobile_data import van_day
from tests.brokers import start_broker
from tests.chaos.database import Database
from tests.processes import cpu_s, rss_mb
from tests.universe.town import ZONE, Town

SEED = 700
SPEED = 12.0
IDLE_S = 15.0
ROWS_AT_ONCE = 2_000
ROBOT, SORTER = (10, 1_000), (24, 100)
"""Channels, and milliseconds between two samples."""
DAY_H = 10.0


class Setup:
    """The processes, and what each has used of the machine."""

    def __init__(self, folder: Path, store: str, broker: str, day: RecordedDay, load: Load, rows: list[Row]) -> None:
        self.folder = folder
        self.database = Database.of(store, folder)
        self._fill(rows)
        self.broker_port, self.http_port = free_ports(2)
        self.clock = Clock.starting(day.hour.from_ms, SPEED)
        self.stack = Stack(folder / "logs", {SETTING: self.clock.setting()})
        start_broker(self.stack, broker, self.folder, self.broker_port)
        settings = folder / "hub.toml"
        settings.write_text(self._settings(day) + "[access]\nopen_on_loopback = true\n")
        self.stack.start("hub", "cloud_hub", "run", "--settings", str(settings))
        self._wait_ready()

    def cpu_s(self, name: str) -> float:
        """Processor seconds of a process and all its children so far."""
        return cpu_s([self.stack.ids[name]])

    def rss_mb(self, name: str) -> float:
        """Resident memory of a process."""
        return rss_mb(self.stack.ids[name])

    def stored_bytes(self) -> int:
        """What the store takes on disk."""
        if self.database.url.startswith("sqlite"):
            return sum(file.stat().st_size for file in self.folder.glob("hub*.db*"))
        import psycopg

        with psycopg.connect(self.database.url) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """End everything."""
        self.stack.stop()
        self.database.stop()

    def _fill(self, rows: list[Row]) -> None:
        store, telemetry = open_stores(self.database.url)
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            store.commit(rows[begin : begin + ROWS_AT_ONCE])
        store.close()
        telemetry.close()

    def _settings(self, day: RecordedDay) -> str:
        depot = day.town.depot
        return (
            f'broker = "mqtt://127.0.0.1:{self.broker_port}"\nstore = "{self.database.url}"\n'
            f'http_port = {self.http_port}\nday = "{day.hour.day}"\nzone = "{ZONE}"\n'
            f'key_file = "{self.folder / "hub.key"}"\n'
            f'[[depots]]\nid = "{depot.depot_id}"\nname = "{depot.name}"\n'
            f"position = [{depot.position.lat}, {depot.position.lon}]\n"
            f"gateway = [{depot.gateway.lat}, {depot.gateway.lon}]\nstem_s = {depot.stem_s}\n"
        )

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{self.http_port}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if self.stack.fallen():
                raise RuntimeError(str(self.stack.fallen()))
            time.sleep(0.1)
        raise RuntimeError(f"the hub is not ready: {self.stack.last_words('hub')}")


def hub_cost(day: RecordedDay, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Cores and memory of the hub, broker and generator while the fleet's busy stretch is said again."""
    copies = Copies(day.hour, arguments.vans)
    to_ms = min(day.hour.to_ms, day.hour.from_ms + round(arguments.minutes * 60_000))
    said = [
        (at_ms, van, envelope.topic, envelope.payload, envelope.is_retained)
        for at_ms, van, envelope in copies.said()
        if at_ms < to_ms
    ]
    # A copy says what its original said, but not in the same second as 99 others.
    draw = random.Random(1)
    spread = {van: draw.randrange(60_000) for van in copies.vans}
    said = sorted(((at_ms + spread[van], van, *rest) for at_ms, van, *rest in said), key=lambda one: one[0])  # type: ignore[misc]  # rest is what it was
    meters = [Meter(f"robot-{k + 1}", *ROBOT) for k in range(arguments.robots)]
    meters += [Meter(f"sorter-{k + 1}", *SORTER) for k in range(arguments.sorters)]
    others = [Row("agents", each.agent, msgspec.json.encode(AgentRecord(each.agent))) for each in meters]  # type: ignore[arg-type]  # a name is an id
    load = Load("", "", to_ms, said, meters)
    setup = Setup(folder, arguments.store, arguments.broker, day, load, [*copies.rows(), *others])
    try:
        # The clock began when the store was ready; the fleet begins where it stands now.
        shift_ms = setup.clock.now_ms() + round(20_000 * SPEED) - day.hour.from_ms
        load = Load(
            f"mqtt://127.0.0.1:{setup.broker_port}", setup.clock.setting(), to_ms + shift_ms,
            [(at_ms + shift_ms, *rest) for at_ms, *rest in said], meters,  # type: ignore[misc]  # rest is what it was
        )  # fmt: skip
        file = folder / "load.msgpack"
        file.write_bytes(msgspec.msgpack.encode(load))
        generator = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.fleet_load", str(file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert generator.stdout is not None
        assert generator.stdin is not None
        connected = json.loads(generator.stdout.readline())["connected"]
        idle = setup.cpu_s("hub")
        time.sleep(IDLE_S)
        idle_cores = (setup.cpu_s("hub") - idle) / IDLE_S
        before = {name: setup.cpu_s(name) for name in ("hub", "broker")}
        bytes_before, began_s = setup.stored_bytes(), time.monotonic()
        generator.stdin.write("go\n")
        generator.stdin.flush()
        rss = []
        while generator.poll() is None:
            rss.append(setup.rss_mb("hub"))
            time.sleep(0.5)
        wall_s = time.monotonic() - began_s
        outcome = json.loads(generator.stdout.read().strip().splitlines()[-1])
        used = {name: setup.cpu_s(name) - before[name] for name in before}
        domain_s = (to_ms - day.hour.from_ms) / 1000
        grown = setup.stored_bytes() - bytes_before
    finally:
        setup.close()
    busy = max(0.0, used["hub"] - idle_cores * wall_s) / domain_s
    return {
        "agents_connected": connected,
        "messages": outcome["said"],
        "messages_per_s_of_day": round(outcome["said"] / domain_s, 1),
        "unacknowledged": outcome["unacknowledged"],
        "repeats": outcome["repeats"],
        "commands": outcome["commands"],
        "late_s_most": round(outcome["late_s_most"], 1),
        "hub_cores": round(busy + idle_cores, 3),
        "hub_cores_idle": round(idle_cores, 3),
        "broker_cores": round(used["broker"] / domain_s, 3),
        "hub_rss_mb": round(max(rss), 1),
        "gb_day_raw": round(grown / domain_s * DAY_H * HOUR_MS / 1000 / 1e9, 2),
    }


def main() -> None:
    """Measure, and print a table and one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cost", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vans", type=int, default=300)
    parser.add_argument("--robots", type=int, default=60)
    parser.add_argument("--sorters", type=int, default=4)
    parser.add_argument("--store", default="embedded", help="embedded, postgres (one of our own), or a URL")
    parser.add_argument("--broker", default="embedded", choices=("embedded", "mosquitto"))
    parser.add_argument("--minutes", type=float, default=30.0, help="of the day that is said")
    parser.add_argument("--card", type=Path, default=Path(), help="a folder on a real disk, for the agent's store")
    arguments = parser.parse_args()
    say = Console(stderr=True)
    say.print("living one day of three vans")
    day = record(Town(), SEED)
    with tempfile.TemporaryDirectory(prefix="waywarden-cost-") as scratch:
        say.print("filling the hub's books, then saying it all")
        figures = hub_cost(day, arguments, Path(scratch).resolve())
    say.print("saying one van's day over TLS")
    by_kind = van_day(day, "van-1")
    say.print("driving a day onto a card")
    with tempfile.TemporaryDirectory(prefix="waywarden-card-", dir=arguments.card) as card:
        figures["sd_gb_day"] = round(measure_card(Path(card)).sd_gb_day, 3)
    figures |= {name if name == "van_mb_day" else f"van_mb_{name}": round(mb, 2) for name, mb in by_kind.items()}
    table = Table(
        "figure",
        "measured",
        title=f"{arguments.vans} vans, {arguments.robots} robots, {arguments.sorters} sort centres",
    )
    for name, value in figures.items():
        table.add_row(name, str(value))
    say.print(table)
    print(json.dumps(vars(arguments) | figures, default=str))


if __name__ == "__main__":
    main()
