"""What the hub asks of its roads: leg times by hour, ways, closures, and the names of stops that are cut off."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cloud_hub.roads import Roads, StopsUnreachable, StreetUnknown
from shared.citymap import OffTheMap, shipped_city
from shared.contracts import DEPOT_PLACE
from shared.quantities import EpochMs, Position, Seconds, TimeWindow, metres_between
from shared.streets import FARTHEST_WALK_M, HOUR_FACTORS
from shared.work import Depot, OrderId, Stop, StopId
from tests.shells.drawn_town import BLOCK, BLOCK_STREETS, at, drawn, node, way

ROADS = Roads(shipped_city())
DOORS = [address.position for address in ROADS.city.addresses[::60]]
DEPOT = Depot("vantaa", "Vantaa depot", Position(60.27, 25.02), Position(60.1779, 24.9500), Seconds(900))
ZONE = "Europe/Helsinki"
WHENEVER = TimeWindow(EpochMs(0), EpochMs(1))


def stop(stop_id: str, position: Position) -> Stop:
    return Stop(StopId(stop_id), OrderId(stop_id), "somewhere", position, WHENEVER, WHENEVER, Seconds(180))


def helsinki_ms(text: str) -> int:
    """Epoch milliseconds of an instant written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_the_matrix_has_a_slice_for_every_traffic_of_the_day() -> None:
    legs = ROADS.matrix([DEPOT, *DOORS])
    assert legs.seconds.dtype == np.int32
    assert legs.seconds.shape == (len(legs.slice_end_hours), len(DOORS) + 1, len(DOORS) + 1)
    assert legs.slice_end_hours[-1] == 24
    assert len(legs.slice_ends_s) == len(legs.slice_end_hours) - 1
    assert (legs.seconds[:, range(3), range(3)] == 0).all()


def test_a_leg_to_a_depot_outside_the_map_is_its_stem_and_the_streets_from_its_gateway() -> None:
    legs = ROADS.matrix([DEPOT, DEPOT.gateway, *DOORS], first_hour=7, end_hour=9)
    stem_s = 900 * HOUR_FACTORS[2, 7]
    assert np.allclose(legs.seconds[0, 0, 2:] - legs.seconds[0, 1, 2:], stem_s, atol=1)
    assert np.allclose(legs.seconds[0, 2:, 0] - legs.seconds[0, 2:, 1], stem_s, atol=1)


def test_the_way_from_a_depot_begins_at_its_door_and_takes_the_matrix_time() -> None:
    path = ROADS.path(DEPOT, DOORS[3], 8)
    assert metres_between(Position(*path.shape[0]), DEPOT.position) < 1
    assert path.seconds == pytest.approx(
        ROADS.matrix([DEPOT, DOORS[3]], first_hour=8, end_hour=9).seconds[0, 0, 1], abs=1
    )
    assert path.cumulative_s[-1] == pytest.approx(path.seconds)
    back = ROADS.path(DOORS[3], DEPOT, 8)
    assert metres_between(Position(*back.shape[-1]), DEPOT.position) < 1
    assert (np.diff(back.cumulative_s) >= 0).all()


def test_leg_times_of_a_contract_follow_the_clock_on_the_wall() -> None:
    stops = [stop(f"s{k}", position) for k, position in enumerate(DOORS[:5])]
    legs = ROADS.leg_times(
        DEPOT, stops, helsinki_ms("2026-06-10T05:30"), helsinki_ms("2026-06-10T13:00"), ZONE, roads_version=4
    )
    assert legs.roads_version == 4
    assert legs.places == ("s0", "s1", "s2", "s3", "s4")
    # 8:30 to 16:00 in Helsinki: the rest of the morning peak, the day, one hour of the afternoon.
    assert list(legs.slice_ends_ms) == [
        helsinki_ms("2026-06-10T06:00"),
        helsinki_ms("2026-06-10T12:00"),
        helsinki_ms("2026-06-10T13:00"),
    ]
    by_hour = ROADS.matrix([DEPOT, *DOORS[:5]], first_hour=8, end_hour=16)
    assert np.array_equal(legs.matrix()[DEPOT_PLACE], by_hour.seconds[0])
    assert np.array_equal(legs.matrix(), by_hour.seconds)


def test_on_the_day_the_clock_is_changed_the_peak_still_comes_at_seven() -> None:
    legs = ROADS.leg_times(
        DEPOT, [stop("s", DOORS[0])], helsinki_ms("2026-03-28T22:00"), helsinki_ms("2026-03-29T21:00"), ZONE
    )
    # On 29 March 2026 Helsinki goes from UTC+2 to UTC+3 at 3:00: 7:00 is 4:00 UTC, and the day has 23 hours.
    assert helsinki_ms("2026-03-29T04:00") in legs.slice_ends_ms
    assert legs.slice_ends_ms[-1] == helsinki_ms("2026-03-29T21:00")


def test_a_closure_lengthens_and_its_end_restores() -> None:
    roads = Roads(ROADS.city)
    before = roads.matrix([DEPOT, *DOORS])
    ways = [found.way for found in roads.ways_named("Kaivokatu")]
    assert roads.close(ways) == frozenset(ways)
    during = roads.matrix([DEPOT, *DOORS])
    assert (during.seconds >= before.seconds).all()
    assert during.seconds.sum() > before.seconds.sum()
    assert roads.reopen(ways) == frozenset()
    assert np.array_equal(roads.matrix([DEPOT, *DOORS]).seconds, before.seconds)


def test_a_question_may_bring_its_own_closures() -> None:
    ways = [found.way for found in ROADS.ways_named("Kaivokatu")]
    asked = ROADS.matrix([DEPOT, *DOORS], closed=[*ways, 999_999_999_999])
    assert asked.seconds.sum() > ROADS.matrix([DEPOT, *DOORS]).seconds.sum()
    assert ROADS.closed == frozenset()


def test_a_way_the_map_does_not_know_cannot_be_closed() -> None:
    with pytest.raises(StreetUnknown, match="no drivable way 12"):
        Roads(ROADS.city).close([12])


def test_a_street_is_found_whatever_its_case_and_accents() -> None:
    names = {found.street for found in ROADS.ways_named("ETELAESPLANADI")}
    assert names == {"Eteläesplanadi"}
    assert {found.street for found in ROADS.ways_named("esplanadi")} >= {"Eteläesplanadi", "Pohjoisesplanadi"}


@pytest.mark.parametrize("name", ["", "   ", "Esplanadii", "\x00", "x" * 1000])
def test_a_street_that_is_not_on_the_map_is_refused_by_name(name: str) -> None:
    with pytest.raises(StreetUnknown, match="no street called"):
        ROADS.ways_named(name)


def test_a_street_is_found_by_pointing_at_it() -> None:
    found = ROADS.ways_named("Kaivokatu")[0]
    assert ROADS.way_at(found.middle).street == "Kaivokatu"
    with pytest.raises(OffTheMap, match="point closer"):
        ROADS.way_at(Position(60.5, 24.9))


def test_the_ways_of_a_drive_come_in_driven_order() -> None:
    path = ROADS.path(DOORS[0], DOORS[7], 8)
    ways = ROADS.ways_on(path)
    assert ways[0].way == ROADS.city.edge_way[path.edges[0]]
    assert ways[-1].way == ROADS.city.edge_way[path.edges[-1]]


def test_stops_off_the_map_are_named() -> None:
    stops = [stop("near", DOORS[0]), stop("oslo", Position(59.91, 10.75)), stop("nowhere", Position(float("nan"), 0.0))]
    with pytest.raises(StopsUnreachable, match=r"2 of 4 places are off the map: [a-z0-9 ,-]+$") as refusal:
        ROADS.leg_times(DEPOT, stops, 0, 3_600_000, ZONE)
    assert refusal.value.names == ("oslo", "nowhere")


def test_stops_that_a_closure_cuts_off_are_named(tmp_path: Path) -> None:
    far = FARTHEST_WALK_M + 250
    lane = (node(9, far, 0), node(10, far + 90, 0), way(5, "2 9"), way(6, "9 10"))
    roads = Roads(drawn(tmp_path, *BLOCK, *BLOCK_STREETS, way(1, "1 2"), *lane))
    depot = Depot("d", "Depot", at(0, 0), at(0, 0))
    stops = [stop("home", at(200, 100)), stop("lane end", at(far + 50, 0)), stop("north", at(100, 200))]
    with pytest.raises(
        StopsUnreachable, match="no permitted drive leads to lane end and back with ways 5 closed"
    ) as refusal:
        roads.leg_times(depot, stops, 0, 3_600_000, ZONE, closed=[5])
    assert refusal.value.names == ("lane end",)


def test_times_that_end_before_they_begin_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a later end"):
        ROADS.leg_times(DEPOT, [stop("s", DOORS[0])], 1_000, 1_000, ZONE)
