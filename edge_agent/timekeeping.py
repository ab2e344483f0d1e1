"""Know whether the time is known, ask the hub for it, and judge whoever tells it.

While nobody has told it, the machine's clock goes on from the last instant it remembers. Satellites and the hub are
heard here; the shell puts the clock right (`TellTime`) and says by how much (`ClockFound`). What was written until then
is dated again (`edge_agent.dating`).
"""

import msgspec

from edge_agent.dating import Dating, Undated
from edge_agent.machine import TellTime
from edge_agent.memory import ClockKept, Parts, read_part
from shared.messages import TimeTold
from shared.quantities import EpochMs
from shared.steps import ClockFound, Now, Row, Saved

ASKS_EVERY_MS = 10_000
"""Real time between two questions to the hub for the time; an answer that took longer is the answer to none."""
TIME_BACK_MS = 60_000
"""A receiver that tells less than the last instant we remember is wrong (its count of weeks has begun anew)."""


class Timekeeping:
    """What one agent knows of its clock. Questions are counted in real time: the other one is not known."""

    def __init__(self, life: str, clock_speed: float, saved: Saved) -> None:
        """From everything the store held; `life` names this process, `clock_speed` is of domain time."""
        own = saved.get("agent", {})
        self._life = life
        self._clock_speed = clock_speed
        self._undated = read_part(own, "undated", Undated)
        self._last = read_part(own, "clock", ClockKept)
        self._is_told = False
        self._questions = 0
        self._asked_real_ms: int | None = None

    @property
    def is_dated(self) -> bool:
        """Whether the time is known."""
        return self._undated is None

    @property
    def undated(self) -> Undated | None:
        """Since when what is written has no right date; None while the time is known."""
        return self._undated

    def parts(self) -> Parts:
        """What must be written down."""
        return {("agent", "undated"): self._undated}

    def instant_row(self, now_ms: EpochMs) -> Row:
        """The instant of a commit, from which a machine that does not know the time goes on."""
        return Row("agent", "clock", msgspec.json.encode(ClockKept(now_ms)))

    # The time is lost, and found.

    def lose(self, undated: Undated) -> Undated:
        """Nobody knows the time; since when, which an earlier life may have written down already."""
        if self._undated is None:
            self._undated = undated
        return self._undated

    def found_at_start(self, now_ms: EpochMs) -> ClockFound | None:
        """A life begins that knows the time: the one before it, if that ended undated, is taken to have ended now."""
        if self._undated is None:
            return None
        return ClockFound(0 if self._last is None else now_ms - self._last.last_ms, "start")

    def find(self, found: ClockFound) -> Dating | None:
        """The time is known from here on, and what was written since it was lost moves; None when it was not lost."""
        if self._undated is None:
            return None
        dating = Dating(self._undated.since_ms, found.shift_ms)
        self._undated, self._is_told = None, False
        return dating

    # Who tells it.

    def hear_satellites(self, utc_ms: int | None, heard_ms: EpochMs) -> TellTime | str:
        """A believed fix bears a time; the name of the refusal, empty when there is nothing to hear.

        Not believed when it is less than what we remember. The hub is, for what we remember may have been wrong.
        """
        if self._undated is None or self._is_told or utc_ms is None:
            return ""
        if utc_ms < self._undated.since_ms - TIME_BACK_MS:
            return "TimeBeforeMemory"
        return self._told(utc_ms, heard_ms, "gnss")

    def hear_hub(self, told: TimeTold, now: Now) -> TellTime | str:
        """The hub answers; half of the time it took is the way back. The name of the refusal, as above."""
        ago_ms = self._asked_ago_ms(told.asked, now.real_ms)
        if ago_ms is None:
            return "TimeNotAsked"
        if self._is_told:
            return ""
        return self._told(told.now_ms + round(ago_ms / 2 * self._clock_speed), now.domain_ms, "hub")

    def fail_to_tell(self) -> None:
        """The clock could not be put right; whoever tells the time next is heard."""
        self._is_told = False

    def _told(self, utc_ms: int, heard_ms: EpochMs, by: str) -> TellTime:
        self._is_told = True
        return TellTime("time", EpochMs(utc_ms), heard_ms, by)

    # Asking.

    def ask(self, real_ms: int) -> str:
        """A new question to the hub, to be sent now; empty when the time is known."""
        if self._undated is None:
            return ""
        self._questions += 1
        self._asked_real_ms = real_ms
        return self._question

    @property
    def asks_at(self) -> int | None:
        """When the hub is to be asked again, in real time; None when it was not asked or need not be."""
        if self._undated is None or self._asked_real_ms is None:
            return None
        return self._asked_real_ms + ASKS_EVERY_MS

    @property
    def _question(self) -> str:
        return f"{self._life}/{self._questions}"

    def _asked_ago_ms(self, question: str, real_ms: int) -> int | None:
        """How long ago the hub was asked this; None when it was asked something else, or the answer took too long."""
        if self._undated is None or self._asked_real_ms is None or question != self._question:
            return None
        passed_ms = real_ms - self._asked_real_ms
        return passed_ms if passed_ms <= ASKS_EVERY_MS else None
