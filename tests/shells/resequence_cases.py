"""Routes for the kernel's tests, drawn by a generator of our own, so that every Python and every machine draws the same
ones.
"""

from collections.abc import Iterable

import numpy as np

from shared.routes import ALWAYS_OPEN, NEVER_CLOSES, Break, RouteProblem


class Draw:
    """Numerical Recipes' 64-bit congruential generator; the high bits are good enough for test routes."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def __call__(self, low: int, high: int) -> int:
        """A whole number in low..high."""
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return low + (self.state >> 33) % (high - low + 1)

    def chance(self, percent: int) -> bool:
        return self(1, 100) <= percent

    def shuffled(self, things: Iterable[int]) -> list[int]:
        deck = list(things)
        for last in range(len(deck) - 1, 0, -1):
            other = self(0, last)
            deck[last], deck[other] = deck[other], deck[last]
        return deck


def any_route(seed: int, stops: int, *, is_timed: bool) -> RouteProblem:
    """A route with any mixture of features; timed ones have slices of travel times and often a break."""
    draw = Draw(seed)
    n = stops + draw(2, 4)
    slices = draw(2, 5) if is_timed else 1
    places = [(draw(0, 50), draw(0, 50)) for _ in range(n)]
    travel = np.array(
        [[[abs(x - u) + abs(y - v) + draw(0, 15) for u, v in places] for x, y in places] for _ in range(slices)]
    )
    start, end, *others = draw.shuffled(range(n))
    order = tuple(others[:stops])
    leave = draw(-100, 1000)
    day = 30 * stops + 100
    earliest = [leave + draw(-300, day) if draw.chance(70) else ALWAYS_OPEN for _ in range(n)]
    latest = [max(opens, leave - 500) + draw(0, 300) if draw.chance(80) else NEVER_CLOSES for opens in earliest]
    load_change = [draw(-3, 3) for _ in range(n)]
    heaviest = 5 + max(np.cumsum([load_change[stop] for stop in order]), default=0)
    places_in_order = [sorted((draw(0, stops - 1), draw(0, stops - 1))) for _ in range(draw(0, 4))] if stops else []
    rest_from = leave + draw(-50, day)
    return RouteProblem(
        travel=travel,
        order=order,
        start=start,
        end=end if draw.chance(50) else None,
        leave=leave,
        service=tuple(draw(0, 20) for _ in range(n)),
        earliest=tuple(earliest),
        latest=tuple(latest),
        lateness_weight=tuple(draw(0, 9) for _ in range(n)),
        slice_ends=tuple(leave + (day * part) // slices + draw(0, 9) for part in range(1, slices)),
        changed_arc_cost=draw(0, 5),
        frozen=draw(0, stops) if draw.chance(30) else 0,
        precedence=tuple((order[a], order[b]) for a, b in places_in_order if a < b),
        load_change=tuple(load_change),
        load_now=5,
        capacity=max(5, heaviest) + draw(0, 2) if draw.chance(40) else None,
        rest=Break(draw(0, 60), rest_from, rest_from + draw(0, 200), draw(0, 5))
        if is_timed and draw.chance(70)
        else None,
        shift_end=leave + draw(-10, day) if draw.chance(50) else None,
        shift_weight=draw(0, 5),
    )


def waiting_route(seed: int, stops: int) -> RouteProblem:
    """A closed tour whose windows open all through a long day, so that the van waits at many stops."""
    draw = Draw(seed)
    n = stops + 1
    opens = sorted(draw(0, 100 * stops) for _ in range(stops))
    return RouteProblem(
        travel=np.array([[draw(10, 60) for _ in range(n)] for _ in range(n)]),
        order=tuple(range(1, n)),
        start=0,
        end=0,
        leave=0,
        service=(5,) * n,
        earliest=(0, *opens),
        latest=(200 * n, *(instant + draw(100, 400) for instant in opens)),
        lateness_weight=(100,) * n,
    )


def golden_route(case: int) -> tuple[RouteProblem, int]:
    """The route of a golden case and how many looks it is searched for."""
    return any_route(1000 + case, (12, 25, 40, 60)[case % 4], is_timed=case % 2 == 1), 1500


GOLDEN: dict[int, tuple[int, ...]] = {
    0: (7, 2, 13, 4, 5, 3, 8, 11, 0, 10, 6, 12),
    1: (21, 19, 8, 28, 12, 22, 10, 5, 17, 26, 18, 23, 4, 3, 27, 14, 1, 16, 15, 7, 6, 24, 20, 9, 25),
    2: (
        30,
        43,
        19,
        18,
        17,
        12,
        21,
        32,
        15,
        28,
        29,
        36,
        22,
        42,
        41,
        3,
        8,
        0,
        23,
        6,
        34,
        1,
        26,
        25,
        10,
        20,
        5,
        37,
        27,
        14,
        11,
        33,
        2,
        38,
        7,
        40,
        39,
        4,
        24,
        13,
    ),
    3: (
        30,
        41,
        7,
        35,
        49,
        31,
        19,
        40,
        21,
        39,
        58,
        59,
        10,
        2,
        18,
        24,
        22,
        27,
        6,
        55,
        37,
        50,
        0,
        12,
        5,
        56,
        17,
        26,
        57,
        28,
        42,
        9,
        60,
        38,
        13,
        47,
        51,
        33,
        32,
        1,
        53,
        43,
        52,
        46,
        29,
        34,
        14,
        3,
        25,
        48,
        4,
        61,
        11,
        16,
        15,
        36,
        45,
        8,
        23,
        54,
    ),
    4: (10, 6, 7, 1, 5, 2, 0, 8, 15, 4, 12, 3),
    5: (4, 21, 19, 8, 5, 15, 12, 25, 6, 10, 9, 22, 13, 27, 7, 3, 28, 17, 0, 23, 11, 16, 14, 18, 24),
    6: (
        13,
        7,
        32,
        40,
        42,
        33,
        1,
        23,
        0,
        22,
        31,
        34,
        10,
        29,
        12,
        38,
        5,
        8,
        11,
        26,
        15,
        2,
        17,
        14,
        36,
        3,
        24,
        37,
        30,
        43,
        21,
        18,
        41,
        35,
        25,
        28,
        39,
        4,
        6,
        20,
    ),
    7: (
        10,
        50,
        57,
        3,
        24,
        15,
        32,
        27,
        37,
        20,
        12,
        26,
        21,
        11,
        5,
        43,
        58,
        49,
        63,
        17,
        56,
        46,
        53,
        2,
        29,
        40,
        1,
        45,
        48,
        35,
        42,
        9,
        0,
        6,
        39,
        44,
        41,
        55,
        4,
        54,
        51,
        25,
        62,
        33,
        30,
        19,
        13,
        7,
        61,
        34,
        38,
        59,
        28,
        22,
        47,
        18,
        60,
        36,
        16,
        23,
    ),
}
"""The order the kernel finds on every architecture, by case: seed = case. Written by `python -m
tests.shells.resequence_cases`.
"""


def spelled(problem: RouteProblem) -> str:
    """The problem as whole numbers in the order `resequence_main.c` reads them."""
    rest = problem.rest
    end = -1 if problem.end is None else problem.end
    capacity = -1 if problem.capacity is None else problem.capacity
    shift_end, shift_weight = (2**62, 0) if problem.shift_end is None else (problem.shift_end, problem.shift_weight)
    head = [problem.nodes, len(problem.slice_ends) + 1, len(problem.order), problem.frozen, problem.start, end]
    numbers: list[int] = [
        *head,
        *problem.travel.ravel().tolist(),
        *problem.slice_ends,
        *problem.service,
        *problem.earliest,
        *problem.latest,
        *problem.lateness_weight,
        *problem.load_change,
        *problem.order,
        *(problem.leave, problem.changed_arc_cost, problem.load_now, capacity),
        len(problem.precedence),
        *(before for before, _ in problem.precedence),
        *(after for _, after in problem.precedence),
        *((1, rest.duration, rest.earliest, rest.latest, rest.lateness_weight) if rest else (0, 0, 0, 0, 0)),
        *(shift_end, shift_weight),
    ]
    return " ".join(map(str, numbers))


if __name__ == "__main__":
    from shared.resequence import resequence

    print("GOLDEN: dict[int, tuple[int, ...]] = {")
    for number in range(8):
        route, budget = golden_route(number)
        print(f"    {number}: {resequence(route, iterations=budget, seed=number).order},")
    print("}")
