"""Gather samples of what is believed into columnar batches, and give up the least worth when there is no room for them.

A batch gets its number only when it is handed to the link; until then it was never sent, so two of them may be merged
and halved. What is given up is counted and declared with the next batch, so that samples stored and samples thinned
always add up to the samples made.

What a sample is worth decides which goes first: two minutes around whatever was said to the hub (a visit, a delay,
another order) are worth four times as much, a sudden change of speed twice, standing where the van stood before a
quarter. What stays takes over the worth of what goes, so that a stretch thinned before is the last to be thinned again.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.dating import Dating
from edge_agent.sensing import Belief
from shared.quantities import Position
from shared.steps import Row
from shared.wire import TelemetryBatch, decode_telemetry, encode_telemetry
from shared.work import AgentId

ROOM = "telemetry"

CHANNELS = ("lat", "lon", "speed_mps", "odometer_km", "course_deg", "energy_share", "outside_c", "quality")
"""Positions are relative to the batch's origin; `quality` is 2 for a fresh fix, 1 for wheels alone, 0 for neither."""
WORTH = "worth"
"""A column more that a batch has while it waits on board; the hub never sees it."""

QUALITY = {"gnss": 2.0, "wheel": 1.0, "none": 0.0}

SAMPLE_EVERY_MS = 5_000
"""At town speed one sample every 40 to 60 m: enough to draw the street driven and to learn its pace."""
FULL = 120
"""Samples in a batch: ten minutes of a real van. The wire's sweet spot is 50 to 200."""
OLDEST_MS = 900_000
"""A batch is closed a quarter of an hour after its first sample even when readings come seldom."""
ROW_BYTES = 64
"""What a row costs beside its value: room, key and the tree above it."""

NEAR_AN_EVENT_MS = 120_000
EVENT_WORTH = 4.0
CHANGE_WORTH = 2.0
STANDING_WORTH = 0.25
CHANGES_BY_MPS = 4.0
"""From one sample to the next: half of what a van in town drives, lost or won in five seconds."""
STANDS_BELOW_MPS = 0.5


class Account(msgspec.Struct, frozen=True):
    """Samples ever made into batches or turned away, ever given up, and given up since the last batch was handed over.

    What is still on board plus what was given up plus what was handed over is what was made.
    """

    not_yet_declared: int = 0
    ever: int = 0
    made: int = 0


class _Held(NamedTuple):
    """A batch that waits: its bytes, and the mean worth of its samples."""

    payload: bytes
    mean_worth: float


class Collector:
    """The samples of one agent on their way to the link."""

    def __init__(self, sender: AgentId, boot: str, saved: Mapping[str, bytes]) -> None:
        """From the room `telemetry`. Samples of the batch not yet closed are forgotten by a restart."""
        self._sender = sender
        self._boot = boot
        self._waiting = {int(key): _held(saved[key]) for key in sorted(saved) if key.isdigit()}
        self._bytes = sum(len(held.payload) + ROW_BYTES for held in self._waiting.values())
        self._next = max(self._waiting, default=0) + 1
        self._account = msgspec.json.decode(saved["thinned"], type=Account) if "thinned" in saved else Account()
        self._at_ms: list[int] = []
        self._samples: list[tuple[float, ...]] = []
        self._last_ms: int | None = None
        """When the last sample was taken: the cadence outlives the batch it was taken for."""
        self._events_ms: list[int] = []
        self._is_tight = False
        self._turned_away = 0
        self._turned_away_ms: int | None = None

    @property
    def backlog(self) -> int:
        """Closed batches that have not been handed to the link."""
        return len(self._waiting)

    @property
    def bytes_waiting(self) -> int:
        """How much room the closed batches take."""
        return self._bytes

    @property
    def account(self) -> Account:
        """What became of the samples so far."""
        return self._account

    def sample(self, belief: Belief, now_ms: int) -> list[Row]:
        """Take what is believed now, at the stated cadence; the rows of a batch that closes with it."""
        if belief.position is None:
            return []
        if self._is_tight:
            return self._turn_away(now_ms)
        if self._last_ms is not None and 0 <= now_ms - self._last_ms < SAMPLE_EVERY_MS:
            return []
        is_over = self._at_ms and (now_ms - self._at_ms[0] >= OLDEST_MS or now_ms < self._at_ms[-1])
        rows = self.close() if is_over else []
        self._last_ms = now_ms
        self._at_ms.append(now_ms)
        self._samples.append(_columns_of(belief, belief.position))
        return rows + self.close() if len(self._at_ms) >= FULL else rows

    def mark(self, now_ms: int) -> None:
        """Something was worth telling the hub: samples around this instant are worth more."""
        self._events_ms.append(now_ms)

    def close(self) -> list[Row]:
        """Close the batch under way, whatever is in it."""
        if not self._at_ms:
            return []
        at_ms, columns = np.array(self._at_ms, np.int64), np.array(self._samples, np.float64)
        worth = _worth(at_ms, columns[:, CHANNELS.index("speed_mps")], np.array(self._events_ms, np.int64))
        origin = (float(round(columns[0, 0], 4)), float(round(columns[0, 1], 4)))
        columns[:, 0] -= origin[0]
        columns[:, 1] -= origin[1]
        told = (*columns.T.astype(np.float32), worth.astype(np.float32))
        batch = TelemetryBatch(self._sender, self._boot, 0, origin, (*CHANNELS, WORTH), at_ms, tuple(told))
        self._events_ms = [event for event in self._events_ms if event > self._at_ms[-1] - NEAR_AN_EVENT_MS]
        self._at_ms, self._samples = [], []
        number, self._next = self._next, self._next + 1
        return [self._keep(number, batch), self._count(made=len(at_ms))]

    def hand_over(self, seq: int) -> tuple[bytes, list[Row]] | None:
        """The oldest batch under its number, and the rows that take it off this room; None when nothing waits."""
        if not self._waiting:
            return None
        number = min(self._waiting)
        batch = decode_telemetry(self._waiting[number].payload)
        declared = self._account.not_yet_declared
        told = len(CHANNELS)
        batch = msgspec.structs.replace(
            batch, seq=seq, channels=batch.channels[:told], columns=batch.columns[:told], thinned=declared
        )
        rows = [self._drop(number)]
        if declared:
            rows.append(self._count(declared=declared))
        return encode_telemetry(batch), rows

    def thin(self) -> list[Row]:
        """Give up half of the samples of two neighbours: of those whose samples on the average are worth least, oldest
        first. No rows when nothing is left to give up.
        """
        if not self._waiting:
            return []
        numbers = sorted(self._waiting)
        pairs = list(pairwise(numbers)) or [(numbers[0], numbers[0])]
        first, second = min(
            pairs, key=lambda pair: self._waiting[pair[0]].mean_worth + self._waiting[pair[1]].mean_worth
        )
        batches = [decode_telemetry(self._waiting[number].payload) for number in sorted({first, second})]
        rows = [self._drop(number) for number in sorted({first, second}, reverse=True)]
        halved = _halved(batches)
        if len(halved.at_ms):
            rows.append(self._keep(first, halved))
        return [*rows, self._count(given_up=sum(len(batch.at_ms) for batch in batches) - len(halved.at_ms))]

    def give_up_sent(self, samples: int) -> list[Row]:
        """So many samples were given up that had been handed to the link; the batch in their place declares them."""
        self._account = msgspec.structs.replace(self._account, ever=self._account.ever + samples)
        return [self._account_row()]

    # A full disk.

    def tighten(self) -> list[Row]:
        """Nothing is kept any more: samples are counted as given up, from the batch under way on."""
        if self._is_tight:
            return []
        self._is_tight = True
        self._turned_away, self._at_ms, self._samples = len(self._at_ms), [], []
        return self.settle()

    def loosen(self) -> list[Row]:
        """There is room again."""
        self._is_tight = False
        return self.settle()

    def settle(self) -> list[Row]:
        """Write down how many samples were turned away."""
        turned_away, self._turned_away = self._turned_away, 0
        return [self._count(made=turned_away, given_up=turned_away)] if turned_away else []

    def _turn_away(self, now_ms: int) -> list[Row]:
        if self._turned_away_ms is not None and 0 <= now_ms - self._turned_away_ms < SAMPLE_EVERY_MS:
            return []
        self._turned_away_ms = now_ms
        self._turned_away += 1
        return self.settle() if self._turned_away >= FULL else []

    # An unknown clock.

    def redate(self, dating: Dating) -> list[Row]:
        """The time was found: date again what was sampled on the unknown clock."""
        self._at_ms = [dating.at(at_ms) for at_ms in self._at_ms]
        self._events_ms = [dating.at(at_ms) for at_ms in self._events_ms]
        self._last_ms = None if self._last_ms is None else dating.at(self._last_ms)
        self._turned_away_ms = None
        rows = []
        for number, held in list(self._waiting.items()):
            batch = decode_telemetry(held.payload)
            at_ms = dating.all_at(batch.at_ms)
            if not np.array_equal(at_ms, batch.at_ms):
                self._drop(number)
                rows.append(self._keep(number, msgspec.structs.replace(batch, at_ms=at_ms)))
        return rows

    # Keeping.

    def _keep(self, number: int, batch: TelemetryBatch) -> Row:
        held = _held(encode_telemetry(batch))
        self._waiting[number] = held
        self._bytes += len(held.payload) + ROW_BYTES
        return Row(ROOM, _key(number), held.payload)

    def _drop(self, number: int) -> Row:
        self._bytes -= len(self._waiting.pop(number).payload) + ROW_BYTES
        return Row(ROOM, _key(number), None)

    def _count(self, made: int = 0, given_up: int = 0, declared: int = 0) -> Row:
        former = self._account
        self._account = Account(
            former.not_yet_declared + given_up - declared, former.ever + given_up, former.made + made
        )
        return self._account_row()

    def _account_row(self) -> Row:
        return Row(ROOM, "thinned", msgspec.json.encode(self._account))


def tombstone(payload: bytes) -> tuple[bytes, int]:
    """What takes the place of a batch that was handed to the link and given up: its number, no samples, and how many
    there were. The receiver keeps it or the original, whichever comes first. Also how many samples are given up.
    """
    batch = decode_telemetry(payload)
    empty = tuple(column[:0] for column in batch.columns)
    given_up = len(batch.at_ms)
    fallen = msgspec.structs.replace(batch, at_ms=batch.at_ms[:0], columns=empty, thinned=batch.thinned + given_up)
    return encode_telemetry(fallen), given_up


def _worth(
    at_ms: NDArray[np.int64], speed_mps: NDArray[np.float64], events_ms: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What each sample says that its neighbours do not, float64 [n]."""
    speed_mps = np.nan_to_num(speed_mps, nan=STANDS_BELOW_MPS)
    before = np.concatenate([speed_mps[:1], speed_mps[:-1]])
    worth = np.ones(len(at_ms))
    worth[(speed_mps < STANDS_BELOW_MPS) & (before < STANDS_BELOW_MPS)] = STANDING_WORTH
    worth[np.abs(speed_mps - before) >= CHANGES_BY_MPS] = CHANGE_WORTH
    if len(events_ms):
        worth[np.abs(at_ms[:, None] - events_ms[None, :]).min(axis=1) <= NEAR_AN_EVENT_MS] *= EVENT_WORTH
    return worth


def _halved(batches: list[TelemetryBatch]) -> TelemetryBatch:
    """The half of the samples that is worth most, in the order of time, relative to the first batch's origin; of
    samples worth the same every second one.
    """
    one = batches[0]
    columns = [np.concatenate(parts) for parts in zip(*(_moved(b, one.origin) for b in batches), strict=True)]
    at_ms = np.concatenate([batch.at_ms for batch in batches])
    worth = columns[-1].astype(np.float64)
    count = len(at_ms) // 2
    ranked = np.lexsort((np.arange(len(at_ms)), np.arange(len(at_ms)) % 2, -worth))
    kept = np.sort(ranked[:count])
    if count:
        columns[-1] = (worth * (worth.sum() / worth[kept].sum())).astype(np.float32)
    told = tuple(column[kept] for column in columns)
    channels = (*one.channels[: len(CHANNELS)], WORTH)
    return msgspec.structs.replace(one, channels=channels, at_ms=at_ms[kept], columns=told)


def _moved(batch: TelemetryBatch, origin: tuple[float, float]) -> tuple[NDArray[np.float32], ...]:
    north, east = (np.float32(mine - theirs) for mine, theirs in zip(batch.origin, origin, strict=True))
    lat, lon, *others = batch.columns
    worth = () if WORTH in batch.channels else (np.ones(len(batch.at_ms), np.float32),)
    return (lat + north, lon + east, *others, *worth)


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


def _held(payload: bytes) -> _Held:
    batch = decode_telemetry(payload)
    # A store written before samples had a worth holds batches without the column.
    return _Held(payload, float(batch.columns[-1].mean()) if WORTH in batch.channels else 1.0)


def _key(number: int) -> str:
    return f"{number:012d}"
