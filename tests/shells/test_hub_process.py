"""The hub as a process: real broker, real store, real HTTP, real webhook; killed whenever it hurts."""

from pathlib import Path

import numpy as np
import pytest

from deploy.stack import Stack
from shared import topics, wire
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
from shared.work import Outcome, Proof, StopId, Visit
from tests.shells.hub_parts import EIGHT_MS, HubProcess, Inbox, StandInAgent, some_orders


def test_a_delay_on_the_van_moves_the_window_tells_the_customer_and_can_be_explained(
    stack: Stack, broker_port: int, tmp_path: Path
) -> None:
    with Inbox() as inbox:
        hub = HubProcess(stack, broker_port, tmp_path, inbox.url)
        hub.plan_day(some_orders(6))
        with StandInAgent(hub) as agent:
            plan = agent.wait_plan()
            assert plan.objections() == []
            agent.say(ShiftChanged("begun"))
            agent.expect_late(110, "a lorry blocks the street")
            agent.wait(lambda: bool(agent.of(WindowTold)), "the van hears of the new window")
            moved = agent.of(WindowTold)[0]
            (promise,) = [p for p in hub.get("/api/promises") if p["stop_id"] == moved.stop_id]
            assert promise["told_ms"] == [moved.told.opens_ms, moved.told.closes_ms]
            inbox.wait(
                lambda: any(e["type"].endswith("moved") and e["subject"] == promise["order_id"] for e in inbox.events),
                "the notice leaves",
            )
            why = hub.get(f"/api/orders/{promise['order_id']}/why")
            assert why["decisions"][-1]["kind"] == "window_moved"
            assert why["decisions"][-1]["cause"] == "a lorry blocks the street"
            agent.wait_acked()
    event = next(e for e in inbox.events if e["type"].endswith("moved"))
    assert event["specversion"] == "1.0"
    assert event["content_type"].startswith("application/cloudevents+json")
    assert event["id"] in inbox.keys


def test_a_hub_killed_in_mid_stream_loses_nothing_and_takes_nothing_twice(
    stack: Stack, broker_port: int, tmp_path: Path
) -> None:
    hub = HubProcess(stack, broker_port, tmp_path)
    hub.plan_day(some_orders(12))
    with StandInAgent(hub) as agent:
        stops = [stop.stop_id for stop in agent.wait_plan().stops]
        agent.say(ShiftChanged("begun"))
        for place, stop_id in enumerate(stops[:6]):
            agent.say(*_visit(stop_id, EIGHT_MS + 300_000 * place))
        hub.kill()
        for place, stop_id in enumerate(stops[6:], start=6):
            agent.say(*_visit(stop_id, EIGHT_MS + 300_000 * place))
        hub.start_again()
        agent.wait_acked()
        for stop_id in stops:
            agent.say(HeadingTo(stop_id))  # Refused one by one as done: the stream goes on all the same.
        hub.kill()
        hub.start_again()
        agent.wait_acked()
    orders = hub.get("/api/orders")
    assert [len(order["visits"]) for order in orders] == [1] * 12
    assert hub.get("/api/routes/van-1")["driven_order"] == stops
    (van,) = hub.get("/api/fleet")
    assert van["events_taken"] == 2 + 3 * 12 + 12
    assert [chain["breaks"] for chain in hub.get("/api/chains")] == [0]


def _visit(stop_id: StopId, arrived_ms: int) -> tuple[HeadingTo, Arrived, Visited]:
    at_ms = EpochMs(arrived_ms)
    proof = Proof((), None, at_ms)
    return (
        HeadingTo(stop_id),
        Arrived(stop_id),
        Visited(Visit(stop_id, Outcome.DELIVERED_TO_PERSON, at_ms, EpochMs(arrived_ms + 60_000), proof)),
    )


def test_commands_unheard_when_the_hub_was_killed_are_said_again_under_its_new_epoch(
    stack: Stack, broker_port: int, tmp_path: Path
) -> None:
    hub = HubProcess(stack, broker_port, tmp_path)
    hub.plan_day(some_orders(3))
    hub.kill()
    hub.start_again()
    with StandInAgent(hub) as agent:
        assert agent.wait_plan().plan_version == 1
        assert agent.epochs == [2]


def test_an_agent_that_lost_its_plan_gets_what_is_left_of_it(stack: Stack, broker_port: int, tmp_path: Path) -> None:
    hub = HubProcess(stack, broker_port, tmp_path)
    hub.plan_day(some_orders(4))
    with StandInAgent(hub) as agent:
        stops = [stop.stop_id for stop in agent.wait_plan().stops]
        agent.say(*_visit(stops[0], EIGHT_MS))
        agent.wait_acked()
        hub.wait(lambda: hub.get("/api/fleet")[0]["plan_taken"] == 1, "the plan is taken")
    with StandInAgent(hub, boot="boot-2") as fresh:
        fresh._receiver = agent._receiver  # The hub's own stream goes on; only the agent's store is new.
        fresh.say(AgentStarted("van", "1", 0))
        assert [stop.stop_id for stop in fresh.wait_plan().stops] == stops[1:]
    assert "store_replaced" in {decision["kind"] for decision in hub.get("/api/decisions")}


def test_a_closed_street_reaches_every_van(stack: Stack, broker_port: int, tmp_path: Path) -> None:
    hub = HubProcess(stack, broker_port, tmp_path)
    hub.plan_day(some_orders(5))
    with StandInAgent(hub) as agent:
        plan = agent.wait_plan()
        (way,) = hub.get("/api/roads/ways", near="60.1690,24.9400")
        closed = hub.http.post("/api/roads/closures", json={"ways": [way["way"]], "why": "roadworks"})
        assert closed.status_code == 200
        agent.wait(lambda: bool(agent.of(RoadsChanged)), "the van hears of the closure")
        changed = agent.of(RoadsChanged)[0]
        assert changed.legs.places == plan.legs.places
        assert changed.legs.roads_version == plan.legs.roads_version + 1
        assert changed.why == "roadworks"


def test_garbage_on_the_topics_is_counted_by_name_and_the_hub_lives(
    stack: Stack, broker_port: int, tmp_path: Path
) -> None:
    hub = HubProcess(stack, broker_port, tmp_path)
    hub.plan_day(some_orders(3))
    with StandInAgent(hub) as agent:
        stop = agent.wait_plan().stops[0]
        agent.wait_acked()
        events = topics.up("main", agent.name, "events")
        agent.publish(events, b"\x00garbage")
        agent.publish(topics.up("main", agent.name, "acks"), b"[]")
        agent.publish(topics.up("main", agent.name, "presence"), b'{"party":"van-9","is_there":true,"life":"x"}')
        agent.publish(topics.up("main", agent.name, "telemetry"), b"\xff" * 40)
        agent.publish(
            topics.up("main", "stranger", "events"),
            agent.bytes_of(HeadingTo(stop.stop_id), 1).replace(b"van-1", b"stranger"),
        )
        agent.publish(events, agent.bytes_of(HeadingTo(stop.stop_id), 2).replace(b'"heading_to"', b'"teleported"'))
        # The unreadable message has taken number 2, so the agent's own second one counts as its repeat.
        agent.say(Arrived(stop.stop_id), HeadingTo(StopId("nowhere")), HeadingTo(stop.stop_id))
        agent.wait_acked()
        hub.wait(lambda: hub.get("/api/fleet")[0]["heading_to"] == stop.stop_id, "the good message got through")
    metrics = hub.http.get("/metrics").text
    for named in (
        'refused_total{what="UnknownMessage"} 2.0',
        'refused_total{what="SenderWrong"} 1.0',
        'events_total{what="refused.AgentUnknown"} 1.0',
        'events_total{what="dead_letters"} 2.0',
        'telemetry_refused_total{what="TelemetryGarbled"} 1.0',
    ):
        assert named in metrics


def test_telemetry_is_taken_in_any_order_once_and_read_back_by_channel(
    stack: Stack, broker_port: int, tmp_path: Path
) -> None:
    hub = HubProcess(stack, broker_port, tmp_path)
    with StandInAgent(hub) as agent:
        agent.say(AgentStarted("van", "1", 0))
        agent.wait_acked()
        topic = topics.up("main", agent.name, "telemetry")
        for seq in (3, 1, 1, 5):
            agent.publish(topic, _batch(agent, seq))
        agent.wait(
            lambda: agent.batches_acked is not None and 5 in agent.batches_acked.beyond, "batches are acknowledged"
        )
        assert agent.batches_acked is not None
        assert (agent.batches_acked.upto, agent.batches_acked.beyond) == (1, (3, 5))
        hub.kill()
        hub.start_again()
        for seq in (2, 3, 4):
            agent.publish(topic, _batch(agent, seq))
        agent.wait(lambda: agent.batches_acked is not None and agent.batches_acked.upto == 5, "the gaps are filled")
    speed = hub.get("/api/telemetry/van-1", channel="speed_mps")
    assert speed["values"] == [float(value) for value in range(10, 60)]
    latest = hub.get("/api/fleet")[0]["position"]
    assert latest["lat"] == pytest.approx(60.17, abs=1e-6)


def _batch(agent: StandInAgent, seq: int) -> bytes:
    values = np.arange(10 * seq, 10 * seq + 10, dtype=np.float32)
    flat = np.zeros(10, np.float32)
    return wire.encode_telemetry(
        wire.TelemetryBatch(
            agent.name, "boot-1", seq, (60.17, 24.94), ("speed_mps", "lat", "lon"), values.astype(np.int64) * 1000,
            (values, flat, flat),
        )
    )  # fmt: skip


def test_a_notice_is_repeated_with_one_key_until_the_shop_takes_it(
    stack: Stack, broker_port: int, tmp_path: Path
) -> None:
    with Inbox() as inbox:
        inbox.answers = [503, 500]
        hub = HubProcess(stack, broker_port, tmp_path, inbox.url)
        hub.plan_day(some_orders(1))
        inbox.wait(lambda: len(inbox.events) == 3, "the notice is sent three times")
        hub.wait(lambda: hub.get("/api/notices")[0]["state"] == "delivered", "the notice is delivered")
    (notice,) = hub.get("/api/notices")
    assert set(inbox.keys) == {notice["notice_id"]}
    assert [event["answered"] for event in inbox.events] == [503, 500, 204]
    assert notice["attempts"] == 3


def test_a_late_estimate_heard_before_the_plan_is_taken_does_not_break_the_stream(
    stack: Stack, broker_port: int, tmp_path: Path
) -> None:
    hub = HubProcess(stack, broker_port, tmp_path)
    with StandInAgent(hub) as agent:
        agent.say(EstimatesMoved((), "nothing yet"), AgentStarted("van", "1", 0))
        agent.wait_acked()
    assert hub.get("/api/fleet")[0]["is_there"] is True
