"""Write down what was decided: the hub's own chain of decisions, and the chains agents report, link by link."""

import msgspec

from cloud_hub.fleet import Chain, KeptDecision
from cloud_hub.memory import Memory
from shared import topics
from shared.ledger import Alternative, Decision, Input
from shared.steps import Now
from shared.work import AgentId

HUB = topics.HUB


class Chains:
    """One chain per node; a decision is kept with the number it has in its node's chain."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        if HUB not in memory.chains:
            memory.chains.put(HUB, Chain(HUB))

    @property
    def own_count(self) -> int:
        """How many decisions the hub itself has taken in the life of its store."""
        return self._memory.chains[HUB].count

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
        approved_by: str = "within the rules",
        about: tuple[str, ...] = (),
        seed: int = 0,
        iterations: int = 0,
    ) -> Decision:
        """Add a decision to the hub's own chain."""
        chain = self._memory.chains[HUB]
        decision = Decision(
            f"hub-{chain.count + 1:06d}", HUB, kind, now.domain_ms, sentence, cause, inputs, alternatives,
            chosen, verdict, approved_by, about, "", seed, iterations, chain.link,
        )  # fmt: skip
        self._keep(chain, decision, True, now)
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
