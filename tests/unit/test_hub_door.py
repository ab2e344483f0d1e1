"""At the hub's door nonsense is refused by name, and nothing raises."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.door import BURST, MOST_PARTIES, PER_S, Door
from cloud_hub.events import Acked, HubHeard, PresenceHeard, Spoke, Unreadable
from shared import topics, wire
from shared.messages import (
    Ack,
    AgentEvent,
    ChangeAnswered,
    Estimate,
    EstimatesMoved,
    HeadingTo,
    Numbered,
    PlanRefused,
    Presence,
    TimeFound,
)
from shared.mqtt import Heard
from shared.quantities import EpochMs
from shared.work import AgentId, StopId

VAN = AgentId("van-1")
EVENTS = topics.up("main", VAN, "events")


GOING = HeadingTo(StopId("s"))


def numbered(sender: str = "van-1", message: AgentEvent = GOING) -> bytes:
    return wire.encode(Numbered(AgentId(sender), "b", "events", 7, EpochMs(1), 0, message))


def read(topic: str, payload: bytes) -> tuple[object, dict[str, int]]:
    door = Door("main")
    return door.read(Heard(topic, payload, None)), dict(door.refused)


def test_what_agents_say_on_their_own_topics_comes_in() -> None:
    assert isinstance(read(EVENTS, numbered())[0], Spoke)
    assert isinstance(read(topics.up("main", VAN, "objects"), numbered())[0], Spoke)
    ack = wire.encode(Ack(topics.HUB, "b", "commands", 3))
    assert isinstance(read(topics.up("main", VAN, "acks"), ack)[0], Acked)
    presence = wire.encode(Presence(VAN, True, "life"))
    assert isinstance(read(topics.up("main", VAN, "presence"), presence)[0], PresenceHeard)


def test_nobody_speaks_for_another() -> None:
    assert read(EVENTS, numbered("van-2")) == (None, {"SenderWrong": 1})
    presence = wire.encode(Presence(AgentId("van-2"), False, "life"))
    assert read(topics.up("main", VAN, "presence"), presence) == (None, {"SenderWrong": 1})


def test_of_who_was_revoked_only_the_departure_is_heard() -> None:
    door = Door("main", is_revoked=lambda agent: agent == "van-1")
    gone = Presence(VAN, False, "life")
    here = wire.encode(Presence(VAN, True, "life"))
    heard = [
        door.read(Heard(EVENTS, numbered(), None)),
        door.read(Heard(topics.up("main", VAN, "presence"), here, None)),
        door.read(Heard(topics.up("main", VAN, "presence"), wire.encode(gone), None)),
    ]
    assert heard == [None, None, PresenceHeard(VAN, gone)]
    assert dict(door.refused) == {"Revoked": 2}


def test_another_region_is_not_ours() -> None:
    assert read(topics.up("north", VAN, "events"), numbered()) == (None, {"RegionWrong": 1})


def test_what_a_hub_says_of_itself_comes_back_and_is_heard_as_a_hubs() -> None:
    said = Presence(topics.HUB, True, "life")
    assert read(topics.hub_presence("main"), wire.encode(said)) == (HubHeard(said), {})


def test_an_agent_that_keeps_impossible_numbers_is_refused() -> None:
    presence = wire.encode(Presence(VAN, True, "life", unacked={"events": 1 << 60}))
    assert read(topics.up("main", VAN, "presence"), presence) == (None, {"UnknownMessage": 1})


def test_unknown_contents_in_a_known_place_keep_their_place() -> None:
    event, refused = read(EVENTS, numbered().replace(b"heading_to", b"teleported"))
    assert isinstance(event, Unreadable)
    assert (event.sender, event.stream, event.seq) == ("van-1", "events", 7)
    assert refused == {}


def test_a_number_no_row_can_hold_does_not_reach_the_core() -> None:
    assert read(EVENTS, numbered().replace(b'"seq":7', b'"seq":%d' % 10**24)) == (None, {"UnknownMessage": 1})


def test_an_instant_no_row_can_hold_is_kept_as_unreadable_and_stalls_nothing() -> None:
    event, refused = read(EVENTS, numbered().replace(b'"said_ms":1', b'"said_ms":%d' % 10**24))
    assert isinstance(event, Unreadable)
    assert (event.seq, refused) == (7, {})


def test_too_much_is_refused_unread() -> None:
    assert read(EVENTS, b" " * (wire.MOST_BYTES + 1)) == (None, {"TooLarge": 1})


levels = st.sampled_from(
    ["ww", "main", "van-1", "up", "down", "events", "acks", "presence", "telemetry", "hub"]
) | st.text(max_size=9)


@given(st.lists(levels, max_size=6).map("/".join), st.binary(max_size=200))
def test_no_bytes_on_no_topic_make_the_door_raise(topic: str, payload: bytes) -> None:
    event, refused = read(topic, payload)
    assert event is None
    assert sum(refused.values()) <= 1


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_message_damaged_on_its_way_is_refused_kept_or_still_a_message(place: int, byte: int) -> None:
    damaged = bytearray(numbered())
    damaged[place % len(damaged)] = byte
    event, refused = read(EVENTS, bytes(damaged))
    assert isinstance(event, (Spoke, Unreadable)) or sum(refused.values()) == 1


@pytest.mark.parametrize("number", [10**400, 1 << 60, -(1 << 60)])
def test_a_number_nobody_could_mean_is_kept_as_unreadable_however_deep_it_stands(number: int) -> None:
    found = read(EVENTS, numbered(message=TimeFound(number, "gnss")))
    assert isinstance(found[0], Unreadable)
    estimates = (Estimate(StopId("s"), EpochMs(1), EpochMs(1), EpochMs(number)),)
    assert isinstance(read(EVENTS, numbered(message=EstimatesMoved(estimates, "")))[0], Unreadable)


@pytest.mark.parametrize("name", ["", "\0", "a\nb", "x" * 65, "x" * 900_000])
def test_a_name_no_row_should_be_found_by_does_not_reach_the_core(name: str) -> None:
    said = msgspec.structs.replace(wire.decode_numbered(numbered()), boot=name)
    assert read(EVENTS, wire.encode(said)) == (None, {"UnknownMessage": 1})
    broken = wire.encode(said).replace(b"heading_to", b"teleported")
    assert read(EVENTS, broken) == (None, {"UnknownMessage": 1})
    if name:
        there = wire.encode(Presence(VAN, True, "life", asks_time=name))
        assert read(topics.up("main", VAN, "presence"), there) == (None, {"UnknownMessage": 1})


def test_an_agent_that_never_stops_is_slowed_and_its_neighbour_is_not() -> None:
    now_s = [1.0]
    door = Door("main", monotonic_s=lambda: now_s[0])
    taken = [door.read(Heard(EVENTS, numbered(), None)) for _ in range(BURST + 100)]
    assert sum(event is not None for event in taken) == BURST
    assert door.refused == {"TooFast": 100}
    assert door.read(Heard(topics.up("main", AgentId("van-2"), "events"), numbered("van-2"), None)) is not None
    now_s[0] += 1.0
    taken = [door.read(Heard(EVENTS, numbered(), None)) for _ in range(BURST)]
    assert sum(event is not None for event in taken) == PER_S


def test_paces_of_many_names_are_kept_within_bounds() -> None:
    door = Door("main", monotonic_s=lambda: 1.0)
    for number in range(MOST_PARTIES + 10):
        door.read(Heard(topics.up("main", AgentId(f"van-{number}"), "events"), b"", None))
    assert len(door._paces) <= MOST_PARTIES


def test_a_text_or_list_that_would_be_written_again_with_all_that_follows_is_kept_as_unreadable() -> None:
    assert isinstance(read(EVENTS, numbered(message=PlanRefused(1, "x" * 8_192)))[0], Spoke)
    assert isinstance(read(EVENTS, numbered(message=PlanRefused(1, "x" * 8_193)))[0], Unreadable)
    too_many = ChangeAnswered("c", "seen", "", (StopId("s"),) * 2_001)
    assert isinstance(read(EVENTS, numbered(message=too_many))[0], Unreadable)
