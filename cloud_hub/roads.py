"""Leg times and ways between depots and stops on real streets, by the hour, and what a closure does to them.

A depot may lie outside the town's bundle: its legs are the stem to its gateway, slowed by the hour like a main road,
and the streets from there.
"""

import difflib
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import numpy.typing as npt

from shared.citymap import ROAD_CLASSES, CityMap, Floats, OffTheMap, Snap
from shared.contracts import LegTimes
from shared.quantities import EpochMs, Position
from shared.streets import HOUR_FACTORS, Path, Streets, hour_slices
from shared.work import Depot, Stop

Place = Position | Depot

STEM_CLASS = ROAD_CLASSES.index("primary")
"""A stem runs on main roads and slows down with them."""

FARTHEST_WAY_M = 60.0
"""Somebody who points at the map to name a street points no farther from it than this."""

_CLOSURES_KEPT = 8


class StopsUnreachable(ValueError):
    """No permitted drive leads to these places and back; `names` lists them."""

    def __init__(self, names: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.names = names


class StreetUnknown(ValueError):
    """The map has no street of this name, or no way of this id."""


class Way(msgspec.Struct, frozen=True):
    """One way of the map: its OSM id, street, class, driven length in metres and a point in the middle of it."""

    way: int
    street: str
    road_class: str
    metres: float
    middle: Position


@dataclass(frozen=True, slots=True)
class LegMatrix:
    """Seconds between places: int32[slices, n, n]. Slice k serves the local hours before `slice_end_hours[k]`."""

    seconds: npt.NDArray[np.int32]
    slice_end_hours: tuple[int, ...]

    @property
    def slice_ends_s(self) -> tuple[int, ...]:
        """Seconds after local midnight at which a slice gives way to the next: one end less than there are slices."""
        return tuple(hour * 3600 for hour in self.slice_end_hours[:-1])


class Roads:
    """The streets of one town with the ways that are closed now.

    Every question takes `closed` (OSM way ids); without it the ways closed by `close` count.
    """

    def __init__(self, city: CityMap | FilePath) -> None:
        self.city = city if isinstance(city, CityMap) else CityMap.load(city)
        self.closed: frozenset[int] = frozenset()
        self._open = Streets(self.city)
        self._streets: dict[frozenset[int], Streets] = {}
        self._snaps: dict[Position, Snap] = {}
        self._known_ways = frozenset(self.city.edge_way.tolist())

    def close(self, ways: Iterable[int]) -> frozenset[int]:
        """Close these ways for all questions to come; all that are closed now. Raises StreetUnknown."""
        self.closed = self.closed | self._checked(ways)
        return self.closed

    def reopen(self, ways: Iterable[int]) -> frozenset[int]:
        """Open these ways again; all that are still closed. Raises StreetUnknown."""
        self.closed = self.closed - self._checked(ways)
        return self.closed

    def matrix(
        self,
        places: Sequence[Place],
        names: Sequence[str] = (),
        first_hour: int = 0,
        end_hour: int = 24,
        closed: Iterable[int] | None = None,
    ) -> LegMatrix:
        """The time of every leg between these places, by the local hour in which it begins.

        Hours with the same traffic share a slice. `names` (by default place 0, 1, ...) are used in StopsUnreachable,
        which is raised when a place has no drive to it or back from most others, or lies off the map.
        """
        names = names or tuple(f"place {k}" for k in range(len(places)))
        streets, snaps = self._streets_with(closed), self._snapped(places, names)
        slices = hour_slices(first_hour, end_hour)
        seconds = np.stack([self._one_hour(streets, places, snaps, hour) for hour, _ in slices])
        _refuse_unreachable(seconds[0], names, streets.closed_ways)
        return LegMatrix(np.rint(seconds).astype(np.int32), tuple(end for _, end in slices))

    def leg_times(
        self,
        depot: Depot,
        stops: Sequence[Stop],
        begins_ms: int,
        ends_ms: int,
        zone: str,
        closed: Iterable[int] | None = None,
        roads_version: int = 0,
    ) -> LegTimes:
        """The leg times of a contract: the depot first, then the stops, from one instant to the other.

        `zone` is the IANA name of the town's time zone. Raises StopsUnreachable naming stop ids (or the depot's).
        """
        places: list[Place] = [depot, *(stop.position for stop in stops)]
        names = [depot.depot_id, *(stop.stop_id for stop in stops)]
        streets, snaps = self._streets_with(closed), self._snapped(places, names)
        slices = _instants(begins_ms, ends_ms, ZoneInfo(zone))
        by_factors: dict[bytes, Floats] = {}
        for hour, _ in slices:
            key = HOUR_FACTORS[:, hour].tobytes()
            if key not in by_factors:
                by_factors[key] = self._one_hour(streets, places, snaps, hour)
                _refuse_unreachable(by_factors[key], names, streets.closed_ways)
        seconds = np.stack([by_factors[HOUR_FACTORS[:, hour].tobytes()] for hour, _ in slices])
        return LegTimes.from_matrix(
            roads_version,
            tuple(stop.stop_id for stop in stops),
            tuple(EpochMs(end_ms) for _, end_ms in slices),
            np.rint(seconds).astype(np.int32),
        )

    def path(self, a: Place, b: Place, hour: int, closed: Iterable[int] | None = None) -> Path:
        """The drive from one place to the other in this local hour, a stem as a straight line.

        Raises shared.streets.NoWayThrough, shared.citymap.OffTheMap.
        """
        streets = self._streets_with(closed)
        path = streets.path(self._snap(_on_map(a)), self._snap(_on_map(b)), hour)
        before_s, after_s = _stem_s(a, hour), _stem_s(b, hour)
        if not before_s and not after_s:
            return path
        points, instants = [path.shape], [path.cumulative_s + before_s]
        if isinstance(a, Depot) and before_s:
            points.insert(0, np.array([(a.position.lat, a.position.lon)]))
            instants.insert(0, np.zeros(1))
        total_s = before_s + path.seconds + after_s
        if isinstance(b, Depot) and after_s:
            points.append(np.array([(b.position.lat, b.position.lon)]))
            instants.append(np.array([total_s]))
        shape, cumulative_s = np.concatenate(points), np.concatenate(instants)
        return Path(total_s, path.metres, path.edges, shape, cumulative_s, path.walk_s)

    def ways_on(self, path: Path) -> tuple[Way, ...]:
        """The ways of a path in the order in which they are driven, each run of a way once."""
        run = itertools.groupby(int(self.city.edge_way[edge]) for edge in path.edges)
        return tuple(self.way(way) for way, _ in run)

    def way(self, way: int) -> Way:
        """What the map says of this way. Raises StreetUnknown."""
        self._checked([way])
        edges = np.flatnonzero(self.city.edge_way == way)
        # Both directions of a street are edges; its length is that of one.
        counted = [int(e) for e in edges if not 0 <= self.city.edge_twin[e] < e]
        metres = self.city.edge_metres[counted]
        middle = counted[int(np.searchsorted(np.cumsum(metres), metres.sum() / 2))]
        return Way(
            way,
            self.city.street(middle),
            ROAD_CLASSES[self.city.edge_class[middle]],
            round(float(metres.sum()), 1),
            self.city.place(middle, 0.5),
        )

    def ways_named(self, street: str) -> tuple[Way, ...]:
        """Every way of the street of this name, in whatever case and with or without accents.

        When no street has exactly this name, those whose name contains it. Raises StreetUnknown naming the most
        similar.
        """
        wanted = _plain(street)
        exact = [k for k, name in enumerate(self.city.names) if name and _plain(name) == wanted]
        found = exact or [k for k, name in enumerate(self.city.names) if wanted and wanted in _plain(name)]
        if not found:
            near = difflib.get_close_matches(street, self.city.names, n=3, cutoff=0.5)
            raise StreetUnknown(
                f"{self.city.name} has no street called {street!r}"
                + (f", the most similar are {', '.join(near)}" if near else "")
                + ": give a name as it stands on the map, or a point"
            )
        ways = np.unique(self.city.edge_way[np.isin(self.city.edge_name, found)])
        return tuple(self.way(int(way)) for way in ways)

    def way_at(self, position: Position) -> Way:
        """The way nearest to this point. Raises shared.citymap.OffTheMap when it is farther than FARTHEST_WAY_M."""
        snap = self.city.nearest_edge(position)
        if snap.metres_off > FARTHEST_WAY_M:
            raise OffTheMap(
                f"the nearest street is {snap.metres_off:.0f} m from {position.lat:.6f}, {position.lon:.6f}, expected "
                f"at most {FARTHEST_WAY_M:.0f} m: point closer to the street you mean"
            )
        return self.way(int(self.city.edge_way[snap.edge]))

    def _checked(self, ways: Iterable[int]) -> frozenset[int]:
        asked = frozenset(ways)
        unknown = sorted(asked - self._known_ways)
        if unknown:
            raise StreetUnknown(
                f"{self.city.name} has no drivable way {', '.join(map(str, unknown))}: "
                "take the ids from `ways_named`, or import a newer map"
            )
        return asked

    def _streets_with(self, closed: Iterable[int] | None) -> Streets:
        """A way that this map does not know closes nothing here: another hub's map may know it."""
        wanted = self.closed if closed is None else frozenset(closed) & self._known_ways
        if not wanted:
            return self._open
        if wanted not in self._streets:
            if len(self._streets) >= _CLOSURES_KEPT:
                self._streets.pop(next(iter(self._streets)))
            self._streets[wanted] = self._open.with_closed(wanted)
        return self._streets[wanted]

    def _snap(self, position: Position) -> Snap:
        if position not in self._snaps:
            self._snaps[position] = self.city.snap(position)
        return self._snaps[position]

    def _snapped(self, places: Sequence[Place], names: Sequence[str]) -> list[Snap]:
        snaps, missed = [], []
        for place, name in zip(places, names, strict=True):
            try:
                snaps.append(self._snap(_on_map(place)))
            except OffTheMap:
                # Not the place itself: the reason may come to stand in a record, and a place is somebody's home.
                missed.append(name)
        if missed:
            raise StopsUnreachable(
                tuple(missed), f"{len(missed)} of {len(places)} places are off the map: {', '.join(missed)}"
            )
        return snaps

    def _one_hour(self, streets: Streets, places: Sequence[Place], snaps: Sequence[Snap], hour: int) -> Floats:
        stems = np.array([_stem_s(place, hour) for place in places])
        seconds: Floats = streets.travel_times(snaps, snaps, hour) + stems[:, np.newaxis] + stems[np.newaxis, :]
        np.fill_diagonal(seconds, 0.0)
        return seconds


def _on_map(place: Place) -> Position:
    return place.gateway if isinstance(place, Depot) else place


def _stem_s(place: Place, hour: int) -> float:
    return place.stem_s * float(HOUR_FACTORS[STEM_CLASS, hour % 24]) if isinstance(place, Depot) else 0.0


def _refuse_unreachable(seconds: Floats, names: Sequence[str], closed: frozenset[int]) -> None:
    """Raise StopsUnreachable unless every leg can be driven.

    Whoever cannot be reached from, or cannot reach, most of the others is named; when nobody stands out, all are.
    """
    away = np.isinf(seconds) | np.isinf(seconds.T)
    if not away.any():
        return
    lost = away.sum(axis=1) > len(names) / 2
    if not lost.any():
        lost = away.any(axis=1)
    unreachable = tuple(name for name, is_lost in zip(names, lost, strict=True) if is_lost)
    because = f" with ways {', '.join(map(str, sorted(closed)))} closed" if closed else ""
    raise StopsUnreachable(
        unreachable,
        f"no permitted drive leads to {', '.join(unreachable)} and back{because}, expected all {len(names)} places "
        f"to be connected: {'reopen a street, ' if closed else ''}correct their positions or leave them out",
    )


def _instants(begins_ms: int, ends_ms: int, zone: ZoneInfo) -> list[tuple[int, int]]:
    """The time from one instant to the other, parted where the traffic of the local hour changes: (hour, end in ms).

    Hours are those of the clock on the wall, also on the day it is changed.
    """
    if ends_ms <= begins_ms:
        raise ValueError(f"the leg times end at {ends_ms} ms and begin at {begins_ms} ms, expected a later end")
    slices: list[tuple[int, int]] = []
    now = datetime.fromtimestamp(begins_ms / 1000, UTC)
    end = datetime.fromtimestamp(ends_ms / 1000, UTC)
    while now < end:
        local = now.astimezone(zone)
        until_full = timedelta(minutes=60 - local.minute, seconds=-local.second, microseconds=-local.microsecond)
        following = min(now + until_full, end)
        end_ms = round(following.timestamp() * 1000)
        if slices and (HOUR_FACTORS[:, slices[-1][0]] == HOUR_FACTORS[:, local.hour]).all():
            slices[-1] = (slices[-1][0], end_ms)
        else:
            slices.append((local.hour, end_ms))
        now = following
    return slices


def _plain(name: str) -> str:
    """Lower case without accents: Eteläesplanadi and etelaesplanadi are one street."""
    parted = unicodedata.normalize("NFKD", name.casefold())
    return " ".join("".join(letter for letter in parted if not unicodedata.combining(letter)).split())
