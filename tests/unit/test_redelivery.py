"""After a failed visit the cheapest way to go on is taken, said, written down, and survives whatever happens."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.contacts import Customer, Wishes
from cloud_hub.detours import Detours
from cloud_hub.events import (
    AmendedLegTimesWanted,
    DayPlanAsked,
    LegTimesFound,
    LegTimesWanted,
    LockerLegTimesWanted,
    Notice,
    Pace,
    PlanWanted,
    VehiclesSaid,
)
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.nextstep import (
    HOPE_BY_REASON,
    Case,
    Detour,
    Locker,
    RedeliveryRule,
    choose,
    in_words,
    options,
    price_of,
)
from cloud_hub.promises import Promise
from shared.contracts import LegTimes
from shared.costs import Costs
from shared.messages import (
    AmendmentTaken,
    EstimatesMoved,
    HeadingTo,
    PlanTaken,
    ShiftChanged,
    Visited,
    WorkAmended,
)
from shared.quantities import EpochMs, Position
from shared.steps import JobFailed, Now
from shared.work import Outcome, Parcel, Proof, Service, StopId, Visit
from tests.unit.hub_cases import DAY, MINUTE, VAN, Driven, at, estimate, order, vehicle, window

ONE, TWO, THREE = StopId("stop-1"), StopId("stop-2"), StopId("stop-3")
NEXT = StopId("stop-1.2")
LATE = order(3, window(15, 17))
KIOSK = Locker("kiosk", "Kiosk on the square", Position(60.1702, 24.9412), most_litres=60, capacity=2)

RULE, COSTS = RedeliveryRule(), Costs()
AFTERNOON = Detour(at(15), driving_s=300, longer_s=480, late_min=0, breaches=0, cost_s=300)
FAILED = Case(Outcome.ATTEMPTED, "nobody answered", attempt=1, is_business=False, is_collection=False, today=AFTERNOON,
              today_hour=15.0, next_hour=13.0)  # fmt: skip


# What it costs.


def money(case: Case, rule: RedeliveryRule = RULE, costs: Costs = COSTS) -> dict[str, float]:
    return {option.step: round(option.money, 2) for option in options(case, rule, costs) if option.is_possible}


def test_every_way_to_go_on_is_priced_to_its_end() -> None:
    # Today: 480 s of a driver at 27 an hour, 300 s at 25 km/h and 0.32 a km; then at 65 % x 75 % somebody is in.
    # Another day: 4.20, and with 35 % it fails again and once more, before it goes back for 7.50.
    later = 4.2 + 0.35 * 7.5
    assert money(FAILED) == {
        "today": round(3.6 + 300 / 3600 * 25 * 0.32 + (1 - 0.65 * 0.75) * later, 2),
        "tomorrow": round(4.2 + 0.35 * later, 2),
        "return": 7.5,
    }


def test_a_short_way_back_is_worth_it_and_a_long_one_is_not() -> None:
    near = msgspec.structs.replace(FAILED, today=Detour(at(17.5), 60, 120, 0, 0, 60), today_hour=17.5)
    assert step_of(near) == "today"
    assert step_of(FAILED) == "tomorrow"


def test_making_others_late_is_part_of_the_price() -> None:
    near = Detour(at(17.5), 60, 120, 0, 0, 60)
    harmful = msgspec.structs.replace(near, late_min=20.0, breaches=1)
    assert price_of(harmful, COSTS) - price_of(near, COSTS) == pytest.approx(20 * 0.1 + 6.0)
    assert step_of(msgspec.structs.replace(FAILED, today=harmful, today_hour=17.5)) == "tomorrow"


def test_a_locker_near_by_wins_and_stands_for_the_best_of_them() -> None:
    far = Locker("far", "Far", Position(60.18, 24.95))
    case = msgspec.structs.replace(FAILED, lockers=((far, AFTERNOON), (KIOSK, Detour(at(11), 60, 180, 0, 0, 60))))
    found = options(case, RULE, COSTS)
    chosen, verdict = choose(case, found)
    assert (found[chosen].step, found[chosen].locker) == ("locker", KIOSK)
    assert verdict == "the least expected money of 4 that can be done"


def test_after_the_last_attempt_it_goes_into_a_locker_or_back() -> None:
    last = msgspec.structs.replace(FAILED, attempt=3)
    assert money(last) == {"return": 7.5}
    assert step_of(last) == "return"
    near = msgspec.structs.replace(last, lockers=((KIOSK, Detour(at(11), 60, 180, 0, 0, 60)),))
    assert step_of(near) == "locker"


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.DAMAGED, Outcome.PART])
def test_what_no_visit_mends_goes_back(outcome: Outcome) -> None:
    case = msgspec.structs.replace(FAILED, outcome=outcome)
    assert step_of(case) == "return"
    assert money(case) == {"return": 7.5}


def test_what_the_customer_asked_comes_before_money() -> None:
    near = Detour(at(17.5), 60, 120, 0, 0, 60)
    cheap_today = msgspec.structs.replace(FAILED, today=near, today_hour=17.5)
    assert step_of(msgspec.structs.replace(cheap_today, wish="another_day")) == "tomorrow"
    assert step_of(msgspec.structs.replace(FAILED, wish="at_the_door")) == "today"
    assert step_of(msgspec.structs.replace(FAILED, wish="another_day", attempt=3)) == "tomorrow"


def test_a_wish_the_van_cannot_keep_leaves_it_to_money() -> None:
    case = msgspec.structs.replace(FAILED, wish="at_the_door", today=None, why_not_today="the van's day is over")
    assert step_of(case) == "tomorrow"


def test_an_alternative_says_its_money_or_why_it_is_none() -> None:
    found = options(msgspec.structs.replace(FAILED, today=None, why_not_today="the van is home"), RULE, COSTS)
    assert in_words(found[0], "EUR") == "again today: the van is home"
    assert in_words(found[1], "EUR", "2026-03-04") == (
        "on another day, 2026-03-04: 6.59 EUR expected, 65 % that somebody is met"
    )
    assert in_words(found[3], "EUR") == "back to the sender: 7.50 EUR expected"


def step_of(case: Case) -> str:
    found = options(case, RULE, COSTS)
    return found[choose(case, found)[0]].step


amounts = st.floats(0, 1000)
cases = st.builds(
    Case,
    st.sampled_from([Outcome.ATTEMPTED, Outcome.REFUSED, Outcome.DAMAGED, Outcome.PART]),
    st.sampled_from(["nobody answered", "no way in", "address not found", "", "anything"]),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "another_day", "at_the_door"]),
    st.none()
    | st.builds(
        Detour, st.just(at(15)), st.integers(-600, 7200), st.integers(0, 9000), amounts, st.integers(0, 9), st.just(0)
    ),
    st.sampled_from(["", "no room"]),
    st.floats(0, 24),
    st.floats(0, 24),
    st.lists(st.tuples(st.just(KIOSK), st.just(AFTERNOON)), max_size=2).map(tuple),
)


@settings(max_examples=200)
@given(cases, st.builds(Costs, st.just("EUR"), *([amounts] * 10)))
def test_whatever_the_case_something_possible_is_chosen_and_nothing_cheaper_was(case: Case, costs: Costs) -> None:
    found = options(case, RULE, costs)
    chosen, verdict = choose(case, found)
    assert found[chosen].is_possible
    assert all(option.money >= 0 and 0 <= option.chance <= 1 for option in found)
    if verdict.startswith("the least"):
        assert all(found[chosen].money <= option.money for option in found if option.is_possible)


# What is done.


@pytest.fixture
def hub() -> Driven:
    """A hub with one van under way, at 10:00, with three stops, the last of them not before 15:00."""
    return on_the_road(Driven())


def on_the_road(driven: Driven, *first: Order) -> Driven:
    driven.plan([*(first or (order(1),)), order(2), LATE], [10.0, 11.0, 15.5])
    driven.hour = 10.0
    driven.say(PlanTaken(1), ShiftChanged("begun"))
    return driven


def visit(stop_id: StopId = ONE, outcome: Outcome = Outcome.ATTEMPTED, reason: str = "nobody answered") -> Visited:
    proof = Proof((), None, at(10))
    return Visited(Visit(stop_id, outcome, at(10), EpochMs(at(10) + 3 * MINUTE), proof, reason))


def missed(hub: Driven) -> Notice:
    (notice,) = [notice for notice in hub.documents("notices", Notice).values() if notice.kind == "missed"]
    assert isinstance(notice, Notice)
    return notice


def record(hub: Driven, stop_id: StopId) -> StopRecord:
    found = hub.documents("stops", StopRecord)[stop_id]
    assert isinstance(found, StopRecord)
    return found


def impossible(hub: Driven) -> str:
    """What the last record says could not be done, and why."""
    (looked_at,) = [each.value for each in hub.decisions()[-1].inputs if each.name == "not possible"]
    return looked_at


def legs_for(wanted: LegTimesWanted) -> LegTimesFound:
    ids = tuple(stop.stop_id for stop in wanted.stops)
    side = len(ids) + 1
    legs = LegTimes.from_matrix(wanted.roads_version, ids, (at(17),), np.full((1, side, side), 60))
    return LegTimesFound(wanted.need, VAN, wanted.plan_version, legs)


def test_a_door_near_by_is_tried_again_by_the_same_van(hub: Driven) -> None:
    hub.say(visit())
    (command,) = [command for command in hub.commands() if isinstance(command, WorkAmended)]
    (stop,) = command.stops
    assert (stop.stop_id, stop.order_id, stop.attempt, stop.address) == (NEXT, "order-1", 2, "Street 1")
    assert (stop.slot.opens_ms, stop.slot.closes_ms) == (at(11.5), at(16.5))
    assert stop.told.within(stop.slot)
    assert record(hub, ONE).next_step == "today"
    assert (record(hub, NEXT).state, record(hub, NEXT).agent) == ("planned", VAN)
    assert hub.documents("promises", Promise)[NEXT].told == stop.told


def test_the_promise_of_the_visit_that_failed_stays_judged_as_it_was(hub: Driven) -> None:
    before = hub.documents("promises", Promise)[ONE]
    hub.say(visit())
    after = hub.documents("promises", Promise)[ONE]
    assert (after.served_ms, after.outcome) == (at(10), "attempted")
    assert (after.told, after.slot, after.tellings) == (before.told, before.slot, before.tellings)


def test_the_customer_hears_once_what_was_missed_and_what_comes_next(hub: Driven) -> None:
    hub.say(visit())
    notice = missed(hub)
    assert (notice.stop_id, notice.next_step) == (ONE, "today")
    assert notice.told == hub.documents("promises", Promise)[NEXT].told


def test_the_record_holds_every_alternative_with_its_money_and_nobody(hub: Driven) -> None:
    hub.say(visit(reason="Mrs Virtanen from flat 4 shouted"))
    decision = hub.decisions()[-1]
    assert decision.kind == "redelivery"
    assert [choice.what.partition(":")[0].partition(" at")[0] for choice in decision.alternatives] == [
        "again today", "on another day, 2026-03-04", "back to the sender",
    ]  # fmt: skip
    assert decision.alternatives[decision.chosen].what.startswith("again today at about")
    assert decision.alternatives[2].cost_s == 1000
    assert impossible(hub) == "into a locker: there are no lockers"
    assert decision.about == ("order-1", ONE, VAN, NEXT)
    whole = msgspec.json.encode(decision).decode()
    assert [word for word in ("Virtanen", "flat", "Street", "60.1") if word in whole] == []


def test_when_the_day_has_no_use_any_more_it_waits_for_the_next_working_day() -> None:
    hub = on_the_road(Driven(), order(1, window(9, 11)))
    hub.hour = 15.2
    hub.say(visit())
    waits = record(hub, NEXT)
    assert (waits.state, waits.agent, record(hub, ONE).next_step) == ("waiting", "", "tomorrow")
    later = hub.documents("orders", Order)["order-1"].stop_named(NEXT)
    assert later is not None
    assert later.slot == window(24 + 9, 24 + 11)
    assert missed(hub).slot == later.slot
    assert [command for command in hub.commands() if isinstance(command, WorkAmended)] == []


def test_what_waits_is_part_of_the_plan_of_its_day() -> None:
    hub = on_the_road(Driven())
    hub.hour = 15.2
    hub.say(visit(), visit(TWO, Outcome.DELIVERED_TO_PERSON), visit(THREE, Outcome.DELIVERED_TO_PERSON))
    hub.say(ShiftChanged("ended"))
    hub.hour = 30.0
    tomorrow = msgspec.structs.replace(vehicle(), day="2026-03-04", begins_ms=at(32), ends_ms=at(40))
    hub.take(VehiclesSaid((tomorrow,)))
    (wanted,) = hub.take(DayPlanAsked("2026-03-04", "anna")).jobs
    assert isinstance(wanted, PlanWanted)
    assert [(stop.stop_id, stop.attempt) for stop in wanted.stops] == [(NEXT, 2)]


def test_what_was_refused_goes_back_and_the_order_says_so(hub: Driven) -> None:
    hub.say(visit(outcome=Outcome.REFUSED, reason="not_wanted"))
    assert hub.documents("orders", Order)["order-1"].state == "returning"
    assert (record(hub, ONE).next_step, missed(hub).next_step) == ("return", "return")
    assert NEXT not in hub.documents("stops", StopRecord)
    assert "goes back" in hub.decisions()[-1].sentence


def test_the_third_visit_that_fails_is_the_last(hub: Driven) -> None:
    hub.say(visit())
    hub.hour = 12.0
    hub.say(AmendmentTaken(1, (NEXT,), (), (TWO, THREE, NEXT)), HeadingTo(NEXT), visit(NEXT))
    third = StopId("stop-1.3")
    assert record(hub, NEXT).next_step == "today"
    hub.hour = 14.0
    hub.say(AmendmentTaken(1, (third,), (), (TWO, THREE, third)), visit(third))
    assert record(hub, third).next_step == "return"
    assert hub.documents("orders", Order)["order-1"].state == "returning"


def test_a_signature_goes_into_no_locker() -> None:
    hub = Driven(lockers=(KIOSK,))
    sold = order(1)
    assert sold.stop is not None
    signed = msgspec.structs.replace(sold, stop=msgspec.structs.replace(sold.stop, service="signature"))
    on_the_road(hub, signed)
    hub.say(visit())
    assert hub.wanted(LockerLegTimesWanted) == []
    assert "'signature' needs a person" in impossible(hub)


@pytest.fixture
def town() -> Driven:
    """The same van in a town with a locker near the first door, where nobody is in."""
    driven = on_the_road(Driven(lockers=(KIOSK,)))
    driven.say(visit())
    return driven


def test_the_way_to_a_locker_is_asked_before_anything_is_decided(town: Driven) -> None:
    assert record(town, ONE).next_step == "deciding"
    assert [command for command in town.commands() if isinstance(command, WorkAmended)] == []
    (wanted,) = town.wanted(LockerLegTimesWanted)
    assert [stop.stop_id for stop in wanted.stops] == [ONE, TWO, THREE, "locker/kiosk"]


def test_a_locker_gets_what_nobody_took(town: Driven) -> None:
    town.take(legs_for(town.wanted(LockerLegTimesWanted)[0]))
    assert record(town, ONE).next_step == "locker"
    town.take(legs_for(town.wanted(AmendedLegTimesWanted)[0]))
    (command,) = [command for command in town.commands() if isinstance(command, WorkAmended)]
    (stop,) = command.stops
    assert (stop.stop_id, stop.address, stop.position, stop.service) == (NEXT, KIOSK.name, KIOSK.position, "leave_safe")
    assert (missed(town).next_step, missed(town).place) == ("locker", KIOSK.name)
    assert "kiosk" in town.decisions()[-1].sentence
    town.say(AmendmentTaken(command.plan_version, (NEXT,), (), (TWO, THREE, NEXT)))
    town.say(EstimatesMoved((estimate(NEXT, 15.5),), "traffic"))
    assert [one.kind for one in town.documents("notices", Notice).values() if one.stop_id == NEXT] == []
    town.hour += 1
    town.say(visit(NEXT, Outcome.DELIVERED_TO_LOCKER))
    notices = [one for one in town.documents("notices", Notice).values() if one.kind == "missed"]
    assert sorted((one.stop_id, one.next_step, one.place) for one in notices) == [
        (ONE, "locker", KIOSK.name),
        (NEXT, "locker_ready", KIOSK.name),
    ]


def test_a_hub_killed_between_the_failed_visit_and_the_decision_goes_on(town: Driven) -> None:
    town.wake_up()
    town.take(legs_for(town.wanted(LockerLegTimesWanted)[0]))
    town.wake_up()
    town.take(legs_for(town.wanted(AmendedLegTimesWanted)[0]))
    town.wake_up()
    (command,) = [command for command in town.commands() if isinstance(command, WorkAmended)]
    assert [stop.stop_id for stop in command.stops] == [NEXT]
    assert len([one for one in town.decisions() if one.kind == "redelivery"]) == 1
    assert len([one for one in town.documents("notices", Notice).values() if one.kind == "missed"]) == 1


def test_roads_that_do_not_answer_leave_the_lockers_out(town: Driven) -> None:
    (wanted,) = town.wanted(LockerLegTimesWanted)
    for _ in range(3):
        town.take(JobFailed(wanted, "the map is away"))
    assert record(town, ONE).next_step == "today"
    assert "the roads did not answer" in impossible(town)


def test_a_van_whose_shift_ended_meanwhile_does_not_go_to_a_locker(town: Driven) -> None:
    town.say(ShiftChanged("ended"))
    assert record(town, ONE).next_step == "tomorrow"


def test_a_locker_without_a_compartment_left_is_not_asked_for() -> None:
    hub = on_the_road(Driven(lockers=(msgspec.structs.replace(KIOSK, capacity=0),)))
    hub.say(visit())
    assert record(hub, ONE).next_step == "today"
    assert "no locker is near enough and has room" in impossible(hub)


def test_a_parcel_larger_than_every_compartment_goes_elsewhere() -> None:
    sold = order(1)
    assert sold.stop is not None
    large = msgspec.structs.replace(sold.stop, parcels=(Parcel("P1", litres=200),))
    hub = on_the_road(Driven(lockers=(KIOSK,)), msgspec.structs.replace(sold, stop=large))
    hub.say(visit())
    assert record(hub, ONE).next_step == "today"


def test_a_failed_visit_to_a_locker_leads_back_to_the_customers_door(town: Driven) -> None:
    town.take(legs_for(town.wanted(LockerLegTimesWanted)[0]))
    town.take(legs_for(town.wanted(AmendedLegTimesWanted)[0]))
    town.hour = 11.0
    town.say(AmendmentTaken(1, (NEXT,), (), (TWO, THREE, NEXT)), visit(NEXT, reason="closed"))
    again = town.documents("orders", Order)["order-1"].stop_named(StopId("stop-1.3"))
    assert again is not None
    assert (again.address, again.service, again.attempt) == ("Street 1", "hand_over", 3)


def test_another_day_asked_while_the_van_was_at_the_door_is_kept_when_nobody_is_met(hub: Driven) -> None:
    hub.say(HeadingTo(ONE))
    slot = window(24 + 48 + 9, 24 + 48 + 12)
    refusal = hub.core._amendments.postpone(ONE, slot, why="another day", now=Now(at(10), 0))
    assert str(refusal).startswith("StopUnderWay")
    hub.say(visit())
    assert record(hub, ONE).next_step == "tomorrow"
    later = hub.documents("orders", Order)["order-1"].stop_named(NEXT)
    assert later is not None
    assert later.slot == slot
    assert hub.decisions()[-1].verdict == "the customer asked for another day"


def test_a_safe_place_the_van_did_not_know_of_is_tried_today() -> None:
    sold = msgspec.structs.replace(order(1, window(9, 11)), customer_ref="c-1")
    hub = on_the_road(Driven(), sold)
    hub.core._memory.customers.put("c-1", Customer("c-1", wishes=Wishes(safe_place="behind the shed")))
    hub.hour = 15.2
    hub.say(visit())
    assert record(hub, ONE).next_step == "today"
    assert "where takes it" in hub.decisions()[-1].verdict
    assert "shed" not in hub.decisions()[-1].sentence


def test_a_van_that_is_home_when_it_hears_of_another_visit_leaves_it_for_another_day(hub: Driven) -> None:
    hub.say(visit())
    hub.say(AmendmentTaken(1, (), ((NEXT, "the shift has ended"),), ()))
    waits = record(hub, NEXT)
    assert (waits.state, record(hub, ONE).next_step) == ("waiting", "tomorrow")
    later = hub.documents("orders", Order)["order-1"].stop_named(NEXT)
    assert later is not None
    assert (later.slot, later.attempt) == (window(24 + 9, 24 + 17), 2)
    assert "on another day, 2026-03-04" in hub.decisions()[-1].sentence
    steps = [one.next_step for one in hub.documents("notices", Notice).values() if one.kind == "missed"]
    assert steps == ["today", "tomorrow"]


def test_a_locker_no_road_leads_to_any_more_leaves_it_for_another_day(town: Driven) -> None:
    town.take(legs_for(town.wanted(LockerLegTimesWanted)[0]))
    (wanted,) = town.wanted(AmendedLegTimesWanted)
    for _ in range(4):
        town.take(JobFailed(wanted, "no permitted drive leads there"))
    later = town.documents("orders", Order)["order-1"].stop_named(NEXT)
    assert later is not None
    assert (later.address, later.door_group, record(town, NEXT).state) == ("Street 1", "", "waiting")
    assert record(town, ONE).next_step == "tomorrow"


@pytest.fixture
def tomorrow() -> Driven:
    """A hub whose customer has heard that it comes on another day, while the van is out till half past four."""
    driven = on_the_road(Driven())
    driven.hour = 15.2
    driven.say(visit())
    assert record(driven, ONE).next_step == "tomorrow"
    return driven


def say_where(hub: Driven, where: str, service: Service = "leave_safe") -> None:
    stop = hub.core._amendments.stop_now(NEXT)
    assert stop is not None
    changed = msgspec.structs.replace(stop, safe_place=where, service=service)
    assert hub.core._amendments.change(changed, why="a wish", now=Now(at(hub.hour), 0)) is None
    hub.take()


def test_who_says_after_a_missed_visit_where_it_may_lie_gets_it_today(tomorrow: Driven) -> None:
    say_where(tomorrow, "behind the shed")
    (command,) = [command for command in tomorrow.commands() if isinstance(command, WorkAmended)]
    (stop,) = command.stops
    assert (stop.stop_id, stop.safe_place, stop.slot) == (NEXT, "behind the shed", window(15.2, 16.5))
    assert (record(tomorrow, NEXT).agent, record(tomorrow, ONE).next_step) == (VAN, "today")
    assert "shed" not in str(tomorrow.decisions()[-1])


def test_a_van_that_is_home_brings_it_on_the_day_that_was_said(tomorrow: Driven) -> None:
    tomorrow.say(ShiftChanged("ended"))
    say_where(tomorrow, "behind the shed")
    assert (record(tomorrow, NEXT).state, record(tomorrow, ONE).next_step) == ("waiting", "tomorrow")


def test_a_door_code_alone_changes_no_day(tomorrow: Driven) -> None:
    say_where(tomorrow, "", "hand_over")
    assert record(tomorrow, NEXT).state == "waiting"


def test_what_is_delivered_after_all_calls_off_the_other_visit(hub: Driven) -> None:
    hub.say(visit())
    hub.hour = 10.5
    delivered = Visit(ONE, Outcome.DELIVERED_TO_PERSON, at(10.5), at(10.6), Proof((), None, at(10.6)))
    hub.say(AmendmentTaken(1, (NEXT,), (), (TWO, THREE, NEXT)), Visited(delivered))
    (command,) = [command for command in hub.commands() if isinstance(command, WorkAmended) and command.withdrawn]
    assert command.withdrawn == (NEXT,)
    hub.say(AmendmentTaken(1, (NEXT,), (), (TWO, THREE)))
    assert NEXT not in hub.documents("stops", StopRecord)


def test_of_a_backlog_the_decision_sees_the_whole_day(hub: Driven) -> None:
    """A van that was away says in one batch that it failed at ten and had done everything else by half past twelve:
    it would only wait for another visit.
    """
    hub.hour = 12.5
    others = [visit(stop_id, Outcome.DELIVERED_TO_PERSON) for stop_id in (TWO, THREE)]
    hub.say(visit(), *others)
    assert record(hub, ONE).next_step == "tomorrow"
    assert "94 min more for the van" in hub.decisions()[-1].alternatives[0].what


def test_a_visit_between_two_windows_told_is_priced_by_what_it_makes_of_the_second() -> None:
    """Stop 3 is due at 12:00 and can just be met from stop 2; whoever comes between makes it miss window and slot."""
    hub = Driven()
    hub.plan([order(1), order(2, window(9, 12)), order(3, window(9, 12))], [10.0, 11.8, 11.9])
    hub.hour = 11.9
    hub.say(PlanTaken(1), ShiftChanged("begun"))
    memory = hub.core._memory
    van, plan = memory.agents[VAN], memory.plans[VAN]
    now_slot = window(11.9, 11.99)
    first = plan.stops[0]
    extra = msgspec.structs.replace(first, stop_id=NEXT, slot=now_slot, told=now_slot)
    van = msgspec.structs.replace(van, order=(TWO, THREE))
    detours = Detours(memory, Pace())
    found = detours.cheapest(ONE, van, plan, plan.legs, extra, Now(at(11.9), 0), lambda one: price_of(one, COSTS))
    assert found is not None
    assert found.breaches == 1
    assert found.late_min > 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([ONE, TWO, THREE, NEXT, StopId("stop-2.2")]), st.sampled_from(Outcome), st.booleans()
        ),
        max_size=8,
    )
)
def test_however_visits_end_each_order_goes_on_once_and_a_sleep_changes_nothing(
    story: list[tuple[StopId, Outcome, bool]],
) -> None:
    hub = on_the_road(Driven(lockers=(KIOSK,)))
    for place, (stop_id, outcome, sleeps) in enumerate(story):
        hub.hour = 10 + place
        proof = Proof((), None, at(hub.hour))
        hub.say(Visited(Visit(stop_id, outcome, at(hub.hour), at(hub.hour + 0.1), proof, "nobody answered")))
        if sleeps:
            hub.wake_up()
        for wanted in hub.wanted(LegTimesWanted):
            hub.take(legs_for(wanted))
    records = hub.documents("stops", StopRecord).values()
    assert [each.stop_id for each in records if each.next_step == "deciding"] == []
    for order_id in ("order-1", "order-2", "order-3"):
        assert sum(each.state != "done" for each in records if each.order_id == order_id) <= 1
    hub.decisions()


def test_the_day_is_asked_again_for_nobody(hub: Driven) -> None:
    hub.say(visit())
    assert not hub.take(DayPlanAsked(DAY, "anna")).answers[0].is_done


def test_every_reason_weighed_is_one_the_drivers_page_says() -> None:
    said = (Path(__file__).parents[2] / "edge_agent" / "page" / "at_door.js").read_text("utf-8")
    assert [words for words in HOPE_BY_REASON if f'"{words}"]' not in said] == []
