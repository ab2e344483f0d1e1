"""Keep the book of customers: what the shop, a person at the hub or the customer says of how to be told."""

from collections.abc import Iterable

import msgspec

from cloud_hub.contacts import CHANNELS, NOTICE_KINDS, Customer, Wishes, merged
from cloud_hub.events import Answer, CustomerSaid, OptOutSaid
from cloud_hub.fleet import Order
from cloud_hub.memory import Memory
from shared.quantities import metres_between
from shared.steps import Now
from shared.work import OrderId, Stop

SAME_DOOR_M = 60.0
"""A door code is worth nothing at another door, and a stranger's neighbour there even less."""


class AddressBook:
    """Who the customers are, by `customer_ref`. An order that names none has its own number for one."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def of_order(self, order_id: OrderId) -> Customer | None:
        """Who waits for this order; None when nothing is known of anybody."""
        return self._memory.customers.get(self.reference(order_id))

    def reference(self, order_id: OrderId) -> str:
        """The reference of the customer of an order."""
        order = self._memory.orders.get(order_id)
        return (order.customer_ref if order is not None else "") or order_id

    def handed(self, customers: Iterable[Customer]) -> None:
        """What the shop says with its orders."""
        for said in customers:
            reference = said.customer_ref
            self._memory.customers.put(reference, merged(self._memory.customers.get(reference), said))

    def said(self, event: CustomerSaid, _: Now) -> Answer:
        """A person puts a customer's whole entry."""
        self._memory.customers.put(event.customer.customer_ref, event.customer)
        return Answer(True, named=(event.customer.customer_ref,))

    def opted_out(self, event: OptOutSaid, _: Now) -> Answer:
        """The customer wants less, or more again. What waits to leave is held against it when its time comes."""
        order = self._memory.orders.get(event.order_id)
        if order is None or order.is_forgotten:
            return Answer(False, f"order '{event.order_id}' is unknown")
        reference = self.reference(event.order_id)
        known = self._memory.customers.get(reference) or Customer(reference)
        everything = not event.kinds and not event.channels
        kinds = set(NOTICE_KINDS if everything else event.kinds)
        channels = set(() if everything and event.is_out else CHANNELS if everything else event.channels)
        self._memory.customers.put(
            reference,
            msgspec.structs.replace(
                known,
                opted_out=tuple(k for k in NOTICE_KINDS if _after(k in known.opted_out, k in kinds, event.is_out)),
                opted_out_channels=tuple(
                    c for c in CHANNELS if _after(c in known.opted_out_channels, c in channels, event.is_out)
                ),
            ),
        )
        self._memory.counts["opt_outs" if event.is_out else "opt_ins"] += 1
        return Answer(True, named=(reference,))

    def with_wishes(self, orders: Iterable[Order]) -> tuple[Order, ...]:
        """The orders with what their customers have wished at this door before, where the order itself says nothing.

        A customer who has had orders at other doors only has wished nothing for this one.
        """
        doors = self._known_doors()
        return tuple(self._wished(order, doors) for order in orders)

    def _known_doors(self) -> dict[str, list[Stop]]:
        doors: dict[str, list[Stop]] = {}
        for order in self._memory.orders.values():
            if order.stop is not None and order.customer_ref:
                doors.setdefault(order.customer_ref, []).append(order.stop)
        return doors

    def _wished(self, order: Order, doors: dict[str, list[Stop]]) -> Order:
        customer = self._memory.customers.get(order.customer_ref) if order.customer_ref else None
        stop = order.stop
        if customer is None or stop is None or customer.wishes == Wishes():
            return order
        known = doors.get(order.customer_ref, [])
        if known and all(metres_between(other.position, stop.position) > SAME_DOOR_M for other in known):
            return order
        wishes = customer.wishes
        wished = msgspec.structs.replace(
            stop,
            door_code=stop.door_code or wishes.door_code,
            safe_place=stop.safe_place or wishes.safe_place,
            neighbour=stop.neighbour or wishes.neighbour,
            note=stop.note or wishes.note,
        )
        return msgspec.structs.replace(order, stop=wished)


def _after(was: bool, is_named: bool, is_out: bool) -> bool:
    return is_out if is_named else was
