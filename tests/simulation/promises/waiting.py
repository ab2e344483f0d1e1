"""What those who wait are told, and that they can be forgotten."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cloud_hub.events import Notice, NoticeWanted
from cloud_hub.fleet import Order
from cloud_hub.promises import Promise as Told
from cloud_hub.storage import DecisionsAsked
from edge_agent.memory import Day
from shared.steps import Row
from tests.simulation.disks import Disk
from tests.simulation.promises.promise import Facts, Promise, decision_of, hub_store

if TYPE_CHECKING:
    from tests.simulation.machines import Machine
    from tests.simulation.universe import Universe


class ToldInsideSlot(Promise):
    """A window told never leaves the slot that was sold, unless a decision calls that a breach."""

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        if machine.name in self.facts.agents:
            return
        decided = None
        for row in rows:
            if row.room != "promises" or row.value is None:
                continue
            promise = msgspec.json.decode(row.value, type=Told)
            if promise.told.within(promise.slot) or promise.is_breached:
                continue
            if decided is None:
                decided = [each.key for each in rows if each.room == "decisions"]
            self.breaks(f"{promise.stop_id} is told {promise.told} outside {promise.slot} and is no breach")

    def ended(self, universe: "Universe") -> None:
        store = hub_store(universe)
        kinds = {
            decision.decision_id: decision.kind
            for decision in (decision_of(row.doc) for row in store.decisions(DecisionsAsked(most=100_000)))
        }
        for _, doc in store.documents("promises"):
            for telling in msgspec.json.decode(doc, type=Told).tellings:
                kind = kinds.get(telling.decision_id)
                if telling.kind == "breach" and kind not in ("promise_breached", "change_came_too_late"):
                    self.breaks(f"a breach was told by decision {telling.decision_id}, which is {kind}")
        store.close()


class NoticesOncePerId(Promise):
    """A notice reaches its customer once per id: every copy says the same, none was unknown to the disk, and one that
    is called delivered was.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._given: dict[str, Notice] = {}
        self._known: set[str] = set()

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        # Not only what is due now: a hub that stalled gives what the one that replaced it has settled meanwhile.
        self._known.update(row.key for row in rows if row.room == "notices_due" and row.value is not None)

    def notified(self, wanted: NoticeWanted) -> None:
        notice, before = wanted.notice, self._given.get(wanted.need)
        if wanted.need not in self._known:
            self.breaks(f"notice {wanted.need} was sent and was never on the disk")
        said = (notice.told, notice.kind, notice.next_step, notice.place)
        if before is not None and (before.told, before.kind, before.next_step, before.place) != said:
            self.breaks(f"notice {wanted.need} said {before.kind} {before.told}, and then {notice.kind} {notice.told}")
        self._given[wanted.need] = notice

    def ended(self, universe: "Universe") -> None:
        store = hub_store(universe)
        for key, doc in store.documents("notices"):
            if msgspec.json.decode(doc)["state"] == "delivered" and key not in self._given:
                self.breaks(f"notice {key} is called delivered and nobody was given it")
        store.close()


class ForgottenNowhere(Promise):
    """Who is forgotten is nowhere: not in a row, not in a log, not in a free page of any disk; in a van, once it has
    left the door.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._gone: set[str] = set()

    def committed(self, machine: Any, rows: Sequence[Row]) -> None:
        if machine.name in self.facts.agents:
            return
        for row in rows:
            if row.room == "orders" and row.value is not None and b'"is_forgotten":true' in row.value:
                self._gone_at_once(machine, row.key)

    def _gone_at_once(self, hub: Any, order_id: str) -> None:
        """The commit that forgets leaves nothing at the hub: not even what waits to be said."""
        if order_id in self._gone:
            return
        self._gone.add(order_id)
        secrets = [secret for home in self.facts.homes if home.order.order_id == order_id for secret in home.secrets]
        for room, docs in sorted(hub.kept.rooms.items()):
            for key, doc in docs.items():
                if any(secret.encode() in doc for secret in secrets):
                    self.breaks(f"{order_id} is forgotten and still in {hub.name}'s {room}/{key}: {doc[:300]!r}")

    def ended(self, universe: "Universe") -> None:
        orders = {
            key: msgspec.json.decode(doc, type=Order) for key, doc in universe.facts.hub_kept.room("orders").items()
        }
        for home in self.facts.forgotten:
            if not orders[home.order.order_id].is_forgotten:
                self.breaks(f"{home.order.order_id} was to be forgotten and is not")
        gone = [home for home in self.facts.homes if home.order.order_id in orders
                and orders[home.order.order_id].is_forgotten]  # fmt: skip
        if not gone:
            return
        disks: list[tuple[str, Disk, tuple[Any, ...]]] = [("hub", universe.hub.disk, ())]
        for name, machine in universe.agents.items():
            day = msgspec.json.decode(machine.kept.room("day").get("day", b"{}"), type=Day)
            disks.append((name, machine.disk, day.forgetting))
        for owner, disk, not_left in disks:
            at_the_door = {stop_id.partition(".")[0] for stop_id in not_left}
            left = [home for home in gone if home.order.stop is None or home.order.stop.stop_id not in at_the_door]
            for file in disk.files():
                content = file.read_bytes()
                for home, secret in ((one, secret) for one in left for secret in one.secrets):
                    found = content.find(secret.encode())
                    if found >= 0:
                        near = content[max(0, found - 60) : found + 60]
                        self.breaks(f"'{secret}' of {home.order.order_id} is in {owner}'s {file.name}: {near!r}")
