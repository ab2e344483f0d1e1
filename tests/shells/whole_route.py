"""One van's day on real processes alone: broker, hub, inbox, cable, agent, and a van that goes where its page says.

Whoever holds the phone is its driver; whoever opens the mail is the customer. When WAYWARDEN_SCREENS names a folder,
every moment worth looking at is kept there as a picture.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import tomli_w

from deploy.cable import tell
from deploy.stack import Stack, free_ports
from shared.clock import SETTING, Clock
from shared.signing import Signer
from tests.shells.hub_parts import DAY, EIGHT_MS, ZONE, start_broker

PATIENCE_S = 40.0
SPEED = 80.0
MINUTE_MS = 60_000
VAN = "van-1"

ORDERS: tuple[dict[str, Any], ...] = (
    {"order_id": "R-1", "name": "Aino Koski", "address": "Läntinen teatterikuja 1"},
    {"order_id": "R-2", "name": "Veikko Salo", "address": "Kirkkokatu 20", "safe_place": "Bike shed, left shelf",
     "service": "leave_safe"},
    {"order_id": "R-3", "name": "Pekka Niemi", "address": "Mikonkatu 13", "note": "Ring twice, the bell is quiet",
     "service_minutes": 3},
    {"order_id": "R-4", "name": "Ester Laine", "address": "Pieni Roobertinkatu 5", "service": "age_check"},
    {"order_id": "R-5", "name": "Maija Virtanen", "address": "Uudenmaankatu 16", "service": "signature", "floor": 3,
     "door_code": "2468#"},
    {"order_id": "R-6", "name": "Tapio Ranta", "address": "Bulevardi 15", "parcels": 2},
    {"order_id": "R-7", "name": "Helmi Mäki", "address": "Annankatu 24", "neighbour": "Virtanen"},
    {"order_id": "R-8", "name": "Oskari Heino", "address": "Eerikinkatu 4"},
    {"order_id": "R-9", "name": "Saimi Aalto", "address": "Simonkatu 7"},
    {"order_id": "R-10", "name": "Lauri Vesa", "address": "Mannerheimintie 9"},
)  # fmt: skip
"""Round the inner town: whichever way the van is sent, MAIJA is in the middle of it."""

MAIJA, PEKKA = "R-5", "R-3"


class WholeRoute:
    """The processes of one day, and the wires between them that a test may touch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock.starting(EIGHT_MS - 12 * MINUTE_MS, SPEED)
        self.stack = Stack(folder / "logs", {SETTING: self.clock.setting()})
        ports = free_ports(9)
        self.hub_port, self.page_port, self.inbox_port, self._smtp_port = ports[:4]
        self._cable_port, self._cable_control, self._gnss_port, self._scanner_port, self._van_control = ports[4:]
        self.hub_url, self.page_url, self.inbox_url = (
            f"http://127.0.0.1:{port}" for port in (self.hub_port, self.page_port, self.inbox_port)
        )
        self.hub = httpx.Client(base_url=self.hub_url, timeout=20)

    def __enter__(self) -> "WholeRoute":
        try:
            self._rise()
        except BaseException:
            self.stack.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stack.stop()
        self.hub.close()

    def get(self, path: str) -> Any:
        """What the hub answers, as JSON."""
        return self.hub.get(path).raise_for_status().json()

    def wait(self, claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Return when the claim holds, asking again and again: a process has no event we could await."""
        deadline = time.monotonic() + patience_s
        while not claim():
            assert time.monotonic() < deadline, f"in vain for {patience_s} s: {what}; {self.stack.fallen()}"
            time.sleep(0.05)

    def pull_the_cable(self) -> None:
        """No network for the van."""
        tell(self._cable_control, "pull")

    def plug_the_cable(self) -> None:
        """The network is back."""
        tell(self._cable_control, "plug")

    def does_van_stand(self) -> bool:
        """What its driver feels: whether the way to where the page heads is over."""
        return tell(self._van_control, "state")["heading_to"] is None

    def visits(self) -> dict[str, list[dict[str, Any]]]:
        """What the hub knows of each order's visits, in their order."""
        return {order["order_id"]: self.get(f"/api/orders/{order['order_id']}/proof")["visits"] for order in ORDERS}

    def at(self, hour_and_minute: str) -> int:
        """The instant of a local time of this day, in epoch milliseconds."""
        hour, minute = hour_and_minute.split(":")
        return EIGHT_MS + ((int(hour) - 8) * 60 + int(minute)) * MINUTE_MS

    def face(self, minutes_from_now: float) -> str:
        """The local time so many minutes from now, up to the next five minutes."""
        minutes = (self.clock.now_ms() - EIGHT_MS) / MINUTE_MS + minutes_from_now
        up = int(-(-minutes // 5)) * 5 + 8 * 60
        return f"{up // 60:02d}:{up % 60:02d}"

    # How it comes up.

    def _rise(self) -> None:
        broker = start_broker(self.stack)
        self.stack.start("inbox", "firmware_sim", "inbox", "--port", str(self.inbox_port), "--smtp-port",
                         str(self._smtp_port))  # fmt: skip
        self.stack.start("cable", "deploy.cable", str(self._cable_port), f"127.0.0.1:{broker}",
                         str(self._cable_control))  # fmt: skip
        self.stack.start("van", "firmware_sim", "van", "--settings", self._write("van", self._van_settings()))
        public_key = Signer.from_file(self.folder / "hub.key").public_hex()
        self.stack.start("hub", "cloud_hub", "run", "--settings", self._write("hub", self._hub_settings(broker)))
        self.stack.wait_for_port("inbox", self.inbox_port)
        self.stack.wait_for_port("hub", self.hub_port)
        self.wait(lambda: self.hub.get("/readyz").status_code == 200, "the hub is ready")
        self._hand_in_orders()
        self.stack.wait_for_port("cable", self._cable_control)
        self.stack.wait_for_port("van", self._scanner_port)
        agent = self._write("agent", self._agent_settings(public_key))
        self.stack.start("agent", "edge_agent", "run", "--settings", agent)
        self.stack.wait_for_port("agent", self.page_port)
        self.wait(lambda: not self.get("/api/day")["is_planning"], "the day is planned")

    def _hand_in_orders(self) -> None:
        common = {"slot_from": "08:00", "slot_to": "12:00", "language": "en", "consent": "email"}
        rows = [
            common | order | {
                "address": f"{order['address']}, Helsinki", "customer_ref": f"C-{order['order_id']}",
                "email": mail_of(order["order_id"]),
            }
            for order in ORDERS
        ]  # fmt: skip
        taken = self.hub.post("/api/orders", json=rows).raise_for_status().json()
        assert len(taken["accepted"]) == len(rows), taken
        self.hub.post("/api/day/plan").raise_for_status()

    def _hub_settings(self, broker_port: int) -> dict[str, Any]:
        email = {"is_on": True, "host": "127.0.0.1", "port": self._smtp_port, "security": "none",
                 "sender": "Puoti <delivery@shop.example>"}  # fmt: skip
        return {
            "broker": f"mqtt://127.0.0.1:{broker_port}", "store": f"sqlite:///{self.folder / 'hub.db'}",
            "http_port": self.hub_port, "day": DAY, "zone": ZONE, "key_file": str(self.folder / "hub.key"),
            "solver_s": 0.5, "access": {"open_on_loopback": True},
            "notices": {"shop": "Puoti", "tracking_url": self.hub_url, "language": "en", "email": email},
            "redelivery": {"retry_not_before_min": 20, "again_today": 1.0},
            "depots": [{"id": "north", "name": "Depot on Kaisaniemi", "position": [60.1745, 24.9445]}],
            "vehicles": [{"agent": VAN, "depot": "north", "shift_from": "08:00", "shift_to": "12:00",
                          "break_min": 10, "break_from": "08:05", "break_to": "10:00"}],
        }  # fmt: skip

    def _van_settings(self) -> dict[str, Any]:
        return {
            "name": VAN, "page": self.page_url, "is_led": True, "gnss_port": self._gnss_port,
            "scanner_port": self._scanner_port, "control_port": self._van_control,
            "gnss_hz": 10.0, "seed": 7, "stands_at": [60.1745, 24.9445],
            "board": f"{self.hub_url}/api/depots/north/board",
        }  # fmt: skip

    def _agent_settings(self, hub_public_key: str) -> dict[str, Any]:
        return {
            "agent": VAN, "broker": f"mqtt://127.0.0.1:{self._cable_port}", "hub_public_key": hub_public_key,
            "store": str(self.folder / "agent.db"), "page_port": self.page_port, "time_zone": ZONE,
            "gnss": f"tcp://127.0.0.1:{self._gnss_port}", "scanner": f"tcp://127.0.0.1:{self._scanner_port}",
        }  # fmt: skip

    def _write(self, name: str, settings: dict[str, Any]) -> str:
        path = self.folder / f"{name}.toml"
        path.write_text(tomli_w.dumps(settings))
        return str(path)


def mail_of(order_id: str) -> str:
    """Where this order's customer reads mail."""
    return f"{order_id.lower()}@example.org"


class Screens:
    """Keeps pictures in the folder WAYWARDEN_SCREENS names; without one it keeps nothing."""

    def __init__(self) -> None:
        self._folder = os.environ.get("WAYWARDEN_SCREENS", "")
        self._count = 0

    def keep(self, tab: Any, name: str) -> None:
        """What this tab shows now."""
        if self._folder:
            self._count += 1
            if "/t/" in tab.url and not name.endswith("answered"):
                tab.evaluate("scrollTo(0, 0)")
            # A word of thanks lies over the list for two seconds; that is no picture of the day.
            tab.locator("#word:not(.on), body:not(:has(#word))").first.wait_for(state="attached")
            tab.screenshot(path=Path(self._folder) / f"{self._count:02d}-{name}.png")
