"""Arrivals joined from quantiles: ordered, as wide as the day's shared luck demands, and honest when things change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.arrivals import AdaptiveOffset, HeldUp, Honesty, Pause, QuantilesOutOfOrder, join
from shared.features import Correlation

NOW_MS = 1_750_000_000_000
LEG, DWELL = (80.0, 100.0, 150.0), (120.0, 180.0, 300.0)


def seconds(low, mid, high):
    return st.tuples(low, mid, high).map(sorted)


ROWS = st.lists(
    st.tuples(*[seconds(*[st.floats(0, 3000)] * 3)] * 2, st.none() | st.integers(NOW_MS, NOW_MS + 20_000_000)),
    min_size=1,
    max_size=12,
)
SHARES = st.floats(0, 1)
MEASURED = Correlation(0.3, 0.1, 0.05)


def joined(stops, correlation=MEASURED):
    legs, dwells, opens = zip(*stops, strict=True)
    return join(NOW_MS, np.array(legs), np.array(dwells), opens, correlation)


def width_s(arrivals):
    low, _, high = arrivals.quantiles_ms()[-1]
    return (high - low) / 1000


def test_the_first_arrival_has_the_quantiles_of_its_leg():
    found_s = (joined([(LEG, DWELL, None)]).quantiles_ms()[0] - NOW_MS) / 1000
    assert found_s == pytest.approx(LEG, abs=2.5)


def test_a_skewed_day_is_later_in_the_middle_than_its_medians_add_up_to():
    median_s = (joined([(LEG, DWELL, None)] * 20).quantiles_ms()[-1, 1] - NOW_MS) / 1000
    assert median_s > 20 * LEG[1] + 19 * DWELL[1]


@given(ROWS, SHARES, SHARES, st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_quantiles_are_ordered_and_stops_follow_each_other(stops, legs, dwells, between):
    quantiles_ms = joined(stops, Correlation(legs, dwells, between)).quantiles_ms()
    assert (np.diff(quantiles_ms, axis=1) >= 0).all()
    assert (np.diff(quantiles_ms, axis=0) >= -1e-3).all()
    assert (quantiles_ms >= NOW_MS).all()


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_nobody_is_served_before_opening(stops):
    quantiles_ms = joined(stops).quantiles_ms()
    opens_ms = np.array([stop[2] or NOW_MS for stop in stops])
    assert (quantiles_ms[:, 0] >= opens_ms - 1e-3).all()


@given(st.floats(0, 0.8), st.integers(4, 40))
@settings(max_examples=40, deadline=None)
def test_more_shared_luck_makes_a_wider_window(share, stops):
    day = [(LEG, DWELL, None)] * stops
    narrow = joined(day, Correlation(share, share, share))
    wide = joined(day, Correlation(share + 0.2, share + 0.2, share + 0.2))
    assert width_s(wide) > width_s(narrow)


def test_the_window_lies_between_independence_and_added_extremes():
    day = [(LEG, DWELL, None)] * 20
    independent, measured, added = (joined(day, Correlation(s, s, s)) for s in (0.0, 0.3, 1.0))
    assert width_s(independent) < width_s(measured) < width_s(added)
    assert width_s(added) == pytest.approx(20 * (150 - 80) + 19 * (300 - 120), rel=0.05)


def test_independent_legs_spread_with_the_root_of_their_number():
    even = (90.0, 100.0, 110.0)
    still = (60.0, 60.0, 60.0)
    assert width_s(joined([(even, still, None)] * 25, Correlation())) == pytest.approx(5 * 20, rel=0.1)


@given(ROWS, st.floats(1, 600))
@settings(max_examples=60, deadline=None)
def test_a_slower_leg_never_brings_anybody_forward(stops, more_s):
    slower = [([quantile + more_s for quantile in stops[0][0]], *stops[0][1:]), *stops[1:]]
    assert (joined(slower).quantiles_ms() >= joined(stops).quantiles_ms() - 1e-3).all()


@given(ROWS, st.integers(0, 30_000), st.integers(1, 5_000))
@settings(max_examples=60, deadline=None)
def test_lateness_falls_with_a_later_limit(stops, first_s, more_s):
    arrivals = joined(stops)
    last = len(arrivals) - 1
    early_ms, late_ms = NOW_MS + 1000 * first_s, NOW_MS + 1000 * (first_s + more_s)
    assert arrivals.late_probability(last, early_ms) >= arrivals.late_probability(last, late_ms)
    assert arrivals.expected_late_s(last, early_ms) >= arrivals.expected_late_s(last, late_ms) >= 0


def test_half_the_scenarios_are_late_against_the_median():
    arrivals = joined([(LEG, DWELL, None)] * 5)
    medians_ms = arrivals.quantiles_ms()[:, 1].round().astype(np.int64)
    assert arrivals.late_probabilities(medians_ms) == pytest.approx([0.5] * 5, abs=0.02)
    assert arrivals.late_probability(2, int(medians_ms[2])) == arrivals.late_probabilities(medians_ms)[2]
    assert arrivals.expected_late_s(4, int(medians_ms[4])) == arrivals.expected_lateness_s(medians_ms)[4]


def test_waiting_for_an_opening_swallows_the_delay_before_it():
    opens_ms = NOW_MS + 3_600_000
    quantiles_ms = joined([(LEG, DWELL, opens_ms), (LEG, DWELL, None)]).quantiles_ms()
    assert quantiles_ms[0].tolist() == [opens_ms] * 3
    assert quantiles_ms[1, 0] > opens_ms


def test_the_same_question_has_the_same_answer():
    day = [(LEG, DWELL, None)] * 9
    assert (joined(day).quantiles_ms() == joined(day).quantiles_ms()).all()


def test_a_longer_round_does_not_change_the_luck_of_its_beginning():
    short, long = joined([(LEG, DWELL, None)] * 5), joined([(LEG, DWELL, None)] * 90)
    assert (short.quantiles_ms() == long.quantiles_ms()[:5]).all()


def test_no_stops_have_no_arrivals():
    nobody = join(NOW_MS, np.empty((0, 3)), np.empty((0, 3)), [], Correlation())
    assert nobody.quantiles_ms().shape == (0, 3)


@pytest.mark.parametrize(
    "wrong", [(3.0, 2.0, 4.0), (-1.0, 2.0, 3.0), (1.0, float("nan"), 3.0), (1.0, 2.0, float("inf"))]
)
def test_quantiles_that_are_none_are_refused_by_name(wrong):
    with pytest.raises(QuantilesOutOfOrder, match="expected 0 <= P10 <= P50 <= P90"):
        joined([(LEG, DWELL, None), (wrong, DWELL, None)])


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="expected"):
        join(NOW_MS, np.array([LEG]), np.array([DWELL]), [None, None], Correlation())


def coverage_after(offset, factor, trips=800, late=20):
    dice = np.random.default_rng(7)
    model_s = np.array([80.0, 100.0, 130.0])
    luck = dice.normal(0, 1, trips)
    actual_s = factor * np.where(luck < 0, 100 * (0.8 ** (-luck / 1.2816)), 100 * 1.3 ** (luck / 1.2816))
    covered = []
    for trip in range(trips):
        if trip >= late:
            offset = offset.learned(model_s, actual_s[trip - late])
        low, _, high = offset.moved(model_s[None])[0]
        covered.append(low <= actual_s[trip] <= high)
    return np.mean(covered[400:]), offset


def test_a_fresh_offset_changes_nothing():
    assert AdaptiveOffset().moved(np.array([[80.0, 100.0, 130.0]]))[0] == pytest.approx([80, 100, 130])


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.25, 2.0])
def test_the_window_covers_again_after_everything_changed_pace(factor):
    covered, offset = coverage_after(AdaptiveOffset(), factor)
    assert 0.75 < covered < 0.85
    assert np.exp(offset.pace) == pytest.approx(factor, rel=0.1)


@given(st.lists(st.tuples(st.lists(st.floats(), min_size=3, max_size=3), st.floats()), max_size=60))
def test_an_offset_stays_bounded_whatever_it_is_told(heard):
    offset = AdaptiveOffset()
    for quantiles_s, actual_s in heard:
        offset = offset.learned(quantiles_s, actual_s)
    moved = offset.moved(np.array([[80.0, 100.0, 130.0]]))[0]
    assert np.isfinite(moved).all()
    assert 10 < moved[0] <= moved[1] <= moved[2] < 2000


@given(st.lists(st.floats(1, 10_000), max_size=100), seconds(*[st.floats(0, 3000)] * 3))
def test_moved_quantiles_stay_in_order(heard, quantiles_s):
    offset = AdaptiveOffset()
    for actual_s in heard:
        offset = offset.learned(quantiles_s, actual_s)
    low, middle, high = offset.moved(np.array([quantiles_s]))[0]
    assert low <= middle <= high


def a_row(stops=6, pause=None, held_up=None, honesty=None):
    legs, dwells = np.array([LEG] * stops), np.array([DWELL] * stops)
    return join(NOW_MS, legs, dwells, [None] * stops, MEASURED, pause, held_up, honesty)


def test_a_break_that_is_due_comes_before_the_next_leg_and_not_into_the_one_under_way():
    plain, free = a_row(), a_row(pause=Pause(1800, 0, 0, is_begun=False))
    begun = a_row(pause=Pause(1800, 0, 0, is_begun=True))
    assert (free.quantiles_ms() - plain.quantiles_ms())[0] == pytest.approx(1_800_000)
    assert (begun.quantiles_ms() - plain.quantiles_ms())[0] == pytest.approx(0)
    assert (begun.quantiles_ms() - plain.quantiles_ms())[1] == pytest.approx(1_800_000)


def test_a_break_that_may_come_any_time_widens_what_lies_between_and_moves_what_lies_behind():
    plain, broken = a_row(12), a_row(12, pause=Pause(1800, 600, 1800, is_begun=True))
    assert width_s(broken) - width_s(plain) < 120
    assert np.diff(broken.quantiles_ms()[5, [0, 2]])[0] > np.diff(plain.quantiles_ms()[5, [0, 2]])[0] + 1_200_000
    assert broken.quantiles_ms()[-1, 1] - plain.quantiles_ms()[-1, 1] == pytest.approx(1_800_000, abs=60_000)


def test_what_holds_a_van_up_once_in_ten_hours_shows_late_in_the_day_and_only_upwards():
    plain, held = a_row(40), a_row(40, held_up=HeldUp(0.1, 600, 1800))
    shift_s = (held.quantiles_ms() - plain.quantiles_ms()) / 1000
    assert (shift_s >= 0).all()
    assert shift_s[0, 2] < 10
    assert shift_s[-1, 2] > 300


def test_honesty_stretches_by_distance_about_the_median_and_every_chance_with_it():
    honesty = Honesty((0, 30), (0, 60), (1, 2), (1, 3))
    plain, honest = a_row(12), a_row(12, honesty=honesty)
    before, after = plain.quantiles_ms()[-1], honest.quantiles_ms()[-1]
    assert after[1] - before[1] == pytest.approx(60_000, abs=2_000)
    assert after[1] - after[0] == pytest.approx(2 * (before[1] - before[0]), rel=0.01)
    assert after[2] - after[1] == pytest.approx(3 * (before[2] - before[1]), rel=0.01)
    assert honest.late_probability(11, round(after[2])) == pytest.approx(0.1, abs=0.01)


@given(ROWS, st.floats(0, 3), st.floats(0, 3), st.floats(-600, 600))
@settings(max_examples=60, deadline=None)
def test_however_much_it_is_stretched_nobody_is_served_before_opening_or_before_now(stops, below, above, shift):
    legs, dwells, opens = zip(*stops, strict=True)
    honesty = Honesty((0, 60), (shift, shift), (below, below), (above, above))
    quantiles_ms = join(NOW_MS, np.array(legs), np.array(dwells), opens, MEASURED, honesty=honesty).quantiles_ms()
    opens_ms = np.array([each or NOW_MS for each in opens])
    assert (quantiles_ms[:, 0] >= np.maximum(opens_ms, NOW_MS) - 1e-3).all()
    assert (np.diff(quantiles_ms, axis=1) >= 0).all()


def test_an_hour_that_is_harder_to_foresee_stretches_every_distance():
    honesty = Honesty((0, 30), (0, 60), (1, 2), (1, 3)).scaled(1.5, 2)
    assert honesty == Honesty((0, 30), (0, 60), (1.5, 3), (2, 6))
