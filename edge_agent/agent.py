"""Decide what one agent decides: which plan to drive, where the van is in it, when another order is better.

The core is handed events and instants and gives back rows, envelopes and jobs (`shared.steps`); it does no I/O and
reads no clock. Starting and recovering are the same path: `AgentCore(identity, saved)`. It holds the state and the
sequence of things; what they mean is said by pure modules that know nothing of it:

    whereabouts   what believed readings mean for the work        turns        what each turn makes of the day
    foresight     the bearing, and what lies ahead from there     reordering   the question, the verdict, the record
    assignment    the plan with the roads and windows since       learning     pace and offsets from how things went
    visiting      a visit of what was scanned and said            answers      everything said on the page, done once
    uplink        the streams between agent and hub               memory       what is written down

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

from edge_agent import learning, turns
from edge_agent.answers import Answers
from edge_agent.assignment import Assignment, plan_objection, read_told, roads_objection
from edge_agent.dialogue import Asked, ChangeSaid, CountersAsked, HeadingSaid, OutcomeSaid, Reply, Said, ShiftSaid
from edge_agent.foresight import Outlook, bearing_of, deviates, look, without_done
from edge_agent.kinds import kind_named
from edge_agent.lateness import is_worth_asking, news
from edge_agent.memory import Books, Day, Learned, Parts, SaidToHub, changed_rows, read_part
from edge_agent.outlook import Foreseen, Improve, Improved, Predict, Predicted
from edge_agent.reordering import (
    Case,
    Verdict,
    case_of,
    change_by,
    decision_on,
    inputs_of,
    proposal_of,
    verdict_on,
)
from edge_agent.sensing import Belief, Fix, Reading, Remembered, Scan, Sensing, limits_at
from edge_agent.shown import Screen, day_shown
from edge_agent.uplink import Uplink
from edge_agent.visiting import parcel_read, visit_of
from edge_agent.whereabouts import LeftAgain, Near, SetOff, StandsAt, has_begun, observe
from shared import wire
from shared.contracts import LegTimes, Plan
from shared.labels import LabelRefused
from shared.ledger import Decision
from shared.messages import (
    Ack,
    AgentEvent,
    AgentStarted,
    Arrived,
    ChangeAnswered,
    Decided,
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
from shared.quantities import EpochMs
from shared.routes import BadRoute
from shared.steps import Consequences, Envelope, JobFailed, LinkDown, LinkUp, Now, Row, Saved, Wake
from shared.streams import Take
from shared.work import AgentId, Stop, StopId, Visit, missing_from_proof

FORESEE_EVERY_MS = 60_000
"""A prediction costs a few milliseconds of a small processor; once a minute is seldom enough and follows any delay."""
FORESEE_BEFORE_MS = 1_800_000
"""Before departure there is nothing to learn from looking more than half an hour ahead."""
DEVIATION_AT_MOST_EVERY_MS = 15_000
REMEMBER_EVERY_MS = 60_000
"""How often the last place and the metres driven are committed."""
KEEP_AT_MOST_EVERY_MS = 900_000
"""The same rule forbidding a better order is written down once a quarter of an hour, not every minute."""


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


class _Foreseeing(msgspec.Struct, frozen=True):
    """A prediction asked for, and the version of the day it was asked of."""

    job: Predict
    version: int


class _Improving(msgspec.Struct, frozen=True):
    """A better order asked for, and the version of the day it was asked of."""

    job: Improve
    version: int
    case: Case


class AgentCore:
    """One agent's decisions. Not for more than one thread at a time."""

    def __init__(self, identity: Identity, saved: Saved) -> None:
        """From everything the store held; an empty store is a first start. Raises KindUnknown."""
        self.identity = identity
        self._kind = kind_named(identity.kind)
        self._uplink = Uplink(identity.agent, identity.region, identity.boot, identity.life, saved)
        self._answers = Answers(saved.get("answered", {}))

        kept = saved.get("plan", {})
        plan = read_part(kept, "plan", Plan)
        self._work: Assignment | None = None
        if plan is not None:
            self._work = Assignment(plan, read_part(kept, "legs", LegTimes), read_told(saved.get("told", {})))
        kept = saved.get("day", {})
        self._day = read_part(kept, "day", Day) or Day()
        self._said = read_part(kept, "said", SaidToHub) or SaidToHub()
        self._visits = {
            StopId(key): msgspec.json.decode(value, type=Visit)
            for key, value in sorted(saved.get("visits", {}).items())
        }
        own = saved.get("agent", {})
        self._books = read_part(own, "books", Books) or Books()
        self._learned = read_part(own, "learned", Learned) or Learned()
        self._remembered = read_part(own, "place", Remembered) or Remembered()
        self._written = self._parts()

        self._sensing = Sensing(limits_at(identity.clock_speed), self._remembered)
        self._belief: Belief | None = None
        self._believed = 0
        self._remembered_at_ms = 0
        self._near: Near | None = None

        self._version = 0
        self._questions = 0
        self._foresee_now = "started"
        self._foreseeing: _Foreseeing | None = None
        self._looked_at_ms = 0
        self._outlook: Outlook | None = None
        self._sayings = learning.Sayings()
        self._improving: _Improving | None = None
        self._asked_in_vain: tuple[int, int] | None = None
        self._have_roads_changed = False
        self._kept_at_ms: dict[str, int] = {}

        self.refused: Counter[str] = Counter()
        self._screen = Screen()
        self._steps = 0
        self._now = Now(EpochMs(0), 0)
        self._out = Consequences()

    # What the shell asks.

    def handle(self, events: Sequence[Any], now: Now) -> Consequences:
        """Decide what a batch of events means. The first step of a life may have none."""
        self._out = Consequences()
        self._now = now
        self._steps += 1
        if self._steps == 1:
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
        self._believe(has_read)
        if has_read:
            self._observe()
        self._foresee()
        self._out.rows += self._uplink.hand_over_telemetry()
        self._out.envelopes += self._uplink.acknowledgement()
        self._show()
        self._write_down()
        return self._out

    def due(self, now: Now) -> list[Envelope]:
        """What the streams should send or repeat now; nothing while the link is down."""
        return self._uplink.due(now.real_ms)

    def wake(self, now: Now) -> Wake:
        """The next look ahead in domain time, the next repeat in real time."""
        domain = None
        if self._work is not None and self._day.shown and self._day.shift != "ended":
            domain = max(self._looked_at_ms + FORESEE_EVERY_MS, now.domain_ms + 1)
            starts = self._work.plan.depart_ms - FORESEE_BEFORE_MS
            if self._day.shift == "waiting" and now.domain_ms < starts:
                domain = starts
        return Wake(domain, self._uplink.due_at(now.real_ms))

    def durable(self) -> dict[str, Any]:
        """Everything a restart must not forget, for comparing a running core with a recovered one."""
        return {
            "parts": self._parts(),
            "told": {} if self._work is None else self._work.told,
            "visits": self._visits,
            "answered": self._answers.given,
            **self._uplink.durable(),
        }

    def counters(self) -> dict[str, int]:
        """How the agent is doing, as names and numbers."""
        found = {
            "steps": self._steps,
            "readings_believed": self._believed,
            **self._uplink.counters(),
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
        self._screen.begin(self._now.domain_ms)
        self._say(AgentStarted(self.identity.kind, self.identity.version, self._plan_version()))

    def _take(self, event: Any) -> Any:
        match event:
            case Numbered():
                self._take_command(event)
            case DeadLetter():
                self._take_dead_letter(event)
            case Ack():
                self._out.rows += self._uplink.acked(event)
            case Presence():
                self._uplink.meet(event)
            case LinkUp():
                self._out.envelopes.append(self._uplink.go_up())
                self._screen.is_stale = True
            case LinkDown():
                self._uplink.go_down()
                self._screen.is_stale = True
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

    # Commands.

    def _take_command(self, numbered: Numbered) -> None:
        take, rows = self._uplink.take(numbered)
        self._out.rows += rows
        if take is not Take.NEW:
            self.refused["StreamUnknown" if take is None else f"Command{take.value.capitalize()}"] += 1
            return
        is_stale = numbered.epoch < self._books.epoch
        if numbered.epoch > self._books.epoch:
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
        take, rows = self._uplink.take(heading)
        self.refused["StreamUnknown" if take is None else "CommandUnknown"] += 1
        if take is Take.NEW:
            kept = Row("dead_letters", f"{heading.boot}/{heading.seq}", letter.why.encode())
            self._out.rows += [*rows, kept]

    def _judge_plan(self, pushed: PlanPushed, stale: str) -> None:
        plan = pushed.plan
        if not stale and self._work is not None and plan == self._work.plan:
            self._say(PlanTaken(plan.plan_version))
            return
        driven = self._plan_version()
        why = stale or plan_objection(pushed, self.identity.agent, driven, self._now.domain_ms)
        if why:
            self.refused["PlanRefused"] += 1
            self._say(PlanRefused(plan.plan_version, f"plan {plan.plan_version} refused: {why}"))
        else:
            self._adopt(plan)

    def _adopt(self, plan: Plan) -> None:
        """Work under a plan: visits done and the stop under way are kept, on another day everything begins anew."""
        former = self._work
        if former is not None:
            self._out.rows += [Row("told", stop_id, None) for stop_id in former.told]
        if former is None or former.plan.day != plan.day:
            self._out.rows += [Row("visits", stop_id, None) for stop_id in self._visits]
            self._visits, self._day = {}, Day()
            self._learned = learning.on_another_day(self._learned, plan.day)
        self._work = Assignment(plan)
        self._day = turns.planned(self._day, tuple(stop.stop_id for stop in plan.stops), self._visits)
        self._said = SaidToHub()
        self._say(PlanTaken(plan.plan_version))
        self._has_moved_on(f"plan {plan.plan_version} taken")

    def _take_window(self, told: WindowTold) -> None:
        work, stop_id = self._work, told.stop_id
        if work is None or stop_id not in work.stops:
            self.refused["StopUnknown"] += 1
            return
        self._work = Assignment(work.plan, work.newer_legs, {**work.told, stop_id: told.told})
        self._out.rows.append(Row("told", stop_id, msgspec.json.encode(told.told)))
        # The estimates stand as they are, but against another window: weigh again, and do not cry late twice.
        risks = {known: risk for known, risk in self._said.risks.items() if known != stop_id}
        self._said = msgspec.structs.replace(self._said, risks=risks)
        self._has_moved_on("a window was told")

    def _take_roads(self, roads: RoadsChanged) -> None:
        refusal = roads_objection(self._work, roads)
        if self._work is None or refusal:
            self.refused[refusal] += 1
            return
        self._work = Assignment(self._work.plan, roads.legs, self._work.told)
        self._have_roads_changed = True
        self._has_moved_on("roads changed")

    # The driver's page.

    def _answer(self, asked: Asked) -> Reply:
        known = self._answers.before(asked)
        if known is not None:
            return known
        reply = self._obey(asked.said)
        self._out.rows += self._answers.remember(asked, reply, self._now.domain_ms)
        return reply

    def _obey(self, said: Said) -> Reply:
        work = self._work
        if work is None:
            return Reply(409, "No plan yet", "the hub has not sent today's work; it comes by itself")
        match said:
            case ShiftSaid():
                return self._change_shift(said.now_is)
            case HeadingSaid():
                return self._set_heading(StopId(said.stop_id), work)
            case ChangeSaid():
                return self._answer_change(said)
            case OutcomeSaid():
                return self._end_visit(said, work)

    def _change_shift(self, now_is: str) -> Reply:
        turned = turns.shift_turned(self._day, now_is, self._now.domain_ms)
        if turned is None:
            return Reply(409, "Not now", f"shift is '{self._day.shift}', '{now_is}' does not follow from it")
        self._day = turned
        self._say(ShiftChanged(now_is))
        self._has_moved_on(f"shift {now_is}")
        return Reply(200)

    def _set_heading(self, stop_id: StopId, work: Assignment) -> Reply:
        refusal = self._not_to_come(stop_id)
        if refusal is not None:
            return refusal
        if self._day.shift == "on_break":
            self._change_shift("off_break")
        elif self._day.shift == "waiting":
            self._change_shift("begun")
        if self._day.heading_to != stop_id or self._day.at_stop is not None:
            self._head_for(stop_id, stop_id, work)
        else:
            self._day = msgspec.structs.replace(self._day, said_heading=stop_id)
        return Reply(200)

    def _answer_change(self, said: ChangeSaid) -> Reply:
        change = self._day.change
        if change is None or change.change_id != said.change_id:
            return Reply(409, "No such change", f"change '{said.change_id}' is not the one waiting for an answer")
        is_refused = said.answer == "refused"
        day = self._day
        self._day = turns.change_refused(day, change, self._now.domain_ms) if is_refused else turns.change_seen(day)
        self._say(ChangeAnswered(said.change_id, said.answer, said.reason, self._day.shown))
        if is_refused:
            self._has_moved_on("the driver refused a change")
        self._screen.is_stale = True
        return Reply(200)

    def _end_visit(self, said: OutcomeSaid, work: Assignment) -> Reply:
        stop_id = StopId(said.stop_id)
        refusal = self._not_to_come(stop_id)
        if refusal is not None:
            return refusal
        stop = work.stops[stop_id]
        position = None if self._belief is None else self._belief.position
        visit = visit_of(stop, said, self._day, self._near, position, self._now.domain_ms)
        missing = missing_from_proof(stop, visit)
        if missing:
            return Reply(422, "Proof incomplete", f"{said.outcome.value} at {stop.address} lacks {'; '.join(missing)}")
        self._record(visit, stop, work)
        return Reply(200)

    def _not_to_come(self, stop_id: StopId) -> Reply | None:
        if stop_id in self._visits:
            outcome = self._visits[stop_id].outcome.value
            return Reply(409, "Already visited", f"stop '{stop_id}' was ended as '{outcome}'")
        if stop_id not in self._day.shown:
            return Reply(404, "No such stop", f"stop '{stop_id}' is not in plan {self._plan_version()}")
        return None

    # What happens on the road, whoever noticed it.

    def _head_for(self, stop_id: StopId, said: StopId | None, work: Assignment) -> None:
        """The van is under way to a stop; when another was shown first the driver overrides, which is information."""
        day = self._day
        odometer_m = 0.0 if self._belief is None else self._belief.odometer_m
        stays_parked = work.shares_a_door(day.from_place, stop_id)
        self._day = turns.set_off(day, stop_id, said, stays_parked, self._now.domain_ms, odometer_m)
        self._sayings = msgspec.structs.replace(self._sayings, leg=None)
        self._say(HeadingTo(stop_id, turns.is_override(day, stop_id)))
        self._has_moved_on(f"heading to {stop_id}")

    def _arrive(self, stop_id: StopId, at_ms: EpochMs, work: Assignment) -> None:
        if self._day.heading_to != stop_id:
            self._head_for(stop_id, self._day.said_heading, work)
        day = self._day
        if day.set_off_ms is not None:
            actual_s, planned_s = (at_ms - day.set_off_ms) / 1000, work.leg_s(day.from_place, stop_id, day.set_off_ms)
            self._learned = learning.from_leg(self._learned, self._sayings, stop_id, actual_s, planned_s)
        self._day = turns.arrived(day, stop_id, at_ms)
        self._sayings = msgspec.structs.replace(self._sayings, stop=None)
        self._say(Arrived(stop_id))
        self._has_moved_on(f"arrived at {stop_id}")

    def _leave_again(self, left: LeftAgain, work: Assignment) -> None:
        self._day = turns.left_again(self._day)
        if left.goal is not None:
            self._head_for(left.goal, left.goal, work)
        else:
            self._has_moved_on(f"left {left.stop_id} without an outcome")

    def _record(self, visit: Visit, stop: Stop, work: Assignment) -> None:
        stop_id = stop.stop_id
        if self._day.shift == "waiting":
            self._change_shift("begun")
        if self._day.at_stop != stop_id:
            # The page knows better than the satellites: the visit is over, so the van was there.
            self._arrive(stop_id, visit.arrived_ms, work)
        self._learned = learning.from_stop(self._learned, self._sayings, stop, visit)
        self._visits[stop_id] = visit
        self._out.rows.append(Row("visits", stop_id, msgspec.json.encode(visit)))
        self._day = turns.visited(self._day, visit, stop.position)
        self._near = None
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
            now_ms = self._now.domain_ms
            self._out.rows += self._uplink.sample(self._sensing.believe(now_ms), now_ms)

    def _take_scan(self, scan: Scan) -> None:
        expected = [] if self._work is None else [self._work.stops[stop_id] for stop_id in self._day.shown]
        try:
            self._day = turns.scanned(self._day, parcel_read(scan.text, expected))
        except LabelRefused as wrong:
            self.refused[type(wrong).__name__] += 1

    def _believe(self, has_read: bool) -> None:
        """What the devices say together now; the last place is kept once a minute."""
        now_ms = self._now.domain_ms
        self._belief = self._sensing.believe(now_ms)
        if has_read and now_ms - self._remembered_at_ms >= REMEMBER_EVERY_MS:
            self._remembered_at_ms = now_ms
            self._remembered = self._sensing.remember()

    def _observe(self) -> None:
        """What the believed readings say about where the van is in its work."""
        work, belief, now_ms = self._work, self._belief, self._now.domain_ms
        if work is None or belief is None or not self._day.shown:
            return
        if self._day.shift == "waiting" and has_begun(belief, work.plan, now_ms):
            self._change_shift("begun")
        if self._day.shift != "under_way":
            return
        happening, self._near = observe(belief, self._day, work, self._near, now_ms)
        match happening:
            case SetOff():
                self._head_for(happening.stop_id, None, work)
            case StandsAt():
                self._arrive(happening.stop_id, happening.since_ms, work)
            case LeftAgain():
                self._leave_again(happening, work)

    # Looking ahead.

    def _has_moved_on(self, why: str) -> None:
        """The day is another than a moment ago: questions under way are no longer asked, and a new look is due."""
        self._version += 1
        self._foresee_now = why
        self._screen.is_stale = True
        if self._outlook is not None:
            self._outlook = without_done(self._outlook, self._day.shown)

    def _foresee(self) -> None:
        """Want a prediction when something has happened, when progress deviates, or when a minute has passed."""
        work, now_ms = self._work, self._now.domain_ms
        if work is None or not self._is_time_to_look(work):
            return
        bearing = bearing_of(work, self._day, self._learned, self._belief, self.identity.zone, now_ms)
        if bearing is None:
            return
        job = Predict(self._need("foresee"), bearing)
        self._foreseeing = _Foreseeing(job, self._version)
        self._looked_at_ms = now_ms
        self._out.jobs.append(job)

    def _is_time_to_look(self, work: Assignment) -> bool:
        day, now_ms = self._day, self._now.domain_ms
        if self._foreseeing is not None and self._foreseeing.version == self._version:
            return False
        if self._foresee_now:
            return True
        if day.shift == "waiting" and now_ms < work.plan.depart_ms - FORESEE_BEFORE_MS:
            return False
        since_ms = now_ms - self._looked_at_ms
        if since_ms < DEVIATION_AT_MOST_EVERY_MS or self._outlook is None:
            return since_ms >= FORESEE_EVERY_MS
        return since_ms >= FORESEE_EVERY_MS or deviates(self._outlook, day, work, self._belief, now_ms)

    def _take_predicted(self, predicted: Predicted) -> None:
        question = self._foreseeing
        if question is None or question.job.need != predicted.need:
            return
        self._foreseeing = None
        if question.version != self._version:
            return
        self._foresee_now = ""
        bearing, foreseen = question.job.bearing, predicted.foreseen
        self._outlook = outlook = look(bearing, bearing.order, foreseen, self._learned, self._now.domain_ms)
        self._screen.is_stale = True
        self._sayings = learning.noted(self._sayings, bearing, foreseen)
        self._consider(outlook)
        if self._improving is None:
            self._tell_news()

    def _tell_news(self) -> None:
        """Say the estimates when they have moved.

        Not while a better order is sought: windows should move only for what another order could not save.
        """
        outlook = self._outlook
        if outlook is None or outlook.bearing.order != self._day.shown:
            return
        why = news(self._said.estimates, self._said.risks, outlook.estimates, outlook.stands)
        if why:
            self._said = outlook.said()
            self._say(EstimatesMoved(outlook.estimates, why))

    def _take_failed(self, failed: JobFailed) -> None:
        """The need stays; the next look comes with the next minute."""
        self.refused[f"JobFailed{type(failed.job).__name__}"] += 1
        if self._foreseeing is not None and failed.job.need == self._foreseeing.job.need:
            self._foreseeing, self._foresee_now = None, ""
        if self._improving is not None and failed.job.need == self._improving.job.need:
            self._improving = None
            self._tell_news()

    # Re-sequencing.

    def _consider(self, outlook: Outlook) -> None:
        """Want a better order when the present one is in trouble, inside the contract."""
        plan, now_ms = outlook.bearing.plan, self._now.domain_ms
        is_driving = self._day.shift in ("under_way", "on_break")
        is_overdue = self._day.shift == "waiting" and now_ms > plan.depart_ms
        if not self._kind.resequences or self._improving is not None or not (is_driving or is_overdue):
            return
        try:
            case = case_of(outlook)
        except BadRoute:
            self.refused["BadRoute"] += 1
            return
        if case is None:
            return
        is_in_trouble = is_worth_asking(case.trouble, plan.freedom, self._asked_in_vain, now_ms)
        if is_in_trouble or self._have_roads_changed:
            seed = crc32(f"{self.identity.agent}/{plan.plan_version}/{now_ms}".encode())
            job = case.question(self._need("improve"), seed)
            self._improving = _Improving(job, self._version, case)
            self._out.jobs.append(job)

    def _take_improved(self, improved: Improved) -> None:
        question = self._improving
        if question is None or question.job.need != improved.need:
            return
        self._improving = None
        # When the day has moved on it is the answer to a question no longer asked; the next look asks anew.
        if question.version == self._version:
            self._weigh(question, improved)
        self._tell_news()

    def _weigh(self, question: _Improving, improved: Improved) -> None:
        """Take a better order, or leave it: by the oracle, the contract and what the driver has said."""
        self._asked_in_vain = (self._now.domain_ms, question.case.trouble.weighted_s)
        self._have_roads_changed = False
        proposal = proposal_of(question.case, improved)
        if proposal is None:
            self.refused["OrderNotAllowed"] += 1
            return
        if improved.foreseen is None:
            return
        verdict = verdict_on(question.case, proposal, self._day, self._now.domain_ms)
        if verdict is None:
            return
        if verdict.rule:
            self._keep(verdict, question.job, improved)
        else:
            self._change_order(verdict, question.job, improved, improved.foreseen)

    def _keep(self, verdict: Verdict, job: Improve, improved: Improved) -> None:
        """A better order is known and may not be taken: written down, because somebody may ask why."""
        now_ms = self._now.domain_ms
        if now_ms - self._kept_at_ms.get(verdict.rule, -KEEP_AT_MOST_EVERY_MS) < KEEP_AT_MOST_EVERY_MS:
            return
        self._kept_at_ms[verdict.rule] = now_ms
        self._say(Decided(self._decide(verdict, job, improved)))

    def _change_order(self, verdict: Verdict, job: Improve, improved: Improved, foreseen: Foreseen) -> None:
        """Show the driver the better order, and tell the hub what it means for everybody."""
        now_ms, before = self._now.domain_ms, self._day.shown
        decision = self._decide(verdict, job, improved)
        change = change_by(verdict, self._day, f"{self.identity.agent}-{self._books.decisions}", now_ms)
        self._day = turns.reordered(self._day, change, len(verdict.proposal.new_arcs))
        bearing = msgspec.structs.replace(job.bearing, order=change.after)
        self._outlook = outlook = look(bearing, change.after, foreseen, self._learned, now_ms)
        self._asked_in_vain = None
        self._version += 1
        self._screen.is_stale = True
        self._said = outlook.said()
        version = bearing.plan.plan_version
        self._say(Resequenced(change.change_id, version, before, change.after, decision, outlook.estimates))

    def _decide(self, verdict: Verdict, job: Improve, improved: Improved) -> Decision:
        """Write a decision into the chain."""
        outlook, now_ms = self._outlook, self._now.domain_ms
        assert outlook is not None, "a case is made of a look ahead"
        inputs = inputs_of(job.bearing, outlook, self._belief, self._uplink.is_up, now_ms)
        model = outlook.foreseen.model
        decision = decision_on(
            verdict, self.identity.agent, self._books, inputs, model, job.seed, improved.iterations, now_ms
        )
        self._books = msgspec.structs.replace(self._books, link=decision.link(), decisions=self._books.decisions + 1)
        return decision

    # Speaking and keeping.

    def _say(self, event: AgentEvent) -> None:
        """Number an event and keep it until the hub has it. Committed before it is sent."""
        self._out.rows += self._uplink.say(event, self._books.epoch, self._now.domain_ms)

    def _show(self) -> None:
        """Give the page the day, when something of it has changed."""
        if not self._screen.is_stale:
            return
        work, expected = self._work, () if self._outlook is None else self._outlook.estimates
        plan, told = (None, {}) if work is None else (work.plan, work.told)
        day = day_shown(self.identity.agent, plan, self._day, self._visits, told, expected, self._uplink.is_up)
        self._out.envelopes += self._screen.shows(day)

    def _need(self, what: str) -> str:
        self._questions += 1
        return f"{what}/{self._questions}"

    def _plan_version(self) -> int:
        return 0 if self._work is None else self._work.plan.plan_version

    def _parts(self) -> Parts:
        work = self._work
        return {
            ("plan", "plan"): None if work is None else work.plan,
            ("plan", "legs"): None if work is None else work.newer_legs,
            ("day", "day"): self._day,
            ("day", "said"): self._said,
            ("agent", "books"): self._books,
            ("agent", "learned"): self._learned,
            ("agent", "place"): self._remembered,
        }

    def _write_down(self) -> None:
        parts = self._parts()
        self._out.rows += changed_rows(self._written, parts)
        self._written = parts
