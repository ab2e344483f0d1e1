"""Change a running plan: the only part of the hub that adds, alters or withdraws work an agent already has.

An amendment is in the books and on its way to the agent at once when the plan's leg times know every place of it;
otherwise the roads are asked first, and the need to ask them is kept. The agent has the last word: what is under way
or done when the amendment reaches it stays as it is, the books follow, and a customer who had been told otherwise is
told again. So a withdrawn stop remains its agent's until the agent has said that it leaves it out: whatever becomes of
the link, no stop is nobody's and none is two agents'.
"""

from collections.abc import Iterable, Sequence

import msgspec

from cloud_hub import planning, promises
from cloud_hub.attempts import Attempts
from cloud_hub.chains import Chains
from cloud_hub.dayplan import DayPlan
from cloud_hub.events import AmendedLegTimesWanted, LegTimesFound
from cloud_hub.fleet import Amendment, StopRecord
from cloud_hub.memory import Memory
from cloud_hub.post import Post
from cloud_hub.promises import Promise
from cloud_hub.settling import Settling
from shared.contracts import LegTimes, Plan
from shared.messages import AmendmentTaken, WindowTold, WorkAmended
from shared.quantities import TimeWindow
from shared.routes import MOST_STOPS
from shared.steps import JobFailed, Now
from shared.work import AgentId, Stop, StopId

NEED = "amend/"
"""How the need for leg times of an amendment begins, so that its answer finds the way here."""

MOST_FAILURES = 4
"""Asking the roads a fifth time has never helped: a place no drive leads to stays one."""


class Amendments:
    """Wanted and said changes of running plans; see `Amendment` for one."""

    def __init__(
        self,
        memory: Memory,
        chains: Chains,
        post: Post,
        settling: Settling,
        dayplan: DayPlan,
        attempts: Attempts,
        zone: str,
    ) -> None:
        self._memory = memory
        self._chains = chains
        self._post = post
        self._settling = settling
        self._dayplan = dayplan
        self._attempts = attempts
        self._zone = zone
        self._changed_waiting: list[StopId] = []

    # What other parts of the hub ask.

    def stop_now(self, stop_id: StopId) -> Stop | None:
        """The stop as its agent is to serve it now, told window included: what to build an amended stop from.

        None when nobody knows it. While no plan has it, as it was sold or asked since.
        """
        record, stop = self._memory.stops.get(stop_id), self._memory.stop_of(stop_id)
        if record is None or stop is None:
            return None
        plan = self._memory.plans.get(record.agent)
        stop = next((known for known in plan.stops if known.stop_id == stop_id), stop) if plan is not None else stop
        wanted = self._memory.amendments.get(_wanted_key(record.agent))
        if wanted is not None:
            stop = next((known for known in wanted.stops if known.stop_id == stop_id), stop)
        promise = self._memory.promises.get(stop_id)
        return stop if promise is None else msgspec.structs.replace(stop, told=promise.told)

    def amend(
        self,
        agent: AgentId,
        stops: Sequence[Stop] = (),
        withdrawn: Sequence[StopId] = (),
        *,
        why: str,
        now: Now,
        decision_id: str = "",
    ) -> str | None:
        """Have this agent's work changed; None when it will be, else the refusal: its name, a colon, and why.

        `stops` replace those of their id in the plan (at the same place) or are new; `withdrawn` are no longer to be
        visited by it. `why` is read by the driver and must name no customer. `decision_id` is the decision behind
        it. A told window other than the present one is told to the van; telling the customer is the caller's.

        Refusals: NoPlan, ShiftEnded, StopUnknown, NotItsWork, StopUnderWay, StopDone, PlaceMoved, PlanFull.
        """
        refusal = self.refusal(agent, stops, withdrawn)
        if refusal is not None:
            return refusal
        touched = (*(stop.stop_id for stop in stops), *withdrawn)
        former = tuple(known for known in map(self.stop_now, touched) if known is not None)
        fresh = Amendment(agent, why, now.domain_ms, tuple(stops), tuple(withdrawn), former, decision_id=decision_id)
        self._enter(fresh, now)
        plan = self._memory.plans[agent]
        wanted = self._memory.amendments.get(_wanted_key(agent))
        if wanted is not None and fresh.touched & {stop.stop_id for stop in wanted.stops}:
            self._want(_joined(wanted, fresh))
            return None
        legs = planning.legs_by_place(plan, _after(plan, fresh))
        if legs is not None:
            self._say(fresh, plan, legs, now)
        else:
            self._want(fresh if wanted is None else _joined(wanted, fresh))
        return None

    def refusal(self, agent: AgentId, stops: Sequence[Stop] = (), withdrawn: Sequence[StopId] = ()) -> str | None:
        """How `amend` would refuse this now; None when it would not."""
        plan, record = self._memory.plans.get(agent), self._memory.agents.get(agent)
        if plan is None or record is None:
            return f"NoPlan: {agent or 'nobody'} has no plan that could be amended"
        if record.shift == "ended":
            return f"ShiftEnded: {agent} has ended its shift"
        ids = [*(stop.stop_id for stop in stops), *withdrawn]
        if len(set(ids)) != len(ids) or not ids:
            return f"StopUnknown: {len(ids)} stops named, expected each once and at least one"
        for stop_id in withdrawn:
            if stop_id not in self._memory.stops:
                return f"StopUnknown: stop '{stop_id}', expected one that was sold"
        for stop_id in ids:
            refusal = self._why_not_now(agent, stop_id, stop_id in withdrawn)
            if refusal is not None:
                return refusal
        for stop in stops:
            known = self.stop_now(stop.stop_id)
            if stop.order_id not in self._memory.orders:
                return f"StopUnknown: stop '{stop.stop_id}' is of order '{stop.order_id}', expected one that was sold"
            if known is not None and self._memory.stops[stop.stop_id].agent and known.position != stop.position:
                return f"PlaceMoved: stop '{stop.stop_id}' has its place, withdraw it and add one of another name"
        if len(plan.stops) + len(stops) > MOST_STOPS:
            return f"PlanFull: {agent} has {len(plan.stops)} stops, at most {MOST_STOPS} are allowed"
        return None

    def change(self, stop: Stop, *, why: str, now: Now, decision_id: str = "") -> str | None:
        """Have this stop be as given, whether an agent has it already or it still waits to be planned.

        None when it will be, else the refusal as of `amend`.
        """
        record = self._memory.stops.get(stop.stop_id)
        if record is None:
            return f"StopUnknown: stop '{stop.stop_id}', expected one that was sold"
        if record.state == "waiting":
            order = self._memory.orders[record.order_id]
            self._memory.orders.put(order.order_id, order.with_stop(stop))
            self._dayplan.begin_again()
            self._changed_waiting.append(stop.stop_id)
            return None
        return self.amend(record.agent, (stop,), why=why, now=now, decision_id=decision_id)

    def postpone(self, stop_id: StopId, slot: TimeWindow, *, why: str, now: Now, decision_id: str = "") -> str | None:
        """Have this stop served in another slot, of another day: its agent leaves it out and it waits to be planned.

        None when it will be, else the refusal as of `amend`. One that is under way is remembered: should the visit
        fail, this is when it comes again.
        """
        record, stop = self._memory.stops.get(stop_id), self._memory.stop_of(stop_id)
        if record is None or stop is None:
            return f"StopUnknown: stop '{stop_id}', expected one that was sold"
        later = msgspec.structs.replace(stop, slot=slot, told=slot, parcels=self._unstowed(record, stop).parcels)
        if record.state == "waiting":
            return self.change(later, why=why, now=now, decision_id=decision_id)
        refusal = self.amend(record.agent, withdrawn=(stop_id,), why=why, now=now, decision_id=decision_id)
        if refusal is None:
            order = self._memory.orders[record.order_id]
            self._memory.orders.put(order.order_id, order.with_stop(later))
        elif refusal.startswith("StopUnderWay"):
            self._memory.change_stop(self._memory.stops[stop_id], wished=slot)
        return refusal

    def changed_waiting(self) -> tuple[StopId, ...]:
        """Stops that wait and were changed since this was last asked."""
        changed, self._changed_waiting = tuple(self._changed_waiting), []
        return changed

    # Jobs.

    def jobs(self, now: Now) -> Iterable[AmendedLegTimesWanted]:
        """Leg times to ask the roads for now: of every amendment that leads to a place they do not know."""
        for wanted in self._wanted():
            need = self._need(wanted)
            plan = self._memory.plans.get(wanted.agent)
            if plan is None or not self._attempts.may_begin(need, now.real_ms):
                continue
            closures = self._memory.closed_streets
            yield AmendedLegTimesWanted(
                need, wanted.agent, plan.plan_version, self._zone, plan.depot, _after(plan, wanted), plan.depart_ms,
                plan.shift_end_ms, tuple(sorted(closures.ways)), closures.version,
            )  # fmt: skip

    def found(self, event: LegTimesFound, now: Now) -> None:
        """The roads know the way now: the amendment is said, unless it, the plan or the roads are others by now."""
        self._attempts.settle(event.need)
        wanted = self._memory.amendments.get(_wanted_key(event.agent))
        plan = self._memory.plans.get(event.agent)
        if wanted is None or plan is None or event.need != self._need(wanted):
            return  # Asked again as things are now, when still wanted.
        self._memory.amendments.drop(_wanted_key(event.agent))
        still = self._without_under_way(wanted, now)
        ids = tuple(stop.stop_id for stop in _after(plan, still))
        if still.stops or still.withdrawn:
            self._say(still, plan, planning.narrowed(event.legs, ids), now)

    def job_failed(self, event: JobFailed, now: Now) -> None:
        """The roads did not answer; after some attempts the amendment is given up aloud and its stops wait."""
        need = event.job.need
        failures = self._attempts.fail(need, now.real_ms)
        wanted = next((each for each in self._wanted() if self._need(each) == need), None)
        if wanted is None or failures < MOST_FAILURES:
            return
        self._attempts.settle(need)
        self._memory.amendments.drop(_wanted_key(wanted.agent))
        for stop in wanted.stops:
            self._settling.take_back(wanted, stop.stop_id, f"no way was found to it: {event.why}", now)
        for stop_id in wanted.withdrawn:
            self._settling.stay(wanted, stop_id, now)
        self._chains.decide(
            now,
            "amendment_failed",
            f"{wanted.agent} goes on without the change '{wanted.why}': {event.why}.",
            f"the roads were asked {failures} times",
            about=(wanted.agent, *(stop.stop_id for stop in wanted.stops)),
            verdict="given up; a person should look",
        )

    # What agents answer.

    def taken(self, agent: AgentId, said: AmendmentTaken, now: Now) -> None:
        """The agent has amended its work, but for what was under way: the books follow."""
        refused = {stop_id for stop_id, _ in said.refused}
        answered = {*said.taken, *refused}
        fitting = (each for each in self._said(agent) if each.plan_version == said.plan_version)
        amendment = next((each for each in fitting if answered <= each.touched), None)
        if amendment is None:
            self._memory.counts["amendments_unknown"] += 1
            return
        if not self._is_withdrawn_by_plan(amendment, refused):
            self._settling.settle(amendment, refused, now)
        record = self._memory.agents[agent]
        self._memory.change_agent(record, order=self._memory.left_to(agent, said.order))

    def _is_withdrawn_by_plan(self, amendment: Amendment, refused: set[StopId]) -> bool:
        """Whether the agent kept a stop that a plan on its way to it leaves out: settled once that is taken."""
        plan = self._memory.plans[amendment.agent]
        planned = {stop.stop_id for stop in plan.stops}
        return plan.plan_version > amendment.plan_version and bool(refused & set(amendment.withdrawn) - planned)

    def never_begun(self, agent: AgentId, now: Now) -> int:
        """The oldest amendment this agent has not answered reached it too late: nothing of it was taken. How many stops
        are as they were before it.
        """
        amendment = min(self._said(agent), key=lambda each: each.number, default=None)
        if amendment is None:
            return 0
        self._settling.settle(amendment, set(amendment.touched), now)
        return len(amendment.touched)

    def plan_taken(self, agent: AgentId, plan_version: int, now: Now) -> None:
        """The agent works under a plan that had the amendments of those before it already in it."""
        for amendment in list(self._said(agent)):
            if amendment.plan_version < plan_version:
                self._settling.settle(amendment, set(), now)

    # The books.

    def _why_not_now(self, agent: AgentId, stop_id: StopId, is_withdrawn: bool) -> str | None:
        record = self._memory.stops.get(stop_id)
        if record is None or (record.state == "waiting" and not is_withdrawn):
            return None
        if record.state == "done":
            return f"StopDone: stop '{stop_id}' has been visited"
        if record.agent != agent or record.is_leaving:
            return f"NotItsWork: stop '{stop_id}' is {'no longer' if record.is_leaving else 'not'} {agent}'s work"
        if record.state in ("heading", "arrived"):
            return f"StopUnderWay: {agent} is on the way to stop '{stop_id}' or stands there"
        return None

    def _enter(self, fresh: Amendment, now: Now) -> None:
        """What is wanted of each stop is known from now on, also while the roads are asked."""
        for stop in fresh.stops:
            order = self._memory.orders[stop.order_id]
            self._memory.orders.put(order.order_id, order.with_stop(stop))
            record = self._memory.stops.get(stop.stop_id)
            if record is None or record.state == "waiting":
                record = record or StopRecord(stop.stop_id, stop.order_id)
                self._memory.stops.put(stop.stop_id, record)
                self._memory.change_stop(
                    record, state="planned", agent=fresh.agent, changed_ms=now.domain_ms, why_waiting=""
                )
            self._promise(stop, fresh, now)
        for stop_id in fresh.withdrawn:
            self._memory.change_stop(self._memory.stops[stop_id], is_leaving=True)
        if not self._memory.agents[fresh.agent].has_begun:
            self._dayplan.begin_again()

    def _promise(self, stop: Stop, fresh: Amendment, now: Now) -> None:
        """The window told is the stop's, in the slot it has now."""
        known = self._memory.promises.get(stop.stop_id)
        told = planning.with_told(stop, stop.told).told
        if known is None:
            unsaid = Promise(stop.stop_id, stop.order_id, fresh.agent, stop.slot, told)
            promise = promises.told_again(unsaid, told, "first", now.domain_ms, fresh.decision_id)
        elif stop.told != known.told:
            moved = msgspec.structs.replace(known, slot=stop.slot, agent=fresh.agent)
            promise = promises.told_again(moved, told, "by_hand", now.domain_ms, fresh.decision_id)
        else:
            promise = msgspec.structs.replace(known, slot=stop.slot, agent=fresh.agent)
        self._memory.promises.put(stop.stop_id, promise)

    def _want(self, wanted: Amendment) -> None:
        self._memory.amendments.put(_wanted_key(wanted.agent), wanted)

    def _say(self, amendment: Amendment, plan: Plan, legs: LegTimes, now: Now) -> None:
        """The plan is another from now on, in our books and on its way to the agent."""
        record = self._memory.agents[plan.agent]
        known = {stop.stop_id for stop in plan.stops}
        new = tuple(stop.stop_id for stop in amendment.stops if stop.stop_id not in known)
        stops = _after(plan, amendment)
        said = msgspec.structs.replace(amendment, number=record.amended + 1, plan_version=plan.plan_version)
        self._memory.amendments.put(said.key, said)
        amended = msgspec.structs.replace(plan, stops=stops, legs=legs)
        self._memory.plans.put(plan.agent, amended)
        history = f"{plan.agent}/{plan.day}/{plan.plan_version:06d}.{said.number:03d}"
        self._memory.note("plan_history", history, amended)
        gone = set(amendment.withdrawn)
        self._memory.change_agent(
            record,
            amended=said.number,
            legs_version=legs.roads_version,
            order=tuple(stop_id for stop_id in (*record.order, *new) if stop_id not in gone),
        )
        # They lead to what is withdrawn, too: the van may come to be under way there before it hears of it.
        told_legs = legs if new else None
        changed = tuple(stop for stop in stops if stop.stop_id in {each.stop_id for each in amendment.stops})
        command = WorkAmended(plan.plan_version, changed, amendment.withdrawn, told_legs, amendment.why)
        self._post.say(plan.agent, command, now)
        self._tell_windows(amendment, now)

    def _tell_windows(self, amendment: Amendment, now: Now) -> None:
        """A window the van was told since its plan outweighs the plan's: say those that are others now, too."""
        former = {stop.stop_id: stop.told for stop in amendment.former}
        for stop in amendment.stops:
            promise = self._memory.promises[stop.stop_id]
            if stop.stop_id in former and former[stop.stop_id] != promise.told:
                self._post.say(amendment.agent, WindowTold(stop.stop_id, promise.told), now)

    def _without_under_way(self, wanted: Amendment, now: Now) -> Amendment:
        """What of it can still be done: the van may have set out for some of it while the roads were asked."""
        kept: list[Stop] = []
        for stop in wanted.stops:
            if self._why_not_now(wanted.agent, stop.stop_id, False) is None:
                kept.append(stop)
            else:
                self._settling.take_back(wanted, stop.stop_id, "the van was under way to it", now)
        withdrawn: list[StopId] = []
        for stop_id in wanted.withdrawn:
            if self._memory.stops[stop_id].state == "planned":
                withdrawn.append(stop_id)
            else:
                self._settling.stay(wanted, stop_id, now)
        return msgspec.structs.replace(wanted, stops=tuple(kept), withdrawn=tuple(withdrawn))

    def _unstowed(self, record: StopRecord, stop: Stop) -> Stop:
        """The stop with its parcels as the shop gave them: a place in one van means nothing in another."""
        sold = self._memory.orders[record.order_id].stop
        given = {} if sold is None else {parcel.barcode: parcel for parcel in sold.parcels}
        return msgspec.structs.replace(stop, parcels=tuple(given.get(p.barcode, p) for p in stop.parcels))

    def _need(self, wanted: Amendment) -> str:
        """Changes with everything its answer depends on, so that an answer to another question is not taken."""
        plan = self._memory.plans.get(wanted.agent)
        version = 0 if plan is None else plan.plan_version
        record, closures = self._memory.agents[wanted.agent], self._memory.closed_streets
        return f"{NEED}{wanted.agent}/{version}.{record.amended}/{closures.version}/{wanted.asked}.{wanted.wanted_ms}"

    def _wanted(self) -> list[Amendment]:
        return [each for each in self._memory.amendments.values() if each.number == 0]

    def _said(self, agent: AgentId) -> list[Amendment]:
        return [each for each in self._memory.amendments.values() if each.agent == agent and each.number > 0]


def _wanted_key(agent: AgentId) -> str:
    return f"{agent}/wanted"


def _after(plan: Plan, amendment: Amendment) -> tuple[Stop, ...]:
    """The stops of the plan with the amendment in it. Withdrawn ones stay until the agent has said that it leaves them
    out; until then they may come to be under way.
    """
    changed = {stop.stop_id: planning.with_told(stop, stop.told) for stop in amendment.stops}
    kept = [changed.pop(stop.stop_id, stop) for stop in plan.stops]
    return (*kept, *changed.values())


def _joined(wanted: Amendment, fresh: Amendment) -> Amendment:
    """Both changes as one; what the later one says of a stop holds."""
    renewed = {stop.stop_id for stop in fresh.stops} | set(fresh.withdrawn)
    known = {stop.stop_id for stop in wanted.former} | {stop.stop_id for stop in wanted.stops}
    return msgspec.structs.replace(
        wanted,
        why="; ".join(dict.fromkeys((wanted.why, fresh.why))),
        stops=(*(stop for stop in wanted.stops if stop.stop_id not in renewed), *fresh.stops),
        withdrawn=(*(stop_id for stop_id in wanted.withdrawn if stop_id not in renewed), *fresh.withdrawn),
        former=(*wanted.former, *(stop for stop in fresh.former if stop.stop_id not in known)),
        decision_id=fresh.decision_id or wanted.decision_id,
        asked=wanted.asked + 1,
    )
