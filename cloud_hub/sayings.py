"""What a customer may say about a delivery, read from what a form sent.

The words come from a stranger who holds a link. They are bounded, freed of everything that could act on a screen or in
a log (control characters, marks that turn the writing round), and otherwise kept as they were said.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date

import msgspec

from cloud_hub.contacts import LONGEST_AT_THE_DOOR
from shared.quantities import EpochMs, TimeWindow
from shared.work import OrderId

_CLOCK = re.compile(r"([01]?\d|2[0-3])[:.]([0-5]\d)")
_CODE = re.compile(r"[\w#*+\- ]+")


class NotHomeUntil(msgspec.Struct, frozen=True, tag="not_home_until"):
    """Nobody is there before this instant."""

    at_ms: EpochMs


class SafePlace(msgspec.Struct, frozen=True, tag="safe_place"):
    """Where it may be left; "" takes it back. `is_for_next` asks us to remember it for later orders."""

    where: str
    is_for_next: bool = False


class Neighbour(msgspec.Struct, frozen=True, tag="neighbour"):
    """Who may be given it; "" takes it back. `is_for_next` asks us to remember it for later orders."""

    who: str
    is_for_next: bool = False


class OtherDay(msgspec.Struct, frozen=True, tag="other_day"):
    """Come on this day (YYYY-MM-DD) instead, within these hours."""

    day: str
    slot: TimeWindow


class DoorCode(msgspec.Struct, frozen=True, tag="door_code"):
    """What opens the door downstairs; "" takes it back."""

    code: str
    is_for_next: bool = True


class OnItsWay(msgspec.Struct, frozen=True, tag="on_its_way"):
    """Whether to be told when the van sets out for this door."""

    is_wanted: bool


Wish = NotHomeUntil | SafePlace | Neighbour | OtherDay | DoorCode | OnItsWay


class WishSaid(msgspec.Struct, frozen=True):
    """A customer said this about an order."""

    order_id: OrderId
    wish: Wish


class SaidWish(msgspec.Struct, frozen=True):
    """A wish and what came of it. `wish` is personal: it is kept in the room `said_wishes` and nowhere else.

    `effect` says what was done and `why_not` why nothing was, each as a code the page has words for; one of them is
    "". `decision_id` names the record, which holds no word of the customer's.
    """

    wish_id: str
    order_id: OrderId
    customer_ref: str
    said_ms: EpochMs
    wish: Wish
    effect: str = ""
    why_not: str = ""
    told: TimeWindow | None = None
    decision_id: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the wish is granted."""
        return not self.why_not


def wish_id(order_id: OrderId, number: int) -> str:
    """The name of an order's wish, numbered from 1 without a gap."""
    return f"{order_id}/{number:06d}"


class WishRefused(ValueError):
    """What was sent is no wish; the class's name is counted and has words on the page."""


class WishUnknown(WishRefused):
    """No wish of this name is known."""


class WishTooLong(WishRefused):
    """More words than a driver can read at the door."""


class WishGarbled(WishRefused):
    """The time, the day or the code is none."""


def read_wish(
    form: Mapping[str, str], instant: Callable[[int, int], EpochMs], slot_on: Callable[[date], TimeWindow]
) -> Wish:
    """The wish a form says. Raises WishUnknown, WishTooLong or WishGarbled.

    `form` holds `wish` (a tag of Wish) and its field: `until` (HH:MM), `where`, `who`, `day` (YYYY-MM-DD), `code`,
    `wanted` (yes or no), and `remember` (yes). `instant` says when HH, MM is on the day of the visit, `slot_on` the
    hours that were sold on another day.
    """
    kind = form.get("wish", "")
    is_for_next = form.get("remember") == "yes"
    if kind == "not_home_until":
        return NotHomeUntil(_instant(form.get("until", ""), instant))
    if kind == "safe_place":
        return SafePlace(_words(form.get("where", ""), LONGEST_AT_THE_DOOR[kind]), is_for_next)
    if kind == "neighbour":
        return Neighbour(_words(form.get("who", ""), LONGEST_AT_THE_DOOR[kind]), is_for_next)
    if kind == "door_code":
        return DoorCode(_code(form.get("code", "")), is_for_next)
    if kind == "other_day":
        return _other_day(form.get("day", ""), slot_on)
    if kind == "on_its_way" and form.get("wanted") in ("yes", "no"):
        return OnItsWay(form["wanted"] == "yes")
    raise WishUnknown(f"wish '{clean(kind)[:40]}', expected one of the page's forms")


def clean(text: str) -> str:
    """The text in composed form (NFC), on one line, without control, format or private characters."""
    on_one_line = (" " if sign.isspace() else sign for sign in text)
    printable = "".join(sign for sign in on_one_line if sign == " " or unicodedata.category(sign)[0] not in "CZ")
    return " ".join(unicodedata.normalize("NFC", printable).split())


def _words(text: str, longest: int) -> str:
    cleaned = clean(text)
    if len(cleaned) > longest:
        raise WishTooLong(f"{len(cleaned)} characters, expected at most {longest}")
    return cleaned


def _code(text: str) -> str:
    code = _words(text, LONGEST_AT_THE_DOOR["door_code"])
    if code and not _CODE.fullmatch(code):
        raise WishGarbled("a door code holds letters, digits, spaces and # * + -")
    return code


def _instant(text: str, instant: Callable[[int, int], EpochMs]) -> EpochMs:
    said = _CLOCK.fullmatch(text.strip()) if len(text) < 16 else None
    if said is None or not said[0].isascii():
        raise WishGarbled("no time of day, expected HH:MM")
    return instant(int(said[1]), int(said[2]))


def _other_day(text: str, slot_on: Callable[[date], TimeWindow]) -> OtherDay:
    try:
        day = date.fromisoformat(text)
        return OtherDay(day.isoformat(), slot_on(day))
    except (ValueError, OverflowError):
        raise WishGarbled("no day, expected YYYY-MM-DD") from None
