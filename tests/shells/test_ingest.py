"""The fast lane on a real broker and a real store: everything once, acknowledged after the commit, and never stuck."""

import queue
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub import telemetry
from cloud_hub.storage import Segment
from cloud_hub.storage.embedded import EmbeddedTelemetry
from cloud_hub.telemetry import FastLane, _Door, _spans
from shared import topics, wire
from shared.messages import Ack, Presence
from shared.mqtt import Heard, Link, LinkEvent, LinkUp
from shared.steps import Envelope
from shared.tls import Tls
from shared.work import AgentId
from tests.bench.fleet import NARROW
from tests.bench.ingest import Generator, audit
from tests.shells.production_broker import production_broker

PATIENCE_S = 20
VAN = AgentId("van-1")
FIRST_MS = 1_795_500_000_000
TOPIC = topics.up("main", VAN, "telemetry")


class FickleStore(EmbeddedTelemetry):
    """The real store, which is away when told so and cannot take the van's batch 13."""

    is_away = False

    def commit(self, segments: Sequence[Segment]) -> list[bool]:
        if self.is_away:
            raise OSError("the disk is away")
        if any(segment.seq == 13 and segment.boot == "b" for segment in segments):
            raise ValueError("thirteen")
        return super().commit(segments)


class Van:
    """One agent's link, and the numbers it was acknowledged."""

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        self._heard: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
        wanted = [topics.down("main", VAN, "acks"), topics.ingest_presence("main")]
        self.link = Link(url, "main-van-1", wanted, self._heard.put, tls=tls)
        self.link.open()
        self.acked: set[int] = set()
        self.begun: list[Presence] = []
        assert isinstance(self._heard.get(timeout=PATIENCE_S), LinkUp)

    def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            assert self.link.publish(Envelope(TOPIC, payload, 1))

    def wait(self, claim: Callable[[], bool]) -> None:
        while not claim():
            heard = self._heard.get(timeout=PATIENCE_S)
            assert isinstance(heard, Heard)
            if heard.topic.endswith("/acks"):
                self._take(wire.decode_ack(heard.payload))
            else:
                self.begun.append(wire.decode_presence(heard.payload))

    def _take(self, ack: Ack) -> None:
        self.acked |= {*range(1, ack.upto + 1), *ack.beyond}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FickleStore]:
    opened = FickleStore(tmp_path / "telemetry.db")
    yield opened
    opened.close()


@pytest.fixture
def van(broker_port: int) -> Iterator[Van]:
    connected = Van(f"mqtt://127.0.0.1:{broker_port}")
    yield connected
    connected.link.close()


@pytest.fixture
def lane(broker_port: int, store: FickleStore, van: Van) -> Iterator[FastLane]:
    opened = FastLane(f"mqtt://127.0.0.1:{broker_port}", "main", store, lambda agent: agent != "stranger")
    opened.open()
    van.wait(lambda: bool(van.begun))
    yield opened
    opened.close()


def batch(seq: int, samples: int = 10, thinned: int = 0, channel: str = "speed_mps", first_ms: int = FIRST_MS) -> bytes:
    at_ms = np.arange(samples, dtype=np.int64) + first_ms + 10 * seq
    values = np.full(samples, seq, np.float32)
    return wire.encode_telemetry(
        wire.TelemetryBatch(VAN, "b", seq, (60.17, 24.94), (channel,), at_ms, (values,), thinned)
    )


def test_20_000_samples_are_there_once_and_all_acknowledged(
    lane: FastLane, store: FickleStore, broker_port: int
) -> None:
    generator = Generator(["--port", str(broker_port), "--agents", "5", "--messages", "200", "--seconds", "60"])
    done = generator.wait("done")
    generator.close()
    assert (done["made"], done["acked"]) == (200, 200)
    assert audit(store, [f"van-{k}" for k in range(1, 6)], NARROW[0]) == (20_000, 0)
    assert store.totals() == {"messages": 200, "samples": 20_000, "thinned": 0}
    assert lane.counts["taken"] == 200


def test_whoever_takes_telemetry_says_so_when_it_begins(lane: FastLane, van: Van) -> None:
    assert (van.begun[0].party, van.begun[0].is_there, len(van.begun)) == (topics.HUB, True, 1)


def test_a_batch_said_twice_is_stored_once_and_acknowledged(lane: FastLane, van: Van, store: FickleStore) -> None:
    van.say(batch(2), batch(2), batch(5))
    van.wait(lambda: van.acked == {2, 5})
    van.say(batch(2), batch(1))
    van.wait(lambda: van.acked == {1, 2, 5})
    assert store.totals()["messages"] == 3
    assert store.read(VAN, "speed_mps", 0, 1 << 52).values.tolist() == [1.0] * 10 + [2.0] * 10 + [5.0] * 10


def test_a_batch_that_only_declares_what_was_thinned_is_counted(lane: FastLane, van: Van, store: FickleStore) -> None:
    van.say(batch(1, samples=0, thinned=70))
    van.wait(lambda: van.acked == {1})
    assert store.totals() == {"messages": 1, "samples": 0, "thinned": 70}
    assert store.latest(VAN) == {}


def test_batches_nobody_can_read_are_kept_with_their_reason_and_acknowledged(
    lane: FastLane, van: Van, store: FickleStore
) -> None:
    van.say(batch(1)[:-3], batch(2, first_ms=-(1 << 60)), batch(3, channel="a\0b"), batch(4, samples=0), batch(5))
    van.wait(lambda: van.acked == {1, 2, 3, 4, 5})
    reasons = {letter.seq: letter.why for letter in store.dead_letters()}
    assert sorted(reasons) == [1, 2, 3, 4]
    assert "expected" in reasons[1]
    assert "dated" in reasons[2]
    assert "channel" in reasons[3]
    assert "thinned" in reasons[4]
    assert store.totals() == {"messages": 5, "samples": 10, "thinned": 0}


def test_the_one_batch_the_store_cannot_take_is_found_and_does_not_stall_the_others(
    lane: FastLane, van: Van, store: FickleStore
) -> None:
    van.say(*[batch(seq) for seq in range(1, 21)])
    van.wait(lambda: van.acked == set(range(1, 21)))
    assert [letter.seq for letter in store.dead_letters()] == [13]
    assert store.totals()["samples"] == 190


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6), st.integers(0, 9))
def test_a_damaged_batch_is_taken_buried_or_refused_and_its_neighbours_are_taken(
    damage: list[tuple[int, int]], cut: int
) -> None:
    payload = bytearray(batch(1))
    for at, value in damage:
        payload[at % len(payload)] = value
    door = _Door("main", lambda _: True)
    damaged = Heard(TOPIC, bytes(payload[: len(payload) - cut]), None)
    heard = [Heard(TOPIC, batch(1_000_001), None), damaged, Heard(TOPIC, batch(1_000_002), None)]
    segments, _ = door.read_all(heard, FIRST_MS)
    assert {1_000_001, 1_000_002} <= {one.seq for one in segments}
    assert len(segments) - 2 + sum(door.refused.values()) == 1
    assert all(0 <= one.from_ms <= one.to_ms < 1 << 53 and one.sender == VAN for one in segments)


@given(st.lists(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=5), max_size=6))
def test_each_batch_spans_from_its_first_to_its_last_instant(instants: list[list[int]]) -> None:
    pieces = [np.array(piece, "<i8").tobytes() for piece in instants]
    assert _spans(pieces) == [(min(piece), max(piece)) if piece else (0, 0) for piece in instants]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xff\xff\xff",
        b"\x04\x00\x00\x00null",
        batch(0),
        batch(1).replace(b'"boot":"b"', b'"boot":""'),
        batch(1).replace(b"van-1", b"van-2"),
    ],
)
def test_what_has_no_place_in_a_stream_is_refused_and_counted(
    payload: bytes, lane: FastLane, van: Van, store: FickleStore
) -> None:
    van.say(payload, batch(7))
    van.wait(lambda: van.acked == {7})
    assert sum(lane.refused.values()) == 1
    assert store.totals()["messages"] == 1


def test_nothing_is_acknowledged_or_lost_while_the_store_is_away(lane: FastLane, van: Van, store: FickleStore) -> None:
    store.is_away = True
    van.say(batch(1), batch(2))
    while not lane.counts["commit_failed"]:
        assert lane.is_alive
    van.say(batch(3))
    assert van.acked == set()
    store.is_away = False
    van.wait(lambda: van.acked == {1, 2, 3})
    assert store.totals()["messages"] == 3


def test_what_waits_for_a_store_that_is_away_is_bounded(
    lane: FastLane, van: Van, store: FickleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "MOST_WAITING_BYTES", 5_000)
    store.is_away = True
    van.say(*[batch(seq) for seq in range(1, 101)])
    while not lane.counts["dropped"]:
        assert lane.is_alive
    assert lane.waiting_bytes <= 5_000
    monkeypatch.undo()
    store.is_away = False
    van.say(batch(200))
    van.wait(lambda: 200 in van.acked)
    assert 0 < store.totals()["messages"] == len(van.acked) < 101


def test_two_lanes_share_what_comes_over_tls_at_the_production_broker(store: FickleStore, tmp_path: Path) -> None:
    second = EmbeddedTelemetry(tmp_path / "telemetry.db")
    with production_broker() as broker:
        van = Van(broker.agents_url, broker.device("van-1"))
        lanes = [
            FastLane(broker.hub_url, "main", opened, lambda _: True, is_shared=True, tls=broker.hub())
            for opened in (store, second)
        ]
        for lane in lanes:
            lane.open()
        van.wait(lambda: len(van.begun) == 2)
        van.say(*[batch(seq, samples=1_000) for seq in range(101, 301)])
        van.wait(lambda: van.acked == set(range(101, 301)))
        for lane in lanes:
            lane.close()
        van.link.close()
    assert [lane.counts["taken"] for lane in lanes] == [100, 100]
    assert store.totals() == {"messages": 200, "samples": 200_000, "thinned": 0}
    second.close()
