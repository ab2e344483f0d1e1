"""Be the electronics on a vehicle's bus: an OBD-II engine controller of a van, or a truck that talks J1939.

`ObdEcu` answers service 01 on 0x7DF and 0x7E0 from 0x7E8, by ISO-TP (SAE J1979, ISO 15765-4). `J1939Truck` says its
parameter groups at the rates of SAE J1939-71, as `shared/waywarden.dbc` has them. With the ignition off both are mute.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import can
import isotp

from firmware_sim.devices import Truth, VanTruth
from shared.near_bus import NearBus

if TYPE_CHECKING:
    from cantools.database.can import Database

FUNCTIONAL_ID, PHYSICAL_ID, ANSWER_ID = 0x7DF, 0x7E0, 0x7E8
CURRENT_DATA, POSITIVE, NEGATIVE = 0x01, 0x40, 0x7F
SERVICE_NOT_SUPPORTED, REQUEST_OUT_OF_RANGE, BUSY_REPEAT, RESPONSE_PENDING = 0x11, 0x31, 0x21, 0x78
SPEED, ENGINE_SPEED, FUEL_LEVEL, OUTSIDE_AIR, ODOMETER = 0x0D, 0x0C, 0x2F, 0x46, 0xA6
SUPPORTED = (SPEED, ENGINE_SPEED, FUEL_LEVEL, OUTSIDE_AIR, ODOMETER)
PADDING = 0xAA
PATIENCE_S = 0.1
REOPEN_AFTER_S = 1.0

logger = logging.getLogger("firmware_sim.devices")


class BusDevice:
    """One thread on a CAN bus, which opens the bus again when it goes away."""

    def __init__(self, bus_url: str) -> None:
        self._bus_url = bus_url
        self._stop = threading.Event()
        self.is_on_bus = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ecu {bus_url}", daemon=True)

    def start(self) -> None:
        """Begin to live on the bus; returns at once. `is_on_bus` is set once the bus is open."""
        self._thread.start()

    def stop(self) -> None:
        """Leave the bus."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _live(self, bus: can.BusABC) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        is_away = False
        while not self._stop.is_set():
            try:
                bus = open_bus(self._bus_url)
                try:
                    is_away = False
                    self.is_on_bus.set()
                    self._live(bus)
                finally:
                    bus.shutdown()
            except (can.CanError, OSError) as error:
                if not is_away:
                    logger.warning("bus_away url=%s: %s", self._bus_url, error)
                is_away = True
                self._stop.wait(REOPEN_AFTER_S)


class ObdEcu(BusDevice):
    """An engine controller. To `unknown_pids` it is silent, or says no where it `says_no_to_unknown`.

    `several_at_once` says whether it takes requests of more than one PID. By the seed, `pending_share` of its answers
    are announced by a "response pending" and `busy_share` of requests are refused as "busy".
    """

    def __init__(
        self,
        bus_url: str,
        truth: Truth,
        unknown_pids: tuple[int, ...] = (),
        says_no_to_unknown: bool = False,
        several_at_once: bool = True,
        pending_share: float = 0.0,
        busy_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(bus_url)
        self._truth = truth
        self._pids = tuple(pid for pid in SUPPORTED if pid not in unknown_pids)
        self._says_no_to_unknown = says_no_to_unknown
        self._several_at_once = several_at_once
        self._pending_share = pending_share
        self._busy_share = busy_share
        self._random = random.Random(f"ecu {seed}")

    def _live(self, bus: can.BusABC) -> None:
        bus.set_filters(
            [
                {"can_id": FUNCTIONAL_ID, "can_mask": 0x7FF, "extended": False},
                {"can_id": PHYSICAL_ID, "can_mask": 0x7FF, "extended": False},
            ]
        )
        frames: deque[isotp.CanMessage] = deque()

        def send(frame: isotp.CanMessage) -> None:
            bus.send(can.Message(arbitration_id=frame.arbitration_id, data=bytes(frame.data), is_extended_id=False))

        layer = isotp.TransportLayerLogic(
            rxfn=lambda _timeout_s: frames.popleft() if frames else None,
            txfn=send,
            address=isotp.Address(isotp.AddressingMode.Normal_11bits, txid=ANSWER_ID, rxid=PHYSICAL_ID),
            params={"stmin": 0, "blocksize": 8, "tx_padding": PADDING, "max_frame_size": 128},
        )
        while not self._stop.is_set():
            frame = _received(bus, 0.002 if layer.transmitting() else PATIENCE_S)
            if frame is not None and self._truth().is_ignition_on:
                # Functional requests are single frames (ISO 15765-2), and are answered as if asked of us alone.
                frames.append(isotp.CanMessage(PHYSICAL_ID, len(frame.data), bytes(frame.data)))
            layer.process()
            while (request := layer.recv()) is not None:
                for answer in self.answers_to(bytes(request)):
                    layer.send(answer)
                layer.process()

    def answers_to(self, request: bytes) -> list[bytes]:
        """What this controller says to one request; nothing when it keeps silent."""
        if not request:
            return []
        service, pids = request[0], request[1:]
        if service != CURRENT_DATA:
            return [bytes((NEGATIVE, service, SERVICE_NOT_SUPPORTED))]
        if self._busy_share and self._random.random() < self._busy_share:
            return [bytes((NEGATIVE, service, BUSY_REPEAT))]
        if len(pids) > 1 and not self._several_at_once:
            return []
        truth = self._truth()
        answer = b"".join(field_of(pid, truth) for pid in pids[:6] if pid in self._pids)
        if not answer:
            return [bytes((NEGATIVE, service, REQUEST_OUT_OF_RANGE))] if self._says_no_to_unknown else []
        whole = bytes((POSITIVE | service,)) + answer
        if self._pending_share and self._random.random() < self._pending_share:
            return [bytes((NEGATIVE, service, RESPONSE_PENDING)), whole]
        return [whole]


def field_of(pid: int, truth: VanTruth) -> bytes:
    """A PID and its bytes (formulas: SAE J1979-DA)."""
    bytes_long, raw = {
        SPEED: (1, truth.speed_mps * 3.6),
        ENGINE_SPEED: (2, truth.engine_rpm * 4),
        FUEL_LEVEL: (1, truth.energy_share * 255),
        OUTSIDE_AIR: (1, truth.outside_c + 40),
        ODOMETER: (4, truth.odometer_m // 100),
    }[pid]
    counted = max(0, min(round(raw), (1 << 8 * bytes_long) - 1))
    return bytes((pid,)) + counted.to_bytes(bytes_long, "big")


class J1939Truck(BusDevice):
    """A truck's controllers. `unavailable` names signals of the DBC that this truck does not measure (sent as 0xFF)."""

    def __init__(self, bus_url: str, truth: Truth, unavailable: tuple[str, ...] = ()) -> None:
        super().__init__(bus_url)
        self._truth = truth
        self._groups = _load_groups()
        self._unavailable = frozenset(unavailable)

    def _live(self, bus: can.BusABC) -> None:
        due_s = dict.fromkeys(_EVERY_S, time.monotonic())
        while not self._stop.is_set():
            now_s = time.monotonic()
            due = [name for name, at_s in due_s.items() if at_s <= now_s]
            truth = self._truth()
            for name in due:
                due_s[name] = max(due_s[name] + _EVERY_S[name], now_s)
                if truth.is_ignition_on:
                    bus.send(self._frame(name, truth))
            self._stop.wait(max(0.0, min(due_s.values()) - time.monotonic()))

    def _frame(self, name: str, truth: VanTruth) -> can.Message:
        group = self._groups.get_message_by_name(name)
        raw = bytearray(b"\xff" * group.length)
        for signal in group.signals:
            number = _SIGNALS.get(signal.name)
            if number is None or signal.name in self._unavailable or signal.start % 8 or signal.length % 8:
                continue
            width = signal.length // 8
            counted = round((number(truth) - float(signal.offset)) / float(signal.scale))
            largest = 0xFA << (8 * (width - 1)) | (256 ** (width - 1) - 1)
            at = signal.start // 8
            raw[at : at + width] = max(0, min(counted, largest)).to_bytes(width, "little")
        return can.Message(arbitration_id=group.frame_id, data=bytes(raw), is_extended_id=True)


_EVERY_S: Mapping[str, float] = {"CCVS1": 0.1, "EEC1": 0.1, "DD1": 1.0, "VDHR": 1.0, "AMB": 1.0}
_SIGNALS: Mapping[str, Callable[[VanTruth], float]] = {
    "WheelBasedVehicleSpeed": lambda truth: abs(truth.speed_mps) * 3.6,
    "EngineSpeed": lambda truth: truth.engine_rpm,
    "FuelLevel1": lambda truth: truth.energy_share * 100,
    "TotalVehicleDistance": lambda truth: truth.odometer_m / 1000,
    "AmbientAirTemperature": lambda truth: truth.outside_c,
}


def _load_groups() -> "Database":
    import cantools

    text = (files("shared") / "waywarden.dbc").read_text(encoding="ascii")
    return cast("Database", cantools.database.load_string(text, "dbc"))


def _received(bus: can.BusABC, timeout_s: float) -> can.Message | None:
    try:
        frame = bus.recv(timeout_s)
    except can.CanOperationError as error:
        if error.__cause__ is None or isinstance(error.__cause__, OSError):
            raise
        return None  # A datagram that is no frame: other people's noise on the group.
    return None if frame is None or frame.is_error_frame or frame.is_remote_frame else frame


def open_bus(url: str) -> can.BusABC:
    """Open `can+udp_multicast://group:port` or `can+<interface>://channel`. Raises can.CanError or OSError."""
    scheme, _, rest = url.partition("://")
    interface = scheme.removeprefix("can+")
    # Split without the scheme: RFC 3986 knows no underscore in one, python-can's names do.
    parts = urlsplit(f"//{rest}")
    if interface == "udp_multicast":
        # Simulated frames stay on this machine.
        return NearBus(parts.hostname or "", parts.port or 43113)
    return can.Bus(interface=interface, channel=parts.netloc + parts.path)
