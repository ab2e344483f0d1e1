"""When an agent says everything again that its hub may not have heard."""

from edge_agent.outbox import Outbox
from edge_agent.uplink import Uplink
from shared import topics
from shared.messages import AgentStarted, Presence
from shared.quantities import EpochMs
from shared.work import AgentId

VAN = AgentId("van-1")
STARTED = AgentStarted("vehicle", "1", 0)


def waiting_uplink() -> Uplink:
    """An uplink with one event on its way, sent a moment ago, to a hub that was met."""
    outbox = Outbox(VAN, "boot", {})
    uplink = Uplink(VAN, "main", "boot", "life", outbox)
    uplink.go_up(0)
    uplink.meet(hub(True), 0)
    outbox.say(STARTED, 0, EpochMs(0))
    assert len(uplink.due(0)) == 1
    assert uplink.due(1) == []
    return uplink


def hub(is_there: bool, life: str = "one") -> Presence:
    return Presence(topics.HUB, is_there, life, "boot", 1)


def test_a_hub_of_a_new_life_is_told_again_at_once() -> None:
    uplink = waiting_uplink()
    uplink.meet(hub(True, "two"), 0)
    assert len(uplink.due(1)) == 1


def test_a_hub_whose_link_was_cut_is_told_again_when_it_is_back() -> None:
    uplink = waiting_uplink()
    uplink.meet(hub(False), 0)
    assert uplink.due(1) == []
    uplink.meet(hub(True), 0)
    assert len(uplink.due(1)) == 1


def test_a_hub_that_only_says_again_that_it_is_there_is_not_told_again() -> None:
    uplink = waiting_uplink()
    uplink.meet(hub(True), 0)
    assert uplink.due(1) == []


def test_a_hub_that_comes_after_the_agent_is_told_what_was_said_to_nobody() -> None:
    outbox = Outbox(VAN, "boot", {})
    uplink = Uplink(VAN, "main", "boot", "life", outbox)
    uplink.go_up(0)
    outbox.say(STARTED, 0, EpochMs(0))
    assert len(uplink.due(0)) == 1
    uplink.meet(hub(True), 1)
    assert len(uplink.due(1)) == 1


def test_a_hub_that_comes_back_to_the_broker_after_the_agent_is_told_again() -> None:
    uplink = waiting_uplink()
    uplink.go_down()
    uplink.go_up(2)
    assert len(uplink.due(2)) == 1
    uplink.meet(hub(True), 3)
    assert len(uplink.due(3)) == 1
