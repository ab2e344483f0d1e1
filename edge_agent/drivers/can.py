"""Read the vehicle's bus: OBD-II asked over ISO-TP in vans, J1939 listened to in trucks.

The bus is python-can's, named by URL: `can+socketcan://can0` for hardware, `can+udp_multicast://239.74.163.2:43113` for
the simulator in another process of this machine (`shared.near_bus`; with `?hops=1` for one on another machine),
`can+<any other interface of python-can>://channel?bitrate=500000`.

`ObdDriver` is a tester (SAE J1979, ISO 15765-4, 11-bit ids): it asks service 01 on 0x7DF and takes answers from 0x7E8.
The speed is asked by itself five times a second; what changes slowly is asked in one request of several PIDs, whose
answer comes in several frames under flow control (can-isotp), and PID by PID from an ECU that knows no such requests.
A negative response and silence are ordinary; an ECU silent for two seconds sleeps, and is then asked seldom, because
a tester that keeps knocking keeps some gateways awake and empties the battery.

`J1939Driver` only listens. Signals come from `shared/waywarden.dbc` by cantools (imported for trucks only), and
parameter groups are known by PGN from any source address. 0xFF means "not available" and is no reading.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, parse_qs, urlsplit

import can
import isotp

from edge_agent.drivers import Clock, DeviceAway, DeviceUrlWrong, Driver, FrameRefused, Take
from edge_agent.sensing import (
    EngineRunning,
    FuelOrCharge,
    Ignition,
    Odometer,
    OutsideTemperature,
    Reading,
    WheelSpeed,
)
from shared.near_bus import NearBus
from shared.quantities import EpochMs

if TYPE_CHECKING:
    from cantools.database.can import Database, Message

PATIENCE_S = 0.25
ASLEEP_AFTER_S = 2.0
RUNNING_RPM = 300.0  # A starter turns an engine at 150 to 250.

TESTER_ID, ENGINE_PHYSICAL_ID, ENGINE_ANSWER_ID = 0x7DF, 0x7E0, 0x7E8
SPEED_EVERY_S = 0.2
SLOW_EVERY_S = 1.0
ASLEEP_EVERY_S = 2.0
DROPPED_EVERY_S = 60.0
ANSWER_WITHIN_S = 0.15  # ISO 15765-4 allows 50 ms; a gateway or a busy little computer takes longer.
PENDING_WITHIN_S = 5.0
GIVE_UP_AFTER = 3
CURRENT_DATA, NEGATIVE = 0x01, 0x7F
ANSWER_TO_CURRENT_DATA = 0x41
RESPONSE_PENDING = 0x78
SPEED, ENGINE_SPEED, FUEL_LEVEL, OUTSIDE_AIR, ODOMETER = 0x0D, 0x0C, 0x2F, 0x46, 0xA6
PID_BYTES = {SPEED: 1, ENGINE_SPEED: 2, FUEL_LEVEL: 1, OUTSIDE_AIR: 1, ODOMETER: 4}
SLOW_PIDS = (ENGINE_SPEED, FUEL_LEVEL, OUTSIDE_AIR, ODOMETER)
PADDING = 0xCC  # ISO 15765-2 recommends it: fewest stuff bits.

PGN_MASK = 0x03FFFF00


class CanFrameUnreadable(FrameRefused):
    """What came over the bus is no CAN frame."""


class CanErrorFrame(FrameRefused):
    """The bus reports an error of its own; are the bit rate and the termination right?"""


class RequestNotSent(FrameRefused):
    """The bus did not take our request; nobody on it may be awake to acknowledge."""


class IsoTpBroken(FrameRefused):
    """The frames of an answer do not follow each other as ISO-TP has it."""


class NegativeResponse(FrameRefused):
    """The ECU declines to answer."""


class AnswerUnreadable(FrameRefused):
    """The ECU's answer is not one to a question of ours."""


class ParameterGroupTooShort(FrameRefused):
    """The frame holds fewer bytes than its parameter group."""


class SignalInError(FrameRefused):
    """A sensor of the vehicle reports that it is out of order."""


class SignalReserved(FrameRefused):
    """The signal holds a number that J1939 reserves."""


class CanDriver(Driver):
    """A driver of a device on a CAN bus."""

    def __init__(self, url: str, clock: Clock, take: Take, filters: list[can.typechecking.CanFilter]) -> None:
        check_can_url(url)
        super().__init__(url, clock, take)
        self._filters = filters
        self._heard_at_s = 0.0
        self._said_awake_at_s = 0.0
        self._was_awake: bool | None = None

    def _converse(self, bus: can.BusABC) -> None:
        """Speak with the bus until `_stop` is set."""
        raise NotImplementedError

    def _listen(self) -> None:
        bus = open_bus(self.url, self._filters)
        try:
            self._is_open()
            self._heard_at_s = time.monotonic()
            self._converse(bus)
        except can.CanError as error:
            raise DeviceAway(str(error)) from error
        finally:
            bus.shutdown()

    def _receive(self, bus: can.BusABC, timeout_s: float) -> can.Message | None:
        """The next data frame, None when none came in time or what came is refused."""
        try:
            frame = bus.recv(timeout_s)
        except can.CanOperationError as error:
            if error.__cause__ is None or isinstance(error.__cause__, OSError):
                raise
            # python-can tells a datagram that it cannot unpack by an error with the reason as its cause.
            self._refuse(CanFrameUnreadable(repr(error.__cause__)))
            return None
        if frame is None:
            return None
        if frame.is_error_frame:
            self._refuse(CanErrorFrame(f"{frame.arbitration_id:#x}"))
            return None
        return None if frame.is_remote_frame else frame

    def _notice_life(self, has_spoken: bool) -> bool:
        """Tell when the vehicle wakes, falls asleep, and now and then what it is; returns whether it is awake."""
        now_s = time.monotonic()
        if has_spoken:
            self._heard_at_s = now_s
        is_awake = now_s - self._heard_at_s < ASLEEP_AFTER_S if not has_spoken else True
        if not has_spoken and is_awake and self._was_awake is None:
            return True  # Too early to tell.
        if is_awake != self._was_awake or now_s - self._said_awake_at_s >= ASLEEP_EVERY_S:
            self._was_awake, self._said_awake_at_s = is_awake, now_s
            self._give(Ignition(at_ms=self._now_ms(), is_on=is_awake))
        return is_awake


class ObdDriver(CanDriver):
    """Asks a van's engine controller what it knows, by OBD-II."""

    def __init__(self, url: str, clock: Clock, take: Take) -> None:
        answers: can.typechecking.CanFilter = {"can_id": ENGINE_ANSWER_ID, "can_mask": 0x7FF, "extended": False}
        super().__init__(url, clock, take, [answers])
        self._silences = dict.fromkeys(SLOW_PIDS, 0)
        self._several_at_once_silences = 0

    def _converse(self, bus: can.BusABC) -> None:
        frames: deque[isotp.CanMessage] = deque()

        def send_flow_control(frame: isotp.CanMessage) -> None:
            self._has_sent(bus, frame.arbitration_id, bytes(frame.data))

        layer = isotp.TransportLayerLogic(
            rxfn=lambda _timeout_s: frames.popleft() if frames else None,
            txfn=send_flow_control,
            address=isotp.Address(isotp.AddressingMode.Normal_11bits, txid=ENGINE_PHYSICAL_ID, rxid=ENGINE_ANSWER_ID),
            error_handler=lambda error: self._refuse(IsoTpBroken(str(error))),
            params={"stmin": 0, "blocksize": 8, "tx_padding": PADDING, "max_frame_size": 128},
        )
        due_slow_s, rounds = 0.0, 0
        while not self._stop.is_set():
            began_s = time.monotonic()
            answered = self._ask(bus, layer, frames, (SPEED,))
            is_awake = self._notice_life(bool(answered))
            if answered and began_s >= due_slow_s:
                self._ask_slow_ones(bus, layer, frames, rounds)
                due_slow_s, rounds = began_s + SLOW_EVERY_S, rounds + 1
            every_s = SPEED_EVERY_S if is_awake else ASLEEP_EVERY_S
            self._stop.wait(max(0.0, began_s + every_s - time.monotonic()))

    def _ask_slow_ones(
        self, bus: can.BusABC, layer: isotp.TransportLayerLogic, frames: deque[isotp.CanMessage], rounds: int
    ) -> None:
        """All in one request; from an ECU that never answers such a request, one by one."""
        asks_dropped_ones = rounds % round(DROPPED_EVERY_S / SLOW_EVERY_S) == 0
        if self._several_at_once_silences < GIVE_UP_AFTER:
            answered = self._ask(bus, layer, frames, SLOW_PIDS)
            self._several_at_once_silences = 0 if answered else self._several_at_once_silences + 1
            return
        for pid in SLOW_PIDS:
            if self._silences[pid] < GIVE_UP_AFTER or asks_dropped_ones:
                answered = self._ask(bus, layer, frames, (pid,))
                self._silences[pid] = 0 if answered else self._silences[pid] + 1

    def _ask(
        self,
        bus: can.BusABC,
        layer: isotp.TransportLayerLogic,
        frames: deque[isotp.CanMessage],
        pids: tuple[int, ...],
    ) -> set[int]:
        """Ask for PIDs and hand on the readings in the answer; which of them were answered in time."""
        request = bytes((1 + len(pids), CURRENT_DATA, *pids))
        if not self._has_sent(bus, TESTER_ID, request.ljust(8, bytes((PADDING,)))):
            return set()
        deadline_s = time.monotonic() + ANSWER_WITHIN_S
        while not self._stop.is_set() and (left_s := deadline_s - time.monotonic()) > 0:
            frame = self._receive(bus, min(left_s, PATIENCE_S))
            if frame is not None and frame.arbitration_id == ENGINE_ANSWER_ID and not frame.is_extended_id:
                frames.append(isotp.CanMessage(frame.arbitration_id, len(frame.data), bytes(frame.data)))
                deadline_s = max(deadline_s, time.monotonic() + ANSWER_WITHIN_S / 3)
            layer.process()
            while (answer := layer.recv()) is not None:
                if bytes(answer[:3]) == bytes((NEGATIVE, CURRENT_DATA, RESPONSE_PENDING)):
                    deadline_s = time.monotonic() + PENDING_WITHIN_S
                    continue
                try:
                    answered = self._hear(bytes(answer))
                except FrameRefused as refusal:
                    self._refuse(refusal)
                    if isinstance(refusal, NegativeResponse):
                        return set()
                    continue
                if answered & set(pids):
                    return answered
        return set()

    def _hear(self, answer: bytes) -> set[int]:
        """Hand on the readings in one answer; raises FrameRefused for one that holds none."""
        at_ms = self._now_ms()
        fields = fields_in_answer(answer)
        for pid, field in fields.items():
            self._give(reading_of_pid(pid, field, at_ms))
        return set(fields)

    def _has_sent(self, bus: can.BusABC, arbitration_id: int, data: bytes) -> bool:
        try:
            bus.send(can.Message(arbitration_id=arbitration_id, data=data, is_extended_id=False), timeout=0.1)
        except can.CanOperationError as error:
            self._refuse(RequestNotSent(str(error)))
            return False
        return True


def fields_in_answer(answer: bytes) -> dict[int, bytes]:
    """The bytes of each PID in an answer to service 01. Raises NegativeResponse or AnswerUnreadable."""
    if answer[:1] == bytes((NEGATIVE,)):
        raise NegativeResponse(answer[:8].hex(" "))
    if len(answer) < 3 or answer[0] != ANSWER_TO_CURRENT_DATA:
        raise AnswerUnreadable(answer[:8].hex(" "))
    fields: dict[int, bytes] = {}
    at = 1
    while at < len(answer):
        pid = answer[at]
        field = answer[at + 1 : at + 1 + PID_BYTES.get(pid, 0)]
        if pid not in PID_BYTES or len(field) < PID_BYTES[pid]:
            if fields and not answer[at:].strip(bytes((0x00, 0x55, 0xAA, PADDING))):
                break  # Some ECUs pad within the message.
            raise AnswerUnreadable(answer.hex(" "))
        fields[pid] = field
        at += 1 + len(field)
    return fields


def reading_of_pid(pid: int, field: bytes, at_ms: EpochMs) -> Reading:
    """The reading in the bytes of a PID of `PID_BYTES` (formulas: SAE J1979-DA)."""
    raw = int.from_bytes(field, "big")
    if pid == SPEED:
        return WheelSpeed(at_ms=at_ms, speed_mps=raw / 3.6)
    if pid == ENGINE_SPEED:
        return EngineRunning(at_ms=at_ms, is_running=raw / 4 >= RUNNING_RPM)
    if pid == FUEL_LEVEL:
        return FuelOrCharge(at_ms=at_ms, share=raw / 255)
    if pid == OUTSIDE_AIR:
        return OutsideTemperature(at_ms=at_ms, celsius=raw - 40.0)
    assert pid == ODOMETER, f"no formula for PID {pid:#x}"
    return Odometer(at_ms=at_ms, metres=raw * 100.0)


class J1939Driver(CanDriver):
    """Listens to what a truck's controllers tell each other."""

    def __init__(self, url: str, clock: Clock, take: Take) -> None:
        self._groups = load_parameter_groups()
        # Priority and source address are left open: who sends a group differs from truck to truck.
        super().__init__(
            url,
            clock,
            take,
            [{"can_id": pgn << 8, "can_mask": PGN_MASK, "extended": True} for pgn in self._groups],
        )
        self._engine: EngineRunning | None = None
        self._engine_said_at_s = 0.0

    def _converse(self, bus: can.BusABC) -> None:
        while not self._stop.is_set():
            frame = self._receive(bus, PATIENCE_S)
            if frame is None:
                self._notice_life(has_spoken=False)
                continue
            try:
                readings = readings_of_frame(self._groups, frame, self._now_ms())
            except FrameRefused as refusal:
                self._refuse(refusal)
                continue
            self._notice_life(has_spoken=True)
            for reading in readings:
                if not (isinstance(reading, EngineRunning) and self._is_old_news(reading)):
                    self._give(reading)

    def _is_old_news(self, engine: EngineRunning) -> bool:
        """Engine speed comes up to a hundred times a second; that it still runs is worth a word a second."""
        now_s = time.monotonic()
        is_news = self._engine is None or engine.is_running != self._engine.is_running
        if is_news or now_s - self._engine_said_at_s >= SLOW_EVERY_S:
            self._engine, self._engine_said_at_s = engine, now_s
            return False
        return True


def load_parameter_groups() -> Mapping[int, "Message"]:
    """The parameter groups of `shared/waywarden.dbc` by PGN."""
    import cantools

    text = (files("shared") / "waywarden.dbc").read_text(encoding="ascii")
    database = cast("Database", cantools.database.load_string(text, "dbc"))
    return {pgn_of(message.frame_id): message for message in database.messages}


def pgn_of(arbitration_id: int) -> int:
    """The parameter group number in a 29-bit identifier (SAE J1939-21 section 5.2)."""
    pgn = (arbitration_id >> 8) & 0x3FFFF
    # Below 240 the second byte is the address of the receiver and no part of the number.
    return pgn if (pgn >> 8) & 0xFF >= 240 else pgn & 0x3FF00


def readings_of_frame(groups: Mapping[int, "Message"], frame: can.Message, at_ms: EpochMs) -> list[Reading]:
    """The readings in one J1939 frame; none in an unknown group or a signal not available. Raises FrameRefused."""
    group = groups.get(pgn_of(frame.arbitration_id)) if frame.is_extended_id else None
    if group is None:
        return []
    if len(frame.data) < group.length:
        raise ParameterGroupTooShort(f"{len(frame.data)} bytes of {group.name}, expected {group.length}")
    raws = group.decode(bytes(frame.data[: group.length]), decode_choices=False, scaling=False)
    readings: list[Reading] = []
    for signal in group.signals:
        raw = cast("dict[str, int]", raws)[signal.name]
        if signal.length >= 8 and is_available(raw, signal.length, signal.name):
            reading = reading_of_signal(signal.name, float(signal.scale) * raw + float(signal.offset), at_ms)
            readings += [] if reading is None else [reading]
    return readings


def reading_of_signal(name: str, number: float, at_ms: EpochMs) -> Reading | None:
    """The reading in a signal of the DBC, given in the DBC's unit; None for a signal nobody here needs."""
    match name:
        case "WheelBasedVehicleSpeed":
            return WheelSpeed(at_ms=at_ms, speed_mps=number / 3.6)
        case "EngineSpeed":
            return EngineRunning(at_ms=at_ms, is_running=number >= RUNNING_RPM)
        case "FuelLevel1":
            return FuelOrCharge(at_ms=at_ms, share=number / 100)
        case "TotalVehicleDistance":
            return Odometer(at_ms=at_ms, metres=number * 1000)
        case "AmbientAirTemperature":
            return OutsideTemperature(at_ms=at_ms, celsius=number)
    return None


def is_available(raw: int, bits: int, name: str) -> bool:
    """Whether a J1939 signal of 8 bits or more holds a number (SAE J1939-71 table 1). Raises FrameRefused."""
    top = raw >> (bits - 8)
    if top == 0xFE:
        raise SignalInError(f"{name} {raw:#x}")
    if 0xFB <= top <= 0xFD:
        raise SignalReserved(f"{name} {raw:#x}")
    return top != 0xFF


def open_bus(url: str, filters: Iterable[can.typechecking.CanFilter] = ()) -> can.BusABC:
    """Open a CAN bus by its URL. Raises DeviceUrlWrong, or DeviceAway when it cannot be opened now."""
    interface, parts = check_can_url(url)
    try:
        bus: can.BusABC
        if interface == "udp_multicast":
            bus = _open_multicast(parts)
        else:
            bus = can.Bus(interface=interface, channel=parts.netloc + parts.path, **_bitrate_of(parts))
        bus.set_filters(list(filters) or None)
    except (can.CanError, OSError, ValueError, ImportError) as error:
        raise DeviceAway(f"{url} cannot be opened: {error}") from error
    return bus


def _open_multicast(parts: SplitResult) -> can.BusABC:
    """On this machine only, so that two demos in one office do not mix their vans, unless `hops` says how far."""
    group, port = parts.hostname or "", parts.port or 43113
    hops = _whole_number_in(parts, "hops", "routers to cross, such as 1")
    if not hops:
        return NearBus(group, port)
    return can.Bus(interface="udp_multicast", channel=group, port=port, hop_limit=hops, fd=False)


def check_can_url(url: str) -> tuple[str, SplitResult]:
    """The interface of python-can and the rest of a CAN bus's URL. Raises DeviceUrlWrong, saying what to write."""
    scheme, _, rest = url.partition("://")
    try:
        # Split without the scheme: RFC 3986 knows no underscore in one, python-can's names do.
        parts = urlsplit(f"//{rest}")
        _ = parts.port
    except ValueError as error:
        raise DeviceUrlWrong(f"{url!r}: {error}; expected can+socketcan://can0") from error
    interface = scheme.removeprefix("can+")
    if interface == scheme or interface not in can.VALID_INTERFACES:
        known = ", ".join(sorted(can.VALID_INTERFACES))
        raise DeviceUrlWrong(
            f"{url!r} names no CAN interface; expected can+<interface>://<channel> with one of {known}"
        )
    if interface == "udp_multicast" and not parts.hostname:
        raise DeviceUrlWrong(f"{url!r} lacks a group; expected can+udp_multicast://239.74.163.2:43113")
    if not parts.netloc and not parts.path:
        raise DeviceUrlWrong(f"{url!r} lacks a channel; expected can+socketcan://can0")
    _bitrate_of(parts)
    _whole_number_in(parts, "hops", "routers to cross, such as 1")
    return interface, parts


def _bitrate_of(parts: SplitResult) -> dict[str, Any]:
    bitrate = _whole_number_in(parts, "bitrate", "bits per second, such as 250000")
    return {} if bitrate is None else {"bitrate": bitrate}


def _whole_number_in(parts: SplitResult, name: str, expected: str) -> int | None:
    written = parse_qs(parts.query).get(name, [None])[-1]
    if written is None:
        return None
    if not written.isascii() or not written.isdigit() or len(written) > 8:
        raise DeviceUrlWrong(f"{name}={written!r} in the bus's URL; expected {expected}")
    return int(written)
