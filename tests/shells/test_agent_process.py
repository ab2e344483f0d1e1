"""The agent as a process: a real broker, real devices on TCP, a signed hub, SIGKILL and a pulled cable."""

import http.client
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.stack import Stack, free_ports
from firmware_sim.devices import VanTruth
from firmware_sim.devices.gnss import GnssFaults, GnssReceiver
from firmware_sim.devices.scanner import HandScanner
from shared import topics
from shared.clock import SETTING, Clock
from shared.messages import Arrived, PlanTaken, Resequenced, Visited
from shared.quantities import EpochMs, Position
from shared.work import AgentId
from tests.agents import MORNING_MS, plan_of, row_of_houses, stop
from tests.shells.agents_hub import StandInHub, settings_text
from tests.shells.conftest import CableAt

PATIENCE_S = 20.0
VAN = AgentId("van-1")


class Town:
    """One van in a real town: its devices stand in this process, its agent, broker and cable in their own."""

    def __init__(self, stack: Stack, broker_port: int, agents_broker_port: int, folder: Path, speed: float) -> None:
        self.clock = Clock.starting(MORNING_MS, speed)
        os.environ[SETTING] = self.clock.setting()
        self.position = plan_of(row_of_houses()).depot.position
        self.speed_mps = 0.0
        self.gnss = GnssReceiver(self.truth, 10.0, 1, GnssFaults(noise_m=2.0))
        self.scanner = HandScanner(1)
        self.gnss.start()
        self.scanner.start()
        self.hub = StandInHub(f"mqtt://127.0.0.1:{broker_port}", "town", folder / "hub.key", self.clock.now_ms)
        (self.page_port,) = free_ports(1)
        self.store = folder / "van-1" / "memory.sqlite"
        self.settings = folder / "van-1.toml"
        self.settings.write_text(
            settings_text(
                agent=VAN,
                region="town",
                broker=f"mqtt://127.0.0.1:{agents_broker_port}",
                hub_public_key=self.hub.signer.public_hex(),
                store=str(self.store),
                page_port=self.page_port,
                gnss=self.gnss.url,
                scanner=self.scanner.url,
                time_zone="+02:00",
            )
        )
        self.stack = stack
        stack._environment[SETTING] = self.clock.setting()

    def start_agent(self) -> None:
        self.stack.start("van-1", "edge_agent", "run", "--settings", str(self.settings))
        self.stack.wait_for_port("van-1", self.page_port)

    def truth(self) -> VanTruth:
        return VanTruth(EpochMs(self.clock.now_ms()), self.position, self.speed_mps)

    def drive_to(self, goal: Position, parts: int = 8) -> None:
        """Move there in the time a van takes, as far as the clock runs; then stand."""
        start = self.position
        self.speed_mps = 8.0
        for k in range(1, parts + 1):
            share = k / parts
            self.position = Position(
                start.lat + (goal.lat - start.lat) * share, start.lon + (goal.lon - start.lon) * share
            )
            time.sleep(0.06)
        self.speed_mps = 0.0

    def get(self, path: str) -> tuple[int, Any]:
        return self._ask("GET", path, None, {})

    def day(self) -> Any:
        status, day = self.get("/api/day")
        assert status == 200
        return day

    def post(self, path: str, key: str = "", **body: Any) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or uuid.uuid4().hex}
        return self._ask("POST", path, msgspec.json.encode(body), headers)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.page_port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, msgspec.json.decode(answer.read())
        finally:
            connection.close()

    def until(self, claim: str, holds: Any) -> Any:
        """The day as soon as something holds of it; waits by long poll."""
        deadline = time.monotonic() + PATIENCE_S
        after = ""
        while time.monotonic() < deadline:
            status, day = self.get(f"/api/day{after}")
            if status == 200 and holds(day):
                return day
            if status == 200:
                after = f"?after={day['revision']}"
        raise AssertionError(f"in vain for {PATIENCE_S} s: {claim}")

    def visit(self, stop_id: str, position: Position) -> None:
        assert self.post("/api/heading", stop_id=stop_id)[0] == 200
        self.drive_to(position)
        self.until(f"arrival at {stop_id} recognised", lambda day: day["at_stop"] == stop_id)
        self.deliver(stop_id)

    def deliver(self, stop_id: str, key: str = "") -> None:
        """Scan until the proof is complete, as a driver does."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.scanner.scan(f"WW:{stop_id}/1")
            status, _ = self.post("/api/outcome", key, stop_id=stop_id, outcome="delivered_to_person")
            if status == 200:
                return
            assert status == 422
            time.sleep(0.05)
        raise AssertionError(f"the scan at {stop_id} never arrived")

    def stop(self) -> None:
        self.gnss.stop()
        self.scanner.stop()
        os.environ.pop(SETTING, None)


@pytest.fixture
def town(stack: Stack, broker_port: int, tmp_path: Path) -> Iterator[Town]:
    town = Town(stack, broker_port, broker_port, tmp_path, speed=30.0)
    with town.hub:
        yield town
    town.stop()


@pytest.fixture
def fast_town(stack: Stack, broker_port: int, tmp_path: Path) -> Iterator[Town]:
    town = Town(stack, broker_port, broker_port, tmp_path, speed=600.0)
    with town.hub:
        yield town
    town.stop()


@pytest.fixture
def cut_town(stack: Stack, broker_port: int, cable: CableAt, tmp_path: Path) -> Iterator[Town]:
    town = Town(stack, broker_port, cable.port, tmp_path, speed=300.0)
    with town.hub:
        yield town
    town.stop()


def test_a_killed_agent_continues_from_disk_and_reports_nothing_twice(town: Town) -> None:
    plan = plan_of(row_of_houses())
    town.start_agent()
    town.hub.push(plan)
    town.hub.wait(lambda: town.hub.of(PlanTaken) != [], "the plan was taken")
    assert town.post("/api/shift", **{"is": "begun"})[0] == 200
    for stop_of_plan in plan.stops[:2]:
        town.visit(stop_of_plan.stop_id, stop_of_plan.position)
    assert town.post("/api/heading", stop_id="s3")[0] == 200
    town.drive_to(plan.stops[2].position)
    town.until("arrival at s3 recognised", lambda day: day["at_stop"] == "s3")
    town.stack.kill("van-1")
    town.stack.start_again("van-1")
    town.stack.wait_for_port("van-1", town.page_port)
    day = town.until("a plan is back", lambda day: day["plan_version"] == 1)
    assert day["at_stop"] == "s3"
    assert [done["stop_id"] for done in day["done"]] == ["s1", "s2"]
    assert [each["stop_id"] for each in day["stops"]] == ["s3", "s4", "s5", "s6"]
    town.deliver("s3")
    town.hub.wait(lambda: len(town.hub.of(Visited)) == 3, "three visits were reported")
    assert [said.visit.stop_id for said in town.hub.of(Visited)] == ["s1", "s2", "s3"]
    assert [said.stop_id for said in town.hub.of(Arrived)] == ["s1", "s2", "s3"]
    assert town.hub.numbers == list(range(1, len(town.hub.numbers) + 1))


def test_killed_again_and_again_it_reports_each_outcome_once(town: Town) -> None:
    plan = plan_of(row_of_houses())
    town.start_agent()
    town.hub.push(plan)
    town.until("the plan is shown", lambda day: day["plan_version"] == 1)
    assassin = threading.Timer(0.0, lambda: None)
    for k, stop_of_plan in enumerate(plan.stops):
        key = uuid.uuid4().hex
        town.until("the page is back", lambda day: True)
        assassin = threading.Timer(0.004 * k, town.stack.kill, args=["van-1"])
        assassin.start()
        reported = _try_post(town, "/api/outcome", key, stop_of_plan.stop_id)
        assassin.join()
        town.stack.start_again("van-1")
        town.stack.wait_for_port("van-1", town.page_port)
        if reported != 200:
            assert _try_post(town, "/api/outcome", key, stop_of_plan.stop_id) == 200
    town.hub.wait(lambda: len(town.hub.of(Visited)) == len(plan.stops), "every visit was reported")
    assert [said.visit.stop_id for said in town.hub.of(Visited)] == [each.stop_id for each in plan.stops]
    assert town.hub.numbers == list(range(1, len(town.hub.numbers) + 1))


def _try_post(town: Town, path: str, key: str, stop_id: str) -> int:
    try:
        return town.post(path, key, stop_id=stop_id, outcome="attempted", reason="nobody answered")[0]
    except (OSError, http.client.HTTPException):
        return 0


def test_a_van_with_its_link_cut_re_sequences_and_the_hub_hears_of_it_afterwards(
    cut_town: Town, cable: CableAt
) -> None:
    town = cut_town
    plan = plan_of([*row_of_houses(5), stop("s6", 450.0, 60.0, told=(0, 50))])
    town.start_agent()
    town.hub.push(plan)
    town.hub.wait(lambda: town.hub.of(PlanTaken) != [], "the plan was taken")
    cable.tell("pull")
    assert town.post("/api/shift", **{"is": "begun"})[0] == 200
    assert town.post("/api/heading", stop_id="s1")[0] == 200
    day = town.until("the order changed", lambda day: day["change"] is not None)
    assert town.hub.of(Resequenced) == []
    shown = [each["stop_id"] for each in day["stops"]]
    cable.tell("plug")
    town.hub.wait(lambda: town.hub.of(Resequenced) != [], "the hub heard of the change")
    changed = town.hub.of(Resequenced)[0]
    assert list(changed.after) == shown
    assert changed.decision.model.startswith("legs-")
    assert any(given.name == "link" and given.value.startswith("down") for given in changed.decision.inputs)


def test_garbage_from_the_broker_is_counted_by_name_and_the_agent_lives(town: Town) -> None:
    town.start_agent()
    town.hub.wait(lambda: town.hub.presences != [], "the agent is there")
    commands = topics.down("town", VAN, "commands")
    town.hub.publish(commands, b"unsigned", is_signed=False)
    town.hub.publish(commands, b"\xff\x00 not json")
    town.hub.publish(topics.down("town", VAN, "acks"), b"{}")
    town.hub.say(VAN, _from_the_future)
    town.hub.push(plan_of(row_of_houses()))
    town.until("the plan after the garbage was taken", lambda day: day["plan_version"] == 1)
    _, counters = town.get("/api/counters")
    assert counters["refused_SignatureWrong"] == 1
    assert counters["refused_UnknownMessage"] == 2
    assert counters["refused_CommandUnknown"] == 1


def _from_the_future(seq: int) -> bytes:
    heading = {"sender": "hub", "boot": "hub-boot", "stream": "commands", "seq": seq}
    return msgspec.json.encode({**heading, "message": {"type": "spoken_in_2031"}})


def test_sigterm_ends_it_cleanly_and_its_presence_says_so(town: Town) -> None:
    town.start_agent()
    town.hub.wait(lambda: [p.is_there for p in town.hub.presences] == [True], "the agent is there")
    process = town.stack._processes["van-1"]
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    town.hub.wait(lambda: not town.hub.presences[-1].is_there, "the agent said goodbye")


def test_a_killed_agents_will_says_that_it_is_gone(town: Town) -> None:
    town.start_agent()
    town.hub.wait(lambda: town.hub.presences != [], "the agent is there")
    town.stack.kill("van-1")
    town.hub.wait(lambda: not town.hub.presences[-1].is_there, "the will was delivered")


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        ({"agent": "van/1"}, "agent"),
        ({"broker": "http://x"}, "expected mqtt://HOST:PORT"),
        ({"gnss": "usb:1"}, "expected tcp:// or serial://"),
        ({"hub_public_key": "abc"}, "hub_public_key"),
        ({"time_zone": "Mars/Base"}, "time_zone is 'Mars/Base'"),
        ({"colour": "red"}, "colour"),
        ({"page_port": 70_000}, "page_port"),
    ],
)
def test_settings_that_make_no_sense_refuse_to_start(tmp_path: Path, wrong: dict[str, str], because: str) -> None:
    right = {"agent": "van-1", "broker": "mqtt://h:1", "hub_public_key": "0" * 64, "store": str(tmp_path / "s")}
    path = tmp_path / "van.toml"
    path.write_text(settings_text(**(right | wrong)))
    command = [sys.executable, "-m", "edge_agent", "check", "--settings", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 78
    assert because in ended.stdout


def test_telemetry_reaches_the_hub_as_columns(fast_town: Town) -> None:
    town = fast_town
    town.start_agent()
    town.hub.wait(lambda: town.hub.batches != {}, "a batch arrived")
    batch = next(iter(town.hub.batches.values()))
    assert batch.channels[:3] == ("lat", "lon", "speed_mps")
    assert abs(batch.origin[0] + float(batch.columns[0][0]) - town.position.lat) < 0.001
    assert len(batch.at_ms) >= 5
