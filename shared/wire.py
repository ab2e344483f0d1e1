"""Messages to bytes and back; bytes we do not understand are refused by name.

Control messages travel as JSON, telemetry as little-endian columns.
"""

from typing import TypeVar

import msgspec
import numpy as np

from shared.messages import Ack, Numbered, Presence
from shared.work import AgentId

MOST_BYTES = 1 << 20
"""Larger than any plan of 250 stops with eight slices; whatever exceeds it is not ours."""

MOST_SAMPLES = 4096


class Refused(ValueError):
    """Bytes from outside that we do not take; the class name is what is counted."""


class TooLarge(Refused):
    """More bytes than any message of ours has."""


class UnknownMessage(Refused):
    """Not one of our messages, or not in their form."""


class TelemetryGarbled(Refused):
    """A telemetry batch whose columns do not fit its own heading."""


class TelemetryPlace(msgspec.Struct, frozen=True):
    """Whose batch it is and which number it has in its stream, whatever else is wrong with it."""

    sender: AgentId
    boot: str
    seq: int


class Heading(msgspec.Struct, frozen=True):
    """Whose message this is and where in its stream it stands, whatever it says; as in `Numbered`."""

    sender: AgentId
    boot: str
    stream: str
    seq: int
    epoch: int = 0
    after: int = 0


T = TypeVar("T")

_json = msgspec.json.Encoder()
_numbered = msgspec.json.Decoder(Numbered)
_numbered_heading = msgspec.json.Decoder(Heading)
_ack = msgspec.json.Decoder(Ack)
_presence = msgspec.json.Decoder(Presence)
_telemetry_place = msgspec.json.Decoder(TelemetryPlace)


def encode(message: Numbered | Ack | Presence) -> bytes:
    """The message as JSON."""
    return _json.encode(message)


def decode_numbered(payload: bytes) -> Numbered:
    """A numbered message. Raises TooLarge or UnknownMessage."""
    return _decoded(_numbered, payload)


def decode_numbered_heading(payload: bytes) -> Heading:
    """Only where a numbered message stands in its stream, so that one nobody understands can still be taken off it.

    Raises TooLarge or UnknownMessage.
    """
    return _decoded(_numbered_heading, payload)


def decode_ack(payload: bytes) -> Ack:
    """An acknowledgement. Raises TooLarge or UnknownMessage."""
    return _decoded(_ack, payload)


def decode_presence(payload: bytes) -> Presence:
    """Somebody's presence. Raises TooLarge or UnknownMessage."""
    return _decoded(_presence, payload)


def _decoded(decoder: msgspec.json.Decoder[T], payload: bytes) -> T:
    if len(payload) > MOST_BYTES:
        raise TooLarge(f"{len(payload)} bytes, expected at most {MOST_BYTES}")
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise UnknownMessage(f"{payload[:40]!r}: {wrong}") from None


class TelemetryBatch(msgspec.Struct, frozen=True):
    """Samples of one agent's channels, column by column.

    `at_ms` is int64 [n] in domain time; `columns` holds one float32 [n] per channel of `channels`, NaN where a sample
    lacks it. Positions are float32 degrees relative to `origin`, which keeps them exact to a centimetre. `thinned`
    declares how many samples the sender gave up, for want of room, since the batch before.
    """

    sender: AgentId
    boot: str
    seq: int
    origin: tuple[float, float]
    channels: tuple[str, ...]
    at_ms: np.ndarray
    columns: tuple[np.ndarray, ...]
    thinned: int = 0


class BatchHeading(msgspec.Struct, frozen=True):
    """What stands before a batch's columns: everything but the samples themselves."""

    sender: AgentId
    boot: str
    seq: int
    origin: tuple[float, float]
    channels: tuple[str, ...]
    samples: int
    thinned: int = 0


_heading = msgspec.json.Decoder(BatchHeading)


def encode_telemetry(batch: TelemetryBatch) -> bytes:
    """Heading length (uint32), heading (JSON), then the columns: int64 instants and float32 values, little-endian."""
    heading = _json.encode(
        BatchHeading(batch.sender, batch.boot, batch.seq, batch.origin, batch.channels, len(batch.at_ms), batch.thinned)
    )
    columns = [column.astype("<f4", copy=False).tobytes() for column in batch.columns]
    return b"".join([len(heading).to_bytes(4, "little"), heading, batch.at_ms.astype("<i8").tobytes(), *columns])


def decode_telemetry(payload: bytes) -> TelemetryBatch:
    """A batch whose columns are views on the payload. Raises TooLarge, UnknownMessage or TelemetryGarbled."""
    heading, body = decode_telemetry_heading(payload)
    at_ms = np.frombuffer(payload, "<i8", heading.samples, body)
    values = body + 8 * heading.samples
    columns = tuple(
        np.frombuffer(payload, "<f4", heading.samples, values + 4 * heading.samples * k)
        for k in range(len(heading.channels))
    )
    return TelemetryBatch(
        heading.sender, heading.boot, heading.seq, heading.origin, heading.channels, at_ms, columns, heading.thinned
    )


def decode_telemetry_heading(payload: bytes) -> tuple[BatchHeading, int]:
    """The heading of a batch, and where its columns begin: first the instants, then each channel, one block without a
    gap to the payload's end. Raises what `decode_telemetry` raises, for the same payloads.
    """
    if len(payload) > MOST_BYTES:
        raise TooLarge(f"{len(payload)} bytes, expected at most {MOST_BYTES}")
    body = 4 + int.from_bytes(payload[:4], "little")
    if len(payload) < 4 or body > len(payload):
        raise TelemetryGarbled(f"{len(payload)} bytes with a heading said to end at {body}")
    heading = _decoded(_heading, payload[4:body])
    expected = body + heading.samples * (8 + 4 * len(heading.channels))
    if not 0 <= heading.samples <= MOST_SAMPLES or len(payload) != expected:
        raise TelemetryGarbled(f"{len(payload)} bytes for {heading.samples} samples, expected {expected}")
    return heading, body


def decode_telemetry_place(payload: bytes) -> TelemetryPlace:
    """Only where a batch stands, so that one nobody can read may still be taken off its stream.

    Raises UnknownMessage or TelemetryGarbled when not even that can be read.
    """
    body = 4 + int.from_bytes(payload[:4], "little")
    if not 4 <= body <= min(len(payload), MOST_BYTES):
        raise TelemetryGarbled(f"{len(payload)} bytes with a heading said to end at {body}")
    return _decoded(_telemetry_place, payload[4:body])
