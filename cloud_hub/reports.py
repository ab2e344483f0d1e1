"""Take what agents report of their day into the picture; what cannot be true becomes a dead letter."""

import re
from collections.abc import Callable
from typing import Any

from cloud_hub.amendments import Amendments
from cloud_hub.chains import Chains, Hand
from cloud_hub.customers import Customers, Expected
from cloud_hub.dayplan import DayPlan
from cloud_hub.events import Answer, LetterRetried, Spoke, Unreadable
from cloud_hub.fleet import AgentRecord, Chain, EstimatesHeard, StopRecord, has_visit
from cloud_hub.gaps import Gaps
from cloud_hub.letters import Letters, why_outdated
from cloud_hub.memory import Memory
from cloud_hub.post import Post
from cloud_hub.redelivery import Redelivery
from cloud_hub.traces import kept_visit
from cloud_hub.undone import Undone
from shared import wire
from shared.ledger import Decision
from shared.messages import (
    AgentStarted,
    AmendmentTaken,
    Arrived,
    ChangeAnswered,
    Decided,
    DiskTight,
    Estimate,
    EstimatesMoved,
    HeadingTo,
    Numbered,
    ObjectPart,
    OverrideExplained,
    PictureGivenUp,
    PlanRefused,
    PlanTaken,
    Resequenced,
    ShiftChanged,
    TimeFound,
    TooLate,
    Visited,
)
from shared.quantities import EpochMs
from shared.steps import Now
from shared.work import OVERRIDE_REASONS, StopId

FARTHEST_MS = 7 * 24 * 3_600_000
"""An estimate farther from now than a week is a mistake in units or a clock that does not know the time."""


MOST_VISITS = 50
"""Of one stop, which is written anew with each."""

MOST_PARTS = 1_000
MOST_PIECE_BYTES = 500_000
_DIGEST = re.compile("[0-9a-f]{64}")

LONGEST_WORDS = 280
OVERRIDE_WORDS = {
    "customer_asked": "the customer asked for it",
    "parcel_at_hand": "the parcel was at hand",
    "road": "because of the road",
    "knows_better": "the driver knows better",
    "other": "for another reason",
    "no_answer": "nobody said why",
}


COMMANDS = {
    "plan_pushed": "its plan",
    "work_amended": "a change of its work",
    "window_told": "that a customer was told another window",
    "roads_changed": "that a street was closed or opened",
}
"""Commands that have a time after which they are not begun, in words."""


class NotActedOn(ValueError):
    """A message that was taken and cannot be true; it is kept as a dead letter."""


class Reports:
    """What agents say of themselves, each message once and in order."""

    def __init__(
        self,
        memory: Memory,
        chains: Chains,
        post: Post,
        customers: Customers,
        dayplan: DayPlan,
        amendments: Amendments,
        redelivery: Redelivery,
        undone: Undone,
        letters: Letters,
        gaps: Gaps,
    ) -> None:
        self._memory = memory
        self._chains = chains
        self._post = post
        self._customers = customers
        self._dayplan = dayplan
        self._amendments = amendments
        self._redelivery = redelivery
        self._undone = undone
        self._letters = letters
        self._gaps = gaps
        self._acts: dict[type, Callable[[Numbered, Any, Now], None]] = {
            AgentStarted: self._agent_started,
            PlanTaken: self._plan_taken,
            PlanRefused: self._plan_refused,
            ShiftChanged: self._shift_changed,
            HeadingTo: self._heading_to,
            Arrived: self._arrived,
            Visited: self._visited,
            EstimatesMoved: self._estimates_moved,
            Resequenced: self._resequenced,
            ChangeAnswered: self._change_answered,
            Decided: self._decided,
            AmendmentTaken: self._amendment_taken,
            OverrideExplained: self._override_explained,
            ObjectPart: self._object_part,
            TooLate: self._too_late,
            DiskTight: self._disk_tight,
            PictureGivenUp: self._picture_given_up,
            TimeFound: self._time_found,
        }

    def spoke(self, event: Spoke, now: Now) -> None:
        """An agent said something: act on it if it is news."""
        numbered = event.numbered
        if not self._is_news(numbered, now):
            return
        if numbered.stream == "events":
            record = self._record(numbered)
            self._memory.change_agent(
                record,
                last_event=type(numbered.message).__name__,
                last_event_ms=max(record.last_event_ms, numbered.said_ms),
                events_taken=record.events_taken + 1,
            )
        why_suspect = self._letters.begin(numbered)
        try:
            if why_suspect:
                raise NotActedOn(why_suspect)
            self._act(numbered, now)
        except NotActedOn as why:
            # What may be part of somebody's signature, or of somebody forgotten, is not kept where nobody looks for it.
            is_private = isinstance(numbered.message, ObjectPart) or self._is_of_forgotten(numbered.message)
            self._letters.bury(numbered, b"" if is_private else wire.encode(numbered), str(why), now)
        self._letters.end()

    def _act(self, numbered: Numbered, now: Now) -> None:
        """Raises NotActedOn before it has changed anything."""
        act = self._acts.get(type(numbered.message))
        if act is None:
            raise NotActedOn(f"{type(numbered.message).__name__} is the hub's to say, not an agent's")
        if isinstance(numbered.message, ObjectPart) != (numbered.stream == "objects"):
            raise NotActedOn(f"{type(numbered.message).__name__} came in the stream '{numbered.stream}'")
        act(numbered, numbered.message, now)

    def unreadable(self, event: Unreadable, now: Now) -> None:
        """An agent said what nobody can read: it is taken all the same, so that its stream goes on."""
        if self._is_news(event, now):
            self._letters.bury(event, b"" if event.stream == "objects" else event.payload, event.why, now)

    def retried(self, event: LetterRetried, now: Now) -> Answer:
        """A person wants a dead letter acted upon after all: once, and only when that still makes sense."""
        why_not = self._letters.why_not(event.key, event.letter)
        if why_not:
            return Answer(False, why_not)
        if event.payload is None:
            return Answer(False, "its bytes are not kept: they were personal, or too old")
        try:
            numbered = wire.decode_numbered(event.payload)
            record = self._memory.agents.get(numbered.sender)
            if record is None or numbered.sender != event.letter.sender:
                raise NotActedOn(f"{numbered.sender} is no agent of ours")
            if not 0 <= numbered.said_ms < 1 << 53:
                raise NotActedOn(f"it was said at {numbered.said_ms}, expected epoch milliseconds")
            outdated = why_outdated(numbered, record.last_event_ms)
            if outdated or self._breaks_the_chain(numbered):
                raise NotActedOn(outdated or "the record of its decisions has gone on without it: settle it")
            self._act(numbered, now)
        except (NotActedOn, wire.Refused) as why:
            self._memory.counts["dead_letters_retried_in_vain"] += 1
            return Answer(False, f"it still cannot be acted upon: {why}")
        name = type(numbered.message).__name__
        return self._letters.retried(event.letter, event.by, f"had {name} acted upon after all, a dead letter of", now)

    def _breaks_the_chain(self, numbered: Numbered) -> bool:
        """Whether it holds a decision that does not follow from the last one we have of its node."""
        decision = getattr(numbered.message, "decision", None)
        chain = self._memory.chains.get(numbered.sender) or Chain(numbered.sender)
        return isinstance(decision, Decision) and decision.previous != chain.link

    def _is_news(self, placed: Numbered | Unreadable, now: Now) -> bool:
        former = self._post.taken(placed.sender, placed.stream)
        if not self._post.is_news(placed):
            return False
        if former.boot not in ("", placed.boot):
            self._gaps.begun_anew(placed, former, now)
        return True

    def _is_of_forgotten(self, said: Any) -> bool:
        stop = self._memory.stops.get(said.visit.stop_id) if isinstance(said, Visited) else None
        return stop is not None and self._memory.orders[stop.order_id].is_forgotten

    def _record(self, numbered: Numbered) -> AgentRecord:
        return self._memory.agents[numbered.sender]

    # The agent and its plan.

    def _agent_started(self, numbered: Numbered, said: AgentStarted, now: Now) -> None:
        record = self._memory.change_agent(self._record(numbered), kind=said.kind, version=said.version)
        plan = self._memory.plans.get(numbered.sender)
        waits = self._post.backlog(numbered.sender)
        if plan is not None and said.plan_version < plan.plan_version and not waits and record.shift != "ended":
            self._dayplan.push_again(record, plan, now)

    def _plan_taken(self, numbered: Numbered, said: PlanTaken, now: Now) -> None:
        self._memory.change_agent(self._record(numbered), plan_taken=said.plan_version, plan_refused="")
        self._amendments.plan_taken(numbered.sender, said.plan_version, now)

    def _plan_refused(self, numbered: Numbered, said: PlanRefused, now: Now) -> None:
        self._memory.change_agent(self._record(numbered), plan_refused=f"plan {said.plan_version}: {said.why}")
        self._chains.decide(
            now,
            "plan_refused",
            f"{numbered.sender} refused plan {said.plan_version}: {said.why}.",
            f"{numbered.sender} said so",
            about=(numbered.sender,),
            verdict="the agent goes on with the plan it has",
        )

    def _shift_changed(self, numbered: Numbered, said: ShiftChanged, _: Now) -> None:
        record, at_ms = self._record(numbered), numbered.said_ms
        changes: dict[str, object] = {"shift": said.now_is}
        if said.now_is == "begun" and record.begun_ms is None:
            changes["begun_ms"] = at_ms
        elif said.now_is == "ended":
            changes["ended_ms"] = at_ms
        self._memory.change_agent(record, **changes)
        self._undone.shift_changed(numbered.sender)

    # How the agent's machine fares.

    def _too_late(self, numbered: Numbered, said: TooLate, now: Now) -> None:
        """A command reached the agent after its time: it was not begun, so its work is nobody's yet."""
        agent, handed_on = numbered.sender, ""
        if said.command == "plan_pushed" and not self._record(numbered).has_begun:
            stops = self._undone.never_begun(agent, now)
            handed_on = f"; its {stops} stops go back to be planned" if stops else ""
        elif said.command == "work_amended":
            stops = self._amendments.never_begun(agent, now)
            handed_on = f"; {stops} stops are as they were before" if stops else ""
        what = COMMANDS.get(said.command, "a command")
        self._note_of(numbered, now, "command_too_late", f"heard {what} too late and did not begin it{handed_on}")

    def _disk_tight(self, numbered: Numbered, said: DiskTight, now: Now) -> None:
        words = (
            "has a full disk: it gives up telemetry and keeps events" if said.is_tight else "has room on its disk again"
        )
        self._note_of(numbered, now, "disk_tight" if said.is_tight else "disk_roomy", words)

    def _picture_given_up(self, numbered: Numbered, said: PictureGivenUp, now: Now) -> None:
        self._note_of(numbered, now, "picture_given_up", f"had no room for the photograph of {said.stop_id[:64]}")

    def _time_found(self, numbered: Numbered, said: TimeFound, now: Now) -> None:
        words = f"worked on an unknown clock and has dated its records again by {said.shift_ms / 1000:.0f} s"
        self._note_of(numbered, now, "time_found", words)

    def _note_of(self, numbered: Numbered, now: Now, kind: str, words: str) -> None:
        sender = numbered.sender
        self._memory.counts[kind] += 1
        self._chains.decide(now, kind, f"{sender} {words}.", f"{sender} said so", about=(sender,))

    # The way from stop to stop.

    def _heading_to(self, numbered: Numbered, said: HeadingTo, _: Now) -> None:
        stop = self._stop_of(numbered, said.stop_id)
        record = self._record(numbered)
        self._leave_heading(record, numbered.said_ms)
        self._memory.change_stop(stop, state="heading", changed_ms=numbered.said_ms)
        self._memory.change_agent(
            record, heading_to=said.stop_id, at_stop=None, overrides=record.overrides + said.overrides
        )
        self._customers.sets_out(numbered.sender)

    def _leave_heading(self, record: AgentRecord, at_ms: EpochMs) -> None:
        former = None if record.heading_to is None else self._memory.stops.get(record.heading_to)
        if former is not None and former.state in ("heading", "arrived"):
            self._memory.change_stop(former, state="planned", changed_ms=at_ms)

    def _arrived(self, numbered: Numbered, said: Arrived, _: Now) -> None:
        stop = self._stop_of(numbered, said.stop_id)
        record = self._record(numbered)
        if record.heading_to != said.stop_id:
            self._leave_heading(record, numbered.said_ms)
        self._memory.change_stop(stop, state="arrived", changed_ms=numbered.said_ms)
        self._memory.change_agent(record, heading_to=said.stop_id, at_stop=said.stop_id)

    def _visited(self, numbered: Numbered, said: Visited, now: Now) -> None:
        stop = self._left_out_of(numbered, said.visit.stop_id)
        stop = stop or self._stop_of(numbered, said.visit.stop_id, even_done=True)
        visit = kept_visit(self._memory.orders.get(stop.order_id), said.visit)
        if has_visit(stop, visit):
            self._memory.counts["visits_known"] += 1
            return
        if len(stop.visits) >= MOST_VISITS:
            raise NotActedOn(f"stop '{stop.stop_id}' has {len(stop.visits)} visits, expected at most {MOST_VISITS}")
        if stop.state == "waiting":
            self._dayplan.begin_again()
        visits = (*stop.visits, visit)
        self._memory.change_stop(
            stop, state="done", agent=numbered.sender, visits=visits, why_waiting="", changed_ms=visit.left_ms
        )
        record = self._record(numbered)
        is_here = visit.stop_id in (record.heading_to, record.at_stop)
        self._memory.change_agent(
            record,
            order=tuple(stop_id for stop_id in record.order if stop_id != visit.stop_id),
            heading_to=None if is_here else record.heading_to,
            at_stop=None if is_here else record.at_stop,
        )
        self._customers.served(visit, now)
        self._redelivery.visited(self._memory.stops[visit.stop_id], visit, now)
        self._undone.visited(self._memory.stops[visit.stop_id], visit, now)

    def _left_out_of(self, numbered: Numbered, stop_id: StopId) -> StopRecord | None:
        """A stop that waits for a plan and that this agent had before: it set out unheard, and the plan that left the
        stop out came too late. What it did there is done.
        """
        stop = self._memory.stops.get(stop_id)
        if stop is None or stop.state != "waiting" or stop.agent or numbered.sender not in stop.had_by:
            return None
        if self._memory.orders[stop.order_id].state != "accepted":
            return None
        return stop

    def _stop_of(self, numbered: Numbered, stop_id: StopId, even_done: bool = False) -> StopRecord:
        stop = self._memory.stops.get(stop_id)
        if stop is None:
            raise NotActedOn(f"stop '{stop_id}' is unknown")
        if stop.agent != numbered.sender:
            raise NotActedOn(f"stop '{stop_id}' is {stop.agent or 'nobody'}'s work")
        if stop.state == "done" and not even_done:
            raise NotActedOn(f"stop '{stop_id}' is already done")
        return stop

    def _override_explained(self, numbered: Numbered, said: OverrideExplained, now: Now) -> None:
        """Why the driver went elsewhere: counted, and told in the van's story. What he said in his own words is kept
        beside the record, where it can be forgotten.
        """
        if said.reason not in OVERRIDE_REASONS:
            raise NotActedOn(f"override reason '{said.reason[:40]}', expected one of {', '.join(OVERRIDE_REASONS)}")
        named = [stop_id for stop_id in (said.stop_id, said.instead_of) if stop_id in self._memory.stops]
        if len(named) < 2:
            raise NotActedOn(f"the override names stops '{said.stop_id}' and '{said.instead_of}', one is unknown")
        if any(numbered.sender not in self._memory.stops[stop_id].had_by for stop_id in named):
            raise NotActedOn(f"the override names stops '{said.stop_id}' and '{said.instead_of}', one was another's")
        record = self._record(numbered)
        reasons = {**record.override_reasons, said.reason: record.override_reasons.get(said.reason, 0) + 1}
        self._memory.change_agent(record, override_reasons=reasons)
        orders = tuple(self._memory.stops[stop_id].order_id for stop_id in named)
        self._chains.decide(
            now,
            "override_explained",
            f"{numbered.sender} went to {said.stop_id} before {said.instead_of}: {OVERRIDE_WORDS[said.reason]}.",
            "the driver was asked once",
            about=(numbered.sender, *named, *orders),
            verdict="the driver's own choice",
            approved_by=f"the driver of {numbered.sender}",
            hand=Hand(f"the driver of {numbered.sender}", said.words[:LONGEST_WORDS]) if said.words else None,
        )

    def _object_part(self, numbered: Numbered, said: ObjectPart, _: Now) -> None:
        """One piece of a signature or photograph, for the archive alone."""
        if not _DIGEST.fullmatch(said.digest) or not 0 <= said.part < said.parts <= MOST_PARTS:
            raise NotActedOn(
                f"piece {said.part} of {said.parts} of an object, expected a SHA-256 and up to {MOST_PARTS}"
            )
        if len(said.piece) > MOST_PIECE_BYTES:
            raise NotActedOn(f"a piece of {len(said.piece)} bytes, expected at most {MOST_PIECE_BYTES}")
        stop = self._memory.stops.get(said.stop_id)
        if stop is None or stop.agent != numbered.sender:
            raise NotActedOn(f"a piece of an object of stop '{said.stop_id}', expected one of {numbered.sender}'s")
        if self._memory.orders[stop.order_id].is_forgotten:
            self._memory.counts["object_parts_of_forgotten"] += 1
            return
        self._memory.counts["object_parts"] += 1
        self._memory.note("objects", f"{said.digest}/{said.stop_id}/{said.part:04d}", said)

    # What is still to come.

    def _estimates_moved(self, numbered: Numbered, said: EstimatesMoved, now: Now) -> None:
        _refuse_absurd(said.estimates, now)
        self._hear_estimates(numbered, said.estimates, said.why, "")

    def _resequenced(self, numbered: Numbered, said: Resequenced, now: Now) -> None:
        # All of it or nothing: a message that becomes a dead letter has changed no order and no chain.
        _refuse_absurd(said.estimates, now)
        self._follow(numbered, said.decision, now)
        record = self._record(numbered)
        order = self._memory.left_to(numbered.sender, said.after)
        self._memory.change_agent(record, resequenced=record.resequenced + 1, order=order)
        why = f"{numbered.sender} re-sequenced itself: {said.decision.sentence}"
        self._hear_estimates(numbered, said.estimates, why, said.decision.decision_id)

    def _change_answered(self, numbered: Numbered, said: ChangeAnswered, _: Now) -> None:
        record = self._record(numbered)
        self._memory.change_agent(
            record,
            order=self._memory.left_to(numbered.sender, said.order),
            changes_refused=record.changes_refused + (said.answer == "refused"),
        )

    def _amendment_taken(self, numbered: Numbered, said: AmendmentTaken, now: Now) -> None:
        self._amendments.taken(numbered.sender, said, now)

    def _decided(self, numbered: Numbered, said: Decided, now: Now) -> None:
        self._follow(numbered, said.decision, now)

    def _follow(self, numbered: Numbered, decision: Decision, now: Now) -> None:
        if not 0 <= decision.at_ms < 1 << 53:
            raise NotActedOn(f"decision '{decision.decision_id}' is of {decision.at_ms}, expected epoch milliseconds")
        self._chains.follow(numbered.sender, decision, now)

    def _hear_estimates(self, numbered: Numbered, estimates: tuple[Estimate, ...], why: str, decision_id: str) -> None:
        agent = numbered.sender
        if not estimates:
            return
        order = self._memory.left_to(agent, (estimate.stop_id for estimate in estimates))
        known = set(order)
        heard = tuple(estimate for estimate in estimates if estimate.stop_id in known)
        self._memory.counts["estimates_of_others"] += len(estimates) - len(heard)
        self._memory.estimates.put(agent, EstimatesHeard(numbered.said_ms, why, heard))
        self._memory.change_agent(self._record(numbered), order=order)
        self._customers.expect(Expected(agent, numbered.said_ms, heard, why, decision_id))


def _refuse_absurd(estimates: tuple[Estimate, ...], now: Now) -> None:
    now_ms = now.domain_ms
    for estimate in estimates:
        instants = (now_ms - FARTHEST_MS, estimate.p10_ms, estimate.p50_ms, estimate.p90_ms, now_ms + FARTHEST_MS)
        if list(instants) != sorted(instants):
            raise NotActedOn(
                f"stop '{estimate.stop_id}' is expected at {estimate.p10_ms}, {estimate.p50_ms}, {estimate.p90_ms}, "
                f"expected rising instants within a week of {now_ms}"
            )
