"""Say why an order changed and what that does, as a value the page can translate and as an English sentence.

Stops keep their ids in the sentence, for `shared.ledger.spoken` to replace where people read.
"""

from datetime import UTC, datetime, tzinfo
from typing import Literal

import msgspec

Cause = Literal[
    "late",
    "about_to_miss",
    "shift_too_long",
    "break_too_late",
    "roads",
    "not_home_until",
    "other_window",
    "other_details",
    "another_attempt",
    "new_stop",
    "withdrawn",
]
Effect = Literal["keeps_windows", "waits_less", "shift_sooner", "break_in_time", "saves_driving", "none"]

WISHES = ("not_home_until", "other_window", "other_details", "another_attempt", "new_stop", "withdrawn")
"""Causes that come from outside: what was wanted is another work, not another order of it."""


class Reason(msgspec.Struct, frozen=True):
    """Why an order changed and what that does.

    `cause_stop` is where it was seen ("" when nowhere in particular), `cause_min` how late, `cause_ms` the instant it
    speaks of (0 for none) and `cause_count` how many stops it is about. `moved` stops changed their place. The effect
    is on `effect_count` customers, by up to `effect_min`; `worse_count` others wait up to `worse_min` longer.
    """

    cause: Cause
    cause_min: int = 0
    cause_stop: str = ""
    cause_ms: int = 0
    cause_count: int = 1
    moved: int = 0
    effect: Effect = "none"
    effect_count: int = 0
    effect_min: int = 0
    worse_count: int = 0
    worse_min: int = 0


def because(wish: Reason, change: Reason) -> Reason:
    """What an order changed for when somebody's wish had a better one sought: the wish, and what the change does."""
    return msgspec.structs.replace(
        change,
        cause=wish.cause,
        cause_min=wish.cause_min,
        cause_stop=wish.cause_stop,
        cause_ms=wish.cause_ms,
        cause_count=wish.cause_count,
    )


def in_english(reason: Reason, zone: tzinfo = UTC) -> str:
    """The sentence; instants are told in `zone`."""
    words = _cause(reason, zone)
    if reason.cause not in WISHES or reason.moved:
        words += f"; moved {counted(reason.moved, 'stop')}{_effect(reason)}"
    if reason.worse_count:
        others = "one other" if reason.worse_count == 1 else f"{reason.worse_count} others at most"
        words += f", {reason.worse_min} min later at {others}"
    return words


def _cause(reason: Reason, zone: tzinfo) -> str:
    stop, more = reason.cause_stop, reason.cause_count - 1
    beside = f" and {counted(more, 'other')}" if more > 0 else ""
    match reason.cause:
        case "late":
            return f"Running {reason.cause_min} min late at {stop}"
        case "about_to_miss":
            return f"About to miss the window at {stop}"
        case "shift_too_long":
            return "The shift would end too late"
        case "break_too_late":
            return "The break would begin too late"
        case "roads":
            return "The roads have changed"
        case "not_home_until":
            at = datetime.fromtimestamp(reason.cause_ms / 1000, UTC).astimezone(zone)
            return f"The customer at {stop} is not home until {at:%H:%M}{beside}"
        case "other_window":
            return f"The customer at {stop} wants another time{beside}"
        case "other_details":
            return f"The customer at {stop} has said what to do at the door{beside}"
        case "another_attempt":
            return f"Another attempt at {stop}{beside}"
        case "new_stop":
            return f"A new stop at {stop}{beside}"
        case "withdrawn":
            return f"No visit at {stop} any more{beside}"


def _effect(reason: Reason) -> str:
    count, whom = reason.effect_count, counted(reason.effect_count, "customer")
    match reason.effect:
        case "keeps_windows":
            return f" so that {whom} {'keeps its' if count == 1 else 'keep their'} window"
        case "waits_less":
            return f" so that {whom} {'waits' if count == 1 else 'wait'} up to {reason.effect_min} min less"
        case "shift_sooner":
            return f" so that the shift ends {reason.effect_min} min sooner"
        case "break_in_time":
            return " so that the break begins in time"
        case "saves_driving":
            return f" to save {reason.effect_min} min of driving"
        case "none":
            return ""


def counted(count: int, noun: str) -> str:
    """A number and its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
