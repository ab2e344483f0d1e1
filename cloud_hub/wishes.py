"""Grant what a customer asks of a delivery if it can still be done, and say truthfully when it cannot.

A wish is judged against what is sold and where the van is, put into effect at once, and answered with a code the
tracking page has words for. The record of it names the wish and what came of it; the words themselves are personal and
stay in a room of their own.
"""

from typing import Protocol

import msgspec

from cloud_hub import planning, promises
from cloud_hub.chains import Chains
from cloud_hub.contacts import Customer
from cloud_hub.contacts import Wishes as Preferences
from cloud_hub.customers import Customers
from cloud_hub.events import Answer
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.memory import Memory
from cloud_hub.promises import Promise, Rule
from cloud_hub.sayings import DoorCode, Neighbour, NotHomeUntil, OnItsWay, OtherDay, SafePlace, SaidWish, Wish, WishSaid
from shared.ledger import Alternative, Input
from shared.messages import Estimate
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Now
from shared.work import AgentId, OrderId, Stop, StopId

MINUTE_MS = 60_000
DAY_MS = 24 * 3_600_000

MOST_A_DAY = 20
"""Wishes one order may have answered in 24 hours; nobody changes their mind more often, and each is a record kept for
good.
"""

SAME_AGAIN_MS = 2 * MINUTE_MS
"""The same wish again so soon is a button pressed twice."""

LEAST_LEFT_MS = 30 * MINUTE_MS
"""What must be left of the slot, or of the driver's shift, after an hour before which nobody is at home."""

FARTHEST_DAY_MS = 14 * DAY_MS
"""A depot does not keep a parcel for longer."""

NEEDS_A_PERSON = frozenset({"signature", "age_check", "collection"})

ASKED = {
    NotHomeUntil: "a later hour",
    SafePlace: "a safe place",
    Neighbour: "a neighbour",
    OtherDay: "another day",
    DoorCode: "a door code",
    OnItsWay: "word when it is on its way",
}
"""What was asked for, as records call it; the customer's own words are in none."""


class Amends(Protocol):
    """Changes a running plan (see `cloud_hub.amendments`)."""

    def amend(self, agent: AgentId, stops: tuple[Stop, ...], withdrawn: tuple[StopId, ...], why: str, now: Now) -> str:
        """Why it cannot be done; "" when it is."""
        ...


class Judged(msgspec.Struct, frozen=True):
    """What a wish comes to: an effect, or why not. `stop` is what the stop becomes, None when it stays as it is.

    `slot` and `told` are the hours that remain and the window to tell, None when neither moves.
    """

    effect: str = ""
    why_not: str = ""
    stop: Stop | None = None
    slot: TimeWindow | None = None
    told: TimeWindow | None = None
    is_put_off: bool = False


class Wishes:
    """What customers have asked for, and what came of it."""

    def __init__(self, memory: Memory, chains: Chains, customers: Customers, amendments: Amends, rule: Rule) -> None:
        self._memory = memory
        self._chains = chains
        self._customers = customers
        self._amendments = amendments
        self._rule = rule

    def said(self, event: WishSaid, now: Now) -> Answer:
        """Answer a wish: what came of it is done when the answer leaves. `named` holds the wish's id."""
        order = self._memory.orders.get(event.order_id)
        if order is None or order.stop is None or order.stop.stop_id not in self._memory.stops:
            return Answer(False, "no_visit")
        recent = [wish for wish in self._of(order.order_id) if wish.said_ms > now.domain_ms - DAY_MS]
        if recent and recent[-1].wish == event.wish and recent[-1].said_ms > now.domain_ms - SAME_AGAIN_MS:
            return _answer(recent[-1])
        if len(recent) >= MOST_A_DAY:
            self._memory.counts["wishes.too_many"] += 1
            return Answer(False, "too_many")
        record = self._memory.stops[order.stop.stop_id]
        judged = self._do(self._judge(order, order.stop, record, event.wish, now), order.stop, record, event.wish, now)
        self._remember(order, event.wish, judged)
        return self._keep(order, order.stop, record, event.wish, judged, now)

    def _of(self, order_id: OrderId) -> list[SaidWish]:
        return [wish for wish in self._memory.said_wishes.values() if wish.order_id == order_id]

    # Judging.

    def _judge(self, order: Order, stop: Stop, record: StopRecord, wish: Wish, now: Now) -> Judged:
        if isinstance(wish, OnItsWay):
            return self._judge_on_its_way(order, wish)
        why_not = {"done": "over", "arrived": "at_the_door", "heading": "under_way"}.get(record.state, "")
        if why_not:
            return Judged(why_not=why_not)
        if isinstance(wish, DoorCode):
            effect = "code_kept" if wish.code else "taken_back"
            return Judged(effect, stop=msgspec.structs.replace(stop, door_code=wish.code))
        if isinstance(wish, SafePlace):
            return self._judge_safe_place(stop, wish)
        if isinstance(wish, Neighbour):
            return _judge_neighbour(stop, wish)
        if "plan" in self._memory.needs:
            # The plan under way was asked for with the hours as they were.
            return Judged(why_not="being_planned")
        if isinstance(wish, NotHomeUntil):
            return self._judge_not_home(stop, record, wish, now)
        return _judge_other_day(stop, wish, now)

    def _judge_on_its_way(self, order: Order, wish: OnItsWay) -> Judged:
        customer = self._memory.customers.get(order.customer_ref)
        if customer is None or not (customer.email or customer.phone):
            return Judged(why_not="no_contact")
        return Judged("will_tell" if wish.is_wanted else "will_not_tell")

    def _judge_safe_place(self, stop: Stop, wish: SafePlace) -> Judged:
        if not wish.where:
            was_ours = any(isinstance(said.wish, SafePlace) and said.is_done for said in self._of(stop.order_id))
            service = "hand_over" if was_ours and stop.service == "leave_safe" else stop.service
            return Judged("taken_back", stop=msgspec.structs.replace(stop, safe_place="", service=service))
        if stop.service in NEEDS_A_PERSON:
            return Judged(why_not=f"needs_person.{stop.service}")
        changed = msgspec.structs.replace(stop, safe_place=wish.where, service="leave_safe")
        return Judged("safe_place_kept", stop=changed)

    def _judge_not_home(self, stop: Stop, record: StopRecord, wish: NotHomeUntil, now: Now) -> Judged:
        if wish.at_ms <= now.domain_ms:
            return Judged(why_not="time_past")
        was_ours = any(isinstance(said.wish, NotHomeUntil) and said.is_done for said in self._of(stop.order_id))
        sold = stop.slot if was_ours else planning.window_of(stop)
        plan = self._memory.plans.get(record.agent)
        ends_ms = min(sold.closes_ms, sold.closes_ms if plan is None else plan.shift_end_ms)
        if wish.at_ms > ends_ms - LEAST_LEFT_MS:
            return Judged(why_not="too_late_today")
        if wish.at_ms <= sold.opens_ms and not was_ours:
            return Judged("as_it_is")
        hours = TimeWindow(max(wish.at_ms, sold.opens_ms), sold.closes_ms)
        promise = self._memory.promises.get(stop.stop_id)
        told = None if promise is None else told_from(promise, hours, self._estimate(record), self._rule)
        changed = msgspec.structs.replace(stop, open_hours=hours, told=stop.told if told is None else told)
        return Judged("not_before", stop=changed, slot=hours, told=told)

    def _estimate(self, record: StopRecord) -> Estimate | None:
        heard = self._memory.estimates.get(record.agent)
        expected = () if heard is None else heard.estimates
        return next((estimate for estimate in expected if estimate.stop_id == record.stop_id), None)

    # Doing.

    def _do(self, judged: Judged, stop: Stop, record: StopRecord, wish: Wish, now: Now) -> Judged:
        """Put a judgement into effect in the plan and the order; a plan that can change no more overrules it."""
        changed = judged.stop
        if changed is None or changed == stop:
            return judged
        if record.agent:
            why = f"the customer of {stop.order_id} asked for {ASKED[type(wish)]}"
            stops, withdrawn = ((), (stop.stop_id,)) if judged.is_put_off else ((changed,), ())
            if self._amendments.amend(record.agent, stops, withdrawn, why, now):
                return Judged(why_not="under_way")
        order = self._memory.orders[stop.order_id]
        self._memory.orders.put(order.order_id, msgspec.structs.replace(order, stop=changed))
        if judged.is_put_off:
            self._memory.change_stop(
                self._memory.stops[stop.stop_id],
                state="waiting",
                agent=AgentId(""),
                changed_ms=now.domain_ms,
                why_waiting="its customer asked for another day",
            )
        return judged

    def _remember(self, order: Order, wish: Wish, judged: Judged) -> None:
        """What is asked for this and every later order becomes a preference of the customer.

        A code that came too late for this visit still opens the door the next time.
        """
        customer = self._memory.customers.get(order.customer_ref)
        is_kept = not judged.why_not or (isinstance(wish, DoorCode) and judged.why_not in ("under_way", "over"))
        if customer is not None and is_kept:
            preferences = preferred(customer.wishes, wish)
            changed: Customer = msgspec.structs.replace(customer, wishes=preferences)
            self._memory.customers.put(customer.customer_ref, changed)

    def _keep(self, order: Order, stop: Stop, record: StopRecord, wish: Wish, judged: Judged, now: Now) -> Answer:
        asked = ASKED[type(wish)]
        outcome = f"not done ({judged.why_not})" if judged.why_not else f"done ({judged.effect})"
        decision = self._chains.decide(
            now,
            "customer_wish",
            f"The customer of order {order.order_id} asked for {asked}: {outcome}.",
            "the customer said so on the tracking page",
            inputs=(Input("stop", record.state), Input("service", stop.service)),
            alternatives=(Alternative("leave it as it is", 0.0), Alternative(f"grant {asked}", 0.0)),
            chosen=int(not judged.why_not),
            verdict=f"refused: {judged.why_not}" if judged.why_not else f"granted: {judged.effect}",
            about=tuple(word for word in (order.order_id, stop.stop_id, record.agent) if word),
        )
        if judged.is_put_off and judged.slot is not None:
            self._customers.put_off(stop.stop_id, judged.slot, decision, now)
        elif judged.slot is not None:
            self._customers.narrowed(stop.stop_id, judged.slot, judged.told, decision, now)
        count = len(self._of(order.order_id)) + 1
        said = SaidWish(
            f"{order.order_id}/{count:06d}", order.order_id, order.customer_ref, now.domain_ms, wish, judged.effect,
            judged.why_not, judged.told, decision.decision_id,
        )  # fmt: skip
        self._memory.said_wishes.put(said.wish_id, said)
        self._memory.counts[f"wishes.{'refused' if judged.why_not else 'granted'}"] += 1
        return _answer(said)


def told_from(promise: Promise, hours: TimeWindow, estimate: Estimate | None, rule: Rule) -> TimeWindow:
    """The window to tell when service may begin within `hours` only: the one told already if it lies there, else one
    of the width of a moved window around the expected arrival, which waits for the hours to begin.
    """
    if promise.told.within(hours):
        return promise.told
    opens_ms = hours.opens_ms
    middle_ms = EpochMs((promise.told.opens_ms + promise.told.closes_ms) // 2)
    heard = estimate or Estimate(promise.stop_id, promise.told.opens_ms, middle_ms, promise.told.closes_ms)
    p50_ms = max(heard.p50_ms, opens_ms)
    p90_ms = p50_ms + heard.p90_ms - heard.p50_ms
    waited = Estimate(promise.stop_id, max(heard.p10_ms, opens_ms), EpochMs(p50_ms), EpochMs(p90_ms))
    return promises.first_told(hours, waited, msgspec.structs.replace(rule, first_width_min=rule.moved_width_min))


def preferred(before: Preferences, wish: Wish) -> Preferences:
    """The customer's preferences after this wish."""
    if isinstance(wish, OnItsWay):
        return msgspec.structs.replace(before, on_its_way=wish.is_wanted)
    if isinstance(wish, DoorCode) and (wish.is_for_next or not wish.code):
        return msgspec.structs.replace(before, door_code=wish.code)
    if isinstance(wish, SafePlace) and (wish.is_for_next or not wish.where):
        return msgspec.structs.replace(before, safe_place=wish.where)
    if isinstance(wish, Neighbour) and (wish.is_for_next or not wish.who):
        return msgspec.structs.replace(before, neighbour=wish.who)
    return before


def _judge_neighbour(stop: Stop, wish: Neighbour) -> Judged:
    if wish.who and stop.service in NEEDS_A_PERSON:
        return Judged(why_not=f"needs_person.{stop.service}")
    effect = "neighbour_kept" if wish.who else "taken_back"
    return Judged(effect, stop=msgspec.structs.replace(stop, neighbour=wish.who))


def _judge_other_day(stop: Stop, wish: OtherDay, now: Now) -> Judged:
    if wish.slot == stop.slot:
        return Judged("as_it_is")
    if wish.slot.opens_ms <= now.domain_ms:
        return Judged(why_not="day_past")
    if wish.slot.opens_ms > now.domain_ms + FARTHEST_DAY_MS:
        return Judged(why_not="day_too_far")
    changed = msgspec.structs.replace(stop, slot=wish.slot, told=wish.slot, open_hours=None)
    return Judged("other_day", stop=changed, slot=wish.slot, told=wish.slot, is_put_off=True)


def _answer(said: SaidWish) -> Answer:
    return Answer(said.is_done, said.why_not, (said.wish_id, said.decision_id))
