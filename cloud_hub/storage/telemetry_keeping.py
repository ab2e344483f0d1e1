"""Give readings up when their time is over, coarsen old positions, and fold what has served its purpose.

Everything here is done in slices between two commits, may be repeated, and may be done by two hubs at once. Whole days
are dropped with their partition or chunk; only the day in which the limit lies is looked through.
"""

from collections.abc import Sequence

import msgspec
import psycopg
from psycopg import sql

from cloud_hub.storage import Kept
from cloud_hub.storage.packing import POSITIONS, SUMMED
from cloud_hub.storage.telemetry_tables import (
    COLUMNS_SINCE,
    DAY_S,
    FIRST_SUMMED,
    LEDGER_LOCK,
    LOCK,
    Connection,
    Features,
    Layout,
    day_table,
    days_of,
    instant,
    is_refusal,
    layouts,
    reason,
    say,
)
from shared.logs import log

ROWS_PER_SEGMENT = 100
"""`most` counts segments; here there are only their rows."""

LOCKED_S = 0.3
"""How long dropping a day may wait for those who read or write its table, who meanwhile wait for it."""

FOLD_AFTER_ROWS = 1_000
"""A life's ledger is folded when it has so many rows."""

MOST_FOLDED = 20_000

HOUR_MS = 3_600_000
SUMMING_S = 30
"""How long the database may take for one day's sums before the readings go: less than the patience of a connection."""

SETTLED_S = 86_400
"""Sums by the minute come in pieces, with each batch; a day later hardly any piece is still to come."""


# Forgetting.


def forget_raw(connection: Connection, before_ms: int, most: int, features: Features) -> int:
    """Erase readings from before an instant: whole days, each counted as one, then at most `most` segments' worth of
    rows; 0 when nothing is left.
    """
    gone = 0
    connection.execute("DELETE FROM telemetry_letters WHERE at_ms < %s", (before_ms,))
    for layout in layouts(connection):
        if layout.is_hyper:
            if layout.has_views and layout.summed:
                _sum_up(connection, features, layout, before_ms)
            gone += _drop_chunks(connection, layout.table, before_ms)
            gone += _delete_early(connection, layout, before_ms) if gone < most else 0
            continue
        for day in sorted(days_of(connection, layout)):
            if (day + 1) * DAY_S * 1000 <= before_ms:
                gone += _drop_day(connection, layout, day)
        parts = [day_table(layout, day) for day in days_of(connection, layout) if day * DAY_S * 1000 < before_ms]
        for part in (*parts, sql.Identifier(f"{layout.table}_other")):
            if gone < most:
                gone += _delete(connection, part, "at", before_ms, (most - gone) * ROWS_PER_SEGMENT)
    return gone


def forget_minutes(connection: Connection, before_ms: int, most: int) -> int:
    """Give up sums by the minute from before an instant; where they are rows, the hours take them over."""
    gone = 0
    for layout in layouts(connection):
        if layout.summed and layout.has_views:
            gone += _drop_chunks(connection, layout.by_minute, before_ms)
        elif layout.summed and gone < most:
            gone += _fold_into_hours(connection, layout, before_ms / 1000)
    return gone


def forget_hours(connection: Connection, before_ms: int, most: int) -> int:
    """Give up sums by the hour from before an instant."""
    gone = 0
    for layout in layouts(connection):
        if layout.summed and layout.has_views:
            gone += _drop_chunks(connection, layout.by_hour, before_ms)
        elif layout.summed:
            gone += _delete(connection, sql.Identifier(layout.by_hour), "begins", before_ms, most * ROWS_PER_SEGMENT)
    return gone


def _drop_day(connection: Connection, layout: Layout, day: int) -> int:
    """1 when the day went, 0 when those who work on the table did not let go of it in time: another time, then."""
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{int(LOCKED_S * 1000)}ms'")
            connection.execute(say("DROP TABLE IF EXISTS {day}", day=day_table(layout, day)))
        return 1
    except psycopg.errors.LockNotAvailable:
        log("telemetry_day_not_dropped", table=layout.table, day=day, then="tried again with the next sweep")
        return 0


def _sum_up(connection: Connection, features: Features, layout: Layout, before_ms: int) -> None:
    """What is about to be erased is summed first, once, day by day: the sums of what is gone would otherwise be worked
    out from what is left. Where the database refuses, it is erased all the same; its jobs have summed most of it.
    """
    end_s = -(-before_ms // HOUR_MS) * HOUR_MS // 1000
    begin_s = _summed_to(connection, layout)
    if begin_s is None:
        begin_s = _first_chunk(connection, layout, end_s)
    connection.execute(f"SET statement_timeout = {SUMMING_S * 1000}")
    while begin_s < end_s:
        day_s = min(begin_s + DAY_S, end_s)
        try:
            for view in (layout.by_minute, layout.by_hour):
                connection.execute(refreshed(view, features, begin_s, day_s))
        except psycopg.Error as wrong:
            if connection.closed or connection.broken:
                raise
            log("telemetry_sums_behind", table=layout.table, error=reason(wrong), then="erased all the same")
        connection.execute(
            say("UPDATE telemetry_layouts SET folded_to = {end} WHERE id = {id}", end=instant(day_s),
                id=sql.Literal(layout.number))
        )  # fmt: skip
        begin_s = day_s


def _first_chunk(connection: Connection, layout: Layout, else_s: int) -> int:
    """Where the first chunk begins, in epoch s (TimescaleDB documentation: timescaledb_information.chunks)."""
    try:
        row = connection.execute(
            "SELECT extract(epoch FROM min(range_start))::float8 FROM timescaledb_information.chunks "
            "WHERE hypertable_schema = 'public' AND hypertable_name = %s",
            (layout.table,),
        ).fetchone()
    except psycopg.Error as wrong:
        if not is_refusal(wrong):
            raise
        log("telemetry_sums_behind", table=layout.table, error=reason(wrong), then="erased all the same")
        return else_s
    return else_s if row is None or row[0] is None else int(row[0])


def _summed_to(connection: Connection, layout: Layout) -> int | None:
    """Up to where a continuous aggregate stays as it is, for its readings may be erased; epoch s, None: nowhere."""
    row = connection.execute(
        "SELECT extract(epoch FROM NULLIF(folded_to, '-infinity'))::float8 FROM telemetry_layouts WHERE id = %s",
        (layout.number,),
    ).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def _drop_chunks(connection: Connection, table: str, before_ms: int) -> int:
    """How many went; 0 too when somebody would not let go of one in time (TimescaleDB documentation: drop_chunks; for
    a continuous aggregate too).
    """
    query = say("SELECT count(*) FROM drop_chunks({table}, older_than => {before})", table=sql.Literal(table),
                before=instant(before_ms / 1000))  # fmt: skip
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{int(LOCKED_S * 1000)}ms'")
            row = connection.execute(query).fetchone()
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        log("telemetry_chunks_not_dropped", table=table, then="tried again with the next sweep")
        return 0
    return 0 if row is None else int(row[0])


def _delete(connection: Connection, table: sql.Identifier, column: str, before_ms: int, most: int) -> int:
    """Segments' worth of rows erased, at least 1 when there was any."""
    erased = connection.execute(
        say("DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {column} < {before} "
            "LIMIT {most}))", table=table, column=sql.Identifier(column), before=instant(before_ms / 1000),
            most=sql.Literal(most))
    ).rowcount  # fmt: skip
    return -(-erased // ROWS_PER_SEGMENT)


def _delete_early(connection: Connection, layout: Layout, before_ms: int) -> int:
    """The same in a hypertable, whose rows have no place of their own: the earliest ten minutes at a time."""
    named = {"table": sql.Identifier(layout.table), "before": instant(before_ms / 1000)}
    with connection.transaction():
        first_s = _earliest(connection, layout, before_ms / 1000)
        if first_s is None:
            return 0
        connection.execute(_IN_COLUMNS)
        # Both limits are constants: only batches of the columnstore that lie between them are unpacked.
        erased = connection.execute(
            say("DELETE FROM {table} WHERE at < {before} AND at < {end}", end=instant(first_s + 600), **named)
        ).rowcount
    return max(1, -(-erased // ROWS_PER_SEGMENT))


def _earliest(connection: Connection, layout: Layout, before_s: float) -> float | None:
    """The earliest reading from before an instant, in seconds. The narrow table has no index that leads there; only
    chunks from before the instant are looked through, and whole ones have been dropped.
    """
    if layout.number:
        return _first(connection, layout, layout.table, "at", "-infinity", before_s)
    row = connection.execute(
        say("SELECT extract(epoch FROM min(at))::float8 FROM readings WHERE at < {before}", before=instant(before_s))
    ).fetchone()
    return None if row is None or row[0] is None else float(row[0])


_IN_COLUMNS = "SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
"""TimescaleDB unpacks whole batches of its columnstore to change a row of them, 100,000 rows at most if one does not
ask for more (documentation: troubleshooting, "tuple decompression limit exceeded").
"""


def _fold_into_hours(connection: Connection, layout: Layout, before_s: float) -> int:
    """The earliest hour of minutes becomes one row of hours. Sums are added up wherever they lie, so minutes that come
    late follow later.
    """
    first_s = _first(connection, layout, layout.by_minute, "begins", "-infinity", before_s)
    if first_s is None:
        return 0
    begin_s = first_s // 3600 * 3600
    gone = _fold(
        connection, layout, layout.by_minute, layout.by_hour, "date_bin('1 hour', begins, 'epoch')",
        begin_s, min(begin_s + 3600, before_s),
    )  # fmt: skip
    return max(1, gone)


# Folding.


def fold(connection: Connection, now_ms: int, most: int) -> int:
    """Fold what came in pieces: ledger rows that have become one run, and sums of a minute from more than a day ago;
    how many went, 0 when nothing is left.
    """
    lives = connection.execute(
        "SELECT life FROM telemetry_ledger GROUP BY life HAVING count(*) >= %s ORDER BY life", (FOLD_AFTER_ROWS,)
    ).fetchall()
    gone = sum(_fold_ledger(connection, life) for (life,) in lives)
    for layout in layouts(connection):
        if layout.summed and not layout.has_views and gone < most:
            gone += _fold_minutes(connection, layout, now_ms / 1000 - SETTLED_S)
    return gone


def _fold_ledger(connection: Connection, life: int) -> int:
    """Nobody commits for the moment this takes: a number must not be looked for between the ledger and the run."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LEDGER_LOCK,))
        folded = connection.execute(
            "WITH life AS (SELECT upto FROM telemetry_lives WHERE id = %(life)s), "
            "run AS (SELECT COALESCE(max(seq), 0) AS upto FROM (SELECT seq, row_number() OVER (ORDER BY seq) AS place "
            "FROM (SELECT seq FROM telemetry_ledger WHERE life = %(life)s ORDER BY seq LIMIT %(most)s) AS first) "
            "AS ahead WHERE seq = place + (SELECT upto FROM life)), "
            "gone AS (DELETE FROM telemetry_ledger WHERE life = %(life)s AND seq <= (SELECT upto FROM run) "
            "RETURNING samples, thinned), "
            "added AS (SELECT count(*) AS messages, sum(samples) AS samples, sum(thinned) AS thinned FROM gone) "
            "UPDATE telemetry_lives SET upto = run.upto, messages = telemetry_lives.messages + added.messages, "
            "samples = telemetry_lives.samples + added.samples, thinned = telemetry_lives.thinned + added.thinned "
            "FROM run, added WHERE telemetry_lives.id = %(life)s AND added.messages > 0 RETURNING added.messages",
            {"life": life, "most": MOST_FOLDED},
        ).fetchone()
    return 0 if folded is None else int(folded[0])


def _fold_minutes(connection: Connection, layout: Layout, until_s: float) -> int:
    """The next hour that was not folded yet; what comes later than a day stays in pieces, and is added up when read."""
    with connection.transaction():
        first_s = _first(
            connection, layout, layout.by_minute, "begins", _mark(connection, layout, "folded_to"), until_s
        )
        if first_s is None or first_s // 3600 * 3600 + 3600 > until_s:
            return 0
        begin_s = first_s // 3600 * 3600
        gone = _fold(connection, layout, layout.by_minute, layout.by_minute, "begins", begin_s, begin_s + 3600)
        connection.execute(
            say("UPDATE telemetry_layouts SET folded_to = {end} WHERE id = {id}", end=instant(begin_s + 3600),
                id=sql.Literal(layout.number))
        )  # fmt: skip
    return max(1, gone)


def _fold(
    connection: Connection, layout: Layout, table: str, into: str, bucket: str, begin_s: float, end_s: float
) -> int:
    """Rows between two instants added up, by agent and bucket; how many there were."""
    keys = "agent" if layout.number else "agent, channel"
    columns = [sql.Identifier(f"{column}_{kind}") for _, column in layout.summed for kind, _ in SUMMED]
    functions = {"n": "sum({})::int4", "sum": "sum({})", "least": "min({})", "most": "max({})"}
    added = [
        sql.SQL(functions[kind]).format(sql.Identifier(f"{column}_{kind}"))
        for _, column in layout.summed
        for kind, _ in SUMMED
    ]
    gone = connection.execute(
        say(
            "WITH gone AS (DELETE FROM {table} WHERE begins >= {begin} AND begins < {end} RETURNING *), "
            "folded AS (INSERT INTO {into} (begins, " + keys + ", {columns}) SELECT " + bucket + ", " + keys
            + ", {added} FROM gone GROUP BY " + ("1, 2" if layout.number else "1, 2, 3") + " RETURNING 1) "
            "SELECT count(*) FROM gone",
            table=sql.Identifier(table), into=sql.Identifier(into), begin=instant(begin_s), end=instant(end_s),
            columns=sql.SQL(", ").join(columns), added=sql.SQL(", ").join(added),
        )
    ).fetchone()  # fmt: skip
    return 0 if gone is None else int(gone[0])


def _mark(connection: Connection, layout: Layout, name: str) -> str:
    """How far a layout is done with, as PostgreSQL writes it. Locked by a statement of its own: those that follow see
    whatever was committed before the mark could be had.
    """
    row = connection.execute(
        say("SELECT {name}::text FROM telemetry_layouts WHERE id = {id} FOR UPDATE", name=sql.Identifier(name),
            id=sql.Literal(layout.number))
    ).fetchone()  # fmt: skip
    assert row is not None, "layouts are never taken away"
    return str(row[0])


def _first(
    connection: Connection, layout: Layout, table: str, column: str, from_text: str, before_s: float
) -> float | None:
    """The earliest instant in a table between two others, in seconds: one look into the index for each agent."""
    row = connection.execute(
        say("SELECT extract(epoch FROM min(first.{column}))::float8 FROM telemetry_places AS place, LATERAL "
            "(SELECT {column} FROM {table} WHERE agent = place.agent AND {column} >= {begin}::timestamptz "
            "AND {column} < {before} ORDER BY {column} LIMIT 1) AS first WHERE place.layout = {id}",
            table=sql.Identifier(table), column=sql.Identifier(column), begin=sql.Literal(from_text),
            before=instant(before_s), id=sql.Literal(layout.number))
    ).fetchone()  # fmt: skip
    return None if row is None or row[0] is None else float(row[0])


# Blurring.

_COARSE = "floor({c} * 100 + 0.5) / 100"
"""As `cloud_hub.traces.coarse`, but for a half; what is coarse already comes out as it was."""


def blur(connection: Connection, before_ms: int, most: int) -> int:
    """Coarsen positions from before an instant to a hundredth of a degree, hour by hour until `most` segments' worth of
    samples have been; how many segments' worth, at least 1 when there was anything to look at.
    """
    done = _blur_narrow(connection, before_ms / 1000)
    for layout in layouts(connection):
        if layout.number and not POSITIONS.keys().isdisjoint(layout.channels):
            while done < most * ROWS_PER_SEGMENT and (more := _blur_hour(connection, layout, before_ms / 1000)):
                done += more
    return -(-done // ROWS_PER_SEGMENT)


def _blur_hour(connection: Connection, layout: Layout, before_s: float) -> int:
    """Done up to `blurred_to`, which a commit of older readings sets back: then they are found once more."""
    named = {"table": sql.Identifier(layout.table), "id": sql.Literal(layout.number)}
    with connection.transaction():
        if layout.is_hyper:
            connection.execute(_IN_COLUMNS)
        first_s = _first(connection, layout, layout.table, "at", _mark(connection, layout, "blurred_to"), before_s)
        if first_s is None:
            return 0
        begin_s = first_s // 3600 * 3600
        end_s = min(begin_s + 3600, before_s)
        columns = [layout.columns[k] for k, channel in enumerate(layout.channels) if channel in POSITIONS]
        coarse = sql.SQL(", ").join(say("{c} = " + _COARSE, c=sql.Identifier(one)) for one in columns)
        fine = sql.SQL(" OR ").join(say("{c} <> " + _COARSE, c=sql.Identifier(one)) for one in columns)
        changed = connection.execute(
            say("UPDATE {table} SET {coarse} WHERE at >= {begin} AND at < {end} AND ({fine})",
                coarse=coarse, fine=fine, begin=instant(begin_s), end=instant(end_s), **named)
        ).rowcount  # fmt: skip
        connection.execute(
            say("UPDATE telemetry_layouts SET blurred_to = {end} WHERE id = {id}", end=instant(end_s), **named)
        )
    return max(1, changed)


def _blur_narrow(connection: Connection, before_s: float) -> int:
    with connection.transaction():
        if layouts(connection)[0].is_hyper:
            connection.execute(_IN_COLUMNS)
        return connection.execute(
            say("UPDATE readings SET value = " + _COARSE + " WHERE channel < {first} AND at < {before} AND value <> "
                + _COARSE, c=sql.Identifier("value"), first=sql.Literal(FIRST_SUMMED), before=instant(before_s))
        ).rowcount  # fmt: skip


# TimescaleDB's own jobs.


def retain(connection: Connection, features: Features, kept: Kept) -> list[str]:
    """Have TimescaleDB turn old readings into columns, refresh its sums and drop what is too old, by jobs of its own;
    what it refused, a sentence for each table. For real time alone: its jobs know no other. May be said again; what has
    not changed is left alone.
    """
    if not features.has_community:
        return []
    wanted = msgspec.json.encode((features.version, *kept)).decode()
    refused = []
    for layout in layouts(connection):
        if not layout.has_views:
            continue
        row = connection.execute("SELECT policies FROM telemetry_layouts WHERE id = %s", (layout.number,)).fetchone()
        if row is not None and row[0] == wanted:
            continue
        said = [
            f"TimescaleDB refused {what} for {layout.table}: {why}. {then}"
            for what, statements, then in (
                ("the jobs that sum and drop", policies(layout, kept), _UNSUMMED),
                ("the job that makes columns", columns_policy(layout, features, kept), _IN_ROWS),
            )
            if (why := _agreed(connection, statements)) is not None
        ]
        if not said:
            connection.execute("UPDATE telemetry_layouts SET policies = %s WHERE id = %s", (wanted, layout.number))
        refused += said
    return refused


_UNSUMMED = "Its sums are worked out whenever they are read, and the hub erases by itself; tried again tomorrow."
_IN_ROWS = "Its readings stay in rows, which take several times the room; tried again tomorrow."


def _agreed(connection: Connection, statements: Sequence[sql.Composed]) -> str | None:
    """Why the database will not do these, all of them or none; None when it did."""
    try:
        with connection.transaction():
            # One hub at a time: two would each put a job where there is room for one.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            for statement in statements:
                connection.execute(statement)
    except psycopg.Error as wrong:
        if not is_refusal(wrong):
            raise
        log("timescaledb_job_refused", error=reason(wrong), then="tried again tomorrow")
        return reason(wrong)
    return None


def columns_policy(layout: Layout, features: Features, kept: Kept) -> list[sql.Composed]:
    """The statements that replace the job that makes columns (TimescaleDB documentation: add_columnstore_policy)."""
    if features.version < COLUMNS_SINCE:
        return []
    table = sql.Literal(layout.table)
    after = say("INTERVAL {days}", days=sql.Literal(f"{kept.columns_after_days} days"))
    return [
        say("CALL remove_columnstore_policy({table}::regclass, if_exists => true)", table=table),
        say("CALL add_columnstore_policy({table}::regclass, after => {after})", table=table, after=after),
    ]


def policies(layout: Layout, kept: Kept) -> list[sql.Composed]:
    """The statements that replace the jobs that sum and drop (TimescaleDB documentation:
    add_continuous_aggregate_policy, add_retention_policy).
    """
    made: list[sql.Composed] = []
    # A refresh over readings that are gone would take their sums with them: it ends a day before, or half of one.
    start = say("INTERVAL {hours}", hours=sql.Literal(f"{max(12, 24 * (kept.raw_days - 1))} hours"))
    for view, end, every, days in (
        (
            (layout.by_minute, "2 minutes", "5 minutes", kept.minute_days),
            (layout.by_hour, "1 hour", "30 minutes", kept.hour_days),
        )
        if layout.summed
        else ()
    ):
        named = {
            "view": sql.Literal(view), "end": sql.Literal(end), "every": sql.Literal(every),
            "start": start if kept.raw_days else sql.SQL("NULL"),
        }  # fmt: skip
        made += [
            say("SELECT remove_continuous_aggregate_policy({view}::regclass, if_exists => true)", **named),
            say("SELECT add_continuous_aggregate_policy({view}::regclass, start_offset => {start}, "
                "end_offset => INTERVAL {end}, schedule_interval => INTERVAL {every})", **named),
            *_retention(view, days),
        ]  # fmt: skip
    return made + _retention(layout.table, kept.raw_days)


def _retention(table: str, days: int) -> list[sql.Composed]:
    named = {"table": sql.Literal(table), "days": sql.Literal(f"{days} days")}
    made = [say("SELECT remove_retention_policy({table}::regclass, if_exists => true)", **named)]
    if days:
        made.append(say("SELECT add_retention_policy({table}::regclass, drop_after => INTERVAL {days})", **named))
    return made


def refresh(connection: Connection, features: Features) -> None:
    """Bring the continuous aggregates up to date now, without waiting for their jobs. Outside a transaction. What was
    summed before its readings were erased stays as it is.
    """
    for layout in layouts(connection):
        for view in (layout.by_minute, layout.by_hour) if layout.has_views and layout.summed else ():
            connection.execute(refreshed(view, features, _summed_to(connection, layout), None))


def refreshed(view: str, features: Features, begin_s: float | None, end_s: float | None) -> sql.Composed:
    """The statement that works out a continuous aggregate between two instants, None for open (TimescaleDB
    documentation: refresh_continuous_aggregate). It must stand alone, outside a transaction.
    """
    # Since 2.28 it goes in batches, and up to 2.28.2 may leave one out (timescaledb issue 10221): 0 is as before.
    options = """, options => '{"buckets_per_batch": 0}'::jsonb""" if features.version >= (2, 28) else ""
    return say(
        "CALL refresh_continuous_aggregate({view}, {begin}, {end}{options})", view=sql.Literal(view),
        begin=sql.SQL("NULL") if begin_s is None else instant(begin_s),
        end=sql.SQL("NULL") if end_s is None else instant(end_s), options=sql.SQL(options),
    )  # fmt: skip


_JOBS = (
    "SELECT job.job_id, job.proc_name, COALESCE(job.hypertable_name, ''), stats.total_failures, "
    "COALESCE((SELECT wrong.err_message FROM timescaledb_information.job_errors AS wrong "
    "WHERE wrong.job_id = job.job_id ORDER BY wrong.start_time DESC LIMIT 1), '') "
    "FROM timescaledb_information.jobs AS job JOIN timescaledb_information.job_stats AS stats USING (job_id) "
    "WHERE stats.last_run_status = 'Failed' AND job.job_id >= 1000 ORDER BY job.job_id"
)
"""Jobs whose last run failed; of one that is running nothing is known. TimescaleDB's own (its report to its makers, its
housekeeping, which the Apache licence lets fail: timescaledb issue 10191) have the numbers below 1,000.
"""


def failures(connection: Connection, features: Features) -> list[str]:
    """The database's background jobs whose last run failed, each in a sentence (TimescaleDB documentation:
    timescaledb_information.job_stats, job_errors).
    """
    if not features.version:
        return []
    try:
        found = connection.execute(_JOBS).fetchall()
    except psycopg.Error as wrong:
        if not is_refusal(wrong):
            raise
        return [
            f"TimescaleDB's jobs cannot be looked at: {reason(wrong)}. Expected to read timescaledb_information.jobs"
        ]
    return [
        f"TimescaleDB's job {job} ({what}{' of ' + table if table else ''}) failed, {times} times so far: "
        f"{why or 'the server log says why'}. When it is mended: CALL run_job({job})"
        for job, what, table, times, why in found
    ]
