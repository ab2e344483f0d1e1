"""What one agent writes to its card on a working day: bytes the kernel is asked to put on the disk.

`python -m tests.bench.card [--hours 10] [--stops 120] [--offline] [--process SECONDS] [--json]`

One core with its real store, models and kernel drives a day without waiting: a fix every second, legs, doors,
deliveries, delays, a signature at every third door, the hub acknowledging each step (or, offline, nothing).
`sd_gb_day` is the growth of write_bytes in /proc/self/io, which counts pages dirtied and so includes the log, its
folding into the file and the index; `asked_gb_day` (wchar) is what the store itself wrote, before the file system made
whole pages of it. `--process` holds that against a whole agent process with its devices, page, broker and hub, that
drives at 60 times the speed for so many seconds.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.agent import AgentCore
from edge_agent.dialogue import Asked, ChangeSaid, HeadingSaid, ObjectSaid, OutcomeSaid, ShiftSaid
from edge_agent.inference import TRAINED_FOLDER
from edge_agent.sensing import Fix, Scan
from edge_agent.store import SqliteStore
from edge_agent.workshop import Workshop
from shared import wire
from shared.contracts import Plan
from shared.messages import Ack, EstimatesMoved, Numbered, PlanPushed, WindowTold
from shared.quantities import EpochMs, Position, TimeWindow
from shared.steps import Consequences, LinkUp, Now, Row, Saved, step
from shared.topics import HUB
from shared.work import AgentId, Outcome, Stop, StopId
from tests.agents import DEPOT, MINUTE_MS, MORNING_MS, identity, plan_of, stop
from tests.bench.agent import RealVan

VAN = AgentId("van-1")
SIGNED_EVERY = 3
SIGNATURE = b"\x89PNG\r\n\x1a\n" + bytes(8_000)
PROCESS_SPEED = 60.0
TOLD_EVERY = 4
"""So many stops of a moved estimate get a window told anew: a guess on the high side of the hub's rule."""


class CardFigures(msgspec.Struct, frozen=True):
    """What a day cost the card. Gigabytes are 10^9 bytes; both are scaled to ten hours."""

    sd_gb_day: float
    asked_gb_day: float
    commits: int
    rows: int
    row_mb: float
    store_mb: float
    stops_done: int


class Counted:
    """A store that counts what is asked of it."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.commits = 0
        self.rows = 0
        self.bytes = 0
        self.by_room: dict[str, list[int]] = {}

    def saved(self) -> Saved:
        return self._store.saved()

    def commit(self, rows: Sequence[Row]) -> None:
        self.commits += 1
        for row in rows:
            size = len(row.value or b"")
            self.rows += 1
            self.bytes += size
            tally = self.by_room.setdefault(row.key if row.room in ("agent", "day", "plan") else row.room, [0, 0])
            tally[0] += 1
            tally[1] += size
        self._store.commit(rows)


class Day:
    """A van's day: `now_ms` moves on by what is done."""

    def __init__(self, store: SqliteStore, hours: float, stops: int, is_online: bool) -> None:
        self.store = Counted(store)
        self.core = AgentCore(identity(store.boot), store.saved())
        self._workshop = Workshop(TRAINED_FOLDER)
        self._is_online = is_online
        self._boot = store.boot
        self._acked = 0
        self._commands = 0
        self._keys = 0
        self.now_ms: int = MORNING_MS
        self.end_ms = MORNING_MS + round(hours * 60 * MINUTE_MS)
        self.plan = _plan(stops, hours)
        self._draw = np.random.default_rng(7)

    def drive(self) -> int:
        """The whole day; how many stops were done."""
        if self._is_online:
            self._step(LinkUp())
        self._hub(PlanPushed(self.plan, EpochMs(self.end_ms)))
        self._ask(ShiftSaid("begun"))
        done, here = 0, DEPOT.position
        while self.now_ms < self.end_ms and self.core._round.day.shown:
            change = self.core._round.day.change
            if change is not None:
                self._ask(ChangeSaid(change.change_id, "seen"))
            stop_id = self.core._round.day.shown[0]
            the_stop = self.core._round.work.stops[stop_id]  # type: ignore[union-attr]  # the plan was taken
            self._ask(HeadingSaid(stop_id))
            # Some legs take half as long again: the delays that make estimates and orders move.
            here = self._go(here, the_stop.position, slow=float(self._draw.choice([1.0, 1.1, 1.6])))
            self._stand(here, float(self._draw.uniform(90, 260)))
            self._step(*(Scan(EpochMs(self.now_ms), parcel.barcode) for parcel in the_stop.parcels))
            self._deliver(stop_id, done)
            done += 1
        while self.now_ms < self.end_ms:
            self._stand(here, 60)
        return done

    def _deliver(self, stop_id: StopId, done: int) -> None:
        if done % SIGNED_EVERY:
            self._ask(OutcomeSaid(stop_id, Outcome.DELIVERED_TO_PERSON))
            return
        content = SIGNATURE + stop_id.encode()
        self._ask(ObjectSaid("signature", stop_id, "image/png", content))
        digest = hashlib.sha256(content).hexdigest()
        self._ask(OutcomeSaid(stop_id, Outcome.DELIVERED_TO_PERSON, signature=digest))

    def _go(self, here: Position, goal: Position, slow: float) -> Position:
        seconds = max(20, round(slow * 1.35 * _metres(here, goal) / 6.0))
        for k in range(1, seconds + 1):
            share = k / seconds
            place = Position(here.lat + (goal.lat - here.lat) * share, here.lon + (goal.lon - here.lon) * share)
            self._fix(place, 6.0 if k < seconds else 0.0)
        return goal

    def _stand(self, here: Position, seconds: float) -> None:
        for _ in range(round(seconds)):
            self._fix(here, 0.0)

    def _fix(self, place: Position, speed_mps: float) -> None:
        self.now_ms += 1_000
        self._step(Fix(EpochMs(self.now_ms), place, speed_mps, utc_ms=EpochMs(self.now_ms)))

    def _ask(self, said: Any) -> None:
        self._keys += 1
        self._step(Asked(f"k{self._keys}", said))

    def _hub(self, command: Any) -> None:
        self._commands += 1
        self._step(Numbered(HUB, "h", "commands", self._commands, EpochMs(self.now_ms), 1, command))

    def _step(self, *events: object) -> Consequences:
        made, envelopes = step(self.core, self.store, events, Now(EpochMs(self.now_ms), self.now_ms))
        for job in made.jobs:
            self._step(self._workshop.do(job))
        acks: dict[str, Ack] = {}
        moved = None
        for envelope in envelopes:
            carries = envelope.topic.rpartition("/")[2]
            if carries in ("events", "objects"):
                numbered = wire.decode_numbered(envelope.payload)
                acks[carries] = Ack(VAN, self._boot, carries, numbered.seq)
                moved = numbered.message if isinstance(numbered.message, EstimatesMoved) else moved
            elif carries == "telemetry":
                acks[carries] = Ack(VAN, self._boot, carries, wire.decode_telemetry(envelope.payload).seq)
        if acks:
            self._step(*acks.values())
        if moved is not None and self._is_online:
            for estimate in moved.estimates[::TOLD_EVERY][:3]:
                around = TimeWindow(
                    EpochMs(estimate.p50_ms - 20 * MINUTE_MS), EpochMs(estimate.p50_ms + 25 * MINUTE_MS)
                )
                self._hub(WindowTold(estimate.stop_id, around))
        return made


def _metres(a: Position, b: Position) -> float:
    return float(np.hypot((b.lat - a.lat) * 111_195, (b.lon - a.lon) * 55_300))


def _plan(count: int, hours: float) -> Plan:
    draw = np.random.default_rng(3)
    rest = [tuple(draw.uniform(-3_000, 3_000, 2).tolist()) for _ in range(count)]
    order, here = [], (0.0, 0.0)
    while rest:
        nearest = min(rest, key=lambda at: (at[0] - here[0]) ** 2 + (at[1] - here[1]) ** 2)
        rest.remove(nearest)
        order.append(nearest)
        here = nearest
    minute = hours * 60 / count
    doors = [
        stop(f"s{k}", *place, told=(max(0.0, k * minute - 30), k * minute + 40), service_s=150)
        for k, place in enumerate(order)
    ]
    return plan_of(doors)


def measure_card(folder: Path, hours: float = 10.0, stops: int = 120, is_online: bool = True) -> CardFigures:
    """Drive a day with the store in a folder (of a real disk: a file system in memory writes nothing)."""
    store = SqliteStore(folder / "memory.sqlite")
    before = _written("write_bytes"), _written("wchar")
    day = Day(store, hours, stops, is_online)
    done = day.drive()
    store.close()
    scale = 10.0 / hours / 1e9
    size = (folder / "memory.sqlite").stat().st_size
    figures = CardFigures(
        round((_written("write_bytes") - before[0]) * scale, 4),
        round((_written("wchar") - before[1]) * scale, 4),
        day.store.commits,
        day.store.rows,
        round(day.store.bytes / 1e6, 2),
        round(size / 1e6, 2),
        done,
    )
    for room, (rows, size) in sorted(day.store.by_room.items(), key=lambda tally: -tally[1][1]):
        print(f"  {room:<12} {rows:>7} rows {size / 1e6:>9.2f} MB", file=sys.stderr)
    return figures


def measure_process(folder: Path, seconds: float, stops: int = 120) -> CardFigures:
    """The same of an agent's process: `rows` and what else only the core's own store knows are 0."""
    plan = _plan(stops, 10.0)
    with RealVan(folder, plan, has_bus=False, speed=PROCESS_SPEED) as van:
        van.start()
        van.hub.push(plan)
        van.until(lambda found: found["plan_version"] == 1)
        van.say("/api/shift", {"is": "begun"})
        pid = van.stack.ids["agent"]
        before = _written("write_bytes", pid), _written("wchar", pid)
        began_s = time.monotonic()
        done = 0
        while time.monotonic() - began_s < seconds:
            _serve(van, plan.stops[done])
            done += 1
        scale = 36_000 / (PROCESS_SPEED * (time.monotonic() - began_s)) / 1e9
        sd = (_written("write_bytes", pid) - before[0]) * scale
        asked = (_written("wchar", pid) - before[1]) * scale
        size = (folder / "memory.sqlite").stat().st_size
    return CardFigures(round(sd, 4), round(asked, 4), 0, 0, 0.0, round(size / 1e6, 2), done)


def _serve(van: RealVan, goal: Stop) -> None:
    """Drive to a stop, stand there and deliver, at the pace of the van's clock."""
    van.say("/api/heading", {"stop_id": goal.stop_id})
    here, van.speed_mps = van.position, 6.0
    parts = max(5, round(1.35 * _metres(here, goal.position) / 6.0 / PROCESS_SPEED / 0.1))
    for k in range(1, parts + 1):
        share = k / parts
        van.position = Position(
            here.lat + (goal.position.lat - here.lat) * share, here.lon + (goal.position.lon - here.lon) * share
        )
        time.sleep(0.1)
    van.speed_mps = 0.0
    time.sleep(150 / PROCESS_SPEED)
    for parcel in goal.parcels:
        van.scanner.scan(parcel.barcode)
    time.sleep(0.2)
    van.say("/api/outcome", {"stop_id": goal.stop_id, "outcome": "delivered_to_person"})


def _written(what: str, pid: int | str = "self") -> int:
    """A counter of proc(5), /proc/PID/io: `write_bytes` is what was caused to reach disks, `wchar` what was asked."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--stops", type=int, default=120)
    parser.add_argument("--offline", action="store_true", help="no link all day")
    parser.add_argument("--process", type=float, default=0.0, metavar="SECONDS", help="measure a whole process")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    # Beside the tests, because the usual folder for temporary files is often in memory.
    build = Path(__file__).resolve().parents[2] / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build, prefix="card-") as folder:
        if asked.process:
            figures = measure_process(Path(folder), asked.process, asked.stops)
        else:
            figures = measure_card(Path(folder), asked.hours, asked.stops, not asked.offline)
    found = msgspec.structs.asdict(figures)
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<12} {value}")
    return 0 if figures.sd_gb_day <= 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
