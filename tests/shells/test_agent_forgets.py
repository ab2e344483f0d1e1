"""Who is forgotten is gone from the bytes of the disk, and was never in a log."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

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


class StoredRig(Rig):
    """A rig whose rows are also committed to a real store."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        super().__init__()

    def _commit(self, rows: Sequence[Row]) -> None:
        super()._commit(rows)
        if rows:
            self.store.commit(rows)


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
