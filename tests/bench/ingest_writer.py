"""How fast readings are written when nothing stands in front of the store, and how fast they are read back.

`python -m tests.bench.ingest_writer --store embedded|postgres|URL [--rows 2000000] [--samples 10000000] [--rounds 3]`

- writer_wide_per_s: values a second of batches of 100 samples of eight channels of a van, by the store's own commit:
  ledger, packing, COPY, sums by the minute, notification, and the disk.
- writer_narrow_per_s: rows a second the same way when every value is a row of its own: one channel, and no room for
  another wide table. (The embedded store knows one form only: a BLOB for each batch.)
- copy_*_per_s: rows a second of a bare COPY of the same bytes, packed before, into the same table without anything
  else; `copy_narrow_btree_per_s` with a b-tree on the time instead of the block range index.
- query_ms_p95: one hour of one channel of one of 1,000 agents, read from the store once it holds `--samples` samples
  (a sample is one instant: eight values). The issue's figure is for 100,000,000: some 12 GB in PostgreSQL.

Client and server share the machine. CPU is counted for both: what a busy machine takes away does not show there. The
server that is started here has shared_buffers = 512MB and max_wal_size = 4GB; fsync stays on.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import psycopg

from cloud_hub.storage import Segment, TelemetryStore, is_postgres, open_telemetry, packing, telemetry_tables
from shared import wire
from shared.quantities import EpochMs
from shared.work import AgentId
from tests.postgres import PostgresServer
from tests.processes import cpu_s

VAN = ("lat", "lon", "speed_mps", "odometer_km", "course_deg", "energy_share", "outside_c", "quality")
ONE = ("speed_mps",)
SAMPLES = 100
AGENTS = 1_000
TOGETHER = 512
"""Batches in one commit."""

BEGINS_MS = 1_795_500_000_000
HOUR_MS = 3_600_000
QUERIES = 200
LIMITS = {"writer_wide_per_s": (">=", 4e6), "writer_narrow_per_s": (">=", 0.7e6), "query_ms_p95": ("<=", 100.0)}


class Rate(NamedTuple):
    """Rows a second by the clock on the wall, and CPU microseconds a row here and at the server."""

    rows_per_s: float
    client_us: float
    server_us: float


class Fleet:
    """Batches of 1,000 agents that measure once a second, in turn; their time goes on from commit to commit."""

    def __init__(self, channels: Sequence[str], boot: str = "bench") -> None:
        self._channels = tuple(channels)
        self._boot = boot
        self._said = 0
        luck = np.random.default_rng(1)
        self._columns = tuple(luck.normal(10, 3, SAMPLES).astype(np.float32) for _ in channels)

    def batches(self, count: int) -> list[Segment]:
        """The next so many batches."""
        made = [self._batch(k) for k in range(self._said, self._said + count)]
        self._said += count
        return made

    def _batch(self, k: int) -> Segment:
        agent, turn = AgentId(f"agent-{k % AGENTS}"), k // AGENTS
        first_ms = BEGINS_MS + turn * SAMPLES * 1_000 + (k % AGENTS)
        at_ms = first_ms + np.arange(SAMPLES, dtype=np.int64) * 1_000
        batch = wire.TelemetryBatch(agent, self._boot, turn + 1, (60.17, 24.94), self._channels, at_ms, self._columns)
        last_ms = first_ms + (SAMPLES - 1) * 1_000
        payload = wire.encode_telemetry(batch)
        return Segment(agent, self._boot, turn + 1, EpochMs(first_ms), EpochMs(last_ms), SAMPLES, 0, payload)


def measure_writer(store: TelemetryStore, fleet: Fleet, rows: int, server: int | None) -> Rate:
    """Commit so many samples, said before the clock starts."""
    count = max(2, rows // (TOGETHER * SAMPLES))
    store.commit(fleet.batches(TOGETHER))
    said = [fleet.batches(TOGETHER) for _ in range(count)]
    return _timed(lambda: [store.commit(some) for some in said], count * TOGETHER * SAMPLES, server)


def measure_copy(url: str, channels: Sequence[str], index: str, rows: int, server: int | None) -> Rate:
    """COPY so many rows, packed before, into a table that has only its index."""
    narrow = channels == ONE
    columns = "at timestamptz NOT NULL, agent int4 NOT NULL, "
    columns += (
        "channel int4 NOT NULL, value float8 NOT NULL"
        if narrow
        else ", ".join(f"{name} {'float8' if name in packing.POSITIONS else 'float4'} NOT NULL" for name in channels)
    )
    fleet, numbers = Fleet(channels), {f"agent-{k}": k for k in range(AGENTS)}
    pieces = []
    for _ in range(max(2, rows // (TOGETHER * SAMPLES))):
        for block in packing.blocks(fleet.batches(TOGETHER), numbers):
            pieces.append(_packed(block, narrow))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS bare; CREATE TABLE bare ({columns}); {index}".encode())

        def copy() -> None:
            for piece in pieces:
                with connection.cursor() as cursor, cursor.copy("COPY bare FROM STDIN (FORMAT BINARY)") as out:
                    out.write(packing.COPY_HEAD)
                    out.write(piece)
                    out.write(packing.COPY_END)

        rate = _timed(copy, len(pieces) * TOGETHER * SAMPLES, server)
        connection.execute("DROP TABLE bare")
    return rate


def _packed(block: packing.Block, narrow: bool) -> bytes:
    fields = [("at", ">i8"), ("agent", ">i4")]
    if narrow:
        rows = packing.Rows([*fields, ("channel", ">i4"), ("value", ">f8")]).take(block.rows)
        packing.fill_narrow(rows, block, [3])
    else:
        columns = [(str(k), packing.value_type(name)) for k, name in enumerate(block.channels)]
        rows = packing.Rows([*fields, *columns]).take(block.rows)
        packing.fill_wide(rows, block)
    return rows.tobytes()


def measure_query(store: TelemetryStore, agents: int, until_ms: int, seed: int) -> float:
    """The 95th percentile, in ms, of reading an hour of one channel of one agent."""
    luck = np.random.default_rng(seed)
    took = []
    for _ in range(QUERIES):
        agent = AgentId(f"agent-{luck.integers(agents)}")
        from_ms = int(luck.integers(BEGINS_MS, max(BEGINS_MS + 1, until_ms - HOUR_MS)))
        channel = VAN[luck.integers(len(VAN))]
        began = time.perf_counter()
        found = store.read(agent, channel, from_ms, from_ms + HOUR_MS - 1)
        took.append(1_000 * (time.perf_counter() - began))
        expected = min(3_600, (until_ms - from_ms) // 1_000)
        assert abs(len(found.at_ms) - expected) <= SAMPLES + 1, f"{len(found.at_ms)} of {expected} samples were found"
    return float(np.percentile(took, 95))


def fill(store: TelemetryStore, samples: int, tell: bool) -> int:
    """Commit so many samples; until when they reach."""
    fleet = Fleet(VAN, "kept")
    done, began = 0, time.monotonic()
    while done < samples:
        store.commit(fleet.batches(2 * AGENTS))
        done += 2 * AGENTS * SAMPLES
        if tell and done % 10_000_000 == 0:
            print(f"  {done:,} samples after {time.monotonic() - began:.0f} s", file=sys.stderr)
    return BEGINS_MS + done // AGENTS * 1_000


def _timed(work: Any, rows: int, server: int | None) -> Rate:
    servers = [] if server is None else [server]  # Not ours to see when it is another's.
    cpu, server_cpu, began = time.process_time(), cpu_s(servers), time.perf_counter()
    work()
    took = time.perf_counter() - began
    return Rate(
        rows / took,
        1e6 * (time.process_time() - cpu) / rows,
        1e6 * (cpu_s(servers) - server_cpu) / rows,
    )


@contextmanager
def opened(store: str, folder: Path) -> Iterator[tuple[Any, int | None]]:
    """What gives URLs of new stores of this kind, and the server's process when it is ours."""
    with ExitStack() as opening:
        if store == "embedded":
            numbers = iter(range(1_000))
            yield lambda: f"sqlite:///{folder / f'hub{next(numbers)}.db'}", None
        elif store == "postgres":
            server = opening.enter_context(PostgresServer(["max_wal_size = '4GB'", "shared_buffers = '512MB'"]))
            yield server.fresh_database, server.pid
        else:
            yield lambda: store, None


def run(store: str, rows: int, samples: int, rounds: int) -> dict[str, Any]:
    """Measure everything; the figures by name, medians of the rounds."""
    figures: dict[str, Any] = {}
    spread: dict[str, list[Rate]] = {}
    with tempfile.TemporaryDirectory(prefix="waywarden-writer-") as folder, opened(store, Path(folder)) as (fresh, pid):
        url = fresh()
        wide, narrow = Fleet(VAN), Fleet(ONE)
        wide_store = open_telemetry(url)
        with mock.patch.object(telemetry_tables, "MOST_LAYOUTS", 0):
            narrow_store = open_telemetry(fresh())
            narrow_store.commit(narrow.batches(1))  # It has no room for another table, and keeps that in mind.
        for _ in range(rounds):
            spread.setdefault("writer_wide", []).append(measure_writer(wide_store, wide, rows, pid))
            spread.setdefault("writer_narrow", []).append(measure_writer(narrow_store, narrow, rows, pid))
            if is_postgres(url):
                for name, channels, index in COPIES:
                    spread.setdefault(name, []).append(measure_copy(url, channels, index, rows, pid))
        narrow_store.close()
        wide_store.close()
        if samples:
            filled = open_telemetry(fresh())
            until_ms = fill(filled, samples, tell=samples >= 20_000_000)
            figures["query_samples"] = samples
            measure_query(filled, AGENTS, until_ms, 0)  # Once for the page cache, as in a hub that has been at work.
            found = [measure_query(filled, AGENTS, until_ms, k + 1) for k in range(rounds)]
            figures["query_ms_p95"] = statistics.median(found)
            filled.close()
    for name, rates in spread.items():
        middle = sorted(rates)[len(rates) // 2]
        values = len(VAN) if name == "writer_wide" else 1
        figures[f"{name}_per_s"] = middle.rows_per_s * values
        figures[f"{name}_client_us_per_row"] = middle.client_us
        if pid is not None:
            figures[f"{name}_server_us_per_row"] = middle.server_us
    return figures


COPIES = (
    ("copy_wide", VAN, "CREATE INDEX ON bare (agent, at)"),
    ("copy_wide_no_index", VAN, ""),
    ("copy_narrow", ONE, "CREATE INDEX ON bare USING brin (at) WITH (pages_per_range = 32)"),
    ("copy_narrow_btree", ONE, "CREATE INDEX ON bare (at)"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and the figures as JSON when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", default="postgres", help="embedded, postgres (one of our own), or a URL")
    parser.add_argument("--rows", type=int, default=2_000_000, help="samples of each round of writing")
    parser.add_argument("--samples", type=int, default=10_000_000, help="samples the store holds when read; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    figures = run(asked.store, asked.rows, asked.samples, asked.rounds)
    if asked.json:
        print(json.dumps({"machine": platform.platform(), "cores": os.cpu_count(), "store": asked.store, **figures}))
        return
    print(f"{asked.store} store, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
          f"medians of {asked.rounds}")  # fmt: skip
    print(f"{'':<36}{'measured':>16}{'limit':>14}")
    for name, figure in figures.items():
        sign, limit = LIMITS.get(name, ("", 0))
        print(f"{name:<36}{figure:>16,.2f}{f'{sign} {limit:,g}' if sign else '':>14}")


if __name__ == "__main__":
    main()
