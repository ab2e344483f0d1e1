"""A small day with named people and nothing but real processes: hub, broker, an agent on its devices, a mail server.

Anna signs for her parcel; Bertta is not at home, and has asked for a neighbour; Olli at the hub corrects an address
and closes a street. Every personal word of the day is listed, so that a test can look for it anywhere.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from aiosmtpd.controller import Controller

from deploy.stack import Stack, free_ports
from firmware_sim.devices import VanTruth
from firmware_sim.devices.gnss import GnssFaults, GnssReceiver
from firmware_sim.devices.scanner import HandScanner
from firmware_sim.luck import Luck
from firmware_sim.pictures import signature
from shared.clock import SETTING, Clock
from shared.mqtt import Heard, Link
from shared.quantities import EpochMs, Position
from shared.signing import Signer
from tests.shells.agents_hub import settings_text
from tests.shells.hub_parts import DAY, EIGHT_MS, ZONE, start_broker

PATIENCE_S = 30.0
SPEED = 60.0
ANNA, BERTTA = "anna-ref-77", "bertta-ref-78"

ANNAS = {
    "reference": ANNA, "name": "Anna Virtanen-Salo", "email": "anna.virtanen@posti.example", "phone": "+358401234567",
    "address": "Yrjönkatu 29", "door code": "4711#A", "note": "varokaa vihaista hanhea",
}  # fmt: skip
BERTTAS = {
    "reference": BERTTA, "name": "Bertta Ahola-Koivu", "email": "bertta.ahola@posti.example", "phone": "+358407654321",
    "address": "Hovioikeudenlaituri 999", "neighbour": "Pekka Korhonen kolmosesta", "safe place": "saunan terassi",
}  # fmt: skip
HANDS = {"operator": "Olli Operaattori", "words": "Kalle Koskinen kaatui tähän", "driver": "rouva itki ovella"}


class PeopleDay:
    """The processes, and the hands that drive them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.topics: set[str] = set()
        self.letters: list[str] = []
        self.clock = Clock.starting(EIGHT_MS - 1_800_000, SPEED)
        os.environ[SETTING] = self.clock.setting()
        self.logs = folder / "logs"
        self.stack = Stack(self.logs, {SETTING: self.clock.setting()})
        self.hub_port, self.page_port, self.mail_port = free_ports(3)
        self.hub_url = f"http://127.0.0.1:{self.hub_port}"
        self.hub = httpx.Client(base_url=self.hub_url, timeout=20)
        self.page = httpx.Client(base_url=f"http://127.0.0.1:{self.page_port}", timeout=20)
        self.position = Position(60.18, 24.945)
        self._posts = 0

    def __enter__(self) -> "PeopleDay":
        port = start_broker(self.stack)
        broker = f"mqtt://127.0.0.1:{port}"
        self._mail = Controller(_Letters(self.letters), hostname="127.0.0.1", port=self.mail_port)
        self._mail.start()
        self._listener = Link(broker, "listener", ["ww/#"], self._overhear)
        self._listener.open()
        self._gnss = GnssReceiver(self._truth, 10.0, 1, GnssFaults(noise_m=2.0))
        self._scanner = HandScanner(1)
        self._gnss.start()
        self._scanner.start()
        self._write_settings(broker)
        self.start_hub()
        self.stack.start("van-1", "edge_agent", "run", "--settings", str(self.folder / "van-1.toml"))
        self.stack.wait_for_port("van-1", self.page_port)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stack.stop()
        self._listener.close()
        self._mail.stop()
        self._gnss.stop()
        self._scanner.stop()
        self.hub.close()
        self.page.close()
        os.environ.pop(SETTING, None)

    def start_hub(self) -> None:
        """Start the hub, or start it once more."""
        self.stack.start("hub", "cloud_hub", "run", "--settings", str(self.folder / "hub.toml"))
        self.stack.wait_for_port("hub", self.hub_port)
        self.wait(lambda: self.hub.get("/readyz").status_code == 200, "the hub is ready")

    # The day.

    def live(self) -> None:
        """Everything that happens to these people, up to the end of Bertta's failed visit."""
        self._hand_in_orders()
        self.say_to_hub(
            "/api/roads/closures", {"ways": [self._a_way()], "why": HANDS["words"], "by": HANDS["operator"]}
        )
        self.say_to_hub("/api/day/plan", {"by": HANDS["operator"]})
        self.wait(lambda: not self.hub.get("/api/day").json()["is_planning"], "the day is planned")
        self._wish("neighbour", who=BERTTAS["neighbour"])
        self._sign_in()
        self.say("/api/shift", **{"is": "begun"})
        self._deliver_to_anna()
        self._miss_bertta()
        self.wait(lambda: len(self.letters) >= 2, "customers got their letters")
        self.wait(self._all_is_heard, "the hub has heard of everything")

    def stop_of(self, order_id: str) -> dict[str, Any]:
        """The stop of an order as the driver's page has it."""
        day = self.page.get("/api/day").json()
        found: dict[str, Any] = next(stop for stop in day["stops"] if stop["order_id"] == order_id)
        return found

    def say_to_hub(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post something to the hub that must be taken."""
        answer = self.hub.post(path, json=body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def say(self, path: str, **body: Any) -> httpx.Response:
        """Post something to the driver's page that must be taken."""
        answer = self._post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the front door's command line."""
        return subprocess.run(
            [sys.executable, "-m", "deploy", *words], capture_output=True, text=True, timeout=60, check=False
        )

    def wait(self, claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Return when the claim holds, asking again and again: a process has no event we could await."""
        deadline = time.monotonic() + patience_s
        while not claim():
            assert time.monotonic() < deadline, f"in vain for {patience_s} s: {what}"
            time.sleep(0.05)

    # Where things are kept.

    def hub_files(self) -> list[Path]:
        """Every file of the hub's stores, write-ahead logs included."""
        return sorted(file for file in self.folder.glob("hub*.db*"))

    def van_files(self) -> list[Path]:
        """Every file of the agent's store."""
        return sorted(file for file in (self.folder / "van").iterdir())

    # Parts of the day.

    def _hand_in_orders(self) -> None:
        common = {"slot_from": "08:00", "slot_to": "18:00", "language": "fi", "consent": "email"}
        anna = common | {
            "order_id": "A-1", "address": f"{ANNAS['address']}, 00100 Helsinki", "service": "signature",
            "customer_ref": ANNA, "name": ANNAS["name"], "email": ANNAS["email"], "phone": ANNAS["phone"],
            "door_code": ANNAS["door code"], "note": ANNAS["note"], "parcels": ["CE123456785FI"],
        }  # fmt: skip
        bertta = common | {
            "order_id": "B-1", "address": BERTTAS["address"], "customer_ref": BERTTA, "name": BERTTAS["name"],
            "email": BERTTAS["email"], "phone": BERTTAS["phone"], "safe_place": BERTTAS["safe place"],
        }  # fmt: skip
        answer = self.hub.post("/api/orders", json=[anna, bertta]).json()
        assert answer["accepted"] == ["A-1"], answer
        self.say_to_hub("/api/orders/B-1/correction", {"lat": 60.1683, "lon": 24.9411, "by": HANDS["operator"]})

    def _a_way(self) -> int:
        ways = self.hub.get("/api/roads/ways", params={"near": "60.1690,24.9400"}).json()
        return int(ways[0]["way"])

    def _wish(self, kind: str, **fields: str) -> None:
        token = self.say_to_hub("/api/orders/B-1/link", {})["token"]
        answer = self.hub.post(f"/t/{token}", data={"wish": kind, "remember": "yes", **fields})
        assert answer.status_code == 303, answer.text

    def _sign_in(self) -> None:
        (van,) = self.hub.get("/api/depots/north/board").json()["vans"]
        self.wait(lambda: self.page.get("/api/day").status_code == 401, "the agent has its plan, and it is locked")
        self.say("/api/session", code=van["code"])

    def _deliver_to_anna(self) -> None:
        stop = self._drive_to("A-1")
        picture = signature(Luck(7))
        handed = self._post(
            "/api/objects", params={"kind": "signature", "stop_id": stop["stop_id"]}, content=picture,
            headers={"Content-Type": "image/png"},
        )  # fmt: skip
        assert handed.status_code == 200, handed.text
        self.picture, self.digest = picture, handed.json()["digest"]
        self.say("/api/scan", text="CE123456785FI")
        self.say("/api/outcome", stop_id=stop["stop_id"], outcome="delivered_to_person", signature=self.digest)

    def _miss_bertta(self) -> None:
        stop = self._drive_to("B-1")
        self.say("/api/outcome", stop_id=stop["stop_id"], outcome="attempted", reason=HANDS["driver"])

    def _drive_to(self, order_id: str) -> dict[str, Any]:
        stop = self.stop_of(order_id)
        self.say("/api/heading", stop_id=stop["stop_id"])
        lat, lon = stop["position"]
        self.position = Position(lat, lon)
        self.wait(lambda: self.page.get("/api/day").json()["at_stop"] == stop["stop_id"], f"arrival for {order_id}")
        return stop

    def _all_is_heard(self) -> bool:
        visits = [self.hub.get(f"/api/orders/{order_id}/proof").json()["visits"] for order_id in ("A-1", "B-1")]
        return all(visits) and self.hub.get(f"/api/objects/{self.digest}").status_code == 200

    def _post(self, path: str, **request: Any) -> httpx.Response:
        self._posts += 1
        headers = {"Idempotency-Key": f"key-{self._posts}", **request.pop("headers", {})}
        return self.page.post(path, headers=headers, **request)

    # The world.

    def _truth(self) -> VanTruth:
        return VanTruth(EpochMs(self.clock.now_ms()), self.position, 0.0)

    def _overhear(self, event: Any) -> None:
        if isinstance(event, Heard):
            self.topics.add(event.topic)

    def _write_settings(self, broker: str) -> None:
        key = self.folder / "hub.key"
        public = Signer.from_file(key).public_hex()
        (self.folder / "van").mkdir()
        (self.folder / "van-1.toml").write_text(
            settings_text(
                agent="van-1", broker=broker, hub_public_key=public, store=str(self.folder / "van" / "memory.sqlite"),
                page_port=self.page_port, gnss=self._gnss.url, scanner=self._scanner.url, time_zone=ZONE,
            )
        )  # fmt: skip
        (self.folder / "hub.toml").write_text(
            f'broker = "{broker}"\nstore = "sqlite:///{self.folder / "hub.db"}"\nhttp_port = {self.hub_port}\n'
            f'day = "{DAY}"\nzone = "{ZONE}"\nkey_file = "{key}"\nsolver_s = 0.3\n'
            f'[access]\nopen_on_loopback = true\n[notices]\nshop = "Kauppa"\ntracking_url = "{self.hub_url}"\n'
            'language = "fi"\n'
            f'[notices.email]\nis_on = true\nhost = "127.0.0.1"\nport = {self.mail_port}\nsecurity = "none"\n'
            'sender = "Kauppa <kauppa@kauppa.example>"\n'
            '[[depots]]\nid = "north"\nname = "North"\nposition = [60.18, 24.945]\n'
            '[[vehicles]]\nagent = "van-1"\ndepot = "north"\nshift_from = "08:00"\nshift_to = "18:00"\nbreak_min = 0\n'
        )


class _Letters:
    """A mail server's inbox."""

    def __init__(self, letters: list[str]) -> None:
        self._letters = letters
        self._lock = threading.Lock()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        with self._lock:
            self._letters.append(envelope.content.decode(errors="replace"))
        return "250 taken"


def holding(files: Iterator[Path] | list[Path], words: dict[str, str]) -> list[str]:
    """Which of these words stand in the bytes of which file."""
    found = []
    for file in files:
        content = file.read_bytes()
        found += [f"{what} in {file.name}" for what, word in words.items() if word.encode() in content]
    return found
