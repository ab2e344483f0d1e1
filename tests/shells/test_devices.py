"""The simulated devices of a van: what they say, how they err, and that the real drivers read them."""

import queue
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.drivers import Driver, open_can, open_gnss, open_scanner
from edge_agent.drivers.nmea import FixAssembler, LineFramer
from edge_agent.sensing import EngineRunning, Fix, Ignition, Odometer, Reading, Scan, Sensing, WheelSpeed, limits_at
from firmware_sim.devices import ByteServer, VanTruth
from firmware_sim.devices.ecu import J1939Truck, ObdEcu
from firmware_sim.devices.gnss import GnssFaults, GnssReceiver, GnssVoice, fix_sentences, sentence
from firmware_sim.devices.scanner import HandScanner
from shared.quantities import EpochMs, Position, metres_between

NOON_MS = 1_780_000_000_000
HERE = Position(60.1699, 24.9384)
QUIET = GnssFaults(noise_m=0.0, speed_noise_mps=0.0)


def truth_at(after_s: float = 0.0, **more) -> VanTruth:
    return VanTruth(utc_ms=EpochMs(round(NOON_MS + after_s * 1000)), position=HERE, **more)


def read(said: bytes) -> list[Reading]:
    """What the agent's own reader makes of bytes, refusals raised."""
    assembler, readings = FixAssembler(), []
    for line in LineFramer().feed(said):
        assert isinstance(line, bytes), line
        readings += assembler.feed(line, EpochMs(NOON_MS))
    return readings


class Heard:
    def __init__(self) -> None:
        self.readings: queue.Queue[Reading] = queue.Queue()

    def next(self, kind: type = object, is_so=lambda reading: True) -> Reading:
        """The next reading that is as claimed; fails when none comes within ten seconds."""
        deadline_s = time.monotonic() + 10
        while True:
            reading = self.readings.get(timeout=max(0.01, deadline_s - time.monotonic()))
            if isinstance(reading, kind) and is_so(reading):
                return reading


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def running() -> Iterator[list]:
    """Devices and drivers put in here are stopped after the test, last first."""
    started: list = []
    yield started
    for one in reversed(started):
        one.stop()


def begin(one, running: list):
    running.append(one)
    one.start()
    return one


@pytest.fixture
def bus_url() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        return f"can+udp_multicast://239.74.163.2:{free.getsockname()[1]}"


# GNSS.


def test_a_sentence_carries_the_checksum_of_the_standard():
    body = "GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,"
    assert sentence(body).endswith("*47\r\n")


@settings(max_examples=200, deadline=None)
@given(st.floats(-89.9, 89.9), st.floats(-179.9, 179.9), st.floats(0, 60), st.integers(0, 4_000_000_000_000))
def test_what_a_receiver_says_anywhere_on_earth_is_read_back(lat, lon, speed_mps, utc_ms):
    place = Position(lat, lon)
    utc_ms = utc_ms % 3_124_224_000_000  # Two digits of the year: read as 1969 to 2068.
    (fix,) = read("".join(fix_sentences(utc_ms, place, speed_mps, 359.999, 9, 0.9)).encode())
    assert metres_between(fix.position, place) < 0.02
    assert fix.speed_mps == pytest.approx(speed_mps, abs=0.001)
    assert 0 <= utc_ms - fix.utc_ms < 10


def test_the_same_seed_says_the_same_and_another_something_else():
    faults = GnssFaults(void_share=0.1, dropout_share=0.1, wrong_checksum_share=0.1, garbage_share=0.1)
    said = [[GnssVoice(seed, faults).say(truth_at()) for _ in range(1)] for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]


def test_the_error_of_a_fix_wanders_instead_of_jumping():
    voice = GnssVoice(seed=4, faults=GnssFaults(noise_m=4.0))
    errors_m, steps_m, before = [], [], None
    for second in range(3_000):
        (fix,) = read(voice.say(truth_at(second)))
        errors_m.append(metres_between(fix.position, HERE))
        steps_m.append(0.0 if before is None else metres_between(fix.position, before))
        before = fix.position
    root_mean_square_m = (sum(error * error for error in errors_m) / len(errors_m)) ** 0.5
    assert root_mean_square_m == pytest.approx(4.0 * 2**0.5, rel=0.35)
    assert sum(steps_m) / len(steps_m) < 0.3 * root_mean_square_m


def test_void_fixes_and_dropouts_take_the_share_that_is_set():
    voice = GnssVoice(seed=2, faults=GnssFaults(void_share=0.2, void_run=5, dropout_share=0.1, dropout_run=5))
    said = [voice.say(truth_at(second)) for second in range(6_000)]
    dropped = sum(not one for one in said) / len(said)
    void = sum(b",V," in one for one in said) / (len(said) * (1 - dropped))
    assert dropped == pytest.approx(0.1, abs=0.03)
    assert void == pytest.approx(0.2, abs=0.04)


def test_faults_on_the_line_are_refused_by_the_driver_and_no_wrong_fix_gets_through(heard, running):
    faults = GnssFaults(noise_m=2.0, wrong_checksum_share=0.2, garbage_share=0.2)
    receiver = begin(GnssReceiver(truth_at, rate_hz=20, seed=5, faults=faults), running)
    driver: Driver = begin(open_gnss(receiver.url, lambda: NOON_MS, heard.readings.put), running)
    fixes = [heard.next(Fix) for _ in range(20)]
    assert max(metres_between(fix.position, HERE) for fix in fixes) < 15
    assert driver.health().refused["FrameChecksumWrong"] > 0


def test_a_receiver_speaks_no_faster_than_is_set(heard, running):
    receiver = begin(GnssReceiver(truth_at, rate_hz=10, faults=QUIET), running)
    begin(open_gnss(receiver.url, lambda: time.monotonic_ns() // 1_000_000, heard.readings.put), running)
    first_ms = heard.next().at_ms
    for _ in range(9):
        last_ms = heard.next().at_ms
    assert last_ms - first_ms >= 700


def test_a_rate_no_receiver_has_is_refused():
    with pytest.raises(ValueError, match=r"expected 0\.1 to 20"):
        GnssReceiver(truth_at, rate_hz=500)


def test_listeners_on_tcp_and_serial_hear_the_same(running):
    receiver = begin(GnssReceiver(truth_at, rate_hz=10, faults=QUIET, has_serial_line=True), running)
    by_wire, by_net, by_net_too = Heard(), Heard(), Heard()
    begin(open_gnss(receiver.serial_url, lambda: NOON_MS, by_wire.readings.put), running)
    begin(open_gnss(receiver.url, lambda: NOON_MS, by_net.readings.put), running)
    begin(open_gnss(receiver.url, lambda: NOON_MS, by_net_too.readings.put), running)
    assert by_wire.next(Fix) == by_net.next(Fix) == by_net_too.next(Fix)


def test_a_listener_that_never_reads_loses_its_connection_and_holds_nobody_up():
    server = ByteServer()
    with socket.create_connection(("127.0.0.1", server.port)) as deaf:
        assert server.await_listener()
        began_s = time.monotonic()
        said = 0
        while server.listeners and said < 200_000_000:
            server.say(b"x" * 100_000)
            said += 100_000
        assert server.listeners == 0
        assert time.monotonic() - began_s < 5
        deaf.close()
    server.stop()


def test_an_agent_finds_a_receiver_that_hung_up(heard, running):
    receiver = begin(GnssReceiver(truth_at, rate_hz=20, faults=QUIET), running)
    driver: Driver = begin(open_gnss(receiver.url, lambda: NOON_MS, heard.readings.put), running)
    heard.next(Fix)
    receiver.hang_up()
    while driver.health().connections < 2:
        heard.next(Fix)
    assert heard.next(Fix)


def test_at_sixty_times_the_speed_the_belief_follows_the_van_through_noise_and_faults(heard, running):
    started_s, speed, north_mps = time.monotonic(), 60, 12.0

    def domain_ms() -> int:
        return round(NOON_MS + (time.monotonic() - started_s) * 1000 * speed)

    def truth() -> VanTruth:
        at_ms = domain_ms()
        driven_m = north_mps * (at_ms - NOON_MS) / 1000
        place = Position(HERE.lat + driven_m / 111_195, HERE.lon)
        return VanTruth(utc_ms=EpochMs(at_ms), position=place, speed_mps=north_mps)

    faults = GnssFaults(noise_m=3.0, void_share=0.1, void_run=2, wrong_checksum_share=0.05, garbage_share=0.05)
    receiver = begin(GnssReceiver(truth, rate_hz=10, seed=9, faults=faults), running)
    begin(open_gnss(receiver.url, domain_ms, heard.readings.put), running)
    sensing, believed = Sensing(limits_at(speed)), 0
    while believed < 15:
        reading = heard.next()
        refusal = sensing.take(reading)
        assert refusal is None, refusal
        believed += isinstance(reading, Fix)
        belief = sensing.believe(reading.at_ms)
        if isinstance(reading, Fix):
            north_m = north_mps * (reading.utc_ms - NOON_MS) / 1000
            place = Position(HERE.lat + north_m / 111_195, HERE.lon)
            assert metres_between(belief.position, place) < 20
    assert belief.odometer_m == pytest.approx(north_mps * 60 * 0.1 * 14, rel=0.6)


# The vehicle's bus.


def test_an_ecu_answers_several_pids_at_once_by_the_standards_formulas():
    ecu = ObdEcu("can+virtual://x", lambda: truth_at(speed_mps=50 / 3.6, engine_rpm=1726, odometer_m=12_345_678))
    (answer,) = ecu.answers_to(bytes.fromhex("010d0ca6"))
    assert answer.hex(" ") == "41 0d 32 0c 1a f8 a6 00 01 e2 40"


@given(st.binary(max_size=20))
def test_an_ecu_survives_any_request(request):
    ecu = ObdEcu("can+virtual://x", truth_at, says_no_to_unknown=True)
    assert all(answer[0] in (0x41, 0x7F) for answer in ecu.answers_to(request))


def test_a_driver_asks_one_by_one_where_several_at_once_are_not_known(bus_url, heard, running):
    begin(ObdEcu(bus_url, lambda: truth_at(odometer_m=5_000), several_at_once=False), running)
    begin(open_can(bus_url, "obd2", lambda: NOON_MS, heard.readings.put), running)
    assert heard.next(Odometer).metres == 5_000


def test_answers_that_are_pending_or_refused_are_lived_with(bus_url, heard, running):
    ecu = ObdEcu(bus_url, lambda: truth_at(speed_mps=10), pending_share=0.4, busy_share=0.3, seed=3)
    begin(ecu, running)
    driver: Driver = begin(open_can(bus_url, "obd2", lambda: NOON_MS, heard.readings.put), running)
    while "NegativeResponse" not in driver.health().refused or driver.health().readings < 8:
        heard.next()
    assert set(driver.health().refused) == {"NegativeResponse"}


def test_a_vehicle_that_is_switched_off_and_on_is_noticed(bus_url, heard, running):
    is_on = [True]
    begin(ObdEcu(bus_url, lambda: truth_at(is_ignition_on=is_on[0])), running)
    begin(open_can(bus_url, "obd2", lambda: NOON_MS, heard.readings.put), running)
    assert heard.next(Ignition).is_on
    is_on[0] = False
    assert heard.next(Ignition, lambda reading: not reading.is_on)
    is_on[0] = True
    assert heard.next(Ignition, lambda reading: reading.is_on)


def test_a_signal_a_truck_does_not_measure_is_no_reading(bus_url, heard, running):
    begin(J1939Truck(bus_url, lambda: truth_at(engine_rpm=900), unavailable=("WheelBasedVehicleSpeed",)), running)
    begin(open_can(bus_url, "j1939", lambda: NOON_MS, heard.readings.put), running)
    kinds = {type(heard.next()) for _ in range(12)} | {type(heard.next(EngineRunning))}
    assert EngineRunning in kinds
    assert WheelSpeed not in kinds


# The hand scanner.


@pytest.mark.parametrize("ending", ["CR", "LF", "CRLF"])
def test_a_label_that_is_scanned_is_heard(ending, heard, running):
    scanner = begin(HandScanner(ending=ending, has_serial_line=True), running)
    begin(open_scanner(scanner.url, lambda: NOON_MS, heard.readings.put), running)
    assert scanner.await_listener()
    assert scanner.scan("]C100340123450000000018") == "]C100340123450000000018"
    assert heard.next() == Scan(EpochMs(NOON_MS), "]C100340123450000000018")


def test_misreads_come_at_the_share_that_is_set_and_never_say_the_label():
    scanner = HandScanner(seed=6, misread_share=0.1)
    said = [scanner.scan("JD014600003SE") for _ in range(1_000)]
    scanner.stop()
    misread = [one for one in said if one != "JD014600003SE"]
    assert len(misread) / len(said) == pytest.approx(0.1, abs=0.03)
