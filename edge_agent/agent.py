"""Hand what happens on one agent to the room that knows, and gather what comes of it into one commit.

The core is handed events and instants and gives back rows, envelopes and jobs (`shared.steps`); it does no I/O and
reads no clock. Starting and recovering are the same path: `AgentCore(identity, saved)`. The rooms know nothing of it:

    sensing      which readings are believed           round        the work, and how far it is done
    timekeeping  whether the time is known             assignment   the plan, with the roads and windows since
    dating       what an unknown clock wrote           whereabouts  what believed readings mean for the work
    commands     whose they are, next, or too late     visiting     a visit of what was scanned and said
    outbox       what waits for the hub                turns        what each turn makes of the day
    uplink       who is there, what is sent when       learning     pace and offsets from how things went
    navigator    looks ahead and betters the order     proofs       signatures and photographs until the hub has them
    lookout      when to look, and the last look       amending     other work than planned
    foresight    the bearing, and what lies ahead      forgetting   what is personal, taken out of it
    reordering   question, verdict, change, record     reasons      why an order changed, in numbers and words
    chain        decisions, link by link               access       who is let into the driver's page
    memory       what is written down                  answers      what is said on the page, done once

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

from edge_agent.access import Access
from edge_agent.answers import Answers
from edge_agent.chain import Chain
from edge_agent.commands import Commands, too_late
from edge_agent.dialogue import Asked, CountersAsked, Reply, SessionSaid
from edge_agent.identity import DeadLetter, Identity
from edge_agent.kinds import kind_named
from edge_agent.machine import IngestBegan, RoomChanged, Stopping, TellTime
from edge_agent.memory import Parts, changed_rows, read_part
from edge_agent.navigator import Navigator
from edge_agent.outbox import Outbox
from edge_agent.outlook import Improved, Predicted
from edge_agent.reordering import ROADS_HAVE_CHANGED, WORK_HAS_CHANGED
from edge_agent.round import Moment, Round
from edge_agent.sensing import Belief, Fix, Reading, Remembered, Scan, Sensing, limits_at
from edge_agent.shown import Screen, day_shown
from edge_agent.timekeeping import Timekeeping
from edge_agent.uplink import Uplink
from shared.labels import LabelRefused
from shared.messages import (
    Ack,
    AgentEvent,
    AgentStarted,
    DiskTight,
    Message,
    Numbered,
    PersonForgotten,
    PlanPushed,
    PlanRefused,
    Presence,
    RoadsChanged,
    TimeFound,
    TimeTold,
    WindowTold,
    WorkAmended,
)
from shared.quantities import EpochMs
from shared.steps import ClockFound, Consequences, Envelope, Job, JobFailed, LinkDown, LinkUp, Now, Row, Saved, Wake

REMEMBER_EVERY_MS = 60_000
"""How often the last place and the metres driven are committed."""


class AgentCore:
    """One agent's decisions. Not for more than one thread at a time."""

    def __init__(self, identity: Identity, saved: Saved) -> None:
        """From everything the store held; an empty store is a first start. Raises KindUnknown."""
        self.identity = identity
        self._time = Timekeeping(identity.life, identity.clock_speed, saved)
        self._commands = Commands(saved)
        self._outbox = Outbox(identity.agent, identity.boot, saved)
        self._uplink = Uplink(identity.agent, identity.region, identity.boot, identity.life, self._outbox, self._time)
        self._answers = Answers(saved.get("answered", {}))
        self._access = Access(saved)
        self._round = Round(saved, identity.zone)
        own = saved.get("agent", {})
        self._chain = Chain(identity.agent, own)
        resequences = kind_named(identity.kind).resequences
        self._navigator = Navigator(identity.agent, identity.zone, resequences, self._round, self._chain, saved)
        self._remembered = read_part(own, "place", Remembered) or Remembered()
        self._sensing = Sensing(limits_at(identity.clock_speed), self._remembered)
        self._belief: Belief | None = None
        self._believed = 0
        self._remembered_at_ms = 0
        self._is_tight = False
        self._written = self._parts()

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
        self._look_ahead()
        self._hand_over()
        self._out.envelopes += self._uplink.acknowledge(self._commands.acknowledgement())
        self._show()
        self._write_down()
        return self._out

    def due(self, now: Now) -> list[Envelope]:
        """What the streams should send or repeat now; nothing while the link is down."""
        return self._uplink.due(now.real_ms)

    def wake(self, now: Now) -> Wake:
        """The next look ahead in domain time, the next repeat in real time; by an unknown clock nothing is awaited that
        has a date.
        """
        waits = [self._round.tick_ms()]
        if self._time.is_dated:
            expires_ms = self._access.expires_ms(self._round.plan, self._round.day)
            waits += [expires_ms, self._navigator.looks_ahead_ms(now.domain_ms)]
        domain_ms = min((at_ms for at_ms in waits if at_ms is not None), default=None)
        return Wake(domain_ms, self._uplink.due_at(now.real_ms))

    def durable(self) -> dict[str, Any]:
        """Everything a restart must not forget, for comparing a running core with a recovered one."""
        return {
            "parts": self._parts(),
            "told": {} if self._round.work is None else self._round.work.told,
            "visits": self._round.visits,
            "answered": self._answers.given,
            "objects": self._round.proofs.kept,
            "outbox": self._outbox.durable(),
            "commands": self._commands.durable(),
        }

    def counters(self) -> dict[str, int]:
        """How the agent is doing, as names and numbers."""
        found = {
            "steps": self._steps,
            "readings_believed": self._believed,
            **self._outbox.counters(),
            "is_dated": int(self._time.is_dated),
            "link_is_up": int(self._uplink.is_up),
            "plan_version": self._round.plan_version,
            "visits": len(self._round.visits),
            "stops_to_come": len(self._round.day.shown),
            "decisions": self._chain.books.decisions,
            "arcs_changed_today": self._round.day.arcs_used,
            "relocations": self._sensing.relocations,
            "object_bytes_on_board": self._round.proofs.bytes_on_board,
            "disk_is_tight": int(self._is_tight),
        }
        sensed = Counter({str(name): n for name, n in self._sensing.refused.items()})
        refused = self.refused + self._navigator.refused + sensed
        return found | {f"refused_{name}": count for name, count in sorted(refused.items())}

    # Events, one kind after the other.

    def _start(self) -> None:
        self._screen.begin(self._now.domain_ms)
        found = self._time.found_at_start(self._now.domain_ms)
        if not self.identity.is_dated:
            self._lose_time()
        elif found is not None:
            self._find_time(found)
        self._say(AgentStarted(self.identity.kind, self.identity.version, self._round.plan_version))

    def _take(self, event: Any) -> Any:
        match event:
            case Numbered():
                self._take_command(event)
            case DeadLetter():
                self._take_dead_letter(event)
            case Ack():
                self._out.rows += self._outbox.acked(event)
            case Presence():
                self._out.envelopes += self._uplink.meet(event, self._now.real_ms)
            case IngestBegan():
                self._uplink.hear_ingest()
            case LinkUp():
                self._out.envelopes += self._uplink.go_up(self._now.real_ms)
                self._screen.is_stale = True
            case LinkDown():
                self._uplink.go_down()
                self._screen.is_stale = True
            case ClockFound():
                self._find_time(event)
            case RoomChanged():
                self._change_room(event.is_tight)
            case Stopping():
                self._out.rows += self._outbox.write_down()
                self._remembered = self._sensing.remember()
            case Asked():
                return self._answer(event)
            case CountersAsked():
                return self.counters()
            case Predicted():
                self._navigator.take_predicted(event, self._moment)
                self._steer()
            case Improved():
                self._navigator.take_improved(event, self._moment, self._uplink.is_up)
                self._steer()
            case JobFailed():
                self._fail(event.job)
                self._steer()
            case _:
                raise AssertionError(f"no such event: {type(event).__name__}")
        return None

    # The machine: its clock and its disk.

    def _lose_time(self) -> None:
        """Nobody knows the time: the work goes on by the provisional clock, and nothing undated leaves."""
        self._outbox.hold_back(self._time.lose(self._outbox.numbered_from(self._now.domain_ms)))
        self._round.is_dated = False

    def _hear_time(self, told: TellTime | str) -> None:
        """Somebody has said what time it is: the clock is to be put right, unless what was said is refused by name."""
        if isinstance(told, TellTime):
            self._out.jobs.append(told)
        elif told:
            self.refused[told] += 1

    def _find_time(self, found: ClockFound) -> None:
        """Date everything again that was written since the time was lost; the last seconds' belief begins anew."""
        dating = self._time.find(found)
        if dating is None:
            return
        # The outbox first: the chain is linked anew as its records wait there.
        self._out.rows += [*self._outbox.redate(dating), *self._answers.redate(dating)]
        self._out.envelopes += self._uplink.presence(self._now.real_ms)
        self._chain.redate(dating)
        self._access.redate(dating)
        self._round.redate(dating)
        self._navigator.begin_anew()
        self._remembered = dating.of(self._sensing.remember(), "at_ms")
        self.refused += Counter({str(name): n for name, n in self._sensing.refused.items()})
        self._sensing = Sensing(limits_at(self.identity.clock_speed), self._remembered)
        self._belief, self._remembered_at_ms = None, 0
        self._say(TimeFound(found.shift_ms, found.by))
        self._screen.is_stale = True
        self._pass_on()

    def _change_room(self, is_tight: bool) -> None:
        """The disk is full, or has room again: telemetry gives way, everything else is kept."""
        if is_tight == self._is_tight:
            return
        self._is_tight = is_tight
        self._out.rows += self._outbox.tighten() if is_tight else self._outbox.loosen()
        self._say(DiskTight(is_tight))
        self._screen.is_stale = True

    def _make_room(self) -> None:
        """Give up what is worth least while more waits for the hub than may: telemetry, then photographs that nothing
        is to be shown by. What was done and decided is never given up.
        """
        while self._outbox.bytes_waiting + self._round.proofs.bytes_on_board > self.identity.outbox_bytes:
            rows = self._outbox.give_up_telemetry()
            self._out.rows += rows
            if not rows and not self._round.give_up_picture():
                return
            self._pass_on()

    # Commands.

    def _take_command(self, numbered: Numbered) -> None:
        refusal, rows = self._commands.take(numbered, self._chain.books.epoch)
        self._out.rows += rows
        if refusal:
            self.refused[refusal] += 1
            return
        self._chain.hear(numbered.epoch)
        late = too_late(numbered, self._now.domain_ms) if self._time.is_dated else None
        if late is None:
            self._obey(numbered.message)
        else:
            self.refused["TooLate"] += 1
            self._say(late)
        self._pass_on()

    def _obey(self, command: Message) -> None:
        match command:
            case PlanPushed():
                self._judge_plan(command)
            case TimeTold():
                self._hear_time(self._time.hear_hub(command, self._now))
            case WindowTold():
                self._take_window(command)
            case RoadsChanged():
                self._take_roads(command)
            case WorkAmended():
                if self._round.take_amendment(command, self._moment):
                    self._navigator.hear(WORK_HAS_CHANGED)
            case PersonForgotten():
                self._round.forget(command, self._moment)
            case _:
                self.refused["NotACommand"] += 1

    def _take_dead_letter(self, letter: DeadLetter) -> None:
        heading = letter.heading
        refusal, rows = self._commands.take(heading, self._chain.books.epoch)
        self.refused[refusal or "CommandUnknown"] += 1
        if not refusal:
            kept = Row("dead_letters", f"{heading.boot}/{heading.seq}", letter.why.encode())
            self._out.rows += [*rows, kept]

    def _judge_plan(self, pushed: PlanPushed) -> None:
        plan = pushed.plan
        why = self._round.objection(pushed, self.identity.agent, self._now.domain_ms)
        if why:
            self.refused["PlanRefused"] += 1
            self._say(PlanRefused(plan.plan_version, f"plan {plan.plan_version} refused: {why}"))
        elif self._round.take_plan(plan):
            self._navigator.begin_plan()

    def _take_window(self, told: WindowTold) -> None:
        refusal = self._round.take_window(told)
        if refusal:
            self.refused[refusal] += 1
        else:
            self._navigator.hear_window(told.stop_id)

    def _take_roads(self, roads: RoadsChanged) -> None:
        refusal = self._round.take_roads(roads)
        if refusal:
            self.refused[refusal] += 1
        else:
            self._navigator.hear(ROADS_HAVE_CHANGED)

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
        the_round, outlook = self._round, self._navigator.outlook
        day = day_shown(
            self.identity.agent,
            the_round.work,
            the_round.day,
            the_round.visits,
            outlook.estimates if outlook else (),
            self._uplink.is_up,
            the_round.is_moving,
            outlook.rest_from_ms if outlook else None,
            self._is_tight,
            self._time.is_dated,
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
            self._out.rows += self._outbox.sample(self._sensing.believe(now_ms), now_ms)
            self._hear_time(self._time.hear_satellites(reading.utc_ms, reading.at_ms))

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
        if has_ticked | (self._time.is_dated and self._access.expire(self._round.plan, self._round.day, now_ms)):
            self._screen.is_stale = True
            self._pass_on()
        if not has_read:
            return
        if now_ms - self._remembered_at_ms >= REMEMBER_EVERY_MS:
            self._remembered_at_ms = now_ms
            self._remembered = self._sensing.remember()
        self._round.observe(self._belief, now_ms)
        self._pass_on()

    # Looking ahead, and bettering the order.

    def _look_ahead(self) -> None:
        """While nobody knows the time there is no prediction: against which windows?"""
        if self._time.is_dated:
            self._navigator.look_ahead(self._moment)
        self._steer()

    def _fail(self, job: Job) -> None:
        self.refused[f"JobFailed{type(job).__name__}"] += 1
        if isinstance(job, TellTime):
            self._time.fail_to_tell()
        else:
            self._navigator.fail(job)

    def _steer(self) -> None:
        """Say and want what came of looking ahead."""
        course = self._navigator.tidings()
        self._out.jobs += course.jobs
        for event in course.events:
            self._say(event)
        self._screen.is_stale |= course.is_seen

    # Speaking and keeping.

    def _pass_on(self) -> None:
        """Say and keep what came of the round; when its day is another now, a new look is due."""
        tidings = self._round.tidings()
        self._out.rows += tidings.rows
        for event in tidings.events:
            self._say(event)
        if tidings.moved_on:
            self._navigator.move_on(tidings.moved_on)
            self._screen.is_stale = True

    def _hand_over(self) -> None:
        """Let telemetry and pictures go as the link takes them, and some of them for want of room; when all is said,
        nothing old is left to forget.
        """
        if self._uplink.is_up:
            epoch, now_ms = self._chain.books.epoch, self._now.domain_ms
            self._out.rows += self._outbox.hand_over_telemetry()
            self._out.rows += self._outbox.hand_over_objects(self._round.proofs, epoch, now_ms)
        self._make_room()
        if self._outbox.has_said_all:
            self._out.rows += self._round.close_forgetting()

    def _say(self, event: AgentEvent) -> None:
        """Number an event and keep it until the hub has it. Committed before it is sent."""
        self._out.rows += self._outbox.say(event, self._chain.books.epoch, self._now.domain_ms)

    def _parts(self) -> Parts:
        return {
            **self._round.parts(),
            **self._access.parts(),
            **self._navigator.parts(),
            **self._chain.parts(),
            ("agent", "place"): self._remembered,
            **self._time.parts(),
        }

    def _write_down(self) -> None:
        parts = self._parts()
        self._out.rows += changed_rows(self._written, parts)
        self._written = parts
        if self._out.rows:
            self._out.rows.append(self._time.instant_row(self._now.domain_ms))
