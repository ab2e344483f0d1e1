"""The database of a chaos run: the hub's own files, a PostgreSQL of ours that can be killed, or somebody else's."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.postgres import PostgresServer
from tests.processes import with_children


class Database:
    """Where the hub keeps everything, and what a supervisor does with it."""

    can_be_killed = False

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def of(cls, store: str, folder: Path) -> "Database":
        """The database of `--store`: embedded, postgres, or a URL."""
        if store == "embedded":
            return cls(f"sqlite:///{folder / 'hub.db'}")
        return OwnPostgres() if store == "postgres" else cls(store)

    def start(self) -> None:
        """Have it accept connections."""

    def kill(self) -> None:
        """SIGKILL to all of it."""

    def stop(self) -> None:
        """End it for good."""


class OwnPostgres(Database):
    """A server of this run alone."""

    can_be_killed = True

    def __init__(self) -> None:
        self._server = PostgresServer()
        self._is_killed = False
        super().__init__(self._server.fresh_database())

    def start(self) -> None:
        """Start it again after a kill; it recovers from its log."""
        if self._is_killed:
            self._server.start()
            self._is_killed = False

    def kill(self) -> None:
        """SIGKILL to the server and every process of it."""
        # The first process last: it would start the others again.
        for pid in reversed(with_children([self._server.pid])):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.kill()
        self._is_killed = True

    def stop(self) -> None:
        """End it and take its folder away."""
        self._server.close()
