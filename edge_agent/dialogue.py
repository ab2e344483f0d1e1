"""What a driver tells the agent on its page, and what the agent answers.

The page's shell turns HTTP into these and the core decides; neither knows the other.
"""

import hashlib
from typing import Annotated, Literal

import msgspec

from shared.work import Outcome

DAY_TOPIC = "page/day"
"""An envelope with this topic never leaves the machine: it is the day as the page shows it."""
ENTRY_TOPIC = "page/entry"
"""Likewise, and its payload is an `Entry`: who may read the day. It always comes before a day it bears on."""

MOST_OBJECT_BYTES = 400_000
"""A photograph of a phone, made small: 1,280 points on its longer side."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Words = Annotated[str, msgspec.Meta(max_length=500)]
Barcode = Annotated[str, msgspec.Meta(max_length=256)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""SHA-256, in hex."""


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
    signature: Digest | None = None
    photo: Digest | None = None
    age_checked: bool = False
    parcels_left: Annotated[tuple[Barcode, ...], msgspec.Meta(max_length=500)] = ()


class SessionSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="session"):
    """Somebody types the code shown at the depot; `token_digest` is the hash of the token his phone is given.

    The core never sees the token. Saying it again with the same digest changes nothing.
    """

    code: Annotated[str, msgspec.Meta(max_length=40)]
    token_digest: Digest

    def __repr__(self) -> str:
        """A code is in no log, not even in that of a crash."""
        return "SessionSaid(...)"


class ScanSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="scan"):
    """A label read by the page: by a camera, a wedge scanner or by hand. Answered with `parcel` and `stop_id`."""

    text: Annotated[str, msgspec.Meta(max_length=2_000)]


class ObjectSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="object"):
    """A signature or photograph made at a stop, which an outcome then names by its hash. Answered with `digest`.

    The content must begin as its media type begins.
    """

    kind: Literal["signature", "photo"]
    stop_id: Id
    media_type: Literal["image/png", "image/jpeg"]
    content: Annotated[bytes, msgspec.Meta(max_length=MOST_OBJECT_BYTES)]

    @property
    def digest(self) -> str:
        """What names these bytes."""
        return hashlib.sha256(self.content).hexdigest()

    def __repr__(self) -> str:
        """Pictures are in no log."""
        return f"ObjectSaid({self.kind}, {len(self.content)} bytes)"


class OverrideSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="override"):
    """Why the driver went to this stop when another was shown first; `no_answer` puts the question away."""

    stop_id: Id
    reason: Literal["customer_asked", "parcel_at_hand", "road", "knows_better", "other", "no_answer"]
    words: Words = ""


Said = ShiftSaid | HeadingSaid | ChangeSaid | OutcomeSaid | SessionSaid | ScanSaid | ObjectSaid | OverrideSaid


class Asked(msgspec.Struct, frozen=True):
    """Something said on the page. The same `key` with the same words is done once and answered the same."""

    key: str
    said: Said

    def fingerprint(self) -> str:
        """Tells one thing said from another under the same key."""
        return hashlib.sha256(msgspec.json.encode(self.said)).hexdigest()[:16]


class CountersAsked(msgspec.Struct, frozen=True):
    """Somebody wants to know how the agent is doing: answered with a mapping of names to numbers."""


class Entry(msgspec.Struct, frozen=True):
    """Who may read the day and speak to the agent: anybody unless `is_locked`, else who holds one of these tokens."""

    is_locked: bool = False
    token_digests: tuple[str, ...] = ()

    def admits(self, token_digest: str) -> bool:
        """Whether the holder of the token with this hash may come in."""
        return not self.is_locked or token_digest in self.token_digests


class Reply(msgspec.Struct, frozen=True):
    """The answer to something said: an HTTP status and, when it was not done, why in words.

    `found` is what was asked for, to stand beside `"ok": true` in the body; `retry_after_s` is when to ask again, for
    a refusal that time heals.
    """

    status: int
    title: str = ""
    detail: str = ""
    found: dict[str, str | None] = {}
    retry_after_s: int = 0
