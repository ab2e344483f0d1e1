"""The hub as a process: real broker, real store, real HTTP, real webhook; killed whenever it hurts."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from cloud_hub.__main__ import Hub
from cloud_hub.access.setting import AccessSetting
from cloud_hub.settings import DepotSetting, HubSettings
from deploy.__main__ import app as waywarden
from deploy.stack import Stack
from shared import topics, wire
from shared.clock import Clock
from shared.messages import (
    AgentStarted,
    Arrived,
    EstimatesMoved,
    HeadingTo,
    RoadsChanged,
    ShiftChanged,
    Visited,
    WindowTold,
)
from shared.quantities import EpochMs
from shared.work import AgentId, Outcome, Proof, StopId, Visit
from tests.shells.hub_parts import EIGHT_MS, HubProcess, Inbox, StandInAgent, some_orders, start_broker


class Shop(NamedTuple):
    """A hub with four vans and a day of sixteen orders planned, and the shop's inbox its notices go to."""

    hub: HubProcess
    inbox: Inbox


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One for the tests that kill nobody; each takes a van of its own."""
    folder = tmp_path_factory.mktemp("shop")
    with Stack(folder / "logs", {}) as stack, Inbox() as inbox:
        hub = HubProcess(stack, start_broker(stack), folder, inbox.url, vans=4)
        hub.plan_day(some_orders(16))
        yield Shop(hub, inbox)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub for the tests that kill it; each takes a van of its own."""
    folder = tmp_path_factory.mktemp("mortal")
    with Stack(folder / "logs", {}) as stack:
        hub = HubProcess(stack, start_broker(stack), folder, vans=3)
        hub.plan_day(some_orders(18))
        yield hub


def van_at(hub: HubProcess, name: str) -> dict[str, Any]:
    return next(van for van in hub.get("/api/fleet") if van["agent"] == name)


def test_a_delay_on_the_van_moves_the_window_tells_the_customer_and_can_be_explained(shop: Shop) -> None:
    hub, inbox = shop
    with StandInAgent(hub, "van-1") as agent:
        plan = agent.wait_plan()
        assert plan.objections() == []
        agent.say(ShiftChanged("begun"))
        agent.expect_late(110, "a lorry blocks the street")
        agent.wait(lambda: bool(agent.of(WindowTold)), "the van hears of the new window")
        moved = agent.of(WindowTold)[0]
        (promise,) = [p for p in hub.get("/api/promises") if p["stop_id"] == moved.stop_id]
        assert promise["told_ms"] == [moved.told.opens_ms, moved.told.closes_ms]
        inbox.wait(lambda: bool(notices_of(inbox, promise["order_id"])), "the notice leaves")
        why = hub.get(f"/api/orders/{promise['order_id']}/why")
        assert why["decisions"][-1]["kind"] == "window_moved"
        assert why["decisions"][-1]["cause"] == "a lorry blocks the street"
        agent.wait_acked()
    event = notices_of(inbox, promise["order_id"])[0]
    assert event["specversion"] == "1.0"
    assert event["content_type"].startswith("application/cloudevents+json")
    assert event["id"] in inbox.keys


def notices_of(inbox: Inbox, order_id: str) -> list[dict[str, Any]]:
    """The notices of a moved window that the shop has got about an order."""
    return [e for e in inbox.events if e["subject"] == order_id and e["type"].endswith("notice.changed")]


def test_a_hub_killed_in_mid_stream_loses_nothing_and_takes_nothing_twice(mortal: HubProcess) -> None:
    with StandInAgent(mortal, "van-1") as agent:
        stops = [stop.stop_id for stop in agent.wait_plan().stops]
        half = len(stops) // 2
        agent.say(ShiftChanged("begun"))
        for place, stop_id in enumerate(stops[:half]):
            agent.say(*_visit(stop_id, EIGHT_MS + 300_000 * place))
        mortal.kill()
        for place, stop_id in enumerate(stops[half:], start=half):
            agent.say(*_visit(stop_id, EIGHT_MS + 300_000 * place))
        mortal.start_again()
        agent.wait_acked()
        for stop_id in stops:
            agent.say(HeadingTo(stop_id))  # Refused one by one as done: the stream goes on all the same.
        mortal.kill()
        mortal.start_again()
        agent.wait_acked()
    visits = {order["stop_id"]: order["visits"] for order in mortal.get("/api/orders")}
    assert [len(visits[stop_id]) for stop_id in stops] == [1] * len(stops)
    assert mortal.get("/api/routes/van-1")["driven_order"] == stops
    assert van_at(mortal, "van-1")["events_taken"] == 2 + 3 * len(stops) + len(stops)
    assert [chain["breaks"] for chain in mortal.get("/api/chains")] == [0]


def _visit(stop_id: StopId, arrived_ms: int) -> tuple[HeadingTo, Arrived, Visited]:
    at_ms = EpochMs(arrived_ms)
    proof = Proof((), None, at_ms)
    return (
        HeadingTo(stop_id),
        Arrived(stop_id),
        Visited(Visit(stop_id, Outcome.DELIVERED_TO_PERSON, at_ms, EpochMs(arrived_ms + 60_000), proof)),
    )


def test_commands_unheard_when_the_hub_was_killed_are_said_again_under_its_new_epoch(mortal: HubProcess) -> None:
    mortal.kill()
    mortal.start_again()
    with StandInAgent(mortal, "van-2") as agent:
        assert agent.wait_plan().plan_version == 1
        assert agent.epochs[0] > 1


def test_an_agent_that_lost_its_plan_gets_what_is_left_of_it(shop: Shop) -> None:
    hub = shop.hub
    with StandInAgent(hub, "van-2") as agent:
        stops = [stop.stop_id for stop in agent.wait_plan().stops]
        agent.say(*_visit(stops[0], EIGHT_MS))
        agent.wait_acked()
        hub.wait(lambda: van_at(hub, "van-2")["plan_taken"] == 1, "the plan is taken")
    with StandInAgent(hub, "van-2", boot="boot-2") as fresh:
        fresh._receiver = agent._receiver  # The hub's own stream goes on; only the agent's store is new.
        fresh.say(AgentStarted("van", "1", 0))
        assert [stop.stop_id for stop in fresh.wait_plan().stops] == stops[1:]
    assert hub.get("/api/decisions", kind="store_replaced", about="van-2")


def test_a_closed_street_reaches_every_van(shop: Shop) -> None:
    hub = shop.hub
    with StandInAgent(hub, "van-3") as agent:
        plan = agent.wait_plan()
        (way,) = hub.get("/api/roads/ways", near="60.1690,24.9400")
        closed = hub.http.post("/api/roads/closures", json={"ways": [way["way"]], "why": "roadworks"})
        assert closed.status_code == 200
        agent.wait(lambda: bool(agent.of(RoadsChanged)), "the van hears of the closure")
        changed = agent.of(RoadsChanged)[0]
        assert changed.legs.places == plan.legs.places
        assert changed.legs.roads_version == plan.legs.roads_version + 1
        assert changed.why == "roadworks"


def test_garbage_on_the_topics_is_counted_by_name_and_the_hub_lives(shop: Shop) -> None:
    hub = shop.hub
    with StandInAgent(hub, "van-4") as agent:
        stop = agent.wait_plan().stops[0]
        agent.say(EstimatesMoved((), "nothing yet"))
        agent.wait_acked()
        events = topics.up("main", agent.name, "events")
        agent.publish(events, b"\x00garbage")
        agent.publish(topics.up("main", agent.name, "acks"), b"[]")
        agent.publish(topics.up("main", agent.name, "presence"), b'{"party":"van-9","is_there":true,"life":"x"}')
        agent.publish(topics.up("main", agent.name, "telemetry"), b"\xff" * 40)
        stranger = agent.bytes_of(HeadingTo(stop.stop_id), 1).replace(b"van-4", b"stranger")
        agent.publish(topics.up("main", AgentId("stranger"), "events"), stranger)
        agent.publish(events, agent.bytes_of(HeadingTo(stop.stop_id), 3).replace(b'"heading_to"', b'"teleported"'))
        # The unreadable message has taken number 3, so the agent's own third one counts as its repeat.
        agent.say(Arrived(stop.stop_id), HeadingTo(StopId("nowhere")), HeadingTo(stop.stop_id))
        agent.wait_acked()
        hub.wait(lambda: van_at(hub, "van-4")["heading_to"] == stop.stop_id, "the good message got through")
    letters = {letter["why"] for letter in hub.get("/api/dead-letters")}
    assert "stop 'nowhere' is unknown" in letters
    metrics = hub.http.get("/metrics").text
    for named in (
        'refused_total{what="UnknownMessage"} 2.0',
        'refused_total{what="SenderWrong"} 1.0',
        'events_total{what="refused.AgentUnknown"} 1.0',
        'events_total{what="dead_letters"} 2.0',
        'telemetry_refused_total{what="TelemetryGarbled"} 1.0',
        'waywarden_hub_dead_letters{what="waiting"}',
        'waywarden_hub_epoch{what="hub"} 1.0',
        'waywarden_hub_acting{what="main"} 1.0',
        'waywarden_hub_lease_age_seconds{what="main"}',
        "waywarden_hub_commit_seconds_bucket",
    ):
        assert named in metrics


def test_a_dead_letter_is_listed_whole_refused_with_its_reason_and_settled_once(shop: Shop) -> None:
    hub = shop.hub
    with StandInAgent(hub, "van-4", boot="boot-letters") as agent:
        agent.say(ShiftChanged("begun"), Arrived(StopId("a stop nobody has sold")))
        agent.wait_acked()
    (letter,) = [one for one in hub.get("/api/dead-letters", state="waiting") if one["boot"] == "boot-letters"]
    assert letter["payload"].startswith('{"sender":"van-4"')
    assert letter["size"] == len(letter["payload"])
    asked = f"/api/dead-letters/{letter['key']}"
    refused = hub.http.post(f"{asked}/retry", json={"by": "anna"})
    assert refused.status_code == 409
    assert refused.json()["detail"].endswith("stop 'a stop nobody has sold' is unknown")
    commands = CliRunner()
    told = commands.invoke(waywarden, ["dead-letters", "list", "--hub", str(hub.http.base_url)])
    assert letter["key"] in told.output.replace("\n", "")
    done = commands.invoke(waywarden, ["dead-letters", "settle", letter["key"], "--hub", str(hub.http.base_url)])
    assert (done.exit_code, "settled" in done.output) == (0, True)
    again = commands.invoke(waywarden, ["dead-letters", "retry", letter["key"], "--hub", str(hub.http.base_url)])
    assert (again.exit_code, "was settled before" in again.output) == (2, True)
    assert hub.http.post("/api/dead-letters/nobody/x/events/1/retry").status_code == 404
    assert letter["key"] not in [one["key"] for one in hub.get("/api/dead-letters", state="waiting")]


def test_telemetry_is_taken_in_any_order_once_and_read_back_by_channel(mortal: HubProcess) -> None:
    with StandInAgent(mortal, "van-3") as agent:
        agent.wait_plan()
        topic = topics.up("main", agent.name, "telemetry")
        for seq in (3, 1, 1, 5):
            agent.publish(topic, _batch(agent, seq))
        agent.wait(lambda: agent.batches_taken == {1, 3, 5}, "all are acknowledged")
        assert agent.batches_acked is not None
        assert agent.batches_acked.upto == 1
        mortal.kill()
        mortal.start_again()
        for seq in (2, 3, 4):
            agent.publish(topic, _batch(agent, seq))
        agent.wait(lambda: agent.batches_acked is not None and agent.batches_acked.upto == 5, "the gaps are filled")
    speed = mortal.get("/api/telemetry/van-3", channel="speed_mps")
    assert speed["values"] == [float(value) for value in range(10, 60)]
    hours = mortal.get("/api/telemetry/van-3", channel="speed_mps", per="1h")
    assert (hours["samples"], hours["mean"], hours["most"]) == ([50], [34.5], [59.0])
    assert van_at(mortal, "van-3")["position"]["lat"] == pytest.approx(60.17, abs=1e-6)


def _batch(agent: StandInAgent, seq: int) -> bytes:
    values = np.arange(10 * seq, 10 * seq + 10, dtype=np.float32)
    flat = np.zeros(10, np.float32)
    return wire.encode_telemetry(
        wire.TelemetryBatch(
            agent.name, "boot-1", seq, (60.17, 24.94), ("speed_mps", "lat", "lon"),
            EIGHT_MS + values.astype(np.int64) * 1000, (values, flat, flat),
        )
    )  # fmt: skip


def test_a_notice_is_repeated_with_one_key_until_the_shop_takes_it(shop: Shop) -> None:
    hub, inbox = shop
    hub.wait(lambda: hub.get("/api/notices", state="due") == [], "no other notice is on its way")
    inbox.answers = [503, 500]
    promise = next(p for p in hub.get("/api/promises") if p["agent"] == "van-3")
    said = {"opens": "2026-03-03T13:00+02:00", "closes": "2026-03-03T14:00+02:00", "by": "anna"}
    assert hub.http.post(f"/api/promises/{promise['order_id']}/window", json=said).status_code == 200
    inbox.wait(lambda: len(notices_of(inbox, promise["order_id"])) == 3, "the notice is sent three times")
    hub.wait(lambda: hub.get("/api/notices", state="due") == [], "the notice is delivered")
    (notice,) = [n for n in hub.get("/api/notices") if n["order_id"] == promise["order_id"] and n["kind"] == "changed"]
    assert (notice["state"], notice["attempts"]) == ("delivered", 3)
    assert inbox.keys[-3:] == [notice["notice_id"]] * 3
    assert [event["answered"] for event in inbox.events[-3:]] == [503, 500, 204]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_hub_whose_telemetry_thread_has_died_is_not_ready(tmp_path: Path) -> None:
    settings = HubSettings(
        broker="mqtt://127.0.0.1:9", store=f"sqlite:///{tmp_path / 'hub.db'}", key_file=str(tmp_path / "hub.key"),
        depots=(DepotSetting("north", "North", (60.18, 24.945)),), access=AccessSetting(open_on_loopback=True),
    )  # fmt: skip
    hub = Hub(settings, Clock.starting(EIGHT_MS, 1.0))
    hub.open()
    try:
        assert "broker" in asked_whether_ready(hub).json()["detail"]
        hub._lane._waiting.put("no segment")  # type: ignore[arg-type]  # What cannot happen kills the thread.
        hub._lane._thread.join(10)
        answer = asked_whether_ready(hub)
    finally:
        hub.close()
    assert answer.status_code == 503
    assert "telemetry thread has stopped" in answer.json()["detail"]


def asked_whether_ready(hub: Hub) -> httpx.Response:
    """What a hub in this process answers at /readyz."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(hub.web), base_url="http://hub") as http:
            return await http.get("/readyz")

    return asyncio.run(ask())
