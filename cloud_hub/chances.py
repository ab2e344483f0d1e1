"""How likely a van comes inside a window, by the three quantiles its agent gives."""

from shared.messages import Estimate
from shared.quantities import TimeWindow

STEP_PCT = 5
"""Nobody is told 87 per cent: three quantiles do not know that much."""


def inside_pct(window: TimeWindow, estimate: Estimate) -> int:
    """Percent, in steps of five, 5 to 95: the distribution is drawn straight between its quantiles and beyond."""
    inside = _share_before(window.closes_ms, estimate) - _share_before(window.opens_ms, estimate)
    return min(95, max(5, STEP_PCT * round(100 * inside / STEP_PCT)))


def _share_before(instant_ms: int, estimate: Estimate) -> float:
    early_ms, late_ms = max(1, estimate.p50_ms - estimate.p10_ms), max(1, estimate.p90_ms - estimate.p50_ms)
    away_ms = instant_ms - estimate.p50_ms
    share = 0.5 + 0.4 * away_ms / (late_ms if away_ms > 0 else early_ms)
    return min(1.0, max(0.0, share))
