"""What a van needs of the town it drives in: places, courses between them, and how slow everything truly is.

The vehicle knows streets only through this; `city` gives it the real ones.
"""

from dataclasses import dataclass
from typing import Protocol

import msgspec

from shared.quantities import Position
from shared.work import Depot

HOUR_MS = 3_600_000


class Unreachable(ValueError):
    """No street leads there."""


class Place(msgspec.Struct, frozen=True):
    """A place on the streets: on this edge, with this share (0 to 1) of its length behind it."""

    edge: int
    along: float
    position: Position


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """A way to drive: points with the map's seconds to each, and the ways driven with the metres at which each begins.

    `true_ratio` is its true time as a multiple of the map's, before mood, driver and luck.
    """

    seconds: float
    metres: float
    lat: tuple[float, ...]
    lon: tuple[float, ...]
    cumulative_s: tuple[float, ...]
    edges: tuple[int, ...]
    ways: tuple[tuple[int, float], ...]
    true_ratio: float


@dataclass(frozen=True, slots=True)
class LocalTime:
    """The hour people live by: domain time plus a fixed offset."""

    utc_offset_s: int = 7_200

    def hour(self, instant_ms: int) -> float:
        """Hours since local midnight, 0 to 24."""
        return ((instant_ms / 1000 + self.utc_offset_s) % 86_400) / 3600

    def weekday(self, instant_ms: int) -> int:
        """0 for Monday. 1970-01-01 was a Thursday."""
        return int((instant_ms / 1000 + self.utc_offset_s) // 86_400 + 3) % 7


class Ground(Protocol):
    """One town on one day. `closed` holds the ways that are closed now, whether anybody knows or not."""

    closed: set[int]
    local: LocalTime

    @property
    def work_factor(self) -> float:
        """How much longer work on foot takes on this day."""

    @property
    def day_factor(self) -> float:
        """How much longer driving takes on this day, all over the town."""

    def mood(self, instant_ms: int) -> float:
        """How the town's traffic deviates from its day at this instant."""

    def place(self, position: Position) -> Place:
        """The place on the streets nearest to this position; raises Unreachable when there is none near."""

    def course(self, a: Place, b: Place, hour: int, known_closed: frozenset[int]) -> Course:
        """The course a driver takes in this hour who knows of these closures; raises Unreachable."""

    def before(self, course: Course, way: int) -> Place | None:
        """Where a course meets a way: the end of the street before it; None when it begins with that way."""

    def stem_seconds(self, depot: Depot, hour: int) -> float:
        """What the map says about the drive between depot and gateway when it begins in this hour."""
