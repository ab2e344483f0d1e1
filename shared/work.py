"""Orders, stops and parcels: what has to be done, how it ended, and who has custody."""

from enum import StrEnum
from typing import Literal, NewType

import msgspec

from shared.quantities import EpochMs, Position, Seconds, TimeWindow, metres_between

OrderId = NewType("OrderId", str)
StopId = NewType("StopId", str)
AgentId = NewType("AgentId", str)

Service = Literal["hand_over", "leave_safe", "signature", "age_check", "collection"]
"""What the customer was sold at the door. A collection takes parcels on board instead of off."""

CustodyHolder = Literal["shop", "depot", "van", "customer", "neighbour", "safe_place", "locker", "lost"]


OVERRIDE_REASONS = ("customer_asked", "parcel_at_hand", "road", "knows_better", "other", "no_answer")
"""Why a driver went elsewhere than shown, as the page offers it."""


class Outcome(StrEnum):
    """How a visit to a stop ended."""

    DELIVERED_TO_PERSON = "delivered_to_person"
    DELIVERED_TO_NEIGHBOUR = "delivered_to_neighbour"
    DELIVERED_TO_SAFE_PLACE = "delivered_to_safe_place"
    DELIVERED_TO_LOCKER = "delivered_to_locker"
    ATTEMPTED = "attempted"
    REFUSED = "refused"
    DAMAGED = "damaged"
    PART = "part"
    MISSING_FROM_LOAD = "missing_from_load"
    COLLECTED = "collected"

    @property
    def is_delivery(self) -> bool:
        """Whether every parcel of the stop left the van for good."""
        return self.value.startswith("delivered_")


class Parcel(msgspec.Struct, frozen=True):
    """One labelled thing that is carried. `barcode` is the label's canonical text (see `labels`).

    `stow` says where in the van it lies, as the loading list has it ("B3": shelf B, third place); "" when nobody said.
    """

    barcode: str
    litres: float = 0.0
    kilograms: float = 0.0
    stow: str = ""


LOCKER_DOOR = "locker/"
"""How the door group of a stop begins that is a parcel locker."""


class Stop(msgspec.Struct, frozen=True):
    """One visit to one door.

    `slot` was sold at checkout; `told` is the window last communicated to the customer and lies inside the slot.
    `open_hours`, when the address keeps any, is when somebody is there at all. `service_s` is the planned dwell from
    parking to leaving: parking, walking, lift, waiting and the hand-over itself. `door_group` names the parking
    place: stops that share it are served without moving the van.

    What helps at the door is the customer's own and is shown to nobody but the driver: `door_code`, a `note`, the
    `safe_place` and the `neighbour` the customer named; "" when there is none. `attempt` counts from 1: a stop that
    comes again after a failed one is another stop of the same order.
    """

    stop_id: StopId
    order_id: OrderId
    address: str
    position: Position
    slot: TimeWindow
    told: TimeWindow
    service_s: Seconds
    parcels: tuple[Parcel, ...] = ()
    service: Service = "hand_over"
    floor: int = 0
    has_lift: bool = False
    is_business: bool = False
    open_hours: TimeWindow | None = None
    door_group: str = ""
    lateness_weight: int = 3
    door_code: str = ""
    note: str = ""
    safe_place: str = ""
    neighbour: str = ""
    attempt: int = 1

    @property
    def is_at_locker(self) -> bool:
        """Whether the parcels are put into a parcel locker: its name makes the door group."""
        return self.door_group.startswith(LOCKER_DOOR)


class Depot(msgspec.Struct, frozen=True):
    """Where vans load, which may lie outside the city bundle.

    `gateway` is the place on the map where its vans enter and leave it; `stem_s` is the drive between the two in free
    flow. A depot on the map has its gateway at its own door and a stem of 0.
    """

    depot_id: str
    name: str
    position: Position
    gateway: Position
    stem_s: Seconds = Seconds(0)


class Proof(msgspec.Struct, frozen=True):
    """What shows that a visit happened: scans, place, time, and what the service demands.

    `signature` and `photo` name stored objects by hash; personal data never travels in the record itself.
    """

    scanned: tuple[str, ...]
    position: Position | None
    at_ms: EpochMs
    signature: str | None = None
    photo: str | None = None
    age_checked: bool = False


class Visit(msgspec.Struct, frozen=True):
    """A visit that has ended: the stop, its outcome, why when it failed, and the proof."""

    stop_id: StopId
    outcome: Outcome
    arrived_ms: EpochMs
    left_ms: EpochMs
    proof: Proof
    reason: str = ""
    parcels_left: tuple[str, ...] = ()


class IncompleteProof(ValueError):
    """The proof lacks what the service demands."""


def missing_from_proof(stop: Stop, visit: Visit) -> list[str]:
    """What the visit's outcome demands and its proof lacks, in words; empty when the proof is complete."""
    if not (visit.outcome.is_delivery or visit.outcome in (Outcome.COLLECTED, Outcome.PART)):
        return [] if visit.reason or visit.outcome is Outcome.MISSING_FROM_LOAD else ["a reason"]
    missing = []
    expected = {parcel.barcode for parcel in stop.parcels}
    if visit.outcome.is_delivery and not expected <= set(visit.proof.scanned):
        missing.append(f"scans of {', '.join(sorted(expected - set(visit.proof.scanned)))}")
    if visit.outcome is Outcome.DELIVERED_TO_PERSON:
        if stop.service == "signature" and visit.proof.signature is None:
            missing.append("a signature")
        if stop.service == "age_check" and not visit.proof.age_checked:
            missing.append("an age check")
    elif visit.outcome.is_delivery and stop.service in ("signature", "age_check"):
        missing.append(
            f"a person: '{stop.service}' may not be left with {visit.outcome.value.removeprefix('delivered_to_')}"
        )
    return missing


AT_THE_DOOR_M = 150
"""A van parks round the corner and a fix between tall houses errs by tens of metres; farther is not this door."""


def doubt_about_place(stop: Stop, visit: Visit) -> str:
    """Why the proof's place does not show that somebody was at the door, in words; empty when it does.

    A doubt refuses nothing: a van without satellites still delivers. It is shown wherever the proof is.
    """
    if visit.proof.position is None:
        return "no place was known"
    metres = metres_between(stop.position, visit.proof.position)
    return f"{round(metres)} m from the door" if metres > AT_THE_DOOR_M else ""
