"""The fleet's problem in whole seconds, and the contracts made of its answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub import planning
from cloud_hub.fleet import Vehicle
from cloud_hub.promises import Rule
from shared.contracts import LegTimes, Rest
from shared.quantities import EpochMs, Position, Seconds, TimeWindow
from shared.routes import evaluate
from shared.work import AgentId, Parcel, Stop, StopId
from tests.unit.hub_cases import DEPOT, MINUTE, at, order, vehicle, window

NOON_BREAK = Rest(Seconds(1800), window(12, 13))


def stop(number: int, **changes: object) -> Stop:
    made = order(number).stop
    assert made is not None
    return Stop(**{name: changes.get(name, getattr(made, name)) for name in Stop.__struct_fields__})


def van(name: str = "van-1", rest: Rest | None = None, capacity: int = 10_000) -> Vehicle:
    return Vehicle(AgentId(name), "north", "2026-03-03", at(8), at(16), rest, capacity)


def legs(stops: list[Stop], seconds: int = 60, version: int = 1) -> LegTimes:
    side = len(stops) + 1
    matrix = np.full((2, side, side), seconds)
    matrix[:, range(side), range(side)] = 0
    return LegTimes.from_matrix(version, tuple(each.stop_id for each in stops), (at(12), at(17)), matrix)


def test_a_stop_may_begin_when_slot_and_opening_hours_allow() -> None:
    assert planning.window_of(stop(1, open_hours=window(8, 12))) == window(9, 12)


def test_a_plan_aims_some_minutes_before_the_window_ends() -> None:
    assert planning.aimed_at(stop(1, slot=window(9, 12))) == window(9, 11.75)
    assert planning.aimed_at(stop(1, slot=window(9, 9.5))) == window(9, 9.375)


def test_opening_hours_that_never_meet_the_slot_leave_the_slot() -> None:
    assert planning.window_of(stop(1, open_hours=window(18, 19))) == window(9, 17)


def test_a_collection_takes_room_on_the_way_back() -> None:
    parcel = (Parcel("p", litres=40.4),)
    assert planning.litres_of(stop(1, parcels=parcel)) == 40
    assert planning.litres_of(stop(1, parcels=parcel, service="collection")) == -40


def test_the_break_is_cut_out_of_the_solvers_day() -> None:
    stops = [stop(1, slot=window(9, 10)), stop(2, slot=window(14, 15))]
    problem = planning.fleet_problem([van(rest=NOON_BREAK)], [DEPOT], stops, np.zeros((3, 3), np.int64))
    assert (problem.opens_s, problem.closes_s) == ((3600, 21_600 - 1800), (7200 - 900, 25_200 - 900 - 1800))
    assert problem.vehicles[0].ends_s == 8 * 3600 - 1800


def test_every_part_of_the_day_is_shared_by_the_length_of_shifts() -> None:
    short = Vehicle(AgentId("van-2"), "north", "2026-03-03", at(8), at(12))
    stops = [stop(k, slot=window(9, 11 + 2 * (k // 10))) for k in range(30)]
    problem = planning.fleet_problem([van(), short], [DEPOT], stops, np.zeros((31, 31), np.int64))
    for part in range(3):
        all_work_s = sum(work[part] for work in problem.work_s)
        assert all_work_s == 10 * (180 + planning.BETWEEN_STOPS_S)
        long_share, short_share = (each.most_work_s[part] for each in problem.vehicles)
        assert long_share == pytest.approx(2 * short_share, abs=2)
        assert all_work_s < long_share + short_share < 1.2 * all_work_s


def test_doors_of_one_parking_place_are_no_drive_apart() -> None:
    stops = [stop(1, door_group="A 1"), stop(2), stop(3, door_group="A 1")]
    shared = planning.with_shared_doors(legs(stops), stops).matrix()
    assert shared[0].tolist() == [[0, 60, 60, 60], [60, 0, 60, 0], [60, 60, 0, 60], [60, 0, 60, 0]]


def test_travel_is_the_days_mean_with_each_slice_weighed_by_its_length() -> None:
    stops = [stop(1)]
    matrix = np.zeros((2, 2, 2), np.int64)
    matrix[0], matrix[1] = 100, 400
    table = LegTimes.from_matrix(1, ("stop-1",), (at(9), at(11)), matrix)  # type: ignore[arg-type]  # A plain string.
    mean = planning.mean_travel([DEPOT], {"north": table}, {"north": table.matrix()})
    assert mean[0, 1] == mean[1, 0] == 300
    assert stops


def test_the_exact_judge_knows_the_break_and_the_depot() -> None:
    stops = [stop(1, slot=window(9, 10)), stop(2, slot=window(13, 15))]
    table = legs(stops, 600)
    problem = planning.route_problem(van(rest=NOON_BREAK), stops, table.matrix(), table.slice_ends_ms)
    cost = evaluate(problem, problem.order)
    assert cost.begins == (3600, 5 * 3600)
    assert cost.rest_begins is not None
    assert 4 * 3600 <= cost.rest_begins <= 5 * 3600
    assert cost.finish == 5 * 3600 + 180 + 600


def test_a_van_does_not_wait_in_front_of_its_first_door() -> None:
    stops = [stop(1, slot=window(10, 12))]
    table = legs(stops, 600)
    problem = planning.route_problem(van(), stops, table.matrix(), table.slice_ends_ms)
    route = planning.route_of(van(), stops, evaluate(problem, problem.order), problem, table)
    assert route.depart_ms == at(10) - 12 * MINUTE
    assert route.estimates[0].p50_ms == at(10)


def test_a_route_without_stops_is_a_plan_without_stops() -> None:
    table = legs([])
    problem = planning.route_problem(van(), [], table.matrix(), table.slice_ends_ms)
    route = planning.route_of(van(), [], evaluate(problem, ()), problem, table)
    plan = planning.contract(route, van(), DEPOT, {}, 2, {})
    assert plan.stops == ()
    assert plan.objections() == []


def test_a_contract_is_one_an_agent_may_take() -> None:
    stops = [stop(1), stop(2)]
    table = legs(stops)
    problem = planning.route_problem(van(rest=NOON_BREAK), stops, table.matrix(), table.slice_ends_ms)
    route = planning.route_of(van(), stops, evaluate(problem, problem.order), problem, table)
    by_id = {each.stop_id: each for each in stops}
    told = planning.first_windows(route, by_id, Rule())
    plan = planning.contract(route, van(rest=NOON_BREAK), DEPOT, by_id, 1, told)
    assert plan.objections() == []
    assert plan.rest == NOON_BREAK
    left = planning.remaining_plan(plan, [StopId("stop-2")], {}, 2)
    assert left.objections() == []
    assert left.legs.places == ("stop-2",)


hours = st.floats(0, 24)


@given(hours, hours, hours, hours)
def test_a_told_window_is_cut_to_the_slot_whatever_was_told(a: float, b: float, c: float, d: float) -> None:
    slot = TimeWindow(at(min(a, b)), EpochMs(at(max(a, b)) + 1))
    cut = planning.with_told(stop(1, slot=slot), TimeWindow(at(min(c, d)), at(max(c, d))))
    assert cut.told.within(slot)


def test_places_far_outside_the_shift_do_not_break_the_judge() -> None:
    stops = [stop(1, slot=window(-30, -20), position=Position(60.0, 24.0))]
    table = legs(stops)
    problem = planning.route_problem(vehicle(), stops, table.matrix(), table.slice_ends_ms)
    assert evaluate(problem, problem.order).lateness > 0
