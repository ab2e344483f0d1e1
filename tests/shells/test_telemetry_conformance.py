"""Every store of readings takes each message once and answers alike: one suite for all."""

import itertools
import os
import queue
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from cloud_hub.storage import (
    Kept,
    LedgerRow,
    ReadingsCame,
    Segment,
    StoreAway,
    Taken,
    TelemetryLetter,
    TelemetryStore,
    open_telemetry,
    telemetry_keeping,
    telemetry_reading,
    telemetry_tables,
)
from cloud_hub.storage.pg_migrations import Migration
from cloud_hub.storage.telemetry_tables import Features, Layout
from cloud_hub.storage.timescale import PostgresTelemetry
from shared import wire
from shared.quantities import EpochMs
from shared.work import AgentId
from tests.postgres import Databases, PostgresServer

VAN = AgentId("van-1")
DAY_MS = 86_400_000
MORNING_MS = 1_790_000_040_000
"""A whole minute of a day in September 2026."""

SQL_KINDS = ["postgres", "narrow", *(["timescale"] if os.environ.get("TIMESCALE_URL") else [])]
"""`narrow` is a PostgreSQL without room for a wide table."""


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a database that is emptied for each test: quicker than a new one."""
    databases = Databases(postgres.url)
    yield databases.fresh_database()
    databases.drop_all()


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new store of each kind."""
    if request.param == "embedded":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    if request.param == "timescale":
        return str(request.getfixturevalue("fresh_timescale")())
    if request.param == "narrow":
        monkeypatch.setattr(telemetry_tables, "MOST_LAYOUTS", 0)
    found = str(request.getfixturevalue("database"))
    with psycopg.connect(found, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS timescaledb_information CASCADE")
        connection.execute("CREATE SCHEMA public")
    return found


each_store = pytest.mark.parametrize("url", ["embedded", *SQL_KINDS], indirect=True)
each_database = pytest.mark.parametrize("url", SQL_KINDS, indirect=True)
on_postgres = pytest.mark.parametrize("url", ["postgres"], indirect=True)


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[], TelemetryStore]]:
    """Opens the store, as often as it is asked; all are closed with the test."""
    stores: list[TelemetryStore] = []

    def one_more() -> TelemetryStore:
        stores.append(open_telemetry(url, 10.0))
        return stores[-1]

    yield one_more
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], TelemetryStore]) -> TelemetryStore:
    """The store, open."""
    return opened()


def segment(
    seq: int,
    first_ms: int = MORNING_MS,
    samples: int = 10,
    agent: str = VAN,
    boot: str = "b",
    channels: tuple[str, ...] = ("speed_mps", "lat"),
    every_ms: int = 1_000,
    origin: tuple[float, float] = (60.0, 24.0),
) -> Segment:
    """A batch whose k-th sample is k on every channel, but for the fourth, which lacks them all."""
    at_ms = np.arange(samples, dtype=np.int64) * every_ms + first_ms
    column = np.arange(samples, dtype=np.float32)
    column[3:4] = np.nan
    return batched(agent, boot, seq, at_ms, channels, [column] * len(channels), origin)


def batched(
    agent: str, boot: str, seq: int, at_ms: Any, channels: tuple[str, ...], columns: Sequence[Any],
    origin: tuple[float, float] = (60.0, 24.0),
) -> Segment:  # fmt: skip
    batch = wire.TelemetryBatch(AgentId(agent), boot, seq, origin, channels, at_ms, tuple(columns), thinned=2)
    span = (EpochMs(int(at_ms.min())), EpochMs(int(at_ms.max())))
    return Segment(AgentId(agent), boot, seq, *span, len(at_ms), 2, wire.encode_telemetry(batch))


def brought_up_to_date(store: TelemetryStore) -> TelemetryStore:
    """TimescaleDB's sums follow by a job; here they follow at once."""
    if isinstance(store, PostgresTelemetry):
        store.refresh()
    return store


# Taking.


@each_store
def test_a_message_said_twice_is_stored_once(store: TelemetryStore) -> None:
    assert store.commit([segment(1), segment(3), segment(1)]) == [True, True, False]
    assert store.commit([segment(3), segment(5), segment(1)]) == [False, True, False]
    assert store.taken(VAN, "b") == Taken(1, (3, 5))
    assert store.taken(VAN, "another life") == Taken(0, ())
    assert store.totals() == {"messages": 3, "samples": 30, "thinned": 6}
    assert len(store.read(VAN, "speed_mps", 0, 1 << 53).at_ms) == 27


@each_store
def test_what_was_given_up_leaves_a_row_in_the_ledger_and_no_readings(store: TelemetryStore) -> None:
    tombstone = Segment(VAN, "b", 1, EpochMs(0), EpochMs(0), 0, 120, b"")
    assert store.commit([tombstone, segment(2)]) == [True, True]
    assert store.commit([tombstone]) == [False]
    assert store.taken(VAN, "b") == Taken(2, ())
    assert store.totals() == {"messages": 2, "samples": 10, "thinned": 122}


@each_store
def test_a_batch_that_cannot_be_read_takes_the_whole_commit_with_it(store: TelemetryStore) -> None:
    torn = segment(2)._replace(payload=b"\xff" * 40)
    with pytest.raises(wire.Refused):
        store.commit([segment(1), torn]) if isinstance(store, PostgresTelemetry) else _refused(store, torn)
    assert store.taken(VAN, "b") == Taken(0, ())
    assert store.commit([segment(1)]) == [True]


def _refused(store: TelemetryStore, torn: Segment) -> None:
    """The embedded store does not open what it keeps; the lane does, before."""
    wire.decode_telemetry(torn.payload)


@each_store
def test_what_nobody_can_read_is_buried_once_and_counts_as_taken(store: TelemetryStore) -> None:
    letter = TelemetryLetter(VAN, "b", 1, EpochMs(MORNING_MS), "nonsense\0 it was", b"\0\xff")
    store.bury([letter, letter])
    store.bury([letter])
    assert [one._replace(why="") for one in store.dead_letters()] == [letter._replace(why="")]
    assert store.commit([segment(1), segment(2, MORNING_MS + DAY_MS)]) == [False, True]
    assert store.taken(VAN, "b") == Taken(2, ())
    assert store.forget(MORNING_MS + 1, 10) == 0
    assert store.dead_letters() == []


# Reading.


@each_store
def test_a_channel_is_read_between_two_instants_without_its_gaps(store: TelemetryStore) -> None:
    store.commit([segment(2, MORNING_MS + 10_000), segment(1)])
    found = store.read(VAN, "speed_mps", MORNING_MS + 2_000, MORNING_MS + 12_000)
    assert ((found.at_ms - MORNING_MS) // 1000).tolist() == [2, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert found.values.tolist() == [2, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert store.read(VAN, "lat", MORNING_MS + 1_000, MORNING_MS + 1_000).values.tolist() == [61.0]
    assert store.read(VAN, "speed_mps", 0, 1 << 53, most=3).values.tolist() == [0, 1, 2]
    assert store.read(VAN, "temperature_c", 0, 1 << 53).at_ms.tolist() == []
    assert store.read(AgentId("nobody"), "lat", 0, 1 << 53).values.tolist() == []


@each_store
def test_the_newest_value_of_each_channel_may_be_older_than_the_newest_sample(store: TelemetryStore) -> None:
    assert store.latest(VAN) == {}
    old = segment(1, MORNING_MS - 16 * 60_000, channels=("too_old",))
    store.commit([segment(2, channels=("lat", "door")), segment(3, MORNING_MS + 30_000, channels=("speed_mps",)), old])
    assert store.latest(VAN) == {
        "lat": (MORNING_MS + 9_000, 69.0), "door": (MORNING_MS + 9_000, 9.0), "speed_mps": (MORNING_MS + 39_000, 9.0),
    }  # fmt: skip


@each_store
def test_a_channel_is_one_series_whatever_stood_beside_it(store: TelemetryStore) -> None:
    store.commit([segment(1), segment(2, MORNING_MS + 10_000, channels=("temperature_c", "speed_mps"))])
    found = store.read(VAN, "speed_mps", 0, 1 << 53)
    assert ((found.at_ms - MORNING_MS) // 1000).tolist() == [0, 1, 2, *range(4, 13), *range(14, 20)]
    sums = brought_up_to_date(store).summed(VAN, "speed_mps", 0, 1 << 53, "1min")
    assert (sums.from_ms.tolist(), sums.samples.tolist()) == ([MORNING_MS], [18])


samples = st.lists(
    st.tuples(st.integers(0, 400), st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))), min_size=1, max_size=40
)


@each_store
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(samples, min_size=1, max_size=4))
def test_sums_are_those_of_the_readings_by_the_minute_and_the_hour(store: TelemetryStore, batches: Any) -> None:
    agent = AgentId(f"agent-{next(numbers)}")
    said = [
        batched(agent, "b", seq, np.array(times) * 20_000 + MORNING_MS, ("speed_mps", "lat"), [np.float32(values)] * 2)
        for seq, batch in enumerate(batches, 1)
        for times, values in [zip(*batch, strict=True)]
    ]
    store.commit(said)
    raw = store.read(agent, "speed_mps", 0, 1 << 53)
    expected = sorted((at, value) for batch in batches for at, value in batch if not np.isnan(value))
    assert sorted(zip(((raw.at_ms - MORNING_MS) // 20_000).tolist(), raw.values.tolist(), strict=True)) == expected
    brought_up_to_date(store)
    for per, bucket_ms in (("1min", 60_000), ("1h", 3_600_000)):
        sums = store.summed(agent, "speed_mps", 0, 1 << 53, per)  # type: ignore[arg-type]  # Either of the two.
        begins = raw.at_ms // bucket_ms * bucket_ms
        buckets = np.unique(begins)
        assert sums.from_ms.tolist() == buckets.tolist()
        assert sums.samples.tolist() == [int((begins == bucket).sum()) for bucket in buckets]
        assert sums.least.tolist() == [raw.values[begins == bucket].min() for bucket in buckets]
        assert sums.most.tolist() == [raw.values[begins == bucket].max() for bucket in buckets]
        assert np.allclose(sums.mean, [raw.values[begins == bucket].mean() for bucket in buckets], 1e-9, 1e-6)
        assert store.summed(agent, "lat", 0, 1 << 53, per).samples.tolist() == []  # type: ignore[arg-type]  # As above.


numbers = itertools.count()


@each_store
def test_the_buckets_asked_for_are_those_that_begin_in_the_range(store: TelemetryStore) -> None:
    store.commit([segment(seq, MORNING_MS + seq * 60_000) for seq in range(6)][1:])
    sums = brought_up_to_date(store).summed(VAN, "speed_mps", MORNING_MS + 60_001, MORNING_MS + 240_000, "1min")
    assert ((sums.from_ms - MORNING_MS) // 60_000).tolist() == [2, 3, 4]
    first = store.summed(VAN, "speed_mps", 0, 1 << 53, "1min", most=1)
    assert (first.mean.tolist(), first.least.tolist(), first.most.tolist()) == ([42 / 9], [0.0], [9.0])
    hour_ms = MORNING_MS // 3_600_000 * 3_600_000
    assert store.summed(VAN, "speed_mps", hour_ms, hour_ms, "1h").samples.tolist() == [45]
    assert store.summed(VAN, "speed_mps", hour_ms + 1, hour_ms + 3_600_000, "1h").samples.tolist() == []


NAMES = (
    "speed_mps", "at", "agent", "value", "c0", "Speed", 'x"; DROP TABLE readings; --', "nul\0nul", "speed_n", "{}",
    "%s", "é" * 40, "", "select", "ctid",
)  # fmt: skip


@each_store
def test_a_channel_may_have_any_name(store: TelemetryStore) -> None:
    store.commit([segment(1, channels=NAMES)])
    brought_up_to_date(store)
    read = {name: store.read(VAN, name, 0, 1 << 53).values.tolist() for name in NAMES}
    assert read == {name: [0, 1, 2, 4, 5, 6, 7, 8, 9] for name in NAMES}
    sums = {name: store.summed(VAN, name, 0, 1 << 53, "1h").samples.tolist() for name in NAMES}
    assert sums == {name: [9] for name in NAMES}
    assert list(store.latest(VAN).values()) == [(MORNING_MS + 9_000, 9.0)] * len(NAMES)


@each_store
def test_odd_batches_are_kept_as_they_are(store: TelemetryStore) -> None:
    many = tuple(f"channel_{k}" for k in range(200))
    infinite = batched(
        VAN, "b", 4, np.array([MORNING_MS + 90_000]), ("speed_mps", "lat"), [np.array([np.inf], np.float32)] * 2,
        (1e300, 0.0),
    )  # fmt: skip
    store.commit(
        [
            segment(1, channels=many),
            segment(2, channels=("twice", "twice")),
            segment(3, channels=()),
            infinite,
            segment(5, 0, every_ms=DAY_MS * 40),
            segment(6, (1 << 53) - 10, every_ms=1),
        ]
    )
    assert store.read(VAN, "channel_199", 0, 1 << 53).values.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert len(store.read(VAN, "twice", 0, 1 << 53).at_ms) == 9
    assert store.read(VAN, "speed_mps", MORNING_MS + 90_000, MORNING_MS + 90_000).values.tolist() == [np.inf]
    assert store.read(VAN, "speed_mps", 0, DAY_MS * 100).at_ms.tolist() == [0, DAY_MS * 40, DAY_MS * 80]
    assert store.read(VAN, "speed_mps", 1 << 52, 1 << 54).at_ms.tolist()[-1] == (1 << 53) - 1
    assert store.taken(VAN, "b") == Taken(6, ())


# Hearing.


@each_store
def test_a_listener_hears_what_any_store_commits(opened: Callable[[], TelemetryStore], url: str) -> None:
    writer = opened()
    listener = writer if url.startswith("sqlite") else opened()
    heard: queue.Queue[Sequence[ReadingsCame]] = queue.Queue()
    listening = listener.changes(heard.put)
    writer.commit([segment(1), segment(2, MORNING_MS + 60_000), segment(1, agent="van-2"), segment(1)])
    assert sorted(heard.get(timeout=5)) == [
        ReadingsCame(VAN, EpochMs(MORNING_MS + 69_000), 20),
        ReadingsCame(AgentId("van-2"), EpochMs(MORNING_MS + 9_000), 10),
    ]
    writer.commit([segment(1)])
    writer.commit([segment(k, agent=f"{'x' * 50}-{k}") for k in range(1, 301)])
    many: list[ReadingsCame] = []
    while len(many) < 300:
        many += heard.get(timeout=5)
    assert len({came.agent for came in many}) == 300
    listening.close()
    writer.commit([segment(9)])
    assert heard.empty()


# Keeping.


@each_store
def test_readings_older_than_they_may_be_are_erased_and_never_taken_again(store: TelemetryStore) -> None:
    midnight = MORNING_MS // DAY_MS * DAY_MS
    said = [segment(day + 1, midnight + day * DAY_MS) for day in range(4)]
    store.commit([*said, segment(5, midnight + 3 * DAY_MS + 10_000), segment(1, midnight, agent="van-2")])
    gone = [store.forget(midnight + 3 * DAY_MS + 10_000, 100) for _ in range(3)]
    assert (gone[0] > 0, gone[2]) == (True, 0)
    assert store.read(VAN, "speed_mps", 0, 1 << 53).at_ms[0] == midnight + 3 * DAY_MS + 10_000
    assert store.latest(AgentId("van-2")) == {}
    assert store.commit(said) == [False] * 4
    assert store.totals()["messages"] == 6


@each_store
def test_old_positions_are_coarsened_once_and_late_ones_too(store: TelemetryStore) -> None:
    old = segment(1, samples=3, origin=(60.123456, 24.987654), channels=("lat", "lon", "speed_mps"))
    new = segment(2, MORNING_MS + DAY_MS, samples=3, origin=(60.123456, 24.0), channels=("lat", "lon", "speed_mps"))
    store.commit([old, new])
    limit_ms = MORNING_MS + 60_000
    assert store.blur(limit_ms, 100) > 0
    assert store.blur(limit_ms, 100) == 0
    assert np.allclose(store.read(VAN, "lat", 0, limit_ms).values, [60.12, 61.12, 62.12], atol=1e-6)
    assert np.allclose(store.read(VAN, "lon", 0, limit_ms).values, [24.99, 25.99, 26.99], atol=1e-6)
    assert store.read(VAN, "speed_mps", 0, limit_ms).values.tolist() == [0, 1, 2]
    assert np.allclose(store.read(VAN, "lat", limit_ms, 1 << 53).values[0], 60.123456, atol=1e-6)
    late = segment(3, MORNING_MS - DAY_MS, samples=3, origin=(60.123456, 24.0), channels=("lat", "lon", "speed_mps"))
    store.commit([late])
    assert store.blur(limit_ms, 100) > 0
    assert np.allclose(store.read(VAN, "lat", 0, MORNING_MS - 1).values, [60.12, 61.12, 62.12], atol=1e-6)


@each_store
def test_folding_changes_no_answer(store: TelemetryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry_keeping, "FOLD_AFTER_ROWS", 3)
    store.commit([segment(k, MORNING_MS + k * 10_000) for k in (*range(1, 20), 25)])

    def answers() -> Any:
        brought_up_to_date(store)
        minutes = store.summed(VAN, "speed_mps", 0, 1 << 53, "1min")
        hours = store.summed(VAN, "speed_mps", 0, 1 << 53, "1h")
        sums = [column.tolist() for sums in (minutes, hours) for column in sums]
        return store.taken(VAN, "b"), store.totals(), sums

    before = answers()
    for _ in range(4):
        store.fold(MORNING_MS + 3 * DAY_MS, 1_000)
    assert store.fold(MORNING_MS + 3 * DAY_MS, 1_000) == 0
    assert answers() == before
    assert store.commit([segment(7), segment(20, MORNING_MS + 200_000), segment(25)]) == [False, True, False]
    assert store.taken(VAN, "b") == Taken(20, (25,))


@each_database
def test_minutes_given_up_stay_in_their_hours(store: TelemetryStore, request: pytest.FixtureRequest) -> None:
    store.commit([segment(k, MORNING_MS + k * 60_000) for k in range(1, 9)])
    hours = [column.tolist() for column in brought_up_to_date(store).summed(VAN, "speed_mps", 0, 1 << 53, "1h")]
    for _ in range(5):
        store.forget(MORNING_MS + DAY_MS, 100, "1min")
    late = segment(9, MORNING_MS + 9 * 60_000)
    assert [column.tolist() for column in store.summed(VAN, "speed_mps", 0, 1 << 53, "1h")] == hours
    store.commit([late])
    again = brought_up_to_date(store).summed(VAN, "speed_mps", 0, 1 << 53, "1h")
    assert sum(again.samples.tolist()) == 81
    for _ in range(5):
        store.forget(MORNING_MS + 2 * DAY_MS, 100, "1min")
        store.forget(MORNING_MS + 2 * DAY_MS, 100, "1h")
    left = store.summed(VAN, "speed_mps", 0, 1 << 53, "1h").samples.tolist()
    # TimescaleDB gives sums up by the chunk, ten days at a time: this one may not be over yet.
    assert left in ([[], [81]] if "[timescale" in request.node.name else [[]])


@each_database
def test_sums_outlive_the_readings_they_were_made_of(store: TelemetryStore) -> None:
    hour_ms = MORNING_MS // 3_600_000 * 3_600_000
    store.commit([segment(1, hour_ms), segment(2, hour_ms + DAY_MS), segment(3, hour_ms + DAY_MS + 7_200_000)])

    def sums(per: Any) -> list[Any]:
        return [column.tolist() for column in store.summed(VAN, "speed_mps", 0, 1 << 53, per)]

    before = sums("1min"), sums("1h")
    assert before[1][-1] == [9, 9, 9]
    for limit_ms in (hour_ms + 5_000, hour_ms + DAY_MS + 5_000, hour_ms + DAY_MS + 60_000):
        while store.forget(limit_ms, 100):
            pass
        assert (sums("1min"), sums("1h")) == before
    assert len(store.read(VAN, "speed_mps", 0, 1 << 53).at_ms) == 9
    brought_up_to_date(store)
    assert (sums("1min"), sums("1h")) == before


@each_store
@pytest.mark.parametrize("kind", ["embedded", "postgres"])
def test_a_dump_brings_everything_back_into_another_store(
    store: TelemetryStore, kind: str, tmp_path: Path, fresh_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry_keeping, "FOLD_AFTER_ROWS", 3)
    monkeypatch.setattr(telemetry_reading, "DUMPED_AT_ONCE", 500)
    store.commit([segment(k, MORNING_MS + k * 10_000) for k in (*range(1, 6), 9)])
    store.commit([segment(1, agent="van-2", channels=("temperature_c",)), segment(7, boot="other", samples=900)])
    store.fold(MORNING_MS, 100)
    other = open_telemetry(f"sqlite:///{tmp_path / 'other.db'}" if kind == "embedded" else fresh_database())
    ledger = list(store.ledger())
    other.commit(list(store.dump()))
    other.restore_ledger(ledger)
    other.restore_ledger(ledger)
    assert other.totals() == store.totals()
    assert (other.taken(VAN, "b"), other.taken(VAN, "other")) == (Taken(5, (9,)), Taken(0, (7,)))
    for agent, channel in ((VAN, "speed_mps"), (VAN, "lat"), (AgentId("van-2"), "temperature_c")):
        mine, theirs = store.read(agent, channel, 0, 1 << 53), other.read(agent, channel, 0, 1 << 53)
        assert mine.at_ms.tolist() == theirs.at_ms.tolist()
        assert np.allclose(np.sort(mine.values), np.sort(theirs.values), atol=1e-6)
    assert other.commit([segment(3), segment(6)]) == [False, True]
    other.close()


@each_database
def test_a_ledger_and_the_dump_after_it_are_of_one_instant(store: TelemetryStore) -> None:
    store.commit([segment(1, channels=("speed_mps",))])
    ledger = store.ledger()
    assert next(ledger) == LedgerRow(VAN, "b", 1, 10, 2)
    store.commit([segment(2, channels=("speed_mps",))])
    assert list(ledger) == []
    assert [one.samples // 9 for one in store.dump()] == [1]
    assert [one.samples // 9 for one in store.dump()] == [2]


# PostgreSQL: many processes, restarts, days.

RACER = """
import random, sys
from tests.shells.test_telemetry_conformance import segment
from cloud_hub.storage import open_telemetry
url, seed = sys.argv[1], int(sys.argv[2])
store, luck, new = open_telemetry(url), random.Random(seed), 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(12):
    said = [segment(seq, agent=f"van-{van}") for van in range(10) for seq in range(1, 16)]
    luck.shuffle(said)
    while said:
        some, said = said[:luck.randint(1, 60)], said[60:]
        new += sum(store.commit(some))
print(new, flush=True)
"""


@on_postgres
def test_processes_that_race_over_the_same_messages_store_each_exactly_once(
    url: str, opened: Callable[[], TelemetryStore]
) -> None:
    store = opened()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, url, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for seed in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    said = [racer.communicate("go\n", timeout=60)[0] for racer in racers]
    taken = [store.taken(AgentId(f"van-{van}"), "b") for van in range(10)]
    messages = sum(one.upto + len(one.beyond) for one in taken)
    assert sum(int(new) for new in said) == messages == store.totals()["messages"]
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT count(*), count(DISTINCT (agent, at)) FROM readings_1").fetchone()
    assert rows == (messages * 10, sum(10 for one in taken if one.upto or one.beyond))
    assert store.summed(AgentId("van-3"), "speed_mps", 0, 1 << 53, "1h").samples.tolist() == [
        9 * (taken[3].upto + len(taken[3].beyond))
    ]


@on_postgres
def test_a_store_goes_on_after_its_connections_were_cut(url: str, store: TelemetryStore) -> None:
    heard: queue.Queue[Sequence[ReadingsCame]] = queue.Queue()
    listening = store.changes(heard.put)
    store.commit([segment(1)])
    assert len(heard.get(timeout=5)) == 1
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
    assert store.commit([segment(2), segment(1)]) == [True, False]
    assert store.taken(VAN, "b") == Taken(2, ())
    while heard.get(timeout=10):
        pass
    store.commit([segment(3)])
    assert heard.get(timeout=5) == [ReadingsCame(VAN, EpochMs(MORNING_MS + 9_000), 10)]
    listening.close()


@on_postgres
def test_a_database_that_is_away_is_said_to_be_and_comes_back(url: str, store: TelemetryStore) -> None:
    server = PostgresServer()
    with server:
        away = open_telemetry(server.fresh_database())
        away.commit([segment(1)])
        server.kill()
        with pytest.raises(StoreAway):
            away.commit([segment(2)])
        server.start()
        assert away.commit([segment(1), segment(2)]) == [False, True]
        assert away.taken(VAN, "b") == Taken(2, ())
        away.close()


@on_postgres
def test_each_day_has_its_partition_and_a_day_too_many_shares_one(
    url: str, opened: Callable[[], TelemetryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry_tables, "MOST_DAYS", 2)
    opened().commit([segment(day + 1, MORNING_MS + day * DAY_MS) for day in range(4)])

    def spread() -> dict[str, int]:
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT tableoid::regclass::text, count(*) FROM readings_1 GROUP BY 1 ORDER BY 1")
            return dict(rows.fetchall())

    first = MORNING_MS // DAY_MS
    assert spread() == {f"readings_1_d{first}": 10, f"readings_1_d{first + 1}": 10, "readings_1_other": 20}
    monkeypatch.setattr(telemetry_tables, "MOST_DAYS", 10)
    store = opened()
    store.commit([segment(9, MORNING_MS + 2 * DAY_MS)])
    assert spread() == {f"readings_1_d{first + day}": count for day, count in enumerate((10, 10, 20))} | {
        "readings_1_other": 10
    }
    assert len(store.read(VAN, "speed_mps", 0, 1 << 53).at_ms) == 45


@on_postgres
def test_two_stores_that_see_new_agents_channels_and_days_at_once_agree(
    url: str, opened: Callable[[], TelemetryStore]
) -> None:
    one, other = opened(), opened()
    for round_ in range(6):
        said = [
            segment(1, MORNING_MS + round_ * DAY_MS, agent=f"van-{round_}-{k}", channels=(f"x{round_}",))
            for k in range(4)
        ]
        random.Random(round_).shuffle(said)
        assert one.commit(said[:3]) == [True] * 3
        assert sorted(other.commit(said)) == [False] * 3 + [True]
    assert one.totals()["messages"] == 24


@on_postgres
def test_a_range_of_one_agent_is_read_along_the_index(url: str, store: TelemetryStore) -> None:
    store.commit([segment(k, MORNING_MS + k * 10_000, agent=f"van-{k % 50}", samples=100) for k in range(1, 400)])
    with psycopg.connect(url) as connection:
        connection.execute("ANALYZE readings_1")
        plan = connection.execute(
            "EXPLAIN SELECT at, speed_mps FROM readings_1 WHERE agent = 3 AND at BETWEEN to_timestamp(1790000000) "
            "AND to_timestamp(1790003600) AND speed_mps <> 'NaN' ORDER BY at"
        ).fetchall()
    assert any("Index Scan" in line or "Bitmap Index" in line for (line,) in plan), plan


# TimescaleDB.


def test_what_is_said_to_timescaledb_is_sql(fresh_database: Callable[[], str]) -> None:
    kept = Kept(raw_days=30, minute_days=400, hour_days=0)
    wide = Layout(1, ("lat", "speed_mps"), ("lat", "speed_mps"), True, True)
    narrow = Layout(0, (), (), True, True)
    with psycopg.connect(fresh_database(), autocommit=True) as connection:
        for layout, version in itertools.product((wide, narrow), ((2, 13, 0), (2, 22, 0), (2, 29, 0))):
            features = Features(version, True)
            for statement in (
                *telemetry_tables.statements(layout, features),
                *telemetry_keeping.policies(layout, kept),
                *telemetry_keeping.columns_policy(layout, features, kept),
                telemetry_keeping.refreshed(layout.by_hour, features, None, 7_200.0),
            ):
                # A function's body is parsed when it is made, and never run here.
                body = sql.SQL("BEGIN {}; END").format(statement).as_string(connection)
                connection.execute(
                    sql.SQL("CREATE OR REPLACE FUNCTION parsed() RETURNS void LANGUAGE plpgsql AS {}").format(
                        sql.Literal(body)
                    )
                )


@on_postgres
def test_what_the_database_lacks_is_said_once_and_clearly(url: str, store: TelemetryStore) -> None:
    assert len(store.notices()) == 1
    assert "TimescaleDB" in store.notices()[0]
    assert store.failures() == []


@on_postgres
def test_tables_are_made_without_what_timescaledb_refuses(url: str, opened: Callable[[], TelemetryStore]) -> None:
    opened()
    with psycopg.connect(url, autocommit=True) as connection:
        made = telemetry_tables.layout_for(connection, ("speed_mps",), Features((2, 22, 0), True))
    assert made is not None
    assert (made.is_hyper, made.has_views) == (False, False)
    store = opened()
    store.commit([segment(1, channels=("speed_mps",))])
    assert store.summed(VAN, "speed_mps", 0, 1 << 53, "1min").samples.tolist() == [9]


@on_postgres
def test_a_job_that_failed_is_told_with_its_reason(url: str, store: TelemetryStore) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        # Shaped as TimescaleDB's documentation says: there is none on every machine this runs on.
        connection.execute(
            "CREATE SCHEMA timescaledb_information; "
            "CREATE TABLE timescaledb_information.jobs (job_id int, proc_name text, hypertable_name text); "
            "CREATE TABLE timescaledb_information.job_stats (job_id int, last_run_status text, total_failures int8); "
            "CREATE TABLE timescaledb_information.job_errors (job_id int, start_time timestamptz, err_message text); "
            "INSERT INTO timescaledb_information.jobs VALUES (1, 'policy_telemetry', NULL), "
            "(1000, 'policy_compression', 'readings_1'), (1001, 'policy_retention', 'readings_1'); "
            "INSERT INTO timescaledb_information.job_stats VALUES (1, 'Failed', 9), (1000, 'Failed', 3), "
            "(1001, 'Success', 0); "
            "INSERT INTO timescaledb_information.job_errors VALUES (1000, now(), 'disk full'), "
            "(1000, now() - interval '1 day', 'long ago')"
        )
        found = telemetry_keeping.failures(connection, Features((2, 22, 0), True))
    assert found == [
        "TimescaleDB's job 1000 (policy_compression of readings_1) failed, 3 times so far: disk full. "
        "When it is mended: CALL run_job(1000)"
    ]


@on_postgres
def test_jobs_timescaledb_refuses_are_named_and_stop_nothing(url: str, store: TelemetryStore) -> None:
    store.commit([segment(1)])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE telemetry_layouts SET has_views = true WHERE id = 1")
        refused = telemetry_keeping.retain(connection, Features((2, 29, 0), True), Kept())
        assert [" for readings_1: " in one and "does not exist" in one for one in refused] == [True, True]
        connection.execute("UPDATE telemetry_layouts SET is_hyper = true")
        told = telemetry_tables.made_before(telemetry_tables.layouts(connection), Features((2, 29, 0), True))
        assert ["readings: hypertables without columnstore" in one for one in told] == [True]
        told = telemetry_tables.made_before(telemetry_tables.layouts(connection), Features((2, 29, 0), False))
        assert ["readings cannot be added to them" in one for one in told] == [True]


@pytest.mark.parametrize(
    ("code", "is_final"),
    [("42883", True), ("0A000", True), ("53400", True), ("55000", True), ("55P03", False), ("40P01", False),
     ("57014", False), ("08006", False)],
)  # fmt: skip
def test_a_refusal_is_told_from_somebody_being_in_the_way(code: str, is_final: bool) -> None:
    assert telemetry_tables.is_refusal(psycopg.errors.lookup(code)()) == is_final


on_timescale = pytest.mark.skipif(not os.environ.get("TIMESCALE_URL"), reason="no TIMESCALE_URL")


@on_timescale
def test_readings_in_columns_are_added_to_coarsened_and_erased_like_others(fresh_timescale: Callable[[], str]) -> None:
    url = fresh_timescale()
    store = open_telemetry(url)
    both = ("lat", "speed_mps")
    store.commit([segment(k, MORNING_MS + k * 10_000, channels=both, origin=(60.123456, 24.0)) for k in range(1, 30)])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT compress_chunk(chunk) FROM show_chunks('readings_1') AS chunk")
    store.commit([segment(30, MORNING_MS + 300_000, channels=both, origin=(60.123456, 24.0))])
    assert len(store.read(VAN, "speed_mps", 0, 1 << 53).at_ms) == 270
    assert store.latest(VAN)["speed_mps"] == (MORNING_MS + 309_000, 9.0)
    limit_ms = MORNING_MS + 100_000
    while store.blur(limit_ms, 100):
        pass
    fine = store.read(VAN, "lat", 0, 1 << 53)
    assert np.allclose(fine.values % 1, np.where(fine.at_ms < limit_ms, 0.12, 0.123456), atol=1e-6)
    while store.forget(limit_ms, 100):
        pass
    assert store.read(VAN, "speed_mps", 0, 1 << 53).at_ms[0] == limit_ms
    assert sum(one.samples for one in store.dump()) == 210
    store.close()


@on_timescale
def test_timescaledb_keeps_hypertables_with_their_jobs(fresh_timescale: Callable[[], str]) -> None:
    url = fresh_timescale()
    store = open_telemetry(url)
    assert isinstance(store, PostgresTelemetry)
    assert store.notices() == []
    store.commit([segment(1)])
    store.retain(Kept())
    store.retain(Kept())
    store.retain(Kept(raw_days=0, minute_days=0, columns_after_days=14))
    assert store.notices() == []
    assert store.failures() == []
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT hypertable_name FROM timescaledb_information.hypertables").fetchall()
        views = connection.execute("SELECT view_name FROM timescaledb_information.continuous_aggregates").fetchall()
    assert {"readings", "readings_1"} <= {name for (name,) in tables}
    assert {"readings_1_1min", "readings_1_1h", "readings_1min", "readings_1h"} == {name for (name,) in views}
    store.close()


def test_migrations_of_readings_are_numbered_and_named() -> None:
    assert all(isinstance(step, Migration) for step in telemetry_tables.SCHEMA)
    assert [step.name[:4] for step in telemetry_tables.SCHEMA] == ["0001"]


@on_postgres
def test_one_agent_cannot_use_up_the_tables_of_all(url: str, store: TelemetryStore) -> None:
    names = [(f"made_up_{k}", "speed_mps") for k in range(40)]
    for k, channels in enumerate(names):
        store.commit([segment(k + 1, channels=channels, samples=3)])
    store.commit([segment(1, agent="van-2", channels=("honest", "speed_mps"), samples=3)])
    with psycopg.connect(url) as connection:
        made = [layout.channels[0] for layout in telemetry_tables.layouts(connection) if layout.number]
    assert made == [*(f"made_up_{k}" for k in range(telemetry_tables.LAYOUTS_OF_ONE)), "honest"]
    assert [store.read(VAN, channel, 0, 1 << 53).values.tolist() for channel, _ in names] == [[0.0, 1.0, 2.0]] * 40
