"""What the van models see of a leg or a stop, as named float32 columns in one fixed order.

Training and the van build their rows here, so a column cannot mean one thing in the model and another on board.
Everything is known before the leg or the stop begins. `Pace` is part of what is seen: how this driver's day has gone
so far against the plan.
"""

import math
from collections.abc import Iterable
from typing import get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.work import Service

SERVICES: tuple[Service, ...] = get_args(Service)

LEG_COLUMNS = (
    "map_s",
    "log_map_s",
    "metres",
    "map_mps",
    "hour_of_day",
    "hour_sin",
    "hour_cos",
    "weekday",
    "is_weekend",
    "log_pace",
    "is_stem",
)
STOP_COLUMNS = (
    "planned_service_s",
    "log_planned_service_s",
    *(f"is_{service}" for service in SERVICES),
    "parcels",
    "litres",
    "floor",
    "has_lift",
    "stairs",
    "is_business",
    "same_door_index",
    "is_first_door",
    "hour_of_day",
    "hour_sin",
    "hour_cos",
    "log_dwell_pace",
)

LEG_BASELINE = LEG_COLUMNS.index("map_s")
"""The column whose seconds the leg model multiplies: the map's own answer."""
STOP_BASELINE = STOP_COLUMNS.index("planned_service_s")

SHORTEST_S = (
    1.0  # A leg between two doors of one house takes no time on the map; its ratio to the truth must stay finite.
)


class FeatureOutOfRange(ValueError):
    """A leg or stop has a quantity no van can meet."""


class LegSeen(msgspec.Struct, frozen=True):
    """A leg before it is driven.

    `map_s` and `metres` are the map's, the hour (0-24) and weekday (0 Monday) are local; `pace` is the day's so far.
    """

    map_s: float
    metres: float
    hour_of_day: float
    weekday: int
    pace: float = 1.0
    is_stem: bool = False


class StopSeen(msgspec.Struct, frozen=True):
    """A stop before it is served.

    `same_door_index` is 0 for the first door at a parking place and 1, 2, .. for the further ones, which need no
    parking; `dwell_pace` is the pace of the day's stops so far against their planned service times.
    """

    planned_service_s: float
    service: Service = "hand_over"
    parcels: int = 1
    litres: float = 0.0
    floor: int = 0
    has_lift: bool = False
    is_business: bool = False
    same_door_index: int = 0
    hour_of_day: float = 12.0
    dwell_pace: float = 1.0


class Pace(msgspec.Struct, frozen=True):
    """How long things have taken today against what was expected: an exponentially weighted mean of the log ratio.

    Starts as if `PRIOR_WEIGHT` things had gone exactly as planned, so that the first one does not decide the day.
    """

    log_sum: float = 0.0
    weight: float = 0.0

    @property
    def ratio(self) -> float:
        """Actual over expected, 1.0 when nothing has been learnt yet."""
        return math.exp(self.log_sum / (self.weight + PRIOR_WEIGHT))

    def learned(self, actual_s: float, expected_s: float) -> "Pace":
        """The pace after one more thing took `actual_s` where `expected_s` was planned.

        A ratio beyond `MOST_RATIO` counts as that. Raises FeatureOutOfRange for a negative or non-finite duration.
        """
        actual_s, expected_s = _amount("actual_s", actual_s), _amount("expected_s", expected_s)
        log_ratio = math.log(max(actual_s, SHORTEST_S) / max(expected_s, SHORTEST_S))
        log_ratio = min(max(log_ratio, -LOG_MOST_RATIO), LOG_MOST_RATIO)
        return Pace(self.log_sum * PACE_MEMORY + log_ratio, self.weight * PACE_MEMORY + 1.0)


PACE_MEMORY = 0.9  # Half of what is remembered is younger than seven things: about an hour of a parcel round.
PRIOR_WEIGHT = 3.0
MOST_RATIO = 4.0  # A 20-second hop that took five minutes was a closed street, not the driver's pace.
LOG_MOST_RATIO = math.log(MOST_RATIO)


def leg_rows(legs: Iterable[LegSeen]) -> NDArray[np.float32]:
    """Rows for the leg model, float32[n, len(LEG_COLUMNS)], in the order given.

    Raises FeatureOutOfRange for a negative or non-finite quantity or an hour outside 0-24.
    """
    return _rows([_leg_row(leg) for leg in legs], LEG_COLUMNS)


def stop_rows(stops: Iterable[StopSeen]) -> NDArray[np.float32]:
    """Rows for the stop model, float32[n, len(STOP_COLUMNS)], in the order given.

    Raises FeatureOutOfRange for a negative or non-finite quantity, an hour outside 0-24 or an unknown service.
    """
    return _rows([_stop_row(stop) for stop in stops], STOP_COLUMNS)


def _leg_row(leg: LegSeen) -> tuple[float, ...]:
    map_s = max(_amount("map_s", leg.map_s), SHORTEST_S)
    metres = _amount("metres", leg.metres)
    hour = _hour(leg.hour_of_day)
    if not 0 <= leg.weekday <= 6:
        raise FeatureOutOfRange(f"weekday is {leg.weekday!r}, expected 0 (Monday) to 6 (Sunday)")
    return (
        map_s,
        math.log(map_s),
        metres,
        metres / map_s,
        hour,
        *_around_the_clock(hour),
        float(leg.weekday),
        float(leg.weekday >= 5),
        _log_pace("pace", leg.pace),
        float(leg.is_stem),
    )


def _stop_row(stop: StopSeen) -> tuple[float, ...]:
    if stop.service not in SERVICES:
        raise FeatureOutOfRange(f"service is {stop.service!r}, expected one of {', '.join(SERVICES)}")
    planned_s = max(_amount("planned_service_s", stop.planned_service_s), SHORTEST_S)
    hour = _hour(stop.hour_of_day)
    index = _amount("same_door_index", stop.same_door_index)
    return (
        planned_s,
        math.log(planned_s),
        *(float(stop.service == service) for service in SERVICES),
        _amount("parcels", stop.parcels),
        _amount("litres", stop.litres),
        float(stop.floor),
        float(stop.has_lift),
        0.0 if stop.has_lift else float(abs(stop.floor)),
        float(stop.is_business),
        index,
        float(index == 0),
        hour,
        *_around_the_clock(hour),
        _log_pace("dwell_pace", stop.dwell_pace),
    )


def _rows(rows: list[tuple[float, ...]], columns: tuple[str, ...]) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(columns))


def _around_the_clock(hour: float) -> tuple[float, float]:
    angle = hour * (2 * math.pi / 24)
    return math.sin(angle), math.cos(angle)


def _amount(name: str, amount: float) -> float:
    # Seven digits of seconds, metres or litres are beyond any leg or stop, and beyond what float32 holds exactly.
    if not 0 <= amount <= 1e7:
        raise FeatureOutOfRange(f"{name} is {amount!r}, expected 0 to 10,000,000")
    return float(amount)


def _hour(hour: float) -> float:
    if not 0 <= hour <= 24:
        raise FeatureOutOfRange(f"hour_of_day is {hour!r}, expected 0 to 24 in local time")
    return float(hour)


def _log_pace(name: str, pace: float) -> float:
    if not 0.01 <= pace <= 100:
        raise FeatureOutOfRange(f"{name} is {pace!r}, expected a ratio of 0.01 to 100 (1.0 is as planned)")
    return math.log(pace)


class Correlation(msgspec.Struct, frozen=True):
    """How much of a duration's luck the whole day of one van shares, measured on driven days.

    `legs`: correlation of the luck of two legs of one day; `dwells`: of two dwells; `between`: of a leg and a dwell.
    """

    legs: float = 0.0
    dwells: float = 0.0
    between: float = 0.0


class ModelFigures(msgspec.Struct, frozen=True):
    """How good a model was on days it had not seen. `pinball_plan_s`: what the plan with fixed spreads would get."""

    rows: int
    pinball_s: float
    pinball_plan_s: float
    mean_abs_error_s: float
    coverage_percent: float
    width_s: float
    onnx_max_diff_s: float
    model_kb: float


class ModelCard(msgspec.Struct, frozen=True):
    """What one model file is: its name, content hash (SHA-256, hex), columns in order, and figures."""

    file: str
    sha256: str
    columns: tuple[str, ...]
    figures: ModelFigures


class TrainedCard(msgspec.Struct, frozen=True):
    """The JSON card beside the van models: what they were trained, calibrated and tested on, and what they can do.

    Seeds are half-open ranges `first:end` of simulated days that do not overlap.
    """

    train_seeds: str
    calibrate_seeds: str
    test_seeds: str
    legs: ModelCard
    stops: ModelCard
    correlation: Correlation
