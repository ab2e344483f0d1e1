"""Who is forgotten is gone from the bytes of the disk, and was never in a log."""

import base64
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_agent.ballast import Ballast
from edge_agent.dialogue import ObjectSaid, OutcomeSaid
from edge_agent.store import SqliteStore
from shared.messages import Ack, PersonForgotten
from shared.steps import Row
from shared.work import AgentId, Outcome, StopId
from tests.agents import Rig, place, plan_of, row_of_houses
from tests.unit.test_agent_forgetting import ANNA, MARKS

NOISE = os.urandom(120_000)
PICTURE = b"\x89PNG\r\n\x1a\nSIGNED" + NOISE
MARKS_ON_DISK = (
    *MARKS,
    NOISE[:40],
    NOISE[-40:],
    base64.b64encode(PICTURE[: 3 * 4096])[8_000:8_060],
)


class HandMade(Ballast):
    """Room that is held back, or is not, as a test says."""

    def __init__(self) -> None:
        self.is_there = False

    def make(self) -> bool:
        return self.is_there

    def let_go(self) -> bool:
        return self.is_there


class StoredRig(Rig):
    """A rig whose rows are also committed to a real store."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        super().__init__()

    def _commit(self, rows: Sequence[Row]) -> None:
        super()._commit(rows)
        if rows:
            self.store.commit(rows)


def rows_that_move(room: str) -> list[list[Row]]:
    """Commits of rows that grow and shrink, so that pages split and rows move; the last one leaves no secret."""
    luck = random.Random(1)
    keys = [f"{k:04d}" for k in range(300)]
    commits = []
    for share in (1.0, 0.6, 0.6, 0.6, 0.0):
        luck.shuffle(keys)
        secret = {key: b"secret" * luck.randint(1, 150) if luck.random() < share else b"" for key in keys}
        commits.append([Row(room, key, secret[key] or luck.randbytes(luck.randint(10, 900))) for key in keys])
    return commits


def traces(folder: Path) -> list[bytes]:
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    return [mark for mark in MARKS_ON_DISK if any(mark in each for each in files)]


def test_no_byte_of_the_store_names_who_was_forgotten(tmp_path: Path) -> None:
    rig = StoredRig(tmp_path / "memory.sqlite")
    rig.push(plan_of([ANNA, *row_of_houses(3)[1:]]))
    rig.begin()
    rig.link_up()
    rig.heads_for("s1")
    rig.stands_at(place(400, 0), after_s=100)
    photo = rig.driver(ObjectSaid("photo", "s1", "image/png", PICTURE)).found["digest"]
    assert rig.driver(OutcomeSaid("s1", Outcome.REFUSED, "barks at hats", photo=photo)).status == 200
    rig.step(Ack(AgentId("van-1"), "b1", "events", 1_000))
    rig.visits("s2")
    assert set(traces(tmp_path)) == set(MARKS_ON_DISK)
    rig.hub(PersonForgotten((StopId("s1"),)))
    rig.step(Ack(AgentId("van-1"), "b1", "events", 1_000), Ack(AgentId("van-1"), "b1", "objects", 1_000))
    rig.step()
    assert traces(tmp_path) == []
    rig.store.close()
    assert traces(tmp_path) == []


def test_another_day_leaves_nothing_of_the_day_before_once_the_store_is_closed(tmp_path: Path) -> None:
    rig = StoredRig(tmp_path / "memory.sqlite")
    rig.push(plan_of([ANNA, *row_of_houses(3)[1:]]))
    rig.push(plan_of(row_of_houses(3), version=2, day="2026-11-24"))
    rig.store.close()
    assert traces(tmp_path) == []


def test_no_byte_is_left_in_a_page_whose_rows_have_moved(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "memory.sqlite")
    *former, last = rows_that_move("a")
    for rows in former:
        store.commit(rows)
    store.commit([*last, Row("forgotten", "s1", b"1")])
    left = [path.name for path in tmp_path.iterdir() if b"secret" in path.read_bytes()]
    assert left == []


def test_what_a_full_disk_kept_from_being_erased_is_erased_when_there_is_room(tmp_path: Path) -> None:
    ballast = HandMade()
    store = SqliteStore(tmp_path / "memory.sqlite", ballast)
    *former, last = rows_that_move("a")
    for rows in former:
        store.commit(rows)
    store.commit([*last, Row("forgotten", "s1", b"1")])
    assert store.is_tight
    ballast.is_there = True
    store._look_again_s = 0.0
    store.commit([])
    assert [path.name for path in tmp_path.iterdir() if b"secret" in path.read_bytes()] == []


def test_a_process_killed_before_it_erased_does_so_when_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "memory.sqlite"
    store = SqliteStore(path)
    *former, last = rows_that_move("a")
    for rows in former:
        store.commit(rows)
    with monkeypatch.context() as killed:
        killed.setattr(SqliteStore, "_erase", lambda self: None)
        store.commit([*last, Row("forgotten", "s1", b"1")])
    store.close()
    assert b"secret" in path.read_bytes()
    SqliteStore(path).close()
    assert b"secret" not in path.read_bytes()
