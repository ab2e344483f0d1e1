"""Read a city's past trips from a CSV and say what a trip looks like before it starts.

COLUMNS_HELP says which columns. Fare, tips, tolls and totals are never read: they are settled after the trip and give
its duration away.
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KM_PER_MILE = 1.609344
KM_PER_DEGREE = 111.195

NAMES: dict[str, tuple[str, ...]] = {
    "started": (
        "started_at",
        "trip_start_timestamp",
        "pickup_datetime",
        "tpep_pickup_datetime",
        "lpep_pickup_datetime",
    ),
    "seconds": ("seconds", "trip_seconds", "trip_duration"),
    "from_lat": ("from_lat", "pickup_latitude", "pickup_centroid_latitude"),
    "from_lon": ("from_lon", "pickup_longitude", "pickup_centroid_longitude"),
    "to_lat": ("to_lat", "dropoff_latitude", "dropoff_centroid_latitude"),
    "to_lon": ("to_lon", "dropoff_longitude", "dropoff_centroid_longitude"),
    "distance": ("metres", "trip_miles", "trip_distance"),
    "local_hour": ("trip_start_hour",),
}
"""What each column may be called: our plain name, Chicago's open data, New York's; the first one found is read."""
OPTIONAL = ("distance", "local_hour")
DISTANCE_KM = {"metres": 0.001, "trip_miles": KM_PER_MILE, "trip_distance": KM_PER_MILE}

COLUMNS_HELP = """A CSV file with a header line. Columns, in any order: started_at (ISO 8601 or epoch seconds, local
time; or trip_start_timestamp), seconds (or trip_seconds), from_lat, from_lon, to_lat, to_lon in degrees (or
pickup_latitude, pickup_longitude, dropoff_latitude, dropoff_longitude), and optionally metres (or trip_miles) and
trip_start_hour (the local hour, where the timestamp's is another). A row is usable when its duration and its distance
are positive and both ends are known; a file without distances is judged by its ends. All other columns, fares and tips
above all, are ignored."""


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
    columns, distance_km = _columns_of(path)
    ends = np.column_stack([columns[name] for name in ("from_lat", "from_lon", "to_lat", "to_lon")])
    started_s = columns["started"]
    reasons = {
        "start unknown": ~np.isfinite(started_s),
        "an end unknown": ~(_is_place(ends[:, 0], ends[:, 1]) & _is_place(ends[:, 2], ends[:, 3])),
        "duration not positive": ~(np.isfinite(columns["seconds"]) & (columns["seconds"] > 0)),
    }
    if "distance" in columns:
        reasons["distance not positive"] = ~(np.isfinite(distance_km) & (distance_km > 0))
    usable = np.ones(len(started_s), dtype=bool)
    left_out = {}
    for reason, found in reasons.items():
        left_out[reason] = int((found & usable).sum())
        usable &= ~found
    places = np.flatnonzero(usable)
    places = places[np.argsort(started_s[places], kind="stable")]
    local_s = _local(started_s, columns.get("local_hour"))
    trips = Trips(local_s, columns["seconds"], distance_km, *ends.T).part(places)
    return TripsRead(trips, len(started_s), left_out)


def _columns_of(path: Path) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """The columns by our names, NaN where unreadable, and the distances in km."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            places = _places_of(header, path)
            lines = [tuple(line[at] if at < len(line) else "" for at in places.values()) for line in reader if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TripsUnreadable(f"{path} cannot be read as CSV: {error}") from error
    if not lines:
        raise TripsUnreadable(f"{path} has no rows under its header line")
    cells = dict(zip(places, zip(*lines, strict=True), strict=True))
    columns = {name: _read(_instant if name == "started" else _number, its) for name, its in cells.items()}
    if "distance" not in columns:
        return columns, np.full(len(lines), np.nan)
    return columns, columns["distance"] * DISTANCE_KM[header[places["distance"]]]


def _is_place(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Nought north, nought east is how devices write "unknown"; there is no city there.
    is_somewhere = (np.abs(lat) > 1e-6) | (np.abs(lon) > 1e-6)
    found: NDArray[np.bool_] = (np.abs(lat) <= 90) & (np.abs(lon) <= 180) & is_somewhere
    return found


def _local(started_s: NDArray[np.float64], local_hour: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """The start on the local clock: moved by whole hours to the local hour where a column tells it."""
    if local_hour is None:
        return started_s
    hours = (local_hour - started_s // 3600 % 24 + 12) % 24 - 12
    local_s: NDArray[np.float64] = started_s + 3600 * np.where(np.isfinite(hours), np.round(hours), 0.0)
    return local_s


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


def _places_of(header: list[str], path: Path) -> dict[str, int]:
    """Where in a line each column is. Raises TripsUnreadable when one is missing."""
    places = {
        name: next(header.index(called) for called in names if called in header)
        for name, names in NAMES.items()
        if any(called in header for called in names)
    }
    missing = [" or ".join(names) for name, names in NAMES.items() if name not in places and name not in OPTIONAL]
    if missing:
        raise TripsUnreadable(f"{path} has columns {', '.join(header) or '(none)'}; it lacks {'; '.join(missing)}")
    return places


def _read(how: Callable[[str], float], cells: tuple[str, ...]) -> NDArray[np.float64]:
    return np.array([how(cell) for cell in cells])


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _instant(cell: str) -> float:
    """Epoch seconds of the local wall clock, NaN when unreadable: it is the hour at that place that slows a trip."""
    number = _number(cell)
    if math.isfinite(number):
        return number / 1000 if number > LIKELY_MILLISECONDS else number
    words = cell.strip().removesuffix(" UTC")
    for read in (datetime.fromisoformat, _american):
        try:
            wall = read(words).replace(tzinfo=None)
        except ValueError:
            continue
        return (wall - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001 - local wall time on purpose.
    return math.nan


LIKELY_MILLISECONDS = 1e11  # As seconds that would be the year 5138.


def _american(words: str) -> datetime:
    return datetime.strptime(words, "%m/%d/%Y %I:%M:%S %p")  # noqa: DTZ007 - local wall time on purpose.
