"""How long a link waits before it tries again: soon at first, seldom later, and no two alike."""

from hypothesis import given
from hypothesis import strategies as st

from shared.mqtt import LONGEST_PAUSE_S, SOON_S, pause_s

DRAWS = st.floats(0, 1, exclude_max=True)


@given(st.floats(0, SOON_S, exclude_max=True), DRAWS)
def test_in_the_first_minute_it_tries_about_twice_a_second(away_s: float, draw: float) -> None:
    assert 0.1 <= pause_s(away_s, draw) <= 1.1


@given(st.floats(SOON_S, 10**6), DRAWS)
def test_later_it_waits_longer_and_never_more_than_half_a_minute(away_s: float, draw: float) -> None:
    assert 0.5 <= pause_s(away_s, draw) <= LONGEST_PAUSE_S


@given(st.floats(SOON_S, 10**6), st.floats(0, 10**5), DRAWS)
def test_the_longer_away_the_longer_the_pause(away_s: float, longer_s: float, draw: float) -> None:
    assert pause_s(away_s + longer_s, draw) >= pause_s(away_s, draw)


@given(st.floats(0, 10**6))
def test_a_fleet_does_not_return_in_step(away_s: float) -> None:
    pauses = [pause_s(away_s, k / 10) for k in range(10)]
    assert len(set(pauses)) == 10
    assert pauses[-1] >= 1.5 * pauses[0]


def test_an_hour_away_is_an_attempt_every_twenty_seconds() -> None:
    assert pause_s(3600, 0.5) == 22.5
