"""How much telemetry goes from agents to the store, what it costs the hub, and how long it takes: all parts real.

`python -m tests.bench.ingest --store embedded|postgres|URL --broker embedded|mosquitto|URL [--channels 1|8]`

A sample is one instant of an agent: one row, whether it has one value or eight. Batches hold 100. Generator processes
speak like agents (tests/bench/fleet.py), and all processes share this machine's cores. For each round, one after the
other: bare COPY of such rows, as many samples as go, bare COPY again, and a plain paho-to-executemany ingester. Then
the latency at 30,000 samples a second, from a batch said to its acknowledgement heard, which follows the commit; and
what a hub with 1,000 connected agents weighs. At the end the store is read row by row: every sample of every round must
be there once.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from cloud_hub.fleet import AgentRecord
from cloud_hub.storage import Segment, TelemetryStore, is_postgres, open_hub_store, open_telemetry
from deploy.stack import Stack, free_ports
from shared import wire
from shared.clock import SETTING, Clock
from shared.mqtt import broker_address
from shared.quantities import EpochMs
from shared.steps import Row
from shared.work import AgentId
from tests.bench import ingest_writer
from tests.bench.fleet import BEGINS_MS, NARROW, SAMPLES, VAN
from tests.brokers import start_broker
from tests.postgres import PostgresServer
from tests.processes import cpu_s, rss_mb, with_children

OFFERED = 30_000
"""Samples a second at which latency is measured."""
WARM_S = 2.0
PLAIN_S = 6.0
COPY_S = 3.0
COPY_ROWS = 10_000
"""Rows of one bare COPY and its commit: what a group of the lane has under load."""
MANY_AGENTS = 1_000
HOUR_MS = 3_600_000
APART_MS = 4 * 86_400_000
"""Between the instants of one round's samples and the next one's, so that every sample of all rounds is another."""


class Round(NamedTuple):
    """One round of as many samples as go."""

    samples_per_s: float
    hub_us_per_sample: float
    broker_us_per_sample: float
    database_us_per_sample: float
    generator_us_per_sample: float
    repeated: int


class Latency(NamedTuple):
    """Milliseconds at a rate offered."""

    p50: float
    p95: float
    p99: float
    samples_per_s: float
    hub_us_per_sample: float
    query_p95: float


class Machine:
    """Broker, database and the processes that take telemetry, all of them real."""

    def __init__(self, stack: Stack, folder: Path, store: str, broker: str, agents: int, workers: int) -> None:
        """`store` and `broker` are URLs; the broker's is that of a running one."""
        self.stack = stack
        self.folder = folder
        self.store = store
        self.broker = broker
        self.workers = workers
        self.names = [f"van-{k + 1}" for k in range(agents)]
        self.is_postgres = is_postgres(store)
        (self.http_port,) = free_ports(1)
        self._generators = 0
        self.said = 0
        """Samples of all generators that have ended and whose batches were all acknowledged."""
        self.begins_ms = BEGINS_MS

    @property
    def hub_processes(self) -> list[str]:
        """The names of the processes that take telemetry."""
        return [f"ingest-{k}" for k in range(self.workers)] if self.is_postgres else ["hub"]

    def start_hub(self) -> None:
        """Workers on PostgreSQL, the hub itself on a file."""
        settings = self.write_settings(self.names)
        if self.is_postgres:
            know(self.store, self.names)
            for name in self.hub_processes:
                self.stack.start(name, "cloud_hub", "ingest", "--settings", str(settings))
            for name in self.hub_processes:
                self.wait_for_words(name, "ingest_listens")
        else:
            self.start_whole_hub(settings)

    def start_whole_hub(self, settings: Path) -> None:
        """`cloud-hub run`."""
        self.stack.start("hub", "cloud_hub", "run", "--settings", str(settings))
        self.wait_for_words("hub", "ingest_listens")

    def write_settings(self, vehicles: Sequence[str]) -> Path:
        """A hub.toml."""
        path = self.folder / "hub.toml"
        lines = [
            f'broker = "{self.broker}"', f'store = "{self.store}"', f"http_port = {self.http_port}",
            'day = "2026-11-23"', f'key_file = "{self.folder / "hub.key"}"', "solver_s = 1.0",
            "[access]", "open_on_loopback = true",
            "[[depots]]", 'id = "depot"', 'name = "Depot"', "position = [60.1719, 24.9414]",
        ]  # fmt: skip
        for name in vehicles:
            lines += ["[[vehicles]]", f'agent = "{name}"', 'depot = "depot"']
        path.write_text("\n".join(lines) + "\n")
        return path

    def wait_for_words(self, name: str, words: str, patience_s: float = 60.0) -> None:
        """Return when a process has logged these words."""
        log = self.stack.folder / f"{name}.log"
        deadline = time.monotonic() + patience_s
        while words not in log.read_text(errors="replace"):
            if time.monotonic() > deadline or any(one.startswith(name) for one in self.stack.fallen()):
                raise RuntimeError(f"{name} did not say {words}: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def generator(self, *arguments: str) -> "Generator":
        """A process of agents."""
        self.begins_ms = BEGINS_MS + self._generators * APART_MS
        self._generators += 1
        _, port, _ = broker_address(self.broker)
        return Generator(["--port", str(port), "--from-ms", str(self.begins_ms), *arguments])

    def end(self, generator: "Generator") -> dict[str, Any]:
        """What a generator counted in the end: all it made must have been acknowledged."""
        done = generator.wait("done")
        if done["made"] != done["acked"]:
            raise RuntimeError(f"not all was acknowledged: {done}")
        self.said += done["made"] * SAMPLES
        return done


class Generator:
    """A process of tests.bench.fleet, and what it says."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.fleet", *arguments], stdout=subprocess.PIPE, text=True
        )
        self.said: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, what: str, patience_s: float = 120.0) -> dict[str, Any]:
        """The first thing of this kind it said."""
        with self._changed:
            self._changed.wait_for(lambda: self._find(what) is not None or self._process.poll() is not None, patience_s)
            found = self._find(what)
        if found is None:
            raise RuntimeError(f"the generator did not say '{what}' within {patience_s:.0f} s: {self.said[-1:]}")
        return found

    def wait_until(self, claim: Callable[[dict[str, Any]], bool], patience_s: float = 60.0) -> None:
        """Return when the last thing it said is so."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self.said) and claim(self.said[-1]), patience_s):
                raise RuntimeError(f"in vain for {patience_s:.0f} s: {self.said[-1:]}")

    def acked_at(self, at_s: float) -> float:
        """Batches acknowledged by then, between what it said before and after."""
        times = [one["at_s"] for one in self.said]
        return float(np.interp(at_s, times, [one["acked"] for one in self.said]))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _find(self, what: str) -> dict[str, Any] | None:
        return next((one for one in self.said if one["what"] == what), None)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.said.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


# The rounds.


def measure_round(machine: Machine, database: int | None, channels: int, agents: int, seconds: float) -> Round:
    """As many samples as go for so many seconds, and what they cost from the third second on."""
    generator = machine.generator(
        "--agents", str(agents), "--channels", str(channels), "--seconds", str(seconds + WARM_S)
    )  # fmt: skip
    try:
        began_s = generator.wait("up")["at_s"]
        parts = {
            "hub": [machine.stack.ids[name] for name in machine.hub_processes],
            "broker": [machine.stack.ids["broker"]] if "broker" in machine.stack.ids else [],
            "database": [database] if database else [],
            "generator": [generator.pid],
        }
        _sleep_until(began_s + WARM_S)
        before, from_s = {name: cpu_s(pids) for name, pids in parts.items()}, time.monotonic()
        _sleep_until(began_s + WARM_S + seconds - 0.3)
        spent, to_s = {name: cpu_s(pids) - before[name] for name, pids in parts.items()}, time.monotonic()
        done = machine.end(generator)
        samples = (generator.acked_at(to_s) - generator.acked_at(from_s)) * SAMPLES
        cost = {name: 1e6 * spent[name] / samples for name in parts}
        return Round(
            samples / (to_s - from_s), cost["hub"], cost["broker"], cost["database"], cost["generator"],
            done["repeated"],
        )  # fmt: skip
    finally:
        generator.close()


def measure_latency(machine: Machine, channels: int, agents: int, seconds: float, kept_to_ms: int = 0) -> Latency:
    """30,000 samples a second for so long; meanwhile an hour of one channel is read, again and again: of what
    `ingest_writer.fill` has put there up to an instant, or of what has come.
    """
    file = machine.folder / "latencies.npy"
    generator = machine.generator(
        "--agents", str(agents), "--channels", str(channels), "--seconds", str(seconds + WARM_S),
        "--rate", str(OFFERED), "--latencies", str(file),
    )  # fmt: skip
    pids = [machine.stack.ids[name] for name in machine.hub_processes]
    store = open_telemetry(machine.store)
    took_ms: list[float] = []
    luck = np.random.default_rng(1)
    try:
        began_s = generator.wait("up")["at_s"]
        _sleep_until(began_s + WARM_S)
        before_s, first = cpu_s(pids), int(generator.acked_at(time.monotonic()))
        while time.monotonic() < began_s + WARM_S + seconds - 0.5:
            agent, from_ms = machine.names[len(took_ms) % agents], machine.begins_ms
            if kept_to_ms:
                agent = f"agent-{luck.integers(ingest_writer.AGENTS)}"
                from_ms = int(
                    luck.integers(ingest_writer.BEGINS_MS, max(ingest_writer.BEGINS_MS + 1, kept_to_ms - HOUR_MS))
                )
            asked_ns = time.monotonic_ns()
            store.read(AgentId(agent), "speed_mps", from_ms, from_ms + HOUR_MS)
            took_ms.append((time.monotonic_ns() - asked_ns) / 1e6)
            time.sleep(0.2)
        spent_s, last = cpu_s(pids) - before_s, generator.acked_at(time.monotonic())
        machine.end(generator)
        found_ms = np.load(file)[first:] * 1000
        p50, p95, p99 = np.percentile(found_ms, [50, 95, 99])
        samples = (last - first) * SAMPLES
        return Latency(
            p50, p95, p99, samples / (seconds - 0.5), 1e6 * spent_s / samples, float(np.percentile(took_ms, 95))
        )
    finally:
        store.close()
        generator.close()


def measure_plain(machine: Machine, channels: int, agents: int) -> float:
    """Samples a second of a plain ingester: what most people would write first."""
    _, port, _ = broker_address(machine.broker)
    url = machine.store if machine.is_postgres else f"sqlite:///{machine.folder / 'plain.db'}"
    plain = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.plain_ingester", str(port), url, str(channels)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert plain.stdout is not None
    plain.stdout.readline()
    time.sleep(0.5)  # It prints before it has subscribed; what is lost until then is not its fault, nor counted.
    generator = machine.generator(
        "--agents", str(agents), "--channels", str(channels), "--seconds", str(PLAIN_S), "--drain-s", "0",
        "--trust-puback", "--region", "plain",
    )  # fmt: skip
    said: list[dict[str, float]] = []
    try:
        ends_s = generator.wait("up")["at_s"] + PLAIN_S
        while time.monotonic() < ends_s:
            said.append(json.loads(plain.stdout.readline()))
    finally:
        plain.kill()
        plain.wait()
        generator.close()
    steady = [one for one in said if one["at_s"] > ends_s - PLAIN_S + 1.0]
    return (steady[-1]["rows"] - steady[0]["rows"]) / (steady[-1]["at_s"] - steady[0]["at_s"])


class BareCopy:
    """Rows of batches like those of the rounds, packed beforehand, and a table like the one they go to."""

    def __init__(self, url: str, channels: Sequence[str]) -> None:
        """The layout's own table must exist."""
        import psycopg

        from cloud_hub.storage import packing, telemetry_tables

        self._connection = psycopg.connect(url, autocommit=True)
        layouts = telemetry_tables.layouts(self._connection)
        layout = next(one for one in layouts if one.channels == tuple(channels))
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS bare (LIKE {layout.table} INCLUDING ALL)")
        fields = [("at", ">i8"), ("agent", ">i4")]
        fields += [(str(k), packing.value_type(name)) for k, name in enumerate(channels)]
        rows = packing.Rows(fields)
        batches = COPY_ROWS // SAMPLES
        self._pieces = []
        for piece in range(40):
            segments = [batch_of(k % 40, 1 + piece * batches + k, channels) for k in range(batches)]
            (block,) = packing.blocks(segments, {f"van-{k}": k for k in range(40)})
            filled = rows.take(block.rows)
            packing.fill_wide(filled, block)
            self._pieces.append(packing.COPY_HEAD + filled.tobytes() + packing.COPY_END)
        columns = ", ".join(["at", "agent", *layout.columns])
        self._copy = f"COPY bare ({columns}) FROM STDIN (FORMAT BINARY)"

    def measure(self, seconds: float) -> float:
        """Rows a second: one COPY and one commit for every 10,000."""
        self._connection.execute("TRUNCATE bare")
        began_s, done = time.monotonic(), 0
        while time.monotonic() - began_s < seconds:
            with self._connection.cursor() as cursor, cursor.copy(self._copy) as copy:
                copy.write(self._pieces[done % len(self._pieces)])
            done += 1
        return done * COPY_ROWS / (time.monotonic() - began_s)

    def close(self) -> None:
        """Leave nothing behind."""
        self._connection.execute("DROP TABLE bare")
        self._connection.close()


def batch_of(agent: int, seq: int, channels: Sequence[str]) -> Segment:
    """A batch as the store takes it."""
    at_ms = BEGINS_MS + seq * SAMPLES * 100 + np.arange(SAMPLES, dtype=np.int64) * 100
    values = np.random.default_rng(seq).normal(size=(len(channels), SAMPLES)).astype(np.float32)
    sender = AgentId(f"van-{agent}")
    batch = wire.TelemetryBatch(sender, "bare", seq, (60.17, 24.94), tuple(channels), at_ms, tuple(values))
    payload = wire.encode_telemetry(batch)
    return Segment(sender, "bare", seq, EpochMs(int(at_ms[0])), EpochMs(int(at_ms[-1])), SAMPLES, 0, payload)


def measure_weight(machine: Machine, agents: int) -> dict[str, float]:
    """Megabytes of the real hub with so many agents connected and speaking."""
    names = [f"many-{k + 1}" for k in range(agents)]
    for name in machine.hub_processes:
        machine.stack.kill(name)
    (machine.stack.folder / "hub.log").write_text("")
    machine.start_whole_hub(machine.write_settings(names))
    half = agents // 2
    generators = [
        machine.generator(
            "--name", "many", "--first", str(first), "--agents", str(half), "--channels", "8", "--rate", "5000",
            "--seconds", "20", "--interval-ms", "1000",
        )
        for first in (1, half + 1)
    ]  # fmt: skip
    try:
        for generator in generators:
            generator.wait("up")
        time.sleep(17)
        pid = machine.stack.ids["hub"]
        below = [rss_mb(one) for one in with_children([pid]) if one != pid]
        for generator in generators:
            machine.end(generator)
        return {
            "hub_rss_mb": rss_mb(pid) + sum(below),
            "hub_itself_rss_mb": rss_mb(pid),
            "connected_agents": float(agents),
        }
    finally:
        for generator in generators:
            generator.close()


# What is in the store.


def audit(store: TelemetryStore, names: Sequence[str], channel: str) -> tuple[int, int]:
    """Samples of these agents in the store, and how many instants are there more than once."""
    rows = twice = 0
    for name in names:
        from_ms = 0
        while True:
            found = store.read(AgentId(name), channel, from_ms, 1 << 52, 1_000_000).at_ms
            if len(found) == 1_000_000:
                found = found[found < found[-1]]  # The last instant may not be whole: it is read again.
            if not len(found):
                break
            rows += len(found)
            twice += int(np.count_nonzero(np.diff(np.sort(found)) == 0))
            from_ms = int(found.max()) + 1
    return rows, twice


def know(url: str, names: Sequence[str]) -> None:
    """Have the hub's rooms know these agents, as a hub that names its vehicles would."""
    store = open_hub_store(url)
    try:
        while not store.act("main", "the ingest bench"):
            time.sleep(0.5)
        store.commit([Row("agents", name, msgspec.json.encode(AgentRecord(AgentId(name)))) for name in names])
    finally:
        store.close()


# All together.


@contextmanager
def opened(asked: argparse.Namespace, folder: Path) -> Iterator[tuple[Machine, int | None]]:
    """Everything that runs while it is measured, and the database's first process when it is ours."""
    with ExitStack() as opening:
        # By the generators' own time: what is dated far from a hub's is refused there.
        stack = opening.enter_context(Stack(folder / "logs", {SETTING: Clock.starting(BEGINS_MS, 1.0).setting()}))
        broker = asked.broker
        if broker in ("embedded", "mosquitto"):
            (port,) = free_ports(1)
            broker = f"mqtt://127.0.0.1:{port}"
            start_broker(stack, asked.broker, folder, port)
        store, database = asked.store, None
        if store == "embedded":
            store = f"sqlite:///{folder / 'hub.db'}"
        elif store == "postgres":
            server = opening.enter_context(PostgresServer(["max_wal_size = '4GB'", "shared_buffers = '512MB'"]))
            store, database = server.fresh_database(), server.pid
        yield Machine(stack, folder, store, broker, asked.agents, asked.workers), database


def run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure everything asked for; the figures by name."""
    channels = NARROW if asked.channels == 1 else VAN[: asked.channels]
    figures: dict[str, Any] = {"channels": asked.channels, "agents": asked.agents, "workers": asked.workers}
    with opened(asked, folder) as (machine, database):
        machine.start_hub()
        warm = measure_round(machine, database, asked.channels, asked.agents, 1.0)
        print(f"warm: {warm.samples_per_s:,.0f} samples/s")
        bare = BareCopy(machine.store, channels) if machine.is_postgres else None
        rounds, copies, plains = [], [], []
        for k in range(asked.rounds):
            before = bare.measure(COPY_S) if bare else 0.0
            rounds.append(measure_round(machine, database, asked.channels, asked.agents, asked.seconds))
            copies.append((before + bare.measure(COPY_S)) / 2 if bare else 0.0)
            plains.append(measure_plain(machine, asked.channels, asked.agents) if asked.plain else 0.0)
            print(f"round {k + 1}: {rounds[-1]}; copy {copies[-1]:,.0f}; plain {plains[-1]:,.0f}")
        for name in Round._fields:
            figures[name] = statistics.median(getattr(one, name) for one in rounds)
        if bare:
            figures["copy_per_s"] = statistics.median(copies)
            figures["ratio_copy"] = statistics.median(
                one.samples_per_s / copy for one, copy in zip(rounds, copies, strict=True)
            )
            bare.close()
        if asked.plain:
            figures["executemany_per_s"] = statistics.median(plains)
            figures["ratio_executemany"] = statistics.median(
                one.samples_per_s / plain for one, plain in zip(rounds, plains, strict=True)
            )
        kept = kept_to_ms = 0
        if asked.samples:
            store = open_telemetry(machine.store)
            there = store.totals()["samples"]
            kept_to_ms = ingest_writer.fill(store, asked.samples, tell=True)
            kept = store.totals()["samples"] - there
            store.close()
            figures["query_samples"] = kept
        latencies = [
            measure_latency(machine, asked.channels, asked.agents, asked.seconds, kept_to_ms)
            for _ in range(asked.rounds)
        ]
        for name in ("p50", "p95", "p99"):
            figures[f"latency_ms_{name}"] = statistics.median(getattr(one, name) for one in latencies)
        figures["latency_offered"] = OFFERED
        figures["latency_taken_per_s"] = statistics.median(one.samples_per_s for one in latencies)
        figures["query_ms_p95"] = statistics.median(one.query_p95 for one in latencies)
        figures |= checked(machine, channels[-1], kept)
        if asked.connected:
            figures |= measure_weight(machine, asked.connected)
    if asked.writer:
        written = ingest_writer.run(asked.store, asked.writer, 0, asked.rounds)
        figures |= {name: figure for name, figure in written.items() if name.startswith("writer_")}
    return figures


def checked(machine: Machine, channel: str, kept: int = 0) -> dict[str, int]:
    """Every sample that was said must be there once, and in the ledger once, beside those that were kept before."""
    store = open_telemetry(machine.store)
    try:
        noted = store.totals()["samples"] - kept
        rows, twice = audit(store, machine.names, channel)
    finally:
        store.close()
    once = rows - twice
    return {"stored": rows, "lost": machine.said - once, "twice": twice + max(0, noted - machine.said)}


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))


LIMITS: dict[str, tuple[str, float]] = {
    "ratio_copy": (">=", 0.5), "ratio_executemany": (">=", 8), "hub_us_per_sample": ("<=", 1.0),
    "latency_ms_p50": ("<=", 30), "latency_ms_p95": ("<=", 50), "latency_ms_p99": ("<=", 100),
    "query_ms_p95": ("<=", 100), "writer_narrow_per_s": (">=", 0.7e6), "writer_wide_per_s": (">=", 4e6),
    "hub_rss_mb": ("<=", 300), "lost": ("<=", 0), "twice": ("<=", 0),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and one JSON object; the exit status says whether every figure keeps its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="embedded", help="embedded, postgres (a server of our own) or a URL")
    parser.add_argument("--broker", default="embedded", help="embedded, mosquitto or mqtt://HOST:PORT")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--channels", type=int, default=1, help="values of one sample, 1 to 8")
    parser.add_argument("--agents", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1, help="cloud-hub ingest processes (PostgreSQL)")
    parser.add_argument(
        "--connected", type=int, default=MANY_AGENTS, help="agents connected while memory is read; 0: not"
    )
    parser.add_argument(
        "--samples", type=int, default=0, help="kept in the store before latency is measured (1e8: 12 GB)"
    )
    parser.add_argument("--writer", type=int, default=0, help="samples of each round of the writer alone; 0: not")
    parser.add_argument("--no-plain", dest="plain", action="store_false", help="without the plain ingester")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="waywarden-bench-") as name:
        figures = run(asked, Path(name))
    broker_target = 400_000 if asked.broker == "mosquitto" else 200_000
    limits = {**LIMITS, "samples_per_s": (">=", float(broker_target))}
    print(f"{asked.store} store, {asked.broker} broker, {asked.channels} channel(s), {os.cpu_count()} cores, "
          f"Python {platform.python_version()}")  # fmt: skip
    print(f"{'':<26}{'measured':>14}{'limit':>12}")
    missed = []
    for name, figure in figures.items():
        sign, limit = limits.get(name, ("", 0.0))
        print(f"{name:<26}{figure:>14,.2f}{f'{sign} {limit:,g}' if sign else '':>12}")
        if (sign == ">=" and figure < limit) or (sign == "<=" and figure > limit):
            missed.append(name)
    print(
        json.dumps(
            {name: round(figure, 3) for name, figure in figures.items()}
            | {"store": asked.store, "broker": asked.broker}
        )
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
