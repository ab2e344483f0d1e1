"""What is promised, each promise with its checker: the docstring is the promise.

A checker watches every step of every process, so that a promise broken for a moment is seen even when the day ends
well, and looks at all disks once everything has healed.
"""

from tests.simulation.promises.carrying import (
    AnswersOnce,
    CommandsOnce,
    EventsOnceInOrder,
    NoLetterWithoutReason,
    OldAnswersUnused,
    SamplesAddUp,
)
from tests.simulation.promises.processes import (
    AckAfterCommit,
    CommitBeforeSpeak,
    Converges,
    MemoryEqualsDisk,
    NobodySpins,
    NothingUndated,
    OneHubActs,
    PresenceTrue,
)
from tests.simulation.promises.promise import Broken, Facts, Promise
from tests.simulation.promises.waiting import ForgottenNowhere, NoticesOncePerId, ToldInsideSlot
from tests.simulation.promises.working import DecisionsHold, HeadStays, RoadsKnown, SamePlan, VisitsOnce

ALL: tuple[type[Promise], ...] = (
    OneHubActs, NothingUndated, CommitBeforeSpeak, AckAfterCommit, CommandsOnce, AnswersOnce, OldAnswersUnused,
    NobodySpins, HeadStays, ToldInsideSlot, NoticesOncePerId, EventsOnceInOrder, Converges, MemoryEqualsDisk,
    PresenceTrue, VisitsOnce, SamplesAddUp, SamePlan, DecisionsHold, ForgottenNowhere, NoLetterWithoutReason,
    RoadsKnown,
)  # fmt: skip

__all__ = ["ALL", "Broken", "Facts", "Promise"]
