"""The first plan: PyVRP in a process that may hang or fall, and real streets."""

import os
import signal

import pytest

from cloud_hub.events import PlanWanted
from cloud_hub.fleet import Vehicle
from cloud_hub.jobs import plan
from cloud_hub.planning import FleetProblem, VehicleNumbers
from cloud_hub.roads import Roads
from cloud_hub.solver import Solver, SolverFailed, SolverTask, search
from shared.citymap import CityMap, shipped_city
from shared.contracts import Rest
from shared.quantities import EpochMs, Position, Seconds, TimeWindow
from shared.work import AgentId, OrderId, Stop, StopId
from tests.unit.hub_cases import DAY, DEPOT, at, window


def line(opens: tuple[int, ...], closes: tuple[int, ...], vans: int = 1, most_work_s: int = 100_000) -> FleetProblem:
    """Stops along a street, 100 s apart, the depot at its beginning."""
    side = len(opens) + 1
    return FleetProblem(
        EpochMs(0), 1, [[100 * abs(a - b) for b in range(side)] for a in range(side)], opens, closes,
        (60,) * len(opens), (0,) * len(opens), ((150, 0),) * len(opens),
        tuple(VehicleNumbers(0, 0, 30_000, 100, (most_work_s, 0)) for _ in range(vans)),
    )  # fmt: skip


def test_a_street_is_driven_from_end_to_end() -> None:
    answer = search(SolverTask(line((0,) * 5, (30_000,) * 5), 5, 200, 1))
    assert answer.cost_s == 1000
    assert answer.left_out == ()
    assert sorted(answer.routes[0]) == [0, 1, 2, 3, 4]


def test_a_stop_nobody_can_reach_in_time_is_left_out_by_name() -> None:
    answer = search(SolverTask(line((0, 0, 0), (30_000, 30_000, 50)), 5, 200, 1))
    assert answer.left_out == (2,)


def test_work_is_shared_between_vans() -> None:
    answer = search(SolverTask(line((0,) * 8, (30_000,) * 8, vans=2, most_work_s=750), 5, 300, 1))
    assert sorted(len(route) for route in answer.routes) == [3, 5]


def test_one_seed_and_budget_give_one_answer() -> None:
    task = SolverTask(line((0, 500, 0, 900, 0), (2000, 3000, 30_000, 30_000, 900)), 5, 100, 3)
    first, second = search(task), search(task)
    assert first.routes == second.routes


def test_a_process_that_fell_is_replaced() -> None:
    solver = Solver(0.2)
    try:
        solver.solve(line((0, 0), (30_000, 30_000)), iterations=20)
        before = solver.process_id
        assert before is not None
        os.kill(before, signal.SIGKILL)
        os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
        solver.solve(line((0, 0), (30_000, 30_000)), iterations=20)
        assert solver.process_id != before
        assert solver.kills == 1
    finally:
        solver.kill()


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Solver(0.2)
    try:
        solver.solve(line((0, 0), (30_000, 30_000)), iterations=20)
        hung = solver.process_id
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        monkeypatch.setattr("cloud_hub.solver.GRACE_S", 0.1)
        with pytest.raises(SolverFailed, match="was killed"):
            solver.solve(line((0, 0), (30_000, 30_000)))
        assert solver.process_id is None
    finally:
        solver.kill()


def test_nonsense_is_refused_and_the_process_lives() -> None:
    solver = Solver(0.2)
    try:
        with pytest.raises(SolverFailed, match="refused the problem"):
            solver.solve(line((0, 0), (30_000,)))
        alive = solver.process_id
        solver.solve(line((0, 0), (30_000, 30_000)), iterations=20)
        assert solver.process_id == alive
    finally:
        solver.kill()


@pytest.fixture(scope="module")
def roads() -> Roads:
    """The shipped city's streets."""
    return Roads(CityMap.load(shipped_city()))


def stops_in_town(count: int) -> tuple[Stop, ...]:
    return tuple(stop_in_town(k) for k in range(count))


def stop_in_town(k: int) -> Stop:
    place = Position(60.165 + 0.0011 * (k % 9), 24.939 + 0.0012 * (k // 9))
    slot = window(9, 12) if k % 2 else window(12, 16)
    return Stop(StopId(f"stop-{k}"), OrderId(f"order-{k}"), "", place, slot, slot, Seconds(180))


def wanted(stops: tuple[Stop, ...], vans: int, rest: Rest | None = None, ends: float = 16.5) -> PlanWanted:
    vehicles = tuple(Vehicle(AgentId(f"van-{k}"), "north", DAY, at(8), at(ends), rest) for k in range(vans))
    return PlanWanted("plan/1", DAY, "Europe/Helsinki", (DEPOT,), vehicles, stops, (), 1)


def test_a_day_in_town_is_planned_with_nobody_late_and_no_order_lost(roads: Roads) -> None:
    solver = Solver(1.0, seed=1)
    noon = Rest(Seconds(1800), TimeWindow(at(11.5), at(13)))
    try:
        found = plan(wanted(stops_in_town(40), 2, noon), roads, solver)
    finally:
        solver.kill()
    planned = [stop_id for route in found.routes for stop_id in route.order]
    assert sorted(planned) == sorted(f"stop-{k}" for k in range(40))
    assert found.unserved == ()
    assert [route.late_s for route in found.routes] == [0, 0]
    assert found.final_cost_s <= found.solver_cost_s
    assert all(route.legs.places == route.order for route in found.routes)
    assert all(at(8) <= route.depart_ms < route.estimates[0].p50_ms for route in found.routes)


def test_what_no_shift_has_room_for_and_what_cannot_be_reached_is_listed(roads: Roads) -> None:
    solver = Solver(0.5, seed=1)
    island = Stop(
        StopId("island"), OrderId("o"), "", Position(60.10, 24.70), window(9, 12), window(9, 12), Seconds(180)
    )  # fmt: skip
    try:
        found = plan(wanted((*stops_in_town(30), island), 1, ends=9.5), roads, solver)
    finally:
        solver.kill()
    reasons = dict(found.unserved)
    assert reasons["island"] == "no permitted drive leads there and back"
    assert "no vehicle has room for it before its shift ends" in reasons.values()
    planned = [stop_id for route in found.routes for stop_id in route.order]
    assert sorted([*planned, *reasons]) == sorted(["island", *(f"stop-{k}" for k in range(30))])
