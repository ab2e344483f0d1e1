"""What is missing of a stream for good is named once, and the stream goes on behind it."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.events import Acked, HubHeard, LedgerFound, LedgerWanted, PresenceHeard, Spoke, WindowAsked
from cloud_hub.fleet import AgentRecord, Gap
from cloud_hub.memory import Self
from cloud_hub.post import restored
from shared import topics, wire
from shared.messages import (
    Ack,
    AgentStarted,
    HeadingTo,
    Numbered,
    PlanPushed,
    Presence,
    ShiftChanged,
    TooLate,
    WindowTold,
)
from shared.quantities import EpochMs
from shared.streams import Receiver, Take
from shared.work import OrderId, StopId
from tests.unit.hub_cases import VAN, Driven, at, order, window

SAID = AgentStarted("van", "1", 1)
BOOT = f"{VAN}-boot"


def driven() -> Driven:
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    return hub


def spoken(seq: int, boot: str = BOOT, stream: str = "events") -> Spoke:
    return Spoke(Numbered(VAN, boot, stream, seq, at(9), 0, SAID))


def there(boot: str = BOOT, **unacked: int) -> PresenceHeard:
    return PresenceHeard(VAN, Presence(VAN, True, "life", boot, unacked=unacked))


def acks(hub: Driven) -> list[Ack]:
    return [wire.decode_ack(e.payload) for e in hub.envelopes if e.topic.endswith("/acks")]


def taken(hub: Driven) -> int:
    events: int = hub.documents("agents", AgentRecord)[VAN].events_taken
    return events


def kinds(hub: Driven) -> list[str]:
    return [decision.kind for decision in hub.decisions()]


def test_a_restored_hub_hears_what_is_gone_says_so_once_and_goes_on_behind_it() -> None:
    hub = driven()
    hub.take(spoken(1), spoken(2))
    hub.take(spoken(7))  # Earlier ones were taken by the hub that was lost, and the van has let go of them.
    assert acks(hub) == [Ack(VAN, BOOT, "events", 2)]
    hub.take(there(events=7), spoken(7))
    assert acks(hub) == [Ack(VAN, BOOT, "events", 7)]
    assert taken(hub) == 3
    (gap,) = hub.documents("gaps", Gap).values()
    assert (gap.first_seq, gap.last_seq, gap.boot, gap.stream) == (3, 6, BOOT, "events")
    decision = hub.decisions()[-1]
    assert (decision.kind, decision.about, gap.decision_id) == ("gap_found", (VAN,), decision.decision_id)
    assert decision.sentence.startswith("4 messages of van-1 are missing for good: 3 to 6 of its stream 'events'.")
    hub.wake_up()
    hub.take(there(events=8))
    assert kinds(hub).count("gap_found") == 1
    assert hub.core.counts["gap_messages"] == 0


def test_a_van_that_keeps_what_the_hub_lacks_leaves_no_gap() -> None:
    hub = driven()
    hub.take(spoken(1))
    hub.take(there(events=2), there(events=1, objects=1), spoken(2))
    assert "gap_found" not in kinds(hub)
    assert taken(hub) == 2


def test_a_new_store_is_taken_once_the_old_one_is_retired_and_the_gap_is_on_record() -> None:
    hub = driven()
    hub.take(spoken(1), spoken(2))
    hub.take(spoken(2, "new"))  # Its first message is still on its way.
    assert acks(hub) == [Ack(VAN, BOOT, "events", 2)]
    hub.take(spoken(1, "new"))
    assert acks(hub) == [Ack(VAN, "new", "events", 1)]
    decision = hub.decisions()[-1]
    assert decision.kind == "store_replaced"
    assert decision.cause == f"boot new followed {BOOT}, of which 2 events were taken"
    (gap,) = hub.documents("gaps", Gap).values()
    assert (gap.boot, gap.first_seq, gap.last_seq) == (BOOT, 3, None)
    hub.take(spoken(3))  # Whoever still speaks from the old one is not heard, nor told that he was.
    assert acks(hub) == []
    assert (taken(hub), hub.core.counts["taken.retired"]) == (3, 1)


def test_a_new_store_whose_first_words_a_lost_hub_had_taken_is_taken_too() -> None:
    hub = driven()
    hub.take(spoken(1))
    hub.take(there("new", events=4), spoken(4, "new"))
    assert acks(hub) == [Ack(VAN, "new", "events", 4)]
    assert kinds(hub)[-2:] == ["store_replaced", "gap_found"]
    assert sorted(gap.first_seq for gap in hub.documents("gaps", Gap).values()) == [1, 2]


def test_a_store_that_was_replaced_and_comes_back_is_told_to_a_person_once() -> None:
    hub = driven()
    hub.take(spoken(1), spoken(1, "new"))
    hub.take(there(events=2), there(events=2))
    assert kinds(hub).count("retired_store_back") == 1


@given(st.lists(st.tuples(st.sampled_from(["old", "new"]), st.integers(1, 6), st.booleans()), max_size=30))
def test_no_order_of_words_and_presences_makes_a_stream_go_back(said: list[tuple[str, int, bool]]) -> None:
    hub = driven()
    reached = {"old": 0, "new": 0}
    for boot, number, is_presence in said:
        hub.take(there(boot, events=number) if is_presence else spoken(number, boot))
        for ack in acks(hub):
            assert ack.upto >= reached[ack.boot]
            reached[ack.boot] = ack.upto
    if reached["new"] and "store_replaced" in kinds(hub):
        hub.take(spoken(reached["old"] + 1, "old"), spoken(reached["new"] + 1, "new"))
        assert len(acks(hub)) == 1


# The hub's own life.


def test_a_restored_store_begins_a_new_life_whose_commands_are_numbered_anew() -> None:
    hub = driven()
    hub.take(Acked(VAN, Ack(topics.HUB, "boot", "commands", 1)))
    hub.say(AgentStarted("van", "1", 0))  # It lost its plan: the plan is pushed again, as command 2.
    hub.rooms["hub"]["self"] = restored(hub.rooms["hub"]["self"], 1_700_000_000)
    hub.wake_up()
    (command,) = [wire.decode_numbered(e.payload) for e in hub.envelopes if e.topic.endswith("/commands")]
    assert (command.seq, command.epoch) == (1, 1_700_000_001)
    assert isinstance(command.message, PlanPushed)
    agent = Receiver({f"{topics.HUB}/commands": msgspec.json.encode({"boot": "lost", "upto": 40, "retired": []})})
    assert agent.take(msgspec.structs.replace(command, boot="new"))[0] is Take.NEW
    kept = msgspec.json.decode(hub.rooms["hub"]["self"], type=Self)
    assert (kept.is_restored, kept.epoch) == (False, 1_700_000_001)
    hub.take(Acked(VAN, Ack(topics.HUB, command.boot, "commands", 1)))
    hub.wake_up()
    assert hub.commands() == []


def test_batches_a_restored_ledger_lacks_are_looked_for_once_and_named() -> None:
    hub = driven()
    assert not hub.take(there(telemetry=90)).jobs  # Who was not restored lacks nothing.
    hub.rooms["hub"]["self"] = restored(hub.rooms["hub"]["self"], 1_700_000_000)
    hub.wake_up()
    (wanted,) = hub.take(there(telemetry=9)).jobs
    assert wanted == LedgerWanted(f"ledger/{VAN}/{BOOT}", VAN, BOOT, 9)
    assert hub.take(there(telemetry=12)).jobs == []
    hub.take(LedgerFound(wanted, 3, (5, 8)))
    (gap,) = hub.documents("gaps", Gap).values()
    assert (gap.stream, gap.first_seq, gap.last_seq) == ("telemetry", 4, 7)
    assert hub.decisions()[-1].sentence.startswith("3 messages of van-1 are missing for good: 4 to 7 of its stream")
    assert hub.take(LedgerFound(wanted, 3, ()), there(telemetry=12)).jobs == []
    assert kinds(hub).count("gap_found") == 1


def test_another_hubs_word_on_the_hubs_own_topic_is_put_right_unless_that_one_is_newer() -> None:
    hub = driven()
    own = wire.decode_presence(hub.core.presence().payload)
    hub.take(HubHeard(own))
    assert hub.envelopes == []
    hub.take(HubHeard(msgspec.structs.replace(own, life="the last will of another", is_there=False, epoch=0)))
    (said,) = hub.envelopes
    assert (wire.decode_presence(said.payload), said.is_retained) == (own, True)
    hub.take(HubHeard(msgspec.structs.replace(own, life="its successor", epoch=own.epoch + 1)))
    assert hub.envelopes == []


# Commands that are too late.


def test_a_plan_says_until_when_it_is_any_good_and_what_was_told_is_true_for_ever() -> None:
    hub = driven()
    (plan,) = [wire.decode_numbered(e.payload) for e in hub.envelopes if e.topic.endswith("/commands")]
    assert isinstance(plan.message, PlanPushed)
    assert plan.start_by_ms == plan.message.plan.shift_end_ms
    hub.take(WindowAsked(OrderId("order-1"), window(12, 13), "anna"))
    told = [wire.decode_numbered(e.payload) for e in hub.envelopes if e.topic.endswith("/commands")][-1]
    assert isinstance(told.message, WindowTold)
    assert told.start_by_ms is None


def test_the_work_of_a_plan_that_came_too_late_goes_back_to_be_planned() -> None:
    hub = driven()
    hub.hour = 16.75
    hub.say(TooLate("plan_pushed", 1, EpochMs(at(16.5))))
    (first, second) = (hub.rooms["stops"]["stop-1"], hub.rooms["stops"]["stop-2"])
    assert b'"state":"waiting"' in first
    assert b"the plan came too late to van-1" in second
    assert hub.rooms["plans"] == {}
    assert hub.decisions()[-1].sentence == (
        "van-1 heard its plan too late and did not begin it; its 2 stops go back to be planned."
    )


def test_a_plan_under_way_is_not_given_back_by_a_late_one() -> None:
    hub = driven()
    hub.say(ShiftChanged("begun"), HeadingTo(StopId("stop-1")), TooLate("plan_pushed", 2, EpochMs(at(16.5))))
    assert b'"state":"planned"' in hub.rooms["stops"]["stop-2"]


def test_an_agent_that_names_any_number_after_a_restore_costs_the_hub_no_memory() -> None:
    hub = driven()
    hub.rooms["hub"]["self"] = restored(hub.rooms["hub"]["self"], 1_700_000_000)
    hub.wake_up()
    (wanted,) = hub.take(there(telemetry=(1 << 53) - 1)).jobs
    hub.take(LedgerFound(wanted, 3, (5, 8)))
    (gap,) = hub.documents("gaps", Gap).values()
    assert (gap.first_seq, gap.last_seq) == (4, (1 << 53) - 2)
    jobs = [job for life in range(20) for job in hub.take(there(boot=f"b{life}", telemetry=9)).jobs]
    assert len(jobs) == 3
