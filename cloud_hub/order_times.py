"""Read the times of an order: its slot, and the hours in which somebody is there, as instants of the day's own zone."""

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cloud_hub.order_rows import OrderIn, RowWrong
from shared.quantities import EpochMs, TimeWindow

LONGEST_SLOT = timedelta(hours=24)


class ZoneUnknown(ValueError):
    """The time zone is not one of the IANA database."""


def zone_named(name: str) -> ZoneInfo:
    """The zone of an IANA name. Raises ZoneUnknown."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ZoneUnknown(
            f"found the time zone {name!r}, expected an IANA name like Europe/Helsinki: correct it"
        ) from None


def right_times(order: OrderIn, day: date | None, zone: ZoneInfo) -> tuple[TimeWindow, TimeWindow | None]:
    """The slot and the opening hours, absent when the order names none. Raises RowWrong when one of them cannot be."""
    opens, closes = _instant(order.slot_from, "slot_from", day, zone), _instant(order.slot_to, "slot_to", day, zone)
    if not timedelta(0) < closes - opens <= LONGEST_SLOT:
        raise RowWrong(
            f"a slot from {order.slot_from} to {order.slot_to}", "from before to, within 24 hours", "correct it"
        )
    if day is not None and opens.astimezone(zone).date() != day:
        raise RowWrong(
            f"a slot beginning {order.slot_from}", f"a slot on {day}", "hand it in with the orders of its own day"
        )
    slot = _window(opens, closes)
    if not order.open_from and not order.open_to:
        return slot, None
    hours = tuple(
        _instant(text, name, opens.astimezone(zone).date(), zone)
        for text, name in ((order.open_from, "open_from"), (order.open_to, "open_to"))
    )
    if hours[0] >= hours[1] or hours[0] > closes or hours[1] < opens:
        raise RowWrong(
            f"opening hours {order.open_from} to {order.open_to}, slot {order.slot_from} to {order.slot_to}",
            "opening hours that meet the slot",
            "correct the hours or the slot",
        )
    return slot, _window(*hours)


def _window(opens: datetime, closes: datetime) -> TimeWindow:
    return TimeWindow(EpochMs(round(opens.timestamp() * 1000)), EpochMs(round(closes.timestamp() * 1000)))


_CLOCK = re.compile(r"([0-9]{1,2})[:.]([0-9]{2})(?:[:.]([0-9]{2}))?", re.ASCII)


def _instant(text: str, name: str, day: date | None, zone: ZoneInfo) -> datetime:
    """The instant a time in an order means, with its zone."""
    written = text.strip()
    clock = _CLOCK.fullmatch(written)
    try:
        moment = _on_day(clock, name, day) if clock else datetime.fromisoformat(written)
    except ValueError:
        raise RowWrong(f"{name} {text[:40]!r}", "HH:MM or ISO 8601 like 2026-11-23T10:00", "correct the time") from None
    if not 2000 <= moment.year <= 2100 or (not clock and len(written) <= len("2026-11-23")):
        raise RowWrong(f"{name} {text[:40]!r}", "a time of day in the years 2000 to 2100", "correct the time")
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    placed = moment.replace(tzinfo=zone)
    if placed.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment:
        raise RowWrong(
            f"{name} {text[:40]!r}", f"a time that exists in {zone.key}", "the clocks skip it that day: move it"
        )
    return placed.astimezone(UTC)


def _on_day(clock: re.Match[str], name: str, day: date | None) -> datetime:
    if day is None:
        raise RowWrong(f"{name} {clock[0]!r} without a day", "a day for the intake, or a full date", "give the day")
    hour, minute, second = int(clock[1]), int(clock[2]), int(clock[3] or 0)
    if (hour, minute, second) == (24, 0, 0):
        return datetime(day.year, day.month, day.day) + timedelta(days=1)  # noqa: DTZ001  The caller puts the zone on.
    return datetime(day.year, day.month, day.day, hour, minute, second)  # noqa: DTZ001  The caller puts the zone on.
