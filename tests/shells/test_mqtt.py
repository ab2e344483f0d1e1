"""The link to a real broker: what is heard, what is signed, and what an outage does."""

import queue
import socket
from collections.abc import Iterator

import pytest

from deploy.stack import Stack
from shared.mqtt import BrokerUrlWrong, Heard, Link, LinkDown, LinkEvent, LinkUp
from shared.steps import Envelope
from tests.shells.conftest import CableAt

PATIENCE_S = 15

Heardings = queue.SimpleQueue[LinkEvent]


@pytest.fixture
def heard() -> Heardings:
    return queue.SimpleQueue()


@pytest.fixture(params=["broker_port", "mosquitto_port"], ids=["embedded", "mosquitto"])
def port(request: pytest.FixtureRequest) -> int:
    """The same claims hold on the embedded broker and on Mosquitto."""
    found: int = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def link(port: int, heard: Heardings) -> Iterator[Link]:
    opened = Link(f"mqtt://127.0.0.1:{port}", "van-1", ["ww/+/here"], heard.put, sign=lambda topic, payload: "5167")
    opened.open()
    yield opened
    opened.close()


def next_of(heard: Heardings, kind: type) -> LinkEvent:
    while not isinstance(event := heard.get(timeout=PATIENCE_S), kind):
        pass
    return event


def test_what_is_published_is_heard(link: Link, heard: Heardings) -> None:
    next_of(heard, LinkUp)
    assert link.publish(Envelope("ww/1/here", b"good morning"))
    assert next_of(heard, Heard) == Heard("ww/1/here", b"good morning", None)


def test_a_signature_travels_beside_the_payload(link: Link, heard: Heardings) -> None:
    next_of(heard, LinkUp)
    link.publish(Envelope("ww/1/here", b"go", is_signed=True))
    assert next_of(heard, Heard) == Heard("ww/1/here", b"go", "5167")


def test_a_plan_of_half_a_megabyte_passes(link: Link, heard: Heardings) -> None:
    next_of(heard, LinkUp)
    link.publish(Envelope("ww/1/here", b"x" * 500_000))
    assert next_of(heard, Heard) == Heard("ww/1/here", b"x" * 500_000, None)


def test_a_link_comes_back_after_its_broker_was_killed(link: Link, heard: Heardings, stack: Stack) -> None:
    next_of(heard, LinkUp)
    stack.kill("broker")
    next_of(heard, LinkDown)
    assert not link.publish(Envelope("ww/1/here", b"nobody is there"))
    stack.start_again("broker")
    next_of(heard, LinkUp)
    assert link.publish(Envelope("ww/1/here", b"back"))
    assert next_of(heard, Heard) == Heard("ww/1/here", b"back", None)


@pytest.mark.parametrize("url", ["http://broker", "mqtt://", "mqtt://host:notaport", ""])
def test_a_broker_url_that_is_none_is_refused_by_name(url: str, heard: Heardings) -> None:
    with pytest.raises(BrokerUrlWrong):
        Link(url, "van-1", [], heard.put)


def test_a_will_is_heard_when_its_owner_is_cut_off(broker_port: int, heard: Heardings, cable: CableAt) -> None:
    watcher = Link(f"mqtt://127.0.0.1:{broker_port}", "watcher", ["ww/will"], heard.put)
    watcher.open()
    next_of(heard, LinkUp)
    own: Heardings = queue.SimpleQueue()
    mortal = Link(f"mqtt://127.0.0.1:{cable.port}", "mortal", [], own.put, will=Envelope("ww/will", b"gone"))
    mortal.open()
    next_of(own, LinkUp)
    cable.tell("pull")
    assert next_of(heard, Heard) == Heard("ww/will", b"gone", None)
    mortal.close()
    watcher.close()


def test_a_pulled_cable_breaks_the_link_and_a_plugged_one_mends_it(cable: CableAt, heard: Heardings) -> None:
    behind = Link(f"mqtt://127.0.0.1:{cable.port}", "van-2", [], heard.put)
    behind.open()
    next_of(heard, LinkUp)
    assert cable.tell("pull")["is_plugged"] is False
    next_of(heard, LinkDown)
    cable.tell("plug")
    next_of(heard, LinkUp)
    behind.close()


def test_a_cable_answers_nonsense_by_name(cable: CableAt) -> None:
    assert cable.tell("sing") == {"error": "found 'sing', expected pull, freeze, plug or state"}


def test_a_cable_answers_hostile_lines_and_lives(cable: CableAt) -> None:
    with socket.create_connection(("127.0.0.1", cable.control), timeout=PATIENCE_S) as wire:
        wire.sendall(b"[" * 50_000 + b"\n")
        assert b"error" in wire.recv(1000)
    with socket.create_connection(("127.0.0.1", cable.control), timeout=PATIENCE_S) as wire:
        wire.sendall(b"x" * 70_000 + b"\n")
        assert b"longer than" in wire.recv(1000)
    assert cable.tell("state")["is_plugged"] is True


def test_messages_are_heard_through_a_socket_of_our_own(link: Link, heard: Heardings) -> None:
    next_of(heard, LinkUp)
    assert link.publish_all([Envelope("ww/1/here", b"%d" % k, 0) for k in range(3)])
    assert [next_of(heard, Heard) for _ in range(3)] == [Heard("ww/1/here", b"%d" % k, None) for k in range(3)]


def test_what_comes_together_is_heard_together_and_in_order(port: int) -> None:
    pieces: queue.SimpleQueue[list[Heard]] = queue.SimpleQueue()
    events: Heardings = queue.SimpleQueue()
    url = f"mqtt://127.0.0.1:{port}"
    ears = Link(url, "ears", ["ww/+/here"], events.put, hear_all=pieces.put, gather_s=0.002)
    ears.open()
    next_of(events, LinkUp)
    mouth = Link(url, "mouth", [], events.put)
    mouth.open()
    next_of(events, LinkUp)
    # The first comes back when the subscription holds.
    numbers: list[int] = []
    for k in range(500):
        assert mouth.publish(Envelope("ww/1/here", b"%d" % k))
    while len(numbers) < 500:
        numbers += [int(one.payload) for one in pieces.get(timeout=PATIENCE_S)]
    assert numbers == list(range(500))
    mouth.close()
    ears.close()


def test_a_listener_that_breaks_does_not_end_the_link(port: int, heard: Heardings) -> None:
    def hear(event: LinkEvent) -> None:
        if event == Heard("ww/1/here", b"poison", None):
            raise ValueError("a bug of ours")
        heard.put(event)

    link = Link(f"mqtt://127.0.0.1:{port}", "van-3", ["ww/1/here"], hear)
    link.open()
    next_of(heard, LinkUp)
    link.publish(Envelope("ww/1/here", b"poison"))
    next_of(heard, LinkDown)
    next_of(heard, LinkUp)
    link.publish(Envelope("ww/1/here", b"food"))
    assert next_of(heard, Heard) == Heard("ww/1/here", b"food", None)
    link.close()
