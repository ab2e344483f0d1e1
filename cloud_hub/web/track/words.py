"""The page's words in each language, from the one file that has them all."""

import json
from datetime import date, datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from cloud_hub.contacts import LANGUAGES, Language
from shared.quantities import TimeWindow

FILE = Path(__file__).with_name("strings.json")

NAMES: dict[Language, str] = {"en": "English", "fi": "Suomi", "sv": "Svenska"}


@cache
def strings() -> dict[str, dict[str, str]]:
    """Every string by its key, then by language."""
    read: dict[str, dict[str, str]] = json.loads(FILE.read_text("utf-8"))
    return read


class Words:
    """One language, and how it says days and times in one zone."""

    def __init__(self, language: Language, zone: ZoneInfo, now_ms: int) -> None:
        self.language = language
        self._zone = zone
        self._today = self._moment(now_ms).date()

    def __call__(self, key: str, **named: object) -> str:
        """The string of this key with the named values in it. Raises KeyError when there is no such string."""
        return strings()[key][self.language].format(**named)

    def one_of(self, key: str, otherwise: str) -> str:
        """The string of this key, or of the other when nobody has written one."""
        return self(key if key in strings() else otherwise)

    def clock(self, instant_ms: int) -> str:
        """The time of day."""
        moment = self._moment(instant_ms)
        return self("clock", h=moment.hour, m=moment.minute)

    def window(self, window: TimeWindow) -> str:
        """From when to when."""
        return self("window", opens=self.clock(window.opens_ms), closes=self.clock(window.closes_ms))

    def day(self, instant_ms: int) -> str:
        """Today, tomorrow, or the date."""
        return self.called(self._moment(instant_ms).date())

    def day_inside(self, instant_ms: int) -> str:
        """The day as it is written within a sentence."""
        day = self.day(instant_ms)
        is_name = self.language == "en" and day not in (self("today"), self("tomorrow"))
        return day if is_name else day[0].lower() + day[1:]

    def called(self, day: date) -> str:
        """Today, tomorrow, or weekday, day and month."""
        away = (day - self._today).days
        if away in (0, 1):
            return self("tomorrow" if away else "today")
        return self.full_date(day)

    def full_date(self, day: date) -> str:
        """Weekday, day and month."""
        weekday, month = self("weekdays").split()[day.weekday()], self("months").split()[day.month - 1]
        said = self("date", weekday=weekday, day=day.day, month=month)
        return said[0].upper() + said[1:]

    def when(self, instant_ms: int) -> str:
        """The day, unless it is today, and the time."""
        at = self("at", clock=self.clock(instant_ms))
        return at if self._moment(instant_ms).date() == self._today else f"{self.day(instant_ms)} {at}"

    def metres(self, metres: int) -> str:
        """A distance as people say it."""
        if metres < 1000:
            return f"{metres} m"
        return f"{metres / 1000:.1f} km".replace(".", "." if self.language == "en" else ",")

    def _moment(self, instant_ms: int) -> datetime:
        return datetime.fromtimestamp(instant_ms / 1000, self._zone)


def chosen(asked: str | None, known: Language | None, accepted: str) -> Language:
    """The language asked for on the page, else the customer's, else the first the browser accepts that we speak
    (Accept-Language, RFC 9110 12.5.4, in the order given), else English.
    """
    for wish in (asked or "", known or "", *(part.partition(";")[0] for part in accepted[:200].split(","))):
        for language in LANGUAGES:
            if wish.strip().lower().partition("-")[0] == language:
                return language
    return "en"
