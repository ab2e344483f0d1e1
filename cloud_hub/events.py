"""Everything the hub's core is told, and every job it wants done.

What agents say arrives as `Spoke`; what people ask over the web arrives as an ask, whose answer leaves after the
commit; what a job found arrives as its answer and names the need it meets. An answer to a need that is no longer
there is dropped.
"""

from typing import Annotated, Literal

import msgspec

from cloud_hub.contacts import Channel, Customer, NextStep, NoticeKind, Why
from cloud_hub.fleet import DeadLetter, Order, Vehicle
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
    payload: bytes
    why: str


class Acked(msgspec.Struct, frozen=True):
    """An agent has committed what we told it."""

    agent: AgentId
    ack: Ack


class PresenceHeard(msgspec.Struct, frozen=True):
    """An agent is there, or its last will says that it is not."""

    agent: AgentId
    presence: Presence


class HubHeard(msgspec.Struct, frozen=True):
    """What a hub of this region says of itself: this one, or another that acted before or will act after it."""

    presence: Presence


# What people ask.


class Answer(msgspec.Struct, frozen=True):
    """What a person is answered: done or not, why not, and what came of it."""

    is_done: bool
    why_not: str = ""
    named: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


class OrdersHanded(msgspec.Struct, frozen=True):
    """Orders handed in, geocoded and checked: accepted, doubtful or refused.

    `customers` is what the shop says of those who wait for them; what it leaves out of a known customer stays as it
    was (see `cloud_hub.contacts.merged`).
    """

    orders: tuple[Order, ...]
    customers: tuple[Customer, ...] = ()


class CustomerSaid(msgspec.Struct, frozen=True):
    """A person puts a customer's contact, language, consents, opt-outs and wishes: all of it, as it is to be now."""

    customer: Customer
    by: str


class OptOutSaid(msgspec.Struct, frozen=True):
    """The customer of this order wants no more of these kinds, or nothing by these channels; both empty for nothing at
    all. With `is_out` False they are wanted again.
    """

    order_id: OrderId
    kinds: tuple[NoticeKind, ...] = ()
    channels: tuple[Channel, ...] = ()
    is_out: bool = True


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


class ForgetAsked(msgspec.Struct, frozen=True):
    """A person wants everything personal of this customer erased; `even_open` also when something is still to be
    delivered, which is then withdrawn.
    """

    customer_ref: str
    by: str
    even_open: bool = False


class LetterRetried(msgspec.Struct, frozen=True):
    """A person wants this dead letter acted upon after all. `letter` and `payload` are as the store keeps them; no
    payload when it is not kept any more.
    """

    key: str
    letter: DeadLetter
    payload: bytes | None
    by: str


class LetterSettled(msgspec.Struct, frozen=True):
    """A person has looked at this dead letter, and nothing more is to come of it."""

    key: str
    letter: DeadLetter
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


class AmendedLegTimesWanted(LegTimesWanted, frozen=True):
    """Ask the roads for one agent's leg times to the stops it has and those it is about to get."""


class LockerLegTimesWanted(LegTimesWanted, frozen=True):
    """Ask the roads for one agent's leg times to the stops it has and to lockers that may help after a failed visit."""


class LedgerWanted(Job, frozen=True):
    """Look which batches of one life of an agent's telemetry were taken; it keeps none before the number `unacked`."""

    agent: AgentId
    boot: str
    unacked: int


class LedgerFound(msgspec.Struct, frozen=True):
    """Which batches were taken: all up to a number, and some beyond."""

    wanted: LedgerWanted
    upto: int
    beyond: tuple[int, ...]


class LegTimesFound(msgspec.Struct, frozen=True):
    """The leg times asked for."""

    need: str
    agent: AgentId
    plan_version: int
    legs: LegTimes


NoticeState = Literal["due", "waiting_quiet", "delivered", "given_up", "kept", "superseded", "opted_out", "forgotten"]


class Notice(msgspec.Struct, frozen=True):
    """One thing to tell a customer.

    `sentence` is ours, for whoever asks why; what the customer reads is written from the other fields by
    `cloud_hub.words`. `sure_pct` is how likely the van comes inside the window told and `expected_ms` when, both absent
    when nothing is expected; `why` and `next_step` are codes. `place` is the locker it goes to
    or waits in when the next step is one.

    `state` is due, waiting_quiet (until `not_before_ms`, for people sleep), delivered, given_up, kept (no channel that
    is on reaches the customer, or none was agreed to), superseded (a newer one made it useless), opted_out (the
    customer wants none) or forgotten (with the customer). `channels` are those still to be tried, the present one
    first; `channel` is the one that delivered it. `attempts` counts those by the present channel. Until `needed_by_ms`,
    when there is such an instant, the customer has to know.
    """

    notice_id: str
    kind: NoticeKind
    order_id: OrderId
    stop_id: StopId
    agent: AgentId
    told: TimeWindow
    slot: TimeWindow
    at_ms: EpochMs
    sentence: str
    decision_id: str
    state: NoticeState = "due"
    attempts: int = 0
    last_answer: str = ""
    settled_ms: EpochMs | None = None
    customer_ref: str = ""
    why: Why = ""
    is_breach: bool = False
    sure_pct: int | None = None
    next_step: NextStep = ""
    place: str = ""
    channels: tuple[Channel, ...] = ()
    channel: Channel | None = None
    not_before_ms: EpochMs | None = None
    needed_by_ms: EpochMs | None = None
    expected_ms: EpochMs | None = None


class Receipt(msgspec.Struct, frozen=True):
    """What came of one attempt to send a notice: neither an address nor a text. `provider_id` is the receiver's own
    number for it, "" when it gave none.
    """

    notice_id: str
    order_id: OrderId
    channel: Channel
    attempt: int
    at_ms: EpochMs
    is_delivered: bool
    answer: str
    provider_id: str = ""


class NoticeWanted(Job, frozen=True):
    """Send this notice once more, by this channel, to this customer (of whom only the reference may be known).

    `partner` is whose order it is about, "" for the operator's own.
    """

    notice: Notice
    channel: Channel
    customer: Customer
    partner: str = ""


class NoticeDelivered(msgspec.Struct, frozen=True):
    """The receiver has taken the notice."""

    need: str
    answer: str
    provider_id: str = ""


class NoticeFailed(msgspec.Struct, frozen=True):
    """The receiver did not take it: try again, unless it said never to."""

    need: str
    answer: str
    is_final: bool


def decision_words(decision: Decision) -> tuple[str, ...]:
    """Everything a decision is about: what it names, and who took it."""
    return (*decision.about, decision.by)
