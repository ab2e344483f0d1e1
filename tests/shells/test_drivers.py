"""The drivers of the van's devices against real sockets, serial lines and buses, and against garbage on each."""

import os
import queue
import socket
import subprocess
import sys
import time
import tty
from collections.abc import Iterator

import can
import pytest
from can.interfaces.udp_multicast.utils import unpack_message
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.drivers import (
    DeviceUrlWrong,
    Driver,
    DriverHealth,
    FrameRefused,
    open_can,
    open_gnss,
    open_scanner,
)
from edge_agent.drivers.can import (
    fields_in_answer,
    is_available,
    load_parameter_groups,
    pgn_of,
    reading_of_pid,
    readings_of_frame,
)
from edge_agent.drivers.nmea import FixAssembler, LineFramer, NmeaDriver
from edge_agent.drivers.scanner import LabelFramer, ScannerDriver
from edge_agent.sensing import (
    EngineRunning,
    Fix,
    FuelOrCharge,
    Ignition,
    Odometer,
    OutsideTemperature,
    Reading,
    Scan,
    VoidFix,
    WheelSpeed,
)
from shared.near_bus import NearBus
from shared.quantities import EpochMs

NOON_MS = 1_780_000_000_000
# The pair every description of NMEA 0183 shows.
GGA = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n"
RMC = b"$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A\r\n"
UTC_OF_PAIR_MS = 764_426_119_000  # 1994-03-23T12:35:19Z


def summed(body: str) -> bytes:
    """An NMEA line with the checksum that fits, whatever the body says."""
    checksum = 0
    for letter in body:
        checksum ^= ord(letter)
    return f"${body}*{checksum:02X}\r\n".encode()


class Gateway:
    """The far end of a TCP device: accepts one listener at a time and says what the test wants."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(10)
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._listeners: list[socket.socket] = []

    def accept(self) -> socket.socket:
        listener, _ = self._server.accept()
        self._listeners.append(listener)
        return listener

    def close(self) -> None:
        self._server.close()
        for listener in self._listeners:
            listener.close()


class Heard:
    """Where a driver under test puts its readings."""

    def __init__(self) -> None:
        self.readings: queue.Queue[Reading] = queue.Queue()

    def next(self, kind: type = object) -> Reading:
        """The next reading of a kind; fails when none comes within ten seconds."""
        deadline_s = time.monotonic() + 10
        while True:
            reading = self.readings.get(timeout=max(0.01, deadline_s - time.monotonic()))
            if isinstance(reading, kind):
                return reading


def now_ms() -> int:
    return NOON_MS


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.close()


@pytest.fixture
def started() -> Iterator[list[Driver]]:
    """Drivers put in here are stopped after the test."""
    drivers: list[Driver] = []
    yield drivers
    for driver in drivers:
        driver.stop()


def begin(driver: Driver, started: list[Driver]) -> Driver:
    started.append(driver)
    driver.start()
    return driver


def health_when(driver: Driver, is_so) -> DriverHealth:
    """The driver's health once it is as claimed; fails after ten seconds."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        health = driver.health()
        if is_so(health):
            return health
        time.sleep(0.01)
    raise AssertionError(f"not so within 10 s: {driver.health()}")


def assembled(*lines: bytes) -> list[Reading]:
    """The readings in lines, refusals left out."""
    assembler, readings = FixAssembler(), []
    for line in LineFramer().feed(b"".join(lines)):
        if isinstance(line, bytes):
            readings += assembler.feed(line, EpochMs(NOON_MS))
    return readings


def refusal_by(reads, *what) -> str | None:
    """The name by which a reader refuses what it is given, None when it does not; any other exception comes through."""
    try:
        reads(*what)
    except FrameRefused as refusal:
        return type(refusal).__name__
    return None


def refusal_of(line: bytes) -> str:
    """The name a whole stream of bytes is refused by."""
    for found in LineFramer().feed(line):
        if isinstance(found, FrameRefused):
            return type(found).__name__
        try:
            FixAssembler().feed(found, EpochMs(NOON_MS))
        except FrameRefused as refusal:
            return type(refusal).__name__
    return "nothing refused"


# NMEA 0183.


def test_rmc_and_gga_of_one_instant_are_one_fix():
    (fix,) = assembled(GGA, RMC)
    assert isinstance(fix, Fix)
    assert (round(fix.position.lat, 6), round(fix.position.lon, 6)) == (48.1173, 11.516667)
    assert (round(fix.speed_mps, 3), fix.course_deg) == (11.524, 84.4)
    assert (fix.satellites, fix.hdop, fix.utc_ms, fix.at_ms) == (8, 0.9, UTC_OF_PAIR_MS, NOON_MS)


def test_a_receiver_that_sends_only_rmc_is_not_made_to_wait_after_its_first_word():
    lines = [summed(f"GNRMC,1200{n:02d}.00,A,6010.000,N,02456.000,E,0.1,,010626,,,A") for n in range(4)]
    assembler, said = FixAssembler(), []
    for line in lines:
        said.append(len(assembler.feed(line.strip(), EpochMs(NOON_MS))))
    assert said == [0, 2, 1, 1]


def test_a_fix_without_a_date_is_of_the_day_nearest_to_now():
    lines = [summed(f"GNGGA,2359{n:02d}.00,6010.000,N,02456.000,E,1,09,0.8,10,M,18,M,,") for n in (50, 51, 52)]
    assembler = FixAssembler()
    just_after_midnight_ms = EpochMs(1_780_012_801_000)  # 2026-05-29T00:00:01Z
    fixes = [reading for line in lines for reading in assembler.feed(line.strip(), just_after_midnight_ms)]
    assert fixes[0].utc_ms == just_after_midnight_ms - 11_000


@pytest.mark.parametrize(
    "pair",
    [
        [summed("GNRMC,120000.00,V,,,,,,,010626,,,N"), summed("GNGGA,120000.00,,,,,0,00,99.9,,,,,,")],
        [summed("GPRMC,,V,,,,,,,,,,N"), summed("GPGGA,,,,,,0,,,,,,,,")],
        [summed("GNRMC,120000.00,A,6010.0,N,02456.0,E,0,0,010626,,,N"), summed("GNGGA,120000.00,,,,,0,,,,,,,,")],
    ],
)
def test_a_receiver_that_does_not_know_says_a_void_fix(pair):
    assert assembled(*pair) == [VoidFix(at_ms=EpochMs(NOON_MS))]


def test_every_satellite_system_may_talk():
    for talker in ("GP", "GN", "GL", "GA"):
        body = RMC[3:-5].decode()
        assert len(assembled(summed(talker + body), summed(talker + GGA[3:-5].decode()))) == 1


def test_sentences_of_other_kinds_are_passed_over():
    assert assembled(summed("GPGSV,1,1,01,01,40,083,46"), summed("PUBX,00,1"), summed("GNTXT,01,01,02,ok")) == []


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (RMC.replace(b"4807", b"4907"), "FrameChecksumWrong"),
        (RMC.replace(b"*6A", b""), "FrameChecksumMissing"),
        (RMC[:30] + RMC, "FrameCut"),
        (b"$" + b"G" * 500 + b"\r\n", "FrameTooLong"),
        (b"\xb5\x62\x01\x07\x5c\x00" + RMC, "NoiseBetweenFrames"),
        (b"$GPRMC,\xff\xfe*00\r\n", "FrameNotText"),
        (summed("AIRMC,123519,A,4807.038,N,01131.000,E,1,1,230394,,"), "TalkerUnknown"),
        (summed("GPRMC,123519,A,4807.038,X,01131.000,E,1,1,230394,,"), "FieldUnreadable"),
        (summed("GPRMC,123519,A,abc,N,01131.000,E,1,1,230394,,"), "FieldUnreadable"),
        (summed("GPRMC,123519,A,9907.038,N,01131.000,E,1,1,230394,,"), "FieldUnreadable"),
        (summed("GPRMC,256199,A,4807.038,N,01131.000,E,1,1,230394,,"), "FieldUnreadable"),
        (summed("GPRMC,123519,A,4807.038,N,01131.000,E,fast,1,230394,,"), "FieldUnreadable"),
        (summed("GPRMC,123519,A,4807.038,N,01131.000,E,nan,1,230394,,"), "FieldUnreadable"),
        (summed("GPRMC,123519,A,4807.038,N,01131.000,E,1,1,320394,,"), "FieldUnreadable"),
        (summed("GPRMC,123519,Q,4807.038,N,01131.000,E,1,1,230394,,"), "FieldUnreadable"),
        (summed("GPRMC"), "FrameUnreadable"),
        (summed("GPGGA,123519,4807.038,N,01131.000,E,1,many,0.9,5,M,4,M,,"), "FieldUnreadable"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_by_name(said, name):
    assert refusal_of(said) == name


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([GGA, RMC, b"$", b"\r\n", b"$GPRMC,"]), max_size=30))
def test_after_any_bytes_the_next_whole_pair_is_read(chunks):
    framer, assembler = LineFramer(), FixAssembler()
    readings = []
    pair = [summed(f"GNRMC,{t},A,6010.0,N,02456.0,E,1,1,010626,,,A") for t in ("101112.00", "101113.00", "101114.00")]
    for chunk in [*chunks, b"\r\n", *pair]:
        for line in framer.feed(chunk):
            try:
                if isinstance(line, bytes):
                    readings += assembler.feed(line, EpochMs(NOON_MS))
            except FrameRefused:
                continue
    assert isinstance(readings[-1], Fix)
    assert round(readings[-1].position.lat, 4) == 60.1667
    assert len(framer._line) <= 128


FIELD = st.text("0123456789.-+NSEWAV xe_", max_size=12) | st.text(st.characters(min_codepoint=32, max_codepoint=126))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["GPRMC", "GNGGA", "GLRMC"]), st.lists(FIELD, max_size=16))
def test_any_fields_under_a_right_checksum_are_read_or_refused_by_name(kind, fields):
    body = ",".join([kind, *fields]).replace("*", "").replace("$", "")
    assembler = FixAssembler()
    for line in (summed(body)[:-2], RMC[:-2], GGA[:-2]):
        name = refusal_by(assembler.feed, line, EpochMs(NOON_MS))
        assert name in {None, "FieldUnreadable", "FrameUnreadable", "TalkerUnknown"}


def test_a_receiver_on_tcp_is_heard_through_noise_and_halves(gateway, heard, started):
    driver = begin(open_gnss(gateway.url, now_ms, heard.readings.put), started)
    receiver = gateway.accept()
    receiver.sendall(RMC[40:] + b"\xb5\x62\x00\x01$GARB" + RMC[:25])
    receiver.sendall(RMC[25:] + GGA)
    assert heard.next(Fix).utc_ms == UTC_OF_PAIR_MS
    health = driver.health()
    assert health.refused == {"NoiseBetweenFrames": 1, "FrameCut": 1}
    assert (health.is_listening, health.readings, health.last_reading_at_ms) == (True, 1, NOON_MS)


def test_a_receiver_on_a_serial_line_is_heard(heard, started):
    near, far = os.openpty()
    tty.setraw(far)
    driver = begin(open_gnss(f"serial://{os.ttyname(far)}?baud=38400", now_ms, heard.readings.put), started)
    health_when(driver, lambda health: health.is_listening)
    os.write(near, RMC + GGA)
    assert heard.next(Fix).satellites == 8
    driver.stop()
    os.close(near)
    os.close(far)


def test_a_serial_line_that_is_pulled_out_is_named_and_tried_again(heard, started):
    near, far = os.openpty()
    tty.setraw(far)
    driver = begin(open_gnss(f"serial://{os.ttyname(far)}", now_ms, heard.readings.put), started)
    health_when(driver, lambda health: health.is_listening)
    os.close(far)
    os.close(near)
    assert health_when(driver, lambda health: not health.is_listening).away_because


def test_a_gateway_that_restarts_is_found_again_and_half_a_line_forgotten(gateway, heard, started):
    driver = begin(open_gnss(gateway.url, now_ms, heard.readings.put), started)
    first = gateway.accept()
    first.sendall(RMC[:30])
    first.close()
    gateway.accept().sendall(RMC + GGA)
    assert heard.next(Fix).utc_ms == UTC_OF_PAIR_MS
    assert (driver.health().connections, driver.health().refused) == (2, {})


def test_a_receiver_that_falls_silent_is_connected_again(gateway, heard, started):
    driver = NmeaDriver(gateway.url, now_ms, heard.readings.put)
    driver.silence_s, driver.patience_s = 0.1, 0.05
    begin(driver, started)
    gateway.accept().sendall(RMC)
    gateway.accept()
    assert health_when(driver, lambda health: health.connections == 2).is_listening


def test_a_fault_of_our_own_is_counted_and_the_driver_listens_again(gateway, heard, started):
    faults = iter([ValueError("a bug of ours")])

    def take(reading):
        for fault in faults:
            raise fault
        heard.readings.put(reading)

    driver = begin(open_gnss(gateway.url, now_ms, take), started)
    gateway.accept().sendall(RMC + GGA)
    gateway.accept().sendall(RMC + GGA)
    assert heard.next(Fix)
    assert driver.health().refused == {"DriverFault": 1}


def test_a_group_that_is_none_is_named_and_tried_again(heard, started):
    driver = begin(open_can("can+udp_multicast://10.0.0.1:4000", "obd2", now_ms, heard.readings.put), started)
    assert "cannot join" in health_when(driver, lambda health: "10.0.0.1" in health.away_because).away_because


def test_a_device_that_is_not_there_yet_is_waited_for(heard, started):
    reserved = socket.create_server(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    reserved.close()
    driver = begin(open_gnss(f"tcp://127.0.0.1:{port}", now_ms, heard.readings.put), started)
    assert "refused" in health_when(driver, lambda health: "refused" in health.away_because).away_because
    late = socket.create_server(("127.0.0.1", port))
    late.settimeout(10)
    listener, _ = late.accept()
    listener.sendall(RMC + GGA)
    assert heard.next(Fix)
    listener.close()
    late.close()


def test_stopping_is_prompt_and_may_be_done_twice(gateway, heard):
    driver = open_gnss(gateway.url, now_ms, heard.readings.put)
    driver.start()
    gateway.accept()
    began_s = time.monotonic()
    driver.stop()
    driver.stop()
    assert time.monotonic() - began_s < 2
    assert driver.health().away_because == "stopped"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("tcp://127.0.0.1", "lacks a host or a port"),
        ("tcp://127.0.0.1:99999", "tcp://host:port"),
        ("serial://dev/ttyUSB0", "3 slashes"),
        ("serial:///dev/ttyUSB0?baud=fast", "baud='fast'"),
        ("http://x", "scheme 'http' is unknown"),
        ("", "scheme '' is unknown"),
    ],
)
def test_a_wrong_url_of_a_byte_device_says_how_to_write_it(url, words):
    with pytest.raises(DeviceUrlWrong, match=words.replace("?", r"\?")):
        open_gnss(url, now_ms, print)


# The hand scanner.


def test_labels_end_with_any_line_end_and_keep_their_prefix():
    said = b"]C1003401234500000018\r\n]d201040\x1d21A\rJD014600003\n\r\n\r\nX\r"
    assert LabelFramer().feed(said) == ["]C1003401234500000018", "]d201040\x1d21A", "JD014600003", "X"]


def test_a_label_at_the_limit_is_read_and_one_beyond_is_refused():
    found = LabelFramer().feed(b"A" * 256 + b"\r" + b"B" * 257 + b"\r" + b"C\r")
    assert [found[0], type(found[1]).__name__, found[2]] == ["A" * 256, "LabelTooLong", "C"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=400), max_size=10))
def test_any_bytes_from_a_scanner_are_labels_or_refusals(chunks):
    framer = LabelFramer()
    for chunk in chunks:
        for found in framer.feed(chunk):
            assert isinstance(found, FrameRefused) or (found and len(found) <= 256 and found.isascii())
    framer.feed(b"\r")
    assert framer.feed(b"]C1LABEL\r") == ["]C1LABEL"]


def test_a_scanner_is_heard_and_its_noise_counted(gateway, heard, started):
    driver = begin(open_scanner(gateway.url, now_ms, heard.readings.put), started)
    gateway.accept().sendall(b"\x02BAD\x03\rGOOD-1\r")
    assert heard.next() == Scan(at_ms=EpochMs(NOON_MS), text="GOOD-1")
    assert driver.health().refused == {"LabelNotPrintable": 1}


def test_a_label_without_an_end_is_refused_and_does_not_stick_to_the_next(gateway, heard, started):
    driver = ScannerDriver(gateway.url, now_ms, heard.readings.put)
    driver.patience_s = 0.05
    begin(driver, started)
    scanner = gateway.accept()
    scanner.sendall(b"NO-SUFFIX")
    health_when(driver, lambda health: health.refused == {"LabelNeverEnds": 1})
    scanner.sendall(b"NEXT\r")
    assert heard.next() == Scan(at_ms=EpochMs(NOON_MS), text="NEXT")


# OBD-II.


@pytest.mark.parametrize(
    ("answer", "reading"),
    [
        ("41 0d 32", WheelSpeed(EpochMs(1), 50 / 3.6)),
        ("41 0c 1a f8", EngineRunning(EpochMs(1), is_running=True)),
        ("41 0c 00 00", EngineRunning(EpochMs(1), is_running=False)),
        ("41 2f ff", FuelOrCharge(EpochMs(1), 1.0)),
        ("41 46 1e", OutsideTemperature(EpochMs(1), -10.0)),
        ("41 a6 00 01 e2 40", Odometer(EpochMs(1), 12_345_600.0)),
    ],
)
def test_an_obd_answer_is_read_by_the_standards_formulas(answer, reading):
    ((pid, field),) = fields_in_answer(bytes.fromhex(answer)).items()
    assert reading_of_pid(pid, field, EpochMs(1)) == reading


@given(st.binary(max_size=140))
def test_any_obd_answer_is_read_or_refused_by_name(answer):
    name = refusal_by(fields_in_answer, answer)
    assert name in {None, "NegativeResponse", "AnswerUnreadable"}
    for pid, field in {} if name else fields_in_answer(answer).items():
        assert reading_of_pid(pid, field, EpochMs(1)).at_ms == 1


# J1939.


def test_the_dbc_puts_signals_where_j1939_71_does():
    groups = load_parameter_groups()
    assert {pgn: group.name for pgn, group in groups.items()} == {
        61444: "EEC1",
        65265: "CCVS1",
        65276: "DD1",
        65217: "VDHR",
        65269: "AMB",
    }
    frames = {
        0x18FEF117: ("ff 00 32 ff ff ff ff ff", WheelSpeed(EpochMs(1), 50 / 3.6)),  # 50 km/h, from any source address
        0x0CF00400: ("ff ff ff 68 13 ff ff ff", EngineRunning(EpochMs(1), is_running=True)),  # 621 rpm
        0x18FEFC27: ("ff 7d ff ff ff ff ff ff", FuelOrCharge(EpochMs(1), 0.5)),
        0x18FEC1EE: ("40 0d 03 00 ff ff ff ff", Odometer(EpochMs(1), 1_000_000.0)),
        0x18FEF500: ("ff ff ff 60 22 ff ff ff", OutsideTemperature(EpochMs(1), 2.0)),
    }
    for frame_id, (data, reading) in frames.items():
        frame = can.Message(arbitration_id=frame_id, data=bytes.fromhex(data), is_extended_id=True)
        assert readings_of_frame(groups, frame, EpochMs(1)) == [reading]


def test_not_available_is_no_reading_and_an_error_is_refused():
    assert is_available(0xFAFF, 16, "x")
    assert not is_available(0xFFFF, 16, "x")
    with pytest.raises(FrameRefused) as refusal:
        is_available(0xFE00, 16, "WheelBasedVehicleSpeed")
    assert type(refusal.value).__name__ == "SignalInError"
    silent = can.Message(arbitration_id=0x18FEF100, data=b"\xff" * 8, is_extended_id=True)
    assert readings_of_frame(load_parameter_groups(), silent, EpochMs(1)) == []


def test_a_group_addressed_to_one_controller_is_known_without_the_address():
    assert (pgn_of(0x18EAFF00), pgn_of(0x18FEF100), pgn_of(0x0CF00400)) == (0xEA00, 65265, 61444)


GROUPS = load_parameter_groups()


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([group.frame_id for group in GROUPS.values()]) | st.integers(0, 2**29 - 1),
    st.binary(max_size=8),
)
def test_any_29_bit_frame_is_read_or_refused_by_name(frame_id, data):
    frame = can.Message(arbitration_id=frame_id, data=data, is_extended_id=True)
    name = refusal_by(readings_of_frame, GROUPS, frame, EpochMs(1))
    assert name in {None, "ParameterGroupTooShort", "SignalInError", "SignalReserved"}


# Buses between processes.


@pytest.fixture
def bus_url() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        return f"can+udp_multicast://239.74.163.2:{free.getsockname()[1]}"


VEHICLE = """
import sys, threading
from firmware_sim.devices import VanTruth
from firmware_sim.devices.ecu import J1939Truck, ObdEcu
from shared.quantities import EpochMs, Position
truth = VanTruth(EpochMs(0), Position(60.0, 25.0), speed_mps=10.0, engine_rpm=1500.0, energy_share=0.5,
                 outside_c=-5.0, odometer_m=123456.0)
device = {"obd2": ObdEcu, "j1939": J1939Truck}[sys.argv[1]](sys.argv[2], lambda: truth)
device.start()
sys.stdin.readline()
"""


@pytest.mark.parametrize("profile", ["obd2", "j1939"])
def test_a_vehicle_in_another_process_is_read_over_the_bus(profile, bus_url, heard, started):
    vehicle = subprocess.Popen([sys.executable, "-c", VEHICLE, profile, bus_url], stdin=subprocess.PIPE)
    try:
        driver = begin(open_can(bus_url, profile, now_ms, heard.readings.put), started)
        assert heard.next(WheelSpeed).speed_mps == pytest.approx(10.0, abs=0.02)
        expected = {
            Ignition: lambda said: said.is_on,
            EngineRunning: lambda said: said.is_running,
            FuelOrCharge: lambda said: abs(said.share - 0.5) < 0.01,
            OutsideTemperature: lambda said: said.celsius == -5.0,
            Odometer: lambda said: abs(said.metres - 123_456) <= 100,
        }
        found = {}
        while set(found) != set(expected):
            reading = heard.next(tuple(expected))
            found[type(reading)] = reading
        assert all(is_right(found[kind]) for kind, is_right in expected.items())
        assert driver.health().refused == {}
    finally:
        vehicle.communicate(b"\n", timeout=10)


def test_garbage_on_the_group_is_counted_and_the_next_frame_read(bus_url, heard, started):
    driver = begin(open_can(bus_url, "j1939", now_ms, heard.readings.put), started)
    health_when(driver, lambda health: health.is_listening)
    port = int(bus_url.rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for noise in (b"", b"\x00", b"hello", b"\xc1" * 50, b"\x81\xa1a\x01", b"\xff" * 3000, b"\x80"):
            stranger.sendto(noise, ("239.74.163.2", port))
    health_when(driver, lambda health: health.refused.get("CanFrameUnreadable", 0) >= 5)
    with NearBus("239.74.163.2", port) as truck:
        truck.send(can.Message(arbitration_id=0x18FEF100, data=b"\xff\x00\x32" + b"\xff" * 5, is_extended_id=True))
        assert heard.next(WheelSpeed).speed_mps == pytest.approx(50 / 3.6)
    assert driver.health().connections == 1


def test_an_ecu_that_answers_nonsense_is_counted_and_still_read(bus_url, heard, started):
    port = int(bus_url.rpartition(":")[2])
    with NearBus("239.74.163.2", port) as ecu:
        driver = begin(open_can(bus_url, "obd2", now_ms, heard.readings.put), started)
        health_when(driver, lambda health: health.is_listening)
        nonsense = [
            bytes.fromhex(said)
            for said in (
                "21 01 02 03 04 05 06 07",  # a consecutive frame of nothing
                "03 41 99 01 aa aa aa aa",  # a PID nobody asked for
                "03 7f 01 31 aa aa aa aa",  # out of range
                "10 ff 41 0d 32 0c 00 00",  # the beginning of more than we take
                "00 00 00 00 00 00 00 00",
                "",
            )
        ]
        for said in nonsense:
            ecu.send(can.Message(arbitration_id=0x7E8, data=said, is_extended_id=False))
        names = {"IsoTpBroken", "AnswerUnreadable", "NegativeResponse"}
        health_when(driver, lambda health: set(health.refused) >= names)
        ecu.send(can.Message(arbitration_id=0x7E8, data=bytes.fromhex("03410d32aaaaaaaa"), is_extended_id=False))
        assert heard.next(WheelSpeed).speed_mps == pytest.approx(50 / 3.6)


def test_a_frame_on_the_near_bus_is_a_datagram_as_python_can_packs_it(bus_url):
    port = int(bus_url.rpartition(":")[2])
    frame = can.Message(arbitration_id=0x18FEF100, data=b"\x01\x02", is_extended_id=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener, NearBus("239.74.163.2", port) as near:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.settimeout(10)
        listener.bind(("239.74.163.2", port))
        group = socket.inet_aton("239.74.163.2") + socket.inet_aton("127.0.0.1")
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        near.send(frame)
        assert unpack_message(listener.recv(4096)).equals(frame)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("can0", "names no CAN interface"),
        ("can+nonsense://can0", "names no CAN interface"),
        ("can+udp_multicast://", "lacks a group"),
        ("can+udp_multicast://239.74.163.2:notaport", "expected can"),
        ("can+socketcan://", "lacks a channel"),
        ("can+udp_multicast://239.74.163.2:4000?hops=far", "expected routers to cross"),
        ("can+slcan:///dev/ttyACM0?bitrate=fast", "expected bits per second"),
    ],
)
def test_a_wrong_url_of_a_bus_says_how_to_write_it(url, words):
    with pytest.raises(DeviceUrlWrong, match=words):
        open_can(url, "obd2", now_ms, print)


def test_an_unknown_profile_is_refused():
    with pytest.raises(DeviceUrlWrong, match="expected obd2 or j1939"):
        open_can("can+socketcan://can0", "obd3", now_ms, print)


def test_a_bus_that_is_not_there_is_named_and_tried_again(heard, started):
    driver = begin(open_can("can+socketcan://nobus0", "obd2", now_ms, heard.readings.put), started)
    assert "nobus0" in health_when(driver, lambda health: "nobus0" in health.away_because).away_because


def test_a_van_without_a_bus_never_pays_for_the_libraries_of_one():
    checked = "import sys, edge_agent.drivers as d; d.open_gnss('tcp://h:1', int, print).stop(); d.open_scanner('tcp://h:1', int, print).stop(); sys.exit(any(m in sys.modules for m in ('can', 'isotp', 'cantools')))"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", checked], check=False).returncode == 0


def test_an_obd_van_never_pays_for_the_dbc():
    checked = "import sys, edge_agent.drivers as d; d.open_can('can+socketcan://c', 'obd2', int, print).stop(); sys.exit('cantools' in sys.modules)"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", checked], check=False).returncode == 0
