"""Grant what a customer asks of a delivery if it can still be done, and say truthfully when it cannot.

A wish is judged against what is sold and where the van is, put into effect at once, and answered with a code the
tracking page has words for. The record of it names the wish and what came of it; the words themselves are personal and
stay in a room of their own.
"""

from collections.abc import Callable

import msgspec

from cloud_hub import planning, promises
from cloud_hub.addressbook import AddressBook
from cloud_hub.amendments import Amendments
from cloud_hub.chains import Chains
from cloud_hub.contacts import Customer
from cloud_hub.contacts import Wishes as Preferences
from cloud_hub.events import Answer
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.mailbag import Mailbag
from cloud_hub.memory import Memory
from cloud_hub.promises import Promise, Rule
from cloud_hub.sayings import (
    DoorCode,
    Neighbour,
    NotHomeUntil,
    OnItsWay,
    OtherDay,
    SafePlace,
    SaidWish,
    Wish,
    WishSaid,
    wish_id,
)
from shared.ledger import Alternative, Input
from shared.messages import Estimate
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Now
from shared.work import OrderId, Stop, StopId

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

UNSURE_WIDTH_MIN = 120
"""Where a visit that was put back comes in the van's new order nobody knows yet; the van says so within minutes."""

NEEDS_A_PERSON = frozenset({"signature", "age_check", "collection"})

REFUSALS = {"StopUnderWay": "under_way", "StopDone": "over", "ShiftEnded": "over", "NotItsWork": "being_planned"}
"""Refusals of `cloud_hub.amendments`, as the page has words for them."""

ASKED = {
    NotHomeUntil: "a later hour",
    SafePlace: "a safe place",
    Neighbour: "a neighbour",
    OtherDay: "another day",
    DoorCode: "a door code",
    OnItsWay: "word when it is on its way",
}
"""What was asked for, as records call it; the customer's own words are in none."""


class Judged(msgspec.Struct, frozen=True):
    """What a wish comes to: an effect, or why not. `stop` is what the visit becomes, None when it stays as it is.

    `told` is the window to tell, None when nobody has been told one yet.
    """

    effect: str = ""
    why_not: str = ""
    stop: Stop | None = None
    told: TimeWindow | None = None


class Wishes:
    """What customers have asked for, and what came of it."""

    def __init__(
        self,
        memory: Memory,
        chains: Chains,
        book: AddressBook,
        mailbag: Mailbag,
        amendments: Amendments,
        rule: Rule,
        clock_face: Callable[[int], str],
    ) -> None:
        self._memory = memory
        self._chains = chains
        self._book = book
        self._mailbag = mailbag
        self._amendments = amendments
        self._rule = rule
        self._clock = clock_face

    def said(self, event: WishSaid, now: Now) -> Answer:
        """Answer a wish: what came of it is done when the answer leaves. `named` holds the ids of wish and record."""
        order = self._memory.orders.get(event.order_id)
        stop_id = None if order is None else last_visit(order)
        if order is None or order.is_forgotten or stop_id is None or stop_id not in self._memory.stops:
            return Answer(False, "no_visit")
        recent = [wish for wish in self._of(order.order_id) if wish.said_ms > now.domain_ms - DAY_MS]
        if recent and recent[-1].wish == event.wish and recent[-1].said_ms > now.domain_ms - SAME_AGAIN_MS:
            return _answer(recent[-1])
        if len(recent) >= MOST_A_DAY:
            self._memory.counts["wishes.too_many"] += 1
            return Answer(False, "too_many")
        stop = self._amendments.stop_now(stop_id)
        if stop is None:
            return Answer(False, "no_visit")
        record = self._memory.stops[stop_id]
        judged = self._judge(order, stop, record, event.wish, now)
        decision_id = self._write_down(record, event.wish, judged, now)
        overruled = self._do(stop, event.wish, judged, decision_id, now)
        if overruled:
            judged = Judged(why_not=overruled)
            decision_id = self._write_down(record, event.wish, judged, now)
        self._remember(order, event.wish, judged)
        return self._keep(order, event.wish, judged, decision_id, now)

    def _of(self, order_id: OrderId) -> list[SaidWish]:
        found: list[SaidWish] = []
        while (said := self._memory.said_wishes.get(wish_id(order_id, len(found) + 1))) is not None:
            found.append(said)
        return found

    # Judging.

    def _judge(self, order: Order, stop: Stop, record: StopRecord, wish: Wish, now: Now) -> Judged:
        if isinstance(wish, OnItsWay):
            return self._judge_on_its_way(order, wish)
        why_not = self._why_too_late(record)
        if isinstance(wish, OtherDay) and record.state in ("heading", "arrived"):
            return _judge_other_day(stop, wish, now, "if_missed")
        if why_not:
            return Judged(why_not=why_not)
        if isinstance(wish, DoorCode):
            effect = "code_kept" if wish.code else "taken_back"
            return Judged(effect, stop=msgspec.structs.replace(stop, door_code=wish.code))
        if isinstance(wish, SafePlace):
            return self._judge_safe_place(stop, wish)
        if isinstance(wish, Neighbour):
            return _judge_neighbour(stop, wish)
        if isinstance(wish, NotHomeUntil):
            return self._judge_not_home(order, stop, record, wish, now)
        return _judge_other_day(stop, wish, now, "other_day")

    def _why_too_late(self, record: StopRecord) -> str:
        """Why this visit can be changed no more; "" when it can."""
        if record.is_leaving:
            return "being_planned"
        agent = self._memory.agents.get(record.agent)
        has_gone_home = record.state == "planned" and agent is not None and agent.shift == "ended"
        by_state = {"done": "over", "arrived": "at_the_door", "heading": "under_way"}
        return "over" if has_gone_home else by_state.get(record.state, "")

    def _judge_on_its_way(self, order: Order, wish: OnItsWay) -> Judged:
        customer = self._book.of_order(order.order_id)
        if wish.is_wanted and (customer is None or not (customer.may_be_told("email") or customer.may_be_told("sms"))):
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

    def _judge_not_home(self, order: Order, stop: Stop, record: StopRecord, wish: NotHomeUntil, now: Now) -> Judged:
        if wish.at_ms <= now.domain_ms:
            return Judged(why_not="time_past")
        # An hour said before may be taken back as far as the slot that was sold; of other days only what is agreed.
        is_as_sold = order.stop is not None and order.stop.slot.closes_ms == stop.slot.closes_ms
        slot = order.stop.slot if is_as_sold and order.stop is not None else stop.slot
        there = planning.window_of(msgspec.structs.replace(stop, slot=slot))
        plan = self._memory.plans.get(record.agent)
        ends_ms = there.closes_ms if plan is None else min(there.closes_ms, plan.shift_end_ms)
        if wish.at_ms > ends_ms - LEAST_LEFT_MS:
            return Judged(why_not="too_late_today")
        hours = TimeWindow(max(wish.at_ms, there.opens_ms), slot.closes_ms)
        if hours.opens_ms == max(stop.slot.opens_ms, there.opens_ms):
            return Judged("as_it_is")
        promise = self._memory.promises.get(stop.stop_id)
        told = None if promise is None else told_from(promise, hours, self._estimate(record), self._rule)
        return Judged("not_before", stop=msgspec.structs.replace(stop, slot=hours, told=told or hours), told=told)

    def _estimate(self, record: StopRecord) -> Estimate | None:
        heard = self._memory.estimates.get(record.agent)
        expected = () if heard is None else heard.estimates
        return next((estimate for estimate in expected if estimate.stop_id == record.stop_id), None)

    # Doing.

    def _do(self, stop: Stop, wish: Wish, judged: Judged, decision_id: str, now: Now) -> str:
        """Put a judgement into effect and tell who must know. Why the plan overruled it; "" when it did not."""
        changed = judged.stop
        if changed is None or changed == stop:
            return ""
        before = self._memory.promises.get(stop.stop_id)
        why = f"the customer asked for {ASKED[type(wish)]}"
        if isinstance(wish, OtherDay):
            refusal = self._amendments.postpone(stop.stop_id, changed.slot, why=why, now=now, decision_id=decision_id)
        else:
            refusal = self._amendments.change(changed, why=why, now=now, decision_id=decision_id)
        if refusal is not None:
            # A visit under way is not put off, but remembered for when it fails.
            is_remembered = judged.effect == "if_missed" and refusal.startswith("StopUnderWay")
            return "" if is_remembered else REFUSALS.get(refusal.partition(":")[0], "other")
        if before is not None and changed.told != before.told:
            self._tell(before, changed, decision_id, now)
        return ""

    def _tell(self, before: Promise, changed: Stop, decision_id: str, now: Now) -> None:
        """Have the customer told the hours they have just asked for, as they are told every other change."""
        told, is_today = changed.told, changed.slot.closes_ms == before.slot.closes_ms
        promise = msgspec.structs.replace(before, slot=changed.slot)
        promise = promises.told_again(promise, told, "by_hand", now.domain_ms, decision_id, "customer_asked")
        hours = f"{self._clock(told.opens_ms)}-{self._clock(told.closes_ms)}"
        sentence = f"Order {before.order_id} comes {'' if is_today else 'another day, '}{hours}, as its customer asked."
        self._mailbag.put(promise, "changed", sentence, decision_id, now, why="customer_asked")
        if is_today:
            self._memory.promises.put(promise.stop_id, promise)

    def _remember(self, order: Order, wish: Wish, judged: Judged) -> None:
        """What is asked for this and every later order becomes a preference of the customer.

        A code that came too late for this visit still opens the door the next time.
        """
        is_too_late = isinstance(wish, DoorCode) and judged.why_not in ("under_way", "at_the_door", "over")
        if judged.why_not and not is_too_late:
            return
        reference = self._book.reference(order.order_id)
        customer = self._memory.customers.get(reference) or Customer(reference)
        wishes = preferred(customer.wishes, wish)
        if wishes != customer.wishes:
            self._memory.customers.put(reference, msgspec.structs.replace(customer, wishes=wishes))

    def _write_down(self, record: StopRecord, wish: Wish, judged: Judged, now: Now) -> str:
        """The record of a wish, which holds no word of the customer's. Returns its id."""
        asked = ASKED[type(wish)]
        verdict = f"not possible: {judged.why_not}" if judged.why_not else f"granted: {judged.effect}"
        return self._chains.decide(
            now,
            "customer_wish",
            f"The customer of order {record.order_id} asked for {asked}; {verdict}.",
            "the customer said so on the tracking page",
            inputs=(Input("visit", record.state),),
            alternatives=(Alternative("leave it as it is", 0.0), Alternative(f"grant {asked}", 0.0)),
            chosen=int(not judged.why_not),
            verdict=verdict,
            about=tuple(word for word in (record.order_id, record.stop_id, record.agent) if word),
        ).decision_id

    def _keep(self, order: Order, wish: Wish, judged: Judged, decision_id: str, now: Now) -> Answer:
        said = SaidWish(
            wish_id(order.order_id, len(self._of(order.order_id)) + 1), order.order_id,
            self._book.reference(order.order_id), now.domain_ms, wish, judged.effect, judged.why_not, judged.told,
            decision_id,
        )  # fmt: skip
        self._memory.said_wishes.put(said.wish_id, said)
        self._memory.counts[f"wishes.{'refused' if judged.why_not else 'granted'}"] += 1
        return _answer(said)


def last_visit(order: Order) -> StopId | None:
    """The visit a customer speaks of: the sold one, or the one that follows the last failed attempt."""
    visits = (*((order.stop,) if order.stop is not None else ()), *order.amended)
    last = max(visits, key=lambda stop: stop.attempt, default=None)
    return None if last is None else last.stop_id


def told_from(promise: Promise, hours: TimeWindow, estimate: Estimate | None, rule: Rule) -> TimeWindow:
    """The window to tell when service may begin within `hours` only: the one told already if it lies there, else a
    wide one around the expected arrival, which waits for the hours to begin.
    """
    if promise.told.within(hours):
        return promise.told
    middle_ms = EpochMs((promise.told.opens_ms + promise.told.closes_ms) // 2)
    heard = estimate or Estimate(promise.stop_id, promise.told.opens_ms, middle_ms, promise.told.closes_ms)
    wide = msgspec.structs.replace(rule, first_width_min=max(rule.first_width_min, UNSURE_WIDTH_MIN))
    p50_ms = max(heard.p50_ms, hours.opens_ms)
    p90_ms = EpochMs(p50_ms + heard.p90_ms - heard.p50_ms)
    waiting = Estimate(promise.stop_id, max(heard.p10_ms, hours.opens_ms), p50_ms, p90_ms)
    return promises.first_told(hours, waiting, wide)


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


def _judge_other_day(stop: Stop, wish: OtherDay, now: Now, effect: str) -> Judged:
    if wish.slot == stop.slot:
        return Judged("as_it_is")
    if wish.slot.opens_ms <= now.domain_ms:
        return Judged(why_not="day_past")
    if wish.slot.opens_ms > now.domain_ms + FARTHEST_DAY_MS:
        return Judged(why_not="day_too_far")
    changed = msgspec.structs.replace(stop, slot=wish.slot, told=wish.slot)
    return Judged(effect, stop=changed, told=wish.slot)


def _answer(said: SaidWish) -> Answer:
    return Answer(said.is_done, said.why_not, (said.wish_id, said.decision_id))
