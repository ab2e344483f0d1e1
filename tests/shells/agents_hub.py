"""A hub of a few lines for the agent's tests: signs commands, takes events once and in order, acknowledges."""

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from shared import topics, wire
from shared.messages import HubCommand, Numbered, PlanPushed, Presence
from shared.mqtt import Heard, Link, LinkUp
from shared.quantities import EpochMs
from shared.signing import Signer
from shared.steps import Envelope
from shared.streams import Receiver, Sender, Take
from shared.work import AgentId

PATIENCE_S = 20.0
REPEAT_LOOK_S = 0.1


class StandInHub:
    """Hears every agent of a region; `events` holds what was taken, `numbers` the sequence numbers in that order."""

    def __init__(self, url: str, region: str, key: Path, now_ms: Callable[[], int]) -> None:
        self.signer = Signer.from_file(key)
        self.events: list[Any] = []
        self.numbers: list[int] = []
        self.taken_at_ns: list[int] = []
        self.batches: dict[tuple[str, int], wire.TelemetryBatch] = {}
        self.presences: list[Presence] = []
        self.acked: list[int] = []
        self.does_acknowledge = True
        self._region = region
        self._now_ms = now_ms
        self._receiver = Receiver({})
        self._senders: dict[AgentId, Sender] = {}
        self._changed = threading.Condition()
        self._heard: queue.SimpleQueue[Heard | None] = queue.SimpleQueue()
        self._up = threading.Event()
        self._link = Link(url, "hub", topics.heard_by_hub(region), self._hear, sign=self.signer.sign)
        self._thread = threading.Thread(target=self._take_all, daemon=True)

    def __enter__(self) -> "StandInHub":
        self._link.open()
        self._thread.start()
        assert self._up.wait(PATIENCE_S), "the broker did not take the hub"
        return self

    def __exit__(self, *_: object) -> None:
        self._heard.put(None)
        self._link.close()

    def command(self, agent: AgentId, command: HubCommand) -> None:
        """Say one thing to an agent, signed, until it acknowledges."""
        self.say(
            agent,
            lambda seq: wire.encode(
                Numbered(topics.HUB, "hub-boot", "commands", seq, EpochMs(self._now_ms()), 1, command)
            ),
        )

    def say(self, agent: AgentId, write: Callable[[int], bytes]) -> None:
        """Put anything into an agent's stream of commands."""
        with self._changed:
            self._senders.setdefault(agent, Sender(agent, "hub-boot", "commands", {}, {})).say(write)
            self._send_due()

    def push(self, plan: Any) -> None:
        """Push a plan that may be begun for hours."""
        self.command(plan.agent, PlanPushed(plan, EpochMs(self._now_ms() + 36_000_000)))

    def publish(self, topic: str, payload: bytes, is_signed: bool = True) -> None:
        """Put bytes on a topic, signed or not."""
        assert self._link.publish(Envelope(topic, payload, 1, is_signed=is_signed))

    def of(self, kind: type[Any]) -> list[Any]:
        """What was taken of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def wait(self, claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Return when the claim holds; it is looked at whenever something was heard."""
        with self._changed:
            assert self._changed.wait_for(claim, patience_s), f"in vain for {patience_s} s: {what}; {self.events[-5:]}"

    def _hear(self, event: Any) -> None:
        if isinstance(event, LinkUp):
            self._up.set()
        elif isinstance(event, Heard):
            self._heard.put(event)

    def _take_all(self) -> None:
        while True:
            try:
                heard = self._heard.get(timeout=REPEAT_LOOK_S)
            except queue.Empty:
                with self._changed:
                    self._send_due()
                continue
            if heard is None:
                return
            with self._changed:
                self._take(heard)
                self._send_due()
                self._changed.notify_all()

    def _send_due(self) -> None:
        for agent, sender in self._senders.items():
            for payload in sender.due(time.monotonic_ns() // 1_000_000):
                self.publish(topics.down(self._region, agent, "commands"), payload)

    def _take(self, heard: Heard) -> None:
        place = topics.read(heard.topic)
        if place.carries == "presence":
            self.presences.append(wire.decode_presence(heard.payload))
        elif place.carries == "acks":
            ack = wire.decode_ack(heard.payload)
            self.acked.append(ack.upto)
            self._senders[place.party].acked(ack)
        elif place.carries == "telemetry":
            batch = wire.decode_telemetry(heard.payload)
            self.batches[batch.boot, batch.seq] = batch
            mine = [seq for boot, seq in self.batches if boot == batch.boot]
            self._acknowledge(place.party, batch.boot, "telemetry", _contiguous(mine))
        else:
            numbered = wire.decode_numbered(heard.payload)
            if self._receiver.take(numbered)[0] is Take.NEW:
                self.events.append(numbered.message)
                self.numbers.append(numbered.seq)
                self.taken_at_ns.append(time.monotonic_ns())
            taken = self._receiver.ack(numbered.sender, "events")
            if taken is not None:
                self._acknowledge(place.party, taken.boot, "events", taken.upto)

    def _acknowledge(self, agent: AgentId, boot: str, stream: str, upto: int) -> None:
        if self.does_acknowledge:
            ack = wire.Ack(agent, boot, stream, upto)
            self._link.publish(Envelope(topics.down(self._region, agent, "acks"), wire.encode(ack), 0))


def _contiguous(numbers: list[int]) -> int:
    upto = 0
    while upto + 1 in numbers:
        upto += 1
    return upto


def settings_text(**settings: str | int) -> str:
    """A settings file."""
    return "\n".join(f"{name} = {msgspec.json.encode(value).decode()}" for name, value in settings.items())
