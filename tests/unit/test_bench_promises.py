"""The bench's own arithmetic: a stretch that is fitted holds what it promises, and leaves alone what holds already."""

import numpy as np

from edge_agent.outlook import ABOVE_BY_HOUR, BELOW_BY_HOUR, HONESTY
from shared.costs import Costs
from shared.reckoning import Interventions, reckon
from tests.bench.promises import DayFound, Sample, Stretch, bands, fitted, refitted

HOUR_MS = 3_600_000


def day_with(spread_of_its_width: float) -> DayFound:
    """Samples all over the day whose arrivals spread so many times as wide as was expected of them."""
    luck = np.random.default_rng(7)
    samples = []
    for _ in range(20_000):
        at_ms = round(luck.uniform(7, 14) * HOUR_MS)
        ahead_ms = round(luck.uniform(2, 300) * 60_000)
        side_ms = 60_000 + ahead_ms // 10
        miss_ms = round(spread_of_its_width * side_ms / 1.2816 * luck.standard_normal())
        p50_ms = at_ms + ahead_ms
        hour = at_ms // HOUR_MS
        samples.append(Sample("v", hour, at_ms, p50_ms - side_ms, p50_ms, p50_ms + side_ms, p50_ms + miss_ms, 0))
    nothing = reckon((), (), Interventions(), Costs(), 0)
    return DayFound(1, (), tuple(samples), {}, {}, nothing, nothing, 0, 0.0)


def test_a_fitted_stretch_holds_eight_in_ten_at_every_hour_and_distance() -> None:
    days = [day_with(2.0)]
    assert max(band.gap for band in bands(days)) < -20
    assert max(abs(band.gap) for band in bands(refitted(days, fitted(days))) if band.count > 1_000) < 3


def test_what_held_already_stays_as_wide_as_it_was() -> None:
    days = [day_with(1.0)]
    was = {"below": Stretch(HONESTY.below, BELOW_BY_HOUR), "above": Stretch(HONESTY.above, ABOVE_BY_HOUR)}
    ahead, hour = np.array([30.0, 120.0]), np.array([9.0, 11.0])
    found = fitted(days)
    for side in ("below", "above"):
        assert np.allclose(found[side].at(ahead, hour), was[side].at(ahead, hour), rtol=0.12)
