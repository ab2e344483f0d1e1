"""What of the hub's books a caller may see: everything, what belongs to some depots, or a partner's own orders.

To which depot something belongs:

- a vehicle: to the depot it loads at; so its agent, plan, estimates, readings, chain and dead letters;
- an order: to the depots of every vehicle that has or had one of its visits, and to those of whoever handed it in. What
  nobody bound to a depot handed in, and no vehicle has been given yet, belongs to no depot: only people who are not
  bound see it, so that nobody takes it for theirs before the plan has decided;
- a stop, promise, notice, receipt, wish: as its order; a customer: as any of their orders;
- a decision: as the orders, stops and vehicles it is about, or the vehicle that took it;
- closed streets: to everybody.

A partner sees the orders that carry its name, and what hangs on them.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from cloud_hub.access.roles import Caller
from cloud_hub.fleet import Order, StopRecord, Vehicle


class Reads(Protocol):
    """Where documents are read."""

    def documents(self, room: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """Everything in a room whose key begins so."""
        ...

    def document(self, room: str, key: str) -> bytes | None:
        """One document; None when there is none."""
        ...


class _Named(msgspec.Struct, frozen=True):
    """The names a document may carry of what it belongs to."""

    order_id: str = ""
    stop_id: str = ""
    agent: str = ""
    sender: str = ""
    node: str = ""


class _Told(msgspec.Struct, frozen=True):
    """What a decision says it is about."""

    by: str = ""
    about: tuple[str, ...] = ()


class _Kept(msgspec.Struct, frozen=True):
    decision: _Told


_vehicle = msgspec.json.Decoder(Vehicle)
_order = msgspec.json.Decoder(Order)
_record = msgspec.json.Decoder(StopRecord)
_named = msgspec.json.Decoder(_Named)
_kept = msgspec.json.Decoder(_Kept)

BY_AGENT = frozenset({"vehicles", "agents", "plans", "estimates", "chains"})
"""Rooms whose key is an agent's name."""

BY_ORDER = frozenset({"stops", "promises", "notices", "notices_due", "receipts", "said_wishes"})
"""Rooms whose documents name an order."""

FOR_EVERYBODY = frozenset({"roads", "depots", "needs", "hub", "hands"})
"""Nobody's in particular; `hands` are shown beside decisions only."""


class Sight:
    """One caller's view of a store, as it is while one request is answered. Not for several threads at once."""

    def __init__(self, caller: Caller, store: Reads) -> None:
        self._caller = caller
        self._store = store
        self._agents: frozenset[str] | None = None
        self._orders: dict[str, bool] = {}

    def afresh(self) -> "Sight":
        """The same caller's view as things stand now."""
        return Sight(self._caller, self._store)

    @property
    def is_bound(self) -> bool:
        """Whether anything is hidden at all."""
        return self._caller.is_bound

    @property
    def is_partners(self) -> bool:
        """Whether a partner looks: estimates are ours, windows are theirs to know."""
        return self._caller.role == "partner"

    def sees(self, room: str, key: str, document: bytes) -> bool:
        """Whether this document of a room is the caller's to see."""
        if not self.is_bound:
            return True
        if room == "orders":
            return self._sees_order_document(key, document)
        if room in BY_ORDER:
            return self.sees_order(_named.decode(document).order_id)
        if room == "customers":
            return self.sees_customer(key)
        if room == "decisions":
            return self.sees_decision(document)
        if room == "objects":
            return self.sees_stop(_named.decode(document).stop_id)
        if self.is_partners:
            return False
        if room in BY_AGENT:
            return self.sees_agent(key)
        if room == "depots":
            return self.sees_depot(key)
        if room in ("dead_letters", "gaps"):
            return self.sees_agent(_named.decode(document).sender)
        if room in ("plan_history", "amendments"):
            return self.sees_agent(_named.decode(document).agent)
        return room in FOR_EVERYBODY

    def sees_depot(self, depot_id: str) -> bool:
        """Whether a depot is one of the caller's."""
        depots = self._caller.depots
        return not self.is_partners and (depots is None or depot_id in depots)

    def sees_agent(self, agent: str) -> bool:
        """Whether a vehicle loads at one of the caller's depots."""
        if not self.is_bound:
            return True
        if self._agents is None:
            found = (_vehicle.decode(document) for _, document in self._store.documents("vehicles"))
            self._agents = frozenset(vehicle.agent for vehicle in found if self.sees_depot(vehicle.depot_id))
        return agent in self._agents

    def sees_order(self, order_id: str) -> bool:
        """Whether an order is the caller's; one that does not exist is nobody's."""
        if not self.is_bound:
            return True
        if order_id not in self._orders:
            document = self._store.document("orders", order_id)
            if document is None:
                return False
            return self._sees_order_document(order_id, document)
        return self._orders[order_id]

    def sees_customer(self, ref: str) -> bool:
        """Whether an order of this customer is the caller's."""
        if not self.is_bound:
            return True
        orders = ((key, document) for key, document in self._store.documents("orders"))
        return any(
            self._sees_order_document(key, document) for key, document in orders if _customer_of(document, key) == ref
        )

    def sees_decision(self, document: bytes) -> bool:
        """Whether a kept decision is about anything of the caller's."""
        if not self.is_bound:
            return True
        told = _kept.decode(document).decision
        return self.sees_any((*told.about, told.by))

    def sees_any(self, words: Iterable[str]) -> bool:
        """Whether one of these names an order, a stop or a vehicle of the caller's."""
        for word in words:
            if self.sees_order(word) or (not self.is_partners and self.sees_agent(word)):
                return True
            if self.sees_stop(word):
                return True
        return False

    def sees_stop(self, stop_id: str) -> bool:
        """Whether a visit is of an order of the caller's."""
        if not self.is_bound:
            return True
        document = self._store.document("stops", stop_id)
        return document is not None and self.sees_order(_named.decode(document).order_id)

    def _sees_order_document(self, order_id: str, document: bytes) -> bool:
        if order_id not in self._orders:
            self._orders[order_id] = self._is_theirs(_order.decode(document))
        return self._orders[order_id]

    def _is_theirs(self, order: Order) -> bool:
        if self.is_partners:
            return bool(self._caller.partner) and order.partner == self._caller.partner
        depots = self._caller.depots or ()
        if any(depot in depots for depot in order.depots):
            return True
        for stop_id in order.visits:
            document = self._store.document("stops", stop_id)
            record = None if document is None else _record.decode(document)
            if record is not None and any(self.sees_agent(agent) for agent in (record.agent, *record.had_by) if agent):
                return True
        return False


def _customer_of(document: bytes, key: str) -> str:
    return _order.decode(document).customer_ref or key
