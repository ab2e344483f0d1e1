"""Write down what was decided: the hub's own chain of decisions, and the chains agents report, link by link.

A chained record can never be changed, so it names nobody. Whoever stood behind a decision is in it as a reference made
with the hub's secret; the name and the free words lie beside it in the archive `hands`, where they can be forgotten.
"""

import hashlib
import hmac

import msgspec

from cloud_hub.fleet import Chain, KeptDecision
from cloud_hub.memory import Memory
from shared import topics
from shared.ledger import Alternative, Decision, Input
from shared.quantities import EpochMs
from shared.steps import Now
from shared.work import AgentId

HUB = topics.HUB
WITHIN_THE_RULES = "within the rules"


class Hand(msgspec.Struct, frozen=True):
    """Who stood behind a decision, and what they said in their own words ("" for nothing)."""

    name: str
    words: str = ""


class KeptHand(msgspec.Struct, frozen=True):
    """A hand as the archive keeps it: `person` is what the record calls them, `about` what the record is about."""

    person: str
    name: str
    words: str
    about: tuple[str, ...]
    at_ms: EpochMs


class Chains:
    """One chain per node; a decision is kept with the number it has in its node's chain."""

    def __init__(self, memory: Memory, secret: bytes = b"") -> None:
        """References to people are made with the `secret`; without one they can be guessed from a name."""
        self._memory = memory
        self._secret = secret
        if HUB not in memory.chains:
            memory.chains.put(HUB, Chain(HUB))

    @property
    def own_count(self) -> int:
        """How many decisions the hub itself has taken in the life of its store."""
        return self._memory.chains[HUB].count

    def person(self, name: str) -> str:
        """How records refer to this person: the same every time, and no name to who lacks the hub's secret."""
        return f"person:{hmac.new(self._secret, f'person|{name}'.encode(), hashlib.sha256).hexdigest()[:8]}"

    def decide(
        self,
        now: Now,
        kind: str,
        sentence: str,
        cause: str,
        *,
        inputs: tuple[Input, ...] = (),
        alternatives: tuple[Alternative, ...] = (),
        chosen: int = 0,
        verdict: str = "",
        approved_by: str = "",
        about: tuple[str, ...] = (),
        seed: int = 0,
        iterations: int = 0,
        hand: Hand | None = None,
    ) -> Decision:
        """Add a decision to the hub's own chain. Whoever stood behind it is named by the `hand` alone, and has
        approved it unless `approved_by` says otherwise; the sentence may say `person(name)`, which is spoken as the
        name for as long as that is kept.
        """
        person = "" if hand is None else self.person(hand.name)
        approved_by = approved_by or person or WITHIN_THE_RULES
        chain = self._memory.chains[HUB]
        decision = Decision(
            f"hub-{chain.count + 1:06d}", HUB, kind, now.domain_ms, sentence, cause, inputs, alternatives,
            chosen, verdict, approved_by, about, "", seed, iterations, chain.link,
        )  # fmt: skip
        self._keep(chain, decision, True, now)
        if hand is not None:
            kept = KeptHand(person, hand.name, hand.words, about, now.domain_ms)
            self._memory.note("hands", decision.decision_id, kept)
        return decision

    def follow(self, node: AgentId, decision: Decision, now: Now) -> None:
        """Keep an agent's decision, and say so when it does not follow from the one before it."""
        chain = self._memory.chains.get(node) or Chain(node)
        follows = decision.previous == chain.link and decision.by == node
        self._keep(chain, decision, follows, now)
        if not follows:
            self.decide(
                now,
                "chain_broken",
                f"The record of {node} is broken before {decision.decision_id}: one is missing or was changed.",
                f"{decision.decision_id} follows {decision.previous[:12]}…, expected {chain.link[:12]}…",
                about=(node, decision.decision_id),
                verdict="kept and marked; a person should look",
            )

    def _keep(self, chain: Chain, decision: Decision, follows: bool, now: Now) -> None:
        number = chain.count + 1
        self._memory.chains.put(chain.node, Chain(chain.node, number, decision.link(), chain.breaks + (not follows)))
        kept = KeptDecision(msgspec.Raw(msgspec.json.encode(decision)), chain.node, number, follows, now.domain_ms)
        self._memory.note("decisions", f"{chain.node}/{number:09d}", kept)
