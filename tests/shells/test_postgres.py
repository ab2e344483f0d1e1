"""PostgreSQL as a hub's store: who was overtaken cannot write, a restart is lived through, and starting is safe."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import psycopg
import pytest

from cloud_hub.storage import (
    LEASE_S,
    Fenced,
    StoreAway,
    StoreUnknown,
    StoreUnreadable,
    open_hub_store,
    shown_url,
)
from cloud_hub.storage.pg_migrations import Migration, applied, migrate
from cloud_hub.storage.postgres import MIGRATIONS, PostgresStore
from cloud_hub.traces import SWEEP, Traces
from deploy.stack import Stack, free_ports
from shared.steps import Row, Saved
from tests.postgres import PostgresServer


@pytest.fixture
def url(fresh_store: Callable[[], str]) -> str:
    """A new store."""
    return fresh_store()


@pytest.fixture
def empty(fresh_database: Callable[[], str]) -> str:
    """A database nobody has migrated yet."""
    return fresh_database()


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own, which it may stop and start."""
    with PostgresServer() as own:
        yield own


def overtaken_after_s(store: PostgresStore) -> float:
    """Ask to act until it is granted; after how many seconds it was."""
    began = time.monotonic()
    while not store.act("main", "the standby"):
        assert time.monotonic() - began < 10, "in vain for 10 s: the standby acts"
        time.sleep(0.05)
    return time.monotonic() - began


# The fence.


def test_a_holder_that_was_stopped_and_wakes_up_can_neither_commit_nor_renew(url: str) -> None:
    script = (
        "import sys; from cloud_hub.storage import Fenced, open_hub_store; from shared.steps import Row\n"
        f"store = open_hub_store({url!r})\nassert store.act('main', 'the sleeper')\nstore.renew()\n"
        "print('acts', flush=True)\nsys.stdin.readline()\n"
        "try:\n    store.commit([Row('orders', 'a', b'of the sleeper')])\n    print('committed')\n"
        "except Fenced:\n    print('fenced')\n"
        "print(store.renew())\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "acts\n"
    os.kill(holder.pid, signal.SIGSTOP)
    standby = PostgresStore(url)
    assert overtaken_after_s(standby) < LEASE_S + 1
    standby.commit([Row("orders", "a", b"of the standby")])
    os.kill(holder.pid, signal.SIGCONT)
    said, _ = holder.communicate("go\n", timeout=20)
    assert said.splitlines() == ["fenced", "False"]
    assert standby.documents("orders") == [("a", b"of the standby")]
    standby.close()


def test_a_holder_behind_a_half_open_link_is_overtaken_and_soon_knows_that_it_is_cut_off(
    url: str, stack: Stack, postgres: PostgresServer
) -> None:
    near, control = free_ports(2)
    stack.start("cable", "deploy.cable", str(near), f"127.0.0.1:{postgres.port}", str(control))
    stack.wait_for_port("cable", control)
    holder = PostgresStore(url.replace(f":{postgres.port}/", f":{near}/"))
    assert holder.act("main", "the holder")
    holder.commit([Row("orders", "a", b"1")])
    # Its connections stay open and nothing is copied any more.
    os.kill(stack.ids["cable"], signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreAway):
        holder.renew()
    assert time.monotonic() - began < 3
    with pytest.raises(StoreAway):
        holder.renew()
    standby = PostgresStore(url)
    overtaken_after_s(standby)
    assert time.monotonic() - began < LEASE_S + 1 + 2, "the lease, a second, and what the holder's first try took"
    standby.commit([Row("orders", "a", b"2")])
    os.kill(stack.ids["cable"], signal.SIGCONT)
    with pytest.raises((Fenced, psycopg.OperationalError)):
        holder.commit([Row("orders", "a", b"3")])
    assert standby.documents("orders") == [("a", b"2")]
    for store in (holder, standby):
        store.close()


def test_a_half_open_commit_holds_nobody_up_and_is_undone(url: str) -> None:
    holder, standby = PostgresStore(url), PostgresStore(url)
    assert holder.act("main", "the holder")
    # What a holder leaves behind that is cut off in the middle of a commit.
    holder._writer.execute("BEGIN")
    holder._writer.execute("SELECT waywarden_fence('main', 1)")
    holder._writer.execute("INSERT INTO room_orders VALUES ('a', 'half')")
    assert overtaken_after_s(standby) < LEASE_S + 1
    assert standby.saved()["orders"] == {}
    for store in (holder, standby):
        store.close()


def test_a_commit_under_way_is_seen_by_whoever_takes_over(url: str) -> None:
    holder, standby = PostgresStore(url), PostgresStore(url)
    assert holder.act("main", "the holder")
    with psycopg.connect(url, autocommit=True) as clock:
        clock.execute("UPDATE acting SET lease_until = clock_timestamp() - interval '1 s'")
    holder._writer.execute("BEGIN")
    holder._writer.execute("SELECT waywarden_fence('main', 1)")

    def take_over_and_recover() -> Saved:
        overtaken_after_s(standby)
        return standby.saved()

    with ThreadPoolExecutor(1) as elsewhere:
        recovering = elsewhere.submit(take_over_and_recover)
        with pytest.raises(TimeoutError):
            recovering.result(0.3)
        holder._writer.execute("INSERT INTO room_orders VALUES ('a', 'just in time')")
        holder._writer.execute("COMMIT")
        assert recovering.result()["orders"] == {"a": b"just in time"}
    with pytest.raises(Fenced, match="another hub acts"):
        holder.commit([Row("orders", "a", b"too late")])
    assert not holder.renew()
    for store in (holder, standby):
        store.close()


def test_who_acts_for_nobody_cannot_write_while_a_hub_acts(url: str) -> None:
    hub, tool = PostgresStore(url), PostgresStore(url)
    tool.commit([Row("orders", "a", b"1")])
    assert hub.act("main", "the hub")
    with pytest.raises(Fenced):
        tool.commit([Row("orders", "a", b"2")])
    hub.close()
    tool.commit([Row("orders", "a", b"3")])
    tool.close()


def test_two_regions_do_not_share_a_database(url: str) -> None:
    first, second = PostgresStore(url), PostgresStore(url)
    assert first.act("north", "hub one")
    with pytest.raises(StoreUnreadable, match="of region 'north', expected 'south'"):
        second.act("south", "hub two")
    for store in (first, second):
        store.close()


def test_of_many_that_ask_at_once_one_acts(url: str) -> None:
    stores = [PostgresStore(url) for _ in range(6)]
    granted: list[bool] = []
    start = threading.Barrier(len(stores))

    def ask(store: PostgresStore) -> None:
        start.wait()
        granted.append(store.act("main", "one of many"))

    threads = [threading.Thread(target=ask, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == [False] * 5 + [True]
    for store in stores:
        store.close()


# Restarts and absences.


def test_a_database_that_is_started_anew_is_read_again_and_the_hub_still_acts(server: PostgresServer) -> None:
    store = PostgresStore(server.fresh_database())
    assert store.act("main", "the hub")
    store.commit([Row("orders", "a", b"1")])
    assert store.documents("orders") == [("a", b"1")]
    server.kill()
    with ThreadPoolExecutor(1) as elsewhere:
        reading = elsewhere.submit(store.documents, "orders")
        with pytest.raises(TimeoutError):
            reading.result(0.3)
        server.start()
        assert reading.result() == [("a", b"1")]
    assert store.saved()["orders"] == {"a": b"1"}
    assert store.renew()
    with pytest.raises(psycopg.OperationalError):
        store.commit([Row("orders", "a", b"2")])
    store.close()


def test_a_hub_that_starts_waits_for_its_database(server: PostgresServer, capfd: pytest.CaptureFixture[str]) -> None:
    url = server.fresh_database()
    server.stop()
    with ThreadPoolExecutor(1) as elsewhere:
        opening = elsewhere.submit(open_hub_store, url, 10.0)
        with pytest.raises(TimeoutError):
            opening.result(0.3)
        server.start()
        store = opening.result()
    assert store.documents("orders") == []
    assert capfd.readouterr().err.count("store_awaited") == 1
    store.close()


# URLs.


def test_a_url_that_leads_nowhere_is_refused_with_what_to_do(url: str, postgres: PostgresServer) -> None:
    (nobody,) = free_ports(1)
    with pytest.raises(StoreAway, match=r"hub@127.0.0.1.*out of reach.*refused.*start it"):
        open_hub_store(f"postgresql://hub:secret@127.0.0.1:{nobody}/hub", 0.0)
    with pytest.raises(StoreUnreadable, match=r"does not exist.*CREATE DATABASE"):
        open_hub_store(f"{postgres.url}_of_nobody", 5.0)
    with pytest.raises(StoreUnreadable, match=r"role .* does not exist.*CREATE ROLE"):
        open_hub_store(url.replace("waywarden@", "nobody:secret@"), 5.0)
    with pytest.raises(StoreUnknown, match="no URL of a PostgreSQL"):
        open_hub_store("postgresql://hub:se:cret/@db:5x/hub?nonsense=1", 0.0)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://hub:secret@127.0.0.1:1/hub",
        "postgresql://hub:secret@127.0.0.1:port/hub",
        "postgresql://hub:p@secret/x@127.0.0.1:1/hub",
        "postgresql://127.0.0.1:1/hub?user=hub&password=secret",
        "mysql://hub:secret@db/hub",
    ],
)
def test_no_password_is_ever_printed(url: str) -> None:
    with pytest.raises((StoreAway, StoreUnknown, StoreUnreadable)) as refused:
        open_hub_store(url, 0.0)
    assert "secret" not in "".join(traceback.format_exception(refused.value))
    assert "secret" not in shown_url(url)


def test_a_database_that_is_not_utf8_is_refused(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS ww_latin")
        connection.execute(
            "CREATE DATABASE ww_latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc "
            "TEMPLATE template0"
        )
    with pytest.raises(StoreUnreadable, match="keeps text as LATIN1, expected UTF8"):
        open_hub_store(postgres.url.replace("/postgres", "/ww_latin"), 0.0)


# Migrations.


def test_two_processes_that_start_at_once_bring_the_database_up_once(empty: str) -> None:
    script = f"from cloud_hub.storage.postgres import PostgresStore; PostgresStore({empty!r}).close()"
    both = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate(timeout=30)[1] is not None and process.returncode for process in both] == [0, 0, 0]
    with psycopg.connect(empty, autocommit=True) as connection:
        assert applied(connection, "hub") == {migration.name for migration in MIGRATIONS}
        assert migrate(connection, "hub", MIGRATIONS) == []


SLOW = """
import psycopg, sys
from cloud_hub.storage.pg_migrations import Migration, migrate
connection = psycopg.connect(sys.argv[1], autocommit=True)
def wait(_):
    print("in the middle", flush=True)
    sys.stdin.readline()
half = Migration("0001_two_tables", ("CREATE TABLE one (n int)", wait, "CREATE TABLE two (n int)"))
print(migrate(connection, "trial", [half]), flush=True)
"""


def test_a_process_killed_in_the_middle_of_a_step_has_done_nothing_of_it(empty: str) -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", SLOW, empty], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "in the middle\n"
    second = subprocess.Popen(
        [sys.executable, "-c", SLOW, empty],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert second.stderr is not None
    assert "migration_waits" in second.stderr.readline()
    killed.kill()
    killed.communicate()
    said, _ = second.communicate("go on\n", timeout=30)
    assert said.splitlines() == ["in the middle", "['0001_two_tables']"]
    with psycopg.connect(empty, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM one, two").fetchone() == (0,)


def test_a_step_that_fails_leaves_the_database_as_it_was_and_is_taken_later(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        broken = [
            Migration("0001_a", ("CREATE TABLE a (n int)",)),
            Migration("0002_b", ("CREATE TABLE b ()", "nonsense")),
        ]
        with pytest.raises(psycopg.errors.SyntaxError):
            migrate(connection, "trial", broken)
        assert applied(connection, "trial") == {"0001_a"}
        mended = [broken[0], Migration("0002_b", ("CREATE TABLE b ()", "ALTER TABLE a ADD m int"))]
        assert migrate(connection, "trial", mended) == ["0002_b"]


def test_a_step_outside_a_transaction_may_be_one_that_refuses_to_run_inside(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("CREATE TABLE a (n int)")
        index = "CREATE INDEX CONCURRENTLY IF NOT EXISTS a_by_n ON a (n)"
        assert migrate(connection, "trial", [Migration("0001_index", (index,), False)]) == ["0001_index"]


def test_a_lock_that_is_never_let_go_is_not_waited_for_without_end(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as holder, psycopg.connect(empty, autocommit=True) as connection:
        started = threading.Event()
        go = threading.Event()

        def hold(_: object) -> None:
            started.set()
            go.wait()

        thread = threading.Thread(target=migrate, args=(holder, "trial", [Migration("0001_wait", (hold,))]))
        thread.start()
        started.wait()
        with pytest.raises(StoreUnreadable, match=r"has been migrating the database for more than 0\.1 s"):
            migrate(connection, "trial", [], patience_s=0.1)
        go.set()
        thread.join()


def test_a_user_who_may_not_make_tables_is_told_so(empty: str, postgres: PostgresServer) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS onlooker")
        connection.execute("CREATE ROLE onlooker LOGIN")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(StoreUnreadable, match=r"permission denied.*right to create tables"):
        open_hub_store(empty.replace("waywarden@", "onlooker@"), 0.0)


# Erasing.


def test_what_a_sweep_erased_is_cleaned_from_its_tables_soon(url: str) -> None:
    store = PostgresStore(url)
    store.commit([Row("receipts", "1", b'{"order_id":"order-1"}'), Row("customers", "anna", b"Anna")])
    traces = Traces(frozenset({"order-1"}))
    store.commit([Row("customers", "anna", None), Row(SWEEP, "", msgspec.json.encode(traces))])
    with psycopg.connect(url, autocommit=True) as connection:
        deadline = time.monotonic() + 10
        left = None
        while left != (0,) and time.monotonic() < deadline:
            left = connection.execute(
                "SELECT count(*) FROM pg_stat_user_tables WHERE relname IN ('room_customers', 'room_receipts') "
                "AND last_vacuum IS NULL"
            ).fetchone()
        assert left == (0,)
    store.close()
