"""The processes of one universe: an agent, a hub, each with its core, its store, its line and its door.

A machine does what `shared.runner` does, in virtual time: gather what waits, take a step, send, begin jobs, answer. Its
plug can be pulled at every named point of a step, between two envelopes, in the middle of a commit, or in between; then
it wakes from what was on its disk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from nacl.signing import SigningKey

from cloud_hub.door import Door as HubDoor
from cloud_hub.events import NoticeDelivered, NoticeFailed, NoticeWanted, PlanWanted
from cloud_hub.hub import HubCore, HubIdentity
from cloud_hub.storage import Fenced
from cloud_hub.storage.embedded_telemetry import EmbeddedTelemetry
from cloud_hub.telemetry import FastLane
from edge_agent.agent import AgentCore
from edge_agent.dialogue import DAY_TOPIC
from edge_agent.door import Door as AgentDoor
from edge_agent.identity import Identity
from edge_agent.machine import RoomChanged, TellTime
from edge_agent.memory import ClockKept
from shared import steps, topics, wire
from shared.messages import Presence
from shared.mqtt import Heard, LinkEvent
from shared.quantities import EpochMs
from shared.signing import Signer, Verifier
from shared.steps import ClockFound, Consequences, Envelope, Job, JobFailed, Now, Row
from shared.work import AgentId
from tests.simulation.clockwork import Clockwork
from tests.simulation.disks import Acting, AgentStore, Disk, HubStoreOnDisk, Kept, PlugPulled, Room, name_boot
from tests.simulation.luck import Luck, Weather
from tests.simulation.town import MINUTE_MS, REGION, RISES_MS
from tests.simulation.wires import Letter, Line, Wires

MOST_EVENTS = 256

Ask = Callable[[Any], None]


class Eyes(Protocol):
    """Whoever watches everything that happens."""

    def trace(self, line: str, *bytes_: bytes) -> None:
        """One line of what happened, and the bytes that came with it."""
        ...

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        """These rows are on the disk; the machine's `kept` knows them already."""
        ...

    def leaving(self, machine: "Machine", envelope: Envelope) -> None:
        """This is about to be said."""
        ...

    def taking(self, machine: "Machine", events: Sequence[Any]) -> None:
        """A step begins."""
        ...

    def taken(self, machine: "Machine", events: Sequence[Any], made: Consequences) -> None:
        """A step is committed."""
        ...

    def woken(self, machine: "Machine") -> None:
        """A process has read its disk."""
        ...


@dataclass(slots=True)
class Plug:
    """Where the plug is to be pulled: at the so-manieth time this point is passed."""

    point: str
    number: int = 1


class Machine:
    """One process that can die at any instant, and everything it leaves behind."""

    def __init__(self, name: str, clock: Clockwork, wires: Wires, luck: Luck, weather: Weather, eyes: Eyes) -> None:
        self.name = name
        self.clock = clock
        self.wires = wires
        self.luck = luck.of("machine", name)
        self.weather = weather
        self.eyes = eyes
        self.kept = Kept()
        self.is_alive = False
        self.is_fair = False
        self.life = 0
        self.plug: Plug | None = None
        self.stalled_until_ms = 0
        self.jobs_under_way = 0
        self.core: Any = None
        self.store: Any = None
        self.died_of = ""
        self._line: Line | None = None
        self._inbox: list[tuple[Any, Ask | None]] = []
        self._step_at_ms: int | None = None
        self._image: Path | None = None

    # What others do with it.

    @property
    def has_nothing_to_do(self) -> bool:
        """Whether nothing waits for a step and no job is under way."""
        return self.is_alive and not self._inbox and not self.jobs_under_way

    def post(self, event: Any, asker: Ask | None = None) -> None:
        """Put an event before the core, if there is one; `asker` hears the answer unless the machine dies first."""
        if not self.is_alive:
            return
        self._inbox.append((event, asker))
        self._want_step(self.clock.now_ms + self.luck.between(0, 5))

    def pull(self, point: str, number: int = 1) -> None:
        """Pull the plug at this point of a step to come; "idle" is now."""
        if not self.is_alive or self.is_fair:
            return
        if point == "idle":
            self._die(self.disk_image())
        else:
            self.plug = Plug(point, number)

    def stall(self, for_ms: int) -> None:
        """Take no step for so long; everything that comes waits."""
        if not self.is_fair:
            self.stalled_until_ms = self.clock.now_ms + for_ms

    def spare(self) -> None:
        """Pull no plug that waits to be pulled."""
        self.plug = None
        if self.store is not None:
            self.store.cut = None

    def clear(self) -> None:
        """From now on nothing bad happens to it."""
        self.is_fair = True
        self.spare()
        self.stalled_until_ms = 0
        if not self.is_alive:
            self.wake()
        else:
            self._want_step(self.clock.now_ms)

    def wake(self) -> None:
        """The process begins, and reads its disk."""
        if self.is_alive:
            return
        self.is_alive = True
        self.life += 1
        self.plug = None
        self._inbox, self._step_at_ms, self.jobs_under_way = [], None, 0
        self.stalled_until_ms = 0
        self._open()
        self.eyes.woken(self)
        self.eyes.trace(f"{self.name} wakes as life {self.life}")
        self._step([])

    # What each kind does differently.

    def disk_image(self) -> Path:
        """What is on the disk now."""
        raise NotImplementedError

    def _open(self) -> None:
        raise NotImplementedError

    def _closed(self, image: Path) -> None:
        raise NotImplementedError

    def _do(self, job: Job) -> Any:
        raise NotImplementedError

    def _sign(self, envelope: Envelope) -> str | None:
        return None

    # Steps.

    def _want_step(self, at_ms: int) -> None:
        at_ms = max(at_ms, self.stalled_until_ms)
        if self._step_at_ms is not None and self.clock.now_ms <= self._step_at_ms <= at_ms:
            return
        self._step_at_ms = at_ms
        life = self.life

        def take() -> None:
            if self.is_alive and self.life == life and self._step_at_ms == at_ms:
                self._step_at_ms = None
                if self.clock.now_ms < self.stalled_until_ms:
                    self._want_step(self.stalled_until_ms)
                    return
                batch, self._inbox = self._inbox[:MOST_EVENTS], self._inbox[MOST_EVENTS:]
                self._step(batch)

        self.clock.at(at_ms, take)

    def now(self) -> Now:
        """The instant of a step taken now."""
        return Now(EpochMs(self.clock.now_ms), self.clock.real_ms)

    def _step(self, batch: list[tuple[Any, Ask | None]]) -> None:
        try:
            self._take(batch)
        except PlugPulled:
            image = self._image
            self._image = None
            self._die(self.disk_image() if image is None else image)
        except Fenced as fenced:
            self.died_of = str(fenced)
            self.eyes.trace(f"{self.name} is fenced")
            self._die(None)

    def _gathered(self, batch: list[tuple[Any, Ask | None]]) -> list[tuple[Any, Ask | None]]:
        return batch

    def _take(self, batch: list[tuple[Any, Ask | None]]) -> None:
        batch = self._gathered(batch)
        events = [event for event, _ in batch]
        self.eyes.taking(self, events)
        if self.plug is not None and self.plug.point == "committing":
            self.store.cut = (self.plug.number, self._cut_here)
            self.plug = None
        made, envelopes = steps.step(self.core, self.store, events, self.now(), self._at)
        self.eyes.taken(self, events, made)
        for envelope in envelopes:
            self._send(envelope)
            self._at("sent")
        self._at("spoken")
        for job in made.jobs:
            self._begin(job)
        for place, (_, asker) in enumerate(batch):
            if asker is not None:
                asker(made.answers.get(place))
        self._want_wake()

    def _want_wake(self) -> None:
        if self._inbox:
            self._want_step(self.clock.now_ms)
        wake, now = self.core.wake(self.now()), self.now()
        waits = []
        if wake.domain_ms is not None:
            waits.append(wake.domain_ms - now.domain_ms)
        if wake.real_ms is not None:
            waits.append(wake.real_ms - now.real_ms)
        if waits:
            self._want_step(self.clock.now_ms + max(1, min(waits)))

    def _at(self, point: str) -> None:
        plug = self.plug
        if plug is None or plug.point != point:
            return
        plug.number -= 1
        if plug.number == 0:
            self.plug = None
            raise PlugPulled

    def _cut_here(self) -> None:
        self._image = self.disk_image()

    def _send(self, envelope: Envelope) -> None:
        self.eyes.leaving(self, envelope)
        if envelope.topic.startswith("page/"):
            self._show(envelope)
        elif self._line is not None:
            self._line.publish(Letter(envelope, self._sign(envelope)))

    def _show(self, envelope: Envelope) -> None:
        raise AssertionError(f"{self.name} has no page for {envelope.topic}")

    def _begin(self, job: Job) -> None:
        self.jobs_under_way += 1
        life = self.life
        luck, weather = self.luck, self.weather
        takes_ms = luck.between(1, 80)
        if not self.is_fair and luck.chance(self._is_late(job)):
            takes_ms = luck.between(1_000, 150_000)
        fails = not self.is_fair and luck.chance(weather.jobs_fail)

        def done() -> None:
            if self.life != life or not self.is_alive:
                return
            self.jobs_under_way -= 1
            self.post(JobFailed(job, "bad luck") if fails else self._do(job))

        self.clock.after(takes_ms, done)

    def _is_late(self, job: Job) -> float:
        """How likely a job takes minutes."""
        return self.weather.jobs_late

    def _die(self, image: Path | None) -> None:
        self.eyes.trace(f"{self.name} dies")
        self.is_alive = False
        self._inbox, self.jobs_under_way = [], 0
        if self._line is not None:
            self._line.die()
        self._let_go(image)
        if image is not None:
            self.forked()
            away_ms = self.luck.pick((5, 500, 5_000, 60_000, 240_000))
            self.clock.after(1 if self.is_fair else away_ms, self.wake)

    def _let_go(self, image: Path | None) -> None:
        raise NotImplementedError

    def forked(self) -> None:
        """The disk is another file from now on."""


class AgentMachine(Machine):
    """A van's computer, its page, and the model-free workshop."""

    def __init__(
        self,
        agent: AgentId,
        folder: Path,
        templates: Path,
        do_job: Callable[[Job], Any],
        hub_key: str,
        seed: int,
        clock: Clockwork,
        wires: Wires,
        luck: Luck,
        weather: Weather,
        eyes: Eyes,
    ) -> None:
        super().__init__(agent, clock, wires, luck, weather, eyes)
        self.agent = agent
        self.disk = Disk(folder, ("agent.db",), templates)
        name_boot(self.disk.at / "agent.db", f"boot-{seed}-{agent}")
        self.page = b""
        self.room = Room()
        self.behind_ms: int | None = None
        """How far the clock is behind while nobody knows the time; None when it is known."""
        self.never_known_ms = 0
        """How long the machine was off after lives that never knew the time: by so much such a life is dated wrong."""
        self._do_job = do_job
        self._verifier = Verifier(hub_key)

    def disk_image(self) -> Path:
        """What is on the card now."""
        return self.disk.image()

    def identity(self) -> Identity:
        """Who this agent is in this life."""
        return Identity(
            self.agent, REGION, self.store.boot, f"{self.name}.{self.life}", version="simulated", clock_speed=12.0,
            is_dated=self.behind_ms is None, outbox_bytes=self.weather.outbox_bytes,
        )  # fmt: skip

    def now(self) -> Now:
        """The instant of a step taken now, by a clock that may be behind."""
        now = super().now()
        return now if self.behind_ms is None else Now(EpochMs(now.domain_ms - self.behind_ms), now.real_ms)

    def _lose_time(self) -> None:
        """A board without a battery clock goes on from the last instant its store remembers."""
        kept = self.store.saved().get("agent", {}).get("clock")
        last_ms = RISES_MS - 86_400_000 if kept is None else msgspec.json.decode(kept, type=ClockKept).last_ms
        behind_ms = max(0, self.clock.now_ms - last_ms - 1)
        if self.behind_ms is not None:
            self.never_known_ms += behind_ms
        self.behind_ms = None
        if self.is_fair or not self.luck.chance(self.weather.forgets_time):
            return
        self.behind_ms = behind_ms
        life = self.life
        if self.luck.chance(0.5):
            finds_ms = self.luck.between(1_000, 900_000)
            self.clock.after(finds_ms, lambda: self.life == life and self.find_time("gnss"))

    def find_time(self, by: str) -> None:
        """Somebody knows the time."""
        if self.is_alive and self.behind_ms is not None:
            self.post(ClockFound(self.behind_ms, by))

    def _gathered(self, batch: list[tuple[Any, Ask | None]]) -> list[tuple[Any, Ask | None]]:
        found = [each for each in batch if isinstance(each[0], ClockFound)]
        if not found:
            return batch
        others = [each for each in batch if not isinstance(each[0], ClockFound)]
        if self.behind_ms is None:
            return others
        self.behind_ms = None
        return [found[0], *others]

    def _open(self) -> None:
        self.store = AgentStore(
            self.disk.at / "agent.db", self.room, self.kept, lambda rows: self.eyes.committed(self, rows)
        )
        self.store.real.tell_room = lambda is_tight: self.post(RoomChanged(is_tight))
        self.store.send = self._send
        self._lose_time()
        self.core = AgentCore(self.identity(), self.store.saved())
        self.page = b""
        door = AgentDoor(REGION, self.agent, self._verifier, self.post)
        gone = Presence(self.agent, is_there=False, life=self.identity().life, boot=self.store.boot)
        will = Envelope(topics.up(REGION, self.agent, "presence"), wire.encode(gone), 1, is_retained=True)

        def hear(event: LinkEvent) -> None:
            # The door of the agent logs the link's coming and going; a thousand days of that are no use.
            if isinstance(event, Heard):
                door.hear(event)
            else:
                self.post(event)

        self._line = self.wires.line(self.name, topics.heard_by_agent(REGION, self.agent), hear, will)
        self._line.open()
        if self.behind_ms is not None and self.luck.chance(0.4):
            self._line.cut("both", 10 * MINUTE_MS)  # Nobody tells the time: the driver works on.
        if self.store.is_tight:
            self.post(RoomChanged(is_tight=True))

    def _let_go(self, image: Path | None) -> None:
        self.store.close()
        if image is not None:
            self.disk.goes_on_from(image)

    def _show(self, envelope: Envelope) -> None:
        if envelope.topic == DAY_TOPIC:
            self.page = envelope.payload

    def _do(self, job: Job) -> Any:
        if isinstance(job, TellTime):
            # Put right to the millisecond: how well the time is told is not what is to be proven here.
            return ClockFound(self.behind_ms or 0, job.by)
        return self._do_job(job)


class HubDisk(Disk):
    """The hub's two files."""

    def __init__(self, folder: Path, templates: Path) -> None:
        super().__init__(folder, ("hub.db", "telemetry.db"), templates)


class HubMachine(Machine):
    """A hub's process: the core, its door, and the fast lane. Several may know one disk; one of them acts."""

    def __init__(
        self,
        name: str,
        disk: HubDisk,
        kept: Kept,
        acting: Acting,
        do_job: Callable[[Job], Any],
        send_notice: Callable[[NoticeWanted], NoticeDelivered | NoticeFailed],
        identity: Callable[[str], HubIdentity],
        key: SigningKey,
        clock: Clockwork,
        wires: Wires,
        luck: Luck,
        weather: Weather,
        eyes: Eyes,
    ) -> None:
        super().__init__(name, clock, wires, luck, weather, eyes)
        self.disk = disk
        self.kept = kept
        self._acting = acting
        self._do_job = do_job
        self._send_notice = send_notice
        self._identity = identity
        self._signer = Signer(key)
        self.lane: Lane | None = None
        self.when_forked: Callable[[], None] = lambda: None

    def forked(self) -> None:
        """Whoever else worked on the former file is of another world."""
        self.when_forked()

    def disk_image(self) -> Path:
        """What is on the disk now."""
        return self.disk.image()

    def identity(self) -> HubIdentity:
        """Who this hub is in this life."""
        return self._identity(f"{self.name}.{self.life}")

    def _open(self) -> None:
        self.store = HubStoreOnDisk(
            self.disk.at / "hub.db", self.kept, self._acting, lambda rows: self.eyes.committed(self, rows)
        )
        self.store.send = self._send
        self.core = HubCore(self.identity(), self.store.saved())
        door = HubDoor(REGION)

        def hear(event: LinkEvent) -> None:
            if isinstance(event, Heard):
                read = door.read(event)
                if read is not None:
                    self.post(read)
            else:
                self.post(event)

        heard = [topic for topic in topics.heard_by_hub(REGION) if not topic.endswith("/telemetry")]
        self._line = self.wires.line(self.name, heard, hear, self.core.presence(False))
        self._line.open()
        self.lane = Lane(self)

    def _let_go(self, image: Path | None) -> None:
        self.store.close()
        if self.lane is not None:
            self.lane.close()
        if image is not None:
            self.disk.goes_on_from(image)

    def _sign(self, envelope: Envelope) -> str | None:
        return self._signer.sign(envelope.topic, envelope.payload) if envelope.is_signed else None

    def _is_late(self, job: Job) -> float:
        return max(self.weather.jobs_late, self.weather.plans_late if isinstance(job, PlanWanted) else 0.0)

    def _do(self, job: Job) -> Any:
        return self._send_notice(job) if isinstance(job, NoticeWanted) else self._do_job(job)


class _Impatient:
    """Instead of waiting for a database that is away, the lane gives up; agents say again what was not acknowledged."""

    def wait(self, timeout: float | None = None) -> bool:
        """At once."""
        return True

    def set(self) -> None:
        """Nobody waits."""


class Lane:
    """The hub's fast lane, driven one commit at a time instead of by its threads."""

    def __init__(self, hub: HubMachine) -> None:
        self._hub = hub
        self._is_open = True
        self._waiting: list[Heard] = []
        self.store = EmbeddedTelemetry(hub.disk.at / "telemetry.db")
        self.lane = FastLane("mqtt://127.0.0.1:1", REGION, self.store, hub.core.knows)
        self.lane._closing = _Impatient()  # type: ignore[assignment]  # nobody waits by the real clock here
        self.lane._link = self  # type: ignore[assignment]  # the line of this universe instead of paho's
        topic = topics.up(REGION, AgentId("+"), "telemetry")
        self._line = hub.wires.line(f"{hub.name}-lane", [topic], self._hear, None)
        self._line.open()

    @property
    def has_nothing_to_do(self) -> bool:
        """Whether nothing waits for a commit."""
        return not self._waiting

    def publish(self, envelope: Envelope) -> bool:
        """What the lane says."""
        self._hub.eyes.leaving(self._hub, envelope)
        said = self._line.publish(Letter(envelope, None))
        self._hub._at("lane sent")
        return said

    def publish_all(self, envelopes: Sequence[Envelope]) -> bool:
        """What the lane says, at once."""
        said = [self.publish(envelope) for envelope in envelopes]
        return all(said)

    def close(self) -> None:
        """The process is gone."""
        self._is_open = False
        self.lane._closing.set()
        self._line.die()
        self.store.close()

    def _hear(self, event: LinkEvent) -> None:
        if isinstance(event, Heard):
            self._waiting.append(event)
            self._hub.clock.after(self._hub.luck.between(0, 20), self._commit)
        else:
            self._guarded(lambda: self.lane._hear(event))

    def _commit(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch or not self._is_open:
            return
        self._hub.eyes.trace(f"{self._hub.name} lane takes {len(batch)}", *(heard.payload for heard in batch))

        def take() -> None:
            self._hub._at("lane decided")
            self.lane._take(batch)

        self._guarded(take)

    def _guarded(self, do: Callable[[], None]) -> None:
        try:
            do()
        except PlugPulled:
            self._hub._die(self._hub.disk_image())


__all__ = ["AgentMachine", "Eyes", "HubDisk", "HubMachine", "Machine"]
