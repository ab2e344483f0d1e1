"""Answer what is said on the page once: the same key with the same words gets the same answer."""

from collections.abc import Mapping

import msgspec

from edge_agent.dating import Dating
from edge_agent.dialogue import Asked, ObjectSaid, Reply, ScanSaid, SessionSaid
from edge_agent.memory import Answered
from shared.quantities import EpochMs
from shared.steps import Row

ROOM = "answered"
KEPT_MS = 64_800_000
"""Idempotency keys are remembered for 18 hours: a working day and the way home."""

REPEATABLE = (SessionSaid, ScanSaid, ObjectSaid)
"""What may be said twice without harm is not remembered: it names codes, parcels and pictures."""


class Answers:
    """The answers given, by idempotency key."""

    def __init__(self, saved: Mapping[str, bytes]) -> None:
        """From the rows of its room."""
        self._given = {key: msgspec.json.decode(value, type=Answered) for key, value in sorted(saved.items())}

    @property
    def given(self) -> Mapping[str, Answered]:
        """Everything remembered."""
        return self._given

    def before(self, asked: Asked) -> Reply | None:
        """The answer when this key was used before; None when it is new."""
        known = self._given.get(asked.key)
        if known is None or isinstance(asked.said, REPEATABLE):
            return None
        if known.fingerprint == asked.fingerprint():
            return known.reply
        return Reply(422, "Key used before", f"idempotency key '{asked.key}' was used for something else")

    def remember(self, asked: Asked, reply: Reply, now_ms: EpochMs) -> list[Row]:
        """Keep an answer if something was done; the rows, with those that forget old ones.

        What was refused has changed nothing, and may be right the next time.
        """
        if reply.status >= 300 or isinstance(asked.said, REPEATABLE):
            return []
        old = [key for key, answered in self._given.items() if answered.at_ms < now_ms - KEPT_MS]
        for key in old:
            del self._given[key]
        answered = Answered(now_ms, asked.fingerprint(), reply)
        self._given[asked.key] = answered
        return [*(Row(ROOM, key, None) for key in old), Row(ROOM, asked.key, msgspec.json.encode(answered))]

    def redate(self, dating: Dating) -> list[Row]:
        """The time was found: answers given on the unknown clock were given then."""
        rows = []
        for key, answered in self._given.items():
            redated = dating.of(answered, "at_ms")
            if redated != answered:
                self._given[key] = redated
                rows.append(Row(ROOM, key, msgspec.json.encode(redated)))
        return rows
