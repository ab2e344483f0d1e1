"""The true city of one day: how fast its streets really are, hour by hour, and which of them are closed.

The hub's map knows lengths, speeds and a typical hour. What is true differs: some quarters are always slower than
the map says, some only in the peaks, each day has its own weather and mood, and a mood lasts for half an hour or so.
Nothing here is told to an agent; it finds out by driving.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firmware_sim.ground import Course, LocalTime, Place, Unreachable
from firmware_sim.luck import Luck
from shared.citymap import ROAD_CLASSES, CityMap, OffTheMap, Snap
from shared.quantities import Position
from shared.streets import HOUR_FACTORS, NoWayThrough, Path, Streets
from shared.work import Depot

MOOD_MS = 40 * 60_000
"""Traffic's mood drifts between knots this far apart, so that lateness is correlated from one leg to the next."""

QUARTERS = 24
QUARTER_M = 300.0
METRES_PER_DEGREE = 111_195.0

STEM_CLASS = ROAD_CLASSES.index("primary")
"""A stem leg runs on main roads and slows down with them."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What the sky does to driving and to work on foot, as multipliers."""

    name: str
    driving: float
    on_foot: float
    outside_c: float


DRY = Weather("dry", 1.0, 1.0, 14.0)
RAIN = Weather("rain", 1.07, 1.05, 8.0)
SNOW = Weather("snow", 1.24, 1.14, -3.0)


class Traffic:
    """One day's hidden pace on every edge: a multiplier on what the map says.

    `town` luck is the same every day (a quarter that is always slow), `day` luck is today's alone.
    """

    def __init__(self, city: CityMap, town: Luck, day: Luck) -> None:
        lat = (city.node_lat[city.edge_from] + city.node_lat[city.edge_to]) / 2
        lon = (city.node_lon[city.edge_from] + city.node_lon[city.edge_to]) / 2
        self._always = 0.07 + _quarters(city, lat, lon, town.of("always"), 0.16)
        self._peak = np.abs(_quarters(city, lat, lon, town.of("peak"), 0.14))
        self._today = _quarters(city, lat, lon, day.of("today"), 0.13)
        self._by_hour: dict[int, np.ndarray] = {}
        self._day = day
        self.weather = day.pick("weather", (DRY, RAIN, SNOW), (0.68, 0.24, 0.08))
        self.day_factor = day.lognormal("traffic", 1.0, 0.09) * self.weather.driving
        self.work_factor = day.lognormal("work", 1.0, 0.08) * self.weather.on_foot

    def edge_pace(self, hour: int) -> np.ndarray:
        """float64[m]: the true time of every edge in this hour, as a multiple of the map's, without the day's mood."""
        pace = self._by_hour.get(hour)
        if pace is None:
            pace = np.exp(self._always + self._today + self._peak * _rush(hour)) * self.day_factor
            pace = self._by_hour[hour] = np.clip(pace, 0.6, 3.0)
        return pace

    def mood(self, instant_ms: int) -> float:
        """How the whole town's traffic deviates at this instant; it drifts, with a memory of about half an hour."""
        knot, into = divmod(instant_ms, MOOD_MS)
        share = into / MOOD_MS
        a, b = self._day.normal(f"mood {knot}"), self._day.normal(f"mood {knot + 1}")
        return math.exp(0.12 * (a * (1 - share) + b * share))


def _quarters(city: CityMap, lat: np.ndarray, lon: np.ndarray, luck: Luck, sigma: float) -> np.ndarray:
    """float64[m]: smooth bumps over the town, so that neighbouring streets share their pace."""
    south, west, north, east = city.bounds
    per_lon = METRES_PER_DEGREE * math.cos(math.radians((south + north) / 2))
    field = np.zeros(len(lat))
    for k in range(QUARTERS):
        own = luck.of(k)
        north_m = (lat - own.uniform("lat", south, north)) * METRES_PER_DEGREE
        east_m = (lon - own.uniform("lon", west, east)) * per_lon
        field += own.normal("depth", 0.0, sigma) * np.exp(-(north_m**2 + east_m**2) / (2 * QUARTER_M**2))
    return field


def _rush(hour: int) -> float:
    """0 to 1: how much of a peak this hour is, morning and afternoon."""
    return max(math.exp(-(((hour - 8) / 1.2) ** 2)), math.exp(-(((hour - 16) / 1.5) ** 2)))


class World:
    """Streets as everybody knows them and as they truly are, closures included: the `Ground` of the vans of one day.

    `closed` may grow while vans drive. Courses and places are remembered: a town has few places and many days.
    """

    def __init__(self, city: CityMap, streets: Streets, traffic: Traffic, local: LocalTime) -> None:
        self.city = city
        self.traffic = traffic
        self.local = local
        self.closed: set[int] = set()
        self._streets = {frozenset[int](): streets}
        self._places: dict[Position, Place] = {}
        self._paths: dict[tuple[Place, Place, int, frozenset[int]], Path] = {}

    def on_another_day(self, traffic: Traffic) -> "World":
        """The same town under another day's traffic, nothing closed; what is known of its streets is kept."""
        other = World.__new__(World)
        other.__dict__.update(self.__dict__, traffic=traffic, closed=set())
        return other

    @property
    def work_factor(self) -> float:
        """See `Ground`."""
        return self.traffic.work_factor

    @property
    def day_factor(self) -> float:
        """See `Ground`."""
        return self.traffic.day_factor

    def mood(self, instant_ms: int) -> float:
        """See `Ground`."""
        return self.traffic.mood(instant_ms)

    def place(self, position: Position) -> Place:
        """See `Ground`."""
        found = self._places.get(position)
        if found is None:
            try:
                snap = self.city.snap(position)
            except OffTheMap as off:
                raise Unreachable(str(off)) from None
            found = self._places[position] = Place(snap.edge, snap.along, snap.position)
        return found

    def course(self, a: Place, b: Place, hour: int, known_closed: frozenset[int]) -> Course:
        """See `Ground`. Where a closed street must be reached all the same, its last bit is driven at walking pace."""
        path = self._path(a, b, hour, known_closed)
        return Course(
            path.seconds,
            path.metres,
            tuple(path.shape[:, 0].tolist()),
            tuple(path.shape[:, 1].tolist()),
            tuple(path.cumulative_s.tolist()),
            path.edges,
            self._ways(path, a),
            self._true_ratio(path, hour),
        )

    def before(self, course: Course, way: int) -> Place | None:
        """See `Ground`."""
        edges = course.edges
        k = next((k for k, edge in enumerate(edges) if int(self.city.edge_way[edge]) == way), 0)
        return Place(edges[k - 1], 1.0, self.city.place(edges[k - 1], 1.0)) if k else None

    def stem_seconds(self, depot: Depot, hour: int) -> float:
        """See `Ground`."""
        return depot.stem_s * float(HOUR_FACTORS[STEM_CLASS][hour % 24])

    def noon_seconds(self, positions: Sequence[Position]) -> np.ndarray:
        """What the map says about every pair of places at noon: float64[n, n] seconds; raises Unreachable."""
        snaps = [_snap(self.place(position)) for position in positions]
        return self._streets[frozenset()].travel_times(snaps, snaps, 12)

    def _path(self, a: Place, b: Place, hour: int, known_closed: frozenset[int]) -> Path:
        key = (a, b, hour, known_closed)
        found = self._paths.get(key)
        if found is None:
            streets = self._streets.get(known_closed)
            if streets is None:
                streets = self._streets[known_closed] = self._streets[frozenset()].with_closed(known_closed)
            try:
                found = self._paths[key] = streets.path(_snap(a), _snap(b), hour)
            except NoWayThrough as none:
                raise Unreachable(str(none)) from None
        return found

    def _ways(self, path: Path, start: Place) -> tuple[tuple[int, float], ...]:
        found: list[tuple[int, float]] = []
        at_m = 0.0
        # A van may leave in either direction: the first edge can be the twin of the one it is snapped to.
        behind = start.along if path.edges and path.edges[0] == start.edge else 1.0 - start.along
        for k, edge in enumerate(path.edges):
            way = int(self.city.edge_way[edge])
            if not found or found[-1][0] != way:
                found.append((way, at_m))
            at_m += float(self.city.edge_metres[edge]) * (1 - behind if k == 0 else 1.0)
        return tuple(found)

    def _true_ratio(self, path: Path, hour: int) -> float:
        edges = np.fromiter(path.edges, np.int64, len(path.edges))
        plain = self._streets[frozenset()].edge_seconds(hour)[edges]
        total = float(plain.sum())
        if total <= 0:
            return self.traffic.day_factor
        return float((plain * self.traffic.edge_pace(hour)[edges]).sum()) / total


def _snap(place: Place) -> Snap:
    return Snap(place.edge, place.along, 0.0, place.position)
