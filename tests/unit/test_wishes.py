"""A customer's wish is granted when it can still be done, answered truthfully, and leaves no word in any record."""

from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.contacts import LONGEST_AT_THE_DOOR, Customer
from cloud_hub.events import Answer, Notice, OrdersHanded
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.promises import Promise, Rule
from cloud_hub.sayings import (
    DoorCode,
    Neighbour,
    NotHomeUntil,
    OnItsWay,
    OtherDay,
    SafePlace,
    SaidWish,
    Wish,
    WishGarbled,
    WishRefused,
    WishSaid,
    WishTooLong,
    WishUnknown,
    clean,
    read_wish,
)
from cloud_hub.wishes import MOST_A_DAY, last_visit, preferred, told_from
from shared.contracts import Plan
from shared.messages import (
    AmendmentTaken,
    Arrived,
    EstimatesMoved,
    HeadingTo,
    ShiftChanged,
    Visited,
    WindowTold,
    WorkAmended,
)
from shared.quantities import EpochMs, TimeWindow
from shared.work import AgentId, OrderId, Outcome, Proof, Stop, StopId, Visit
from tests.unit.hub_cases import DAY, Driven, at, estimate, order, window

SECRET_WORDS = "behind Aunt Hilkka's lilac"
TOMORROW = OtherDay("2026-03-04", TimeWindow(at(33), at(41)))
MARI = Customer("C-1", "Mari", "mari@example.org", consents=("email",))


def of_mari(number: int, **changes: Any) -> Order:
    taken = order(number)
    assert taken.stop is not None
    return msgspec.structs.replace(taken, customer_ref="C-1", stop=msgspec.structs.replace(taken.stop, **changes))


def a_day(**changes: Any) -> Driven:
    """Three orders planned on one van; the first is Mari's. The shift has begun."""
    hub = Driven()
    hub.take(OrdersHanded((), (MARI,)))
    hub.plan([of_mari(1, **changes), order(2), order(3)], [10, 11, 12])
    hub.say(ShiftChanged("begun"))
    return hub


def say(hub: Driven, wish: Wish, order_id: str = "order-1") -> Answer:
    answer: Answer = hub.take(WishSaid(OrderId(order_id), wish)).answers[0]
    return answer


def promise(hub: Driven, stop_id: str = "stop-1") -> Promise:
    kept: Promise = hub.documents("promises", Promise)[stop_id]
    return kept


def said(hub: Driven) -> list[SaidWish]:
    return list(hub.documents("said_wishes", SaidWish).values())


def changed(hub: Driven) -> list[tuple[str, TimeWindow]]:
    """The notices of other windows."""
    notices = hub.documents("notices", Notice).values()
    return [(notice.why, notice.told) for notice in notices if notice.kind == "changed"]


def amended(hub: Driven) -> Stop:
    (change,) = [command for command in hub.commands() if isinstance(command, WorkAmended)]
    (stop,) = change.stops
    return stop


def test_who_is_not_home_is_promised_and_told_a_later_window_and_the_van_is_too() -> None:
    hub = a_day()
    before = promise(hub).told
    assert say(hub, NotHomeUntil(at(13))).is_done
    after = promise(hub)
    assert before.opens_ms < at(13) <= after.told.opens_ms < after.told.closes_ms <= at(17)
    assert after.slot == window(13, 17)
    assert (amended(hub).slot.opens_ms, amended(hub).told) == (at(13), after.told)
    assert WindowTold(StopId("stop-1"), after.told) in hub.commands()
    assert after.tellings[-1].why == "customer_asked"
    assert after.moves == 0, "what the customer asked for does not count as nagging"
    assert changed(hub) == [("customer_asked", after.told)]


def test_a_van_that_still_expects_to_come_earlier_moves_the_window_no_earlier_than_the_customer_is_home() -> None:
    hub = a_day()
    say(hub, NotHomeUntil(at(13)))
    told = promise(hub).told
    hub.say(EstimatesMoved((estimate("stop-1", 10),), "first estimates"))
    assert promise(hub).told == told


def test_an_hour_said_by_mistake_can_be_said_again() -> None:
    hub = a_day()
    say(hub, NotHomeUntil(at(15)))
    assert say(hub, NotHomeUntil(at(11))).is_done
    assert promise(hub).slot == window(11, 17)


@pytest.mark.parametrize(("hour", "why_not"), [(6, "time_past"), (16.75, "too_late_today"), (20, "too_late_today")])
def test_an_hour_the_day_cannot_do_is_refused_by_name(hour: float, why_not: str) -> None:
    hub = a_day()
    before = promise(hub)
    assert say(hub, NotHomeUntil(at(hour))) == Answer(False, why_not, (said(hub)[0].wish_id, said(hub)[0].decision_id))
    assert promise(hub) == before
    assert hub.commands() == []


def test_an_hour_before_the_slot_needs_no_change() -> None:
    hub = a_day()
    assert say(hub, NotHomeUntil(at(8))).is_done
    assert said(hub)[0].effect == "as_it_is"
    assert hub.commands() == []


def test_a_safe_place_reaches_the_van_as_leave_safe() -> None:
    hub = a_day()
    assert say(hub, SafePlace(SECRET_WORDS)).is_done
    assert (amended(hub).service, amended(hub).safe_place) == ("leave_safe", SECRET_WORDS)
    assert say(hub, SafePlace("")).is_done
    assert (amended(hub).service, amended(hub).safe_place) == ("hand_over", "")


@pytest.mark.parametrize("service", ["signature", "age_check", "collection"])
@pytest.mark.parametrize("wish", [SafePlace("shed"), Neighbour("Virtanen")])
def test_what_needs_a_person_is_not_left_elsewhere(service: str, wish: Wish) -> None:
    hub = a_day(service=service)
    assert say(hub, wish).why_not == f"needs_person.{service}"
    assert hub.commands() == []


def test_a_neighbour_and_a_door_code_reach_the_van() -> None:
    hub = a_day(service="signature")
    assert say(hub, DoorCode("12 34#")).is_done
    assert amended(hub).door_code == "12 34#"
    assert say(hub, Neighbour("Virtanen"), "order-2").is_done
    assert amended(hub).neighbour == "Virtanen"


def test_another_day_takes_the_visit_off_the_van_and_it_waits_with_the_same_hours() -> None:
    hub = a_day()
    assert say(hub, TOMORROW).is_done
    (change,) = [command for command in hub.commands() if isinstance(command, WorkAmended)]
    assert change.withdrawn == ("stop-1",)
    hub.say(AmendmentTaken(change.plan_version, (StopId("stop-1"),), (), (StopId("stop-2"), StopId("stop-3"))))
    record = hub.documents("stops", StopRecord)["stop-1"]
    assert (record.state, record.agent) == ("waiting", "")
    kept: Order = hub.documents("orders", Order)["order-1"]
    visit = kept.stop_named(StopId("stop-1"))
    assert visit is not None
    assert visit.slot == TOMORROW.slot
    assert "stop-1" not in hub.documents("promises", Promise)
    assert changed(hub) == [("customer_asked", TOMORROW.slot)]


@pytest.mark.parametrize(
    ("slot", "why_not"),
    [(TimeWindow(at(-15), at(-7)), "day_past"), (TimeWindow(at(24 * 20), at(24 * 20 + 8)), "day_too_far")],
)
def test_a_day_that_is_none_is_refused_by_name(slot: TimeWindow, why_not: str) -> None:
    assert say(a_day(), OtherDay("2026-03-01", slot)).why_not == why_not


@pytest.mark.parametrize("wish", [NotHomeUntil(at(13)), SafePlace("shed"), Neighbour("Virtanen"), DoorCode("1")])
def test_a_van_under_way_or_at_the_door_is_not_called_back(wish: Wish) -> None:
    hub = a_day()
    hub.say(HeadingTo(StopId("stop-1")))
    assert say(hub, wish).why_not == "under_way"
    hub.hour += 0.1
    hub.say(Arrived(StopId("stop-1")))
    assert say(hub, wish).why_not == "at_the_door"
    assert hub.commands() == []


def test_another_day_said_while_the_van_is_under_way_holds_for_when_the_visit_fails() -> None:
    hub = a_day()
    hub.say(HeadingTo(StopId("stop-1")))
    assert say(hub, TOMORROW).is_done
    assert said(hub)[0].effect == "if_missed"
    assert hub.documents("stops", StopRecord)["stop-1"].wished == TOMORROW.slot


def test_after_the_visit_a_door_code_is_remembered_for_the_next() -> None:
    hub = a_day()
    proof = Proof((), None, at(10))
    visit = Visit(StopId("stop-1"), Outcome.DELIVERED_TO_PERSON, at(10), EpochMs(at(10) + 60_000), proof)
    hub.say(Arrived(StopId("stop-1")), Visited(visit))
    assert say(hub, DoorCode("99", True)).why_not == "over"
    assert hub.documents("customers", Customer)["C-1"].wishes.door_code == "99"


def test_an_order_that_waits_for_its_plan_is_changed_without_a_van() -> None:
    hub = Driven()
    hub.take(OrdersHanded((of_mari(1),), (MARI,)))
    assert say(hub, NotHomeUntil(at(13))).is_done
    assert say(hub, DoorCode("7")).is_done
    visit = hub.documents("orders", Order)["order-1"].stop_named(StopId("stop-1"))
    assert visit is not None
    assert (visit.slot, visit.door_code) == (window(13, 17), "7")


def test_an_order_nobody_knows_is_refused() -> None:
    assert say(a_day(), DoorCode("1"), "order-9") == Answer(False, "no_visit")


def test_to_be_told_when_it_is_on_its_way_needs_an_address_to_write_to() -> None:
    hub = a_day()
    assert say(hub, OnItsWay(True)).is_done
    assert hub.documents("customers", Customer)["C-1"].wishes.on_its_way
    assert say(hub, OnItsWay(True), "order-2").why_not == "no_contact"


def test_no_record_holds_a_word_of_what_was_said() -> None:
    hub = a_day()
    for wish in (SafePlace(SECRET_WORDS, True), Neighbour(SECRET_WORDS), DoorCode("4711#"), TOMORROW):
        say(hub, wish)
    chained = hub.rooms["decisions"]
    assert len([d for d in hub.decisions() if d.kind == "customer_wish"]) == 4
    assert [key for key, doc in chained.items() if b"Hilkka" in doc or b"4711" in doc or b"Mari" in doc] == []
    assert {wish.customer_ref for wish in said(hub)} == {"C-1"}


def test_a_button_pressed_twice_is_one_wish() -> None:
    hub = a_day()
    first, second = say(hub, DoorCode("1")), say(hub, DoorCode("1"))
    assert first == second
    assert len(said(hub)) == 1


def test_an_order_has_so_many_wishes_a_day_and_no_more() -> None:
    hub = a_day()
    answers = [say(hub, DoorCode(str(number))) for number in range(MOST_A_DAY + 1)]
    assert [answer.why_not for answer in answers[-2:]] == ["", "too_many"]
    assert len(said(hub)) == MOST_A_DAY
    hub.hour += 24
    assert say(hub, OnItsWay(False)).is_done


def test_wishes_outlive_the_process() -> None:
    hub = a_day()
    say(hub, NotHomeUntil(at(13)))
    told = promise(hub).told
    hub.wake_up()
    assert say(hub, NotHomeUntil(at(13))).named == (said(hub)[0].wish_id, said(hub)[0].decision_id)
    assert promise(hub).told == told


def test_a_wish_for_the_next_time_becomes_a_preference_and_another_does_not() -> None:
    before = MARI.wishes
    assert preferred(before, SafePlace("shed")) == before
    assert preferred(before, SafePlace("shed", True)).safe_place == "shed"
    assert preferred(preferred(before, Neighbour("Virtanen", True)), Neighbour("")).neighbour == ""


def test_the_visit_spoken_of_is_the_one_after_the_failed_attempt() -> None:
    first = of_mari(1)
    assert first.stop is not None
    again = msgspec.structs.replace(first.stop, stop_id=StopId("stop-1~2"), attempt=2)
    assert last_visit(first.with_stop(again)) == "stop-1~2"


hours = st.floats(9, 16.5).map(at)


@given(hours, hours, st.integers(0, 120), st.integers(0, 120), hours)
def test_a_window_told_for_who_is_not_home_lies_in_the_hours_that_remain(
    home_ms: EpochMs, p50_ms: EpochMs, early_min: int, late_min: int, told_ms: EpochMs
) -> None:
    remain = TimeWindow(home_ms, at(17))
    known = Promise(
        StopId("s"), OrderId("o"), AgentId("van-1"), window(9, 17), TimeWindow(told_ms, EpochMs(told_ms + 30 * 60_000))
    )
    heard = msgspec.structs.replace(
        estimate("s", 10), p10_ms=p50_ms - early_min * 60_000, p50_ms=p50_ms, p90_ms=p50_ms + late_min * 60_000
    )
    for expected in (heard, None):
        told = told_from(known, remain, expected, Rule())
        assert told.within(remain) or told == known.told
        assert told.opens_ms < told.closes_ms


# What a form sends.


def read(**form: str) -> Wish:
    return read_wish(form, lambda hour, minute: at(hour + minute / 60), lambda day: TimeWindow(at(33), at(41)))


def test_a_form_is_read_as_a_wish() -> None:
    assert read(wish="not_home_until", until="13:30") == NotHomeUntil(at(13.5))
    assert read(wish="not_home_until", until=" 9.05 ") == NotHomeUntil(at(9 + 5 / 60))
    assert read(wish="safe_place", where=" in  the shed ", remember="yes") == SafePlace("in the shed", True)
    assert read(wish="neighbour", who="Virtanen") == Neighbour("Virtanen", False)
    assert read(wish="door_code", code="12 34 #") == DoorCode("12 34 #", False)
    assert read(wish="other_day", day="2026-03-04") == TOMORROW
    assert read(wish="on_its_way", wanted="no") == OnItsWay(False)


@pytest.mark.parametrize(
    ("form", "refusal"),
    [
        ({}, WishUnknown),
        ({"wish": "bring_cake"}, WishUnknown),
        ({"wish": "on_its_way", "wanted": "maybe"}, WishUnknown),
        ({"wish": "not_home_until", "until": "25:00"}, WishGarbled),
        ({"wish": "not_home_until", "until": "\u0661\u0663:00"}, WishGarbled),
        ({"wish": "not_home_until", "until": "noon" * 9000}, WishGarbled),
        ({"wish": "other_day", "day": "2026-02-30"}, WishGarbled),
        ({"wish": "door_code", "code": "<b>1</b>"}, WishGarbled),
        ({"wish": "safe_place", "where": "x" * 201}, WishTooLong),
        ({"wish": "neighbour", "who": "x" * 201}, WishTooLong),
    ],
)
def test_what_is_no_wish_is_refused_by_name(form: dict[str, str], refusal: type[WishRefused]) -> None:
    with pytest.raises(refusal):
        read(**form)


@given(st.dictionaries(st.sampled_from(["wish", "until", "where", "who", "day", "code", "wanted"]), st.text()))
def test_any_form_is_a_bounded_wish_or_a_named_refusal(form: dict[str, str]) -> None:
    try:
        wish = read(**form)
    except WishRefused:
        return
    words = [word for word in msgspec.structs.astuple(wish) if isinstance(word, str)]
    assert all(len(word) <= max(LONGEST_AT_THE_DOOR.values()) and word == clean(word) for word in words)


@given(st.text())
def test_cleaned_text_is_one_printable_line_and_cleaning_it_again_changes_nothing(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert cleaned == cleaned.strip()
    assert all(sign.isprintable() for sign in cleaned)


def test_marks_that_turn_the_writing_round_are_taken_out() -> None:
    assert clean("shed\u202e gnp.exe\u200b\x1b[31m\r\n\x00") == "shed gnp.exe[31m"


def test_the_day_of_the_cases_is_the_day_before_tomorrow() -> None:
    assert date.fromisoformat(TOMORROW.day).toordinal() - date.fromisoformat(DAY).toordinal() == 1


def test_the_plan_in_the_books_is_the_one_the_van_was_told() -> None:
    hub = a_day()
    say(hub, SafePlace("shed"))
    plan: Plan = hub.documents("plans", Plan)["van-1"]
    (stop,) = [stop for stop in plan.stops if stop.stop_id == "stop-1"]
    assert stop.safe_place == "shed"
    assert plan.objections() == []


def test_a_van_that_had_set_out_already_has_the_last_word_and_the_books_follow() -> None:
    hub = a_day()
    before = promise(hub)
    say(hub, NotHomeUntil(at(13)))
    (change,) = [command for command in hub.commands() if isinstance(command, WorkAmended)]
    hub.say(HeadingTo(StopId("stop-1")))
    refused = ((StopId("stop-1"), "under way"),)
    hub.say(AmendmentTaken(change.plan_version, (), refused, (StopId("stop-1"), StopId("stop-2"), StopId("stop-3"))))
    assert (promise(hub).slot, promise(hub).told) == (before.slot, before.told)
    kept: Order = hub.documents("orders", Order)["order-1"]
    visit = kept.stop_named(StopId("stop-1"))
    assert visit is not None
    assert visit.slot == before.slot


def refuse(hub: Driven, *changes: WorkAmended) -> None:
    """The van was under way to the first stop when these reached it."""
    ids = (StopId("stop-1"), StopId("stop-2"), StopId("stop-3"))
    hub.say(HeadingTo(ids[0]))
    for change in changes:
        hub.say(AmendmentTaken(change.plan_version, (), ((ids[0], "under way"),), ids))


def change_said(hub: Driven) -> WorkAmended:
    (change,) = [command for command in hub.commands() if isinstance(command, WorkAmended)]
    return change


@pytest.mark.parametrize("wish", [NotHomeUntil(at(13)), TOMORROW])
def test_who_was_granted_what_the_van_heard_too_late_is_told_again(wish: Wish) -> None:
    hub = a_day()
    before = promise(hub)
    say(hub, wish)
    assert changed_notices(hub)[-1].told != before.told
    refuse(hub, change_said(hub))
    last = changed_notices(hub)[-1]
    assert (last.told, last.why, last.slot) == (before.told, "under_way_already", before.slot)
    assert promise(hub).tellings[-1].why == "under_way_already"
    assert WindowTold(StopId("stop-1"), before.told) in hub.commands()
    assert [each.kind for each in hub.decisions()].count("change_came_too_late") == 1
    assert last.decision_id == hub.decisions()[-1].decision_id


def test_two_wishes_the_van_heard_too_late_are_taken_back_to_before_the_first_and_told_once() -> None:
    hub = a_day()
    before = promise(hub)
    say(hub, NotHomeUntil(at(13)))
    first = change_said(hub)
    say(hub, NotHomeUntil(at(14)))
    refuse(hub, first, change_said(hub))
    assert (promise(hub).slot, promise(hub).told) == (before.slot, before.told)
    visit = hub.documents("orders", Order)["order-1"].stop_named(StopId("stop-1"))
    assert visit.slot == before.slot
    assert [notice.why for notice in changed_notices(hub)].count("under_way_already") == 1


def test_words_at_the_door_the_van_heard_too_late_move_no_window_and_tell_nobody() -> None:
    hub = a_day()
    say(hub, SafePlace("shed"))
    refuse(hub, change_said(hub))
    assert changed_notices(hub) == []


def test_a_van_that_has_left_the_window_since_is_told_as_it_is_expected_now() -> None:
    hub = a_day()
    say(hub, NotHomeUntil(at(13)))
    change = change_said(hub)
    hub.say(EstimatesMoved((estimate("stop-1", 11.5), estimate("stop-2", 12), estimate("stop-3", 12.5)), "traffic"))
    refuse(hub, change)
    last = [notice for notice in changed_notices(hub) if notice.order_id == "order-1"][-1]
    assert (last.why, last.told.holds(at(11.5))) == ("under_way_already", True)


def changed_notices(hub: Driven) -> list[Notice]:
    found = [notice for notice in hub.documents("notices", Notice).values() if notice.kind == "changed"]
    return sorted(found, key=lambda notice: notice.notice_id)
