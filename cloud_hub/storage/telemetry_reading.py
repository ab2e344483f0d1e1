"""Read what PostgreSQL keeps of readings: a channel raw, by the minute or hour, and the newest of each.

Whatever comes in numbers comes as a binary COPY that numpy reads where it lies. An agent's readings are looked for in
the tables it has ever spoken in; whether a table is a hypertable, and its sums a view or rows, makes no difference.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from psycopg import sql

from cloud_hub.storage import LedgerRow, Readings, Segment, Summary, Taken, TelemetryLetter, packing
from cloud_hub.storage.packing import POSITIONS, epoch_ms, unpacked
from cloud_hub.storage.telemetry_tables import Connection, Layout, instant, plain_text, say, sum_columns
from shared.quantities import EpochMs
from shared.wire import TelemetryBatch, encode_telemetry
from shared.work import AgentId

NEWEST_MS = 900_000
"""A channel's newest value is looked for so far back from its agent's newest sample."""

FARTHEST_MS = 9_007_199_254_740_992
"""No agent's instant lies beyond (see `cloud_hub.telemetry`), and PostgreSQL's calendar goes further."""

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DUMPED_AT_ONCE = 2_000
"""Samples in a segment of a dump."""


class Place(NamedTuple):
    """Where one agent's readings of some channels lie: the table, the agent's number, and for each channel there its
    column, or in the narrow table its number.
    """

    layout: Layout
    agent: int
    columns: dict[str, str | int]


def places(connection: Connection, agent: str, channel: str | None = None) -> list[Place]:
    """Where to look for an agent's readings, of all channels or of one."""
    rows = connection.execute(
        "SELECT p.agent, l.id, l.channels, l.columns, l.is_hyper, l.has_views FROM telemetry_agents a "
        "JOIN telemetry_places p ON p.agent = a.id JOIN telemetry_layouts l ON l.id = p.layout "
        "WHERE a.name = %s ORDER BY l.id",
        (plain_text(agent),),
    ).fetchall()
    found = []
    for number, layout_id, channels, columns, *how in rows:
        layout = Layout(layout_id, tuple(channels), tuple(columns), *how)
        named: dict[str, str | int] = dict(zip(channels, columns, strict=True))
        if not layout_id:
            known = connection.execute("SELECT name, id FROM telemetry_channels ORDER BY id").fetchall()
            named = dict(known)
        wanted = named if channel is None else {k: v for k, v in named.items() if k == plain_text(channel)}
        if wanted:
            found.append(Place(layout, number, wanted))
    return found


def read(connection: Connection, agent: str, channel: str, from_ms: int, to_ms: int, most: int) -> Readings:
    """One channel between two instants, both included, by time; samples that lack it are left out."""
    parts = [_raw(place, column, from_ms, to_ms) for place, column in _of_one(connection, agent, channel)]
    if not parts:
        return Readings(np.zeros(0, np.int64), np.zeros(0))
    # The limit stands inside too: each part then walks its index and stops.
    inner = sql.SQL(" UNION ALL ").join(
        say("({part} ORDER BY at LIMIT {most})", part=part, most=sql.Literal(most)) for part in parts
    )
    rows = _copied(
        connection,
        say("SELECT at, reading FROM ({inner}) AS parts ORDER BY at LIMIT {most}", inner=inner, most=sql.Literal(most)),
        [("at", ">i8"), ("reading", ">f8")],
    )
    return Readings(epoch_ms(rows["at"]), rows["reading"].astype(np.float64))


def summed(
    connection: Connection, agent: str, channel: str, from_ms: int, to_ms: int, per: Literal["1min", "1h"], most: int
) -> Summary:
    """One channel by the minute or the hour: the first `most` buckets that begin between two instants, both included.
    Positions are not summed: they have no buckets.
    """
    if channel in POSITIONS:
        return Summary(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    parts = [
        part
        for place, column in _of_one(connection, agent, channel)
        for part in _sums(place, column, from_ms, to_ms, per)
    ]
    if not parts:
        return Summary(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    rows = _copied(
        connection,
        say(
            "SELECT begins, sum(n)::int8, sum(total)::float8, min(least)::float8, max(most)::float8 "
            "FROM ({parts}) AS parts GROUP BY begins HAVING sum(n) > 0 ORDER BY begins LIMIT {most}",
            parts=sql.SQL(" UNION ALL ").join(parts), most=sql.Literal(most),
        ),
        [("at", ">i8"), ("n", ">i8"), ("sum", ">f8"), ("least", ">f8"), ("most", ">f8")],
    )  # fmt: skip
    samples = rows["n"].astype(np.int64)
    mean = rows["sum"].astype(np.float64) / samples
    return Summary(
        epoch_ms(rows["at"]), mean, rows["least"].astype(np.float64), rows["most"].astype(np.float64), samples
    )


def latest(connection: Connection, agent: str) -> dict[str, tuple[int, float]]:
    """The newest value of every channel in the last quarter of an hour the agent measured anything in."""
    known = places(connection, agent)
    last_ms = max((at_ms for place in known for at_ms in _newest(connection, place)), default=None)
    if last_ms is None:
        return {}
    parts = [
        say("(SELECT {name}::text AS name, at, reading FROM ({raw}) AS parts ORDER BY at DESC LIMIT 1)",
            name=sql.Literal(name), raw=_raw(place, column, last_ms - MINUTE_MS - NEWEST_MS, last_ms))
        for place in known for name, column in place.columns.items()
    ]  # fmt: skip
    rows = connection.execute(
        say("SELECT name, (extract(epoch FROM at) * 1000)::int8, reading FROM ({parts}) AS parts ORDER BY at",
            parts=sql.SQL(" UNION ALL ").join(parts))
    ).fetchall()  # fmt: skip
    newest_ms = max((at_ms for _, at_ms, _ in rows), default=0)
    return {name: (at_ms, reading) for name, at_ms, reading in rows if at_ms >= newest_ms - NEWEST_MS}


def taken(connection: Connection, sender: str, boot: str) -> Taken:
    """What is stored of one life of a sender's stream: worked out where it lies, for it may be long."""
    # One statement and so one instant: rows may be folded into the run at any time.
    row = connection.execute(
        "WITH life AS (SELECT l.id, l.upto FROM telemetry_lives l JOIN telemetry_agents a ON a.id = l.agent "
        "WHERE a.name = %s AND l.boot = %s), "
        "run AS (SELECT max(numbered.seq) AS upto FROM life, LATERAL (SELECT seq, row_number() OVER (ORDER BY seq) "
        "AS place FROM telemetry_ledger WHERE life = life.id AND seq > life.upto) AS numbered "
        "WHERE numbered.seq = numbered.place + life.upto) "
        "SELECT COALESCE(run.upto, life.upto), ARRAY(SELECT seq FROM telemetry_ledger "
        "WHERE life = life.id AND seq > COALESCE(run.upto, life.upto) ORDER BY seq) FROM life, run",
        (plain_text(sender), plain_text(boot)),
    ).fetchone()
    return Taken(0, ()) if row is None else Taken(row[0], tuple(row[1]))


def totals(connection: Connection) -> dict[str, int]:
    """Messages, samples and thinned samples taken so far."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM telemetry_ledger) + COALESCE(sum(messages), 0), "
        "(SELECT COALESCE(sum(samples), 0) FROM telemetry_ledger) + COALESCE(sum(samples), 0), "
        "(SELECT COALESCE(sum(thinned), 0) FROM telemetry_ledger) + COALESCE(sum(thinned), 0) FROM telemetry_lives"
    ).fetchone()
    assert row is not None, "sums without groups are one row"
    return {name: int(count) for name, count in zip(("messages", "samples", "thinned"), row, strict=True)}


def dead_letters(connection: Connection, most: int) -> list[TelemetryLetter]:
    """What was buried, the newest first."""
    rows = connection.execute(
        "SELECT a.name, l.boot, d.seq, d.at_ms, d.why, d.payload FROM telemetry_letters d "
        "JOIN telemetry_lives l ON l.id = d.life JOIN telemetry_agents a ON a.id = l.agent "
        "ORDER BY d.at_ms DESC, d.life, d.seq DESC LIMIT %s",
        (most,),
    )
    return [TelemetryLetter(*row) for row in rows]


# For backups.


def ledger(connection: Connection) -> Iterator[LedgerRow]:
    """Every message that was ever taken; what has been folded up as one row for the whole run."""
    yield from (
        LedgerRow(*row)
        for row in connection.execute(
            "SELECT a.name, l.boot, l.upto, l.samples, l.thinned, l.messages FROM telemetry_lives l "
            "JOIN telemetry_agents a ON a.id = l.agent WHERE l.messages > 0 ORDER BY l.id"
        )
    )
    with connection.cursor(name="ledger") as cursor:
        cursor.itersize = 10_000
        cursor.execute(
            "SELECT a.name, l.boot, t.seq, t.samples, t.thinned FROM telemetry_ledger t "
            "JOIN telemetry_lives l ON l.id = t.life JOIN telemetry_agents a ON a.id = l.agent ORDER BY t.life, t.seq"
        )
        yield from (LedgerRow(*row) for row in cursor)


def dump(connection: Connection) -> Iterator[Segment]:
    """Every reading, agent by agent and table by table, in segments numbered 0: they have no place in a stream, and no
    ledger row. Positions are as exact as on the wire.
    """
    for (agent,) in connection.execute("SELECT name FROM telemetry_agents ORDER BY id").fetchall():
        for place in places(connection, agent):
            if place.layout.number:
                yield from _dump_wide(connection, agent, place)
                continue
            for channel, number in place.columns.items():
                raw = _raw(place, number, 0, FARTHEST_MS)
                query = say("{raw} ORDER BY at", raw=raw)
                for rows in _streamed(connection, query, [("at", ">i8"), ("0", ">f8")]):
                    yield _segment(agent, (channel,), rows)


def _dump_wide(connection: Connection, agent: str, place: Place) -> Iterator[Segment]:
    layout = place.layout
    fields = [("at", ">i8"), *((str(k), packing.value_type(name)) for k, name in enumerate(layout.channels))]
    query = say(
        "SELECT at, {columns} FROM {table} WHERE agent = {agent} ORDER BY at",
        columns=sql.SQL(", ").join(map(sql.Identifier, layout.columns)),
        table=sql.Identifier(layout.table), agent=sql.Literal(place.agent),
    )  # fmt: skip
    for rows in _streamed(connection, query, fields):
        yield _segment(agent, layout.channels, rows)


def _segment(agent: str, channels: tuple[str, ...], rows: npt.NDArray[Any]) -> Segment:
    at_ms = epoch_ms(rows["at"])
    origin = [0.0, 0.0]
    columns = []
    for k, channel in enumerate(channels):
        column = rows[str(k)].astype(np.float64)
        axis = POSITIONS.get(channel)
        if axis is not None and not np.isnan(column).all():
            origin[axis] = float(np.nanmin(column))
            column = column - origin[axis]
        columns.append(column.astype(np.float32))
    batch = TelemetryBatch(AgentId(agent), "", 0, (origin[0], origin[1]), channels, at_ms, tuple(columns))
    return Segment(
        AgentId(agent), "", 0, EpochMs(int(at_ms[0])), EpochMs(int(at_ms[-1])), len(at_ms), 0, encode_telemetry(batch)
    )


def _streamed(
    connection: Connection, query: sql.Composed, fields: Sequence[tuple[str, str]]
) -> Iterator[npt.NDArray[Any]]:
    """The rows of a query by the thousand, as they come."""
    size = packing.record(fields).itemsize
    statement = say("COPY ({query}) TO STDOUT (FORMAT BINARY)", query=query)
    with connection.cursor() as cursor, cursor.copy(statement) as out:
        waiting = bytearray()
        at_once = size * DUMPED_AT_ONCE
        is_begun = False
        for piece in out:
            waiting += piece
            if not is_begun and len(waiting) >= len(packing.COPY_HEAD):
                del waiting[: len(packing.COPY_HEAD)]
                is_begun = True
            while len(waiting) >= at_once + len(packing.COPY_END):
                yield np.frombuffer(bytes(waiting[:at_once]), packing.record(fields))
                del waiting[:at_once]
        rest = bytes(waiting[: len(waiting) // size * size])
        if rest:
            yield np.frombuffer(rest, packing.record(fields))


# The parts of queries.


def _of_one(connection: Connection, agent: str, channel: str) -> list[tuple[Place, str | int]]:
    return [(place, column) for place in places(connection, agent, channel) for column in place.columns.values()]


def _raw(place: Place, column: str | int, from_ms: int, to_ms: int) -> sql.Composed:
    """The readings of one channel in one table, as (at, reading)."""
    # Half a millisecond more on either side: an instant in seconds is a float, readings are whole milliseconds.
    named = {
        "table": sql.Identifier(place.layout.table), "agent": sql.Literal(place.agent),
        "begin": instant(_bounded(from_ms) / 1000 - 0.0005), "end": instant(_bounded(to_ms) / 1000 + 0.0005),
    }  # fmt: skip
    if isinstance(column, int):
        return say(
            "SELECT at, value AS reading FROM {table} WHERE agent = {agent} AND channel = {channel} "
            "AND at >= {begin} AND at <= {end} AND value <> 'NaN'", channel=sql.Literal(column), **named
        )  # fmt: skip
    return say(
        "SELECT at, {column}::float8 AS reading FROM {table} WHERE agent = {agent} "
        "AND at >= {begin} AND at <= {end} AND {column} <> 'NaN'", column=sql.Identifier(column), **named
    )  # fmt: skip


def _sums(place: Place, column: str | int, from_ms: int, to_ms: int, per: Literal["1min", "1h"]) -> Iterator[Any]:
    """The sums of one channel in one table, as (begins, n, total, least, most)."""
    layout = place.layout
    names = sum_columns("value" if isinstance(column, int) else column)
    narrow = say("AND channel = {channel}", channel=sql.Literal(column)) if isinstance(column, int) else sql.SQL("")
    named = {
        "agent": sql.Literal(place.agent), "narrow": narrow, "n": names["n"], "sum": names["sum"],
        "least": names["least"], "most": names["most"],
    }  # fmt: skip
    begin, end = _bounded(from_ms), _bounded(to_ms)
    whole = say(
        "SELECT begins, {n} AS n, {sum} AS total, {least} AS least, {most} AS most FROM {table} WHERE agent = {agent} "
        "{narrow} AND begins >= {begin} AND begins <= {end}",
        table=sql.Identifier(layout.by_minute if per == "1min" else layout.by_hour),
        begin=instant(begin / 1000 - 0.0005), end=instant(end / 1000 + 0.0005), **named,
    )  # fmt: skip
    yield whole
    if per == "1h" and not layout.has_views:
        # Minutes are folded into hours only when they are given up: an hour is what lies in either.
        yield say(
            "SELECT date_bin('1 hour', begins, 'epoch') AS begins, {n} AS n, {sum} AS total, {least} AS least, "
            "{most} AS most FROM {table} WHERE agent = {agent} {narrow} AND begins >= {begin} AND begins < {end}",
            table=sql.Identifier(layout.by_minute), begin=instant(-(-begin // HOUR_MS) * HOUR_MS / 1000),
            end=instant((end // HOUR_MS + 1) * HOUR_MS / 1000), **named,
        )  # fmt: skip


def _newest(connection: Connection, place: Place) -> Iterable[int]:
    """An instant within a minute after an agent's newest sample in a table."""
    layout = place.layout
    # The sums are one table and tell the minute; the readings would be asked day by day. TimescaleDB looks from the
    # newest chunk backwards by itself; and a table of positions alone has no sums.
    is_looked_up = layout.summed and not (layout.number and layout.has_views)
    query = (
        say("SELECT max(begins) + INTERVAL '1 minute' FROM {table} WHERE agent = {agent}",
            table=sql.Identifier(layout.by_minute), agent=sql.Literal(place.agent))
        if is_looked_up
        else say("SELECT max(at) FROM {table} WHERE agent = {agent}",
                 table=sql.Identifier(layout.table), agent=sql.Literal(place.agent))
    )  # fmt: skip
    row = connection.execute(
        say("SELECT (extract(epoch FROM newest.at) * 1000)::int8 FROM ({query}) AS newest (at)", query=query)
    ).fetchone()
    return [] if row is None or row[0] is None else [int(row[0])]


def _bounded(at_ms: int) -> int:
    return min(max(0, at_ms), FARTHEST_MS)


def _copied(connection: Connection, query: sql.Composed, fields: Sequence[tuple[str, str]]) -> npt.NDArray[Any]:
    with (
        connection.cursor() as cursor,
        cursor.copy(say("COPY ({query}) TO STDOUT (FORMAT BINARY)", query=query)) as out,
    ):
        return unpacked(b"".join(out), fields)
