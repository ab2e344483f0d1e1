"""Who waits for a van that has gone home hears of it, and the order comes on another day."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.events import DayPlanAsked, Notice, OrdersHanded, PlanWanted, VehiclesSaid
from cloud_hub.fleet import AgentRecord, Order, StopRecord
from cloud_hub.promises import Promise
from cloud_hub.sayings import SafePlace, WishSaid
from cloud_hub.undone import PATIENCE_MS
from shared.messages import AmendmentTaken, HeadingTo, PlanTaken, ShiftChanged, Visited
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Now
from shared.work import OrderId, Outcome, Proof, StopId, Visit
from tests.unit.hub_cases import MINUTE, VAN, Driven, at, order, vehicle, window

ONE, TWO, THREE = StopId("stop-1"), StopId("stop-2"), StopId("stop-3")
NEXT = StopId("stop-2.2")
LONG_ENOUGH = PATIENCE_MS / 3_600_000
TOMORROW = window(24 + 9, 24 + 17)


def visit(stop_id: StopId, outcome: Outcome, hour: float) -> Visited:
    proof = Proof((), None, at(hour))
    return Visited(Visit(stop_id, outcome, at(hour), EpochMs(at(hour) + 3 * MINUTE), proof, "nobody answered"))


def delivered(stop_id: StopId, hour: float) -> Visited:
    return visit(stop_id, Outcome.DELIVERED_TO_PERSON, hour)


@pytest.fixture
def hub() -> Driven:
    """A hub with one van under way: the first of two stops is delivered."""
    driven = Driven()
    driven.plan([order(1), order(2)], [10.0, 11.0])
    driven.hour = 10.0
    driven.say(PlanTaken(1), ShiftChanged("begun"), delivered(ONE, 10))
    return driven


def go_home(hub: Driven, hour: float = 16.5) -> None:
    hub.hour = hour
    hub.say(ShiftChanged("ended"))


def wait(hub: Driven, hours: float = LONG_ENOUGH) -> None:
    hub.hour += hours
    hub.take()


def stops(hub: Driven) -> dict[str, StopRecord]:
    return hub.documents("stops", StopRecord)


def missed(hub: Driven) -> list[Notice]:
    return [notice for notice in hub.documents("notices", Notice).values() if notice.kind == "missed"]


def test_what_a_shift_leaves_undone_is_told_written_down_and_waits_for_another_day(hub: Driven) -> None:
    told = hub.documents("promises", Promise)[TWO].told
    go_home(hub)
    wait(hub)
    (notice,) = missed(hub)
    assert (notice.order_id, notice.why, notice.next_step, notice.told) == (
        "order-2",
        "not_reached",
        "tomorrow",
        TOMORROW,
    )
    later = hub.documents("orders", Order)["order-2"].stop_named(NEXT)
    assert later is not None
    assert (later.slot, later.attempt) == (TOMORROW, 2)
    assert (stops(hub)[NEXT].state, "shift was over" in stops(hub)[NEXT].why_waiting) == ("waiting", True)
    promise = hub.documents("promises", Promise)[TWO]
    assert (promise.is_breached, promise.served_ms, promise.told) == (True, None, told)
    decision = hub.decisions()[-1]
    assert (decision.kind, decision.cause) == ("undone", "van-1 ended its shift at 16:30")
    assert notice.decision_id == decision.decision_id
    assert hub.documents("agents", AgentRecord)[VAN].order == ()


def test_a_shift_ended_by_a_slip_of_the_thumb_may_be_begun_again(hub: Driven) -> None:
    go_home(hub, 12.0)
    wait(hub, LONG_ENOUGH / 2)
    assert missed(hub) == []
    hub.say(ShiftChanged("begun"))
    wait(hub)
    assert (missed(hub), stops(hub)[TWO].state) == ([], "planned")


def test_the_core_wakes_by_itself_to_clear_up_after_a_van(hub: Driven) -> None:
    go_home(hub)
    assert hub.core.wake(Now(at(hub.hour), 0)).domain_ms == at(16.5) + PATIENCE_MS
    wait(hub)
    assert hub.core.wake(Now(at(hub.hour), 0)).domain_ms is None


def test_a_hub_that_slept_over_the_end_of_the_shift_still_tells(hub: Driven) -> None:
    go_home(hub)
    hub.hour = 19.0
    hub.wake_up()
    assert [notice.why for notice in missed(hub)] == ["not_reached"]
    hub.wake_up()
    wait(hub)
    assert len(missed(hub)) == 1


def test_an_agent_whose_clock_is_a_day_ahead_leaves_nobody_waiting(hub: Driven) -> None:
    hub.hour = 16.5
    hub.say(ShiftChanged("ended"), said=40.0)
    assert [notice.why for notice in missed(hub)] == ["not_reached"]


def test_who_is_delivered_to_after_all_is_not_visited_tomorrow(hub: Driven) -> None:
    go_home(hub)
    wait(hub)
    hub.say(ShiftChanged("begun"), delivered(TWO, 17))
    assert NEXT not in stops(hub)
    assert hub.documents("promises", Promise)[TWO].served_ms == at(17)


def test_a_stop_the_van_was_to_leave_out_waits_for_the_vans_answer(hub: Driven) -> None:
    now = Now(at(hub.hour), 0)
    hub.core._amendments.postpone(TWO, TOMORROW, why="another day", now=now)
    hub.take()
    go_home(hub)
    wait(hub)
    assert (missed(hub), stops(hub)[TWO].is_leaving) == ([], True)
    hub.say(AmendmentTaken(1, (TWO,), (), ()))
    assert (missed(hub), stops(hub)[TWO].state) == ([], "waiting")


def test_a_withdrawal_the_van_did_not_take_before_it_went_home_is_cleared_up(hub: Driven) -> None:
    wish = TimeWindow(at(48 + 9), at(48 + 17))
    hub.core._amendments.postpone(TWO, wish, why="another day", now=Now(at(hub.hour), 0))
    hub.take()
    go_home(hub)
    wait(hub)
    hub.say(HeadingTo(TWO), AmendmentTaken(1, (), ((TWO, "under way"),), ()))
    assert [(notice.why, notice.told) for notice in missed(hub)] == [("not_reached", wish)]


def test_a_parcel_that_is_not_on_board_comes_on_another_day(hub: Driven) -> None:
    hub.say(visit(TWO, Outcome.MISSING_FROM_LOAD, 11))
    assert [(notice.why, notice.next_step) for notice in missed(hub)] == [("not_on_board", "tomorrow")]
    assert stops(hub)[TWO].next_step == "tomorrow"
    assert (stops(hub)[NEXT].state, "not on board" in stops(hub)[NEXT].why_waiting) == ("waiting", True)
    promise = hub.documents("promises", Promise)[TWO]
    assert (promise.is_breached, promise.outcome) == (True, "missing_from_load")


def test_what_is_not_on_board_is_not_brought_today_whatever_its_customer_says(hub: Driven) -> None:
    hub.say(visit(TWO, Outcome.MISSING_FROM_LOAD, 11))
    assert hub.take(WishSaid(OrderId("order-2"), SafePlace("shed"))).answers[0].is_done
    assert (stops(hub)[NEXT].state, stops(hub)[TWO].next_step) == ("waiting", "tomorrow")


def test_what_we_did_not_bring_is_no_failed_attempt_of_the_customers(hub: Driven) -> None:
    hub.say(visit(TWO, Outcome.MISSING_FROM_LOAD, 11))
    book = hub.documents("orders", Order)["order-2"]
    assert hub.core._redelivery._visits.made(book) == 1
    assert hub.core._redelivery._visits.last(book) == 2


def test_what_waits_is_part_of_the_plan_of_the_next_day(hub: Driven) -> None:
    go_home(hub)
    wait(hub)
    hub.hour = 24 + 7
    day = msgspec.structs.replace(vehicle(), day="2026-03-04", begins_ms=at(32), ends_ms=at(40))
    hub.take(VehiclesSaid((day,)))
    (wanted,) = hub.take(DayPlanAsked("2026-03-04", "anna")).jobs
    assert isinstance(wanted, PlanWanted)
    assert [stop.stop_id for stop in wanted.stops] == [NEXT]


def test_a_day_that_begins_before_the_last_was_ended_leaves_nobody_behind() -> None:
    hub = Driven()
    hub.plan([order(1), order(2)], [10.0, 11.0])
    hub.hour = 24 + 6
    day = msgspec.structs.replace(vehicle(), day="2026-03-04", begins_ms=at(32), ends_ms=at(40))
    hub.take(VehiclesSaid((day,)))
    (wanted,) = hub.take(DayPlanAsked("2026-03-04", "anna")).jobs
    assert isinstance(wanted, PlanWanted)
    assert sorted(stop.stop_id for stop in wanted.stops) == ["stop-1.2", "stop-2.2"]
    assert {(notice.why, notice.told) for notice in missed(hub)} == {("not_reached", TOMORROW)}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([ONE, TWO, THREE, NEXT]), st.sampled_from(Outcome), st.sampled_from("swgn")),
        max_size=7,
    )
)
def test_whatever_the_day_brings_every_order_is_delivered_returned_or_waits(
    story: list[tuple[StopId, Outcome, str]],
) -> None:
    hub = Driven()
    hub.plan([order(1), order(2), order(3)], [10.0, 11.0, 15.0])
    hub.say(PlanTaken(1), ShiftChanged("begun"))
    for place, (stop_id, outcome, then) in enumerate(story):
        hub.hour = 10 + place
        hub.say(visit(stop_id, outcome, hub.hour))
        if then == "s":
            hub.wake_up()
        if then == "g":
            hub.say(ShiftChanged("ended"))
        if then == "n":
            hub.say(ShiftChanged("begun"))
    go_home(hub, 18.0)
    wait(hub)
    found = stops(hub).values()
    orders = hub.documents("orders", Order)
    for order_id, book in orders.items():
        own = [each for each in found if each.order_id == order_id]
        is_delivered = any(one.outcome.is_delivery for each in own for one in each.visits)
        is_waiting = [each for each in own if each.state == "waiting"]
        is_over = is_delivered or any(one.outcome is Outcome.COLLECTED for each in own for one in each.visits)
        assert is_over or book.state == "returning" or len(is_waiting) == 1
        assert len(is_waiting) <= 1
    hub.decisions()


def test_an_order_nobody_planned_is_no_mans_debt(hub: Driven) -> None:
    hub.take(OrdersHanded((order(4),)))
    go_home(hub)
    wait(hub)
    assert {notice.order_id for notice in missed(hub)} == {"order-2"}
