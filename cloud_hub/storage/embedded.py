"""The hub's rows in a SQLite file: WAL, every commit on disk before anything is said.

Each room is a table of documents. One connection writes, from one thread at a time; each reading thread has its own,
so a reader never makes the core wait. Migrations are numbered and only ever added to.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
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
    StoreUnreadable,
)
from cloud_hub.storage.embedded_telemetry import EmbeddedTelemetry
from cloud_hub.storage.sqlite_file import SqliteFile, connect
from cloud_hub.traces import HEAD_BYTES, SWEEP, SWEPT, Traces, sweep
from shared.ledger import Decision
from shared.steps import Row, Saved

__all__ = ["EmbeddedStore", "EmbeddedTelemetry", "read_chains"]

READ_AT_ONCE = 500

_BEYOND = "\U0010ffff"
"""Sorts behind every other text."""

_NEXT_DECISIONS = "SELECT number, doc FROM decisions WHERE number > ? ORDER BY number LIMIT ?"

_kept = msgspec.json.Decoder(KeptDecision)
_decision = msgspec.json.Decoder(Decision)

hub_migrations = Migrations("hub")


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


class EmbeddedStore:
    """The rooms and archives of a hub in one SQLite file."""

    def __init__(self, path: Path) -> None:
        """Opens the file, makes it when there is none, and brings it up to this release. Raises StoreUnreadable."""
        self._path = path
        self._acting: int | None = None
        self._file = SqliteFile(path, hub_migrations)

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
        erases = any(row.room == SWEEP for row in rows)
        self._file.write(lambda connection: _write_rows(connection, rows), erases)

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
        tests = ["number > ?"]
        values: list[Any] = [asked.after]
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
        connection = connect(self._path)
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
