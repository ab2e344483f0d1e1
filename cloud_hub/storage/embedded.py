"""The hub's rows and readings in two SQLite files: WAL, every commit on disk before anything is said.

Each room is a table of documents. One connection writes, from one thread at a time; each reading thread has its own,
so a reader never makes the core wait. Migrations are numbered and only ever added to.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from cloud_hub.events import decision_words
from cloud_hub.fleet import Chain, KeptDecision
from cloud_hub.storage import (
    ARCHIVES,
    HALF_RESTORED,
    ROOMS,
    DecisionRow,
    DecisionsAsked,
    Readings,
    Segment,
    StoreUnreadable,
    Taken,
    TelemetryLetter,
    followed,
)
from cloud_hub.traces import HEAD_BYTES, SWEEP, SWEPT, Traces, sweep
from shared.ledger import Decision
from shared.steps import Row, Saved
from shared.wire import Refused, decode_telemetry
from shared.work import AgentId

BUSY_MS = 5_000
READ_AT_ONCE = 500

_BEYOND = "\U0010ffff"
"""Sorts behind every other text."""

_NEXT_DECISIONS = "SELECT number, doc FROM decisions WHERE number > ? ORDER BY number LIMIT ?"

# One look into the index for each sender: DISTINCT alone would read all of it.
_SENDERS = (
    "WITH RECURSIVE next (sender) AS (SELECT MIN(sender) FROM segments UNION ALL "
    "SELECT (SELECT MIN(sender) FROM segments WHERE sender > next.sender) FROM next WHERE sender IS NOT NULL) "
    "SELECT sender FROM next WHERE sender IS NOT NULL"
)
_TAKE = "INSERT OR IGNORE INTO ledger (sender, boot, seq, samples, thinned) VALUES (?, ?, ?, ?, ?)"
_NEWEST_LETTERS = "SELECT sender, boot, seq, at_ms, why, payload FROM dead_letters ORDER BY id DESC LIMIT ?"
_OLD_SEGMENTS = "SELECT id FROM segments WHERE sender = ? AND to_ms < ? LIMIT ?"

_kept = msgspec.json.Decoder(KeptDecision)
_decision = msgspec.json.Decoder(Decision)

hub_migrations = Migrations("hub")
telemetry_migrations = Migrations("telemetry")


_FIRST_ROOMS = (
    "hub", "orders", "stops", "vehicles", "depots", "agents", "plans", "estimates", "promises", "roads", "needs",
    "chains", "notices_due", "taken", "outbox", "counters", "corrections", "notices", "plan_history", "dead_letters",
)  # fmt: skip
_PEOPLES_ROOMS = ("customers", "amendments", "said_wishes", "receipts", "objects", "hands")


@hub_migrations(name="0001_rooms")
def _rooms(db: Database) -> None:
    _make_rooms(db, _FIRST_ROOMS)


@hub_migrations(name="0002_decisions")
def _decisions(db: Database) -> None:
    db.execute(
        "CREATE TABLE decisions (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, node TEXT NOT NULL, "
        "kind TEXT NOT NULL, at_ms INTEGER NOT NULL, decision_id TEXT NOT NULL, doc BLOB NOT NULL)"
    )
    db.execute("CREATE INDEX decisions_by_id ON decisions (decision_id)")
    db.execute("CREATE TABLE decision_words (word TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (word, number))")


@hub_migrations(name="0003_people")
def _people(db: Database) -> None:
    _make_rooms(db, _PEOPLES_ROOMS)


@hub_migrations(name="0004_notice_kinds")
def _notice_kinds(db: Database) -> None:
    for room in ("notices", "notices_due"):
        db.execute(
            f"UPDATE room_{room} SET doc = CAST(json_set(CAST(doc AS TEXT), "
            "'$.is_breach', json(CASE json_extract(CAST(doc AS TEXT), '$.kind') WHEN 'breach' THEN 'true' "
            "ELSE 'false' END), "
            "'$.kind', CASE json_extract(CAST(doc AS TEXT), '$.kind') WHEN 'first' THEN 'day' ELSE 'changed' END"
            ") AS BLOB) WHERE json_extract(CAST(doc AS TEXT), '$.kind') IN ('first', 'moved', 'breach')"
        )


@hub_migrations(name="0005_access")
def _access(db: Database) -> None:
    _make_rooms(db, ("keys", "accesses", "enrolments", "certificates", "gaps", "dead_payloads", "suspects", "restores"))


def _make_rooms(db: Database, rooms: Iterable[str]) -> None:
    for room in rooms:
        db.execute(f"CREATE TABLE room_{room} (key TEXT PRIMARY KEY, doc BLOB NOT NULL)")


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


class EmbeddedStore:
    """The rooms and archives of a hub in one SQLite file."""

    def __init__(self, path: Path) -> None:
        """Opens the file, makes it when there is none, and brings it up to this release. Raises StoreUnreadable."""
        self._path = path
        self._acting: int | None = None
        self._file = _File(path, hub_migrations)

    def act(self, region: str, holder: str) -> bool:
        """Become the one hub that works on this file, by a lock on the file `PATH.acting`, which goes with the process
        and says who holds it. False while another does.
        """
        if self._acting is not None:
            return True
        lock = os.open(f"{self._path}.acting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        if region and self.documents("restores"):
            os.close(lock)
            raise StoreUnreadable(f"store {self._path} {HALF_RESTORED}")
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{region} {holder}\n".encode(), 0)
        self._acting = lock
        return True

    def renew(self) -> bool:
        """True: the lock is held until the process ends."""
        return self._acting is not None

    def acting(self, region: str) -> str:
        """Who holds the lock, as they called themselves, or held it last; "" when nobody ever did."""
        try:
            said = Path(f"{self._path}.acting").read_text(errors="replace")
        except OSError:
            return ""
        return said.removeprefix(f"{region} ").strip()

    def saved(self) -> Saved:
        """Every room, for a core to recover from."""
        return {room: dict(self.documents(room)) for room in ROOMS}

    def commit(self, rows: Sequence[Row]) -> None:
        """Keep all the rows or none, on disk. Raises sqlite3.Error when the disk does not take them."""
        self._file.write(lambda connection: _write_rows(connection, rows))
        if any(row.room == SWEEP for row in rows):
            self._file.forget_former()

    def documents(self, room: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """Everything in a room or archive whose key begins so, by key."""
        return self._file.read(
            f"SELECT key, doc FROM {_table(room)} WHERE key >= ? AND key < ? ORDER BY key", (prefix, prefix + _BEYOND)
        )

    def document(self, room: str, key: str) -> bytes | None:
        """One document; None when there is none."""
        rows = self._file.read(f"SELECT doc FROM {_table(room)} WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def decisions(self, asked: DecisionsAsked) -> list[DecisionRow]:
        """Decisions in the order of their commits."""
        tests, values = ["number > ?"], [asked.after]  # type: tuple[list[str], list[Any]]
        for column, wanted in (("node", asked.agent), ("kind", asked.kind)):
            if wanted is not None:
                tests.append(f"{column} = ?")
                values.append(wanted)
        if asked.about is not None:
            tests.append("(number IN (SELECT number FROM decision_words WHERE word = ?) OR decision_id = ?)")
            values += [asked.about, asked.about]
        order = "DESC" if asked.newest_first else "ASC"
        rows = self._file.read(
            f"SELECT number, doc FROM decisions WHERE {' AND '.join(tests)} ORDER BY number {order} LIMIT ?",
            (*values, asked.most),
        )
        return [DecisionRow(number, doc) for number, doc in rows]

    def decision(self, decision_id: str) -> DecisionRow | None:
        """One decision; None when it is unknown."""
        rows = self._file.read("SELECT number, doc FROM decisions WHERE decision_id = ? LIMIT 1", (decision_id,))
        return DecisionRow(*rows[0]) if rows else None

    def chained(self) -> Iterable[bytes]:
        """Every decision that is kept, in the order of their commits; read as it is asked for."""
        after = 0
        while rows := self._file.read(_NEXT_DECISIONS, (after, READ_AT_ONCE)):
            yield from (doc for _, doc in rows)
            after = rows[-1][0]

    def dump(self) -> Iterator[Row]:
        """Every row of rooms and archives as they are at one instant, decisions in order; a hub may work on."""
        connection = _connect(self._path)
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            for room in (*ROOMS, *ARCHIVES):
                order = "number" if room == "decisions" else "key"
                for key, doc in connection.execute(f"SELECT key, doc FROM {_table(room)} ORDER BY {order}"):
                    yield Row(room, key, doc)
        finally:
            connection.close()

    def close(self) -> None:
        """Let go of the file, and of acting for its region."""
        self._file.close()
        if self._acting is not None:
            os.close(self._acting)
            self._acting = None


def read_chains(path: Path) -> tuple[Iterator[bytes], dict[str, Chain]]:
    """Every kept decision of a store's file, in order, and how far each chain was followed; nothing is written, whether
    a hub works on the file or not. Raises StoreUnreadable.
    """
    if not path.exists():
        raise StoreUnreadable(f"store {path} does not exist, expected a hub's store")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        connection.execute("BEGIN")  # Both are read as they were at one instant.
        chains = connection.execute("SELECT key, doc FROM room_chains").fetchall()
        kept = connection.execute("SELECT doc FROM decisions ORDER BY number")
    except sqlite3.Error as wrong:
        raise StoreUnreadable(f"store {path} cannot be read: {wrong}; expected a hub's store") from None
    return (doc for (doc,) in kept), {key: msgspec.json.decode(doc, type=Chain) for key, doc in chains}


class EmbeddedTelemetry:
    """Raw readings in one SQLite file: one BLOB per batch, one ledger row per message."""

    def __init__(self, path: Path) -> None:
        """Opens the file, makes it when there is none, and brings it up to this release. Raises StoreUnreadable."""
        self._file = _File(path, telemetry_migrations)
        self._has_erased = False

    def commit(self, segments: Sequence[Segment]) -> list[bool]:
        """Keep each segment not known yet, with its ledger row, all in one transaction; which were new."""
        are_new: list[bool] = []
        self._file.write(lambda connection: _write_segments(connection, segments, are_new))
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
            "SELECT payload FROM segments WHERE sender = ? AND to_ms >= ? AND from_ms <= ? ORDER BY from_ms",
            (agent, from_ms, to_ms),
        )
        times, values = [np.zeros(0, np.int64)], [np.zeros(0)]
        for (payload,) in rows:
            found = _channel(payload, channel)
            if found is not None:
                times.append(found.at_ms)
                values.append(found.values)
        at_ms, column = np.concatenate(times), np.concatenate(values)
        keep = (at_ms >= from_ms) & (at_ms <= to_ms) & ~np.isnan(column)
        order = np.argsort(at_ms[keep], kind="stable")[:most]
        return Readings(at_ms[keep][order], column[keep][order])

    def latest(self, agent: AgentId) -> dict[str, tuple[int, float]]:
        """The newest value of every channel of the newest segment."""
        rows = self._file.read("SELECT payload FROM segments WHERE sender = ? ORDER BY to_ms DESC LIMIT 1", (agent,))
        if not rows:
            return {}
        batch = decode_telemetry(rows[0][0])
        newest = {}
        for channel in batch.channels:
            found = _channel(rows[0][0], channel)
            if found is not None:
                known = np.flatnonzero(~np.isnan(found.values))
                if len(known):
                    newest[channel] = (int(found.at_ms[known[-1]]), float(found.values[known[-1]]))
        return newest

    def forget(self, before_ms: int, most: int) -> int:
        """Erase at most so many segments that end before this instant, and say how many went; not their ledger."""
        old = self._oldest(before_ms, most)
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

    def totals(self) -> dict[str, int]:
        """Messages, samples and thinned samples taken so far."""
        rows = self._file.read("SELECT COUNT(*), COALESCE(SUM(samples), 0), COALESCE(SUM(thinned), 0) FROM ledger")
        return dict(zip(("messages", "samples", "thinned"), rows[0], strict=True))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _File:
    """One SQLite file: a connection that writes, and one that reads for each thread that asks."""

    def __init__(self, path: Path, migrations: Migrations) -> None:
        self._path = path
        self._readers = threading.local()
        self._lock = threading.Lock()
        self._holds_former = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made for its owner alone; the log SQLite puts beside it takes after it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writer = _connect(path)
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")
            # What is erased is overwritten with zeros, not merely left in a free page.
            self._writer.execute("PRAGMA secure_delete = ON")
            database = Database(self._writer)
            strange = sorted({migration.name for migration in migrations.applied(database)} - _names(migrations))
            if not strange:
                migrations.apply(database)
                # A process killed right after it erased something has left the former pages in the log.
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (sqlite3.Error, OSError) as wrong:
            raise StoreUnreadable(f"store {path} cannot be used: {wrong}; move it away or give another path") from None
        if strange:
            raise StoreUnreadable(f"store {path} was written by a newer release ({', '.join(strange)}): install that")

    def write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                work(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
        if self._holds_former:
            self.forget_former()

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        connection = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._readers.connection = _connect(self._path)
            connection.execute("PRAGMA query_only = ON")
        found: list[Any] = connection.execute(query, values).fetchall()
        return found

    def forget_former(self) -> None:
        """Empty the write-ahead log, which holds pages as they were before they were erased. Waits for readers, and is
        tried again with the next commit when one of them does not let go.
        """
        with self._lock:
            is_busy, _, _ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._holds_former = bool(is_busy)

    def close(self) -> None:
        with self._lock:
            self._writer.close()


def _names(migrations: Migrations) -> set[str]:
    return {migration.name for migration in migrations._migrations}


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return connection


def _table(room: str) -> str:
    if room not in ROOMS and room not in ARCHIVES:
        raise KeyError(f"no room '{room}' in the hub's store")
    return "decisions" if room == "decisions" else f"room_{room}"


def _write_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    for row in rows:
        if row.room == SWEEP:
            assert row.value is not None, "a sweep says what to erase"
            _sweep(connection, msgspec.json.decode(row.value, type=Traces))
            continue
        table = _table(row.room)
        if row.room == "decisions":
            _write_decision(connection, row)
        elif row.value is None:
            connection.execute(f"DELETE FROM {table} WHERE key = ?", (row.key,))
        else:
            connection.execute(f"INSERT OR REPLACE INTO {table} (key, doc) VALUES (?, ?)", (row.key, row.value))


def _sweep(connection: sqlite3.Connection, traces: Traces) -> None:
    for room in SWEPT:
        documents = _heads(connection, room) if room == "objects" else _documents(connection, room)
        _write_rows(connection, list(sweep(room, documents, traces)))


def _documents(connection: sqlite3.Connection, room: str) -> Iterator[tuple[str, bytes]]:
    yield from connection.execute(f"SELECT key, doc FROM {_table(room)}")


def _heads(connection: sqlite3.Connection, room: str) -> Iterator[tuple[str, bytes]]:
    """Keys, and the first bytes of what is under them: pictures need not be read to be forgotten."""
    for key, rowid in connection.execute(f"SELECT key, rowid FROM {_table(room)}").fetchall():
        with connection.blobopen(_table(room), "doc", rowid, readonly=True) as blob:
            yield key, blob.read(HEAD_BYTES)


def _write_decision(connection: sqlite3.Connection, row: Row) -> None:
    assert row.value is not None, "a decision is never forgotten"
    kept = _kept.decode(row.value)
    decision = _decision.decode(kept.decision)
    number = connection.execute(
        "INSERT INTO decisions (key, node, kind, at_ms, decision_id, doc) VALUES (?, ?, ?, ?, ?, ?)",
        (row.key, kept.node, decision.kind, decision.at_ms, decision.decision_id, row.value),
    ).lastrowid
    connection.executemany(
        "INSERT OR IGNORE INTO decision_words (word, number) VALUES (?, ?)",
        [(word, number) for word in decision_words(decision)],
    )


def _write_segments(connection: sqlite3.Connection, segments: Sequence[Segment], are_new: list[bool]) -> None:
    for segment in segments:
        is_new = connection.execute(
            _TAKE, (segment.sender, segment.boot, segment.seq, segment.samples, segment.thinned)
        ).rowcount
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


def _channel(payload: bytes, channel: str) -> Readings | None:
    """One channel of a stored batch; positions are put back on their origin."""
    try:
        batch = decode_telemetry(payload)
    except Refused:
        return None  # Checked before it was stored; only a damaged file gets here.
    if channel not in batch.channels:
        return None
    origin = {"lat": batch.origin[0], "lon": batch.origin[1]}.get(channel, 0.0)
    column = batch.columns[batch.channels.index(channel)].astype(np.float64)
    return Readings(batch.at_ms.astype(np.int64), column + origin)
