"""Keep what is said to the hub until the hub has it, and give up what is worth least when there is no room.

Three streams wait here: events, which are never given up; telemetry, numbered only when it is handed to the link, so
that until then it may be thinned; and pictures in pieces, numbered only while no event waits. docs/outbox.md tells all.
"""

from typing import Any

from edge_agent.dating import Dating, Undated
from edge_agent.proofs import Proofs
from edge_agent.sensing import Belief
from edge_agent.telemetry import Account, Collector, tombstone
from shared import topics, wire
from shared.messages import Ack, AgentEvent, Numbered, ObjectPart
from shared.quantities import EpochMs
from shared.steps import Row, Saved
from shared.streams import Sender
from shared.work import AgentId

HANDED_OVER = 8
"""Telemetry batches numbered and on their way at once; the others may still be thinned."""
PIECES_HANDED_OVER = 4
"""Pieces of pictures on their way at once: a quarter of a megabyte, which a slow link carries in some seconds."""


class Outbox:
    """What one agent has to say to its hub. Rows it gives back belong into the step's commit."""

    def __init__(self, agent: AgentId, boot: str, saved: Saved) -> None:
        """From everything the store held; `boot` names the life of the store."""
        self._agent, self._boot = agent, boot
        counters, outbox = saved.get("counters", {}), saved.get("outbox", {})
        self._events = Sender(topics.HUB, boot, "events", outbox, counters)
        self._telemetry = Sender(topics.HUB, boot, "telemetry", outbox, counters)
        self._objects = Sender(topics.HUB, boot, "objects", outbox, counters)
        self._senders = {sender.stream: sender for sender in (self._events, self._telemetry, self._objects)}
        self._collector = Collector(agent, boot, saved.get("telemetry", {}))
        self._holds_back = False

    # What is said.

    def say(self, event: AgentEvent, epoch: int, now_ms: EpochMs) -> list[Row]:
        """Number an event and keep it until the hub has it. Committed before it is sent."""

        def write(seq: int) -> bytes:
            return wire.encode(Numbered(self._agent, self._boot, "events", seq, now_ms, epoch, event))

        self._collector.mark(now_ms)
        return self._events.say(write)

    def sample(self, belief: Belief, now_ms: int) -> list[Row]:
        """Add what is believed now to the telemetry."""
        return self._collector.sample(belief, now_ms)

    def hand_over_telemetry(self) -> list[Row]:
        """Number what telemetry the link takes now; to be asked only while somebody is there to hear it."""
        found: list[Row] = []
        while not self._holds_back and self._telemetry.backlog < HANDED_OVER and self._collector.backlog:
            handed = self._collector.hand_over(self._telemetry.next_seq)
            assert handed is not None
            payload, rows = handed
            found += rows
            found += self._telemetry.say(lambda _seq, payload=payload: payload)  # type: ignore[misc]  # bound now
        return found

    def hand_over_objects(self, proofs: Proofs, epoch: int, now_ms: EpochMs) -> list[Row]:
        """Number pieces of pictures a few at a time, and only while no event waits: a picture delays nobody."""
        found: list[Row] = []
        while not self._holds_back and not self._events.backlog and self._objects.backlog < PIECES_HANDED_OVER:
            handed = proofs.next_part()
            if handed is None:
                break
            part, rows = handed
            found += rows

            def write(seq: int, part: ObjectPart = part) -> bytes:
                return wire.encode(Numbered(self._agent, self._boot, "objects", seq, now_ms, epoch, part))

            found += self._objects.say(write)
        return found

    # What is sent, and sent again.

    @property
    def unacked(self) -> dict[str, int]:
        """How far back each stream can still be said."""
        return {stream: sender.unacked for stream, sender in self._senders.items()}

    @property
    def has_said_all(self) -> bool:
        """Whether the hub has committed everything that was said but telemetry."""
        return not self._events.backlog and not self._objects.backlog

    def acked(self, ack: Ack) -> list[Row]:
        """The hub has committed what it acknowledges; it need not be kept."""
        sender = self._senders.get(ack.stream)
        return [] if sender is None else sender.acked(ack)

    def repeat_all(self) -> None:
        """Whoever was told may not have heard it: everything unacknowledged is due at once."""
        for sender in self._senders.values():
            sender.repeat_all()

    def repeat_telemetry(self) -> None:
        """Telemetry alone is due at once."""
        self._telemetry.repeat_all()

    def due(self, real_ms: int) -> list[tuple[str, bytes]]:
        """What should be sent or repeated now: stream and message."""
        return [(stream, payload) for stream, sender in self._senders.items() for payload in sender.due(real_ms)]

    def due_at(self, real_ms: int) -> int | None:
        """When something is due next, in real time; None when nothing will be."""
        waits = (sender.due_at(real_ms) for sender in self._senders.values())
        return min((at_ms for at_ms in waits if at_ms is not None), default=None)

    # Room.

    @property
    def bytes_waiting(self) -> int:
        """How much room everything takes that waits for the hub."""
        return sum(sender.bytes_waiting for sender in self._senders.values()) + self._collector.bytes_waiting

    def give_up_telemetry(self) -> list[Row]:
        """Give up some telemetry: of what was never handed to the link, else the oldest batch that was. No rows when
        there is none.
        """
        return self._collector.thin() or self._give_up_sent()

    def _give_up_sent(self) -> list[Row]:
        given_up = 0

        def fallen(payload: bytes) -> bytes:
            nonlocal given_up
            if given_up:
                return payload
            renewed, given_up = tombstone(payload)
            return renewed if given_up else payload

        rows = self._telemetry.rewrite(fallen)
        return [*rows, *self._collector.give_up_sent(given_up)] if given_up else []

    def tighten(self) -> list[Row]:
        """The disk is full: samples are counted and not kept."""
        return self._collector.tighten()

    def loosen(self) -> list[Row]:
        """There is room again."""
        return self._collector.loosen()

    def write_down(self) -> list[Row]:
        """The end has come: close the batch under way."""
        return [*self._collector.close(), *self._collector.settle()]

    # An unknown clock.

    def numbered_from(self, since_ms: EpochMs) -> Undated:
        """What is numbered from now on is undated."""
        return Undated(since_ms, self._events.next_seq, self._objects.next_seq)

    def hold_back(self, undated: Undated) -> None:
        """Nothing undated leaves; what was said before the time was lost does."""
        self._holds_back = True
        self._events.held_from, self._objects.held_from = undated.events_from, undated.objects_from

    def redate(self, dating: Dating) -> list[Row]:
        """The time is found: what waits is dated and may leave."""
        self._holds_back = False
        self._events.held_from = self._objects.held_from = None
        return [
            *self._events.rewrite(dating.payload),
            *self._objects.rewrite(dating.payload),
            *self._collector.redate(dating),
        ]

    # How it stands.

    @property
    def samples(self) -> Account:
        """What became of the samples so far."""
        return self._collector.account

    def durable(self) -> dict[str, Any]:
        """Everything that a restart must not forget."""
        return {
            **{stream: (sender.next_seq, sender.backlog) for stream, sender in self._senders.items()},
            "batches": self._collector.backlog,
            "bytes": self.bytes_waiting,
            "samples": self.samples,
        }

    def counters(self) -> dict[str, int]:
        """How much waits for the hub, and what became of the samples."""
        return {
            "events_waiting": self._events.backlog,
            "telemetry_waiting": self._telemetry.backlog + self._collector.backlog,
            "object_pieces_waiting": self._objects.backlog,
            "telemetry_made_samples": self.samples.made,
            "telemetry_thinned_samples": self.samples.ever,
            "outbox_bytes": self.bytes_waiting,
        }
