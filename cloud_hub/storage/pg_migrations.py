"""Bring a PostgreSQL database up to this release: numbered steps, each once, whoever starts and however often.

One advisory lock lets one process through at a time. A step and the row that says it was taken are one transaction, so
a process killed in the middle has done nothing of it. What PostgreSQL does not take inside a transaction is a step of
its own kind: each of its statements must be safe to repeat, for it may be killed between them and before its row.
Steps are only ever added to.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psycopg

from cloud_hub.storage import StoreUnreadable
from shared.logs import log

LOCK = 0x7761_7977_6172_6465
"""The advisory lock of whoever migrates: "waywarde" in ASCII."""

PATIENCE_S = 120.0
"""How long to wait for another process that migrates: a step may rewrite a table."""

LOOK_AGAIN_S = 0.05

Step = str | Callable[["psycopg.Connection[Any]"], None]
"""Something to do: a statement, or a function for what needs an answer first."""


class Migration(NamedTuple):
    """One step: its name, which is numbered and never changes, and what it does, in order.

    `is_transactional` is False for statements that refuse to run inside a transaction. Then each must be safe to
    repeat (IF NOT EXISTS, or a function that looks first).
    """

    name: str
    steps: tuple[Step, ...]
    is_transactional: bool = True


def migrate(
    connection: "psycopg.Connection[Any]",
    house: str,
    steps: Sequence[Migration],
    patience_s: float = PATIENCE_S,
) -> list[str]:
    """Take every step of this house ("hub", "telemetry") that the database has not seen, in order; the names of those
    taken now. The connection must be in autocommit mode and outside a transaction.

    Raises StoreUnreadable when a newer release has been at work, or when another process holds the lock for longer than
    `patience_s`; psycopg.Error when a step fails, which leaves the database as it was before that step.
    """
    assert connection.autocommit, "migrations begin and end their own transactions"
    _lock(connection, patience_s)
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS waywarden_migrations (house text NOT NULL, name text NOT NULL, "
            "at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (house, name))"
        )
        taken = applied(connection, house)
        strange = sorted(taken - {step.name for step in steps})
        if strange:
            raise StoreUnreadable(f"the database was written by a newer release ({', '.join(strange)}): install that")
        missing = [step for step in steps if step.name not in taken]
        for migration in missing:
            _take(connection, house, migration)
        return [migration.name for migration in missing]
    finally:
        if not connection.broken and not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


def applied(connection: "psycopg.Connection[Any]", house: str) -> set[str]:
    """The names of the steps a database has seen of this house; empty when it has never been migrated."""
    if connection.execute("SELECT to_regclass('waywarden_migrations')").fetchone() == (None,):
        return set()
    rows = connection.execute("SELECT name FROM waywarden_migrations WHERE house = %s", (house,))
    return {str(name) for (name,) in rows}


def _lock(connection: "psycopg.Connection[Any]", patience_s: float) -> None:
    """Tried again and again rather than waited for, so that the wait has an end and is said."""
    deadline = time.monotonic() + patience_s
    is_said = False
    while connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone() != (True,):
        if not is_said:
            log("migration_waits", why="another process brings the database up to its release")
            is_said = True
        if time.monotonic() > deadline:
            raise StoreUnreadable(
                f"another process has been migrating the database for more than {patience_s:g} s; look for it with "
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory', end it, and start again"
            )
        time.sleep(LOOK_AGAIN_S)


def _take(connection: "psycopg.Connection[Any]", house: str, migration: Migration) -> None:
    if not migration.is_transactional:
        _do(connection, migration)
        _note(connection, house, migration)
        return
    with connection.transaction():
        _do(connection, migration)
        _note(connection, house, migration)


def _do(connection: "psycopg.Connection[Any]", migration: Migration) -> None:
    for step in migration.steps:
        if isinstance(step, str):
            connection.execute(step.encode())  # Bytes: a statement as it is, without placeholders.
        else:
            step(connection)


def _note(connection: "psycopg.Connection[Any]", house: str, migration: Migration) -> None:
    connection.execute("INSERT INTO waywarden_migrations (house, name) VALUES (%s, %s)", (house, migration.name))
