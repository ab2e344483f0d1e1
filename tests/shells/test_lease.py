"""The right to act, kept by two threads: what ends the process, and what does not."""

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud_hub.acting import ENDS_AFTER_S, RENEW_S, TEMPORARY, CommitFailed, Lease, WatchedStore
from cloud_hub.storage import LEASE_S, Fenced, StoreAway
from cloud_hub.storage.embedded import EmbeddedStore
from deploy.stack import Stack
from shared.steps import Row


class Store(EmbeddedStore):
    """A real store whose right to act can be lost, or whose answer can stay away."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.answers: queue.SimpleQueue[bool | Exception] = queue.SimpleQueue()
        self.asked = threading.Semaphore(0)

    def renew(self) -> bool:
        self.asked.release()
        answer = self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Overtaken(EmbeddedStore):
    """A store as PostgreSQL is when another hub acts."""

    def commit(self, rows: Sequence[Row]) -> None:
        raise Fenced("another hub acts for this region")


@contextmanager
def held(folder: Path) -> Iterator[tuple[Store, "queue.SimpleQueue[str]"]]:
    """A lease that has been taken, and what it ended the process with."""
    store, ended = Store(folder / "hub.db"), queue.SimpleQueue()  # type: tuple[Store, queue.SimpleQueue[str]]
    lease = Lease(store, "main", "here/1", runs_out=True, end=ended.put)
    assert lease.take()
    try:
        yield store, ended
    finally:
        lease.stop()
        store.answers.put(True)
        store.close()


def test_a_process_ends_before_another_may_take_its_place() -> None:
    assert RENEW_S < ENDS_AFTER_S / 3
    assert ENDS_AFTER_S < LEASE_S


def test_a_right_that_another_has_now_ends_the_process(tmp_path: Path) -> None:
    with held(tmp_path) as (store, ended):
        store.answers.put(False)
        assert ended.get(timeout=5) == "another hub acts for region 'main' now"


def test_a_renewal_that_never_answers_ends_the_process(tmp_path: Path) -> None:
    with held(tmp_path) as (store, ended):
        assert store.asked.acquire(timeout=5)  # And nobody answers.
        assert "could not be renewed for 2." in ended.get(timeout=5)


def test_a_store_that_is_away_for_a_moment_ends_nothing(tmp_path: Path) -> None:
    with held(tmp_path) as (store, ended):
        for answer in (StoreAway("away"), True, True):
            store.answers.put(answer)
            assert store.asked.acquire(timeout=5)
        assert ended.empty()


def test_a_lock_on_a_file_does_not_run_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "hub.db")
    lease = Lease(store, "main", "here/1", runs_out=False, end=pytest.fail)
    assert (lease.take(), lease.age_s) == (True, 0.0)
    assert not store.asked.acquire(timeout=2 * RENEW_S)  # Nothing is renewed.
    store.close()


def test_a_commit_that_is_not_taken_is_named_and_one_that_is_fenced_stays_what_it_is(tmp_path: Path) -> None:
    store, took = EmbeddedStore(tmp_path / "hub.db"), []  # type: tuple[EmbeddedStore, list[float]]
    watched = WatchedStore(store, took.append)
    watched.commit([Row("orders", "a", b"{}")])
    assert len(took) == 1
    with pytest.raises(CommitFailed, match="1 rows were not taken"):
        watched.commit([Row("no such room", "a", b"{}")])
    with pytest.raises(Fenced):
        WatchedStore(Overtaken(tmp_path / "hub.db"), took.append).commit([])


def test_a_process_that_asks_to_be_started_again_is(tmp_path: Path) -> None:
    with Stack(tmp_path / "logs", {}) as stack:
        once = f"import pathlib, sys; p = pathlib.Path({str(tmp_path / 'been')!r}); n = p.exists(); p.touch()"
        stack.start_program("hub", sys.executable, "-c", f"{once}; sys.exit(0 if n else {TEMPORARY})")
        stack._processes["hub"].wait(20)
        assert stack.revive() == ["hub"]
        stack._processes["hub"].wait(20)
        assert stack.revive() == []
        assert stack.fallen() == ["hub ended with 0: (it wrote nothing)"]
