"""Turn telemetry batches into rows as PostgreSQL's binary COPY takes them, and into their sums by the minute.

All batches of one layout (the same channels in the same order) and one length are laid side by side and moved by a few
numpy calls, however many they are: nothing here is done sample by sample. Rows are records of fixed length, so a
missing sample stays NaN and is no NULL. Format: PostgreSQL documentation, COPY, "Binary Format".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cloud_hub.storage import Segment
from shared.wire import decode_telemetry_heading

POSITIONS = {"lat": 0, "lon": 1}
"""Channels that travel relative to the batch's origin; kept absolute, and never summed: a mean of places is no place,
and a track by the minute would outlive the one that is forgotten.
"""

COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"
MINUTE_MS = 60_000
POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970: where PostgreSQL's instants begin."""

FARTHEST_DEG = 1_000.0
"""An origin beyond this is no place on Earth; its positions become NaN, so that no sum ever overflows."""

Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]


class Block(NamedTuple):
    """Batches of the same channels and length n: [s] agent numbers and origins (float64 [s, 2]), int64 [s, n] epoch ms,
    float32 [s, k, n] values.
    """

    channels: tuple[str, ...]
    agents: npt.NDArray[np.int32]
    origins: Doubles
    at_ms: Longs
    values: npt.NDArray[np.float32]

    @property
    def rows(self) -> int:
        """How many samples it holds."""
        return int(self.at_ms.size)


def blocks(segments: Iterable[Segment], numbers: Mapping[str, int]) -> list[Block]:
    """The segments by channels and length; `numbers` are the agents'. Segments without samples are left out, and of a
    channel named twice only the first is taken.

    Raises wire.Refused when a payload is no batch.
    """
    found: dict[tuple[tuple[str, ...], int], list[tuple[int, tuple[float, float], bytes]]] = {}
    for segment in segments:
        if segment.samples:
            heading, body = decode_telemetry_heading(segment.payload)
            if not heading.channels:
                continue
            key = (heading.channels, heading.samples)
            found.setdefault(key, []).append((numbers[segment.sender], heading.origin, segment.payload[body:]))
    return [_block(channels, samples, parts) for (channels, samples), parts in found.items()]


def _block(channels: tuple[str, ...], samples: int, parts: Sequence[tuple[int, tuple[float, float], bytes]]) -> Block:
    agents, origins, bodies = zip(*parts, strict=True)
    laid: Bytes = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(parts), samples * (8 + 4 * len(channels)))
    at_ms = laid[:, : 8 * samples].view("<i8")
    values = laid[:, 8 * samples :].view("<f4").reshape(len(parts), len(channels), samples)
    if len(set(channels)) < len(channels):
        first = sorted(channels.index(name) for name in set(channels))
        channels, values = tuple(channels[k] for k in first), values[:, first]
    where: Doubles = np.array(origins, np.float64)
    where[np.abs(where) > FARTHEST_DEG] = np.nan
    return Block(channels, np.array(agents, np.int32), where, at_ms, values)


def in_pieces(blocks: Iterable[Block], rows: int) -> Iterator[Block]:
    """The same samples in blocks of about so many rows, each with whole batches."""
    for block in blocks:
        batches = max(1, rows // block.at_ms.shape[1])
        for k in range(0, len(block.agents), batches):
            part = slice(k, k + batches)
            yield Block(block.channels, block.agents[part], block.origins[part], block.at_ms[part], block.values[part])


def record(fields: Sequence[tuple[str, str]]) -> np.dtype[Any]:
    """The dtype of a binary COPY row of these fields (name, big-endian numpy type), each after its length."""
    laid: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in fields:
        laid += [(f"{name}:length", ">i4"), (name, kind)]
    return np.dtype(laid)


class Rows:
    """Rows of one table, made in a buffer that is kept from commit to commit with all lengths filled in."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        """`fields` are the columns in their order: name and big-endian numpy type."""
        self._fields = tuple(fields)
        self._dtype = record(fields)
        self._buffer = np.zeros(0, self._dtype)

    def take(self, count: int) -> npt.NDArray[Any]:
        """[count] records whose lengths are right and whose values are still those of before."""
        if len(self._buffer) < count:
            self._buffer = np.zeros(count, self._dtype)
            self._buffer["fields"] = len(self._fields)
            for name, kind in self._fields:
                self._buffer[f"{name}:length"] = np.dtype(kind).itemsize
        return self._buffer[:count]


def value_type(channel: str) -> str:
    """The big-endian numpy type of a channel's column: places need more than float32."""
    return ">f8" if channel in POSITIONS else ">f4"


def fill_wide(rows: npt.NDArray[Any], block: Block) -> None:
    """One row for each sample into records of (at, agent, one field per channel, by its place: "0", "1", ...)."""
    samples = block.at_ms.shape[1]
    rows["at"] = _instants(block.at_ms).ravel()
    rows["agent"] = np.repeat(block.agents, samples)
    for k in range(len(block.channels)):
        rows[str(k)] = absolute(block, k).ravel()


def fill_narrow(rows: npt.NDArray[Any], block: Block, channels: Sequence[int]) -> None:
    """One row for each sample and channel into records of (at, agent, channel, value); `channels` are their numbers."""
    samples = block.at_ms.shape[1]
    at, agents = _instants(block.at_ms).ravel(), np.repeat(block.agents, samples)
    for k, number in enumerate(channels):
        part = rows[k * block.rows : (k + 1) * block.rows]
        part["at"], part["agent"], part["channel"] = at, agents, number
        part["value"] = absolute(block, k).ravel()


def absolute(block: Block, k: int) -> npt.NDArray[Any]:
    """[s, n] values of the channel at place k: float32, or float64 degrees for a position."""
    column = block.values[:, k]
    axis = POSITIONS.get(block.channels[k])
    return column if axis is None else block.origins[:, axis, None] + column


def _instants(at_ms: Longs) -> Longs:
    """PostgreSQL's instants: microseconds since 2000."""
    at_us = at_ms * 1_000
    at_us -= POSTGRES_EPOCH_US
    return at_us


class Sums(NamedTuple):
    """What a block's samples come to by agent and minute: int64 [m] epoch ms where the minute begins, int32 [m] agents,
    and for each of the block's summed channels [c, m] how many values there are, their sum, least and most.

    A minute may stand here more than once: such rows are added up wherever they are read.
    """

    places: tuple[int, ...]
    at_ms: Longs
    agents: npt.NDArray[np.int32]
    samples: npt.NDArray[np.int32]
    sums: Doubles
    least: npt.NDArray[np.float32]
    most: npt.NDArray[np.float32]


def sums(block: Block) -> Sums:
    """The block by the minute. Of a minute without any value of a channel, least is +inf and most -inf."""
    minutes = block.at_ms // MINUTE_MS
    begins = np.empty(minutes.shape, np.bool_)
    begins[:, 0] = True
    np.not_equal(minutes[:, 1:], minutes[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    places = tuple(k for k, channel in enumerate(block.channels) if channel not in POSITIONS)
    values = block.values[:, places].transpose(1, 0, 2).reshape(len(places), block.rows)
    lacking = np.isnan(values)
    if lacking.any():
        samples = np.add.reduceat(~lacking, starts, axis=1, dtype=np.int32)
        total = np.add.reduceat(np.where(lacking, np.float32(0), values), starts, axis=1, dtype=np.float64)
        least = np.minimum.reduceat(np.where(lacking, np.float32(np.inf), values), starts, axis=1)
        most = np.maximum.reduceat(np.where(lacking, np.float32(-np.inf), values), starts, axis=1)
    else:
        lengths = np.diff(starts, append=block.rows).astype(np.int32)
        samples = np.broadcast_to(lengths, (len(places), len(starts)))
        total = np.add.reduceat(values, starts, axis=1, dtype=np.float64)
        least = np.minimum.reduceat(values, starts, axis=1)
        most = np.maximum.reduceat(values, starts, axis=1)
    agents = block.agents[starts // block.at_ms.shape[1]]
    return Sums(places, minutes.ravel()[starts] * MINUTE_MS, agents, samples, total, least, most)


SUMMED = (("n", ">i4"), ("sum", ">f8"), ("least", ">f4"), ("most", ">f4"))
"""What is kept of a channel by the minute, each with its type."""


def fill_sums(rows: npt.NDArray[Any], found: Sums) -> None:
    """Into records of (at, agent, and for each summed channel "{place}:n", ":sum", ":least" and ":most")."""
    rows["at"], rows["agent"] = _instants(found.at_ms), found.agents
    for c, place in enumerate(found.places):
        for name, column in _by_name(found):
            rows[f"{place}:{name}"] = column[c]


def fill_narrow_sums(rows: npt.NDArray[Any], found: Sums, channels: Sequence[int]) -> None:
    """Into records of (at, agent, channel, n, sum, least, most); `channels` are the numbers of the block's channels."""
    at = _instants(found.at_ms)
    for c, place in enumerate(found.places):
        part = rows[c * len(at) : (c + 1) * len(at)]
        part["at"], part["agent"], part["channel"] = at, found.agents, channels[place]
        for name, column in _by_name(found):
            part[name] = column[c]


def _by_name(found: Sums) -> tuple[tuple[str, npt.NDArray[Any]], ...]:
    return ("n", found.samples), ("sum", found.sums), ("least", found.least), ("most", found.most)


def unpacked(said: bytes, fields: Sequence[tuple[str, str]]) -> npt.NDArray[Any]:
    """What a binary COPY TO said, as records of these fields; none of them may be NULL."""
    dtype = record(fields)
    head = len(COPY_HEAD)
    count = (len(said) - head - len(COPY_END)) // dtype.itemsize
    assert len(said) == head + count * dtype.itemsize + len(COPY_END), "rows of a fixed length without NULL"
    return np.frombuffer(said, dtype, count, head)


def epoch_ms(at: npt.NDArray[Any]) -> Longs:
    """PostgreSQL's instants as epoch milliseconds."""
    return (at.astype(np.int64) + POSTGRES_EPOCH_US) // 1_000
