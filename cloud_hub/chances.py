"""How likely a van comes when: one distribution through the three quantiles its agent gives.

It is a normal of two halves, for vans are late by more than they are early. Windows are told and moved by it, and
customers are told by it how sure their window is.
"""

import math
from statistics import NormalDist

import msgspec

from shared.messages import Estimate
from shared.quantities import EpochMs, TimeWindow

P90_DEVIATIONS = NormalDist().inv_cdf(0.9)

NARROWEST_MS = 60_000
"""No half is narrower than a minute, whatever an agent is sure of."""

STEP_PCT = 5
"""Nobody is told 87 per cent: three quantiles do not know that much."""


def chance_before(estimate: Estimate, instant_ms: int) -> float:
    """The chance that service begins before this instant, 0 to 1."""
    away_ms = instant_ms - estimate.p50_ms
    reach_ms = estimate.p90_ms - estimate.p50_ms if away_ms > 0 else estimate.p50_ms - estimate.p10_ms
    return 0.5 * math.erfc(-away_ms / max(reach_ms, NARROWEST_MS) * P90_DEVIATIONS / math.sqrt(2))


def inside_pct(window: TimeWindow, estimate: Estimate) -> int:
    """Percent of cases inside the window, in steps of five, 5 to 95."""
    inside = chance_before(estimate, window.closes_ms) - chance_before(estimate, window.opens_ms)
    return min(95, max(5, STEP_PCT * round(100 * inside / STEP_PCT)))


def at_share(estimate: Estimate, share: float) -> Estimate:
    """The estimate with its outer quantiles moved so that they hold this share instead of eight cases in ten."""
    by = NormalDist().inv_cdf(0.5 + share / 2) / P90_DEVIATIONS
    low, high = estimate.p50_ms - estimate.p10_ms, estimate.p90_ms - estimate.p50_ms
    return msgspec.structs.replace(
        estimate,
        p10_ms=EpochMs(estimate.p50_ms - round(by * low)),
        p90_ms=EpochMs(estimate.p50_ms + round(by * high)),
    )
