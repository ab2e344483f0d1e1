"""The process of the twin: waits for the hub's first plan, drives it in domain time, and says what its day came to.

Each van has a control port of its own that takes the lines a van's port takes, so that whatever befalls a van can
befall its twin. Figures and health are answered by HTTP on loopback.
"""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

import shared.costs
from firmware_sim.city import World
from firmware_sim.control import AnyCommand, ControlPort, Impossible, State, from_mishap
from firmware_sim.days import BAD_DAYS, Mishap, day_luck, world_of
from firmware_sim.ground import LocalTime
from firmware_sim.twin import FirstPlans, TwinVan, drive_twin, twin_figures
from shared.citymap import CityMap, shipped_city
from shared.clock import Clock
from shared.costs import Costs
from shared.logs import log
from shared.settings import read_settings

LOOK_EVERY_S = 0.25
ASK_EVERY_S = 0.5
PATIENCE_S = 10.0


class TwinSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the twin's process is told. Ports are on loopback, 0 takes any free one.

    `hub` is the hub whose first plan is driven. `vans` maps each van's name to its control port; their order numbers
    them for the mishaps of the named `day`. `costs` is a file of prices, "" for the shipped one.
    """

    hub: str
    vans: dict[str, int]
    port: int = 0
    city: str = ""
    seed: int = 0
    day: str = "ordinary"
    utc_offset_s: int = 7_200
    costs: str = ""


class TwinSettingsWrong(ValueError):
    """The settings of the twin hold something no twin can be."""


def checked(settings: TwinSettings) -> TwinSettings:
    """The same settings; raises TwinSettingsWrong naming what is wrong with them."""
    parts = urlsplit(settings.hub)
    if parts.scheme != "http" or not parts.hostname:
        raise TwinSettingsWrong(f"hub is '{settings.hub}', expected http://HOST:PORT")
    if not settings.vans:
        raise TwinSettingsWrong("vans is empty, expected each van's name with its control port, as in van-1 = 0")
    for name, port in (("port", settings.port), *settings.vans.items()):
        if not 0 <= port <= 65_535:
            raise TwinSettingsWrong(f"{name} is {port}, expected 0 to 65535")
    if settings.day not in BAD_DAYS:
        raise TwinSettingsWrong(f"day is '{settings.day}', expected one of {', '.join(BAD_DAYS)}")
    return settings


class TwinProcess:
    """Plays the twin's day while it is asked about."""

    def __init__(self, settings: TwinSettings, clock: Clock) -> None:
        """Raises TwinSettingsWrong, BundleUnreadable, SettingsWrong for the prices, OSError for a taken port."""
        self._settings = checked(settings)
        city = CityMap.load(Path(settings.city) if settings.city else shipped_city())
        self._world: World = world_of(city, settings.seed, LocalTime(settings.utc_offset_s))
        self._day = day_luck(city, settings.seed)
        prices = Path(settings.costs) if settings.costs else Path(shared.costs.__file__).with_name("costs.toml")
        self._costs = read_settings(prices, Costs)
        self._clock = clock
        self._lock = threading.Lock()
        self._vans: dict[str, TwinVan] = {}
        self._mishaps: list[tuple[str, Mishap]] = _mishaps(settings)
        self._started_hour = self._world.local.hour(clock.now_ms())
        self._is_stopping = threading.Event()
        self.controls = {name: ControlPort(port, _of(self, name)) for name, port in settings.vans.items()}
        self._server = _serve(settings.port, self)
        self.port: int = self._server.server_address[1]

    @property
    def has_plan(self) -> bool:
        """Whether the first plan has been taken."""
        return bool(self._vans)

    def run(self) -> None:
        """Wait for the plan, then keep the day up to the clock until `stop`."""
        try:
            self._await_plan()
            while not self._is_stopping.wait(LOOK_EVERY_S):
                with self._lock:
                    self._play()
        finally:
            for control in self.controls.values():
                control.close()
            self._server.shutdown()
            self._server.server_close()

    def stop(self) -> None:
        """Let `run` return."""
        self._is_stopping.set()

    def figures(self, driven_until_ms: int | None) -> dict[str, Any] | None:
        """What the twin's day came to by now; None while it has no plan."""
        with self._lock:
            if not self._vans:
                return None
            now_ms = self._play()
            figures = twin_figures(list(self._vans.values()), self._costs, now_ms, driven_until_ms)
        return dict(msgspec.to_builtins(figures))

    def obey(self, name: str, command: AnyCommand) -> dict[str, Any]:
        """What befell the van of this name befalls its twin. Raises Impossible."""
        with self._lock:
            van = self._vans.get(name)
            if van is None and isinstance(command, State):
                return {"phase": "depot", "position": None, "remaining": [], "driven": [], "now_ms": self._now_ms()}
            if van is None:
                raise Impossible("the twin has no plan yet, so nothing can befall it")
            self._play()
            return van.befall(command, self._now_ms())

    def _now_ms(self) -> int:
        return int(self._clock.now_ms())

    def _play(self) -> int:
        """Bring every van to the present instant, which is returned. The lock is held."""
        now_ms = self._now_ms()
        while self._mishaps and self._world.local.hour(now_ms) >= self._mishaps[0][1].at_hour:
            name, mishap = self._mishaps.pop(0)
            if mishap.at_hour >= self._started_hour and name in self._vans:
                self._befall(name, mishap, now_ms)
        for van in self._vans.values():
            van.play(now_ms)
        return now_ms

    def _befall(self, name: str, mishap: Mishap, now_ms: int) -> None:
        try:
            self._vans[name].befall(from_mishap(mishap.command), now_ms)
        except Impossible as wrong:
            log("mishap", van=name, what=mishap.command["do"], error=str(wrong))

    def _await_plan(self) -> None:
        is_there = True
        while not self._is_stopping.is_set():
            try:
                plans = _first_plans(self._settings.hub)
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as away:
                if is_there:
                    log("hub_away", hub=self._settings.hub, error=str(away))
                is_there = False
            else:
                is_there = True
                if plans.is_planned:
                    self._take(plans)
                    return
            self._is_stopping.wait(ASK_EVERY_S)

    def _take(self, plans: FirstPlans) -> None:
        known = [plan for plan in plans.vans if plan.agent in self._settings.vans]
        with self._lock:
            vans = drive_twin(self._world, self._day, known, until_ms=0)
            self._vans = {van.plan.agent: van for van in vans}
        log("twin_ready", day=plans.day, vans=len(known), stops=sum(len(plan.stops) for plan in known))


def _mishaps(settings: TwinSettings) -> list[tuple[str, Mishap]]:
    names = list(settings.vans)
    befalls = [
        (name, mishap)
        for mishap in BAD_DAYS[settings.day]
        for number, name in enumerate(names)
        if mishap.van in (None, number)
    ]
    return sorted(befalls, key=lambda pair: pair[1].at_hour)


def _of(process: TwinProcess, name: str) -> Any:
    return lambda command: process.obey(name, command)


def _first_plans(hub: str) -> FirstPlans:
    parts = urlsplit(hub)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/api/day/first-plan")
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise http.client.HTTPException(f"the hub answers {answer.status} {text[:200]!r}")
    return msgspec.json.decode(text, type=FirstPlans)


def _serve(port: int, twin: TwinProcess) -> ThreadingHTTPServer:
    """Answer GET /figures (?driven_until=EPOCH_MS) and GET /healthz on loopback."""

    class Request(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/healthz":
                self._answer(200, {"ok": True, "has_plan": twin.has_plan})
            elif url.path == "/figures":
                self._figures(parse_qs(url.query).get("driven_until", [""])[-1])
            else:
                self._answer(404, {"title": "nothing here", "detail": f"{url.path[:80]} is unknown, expected /figures"})

        def _figures(self, driven_until: str) -> None:
            if driven_until and not (driven_until.isascii() and driven_until.isdigit() and len(driven_until) <= 16):
                detail = f"driven_until is '{driven_until[:40]}', expected epoch milliseconds"
                self._answer(422, {"title": "driven_until is wrong", "detail": detail})
                return
            figures = twin.figures(int(driven_until) if driven_until else None)
            if figures is None:
                self._answer(503, {"title": "no plan yet", "detail": "the hub has not planned the day; ask again"})
            else:
                self._answer(200, figures)

        def _answer(self, status: int, content: Any) -> None:
            text = msgspec.json.encode(content)
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing about who asked."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Request)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), name="figures", daemon=True).start()
    return server
