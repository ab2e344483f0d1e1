"""What is foreseen of the day ahead: the break where it breaks the fewest promises, and slots before told windows."""

from collections.abc import Sequence

import msgspec

from edge_agent.foresight import Outlook
from edge_agent.outlook import spans_left, with_rest_advised
from edge_agent.reordering import Case, case_of
from shared.contracts import Rest
from shared.quantities import EpochMs, Seconds, TimeWindow
from shared.work import Stop
from tests.agents import MINUTE_MS, MORNING_MS, REST, Rig, plan_of, row_of_houses, stop

REST_NOW = Rest(Seconds(1800), TimeWindow(MORNING_MS, EpochMs(MORNING_MS + 120 * MINUTE_MS)))


def sold_until(house: Stop, minutes: float) -> Stop:
    """The same stop whose slot, and whose told window, end so many minutes after departure."""
    slot = TimeWindow(MORNING_MS, EpochMs(MORNING_MS + round(minutes * MINUTE_MS)))
    return msgspec.structs.replace(house, slot=slot, told=slot)


def outlook_of(stops: Sequence[Stop], rest: Rest | None = None) -> Outlook:
    """What a van at its depot foresees of these stops."""
    rig = Rig()
    rig.push(plan_of(stops, rest=rest))
    rig.begin()
    assert rig.core._navigator.outlook is not None
    return rig.core._navigator.outlook


def test_a_break_that_hurts_nobody_is_left_where_the_plan_allows_it() -> None:
    outlook = outlook_of(row_of_houses(6), REST)
    assert outlook.rest_from_ms == REST.begins.opens_ms


def test_a_break_that_would_break_a_slot_is_advised_for_later_inside_its_window() -> None:
    houses = [sold_until(house, 45) for house in row_of_houses(6)]
    outlook = outlook_of(houses, REST_NOW)
    assert outlook.rest_from_ms is not None
    assert REST_NOW.begins.opens_ms < outlook.rest_from_ms <= REST_NOW.begins.closes_ms


def test_a_later_break_that_spares_nobody_is_not_advised() -> None:
    houses = [sold_until(house, 5) for house in row_of_houses(6)]
    assert outlook_of(houses, REST_NOW).rest_from_ms == REST_NOW.begins.opens_ms


def test_the_driver_sees_the_advised_break() -> None:
    rig = Rig()
    rig.push(plan_of([sold_until(house, 45) for house in row_of_houses(6)], rest=REST_NOW))
    rig.begin()
    assert rig.core._navigator.outlook is not None
    assert rig.day["break"]["earliest_ms"] == rig.core._navigator.outlook.rest_from_ms
    assert rig.day["break"]["earliest_ms"] > REST_NOW.begins.opens_ms
    assert rig.day["break"]["latest_ms"] == REST_NOW.begins.closes_ms


def test_without_a_break_to_come_nothing_is_advised() -> None:
    outlook = outlook_of(row_of_houses(3))
    bearing = outlook.bearing
    spans = spans_left(bearing, outlook.foreseen.legs, outlook.foreseen.stops)
    assert with_rest_advised(bearing, bearing.order, spans, outlook.foreseen.correlation) is bearing
    assert outlook.rest_from_ms is None


def case(stops: Sequence[Stop]) -> Case:
    """The case of these stops in the order planned, before anybody looks for another."""
    rig = Rig()
    rig.does_jobs = False
    rig.push(plan_of(stops))
    rig.begin()
    rig.step(rig.answer_to(rig.jobs[-1]))
    assert rig.core._navigator.outlook is not None
    found = case_of(rig.core._navigator.outlook)
    assert found is not None
    return found


def test_a_told_window_in_danger_is_a_case_while_every_slot_is_safe() -> None:
    told_soon = stop("s7", 2800.0, 0.0, told=(0, 12))
    found = case([*row_of_houses(6), told_soon])
    assert found.trouble.weighted_s > 0
    assert found.problem is not found.guard
    assert found.guard.latest[7] > found.problem.latest[7]


def test_a_slot_in_danger_is_the_only_case() -> None:
    told_soon = stop("s7", 2800.0, 0.0, told=(0, 12))
    sold_soon = sold_until(stop("s8", 3200.0, 0.0), 20)
    found = case([*row_of_houses(6), told_soon, sold_soon])
    assert found.problem is found.guard
    assert found.problem.latest[7] > 60 * 60
