"""The hub's rows in PostgreSQL: one transaction a commit, which fails when another hub acts.

Each room is a table of documents, as in the embedded store, and every question has the same answer here. The acting hub
holds a row of the table `acting`: its lease says until when by the database's own clock, its fence grows with each
holder. A commit locks that row against being taken over, and compares the fence, in its own transaction: whoever was
overtaken cannot write any more, however long it was asleep.

What PostgreSQL cannot promise: that what was erased is in no byte of its files. A former version of a row is dead with
the commit and cleaned from its table at once (VACUUM, as soon as no reader needs it), but its bytes may stay in the
free space of a page until they are overwritten, in the write-ahead log until that is recycled, and in every backup and
replica.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from typing import Any, TypeVar

import msgspec
import psycopg

from cloud_hub.events import decision_words
from cloud_hub.fleet import Chain, KeptDecision
from cloud_hub.storage import (
    ARCHIVES,
    HALF_RESTORED,
    LEASE_S,
    PATIENCE_S,
    ROOMS,
    DecisionRow,
    DecisionsAsked,
    Fenced,
    StoreAway,
    StoreUnreadable,
    shown_url,
)
from cloud_hub.storage.pg_connections import Bounded, Readers, connect, connect_soon
from cloud_hub.storage.pg_migrations import Migration, migrate
from cloud_hub.traces import HEAD_BYTES, SWEEP, SWEPT, Traces, sweep
from shared.ledger import Decision
from shared.logs import log, told
from shared.steps import Row, Saved

READERS = 8
"""Connections for people's questions; the core has one of its own, and so has the lease."""

READ_S = 10.0
COMMIT_S = 30.0
LEASE_ANSWER_S = 0.9
LEASE_AGAIN_S = 0.3
"""What broke sooner than this was no silence: the database was started anew, and is asked once more."""

SILENT_AFTER_S = 1.0
"""A holder whose session has ended and who has not prolonged for so long is gone: no need to wait for the lease."""

READ_AT_ONCE = 500

OVERTAKEN = "WW001"
"""The SQLSTATE by which a commit says that another hub acts."""

_BEYOND = "\U0010ffff"
"""Sorts behind every other text."""

_SESSION = f"SET statement_timeout = {int(READ_S * 1000)}; SET idle_in_transaction_session_timeout = 60000"

# Nobody may wait for a hub that stopped in the middle of a commit: its session ends before its lease does.
_COMMITS = (
    "SET synchronous_commit = on; SET idle_in_transaction_session_timeout = 1500; "
    f"SET statement_timeout = {int(COMMIT_S * 1000)}"
)
_LEASE = (
    "SET synchronous_commit = on; SET idle_in_transaction_session_timeout = 1500; "
    f"SET statement_timeout = {int(LEASE_ANSWER_S * 1000)}; SET lock_timeout = {int(LEASE_ANSWER_S * 1000)}"
)

_NEXT_DECISIONS = "SELECT number, doc FROM decisions WHERE number > %s ORDER BY number LIMIT %s"

T = TypeVar("T")

_kept = msgspec.json.Decoder(KeptDecision)
_decision = msgspec.json.Decoder(Decision)


def _rooms(rooms: Iterable[str]) -> tuple[str, ...]:
    # Most rooms are written again and again: room in each page keeps the new version beside the old one.
    return tuple(
        f'CREATE TABLE room_{room} (key text COLLATE "C" PRIMARY KEY, doc bytea NOT NULL) WITH (fillfactor = 80)'
        for room in rooms
    )


_FIRST_ROOMS = (
    "hub", "orders", "stops", "vehicles", "depots", "agents", "plans", "estimates", "promises", "roads", "needs",
    "chains", "notices_due", "taken", "outbox", "counters", "corrections", "customers", "amendments", "said_wishes",
    "notices", "plan_history", "dead_letters", "receipts", "objects", "hands", "keys", "accesses", "enrolments",
    "certificates", "gaps", "dead_payloads", "suspects", "restores",
)  # fmt: skip

_FENCE = """
CREATE FUNCTION waywarden_fence(of_region text, own_fence bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF of_region IS NULL THEN
        PERFORM 1 FROM acting WHERE lease_until >= clock_timestamp() FOR KEY SHARE;
        IF FOUND THEN
            RAISE EXCEPTION 'a hub acts on this store' USING ERRCODE = 'WW001';
        END IF;
    ELSE
        PERFORM 1 FROM acting WHERE region = of_region AND fence = own_fence FOR KEY SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another hub acts for region %', of_region USING ERRCODE = 'WW001';
        END IF;
    END IF;
END $$
"""

MIGRATIONS = (
    Migration("0001_rooms", _rooms(_FIRST_ROOMS)),
    Migration(
        "0002_decisions",
        (
            "CREATE TABLE decisions (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            'key text COLLATE "C" NOT NULL UNIQUE, node text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL, '
            'at_ms bigint NOT NULL, decision_id text COLLATE "C" NOT NULL, doc bytea NOT NULL)',
            "CREATE INDEX decisions_by_id ON decisions (decision_id)",
            'CREATE TABLE decision_words (word text COLLATE "C" NOT NULL, number bigint NOT NULL, '
            "PRIMARY KEY (word, number))",
        ),
    ),
    Migration(
        "0003_acting",
        (
            'CREATE TABLE acting (region text COLLATE "C" PRIMARY KEY, fence bigint NOT NULL, holder text NOT NULL, '
            "lease_until timestamptz NOT NULL)",
            _FENCE,
        ),
    ),
)


class PostgresStore:
    """The rooms and archives of a hub in a PostgreSQL database of their own."""

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        """Connects, waiting `patience_s` seconds for a database that does not answer yet, and brings it up to this
        release. Raises StoreUnknown, StoreUnreadable or StoreAway.
        """
        self._url = url
        self._lock = threading.Lock()
        self._writer = connect_soon(url, COMMIT_S, patience_s, _COMMITS)
        try:
            self._bring_up()
        except BaseException:
            self._writer.close()
            raise
        self._readers = Readers(url, READERS, READ_S, _SESSION)
        self._lease: Bounded | None = None
        self._region: str | None = None
        self._fence: int | None = None

    # Acting.

    def act(self, region: str, holder: str) -> bool:
        """Become the one hub that acts for the region; `holder` says in words who we are. False while another does.

        It is taken over when its lease has run out; sooner when its session with the database has ended and it has been
        silent for a second, as after a SIGKILL.
        """
        if self._fence is not None:
            return self.renew()
        region = _plain(region)
        taken = self._on_lease(lambda lease: _take_over(lease, region, _plain(holder)))
        if taken is None:
            return False
        self._region, self._fence = region, taken
        return True

    def renew(self) -> bool:
        """Go on acting for another LEASE_S; False when another hub acts now. Raises StoreAway, within three seconds."""
        if self._fence is None:
            return False
        region, fence = str(self._region), self._fence
        return self._on_lease(lambda lease: _prolong(lease, region, fence))

    def acting(self, region: str) -> str:
        """Who acts for the region, as they called themselves, or acted last; "" when nobody ever did."""
        rows = self._readers.read("SELECT holder FROM acting WHERE region = %s", (_plain(region),))
        return _clear(rows[0][0]) if rows else ""

    def _on_lease(self, work: Callable[[Bounded], T]) -> T:
        """On a connection of its own, so that no commit makes a renewal late; again on a fresh one when it broke."""
        deadline = time.monotonic() + LEASE_AGAIN_S
        while True:
            try:
                if self._lease is None:
                    # Two seconds are the least that libpq counts in.
                    self._lease = connect(self._url, LEASE_ANSWER_S, _LEASE, connect_s=2)
                return work(self._lease)
            except StoreAway:
                raise
            except psycopg.Error as wrong:
                if self._lease is not None:
                    self._lease.close()
                self._lease = None
                if time.monotonic() > deadline or not isinstance(wrong, psycopg.OperationalError):
                    raise StoreAway(f"store {shown_url(self._url)} is away: {told(wrong)}") from None

    # Rows.

    def saved(self) -> Saved:
        """Every room, for a core to recover from."""

        def rooms(_: Bounded) -> Saved:
            # A connection of its own: a large store is read for longer than people's questions may take.
            with closing(_snapshot(self._url)) as connection:
                return {room: {_clear(key): doc for key, doc in _by_and_by(connection, _all(room))} for room in ROOMS}

        return self._readers.ask(rooms)

    def commit(self, rows: Sequence[Row]) -> None:
        """Keep all the rows or none, on disk. Raises Fenced when another hub acts, psycopg.Error when the database does
        not take them: then nobody knows whether it has, and the process must end.
        """
        touched = {_table(row.room) for row in rows if row.room != SWEEP}
        has_sweep = any(row.room == SWEEP for row in rows)
        with self._lock:
            try:
                _commit(self._writer, rows, self._region, self._fence)
            except psycopg.Error as wrong:
                _give_up(self._writer)
                if wrong.sqlstate == OVERTAKEN:
                    raise Fenced(f"{Fenced.__doc__} {wrong.diag.message_primary}: nothing was written") from None
                raise
            except BaseException:
                _give_up(self._writer)
                raise
        if has_sweep:
            touched |= {_table(room) for room in SWEPT}
            threading.Thread(target=self._clean, args=(sorted(touched),), name="vacuum", daemon=True).start()

    def documents(self, room: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """Everything in a room or archive whose key begins so, by key."""
        query = f"SELECT key, doc FROM {_table(room)} WHERE key >= %s AND key < %s ORDER BY key"
        start = _plain(prefix)
        return [(_clear(key), doc) for key, doc in self._readers.read(query, (start, start + _BEYOND))]

    def document(self, room: str, key: str) -> bytes | None:
        """One document; None when there is none."""
        rows = self._readers.read(f"SELECT doc FROM {_table(room)} WHERE key = %s", (_plain(key),))
        return rows[0][0] if rows else None

    def decisions(self, asked: DecisionsAsked) -> list[DecisionRow]:
        """Decisions in the order of their commits."""
        tests, values = ["number > %s"], list[Any]([asked.after])
        for column, wanted in (("node", asked.agent), ("kind", asked.kind)):
            if wanted is not None:
                tests.append(f"{column} = %s")
                values.append(_plain(wanted))
        if asked.about is not None:
            tests.append("(number IN (SELECT number FROM decision_words WHERE word = %s) OR decision_id = %s)")
            values += [_plain(asked.about), _plain(asked.about)]
        order = "DESC" if asked.newest_first else "ASC"
        query = f"SELECT number, doc FROM decisions WHERE {' AND '.join(tests)} ORDER BY number {order} LIMIT %s"
        return [DecisionRow(number, doc) for number, doc in self._readers.read(query, (*values, asked.most))]

    def decision(self, decision_id: str) -> DecisionRow | None:
        """One decision; None when it is unknown."""
        query = "SELECT number, doc FROM decisions WHERE decision_id = %s ORDER BY number LIMIT 1"
        rows = self._readers.read(query, (_plain(decision_id),))
        return DecisionRow(*rows[0]) if rows else None

    def chained(self) -> Iterable[bytes]:
        """Every decision that is kept, in the order of their commits; read as it is asked for."""
        after = 0
        while rows := self._readers.read(_NEXT_DECISIONS, (after, READ_AT_ONCE)):
            yield from (doc for _, doc in rows)
            after = rows[-1][0]

    def dump(self) -> Iterator[Row]:
        """Every row of rooms and archives as they are at one instant, decisions in order; a hub may work on."""
        connection = _snapshot(self._url)
        try:
            for room in (*ROOMS, *ARCHIVES):
                for key, doc in _by_and_by(connection, _all(room)):
                    yield Row(room, _clear(key), doc)
        finally:
            connection.close()

    def close(self) -> None:
        """Let go of acting for the region, at once, and of the database."""
        if self._fence is not None and self._lease is not None:
            with suppress(psycopg.Error):
                self._lease.execute(
                    "UPDATE acting SET lease_until = '-infinity' WHERE region = %s AND fence = %s",
                    (self._region, self._fence),
                )
        for connection in (self._lease, self._writer):
            if connection is not None:
                connection.close()
        self._readers.close()

    def _bring_up(self) -> None:
        try:
            migrate(self._writer, "hub", MIGRATIONS)
        except psycopg.Error as wrong:
            mend = "give its user the right to create tables there, or a database of its own"
            raise StoreUnreadable(
                f"store {shown_url(self._url)} cannot be brought up to this release: "
                f"{wrong.diag.message_primary or told(wrong)}: {mend}"
            ) from None
        if self._writer.execute("SHOW fsync").fetchone() == ("off",):
            log(
                "store_unsafe", found="fsync = off", then="a power cut loses commits: set fsync = on in postgresql.conf"
            )

    def _clean(self, tables: Sequence[str]) -> None:
        """Dead versions of rows go now and not when enough of them have gathered, which in a small room is never."""
        try:
            connection = connect(self._url, 600.0)
            try:
                for table in tables:
                    connection.execute(f"VACUUM {table}".encode())
            finally:
                connection.close()
        except (psycopg.Error, StoreAway, StoreUnreadable) as wrong:
            log("vacuum_failed", why=told(wrong), then="what was erased is dead, and cleaned when the database does so")


def read_chains(url: str) -> tuple[Iterator[bytes], dict[str, Chain]]:
    """Every kept decision of a store, in order, and how far each chain was followed, both at one instant; nothing is
    written, whether a hub works on it or not. Raises StoreUnknown, StoreUnreadable or StoreAway.
    """
    connection = _snapshot(url)
    try:
        chains = connection.execute("SELECT key, doc FROM room_chains").fetchall()
    except psycopg.Error as wrong:
        connection.close()
        raise StoreUnreadable(
            f"store {shown_url(url)} cannot be read: {wrong.diag.message_primary}; expected a hub's store"
        ) from None

    def kept() -> Iterator[bytes]:
        try:
            yield from (doc for _, doc in _by_and_by(connection, _all("decisions")))
        finally:
            connection.close()

    return kept(), {_clear(key): msgspec.json.decode(doc, type=Chain) for key, doc in chains}


# Who acts.


def _take_over(lease: Bounded, region: str, holder: str) -> int | None:
    """The fence of a new holder; None while another acts."""
    fence = _taken_over(lease, region, holder)
    if fence is None:
        lease.execute("SELECT pg_advisory_unlock_all()")
    return fence


def _taken_over(lease: Bounded, region: str, holder: str) -> int | None:
    strange = lease.execute("SELECT region FROM acting WHERE region NOT IN (%s, '')", (region,)).fetchone()
    if strange is not None and region:
        raise StoreUnreadable(
            f"the store is of region '{_clear(strange[0])}', expected '{region}' as the settings say: give each region "
            "a database of its own"
        )
    if region and lease.execute("SELECT 1 FROM room_restores").fetchone() is not None:
        raise StoreUnreadable(f"the store {HALF_RESTORED}")
    lease.execute(
        "INSERT INTO acting (region, fence, holder, lease_until) VALUES (%s, 0, '', '-infinity') "
        "ON CONFLICT (region) DO NOTHING",
        (region,),
    )
    hint = _hint(region)
    if not _is_free(lease, region, hint, ""):
        return None
    try:
        with lease.transaction():
            lease.execute("SELECT pg_advisory_xact_lock(%s)", (_hint(""),))
            # Waits for a commit under way, which holds this row, and lets none begin until we have it.
            if not _is_free(lease, region, hint, "FOR UPDATE") or _is_another_at_work(lease, region):
                return None
            row = lease.execute(
                "UPDATE acting SET fence = fence + 1, holder = %s, "
                "lease_until = clock_timestamp() + make_interval(secs => %s) WHERE region = %s RETURNING fence",
                (holder, LEASE_S, region),
            ).fetchone()
    except psycopg.errors.LockNotAvailable:
        return None
    assert row is not None, "the row was locked"
    return int(row[0])


def _is_another_at_work(lease: Bounded, region: str) -> bool:
    """Whether a restore is under way, or a hub acts when we are one."""
    query = "SELECT 1 FROM acting WHERE region <> %s AND lease_until >= clock_timestamp()"
    return lease.execute(query, (region,)).fetchone() is not None


def _is_free(lease: Bounded, region: str, hint: int, lock: str) -> bool:
    """Whether nobody acts: the lease has run out, or its holder is silent and its session has ended."""
    row = lease.execute(
        "SELECT lease_until < clock_timestamp(), "
        f"lease_until < clock_timestamp() + make_interval(secs => %s) FROM acting WHERE region = %s {lock}".encode(),
        (LEASE_S - SILENT_AFTER_S, region),
    ).fetchone()
    assert row is not None, "the row was made before"
    has_run_out, is_silent = row
    is_ours = lease.execute("SELECT pg_try_advisory_lock(%s)", (hint,)).fetchone() == (True,) if is_silent else False
    return bool(has_run_out or is_ours)


def _prolong(lease: Bounded, region: str, fence: int) -> bool:
    done = lease.execute(
        "UPDATE acting SET lease_until = clock_timestamp() + make_interval(secs => %s) "
        "WHERE region = %s AND fence = %s RETURNING pg_try_advisory_lock(%s)",
        (LEASE_S, region, fence, _hint(region)),
    )
    return done.fetchone() is not None


def _hint(region: str) -> int:
    """The advisory lock whose session shows that the holder lives: its number is the region's."""
    return int.from_bytes(hashlib.blake2b(f"acting {region}".encode(), digest_size=8).digest(), "big", signed=True)


# Commits.


def _commit(writer: Bounded, rows: Sequence[Row], region: str | None, fence: int | None) -> None:
    # What is swept must be read first, and a pipeline answers at its end alone.
    with nullcontext() if any(row.room == SWEEP for row in rows) else writer.pipeline():
        writer.execute("BEGIN")
        writer.execute("SELECT waywarden_fence(%s, %s)", (region, fence))
        waiting: list[Row] = []
        for row in rows:
            if row.room == SWEEP:
                _write(writer, waiting)
                waiting = []
                assert row.value is not None, "a sweep says what to erase"
                _sweep(writer, msgspec.json.decode(row.value, type=Traces))
            else:
                waiting.append(row)
        _write(writer, waiting)
        writer.execute("COMMIT")


def _give_up(writer: Bounded) -> None:
    """Leave a transaction that failed; the connection goes on when it can."""
    if not writer.closed and writer.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        with suppress(psycopg.Error):
            writer.execute("ROLLBACK")


def _write(writer: Bounded, rows: Iterable[Row]) -> None:
    """Room by room; of one key the last word counts, as it would one after the other."""
    by_room: dict[str, dict[str, bytes | None]] = {}
    for row in rows:
        if row.room == "decisions":
            _write_decision(writer, row)
        else:
            by_room.setdefault(_table(row.room), {})[_plain(row.key)] = row.value
    for table, documents in by_room.items():
        kept = {key: doc for key, doc in documents.items() if doc is not None}
        gone = [key for key, doc in documents.items() if doc is None]
        if kept:
            writer.execute(
                f"INSERT INTO {table} (key, doc) SELECT * FROM unnest(%b::text[], %b::bytea[]) "
                "ON CONFLICT (key) DO UPDATE SET doc = excluded.doc".encode(),
                (list(kept), list(kept.values())),
            )
        if gone:
            writer.execute(f"DELETE FROM {table} WHERE key = ANY(%b::text[])".encode(), (gone,))


def _write_decision(writer: Bounded, row: Row) -> None:
    assert row.value is not None, "a decision is never forgotten"
    kept = _kept.decode(row.value)
    decision = _decision.decode(kept.decision)
    columns = map(_plain, (row.key, kept.node, decision.kind, decision.decision_id))
    words = [_plain(word) for word in dict.fromkeys(decision_words(decision))]
    writer.execute(
        "WITH made AS (INSERT INTO decisions (key, node, kind, decision_id, at_ms, doc) "
        "VALUES (%s, %s, %s, %s, %s, %b) RETURNING number) "
        "INSERT INTO decision_words (word, number) SELECT word, number FROM unnest(%b::text[]) AS word, made",
        (*columns, decision.at_ms, row.value, words),
    )


def _sweep(writer: Bounded, traces: Traces) -> None:
    for room in SWEPT:
        # Of a picture the first bytes say whose it is.
        doc = f"substring(doc FROM 1 FOR {HEAD_BYTES})" if room == "objects" else "doc"
        found = _by_and_by(writer, f"SELECT key, {doc} FROM {_table(room)}")
        _write(writer, list(sweep(room, ((_clear(key), head) for key, head in found), traces)))


# Reading.


def _snapshot(url: str) -> Bounded:
    """A connection that sees the store as it is now, however long it reads."""
    connection = connect(url, 600.0, "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    return connection


def _by_and_by(connection: Bounded, query: str) -> Iterator[tuple[str, bytes]]:
    """The rows of a query, a few hundred at a time."""
    with connection.cursor("rows") as cursor:
        cursor.itersize = READ_AT_ONCE
        yield from cursor.execute(query.encode())


def _all(room: str) -> str:
    return f"SELECT key, doc FROM {_table(room)} ORDER BY {'number' if room == 'decisions' else 'key'}"


def _table(room: str) -> str:
    if room not in ROOMS and room not in ARCHIVES:
        raise KeyError(f"no room '{room}' in the hub's store")
    return "decisions" if room == "decisions" else f"room_{room}"


def _plain(text: str) -> str:
    """The text as PostgreSQL takes it, which has no NUL: that is written as two marks, and so is the mark. The order of
    texts and how they begin stay the same.
    """
    return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01") if "\x00" in text or "\x01" in text else text


def _clear(text: str) -> str:
    """What `_plain` was given."""
    return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01") if "\x01" in text else text
