"""How well the ETA pipeline foresees real trips it has not seen, before and after everything takes a quarter longer."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import lightgbm
import msgspec
import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # It ships no types.
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cloud_hub.models.calibrate import LEVELS, Scores, TooFewToCalibrate, covered, scores
from cloud_hub.models.graph import INPUT, check_fidelity, graph_of
from cloud_hub.models.train import Blend, Recipe, TooFewToTrain, fit_blend
from cloud_hub.models.trips import (
    COLUMNS_HELP,
    NET_COLUMNS,
    TREE_COLUMNS,
    TRIP_COLUMNS,
    City,
    Trips,
    TripsUnreadable,
    city_of,
    read_trips,
    trip_rows,
)
from cloud_hub.models.vans import TEST_SEEDS, DaysUnreadable, Driven, read_legs, read_stops
from edge_agent.arrivals import AdaptiveOffset, join
from edge_agent.inference import TRAINED_FOLDER, ModelGarbled, ModelMissing, Models, WrongColumns
from shared.features import LEG_COLUMNS, STOP_COLUMNS, Correlation

TRAIN_SHARE, CALIBRATE_SHARE = 0.70, 0.15
SHIFT = 1.25
TRUTH_TRIPS_LATE = 20
SETTLED_TRIPS = 400
RECIPE = Recipe(TRIP_COLUMNS, TREE_COLUMNS, NET_COLUMNS)
REFUSALS = (TripsUnreadable, TooFewToTrain, TooFewToCalibrate, DaysUnreadable, ModelMissing, ModelGarbled, WrongColumns)


class Figures(msgspec.Struct, frozen=True):
    """The figures of the bench; durations in minutes, shares in percent. None where the test has too few trips."""

    rows: int
    pinball: float
    mae_min: float
    coverage: float
    width_min: float
    pinball_line: float
    pinball_lightgbm: float
    coverage_constant: float
    coverage_after_shift: float | None
    coverage_after_shift_fixed: float | None
    width_ratio_after_shift: float | None
    coverage_after_shift_halfway: float | None
    width_ratio_after_shift_halfway: float | None
    onnx_max_diff: float
    predict_us_p50: float
    predict_us_p99: float
    model_kb: float
    train_cpu_s: float


@dataclass(frozen=True, slots=True)
class Split:
    """Trips in time order, cut in three."""

    train: Trips
    calibrate: Trips
    test: Trips


def main(
    trips: Annotated[Path, typer.Option(help="A city's trips. " + COLUMNS_HELP)],
    days: Annotated[
        Path | None,
        typer.Option(help="Also judge joined arrivals of the shipped van models on days from firmware-sim drive-days."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as one JSON object on the last line.")
    ] = False,
) -> None:
    """Train on the first 70 % of a city's trips in time, calibrate on the next 15 %, and judge on the last 15 %."""
    screen = Console(stderr=as_json)
    try:
        figures = measured(trips, screen)
        show(figures, screen)
        if days is not None:
            show_joined(joined_on_days(days), screen)
    except REFUSALS as error:
        screen.print(f"[red]{error}[/red]", soft_wrap=True)
        raise typer.Exit(2) from error
    if as_json:
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")


def measured(path: Path, screen: Console) -> Figures:
    """Every figure for the trips of one file."""
    read = read_trips(path)
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in read.left_out.items() if count)
    screen.print(
        f"{path.name}: {read.rows:,} rows, {len(read.trips):,} usable"
        + (f" (left out: {left_out})" if left_out else "")
    )
    split = split_by_time(read.trips)
    city = city_of(split.train)
    train, calibrate, test = (trip_rows(part, city) for part in (split.train, split.calibrate, split.test))
    began = time.process_time()
    with screen.status("reading the city") as status:
        blend = fit_blend(train, split.train.seconds, RECIPE, told=status.update)
        blend = blend.calibrated(calibrate, split.calibrate.seconds)
    train_cpu_s = time.process_time() - began
    graph = graph_of(blend)
    difference = check_fidelity(blend, graph, np.concatenate([train, calibrate, test]))
    found = scores(split.test.seconds / 60, blend.predict(test) / 60)
    shifted = after_shift(blend, test, split.test.seconds, first=0)
    halfway = after_shift(blend, test, split.test.seconds, first=len(test) // 2)
    predict_us = timed_predictions(graph, split.test, city)
    return Figures(
        rows=len(read.trips),
        pinball=found.pinball,
        mae_min=found.mean_abs_error,
        coverage=found.coverage_percent,
        width_min=found.width,
        pinball_line=line_scores(split).pinball,
        pinball_lightgbm=lightgbm_scores(split, (train, calibrate, test)).pinball,
        coverage_constant=constant_scores(split).coverage_percent,
        coverage_after_shift=shifted.coverage if shifted else None,
        coverage_after_shift_fixed=shifted.coverage_fixed if shifted else None,
        width_ratio_after_shift=shifted.width / found.width if shifted else None,
        coverage_after_shift_halfway=halfway.coverage if halfway else None,
        width_ratio_after_shift_halfway=halfway.width / found.width if halfway else None,
        onnx_max_diff=difference,
        predict_us_p50=float(np.quantile(predict_us, 0.5)),
        predict_us_p99=float(np.quantile(predict_us, 0.99)),
        model_kb=len(graph) / 1024,
        train_cpu_s=train_cpu_s,
    )


def split_by_time(trips: Trips) -> Split:
    """The first 70 %, the next 15 % and the rest; never at random, for the future is what is foreseen."""
    train_end = int(len(trips) * TRAIN_SHARE)
    calibrate_end = int(len(trips) * (TRAIN_SHARE + CALIBRATE_SHARE))
    return Split(
        trips.part(slice(0, train_end)),
        trips.part(slice(train_end, calibrate_end)),
        trips.part(slice(calibrate_end, None)),
    )


@dataclass(frozen=True, slots=True)
class Shifted:
    """Coverage in percent with the adaptive and with the fixed offset, and the adaptive mean width in minutes."""

    coverage: float
    coverage_fixed: float
    width: float


def after_shift(blend: Blend, rows: NDArray[np.float32], actual_s: NDArray[np.float64], first: int) -> Shifted | None:
    """From trip `first` of the test on, everything takes a quarter longer; judged from 401 trips after that to the end.

    The offset starts at zero with the test, learns from every trip, and hears of each one 20 trips later. None when
    no trips are left to judge.
    """
    if first + SETTLED_TRIPS >= len(actual_s):
        return None
    slow_s = np.where(np.arange(len(actual_s)) >= first, SHIFT, 1.0) * actual_s
    model_s = blend.predict(rows)
    told_s = np.empty_like(model_s)
    offset = AdaptiveOffset()
    for trip in range(len(slow_s)):
        if trip >= TRUTH_TRIPS_LATE:
            heard = trip - TRUTH_TRIPS_LATE
            offset = offset.learned(model_s[heard].tolist(), float(slow_s[heard]))
        told_s[trip] = offset.moved(model_s[trip : trip + 1])[0]
    judged = slice(first + SETTLED_TRIPS, None)
    return Shifted(
        100 * float(covered(slow_s[judged], told_s[judged]).mean()),
        100 * float(covered(slow_s[judged], model_s[judged]).mean()),
        float((told_s[judged, 2] - told_s[judged, 0]).mean()) / 60,
    )


def timed_predictions(graph: bytes, trips: Trips, city: City) -> NDArray[np.float64]:
    """CPU microseconds of each of 2,000 single predictions, from a trip's place and time to its three quantiles."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    singles = [trips.part(slice(place, place + 1)) for place in range(min(500, len(trips)))]
    for single in singles[:50]:
        session.run(None, {INPUT: trip_rows(single, city)})
    taken_us = np.empty(2000)
    for turn in range(len(taken_us)):
        single = singles[turn % len(singles)]
        began = time.thread_time_ns()
        session.run(None, {INPUT: trip_rows(single, city)})
        taken_us[turn] = (time.thread_time_ns() - began) / 1000
    return taken_us


def line_scores(split: Split) -> Scores:
    """A rival: least squares in distance and its root, its quantiles by the training errors."""
    fitted = np.linalg.lstsq(_line_terms(split.train), split.train.seconds / 60, rcond=None)[0]
    errors = split.train.seconds / 60 - _line_terms(split.train) @ fitted
    middle = _line_terms(split.test) @ fitted
    return scores(split.test.seconds / 60, middle[:, None] + np.quantile(errors, (0.1, 0.5, 0.9)))


def lightgbm_scores(split: Split, rows: tuple[NDArray[np.float32], ...]) -> Scores:
    """A rival: LightGBM's own quantiles of minutes on the same columns, each with a conformal offset."""
    picked = [part[:, [TRIP_COLUMNS.index(name) for name in TREE_COLUMNS]] for part in rows]
    said = []
    for level in LEVELS:
        settings = {"objective": "quantile", "alpha": level, "learning_rate": 0.05, "num_threads": 1, "verbose": -1}
        booster = lightgbm.train(settings, lightgbm.Dataset(picked[0], split.train.seconds / 60), 200)
        calibrated, tested = (np.asarray(booster.predict(part), dtype=np.float64) for part in picked[1:])
        said.append(tested + np.quantile(split.calibrate.seconds / 60 - calibrated, level))
    return scores(split.test.seconds / 60, np.sort(np.column_stack(said), axis=1))


def constant_scores(split: Split) -> Scores:
    """A rival that always says the training trips' own P10, P50 and P90."""
    constant = np.quantile(split.train.seconds / 60, (0.1, 0.5, 0.9))
    return scores(split.test.seconds / 60, np.tile(constant, (len(split.test), 1)))


def _line_terms(trips: Trips) -> NDArray[np.float64]:
    city = city_of(trips)
    rows = trip_rows(trips, city)
    km = rows[:, TRIP_COLUMNS.index("km")].astype(np.float64)
    return np.column_stack([np.ones(len(km)), km, np.sqrt(km)])


class Joined(msgspec.Struct, frozen=True):
    """How arrivals joined in one way held, so many stops ahead; minutes."""

    way: str
    stops_ahead: str
    scores: Scores


def joined_on_days(days: Path) -> list[Joined]:
    """How the shipped models' joined arrivals hold on the simulator's test days, by how far ahead and how joined."""
    models = Models(TRAINED_FOLDER)
    legs, stops = read_legs(days / "legs.csv").of(TEST_SEEDS), read_stops(days / "stops.csv").of(TEST_SEEDS)
    ahead = [one for whose in sorted(set(legs.rounds)) for one in _ahead(models, legs, stops, whose)]
    ways = (
        ("as measured", models.correlation),
        ("as if independent", Correlation()),
        ("P90s added up", Correlation(1.0, 1.0, 1.0)),
    )
    found = []
    for words, correlation in ways:
        told_min = [
            join(0, one.legs_s, one.dwells_s, [None] * len(one.legs_s), correlation).quantiles_ms() / 60_000
            for one in ahead
        ]
        for first, last in ((1, 5), (6, 15), (16, 30)):
            told = np.concatenate([rows[first - 1 : last] for rows in told_min])
            true = np.concatenate([one.begins_s[first - 1 : last] for one in ahead]) / 60
            found.append(Joined(words, f"{first}-{last}", scores(true, told)))
    return found


@dataclass(frozen=True, slots=True)
class Ahead:
    """What lay ahead of a van, stop by stop: quantiles of leg and dwell [n, 3], and when service truly began [n]."""

    legs_s: NDArray[np.float64]
    dwells_s: NDArray[np.float64]
    begins_s: NDArray[np.float64]


def _ahead(models: Models, legs: Driven, stops: Driven, whose: tuple[int, str]) -> list[Ahead]:
    """The round of one van as seen from its start and every tenth stop. Breaks and waiting are left out of the sums."""
    leg_places = np.array([place for place, one in enumerate(legs.rounds) if one == whose])
    stop_places = np.array([place for place, one in enumerate(stops.rounds) if one == whose])
    # The stop each leg led to; a second door of the same parking place has no leg.
    led_to = np.searchsorted(stops.began_ms[stop_places], legs.began_ms[leg_places], side="right")
    found = []
    for origin in range(0, len(stop_places) - 10, 10):
        own_legs = leg_places[(led_to >= origin) & (led_to < len(stop_places))]
        own_stops = stop_places[origin:]
        n = len(own_stops)
        at = led_to[(led_to >= origin) & (led_to < len(stop_places))] - origin
        leg_rows, stop_rows = legs.rows[own_legs].copy(), stops.rows[own_stops].copy()
        leg_rows[:, LEG_COLUMNS.index("log_pace")] = legs.log_pace[own_legs[0]]
        stop_rows[:, STOP_COLUMNS.index("log_dwell_pace")] = stops.log_pace[own_stops[0]]
        legs_s, leg_truth_s = np.zeros((n, 3)), np.zeros(n)
        np.add.at(legs_s, at, models.predict_legs(leg_rows))
        np.add.at(leg_truth_s, at, legs.actual_s[own_legs])
        dwell_truth_s = np.concatenate([[0.0], np.cumsum(stops.actual_s[own_stops])[:-1]])
        found.append(
            Ahead(legs_s, models.predict_stops(stop_rows).astype(np.float64), np.cumsum(leg_truth_s) + dwell_truth_s)
        )
    return found


def show_joined(found: list[Joined], screen: Console) -> None:
    """Joined arrivals by how far ahead."""
    table = Table(title="Arrivals joined from legs and dwells, simulated days never seen (minutes; 80 % windows)")
    for heading in ("joined", "stops ahead", "covers %", "width", "pinball"):
        table.add_column(heading, justify="left" if heading == "joined" else "right")
    for one in found:
        judged = one.scores
        cells = (f"{judged.coverage_percent:.1f}", f"{judged.width:.1f}", f"{judged.pinball:.2f}")
        table.add_row(one.way, one.stops_ahead, *cells)
    screen.print(table)


def show(figures: Figures, screen: Console) -> None:
    """The figures beside their limits."""
    table = Table(title="ETA on trips never seen (minutes; 80 % windows)")
    for heading in ("figure", "found", "limit"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    judged = (
        ("pinball, mean of P10 P50 P90", "pinball", "{:.3f}", "<= 1.10"),
        ("the window covers, %", "coverage", "{:.1f}", "77-83"),
        ("mean width", "width_min", "{:.2f}", "<= 10.6"),
        ("after times x 1.25: covers, %", "coverage_after_shift", "{:.1f}", ">= 77"),
        ("   width against before", "width_ratio_after_shift", "{:.2f}", "<= 1.35"),
        ("   with fixed offsets it covers, %", "coverage_after_shift_fixed", "{:.1f}", ""),
        ("shift half-way instead: covers, %", "coverage_after_shift_halfway", "{:.1f}", ""),
        ("   width against before", "width_ratio_after_shift_halfway", "{:.2f}", ""),
        ("ONNX against Python, worst row", "onnx_max_diff", "{:.1e}", "<= 1e-3"),
        ("one prediction, CPU us, p50", "predict_us_p50", "{:.0f}", ""),
        ("one prediction, CPU us, p99", "predict_us_p99", "{:.0f}", "<= 1000"),
        ("model, KB", "model_kb", "{:.0f}", "<= 1024"),
        ("mean absolute error of the P50", "mae_min", "{:.2f}", ""),
        ("rival: LightGBM and offsets, pinball", "pinball_lightgbm", "{:.3f}", ""),
        ("rival: a line in distance, pinball", "pinball_line", "{:.3f}", ""),
        ("rival: constants, covers, %", "coverage_constant", "{:.1f}", ""),
        ("training, CPU s", "train_cpu_s", "{:.0f}", ""),
    )
    for words, name, form, limit in judged:
        figure = getattr(figures, name)
        table.add_row(words, "too few trips" if figure is None else form.format(figure), limit)
    screen.print(table)


if __name__ == "__main__":
    typer.run(main)
