"""The visits of one order: its door, how often it was tried, and the visit that follows the last one."""

import msgspec

from cloud_hub.amendments import Amendments
from cloud_hub.fleet import Order, StopRecord
from cloud_hub.memory import Memory
from cloud_hub.workdays import Workdays
from shared.quantities import TimeWindow
from shared.steps import Now
from shared.work import Outcome, Stop, StopId


class Visits:
    """What was and is to be visited for an order. Every visit has a stop of its own, counted by its `attempt`."""

    def __init__(self, memory: Memory, amendments: Amendments, workdays: Workdays) -> None:
        self._memory = memory
        self._amendments = amendments
        self._workdays = workdays

    def records(self, order: Order) -> list[StopRecord]:
        """What has become of each of its visits, the one sold first."""
        records = (self._memory.stops.get(stop_id) for stop_id in order.visits)
        return [record for record in records if record is not None]

    def is_open(self, record: StopRecord) -> bool:
        """Whether it is to be decided how it goes on: no other visit is to come, and it is not on its way back."""
        order = self._memory.orders[record.order_id]
        is_coming = any(other.state != "done" for other in self.records(order) if other.stop_id != record.stop_id)
        return order.state == "accepted" and not order.is_forgotten and not is_coming

    def door(self, order: Order) -> Stop:
        """The customer's own door as it is to be visited now: the last visit that did not go to a locker."""
        named = [stop.stop_id for stop in order.amended if not stop.is_at_locker]
        named += [] if order.stop is None else [order.stop.stop_id]
        found = [stop for stop in map(self._amendments.stop_now, named) if stop is not None]
        assert found, f"order {order.order_id} was visited without a place"
        return max(found, key=lambda stop: stop.attempt)

    def last(self, order: Order) -> int:
        """The number of its last visit."""
        return max((stop.attempt for stop in order.amended), default=1)

    def made(self, order: Order) -> int:
        """How many visits were made in vain: one nobody came to, or without the parcel, was not the customer's."""
        visits = (visit for record in self.records(order) for visit in record.visits)
        return max(1, sum(visit.outcome is not Outcome.MISSING_FROM_LOAD for visit in visits))

    def again(self, order: Order) -> Stop:
        """Another visit to the customer's door."""
        number = self.last(order) + 1
        return msgspec.structs.replace(self.door(order), stop_id=self.named(order, number), attempt=number)

    def named(self, order: Order, number: int) -> StopId:
        """The stop of the visit of this number."""
        assert order.stop is not None, f"order {order.order_id} was visited without a place"
        return StopId(f"{order.stop.stop_id}.{number}")

    def on_another_day(self, visit: Stop, order: Order, wished: TimeWindow | None, now: Now) -> Stop:
        """The visit on another day than that of the last one: at the hours that were sold, on the next working day,
        unless the customer asked for others (`wished`).
        """
        sold = visit if order.stop is None else order.stop
        days = self._workdays
        last = min(days.day(now.domain_ms), days.day(visit.slot.opens_ms))
        slot = wished or days.next_after(sold.slot, last, now.domain_ms)
        given = {parcel.barcode: parcel for parcel in sold.parcels}
        parcels = tuple(given.get(parcel.barcode, parcel) for parcel in visit.parcels)
        hours = visit.open_hours
        if hours is not None:
            hours = days.on(hours, days.day(slot.opens_ms))
        return msgspec.structs.replace(visit, slot=slot, told=slot, parcels=parcels, open_hours=hours)

    def keep(self, visit: Stop, order: Order, why: str, now: Now) -> None:
        """Have this visit wait for the plan of its day."""
        self._memory.orders.put(order.order_id, order.with_stop(visit))
        fresh = StopRecord(visit.stop_id, order.order_id, changed_ms=now.domain_ms, why_waiting=why)
        self._memory.stops.put(visit.stop_id, fresh)
