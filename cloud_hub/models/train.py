"""Fit a blend of gradient-boosted trees and small nets that gives three quantiles of a duration.

Both learn the log of the duration, or of its ratio to a baseline in seconds when the rows carry one (the map's travel
time, the planned service time). What they look like is chosen on the last fifth of the training rows, in time order;
calibration and test rows are never looked at.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import lightgbm
import numpy as np
from numpy.typing import NDArray

from cloud_hub.models.calibrate import LEVELS, conformal_offsets, pinball
from cloud_hub.models.nets import NetRecipe, Nets, fit_nets


class TooFewToTrain(ValueError):
    """Fewer rows than a model can be chosen and fitted on."""


@dataclass(frozen=True, slots=True)
class TreeRecipe:
    """How trees are grown. The number of rounds is chosen on held-back rows, at most `most_rounds`.

    Not tried with fewer than `least_rows` rows to train on: the more is tried, the more chance decides.
    """

    leaves: int = 12
    least_in_leaf: int = 60
    learning_rate: float = 0.08
    ridge: float = 10.0
    most_rounds: int = 600
    least_rows: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to fit: named columns, which of them trees and nets see, and which is the baseline in seconds, if any.

    `rising` names tree columns along which the duration may only grow. A leaf costs 24 bytes of graph, so `most_leaves`
    keeps a model under 1 MB: when a forest is large, fewer of `tree_seeds` are grown.
    """

    columns: tuple[str, ...]
    tree_columns: tuple[str, ...]
    net_columns: tuple[str, ...]
    baseline: str | None = None
    trees: tuple[TreeRecipe, ...] = (
        TreeRecipe(),
        TreeRecipe(leaves=24, least_in_leaf=100, most_rounds=200),
        TreeRecipe(leaves=48, least_in_leaf=100, learning_rate=0.1, most_rounds=220, least_rows=30_000),
    )
    nets: tuple[NetRecipe, ...] = (
        NetRecipe(),
        NetRecipe(weight_decay=0.3),
        NetRecipe(hidden=(64, 32), weight_decay=0.1, least_rows=30_000),
    )
    net_shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    tree_seeds: tuple[int, ...] = (1, 2, 3)
    net_seeds: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    most_leaves: int = 32_000
    rising: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Blend:
    """A fitted model: forests of one booster for each level, whose mean is taken, and nets.

    `offsets` are the conformal ones in log seconds, zero until calibrated.
    """

    recipe: Recipe
    base_log: float
    forests: tuple[tuple[lightgbm.Booster, ...], ...]
    nets: Nets
    net_share: float
    offsets: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def raw_log(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log seconds float64[n, 3] before conformal offsets and sorting, for float32[n, k] rows."""
        trees = _trees_predict(self.forests, _of(rows, self.recipe.columns, self.recipe.tree_columns))
        nets = self.nets.predict(_of(rows, self.recipe.columns, self.recipe.net_columns))
        blended = (1 - self.net_share) * trees + self.net_share * nets
        return blended + self.base_log + baseline_log(self.recipe, rows)[:, None]

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """P10, P50 and P90 in seconds, float64[n, 3], in order, for float32[n, k] rows."""
        quantiles_s: NDArray[np.float64] = np.exp(np.sort(self.raw_log(rows) + np.array(self.offsets), axis=1))
        return quantiles_s

    def calibrated(self, rows: NDArray[np.float32], actual_s: NDArray[np.float64]) -> "Blend":
        """This blend with conformal offsets from rows it was not trained on. Raises TooFewToCalibrate."""
        low, middle, high = conformal_offsets(np.log(actual_s), self.raw_log(rows))
        return replace(self, offsets=(float(low), float(middle), float(high)))


def fit_blend(
    rows: NDArray[np.float32],
    actual_s: NDArray[np.float64],
    recipe: Recipe,
    told: Callable[[str], None] = lambda _: None,
) -> Blend:
    """A blend fitted to `actual_s` float64[n] (seconds, > 0) in time order; `told` hears of each step in a few words.

    Raises TooFewToTrain under 200 rows. One thread; the same rows give the same blend.
    """
    if len(rows) < 200:
        raise TooFewToTrain(f"{len(rows)} rows to train on, expected at least 200: give more trips or days")
    baseline = baseline_log(recipe, rows)
    log_target = np.log(actual_s) - baseline
    base_log = float(np.median(log_target))
    target = log_target - base_log
    seen = _of(rows, recipe.columns, recipe.tree_columns)
    felt = _of(rows, recipe.columns, recipe.net_columns)
    cut = int(len(rows) * 0.8)
    scale = base_log + baseline[cut:]

    def loss(log_quantiles: NDArray[np.float64]) -> float:
        return pinball(actual_s[cut:], np.exp(np.sort(log_quantiles, axis=1) + scale[:, None]))

    def doubted(share: float) -> float:
        # Halves are best on average; a fifth of the rows must say otherwise by half a percent for each quarter.
        return 1 + 0.02 * abs(share - 0.5)

    rising = tuple(int(column in recipe.rising) for column in recipe.tree_columns)
    told("choosing trees")
    tree_recipes = [tree for tree in recipe.trees if tree.least_rows <= len(rows)]
    net_recipes = [net for net in recipe.nets if net.least_rows <= len(rows)]
    grown = [_grow_with_early_stop(seen, target, cut, tree, rising) for tree in tree_recipes]
    tried = [_trees_predict((boosters,), seen[cut:]) for boosters in grown]
    best_tree = min(range(len(grown)), key=lambda index: loss(tried[index]))
    told("choosing nets")
    half_the_nets = recipe.net_seeds[: max(1, len(recipe.net_seeds) // 2)]
    felt_out = [fit_nets(felt[:cut], target[:cut], net, half_the_nets).predict(felt[cut:]) for net in net_recipes]
    best_net, share = min(
        ((index, share) for index in range(len(felt_out)) for share in recipe.net_shares),
        key=lambda pair: doubted(pair[1]) * loss((1 - pair[1]) * tried[best_tree] + pair[1] * felt_out[pair[0]]),
    )
    told("growing trees")
    # A quarter more rows carry about a tenth more rounds before they overfit.
    chosen = tree_recipes[best_tree]
    rounds = [min(max(1, round(1.1 * booster.current_iteration())), chosen.most_rounds) for booster in grown[best_tree]]
    affordable = max(1, recipe.most_leaves // (sum(rounds) * chosen.leaves))
    forests = tuple(
        tuple(
            _grow(seen, target, _settings(level, chosen, rising, seed), rounds[index])
            for index, level in enumerate(LEVELS)
        )
        for seed in recipe.tree_seeds[:affordable]
    )
    told("training nets")
    nets = fit_nets(felt, target, net_recipes[best_net], recipe.net_seeds)
    return Blend(recipe, base_log, forests, nets, share)


def baseline_log(recipe: Recipe, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log of the baseline column, float64[n], zeros when there is none. Raises ValueError unless all are positive."""
    if recipe.baseline is None:
        return np.zeros(len(rows))
    baseline_s = rows[:, recipe.columns.index(recipe.baseline)].astype(np.float64)
    if len(baseline_s) and baseline_s.min() <= 0:
        raise ValueError(f"{recipe.baseline} is {baseline_s.min():g} in some row, expected seconds above 0")
    return np.log(baseline_s)


def _of(rows: NDArray[np.float32], columns: tuple[str, ...], wanted: tuple[str, ...]) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows[:, [columns.index(name) for name in wanted]])


def _trees_predict(forests: tuple[tuple[lightgbm.Booster, ...], ...], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    said = [
        np.column_stack([np.asarray(booster.predict(rows, num_threads=1), dtype=np.float64) for booster in boosters])
        for boosters in forests
    ]
    mean: NDArray[np.float64] = np.mean(said, axis=0)
    return mean


def _grow_with_early_stop(
    rows: NDArray[np.float32], target: NDArray[np.float64], cut: int, recipe: TreeRecipe, rising: tuple[int, ...]
) -> tuple[lightgbm.Booster, ...]:
    grown = []
    for level in LEVELS:
        train = lightgbm.Dataset(rows[:cut], target[:cut])
        held_back = lightgbm.Dataset(rows[cut:], target[cut:], reference=train)
        booster = lightgbm.train(
            _settings(level, recipe, rising, seed=1),
            train,
            recipe.most_rounds,
            valid_sets=[held_back],
            callbacks=[lightgbm.early_stopping(60, verbose=False)],
        )
        # Keep the rounds up to the best one only.
        grown.append(lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration)))
    return tuple(grown)


def _grow(
    rows: NDArray[np.float32], target: NDArray[np.float64], settings: dict[str, object], rounds: int
) -> lightgbm.Booster:
    return lightgbm.train(settings, lightgbm.Dataset(rows, target), rounds)


def _settings(level: float, recipe: TreeRecipe, rising: tuple[int, ...], seed: int) -> dict[str, object]:
    return {
        "objective": "quantile",
        "alpha": level,
        "metric": "quantile",
        "learning_rate": recipe.learning_rate,
        "num_leaves": recipe.leaves,
        "min_data_in_leaf": recipe.least_in_leaf,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": recipe.ridge,
        "monotone_constraints": list(rising) if any(rising) else None,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "seed": 100 * seed + math.floor(level * 100),
        "verbose": -1,
    }
