"""One seed, one universe: a bad day, a healing, and the promises held against everything that was said and kept."""

import hashlib
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from nacl.signing import SigningKey

from cloud_hub.events import DayPlanAsked, DepotsSaid, NoticeWanted, OrdersHanded, VehiclesSaid
from cloud_hub.fleet import AgentRecord, Closures, StopRecord
from cloud_hub.hub import HubIdentity
from cloud_hub.notice_rules import NoticeRule
from edge_agent import telemetry
from edge_agent.dialogue import Said
from shared import topics
from shared.signing import Signer
from shared.steps import Consequences, Envelope, Row
from shared.work import AgentId, Stop
from tests.simulation import disks, town
from tests.simulation.clockwork import Clockwork
from tests.simulation.disks import Acting, Kept
from tests.simulation.luck import Luck, Weather
from tests.simulation.machines import AgentMachine, HubDisk, HubMachine, Machine
from tests.simulation.people import Driver, PostOffice, Townspeople
from tests.simulation.promises import ALL, Facts, Promise
from tests.simulation.town import DAY, DEPARTS_MS, MINUTE_MS, RISES_MS, ZONE, Household, clock_face
from tests.simulation.wires import Wires

LASTS_MIN = (35, 85)
"""How long after the vans' departure the day heals."""
CONVERGES_WITHIN_MS = 45 * MINUTE_MS
"""The longest patience of a job is two minutes, of a stream 45 s, of a notice some ten minutes in all."""
LEAST_TO_SETTLE_MS = 90_000
LAST_LINES = 40
SAMPLES_IN_A_BATCH = 12

AGENT_POINTS = ("idle", "decided", "committing", "committing", "committing", "committed", "sent", "spoken")
ANY_STATEMENT = 1_000_000
"""The plug is pulled before any statement of a commit, however many those are."""
HUB_POINTS = (*AGENT_POINTS, "committing", "lane decided", "lane sent")


class Universe:
    """Everything there is in one seed. `run` once; raises promises.Broken."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        templates: Path,
        promises: Sequence[type[Promise]] = ALL,
        keep_lines: bool = False,
    ) -> None:
        self.seed = seed
        luck = Luck(seed)
        self.luck = luck
        self.weather = Weather.drawn(luck.of("weather"))
        self.clock = Clockwork(RISES_MS)
        self.heals_ms = DEPARTS_MS + luck.of("heals").between(*LASTS_MIN) * MINUTE_MS
        self.wires = Wires(self.clock, luck, self.weather)
        self._digest = hashlib.sha256()
        self._lines: deque[str] = deque(maxlen=None if keep_lines else LAST_LINES)
        self._said_on: dict[str, bytes] = {}
        """What was last said on each topic: half of it is what nobody can read."""
        self.facts = Facts(seed)
        self.facts.now_ms = lambda: self.clock.now_ms
        self.promises = [promise(self.facts) for promise in promises]
        self.homes = town.households(luck, seed, luck.of("town").between(8, 15), self.weather.is_tight_day)
        self.facts.homes = self.homes
        names = [AgentId(f"van-{number + 1}") for number in range(luck.of("town", "vans").between(2, 3))]
        key = SigningKey(hashlib.sha256(f"hub {seed}".encode()).digest())
        hub_key = Signer(key).public_hex()
        self.acting = Acting()
        self.post_office = PostOffice(luck, self.weather, self._notice_given)
        self._hub_disk = HubDisk(folder / "hub", templates)
        self._hub_kept = Kept()
        self.facts.hub_kept = self._hub_kept
        self._key = key
        self._rule = NoticeRule(
            on=luck.of("rule").pick(((), ("email", "sms"), ("email", "sms", "webhook"), ("webhook",)))
        )
        self._hubs = 0
        self.hub = self._new_hub()
        self.zombies: list[HubMachine] = []
        self.agents = {
            name: AgentMachine(
                name, folder / name, templates, town.do_agent_job, hub_key, seed, self.clock, self.wires, luck,
                self.weather, self,
            )
            for name in names
        }  # fmt: skip
        self.facts.agents = self.agents
        self.drivers = [
            Driver(machine, self._stop_named, self._told_driver, self.clock, luck, seed)
            for machine in self.agents.values()
        ]
        self.people = Townspeople(self._ask_hub, self.homes, self.clock, luck, self._forgot)

    # The day.

    def run(self) -> str:
        """The whole day; the trace's hash."""
        self._rise()
        self.clock.run_until(self.heals_ms)
        self._heal()
        self._converge()
        self._end()
        return self._digest.hexdigest()

    def _rise(self) -> None:
        self.hub.wake()
        for machine in self.agents.values():
            late_ms = self.luck.of("rise", machine.name).pick((0, 0, 1_000, 10 * MINUTE_MS))
            self.clock.after(late_ms, machine.wake)
        names = tuple(self.agents)
        fleet = VehiclesSaid(town.vehicles(names, self.luck.of("vehicles")))
        insist = self.people.insist
        insist(DepotsSaid((town.DEPOT,)), lambda _: insist(fleet, lambda _: self._hand_in()))
        for driver in self.drivers:
            driver.rise()
        self.people.rise(self.heals_ms)
        self._draw_bad_luck()

    def _hand_in(self) -> None:
        half = len(self.homes) - self.luck.of("hand in").between(0, 3)
        first, rest = self.homes[:half], self.homes[half:]
        asked = DayPlanAsked(DAY, "Dora Dispatcher")
        insist = self.people.insist

        def handed(homes: Sequence[Household]) -> OrdersHanded:
            return OrdersHanded(tuple(home.order for home in homes), tuple(home.customer for home in homes))

        insist(handed(first), lambda _: insist(asked))
        if rest:
            self.clock.after(8 * MINUTE_MS, lambda: insist(handed(rest)))

    def _draw_bad_luck(self) -> None:
        weather = self.weather
        begins, ends = RISES_MS + 1_000, self.heals_ms - 1_000
        for number in range(weather.plugs):
            own = self.luck.of("plug", number)
            name, point = own.pick(tuple(self.agents)), own.pick(AGENT_POINTS)
            times = own.between(1, ANY_STATEMENT if point == "committing" else 6)
            self.clock.at(own.between(begins, ends), lambda n=name, p=point, t=times: self.agents[n].pull(p, t))  # type: ignore[misc]
        for number in range(weather.hub_plugs):
            own = self.luck.of("hub plug", number)
            point = own.pick(HUB_POINTS)
            times = own.between(1, ANY_STATEMENT if point == "committing" else 8)
            at_ms = own.between(begins, ends)
            if own.chance(0.4):
                # Dies in the middle of many words, and says them again at once: old and new overtake each other.
                point = own.pick(("sent", "spoken"))
                self.clock.at(at_ms, lambda o=own: self.people.tell_many(o))  # type: ignore[misc]
            self.clock.at(at_ms, lambda p=point, t=times: self.hub.pull(p, t))  # type: ignore[misc]
        for number in range(weather.cuts):
            own = self.luck.of("cut", number)
            name = own.pick((*self.agents, "hub", "hub-lane"))
            way = own.pick(("up", "down", "both"))
            for_ms = own.pick((2_000, 12_000, 60_000, 15 * MINUTE_MS))
            self.clock.at(own.between(begins, ends), lambda n=name, w=way, f=for_ms: self._cut(n, w, f))  # type: ignore[misc]
        for number in range(weather.broker_falls):
            own = self.luck.of("broker", number)
            away_ms = own.pick((100, 5_000, 120_000))
            self.clock.at(own.between(begins, ends), lambda a=away_ms: self.wires.fall(a))  # type: ignore[misc]
        for number in range(weather.stalls):
            own = self.luck.of("stall", number)
            name, for_ms = own.pick((*self.agents, "hub")), own.pick((3_000, 30_000, 240_000))
            self.clock.at(own.between(begins, ends), lambda n=name, f=for_ms: self._machine(n).stall(f))  # type: ignore[misc]
        for number in range(weather.fills):
            own = self.luck.of("fill", number)
            room, from_ms = self.agents[own.pick(tuple(self.agents))].room, own.between(begins, ends)
            self.clock.at(from_ms, room.fill)
            self.clock.at(from_ms + own.pick((60_000, 20 * MINUTE_MS, 120 * MINUTE_MS)), room.clear)
        for number in range(weather.takeovers):
            own = self.luck.of("takeover", number)
            wakes_ms = own.pick((100, 5_000, 120_000))
            self.clock.at(own.between(begins, ends), lambda w=wakes_ms: self._take_over(w))  # type: ignore[misc]

        for number in range(weather.garbage):
            own = self.luck.of("garbage", number)
            name, kind = own.pick(tuple(self.agents)), own.pick(("events", "objects", "telemetry", "presence"))
            topic = own.pick((topics.up(town.REGION, name, kind), topics.down(town.REGION, name, "commands"),
                              topics.down(town.REGION, name, "acks"), topics.hub_presence(town.REGION)))  # fmt: skip
            self.clock.at(own.between(begins, ends), lambda t=topic, o=own: self._garble(t, o))  # type: ignore[misc]
        if weather.plans_late:
            for driver in self.drivers:
                asked_ms = driver.begins_ms - self.luck.of("leaving", driver.begins_ms).between(500, 20_000)
                asked = DayPlanAsked(DAY, "Dora Dispatcher")
                self.clock.at(asked_ms, lambda asked=asked: self.people.insist(asked))  # type: ignore[misc]
        for number in range(weather.forgets_away):
            own = self.luck.of("forgets away", number)
            # Either the van has not even heard its first plan, or it is on the road.
            at_ms = own.between(*own.pick(((RISES_MS + 10, RISES_MS + 5_000), (DEPARTS_MS, ends))))
            name = own.pick(tuple(self.agents))
            self.clock.at(at_ms, lambda n=name, o=own: self._forget_away(n, o))  # type: ignore[misc]

    def _garble(self, topic: str, luck: Luck) -> None:
        said = self._said_on.get(topic, b"")[: luck.between(1, 400)]
        self.wires.garble(topic, luck.pick((b"", b"{}", b"\xff\x00\x93", b'{"sender":"van-1"}', said[:-1])))

    def _forget_away(self, name: AgentId, luck: Luck) -> None:
        """A van is out of reach for a quarter of an hour; meanwhile somebody it has on its list is forgotten."""
        self._cut(name, "both", 15 * MINUTE_MS)
        self.clock.after(luck.between(20, 300) * 1_000, lambda: self._forget_one_of(name, luck))

    def _forget_one_of(self, name: AgentId, luck: Luck) -> None:
        stops = self._hub_kept.room("stops").values()
        records = [msgspec.json.decode(doc, type=StopRecord) for doc in stops]
        theirs = {record.stop_id for record in records if record.agent == name and record.state != "done"}
        homes = [home for home in self.homes if home.order.stop is not None and home.order.stop.stop_id in theirs]
        if homes:
            self.people.wish_and_be_forgotten(luck.pick(homes), luck)

    def _machine(self, name: str) -> Machine:
        return self.hub if name == "hub" else self.agents[AgentId(name)]

    def _cut(self, name: str, way: str, for_ms: int) -> None:
        line = name.replace("hub", self.hub.name) if name.startswith("hub") else name
        self.wires.cut(line, way, for_ms)

    def _new_hub(self) -> HubMachine:
        self._hubs += 1
        return HubMachine(
            f"hub{self._hubs}", self._hub_disk, self._hub_kept, self.acting, town.do_hub_job, self.post_office.send,
            self._hub_identity, self._key, self.clock, self.wires, self.luck, self.weather, self,
        )  # fmt: skip

    def _hub_identity(self, life: str) -> HubIdentity:
        return HubIdentity(
            region=town.REGION, life=f"{self.seed}.{life}", new_boot=f"boot-hub-{self.seed}", zone=ZONE,
            clock_face=clock_face, notices=self._rule,
        )  # fmt: skip

    def _take_over(self, wakes_ms: int) -> None:
        """The acting hub stalls, a standby takes over, and the old one wakes up late."""
        if not self.hub.is_alive:
            return
        self.trace("a standby takes over")
        old = self.hub
        old.stall(wakes_ms)
        old.spare()  # What it leaves behind when it dies is not what the next one wakes from.
        self.zombies.append(old)
        self.hub = self._new_hub()
        self.hub.when_forked = self._end_zombies
        self.hub.wake()

    def _end_zombies(self) -> None:
        for zombie in self.zombies:
            if zombie.is_alive:
                zombie._die(None)

    # The healing.

    def _heal(self) -> None:
        self.trace("everything heals")
        for driver in self.drivers:
            driver.stop()
        self.people.stop()
        self.wires.clear()
        self.post_office.is_fair = True
        self._end_zombies()
        for machine in self.agents.values():
            machine.room.clear()
            machine.find_time("kernel")
        for machine in (self.hub, *self.agents.values()):
            machine.clear()

    def _converge(self) -> None:
        ends = self.heals_ms + CONVERGES_WITHIN_MS
        self.clock.run_until(self.heals_ms + LEAST_TO_SETTLE_MS)
        while not self._is_quiet() and self.clock.now_ms < ends:
            self.clock.run_until(self.clock.now_ms + 250)
        self.facts.did_converge = self._is_quiet()
        self.facts.left_over = self._left_over()

    def _is_quiet(self) -> bool:
        return not self._left_over()

    def _left_over(self) -> dict[str, Any]:
        left: dict[str, Any] = {}
        for machine in (self.hub, *self.agents.values()):
            if not machine.has_nothing_to_do:
                left[machine.name] = f"alive {machine.is_alive}, jobs {machine.jobs_under_way}"
            for room in ("outbox",):
                if machine.kept.room(room):
                    left[f"{machine.name} {room}"] = sorted(machine.kept.room(room))[:8]
        for name, machine in self.agents.items():
            waiting = [key for key in machine.kept.room("telemetry") if key.isdigit()]
            if waiting:
                left[f"{name} telemetry"] = waiting[:5]
        hub = self._hub_kept
        for room in ("needs", "amendments"):
            if hub.room(room):
                left[f"hub {room}"] = sorted(hub.room(room))
        if self.hub.lane is not None and not self.hub.lane.has_nothing_to_do:
            left["lane"] = "batches wait"
        version = max(
            (msgspec.json.decode(doc, type=Closures).version for doc in hub.room("roads").values()), default=0
        )
        for key, doc in hub.room("agents").items():
            record = msgspec.json.decode(doc, type=AgentRecord)
            if key in hub.room("plans") and record.shift != "ended" and record.legs_version < version:
                left[f"roads of {key}"] = record.legs_version
        due = [key for key, doc in hub.room("notices_due").items() if b'"state":"due"' in doc]
        if due:
            left["notices due"] = due[:5]
        return left

    def _end(self) -> None:
        for promise in self.promises:
            promise.ended_running(self)
        for machine in (self.hub, *self.agents.values()):
            image = machine.disk_image()
            machine.is_alive = False
            if machine._line is not None:
                machine._line.die()
            machine._let_go(image)
        for promise in self.promises:
            promise.ended(self)

    # What people hear and do.

    def _ask_hub(self, said: Any, hear: Callable[[Any], None]) -> None:
        self.hub.post(said, hear)

    def _stop_named(self, stop_id: str) -> Stop | None:
        """Where the driver has to go: what his own page's plan says."""
        for machine in self.agents.values():
            plan = machine.kept.room("plan").get("plan")
            if plan is not None and f'"{stop_id}"'.encode() in plan:
                for stop in msgspec.json.decode(plan, type=_Stops).stops:
                    if stop.stop_id == stop_id:
                        return stop
        return None

    def _told_driver(self, van: str, key: str, said: Said, reply: Any) -> None:
        for driver in self.drivers:
            self.facts.said_ms.update(driver.said_ms)
            driver.said_ms.clear()
        self.trace(f"{van} answers {key} {type(said).__name__} {reply.status}")
        for promise in self.promises:
            promise.replied(van, key, said, reply)

    def _notice_given(self, wanted: NoticeWanted) -> None:
        self.trace(f"notice {wanted.need} by {wanted.channel}")
        for promise in self.promises:
            promise.notified(wanted)

    def _forgot(self, home: Household) -> None:
        self.facts.forgotten.append(home)

    # Eyes.

    def trace(self, line: str, *bytes_: bytes) -> None:
        """One line of what happened."""
        text = f"{self.clock.real_ms / 1000:10.3f} {line}"
        self._digest.update(text.encode())
        for each in bytes_:
            self._digest.update(each)
        self._lines.append(text)

    @property
    def lines(self) -> list[str]:
        """The last lines of the trace, or all of them."""
        return list(self._lines)

    def woken(self, machine: Machine) -> None:
        """A process has read its disk."""
        for promise in self.promises:
            promise.woken(machine)

    def committed(self, machine: Machine, rows: Sequence[Row]) -> None:
        """These rows are on the disk."""
        for row in rows:
            self._digest.update(f"{row.room}/{row.key}".encode() + (row.value or b"-"))
        for promise in self.promises:
            promise.committed(machine, rows)

    def leaving(self, machine: Machine, envelope: Envelope) -> None:
        """This is about to be said."""
        self._said_on[envelope.topic] = envelope.payload
        is_drawn = envelope.topic.endswith("/ingest")  # Names a life at random; nobody acts on the name.
        self.trace(f"{machine.name} says {_words(envelope)}", b"" if is_drawn else envelope.payload)
        for promise in self.promises:
            promise.leaving(machine, envelope)

    def taking(self, machine: Machine, events: Sequence[Any]) -> None:
        """A step begins."""
        if events:
            self.trace(f"{machine.name} takes {', '.join(map(_event_words, events))}")
        for promise in self.promises:
            promise.taking(machine, events)

    def taken(self, machine: Machine, events: Sequence[Any], made: Consequences) -> None:
        """A step is committed."""
        for promise in self.promises:
            promise.taken(machine, events, made)


class _Stops(msgspec.Struct, frozen=True):
    stops: tuple[Stop, ...]


def _words(envelope: Envelope) -> str:
    parts = envelope.topic.split("/")
    if len(parts) == 5 and parts[4] in ("events", "commands", "acks"):
        payload = envelope.payload
        return f"{parts[2]}/{parts[4]} {payload[:230].decode(errors='replace')}"
    if parts[-1] == "ingest":
        return envelope.topic
    return f"{envelope.topic} {hashlib.sha256(envelope.payload).hexdigest()[:8]}"


def _event_words(event: Any) -> str:
    name = type(event).__name__
    inner = getattr(event, "numbered", event)
    if hasattr(inner, "seq") and hasattr(inner, "message"):
        return f"{name} {inner.sender}/{inner.stream}/{inner.seq}@{inner.epoch} {type(inner.message).__name__}"
    if hasattr(event, "ack"):
        return f"{name} {event.agent} {event.ack.upto}"
    if hasattr(event, "upto"):
        return f"{name} {event.stream} {event.upto}"
    if hasattr(event, "need"):
        return f"{name} {event.need}"
    return f"{name} {event.key} {type(event.said).__name__}" if name == "Asked" else name


class Stage:
    """A folder of templates, made once, in which one universe after the other is played."""

    def __init__(self) -> None:
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="waywarden-simulation-", dir=base))
        self._templates = self._folder / "templates"
        disks.make_templates(self._templates)
        # Boxes small enough to be full: a day here makes a hundred samples, not thousands.
        self._full, telemetry.FULL = telemetry.FULL, SAMPLES_IN_A_BATCH

    def universe(self, seed: int, promises: Sequence[type[Promise]] = ALL, keep_lines: bool = False) -> Universe:
        """A universe of this seed, not begun yet."""
        there = self._folder / "universe"
        shutil.rmtree(there, ignore_errors=True)
        return Universe(seed, there, self._templates, promises, keep_lines)

    def close(self) -> None:
        """Leave nothing behind."""
        telemetry.FULL = self._full
        shutil.rmtree(self._folder, ignore_errors=True)
