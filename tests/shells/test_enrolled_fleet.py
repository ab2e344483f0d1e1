"""The production path by its own commands: broker, hub over TLS, an enrolled agent at work, and its revocation."""

import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.mosquitto import program
from deploy.stack import Stack, free_ports
from firmware_sim.devices import VanTruth
from firmware_sim.devices.gnss import GnssFaults, GnssReceiver
from shared.clock import SETTING, Clock
from shared.quantities import EpochMs, Position
from tests.needs import needs
from tests.shells.hub_parts import DAY, EIGHT_MS, ZONE, some_orders

PATIENCE_S = 30.0
DEPOT = Position(60.18, 24.945)


class Production:
    """One machine with everything an operator sets up, by the commands an operator types."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        self.stack = stack
        self.clock = Clock.starting(EIGHT_MS, 300.0)  # A batch of readings every three seconds.
        stack._environment[SETTING] = self.clock.setting()
        self.http_port, self.agents_port, self.hub_port, self.page_port = free_ports(4)
        self.settings = folder / "hub.toml"
        self.agent_settings = folder / "van-1.toml"
        self.gnss = GnssReceiver(self.truth, 10.0, 1, GnssFaults())
        self.gnss.start()

    def truth(self) -> VanTruth:
        return VanTruth(EpochMs(self.clock.now_ms()), DEPOT, 0.0)

    def command(self, module: str, *words: str, status: int = 0) -> str:
        """What a command prints."""
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def set_up_hub(self) -> None:
        """Broker configuration, HTTPS certificate, settings, and both processes."""
        own = (
            f'store = "sqlite:///{self.folder / "hub.db"}"\nhttp_port = {self.http_port}\nday = "{DAY}"\n'
            f'zone = "{ZONE}"\nkey_file = "{self.folder / "hub.key"}"\nsolver_s = 0.3\n'
        )
        tables = (
            "[access]\nopen_on_loopback = true\n"
            '[[depots]]\nid = "north"\nname = "North"\nposition = [60.18, 24.945]\n'
            '[[vehicles]]\nagent = "van-1"\ndepot = "north"\n'
        )
        self.settings.write_text(own + tables)
        at = ("--settings", str(self.settings))
        made = self.command(
            "deploy", "mosquitto", str(self.folder / "broker"), "--name", "localhost", "--agents-host", "127.0.0.1",
            "--agents-port", str(self.agents_port), "--hub-port", str(self.hub_port), *at,
        )  # fmt: skip
        served = self.command("deploy", "certify", "localhost", *at)
        lines = [line.strip() for line in (made + served).splitlines() if line.startswith("  ")]
        start, broker, *more = lines
        self.settings.write_text(own + f"{broker}\n" + tables + "\n".join(more) + "\n")
        self.stack.start_program("mosquitto", str(program()), *start.split()[1:])
        self.stack.wait_for_port("mosquitto", self.hub_port)
        self.stack.start("hub", "cloud_hub", "run", "--settings", str(self.settings))
        self.stack.wait_for_port("hub", self.http_port)
        trusted = ssl.create_default_context(cafile=str(self.folder / "authority" / "ca.crt"))
        self.http = httpx.Client(base_url=f"https://localhost:{self.http_port}", verify=trusted, timeout=20)
        self.wait(lambda: self.http.get("/readyz").status_code == 200, "the hub is ready")

    def enrol_agent(self) -> None:
        """A token at the hub, the agent's own settings, and its process."""
        token = self.command("deploy", "enrol", "van-1", "--settings", str(self.settings)).splitlines()[1]
        self.agent_settings.write_text(
            f'gnss = "{self.gnss.url}"\npage_port = {self.page_port}\ntime_zone = "+02:00"\n'
        )
        said = self.command(
            "edge_agent", "enrol", "--hub", f"https://localhost:{self.http_port}", "--token", token,
            "--settings", str(self.agent_settings),
        )  # fmt: skip
        assert said.startswith("enrolled: van-1 in main")
        assert self.command("edge_agent", "check", "--settings", str(self.agent_settings)).startswith("ready: van-1")
        self.stack.start("van-1", "edge_agent", "run", "--settings", str(self.agent_settings))
        self.stack.wait_for_port("van-1", self.page_port)

    def van(self) -> Any:
        """The agent as the hub sees it."""
        return next((van for van in self.http.get("/api/fleet").json() if van["agent"] == "van-1"), {})

    def samples(self) -> int:
        """How many of its readings the hub has stored."""
        answer = self.http.get("/api/telemetry/van-1", params={"channel": "speed_mps"})
        return len(answer.json()["at_ms"]) if answer.status_code == 200 else 0

    def wait(self, claim: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not claim():
            assert time.monotonic() < deadline, f"in vain for {PATIENCE_S} s: {what}; {self.stack.fallen()}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def production() -> Iterator[Production]:
    needs(program(), "mosquitto: apt install mosquitto")
    folder = Path(tempfile.mkdtemp(prefix="waywarden-production-"))
    folder.chmod(0o755)
    try:
        with Stack(folder / "logs", {}) as stack:
            made = Production(folder, stack)
            made.set_up_hub()
            made.enrol_agent()
            yield made
            made.gnss.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_an_enrolled_agent_takes_its_plan_and_its_readings_are_stored(production: Production) -> None:
    taken = production.http.post("/api/orders", json=some_orders(4)).json()
    assert len(taken["accepted"]) == 4, taken
    assert production.http.post("/api/day/plan").status_code == 202
    production.wait(lambda: production.van().get("plan_taken") == 1, "the van has taken its plan")
    production.wait(lambda: production.samples() > 0, "readings are stored")


def test_everybody_enrolled_is_listed_with_its_end(production: Production) -> None:
    listed = production.command("deploy", "agents", "--settings", str(production.settings))
    kinds = [line.split()[:2] for line in listed.splitlines()[1:]]
    assert kinds == [["van-1", "agent"], ["hub", "hub"], ["localhost", "server"], ["localhost", "server"]]
    assert "nothing is near its end" in production.command("deploy", "renew", "--settings", str(production.settings))
    over_http = production.http.get("/api/enrolments").json()
    assert [one["agent"] for one in over_http["certificates"] if one["kind"] == "agent"] == ["van-1"]


def test_a_revoked_agent_is_gone_at_once_and_its_van_drives_on(production: Production) -> None:
    production.wait(lambda: bool(production.van()), "the agent is known")
    said = production.command("deploy", "revoke", "van-1", "--why", "stolen", "--settings", str(production.settings))
    assert "has no session and did not come back" in said
    production.wait(lambda: not production.van()["is_there"], "the hub knows that the van is out of reach")
    before = production.samples()
    time.sleep(1.5)  # Long enough for two more tries of the agent's.
    assert production.samples() == before
    assert production.stack.fallen() == []
    listed = production.http.get("/api/enrolments").json()["certificates"]
    assert [one["why"] for one in listed if one["kind"] == "agent"] == ["stolen"]
