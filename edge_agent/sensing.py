"""Decide which readings of the van's devices are believed, and what they say together.

A device driver hands over what a device *said* (a reading); this module holds what the agent *believes*. A reading that
cannot be true is refused by name and counted. A fix that is only hard to believe (too far away, from the wrong time) is
put aside: when several in a row agree with each other they were right and we were wrong, so a van that comes out of a
tunnel, off a ferry or out of a wrong first fix is never locked out.

All instants are domain time, given by the caller. Devices speak at the pace of the real world while domain time may run
faster, so what describes devices (how long a fix is fresh) scales with the clock's speed, and what describes vans (how
fast one can be) does not: see `limits_at`.
"""

import math
from collections.abc import Mapping
from typing import Literal

import msgspec

from shared.quantities import EpochMs, Position, metres_between

MAX_SPEED_MPS = 60.0  # 216 km/h; the fastest vans of all makes stop short of 200.
MAX_CHANGE_MPS2 = 12.0  # Emergency braking on dry asphalt reaches 10.
SPEED_SLACK_MPS = 4.0  # Doppler noise of a cheap receiver between houses, both ways.
REACH_SLACK_M = 60.0  # Two fixes with 30 m of multipath each.
WHEELS_READ_SHORT = 1.25  # Worn tyres read up to 4 % short, but a slow poll misses what lies between two readings.
WHEEL_SLACK_MPS = 5.0
ROLLING_MPS = 0.5  # OBD-II counts whole km/h: 1 km/h is creeping or rounding, 2 km/h is driving.
STRIDE_M = 20.0  # Several times the noise of a fix, and short enough to follow a street round its bends.
GNSS_STANDING_MPS = 0.8  # A standing receiver reports up to 0.5 m/s of noise.
GNSS_MOVING_MPS = 1.6
STANDING_RADIUS_M = 35.0
MAX_HDOP = 10.0  # Above this the geometry puts a fix off by a street or more.
NULL_ISLAND_DEG = 0.01  # A receiver without a fix says 0, 0.
AGREEING = 3  # So many fixes must agree with each other before they overrule what we believed.
TIME_LIMIT_MS = 2**53  # What a float holds exactly; far beyond any calendar.
ODOMETER_LIMIT_M = 4.3e9  # 32 bits of J1939's 5 m steps are 21 million km; no van drives 4.3.
ODOMETER_STEP_M = 1_000.0  # OBD-II steps by 100 m, J1939 by 5, some gateways by a whole kilometre.
ODOMETER_READS_AHEAD_M = 100.0  # Its first word may have been a whole OBD-II step short of the truth.


class Fix(msgspec.Struct, frozen=True, tag="fix", tag_field="kind"):
    """A GNSS receiver says where it was; `utc_ms` is the instant it says so for, None when it did not say."""

    at_ms: EpochMs
    position: Position
    speed_mps: float | None = None
    course_deg: float | None = None
    satellites: int | None = None
    hdop: float | None = None
    utc_ms: EpochMs | None = None


class VoidFix(msgspec.Struct, frozen=True, tag="void_fix", tag_field="kind"):
    """A GNSS receiver speaks but does not know where it is."""

    at_ms: EpochMs


class WheelSpeed(msgspec.Struct, frozen=True, tag="wheel_speed", tag_field="kind"):
    """The speed the wheels turn at, forwards or backwards alike."""

    at_ms: EpochMs
    speed_mps: float


class EngineRunning(msgspec.Struct, frozen=True, tag="engine_running", tag_field="kind"):
    """Whether a combustion engine turns. Proves no standstill: it stops at lights, and electric vans have none."""

    at_ms: EpochMs
    is_running: bool


class Ignition(msgspec.Struct, frozen=True, tag="ignition", tag_field="kind"):
    """Whether the vehicle bus is awake."""

    at_ms: EpochMs
    is_on: bool


class FuelOrCharge(msgspec.Struct, frozen=True, tag="fuel_or_charge", tag_field="kind"):
    """What is left in the tank or the battery, 0 (empty) to 1 (full)."""

    at_ms: EpochMs
    share: float


class Odometer(msgspec.Struct, frozen=True, tag="odometer", tag_field="kind"):
    """What the vehicle says it has driven in its life, metres."""

    at_ms: EpochMs
    metres: float


class OutsideTemperature(msgspec.Struct, frozen=True, tag="outside_temperature", tag_field="kind"):
    """The air outside, degrees Celsius."""

    at_ms: EpochMs
    celsius: float


class Scan(msgspec.Struct, frozen=True, tag="scan", tag_field="kind"):
    """What the hand scanner read, as it sent it: with the AIM symbology prefix when it is set to send one."""

    at_ms: EpochMs
    text: str


Reading = Fix | VoidFix | WheelSpeed | EngineRunning | Ignition | FuelOrCharge | Odometer | OutsideTemperature | Scan

RefusalName = Literal[
    "TimeOutOfRange",
    "PositionOutOfRange",
    "NullIsland",
    "PrecisionTooLow",
    "NoSatellites",
    "SpeedOutOfRange",
    "CourseOutOfRange",
    "SpeedJumped",
    "FixNotNewer",
    "FixFromFuture",
    "FixTooOld",
    "FixTooFarAway",
    "ReadingNotNewer",
    "ShareOutOfRange",
    "OdometerOutOfRange",
    "OdometerWentBack",
    "OdometerJumped",
    "TemperatureOutOfRange",
]
Quality = Literal["gnss", "wheel", "none"]


class Refusal(msgspec.Struct, frozen=True):
    """Why a reading is not believed: the name it is counted by, and what was found and expected."""

    name: RefusalName
    words: str


class Limits(msgspec.Struct, frozen=True):
    """How long what a device said stays fresh, and how far its clock may be from ours; seconds of domain time."""

    fix_fresh_s: float = 5.0
    wheel_fresh_s: float = 3.0
    agreement_s: float = 1.0  # Fixes that overrule us span at least this: a burst from a buffer is no evidence.
    ahead_s: float = 5.0
    behind_s: float = 10.0
    wake_fresh_s: float = 60.0  # How long a bus last heard asleep tells us that the van stands.


def limits_at(clock_speed: float) -> Limits:
    """The limits when domain time runs `clock_speed` times as fast as the devices speak (1 on a real van)."""
    speed = max(1.0, clock_speed)
    real = Limits()
    return Limits(**{name: getattr(real, name) * speed for name in Limits.__struct_fields__})


class Belief(msgspec.Struct, frozen=True):
    """What the van's devices say together at one instant.

    `position` is the last believed one however old; `position_age_s` is None before the first. `quality` names what
    the belief rests on now: a fresh fix, else the wheels (the van's motion is known, its place ages), else nothing.
    `odometer_m` counts the metres driven since the agent first started and never falls.
    """

    position: Position | None
    position_age_s: float | None
    speed_mps: float | None
    is_standing: bool
    standing_since_ms: EpochMs | None
    odometer_m: float
    quality: Quality
    course_deg: float | None = None
    energy_share: float | None = None
    outside_c: float | None = None
    is_ignition_on: bool | None = None
    is_engine_running: bool | None = None


class Remembered(msgspec.Struct, frozen=True):
    """What a restarted agent still knows: the last believed place and the metres driven."""

    position: Position | None = None
    at_ms: EpochMs = EpochMs(0)
    odometer_m: float = 0.0


class Sensing:
    """Takes readings one at a time and says at any instant what is believed. Holds a bounded, small memory."""

    def __init__(self, limits: Limits = Limits(), remembered: Remembered = Remembered()) -> None:  # noqa: B008, frozen
        self._limits = limits
        self._refused: dict[RefusalName, int] = {}
        self._clock_gap_ms = 0
        self._relocations = 0
        self._fix: Fix | None = None
        self._place: tuple[Position, int] | None = None
        if remembered.position is not None:
            self._place = (remembered.position, remembered.at_ms)
        self._doubted: list[Fix] = []  # First and last of the run of fixes that agree with each other but not with us.
        self._doubted_count = 0
        self._wheel: WheelSpeed | None = None
        self._wheel_doubts = 0
        self._wheels_known_from_ms = 0
        self._top_wheel_mps = 0.0  # Since the last believed fix.
        self._wheel_m = 0.0  # Since the place the metres are counted to.
        self._counted_to: Position | None = None if self._place is None else self._place[0]
        self._wheel_stands_since_ms: int | None = None
        self._anchor: Fix | None = None
        self._gnss_stands_since_ms: int | None = None
        self._driven_m = remembered.odometer_m
        self._odometer: Odometer | None = None
        self._odometer_doubt: Odometer | None = None
        self._odometer_zero_m: float | None = None
        self._ignition: Ignition | None = None
        self._engine: EngineRunning | None = None
        self._share: float | None = None
        self._outside_c: float | None = None

    @property
    def refused(self) -> Mapping[RefusalName, int]:
        """How many readings were refused, by the name of the reason."""
        return dict(self._refused)

    @property
    def relocations(self) -> int:
        """How many times fixes that agreed with each other overruled what was believed."""
        return self._relocations

    @property
    def clock_gap_ms(self) -> int:
        """How far the satellites' clock is ahead of ours, as fixes have proved by agreeing; 0 while ours is right."""
        return self._clock_gap_ms

    def remember(self) -> Remembered:
        """What to save so that a restarted agent starts from here."""
        position, at_ms = self._place or (None, 0)
        return Remembered(position=position, at_ms=EpochMs(at_ms), odometer_m=self._driven_m)

    def take(self, reading: Reading) -> Refusal | None:
        """Believe one reading (None) or refuse it by name. Never raises, whatever the numbers in it."""
        refusal = self._judge(reading)
        if refusal is not None:
            self._refused[refusal.name] = self._refused.get(refusal.name, 0) + 1
        return refusal

    def believe(self, now_ms: int) -> Belief:
        """What is believed at this instant (domain milliseconds)."""
        fix_is_fresh = self._fix is not None and now_ms - self._fix.at_ms <= self._limits.fix_fresh_s * 1000
        wheels_are_fresh = self._wheels_are_fresh(now_ms)
        position, at_ms = self._place or (None, 0)
        speed_mps = None
        if wheels_are_fresh and self._wheel is not None:
            speed_mps = self._wheel.speed_mps
        elif fix_is_fresh and self._fix is not None:
            speed_mps = self._fix.speed_mps
        stands_since_ms = self._stands_since(now_ms, wheels_are_fresh, fix_is_fresh)
        return Belief(
            position=position,
            position_age_s=None if position is None else max(0, now_ms - at_ms) / 1000,
            speed_mps=speed_mps,
            is_standing=stands_since_ms is not None,
            standing_since_ms=None if stands_since_ms is None else EpochMs(stands_since_ms),
            odometer_m=self._driven_m,
            quality="gnss" if fix_is_fresh else "wheel" if wheels_are_fresh else "none",
            course_deg=self._fix.course_deg if fix_is_fresh and self._fix is not None else None,
            energy_share=self._share,
            outside_c=self._outside_c,
            is_ignition_on=None if self._ignition is None else self._ignition.is_on,
            is_engine_running=None if self._engine is None else self._engine.is_running,
        )

    def _stands_since(self, now_ms: int, wheels_are_fresh: bool, fix_is_fresh: bool) -> int | None:
        """Since when the van stands, by the best witness awake: wheels, then satellites, then a sleeping bus."""
        if wheels_are_fresh:
            return self._wheel_stands_since_ms
        if fix_is_fresh:
            return self._gnss_stands_since_ms
        bus_sleeps = self._ignition is not None and not self._ignition.is_on
        if bus_sleeps and self._ignition is not None:
            # What stood before the bus fell asleep still stands; what rolled may only have lost its cable.
            if self._wheel_stands_since_ms is not None:
                return self._wheel_stands_since_ms
            if now_ms - self._ignition.at_ms <= self._limits.wake_fresh_s * 1000:
                return self._ignition.at_ms
        return None

    def _judge(self, reading: Reading) -> Refusal | None:
        if not 0 <= reading.at_ms < TIME_LIMIT_MS:
            return Refusal("TimeOutOfRange", f"received at {_shown(reading.at_ms)} ms, expected 0 to 2^53")
        match reading:
            case Fix():
                return self._judge_fix(reading)
            case WheelSpeed():
                return self._judge_wheels(reading)
            case Odometer():
                return self._judge_odometer(reading)
            case FuelOrCharge():
                if not 0 <= reading.share <= 1:
                    return Refusal("ShareOutOfRange", f"a share of {_shown(reading.share)}, expected 0 to 1")
                self._share = reading.share
            case OutsideTemperature():
                if not -60 <= reading.celsius <= 70:
                    return Refusal("TemperatureOutOfRange", f"{_shown(reading.celsius)} C, expected -60 to 70")
                self._outside_c = reading.celsius
            case Ignition():
                self._ignition = reading
            case EngineRunning():
                self._engine = reading
            case VoidFix() | Scan():
                # A void fix makes no belief worse than its age already does; a scan is the core's to judge.
                pass
        return None

    def _judge_fix(self, fix: Fix) -> Refusal | None:
        refusal = _nonsense_in(fix)
        if refusal is not None:
            return refusal
        doubt = self._doubt_about(fix)
        if doubt is None:
            self._forget_doubted()
            self._believe_fix(fix, is_relocation=False)
            return None
        if not self._agrees_with_doubted(fix):
            return doubt
        self._relocations += 1
        if self._is_off_in_time(fix) is not None:
            self._clock_gap_ms = self._gap_of(fix)
        self._forget_doubted()
        self._believe_fix(fix, is_relocation=True)
        return None

    def _doubt_about(self, fix: Fix) -> Refusal | None:
        """What makes this fix hard to believe beside what is believed already."""
        is_off = self._is_off_in_time(fix)
        if is_off is not None:
            return is_off
        if self._fix is not None and _instant_of(fix) <= _instant_of(self._fix):
            return Refusal("FixNotNewer", f"dated {_instant_of(fix)} ms, the one before {_instant_of(self._fix)} ms")
        if self._place is None:
            return None
        position, at_ms = self._place
        elapsed_s = max(0, fix.at_ms - at_ms) / 1000
        if self._fix is not None:
            elapsed_s = (_instant_of(fix) - _instant_of(self._fix)) / 1000
        found_m, reach_m = metres_between(position, fix.position), self._reach_m(fix.at_ms, elapsed_s)
        if found_m > reach_m:
            return Refusal("FixTooFarAway", f"{found_m:.0f} m in {elapsed_s:.1f} s, expected at most {reach_m:.0f} m")
        before = self._fix
        if before is None or fix.speed_mps is None or before.speed_mps is None:
            return None
        change_mps = abs(fix.speed_mps - before.speed_mps)
        if change_mps > MAX_CHANGE_MPS2 * elapsed_s + SPEED_SLACK_MPS:
            return Refusal("SpeedJumped", f"by {change_mps:.1f} m/s in {elapsed_s:.1f} s")
        return None

    def _is_off_in_time(self, fix: Fix) -> Refusal | None:
        off_ms = self._gap_of(fix) - self._clock_gap_ms
        if off_ms > self._limits.ahead_s * 1000:
            return Refusal("FixFromFuture", f"dated {off_ms} ms ahead of our clock")
        if off_ms < -self._limits.behind_s * 1000:
            return Refusal("FixTooOld", f"dated {-off_ms} ms behind our clock")
        return None

    def _reach_m(self, now_ms: int, elapsed_s: float) -> float:
        """How far the van can have come, by its wheels when they were heard all the time, else by any van's best."""
        top_mps = MAX_SPEED_MPS
        wheels_cover = self._fix is not None and self._wheels_known_from_ms <= self._fix.at_ms
        if wheels_cover and self._wheels_are_fresh(now_ms):
            top_mps = min(top_mps, self._top_wheel_mps * WHEELS_READ_SHORT + WHEEL_SLACK_MPS)
        return top_mps * elapsed_s + REACH_SLACK_M

    def _agrees_with_doubted(self, fix: Fix) -> bool:
        """Put a doubted fix beside the others; True once enough of them tell one story that could be true."""
        if not self._doubted or not _follows(self._doubted[-1], fix):
            self._doubted, self._doubted_count = [fix], 1
            return False
        first = self._doubted[0]
        self._doubted = [first, fix]
        self._doubted_count += 1
        told_ms, heard_ms = _instant_of(fix) - _instant_of(first), fix.at_ms - first.at_ms
        if min(told_ms, heard_ms) < self._limits.agreement_s * 1000:
            return False
        # A backlog read after a pause tells minutes in a moment: its dates advance but the receiver's now is elsewhere.
        keeps_pace = abs(told_ms - heard_ms) <= 0.25 * told_ms + 0.5 * self._limits.agreement_s * 1000
        if not keeps_pace:
            self._doubted, self._doubted_count = [fix], 1
        return self._doubted_count >= AGREEING

    def _forget_doubted(self) -> None:
        self._doubted, self._doubted_count = [], 0

    def _gap_of(self, fix: Fix) -> int:
        return 0 if fix.utc_ms is None else fix.utc_ms - fix.at_ms

    def _believe_fix(self, fix: Fix, is_relocation: bool) -> None:
        self._watch_for_standstill(fix, is_relocation)
        wheels_measured_it = self._wheels_are_fresh(fix.at_ms)
        if wheels_measured_it or is_relocation or self._counted_to is None:
            self._counted_to, self._wheel_m = fix.position, 0.0
        elif self._gnss_stands_since_ms is None:
            self._count_metres_to(fix.position)
        self._fix = fix
        self._place = (fix.position, fix.at_ms)
        self._top_wheel_mps = self._wheel.speed_mps if self._wheel is not None and wheels_measured_it else 0.0

    def _count_metres_to(self, position: Position) -> None:
        """Count in strides: ten times a second, the receiver's noise alone would add up to a quarter more."""
        assert self._counted_to is not None, "strides are counted from a place"
        stride_m = metres_between(self._counted_to, position)
        if stride_m >= STRIDE_M:
            self._driven_m += max(0.0, stride_m - self._wheel_m)
            self._counted_to, self._wheel_m = position, 0.0

    def _watch_for_standstill(self, fix: Fix, is_relocation: bool) -> None:
        """Standing means slow and near the anchor, the fix at which the van came to rest."""
        anchor = self._anchor
        has_left = anchor is None or is_relocation
        if anchor is not None:
            has_left = has_left or metres_between(anchor.position, fix.position) > STANDING_RADIUS_M
        speed_mps = fix.speed_mps
        if speed_mps is None and anchor is not None and not has_left:
            # A receiver that tells no speed: it rests when it has stayed within the radius for longer than a light.
            speed_mps = 0.0 if fix.at_ms - anchor.at_ms >= self._limits.behind_s * 1000 else None
        is_moving = speed_mps is not None and speed_mps > GNSS_MOVING_MPS
        if has_left or is_moving:
            self._anchor, self._gnss_stands_since_ms = fix, None
        if self._gnss_stands_since_ms is None and speed_mps is not None and speed_mps < GNSS_STANDING_MPS:
            if fix.speed_mps is not None:
                self._anchor = fix
            self._gnss_stands_since_ms = fix.at_ms if self._anchor is None else self._anchor.at_ms

    def _wheels_are_fresh(self, now_ms: int) -> bool:
        return self._wheel is not None and now_ms - self._wheel.at_ms <= self._limits.wheel_fresh_s * 1000

    def _judge_wheels(self, wheels: WheelSpeed) -> Refusal | None:
        if not 0 <= wheels.speed_mps <= MAX_SPEED_MPS:
            return Refusal("SpeedOutOfRange", f"wheels at {_shown(wheels.speed_mps)} m/s, expected 0 to 60")
        doubt = self._doubt_about_wheels(wheels)
        if doubt is not None and self._wheel_doubts + 1 < AGREEING:
            self._wheel_doubts += 1
            return doubt
        self._wheel_doubts = 0
        self._believe_wheels(wheels)
        return None

    def _doubt_about_wheels(self, wheels: WheelSpeed) -> Refusal | None:
        before = self._wheel
        if before is None:
            return None
        elapsed_s = (wheels.at_ms - before.at_ms) / 1000
        if elapsed_s < 0:
            return Refusal("ReadingNotNewer", f"wheel speed received {-elapsed_s:.1f} s before the last one")
        change_mps = abs(wheels.speed_mps - before.speed_mps)
        if change_mps > MAX_CHANGE_MPS2 * elapsed_s + SPEED_SLACK_MPS:
            return Refusal("SpeedJumped", f"wheels by {change_mps:.1f} m/s in {elapsed_s:.1f} s")
        return None

    def _believe_wheels(self, wheels: WheelSpeed) -> None:
        before = self._wheel
        if before is None or not 0 <= wheels.at_ms - before.at_ms <= self._limits.wheel_fresh_s * 1000:
            self._wheels_known_from_ms = wheels.at_ms
            self._wheel_stands_since_ms = None
        else:
            turned_m = (before.speed_mps + wheels.speed_mps) / 2 * (wheels.at_ms - before.at_ms) / 1000
            self._driven_m += turned_m
            self._wheel_m += turned_m
        self._top_wheel_mps = max(self._top_wheel_mps, wheels.speed_mps)
        if wheels.speed_mps > ROLLING_MPS:
            self._wheel_stands_since_ms = None
        elif self._wheel_stands_since_ms is None:
            self._wheel_stands_since_ms = wheels.at_ms
        self._wheel = wheels

    def _judge_odometer(self, odometer: Odometer) -> Refusal | None:
        if not 0 <= odometer.metres <= ODOMETER_LIMIT_M:
            return Refusal("OdometerOutOfRange", f"{_shown(odometer.metres)} m, expected 0 to 4.3e9")
        doubt = _doubt_about_odometer(self._odometer, odometer)
        confirms = self._odometer_doubt is not None and _doubt_about_odometer(self._odometer_doubt, odometer) is None
        if doubt is not None and not confirms:
            self._odometer_doubt = odometer
            return doubt
        if doubt is not None or self._odometer_zero_m is None:
            # An exchanged instrument cluster, or the first word of this one: count on from what we have driven.
            self._odometer_zero_m = odometer.metres - self._driven_m
        self._odometer, self._odometer_doubt = odometer, None
        # Its steps are coarse, so it only pushes us on where we missed more than a step (the agent was away).
        self._driven_m = max(self._driven_m, odometer.metres - self._odometer_zero_m - ODOMETER_READS_AHEAD_M)
        return None


def _nonsense_in(fix: Fix) -> Refusal | None:
    """What no agreement can make true."""
    lat, lon = fix.position.lat, fix.position.lon
    if not (-90 <= lat <= 90 and -180 <= lon <= 180):
        return Refusal("PositionOutOfRange", f"({_shown(lat)}, {_shown(lon)}), expected degrees of WGS 84")
    if abs(lat) < NULL_ISLAND_DEG and abs(lon) < NULL_ISLAND_DEG:
        return Refusal("NullIsland", "a fix at 0, 0 is what a receiver says that has none")
    if fix.hdop is not None and not 0 < fix.hdop <= MAX_HDOP:
        return Refusal("PrecisionTooLow", f"hdop {_shown(fix.hdop)}, expected at most {MAX_HDOP:.0f}")
    if fix.satellites is not None and not 3 <= fix.satellites <= 200:
        return Refusal("NoSatellites", f"{_shown(fix.satellites)} satellites, expected 3 or more")
    if fix.speed_mps is not None and not 0 <= fix.speed_mps <= MAX_SPEED_MPS:
        return Refusal("SpeedOutOfRange", f"{_shown(fix.speed_mps)} m/s, expected 0 to {MAX_SPEED_MPS:.0f}")
    if fix.course_deg is not None and not 0 <= fix.course_deg <= 360:
        return Refusal("CourseOutOfRange", f"{_shown(fix.course_deg)} degrees, expected 0 to 360")
    if fix.utc_ms is not None and not 0 <= fix.utc_ms < TIME_LIMIT_MS:
        return Refusal("TimeOutOfRange", f"dated {_shown(fix.utc_ms)} ms, expected 0 to 2^53")
    return None


def _follows(before: Fix, fix: Fix) -> bool:
    """Whether one van can have sent both, in this order."""
    elapsed_s = (_instant_of(fix) - _instant_of(before)) / 1000
    if elapsed_s <= 0 or fix.at_ms < before.at_ms or (fix.utc_ms is None) != (before.utc_ms is None):
        return False
    return metres_between(before.position, fix.position) <= MAX_SPEED_MPS * elapsed_s + REACH_SLACK_M


def _instant_of(fix: Fix) -> int:
    """When the van was there: by the receiver's date, else by our clock when we heard it."""
    return fix.at_ms if fix.utc_ms is None else fix.utc_ms


def _doubt_about_odometer(before: Odometer | None, odometer: Odometer) -> Refusal | None:
    if before is None:
        return None
    if odometer.metres < before.metres:
        return Refusal("OdometerWentBack", f"from {before.metres:.0f} m to {odometer.metres:.0f} m")
    elapsed_s = max(0, odometer.at_ms - before.at_ms) / 1000
    if odometer.metres - before.metres > MAX_SPEED_MPS * elapsed_s + ODOMETER_STEP_M:
        return Refusal("OdometerJumped", f"by {odometer.metres - before.metres:.0f} m in {elapsed_s:.1f} s")
    return None


def _shown(number: float) -> str:
    """A number as a message shows it: short, and safe for integers that no float holds."""
    if isinstance(number, int) and abs(number) >= TIME_LIMIT_MS:
        return "more than 2^53" if number > 0 else "less than -2^53"
    return f"{number:.6g}" if math.isfinite(number) else str(number)
