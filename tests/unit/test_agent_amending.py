"""Work that is amended while it is driven: what is taken, what is not, and what the driver hears of it."""

import msgspec
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.dialogue import ChangeSaid, ShiftSaid
from edge_agent.outlook import Improve
from shared.contracts import LegTimes
from shared.messages import (
    AmendmentTaken,
    ChangeAnswered,
    EstimatesMoved,
    HeadingTo,
    Resequenced,
    RoadsChanged,
    WorkAmended,
)
from shared.quantities import EpochMs, TimeWindow
from shared.work import Stop, StopId
from tests.agents import MINUTE_MS, MORNING_MS, Rig, place, plan_of, row_of_houses, stop

HOUSES = row_of_houses(5)


def rig_of(houses: list[Stop] | None = None) -> Rig:
    rig = Rig()
    rig.push(plan_of(houses or HOUSES))
    rig.begin()
    return rig


def legs_for(*stops: Stop) -> LegTimes:
    return plan_of(stops).legs


def until(minutes: int, closes: int = 600) -> TimeWindow:
    return TimeWindow(EpochMs(MORNING_MS + minutes * MINUTE_MS), EpochMs(MORNING_MS + closes * MINUTE_MS))


def not_home(house: Stop, minutes: int) -> Stop:
    return msgspec.structs.replace(house, slot=until(minutes), told=until(minutes))


def answers(rig: Rig) -> list[AmendmentTaken]:
    return rig.events(AmendmentTaken)


def test_a_new_stop_goes_where_it_costs_least_and_the_driver_hears_of_it() -> None:
    rig = rig_of()
    new = stop("n1", 1200.0, 30.0)
    rig.hub(WorkAmended(1, stops=(new,), legs=legs_for(*HOUSES, new)))
    # With a wish to please nobody in particular, the door beside s3 comes before or after it.
    assert rig.shown in (["s1", "s2", "n1", "s3", "s4", "s5"], ["s1", "s2", "s3", "n1", "s4", "s5"])
    assert answers(rig) == [AmendmentTaken(1, (StopId("n1"),), (), tuple(rig.shown))]  # type: ignore[arg-type]
    assert rig.day["change"]["reason"]["cause"] == "new_stop"
    assert rig.day["change"]["why"] == "A new stop at n1 street 1"


def test_another_attempt_at_a_door_the_plan_knows_needs_no_leg_times() -> None:
    rig = rig_of()
    rig.visits("s1")
    again = msgspec.structs.replace(HOUSES[0], stop_id=StopId("s1-2"), attempt=2)
    rig.hub(WorkAmended(1, stops=(again,)))
    assert "s1-2" in rig.shown
    assert rig.day["change"]["reason"]["cause"] == "another_attempt"
    assert next(each["attempt"] for each in rig.day["stops"] if each["stop_id"] == "s1-2") == 2


def test_a_new_place_without_leg_times_is_refused_by_name() -> None:
    rig = rig_of()
    rig.hub(WorkAmended(1, stops=(stop("n1", 50.0, 900.0),)))
    assert answers(rig)[0].refused == ((StopId("n1"), "its place is new and there are no leg times for it"),)
    assert "n1" not in rig.shown


def test_a_customer_not_home_is_visited_later_and_the_page_says_until_when() -> None:
    rig = rig_of()
    rig.hub(WorkAmended(1, stops=(not_home(HOUSES[1], 120),)))
    assert rig.day["change"]["reason"]["cause"] == "not_home_until"
    assert rig.day["change"]["reason"]["cause_ms"] == MORNING_MS + 120 * MINUTE_MS
    assert rig.day["change"]["why"].startswith("The customer at s2 street 1 is not home until 08:00")
    assert rig.shown.index("s2") > 2


def test_the_kernel_is_asked_at_once_and_its_change_keeps_the_wish_as_its_cause() -> None:
    houses = [
        stop("s1", 708.0, 155.0),
        stop("s2", 1437.0, 135.0, told=(0, 30)),
        stop("s3", 1205.0, 1377.0, told=(0, 30)),
        stop("s4", 666.0, 805.0, told=(0, 60)),
        stop("s5", 2339.0, 1240.0, told=(0, 60)),
        stop("s6", 643.0, 1391.0, told=(0, 60)),
    ]
    rig = rig_of(houses)
    new = stop("n1", 2401.0, 290.0, service_s=900, told=(0, 40))
    rig.hub(WorkAmended(1, stops=(new,), legs=legs_for(*houses, new)))
    (changed,) = rig.events(Resequenced)
    reason = rig.day["change"]["reason"]
    assert changed.change_id == rig.day["change"]["change_id"]
    assert (reason["cause"], reason["cause_stop"], reason["effect"]) == ("new_stop", "n1", "keeps_windows")
    assert rig.day["change"]["why"].startswith("A new stop at n1 street 1; moved ")
    assert rig.day["change"]["before"] == ["s1", "s2", "s3", "s4", "s5", "s6"]


def test_words_for_the_door_are_shown_and_move_nothing() -> None:
    rig = rig_of()
    rig.hub(WorkAmended(1, stops=(msgspec.structs.replace(HOUSES[2], door_code="4711", note="ring twice"),)))
    shown = next(each for each in rig.day["stops"] if each["stop_id"] == "s3")
    assert (shown["door_code"], shown["note"]) == ("4711", "ring twice")
    assert rig.day["change"]["reason"]["cause"] == "other_details"
    assert rig.shown == ["s1", "s2", "s3", "s4", "s5"]


def test_a_withdrawn_stop_is_not_shown_any_more() -> None:
    rig = rig_of()
    rig.hub(WorkAmended(1, withdrawn=(StopId("s4"),)))
    assert rig.shown == ["s1", "s2", "s3", "s5"]
    assert rig.day["change"]["reason"]["cause"] == "withdrawn"
    assert rig.day["change"]["why"] == "No visit at s4 street 1 any more"


def test_what_is_under_way_or_done_stays_and_is_said_back() -> None:
    rig = rig_of()
    rig.visits("s1")
    rig.heads_for("s2")
    rig.hub(WorkAmended(1, stops=(not_home(HOUSES[1], 200),), withdrawn=(StopId("s1"), StopId("s3"))))
    assert answers(rig)[0].taken == ("s3",)
    assert dict(answers(rig)[0].refused) == {"s2": "it is under way", "s1": "it is done"}
    assert rig.shown == ["s2", "s4", "s5"]
    assert rig.day["heading_to"] == "s2"


def test_the_same_amendment_twice_changes_nothing_the_second_time() -> None:
    rig = rig_of()
    said = WorkAmended(1, stops=(not_home(HOUSES[3], 200),), withdrawn=(StopId("s5"),))
    rig.hub(said)
    day, told = rig.day, answers(rig)[0]
    rig.hub(said)
    assert answers(rig)[1].taken == told.taken
    assert rig.day["change"] == day["change"]
    assert rig.shown == [each["stop_id"] for each in day["stops"]]


def test_an_amendment_of_another_plan_is_refused_whole() -> None:
    rig = rig_of()
    rig.hub(WorkAmended(7, withdrawn=(StopId("s4"),)))
    assert answers(rig) == [
        AmendmentTaken(7, (), ((StopId("s4"), "agent drives plan 1"),), tuple(map(StopId, rig.shown)))
    ]
    assert len(rig.shown) == 5


def test_an_amendment_before_any_plan_or_after_the_shift_is_refused() -> None:
    rig = Rig()
    rig.hub(WorkAmended(1, withdrawn=(StopId("s4"),)))
    rig.push(plan_of(HOUSES))
    rig.begin()
    rig.driver(ShiftSaid("ended"))
    rig.hub(WorkAmended(1, withdrawn=(StopId("s4"),)))
    assert [said.refused[0][1] for said in answers(rig)] == ["there is no plan yet", "the shift has ended"]


def test_leg_times_that_leave_out_what_is_under_way_are_refused() -> None:
    rig = rig_of()
    rig.heads_for("s1")
    new = stop("n1", 1200.0, 30.0)
    rig.hub(WorkAmended(1, stops=(new,), withdrawn=(StopId("s1"),), legs=legs_for(*HOUSES[1:], new)))
    assert answers(rig)[0].taken == ()
    assert rig.shown == ["s1", "s2", "s3", "s4", "s5"]


def test_leg_times_that_are_no_matrix_are_refused() -> None:
    rig = rig_of()
    broken = msgspec.structs.replace(legs_for(*HOUSES), seconds=b"12")
    rig.hub(WorkAmended(1, withdrawn=(StopId("s4"),), legs=broken))
    assert "leg times hold 2 bytes" in answers(rig)[0].refused[0][1]


def test_an_amendment_survives_a_restart() -> None:
    rig = rig_of()
    rig.hub(WorkAmended(1, stops=(not_home(HOUSES[3], 200),), withdrawn=(StopId("s5"),)))
    again = rig.restarted()
    again.step()
    assert again.shown == rig.shown
    assert again.core.durable()["parts"] == rig.core.durable()["parts"]


def test_roads_may_change_after_an_amendment() -> None:
    rig = rig_of()
    rig.hub(WorkAmended(1, withdrawn=(StopId("s5"),)))
    slower = msgspec.structs.replace(plan_of(HOUSES[:4], mps=3.0).legs, roads_version=2)
    rig.hub(RoadsChanged(1, slower, "a street is closed"))
    assert "refused_RoadsNotNewer" not in rig.core.counters()


def test_a_driver_may_refuse_the_order_a_wish_made_and_never_the_wish() -> None:
    rig = rig_of()
    new, later = stop("n1", 1200.0, 30.0), stop("s1", 400.0, 0.0, told=(120, 180))
    rig.hub(WorkAmended(1, stops=(new, later), legs=legs_for(*HOUSES, new)))
    change = rig.day["change"]
    behind = change["after"][change["after"].index("n1") - 1]
    assert rig.driver(ChangeSaid(change["change_id"], "refused", "no")).status == 200
    assert [stop_id for stop_id in rig.shown if stop_id != "n1"] == ["s1", "s2", "s3", "s4", "s5"]
    assert rig.shown[rig.shown.index("n1") - 1] == behind
    work = rig.restarted().core._round.work
    assert work is not None
    assert (work.stops[StopId("s1")], work.stops[StopId("n1")]) == (later, new)
    assert rig.events(ChangeAnswered)[-1].order == tuple(rig.shown)


def test_a_restart_does_not_forget_that_the_kernel_is_to_be_asked() -> None:
    rig = rig_of()
    rig.does_jobs = False
    rig.hub(WorkAmended(1, withdrawn=(StopId("s5"),)))
    again = rig.restarted()
    again.does_jobs = False
    (look,) = again.step().jobs
    (question,) = again.step(again.answer_to(look)).jobs
    assert isinstance(question, Improve)


def test_the_hub_hears_when_a_new_stop_will_be_served() -> None:
    rig = rig_of()
    new = stop("n1", 1200.0, 30.0)
    rig.hub(WorkAmended(1, stops=(new,), legs=legs_for(*HOUSES, new)))
    assert "n1" in [estimate.stop_id for estimate in rig.events(EstimatesMoved)[-1].estimates]


def test_a_route_that_was_done_goes_on_with_a_stop_more() -> None:
    rig = rig_of(HOUSES[:1])
    rig.visits("s1")
    again = msgspec.structs.replace(HOUSES[0], stop_id=StopId("s1-2"), attempt=2)
    rig.hub(WorkAmended(1, stops=(again,)))
    assert rig.shown == ["s1-2"]
    rig.heads_for("s1-2")
    assert rig.events(HeadingTo)[-1] == HeadingTo(StopId("s1-2"))


IDS = st.sampled_from(["s1", "s2", "s3", "s4", "s5", "n1", "n2", "", "§"])
WINDOWS = st.tuples(st.integers(-100, 700), st.integers(-100, 700))


@st.composite
def amendments(draw: st.DrawFn) -> WorkAmended:
    stops = []
    for name in draw(st.lists(IDS, max_size=3)):
        opens, closes = draw(WINDOWS)
        east, north = draw(st.sampled_from([(400.0, 0.0), (800.0, 0.0), (50.0, 70.0)]))
        window = TimeWindow(EpochMs(MORNING_MS + opens * 60_000), EpochMs(MORNING_MS + closes * 60_000))
        house = stop(name, east, north)
        stops.append(msgspec.structs.replace(house, told=window, slot=draw(st.sampled_from([window, house.slot]))))
    legs = None
    if draw(st.booleans()):
        places = tuple(StopId(name) for name in draw(st.lists(IDS, max_size=8, unique=True)))
        side = len(places) + 1
        seconds = np.full((1, side, side), draw(st.integers(0, 900)))
        legs = LegTimes.from_matrix(draw(st.integers(0, 5)), places, (EpochMs(MORNING_MS + 900 * MINUTE_MS),), seconds)
        if draw(st.booleans()):
            legs = legs_for(*HOUSES, stop("n1", 50.0, 70.0), stop("n2", 800.0, 0.0))
    withdrawn = tuple(StopId(name) for name in draw(st.lists(IDS, max_size=3)))
    return WorkAmended(draw(st.sampled_from([1, 1, 1, 2])), tuple(stops), withdrawn, legs, draw(st.text(max_size=9)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(amendments(), min_size=1, max_size=6), st.sampled_from(["", "s1", "s3"]))
def test_whatever_is_amended_every_stop_of_the_plan_is_shown_or_visited_and_every_id_is_answered(
    said: list[WorkAmended], first: str
) -> None:
    rig = rig_of()
    rig.visits("s2")
    if first:
        rig.heads_for(first)
    for each in said:
        rig.hub(each)
        answer = answers(rig)[-1]
        wanted = {*(house.stop_id for house in each.stops), *each.withdrawn}
        assert {*answer.taken, *(stop_id for stop_id, _ in answer.refused)} == wanted
        work, day = rig.core._round.work, rig.core._round.day
        assert work is not None
        assert sorted([*day.shown, *rig.core._round.visits]) == sorted(work.stops)
        assert not first or day.shown[0] == first
        rig.stands_at(place(100, 100), after_s=30)
        assert rig.restarted().core.durable() == rig.core.durable()
