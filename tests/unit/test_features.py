"""What the van models see: columns named once, garbage refused by name, and a pace that follows the day."""

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.features import (
    LEG_BASELINE,
    LEG_COLUMNS,
    STOP_BASELINE,
    STOP_COLUMNS,
    FeatureOutOfRange,
    LegSeen,
    Pace,
    StopSeen,
    leg_rows,
    stop_rows,
)

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def test_every_leg_becomes_one_row_of_the_named_columns():
    rows = leg_rows([LegSeen(120.0, 900.0, 9.5, 2), LegSeen(60.0, 300.0, 17.0, 6, pace=1.2, is_stem=True)])
    assert rows.shape == (2, len(LEG_COLUMNS))
    assert rows.dtype == np.float32
    assert rows[:, LEG_COLUMNS.index("is_weekend")].tolist() == [0.0, 1.0]
    assert rows[1, LEG_COLUMNS.index("log_pace")] == pytest.approx(math.log(1.2))


def test_the_baseline_column_holds_the_plan_in_seconds():
    assert leg_rows([LegSeen(120.0, 900.0, 9.5, 2)])[0, LEG_BASELINE] == 120.0
    assert stop_rows([StopSeen(180.0)])[0, STOP_BASELINE] == 180.0


def test_the_second_door_of_a_parking_place_is_told_from_the_first():
    rows = stop_rows([StopSeen(180.0), StopSeen(180.0, same_door_index=1)])
    assert rows[:, STOP_COLUMNS.index("is_first_door")].tolist() == [1.0, 0.0]


def test_a_lift_removes_the_stairs():
    rows = stop_rows([StopSeen(180.0, floor=4), StopSeen(180.0, floor=4, has_lift=True)])
    assert rows[:, STOP_COLUMNS.index("stairs")].tolist() == [4.0, 0.0]


def test_no_legs_make_no_rows():
    assert leg_rows([]).shape == (0, len(LEG_COLUMNS))


def test_a_leg_of_no_length_has_a_finite_row():
    assert np.isfinite(leg_rows([LegSeen(0.0, 0.0, 0.0, 0)])).all()


@given(NUMBERS, NUMBERS, NUMBERS, st.integers(), NUMBERS)
def test_a_leg_gives_a_finite_row_or_a_named_refusal(map_s, metres, hour, weekday, pace):
    try:
        rows = leg_rows([LegSeen(map_s, metres, hour, weekday, pace)])
    except FeatureOutOfRange:
        return
    assert np.isfinite(rows).all()


def test_a_refusal_says_what_was_found_and_what_was_expected():
    with pytest.raises(FeatureOutOfRange, match=r"hour_of_day is 25, expected 0 to 24"):
        leg_rows([LegSeen(60.0, 500.0, 25, 0)])


@given(NUMBERS, st.text(), NUMBERS, NUMBERS)
def test_an_unknown_service_is_refused_by_name(planned_s, service, litres, pace):
    with pytest.raises(FeatureOutOfRange):
        stop_rows([StopSeen(planned_s, "x" + service, litres=litres, dwell_pace=pace)])


def test_a_day_without_history_goes_as_planned():
    assert Pace().ratio == 1.0


def test_one_slow_leg_does_not_decide_the_day():
    assert 1.0 < Pace().learned(200.0, 100.0).ratio < 1.3


def test_a_day_that_takes_half_as_long_again_is_known_as_such():
    pace = Pace()
    for _ in range(60):
        pace = pace.learned(150.0, 100.0)
    assert pace.ratio == pytest.approx(1.5, abs=0.2)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=40))
def test_pace_stays_a_ratio_whatever_was_measured(measured):
    pace = Pace()
    for actual_s, expected_s in measured:
        with contextlib.suppress(FeatureOutOfRange):
            pace = pace.learned(actual_s, expected_s)
    assert 0.2 < pace.ratio < 5
