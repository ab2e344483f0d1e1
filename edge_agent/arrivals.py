"""Join the quantiles of legs and dwells into when the van will be where, and how sure that is.

Adding up P90s is too wide, for not everything goes wrong at once; treating legs as independent is too narrow, for a
slow day is slow on every leg. So each duration is split in two: a part the whole day shares and a part of its own, in
the proportion measured on driven days (`Correlation`). The van then drives a few hundred scenarios of the day at once.
They are always the same scenarios, so that a replay and a rival order meet the same luck.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.features import Correlation

SCENARIOS = 512
_HELD_SALT = 1 << 41
_PAUSE_SALT = 1 << 40  # Far from the cells of legs and dwells, so that the break's luck is its own.
P90_DEVIATIONS = 1.2815515655446004  # The standard normal's P90.


class QuantilesOutOfOrder(ValueError):
    """Quantiles that are not P10 <= P50 <= P90, finite and not negative."""


class Pause(NamedTuple):
    """The break still to be taken: it lasts `duration_s` and begins when the driver is between two stops.

    He has it at the first such moment after an instant he likes, which is as likely anywhere from `from_s` to `to_s`
    (seconds from now). `is_begun` says that the first leg is under way already: no break comes before it.
    """

    duration_s: float
    from_s: float
    to_s: float
    is_begun: bool


class HeldUp(NamedTuple):
    """What no model of legs and dwells foresees: so often in an hour of work something takes `from_s` to `to_s`."""

    per_hour: float
    from_s: float
    to_s: float


class Arrivals:
    """Arrival instants at n stops in every scenario, and what follows from them."""

    __slots__ = ("_after_s", "_now_ms")

    def __init__(self, now_ms: int, after_s: NDArray[np.float64]) -> None:
        """`after_s` float64[n, scenarios]: seconds from `now_ms` to the beginning of service at each stop."""
        self._now_ms = now_ms
        self._after_s = after_s

    def __len__(self) -> int:
        return len(self._after_s)

    def quantiles_ms(self) -> NDArray[np.float64]:
        """P10, P50 and P90 of each stop's beginning of service, epoch milliseconds, float64[n, 3]."""
        if not len(self):
            return np.empty((0, 3))
        ordered_s = np.sort(self._after_s, axis=1)
        before, share = np.divmod(np.array((0.1, 0.5, 0.9)) * (SCENARIOS - 1), 1.0)
        below_s, above_s = ordered_s[:, before.astype(int)], ordered_s[:, before.astype(int) + 1]
        return self._now_ms + 1000.0 * (below_s + share * (above_s - below_s))

    def late_probability(self, stop: int, instant_ms: int) -> float:
        """The probability that service at this stop (0 is the next) begins after the instant."""
        return float((self._after_s[stop] > self._seconds_to(instant_ms)).mean())

    def expected_late_s(self, stop: int, instant_ms: int) -> float:
        """Mean seconds by which service at this stop begins after the instant, being early counted as 0."""
        return float(np.maximum(self._after_s[stop] - self._seconds_to(instant_ms), 0.0).mean())

    def late_probabilities(self, instants_ms: NDArray[np.int64]) -> NDArray[np.float64]:
        """The probability of beginning after its own instant for every stop: int64[n] to float64[n]."""
        limits_s = (instants_ms - self._now_ms) / 1000.0
        late: NDArray[np.float64] = (self._after_s > limits_s[:, None]).mean(axis=1)
        return late

    def expected_lateness_s(self, instants_ms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean seconds of beginning after its own instant for every stop: int64[n] to float64[n]."""
        limits_s = (instants_ms - self._now_ms) / 1000.0
        late: NDArray[np.float64] = np.maximum(self._after_s - limits_s[:, None], 0.0).mean(axis=1)
        return late

    def _seconds_to(self, instant_ms: int) -> float:
        return (instant_ms - self._now_ms) / 1000.0


def join(
    now_ms: int,
    legs_s: NDArray[np.floating],
    dwells_s: NDArray[np.floating],
    opens_ms: Sequence[int | None],
    correlation: Correlation,
    pause: Pause | None = None,
    held_up: HeldUp | None = None,
    honesty: "Honesty | None" = None,
) -> Arrivals:
    """When service will begin at each of n stops in their order.

    `legs_s` [n, 3]: P10, P50 and P90 seconds of the drive to each stop, the first from where the van is now; `dwells_s`
    [n, 3]: of the dwell at each stop (the last one is not used); `opens_ms`: the instant before which a stop cannot be
    served and the van waits, None where it never waits; `pause`: the break to come, None when there is none; `held_up`
    and `honesty`: what measurement adds. Raises QuantilesOutOfOrder, and ValueError when lengths differ.
    """
    n = len(opens_ms)
    if legs_s.shape != (n, 3) or dwells_s.shape != (n, 3):
        raise ValueError(
            f"legs {legs_s.shape}, dwells {dwells_s.shape} and {n} openings: expected (n, 3), (n, 3) and n"
        )
    if n == 0:
        return Arrivals(now_ms, np.empty((0, SCENARIOS)))
    legs = _scenarios_of("legs", legs_s, _luck(n, correlation, is_leg=True))
    dwells = _scenarios_of("dwells", dwells_s, _luck(n, correlation, is_leg=False))
    after_s = np.empty((n, SCENARIOS))
    clock = np.zeros(SCENARIOS)
    rests_at_s = _rests_at_s(pause)
    held_s = _held_s(held_up, legs_s, dwells_s)
    for stop, opens in enumerate(opens_ms):
        if pause is not None and (stop or not pause.is_begun):
            rests = clock >= rests_at_s
            if rests.any():
                clock = clock + pause.duration_s * rests
                rests_at_s[rests] = math.inf
        clock = clock + legs[stop] + held_s[stop]
        if opens is not None:
            clock = np.maximum(clock, (opens - now_ms) / 1000.0)
        after_s[stop] = clock
        clock = clock + dwells[stop]
    opening_s = [-math.inf if opens is None else (opens - now_ms) / 1000.0 for opens in opens_ms]
    return Arrivals(now_ms, after_s if honesty is None else honesty.of(after_s, np.array(opening_s)))


class Honesty(NamedTuple):
    """What the joined arrivals leave out, as measured: lorries in the way, slow hours, another order than now shown.

    At `ahead_min` minutes ahead of the median (in between by straight lines) the median moves by `shift_s`, and what
    lies below and above it is stretched by `below` and `above`: split conformal prediction (Vovk, Gammerman, Shafer
    2005) by distance, done to scenarios so that every chance computed from them is stretched alike.
    """

    ahead_min: tuple[float, ...]
    shift_s: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]

    def scaled(self, below: float, above: float) -> "Honesty":
        """The same with everything below and above the median stretched by so much more."""
        return self._replace(
            below=tuple(below * each for each in self.below), above=tuple(above * each for each in self.above)
        )

    def of(self, after_s: NDArray[np.float64], opening_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scenarios float64[n, scenarios] made honest; nobody is served before the opening, float64[n]."""
        middle = np.median(after_s, axis=1)
        ahead_min = middle / 60.0
        shift, below, above = (np.interp(ahead_min, self.ahead_min, each) for each in self[1:])
        away = after_s - middle[:, None]
        away *= np.where(away < 0, below[:, None], above[:, None])
        honest: NDArray[np.float64] = np.maximum((middle + shift)[:, None] + away, opening_s[:, None])
        np.maximum(honest, 0.0, out=honest)
        return honest


def _held_s(
    held_up: HeldUp | None, legs_s: NDArray[np.floating], dwells_s: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Seconds lost on the way to each stop or at the one before, float64[n, scenarios]."""
    n = len(legs_s)
    if held_up is None:
        return np.zeros((n, 1))
    at_work_s = legs_s[:, 1] + np.concatenate([[0.0], dwells_s[:-1, 1]])
    chance = -np.expm1(-held_up.per_hour / 3600 * at_work_s.astype(np.float64))[:, None]
    luck = _evenly(_rounded_up(n), _HELD_SALT)[:n]
    lost_s = held_up.from_s + (held_up.to_s - held_up.from_s) * np.clip(luck / np.maximum(chance, 1e-9), 0.0, 1.0)
    held: NDArray[np.float64] = np.where(luck < chance, lost_s, 0.0)
    return held


def _rests_at_s(pause: Pause | None) -> NDArray[np.float64]:
    """From when on the driver would like his break in every scenario, float64[scenarios]."""
    if pause is None:
        return np.full(SCENARIOS, math.inf)
    liked_s: NDArray[np.float64] = pause.from_s + (pause.to_s - pause.from_s) * _evenly(1, _PAUSE_SALT)[0]
    return liked_s


def _scenarios_of(kind: str, quantiles_s: NDArray[np.floating], luck: NDArray[np.float64]) -> NDArray[np.float64]:
    """Durations float64[n, scenarios] whose P10, P50 and P90 are those given.

    A normal of two halves: below the median it is as wide as P10 says, above it as P90 says; never below 0.
    """
    quantiles = quantiles_s.astype(np.float64)
    low, middle, high = quantiles.T[:, :, None]
    if not (np.isfinite(quantiles).all() and (low >= 0).all() and (low <= middle).all() and (middle <= high).all()):
        wrong = next(row for row in quantiles.tolist() if not 0 <= row[0] <= row[1] <= row[2] < math.inf)
        raise QuantilesOutOfOrder(f"{kind} hold {wrong}, expected 0 <= P10 <= P50 <= P90 in seconds")
    spread = np.where(luck < 0, middle - low, high - middle) / P90_DEVIATIONS
    durations: NDArray[np.float64] = np.maximum(middle + spread * luck, 0.0)
    return durations


def _luck(n: int, correlation: Correlation, is_leg: bool) -> NDArray[np.float64]:
    """Standard normal luck of n durations in every scenario, float64[n, scenarios], correlated through the day's."""
    day, own = _dice(_rounded_up(n))
    shared = correlation.legs if is_leg else correlation.dwells
    shared = min(max(shared, 0.0), 1.0)
    of_day = day[0]
    if not is_leg:
        # The dwells' day follows the legs' as far as a leg and a dwell are correlated at all.
        both = math.sqrt(min(max(correlation.legs, 0.0), 1.0) * shared)
        follow = min(max(correlation.between / both, -1.0), 1.0) if both > 0 else 0.0
        of_day = follow * day[0] + math.sqrt(1 - follow * follow) * day[1]
    mine = own[:n, 0 if is_leg else 1]
    luck: NDArray[np.float64] = math.sqrt(shared) * of_day + math.sqrt(1 - shared) * mine
    return luck


def _rounded_up(n: int) -> int:
    # Few distinct sizes, so that the cached dice of a long day serve its shorter rest.
    return max(32, 1 << (n - 1).bit_length())


@lru_cache(maxsize=4)
def _dice(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luck of the day float64[2, scenarios] and of n legs and dwells, leg by dwell, float64[n, 2, scenarios].

    A Latin hypercube: each row holds the same evenly spread normal scores, shuffled by a hash of its place. So every
    single duration has exactly its own quantiles, and nothing is drawn.
    """
    rows = 2 + 2 * n
    order = np.argsort(_hashed(rows, SCENARIOS), axis=1, kind="stable")
    scores = _normal_scores(SCENARIOS)[order]
    scores.setflags(write=False)
    return scores[:2], scores[2:].reshape(n, 2, SCENARIOS)


@lru_cache(maxsize=8)
def _evenly(rows: int, salt: int) -> NDArray[np.float64]:
    """Evenly spread numbers between 0 and 1, shuffled by a hash in each row: float64[rows, scenarios]."""
    order = np.argsort(_hashed(rows, SCENARIOS, salt), axis=1, kind="stable")
    luck: NDArray[np.float64] = (order + 0.5) / SCENARIOS
    luck.setflags(write=False)
    return luck


def _hashed(rows: int, columns: int, salt: int = 0) -> NDArray[np.uint64]:
    # SplitMix64 (Steele, Lea, Flood 2014) of the cell's number: the same on every machine and NumPy.
    with np.errstate(over="ignore"):
        cell = np.arange(1 + salt, rows * columns + 1 + salt, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        cell = (cell ^ (cell >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        cell = (cell ^ (cell >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: NDArray[np.uint64] = (cell ^ (cell >> np.uint64(31))).reshape(rows, columns)
    return hashed


def _normal_scores(count: int) -> NDArray[np.float64]:
    """The standard normal's quantiles at (i + 0.5) / count, float64[count], scaled to a deviation of exactly 1."""
    half = np.array([_normal_quantile((place + 0.5) / count) for place in range(count // 2, count)])
    scores = np.concatenate([-half[::-1], half])
    deviation = float(np.sqrt((scores * scores).mean()))
    return scores / deviation


def _normal_quantile(probability: float) -> float:
    low, high = 0.0, 9.0
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 * math.erfc(-middle / math.sqrt(2)) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


class AdaptiveOffset(msgspec.Struct, frozen=True):
    """What has been learnt since the model left the workshop: two numbers that keep its quantiles honest.

    `pace` moves all three (log of a factor), `spread` widens or narrows the window (log of a factor on its log width).
    Online quantile tracking as in adaptive conformal inference (Gibbs and Candes, 2021), with steps in proportion to
    the window so that short and long durations teach alike. Truth may arrive late and out of order: each `learned` call
    takes the quantiles as the *model* gave them, not as they were moved at the time.
    """

    pace: float = 0.0
    spread: float = 0.0

    def moved(self, quantiles_s: NDArray[np.floating]) -> NDArray[np.float64]:
        """The quantiles as they should be told now, float64[n, 3] seconds, for the model's [n, 3]."""
        logs = np.log(np.maximum(quantiles_s.astype(np.float64), SHORTEST_S))
        widths = (logs - logs[:, 1:2]) * math.exp(self.spread)
        moved: NDArray[np.float64] = np.exp(logs[:, 1:2] + self.pace + widths)
        return moved

    def learned(self, quantiles_s: Sequence[float], actual_s: float) -> "AdaptiveOffset":
        """The offset after one duration of `actual_s` where the model had said `quantiles_s` (P10, P50, P90).

        Returns itself unchanged when a number is not finite: one broken clock must not move a day.
        """
        if not all(map(math.isfinite, (*quantiles_s, actual_s))):
            return self
        low, middle, high = (math.log(max(quantile, SHORTEST_S)) for quantile in quantiles_s)
        miss = math.log(max(actual_s, SHORTEST_S)) - middle - self.pace
        factor = math.exp(self.spread)
        above, below = max(high - middle, LEAST_LOG_WIDTH), max(middle - low, LEAST_LOG_WIDTH)
        reach = miss / (above if miss > 0 else below) / factor
        is_outside = abs(reach) > 1
        pace = self.pace + PACE_STEP * (above + below) / 2 * factor * min(max(reach, -1.0), 1.0)
        spread = self.spread + SPREAD_STEP * (float(is_outside) - 0.2)
        return AdaptiveOffset(
            min(max(pace, -MOST_PACE), MOST_PACE),
            min(max(spread, -MOST_SPREAD), MOST_SPREAD),
        )


SHORTEST_S = 1.0
LEAST_LOG_WIDTH = 0.02  # A model that claims to know to 2 % is still moved by being wrong.
PACE_STEP = 0.03  # Some forty durations to follow a shift; faster steps make the window wider than they help.
SPREAD_STEP = 0.02
MOST_PACE = math.log(4.0)
MOST_SPREAD = math.log(4.0)
