"""What the page shows while the van moves, and what it asks about when it stands."""

import msgspec

from edge_agent.dialogue import ChangeSaid, HeadingSaid, OverrideSaid
from shared.messages import HeadingTo, OverrideExplained, Resequenced, WindowTold, WorkAmended
from shared.quantities import EpochMs, TimeWindow
from shared.steps import LinkUp, Now
from shared.work import Stop, StopId
from tests.agents import MINUTE_MS, MORNING_MS, Rig, place, plan_of, row_of_houses, stop

URGENT = stop("s6", 450.0, 60.0, told=(0, 50))


def on_the_road() -> Rig:
    rig = Rig()
    rig.push(plan_of(row_of_houses()))
    rig.begin()
    return rig


def moving_and_late() -> Rig:
    """The van drives to s1 and has lost half an hour, so that another order beyond s1 is better."""
    rig = Rig()
    rig.push(plan_of([*row_of_houses(5), URGENT]))
    rig.begin()
    rig.heads_for("s1")
    rig.stands_at(place(-600, 0), after_s=60)
    for minute in range(25):
        rig.drives_past(place(-600 + 20.0 * minute, 0), after_s=52)
    return rig


def test_the_page_says_whether_the_van_moves() -> None:
    rig = on_the_road()
    assert rig.day["is_moving"] is False
    rig.drives_past(place(-300, 100), after_s=30)
    assert rig.day["is_moving"] is True
    rig.stands_at(place(-250, 100), after_s=30)
    assert rig.day["is_moving"] is False


def test_while_the_van_moves_a_better_order_is_told_to_the_hub_and_not_yet_shown() -> None:
    rig = moving_and_late()
    (changed,) = rig.events(Resequenced)
    assert rig.shown == list(changed.before)
    assert rig.day["change"] is None


def test_at_standstill_the_better_order_is_shown_with_its_reason() -> None:
    rig = moving_and_late()
    (changed,) = rig.events(Resequenced)
    rig.stands_at(place(400, 0), after_s=60)
    assert rig.shown == list(changed.after)
    assert rig.shown[0] == "s1"
    assert rig.day["change"]["reason"]["cause"] in ("late", "about_to_miss")
    assert rig.driver(ChangeSaid(changed.change_id, "seen")).status == 200


def test_an_order_held_back_is_held_over_a_restart() -> None:
    rig = moving_and_late()
    again = rig.restarted()
    again.step()
    assert again.shown == rig.shown
    again.step(after_s=31)
    assert again.shown == list(rig.events(Resequenced)[0].after)


def test_what_else_is_new_is_shown_while_the_van_moves() -> None:
    rig = moving_and_late()
    rig.step(LinkUp())
    later = TimeWindow(EpochMs(MORNING_MS), EpochMs(MORNING_MS + 90 * MINUTE_MS))
    rig.hub(WindowTold(StopId("s1"), later))
    assert rig.day["link_is_up"] is True
    assert rig.day["stops"][0]["told"] == [later.opens_ms, later.closes_ms]


def test_a_stop_withdrawn_while_the_van_moves_leaves_the_page_at_standstill() -> None:
    rig = on_the_road()
    rig.heads_for("s1")
    rig.drives_past(place(100, 0), after_s=30)
    rig.hub(WorkAmended(1, withdrawn=(StopId("s3"),)))
    assert "s3" in rig.shown
    rig.stands_at(place(400, 0), after_s=30)
    assert rig.shown == ["s1", "s2", "s4", "s5", "s6"]
    assert rig.day["change"]["reason"]["cause"] == "withdrawn"


def test_a_plan_taken_while_the_van_moves_is_shown_at_standstill() -> None:
    rig = on_the_road()
    rig.heads_for("s1")
    rig.drives_past(place(100, 0), after_s=30)
    rig.push(plan_of(list(reversed(row_of_houses())), version=2))
    assert rig.shown == ["s1", "s2", "s3", "s4", "s5", "s6"]
    rig.stands_at(place(400, 0), after_s=30)
    assert rig.shown == ["s1", "s6", "s5", "s4", "s3", "s2"]


def test_a_driver_who_goes_where_the_page_shows_overrides_nothing_though_the_order_has_changed() -> None:
    rig = on_the_road()
    rig.visits("s1")
    rig.drives_past(place(450, 0), after_s=30)
    rig.hub(WorkAmended(1, stops=(_retimed("s2", 300),)))
    assert rig.core._round.day.shown[0] != "s2"
    assert rig.shown[0] == "s2"
    rig.drives_past(place(600, 0), after_s=30)
    assert rig.events(HeadingTo)[-1] == HeadingTo(StopId("s2"), overrides=False)


def _retimed(stop_id: str, minutes: int) -> Stop:
    house = next(each for each in row_of_houses() if each.stop_id == stop_id)
    window = TimeWindow(EpochMs(MORNING_MS + minutes * MINUTE_MS), EpochMs(MORNING_MS + 600 * MINUTE_MS))
    return msgspec.structs.replace(house, told=window, slot=window)


def test_who_visits_another_stop_first_is_asked_why_once_at_the_door() -> None:
    rig = on_the_road()
    rig.heads_for("s4")
    assert rig.day["question"] is None
    rig.stands_at(place(1600, 0), after_s=200)
    rig.delivers("s4")
    assert rig.day["question"] == {"stop_id": "s4", "instead_of": "s1", "address": "s4 street 1"}
    assert rig.driver(OverrideSaid("s4", "customer_asked", "called me")).status == 200
    assert rig.day["question"] is None
    assert rig.events(OverrideExplained) == [
        OverrideExplained(StopId("s4"), StopId("s1"), "customer_asked", "called me")
    ]
    assert rig.driver(OverrideSaid("s4", "road")).status == 409


def test_a_question_is_not_shown_while_the_van_moves() -> None:
    rig = on_the_road()
    rig.visits("s4")
    rig.drives_past(place(1300, 0), after_s=60)
    assert rig.day["question"] is None
    rig.stands_at(place(1200, 0), after_s=30)
    assert rig.day["question"] == {"stop_id": "s4", "instead_of": "s1", "address": "s4 street 1"}


def test_a_question_is_not_asked_for_longer_than_twenty_minutes() -> None:
    rig = on_the_road()
    rig.visits("s4")
    wake = rig.core.wake(Now(EpochMs(rig.now_ms), rig.now_ms)).domain_ms
    assert wake is not None
    assert wake <= rig.now_ms + 20 * MINUTE_MS
    rig.step(after_s=20 * 60)
    assert rig.events(OverrideExplained) == [OverrideExplained(StopId("s4"), StopId("s1"), "no_answer")]
    assert rig.day["question"] is None
    rig.step(after_s=20 * 60)
    assert len(rig.events(OverrideExplained)) == 1


def test_the_next_visit_closes_a_question_nobody_answered() -> None:
    rig = on_the_road()
    rig.visits("s4")
    rig.visits("s1")
    assert [said.reason for said in rig.events(OverrideExplained)] == ["no_answer"]
    assert rig.day["question"] is None


def test_a_question_survives_a_restart() -> None:
    rig = on_the_road()
    rig.visits("s4")
    again = rig.restarted()
    assert again.driver(OverrideSaid("s4", "road")).status == 200


def test_who_goes_back_before_the_visit_is_asked_nothing() -> None:
    rig = on_the_road()
    rig.heads_for("s4")
    rig.heads_for("s1")
    assert [said.overrides for said in rig.events(HeadingTo)] == [True, False]
    rig.stands_at(place(400, 0), after_s=100)
    rig.delivers("s1")
    assert rig.day["question"] is None
    assert rig.events(OverrideExplained) == []


def test_two_doors_of_one_house_are_nothing_to_ask_about() -> None:
    rig = Rig()
    doors = [stop(name, 400.0, 0.0, door_group="yard") for name in ("a", "b")]
    rig.push(plan_of([*doors, stop("c", 900.0, 0.0)]))
    rig.begin()
    rig.visits("b")
    assert rig.events(HeadingTo)[0].overrides
    assert rig.day["question"] is None


def test_a_stop_not_shown_yet_is_shown_first_when_the_van_goes_there() -> None:
    rig = on_the_road()
    rig.heads_for("s1")
    rig.drives_past(place(100, 0), after_s=30)
    again = msgspec.structs.replace(row_of_houses()[2], stop_id=StopId("s3-2"), attempt=2)
    rig.hub(WorkAmended(1, stops=(again,)))
    assert "s3-2" not in rig.shown
    rig.heads_for("s3-2")
    assert rig.shown[0] == "s3-2"


def test_the_stop_under_way_stays_first_whatever_comes() -> None:
    rig = on_the_road()
    rig.driver(HeadingSaid("s2"))
    rig.hub(WorkAmended(1, stops=(_retimed("s3", 300),), withdrawn=(StopId("s2"),)))
    rig.push(plan_of(list(reversed(row_of_houses())), version=2))
    assert rig.shown[0] == "s2"


def test_every_stop_carries_what_helps_at_the_door() -> None:
    rig = Rig()
    helped = msgspec.structs.replace(
        stop("s1", 400, 0), door_code="12#", note="dog", safe_place="shed", neighbour="Aho", attempt=2
    )
    parcels = tuple(msgspec.structs.replace(parcel, stow="B3") for parcel in helped.parcels)
    rig.push(plan_of([msgspec.structs.replace(helped, parcels=parcels)]))
    shown = rig.day["stops"][0]
    assert [shown[key] for key in ("door_code", "note", "safe_place", "neighbour", "attempt")] == [
        "12#",
        "dog",
        "shed",
        "Aho",
        2,
    ]
    assert shown["stow"] == {"WW:s1/1": "B3"}
    assert shown["parcels"] == ["WW:s1/1"]
