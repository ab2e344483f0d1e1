"""How late, how sure, and whether another order is worth it."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.lateness import (
    Lateness,
    Trouble,
    arcs,
    forbidden,
    is_worth_asking,
    is_worth_it,
    needed_gain_s,
    news,
    propose,
    stops_moved,
    trouble,
)
from edge_agent.outlook import Bearing, Foreseen, Quantiles, plans_own, route_problem, rows_for, spans_left
from shared.contracts import Freedom
from shared.features import LEG_COLUMNS, STOP_COLUMNS
from shared.messages import Estimate
from shared.quantities import EpochMs
from shared.routes import NEVER_CLOSES, evaluate
from shared.work import StopId
from tests.agents import MINUTE_MS, MORNING_MS, REST, Rig, plan_of, row_of_houses, stop

S = [StopId(f"s{k}") for k in range(10)]


def bearing_of(houses: int = 6, heads_for: str | None = None) -> Bearing:
    rig = Rig()
    rig.push(plan_of([*row_of_houses(houses - 1), stop(f"s{houses}", 450.0, 60.0, told=(0, 20))], rest=REST))
    rig.begin()
    if heads_for is not None:
        rig.heads_for(heads_for)
    assert rig.core._navigator.outlook is not None
    return rig.core._navigator.outlook.bearing


def told(at_min: list[float]) -> tuple[Estimate, ...]:
    instants = [EpochMs(MORNING_MS + round(m * MINUTE_MS)) for m in at_min]
    return tuple(Estimate(S[k], at, at, at) for k, at in enumerate(instants))


def test_risk_classes_follow_the_chances() -> None:
    risks = [Lateness(S[0], 0.0, late, breach).risk for late, breach in [(0.1, 0), (0.3, 0), (0.6, 0.1), (0.9, 0.7)]]
    assert risks == ["safe", "at_risk", "late", "breach"]


def test_two_minutes_are_no_news_and_four_are() -> None:
    assert news(told([10, 20]), {}, told([12, 22]), ()) == ""
    assert news(told([10, 20]), {}, told([12, 24]), ()) == "4 min later at s1"


def test_a_changed_risk_is_news_without_a_minute_moved() -> None:
    stands = (Lateness(S[0], 60.0, 0.4, 0.0),)
    assert news(told([10]), {S[0]: "safe"}, told([10]), stands) == "s0 is at_risk, was safe"


def test_stops_served_meanwhile_are_no_news() -> None:
    assert news(told([10, 20, 30]), {}, told([10, 20, 30])[1:], ()) == ""


def test_no_question_is_put_for_less_than_it_must_gain() -> None:
    freedom = Freedom(least_gain_s=180)
    assert not is_worth_asking(Trouble(179, ""), freedom, None, 0)
    assert is_worth_asking(Trouble(180, ""), freedom, None, 0)


def test_the_same_question_waits_unless_things_got_worse() -> None:
    freedom = Freedom(least_gain_s=180)
    asked = (MORNING_MS, 500)
    assert not is_worth_asking(Trouble(600, ""), freedom, asked, MORNING_MS + 60_000)
    assert is_worth_asking(Trouble(900, ""), freedom, asked, MORNING_MS + 60_000)
    assert is_worth_asking(Trouble(500, ""), freedom, asked, MORNING_MS + 180_000)


def test_half_of_a_refused_change_is_the_refused_change() -> None:
    bearing = bearing_of()
    spans = spans_left(bearing, *_both(plans_own(bearing, bearing.order)))
    problem = route_problem(bearing, spans)
    proposal = propose(problem, bearing.order, StopId(""), (6, 1, 2, 3, 4, 5))
    assert proposal is not None
    assert forbidden(proposal, Freedom(), 0, []) is None
    assert forbidden(proposal, Freedom(), 0, [proposal.new_arcs[:2]]) == ("refused", "the driver has just refused it")
    spent = forbidden(proposal, Freedom(arcs_per_day=2), 0, [])
    assert spent is not None
    assert spent[0] == "budget"


def test_a_change_must_gain_more_when_one_is_fresh_and_as_the_budget_shrinks() -> None:
    freedom = Freedom(least_gain_s=180, arcs_per_day=60)
    assert needed_gain_s(freedom, 0, None) == 180
    assert needed_gain_s(freedom, 30, None) == 360
    assert needed_gain_s(freedom, 0, 5 * MINUTE_MS) == 540
    assert needed_gain_s(freedom, 0, 25 * MINUTE_MS) == 180


@given(st.permutations(S))
def test_moving_the_counted_stops_makes_one_order_of_the_other(after: list[StopId]) -> None:
    moved = stops_moved(S, after)
    assert 0 <= moved <= len(S) - 1
    assert (moved == 0) == (after == S)


@given(st.permutations(S[:6]))
def test_arcs_count_every_stop_and_the_way_home(order: list[StopId]) -> None:
    assert len(arcs(StopId("start"), order)) == 7


def test_a_margin_regained_is_not_worth_making_somebody_later() -> None:
    bearing = bearing_of()
    plain = route_problem(bearing, spans_left(bearing, *_both(plans_own(bearing, bearing.order))))
    given = replace(plain, latest=(*plain.latest[:1], 60, *plain.latest[2:6], NEVER_CLOSES, *plain.latest[7:]))
    proposal = propose(given, bearing.order, StopId(""), (1, 2, 3, 4, 5, 6))
    assert proposal is not None
    gains = proposal._replace(gain_s=500)
    assert is_worth_it(gains, plain, 180)
    assert not is_worth_it(gains._replace(gain_s=100), plain, 180)
    worse = gains._replace(after=gains.after[::-1])
    later = replace(plain, latest=(*plain.latest[:1], 60, *plain.latest[2:]))
    assert not is_worth_it(worse, later, 180)


def _both(foreseen: Foreseen) -> tuple[Quantiles, Quantiles]:
    return foreseen.legs, foreseen.stops


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([None, "s1", "s3", "s6"]))
def test_rows_and_problem_fit_whatever_the_van_is_doing(goal: str | None) -> None:
    bearing = bearing_of(6, goal)
    rows = rows_for(bearing, bearing.order)
    assert rows.legs.shape == (7, len(LEG_COLUMNS))
    assert rows.stops.shape == (6, len(STOP_COLUMNS))
    problem = route_problem(bearing, spans_left(bearing, *_both(plans_own(bearing, bearing.order))))
    assert len(problem.order) == (6 if goal is None else 5)
    cost = evaluate(problem, problem.order)
    assert trouble(problem, cost).weighted_s == cost.lateness + cost.rest_lateness + cost.shift_overrun
