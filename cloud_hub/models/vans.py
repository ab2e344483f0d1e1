"""Train the van models on days the simulator has driven, and write them with the card the agent checks them by.

The days that train, calibrate and test are ranges of seeds that do not overlap. A van foresees its whole round with the
pace it knows now, so rows learn from a pace that is up to fifteen legs old, as on board.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud_hub.models.calibrate import LEVELS, pinball, scores
from cloud_hub.models.graph import check_fidelity, graph_of, sha256_of
from cloud_hub.models.nets import NetRecipe
from cloud_hub.models.train import Blend, Recipe, TreeRecipe, fit_blend
from shared.features import (
    LEG_COLUMNS,
    STOP_COLUMNS,
    Correlation,
    FeatureOutOfRange,
    LegSeen,
    ModelCard,
    ModelFigures,
    StopSeen,
    TrainedCard,
    leg_rows,
    stop_rows,
)

TRAIN_SEEDS = range(240)
CALIBRATE_SEEDS = range(240, 300)
TEST_SEEDS = range(300, 400)

PACE_AGES = (0, 1, 3, 7, 15)  # In legs or stops: what a van knows of the next leg, and of one an hour or two away.
SHORTEST_S = 1.0
HOUR_MS = 3_600_000
ORIGINS_H = (0.0, 1.0, 2.0, 3.0, 4.0)
HORIZON_H = 3.0
"""Shared luck is measured over the next three hours, as seen at the start of a round and every hour after it."""

Luck = dict[tuple[int, str, float], NDArray[np.float64]]
"""Deviations of what lay ahead of one van, float64[..]: by day, van and the hours since its round began."""

LEG_RECIPE = Recipe(
    columns=LEG_COLUMNS,
    # Not metres: a plan on board carries seconds only, and what a model cannot have there it must not lean on here.
    tree_columns=("map_s", "hour_of_day", "weekday", "log_pace", "is_stem"),
    net_columns=("log_map_s", "map_s", "hour_of_day", "hour_sin", "hour_cos", "is_weekend", "log_pace", "is_stem"),
    baseline="map_s",
    trees=(TreeRecipe(leaves=8, learning_rate=0.05, most_rounds=250), TreeRecipe(most_rounds=150)),
    nets=(NetRecipe(hidden=(24, 12), weight_decay=0.3, passes=30, batch=256),),
    tree_seeds=(1,),
    net_seeds=(1, 2, 3),
)
STOP_RECIPE = Recipe(
    columns=STOP_COLUMNS,
    tree_columns=(
        *(name for name in STOP_COLUMNS if not name.startswith(("log_planned", "hour_"))),
        "hour_of_day",
    ),
    net_columns=tuple(name for name in STOP_COLUMNS if name != "same_door_index"),
    baseline="planned_service_s",
    trees=(TreeRecipe(leaves=8, learning_rate=0.05, most_rounds=250), TreeRecipe(most_rounds=150)),
    nets=(NetRecipe(hidden=(24, 12), weight_decay=0.3, passes=30, batch=256),),
    tree_seeds=(1,),
    net_seeds=(1, 2, 3),
)


class DaysUnreadable(ValueError):
    """A table of driven days cannot be used; the message says which file, line or seeds and what was expected."""


@dataclass(frozen=True, slots=True)
class Driven:
    """What was seen and what it took, row by row in the order driven: rows float32[n, k], seconds float64[n].

    `days` int64[n] are seeds; `rounds` names the day and van of each row, `began_ms` int64[n] when it began, `log_pace`
    float64[n] the pace known just then (the rows' own may be older).
    """

    rows: NDArray[np.float32]
    actual_s: NDArray[np.float64]
    days: NDArray[np.int64]
    rounds: tuple[tuple[int, str], ...]
    began_ms: NDArray[np.int64]
    log_pace: NDArray[np.float64]

    def of(self, seeds: range) -> "Driven":
        """The rows of these days. Raises DaysUnreadable when there are none."""
        chosen = np.flatnonzero((self.days >= seeds.start) & (self.days < seeds.stop))
        if not len(chosen):
            raise DaysUnreadable(
                f"no rows of the days {_named(seeds)}; the tables hold {_span(self.days)}: drive all days from "
                f"{TRAIN_SEEDS.start} to {TEST_SEEDS.stop}, as in `firmware-sim drive-days --seeds 0:{TEST_SEEDS.stop}`"
            )
        return self.at(chosen)

    def at(self, places: NDArray[np.intp]) -> "Driven":
        """The rows at these places."""
        return Driven(
            self.rows[places],
            self.actual_s[places],
            self.days[places],
            tuple(self.rounds[place] for place in places.tolist()),
            self.began_ms[places],
            self.log_pace[places],
        )


def train_vans(days: Path, out: Path, told: Callable[[str], None] = lambda _: None) -> TrainedCard:
    """Train on `legs.csv` and `stops.csv` in `days`; write legs.onnx, stops.onnx and card.json into `out`.

    Raises DaysUnreadable, TooFewToTrain, TooFewToCalibrate and GraphUnfaithful. The same tables give the same files.
    """
    legs, stops = read_legs(days / "legs.csv"), read_stops(days / "stops.csv")
    leg_blend, leg_graph, leg_card = _trained("legs", legs, LEG_RECIPE, told)
    stop_blend, stop_graph, stop_card = _trained("stops", stops, STOP_RECIPE, told)
    told("measuring how a day's luck is shared")
    card = TrainedCard(
        train_seeds=_named(TRAIN_SEEDS),
        calibrate_seeds=_named(CALIBRATE_SEEDS),
        test_seeds=_named(TEST_SEEDS),
        legs=leg_card,
        stops=stop_card,
        correlation=shared_luck(
            _luck(leg_blend, legs.of(CALIBRATE_SEEDS), "log_pace"),
            _luck(stop_blend, stops.of(CALIBRATE_SEEDS), "log_dwell_pace"),
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "legs.onnx").write_bytes(leg_graph)
    (out / "stops.onnx").write_bytes(stop_graph)
    (out / "card.json").write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    return card


def read_legs(path: Path) -> Driven:
    """The table of legs, with paces as old as on board. Raises DaysUnreadable."""
    table = _table(
        path, ("day_seed", "van", "departed_ms", "map_s", "metres", "hour", "weekday", "pace", "is_stem", "driven_s")
    )
    rounds = _rounds(table)
    paces = _aged(table["pace"], rounds)

    def seen(place: int) -> LegSeen:
        return LegSeen(
            map_s=float(table["map_s"][place]),
            metres=float(table["metres"][place]),
            hour_of_day=float(table["hour"][place]),
            weekday=int(table["weekday"][place]),
            pace=paces[place],
            is_stem=table["is_stem"][place] == "1",
        )

    return _driven(path, table, rounds, lambda places: leg_rows(map(seen, places)), ("departed_ms", "pace", "driven_s"))


def read_stops(path: Path) -> Driven:
    """The table of stops, with dwell paces as old as on board. Raises DaysUnreadable."""
    names = (
        *("day_seed", "van", "arrived_ms", "service", "parcels", "litres", "floor", "has_lift", "is_business"),
        *("same_door_index", "hour", "weekday", "dwell_pace", "planned_service_s", "dwell_s", "outcome"),
    )
    table = _table(path, names)
    rounds = _rounds(table)
    paces = _aged(table["dwell_pace"], rounds)

    def seen(place: int) -> StopSeen:
        return StopSeen(
            planned_service_s=float(table["planned_service_s"][place]),
            service=table["service"][place],  # type: ignore[arg-type]  # stop_rows refuses an unknown one by name.
            parcels=int(table["parcels"][place]),
            litres=float(table["litres"][place]),
            floor=int(table["floor"][place]),
            has_lift=table["has_lift"][place] == "1",
            is_business=table["is_business"][place] == "1",
            same_door_index=int(table["same_door_index"][place]),
            hour_of_day=float(table["hour"][place]),
            dwell_pace=paces[place],
        )

    return _driven(
        path, table, rounds, lambda places: stop_rows(map(seen, places)), ("arrived_ms", "dwell_pace", "dwell_s")
    )


def shared_luck(legs: Luck, dwells: Luck) -> Correlation:
    """How much of their luck the legs and dwells ahead of a van share.

    The mean product over all pairs of what lay ahead at one instant, by moments as Fisher's intraclass correlation
    (1925), but in units of the predicted spread and not of the luck's own deviation: tails are heavier than the
    quantiles tell, and it is sums of those quantiles that are to hold. Below 0 counts as 0, for a slow leg does not
    make the next one fast.
    """
    leg_shared, dwell_shared = _shared_within(legs), _shared_within(dwells)
    both = sorted(set(legs) & set(dwells))
    pairs = sum(len(legs[one]) * len(dwells[one]) for one in both)
    between = sum(float(legs[one].sum() * dwells[one].sum()) for one in both) / max(pairs, 1)
    limit = math.sqrt(leg_shared * dwell_shared)
    return Correlation(round(leg_shared, 3), round(dwell_shared, 3), round(min(max(between, -limit), limit), 3))


def _trained(kind: str, driven: Driven, recipe: Recipe, told: Callable[[str], None]) -> tuple[Blend, bytes, ModelCard]:
    train, calibrate, test = driven.of(TRAIN_SEEDS), driven.of(CALIBRATE_SEEDS), driven.of(TEST_SEEDS)
    blend = fit_blend(train.rows, train.actual_s, recipe, told=lambda what: told(f"{kind}: {what}"))
    blend = blend.calibrated(calibrate.rows, calibrate.actual_s)
    graph = graph_of(
        blend, {"kind": kind, "train_seeds": _named(TRAIN_SEEDS), "calibrate_seeds": _named(CALIBRATE_SEEDS)}
    )
    difference_s = 60 * check_fidelity(blend, graph, driven.rows)
    found = scores(test.actual_s, blend.predict(test.rows))
    figures = ModelFigures(
        rows=found.rows,
        pinball_s=round(found.pinball, 2),
        pinball_plan_s=round(_plan_pinball(train, test, recipe), 2),
        mean_abs_error_s=round(found.mean_abs_error, 2),
        coverage_percent=round(found.coverage_percent, 1),
        width_s=round(found.width, 1),
        onnx_max_diff_s=float(f"{difference_s:.2g}"),
        model_kb=round(len(graph) / 1024, 1),
    )
    return blend, graph, ModelCard(f"{kind}.onnx", sha256_of(graph), recipe.columns, figures)


def _plan_pinball(train: Driven, test: Driven, recipe: Recipe) -> float:
    # The rival without a model: the plan's own seconds times the training days' quantiles of actual over plan.
    assert recipe.baseline is not None
    baseline = recipe.columns.index(recipe.baseline)
    factors = np.quantile(train.actual_s / train.rows[:, baseline], LEVELS)
    return pinball(test.actual_s, np.outer(test.rows[:, baseline], factors))


def _luck(blend: Blend, driven: Driven, pace_column: str) -> Luck:
    """Deviations from the P50 in spreads of their own side, of what lies ahead at a few instants of every round.

    As on board: all that lies ahead is foreseen with the pace known at that instant, so what the pace has already told
    is no longer luck, and what it will tell later still is.
    """
    pace_place = blend.recipe.columns.index(pace_column)
    lucks: Luck = {}
    for whose, places in _by_round(driven.rounds).items():
        began_ms = driven.began_ms[places]
        for hours in ORIGINS_H:
            ahead_ms = began_ms - began_ms[0] - round(hours * HOUR_MS)
            ahead = places[(ahead_ms >= 0) & (ahead_ms < HORIZON_H * HOUR_MS)]
            if len(ahead):
                rows = driven.rows[ahead].copy()
                rows[:, pace_place] = driven.log_pace[ahead[0]]
                lucks[*whose, hours] = _deviations(blend.predict(rows), driven.actual_s[ahead])
    return lucks


def _by_round(rounds: tuple[tuple[int, str], ...]) -> dict[tuple[int, str], NDArray[np.intp]]:
    places: dict[tuple[int, str], list[int]] = {}
    for place, whose in enumerate(rounds):
        places.setdefault(whose, []).append(place)
    return {whose: np.array(its, dtype=np.intp) for whose, its in places.items()}


def _deviations(quantiles_s: NDArray[np.float64], actual_s: NDArray[np.float64]) -> NDArray[np.float64]:
    low, middle, high = quantiles_s.T
    spread = np.maximum(np.where(actual_s > middle, high - middle, middle - low), 1e-6) / 1.2816
    deviations: NDArray[np.float64] = np.clip((actual_s - middle) / spread, -4, 4)
    return deviations


def _shared_within(lucks: Luck) -> float:
    products = sum(float(luck.sum() ** 2 - (luck**2).sum()) for luck in lucks.values())
    pairs = sum(len(luck) * (len(luck) - 1) for luck in lucks.values())
    return min(max(products / max(pairs, 1), 0.0), 1.0)


def _table(path: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in names if name not in (reader.fieldnames or [])]
            if missing:
                raise DaysUnreadable(f"{path} lacks {', '.join(missing)}: drive the days again with firmware-sim")
            lines = [tuple(line[name] or "" for name in names) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DaysUnreadable(f"{path} cannot be read as CSV ({error}): expected a table of driven days") from error
    if not lines:
        raise DaysUnreadable(f"{path} has no rows: expected a table of driven days")
    return dict(zip(names, zip(*lines, strict=True), strict=True))


def _rounds(table: dict[str, tuple[str, ...]]) -> tuple[tuple[int, str], ...]:
    try:
        return tuple(zip(map(int, table["day_seed"]), table["van"], strict=True))
    except ValueError as error:
        raise DaysUnreadable(f"a day_seed is no whole number ({error})") from error


def _aged(paces: tuple[str, ...], rounds: tuple[tuple[int, str], ...]) -> list[float]:
    """For each row a pace of its round as it was 0 to 15 rows earlier, the ages taking turns."""
    aged, first = [], 0
    for place, one in enumerate(rounds):
        if place and rounds[place - 1] != one:
            first = place
        aged.append(float(paces[max(first, place - PACE_AGES[place % len(PACE_AGES)])]))
    return aged


def _driven(
    path: Path,
    table: dict[str, tuple[str, ...]],
    rounds: tuple[tuple[int, str], ...],
    rows_of: Callable[[range], NDArray[np.float32]],
    columns: tuple[str, str, str],
) -> Driven:
    began, pace, took = columns
    try:
        rows = rows_of(range(len(rounds)))
        actual_s = np.maximum(np.array(table[took], dtype=np.float64), SHORTEST_S)
        began_ms = np.array(table[began], dtype=np.int64)
        log_pace = np.log(np.array(table[pace], dtype=np.float64))
    except (ValueError, FeatureOutOfRange) as error:
        raise DaysUnreadable(f"{path}: {error}") from error
    if not np.isfinite(actual_s).all():
        raise DaysUnreadable(f"{path}: {took} holds something that is not finite, expected seconds")
    days = np.array([day for day, _ in rounds], dtype=np.int64)
    driven = Driven(rows, actual_s, days, rounds, began_ms, log_pace)
    return driven.at(np.argsort(days, kind="stable"))


def _named(seeds: range) -> str:
    return f"{seeds.start}:{seeds.stop}"


def _span(days: NDArray[np.int64]) -> str:
    return f"{days.min()}:{days.max() + 1}"
