"""An agent that only talks: the real store, streams, outbox, runner and link, and a core that says numbered records.

`python -m tests.chaos.talker SETTINGS.json` runs one until it is killed. SIGUSR1 silences it; what waits is still
repeated. Everything it ever said is counted in the commit that took it into the outbox, so an audit can compare.
"""

import secrets
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.commands import Commands
from edge_agent.door import Door
from edge_agent.machine import IngestBegan
from edge_agent.outbox import Outbox
from edge_agent.sensing import Belief
from edge_agent.store import SqliteStore
from edge_agent.telemetry import ROOM as BATCHES
from edge_agent.uplink import Uplink
from shared import topics, wire
from shared.clock import Clock
from shared.ledger import FIRST_LINK, Decision
from shared.messages import Ack, Decided, Numbered, Presence
from shared.mqtt import Link, LinkEvent
from shared.quantities import EpochMs, Position
from shared.runner import Runner
from shared.signing import Verifier
from shared.steps import Consequences, Envelope, Job, LinkDown, LinkUp, Now, Row, Saved, Wake
from shared.work import AgentId

REGION = "main"
SAMPLE_EVERY_MS = 10
"""Real milliseconds between two samples. They are dated 500 times as far apart, for the agent samples every 5 s."""
SAMPLES_FASTER = 500
OUTBOX_BYTES = 250_000
"""So little that a cut of ten seconds makes telemetry be thinned."""
HEARD, AUDIT = "heard", "audit"


class TalkerSettings(msgspec.Struct, frozen=True):
    """Who talks, to which broker, from which store, how much, and whether it believes the broker's acknowledgement."""

    agent: str
    broker: str
    hub_public_key: str
    store: str
    clock: str
    events_per_s: float
    trims_on_puback: bool = False


class Said(msgspec.Struct, frozen=True):
    """Everything ever said by one store's life: events, the last link of their chain, samples in closed batches."""

    events: int = 0
    link: str = FIRST_LINK
    samples: int = 0
    last_sample_ms: int = 0


class TalkerCore:
    """Says records at a steady rate and takes commands; everything else is the real agent's uplink."""

    def __init__(self, agent: AgentId, boot: str, events_per_s: float, clock: Clock, saved: Saved) -> None:
        self._agent = agent
        self._clock = clock
        self._outbox = Outbox(agent, boot, saved)
        self._uplink = Uplink(agent, REGION, boot, secrets.token_hex(8), self._outbox)
        self._commands = Commands(saved)
        own = saved.get(AUDIT, {}).get("said")
        self.said = Said() if own is None else msgspec.json.decode(own, type=Said)
        self._every_ms = 1000 / events_per_s
        self._next_event_ms = 0.0
        self._next_sample_ms = 0
        self._is_silent = False

    def handle(self, events: Sequence[Any], now: Now) -> Consequences:
        """Take what came, and say what is due."""
        made = Consequences()
        before = self.said
        for event in events:
            self._take(event, now, made)
        self._talk(now, made)
        while self._outbox.bytes_waiting > OUTBOX_BYTES and (rows := self._outbox.give_up_telemetry()):
            made.rows += rows
        if self._uplink.is_up:
            made.rows += self._outbox.hand_over_telemetry()
        made.envelopes += self._uplink.acknowledge(self._commands.acknowledgement())
        if self.said != before:
            made.rows.append(Row(AUDIT, "said", msgspec.json.encode(self.said)))
        return made

    def due(self, now: Now) -> list[Envelope]:
        """What the streams should send or repeat now."""
        return self._uplink.due(now.real_ms)

    def wake(self, now: Now) -> Wake:
        """The next record, the next sample, or the next repeat."""
        waits = [at for at in (self._uplink.due_at(now.real_ms),) if at is not None]
        if not self._is_silent:
            waits += [round(self._next_event_ms), self._next_sample_ms]
        return Wake(None, min(waits, default=None))

    def _take(self, event: Any, now: Now, made: Consequences) -> None:
        match event:
            case Numbered():
                refusal, rows = self._commands.take(event, 0)
                made.rows += rows
                if not refusal:
                    made.rows.append(Row(HEARD, f"{event.boot}/{event.seq:09d}", type(event.message).__name__.encode()))
            case Ack():
                made.rows += self._outbox.acked(event)
            case Presence():
                made.envelopes += self._uplink.meet(event, now.real_ms)
            case IngestBegan():
                self._uplink.hear_ingest()
            case LinkUp():
                made.envelopes += self._uplink.go_up(now.real_ms)
            case LinkDown():
                self._uplink.go_down()
            case "silence":
                self._is_silent = True

    def _talk(self, now: Now, made: Consequences) -> None:
        if self._is_silent:
            return
        if not self._next_event_ms:
            self._next_event_ms, self._next_sample_ms = float(now.real_ms), now.real_ms
        while self._next_event_ms <= now.real_ms:
            self._next_event_ms += self._every_ms
            made.rows += self._say(now)
        if self._next_sample_ms <= now.real_ms:
            self._next_sample_ms = now.real_ms + SAMPLE_EVERY_MS
            since_ms = now.real_ms - self._clock.origin_ns // 1_000_000
            rows = self._outbox.sample(_belief(now.real_ms), self._clock.epoch_ms + since_ms * SAMPLES_FASTER)
            made.rows += rows
            self._count_closed(rows)

    def _say(self, now: Now) -> list[Row]:
        number = self.said.events + 1
        decision = Decision(
            f"{self._agent}-{number:06d}", self._agent, "said", now.domain_ms, "A record.", "it was time", (), (), 0,
            "", "", previous=self.said.link,
        )  # fmt: skip
        self.said = msgspec.structs.replace(self.said, events=number, link=decision.link())
        return self._outbox.say(Decided(decision), 0, now.domain_ms)

    def _count_closed(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.room != BATCHES or not row.key.isdigit() or row.value is None:
                continue
            at_ms = wire.decode_telemetry(row.value).at_ms
            # A batch that is thinned is written again, and has been counted.
            if len(at_ms) and int(at_ms[-1]) > self.said.last_sample_ms:
                samples = self.said.samples + len(at_ms)
                self.said = msgspec.structs.replace(self.said, samples=samples, last_sample_ms=int(at_ms[-1]))


class CredulousLink(Link):
    """The control: takes the broker's acknowledgement for the hub's, as outboxes of other systems do."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._on_the_way: dict[int, Ack] = {}
        self._acked_early: set[int] = set()
        self._lock = threading.Lock()
        self.believe: Callable[[Ack], None] = lambda _: None

    def publish(self, envelope: Envelope) -> bool:
        """Publish, and remember which message the broker's acknowledgement will be about."""
        if not self.is_up:
            return False
        info = self._client.publish(envelope.topic, envelope.payload, envelope.qos, envelope.is_retained)
        carried = _numbered(envelope)
        if carried is not None:
            with self._lock:
                self._on_the_way[info.mid] = carried
                is_early = info.mid in self._acked_early
            if is_early:
                self._trim(info.mid)
        return True

    def _published(self, client: Any, more: Any, mid: int, reason: Any, properties: Any) -> None:
        super()._published(client, more, mid, reason, properties)
        if not reason.is_failure:
            with self._lock:
                self._acked_early.add(mid)
            self._trim(mid)

    def _trim(self, mid: int) -> None:
        with self._lock:
            ack = self._on_the_way.pop(mid, None)
            if ack is not None:
                self._acked_early.discard(mid)
        if ack is not None:
            self.believe(ack)


def _numbered(envelope: Envelope) -> Ack | None:
    if envelope.topic.endswith("/up/events"):
        heading = wire.decode_numbered_heading(envelope.payload)
        return Ack(heading.sender, heading.boot, heading.stream, 0, (heading.seq,))
    if envelope.topic.endswith("/up/telemetry"):
        batch = wire.decode_telemetry(envelope.payload)
        return Ack(batch.sender, batch.boot, "telemetry", 0, (batch.seq,))
    return None


def _belief(real_ms: int) -> Belief:
    drift = (real_ms % 100_000) / 1e6
    return Belief(
        Position(60.17 + drift, 24.94 + drift),
        0.2,
        8.0,
        False,
        None,
        real_ms % 1_000_000 / 1.0,
        "gnss",
        90.0,
        0.7,
        -3.0,
    )


def main() -> None:
    """Run one talker until it is killed."""
    settings = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=TalkerSettings)
    agent = AgentId(settings.agent)
    store = SqliteStore(Path(settings.store))
    clock = Clock.from_setting(settings.clock)
    core = TalkerCore(agent, store.boot, settings.events_per_s, clock, store.saved())
    link: Link

    def nothing_to_do(_: Job) -> Any:
        raise AssertionError("a talker wants no jobs")

    def send(envelope: Envelope) -> bool:
        return link.publish(envelope)

    runner = Runner(core, store, clock, send, nothing_to_do)
    door = Door(REGION, agent, Verifier(settings.hub_public_key), runner.post)
    kind = CredulousLink if settings.trims_on_puback else Link
    hear: Callable[[LinkEvent], None] = door.hear
    gone = Envelope(
        topics.up(REGION, agent, "presence"), wire.encode(Presence(agent, False, "gone", store.boot)), 1, True
    )
    link = kind(settings.broker, settings.agent, topics.heard_by_agent(REGION, agent), hear, will=gone)
    if isinstance(link, CredulousLink):
        link.believe = runner.post
    signal.signal(signal.SIGUSR1, lambda *_: runner.post("silence"))
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    link.open()
    runner.run()


__all__ = ["AUDIT", "HEARD", "EpochMs", "Said", "TalkerCore", "TalkerSettings"]

if __name__ == "__main__":
    main()
