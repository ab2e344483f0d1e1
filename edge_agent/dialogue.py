"""What a driver tells the agent on its page, and what the agent answers.

The page's shell turns HTTP into these and the core decides; neither knows the other.
"""

import hashlib
from typing import Annotated, Literal

import msgspec

from shared.work import Outcome

DAY_TOPIC = "page/day"
"""An envelope with this topic never leaves the machine: it is the day as the page shows it."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Words = Annotated[str, msgspec.Meta(max_length=500)]
Barcode = Annotated[str, msgspec.Meta(max_length=256)]


class ShiftSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"now_is": "is"}, tag="shift"):
    """The driver begins the shift, goes on a break, comes back from it or ends the day."""

    now_is: Literal["begun", "on_break", "off_break", "ended"]


class HeadingSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="heading"):
    """The driver sets off to this stop, whatever was shown first."""

    stop_id: Id


class ChangeSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="change"):
    """What the driver makes of a changed order."""

    change_id: Id
    answer: Literal["seen", "refused"]
    reason: Words = ""


class OutcomeSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="outcome"):
    """How a visit ended. The scans come by the scanner's own wire."""

    stop_id: Id
    outcome: Outcome
    reason: Words = ""
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    photo: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    age_checked: bool = False
    parcels_left: Annotated[tuple[Barcode, ...], msgspec.Meta(max_length=500)] = ()


Said = ShiftSaid | HeadingSaid | ChangeSaid | OutcomeSaid


class Asked(msgspec.Struct, frozen=True):
    """Something said on the page. The same `key` with the same words is done once and answered the same."""

    key: str
    said: Said

    def fingerprint(self) -> str:
        """Tells one thing said from another under the same key."""
        return hashlib.sha256(msgspec.json.encode(self.said)).hexdigest()[:16]


class CountersAsked(msgspec.Struct, frozen=True):
    """Somebody wants to know how the agent is doing: answered with a mapping of names to numbers."""


class Reply(msgspec.Struct, frozen=True):
    """The answer to something said: an HTTP status and, when it was not done, why in words."""

    status: int
    title: str = ""
    detail: str = ""
