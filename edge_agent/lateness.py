"""Say how late the van will be, how sure that is, and whether another order of its work is worth the disturbance."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from edge_agent.arrivals import Arrivals
from edge_agent.outlook import Bearing
from edge_agent.reasons import Reason, counted
from shared.contracts import Freedom
from shared.ledger import Alternative
from shared.messages import Estimate
from shared.routes import Cost, RouteProblem, check, evaluate
from shared.work import StopId

Risk = Literal["safe", "at_risk", "late", "breach"]
"""How a told window stands: less than one in five to miss it, less than even, even or more; a breach is the same of
the slot that was sold."""

AT_RISK = 0.2
"""The hub weighs moving a window when one case in five misses it: the edge of the P10-P90 band, twice over."""
LATE = 0.5

MOVED_MS = 180_000
"""Estimates are said again when one has moved by this much. Customers are told quarter hours; three minutes are the
noise of parking, measured as half the spread of one stop."""

SAME_QUESTION_FOR_MS = 180_000
"""After an answer that changed nothing, the same question is not put again for so long, unless things got worse."""
WORSE_S = 360
"""Weighted seconds: two minutes more at one customer."""


SETTLED_AFTER_MS = 1_200_000
"""A driver who got a new order within the last 20 minutes gets another only for three times the gain."""
FRESH_FACTOR = 3
DEARER = 2.0
"""The last arc of the day's budget must gain three times what the first had to."""


class Lateness(msgspec.Struct, frozen=True):
    """How one stop stands: expected seconds after the end of its told window, and the chances of missing window and
    slot.
    """

    stop_id: StopId
    late_s: float
    p_late: float
    p_breach: float

    @property
    def risk(self) -> Risk:
        """The class that decides whether others must hear of it."""
        if self.p_breach >= LATE:
            return "breach"
        if self.p_late >= LATE:
            return "late"
        return "at_risk" if self.p_late >= AT_RISK else "safe"


def lateness(bearing: Bearing, order: Sequence[StopId], joined: Arrivals) -> tuple[Lateness, ...]:
    """How every stop of an order stands against the window its customer was told and the slot that was sold."""
    if not order:
        return ()
    told = np.array([bearing.told_window(stop_id).closes_ms for stop_id in order], np.int64)
    slots = np.array([bearing.stop(stop_id).slot.closes_ms for stop_id in order], np.int64)
    columns = (
        joined.expected_lateness_s(told).tolist(),
        joined.late_probabilities(told).tolist(),
        joined.late_probabilities(slots).tolist(),
    )
    return tuple(Lateness(stop_id, *stands) for stop_id, *stands in zip(order, *columns, strict=True))


def news(
    said: Sequence[Estimate], said_risks: dict[StopId, str], now: Sequence[Estimate], stands: Sequence[Lateness]
) -> str:
    """Why what is estimated now must be said, in words; empty when what was said still serves."""
    if not said:
        return "first estimates" if now else ""
    before = {estimate.stop_id: estimate.p50_ms for estimate in said}
    shifts = [
        (estimate.p50_ms - before[estimate.stop_id], estimate.stop_id) for estimate in now if estimate.stop_id in before
    ]
    if len(shifts) < len(now):
        return "other stops than before"
    changed = [
        f"{stop.stop_id} is {stop.risk}, was {said_risks[stop.stop_id]}"
        for stop in stands
        if stop.stop_id in said_risks and said_risks[stop.stop_id] != stop.risk
    ]
    if changed:
        return changed[0] if len(changed) == 1 else f"{changed[0]}, and {len(changed) - 1} more"
    by_ms, stop_id = max(shifts, key=lambda shift: (abs(shift[0]), shift[1]), default=(0, ""))
    if abs(by_ms) < MOVED_MS:
        return ""
    return f"{minutes(abs(by_ms) / 1000)} min {'later' if by_ms > 0 else 'sooner'} at {stop_id}"


class Trouble(NamedTuple):
    """What the present order costs in weighted seconds of lateness, overtime and a missed break, and in words."""

    weighted_s: int
    words: str


def trouble(problem: RouteProblem, cost: Cost) -> Trouble:
    """What is wrong with a future."""
    weighted = cost.lateness + cost.rest_lateness + cost.shift_overrun
    words = []
    if cost.lateness:
        count = sum(late_s > 0 for late_s in _lates(problem, problem.order, cost))
        words.append(f"late, or about to be, at {counted(count, 'stop')}")
    if cost.rest_lateness:
        words.append("the break begins too late")
    if cost.shift_overrun:
        words.append("the shift ends too late")
    return Trouble(weighted, " and ".join(words))


def is_worth_asking(now: Trouble, freedom: Freedom, asked: tuple[int, int] | None, now_ms: int) -> bool:
    """Whether the kernel should look for another order; `asked` is when it was last asked in vain, and the trouble."""
    if now.weighted_s < freedom.least_gain_s:
        return False
    if asked is None:
        return True
    asked_at_ms, trouble_then_s = asked
    return now_ms - asked_at_ms >= SAME_QUESTION_FOR_MS or now.weighted_s >= trouble_then_s + WORSE_S


class Proposal(NamedTuple):
    """Another order of the same stops, weighed against the present one by the oracle."""

    before: tuple[StopId, ...]
    after: tuple[StopId, ...]
    before_cost: Cost
    after_cost: Cost
    gain_s: int
    new_arcs: tuple[tuple[StopId, StopId], ...]


def propose(problem: RouteProblem, beyond: Sequence[StopId], start: StopId, nodes: Sequence[int]) -> Proposal | None:
    """The kernel's answer as stops, weighed; None when it is no allowed order of this problem."""
    if check(problem, nodes):
        return None
    before, after = tuple(beyond), tuple(beyond[node - 1] for node in nodes)
    before_cost, after_cost = evaluate(problem, problem.order), evaluate(problem, nodes)
    driven = set(arcs(start, before))
    return Proposal(
        before,
        after,
        before_cost,
        after_cost,
        before_cost.total - after_cost.total,
        tuple(arc for arc in arcs(start, after) if arc not in driven),
    )


def needed_gain_s(freedom: Freedom, arcs_used: int, since_change_ms: int | None) -> float:
    """What a change must gain: more when the last one is fresh, and more as the day's budget is used up.

    Without it a bad morning spends the whole budget on a dozen small changes, and the afternoon has none left.
    """
    share_used = arcs_used / max(1, freedom.arcs_per_day)
    is_fresh = since_change_ms is not None and since_change_ms < SETTLED_AFTER_MS
    return freedom.least_gain_s * (1 + DEARER * share_used) * (FRESH_FACTOR if is_fresh else 1)


def is_worth_it(proposal: Proposal, plain: RouteProblem, needed_s: float, guard: RouteProblem | None = None) -> bool:
    """Whether a proposal gains what it needs to, and not by making what is truly late later.

    The gain is by the problem the kernel was given, with its margins; `plain` is the same day without them; `guard`
    is what may not get worse whatever is gained.
    """
    if proposal.gain_s < needed_s:
        return False
    nodes = _nodes(proposal.before, proposal.after)
    return all(
        trouble(problem, evaluate(problem, nodes)).weighted_s
        <= trouble(problem, evaluate(problem, problem.order)).weighted_s
        for problem in (plain, guard or plain)
    )


def arcs(start: StopId, order: Sequence[StopId]) -> list[tuple[StopId, StopId]]:
    """Who follows whom, from where the order begins to the way home."""
    path = [start, *order, StopId("")]
    return list(pairwise(path))


def forbidden(
    proposal: Proposal,
    freedom: Freedom,
    arcs_used: int,
    refused: Sequence[Sequence[tuple[StopId, StopId]]],
) -> tuple[str, str] | None:
    """The rule that forbids a change that is worth it, by name and in words; None when it may be made.

    `refused` holds the new arcs of changes the driver has lately turned down: a proposal that makes half of them again
    is the same change.
    """
    if arcs_used + len(proposal.new_arcs) > freedom.arcs_per_day:
        return "budget", (
            f"it would change {len(proposal.new_arcs)} arcs and {freedom.arcs_per_day - arcs_used} of the day's"
            f" {freedom.arcs_per_day} are left"
        )
    for turned_down in refused:
        again = [arc for arc in turned_down if arc in proposal.new_arcs]
        if again and 2 * len(again) >= len(turned_down):
            return "refused", "the driver has just refused it"
    return None


def alternatives(
    problem: RouteProblem, plain: RouteProblem, beyond: Sequence[StopId], proposal: Proposal
) -> tuple[Alternative, ...]:
    """What could have been done: keep the order, take the best found, or only serve the latest stop next.

    Costs are by `problem`, whose windows close a margin early; lateness is by the windows themselves (`plain`).
    """
    found = [
        _alternative("keep the order", problem, plain, problem.order, proposal.before_cost),
        _alternative("take the best order found", problem, plain, _nodes(beyond, proposal.after), proposal.after_cost),
    ]
    lates = _lates(problem, problem.order, proposal.before_cost)
    latest = max(range(len(lates)), key=lambda k: (lates[k], -k), default=0)
    next_first = (problem.order[latest], *problem.order[:latest], *problem.order[latest + 1 :]) if lates else ()
    if latest > 0 and lates[latest] > 0 and not check(problem, next_first):
        what = f"only serve {beyond[latest]} next"
        found.append(_alternative(what, problem, plain, next_first, evaluate(problem, next_first)))
    return tuple(found)


def _nodes(beyond: Sequence[StopId], order: Sequence[StopId]) -> tuple[int, ...]:
    node = {stop_id: k + 1 for k, stop_id in enumerate(beyond)}
    return tuple(node[stop_id] for stop_id in order)


def _alternative(
    what: str, problem: RouteProblem, plain: RouteProblem, order: Sequence[int], cost: Cost
) -> Alternative:
    changed = cost.changed_arcs // problem.changed_arc_cost if problem.changed_arc_cost else 0
    return Alternative(
        what,
        cost_s=float(cost.total),
        late_s=float(sum(_lates(plain, order, evaluate(plain, order)))),
        driving_s=float(cost.driving),
        changed_arcs=changed,
    )


def _lates(problem: RouteProblem, order: Sequence[int], cost: Cost) -> list[int]:
    """Seconds late at each stop of an order, in that order."""
    return [max(0, begin - problem.latest[node]) for node, begin in zip(order, cost.begins, strict=True)]


def reason(problem: RouteProblem, plain: RouteProblem, proposal: Proposal) -> Reason:
    """Why the order changes and what that does, in numbers."""
    before = dict(zip(proposal.before, _lates(problem, problem.order, proposal.before_cost), strict=True))
    nodes = _nodes(proposal.before, proposal.after)
    after = dict(zip(proposal.after, _lates(problem, nodes, proposal.after_cost), strict=True))
    truly = dict(zip(proposal.before, _lates(plain, problem.order, proposal.before_cost), strict=True))
    more = [after[s] - before[s] for s in before if after[s] - before[s] >= 60]
    worse = {"worse_count": len(more), "worse_min": minutes(max(more))} if more else {}
    moved = stops_moved(proposal.before, proposal.after)
    return msgspec.structs.replace(
        _cause(truly, before, proposal), moved=moved, **_effect(before, after, proposal), **worse
    )


def _effect(before: dict[StopId, int], after: dict[StopId, int], proposal: Proposal) -> dict[str, Any]:
    was, becomes = proposal.before_cost, proposal.after_cost
    kept = sum(before[stop_id] > 0 and after[stop_id] == 0 for stop_id in before)
    if kept:
        return {"effect": "keeps_windows", "effect_count": kept}
    less = [before[s] - after[s] for s in before if before[s] - after[s] >= 60 and after[s] > 0]
    if less:
        return {"effect": "waits_less", "effect_count": len(less), "effect_min": minutes(max(less))}
    if becomes.shift_overrun < was.shift_overrun:
        return {"effect": "shift_sooner", "effect_min": minutes(was.finish - becomes.finish)}
    if becomes.rest_lateness < was.rest_lateness:
        return {"effect": "break_in_time"}
    return {"effect": "saves_driving", "effect_min": minutes(was.driving - becomes.driving)}


def _cause(late_s: dict[StopId, int], with_margin_s: dict[StopId, int], proposal: Proposal) -> Reason:
    worst = max(late_s, key=lambda stop_id: late_s[stop_id], default=None)
    tightest = max(with_margin_s, key=lambda stop_id: with_margin_s[stop_id], default=None)
    if worst is not None and late_s[worst] >= 60:
        return Reason("late", cause_stop=worst, cause_min=minutes(late_s[worst]))
    if tightest is not None and with_margin_s[tightest] > 0:
        return Reason("about_to_miss", cause_stop=tightest)
    if proposal.before_cost.shift_overrun:
        return Reason("shift_too_long")
    if proposal.before_cost.rest_lateness:
        return Reason("break_too_late")
    return Reason("roads")


def stops_moved(before: Sequence[StopId], after: Sequence[StopId]) -> int:
    """The fewest stops that must be taken out and put back to make one order of the other."""
    place = {stop_id: k for k, stop_id in enumerate(before)}
    # The longest rising run of old places stays where it is (patience sorting).
    piles: list[int] = []
    for stop_id in after:
        k = bisect_left(piles, place[stop_id])
        piles[k : k + 1] = [place[stop_id]]
    return len(after) - len(piles)


def minutes(seconds: float) -> int:
    """Whole minutes, at least one: nobody says 'zero minutes late'."""
    return max(1, round(seconds / 60))
