"""What agents say of their machines, at the hub: the time is told to who asks, and a full disk is on record."""

from cloud_hub.events import PresenceHeard
from shared import wire
from shared.messages import DiskTight, Numbered, PictureGivenUp, Presence, TimeFound, TimeTold
from shared.work import StopId
from tests.unit.hub_cases import VAN, Driven, at, order


def driven() -> Driven:
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    return hub


def told(hub: Driven) -> list[Numbered]:
    commands = [wire.decode_numbered(e.payload) for e in hub.envelopes if e.topic.endswith("/commands")]
    return [command for command in commands if isinstance(command.message, TimeTold)]


def test_an_agent_that_asks_is_told_the_time_of_the_step_under_its_own_question() -> None:
    hub = driven()
    hub.hour = 9.5
    hub.take(PresenceHeard(VAN, Presence(VAN, True, "life", is_dated=False, asks_time="life/1")))
    assert [command.message for command in told(hub)] == [TimeTold("life/1", at(9.5))]


def test_an_answer_that_still_waits_becomes_the_answer_to_the_next_question() -> None:
    # Simulation seed 58: 266 old answers waited in the stream of a van on a bad link, and no newer one came through.
    hub = driven()
    for question, hour in (("life/1", 9.5), ("life/2", 9.6), ("life/3", 9.7)):
        hub.hour = hour
        hub.take(PresenceHeard(VAN, Presence(VAN, True, "life", is_dated=False, asks_time=question)))
    assert [command.message for command in told(hub)] == [TimeTold("life/3", at(9.7))]
    kept = [wire.decode_numbered(payload).message for payload in hub.rooms["outbox"].values()]
    assert [message for message in kept if isinstance(message, TimeTold)] == [TimeTold("life/3", at(9.7))]


def test_an_agent_that_knows_the_time_is_told_nothing() -> None:
    hub = driven()
    hub.take(PresenceHeard(VAN, Presence(VAN, True, "life")))
    assert told(hub) == []


def test_an_agent_that_is_gone_is_told_nothing_whatever_it_had_asked() -> None:
    hub = driven()
    hub.take(PresenceHeard(VAN, Presence(VAN, True, "life")))
    hub.take(PresenceHeard(VAN, Presence(VAN, False, "life", asks_time="life/1")))
    assert told(hub) == []


def test_a_full_disk_and_its_end_and_what_was_given_up_are_on_record() -> None:
    hub = driven()
    hub.say(DiskTight(True), PictureGivenUp("ab" * 32, StopId("stop-1")), DiskTight(False), TimeFound(5_000, "gnss"))
    kinds = [decision.kind for decision in hub.decisions()]
    assert kinds[-4:] == ["disk_tight", "picture_given_up", "disk_roomy", "time_found"]
