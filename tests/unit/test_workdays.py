"""The calendar keeps the hours of the clock, whatever the clocks do."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.workdays import Workdays
from shared.quantities import EpochMs, TimeWindow

ZONE = ZoneInfo("Europe/Helsinki")
WEEK = Workdays("Europe/Helsinki", (1, 2, 3, 4, 5))


def local(text: str) -> EpochMs:
    return EpochMs(int(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp() * 1000))


def hours(day: str, opens: str = "09:00", closes: str = "17:00") -> TimeWindow:
    return TimeWindow(local(f"{day}T{opens}"), local(f"{day}T{closes}"))


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        ("2026-03-05", "2026-03-05T18:00", "2026-03-06"),
        ("2026-03-06", "2026-03-06T18:00", "2026-03-09"),
        ("2026-03-05", "2026-03-06T06:00", "2026-03-06"),
        ("2026-03-05", "2026-03-06T10:00", "2026-03-09"),
        ("2026-03-27", "2026-03-27T18:00", "2026-03-30"),
        ("2026-10-23", "2026-10-23T18:00", "2026-10-26"),
    ],
    ids=["the next day", "after a Friday", "the same morning", "too late today", "summer time", "winter time"],
)
def test_the_same_hours_come_on_the_next_working_day_they_still_lie_ahead(last: str, now: str, expected: str) -> None:
    assert WEEK.next_after(hours(last), date.fromisoformat(last), local(now)) == hours(expected)


def test_without_working_days_every_day_is_one() -> None:
    everyday = Workdays("Europe/Helsinki", ())
    assert everyday.next_after(hours("2026-03-06"), date(2026, 3, 6), local("2026-03-06T18:00")) == hours("2026-03-07")


def test_the_last_hour_of_a_day_is_its_midnight() -> None:
    assert WEEK.at_hour(local("2026-03-06T10:00"), 24) == local("2026-03-07T00:00")
    assert WEEK.hour(local("2026-03-06T10:45")) == 10.75


@given(st.dates(date(2025, 1, 1), date(2027, 1, 1)), st.integers(0, 400))
def test_hours_are_moved_by_whole_days(day: date, later: int) -> None:
    moved = WEEK.on(hours(day.isoformat()), date.fromordinal(day.toordinal() + later))
    assert (WEEK.hour(moved.opens_ms), WEEK.hour(moved.closes_ms)) == (9, 17)
    assert WEEK.day(moved.opens_ms).toordinal() == day.toordinal() + later
