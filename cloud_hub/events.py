"""Everything the hub's core is told, and every job it wants done.

What agents say arrives as `Spoke`; what people ask over the web arrives as an ask, whose answer leaves after the
commit; what a job found arrives as its answer and names the need it meets. An answer to a need that is no longer
there is dropped.
"""

from typing import Annotated

import msgspec

from cloud_hub.fleet import Order, Vehicle
from shared.contracts import LegTimes
from shared.ledger import Alternative, Decision, Input
from shared.messages import Ack, Estimate, Numbered, Presence
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Job
from shared.work import AgentId, Depot, OrderId, Stop, StopId

# What agents say.


class Spoke(msgspec.Struct, frozen=True):
    """A numbered message of an agent, read from its own topic."""

    numbered: Numbered


class Unreadable(msgspec.Struct, frozen=True):
    """A message whose place in its stream can be read and whose contents cannot: it must not stall the stream."""

    sender: AgentId
    boot: str
    stream: str
    seq: int
    payload: str
    why: str


class Acked(msgspec.Struct, frozen=True):
    """An agent has committed what we told it."""

    agent: AgentId
    ack: Ack


class PresenceHeard(msgspec.Struct, frozen=True):
    """An agent is there, or its last will says that it is not."""

    agent: AgentId
    presence: Presence


# What people ask.


class Answer(msgspec.Struct, frozen=True):
    """What a person is answered: done or not, why not, and what came of it."""

    is_done: bool
    why_not: str = ""
    named: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


class OrdersHanded(msgspec.Struct, frozen=True):
    """Orders handed in, geocoded and checked: accepted, doubtful or refused."""

    orders: tuple[Order, ...]


class OrderCorrected(msgspec.Struct, frozen=True):
    """A person says where a doubtful order goes. `remembered` is the address text and the place, for the next time."""

    order: Order
    by: str
    remembered: tuple[str, str] | None = None


class VehiclesSaid(msgspec.Struct, frozen=True):
    """The vehicles of a day, from settings or a person; each replaces what was said of its agent before."""

    vehicles: tuple[Vehicle, ...]


class DepotsSaid(msgspec.Struct, frozen=True):
    """The depots, from settings."""

    depots: tuple[Depot, ...]


class DayPlanAsked(msgspec.Struct, frozen=True):
    """Plan this day now, with the vehicles named for it. `vehicles` stand in for those nobody has named for this day;
    a refusal changes the day of none.
    """

    day: str
    by: str
    vehicles: tuple[Vehicle, ...] = ()


class ClosuresAsked(msgspec.Struct, frozen=True):
    """Close these ways (OSM ids), or open them again."""

    ways: tuple[int, ...]
    is_closed: bool
    street: str
    why: str
    by: str


class WindowAsked(msgspec.Struct, frozen=True):
    """A person tells a customer another window, by hand."""

    order_id: OrderId
    told: TimeWindow
    by: str


# Jobs, and what they find.


class Route(msgspec.Struct, frozen=True):
    """One vehicle's work as planned: its stops in order, when service begins at each, and the leg times between
    them. `compared` are this vehicle's own orders that were judged, the last of them taken.
    """

    agent: AgentId
    order: tuple[StopId, ...]
    depart_ms: EpochMs
    estimates: tuple[Estimate, ...]
    legs: LegTimes
    finish_ms: EpochMs
    driving_s: int
    late_s: int
    compared: tuple[Alternative, ...] = ()


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many times as long stops and legs really take as orders and the map say.

    The map knows no lorry in the way, an order no customer who looks for his glasses. Measured on simulated Helsinki
    days: 1.2 for both. Plans are judged by it; contracts carry the bare numbers, for agents foresee by models of
    their own.
    """

    stops: Annotated[float, msgspec.Meta(ge=0.5, le=3)] = 1.2
    legs: Annotated[float, msgspec.Meta(ge=0.5, le=3)] = 1.15


class PlanWanted(Job, frozen=True):
    """Find the first plan: which vehicle serves which stops, in which order."""

    day: str
    zone: str
    depots: tuple[Depot, ...]
    vehicles: tuple[Vehicle, ...]
    stops: tuple[Stop, ...]
    closed: tuple[int, ...]
    roads_version: int
    pace: Pace = Pace()


class Planned(msgspec.Struct, frozen=True):
    """The plan that was found; `unserved` names stops nobody can serve, each with the reason.

    `looked_at` is what the plan was made from. The costs are the whole fleet's, in the evaluator's weighted seconds.
    """

    need: str
    routes: tuple[Route, ...]
    unserved: tuple[tuple[StopId, str], ...]
    how: str
    seed: int
    iterations: int
    solver_cost_s: int
    final_cost_s: int
    looked_at: tuple[Input, ...] = ()


class LegTimesWanted(Job, frozen=True):
    """Ask the roads again for one agent's leg times, with these ways closed."""

    agent: AgentId
    plan_version: int
    zone: str
    depot: Depot
    stops: tuple[Stop, ...]
    begins_ms: EpochMs
    ends_ms: EpochMs
    closed: tuple[int, ...]
    roads_version: int


class LegTimesFound(msgspec.Struct, frozen=True):
    """The leg times asked for."""

    need: str
    agent: AgentId
    plan_version: int
    legs: LegTimes


class Notice(msgspec.Struct, frozen=True):
    """One thing to tell a customer, through whoever sends messages for the shop.

    `state` is due, delivered, given_up or kept (nobody is configured to send it).
    """

    notice_id: str
    kind: str
    order_id: OrderId
    stop_id: StopId
    agent: AgentId
    told: TimeWindow
    slot: TimeWindow
    at_ms: EpochMs
    sentence: str
    decision_id: str
    state: str = "due"
    attempts: int = 0
    last_answer: str = ""
    settled_ms: EpochMs | None = None


class NoticeWanted(Job, frozen=True):
    """Send this notice once more."""

    notice: Notice


class NoticeDelivered(msgspec.Struct, frozen=True):
    """The receiver has taken the notice."""

    need: str
    answer: str


class NoticeFailed(msgspec.Struct, frozen=True):
    """The receiver did not take it: try again, unless it said never to."""

    need: str
    answer: str
    is_final: bool


def decision_words(decision: Decision) -> tuple[str, ...]:
    """Everything a decision is about: what it names, and who took it."""
    return (*decision.about, decision.by)
