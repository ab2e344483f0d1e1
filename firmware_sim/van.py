"""The process of one simulated van: truth, driver and devices in domain time; the agent's page and bad luck outside.

Everything the agent learns goes over wires a real van has: GNSS, CAN and scanner by the devices, the driver by the
agent's own page. One thread steps the world; the others only carry words.
"""

import math
import threading
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from firmware_sim.board import code_on_board
from firmware_sim.city import World
from firmware_sim.control import (
    AnyCommand,
    CloseWay,
    ControlPort,
    CustomerOut,
    DigIn,
    Hold,
    Impossible,
    Slow,
    from_mishap,
)
from firmware_sim.days import BAD_DAYS, day_luck, world_of
from firmware_sim.devices import VanTruth
from firmware_sim.devices.gnss import GnssFaults
from firmware_sim.ground import LocalTime
from firmware_sim.instruments import COMMON_FAULTS, Instruments
from firmware_sim.led import Led
from firmware_sim.pagelink import PageLink
from firmware_sim.person import driver
from firmware_sim.vehicle import Van
from firmware_sim.wheel import Wheel
from shared.citymap import CityMap, shipped_city
from shared.clock import Clock
from shared.logs import log
from shared.quantities import EpochMs, Position

TICK_S = 0.1
ODOMETER_AT_START_M = 48_213_000.0
RANGE_M = 450_000.0
PATIENCE_REAL_S = 1.5
PATIENCE_MS = 20_000


class VanSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one van's process is told. Ports are on loopback, 0 takes any free one; no `can` means a van without a bus.

    `number` counts the vans of a day from 0 and decides which mishaps of the named `day` are this van's. `stands_at` is
    where the van stands until the page names its depot; without it GNSS has no fix so long. `board` is the depot's
    screen, as in http://HUB:8080/api/depots/north/board, where the driver reads the code that opens the page.
    `is_led` is a van whose driver is somebody at the page: it goes where the page says it heads and reports nothing.
    """

    name: str
    page: str
    city: str = ""
    gnss_port: int = 0
    scanner_port: int = 0
    control_port: int = 0
    can: str = ""
    can_profile: Literal["obd2", "j1939"] = "obd2"
    seed: int = 0
    number: int = 0
    day: str = "ordinary"
    utc_offset_s: int = 7_200
    stands_at: tuple[float, float] | None = None
    board: str = ""
    is_led: bool = False
    gnss_hz: float = 5.0
    gnss: GnssFaults = COMMON_FAULTS


class VanSettingsWrong(ValueError):
    """The settings of a van hold something no van can be."""


def checked(settings: VanSettings) -> VanSettings:
    """The same settings; raises VanSettingsWrong naming what is wrong with them."""
    for name in ("gnss_port", "scanner_port", "control_port"):
        port = getattr(settings, name)
        if not 0 <= port <= 65_535:
            raise VanSettingsWrong(f"{name} is {port}, expected 0 to 65535")
    if settings.day not in BAD_DAYS:
        raise VanSettingsWrong(f"day is '{settings.day}', expected one of {', '.join(BAD_DAYS)}")
    if not -50_400 <= settings.utc_offset_s <= 50_400:
        raise VanSettingsWrong(f"utc_offset_s is {settings.utc_offset_s}, expected -50400 to 50400 (14 hours)")
    if settings.board and not settings.board.startswith("http://"):
        raise VanSettingsWrong(f"board is '{settings.board}', expected http://HUB:PORT/api/depots/DEPOT/board")
    if not settings.name:
        raise VanSettingsWrong("name is empty, expected the agent's name, as in van-1")
    return settings


class VanProcess:
    """Steps one van's world until stopped."""

    def __init__(self, settings: VanSettings, clock: Clock) -> None:
        """Raises BundleUnreadable, VanSettingsWrong, ValueError for a page that is no URL, OSError for a taken port."""
        checked(settings)
        self._settings = settings
        city = CityMap.load(Path(settings.city) if settings.city else shipped_city())
        self._world: World = world_of(city, settings.seed, LocalTime(settings.utc_offset_s))
        self._day = day_luck(city, settings.seed)
        patience_ms = max(PATIENCE_MS, int(PATIENCE_REAL_S * 1000 * clock.speed))
        wheel = Led if settings.is_led else Wheel
        self._wheel = wheel(driver(self._day, settings.name), self._day.of("wheel", settings.name), patience_ms)
        self._van: Van | None = None
        self._mishaps = sorted(
            (m for m in BAD_DAYS[settings.day] if m.van in (None, settings.number)), key=lambda m: m.at_hour
        )
        self._started_hour = self._world.local.hour(clock.now_ms())
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_stopping = False
        self._clock = clock
        self.instruments = Instruments(
            self.truth,
            gnss_port=settings.gnss_port,
            scanner_port=settings.scanner_port,
            gnss_hz=settings.gnss_hz,
            gnss_faults=settings.gnss,
            can=settings.can,
            can_profile=settings.can_profile,
            seed=settings.seed * 100 + settings.number,
        )
        self._do_instruments_speak = False
        self.control = ControlPort(settings.control_port, self._obey)
        read_code = partial(code_on_board, settings.board, settings.name)
        self._link = PageLink(settings.page, self._scan_all, self._wake.set, read_code)

    def run(self) -> None:
        """Step the world in domain time until `stop`."""
        try:
            while not self._is_stopping:
                self._wake.wait(self._nap_s())
                self._wake.clear()
                with self._lock:
                    self._step()
        finally:
            self.control.close()
            self._link.close()
            self.instruments.stop()

    def stop(self) -> None:
        """Let `run` return."""
        self._is_stopping = True
        self._wake.set()

    def _nap_s(self) -> float:
        van = self._van
        if van is None:
            return TICK_S
        return min(TICK_S, max(0.002, self._clock.real_seconds(van.next_ms() - self._clock.now_ms())))

    def _step(self) -> None:
        now_ms = int(self._clock.now_ms())
        day = self._link.day
        if self._van is None and day is not None and day.depot is not None:
            self._van = Van(self._settings.name, self._world, day.depot.depot(), self._wheel.who, self._day, now_ms)
            log("van_ready", van=self._settings.name, stops=len(day.stops), weather=self._world.traffic.weather.name)
        van = self._van
        if not self._do_instruments_speak and (van is not None or self._settings.stands_at is not None):
            self._do_instruments_speak = True
            self.instruments.start()
        if van is None:
            return
        van.step(now_ms)
        self._meet(van, now_ms)
        told = self._wheel.act(van, day, now_ms)
        for label in told.scans:
            self.instruments.scan(label)
        for way in told.found_closed:
            log("street_found_closed", van=self._settings.name, way=way, street=self._street(way))
        for post in told.posts:
            self._link.post(post)
            log("driver_reports", van=self._settings.name, path=post.path, **_in_short(post.body))

    def truth(self) -> VanTruth:
        """What is true of the van at this instant; for the devices, which ask from threads of their own."""
        with self._lock:
            now_ms = int(self._clock.now_ms())
            van = self._van
            if van is None:
                stands_at = self._settings.stands_at
                assert stands_at is not None, "devices speak only of a van that stands somewhere"
                return VanTruth(EpochMs(now_ms), Position(*stands_at), is_ignition_on=False)
            van.step(now_ms)
            motion, phase = van.motion(), van.phase
        is_on = phase not in ("depot", "done", "break")
        return VanTruth(
            utc_ms=EpochMs(now_ms),
            position=motion.position,
            speed_mps=motion.speed_mps,
            course_deg=motion.heading_deg,
            odometer_m=ODOMETER_AT_START_M + motion.odometer_m,
            engine_rpm=_engine_rpm(phase, motion.speed_mps),
            energy_share=max(0.05, 0.85 - motion.odometer_m / RANGE_M),
            outside_c=self._world.traffic.weather.outside_c,
            is_ignition_on=is_on,
        )

    def _scan_all(self, labels: tuple[str, ...]) -> None:
        for label in labels:
            self.instruments.scan(label)

    def _meet(self, van: Van, now_ms: int) -> None:
        """Let the mishaps of a named day befall the van when their hour comes; those before the start are past."""
        while self._mishaps and self._world.local.hour(now_ms) >= self._mishaps[0].at_hour:
            mishap = self._mishaps.pop(0)
            if mishap.at_hour >= self._started_hour:
                try:
                    befallen = self._befall(van, from_mishap(mishap.command), now_ms)
                except Impossible as wrong:
                    befallen = {"error": str(wrong)}
                log("mishap", van=self._settings.name, what=mishap.command["do"], **_in_short(befallen))

    # The control port, on threads of its own.

    def _obey(self, command: AnyCommand) -> dict[str, Any]:
        with self._lock:
            now_ms = int(self._clock.now_ms())
            van = self._van
            if van is None:
                return self._befall_nobody(command, now_ms)
            van.step(now_ms)
            answer = self._befall(van, command, now_ms)
            self._wake.set()
            return answer

    def _befall_nobody(self, command: AnyCommand, now_ms: int) -> dict[str, Any]:
        if isinstance(command, CloseWay | CustomerOut | Slow | Hold | DigIn):
            raise Impossible("the van has no plan yet, so nothing can befall it: wait until its page names a depot")
        return {
            "position": self._settings.stands_at,
            "heading_to": None,
            "phase": "depot",
            "ways_ahead": [],
            "remaining": [],
            "driven": [],
            "now_ms": now_ms,
        }

    def _befall(self, van: Van, command: AnyCommand, now_ms: int) -> dict[str, Any]:
        if isinstance(command, CloseWay):
            return self._close(van, command.way, now_ms)
        if isinstance(command, CustomerOut):
            stop_id = command.stop_id or van.heading_to or next((e.stop_id for e in self._remaining()), None)
            if stop_id is None or (command.stop_id is not None and not self._is_to_come(van, stop_id)):
                raise Impossible(f"stop {stop_id} is not one of the stops still to come: ask for state to see them")
            van.customer_out(stop_id, command.until_ms)
            return {"ok": True, "stop_id": stop_id}
        if isinstance(command, Slow):
            van.slow(command.factor, now_ms)
            return {"ok": True, "factor": command.factor}
        if isinstance(command, Hold):
            van.hold(round(command.minutes * 60_000), now_ms)
            return {"ok": True, "minutes": command.minutes}
        if isinstance(command, DigIn):
            self._wheel.is_in_a_mood = True
            return {"ok": True, "driver": self._wheel.who.name}
        return self._state(van, now_ms)

    def _close(self, van: Van, way: int | None, now_ms: int) -> dict[str, Any]:
        if way is None:
            ahead = self._ways_ahead(van)
            # Not the street the next stop lies in, and not the one under the wheels.
            choice = [w for w in ahead[:-1] if w["metres_ahead"] > 30 and w["name"]] or ahead
            if not choice:
                raise Impossible("no street lies ahead of the van now: name a way")
            way = int(choice[0]["way"])
        if not (self._world.city.edge_way == way).any():
            raise Impossible(f"way {way} is not a street of {self._world.city.name}: see ways_ahead in state")
        van.close_way(way, now_ms)
        return {"ok": True, "way": way, "name": self._street(way)}

    def _state(self, van: Van, now_ms: int) -> dict[str, Any]:
        phases = {"free": "at_door" if van.driven or van.heading_to else "depot", "held": "driving"}
        if van.is_free and not van.driven and van.phase == "free":
            phases["free"] = "depot"
        return {
            "position": van.motion().position,
            "heading_to": van.heading_to,
            "phase": phases.get(van.phase, van.phase),
            "ways_ahead": self._ways_ahead(van),
            "remaining": [errand.stop_id for errand in self._remaining()],
            "driven": list(van.driven),
            "now_ms": now_ms,
            "speed_mps": round(van.motion().speed_mps, 2),
        }

    def _ways_ahead(self, van: Van) -> list[dict[str, Any]]:
        left = self._remaining()
        towards = next((errand for errand in left if errand.stop_id != van.heading_to), None)
        return [
            {"way": way, "name": self._street(way), "metres_ahead": math.ceil(metres)}
            for way, metres in van.ways_ahead(towards)
        ]

    def _remaining(self) -> list[Any]:
        return list(self._wheel.remaining(self._link.day))

    def _is_to_come(self, van: Van, stop_id: str) -> bool:
        return stop_id == van.heading_to or any(errand.stop_id == stop_id for errand in self._remaining())

    def _street(self, way: int) -> str:
        edges = (self._world.city.edge_way == way).nonzero()[0]
        return self._world.city.street(int(edges[0])) if len(edges) else ""


def _in_short(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a report worth a place in the log: no hashes, no empty ones."""
    hidden = ("signature", "photo", "age_checked", "parcels_left", "do")
    return {name: field for name, field in body.items() if field not in ("", None) and name not in hidden}


def _engine_rpm(phase: str, speed_mps: float) -> float:
    """Off at doors (stop-start), idle in queues, about 2,500 a minute at 50 km/h."""
    if phase not in ("driving", "parking", "held"):
        return 0.0
    return 800.0 + 122.0 * speed_mps
