"""Keep a core's rows in SQLite, so that a commit that has returned survives a pulled plug.

One table of rooms, keys and values; every commit is one transaction, forced to disk. A damaged file is set aside, never
repaired in place: a new store begins a new life (`boot`), which the hub sees and reports as a gap.

When the disk is full the ballast is let go, the store takes its room at once (free pages in the file, a log that has
grown), and the commit is tried again: what a driver has delivered is recorded. `is_tight` says that it lives on that.
"""

import fcntl
import glob
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.ballast import Ballast
from edge_agent.forgetting import ROOM as FORGOTTEN
from shared.logs import log
from shared.steps import Row, Saved

OWN_ROOM = "store"
"""The store's own facts; a core never sees this room."""
TO_ERASE = Row(OWN_ROOM, "to_erase", b"1")
"""There from the commit that forgets somebody until no byte of the file is left of them."""

_SCHEMA = """
CREATE TABLE rooms (room TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (room, key)) WITHOUT ROWID
"""
_APPLICATION_ID = 0x57574147  # "WWAG": another program's database is not ours to open.

DAMAGED = ".damaged-"
SET_ASIDE_FOR_S = 7 * 24 * 3600
"""A damaged file is there for who looks into it, for a week or until somebody is forgotten."""


RESERVE_BYTES = 2_000_000
"""What the store takes of the ballast: so much in its file, and as much in its log."""
TIGHT_LOG_PAGES = 200
"""The log of a full disk is folded into the file when it has so many pages, a third of what was taken for it."""
LOG_PAGES = 1_000
"""SQLite's own habit."""
LOOK_FOR_ROOM_EVERY_S = 5.0


class StoreUnusable(RuntimeError):
    """The store's file is another program's, or its folder cannot be written."""


class SqliteStore:
    """The rows of one agent. For the thread that takes the steps only."""

    def __init__(self, path: Path, ballast: Ballast | None = None) -> None:
        """Open the store, or begin a new one. Raises StoreUnusable."""
        self.path = path
        self._ballast = ballast or Ballast(path.with_name(path.name + ".ballast"))
        self.tell_room: Callable[[bool], None] = lambda _: None
        """Hears when the store becomes tight (True) and when it has room again (False); must only put it on a queue."""
        self._is_tight = False
        self._look_again_s = 0.0
        self._lock = _lock(path)
        self._db = self._opened()
        if self._is_tight:
            self._take_room()
        _drop_set_aside(path, older_than_s=SET_ASIDE_FOR_S)
        self.boot = self._drawn_once()
        self._is_tight = not self._ballast.make()
        if self._found(TO_ERASE.key) is not None:
            self._erase()
        self._look_again_s = time.monotonic() + LOOK_FOR_ROOM_EVERY_S

    @property
    def is_tight(self) -> bool:
        """Whether the disk is full, or was too full at the start to hold anything back."""
        return self._is_tight

    def saved(self) -> Saved:
        """Every row: room, then key, then value."""
        rooms: dict[str, dict[str, bytes]] = {}
        for room, key, value in self._db.execute("SELECT room, key, value FROM rooms WHERE room <> ?", (OWN_ROOM,)):
            rooms.setdefault(room, {})[key] = bytes(value)
        return rooms

    def commit(self, rows: Sequence[Row]) -> None:
        """Keep all rows or none; on disk when it returns. Raises sqlite3.Error when the disk does not take them, even
        with the room that was held back.
        """
        must_erase = any(row.room == FORGOTTEN for row in rows)
        rows = [*rows, TO_ERASE] if must_erase else rows
        try:
            self._write(rows)
        except sqlite3.OperationalError as refused:
            if not self._is_full(refused) or not self._ballast.let_go():
                raise
            log("disk_full", path=self.path, error=str(refused), then="the ballast is let go; telemetry gives way")
            self._write(rows)
            self._take_room()
            self._look_again_s = time.monotonic() + LOOK_FOR_ROOM_EVERY_S
            self._set_tight(True)
        if self._is_tight and time.monotonic() >= self._look_again_s:
            self._look_again_s = time.monotonic() + LOOK_FOR_ROOM_EVERY_S
            self._set_tight(not self._ballast.make())
        if must_erase:
            self._erase()

    def _write(self, rows: Sequence[Row]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for row in rows:
                if row.value is None:
                    self._db.execute("DELETE FROM rooms WHERE room = ? AND key = ?", (row.room, row.key))
                else:
                    self._db.execute(
                        "INSERT INTO rooms VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                        (row.room, row.key, row.value),
                    )
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _erase(self) -> None:
        """Leave no byte of what was deleted: SQLite overwrites deleted rows, but not what a page held of a row it moved
        to another one; and its log has the former pages until it is folded into the file and cut off. On a full disk
        the file is not written anew, for that would give the room away that was taken; that is done when there is some.
        """
        try:
            if not self._is_tight:
                self._db.execute("VACUUM")
                self._db.execute("DELETE FROM rooms WHERE room = ? AND key = ?", (TO_ERASE.room, TO_ERASE.key))
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as full:
            log("store_not_erased", path=self.path, error=str(full), then="tried again when there is room")
        _drop_set_aside(self.path)

    def _set_tight(self, is_tight: bool) -> None:
        if is_tight != self._is_tight:
            self._is_tight = is_tight
            if not is_tight:
                self._db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
                if self._found(TO_ERASE.key) is not None:
                    self._erase()
            log("disk_tight" if is_tight else "disk_roomy", path=self.path)
            self.tell_room(is_tight)

    def _take_room(self) -> None:
        """Make the freed room our own before whoever filled the disk takes it: pages in the file that are free for the
        next rows, and a log that need not grow because it is folded into the file long before it is full.
        """
        reserve = (OWN_ROOM, "reserve", RESERVE_BYTES)
        try:
            self._db.execute(f"PRAGMA wal_autocheckpoint = {TIGHT_LOG_PAGES}")
            self._db.execute("INSERT OR REPLACE INTO rooms VALUES (?, ?, zeroblob(?))", reserve)
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._db.execute("DELETE FROM rooms WHERE room = ? AND key = ?", reserve[:2])
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.OperationalError as full:
            log("disk_reserve_not_made", path=self.path, error=str(full))

    def _is_full(self, refused: sqlite3.Error) -> bool:
        """SQLite says so, or it says that it could not write and nothing is free."""
        if refused.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return True
        free = os.statvfs(self.path.parent)
        return refused.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR and free.f_bavail * free.f_frsize < RESERVE_BYTES

    def _opened(self) -> sqlite3.Connection:
        """The store; on a disk too full to open it, with the room that was held back."""
        try:
            return _open(self.path)
        except StoreUnusable:
            free = os.statvfs(self.path.parent)
            if free.f_bavail * free.f_frsize >= RESERVE_BYTES or not self._ballast.let_go():
                raise
            log("disk_full", path=self.path, then="the ballast is let go")
            self._is_tight = True
            return _open(self.path)

    def close(self) -> None:
        """Fold the log into the file and let it go."""
        self._db.close()
        os.close(self._lock)

    def _drawn_once(self) -> str:
        """64 random bits that name the life of this store."""
        found = self._found("boot")
        if found is not None:
            return found.decode()
        boot = secrets.token_hex(8)
        self.commit([Row(OWN_ROOM, "boot", boot.encode())])
        log("store_created", path=self.path, boot=boot)
        return boot

    def _found(self, key: str) -> bytes | None:
        """One of the store's own facts; None when it is not there."""
        found = self._db.execute("SELECT value FROM rooms WHERE room = ? AND key = ?", (OWN_ROOM, key)).fetchone()
        return None if found is None else bytes(found[0])


def _lock(path: Path) -> int:
    """Two agents on one store would both number the same messages: whoever comes second is refused.

    The kernel lets the lock go with the process, however that ends.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as away:
        why = f"{path} cannot be made: {away.strerror}; check the folder and who may write there"
        raise StoreUnusable(why) from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        why = f"{path} is in use: another agent runs on it; stop that one, or name another store"
        raise StoreUnusable(why) from None
    return held


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _checked(path)
    except (sqlite3.OperationalError, OSError) as away:
        raise StoreUnusable(f"{path} cannot be opened: {away}; check the folder and who may write there") from None
    except sqlite3.DatabaseError as damaged:
        aside = _set_aside(path)
        log("store_damaged", path=path, error=str(damaged), set_aside=aside, then="a new store begins a new life")
        return _checked(path)


def _checked(path: Path) -> sqlite3.Connection:
    """A connection to a sound store; raises sqlite3.DatabaseError when it is not sound."""
    # Made for its owner alone: addresses and door codes are in it. The log beside it takes after it.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        # The file is written anew when somebody is forgotten: by way of memory, not of a file elsewhere.
        db.execute("PRAGMA temp_store = MEMORY")
        # What is read is read once, at the start: pages in memory serve nobody (a fifth of SQLite's usual 2 MB).
        db.execute("PRAGMA cache_size = -400")
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        # A process that died between a commit and its erasing left the log behind.
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        application = db.execute("PRAGMA application_id").fetchone()[0]
        is_new = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if is_new:
            db.execute("BEGIN IMMEDIATE")
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(_SCHEMA)
            db.execute("COMMIT")
        elif application != _APPLICATION_ID:
            raise StoreUnusable(f"{path} is another program's database; name another file as store")
    except BaseException:
        db.close()
        raise
    return db


def _set_aside(path: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.name}{DAMAGED}{stamp}-{secrets.token_hex(2)}")
    for end in ("", "-wal", "-shm"):
        found = path.with_name(path.name + end)
        if found.exists():
            found.rename(aside.with_name(aside.name + end))
    return aside


def _drop_set_aside(path: Path, older_than_s: float = float("-inf")) -> None:
    """Let go of damaged files: addresses lie in them where no forgetting reaches."""
    for aside in sorted(path.parent.glob(f"{glob.escape(path.name)}{DAMAGED}*")):
        try:
            if time.time() - aside.stat().st_ctime > older_than_s:
                aside.unlink()
        except OSError as kept:
            log("store_set_aside_stays", path=aside, error=kept.strerror)
