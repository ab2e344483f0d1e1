"""One town's bundle: its drivable graph, its addresses and the layers of its basemap.

A bundle is a folder of five files. `manifest.json` names the format, the town, its bounds and the SHA-256 of the
others; `graph.npz` holds the graph in the arrays of `CityMap`; `addresses.json` and `basemap.json` what their names
say; `NOTICE` the licence of the data. Only whole, unaltered bundles are loaded.

An edge is one direction of a piece of street between two junctions. A turn is a permitted pair of edges, so one-ways
and turn restrictions are already applied; what depends on more than two edges stands in `banned_chains`.
"""

import hashlib
import io
import itertools
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shared.quantities import EARTH_RADIUS_M, Position

FORMAT = "waywarden-city"
FORMAT_VERSION = 1
BUNDLE_FILES = ("graph.npz", "addresses.json", "basemap.json", "NOTICE")
LAYERS = ("roads", "buildings", "water", "parks")

ROAD_CLASSES = (
    "motorway",
    "trunk",
    "primary",
    "secondary",
    "tertiary",
    "unclassified",
    "residential",
    "living_street",
    "service",
)

FARTHEST_SNAP_M = 500.0
"""A place farther than this from every street is not on this map; the longest drive of a large estate is shorter."""

METRES_PER_DEGREE = math.pi * EARTH_RADIUS_M / 180

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

_GRAPH_ARRAYS = {
    "node_lat_e7": ("int32", "node"),
    "node_lon_e7": ("int32", "node"),
    "edge_from": ("int32", "edge"),
    "edge_to": ("int32", "edge"),
    "edge_metres": ("float32", "edge"),
    "edge_kph": ("float32", "edge"),
    "edge_wait_s": ("float32", "edge"),
    "edge_class": ("uint8", "edge"),
    "edge_way": ("int64", "edge"),
    "edge_name": ("int32", "edge"),
    "edge_twin": ("int32", "edge"),
    "edge_local": ("bool", "edge"),
    "edge_core": ("bool", "edge"),
    "edge_halts": ("bool", "edge"),
    "shape_start": ("int32", "edge+1"),
    "shape_lat_e7": ("int32", "shape"),
    "shape_lon_e7": ("int32", "shape"),
    "turn_from": ("int32", "turn"),
    "turn_to": ("int32", "turn"),
    "turn_penalty_s": ("float32", "turn"),
    "chain_start": ("int32", "chain+1"),
    "chain_edges": ("int32", "chain_edge"),
    "names_utf8": ("uint8", "name_byte"),
}


class BundleUnreadable(ValueError):
    """This folder is not a whole city bundle."""


class OffTheMap(ValueError):
    """This place is too far from every street of the bundle."""


class Address(msgspec.Struct, frozen=True):
    """A door or a shop as the map knows it; empty texts are things the map does not say."""

    street: str
    number: str
    postcode: str
    city: str
    position: Position
    name: str = ""
    kind: str = "address"
    opening_hours: str = ""
    levels: int = 0


class Snap(msgspec.Struct, frozen=True):
    """A place tied to the drivable graph: `along` is the share (0..1) of the edge's length before it.

    `position` is the point on the street, `metres_off` how far from it the place itself is.
    """

    edge: int
    along: float
    metres_off: float
    position: Position


class Source(msgspec.Struct, frozen=True):
    """Where a bundle comes from: the extract's file name and SHA-256, its own timestamp ("" when it keeps none), and
    whom to thank.
    """

    file: str
    sha256: str
    timestamp: str = ""
    attribution: str = "© OpenStreetMap contributors"
    licence: str = "ODbL 1.0, https://opendatacommons.org/licenses/odbl/1-0/"


class Manifest(msgspec.Struct, frozen=True):
    """The first page of a bundle. `bounds` is south, west, north, east in degrees; `sha256` has one entry per file of
    the bundle.
    """

    format: str
    format_version: int
    name: str
    bounds: tuple[float, float, float, float]
    counts: dict[str, int]
    source: Source
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class CityMap:
    """A town's streets. Arrays are read-only; `n` nodes, `m` edges, `t` turns.

    - `node_lat`, `node_lon`: float64[n], degrees.
    - `edge_from`, `edge_to`: int32[m], nodes. `edge_metres`: float32[m]. `edge_kph`: float32[m], free flow.
      `edge_wait_s`: float32[m], lights and crossings met on it. `edge_class`: uint8[m], index into ROAD_CLASSES.
      `edge_way`: int64[m], OSM way id. `edge_name`: int32[m], index into `names`. `edge_twin`: int32[m], the same
      street the other way, -1 for one-ways.
    - `edge_local`: bool[m], open only to those who have business there: nobody drives through it.
    - `edge_core`: bool[m], every core edge is reached from every other. `edge_halts`: bool[m], a van may stop here:
      core, and neither motorway nor tunnel.
    - `shape_start`: int32[m + 1]; edge e has the points `shape_lat[shape_start[e]:shape_start[e + 1]]` (float64,
      degrees), ends included.
    - `turn_from`, `turn_to`: int32[t], edges; `turn_penalty_s`: float32[t].
    - `banned_chains`: sequences of three or more edges that must not be driven one after the other.
    """

    name: str
    bounds: tuple[float, float, float, float]
    node_lat: Floats
    node_lon: Floats
    edge_from: npt.NDArray[np.int32]
    edge_to: npt.NDArray[np.int32]
    edge_metres: npt.NDArray[np.float32]
    edge_kph: npt.NDArray[np.float32]
    edge_wait_s: npt.NDArray[np.float32]
    edge_class: npt.NDArray[np.uint8]
    edge_way: Ints
    edge_name: npt.NDArray[np.int32]
    edge_twin: npt.NDArray[np.int32]
    edge_local: npt.NDArray[np.bool_]
    edge_core: npt.NDArray[np.bool_]
    edge_halts: npt.NDArray[np.bool_]
    shape_start: npt.NDArray[np.int32]
    shape_lat: Floats
    shape_lon: Floats
    turn_from: npt.NDArray[np.int32]
    turn_to: npt.NDArray[np.int32]
    turn_penalty_s: npt.NDArray[np.float32]
    banned_chains: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    source: Source
    folder: Path | None = None
    _seen: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, folder: Path) -> "CityMap":
        """The bundle in this folder. Raises BundleUnreadable, which names the file and what is wrong with it."""
        folder = Path(folder)
        manifest = read_manifest(folder)
        arrays = _read_graph(folder, manifest)
        addresses = _decode(
            folder, "addresses.json", _whole_file(folder, "addresses.json", manifest), tuple[Address, ...]
        )
        for name in ("basemap.json", "NOTICE"):
            if not (folder / name).is_file():
                raise BundleUnreadable(f"{folder} has no {name}: {_AGAIN}")
        chain_start = arrays.pop("chain_start")
        chain_edges = arrays.pop("chain_edges")
        names = arrays.pop("names_utf8").tobytes().decode().split("\n")
        for axis in ("node", "shape"):
            for part in ("lat", "lon"):
                arrays[f"{axis}_{part}"] = arrays.pop(f"{axis}_{part}_e7") / 1e7
        for array in arrays.values():
            array.flags.writeable = False
        fields: dict[str, Any] = {**arrays}
        return cls(
            name=manifest.name,
            bounds=manifest.bounds,
            banned_chains=tuple(tuple(int(e) for e in chain_edges[a:b]) for a, b in itertools.pairwise(chain_start)),
            names=tuple(names),
            addresses=addresses,
            source=manifest.source,
            folder=folder,
            **fields,
        )

    @property
    def basemap(self) -> Mapping[str, Any]:
        """One GeoJSON FeatureCollection for each of LAYERS, read when first asked for. Raises BundleUnreadable."""
        if "basemap" not in self._seen:
            assert self.folder is not None, "a map that was never saved keeps its basemap in memory"
            text = _whole_file(self.folder, "basemap.json", read_manifest(self.folder))
            layers = _decode(self.folder, "basemap.json", text, dict[str, Any])
            if sorted(layers) != sorted(LAYERS):
                raise BundleUnreadable(
                    f"{self.folder}/basemap.json has layers {sorted(layers)}, expected {LAYERS}: {_AGAIN}"
                )
            self._seen["basemap"] = layers
        layers_read: Mapping[str, Any] = self._seen["basemap"]
        return layers_read

    def street(self, edge: int) -> str:
        """The name of the edge's street, "" when it has none."""
        return self.names[int(self.edge_name[edge])]

    def shape(self, edge: int) -> Floats:
        """The edge's points in the direction of travel: float64[k, 2], latitude and longitude in degrees, k >= 2."""
        points = slice(self.shape_start[edge], self.shape_start[edge + 1])
        return np.column_stack((self.shape_lat[points], self.shape_lon[points]))

    def snap(self, position: Position) -> Snap:
        """The nearest place where a van may stop and that is connected with the rest of the town.

        Raises OffTheMap when that is more than FARTHEST_SNAP_M away.
        """
        edge, along, metres, place = self._nearest(position, "halts")
        if not metres <= FARTHEST_SNAP_M:
            south, west, north, east = self.bounds
            raise OffTheMap(
                f"{position.lat:.6f}, {position.lon:.6f} is {metres:.0f} m from the nearest street of {self.name} "
                f"(which reaches from {south:.4f}, {west:.4f} to {north:.4f}, {east:.4f}), expected at most "
                f"{FARTHEST_SNAP_M:.0f} m: correct the place or import a larger map"
            )
        return Snap(edge, along, metres, place)

    def nearest_edge(self, position: Position) -> Snap:
        """The nearest edge of all, connected or not, however far."""
        return Snap(*self._nearest(position, "all"))

    def place(self, edge: int, along: float) -> Position:
        """The point at this share of the edge's length."""
        points = self.shape(edge)
        done = np.concatenate(([0.0], np.cumsum(metres_along(points))))
        at = along * done[-1]
        return Position(float(np.interp(at, done, points[:, 0])), float(np.interp(at, done, points[:, 1])))

    def _nearest(self, position: Position, which: str) -> tuple[int, float, float, Position]:
        if not (math.isfinite(position.lat) and math.isfinite(position.lon)):
            raise OffTheMap(f"{position.lat}, {position.lon} is not a place on earth: correct the place")
        pieces = self._pieces(which)
        narrowing = math.cos(math.radians(position.lat))
        east = (pieces.lon - position.lon) * (METRES_PER_DEGREE * narrowing)
        north = (pieces.lat - position.lat) * METRES_PER_DEGREE
        along_east = pieces.lon_step * (METRES_PER_DEGREE * narrowing)
        along_north = pieces.lat_step * METRES_PER_DEGREE
        squared = along_east**2 + along_north**2
        share = np.clip(-(east * along_east + north * along_north) / np.maximum(squared, 1e-9), 0.0, 1.0)
        off_squared = (east + share * along_east) ** 2 + (north + share * along_north) ** 2
        best = int(np.argmin(off_squared))
        edge = int(pieces.edge[best])
        done_m = pieces.done_m[best] + share[best] * pieces.metres[best]
        length_m = pieces.length_m[best]
        place = Position(
            float(pieces.lat[best] + share[best] * pieces.lat_step[best]),
            float(pieces.lon[best] + share[best] * pieces.lon_step[best]),
        )
        return edge, float(min(1.0, done_m / max(length_m, 1e-9))), float(math.sqrt(off_squared[best])), place

    def _pieces(self, which: str) -> "_Pieces":
        if which not in self._seen:
            self._seen[which] = _straight_pieces(self, self.edge_halts if which == "halts" else None)
        pieces: _Pieces = self._seen[which]
        return pieces


def shipped_city() -> Path:
    """The folder of the Helsinki-centre bundle that comes with the package."""
    return Path(__file__).resolve().parent / "cities" / "helsinki-centre"


def metres_along(points: Floats) -> Floats:
    """The length of each piece of a line in metres: float64[k - 1] for float64[k, 2] of degrees (equirectangular, for
    short pieces).
    """
    step = np.diff(points, axis=0) * METRES_PER_DEGREE
    narrowing = np.cos(np.radians((points[:-1, 0] + points[1:, 0]) / 2))
    length: Floats = np.hypot(step[:, 0], step[:, 1] * narrowing)
    return length


def read_manifest(folder: Path) -> Manifest:
    """The first page of the bundle in this folder. Raises BundleUnreadable."""
    path = folder / "manifest.json"
    try:
        text = path.read_bytes()
    except OSError as trouble:
        raise BundleUnreadable(
            f"{path} cannot be read ({trouble.strerror}), expected a city bundle: "
            "make one with `waywarden map import FILE.osm.pbf`"
        ) from trouble
    loose = _decode(folder, "manifest.json", text, dict[str, Any])
    if loose.get("format") != FORMAT:
        raise BundleUnreadable(
            f"{path} is of format {loose.get('format')!r}, expected {FORMAT!r}: give the folder of a city bundle"
        )
    if loose.get("format_version") != FORMAT_VERSION:
        raise BundleUnreadable(
            f"{path} is of format version {loose.get('format_version')!r}, expected {FORMAT_VERSION}: {_AGAIN}"
        )
    manifest: Manifest = _decode(folder, "manifest.json", text, Manifest)
    return manifest


def save(city: CityMap, layers: Mapping[str, Any], folder: Path) -> Manifest:
    """Write the bundle into the folder (made when absent) and return its first page. The same map gives the same bytes.

    The manifest is written last, so that an interrupted import leaves no bundle that loads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    contents = {
        "graph.npz": _graph_bytes(city),
        "addresses.json": _lines(msgspec.to_builtins(city.addresses)),
        "basemap.json": msgspec.json.encode({layer: layers[layer] for layer in LAYERS}),
        "NOTICE": _notice(city).encode(),
    }
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        name=city.name,
        bounds=city.bounds,
        counts={
            "nodes": len(city.node_lat),
            "edges": len(city.edge_from),
            "core_edges": int(city.edge_core.sum()),
            "turns": len(city.turn_from),
            "ways": len(np.unique(city.edge_way)),
            "addresses": sum(place.kind == "address" for place in city.addresses),
            "shops": sum(place.kind == "shop" for place in city.addresses),
            **{layer: len(layers[layer]["features"]) for layer in LAYERS},
        },
        source=city.source,
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    )
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return manifest


_AGAIN = "import the town again with `waywarden map import FILE.osm.pbf`"


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Every straight piece of the streets: where it starts, its step, its edge, where it lies in the edge's length."""

    lat: Floats
    lon: Floats
    lat_step: Floats
    lon_step: Floats
    edge: Ints
    done_m: Floats
    metres: Floats
    length_m: Floats


def _straight_pieces(city: CityMap, wanted: npt.NDArray[np.bool_] | None) -> _Pieces:
    counts = np.diff(city.shape_start)
    edge_of_point = np.repeat(np.arange(len(counts)), counts)
    first = np.flatnonzero(edge_of_point[:-1] == edge_of_point[1:])
    points = np.column_stack((city.shape_lat, city.shape_lon))
    metres = metres_along(points)
    # The steps between two edges count for nothing, so that a running sum restarts cleanly.
    metres_within = np.where(edge_of_point[:-1] == edge_of_point[1:], metres, 0.0)
    run = np.concatenate(([0.0], np.cumsum(metres_within)))
    edge = edge_of_point[first]
    done_m = run[first] - run[city.shape_start[edge]]
    length_m = run[city.shape_start[edge + 1] - 1] - run[city.shape_start[edge]]
    keep = slice(None) if wanted is None else wanted[edge]
    return _Pieces(
        lat=points[first, 0][keep],
        lon=points[first, 1][keep],
        lat_step=(points[first + 1, 0] - points[first, 0])[keep],
        lon_step=(points[first + 1, 1] - points[first, 1])[keep],
        edge=edge[keep],
        done_m=done_m[keep],
        metres=metres[first][keep],
        length_m=length_m[keep],
    )


def _whole_file(folder: Path, name: str, manifest: Manifest) -> bytes:
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as trouble:
        raise BundleUnreadable(
            f"{path} cannot be read ({trouble.strerror}), expected a file of the bundle: {_AGAIN}"
        ) from trouble
    found, expected = hashlib.sha256(content).hexdigest(), manifest.sha256.get(name, "none")
    if found != expected:
        raise BundleUnreadable(
            f"{path} ({len(content)} bytes) has SHA-256 {found[:12]}, the manifest expects {expected[:12]}: "
            f"it was cut or altered; {_AGAIN}"
        )
    return content


def _decode(folder: Path, name: str, text: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as trouble:
        raise BundleUnreadable(f"{folder / name} is not what a bundle holds ({trouble}): {_AGAIN}") from trouble


def _read_graph(folder: Path, manifest: Manifest) -> dict[str, Array]:
    content = _whole_file(folder, "graph.npz", manifest)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _GRAPH_ARRAYS}
    except (
        KeyError,
        ValueError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
    ) as trouble:
        raise BundleUnreadable(
            f"{folder}/graph.npz is not a graph ({trouble}), expected {len(_GRAPH_ARRAYS)} arrays: {_AGAIN}"
        ) from trouble
    wrong = _graph_faults(arrays)
    if wrong:
        raise BundleUnreadable(f"{folder}/graph.npz is not a graph: {wrong}: {_AGAIN}")
    return arrays


def _graph_faults(arrays: Mapping[str, Array]) -> str:
    """What makes these arrays no graph, in words; "" when nothing does."""
    sizes = {
        "node": len(np.atleast_1d(arrays["node_lat_e7"])),
        "edge": len(np.atleast_1d(arrays["edge_from"])),
        "turn": len(np.atleast_1d(arrays["turn_from"])),
        "shape": len(np.atleast_1d(arrays["shape_lat_e7"])),
    }
    for name, (dtype, axis) in _GRAPH_ARRAYS.items():
        array = arrays[name]
        if array.dtype != np.dtype(dtype) or array.ndim != 1:
            return f"{name} is {array.dtype}{list(array.shape)}, expected a row of {dtype}"
        expected = sizes.get(axis, sizes["edge"] + 1 if axis == "edge+1" else None)
        if expected is not None and len(array) != expected:
            return f"{name} has {len(array)} entries, expected {expected}"
    if sizes["edge"] == 0:
        return "it has no edges"
    ranges = (
        ("edge_from", 0, sizes["node"]),
        ("edge_to", 0, sizes["node"]),
        ("edge_class", 0, len(ROAD_CLASSES)),
        ("edge_name", 0, bytes(arrays["names_utf8"]).count(b"\n") + 1),
        ("edge_twin", -1, sizes["edge"]),
        ("turn_from", 0, sizes["edge"]),
        ("turn_to", 0, sizes["edge"]),
        ("chain_edges", 0, sizes["edge"]),
    )
    for name, low, high in ranges:
        array = arrays[name]
        if len(array) and not (array.min() >= low and array.max() < high):
            return f"{name} reaches from {array.min()} to {array.max()}, expected {low} to {high - 1}"
    if (arrays["edge_to"][arrays["turn_from"]] != arrays["edge_from"][arrays["turn_to"]]).any():
        return "it has turns between edges that do not meet"
    for name in ("edge_metres", "edge_kph"):
        if not (np.isfinite(arrays[name]).all() and (arrays[name] > 0).all()):
            return f"{name} holds numbers that are not positive"
    for name in ("edge_wait_s", "turn_penalty_s"):
        if not (np.isfinite(arrays[name]).all() and (arrays[name] >= 0).all()):
            return f"{name} holds numbers below 0"
    for name, end, least in (("shape_start", sizes["shape"], 2), ("chain_start", len(arrays["chain_edges"]), 3)):
        starts = arrays[name]
        if len(starts) == 0 or starts[0] != 0 or starts[-1] != end or (np.diff(starts) < least).any():
            return f"{name} does not part {end} entries into runs of {least} or more"
    try:
        bytes(arrays["names_utf8"]).decode()
    except UnicodeDecodeError as trouble:
        return f"names_utf8 is not UTF-8 ({trouble.reason})"
    return ""


def _graph_bytes(city: CityMap) -> bytes:
    chain_lengths = [len(chain) for chain in city.banned_chains]
    arrays: dict[str, Array] = {
        name: getattr(city, name)
        for name in _GRAPH_ARRAYS
        if not name.endswith(("_e7", "_utf8")) and not name.startswith("chain_")
    }
    for axis in ("node", "shape"):
        for part in ("lat", "lon"):
            arrays[f"{axis}_{part}_e7"] = np.rint(getattr(city, f"{axis}_{part}") * 1e7)
    arrays["chain_start"] = np.cumsum([0, *chain_lengths])
    arrays["chain_edges"] = np.array([edge for chain in city.banned_chains for edge in chain])
    arrays["names_utf8"] = np.frombuffer("\n".join(city.names).encode(), dtype=np.uint8)
    archive = io.BytesIO()
    np.savez_compressed(
        archive, allow_pickle=False, **{name: arrays[name].astype(dtype) for name, (dtype, _) in _GRAPH_ARRAYS.items()}
    )
    return archive.getvalue()


def _lines(records: list[Any]) -> bytes:
    """A JSON array with one record a line, so that two bundles can be compared by eye."""
    rows = ",\n".join(json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in records)
    return f"[\n{rows}\n]\n".encode()


def _notice(city: CityMap) -> str:
    """The notice the Open Database License asks of a derived database (ODbL 1.0, sections 4.2 and 4.3)."""
    return (
        f"Waywarden city bundle: {city.name}\n\n"
        f"Contains information from OpenStreetMap. {city.source.attribution}\n"
        "https://www.openstreetmap.org/copyright\n\n"
        "The files graph.npz, addresses.json and basemap.json of this folder are a database derived from\n"
        "OpenStreetMap and are made available under the Open Database License (ODbL) 1.0:\n"
        "https://opendatacommons.org/licenses/odbl/1-0/\n"
        "Any rights in individual contents of the database are licensed under the Database Contents License:\n"
        "https://opendatacommons.org/licenses/dbcl/1-0/\n"
        "The licence of the program beside this folder does not extend to them.\n\n"
        "Whoever shows a map or a route made from this folder says beside it: " + city.source.attribution + "\n\n"
        f"Derived from: {city.source.file} (SHA-256 {city.source.sha256})"
        + (f", data as of {city.source.timestamp}" if city.source.timestamp else "")
        + "\n"
        f"Derived by:   waywarden map import {city.source.file} --name '{city.name}'\n"
    )
