"""What each turn of the day makes of the order shown."""

import msgspec

from edge_agent import turns
from edge_agent.memory import Change, Day
from shared.quantities import EpochMs, Position
from shared.work import Outcome, Proof, StopId, Visit

A, B, C, D = (StopId(name) for name in "abcd")
HERE = Position(60.1, 24.9)
SHOWN = Day(planned=(A, B, C, D), shown=(A, B, C, D), shift="under_way")


def heading(day: Day, stop_id: StopId) -> Day:
    return turns.set_off(day, stop_id, stop_id, False, EpochMs(1), 0.0)


def served(day: Day, stop_id: StopId) -> Day:
    proof = Proof((), HERE, EpochMs(2))
    return turns.visited(day, Visit(stop_id, Outcome.REFUSED, EpochMs(1), EpochMs(2), proof, "no"), HERE)


def test_a_driver_who_goes_elsewhere_puts_that_stop_first() -> None:
    assert heading(SHOWN, D).shown == (D, A, B, C)


def test_an_override_that_came_to_nothing_leaves_no_trace() -> None:
    assert heading(heading(SHOWN, D), A).shown == (A, B, C, D)


def test_one_override_after_another_moves_only_the_last() -> None:
    assert heading(heading(SHOWN, D), C).shown == (C, A, B, D)


def test_a_visited_override_is_gone_and_the_rest_stays_in_order() -> None:
    assert served(heading(SHOWN, C), C).shown == (A, B, D)
    assert heading(served(heading(SHOWN, C), C), A).shown == (A, B, D)


def test_a_refused_change_brings_the_order_back_and_leaves_new_work_where_it_was_put() -> None:
    change = Change("c", EpochMs(1), "why", before=(A, C, D), after=(D, B, A, C))
    day = turns.change_refused(msgspec.structs.replace(SHOWN, shown=(D, B, A, C), change=change), change, EpochMs(2))
    assert day.shown == (A, C, D, B)
