"""Domain time for every process of one installation, from one setting.

Domain time is `epoch + speed x monotonic`, so that a whole day can be
driven at 60x by real processes, and so that nobody's domain time jumps
when the machine's wall clock is set. Processes on one machine share the
monotonic clock, hence share domain time to the millisecond.
"""

import time

import msgspec

from shared.quantities import EpochMs

SETTING = "WAYWARDEN_CLOCK"
"""Environment variable that holds the setting: EPOCH_MS,SPEED,ORIGIN_MONOTONIC_NS."""


class ClockSettingWrong(ValueError):
    """The clock's setting is not EPOCH_MS,SPEED,ORIGIN_MONOTONIC_NS."""


class Clock(msgspec.Struct):
    """`speed` domain milliseconds pass per real millisecond since the origin.

    A clock that is not dated goes on from an instant somebody remembered, and is put right once the time is found.
    """

    epoch_ms: int
    speed: float
    origin_ns: int
    is_dated: bool = True

    @classmethod
    def real(cls) -> "Clock":
        """The machine's own time, read once: later jumps of the wall clock are not followed."""
        return cls(time.time_ns() // 1_000_000, 1.0, time.monotonic_ns())

    @classmethod
    def starting(cls, epoch_ms: int, speed: float) -> "Clock":
        """A clock that shows `epoch_ms` now and runs `speed` times as fast as the real one."""
        return cls(epoch_ms, speed, time.monotonic_ns())

    @classmethod
    def from_setting(cls, text: str | None) -> "Clock":
        """The clock a setting describes; the real clock when there is none.

        Raises ClockSettingWrong when the text is anything else.
        """
        if not text:
            return cls.real()
        try:
            epoch_ms, speed, origin_ns = text.split(",")
            clock = cls(int(epoch_ms), float(speed), int(origin_ns))
        except ValueError:
            raise ClockSettingWrong(f"{SETTING} is '{text}', expected EPOCH_MS,SPEED,ORIGIN_MONOTONIC_NS") from None
        if not 0 < clock.speed <= 10_000:
            raise ClockSettingWrong(f"{SETTING} asks for speed {clock.speed}, expected more than 0 and at most 10,000")
        return clock

    def lose(self, last_ms: int) -> None:
        """Nobody knows the time: go on from the last instant that is remembered."""
        self.epoch_ms += last_ms - self.now_ms()
        self.is_dated = False

    def find(self, shift_ms: int) -> None:
        """The time was found: it is so much later than this clock has shown. Only the thread of the steps may do it."""
        self.epoch_ms += shift_ms
        self.is_dated = True

    def setting(self) -> str:
        """The text other processes read to share this clock."""
        return f"{self.epoch_ms},{self.speed},{self.origin_ns}"

    def now_ms(self) -> EpochMs:
        """The present instant of domain time."""
        return EpochMs(self.epoch_ms + int((time.monotonic_ns() - self.origin_ns) * self.speed / 1e6))

    def real_seconds(self, domain_ms: float) -> float:
        """How long a span of domain time takes, in real seconds."""
        return domain_ms / 1000 / self.speed
