"""Decide what one agent decides: which plan to drive, where the van is in it, when another order is better.

The core is handed events and instants and gives back rows, envelopes and jobs (`shared.steps`); it does no I/O and
reads no clock. Starting and recovering are the same path: `AgentCore(identity, saved)`. It passes on what happens and
decides what is asked when; the rest is done in rooms that know nothing of it:

    sensing      which readings are believed            round        the work, and how far it is done
    uplink       the streams between agent and hub      assignment   the plan, with the roads and windows since
    answers      what is said on the page, done once    whereabouts  what believed readings mean for the work
    foresight    the bearing, and what lies ahead       visiting     a visit of what was scanned and said
    reordering   case, verdict, change and record       turns        what each turn makes of the day
    memory       what is written down                   learning     pace and offsets from how things went
    access       who is let into the driver's page      proofs       signatures and photographs until the hub has them
    amending     other work than planned                forgetting   what is personal, taken out of it
    chain        decisions, link by link                reasons      why an order changed, in numbers and words

What is durable: the plan with its amendments and the leg times and told windows that came since, the day (orders, the
one the page holds while the van moves, where the van is heading or stands, scans at hand, shift and break, the change
and the question not yet answered, the change budget used), visits, their pictures until the hub has them, who was let
into the page, estimates last said, that roads or work have just changed, paces and offsets learned, the last place
and the metres driven, answers already given to the page, decisions' chain, and every stream.

What a restart may forget: what devices said in the last minutes (the belief is rebuilt from the next readings), the
telemetry batch not yet closed, up to a minute of metres driven, the quantiles of the leg under way (one lesson fewer
for the offsets), questions put to the models and the kernel (they are put again), since when the order could not be
bettered, and how much of a wait for wrong codes is over (it begins again).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec

from edge_agent.access import Access
from edge_agent.answers import Answers
from edge_agent.assignment import Assignment
from edge_agent.chain import Chain
from edge_agent.dating import Dating, Undated
from edge_agent.dialogue import Asked, CountersAsked, Reply, SessionSaid
from edge_agent.foresight import Outlook, bearing_of, deviates, look, without_done
from edge_agent.identity import DeadLetter, Identity
from edge_agent.kinds import kind_named
from edge_agent.lateness import is_worth_asking, news
from edge_agent.machine import IngestBegan, RoomChanged, Stopping, TellTime
from edge_agent.memory import ClockKept, News, Parts, SaidToHub, changed_rows, read_part
from edge_agent.outlook import Foreseen, Improve, Improved, Predict, Predicted
from edge_agent.reordering import (
    ROADS_HAVE_CHANGED,
    WORK_HAS_CHANGED,
    Case,
    Verdict,
    case_of,
    change_by,
    proposal_of,
    verdict_on,
)
from edge_agent.round import Moment, Round
from edge_agent.sensing import Belief, Fix, Reading, Remembered, Scan, Sensing, limits_at
from edge_agent.shown import Screen, day_shown
from edge_agent.uplink import Uplink
from shared.labels import LabelRefused
from shared.ledger import Decision
from shared.messages import (
    Ack,
    AgentEvent,
    AgentStarted,
    Decided,
    DiskTight,
    EstimatesMoved,
    Numbered,
    PersonForgotten,
    PlanPushed,
    PlanRefused,
    Presence,
    Resequenced,
    RoadsChanged,
    TimeFound,
    TimeTold,
    TooLate,
    WindowTold,
    WorkAmended,
)
from shared.quantities import EpochMs
from shared.routes import BadRoute
from shared.steps import ClockFound, Consequences, Envelope, JobFailed, LinkDown, LinkUp, Now, Row, Saved, Wake
from shared.streams import Take
from shared.wire import Heading

FORESEE_EVERY_MS = 60_000
"""A prediction costs a few milliseconds of a small processor; once a minute is seldom enough and follows any delay."""
FORESEE_BEFORE_MS = 1_800_000
"""Before departure there is nothing to learn from looking more than half an hour ahead."""
DEVIATION_AT_MOST_EVERY_MS = 15_000
TIME_BACK_MS = 60_000
"""A receiver that tells less than the last instant we remember is wrong (its count of weeks has begun anew)."""
REMEMBER_EVERY_MS = 60_000
"""How often the last place and the metres driven are committed."""


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
        self._access = Access(saved)
        self._round = Round(saved, identity.zone)
        self._said = read_part(saved.get("day", {}), "said", SaidToHub) or SaidToHub()
        self._news = read_part(saved.get("day", {}), "news", News) or News()
        own = saved.get("agent", {})
        self._chain = Chain(identity.agent, own)
        self._remembered = read_part(own, "place", Remembered) or Remembered()
        self._sensing = Sensing(limits_at(identity.clock_speed), self._remembered)
        self._belief: Belief | None = None
        self._believed = 0
        self._remembered_at_ms = 0
        self._last_kept = read_part(own, "clock", ClockKept)
        self._undated = read_part(own, "undated", Undated)
        self._written = self._parts()
        self._is_tight = False
        self._is_told_time = False

        self._version = 0
        self._questions = 0
        self._foresee_now = "started"
        self._foreseeing: _Foreseeing | None = None
        self._looked_at_ms = 0
        self._outlook: Outlook | None = None
        self._improving: _Improving | None = None
        self._asked_in_vain: tuple[int, int] | None = None

        self.refused: Counter[str] = Counter()
        self._screen = Screen()
        self._steps = 0
        self._now = Now(EpochMs(0), 0)
        self._out = Consequences()

    @property
    def _moment(self) -> Moment:
        return Moment(self._now.domain_ms, self._belief)

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
        self._observe(has_read)
        self._foresee()
        self._hand_over()
        self._out.envelopes += self._uplink.acknowledgement()
        self._show()
        self._write_down()
        return self._out

    def due(self, now: Now) -> list[Envelope]:
        """What the streams should send or repeat now; nothing while the link is down."""
        return self._uplink.due(now.real_ms)

    def wake(self, now: Now) -> Wake:
        """The next look ahead in domain time, the next repeat in real time."""
        work, day = self._round.work, self._round.day
        waits = [self._round.tick_ms()]
        is_dated = self._undated is None
        if is_dated:
            waits.append(self._access.expires_ms(self._round.plan, day))
        is_asking = self._foreseeing is not None and self._foreseeing.version == self._version
        if is_dated and work is not None and day.shown and day.shift != "ended" and not is_asking:
            look = max(self._looked_at_ms + FORESEE_EVERY_MS, now.domain_ms + 1)
            starts = work.plan.depart_ms - FORESEE_BEFORE_MS
            is_early = day.shift == "waiting" and now.domain_ms < starts
            waits.append(starts if is_early else look)
        return Wake(
            min((at_ms for at_ms in waits if at_ms is not None), default=None), self._uplink.due_at(now.real_ms)
        )

    def durable(self) -> dict[str, Any]:
        """Everything a restart must not forget, for comparing a running core with a recovered one."""
        return {
            "parts": self._parts(),
            "told": {} if self._round.work is None else self._round.work.told,
            "visits": self._round.visits,
            "answered": self._answers.given,
            "objects": self._round.proofs.kept,
            "undated": self._undated,
            **self._uplink.durable(),
        }

    def counters(self) -> dict[str, int]:
        """How the agent is doing, as names and numbers."""
        found = {
            "steps": self._steps,
            "readings_believed": self._believed,
            **self._uplink.counters(),
            "plan_version": self._round.plan_version,
            "visits": len(self._round.visits),
            "stops_to_come": len(self._round.day.shown),
            "decisions": self._chain.books.decisions,
            "arcs_changed_today": self._round.day.arcs_used,
            "relocations": self._sensing.relocations,
            "object_bytes_on_board": self._round.proofs.bytes_on_board,
            "disk_is_tight": int(self._is_tight),
        }
        refused = self.refused + Counter({str(name): n for name, n in self._sensing.refused.items()})
        return found | {f"refused_{name}": count for name, count in sorted(refused.items())}

    # Events, one kind after the other.

    def _start(self) -> None:
        self._screen.begin(self._now.domain_ms)
        now_ms, last = self._now.domain_ms, self._last_kept
        if not self.identity.is_dated:
            self._lose_time(self._undated or self._uplink.numbered_from(now_ms))
        elif self._undated is not None:
            # The life before this one ended undated: it is taken to have ended just now.
            self._uplink.hold_back(self._undated)
            self._find_time(ClockFound(now_ms - (now_ms if last is None else last.last_ms), "start"))
        self._say(AgentStarted(self.identity.kind, self.identity.version, self._round.plan_version))

    def _take(self, event: Any) -> Any:
        match event:
            case Numbered():
                self._take_command(event)
            case DeadLetter():
                self._take_dead_letter(event)
            case Ack():
                self._out.rows += self._uplink.acked(event)
            case Presence():
                self._out.envelopes += self._uplink.meet(event, self._now.real_ms)
            case IngestBegan():
                self._uplink.hear_ingest()
            case LinkUp():
                self._out.envelopes.append(self._uplink.go_up(self._now.real_ms))
                self._screen.is_stale = True
            case LinkDown():
                self._uplink.go_down()
                self._screen.is_stale = True
            case ClockFound():
                self._find_time(event)
            case RoomChanged():
                self._change_room(event.is_tight)
            case Stopping():
                self._out.rows += self._uplink.write_down()
                self._remembered = self._sensing.remember()
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
                raise AssertionError(f"no such event: {type(event).__name__}")
        return None

    # The machine: its clock and its disk.

    def _lose_time(self, undated: Undated) -> None:
        """Nobody knows the time: the work goes on by the provisional clock, and nothing undated leaves."""
        self._undated = undated
        self._uplink.hold_back(undated)
        self._round.is_dated = False

    def _hear_time(self, told_ms: int, heard_ms: int, by: str) -> None:
        """Somebody says what time it is. Satellites are not believed that say less than what we remember; the hub is,
        for what we remember may have been wrong.
        """
        if self._undated is None or self._is_told_time:
            return
        if by == "gnss" and told_ms < self._undated.since_ms - TIME_BACK_MS:
            self.refused["TimeBeforeMemory"] += 1
            return
        self._is_told_time = True
        self._out.jobs.append(TellTime(self._need("time"), EpochMs(told_ms), EpochMs(heard_ms), by))

    def _find_time(self, found: ClockFound) -> None:
        """Date everything again that was written since the time was lost; the last seconds' belief begins anew."""
        if self._undated is None:
            return
        dating = Dating(self._undated.since_ms, found.shift_ms)
        self._undated, self._is_told_time = None, False
        greeting, rows = self._uplink.redate(dating, self._now.real_ms)
        self._out.envelopes += greeting
        self._out.rows += [*rows, *self._answers.redate(dating)]
        self._chain.redate(dating)
        self._access.redate(dating)
        self._round.redate(dating)
        self._remembered = dating.of(self._sensing.remember(), "at_ms")
        self.refused += Counter({str(name): n for name, n in self._sensing.refused.items()})
        self._sensing = Sensing(limits_at(self.identity.clock_speed), self._remembered)
        self._belief = None
        self._remembered_at_ms = self._looked_at_ms = 0
        self._outlook, self._foreseeing, self._improving, self._asked_in_vain = None, None, None, None
        self._say(TimeFound(found.shift_ms, found.by))
        self._screen.is_stale = True
        self._pass_on()

    def _take_time(self, told: TimeTold) -> None:
        """The hub answers our question for the time; half of the time it took is the way back."""
        ago_ms = self._uplink.asked_ago_ms(told.asked, self._now.real_ms)
        if ago_ms is None:
            self.refused["TimeNotAsked"] += 1
        else:
            way_ms = round(ago_ms / 2 * self.identity.clock_speed)
            self._hear_time(told.now_ms + way_ms, self._now.domain_ms, "hub")

    def _change_room(self, is_tight: bool) -> None:
        """The disk is full, or has room again: telemetry gives way, everything else is kept."""
        if is_tight == self._is_tight:
            return
        self._is_tight = is_tight
        self._out.rows += self._uplink.tighten() if is_tight else self._uplink.loosen()
        self._say(DiskTight(is_tight))
        self._screen.is_stale = True

    def _make_room(self) -> None:
        """Give up what is worth least while more waits for the hub than may: telemetry, then photographs that nothing
        is to be shown by. What was done and decided is never given up.
        """
        while self._uplink.bytes_waiting + self._round.proofs.bytes_on_board > self.identity.outbox_bytes:
            rows = self._uplink.give_up_telemetry()
            self._out.rows += rows
            if not rows and not self._round.give_up_picture():
                return
            self._pass_on()

    # Commands.

    def _take_command(self, numbered: Numbered) -> None:
        if self._is_of_a_former_hub(numbered):
            return
        take, rows = self._uplink.take(numbered, numbered.after)
        self._out.rows += rows
        if take is not Take.NEW:
            self.refused["StreamUnknown" if take is None else f"Command{take.value.capitalize()}"] += 1
            return
        self._chain.hear(numbered.epoch)
        start_by_ms = numbered.start_by_ms
        match numbered.message:
            case PlanPushed() as pushed:
                self._judge_plan(pushed)
            case TimeTold() as time:
                self._take_time(time)
            case late if start_by_ms is not None and self._undated is None and self._now.domain_ms > start_by_ms:
                self.refused["TooLate"] += 1
                self._say(TooLate(str(type(late).__struct_config__.tag), numbered.seq, start_by_ms))
            case WindowTold() as told:
                self._take_window(told)
            case RoadsChanged() as roads:
                self._take_roads(roads)
            case WorkAmended() as amended:
                if self._round.take_amendment(amended, self._moment):
                    self._news = News(WORK_HAS_CHANGED)
            case PersonForgotten() as forgotten:
                self._round.forget(forgotten, self._moment)
            case _:
                self.refused["NotACommand"] += 1
        self._pass_on()

    def _is_of_a_former_hub(self, command: Numbered | Heading) -> bool:
        """What a hub says that another has replaced is neither taken nor acknowledged: the one that acts says it again
        under its own epoch and the same number, and must find that number free.
        """
        if command.epoch >= self._chain.books.epoch:
            return False
        self.refused["EpochOver"] += 1
        return True

    def _take_dead_letter(self, letter: DeadLetter) -> None:
        heading = letter.heading
        if self._is_of_a_former_hub(heading):
            return
        take, rows = self._uplink.take(heading, heading.after)
        self.refused["StreamUnknown" if take is None else "CommandUnknown"] += 1
        if take is Take.NEW:
            kept = Row("dead_letters", f"{heading.boot}/{heading.seq}", letter.why.encode())
            self._out.rows += [*rows, kept]

    def _judge_plan(self, pushed: PlanPushed) -> None:
        plan = pushed.plan
        why = self._round.objection(pushed, self.identity.agent, self._now.domain_ms)
        if why:
            self.refused["PlanRefused"] += 1
            self._say(PlanRefused(plan.plan_version, f"plan {plan.plan_version} refused: {why}"))
        elif self._round.take_plan(plan):
            self._said = SaidToHub()

    def _take_window(self, told: WindowTold) -> None:
        refusal = self._round.take_window(told)
        if refusal:
            self.refused[refusal] += 1
            return
        # The estimates stand as they are, but against another window: weigh again, and do not cry late twice.
        risks = {stop_id: risk for stop_id, risk in self._said.risks.items() if stop_id != told.stop_id}
        self._said = msgspec.structs.replace(self._said, risks=risks)

    def _take_roads(self, roads: RoadsChanged) -> None:
        refusal = self._round.take_roads(roads)
        if refusal:
            self.refused[refusal] += 1
        else:
            self._news = News(ROADS_HAVE_CHANGED)

    # The driver's page.

    def _answer(self, asked: Asked) -> Reply:
        if isinstance(asked.said, SessionSaid):
            self._screen.is_stale = True
            return self._access.ask(asked.said, self._round.plan, self._now)
        known = self._answers.before(asked)
        if known is not None:
            return known
        reply = self._round.obey(asked.said, self._moment)
        self._out.rows += self._answers.remember(asked, reply, self._now.domain_ms)
        self._screen.is_stale = True
        self._pass_on()
        return reply

    def _show(self) -> None:
        """Give the page the day, when something of it has changed."""
        if not self._screen.is_stale:
            return
        the_round, expected = self._round, self._outlook.estimates if self._outlook else ()
        agent, is_up, moves = self.identity.agent, self._uplink.is_up, the_round.is_moving
        rest_from_ms = self._outlook.rest_from_ms if self._outlook else None
        day = day_shown(
            agent,
            the_round.work,
            the_round.day,
            the_round.visits,
            expected,
            is_up,
            moves,
            rest_from_ms,
            self._is_tight,
            self._undated is None,
        )
        self._out.envelopes += [*self._screen.admits(self._access.entry(self._round.plan)), *self._screen.shows(day)]

    # Readings.

    def _take_reading(self, reading: Reading) -> None:
        if isinstance(reading, Scan):
            self._take_scan(reading)
            return
        refusal = self._sensing.take(reading)
        self._believed += refusal is None
        if refusal is None and isinstance(reading, Fix):
            now_ms = self._now.domain_ms
            self._out.rows += self._uplink.sample(self._sensing.believe(now_ms), now_ms)
            if self._undated is not None and reading.utc_ms is not None:
                self._hear_time(reading.utc_ms, reading.at_ms, "gnss")

    def _take_scan(self, scan: Scan) -> None:
        try:
            self._round.scan(scan.text)
            self._screen.is_stale = True
        except LabelRefused as wrong:
            self.refused[type(wrong).__name__] += 1

    def _observe(self, has_read: bool) -> None:
        """What the devices say together now, and what that says about where the van is in its work."""
        now_ms = self._now.domain_ms
        self._belief = self._sensing.believe(now_ms)
        has_ticked = self._round.tick(self._belief, now_ms)
        is_dated = self._undated is None
        if has_ticked | (is_dated and self._access.expire(self._round.plan, self._round.day, now_ms)):
            self._screen.is_stale = True
            self._pass_on()
        if not has_read:
            return
        if now_ms - self._remembered_at_ms >= REMEMBER_EVERY_MS:
            self._remembered_at_ms = now_ms
            self._remembered = self._sensing.remember()
        self._round.observe(self._belief, now_ms)
        self._pass_on()

    # Looking ahead.

    def _foresee(self) -> None:
        """Want a prediction when something has happened, when progress deviates, or when a minute has passed.

        While nobody knows the time there is none: against which windows?
        """
        work, now_ms = self._round.work, self._now.domain_ms
        if work is None or self._undated is not None or not self._is_time_to_look(work):
            return
        day, learned = self._round.day, self._round.learned
        bearing = bearing_of(work, day, learned, self._belief, self.identity.zone, now_ms)
        if bearing is None:
            return
        job = Predict(self._need("foresee"), bearing)
        self._foreseeing = _Foreseeing(job, self._version)
        self._looked_at_ms = now_ms
        self._out.jobs.append(job)

    def _is_time_to_look(self, work: Assignment) -> bool:
        day, now_ms = self._round.day, self._now.domain_ms
        if self._foreseeing is not None and self._foreseeing.version == self._version:
            return False
        if self._foresee_now:
            return True
        if day.shift == "waiting" and now_ms < work.plan.depart_ms - FORESEE_BEFORE_MS:
            return False
        since_ms = now_ms - self._looked_at_ms
        if since_ms >= FORESEE_EVERY_MS:
            return True
        if self._outlook is None or since_ms < DEVIATION_AT_MOST_EVERY_MS:
            return False
        return deviates(self._outlook, day, work, self._belief, now_ms)

    def _take_predicted(self, predicted: Predicted) -> None:
        question = self._foreseeing
        if question is None or question.job.need != predicted.need:
            return
        self._foreseeing = None
        if question.version != self._version:
            return
        self._foresee_now = ""
        bearing, foreseen = question.job.bearing, predicted.foreseen
        self._outlook = outlook = look(bearing, bearing.order, foreseen, self._round.learned, self._now.domain_ms)
        self._screen.is_stale = True
        self._round.note(bearing, foreseen)
        self._consider(outlook)
        if self._improving is None:
            self._tell_news()

    def _tell_news(self) -> None:
        """Say the estimates when they have moved.

        Not while a better order is sought: windows should move only for what another order could not save.
        """
        outlook = self._outlook
        if outlook is None or outlook.bearing.order != self._round.day.shown:
            return
        why = news(self._said.estimates, self._said.risks, outlook.estimates, outlook.stands)
        if why:
            self._said = outlook.said()
            self._say(EstimatesMoved(outlook.estimates, why))

    def _take_failed(self, failed: JobFailed) -> None:
        """The need stays; the next look comes with the next minute."""
        self.refused[f"JobFailed{type(failed.job).__name__}"] += 1
        if isinstance(failed.job, TellTime):
            self._is_told_time = False
        if self._foreseeing is not None and failed.job.need == self._foreseeing.job.need:
            self._foreseeing, self._foresee_now = None, ""
        if self._improving is not None and failed.job.need == self._improving.job.need:
            self._improving = None
            self._tell_news()

    # Re-sequencing.

    def _consider(self, outlook: Outlook) -> None:
        """Want a better order when the present one is in trouble, inside the contract."""
        plan, now_ms = outlook.bearing.plan, self._now.domain_ms
        shift = self._round.day.shift
        is_driving = shift in ("under_way", "on_break")
        is_overdue = shift == "waiting" and now_ms > plan.depart_ms
        if not self._kind.resequences or self._improving is not None or not (is_driving or is_overdue):
            return
        try:
            case = case_of(outlook, self._news.of)
        except BadRoute:
            self.refused["BadRoute"] += 1
            return
        if case is None:
            return
        is_in_trouble = is_worth_asking(case.trouble, plan.freedom, self._asked_in_vain, now_ms)
        if is_in_trouble or self._news.of:
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
        self._news = News()
        proposal = proposal_of(question.case, improved)
        if proposal is None:
            self.refused["OrderNotAllowed"] += 1
            return
        if improved.foreseen is None:
            return
        verdict = verdict_on(question.case, proposal, self._round.day, self._now.domain_ms)
        if verdict is None:
            return
        if verdict.rule:
            self._keep(verdict, question.job, improved)
        else:
            self._change_order(verdict, question.job, improved, improved.foreseen)

    def _keep(self, verdict: Verdict, job: Improve, improved: Improved) -> None:
        """A better order is known and may not be taken: written down, because somebody may ask why."""
        if not self._chain.has_said(verdict.rule, self._now.domain_ms):
            self._say(Decided(self._decide(verdict, job, improved)))

    def _change_order(self, verdict: Verdict, job: Improve, improved: Improved, foreseen: Foreseen) -> None:
        """Show the driver the better order, and tell the hub what it means for everybody."""
        now_ms, day = self._now.domain_ms, self._round.day
        decision = self._decide(verdict, job, improved)
        change = change_by(verdict, day, f"{self.identity.agent}-{self._chain.books.decisions}", now_ms)
        self._round.reorder(change, len(verdict.proposal.new_arcs))
        bearing = msgspec.structs.replace(job.bearing, order=change.after)
        self._outlook = outlook = look(bearing, change.after, foreseen, self._round.learned, now_ms)
        self._asked_in_vain = None
        self._version += 1
        self._screen.is_stale = True
        self._said = outlook.said()
        version = bearing.plan.plan_version
        self._say(Resequenced(change.change_id, version, day.shown, change.after, decision, outlook.estimates))

    def _decide(self, verdict: Verdict, job: Improve, improved: Improved) -> Decision:
        """Write a decision into the chain."""
        outlook, belief, is_up = self._outlook, self._belief, self._uplink.is_up
        assert outlook is not None, "a case is made of a look ahead"
        return self._chain.decide(verdict, job, improved, outlook, belief, is_up, self._now.domain_ms)

    # Speaking and keeping.

    def _pass_on(self) -> None:
        """Say and keep what came of the round; when its day is another now, a new look is due.

        Questions under way were about the day as it was: the version tells that they are no longer asked.
        """
        tidings = self._round.tidings()
        self._out.rows += tidings.rows
        for event in tidings.events:
            self._say(event)
        if tidings.moved_on:
            self._version += 1
            self._foresee_now = tidings.moved_on
            self._screen.is_stale = True
            if self._outlook is not None:
                self._outlook = without_done(self._outlook, self._round.day.shown)

    def _hand_over(self) -> None:
        """Let telemetry and pictures go as the link takes them, and some of them for want of room; when all is said,
        nothing old is left to forget.
        """
        now_ms = self._now.domain_ms
        self._out.rows += self._uplink.hand_over_telemetry()
        self._out.rows += self._uplink.hand_over_objects(self._round.proofs, self._chain.books.epoch, now_ms)
        self._make_room()
        if self._uplink.has_said_all:
            self._out.rows += self._round.close_forgetting()

    def _say(self, event: AgentEvent) -> None:
        """Number an event and keep it until the hub has it. Committed before it is sent."""
        self._out.rows += self._uplink.say(event, self._chain.books.epoch, self._now.domain_ms)

    def _need(self, what: str) -> str:
        self._questions += 1
        return f"{what}/{self._questions}"

    def _parts(self) -> Parts:
        return {
            **self._round.parts(),
            **self._access.parts(),
            ("day", "said"): self._said,
            ("day", "news"): self._news if self._news.of else None,
            **self._chain.parts(),
            ("agent", "place"): self._remembered,
            ("agent", "undated"): self._undated,
        }

    def _write_down(self) -> None:
        parts = self._parts()
        self._out.rows += changed_rows(self._written, parts)
        self._written = parts
        if self._out.rows:
            self._out.rows.append(Row("agent", "clock", msgspec.json.encode(ClockKept(self._now.domain_ms))))
