"""The hub's end of every stream: commands to agents until they acknowledge them, their messages each taken once."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from cloud_hub.events import Acked, HubHeard, PresenceHeard, Unreadable
from cloud_hub.memory import Memory, Self
from shared import topics, wire
from shared.messages import (
    HubCommand,
    Numbered,
    PlanPushed,
    Presence,
    RoadsChanged,
    TimeTold,
    WorkAmended,
)
from shared.quantities import EpochMs
from shared.steps import Envelope, LinkDown, LinkUp, Now, Row, Saved
from shared.streams import Receiver, Sender, Take
from shared.work import AgentId

HUB = topics.HUB

HEARD = ("events", "objects")
"""The streams of agents that are taken in order; pictures have one of their own, so that no event waits for them."""


class Taken(NamedTuple):
    """How far one stream was taken: which life of its sender's store, "" for none yet, and up to which number."""

    boot: str
    upto: int


def restored(itself: bytes, epoch_at_least: int) -> bytes:
    """What a restored store says of the hub itself (the document `self` of the room `hub`).

    Commands of the life it was copied from may be anywhere, and so may higher epochs: give an epoch that is certainly
    higher than any before, such as the seconds since 1970.
    """
    known = msgspec.json.decode(itself, type=Self)
    return msgspec.json.encode(Self(known.boot, max(known.epoch + 1, epoch_at_least), is_restored=True))


class Post:
    """What is said to each agent and heard from it. Its first act in a life is to raise the hub's epoch."""

    def __init__(self, region: str, life: str, new_boot: str, memory: Memory, saved: Saved) -> None:
        """`life` names this life of the process, `new_boot` the life of the store if this is its first start."""
        self._region = region
        self._life = life
        self._memory = memory
        self.was_restored = self._raise_epoch(new_boot)
        """Whether this is the first life since the store was restored from a backup."""
        if self.was_restored:
            saved = self._numbered_anew(saved)
        awake_rows = self._said_under_this_epoch(saved)
        memory.keep(awake_rows)
        outbox = {**saved.get("outbox", {}), **{row.key: row.value for row in awake_rows if row.value is not None}}
        self._senders = {
            record.agent: Sender(record.agent, self.boot, "commands", outbox, saved.get("counters", {}))
            for record in memory.agents.values()
        }
        self._receiver = Receiver(saved.get("taken", {}))
        self._to_ack: dict[tuple[AgentId, str], None] = {}
        self._greetings: list[Envelope] = []
        self._link_is_up = False

    @property
    def boot(self) -> str:
        """The life of the store."""
        return self._memory.itself["self"].boot

    @property
    def epoch(self) -> int:
        """How often the hub has started with this store; commands of a lower epoch are refused by agents."""
        return self._memory.itself["self"].epoch

    @property
    def life(self) -> str:
        """This life of the process."""
        return self._life

    def presence(self, is_there: bool) -> Envelope:
        """What the hub says of itself: retained, and its last will when it is not there."""
        said = Presence(HUB, is_there, self._life, self.boot, self.epoch)
        return Envelope(topics.hub_presence(self._region), wire.encode(said), 1, is_retained=True)

    # What is said.

    def open(self, agent: AgentId) -> None:
        """Begin a stream of commands to an agent that was unknown until now."""
        self._senders[agent] = Sender(agent, self.boot, "commands", {}, {})

    def say(self, agent: AgentId, command: HubCommand, now: Now) -> None:
        """Have this command committed, and sent until the agent has committed it too."""
        sender = self._senders[agent]
        start_by_ms, after = self._start_by_ms(agent, command), sender.unacked - 1

        def numbered(seq: int) -> bytes:
            heading = Numbered(
                HUB, self.boot, "commands", seq, now.domain_ms, self.epoch, command, start_by_ms, after
            )  # fmt: skip
            return wire.encode(heading)

        self._memory.keep(sender.say(numbered))

    def _start_by_ms(self, agent: AgentId, command: HubCommand) -> EpochMs | None:
        """Until when this command is any good; None for ever. Work is over with the shift it is for. What a customer
        was told stays true, and what must be forgotten must be forgotten, however late it is heard.
        """
        if isinstance(command, PlanPushed):
            return command.start_by_ms
        plan = self._memory.plans.get(agent)
        is_work = isinstance(command, RoadsChanged | WorkAmended)
        return plan.shift_end_ms if plan is not None and is_work else None

    def unsay(self, renew: Callable[[HubCommand], HubCommand]) -> None:
        """Have every command that still waits say what `renew` makes of it, under its own number."""

        def rewritten(payload: bytes) -> bytes:
            numbered = wire.decode_numbered(payload)
            command = renew(numbered.message)  # type: ignore[arg-type]  # The hub's own streams hold commands alone.
            if command is numbered.message:
                return payload
            return wire.encode(msgspec.structs.replace(numbered, message=command))

        for sender in self._senders.values():
            self._memory.keep(sender.rewrite(rewritten))

    def backlog(self, agent: AgentId) -> int:
        """How many commands wait for this agent's acknowledgement."""
        return self._senders[agent].backlog

    def backlogs(self) -> dict[str, int]:
        """How many commands wait for each agent's acknowledgement. From any thread."""
        return {agent: sender.backlog for agent, sender in list(self._senders.items())}

    def due(self, real_ms: int) -> list[Envelope]:
        """Commands to send or repeat now, while the broker is within reach."""
        if not self._link_is_up:
            return []
        return [
            Envelope(topics.down(self._region, agent, "commands"), payload, is_signed=True)
            for agent, sender in self._senders.items()
            for payload in sender.due(real_ms)
        ]

    def due_at_ms(self, real_ms: int) -> int | None:
        """When a command is next to be sent or repeated; None for never."""
        if not self._link_is_up:
            return None
        moments = (sender.due_at(real_ms) for sender in self._senders.values())
        return min((moment for moment in moments if moment is not None), default=None)

    # What is heard.

    def is_news(self, placed: Numbered | Unreadable) -> bool:
        """Whether this message is to be acted on now; whatever has been taken is acknowledged after the commit."""
        if placed.sender not in self._memory.agents:
            self._memory.counts["refused.AgentUnknown"] += 1
            return False
        if placed.stream not in HEARD:
            self._memory.counts["refused.StreamUnknown"] += 1
            return False
        taken, rows = self._receiver.take(placed)
        self._memory.counts[f"taken.{taken.value}"] += 1
        self._memory.keep(rows)
        if taken is not Take.RETIRED:
            self._to_ack[placed.sender, placed.stream] = None
        return taken is Take.NEW

    def taken(self, agent: AgentId, stream: str) -> Taken:
        """What has been taken of an agent's stream."""
        ack = self._receiver.ack(agent, stream)
        return Taken("", 0) if ack is None else Taken(ack.boot, ack.upto)

    def resume(self, agent: AgentId, boot: str, stream: str, unacked: int) -> int:
        """The agent keeps nothing of this stream before the number `unacked`: how many messages are missing for good.
        From then on the stream goes on behind them.
        """
        missing, rows = self._receiver.resume(agent, boot, stream, unacked)
        self._memory.keep(rows)
        return missing

    def is_retired(self, agent: AgentId, boot: str) -> bool:
        """Whether a newer store has replaced this one of the agent's."""
        return any(self._receiver.has_retired(agent, stream, boot) for stream in HEARD)

    def leaving(self) -> list[Envelope]:
        """What may leave once this step is committed: our presence on a new link, and acknowledgements of everything
        taken since this was last asked.
        """
        leaving, self._greetings = self._greetings, []
        to_ack, self._to_ack = self._to_ack, {}
        for agent, stream in to_ack:
            ack = self._receiver.ack(agent, stream)
            if ack is not None:
                topic = topics.down(self._region, agent, "acks")
                leaving.append(Envelope(topic, wire.encode(ack), topics.QOS["acks"]))
        return leaving

    # The link.

    def link_came(self, _: LinkUp, __: Now) -> None:
        """The hub says that it is there, and everything unacknowledged is due at once."""
        self._link_is_up = True
        self._greetings.append(self.presence(True))
        for sender in self._senders.values():
            sender.repeat_all()

    def link_went(self, _: LinkDown, __: Now) -> None:
        """Nothing is sent until the link comes back."""
        self._link_is_up = False

    def hub_heard(self, event: HubHeard, _: Now) -> None:
        """What the broker keeps of us was said by another: a hub that acted before, or its last will. Say it again.

        One that began after us is right; we learn from the store that we act no more.
        """
        said = event.presence
        if self._link_is_up and said.life != self._life and said.epoch <= self.epoch:
            self._memory.counts["presence_put_right"] += 1
            self._greetings.append(self.presence(True))

    def acked(self, event: Acked, _: Now) -> None:
        """An agent has committed commands: forget them."""
        sender = self._senders.get(event.agent)
        if sender is None:
            self._memory.counts["refused.AgentUnknown"] += 1
            return
        self._memory.keep(sender.acked(event.ack))

    def presence_heard(self, event: PresenceHeard, now: Now) -> None:
        """An agent is there or not; one that has come back hears at once what it missed."""
        record = self._memory.agents.get(event.agent)
        if record is None:
            self._memory.counts["refused.AgentUnknown"] += 1
            return
        presence = event.presence
        if not presence.is_there and presence.life != record.life:
            return  # The will of a process that another has already replaced.
        if presence.is_there and (presence.life != record.life or not record.is_there):
            self._renew_after(event.agent)
            self._senders[event.agent].repeat_all()
        if presence.is_there and presence.asks_time:
            self._tell_time(event.agent, TimeTold(presence.asks_time, now.domain_ms), now)
        self._memory.change_agent(record, is_there=presence.is_there, life=presence.life)

    def _tell_time(self, agent: AgentId, told: TimeTold, now: Now) -> None:
        """Answer an agent that asks for the time. An answer is of use for seconds: one that still waits becomes this
        one, or a bad link would gather answers faster than it carries them.
        """
        is_waiting = False

        def renewed(payload: bytes) -> bytes:
            nonlocal is_waiting
            numbered = wire.decode_numbered(payload)
            if not isinstance(numbered.message, TimeTold):
                return payload
            is_waiting = True
            return wire.encode(msgspec.structs.replace(numbered, message=told))

        self._memory.keep(self._senders[agent].rewrite(renewed))
        if is_waiting:
            self._senders[agent].repeat_all()
        else:
            self.say(agent, told, now)

    def _renew_after(self, agent: AgentId) -> None:
        """An agent whose store is new has none of the commands the former one took, and must not wait for them."""
        sender = self._senders[agent]

        def renewed(payload: bytes) -> bytes:
            return _after(payload, sender.unacked - 1)

        self._memory.keep(sender.rewrite(renewed))

    # Recovering.

    def _raise_epoch(self, new_boot: str) -> bool:
        """Begin a new epoch; whether the store was restored from a backup, which begins a new life of it."""
        former = self._memory.itself.get("self")
        is_restored = former is not None and former.is_restored
        boot = new_boot if former is None or is_restored else former.boot
        self._memory.itself.put("self", Self(boot, 1 if former is None else former.epoch + 1))
        return is_restored

    def _numbered_anew(self, saved: Saved) -> Saved:
        """What still waits in the outbox of a store that was restored, numbered from 1 under its new life: agents may
        have heard other commands under these numbers, and under those that follow.
        """
        outbox: dict[str, bytes] = {}
        counters = dict.fromkeys(saved.get("counters", {}), b"1")
        for key, payload in sorted(saved.get("outbox", {}).items()):
            room = key[: key.rindex("/") + 1]
            seq = int(counters.get(room, b"1"))
            renewed = msgspec.structs.replace(wire.decode_numbered(payload), boot=self.boot, seq=seq, after=0)
            outbox[f"{room}{seq:012d}"] = wire.encode(renewed)
            counters[room] = b"%d" % (seq + 1)
        self._memory.keep(Row("outbox", key, None) for key in saved.get("outbox", {}))
        self._memory.keep(Row("outbox", key, payload) for key, payload in outbox.items())
        self._memory.keep(Row("counters", room, number) for room, number in counters.items())
        return {**saved, "outbox": outbox, "counters": counters}

    def _said_under_this_epoch(self, saved: Saved) -> list[Row]:
        """What still waits in the outbox, under the new epoch: a lower one is refused. A store that was restored has a
        new boot too, under which agents have taken nothing.
        """
        first: dict[str, int] = {}
        rows = []
        for key, payload in sorted(saved.get("outbox", {}).items()):
            numbered = wire.decode_numbered(payload)
            after = first.setdefault(key.rpartition("/")[0], numbered.seq) - 1
            renewed = msgspec.structs.replace(numbered, boot=self.boot, epoch=self.epoch, after=after)
            rows.append(Row("outbox", key, wire.encode(renewed)))
        return rows


def _after(payload: bytes, after: int) -> bytes:
    numbered = wire.decode_numbered(payload)
    if numbered.after == after:
        return payload
    return wire.encode(msgspec.structs.replace(numbered, after=after))
