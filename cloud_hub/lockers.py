"""Which parcel lockers may help after a failed visit: near enough, large enough, with a compartment left."""

from collections.abc import Sequence

from cloud_hub.fleet import Order
from cloud_hub.memory import Memory
from cloud_hub.nextstep import Locker
from shared.quantities import Seconds, metres_between
from shared.work import LOCKER_DOOR, Stop, StopId

NEAREST = 3

SERVICE_S = Seconds(120)


class Lockers:
    """The lockers of the settings, and what of them is used or meant for somebody today."""

    def __init__(self, memory: Memory, lockers: Sequence[Locker], within_m: float) -> None:
        """Farther than `within_m` metres from the door a locker is no help."""
        self._memory = memory
        self._within_m = within_m
        self.all = tuple(lockers)

    def near(self, order: Order, door: Stop) -> tuple[Locker, ...]:
        """The nearest lockers with a free compartment that is large enough, nearest first."""
        litres = max((parcel.litres for parcel in door.parcels), default=0.0)
        fitting = [
            (metres_between(door.position, locker.position), locker.locker_id, locker)
            for locker in self.all
            if litres <= locker.most_litres and not _was_tried(order, locker)
        ]
        near = sorted(each for each in fitting if each[0] <= self._within_m)
        return tuple(locker for _, _, locker in near if self._has_room(locker, len(door.parcels)))[:NEAREST]

    def _has_room(self, locker: Locker, parcels: int) -> bool:
        """Compartments not yet used or meant for another today: a visit takes one for each parcel."""
        planned = [stop for plan in self._memory.plans.values() for stop in plan.stops]
        wanted = [stop for one in self._memory.amendments.values() if one.number == 0 for stop in one.stops]
        taken = sum(max(1, len(s.parcels)) for s in (*planned, *wanted) if s.door_group == _door_of(locker))
        return taken + max(1, parcels) <= locker.capacity


def visit_to(locker: Locker, order: Order, door: Stop, attempt: int) -> Stop:
    """The visit that would bring this order's parcels to a locker. Who waits there is nobody: no code, no note."""
    return Stop(
        StopId(f"{LOCKER_DOOR}{locker.locker_id}"), order.order_id, locker.name, locker.position, door.slot, door.told,
        SERVICE_S, door.parcels, "leave_safe", door_group=_door_of(locker), lateness_weight=1, attempt=attempt,
    )  # fmt: skip


def _was_tried(order: Order, locker: Locker) -> bool:
    return any(stop.door_group == _door_of(locker) for stop in order.amended)


def _door_of(locker: Locker) -> str:
    return f"{LOCKER_DOOR}{locker.locker_id}"
