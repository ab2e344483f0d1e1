"""Let into the driver's page who knows the code of the shift, and make guessing it take for ever.

A phone that gave the code holds a token; here only the token's hash is kept, over restarts, until the shift is over.
"""

import msgspec

from edge_agent.dating import Dating
from edge_agent.dialogue import Entry, Reply, SessionSaid
from edge_agent.memory import Admission, Day, Parts, Session, read_part
from shared.contracts import Plan
from shared.quantities import EpochMs
from shared.steps import Now, Saved

GUESSES = 5
"""Wrong codes taken without a wait: a cold thumb errs twice."""
FIRST_WAIT_MS = 10_000
LONGEST_WAIT_MS = 3_600_000
"""Each further wrong code doubles the wait. Once it has reached an hour, half of a million codes take 57 years."""
AFTER_SHIFT_MS = 3_600_000
"""After its end the shift can still be looked at, to settle what is left."""
SHIFT_FORGOTTEN_MS = 43_200_000
"""A shift nobody ended is over half a day after its planned end."""
MOST_SESSIONS = 8
"""A phone, a handheld, and those that lost their cookie; beyond that the oldest goes."""


class Access:
    """Who is let in. Waits are counted in real time: whoever guesses does not live at the demo's speed."""

    def __init__(self, saved: Saved) -> None:
        """From everything the store held."""
        self._admission = read_part(saved.get("agent", {}), "admission", Admission) or Admission()
        self._opens_real_ms: int | None = None

    def parts(self) -> Parts:
        """What must be written down."""
        return {("agent", "admission"): self._admission}

    def entry(self, plan: Plan | None) -> Entry:
        """What the page's shell must know to let people in or not."""
        if plan is None or plan.shift_lock is None:
            return Entry()
        mine = self._admission if self._admission.day == plan.day else Admission()
        return Entry(True, tuple(session.token_digest for session in mine.sessions))

    def ask(self, said: SessionSaid, plan: Plan | None, now: Now) -> Reply:
        """Let somebody in who knows the code, or say why not."""
        if plan is None or plan.shift_lock is None:
            return Reply(200)
        self._begin(plan)
        wait_ms = self._wait_ms(now.real_ms)
        if wait_ms > 0:
            seconds = -(-wait_ms // 1000)
            return Reply(429, "TooManyCodes", f"too many wrong codes; wait {seconds} s", retry_after_s=seconds)
        if not plan.shift_lock.opens_with("".join(said.code.split())):
            self._count_wrong(now.real_ms)
            detail = "this is not the code of this shift; it is shown at the depot"
            return Reply(403, "CodeWrong", detail, retry_after_s=-(-max(0, self._wait_ms(now.real_ms)) // 1000))
        self._opens_real_ms = None
        others = tuple(session for session in self._admission.sessions if session.token_digest != said.token_digest)
        sessions = (*others, Session(said.token_digest, now.domain_ms))[-MOST_SESSIONS:]
        self._admission = Admission(plan.day, sessions)
        return Reply(200)

    def expire(self, plan: Plan | None, day: Day, now_ms: EpochMs) -> bool:
        """End what is over: sessions of another day, of a shift that has ended; True when any was ended."""
        if not self._admission.sessions or plan is None:
            return False
        kept = self._admission.sessions if self._admission.day == plan.day else ()
        kept = tuple(session for session in kept if now_ms < _ends_ms(session, plan, day))
        if kept == self._admission.sessions:
            return False
        self._admission = msgspec.structs.replace(self._admission, sessions=kept)
        return True

    def redate(self, dating: Dating) -> None:
        """The time was found: codes given on the unknown clock were given then."""
        sessions = tuple(dating.of(session, "opened_ms") for session in self._admission.sessions)
        self._admission = msgspec.structs.replace(self._admission, sessions=sessions)

    def expires_ms(self, plan: Plan | None, day: Day) -> int | None:
        """When the next session ends, in domain time; None while there is none."""
        if plan is None:
            return None
        return min((_ends_ms(session, plan, day) for session in self._admission.sessions), default=None)

    def _begin(self, plan: Plan) -> None:
        if self._admission.day != plan.day:
            self._admission = Admission(plan.day)
            self._opens_real_ms = None

    def _count_wrong(self, real_ms: int) -> None:
        wrong = self._admission.wrong_codes + 1
        self._admission = msgspec.structs.replace(self._admission, wrong_codes=wrong)
        self._opens_real_ms = real_ms + _wait_after_ms(wrong)

    def _wait_ms(self, real_ms: int) -> int:
        """How long no code is looked at. Real time begins anew with each process, so a restart begins the wait anew."""
        if self._opens_real_ms is None:
            self._opens_real_ms = real_ms + _wait_after_ms(self._admission.wrong_codes)
        return self._opens_real_ms - real_ms


def _wait_after_ms(wrong_codes: int) -> int:
    return 0 if wrong_codes < GUESSES else min(FIRST_WAIT_MS << min(wrong_codes - GUESSES, 20), LONGEST_WAIT_MS)


def _ends_ms(session: Session, plan: Plan, day: Day) -> int:
    """When a session is over; a code given after the end of the shift serves for an hour, too."""
    if day.shift != "ended" or day.ended_ms is None:
        return max(plan.shift_end_ms + SHIFT_FORGOTTEN_MS, session.opened_ms + AFTER_SHIFT_MS)
    return max(day.ended_ms, session.opened_ms) + AFTER_SHIFT_MS
