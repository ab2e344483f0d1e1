"""Find what we lack of a stream and will never hear, put it on record, and let the stream go on.

A sender forgets only what its receiver has committed. So something can be missing for good in two cases: we were
restored from an older copy of our own store, and the sender says from which number on it still keeps what it said
(`Presence.unacked`); or the sender's store began a new life, and whatever the old one had not told us is gone with it.
"""

from collections.abc import Iterable

from cloud_hub.attempts import Attempts
from cloud_hub.chains import Chains
from cloud_hub.events import LedgerFound, LedgerWanted, PresenceHeard, Unreadable
from cloud_hub.fleet import Gap
from cloud_hub.memory import Memory
from cloud_hub.post import HEARD, Post
from shared.messages import Numbered
from shared.steps import JobFailed, Now
from shared.work import AgentId

RESTORED = "the hub was restored from an older copy of its store"
REPLACED = "its store was replaced"


MOST_LEDGERS = 4
"""Lives of one agent's store whose ledgers are looked into after a restore: it has one, and had perhaps another."""


class Gaps:
    """What of each agent's streams is missing for good."""

    def __init__(self, memory: Memory, chains: Chains, post: Post, attempts: Attempts) -> None:
        self._memory = memory
        self._attempts = attempts
        self._chains = chains
        self._post = post
        self._returned: dict[tuple[AgentId, str], None] = {}
        self._ledgers: dict[str, LedgerWanted | None] = {}

    def presence_heard(self, event: PresenceHeard, now: Now) -> None:
        """An agent says what it still keeps: what lies before that and is not here is missing."""
        said = event.presence
        if event.agent not in self._memory.agents or not said.is_there or not said.boot:
            return
        for stream in HEARD:
            unacked = said.unacked.get(stream)
            if unacked is None:
                continue
            taken = self._post.taken(event.agent, stream)
            missing = self._post.resume(event.agent, said.boot, stream, unacked)
            if taken.boot != said.boot and self._post.taken(event.agent, stream).boot == said.boot and taken.boot:
                self._replaced(event.agent, stream, taken.boot, taken.upto, said.boot, now)
            if missing:
                self._keep_run(Gap(
                    event.agent, said.boot, stream, unacked - missing, unacked - 1, now.domain_ms, RESTORED, ""
                ), f"{event.agent} keeps what it said in '{stream}' from number {unacked} on", now)  # fmt: skip
        unacked = said.unacked.get("telemetry", 1)
        is_one_more = sum(need.startswith(f"ledger/{event.agent}/") for need in self._ledgers) < MOST_LEDGERS
        if self._post.was_restored and unacked > 1 and is_one_more:
            wanted = LedgerWanted(f"ledger/{event.agent}/{said.boot}", event.agent, said.boot, unacked)
            self._ledgers.setdefault(wanted.need, wanted)
        if self._post.is_retired(event.agent, said.boot):
            self._came_back(event.agent, said.boot, now)

    def jobs(self, now: Now) -> Iterable[LedgerWanted]:
        """Ledgers of telemetry to look into now: after a restore, once for each agent."""
        wanted = [one for one in self._ledgers.values() if one is not None]
        return [one for one in wanted if self._attempts.may_begin(one.need, now.real_ms)]

    def ledger_found(self, event: LedgerFound, now: Now) -> None:
        """What a restored ledger lacks and the agent has let go of is missing; batches have no order, so it holds up
        none.
        """
        wanted = event.wanted
        if self._ledgers.get(wanted.need) != wanted:
            return
        self._attempts.settle(wanted.need)
        self._ledgers[wanted.need] = None
        # Counted and not listed: an agent may say any number.
        known = {seq for seq in event.beyond if event.upto < seq < wanted.unacked}
        missing = wanted.unacked - 1 - event.upto - len(known)
        if missing > 0:
            first, last = event.upto + 1, wanted.unacked - 1
            while first in known:
                first += 1
            while last in known:
                last -= 1
            self._keep(
                Gap(wanted.agent, wanted.boot, "telemetry", first, last, now.domain_ms, RESTORED, ""),
                missing,
                f"{wanted.agent} keeps its telemetry from batch {wanted.unacked} on",
                now,
            )  # fmt: skip

    def job_failed(self, event: JobFailed, now: Now) -> None:
        """The ledger could not be read; again later."""
        self._attempts.fail(event.job.need, now.real_ms)

    def begun_anew(self, placed: Numbered | Unreadable, former: tuple[str, int], now: Now) -> None:
        """This message is the first of a new life of its sender's store; `former` is the old life's name and the last
        number taken of it.
        """
        self._replaced(placed.sender, placed.stream, *former, placed.boot, now)

    def _replaced(self, agent: AgentId, stream: str, boot: str, upto: int, follows: str, now: Now) -> None:
        gap = Gap(agent, boot, stream, upto + 1, None, now.domain_ms, REPLACED, "")
        decision_id = ""
        if stream == "events":
            decision_id = self._chains.decide(
                now,
                "store_replaced",
                f"{agent} began a new life of its store: what the old one had not yet told us is lost.",
                f"boot {follows} followed {boot}, of which {upto} events were taken",
                about=(agent,),
            ).decision_id
        self._note(gap, decision_id)

    def _keep_run(self, gap: Gap, cause: str, now: Now) -> None:
        """Every number of the gap is missing."""
        assert gap.last_seq is not None
        self._keep(gap, gap.last_seq - gap.first_seq + 1, cause, now)

    def _keep(self, gap: Gap, count: int, cause: str, now: Now) -> None:
        """The gap is final: say so once, to whoever has to look what happened meanwhile."""
        decision = self._chains.decide(
            now,
            "gap_found",
            f"{count} messages of {gap.sender} are missing for good: {gap.first_seq} to {gap.last_seq} of its stream "
            f"'{gap.stream}'. {gap.why[0].upper()}{gap.why[1:]}.",
            cause,
            about=(gap.sender,),
            verdict="the stream goes on behind the gap; a person should ask the driver what is missing",
        )
        self._memory.counts["gap_messages"] += count
        self._note(gap, decision.decision_id)

    def _came_back(self, agent: AgentId, boot: str, now: Now) -> None:
        """A store that a newer one has replaced speaks again. Nothing of it is taken; said once, it waits for ever."""
        if (agent, boot) in self._returned:
            return
        self._returned[agent, boot] = None
        self._chains.decide(
            now,
            "retired_store_back",
            f"{agent} speaks from a store that was replaced: nothing it says is taken. Its disk was restored from a "
            "copy, or two devices bear its name.",
            f"boot {boot} has been retired",
            about=(agent,),
            verdict="refused; a person should give the device a new store, or a name of its own",
        )
        self._memory.counts["retired_stores_back"] += 1

    def _note(self, gap: Gap, decision_id: str) -> None:
        self._memory.counts["gaps"] += 1
        kept = Gap(
            gap.sender, gap.boot, gap.stream, gap.first_seq, gap.last_seq, gap.found_ms, gap.why, decision_id
        )  # fmt: skip
        self._memory.note("gaps", f"{gap.sender}/{gap.boot}/{gap.stream}/{gap.first_seq:012d}", kept)
