"""Decide how it goes on after a failed visit, have it done, and have the customer told.

What the ways to go on cost is reckoned by `cloud_hub.nextstep`; here its case is put together from the books and the
rest of the van's day, the choice becomes a record, and the record becomes another visit: of the same van today, of a
locker, of another day, or none. The decision falls when everything the agent said in this batch is known. Where a
locker may help, the roads are asked first for the way to it; until they have answered the stop is `deciding`, and a hub
that wakes up goes on from there.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from cloud_hub import nextstep, planning, promises
from cloud_hub.amendments import Amendments
from cloud_hub.attempts import Attempts
from cloud_hub.chains import Chains
from cloud_hub.detours import Detours
from cloud_hub.events import LegTimesFound, LockerLegTimesWanted
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.lockers import Lockers, visit_to
from cloud_hub.mailbag import Mailbag
from cloud_hub.memory import Memory
from cloud_hub.nextstep import DECIDING, NEEDS_A_PERSON, NO_VISIT_MENDS, Case, Detour, Locker, Option, RedeliveryRule
from cloud_hub.promises import Promise, Rule
from cloud_hub.settling import Settling
from cloud_hub.visits import Visits
from cloud_hub.workdays import Workdays
from shared.contracts import LegTimes, Plan
from shared.costs import Costs
from shared.ledger import Alternative, Input
from shared.quantities import EpochMs, TimeWindow
from shared.steps import JobFailed, Now
from shared.work import AgentId, Outcome, Stop, StopId, Visit

NEED = "redeliver/"
"""How the need for leg times to lockers begins, so that its answer finds the way here."""

MOST_FAILURES = 3
"""The customer waits to hear what comes next: after this many attempts the choice is made without lockers."""

LONGEST_AGO_MS = 7 * 24 * 3_600_000
ROUND_MS = 5 * 60_000
MINUTE_MS = 60_000
WHY_WAITING = "comes again on another day after a failed visit"


class Redelivery:
    """What follows failed visits."""

    def __init__(
        self,
        memory: Memory,
        chains: Chains,
        mailbag: Mailbag,
        amendments: Amendments,
        settling: Settling,
        attempts: Attempts,
        visits: Visits,
        lockers: Lockers,
        detours: Detours,
        workdays: Workdays,
        *,
        rule: RedeliveryRule,
        costs: Costs,
        told_by: Rule,
        zone: str,
        clock_face: Callable[[int], str],
    ) -> None:
        self._memory = memory
        self._chains = chains
        self._mailbag = mailbag
        self._amendments = amendments
        self._settling = settling
        self._attempts = attempts
        self._rule = rule
        self._costs = costs
        self._visits = visits
        self._lockers = lockers
        self._detours = detours
        self._workdays = workdays
        self._told_by = told_by
        self._zone = zone
        self._clock = clock_face
        self._undecided = {record.stop_id: None for record in memory.stops.values() if record.next_step == DECIDING}
        self._without_lockers: set[StopId] = set()

    # What happens.

    def visited(self, record: StopRecord, visit: Visit, now: Now) -> None:
        """A visit of this stop has ended. One that failed is decided on when the batch is taken."""
        if visit.outcome.is_delivery or visit.outcome is Outcome.COLLECTED:
            self._call_off_others(record, now)
            if visit.outcome is Outcome.DELIVERED_TO_LOCKER:
                self._tell_ready(record, now)
        elif visit.outcome in nextstep.FAILED and self._visits.is_open(record):
            self._memory.change_stop(self._memory.stops[record.stop_id], next_step=DECIDING)
            self._undecided[record.stop_id] = None

    def decide(self, now: Now) -> None:
        """Decide what can be decided without asking the roads, and what becomes of visits no van could take."""
        for stop_id in self._settling.unplaced():
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
            order = self._memory.orders[self._memory.stops[stop_id].order_id]
            places = tuple(self._at_locker(order, one) for one in lockers)
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
        if not self._visits.is_open(record):
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
            self._visits.keep(next_stop, order, WHY_WAITING, now)
        elif not nothing_to_return:
            self._memory.orders.put(order.order_id, msgspec.structs.replace(order, state="returning"))
        if not nothing_to_return:
            self._tell(record, next_stop, option, decision.sentence, decision.decision_id, now)
        self._without_lockers.discard(stop_id)

    def _case(
        self, record: StopRecord, visit: Visit, order: Order, legs: LegTimes | None, now: Now
    ) -> tuple[Case, dict[str, Stop]]:
        """The case, and the visit each step would be, by the step's name or the locker's id."""
        door, again = self._visits.door(order), self._visits.again(order)
        later = self._visits.on_another_day(again, order, record.wished, now)
        case = Case(
            outcome=visit.outcome,
            reason=visit.reason if visit.reason in nextstep.HOPE_BY_REASON else "",
            attempt=self._visits.made(order),
            is_business=door.is_business,
            is_collection=door.service == "collection",
            wish=self._wish(record, door, order),
            next_hour=self._workdays.hour(_middle(later.slot)),
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
        closes_ms = min(self._workdays.at_hour(now.domain_ms, self._rule.latest_hour), plan.shift_end_ms)
        if again.open_hours is not None:
            opens_ms, closes_ms = max(opens_ms, again.open_hours.opens_ms), min(closes_ms, again.open_hours.closes_ms)
        if case.wish == "at_the_door":
            opens_ms = min(opens_ms, now.domain_ms)
        if opens_ms >= closes_ms:
            return msgspec.structs.replace(case, why_not_today="nothing useful is left of the day"), None
        slot = TimeWindow(EpochMs(opens_ms), EpochMs(closes_ms))
        stop = msgspec.structs.replace(again, slot=slot, told=slot)
        detour = self._detours.cheapest(
            record.stop_id, agent, plan, legs or plan.legs, stop, now, lambda one: self._money(one, case)
        )
        if detour is None:
            return msgspec.structs.replace(case, why_not_today="it does not fit before the shift ends"), None
        refusal = self._amendments.refusal(record.agent, (stop,))
        if refusal is not None:
            return msgspec.structs.replace(case, why_not_today=refusal), None
        estimate = planning.first_estimate(stop.stop_id, detour.begin_ms, (detour.begin_ms - now.domain_ms) // 1000)
        stop = msgspec.structs.replace(stop, told=promises.first_told(slot, estimate, self._told_by))
        return msgspec.structs.replace(case, today=detour, today_hour=self._workdays.hour(detour.begin_ms)), stop

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
        for locker in self._lockers.all:
            stop = self._at_locker(order, locker)
            if stop.stop_id not in legs.places:
                continue
            slot = TimeWindow(now.domain_ms, plan.shift_end_ms)
            if slot.opens_ms >= slot.closes_ms:
                continue
            stop = msgspec.structs.replace(stop, slot=slot, told=slot)
            detour = self._detours.cheapest(record.stop_id, agent, plan, legs, stop, now, self._price)
            own = msgspec.structs.replace(stop, stop_id=self._visits.named(order, self._visits.last(order) + 1))
            if detour is not None and self._amendments.refusal(record.agent, (own,)) is None:
                found.append((locker, detour))
                visits[locker.locker_id] = own
        reason = "" if found else "no locker can be reached before the shift ends"
        return msgspec.structs.replace(case, lockers=tuple(found), why_no_locker=reason), visits

    def _price(self, detour: Detour) -> float:
        return nextstep.price_of(detour, self._costs)

    def _money(self, detour: Detour, case: Case) -> float:
        """What another visit costs at this hour, with what follows when nobody is met again."""
        if case.wish == "at_the_door":
            return self._price(detour)
        hour = self._workdays.hour(detour.begin_ms)
        chance = nextstep.chance_today(hour, case.reason, case.is_business, self._rule)
        return self._price(detour) + (1 - chance) * self._costs.return_to_sender

    # Doing.

    def _send_again(self, agent: AgentId, stop: Stop, option: Option, decision_id: str, now: Now) -> None:
        why = "into a locker" if option.step == "locker" else "once more after nobody was met"
        refusal = self._amendments.amend(agent, (stop,), why=why, now=now, decision_id=decision_id)
        assert refusal is None, f"the amendment was allowed a moment ago: {refusal}"
        promise = self._memory.promises.get(stop.stop_id)
        if promise is not None and option.step == "locker":
            # Nobody waits at a locker: the van that is near is no news to anybody.
            self._memory.promises.put(stop.stop_id, msgspec.structs.replace(promise, is_near_told=True))

    def _put_off(self, stop_id: StopId, now: Now) -> None:
        """A visit of today that the van could not take any more, or to which no road leads, is one of another day."""
        record = self._memory.stops.get(stop_id)
        order = None if record is None else self._memory.orders[record.order_id]
        failed = None if order is None else self._failed_before(order)
        if record is None or order is None or failed is None or record.state != "waiting" or order.state != "accepted":
            return
        again = msgspec.structs.replace(
            self._visits.door(order), stop_id=stop_id, attempt=max(2, self._visits.last(order))
        )
        later = self._visits.on_another_day(again, order, failed.wished, now)
        self._visits.keep(later, order, WHY_WAITING, now)
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
        is_on_board = bool(failed.visits) and failed.visits[-1].outcome is Outcome.ATTEMPTED
        if order.state != "accepted" or not is_on_board:
            return
        if stop.service in NEEDS_A_PERSON or not (stop.safe_place or stop.neighbour):
            return
        hours = None if order.stop is None else order.stop.open_hours
        case = Case(
            Outcome.ATTEMPTED, "", self._visits.made(order), stop.is_business, False, "at_the_door",
            next_hour=self._workdays.hour(_middle(stop.slot)),
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
        failed = [each for each in self._visits.records(order) if each.next_step in steps]
        return max(failed, key=lambda each: each.changed_ms, default=None)

    def _call_off_others(self, record: StopRecord, now: Now) -> None:
        """The customer has it now: no other visit of the same order is needed."""
        order = self._memory.orders[record.order_id]
        for stop in order.amended:
            other = self._memory.stops.get(stop.stop_id)
            if other is None or other.stop_id == record.stop_id:
                continue
            if other.state == "waiting":
                self._settling.drop(other)
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

    def _tell_ready(self, record: StopRecord, now: Now) -> None:
        """The customer hears that the parcel has been put into a locker, and into which, when that is known."""
        order = self._memory.orders[record.order_id]
        stop, promise = order.stop_named(record.stop_id), self._memory.promises.get(record.stop_id)
        if stop is None or promise is None:
            return
        place = stop.address if stop.is_at_locker else ""
        sentence = f"Order {order.order_id} lies in {place or 'a locker'} since {self._clock(record.changed_ms)}."
        self._mailbag.put(promise, "missed", sentence, "", now, next_step="locker_ready", place=place)

    # Words.

    def _sentence(self, record: StopRecord, visit: Visit, option: Option, stop: Stop | None) -> str:
        what = {
            Outcome.ATTEMPTED: "met nobody who could take it",
            Outcome.REFUSED: "was refused",
            Outcome.DAMAGED: "was damaged",
            Outcome.PART: "was taken in part",
        }[visit.outcome]
        is_delivery = self._visits.door(self._memory.orders[record.order_id]).service != "collection"
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

    def _lockers_to_ask(self, stop_id: StopId) -> tuple[Locker, ...]:
        """The lockers that may help and whose way the roads must be asked for."""
        plan = self._plan_with(stop_id)
        record = self._memory.stops[stop_id]
        agent = self._memory.agents.get(record.agent)
        if plan is None or agent is None or agent.shift == "ended" or stop_id in self._without_lockers:
            return ()
        if record.visits[-1].outcome in NO_VISIT_MENDS or self._why_no_locker(stop_id):
            return ()
        order = self._memory.orders[record.order_id]
        return self._lockers.near(order, self._visits.door(order))

    def _why_no_locker(self, stop_id: StopId) -> str:
        order = self._memory.orders[self._memory.stops[stop_id].order_id]
        door = self._visits.door(order)
        if not self._lockers.all:
            return "there are no lockers"
        if door.service in NEEDS_A_PERSON:
            return f"'{door.service}' needs a person"
        if stop_id in self._without_lockers:
            return "the roads did not answer"
        return "" if self._lockers.near(order, door) else "no locker is near enough and has room"

    def _at_locker(self, order: Order, locker: Locker) -> Stop:
        return visit_to(locker, order, self._visits.door(order), self._visits.last(order) + 1)

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

    def _plan_with(self, stop_id: StopId) -> Plan | None:
        """The plan of the van that failed, as long as it still knows the place."""
        plan = self._memory.plans.get(self._memory.stops[stop_id].agent)
        return plan if plan is not None and stop_id in plan.legs.places else None

    def _need(self, stop_id: StopId) -> str:
        """Changes with everything its answer depends on, so that an answer to another question is not taken."""
        record = self._memory.stops[stop_id]
        agent, plan = self._memory.agents.get(record.agent), self._memory.plans.get(record.agent)
        versions = f"{plan.plan_version if plan else 0}.{agent.amended if agent else 0}"
        return f"{NEED}{stop_id}/{versions}/{self._memory.closed_streets.version}"

    def _day_of(self, instant_ms: int) -> str:
        return self._workdays.day(instant_ms).isoformat()


def _credible(visit: Visit, now: Now) -> Visit:
    """The visit as having ended lately: an agent that does not know the time may say anything."""
    left_ms = EpochMs(min(max(visit.left_ms, now.domain_ms - LONGEST_AGO_MS), now.domain_ms))
    return msgspec.structs.replace(visit, left_ms=left_ms)


def _middle(window: TimeWindow) -> int:
    return (window.opens_ms + window.closes_ms) // 2
