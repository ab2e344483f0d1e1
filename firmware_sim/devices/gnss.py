"""Be a GNSS receiver: say where the van is in NMEA 0183, with the errors receivers make.

The error of a fix wanders (first-order Gauss-Markov: multipath changes over a minute, not from fix to fix).
Void fixes, dropouts, wrong checksums and garbage come in runs and at rates that are set, from a seed.
"""

import datetime
import math
import random
import threading
import time

import msgspec

from firmware_sim.devices import ByteServer, Truth, VanTruth
from shared.quantities import Position

KNOT_MPS = 1852 / 3600
DEGREE_M = 111_195.0
ERROR_LASTS_S = 60.0


class GnssFaults(msgspec.Struct, frozen=True):
    """How a receiver errs. Shares are of fixes, 0 to 1; runs are the mean length in fixes."""

    noise_m: float = 3.0
    speed_noise_mps: float = 0.1
    void_share: float = 0.0
    void_run: float = 10.0
    dropout_share: float = 0.0
    dropout_run: float = 10.0
    wrong_checksum_share: float = 0.0
    garbage_share: float = 0.0


class GnssReceiver:
    """A receiver on TCP and, when wanted, a serial line. Started by `start`, ended by `stop`."""

    def __init__(
        self,
        truth: Truth,
        rate_hz: float = 1.0,
        seed: int = 0,
        faults: GnssFaults = GnssFaults(),  # noqa: B008, frozen
        host: str = "127.0.0.1",
        port: int = 0,
        has_serial_line: bool = False,
        talker: str = "GN",
    ) -> None:
        if not 0.1 <= rate_hz <= 20:
            raise ValueError(f"a receiver cannot fix {rate_hz} times a second; expected 0.1 to 20, most do 1 to 10")
        self._truth = truth
        self._every_s = 1 / rate_hz
        self._voice = GnssVoice(seed, faults, talker)
        self._server = ByteServer(host, port, has_serial_line)
        self.url, self.serial_url, self.port = self._server.url, self._server.serial_url, self._server.port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"gnss {self.url}", daemon=True)

    def start(self) -> None:
        """Begin to speak; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Fall silent and close."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self._server.stop()

    def hang_up(self) -> None:
        """Drop the listeners, as a gateway does that restarts."""
        self._server.hang_up()

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stop.is_set():
            self._server.say(self._voice.say(self._truth()))
            # A paused process takes up its rhythm again and does not catch up.
            due_s = max(due_s + self._every_s, time.monotonic())
            self._stop.wait(max(0.0, due_s - time.monotonic()))


class GnssVoice:
    """What one receiver says, fix by fix; the same seed and the same truths say the same."""

    def __init__(self, seed: int, faults: GnssFaults, talker: str = "GN") -> None:
        self._random = random.Random(f"gnss {seed}")
        self._faults = faults
        self._talker = talker
        self._error_m: tuple[float, float] | None = None
        self._erred_at_ms = 0
        self._is_void = False
        self._is_silent = False

    def say(self, truth: VanTruth) -> bytes:
        """The bytes for one fix: RMC and GGA, or what a fault makes of them."""
        faults = self._faults
        self._wander(truth.utc_ms)
        self._is_void = self._changes(self._is_void, faults.void_share, faults.void_run)
        self._is_silent = self._changes(self._is_silent, faults.dropout_share, faults.dropout_run)
        if self._is_silent:
            return b""
        sentences = void_sentences(truth.utc_ms, self._talker) if self._is_void else self._sentences(truth)
        return b"".join(self._garbled(sentence) for sentence in sentences)

    def _sentences(self, truth: VanTruth) -> list[str]:
        north_m, east_m = self._error_m or (0.0, 0.0)
        place = Position(
            lat=truth.position.lat + north_m / DEGREE_M,
            lon=truth.position.lon + east_m / (DEGREE_M * math.cos(math.radians(truth.position.lat))),
        )
        speed_mps = abs(truth.speed_mps + self._random.gauss(0, self._faults.speed_noise_mps))
        off_m = math.hypot(north_m, east_m)
        hdop = round(0.8 + off_m / 20, 1)
        satellites = max(4, round(11 - off_m / 8))
        return fix_sentences(truth.utc_ms, place, speed_mps, truth.course_deg, satellites, hdop, self._talker)

    def _wander(self, utc_ms: int) -> None:
        sigma_m = self._faults.noise_m
        if self._error_m is None:
            self._error_m = (self._random.gauss(0, sigma_m), self._random.gauss(0, sigma_m))
        keeps = math.exp(-max(0, utc_ms - self._erred_at_ms) / 1000 / ERROR_LASTS_S)
        fresh_m = sigma_m * math.sqrt(1 - keeps * keeps)
        north_m, east_m = self._error_m
        self._error_m = (
            keeps * north_m + self._random.gauss(0, fresh_m),
            keeps * east_m + self._random.gauss(0, fresh_m),
        )
        self._erred_at_ms = utc_ms

    def _changes(self, is_on: bool, share: float, run: float) -> bool:
        """One step of a two-state chain that is on for this share of steps, in runs of this mean length."""
        if share <= 0:
            return False
        if is_on:
            return self._random.random() >= 1 / max(1.0, run)
        return self._random.random() < share / ((1 - share) * max(1.0, run)) if share < 1 else True

    def _garbled(self, sentence: str) -> bytes:
        said = sentence.encode("ascii")
        if self._random.random() < self._faults.wrong_checksum_share:
            # One digit falls over on the line; the checksum stays.
            at = self._random.randrange(7, len(said) - 5)
            said = said[:at] + bytes((said[at] ^ 0x01,)) + said[at + 1 :]
        if self._random.random() < self._faults.garbage_share:
            noise = b"\xb5\x62" + self._random.randbytes(self._random.randrange(4, 40))
            said = noise + said if self._random.random() < 0.5 else said[: self._random.randrange(len(said))] + noise
        return said


def fix_sentences(
    utc_ms: int, place: Position, speed_mps: float, course_deg: float, satellites: int, hdop: float, talker: str = "GN"
) -> list[str]:
    """RMC and GGA of one fix, each with checksum and CR LF (NMEA 0183 4.11)."""
    clock, date = _clock_and_date(utc_ms)
    lat = _degrees(abs(place.lat), 2) + ("N" if place.lat >= 0 else "S")
    lon = _degrees(abs(place.lon), 3) + ("E" if place.lon >= 0 else "W")
    lat, lon = f"{lat[:-1]},{lat[-1]}", f"{lon[:-1]},{lon[-1]}"
    knots = speed_mps / KNOT_MPS
    return [
        sentence(f"{talker}RMC,{clock},A,{lat},{lon},{knots:.3f},{course_deg % 360:.2f},{date},,,A"),
        sentence(f"{talker}GGA,{clock},{lat},{lon},1,{satellites:02d},{hdop:.1f},12.0,M,17.5,M,,"),
    ]


def void_sentences(utc_ms: int, talker: str = "GN") -> list[str]:
    """RMC and GGA of a receiver that knows the time but not the place."""
    clock, date = _clock_and_date(utc_ms)
    return [sentence(f"{talker}RMC,{clock},V,,,,,,,{date},,,N"), sentence(f"{talker}GGA,{clock},,,,,0,00,99.9,,,,,,")]


def sentence(body: str) -> str:
    """A line of NMEA 0183 from what stands between $ and *."""
    checksum = 0
    for letter in body:
        checksum ^= ord(letter)
    return f"${body}*{checksum:02X}\r\n"


def _clock_and_date(utc_ms: int) -> tuple[str, str]:
    seconds, milliseconds = divmod(utc_ms, 1000)
    instant = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{instant:%H%M%S}.{milliseconds // 10:02d}", f"{instant:%d%m%y}"


def _degrees(degrees: float, digits: int) -> str:
    """Degrees as ddmm.mmmmm, rounded before they are split so that 60 minutes never appear."""
    hundred_thousandths = round(degrees * 60 * 100_000)
    whole, rest = divmod(hundred_thousandths, 60 * 100_000)
    return f"{whole:0{digits}d}{rest / 100_000:08.5f}"
