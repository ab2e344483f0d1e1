"""The hub's core: it takes what agents and people say, keeps one true picture, and decides what to tell whom.

It does no I/O and reads no clock. Everything it knows is a row; starting and recovering are the same path. What a
person may want to know later (a window moved, a van's work planned, a street closed) is a decision in the hub's own
chain; the decisions agents report are followed link by link in chains of theirs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cloud_hub import planning, promises
from cloud_hub.books import Book
from cloud_hub.events import (
    Acked,
    Answer,
    ClosuresAsked,
    DayPlanAsked,
    DepotsSaid,
    LegTimesFound,
    LegTimesWanted,
    Notice,
    NoticeDelivered,
    NoticeFailed,
    NoticeWanted,
    OrderCorrected,
    OrdersHanded,
    Pace,
    Planned,
    PlanWanted,
    PresenceHeard,
    Route,
    Spoke,
    Unreadable,
    VehiclesSaid,
    WindowAsked,
)
from cloud_hub.fleet import (
    AgentRecord,
    Chain,
    Closures,
    DeadLetter,
    EstimatesHeard,
    KeptDecision,
    Order,
    StopRecord,
    Vehicle,
    has_visit,
)
from cloud_hub.promises import Judgement, Promise, Rule
from shared import topics, wire
from shared.contracts import Plan
from shared.ledger import Alternative, Decision, Input
from shared.messages import (
    AgentStarted,
    Arrived,
    ChangeAnswered,
    Decided,
    Estimate,
    EstimatesMoved,
    HeadingTo,
    HubCommand,
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
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Consequences, Envelope, Job, JobFailed, LinkDown, LinkUp, Now, Row, Saved, Wake
from shared.streams import Receiver, Sender, Take
from shared.work import AgentId, Depot, Stop, StopId

HUB = topics.HUB

NOTICES_AT_ONCE = 4
MOST_NOTICE_ATTEMPTS = 12
FIRST_PATIENCE_MS = 500
LONGEST_PATIENCE_MS = 120_000
"""Twelve attempts that wait twice as long each time span about half an hour: longer than a receiver's restart,
shorter than a window.
"""

MOST_JOB_FAILURES = 4

FARTHEST_MS = 7 * 24 * 3_600_000
"""An estimate farther from now than a week is a mistake in units or a clock that does not know the time."""

TOLD_WHEN_HELD = frozenset({"imminent", "too_often", "too_soon"})
"""Rules whose forbidding is itself a decision somebody may ask about: somebody could have been told, and was not. Where
there is nothing better to tell (the slot ends, the shift is too small) nothing was decided.
"""


@dataclass(frozen=True, slots=True)
class HubIdentity:
    """What this hub is and may do, fixed for one life of its process.

    `new_boot` names the life of the store if this is its first start. `clock_face` gives an instant as people read it
    (HH:MM). `has_receiver` says whether notices can leave at all.
    """

    region: str
    life: str
    new_boot: str
    zone: str
    clock_face: Callable[[int], str]
    has_receiver: bool = False
    rule: Rule = field(default_factory=Rule)
    pace: Pace = field(default_factory=Pace)


class Self(msgspec.Struct, frozen=True):
    """What the hub knows of itself: the life of its store, and how often it has started."""

    boot: str
    epoch: int


class PlanNeed(msgspec.Struct, frozen=True):
    """A day somebody asked to plan, until it is planned."""

    need: str
    day: str
    by: str
    asked_ms: EpochMs


class NotActedOn(ValueError):
    """A message that was taken and cannot be true; it is kept as a dead letter."""


@dataclass(slots=True)
class _Heard:
    """What an agent expects, to be judged once the whole batch is taken: only its last word counts."""

    said_ms: EpochMs
    estimates: tuple[Estimate, ...]
    cause: str
    decision_id: str


@dataclass(slots=True)
class _Tries:
    failures: int = 0
    again_at_ms: int = 0
    is_running: bool = False


@dataclass(slots=True)
class _Step:
    """What one step gathers."""

    now: Now
    made: Consequences = field(default_factory=Consequences)
    to_ack: dict[tuple[AgentId, str], None] = field(default_factory=dict)
    to_judge: dict[AgentId, _Heard] = field(default_factory=dict)


class HubCore:
    """The deciding part of the hub; `shared.steps` drives it."""

    def __init__(self, identity: HubIdentity, saved: Saved) -> None:
        """From everything the store holds, which is nothing at the first start."""
        self._identity = identity
        self._self = Book("hub", Self, saved)
        self._orders = Book("orders", Order, saved)
        self._stops = Book("stops", StopRecord, saved)
        self._vehicles = Book("vehicles", Vehicle, saved)
        self._depots = Book("depots", Depot, saved)
        self._agents = Book("agents", AgentRecord, saved)
        self._plans = Book("plans", Plan, saved)
        self._estimates = Book("estimates", EstimatesHeard, saved)
        self._promises = Book("promises", Promise, saved)
        self._closures = Book("roads", Closures, saved)
        self._needs = Book("needs", PlanNeed, saved)
        self._chains = Book("chains", Chain, saved)
        self._due_notices = Book("notices_due", Notice, saved)
        self._receiver = Receiver(saved.get("taken", {}))
        self._awake_rows = self._become(saved)
        outbox = {
            **saved.get("outbox", {}),
            **{row.key: row.value for row in self._awake_rows if row.value is not None},
        }
        self._senders = {
            record.agent: Sender(record.agent, self.boot, "commands", outbox, saved.get("counters", {}))
            for record in self._agents.values()
        }
        self._tries: dict[str, _Tries] = {}
        self._link_is_up = False
        self._step = _Step(Now(EpochMs(0), 0))
        self.counts: Counter[str] = Counter()
        """What happened how often in this life, by name; read by anybody, written by the core."""

    @property
    def boot(self) -> str:
        """The life of the store."""
        return self._self["self"].boot

    @property
    def epoch(self) -> int:
        """How often the hub has started with this store; commands of a lower epoch are refused by agents."""
        return self._self["self"].epoch

    def knows(self, agent: AgentId) -> bool:
        """Whether this agent is one of ours. From any thread."""
        return agent in self._agents

    def backlogs(self) -> dict[str, int]:
        """How many commands wait for each agent's acknowledgement. From any thread."""
        return {agent: sender.backlog for agent, sender in list(self._senders.items())}

    def presence(self, is_there: bool = True) -> Envelope:
        """What the hub says of itself: retained, and its last will when it is not there."""
        said = Presence(HUB, is_there, self._identity.life, self.boot, self.epoch)
        return Envelope(topics.hub_presence(self._identity.region), wire.encode(said), 1, is_retained=True)

    def handle(self, events: Sequence[Any], now: Now) -> Consequences:
        """Decide. The first step of a life also commits the hub's new epoch, before anything is said under it."""
        self._step = step = _Step(now)
        step.made.rows, self._awake_rows = self._awake_rows, []
        for place, event in enumerate(events):
            answer = self._take(event)
            if answer is not None:
                step.made.answers[place] = answer
        for agent in sorted(step.to_judge):
            self._judge(agent, step.to_judge[agent])
        self._want_jobs()
        for book in self._books():
            step.made.rows += book.rows()
        step.made.envelopes += self._acks()
        return step.made

    def due(self, now: Now) -> list[Envelope]:
        """Commands to send or repeat now, while the broker is within reach."""
        if not self._link_is_up:
            return []
        return [
            Envelope(topics.down(self._identity.region, agent, "commands"), payload, is_signed=True)
            for agent, sender in self._senders.items()
            for payload in sender.due(now.real_ms)
        ]

    def wake(self, now: Now) -> Wake:
        """When a command is to be repeated or a job tried again."""
        moments = [tries.again_at_ms for tries in self._tries.values() if not tries.is_running and tries.failures]
        if self._link_is_up:
            moments += [at for at in (s.due_at(now.real_ms) for s in self._senders.values()) if at is not None]
        return Wake(None, min(moments, default=None))

    # Recovering.

    def _become(self, saved: Saved) -> list[Row]:
        """Raise the epoch, and say what still waits in the outbox under the new one: a lower epoch is refused."""
        former = self._self.get("self")
        boot = self._identity.new_boot if former is None else former.boot
        self._self.put("self", Self(boot, 1 if former is None else former.epoch + 1))
        if "closures" not in self._closures:
            self._closures.put("closures", Closures())
        if HUB not in self._chains:
            self._chains.put(HUB, Chain(HUB))
        return [
            Row("outbox", key, wire.encode(msgspec.structs.replace(wire.decode_numbered(payload), epoch=self.epoch)))
            for key, payload in sorted(saved.get("outbox", {}).items())
        ]

    def _books(self) -> Iterable[Book[Any]]:
        return (
            self._self, self._orders, self._stops, self._vehicles, self._depots, self._agents, self._plans,
            self._estimates, self._promises, self._closures, self._needs, self._chains, self._due_notices,
        )  # fmt: skip

    # Taking events.

    def _take(self, event: Any) -> Answer | None:
        take = _TAKERS.get(type(event))
        if take is None:
            raise TypeError(f"the hub's core was handed {type(event).__name__}, expected one of cloud_hub.events")
        answer: Answer | None = take(self, event)
        return answer

    def _link_came(self, _: LinkUp) -> None:
        self._link_is_up = True
        self._step.made.envelopes.append(self.presence())
        for sender in self._senders.values():
            sender.repeat_all()

    def _link_went(self, _: LinkDown) -> None:
        self._link_is_up = False

    def _presence_heard(self, event: PresenceHeard) -> None:
        record = self._agents.get(event.agent)
        if record is None:
            self.counts["refused.AgentUnknown"] += 1
            return
        presence = event.presence
        if not presence.is_there and presence.life != record.life:
            return  # The will of a process that another has already replaced.
        if presence.is_there and (presence.life != record.life or not record.is_there):
            self._senders[event.agent].repeat_all()
        self._put_agent(record, is_there=presence.is_there, life=presence.life)

    def _acked(self, event: Acked) -> None:
        sender = self._senders.get(event.agent)
        if sender is None:
            self.counts["refused.AgentUnknown"] += 1
            return
        self._step.made.rows += sender.acked(event.ack)

    def _spoke(self, event: Spoke) -> None:
        numbered = event.numbered
        if not self._is_next(numbered):
            return
        record = self._agents[numbered.sender]
        self._put_agent(
            record,
            last_event=type(numbered.message).__name__,
            last_event_ms=max(record.last_event_ms, numbered.said_ms),
            events_taken=record.events_taken + 1,
        )
        act = _ACTS.get(type(numbered.message))
        try:
            if act is None:
                raise NotActedOn(f"{type(numbered.message).__name__} is the hub's to say, not an agent's")
            act(self, numbered, numbered.message)
        except NotActedOn as why:
            self._bury(numbered, wire.encode(numbered).decode(), str(why))

    def _unreadable(self, event: Unreadable) -> None:
        if self._is_next(event):
            self._bury(event, event.payload, event.why)

    def _is_next(self, placed: Numbered | Unreadable) -> bool:
        """Whether this message is to be acted on now; whatever has been taken is acknowledged after the commit."""
        if placed.sender not in self._agents:
            self.counts["refused.AgentUnknown"] += 1
            return False
        if placed.stream != "events":
            self.counts["refused.StreamUnknown"] += 1
            return False
        taken, rows = self._receiver.take(placed)
        self.counts[f"taken.{taken.value}"] += 1
        self._step.made.rows += rows
        if taken is not Take.RETIRED:
            self._step.to_ack[placed.sender, placed.stream] = None
        if taken is Take.NEW and placed.seq == 1 and self._receiver.lives(placed.sender, placed.stream) > 1:
            self._decide(
                "store_replaced",
                f"{placed.sender} began a new life of its store: what the old one had not yet told us is lost.",
                f"boot {placed.boot} followed another",
                about=(placed.sender,),
            )
        return taken is Take.NEW

    def _bury(self, placed: Numbered | Unreadable, payload: str, why: str) -> None:
        self.counts["dead_letters"] += 1
        letter = DeadLetter(
            placed.sender, placed.boot, placed.stream, placed.seq, self._step.now.domain_ms, why, payload
        )
        key = f"{placed.sender}/{placed.boot}/{placed.stream}/{placed.seq:012d}"
        self._step.made.rows.append(Row("dead_letters", key, msgspec.json.encode(letter)))

    # What agents say.

    def _agent_started(self, numbered: Numbered, said: AgentStarted) -> None:
        record = self._put_agent(self._agents[numbered.sender], kind=said.kind, version=said.version)
        plan = self._plans.get(numbered.sender)
        waits = self._senders[numbered.sender].backlog
        if plan is not None and said.plan_version < plan.plan_version and not waits and record.shift != "ended":
            self._push_again(record, plan)

    def _plan_taken(self, numbered: Numbered, said: PlanTaken) -> None:
        self._put_agent(self._agents[numbered.sender], plan_taken=said.plan_version, plan_refused="")

    def _plan_refused(self, numbered: Numbered, said: PlanRefused) -> None:
        self._put_agent(self._agents[numbered.sender], plan_refused=f"plan {said.plan_version}: {said.why}")
        self._decide(
            "plan_refused",
            f"{numbered.sender} refused plan {said.plan_version}: {said.why}.",
            f"{numbered.sender} said so",
            about=(numbered.sender,),
            verdict="the agent goes on with the plan it has",
        )

    def _shift_changed(self, numbered: Numbered, said: ShiftChanged) -> None:
        self._put_agent(self._agents[numbered.sender], shift=said.now_is)

    def _heading_to(self, numbered: Numbered, said: HeadingTo) -> None:
        stop = self._stop_of(numbered, said.stop_id)
        record = self._agents[numbered.sender]
        self._leave_heading(record, numbered.said_ms)
        self._put_stop(stop, state="heading", changed_ms=numbered.said_ms)
        self._put_agent(record, heading_to=said.stop_id, at_stop=None, overrides=record.overrides + said.overrides)

    def _leave_heading(self, record: AgentRecord, at_ms: EpochMs) -> None:
        former = None if record.heading_to is None else self._stops.get(record.heading_to)
        if former is not None and former.state in ("heading", "arrived"):
            self._put_stop(former, state="planned", changed_ms=at_ms)

    def _arrived(self, numbered: Numbered, said: Arrived) -> None:
        stop = self._stop_of(numbered, said.stop_id)
        record = self._agents[numbered.sender]
        if record.heading_to != said.stop_id:
            self._leave_heading(record, numbered.said_ms)
        self._put_stop(stop, state="arrived", changed_ms=numbered.said_ms)
        self._put_agent(record, heading_to=said.stop_id, at_stop=said.stop_id)

    def _visited(self, numbered: Numbered, said: Visited) -> None:
        visit = said.visit
        stop = self._stop_of(numbered, visit.stop_id, even_done=True)
        if has_visit(stop, visit):
            self.counts["visits_known"] += 1
            return
        self._put_stop(stop, state="done", visits=(*stop.visits, visit), changed_ms=visit.left_ms)
        record = self._agents[numbered.sender]
        is_here = visit.stop_id in (record.heading_to, record.at_stop)
        self._put_agent(
            record,
            order=tuple(stop_id for stop_id in record.order if stop_id != visit.stop_id),
            heading_to=None if is_here else record.heading_to,
            at_stop=None if is_here else record.at_stop,
        )
        promise = self._promises.get(visit.stop_id)
        if promise is not None:
            served = msgspec.structs.replace(promise, served_ms=visit.arrived_ms, outcome=visit.outcome.value)
            self._promises.put(visit.stop_id, served)

    def _estimates_moved(self, numbered: Numbered, said: EstimatesMoved) -> None:
        self._hear_estimates(numbered, said.estimates, said.why, "")

    def _resequenced(self, numbered: Numbered, said: Resequenced) -> None:
        self._follow(numbered, said.decision)
        record = self._agents[numbered.sender]
        self._put_agent(record, resequenced=record.resequenced + 1, order=self._ours(numbered.sender, said.after))
        why = f"{numbered.sender} re-sequenced itself: {said.decision.sentence}"
        self._hear_estimates(numbered, said.estimates, why, said.decision.decision_id)

    def _change_answered(self, numbered: Numbered, said: ChangeAnswered) -> None:
        record = self._agents[numbered.sender]
        self._put_agent(
            record,
            order=self._ours(numbered.sender, said.order),
            changes_refused=record.changes_refused + (said.answer == "refused"),
        )

    def _decided(self, numbered: Numbered, said: Decided) -> None:
        self._follow(numbered, said.decision)

    def _stop_of(self, numbered: Numbered, stop_id: StopId, even_done: bool = False) -> StopRecord:
        stop = self._stops.get(stop_id)
        if stop is None:
            raise NotActedOn(f"stop '{stop_id}' is unknown")
        if stop.agent != numbered.sender:
            raise NotActedOn(f"stop '{stop_id}' is {stop.agent or 'nobody'}'s work")
        if stop.state == "done" and not even_done:
            raise NotActedOn(f"stop '{stop_id}' is already done")
        return stop

    def _ours(self, agent: AgentId, order: Iterable[StopId]) -> tuple[StopId, ...]:
        """The stops of an order that are this agent's and not done; others are not its to order."""
        found = (self._stops.get(stop_id) for stop_id in dict.fromkeys(order))
        return tuple(
            stop.stop_id for stop in found if stop is not None and stop.agent == agent and stop.state != "done"
        )

    def _hear_estimates(self, numbered: Numbered, estimates: tuple[Estimate, ...], why: str, decision_id: str) -> None:
        agent = numbered.sender
        if not estimates:
            return
        for estimate in estimates:
            self._refuse_absurd(estimate)
        order = self._ours(agent, (estimate.stop_id for estimate in estimates))
        known = set(order)
        heard = tuple(estimate for estimate in estimates if estimate.stop_id in known)
        self.counts["estimates_of_others"] += len(estimates) - len(heard)
        self._estimates.put(agent, EstimatesHeard(numbered.said_ms, why, heard))
        self._put_agent(self._agents[agent], order=order)
        before = self._step.to_judge.get(agent)
        # Within one batch a re-sequence remains the cause of the estimates that follow it.
        cause, decided = (
            (before.cause, before.decision_id)
            if before and before.decision_id and not decision_id
            else (why, decision_id)
        )
        self._step.to_judge[agent] = _Heard(numbered.said_ms, heard, cause, decided)

    def _refuse_absurd(self, estimate: Estimate) -> None:
        now_ms = self._step.now.domain_ms
        instants = (now_ms - FARTHEST_MS, estimate.p10_ms, estimate.p50_ms, estimate.p90_ms, now_ms + FARTHEST_MS)
        if list(instants) != sorted(instants):
            raise NotActedOn(
                f"stop '{estimate.stop_id}' is expected at {estimate.p10_ms}, {estimate.p50_ms}, {estimate.p90_ms}, "
                f"expected rising instants within a week of {now_ms}"
            )

    def _follow(self, numbered: Numbered, decision: Decision) -> None:
        """Keep an agent's decision, and say so when it does not follow from the one before it."""
        node = numbered.sender
        if not 0 <= decision.at_ms < 1 << 53:
            raise NotActedOn(f"decision '{decision.decision_id}' is of {decision.at_ms}, expected epoch milliseconds")
        chain = self._chains.get(node) or Chain(node)
        follows = decision.previous == chain.link and decision.by == node
        self._keep(chain, decision, follows)
        if not follows:
            self._decide(
                "chain_broken",
                f"The record of {node} is broken before {decision.decision_id}: one is missing or was changed.",
                f"{decision.decision_id} follows {decision.previous[:12]}…, expected {chain.link[:12]}…",
                about=(node, decision.decision_id),
                verdict="kept and marked; a person should look",
            )

    # Promises.

    def _judge(self, agent: AgentId, heard: _Heard) -> None:
        for estimate in heard.estimates:
            promise = self._promises.get(estimate.stop_id)
            stop = self._stops.get(estimate.stop_id)
            if promise is None or stop is None or stop.state not in ("planned", "heading"):
                continue
            judgement = promises.judge(promise, estimate, self._step.now.domain_ms, self._identity.rule)
            if judgement.window is not None:
                self._tell(promise, judgement, estimate, agent, heard)
            elif judgement.held in TOLD_WHEN_HELD and judgement.held != promise.held:
                self._hold(promise, judgement, estimate, agent, heard)

    def _tell(self, promise: Promise, judgement: Judgement, estimate: Estimate, agent: AgentId, heard: _Heard) -> None:
        window, kind = judgement.window, judgement.kind
        assert window is not None
        assert kind is not None
        face = self._face
        expected = f"{agent} is expected at {self._clock(estimate.p50_ms)}"
        if kind == "breach":
            sentence = (
                f"Order {promise.order_id} leaves its slot {face(promise.slot)}: {expected}; "
                f"the customer is told {face(window)} instead of {face(promise.told)}."
            )
        else:
            sentence = (
                f"The window of order {promise.order_id} moves from {face(promise.told)} to {face(window)}: {expected}."
            )
        decision = self._decide(
            "promise_breached" if kind == "breach" else "window_moved",
            sentence,
            heard.cause,
            inputs=self._inputs(promise, estimate, heard),
            alternatives=_choices(promise.told, window, estimate, face),
            chosen=1,
            verdict=judgement.verdict,
            about=self._about(promise, agent, heard),
        )
        told = promises.told_again(promise, window, kind, self._step.now.domain_ms, decision.decision_id)
        self._promises.put(promise.stop_id, told)
        self._notify(told, "breach" if kind == "breach" else "moved", sentence, decision.decision_id)
        self._say(agent, WindowTold(promise.stop_id, window))

    def _hold(self, promise: Promise, judgement: Judgement, estimate: Estimate, agent: AgentId, heard: _Heard) -> None:
        wanted = judgement.wanted
        assert wanted is not None
        self._decide(
            "window_held",
            f"Order {promise.order_id} keeps its window {self._face(promise.told)} although {agent} is expected at "
            f"{self._clock(estimate.p50_ms)}: {judgement.verdict.removeprefix('held back: ')}.",
            heard.cause,
            inputs=self._inputs(promise, estimate, heard),
            alternatives=_choices(promise.told, wanted, estimate, self._face),
            chosen=0,
            verdict=judgement.verdict,
            about=self._about(promise, agent, heard),
        )
        self._promises.put(promise.stop_id, msgspec.structs.replace(promise, held=judgement.held))

    def _inputs(self, promise: Promise, estimate: Estimate, heard: _Heard) -> tuple[Input, ...]:
        age_s = max(0, self._step.now.domain_ms - heard.said_ms) / 1000
        quality = "good" if age_s <= 120 else "old"
        clock = self._clock
        return (
            Input(
                "estimate P10/P50/P90",
                f"{clock(estimate.p10_ms)}/{clock(estimate.p50_ms)}/{clock(estimate.p90_ms)}",
                age_s,
                quality,
            ),
            Input("window told", self._face(promise.told)),
            Input("slot", self._face(promise.slot)),
            Input("moves so far", str(promise.moves)),
        )

    def _about(self, promise: Promise, agent: AgentId, heard: _Heard) -> tuple[str, ...]:
        cause = (heard.decision_id,) if heard.decision_id else ()
        return (promise.order_id, promise.stop_id, agent, *cause)

    def _notify(self, promise: Promise, kind: str, sentence: str, decision_id: str) -> None:
        state = "due" if self._identity.has_receiver else "kept"
        notice = Notice(
            f"{promise.stop_id}.{len(promise.tellings)}.{decision_id}",
            kind,
            promise.order_id,
            promise.stop_id,
            promise.agent,
            promise.told,
            promise.slot,
            self._step.now.domain_ms,
            sentence,
            decision_id,
            state,
        )
        self._put_notice(notice)

    def _put_notice(self, notice: Notice) -> None:
        self._step.made.rows.append(Row("notices", notice.notice_id, msgspec.json.encode(notice)))
        if notice.state == "due":
            self._due_notices.put(notice.notice_id, notice)
        else:
            self._due_notices.drop(notice.notice_id)

    def _window_asked(self, event: WindowAsked) -> Answer:
        promise = next((p for p in self._promises.values() if p.order_id == event.order_id), None)
        if promise is None:
            return Answer(False, f"order '{event.order_id}' has no window told yet: it is not planned")
        if promise.served_ms is not None:
            return Answer(False, f"order '{event.order_id}' has been visited")
        if event.told.opens_ms >= event.told.closes_ms or not event.told.within(promise.slot):
            return Answer(False, f"window {self._face(event.told)} is not inside the slot {self._face(promise.slot)}")
        sentence = (
            f"{event.by} told order {event.order_id} another window: {self._face(event.told)} instead of "
            f"{self._face(promise.told)}."
        )
        decision = self._decide(
            "window_by_hand", sentence, f"{event.by} asked", about=(promise.order_id, promise.stop_id, promise.agent),
            verdict="a person may tell any window inside the slot", approved_by=event.by,
        )  # fmt: skip
        told = promises.told_again(promise, event.told, "by_hand", self._step.now.domain_ms, decision.decision_id)
        self._promises.put(promise.stop_id, told)
        self._notify(told, "moved", sentence, decision.decision_id)
        self._say(promise.agent, WindowTold(promise.stop_id, event.told))
        return Answer(True, named=(decision.decision_id,))

    # Orders and vehicles.

    def _orders_handed(self, event: OrdersHanded) -> Answer:
        taken: list[str] = []
        refused: list[tuple[str, str]] = []
        for order in event.orders:
            stop = self._stops.get(_stop_id(order))
            known = self._orders.get(order.order_id)
            if known is not None and known.state == "accepted" and known.fingerprint == order.fingerprint:
                taken.append(order.order_id)
            elif stop is not None and stop.state != "waiting":
                refused.append((order.order_id, f"it is already {stop.state} with {stop.agent}"))
            else:
                self._keep_order(order)
                taken.append(order.order_id)
        return Answer(True, named=tuple(taken), refused=tuple(refused))

    def _keep_order(self, order: Order) -> None:
        self._orders.put(order.order_id, order)
        if order.stop is not None and order.state == "accepted":
            self._stops.put(
                order.stop.stop_id, StopRecord(order.stop.stop_id, order.order_id, changed_ms=self._step.now.domain_ms)
            )

    def _order_corrected(self, event: OrderCorrected) -> Answer:
        order = event.order
        known = self._orders.get(order.order_id)
        if known is None:
            return Answer(False, f"order '{order.order_id}' is unknown")
        stop = self._stops.get(_stop_id(order))
        if stop is not None and stop.state != "waiting":
            return Answer(False, f"order '{order.order_id}' is already {stop.state} with {stop.agent}")
        if event.remembered is not None:
            text, place = event.remembered
            self._step.made.rows.append(Row("corrections", text, place.encode()))
        self._keep_order(order)
        where = order.stop.address if order.stop is not None else "nowhere yet"
        self._decide(
            "order_corrected",
            f"{event.by} said where order {order.order_id} goes: {where}.",
            "; ".join(known.doubts) or "a person asked",
            about=(order.order_id,),
            verdict="a person's word",
            approved_by=event.by,
        )
        return Answer(True, named=(order.order_id,))

    def _vehicles_said(self, event: VehiclesSaid) -> Answer:
        refused: list[tuple[str, str]] = []
        for vehicle in event.vehicles:
            record = self._agents.get(vehicle.agent)
            former = self._vehicles.get(vehicle.agent)
            if record is None:
                self._agents.put(vehicle.agent, AgentRecord(vehicle.agent))
                self._senders[vehicle.agent] = Sender(vehicle.agent, self.boot, "commands", {}, {})
            elif former is not None and former.day != vehicle.day:
                if record.has_begun and record.shift != "ended" and record.order:
                    why = f"it is still out on {former.day} with {len(record.order)} stops to go"
                    refused.append((vehicle.agent, why))
                    continue
                self._begin_day(record)
            self._vehicles.put(vehicle.agent, vehicle)
        late = dict(refused)
        named = tuple(vehicle.agent for vehicle in event.vehicles if vehicle.agent not in late)
        return Answer(True, named=named, refused=tuple(refused))

    def _begin_day(self, record: AgentRecord) -> None:
        """A new day: yesterday's plan is over, and what it left undone waits again."""
        for stop in list(self._stops.values()):
            if stop.agent == record.agent and stop.state != "done":
                self._put_stop(stop, state="waiting", agent=AgentId(""), why_waiting=f"left undone by {record.agent}")
        self._plans.drop(record.agent)
        self._estimates.drop(record.agent)
        self._put_agent(record, shift="waiting", order=(), heading_to=None, at_stop=None)

    def _depots_said(self, event: DepotsSaid) -> Answer:
        for depot in event.depots:
            self._depots.put(depot.depot_id, depot)
        return Answer(True)

    # Planning.

    def _day_plan_asked(self, event: DayPlanAsked) -> Answer:
        vehicles, stops = self._to_plan(event.day)
        if not vehicles:
            return Answer(
                False, f"no vehicle of {event.day} waits for work: each has begun its shift or none was named"
            )
        if not stops:
            return Answer(False, f"no order waits to be planned for {event.day}")
        need = PlanNeed(
            f"plan/{event.day}/{self._chains[HUB].count}.{self._step.now.real_ms}",
            event.day,
            event.by,
            self._step.now.domain_ms,
        )
        self._needs.put("plan", need)
        return Answer(True, named=(need.need,))

    def _to_plan(self, day: str) -> tuple[tuple[Vehicle, ...], tuple[Stop, ...]]:
        """The vehicles whose shift has not begun, and the stops that wait or are theirs, of orders this day can
        serve.
        """
        now_ms = self._step.now.domain_ms
        vehicles = tuple(
            # Nobody leaves before the plan is asked for, whenever the shift began.
            msgspec.structs.replace(vehicle, begins_ms=max(vehicle.begins_ms, now_ms))
            for vehicle in self._vehicles.values()
            if vehicle.day == day and vehicle.ends_ms > now_ms and not self._agents[vehicle.agent].has_begun
        )
        if not vehicles:
            return (), ()
        free = {vehicle.agent for vehicle in vehicles}
        begins_ms = min(vehicle.begins_ms for vehicle in vehicles)
        ends_ms = max(vehicle.ends_ms for vehicle in vehicles)
        stops = []
        for record in self._stops.values():
            stop = self._orders[record.order_id].stop
            is_free = record.state == "waiting" or (record.state != "done" and record.agent in free)
            if is_free and stop is not None and stop.slot.opens_ms < ends_ms and stop.slot.closes_ms > begins_ms:
                stops.append(stop)
        return vehicles, tuple(stops)

    def _planned(self, event: Planned) -> None:
        self._settle(event.need)
        need = self._needs.get("plan")
        if need is None or need.need != event.need:
            return
        self._needs.drop("plan")
        for route in event.routes:
            self._take_route(route, event)
        for stop_id, why in event.unserved:
            stop = self._stops.get(stop_id)
            if stop is not None and stop.state in ("waiting", "planned"):
                self._put_stop(stop, state="waiting", agent=AgentId(""), why_waiting=why)
                self._decide(
                    "unserved",
                    f"Order {stop.order_id} is not planned on {need.day}: {why}.",
                    f"{need.by} asked to plan {need.day}",
                    about=(stop.order_id, stop.stop_id),
                    verdict="listed; a person should look",
                )

    def _take_route(self, route: Route, event: Planned) -> None:
        record = self._agents.get(route.agent)
        vehicle = self._vehicles.get(route.agent)
        if record is None or vehicle is None or record.has_begun:
            return
        had_plan = self._plans.get(route.agent) is not None
        if not route.order and not had_plan:
            return
        stops = {stop_id: _stop(self._orders[self._stops[stop_id].order_id]) for stop_id in route.order}
        windows = planning.first_windows(route, stops, self._identity.rule)
        told = {
            stop_id: promise.told if (promise := self._promises.get(stop_id)) is not None else windows[stop_id]
            for stop_id in route.order
        }
        depot = self._depots[vehicle.depot_id]
        version = record.plan_pushed + 1
        plan = planning.contract(route, vehicle, depot, stops, version, told)
        decision = self._decide(
            "planned",
            f"{route.agent} gets {len(route.order)} stops on {vehicle.day}: out at {self._clock(route.depart_ms)}, "
            f"back at {self._clock(route.finish_ms)}, {route.driving_s // 60} min of driving"
            + (f", {route.late_s // 60} min late in all." if route.late_s else ", nobody late."),
            f"plan asked; {event.how}",
            alternatives=(
                Alternative("the solver's own routes", event.solver_cost_s),
                Alternative("the same after exact repair", event.final_cost_s),
            ),
            chosen=1,
            verdict="first plan of the day: nothing promised yet is changed",
            about=(route.agent,),
            seed=event.seed,
            iterations=event.iterations,
        )
        for estimate in route.estimates:
            self._assign(route.agent, estimate, stops[estimate.stop_id], told[estimate.stop_id], decision.decision_id)
        self._put_agent(
            record, plan_pushed=version, order=route.order, legs_version=route.legs.roads_version, plan_refused=""
        )
        self._estimates.put(route.agent, EstimatesHeard(self._step.now.domain_ms, "the first plan", route.estimates))
        self._push(plan)

    def _assign(self, agent: AgentId, estimate: Estimate, stop: Stop, told: TimeWindow, decision_id: str) -> None:
        record = self._stops[stop.stop_id]
        self._put_stop(record, state="planned", agent=agent, why_waiting="", changed_ms=self._step.now.domain_ms)
        known = self._promises.get(stop.stop_id)
        if known is not None:
            self._promises.put(stop.stop_id, msgspec.structs.replace(known, agent=agent))
            return
        promise = promises.told_again(
            Promise(stop.stop_id, stop.order_id, agent, stop.slot, told),
            told,
            "first",
            self._step.now.domain_ms,
            decision_id,
        )
        self._promises.put(stop.stop_id, promise)
        sentence = (
            f"Order {stop.order_id} comes between {self._face(told)}, expected at {self._clock(estimate.p50_ms)}."
        )
        self._notify(promise, "first", sentence, decision_id)

    def _push(self, plan: Plan) -> None:
        self._plans.put(plan.agent, plan)
        key = f"{plan.agent}/{plan.day}/{plan.plan_version:06d}"
        self._step.made.rows.append(Row("plan_history", key, msgspec.json.encode(plan)))
        self._say(plan.agent, PlanPushed(plan, plan.shift_end_ms))

    def _push_again(self, record: AgentRecord, plan: Plan) -> None:
        """An agent that lost its plan gets what is left of it, under a new version."""
        left = set(self._ours(record.agent, (stop.stop_id for stop in plan.stops)))
        order = [stop_id for stop_id in record.order if stop_id in left]
        order += [stop.stop_id for stop in plan.stops if stop.stop_id in left and stop.stop_id not in set(order)]
        told = {stop_id: self._promises[stop_id].told for stop_id in order if stop_id in self._promises}
        version = record.plan_pushed + 1
        self._put_agent(self._agents[record.agent], plan_pushed=version)
        self._push(planning.remaining_plan(plan, order, told, version))

    # Streets.

    def _closures_asked(self, event: ClosuresAsked) -> Answer:
        closures = self._closures["closures"]
        if event.is_closed:
            ways = {**closures.ways, **dict.fromkeys(event.ways, event.why)}
        else:
            ways = {way: why for way, why in closures.ways.items() if way not in set(event.ways)}
        if ways == closures.ways:
            return Answer(True, "nothing changed: it was so already")
        self._closures.put("closures", Closures(closures.version + 1, ways))
        did = "closed" if event.is_closed else "opened"
        decision = self._decide(
            "street_closed" if event.is_closed else "street_opened",
            f"{event.by} {did} {event.street or 'a street'}: {event.why or 'no reason given'}. "
            "The leg times of every van are asked again.",
            f"{event.by} asked",
            inputs=(Input("ways", " ".join(map(str, event.ways))),),
            about=tuple(f"way/{way}" for way in event.ways),
            verdict="a person's word",
            approved_by=event.by,
        )
        return Answer(True, named=(decision.decision_id,))

    def _leg_times_found(self, event: LegTimesFound) -> None:
        self._settle(event.need)
        plan = self._plans.get(event.agent)
        record = self._agents.get(event.agent)
        if plan is None or record is None or plan.plan_version != event.plan_version:
            return
        if event.legs.roads_version <= record.legs_version:
            return
        closures = self._closures["closures"]
        why = ", ".join(dict.fromkeys(closures.ways.values())) or "all streets are open again"
        self._plans.put(event.agent, msgspec.structs.replace(plan, legs=event.legs))
        self._put_agent(record, legs_version=event.legs.roads_version)
        self._say(event.agent, RoadsChanged(plan.plan_version, event.legs, why))

    # Jobs.

    def _want_jobs(self) -> None:
        for job in [*self._plan_jobs(), *self._leg_jobs(), *self._notice_jobs()]:
            self._tries.setdefault(job.need, _Tries()).is_running = True
            self._step.made.jobs.append(job)

    def _may_try(self, need: str) -> bool:
        tries = self._tries.get(need)
        return tries is None or (not tries.is_running and tries.again_at_ms <= self._step.now.real_ms)

    def _plan_jobs(self) -> Iterable[Job]:
        need = self._needs.get("plan")
        if need is None or not self._may_try(need.need):
            return
        vehicles, stops = self._to_plan(need.day)
        depots = tuple(self._depots[name] for name in sorted({vehicle.depot_id for vehicle in vehicles}))
        if not vehicles or not stops:
            self._needs.drop("plan")
            return
        closures = self._closures["closures"]
        yield PlanWanted(
            need.need,
            need.day,
            self._identity.zone,
            depots,
            vehicles,
            stops,
            tuple(sorted(closures.ways)),
            closures.version,
            self._identity.pace,
        )

    def _leg_jobs(self) -> Iterable[Job]:
        closures = self._closures["closures"]
        for agent, plan in self._plans.items():
            record = self._agents[agent]
            need = f"legs/{agent}/{plan.plan_version}/{closures.version}"
            if record.legs_version >= closures.version or record.shift == "ended" or not self._may_try(need):
                continue
            stops = {stop.stop_id: stop for stop in plan.stops}
            yield LegTimesWanted(
                need, AgentId(agent), plan.plan_version, self._identity.zone, plan.depot,
                tuple(stops[stop_id] for stop_id in plan.legs.places), plan.depart_ms, plan.shift_end_ms,
                tuple(sorted(closures.ways)), closures.version,
            )  # fmt: skip

    def _notice_jobs(self) -> Iterable[Job]:
        if not self._identity.has_receiver:
            return
        running = sum(key in self._tries and self._tries[key].is_running for key, _ in self._due_notices.items())
        for key, notice in self._due_notices.items():
            if running >= NOTICES_AT_ONCE:
                return
            if self._may_try(key):
                running += 1
                yield NoticeWanted(key, notice)

    def _settle(self, need: str) -> None:
        self._tries.pop(need, None)

    def _fail(self, need: str) -> _Tries:
        """Try this need again later: twice as long each time, spread by the need's own name."""
        tries = self._tries.setdefault(need, _Tries())
        patience_ms = min(FIRST_PATIENCE_MS << min(tries.failures, 16), LONGEST_PATIENCE_MS)
        tries.failures += 1
        tries.is_running = False
        spread = sum((place + 1) * ord(letter) for place, letter in enumerate(f"{need}#{tries.failures}")) % 997
        tries.again_at_ms = self._step.now.real_ms + patience_ms + patience_ms * spread // 1994
        return tries

    def _job_failed(self, event: JobFailed) -> None:
        self.counts[f"job_failed.{type(event.job).__name__}"] += 1
        if isinstance(event.job, NoticeWanted):
            self._notice_failed(NoticeFailed(event.job.need, event.why, False))
            return
        tries = self._fail(event.job.need)
        if isinstance(event.job, LegTimesWanted) and tries.failures == MOST_JOB_FAILURES:
            self._decide(
                "leg_times_failed",
                f"{event.job.agent} drives on with its old leg times: {event.why}.",
                f"the roads are at version {event.job.roads_version}",
                about=(event.job.agent,),
                verdict="asked again every two minutes; a person should look",
            )
        need = self._needs.get("plan")
        if need is not None and need.need == event.job.need and tries.failures >= MOST_JOB_FAILURES:
            self._settle(event.job.need)
            self._needs.drop("plan")
            self._decide(
                "plan_failed",
                f"{need.day} could not be planned after {tries.failures} attempts: {event.why}.",
                f"{need.by} asked to plan {need.day}",
                about=(need.day,),
                verdict="given up; a person should ask again",
            )

    def _notice_delivered(self, event: NoticeDelivered) -> None:
        self._settle(event.need)
        notice = self._due_notices.get(event.need)
        if notice is not None:
            self._end_notice(notice, "delivered", event.answer)

    def _notice_failed(self, event: NoticeFailed) -> None:
        notice = self._due_notices.get(event.need)
        if notice is None:
            self._settle(event.need)
            return
        self._fail(event.need)
        if event.is_final or notice.attempts + 1 >= MOST_NOTICE_ATTEMPTS:
            self._settle(event.need)
            self._end_notice(notice, "given_up", event.answer)
        else:
            self._put_notice(msgspec.structs.replace(notice, attempts=notice.attempts + 1, last_answer=event.answer))

    def _end_notice(self, notice: Notice, state: str, answer: str) -> None:
        self.counts[f"notices.{state}"] += 1
        self._put_notice(
            msgspec.structs.replace(
                notice,
                state=state,
                attempts=notice.attempts + 1,
                last_answer=answer,
                settled_ms=self._step.now.domain_ms,
            )
        )

    # Writing things down.

    def _decide(
        self,
        kind: str,
        sentence: str,
        cause: str,
        *,
        inputs: tuple[Input, ...] = (),
        alternatives: tuple[Alternative, ...] = (),
        chosen: int = 0,
        verdict: str = "",
        approved_by: str = "within the rules",
        about: tuple[str, ...] = (),
        seed: int = 0,
        iterations: int = 0,
    ) -> Decision:
        """Add a decision to the hub's own chain."""
        chain = self._chains[HUB]
        decision = Decision(
            f"hub-{chain.count + 1:06d}", HUB, kind, self._step.now.domain_ms, sentence, cause, inputs, alternatives,
            chosen, verdict, approved_by, about, "", seed, iterations, chain.link,
        )  # fmt: skip
        self._keep(chain, decision, follows=True)
        return decision

    def _keep(self, chain: Chain, decision: Decision, follows: bool) -> None:
        number = chain.count + 1
        self._chains.put(chain.node, Chain(chain.node, number, decision.link(), chain.breaks + (not follows)))
        kept = KeptDecision(
            msgspec.Raw(msgspec.json.encode(decision)), chain.node, number, follows, self._step.now.domain_ms
        )
        self._step.made.rows.append(Row("decisions", f"{chain.node}/{number:09d}", msgspec.json.encode(kept)))

    def _say(self, agent: AgentId, command: HubCommand) -> None:
        now_ms = self._step.now.domain_ms

        def numbered(seq: int) -> bytes:
            return wire.encode(Numbered(HUB, self.boot, "commands", seq, now_ms, self.epoch, command))

        self._step.made.rows += self._senders[agent].say(numbered)

    def _acks(self) -> Iterable[Envelope]:
        for agent, stream in self._step.to_ack:
            ack = self._receiver.ack(agent, stream)
            if ack is not None:
                yield Envelope(topics.down(self._identity.region, agent, "acks"), wire.encode(ack), topics.QOS["acks"])

    def _put_agent(self, record: AgentRecord, **changes: Any) -> AgentRecord:
        return self._agents.put(record.agent, msgspec.structs.replace(record, **changes))

    def _put_stop(self, record: StopRecord, **changes: Any) -> StopRecord:
        return self._stops.put(record.stop_id, msgspec.structs.replace(record, **changes))

    def _clock(self, instant_ms: int) -> str:
        return self._identity.clock_face(instant_ms)

    def _face(self, window: TimeWindow) -> str:
        return f"{self._clock(window.opens_ms)}-{self._clock(window.closes_ms)}"


def _stop_id(order: Order) -> StopId:
    return order.stop.stop_id if order.stop is not None else StopId(order.order_id)


def _stop(order: Order) -> Stop:
    assert order.stop is not None, f"order {order.order_id} was planned without a place"
    return order.stop


def _choices(
    told: TimeWindow, wanted: TimeWindow, estimate: Estimate, face: Callable[[TimeWindow], str]
) -> tuple[Alternative, ...]:
    """Leaving the window and moving it, each with the seconds by which the estimate would miss it."""
    return tuple(
        Alternative(what, cost_s=_missed_s(window, estimate), late_s=window.late_s(estimate.p50_ms))
        for what, window in ((f"keep {face(told)}", told), (f"tell {face(wanted)}", wanted))
    )


def _missed_s(window: TimeWindow, estimate: Estimate) -> float:
    return max(0, estimate.p90_ms - window.closes_ms, window.opens_ms - estimate.p50_ms) / 1000


_TAKERS: dict[type, Callable[[HubCore, Any], Answer | None]] = {
    LinkUp: HubCore._link_came,
    LinkDown: HubCore._link_went,
    PresenceHeard: HubCore._presence_heard,
    Acked: HubCore._acked,
    Spoke: HubCore._spoke,
    Unreadable: HubCore._unreadable,
    OrdersHanded: HubCore._orders_handed,
    OrderCorrected: HubCore._order_corrected,
    VehiclesSaid: HubCore._vehicles_said,
    DepotsSaid: HubCore._depots_said,
    DayPlanAsked: HubCore._day_plan_asked,
    ClosuresAsked: HubCore._closures_asked,
    WindowAsked: HubCore._window_asked,
    Planned: HubCore._planned,
    LegTimesFound: HubCore._leg_times_found,
    NoticeDelivered: HubCore._notice_delivered,
    NoticeFailed: HubCore._notice_failed,
    JobFailed: HubCore._job_failed,
}

_ACTS: dict[type, Callable[[HubCore, Numbered, Any], None]] = {
    AgentStarted: HubCore._agent_started,
    PlanTaken: HubCore._plan_taken,
    PlanRefused: HubCore._plan_refused,
    ShiftChanged: HubCore._shift_changed,
    HeadingTo: HubCore._heading_to,
    Arrived: HubCore._arrived,
    Visited: HubCore._visited,
    EstimatesMoved: HubCore._estimates_moved,
    Resequenced: HubCore._resequenced,
    ChangeAnswered: HubCore._change_answered,
    Decided: HubCore._decided,
}
