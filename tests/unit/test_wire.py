"""Messages survive the wire; anything else is refused by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import wire
from shared.messages import Ack, Arrived, Numbered, Presence
from shared.quantities import EpochMs
from shared.topics import Place, TopicUnknown, down, hub_presence, read, up
from shared.work import AgentId, StopId

VAN = AgentId("van-1")


def test_a_numbered_message_comes_back_as_it_was() -> None:
    said = Numbered(VAN, "a1", "events", 7, EpochMs(5), 2, Arrived(StopId("s1")))
    assert wire.decode_numbered(wire.encode(said)) == said


def test_an_ack_comes_back_as_it_was() -> None:
    ack = Ack(VAN, "a1", "telemetry", 4, (6, 9))
    assert wire.decode_ack(wire.encode(ack)) == ack


def test_a_presence_comes_back_as_it_was() -> None:
    presence = Presence(VAN, True, "life", "a1", 3)
    assert wire.decode_presence(wire.encode(presence)) == presence


@given(st.integers(0, 200), st.integers(0, 2**62))
def test_a_telemetry_batch_comes_back_as_it_was(samples: int, begin_ms: int) -> None:
    at_ms = begin_ms + np.arange(samples, dtype=np.int64)
    speed = np.linspace(0, 30, samples, dtype=np.float32)
    batch = wire.TelemetryBatch(VAN, "a1", 3, (60.17, 24.94), ("speed_mps",), at_ms, (speed,))
    again = wire.decode_telemetry(wire.encode_telemetry(batch))
    assert again.channels == ("speed_mps",)
    np.testing.assert_array_equal(again.at_ms, at_ms)
    np.testing.assert_array_equal(again.columns[0], speed)


@given(st.binary(max_size=300))
def test_garbage_is_refused_by_name(payload: bytes) -> None:
    for decode in (wire.decode_numbered, wire.decode_ack, wire.decode_presence, wire.decode_telemetry):
        with pytest.raises(wire.Refused):
            decode(payload)


@given(st.integers(0, 120))
def test_a_truncated_batch_is_refused_by_name(length: int) -> None:
    batch = wire.TelemetryBatch(VAN, "a1", 1, (0.0, 0.0), ("x",), np.arange(9), (np.zeros(9, np.float32),))
    payload = wire.encode_telemetry(batch)
    with pytest.raises(wire.Refused):
        wire.decode_telemetry(payload[: min(length, len(payload) - 1)])


def test_more_bytes_than_any_message_of_ours_are_refused_unread() -> None:
    with pytest.raises(wire.TooLarge):
        wire.decode_numbered(b"{" * (wire.MOST_BYTES + 1))


def test_a_topic_says_whose_it_is_and_what_it_carries() -> None:
    assert read(up("north", VAN, "events")) == Place("north", VAN, "up", "events")
    assert read(down("north", VAN, "commands")) == Place("north", VAN, "down", "commands")
    assert read(hub_presence("north")).carries == "presence"


@given(st.text(max_size=60))
def test_a_topic_that_is_not_ours_is_refused_by_name(topic: str) -> None:
    with pytest.raises(TopicUnknown):
        read(topic)
