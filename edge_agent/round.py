"""Drive the round: take the work, obey the driver, follow the van, and record visits.

What came of it is told afterwards (`Round.tidings`): the round knows neither the hub, nor the models, nor the kernel.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from edge_agent import learning, turns
from edge_agent.assignment import Assignment, plan_objection, read_told, roads_objection
from edge_agent.dialogue import ChangeSaid, HeadingSaid, OutcomeSaid, Reply, Said, ShiftSaid
from edge_agent.memory import Change, Day, Learned, Parts, read_part
from edge_agent.outlook import Bearing, Foreseen
from edge_agent.sensing import Belief
from edge_agent.visiting import parcel_read, visit_of
from edge_agent.whereabouts import LeftAgain, Near, SetOff, StandsAt, has_begun, observe
from shared.contracts import LegTimes, Plan
from shared.messages import (
    AgentEvent,
    Arrived,
    ChangeAnswered,
    HeadingTo,
    PlanPushed,
    PlanTaken,
    RoadsChanged,
    ShiftChanged,
    Visited,
    WindowTold,
)
from shared.quantities import EpochMs
from shared.steps import Row, Saved
from shared.work import AgentId, Stop, StopId, Visit, missing_from_proof


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

    def __init__(self, saved: Saved) -> None:
        """From everything the store held."""
        kept = saved.get("plan", {})
        plan = read_part(kept, "plan", Plan)
        self._work: Assignment | None = None
        if plan is not None:
            self._work = Assignment(plan, read_part(kept, "legs", LegTimes), read_told(saved.get("told", {})))
        self._day = read_part(saved.get("day", {}), "day", Day) or Day()
        self._learned = read_part(saved.get("agent", {}), "learned", Learned) or Learned()
        self._visits = {
            StopId(key): msgspec.json.decode(value, type=Visit)
            for key, value in sorted(saved.get("visits", {}).items())
        }
        self._near: Near | None = None
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
    def plan_version(self) -> int:
        """The version of the plan driven; 0 before the first."""
        return 0 if self._work is None else self._work.plan.plan_version

    def parts(self) -> Parts:
        """What must be written down when it is another value than before; visits and told windows have rows each."""
        work = self._work
        return {
            ("plan", "plan"): None if work is None else work.plan,
            ("plan", "legs"): None if work is None else work.newer_legs,
            ("day", "day"): self._day,
            ("agent", "learned"): self._learned,
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
        return plan_objection(pushed, agent, self.plan_version, now_ms)

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
            self._rows += [Row("visits", stop_id, None) for stop_id in self._visits]
            self._visits, self._day = {}, Day()
            self._learned = learning.on_another_day(self._learned, plan.day)
        self._work = Assignment(plan)
        self._day = turns.planned(self._day, tuple(stop.stop_id for stop in plan.stops), self._visits)
        self._moved_on = f"plan {plan.plan_version} taken"
        return True

    def take_window(self, told: WindowTold) -> str:
        """Another window was told to a customer; the name of the refusal, empty when it is taken."""
        work, stop_id = self._work, told.stop_id
        if work is None or stop_id not in work.stops:
            return "StopUnknown"
        self._work = Assignment(work.plan, work.newer_legs, {**work.told, stop_id: told.told})
        self._rows.append(Row("told", stop_id, msgspec.json.encode(told.told)))
        self._moved_on = "a window was told"
        return ""

    def take_roads(self, roads: RoadsChanged) -> str:
        """The roads take other times; the name of the refusal, empty when they are taken."""
        refusal = roads_objection(self._work, roads)
        if self._work is None or refusal:
            return refusal
        self._work = Assignment(self._work.plan, roads.legs, self._work.told)
        self._moved_on = "roads changed"
        return ""

    # What the driver says.

    def obey(self, said: Said, at: Moment) -> Reply:
        """Do what the driver says, or say why not."""
        work = self._work
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
            case _:
                return Reply(404, "Not yet", f"this agent does not know what to do with '{type(said).__name__}'")

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
            self._day = turns.change_refused(day, change, at.now_ms)
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
        self._record(visit, stop, work, at)
        return Reply(200)

    def _not_to_come(self, stop_id: StopId) -> Reply | None:
        if stop_id in self._visits:
            outcome = self._visits[stop_id].outcome.value
            return Reply(409, "Already visited", f"stop '{stop_id}' was ended as '{outcome}'")
        if stop_id not in self._day.shown:
            return Reply(404, "No such stop", f"stop '{stop_id}' is not in plan {self.plan_version}")
        return None

    # What the devices show.

    def scan(self, text: str) -> None:
        """A label was read at hand. Raises LabelRefused."""
        expected = [] if self._work is None else [self._work.stops[stop_id] for stop_id in self._day.shown]
        self._day = turns.scanned(self._day, parcel_read(text, expected))

    def observe(self, belief: Belief, now_ms: EpochMs) -> None:
        """Follow the van by what is believed now: begun, set off, arrived, left again."""
        work, at = self._work, Moment(now_ms, belief)
        if work is None or not self._day.shown:
            return
        if self._day.shift == "waiting" and has_begun(belief, work.plan, now_ms):
            self._turn_shift("begun", at)
        if self._day.shift != "under_way":
            return
        happening, self._near = observe(belief, self._day, work, self._near, now_ms)
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
        self._day = turns.reordered(self._day, change, arcs)

    def note(self, bearing: Bearing, foreseen: Foreseen) -> None:
        """Remember what the model said of the leg or stop under way, to learn from how it ends."""
        self._sayings = learning.noted(self._sayings, bearing, foreseen)

    def _head_for(self, stop_id: StopId, said: StopId | None, work: Assignment, at: Moment) -> None:
        """The van is under way to a stop; when another was shown first the driver overrides, which is information."""
        day = self._day
        odometer_m = 0.0 if at.belief is None else at.belief.odometer_m
        stays_parked = work.shares_a_door(day.from_place, stop_id)
        self._day = turns.set_off(day, stop_id, said, stays_parked, at.now_ms, odometer_m)
        self._sayings = msgspec.structs.replace(self._sayings, leg=None)
        self._events.append(HeadingTo(stop_id, turns.is_override(day, stop_id)))
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
        self._day = turns.visited(self._day, visit, stop.position)
        self._near = None
        self._events.append(Visited(visit))
        self._moved_on = f"{stop_id} {visit.outcome.value}"
