"""A small town for an agent's tests: plans on a grid of streets, and a rig that drives a core without any I/O."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from edge_agent.agent import AgentCore
from edge_agent.dialogue import (
    ENTRY_TOPIC,
    Asked,
    ChangeSaid,
    Entry,
    HeadingSaid,
    OutcomeSaid,
    Reply,
    Said,
    ShiftSaid,
)
from edge_agent.identity import Identity
from edge_agent.outlook import Improve, Improved, Predict, Predicted, orders_beyond, plans_own
from edge_agent.sensing import Fix, Scan
from shared import wire
from shared.contracts import Freedom, LegTimes, Plan, Rest
from shared.messages import AgentEvent, HubCommand, Numbered, PlanPushed
from shared.quantities import EpochMs, Position, Seconds, TimeWindow, metres_between
from shared.resequence import resequence
from shared.steps import Consequences, Envelope, LinkUp, Now, Row, Saved
from shared.topics import HUB
from shared.work import AgentId, Depot, Outcome, Parcel, Service, Stop, StopId
from tests.rooms import keep

MORNING_MS = EpochMs(1_795_500_000_000)
"""The plan's departure."""
MINUTE_MS = 60_000
CENTRE = Position(60.170, 24.940)
DEPOT = Depot("d", "Depot", Position(60.165, 24.930), Position(60.165, 24.930))


def place(east_m: float, north_m: float) -> Position:
    """A place so far from the centre."""
    return Position(CENTRE.lat + north_m / 111_195, CENTRE.lon + east_m / 55_300)


def stop(
    name: str,
    east_m: float,
    north_m: float,
    told: tuple[float, float] = (0, 600),
    service_s: int = 240,
    service: Service = "hand_over",
    parcels: int = 1,
    door_group: str = "",
) -> Stop:
    """A stop whose told window is given in minutes after departure; its slot is the whole day."""
    window = TimeWindow(EpochMs(MORNING_MS + int(told[0] * 60_000)), EpochMs(MORNING_MS + int(told[1] * 60_000)))
    slot = TimeWindow(MORNING_MS, EpochMs(MORNING_MS + 600 * MINUTE_MS))
    labels = tuple(Parcel(f"WW:{name}/{k + 1}", litres=4.0) for k in range(parcels))
    return Stop(
        StopId(name),
        order_id=f"o-{name}",  # type: ignore[arg-type]
        address=f"{name} street 1",
        position=place(east_m, north_m),
        slot=slot,
        told=window,
        service_s=Seconds(service_s),
        parcels=labels,
        service=service,
        door_group=door_group,
    )


def plan_of(stops: Sequence[Stop], version: int = 1, day: str = "2026-11-23", mps: float = 6.0, **more: Any) -> Plan:
    """A plan whose legs are straight lines with a detour at one speed."""
    places = [DEPOT.position, *(s.position for s in stops)]
    seconds = np.array([[round(1.35 * metres_between(a, b) / mps) for b in places] for a in places])
    legs = LegTimes.from_matrix(
        1, tuple(s.stop_id for s in stops), (EpochMs(MORNING_MS + 900 * MINUTE_MS),), seconds[None, :, :]
    )
    settled: dict[str, Any] = {
        "plan_version": version,
        "agent": AgentId("van-1"),
        "day": day,
        "depot": DEPOT,
        "depart_ms": MORNING_MS,
        "shift_end_ms": EpochMs(MORNING_MS + 600 * MINUTE_MS),
        "expires_ms": EpochMs(MORNING_MS + 700 * MINUTE_MS),
        "stops": tuple(stops),
        "legs": legs,
        "freedom": Freedom(least_gain_s=180, changed_arc_s=45, arcs_per_day=60),
        "rest": None,
    }
    return Plan(**(settled | more))


def identity(boot: str = "b1", life: str = "l1") -> Identity:
    """The van of these tests."""
    return Identity(AgentId("van-1"), "town", boot, life, version="test")


def row_of_houses(count: int = 6, window_min: float = 600) -> list[Stop]:
    """Stops along one street, 400 m apart, to be served in the order of their names."""
    return [stop(f"s{k}", 400.0 * k, 0.0, told=(0, window_min)) for k in range(1, count + 1)]


class Rig:
    """A core with a dictionary for a disk, whose jobs are done at once by the plan's own times and the real kernel."""

    def __init__(self, now_ms: int = MORNING_MS, saved: Saved | None = None, iterations: int = 4_000) -> None:
        self.now_ms = now_ms
        self.disk: dict[str, dict[str, bytes]] = {room: dict(rows) for room, rows in (saved or {}).items()}
        self.core = AgentCore(identity(), self.disk)
        self.said: list[AgentEvent] = []
        self.seqs: list[int] = []
        self.envelopes: list[Envelope] = []
        self.does_jobs = True
        self.jobs: list[Any] = []
        self._keys = 0
        self._commands = 0
        self._iterations = iterations

    def step(self, *events: Any, after_s: float = 0.0) -> Consequences:
        """One step, its commit, and every step that follows from its jobs."""
        self.now_ms += round(after_s * 1000)
        now = Now(EpochMs(self.now_ms), self.now_ms)
        made = self.core.handle(events, now)
        self._commit(made.rows)
        self.envelopes += [*made.envelopes, *self.core.due(now)]
        if not self.does_jobs:
            self.jobs += made.jobs
            return made
        for job in made.jobs:
            self.step(self.answer_to(job))
        return made

    def answer_to(self, job: Any) -> Any:
        """What a workshop without models would answer."""
        if isinstance(job, Predict):
            return Predicted(job.need, plans_own(job.bearing, job.bearing.order))
        assert isinstance(job, Improve)
        found = resequence(job.problem, iterations=self._iterations, seed=job.seed)
        beyond = orders_beyond(job.bearing)
        head = job.bearing.order[: len(job.bearing.order) - len(beyond)]
        order = head + tuple(beyond[node - 1] for node in found.order)
        foreseen = plans_own(job.bearing, order) if found.improved else None
        return Improved(job.need, found.order, found.iterations_used, foreseen)

    def hub(self, *commands: HubCommand, epoch: int = 1, boot: str = "hub-1") -> None:
        """The hub says something, in order."""
        for command in commands:
            self._commands += 1
            self.step(
                Numbered(HUB, boot, "commands", self._commands, EpochMs(self.now_ms), epoch, command),
            )

    def push(self, plan: Plan, epoch: int = 1) -> None:
        """The hub pushes a plan that may be begun within the hour."""
        self.hub(PlanPushed(plan, EpochMs(self.now_ms + 60 * MINUTE_MS)), epoch=epoch)

    def driver(self, said: Said, key: str = "", after_s: float = 0.0) -> Reply:
        """The driver says something on the page."""
        self._keys += 1
        made = self.step(Asked(key or f"k{self._keys}", said), after_s=after_s)
        reply = made.answers[0]
        assert isinstance(reply, Reply)
        return reply

    def begin(self) -> None:
        """The shift begins."""
        assert self.driver(ShiftSaid("begun")).status == 200

    def heads_for(self, stop_id: str, after_s: float = 0.0) -> Reply:
        """The driver sets off."""
        return self.driver(HeadingSaid(stop_id), after_s=after_s)

    def delivers(self, stop_id: str, after_s: float = 240.0, **more: Any) -> Reply:
        """The driver scans every parcel of a stop and hands them over."""
        self.now_ms += round(after_s * 1000)
        the_stop = next(s for s in self.plan.stops if s.stop_id == stop_id)
        scans = [Scan(EpochMs(self.now_ms), parcel.barcode) for parcel in the_stop.parcels]
        self.step(*scans)
        return self.driver(OutcomeSaid(stop_id, Outcome.DELIVERED_TO_PERSON, **more))

    def visits(self, stop_id: str, drive_s: float = 120.0, service_s: float = 240.0) -> None:
        """Drive to a stop, stand there, deliver."""
        assert self.heads_for(stop_id).status == 200
        the_stop = next(s for s in self.plan.stops if s.stop_id == stop_id)
        self.stands_at(the_stop.position, after_s=drive_s)
        assert self.delivers(stop_id, after_s=service_s).status == 200

    def stands_at(self, position: Position, after_s: float = 0.0, for_s: int = 70) -> None:
        """Fixes of a van that stands somewhere, after a drive nobody watched."""
        self.now_ms += round(after_s * 1000)
        for _ in range(0, for_s, 5):
            self.step(self.fix(position, 0.0), after_s=5)

    def drives_past(self, position: Position, speed_mps: float = 8.0, after_s: float = 0.0) -> None:
        """Three fixes of a moving van, so that a jump from the last place is believed."""
        self.now_ms += round(after_s * 1000)
        for _ in range(4):
            self.step(self.fix(position, speed_mps), after_s=2)

    def fix(self, position: Position, speed_mps: float) -> Fix:
        """A reading of the satellites now."""
        return Fix(EpochMs(self.now_ms), position, speed_mps)

    def waits(self, minutes: float) -> None:
        """Time passes, minute by minute."""
        for _ in range(int(minutes)):
            self.step(after_s=60)

    def refuses(self, change_id: str, reason: str = "no") -> Reply:
        """The driver turns a change down."""
        return self.driver(ChangeSaid(change_id, "refused", reason))

    def link_up(self) -> None:
        """The broker is there."""
        self.step(LinkUp())

    def restarted(self) -> "Rig":
        """Another process on the same disk."""
        again = Rig(self.now_ms, self.disk, self._iterations)
        again._keys, again._commands = self._keys, self._commands
        return again

    @property
    def plan(self) -> Plan:
        """The plan the agent drives by, read from its disk."""
        return msgspec.json.decode(self.disk["plan"]["plan"], type=Plan)

    @property
    def day(self) -> dict[str, Any]:
        """The day as the page was last shown it."""
        shown = [envelope for envelope in self.envelopes if envelope.topic == "page/day"]
        found: dict[str, Any] = msgspec.json.decode(shown[-1].payload)
        return found

    @property
    def entry(self) -> Entry:
        """Who may read the page, as it was last told."""
        told = [envelope for envelope in self.envelopes if envelope.topic == ENTRY_TOPIC]
        return msgspec.json.decode(told[-1].payload, type=Entry)

    @property
    def shown(self) -> list[str]:
        """The stops to come as the driver sees them."""
        return [each["stop_id"] for each in self.day["stops"]]

    def events(self, kind: type[Any]) -> list[Any]:
        """Everything of one kind the agent has ever said."""
        return [event for event in self.said if isinstance(event, kind)]

    def _commit(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.room == "outbox" and row.value is not None and "/events/" in row.key:
                numbered = wire.decode_numbered(row.value)
                self.said.append(numbered.message)  # type: ignore[arg-type]  # an agent says agent events
                self.seqs.append(numbered.seq)
        keep(self.disk, rows)


REST = Rest(Seconds(1800), TimeWindow(EpochMs(MORNING_MS + 120 * MINUTE_MS), EpochMs(MORNING_MS + 180 * MINUTE_MS)))
