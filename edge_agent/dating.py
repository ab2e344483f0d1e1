"""Date again what was written while the time was not known.

A machine without a battery clock goes on from the last instant it remembers, by its monotonic clock. Once the time is
found, every instant it wrote since then moves by one shift; what was written before keeps its date. A life that ended
undated and the next one move together: how long the machine was off between them nobody knows.
"""

from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared import wire
from shared.ledger import Decision
from shared.messages import Decided, Estimate, EstimatesMoved, Message, Numbered, Resequenced, Visited
from shared.quantities import EpochMs
from shared.work import Visit

S = TypeVar("S", bound=msgspec.Struct)


class Undated(msgspec.Struct, frozen=True):
    """Since when, on the provisional clock, nothing written is rightly dated; events and objects numbered from these
    on wait for the time.
    """

    since_ms: EpochMs
    events_from: int
    objects_from: int


class Dating:
    """Moves instants from `since_ms` on by `shift_ms`, and follows the chain of decisions through the change."""

    def __init__(self, since_ms: int, shift_ms: int) -> None:
        self.since_ms = since_ms
        self.shift_ms = shift_ms
        self.links: dict[str, str] = {}
        """What each record changed so far was called, and is called now."""

    def at(self, instant_ms: int) -> EpochMs:
        """One instant."""
        return EpochMs(instant_ms + self.shift_ms if instant_ms >= self.since_ms else instant_ms)

    def all_at(self, instants_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Many, int64 [n]."""
        return np.where(instants_ms >= self.since_ms, instants_ms + self.shift_ms, instants_ms)

    def of(self, struct: S, *names: str) -> S:
        """A value whose instants are in these fields; None stays None."""
        told = {name: getattr(struct, name) for name in names}
        return msgspec.structs.replace(struct, **{n: self.at(ms) for n, ms in told.items() if ms is not None})

    def visit(self, visit: Visit) -> Visit:
        """A visit and its proof."""
        return msgspec.structs.replace(self.of(visit, "arrived_ms", "left_ms"), proof=self.of(visit.proof, "at_ms"))

    def link(self, link: str) -> str:
        """What the record of this link is called now."""
        return self.links.get(link, link)

    def payload(self, payload: bytes) -> bytes:
        """A numbered message as bytes. To be asked in the order of the stream, for the chain's sake."""
        numbered = wire.decode_numbered(payload)
        redated = self.numbered(numbered)
        return payload if redated is numbered else wire.encode(redated)

    def numbered(self, numbered: Numbered) -> Numbered:
        """A numbered message; the very same one when it was said before the clock was lost."""
        if numbered.said_ms < self.since_ms:
            return numbered
        return msgspec.structs.replace(
            numbered, said_ms=self.at(numbered.said_ms), message=self._message(numbered.message)
        )

    def _message(self, said: Message) -> Message:
        match said:
            case Visited():
                return msgspec.structs.replace(said, visit=self.visit(said.visit))
            case EstimatesMoved():
                return msgspec.structs.replace(said, estimates=self._estimates(said.estimates))
            case Resequenced():
                return msgspec.structs.replace(
                    said, decision=self._decision(said.decision), estimates=self._estimates(said.estimates)
                )
            case Decided():
                return msgspec.structs.replace(said, decision=self._decision(said.decision))
        return said

    def _estimates(self, estimates: tuple[Estimate, ...]) -> tuple[Estimate, ...]:
        return tuple(self.of(estimate, "p10_ms", "p50_ms", "p90_ms") for estimate in estimates)

    def _decision(self, decision: Decision) -> Decision:
        """The record under its right date and behind the record that is now before it."""
        redated = msgspec.structs.replace(
            decision, at_ms=self.at(decision.at_ms), previous=self.link(decision.previous)
        )
        self.links[decision.link()] = redated.link()
        return redated
