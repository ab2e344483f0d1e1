"""Travel times and paths over a city's streets, by hour and with streets closed.

Searches run over *states* instead of junctions: a state is an edge being driven, together with what the rules say
depends on the past (a chain of turns that must not be completed; a local street that was entered from outside and
may not be left on the other side).

A van stops on either side of a two-way street and may turn round at a door. A closed street is driven by nobody but
those who have a stop on it, or behind it where nothing else leads: they pass the barrier and go on at walking pace. So
no customer is lost because his own street is closed, and a closure never makes a drive quicker.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array  # type: ignore[import-untyped]  # SciPy ships no types.
from scipy.sparse.csgraph import (  # type: ignore[import-untyped]  # SciPy ships no types.
    breadth_first_order,
    connected_components,
    dijkstra,
)

from shared.citymap import ROAD_CLASSES, CityMap, Floats, Ints, Snap, metres_along

Edges = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

U_TURN_S = 20.0
"""Turning round at the end of a dead end: three moves of a van."""

WALK_METRES_PER_S = 1.25
"""Past a barrier, on foot with a parcel or on wheels behind a banksman: 4.5 km/h, a little less than people walk."""

FARTHEST_WALK_M = 1_000.0
"""A place behind more closed street than this, 13 minutes at walking pace, counts as unreachable. No door of the
Helsinki centre is, whichever one street is closed from end to end.
"""

_ORIGINS_AT_ONCE = 64
"""Rows of one search: keeps a whole city's 300,000 states within 150 MB."""


def _hour_factors() -> Floats:
    """How many times as long a street takes by class and hour, float64[class, 24].

    The shape of an ordinary working day in a European city: free at night, a sharp morning peak, a broader one in
    the afternoon, main roads hit hardest. Only a first guess: agents learn what their own town does.
    """
    #            0-6   6-7   7-9   9-15  15-18 18-20 20-24
    main_road = (1.00, 1.10, 1.45, 1.18, 1.50, 1.20, 1.05)
    collector = (1.00, 1.08, 1.35, 1.15, 1.40, 1.15, 1.03)
    side_road = (1.00, 1.03, 1.12, 1.08, 1.15, 1.06, 1.01)
    yard_road = (1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00)
    periods = {
        "motorway": main_road,
        "trunk": main_road,
        "primary": main_road,
        "secondary": main_road,
        "tertiary": collector,
        "unclassified": collector,
        "residential": side_road,
        "living_street": side_road,
        "service": yard_road,
    }
    table = np.array([periods[name] for name in ROAD_CLASSES])
    factors = np.repeat(table, (6, 1, 2, 6, 3, 2, 4), axis=1)
    factors.flags.writeable = False
    return factors


HOUR_FACTORS = _hour_factors()


class NoWayThrough(ValueError):
    """No permitted drive leads from the one place to the other."""


@dataclass(frozen=True, slots=True)
class Path:
    """A drive: `shape` float64[k, 2] in degrees (k >= 2), passed at `cumulative_s` float64[k], from 0 to `seconds`.

    `edges` are the edges driven, in order; `walk_s` is how much of `seconds` is spent at walking pace on streets
    that are closed.
    """

    seconds: float
    metres: float
    edges: tuple[int, ...]
    shape: Floats
    cumulative_s: Floats
    walk_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _States:
    """The search graph without its hour: arcs in compressed rows, their penalties, and which states belong to which
    edge.
    """

    edge: Edges
    row_start: Edges
    arc_to: Edges
    arc_penalty_s: Floats
    arrival_start: Edges
    arrivals: Edges

    def arc_from(self) -> Edges:
        """Where each arc begins."""
        return np.repeat(np.arange(len(self.edge), dtype=np.int32), np.diff(self.row_start))

    def arriving(self, edge: int) -> Edges:
        """Every state of this edge: state `edge` itself (where drives begin) and its copies."""
        return self.arrivals[self.arrival_start[edge] : self.arrival_start[edge + 1]]


class Streets:
    """The streets of a town with some ways closed; `edge_pace` (float64[m], optional) multiplies every edge's time."""

    def __init__(
        self,
        city: CityMap,
        closed_ways: frozenset[int] = frozenset(),
        edge_pace: npt.NDArray[np.float64] | None = None,
        *,
        all_open: "Streets | None" = None,
    ) -> None:
        if edge_pace is not None and edge_pace.shape != city.edge_metres.shape:
            raise ValueError(
                f"edge_pace has shape {edge_pace.shape}, expected one number for each of {len(city.edge_metres)} edges"
            )
        self.city = city
        self.closed_ways = closed_ways
        self._pace = edge_pace
        self._free_s = city.edge_metres.astype(np.float64) / (city.edge_kph.astype(np.float64) / 3.6)
        self._closed: Mask = np.isin(city.edge_way, sorted(closed_ways))
        self._enterable = self._leavable = np.ones(len(city.edge_way), bool)
        self._barrier_turns = np.zeros(0, np.int32)
        self._seconds_by_slice: dict[bytes, tuple[Floats, Floats]] = {}
        self._all_open = self
        if not self._closed.any():
            self._states = _states_of(city)
            return
        self._all_open = all_open or Streets(city, frozenset(), edge_pace)
        self._barrier_turns = _ends_at_barriers(city, self._closed)
        states = _states_of(city, self._barrier_turns)
        core = _core_states(_without(states, self._closed), np.where(self._closed, 0.0, city.edge_metres))
        self._states = _without_detour(states, ~core)
        self._enterable, self._leavable = _within_walk(self._states, city, np.flatnonzero(core), self._closed)

    def with_closed(self, ways: frozenset[int]) -> "Streets":
        """The same streets with exactly these ways closed."""
        if ways == self.closed_ways:
            return self
        return Streets(self.city, ways, self._pace, all_open=self._all_open) if ways else self._all_open

    def edge_seconds(self, hour: int) -> Floats:
        """How long each edge takes from end to end in this hour, waits on it included: float64[m]."""
        seconds: Floats = self._hour(hour)[0]
        return seconds

    def travel_times(self, origins: Sequence[Snap], destinations: Sequence[Snap], hour: int) -> Floats:
        """Seconds from every origin to every destination in this hour: float64[o, d], inf where no permitted drive
        exists.

        Dijkstra's algorithm over the edge-expanded graph (scipy.sparse.csgraph).
        """
        if not origins or not destinations:
            return np.zeros((len(origins), len(destinations)))
        edge_s, _ = self._hour(hour)
        exits = [self._exits(place, edge_s) for place in destinations]
        exit_states = np.concatenate([states for states, _ in exits])
        exit_seconds = np.concatenate([seconds for _, seconds in exits])
        exit_start = np.cumsum([0, *(len(states) for states, _ in exits)])
        reached = np.diff(exit_start) > 0
        times = np.full((len(origins), len(destinations)), np.inf)
        for first in range(0, len(origins), _ORIGINS_AT_ONCE):
            chunk = origins[first : first + _ORIGINS_AT_ONCE]
            if reached.any():
                arrived = self._search(chunk, hour)[0][:, exit_states] + exit_seconds
                soonest = np.minimum.reduceat(arrived, exit_start[:-1][reached], axis=1)
                times[first : first + len(chunk), reached] = soonest
        np.minimum(times, self._along_one_street(origins, destinations, edge_s), out=times)
        return times

    def path(self, a: Snap, b: Snap, hour: int) -> Path:
        """The quickest permitted drive in this hour; it takes what `travel_times` says.

        Raises NoWayThrough naming both ends.
        """
        edge_s, _ = self._hour(hour)
        states, seconds = self._exits(b, edge_s)
        distances, before = self._search([a], hour, with_path=True)
        arrived = distances[0, states] + seconds
        quickest = float(arrived.min()) if len(arrived) else np.inf
        short = float(self._along_one_street([a], [b], edge_s)[0, 0])
        if min(quickest, short) == np.inf:
            closed = f" with ways {sorted(self.closed_ways)} closed" if self.closed_ways else ""
            raise NoWayThrough(
                f"no permitted drive leads from {_spoken(self.city, a)} to {_spoken(self.city, b)}{closed}: "
                f"{'reopen one of them or ' if closed else ''}leave one of the two places out"
            )
        drawing = _Drawing(self.city, edge_s, self._closed)
        if short <= quickest:
            options = itertools.product(self._sides(a), self._sides(b))
            on_one = [(e, x, y) for (e, x), (f, y) in options if e == f and y >= x]
            drawing.drive(*min(on_one, key=lambda way: (way[2] - way[1]) * edge_s[way[0]]))
        else:
            state = int(states[int(np.argmin(arrived))])
            self._draw(drawing, a, b, _traced(before[0], state), hour)
        return drawing.finished()

    def round_s(self, edges: Edges, hour: int) -> Floats:
        """Seconds from the far end of each two-way edge round to its near end: float64[k], inf where nothing leads."""
        arc_s = self._hour(hour)[1]
        n = len(self._states.edge)
        graph = csr_array((arc_s, self._states.arc_to, self._states.row_start), shape=(n, n))
        seconds = dijkstra(graph, indices=edges)
        twins = self.city.edge_twin[edges]
        return np.array([seconds[k, self._states.arriving(int(twin))].min() for k, twin in enumerate(twins)])

    def _hour(self, hour: int) -> tuple[Floats, Floats]:
        """Seconds by edge and by arc; hours with the same factors share them."""
        factors = HOUR_FACTORS[:, hour % 24]
        key = factors.tobytes()
        if key not in self._seconds_by_slice:
            edge_s = self._free_s * factors[self.city.edge_class] + self.city.edge_wait_s
            if self._pace is not None:
                edge_s = edge_s * self._pace
            edge_s = np.where(self._closed, np.maximum(edge_s, self.city.edge_metres / WALK_METRES_PER_S), edge_s)
            states = self._states
            arc_s = states.arc_penalty_s + edge_s[states.edge[states.arc_to]]
            if len(self._barrier_turns):
                arc_from = states.edge[states.arc_from()]
                turns = np.flatnonzero(self.city.edge_twin[arc_from] == states.edge[states.arc_to])
                turns = turns[np.isin(arc_from[turns], self._barrier_turns)]
                # Dearer than the loop that is closed now, or a closure would make some drives quicker.
                loop_s = dict(
                    zip(self._barrier_turns.tolist(), self._all_open.round_s(self._barrier_turns, hour), strict=True)
                )
                arc_s[turns] = np.maximum(arc_s[turns], [loop_s[edge] for edge in arc_from[turns].tolist()])
            self._seconds_by_slice[key] = (edge_s, arc_s)
        return self._seconds_by_slice[key]

    def _sides(self, place: Snap) -> list[tuple[int, float]]:
        """The edges on which a van may stand at this place, and how far along."""
        twin = int(self.city.edge_twin[place.edge])
        return [(place.edge, place.along)] + ([(twin, 1.0 - place.along)] if twin >= 0 else [])

    def _exits(self, place: Snap, edge_s: Floats) -> tuple[Edges, Floats]:
        """The states in which a drive to this place ends, and what to add to the time at their far end."""
        sides = [(edge, along) for edge, along in self._sides(place) if self._enterable[edge]]
        states = [self._states.arriving(edge) for edge, _ in sides]
        after = [-(1.0 - along) * edge_s[edge] for edge, along in sides]
        seconds = np.repeat(np.array(after, dtype=np.float64), [len(copies) for copies in states])
        return np.concatenate([np.zeros(0, np.int32), *states]), seconds

    def _starts(self, place: Snap, edge_s: Floats, arc_s: Floats) -> tuple[Edges, Floats]:
        """The states a drive from this place enters first, and when it comes to their far end."""
        states, seconds = [np.zeros(0, np.int32)], [np.zeros(0)]
        for edge, along in self._sides(place):
            if self._leavable[edge]:
                row = slice(self._states.row_start[edge], self._states.row_start[edge + 1])
                states.append(self._states.arc_to[row])
                seconds.append((1.0 - along) * edge_s[edge] + arc_s[row])
        return np.concatenate(states), np.concatenate(seconds)

    def _search(self, origins: Sequence[Snap], hour: int, with_path: bool = False) -> tuple[Floats, Edges]:
        """Seconds to the far end of every state, float64[o, s]; and the state before it, int32[o, s], when asked for.

        Each origin is a state of its own after the last one, so that a drive may come round to its own street.
        """
        edge_s, arc_s = self._hour(hour)
        starts = [self._starts(place, edge_s, arc_s) for place in origins]
        n = len(self._states.edge)
        ends = len(self._states.arc_to) + np.cumsum([len(states) for states, _ in starts])
        graph = csr_array(
            (
                np.concatenate([arc_s, *(seconds for _, seconds in starts)]),
                np.concatenate([self._states.arc_to, *(states for states, _ in starts)]).astype(np.int32),
                np.concatenate([self._states.row_start, ends]).astype(np.int32),
            ),
            shape=(n + len(origins), n + len(origins)),
        )
        rows = np.arange(n, n + len(origins))
        if with_path:
            seconds, before = dijkstra(graph, indices=rows, return_predecessors=True)
            return seconds[:, :n], before[:, :n]
        return dijkstra(graph, indices=rows)[:, :n], np.zeros((0, 0), np.int32)

    def _along_one_street(self, origins: Sequence[Snap], destinations: Sequence[Snap], edge_s: Floats) -> Floats:
        """Seconds of the drives that pass no junction, float64[o, d]; inf between places that share no edge."""
        times = np.full((len(origins), len(destinations)), np.inf)
        on_edge: dict[int, list[tuple[int, float]]] = {}
        for column, place in enumerate(destinations):
            for edge, along in self._sides(place):
                on_edge.setdefault(edge, []).append((column, along))
        for row, place in enumerate(origins):
            for edge, along in self._sides(place):
                for column, there in on_edge.get(edge, ()):
                    if there >= along:
                        times[row, column] = min(times[row, column], (there - along) * edge_s[edge])
        return times

    def _draw(self, drawing: "_Drawing", a: Snap, b: Snap, states: list[int], hour: int) -> None:
        """Out of a's place, over the states in order, into b's place."""
        edge_s, arc_s = self._hour(hour)

        def turn_s(state: int, following: int) -> float:
            arc = self._states.row_start[state] + int(np.flatnonzero(self._next_states(state) == following)[0])
            return float(arc_s[arc] - edge_s[self._states.edge[following]])

        edge, along = min(
            ((e, x) for e, x in self._sides(a) if self._leavable[e] and states[0] in self._next_states(e)),
            key=lambda side: (1.0 - side[1]) * edge_s[side[0]] + turn_s(side[0], states[0]),
        )
        drawing.drive(edge, along, 1.0)
        drawing.wait(turn_s(edge, states[0]))
        for state, following in itertools.pairwise(states):
            drawing.drive(int(self._states.edge[state]), 0.0, 1.0)
            drawing.wait(turn_s(state, following))
        last = int(self._states.edge[states[-1]])
        drawing.drive(last, 0.0, dict(self._sides(b))[last])

    def _next_states(self, state: int) -> Edges:
        return self._states.arc_to[self._states.row_start[state] : self._states.row_start[state + 1]]


class _Drawing:
    """A path being drawn piece by piece: points, instants, metres and edges so far."""

    def __init__(self, city: CityMap, edge_s: Floats, closed: Mask) -> None:
        self._city = city
        self._edge_s = edge_s
        self._closed = closed
        self._points: list[Floats] = []
        self._instants_s: list[Floats] = []
        self._now_s = 0.0
        self._metres = 0.0
        self._walk_s = 0.0
        self._edges: list[int] = []

    def drive(self, edge: int, start: float, end: float) -> None:
        """Drive the edge from this share of its length to that one."""
        seconds = (end - start) * float(self._edge_s[edge])
        points = self._city.shape(edge)
        done = np.concatenate(([0.0], np.cumsum(metres_along(points))))
        share = done / max(done[-1], 1e-9)
        marks = np.concatenate(([start], share[(share > start) & (share < end)], [end]))
        at = np.column_stack((np.interp(marks, share, points[:, 0]), np.interp(marks, share, points[:, 1])))
        self._points.append(at)
        self._instants_s.append(self._now_s + (marks - start) * float(self._edge_s[edge]))
        self._now_s += seconds
        self._metres += (end - start) * float(self._city.edge_metres[edge])
        if self._closed[edge]:
            self._walk_s += seconds
        else:
            self._edges.append(edge)

    def wait(self, seconds: float) -> None:
        """Spend time at the point reached, as at a turn."""
        self._now_s += seconds

    def finished(self) -> Path:
        """The whole path; a point where two pieces meet is there once."""
        shape, instants = np.concatenate(self._points), np.concatenate(self._instants_s)
        fresh = np.ones(len(shape), bool)
        fresh[1:-1] = np.abs(np.diff(shape[:-1], axis=0)).max(axis=1, initial=0.0) > 1e-9
        shape, instants = shape[fresh], instants[fresh]
        return Path(float(self._now_s), self._metres, tuple(self._edges), shape, instants, self._walk_s)


def core_edges(city: CityMap) -> Mask:
    """The edges from which every other of them can be reached by permitted drives, bool[m]: the largest such set."""
    states = _states_of(city)
    core = _core_states(states, city.edge_metres)
    n, edges, inside = len(core), len(city.edge_from), int(np.argmax(core))
    graph = csr_array((np.ones(len(states.arc_to)), states.arc_to, states.row_start), shape=(n, n))
    reached, leaving = np.zeros(n, bool), np.zeros(n, bool)
    reached[breadth_first_order(graph, inside, return_predecessors=False)] = True
    leaving[breadth_first_order(csr_array(graph.T), inside, return_predecessors=False)] = True
    is_reached = np.zeros(edges, bool)
    is_reached[states.edge[reached]] = True
    core_mask: Mask = is_reached & leaving[:edges]
    return core_mask


def hour_slices(first_hour: int = 0, end_hour: int = 24) -> tuple[tuple[int, int], ...]:
    """The hours from first to end parted where HOUR_FACTORS change: (first, end) pairs that follow each other."""
    if not 0 <= first_hour < end_hour <= 24:
        raise ValueError(f"hours from {first_hour} to {end_hour} were asked for, expected 0 <= first < end <= 24")
    changes = [h for h in range(first_hour + 1, end_hour) if (HOUR_FACTORS[:, h] != HOUR_FACTORS[:, h - 1]).any()]
    return tuple(itertools.pairwise([first_hour, *changes, end_hour]))


def _ends_at_barriers(city: CityMap, closed: Mask) -> Edges:
    """The open two-way edges that go on only into closed ones: who finds every way on closed turns round."""
    goes_on = np.zeros(len(closed), bool)
    goes_on[city.turn_from[~closed[city.turn_to]]] = True
    went_on = np.zeros(len(closed), bool)
    went_on[city.turn_from] = True
    twin_is_open = (city.edge_twin >= 0) & ~closed[city.edge_twin]
    return np.flatnonzero(went_on & ~goes_on & ~closed & twin_is_open).astype(np.int32)


def _states_of(city: CityMap, turning_round: Edges | None = None) -> _States:
    """The search graph of the whole town, every street open, with turns from these edges into their twins added."""
    edge = np.arange(len(city.edge_from), dtype=np.int32)
    turn_from, turn_to, penalty_s = city.turn_from, city.turn_to, city.turn_penalty_s.astype(np.float64)
    if turning_round is not None:
        turn_from = np.concatenate((turn_from, turning_round))
        turn_to = np.concatenate((turn_to, city.edge_twin[turning_round]))
        penalty_s = np.concatenate((penalty_s, np.full(len(turning_round), U_TURN_S)))
    if city.banned_chains:
        edge, turn_from, turn_to, penalty_s = _with_chains(city.banned_chains, edge, turn_from, turn_to, penalty_s)
    states = _packed(edge, turn_from, turn_to, penalty_s, len(city.edge_from))
    return _without_detour(states, city.edge_local[states.edge]) if city.edge_local.any() else states


def _packed(edge: Edges, arc_from: Edges, arc_to: Edges, penalty_s: Floats, edges: int) -> _States:
    order = np.lexsort((arc_to, arc_from))
    by_edge = np.argsort(edge, kind="stable").astype(np.int32)
    return _States(
        edge=edge,
        row_start=np.searchsorted(arc_from[order], np.arange(len(edge) + 1)).astype(np.int32),
        arc_to=arc_to[order].astype(np.int32),
        arc_penalty_s=penalty_s[order],
        arrival_start=np.searchsorted(edge[by_edge], np.arange(edges + 1)).astype(np.int32),
        arrivals=by_edge,
    )


def _without(states: _States, closed: Mask) -> _States:
    """The search graph in which nobody turns into or out of these edges (bool[m])."""
    arc_from = states.arc_from()
    kept = ~(closed[states.edge[arc_from]] | closed[states.edge[states.arc_to]])
    return _packed(states.edge, arc_from[kept], states.arc_to[kept], states.arc_penalty_s[kept], len(closed))


def _without_detour(states: _States, aside: Mask) -> _States:
    """The search graph in which nobody drives through states that lie aside (bool[s]): they are where drives begin
    or end.

    Each gets a second copy for who came in from the road; it leads on only to other such copies.
    """
    arc_from, n = states.arc_from(), len(states.edge)
    copy_of = np.full(n, -1, np.int32)
    copy_of[aside] = n + np.arange(int(aside.sum()), dtype=np.int32)
    enters = ~aside[arc_from] & aside[states.arc_to]
    within = aside[arc_from] & aside[states.arc_to]
    return _packed(
        np.concatenate((states.edge, states.edge[aside])),
        np.concatenate((arc_from, copy_of[arc_from[within]])),
        np.concatenate((np.where(enters, copy_of[states.arc_to], states.arc_to), copy_of[states.arc_to[within]])),
        np.concatenate((states.arc_penalty_s, states.arc_penalty_s[within])),
        len(states.arrival_start) - 1,
    )


def _with_chains(
    chains: Sequence[tuple[int, ...]], edge: Edges, turn_from: Edges, turn_to: Edges, penalty_s: Floats
) -> tuple[Edges, Edges, Edges, Floats]:
    """States that remember how far a banned chain has been driven (the automaton of Aho and Corasick, 1975)."""
    banned = set(chains)
    prefixes = sorted({chain[:k] for chain in chains for k in range(2, len(chain))})
    state_of = {prefix: len(edge) + position for position, prefix in enumerate(prefixes)}
    following: dict[int, list[tuple[int, float]]] = {}
    touched = {chain_edge for chain in chains for chain_edge in chain}
    for origin, target, seconds in zip(turn_from.tolist(), turn_to.tolist(), penalty_s.tolist(), strict=True):
        if origin in touched:
            following.setdefault(origin, []).append((target, seconds))

    def arrival(driven: tuple[int, ...]) -> int | None:
        """The state after driving these edges; None when that completes a banned chain."""
        suffixes = [driven[k:] for k in range(len(driven))]
        if any(suffix in banned for suffix in suffixes):
            return None
        return next((state_of[suffix] for suffix in suffixes if suffix in state_of), driven[-1])

    moved = [arrival((origin, target)) for origin, target in zip(turn_from.tolist(), turn_to.tolist(), strict=True)]
    extra = [
        (state_of[prefix], there, seconds)
        for prefix in prefixes
        for target, seconds in following.get(prefix[-1], ())
        if (there := arrival((*prefix, target))) is not None
    ]
    return (
        np.concatenate((edge, np.array([prefix[-1] for prefix in prefixes], dtype=np.int32))),
        np.concatenate((turn_from, np.array([start for start, _, _ in extra], dtype=np.int32))),
        np.array([*moved, *(there for _, there, _ in extra)], dtype=np.int32),
        np.concatenate((penalty_s, np.array([seconds for _, _, seconds in extra], dtype=np.float64))),
    )


def _core_states(states: _States, edge_metres: npt.NDArray[np.floating]) -> Mask:
    """The largest set of states, by length of street, each of which can be reached from each other one: bool[s]."""
    n = len(states.edge)
    graph = csr_array((np.ones(len(states.arc_to)), states.arc_to, states.row_start), shape=(n, n))
    _, label = connected_components(graph, directed=True, connection="strong")
    metres_by_label = np.bincount(label, weights=edge_metres[states.edge])
    core: Mask = label == int(np.argmax(metres_by_label))
    return core


def _within_walk(states: _States, city: CityMap, core: Ints, closed: Mask) -> tuple[Mask, Mask]:
    """Which edges are entered from the core states, and left to them, past at most FARTHEST_WALK_M of closed street."""
    n, edges = len(states.edge), len(closed)
    # A hair more than nothing for open edges: a weight of 0 means "no arc" to some of SciPy's searches.
    closed_m = np.where(closed, city.edge_metres.astype(np.float64), 1e-6)[states.edge]
    origin = states.arc_from()
    inward = csr_array((closed_m[states.arc_to], states.arc_to, states.row_start), shape=(n, n))
    outward = csr_array(csr_array((closed_m[origin], states.arc_to, states.row_start), shape=(n, n)).T)
    enterable, leavable = np.zeros(edges, bool), np.zeros(edges, bool)
    # The edge of the place itself is not counted: it may be driven from either end only in part.
    entered_m = dijkstra(inward, indices=core, min_only=True) - closed_m
    left_m = dijkstra(outward, indices=core, min_only=True) - closed_m
    enterable[states.edge[entered_m <= FARTHEST_WALK_M]] = True
    leavable[:] = left_m[:edges] <= FARTHEST_WALK_M
    return enterable, leavable


def _traced(before: Edges, state: int) -> list[int]:
    """The states that lead to this one, first to last; the origin's own row lies outside and ends the trace."""
    states = [state]
    while 0 <= (previous := int(before[states[-1]])) < len(before):
        states.append(previous)
    return states[::-1]


def _spoken(city: CityMap, place: Snap) -> str:
    street = city.street(place.edge) or f"way {int(city.edge_way[place.edge])}"
    return f"{street} ({place.position.lat:.6f}, {place.position.lon:.6f})"
