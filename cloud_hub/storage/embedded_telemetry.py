"""Raw readings in one SQLite file: one BLOB for each batch as it came, one ledger row for each message.

A batch is stored without being opened and read with numpy where it lies: one channel is one block of its bytes. Sums by
the minute and hour are worked out when they are asked for.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from cloud_hub.storage import (
    Closing,
    Kept,
    LedgerRow,
    Readings,
    ReadingsCame,
    Segment,
    Summary,
    Taken,
    TelemetryLetter,
    followed,
)
from cloud_hub.storage.packing import POSITIONS
from cloud_hub.storage.sqlite_file import SqliteFile, connect
from shared.quantities import EpochMs
from shared.wire import Refused, decode_telemetry, decode_telemetry_heading, encode_telemetry
from shared.work import AgentId

# One look into the index for each sender: DISTINCT alone would read all of it.
_SENDERS = (
    "WITH RECURSIVE next (sender) AS (SELECT MIN(sender) FROM segments UNION ALL "
    "SELECT (SELECT MIN(sender) FROM segments WHERE sender > next.sender) FROM next WHERE sender IS NOT NULL) "
    "SELECT sender FROM next WHERE sender IS NOT NULL"
)
_TAKE = "INSERT OR IGNORE INTO ledger (sender, boot, seq, samples, thinned) VALUES (?, ?, ?, ?, ?)"
_NEWEST_LETTERS = "SELECT sender, boot, seq, at_ms, why, payload FROM dead_letters ORDER BY id DESC LIMIT ?"
_OLD_SEGMENTS = "SELECT id FROM segments WHERE sender = ? AND to_ms < ? LIMIT ?"

BUCKET_MS = {"1min": 60_000, "1h": 3_600_000}

NEWEST_MS = 900_000
"""A channel's newest value is looked for so far back from its agent's newest sample."""

MOST_UNHEARD = 1_000
"""Commits a listener may be behind before it loses the oldest."""

telemetry_migrations = Migrations("telemetry")


@telemetry_migrations(name="0001_segments")
def _segments(db: Database) -> None:
    db.execute(
        "CREATE TABLE segments (id INTEGER PRIMARY KEY, sender TEXT NOT NULL, from_ms INTEGER NOT NULL, "
        "to_ms INTEGER NOT NULL, samples INTEGER NOT NULL, payload BLOB NOT NULL)"
    )
    db.execute("CREATE INDEX segments_by_time ON segments (sender, to_ms)")
    # The ledger outlives the readings: retention may forget a segment, but it is never taken a second time.
    db.execute(
        "CREATE TABLE ledger (sender TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL, "
        "samples INTEGER NOT NULL, thinned INTEGER NOT NULL, PRIMARY KEY (sender, boot, seq)) WITHOUT ROWID"
    )


@telemetry_migrations(name="0002_dead_letters")
def _telemetry_dead_letters(db: Database) -> None:
    db.execute(
        "CREATE TABLE dead_letters (id INTEGER PRIMARY KEY, sender TEXT NOT NULL, boot TEXT NOT NULL, "
        "seq INTEGER NOT NULL, at_ms INTEGER NOT NULL, why TEXT NOT NULL, payload BLOB NOT NULL)"
    )


@telemetry_migrations(name="0003_blurred")
def _blurred(db: Database) -> None:
    db.execute("ALTER TABLE segments ADD COLUMN is_blurred INTEGER NOT NULL DEFAULT 0")
    db.execute("CREATE INDEX segments_not_blurred ON segments (to_ms) WHERE is_blurred = 0")
    # Both ends in the index: what lies outside a range is passed over without opening its row.
    db.execute("DROP INDEX segments_by_time")
    db.execute("CREATE INDEX segments_by_time ON segments (sender, to_ms, from_ms)")


class EmbeddedTelemetry:
    """Raw readings in one SQLite file: one BLOB per batch, one ledger row per message."""

    def __init__(self, path: Path) -> None:
        """Opens the file, makes it when there is none, and brings it up to this release. Raises StoreUnreadable."""
        self._path = path
        self._file = SqliteFile(path, telemetry_migrations)
        self._has_erased = False
        self._listeners: list[_Listening] = []

    def commit(self, segments: Sequence[Segment]) -> list[bool]:
        """Keep each segment not known yet, with its ledger row, all in one transaction; which were new. One numbered 0
        comes from a backup: it has no ledger row and is always new.
        """
        are_new: list[bool] = []
        self._file.write(lambda connection: _write_segments(connection, segments, are_new))
        if self._listeners:
            came = _came(segment for segment, is_new in zip(segments, are_new, strict=True) if is_new)
            for listener in list(self._listeners):
                listener.tell(came)
        return are_new

    def bury(self, letters: Sequence[TelemetryLetter]) -> None:
        """Keep what cannot be read, with a ledger row of no samples each."""
        self._file.write(lambda connection: _write_letters(connection, letters))

    def dead_letters(self, most: int = 100) -> list[TelemetryLetter]:
        """What was buried, the newest first."""
        rows = self._file.read(_NEWEST_LETTERS, (most,))
        return [TelemetryLetter(*row) for row in rows]

    def taken(self, sender: AgentId, boot: str) -> Taken:
        """What is stored of one life of a sender's stream."""
        rows = self._file.read("SELECT seq FROM ledger WHERE sender = ? AND boot = ?", (sender, boot))
        return followed(seq for (seq,) in rows)

    def read(self, agent: AgentId, channel: str, from_ms: int, to_ms: int, most: int = 100_000) -> Readings:
        """One channel between two instants, both included, by time; NaN readings are left out."""
        rows = self._file.read(
            "SELECT payload FROM segments WHERE sender = ? AND to_ms >= ? AND from_ms <= ?",
            (agent, max(0, from_ms), min(to_ms, 1 << 62)),
        )
        parts = [part for (payload,) in rows if (part := _channel(payload, channel)) is not None]
        at_ms = np.concatenate([np.zeros(0, np.int64), *(part.at_ms for part in parts)])
        column = np.concatenate([np.zeros(0), *(part.values for part in parts)])
        keep = (at_ms >= from_ms) & (at_ms <= to_ms) & ~np.isnan(column)
        order = np.argsort(at_ms[keep], kind="stable")[:most]
        return Readings(at_ms[keep][order], column[keep][order])

    def summed(
        self, agent: AgentId, channel: str, from_ms: int, to_ms: int, per: Literal["1min", "1h"], most: int = 100_000
    ) -> Summary:
        """One channel by the minute or the hour, the first `most` buckets that begin between two instants. Positions
        are not summed. Sums go with their readings here.
        """
        bucket_ms = BUCKET_MS[per]
        first_ms, last_ms = -(-max(0, from_ms) // bucket_ms) * bucket_ms, to_ms // bucket_ms * bucket_ms
        found = Readings(np.zeros(0, np.int64), np.zeros(0))
        if channel not in POSITIONS:
            found = self.read(agent, channel, first_ms, last_ms + bucket_ms - 1, most * bucket_ms)
        begins = found.at_ms // bucket_ms * bucket_ms
        starts = np.flatnonzero(np.diff(begins, prepend=-1))[:most]
        if not len(starts):
            return Summary(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
        end = int(np.searchsorted(begins, begins[starts[-1]], "right"))
        values = found.values[:end]
        samples = np.diff(starts, append=end).astype(np.int64)
        return Summary(
            begins[starts],
            np.add.reduceat(values, starts) / samples,
            np.minimum.reduceat(values, starts),
            np.maximum.reduceat(values, starts),
            samples,
        )

    def latest(self, agent: AgentId) -> dict[str, tuple[int, float]]:
        """The newest value of every channel in the last quarter of an hour the agent measured anything in."""
        found = self._file.read("SELECT MAX(to_ms) FROM segments WHERE sender = ?", (agent,))[0][0]
        if found is None:
            return {}
        rows = self._file.read(
            "SELECT payload FROM segments WHERE sender = ? AND to_ms >= ? ORDER BY to_ms", (agent, found - NEWEST_MS)
        )
        newest: dict[str, tuple[int, float]] = {}
        for (payload,) in rows:
            for name, (at_ms, value) in _newest(payload).items():
                if at_ms >= newest.get(name, (0, 0.0))[0]:
                    newest[name] = (at_ms, value)
        last_ms = max((at_ms for at_ms, _ in newest.values()), default=0)
        return {name: one for name, one in newest.items() if one[0] >= last_ms - NEWEST_MS}

    def changes(self, hear: Callable[[Sequence[ReadingsCame]], None]) -> Closing:
        """Have `hear` called, from a thread of its own, with what this process commits from now on: there is no
        other that does.
        """
        listener = _Listening(hear, self._listeners)
        self._listeners.append(listener)
        return listener

    def forget(self, before_ms: int, most: int, kind: Literal["raw", "1min", "1h"] = "raw") -> int:
        """Erase at most so many segments that end before this instant, and say how many went; not their ledger. Sums
        are not kept here.
        """
        old = self._oldest(before_ms, most) if kind == "raw" else []
        if old:
            self._file.write(lambda connection: _erase_segments(connection, old))
        elif self._has_erased:
            self._file.forget_former()
        self._has_erased = bool(old)
        if not old and self._file.read("SELECT 1 FROM dead_letters WHERE at_ms < ? LIMIT 1", (before_ms,)):
            self._file.write(lambda connection: _erase_letters(connection, before_ms))
        return len(old)

    def _oldest(self, before_ms: int, most: int) -> list[int]:
        """The rows of old segments, found sender by sender along the index."""
        found: list[int] = []
        for (sender,) in self._file.read(_SENDERS):
            rows = self._file.read(_OLD_SEGMENTS, (sender, before_ms, most - len(found)))
            found += (row for (row,) in rows)
        return found

    def blur(self, before_ms: int, most: int) -> int:
        """Coarsen the positions of at most so many segments that end before this instant to a hundredth of a degree,
        and say how many were; what they were is overwritten.
        """
        rows = self._file.read(
            "SELECT id, payload FROM segments WHERE is_blurred = 0 AND to_ms < ? ORDER BY to_ms LIMIT ?",
            (before_ms, most),
        )
        if rows:
            coarse = [(_blurred_payload(payload), row) for row, payload in rows]
            self._file.write(
                lambda connection: _many(
                    connection, "UPDATE segments SET payload = ?, is_blurred = 1 WHERE id = ?", coarse
                )
            )
            self._file.forget_former()
        return len(rows)

    def retain(self, kept: Kept) -> None:
        """There is no database with jobs of its own here."""

    def fold(self, now_ms: int, most: int) -> int:
        """Nothing lies in pieces here: 0."""
        del now_ms, most
        return 0

    def totals(self) -> dict[str, int]:
        """Messages, samples and thinned samples taken so far."""
        rows = self._file.read("SELECT COUNT(*), COALESCE(SUM(samples), 0), COALESCE(SUM(thinned), 0) FROM ledger")
        return dict(zip(("messages", "samples", "thinned"), rows[0], strict=True))

    def failures(self) -> list[str]:
        """Nothing works in the background here: none."""
        return []

    def notices(self) -> list[str]:
        """Nothing is missing."""
        return []

    def dump(self) -> Iterator[Segment]:
        """Every segment that is kept, as it came from its agent, at one instant; a hub may work on."""
        for sender, from_ms, to_ms, samples, payload in self._at_one_instant(
            "SELECT sender, from_ms, to_ms, samples, payload FROM segments ORDER BY id"
        ):
            heading, _ = decode_telemetry_heading(payload)
            thinned = min(max(0, heading.thinned), 1 << 31)
            yield Segment(sender, heading.boot, heading.seq, from_ms, to_ms, samples, thinned, payload)

    def ledger(self) -> Iterator[LedgerRow]:
        """Every message that was ever taken, at one instant."""
        for row in self._at_one_instant(
            "SELECT sender, boot, seq, samples, thinned FROM ledger ORDER BY sender, boot, seq"
        ):
            yield LedgerRow(*row)

    def restore_ledger(self, rows: Sequence[LedgerRow]) -> None:
        """Note messages as taken whose readings are not kept any more. Of a folded run the last has all the samples."""
        single = [
            (row.sender, row.boot, seq, *((row.samples, row.thinned) if seq == row.seq else (0, 0)))
            for row in rows
            for seq in range(row.seq - row.messages + 1, row.seq + 1)
        ]
        self._file.write(lambda connection: _many(connection, _TAKE, single))

    def close(self) -> None:
        """Let go of the file."""
        for listener in list(self._listeners):
            listener.close()
        self._file.close()

    def _at_one_instant(self, query: str) -> Iterator[tuple[Any, ...]]:
        connection = connect(self._path)
        try:
            connection.execute("PRAGMA query_only = ON")
            yield from connection.execute(query)
        finally:
            connection.close()


class _Listening:
    """A thread that tells one listener what came; who commits never waits for it."""

    def __init__(self, hear: Callable[[Sequence[ReadingsCame]], None], among: "list[_Listening]") -> None:
        self._hear = hear
        self._among = among
        self._waiting: queue.Queue[Sequence[ReadingsCame] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._tell_for_ever, name="readings-heard", daemon=True)
        self._thread.start()

    def tell(self, came: Sequence[ReadingsCame]) -> None:
        if came and self._waiting.qsize() < MOST_UNHEARD:
            self._waiting.put(came)

    def close(self) -> None:
        """End it; returns when it has ended."""
        if self in self._among:
            self._among.remove(self)
        self._waiting.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _tell_for_ever(self) -> None:
        while (came := self._waiting.get()) is not None:
            self._hear(came)


def _came(segments: Iterable[Segment]) -> list[ReadingsCame]:
    came: dict[AgentId, tuple[int, int]] = {}
    for one in segments:
        if one.samples:
            to_ms, samples = came.get(one.sender, (0, 0))
            came[one.sender] = (max(to_ms, one.to_ms), samples + one.samples)
    return [ReadingsCame(agent, EpochMs(to_ms), samples) for agent, (to_ms, samples) in came.items()]


def _write_segments(connection: sqlite3.Connection, segments: Sequence[Segment], are_new: list[bool]) -> None:
    for segment in segments:
        is_new = (
            not segment.seq
            or connection.execute(
                _TAKE, (segment.sender, segment.boot, segment.seq, segment.samples, segment.thinned)
            ).rowcount
        )
        if is_new and segment.samples:
            connection.execute(
                "INSERT INTO segments (sender, from_ms, to_ms, samples, payload) VALUES (?, ?, ?, ?, ?)",
                (segment.sender, segment.from_ms, segment.to_ms, segment.samples, segment.payload),
            )
        are_new.append(bool(is_new))


def _write_letters(connection: sqlite3.Connection, letters: Sequence[TelemetryLetter]) -> None:
    for letter in letters:
        if connection.execute(_TAKE, (letter.sender, letter.boot, letter.seq, 0, 0)).rowcount:
            connection.execute(
                "INSERT INTO dead_letters (sender, boot, seq, at_ms, why, payload) VALUES (?, ?, ?, ?, ?, ?)", letter
            )


def _erase_segments(connection: sqlite3.Connection, rows: Iterable[int]) -> None:
    connection.executemany("DELETE FROM segments WHERE id = ?", [(row,) for row in rows])


def _erase_letters(connection: sqlite3.Connection, before_ms: int) -> None:
    connection.execute("DELETE FROM dead_letters WHERE at_ms < ?", (before_ms,))


def _many(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    connection.executemany(statement, rows)


def _channel(payload: bytes, channel: str) -> Readings | None:
    """One channel of a stored batch; positions are put back on their origin."""
    try:
        heading, body = decode_telemetry_heading(payload)
    except Refused:
        return None  # Checked before it was stored; only a damaged file gets here.
    if channel not in heading.channels:
        return None
    place = body + heading.samples * (8 + 4 * heading.channels.index(channel))
    at_ms = np.frombuffer(payload, "<i8", heading.samples, body).astype(np.int64)
    column = np.frombuffer(payload, "<f4", heading.samples, place).astype(np.float64)
    axis = POSITIONS.get(channel)
    return Readings(at_ms, column if axis is None else column + heading.origin[axis])


def _newest(payload: bytes) -> dict[str, tuple[int, float]]:
    """The newest value of every channel of a batch."""
    newest = {}
    for channel in decode_telemetry_heading(payload)[0].channels:
        found = _channel(payload, channel)
        if found is not None:
            known = np.flatnonzero(~np.isnan(found.values))
            if len(known):
                last = known[np.argmax(found.at_ms[known])] if len(known) > 1 else known[0]
                newest[channel] = (int(found.at_ms[last]), float(found.values[last]))
    return newest


def _blurred_payload(payload: bytes) -> bytes:
    """The same batch with coarse positions."""
    batch = decode_telemetry(payload)
    if POSITIONS.keys().isdisjoint(batch.channels):
        return payload
    origin = tuple(float(_coarse(np.array(degrees))) for degrees in batch.origin)
    columns = tuple(
        column
        if channel not in POSITIONS
        else _coarse(batch.origin[POSITIONS[channel]] + column.astype(np.float64)) - origin[POSITIONS[channel]]
        for channel, column in zip(batch.channels, batch.columns, strict=True)
    )
    return encode_telemetry(msgspec.structs.replace(batch, origin=origin, columns=columns))


def _coarse(degrees: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """As `cloud_hub.traces.coarse`, but for a half."""
    coarse: npt.NDArray[np.float64] = np.floor(degrees * 100 + 0.5) / 100
    return coarse
