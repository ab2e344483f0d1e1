"""Improve the order of a van's remaining stops until a deadline, and never hand back a worse one.

The search is C (`_resequence.c`, reached through ctypes, so it needs no Python ABI and releases the GIL); the last word
is `routes.evaluate`'s: an order the exact evaluator does not find allowed and cheaper than the one given is not
returned.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from shared.routes import Cost, OrderRefused, RouteProblem, check, evaluate

if TYPE_CHECKING:
    import numpy.typing as npt

LIBRARY = os.path.join(os.path.dirname(__file__), "_resequence.so")  # Importing pathlib would take 4 ms.

Clock = Literal["monotonic", "thread_cpu"]
"""What a limit is measured by: the world's time, or the CPU time of the calling thread (for benchmarks on shared
machines).
"""

_NEVER = 2**62
_CLOCKS = {"monotonic": time.monotonic_ns, "thread_cpu": time.thread_time_ns}
_SPARE_NS = 60_000
"""For what happens besides searching and checking: describing the problem, one look too many, coming back."""


class KernelMissing(ImportError):
    """The compiled kernel is not there."""


class Unlimited(ValueError):
    """A search needs a limit in milliseconds, in iterations, or both."""


class Resequenced(NamedTuple):
    """What came out. `order` and `cost` are those given when nothing better was found.

    `iterations_used` counts looks (scans of one stop's moves): the same problem, seed and that many iterations give the
    same order on every architecture, whatever limit ended this search.
    """

    order: tuple[int, ...]
    cost: Cost
    given_cost: Cost
    iterations_used: int
    elapsed_ms: float
    improved: bool


class _Problem(ctypes.Structure):
    """Mirrors `ww_problem`; arrays go by address."""

    _fields_ = (
        [(name, ctypes.c_int32) for name in ("nodes", "slices", "stops", "frozen", "start", "end")]
        + [(name, ctypes.c_void_p) for name in ("travel", "slice_ends")]
        + [
            (name, ctypes.c_void_p)
            for name in ("service", "earliest", "latest", "lateness_weight", "load_change", "order")
        ]
        + [(name, ctypes.c_int64) for name in ("leave", "changed_arc_cost", "load_now", "capacity")]
        + [(name, ctypes.c_int32) for name in ("pairs", "has_break")]
        + [(name, ctypes.c_void_p) for name in ("before", "after")]
        + [(name, ctypes.c_int64) for name in ("break_duration", "break_earliest", "break_latest", "break_weight")]
        + [(name, ctypes.c_int64) for name in ("shift_end", "shift_weight")]
    )


class _Answer(ctypes.Structure):
    """Mirrors `ww_answer`."""

    _fields_ = [(name, ctypes.c_int64) for name in ("total", "given_total", "looks", "rounds")]


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise KernelMissing(f"no kernel at {LIBRARY} ({error}): `make install` builds it") from error
    library.ww_resequence.argtypes = [
        ctypes.POINTER(_Problem),
        ctypes.c_int64,
        ctypes.c_int32,
        ctypes.c_int64,
        ctypes.c_uint64,
        ctypes.c_void_p,
        ctypes.POINTER(_Answer),
    ]
    library.ww_resequence.restype = ctypes.c_int
    return library


_library = _load()


def resequence(
    problem: RouteProblem,
    *,
    limit_ms: float | None = None,
    iterations: int | None = None,
    seed: int = 0,
    clock: Clock = "monotonic",
) -> Resequenced:
    """The best order of `problem.order` found within `limit_ms` milliseconds (the whole call) or `iterations` looks,
    whichever ends first.

    The frozen head, precedence and capacity are kept; the result never costs more than the order given, by
    `routes.evaluate`. Raises `Unlimited` without any limit, `OrderRefused` when the order given itself breaks a hard
    constraint.
    """
    read_ns = _CLOCKS[clock]
    began_ns = read_ns()
    if limit_ms is None and iterations is None:
        raise Unlimited(Unlimited.__doc__)
    objections = check(problem, problem.order)
    if objections:
        raise OrderRefused(f"the order given is not allowed: {objections[0]}")
    given_cost = evaluate(problem, problem.order)
    deadline_ns = 0
    if limit_ms is not None:
        # The order found will be checked as the order given just was; so much of the limit is set aside.
        checking_ns = (read_ns() - began_ns) * 5 // 4
        deadline_ns = max(1, began_ns + int(limit_ms * 1e6) - checking_ns - _SPARE_NS)
    found, looks, _ = _search(problem, deadline_ns, clock, _NEVER if iterations is None else iterations, seed)
    order, cost, improved = problem.order, given_cost, False
    if found != problem.order and not check(problem, found):
        found_cost = evaluate(problem, found)
        if found_cost.total < given_cost.total:
            order, cost, improved = found, found_cost, True
    return Resequenced(order, cost, given_cost, looks, (read_ns() - began_ns) / 1e6, improved)


def _search(
    problem: RouteProblem, deadline_ns: int, clock: Clock, most_looks: int, seed: int
) -> tuple[tuple[int, ...], int, tuple[int, int]]:
    """What the kernel itself says: its order, the looks it used, and its own totals of the order given and of the one
    found.
    """
    rest = problem.rest
    columns = np.array(
        [problem.service, problem.earliest, problem.latest, problem.lateness_weight, problem.load_change],
        dtype=np.int64,
    )
    row_bytes = columns.strides[0]
    order = np.array(problem.order, dtype=np.int32)
    slice_ends = np.array(problem.slice_ends, dtype=np.int64)
    pairs = np.array(problem.precedence, dtype=np.int32).reshape(-1, 2).T.copy()
    found: npt.NDArray[np.int32] = np.empty_like(order)
    described = _Problem(
        nodes=problem.nodes,
        slices=len(slice_ends) + 1,
        stops=len(order),
        frozen=problem.frozen,
        start=problem.start,
        end=-1 if problem.end is None else problem.end,
        travel=problem.travel.ctypes.data,
        slice_ends=slice_ends.ctypes.data,
        service=columns.ctypes.data,
        earliest=columns.ctypes.data + row_bytes,
        latest=columns.ctypes.data + 2 * row_bytes,
        lateness_weight=columns.ctypes.data + 3 * row_bytes,
        load_change=columns.ctypes.data + 4 * row_bytes,
        order=order.ctypes.data,
        leave=problem.leave,
        changed_arc_cost=problem.changed_arc_cost,
        load_now=problem.load_now,
        capacity=-1 if problem.capacity is None else problem.capacity,
        pairs=len(problem.precedence),
        has_break=rest is not None,
        before=pairs[0].ctypes.data,
        after=pairs[1].ctypes.data,
        break_duration=rest.duration if rest else 0,
        break_earliest=rest.earliest if rest else 0,
        break_latest=rest.latest if rest else 0,
        break_weight=rest.lateness_weight if rest else 0,
        shift_end=_NEVER if problem.shift_end is None else problem.shift_end,
        shift_weight=0 if problem.shift_end is None else problem.shift_weight,
    )
    answer = _Answer()
    failed = _library.ww_resequence(
        ctypes.byref(described),
        deadline_ns,
        clock == "thread_cpu",
        most_looks,
        seed % 2**64,
        found.ctypes.data,
        ctypes.byref(answer),
    )
    if failed:
        raise MemoryError(f"the kernel found no memory for {len(order)} stops")
    return tuple(found.tolist()), answer.looks, (answer.given_total, answer.total)
