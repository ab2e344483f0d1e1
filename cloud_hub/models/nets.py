"""Fit a few small neural nets side by side that give three quantiles at once.

Trees are sharp and jagged, nets are smooth and vague: their mean beats both (docs/decisions/0002). Plain NumPy is
enough for a few thousand weights, so that training needs no deep-learning library.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud_hub.models.calibrate import LEVELS

LEAK = 0.01  # Slope of a LeakyReLU below zero: ONNX's own default.
FARTHEST = 5.0  # Inputs are clipped at 5 deviations: a net must not extrapolate to a trip as long as the country.


@dataclass(frozen=True, slots=True)
class NetRecipe:
    """How nets are trained: hidden widths, decoupled weight decay, passes over the rows, batch, learning rate.

    `stress` weighs a row by the `stress`-th power of its predicted duration: 0 scores proportions, 1 scores minutes.
    Not tried with fewer than `least_rows` rows to train on.
    """

    hidden: tuple[int, int] = (48, 24)
    weight_decay: float = 1.0
    passes: int = 90
    batch: int = 128
    learning_rate: float = 3e-3
    stress: float = 0.3
    most_steps: int = 12_000
    least_rows: int = 0


@dataclass(frozen=True, slots=True)
class Nets:
    """K nets of one shape, their weights stacked: `weights[l]` float64[K, in, out], `biases[l]` float64[K, 1, out]."""

    centre: NDArray[np.float64]
    inverse_scale: NDArray[np.float64]
    weights: tuple[NDArray[np.float64], ...]
    biases: tuple[NDArray[np.float64], ...]

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean over the nets of their three quantiles, float64[n, 3], for float32[n, k] rows."""
        signal: NDArray[np.float64] = _standard(rows, self.centre, self.inverse_scale)[None]
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            signal = signal @ weight + bias
            if layer < last:
                signal = np.maximum(signal, LEAK * signal)
        mean: NDArray[np.float64] = signal.mean(axis=0)
        return mean


def fit_nets(rows: NDArray[np.float32], target: NDArray[np.float64], recipe: NetRecipe, seeds: tuple[int, ...]) -> Nets:
    """Nets that give the quantiles of `target` float64[n] (log durations), one for each seed.

    Trained by Adam on the pinball loss, whose corner is rounded over a twentieth of the target's spread so that the
    gradient settles.
    """
    centre, scale = _middle_and_scale(rows)
    inverse_scale = 1 / scale
    inputs = _standard(rows, centre, inverse_scale)
    middle = np.quantile(target, LEVELS)
    spread = max(float(middle[2] - middle[0]) / 2.56, 1e-3)
    truth = (target - middle[1]) / spread
    start = (middle - middle[1]) / spread
    weights, biases = _descend(inputs, truth, start, recipe, recipe.stress * spread, seeds)
    # The target was shrunk to one deviation to train on; the last layer carries it back to log seconds.
    weights[-1] = weights[-1] * spread
    biases[-1] = biases[-1] * spread + middle[1]
    return Nets(centre, inverse_scale, tuple(weights), tuple(biases))


def _middle_and_scale(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each column, its outermost percents pulled in: one trip to the moon flattens no city."""
    table = rows.astype(np.float64)
    low, high = np.quantile(table, (0.01, 0.99), axis=0)
    tamed = np.clip(table, low, high)
    # A flag that is set in less than a hundredth of rows is constant once tamed, and keeps its own deviation.
    deviation = np.where(tamed.std(axis=0) > 1e-6, tamed.std(axis=0), table.std(axis=0))
    return tamed.mean(axis=0), np.where(deviation > 1e-6, deviation, 1.0)


def _standard(
    rows: NDArray[np.float32], centre: NDArray[np.float64], inverse_scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.clip((rows - centre) * inverse_scale, -FARTHEST, FARTHEST)


def _descend(
    inputs: NDArray[np.float64],
    truth: NDArray[np.float64],
    start: NDArray[np.float64],
    recipe: NetRecipe,
    stress: float,
    seeds: tuple[int, ...],
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    nets, n = len(seeds), len(truth)
    dice = [np.random.default_rng(seed) for seed in seeds]
    widths = (inputs.shape[1], *recipe.hidden, len(LEVELS))
    weights = [
        _drawn(dice, width, widths[layer + 1], layer == len(widths) - 2) for layer, width in enumerate(widths[:-1])
    ]
    biases = [np.zeros((nets, 1, width)) for width in widths[1:]]
    biases[-1] += start
    batch = min(recipe.batch, n)
    steps = max(1, min(recipe.passes * (n // batch), recipe.most_steps))
    adam = _Adam(weights, biases, recipe.weight_decay)
    shuffled = np.empty((nets, 0), dtype=np.intp)
    for step in range(steps):
        if shuffled.shape[1] < batch:
            shuffled = np.stack([die.permutation(n) for die in dice])
        chosen, shuffled = shuffled[:, :batch], shuffled[:, batch:]
        slopes = _slopes(inputs[chosen], truth[chosen], weights, biases, stress)
        adam.step(slopes, recipe.learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps)))
    return weights, biases


def _drawn(dice: list[np.random.Generator], fan_in: int, fan_out: int, is_last: bool) -> NDArray[np.float64]:
    # He initialisation; the last layer starts small, near the constant quantiles.
    deviation = np.sqrt(2 / fan_in) * (0.1 if is_last else 1.0)
    return np.stack([die.normal(0, deviation, (fan_in, fan_out)) for die in dice])


def _slopes(
    inputs: NDArray[np.float64],
    truth: NDArray[np.float64],
    weights: list[NDArray[np.float64]],
    biases: list[NDArray[np.float64]],
    stress: float,
) -> list[NDArray[np.float64]]:
    """The gradient of the rounded pinball loss by every weight, then by every bias."""
    signals = [inputs]
    last = len(weights) - 1
    for layer in range(last + 1):
        signal = signals[-1] @ weights[layer] + biases[layer]
        signals.append(signal if layer == last else np.maximum(signal, LEAK * signal))
    quantiles = signals[-1]
    beyond = np.clip((truth[..., None] - quantiles) / 0.06, -1, 1) / 2 + 0.5
    slope = (1 - np.array(LEVELS) - beyond) * np.exp(stress * np.clip(quantiles, -FARTHEST, FARTHEST)) / inputs.shape[1]
    by_weight: list[NDArray[np.float64]] = []
    by_bias: list[NDArray[np.float64]] = []
    for layer in range(last, -1, -1):
        by_weight.append(signals[layer].transpose(0, 2, 1) @ slope)
        by_bias.append(slope.sum(axis=1, keepdims=True))
        if layer:
            slope = slope @ weights[layer].transpose(0, 2, 1)
            slope = np.where(signals[layer] > 0, slope, LEAK * slope)
    return by_weight[::-1] + by_bias[::-1]


class _Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), in place; biases do not decay."""

    def __init__(self, weights: list[NDArray[np.float64]], biases: list[NDArray[np.float64]], decay: float) -> None:
        self.arrays = weights + biases
        self.decays = [decay] * len(weights) + [0.0] * len(biases)
        self.first = [np.zeros_like(array) for array in self.arrays]
        self.second = [np.zeros_like(array) for array in self.arrays]
        self.steps = 0

    def step(self, slopes: list[NDArray[np.float64]], rate: float) -> None:
        self.steps += 1
        warm_first, warm_second = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        for place, slope in enumerate(slopes):
            first, second, array = self.first[place], self.second[place], self.arrays[place]
            first += 0.1 * (slope - first)
            second += 0.001 * (slope * slope - second)
            moved = first / warm_first / (np.sqrt(second / warm_second) + 1e-8) + self.decays[place] * array
            array -= rate * moved
