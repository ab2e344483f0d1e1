"""Listen to one device of the machine, hand on its readings, and come back when it went away.

Each driver is one thread. It opens its device by URL, reads, turns bytes into readings (`edge_agent.sensing`) and gives
them to the callable it was made with, which must only put them on a queue. What cannot be read is refused by name and
counted; when the device goes away the driver tries again, with growing and jittered pauses, for ever. The same driver
reads hardware and simulators: only the URL differs.

Libraries are imported by the driver that needs them, when it is opened: a van with GNSS only never pays for python-can
(resident, after numpy and msgspec: pynmea2 0.6 MB, pyserial 0.3, python-can with its multicast bus 12.1, can-isotp 0.5,
cantools 2.6 and only for J1939).
"""

import logging
import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import SplitResult, parse_qs, urlsplit

import msgspec

from edge_agent.sensing import Reading
from shared.quantities import EpochMs

Clock = Callable[[], int]
"""Domain time now, in whole milliseconds."""

Take = Callable[[Reading], None]
"""Where readings go. Called from the driver's thread; must return at once and never raise."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 15.0
CHUNK_BYTES = 4096

logger = logging.getLogger("edge_agent.drivers")


class DeviceUrlWrong(ValueError):
    """The URL names no device this driver can open."""


class DeviceAway(OSError):
    """The device cannot be opened or has gone; it will be tried again."""


class FrameRefused(Exception):
    """What the device sent cannot be read. The class of the refusal is the name it is counted by."""

    def __init__(self, found: str = "") -> None:
        sentence = " ".join((type(self).__doc__ or "").split())
        super().__init__(f"{sentence} Found: {found}" if found else sentence)


class DriverHealth(msgspec.Struct, frozen=True):
    """How a driver is doing: `away_because` is empty while it listens, `last_reading_at_ms` None before the first."""

    url: str
    is_listening: bool
    away_because: str
    connections: int
    readings: int
    last_reading_at_ms: EpochMs | None
    refused: Mapping[str, int]


class Driver:
    """One thread that listens to one device. Subclasses open the device and pump it dry; this class keeps it alive."""

    def __init__(self, url: str, clock: Clock, take: Take) -> None:
        self.url = url
        self._clock = clock
        self._take = take
        self._refused: Counter[str] = Counter()
        self._is_listening = False
        self._away_because = "not started"
        self._connections = 0
        self._readings = 0
        self._last_reading_at_ms: EpochMs | None = None
        self._stop = threading.Event()
        self._wake_read, self._wake_write = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"driver {url}", daemon=True)

    def start(self) -> None:
        """Begin to listen; returns at once."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop listening and close the device. May be called twice, and before `start`."""
        self._stop.set()
        try:
            self._wake_write.send(b"!")
        except OSError:
            pass  # Stopped before.
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._wake_read.close()
        self._wake_write.close()

    def health(self) -> DriverHealth:
        """How the driver is doing now; may be called from any thread."""
        return DriverHealth(
            url=self.url,
            is_listening=self._is_listening,
            away_because=self._away_because,
            connections=self._connections,
            readings=self._readings,
            last_reading_at_ms=self._last_reading_at_ms,
            refused=dict(self._refused),
        )

    def _listen(self) -> None:
        """Open the device, call `_is_open`, read until `_stop` is set. Raises OSError when the device is away."""
        raise NotImplementedError

    def _is_open(self) -> None:
        """Note that the device answers; logged once per return."""
        self._connections += 1
        self._is_listening, self._away_because = True, ""
        logger.info("device_back url=%s connections=%d", self.url, self._connections)

    def _give(self, reading: Reading) -> None:
        self._readings += 1
        self._last_reading_at_ms = reading.at_ms
        self._take(reading)

    def _refuse(self, refusal: FrameRefused) -> None:
        name = type(refusal).__name__
        self._refused[name] += 1
        if self._refused[name] == 1:
            logger.warning("frame_refused url=%s name=%s: %s", self.url, name, refusal)

    def _now_ms(self) -> EpochMs:
        return EpochMs(self._clock())

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            connections = self._connections
            opened_at_s = time.monotonic()
            try:
                self._listen()
                reason = "closed"
            except OSError as error:
                reason = str(error) or type(error).__name__
            except Exception as fault:
                # The outermost loop: a fault of ours must not leave the agent deaf.
                reason = f"fault of this driver: {fault!r}"
                self._refused["DriverFault"] += 1
                logger.exception("driver_fault url=%s", self.url)
            if self._stop.is_set():
                break
            if self._connections > connections and time.monotonic() - opened_at_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            if self._is_listening or self._away_because == "not started":
                logger.warning("device_away url=%s: %s", self.url, reason)
            self._is_listening, self._away_because = False, reason
            # Jitter keeps ten drivers from knocking on one returning gateway at the same instant.
            self._stop.wait(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
        self._is_listening, self._away_because = False, "stopped"


class ByteStream(Protocol):
    """Bytes from a device, whatever carries them."""

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def read_waiting(self) -> bytes:
        """What has arrived, at least one byte. Raises DeviceAway when the other end has closed."""

    def close(self) -> None:
        """Let the device go."""


class ByteDriver(Driver):
    """A driver of a device that sends a stream of bytes over TCP or a serial line."""

    silence_s: float | None = None
    """A device that says nothing for so long is taken for gone and opened again; None where silence is normal."""

    def __init__(self, url: str, clock: Clock, take: Take) -> None:
        check_byte_url(url)
        super().__init__(url, clock, take)

    def _hear(self, chunk: bytes) -> None:
        """Take the bytes that have arrived."""
        raise NotImplementedError

    def _hear_silence(self) -> None:
        """Take note that nothing came for `patience_s`."""

    def _hear_new_stream(self) -> None:
        """Forget half a line of the stream before."""

    patience_s: float = 1.0

    def _listen(self) -> None:
        stream = open_byte_stream(self.url)
        try:
            self._is_open()
            self._hear_new_stream()
            self._read_until_stopped(stream)
        finally:
            stream.close()

    def _read_until_stopped(self, stream: ByteStream) -> None:
        heard_at_s = time.monotonic()
        while not self._stop.is_set():
            ready, _, _ = select.select([stream.fileno(), self._wake_read.fileno()], [], [], self.patience_s)
            if stream.fileno() in ready:
                heard_at_s = time.monotonic()
                self._hear(stream.read_waiting())
            elif not ready:
                self._hear_silence()
                silent_s = time.monotonic() - heard_at_s
                if self.silence_s is not None and silent_s > self.silence_s:
                    raise DeviceAway(f"connected, but silent for {silent_s:.0f} s")


def open_byte_stream(url: str) -> ByteStream:
    """Open `tcp://host:port` or `serial:///dev/ttyUSB0?baud=9600`. Raises DeviceUrlWrong, OSError when it is away."""
    parts = check_byte_url(url)
    if parts.scheme == "tcp":
        return _TcpStream(parts.hostname or "", parts.port or 0)
    return _SerialStream(parts.path, _baud_of(parts))


def check_byte_url(url: str) -> SplitResult:
    """The parts of the URL of a byte stream. Raises DeviceUrlWrong, saying what is wrong and how to write it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DeviceUrlWrong(f"{url!r}: {error}; expected tcp://host:port") from error
    if parts.scheme == "tcp":
        if not parts.hostname or not port:
            raise DeviceUrlWrong(f"{url!r} lacks a host or a port; expected tcp://host:port")
    elif parts.scheme == "serial":
        if parts.netloc or not parts.path.startswith("/"):
            raise DeviceUrlWrong(f"{url!r} names no device file; expected serial:///dev/ttyUSB0?baud=9600 (3 slashes)")
        _baud_of(parts)
    else:
        raise DeviceUrlWrong(f"{url!r}: scheme {parts.scheme!r} is unknown; expected tcp:// or serial://")
    return parts


def _baud_of(parts: SplitResult) -> int:
    written = parse_qs(parts.query).get("baud", ["9600"])[-1]
    if not written.isascii() or not written.isdigit() or not 300 <= int(written[:9]) <= 4_000_000:
        raise DeviceUrlWrong(f"baud={written!r} is no speed of a serial line; expected 300 to 4000000, such as 9600")
    return int(written[:9])


class _TcpStream:
    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=5.0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A gateway that loses its power says nothing: found out after 20 + 3 x 5 s instead of two hours.
        for option, setting in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), setting)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read_waiting(self) -> bytes:
        chunk = self._socket.recv(CHUNK_BYTES)
        if not chunk:
            raise DeviceAway("the other end closed the connection")
        return chunk

    def close(self) -> None:
        self._socket.close()


class _SerialStream:
    def __init__(self, path: str, baud: int) -> None:
        import serial  # type: ignore[import-untyped]  # pyserial ships no types.

        try:
            # Exclusive: two readers of one line get half the bytes each, and neither knows why.
            self._port = serial.Serial(path, baud, timeout=0, exclusive=True)
        except ValueError as error:
            raise DeviceAway(f"{path} cannot be set to {baud} baud: {error}") from error

    def fileno(self) -> int:
        return int(self._port.fileno())

    def read_waiting(self) -> bytes:
        chunk: bytes = self._port.read(CHUNK_BYTES)
        if not chunk:
            raise DeviceAway("the serial line hung up; was it unplugged?")
        return chunk

    def close(self) -> None:
        self._port.close()


def open_gnss(url: str, clock: Clock, take: Take) -> Driver:
    """A driver of a GNSS receiver that speaks NMEA 0183 over TCP or a serial line. Raises DeviceUrlWrong."""
    from edge_agent.drivers.nmea import NmeaDriver

    return NmeaDriver(url, clock, take)


def open_scanner(url: str, clock: Clock, take: Take) -> Driver:
    """A driver of a hand scanner that sends one label per line over TCP or a serial line. Raises DeviceUrlWrong."""
    from edge_agent.drivers.scanner import ScannerDriver

    return ScannerDriver(url, clock, take)


def open_can(url: str, profile: str, clock: Clock, take: Take) -> Driver:
    """A driver of the vehicle's bus, `profile` being obd2 (vans) or j1939 (trucks). Raises DeviceUrlWrong."""
    from edge_agent.drivers.can import J1939Driver, ObdDriver

    profiles: dict[str, type[Driver]] = {"obd2": ObdDriver, "j1939": J1939Driver}
    if profile not in profiles:
        raise DeviceUrlWrong(f"profile {profile!r} of the vehicle bus is unknown; expected obd2 or j1939")
    return profiles[profile](url, clock, take)
