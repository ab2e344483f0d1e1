"""Decide how it goes on after a failed visit, have it done, and have the customer told.

What the ways to go on cost is reckoned by `cloud_hub.nextstep`; here its case is put together from the books and the
rest of the van's day, the choice becomes a record, and the record becomes another visit: of the same van today, of a
locker, of another day, or none. The decision falls when everything the agent said in this batch is known. Where a
locker may help, the roads are asked first for the way to it; until they have answered the stop is `deciding`, and a hub
that wakes up goes on from there.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from cloud_hub import nextstep, planning, promises
from cloud_hub.amendments import Amendments
from cloud_hub.attempts import Attempts
from cloud_hub.chains import Chains
from cloud_hub.events import LegTimesFound, LockerLegTimesWanted, Pace
from cloud_hub.fleet import AgentRecord, Order, StopRecord
from cloud_hub.mailbag import Mailbag
from cloud_hub.memory import Memory
from cloud_hub.nextstep import DECIDING, NEEDS_A_PERSON, NO_VISIT_MENDS, Case, Detour, Locker, Option, RedeliveryRule
from cloud_hub.promises import Promise, Rule
from shared.contracts import LegTimes, Plan
from shared.costs import Costs
from shared.ledger import Alternative, Input
from shared.quantities import EpochMs, Seconds, TimeWindow, metres_between
from shared.routes import BadRoute, Cost, evaluate
from shared.steps import JobFailed, Now
from shared.work import AgentId, Outcome, Stop, StopId, Visit

NEED = "redeliver/"
"""How the need for leg times to lockers begins, so that its answer finds the way here."""

MOST_FAILURES = 3
"""The customer waits to hear what comes next: after this many attempts the choice is made without lockers."""

NEAREST_LOCKERS = 3
LOCKER_DOOR = "locker/"
"""How the door group of a visit to a locker begins."""

LOCKER_SERVICE_S = Seconds(120)
LONGEST_AGO_MS = 7 * 24 * 3_600_000
ROUND_MS = 5 * 60_000
MINUTE_MS = 60_000


class Redelivery:
    """What follows failed visits."""

    def __init__(
        self,
        memory: Memory,
        chains: Chains,
        mailbag: Mailbag,
        amendments: Amendments,
        attempts: Attempts,
        *,
        rule: RedeliveryRule,
        costs: Costs,
        lockers: Sequence[Locker],
        told_by: Rule,
        pace: Pace,
        zone: str,
        clock_face: Callable[[int], str],
    ) -> None:
        self._memory = memory
        self._chains = chains
        self._mailbag = mailbag
        self._amendments = amendments
        self._attempts = attempts
        self._rule = rule
        self._costs = costs
        self._lockers = tuple(lockers)
        self._told_by = told_by
        self._pace = pace
        self._zone = zone
        self._clock = clock_face
        self._undecided = {record.stop_id: None for record in memory.stops.values() if record.next_step == DECIDING}
        self._without_lockers: set[StopId] = set()

    # What happens.

    def visited(self, record: StopRecord, visit: Visit, now: Now) -> None:
        """A visit of this stop has ended. One that failed is decided on when the batch is taken."""
        if visit.outcome.is_delivery or visit.outcome is Outcome.COLLECTED:
            self._call_off_others(record, now)
        elif self._memory.orders[record.order_id].is_forgotten:
            return  # Nobody is left to come back to.
        elif visit.outcome in nextstep.FAILED and self._is_open(record):
            self._memory.change_stop(self._memory.stops[record.stop_id], next_step=DECIDING)
            self._undecided[record.stop_id] = None

    def decide(self, now: Now) -> None:
        """Decide what can be decided without asking the roads, and what becomes of visits no van could take."""
        for stop_id in self._amendments.unplaced():
            self._put_off(stop_id, now)
        for stop_id in self._amendments.changed_waiting():
            self._bring_today(stop_id, now)
        for stop_id in list(self._undecided):
            if not self._lockers_to_ask(stop_id):
                self._decide(stop_id, None, now)

    def jobs(self, now: Now) -> Iterable[LockerLegTimesWanted]:
        """Leg times to ask the roads for now: to the lockers that may help."""
        for stop_id in self._undecided:
            lockers = self._lockers_to_ask(stop_id)
            need = self._need(stop_id)
            plan = self._plan_with(stop_id)
            if not lockers or plan is None or not self._attempts.may_begin(need, now.real_ms):
                continue
            closures = self._memory.closed_streets
            places = tuple(self._at_locker(self._memory.orders[self._order_id(stop_id)], one) for one in lockers)
            yield LockerLegTimesWanted(
                need, plan.agent, plan.plan_version, self._zone, plan.depot, (*plan.stops, *places), plan.depart_ms,
                plan.shift_end_ms, tuple(sorted(closures.ways)), closures.version,
            )  # fmt: skip

    def found(self, event: LegTimesFound, now: Now) -> None:
        """The roads know the way to the lockers."""
        self._attempts.settle(event.need)
        stop_id = next((one for one in self._undecided if self._need(one) == event.need), None)
        if stop_id is not None:
            self._decide(stop_id, event.legs, now)

    def job_failed(self, event: JobFailed, now: Now) -> None:
        """The roads did not answer; after some attempts the choice is made without lockers."""
        failures = self._attempts.fail(event.job.need, now.real_ms)
        stop_id = next((one for one in self._undecided if self._need(one) == event.job.need), None)
        if stop_id is not None and failures >= MOST_FAILURES:
            self._attempts.settle(event.job.need)
            self._without_lockers.add(stop_id)
            self._decide(stop_id, None, now)

    # Deciding.

    def _decide(self, stop_id: StopId, legs: LegTimes | None, now: Now) -> None:
        self._undecided.pop(stop_id, None)
        record = self._memory.stops[stop_id]
        visit, order = _credible(record.visits[-1], now), self._memory.orders[record.order_id]
        if not self._is_open(record):
            self._memory.change_stop(record, next_step="")
            return
        case, visits = self._case(record, visit, order, legs, now)
        found = nextstep.options(case, self._rule, self._costs)
        chosen, verdict = nextstep.choose(case, found)
        option = found[chosen]
        nothing_to_return = case.is_collection and option.step == "return"
        next_stop = visits.get(option.locker.locker_id if option.locker is not None else option.step)
        decision = self._chains.decide(
            now,
            "redelivery",
            self._sentence(record, visit, option, next_stop),
            f"{record.agent} reported '{visit.outcome.value}' at {self._clock(visit.left_ms)}",
            inputs=self._inputs(case, visit, found, now),
            alternatives=tuple(self._alternative(each, visits) for each in found if each.is_possible),
            chosen=sum(each.is_possible for each in found[:chosen]),
            verdict=verdict,
            about=(order.order_id, stop_id, record.agent, *((next_stop.stop_id,) if next_stop is not None else ())),
        )
        self._memory.change_stop(self._memory.stops[stop_id], next_step=option.step)
        self._memory.counts[f"redelivery.{option.step}"] += 1
        if option.step in ("today", "locker"):
            assert next_stop is not None, "a step of today has its stop"
            self._send_again(record.agent, next_stop, option, decision.decision_id, now)
        elif option.step == "tomorrow":
            assert next_stop is not None, "a step of another day has its stop"
            self._keep_for_later(next_stop, order, now)
        elif not nothing_to_return:
            self._memory.orders.put(order.order_id, msgspec.structs.replace(order, state="returning"))
        if not nothing_to_return:
            self._tell(record, next_stop, option, decision.sentence, decision.decision_id, now)
        self._without_lockers.discard(stop_id)

    def _case(
        self, record: StopRecord, visit: Visit, order: Order, legs: LegTimes | None, now: Now
    ) -> tuple[Case, dict[str, Stop]]:
        """The case, and the visit each step would be, by the step's name or the locker's id."""
        door = self._door(order)
        again = msgspec.structs.replace(door, stop_id=self._next_id(order), attempt=self._attempt(order) + 1)
        later = self._later(again, order, record, now)
        case = Case(
            outcome=visit.outcome,
            reason=visit.reason if visit.reason in nextstep.HOPE_BY_REASON else "",
            attempt=again.attempt - 1,
            is_business=door.is_business,
            is_collection=door.service == "collection",
            wish=self._wish(record, door, order),
            next_hour=self._hour(_middle(later.slot)),
        )
        visits = {"tomorrow": later}
        if visit.outcome in NO_VISIT_MENDS:
            return case, visits
        case, today = self._with_retry(case, record, again, legs, now)
        visits |= {"today": today} if today is not None else {}
        case, at_lockers = self._with_lockers(case, record, order, legs, now)
        return case, {**visits, **at_lockers}

    def _with_retry(
        self, case: Case, record: StopRecord, again: Stop, legs: LegTimes | None, now: Now
    ) -> tuple[Case, Stop | None]:
        """The case with another visit of today in the cheapest place of the rest of the van's day."""
        plan, agent = self._plan_with(record.stop_id), self._memory.agents.get(record.agent)
        if plan is None or agent is None or agent.shift == "ended":
            return msgspec.structs.replace(case, why_not_today="the van has no day left"), None
        opens_ms = now.domain_ms + self._rule.retry_not_before_min * MINUTE_MS
        opens_ms += -opens_ms % ROUND_MS
        closes_ms = min(self._hour_ms(now.domain_ms, self._rule.latest_hour), plan.shift_end_ms)
        if again.open_hours is not None:
            opens_ms, closes_ms = max(opens_ms, again.open_hours.opens_ms), min(closes_ms, again.open_hours.closes_ms)
        if case.wish == "at_the_door":
            opens_ms = min(opens_ms, now.domain_ms)
        if opens_ms >= closes_ms:
            return msgspec.structs.replace(case, why_not_today="nothing useful is left of the day"), None
        slot = TimeWindow(EpochMs(opens_ms), EpochMs(closes_ms))
        stop = msgspec.structs.replace(again, slot=slot, told=slot)
        sure = 1.0 if case.wish == "at_the_door" else 0.0
        detour = self._detour(record, agent, plan, legs or plan.legs, stop, now, case, sure)
        if detour is None:
            return msgspec.structs.replace(case, why_not_today="it does not fit before the shift ends"), None
        refusal = self._amendments.refusal(record.agent, (stop,))
        if refusal is not None:
            return msgspec.structs.replace(case, why_not_today=refusal), None
        estimate = planning.first_estimate(stop.stop_id, detour.begin_ms, (detour.begin_ms - now.domain_ms) // 1000)
        stop = msgspec.structs.replace(stop, told=promises.first_told(slot, estimate, self._told_by))
        return msgspec.structs.replace(case, today=detour, today_hour=self._hour(detour.begin_ms)), stop

    def _with_lockers(
        self, case: Case, record: StopRecord, order: Order, legs: LegTimes | None, now: Now
    ) -> tuple[Case, dict[str, Stop]]:
        """The case with every locker the roads were asked for, in the cheapest place of the rest of the van's day."""
        plan, agent = self._plan_with(record.stop_id), self._memory.agents.get(record.agent)
        why_not = self._why_no_locker(record.stop_id)
        if legs is None or plan is None or agent is None or agent.shift == "ended" or why_not:
            return msgspec.structs.replace(case, why_no_locker=why_not or "the way to a locker is not known"), {}
        found: list[tuple[Locker, Detour]] = []
        visits: dict[str, Stop] = {}
        for locker in self._lockers:
            stop = self._at_locker(order, locker)
            if stop.stop_id not in legs.places:
                continue
            slot = TimeWindow(now.domain_ms, plan.shift_end_ms)
            if slot.opens_ms >= slot.closes_ms:
                continue
            stop = msgspec.structs.replace(stop, slot=slot, told=slot)
            detour = self._detour(record, agent, plan, legs, stop, now, case, 1.0)
            own = msgspec.structs.replace(stop, stop_id=self._next_id(order))
            if detour is not None and self._amendments.refusal(record.agent, (own,)) is None:
                found.append((locker, detour))
                visits[locker.locker_id] = own
        reason = "" if found else "no locker can be reached before the shift ends"
        return msgspec.structs.replace(case, lockers=tuple(found), why_no_locker=reason), visits

    def _detour(
        self,
        record: StopRecord,
        agent: AgentRecord,
        plan: Plan,
        legs: LegTimes,
        extra: Stop,
        now: Now,
        case: Case,
        sure: float,
    ) -> Detour | None:
        """The place of one more stop in the rest of the day that costs the least expected money; None when none fits.

        `sure` is the chance of success when it does not depend on the hour, 0 when it does.
        """
        known = {stop.stop_id: stop for stop in plan.stops}
        heading = agent.heading_to if agent.heading_to in known else None
        ahead = [heading] if heading is not None else []
        ahead += [one for one in agent.order if one in known and one != heading]
        left = [one for one in self._memory.left_to(agent.agent, ahead) if not self._memory.stops[one].is_leaving]
        stops = [self._told(known[one]) for one in left]
        row = extra.stop_id if extra.stop_id in legs.places else record.stop_id
        places = [*(stop.stop_id for stop in stops), row]
        here = record.stop_id
        table = _rows(legs, [here, *places], [here, *(stop.stop_id for stop in stops), extra.stop_id])
        rest = None if agent.shift == "off_break" else plan.rest
        start_ms = now.domain_ms
        try:
            problem = planning.rest_of_day(plan, table, (*stops, extra), here, start_ms, self._pace, rest)
        except BadRoute:
            self._memory.counts["redelivery.day_not_reckoned"] += 1
            return None
        own = len(stops) + 1
        plain = problem.order[:-1]
        before = evaluate(problem, plain)
        head = 1 if heading is not None and heading in left else 0
        base_ms = plan.depart_ms
        shift_s = (plan.shift_end_ms - base_ms) // 1000
        best: tuple[float, Detour] | None = None
        for place in range(head, len(plain) + 1):
            order = (*plain[:place], own, *plain[place:])
            after = evaluate(problem, order)
            begin_s = after.begins[place]
            if after.finish > max(shift_s, before.finish) or begin_s > (extra.slot.closes_ms - base_ms) // 1000:
                continue
            late_min, breaches = _harm(stops, before, after, place, base_ms)
            begin_ms = EpochMs(base_ms + begin_s * 1000)
            detour = Detour(
                begin_ms,
                after.driving - before.driving,
                max(0, after.finish - before.finish),
                late_min,
                breaches,
                after.total - before.total,
            )
            hope = sure or nextstep.chance_today(self._hour(begin_ms), case.reason, case.is_business, self._rule)
            money = nextstep.price_of(detour, self._costs) + (1 - hope) * self._costs.return_to_sender
            if best is None or money < best[0]:
                best = (money, detour)
        return None if best is None else best[1]

    # Doing.

    def _send_again(self, agent: AgentId, stop: Stop, option: Option, decision_id: str, now: Now) -> None:
        why = "into a locker" if option.step == "locker" else "once more after nobody was met"
        refusal = self._amendments.amend(agent, (stop,), why=why, now=now, decision_id=decision_id)
        assert refusal is None, f"the amendment was allowed a moment ago: {refusal}"
        promise = self._memory.promises.get(stop.stop_id)
        if promise is not None and option.step == "locker":
            # Nobody waits at a locker: the van that is near is no news to anybody.
            self._memory.promises.put(stop.stop_id, msgspec.structs.replace(promise, is_near_told=True))

    def _keep_for_later(self, stop: Stop, order: Order, now: Now) -> None:
        """It comes back to the depot and waits for the plan of another day."""
        self._memory.orders.put(order.order_id, order.with_stop(stop))
        why = "comes again on another day after a failed visit"
        fresh = StopRecord(stop.stop_id, order.order_id, changed_ms=now.domain_ms, why_waiting=why)
        self._memory.stops.put(stop.stop_id, fresh)

    def _put_off(self, stop_id: StopId, now: Now) -> None:
        """A visit of today that the van could not take any more, or to which no road leads, is one of another day."""
        record = self._memory.stops.get(stop_id)
        order = None if record is None else self._memory.orders[record.order_id]
        failed = None if order is None else self._failed_before(order)
        if record is None or order is None or failed is None or record.state != "waiting" or order.state != "accepted":
            return
        door = self._door(order)
        again = msgspec.structs.replace(door, stop_id=stop_id, attempt=max(2, self._attempt(order)))
        later = self._later(again, order, failed, now)
        self._keep_for_later(later, order, now)
        self._memory.change_stop(failed, next_step="tomorrow")
        option = Option("tomorrow", self._costs.next_day)
        decision = self._chains.decide(
            now,
            "redelivery",
            f"Order {order.order_id} does not come again today: it comes on another day, "
            f"{self._day_of(later.slot.opens_ms)}.",
            record.why_waiting,
            verdict="what cannot be brought today is brought on another day",
            about=(order.order_id, stop_id, failed.stop_id, failed.agent),
        )
        self._tell(failed, later, option, decision.sentence, decision.decision_id, now)

    def _bring_today(self, stop_id: StopId, now: Now) -> None:
        """Who has said after a missed visit who or where takes it need not wait for another day, while the van is out
        with the parcel on board.
        """
        record = self._memory.stops.get(stop_id)
        order = None if record is None else self._memory.orders[record.order_id]
        failed = None if order is None else self._failed_before(order, ("tomorrow",))
        stop = None if order is None else order.stop_named(stop_id)
        if record is None or order is None or failed is None or stop is None or record.state != "waiting":
            return
        if order.state != "accepted" or stop.service in NEEDS_A_PERSON or not (stop.safe_place or stop.neighbour):
            return
        hours = None if order.stop is None else order.stop.open_hours
        case = Case(
            Outcome.ATTEMPTED, "", stop.attempt - 1, stop.is_business, False, "at_the_door",
            next_hour=self._hour(_middle(stop.slot)),
        )  # fmt: skip
        plan = self._plan_with(failed.stop_id)
        loaded = () if plan is None else tuple(s for s in plan.stops if s.stop_id == failed.stop_id)
        places = {parcel.barcode: parcel.stow for one in loaded for parcel in one.parcels}
        again = planning.with_stow(msgspec.structs.replace(stop, open_hours=hours), places)
        case, today = self._with_retry(case, failed, again, None, now)
        found = nextstep.options(case, self._rule, self._costs)
        chosen, verdict = nextstep.choose(case, found)
        if today is None or found[chosen].step != "today":
            return
        visits = {"today": today, "tomorrow": stop}
        decision = self._chains.decide(
            now,
            "redelivery",
            f"Order {order.order_id} comes again today after all, between {self._clock(today.told.opens_ms)}-"
            f"{self._clock(today.told.closes_ms)}, for {found[chosen].money:.2f} {self._costs.currency} expected.",
            "the customer said who or where takes it",
            alternatives=tuple(self._alternative(each, visits) for each in found if each.is_possible),
            chosen=sum(each.is_possible for each in found[:chosen]),
            verdict=verdict,
            about=(order.order_id, failed.stop_id, failed.agent, stop_id),
        )
        self._memory.change_stop(failed, next_step="today")
        self._send_again(failed.agent, today, found[chosen], decision.decision_id, now)
        self._tell(failed, today, found[chosen], decision.sentence, decision.decision_id, now)

    def _failed_before(self, order: Order, steps: tuple[str, ...] = ("today", "locker")) -> StopRecord | None:
        """The last visit of this order that failed and went on by one of these steps; None when none did."""
        named = [stop.stop_id for stop in (order.stop, *order.amended) if stop is not None]
        records = (self._memory.stops.get(stop_id) for stop_id in named)
        failed = [each for each in records if each is not None and each.next_step in steps]
        return max(failed, key=lambda each: each.changed_ms, default=None)

    def _call_off_others(self, record: StopRecord, now: Now) -> None:
        """The customer has it now: no other visit of the same order is needed."""
        order = self._memory.orders[record.order_id]
        for stop in order.amended:
            other = self._memory.stops.get(stop.stop_id)
            if other is None or other.stop_id == record.stop_id:
                continue
            if other.state == "waiting":
                self._amendments.drop(other)
                self._memory.orders.put(order.order_id, order.without_stop(other.stop_id))
            elif other.state == "planned":
                self._amendments.amend(other.agent, withdrawn=(other.stop_id,), why="delivered already", now=now)

    def _tell(
        self, record: StopRecord, stop: Stop | None, option: Option, sentence: str, decision_id: str, now: Now
    ) -> None:
        """The customer hears of the missed visit and of what comes next in one notice, under the stop that failed."""
        known = self._memory.promises.get(record.stop_id)
        sold = stop or self._amendments.stop_now(record.stop_id)
        if sold is None:
            return
        promise = known or Promise(record.stop_id, record.order_id, record.agent, sold.slot, sold.told)
        if stop is not None:
            promise = msgspec.structs.replace(promise, slot=stop.slot, told=stop.told)
        place = option.locker.name if option.locker is not None else ""
        estimate = None
        if option.detour is not None and option.step == "today":
            begin_ms = option.detour.begin_ms
            estimate = planning.first_estimate(promise.stop_id, begin_ms, (begin_ms - now.domain_ms) // 1000)
        self._mailbag.put(
            promise, "missed", sentence, decision_id, now, next_step=option.step, place=place, estimate=estimate
        )

    # Words.

    def _sentence(self, record: StopRecord, visit: Visit, option: Option, stop: Stop | None) -> str:
        what = {
            Outcome.ATTEMPTED: "met nobody who could take it",
            Outcome.REFUSED: "was refused",
            Outcome.DAMAGED: "was damaged",
            Outcome.PART: "was taken in part",
        }[visit.outcome]
        is_delivery = self._door(self._memory.orders[record.order_id]).service != "collection"
        next_words = {
            "today": "it comes again today",
            "tomorrow": "it comes on another day",
            "locker": f"it goes into locker {option.locker.locker_id if option.locker else ''}",
            "return": "it goes back to the sender" if is_delivery else "it is given up",
        }[option.step]
        if option.step == "today" and stop is not None:
            next_words += f" between {self._clock(stop.told.opens_ms)}-{self._clock(stop.told.closes_ms)}"
        if option.step == "tomorrow" and stop is not None:
            next_words += f", {self._day_of(stop.slot.opens_ms)}"
        return (
            f"Order {record.order_id} {what} at {self._clock(visit.left_ms)}: {next_words}, "
            f"for {option.money:.2f} {self._costs.currency} expected."
        )

    def _inputs(self, case: Case, visit: Visit, found: Sequence[Option], now: Now) -> tuple[Input, ...]:
        age_s = max(0, now.domain_ms - visit.left_ms) / 1000
        currency = self._costs.currency
        impossible = [nextstep.in_words(each, currency) for each in found if not each.is_possible]
        return (
            Input("outcome", visit.outcome.value, age_s),
            Input("reason", case.reason or "in the driver's own words or none"),
            Input("attempts", f"{case.attempt} of {self._rule.most_attempts}"),
            Input("customer's wish", case.wish or "none"),
            Input("lockers asked", str(len(case.lockers))),
            Input(
                "costs",
                f"another day {self._costs.next_day:g}, locker {self._costs.locker:g}, "
                f"return {self._costs.return_to_sender:g} {currency}",
            ),
            Input("not possible", "; ".join(impossible) or "nothing"),
        )

    def _alternative(self, option: Option, visits: dict[str, Stop]) -> Alternative:
        """`cost_s` is the money in seconds of the driver's time, so that all alternatives have one measure."""
        detour, face = option.detour, ""
        if option.step == "today" and detour is not None:
            face = self._clock(detour.begin_ms)
        if option.step == "tomorrow" and "tomorrow" in visits:
            face = self._day_of(visits["tomorrow"].slot.opens_ms)
        per_s = max(self._costs.per_driver_hour, 1.0) / 3600
        return Alternative(
            nextstep.in_words(option, self._costs.currency, face),
            cost_s=round(option.money / per_s),
            late_s=0.0 if detour is None else round(detour.late_min * 60),
            driving_s=0.0 if detour is None else detour.driving_s,
        )

    # What is known.

    def _is_open(self, record: StopRecord) -> bool:
        """Whether it is to be decided how it goes on: no other visit is to come, and it is not on its way back."""
        order = self._memory.orders[record.order_id]
        others = (self._memory.stops.get(stop.stop_id) for stop in order.amended if stop.stop_id != record.stop_id)
        is_coming = any(other is not None and other.state != "done" for other in others)
        return order.state == "accepted" and not is_coming

    def _lockers_to_ask(self, stop_id: StopId) -> tuple[Locker, ...]:
        """The lockers that may help and whose way the roads must be asked for."""
        plan = self._plan_with(stop_id)
        record = self._memory.stops[stop_id]
        agent = self._memory.agents.get(record.agent)
        if plan is None or agent is None or agent.shift == "ended" or stop_id in self._without_lockers:
            return ()
        if record.visits[-1].outcome in NO_VISIT_MENDS or self._why_no_locker(stop_id):
            return ()
        return self._near_lockers(self._memory.orders[record.order_id])

    def _why_no_locker(self, stop_id: StopId) -> str:
        order = self._memory.orders[self._order_id(stop_id)]
        if not self._lockers:
            return "there are no lockers"
        if self._door(order).service in NEEDS_A_PERSON:
            return f"'{self._door(order).service}' needs a person"
        if stop_id in self._without_lockers:
            return "the roads did not answer"
        return "" if self._near_lockers(order) else "no locker is near enough and has room"

    def _near_lockers(self, order: Order) -> tuple[Locker, ...]:
        """The nearest lockers with a free compartment that is large enough, nearest first."""
        door = self._door(order)
        litres = max((parcel.litres for parcel in door.parcels), default=0.0)
        fitting = [
            (metres_between(door.position, locker.position), locker.locker_id, locker)
            for locker in self._lockers
            if litres <= locker.most_litres and not self._was_tried(order, locker)
        ]
        near = sorted(each for each in fitting if each[0] <= self._rule.locker_within_m)
        return tuple(locker for _, _, locker in near if self._has_room(locker, len(door.parcels)))[:NEAREST_LOCKERS]

    def _was_tried(self, order: Order, locker: Locker) -> bool:
        return any(stop.door_group == _door_of(locker) for stop in order.amended)

    def _has_room(self, locker: Locker, parcels: int) -> bool:
        """Compartments not yet used or meant for another today: a visit takes one for each parcel."""
        used = sum(
            max(1, len(stop.parcels))
            for plan in self._memory.plans.values()
            for stop in plan.stops
            if stop.door_group == _door_of(locker)
        )
        asked = sum(
            max(1, len(stop.parcels))
            for wanted in self._memory.amendments.values()
            for stop in wanted.stops
            if wanted.number == 0 and stop.door_group == _door_of(locker)
        )
        return used + asked + max(1, parcels) <= locker.capacity

    def _at_locker(self, order: Order, locker: Locker) -> Stop:
        """The visit that would bring this order's parcels to a locker. Who waits there is nobody: no code, no note."""
        door = self._door(order)
        return Stop(
            StopId(f"{LOCKER_DOOR}{locker.locker_id}"), order.order_id, locker.name, locker.position, door.slot,
            door.told, LOCKER_SERVICE_S, door.parcels, "leave_safe", door_group=_door_of(locker), lateness_weight=1,
            attempt=self._attempt(order) + 1,
        )  # fmt: skip

    def _door(self, order: Order) -> Stop:
        """The customer's own door as it is to be visited now: the last visit that did not go to a locker."""
        named = [stop.stop_id for stop in order.amended if not stop.door_group.startswith(LOCKER_DOOR)]
        named += [] if order.stop is None else [order.stop.stop_id]
        found = [stop for stop in map(self._amendments.stop_now, named) if stop is not None]
        assert found, f"order {order.order_id} was visited without a place"
        return max(found, key=lambda stop: stop.attempt)

    def _attempt(self, order: Order) -> int:
        return max((stop.attempt for stop in order.amended), default=1)

    def _next_id(self, order: Order) -> StopId:
        assert order.stop is not None, f"order {order.order_id} was visited without a place"
        return StopId(f"{order.stop.stop_id}.{self._attempt(order) + 1}")

    def _wish(self, record: StopRecord, door: Stop, order: Order) -> Literal["", "another_day", "at_the_door"]:
        """What the customer has said that the failed visit did not know."""
        if record.wished is not None:
            return "another_day"
        customer = self._memory.customers.get(order.customer_ref)
        if customer is None or door.service in NEEDS_A_PERSON:
            return ""
        wishes = customer.wishes
        is_new = (wishes.safe_place and not door.safe_place) or (wishes.neighbour and not door.neighbour)
        return "at_the_door" if is_new else ""

    def _later(self, again: Stop, order: Order, record: StopRecord, now: Now) -> Stop:
        """The visit of another day: the hours that were sold, on the next working day, unless the customer asked for
        others.
        """
        sold = order.stop.slot if order.stop is not None else again.slot
        slot = record.wished or self._on_next_working_day(sold, now.domain_ms)
        given = {} if order.stop is None else {parcel.barcode: parcel for parcel in order.stop.parcels}
        parcels = tuple(given.get(parcel.barcode, parcel) for parcel in again.parcels)
        hours = again.open_hours
        if hours is not None:
            hours = self._on_day_of(hours, slot.opens_ms)
        return msgspec.structs.replace(again, slot=slot, told=slot, parcels=parcels, open_hours=hours)

    def _told(self, stop: Stop) -> Stop:
        promise = self._memory.promises.get(stop.stop_id)
        return stop if promise is None else msgspec.structs.replace(stop, told=promise.told)

    def _plan_with(self, stop_id: StopId) -> Plan | None:
        """The plan of the van that failed, as long as it still knows the place."""
        plan = self._memory.plans.get(self._memory.stops[stop_id].agent)
        return plan if plan is not None and stop_id in plan.legs.places else None

    def _order_id(self, stop_id: StopId) -> str:
        return self._memory.stops[stop_id].order_id

    def _need(self, stop_id: StopId) -> str:
        """Changes with everything its answer depends on, so that an answer to another question is not taken."""
        record = self._memory.stops[stop_id]
        agent, plan = self._memory.agents.get(record.agent), self._memory.plans.get(record.agent)
        versions = f"{plan.plan_version if plan else 0}.{agent.amended if agent else 0}"
        return f"{NEED}{stop_id}/{versions}/{self._memory.closed_streets.version}"

    # The calendar.

    def _local(self, instant_ms: int) -> datetime:
        return datetime.fromtimestamp(instant_ms / 1000, UTC).astimezone(ZoneInfo(self._zone))

    def _hour(self, instant_ms: int) -> float:
        local = self._local(instant_ms)
        return local.hour + local.minute / 60

    def _hour_ms(self, instant_ms: int, hour: int) -> int:
        """This hour of the instant's own day."""
        local = self._local(instant_ms)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        return _epoch_ms((midnight + timedelta(hours=hour)).replace(tzinfo=local.tzinfo))

    def _on_next_working_day(self, sold: TimeWindow, now_ms: int) -> TimeWindow:
        """The same hours of the clock on the next working day."""
        day = self._local(now_ms).date() + timedelta(days=1)
        days = self._rule.working_days or (1, 2, 3, 4, 5, 6, 7)
        while day.isoweekday() not in days:
            day += timedelta(days=1)
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(self._zone))
        return self._on_day_of(sold, _epoch_ms(noon))

    def _on_day_of(self, window: TimeWindow, instant_ms: int) -> TimeWindow:
        """The window's hours of the clock on the day of an instant."""
        apart = self._local(instant_ms).date() - self._local(window.opens_ms).date()

        def moved(end_ms: int) -> EpochMs:
            local = self._local(end_ms)
            return EpochMs(_epoch_ms((local.replace(tzinfo=None) + apart).replace(tzinfo=local.tzinfo)))

        return TimeWindow(moved(window.opens_ms), moved(window.closes_ms))

    def _day_of(self, instant_ms: int) -> str:
        return self._local(instant_ms).date().isoformat()


def _rows(legs: LegTimes, rows: Sequence[StopId], names: Sequence[StopId]) -> LegTimes:
    """The leg times between these places, each under another name where it stands for another stop."""
    row = {stop_id: place + 1 for place, stop_id in enumerate(legs.places)}
    keep = np.array([0, *(row[stop_id] for stop_id in rows)])
    seconds = legs.matrix()[:, keep[:, None], keep[None, :]]
    return LegTimes.from_matrix(legs.roads_version, tuple(names), legs.slice_ends_ms, seconds)


def _harm(stops: Sequence[Stop], before: Cost, after: Cost, place: int, base_ms: int) -> tuple[float, int]:
    """Minutes by which others miss the windows they were told beyond those missed anyway, and slots newly broken."""
    begins = (*after.begins[:place], *after.begins[place + 1 :])
    late_s = 0.0
    breaches = 0
    for stop, was_s, is_s in zip(stops, before.begins, begins, strict=True):
        was_ms, is_ms = base_ms + was_s * 1000, base_ms + is_s * 1000
        late_s += stop.told.late_s(is_ms) - stop.told.late_s(was_ms)
        breaches += was_ms <= stop.slot.closes_ms < is_ms
    return max(0.0, late_s) / 60, breaches


def _credible(visit: Visit, now: Now) -> Visit:
    """The visit as having ended lately: an agent that does not know the time may say anything."""
    left_ms = EpochMs(min(max(visit.left_ms, now.domain_ms - LONGEST_AGO_MS), now.domain_ms))
    return msgspec.structs.replace(visit, left_ms=left_ms)


def _door_of(locker: Locker) -> str:
    return f"{LOCKER_DOOR}{locker.locker_id}"


def _middle(window: TimeWindow) -> int:
    return (window.opens_ms + window.closes_ms) // 2


def _epoch_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
