"""The local calendar work is done by: hours of the clock, and the same hours on another working day."""

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from shared.quantities import EpochMs, TimeWindow


class Workdays:
    """Instants as the clock on the wall shows them. `working_days` are ISO weekdays (1 is Monday); none means all."""

    def __init__(self, zone: str, working_days: Collection[int]) -> None:
        self._zone = ZoneInfo(zone)
        self._working_days = frozenset(working_days) or frozenset(range(1, 8))

    def day(self, instant_ms: int) -> date:
        """The day of an instant."""
        return self._local(instant_ms).date()

    def hour(self, instant_ms: int) -> float:
        """The hour of an instant, with its minutes as a fraction."""
        local = self._local(instant_ms)
        return local.hour + local.minute / 60

    def is_worked(self, day: date) -> bool:
        """Whether work is done on this day."""
        return day.isoweekday() in self._working_days

    def at_hour(self, instant_ms: int, hour: int) -> int:
        """This hour of the instant's own day, in epoch ms; 24 is the next midnight."""
        midnight = datetime.combine(self.day(instant_ms), datetime.min.time())
        return _epoch_ms((midnight + timedelta(hours=hour)).replace(tzinfo=self._zone))

    def next_after(self, hours: TimeWindow, day: date, now_ms: int) -> TimeWindow:
        """The same hours of the clock on the first working day after this one on which they still lie ahead."""
        while True:
            day += timedelta(days=1)
            moved = self.on(hours, day)
            if self.is_worked(day) and moved.opens_ms > now_ms:
                return moved

    def on(self, window: TimeWindow, day: date) -> TimeWindow:
        """The window's hours of the clock on this day."""
        apart = day - self.day(window.opens_ms)
        return TimeWindow(self._moved(window.opens_ms, apart), self._moved(window.closes_ms, apart))

    def _moved(self, instant_ms: int, apart: timedelta) -> EpochMs:
        local = self._local(instant_ms)
        return EpochMs(_epoch_ms((local.replace(tzinfo=None) + apart).replace(tzinfo=self._zone)))

    def _local(self, instant_ms: int) -> datetime:
        return datetime.fromtimestamp(instant_ms / 1000, UTC).astimezone(self._zone)


def _epoch_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
