"""A fleet copied from a real day: its hub cannot tell it from vans that drove."""

from functools import cache

from cloud_hub.door import Door
from cloud_hub.hub import HubCore, HubIdentity
from shared import wire
from shared.ledger import FIRST_LINK, Decision, first_broken
from shared.messages import Decided, Numbered
from shared.mqtt import Heard
from shared.quantities import EpochMs
from shared.steps import Envelope, LinkUp, Now, step
from shared.work import AgentId
from tests.bench.fleet_day import Copies, Hour, RecordedDay
from tests.universe.day import Rooms
from tests.universe.town import ZONE, Town, clock_face


@cache
def morning() -> RecordedDay:
    """One van with a dozen customers, recorded from half past eight on."""
    day = RecordedDay(Town(), 440, 8.5, 16.0, vans=("van-1",), most_orders=12)
    day.run()
    return day


def test_each_copy_has_names_of_its_own() -> None:
    copies = Copies(morning().hour, 2)
    rows = list(copies.rows())
    assert copies.vans == ["van-1x000", "van-1x001"]
    assert [row.key for row in rows if row.room == "agents"] == ["van-1x000", "van-1x001"]
    assert len({row.key for row in rows if row.room == "stops"}) == 2 * len(morning().hour.rooms["stops"])
    assert not [row for row in rows if b'"van-1"' in (row.value or b"")]


def test_a_hub_takes_everything_the_copies_say_as_if_they_drove() -> None:
    day = morning()
    copies, store, door = Copies(day.hour, 2), Rooms(), Door("main")
    store.commit(list(copies.rows()))
    identity = HubIdentity(region="main", life="later", new_boot="", zone=ZONE, clock_face=clock_face)
    hub = HubCore(identity, store.saved())
    step(hub, store, [LinkUp()], Now(EpochMs(day.hour.from_ms), 0))
    events = 0
    for at_ms, _, envelope in copies.said():
        heard = door.read(Heard(envelope.topic, envelope.payload, None))
        if envelope.topic.endswith("/events"):
            events += 1
        if heard is not None:
            step(hub, store, [heard], Now(EpochMs(at_ms), at_ms))
    assert events > 0
    assert not door.refused
    assert hub.counts["taken.new"] >= events
    assert hub.counts["taken.early"] == 0


def test_every_copy_has_a_chain_of_its_own_that_holds() -> None:
    first = decision(1, FIRST_LINK)
    hour = Hour(0, 10, "2026-03-03", ("van-1",), up=[said(first, 1), said(decision(2, first.link()), 2)])
    spoken = [
        wire.decode_numbered(envelope.payload) for _, van, envelope in Copies(hour, 2).said() if van == "van-1x001"
    ]
    records = [numbered.message.decision for numbered in spoken if isinstance(numbered.message, Decided)]
    assert [record.decision_id for record in records] == ["van-1x001-1", "van-1x001-2"]
    assert first_broken(records) is None


def decision(number: int, previous: str) -> Decision:
    van = AgentId("van-1")
    return Decision(f"van-1-{number}", van, "kept", EpochMs(number), "s", "c", (), (), 0, "", "", previous=previous)


def said(record: Decision, seq: int) -> tuple[int, str, Envelope]:
    numbered = Numbered(AgentId("van-1"), "boot-van-1", "events", seq, EpochMs(seq), 1, Decided(record))
    return seq, "van-1", Envelope("ww/main/van-1/up/events", wire.encode(numbered))
