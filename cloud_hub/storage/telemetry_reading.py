"""Read what PostgreSQL keeps of readings: a channel raw, by the minute or hour, and the newest of each.

Whatever comes in numbers comes as a binary COPY that numpy reads where it lies. An agent's readings are looked for in
the tables it has ever spoken in; whether a table is a hypertable, and its sums a view or rows, makes no difference.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from psycopg import sql

from cloud_hub.storage import Readings, Summary, Taken
from cloud_hub.storage.packing import POSITIONS, epoch_ms, unpacked
from cloud_hub.storage.telemetry_tables import Connection, Layout, instant, plain_text, say, sum_columns

NEWEST_MS = 900_000
"""A channel's newest value is looked for so far back from its agent's newest sample."""

FARTHEST_MS = 9_007_199_254_740_992
"""No agent's instant lies beyond (see `cloud_hub.telemetry`), and PostgreSQL's calendar goes further."""

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
    newest = max((at_ms for place in known for at_ms in _newest(connection, place)), default=None)
    if newest is None:
        return {}
    parts = [
        say("(SELECT {name}::text AS name, at, reading FROM ({raw}) AS parts ORDER BY at DESC LIMIT 1)",
            name=sql.Literal(name), raw=_raw(place, column, newest - NEWEST_MS, newest))
        for place in known for name, column in place.columns.items()
    ]  # fmt: skip
    rows = connection.execute(
        say("SELECT name, (extract(epoch FROM at) * 1000)::int8, reading FROM ({parts}) AS parts ORDER BY at",
            parts=sql.SQL(" UNION ALL ").join(parts))
    ).fetchall()  # fmt: skip
    return {name: (at_ms, reading) for name, at_ms, reading in rows}


def taken(connection: Connection, sender: str, boot: str) -> Taken:
    """What is stored of one life of a sender's stream: worked out where it lies, for it may be long."""
    row = connection.execute(
        "SELECT l.id, l.upto FROM telemetry_lives l JOIN telemetry_agents a ON a.id = l.agent "
        "WHERE a.name = %s AND l.boot = %s",
        (plain_text(sender), plain_text(boot)),
    ).fetchone()
    if row is None:
        return Taken(0, ())
    life, folded = row
    upto = unbroken(connection, life, folded)
    beyond = connection.execute(
        "SELECT seq FROM telemetry_ledger WHERE life = %s AND seq > %s ORDER BY seq", (life, upto)
    ).fetchall()
    return Taken(upto, tuple(seq for (seq,) in beyond))


def unbroken(connection: Connection, life: int, folded: int) -> int:
    """The end of the unbroken run of a life's numbers, of which those up to `folded` are not in the ledger any more."""
    row = connection.execute(
        "SELECT max(seq) FROM (SELECT seq, row_number() OVER (ORDER BY seq) AS place FROM telemetry_ledger "
        "WHERE life = %(life)s AND seq > %(folded)s) AS run WHERE seq = place + %(folded)s",
        {"life": life, "folded": folded},
    ).fetchone()
    return folded if row is None or row[0] is None else int(row[0])


def totals(connection: Connection) -> dict[str, int]:
    """Messages, samples and thinned samples taken so far."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM telemetry_ledger) + COALESCE(sum(messages), 0), "
        "(SELECT COALESCE(sum(samples), 0) FROM telemetry_ledger) + COALESCE(sum(samples), 0), "
        "(SELECT COALESCE(sum(thinned), 0) FROM telemetry_ledger) + COALESCE(sum(thinned), 0) FROM telemetry_lives"
    ).fetchone()
    assert row is not None, "sums without groups are one row"
    return {name: int(count) for name, count in zip(("messages", "samples", "thinned"), row, strict=True)}


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
    """The instant of an agent's newest sample in a table; in the narrow one, which is not sorted by agent, the end of
    the newest minute its sums know.
    """
    layout = place.layout
    query = (
        say("SELECT max(at) FROM {table} WHERE agent = {agent}",
            table=sql.Identifier(layout.table), agent=sql.Literal(place.agent))
        if layout.number
        else say("SELECT max(begins) + INTERVAL '1 minute' FROM {table} WHERE agent = {agent}",
                 table=sql.Identifier(layout.by_minute), agent=sql.Literal(place.agent))
    )  # fmt: skip
    row = connection.execute(
        say("SELECT (extract(epoch FROM newest.max) * 1000)::int8 FROM ({query}) AS newest (max)", query=query)
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
