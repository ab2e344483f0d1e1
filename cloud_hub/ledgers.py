"""Whether every chain of decisions in a store still holds, record by record, and which is the first that does not."""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from cloud_hub.fleet import Chain, KeptDecision
from shared.ledger import FIRST_LINK, Decision, first_broken
from shared.topics import HUB
from shared.work import AgentId

DOES_NOT_FOLLOW = "it does not follow from the one before it: that one was changed or is missing"


class ChainVerdict(msgspec.Struct, frozen=True):
    """One node's chain: how many of its records hold, and the first that does not, with what is wrong; "" when all
    hold. `lives` counts the chains a node began: more than one when its store was replaced, which is on record. `gaps`
    counts where records are missing because the hub was restored from a backup, which is on record too.
    """

    node: AgentId
    records: int
    holds: int
    lives: int = 1
    first_bad: str = ""
    wrong: str = ""
    gaps: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """What became of all chains of a store."""

    holds: bool
    chains: tuple[ChainVerdict, ...]


def verified(kept: Iterable[bytes], chains: Mapping[str, Chain]) -> Verdict:
    """Judge every record of a store, given in the order of their numbers, against `chains`, which says how far each
    node's chain was followed. So a record that was changed, one that was taken out, and an end that was cut off are
    all found. Documents nobody can read are a bad record too.

    A break is held against nobody that the hub's own chain names twice: `gap_found` of the node's messages, and
    `chain_broken` before that very record, written when it came.
    """
    walks: dict[str, _Walk] = {}
    allowed: dict[str, int] = {}
    with_gap: set[str] = set()
    broken: set[tuple[str, ...]] = set()
    for document in kept:
        record = _read(document)
        if isinstance(record, str):
            walks.setdefault("?", _Walk(AgentId("?"))).stumble(document[:60].decode(errors="replace"), record)
            continue
        walk = walks.setdefault(record.node, _Walk(record.node))
        decision = walk.step(record)
        if decision is not None and record.node == HUB and decision.kind == "store_replaced":
            allowed.update({node: allowed.get(node, 0) + 1 for node in decision.about})
        elif decision is not None and record.node == HUB and decision.kind == "gap_found":
            with_gap.update(decision.about)
        elif decision is not None and record.node == HUB and decision.kind == "chain_broken":
            broken.add(decision.about)
    for node in chains:
        walks.setdefault(node, _Walk(AgentId(node)))
    explained = {about for about in broken if about[0] in with_gap}
    found = tuple(walks[node].verdict(chains.get(node), allowed.get(node, 0), explained) for node in sorted(walks))
    return Verdict(all(not chain.wrong for chain in found), found)


class _Walk:
    """One node's chain, followed record by record."""

    def __init__(self, node: AgentId) -> None:
        self._node = node
        self._link = FIRST_LINK
        self._records = 0
        self._holds = 0
        self._lives = 1
        self._first_bad = ""
        self._wrong = ""
        self._breaks: list[tuple[str, int]] = []

    def step(self, record: KeptDecision) -> Decision | None:
        """Judge the next record; None when it cannot be read."""
        self._records += 1
        try:
            decision = _decision.decode(record.decision)
        except msgspec.DecodeError as wrong:
            self.stumble(f"record {record.number}", f"it cannot be read: {wrong}", is_counted=True)
            return None
        named = decision.decision_id or f"record {record.number}"
        if decision.previous == FIRST_LINK != self._link and self._node != HUB:
            self._lives += 1
            self._link = FIRST_LINK
        if record.number != self._records:
            self.stumble(named, f"it is number {record.number}, expected {self._records}: one is missing", True)
        elif bytes(record.decision) != msgspec.json.encode(decision):
            self.stumble(named, "it holds more than a decision, or is written in another way than we write", True)
        elif first_broken((decision,), self._link) is not None:
            if not self._wrong:
                self._breaks.append((named, self._holds))
            if self._node == HUB:
                self.stumble(named, DOES_NOT_FOLLOW, True)
        if not self._wrong:
            self._holds += 1
        self._link = decision.link()
        return decision

    def stumble(self, named: str, wrong: str, is_counted: bool = False) -> None:
        """This record is bad; only the first is named."""
        self._records += not is_counted
        if not self._wrong:
            self._first_bad, self._wrong = named, wrong

    def verdict(self, chain: Chain | None, replaced: int, explained: Collection[tuple[str, ...]]) -> ChainVerdict:
        """What became of it, given how far it was followed, how often its store is known to have been replaced, and
        the breaks (node, record) that are known to be gaps.
        """
        for named, holds in self._breaks:
            if (self._node, named) not in explained:
                self._first_bad, self._wrong, self._holds = named, DOES_NOT_FOLLOW, holds
                break
        gaps = 0 if self._wrong else len(self._breaks)
        if not self._wrong and chain is not None and chain.count != self._records:
            self.stumble(f"record {self._records + 1}", f"{chain.count} were kept and {self._records} are here", True)
        elif not self._wrong and chain is not None and chain.count and chain.link != self._link:
            self.stumble(f"record {self._records}", "it is another than the one that was kept last", True)
        elif not self._wrong and chain is None and self._records:
            self.stumble("record 1", "nothing says how far this chain was followed", True)
        elif not self._wrong and self._lives > 1 + replaced:
            self.stumble("a later record", "the chain begins anew and no record says that its store was replaced", True)
        return ChainVerdict(self._node, self._records, self._holds, self._lives, self._first_bad, self._wrong, gaps)


_kept = msgspec.json.Decoder(KeptDecision)
_decision = msgspec.json.Decoder(Decision)


def _read(document: bytes) -> KeptDecision | str:
    try:
        return _kept.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        return f"it cannot be read: {wrong}"
