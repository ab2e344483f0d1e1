"""Have the day planned when somebody asks, and give each agent its work as a contract."""

from collections.abc import Callable, Iterable

import msgspec

from cloud_hub import planning
from cloud_hub.attempts import Attempts
from cloud_hub.board import shift_lock
from cloud_hub.chains import WITHIN_THE_RULES, Chains, Hand
from cloud_hub.customers import Customers
from cloud_hub.events import Answer, DayPlanAsked, Pace, Planned, PlanWanted, Route, VehiclesSaid
from cloud_hub.fleet import AgentRecord, EstimatesHeard, Vehicle
from cloud_hub.memory import Memory, PlanNeed
from cloud_hub.post import Post
from cloud_hub.promises import Rule
from cloud_hub.yard import Yard
from shared.contracts import Plan
from shared.messages import PlanPushed
from shared.quantities import TimeWindow
from shared.steps import JobFailed, Now
from shared.work import AgentId, Stop, StopId

MOST_FAILURES = 4


class DayPlan:
    """Which agent serves which stops: asked for, found by a job, pushed."""

    def __init__(
        self,
        memory: Memory,
        chains: Chains,
        post: Post,
        customers: Customers,
        yard: Yard,
        attempts: Attempts,
        *,
        zone: str,
        rule: Rule,
        pace: Pace,
        clock_face: Callable[[int], str],
        secret: bytes = b"",
    ) -> None:
        self._memory = memory
        self._chains = chains
        self._post = post
        self._customers = customers
        self._yard = yard
        self._attempts = attempts
        self._zone = zone
        self._rule = rule
        self._pace = pace
        self._clock = clock_face
        self._secret = secret

    # Asking.

    def asked(self, event: DayPlanAsked, now: Now) -> Answer:
        """Somebody wants this day planned; the need is kept until it is."""
        renewed = tuple(
            vehicle
            for vehicle in event.vehicles
            if not self._yard.works_on(vehicle.agent, event.day) and not self._yard.why_kept(vehicle)
        )
        vehicles, stops = self._to_plan(event.day, now, renewed)
        if not vehicles:
            return Answer(
                False, f"no vehicle of {event.day} waits for work: each has begun its shift or none was named"
            )
        if not stops:
            return Answer(False, f"no order waits to be planned for {event.day}")
        if renewed:
            self._yard.vehicles_said(VehiclesSaid(renewed), now)
        name = f"plan/{event.day}/{self._chains.own_count}.{now.real_ms}"
        need = self._memory.needs.put("plan", PlanNeed(name, event.day, event.by, now.domain_ms))
        return Answer(True, named=(need.need,))

    def begin_again(self) -> None:
        """What is to be planned is another than when the plan under way was asked for: its answer is not taken."""
        need = self._memory.needs.get("plan")
        if need is not None:
            self._memory.needs.put("plan", msgspec.structs.replace(need, need=f"{need.need}+"))

    def jobs(self, now: Now) -> Iterable[PlanWanted]:
        """The plan to be found now, when one is needed."""
        need = self._memory.needs.get("plan")
        if need is None or not self._attempts.may_begin(need.need, now.real_ms):
            return
        vehicles, stops = self._to_plan(need.day, now)
        depots = tuple(self._memory.depots[name] for name in sorted({vehicle.depot_id for vehicle in vehicles}))
        if not vehicles or not stops:
            self._memory.needs.drop("plan")
            return
        closures = self._memory.closed_streets
        closed = tuple(sorted(closures.ways))
        yield PlanWanted(
            need.need, need.day, self._zone, depots, vehicles, stops, closed, closures.version, self._pace
        )  # fmt: skip

    def _to_plan(
        self, day: str, now: Now, renewed: Iterable[Vehicle] = ()
    ) -> tuple[tuple[Vehicle, ...], tuple[Stop, ...]]:
        """The vehicles whose shift has not begun, and the stops that wait or are theirs, of orders this day can
        serve. `renewed` vehicles would begin this day anew.
        """
        fresh = {vehicle.agent: vehicle for vehicle in renewed}
        vehicles = tuple(
            # Nobody leaves before the plan is asked for, whenever the shift began.
            msgspec.structs.replace(vehicle, begins_ms=max(vehicle.begins_ms, now.domain_ms))
            for vehicle in ({vehicle.agent: vehicle for vehicle in self._memory.vehicles.values()} | fresh).values()
            if vehicle.day == day
            and vehicle.ends_ms > now.domain_ms
            and (vehicle.agent in fresh or not self._memory.agents[vehicle.agent].has_begun)
        )
        if not vehicles:
            return (), ()
        free = {vehicle.agent for vehicle in vehicles}
        begins_ms = min(vehicle.begins_ms for vehicle in vehicles)
        ends_ms = max(vehicle.ends_ms for vehicle in vehicles)
        stops = []
        for record in self._memory.stops.values():
            stop = self._memory.stop_of(record.stop_id)
            is_free = record.state == "waiting" or (record.state != "done" and record.agent in free)
            is_wanted = self._memory.orders[record.order_id].state == "accepted" and not record.is_leaving
            if (
                is_free
                and is_wanted
                and stop is not None
                and stop.slot.opens_ms < ends_ms
                and stop.slot.closes_ms > begins_ms
            ):
                stops.append(stop)
        return vehicles, tuple(stops)

    def job_failed(self, event: JobFailed, now: Now) -> None:
        """No plan this time; after some attempts the day is given up aloud."""
        failures = self._attempts.fail(event.job.need, now.real_ms)
        need = self._memory.needs.get("plan")
        if need is None or need.need != event.job.need or failures < MOST_FAILURES:
            return
        self._attempts.settle(event.job.need)
        self._memory.needs.drop("plan")
        self._chains.decide(
            now,
            "plan_failed",
            f"{need.day} could not be planned after {failures} attempts: {event.why}.",
            f"{self._chains.person(need.by)} asked to plan {need.day}",
            approved_by=WITHIN_THE_RULES,
            hand=Hand(need.by),
            about=(need.day,),
            verdict="given up; a person should ask again",
        )

    # Taking what was found.

    def found(self, event: Planned, now: Now) -> None:
        """Each agent that still waits gets its route; what nobody can serve is listed with its reason."""
        self._attempts.settle(event.need)
        need = self._memory.needs.get("plan")
        if need is None or need.need != event.need:
            return
        if any(self._has_left(route.agent) for route in event.routes):
            # A van has set out while the plan was sought. What the plan takes from others for it, or gives others that
            # is on board of it, would be nobody's or two vans': ask again, without that van.
            self._memory.counts["plans_overtaken"] += 1
            self.begin_again()
            return
        self._memory.needs.drop("plan")
        for route in event.routes:
            self._take_route(route, event, now)
        for stop_id, why in (*event.unserved, *self._left_out(event)):
            self._leave_waiting(stop_id, why, need, now)

    def _left_out(self, event: Planned) -> list[tuple[StopId, str]]:
        """Stops of the vehicles planned that no route has and nobody names: an earlier plan gave them, and this one was
        not asked for them, because no vehicle that still waits works within their slots.
        """
        named = {stop_id for route in event.routes for stop_id in route.order} | {
            stop_id for stop_id, _ in event.unserved
        }
        planned = {route.agent for route in event.routes}
        return [
            (record.stop_id, "no vehicle that still waits works within its slot")
            for record in self._memory.stops.values()
            if record.agent in planned
            and record.state == "planned"
            and not record.is_leaving
            and record.stop_id not in named
        ]

    def _has_left(self, agent: AgentId) -> bool:
        record = self._memory.agents.get(agent)
        return record is not None and record.has_begun

    def _take_route(self, route: Route, event: Planned, now: Now) -> None:
        record = self._memory.agents.get(route.agent)
        vehicle = self._memory.vehicles.get(route.agent)
        if record is None or vehicle is None or record.has_begun:
            return
        if not route.order and route.agent not in self._memory.plans:
            return
        stops = {stop_id: self._stop(stop_id) for stop_id in route.order}
        told = self._windows(route, stops)
        version = record.plan_pushed + 1
        plan = planning.contract(route, vehicle, self._memory.depots[vehicle.depot_id], stops, version, told)
        decision = self._chains.decide(
            now,
            "planned",
            f"{route.agent} gets {len(route.order)} stops on {vehicle.day}: out at {self._clock(route.depart_ms)}, "
            f"back at {self._clock(route.finish_ms)}, {route.driving_s // 60} min of driving"
            + (f", {route.late_s // 60} min late in all." if route.late_s else ", nobody late."),
            f"plan asked; {event.how}",
            inputs=event.looked_at,
            alternatives=route.compared,
            chosen=max(0, len(route.compared) - 1),
            verdict="first plan of the day: nothing promised yet is changed",
            about=(route.agent, *(stop.order_id for stop in stops.values())),
            seed=event.seed,
            iterations=event.iterations,
        )
        for estimate in route.estimates:
            stop_id = estimate.stop_id
            self._memory.change_stop(
                self._memory.stops[stop_id],
                state="planned",
                agent=route.agent,
                why_waiting="",
                changed_ms=now.domain_ms,
            )
            self._customers.tell_first(stops[stop_id], route.agent, told[stop_id], estimate, decision.decision_id, now)
        self._memory.change_agent(
            record, plan_pushed=version, order=route.order, legs_version=route.legs.roads_version, plan_refused=""
        )
        heard = EstimatesHeard(now.domain_ms, "the first plan", route.estimates)
        self._memory.estimates.put(route.agent, heard)
        self._push(plan, now)

    def _stop(self, stop_id: StopId) -> Stop:
        stop = self._memory.stop_of(stop_id)
        assert stop is not None, f"stop {stop_id} was planned without a place"
        return stop

    def _windows(self, route: Route, stops: dict[StopId, Stop]) -> dict[StopId, TimeWindow]:
        """The windows told already, and first ones for customers who know nothing yet."""
        first = planning.first_windows(route, stops, self._rule)
        known = {stop_id: self._memory.promises.get(stop_id) for stop_id in route.order}
        return {stop_id: first[stop_id] if promise is None else promise.told for stop_id, promise in known.items()}

    def _leave_waiting(self, stop_id: StopId, why: str, need: PlanNeed, now: Now) -> None:
        stop = self._memory.stops.get(stop_id)
        if stop is None or stop.state not in ("waiting", "planned"):
            return
        self._memory.change_stop(stop, state="waiting", agent=AgentId(""), why_waiting=why)
        self._chains.decide(
            now,
            "unserved",
            f"Order {stop.order_id} is not planned on {need.day}: {why}.",
            f"{self._chains.person(need.by)} asked to plan {need.day}",
            approved_by=WITHIN_THE_RULES,
            hand=Hand(need.by),
            about=(stop.order_id, stop.stop_id),
            verdict="listed; a person should look",
        )

    # Pushing.

    def push_again(self, record: AgentRecord, plan: Plan, now: Now) -> None:
        """An agent that lost its plan gets what is left of it, under a new version."""
        left = set(self._memory.left_to(record.agent, (stop.stop_id for stop in plan.stops)))
        order = [stop_id for stop_id in record.order if stop_id in left]
        order += [stop.stop_id for stop in plan.stops if stop.stop_id in left and stop.stop_id not in set(order)]
        order = [stop_id for stop_id in order if not self._memory.stops[stop_id].is_leaving]
        promises = self._memory.promises
        told = {stop_id: promises[stop_id].told for stop_id in order if stop_id in promises}
        version = record.plan_pushed + 1
        self._memory.change_agent(self._memory.agents[record.agent], plan_pushed=version)
        self._push(planning.remaining_plan(plan, order, told, version), now)

    def _push(self, plan: Plan, now: Now) -> None:
        plan = msgspec.structs.replace(plan, shift_lock=shift_lock(self._secret, plan.agent, plan.day))
        self._memory.plans.put(plan.agent, plan)
        self._memory.note("plan_history", f"{plan.agent}/{plan.day}/{plan.plan_version:06d}", plan)
        self._post.say(plan.agent, PlanPushed(plan, plan.shift_end_ms), now)
