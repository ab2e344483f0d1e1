"""Orders are costed by driving them; every number here can be followed by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.routes import (
    ALWAYS_OPEN,
    NEVER_CLOSES,
    BadRoute,
    Break,
    RouteProblem,
    arrival,
    check,
    evaluate,
)


def line(n: int = 5, **changes: Any) -> RouteProblem:
    """Nodes 0..n-1 on a line, 10 apart; the van stands at 0, the stops are 1..n-1, no window ever closes."""
    travel = np.abs(np.arange(n)[:, None] - np.arange(n)[None]) * 10
    fields: dict[str, Any] = {
        "travel": travel,
        "order": tuple(range(1, n)),
        "start": 0,
        "leave": 100,
        "service": (0,) * n,
        "earliest": (ALWAYS_OPEN,) * n,
        "latest": (NEVER_CLOSES,) * n,
        "lateness_weight": (1,) * n,
    }
    return RouteProblem(**(fields | changes))


def test_an_open_route_ends_where_its_last_service_ends() -> None:
    cost = evaluate(line(service=(0, 1, 2, 3, 4)), (1, 2, 3, 4))
    assert cost.driving == 40
    assert cost.begins == (110, 121, 133, 146)
    assert cost.finish == 150


def test_a_closed_route_drives_home_and_the_home_window_counts() -> None:
    problem = line(end=0, latest=(170, *(NEVER_CLOSES,) * 4), lateness_weight=(7, 1, 1, 1, 1))
    cost = evaluate(problem, (1, 2, 3, 4))
    assert (cost.driving, cost.finish, cost.lateness) == (80, 180, 70)


def test_the_van_waits_for_a_window_to_open_and_waiting_is_free() -> None:
    cost = evaluate(line(earliest=(0, 0, 150, 0, 0)), (1, 2, 3, 4))
    assert cost.begins == (110, 150, 160, 170)
    assert cost.total == 40


def test_lateness_knocks_on_to_every_later_stop() -> None:
    problem = line(latest=(0, 105, 115, 125, 135), earliest=(0,) * 5, lateness_weight=(0, 1, 2, 3, 4))
    assert evaluate(problem, (1, 2, 3, 4)).lateness == 5 * (1 + 2 + 3 + 4)


def test_arcs_that_are_not_driven_now_cost_extra() -> None:
    problem = line(changed_arc_cost=6)
    assert evaluate(problem, (1, 2, 3, 4)).changed_arcs == 0
    assert evaluate(problem, (2, 1, 3, 4)).changed_arcs == 18
    assert evaluate(line(changed_arc_cost=6, end=0), (1, 2, 4, 3)).changed_arcs == 18


def test_a_leg_takes_what_its_departure_slice_says() -> None:
    problem = line(2, travel=np.array([[[0, 10], [10, 0]], [[0, 25], [25, 0]]]), slice_ends=(200,))
    assert arrival(problem, 0, 1, 199) == 209
    assert arrival(problem, 0, 1, 200) == 225


def test_where_a_faster_slice_is_about_to_begin_waiting_for_it_arrives_first() -> None:
    problem = line(2, travel=np.array([[[0, 90], [90, 0]], [[0, 10], [10, 0]]]), slice_ends=(200,))
    assert [arrival(problem, 0, 1, t) for t in (100, 119, 120, 150, 199, 200)] == [190, 209, 210, 210, 210, 210]


@given(
    takes=st.lists(st.integers(0, 50), min_size=4, max_size=4),
    ends=st.lists(st.integers(0, 100), min_size=3, max_size=3, unique=True).map(sorted),
    sooner=st.integers(-20, 150),
    gap=st.integers(0, 60),
)
def test_a_later_departure_never_arrives_earlier(takes: list[int], ends: list[int], sooner: int, gap: int) -> None:
    problem = line(2, travel=np.array([[[0, t], [t, 0]] for t in takes]), slice_ends=tuple(ends))
    assert arrival(problem, 0, 1, sooner) <= arrival(problem, 0, 1, sooner + gap)


def test_the_break_is_taken_at_the_first_departure_at_or_after_its_earliest_begin() -> None:
    cost = evaluate(line(rest=Break(duration=30, earliest=115, latest=117, lateness_weight=5)), (1, 2, 3, 4))
    assert cost.rest_begins == 120
    assert cost.begins == (110, 120, 160, 170)
    assert cost.rest_lateness == 15


def test_a_break_that_fits_before_a_closed_window_costs_no_time() -> None:
    problem = line(earliest=(0, 0, 150, 0, 0), rest=Break(duration=30, earliest=115, latest=200, lateness_weight=5))
    cost = evaluate(problem, (1, 2, 3, 4))
    assert cost.rest_begins == 120
    assert cost.begins == (110, 150, 160, 170)


def test_a_break_that_was_never_due_on_the_way_begins_at_the_end_of_the_route() -> None:
    cost = evaluate(line(rest=Break(duration=30, earliest=140, latest=145, lateness_weight=5)), (1, 2, 3, 4))
    assert (cost.rest_begins, cost.finish, cost.rest_lateness) == (None, 140, 0)
    late = evaluate(line(2, service=(0, 90), rest=Break(30, 140, 145, 5)), (1,))
    assert (late.rest_begins, late.finish, late.rest_lateness) == (None, 200, 275)


def test_finishing_after_the_shift_ends_costs() -> None:
    assert evaluate(line(shift_end=130, shift_weight=4), (1, 2, 3, 4)).shift_overrun == 40


def test_an_allowed_order_meets_no_objection() -> None:
    problem = line(frozen=1, precedence=((2, 4),), load_change=(0, 1, 1, 1, 1), load_now=2, capacity=6)
    assert check(problem, (1, 3, 2, 4)) == []


def test_each_broken_constraint_is_named() -> None:
    problem = line(frozen=1, precedence=((2, 4),), load_change=(0, -2, 1, 1, 1), load_now=5, capacity=6)
    objections = check(problem, (4, 3, 2, 1))
    assert any("frozen head is [1]" in said for said in objections)
    assert any("stop 4 comes before stop 2" in said for said in objections)
    assert any("load after stop 3 is 7, capacity is 6" in said for said in objections)


def test_an_order_that_is_no_permutation_is_named() -> None:
    (objection,) = check(line(), (1, 2, 2, 9))
    assert "missing [3, 4]" in objection
    assert "[9]" in objection


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"travel": np.zeros((3, 4), dtype=int)}, r"shape \(1, 3, 4\)"),
        ({"travel": np.full((5, 5), -1)}, "travel lies in -1"),
        ({"travel": np.zeros((5, 5))}, "dtype float64"),
        ({"slice_ends": (100,)}, "1 slices need 0 slice_ends"),
        ({"service": (0, 0)}, "service has 2 entries"),
        ({"service": (0, -3, 0, 0, 0)}, r"service\[1\] is -3"),
        ({"service": (0, 1.5, 0, 0, 0)}, "1.5, expected a whole number"),
        ({"earliest": (0, 9, 0, 0, 0), "latest": (9, 8, 9, 9, 9)}, "window of node 1 ends before it begins: 9..8"),
        ({"order": (1, 2, 2)}, "stop 2 twice"),
        ({"order": (1, 7)}, "names node 7"),
        ({"order": (0, 1)}, "both start and a stop"),
        ({"start": 9}, "start is node 9"),
        ({"end": 1}, "both end and a stop"),
        ({"frozen": 5}, "frozen head of 5 stops"),
        ({"precedence": ((1, 1),)}, r"precedence \(1, 1\)"),
        ({"lateness_weight": (2**21,) * 5}, "lateness_weight is 2097152"),
        ({"changed_arc_cost": -1}, "changed_arc_cost is -1"),
        ({"rest": Break(-1, 0, 0, 1)}, "break lasts -1"),
        ({"rest": Break(1, 5, 4, 1)}, "ends before it begins"),
        ({"leave": -(2**40), "earliest": (0,) * 5}, "use a coarser unit"),
        ({"latest": (0,) * 5, "leave": 2**40, "earliest": (0,) * 5}, "before the van leaves"),
    ],
)
def test_a_problem_that_contradicts_itself_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRoute, match=says):
        line(**changes)


def test_more_than_250_stops_are_refused() -> None:
    with pytest.raises(BadRoute, match="251 stops"):
        line(252)
