"""Keep what cannot be acted upon, whole and with its reason, until a person has looked at it.

A poison message must not stall its stream: it is kept here and acknowledged. Its bytes lie apart from what the list
says of it, and go, like all that may be personal, with whoever they speak of or by their age.
"""

from collections.abc import Mapping

import msgspec

from cloud_hub.chains import Chains, Hand
from cloud_hub.events import Answer, LetterSettled
from cloud_hub.fleet import DeadLetter, DeadPayload
from cloud_hub.memory import Memory
from shared.ledger import Decision
from shared.messages import (
    AmendmentTaken,
    Decided,
    DiskTight,
    Message,
    Numbered,
    ObjectPart,
    OverrideExplained,
    PictureGivenUp,
    PlanRefused,
    Visited,
)
from shared.quantities import EpochMs
from shared.steps import Now
from shared.streams import Placed

EXCERPT = 4_096
"""Bytes of a payload that the list shows."""

BROKE_OFTEN = 2
"""A message on which the process broke so often is not acted upon a third time: it would never live again."""

LASTING = (
    Visited, Decided, OverrideExplained, ObjectPart, PlanRefused, AmendmentTaken, DiskTight, PictureGivenUp,
)  # fmt: skip
"""What stays true. Everything else says how things stood when it was said, and is of no use once newer was said."""


class Letters:
    """Messages that were taken off their stream and came to nothing."""

    def __init__(self, memory: Memory, chains: Chains, suspects: Mapping[str, bytes]) -> None:
        """`suspects` says how often the process broke while a message was acted upon, by the message's key."""
        self._memory = memory
        self._chains = chains
        self._broke = {key: int(times) for key, times in suspects.items()}
        self._looked_at: dict[str, str] = {}
        self.under_way: tuple[str, int] | None = None
        """The message that is acted upon now, and how often the process broke on it if it breaks now."""

    def bury(self, placed: Placed, payload: bytes, why: str, now: Now) -> None:
        """Keep this message; an empty payload when its bytes must not be kept."""
        self._memory.counts["dead_letters"] += 1
        said = payload[:EXCERPT].decode(errors="replace")
        letter = DeadLetter(
            placed.sender, placed.boot, placed.stream, placed.seq, now.domain_ms, why, said, len(payload)
        )  # fmt: skip
        self._memory.note("dead_letters", key_of(letter), letter)
        if payload:
            self._memory.note("dead_payloads", key_of(letter), DeadPayload(now.domain_ms, payload))

    def begin(self, placed: Placed) -> str:
        """This message is about to be acted upon: why it must not be, in words; "" when it may."""
        key = key_of(placed)
        times = self._broke.pop(key, 0)
        self.under_way = (key, times + 1)
        return f"the hub broke {times} times while it acted upon it" if times >= BROKE_OFTEN else ""

    def end(self) -> None:
        """The message has been acted upon, or put aside, and nothing broke."""
        assert self.under_way is not None, "ended before it began"
        key, times = self.under_way
        self.under_way = None
        if times > 1:
            self._memory.forget("suspects", key)

    def why_not(self, key: str, letter: DeadLetter) -> str:
        """Why nothing can be made of this letter any more, in words; "" when something can."""
        state = self._looked_at.get(key, letter.state)
        return "" if state == "waiting" else f"the letter was {state} before: each is looked at once"

    def retried(self, letter: DeadLetter, by: str, sentence: str, now: Now) -> Answer:
        """The letter was acted upon: it is news of the hub's own, under the hub's own number."""
        return self._look(letter, "retried", by, sentence, now)

    def settled(self, event: LetterSettled, now: Now) -> Answer:
        """A person has looked at it, and nothing more is to come of it."""
        why_not = self.why_not(event.key, event.letter)
        if why_not:
            return Answer(False, why_not)
        return self._look(event.letter, "settled", event.by, "looked at a dead letter of", now)

    def _look(self, letter: DeadLetter, state: str, by: str, did: str, now: Now) -> Answer:
        self._looked_at[key_of(letter)] = state
        decision = self._decide(letter, state, by, did, now)
        looked = msgspec.structs.replace(
            letter, state=state, looked_ms=now.domain_ms, decision_id=decision.decision_id
        )  # fmt: skip
        self._memory.note("dead_letters", key_of(letter), looked)
        self._memory.counts[f"dead_letters_{state}"] += 1
        return Answer(True, named=(decision.decision_id,))

    def _decide(self, letter: DeadLetter, state: str, by: str, did: str, now: Now) -> Decision:
        person = self._chains.person(by)
        return self._chains.decide(
            now,
            f"dead_letter_{state}",
            f"{person} {did} {letter.sender}, number {letter.seq} of its stream '{letter.stream}'.",
            f"{person} asked",
            verdict="a person's word",
            hand=Hand(by),
            about=(letter.sender,),
        )


def key_of(placed: Placed) -> str:
    """The key under which a message of this place lies when it is dead."""
    return f"{placed.sender}/{placed.boot}/{placed.stream}/{placed.seq:012d}"


def why_outdated(numbered: Numbered, last_said_ms: EpochMs) -> str:
    """Why this message is of no use any more when its sender has said other things up to an instant; "" when it is."""
    message: Message = numbered.message
    if isinstance(message, LASTING) or numbered.said_ms >= last_said_ms:
        return ""
    return (
        f"{type(message).__name__} says how things stood then, and {numbered.sender} has said newer things since: "
        "settle it"
    )
