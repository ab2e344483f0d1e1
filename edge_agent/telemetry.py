"""Gather samples of what is believed into columnar batches, and thin the oldest when there is no room for them.

A batch gets its number only when it is handed to the link; until then it was never sent, so two of them may be merged
and halved, and what is given up that way is counted and declared with the next batch.
"""

from collections.abc import Mapping
from itertools import pairwise

import msgspec
import numpy as np

from edge_agent.sensing import Belief
from shared.quantities import Position
from shared.steps import Row
from shared.wire import TelemetryBatch, decode_telemetry, encode_telemetry
from shared.work import AgentId

ROOM = "telemetry"

CHANNELS = ("lat", "lon", "speed_mps", "odometer_km", "course_deg", "energy_share", "outside_c", "quality")
"""Positions are relative to the batch's origin; `quality` is 2 for a fresh fix, 1 for wheels alone, 0 for neither."""

QUALITY = {"gnss": 2.0, "wheel": 1.0, "none": 0.0}

SAMPLE_EVERY_MS = 5_000
"""At town speed one sample every 40 to 60 m: enough to draw the street driven and to learn its pace."""
FULL = 120
"""Samples in a batch: ten minutes of a real van. The wire's sweet spot is 50 to 200."""
OLDEST_MS = 900_000
"""A batch is closed a quarter of an hour after its first sample even when readings come seldom."""
MOST_WAITING = 200
"""Batches kept while nobody takes them: a whole day and a half of one van, at 4 KB each under 1 MB of its disk."""


class _Thinned(msgspec.Struct, frozen=True):
    not_yet_declared: int = 0
    ever: int = 0


class Collector:
    """The samples of one agent on their way to the link."""

    def __init__(self, sender: AgentId, boot: str, saved: Mapping[str, bytes]) -> None:
        """From the room `telemetry`. Samples of the batch not yet closed are forgotten by a restart."""
        self._sender = sender
        self._boot = boot
        self._waiting = {int(key): saved[key] for key in sorted(saved) if key.isdigit()}
        self._spans = {number: _span(payload) for number, payload in self._waiting.items()}
        self._next = max(self._waiting, default=0) + 1
        self._thinned = msgspec.json.decode(saved["thinned"], type=_Thinned) if "thinned" in saved else _Thinned()
        self._at_ms: list[int] = []
        self._samples: list[tuple[float, ...]] = []

    @property
    def backlog(self) -> int:
        """Closed batches that have not been handed to the link."""
        return len(self._waiting)

    @property
    def thinned(self) -> int:
        """Samples given up for want of room, ever."""
        return self._thinned.ever

    def sample(self, belief: Belief, now_ms: int) -> list[Row]:
        """Take what is believed now, at the stated cadence; the rows of a batch that closes with it."""
        if belief.position is None or (self._at_ms and now_ms - self._at_ms[-1] < SAMPLE_EVERY_MS):
            return []
        if self._at_ms and (now_ms - self._at_ms[0] >= OLDEST_MS or now_ms < self._at_ms[-1]):
            rows = self._close()
        else:
            rows = []
        self._at_ms.append(now_ms)
        self._samples.append(_columns_of(belief, belief.position))
        return rows + self._close() if len(self._at_ms) >= FULL else rows

    def hand_over(self, seq: int) -> tuple[bytes, list[Row]] | None:
        """The oldest batch under its number, and the rows that take it off this room; None when nothing waits."""
        if not self._waiting:
            return None
        number = min(self._waiting)
        batch = msgspec.structs.replace(
            decode_telemetry(self._waiting.pop(number)), seq=seq, thinned=self._thinned.not_yet_declared
        )
        del self._spans[number]
        rows = [Row(ROOM, _key(number), None)]
        if self._thinned.not_yet_declared:
            self._thinned = _Thinned(0, self._thinned.ever)
            rows.append(Row(ROOM, "thinned", msgspec.json.encode(self._thinned)))
        return encode_telemetry(batch), rows

    def _close(self) -> list[Row]:
        samples = np.array(self._samples, np.float64)
        origin = (float(round(samples[0, 0], 4)), float(round(samples[0, 1], 4)))
        samples[:, 0] -= origin[0]
        samples[:, 1] -= origin[1]
        batch = TelemetryBatch(
            self._sender,
            self._boot,
            0,
            origin,
            CHANNELS,
            np.array(self._at_ms, np.int64),
            tuple(samples.T.astype(np.float32)),
        )
        self._at_ms, self._samples = [], []
        number, self._next = self._next, self._next + 1
        rows = [self._keep(number, batch)]
        if len(self._waiting) > MOST_WAITING:
            rows += self._thin()
        return rows

    def _keep(self, number: int, batch: TelemetryBatch) -> Row:
        payload = encode_telemetry(batch)
        self._waiting[number] = payload
        self._spans[number] = (int(batch.at_ms[0]), int(batch.at_ms[-1]))
        return Row(ROOM, _key(number), payload)

    def _thin(self) -> list[Row]:
        """Merge the two neighbours that cover the least time and keep every second sample of them."""
        numbers = sorted(self._waiting)
        first, second = min(
            pairwise(numbers),
            key=lambda pair: (self._spans[pair[1]][1] - self._spans[pair[0]][0], pair[0]),
        )
        one, other = decode_telemetry(self._waiting[first]), decode_telemetry(self._waiting[second])
        merged = _merged(one, other)
        given_up = len(one.at_ms) + len(other.at_ms) - len(merged.at_ms)
        self._thinned = _Thinned(self._thinned.not_yet_declared + given_up, self._thinned.ever + given_up)
        del self._waiting[second], self._spans[second]
        return [
            self._keep(first, merged),
            Row(ROOM, _key(second), None),
            Row(ROOM, "thinned", msgspec.json.encode(self._thinned)),
        ]


def _merged(one: TelemetryBatch, other: TelemetryBatch) -> TelemetryBatch:
    """Every second sample of two batches, relative to the first one's origin."""
    shifts = (other.origin[0] - one.origin[0], other.origin[1] - one.origin[1], *(0.0 for _ in CHANNELS[2:]))
    columns = tuple(
        np.concatenate([mine, theirs + np.float32(shift)])[::2]
        for mine, theirs, shift in zip(one.columns, other.columns, shifts, strict=True)
    )
    return msgspec.structs.replace(one, at_ms=np.concatenate([one.at_ms, other.at_ms])[::2], columns=columns)


def _columns_of(belief: Belief, position: Position) -> tuple[float, ...]:
    return (
        position.lat,
        position.lon,
        _or_nan(belief.speed_mps),
        belief.odometer_m / 1000,
        _or_nan(belief.course_deg),
        _or_nan(belief.energy_share),
        _or_nan(belief.outside_c),
        QUALITY[belief.quality],
    )


def _or_nan(number: float | None) -> float:
    return float("nan") if number is None else number


def _span(payload: bytes) -> tuple[int, int]:
    at_ms = decode_telemetry(payload).at_ms
    return int(at_ms[0]), int(at_ms[-1])


def _key(number: int) -> str:
    return f"{number:012d}"
