"""MQTT 5 packets in a stream of bytes: PUBLISH packets are taken out of it, all others are left as they came.

Source: MQTT 5.0 (OASIS, 2019), sections 1.5, 2.1, 2.2 and 3.3.
"""

from typing import NamedTuple

import msgspec

SIGNATURE = "sig"
"""The user property that carries a signature."""

_PUBLISH = 0x30
_CONNACK = 0x20
_USER_PROPERTY = 0x26
_TOPIC_ALIAS = 0x23
_FIXED_BYTES = {0x01: 1, 0x02: 4, _TOPIC_ALIAS: 2}
_WITH_LENGTH = (0x03, 0x08, 0x09)
_SUBSCRIPTION = 0x0B
"""The properties a PUBLISH may have (section 3.3.2.3): of fixed size, text or binary, and one variable number."""


class PacketWrong(ValueError):
    """Bytes that are no MQTT 5 packet; the connection they came over is not to be used any more."""


class Heard(msgspec.Struct, frozen=True):
    """A message from the broker, as bytes."""

    topic: str
    payload: bytes
    signature: str | None


class Sorted(NamedTuple):
    """What a piece of the stream holds: messages, the PUBACK packets they are to be answered with, the packets that are
    none of these, and how many bytes of the piece these are; what follows is an incomplete packet, or comes after a
    CONNACK that is to be heard first.
    """

    heard: list[Heard]
    answers: bytes
    others: bytes
    used: int


def sort_out(stream: bytes) -> Sorted:
    """Take the messages of QoS 0 and 1 out of a piece of the stream that begins with a packet. Raises PacketWrong."""
    heard: list[Heard] = []
    answers: list[bytes] = []
    others: list[bytes] = []
    at, size = 0, len(stream)
    while size - at >= 2:
        kind = stream[at]
        length, body = stream[at + 1], at + 2
        if length & 0x80:
            if size - at < 5 and all(digit & 0x80 for digit in stream[at + 1 :]):
                break
            length, body = _number(stream, at + 1)
        end = body + length
        if end > size:
            break
        if kind & 0xF0 == _PUBLISH and kind & 0x06 < 0x04:
            heard.append(_message(stream, body, end, kind & 0x02, answers))
        else:
            others.append(stream[at:end])
        at = end
        if kind == _CONNACK:
            break
    return Sorted(heard, b"".join(answers), b"".join(others), at)


def publish(topic: str, payload: bytes) -> bytes:
    """A PUBLISH packet of QoS 0 without properties."""
    name = topic.encode()
    length = len(name) + len(payload) + 3
    digits = bytearray()
    while length > 127:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return b"".join([b"\x30", digits, len(name).to_bytes(2, "big"), name, b"\x00", payload])


def _message(stream: bytes, at: int, end: int, is_numbered: int, answers: list[bytes]) -> Heard:
    if end - at < 3:
        raise PacketWrong(f"a PUBLISH of {end - at} bytes, expected at least 3")
    topic_end = at + 2 + (stream[at] << 8 | stream[at + 1])
    payload = topic_end + 3 if is_numbered else topic_end + 1
    if payload > end:
        raise PacketWrong(f"a PUBLISH of {end - at} bytes with a topic of {topic_end - at - 2}")
    signature = None
    if stream[payload - 1]:
        properties_bytes, first = _number(stream[:end], payload - 1)
        payload = first + properties_bytes
        if payload > end:
            raise PacketWrong(f"a PUBLISH of {end - at} bytes with {properties_bytes} bytes of properties")
        signature = _signature(stream[first:payload])
    if is_numbered:
        # Remaining length 2: reason 0x00 and no properties (section 3.4.2.1).
        answers.append(b"\x40\x02" + stream[topic_end : topic_end + 2])
    try:
        topic = str(stream[at + 2 : topic_end], "utf-8")
    except UnicodeDecodeError:
        raise PacketWrong(f"topic {stream[at + 2 : topic_end][:80]!r}, expected UTF-8") from None
    return Heard(topic, stream[payload:end], signature)


def _signature(properties: bytes) -> str | None:
    at = 0
    while at < len(properties):
        kind = properties[at]
        at += 1
        if kind == _USER_PROPERTY:
            name, at = _binary(properties, at)
            value, at = _binary(properties, at)
            if name == SIGNATURE.encode():
                return str(value, "utf-8", "replace")
        elif kind in _WITH_LENGTH:
            _, at = _binary(properties, at)
        elif kind == _SUBSCRIPTION:
            _, at = _number(properties, at)
        elif kind in _FIXED_BYTES and kind != _TOPIC_ALIAS:
            at += _FIXED_BYTES[kind]
        else:  # A broker may use a topic alias only when the client has allowed it (section 3.1.2.11.5).
            raise PacketWrong(f"property 0x{kind:02x} in a PUBLISH")
    return None


def _binary(text: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + int.from_bytes(text[at : at + 2], "big")
    if end > len(text):
        raise PacketWrong(f"text ends {end - len(text)} bytes behind its packet")
    return text[at + 2 : end], end


def _number(stream: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer (section 1.5.5) and where the next field begins."""
    value = 0
    for place, digit in enumerate(stream[at : at + 4]):
        value |= (digit & 0x7F) << (7 * place)
        if not digit & 0x80:
            return value, at + place + 1
    raise PacketWrong("a length that does not end within four bytes and its packet")
