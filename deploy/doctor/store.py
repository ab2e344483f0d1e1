"""Look at a hub's store, whatever it is, without making, migrating or writing anything."""

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from cloud_hub.storage import StoreAway, StoreUnknown, StoreUnreadable, file_of, is_postgres, shown_url
from deploy.doctor.findings import ASK_AS, Finding, unseen, worth_a_look
from deploy.doctor.machine import CLOCK_MEND, disk

if TYPE_CHECKING:
    from cloud_hub.storage.telemetry_tables import Features

ANSWER_S = 4.0
OFF_S = 1.0
FAR_OFF_S = 30.0
CROWDED = 0.8
MOST_LETTERS = 10_000
LETTERS = "waywarden dead-letters list"

Connection = Any


def store(url: str) -> Iterator[Finding]:
    """What there is to say of the store of a URL."""
    try:
        yield from _postgres(url) if is_postgres(url) else _files(file_of(url))
    except StoreUnknown as wrong:
        yield Finding("store", False, str(wrong), 'store = "postgresql://USER@HOST/DATABASE" in the hub\'s settings')


# PostgreSQL.


def _postgres(url: str) -> Iterator[Finding]:
    from cloud_hub.storage.pg_connections import connect

    begun_s = time.monotonic()
    try:
        connection = connect(url, ANSWER_S, "SET default_transaction_read_only = on", connect_s=int(ANSWER_S))
    except StoreUnreadable as refused:
        # Its own words end with what to do.
        said, _, mend = str(refused).rpartition(": ")
        yield Finding("store", False, said, mend)
        return
    except StoreAway as away:
        yield Finding("store", False, str(away).partition("; expected")[0], "systemctl start postgresql, on its host")
        return
    with closing(connection):
        took_ms = 1000 * (time.monotonic() - begun_s)
        server = connection.info.parameter_status("server_version") or "?"
        yield Finding(
            "store", True, f"{shown_url(url)}: PostgreSQL {server.split()[0]}, let in within {took_ms:.0f} ms"
        )
        yield from _safety(connection)
        yield from _database_clock(connection)
        yield from _migrations(connection)
        yield from _who_acts(connection)
        yield from _timescale(connection)
        yield from _room(connection, url)
        yield from _letters(connection)


def _safety(connection: Connection) -> Iterator[Finding]:
    unsafe = [
        name
        for name in ("fsync", "full_page_writes", "synchronous_commit")
        if _one(connection, f"SHOW {name}") == "off"
    ]
    mend = "ALTER SYSTEM SET {0} = on; SELECT pg_reload_conf(), as the database's administrator"
    yield Finding(
        "commits are on disk",
        not unsafe,
        f"off: {', '.join(unsafe)}; a power cut loses what was acknowledged" if unsafe else "fsync is on",
        mend.format(unsafe[0] if unsafe else ""),
    )
    if _one(connection, "SELECT pg_is_in_recovery()"):
        yield Finding("store takes writes", False, "this is a replica", "name the first server in the setting `store`")
    used, most = (
        int(_one(connection, "SELECT count(*) FROM pg_stat_activity")),
        int(_one(connection, "SHOW max_connections")),
    )
    yield worth_a_look(
        "database's connections",
        used < CROWDED * most,
        f"{used} of {most}",
        "ALTER SYSTEM SET max_connections = 200, and restart PostgreSQL; a hub needs 20, an ingest process 10",
    )


def _database_clock(connection: Connection) -> Iterator[Finding]:
    before_s = time.time()
    theirs_s = float(_one(connection, "SELECT extract(epoch FROM clock_timestamp())::float8"))
    # Their instant lies somewhere between our two.
    off_s = max(0.0, before_s - theirs_s, theirs_s - time.time())
    found = f"{off_s:.1f} s from the database's"
    if off_s >= FAR_OFF_S:
        yield Finding("clocks agree", False, found, f"on both machines: {CLOCK_MEND}")
    else:
        yield worth_a_look("clocks agree", off_s < OFF_S, found, f"on both machines: {CLOCK_MEND}")


def _migrations(connection: Connection) -> Iterator[Finding]:
    from cloud_hub.storage.pg_migrations import applied
    from cloud_hub.storage.postgres import MIGRATIONS
    from cloud_hub.storage.telemetry_tables import SCHEMA

    for house, steps in (("hub", MIGRATIONS), ("telemetry", SCHEMA)):
        yield _release(f"tables of {house}", applied(connection, house), [step.name for step in steps])


def _release(what: str, taken: set[str], known: Sequence[str]) -> Finding:
    strange = sorted(taken - set(known))
    missing = [name for name in known if name not in taken]
    if strange:
        found = f"of a newer release: {', '.join(strange)}"
        return Finding(what, False, found, "pip install --upgrade 'waywarden[hub]', the release that wrote them")
    if not taken:
        return worth_a_look(what, False, "none yet", "start the hub: it makes them at its first start")
    mend = "restart the hub: it brings them up to this release (waywarden backup before)"
    return worth_a_look(what, not missing, f"lacks {', '.join(missing)}" if missing else known[-1], mend)


def _who_acts(connection: Connection) -> Iterator[Finding]:
    if not _has(connection, "acting"):
        return
    rows = connection.execute(
        "SELECT region, holder, CASE WHEN isfinite(lease_until) THEN "
        "extract(epoch FROM clock_timestamp() - lease_until)::float8 ELSE NULL END FROM acting ORDER BY region"
    ).fetchall()
    if not rows:
        yield worth_a_look("who acts", False, "no hub has ever acted", "systemctl start waywarden-hub")
    for region, holder, over_s in rows:
        if region == "":
            continue
        is_held = over_s is not None and over_s < 0
        found = f"{holder} for {region}" if is_held else f"nobody; {holder} was the last for {region}"
        yield Finding("who acts", is_held, found, "systemctl start waywarden-hub", "worth a look")
    if _has(connection, "room_restores") and connection.execute("SELECT 1 FROM room_restores LIMIT 1").fetchone():
        yield Finding("restore", False, "one did not end", "waywarden restore FILE once more, into an empty database")


def _timescale(connection: Connection) -> Iterator[Finding]:
    from cloud_hub.storage import telemetry_tables

    # It may install nothing here: looking changes nothing.
    features, notices = telemetry_tables.features_of(connection, lambda: None)
    if _has(connection, "telemetry_layouts"):
        notices = notices + telemetry_tables.made_before(telemetry_tables.layouts(connection), features)
    if features.version:
        yield Finding("TimescaleDB", True, ".".join(map(str, features.version)))
    for notice in notices:
        found, mend = (*re.split(r"[.,;] To mend it[,:] ", notice, maxsplit=1), "")[:2]
        yield worth_a_look("TimescaleDB", False, found, mend or "docs/production.md, step 2, before the first readings")
    yield from job_failures(connection, features)


def job_failures(connection: Connection, features: "Features") -> Iterator[Finding]:
    """The database's background jobs whose last run failed, by the store's own question."""
    from cloud_hub.storage.telemetry_keeping import failures

    failed = failures(connection, features)
    for one in failed:
        found, _, mend = one.partition(" When it is mended: ")
        mend = f"{mend}; -- once the cause is mended" if mend else "look into the database server's log"
        yield Finding("database's jobs", False, found, mend)
    if features.version and not failed:
        yield Finding("database's jobs", True, "none has failed")


def _room(connection: Connection, url: str) -> Iterator[Finding]:
    size_mb = int(_one(connection, "SELECT pg_database_size(current_database())")) // 1_000_000
    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query).get("host", [""])[0]
    folder = _data_folder(connection) if host in ("", "127.0.0.1", "::1", "localhost") or host.startswith("/") else None
    if folder is None or not folder.exists():
        yield Finding("database's size", True, f"{size_mb:,} MB; its disk is not seen from here")
        return
    yield disk(f"database's disk ({size_mb:,} MB used)", folder)


def _data_folder(connection: Connection) -> Path | None:
    """Told only to those who may read all settings; elsewhere Debian's place for it, which may not be."""
    import psycopg

    try:
        return Path(str(_one(connection, "SHOW data_directory")))
    except psycopg.Error:
        return Path("/var/lib/postgresql")


def _letters(connection: Connection) -> Iterator[Finding]:
    if not _has(connection, "room_dead_letters"):
        return
    rows = connection.execute(f"SELECT doc FROM room_dead_letters LIMIT {MOST_LETTERS}").fetchall()
    yield _waiting([bytes(doc) for (doc,) in rows])


def _one(connection: Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    return None if row is None else row[0]


def _has(connection: Connection, table: str) -> bool:
    return _one(connection, f"SELECT to_regclass('{table}')") is not None


# SQLite.


class _House(NamedTuple):
    what: str
    path: Path
    name: str
    known: list[str]


def _files(file: Path) -> Iterator[Finding]:
    from cloud_hub.storage.embedded import hub_migrations
    from cloud_hub.storage.embedded_telemetry import telemetry_migrations

    if not file.is_absolute():
        yield worth_a_look(
            "store's place", False, f"{file} lies wherever the hub is started from",
            f"store = \"sqlite:///{file.absolute()}\" in the hub's settings",
        )  # fmt: skip
    yield disk("store's disk", file.parent)
    beside = file.with_name(f"{file.stem}-telemetry{file.suffix}")
    for house in (
        _House("store", file, "hub", [one.name for one in hub_migrations._migrations]),
        _House("readings", beside, "telemetry", [one.name for one in telemetry_migrations._migrations]),
    ):
        yield from _file(house)
    yield _file_acts(file)


def _file(house: _House) -> Iterator[Finding]:
    try:
        if not house.path.exists():
            made = "start the hub: it makes it at its first start"
            yield worth_a_look(house.what, False, f"{house.path} is not there yet", made)
            return
        # Where no log lies beside it nobody is at work, and SQLite need not make one to read.
        how = "mode=ro" if Path(f"{house.path}-wal").exists() else "immutable=1"
        connection = sqlite3.connect(f"{house.path.resolve().as_uri()}?{how}", uri=True, timeout=2)
        with closing(connection):
            taken = {
                str(name)
                for (name,) in connection.execute(
                    "SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (house.name,)
                )
            }
            yield Finding(house.what, True, f"{house.path}: {house.path.stat().st_size / 1e6:.1f} MB")
            yield _release(f"tables of {house.name}", taken, house.known)
            if house.name == "hub":
                rows = connection.execute(f"SELECT doc FROM room_dead_letters LIMIT {MOST_LETTERS}").fetchall()
                yield _waiting([bytes(doc) for (doc,) in rows])
    except PermissionError as wrong:
        yield unseen(house.what, f"{house.path}: {wrong.strerror}", ASK_AS)
    except (sqlite3.Error, OSError) as wrong:
        mend = f"waywarden restore FILE --store sqlite:///{house.path}, after moving this file away"
        yield Finding(house.what, False, f"{house.path} cannot be read: {wrong}", mend)


def _file_acts(file: Path) -> Finding:
    """By the kernel's list of locks: asking for the lock oneself could keep a hub that starts from having it."""
    lock = Path(f"{file}.acting")
    try:
        inode = lock.stat().st_ino
        held = any(f":{inode} " in line and "FLOCK" in line for line in Path("/proc/locks").read_text().splitlines())
        holder = lock.read_text(errors="replace").strip() if held else ""
    except OSError:
        held, holder = False, ""
    return worth_a_look("who acts", held, holder or "nobody", "systemctl start waywarden-hub")


def _waiting(letters: Sequence[bytes]) -> Finding:
    import msgspec

    from cloud_hub.fleet import DeadLetter

    waiting = 0
    for letter in letters:
        try:
            waiting += msgspec.json.decode(letter, type=DeadLetter).state == "waiting"
        except msgspec.MsgspecError:
            waiting += 1
    return worth_a_look("dead letters", not waiting, f"{waiting} wait to be looked at", LETTERS)
