"""Connect to a PostgreSQL, and never wait for it without an end.

A link can be half-open: nothing comes, and nothing says that it is down. So each wait has a limit here, on this side,
beside those the server keeps.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock, Semaphore
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict

from cloud_hub.storage import StoreAway, StoreUnknown, StoreUnreadable, shown_url
from shared.logs import log

OLDEST_SERVER = 140_000
"""PostgreSQL 14: the oldest that is still mended, as of November 2026."""

CONNECT_S = 4
"""Long enough for a distant server, short enough to try again."""

LOOK_AGAIN_S = 0.1

_TEMPORARY = ("starting up", "shutting down", "recovery", "too many", "connection slots", "not yet accepting")
"""What a server says that refuses us now and may take us soon."""

_MENDS = (
    ("password", "mend the password (PGPASSWORD, or a .pgpass file, keep it out of the settings)"),
    ("database", "make it with CREATE DATABASE, or mend the setting `store`"),
    ("role", "make it with CREATE ROLE .. LOGIN, or mend the setting `store`"),
    ("pg_hba", "allow this host and user in pg_hba.conf"),
)

RV = TypeVar("RV")
T = TypeVar("T")


class Bounded(psycopg.Connection[Any]):
    """A connection that closes itself when an answer takes longer than `patience_s`."""

    patience_s: float = 30.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for an answer, as long as the patience lasts. Raises psycopg.OperationalError after that. Whoever gives
        a time of their own, as one who listens for notifications, is no longer waiting for an answer: nothing breaks.
        """
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience_s)
        except psycopg.errors._WaitTimeout:
            self.close()
            raise psycopg.OperationalError(f"no answer within {self.patience_s:g} s") from None


def connect(url: str, patience_s: float, settings: str = "", connect_s: int = CONNECT_S) -> Bounded:
    """A connection in autocommit mode that waits at most `patience_s` for an answer; `settings` are the session's own,
    as SQL. Raises StoreUnknown, StoreUnreadable when this URL will never do, StoreAway when it may later.
    """
    known = _read(url)
    try:
        connection = Bounded.connect(
            url,
            autocommit=True,
            connect_timeout=connect_s,
            fallback_application_name="waywarden",
            client_encoding="UTF8",
            keepalives_idle=10,
            keepalives_interval=3,
            keepalives_count=3,
            tcp_user_timeout=int(1000 * min(patience_s, 10)),
        )
    except psycopg.Error as wrong:
        raise _why_not(url, str(known.get("password") or ""), str(wrong)) from None
    connection.patience_s = patience_s
    try:
        connection.execute(
            f"SET standard_conforming_strings = on; SET timezone = 'UTC'; SET search_path = public; {settings}".encode()
        )
        _check(url, connection)
    except psycopg.Error as wrong:
        connection.close()
        raise StoreAway(f"store {shown_url(url)} broke off: {_words(str(wrong))}") from None
    except BaseException:
        connection.close()
        raise
    return connection


def connect_soon(url: str, patience_s: float, wait_s: float, settings: str = "") -> Bounded:
    """`connect`, tried for `wait_s` seconds while the server does not answer yet; said once."""
    deadline = time.monotonic() + wait_s
    is_said = False
    while True:
        try:
            return connect(url, patience_s, settings)
        except StoreAway as away:
            if time.monotonic() >= deadline:
                raise
            if not is_said:
                log("store_awaited", store=shown_url(url), why=away, for_s=f"{wait_s:g}")
                is_said = True
        time.sleep(LOOK_AGAIN_S)


class Readers:
    """A few connections for reading, which any thread may borrow; one that broke is replaced."""

    def __init__(self, url: str, most: int, patience_s: float, settings: str) -> None:
        """At most so many connections at once; they are made when they are needed. After `patience_s` without an
        answer a question is given up.
        """
        self._url = url
        self._patience_s = patience_s
        self._settings = f"SET default_transaction_read_only = on; {settings}"
        self._free = Semaphore(most)
        self._idle: deque[Bounded] = deque()
        self._lock = Lock()
        self._is_closed = False

    def ask(self, question: Callable[[Bounded], T]) -> T:
        """The answer to a question, asked again on a fresh connection while the database is away (it was started
        anew). Raises StoreAway when that lasts for longer than the patience.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                with self._one() as connection:
                    return question(connection)
            except psycopg.errors.QueryCanceled:
                raise StoreAway(f"store {shown_url(self._url)} took too long to answer: ask for less") from None
            except (psycopg.OperationalError, psycopg.InterfaceError, StoreAway) as away:
                self._drop_idle()  # What broke one has broken all.
                if time.monotonic() >= deadline:
                    raise StoreAway(f"store {shown_url(self._url)} is away: {_words(str(away))}") from None
            time.sleep(LOOK_AGAIN_S)

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a query."""
        return self.ask(lambda connection: connection.execute(query.encode(), values or None).fetchall())

    def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        self._is_closed = True
        self._drop_idle()

    @contextmanager
    def _one(self) -> Iterator[Bounded]:
        with self._free:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = connect(self._url, self._patience_s, self._settings)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            if self._is_closed:
                connection.close()
                return
            with self._lock:
                self._idle.append(connection)

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, deque()
        for connection in idle:
            connection.close()


def _read(url: str) -> dict[str, Any]:
    known: dict[str, Any] | None = None
    # Of two @ libpq takes the first, and the rest of a password nobody encoded for a host, which it would name.
    if url.partition("?")[0].count("@") < 2:
        with suppress(psycopg.Error):  # Its own words would quote what it could not read.
            known = dict(conninfo_to_dict(url))
    if known is None:
        raise StoreUnknown(
            f"store is '{shown_url(url)}', which is no URL of a PostgreSQL; expected "
            "postgresql://USER@HOST:PORT/DATABASE, special characters percent-encoded: mend the setting `store`"
        )
    return known


def _why_not(url: str, password: str, said: str) -> Exception:
    words = _words(said.replace(password, "***") if password else said)
    store = f"store {shown_url(url)}"
    if "FATAL" in said and not any(one in said for one in _TEMPORARY):
        mend = next((mend for word, mend in _MENDS if word in said), "mend the setting `store`")
        return StoreUnreadable(f"{store} refuses us: {words}; expected to be let in: {mend}")
    return StoreAway(
        f"store {store.removeprefix('store ')} is out of reach: {words}; expected a PostgreSQL that answers there: "
        "start it, or mend the setting `store`"
    )


def _words(said: str) -> str:
    """What libpq says, on one line, without what it says before and after."""
    line = " ".join(said.split()).removeprefix("connection failed: ")
    return line.partition(" DETAIL: ")[0].partition(" - Multiple connection attempts")[0][:300]


def _check(url: str, connection: Bounded) -> None:
    """What cannot be worked with is refused before anything is written."""
    found = connection.info.server_version
    if found < OLDEST_SERVER:
        raise StoreUnreadable(
            f"store {shown_url(url)} is PostgreSQL {found // 10_000}, expected {OLDEST_SERVER // 10_000} or newer: "
            "upgrade it"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnreadable(
            f"store {shown_url(url)} keeps text as {encoding}, expected UTF8: CREATE DATABASE .. ENCODING 'UTF8' "
            "TEMPLATE template0"
        )
