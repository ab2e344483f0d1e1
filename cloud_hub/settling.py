"""Settle amendments: what an agent left out is let go, what it did not take is again as it was before.

The agent has the last word. The books follow it, and a customer who had been told otherwise is told again.
"""

import msgspec

from cloud_hub import planning
from cloud_hub.customers import Customers
from cloud_hub.fleet import Amendment, StopRecord
from cloud_hub.memory import Memory
from shared.steps import Now
from shared.work import AgentId, Stop, StopId


class Settling:
    """What becomes of the stops of an amendment once its agent has answered, or the hub has given it up."""

    def __init__(self, memory: Memory, customers: Customers) -> None:
        self._memory = memory
        self._customers = customers
        self._unplaced: list[StopId] = []

    def settle(self, amendment: Amendment, not_taken: set[StopId], now: Now) -> None:
        """The agent has answered: what of it was not taken is taken back."""
        agent = amendment.agent
        self._memory.amendments.drop(amendment.key)
        self._memory.counts["amendments_answered"] += 1
        self._memory.counts["amended_stops_not_taken"] += len(not_taken)
        for stop_id in amendment.withdrawn:
            if stop_id in not_taken:
                self.stay(amendment, stop_id, now)
            else:
                self._release(amendment, stop_id)
        for stop in amendment.stops:
            if stop.stop_id in not_taken:
                self.take_back(amendment, stop.stop_id, f"{agent} did not take it", now)

    def stay(self, amendment: Amendment, stop_id: StopId, now: Now) -> None:
        """The agent was under way to this stop already: it is served as planned."""
        record = self._memory.stops[stop_id]
        order = self._memory.orders[record.order_id]
        wished = self._memory.stop_of(stop_id)
        former = _former(amendment, stop_id)
        is_postponed = wished is not None and former is not None and wished.slot != former.slot
        self._memory.change_stop(record, is_leaving=False, wished=wished.slot if is_postponed and wished else None)
        if former is None or self._is_handed_on(amendment, former):
            return
        self._memory.orders.put(order.order_id, order.with_stop(former))
        if is_postponed and stop_id in self._memory.promises:
            self._tell_again(stop_id, now)

    def take_back(self, amendment: Amendment, stop_id: StopId, why: str, now: Now) -> None:
        """This stop is as it was before; one that is new waits, if it is not done."""
        record = self._memory.stops[stop_id]
        order = self._memory.orders[record.order_id]
        former = _former(amendment, stop_id)
        plan = self._memory.plans.get(amendment.agent)
        if former is not None:
            if self._is_handed_on(amendment, former):
                return
            self._memory.orders.put(order.order_id, order.with_stop(former))
            if plan is not None:
                stops = tuple(former if stop.stop_id == stop_id else stop for stop in plan.stops)
                self._memory.plans.put(plan.agent, msgspec.structs.replace(plan, stops=stops))
            promise = self._memory.promises.get(stop_id)
            if promise is not None and promise.served_ms is None:
                before = msgspec.structs.replace(promise, slot=former.slot, told=former.told)
                self._memory.promises.put(stop_id, before)
                if before.told != promise.told:
                    self._tell_again(stop_id, now)
        elif record.state == "planned":
            self._narrow(amendment.agent, stop_id)
            self._memory.promises.drop(stop_id)
            self._memory.change_stop(record, state="waiting", agent=AgentId(""), why_waiting=why)
            self._unplaced.append(stop_id)

    def let_go(self, record: StopRecord, why: str) -> None:
        """Its agent leaves this stop out: it waits to be planned, or is over with its order."""
        self._memory.promises.drop(record.stop_id)
        if self._is_over(record):
            self.drop(record)
            return
        self._memory.change_stop(record, state="waiting", agent=AgentId(""), is_leaving=False, why_waiting=why)

    def drop(self, record: StopRecord) -> None:
        """This visit is not to be. The other visits of its order remember who had it, for when its customer is
        forgotten.
        """
        self._memory.stops.drop(record.stop_id)
        for stop_id in self._memory.orders[record.order_id].visits:
            other = self._memory.stops.get(stop_id)
            if other is not None:
                self._memory.change_stop(other, had_by=tuple(dict.fromkeys((*other.had_by, *record.had_by))))

    def unplaced(self) -> tuple[StopId, ...]:
        """New stops that came to nothing since this was last asked, because their agent did not take them or no road
        leads there. They wait; whoever wanted them decides what becomes of them.
        """
        unplaced, self._unplaced = tuple(self._unplaced), []
        return unplaced

    def _release(self, amendment: Amendment, stop_id: StopId) -> None:
        """The agent leaves this stop out: it waits, or is over with its order."""
        record = self._memory.stops.get(stop_id)
        self._narrow(amendment.agent, stop_id)
        if record is None or record.agent != amendment.agent or record.state in ("done", "waiting"):
            return
        self.let_go(record, f"taken off {amendment.agent}: {amendment.why}")

    def _is_over(self, record: StopRecord) -> bool:
        """Whether nothing is to be brought any more: delivered by another visit of the same order, or returning."""
        order = self._memory.orders[record.order_id]
        ids = {stop.stop_id for stop in (*order.amended, *((order.stop,) if order.stop else ()))} - {record.stop_id}
        others = (self._memory.stops.get(stop_id) for stop_id in sorted(ids))
        return order.state == "returning" or any(
            other is not None and any(visit.outcome.is_delivery for visit in other.visits) for other in others
        )

    def _is_handed_on(self, amendment: Amendment, former: Stop) -> bool:
        """Whether a later change of the same stop is still to be answered: that is the one to be taken back, then to
        what the stop was before this one.
        """
        for key, later in self._memory.amendments.items():
            is_later = later.number == 0 or later.number > amendment.number > 0
            if later.agent == amendment.agent and is_later and former.stop_id in later.touched:
                stops = tuple(former if stop.stop_id == former.stop_id else stop for stop in later.former)
                self._memory.amendments.put(key, msgspec.structs.replace(later, former=stops))
                return True
        return False

    def _tell_again(self, stop_id: StopId, now: Now) -> None:
        """The customer has heard of a change that does not happen; who is visited already knows."""
        record = self._memory.stops[stop_id]
        if record.state != "done" and self._memory.agents[record.agent].shift != "ended":
            self._customers.comes_as_told_before(stop_id, now)

    def _narrow(self, agent: AgentId, stop_id: StopId) -> None:
        """The plan without this stop."""
        plan = self._memory.plans.get(agent)
        if plan is None or stop_id not in plan.legs.places:
            return
        stops = tuple(stop for stop in plan.stops if stop.stop_id != stop_id)
        legs = planning.narrowed(plan.legs, [stop.stop_id for stop in stops])
        before = tuple(pair for pair in plan.before if stop_id not in pair)
        self._memory.plans.put(agent, msgspec.structs.replace(plan, stops=stops, legs=legs, before=before))
        record = self._memory.agents[agent]
        self._memory.change_agent(record, order=tuple(one for one in record.order if one != stop_id))


def _former(amendment: Amendment, stop_id: StopId) -> Stop | None:
    """The stop as it was before the amendment; None when it is new by it."""
    return next((stop for stop in amendment.former if stop.stop_id == stop_id), None)
