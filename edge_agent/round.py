"""Drive the round: take the work, obey the driver, follow the van, and record visits.

What came of it is told afterwards (`Round.tidings`): the round knows neither the hub, nor the models, nor the kernel.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, tzinfo
from typing import NamedTuple

import msgspec

from edge_agent import forgetting, learning, turns
from edge_agent.amending import Amended, amend, placed
from edge_agent.assignment import Assignment, plan_objection, read_told, roads_objection
from edge_agent.dating import Dating
from edge_agent.dialogue import (
    ChangeSaid,
    HeadingSaid,
    ObjectSaid,
    OutcomeSaid,
    OverrideSaid,
    Reply,
    Said,
    ScanSaid,
    ShiftSaid,
)
from edge_agent.foresight import bearing_of
from edge_agent.lateness import stops_moved
from edge_agent.memory import Change, Day, Learned, Parts, Withdrawn, read_part
from edge_agent.outlook import Bearing, Foreseen
from edge_agent.proofs import Proofs
from edge_agent.reasons import in_english
from edge_agent.sensing import Belief
from edge_agent.visiting import parcel_read, visit_of
from edge_agent.whereabouts import LeftAgain, Near, SetOff, StandsAt, has_begun, is_moving, observe
from shared.contracts import LegTimes, Plan
from shared.labels import LabelRefused
from shared.messages import (
    AgentEvent,
    AmendmentTaken,
    Arrived,
    ChangeAnswered,
    HeadingTo,
    OverrideExplained,
    PersonForgotten,
    PictureGivenUp,
    PlanPushed,
    PlanTaken,
    RoadsChanged,
    ShiftChanged,
    Visited,
    WindowTold,
    WorkAmended,
)
from shared.quantities import EpochMs
from shared.steps import Row, Saved
from shared.work import AgentId, Outcome, Stop, StopId, Visit, missing_from_proof

ANSWER_WITHIN_MS = 1_200_000
"""A driver who has not said why after 20 minutes has other things to do, and is not asked again."""
MOTION_KNOWN_FOR_MS = 30_000
"""A van that moved when its devices fell silent is taken to move for so long; then unknown counts as standing."""


class Moment(NamedTuple):
    """When something happens, and what is believed of the van then; None before the first step has looked."""

    now_ms: EpochMs
    belief: Belief | None


class Tidings(msgspec.Struct, frozen=True):
    """What came of what happened: events for the hub in order, rows for the commit.

    `moved_on` says in words why the day is another than before; empty when it is not.
    """

    events: tuple[AgentEvent, ...]
    rows: tuple[Row, ...]
    moved_on: str


class Round:
    """The work assigned, how far it is done, and what it has taught."""

    def __init__(self, saved: Saved, zone: tzinfo = UTC) -> None:
        """From everything the store held; `zone` is where the driver's clock hangs."""
        self._zone = zone
        kept = saved.get("plan", {})
        plan = read_part(kept, "plan", Plan)
        self._work: Assignment | None = None
        if plan is not None:
            legs, told = read_part(kept, "legs", LegTimes), read_told(saved.get("told", {}))
            withdrawn = read_part(kept, "withdrawn", Withdrawn) or Withdrawn()
            self._work = Assignment(plan, legs, told, withdrawn.stops)
        self._day = read_part(saved.get("day", {}), "day", Day) or Day()
        self._learned = read_part(saved.get("agent", {}), "learned", Learned) or Learned()
        self._visits = {
            StopId(key): msgspec.json.decode(value, type=Visit)
            for key, value in sorted(saved.get("visits", {}).items())
        }
        self._proofs = Proofs(saved)
        self._forgotten = dict.fromkeys(sorted(saved.get(forgetting.ROOM, {})))
        self._near: Near | None = None
        self._is_moving = bool(self._day.held)
        self._motion_known_ms: int | None = None
        self.is_dated = True
        """Whether the time is known: while it is not, no window, expiry or departure is judged."""
        self._sayings = learning.Sayings()
        self._events: list[AgentEvent] = []
        self._rows: list[Row] = []
        self._moved_on = ""

    @property
    def work(self) -> Assignment | None:
        """What is to be done; None until the first plan comes."""
        return self._work

    @property
    def day(self) -> Day:
        """Where the day stands."""
        return self._day

    @property
    def learned(self) -> Learned:
        """What legs and stops have taught."""
        return self._learned

    @property
    def visits(self) -> Mapping[StopId, Visit]:
        """The visits of this day."""
        return self._visits

    @property
    def proofs(self) -> Proofs:
        """The signatures and photographs on board."""
        return self._proofs

    @property
    def is_moving(self) -> bool:
        """Whether the van moves, as far as anybody knows."""
        return self._is_moving

    @property
    def plan(self) -> Plan | None:
        """The plan driven, amendments included; None before the first."""
        return None if self._work is None else self._work.plan

    @property
    def plan_version(self) -> int:
        """The version of the plan driven; 0 before the first."""
        return 0 if self._work is None else self._work.plan.plan_version

    def parts(self) -> Parts:
        """What must be written down when it is another value than before; visits and told windows have rows each."""
        work = self._work
        return {
            ("plan", "plan"): None if work is None else work.plan,
            ("plan", "legs"): None if work is None else work.newer_legs,
            ("plan", "withdrawn"): None if work is None or not work.withdrawn else Withdrawn(work.withdrawn),
            ("day", "day"): self._day,
            ("agent", "learned"): self._learned,
            **self._proofs.parts(),
        }

    def tidings(self) -> Tidings:
        """What came of everything since this was last asked."""
        found = Tidings(tuple(self._events), tuple(self._rows), self._moved_on)
        self._events, self._rows, self._moved_on = [], [], ""
        return found

    # What the hub says of the work.

    def objection(self, pushed: PlanPushed, agent: AgentId, now_ms: int) -> str:
        """Why a plan cannot be taken; empty when it can, and for the plan driven already."""
        if self._work is not None and pushed.plan == self._work.plan:
            return ""
        return plan_objection(pushed, agent, self.plan_version, now_ms if self.is_dated else None)

    def take_plan(self, plan: Plan) -> bool:
        """Work under a plan: visits done and the stop under way are kept, on another day everything begins anew.

        False when it is the plan driven already.
        """
        former = self._work
        self._events.append(PlanTaken(plan.plan_version))
        if former is not None and former.plan == plan:
            return False
        if former is not None:
            self._rows += [Row("told", stop_id, None) for stop_id in former.told]
        if former is None or former.plan.day != plan.day:
            self._rows += [*(Row("visits", stop_id, None) for stop_id in self._visits), *self._proofs.begin_day()]
            self._explain("no_answer")
            self._visits, self._day = {}, Day()
            self._learned = learning.on_another_day(self._learned, plan.day)
        self._work = Assignment(plan)
        self._change_day(turns.planned(self._day, tuple(stop.stop_id for stop in plan.stops), self._visits))
        self._moved_on = f"plan {plan.plan_version} taken"
        return True

    def take_window(self, told: WindowTold) -> str:
        """Another window was told to a customer; the name of the refusal, empty when it is taken."""
        work, stop_id = self._work, told.stop_id
        if work is None or stop_id not in work.stops:
            return "StopUnknown"
        self._work = replace(work, told={**work.told, stop_id: told.told})
        self._rows.append(Row("told", stop_id, msgspec.json.encode(told.told)))
        self._moved_on = "a window was told"
        return ""

    def take_roads(self, roads: RoadsChanged) -> str:
        """The roads take other times; the name of the refusal, empty when they are taken."""
        refusal = roads_objection(self._work, roads)
        if self._work is None or refusal:
            return refusal
        self._work = replace(self._work, newer_legs=roads.legs)
        self._moved_on = "roads changed"
        return ""

    def take_amendment(self, said: WorkAmended, at: Moment) -> bool:
        """Other work is wanted: take what can be taken and say what cannot. True when anything is another than before.

        A new stop goes where it costs least, until the kernel knows better.
        """
        work = self._work
        if work is None:
            stops = (*(stop.stop_id for stop in said.stops), *said.withdrawn)
            refused = tuple((stop_id, "there is no plan yet") for stop_id in stops)
            self._events.append(AmendmentTaken(said.plan_version, (), refused, ()))
            return False
        day = self._day
        made = amend(work, said, turns.under_way(day), self._visits, day.shift == "ended")
        if made.wish is not None:
            self._amend(work, made, at)
        self._events.append(AmendmentTaken(said.plan_version, made.taken, made.refused, self._day.shown))
        return made.wish is not None

    def _amend(self, former: Assignment, made: Amended, at: Moment) -> None:
        assert made.wish is not None, "only what changes the work is put into it"
        work, day = made.work, self._day
        self._rows += [Row("told", stop_id, None) for stop_id in former.told if stop_id not in work.told]
        self._work = work
        remaining = tuple(stop_id for stop_id in day.shown if stop_id not in made.withdrawn)
        order = remaining + made.added
        wider = msgspec.structs.replace(day, shown=order)
        bearing = bearing_of(work, wider, self._learned, at.belief, self._zone, at.now_ms)
        if bearing is not None and (made.added or made.retimed):
            order = placed(bearing, made.added, made.retimed)
        moved = stops_moved(remaining, [stop_id for stop_id in order if stop_id not in made.added])
        wish = msgspec.structs.replace(made.wish, moved=moved)
        agreed = day.shown if day.change is None else day.change.before
        change = Change(
            f"{work.plan.agent}-{work.plan.plan_version}.{day.amendments + 1}",
            at.now_ms,
            in_english(wish, self._zone),
            tuple(stop_id for stop_id in agreed if stop_id in order),
            order,
            reason=wish,
        )
        self._change_day(turns.amended(day, order, change))
        self._moved_on = "the work was amended"

    def forget(self, said: PersonForgotten, at: Moment) -> None:
        """Erase what is personal about these stops, of the one under way once the van has left it.

        Stops still to come are not visited any more: nobody knows for whom. What is not known here any more was in a
        plan that another replaced, and the store's log may hold that.
        """
        work = self._work
        if work is None:
            return
        self._rows += [Row(forgetting.ROOM, stop_id, b"1") for stop_id in said.stop_ids]
        self._forgotten |= dict.fromkeys(said.stop_ids)
        known = {*work.stops, *(stop.stop_id for stop in work.withdrawn), *self._visits} & set(said.stop_ids)
        to_come = tuple(s for s in self._day.shown if s in known and s != turns.under_way(self._day))
        if to_come:
            self.take_amendment(WorkAmended(work.plan.plan_version, withdrawn=to_come), at)
        self._day = turns.to_forget(self._day, known.union(self._day.forgetting))
        self._forget_left()

    def _forget_left(self) -> bool:
        """Erase whom nothing needs any more; True when there was anybody."""
        work, day = self._work, self._day
        stays = {turns.under_way(day), None if day.shift == "ended" else day.from_place}
        left = {stop_id for stop_id in day.forgetting if stop_id not in stays}
        if work is None or not left:
            return False
        if day.from_place in left:
            day = msgspec.structs.replace(day, from_position=None)
        self._day = turns.to_forget(day, set(day.forgetting) - left)
        self._work = forgetting.forgotten_work(work, left)
        for stop_id in sorted(left & set(self._visits)):
            self._visits[stop_id] = forgetting.forgotten_visit(self._visits[stop_id])
            self._rows.append(Row("visits", stop_id, msgspec.json.encode(self._visits[stop_id])))
        self._rows += [*self._proofs.forget(left), *(Row(forgetting.ROOM, stop_id, b"1") for stop_id in sorted(left))]
        self._forgotten |= dict.fromkeys(sorted(left))
        self._moved_on = "somebody was forgotten"
        return True

    def redate(self, dating: Dating) -> None:
        """The time was found: what happened on the unknown clock happened then. What was seen in the last seconds is
        forgotten, as by a restart.
        """
        self.is_dated = True
        self._day = turns.redated(self._day, dating)
        for stop_id, visit in self._visits.items():
            redated = dating.visit(visit)
            if redated != visit:
                self._visits[stop_id] = redated
                self._rows.append(Row("visits", stop_id, msgspec.json.encode(redated)))
        self._near, self._motion_known_ms = None, None
        self._moved_on = "the time was found"

    def give_up_picture(self) -> bool:
        """Throw away a photograph that nothing is to be shown by, for want of room; False when there is none."""
        given_up, rows = self._proofs.give_up(self._is_shown_by_photo)
        self._rows += rows
        if given_up is not None:
            self._events.append(PictureGivenUp(given_up.digest, given_up.stop_id))
        return given_up is not None

    def _is_shown_by_photo(self, stop_id: StopId) -> bool:
        """What nobody signed for, or nobody took, is shown by a photograph alone."""
        visit = self._visits.get(stop_id)
        return visit is None or visit.outcome is not Outcome.DELIVERED_TO_PERSON

    def close_forgetting(self) -> list[Row]:
        """Nothing waits for the hub any more that was said before somebody was forgotten."""
        rows = [Row(forgetting.ROOM, stop_id, None) for stop_id in self._forgotten]
        self._forgotten = {}
        return rows

    # What the driver says.

    def obey(self, said: Said, at: Moment) -> Reply:
        """Do what the driver says, or say why not."""
        work = self._work
        if isinstance(said, ScanSaid):
            return self._scan(said)
        if work is None:
            return Reply(409, "No plan yet", "the hub has not sent today's work; it comes by itself")
        match said:
            case ShiftSaid():
                return self._turn_shift(said.now_is, at)
            case HeadingSaid():
                return self._set_heading(StopId(said.stop_id), work, at)
            case ChangeSaid():
                return self._answer_change(said, at)
            case OutcomeSaid():
                return self._end_visit(said, work, at)
            case ObjectSaid():
                return self._keep(said)
            case OverrideSaid():
                return self._hear_why(said)
            case _:
                raise AssertionError(f"not the round's to answer: {type(said).__name__}")

    def _turn_shift(self, now_is: str, at: Moment) -> Reply:
        turned = turns.shift_turned(self._day, now_is, at.now_ms)
        if turned is None:
            return Reply(409, "Not now", f"shift is '{self._day.shift}', '{now_is}' does not follow from it")
        self._day = turned
        self._events.append(ShiftChanged(now_is))
        self._moved_on = f"shift {now_is}"
        return Reply(200)

    def _set_heading(self, stop_id: StopId, work: Assignment, at: Moment) -> Reply:
        refusal = self._not_to_come(stop_id)
        if refusal is not None:
            return refusal
        if self._day.shift == "on_break":
            self._turn_shift("off_break", at)
        elif self._day.shift == "waiting":
            self._turn_shift("begun", at)
        if self._day.heading_to != stop_id or self._day.at_stop is not None:
            self._head_for(stop_id, stop_id, work, at)
        else:
            self._day = msgspec.structs.replace(self._day, said_heading=stop_id)
        return Reply(200)

    def _answer_change(self, said: ChangeSaid, at: Moment) -> Reply:
        day, change = self._day, self._day.change
        if change is None or change.change_id != said.change_id:
            return Reply(409, "No such change", f"change '{said.change_id}' is not the one waiting for an answer")
        if said.answer == "refused":
            self._change_day(turns.change_refused(day, change, at.now_ms))
            self._moved_on = "the driver refused a change"
        else:
            self._day = turns.change_seen(day)
        self._events.append(ChangeAnswered(said.change_id, said.answer, said.reason, self._day.shown))
        return Reply(200)

    def _end_visit(self, said: OutcomeSaid, work: Assignment, at: Moment) -> Reply:
        stop_id = StopId(said.stop_id)
        refusal = self._not_to_come(stop_id)
        if refusal is not None:
            return refusal
        stop = work.stops[stop_id]
        position = None if at.belief is None else at.belief.position
        visit = visit_of(stop, said, self._day, self._near, position, at.now_ms)
        missing = missing_from_proof(stop, visit)
        if missing:
            return Reply(422, "Proof incomplete", f"{said.outcome.value} at {stop.address} lacks {'; '.join(missing)}")
        unknown = self._proofs.missing(said)
        if unknown:
            detail = f"{' and '.join(unknown)} is not on board; make it again, then say the outcome"
            return Reply(422, "Object unknown", detail)
        self._record(visit, stop, work, at)
        self._rows += self._proofs.visited(said)
        return Reply(200)

    def _keep(self, said: ObjectSaid) -> Reply:
        refusal = None if self._proofs.holds(said) else self._not_to_come(StopId(said.stop_id))
        if refusal is not None:
            return refusal
        reply, rows = self._proofs.keep(said)
        self._rows += rows
        return reply

    def _scan(self, said: ScanSaid) -> Reply:
        try:
            parcel = self.scan(said.text)
        except LabelRefused as wrong:
            return Reply(422, type(wrong).__name__, str(wrong))
        stops = () if self._work is None else self._work.plan.stops
        mine = [s.stop_id for s in stops if any(parcel == each.barcode for each in s.parcels)]
        first = next((stop_id for stop_id in self._day.shown if stop_id in mine), mine[0] if mine else None)
        return Reply(200, found={"parcel": parcel, "stop_id": first})

    def _hear_why(self, said: OverrideSaid) -> Reply:
        question = self._day.question
        if question is None or question.stop_id != said.stop_id:
            return Reply(409, "No such question", f"nobody asks why '{said.stop_id}' came first, or not any more")
        self._explain(said.reason, said.words)
        return Reply(200)

    def _explain(self, reason: str, words: str = "") -> None:
        """Say why the driver went elsewhere, if that is asked; it is asked once."""
        question = self._day.question
        if question is not None:
            self._events.append(OverrideExplained(question.stop_id, question.instead_of, reason, words))
            self._day = turns.override_explained(self._day)

    def _not_to_come(self, stop_id: StopId) -> Reply | None:
        if stop_id in self._visits:
            outcome = self._visits[stop_id].outcome.value
            return Reply(409, "Already visited", f"stop '{stop_id}' was ended as '{outcome}'")
        if stop_id not in self._day.shown:
            return Reply(404, "No such stop", f"stop '{stop_id}' is not in plan {self.plan_version}")
        return None

    # What the devices show.

    def scan(self, text: str) -> str:
        """A label was read at hand; its barcode as plans write it. Raises LabelRefused."""
        expected = [] if self._work is None else [self._work.stops[stop_id] for stop_id in self._day.shown]
        parcel = parcel_read(text, expected)
        self._day = turns.scanned(self._day, parcel)
        return parcel

    def tick(self, belief: Belief, now_ms: EpochMs) -> bool:
        """Notice what comes with time alone: the van stands, a question is too old, somebody can be forgotten.

        True when the page or the hub must hear of it.
        """
        was_moving, moves = self._is_moving, is_moving(belief)
        if moves is not None or self._motion_known_ms is None:
            self._motion_known_ms = now_ms
        if moves is not None or now_ms - self._motion_known_ms > MOTION_KNOWN_FOR_MS:
            self._is_moving = bool(moves)
        if not self._is_moving:
            self._day = turns.let_go(self._day)
        question = self._day.question
        is_too_old = question is not None and now_ms >= question.at_ms + ANSWER_WITHIN_MS
        if is_too_old:
            self._explain("no_answer")
        has_forgotten = bool(self._day.forgetting) and self._forget_left()
        return was_moving != self._is_moving or is_too_old or has_forgotten

    def tick_ms(self) -> int | None:
        """When something comes with time alone, in domain time; None when nothing is known to."""
        question = self._day.question
        return None if question is None else question.at_ms + ANSWER_WITHIN_MS

    def observe(self, belief: Belief, now_ms: EpochMs) -> None:
        """Follow the van by what is believed now: begun, set off, arrived, left again."""
        work, at = self._work, Moment(now_ms, belief)
        if work is None or not self._day.shown:
            return
        if self._day.shift == "waiting" and has_begun(belief, work.plan, now_ms if self.is_dated else None):
            self._turn_shift("begun", at)
        if self._day.shift != "under_way":
            return
        happening, self._near = observe(belief, self._day, work, self._near, now_ms, self.is_dated)
        match happening:
            case SetOff():
                self._head_for(happening.stop_id, None, work, at)
            case StandsAt():
                self._arrive(happening.stop_id, happening.since_ms, work, at)
            case LeftAgain():
                self._leave_again(happening, work, at)

    # What happens, whoever noticed it.

    def reorder(self, change: Change, arcs: int) -> None:
        """Another order is shown, which disturbs so many arcs."""
        self._change_day(turns.reordered(self._day, change, arcs))

    def note(self, bearing: Bearing, foreseen: Foreseen) -> None:
        """Remember what the model said of the leg or stop under way, to learn from how it ends."""
        self._sayings = learning.noted(self._sayings, bearing, foreseen)

    def _change_day(self, day: Day) -> None:
        """Another order, not of the driver's own making: shown when the van stands."""
        self._day = turns.hold(self._day, day) if self._is_moving else day

    def _head_for(self, stop_id: StopId, said: StopId | None, work: Assignment, at: Moment) -> None:
        """The van is under way to a stop; when another was shown first the driver overrides, which is information."""
        day = self._day
        odometer_m = 0.0 if at.belief is None else at.belief.odometer_m
        stays_parked = work.shares_a_door(day.from_place, stop_id)
        self._day = turns.set_off(day, stop_id, said, stays_parked, at.now_ms, odometer_m)
        self._sayings = msgspec.structs.replace(self._sayings, leg=None)
        instead = turns.instead_of(day, stop_id)
        self._events.append(HeadingTo(stop_id, instead is not None))
        if instead is not None and work.shares_a_door(instead, stop_id):
            # Which of two doors of one house comes first is nothing to ask about.
            self._day = msgspec.structs.replace(self._day, override=None)
        self._moved_on = f"heading to {stop_id}"

    def _arrive(self, stop_id: StopId, since_ms: EpochMs, work: Assignment, at: Moment) -> None:
        if self._day.heading_to != stop_id:
            self._head_for(stop_id, self._day.said_heading, work, at)
        day = self._day
        if day.set_off_ms is not None:
            actual_s = (since_ms - day.set_off_ms) / 1000
            planned_s = work.leg_s(day.from_place, stop_id, day.set_off_ms)
            self._learned = learning.from_leg(self._learned, self._sayings, stop_id, actual_s, planned_s)
        self._day = turns.arrived(day, stop_id, since_ms)
        self._sayings = msgspec.structs.replace(self._sayings, stop=None)
        self._events.append(Arrived(stop_id))
        self._moved_on = f"arrived at {stop_id}"

    def _leave_again(self, left: LeftAgain, work: Assignment, at: Moment) -> None:
        self._day = turns.left_again(self._day)
        if left.goal is not None:
            self._head_for(left.goal, left.goal, work, at)
        else:
            self._moved_on = f"left {left.stop_id} without an outcome"

    def _record(self, visit: Visit, stop: Stop, work: Assignment, at: Moment) -> None:
        stop_id = stop.stop_id
        if self._day.shift == "waiting":
            self._turn_shift("begun", at)
        if self._day.at_stop != stop_id:
            # The page knows better than the satellites: the visit is over, so the van was there.
            self._arrive(stop_id, visit.arrived_ms, work, at)
        self._learned = learning.from_stop(self._learned, self._sayings, stop, visit)
        self._visits[stop_id] = visit
        self._rows.append(Row("visits", stop_id, msgspec.json.encode(visit)))
        self._explain("no_answer")
        self._day = turns.visited(self._day, visit, stop.position)
        self._near = None
        self._events.append(Visited(visit))
        self._moved_on = f"{stop_id} {visit.outcome.value}"
