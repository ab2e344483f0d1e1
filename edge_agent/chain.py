"""Write an agent's decisions into its chain, and keep count of who commands it."""

from collections.abc import Mapping

import msgspec

from edge_agent.dating import Dating
from edge_agent.foresight import Outlook
from edge_agent.memory import Books, Parts, read_part
from edge_agent.outlook import Improve, Improved
from edge_agent.reordering import Verdict, decision_on, inputs_of
from edge_agent.sensing import Belief
from shared.ledger import Decision
from shared.quantities import EpochMs
from shared.work import AgentId

KEEP_AT_MOST_EVERY_MS = 900_000
"""The same rule forbidding a better order is written down once a quarter of an hour, not every minute."""


class Chain:
    """The books of one agent, which outlive every day."""

    def __init__(self, agent: AgentId, room: Mapping[str, bytes]) -> None:
        """From the room `agent` of the store."""
        self._agent = agent
        self._books = read_part(room, "books", Books) or Books()
        self._kept_at_ms: dict[str, int] = {}

    @property
    def books(self) -> Books:
        """The highest epoch heard, the last link, and how many decisions were made."""
        return self._books

    def parts(self) -> Parts:
        """What must be written down."""
        return {("agent", "books"): self._books}

    def hear(self, epoch: int) -> None:
        """A newer epoch than any heard is the one that acts from now on."""
        if epoch > self._books.epoch:
            self._books = msgspec.structs.replace(self._books, epoch=epoch)

    def has_said(self, rule: str, now_ms: int) -> bool:
        """Whether it was written down lately that this rule forbids a better order; if not, it is to be now."""
        if now_ms - self._kept_at_ms.get(rule, -KEEP_AT_MOST_EVERY_MS) < KEEP_AT_MOST_EVERY_MS:
            return True
        self._kept_at_ms[rule] = now_ms
        return False

    def redate(self, dating: Dating) -> None:
        """The time was found: the last record may be called otherwise now."""
        self._books = msgspec.structs.replace(self._books, link=dating.link(self._books.link))
        self._kept_at_ms = {rule: dating.at(at_ms) for rule, at_ms in self._kept_at_ms.items()}

    def decide(
        self,
        verdict: Verdict,
        job: Improve,
        improved: Improved,
        outlook: Outlook,
        belief: Belief | None,
        link_is_up: bool,
        now_ms: EpochMs,
    ) -> Decision:
        """Write a verdict down as the next link."""
        inputs = inputs_of(job.bearing, outlook, belief, link_is_up, now_ms)
        model = outlook.foreseen.model
        decision = decision_on(verdict, self._agent, self._books, inputs, model, job.seed, improved.iterations, now_ms)
        self._books = msgspec.structs.replace(self._books, link=decision.link(), decisions=self._books.decisions + 1)
        return decision
