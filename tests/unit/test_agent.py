"""What one agent decides, by handing it events."""

import msgspec

from edge_agent.dialogue import ChangeSaid, HeadingSaid, OutcomeSaid, ShiftSaid
from edge_agent.sensing import Scan
from shared.ledger import first_broken
from shared.messages import (
    AgentStarted,
    Arrived,
    ChangeAnswered,
    Decided,
    EstimatesMoved,
    HeadingTo,
    Numbered,
    PlanPushed,
    PlanRefused,
    PlanTaken,
    Resequenced,
    ShiftChanged,
    Visited,
    WindowTold,
)
from shared.quantities import EpochMs, TimeWindow
from shared.steps import LinkDown
from shared.topics import HUB
from shared.work import Outcome, StopId
from tests.agents import MINUTE_MS, MORNING_MS, Rig, place, plan_of, row_of_houses, stop


def on_the_road() -> Rig:
    rig = Rig()
    rig.push(plan_of(row_of_houses()))
    rig.begin()
    return rig


def late_rig() -> Rig:
    """Six houses in a row; the last one's window closes early, and the van has lost half an hour at the depot."""
    rig = Rig()
    houses = row_of_houses(5)
    urgent = stop("s6", 450.0, 60.0, told=(0, 50))
    rig.push(plan_of([*houses, urgent]))
    rig.begin()
    rig.heads_for("s1")
    rig.waits(25)
    return rig


def test_a_new_store_says_that_the_agent_started_without_a_plan() -> None:
    rig = Rig()
    rig.step()
    assert rig.said == [AgentStarted("vehicle", "test", 0)]


def test_a_plan_is_taken_and_shown_in_planned_order() -> None:
    rig = on_the_road()
    assert rig.events(PlanTaken) == [PlanTaken(1)]
    assert rig.shown == ["s1", "s2", "s3", "s4", "s5", "s6"]


def test_plan_7_is_refused_while_plan_9_is_driven() -> None:
    rig = Rig()
    rig.push(plan_of(row_of_houses(), version=9))
    rig.push(plan_of(row_of_houses(3), version=7))
    assert rig.events(PlanRefused) == [PlanRefused(7, "plan 7 refused: agent already drives plan 9")]
    assert len(rig.shown) == 6


def test_a_command_of_an_epoch_that_is_over_leaves_its_number_to_the_hub_that_acts() -> None:
    # Said by the hub that was, it overtakes the same command said again by the one that is: taken and refused, its
    # number was gone and the command lost.
    rig = Rig()
    rig.push(plan_of(row_of_houses(), version=1), epoch=3)
    old = PlanPushed(plan_of(row_of_houses(), version=2), EpochMs(rig.now_ms + 60 * MINUTE_MS))
    made = rig.step(Numbered(HUB, "hub-1", "commands", 2, EpochMs(rig.now_ms), 2, old))
    assert rig.core.refused["EpochOver"] == 1
    assert [envelope for envelope in made.envelopes if envelope.topic.endswith("/acks")] == []
    rig.push(plan_of(row_of_houses(), version=2), epoch=3)
    assert [taken.plan_version for taken in rig.events(PlanTaken)] == [1, 2]


def test_a_plan_after_its_start_by_time_is_not_begun() -> None:
    rig = Rig()
    rig.hub(PlanPushed(plan_of(row_of_houses()), EpochMs(rig.now_ms - 5 * MINUTE_MS)))
    assert rig.events(PlanRefused)[0].why == "plan 1 refused: it came 5 min after its start-by time"


def test_a_plan_for_another_van_is_refused() -> None:
    rig = Rig()
    rig.push(plan_of(row_of_houses(), agent="van-2"))
    assert rig.events(PlanRefused)[0].why == "plan 1 refused: it is for van-2, this is van-1"


def test_a_plan_that_contradicts_itself_is_refused_in_words() -> None:
    rig = Rig()
    rig.push(plan_of(row_of_houses(), before=((StopId("s1"), StopId("nowhere")),)))
    assert "names an unknown stop" in rig.events(PlanRefused)[0].why


def test_a_new_plan_of_the_day_keeps_visits_done_and_the_stop_under_way() -> None:
    rig = on_the_road()
    rig.visits("s1")
    rig.heads_for("s3")
    rig.push(plan_of(row_of_houses(), version=2))
    assert rig.shown == ["s3", "s2", "s4", "s5", "s6"]
    assert rig.day["heading_to"] == "s3"
    assert [done["stop_id"] for done in rig.day["done"]] == ["s1"]


def test_the_page_counts_the_parcels_that_go_back_to_the_depot() -> None:
    rig = on_the_road()
    rig.heads_for("s1")
    assert rig.driver(OutcomeSaid("s1", Outcome.REFUSED, reason="wrong goods"), after_s=200).status == 200
    rig.visits("s2")
    assert rig.driver(OutcomeSaid("s3", Outcome.MISSING_FROM_LOAD), after_s=200).status == 200
    assert rig.day["on_board"] == 1


def test_a_plan_of_another_day_begins_anew() -> None:
    rig = on_the_road()
    rig.visits("s1")
    rig.push(plan_of(row_of_houses(), version=2, day="2026-11-24"))
    assert rig.shown == ["s1", "s2", "s3", "s4", "s5", "s6"]
    assert rig.day["done"] == []
    assert rig.day["shift"] == "waiting"


def test_standing_at_the_stop_is_recognised_as_arrival() -> None:
    rig = on_the_road()
    rig.heads_for("s1")
    rig.stands_at(place(405, 10), after_s=100)
    assert rig.events(Arrived) == [Arrived(StopId("s1"))]
    assert rig.day["at_stop"] == "s1"


def test_a_red_light_on_the_way_is_no_arrival() -> None:
    rig = on_the_road()
    rig.heads_for("s3")
    rig.stands_at(place(400, 0), after_s=60, for_s=40)
    assert rig.events(Arrived) == []


def test_a_driver_who_goes_elsewhere_without_a_word_is_recognised() -> None:
    rig = on_the_road()
    rig.drives_past(place(-300, 100), after_s=30)
    assert rig.events(HeadingTo) == [HeadingTo(StopId("s1"))]
    rig.stands_at(place(1200, 0), after_s=200, for_s=160)
    assert rig.events(HeadingTo)[-1] == HeadingTo(StopId("s3"), overrides=True)
    assert rig.events(Arrived) == [Arrived(StopId("s3"))]


def test_going_elsewhere_is_information_and_is_shown_first() -> None:
    rig = on_the_road()
    assert rig.heads_for("s4").status == 200
    assert rig.events(HeadingTo) == [HeadingTo(StopId("s4"), overrides=True)]
    assert rig.shown[0] == "s4"


def test_a_stand_that_ends_without_an_outcome_was_no_visit() -> None:
    rig = on_the_road()
    rig.heads_for("s2")
    rig.stands_at(place(1200, 0), after_s=200, for_s=320)
    assert rig.day["at_stop"] == "s3"
    rig.drives_past(place(900, 0), after_s=20)
    assert rig.day["at_stop"] is None
    assert rig.day["heading_to"] == "s2"


def test_a_delivery_without_its_scan_is_refused_in_words() -> None:
    rig = on_the_road()
    rig.heads_for("s1")
    reply = rig.driver(OutcomeSaid("s1", Outcome.DELIVERED_TO_PERSON), after_s=200)
    assert reply.status == 422
    assert reply.detail == "delivered_to_person at s1 street 1 lacks scans of WW:s1/1"
    assert rig.events(Visited) == []


def test_a_scanned_delivery_is_said_once_with_its_proof() -> None:
    rig = on_the_road()
    rig.visits("s1")
    (visited,) = rig.events(Visited)
    assert visited.visit.proof.scanned == ("WW:s1/1",)
    assert visited.visit.left_ms - visited.visit.arrived_ms > 240_000
    assert rig.shown[0] == "s2"


def test_the_same_words_under_the_same_key_are_done_once() -> None:
    rig = on_the_road()
    rig.heads_for("s1")
    rig.step(Scan(EpochMs(rig.now_ms), "WW:s1/1"))
    said = OutcomeSaid("s1", Outcome.DELIVERED_TO_PERSON)
    assert rig.driver(said, key="same").status == 200
    assert rig.driver(said, key="same").status == 200
    assert rig.restarted().driver(said, key="same").status == 200
    assert len(rig.events(Visited)) == 1


def test_a_key_used_for_other_words_is_refused() -> None:
    rig = on_the_road()
    assert rig.driver(HeadingSaid("s1"), key="k").status == 200
    assert rig.driver(HeadingSaid("s2"), key="k").status == 422


def test_what_is_garbage_to_the_scanner_is_counted_by_name() -> None:
    rig = on_the_road()
    rig.step(Scan(EpochMs(rig.now_ms), "\x00\x01"), Scan(EpochMs(rig.now_ms), "§§"))
    assert rig.core.counters()["refused_LabelGarbled"] == 2


def test_first_estimates_are_said_and_small_shifts_are_not() -> None:
    rig = on_the_road()
    said = len(rig.events(EstimatesMoved))
    rig.heads_for("s1")
    rig.step(after_s=61)
    assert said >= 1
    assert len(rig.events(EstimatesMoved)) == said


def test_estimates_that_move_by_minutes_are_said() -> None:
    rig = on_the_road()
    rig.heads_for("s1")
    said = len(rig.events(EstimatesMoved))
    rig.stands_at(place(-100, 0), after_s=600)
    assert len(rig.events(EstimatesMoved)) > said


def test_a_late_van_re_sequences_itself_and_says_why() -> None:
    rig = late_rig()
    (changed,) = rig.events(Resequenced)
    assert changed.after[0] == "s1"
    assert changed.after.index("s6") < changed.before.index("s6")
    assert "keeps its window" in changed.decision.sentence
    assert changed.decision.sentence.startswith("About to miss the window at s6; moved 1 stop")
    assert [estimate.stop_id for estimate in changed.estimates] == list(changed.after)
    assert rig.shown == list(changed.after)
    assert rig.day["change"]["change_id"] == changed.change_id
    assert rig.day["change"]["why"].startswith("About to miss the window at s6 street 1; moved 1 stop")


def test_a_delay_found_at_once_is_told_in_minutes() -> None:
    rig = Rig()
    rig.push(plan_of([*row_of_houses(5), stop("s6", 450.0, 60.0, told=(0, 50))]))
    rig.begin()
    rig.heads_for("s1")
    rig.step(after_s=25 * 60)
    assert rig.events(Resequenced)[0].decision.sentence.startswith("Running 7 min late at s6")


def test_lateness_that_another_order_saves_is_not_said_first() -> None:
    rig = late_rig()
    changed = next(k for k, said in enumerate(rig.said) if isinstance(said, Resequenced))
    earlier = [said.why for said in rig.said[:changed] if isinstance(said, EstimatesMoved)]
    assert "s6 is late, was at_risk" not in earlier


def test_a_stop_told_beyond_its_slot_is_still_wanted_inside_it() -> None:
    rig = Rig()
    day = TimeWindow(MORNING_MS, EpochMs(MORNING_MS + 600 * MINUTE_MS))
    rig.push(
        plan_of([*row_of_houses(5), msgspec.structs.replace(stop("s6", 450.0, 60.0), slot=_until(50), told=_until(50))])
    )
    rig.hub(WindowTold(StopId("s6"), day))
    rig.begin()
    rig.heads_for("s1")
    rig.waits(25)
    assert rig.events(Resequenced)[0].after.index("s6") < 5


def _until(minutes: int) -> TimeWindow:
    return TimeWindow(MORNING_MS, EpochMs(MORNING_MS + minutes * MINUTE_MS))


def test_the_stop_under_way_is_never_moved() -> None:
    rig = late_rig()
    (changed,) = rig.events(Resequenced)
    assert changed.before[0] == changed.after[0] == "s1"


def test_the_same_decision_is_taken_with_the_link_down() -> None:
    alone, linked = late_rig(), Rig()
    linked.link_up()
    houses = row_of_houses(5)
    linked.push(plan_of([*houses, stop("s6", 450.0, 60.0, told=(0, 50))]))
    linked.step(LinkDown("cut"))
    linked.begin()
    linked.heads_for("s1")
    linked.waits(25)
    assert linked.events(Resequenced)[0].after == alone.events(Resequenced)[0].after


def test_a_refused_change_puts_the_former_order_back_and_is_not_proposed_again() -> None:
    rig = late_rig()
    (changed,) = rig.events(Resequenced)
    assert rig.refuses(changed.change_id, "no room to turn").status == 200
    assert rig.shown == list(changed.before)
    assert rig.events(ChangeAnswered) == [
        ChangeAnswered(changed.change_id, "refused", "no room to turn", tuple(changed.before))
    ]
    rig.waits(20)
    assert len(rig.events(Resequenced)) == 1
    assert "refused it" in rig.events(Decided)[0].decision.verdict


def test_a_seen_change_stays() -> None:
    rig = late_rig()
    (changed,) = rig.events(Resequenced)
    assert rig.driver(ChangeSaid(changed.change_id, "seen")).status == 200
    assert rig.day["change"] is None
    assert rig.shown == list(changed.after)


def test_a_spent_change_budget_keeps_the_order_and_is_written_down() -> None:
    rig = Rig()
    houses = [*row_of_houses(5), stop("s6", 450.0, 60.0, told=(0, 50))]
    plan = plan_of(houses)
    rig.push(plan_of(houses, freedom=type(plan.freedom)(arcs_per_day=1)))
    rig.begin()
    rig.heads_for("s1")
    rig.waits(25)
    assert rig.events(Resequenced) == []
    (kept,) = rig.events(Decided)
    assert kept.decision.kind == "keep"
    assert "of the day's 1 are left" in kept.decision.verdict


def test_an_answer_to_a_question_no_longer_asked_is_dropped() -> None:
    rig = Rig()
    rig.push(plan_of([*row_of_houses(5), stop("s6", 450.0, 60.0, told=(0, 50))]))
    rig.begin()
    rig.heads_for("s1")
    rig.now_ms += 25 * MINUTE_MS
    rig.does_jobs = False
    rig.step()
    rig.step(rig.answer_to(rig.jobs[-1]))
    improve = rig.jobs[-1]
    answer = rig.answer_to(improve)
    rig.heads_for("s2")
    rig.step(answer)
    assert rig.events(Resequenced) == []


def test_decisions_form_a_chain_over_restarts() -> None:
    rig = late_rig()
    rig.refuses(rig.events(Resequenced)[0].change_id)
    again = rig.restarted()
    again.waits(45)
    chain = [e.decision for e in [*rig.said, *again.said] if isinstance(e, Resequenced | Decided)]
    assert len(chain) >= 2
    assert first_broken(chain) is None


def test_a_told_window_is_weighed_from_then_on() -> None:
    rig = on_the_road()
    later = TimeWindow(EpochMs(MORNING_MS + 60 * MINUTE_MS), EpochMs(MORNING_MS + 90 * MINUTE_MS))
    rig.hub(WindowTold(StopId("s4"), later))
    shown = next(each for each in rig.day["stops"] if each["stop_id"] == "s4")
    assert shown["told"] == [later.opens_ms, later.closes_ms]


def test_the_shift_has_its_break_and_its_end() -> None:
    rig = on_the_road()
    assert [rig.driver(ShiftSaid(word)).status for word in ("on_break", "off_break", "off_break", "ended")] == [
        200,
        200,
        409,
        200,
    ]
    assert [said.now_is for said in rig.events(ShiftChanged)] == ["begun", "on_break", "off_break", "ended"]


def test_a_stop_that_was_ended_cannot_be_ended_again() -> None:
    rig = on_the_road()
    rig.visits("s1")
    assert rig.driver(OutcomeSaid("s1", Outcome.ATTEMPTED, reason="x")).status == 409
    assert rig.driver(OutcomeSaid("nowhere", Outcome.ATTEMPTED, reason="x")).status == 404


def test_numbers_go_on_over_a_restart() -> None:
    rig = on_the_road()
    again = rig.restarted()
    again.step()
    assert again.seqs[0] == rig.seqs[-1] + 1


def test_an_old_command_replayed_from_a_hubs_former_life_does_not_retire_the_one_that_acts() -> None:
    rig = Rig()
    rig.push(plan_of(row_of_houses()), epoch=7)
    old = PlanPushed(plan_of(row_of_houses(), version=9), EpochMs(rig.now_ms + 60 * MINUTE_MS))
    rig.step(Numbered(HUB, "hub-0", "commands", 1, EpochMs(rig.now_ms), 6, old))
    assert rig.core.refused["EpochOver"] == 1
    rig.push(plan_of(row_of_houses(), version=2), epoch=7)
    assert [taken.plan_version for taken in rig.events(PlanTaken)] == [1, 2]


def test_a_hub_restored_from_a_backup_is_heard_from_its_first_command() -> None:
    rig = Rig()
    rig.push(plan_of(row_of_houses()), epoch=7)
    pushed = PlanPushed(plan_of(row_of_houses(), version=2), EpochMs(rig.now_ms + 60 * MINUTE_MS))
    rig.step(Numbered(HUB, "hub-restored", "commands", 41, EpochMs(rig.now_ms), 8, pushed, None, 40))
    assert [taken.plan_version for taken in rig.events(PlanTaken)] == [1, 2]
