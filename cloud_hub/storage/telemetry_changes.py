"""Hear of readings as any process commits them, over PostgreSQL's notifications.

A listener has a connection of its own, so it never holds up who commits. When the database restarts it listens again;
what came in between is not said, so whoever hears is then told so by an empty list.
"""

import threading
from collections.abc import Callable, Sequence

import msgspec
import psycopg

from cloud_hub.storage import ReadingsCame, StoreAway
from cloud_hub.storage.telemetry_tables import Connection
from cloud_hub.storage.telemetry_writing import CHANNEL
from shared.logs import log, told

LOOK_S = 0.5
"""How often a listener looks whether it is to end."""

AGAIN_S = 0.5
ALIVE_S = 15.0
"""A listener that hears nothing asks so often whether the database is still there: a cut link says nothing."""

_came = msgspec.json.Decoder(list[ReadingsCame])


class Listening:
    """A thread that listens until it is closed."""

    def __init__(self, connect: Callable[[], Connection], hear: Callable[[Sequence[ReadingsCame]], None]) -> None:
        """`connect` opens a connection in autocommit mode or raises StoreAway. Returns when it listens,
        or when the database turned out to be away: then it goes on trying.
        """
        self._connect = connect
        self._hear = hear
        self._is_over = threading.Event()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._listen_for_ever, name="readings-heard", daemon=True)
        self._thread.start()
        self._listens.wait(10)

    def close(self) -> None:
        """End it; returns when it has ended."""
        self._is_over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _listen_for_ever(self) -> None:
        is_away = False
        while not self._is_over.is_set():
            try:
                with self._connect() as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    if is_away:
                        log("readings_feed_back", then="what came meanwhile was not said")
                        is_away = False
                        self._hear(())
                    self._listens.set()
                    self._listen(connection)
            except (psycopg.Error, StoreAway) as away:
                if not is_away:
                    log("readings_feed_away", error=told(away), then="tried again until it is back")
                is_away = True
                self._listens.set()
                self._is_over.wait(AGAIN_S)

    def _listen(self, connection: Connection) -> None:
        quiet_s = 0.0
        while not self._is_over.is_set():
            said = [notice.payload for notice in connection.notifies(timeout=LOOK_S, stop_after=1)]
            quiet_s = 0.0 if said else quiet_s + LOOK_S
            if quiet_s >= ALIVE_S:
                connection.execute("SELECT 1")
                quiet_s = 0.0
            for payload in said:
                self._say(payload)

    def _say(self, payload: str) -> None:
        try:
            came = _came.decode(payload)
        except msgspec.DecodeError as wrong:
            log("readings_feed_garbled", error=told(wrong), then="left out")  # Anybody may notify on this database.
            return
        self._hear(came)
