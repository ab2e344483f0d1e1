"""What an agent may change alone, and for how long.

The hub owns which work an agent has; the agent owns the order, inside its
contract. A plan is that contract: the work, the time it may take to get
from any place of it to any other, and the bounds of the agent's freedom.
"""

import hashlib
import hmac
from typing import Literal

import msgspec
import numpy as np

from shared.quantities import EpochMs, Seconds, TimeWindow
from shared.work import AgentId, Depot, Stop, StopId

DEPOT_PLACE = 0
"""Row and column of the depot in a plan's leg times; stop k of `places` has row k + 1."""


class LegTimesWrong(ValueError):
    """The leg times are not one whole number of seconds for every slice and pair of places."""


class LegTimes(msgspec.Struct, frozen=True):
    """How long each leg takes, by the time of day at which it begins.

    `seconds` holds uint16 little-endian [slices, n, n] with n = 1 + len(places): the depot first, then the stops of
    `places` in order. Slice k serves departures before `slice_ends_ms[k]`; the last slice serves all later ones too.
    `roads_version` grows when a street closes or opens.
    """

    roads_version: int
    places: tuple[StopId, ...]
    slice_ends_ms: tuple[EpochMs, ...]
    seconds: bytes

    @classmethod
    def from_matrix(
        cls, roads_version: int, places: tuple[StopId, ...], slice_ends_ms: tuple[EpochMs, ...], seconds: np.ndarray
    ) -> "LegTimes":
        """From an integer array [slices, n, n] of seconds; raises LegTimesWrong when shape or range do not fit."""
        expected = (len(slice_ends_ms), len(places) + 1, len(places) + 1)
        if seconds.shape != expected:
            raise LegTimesWrong(f"leg times have shape {seconds.shape}, expected {expected}")
        if seconds.min(initial=0) < 0 or seconds.max(initial=0) > 65_535:
            raise LegTimesWrong(f"leg times reach from {seconds.min()} to {seconds.max()} s, expected 0 to 65,535 s")
        return cls(roads_version, places, slice_ends_ms, seconds.astype("<u2").tobytes())

    def matrix(self) -> np.ndarray:
        """The leg times as int32 [slices, n, n] in seconds; raises LegTimesWrong when bytes are missing or too many."""
        side = len(self.places) + 1
        expected = 2 * len(self.slice_ends_ms) * side * side
        if len(self.seconds) != expected:
            raise LegTimesWrong(f"leg times hold {len(self.seconds)} bytes, expected {expected} for {side} places")
        flat = np.frombuffer(self.seconds, "<u2").astype(np.int32)
        return flat.reshape(len(self.slice_ends_ms), side, side)


class Rest(msgspec.Struct, frozen=True):
    """The driver's break: it lasts `duration_s` and begins inside the window."""

    duration_s: Seconds
    begins: TimeWindow


class Freedom(msgspec.Struct, frozen=True):
    """The bounds inside which an agent re-orders its work without asking.

    A re-sequence is worth the disturbance only when it saves at least `least_gain_s` weighted seconds, and each arc
    it changes costs `changed_arc_s` of them. `arcs_per_day` is the change budget: arcs the agent may change in one
    day before it must ask.
    """

    least_gain_s: int = 180
    changed_arc_s: int = 45
    arcs_per_day: int = 60


class ShiftLock(msgspec.Struct, frozen=True):
    """What opens the driver's page for one shift: the code shown at the depot, salted and hashed (SHA-256, hex).

    It keeps out who merely has the van's Wi-Fi in reach. Six digits are no secret from one who holds the disk, and the
    plan lies on that disk beside it.
    """

    salt: str
    digest: str

    @classmethod
    def of(cls, code: str, salt: str) -> "ShiftLock":
        """The lock this code opens."""
        return cls(salt, hashlib.sha256(f"{salt}:{code}".encode()).hexdigest())

    def opens_with(self, code: str) -> bool:
        """Whether this is the code."""
        return hmac.compare_digest(ShiftLock.of(code, self.salt).digest, self.digest)


class Plan(msgspec.Struct, frozen=True):
    """One agent's contract for one day.

    `stops` are in planned order. The van leaves the depot at `depart_ms` and is back by `shift_end_ms`. Rights lapse
    at `expires_ms`; the duty to deliver what is on board does not. Without a `shift_lock` the driver's page is open to
    all who reach it.
    """

    plan_version: int
    agent: AgentId
    day: str
    depot: Depot
    depart_ms: EpochMs
    shift_end_ms: EpochMs
    expires_ms: EpochMs
    stops: tuple[Stop, ...]
    legs: LegTimes
    freedom: Freedom = Freedom()
    rest: Rest | None = None
    before: tuple[tuple[StopId, StopId], ...] = ()
    capacity_litres: int = 10_000
    shift_lock: ShiftLock | None = None

    def objections(self) -> list[str]:
        """What is wrong with this plan in itself, in words; empty when an agent may take it."""
        found = []
        ids = [stop.stop_id for stop in self.stops]
        if len(set(ids)) != len(ids):
            found.append("a stop is listed twice")
        if set(self.legs.places) != set(ids):
            found.append("leg times and stops name different places")
        if self.shift_end_ms <= self.depart_ms:
            found.append("the shift ends before it begins")
        # A breach has been told as a window after the slot, and the van must live with it; before the slot is nonsense.
        early = (s for s in self.stops if s.told.opens_ms < s.slot.opens_ms)
        found += [f"stop {s.stop_id}: told window begins before its slot" for s in early]
        found += [f"'{a}' before '{b}' names an unknown stop" for a, b in self.before if not {a, b} <= set(ids)]
        try:
            self.legs.matrix()
        except LegTimesWrong as wrong:
            found.append(str(wrong))
        return found


Autonomy = Literal["advise", "act_with_review", "act"]
