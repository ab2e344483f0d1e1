"""Forget a person: at somebody's word, or when nothing has been delivered to them for as long as is kept.

Everything personal goes in one commit: what the books hold here, what the archives hold by the store (which sweeps
them by the same rules), what waits for agents that are away, and, by a word to every agent that had the stops, what
lies in the vans. The records stay: they never named anybody.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cloud_hub.amendments import Amendments
from cloud_hub.chains import Chains, Hand
from cloud_hub.events import Answer, ForgetAsked
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.mailbag import Mailbag
from cloud_hub.memory import Memory
from cloud_hub.nextstep import DECIDING
from cloud_hub.post import Post
from cloud_hub.traces import (
    SWEEP,
    Traces,
    scrubbed_amendment,
    scrubbed_command,
    scrubbed_order,
    scrubbed_plan,
    scrubbed_visit,
)
from shared.messages import PersonForgotten
from shared.steps import Now, Row
from shared.work import AgentId, OrderId, StopId

DAY_MS = 24 * 3_600_000

MOST_AT_ONCE = 500
"""Orders forgotten in one step, so that no commit holds up the vans."""

STAYS = "what happened stays on record, who it was does not"
NOBODY = "\0"
"""Begins the name under which an order without a customer is looked at; no reference has it."""


class Forgetting:
    """Who is forgotten, when, and everything that has to go with them."""

    def __init__(
        self, memory: Memory, chains: Chains, post: Post, mailbag: Mailbag, amendments: Amendments, keep_days: int
    ) -> None:
        """`keep_days` is how long a customer is remembered after the last order has ended; 0 for ever."""
        self._memory = memory
        self._chains = chains
        self._post = post
        self._mailbag = mailbag
        self._amendments = amendments
        self._keep_days = keep_days
        self._next_look_ms = 0

    def asked(self, event: ForgetAsked, now: Now) -> Answer:
        """Forget this customer now. Refused while something is still to be delivered to them, unless `even_open`: then
        that is withdrawn from its van first.
        """
        orders = [order for order in self._memory.orders.values() if order.customer_ref == event.customer_ref]
        if not event.customer_ref or (event.customer_ref not in self._memory.customers and not orders):
            return Answer(False, "no such customer is known; it may have been forgotten before")
        still_open = [order for order in orders if self._is_open(order)]
        if still_open and not event.even_open:
            named = ", ".join(order.order_id for order in still_open)
            return Answer(False, f"still to be delivered: {named}; wait for it, or forget even what is open")
        for order in still_open:
            why_not = self._withdraw(order, now)
            if why_not:
                return Answer(False, f"order {order.order_id} cannot be withdrawn now: {why_not}; ask again later")
        decision = self._chains.decide(
            now,
            "person_forgotten",
            f"A customer was forgotten, with {len(orders)} orders.",
            f"{self._chains.person(event.by)} asked",
            verdict=STAYS,
            hand=Hand(event.by),
        )
        self._forget([event.customer_ref], orders, now)
        return Answer(True, named=(decision.decision_id, *(order.order_id for order in orders)))

    def look(self, now: Now) -> None:
        """Once a day, and when the hub starts: forget whom nothing has been delivered to for too long, and who decided
        something so long ago.
        """
        if not self._keep_days or now.domain_ms < self._next_look_ms:
            return
        self._next_look_ms = now.domain_ms + DAY_MS
        before_ms = now.domain_ms - self._keep_days * DAY_MS
        self._sweep(Traces(before_ms=max(0, before_ms)))
        refs: list[str] = []
        orders: list[Order] = []
        for ref, theirs in self._overdue(before_ms):
            if len(orders) + len(theirs) > MOST_AT_ONCE and orders:
                self._next_look_ms = now.domain_ms  # The others go with the next step.
                break
            refs += [ref] if ref else []
            orders += theirs
        if not orders:
            return
        self._chains.decide(
            now,
            "person_forgotten",
            f"{len(refs)} customers were forgotten, with {len(orders)} orders: the last of each ended more than "
            f"{self._keep_days} days ago.",
            f"what is personal is kept for {self._keep_days} days",
            verdict=STAYS,
        )
        self._forget(refs, orders, now)

    def wake_ms(self) -> int | None:
        """When to look again; None when people are remembered for ever."""
        return self._next_look_ms if self._keep_days else None

    # Who.

    def _overdue(self, before_ms: int) -> Iterable[tuple[str, list[Order]]]:
        """Customers whose last order ended too long ago, each with all their orders; an order that names no customer
        stands for itself.
        """
        theirs: dict[str, list[Order]] = {}
        for order_id, order in self._memory.orders.items():
            if not order.is_forgotten:
                theirs.setdefault(order.customer_ref or f"{NOBODY}{order_id}", []).append(order)
        for ref, orders in theirs.items():
            if all(self._ended_ms(order) < before_ms and not self._is_driven(order) for order in orders):
                yield "" if ref.startswith(NOBODY) else ref, orders

    def _ended_ms(self, order: Order) -> int:
        """When an order was over: after its slot, its last visit, and its arrival here."""
        slots = [stop.slot.closes_ms for stop in (order.stop, *order.amended) if stop is not None]
        visits = [visit.left_ms for record in self._records(order) for visit in record.visits]
        return max([order.received_ms, *slots, *visits])

    def _is_driven(self, order: Order) -> bool:
        """Whether a van has it on board or in its plan."""
        return any(record.agent and record.state != "done" for record in self._records(order))

    def _is_open(self, order: Order) -> bool:
        """Whether something of it is still to be delivered, or to be cleared up before it can be."""
        records = self._records(order)
        if order.state in ("refused", "returning"):
            return self._is_driven(order)
        return not records or any(record.state != "done" or record.next_step == DECIDING for record in records)

    def _records(self, order: Order) -> list[StopRecord]:
        named = {stop.stop_id: None for stop in (order.stop, *order.amended) if stop is not None}
        found = (self._memory.stops.get(stop_id) for stop_id in named)
        return [record for record in found if record is not None]

    def _withdraw(self, order: Order, now: Now) -> str:
        """Have the van that has this order leave it out; why it cannot, in words, "" when it will."""
        for record in self._records(order):
            if record.next_step == DECIDING:
                return "how it goes on after a failed visit is being decided"
            if not record.agent or record.state == "done" or record.is_leaving:
                continue
            why_not = self._amendments.amend(
                record.agent, withdrawn=(record.stop_id,), why="its customer is forgotten", now=now
            )
            if why_not is not None:
                return why_not
        return ""

    # Forgetting.

    def _forget(self, refs: Sequence[str], orders: Sequence[Order], now: Now) -> None:
        memory = self._memory
        order_ids = {order.order_id: None for order in orders}
        records = [record for order in orders for record in self._records(order)]
        traces = self._traces(orders)
        stop_ids = traces.stop_ids
        vans = self._vans(orders, stop_ids)
        for ref in refs:
            memory.customers.drop(ref)
        for order in orders:
            left = scrubbed_order(order)
            is_open = self._is_open(order)
            memory.orders.put(order.order_id, msgspec.structs.replace(left, state="refused") if is_open else left)
        for record in records:
            why = "" if record.state == "done" else "its customer is forgotten"
            memory.change_stop(record, visits=tuple(map(scrubbed_visit, record.visits)), why_waiting=why)
        for order_id in order_ids:
            self._mailbag.forget(order_id, now)
        self._clear_books(order_ids, stop_ids)
        self._post.unsay(lambda command: scrubbed_command(command, stop_ids))
        for van, theirs in vans.items():
            self._post.say(van, PersonForgotten(tuple(theirs)), now)
        self._sweep(traces)
        memory.counts["people_forgotten"] += len(refs)

    def _sweep(self, traces: Traces) -> None:
        self._memory.keep([Row(SWEEP, "", msgspec.json.encode(traces, order="deterministic"))])

    def _traces(self, orders: Sequence[Order]) -> Traces:
        stops = [stop for order in orders for stop in (order.stop, *order.amended) if stop is not None]
        order_ids = {order.order_id for order in orders}
        # Somebody else may live there whose address was corrected too: that correction is theirs as well.
        others = {
            stop.position
            for order in self._memory.orders.values()
            for stop in (order.stop, *order.amended)
            if stop is not None and order.order_id not in order_ids
        }
        return Traces(
            frozenset(order_ids),
            frozenset(stop_id for order in orders for stop_id in order.visits),
            tuple(dict.fromkeys(stop.position for stop in stops if stop.position not in others)),
        )

    def _vans(self, orders: Sequence[Order], stop_ids: frozenset[str]) -> dict[AgentId, dict[StopId, None]]:
        """Every agent that ever had a visit of these orders, and all visits of those: what was left out, put off or
        left undone may still lie on its disk.
        """
        found: dict[AgentId, dict[StopId, None]] = {}
        for order in orders:
            visits = dict.fromkeys(order.visits)
            for record in self._records(order):
                promise = self._memory.promises.get(record.stop_id)
                for agent in (*record.had_by, record.agent, AgentId("") if promise is None else promise.agent):
                    found.setdefault(agent, {}).update(visits)
        for plan in self._memory.plans.values():
            for stop in plan.stops:
                if stop.stop_id in stop_ids:
                    found.setdefault(plan.agent, {})[stop.stop_id] = None
        return {agent: found[agent] for agent in sorted(found) if agent in self._memory.agents}

    def _clear_books(self, order_ids: Mapping[OrderId, None], stop_ids: frozenset[str]) -> None:
        memory = self._memory
        for key, wish in list(memory.said_wishes.items()):
            if wish.order_id in order_ids:
                memory.said_wishes.drop(key)
        for key, plan in list(memory.plans.items()):
            memory.plans.put(key, scrubbed_plan(plan, stop_ids))
        for key, amendment in list(memory.amendments.items()):
            memory.amendments.put(key, scrubbed_amendment(amendment, stop_ids))
