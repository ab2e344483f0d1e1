"""One SQLite file as the embedded stores use it: WAL, every commit on disk, one writer and a reader for each thread."""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from cloud_hub.storage import StoreUnreadable
from shared.logs import log

BUSY_MS = 5_000


class SqliteFile:
    """One SQLite file: a connection that writes, and one that reads for each thread that asks."""

    def __init__(self, path: Path, migrations: Migrations) -> None:
        """Opens the file, makes it when there is none, and takes the migrations it has not seen. Raises
        StoreUnreadable.
        """
        self._path = path
        self._readers = threading.local()
        self._lock = threading.Lock()
        self._holds_former = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made for its owner alone; the log SQLite puts beside it takes after it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writer = connect(path)
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")
            # What is erased is overwritten with zeros, not merely left in a free page.
            self._writer.execute("PRAGMA secure_delete = ON")
            database = Database(self._writer)
            strange = sorted({migration.name for migration in migrations.applied(database)} - _names(migrations))
            if not strange:
                migrations.apply(database)
                # A process killed right after it erased something has left the former pages behind.
                self.forget_former()
        except (sqlite3.Error, OSError) as wrong:
            raise StoreUnreadable(f"store {path} cannot be used: {wrong}; move it away or give another path") from None
        if strange:
            raise StoreUnreadable(f"store {path} was written by a newer release ({', '.join(strange)}): install that")

    def write(self, work: Callable[[sqlite3.Connection], None], erases: bool = False) -> None:
        """Do this in one transaction; when it `erases`, no byte of what was there is left. Raises sqlite3.Error when
        the disk does not take it; then nothing was done.
        """
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                work(self._writer)
                if erases:
                    self._writer.execute("PRAGMA user_version = 1")
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
        if erases or self._holds_former:
            self.forget_former()

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a query, from this thread's own connection."""
        connection = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._readers.connection = connect(self._path)
            connection.execute("PRAGMA query_only = ON")
        found: list[Any] = connection.execute(query, values).fetchall()
        return found

    def forget_former(self) -> None:
        """Empty the write-ahead log, which holds pages as they were before they were erased. Waits for readers, and is
        tried again with the next commit when one of them does not let go.

        After a commit that erases the file itself is written anew first: SQLite overwrites deleted rows, but not what
        a page held of a row it moved to another one. That takes a second for 230 MB, and as much room meanwhile;
        `user_version` remembers it until it is done.
        """
        with self._lock:
            try:
                if self._writer.execute("PRAGMA user_version").fetchone()[0]:
                    self._writer.execute("VACUUM")
                    self._writer.execute("PRAGMA user_version = 0")
                is_busy, _, _ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._holds_former = bool(is_busy)
            except sqlite3.OperationalError as full:
                self._holds_former = True
                log("store_not_erased", path=self._path, error=str(full), then="tried again with the next commit")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._writer.close()


def _names(migrations: Migrations) -> set[str]:
    return {migration.name for migration in migrations._migrations}


def connect(path: Path) -> sqlite3.Connection:
    """A connection that waits for others, and begins no transaction by itself."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return connection
