"""Everything the parties say to each other, and nothing else."""

import msgspec

from shared.contracts import LegTimes, Plan
from shared.ledger import Decision
from shared.quantities import EpochMs, TimeWindow
from shared.work import AgentId, Stop, StopId, Visit


class Estimate(msgspec.Struct, frozen=True, array_like=True):
    """When service at a stop is expected to begin: in one, five and nine cases of ten it has begun by then."""

    stop_id: StopId
    p10_ms: EpochMs
    p50_ms: EpochMs
    p90_ms: EpochMs


# From an agent to the hub: changes of state, as events.


class AgentStarted(msgspec.Struct, frozen=True, tag="agent_started"):
    """The agent's process began or came back from disk. `plan_version` is 0 when it has no plan."""

    kind: str
    version: str
    plan_version: int


class PlanTaken(msgspec.Struct, frozen=True, tag="plan_taken"):
    """The agent works under this plan from now on."""

    plan_version: int


class PlanRefused(msgspec.Struct, frozen=True, tag="plan_refused"):
    """The agent goes on with the plan it has, and says why."""

    plan_version: int
    why: str


class ShiftChanged(msgspec.Struct, frozen=True, tag="shift_changed"):
    """The driver began the shift, went on a break, came back or ended: begun, on_break, off_break, ended."""

    now_is: str


class HeadingTo(msgspec.Struct, frozen=True, tag="heading_to"):
    """The van is under way to this stop; `overrides` when the shown order had another one first."""

    stop_id: StopId
    overrides: bool = False


class Arrived(msgspec.Struct, frozen=True, tag="arrived"):
    """The van stands at the stop."""

    stop_id: StopId


class Visited(msgspec.Struct, frozen=True, tag="visited"):
    """A visit has ended, with its proof."""

    visit: Visit


class EstimatesMoved(msgspec.Struct, frozen=True, tag="estimates_moved"):
    """The arrivals the agent expects now, for every stop still to come, in the order shown."""

    estimates: tuple[Estimate, ...]
    why: str


class Resequenced(msgspec.Struct, frozen=True, tag="resequenced"):
    """The agent changed the order of its work, inside its contract."""

    change_id: str
    plan_version: int
    before: tuple[StopId, ...]
    after: tuple[StopId, ...]
    decision: Decision
    estimates: tuple[Estimate, ...]


class AmendmentTaken(msgspec.Struct, frozen=True, tag="amendment_taken"):
    """What became of a `WorkAmended`: the stops that are as it wants them, and those that are not, with the reason.

    `order` is what the driver is to visit now. Said of every amendment that is understood, of a repeated one too.
    """

    plan_version: int
    taken: tuple[StopId, ...]
    refused: tuple[tuple[StopId, str], ...]
    order: tuple[StopId, ...]


class OverrideExplained(msgspec.Struct, frozen=True, tag="override_explained"):
    """Why the driver went to `stop_id` when `instead_of` was shown first; asked once, and silence is an answer too.

    `reason` is one of shared.work.OVERRIDE_REASONS, `words` what the driver added.
    """

    stop_id: StopId
    instead_of: StopId
    reason: str
    words: str = ""


class ObjectPart(msgspec.Struct, frozen=True, tag="object_part"):
    """One piece of a signature or photograph that a proof names by its SHA-256.

    Pieces are numbered from 0 to `parts` - 1. They travel in a stream of their own, so that no event waits for a
    picture, and are personal: kept beside the records, never in them.
    """

    digest: str
    kind: str
    stop_id: StopId
    media_type: str
    part: int
    parts: int
    piece: bytes


class Decided(msgspec.Struct, frozen=True, tag="decided"):
    """A decision that changed nothing others see, such as keeping an order because a rule forbade a better one."""

    decision: Decision


class ChangeAnswered(msgspec.Struct, frozen=True, tag="change_answered"):
    """What the driver made of a change: seen or refused. A refused change has been taken back."""

    change_id: str
    answer: str
    reason: str
    order: tuple[StopId, ...]


class TooLate(msgspec.Struct, frozen=True, tag="too_late"):
    """A command came after its start-by time: it is acknowledged and will not be begun.

    `command` is its kind as it is named on the wire, `number` its place in the stream of commands.
    """

    command: str
    number: int
    start_by_ms: EpochMs


class DiskTight(msgspec.Struct, frozen=True, tag="disk_tight"):
    """The agent's disk is full, or has room again. While it is full, telemetry is given up and events are kept."""

    is_tight: bool


class PictureGivenUp(msgspec.Struct, frozen=True, tag="picture_given_up"):
    """A photograph that no proof demanded was thrown away for want of room; `digest` names it in its visit."""

    digest: str
    stop_id: StopId


class TimeFound(msgspec.Struct, frozen=True, tag="time_found"):
    """The agent worked on an unknown clock and has found the time: what it says is dated again by `shift_ms`.

    Everything it said before this and since it started bears the right date already. `by` says who told the time:
    gnss, kernel or hub.
    """

    shift_ms: int
    by: str


AgentEvent = (
    AgentStarted
    | PlanTaken
    | PlanRefused
    | ShiftChanged
    | HeadingTo
    | Arrived
    | Visited
    | EstimatesMoved
    | Resequenced
    | ChangeAnswered
    | Decided
    | AmendmentTaken
    | OverrideExplained
    | ObjectPart
    | TooLate
    | DiskTight
    | PictureGivenUp
    | TimeFound
)


# From the hub to an agent: commands, signed.


class PlanPushed(msgspec.Struct, frozen=True, tag="plan_pushed"):
    """Work under this plan. After `start_by_ms` it is not begun any more."""

    plan: Plan
    start_by_ms: EpochMs


class RoadsChanged(msgspec.Struct, frozen=True, tag="roads_changed"):
    """A street closed or opened: these leg times replace the plan's."""

    plan_version: int
    legs: LegTimes
    why: str


class WindowTold(msgspec.Struct, frozen=True, tag="window_told"):
    """The customer has been told another window."""

    stop_id: StopId
    told: TimeWindow


class WorkAmended(msgspec.Struct, frozen=True, tag="work_amended"):
    """Some of the work is another than planned, by the wish of a customer or after a failed attempt.

    `stops` replace the planned ones of the same id or are new; `withdrawn` are not to be visited any more, their
    parcels stay on board. `legs` cover every stop of the plan after the amendment; None when no place is new.
    What is under way or done is not amended: the agent keeps it as it is and goes on.
    """

    plan_version: int
    stops: tuple[Stop, ...] = ()
    withdrawn: tuple[StopId, ...] = ()
    legs: LegTimes | None = None
    why: str = ""


class PersonForgotten(msgspec.Struct, frozen=True, tag="person_forgotten"):
    """Erase what is personal about these stops: address, place, door code, notes, signatures and photographs."""

    stop_ids: tuple[StopId, ...]


class TimeTold(msgspec.Struct, frozen=True, tag="time_told"):
    """What time it is at the hub, for an agent whose `Presence.asks_time` was `asked`.

    An answer to another question, or one that took long, is not believed: it may be the repeat of an old one.
    """

    asked: str
    now_ms: EpochMs


HubCommand = PlanPushed | RoadsChanged | WindowTold | WorkAmended | PersonForgotten | TimeTold

Message = AgentEvent | HubCommand


class Numbered(msgspec.Struct, frozen=True):
    """A message with its place in a stream (see `streams`): who says it, in which life of its store, as which
    number.

    After `start_by_ms` a command is taken but not begun; None when it may be begun at any time. Numbers up to `after`
    are not kept by the sender any more: who lacks one of them waits for it in vain.
    """

    sender: AgentId
    boot: str
    stream: str
    seq: int
    said_ms: EpochMs
    epoch: int
    message: Message
    start_by_ms: EpochMs | None = None
    after: int = 0


class Ack(msgspec.Struct, frozen=True):
    """The receiver has committed every message up to `upto`, and those of `beyond`, of this stream and boot."""

    sender: AgentId
    boot: str
    stream: str
    upto: int
    beyond: tuple[int, ...] = ()


class Presence(msgspec.Struct, frozen=True):
    """Whether a party is there. Retained; the last will says that it is not. `life` tells one process from the next.

    `unacked` names, for each stream of `boot`, the lowest number the sender still keeps (the next one when none waits):
    a receiver that lacks an earlier one will never hear it. An agent that does not know the time `is_dated` False and
    asks for it under the word `asks_time`; the hub answers a word with `TimeTold`.
    """

    party: AgentId
    is_there: bool
    life: str
    boot: str = ""
    epoch: int = 0
    unacked: dict[str, int] = {}
    is_dated: bool = True
    asks_time: str = ""
