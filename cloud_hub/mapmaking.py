"""Any OpenStreetMap extract becomes a city bundle.

Read once with pyosmium: ways that a delivery van may drive become edges cut at every junction, relations become
forbidden turns, closed ways and multipolygons become the areas of the basemap, and whatever carries a house number
or is a named shop becomes an address.

Tags mean what the OpenStreetMap wiki says on Key:access, Key:oneway, Key:maxspeed, Key:barrier and
Relation:restriction.
"""

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import osmium.filter
import osmium.osm

from shared.citymap import (
    LAYERS,
    ROAD_CLASSES,
    Address,
    CityMap,
    Floats,
    Manifest,
    Source,
    metres_along,
    save,
)
from shared.quantities import Position
from shared.streets import U_TURN_S, core_edges

Progress = Callable[[str, int], None]
"""Told the name of the stage and how many things it has done so far."""

Tags = Mapping[str, str]
Point = tuple[float, float]


class MapUnreadable(ValueError):
    """This file is not an OpenStreetMap extract."""


class NothingToDriveOn(ValueError):
    """This extract has no streets that a delivery van may use and come back from."""


# Free-flow limits by class where the map gives none, km/h: within towns, as most of Europe has them.
_DEFAULT_KPH = {
    "motorway": 100.0,
    "trunk": 80.0,
    "primary": 50.0,
    "secondary": 50.0,
    "tertiary": 50.0,
    "unclassified": 40.0,
    "residential": 30.0,
    "living_street": 10.0,
    "service": 15.0,
}
_LINK_KPH = 40.0
_ROUNDABOUT_KPH = 25.0
_COURTYARD_KPH = 10.0
_VAN_KPH = 100.0

_OF_LIMIT = 0.8
"""Vans do four fifths of the limit between two junctions: OSRM's car profile has the same `speed_reduction`."""

_NAMED_LIMITS_KPH = {
    "walk": 7.0,
    "none": 130.0,
    "living_street": 10.0,
    "urban": 50.0,
    "rural": 80.0,
    "trunk": 80.0,
    "motorway": 110.0,
    "bicycle_road": 30.0,
}
"""Implicit limits (`FI:urban`, `DE:living_street`) by what follows the country."""

_KPH_PER_MILE = 1.609344
_KPH_PER_KNOT = 1.852

_ACCESS_KEYS = ("delivery", "goods", "motorcar", "motor_vehicle", "vehicle", "access")
"""Most particular first: the first that is given decides."""

_FREE_ACCESS = frozenset({"yes", "permissive", "designated", "official", "public", "unknown", "allowed"})
_LOCAL_ACCESS = frozenset({"destination", "customers", "delivery", "residents", "permit", "tenants"})
_BLOCKING_BARRIERS = frozenset(
    {
        "bollard",
        "block",
        "jersey_barrier",
        "log",
        "debris",
        "chain",
        "cycle_barrier",
        "bus_trap",
        "sump_buster",
        "planter",
    }
)
_SIGNAL_S = 8.0
_CROSSING_SIGNAL_S = 1.5
_CROSSING_S = 0.5
_GIVE_WAY_S = 2.0
_STOP_SIGN_S = 4.0
_CALMING_S = 2.0
"""Mean waits. A light of 90 s that is red for half of it, met at random, holds a van for 11 s; a lit junction usually
has one light and two lit crossings on each way over it, which share that.
"""

_NEAR_TURN_S = 3.0
_FAR_TURN_S = 6.0
_STRAIGHT_DEGREES = 35.0
_SHARP_DEGREES = 150.0
"""A turn across the oncoming lane costs twice the other one; what bends less than this is no turn."""

_NO_ADDRESS_AMENITIES = (
    "parking parking_space parking_entrance bench bicycle_parking waste_basket waste_disposal recycling post_box "
    "telephone vending_machine atm fountain clock toilets shelter taxi bicycle_rental motorcycle_parking "
    "drinking_water charging_station bbq hunting_stand grit_bin loading_dock photo_booth public_bookcase car_sharing "
    "boat_rental ferry_terminal"
)
_WATER_TAGS = frozenset({"natural=water", "landuse=reservoir", "landuse=basin", "waterway=riverbank", "waterway=dock"})
_PARK_TAGS = (
    "leisure=park leisure=garden leisure=playground leisure=pitch leisure=golf_course leisure=nature_reserve "
    "leisure=dog_park landuse=grass landuse=forest landuse=meadow landuse=recreation_ground landuse=village_green "
    "landuse=cemetery landuse=allotments natural=wood natural=scrub natural=heath natural=grassland"
)
_DRAWN_PATHS = frozenset({"pedestrian", "footway", "cycleway", "path", "steps", "track", "bridleway"})


def import_city(
    pbf: Path, folder: Path, name: str = "", *, drives_on_left: bool = False, progress: Progress | None = None
) -> Manifest:
    """Make the bundle of this extract in this folder and return its first page.

    Reads every format pyosmium knows by the file's name (.osm.pbf, .osm, .osm.gz, .opl). `name` is the town's, ""
    takes the file's. Raises MapUnreadable when the file is no extract, NothingToDriveOn when it holds no connected
    streets.
    """
    city, layers = read_city(pbf, name, drives_on_left=drives_on_left, progress=progress)
    return save(city, layers, folder)


def read_city(
    pbf: Path, name: str = "", *, drives_on_left: bool = False, progress: Progress | None = None
) -> tuple[CityMap, dict[str, Any]]:
    """The town of this extract, and the layers of its basemap as GeoJSON. Raises as `import_city`."""
    progress = progress or (lambda _stage, _done: None)
    found = _read_extract(pbf, progress)
    if not found.streets:
        classes = ", ".join(f"{count} {kind}" for kind, count in found.highways.most_common(5)) or "no highway at all"
        raise NothingToDriveOn(
            f"{pbf} has {found.objects} tagged objects but no street a van may use (found: {classes}), "
            f"expected ways like highway=residential: choose a larger or another area"
        )
    progress("cutting streets at junctions", 0)
    graph = _Graph(found, drives_on_left)
    city = graph.city(name or _town_name(pbf), _source(pbf, found), _bounds(found), _with_levels(found, progress))
    progress("finding what is connected", len(city.edge_from))
    core = core_edges(city)
    if core.sum() < 2:
        raise NothingToDriveOn(
            f"{pbf} has {len(city.edge_from)} pieces of street but none can be driven to and left again, "
            f"expected a network: choose a larger area"
        )
    city = replace(city, edge_core=core, edge_halts=graph.halting(core))
    return city, {layer: {"type": "FeatureCollection", "features": found.layers[layer]} for layer in LAYERS}


def limit_kph(text: str) -> float | None:
    """The speed limit a maxspeed tag states, in km/h: "30", "50 mph", "FI:urban", "walk"; None when it states none."""
    first = re.split("[;|]", text, maxsplit=1)[0].strip().lower()
    number = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(km/h|kmh|kph|mph|knots)?", first)
    if number:
        factor = {"mph": _KPH_PER_MILE, "knots": _KPH_PER_KNOT}.get(number[2] or "", 1.0)
        kph = float(number[1]) * factor
        return kph if kph > 0 else None
    kind = first.rpartition(":")[2]
    zone = re.fullmatch(r"(?:zone)?:?(\d+)", kind)
    return float(zone[1]) if zone and float(zone[1]) > 0 else _NAMED_LIMITS_KPH.get(kind)


def access_of(tags: Tags) -> str:
    """May a delivery van use this way: "free", "local" (only when it has business there) or "no"."""
    highway = tags.get("highway", "")
    stated = next((tags[key] for key in _ACCESS_KEYS if key in tags), None)
    words = {word.strip() for word in stated.split(";")} if stated is not None else set()
    if highway == "pedestrian":
        # Closed to vehicles unless it says otherwise for vehicles, not for everybody.
        explicit = next((tags[key] for key in _ACCESS_KEYS[:-1] if key in tags), "")
        return "local" if explicit in _FREE_ACCESS | _LOCAL_ACCESS else "no"
    if stated is None or words & _FREE_ACCESS:
        return "free"
    return "local" if words & _LOCAL_ACCESS else "no"


def directions_of(tags: Tags) -> tuple[bool, bool]:
    """Whether this way may be driven as it is drawn, and against that."""
    stated = tags.get("oneway:motor_vehicle") or tags.get("oneway", "")
    if stated in ("yes", "true", "1"):
        return True, False
    if stated in ("-1", "reverse"):
        return False, True
    if stated == "reversible":
        # Its direction changes with the hour, so neither can be counted on.
        return False, False
    is_round = tags.get("junction") in ("roundabout", "circular")
    return True, not ((is_round or tags.get("highway") == "motorway") and stated != "no")


@dataclass(frozen=True, slots=True)
class _Street:
    """One way a van may drive: its nodes in order, and what its tags say."""

    way: int
    name: str
    road_class: int
    kph: tuple[float, float]
    directions: tuple[bool, bool]
    is_local: bool
    is_hidden: bool
    nodes: tuple[int, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class _Restriction:
    kind: str
    from_ways: tuple[int, ...]
    via_nodes: tuple[int, ...]
    via_ways: tuple[int, ...]
    to_ways: tuple[int, ...]


@dataclass(slots=True)
class _Extract:
    """What was read, before it becomes a graph."""

    objects: int = 0
    timestamp: str = ""
    bounds: tuple[float, float, float, float] | None = None
    highways: Counter[str] = field(default_factory=Counter)
    streets: list[_Street] = field(default_factory=list)
    restrictions: list[_Restriction] = field(default_factory=list)
    blocked: set[int] = field(default_factory=set)
    waits: dict[int, tuple[float, float]] = field(default_factory=dict)
    addresses: list[Address] = field(default_factory=list)
    outlines: list[tuple[int, Floats]] = field(default_factory=list)
    layers: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {layer: [] for layer in LAYERS})


def _read_extract(path: Path, progress: Progress) -> _Extract:
    if not path.is_file():
        raise MapUnreadable(f"{path} is not a file, expected an OpenStreetMap extract (.osm.pbf): give the path of one")
    found = _Extract()
    try:
        with osmium.io.Reader(str(path), osmium.osm.NOTHING) as reader:
            header = reader.header()
            found.timestamp = header.get("osmosis_replication_timestamp") or header.get("timestamp")
            box = header.box()
            if box.valid():
                found.bounds = (box.bottom_left.lat, box.bottom_left.lon, box.top_right.lat, box.top_right.lon)
        objects = osmium.FileProcessor(str(path)).with_areas().with_filter(osmium.filter.EmptyTagFilter())
        thing: Any  # The stubs know changesets without the is_... questions; extracts hold none.
        for thing in objects:
            found.objects += 1
            if found.objects % 20_000 == 0:
                progress("reading the extract", found.objects)
            if thing.is_node():
                _take_node(found, thing)
            elif thing.is_way():
                _take_way(found, thing)
            elif thing.is_area():
                _take_area(found, thing)
            elif thing.is_relation():
                _take_restriction(found, thing)
    except (RuntimeError, ValueError, OSError, MemoryError) as trouble:
        size = path.stat().st_size
        remedy = "sort it with `osmium sort`" if "out of order" in str(trouble) else "fetch it again"
        raise MapUnreadable(
            f"{path} ({size} bytes) cannot be read as OpenStreetMap data after {found.objects} objects ({trouble}), "
            f"expected a whole .osm.pbf, .osm or .opl file: {remedy}"
        ) from trouble
    progress("reading the extract", found.objects)
    return found


def _take_node(found: _Extract, node: Any) -> None:
    tags = dict(node.tags)
    if not node.location.valid():
        return
    barrier, highway = tags.get("barrier"), tags.get("highway")
    if barrier:
        stated = next((tags[key] for key in _ACCESS_KEYS if key in tags), None)
        is_open = stated in _FREE_ACCESS or stated in _LOCAL_ACCESS
        if (barrier in _BLOCKING_BARRIERS and not is_open) or (stated is not None and not is_open):
            found.blocked.add(node.id)
    wait_s = {
        "traffic_signals": _SIGNAL_S,
        "stop": _STOP_SIGN_S,
        "give_way": _GIVE_WAY_S,
        "crossing": _CROSSING_SIGNAL_S if tags.get("crossing") == "traffic_signals" else _CROSSING_S,
    }.get(highway or "", _CALMING_S if tags.get("traffic_calming") in ("bump", "hump", "table", "cushion") else 0.0)
    if wait_s:
        direction = tags.get("traffic_signals:direction") or tags.get("direction")
        found.waits[node.id] = (0.0 if direction == "backward" else wait_s, 0.0 if direction == "forward" else wait_s)
    _take_address(found, tags, Position(round(node.location.lat, 7), round(node.location.lon, 7)))


def _take_way(found: _Extract, way: Any) -> None:
    tags = dict(way.tags)
    highway = tags.get("highway")
    if tags.get("natural") == "coastline":
        _draw_line(found, "water", way, {"kind": "coastline"})
    if tags.get("waterway") in ("river", "canal", "stream"):
        _draw_line(found, "water", way, {"kind": tags["waterway"], "name": tags.get("name", "")})
    if highway is None:
        return
    found.highways[highway] += 1
    road_class = highway.removesuffix("_link")
    is_area = tags.get("area") == "yes"
    if not is_area and (road_class in ROAD_CLASSES or highway in _DRAWN_PATHS):
        kind = road_class if road_class in ROAD_CLASSES else highway
        tunnel = {"tunnel": True} if _is_hidden(tags) else {}
        _draw_line(found, "roads", way, {"way": way.id, "class": kind, "name": tags.get("name", ""), **tunnel})
    road_class = {"pedestrian": "living_street", "road": "unclassified"}.get(road_class, road_class)
    access, directions = access_of(tags), directions_of(tags)
    if is_area or road_class not in ROAD_CLASSES or access == "no" or not any(directions):
        return
    for nodes, points in _whole_runs(way):
        found.streets.append(
            _Street(
                way=way.id,
                name=" ".join((tags.get("name", "") or tags.get("ref", "")).split()),
                road_class=ROAD_CLASSES.index(road_class),
                kph=(_free_flow_kph(tags, "forward"), _free_flow_kph(tags, "backward")),
                directions=directions,
                is_local=access == "local",
                is_hidden=_is_hidden(tags),
                nodes=nodes,
                points=points,
            )
        )


def _is_hidden(tags: Tags) -> bool:
    """Whether the way runs below the houses, where nobody stops to deliver."""
    return tags.get("tunnel", "no") not in ("no", "building_passage") or tags.get("layer", "0").startswith("-")


def _free_flow_kph(tags: Tags, direction: str) -> float:
    highway = tags["highway"]
    road_class = highway.removesuffix("_link")
    keys = (f"maxspeed:{direction}", "maxspeed", "maxspeed:type", "source:maxspeed")
    kph = limit_kph(next((tags[key] for key in keys if key in tags), ""))
    if kph is None:
        kph = _DEFAULT_KPH.get(road_class, 10.0 if highway == "pedestrian" else 40.0)
        if highway.endswith("_link"):
            kph = min(kph, _LINK_KPH)
    if tags.get("service") in ("driveway", "parking_aisle", "alley", "drive-through"):
        kph = min(kph, _COURTYARD_KPH / _OF_LIMIT)
    if tags.get("junction") in ("roundabout", "circular"):
        kph = min(kph, _ROUNDABOUT_KPH / _OF_LIMIT)
    return max(3.0, min(kph * _OF_LIMIT, _VAN_KPH))


def _whole_runs(way: Any) -> Iterator[tuple[tuple[int, ...], tuple[Point, ...]]]:
    """The way's nodes and points where the extract holds them: an extract cut at its border lacks some nodes."""
    run: list[tuple[int, Point]] = []
    for node in [*way.nodes, None]:
        if node is not None and node.location.valid():
            if not run or run[-1][0] != node.ref:
                run.append((node.ref, (round(node.location.lat, 7), round(node.location.lon, 7))))
            continue
        if len(run) > 1:
            yield tuple(ref for ref, _ in run), tuple(point for _, point in run)
        run = []


def _draw_line(found: _Extract, layer: str, way: Any, properties: dict[str, Any]) -> None:
    for _, points in _whole_runs(way):
        line = [[round(lon, 6), round(lat, 6)] for lat, lon in points]
        found.layers[layer].append(
            {"type": "Feature", "properties": properties, "geometry": {"type": "LineString", "coordinates": line}}
        )


def _take_area(found: _Extract, area: Any) -> None:
    tags = dict(area.tags)
    rings = _rings(area)
    if not rings:
        return
    pairs = {f"{key}={value}" for key, value in tags.items()}
    if "building" in tags and tags["building"] != "no":
        levels = _levels(tags)
        _draw_area(found, "buildings", rings, {"levels": levels} if levels else {})
        if levels:
            found.outlines.extend((levels, np.array(polygon[0])) for polygon in rings)
    elif pairs & _WATER_TAGS:
        _draw_area(found, "water", rings, {"name": tags.get("name", "")})
    elif pairs & set(_PARK_TAGS.split()):
        _draw_area(found, "parks", rings, {"name": tags.get("name", "")})
    outer = np.array(rings[0][0][:-1] or rings[0][0])
    south_west, north_east = outer.min(axis=0), outer.max(axis=0)
    middle = (south_west + north_east) / 2
    _take_address(found, tags, Position(round(float(middle[1]), 7), round(float(middle[0]), 7)))


def _rings(area: Any) -> list[list[list[list[float]]]]:
    """GeoJSON coordinates of a multipolygon: polygons of rings (the outer one first) of lon, lat."""

    def ring_points(ring: Any) -> list[list[float]]:
        return [[round(node.lon, 6), round(node.lat, 6)] for node in ring]

    return [
        [ring_points(outer), *(ring_points(inner) for inner in area.inner_rings(outer))] for outer in area.outer_rings()
    ]


def _draw_area(found: _Extract, layer: str, rings: list[list[list[list[float]]]], properties: dict[str, Any]) -> None:
    kind, coordinates = ("Polygon", rings[0]) if len(rings) == 1 else ("MultiPolygon", rings)
    shape = {"type": kind, "coordinates": coordinates}
    found.layers[layer].append({"type": "Feature", "properties": properties, "geometry": shape})


def _take_address(found: _Extract, tags: Tags, position: Position) -> None:
    shop = _shop_kind(tags)
    number = tags.get("addr:housenumber", "")
    street = tags.get("addr:street", "") or tags.get("addr:place", "")
    if not shop and not (number and street):
        return
    found.addresses.append(
        Address(
            street=street,
            number=number,
            postcode=tags.get("addr:postcode", ""),
            city=tags.get("addr:city", ""),
            position=position,
            name=tags.get("name", ""),
            kind="shop" if shop else "address",
            opening_hours=tags.get("opening_hours", ""),
            levels=_levels(tags),
        )
    )


def _shop_kind(tags: Tags) -> str:
    """What business is here, "" when none that has a name."""
    if "name" not in tags:
        return ""
    for key in ("shop", "amenity", "office", "craft"):
        if tags.get(key, "no") not in ("no", "vacant") and tags[key] not in _NO_ADDRESS_AMENITIES.split():
            return tags[key]
    lodging = tags.get("tourism", "")
    return lodging if lodging in ("hotel", "hostel", "guest_house", "museum", "gallery") else ""


def _levels(tags: Tags) -> int:
    number = re.match(r"\d+", tags.get("building:levels", ""))
    return min(int(number[0][:4]), 200) if number else 0


def _take_restriction(found: _Extract, relation: Any) -> None:
    tags = dict(relation.tags)
    kind = tags.get("restriction") or tags.get("restriction:motor_vehicle") or tags.get("restriction:motorcar", "")
    exempt = {word.strip() for word in tags.get("except", "").split(";")}
    if tags.get("type") != "restriction" or not kind.startswith(("no_", "only_")) or exempt & set(_ACCESS_KEYS):
        return

    def members(role: str, of_type: str) -> tuple[int, ...]:
        return tuple(member.ref for member in relation.members if member.role == role and member.type == of_type)

    restriction = _Restriction(kind, members("from", "w"), members("via", "n"), members("via", "w"), members("to", "w"))
    if restriction.from_ways and restriction.to_ways and (restriction.via_nodes or restriction.via_ways):
        found.restrictions.append(restriction)


class _Graph:
    """Streets cut into edges, and which edge may follow which."""

    def __init__(self, found: _Extract, drives_on_left: bool) -> None:
        self._found = found
        self._far_side = 1.0 if drives_on_left else -1.0
        self._nodes: dict[int, int] = {}
        self._node_points: list[Point] = []
        self._names: dict[str, int] = {"": 0}
        self._from: list[int] = []
        self._to: list[int] = []
        self._twin: list[int] = []
        self._street: list[_Street] = []
        self._kph: list[float] = []
        self._wait_s: list[float] = []
        self._shapes: list[tuple[Point, ...]] = []
        self._cut_streets()
        self._leaving = _grouped(self._from)
        self._arriving = _grouped(self._to)
        self._edges_of_way = _grouped([street.way for street in self._street])
        self._blocked = {self._nodes[node] for node in found.blocked if node in self._nodes}
        self._banned, self._chains = self._forbidden()

    def city(
        self, name: str, source: Source, bounds: tuple[float, float, float, float], addresses: tuple[Address, ...]
    ) -> CityMap:
        """The town, with every edge still counted as connected."""
        turns = self._turns()
        everything = np.ones(len(self._from), bool)
        nodes = np.array(self._node_points)
        points = np.array([point for shape in self._shapes for point in shape])
        metres = np.array([max(0.5, metres_along(np.array(shape)).sum()) for shape in self._shapes], dtype=np.float32)
        return CityMap(
            name=name,
            bounds=bounds,
            node_lat=nodes[:, 0],
            node_lon=nodes[:, 1],
            edge_from=np.array(self._from, dtype=np.int32),
            edge_to=np.array(self._to, dtype=np.int32),
            edge_metres=metres,
            edge_kph=np.array(self._kph, dtype=np.float32),
            edge_wait_s=np.array(self._wait_s, dtype=np.float32),
            edge_class=np.array([street.road_class for street in self._street], dtype=np.uint8),
            edge_way=np.array([street.way for street in self._street], dtype=np.int64),
            edge_name=np.array([self._names[street.name] for street in self._street], dtype=np.int32),
            edge_twin=np.array(self._twin, dtype=np.int32),
            edge_local=np.array([street.is_local for street in self._street], dtype=bool),
            edge_core=everything,
            edge_halts=everything,
            shape_start=np.cumsum([0, *map(len, self._shapes)]).astype(np.int32),
            shape_lat=points[:, 0],
            shape_lon=points[:, 1],
            turn_from=np.array([origin for origin, _, _ in turns], dtype=np.int32),
            turn_to=np.array([target for _, target, _ in turns], dtype=np.int32),
            turn_penalty_s=np.array([seconds for _, _, seconds in turns], dtype=np.float32),
            banned_chains=tuple(sorted(self._chains)),
            names=tuple(self._names),
            addresses=addresses,
            source=source,
        )

    def halting(self, core: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The core edges where a van may stop: bool[m]. A town of nothing but tunnels and motorways lets it stop
        there too.
        """
        motorway = ROAD_CLASSES.index("motorway")
        open_air = np.array([not street.is_hidden and street.road_class != motorway for street in self._street])
        halts = core & open_air
        return halts if halts.any() else core

    def _cut_streets(self) -> None:
        uses: Counter[int] = Counter()
        for street in self._found.streets:
            uses.update(street.nodes)
            uses.update((street.nodes[0], street.nodes[-1]))
        vias = {node for restriction in self._found.restrictions for node in restriction.via_nodes}
        blocked = self._found.blocked
        for street in self._found.streets:
            self._names.setdefault(street.name, len(self._names))
            cuts = [k for k, node in enumerate(street.nodes) if uses[node] > 1 or node in blocked or node in vias]
            for start, end in itertools.pairwise(cuts):
                self._add_piece(street, start, end)

    def _add_piece(self, street: _Street, start: int, end: int) -> None:
        ends = self._node(street, start), self._node(street, end)
        shape = street.points[start : end + 1]
        # A wait at the piece's first node belongs to the piece that leads to it.
        waits = [self._found.waits.get(node, (0.0, 0.0)) for node in street.nodes[start : end + 1]]
        forward, backward = street.directions
        first = len(self._from)
        if forward:
            wait_s = sum(seconds for seconds, _ in waits[1:])
            self._add_edge(street, ends, shape, street.kph[0], wait_s, first + 1 if backward else -1)
        if backward:
            wait_s = sum(seconds for _, seconds in waits[:-1])
            self._add_edge(street, ends[::-1], shape[::-1], street.kph[1], wait_s, first if forward else -1)

    def _add_edge(
        self, street: _Street, ends: tuple[int, ...], shape: tuple[Point, ...], kph: float, wait_s: float, twin: int
    ) -> None:
        self._from.append(ends[0])
        self._to.append(ends[1])
        self._shapes.append(shape)
        self._street.append(street)
        self._kph.append(kph)
        self._wait_s.append(wait_s)
        self._twin.append(twin)

    def _node(self, street: _Street, place: int) -> int:
        node = self._nodes.setdefault(street.nodes[place], len(self._node_points))
        if node == len(self._node_points):
            self._node_points.append(street.points[place])
        return node

    def _forbidden(self) -> tuple[set[tuple[int, int]], set[tuple[int, ...]]]:
        """Pairs of edges that the restrictions forbid, and longer chains (restrictions by way)."""
        banned: set[tuple[int, int]] = set()
        chains: set[tuple[int, ...]] = set()
        for rule in self._found.restrictions:
            for node in rule.via_nodes:
                if node in self._nodes and not rule.via_ways:
                    banned.update(self._forbidden_at(rule, self._nodes[node]))
            if rule.via_ways:
                chains.update(self._forbidden_chains(rule))
        return banned, chains

    def _forbidden_at(self, rule: _Restriction, node: int) -> Iterator[tuple[int, int]]:
        arriving = [e for way in rule.from_ways for e in self._edges_of_way.get(way, ()) if self._to[e] == node]
        yield from itertools.product(arriving, self._ruled_out(rule, node, self._targets(rule, node)))

    def _targets(self, rule: _Restriction, node: int) -> set[int]:
        return {e for way in rule.to_ways for e in self._edges_of_way.get(way, ()) if self._from[e] == node}

    def _ruled_out(self, rule: _Restriction, node: int, targets: set[int]) -> list[int]:
        """What may not be taken at this node. An order to take a street that the extract lacks forbids nothing."""
        if rule.kind.startswith("only_"):
            return [e for e in self._leaving.get(node, ()) if e not in targets] if targets else []
        return sorted(targets)

    def _forbidden_chains(self, rule: _Restriction) -> Iterator[tuple[int, ...]]:
        """Chains from a `from` edge over every via way in order to a forbidden edge."""
        arriving = [e for way in rule.from_ways for e in self._edges_of_way.get(way, ())]
        chains: list[tuple[int, ...]] = [(e,) for e in arriving]
        for way in rule.via_ways:
            chains = [grown for chain in chains for grown in self._along_way(chain, way)]
        for chain in chains:
            node = self._to[chain[-1]]
            targets = self._targets(rule, node)
            if targets:
                yield from ((*chain, target) for target in self._ruled_out(rule, node, targets))

    def _along_way(self, chain: tuple[int, ...], way: int) -> Iterator[tuple[int, ...]]:
        """The chain grown along this way, once for every node of it where one may stop growing."""
        visited = {self._to[chain[-1]]}
        while True:
            node = self._to[chain[-1]]
            onward = [
                e
                for e in self._leaving.get(node, ())
                if self._street[e].way == way and e != self._twin[chain[-1]] and self._to[e] not in visited
            ]
            if not onward:
                return
            chain = (*chain, onward[0])
            visited.add(self._to[chain[-1]])
            yield chain

    def _turns(self) -> list[tuple[int, int, float]]:
        headings = [(_heading(shape[0], shape[1]), _heading(shape[-2], shape[-1])) for shape in self._shapes]
        turns = []
        for edge, node in enumerate(self._to):
            back = self._twin[edge]
            allowed = [e for e in self._leaving.get(node, ()) if (edge, e) not in self._banned]
            onward = [e for e in allowed if e != back and node not in self._blocked]
            for target in onward:
                turns.append((edge, target, self._turn_s(headings[edge][1], headings[target][0])))
            # Where only local streets go on, whoever has no business in them turns round, as at a blind end.
            is_local = self._street[edge].is_local
            if back in allowed and all(self._street[e].is_local and not is_local for e in onward):
                turns.append((edge, back, U_TURN_S))
        return turns

    def _turn_s(self, heading_in: float, heading_out: float) -> float:
        bend = (heading_out - heading_in + 180.0) % 360.0 - 180.0
        if abs(bend) < _STRAIGHT_DEGREES:
            return 0.0
        if abs(bend) > _SHARP_DEGREES:
            return U_TURN_S / 2
        return _FAR_TURN_S if bend * self._far_side > 0 else _NEAR_TURN_S


def _heading(a: Point, b: Point) -> float:
    """Degrees clockwise from north (flat earth, for short pieces)."""
    east = (b[1] - a[1]) * math.cos(math.radians(a[0]))
    return math.degrees(math.atan2(east, b[0] - a[0]))


def _grouped(keys: Sequence[int]) -> dict[int, list[int]]:
    """Where each key stands, in order."""
    groups: dict[int, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return groups


_CELL_DEGREES = 0.002


def _with_levels(found: _Extract, progress: Progress) -> tuple[Address, ...]:
    """The addresses in the map's order, once each, with the storeys of the building they stand in."""
    progress("counting storeys", len(found.addresses))
    cells: dict[tuple[int, int], list[tuple[int, Floats]]] = {}
    for levels, outline in found.outlines:
        west, south = np.floor(outline.min(axis=0) / _CELL_DEGREES).astype(int)
        east, north = np.floor(outline.max(axis=0) / _CELL_DEGREES).astype(int)
        for cell in itertools.product(range(west, east + 1), range(south, north + 1)):
            cells.setdefault(cell, []).append((levels, outline))
    unique = dict.fromkeys(found.addresses)
    return tuple(_at_height(address, cells) if not address.levels else address for address in unique)


def _at_height(address: Address, cells: Mapping[tuple[int, int], Iterable[tuple[int, Floats]]]) -> Address:
    lon, lat = address.position.lon, address.position.lat
    cell = math.floor(lon / _CELL_DEGREES), math.floor(lat / _CELL_DEGREES)
    for levels, outline in cells.get(cell, ()):
        if _is_inside(lon, lat, outline):
            return Address(
                address.street,
                address.number,
                address.postcode,
                address.city,
                address.position,
                address.name,
                address.kind,
                address.opening_hours,
                levels,
            )
    return address


def _is_inside(x: float, y: float, ring: Floats) -> bool:
    """Whether a ray from the point crosses the ring an odd number of times (Shimrat 1962)."""
    a, b = ring[:-1], ring[1:]
    spans = (a[:, 1] > y) != (b[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
    return bool(np.count_nonzero(spans & (x < crossing)) % 2)


def _bounds(found: _Extract) -> tuple[float, float, float, float]:
    if found.bounds is not None:
        return found.bounds
    points = np.array([point for street in found.streets for point in street.points])
    (south, west), (north, east) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return (south, west, north, east)


def _source(pbf: Path, found: _Extract) -> Source:
    with pbf.open("rb") as extract:
        digest = hashlib.file_digest(extract, "sha256").hexdigest()
    return Source(file=pbf.name, sha256=digest, timestamp=found.timestamp)


def _town_name(pbf: Path) -> str:
    return pbf.name.split(".")[0] or "town"
