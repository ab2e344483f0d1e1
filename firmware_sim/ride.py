"""How a van moves along one path: speed ramps, red lights, and where it is at any moment of the ride."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from firmware_sim.luck import Luck
from shared.quantities import Position

RAMP_MS = 4_000
METRES_PER_DEGREE = 111_195.0
METRES_PER_LIGHT = 450.0


@dataclass(frozen=True, slots=True)
class Motion:
    """Where a van is and how it moves."""

    position: Position
    speed_mps: float
    heading_deg: float
    odometer_m: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """From standing to standing: begins at `from_ms` of the ride, ends at `to_ms`, covering this share of the ride."""

    from_ms: float
    to_ms: float
    from_share: float
    to_share: float


class Ride:
    """A path with a timetable. Ride time is milliseconds since it began, as if nothing held the van up on the way.

    `shape` is lat, lon by point; `cumulative_s` the map's seconds to each point, which say how the pace differs
    between the path's streets. `lights` are (share of the ride, seconds standing).
    """

    __slots__ = ("_heading", "_lat", "_lon", "_metres", "_share", "_stretches", "lasts_ms", "metres")

    def __init__(
        self,
        lat: Sequence[float],
        lon: Sequence[float],
        cumulative_s: Sequence[float],
        seconds: float,
        lights: Sequence[tuple[float, float]] = (),
    ) -> None:
        self._lat, self._lon = list(lat), list(lon)
        self._metres, self._heading = _measure(self._lat, self._lon)
        self.metres = self._metres[-1]
        whole_s = float(cumulative_s[-1])
        if whole_s > 0:
            self._share = [float(s) / whole_s for s in cumulative_s]
        else:
            self._share = [k / max(1, len(self._lat) - 1) for k in range(len(self._lat))]
        self.lasts_ms = max(1_000, round(seconds * 1000))
        self._stretches = _timetable(self.lasts_ms, lights)

    def share_at(self, ride_ms: float) -> tuple[float, float]:
        """How much of the ride is behind, 0 to 1, and how fast that grows per ride second."""
        for stretch in self._stretches:
            if ride_ms < stretch.to_ms:
                if ride_ms <= stretch.from_ms:
                    return stretch.from_share, 0.0
                lasts = stretch.to_ms - stretch.from_ms
                done, rate = _ease((ride_ms - stretch.from_ms) / lasts, min(0.3, RAMP_MS / lasts))
                covers = stretch.to_share - stretch.from_share
                return stretch.from_share + covers * done, rate * covers / lasts * 1000
        return 1.0, 0.0

    def when_at(self, share: float) -> float:
        """The ride time at which this share of the ride is behind."""
        low, high = 0.0, float(self.lasts_ms)
        while high - low > 1:
            middle = (low + high) / 2
            low, high = (middle, high) if self.share_at(middle)[0] < share else (low, middle)
        return high

    def metres_at(self, ride_ms: float) -> float:
        """Metres behind the van at this ride time."""
        return self._at(self.share_at(ride_ms)[0])[0]

    def share_of_metres(self, metres: float) -> float:
        """The share of the ride at which this many metres are behind."""
        k = min(max(bisect_right(self._metres, metres) - 1, 0), max(0, len(self._metres) - 2))
        ahead = self._metres[k + 1] - self._metres[k] if len(self._metres) > 1 else 0.0
        into = min(1.0, max(0.0, (metres - self._metres[k]) / ahead)) if ahead > 0 else 0.0
        return self._share[k] + (self._share[min(k + 1, len(self._share) - 1)] - self._share[k]) * into

    def motion(self, ride_ms: float, rate: float, odometer_m: float) -> Motion:
        """Where the van is; `rate` is ride time per domain time, 0 while it is held up."""
        share, per_s = self.share_at(ride_ms)
        metres, lat, lon, heading, metres_per_share = self._at(share)
        return Motion(Position(lat, lon), metres_per_share * per_s * rate, heading, odometer_m + metres)

    def _at(self, share: float) -> tuple[float, float, float, float, float]:
        if len(self._lat) < 2:
            return 0.0, self._lat[0], self._lon[0], 0.0, 0.0
        k = min(max(bisect_right(self._share, share) - 1, 0), len(self._share) - 2)
        span = self._share[k + 1] - self._share[k]
        into = min(1.0, max(0.0, (share - self._share[k]) / span)) if span > 0 else 0.0
        length = self._metres[k + 1] - self._metres[k]
        lat = self._lat[k] + (self._lat[k + 1] - self._lat[k]) * into
        lon = self._lon[k] + (self._lon[k + 1] - self._lon[k]) * into
        return self._metres[k] + length * into, lat, lon, self._heading[k], length / span if span > 0 else 0.0


def lights_on(luck: Luck, metres: float) -> list[tuple[float, float]]:
    """The red lights of a ride of this length: (share of the ride, seconds standing), in order."""
    count = min(12, luck.poisson("lights", metres / METRES_PER_LIGHT))
    return sorted((luck.uniform(f"light {k}", 0.05, 0.95), luck.uniform(f"red {k}", 4, 45)) for k in range(count))


def offset(start: Position, heading_deg: float, metres: float) -> Position:
    """The place this far from another in this direction (flat earth: for tens of metres)."""
    turn = math.radians(heading_deg)
    north, east = metres * math.cos(turn), metres * math.sin(turn)
    per_lon = METRES_PER_DEGREE * math.cos(math.radians(start.lat))
    return Position(start.lat + north / METRES_PER_DEGREE, start.lon + east / per_lon)


def _measure(lat: list[float], lon: list[float]) -> tuple[list[float], list[float]]:
    metres, headings = [0.0], []
    for k in range(1, len(lat)):
        north = (lat[k] - lat[k - 1]) * METRES_PER_DEGREE
        east = (lon[k] - lon[k - 1]) * METRES_PER_DEGREE * math.cos(math.radians(lat[k]))
        metres.append(metres[-1] + math.hypot(north, east))
        headings.append(math.degrees(math.atan2(east, north)) % 360)
    return metres, headings or [0.0]


def _timetable(lasts_ms: float, lights: Sequence[tuple[float, float]]) -> list[Stretch]:
    """Stretches of moving with the red lights between them; together they last exactly as long as the ride."""
    red_ms = sum(seconds for _, seconds in lights) * 1000
    shrink = min(1.0, 0.5 * lasts_ms / red_ms) if red_ms else 1.0
    moving_ms = lasts_ms - red_ms * shrink
    stretches, clock, share = [], 0.0, 0.0
    for at_share, seconds in lights:
        arrives = clock + (at_share - share) * moving_ms
        stretches.append(Stretch(clock, arrives, share, at_share))
        clock, share = arrives + seconds * 1000 * shrink, at_share
    stretches.append(Stretch(clock, float(lasts_ms), share, 1.0))
    return [s for s in stretches if s.to_ms > s.from_ms]


def _ease(u: float, ramp: float) -> tuple[float, float]:
    """Progress and its slope on a trapezoid of speed: ramps of this share of the time at both ends."""
    top = 1 / (1 - ramp)
    if u < ramp:
        return top * u * u / (2 * ramp), top * u / ramp
    if u > 1 - ramp:
        return 1 - top * (1 - u) ** 2 / (2 * ramp), top * (1 - u) / ramp
    return top * (u - ramp / 2), top
