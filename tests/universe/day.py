"""One simulated day, ours: hub and agents decide, vans, drivers and customers are the simulator's truth.

Everything runs in one thread. Instants are the virtual clock's; nothing is delivered before the step that said it is
committed; whatever is said is delivered at the same instant, in the order in which it was said. Rows are committed to
dictionaries. Jobs are done at once, by counted iterations, so that a seed is a day.
"""

import heapq
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cloud_hub.door import Door
from cloud_hub.events import (
    ClosuresAsked,
    DayPlanAsked,
    DepotsSaid,
    NoticeDelivered,
    NoticeWanted,
    OrdersHanded,
    VehiclesSaid,
)
from cloud_hub.hub import HubCore, HubIdentity
from cloud_hub.jobs import Jobs
from cloud_hub.promises import Promise, Rule
from edge_agent.agent import AgentCore
from edge_agent.dialogue import (
    DAY_TOPIC,
    Asked,
    ChangeSaid,
    HeadingSaid,
    ObjectSaid,
    OutcomeSaid,
    OverrideSaid,
    Reply,
    ShiftSaid,
)
from edge_agent.identity import Identity
from edge_agent.sensing import Fix, Scan
from firmware_sim import wheel
from firmware_sim.city import World
from firmware_sim.person import Driver, driver
from firmware_sim.vehicle import Served, Van
from firmware_sim.wheel import Wheel
from shared import topics, wire
from shared.contracts import Plan
from shared.messages import Ack, Presence
from shared.mqtt import Heard
from shared.quantities import EpochMs
from shared.steps import Envelope, Job, JobFailed, LinkUp, Now, Row, step
from shared.work import AgentId
from tests.rooms import keep
from tests.universe.town import LOCAL, VANS, ZONE, Mishap, SteadySolver, Town, clock_face

REGION = "main"
DRIVING_FIX_MS = 10_000
STANDING_FIX_MS = 30_000
SETTLING_MS = 70_000
"""After a van came to stand its fixes keep their pace so long, for an arrival is seen by standing."""
RECEIVER_SPEED = 12.0
"""A fix counts as fresh for 5 s of a receiver that speaks once a second; ours speaks every ten seconds."""
PATIENCE_MS = 20_000
SAMPLE_EVERY_MS = 600_000
LAST_HOUR = 21.0
REFUSES = 0.10

SAYS: dict[str, type[Any]] = {
    "/api/shift": ShiftSaid,
    "/api/heading": HeadingSaid,
    "/api/change": ChangeSaid,
    "/api/outcome": OutcomeSaid,
    "/api/override": OverrideSaid,
}

RULE = Rule()


class Rooms:
    """A store of dictionaries, for one core."""

    def __init__(self) -> None:
        self.rooms: dict[str, dict[str, bytes]] = {}

    def saved(self) -> dict[str, dict[str, bytes]]:
        """Everything that is kept."""
        return self.rooms

    def commit(self, rows: Sequence[Row]) -> None:
        """Keep all the rows."""
        keep(self.rooms, rows)


class Expected(msgspec.Struct, frozen=True):
    """What an agent expected of one stop at one instant."""

    at_ms: int
    stop_id: str
    p10_ms: int
    p50_ms: int
    p90_ms: int


class _ShownStop(msgspec.Struct, frozen=True):
    stop_id: str
    estimate: tuple[int, int, int] | None = None


class _ShownDay(msgspec.Struct, frozen=True):
    stops: tuple[_ShownStop, ...] = ()


@dataclass(slots=True)
class Trace:
    """What became of one day: everything the figures are made of."""

    seed: int
    plans: dict[str, Plan] = field(default_factory=dict)
    promises: dict[str, Promise] = field(default_factory=dict)
    served: dict[str, Served] = field(default_factory=dict)
    served_by: dict[str, str] = field(default_factory=dict)
    expected: list[Expected] = field(default_factory=list)
    metres: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    ended_ms: dict[str, int] = field(default_factory=dict)
    first_estimates: dict[str, int] = field(default_factory=dict)


class VanCell:
    """One van with its driver, its agent and the page between them."""

    def __init__(self, name: str, town: Town, seed: int, world: World, who: Driver, now_ms: int) -> None:
        luck = town.luck(seed)
        self.name = name
        self.store = Rooms()
        self.core = AgentCore(
            Identity(
                AgentId(name), REGION, f"boot-{name}", f"life-{name}", version="universe", zone=LOCAL,
                clock_speed=RECEIVER_SPEED,
            ),
            self.store.saved(),
        )  # fmt: skip
        self.van = Van(name, world, town.depot, who, luck, now_ms)
        self.wheel = Wheel(who, luck.of("wheel", name), PATIENCE_MS)
        self.page = b""
        self.day: wheel.Day | None = None
        self.fix_at_ms = now_ms + DRIVING_FIX_MS
        self.stands_since_ms = now_ms
        self.keys = 0
        self.look_at_ms: int | None = None
        self.wake_ms: int | None = None
        self.counts: Counter[str] = Counter()

    def read_page(self) -> wheel.Day | None:
        """The page as the driver sees it now."""
        if self.day is None and self.page:
            self.day = msgspec.json.decode(self.page, type=wheel.Day)
        return self.day

    def fix(self, now_ms: int) -> Fix:
        """What the receiver says now, and when it speaks next."""
        motion = self.van.motion()
        if motion.speed_mps > 0.5:
            self.stands_since_ms = now_ms
        settled = now_ms - self.stands_since_ms > SETTLING_MS
        self.fix_at_ms = now_ms + (STANDING_FIX_MS if settled else DRIVING_FIX_MS)
        return Fix(EpochMs(now_ms), motion.position, motion.speed_mps)


class Universe:
    """Drives one day. `run` once."""

    def __init__(
        self, town: Town, seed: int, rule: Rule = RULE, vans: Sequence[str] = VANS, most_orders: int = 10_000
    ) -> None:
        """`vans` and `most_orders` make a smaller day of the same seed."""
        self.town, self.seed = town, seed
        self._most_orders = most_orders
        self.world = town.world(seed)
        self.now_ms: int = town.at(seed, 6.5)
        self.hub_store = Rooms()
        identity = HubIdentity(
            region=REGION, life="life", new_boot="boot-hub", zone=ZONE, clock_face=clock_face, rule=rule
        )
        self.hub = HubCore(identity, self.hub_store.saved())
        self.jobs = Jobs(town.roads, SteadySolver(seed), _delivered)  # type: ignore[arg-type]  # the solver's double
        self.door = Door(REGION)
        self.cells = {
            name: VanCell(name, town, seed, self.world, driver_of(town, seed, name), self.now_ms) for name in vans
        }
        self.trace = Trace(seed)
        self.mishaps: list[Mishap] = []
        self._wires: deque[tuple[str, Any]] = deque()

    def run(self) -> Trace:
        """The whole day."""
        self._rise()
        self._plan()
        self._drive()
        return self._told()

    # The day's course.

    def _rise(self) -> None:
        self._to_hub([LinkUp()])
        vehicles = tuple(vehicle for vehicle in self.town.vehicles(self.seed) if vehicle.agent in self.cells)
        self._to_hub([DepotsSaid((self.town.depot,)), VehiclesSaid(vehicles)])
        for cell in self.cells.values():
            self._to_agent(cell, [LinkUp()])
        self._to_hub([OrdersHanded(self.town.orders(self.seed)[: self._most_orders])])
        self._flush()

    def _plan(self) -> None:
        self.now_ms = self.town.at(self.seed, 7)
        self._to_hub([DayPlanAsked(self.town.day(self.seed), "universe")])
        self._flush()
        for key, payload in self.hub_store.rooms.get("plans", {}).items():
            self.trace.plans[key] = msgspec.json.decode(payload, type=Plan)
        for payload in self.hub_store.rooms.get("estimates", {}).values():
            for stop_id, _, p50_ms, _ in msgspec.json.decode(payload)["estimates"]:
                self.trace.first_estimates[stop_id] = p50_ms
        self.mishaps = mishaps_of(self.town, self.seed, self.world, self.trace.plans)

    def _drive(self) -> None:
        last_ms = self.town.at(self.seed, LAST_HOUR)
        sample_at_ms = int(self.town.at(self.seed, 7.5))
        waiting = [mishap.at_ms for mishap in self.mishaps]
        heapq.heapify(waiting)
        to_come = deque(self.mishaps)
        while self.now_ms < last_ms:
            active = [cell for cell in self.cells.values() if cell.van.phase != "done"]
            if not active:
                return
            moments = [sample_at_ms]
            if to_come:
                moments.append(to_come[0].at_ms)
            for cell in active:
                moments.append(cell.van.next_ms())
                moments.append(cell.fix_at_ms)
                if cell.wake_ms is not None:
                    moments.append(cell.wake_ms)
                if cell.look_at_ms is not None:
                    moments.append(cell.look_at_ms)
            self.now_ms = max(min(moments), self.now_ms)
            while to_come and to_come[0].at_ms <= self.now_ms:
                self._befall(to_come.popleft())
            for cell in active:
                self._turn(cell)
                if cell.van.phase == "done":
                    self.trace.ended_ms[cell.name] = self.now_ms
            self._flush()
            if sample_at_ms <= self.now_ms:
                sample_at_ms += SAMPLE_EVERY_MS
                self._sample()

    def _turn(self, cell: VanCell) -> None:
        """One moment of one van: what happened, what the devices and the driver say of it."""
        now_ms = self.now_ms
        van = cell.van
        phase = van.phase
        van.step(now_ms)
        if (cell.fix_at_ms <= now_ms or van.phase != phase) and van.phase != "done":
            self._to_agent(cell, [cell.fix(now_ms)])
        elif cell.wake_ms is not None and cell.wake_ms <= now_ms:
            self._to_agent(cell, [])
        self._at_the_wheel(cell)

    def _at_the_wheel(self, cell: VanCell) -> None:
        now_ms, van = self.now_ms, cell.van
        day = cell.read_page()
        told = cell.wheel.act(van, day, now_ms)
        for label in told.scans:
            self._to_agent(cell, [Scan(EpochMs(now_ms), label)])
        for post in told.posts:
            self._post(cell, post)
        cell.look_at_ms = None
        if van.is_free and van.phase != "done" and day is not None:
            begins = day.depart_ms
            cell.look_at_ms = begins if begins is not None and begins > now_ms else now_ms + 2_000
        if told.posts or told.scans:
            cell.look_at_ms = min(cell.look_at_ms or now_ms + 1, now_ms + 1)

    def _post(self, cell: VanCell, post: wheel.Post) -> None:
        kind = SAYS.get(post.path)
        if kind is None:
            cell.counts[f"unsaid {post.path}"] += 1
            return
        said = msgspec.convert(post.body, type=kind)
        labels = [Scan(EpochMs(self.now_ms), label) for label in post.scans]
        for picture in post.pictures:
            cell.keys += 1
            said_picture = ObjectSaid(picture.kind, picture.stop_id, "image/png", picture.content)
            self._to_agent(cell, [Asked(f"{cell.name}/{cell.keys}", said_picture)])
        cell.keys += 1
        answers = self._to_agent(cell, [*labels, Asked(f"{cell.name}/{cell.keys}", said)])
        reply = answers.get(len(labels))
        if isinstance(reply, Reply) and reply.status >= 300:
            cell.counts[f"{post.path} {reply.status} {reply.title}"] += 1

    def _befall(self, mishap: Mishap) -> None:
        befall(mishap, {name: cell.van for name, cell in self.cells.items()}, self.now_ms)
        if mishap.kind == "close":
            way = int(mishap.amount)
            street = self.town.roads.way(way).street
            self._to_hub([ClosuresAsked((way,), True, street, "roadworks", "the traffic feed")])

    def _sample(self) -> None:
        for cell in self.cells.values():
            if not cell.page:
                continue
            for shown in msgspec.json.decode(cell.page, type=_ShownDay).stops:
                if shown.estimate is not None:
                    self.trace.expected.append(Expected(self.now_ms, shown.stop_id, *shown.estimate))

    def _told(self) -> Trace:
        trace = self.trace
        for key, payload in self.hub_store.rooms.get("promises", {}).items():
            trace.promises[key] = msgspec.json.decode(payload, type=Promise)
        for cell in self.cells.values():
            trace.served |= cell.wheel.served
            trace.served_by |= dict.fromkeys(cell.wheel.served, cell.name)
            trace.metres[cell.name] = cell.van.motion().odometer_m
            for name, count in [*cell.counts.items(), *cell.core.counters().items()]:
                trace.counts[name] += count
        for name, count in self.hub.counts.items():
            trace.counts[f"hub {name}"] += count
        for payload in self.hub_store.rooms.get("notices", {}).values():
            trace.counts[f"notice {msgspec.json.decode(payload)['kind']}"] += 1
        return trace

    # The wires.

    def _now(self) -> Now:
        return Now(EpochMs(self.now_ms), self.now_ms)

    def _to_hub(self, events: list[Any]) -> None:
        made, leaving = step(self.hub, self.hub_store, events, self._now())
        self._wires.extend(("hub", envelope) for envelope in leaving)
        self._wires.extend(("job", job) for job in made.jobs)

    def _to_agent(self, cell: VanCell, events: list[Any]) -> dict[int, Any]:
        made, leaving = step(cell.core, cell.store, events, self._now())
        cell.wake_ms = cell.core.wake(self._now()).domain_ms
        for envelope in leaving:
            # What the page shows is shown at once: the driver may look at it in the next moment.
            if envelope.topic == DAY_TOPIC:
                cell.page, cell.day = envelope.payload, None
            elif not envelope.topic.startswith("page/"):
                self._wires.append((cell.name, envelope))
        for job in made.jobs:
            self._to_agent(cell, [self._do(job, self.town.workshop.do)])
        return made.answers

    def _flush(self) -> None:
        """Deliver everything said, and what is said in answer, until nobody has anything to say."""
        while self._wires:
            for_hub: list[Any] = []
            while self._wires:
                who, said = self._wires.popleft()
                if who == "job":
                    for_hub.append(self._do(said, self.jobs.do))
                elif who == "hub":
                    self._deliver_down(said)
                else:
                    event = self._heard(self.cells[who], said)
                    if event is not None:
                        for_hub.append(event)
            if for_hub:
                self._to_hub(for_hub)

    def _heard(self, cell: VanCell, envelope: Envelope) -> Any:
        """What the hub hears of an agent's envelope; telemetry is taken by its own lane and acknowledged at once."""
        if topics.read(envelope.topic).carries == "telemetry":
            batch = wire.decode_telemetry(envelope.payload)
            self._to_agent(cell, [Ack(AgentId(cell.name), batch.boot, "telemetry", batch.seq)])
            return None
        return self.door.read(Heard(envelope.topic, envelope.payload, None))

    def _deliver_down(self, envelope: Envelope) -> None:
        place = topics.read(envelope.topic)
        if place.carries == "presence":
            presence = wire.decode_presence(envelope.payload)
            for cell in self.cells.values():
                self._to_agent(cell, [presence])
            return
        cell = self.cells[place.party]
        if place.carries == "acks":
            self._to_agent(cell, [wire.decode_ack(envelope.payload)])
        else:
            self._to_agent(cell, [wire.decode_numbered(envelope.payload)])

    def _do(self, job: Job, do: Any) -> Any:
        try:
            return do(job)
        except Exception as wrong:  # noqa: BLE001 - a job that fails is an event, as in the runner.
            self.trace.counts[f"job failed {type(job).__name__} {type(wrong).__name__}"] += 1
            return JobFailed(job, f"{type(wrong).__name__}: {wrong}")


def _delivered(wanted: NoticeWanted) -> Any:
    return NoticeDelivered(wanted.need, "ok")


def driver_of(town: Town, seed: int, name: str) -> Driver:
    """The driver of this van on this day, who turns down one change in ten and strays as drivers do."""
    who = driver(town.luck(seed), name)
    return Driver(who.name, who.pace, who.handiness, who.walks_mps, who.strays, REFUSES, who.break_lean)


def befall(mishap: Mishap, vans: dict[str, Van], now_ms: int) -> None:
    """Let a mishap befall whom it befalls."""
    for name, van in vans.items():
        if mishap.van not in (None, name) or van.phase == "done":
            continue
        if mishap.kind == "slow":
            van.slow(mishap.amount, now_ms)
        elif mishap.kind == "hold" and van.phase != "depot":
            van.hold(round(mishap.amount * 60_000), now_ms)
        elif mishap.kind == "close":
            van.close_way(int(mishap.amount), now_ms)


def mishaps_of(town: Town, seed: int, world: World, plans: dict[str, Plan]) -> list[Mishap]:
    """Everything that goes wrong on this day; a street that closes is one on a planned way, so that it matters."""
    found = town.mishaps(seed)
    closing = town.closing_hour(seed)
    if closing is not None and closing[1] in plans:
        at_ms = town.at(seed, closing[0])
        way = _way_ahead(world, plans[closing[1]], at_ms)
        if way is not None:
            found.append(Mishap(at_ms, None, "close", way))
    return sorted(found, key=lambda mishap: mishap.at_ms)


def _way_ahead(world: World, plan: Plan, at_ms: int) -> int | None:
    """A way in the middle of a drive that the plan has for the hour after this instant."""
    later = [k for k, stop in enumerate(plan.stops) if k and stop.told.opens_ms >= at_ms]
    for k in later:
        a, b = plan.stops[k - 1], plan.stops[k]
        if a.door_group and a.door_group == b.door_group:
            continue
        course = world.course(world.place(a.position), world.place(b.position), 11, frozenset())
        if len(course.ways) >= 4:
            return course.ways[len(course.ways) // 2][0]
    return None


__all__ = ["RULE", "Expected", "Presence", "Rooms", "Trace", "Universe", "VanCell", "befall", "driver_of", "mishaps_of"]
