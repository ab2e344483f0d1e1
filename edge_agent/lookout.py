"""Decide when to look ahead, and keep the last look.

A look is due when something has happened, when progress deviates from what was told, or when a minute has passed. The
day has a version here: the answer to a question about another version is the answer to a question no longer asked.
"""

from edge_agent.assignment import Assignment
from edge_agent.foresight import Outlook, deviates, look, without_done
from edge_agent.memory import Day, Learned
from edge_agent.outlook import Bearing, Predict, Predicted
from edge_agent.sensing import Belief
from shared.work import StopId

FORESEE_EVERY_MS = 60_000
"""A prediction costs a few milliseconds of a small processor; once a minute is seldom enough and follows any delay."""
FORESEE_BEFORE_MS = 1_800_000
"""Before departure there is nothing to learn from looking more than half an hour ahead."""
DEVIATION_AT_MOST_EVERY_MS = 15_000


class Lookout:
    """When one agent looks ahead. A restart looks again."""

    def __init__(self) -> None:
        self.outlook: Outlook | None = None
        """The last look, for the order shown now; None before the first."""
        self.version = 0
        """How often the day has become another."""
        self._looks_because = "started"
        self._question: tuple[Predict, int] | None = None
        self._questions = 0
        self._looked_at_ms = 0

    def move_on(self, because: str, shown: tuple[StopId, ...]) -> None:
        """The day is another than before, in words why: a new look is due, of the stops still to come."""
        self.version += 1
        self._looks_because = because
        if self.outlook is not None:
            self.outlook = without_done(self.outlook, shown)

    def see(self, outlook: Outlook) -> None:
        """The order is another, and this is what lies ahead of it: no new look is due."""
        self.version += 1
        self.outlook = outlook

    def begin_anew(self) -> None:
        """Nothing seen so far holds any more: the clock was another."""
        self.outlook, self._question, self._looked_at_ms = None, None, 0

    def is_due(self, work: Assignment, day: Day, belief: Belief | None, now_ms: int) -> bool:
        """Whether to look now."""
        if self._is_asking:
            return False
        if self._looks_because:
            return True
        if day.shift == "waiting" and now_ms < work.plan.depart_ms - FORESEE_BEFORE_MS:
            return False
        since_ms = now_ms - self._looked_at_ms
        if since_ms >= FORESEE_EVERY_MS:
            return True
        if self.outlook is None or since_ms < DEVIATION_AT_MOST_EVERY_MS:
            return False
        return deviates(self.outlook, day, work, belief, now_ms)

    def due_ms(self, work: Assignment | None, day: Day, now_ms: int) -> int | None:
        """When the next look is due if nothing happens, in domain time; None when none will be."""
        if work is None or not day.shown or day.shift == "ended" or self._is_asking:
            return None
        starts_ms = work.plan.depart_ms - FORESEE_BEFORE_MS
        if day.shift == "waiting" and now_ms < starts_ms:
            return starts_ms
        return max(self._looked_at_ms + FORESEE_EVERY_MS, now_ms + 1)

    def ask(self, bearing: Bearing) -> Predict:
        """Want a prediction of what lies ahead of this bearing."""
        self._questions += 1
        job = Predict(f"foresee/{self._questions}", bearing)
        self._question = job, self.version
        self._looked_at_ms = bearing.now_ms
        return job

    def take(self, predicted: Predicted, learned: Learned, now_ms: int) -> Outlook | None:
        """Look by an answer; None when its question is no longer asked."""
        if self._question is None or self._question[0].need != predicted.need:
            return None
        (job, version), self._question = self._question, None
        if version != self.version:
            return None
        self._looks_because = ""
        self.outlook = look(job.bearing, job.bearing.order, predicted.foreseen, learned, now_ms)
        return self.outlook

    def fail(self, need: str) -> None:
        """A prediction has failed; the next look comes with the next minute."""
        if self._question is not None and self._question[0].need == need:
            self._question, self._looks_because = None, ""

    @property
    def _is_asking(self) -> bool:
        return self._question is not None and self._question[1] == self.version
