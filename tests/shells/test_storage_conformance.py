"""Every hub store keeps all of a commit or none of it, answers alike, and lets one hub act: one suite for all."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_hub.fleet import KeptDecision
from cloud_hub.storage import ARCHIVES, ROOMS, DecisionsAsked, HubStore, StoreUnreadable, open_hub_store
from cloud_hub.traces import SWEEP, Traces
from shared.ledger import Decision
from shared.messages import ObjectPart
from shared.quantities import EpochMs, Position
from shared.steps import Row
from shared.work import AgentId, StopId

REFUSED_BY_THE_DATABASE = (sqlite3.IntegrityError, psycopg.errors.UniqueViolation)


KINDS = ["embedded", "postgres", *(["timescale"] if os.environ.get("TIMESCALE_URL") else [])]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new store of each kind."""
    if request.param == "embedded":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    fresh = {"postgres": "fresh_store", "timescale": "fresh_timescale"}[request.param]
    return str(request.getfixturevalue(fresh)())


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[], HubStore]]:
    """Opens the store, as often as it is asked; all are closed with the test."""
    stores: list[HubStore] = []

    def one_more() -> HubStore:
        stores.append(open_hub_store(url, 5.0))
        return stores[-1]

    yield one_more
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], HubStore]) -> HubStore:
    """The store, open."""
    return opened()


def decision(number: int, kind: str = "window_moved", about: tuple[str, ...] = (), by: str = "hub") -> Row:
    made = Decision(f"{by}-{number}", AgentId(by), kind, EpochMs(number), "Words.", "why", (), (), 0, "", "", about)
    kept = KeptDecision(msgspec.Raw(msgspec.json.encode(made)), AgentId(by), number, True, EpochMs(number))
    return Row("decisions", f"{by}/{number:09d}", msgspec.json.encode(kept))


def test_what_was_committed_is_there_when_it_is_opened_again(opened: Callable[[], HubStore]) -> None:
    store = opened()
    store.commit([Row("orders", "b", b"2"), Row("orders", "a", b"1"), Row("stops", "s", b"3")])
    store.commit([Row("orders", "b", None), Row("orders", "a", b"one")])
    store.close()
    again = opened()
    assert again.saved()["orders"] == {"a": b"one"}
    assert again.saved()["stops"] == {"s": b"3"}
    assert set(again.saved()) == set(ROOMS)
    assert again.document("orders", "b") is None
    assert again.document("orders", "a") == b"one"


def test_of_one_key_the_last_word_of_a_commit_counts(store: HubStore) -> None:
    store.commit(
        [Row("orders", "a", b"1"), Row("orders", "a", None), Row("orders", "b", None), Row("orders", "b", b"2")]
    )
    assert store.documents("orders") == [("b", b"2")]
    store.commit(
        [Row("orders", "b", b"3"), Row("orders", "b", None), Row("orders", "c", b""), Row("orders", "c", b"4")]
    )
    assert store.documents("orders") == [("c", b"4")]


def test_a_commit_that_fails_leaves_nothing_behind(store: HubStore) -> None:
    store.commit([decision(1)])
    with pytest.raises(REFUSED_BY_THE_DATABASE):
        store.commit([Row("orders", "a", b"1"), decision(1)])
    assert store.documents("orders") == []
    store.commit([Row("orders", "a", b"1")])
    assert store.documents("orders") == [("a", b"1")]


def test_every_room_and_archive_can_be_written_and_one_nobody_named_is_refused(store: HubStore) -> None:
    rooms = [room for room in (*ROOMS, *ARCHIVES) if room != "decisions"]
    store.commit([Row(room, "k", room.encode()) for room in rooms])
    assert [store.document(room, "k") for room in rooms] == [room.encode() for room in rooms]
    with pytest.raises(KeyError, match="no room 'cellar'"):
        store.commit([Row("orders", "a", b"1"), Row("cellar", "a", b"1")])
    with pytest.raises(KeyError, match="no room 'cellar'"):
        store.documents("cellar")
    assert store.document("orders", "a") is None


def test_decisions_are_found_by_node_kind_and_what_they_are_about(store: HubStore) -> None:
    store.commit([decision(1, about=("order-1", "van-1")), decision(2, "planned", ("van-1",))])
    store.commit([decision(1, "resequence", ("stop-1",), "van-1"), decision(3, about=("order-2",))])

    def numbers(**asked: object) -> list[int]:
        return [row.number for row in store.decisions(DecisionsAsked(**asked))]  # type: ignore[arg-type]  # By name.

    assert numbers() == [1, 2, 3, 4]
    assert numbers(agent="van-1") == [3]
    assert numbers(kind="window_moved") == [1, 4]
    assert numbers(about="order-1") == [1]
    assert numbers(about="van-1") == [1, 2, 3]
    assert numbers(after=2, most=1) == [3]
    assert numbers(newest_first=True, most=2) == [4, 3]
    found = store.decision("van-1-1")
    assert found is not None
    assert found.number == 3
    assert store.decision("van-1-2") is None


def test_all_decisions_are_read_in_the_order_of_their_commits(store: HubStore) -> None:
    rows = [decision(number) for number in range(1, 1_203)]
    store.commit(rows)
    assert list(store.chained()) == [row.value for row in rows]


def test_documents_are_read_by_how_their_keys_begin(store: HubStore) -> None:
    keys = ("a.1/email/001", "a.1/sms/001", "a.10/email/001", "b/email/001", "B/email/001", "ä/1", "_", "%")
    store.commit([Row("receipts", key, b"1") for key in keys])
    assert [key for key, _ in store.documents("receipts", "a.1/")] == ["a.1/email/001", "a.1/sms/001"]
    assert [key for key, _ in store.documents("receipts", "b")] == ["b/email/001"]
    assert [key for key, _ in store.documents("receipts")] == sorted(keys)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=6, unique=True), st.binary())
def test_keys_and_documents_of_any_kind_come_back_as_they_were(store: HubStore, keys: list[str], doc: bytes) -> None:
    store.commit(
        [*(Row("stops", key, None) for key, _ in store.documents("stops")), *(Row("stops", k, doc) for k in keys)]
    )
    assert store.documents("stops") == [(key, doc) for key in sorted(keys, key=str.encode)]
    assert store.saved()["stops"] == dict.fromkeys(keys, doc)
    assert all(store.document("stops", key) == doc for key in keys)
    start = keys[0][:2] if keys else ""
    assert [key for key, _ in store.documents("stops", start)] == sorted(k for k in keys if k.startswith(start))


def test_words_no_database_likes_do_not_stop_a_commit(store: HubStore) -> None:
    strange = decision(1, "nul\x00kind", ("nul\x00word", "mark\x01word"), "van\x00")
    store.commit([strange, Row("orders", "nul\x00key", b"\x00")])
    assert store.document("orders", "nul\x00key") == b"\x00"
    assert [row.doc for row in store.decisions(DecisionsAsked(about="nul\x00word"))] == [strange.value]
    assert [row.doc for row in store.decisions(DecisionsAsked(agent="van\x00", kind="nul\x00kind"))] == [strange.value]
    assert store.decision("van\x00-1") is not None


def test_what_is_swept_is_gone_with_its_commit_and_all_else_stays(store: HubStore) -> None:
    piece = b"p" * 40_000
    mine = ObjectPart("a" * 64, "photo", StopId("stop-1"), "image/png", 0, 1, b"Anna" + piece)
    other = ObjectPart("b" * 64, "photo", StopId("stop-10"), "image/png", 0, 1, b"Bertta" + piece)
    store.commit(
        [
            Row("objects", f"{'a' * 64}/s1/0000", msgspec.json.encode(mine)),
            Row("objects", f"{'b' * 64}/s2/0000", msgspec.json.encode(other)),
            Row("receipts", "1", b'{"order_id":"order-1","answer":"250 anna@example.fi"}'),
            Row("receipts", "2", b'{"order_id":"order-10","answer":"250 bertta@example.fi"}'),
            *(Row("receipts", f"more/{n}", b'{"order_id":"order-1"}') for n in range(1_100)),
            Row("corrections", "hidden lane", b'{"position":[60.1,24.9],"by":"bert"}'),
            Row("customers", "anna", b'{"name":"Anna Virtanen"}'),
        ]
    )
    traces = Traces(frozenset({"order-1"}), frozenset({"stop-1"}), (Position(60.1, 24.9),))
    late = b'{"order_id":"order-1","answer":"said in the same commit, before"}'
    store.commit(
        [
            Row("receipts", "before", late),
            Row("customers", "anna", None),
            Row(SWEEP, "", msgspec.json.encode(traces)),
            Row("receipts", "after", late),
        ]
    )
    assert [key for key, _ in store.documents("objects")] == [f"{'b' * 64}/s2/0000"]
    assert [key for key, _ in store.documents("receipts")] == ["2", "after"]
    assert store.documents("corrections") == []
    assert store.document("customers", "anna") is None


def test_a_sweep_that_cannot_be_read_fails_the_whole_commit(store: HubStore) -> None:
    with pytest.raises(msgspec.DecodeError):
        store.commit([Row("customers", "anna", b"{}"), Row(SWEEP, "", b"nonsense")])
    assert store.documents("customers") == []
    store.commit([Row("customers", "anna", b"{}")])


def test_every_commit_said_to_be_done_is_there_after_sigkill(url: str, opened: Callable[[], HubStore]) -> None:
    script = (
        "from cloud_hub.storage import open_hub_store\nfrom shared.steps import Row\n"
        f"store = open_hub_store({url!r})\nassert store.act('main', 'me')\n"
        "for n in range(100000):\n"
        "    store.commit([Row('orders', f'{n:06d}', b'x'), Row('stops', f'{n:06d}', b'y')])\n"
        "    print(n, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(40)]
    os.kill(writer.pid, signal.SIGKILL)
    said += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    writer.stdout.close()
    store = opened()
    acts(store, "after the kill")
    saved = store.saved()
    assert set(saved["orders"]) == set(saved["stops"])
    assert {f"{n:06d}" for n in said} <= set(saved["orders"])


def test_a_dump_is_everything_at_one_instant_while_the_hub_works_on(store: HubStore) -> None:
    store.commit([Row("orders", f"{n:04d}", b"before") for n in range(1_200)] + [decision(2), decision(1)])
    dump = store.dump()
    first = next(dump)
    store.commit([Row("stops", "s", b"after"), Row("orders", "0000", b"after"), decision(3)])
    rows = [first, *dump]
    assert [row.key for row in rows if row.room == "decisions"] == ["hub/000000002", "hub/000000001"]
    assert {row.value for row in rows if row.room == "orders"} == {b"before"}
    assert [row for row in rows if row.room == "stops"] == []
    assert len(rows) == 1_202


def test_one_hub_acts_and_another_does_when_it_has_let_go(opened: Callable[[], HubStore]) -> None:
    first, second = opened(), opened()
    assert first.acting("main") == ""
    assert first.act("main", "hub one")
    assert first.act("main", "hub one"), "who acts already may ask again"
    assert not second.act("main", "hub two")
    assert not second.renew()
    assert second.acting("main") == "hub one"
    assert first.renew()
    first.commit([Row("orders", "a", b"1")])
    first.close()
    assert second.act("main", "hub two")
    assert second.acting("main") == "hub two"
    assert second.saved()["orders"] == {"a": b"1"}
    second.commit([Row("orders", "a", b"2")])


def test_a_hub_that_is_killed_is_replaced_without_its_doing(url: str, store: HubStore) -> None:
    script = (
        "from cloud_hub.storage import open_hub_store\n"
        f"store = open_hub_store({url!r})\nprint(store.act('main', 'me'), flush=True)\nimport time; time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"True\n"
    assert not store.act("main", "the other")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    acts(store, "the other")


def test_many_threads_read_while_one_writes(store: HubStore) -> None:
    store.commit([Row("orders", f"{n}", b"1") for n in range(50)])
    found: list[int] = []

    def read() -> None:
        found.extend(len(store.documents("orders")) for _ in range(10))

    threads = [threading.Thread(target=read) for _ in range(12)]
    for thread in threads:
        thread.start()
    for n in range(20):
        store.commit([Row("stops", f"{n}", b"1")])
    for thread in threads:
        thread.join()
    assert found == [50] * 120


def test_a_store_of_a_newer_release_is_not_opened(url: str, opened: Callable[[], HubStore]) -> None:
    opened().close()
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
            file.execute(
                "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('hub', '9999_later', '')"
            )
    else:
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO waywarden_migrations (house, name) VALUES ('hub', '9999_later')")
    with pytest.raises(StoreUnreadable, match=r"newer release \(9999_later\)"):
        opened()


def acts(store: HubStore, holder: str, patience_s: float = 5.0) -> float:
    """Ask to act until it is granted; after how many seconds it was."""
    began = time.monotonic()
    while not store.act("main", holder):
        assert time.monotonic() - began < patience_s, f"in vain for {patience_s} s: {holder} acts"
        time.sleep(0.05)
    return time.monotonic() - began
