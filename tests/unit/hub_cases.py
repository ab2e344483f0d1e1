"""A small day for tests of the hub's core: stops, a plan made by hand, and a core driven with a store of dicts."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from cloud_hub.events import DayPlanAsked, DepotsSaid, OrdersHanded, Planned, PlanWanted, Route, Spoke, VehiclesSaid
from cloud_hub.fleet import Order, Vehicle
from cloud_hub.hub import HubCore, HubIdentity
from cloud_hub.nextstep import Locker
from cloud_hub.notice_rules import NoticeRule
from shared import wire
from shared.contracts import LegTimes
from shared.ledger import Alternative, Decision, Input, first_broken
from shared.messages import AgentEvent, Estimate, Numbered
from shared.quantities import EpochMs, Position, Seconds, TimeWindow
from shared.steps import Consequences, Envelope, Job, LinkUp, Now, Row
from shared.work import AgentId, Depot, OrderId, Stop, StopId
from tests.rooms import keep

Wanted = TypeVar("Wanted", bound=Job)

MINUTE = 60_000
HOUR = 60 * MINUTE
MIDNIGHT = 1_772_488_800_000
DAY = "2026-03-03"
VAN = AgentId("van-1")
DEPOT = Depot("north", "North", Position(60.29, 25.03), Position(60.18, 24.945), Seconds(900))


def at(hour: float) -> EpochMs:
    """An instant so many hours into the day."""
    return EpochMs(MIDNIGHT + round(hour * HOUR))


def window(opens: float, closes: float) -> TimeWindow:
    return TimeWindow(at(opens), at(closes))


def clock_face(instant_ms: int) -> str:
    minutes = (instant_ms - MIDNIGHT) // MINUTE
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def order(number: int, slot: TimeWindow | None = None) -> Order:
    slot = slot or window(9, 17)
    stop = Stop(
        StopId(f"stop-{number}"), OrderId(f"order-{number}"), f"Street {number}",
        Position(60.17, 24.94 + number / 1000), slot, slot, Seconds(180),
    )  # fmt: skip
    return Order(stop.order_id, "accepted", at(6), "", f"print-{number}", stop)


def vehicle(agent: AgentId = VAN) -> Vehicle:
    return Vehicle(agent, "north", DAY, at(8), at(16.5))


def estimate(stop_id: str, hour: float) -> Estimate:
    return Estimate(StopId(stop_id), EpochMs(at(hour) - 5 * MINUTE), at(hour), EpochMs(at(hour) + 8 * MINUTE))


class Driven:
    """A core with a store of dicts and a clock that the test sets. `envelopes` is what left at the last step."""

    def __init__(
        self, has_receiver: bool = False, notices: NoticeRule | None = None, lockers: tuple[Locker, ...] = ()
    ) -> None:
        self.rooms: dict[str, dict[str, bytes]] = {}
        self.notices = notices or NoticeRule(on=("webhook",) if has_receiver else ())
        self.lockers = lockers
        self.hour = 7.0
        self.real_ms = 0
        self.seqs: dict[str, int] = {}
        self.envelopes: list[Envelope] = []
        self.wake_up()

    def wake_up(self) -> None:
        """A life begins: from the rows, whatever the former core had in mind."""
        self.core = self._core()
        self.take(LinkUp())

    def wanted(self, kind: type[Wanted]) -> list[Wanted]:
        """The jobs of a kind that a core which woke up now would want: everything needed, whoever works on it."""
        made = self._core().handle([LinkUp()], Now(at(self.hour), 0))
        return [job for job in made.jobs if isinstance(job, kind)]

    def _core(self) -> HubCore:
        identity = HubIdentity("main", "life", "boot", "UTC", clock_face, self.notices, lockers=self.lockers)
        return HubCore(identity, self.rooms)

    def take(self, *events: Any) -> Consequences:
        """One step; a commit is a copy of the rows, so that nothing is shared with the core."""
        now = Now(at(self.hour), self.real_ms)
        made = self.core.handle(events, now)
        self.commit(made.rows)
        self.envelopes = [*made.envelopes, *self.core.due(now)]
        return made

    def commit(self, rows: Sequence[Row]) -> None:
        keep(self.rooms, rows)

    def say(self, *events: AgentEvent, agent: AgentId = VAN, said: float | None = None) -> Consequences:
        """What an agent says, in order, in one batch."""
        return self.take(*(self.spoken(event, agent, said) for event in events))

    def spoken(self, event: AgentEvent, agent: AgentId = VAN, said: float | None = None) -> Spoke:
        seq = self.seqs[agent] = self.seqs.get(agent, 0) + 1
        return Spoke(Numbered(agent, f"{agent}-boot", "events", seq, at(said or self.hour), 0, event))

    def commands(self) -> list[Any]:
        """What left towards agents at the last step."""
        payloads = [e.payload for e in self.envelopes if e.topic.endswith("/commands")]
        return [wire.decode_numbered(payload).message for payload in payloads]

    def documents(self, room: str, kind: type[Any]) -> dict[str, Any]:
        return {key: msgspec.json.decode(doc, type=kind) for key, doc in sorted(self.rooms.get(room, {}).items())}

    def decisions(self, node: str = "hub") -> list[Decision]:
        kept = [msgspec.json.decode(doc) for key, doc in sorted(self.rooms.get("decisions", {}).items())]
        chain = [msgspec.convert(each["decision"], Decision) for each in kept if each["node"] == node]
        if node == "hub":
            assert first_broken(chain) is None
        return chain

    def plan(self, orders: Sequence[Order], hours: Sequence[float], agent: AgentId = VAN) -> Consequences:
        """Hand in orders, plan them by hand to be served at these hours, and push the plan."""
        self.take(DepotsSaid((DEPOT,)), VehiclesSaid((vehicle(agent),)), OrdersHanded(tuple(orders)))
        asked = self.take(DayPlanAsked(DAY, "anna"))
        (wanted,) = asked.jobs
        assert isinstance(wanted, PlanWanted)
        return self.take(planned(wanted, orders, hours, agent))


def planned(wanted: PlanWanted, orders: Sequence[Order], hours: Sequence[float], agent: AgentId = VAN) -> Planned:
    stops = [each.stop for each in orders if each.stop is not None]
    ids = tuple(stop.stop_id for stop in stops)
    legs = LegTimes.from_matrix(wanted.roads_version, ids, (at(17),), np.full((1, len(ids) + 1, len(ids) + 1), 60))
    estimates = tuple(estimate(stop_id, hour) for stop_id, hour in zip(ids, hours, strict=True))
    compared = (Alternative("the solver's order", 4500, 120, 3700), Alternative("after repair", 3600, 0, 3600))
    route = Route(agent, ids, at(8), estimates, legs, at(15), 3600, 0, compared)
    looked_at = (Input("orders", str(len(wanted.stops))),)
    return Planned(wanted.need, (route,), (), "by hand", 1, 10, 5000, 4000, looked_at)
