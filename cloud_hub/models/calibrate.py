"""Make predicted quantiles keep their word, and say how well they do.

Durations err in proportion, so everything here is done on log seconds: an offset of 0.1 moves every prediction by 10 %.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

LEVELS = (0.1, 0.5, 0.9)
"""P10, P50 and P90: the 80 % window and its middle."""


class TooFewToCalibrate(ValueError):
    """Fewer observations than a P10 can be read from."""


class Scores(msgspec.Struct, frozen=True):
    """How good quantiles were on durations not seen before; pinball, error and width in the unit of the durations."""

    rows: int
    pinball: float
    mean_abs_error: float
    coverage_percent: float
    width: float
    below_p10_percent: float
    above_p90_percent: float


def conformal_offsets(log_actual: NDArray[np.float64], log_quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The float64[3] to add to log quantiles so that each holds its level on a calibration split.

    `log_actual` float64[n] and `log_quantiles` float64[n, 3] come from rows the model was not trained on. The ranks are
    split-conformal (Romano, Patterson, Candes: Conformalized Quantile Regression, 2019, one side at a time): counted in
    n + 1, outwards. Raises TooFewToCalibrate under 20 rows, where a P10 would be the smallest or second smallest row.
    """
    n = len(log_actual)
    if n < 20:
        raise TooFewToCalibrate(f"{n} rows to calibrate on, expected at least 20: give more trips or days")
    misses = np.sort(log_actual[:, None] - log_quantiles, axis=0)
    ranks = (math.floor(LEVELS[0] * (n + 1)), round(LEVELS[1] * (n + 1)), math.ceil(LEVELS[2] * (n + 1)))
    return np.array([misses[min(max(rank, 1), n) - 1, column] for column, rank in enumerate(ranks)])


def pinball(actual: NDArray[np.float64], quantiles: NDArray[np.float64]) -> float:
    """Mean pinball loss of P10, P50 and P90 (Koenker and Bassett, 1978), in the unit of `actual` float64[n]."""
    over = actual[:, None] - quantiles
    levels = np.array(LEVELS)
    return float(np.maximum(levels * over, (levels - 1) * over).mean())


def covered(actual: NDArray[np.float64], quantiles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of `actual` float64[n] lie between P10 and P90, ends included."""
    return (quantiles[:, 0] <= actual) & (actual <= quantiles[:, 2])


def scores(actual: NDArray[np.float64], quantiles: NDArray[np.float64]) -> Scores:
    """Every score of `quantiles` float64[n, 3] against `actual` float64[n]."""
    return Scores(
        rows=len(actual),
        pinball=pinball(actual, quantiles),
        mean_abs_error=float(np.abs(actual - quantiles[:, 1]).mean()),
        coverage_percent=100 * float(covered(actual, quantiles).mean()),
        width=float((quantiles[:, 2] - quantiles[:, 0]).mean()),
        below_p10_percent=100 * float((actual < quantiles[:, 0]).mean()),
        above_p90_percent=100 * float((actual > quantiles[:, 2]).mean()),
    )
