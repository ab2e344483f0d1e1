"""Take what is personal out of stops and visits, so that what is left says that work was done and not for whom."""

from collections.abc import Collection
from dataclasses import replace

import msgspec

from edge_agent.assignment import Assignment
from shared.work import Depot, Stop, StopId, Visit

ROOM = "forgotten"
"""Holds a row for each stop whose person is forgotten while something older may still wait for the hub. A store that
sees this room change makes sure that nothing is left of what it deleted."""


def forgotten_stop(stop: Stop, depot: Depot) -> Stop:
    """The stop without a person: no address, no words, and the depot's place for its own."""
    return msgspec.structs.replace(
        stop,
        address="forgotten",
        position=depot.position,
        door_code="",
        note="",
        safe_place="",
        neighbour="",
        door_group="",
    )


def forgotten_visit(visit: Visit) -> Visit:
    """The visit without place, words, signature and photograph."""
    proof = msgspec.structs.replace(visit.proof, position=None, signature=None, photo=None)
    return msgspec.structs.replace(visit, proof=proof, reason="")


def forgotten_work(work: Assignment, stop_ids: Collection[StopId]) -> Assignment:
    """The work without the people of these stops, planned or withdrawn."""

    def without(stops: tuple[Stop, ...]) -> tuple[Stop, ...]:
        depot = work.plan.depot
        return tuple(forgotten_stop(stop, depot) if stop.stop_id in stop_ids else stop for stop in stops)

    plan = msgspec.structs.replace(work.plan, stops=without(work.plan.stops))
    return replace(work, plan=plan, withdrawn=without(work.withdrawn))
