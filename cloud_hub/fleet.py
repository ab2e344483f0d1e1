"""Who is out there with which work: vehicles, agents, orders and stops, as the hub believes them to be.

Every value here is one row of the hub's store. Orders hold what was sold and asked; what became of a stop stands
beside it, so that an order is written once and a stop as often as something happens to it.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from shared.contracts import Rest
from shared.messages import Estimate
from shared.quantities import EpochMs, TimeWindow
from shared.work import AgentId, OrderId, Stop, StopId, Visit

OrderState = Literal["accepted", "doubtful", "refused", "returning"]
StopState = Literal["waiting", "planned", "heading", "arrived", "done"]


class Vehicle(msgspec.Struct, frozen=True):
    """One agent's van for one day: where it loads, when its driver works and rests, and how much it holds."""

    agent: AgentId
    depot_id: str
    day: str
    begins_ms: EpochMs
    ends_ms: EpochMs
    rest: Rest | None = None
    capacity_litres: int = 10_000


class Order(msgspec.Struct, frozen=True):
    """One order as taken in. `stop` is absent while nobody knows where it goes; `doubts` says why, in words.

    `entry` is what was handed in, as JSON, so that a doubtful order can be corrected and taken again; `fingerprint`
    is its contents'. `candidates` are the places it could mean, best first. `confidence` (0 to 1) and `place_reason`
    say how sure an accepted order's place is and why; absent when it was taken before anybody kept them. `customer_ref`
    names the customer in the book of customers, "" when the shop told nothing of one.

    `amended` are visits that are other than sold or were never sold: one a customer has changed, and one that follows
    a failed attempt (see `stop_named`). `called_off` names visits that were added and taken out again. An order that
    goes back to its sender is `returning`. `is_forgotten` when what was personal about it has been erased.

    `partner` is the shop or carrier it is of, "" for the operator's own. `depots` are those whose people handed it in,
    empty when somebody did who is bound to none.
    """

    order_id: OrderId
    state: OrderState
    received_ms: EpochMs
    entry: str
    fingerprint: str
    stop: Stop | None = None
    doubts: tuple[str, ...] = ()
    candidates: tuple["Candidate", ...] = ()
    confidence: float | None = None
    place_reason: str = ""
    customer_ref: str = ""
    amended: tuple[Stop, ...] = ()
    is_forgotten: bool = False
    called_off: tuple[StopId, ...] = ()
    partner: str = ""
    depots: tuple[str, ...] = ()

    @property
    def visits(self) -> tuple[StopId, ...]:
        """Every visit this order has or ever had, by name."""
        stops = (stop.stop_id for stop in (self.stop, *self.amended) if stop is not None)
        return tuple(dict.fromkeys((*stops, *self.called_off)))

    def stop_named(self, stop_id: StopId) -> Stop | None:
        """A visit of this order as it is to be now; None when it has none of this name."""
        sold = () if self.stop is None else (self.stop,)
        return next((stop for stop in (*self.amended, *sold) if stop.stop_id == stop_id), None)

    def with_stop(self, stop: Stop) -> "Order":
        """The order with this visit as it is to be from now on."""
        others = tuple(one for one in self.amended if one.stop_id != stop.stop_id)
        amended = others if stop == self.stop else (*others, stop)
        return msgspec.structs.replace(self, amended=amended)

    def without_stop(self, stop_id: StopId) -> "Order":
        """The order without this visit, of which only the name is kept: archives and vans may hold more."""
        amended = tuple(s for s in self.amended if s.stop_id != stop_id)
        return msgspec.structs.replace(self, amended=amended, called_off=(*self.called_off, stop_id))


class Candidate(msgspec.Struct, frozen=True):
    """A place an address could mean, and how sure that is (0 to 1)."""

    address: str
    lat: float
    lon: float
    confidence: float


class StopRecord(msgspec.Struct, frozen=True):
    """What has become of a stop. `agent` is "" while nobody has it; `why_waiting` then says why, when it is known.

    `is_leaving` while its agent has been told to leave it out and has not said yet that it does. `wished` is another
    slot the customer asked for when the van was already under way. `next_step` is how it goes on after a failed visit:
    one of `cloud_hub.nextstep.STEPS`, `deciding` while the roads are asked, "" when nothing failed. `had_by` are all
    agents that ever had it: each may still have its address on its disk.
    """

    stop_id: StopId
    order_id: OrderId
    state: StopState = "waiting"
    agent: AgentId = AgentId("")
    changed_ms: EpochMs = EpochMs(0)
    visits: tuple[Visit, ...] = ()
    why_waiting: str = ""
    is_leaving: bool = False
    wished: TimeWindow | None = None
    next_step: str = ""
    had_by: tuple[AgentId, ...] = ()


class AgentRecord(msgspec.Struct, frozen=True):
    """What the hub knows of one agent.

    `order` is the order shown to the driver, of the stops still to come. `plan_pushed` and `plan_taken` are versions,
    0 for none. `legs_version` is the version of the roads its leg times were made from. `begun_ms` and `ended_ms` are
    the beginning and end of its shift, as its driver said. `amended` counts the amendments of its work,
    `override_reasons` why its driver went elsewhere, as far as he said.
    """

    agent: AgentId
    kind: str = ""
    version: str = ""
    is_there: bool = False
    life: str = ""
    last_event: str = ""
    last_event_ms: EpochMs = EpochMs(0)
    events_taken: int = 0
    plan_pushed: int = 0
    plan_taken: int = 0
    plan_refused: str = ""
    legs_version: int = 0
    shift: str = "waiting"
    order: tuple[StopId, ...] = ()
    heading_to: StopId | None = None
    at_stop: StopId | None = None
    overrides: int = 0
    resequenced: int = 0
    changes_refused: int = 0
    begun_ms: EpochMs | None = None
    ended_ms: EpochMs | None = None
    amended: int = 0
    override_reasons: dict[str, int] = {}

    @property
    def has_begun(self) -> bool:
        """Whether the shift is under way: from then on its parcels are on board and move only at a handover."""
        return self.shift != "waiting"


class Chain(msgspec.Struct, frozen=True):
    """How far a node's chain of decisions has been followed, and how often it broke."""

    node: AgentId
    count: int = 0
    link: str = "0" * 64
    breaks: int = 0


class Closures(msgspec.Struct, frozen=True):
    """The closed streets: OSM way id and why. `version` grows with every change."""

    version: int = 1
    ways: dict[int, str] = {}


class KeptDecision(msgspec.Struct, frozen=True):
    """A decision as the store keeps it: `follows` is False when its link to the one before it is broken."""

    decision: msgspec.Raw
    node: AgentId
    number: int
    follows: bool
    heard_ms: EpochMs


LetterState = Literal["waiting", "retried", "settled"]


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was taken but could not be acted upon, and why.

    `payload` is how it begins, for people; all its `size` bytes lie in the archive `dead_payloads` under the same key
    (0: they were not kept, for they may be part of somebody's signature). `decision_id` is the record of what a person
    made of it.
    """

    sender: AgentId
    boot: str
    stream: str
    seq: int
    heard_ms: EpochMs
    why: str
    payload: str
    size: int = 0
    state: LetterState = "waiting"
    looked_ms: EpochMs | None = None
    decision_id: str = ""


class DeadPayload(msgspec.Struct, frozen=True):
    """The bytes of a dead letter, as they came. Personal: they may say anything."""

    heard_ms: EpochMs
    payload: bytes


class Gap(msgspec.Struct, frozen=True):
    """Messages of one life of a sender's store that we lack and will never hear: those from the first number to the
    last. None as `last_seq`: how many there were is not known, for the store is gone.
    """

    sender: AgentId
    boot: str
    stream: str
    first_seq: int
    last_seq: int | None
    found_ms: EpochMs
    why: str
    decision_id: str


def remaining(order: Iterable[StopId], records: dict[StopId, StopRecord]) -> tuple[StopId, ...]:
    """The stops of an order that are not done."""
    return tuple(stop for stop in order if stop not in records or records[stop].state != "done")


def why_waiting(record: StopRecord, slot: TimeWindow, fleet: Iterable[tuple[Vehicle, AgentRecord]]) -> str:
    """Why nobody has this stop yet, in words; "" when somebody has it. `fleet` are the vehicles and their agents."""
    if record.state != "waiting" or record.why_waiting:
        return record.why_waiting
    fitting = [
        (vehicle, agent)
        for vehicle, agent in fleet
        if slot.opens_ms < vehicle.ends_ms and slot.closes_ms > vehicle.begins_ms
    ]
    if not fitting:
        return "no vehicle named so far works within its slot"
    if all(agent.has_begun for _, agent in fitting):
        return "it came after every shift within its slot had begun; a van under way takes nothing new"
    return "not planned yet: it is part of the next plan somebody asks for"


def has_visit(record: StopRecord, visit: Visit) -> bool:
    """Whether this very visit is known: the same agent arrives at a stop only once at one instant."""
    return any(known.arrived_ms == visit.arrived_ms for known in record.visits)


class EstimatesHeard(msgspec.Struct, frozen=True):
    """What an agent last expected, when it said so, and why it said it."""

    said_ms: EpochMs
    why: str
    estimates: tuple[Estimate, ...]


class Amendment(msgspec.Struct, frozen=True):
    """A change of a running plan, from the moment it is wanted until its agent has answered it. Personal, as stops are.

    `number` is 0 while the roads are asked for the way to a place that is new, then its place among the agent's
    amendments. `former` holds the stops as they were before it. `asked` counts how often the wanted change grew.
    """

    agent: AgentId
    why: str
    wanted_ms: EpochMs
    stops: tuple[Stop, ...] = ()
    withdrawn: tuple[StopId, ...] = ()
    former: tuple[Stop, ...] = ()
    number: int = 0
    plan_version: int = 0
    decision_id: str = ""
    asked: int = 1

    @property
    def key(self) -> str:
        """Its name among the amendments of all agents."""
        return f"{self.agent}/{self.number:06d}" if self.number else f"{self.agent}/wanted"

    @property
    def touched(self) -> frozenset[StopId]:
        """The stops it changes, adds or withdraws."""
        return frozenset((*(stop.stop_id for stop in self.stops), *self.withdrawn))
