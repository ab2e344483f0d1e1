"""The tables of raw readings in PostgreSQL: one wide table for each layout of channels, its days and its sums.

A layout is a tuple of channels as an agent names them; its table `readings_<n>` has a column for each, and is made when
the first batch of that layout comes. What comes after the last layout there is room for goes into the narrow table
`readings`, a row for each value. With TimescaleDB the tables are hypertables and the sums by minute and hour continuous
aggregates; without it the tables have a partition for each day, and the sums are rows that every commit adds to.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from cloud_hub.storage.packing import POSITIONS, SUMMED
from cloud_hub.storage.pg_migrations import Migration
from shared.logs import log

MOST_LAYOUTS = 32
"""Tables are made at the word of agents: so many, and no more."""

LAYOUTS_OF_ONE = 8
"""Layouts of one agent; what it says in more goes into the narrow table, or one agent could use up all there are."""

MOST_CHANNELS = 100
"""Columns of a wide table, four sums for each: far below PostgreSQL's limit of 1,600."""

MOST_DAYS = 1_500
"""Partitions of one table: four years of days. Other days share the default partition."""

OLDEST_TIMESCALE = (2, 13)
"""The first release with `by_range`; older ones are left alone."""

COLUMNS_SINCE = (2, 18, 1)
"""Before it the columnstore took NaN for a number (timescaledb issue 6884); ours says that a sample lacks a channel."""

NARROW = 0
"""The layout whose table is `readings`."""

FIRST_SUMMED = 3
"""Channels of the narrow table below this number are positions, which are not summed."""

LOCK = 0x7761_7977_6172_6465 + 1
"""The advisory lock of whoever makes tables and partitions."""

LEDGER_LOCK = LOCK + 1
"""The advisory lock between those who commit, who share it, and whoever folds up the ledger."""

DAY_S = 86_400

Connection = psycopg.Connection[Any]

SCHEMA = (
    Migration(
        "0001_readings",
        (
            "CREATE TABLE telemetry_agents (id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            "name text NOT NULL UNIQUE)",
            # A life of an agent's store, and what of its ledger has been folded up: everything to `upto`.
            "CREATE TABLE telemetry_lives (id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, agent int4 NOT NULL, "
            "boot text NOT NULL, upto int8 NOT NULL DEFAULT 0, messages int8 NOT NULL DEFAULT 0, "
            "samples int8 NOT NULL DEFAULT 0, thinned int8 NOT NULL DEFAULT 0, UNIQUE (agent, boot))",
            "CREATE TABLE telemetry_ledger (life int4 NOT NULL, seq int8 NOT NULL, samples int4 NOT NULL, "
            "thinned int8 NOT NULL, PRIMARY KEY (life, seq))",
            "CREATE TABLE telemetry_channels (id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            "name text NOT NULL UNIQUE)",
            "INSERT INTO telemetry_channels (name) VALUES ('lat'), ('lon')",
            "CREATE TABLE telemetry_layouts (id int4 PRIMARY KEY, channels text[] NOT NULL UNIQUE, "
            "columns text[] NOT NULL, is_hyper bool NOT NULL, has_views bool NOT NULL, "
            "blurred_to timestamptz NOT NULL DEFAULT '-infinity', folded_to timestamptz NOT NULL DEFAULT '-infinity', "
            "policies text NOT NULL DEFAULT '')",
            # Which layouts an agent has ever spoken in: where to look for its readings.
            "CREATE TABLE telemetry_places (agent int4 NOT NULL, layout int4 NOT NULL, PRIMARY KEY (agent, layout))",
            # What was taken though nobody can read it.
            "CREATE TABLE telemetry_letters (life int4 NOT NULL, seq int8 NOT NULL, at_ms int8 NOT NULL, "
            "why text NOT NULL, payload bytea NOT NULL, PRIMARY KEY (life, seq))",
        ),
    ),
)


class Layout(NamedTuple):
    """A table of readings: its number, its channels with their columns, and how it is kept."""

    number: int
    channels: tuple[str, ...]
    columns: tuple[str, ...]
    is_hyper: bool
    has_views: bool
    """Whether its sums are TimescaleDB's continuous aggregates; else every commit adds rows to them."""

    @property
    def table(self) -> str:
        """The table of its readings."""
        return f"readings_{self.number}" if self.number else "readings"

    @property
    def by_minute(self) -> str:
        """The table or view of its sums by the minute."""
        return f"{self.table}_1min"

    @property
    def by_hour(self) -> str:
        """The table or view of its sums by the hour."""
        return f"{self.table}_1h"

    @property
    def summed(self) -> tuple[tuple[int, str], ...]:
        """Place and column of each channel that is summed; of the narrow table its one value."""
        if not self.number:
            return ((0, "value"),)
        return tuple((k, self.columns[k]) for k, channel in enumerate(self.channels) if channel not in POSITIONS)


class Features(NamedTuple):
    """What TimescaleDB offers here: its version, () when it is absent, and whether its community features are on."""

    version: tuple[int, ...]
    has_community: bool


def say(statement: str, **named: sql.Composable) -> sql.Composed:
    """A statement with its {names} filled in."""
    return sql.SQL(statement).format(**named)


def plain_text(name: str) -> str:
    """A name as PostgreSQL's text takes it: without NUL."""
    return name.replace("\0", "\ufffd")


def column_names(channels: Sequence[str]) -> tuple[str, ...]:
    """A column for each channel: its own name where that is a plain word, else "c" and its place."""
    return tuple(name if _is_plain(name) else f"c{k}" for k, name in enumerate(channels))


_PLAIN = re.compile(r"[a-z][a-z0-9_]{1,39}")
_TAKEN = re.compile(
    r"at|agent|begins|channel|value|c\d+|ctid|xmin|xmax|cmin|cmax|tableoid|.*_(n|sum|least|most)", re.DOTALL
)


def _is_plain(name: str) -> bool:
    return _PLAIN.fullmatch(name) is not None and _TAKEN.fullmatch(name) is None


# Making tables.


def layouts(connection: Connection) -> list[Layout]:
    """Every layout there is, by number; the narrow one first."""
    rows = connection.execute(
        "SELECT id, channels, columns, is_hyper, has_views FROM telemetry_layouts ORDER BY id"
    ).fetchall()
    return [Layout(number, tuple(channels), tuple(columns), *how) for number, channels, columns, *how in rows]


def may_make_another(connection: Connection, agents: Sequence[int]) -> bool:
    """Whether any of these agents, by their numbers, speaks in fewer layouts than one may have tables made for."""
    row = connection.execute(
        "SELECT count(*) FROM unnest(%s::int4[]) AS said (agent) WHERE "
        "(SELECT count(*) FROM telemetry_places p WHERE p.agent = said.agent AND p.layout > 0) < %s",
        (list(agents), LAYOUTS_OF_ONE),
    ).fetchone()
    return row is not None and row[0] > 0


def layout_for(
    connection: Connection, channels: tuple[str, ...], features: Features, may_make: bool = True
) -> Layout | None:
    """The layout of these channels, made when it is new; None when there is no room for another, or none may be made.
    No channels are the narrow layout, which must be asked for first. Takes a transaction of its own.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        known = {layout.channels: layout for layout in layouts(connection)}
        if channels in known:
            return known[channels]
        if not may_make or len(known) > MOST_LAYOUTS or len(channels) > MOST_CHANNELS:
            return None
        made = _made(connection, Layout(len(known), channels, column_names(channels), True, True), features)
        connection.execute(
            "INSERT INTO telemetry_layouts (id, channels, columns, is_hyper, has_views) VALUES (%s, %s, %s, %s, %s)",
            (made.number, list(made.channels), list(made.columns), made.is_hyper, made.has_views),
        )
        return made


def _made(connection: Connection, wanted: Layout, features: Features) -> Layout:
    """The layout with its tables, as much of TimescaleDB in them as this database takes."""
    ways = [wanted._replace(is_hyper=False, has_views=False)]
    if features.version:
        ways.insert(0, wanted._replace(has_views=False))
    if features.version and features.has_community:
        ways.insert(0, wanted)
    for way in ways[:-1]:
        try:
            with connection.transaction():
                _make(connection, way, features)
                return way
        except psycopg.Error as wrong:
            if not is_refusal(wrong):
                raise
            log("timescaledb_refused", table=way.table, error=reason(wrong), then="made with less of it")
    _make(connection, ways[-1], features)
    return ways[-1]


def is_refusal(wrong: psycopg.Error) -> bool:
    """Whether the database will not do this, now or later; else the link broke, or somebody was in the way."""
    state = wrong.sqlstate
    if state in ("53400", "55000"):  # TimescaleDB's own limits, and what it calls an object in the wrong state.
        return True
    return state is not None and state[:2] not in ("08", "40", "53", "55", "57", "58")


def reason(wrong: psycopg.Error) -> str:
    """What the database says of a statement of ours about tables and jobs, where nobody's data can stand."""
    return f"{wrong.diag.message_primary or type(wrong).__name__} ({wrong.sqlstate})"


def _make(connection: Connection, layout: Layout, features: Features) -> None:
    for statement in statements(layout, features):
        connection.execute(statement)


def statements(layout: Layout, features: Features) -> list[sql.Composed]:
    """What makes the tables of a layout, each safe to run alone, in order."""
    table = sql.Identifier(layout.table)
    columns = sql.SQL(", ").join(_columns(layout))
    split = sql.SQL("" if layout.is_hyper else " PARTITION BY RANGE (at)")
    made = [say("CREATE TABLE {table} (at timestamptz NOT NULL, agent int4 NOT NULL, {columns}){split}",
                table=table, columns=columns, split=split)]  # fmt: skip
    if layout.is_hyper:
        made.append(
            say(
                "SELECT create_hypertable({name}, by_range('at', INTERVAL '1 day'), create_default_indexes => false)",
                name=sql.Literal(layout.table),
            )
        )
    else:
        made.append(
            say("CREATE TABLE {rest} PARTITION OF {table} DEFAULT", table=table,
                rest=sql.Identifier(f"{layout.table}_other"))
        )  # fmt: skip
    # Measured (decision 0012): a b-tree on the time alone doubles what a row costs, a block range index adds a tenth.
    # Only a wide row, with many values to share it, pays for the tree that finds one agent's hour at once.
    made.append(
        say("CREATE INDEX ON {table} (agent, at)", table=table)
        if layout.number
        else say("CREATE INDEX ON {table} USING brin (at) WITH (pages_per_range = 32)", table=table)
    )
    made += _columnstore(layout, features) if layout.has_views else []
    if not layout.summed:
        return made
    return made + (_views(layout) if layout.has_views else _sums(layout))


def _columns(layout: Layout) -> list[sql.Composed]:
    if not layout.number:
        return [say("channel int4 NOT NULL, value float8 NOT NULL")]
    kinds = ("float8" if channel in POSITIONS else "float4" for channel in layout.channels)
    return [
        say("{name} " + kind + " NOT NULL", name=sql.Identifier(column))
        for column, kind in zip(layout.columns, kinds, strict=True)
    ]


def _columnstore(layout: Layout, features: Features) -> list[sql.Composed]:
    """TimescaleDB documentation: ALTER TABLE (hypercore)."""
    if features.version < COLUMNS_SINCE:
        return []
    by = sql.Literal("agent" if layout.number else "agent, channel")
    return [
        say("ALTER TABLE {table} SET (timescaledb.enable_columnstore = true, timescaledb.segmentby = {by}, "
            "timescaledb.orderby = 'at')", table=sql.Identifier(layout.table), by=by)
    ]  # fmt: skip


def _keys(layout: Layout) -> str:
    return "agent" if layout.number else "agent, channel"


def _views(layout: Layout) -> list[sql.Composed]:
    """Continuous aggregates over the readings, what came last included (TimescaleDB documentation: CREATE MATERIALIZED
    VIEW (continuous aggregate)).
    """
    made = []
    for view, bucket in ((layout.by_minute, "1 minute"), (layout.by_hour, "1 hour")):
        aggregates = sql.SQL(", ").join(_aggregates(layout))
        made.append(
            say(
                "CREATE MATERIALIZED VIEW {view} WITH (timescaledb.continuous, timescaledb.materialized_only = false) "
                "AS SELECT time_bucket(INTERVAL {bucket}, at) AS begins, " + _keys(layout) + ", {aggregates} "
                "FROM {table}" + ("" if layout.number else f" WHERE channel >= {FIRST_SUMMED}") + " GROUP BY "
                + ("1, 2" if layout.number else "1, 2, 3") + " WITH NO DATA",
                view=sql.Identifier(view), bucket=sql.Literal(bucket), aggregates=aggregates,
                table=sql.Identifier(layout.table),
            )
        )  # fmt: skip
    return made


def _aggregates(layout: Layout) -> list[sql.Composed]:
    """A NaN is a sample that lacks this channel."""
    return [
        say(
            "count(*) FILTER (WHERE {column} <> 'NaN') AS {n}, "
            "sum({column}::float8) FILTER (WHERE {column} <> 'NaN') AS {sum}, "
            "min({column}) FILTER (WHERE {column} <> 'NaN') AS {least}, "
            "max({column}) FILTER (WHERE {column} <> 'NaN') AS {most}",
            column=sql.Identifier(column), **sum_columns(column),
        )
        for _, column in layout.summed
    ]  # fmt: skip


def sum_columns(column: str) -> dict[str, sql.Identifier]:
    """The columns in which a channel's sums are kept: n, sum, least, most."""
    return {kind: sql.Identifier(f"{column}_{kind}") for kind, _ in SUMMED}


def _sums(layout: Layout) -> list[sql.Composed]:
    """Tables of sums that every commit adds to: several rows of one bucket are added up when they are read."""
    value = "float4" if layout.number else "float8"
    kinds = {"n": "int4", "sum": "float8", "least": value, "most": value}
    columns = [
        say("{name} " + kinds[kind] + " NOT NULL", name=name)
        for _, column in layout.summed
        for kind, name in sum_columns(column).items()
    ]
    keys = say("agent int4 NOT NULL" + ("" if layout.number else ", channel int4 NOT NULL"))
    made = []
    for table in (layout.by_minute, layout.by_hour):
        named = sql.Identifier(table)
        made += [
            say("CREATE TABLE {table} (begins timestamptz NOT NULL, {keys}, {columns})", table=named, keys=keys,
                columns=sql.SQL(", ").join(columns)),
            say("CREATE INDEX ON {table} (" + _keys(layout) + ", begins)", table=named),
            say("CREATE INDEX ON {table} USING brin (begins)", table=named),
        ]  # fmt: skip
    return made


# Days.


def make_days(connection: Connection, layout: Layout, days: Iterable[int]) -> set[int]:
    """The days (since 1970) of a partitioned table that have a partition of their own, once those wanted that are few
    enough have been made; rows of such a day that lie in the default partition move there. One transaction each.
    """
    there = days_of(connection, layout)
    for day in sorted(set(days) - there):
        if len(there) >= MOST_DAYS:
            break
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            there = days_of(connection, layout)
            if day not in there:
                _make_day(connection, layout, day)
                there.add(day)
    return there


def days_of(connection: Connection, layout: Layout) -> set[int]:
    """The days (since 1970) that have a partition of their own."""
    rows = connection.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = %s::regclass",
        (layout.table,),
    ).fetchall()
    begin = f"{layout.table}_d"
    return {int(name.removeprefix(begin)) for (name,) in rows if name.startswith(begin)}


def day_table(layout: Layout, day: int) -> sql.Identifier:
    """The partition of a day."""
    return sql.Identifier(f"{layout.table}_d{day}")


def instant(epoch_s: float) -> sql.Composed:
    """An instant in SQL; its rounding is below a microsecond for the next two centuries."""
    return say("to_timestamp({s}::float8)", s=sql.Literal(epoch_s))


def _make_day(connection: Connection, layout: Layout, day: int) -> None:
    # Attached rather than made in place: that locks the table against nobody who reads or writes it.
    named = {
        "table": sql.Identifier(layout.table), "other": sql.Identifier(f"{layout.table}_other"),
        "day": day_table(layout, day), "begin": instant(day * DAY_S), "end": instant((day + 1) * DAY_S),
    }  # fmt: skip
    connection.execute(say("CREATE TABLE {day} (LIKE {table})", **named))
    connection.execute(
        say("WITH gone AS (DELETE FROM {other} WHERE at >= {begin} AND at < {end} RETURNING *) "
            "INSERT INTO {day} SELECT * FROM gone", **named)
    )  # fmt: skip
    connection.execute(say("ALTER TABLE {table} ATTACH PARTITION {day} FOR VALUES FROM ({begin}) TO ({end})", **named))


# TimescaleDB.


def features_of(connection: Connection, install: Callable[[], None] | None = None) -> tuple[Features, list[str]]:
    """What TimescaleDB offers here, and what is to be said of what it does not. `install` tries to create the extension
    where the server has it, on a connection that may die of it; the one given here may then lack its library.
    """
    plain = Features((), False)
    found = _extension(connection)
    if found is None and not _is_available(connection):
        return plain, [_ABSENT]
    if found is None and install is not None:
        install()
        found = _extension(connection)
    if found is None:
        return plain, [_NOT_INSTALLED]
    version, schema = found
    name = ".".join(map(str, version))
    if version < OLDEST_TIMESCALE:
        return plain, [
            f"TimescaleDB {name} is older than {'.'.join(map(str, OLDEST_TIMESCALE))}: readings are kept in plain "
            "PostgreSQL, without columnstore and continuous aggregates. To mend it: ALTER EXTENSION timescaledb UPDATE."
        ]
    if schema != "public":
        return plain, [
            f"TimescaleDB {name} lies in the schema {schema}, expected public: readings are kept in plain PostgreSQL, "
            "without columnstore and continuous aggregates. To mend it: a database with CREATE EXTENSION timescaledb "
            "SCHEMA public."
        ]
    # Defined by the library: there is none where the server did not preload it.
    row = connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    if row is None or not row[0]:
        return plain, [_NOT_INSTALLED]
    if row[0] == "apache":
        return Features(version, False), [
            "This TimescaleDB is built or set for the Apache licence alone (timescaledb.license = 'apache'): it has no "
            "columnstore, continuous aggregates and retention jobs. The hub keeps the sums and erases by itself; "
            "readings take several times the room."
        ]
    if version < COLUMNS_SINCE:
        return Features(version, True), [
            f"TimescaleDB {name} is older than {'.'.join(map(str, COLUMNS_SINCE))}, before which its columnstore took "
            "NaN for a number: readings stay in rows and take several times the room. To mend it: ALTER EXTENSION "
            "timescaledb UPDATE; tables made from then on have columns."
        ]
    return Features(version, True), []


_NOT_INSTALLED = (
    "TimescaleDB lies on this server but is not in this database: readings are kept in plain PostgreSQL, without "
    "columnstore and continuous aggregates. To mend it, set shared_preload_libraries = 'timescaledb', restart "
    "PostgreSQL, and run CREATE EXTENSION timescaledb as its administrator before the first readings come."
)
_ABSENT = (
    "This PostgreSQL has no TimescaleDB: readings are kept in a partition for each day and their sums beside them; "
    "there is no columnstore, so they take several times the room. Nothing else is missing."
)


def _extension(connection: Connection) -> tuple[tuple[int, ...], str] | None:
    """Version and schema."""
    row = connection.execute(
        "SELECT e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
        "WHERE e.extname = 'timescaledb'"
    ).fetchone()
    return None if row is None else (tuple(int(part) for part in re.findall(r"\d+", row[0])[:3]), str(row[1]))


def _is_available(connection: Connection) -> bool:
    found = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'").fetchone()
    return found is not None


def made_before(found: Sequence[Layout], features: Features) -> list[str]:
    """What is to be said of tables that have less of the extension than this database offers."""
    said = []
    plain = [layout.table for layout in found if bool(features.version) and not layout.is_hyper]
    if plain:
        said.append(
            f"{', '.join(plain)}: made before TimescaleDB was installed, or refused by it (then the log says "
            "timescaledb_refused), and kept as plain tables. To move them: `waywarden backup`, an empty database with "
            "the extension, `waywarden restore`."
        )
    half = [layout.table for layout in found if features.has_community and layout.is_hyper and not layout.has_views]
    if half:
        said.append(
            f"{', '.join(half)}: hypertables without columnstore and continuous aggregates, made under the Apache "
            "licence or refused (then the log says timescaledb_refused). To move them: `waywarden backup`, an empty "
            "database, `waywarden restore`."
        )
    lost = [layout.table for layout in found if layout.has_views and not features.has_community]
    if lost:
        said.append(
            f"{', '.join(lost)}: made with continuous aggregates, which this database does not offer any more: "
            "readings cannot be added to them. To mend it, set timescaledb.license = 'timescale', or restore a backup "
            "into an empty database."
        )
    return said
