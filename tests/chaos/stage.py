"""The processes of a chaos run, each of which can be killed and is started again as a supervisor would."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import msgspec

from deploy import cable as cables
from deploy.stack import Stack, free_ports
from shared.clock import SETTING, Clock
from shared.signing import Signer
from tests.brokers import start_broker
from tests.chaos.database import Database
from tests.chaos.talker import TalkerSettings

DAY, ZONE = "2026-03-03", "Europe/Helsinki"
EIGHT_MS = int(datetime(2026, 3, 3, 8, 0, tzinfo=ZoneInfo(ZONE)).timestamp() * 1000)
PATIENCE_S = 60.0
RESTART_AFTER_S = 0.2
STOPS_EACH = 4


class NotBack(RuntimeError):
    """A part that was started again did not come back."""


@dataclass(frozen=True, slots=True)
class Wound:
    """One round: who was killed or cut, from when until everything was back, in domain time; talkers it hit."""

    what: str
    from_ms: int
    back_ms: int
    talkers: tuple[str, ...]


class Stage:
    """Broker, database, hub, cables and talkers. For one thread."""

    def __init__(
        self, folder: Path, store: str, broker: str, talkers: int, events_per_s: float, trims_on_puback: bool
    ) -> None:
        """`store` is embedded, postgres or a URL; `broker` is embedded or mosquitto."""
        self.clock = Clock.starting(EIGHT_MS, 1.0)
        os.environ[SETTING] = self.clock.setting()
        self.stack = Stack(folder / "logs", {SETTING: self.clock.setting()})
        self.folder = folder
        self.talkers = tuple(f"talker-{k + 1}" for k in range(talkers))
        self.database = Database.of(store, folder)
        self._broker = broker
        self._events_per_s = events_per_s
        self._trims_on_puback = trims_on_puback
        self._down: set[str] = set()
        broker_port, self.http_port, *rest = free_ports(4 + 2 * talkers)
        self.broker_port = broker_port
        self._cables = dict(zip(("hub", *self.talkers), zip(rest[::2], rest[1::2], strict=True), strict=True))
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=10)
        self.windows_asked = 0

    @property
    def victims(self) -> list[tuple[str, ...]]:
        """What a round may kill or cut, together."""
        found = [("hub",), ("broker",), ("hub", "broker"), ("cut hub",)]
        for name in self.talkers:
            found += [(name,), (f"cut {name}",)]
        found += [(self.talkers[0], "hub"), (*self.talkers, "hub", "broker")]
        if self.database.can_be_killed:
            found += [("database",), ("database", "hub"), ("database", "hub", "broker", *self.talkers)]
        return found

    def open(self) -> None:
        """Start everything and give the talkers a day's work, so that the hub has something to tell them."""
        self.database.start()
        start_broker(self.stack, self._broker, self.folder, self.broker_port, most_queued=0, is_kept=True)
        for near, control in self._cables.values():
            name = f"cable-{near}"
            self.stack.start(name, "deploy.cable", str(near), f"127.0.0.1:{self.broker_port}", str(control))
            self.stack.wait_for_port(name, control)
        key = Signer.from_file(self.folder / "hub.key").public_hex()
        settings = self.folder / "hub.toml"
        settings.write_text(self._hub_settings())
        self.stack.start("hub", "cloud_hub", "run", "--settings", str(settings))
        self._wait_ready()
        for name in self.talkers:
            self._start_talker(name, key)
        self._plan()

    def close(self) -> None:
        """End everything."""
        self.http.close()
        self.stack.stop()
        self.database.stop()

    def strike(self, parts: Sequence[str], away_s: float, draw: random.Random) -> Wound:
        """Kill or cut these parts at once, bring them back after a while in any order, and wait until all are there."""
        from_ms = self.clock.now_ms()
        for part in parts:
            self._take_down(part)
        time.sleep(away_s)
        marks = {name: self._words(name) for name in self.talkers}
        for part in draw.sample(list(parts), len(parts)):
            self._bring_back(part)
        self._wait_ready()
        for part in parts:
            if part in self.talkers:
                self._wait(lambda part=part: "link_up" in self._since(part, marks[part]), f"{part} is back")  # type: ignore[misc]  # bound now
        hit = tuple(name for name in self.talkers if any(part in (name, f"cut {name}") for part in parts))
        everybody = any(not part.removeprefix("cut ").startswith("talker") for part in parts)
        return Wound(" + ".join(parts), from_ms, self.clock.now_ms(), self.talkers if everybody else hit)

    @contextmanager
    def all_cut(self) -> Iterator[None]:
        """Every talker's link is cut while this lasts."""
        for name in self.talkers:
            self._take_down(f"cut {name}")
        try:
            yield
        finally:
            for name in self.talkers:
                self._bring_back(f"cut {name}")

    def tend(self, seconds: float) -> None:
        """Let it run, starting again whoever ended by itself, as a supervisor does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._supervise()
            time.sleep(0.02)

    def ask_window(self, order: int, minute: int) -> None:
        """Have the hub tell a talker another window; whether it could be asked is its own business."""
        opens = datetime.fromtimestamp(EIGHT_MS / 1000 + 3 * 3_600 + 60 * (minute % 120), ZoneInfo(ZONE))
        body = {"opens": opens.isoformat(), "closes": (opens + timedelta(hours=1)).isoformat(), "by": "chaos"}
        try:
            answer = self.http.post(f"/api/promises/C-{order:03d}/window", json=body)
            self.windows_asked += answer.status_code == 200
        except httpx.HTTPError:
            pass

    def silence(self) -> None:
        """Nobody says anything new."""
        self.tend(0.5)
        for name in self.talkers:
            os.kill(self.stack.ids[name], signal.SIGUSR1)

    def wait_until(self, claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Return when the claim holds, tending the processes. Raises NotBack."""
        self._wait(claim, what, patience_s)

    # How it is done.

    def _take_down(self, part: str) -> None:
        if part.startswith("cut "):
            cables.tell(self._cables[part.removeprefix("cut ")][1], "pull")
        elif part == "database":
            self._down.add(part)
            self.database.kill()
        else:
            self._down.add(part)
            self.stack.kill(part)

    def _bring_back(self, part: str) -> None:
        if part.startswith("cut "):
            cables.tell(self._cables[part.removeprefix("cut ")][1], "plug")
            return
        self._down.discard(part)
        if part == "database":
            self.database.start()
        else:
            self.stack.start_again(part)
            if part == "broker":
                self.stack.wait_for_port("broker", self.broker_port)

    def _supervise(self) -> None:
        for words in self.stack.fallen():
            name = words.partition(" ")[0]
            if name not in self._down:
                time.sleep(RESTART_AFTER_S)
                self.stack.start_again(name)

    def _wait(self, claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while not claim():
            if time.monotonic() > deadline:
                raise NotBack(f"in vain for {patience_s:.0f} s: {what}; logs are in {self.stack.folder}")
            self._supervise()
            time.sleep(0.01)

    def _wait_ready(self) -> None:
        self._wait(self._is_ready, "the hub is ready")

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def _words(self, name: str) -> int:
        return (self.stack.folder / f"{name}.log").stat().st_size

    def _since(self, name: str, mark: int) -> str:
        return (self.stack.folder / f"{name}.log").read_bytes()[mark:].decode(errors="replace")

    def _start_talker(self, name: str, key: str) -> None:
        settings = TalkerSettings(
            name, f"mqtt://127.0.0.1:{self._cables[name][0]}", key, str(self.folder / f"{name}.db"),
            self.clock.setting(), self._events_per_s, self._trims_on_puback,
        )  # fmt: skip
        path = self.folder / f"{name}.json"
        path.write_bytes(msgspec.json.encode(settings))
        self.stack.start(name, "tests.chaos.talker", str(path))

    def _plan(self) -> None:
        orders: list[dict[str, Any]] = [
            {
                "order_id": f"C-{k:03d}", "lat": 60.165 + 0.0012 * (k % 9), "lon": 24.939 + 0.0017 * (k // 9),
                "slot_from": "09:00", "slot_to": "15:00",
            }
            for k in range(STOPS_EACH * len(self.talkers))
        ]  # fmt: skip
        taken = self.http.post("/api/orders", json=orders)
        if len(taken.json().get("accepted", ())) != len(orders) or self.http.post("/api/day/plan").status_code != 202:
            raise NotBack(f"the hub did not take the orders: {taken.text[:500]}")
        self._wait(lambda: not self.http.get("/api/day").json()["is_planning"], "the day is planned")

    def _hub_settings(self) -> str:
        vehicles = "".join(
            f'[[vehicles]]\nagent = "{name}"\ndepot = "north"\nshift_from = "08:30"\nshift_to = "17:00"\n'
            for name in self.talkers
        )
        return (
            f'broker = "mqtt://127.0.0.1:{self._cables["hub"][0]}"\nstore = "{self.database.url}"\n'
            f'http_port = {self.http_port}\nday = "{DAY}"\nzone = "{ZONE}"\nkey_file = "{self.folder / "hub.key"}"\n'
            "solver_s = 0.3\n[access]\nopen_on_loopback = true\n"
            '[[depots]]\nid = "north"\nname = "North"\nposition = [60.29, 25.03]\n'
            "gateway = [60.18, 24.945]\nstem_s = 900\n"
            f"{vehicles}"
        )
