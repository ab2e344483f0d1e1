"""What believed readings mean for the work, by handing over beliefs."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.assignment import Assignment
from edge_agent.memory import Day
from edge_agent.sensing import Belief, Quality
from edge_agent.whereabouts import LeftAgain, Near, SetOff, StandsAt, has_begun, observe, share_left
from shared.quantities import EpochMs, Position, TimeWindow
from shared.work import StopId
from tests.agents import DEPOT, MINUTE_MS, MORNING_MS, place, plan_of, row_of_houses, stop

WORK = Assignment(plan_of(row_of_houses(3)))
S1, S2, S3 = StopId("s1"), StopId("s2"), StopId("s3")
DAY = Day(shown=(S1, S2, S3), shift="under_way")
NOW_MS = MORNING_MS + 60 * MINUTE_MS


def believed(position: Position | None, stood_s: float | None = None, quality: Quality = "gnss") -> Belief:
    since_ms = None if stood_s is None else EpochMs(NOW_MS - round(stood_s * 1000))
    return Belief(
        position=position,
        position_age_s=0.0,
        speed_mps=8.0 if stood_s is None else 0.0,
        is_standing=stood_s is not None,
        standing_since_ms=since_ms,
        odometer_m=0.0,
        quality=quality,
    )


def heading(stop_id: StopId, said: StopId | None = None) -> Day:
    return msgspec.structs.replace(
        DAY, heading_to=stop_id, said_heading=said, set_off_ms=MORNING_MS, from_position=DEPOT.position
    )


def test_a_van_that_leaves_without_a_word_goes_where_the_order_shows() -> None:
    assert observe(believed(place(100, 0)), DAY, WORK, None, NOW_MS)[0] == SetOff(S1)


def test_twenty_seconds_at_the_door_it_heads_for_are_an_arrival_since_it_came_to_stand() -> None:
    near = Near(S2, NOW_MS - 30_000)
    happened, _ = observe(believed(place(810, 0), stood_s=21), heading(S2), WORK, near, NOW_MS)
    assert happened == StandsAt(S2, EpochMs(NOW_MS - 21_000))


def test_creeping_into_a_gap_does_not_make_the_arrival_later() -> None:
    stood = Near(S2, NOW_MS - 90_000, stood_ms=NOW_MS - 60_000)
    happened, _ = observe(believed(place(810, 0), stood_s=21), heading(S2), WORK, stood, NOW_MS)
    assert happened == StandsAt(S2, EpochMs(NOW_MS - 60_000))


def test_a_van_that_drives_again_has_not_come_to_stand_yet() -> None:
    stood = Near(S2, NOW_MS - 90_000, stood_ms=NOW_MS - 60_000)
    _, near = observe(believed(place(860, 0)), heading(S2), WORK, stood, NOW_MS)
    assert near == Near(S2, NOW_MS - 90_000)


def test_a_few_steps_on_foot_arrive_when_the_driver_set_off() -> None:
    day = msgspec.structs.replace(heading(S2), set_off_ms=EpochMs(NOW_MS - 25_000))
    happened, _ = observe(believed(place(810, 0), stood_s=300), day, WORK, Near(S2, NOW_MS - 300_000), NOW_MS)
    assert happened == StandsAt(S2, EpochMs(NOW_MS - 25_000))


def test_a_red_light_near_the_door_is_no_arrival() -> None:
    near = Near(S2, NOW_MS - 90_000)
    happened, _ = observe(believed(place(875, 0), stood_s=45), heading(S2), WORK, near, NOW_MS)
    assert happened is None


def test_two_minutes_at_another_door_are_an_arrival_there() -> None:
    near = Near(S3, NOW_MS - 130_000)
    happened, _ = observe(believed(place(1200, 0), stood_s=125), heading(S1), WORK, near, NOW_MS)
    assert happened == StandsAt(S3, EpochMs(NOW_MS - 130_000))


def test_against_the_drivers_word_two_minutes_at_another_door_are_not_enough() -> None:
    near = Near(S3, NOW_MS - 130_000)
    assert observe(believed(place(1200, 0), stood_s=125), heading(S1, said=S1), WORK, near, NOW_MS)[0] is None


def test_a_van_that_leaves_a_door_without_an_outcome_goes_on_to_where_the_driver_said() -> None:
    day = msgspec.structs.replace(heading(S2, said=S1), at_stop=S2)
    assert observe(believed(place(1100, 0)), day, WORK, None, NOW_MS)[0] == LeftAgain(S2, S1)


def test_without_satellites_standing_counts_once_the_wheels_have_turned_for_most_of_the_way() -> None:
    stands = believed(None, stood_s=65, quality="wheel")
    arrived = msgspec.structs.replace(stands, odometer_m=2_000.0)
    assert observe(stands, heading(S2), WORK, None, NOW_MS)[0] is None
    assert observe(arrived, heading(S2), WORK, None, NOW_MS)[0] == StandsAt(S2, EpochMs(NOW_MS - 65_000))


def test_a_van_far_from_the_depot_has_begun_its_round() -> None:
    assert has_begun(believed(place(2_000, 0)), WORK.plan, NOW_MS)
    assert not has_begun(believed(DEPOT.position), WORK.plan, NOW_MS)
    assert not has_begun(believed(place(2_000, 0)), WORK.plan, MORNING_MS - 61 * MINUTE_MS)


@given(
    st.none() | st.tuples(st.floats(-3_000, 3_000), st.floats(-3_000, 3_000)),
    st.none() | st.floats(0, 7_200),
    st.sampled_from(["gnss", "wheel", "none"]),
    st.sampled_from([DAY, heading(S1), heading(S3, said=S3), msgspec.structs.replace(heading(S2), at_stop=S2)]),
    st.none() | st.builds(Near, st.sampled_from([S1, S2, S3]), st.integers(0, NOW_MS), is_far=st.booleans()),
)
def test_whatever_is_believed_only_stops_to_come_are_named_and_no_arrival_lies_ahead(
    at: tuple[float, float] | None, stood_s: float | None, quality: Quality, day: Day, near: Near | None
) -> None:
    belief = believed(None if at is None else place(*at), stood_s, quality)
    happened, now_near = observe(belief, day, WORK, near, NOW_MS)
    assert happened is None or happened.stop_id in day.shown
    assert now_near is None or now_near.since_ms <= NOW_MS
    assert not isinstance(happened, StandsAt) or happened.since_ms <= NOW_MS
    assert 0 < share_left(belief, day, S1, WORK, NOW_MS) <= 1.3


def test_who_stands_before_a_door_that_opens_much_later_stands_there_for_another_reason() -> None:
    houses = row_of_houses(3)
    later = TimeWindow(EpochMs(NOW_MS + 60 * MINUTE_MS), EpochMs(NOW_MS + 180 * MINUTE_MS))
    closed = [msgspec.structs.replace(house, slot=later, told=later) for house in houses]
    near = Near(S3, NOW_MS - 130_000)
    stands = believed(place(1200, 0), stood_s=125)
    assert observe(stands, heading(S1), Assignment(plan_of(closed)), near, NOW_MS)[0] is None
    assert observe(stands, heading(S1), Assignment(plan_of(houses)), near, NOW_MS)[0] is not None


FAR = Near(S3, NOW_MS - 200_000, stood_ms=NOW_MS - 180_000, is_far=True)
"""The van came to stand 128 m from the last door, as near as any street goes, three minutes ago."""
STREET = place(1200, 128)


def test_a_door_off_the_street_is_arrived_at_where_the_van_can_stand() -> None:
    happened, near = observe(believed(STREET, stood_s=180), heading(S3), WORK, FAR, NOW_MS)
    assert happened == StandsAt(S3, EpochMs(NOW_MS - 180_000))
    assert near == FAR


def test_a_long_red_light_far_from_the_door_is_no_arrival() -> None:
    assert observe(believed(STREET, stood_s=115), heading(S3), WORK, FAR, NOW_MS)[0] is None


def test_a_door_far_off_is_arrived_at_only_where_no_other_is_nearer() -> None:
    work = Assignment(plan_of([*row_of_houses(3)[:2], stop("s3", 980, 0)]))
    happened, near = observe(believed(place(860, 0), stood_s=180), heading(S3), work, FAR, NOW_MS)
    assert happened is None
    assert near is not None
    assert near.stop_id == S2


def test_a_van_that_has_not_moved_since_the_last_visit_has_arrived_at_no_far_door() -> None:
    never_moved = FAR._replace(stood_ms=None)
    day = msgspec.structs.replace(heading(S3), set_off_ms=EpochMs(NOW_MS - 150_000))
    assert observe(believed(STREET, stood_s=600), day, WORK, never_moved, NOW_MS)[0] is None
    at_last_door = msgspec.structs.replace(heading(S3), from_position=STREET)
    assert observe(believed(STREET, stood_s=180), at_last_door, WORK, FAR, NOW_MS)[0] is None


def test_a_van_held_up_on_the_way_that_drives_on_to_the_door_had_not_arrived() -> None:
    day = msgspec.structs.replace(heading(S3), at_stop=S3)
    assert observe(believed(place(1200, 80)), day, WORK, FAR, NOW_MS)[0] == LeftAgain(S3, None)
    assert observe(believed(STREET), day, WORK, FAR, NOW_MS)[0] is None
