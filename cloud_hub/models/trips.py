"""Read a city's past trips from a CSV and say what a trip looks like before it starts.

Two forms of columns are understood, Chicago's open data and a plain one; see COLUMNS_HELP. Fare, tips, tolls and totals
are never read: they are settled after the trip and give its duration away.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLUMNS_HELP = """A CSV file with a header line, in one of two forms:

Chicago's: trip_start_timestamp (epoch seconds of local time), trip_seconds, trip_miles, pickup_latitude,
pickup_longitude, dropoff_latitude, dropoff_longitude.

Plain: started_at (ISO 8601 or epoch seconds, local time), seconds, from_lat, from_lon, to_lat, to_lon, and optionally
metres.

A row is usable when its duration and its distance are positive and both ends are known; a file without `metres` is
judged by its ends. All other columns, fares and tips above all, are ignored."""

KM_PER_MILE = 1.609344
KM_PER_DEGREE = 111.195

CHICAGO = {
    "started": "trip_start_timestamp",
    "seconds": "trip_seconds",
    "distance": "trip_miles",
    "from_lat": "pickup_latitude",
    "from_lon": "pickup_longitude",
    "to_lat": "dropoff_latitude",
    "to_lon": "dropoff_longitude",
}
PLAIN = {
    "started": "started_at",
    "seconds": "seconds",
    "distance": "metres",
    "from_lat": "from_lat",
    "from_lon": "from_lon",
    "to_lat": "to_lat",
    "to_lon": "to_lon",
}
DISTANCE_KM = {"trip_miles": KM_PER_MILE, "metres": 0.001}


class TripsUnreadable(ValueError):
    """The file of trips cannot be used; the message says which column or line and what was expected."""


@dataclass(frozen=True, slots=True)
class Trips:
    """n trips in order of their start, all float64[n]: epoch seconds (local), seconds, km (NaN unknown), degrees."""

    started_s: NDArray[np.float64]
    seconds: NDArray[np.float64]
    km: NDArray[np.float64]
    from_lat: NDArray[np.float64]
    from_lon: NDArray[np.float64]
    to_lat: NDArray[np.float64]
    to_lon: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.seconds)

    def part(self, wanted: slice | NDArray[np.intp]) -> "Trips":
        """The trips at these places."""
        return Trips(*(getattr(self, name)[wanted] for name in Trips.__slots__))


@dataclass(frozen=True, slots=True)
class TripsRead:
    """The usable trips of a file, and how many rows were read and left out, by reason."""

    trips: Trips
    rows: int
    left_out: dict[str, int]


def read_trips(path: Path) -> TripsRead:
    """The usable trips of a CSV file, sorted by start (stable). Raises TripsUnreadable."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = _form_of(reader.fieldnames or [], path)
            table = [tuple(row.get(name) or "" for name in names.values()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TripsUnreadable(f"{path} cannot be read as CSV: {error}") from error
    if not table:
        raise TripsUnreadable(f"{path} has no rows under its header line")
    columns = dict(zip(names, zip(*table, strict=True), strict=True))
    numbers = {name: _numbers(cells) for name, cells in columns.items() if name != "started"}
    numbers["started"] = np.array([_instant(cell) for cell in columns["started"]])
    distance_km = numbers.get("distance", np.full(len(table), np.nan)) * DISTANCE_KM.get(names.get("distance", ""), 1.0)
    ends = np.column_stack([numbers[name] for name in ("from_lat", "from_lon", "to_lat", "to_lon")])
    reasons = {
        "start unknown": ~np.isfinite(numbers["started"]),
        "an end unknown": ~(np.isfinite(ends).all(axis=1) & (np.abs(ends) <= 180).all(axis=1)),
        "duration not positive": ~(numbers["seconds"] > 0),
    }
    if "distance" in names:
        reasons["distance not positive"] = ~(distance_km > 0)
    usable = np.ones(len(table), dtype=bool)
    left_out = {}
    for reason, found in reasons.items():
        left_out[reason] = int((found & usable).sum())
        usable &= ~found
    places = np.flatnonzero(usable)
    places = places[np.argsort(numbers["started"][places], kind="stable")]
    trips = Trips(numbers["started"], numbers["seconds"], distance_km, *ends.T).part(places)
    return TripsRead(trips, len(table), left_out)


@dataclass(frozen=True, slots=True)
class City:
    """What is learnt of a city from its training trips: its middle, its size, its detours, and when it was watched."""

    lat: float
    lon: float
    size_km: float
    first_s: float
    last_s: float
    detour: float

    @property
    def years(self) -> float:
        """How long the training trips reach."""
        return (self.last_s - self.first_s) / (365.25 * 86_400)


def city_of(trips: Trips) -> City:
    """The city as training trips (float64[n] each) show it."""
    lat = float(np.median(np.concatenate([trips.from_lat, trips.to_lat])))
    lon = float(np.median(np.concatenate([trips.from_lon, trips.to_lon])))
    north = (trips.to_lat - lat) * KM_PER_DEGREE
    east = (trips.to_lon - lon) * KM_PER_DEGREE * math.cos(math.radians(lat))
    size_km = max(float(np.median(np.hypot(north, east))), 0.1)
    line_km = _line_km(trips, lat)
    long = np.isfinite(trips.km) & (line_km > 0.5)
    detour = float(np.median(trips.km[long] / line_km[long])) if long.any() else 1.3
    return City(lat, lon, size_km, float(trips.started_s.min()), float(trips.started_s.max()), detour)


TREE_COLUMNS = (
    "km",
    "line_km",
    "log_detour",
    "longer_km",
    "grid_km",
    "from_east",
    "from_north",
    "to_east",
    "to_north",
    "bearing",
    "east_km",
    "north_km",
    "mid_east",
    "mid_north",
    "hour",
    "weekday",
    "hour_of_week",
    "day_of_year",
    "years",
)
NET_COLUMNS = (
    "log_km",
    "log_line_km",
    "log_longer_km",
    "km",
    "line_km",
    "log_detour",
    "abs_log_detour",
    *(f"{wave}_{turn}_day" for turn in (1, 2, 3) for wave in ("sin", "cos")),
    "is_weekend",
    *(f"{wave}_{turn}_weekend" for turn in (1, 2) for wave in ("sin", "cos")),
    *(f"is_day_{day}" for day in range(7)),
    "sin_year",
    "cos_year",
    "years",
    "from_east",
    "from_north",
    "to_east",
    "to_north",
    *(f"{end}_{axis}_{reach}" for end in ("from", "to") for axis in ("east", "north") for reach in ("near", "nearest")),
    "east_km",
    "north_km",
    "sin_bearing",
    "cos_bearing",
)
TRIP_COLUMNS = tuple(dict.fromkeys(TREE_COLUMNS + NET_COLUMNS))

SEASONS_NEED_YEARS = 1.5  # Below that the time of year and the passing of time cannot be told apart.
DAY_S = 86_400


def trip_rows(trips: Trips, city: City) -> NDArray[np.float32]:
    """What is known of trips before they start, float32[n, len(TRIP_COLUMNS)]. Uses neither durations nor fares."""
    seen = _places(trips, city) | _times(trips, city)
    rows = np.empty((len(trips), len(TRIP_COLUMNS)), dtype=np.float32)
    for index, name in enumerate(TRIP_COLUMNS):
        rows[:, index] = seen[name]
    return rows


def _places(trips: Trips, city: City) -> dict[str, NDArray[np.float64]]:
    shrink = math.cos(math.radians(city.lat))
    from_east = (trips.from_lon - city.lon) * (KM_PER_DEGREE * shrink)
    from_north = (trips.from_lat - city.lat) * KM_PER_DEGREE
    to_east = (trips.to_lon - city.lon) * (KM_PER_DEGREE * shrink)
    to_north = (trips.to_lat - city.lat) * KM_PER_DEGREE
    east_km, north_km = to_east - from_east, to_north - from_north
    line_km = np.hypot(east_km, north_km)
    km = np.where(np.isfinite(trips.km), trips.km, city.detour * line_km + 0.3)
    longer_km = np.maximum(km, line_km)
    log_detour = np.log(np.maximum(km, 0.01) / np.maximum(line_km, 0.3))
    bearing = np.arctan2(east_km, north_km)
    seen = {
        "km": km,
        "line_km": line_km,
        "longer_km": longer_km,
        "grid_km": np.abs(east_km) + np.abs(north_km),
        "log_km": np.log(np.maximum(km, 0.01)),
        "log_line_km": np.log(line_km + 0.5),
        "log_longer_km": np.log(longer_km + 0.3),
        "log_detour": log_detour,
        "abs_log_detour": np.abs(log_detour),
        "from_east": from_east,
        "from_north": from_north,
        "to_east": to_east,
        "to_north": to_north,
        "mid_east": (from_east + to_east) / 2,
        "mid_north": (from_north + to_north) / 2,
        "east_km": east_km,
        "north_km": north_km,
        "bearing": bearing,
        "sin_bearing": np.sin(bearing),
        "cos_bearing": np.cos(bearing),
    }
    for name in ("from_east", "from_north", "to_east", "to_north"):
        seen[f"{name}_near"] = np.tanh(seen[name] / (0.6 * city.size_km))
        seen[f"{name}_nearest"] = np.tanh(seen[name] / (0.2 * city.size_km))
    return seen


def _times(trips: Trips, city: City) -> dict[str, NDArray[np.float64]]:
    days = np.floor(trips.started_s / DAY_S)
    hour = (trips.started_s - days * DAY_S) / 3600
    weekday = (days + 3) % 7  # 1970-01-01 was a Thursday; 0 is Monday.
    is_weekend = (weekday >= 5).astype(np.float64)
    angle = hour * (2 * math.pi / 24)
    seasonal = float(city.years >= SEASONS_NEED_YEARS)
    day_of_year = (trips.started_s / DAY_S % 365.25) * seasonal
    # A net must not extrapolate the drift of the past years; what lies beyond the training trips counts as their end.
    years = (np.clip(trips.started_s, city.first_s, city.last_s) - city.last_s) / (365.25 * DAY_S)
    season = day_of_year * (2 * math.pi / 365.25)
    seen = {
        "hour": hour,
        "weekday": weekday,
        "hour_of_week": weekday * 24 + hour,
        "is_weekend": is_weekend,
        "day_of_year": day_of_year,
        "years": years,
        "sin_year": np.sin(season),
        "cos_year": np.cos(season),
    }
    for turn in (1, 2, 3):
        seen[f"sin_{turn}_day"] = np.sin(turn * angle)
        seen[f"cos_{turn}_day"] = np.cos(turn * angle)
    for turn in (1, 2):
        seen[f"sin_{turn}_weekend"] = is_weekend * seen[f"sin_{turn}_day"]
        seen[f"cos_{turn}_weekend"] = is_weekend * seen[f"cos_{turn}_day"]
    for day in range(7):
        seen[f"is_day_{day}"] = (weekday == day).astype(np.float64)
    return seen


def _line_km(trips: Trips, lat: float) -> NDArray[np.float64]:
    east = (trips.to_lon - trips.from_lon) * math.cos(math.radians(lat))
    return np.hypot(east, trips.to_lat - trips.from_lat) * KM_PER_DEGREE


def _form_of(header: Sequence[str], path: Path) -> dict[str, str]:
    """The wanted columns by our name. The distance of the plain form may be missing."""
    found = [name.strip() for name in header]
    missing_chicago = [name for name in CHICAGO.values() if name not in found]
    if not missing_chicago:
        return CHICAGO
    optional = {"metres"}
    missing_plain = [name for name in PLAIN.values() if name not in found and name not in optional]
    if not missing_plain:
        return {ours: name for ours, name in PLAIN.items() if name in found}
    nearest, missing = min((("Chicago's", missing_chicago), ("plain", missing_plain)), key=lambda form: len(form[1]))
    raise TripsUnreadable(
        f"{path} has columns {', '.join(found) or '(none)'}; for the {nearest} form it lacks {', '.join(missing)}. "
        "See --help for both forms"
    )


def _numbers(cells: tuple[str, ...]) -> NDArray[np.float64]:
    return np.array([_number(cell) for cell in cells])


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _instant(cell: str) -> float:
    """Epoch seconds of the local wall clock, NaN when unreadable: the hour of the day there is what slows a trip."""
    number = _number(cell)
    if math.isfinite(number):
        return number
    try:
        return _wall_seconds(cell)
    except ValueError:
        return math.nan


def _wall_seconds(cell: str) -> float:
    wall = datetime.fromisoformat(cell.strip()).replace(tzinfo=None)
    return (wall - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001 - local wall time on purpose.
