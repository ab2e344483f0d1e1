"""Decide what one agent decides: which plan to drive, where the van is in it, when another order is better.

The core is handed events and instants and gives back rows, envelopes and jobs (`shared.steps`); it does no I/O and
reads no clock. Starting and recovering are the same path: `AgentCore(identity, saved)`.

What is durable: the plan with the leg times and told windows that came since, the day (orders, where the van is heading
or stands, scans at hand, shift and break, the change not yet answered, the change budget used), visits, estimates last
said, paces and offsets learned, the last place and the metres driven, answers already given to the page, decisions'
chain, and every stream.

What a restart may forget: what devices said in the last minutes (the belief is rebuilt from the next readings), the
telemetry batch not yet closed, up to a minute of metres driven, the quantiles of the leg under way (one lesson fewer
for the offsets), questions put to the models and the kernel (they are put again), and since when the order could not be
bettered.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.arrivals import Arrivals
from edge_agent.dialogue import (
    DAY_TOPIC,
    Asked,
    ChangeSaid,
    CountersAsked,
    HeadingSaid,
    OutcomeSaid,
    Reply,
    Said,
    ShiftSaid,
)
from edge_agent.kinds import kind_named
from edge_agent.lateness import (
    Lateness,
    Proposal,
    alternatives,
    arcs,
    forbidden,
    is_worth_asking,
    is_worth_it,
    lateness,
    minutes,
    needed_gain_s,
    news,
    propose,
    sentence,
    trouble,
)
from edge_agent.memory import (
    Answered,
    Books,
    Change,
    Day,
    Learned,
    Refused,
    SaidToHub,
    read_part,
)
from edge_agent.outlook import (
    Bearing,
    Foreseen,
    Improve,
    Improved,
    Predict,
    Predicted,
    Spans,
    arrivals,
    estimates,
    orders_beyond,
    place_row,
    route_problem,
    slice_at,
    spans_left,
    with_margins,
)
from edge_agent.sensing import Belief, Fix, Reading, Remembered, Scan, Sensing, limits_at
from edge_agent.shown import day_shown
from edge_agent.telemetry import Collector
from shared import topics, wire
from shared.contracts import LegTimes, LegTimesWrong, Plan
from shared.features import Pace
from shared.labels import LabelRefused, read_label
from shared.ledger import Decision, Input
from shared.messages import (
    Ack,
    AgentEvent,
    AgentStarted,
    Arrived,
    ChangeAnswered,
    Decided,
    Estimate,
    EstimatesMoved,
    HeadingTo,
    Numbered,
    PlanPushed,
    PlanRefused,
    PlanTaken,
    Presence,
    Resequenced,
    RoadsChanged,
    ShiftChanged,
    Visited,
    WindowTold,
)
from shared.quantities import EpochMs, Position, TimeWindow, metres_between
from shared.routes import BadRoute, RouteProblem, evaluate
from shared.steps import Consequences, Envelope, JobFailed, LinkDown, LinkUp, Now, Row, Saved, Wake
from shared.streams import Receiver, Sender, Take
from shared.work import AgentId, Proof, Stop, StopId, Visit, missing_from_proof

FORESEE_EVERY_MS = 60_000
"""A prediction costs a few milliseconds of a small processor; once a minute is seldom enough and follows any delay."""
FORESEE_BEFORE_MS = 1_800_000
"""Before departure there is nothing to learn from looking more than half an hour ahead."""
DEVIATION_MS = 120_000
"""When the van's own progress says that it will be there so much later or sooner, the next minute is too late."""
DEVIATION_AT_MOST_EVERY_MS = 15_000
KERNEL_MS = 50
REMEMBER_EVERY_MS = 60_000
"""How often the last place and the metres driven are committed."""

NEAR_M = 60.0
"""A van parks within a few car lengths of the door, and fixes between houses are 10 to 20 m off."""
NEAR_ENOUGH_M = 90.0
STANDS_MS = 20_000
STANDS_NEAR_ENOUGH_MS = 60_000
"""Longer than most red lights (up to 45 s) where the door is not quite near."""
ELSEWHERE_M = 45.0
STANDS_ELSEWHERE_MS = 120_000
STANDS_AGAINST_HIS_WORD_MS = 300_000
"""A driver who said where he is going and stands elsewhere is held up until five minutes say otherwise."""
LEFT_M = 150.0
"""So far from where it stood, a van has left."""
FRESH_POSITION_S = 90.0
LEAST_OF_THE_WAY = 0.6
"""Without satellites, standing counts as arrival once the wheels have turned for this share of the straight line."""

REFUSED_FOR_MS = 1_800_000
"""A change the driver turned down is not proposed again for half an hour."""
KEEP_AT_MOST_EVERY_MS = 900_000
"""The same rule forbidding a better order is written down once a quarter of an hour, not every minute."""
ANSWERS_KEPT_MS = 64_800_000
"""Idempotency keys are remembered for 18 hours: a working day and the way home."""
HANDED_OVER = 8
"""Telemetry batches numbered and on their way at once; the others may still be thinned."""
MOST_SCANS = 400
NOT_LEARNED_FROM_S = 30.0
"""A leg or stop planned shorter than this says nothing about pace."""


class Identity(msgspec.Struct, frozen=True):
    """Who this agent is. `boot` names the life of its store, `life` that of this process."""

    agent: AgentId
    region: str
    boot: str
    life: str
    kind: str = "vehicle"
    version: str = ""
    zone: tzinfo = UTC
    clock_speed: float = 1.0


class DeadLetter(msgspec.Struct, frozen=True):
    """A signed command whose heading we understand and whose message we do not: its sender is newer than we are.

    It takes its place in the stream, or nothing after it would ever be heard.
    """

    heading: wire.Heading
    why: str


class Outlook(msgspec.Struct, frozen=True):
    """The last look ahead. A restart looks again."""

    at_ms: int
    bearing: Bearing
    foreseen: Foreseen
    spans: Spans
    arrivals: Arrivals
    estimates: tuple[Estimate, ...]
    stands: tuple[Lateness, ...]


class _Question(msgspec.Struct, frozen=True):
    need: str
    version: int
    bearing: Bearing
    problem: RouteProblem | None = None
    plain: RouteProblem | None = None
    trouble_s: int = 0
    seed: int = 0


class AgentCore:
    """One agent's decisions. Not for more than one thread at a time."""

    def __init__(self, identity: Identity, saved: Saved) -> None:
        """From everything the store held; an empty store is a first start. Raises KindUnknown."""
        self.identity = identity
        self._kind = kind_named(identity.kind)
        counters = saved.get("counters", {})
        outbox = saved.get("outbox", {})
        self._events = Sender(topics.HUB, identity.boot, "events", outbox, counters)
        self._telemetry = Sender(topics.HUB, identity.boot, "telemetry", outbox, counters)
        self._taken = Receiver(saved.get("taken", {}))
        self._collector = Collector(identity.agent, identity.boot, saved.get("telemetry", {}))

        plan = saved.get("plan", {})
        self._plan = read_part(plan, "plan", Plan)
        self._legs = read_part(plan, "legs", LegTimes)
        self._told = {
            StopId(key): msgspec.json.decode(value, type=TimeWindow) for key, value in saved.get("told", {}).items()
        }
        day = saved.get("day", {})
        self._day = read_part(day, "day", Day) or Day()
        self._said = read_part(day, "said", SaidToHub) or SaidToHub()
        self._visits = {
            StopId(key): msgspec.json.decode(value, type=Visit)
            for key, value in sorted(saved.get("visits", {}).items())
        }
        own = saved.get("agent", {})
        self._books = read_part(own, "books", Books) or Books()
        self._learned = read_part(own, "learned", Learned) or Learned()
        self._remembered = read_part(own, "place", Remembered) or Remembered()
        self._answered = {
            key: msgspec.json.decode(value, type=Answered) for key, value in sorted(saved.get("answered", {}).items())
        }
        self._written: dict[tuple[str, str], msgspec.Struct | None] = self._parts()

        self._sensing = Sensing(limits_at(identity.clock_speed), self._remembered)
        self._stops: dict[StopId, Stop] = {}
        self._matrix: npt.NDArray[np.int32] = np.zeros((1, 1, 1), np.int32)
        self._read_plan()

        self._is_first_step = True
        self._is_up = False
        self._hub_life = ""
        self.refused: Counter[str] = Counter()
        self._version = 0
        self._questions = 0
        self._foreseeing: _Question | None = None
        self._improving: _Question | None = None
        self._asked_in_vain: tuple[int, int] | None = None
        self._have_roads_changed = False
        self._foresee_now = "started"
        self._outlook: Outlook | None = None
        self._looked_at_ms = 0
        self._near_since: tuple[StopId, int] | None = None
        self._kept_at_ms: dict[str, int] = {}
        self._leg_said: tuple[StopId, tuple[float, ...]] | None = None
        self._stop_said: tuple[StopId, tuple[float, ...]] | None = None
        self._belief: Belief | None = None
        self._remembered_at_ms = 0
        self._revision = 0
        self._shown: bytes = b""
        self._is_page_stale = True
        self._steps = 0
        self._believed = 0
        self._owes_ack = False
        self._now = Now(EpochMs(0), 0)
        self._out = Consequences()

    # What the shell asks.

    def handle(self, events: Sequence[Any], now: Now) -> Consequences:
        """Decide what a batch of events means. The first step of a life may have none."""
        self._out = Consequences()
        self._now = now
        self._steps += 1
        if self._is_first_step:
            self._start()
        has_read = False
        for place, event in enumerate(events):
            if isinstance(event, Reading):
                self._take_reading(event)
                has_read = True
            else:
                answer = self._take(event)
                if answer is not None:
                    self._out.answers[place] = answer
        self._observe(has_read)
        self._foresee()
        self._hand_over_telemetry()
        self._acknowledge()
        self._show()
        self._write_down()
        return self._out

    def due(self, now: Now) -> list[Envelope]:
        """What the streams should send or repeat now; nothing while the link is down."""
        if not self._is_up:
            return []
        return [
            *self._envelopes("events", self._events.due(now.real_ms)),
            *self._envelopes("telemetry", self._telemetry.due(now.real_ms)),
        ]

    def wake(self, now: Now) -> Wake:
        """The next look ahead in domain time, the next repeat in real time."""
        real = None
        if self._is_up:
            waits = (self._events.due_at(now.real_ms), self._telemetry.due_at(now.real_ms))
            real = min((at for at in waits if at is not None), default=None)
        domain = None
        if self._plan is not None and self._day.shown and self._day.shift != "ended":
            domain = max(self._looked_at_ms + FORESEE_EVERY_MS, now.domain_ms + 1)
            starts = self._plan.depart_ms - FORESEE_BEFORE_MS
            if self._day.shift == "waiting" and now.domain_ms < starts:
                domain = starts
        return Wake(domain, real)

    def durable(self) -> dict[str, Any]:
        """Everything a restart must not forget, for comparing a running core with a recovered one."""
        return {
            "parts": self._parts(),
            "told": self._told,
            "visits": self._visits,
            "answered": self._answered,
            "events": (self._events.next_seq, self._events.backlog),
            "telemetry": (self._telemetry.next_seq, self._telemetry.backlog, self._collector.backlog),
            "thinned": self._collector.thinned,
            "commands": self._taken.ack(topics.HUB, "commands"),
        }

    def counters(self) -> dict[str, int]:
        """How the agent is doing, as names and numbers."""
        found = {
            "steps": self._steps,
            "readings_believed": self._believed,
            "events_waiting": self._events.backlog,
            "telemetry_waiting": self._telemetry.backlog + self._collector.backlog,
            "telemetry_thinned_samples": self._collector.thinned,
            "link_is_up": int(self._is_up),
            "plan_version": self._plan_version(),
            "visits": len(self._visits),
            "stops_to_come": len(self._day.shown),
            "decisions": self._books.decisions,
            "arcs_changed_today": self._day.arcs_used,
            "relocations": self._sensing.relocations,
        }
        found |= {f"refused_{name}": count for name, count in sorted(self.refused.items())}
        found |= {f"refused_{name}": count for name, count in sorted(self._sensing.refused.items())}
        return found

    # Events, one kind after the other.

    def _start(self) -> None:
        self._is_first_step = False
        self._revision = self._now.domain_ms
        self._say(AgentStarted(self.identity.kind, self.identity.version, self._plan_version()))

    def _take(self, event: Any) -> Any:
        match event:
            case Numbered():
                self._take_command(event)
            case DeadLetter():
                self._take_dead_letter(event)
            case Ack():
                self._out.rows += self._events.acked(event) if event.stream == "events" else []
                self._out.rows += self._telemetry.acked(event) if event.stream == "telemetry" else []
            case Presence():
                self._take_presence(event)
            case LinkUp():
                self._is_up = True
                self._is_page_stale = True
                self._events.repeat_all()
                self._telemetry.repeat_all()
                self._announce()
            case LinkDown():
                self._is_up = False
                self._is_page_stale = True
            case Asked():
                return self._answer(event)
            case CountersAsked():
                return self.counters()
            case Predicted():
                self._take_predicted(event)
            case Improved():
                self._take_improved(event)
            case JobFailed():
                self._take_failed(event)
            case _:
                raise AssertionError(f"no such event: {event!r}")
        return None

    def _take_presence(self, presence: Presence) -> None:
        """A hub that has begun a new life may have forgotten what was on its way to it."""
        if presence.party != topics.HUB:
            return
        if presence.is_there and presence.life != self._hub_life:
            if self._hub_life:
                self._events.repeat_all()
                self._telemetry.repeat_all()
            self._hub_life = presence.life

    def _announce(self) -> None:
        own = self.identity
        there = Presence(own.agent, is_there=True, life=own.life, boot=own.boot)
        topic = topics.up(own.region, own.agent, "presence")
        self._out.envelopes.append(Envelope(topic, wire.encode(there), topics.QOS["presence"], is_retained=True))

    # Commands.

    def _take_command(self, numbered: Numbered) -> None:
        if numbered.sender != topics.HUB or numbered.stream != "commands":
            self.refused["StreamUnknown"] += 1
            return
        take, rows = self._taken.take(numbered)
        self._out.rows += rows
        self._owes_ack = True
        if take is not Take.NEW:
            self.refused[f"Command{take.value.capitalize()}"] += 1
            return
        is_stale = numbered.epoch < self._books.epoch
        if not is_stale and numbered.epoch > self._books.epoch:
            self._books = msgspec.structs.replace(self._books, epoch=numbered.epoch)
        match numbered.message:
            case PlanPushed() as pushed:
                stale = f"epoch {numbered.epoch} is over, {self._books.epoch} acts now" if is_stale else ""
                self._judge_plan(pushed, stale)
            case _ if is_stale:
                self.refused["EpochOver"] += 1
            case WindowTold() as told:
                self._take_window(told)
            case RoadsChanged() as roads:
                self._take_roads(roads)
            case _:
                self.refused["NotACommand"] += 1

    def _take_dead_letter(self, letter: DeadLetter) -> None:
        heading = letter.heading
        if heading.sender != topics.HUB or heading.stream != "commands":
            self.refused["StreamUnknown"] += 1
            return
        take, rows = self._taken.take(heading)
        self._owes_ack = True
        self.refused["CommandUnknown"] += 1
        if take is Take.NEW:
            kept = Row("dead_letters", f"{heading.boot}/{heading.seq}", letter.why.encode())
            self._out.rows += [*rows, kept]

    def _judge_plan(self, pushed: PlanPushed, stale: str) -> None:
        plan = pushed.plan
        if not stale and plan == self._plan:
            self._say(PlanTaken(plan.plan_version))
            return
        why = stale or self._objection(pushed)
        if why:
            self.refused["PlanRefused"] += 1
            self._say(PlanRefused(plan.plan_version, f"plan {plan.plan_version} refused: {why}"))
        else:
            self._adopt(plan)

    def _objection(self, pushed: PlanPushed) -> str:
        plan = pushed.plan
        if plan.agent != self.identity.agent:
            return f"it is for {plan.agent}, this is {self.identity.agent}"
        if plan.plan_version <= self._plan_version():
            return f"agent already drives plan {self._plan_version()}"
        if self._now.domain_ms > pushed.start_by_ms:
            return f"it came {minutes((self._now.domain_ms - pushed.start_by_ms) / 1000)} min after its start-by time"
        if self._now.domain_ms > plan.expires_ms:
            return "it has expired"
        return "; ".join(plan.objections())

    def _adopt(self, plan: Plan) -> None:
        """Work under a plan: visits done and the stop under way are kept, on another day everything begins anew."""
        is_same_day = self._plan is not None and self._plan.day == plan.day
        if not is_same_day:
            self._out.rows += [Row("visits", stop_id, None) for stop_id in self._visits]
            self._visits = {}
            self._learned = msgspec.structs.replace(self._learned, day=plan.day, legs=Pace(), stops=Pace())
        self._out.rows += [Row("told", stop_id, None) for stop_id in self._told]
        self._told, self._legs, self._plan = {}, None, plan
        self._read_plan()
        planned = tuple(stop.stop_id for stop in plan.stops)
        day = self._day if is_same_day else Day()
        remaining = tuple(stop_id for stop_id in planned if stop_id not in self._visits)
        under_way = day.at_stop or day.heading_to
        if under_way is not None and under_way not in remaining:
            day = msgspec.structs.replace(day, heading_to=None, said_heading=None, at_stop=None, arrived_ms=None)
            under_way = None
        self._day = msgspec.structs.replace(
            day, planned=planned, shown=_first(remaining, under_way), change=None, refused=()
        )
        self._said = SaidToHub()
        self._say(PlanTaken(plan.plan_version))
        self._has_moved_on(f"plan {plan.plan_version} taken")

    def _take_window(self, told: WindowTold) -> None:
        if told.stop_id not in self._stops:
            self.refused["StopUnknown"] += 1
            return
        self._told[told.stop_id] = told.told
        self._out.rows.append(Row("told", told.stop_id, msgspec.json.encode(told.told)))
        # The estimates stand as they are, but against another window: weigh again, and do not cry late twice.
        self._said = msgspec.structs.replace(
            self._said, risks={k: risk for k, risk in self._said.risks.items() if k != told.stop_id}
        )
        self._has_moved_on("a window was told")

    def _take_roads(self, roads: RoadsChanged) -> None:
        plan = self._plan
        if plan is None or roads.plan_version != plan.plan_version:
            self.refused["PlanOfRoadsUnknown"] += 1
            return
        current = self._legs or plan.legs
        if roads.legs.roads_version <= current.roads_version or set(roads.legs.places) != set(plan.legs.places):
            self.refused["RoadsNotNewer"] += 1
            return
        try:
            roads.legs.matrix()
        except LegTimesWrong:
            self.refused["LegTimesWrong"] += 1
            return
        self._legs = roads.legs
        self._read_plan()
        self._have_roads_changed = True
        self._has_moved_on("roads changed")

    def _read_plan(self) -> None:
        if self._plan is None:
            return
        self._stops = {stop.stop_id: stop for stop in self._plan.stops}
        self._matrix = (self._legs or self._plan.legs).matrix()

    # The driver's page.

    def _answer(self, asked: Asked) -> Reply:
        known = self._answered.get(asked.key)
        if known is not None:
            if known.fingerprint == asked.fingerprint():
                return known.reply
            return Reply(422, "Key used before", f"idempotency key '{asked.key}' was used for something else")
        reply = self._obey(asked.said)
        if reply.status < 300:
            # What was refused has changed nothing, and may be right the next time; only what was done is remembered.
            self._remember_answer(asked, reply)
        return reply

    def _remember_answer(self, asked: Asked, reply: Reply) -> None:
        old = [k for k, a in self._answered.items() if a.at_ms < self._now.domain_ms - ANSWERS_KEPT_MS]
        for key in old:
            del self._answered[key]
        answered = Answered(self._now.domain_ms, asked.fingerprint(), reply)
        self._answered[asked.key] = answered
        self._out.rows += [Row("answered", key, None) for key in old]
        self._out.rows.append(Row("answered", asked.key, msgspec.json.encode(answered)))

    def _obey(self, said: Said) -> Reply:
        if self._plan is None:
            return Reply(409, "No plan yet", "the hub has not sent today's work; it comes by itself")
        match said:
            case ShiftSaid():
                return self._change_shift(said.now_is)
            case HeadingSaid():
                return self._set_heading(StopId(said.stop_id))
            case ChangeSaid():
                return self._answer_change(said)
            case OutcomeSaid():
                return self._end_visit(said)

    def _change_shift(self, now_is: str) -> Reply:
        follows = {
            "begun": {"waiting": "under_way", "ended": "under_way"},
            "on_break": {"under_way": "on_break", "waiting": "on_break"},
            "off_break": {"on_break": "under_way"},
            "ended": {"under_way": "ended", "on_break": "ended", "waiting": "ended"},
        }[now_is]
        becomes = follows.get(self._day.shift)
        if becomes is None:
            return Reply(409, "Not now", f"shift is '{self._day.shift}', '{now_is}' does not follow from it")
        now_ms = self._now.domain_ms
        day = msgspec.structs.replace(self._day, shift=becomes)
        if now_is == "on_break":
            day = msgspec.structs.replace(day, rest_began_ms=now_ms)
        elif self._day.shift == "on_break":
            day = msgspec.structs.replace(day, rest_began_ms=None, is_rest_taken=True, left_ms=now_ms)
        elif day.left_ms is None:
            day = msgspec.structs.replace(day, left_ms=now_ms)
        self._day = day
        self._say(ShiftChanged(now_is))
        self._has_moved_on(f"shift {now_is}")
        return Reply(200)

    def _set_heading(self, stop_id: StopId) -> Reply:
        refusal = self._not_to_come(stop_id)
        if refusal is not None:
            return refusal
        if self._day.shift == "on_break":
            self._change_shift("off_break")
        elif self._day.shift == "waiting":
            self._change_shift("begun")
        if self._day.heading_to != stop_id or self._day.at_stop is not None:
            self._head_for(stop_id)
        self._day = msgspec.structs.replace(self._day, said_heading=stop_id)
        return Reply(200)

    def _head_for(self, stop_id: StopId) -> None:
        """The van is under way to a stop; when another was shown first the driver overrides, which is information."""
        day = self._day
        expected = [shown for shown in day.shown if shown != day.at_stop][:1]
        overrides = [stop_id] != expected
        group = self._stops[stop_id].door_group
        stays = day.from_place in self._stops and group != "" and self._stops[day.from_place].door_group == group
        self._day = msgspec.structs.replace(
            day,
            heading_to=stop_id,
            said_heading=None,
            at_stop=None,
            arrived_ms=None,
            shown=_first(day.shown, stop_id),
            set_off_ms=self._now.domain_ms,
            set_off_odometer_m=self._odometer_m(),
            scans=day.scans if stays else (),
        )
        self._leg_said = None
        self._say(HeadingTo(stop_id, overrides))
        self._has_moved_on(f"heading to {stop_id}")

    def _answer_change(self, said: ChangeSaid) -> Reply:
        change = self._day.change
        if change is None or change.change_id != said.change_id:
            return Reply(409, "No such change", f"change '{said.change_id}' is not the one waiting for an answer")
        if said.answer == "refused":
            self._take_back(change)
        else:
            self._day = msgspec.structs.replace(self._day, change=None)
        self._say(ChangeAnswered(said.change_id, said.answer, said.reason, self._day.shown))
        if said.answer == "refused":
            self._has_moved_on("the driver refused a change")
        self._is_page_stale = True
        return Reply(200)

    def _take_back(self, change: Change) -> None:
        """The order the driver last agreed to comes back, for what of it is still to come."""
        to_come = set(self._day.shown)
        former = tuple(stop_id for stop_id in change.before if stop_id in to_come)
        missing = tuple(stop_id for stop_id in self._day.shown if stop_id not in former)
        now_ms = self._now.domain_ms
        recent = tuple(refused for refused in self._day.refused if now_ms - refused.at_ms < REFUSED_FOR_MS)
        self._day = msgspec.structs.replace(
            self._day,
            shown=_first(former + missing, self._day.at_stop or self._day.heading_to),
            change=None,
            refused=(*recent, Refused(now_ms, change.new_arcs)),
        )

    def _not_to_come(self, stop_id: StopId) -> Reply | None:
        if stop_id in self._visits:
            outcome = self._visits[stop_id].outcome.value
            return Reply(409, "Already visited", f"stop '{stop_id}' was ended as '{outcome}'")
        if stop_id not in self._day.shown:
            return Reply(404, "No such stop", f"stop '{stop_id}' is not in plan {self._plan_version()}")
        return None

    def _end_visit(self, said: OutcomeSaid) -> Reply:
        stop_id = StopId(said.stop_id)
        refusal = self._not_to_come(stop_id)
        if refusal is not None:
            return refusal
        stop = self._stops[stop_id]
        visit = self._visit_of(stop, said)
        missing = missing_from_proof(stop, visit)
        if missing:
            return Reply(422, "Proof incomplete", f"{said.outcome.value} at {stop.address} lacks {'; '.join(missing)}")
        self._record(stop, visit)
        return Reply(200)

    def _visit_of(self, stop: Stop, said: OutcomeSaid) -> Visit:
        now_ms, day = self._now.domain_ms, self._day
        arrived_ms = day.arrived_ms if day.at_stop == stop.stop_id and day.arrived_ms is not None else None
        if arrived_ms is None:
            near = self._near_since
            arrived_ms = EpochMs(near[1]) if near is not None and near[0] == stop.stop_id else now_ms
        own = {parcel.barcode for parcel in stop.parcels}
        scanned = tuple(code for code in day.scans if code in own)
        position = None if self._belief is None else self._belief.position
        proof = Proof(scanned, position, now_ms, said.signature, said.photo, said.age_checked)
        return Visit(stop.stop_id, said.outcome, arrived_ms, now_ms, proof, said.reason, said.parcels_left)

    def _record(self, stop: Stop, visit: Visit) -> None:
        day, stop_id = self._day, stop.stop_id
        if day.shift == "waiting":
            self._change_shift("begun")
            day = self._day
        if day.at_stop != stop_id:
            # The page knows better than the satellites: the visit is over, so the van was there.
            self._arrive(stop_id, visit.arrived_ms)
            day = self._day
        self._learn_from_stop(stop, visit)
        self._visits[stop_id] = visit
        self._out.rows.append(Row("visits", stop_id, msgspec.json.encode(visit)))
        done = set(visit.proof.scanned)
        self._day = msgspec.structs.replace(
            day,
            shown=tuple(other for other in day.shown if other != stop_id),
            driven=(*day.driven, stop_id),
            heading_to=None,
            said_heading=None,
            at_stop=None,
            arrived_ms=None,
            from_place=stop_id,
            from_position=stop.position,
            left_ms=visit.left_ms,
            set_off_ms=None,
            scans=tuple(code for code in day.scans if code not in done),
        )
        self._near_since = None
        self._say(Visited(visit))
        self._has_moved_on(f"{stop_id} {visit.outcome.value}")

    # Readings and what they show.

    def _take_reading(self, reading: Reading) -> None:
        if isinstance(reading, Scan):
            self._take_scan(reading)
            return
        refusal = self._sensing.take(reading)
        self._believed += refusal is None
        if refusal is None and isinstance(reading, Fix):
            self._out.rows += self._collector.sample(self._sensing.believe(self._now.domain_ms), self._now.domain_ms)

    def _take_scan(self, scan: Scan) -> None:
        try:
            code = read_label(scan.text).canonical
        except LabelRefused as wrong:
            code = self._expected_label(scan.text)
            if not code:
                self.refused[type(wrong).__name__] += 1
                return
        if code not in self._day.scans:
            self._day = msgspec.structs.replace(self._day, scans=(*self._day.scans, code)[-MOST_SCANS:])

    def _expected_label(self, text: str) -> str:
        """The parcel of a stop to come whose label reads exactly so: what settles a text with more than one reading."""
        bare = text.strip(" \r\n\t\0")
        for stop_id in self._day.shown:
            for parcel in self._stops[stop_id].parcels:
                if bare in (parcel.barcode, parcel.barcode.partition(":")[2]):
                    return parcel.barcode
        return ""

    def _observe(self, has_read: bool) -> None:
        """What the believed readings say about where the van is in its work."""
        now_ms = self._now.domain_ms
        belief = self._belief = self._sensing.believe(now_ms)
        if now_ms - self._remembered_at_ms >= REMEMBER_EVERY_MS and has_read:
            self._remembered_at_ms = now_ms
            self._remembered = self._sensing.remember()
        if self._plan is None or not has_read or not self._day.shown:
            return
        if self._day.shift == "waiting":
            self._recognise_beginning(belief)
        if self._day.shift != "under_way":
            return
        if self._day.at_stop is not None:
            self._recognise_leaving(belief)
        else:
            self._recognise_arrival(belief)

    def _recognise_beginning(self, belief: Belief) -> None:
        plan = self._plan
        if plan is None or belief.position is None or belief.is_standing or belief.quality != "gnss":
            return
        far = min(metres_between(belief.position, p) for p in (plan.depot.position, plan.depot.gateway))
        if far > 2 * LEFT_M and (belief.speed_mps or 0) > 3 and self._now.domain_ms > plan.depart_ms - 3_600_000:
            self._change_shift("begun")

    def _recognise_leaving(self, belief: Belief) -> None:
        """A stand that ended without an outcome was no visit."""
        stop_id = self._day.at_stop
        if stop_id is None or belief.is_standing or belief.quality != "gnss" or belief.position is None:
            return
        if metres_between(belief.position, self._stops[stop_id].position) <= LEFT_M:
            return
        goal = self._day.said_heading
        self._day = msgspec.structs.replace(self._day, at_stop=None, arrived_ms=None)
        if goal is not None and goal in self._day.shown and goal != stop_id:
            self._head_for(goal)
            self._day = msgspec.structs.replace(self._day, said_heading=goal)
        else:
            self._has_moved_on(f"left {stop_id} without an outcome")

    def _recognise_arrival(self, belief: Belief) -> None:
        if belief.quality != "gnss":
            self._recognise_arrival_by_wheels(belief)
            return
        position, now_ms = belief.position, self._now.domain_ms
        if position is None:
            return
        self._recognise_setting_off(belief, position)
        goal = self._day.heading_to
        away = {stop_id: metres_between(position, self._stops[stop_id].position) for stop_id in self._day.shown}
        nearest = min(away, key=lambda stop_id: (stop_id != goal or away[stop_id] > NEAR_ENOUGH_M, away[stop_id]))
        if away[nearest] > NEAR_ENOUGH_M:
            self._near_since = None
            return
        if self._near_since is None or self._near_since[0] != nearest:
            self._near_since = (nearest, now_ms)
        if not belief.is_standing or belief.standing_since_ms is None:
            return
        stood_ms = now_ms - belief.standing_since_ms
        near_since_ms = self._near_since[1]
        if nearest == goal:
            needed_ms = STANDS_MS if away[goal] <= NEAR_M else STANDS_NEAR_ENOUGH_MS
            if stood_ms >= needed_ms:
                self._arrive(goal, EpochMs(max(near_since_ms, self._day.set_off_ms or 0)))
        elif away[nearest] <= ELSEWHERE_M and self._is_new_place(position):
            needed_ms = STANDS_ELSEWHERE_MS if self._day.said_heading is None else STANDS_AGAINST_HIS_WORD_MS
            if stood_ms >= needed_ms:
                self._arrive(nearest, EpochMs(near_since_ms))

    def _is_new_place(self, position: Position) -> bool:
        """Whether the van has moved since its last visit: standing on after one is no arrival at the next door."""
        origin = self._day.from_position
        return origin is None or metres_between(origin, position) > NEAR_M

    def _recognise_setting_off(self, belief: Belief, position: Position) -> None:
        """A van that leaves without a word is taken to go where the order shows."""
        day = self._day
        if day.heading_to is not None or belief.is_standing or (belief.speed_mps or 0) < 1.5:
            return
        origin = day.from_position or self._depot_exit()
        if origin is not None and metres_between(origin, position) > LEFT_M:
            self._head_for(day.shown[0])

    def _recognise_arrival_by_wheels(self, belief: Belief) -> None:
        """Without satellites: far enough driven since setting off, and standing."""
        day = self._day
        goal = day.heading_to
        if goal is None or not belief.is_standing or belief.standing_since_ms is None or day.set_off_ms is None:
            return
        origin = day.from_position or self._depot_exit()
        straight_m = 0.0 if origin is None else metres_between(origin, self._stops[goal].position)
        driven_m = belief.odometer_m - day.set_off_odometer_m
        if driven_m < LEAST_OF_THE_WAY * straight_m - NEAR_M:
            return
        since_ms = max(belief.standing_since_ms, day.set_off_ms)
        if self._now.domain_ms - since_ms >= STANDS_NEAR_ENOUGH_MS:
            self._arrive(goal, EpochMs(since_ms))

    def _arrive(self, stop_id: StopId, at_ms: EpochMs) -> None:
        if self._day.heading_to != stop_id:
            kept = self._day.said_heading
            self._head_for(stop_id)
            self._day = msgspec.structs.replace(self._day, said_heading=kept)
        self._learn_from_leg(stop_id, at_ms)
        self._day = msgspec.structs.replace(self._day, at_stop=stop_id, arrived_ms=at_ms)
        self._stop_said = None
        self._say(Arrived(stop_id))
        self._has_moved_on(f"arrived at {stop_id}")

    # Learning.

    def _learn_from_leg(self, stop_id: StopId, at_ms: int) -> None:
        day, plan = self._day, self._plan
        if plan is None or day.set_off_ms is None:
            return
        legs = self._legs or plan.legs
        row, column = place_row(legs, day.from_place), place_row(legs, stop_id)
        expected_s = float(self._matrix[slice_at(legs, day.set_off_ms), row, column])
        actual_s = (at_ms - day.set_off_ms) / 1000
        if expected_s < NOT_LEARNED_FROM_S or actual_s <= 0:
            return
        learned = msgspec.structs.replace(self._learned, legs=self._learned.legs.learned(actual_s, expected_s))
        if self._leg_said is not None and self._leg_said[0] == stop_id:
            offset = learned.leg_offset.learned(self._leg_said[1], actual_s)
            learned = msgspec.structs.replace(learned, leg_offset=offset)
        self._learned = learned

    def _learn_from_stop(self, stop: Stop, visit: Visit) -> None:
        began_ms = max(visit.arrived_ms, stop.slot.opens_ms)
        actual_s = (visit.left_ms - began_ms) / 1000
        if stop.service_s < NOT_LEARNED_FROM_S or actual_s < NOT_LEARNED_FROM_S:
            return
        learned = msgspec.structs.replace(self._learned, stops=self._learned.stops.learned(actual_s, stop.service_s))
        if self._stop_said is not None and self._stop_said[0] == stop.stop_id:
            offset = learned.stop_offset.learned(self._stop_said[1], actual_s)
            learned = msgspec.structs.replace(learned, stop_offset=offset)
        self._learned = learned

    # Looking ahead.

    def _has_moved_on(self, why: str) -> None:
        """The day is another than a moment ago: questions under way are no longer asked, and a new look is due."""
        self._version += 1
        self._foresee_now = why
        self._is_page_stale = True
        if self._outlook is not None and tuple(self._outlook.bearing.order) != self._day.shown:
            to_come = {estimate.stop_id: estimate for estimate in self._outlook.estimates}
            kept = tuple(to_come[stop_id] for stop_id in self._day.shown if stop_id in to_come)
            self._outlook = msgspec.structs.replace(self._outlook, estimates=kept)

    def _bearing(self) -> Bearing | None:
        plan, day = self._plan, self._day
        if plan is None or not day.shown or day.shift == "ended":
            return None
        now_ms = self._now.domain_ms
        under_way = day.at_stop or day.heading_to
        from_position = day.from_position or plan.depot.gateway
        resumes_ms: int = now_ms
        if day.shift == "waiting":
            resumes_ms = max(now_ms, plan.depart_ms)
        elif day.shift == "on_break" and plan.rest is not None and day.rest_began_ms is not None:
            resumes_ms = max(now_ms, day.rest_began_ms + plan.rest.duration_s * 1000)
        leaves_ms = resumes_ms if under_way is None or day.set_off_ms is None else day.set_off_ms
        is_rest_over = day.is_rest_taken or day.shift == "on_break"
        return Bearing(
            plan=plan,
            legs=self._legs or plan.legs,
            matrix=self._matrix,
            zone=self.identity.zone,
            now_ms=now_ms,
            order=day.shown,
            under_way=under_way,
            from_place=day.from_place,
            from_position=from_position,
            leaves_ms=leaves_ms,
            resumes_ms=resumes_ms,
            share_left=1.0 if under_way is None else self._share_left(under_way),
            at_stop_since_ms=day.arrived_ms,
            rest=None if is_rest_over else plan.rest,
            pace=self._learned.legs.ratio,
            dwell_pace=self._learned.stops.ratio,
            told=dict(self._told),
        )

    def _share_left(self, goal: StopId) -> float:
        """How much of the leg under way is still ahead: by the straight lines, else by the time it has taken."""
        day, belief = self._day, self._belief
        origin = day.from_position or self._depot_exit()
        if origin is not None and belief is not None and belief.position is not None and _is_fresh(belief):
            whole_m = metres_between(origin, self._stops[goal].position)
            if whole_m > NEAR_M:
                return min(1.3, max(0.02, metres_between(belief.position, self._stops[goal].position) / whole_m))
        if day.set_off_ms is None or self._plan is None:
            return 1.0
        legs = self._legs or self._plan.legs
        row, column = place_row(legs, day.from_place), place_row(legs, goal)
        expected_s = max(1.0, float(self._matrix[slice_at(legs, day.set_off_ms), row, column]))
        return min(1.0, max(0.1, 1 - (self._now.domain_ms - day.set_off_ms) / 1000 / expected_s))

    def _depot_exit(self) -> Position | None:
        """Where the straight line of a first leg begins: the depot itself, which may lie off the map."""
        return None if self._plan is None else self._plan.depot.position

    def _foresee(self) -> None:
        """Want a prediction when something has happened, when progress deviates, or when a minute has passed."""
        if not self._is_time_to_look():
            return
        bearing = self._bearing()
        if bearing is None:
            return
        self._questions += 1
        need = f"foresee/{self._questions}"
        self._foreseeing = _Question(need, self._version, bearing)
        self._looked_at_ms = self._now.domain_ms
        self._out.jobs.append(Predict(need, bearing))

    def _is_time_to_look(self) -> bool:
        plan, now_ms = self._plan, self._now.domain_ms
        if plan is None or not self._day.shown or self._day.shift == "ended":
            return False
        if self._foreseeing is not None and self._foreseeing.version == self._version:
            return False
        if self._foresee_now:
            return True
        if self._day.shift == "waiting" and now_ms < plan.depart_ms - FORESEE_BEFORE_MS:
            return False
        since_ms = now_ms - self._looked_at_ms
        return since_ms >= FORESEE_EVERY_MS or (since_ms >= DEVIATION_AT_MOST_EVERY_MS and self._deviates())

    def _deviates(self) -> bool:
        """Whether the van's place and the clock say that the stop under way will be reached much later than told."""
        outlook, goal = self._outlook, self._day.heading_to
        if outlook is None or goal is None or self._day.at_stop is not None or not outlook.estimates:
            return False
        if outlook.estimates[0].stop_id != goal or outlook.bearing.share_left <= 0:
            return False
        leg_left_s = float(outlook.spans.legs[0, 1]) / outlook.bearing.share_left * self._share_left(goal)
        expected_ms = max(self._now.domain_ms + leg_left_s * 1000, self._stops[goal].slot.opens_ms)
        return abs(expected_ms - outlook.estimates[0].p50_ms) > DEVIATION_MS

    def _take_predicted(self, predicted: Predicted) -> None:
        question = self._foreseeing
        if question is None or question.need != predicted.need:
            return
        self._foreseeing = None
        if question.version != self._version:
            return
        self._foresee_now = ""
        outlook = self._look(question.bearing, question.bearing.order, predicted.foreseen)
        self._outlook = outlook
        self._is_page_stale = True
        self._note_whole_spans(question.bearing, predicted.foreseen)
        self._consider(outlook)
        if self._improving is None:
            self._tell_news()

    def _look(self, bearing: Bearing, order: tuple[StopId, ...], foreseen: Foreseen) -> Outlook:
        learned = self._learned
        legs, stops = foreseen.legs, foreseen.stops
        if foreseen.model != "none":
            legs, stops = learned.leg_offset.moved(legs), learned.stop_offset.moved(stops)
        spans = spans_left(bearing, legs, stops)
        joined = arrivals(bearing, order, spans, foreseen.correlation)
        return Outlook(
            self._now.domain_ms,
            bearing,
            foreseen,
            spans,
            joined,
            estimates(bearing, order, joined),
            lateness(bearing, order, joined),
        )

    def _note_whole_spans(self, bearing: Bearing, foreseen: Foreseen) -> None:
        """Keep what the model said of the leg or stop under way when it was new, to learn from how it ends."""
        if bearing.under_way is None or foreseen.model == "none":
            return
        if self._leg_said is None and bearing.at_stop_since_ms is None:
            self._leg_said = (bearing.under_way, tuple(foreseen.legs[0].tolist()))
        if self._stop_said is None and bearing.at_stop_since_ms is not None:
            self._stop_said = (bearing.under_way, tuple(foreseen.stops[0].tolist()))

    def _tell_news(self) -> None:
        """Say the estimates when they have moved.

        Not while a better order is sought: windows should move only for what another order could not save.
        """
        outlook = self._outlook
        if outlook is None or outlook.bearing.order != self._day.shown:
            return
        why = news(self._said.estimates, self._said.risks, outlook.estimates, outlook.stands)
        if why:
            self._said = SaidToHub(outlook.estimates, {stands.stop_id: stands.risk for stands in outlook.stands})
            self._say(EstimatesMoved(outlook.estimates, why))

    def _take_failed(self, failed: JobFailed) -> None:
        """The need stays; the next look comes with the next minute."""
        self.refused[f"JobFailed{type(failed.job).__name__}"] += 1
        if self._foreseeing is not None and failed.job.need == self._foreseeing.need:
            self._foreseeing, self._foresee_now = None, ""
        if self._improving is not None and failed.job.need == self._improving.need:
            self._improving = None
            self._tell_news()

    # Re-sequencing.

    def _consider(self, outlook: Outlook) -> None:
        """Want a better order when the present one is in trouble, inside the contract."""
        plan = outlook.bearing.plan
        is_driving = self._day.shift in ("under_way", "on_break")
        is_overdue = self._day.shift == "waiting" and self._now.domain_ms > plan.depart_ms
        if not self._kind.resequences or self._improving is not None or not (is_driving or is_overdue):
            return
        if len(orders_beyond(outlook.bearing)) < 2:
            return
        try:
            plain = route_problem(outlook.bearing, outlook.spans)
        except BadRoute:
            self.refused["BadRoute"] += 1
            return
        problem = with_margins(plain, outlook.bearing, outlook.estimates)
        now = trouble(problem, evaluate(problem, problem.order))
        is_worth_it = is_worth_asking(now, plan.freedom, self._asked_in_vain, self._now.domain_ms)
        if not (is_worth_it or self._have_roads_changed):
            return
        self._questions += 1
        need = f"improve/{self._questions}"
        seed = crc32(f"{self.identity.agent}/{plan.plan_version}/{self._now.domain_ms}".encode())
        self._improving = _Question(need, self._version, outlook.bearing, problem, plain, now.weighted_s, seed)
        self._out.jobs.append(Improve(need, outlook.bearing, problem, KERNEL_MS, seed))

    def _take_improved(self, improved: Improved) -> None:
        question = self._improving
        if question is None or question.need != improved.need or question.problem is None:
            return
        self._improving = None
        # When the day has moved on it is the answer to a question no longer asked; the next look asks anew.
        if question.version == self._version:
            self._weigh(question, question.problem, improved)
        self._tell_news()

    def _weigh(self, question: _Question, problem: RouteProblem, improved: Improved) -> None:
        """Take a better order, or leave it: by the oracle, the contract and what the driver has said."""
        self._asked_in_vain = (self._now.domain_ms, question.trouble_s)
        self._have_roads_changed = False
        bearing = question.bearing
        beyond = orders_beyond(bearing)
        start = bearing.under_way or bearing.from_place or StopId("")
        proposal = propose(problem, beyond, start, improved.nodes)
        if proposal is None:
            self.refused["OrderNotAllowed"] += 1
            return
        freedom = bearing.plan.freedom
        plain = question.plain or problem
        now_ms = self._now.domain_ms
        since_ms = None if self._day.changed_ms is None else now_ms - self._day.changed_ms
        needed_s = needed_gain_s(freedom, self._day.arcs_used, since_ms)
        if improved.foreseen is None or not is_worth_it(proposal, plain, needed_s):
            return
        lately = [r.new_arcs for r in self._day.refused if now_ms - r.at_ms < REFUSED_FOR_MS]
        rule = forbidden(proposal, freedom, self._day.arcs_used, lately)
        if rule is not None:
            self._keep(question, proposal, rule, improved)
        else:
            self._change_order(question, proposal, improved, improved.foreseen, needed_s)

    def _keep(self, question: _Question, proposal: Proposal, rule: tuple[str, str], improved: Improved) -> None:
        """A better order is known and may not be taken: written down, because somebody may ask why."""
        now_ms = self._now.domain_ms
        name, why = rule
        if now_ms - self._kept_at_ms.get(name, -KEEP_AT_MOST_EVERY_MS) < KEEP_AT_MOST_EVERY_MS:
            return
        self._kept_at_ms[name] = now_ms
        words = f"Kept the order although another would save {minutes(proposal.gain_s)} weighted min: {why}"
        decision = self._decide(question, proposal, improved, "keep", words, 0, f"forbidden: {why}")
        self._say(Decided(decision))

    def _change_order(
        self, question: _Question, proposal: Proposal, improved: Improved, foreseen: Foreseen, needed_s: float
    ) -> None:
        bearing, now_ms = question.bearing, self._now.domain_ms
        problem, plain = question.problem, question.plain
        assert problem is not None
        assert plain is not None
        before = self._day.shown
        head = before[: len(before) - len(proposal.before)]
        after = head + proposal.after
        used = self._day.arcs_used + len(proposal.new_arcs)
        words = sentence(bearing, problem, plain, proposal)
        verdict = (
            f"allowed: saves {proposal.gain_s} weighted s of at least {round(needed_s)},"
            f" {used} of {bearing.plan.freedom.arcs_per_day} arcs changed today"
        )
        decision = self._decide(question, proposal, improved, "resequence", words, 1, verdict)
        waiting = self._day.change
        agreed = before if waiting is None else waiting.before
        to_come = set(before)
        agreed = tuple(stop_id for stop_id in agreed if stop_id in to_come)
        start = bearing.under_way or bearing.from_place or StopId("")
        rest_agreed = agreed[len(head) :] if agreed[: len(head)] == head else agreed
        known = set(arcs(start, rest_agreed))
        new_arcs = tuple(arc for arc in arcs(start, proposal.after) if arc not in known)
        change_id = f"{self.identity.agent}-{self._books.decisions}"
        change = Change(change_id, now_ms, words, agreed, after, new_arcs)
        self._day = msgspec.structs.replace(self._day, shown=after, change=change, arcs_used=used, changed_ms=now_ms)
        moved = msgspec.structs.replace(bearing, order=after)
        outlook = self._look(moved, after, foreseen)
        self._outlook = outlook
        self._asked_in_vain = None
        self._version += 1
        self._is_page_stale = True
        self._said = SaidToHub(outlook.estimates, {stands.stop_id: stands.risk for stands in outlook.stands})
        version = bearing.plan.plan_version
        self._say(Resequenced(change_id, version, before, after, decision, outlook.estimates))

    def _decide(
        self,
        question: _Question,
        proposal: Proposal,
        improved: Improved,
        kind: str,
        words: str,
        chosen: int,
        verdict: str,
    ) -> Decision:
        """Write a decision into the chain: what was known, how old and good it was, what could have been done."""
        problem, plain = question.problem, question.plain
        assert problem is not None
        assert plain is not None
        outlook = self._outlook
        plan = question.bearing.plan
        decision = Decision(
            decision_id=f"{self.identity.agent}/{self._books.decisions + 1}",
            by=self.identity.agent,
            kind=kind,
            at_ms=self._now.domain_ms,
            sentence=words,
            cause=trouble(problem, proposal.before_cost).words or "the roads have changed",
            inputs=self._inputs(question.bearing, outlook),
            alternatives=alternatives(problem, plain, proposal.before, proposal),
            chosen=chosen,
            verdict=verdict,
            approved_by=f"contract of plan {plan.plan_version}",
            about=tuple(stop_id for stop_id in proposal.before),
            model="none" if outlook is None else outlook.foreseen.model,
            seed=question.seed,
            iterations=improved.iterations,
            previous=self._books.link,
        )
        self._books = msgspec.structs.replace(self._books, link=decision.link(), decisions=self._books.decisions + 1)
        return decision

    def _inputs(self, bearing: Bearing, outlook: Outlook | None) -> tuple[Input, ...]:
        now_ms: int = self._now.domain_ms
        belief = self._belief
        looked_s = (now_ms - bearing.now_ms) / 1000
        found = [
            Input("plan", f"version {bearing.plan.plan_version}"),
            Input("leg times", f"roads version {bearing.legs.roads_version}"),
            Input("pace", f"legs x{bearing.pace:.2f}, stops x{bearing.dwell_pace:.2f}", looked_s),
        ]
        if belief is not None and belief.position is not None:
            age_s = belief.position_age_s or 0.0
            found.append(Input("position", "last believed fix", age_s, belief.quality))
        if outlook is not None and outlook.stands:
            worst = max(outlook.stands, key=lambda stands: (stands.late_s, stands.stop_id))
            words = (
                f"{worst.stop_id}: {round(worst.late_s)} s expected, {round(100 * worst.p_late)} % to miss its window"
            )
            quality = "plan's own times" if outlook.foreseen.model == "none" else "model"
            found.append(Input("worst lateness", words, looked_s, quality))
        found.append(Input("link", "up" if self._is_up else "down: decided alone"))
        return tuple(found)

    # Speaking.

    def _say(self, event: AgentEvent) -> None:
        """Number an event and keep it until the hub has it. Committed before it is sent."""
        own = self.identity

        def write(seq: int) -> bytes:
            return wire.encode(
                Numbered(own.agent, own.boot, "events", seq, self._now.domain_ms, self._books.epoch, event)
            )

        self._out.rows += self._events.say(write)

    def _hand_over_telemetry(self) -> None:
        """Number batches only while somebody is there to hear them: what has no number may still be thinned."""
        while self._is_up and self._telemetry.backlog < HANDED_OVER and self._collector.backlog:
            handed = self._collector.hand_over(self._telemetry.next_seq)
            assert handed is not None
            payload, rows = handed
            self._out.rows += rows
            self._out.rows += self._telemetry.say(lambda _seq, payload=payload: payload)  # type: ignore[misc]  # bound now

    def _acknowledge(self) -> None:
        if not self._owes_ack:
            return
        self._owes_ack = False
        ack = self._taken.ack(topics.HUB, "commands")
        if ack is not None:
            topic = topics.up(self.identity.region, self.identity.agent, "acks")
            self._out.envelopes.append(Envelope(topic, wire.encode(ack), topics.QOS["acks"]))

    def _envelopes(self, carries: str, payloads: list[bytes]) -> list[Envelope]:
        topic = topics.up(self.identity.region, self.identity.agent, carries)
        return [Envelope(topic, payload, topics.QOS[carries]) for payload in payloads]

    def _show(self) -> None:
        """Give the page the day, when something of it has changed."""
        if not self._is_page_stale:
            return
        self._is_page_stale = False
        expected = () if self._outlook is None else self._outlook.estimates
        day = day_shown(self.identity.agent, self._plan, self._day, self._visits, self._told, expected, self._is_up)
        encoded = msgspec.json.encode(day)
        if encoded == self._shown:
            return
        self._shown = encoded
        self._revision += 1
        payload = b'{"revision":%d,' % self._revision + encoded[1:]
        self._out.envelopes.append(Envelope(DAY_TOPIC, payload))

    # Keeping.

    def _plan_version(self) -> int:
        return 0 if self._plan is None else self._plan.plan_version

    def _odometer_m(self) -> float:
        return 0.0 if self._belief is None else self._belief.odometer_m

    def _parts(self) -> dict[tuple[str, str], msgspec.Struct | None]:
        return {
            ("plan", "plan"): self._plan,
            ("plan", "legs"): self._legs,
            ("day", "day"): self._day,
            ("day", "said"): self._said,
            ("agent", "books"): self._books,
            ("agent", "learned"): self._learned,
            ("agent", "place"): self._remembered,
        }

    def _write_down(self) -> None:
        """Rows for every part that is another value than the one last written."""
        for key, part in self._parts().items():
            if part is not self._written[key] and part != self._written[key]:
                self._out.rows.append(Row(*key, None if part is None else msgspec.json.encode(part)))
            self._written[key] = part


def _first(order: tuple[StopId, ...], stop_id: StopId | None) -> tuple[StopId, ...]:
    """The same order with one stop taken to the front; unchanged for None."""
    if stop_id is None or stop_id not in order:
        return order
    return (stop_id, *(other for other in order if other != stop_id))


def _is_fresh(belief: Belief) -> bool:
    return belief.position_age_s is not None and belief.position_age_s <= FRESH_POSITION_S
