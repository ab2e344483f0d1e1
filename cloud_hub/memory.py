"""Everything the hub knows, book by book, and what of it must be committed with this step.

The hub's parts read and write here and hand no rows about. What is only ever added (decisions, notices, what an agent
said and could not be true) is noted; what changes is put into its book.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from cloud_hub.access.keys import KeyRecord
from cloud_hub.books import Book
from cloud_hub.contacts import Customer
from cloud_hub.events import Notice
from cloud_hub.fleet import AgentRecord, Amendment, Chain, Closures, EstimatesHeard, Order, StopRecord, Vehicle
from cloud_hub.promises import Promise
from cloud_hub.sayings import SaidWish
from shared.contracts import Plan
from shared.quantities import EpochMs
from shared.steps import Row, Saved
from shared.work import AgentId, Depot, Stop, StopId

ONLY_PAGE = "closures"
"""The book of closures has one page: all closed streets under one version."""


class Self(msgspec.Struct, frozen=True):
    """What the hub knows of itself: the life of its store, and how often it has started. `is_restored` until the first
    start after the store was restored from a backup.
    """

    boot: str
    epoch: int
    is_restored: bool = False


class PlanNeed(msgspec.Struct, frozen=True):
    """A day somebody asked to plan, until it is planned."""

    need: str
    day: str
    by: str
    asked_ms: EpochMs


class Memory:
    """The hub's books. One thing is known in one place, and every part of the core looks it up here."""

    def __init__(self, saved: Saved) -> None:
        """From everything the store holds, which is nothing at the first start."""
        self.itself = Book("hub", Self, saved)
        self.customers = Book("customers", Customer, saved)
        self.orders = Book("orders", Order, saved)
        self.stops = Book("stops", StopRecord, saved)
        self.vehicles = Book("vehicles", Vehicle, saved)
        self.depots = Book("depots", Depot, saved)
        self.agents = Book("agents", AgentRecord, saved)
        self.plans = Book("plans", Plan, saved)
        self.estimates = Book("estimates", EstimatesHeard, saved)
        self.promises = Book("promises", Promise, saved)
        self.closures = Book("roads", Closures, saved)
        self.needs = Book("needs", PlanNeed, saved)
        self.chains = Book("chains", Chain, saved)
        self.due_notices = Book("notices_due", Notice, saved)
        self.amendments = Book("amendments", Amendment, saved)
        self.said_wishes = Book("said_wishes", SaidWish, saved)
        self.keys = Book("keys", KeyRecord, saved)
        self._noted: list[Row] = []
        self.counts: Counter[str] = Counter()
        """What happened how often in this life, by name. Not kept."""
        self.detours_ms: dict[AgentId, EpochMs] = {}
        """When each agent was last told of other roads while a street is closed. Not kept: it explains minutes only."""

    @property
    def closed_streets(self) -> Closures:
        """The closed streets as they are now."""
        return self.closures[ONLY_PAGE]

    def note(self, room: str, key: str, fact: msgspec.Struct) -> None:
        """Have this fact committed; the core itself does not look it up again."""
        self.keep([Row(room, key, msgspec.json.encode(fact))])

    def keep(self, rows: Iterable[Row]) -> None:
        """Have these rows committed."""
        self._noted += rows

    def forget(self, room: str, key: str) -> None:
        """Have what this room holds under this key erased."""
        self.keep([Row(room, key, None)])

    def rows(self) -> list[Row]:
        """Everything noted or changed since this was last asked."""
        rows, self._noted = self._noted, []
        for book in self._books():
            rows += book.rows()
        return rows

    def change_agent(self, record: AgentRecord, **changes: Any) -> AgentRecord:
        """Put the record with these changes, and return it."""
        return self.agents.put(record.agent, msgspec.structs.replace(record, **changes))

    def change_stop(self, record: StopRecord, **changes: Any) -> StopRecord:
        """Put the record with these changes, and return it. Whoever gets the stop is remembered for having had it."""
        changed = msgspec.structs.replace(record, **changes)
        if changed.agent and changed.agent not in changed.had_by:
            changed = msgspec.structs.replace(changed, had_by=(*changed.had_by, changed.agent))
        return self.stops.put(record.stop_id, changed)

    def stop_of(self, stop_id: StopId) -> Stop | None:
        """A stop as it is to be now, which may be other than sold; None when nobody knows it or where it is."""
        record = self.stops.get(stop_id)
        order = None if record is None else self.orders.get(record.order_id)
        return None if order is None else order.stop_named(stop_id)

    def left_to(self, agent: AgentId, order: Iterable[StopId]) -> tuple[StopId, ...]:
        """The stops of an order that are this agent's and not done; others are not its to order."""
        found = (self.stops.get(stop_id) for stop_id in dict.fromkeys(order))
        return tuple(
            stop.stop_id for stop in found if stop is not None and stop.agent == agent and stop.state != "done"
        )

    def _books(self) -> Iterable[Book[Any]]:
        return (
            self.itself, self.customers, self.orders, self.stops, self.vehicles, self.depots, self.agents, self.plans,
            self.estimates, self.promises, self.closures, self.needs, self.chains, self.due_notices,
            self.amendments,
            self.said_wishes, self.keys,
        )  # fmt: skip
