"""Small towns drawn by hand, in OSM's one-line-an-object format (OPL), and imported like any other extract.

Coordinates are in metres east and north of 24 E 60 N, so that a drawing can be read.
"""

import math
from pathlib import Path

from cloud_hub.mapmaking import read_city
from shared.citymap import METRES_PER_DEGREE, CityMap
from shared.quantities import Position
from shared.streets import Path as Drive

PER_LON = METRES_PER_DEGREE * math.cos(math.radians(60.0))


def at(east_m: float, north_m: float) -> Position:
    """The place this far east and north of the drawing's corner."""
    return Position(60.0 + north_m / METRES_PER_DEGREE, 24.0 + east_m / PER_LON)


def node(number: int, east_m: float, north_m: float, tags: str = "") -> str:
    """One node as a line of OPL; `tags` as OPL has them: key=value,key=value."""
    place = at(east_m, north_m)
    return f"n{number} T{tags} x{place.lon:.7f} y{place.lat:.7f}"


def way(number: int, nodes: str, tags: str = "highway=residential") -> str:
    """One way as a line of OPL; `nodes` are numbers parted by blanks."""
    return f"w{number} T{tags} N{','.join('n' + ref for ref in nodes.split())}"


def rule(number: int, kind: str, members: str, tags: str = "") -> str:
    """One turn restriction as a line of OPL; `members` like "w1@from n5@via w2@to"."""
    return f"r{number} Ttype=restriction,restriction={kind}{',' + tags if tags else ''} M{','.join(members.split())}"


def written(folder: Path, *lines: str, name: str = "drawn.opl") -> Path:
    """The drawing as a file that the import reads."""
    path = folder / name
    by_kind_and_number = sorted(lines, key=lambda line: ("nwr".index(line[0]), int(line.split()[0][1:])))
    path.write_text("\n".join(by_kind_and_number) + "\n")
    return path


def drawn(folder: Path, *lines: str) -> CityMap:
    """The drawing as a town."""
    return read_city(written(folder, *lines))[0]


def ways_driven(city: CityMap, drive: Drive) -> list[int]:
    """The ways of a drive in order, each run once."""
    ways: list[int] = []
    for edge in drive.edges:
        if not ways or ways[-1] != city.edge_way[edge]:
            ways.append(int(city.edge_way[edge]))
    return ways


CROSS = (
    # Four arms of 200 m that meet in node 5: way 1 west, 2 north, 3 east, 4 south; each ends blind.
    node(1, -200, 0),
    node(2, 0, 200),
    node(3, 200, 0),
    node(4, 0, -200),
    node(5, 0, 0),
    way(1, "1 5"),
    way(2, "5 2"),
    way(3, "5 3"),
    way(4, "5 4"),
)

BLOCK = (
    # A square of 200 m: way 1 south side, 2 east, 3 north, 4 west; corners 1 to 4 anticlockwise from the south-west.
    node(1, 0, 0),
    node(2, 200, 0),
    node(3, 200, 200),
    node(4, 0, 200),
)
BLOCK_STREETS = (way(2, "2 3"), way(3, "3 4"), way(4, "4 1"))
