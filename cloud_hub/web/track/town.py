"""A small drawing of the streets around one door, from the city bundle alone: no tiles, no third party."""

import html
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shared.citymap import METRES_PER_DEGREE, BundleUnreadable, CityMap
from shared.logs import log
from shared.quantities import Position

WIDTH, HEIGHT = 480, 340
LEAST_HALF_M = 220.0
"""Half the height drawn when the van is near: some four blocks."""

MOST_HALF_M = 1_400.0
"""A van farther off than that is not drawn: there would be nothing to see but a web of lines."""

MARGIN = 1.6
MAJOR = frozenset({"motorway", "trunk", "primary", "secondary", "tertiary"})
STREET_M = {"service": 4.0, "minor": 8.0, "major": 12.0}
LEAST_PX = {"service": 1.0, "minor": 2.0, "major": 3.5}
EDGE_PX = 1.5
MOST_NAMES = 7
MOST_KEPT = 64
LEAST_STEP_PX = 2
LETTER_PX = 9.0
LEAST_SHARE = 0.4
"""A street is drawn in short pieces; its name goes where one piece is at least this much of the name's length."""

DOOR = '<path d="M-8 7V-1L0-8 8-1V7H3V1H-3V7z"/>'
VAN = (
    '<path d="M-9-6H3V5H-9zM4-3H8L10 1V5H4z"/>'
    '<circle class="wheel" cx="-5" cy="6" r="2.4"/><circle class="wheel" cx="6" cy="6" r="2.4"/>'
)

Points = npt.NDArray[np.float64]


class _Shape(NamedTuple):
    """A line or an area: its points in degrees (float64 [k, 2], east then north), where it lies, and what it is."""

    points: Points
    west: float
    south: float
    east: float
    north: float
    kind: str
    name: str


class _View(NamedTuple):
    """What is drawn: the middle in degrees, and pixels per degree east and north."""

    lon: float
    lat: float
    east_px: float
    north_px: float

    @property
    def px_per_m(self) -> float:
        """Pixels per metre."""
        return self.north_px / METRES_PER_DEGREE

    def px(self, points: Points) -> Points:
        """Places as pixels: float64 [k, 2], right then down."""
        right = WIDTH / 2 + (points[:, 0] - self.lon) * self.east_px
        down = HEIGHT / 2 - (points[:, 1] - self.lat) * self.north_px
        return np.column_stack((right, down))

    def sees(self, shape: _Shape) -> bool:
        """Whether any of the shape's box is in the picture."""
        half_lon, half_lat = WIDTH / 2 / self.east_px, HEIGHT / 2 / self.north_px
        return (
            shape.east >= self.lon - half_lon
            and shape.west <= self.lon + half_lon
            and shape.north >= self.lat - half_lat
            and shape.south <= self.lat + half_lat
        )


class Town:
    """The streets of one bundle, ready to be drawn around any door. Safe from any thread."""

    def __init__(self, city: CityMap) -> None:
        try:
            layers: Any = city.basemap
        except (BundleUnreadable, AssertionError) as wrong:
            log("tracking_has_no_map", why=wrong)
            layers = {}
        self.attribution = city.source.attribution
        self._areas = {name: list(_shapes(layers.get(name), "Polygon")) for name in ("parks", "water", "buildings")}
        self._roads = list(_shapes(layers.get("roads"), "LineString"))
        # A van is shown on a grid and asked after every few seconds: mostly nothing has moved.
        self.drawing = lru_cache(MOST_KEPT)(self._drawing)

    def forget(self) -> None:
        """Keep no drawing: one of them may show the door of somebody who has just been forgotten."""
        self.drawing.cache_clear()

    def _drawing(self, door: Position, van: Position, title: str, door_name: str, van_name: str) -> str:
        """An SVG element of the two and the streets between and around them; "" when they are too far apart to see.

        The texts are escaped here.
        """
        view = _fitted(door, van)
        if view is None or not self._roads:
            return ""
        roads = [shape for shape in self._roads if view.sees(shape)]
        if not roads:
            return ""
        parts = [
            f'<svg class="town" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="town-title">',
            f'<title id="town-title">{html.escape(title)}</title>',
            f'<rect class="land" width="{WIDTH}" height="{HEIGHT}"/>',
        ]
        for layer, shapes in self._areas.items():
            drawn = "".join(_path(view.px(shape.points), closed=True) for shape in shapes if view.sees(shape))
            parts.append(f'<path class="{layer}" d="{drawn}"/>' if drawn else "")
        drawn_by_kind = {
            kind: "".join(_path(view.px(shape.points)) for shape in roads if shape.kind == kind) for kind in STREET_M
        }
        for weight, edge_px in (("casing", EDGE_PX), ("street", 0.0)):
            for kind, drawn in drawn_by_kind.items():
                width = max(LEAST_PX[kind], STREET_M[kind] * view.px_per_m) + 2 * edge_px
                parts.append(f'<path class="{weight}" stroke-width="{width:.1f}" d="{drawn}"/>' if drawn else "")
        marks = view.px(np.array([[door.lon, door.lat], [van.lon, van.lat]])).tolist()
        parts += _names(view, roads, marks)
        parts.append(_mark(view, door, "door", door_name))
        parts.append(_mark(view, van, "van", van_name))
        return "".join([*parts, "</svg>"])


def _fitted(door: Position, van: Position) -> _View | None:
    lat = (door.lat + van.lat) / 2
    narrowing = math.cos(math.radians(lat))
    half_north_m = abs(door.lat - van.lat) / 2 * METRES_PER_DEGREE
    half_east_m = abs(door.lon - van.lon) / 2 * METRES_PER_DEGREE * narrowing
    half_m = max(LEAST_HALF_M, MARGIN * half_north_m, MARGIN * half_east_m * HEIGHT / WIDTH)
    if half_m > MOST_HALF_M:
        return None
    px_per_m = HEIGHT / 2 / half_m
    north_px = px_per_m * METRES_PER_DEGREE
    return _View((door.lon + van.lon) / 2, lat, north_px * narrowing, north_px)


def _shapes(layer: Any, kind: str) -> Iterator[_Shape]:
    for feature in (layer or {}).get("features", ()):
        geometry = feature["geometry"]
        if geometry["type"] != kind:
            continue
        points = np.array(geometry["coordinates"][0] if kind == "Polygon" else geometry["coordinates"], np.float64)
        (west, south), (east, north) = points.min(axis=0), points.max(axis=0)
        road = feature["properties"].get("class", "")
        weight = "major" if road in MAJOR else "service" if road == "service" else "minor"
        yield _Shape(points, west, south, east, north, weight, feature["properties"].get("name", ""))


def _path(points: Points, closed: bool = False) -> str:
    """SVG path data in whole pixels, each point by its step from the one before; those too near to see are left out."""
    whole = np.rint(points).astype(int).tolist()
    kept = whole[:1]
    for right, down in whole[1:-1]:
        if abs(right - kept[-1][0]) + abs(down - kept[-1][1]) >= LEAST_STEP_PX:
            kept.append([right, down])
    if whole[-1] != kept[-1]:
        kept.append(whole[-1])
    if len(kept) < (3 if closed else 2):
        return ""
    steps = [f"{x - from_x} {y - from_y}" for (from_x, from_y), (x, y) in itertools.pairwise(kept)]
    return f"M{kept[0][0]} {kept[0][1]}l{' '.join(steps).replace(' -', '-')}{'z' if closed else ''}"


def _names(view: _View, roads: Iterable[_Shape], marks: Iterable[Sequence[float]]) -> list[str]:
    """The names of the few longest streets in the picture, each along its longest straight piece that has room."""
    best: dict[str, tuple[float, float, float, float]] = {}
    for shape in roads:
        if not shape.name or shape.kind == "service":
            continue
        points = view.px(shape.points)
        for (x, y), (to_x, to_y) in itertools.pairwise(points.tolist()):
            length = math.hypot(to_x - x, to_y - y)
            middle_x, middle_y = (x + to_x) / 2, (y + to_y) / 2
            is_inside = 60 < middle_x < WIDTH - 60 and 30 < middle_y < HEIGHT - 30
            if is_inside and length > best.get(shape.name, (0.0,))[0]:
                best[shape.name] = (length, middle_x, middle_y, math.degrees(math.atan2(to_y - y, to_x - x)))
    taken = [(x, y - 10) for x, y in marks]
    parts: list[str] = []
    for name, (length, x, y, turned) in sorted(best.items(), key=lambda item: -item[1][0]):
        is_free = all(math.hypot(x - other_x, y - other_y) > 70 for other_x, other_y in taken)
        if len(parts) < MOST_NAMES and is_free and length > LEAST_SHARE * LETTER_PX * len(name):
            upright = turned - 180 if turned > 90 else turned + 180 if turned < -90 else turned
            taken.append((x, y))
            parts.append(
                f'<text class="name" x="{x:.0f}" y="{y:.0f}" dy="5" transform="rotate({upright:.0f} {x:.0f} {y:.0f})">'
                f"{html.escape(name)}</text>"
            )
    return parts


def _mark(view: _View, place: Position, kind: str, name: str) -> str:
    x, y = view.px(np.array([[place.lon, place.lat]]))[0]
    halo = '<circle class="halo" r="28"/>' if kind == "van" else ""
    sign = DOOR if kind == "door" else VAN
    return (
        f'<g class="mark {kind}" transform="translate({x:.0f} {y:.0f})">{halo}<circle class="disc" r="17"/>{sign}'
        f'<text y="-25">{html.escape(name)}</text></g>'
    )
