"""Take orders in and let people correct where they go, until they are planned."""

from collections.abc import Callable, Sequence

import msgspec

from cloud_hub.addressbook import AddressBook
from cloud_hub.chains import Chains, Hand
from cloud_hub.contacts import Customer
from cloud_hub.events import Answer, OrderCorrected, OrdersHanded
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.memory import Memory
from shared.steps import Now, Row
from shared.work import StopId

FORGOTTEN = "it is the number of an order whose customer was forgotten"
A_CUSTOMERS = "it names no customer, and its own number is the customer_ref of other orders"
A_GUESTS = "its customer_ref is the number of an order that names no customer"
ANOTHERS = "its number is that of somebody else's order"
ANOTHERS_CUSTOMER = "its customer_ref is that of somebody else's customer"


class OrderBook:
    """What was sold. An order may be replaced while it waits; once planned it is somebody's work."""

    def __init__(self, memory: Memory, chains: Chains, book: AddressBook) -> None:
        self._memory = memory
        self._chains = chains
        self._book = book

    def handed(self, event: OrdersHanded, now: Now) -> Answer:
        """Take these orders, each unless it is planned already with other contents, and what is said of customers.

        A shop hands in yesterday's file again: whoever was forgotten stays so, and a link given for that order then
        leads to nobody else's. An order without a customer has its own number for one: when somebody else's customer
        has that number too, what is said to one would reach the other.
        """
        taken: list[str] = []
        objections = self._who_is_meant(event.orders)
        refused = [(str(order.order_id), why) for order in event.orders if (why := objections(order))]
        orders = [order for order in event.orders if not objections(order)]
        two_people = {str(order.order_id) for order in event.orders if objections(order) == A_CUSTOMERS}
        self._book.handed(one for one in _customers_of(orders, event) if one.customer_ref not in two_people)
        for order in self._book.with_wishes(orders):
            known = self._memory.orders.get(order.order_id)
            why_not = self._why_fixed(order)
            if known is not None and known.state == "accepted" and known.fingerprint == order.fingerprint:
                taken.append(order.order_id)
            elif why_not:
                refused.append((order.order_id, f"it {why_not}"))
            else:
                self._keep(order, now)
                taken.append(order.order_id)
        return Answer(True, named=tuple(taken), refused=tuple(refused))

    def corrected(self, event: OrderCorrected, now: Now) -> Answer:
        """A person says where an order goes; the address is remembered for the next one."""
        (order,) = self._book.with_wishes((event.order,))
        known = self._memory.orders.get(order.order_id)
        if known is None:
            return Answer(False, f"order '{order.order_id}' is unknown")
        why_not = self._why_fixed(order)
        if why_not:
            return Answer(False, f"order '{order.order_id}' {why_not}")
        if event.remembered is not None:
            text, place = event.remembered
            self._memory.keep([Row("corrections", text, place.encode())])
        self._keep(order, now)
        # No address here: the record is chained and kept for good, and where somebody lives is personal.
        self._chains.decide(
            now,
            "order_corrected",
            f"{self._chains.person(event.by)} said where order {order.order_id} goes.",
            "its place was in doubt" if known.doubts else "a person asked",
            about=(order.order_id,),
            verdict="a person's word",
            hand=Hand(event.by),
        )
        return Answer(True, named=(order.order_id,))

    def _who_is_meant(self, handed: Sequence[Order]) -> Callable[[Order], str]:
        """What is wrong with who an order is for; "" when nothing is."""
        known = [order for order in self._memory.orders.values() if not order.is_forgotten]
        named = {order.customer_ref for order in (*known, *handed) if _names_its_customer(order)}
        for_themselves = {str(order.order_id) for order in known if not _names_its_customer(order)}
        forgotten = {order.order_id for order in self._memory.orders.values() if order.is_forgotten}
        partners = {str(order.order_id): order.partner for order in known}
        theirs = {(order.partner, order.customer_ref or str(order.order_id)) for order in known if order.partner}
        customers = {order.customer_ref or str(order.order_id) for order in known}

        def objection(order: Order) -> str:
            if order.order_id in forgotten:
                return FORGOTTEN
            if partners.get(order.order_id, order.partner) != order.partner:
                return ANOTHERS
            reference = order.customer_ref or str(order.order_id)
            is_known = reference in customers or reference in self._memory.customers
            if order.partner and is_known and (order.partner, reference) not in theirs:
                # What a shop says of a customer decides where messages go: it may not say it of another shop's.
                return ANOTHERS_CUSTOMER
            if _names_its_customer(order):
                return A_GUESTS if order.customer_ref in for_themselves else ""
            return A_CUSTOMERS if order.order_id in named else ""

        return objection

    def _why_fixed(self, order: Order) -> str:
        """Why this order can no longer be changed; "" when it can."""
        stop = self._memory.stops.get(order.stop.stop_id if order.stop is not None else StopId(order.order_id))
        if stop is None or stop.state == "waiting":
            return ""
        return f"is already {stop.state} with {stop.agent}"

    def _keep(self, order: Order, now: Now) -> None:
        known = self._memory.orders.get(order.order_id)
        former_visits = () if known is None else known.visits
        gone = tuple(visit for visit in former_visits if visit not in order.visits)
        self._memory.orders.put(order.order_id, msgspec.structs.replace(order, called_off=gone))
        if order.stop is not None and order.state == "accepted":
            stop_id = order.stop.stop_id
            former = self._memory.stops.get(stop_id)
            had_by = () if former is None else former.had_by
            record = StopRecord(stop_id, order.order_id, changed_ms=now.domain_ms, had_by=had_by)
            self._memory.stops.put(stop_id, record)


def _names_its_customer(order: Order) -> bool:
    return order.customer_ref not in ("", order.order_id)


def _customers_of(orders: Sequence[Order], event: OrdersHanded) -> list[Customer]:
    """What is said of customers, without those who are named by forgotten orders alone."""
    named = {order.customer_ref or order.order_id for order in orders}
    gone = {order.customer_ref or order.order_id for order in event.orders} - named
    return [customer for customer in event.customers if customer.customer_ref not in gone]
