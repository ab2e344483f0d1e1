"""Keep the agent's side of the link: what it says to the hub until that is acknowledged, what it has taken from it."""

from typing import Any

from edge_agent.dating import Dating, Undated
from edge_agent.proofs import Proofs
from edge_agent.sensing import Belief
from edge_agent.telemetry import Collector, tombstone
from shared import topics, wire
from shared.messages import Ack, AgentEvent, Numbered, ObjectPart, Presence
from shared.quantities import EpochMs
from shared.steps import Envelope, Row, Saved
from shared.streams import Placed, Receiver, Sender, Take
from shared.work import AgentId

HANDED_OVER = 8
"""Telemetry batches numbered and on their way at once; the others may still be thinned."""
ASKS_TIME_EVERY_MS = 10_000
"""Real time between two questions to the hub for the time; an answer that took longer is the answer to none."""
PIECES_HANDED_OVER = 4
"""Pieces of pictures on their way at once: a quarter of a megabyte, which a slow link carries in some seconds."""
_AWAY = ("", "", 0)
"""No hub's life, boot and epoch."""


class Uplink:
    """The streams between one agent and its hub. Rows it gives back belong into the step's commit."""

    def __init__(self, agent: AgentId, region: str, boot: str, life: str, saved: Saved) -> None:
        """From everything the store held. `boot` names the life of the store, `life` that of this process."""
        self._agent, self._region, self._boot, self._life = agent, region, boot, life
        counters, outbox = saved.get("counters", {}), saved.get("outbox", {})
        self._events = Sender(topics.HUB, boot, "events", outbox, counters)
        self._telemetry = Sender(topics.HUB, boot, "telemetry", outbox, counters)
        self._objects = Sender(topics.HUB, boot, "objects", outbox, counters)
        self._collector = Collector(agent, boot, saved.get("telemetry", {}))
        self._taken = Receiver(saved.get("taken", {}))
        self._owes_ack = False
        self._is_up = False
        self._undated: Undated | None = None
        self._questions = 0
        self._asked_real_ms: int | None = None
        self._hub: tuple[str, str, int] | None = None

    @property
    def is_up(self) -> bool:
        """Whether the broker is there."""
        return self._is_up

    def go_up(self, real_ms: int) -> Envelope:
        """The broker is there: everything unacknowledged is said again, and this says that the agent is there. The hub
        is to be met anew: where the broker fell, it may come back later than the agent.
        """
        self._is_up = True
        self._hub = None
        self._repeat_all()
        return self.presence(real_ms)

    def presence(self, real_ms: int) -> Envelope:
        """The agent is there, and this is how far back it can still say everything; it asks for the time it lacks."""
        unacked = {
            "events": self._events.unacked,
            "telemetry": self._telemetry.unacked,
            "objects": self._objects.unacked,
        }
        is_dated, asks_time = self._undated is None, ""
        if not is_dated:
            self._questions += 1
            self._asked_real_ms = real_ms
            asks_time = self._question()
        there = Presence(
            self._agent,
            is_there=True,
            life=self._life,
            boot=self._boot,
            unacked=unacked,
            is_dated=is_dated,
            asks_time=asks_time,
        )
        topic = topics.up(self._region, self._agent, "presence")
        return Envelope(topic, wire.encode(there), topics.QOS["presence"], is_retained=True)

    def _question(self) -> str:
        return f"{self._life}/{self._questions}"

    def asked_ago_ms(self, question: str, real_ms: int) -> int | None:
        """How long ago the hub was asked for the time; None when this is not what it was asked, or it took too long."""
        if self._undated is None or self._asked_real_ms is None or question != self._question():
            return None
        passed_ms = real_ms - self._asked_real_ms
        return passed_ms if passed_ms <= ASKS_TIME_EVERY_MS else None

    def go_down(self) -> None:
        """The broker is away; what is said waits."""
        self._is_up = False

    def meet(self, presence: Presence, real_ms: int) -> list[Envelope]:
        """A hub that was away, is met for the first time, or has begun a new life or epoch may not have heard what was
        on its way to it: it is told again, and how far back we can tell.
        """
        hub = (presence.life, presence.boot, presence.epoch) if presence.is_there else _AWAY
        if presence.party != topics.HUB or hub == self._hub:
            return []
        if hub is _AWAY:
            self._hub = _AWAY
            return []
        self._hub = hub
        if not self._is_up:
            return []
        self._repeat_all()
        return [self.presence(real_ms)]

    def hear_ingest(self) -> None:
        """A process that takes telemetry has begun: batches may have been on their way to one that died."""
        self._telemetry.repeat_all()

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
        """Number batches only while somebody is there to hear them: what has no number may still be thinned."""
        found: list[Row] = []
        while (
            self._is_up and self._undated is None and self._telemetry.backlog < HANDED_OVER and self._collector.backlog
        ):
            handed = self._collector.hand_over(self._telemetry.next_seq)
            assert handed is not None
            payload, rows = handed
            found += rows
            found += self._telemetry.say(lambda _seq, payload=payload: payload)  # type: ignore[misc]  # bound now
        return found

    def hand_over_objects(self, proofs: Proofs, epoch: int, now_ms: EpochMs) -> list[Row]:
        """Number pieces of pictures a few at a time, and only while no event waits: a picture delays nobody."""
        found: list[Row] = []
        is_free = self._is_up and self._undated is None
        while is_free and not self._events.backlog and self._objects.backlog < PIECES_HANDED_OVER:
            handed = proofs.next_part()
            if handed is None:
                break
            part, rows = handed
            found += rows

            def write(seq: int, part: ObjectPart = part) -> bytes:
                return wire.encode(Numbered(self._agent, self._boot, "objects", seq, now_ms, epoch, part))

            found += self._objects.say(write)
        return found

    # Room.

    @property
    def bytes_waiting(self) -> int:
        """How much room everything takes that waits for the hub."""
        return (
            self._events.bytes_waiting
            + self._telemetry.bytes_waiting
            + self._objects.bytes_waiting
            + self._collector.bytes_waiting
        )

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

    # The time.

    def numbered_from(self, since_ms: EpochMs) -> Undated:
        """What is numbered from now on is undated."""
        return Undated(since_ms, self._events.next_seq, self._objects.next_seq)

    def hold_back(self, undated: Undated) -> None:
        """Nothing undated leaves; what was said before the time was lost does."""
        self._undated = undated
        self._events.held_from, self._objects.held_from = undated.events_from, undated.objects_from

    def redate(self, dating: Dating, real_ms: int) -> tuple[list[Envelope], list[Row]]:
        """The time is found: what waits is dated and may leave, and the hub hears that we know the time."""
        rows = [
            *self._events.rewrite(dating.payload),
            *self._objects.rewrite(dating.payload),
            *self._collector.redate(dating),
        ]
        self._undated = None
        self._events.held_from = self._objects.held_from = None
        return [self.presence(real_ms)] if self._is_up else [], rows

    def question_due(self, real_ms: int) -> list[Envelope]:
        """The hub is asked again for the time while nobody has told it."""
        at_ms = self._question_at()
        return [self.presence(real_ms)] if at_ms is not None and at_ms <= real_ms else []

    def _question_at(self) -> int | None:
        if self._undated is None or not self._is_up or self._asked_real_ms is None:
            return None
        return self._asked_real_ms + ASKS_TIME_EVERY_MS

    @property
    def has_said_all(self) -> bool:
        """Whether the hub has committed everything that was said but telemetry."""
        return not self._events.backlog and not self._objects.backlog

    def acked(self, ack: Ack) -> list[Row]:
        """The hub has committed what it acknowledges; it need not be kept."""
        match ack.stream:
            case "events":
                return self._events.acked(ack)
            case "telemetry":
                return self._telemetry.acked(ack)
            case "objects":
                return self._objects.acked(ack)
        return []

    def take(self, command: Placed, after: int = 0) -> tuple[Take | None, list[Row]]:
        """Judge by its number whether a command is new, and owe an ack for it; None when it is no stream of ours."""
        if command.sender != topics.HUB or command.stream != "commands":
            return None, []
        self._owes_ack = True
        return self._taken.take(command, after)

    def acknowledgement(self) -> list[Envelope]:
        """The ack owed for commands taken in this step, once; to be sent after the commit."""
        ack = self._taken.ack(topics.HUB, "commands") if self._owes_ack else None
        self._owes_ack = False
        return [] if ack is None else self._envelopes("acks", [wire.encode(ack)])

    def due(self, real_ms: int) -> list[Envelope]:
        """What should be sent or repeated now; nothing while the link is down."""
        if not self._is_up:
            return []
        return [
            *self.question_due(real_ms),
            *self._envelopes("events", self._events.due(real_ms)),
            *self._envelopes("telemetry", self._telemetry.due(real_ms)),
            *self._envelopes("objects", self._objects.due(real_ms)),
        ]

    def due_at(self, real_ms: int) -> int | None:
        """When something is due next, in real time; None when nothing will be."""
        if not self._is_up:
            return None
        waits = (sender.due_at(real_ms) for sender in (self._events, self._telemetry, self._objects))
        return min((at for at in (*waits, self._question_at()) if at is not None), default=None)

    def durable(self) -> dict[str, Any]:
        """Everything of the streams that a restart must not forget."""
        return {
            "events": (self._events.next_seq, self._events.backlog),
            "telemetry": (self._telemetry.next_seq, self._telemetry.backlog, self._collector.backlog),
            "objects": (self._objects.next_seq, self._objects.backlog),
            "bytes": self.bytes_waiting,
            "samples": self._collector.account,
            "commands": self._taken.ack(topics.HUB, "commands"),
        }

    def counters(self) -> dict[str, int]:
        """How much waits for the hub, and whether it can be heard."""
        return {
            "events_waiting": self._events.backlog,
            "telemetry_waiting": self._telemetry.backlog + self._collector.backlog,
            "object_pieces_waiting": self._objects.backlog,
            "telemetry_made_samples": self._collector.account.made,
            "telemetry_thinned_samples": self._collector.account.ever,
            "outbox_bytes": self.bytes_waiting,
            "is_dated": int(self._undated is None),
            "link_is_up": int(self._is_up),
        }

    def _repeat_all(self) -> None:
        self._events.repeat_all()
        self._telemetry.repeat_all()
        self._objects.repeat_all()

    def _envelopes(self, carries: str, payloads: list[bytes]) -> list[Envelope]:
        topic = topics.up(self._region, self._agent, carries)
        return [Envelope(topic, payload, topics.QOS[carries]) for payload in payloads]
