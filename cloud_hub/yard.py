"""Know the depots and which vehicle works on which day, and begin a vehicle's new day when its old one is over."""

from cloud_hub.events import Answer, DepotsSaid, VehiclesSaid
from cloud_hub.fleet import AgentRecord, Vehicle
from cloud_hub.memory import Memory
from cloud_hub.post import Post
from shared.steps import Now
from shared.work import AgentId, StopId


class Yard:
    """The vehicles as settings or people name them; each is an agent the hub then listens to."""

    def __init__(self, memory: Memory, post: Post) -> None:
        self._memory = memory
        self._post = post
        self._left_undone: list[StopId] = []

    def vehicles_said(self, event: VehiclesSaid, _: Now) -> Answer:
        """These vehicles work these days; one that is still out keeps its day."""
        refused: dict[AgentId, str] = {}
        for vehicle in event.vehicles:
            record = self._memory.agents.get(vehicle.agent)
            why_not = self.why_kept(vehicle)
            if why_not:
                refused[vehicle.agent] = why_not
                continue
            if record is None:
                self._memory.agents.put(vehicle.agent, AgentRecord(vehicle.agent))
                self._post.open(vehicle.agent)
            elif not self.works_on(vehicle.agent, vehicle.day) and vehicle.agent in self._memory.vehicles:
                self._begin_day(record)
            self._memory.vehicles.put(vehicle.agent, vehicle)
        named = tuple(vehicle.agent for vehicle in event.vehicles if vehicle.agent not in refused)
        return Answer(True, named=named, refused=tuple(refused.items()))

    def why_kept(self, vehicle: Vehicle) -> str:
        """Why this agent keeps the day it has and cannot be given this one; "" when it can."""
        record = self._memory.agents.get(vehicle.agent)
        former = self._memory.vehicles.get(vehicle.agent)
        if record is None or former is None or former.day == vehicle.day:
            return ""
        if record.has_begun and record.shift != "ended" and record.order:
            return f"it is still out on {former.day} with {len(record.order)} stops to go"
        return ""

    def works_on(self, agent: AgentId, day: str) -> bool:
        """Whether a vehicle has been named for this agent and this day."""
        known = self._memory.vehicles.get(agent)
        return known is not None and known.day == day

    def depots_said(self, event: DepotsSaid, _: Now) -> Answer:
        """The depots are these."""
        for depot in event.depots:
            self._memory.depots.put(depot.depot_id, depot)
        return Answer(True)

    def left_undone(self) -> tuple[StopId, ...]:
        """Stops of a former day that nobody went to, found since this was last asked. They are still their agent's."""
        left, self._left_undone = self._left_undone, []
        return tuple(left)

    def _begin_day(self, record: AgentRecord) -> None:
        """A new day: yesterday's plan is over."""
        self._left_undone += [
            stop.stop_id for stop in self._memory.stops.values() if stop.agent == record.agent and stop.state != "done"
        ]
        for key, amendment in list(self._memory.amendments.items()):
            if amendment.agent == record.agent:
                self._memory.amendments.drop(key)
        self._memory.plans.drop(record.agent)
        self._memory.estimates.drop(record.agent)
        self._memory.change_agent(
            record, shift="waiting", order=(), heading_to=None, at_stop=None, begun_ms=None, ended_ms=None
        )
