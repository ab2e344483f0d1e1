"""What an agent remembers over a restart: the values that are written down, one row each.

Each is frozen: the core replaces a value by another, and whatever is another value than the one last written becomes a
row of the step's commit. So memory and disk cannot part.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from edge_agent.arrivals import AdaptiveOffset
from edge_agent.dialogue import Reply
from edge_agent.reasons import Reason
from shared.features import Pace
from shared.ledger import FIRST_LINK
from shared.messages import Estimate
from shared.quantities import EpochMs, Position
from shared.steps import Row
from shared.work import Stop, StopId

T = TypeVar("T", bound=msgspec.Struct)


class Change(msgspec.Struct, frozen=True):
    """A change of order the driver has not answered. `before` is the order last agreed to.

    `why` is `reason` as an English sentence, with stops by their ids.
    """

    change_id: str
    at_ms: EpochMs
    why: str
    before: tuple[StopId, ...]
    after: tuple[StopId, ...]
    new_arcs: tuple[tuple[StopId, StopId], ...] = ()
    reason: Reason | None = None


class Refused(msgspec.Struct, frozen=True):
    """A change the driver turned down."""

    at_ms: EpochMs
    new_arcs: tuple[tuple[StopId, StopId], ...]


class Override(msgspec.Struct, frozen=True):
    """The driver goes, or went, to `stop_id` when the page showed `instead_of` first; since `at_ms`."""

    stop_id: StopId
    instead_of: StopId
    at_ms: EpochMs


class Day(msgspec.Struct, frozen=True):
    """Where the day stands: planned, shown and driven order are three facts.

    `shown` holds the stops still to come, the one under way first. `from_place` is the place last left (None: the
    depot) and `left_ms` when its work ended; `set_off_ms` when the leg under way began. `said_heading` is where the
    driver said he was going, which outlives a stand at another stop that came to nothing. `before_override` is the
    order shown before the van went elsewhere, to come back to should that come to nothing too; empty when it did not.
    `held` is the order the page still shows because the van moves; empty when it shows `shown`. `override` is the visit
    under way that the page had not shown next, `question` the one the driver is asked about. `forgetting` names stops
    whose person is to be forgotten once the van has left them.
    """

    planned: tuple[StopId, ...] = ()
    shown: tuple[StopId, ...] = ()
    held: tuple[StopId, ...] = ()
    before_override: tuple[StopId, ...] = ()
    driven: tuple[StopId, ...] = ()
    shift: str = "waiting"
    heading_to: StopId | None = None
    said_heading: StopId | None = None
    at_stop: StopId | None = None
    arrived_ms: EpochMs | None = None
    from_place: StopId | None = None
    from_position: Position | None = None
    left_ms: EpochMs | None = None
    set_off_ms: EpochMs | None = None
    set_off_odometer_m: float = 0.0
    scans: tuple[str, ...] = ()
    rest_began_ms: EpochMs | None = None
    is_rest_taken: bool = False
    change: Change | None = None
    refused: tuple[Refused, ...] = ()
    arcs_used: int = 0
    changed_ms: EpochMs | None = None
    ended_ms: EpochMs | None = None
    override: Override | None = None
    question: Override | None = None
    amendments: int = 0
    forgetting: tuple[StopId, ...] = ()


class Session(msgspec.Struct, frozen=True):
    """A phone that gave the shift's code; its token is known by its SHA-256 only."""

    token_digest: str
    opened_ms: EpochMs


class Admission(msgspec.Struct, frozen=True):
    """Who was let into the page of one day's shift, and how many wrong codes were given since."""

    day: str = ""
    sessions: tuple[Session, ...] = ()
    wrong_codes: int = 0


class Shipping(msgspec.Struct, frozen=True):
    """Signatures and photographs on their way to the hub, by key; so many pieces of the first have left."""

    waiting: tuple[str, ...] = ()
    parts_left: int = 0


class Withdrawn(msgspec.Struct, frozen=True):
    """Stops of the plan that are not to be visited any more; what they were to get is still on board."""

    stops: tuple[Stop, ...] = ()


class Books(msgspec.Struct, frozen=True):
    """What outlives every day: the highest epoch heard, the chain of decisions, and how many were made."""

    epoch: int = 0
    link: str = FIRST_LINK
    decisions: int = 0


class ClockKept(msgspec.Struct, frozen=True):
    """The latest instant of a commit: a machine that does not know the time goes on from there."""

    last_ms: EpochMs


class Learned(msgspec.Struct, frozen=True):
    """What this van and driver have taught: the day's pace on legs and at doors, and the models' offsets."""

    day: str = ""
    legs: Pace = Pace()
    stops: Pace = Pace()
    leg_offset: AdaptiveOffset = AdaptiveOffset()
    stop_offset: AdaptiveOffset = AdaptiveOffset()


class SaidToHub(msgspec.Struct, frozen=True):
    """The estimates last said, and the risk each stop was in then."""

    estimates: tuple[Estimate, ...] = ()
    risks: dict[StopId, str] = {}


class News(msgspec.Struct, frozen=True):
    """What has changed since the kernel was last asked, and in whose name it is to be asked; empty when nothing has."""

    of: str = ""


class Answered(msgspec.Struct, frozen=True):
    """What the page was answered under one idempotency key."""

    at_ms: EpochMs
    fingerprint: str
    reply: Reply


def read_part(room: Mapping[str, bytes], key: str, kind: type[T]) -> T | None:
    """The value kept under a key of a room; None when there is none."""
    value = room.get(key)
    return None if value is None else msgspec.json.decode(value, type=kind)


Parts = Mapping[tuple[str, str], msgspec.Struct | None]
"""The values of an agent by the room and key of the row that keeps each; None where there is nothing to keep."""


def changed_rows(written: Parts, now: Parts) -> list[Row]:
    """Rows for every part that is another value than the one last written."""
    return [
        Row(*key, None if part is None else msgspec.json.encode(part))
        for key, part in now.items()
        if part is not written[key] and part != written[key]
    ]
