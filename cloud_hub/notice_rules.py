"""By which channels, and at what hours, a customer may be told something.

People sleep: between `quiet_from` and `quiet_to` neither an SMS nor an e-mail leaves, unless it would come too late to
be of use. A webhook tells the shop's machine, which does not sleep.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from cloud_hub.contacts import Channel, Language, NoticeKind
from shared.quantities import EpochMs

MINUTE_MS = 60_000
DAY_MIN = 24 * 60

ClockTime = Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]

_CHEAP_FIRST: tuple[Channel, ...] = ("email", "sms", "webhook")
_FAST_FIRST: tuple[Channel, ...] = ("sms", "email", "webhook")


class NoticeRule(msgspec.Struct, frozen=True):
    """`on` are the channels that are switched on: without one nothing leaves. `order` says which is tried first,
    `order_of` the same for one kind.

    Who asked is told that the van is near (`on_its_way`; or everybody, or nobody) once it is at most `on_its_way_stops`
    stops and `on_its_way_min` minutes away. `language` is for customers of whom none is known.
    """

    on: tuple[Channel, ...] = ()
    order: tuple[Channel, ...] = _FAST_FIRST
    order_of: dict[NoticeKind, tuple[Channel, ...]] = msgspec.field(default_factory=lambda: {"day": _CHEAP_FIRST})
    quiet_from: ClockTime = "21:00"
    quiet_to: ClockTime = "07:00"
    on_its_way: Literal["asked", "always", "never"] = "asked"
    on_its_way_stops: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    on_its_way_min: Annotated[int, msgspec.Meta(ge=5, le=120)] = 30
    language: Language = "en"

    def channels_for(self, kind: NoticeKind) -> tuple[Channel, ...]:
        """The channels that are on, in the order they are tried for this kind."""
        order = self.order_of.get(kind, self.order)
        return tuple(channel for channel in dict.fromkeys(order) if channel in self.on)


def quiet_until(now_ms: int, rule: NoticeRule, clock_face: Callable[[int], str]) -> EpochMs | None:
    """When the quiet hours this instant lies in end; None when it lies in none. `clock_face` gives local HH:MM."""
    begins, ends = _minutes(rule.quiet_from), _minutes(rule.quiet_to)
    now = _minutes(clock_face(now_ms))
    if (now - begins) % DAY_MIN >= (ends - begins) % DAY_MIN:
        return None
    whole_ms = now_ms - now_ms % MINUTE_MS
    end_ms = whole_ms + (ends - now) % DAY_MIN * MINUTE_MS
    # The clocks may have been put forward or back on the way there.
    off = (_minutes(clock_face(end_ms)) - ends + DAY_MIN // 2) % DAY_MIN - DAY_MIN // 2
    return EpochMs(max(end_ms - off * MINUTE_MS, now_ms + 1))


def _minutes(face: str) -> int:
    return int(face[:2]) * 60 + int(face[3:])
