"""An extract becomes a bundle: what may be driven, what is forbidden, what is found, and what is refused."""

import json
import random
from pathlib import Path

import numpy as np
import osmium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cloud_hub.mapmaking import MapUnreadable, NothingToDriveOn, import_city, limit_kph, read_city
from deploy import map_command
from shared.citymap import BundleUnreadable, CityMap, OffTheMap, shipped_city
from shared.quantities import Position
from shared.streets import NoWayThrough, Streets
from tests.needs import needs
from tests.shells.drawn_town import BLOCK, BLOCK_STREETS, CROSS, at, drawn, node, rule, way, ways_driven, written

EXTRACTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "maps"
"""Extracts that are not ours to ship lie beside the project; without them the tests that need them say so and are
left out.
"""


def extract(name: str) -> Path:
    path = EXTRACTS / name
    needs(path.is_file(), f"{name} in the data folder beside the project")
    return path


def drive(city: CityMap, a: Position, b: Position) -> list[int]:
    return ways_driven(city, Streets(city).path(city.snap(a), city.snap(b), 3))


# What may be driven.


def test_a_one_way_street_is_driven_only_as_it_is_drawn(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2", "highway=residential,oneway=yes"))
    assert drive(city, at(50, 0), at(150, 0)) == [1]
    assert drive(city, at(150, 0), at(50, 0)) == [1, 2, 3, 4, 1]


def test_a_one_way_street_may_be_drawn_backwards(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2", "highway=residential,oneway=-1"))
    assert drive(city, at(150, 0), at(50, 0)) == [1]
    assert drive(city, at(50, 0), at(150, 0)) == [1, 4, 3, 2, 1]


def test_a_roundabout_is_one_way_without_saying_so(tmp_path: Path) -> None:
    arms = (node(11, -150, 100), node(13, 350, 100), way(11, "11 1"), way(13, "13 3"))
    city = drawn(tmp_path, *BLOCK, *arms, way(5, "1 2 3 4 1", "highway=tertiary,junction=roundabout"))
    path = Streets(city).path(city.snap(at(-75, 50)), city.snap(at(275, 150)), 3)
    assert path.shape[:, 0].min() == pytest.approx(at(0, 0).lat, abs=1e-6)
    back = Streets(city).path(city.snap(at(275, 150)), city.snap(at(-75, 50)), 3)
    assert back.shape[:, 0].max() == pytest.approx(at(0, 200).lat, abs=1e-6)


def test_a_street_whose_direction_changes_by_the_hour_is_not_counted_on(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2", "highway=residential,oneway=reversible"))
    assert 1 not in city.edge_way


@pytest.mark.parametrize(
    "tags",
    [
        "highway=residential,access=private",
        "highway=residential,motor_vehicle=no",
        "highway=service,access=no",
        "highway=residential,vehicle=agricultural;forestry",
        "highway=pedestrian",
        "highway=pedestrian,access=yes",
        "highway=footway",
        "highway=cycleway",
        "highway=steps",
        "highway=construction",
        "highway=pedestrian,area=yes,motor_vehicle=yes",
    ],
)
def test_a_van_keeps_off_what_is_not_for_vans(tmp_path: Path, tags: str) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2", tags))
    assert 1 not in city.edge_way


@pytest.mark.parametrize(
    "tags",
    [
        "highway=residential,access=destination",
        "highway=residential,access=private,delivery=yes",
        "highway=residential,motor_vehicle=delivery",
        "highway=service,access=customers",
        "highway=pedestrian,motor_vehicle=destination",
    ],
)
def test_a_local_street_is_driven_to_and_left_but_never_through(tmp_path: Path, tags: str) -> None:
    # Way 1 is the short side of a long rectangle: everybody would like to pass through it.
    long = (
        node(1, 0, 0),
        node(2, 60, 0),
        node(3, 60, 900),
        node(4, 0, 900),
        way(2, "2 3"),
        way(3, "3 4"),
        way(4, "4 1"),
    )
    is_free = "delivery=yes" in tags
    city = drawn(tmp_path, *long, way(1, "1 2", tags))
    assert drive(city, at(0, 100), at(60, 100)) == ([4, 1, 2] if is_free else [4, 3, 2])
    assert drive(city, at(0, 100), at(30, 0)) == [4, 1]
    assert drive(city, at(30, 0), at(60, 100)) == [1, 2]


def test_a_bollard_parts_a_street(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, node(9, 100, 0, "barrier=bollard"), way(1, "1 9 2"))
    assert drive(city, at(20, 0), at(180, 0)) == [1, 4, 3, 2, 1]


def test_a_gate_that_is_not_locked_is_passed(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, node(9, 100, 0, "barrier=gate"), way(1, "1 9 2"))
    assert drive(city, at(20, 0), at(180, 0)) == [1]


def test_a_private_gate_parts_a_street(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, node(9, 100, 0, "barrier=gate,access=private"), way(1, "1 9 2"))
    assert drive(city, at(20, 0), at(180, 0)) == [1, 4, 3, 2, 1]


# What is forbidden at junctions.


def test_nobody_turns_round_but_at_a_blind_end(tmp_path: Path) -> None:
    city = drawn(tmp_path, *CROSS)
    edges = {(int(a), int(b)) for a, b in zip(city.turn_from, city.turn_to, strict=True)}
    rounds = [(a, b) for a, b in edges if city.edge_twin[a] == b]
    assert len(rounds) == 4
    assert all(
        city.edge_to[a] != city.edge_from[city.edge_twin[a]] or city.edge_way[a] in (1, 2, 3, 4) for a, _ in rounds
    )


@pytest.mark.parametrize(
    "restriction",
    [
        rule(1, "no_left_turn", "w1@from n5@via w2@to"),
        rule(1, "no_left_turn", "n5@via w2@to w1@from"),
        rule(1, "only_straight_on", "w1@from n5@via w3@to"),
    ],
)
def test_a_forbidden_left_turn_is_not_driven(tmp_path: Path, restriction: str) -> None:
    city = drawn(tmp_path, *CROSS, restriction)
    assert drive(city, at(-100, 0), at(0, 100)) in ([1, 3, 2], [1, 4, 2])
    assert drive(city, at(0, 100), at(-100, 0)) == [2, 1]


def test_who_must_go_straight_on_may_not_turn_right_either(tmp_path: Path) -> None:
    city = drawn(tmp_path, *CROSS, rule(1, "only_straight_on", "w1@from n5@via w3@to"))
    assert drive(city, at(-100, 0), at(0, -100)) == [1, 3, 4]


def test_a_restriction_that_exempts_goods_vehicles_does_not_bind_a_van(tmp_path: Path) -> None:
    city = drawn(tmp_path, *CROSS, rule(1, "no_left_turn", "w1@from n5@via w2@to", "except=bus;goods"))
    assert drive(city, at(-100, 0), at(0, 100)) == [1, 2]


def test_a_restriction_for_lorries_does_not_bind_a_van(tmp_path: Path) -> None:
    city = drawn(tmp_path, *CROSS, "r1 Ttype=restriction,restriction:hgv=no_left_turn Mw1@from,n5@via,w2@to")
    assert drive(city, at(-100, 0), at(0, 100)) == [1, 2]


def test_an_order_to_take_a_street_beyond_the_extract_binds_nobody(tmp_path: Path) -> None:
    city = drawn(tmp_path, *CROSS, rule(1, "only_right_turn", "w1@from n5@via w99@to"))
    assert drive(city, at(-100, 0), at(0, 100)) == [1, 2]


def test_a_chain_over_a_whole_way_is_forbidden_while_its_parts_are_not(tmp_path: Path) -> None:
    # Two parallel streets joined by way 9: from way 1 over 9 back along way 3 is forbidden (a turn round a central
    # reserve).
    streets = (
        node(1, 0, 0),
        node(2, 200, 0),
        node(3, 400, 0),
        node(4, 400, 30),
        node(5, 200, 30),
        node(6, 0, 30),
        way(1, "1 2", "highway=residential,oneway=yes"),
        way(2, "2 3", "highway=residential,oneway=yes"),
        way(3, "5 6", "highway=residential,oneway=yes"),
        way(4, "4 5", "highway=residential,oneway=yes"),
        way(7, "3 4"),
        way(8, "6 1"),
        way(9, "2 5"),
    )
    free = drawn(tmp_path, *streets)
    assert drive(free, at(100, 0), at(100, 30)) == [1, 9, 3]
    bound = drawn(tmp_path, *streets, rule(1, "no_u_turn", "w1@from w9@via w3@to"))
    assert bound.banned_chains
    assert drive(bound, at(100, 0), at(100, 30)) == [1, 2, 7, 4, 3]
    assert drive(bound, at(100, 0), at(200, 15)) == [1, 9]
    assert drive(bound, at(200, 15), at(100, 30)) == [9, 3]


def test_turning_across_the_oncoming_lane_costs_more(tmp_path: Path) -> None:
    written(tmp_path, *CROSS)
    right, _ = read_city(tmp_path / "drawn.opl")
    left, _ = read_city(tmp_path / "drawn.opl", drives_on_left=True)
    a, north = right.snap(at(-100, 0)), right.snap(at(0, 100))
    assert Streets(left).path(a, north, 3).seconds == Streets(right).path(a, north, 3).seconds - 3.0


# How fast.


@pytest.mark.parametrize(
    ("text", "kph"),
    [
        ("30", 30.0),
        ("50 mph", 80.47),
        ("20mph", 32.19),
        ("10 knots", 18.52),
        ("FI:urban", 50.0),
        ("DE:zone:30", 30.0),
        ("DE:zone30", 30.0),
        ("walk", 7.0),
        ("none", 130.0),
        ("40;60", 40.0),
        ("signals", None),
        ("0", None),
        ("", None),
        ("-30", None),
    ],
)
def test_a_speed_limit_is_read_in_every_way_it_is_written(text: str, kph: float | None) -> None:
    assert limit_kph(text) == (kph if kph is None else pytest.approx(kph, abs=0.01))


@given(st.text(max_size=30))
def test_no_speed_limit_can_be_nonsense(text: str) -> None:
    kph = limit_kph(text)
    assert kph is None or kph > 0


def test_a_limit_may_differ_by_direction(tmp_path: Path) -> None:
    tags = "highway=secondary,maxspeed=50,maxspeed:backward=30"
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2", tags))
    assert sorted(city.edge_kph[city.edge_way == 1].tolist()) == [24.0, 40.0]


def test_a_red_light_costs_time_on_the_street_that_leads_to_it(tmp_path: Path) -> None:
    dark = drawn(tmp_path, *CROSS)
    lit = drawn(tmp_path, *CROSS[:4], node(5, 0, 0, "highway=traffic_signals"), *CROSS[5:])
    a, b = dark.snap(at(-100, 0)), dark.snap(at(100, 0))
    assert Streets(lit).path(a, b, 3).seconds - Streets(dark).path(a, b, 3).seconds == pytest.approx(4.0, abs=0.01)


# What is found.


def test_addresses_and_shops_are_found_with_their_hours_and_storeys(tmp_path: Path) -> None:
    city, layers = read_city(
        written(
            tmp_path,
            *CROSS,
            node(20, 10, 20),
            node(21, 40, 20),
            node(22, 40, 50),
            node(23, 10, 50),
            node(24, 25, 35, "shop=bakery,name=Leipä,opening_hours=Mo-Fr%20%07:00-18:00"),
            node(25, 90, 20, "addr:street=East,addr:housenumber=3,addr:postcode=00100,addr:city=Town"),
            node(26, 90, 30, "amenity=bench,name=Nice%20%seat"),
            way(20, "20 21 22 23 20", "building=yes,building:levels=5,addr:street=North,addr:housenumber=1"),
        )
    )
    by_kind = {address.name or address.number: address for address in city.addresses}
    assert sorted(by_kind) == ["1", "3", "Leipä"]
    assert (by_kind["Leipä"].kind, by_kind["Leipä"].opening_hours, by_kind["Leipä"].levels) == (
        "shop",
        "Mo-Fr 07:00-18:00",
        5,
    )
    assert (by_kind["3"].street, by_kind["3"].postcode, by_kind["3"].city, by_kind["3"].levels) == (
        "East",
        "00100",
        "Town",
        0,
    )
    assert (by_kind["1"].street, by_kind["1"].levels) == ("North", 5)
    assert len(layers["buildings"]["features"]) == 1


def test_a_lake_with_an_island_is_a_polygon_with_a_hole(tmp_path: Path) -> None:
    corners = [(0, 0), (300, 0), (300, 300), (0, 300), (100, 100), (200, 100), (200, 200), (100, 200)]
    _, layers = read_city(
        written(
            tmp_path,
            *CROSS,
            *(node(30 + k, 500 + east, north) for k, (east, north) in enumerate(corners)),
            way(30, "30 31 32 33 30", ""),
            way(31, "34 35 36 37 34", ""),
            "r30 Ttype=multipolygon,natural=water,name=Lake Mw30@outer,w31@inner",
        )
    )
    (lake,) = layers["water"]["features"]
    assert lake["properties"]["name"] == "Lake"
    assert len(lake["geometry"]["coordinates"]) == 2


def test_a_street_cut_by_the_border_of_the_extract_keeps_what_is_inside(tmp_path: Path) -> None:
    city = drawn(tmp_path, *CROSS, way(8, "2 98 99"), way(9, "99 3 1 98"))
    assert 8 not in city.edge_way
    assert 9 in city.edge_way


def test_stranded_streets_are_no_place_to_stop(tmp_path: Path) -> None:
    city = drawn(tmp_path, *CROSS, node(40, 300, 100), node(41, 300, 400), way(40, "40 41"))
    assert city.edge_way[city.snap(at(300, 100)).edge] == 3


def test_nobody_stops_in_a_tunnel(tmp_path: Path) -> None:
    tunnel = (
        node(40, -200, 10),
        way(40, "1 40", "highway=service,tunnel=yes,layer=-1"),
        way(41, "40 5", "highway=service,layer=-1"),
    )
    city = drawn(tmp_path, *CROSS, *tunnel)
    assert city.edge_way[city.snap(at(-100, 8)).edge] == 1


def test_a_place_far_from_every_street_is_refused_with_its_distance(tmp_path: Path) -> None:
    city = drawn(tmp_path, *CROSS)
    with pytest.raises(OffTheMap, match="800 m from the nearest street"):
        city.snap(at(0, 1000))
    with pytest.raises(OffTheMap):
        city.snap(Position(float("nan"), 24.0))


# The bundle.


def test_the_same_extract_gives_the_same_bytes(tmp_path: Path) -> None:
    source = written(tmp_path, *CROSS)
    import_city(source, tmp_path / "once", "Cross")
    import_city(source, tmp_path / "twice", "Cross")
    once = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}
    assert once == {path.name: path.read_bytes() for path in (tmp_path / "twice").iterdir()}


def test_a_bundle_gives_back_the_town_that_was_imported(tmp_path: Path) -> None:
    city, layers = read_city(written(tmp_path, *CROSS, rule(1, "no_left_turn", "w1@from n5@via w2@to")))
    import_city(tmp_path / "drawn.opl", tmp_path / "bundle")
    loaded = CityMap.load(tmp_path / "bundle")
    assert loaded.basemap == layers
    assert (loaded.names, loaded.addresses, loaded.banned_chains) == (city.names, city.addresses, city.banned_chains)
    arrays = ("edge_from", "edge_to", "edge_metres", "edge_kph", "turn_from", "turn_to", "turn_penalty_s")
    for name in arrays:
        assert np.array_equal(getattr(loaded, name), getattr(city, name)), name
    assert np.allclose(loaded.shape_lat, city.shape_lat, atol=1e-7)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    import_city(written(tmp_path, *CROSS), tmp_path / "bundle", "Cross")
    return tmp_path / "bundle"


@pytest.mark.parametrize("name", ["manifest.json", "graph.npz", "addresses.json", "basemap.json", "NOTICE"])
def test_a_bundle_that_lacks_a_file_is_refused_by_its_name(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleUnreadable, match=name):
        _ = CityMap.load(bundle).basemap


@pytest.mark.parametrize("name", ["manifest.json", "graph.npz", "addresses.json", "basemap.json"])
def test_a_bundle_with_a_cut_file_is_refused_by_its_name(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleUnreadable, match=name):
        _ = CityMap.load(bundle).basemap


def test_a_bundle_of_another_version_says_what_to_do(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))
    with pytest.raises(BundleUnreadable, match=r"version 99, expected 1: import the town again"):
        CityMap.load(bundle)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_no_damage_to_a_bundle_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    import_city(written(folder, *CROSS), folder / "bundle", "Cross")
    name = data.draw(st.sampled_from(["graph.npz", "addresses.json", "basemap.json"]))
    content = bytearray((folder / "bundle" / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "bundle" / name).write_bytes(content)
    with pytest.raises(BundleUnreadable):
        _ = CityMap.load(folder / "bundle").basemap


@given(st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_a_bundle_of_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("noise")
    (folder / "manifest.json").write_bytes(noise)
    with pytest.raises(BundleUnreadable):
        CityMap.load(folder)


def test_a_graph_whose_numbers_point_nowhere_is_refused_although_its_checksum_is_right(bundle: Path) -> None:
    import hashlib

    with np.load(bundle / "graph.npz") as archive:
        arrays = dict(archive)
    arrays["turn_to"] = arrays["turn_to"] + 1_000
    np.savez_compressed(bundle / "graph.npz", allow_pickle=False, **arrays)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["sha256"]["graph.npz"] = hashlib.sha256((bundle / "graph.npz").read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleUnreadable, match="turn_to reaches from"):
        CityMap.load(bundle)


def test_the_shipped_town_is_small_and_says_whom_to_thank() -> None:
    folder = shipped_city()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    notice = (folder / "NOTICE").read_text()
    assert "© OpenStreetMap contributors" in notice
    assert "Open Database License (ODbL) 1.0" in notice
    city = CityMap.load(folder)
    assert len(city.addresses) > 1_500
    assert all(city.basemap[layer]["features"] for layer in ("roads", "buildings", "water", "parks"))


def test_the_shipped_town_is_what_its_notice_says_it_is(tmp_path: Path) -> None:
    import_city(extract("helsinki-centre.osm.pbf"), tmp_path / "again", "Helsinki centre")
    again, shipped = CityMap.load(tmp_path / "again"), CityMap.load(shipped_city())
    assert again.addresses == shipped.addresses
    assert again.basemap == shipped.basemap
    assert np.array_equal(again.turn_to, shipped.turn_to)
    assert np.array_equal(again.edge_kph, shipped.edge_kph)


def test_another_town_imports_as_well(tmp_path: Path) -> None:
    manifest = import_city(extract("lauf-200115.osm.pbf"), tmp_path / "lauf", "Lauf")
    assert manifest.counts["ways"] > 1_400
    assert manifest.counts["addresses"] > 5_000
    assert manifest.counts["core_edges"] > 0.9 * manifest.counts["edges"]


# What is refused.


@given(st.binary(max_size=2_000), st.sampled_from(["x.osm.pbf", "x.osm", "x.opl", "x.osm.gz", "x.txt"]))
@settings(max_examples=60, deadline=None)
def test_noise_is_refused_as_a_map(tmp_path_factory: pytest.TempPathFactory, noise: bytes, name: str) -> None:
    path = tmp_path_factory.mktemp("noise") / name
    path.write_bytes(noise)
    with pytest.raises((MapUnreadable, NothingToDriveOn)):
        read_city(path)


@pytest.fixture(scope="module")
def small_pbf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("pbf")
    with osmium.SimpleWriter(str(folder / "cross.osm.pbf")) as writer:
        for thing in osmium.FileProcessor(str(written(folder, *CROSS))):
            writer.add(thing)
    return (folder / "cross.osm.pbf").read_bytes()


def test_an_extract_cut_anywhere_is_refused(tmp_path: Path, small_pbf: bytes) -> None:
    outcomes = set()
    for length in range(0, len(small_pbf), 7):
        (tmp_path / "cut.osm.pbf").write_bytes(small_pbf[:length])
        with pytest.raises((MapUnreadable, NothingToDriveOn)) as refusal:
            read_city(tmp_path / "cut.osm.pbf")
        outcomes.add(refusal.type)
    assert MapUnreadable in outcomes


def test_an_extract_with_flipped_bits_never_ends_the_process(tmp_path: Path, small_pbf: bytes) -> None:
    luck = random.Random(7)
    refused = 0
    for _ in range(150):
        content = bytearray(small_pbf)
        content[luck.randrange(len(content))] ^= 1 << luck.randrange(8)
        (tmp_path / "flipped.osm.pbf").write_bytes(content)
        try:
            read_city(tmp_path / "flipped.osm.pbf")
        except (MapUnreadable, NothingToDriveOn):
            refused += 1
    assert refused > 50


def test_an_extract_that_is_not_sorted_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "unsorted.opl").write_text("\n".join([*CROSS[:5], *reversed(CROSS[5:])]) + "\n")
    with pytest.raises(MapUnreadable, match="sort it"):
        read_city(tmp_path / "unsorted.opl")


def test_an_area_without_streets_is_refused_with_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(NothingToDriveOn, match="2 footway"):
        drawn(tmp_path, *BLOCK, way(1, "1 2", "highway=footway"), way(2, "2 3", "highway=footway"))


def test_a_lone_one_way_street_is_no_town(tmp_path: Path) -> None:
    with pytest.raises(NothingToDriveOn, match="driven to and left again"):
        drawn(tmp_path, *BLOCK, way(1, "1 2", "highway=residential,oneway=yes"))


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(MapUnreadable, match=r"absent\.osm\.pbf is not a file"):
        read_city(tmp_path / "absent.osm.pbf")


def test_the_command_makes_a_bundle_and_shows_it(tmp_path: Path) -> None:
    source = written(tmp_path, *CROSS)
    made = CliRunner().invoke(
        map_command.app, ["import", str(source), "--name", "Cross", "--out", str(tmp_path / "cross")]
    )
    assert made.exit_code == 0, made.output
    assert CityMap.load(tmp_path / "cross").name == "Cross"
    shown = CliRunner().invoke(map_command.app, ["show", str(tmp_path / "cross")])
    assert shown.exit_code == 0
    assert "Cross" in shown.output


def test_the_command_says_why_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "noise.osm.pbf").write_bytes(b"noise" * 100)
    refused = CliRunner().invoke(
        map_command.app, ["import", str(tmp_path / "noise.osm.pbf"), "--out", str(tmp_path / "out")]
    )
    assert refused.exit_code == 1
    assert "cannot be read as OpenStreetMap data" in " ".join(refused.output.split())
    assert not (tmp_path / "out").exists()


def test_a_place_nobody_can_leave_is_said_with_both_ends(tmp_path: Path) -> None:
    one_way = way(40, "5 40", "highway=residential,oneway=yes,name=Trap")
    city = drawn(tmp_path, *CROSS, node(40, 150, 150), one_way)
    trapped = city.nearest_edge(at(140, 140))
    with pytest.raises(NoWayThrough, match="Trap"):
        Streets(city).path(trapped, city.snap(at(-100, 0)), 3)
