"""What the agent believes of its devices: claims about single readings, and laws about any sequence of them."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.sensing import (
    MAX_SPEED_MPS,
    REACH_SLACK_M,
    EngineRunning,
    Fix,
    FuelOrCharge,
    Ignition,
    Limits,
    Odometer,
    OutsideTemperature,
    RefusalName,
    Remembered,
    Scan,
    Sensing,
    VoidFix,
    WheelSpeed,
    limits_at,
)
from shared.quantities import EpochMs, Position, metres_between

NOON_MS = 1_780_000_000_000
DEGREE_M = 111_195.0


def fix(after_s: float, north_m: float = 0.0, speed_mps: float | None = 0.0, dated_s: float | None = None, **more):
    """A fix so many seconds after noon and metres north of the start."""
    at_ms = EpochMs(round(NOON_MS + after_s * 1000))
    utc_ms = at_ms if dated_s is None else EpochMs(round(NOON_MS + dated_s * 1000))
    place = Position(lat=60.17 + north_m / DEGREE_M, lon=24.94)
    return Fix(at_ms=at_ms, position=place, speed_mps=speed_mps, utc_ms=utc_ms, satellites=9, hdop=0.9, **more)


def wheels(after_s: float, speed_mps: float) -> WheelSpeed:
    return WheelSpeed(at_ms=EpochMs(round(NOON_MS + after_s * 1000)), speed_mps=speed_mps)


def taken(sensing: Sensing, *readings) -> list[str | None]:
    """What became of each reading: None when it was believed, else the name of the refusal."""
    refusals = [sensing.take(reading) for reading in readings]
    return [None if refusal is None else refusal.name for refusal in refusals]


def at(after_s: float) -> int:
    return round(NOON_MS + after_s * 1000)


def test_nothing_is_believed_before_the_first_reading():
    belief = Sensing().believe(NOON_MS)
    assert (belief.position, belief.position_age_s, belief.speed_mps) == (None, None, None)
    assert (belief.quality, belief.is_standing, belief.odometer_m) == ("none", False, 0.0)


def test_the_first_good_fix_is_believed_at_once():
    sensing = Sensing()
    assert taken(sensing, fix(0, speed_mps=8.0)) == [None]
    belief = sensing.believe(at(1))
    assert (belief.position, belief.position_age_s, belief.speed_mps) == (fix(0).position, 1.0, 8.0)
    assert belief.quality == "gnss"


def test_a_fix_grows_old_but_its_place_stays():
    sensing = Sensing()
    taken(sensing, fix(0, speed_mps=8.0))
    belief = sensing.believe(at(30))
    assert (belief.quality, belief.speed_mps, belief.position_age_s) == ("none", None, 30.0)
    assert belief.position == fix(0).position


@pytest.mark.parametrize(
    ("reading", "name"),
    [
        (Fix(EpochMs(NOON_MS), Position(0.0, 0.0)), "NullIsland"),
        (Fix(EpochMs(NOON_MS), Position(91.0, 24.0)), "PositionOutOfRange"),
        (Fix(EpochMs(NOON_MS), Position(float("nan"), 24.0)), "PositionOutOfRange"),
        (Fix(EpochMs(NOON_MS), Position(60.0, 24.0), hdop=25.0), "PrecisionTooLow"),
        (Fix(EpochMs(NOON_MS), Position(60.0, 24.0), satellites=2), "NoSatellites"),
        (Fix(EpochMs(NOON_MS), Position(60.0, 24.0), speed_mps=300.0), "SpeedOutOfRange"),
        (Fix(EpochMs(NOON_MS), Position(60.0, 24.0), course_deg=720.0), "CourseOutOfRange"),
        (Fix(EpochMs(-1), Position(60.0, 24.0)), "TimeOutOfRange"),
        (WheelSpeed(EpochMs(NOON_MS), -1.0), "SpeedOutOfRange"),
        (WheelSpeed(EpochMs(NOON_MS), float("inf")), "SpeedOutOfRange"),
        (FuelOrCharge(EpochMs(NOON_MS), 1.2), "ShareOutOfRange"),
        (OutsideTemperature(EpochMs(NOON_MS), -273.0), "TemperatureOutOfRange"),
        (Odometer(EpochMs(NOON_MS), -1.0), "OdometerOutOfRange"),
    ],
)
def test_what_cannot_be_true_is_refused_by_name_and_counted(reading, name):
    sensing = Sensing()
    assert taken(sensing, reading, reading, reading, reading) == [name] * 4
    assert sensing.refused == {name: 4}


def test_a_teleport_is_refused_and_the_next_fix_at_home_believed():
    sensing = Sensing()
    outcome = taken(sensing, fix(0), fix(1, north_m=5_000), fix(2, north_m=10))
    assert outcome == [None, "FixTooFarAway", None]
    assert sensing.believe(at(2)).position == fix(2, north_m=10).position


def test_after_a_dropout_three_fixes_that_agree_overrule_the_old_place():
    sensing = Sensing()
    outcome = taken(sensing, fix(0), fix(1, north_m=5_000), fix(2, north_m=5_010), fix(3, north_m=5_020))
    assert outcome == [None, "FixTooFarAway", "FixTooFarAway", None]
    assert sensing.relocations == 1
    assert sensing.believe(at(3)).position == fix(3, north_m=5_020).position


def test_fixes_that_jump_about_never_overrule_the_place():
    sensing = Sensing()
    far = [fix(second, north_m=5_000 * (1 + second % 2)) for second in range(1, 40)]
    taken(sensing, fix(0), *far)
    assert sensing.believe(at(40)).position == fix(0).position
    assert sensing.relocations == 0


def test_a_tunnel_of_ten_minutes_needs_no_agreement_to_come_out_far_away():
    sensing = Sensing()
    assert taken(sensing, fix(0), fix(600, north_m=9_000)) == [None, None]


def test_wheels_that_stood_make_a_drift_of_streets_implausible():
    sensing = Sensing()
    standing = [wheels(tenth / 10, 0.0) for tenth in range(601)]
    taken(sensing, wheels(0, 0.0), fix(0.1), *standing)
    assert taken(sensing, fix(60, north_m=1_000)) == ["FixTooFarAway"]


def test_a_fix_dated_before_the_last_one_is_refused():
    sensing = Sensing()
    assert taken(sensing, fix(0), fix(1, dated_s=0), fix(2, dated_s=-3)) == [None, "FixNotNewer", "FixNotNewer"]


def test_a_fix_from_the_future_is_refused():
    sensing = Sensing()
    assert taken(sensing, fix(0), fix(1, dated_s=90)) == [None, "FixFromFuture"]


def test_a_backlog_read_in_one_burst_is_not_taken_for_the_present():
    sensing = Sensing()
    taken(sensing, fix(0))
    backlog = [fix(120 + n / 1000, north_m=10 * n, dated_s=n) for n in range(1, 100)]
    assert set(taken(sensing, *backlog)) == {"FixTooOld"}
    assert taken(sensing, fix(120.2, north_m=1_200, dated_s=120)) == [None]


def test_a_backlog_that_trickles_in_ten_times_too_fast_is_not_the_present_either():
    sensing = Sensing()
    taken(sensing, fix(0))
    backlog = [fix(600 + n / 10, north_m=10 * n, dated_s=n) for n in range(1, 100)]
    assert set(taken(sensing, *backlog)) == {"FixTooOld"}


def test_a_long_backlog_takes_no_more_memory_than_a_short_one():
    sensing = Sensing()
    taken(sensing, fix(0), *(fix(600 + n / 10_000, north_m=n, dated_s=n / 10) for n in range(1, 5_000)))
    assert len(repr(vars(sensing))) < 5_000


def test_a_wrong_clock_of_ours_is_found_out_and_does_not_blind_us():
    sensing = Sensing()
    outcome = taken(sensing, *(fix(n, dated_s=3_600 + n) for n in range(5)))
    assert outcome == ["FixFromFuture", "FixFromFuture", None, None, None]
    assert sensing.clock_gap_ms == 3_600_000


def test_at_sixty_times_the_speed_fixes_a_minute_apart_are_believed():
    sensing = Sensing(limits_at(60))
    minutes = [fix(60 * n, north_m=720 * n, speed_mps=12.0, dated_s=60 * n - 20) for n in range(30)]
    assert set(taken(sensing, *minutes)) == {None}
    belief = sensing.believe(at(29 * 60 + 120))
    assert belief.quality == "gnss"
    assert belief.odometer_m == pytest.approx(29 * 720, rel=0.01)


def test_at_sixty_times_the_speed_a_jump_across_town_is_still_refused():
    sensing = Sensing(limits_at(60))
    assert taken(sensing, fix(0), fix(6, north_m=5_000)) == [None, "FixTooFarAway"]


def test_wheels_say_from_when_the_van_stands():
    sensing = Sensing()
    taken(sensing, wheels(0, 9.0), wheels(1, 4.0), wheels(2, 0.0), wheels(3, 0.0), wheels(4, 0.28))
    belief = sensing.believe(at(4))
    assert (belief.is_standing, belief.standing_since_ms, belief.quality) == (True, at(2), "wheel")
    taken(sensing, wheels(5, 2.0))
    assert sensing.believe(at(5)).is_standing is False


def test_wheels_overrule_a_receiver_that_wanders():
    sensing = Sensing()
    taken(sensing, *(wheels(n, 0.0) for n in range(10)), fix(9, north_m=30, speed_mps=2.5))
    belief = sensing.believe(at(9.5))
    assert (belief.is_standing, belief.speed_mps) == (True, 0.0)


def test_a_van_without_a_bus_stands_where_its_fixes_rest():
    sensing = Sensing()
    taken(sensing, fix(0, 0, 10.0), fix(5, 50, 5.0), fix(10, 60, 0.3), fix(15, 63, 0.4), fix(20, 58, 0.2))
    belief = sensing.believe(at(20))
    assert (belief.is_standing, belief.standing_since_ms) == (True, at(10))
    taken(sensing, fix(25, 90, 6.0))
    assert sensing.believe(at(25)).is_standing is False


def test_a_receiver_that_tells_no_speed_still_shows_a_standstill():
    sensing = Sensing()
    taken(sensing, *(fix(n, north_m=n % 3, speed_mps=None) for n in range(20)))
    belief = sensing.believe(at(19))
    assert (belief.is_standing, belief.standing_since_ms) == (True, at(0))


def test_a_parked_van_whose_bus_fell_asleep_still_stands():
    sensing = Sensing()
    taken(sensing, wheels(0, 3.0), wheels(1, 0.0), wheels(2, 0.0), Ignition(EpochMs(at(4)), is_on=False))
    belief = sensing.believe(at(900))
    assert (belief.is_standing, belief.standing_since_ms, belief.is_ignition_on) == (True, at(1), False)


def test_wheels_count_the_metres_driven():
    sensing = Sensing()
    taken(sensing, *(wheels(n, 10.0) for n in range(11)))
    assert sensing.believe(at(10)).odometer_m == pytest.approx(100)


def test_fixes_count_the_metres_when_no_wheels_are_heard_and_standing_adds_none():
    sensing = Sensing()
    taken(sensing, *(fix(n, north_m=10 * n, speed_mps=10.0) for n in range(11)))
    taken(sensing, *(fix(11 + n, north_m=100 + 5 * (n % 2), speed_mps=0.1) for n in range(50)))
    assert sensing.believe(at(70)).odometer_m == pytest.approx(100, abs=6)


def test_wheels_and_fixes_together_do_not_count_a_metre_twice():
    sensing = Sensing()
    for n in range(21):
        taken(sensing, wheels(n, 10.0), fix(n + 0.01, north_m=10 * n, speed_mps=10.0))
    assert sensing.believe(at(20)).odometer_m == pytest.approx(200, abs=1)


def test_metres_counted_by_wheels_that_then_fell_silent_are_not_counted_again_by_the_next_fix():
    sensing = Sensing()
    taken(sensing, fix(0, speed_mps=10.0), *(wheels(n, 10.0) for n in range(11)))
    taken(sensing, fix(20, north_m=200, speed_mps=10.0))
    assert sensing.believe(at(20)).odometer_m == pytest.approx(200, abs=1)


def test_noise_ten_times_a_second_does_not_add_up_to_metres_driven():
    sensing = Sensing()
    taken(sensing, *(fix(n / 10, north_m=n / 2 + 2 * (n % 2), speed_mps=5.0) for n in range(1_001)))
    assert sensing.believe(at(100)).odometer_m == pytest.approx(500, abs=25)


def test_the_way_to_a_standstill_is_counted_even_by_fixes_a_minute_apart():
    sensing = Sensing(limits_at(60))
    taken(sensing, fix(0, 0, 10.0), fix(60, 600, 0.0), fix(120, 600, 0.0), fix(180, 1_000, 9.0))
    assert sensing.believe(at(180)).odometer_m == pytest.approx(1_000)


def test_the_vehicles_odometer_fills_in_what_was_missed():
    sensing = Sensing()
    readings = [Odometer(EpochMs(at(0)), 88_000_000.0), Odometer(EpochMs(at(600)), 88_006_000.0)]
    assert taken(sensing, *readings) == [None, None]
    assert sensing.believe(at(600)).odometer_m == pytest.approx(5_900)


def test_an_exchanged_instrument_cluster_is_believed_the_second_time():
    sensing = Sensing()
    odometers = [Odometer(EpochMs(at(n)), metres) for n, metres in enumerate((88e6, 1_000.0, 1_010.0))]
    assert taken(sensing, *odometers) == [None, "OdometerWentBack", None]


def test_one_wild_wheel_reading_is_refused_and_three_are_believed():
    sensing = Sensing()
    outcome = taken(sensing, wheels(0, 5.0), wheels(0.1, 50.0), wheels(0.2, 5.0))
    assert outcome == [None, "SpeedJumped", None]
    outcome = taken(sensing, wheels(0.3, 30.0), wheels(0.4, 30.0), wheels(0.5, 30.0))
    assert outcome == ["SpeedJumped", "SpeedJumped", None]


def test_a_restarted_agent_goes_on_from_what_it_remembers():
    before = Sensing()
    taken(before, *(wheels(n, 10.0) for n in range(11)), fix(10.5))
    after = Sensing(remembered=before.remember())
    belief = after.believe(at(40))
    assert (belief.position, belief.position_age_s) == (fix(10.5).position, 29.5)
    assert belief.odometer_m == pytest.approx(100)


def test_a_remembered_place_does_not_lock_the_van_out():
    remembered = Remembered(position=Position(60.17, 24.94), at_ms=EpochMs(NOON_MS))
    sensing = Sensing(remembered=remembered)
    outcome = taken(sensing, *(fix(10 + n, north_m=50_000) for n in range(3)))
    assert outcome == ["FixTooFarAway", "FixTooFarAway", None]


def test_limits_of_devices_scale_with_the_clock_and_never_shrink():
    assert limits_at(60).fix_fresh_s == 60 * Limits().fix_fresh_s
    assert limits_at(0.5) == Limits()


ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
ANY_INSTANT = st.one_of(
    st.integers(NOON_MS, NOON_MS + 600_000),
    st.integers(NOON_MS, NOON_MS + 600_000),
    st.integers(),
    st.just(10**400),
)
NEAR = st.builds(Position, st.floats(60.0, 60.4), st.floats(24.5, 25.3))
ANY_PLACE = st.one_of(NEAR, NEAR, st.builds(Position, ANY_FLOAT, ANY_FLOAT))
ANY_READING = st.one_of(
    st.builds(
        Fix,
        ANY_INSTANT,
        ANY_PLACE,
        st.none() | st.floats(0, 40) | ANY_FLOAT,
        st.none() | ANY_FLOAT,
        st.none() | st.integers(4, 12) | st.integers(),
        st.none() | st.floats(0.5, 3) | ANY_FLOAT,
        st.none() | ANY_INSTANT,
    ),
    st.builds(VoidFix, ANY_INSTANT),
    st.builds(WheelSpeed, ANY_INSTANT, st.floats(0, 30) | ANY_FLOAT),
    st.builds(EngineRunning, ANY_INSTANT, st.booleans()),
    st.builds(Ignition, ANY_INSTANT, st.booleans()),
    st.builds(FuelOrCharge, ANY_INSTANT, ANY_FLOAT),
    st.builds(Odometer, ANY_INSTANT, st.floats(0, 1e9) | ANY_FLOAT),
    st.builds(OutsideTemperature, ANY_INSTANT, ANY_FLOAT),
    st.builds(Scan, ANY_INSTANT, st.text(max_size=300)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY_READING, max_size=60), st.integers(NOON_MS - 1_000, NOON_MS + 700_000))
def test_no_sequence_of_readings_raises_and_every_belief_is_sane(readings, now_ms):
    sensing = Sensing()
    driven_m = 0.0
    for reading in readings:
        sensing.take(reading)
        belief = sensing.believe(now_ms)
        assert belief.position is None or -90 <= belief.position.lat <= 90
        assert belief.position_age_s is None or belief.position_age_s >= 0
        assert belief.speed_mps is None or 0 <= belief.speed_mps <= MAX_SPEED_MPS
        assert belief.is_standing == (belief.standing_since_ms is not None)
        assert belief.odometer_m >= driven_m
        driven_m = belief.odometer_m


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5_000), NEAR), min_size=2, max_size=80))
def test_a_believed_place_teleports_only_when_fixes_agreed(steps):
    sensing = Sensing()
    at_ms = NOON_MS
    believed, believed_at_ms, relocations = None, NOON_MS, 0
    for after_ms, place in steps:
        at_ms += after_ms
        refusal = sensing.take(Fix(at_ms=EpochMs(at_ms), position=place, utc_ms=EpochMs(at_ms)))
        if refusal is not None:
            continue
        if believed is not None and sensing.relocations == relocations:
            reach_m = MAX_SPEED_MPS * (at_ms - believed_at_ms) / 1000 + REACH_SLACK_M
            assert metres_between(believed, place) <= reach_m + 1e-6
        believed, believed_at_ms, relocations = place, at_ms, sensing.relocations


@settings(max_examples=20, deadline=None)
@given(st.lists(ANY_READING, min_size=20, max_size=60))
def test_memory_does_not_grow_with_what_was_said(readings):
    sensing = Sensing()
    for reading in readings * 20:
        sensing.take(reading)
    assert len(repr(vars(sensing))) < 5_000
    assert set(sensing.refused) <= set(get_args(RefusalName))


@settings(max_examples=40, deadline=None)
@given(st.lists(ANY_READING, max_size=40), st.integers(2, 60))
def test_whatever_was_said_before_a_steady_receiver_is_believed_again(readings, clock_speed):
    sensing = Sensing(limits_at(clock_speed))
    for reading in readings:
        sensing.take(reading)
    steady = [fix(700 + n * clock_speed, north_m=n) for n in range(20)]
    outcome = taken(sensing, *steady)
    assert outcome[-1] is None
    assert sensing.believe(steady[-1].at_ms).position == steady[-1].position
