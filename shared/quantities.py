"""The few quantities everything is measured in: instants, durations, distances, positions and windows."""

import math
from typing import NewType

import msgspec

EpochMs = NewType("EpochMs", int)
"""An instant of domain time: whole milliseconds since 1970-01-01T00:00Z."""

Seconds = NewType("Seconds", int)
"""A duration on the scale of a stop or a leg."""

EARTH_RADIUS_M = 6_371_008.8  # Mean radius, IUGG.


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A place on the earth, WGS 84, in degrees: north and east are positive."""

    lat: float
    lon: float


class TimeWindow(msgspec.Struct, frozen=True, array_like=True):
    """From the first to the last instant at which service may begin."""

    opens_ms: EpochMs
    closes_ms: EpochMs

    def holds(self, instant_ms: int) -> bool:
        """Whether service may begin at this instant."""
        return self.opens_ms <= instant_ms <= self.closes_ms

    def late_s(self, instant_ms: int) -> float:
        """Seconds by which this instant misses the end of the window; 0 when it does not."""
        return max(0, instant_ms - self.closes_ms) / 1000

    def within(self, other: "TimeWindow") -> bool:
        """Whether every instant of this window is one of the other's."""
        return other.opens_ms <= self.opens_ms and self.closes_ms <= other.closes_ms


def metres_between(a: Position, b: Position) -> float:
    """Great-circle distance in metres (haversine formula)."""
    lat_a, lat_b = math.radians(a.lat), math.radians(b.lat)
    half_lat = (lat_b - lat_a) / 2
    half_lon = math.radians(b.lon - a.lon) / 2
    chord = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, chord)))
