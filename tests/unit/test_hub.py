"""The hub's core, driven by events: what it keeps, what it says, and that a restart changes nothing."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.events import (
    Acked,
    ClosuresAsked,
    DayPlanAsked,
    LegTimesFound,
    LegTimesWanted,
    Notice,
    NoticeDelivered,
    NoticeFailed,
    NoticeWanted,
    OrdersHanded,
    PlanWanted,
    PresenceHeard,
    Spoke,
    Unreadable,
    VehiclesSaid,
    WindowAsked,
)
from cloud_hub.fleet import AgentRecord, Chain, DeadLetter, StopRecord
from cloud_hub.promises import Promise
from shared import wire
from shared.contracts import LegTimes
from shared.ledger import FIRST_LINK, Decision
from shared.messages import (
    Ack,
    AgentEvent,
    AgentStarted,
    Arrived,
    ChangeAnswered,
    Decided,
    Estimate,
    EstimatesMoved,
    HeadingTo,
    Numbered,
    PlanPushed,
    PlanRefused,
    PlanTaken,
    Presence,
    Resequenced,
    RoadsChanged,
    ShiftChanged,
    Visited,
    WindowTold,
)
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Consequences, Job, JobFailed
from shared.work import AgentId, OrderId, Outcome, Proof, StopId, Visit
from tests.unit.hub_cases import DAY, MINUTE, VAN, Driven, at, estimate, order, planned, vehicle, window

THREE = [order(1), order(2), order(3)]
HOURS = [10.0, 11.0, 12.0]


@pytest.fixture
def hub() -> Driven:
    """A hub with one van that has a plan of three stops."""
    driven = Driven()
    driven.plan(THREE, HOURS)
    return driven


def visit(stop: str, hour: float, outcome: Outcome = Outcome.DELIVERED_TO_PERSON) -> Visited:
    return Visited(Visit(StopId(stop), outcome, at(hour), EpochMs(at(hour) + 3 * MINUTE), Proof((), None, at(hour))))


def own_decision(number: int, previous: str = FIRST_LINK, by: str = "van-1") -> Decision:
    return Decision(
        f"{by}/{number}", AgentId(by), "resequence", at(10), "I go to stop 2 first.", "late", (), (), 0, "allowed",
        "contract", previous=previous,
    )  # fmt: skip


def test_a_plan_is_pushed_with_told_windows_inside_their_slots(hub: Driven) -> None:
    (command,) = hub.commands()
    assert isinstance(command, PlanPushed)
    assert command.plan.objections() == []
    assert [stop.stop_id for stop in command.plan.stops] == ["stop-1", "stop-2", "stop-3"]
    assert command.plan.stops[0].told.holds(at(10))
    assert {promise.moves for promise in hub.documents("promises", Promise).values()} == {0}


def test_a_plan_already_asked_is_not_planned_by_an_old_answer(hub: Driven) -> None:
    hub.take(OrdersHanded((order(4),)))
    (wanted,) = hub.take(DayPlanAsked(DAY, "anna")).jobs
    assert isinstance(wanted, PlanWanted)
    stale = msgspec.structs.replace(planned(wanted, [order(4)], [13.0]), need="plan/another")
    hub.take(stale)
    assert hub.commands() == []
    hub.take(planned(wanted, [*THREE, order(4)], [*HOURS, 13.0]))
    assert hub.documents("stops", StopRecord)["stop-4"].state == "planned"


def test_a_day_without_orders_or_vehicles_is_not_planned() -> None:
    driven = Driven()
    answer = driven.take(DayPlanAsked(DAY, "anna")).answers[0]
    assert not answer.is_done
    assert "no vehicle" in answer.why_not


def test_a_day_planned_after_the_shift_began_begins_now() -> None:
    hub = Driven()
    hub.hour = 9.5
    hub.plan([order(1)], [12.0])
    hub.take(OrdersHanded((order(2),)))
    (wanted,) = hub.take(DayPlanAsked(DAY, "anna")).jobs
    assert isinstance(wanted, PlanWanted)
    assert [each.begins_ms for each in wanted.vehicles] == [at(9.5)]
    hub.hour = 17
    assert not hub.take(DayPlanAsked(DAY, "anna")).answers[0].is_done


def test_a_late_estimate_moves_the_window_and_the_van_is_told(hub: Driven) -> None:
    before = hub.documents("promises", Promise)["stop-2"].told
    hub.hour = 8.5
    hub.say(EstimatesMoved((estimate("stop-1", 10.0), estimate("stop-2", 13.0), estimate("stop-3", 12.0)), "held up"))
    told = [command for command in hub.commands() if isinstance(command, WindowTold)]
    assert [command.stop_id for command in told] == ["stop-2"]
    promise = hub.documents("promises", Promise)["stop-2"]
    assert promise.told == told[0].told != before
    decision = hub.decisions()[-1]
    assert decision.kind == "window_moved"
    assert decision.sentence.startswith("The window of order order-2 moves from 10:")
    assert decision.cause == "held up"
    assert decision.inputs[0].value == "12:55/13:00/13:08"


def test_a_window_moved_by_a_resequence_names_the_vans_decision(hub: Driven) -> None:
    hub.hour = 8.5
    shown = (StopId("stop-2"), StopId("stop-1"), StopId("stop-3"))
    later = (estimate("stop-2", 10.5), estimate("stop-1", 12.5), estimate("stop-3", 12.6))
    hub.say(Resequenced("c-1", 1, shown, shown, own_decision(1), later))
    assert hub.documents("agents", AgentRecord)["van-1"].order == shown
    decision = hub.decisions()[-1]
    assert "van-1/1" in decision.about
    assert decision.cause == "van-1 re-sequenced itself: I go to stop 2 first."


def test_of_a_backlog_only_the_last_word_counts(hub: Driven) -> None:
    hub.hour = 9
    late = [EstimatesMoved((estimate("stop-2", hour),), "late") for hour in (13.0, 14.0, 15.0)]
    hub.say(*late, EstimatesMoved((estimate("stop-2", 11.0),), "all is well again"))
    assert hub.commands() == []
    assert hub.documents("promises", Promise)["stop-2"].moves == 0


def test_a_window_the_rule_forbids_to_move_is_a_decision_said_once(hub: Driven) -> None:
    hub.hour = 7.1
    for _ in range(3):
        hub.say(EstimatesMoved((estimate("stop-2", 11.5),), "held up"))
    held = [decision for decision in hub.decisions() if decision.kind == "window_held"]
    assert [decision.about[0] for decision in held] == ["order-2"]
    assert "30 min must pass" in held[0].verdict
    assert held[0].chosen == 0


def test_leaving_the_slot_is_told_as_a_breach() -> None:
    hub = Driven()
    hub.plan([order(1, window(9, 11))], [10.0])
    hub.hour = 9
    hub.say(EstimatesMoved((estimate("stop-1", 11.5),), "held up"))
    (notice,) = [n for n in hub.documents("notices", Notice).values() if n.is_breach]
    assert notice.sentence.startswith("Order order-1 leaves its slot 09:00-11:00")
    assert hub.documents("promises", Promise)["stop-1"].is_breached


def test_a_message_said_twice_is_taken_once_and_acknowledged_twice(hub: Driven) -> None:
    spoken = hub.spoken(visit("stop-1", 10))
    assert hub.take(spoken).rows
    again = hub.take(spoken)
    assert again.rows == []
    assert [wire.decode_ack(e.payload).upto for e in again.envelopes] == [1]
    assert len(hub.documents("stops", StopRecord)["stop-1"].visits) == 1


def test_a_message_that_came_too_early_is_not_acknowledged_and_not_kept(hub: Driven) -> None:
    hub.spoken(HeadingTo(StopId("stop-1")))
    early = hub.take(hub.spoken(Arrived(StopId("stop-1"))))
    assert early.rows == []
    assert early.envelopes == []


def test_a_visit_known_under_another_number_is_not_counted_again(hub: Driven) -> None:
    hub.say(visit("stop-1", 10), visit("stop-1", 10))
    record = hub.documents("stops", StopRecord)["stop-1"]
    assert (record.state, len(record.visits)) == ("done", 1)


def test_a_visit_ends_the_stop_and_settles_the_promise(hub: Driven) -> None:
    hub.say(ShiftChanged("begun"), HeadingTo(StopId("stop-1")), Arrived(StopId("stop-1")), visit("stop-1", 10.2))
    van = hub.documents("agents", AgentRecord)["van-1"]
    assert (van.heading_to, van.at_stop, van.order) == (None, None, ("stop-2", "stop-3"))
    assert hub.documents("promises", Promise)["stop-1"].served_ms == at(10.2)
    hub.say(EstimatesMoved((estimate("stop-1", 14.0),), "an old thought"))
    assert hub.commands() == []


def test_a_driver_who_goes_elsewhere_is_information_not_an_error(hub: Driven) -> None:
    hub.say(HeadingTo(StopId("stop-1")), HeadingTo(StopId("stop-3"), overrides=True))
    states = {key: record.state for key, record in hub.documents("stops", StopRecord).items()}
    assert states == {"stop-1": "planned", "stop-2": "planned", "stop-3": "heading"}
    assert hub.documents("agents", AgentRecord)["van-1"].overrides == 1


def test_what_cannot_be_true_is_a_dead_letter_and_the_stream_goes_on(hub: Driven) -> None:
    made = hub.say(HeadingTo(StopId("nowhere")), HeadingTo(StopId("stop-1")))
    (letter,) = hub.documents("dead_letters", DeadLetter).values()
    assert letter.why == "stop 'nowhere' is unknown"
    assert [wire.decode_ack(e.payload).upto for e in made.envelopes] == [2]
    assert hub.documents("stops", StopRecord)["stop-1"].state == "heading"


def test_a_message_nobody_can_read_does_not_hold_up_the_next(hub: Driven) -> None:
    hub.seqs[VAN] = 1
    unreadable = Unreadable(VAN, "van-1-boot", "events", 1, b"{}", "not one of ours")
    hub.take(unreadable, hub.spoken(HeadingTo(StopId("stop-1"))))
    assert hub.documents("dead_letters", DeadLetter)
    assert hub.documents("stops", StopRecord)["stop-1"].state == "heading"


def test_a_stranger_is_refused_by_name_and_gets_no_answer(hub: Driven) -> None:
    made = hub.say(PlanTaken(1), agent=AgentId("van-9"))
    assert (made.rows, made.envelopes) == ([], [])
    assert hub.core.counts["refused.AgentUnknown"] == 1


def test_a_command_is_repeated_until_the_agent_has_committed_it(hub: Driven) -> None:
    hub.real_ms = 5_000
    hub.take()
    (again,) = hub.commands()
    assert isinstance(again, PlanPushed)
    hub.take(Acked(VAN, Ack(AgentId("hub"), "boot", "commands", 1)))
    hub.real_ms = 50_000
    hub.take()
    assert hub.commands() == []


def test_an_agent_that_comes_back_hears_at_once_what_it_missed(hub: Driven) -> None:
    hub.take(PresenceHeard(VAN, Presence(VAN, True, "life-2")))
    assert [type(command) for command in hub.commands()] == [PlanPushed]


def test_the_will_of_a_process_already_replaced_is_not_believed(hub: Driven) -> None:
    hub.take(PresenceHeard(VAN, Presence(VAN, True, "life-1")))
    hub.take(PresenceHeard(VAN, Presence(VAN, True, "life-2")))
    hub.take(PresenceHeard(VAN, Presence(VAN, False, "life-1")))
    assert hub.documents("agents", AgentRecord)["van-1"].is_there


def test_a_restart_raises_the_epoch_and_says_what_waits_under_it(hub: Driven) -> None:
    hub.wake_up()
    assert hub.core.epoch == 2
    payload = next(e.payload for e in hub.envelopes if e.topic.endswith("/commands"))
    numbered = wire.decode_numbered(payload)
    assert (numbered.epoch, numbered.seq) == (2, 1)
    assert hub.rooms["outbox"]["van-1/commands/000000000001"] == payload


def test_a_plan_wanted_when_the_process_fell_is_wanted_again() -> None:
    hub = Driven()
    hub.plan([order(1)], [10.0])
    hub.take(OrdersHanded((order(2),)))
    (wanted,) = hub.take(DayPlanAsked(DAY, "anna")).jobs
    identity_jobs = _jobs_of_a_new_life(hub)
    assert [job.need for job in identity_jobs] == [wanted.need]


def _jobs_of_a_new_life(hub: Driven) -> list[Job]:
    taken: list[Job] = []
    hub_take = hub.take

    def remember(*events: object) -> Consequences:
        made = hub_take(*events)
        taken.extend(made.jobs)
        return made

    hub.take = remember  # type: ignore[method-assign]  # To see the first step of the new life.
    hub.wake_up()
    return taken


def test_a_day_that_cannot_be_planned_is_given_up_aloud() -> None:
    hub = Driven()
    hub.plan([order(1)], [10.0])
    hub.take(OrdersHanded((order(2),)))
    jobs = hub.take(DayPlanAsked(DAY, "anna")).jobs
    for _ in range(4):
        hub.take(JobFailed(jobs[0], "the solver fell"))
        hub.real_ms += 60_000
        jobs = hub.take().jobs
    assert hub.decisions()[-1].kind == "plan_failed"
    assert hub.rooms["needs"] == {}


def test_a_van_under_way_keeps_its_work_when_the_day_is_planned_again(hub: Driven) -> None:
    hub.say(ShiftChanged("begun"))
    hub.take(OrdersHanded((order(4),)))
    answer = hub.take(DayPlanAsked(DAY, "anna")).answers[0]
    assert not answer.is_done
    assert hub.documents("stops", StopRecord)["stop-4"].state == "waiting"


def test_a_van_that_is_out_keeps_its_day_and_begins_the_next_when_it_is_back(hub: Driven) -> None:
    tomorrow = msgspec.structs.replace(vehicle(), day="2026-03-04", begins_ms=at(32), ends_ms=at(40))
    hub.say(ShiftChanged("begun"))
    assert hub.take(VehiclesSaid((tomorrow,))).answers[0].refused == (
        ("van-1", "it is still out on 2026-03-03 with 3 stops to go"),
    )
    hub.say(visit("stop-1", 10), ShiftChanged("ended"))
    assert hub.take(VehiclesSaid((tomorrow,))).answers[0].named == ("van-1",)
    stops = hub.documents("stops", StopRecord)
    assert (stops["stop-2"].state, stops["stop-2"].agent) == ("waiting", "")
    assert stops["stop-2"].why_waiting == "left undone by van-1"
    assert stops["stop-1"].state == "done"


def test_an_order_already_planned_is_not_changed_by_handing_it_in_again(hub: Driven) -> None:
    changed = msgspec.structs.replace(order(1), fingerprint="another")
    answer = hub.take(OrdersHanded((changed, order(2)))).answers[0]
    assert answer.named == ("order-2",)
    assert answer.refused == (("order-1", "it is already planned with van-1"),)


def test_a_closed_street_asks_for_new_leg_times_and_sends_them(hub: Driven) -> None:
    made = hub.take(ClosuresAsked((17, 18), True, "Main Street", "burst pipe", "anna"))
    (wanted,) = made.jobs
    assert isinstance(wanted, LegTimesWanted)
    assert wanted.closed == (17, 18)
    legs = LegTimes.from_matrix(wanted.roads_version, ("stop-1", "stop-2", "stop-3"), (at(17),), np.full((1, 4, 4), 90))  # type: ignore[arg-type]  # Plain strings stand for stop ids.
    hub.take(LegTimesFound(wanted.need, VAN, 1, legs))
    (command,) = hub.commands()
    assert isinstance(command, RoadsChanged)
    assert command.why == "burst pipe"
    assert hub.take().jobs == []


def test_a_window_told_by_hand_stays_inside_the_slot(hub: Driven) -> None:
    outside = hub.take(WindowAsked(OrderId("order-1"), window(8, 10), "anna")).answers[0]
    assert not outside.is_done
    inside = hub.take(WindowAsked(OrderId("order-1"), window(10, 11), "anna")).answers[0]
    assert inside.is_done
    assert [type(command) for command in hub.commands()] == [WindowTold]
    assert hub.decisions()[-1].approved_by.startswith("person:")


def test_an_agents_chain_of_decisions_is_followed_and_a_break_is_named(hub: Driven) -> None:
    first = own_decision(1)
    shown = (StopId("stop-1"), StopId("stop-2"), StopId("stop-3"))
    hub.say(Resequenced("c-1", 1, shown, shown, first, ()))
    hub.say(Resequenced("c-2", 1, shown, shown, own_decision(2, first.link()), ()))
    assert hub.documents("chains", Chain)["van-1"].breaks == 0
    hub.say(Resequenced("c-4", 1, shown, shown, own_decision(4, "f" * 64), ()))
    assert hub.documents("chains", Chain)["van-1"].breaks == 1
    assert (
        hub.decisions()[-1].sentence == "The record of van-1 is broken before van-1/4: one is missing or was changed."
    )
    assert [decision.decision_id for decision in hub.decisions("van-1")] == ["van-1/1", "van-1/2", "van-1/4"]


def test_a_refused_plan_is_on_record(hub: Driven) -> None:
    hub.say(PlanRefused(1, "too many litres"))
    assert hub.documents("agents", AgentRecord)["van-1"].plan_refused == "plan 1: too many litres"
    assert hub.decisions()[-1].kind == "plan_refused"


def test_an_agent_without_its_plan_gets_what_is_left(hub: Driven) -> None:
    hub.take(Acked(VAN, Ack(AgentId("hub"), "boot", "commands", 1)))
    hub.say(visit("stop-1", 10))
    hub.say(AgentStarted("van", "1", 0))
    (command,) = hub.commands()
    assert isinstance(command, PlanPushed)
    assert command.plan.plan_version == 2
    assert [stop.stop_id for stop in command.plan.stops] == ["stop-2", "stop-3"]
    assert command.plan.objections() == []


def test_notices_leave_four_at_a_time_are_tried_again_later_and_are_kept() -> None:
    hub = Driven(has_receiver=True)
    orders = [order(k) for k in range(6)]
    made = hub.plan(orders, [10.0 + k / 4 for k in range(6)])
    wanted = [job for job in made.jobs if isinstance(job, NoticeWanted)]
    assert len(wanted) == 4
    again = hub.take(NoticeDelivered(wanted[0].need, "204"), NoticeFailed(wanted[1].need, "503", False))
    assert len(again.jobs) == 2
    assert wanted[1].need not in {job.need for job in again.jobs}
    hub.real_ms = 2_000
    hub.take(NoticeFailed(wanted[2].need, "410 Gone", True))
    states = {key: notice.state for key, notice in hub.documents("notices", Notice).items()}
    assert (states[wanted[0].need], states[wanted[1].need], states[wanted[2].need]) == ("delivered", "due", "given_up")


def test_without_a_receiver_notices_are_kept_and_nothing_leaves(hub: Driven) -> None:
    assert {notice.state for notice in hub.documents("notices", Notice).values()} == {"kept"}
    assert hub.rooms.get("notices_due", {}) == {}


stories = st.lists(
    st.one_of(
        st.tuples(st.just("late"), st.integers(1, 3), st.floats(9, 18)),
        st.tuples(st.just("visit"), st.integers(1, 4), st.floats(9, 16)),
        st.tuples(st.just("heading"), st.integers(1, 4), st.floats(9, 16)),
        st.tuples(st.just("window"), st.integers(1, 3), st.floats(9, 16)),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(stories, st.integers(0, 12))
def test_memory_equals_disk_a_hub_that_slept_goes_on_as_if_it_had_not(
    story: list[tuple[str, int, float]], sleeps_at: int
) -> None:
    awake, sleepy = Driven(), Driven()
    for hub in (awake, sleepy):
        hub.plan(THREE, HOURS)
    for place, (what, number, hour) in enumerate(story):
        for hub in (awake, sleepy):
            hub.hour = 8 + place / 2
            if hub is sleepy and place == sleeps_at:
                hub.wake_up()
            _happen(hub, what, number, hour)
    for room in ("stops", "agents", "promises", "estimates", "taken", "notices", "chains", "counters"):
        assert awake.rooms.get(room) == sleepy.rooms.get(room)
    for promise in awake.documents("promises", Promise).values():
        assert promise.told.within(promise.slot) or promise.is_breached


def _happen(hub: Driven, what: str, number: int, hour: float) -> None:
    stop = StopId(f"stop-{number}")
    if what == "late":
        hub.say(EstimatesMoved((estimate(stop, hour),), "late"))
    elif what == "visit":
        hub.say(visit(stop, hour))
    elif what == "heading":
        hub.say(HeadingTo(stop))
    else:
        hub.take(WindowAsked(OrderId(f"order-{number}"), TimeWindow(at(hour), EpochMs(at(hour) + 30 * MINUTE)), "anna"))


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(1, 8)), st.lists(st.integers(1, 7), max_size=20))
def test_however_messages_are_lost_repeated_and_reordered_each_is_taken_once_and_in_order(
    shuffled: list[int], repeats: list[int]
) -> None:
    hub = Driven()
    hub.plan([order(k) for k in range(1, 8)], [10.0 + k / 2 for k in range(7)])
    messages = {k: hub.spoken(visit(f"stop-{k}", 9 + k / 4)) for k in range(1, 8)}
    for seq in [*shuffled, *repeats, *range(1, 8)]:
        hub.take(messages[seq])
    records = hub.documents("stops", StopRecord)
    assert [len(records[f"stop-{k}"].visits) for k in range(1, 8)] == [1] * 7
    assert hub.documents("agents", AgentRecord)["van-1"].events_taken == 7


def test_an_estimate_from_another_age_is_a_dead_letter_not_a_crash(hub: Driven) -> None:
    absurd = msgspec.structs.replace(estimate("stop-1", 10), p90_ms=EpochMs(1 << 62))
    hub.say(EstimatesMoved((absurd,), "clock unknown"), HeadingTo(StopId("stop-1")))
    assert len(hub.documents("dead_letters", DeadLetter)) == 1
    assert hub.documents("stops", StopRecord)["stop-1"].state == "heading"


def test_roads_that_do_not_answer_are_on_record(hub: Driven) -> None:
    jobs = hub.take(ClosuresAsked((17,), True, "Main Street", "", "anna")).jobs
    for _ in range(4):
        hub.take(JobFailed(jobs[0], "no way through"))
        hub.real_ms += 300_000
        jobs = hub.take().jobs
    assert hub.decisions()[-1].kind == "leg_times_failed"
    assert len(jobs) == 1


anything = st.integers(-(2**63), 2**63 - 1)
ids = st.sampled_from(["stop-1", "stop-2", "stop-3", "stop-9", ""]).map(StopId)
orders_of_ids = st.lists(ids, max_size=5).map(tuple)
guesses = st.lists(st.builds(Estimate, ids, anything, anything, anything), max_size=4).map(tuple)
near = st.integers(0, 24 * 60).map(lambda minute: EpochMs(at(0) + minute * MINUTE))
near_guesses = st.lists(
    st.tuples(ids, st.lists(near, min_size=3, max_size=3).map(sorted)).map(lambda e: Estimate(e[0], *e[1])), max_size=4
).map(tuple)
visits = st.builds(
    Visit, ids, st.sampled_from(Outcome), anything, anything, st.builds(Proof, st.just(()), st.none(), anything)
)
said = st.one_of(
    st.builds(AgentStarted, st.text(max_size=5), st.text(max_size=5), anything),
    st.builds(PlanTaken, anything),
    st.builds(PlanRefused, anything, st.text(max_size=9)),
    st.builds(ShiftChanged, st.sampled_from(["begun", "ended", "on_break", "dancing"])),
    st.builds(HeadingTo, ids, st.booleans()),
    st.builds(Arrived, ids),
    st.builds(Visited, visits),
    st.builds(EstimatesMoved, guesses | near_guesses, st.text(max_size=9)),
    st.builds(
        Resequenced, st.text(max_size=5), anything, orders_of_ids, orders_of_ids, st.just(own_decision(1)), near_guesses
    ),
    st.builds(
        ChangeAnswered, st.text(max_size=5), st.sampled_from(["seen", "refused", "eaten"]), st.just(""), orders_of_ids
    ),
    st.builds(Decided, st.just(own_decision(1))),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(said, max_size=15))
def test_whatever_an_agent_says_the_hub_lives_acknowledges_it_and_keeps_its_promises(story: list[AgentEvent]) -> None:
    hub = Driven()
    hub.plan(THREE, HOURS)
    for place, event in enumerate(story):
        hub.hour = 7 + place / 4
        made = hub.say(event)
        assert [wire.decode_ack(e.payload).upto for e in made.envelopes] == [place + 1]
    hub.wake_up()
    for promise in hub.documents("promises", Promise).values():
        assert promise.told.within(promise.slot) or promise.is_breached
    records = hub.documents("stops", StopRecord)
    assert all(len({v.arrived_ms for v in record.visits}) == len(record.visits) for record in records.values())


def test_the_hub_speaks_only_signed_commands(hub: Driven) -> None:
    assert all(e.is_signed for e in hub.envelopes if e.topic.endswith("/commands"))


def test_an_agent_may_not_say_what_is_the_hubs_to_say(hub: Driven) -> None:
    hub.take(Spoke(Numbered(VAN, "van-1-boot", "events", 1, at(8), 0, WindowTold(StopId("stop-1"), window(9, 10)))))
    (letter,) = hub.documents("dead_letters", DeadLetter).values()
    assert letter.why == "WindowTold is the hub's to say, not an agent's"
