"""Notices on their way to customers: which channel is next, when it may be used, and what came of every attempt.

A notice leaves by the first channel that is on, reaches the customer and was agreed to; when that fails for good or too
often, the next one is tried. It waits while people sleep, and goes no further once a newer one of its order has made it
useless or its window is over.
"""

from collections.abc import Callable, Iterable

import msgspec

from cloud_hub.addressbook import AddressBook
from cloud_hub.attempts import Attempts
from cloud_hub.contacts import Channel, Customer, NextStep, NoticeKind, Why
from cloud_hub.events import Notice, NoticeDelivered, NoticeFailed, NoticeState, NoticeWanted, Receipt
from cloud_hub.memory import Memory
from cloud_hub.notice_rules import NoticeRule, quiet_until
from cloud_hub.promises import Promise, how_sure
from shared.messages import Estimate
from shared.quantities import EpochMs
from shared.steps import JobFailed, Now
from shared.work import OrderId

AT_ONCE = 4
MOST_ATTEMPTS = 12
"""Twelve attempts that wait twice as long each time span about ten minutes: longer than a receiver's restart, shorter
than a window.
"""

MOST_WITH_ANOTHER = 7
"""With another channel left the customer need not wait for one that is down: seven attempts span some forty seconds."""


class Mailbag:
    """The notices that are due or wait. One that has left the bag stays in the store with what became of it."""

    def __init__(
        self,
        memory: Memory,
        attempts: Attempts,
        book: AddressBook,
        rule: NoticeRule,
        clock_face: Callable[[int], str],
    ) -> None:
        """While no channel is on, notices are only kept."""
        self._memory = memory
        self._attempts = attempts
        self._book = book
        self._rule = rule
        self._clock = clock_face
        waiting = sorted(memory.due_notices.values(), key=lambda notice: (notice.at_ms, notice.notice_id))
        self._ready = {notice.notice_id: None for notice in waiting if notice.state == "due"}
        self._asleep = {notice.notice_id: notice.not_before_ms or 0 for notice in waiting if notice.state != "due"}
        self._sending: dict[str, None] = {}
        self._of_order: dict[OrderId, set[str]] = {}
        for notice in waiting:
            self._of_order.setdefault(notice.order_id, set()).add(notice.notice_id)

    @property
    def rule(self) -> NoticeRule:
        """By which channels, and at what hours."""
        return self._rule

    def wants_near(self, order_id: OrderId) -> bool:
        """Whether this customer wants to be told that the van is on its way."""
        customer = self._customer(order_id)
        is_wanted = self._rule.on_its_way == "always" or customer.wishes.on_its_way
        return is_wanted and self._rule.on_its_way != "never" and "on_its_way" not in customer.opted_out

    def put(
        self,
        promise: Promise,
        kind: NoticeKind,
        sentence: str,
        decision_id: str,
        now: Now,
        *,
        why: Why = "",
        estimate: Estimate | None = None,
        next_step: NextStep = "",
        place: str = "",
    ) -> Notice:
        """Have this customer told the window of the promise, or what comes next after a missed visit.

        `sentence` is for whoever asks why at the hub; the customer reads the rest in words of their own language.
        """
        customer = self._customer(promise.order_id)
        number = len(promise.tellings) if kind in ("day", "changed") else kind
        notice = Notice(
            notice_id=".".join(str(part) for part in (promise.stop_id, number, decision_id) if part),
            kind=kind,
            order_id=promise.order_id,
            stop_id=promise.stop_id,
            agent=promise.agent,
            told=promise.told,
            slot=promise.slot,
            at_ms=now.domain_ms,
            sentence=sentence,
            decision_id=decision_id,
            customer_ref=customer.customer_ref,
            why=why,
            is_breach=kind == "changed" and promise.is_breached,
            sure_pct=None if estimate is None else how_sure(promise, estimate),
            expected_ms=None if estimate is None else estimate.p50_ms,
            next_step=next_step,
            place=place,
            needed_by_ms=_needed_by(promise, kind, next_step, now),
        )
        if kind == "changed" and self._has_unheard_day(promise):
            notice = _as_first(notice)
        self.over(promise.order_id, now)
        if self._memory.orders[promise.order_id].is_forgotten:
            return self._end(notice, "forgotten", "", now)
        channels, state, answer = self._way_to(notice, customer)
        notice = msgspec.structs.replace(notice, channels=channels)
        if state != "due":
            return self._end(notice, state, answer, now)
        return self._put(self._or_asleep(notice, now))

    def over(self, order_id: OrderId, now: Now) -> None:
        """What still waits for this order says nothing any more. One that is just being sent is left to its answer."""
        for notice_id in sorted(self._of_order.get(order_id, ())):
            if not self._attempts.is_running(notice_id):
                self._attempts.settle(notice_id)
                self._end(self._memory.due_notices[notice_id], "superseded", "something newer is known", now)

    def forget(self, order_id: OrderId, now: Now) -> None:
        """Nobody is left to tell: whatever waits for this order ends here, also what is just being sent."""
        for notice_id in sorted(self._of_order.get(order_id, ())):
            self._sending.pop(notice_id, None)
            self._attempts.settle(notice_id)
            self._end(self._memory.due_notices[notice_id], "forgotten", "", now)

    def jobs(self, now: Now) -> Iterable[NoticeWanted]:
        """Notices to send now."""
        self._wake_up(now)
        for key in () if len(self._sending) >= AT_ONCE else tuple(self._ready):
            if len(self._sending) >= AT_ONCE:
                return
            if not self._attempts.may_begin(key, now.real_ms):
                continue
            notice = self._memory.due_notices[key]
            if not self._of_order[notice.order_id].isdisjoint(self._sending):
                continue  # What one customer is told arrives in the order in which it is true.
            customer = self._customer(notice.order_id)
            channels, state, answer = self._way_to(notice, customer)
            if state == "due" and notice.kind != "missed" and notice.told.closes_ms < now.domain_ms:
                state, answer = "given_up", notice.last_answer or "its window was over before it could leave"
            if state != "due":
                self._attempts.settle(key)
                self._end(notice, "given_up" if notice.attempts and state == "kept" else state, answer, now)
                continue
            if channels != notice.channels:
                self._put(msgspec.structs.replace(notice, channels=channels))
            self._sending[key] = None
            order = self._memory.orders.get(notice.order_id)
            partner = "" if order is None else order.partner
            yield NoticeWanted(key, self._memory.due_notices[key], channels[0], customer, partner)

    def wake_ms(self) -> int | None:
        """When (domain time) the next notice has slept long enough; None when none sleeps."""
        return min(self._asleep.values(), default=None)

    def delivered(self, event: NoticeDelivered, now: Now) -> None:
        """The receiver has taken it."""
        self._sending.pop(event.need, None)
        self._attempts.settle(event.need)
        notice = self._memory.due_notices.get(event.need)
        if notice is None:
            return
        self._keep_receipt(notice, event, now)
        done = msgspec.structs.replace(notice, channel=notice.channels[0], attempts=notice.attempts + 1)
        self._end(done, "delivered", event.answer, now)

    def failed(self, event: NoticeFailed, now: Now) -> None:
        """The receiver did not take it: again later, by the next channel, or not at all any more."""
        self._sending.pop(event.need, None)
        notice = self._memory.due_notices.get(event.need)
        if notice is None:
            self._attempts.settle(event.need)
            return
        self._keep_receipt(notice, event, now)
        tried = msgspec.structs.replace(notice, attempts=notice.attempts + 1, last_answer=event.answer)
        most = MOST_ATTEMPTS if len(tried.channels) == 1 else MOST_WITH_ANOTHER
        if self._is_stale(tried):
            self._attempts.settle(event.need)
            self._end(tried, "superseded", event.answer, now)
            self._begin_with_the_next(tried)
        elif not event.is_final and tried.attempts < most:
            self._attempts.fail(event.need, now.real_ms)
            self._put(tried)
        else:
            self._attempts.settle(event.need)
            self._go_on(tried, now)

    def job_failed(self, event: JobFailed, now: Now) -> None:
        """The attempt itself broke: as good as an answer that never came."""
        self.failed(NoticeFailed(event.job.need, event.why, False), now)

    # Which way, and when.

    def _customer(self, order_id: OrderId) -> Customer:
        """Who waits for this order, if only by reference."""
        known = self._book.of_order(order_id)
        return known or Customer(self._book.reference(order_id), language=self._rule.language)

    def _way_to(self, notice: Notice, customer: Customer) -> tuple[tuple[Channel, ...], NoticeState, str]:
        """The channels left to try; without any, what becomes of the notice and why."""
        on = self._rule.channels_for(notice.kind)
        if not on:
            return (), "kept", "no channel is switched on"
        if notice.kind in customer.opted_out:
            return (), "opted_out", f"the customer wants no '{notice.kind}'"
        left = notice.channels or on
        channels = tuple(channel for channel in left if channel in on and customer.may_be_told(channel))
        if channels:
            return channels, "due", ""
        if customer.opted_out_channels:
            return (), "opted_out", f"the customer wants nothing by {', '.join(customer.opted_out_channels)}"
        return (), "kept", "no channel that is on reaches this customer, or none was agreed to"

    def _or_asleep(self, notice: Notice, now: Now) -> Notice:
        """The notice, to wait for the morning when it can."""
        ends_ms = quiet_until(now.domain_ms, self._rule, self._clock)
        if notice.channels[0] == "webhook" or ends_ms is None:
            return notice
        if notice.needed_by_ms is not None and notice.needed_by_ms < ends_ms:
            return notice
        return msgspec.structs.replace(notice, state="waiting_quiet", not_before_ms=ends_ms)

    def _wake_up(self, now: Now) -> None:
        for key in [key for key, not_before_ms in self._asleep.items() if not_before_ms <= now.domain_ms]:
            self._put(msgspec.structs.replace(self._memory.due_notices[key], state="due"))

    def _go_on(self, tried: Notice, now: Now) -> None:
        """By the next channel; given up when there is none."""
        left = tried.channels[1:]
        if not left:
            self._end(tried, "given_up", tried.last_answer, now)
            return
        self._memory.counts[f"notices.fell_back_to_{left[0]}"] += 1
        self._put(self._or_asleep(msgspec.structs.replace(tried, channels=left, attempts=0), now))

    def _has_unheard_day(self, promise: Promise) -> bool:
        """Whether the first window of this visit still waits to be told."""
        waiting = (self._memory.due_notices[key] for key in self._of_order.get(promise.order_id, ()))
        return any(
            notice.kind == "day" and notice.stop_id == promise.stop_id
            for notice in waiting
            if not self._attempts.is_running(notice.notice_id)
        )

    def _begin_with_the_next(self, unheard: Notice) -> None:
        """Who never heard the first window hears the newer one that waits as the first."""
        for key in sorted(self._of_order.get(unheard.order_id, ())) if unheard.kind == "day" else ():
            notice = self._memory.due_notices[key]
            is_news = notice.kind == "changed" and notice.stop_id == unheard.stop_id
            if is_news and not self._attempts.is_running(key):
                self._put(_as_first(notice))

    def _is_stale(self, notice: Notice) -> bool:
        """Whether something newer waits for this order, or the van has been there."""
        promise = self._memory.promises.get(notice.stop_id)
        is_served = promise is not None and promise.served_ms is not None and notice.kind != "missed"
        return is_served or len(self._of_order.get(notice.order_id, ())) > 1

    # Keeping.

    def _keep_receipt(self, notice: Notice, event: NoticeDelivered | NoticeFailed, now: Now) -> None:
        is_delivered = isinstance(event, NoticeDelivered)
        channel, attempt = notice.channels[0], notice.attempts + 1
        receipt = Receipt(
            notice.notice_id, notice.order_id, channel, attempt, now.domain_ms, is_delivered, event.answer,
            event.provider_id if isinstance(event, NoticeDelivered) else "",
        )  # fmt: skip
        self._memory.counts[f"notices.{channel}.{'delivered' if is_delivered else 'failed'}"] += 1
        self._memory.note("receipts", f"{notice.notice_id}/{channel}/{attempt:03d}", receipt)

    def _end(self, notice: Notice, state: NoticeState, answer: str, now: Now) -> Notice:
        self._memory.counts[f"notices.{state}"] += 1
        return self._put(
            msgspec.structs.replace(
                notice, state=state, channels=(), last_answer=answer, settled_ms=now.domain_ms, not_before_ms=None
            )
        )

    def _put(self, notice: Notice) -> Notice:
        key = notice.notice_id
        self._memory.note("notices", key, notice)
        self._ready.pop(key, None)
        self._asleep.pop(key, None)
        if notice.state in ("due", "waiting_quiet"):
            self._memory.due_notices.put(key, notice)
            self._of_order.setdefault(notice.order_id, set()).add(key)
            if notice.state == "due":
                self._ready[key] = None
            else:
                self._asleep[key] = notice.not_before_ms or 0
        else:
            self._memory.due_notices.drop(key)
            waiting = self._of_order.get(notice.order_id, set())
            waiting.discard(key)
            if not waiting:
                self._of_order.pop(notice.order_id, None)
        return notice


def _as_first(notice: Notice) -> Notice:
    """Who has not heard of the first window is not told that it changed, nor why."""
    return msgspec.structs.replace(notice, kind="day", why="")


def _needed_by(promise: Promise, kind: NoticeKind, next_step: NextStep, now: Now) -> EpochMs | None:
    """When the customer must know this at the latest; None when it can wait for the morning.

    Who was told to be at home from six must hear before six that it is nine now.
    """
    if kind == "on_its_way":
        return now.domain_ms
    if kind == "missed" and next_step != "today":
        return None
    windows = (promise.told, *(telling.told for telling in promise.tellings[-2:]))
    begins = [max(window.opens_ms, now.domain_ms) for window in windows if window.closes_ms >= now.domain_ms]
    return min(begins, default=now.domain_ms)
