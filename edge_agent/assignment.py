"""Hold the work an agent was assigned: the plan it drives, with the leg times and told windows that came since."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.lateness import minutes
from edge_agent.outlook import place_row, slice_at
from shared.contracts import LegTimes, LegTimesWrong, Plan
from shared.messages import PlanPushed, RoadsChanged
from shared.quantities import Position, TimeWindow
from shared.work import AgentId, Stop, StopId


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """A plan as it stands now, amendments included.

    `newer_legs` are None until the roads have changed, `told` holds windows told since, `withdrawn` stops of the plan
    that are not to be visited any more and whose parcels are still on board.

    Raises LegTimesWrong when the leg times in force are no matrix.
    """

    plan: Plan
    newer_legs: LegTimes | None = None
    told: Mapping[StopId, TimeWindow] = field(default_factory=dict)
    withdrawn: tuple[Stop, ...] = ()
    stops: Mapping[StopId, Stop] = field(init=False)
    matrix: npt.NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stops", {stop.stop_id: stop for stop in self.plan.stops})
        object.__setattr__(self, "matrix", self.legs.matrix())

    @property
    def legs(self) -> LegTimes:
        """The leg times in force."""
        return self.newer_legs or self.plan.legs

    def leg_s(self, origin: StopId | None, goal: StopId, leaves_ms: int) -> float:
        """What the leg times say of one leg, in seconds; None is the depot."""
        row, column = place_row(self.legs, origin), place_row(self.legs, goal)
        return float(self.matrix[slice_at(self.legs, leaves_ms), row, column])

    def shares_a_door(self, one: StopId | None, other: StopId) -> bool:
        """Whether two stops are served from one parking place, so that the van need not move between them."""
        group = self.stops[other].door_group
        return one is not None and one in self.stops and self.stops[one].door_group == group != ""

    def origin(self, left: Position | None) -> Position:
        """Where the straight line of a leg begins: the place left, else the depot, which may lie off the map."""
        return self.plan.depot.position if left is None else left


def plan_objection(pushed: PlanPushed, agent: AgentId, driven_version: int, now_ms: int | None) -> str:
    """Why a pushed plan cannot be taken, in words; empty when it can. `now_ms` is None while nobody knows the time."""
    plan = pushed.plan
    if plan.agent != agent:
        return f"it is for {plan.agent}, this is {agent}"
    if plan.plan_version <= driven_version:
        return f"agent already drives plan {driven_version}"
    if now_ms is not None and now_ms > pushed.start_by_ms:
        return f"it came {minutes((now_ms - pushed.start_by_ms) / 1000)} min after its start-by time"
    if now_ms is not None and now_ms > plan.expires_ms:
        return "it has expired"
    return "; ".join(plan.objections())


def roads_objection(work: Assignment | None, roads: RoadsChanged) -> str:
    """The name under which changed roads are refused; empty when they fit the work and are newer."""
    if work is None or roads.plan_version != work.plan.plan_version:
        return "PlanOfRoadsUnknown"
    is_newer = roads.legs.roads_version > work.legs.roads_version
    if not is_newer or not set(roads.legs.places) >= set(work.stops):
        return "RoadsNotNewer"
    try:
        roads.legs.matrix()
    except LegTimesWrong:
        return "LegTimesWrong"
    return ""


def read_told(room: Mapping[str, bytes]) -> dict[StopId, TimeWindow]:
    """The windows told since the plan came, from the rows that keep them."""
    return {StopId(key): msgspec.json.decode(value, type=TimeWindow) for key, value in room.items()}
