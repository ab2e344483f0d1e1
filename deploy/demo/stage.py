"""Set a day up as separate processes: broker, hub, test inbox, twin, and for each van a cable, an agent and the van.

Every process gets a settings file of its own in the run's folder, as it
would on its own machine; nothing passes between them but the wire.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
import msgspec
import tomli_w

from deploy.days.make_orders import write_orders
from deploy.demo.pages import DriverPage
from deploy.stack import DidNotStart, Stack, free_ports
from shared.citymap import CityMap, OffTheMap, shipped_city
from shared.clock import SETTING, Clock
from shared.quantities import Position
from shared.reckoning import DayFigures
from shared.signing import Signer

DAY = "2026-03-03"
"""A Tuesday in winter, whatever today is: the same seed shows the same day."""

FIRST_REASONS = 5
READY_WITHIN_S = 60.0
STARTS_AT = "07:26"
SHIFT = ("07:30", "15:00")
STEM_S = 900
DEPOT_BEARING = Position(0.115, 0.085)
"""From the gateway to a depot at the edge of town: about 13 km, a quarter of an hour on the ring road."""

LOCKERS_AT = (0.3, 0.5, 0.7)
"""Shares of the way from the town's south-western to its north-eastern corner."""

HELSINKI_ORDERS = Path(__file__).parents[1] / "days" / "helsinki-orders.csv"
DEPOT = "depot"
VANS = ("van-1", "van-2", "van-3")
BUSES: dict[str, Literal["obd2", "j1939"] | None] = {"van-1": "obd2", "van-2": "j1939", "van-3": None}
"""A van with OBD-II, a small truck with J1939, and an old van without a bus: GNSS alone makes a full citizen."""


class DemoRefused(ValueError):
    """The demo cannot run on what it was given."""


@dataclass(frozen=True, slots=True)
class VanPorts:
    """Where one van's parts listen; `twin_luck` is where bad luck befalls its twin."""

    page: int
    cable: int
    cable_control: int
    gnss: int
    scanner: int
    luck: int
    bus: int
    twin_luck: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What the demo was asked for: the city and orders (None: the shipped ones), and how the day runs."""

    folder: Path
    pbf: Path | None = None
    orders: Path | None = None
    speed: float = 60.0
    seed: int = 7
    zone: str = "Europe/Helsinki"


class Stage:
    """The processes of one demo day."""

    def __init__(self, wish: Wish, tell: Callable[[str], None]) -> None:
        """`tell` gets one sentence at each step of coming up. Raises DemoRefused when the wish cannot be granted."""
        self.wish = wish
        self._tell = tell
        zone = _zone(wish.zone)
        self._folder = _fresh(wish.folder)
        self._city = self._prepare_city()
        self._orders = self._prepare_orders()
        broker, hub, inbox, smtp, twin, *rest = free_ports(5 + 8 * len(VANS))
        self.broker_port, self.hub_port, self.inbox_port, self.twin_port = broker, hub, inbox, twin
        self._smtp_port = smtp
        self.ports = {van: VanPorts(*rest[8 * k : 8 * k + 8]) for k, van in enumerate(VANS)}
        midnight = datetime.fromisoformat(f"{DAY}T{STARTS_AT}").replace(tzinfo=zone)
        self._utc_offset_s = int((midnight.utcoffset() or midnight - midnight).total_seconds())
        self.clock = Clock.starting(int(midnight.timestamp() * 1000), wish.speed)
        self.stack = Stack(self._folder / "logs", {SETTING: self.clock.setting()})
        self.hub = httpx.Client(base_url=f"http://127.0.0.1:{hub}", timeout=20)
        self._twin = httpx.Client(base_url=f"http://127.0.0.1:{twin}", timeout=10)

    @property
    def hub_url(self) -> str:
        """Where the hub answers."""
        return f"http://127.0.0.1:{self.hub_port}"

    @property
    def inbox_url(self) -> str:
        """Where everything customers are told can be read."""
        return f"http://127.0.0.1:{self.inbox_port}"

    @property
    def board_url(self) -> str:
        """The depot's screen, for programs."""
        return f"{self.hub_url}/api/depots/{DEPOT}/board"

    @property
    def board_page(self) -> str:
        """The depot's screen, for people."""
        return f"{self.hub_url}/depots/{DEPOT}"

    def figures(self) -> tuple[DayFigures, DayFigures]:
        """What our day and the twin's came to so far, at one instant and the same kilometres' one. Raises httpx errors,
        also while the twin has no plan yet.
        """
        ours = msgspec.json.decode(self.hub.get("/api/day/figures").raise_for_status().content, type=DayFigures)
        asked = {"driven_until": int(ours.driven_until_ms)}
        answer = self._twin.get("/figures", params=asked).raise_for_status()
        return ours, msgspec.json.decode(answer.content, type=DayFigures)

    def codes(self) -> dict[str, str]:
        """What the depot's screen shows: the code that opens each van's page today."""
        board = self.hub.get(self.board_url).raise_for_status().json()
        return {row["agent"]: row["code"] for row in board["vans"]}

    def rise(self) -> None:
        """Start everything and plan the day. Raises DidNotStart naming the process and its log."""
        self._tell("starting the broker, the test inbox and the hub")
        self.stack.start("broker", "deploy.broker", "--port", str(self.broker_port))
        self.stack.start(
            "inbox", "firmware_sim", "inbox", "--port", str(self.inbox_port),
            "--smtp-port", str(self._smtp_port), "--utc-offset-s", str(self._utc_offset_s),
        )  # fmt: skip
        self.stack.wait_for_port("broker", self.broker_port)
        signer = Signer.from_file(self._folder / "hub.key")
        self.stack.start("hub", "cloud_hub", "run", "--settings", self._write("hub", self._hub_settings()))
        self._tell("starting three vans, each with its devices, its agent and a cable to the broker")
        for number, van in enumerate(VANS):
            self._start_van(number, van, signer.public_hex())
        self.stack.start("twin", "firmware_sim", "twin", "--settings", self._write("twin", self._twin_settings()))
        self.stack.wait_for_port("hub", self.hub_port)
        self._wait_until_ready()
        self._hand_in_orders()
        self._tell("planning the day")
        planned = self.hub.post("/api/day/plan", json={"day": DAY})
        if planned.is_error:
            raise DidNotStart(f"the hub does not plan the day: {planned.text[:300]}")

    def driver_page(self, van: str) -> DriverPage:
        """A van's page, for somebody who can see the depot's screen."""
        return DriverPage(f"http://127.0.0.1:{self.ports[van].page}", lambda: self.codes()[van])

    def stop(self) -> None:
        """Stop every process."""
        self.hub.close()
        self._twin.close()
        self.stack.stop()

    def _start_van(self, number: int, van: str, hub_public_key: str) -> None:
        ports = self.ports[van]
        self.stack.start(
            f"{van}-cable", "deploy.cable",
            str(ports.cable), f"127.0.0.1:{self.broker_port}", str(ports.cable_control),
        )  # fmt: skip
        self.stack.start(van, "firmware_sim", "van", "--settings", self._write(van, self._van_settings(number, van)))
        self.stack.wait_for_port(f"{van}-cable", ports.cable_control)
        agent = self._write(f"{van}-agent", self._agent_settings(van, hub_public_key))
        self.stack.start(f"{van}-agent", "edge_agent", "run", "--settings", agent)

    def _wait_until_ready(self) -> None:
        """The hub answers at its door before it has recovered, and says until then that it is not ready."""
        deadline_s = time.monotonic() + READY_WITHIN_S
        while (answer := self.hub.get("/readyz")).is_error:
            if self.stack.fallen() or time.monotonic() > deadline_s:
                raise DidNotStart(f"the hub is not ready: {answer.text[:200]} {self.stack.last_words('hub')}")
            time.sleep(0.1)

    def _hand_in_orders(self) -> None:
        answer = self.hub.post(
            "/api/orders", params={"day": DAY}, content=self._orders, headers={"Content-Type": "text/csv"}
        )
        if answer.is_error:
            raise DemoRefused(f"the hub does not take the orders: {answer.text[:400]}")
        taken = answer.json()
        accepted, doubtful, refused = (taken[outcome] for outcome in ("accepted", "doubtful", "refused"))
        self._tell(f"{len(accepted)} orders taken, {len(doubtful)} doubtful, {len(refused)} refused")
        for row in [*refused, *doubtful][:FIRST_REASONS]:
            self._tell(f"  {_reason(row)}")
        if doubtful:
            self._tell(f"  say where doubtful ones go: {self.hub_url}/api/orders/doubtful (docs/orders.md)")
        if not accepted:
            raise DemoRefused("no order has a place on the map, so there is nothing to plan")

    def _prepare_city(self) -> Path:
        if self.wish.pbf is None:
            return shipped_city()
        from cloud_hub.mapmaking import MapUnreadable, NothingToDriveOn, import_city

        self._tell(f"making a city of {self.wish.pbf.name}")
        try:
            import_city(self.wish.pbf, self._folder / "city")
        except (MapUnreadable, NothingToDriveOn) as wrong:
            raise DemoRefused(str(wrong)) from None
        return self._folder / "city"

    def _prepare_orders(self) -> bytes:
        path = self.wish.orders
        if path is None and self.wish.pbf is not None:
            path = self._folder / "orders.csv"
            try:
                with path.open("w", encoding="utf-8") as file:
                    write_orders(CityMap.load(self._city), self.wish.seed, file)
            except ValueError as wrong:
                raise DemoRefused(f"{wrong}; or bring your own with --orders") from None
        try:
            return (path or HELSINKI_ORDERS).read_bytes()
        except OSError as away:
            raise DemoRefused(f"{path} cannot be read: {away.strerror}") from None

    def _hub_settings(self) -> dict[str, Any]:
        city = CityMap.load(self._city)
        _, west, north, east = city.bounds
        gateway = city.snap(_nearest_edge_of_town(city, Position(north, (west + east) / 2))).position
        depot = {
            "id": DEPOT,
            "name": "Depot on the ring road",
            "position": [gateway.lat + DEPOT_BEARING.lat, gateway.lon + DEPOT_BEARING.lon],
            "gateway": [gateway.lat, gateway.lon],
            "stem_s": STEM_S,
        }
        day = {"shift_from": SHIFT[0], "shift_to": SHIFT[1], "break_from": "10:45", "break_to": "12:45"}
        vehicles = [{"agent": van, "depot": DEPOT, **day} for van in VANS]
        return {
            "broker": f"mqtt://127.0.0.1:{self.broker_port}",
            "store": f"sqlite:///{self._folder / 'hub.db'}",
            "http_port": self.hub_port,
            "city": str(self._city),
            "zone": self.wish.zone,
            "day": DAY,
            "notices": self._notice_settings(),
            "lockers": _lockers(city),
            "key_file": str(self._folder / "hub.key"),
            "solver_s": 3.0,
            "solver_seed": self.wish.seed,
            "access": {"open_on_loopback": True},
            "depots": [depot],
            "vehicles": vehicles,
            "promises": {"first_width_min": 60, "moved_width_min": 60},
        }

    def _notice_settings(self) -> dict[str, Any]:
        """Every channel is on and leads to the test inbox: nothing leaves this machine."""
        return {
            "shop": "Puoti",
            "quiet_to": "06:30",
            "tracking_url": self.hub_url,
            "email": {
                "is_on": True,
                "host": "127.0.0.1",
                "port": self._smtp_port,
                "security": "none",
                "sender": "Puoti <delivery@shop.example>",
            },
            "sms": {"is_on": True, "url": f"{self.inbox_url}/sms"},
            "webhook": {"is_on": True, "url": f"{self.inbox_url}/"},
        }

    def _twin_settings(self) -> dict[str, Any]:
        return {
            "hub": self.hub_url,
            "port": self.twin_port,
            "city": str(self._city),
            "seed": self.wish.seed,
            "utc_offset_s": self._utc_offset_s,
            "vans": {van: ports.twin_luck for van, ports in self.ports.items()},
        }

    def _van_settings(self, number: int, van: str) -> dict[str, Any]:
        ports = self.ports[van]
        return {
            "name": van,
            "page": f"http://127.0.0.1:{ports.page}",
            "city": str(self._city),
            "gnss_port": ports.gnss,
            "scanner_port": ports.scanner,
            "control_port": ports.luck,
            "seed": self.wish.seed,
            "number": number,
            "utc_offset_s": self._utc_offset_s,
            "board": self.board_url,
        } | self._bus(van)

    def _agent_settings(self, van: str, hub_public_key: str) -> dict[str, Any]:
        ports = self.ports[van]
        return {
            "agent": van,
            "region": "main",
            "broker": f"mqtt://127.0.0.1:{ports.cable}",
            "hub_public_key": hub_public_key,
            "store": str(self._folder / f"{van}.db"),
            "page_port": ports.page,
            "gnss": f"tcp://127.0.0.1:{ports.gnss}",
            "scanner": f"tcp://127.0.0.1:{ports.scanner}",
            "time_zone": self.wish.zone,
        } | self._bus(van)

    def _bus(self, van: str) -> dict[str, str]:
        profile = BUSES[van]
        if profile is None:
            return {}
        return {"can": f"can+udp_multicast://239.74.163.2:{self.ports[van].bus}", "can_profile": profile}

    def _write(self, name: str, settings: dict[str, Any]) -> str:
        path = self._folder / f"{name}.toml"
        path.write_text(tomli_w.dumps(settings))
        return str(path)


def _reason(row: dict[str, Any]) -> str:
    """Why one row was not simply taken, in the hub's words."""
    expected = f", expected {row['expected']}" if "expected" in row else ""
    return f"{row['order_id'] or 'a row'}: {row['what_found']}{expected}; {row['do']}"


def _nearest_edge_of_town(city: CityMap, towards: Position) -> Position:
    """The place on the connected streets that lies closest to where the main road would come in."""
    core = city.edge_from[city.edge_core]
    squared = (city.node_lat[core] - towards.lat) ** 2 + ((city.node_lon[core] - towards.lon) * 0.5) ** 2
    node = core[int(squared.argmin())]
    return Position(float(city.node_lat[node]), float(city.node_lon[node]))


def _lockers(city: CityMap) -> list[dict[str, Any]]:
    """Invented parcel lockers, where the map has streets for them: what a failed visit may end in."""
    south, west, north, east = city.bounds
    found = []
    for number, share in enumerate(LOCKERS_AT, start=1):
        wanted = Position(south + (north - south) * share, west + (east - west) * share)
        try:
            place = city.snap(wanted).position
        except OffTheMap:
            continue
        locker = {"id": f"locker-{number}", "name": f"Parcel locker {number}", "position": [place.lat, place.lon]}
        found.append(locker)
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DemoRefused(f"zone is '{name}', expected an IANA name such as Europe/Helsinki") from None


def _fresh(folder: Path) -> Path:
    """An empty folder; only one that an earlier demo made is emptied."""
    folder = folder.resolve()
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "logs").is_dir():
            raise DemoRefused(f"{folder} holds something else than a demo run; give another with --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
