"""Drives over real streets: permitted, consistent with the times, and never quicker because a street is closed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.citymap import CityMap, Snap, metres_along, shipped_city
from shared.quantities import Position, metres_between
from shared.streets import (
    FARTHEST_WALK_M,
    HOUR_FACTORS,
    WALK_METRES_PER_S,
    NoWayThrough,
    Streets,
    core_edges,
    hour_slices,
)
from tests.shells.drawn_town import BLOCK, BLOCK_STREETS, CROSS, at, drawn, node, rule, way, ways_driven

CITY = CityMap.load(shipped_city())
STREETS = Streets(CITY)
DOORS = tuple(CITY.snap(address.position) for address in CITY.addresses[::9])
TIMES = STREETS.travel_times(DOORS, DOORS, 8)
WAYS = tuple(np.unique(CITY.edge_way).tolist())

doors = st.integers(0, len(DOORS) - 1)


def test_every_door_is_reached_from_every_other() -> None:
    assert len(DOORS) > 150
    assert np.isfinite(TIMES).all()
    assert (TIMES >= 0).all()
    assert (np.diag(TIMES) == 0).all()


@given(doors, doors)
@settings(max_examples=60, deadline=None)
def test_a_path_takes_what_the_times_say_and_ends_where_it_should(a: int, b: int) -> None:
    path = STREETS.path(DOORS[a], DOORS[b], 8)
    assert path.seconds == pytest.approx(TIMES[a, b], abs=1e-6)
    assert path.cumulative_s[0] == 0
    assert path.cumulative_s[-1] == pytest.approx(path.seconds, abs=1e-6)
    assert (np.diff(path.cumulative_s) >= 0).all()
    assert path.shape.shape == (len(path.cumulative_s), 2)
    assert metres_along(path.shape).sum() == pytest.approx(path.metres, rel=1e-3, abs=1.0)
    for place, point in ((DOORS[a], path.shape[0]), (DOORS[b], path.shape[-1])):
        assert metres_between(place.position, Position(*point)) < 0.5


@given(doors, doors, st.integers(0, 23))
@settings(max_examples=60, deadline=None)
def test_a_path_makes_only_permitted_turns(a: int, b: int, hour: int) -> None:
    turns = set(zip(CITY.turn_from.tolist(), CITY.turn_to.tolist(), strict=True))
    path = STREETS.path(DOORS[a], DOORS[b], hour)
    assert all(turn in turns for turn in zip(path.edges, path.edges[1:], strict=False))


@given(st.sampled_from(WAYS), doors, doors)
@settings(max_examples=60, deadline=None)
def test_a_closure_never_makes_a_drive_quicker_and_nobody_drives_it(way_id: int, a: int, b: int) -> None:
    closed = STREETS.with_closed(frozenset({way_id}))
    times = closed.travel_times(DOORS, DOORS, 8)
    assert (times >= TIMES - 1e-6).all()
    assert np.isfinite(times).all()
    path = closed.path(DOORS[a], DOORS[b], 8)
    assert path.seconds == pytest.approx(times[a, b], abs=1e-6)
    assert way_id not in CITY.edge_way[list(path.edges)]
    assert metres_along(path.shape).sum() == pytest.approx(path.metres, rel=1e-3, abs=1.0)


@given(st.sets(st.sampled_from(WAYS), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_no_set_of_closures_makes_a_drive_quicker(ways: set[int]) -> None:
    assert (STREETS.with_closed(frozenset(ways)).travel_times(DOORS, DOORS, 8) >= TIMES - 1e-6).all()


def test_no_door_is_lost_whichever_street_is_closed_from_end_to_end() -> None:
    lost = [
        name
        for number, name in enumerate(CITY.names)
        if name and not _all_reached(frozenset(CITY.edge_way[CITY.edge_name == number].tolist()))
    ]
    assert lost == []


def _all_reached(ways: frozenset[int]) -> bool:
    some_doors = DOORS[::5]
    return bool(np.isfinite(STREETS.with_closed(ways).travel_times(some_doors, some_doors, 8)).all())


def test_opening_the_streets_again_gives_the_old_times() -> None:
    closed = STREETS.with_closed(frozenset(WAYS[:40]))
    assert np.array_equal(closed.with_closed(frozenset()).travel_times(DOORS, DOORS, 8), TIMES)


def test_the_core_is_where_vans_can_always_get_to_and_away() -> None:
    assert np.array_equal(core_edges(CITY), CITY.edge_core)
    assert not CITY.edge_halts[~CITY.edge_core].any()


# Closures, in a town small enough to see.


def test_a_closed_street_is_driven_round_by_who_only_passes(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2"))
    closed = Streets(city, frozenset({1}))
    path = closed.path(city.snap(at(0, 50)), city.snap(at(200, 50)), 3)
    assert ways_driven(city, path) == [4, 3, 2]
    assert path.walk_s == 0


def test_a_stop_on_a_closed_street_is_reached_at_walking_pace_from_the_nearer_end(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2"))
    closed = Streets(city, frozenset({1}))
    there = closed.path(city.snap(at(200, 50)), city.snap(at(150, 0)), 3)
    assert ways_driven(city, there) == [2]
    assert there.walk_s == pytest.approx(50 / WALK_METRES_PER_S, rel=0.01)
    back = closed.path(city.snap(at(150, 0)), city.snap(at(200, 50)), 3)
    assert back.walk_s == pytest.approx(there.walk_s, rel=0.01)


def test_a_stop_behind_a_closed_street_is_still_reached_when_nothing_else_leads_there(tmp_path: Path) -> None:
    city = drawn(
        tmp_path,
        *BLOCK,
        *BLOCK_STREETS,
        way(1, "1 2"),
        node(9, 300, 0),
        node(10, 400, 0),
        way(5, "2 9"),
        way(6, "9 10"),
    )
    path = Streets(city, frozenset({5})).path(city.snap(at(0, 50)), city.snap(at(380, 0)), 3)
    assert path.walk_s == pytest.approx(100 / WALK_METRES_PER_S, rel=0.01)
    assert ways_driven(city, path)[-1] == 6


def test_a_stop_behind_too_much_closed_street_is_unreachable_and_says_so(tmp_path: Path) -> None:
    far = FARTHEST_WALK_M + 250
    city = drawn(
        tmp_path,
        *BLOCK,
        *BLOCK_STREETS,
        way(1, "1 2"),
        node(9, far, 0),
        node(10, far + 90, 0),
        way(5, "2 9"),
        way(6, "9 10"),
    )
    closed = Streets(city, frozenset({5}))
    a, b = city.snap(at(0, 50)), city.snap(at(far + 50, 0))
    assert np.isinf(closed.travel_times([a], [b], 3)).all()
    assert np.isinf(closed.travel_times([b], [a], 3)).all()
    with pytest.raises(NoWayThrough, match=r"way 4 .* to way 6 .* with ways \[5\] closed"):
        closed.path(a, b, 3)
    assert np.isfinite(closed.travel_times([a, b], [a, b], 3)).sum() == 2


def test_an_end_of_a_street_that_leads_only_to_a_closed_one_is_reached_and_left(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2"))
    closed = Streets(city, frozenset({1, 3}))
    door = city.snap(at(200, 100))
    assert np.isfinite(closed.travel_times([door], [city.snap(at(0, 100))], 3)).all()


# Restrictions and sides.


def test_a_street_has_two_sides_and_a_one_way_has_none(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2", "highway=residential,oneway=yes"))
    streets = Streets(city)
    a, b, c, d = (city.snap(place) for place in (at(0, 50), at(0, 150), at(50, 0), at(150, 0)))
    assert [round(streets.path(a, b, 3).metres), round(streets.path(b, a, 3).metres)] == [100, 100]
    assert [round(streets.path(c, d, 3).metres), round(streets.path(d, c, 3).metres)] == [100, 700]


def test_a_drive_may_come_round_to_its_own_street(tmp_path: Path) -> None:
    ring = (way(5, "1 2 3 4 1", "highway=tertiary,junction=roundabout"), node(6, -100, 0), way(6, "6 1"))
    city = drawn(tmp_path, *BLOCK, *ring)
    a, b = city.snap(at(150, 0)), city.snap(at(50, 0))
    path = Streets(city).path(a, b, 3)
    assert round(path.metres) == 700
    assert path.seconds == pytest.approx(Streets(city).travel_times([a], [b], 3)[0, 0])


def test_restrictions_hold_while_other_streets_are_closed(tmp_path: Path) -> None:
    city = drawn(tmp_path, *CROSS, rule(1, "no_left_turn", "w1@from n5@via w2@to"))
    path = Streets(city, frozenset({3})).path(city.snap(at(-100, 0)), city.snap(at(0, 100)), 3)
    assert ways_driven(city, path) == [1, 4, 2]


# Hours and pace.


def test_the_peak_is_slower_than_the_night_on_every_street() -> None:
    assert (STREETS.edge_seconds(16) >= STREETS.edge_seconds(3)).all()
    assert STREETS.travel_times(DOORS, DOORS, 16).mean() > 1.05 * STREETS.travel_times(DOORS, DOORS, 3).mean()


def test_hours_with_the_same_traffic_share_a_slice() -> None:
    slices = hour_slices()
    assert slices[0][0] == 0
    assert slices[-1][1] == 24
    assert len(slices) == len({HOUR_FACTORS[:, first].tobytes() for first, _ in slices})
    assert hour_slices(8, 10) == ((8, 9), (9, 10))
    with pytest.raises(ValueError, match="hours from 9 to 9"):
        hour_slices(9, 9)


def test_traffic_that_is_twice_as_slow_takes_twice_as_long(tmp_path: Path) -> None:
    city = drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2"))
    a, b = city.snap(at(50, 0)), city.snap(at(150, 0))
    slow = Streets(city, edge_pace=np.full(len(city.edge_way), 2.0))
    assert slow.path(a, b, 3).seconds == pytest.approx(2 * Streets(city).path(a, b, 3).seconds)
    with pytest.raises(ValueError, match="edge_pace has shape"):
        Streets(city, edge_pace=np.ones(3))


def test_nothing_asked_is_nothing_answered() -> None:
    assert STREETS.travel_times([], DOORS, 8).shape == (0, len(DOORS))
    assert STREETS.travel_times(DOORS, [], 8).shape == (len(DOORS), 0)


@given(st.floats(-0.0004, 0.0004), st.floats(-0.0008, 0.0008), doors)
@settings(max_examples=60, deadline=None)
def test_a_place_is_tied_to_the_nearest_point_where_a_van_may_stop(north: float, east: float, door: int) -> None:
    place = Position(DOORS[door].position.lat + north, DOORS[door].position.lon + east)
    snap: Snap = CITY.snap(place)
    assert CITY.edge_halts[snap.edge]
    assert metres_between(place, snap.position) == pytest.approx(snap.metres_off, abs=0.2)
    assert metres_between(CITY.place(snap.edge, snap.along), snap.position) < 0.2
    assert snap.metres_off <= metres_between(place, DOORS[door].position) + 0.2
