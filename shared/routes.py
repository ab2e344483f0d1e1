"""Say what an order of stops costs and whether it is allowed: the exact evaluator every other judgement is measured
against.

One van, standing at a start node, still has stops to serve. An order of those stops is driven from front to back
without ever waiting on purpose except where a faster slice of travel times is about to begin, so an order alone decides
every instant of the day. Plain integers and plain loops: the kernel in `resequence` is fast, this module is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_STOPS = 250
"""A van's remaining day never holds more; the kernel's deadline is promised up to here."""

ALWAYS_OPEN = -(2**62)
"""An `earliest` that never makes a van wait."""

NEVER_CLOSES = 2**62
"""A `latest` that no van can miss."""

MOST_WEIGHT = 2**20
"""Weights and costs per arc stay below this, so that no sum of them can leave 64 bits."""

LONGEST_DAY = 2**30
"""Time units from leaving to the last possible instant of the route: 34 years in seconds, 12 days in milliseconds."""


class BadRoute(ValueError):
    """The route problem contradicts itself."""


class OrderRefused(ValueError):
    """The order breaks a hard constraint of its route."""


# The small values here are named tuples because each dataclass adds a millisecond to the start of every agent.
class Break(NamedTuple):
    """A rest the driver must take once.

    The break begins at the first of these moments at or after `earliest`: the van is about to leave for its next stop
    (or for the end node), or it stands in front of a closed window and the whole break fits before the window opens. In
    the first case everything after it moves by `duration`, in the second nothing does. A route that ends before such a
    moment has its break at its end. Beginning after `latest` costs `lateness_weight` per time unit.
    """

    duration: int
    earliest: int
    latest: int
    lateness_weight: int


@dataclass(frozen=True, slots=True, eq=False)
class RouteProblem:
    """What one van still has to do; every time and cost is an integer in one unit (seconds, say) that the caller
    chooses.

    `travel` has shape (slices, n, n), dtype int32: entry [s, a, b] is the time from node a to node b when leaving in
    slice s. Slice s holds the departures before `slice_ends[s]` and not before `slice_ends[s - 1]`; the last slice has
    no end, so there is one end less than there are slices. **A later departure never arrives earlier** (FIFO): where
    waiting for a faster slice pays, the arrival is that of the van that waited, min over all departures >= t of
    departure + travel, and the wait counts as driving.

    `order` is the order now driven: distinct nodes without `start` and `end`; nodes in none of the three do not take
    part. Its first `frozen` stops stay where they are. `service`, `earliest`, `latest`, `lateness_weight` and
    `load_change` have one entry per node. Service begins on arrival or at `earliest`, whichever is later, and lasts
    `service`; beginning after `latest` costs `lateness_weight` per time unit. The van leaves `start` at `leave` (the
    start node's own window and service are over). With an `end` node the route finishes when service may begin there,
    its window weighs like a stop's, its service does not count; with `end=None` it finishes when the last service ends.

    `precedence` holds pairs (a, b): a is served before b. The load after every stop is at most `capacity` (None: no
    limit). Every arc driven that is not in the order now driven costs `changed_arc_cost`. Finishing after `shift_end`
    costs `shift_weight` per time unit.

    Raises `BadRoute` naming the first contradiction found.
    """

    travel: npt.NDArray[np.int32]
    order: tuple[int, ...]
    start: int
    leave: int
    service: tuple[int, ...]
    earliest: tuple[int, ...]
    latest: tuple[int, ...]
    lateness_weight: tuple[int, ...]
    end: int | None = None
    slice_ends: tuple[int, ...] = ()
    changed_arc_cost: int = 0
    frozen: int = 0
    precedence: tuple[tuple[int, int], ...] = ()
    load_change: tuple[int, ...] = ()
    load_now: int = 0
    capacity: int | None = None
    rest: Break | None = None
    shift_end: int | None = None
    shift_weight: int = 0

    def __post_init__(self) -> None:
        _take_arrays(self)
        _check_travel(self)
        _check_nodes(self)
        _check_columns(self)
        _check_constraints(self)
        _check_rest_and_shift(self)
        _check_horizon(self)

    @property
    def nodes(self) -> int:
        """How many nodes the travel times speak of."""
        return int(self.travel.shape[1])


class Cost(NamedTuple):
    """What an order costs and when things happen; `begins` has the instant service begins at each stop, in order."""

    driving: int
    lateness: int
    changed_arcs: int
    rest_lateness: int
    shift_overrun: int
    begins: tuple[int, ...]
    finish: int
    rest_begins: int | None

    @property
    def total(self) -> int:
        """The one number orders are compared by: time driven, weighted lateness of every kind, and the price of changed
        arcs.
        """
        return self.driving + self.lateness + self.changed_arcs + self.rest_lateness + self.shift_overrun


def arrival(problem: RouteProblem, a: int, b: int, departure: int) -> int:
    """When a van leaving node a for node b at `departure` arrives; never earlier for a later departure."""
    ends = problem.slice_ends
    now = sum(end <= departure for end in ends)
    best = departure + problem.travel.item(now, a, b)
    for later in range(now + 1, len(ends) + 1):
        if ends[later - 1] >= best:
            break
        best = min(best, ends[later - 1] + problem.travel.item(later, a, b))
    return best


def evaluate(problem: RouteProblem, order: Sequence[int]) -> Cost:
    """What driving `order` (a permutation of `problem.order`) costs, by driving it. Hard constraints are `check`'s
    business.
    """
    rest = problem.rest
    known_arcs = set(_arcs(problem, problem.order))
    begins: list[int] = []
    driving = lateness = rest_lateness = 0
    rest_begins: int | None = None
    departure = problem.leave
    path = [*order] if problem.end is None else [*order, problem.end]
    here = problem.start
    for there in path:
        if rest is not None and rest_begins is None and departure >= rest.earliest:
            rest_begins = departure
            departure += rest.duration
        arrives = arrival(problem, here, there, departure)
        driving += arrives - departure
        opens = problem.earliest[there]
        if rest is not None and rest_begins is None and max(arrives, rest.earliest) + rest.duration <= opens:
            rest_begins = max(arrives, rest.earliest)
        begin = max(arrives, opens)
        lateness += problem.lateness_weight[there] * max(0, begin - problem.latest[there])
        begins.append(begin)
        departure = begin + problem.service[there]
        here = there
    finish = departure if problem.end is None else begins.pop()
    if rest is not None:
        rest_lateness = rest.lateness_weight * max(0, (finish if rest_begins is None else rest_begins) - rest.latest)
    return Cost(
        driving=driving,
        lateness=lateness,
        changed_arcs=problem.changed_arc_cost * sum(arc not in known_arcs for arc in _arcs(problem, order)),
        rest_lateness=rest_lateness,
        shift_overrun=0 if problem.shift_end is None else problem.shift_weight * max(0, finish - problem.shift_end),
        begins=tuple(begins),
        finish=finish,
        rest_begins=rest_begins,
    )


def check(problem: RouteProblem, order: Sequence[int]) -> list[str]:
    """Which hard constraints `order` breaks, one sentence each; empty when the order is allowed."""
    expected = set(problem.order)
    if len(order) != len(problem.order) or set(order) != expected:
        missing = sorted(expected.difference(order))
        strange = sorted(set(order) - expected)
        return [
            f"order is no permutation of the route's {len(expected)} stops: "
            f"missing {missing}, strange or repeated {strange}"
        ]
    objections = []
    head = problem.order[: problem.frozen]
    if tuple(order[: problem.frozen]) != head:
        objections.append(f"frozen head is {list(head)}, order begins {list(order[: problem.frozen])}")
    place = {stop: position for position, stop in enumerate(order)}
    objections += [
        f"stop {after} comes before stop {before}, which must precede it"
        for before, after in problem.precedence
        if before in place and after in place and place[before] > place[after]
    ]
    if problem.capacity is not None:
        load = problem.load_now
        for stop in order:
            load += problem.load_change[stop]
            if load > problem.capacity:
                objections.append(f"load after stop {stop} is {load}, capacity is {problem.capacity}")
                break
    return objections


def _arcs(problem: RouteProblem, order: Sequence[int]) -> list[tuple[int, int]]:
    path = [problem.start, *order] + ([] if problem.end is None else [problem.end])
    return list(pairwise(path))


def _take_arrays(problem: RouteProblem) -> None:
    """Hold what came as lists or arrays as tuples of ints and one read-only int32 array."""
    travel = np.asarray(problem.travel)
    if travel.ndim == 2:
        travel = travel[np.newaxis]
    if travel.size and not np.issubdtype(travel.dtype, np.integer):
        raise BadRoute(f"travel has dtype {travel.dtype}, expected integers: scale and round first")
    if travel.size and (int(travel.min()) < 0 or int(travel.max()) >= LONGEST_DAY):
        raise BadRoute(f"travel lies in {travel.min()}..{travel.max()}, expected 0..{LONGEST_DAY - 1}")
    held = np.array(travel, dtype=np.int32, order="C")
    held.flags.writeable = False
    object.__setattr__(problem, "travel", held)
    for name in ("order", "service", "earliest", "latest", "lateness_weight", "slice_ends", "load_change"):
        object.__setattr__(problem, name, _whole_numbers(name, getattr(problem, name)))
    object.__setattr__(problem, "precedence", tuple((int(a), int(b)) for a, b in problem.precedence))


def _whole_numbers(name: str, column: Iterable[int]) -> tuple[int, ...]:
    entries = column.tolist() if isinstance(column, np.ndarray) else list(column)
    for index, entry in enumerate(entries):
        if type(entry) is not int:
            if not isinstance(entry, np.integer):
                raise BadRoute(f"{name}[{index}] is {entry!r}, expected a whole number")
            entries[index] = int(entry)
    return tuple(entries)


def _check_travel(problem: RouteProblem) -> None:
    shape = problem.travel.shape
    if len(shape) != 3 or shape[1] != shape[2] or shape[0] < 1:
        raise BadRoute(f"travel has shape {shape}, expected (slices, n, n)")
    if len(problem.slice_ends) != shape[0] - 1:
        raise BadRoute(f"{shape[0]} slices need {shape[0] - 1} slice_ends, found {len(problem.slice_ends)}")
    for sooner, later in pairwise(problem.slice_ends):
        if later <= sooner:
            raise BadRoute(f"slice_ends must rise, found {sooner} followed by {later}")


def _check_nodes(problem: RouteProblem) -> None:
    nodes = problem.nodes
    if len(problem.order) > MOST_STOPS:
        raise BadRoute(f"order has {len(problem.order)} stops, at most {MOST_STOPS} are allowed")
    named = {"start": problem.start} | ({} if problem.end is None else {"end": problem.end})
    for role, node in named.items():
        if not 0 <= node < nodes:
            raise BadRoute(f"{role} is node {node}, expected 0..{nodes - 1}")
    seen: set[int] = set()
    for stop in problem.order:
        if not 0 <= stop < nodes:
            raise BadRoute(f"order names node {stop}, expected 0..{nodes - 1}")
        if stop in seen:
            raise BadRoute(f"order names stop {stop} twice")
        seen.add(stop)
    for role, node in named.items():
        if node in seen:
            raise BadRoute(f"node {node} is both {role} and a stop of the order")
    if not 0 <= problem.frozen <= len(problem.order):
        raise BadRoute(f"frozen head of {problem.frozen} stops, expected 0..{len(problem.order)}")


def _check_columns(problem: RouteProblem) -> None:
    if not problem.load_change:
        object.__setattr__(problem, "load_change", (0,) * problem.nodes)
    for name in ("service", "earliest", "latest", "lateness_weight", "load_change"):
        column = getattr(problem, name)
        if len(column) != problem.nodes:
            raise BadRoute(f"{name} has {len(column)} entries, expected one for each of {problem.nodes} nodes")
    for name in ("service", "lateness_weight"):
        column = getattr(problem, name)
        if column and min(column) < 0:
            raise BadRoute(f"{name}[{column.index(min(column))}] is {min(column)}, expected 0 or more")
    for node, (opens, closes) in enumerate(zip(problem.earliest, problem.latest, strict=True)):
        if closes < opens:
            raise BadRoute(f"window of node {node} ends before it begins: {opens}..{closes}")
    for name, weight in (
        ("lateness_weight", max(problem.lateness_weight, default=0)),
        ("changed_arc_cost", problem.changed_arc_cost),
        ("shift_weight", problem.shift_weight),
    ):
        if not 0 <= weight <= MOST_WEIGHT:
            raise BadRoute(f"{name} is {weight}, expected 0..{MOST_WEIGHT}")


def _check_constraints(problem: RouteProblem) -> None:
    for before, after in problem.precedence:
        if not (0 <= before < problem.nodes and 0 <= after < problem.nodes) or before == after:
            raise BadRoute(f"precedence ({before}, {after}) does not name two nodes of 0..{problem.nodes - 1}")
    if problem.capacity is not None and problem.capacity < 0:
        raise BadRoute(f"capacity is {problem.capacity}, expected 0 or more, or None for no limit")
    loads = [problem.load_now, *problem.load_change, problem.capacity or 0]
    if max(loads, key=abs) >= 2**40 or min(loads) <= -(2**40):
        raise BadRoute(f"loads reach {max(loads, key=abs)}, expected less than 2**40")


def _check_rest_and_shift(problem: RouteProblem) -> None:
    rest = problem.rest
    if rest is not None:
        if rest.duration < 0:
            raise BadRoute(f"break lasts {rest.duration}, expected 0 or more")
        if rest.latest < rest.earliest:
            raise BadRoute(f"break must begin within {rest.earliest}..{rest.latest}, which ends before it begins")
        if not 0 <= rest.lateness_weight <= MOST_WEIGHT:
            raise BadRoute(f"break's lateness_weight is {rest.lateness_weight}, expected 0..{MOST_WEIGHT}")


def _check_horizon(problem: RouteProblem) -> None:
    """The kernel counts in 32 bits from `leave`; a day that does not fit is a mistake in units."""
    taking_part = [*problem.order] + ([] if problem.end is None else [problem.end])
    waits = max((problem.earliest[node] - problem.leave for node in taking_part), default=0)
    longest = max(0, waits) + sum(problem.service[node] for node in taking_part)
    longest += int(problem.travel.max(initial=0)) * (len(taking_part) + 1)
    longest += 0 if problem.rest is None else problem.rest.duration
    if longest >= LONGEST_DAY:
        raise BadRoute(
            f"the route could last {longest} time units, expected less than {LONGEST_DAY}: use a coarser unit"
        )
    deadlines = [problem.latest[node] for node in taking_part]
    deadlines += [] if problem.shift_end is None else [problem.shift_end]
    deadlines += [] if problem.rest is None else [problem.rest.latest]
    if min(deadlines, default=problem.leave) < problem.leave - LONGEST_DAY:
        raise BadRoute(
            f"a window closed at {min(deadlines)}, more than {LONGEST_DAY} before the van leaves at {problem.leave}"
        )
    instants = [problem.leave, *deadlines, *problem.slice_ends, *problem.earliest]
    if max(map(abs, instants)) > 2**62:
        raise BadRoute(f"instant {max(instants, key=abs)} is beyond 2**62")
