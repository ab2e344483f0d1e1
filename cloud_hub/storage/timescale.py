"""Raw readings in PostgreSQL, with TimescaleDB or without: one store, made of what writes, reads, hears and keeps.

Tables are laid out in `telemetry_tables`. Whether TimescaleDB is there is found out when the store is opened, and what
is missing is said once, in `notices`; the reads are the same either way.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

import psycopg

from cloud_hub.storage import (
    PATIENCE_S,
    Closing,
    Kept,
    LedgerRow,
    Readings,
    ReadingsCame,
    Segment,
    StoreAway,
    StoreUnreadable,
    Summary,
    Taken,
    TelemetryLetter,
    shown_url,
    telemetry_keeping,
    telemetry_reading,
    telemetry_tables,
)
from cloud_hub.storage.pg_connections import Bounded, Readers, connect, connect_soon
from cloud_hub.storage.pg_migrations import migrate
from cloud_hub.storage.telemetry_changes import Listening
from cloud_hub.storage.telemetry_tables import SCHEMA, Connection, Features
from cloud_hub.storage.telemetry_writing import Writer
from shared.logs import log, told
from shared.work import AgentId

READERS = 6
READ_S = 20.0
COMMIT_S = 60.0
LISTEN_S = 5.0
DUMP_S = 600.0

_READS = f"SET statement_timeout = {int(READ_S * 1000)}; SET idle_in_transaction_session_timeout = 60000"
_COMMITS = (
    # What is acknowledged must be on disk: a database set to trade that away is overruled, a stricter one is not.
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'; "
    f"SET statement_timeout = {int(COMMIT_S * 1000)}; SET idle_in_transaction_session_timeout = 30000"
)
_DUMPS = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"

T = TypeVar("T")


class PostgresTelemetry:
    """The store of raw readings in a PostgreSQL database."""

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        """Waits for a database that does not answer yet, and brings it up to this release. Raises StoreUnknown,
        StoreUnreadable, and StoreAway when the patience is over.
        """
        self._url = url
        try:
            with connect_soon(url, COMMIT_S, patience_s, _COMMITS) as connection:
                telemetry_tables.features_of(connection, self._install)
            # Asked again on a new connection: one of before the extension came may lack its library.
            with self._open() as connection:
                self._features, self._notices = self._prepare(connection)
        except (psycopg.OperationalError, psycopg.InterfaceError) as away:
            raise StoreAway(f"store {shown_url(url)} broke off: {told(away)}") from None
        except psycopg.Error as wrong:
            raise StoreUnreadable(f"store {shown_url(url)} cannot be used: {told(wrong)}") from None
        for notice in self._notices:
            log("readings_store", notice=notice)
        self._readers = Readers(url, READERS, READ_S, _READS)
        self._writer = Writer(self._open, self._features)
        self._frozen: Bounded | None = None
        self._refused: list[str] = []

    def _prepare(self, connection: Connection) -> tuple[Features, list[str]]:
        migrate(connection, "telemetry", SCHEMA)
        features, notices = telemetry_tables.features_of(connection)
        telemetry_tables.layout_for(connection, (), features)
        return features, notices + telemetry_tables.made_before(telemetry_tables.layouts(connection), features)

    def _install(self) -> None:
        """On a connection of its own: a server that has not preloaded the extension ends the connection that asks."""
        try:
            with self._open() as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        except psycopg.Error as wrong:
            log("timescaledb_not_installed", error=telemetry_tables.reason(wrong))
        except StoreAway as wrong:
            log("timescaledb_not_installed", error=told(wrong))

    def _open(self) -> Bounded:
        return connect(self._url, COMMIT_S, _COMMITS)

    def commit(self, segments: Sequence[Segment]) -> list[bool]:
        """Keep each segment not known yet, with its ledger row, all in one transaction; which were new. Several
        processes may commit at once. One numbered 0 comes from a backup: it has no ledger row and is always new.

        Raises StoreAway when the database is out of reach: nothing is known then of what was kept, and saying it again
        is right.
        """
        return self._writer.commit(segments)

    def bury(self, letters: Sequence[TelemetryLetter]) -> None:
        """Keep what cannot be read, with a ledger row of no samples each. Raises StoreAway."""
        self._writer.bury(letters)

    def dead_letters(self, most: int = 100) -> list[TelemetryLetter]:
        """What was buried, the newest first."""
        return self._readers.ask(lambda connection: telemetry_reading.dead_letters(connection, most))

    def taken(self, sender: AgentId, boot: str) -> Taken:
        """What is stored of one life of a sender's stream."""
        return self._readers.ask(lambda connection: telemetry_reading.taken(connection, sender, boot))

    def read(self, agent: AgentId, channel: str, from_ms: int, to_ms: int, most: int = 100_000) -> Readings:
        """One channel between two instants, both included, by time; NaN readings are left out."""
        return self._readers.ask(
            lambda connection: telemetry_reading.read(connection, agent, channel, from_ms, to_ms, most)
        )

    def summed(
        self, agent: AgentId, channel: str, from_ms: int, to_ms: int, per: Literal["1min", "1h"], most: int = 100_000
    ) -> Summary:
        """One channel by the minute or the hour, the first `most` buckets that begin between two instants. Positions
        are not summed.
        """
        return self._readers.ask(
            lambda connection: telemetry_reading.summed(connection, agent, channel, from_ms, to_ms, per, most)
        )

    def latest(self, agent: AgentId) -> dict[str, tuple[int, float]]:
        """The newest value of every channel in the last quarter of an hour the agent measured anything in."""
        return self._readers.ask(lambda connection: telemetry_reading.latest(connection, agent))

    def changes(self, hear: Callable[[Sequence[ReadingsCame]], None]) -> Closing:
        """Have `hear` called, from a thread of its own, with what any process commits from now on; with an empty list
        when the database was away, for something may have been missed.
        """
        return Listening(lambda: connect(self._url, LISTEN_S, _READS), hear)

    def forget(self, before_ms: int, most: int, kind: Literal["raw", "1min", "1h"] = "raw") -> int:
        """Erase readings from before this instant, or their sums by the minute or hour: whole days, each counted as
        one, and at most `most` segments' worth of rows; 0 when nothing is left. Their ledger rows stay.
        """
        if kind == "raw":
            features = self._features
            return self._keep(lambda connection: telemetry_keeping.forget_raw(connection, before_ms, most, features))
        work = telemetry_keeping.forget_minutes if kind == "1min" else telemetry_keeping.forget_hours
        return self._keep(lambda connection: work(connection, before_ms, most))

    def blur(self, before_ms: int, most: int) -> int:
        """Coarsen positions from before this instant to a hundredth of a degree, hour by hour until `most`
        segments' worth were looked at; 0 when nothing is left.
        """
        return self._keep(lambda connection: telemetry_keeping.blur(connection, before_ms, most))

    def fold(self, now_ms: int, most: int) -> int:
        """Fold what came in pieces and is complete by now (ledger rows, sums by the minute); 0 when nothing is left."""
        return self._keep(lambda connection: telemetry_keeping.fold(connection, now_ms, most))

    def retain(self, kept: Kept) -> None:
        """Have TimescaleDB compress, refresh and drop by jobs of its own; without it this does nothing, for `forget`
        and `fold` do the same at the hub's word. Only where domain time is real time.
        """
        refused = self._keep(lambda connection: telemetry_keeping.retain(connection, self._features, kept))
        self._refused = refused

    def refresh(self) -> None:
        """Bring TimescaleDB's sums up to date now; elsewhere they always are."""
        self._keep(lambda connection: telemetry_keeping.refresh(connection, self._features))

    def failures(self) -> list[str]:
        """Background jobs of the database whose last run failed, each in a sentence."""
        return self._readers.ask(lambda connection: telemetry_keeping.failures(connection, self._features))

    def ledger(self) -> Iterator[LedgerRow]:
        """Every message that was ever taken, at one instant. A `dump` that follows is of the same instant."""
        self._thaw()
        self._frozen = connection = connect(self._url, DUMP_S, _DUMPS)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield from telemetry_reading.ledger(connection)

    def dump(self) -> Iterator[Segment]:
        """Every reading that is kept, at one instant: that of the `ledger` before it, if there was one."""
        connection, self._frozen = self._frozen, None
        if connection is None or connection.closed:
            connection = connect(self._url, DUMP_S, _DUMPS)
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield from telemetry_reading.dump(connection)
        finally:
            connection.close()

    def restore_ledger(self, rows: Sequence[LedgerRow]) -> None:
        """Note messages as taken whose readings are not kept any more."""
        self._writer.restore_ledger(rows)

    def _keep(self, work: Callable[[Connection], T]) -> T:
        """Upkeep has a connection of its own for as long as it takes, so that no commit waits for it."""
        try:
            with self._open() as connection:
                return work(connection)
        except (psycopg.OperationalError, psycopg.InterfaceError) as away:
            raise StoreAway(f"store {shown_url(self._url)} broke off: {told(away)}") from None

    def _thaw(self) -> None:
        if self._frozen is not None:
            self._frozen.close()
            self._frozen = None

    def totals(self) -> dict[str, int]:
        """Messages, samples and thinned samples taken so far."""
        return self._readers.ask(telemetry_reading.totals)

    def notices(self) -> list[str]:
        """What this database lacks and what follows from that, each in a sentence."""
        return [*self._notices, *self._refused]

    def close(self) -> None:
        """Let go of the database."""
        self._thaw()
        self._writer.close()
        self._readers.close()
