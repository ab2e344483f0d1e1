"""Look ahead: take the van's bearing, turn what models answer into arrivals, and notice when they no longer hold."""

from datetime import tzinfo

import msgspec

from edge_agent.arrivals import Arrivals
from edge_agent.assignment import Assignment
from edge_agent.lateness import Lateness, lateness
from edge_agent.learning import corrected
from edge_agent.memory import Day, Learned, SaidToHub
from edge_agent.outlook import (
    Bearing,
    Foreseen,
    Spans,
    arrivals,
    arrivals_in_this_order,
    estimates,
    spans_left,
    with_rest_advised,
)
from edge_agent.sensing import Belief
from edge_agent.turns import under_way
from edge_agent.whereabouts import share_left
from shared.messages import Estimate
from shared.work import StopId

DEVIATION_MS = 120_000
"""When the van's own progress says that it will be there so much later or sooner, the next minute is too late."""


class Outlook(msgspec.Struct, frozen=True):
    """The last look ahead. A restart looks again.

    `estimates` are what is told, `if_it_stays` what is expected if nobody changes the order again.
    """

    at_ms: int
    bearing: Bearing
    foreseen: Foreseen
    spans: Spans
    arrivals: Arrivals
    estimates: tuple[Estimate, ...]
    if_it_stays: tuple[Estimate, ...]
    stands: tuple[Lateness, ...]

    @property
    def rest_from_ms(self) -> int | None:
        """From when on the driver had better take the break; None when there is none to come."""
        return None if self.bearing.rest is None else self.bearing.rest.begins.opens_ms

    def said(self) -> SaidToHub:
        """What the hub knows once these estimates are said."""
        return SaidToHub(self.estimates, {stands.stop_id: stands.risk for stands in self.stands})


def bearing_of(
    work: Assignment, day: Day, learned: Learned, belief: Belief | None, zone: tzinfo, now_ms: int
) -> Bearing | None:
    """Where the van's day stands now; None when nothing of it lies ahead."""
    if not day.shown or day.shift == "ended":
        return None
    plan, goal = work.plan, under_way(day)
    resumes_ms = _resumes_ms(work, day, now_ms)
    is_rest_over = day.is_rest_taken or day.shift == "on_break"
    return Bearing(
        plan=plan,
        legs=work.legs,
        matrix=work.matrix,
        zone=zone,
        now_ms=now_ms,
        order=day.shown,
        under_way=goal,
        from_place=day.from_place,
        from_position=day.from_position or plan.depot.gateway,
        leaves_ms=resumes_ms if goal is None or day.set_off_ms is None else day.set_off_ms,
        resumes_ms=resumes_ms,
        share_left=1.0 if goal is None else share_left(belief, day, goal, work, now_ms),
        at_stop_since_ms=day.arrived_ms,
        rest=None if is_rest_over else plan.rest,
        pace=learned.legs.ratio,
        dwell_pace=learned.stops.ratio,
        told=dict(work.told),
    )


def _resumes_ms(work: Assignment, day: Day, now_ms: int) -> int:
    """When what lies ahead goes on: now, at departure, or when the break is over."""
    plan = work.plan
    if day.shift == "waiting":
        return max(now_ms, plan.depart_ms)
    if day.shift == "on_break" and plan.rest is not None and day.rest_began_ms is not None:
        return max(now_ms, day.rest_began_ms + plan.rest.duration_s * 1000)
    return now_ms


def look(bearing: Bearing, order: tuple[StopId, ...], foreseen: Foreseen, learned: Learned, now_ms: int) -> Outlook:
    """When the van will be at each stop of an order, and how that stands against the windows."""
    spans = spans_left(bearing, *corrected(learned, foreseen))
    bearing = with_rest_advised(bearing, order, spans, foreseen.correlation)
    joined = arrivals(bearing, order, spans, foreseen.correlation)
    expected = estimates(bearing, order, joined)
    stays = estimates(bearing, order, arrivals_in_this_order(bearing, order, spans, foreseen.correlation))
    return Outlook(now_ms, bearing, foreseen, spans, joined, expected, stays, lateness(bearing, order, joined))


def deviates(outlook: Outlook, day: Day, work: Assignment, belief: Belief | None, now_ms: int) -> bool:
    """Whether the van's place and the clock say that the stop under way will be reached much later than told."""
    goal = day.heading_to
    if goal is None or day.at_stop is not None or not outlook.estimates:
        return False
    if outlook.estimates[0].stop_id != goal or outlook.bearing.share_left <= 0:
        return False
    whole_s = float(outlook.spans.legs[0, 1]) / outlook.bearing.share_left
    leg_left_s = whole_s * share_left(belief, day, goal, work, now_ms)
    expected_ms = max(now_ms + leg_left_s * 1000, work.stops[goal].slot.opens_ms)
    return abs(expected_ms - outlook.estimates[0].p50_ms) > DEVIATION_MS


def without_done(outlook: Outlook, shown: tuple[StopId, ...]) -> Outlook:
    """The same look for an order that has changed since: what was expected of the stops that are still to come."""
    if outlook.bearing.order == shown:
        return outlook
    expected = {estimate.stop_id: estimate for estimate in outlook.estimates}
    kept = tuple(expected[stop_id] for stop_id in shown if stop_id in expected)
    return msgspec.structs.replace(outlook, estimates=kept)
