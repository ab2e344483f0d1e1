"""Let no customer wait for a van that has gone home: what was left undone or was not on board comes another day.

A shift that ends with stops to go, and a parcel that is not in the load, are ours to answer for. The customer hears
that we did not come and when we do, the promise counts as breached, a record says why, and the order waits for another
day. The visit nobody made stays in the books as it was promised. A driver who ended the shift by a slip of the thumb
has some minutes to begin it again; who delivers later still is believed, and the visit of the other day is called off.
"""

from collections.abc import Callable

import msgspec

from cloud_hub.chains import Chains
from cloud_hub.contacts import Why
from cloud_hub.fleet import AgentRecord, StopRecord
from cloud_hub.mailbag import Mailbag
from cloud_hub.memory import Memory
from cloud_hub.promises import Promise
from cloud_hub.settling import Settling
from cloud_hub.visits import Visits
from cloud_hub.workdays import Workdays
from cloud_hub.yard import Yard
from shared.contracts import Plan
from shared.ledger import Input
from shared.quantities import TimeWindow
from shared.steps import Now
from shared.work import AgentId, Outcome, StopId, Visit

PATIENCE_MS = 10 * 60_000
"""How long a shift that was ended may be begun again before its customers are told."""

IN_WORDS: dict[Why, str] = {
    "not_reached": "the van's shift was over before it came there",
    "not_on_board": "it was not on board",
}


class Undone:
    """Stops of today that nobody served and nobody will."""

    def __init__(
        self,
        memory: Memory,
        chains: Chains,
        mailbag: Mailbag,
        yard: Yard,
        settling: Settling,
        visits: Visits,
        workdays: Workdays,
        clock_face: Callable[[int], str],
    ) -> None:
        self._memory = memory
        self._chains = chains
        self._mailbag = mailbag
        self._yard = yard
        self._settling = settling
        self._visits = visits
        self._workdays = workdays
        self._clock = clock_face
        self._gone_home = {agent.agent: None for agent in memory.agents.values() if agent.shift == "ended"}

    def shift_changed(self, agent: AgentId) -> None:
        """A driver has begun, ended or interrupted the shift."""
        if self._memory.agents[agent].shift == "ended":
            self._gone_home[agent] = None
        else:
            self._gone_home.pop(agent, None)

    def visited(self, record: StopRecord, visit: Visit, now: Now) -> None:
        """A visit has ended; one without its parcel was none to the customer."""
        if visit.outcome is Outcome.MISSING_FROM_LOAD and self._visits.is_open(record):
            self._put_off(record, "not_on_board", f"{record.agent} did not have it", now)

    def look(self, now: Now) -> None:
        """Put off what vans that have gone home left undone, and what the yard found left of another day."""
        for agent in [agent for agent in self._gone_home if self._is_due(agent, now.domain_ms)]:
            self._clear_up(self._memory.agents[agent], now)
        for stop_id in self._yard.left_undone():
            agent = self._memory.stops[stop_id].agent
            self._hand_on(stop_id, f"left undone by {agent}", f"{agent} has begun another day", now)

    def never_begun(self, agent: AgentId, now: Now) -> int:
        """An agent's plan reached it too late and was not begun: others may come to its stops, or they come on another
        day. How many there were.
        """
        left = self._memory.left_to(agent, _ids(self._memory.plans.get(agent)))
        for stop_id in left:
            why = f"the plan came too late to {agent}"
            self._hand_on(stop_id, why, why, now)
        self._memory.plans.drop(agent)
        self._memory.estimates.drop(agent)
        self._memory.change_agent(self._memory.agents[agent], order=(), heading_to=None, at_stop=None)
        return len(left)

    def _hand_on(self, stop_id: StopId, why: str, cause: str, now: Now) -> None:
        """This stop is nobody's work: it waits while its slot is open, else it comes on another day."""
        record, stop = self._memory.stops[stop_id], self._memory.stop_of(stop_id)
        if stop is not None and stop.slot.closes_ms > now.domain_ms and not record.is_leaving:
            # Another van may still come in time.
            self._memory.change_stop(record, state="waiting", agent=AgentId(""), why_waiting=why)
        else:
            self._leave(record, cause, now)

    def wake_ms(self, now_ms: int) -> int | None:
        """When (domain time) the next van that went home is to be cleared up after; None when none is."""
        return min((due_ms for due_ms in map(self._due_ms, self._gone_home) if due_ms > now_ms), default=None)

    def _is_due(self, agent: AgentId, now_ms: int) -> bool:
        """Whether the shift ended long enough ago. One that ends in the future was ended by a clock that is wrong."""
        return not now_ms < self._due_ms(agent) <= now_ms + 2 * PATIENCE_MS

    def _due_ms(self, agent: AgentId) -> int:
        ended_ms = self._memory.agents[agent].ended_ms
        return 0 if ended_ms is None else ended_ms + PATIENCE_MS

    def _clear_up(self, agent: AgentRecord, now: Now) -> None:
        plan = self._memory.plans.get(agent.agent)
        left = [self._memory.stops[one] for one in self._memory.left_to(agent.agent, _ids(plan))]
        for record in left:
            if not record.is_leaving:  # The van has been told to leave it out, and still has to answer.
                self._leave(record, f"{agent.agent} ended its shift at {self._clock(agent.ended_ms or 0)}", now)
        if not any(record.is_leaving for record in left):
            del self._gone_home[agent.agent]
            self._memory.change_agent(self._memory.agents[agent.agent], order=(), heading_to=None, at_stop=None)

    def _leave(self, record: StopRecord, cause: str, now: Now) -> None:
        """Nobody comes to this stop any more."""
        if record.is_leaving:
            self._settling.let_go(record, cause)
            return
        self._memory.change_stop(record, state="done", is_leaving=False, changed_ms=now.domain_ms)
        if self._visits.is_open(record):
            self._put_off(self._memory.stops[record.stop_id], "not_reached", cause, now)

    def _put_off(self, record: StopRecord, why: Why, cause: str, now: Now) -> None:
        """The order comes on another day, and its customer hears it."""
        order = self._memory.orders[record.order_id]
        visit = self._visits.on_another_day(self._visits.again(order), order, record.wished, now)
        day = self._workdays.day(visit.slot.opens_ms).isoformat()
        sentence = f"Order {order.order_id} was not delivered: {IN_WORDS[why]}. It comes on another day, {day}."
        known = self._memory.promises.get(record.stop_id)
        decision = self._chains.decide(
            now,
            "undone",
            sentence,
            cause,
            inputs=() if known is None else self._inputs(known),
            verdict="what we owe comes on the next working day; the promise counts as breached",
            about=tuple(word for word in (order.order_id, record.stop_id, record.agent, visit.stop_id) if word),
        )
        promise = known or Promise(record.stop_id, order.order_id, record.agent, visit.slot, visit.told)
        if known is not None:
            self._memory.promises.put(record.stop_id, msgspec.structs.replace(known, is_breached=True))
        self._memory.change_stop(record, next_step="tomorrow")
        self._visits.keep(visit, order, f"{IN_WORDS[why]}; it comes again on another day", now)
        self._memory.counts[f"undone.{why}"] += 1
        told = msgspec.structs.replace(promise, slot=visit.slot, told=visit.told)
        self._mailbag.put(told, "missed", sentence, decision.decision_id, now, why=why, next_step="tomorrow")

    def _inputs(self, promise: Promise) -> tuple[Input, ...]:
        return Input("slot", self._face(promise.slot)), Input("window told", self._face(promise.told))

    def _face(self, window: TimeWindow) -> str:
        return f"{self._clock(window.opens_ms)}-{self._clock(window.closes_ms)}"


def _ids(plan: Plan | None) -> tuple[StopId, ...]:
    return () if plan is None else tuple(stop.stop_id for stop in plan.stops)
