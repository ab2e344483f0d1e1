"""MQTT packets in a stream: whatever pieces they come in, each message is heard once and the rest is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.packets import Heard, PacketWrong, Sorted, publish, sort_out

PINGRESP = b"\xd0\x00"
CONNACK = b"\x20\x03\x00\x00\x00"


def numbered(topic: str, payload: bytes, mid: int, properties: bytes = b"") -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + mid.to_bytes(2, "big")
    body += bytes([len(properties)]) + properties + payload
    assert len(body) < 1 << 14
    return b"\x32" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body


def user_property(name: str, value: str) -> bytes:
    return b"\x26" + b"".join(len(text).to_bytes(2, "big") + text.encode() for text in (name, value))


def test_a_message_of_qos_1_is_heard_and_answered_with_its_number() -> None:
    packet = numbered("ww/main/van-1/up/telemetry", b"columns", 0x1234)
    heard = Heard("ww/main/van-1/up/telemetry", b"columns", None)
    assert sort_out(packet) == Sorted([heard], b"\x40\x02\x12\x34", b"", len(packet))


def test_a_message_of_qos_0_is_heard_and_not_answered() -> None:
    packet = publish("ww/main/van-1/down/acks", b"x" * 20_000)
    assert sort_out(packet) == Sorted([Heard("ww/main/van-1/down/acks", b"x" * 20_000, None)], b"", b"", len(packet))


def test_a_signature_is_found_among_other_properties() -> None:
    properties = b"\x01\x01" + user_property("trace", "7") + b"\x0b\x85\x01" + user_property("sig", "5167")
    assert sort_out(numbered("t", b"go", 1, properties)).heard == [Heard("t", b"go", "5167")]


def test_other_packets_are_left_as_they_came() -> None:
    stream = PINGRESP + publish("a", b"1") + b"\x40\x02\x00\x01"
    assert sort_out(stream).others == PINGRESP + b"\x40\x02\x00\x01"


def test_a_message_of_qos_2_is_left_alone() -> None:
    packet = b"\x34\x06\x00\x01a\x00\x01\x00"
    assert sort_out(packet) == Sorted([], b"", packet, len(packet))


def test_nothing_is_heard_before_the_connection_is() -> None:
    stream = CONNACK + publish("a", b"1")
    assert sort_out(stream) == Sorted([], b"", CONNACK, len(CONNACK))


@pytest.mark.parametrize(
    "packet",
    [
        b"\x30\x00",
        b"\x32\x04\x00\x01a\x00",
        b"\x30\x05\x00\x09abc",
        b"\x30\x04\x00\x01a\x7f",
        b"\x30\x04\x00\x01\xff\x00",
        b"\x30\x07\x00\x01a\x03\x23\x00\x01",
        b"\x30\x05\x00\x01a\x01\x55",
        b"\x30\xff\xff\xff\xff\x01",
    ],
)
def test_a_packet_that_contradicts_itself_is_refused(packet: bytes) -> None:
    with pytest.raises(PacketWrong):
        sort_out(packet)


def said_once(topic: str, payload: bytes, mid: int) -> tuple[Heard, bytes]:
    return Heard(topic, payload, None), numbered(topic, payload, mid) if mid else publish(topic, payload)


messages = st.lists(
    st.builds(said_once, st.text("abc/", min_size=1, max_size=9), st.binary(max_size=300), st.integers(0, 0xFFFF)),
    max_size=6,
)


@given(messages, st.data())
def test_each_message_is_heard_once_however_the_stream_is_cut(
    said: list[tuple[Heard, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(packet for _, packet in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    heard, rest = [], b""
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found = sort_out(rest + stream[begin:end])
        heard += found.heard
        rest = (rest + stream[begin:end])[found.used :]
    assert (heard, rest) == ([one for one, _ in said], b"")


@given(st.binary(max_size=200))
def test_whatever_comes_is_sorted_or_refused(stream: bytes) -> None:
    try:
        assert 0 <= sort_out(stream).used <= len(stream)
    except PacketWrong:
        pass
