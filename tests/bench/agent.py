"""What an agent costs a van's computer, and how fast a reading becomes a new order and a new promise.

`python -m tests.bench.agent [--json] [--repeats N] [--only rss,start,reorder,promise]`

- rss_mb: resident memory of an agent's process with models, kernel, drivers (GNSS, OBD-II, scanner) and signatures
  loaded, a plan of 60 stops taken and predictions made; the table names what each library costs.
- start_ms: from starting the process to the first reading believed, median of five starts.
- reorder_ms_p99: from a fix that shows the delay to the new order committed, 60 stops to come; core, SQLite on disk,
  models and kernel (50 ms of it), in one thread.
- promise_ms_p99: from an event committed on a van to the told window moved (committed and sent) at the hub: broker, hub
  and van on this machine, as processes.
"""

import argparse
import http.client
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import httpx
import msgspec
import numpy as np

from deploy.stack import Stack, free_ports
from edge_agent.agent import AgentCore
from edge_agent.ballast import Ballast
from edge_agent.dialogue import Asked, ChangeSaid, HeadingSaid, ShiftSaid
from edge_agent.inference import TRAINED_FOLDER
from edge_agent.memory import Change
from edge_agent.sensing import Fix
from edge_agent.store import SqliteStore
from edge_agent.workshop import Workshop
from firmware_sim.devices import VanTruth
from firmware_sim.devices.ecu import ObdEcu
from firmware_sim.devices.gnss import GnssFaults, GnssReceiver
from firmware_sim.devices.scanner import HandScanner
from shared import topics, wire
from shared.clock import SETTING, Clock
from shared.contracts import Freedom, Plan
from shared.messages import (
    AgentEvent,
    AgentStarted,
    Estimate,
    EstimatesMoved,
    Numbered,
    PlanPushed,
    PlanTaken,
    Resequenced,
    WindowTold,
)
from shared.mqtt import Heard, Link
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Consequences, Envelope, Job, Now, step
from shared.streams import Receiver, Sender, Take
from shared.topics import HUB
from shared.work import AgentId, Stop, StopId
from tests.agents import DEPOT, MINUTE_MS, MORNING_MS, identity, plan_of, stop
from tests.processes import rss_mb
from tests.shells.agents_hub import StandInHub, settings_text

VAN = AgentId("van-1")
ORDERS = Path(__file__).resolve().parents[2] / "deploy" / "days" / "helsinki-orders.csv"
DAY = "2026-03-03"
STOPS = 60
STARTS = 5
REORDERS = 200
LIMITS = {"rss_mb": 96.0, "start_ms": 1_500.0, "reorder_ms_p99": 100.0, "promise_ms_p99": 250.0}

LIBRARIES = (
    ("Python itself", ""),
    ("numpy", "import numpy"),
    ("msgspec", "import msgspec"),
    (
        "messages, plans and labels (shared)",
        "import shared.messages, shared.wire, shared.labels; shared.labels.shipped_labels()",
    ),
    ("kernel", "import shared.resequence"),
    ("PyNaCl (signatures)", "from shared.signing import Verifier; Verifier('00' * 32)"),
    ("paho-mqtt", "import shared.mqtt"),
    ("SQLite", "import edge_agent.store"),
    ("page (http.server)", "import edge_agent.page"),
    ("core", "import edge_agent.agent"),
    ("onnxruntime", "import onnxruntime"),
    ("models", "from edge_agent.inference import shipped_models; shipped_models()"),
    ("GNSS driver (pynmea2)", "import edge_agent.drivers.nmea"),
    ("scanner driver", "import edge_agent.drivers.scanner"),
    (
        "CAN, OBD-II (python-can, can-isotp)",
        "import edge_agent.drivers.can; import can, isotp; import can.interfaces.udp_multicast",
    ),
    ("J1939 (cantools; trucks only)", "import cantools"),
)


def busy_plan(seed: int, count: int = STOPS) -> Plan:
    """A town of 60 doors whose windows are tight enough that ten lost minutes hurt."""
    draw = np.random.default_rng(seed)
    doors = [stop(f"s{k}", *draw.uniform(-1500, 1500, 2).tolist(), service_s=150) for k in range(count)]
    # Planned by going to the nearest next: a decent order, as a hub would send.
    order, here, rest = [], DEPOT.position, list(doors)
    while rest:
        nearest = min(
            rest, key=lambda door: (door.position.lat - here.lat) ** 2 + (door.position.lon - here.lon) ** 2 / 4
        )
        rest.remove(nearest)
        order.append(nearest)
        here = nearest.position
    plan = plan_of(order)
    seconds = plan.legs.matrix()[0]
    clock_s, row, planned = 0.0, 0, []
    for k, door in enumerate(order):
        clock_s += float(seconds[row, k + 1])
        opens = max(0.0, clock_s / 60 - 30)
        planned.append(stop_window(door, opens, clock_s / 60 + draw.uniform(5, 40)))
        clock_s += door.service_s
        row = k + 1
    return plan_of(planned, freedom=Freedom(arcs_per_day=10_000))


def stop_window(door: Stop, opens_min: float, closes_min: float) -> Stop:
    """The same door, told another window."""
    opens, closes = MORNING_MS + round(opens_min * MINUTE_MS), MORNING_MS + round(closes_min * MINUTE_MS)
    return msgspec.structs.replace(door, told=TimeWindow(EpochMs(opens), EpochMs(closes)))


# Memory.


def library_costs() -> list[tuple[str, float]]:
    """Megabytes of resident memory each library adds, imported one after the other in a fresh process."""
    lines = ["import ctypes", "def rss():", "    text = open('/proc/self/status').read()"]
    lines += ["    return int(text.split('VmRSS:')[1].split()[0]) / 1024", "before = 0.0"]
    for name, code in LIBRARIES:
        lines += [f"try:\n    {code or 'pass'}\nexcept Exception as e:\n    print('!', e)"]
        lines += [f"now = rss(); print({name!r}, round(now - before, 1), sep='\\t'); before = now"]
    told = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return [
        (name, float(cost)) for name, cost in (line.split("\t") for line in told.stdout.splitlines() if "\t" in line)
    ]


class RealVan:
    """An agent's process with everything around it: broker, devices, a hub that has pushed a plan."""

    def __init__(
        self, folder: Path, plan: Plan, has_bus: bool = True, has_broker: bool = True, speed: float = 1.0
    ) -> None:
        self.clock = Clock.starting(MORNING_MS, speed)
        self.plan = plan
        self.position, self.speed_mps = plan.depot.position, 0.0
        self._open = ExitStack()
        self.stack = self._open.enter_context(Stack(folder / "logs", {SETTING: self.clock.setting()}))
        broker_port, self.page_port = free_ports(2)
        if has_broker:
            self.stack.start("broker", "deploy.broker", "--port", str(broker_port))
            self.stack.wait_for_port("broker", broker_port)
        self.gnss = GnssReceiver(self._truth, 10.0, 1, GnssFaults())
        self.scanner = HandScanner(1)
        bus = f"can+udp_multicast://239.74.163.2:{free_ports(1)[0]}" if has_bus else ""
        self.ecu = ObdEcu(bus, self._truth, seed=1) if has_bus else None
        for device in (self.gnss, self.scanner, self.ecu):
            if device is not None:
                device.start()
                self._open.callback(device.stop)
        self.hub = StandInHub(f"mqtt://127.0.0.1:{broker_port}", "town", folder / "key", self.clock.now_ms)
        if has_broker:
            self._open.enter_context(self.hub)
        settings = {
            "agent": "van-1",
            "region": "town",
            "broker": f"mqtt://127.0.0.1:{broker_port}",
            "hub_public_key": self.hub.signer.public_hex(),
            "store": str(folder / "memory.sqlite"),
            "page_port": self.page_port,
            "gnss": self.gnss.url,
            "scanner": self.scanner.url,
        } | ({"can": bus, "can_profile": "obd2"} if has_bus else {})
        (folder / "van.toml").write_text(settings_text(**settings))
        self._settings = str(folder / "van.toml")

    def __enter__(self) -> "RealVan":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def start(self, name: str = "agent") -> None:
        """Start the agent's process."""
        self.stack.start(name, "edge_agent", "run", "--settings", self._settings)

    def ask(self, path: str) -> dict[str, int] | None:
        """What the page answers; None while it does not."""
        line = http.client.HTTPConnection("127.0.0.1", self.page_port, timeout=5)
        try:
            line.request("GET", path)
            found: dict[str, int] = msgspec.json.decode(line.getresponse().read())
            return found
        except (OSError, http.client.HTTPException):
            return None
        finally:
            line.close()

    def say(self, path: str, body: dict[str, str]) -> None:
        """Post something to the page."""
        line = http.client.HTTPConnection("127.0.0.1", self.page_port, timeout=5)
        headers = {"Content-Type": "application/json", "Idempotency-Key": path + str(body)}
        line.request("POST", path, msgspec.json.encode(body), headers)
        assert line.getresponse().status == 200
        line.close()

    def until(self, claim: Callable[[dict[str, int]], bool], within_s: float = 20.0) -> None:
        """Return when the agent's counters say so."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found = self.ask("/api/counters")
            if found is not None and claim(found):
                return
            time.sleep(0.005)
        raise TimeoutError(f"the agent's counters did not come to it within {within_s} s: {self.ask('/api/counters')}")

    def _truth(self) -> VanTruth:
        return VanTruth(EpochMs(self.clock.now_ms()), self.position, self.speed_mps)


def measure_rss(folder: Path) -> float:
    """Megabytes resident of a working agent's process."""
    plan = busy_plan(1)
    with RealVan(folder, plan) as van:
        van.start()
        van.hub.push(plan)
        van.until(lambda found: found["plan_version"] == 1)
        van.say("/api/shift", {"is": "begun"})
        van.say("/api/heading", {"stop_id": plan.stops[0].stop_id})
        van.until(lambda found: found.get("ObdDriver_readings", 0) > 5 and found.get("NmeaDriver_readings", 0) > 20)
        # By the clock of this machine a better order may come at once: then the estimates are in its message.
        van.hub.wait(lambda: van.hub.of(EstimatesMoved) + van.hub.of(Resequenced) != [], "estimates were said")
        return rss_mb(van.stack.ids["agent"])


def measure_start(folder: Path) -> list[float]:
    """Milliseconds from starting a process to the first reading believed, once for each start."""
    found = []
    with RealVan(folder, busy_plan(1)) as van:
        for k in range(STARTS):
            began_ns = time.monotonic_ns()
            van.start(f"agent-{k}")
            van.until(lambda counters: counters["readings_believed"] > 0)
            found.append((time.monotonic_ns() - began_ns) / 1e6)
            van.stack.kill(f"agent-{k}")
    return found


# From a reading to a new order.


class Bench:
    """A core with its real store and workshop, driven in one thread as the runner does."""

    def __init__(self, folder: Path, workshop: Workshop) -> None:
        # Hundreds of these lie beside each other: a small ballast each.
        self._store = SqliteStore(folder / "memory.sqlite", Ballast(folder / "ballast", size_bytes=4_096))
        self._workshop = workshop
        self.core = AgentCore(identity(self._store.boot), self._store.saved())
        self.now_ms: int = MORNING_MS
        self.kernel_ms = 0.0

    def step(self, *events: object) -> Consequences:
        """A step, and every step that follows from its jobs."""
        made, _ = step(self.core, self._store, events, Now(EpochMs(self.now_ms), self.now_ms))
        for job in made.jobs:
            self.step(self._done(job))
        return made

    def change(self) -> Change | None:
        """The change of order that waits for the driver."""
        return self.core._round.day.change

    def close(self) -> None:
        self._store.close()

    def _done(self, job: Job) -> object:
        answer = self._workshop.do(job)
        if type(job).__name__ == "Improve":
            self.kernel_ms += answer.took_ms
        return answer


def measure_reorder(folder: Path, repeats: int, stops: int = STOPS) -> tuple[list[float], list[float], int]:
    """Milliseconds from the fix that shows a delay to the new order on disk, those of its kernel job, and cases without
    a better order.
    """
    workshop = Workshop(TRAINED_FOLDER)
    found: list[float] = []
    kernels: list[float] = []
    stayed = 0
    for k in range(repeats):
        (folder / str(k)).mkdir()
        plan = busy_plan(k, stops)
        bench = Bench(folder / str(k), workshop)
        pushed = PlanPushed(plan, EpochMs(MORNING_MS + 600 * MINUTE_MS))
        bench.step(Numbered(HUB, "h", "commands", 1, MORNING_MS, 1, pushed))
        bench.step(Asked("1", ShiftSaid("begun")))
        bench.step(Asked("2", HeadingSaid(plan.stops[0].stop_id)))
        for _ in range(5):
            bench.now_ms += 1000
            bench.step(Fix(EpochMs(bench.now_ms), DEPOT.position, 0.0))
        waiting = bench.change()
        if waiting is not None:
            bench.step(Asked("3", ChangeSaid(waiting.change_id, "seen")))
        bench.now_ms += 25 * MINUTE_MS
        bench.kernel_ms = 0.0
        began_ns = time.monotonic_ns()
        bench.step(Fix(EpochMs(bench.now_ms), DEPOT.position, 0.0))
        took_ms = (time.monotonic_ns() - began_ns) / 1e6
        if bench.change() is None:
            stayed += 1
        else:
            found.append(took_ms)
            kernels.append(bench.kernel_ms)
        bench.close()
    return found, kernels, stayed


# From an event on a van to the told window moved.


class LoneVan:
    """A van's side of the streams with its real store, and ears on everything the hub says to it."""

    def __init__(self, url: str, folder: Path, now_ms: Callable[[], int]) -> None:
        self._store = SqliteStore(folder / "van.sqlite")
        self._events = Sender(HUB, self._store.boot, "events", {}, {})
        self._receiver = Receiver({})
        self._now_ms = now_ms
        self._heard: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.plan: Plan | None = None
        self.told: dict[StopId, tuple[TimeWindow, int]] = {}
        self._link = Link(url, "main-van-1", topics.heard_by_agent("main", VAN), self._hear)

    def __enter__(self) -> "LoneVan":
        self._link.open()
        self.wait(lambda: self._link.is_up)
        self.say(AgentStarted("vehicle", "bench", 0))
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()
        self._store.close()

    def say(self, event: AgentEvent) -> int:
        """Commit an event as an agent does and send it; monotonic nanoseconds right after the commit."""

        def write(seq: int) -> bytes:
            return wire.encode(Numbered(VAN, self._store.boot, "events", seq, EpochMs(self._now_ms()), 1, event))

        self._store.commit(self._events.say(write))
        committed_ns = time.monotonic_ns()
        self._send()
        return committed_ns

    def wait(self, claim: Callable[[], bool], within_s: float = 30.0) -> None:
        """Take what comes until the claim holds."""
        deadline = time.monotonic() + within_s
        while not claim():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the hub did not do its part within {within_s} s")
            try:
                self._take(self._heard.get(timeout=0.05))
            except queue.Empty:
                self._send()

    def _hear(self, event: object) -> None:
        self._heard.put((event, time.monotonic_ns()))

    def _take(self, heard: object) -> None:
        event, at_ns = heard  # type: ignore[misc]  # what _hear put
        if not isinstance(event, Heard):
            return
        if event.topic.endswith("/down/acks"):
            self._store.commit(self._events.acked(wire.decode_ack(event.payload)))
        elif event.topic.endswith("/down/commands"):
            numbered = wire.decode_numbered(event.payload)
            if self._receiver.take(numbered)[0] is Take.NEW:
                if isinstance(numbered.message, PlanPushed):
                    self.plan = numbered.message.plan
                elif isinstance(numbered.message, WindowTold):
                    self.told[numbered.message.stop_id] = (numbered.message.told, at_ns)
            ack = self._receiver.ack(numbered.sender, "commands")
            assert ack is not None
            self._link.publish(Envelope(topics.up("main", VAN, "acks"), wire.encode(ack), 0))

    def _send(self) -> None:
        for payload in self._events.due(time.monotonic_ns() // 1_000_000):
            self._link.publish(Envelope(topics.up("main", VAN, "events"), payload))


def measure_promise(folder: Path, most: int = 120) -> list[float]:
    """Milliseconds from an event committed on a van to the told window it moved, heard back from the hub.

    The hub speaks of a moved window only after its own commit. One van, the shipped Helsinki orders; every event makes
    one customer's window move.
    """
    clock = Clock.starting(_early_on_demo_day(), 1.0)
    with ExitStack() as opened:
        stack = opened.enter_context(Stack(folder / "logs", {SETTING: clock.setting()}))
        broker_port, hub_port = free_ports(2)
        stack.start("broker", "deploy.broker", "--port", str(broker_port))
        stack.wait_for_port("broker", broker_port)
        url = f"mqtt://127.0.0.1:{broker_port}"
        settings = folder / "hub.toml"
        settings.write_text(_hub_settings(folder, url, hub_port))
        stack.start("hub", "cloud_hub", "run", "--settings", str(settings))
        stack.wait_for_port("hub", hub_port)
        van = opened.enter_context(LoneVan(url, folder, clock.now_ms))
        hub = opened.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{hub_port}", timeout=60))
        while hub.get("/readyz").status_code != 200:
            time.sleep(0.02)
        orders = ORDERS.read_text().splitlines(keepends=True)[:56]
        csv = {"Content-Type": "text/csv"}
        hub.post("/api/orders", params={"day": DAY}, content="".join(orders), headers=csv).raise_for_status()
        hub.post("/api/day/plan", json={"day": DAY}).raise_for_status()
        van.wait(lambda: van.plan is not None)
        assert van.plan is not None
        van.say(PlanTaken(van.plan.plan_version))
        return _move_windows(van, van.plan, most)


def _move_windows(van: LoneVan, plan: Plan, most: int) -> list[float]:
    """Expect the van 100 min later at one stop after the other, and wait for each window to move."""
    found: list[float] = []
    middle = {stop.stop_id: (stop.told.opens_ms + stop.told.closes_ms) // 2 for stop in plan.stops}
    for _ in range(3):
        for moved in plan.stops:
            if len(found) >= most:
                return found
            middle[moved.stop_id] += 100 * MINUTE_MS
            van.told.pop(moved.stop_id, None)
            expected = tuple(
                Estimate(s, EpochMs(at - 240_000), EpochMs(at), EpochMs(at + 240_000)) for s, at in middle.items()
            )
            committed_ns = van.say(EstimatesMoved(expected, "bench"))
            van.wait(lambda moved=moved: moved.stop_id in van.told)  # type: ignore[misc]  # bound now
            found.append((van.told[moved.stop_id][1] - committed_ns) / 1e6)
    return found


def _early_on_demo_day() -> int:
    return int(datetime.fromisoformat(f"{DAY}T05:00:00+02:00").timestamp() * 1000)


def _hub_settings(folder: Path, url: str, hub_port: int) -> str:
    told = settings_text(
        broker=url,
        store=f"sqlite:///{folder / 'hub.db'}",
        http_port=hub_port,
        day=DAY,
        key_file=str(folder / "hub.key"),
        solver_s=2,
    ).replace("solver_s = 2", "solver_s = 2.0")
    depot = (
        '[access]\nopen_on_loopback = true\n[[depots]]\nid = "depot"\nname = "Depot"\nposition = [60.1719, 24.9414]\n'
    )
    return f'{told}\n{depot}[[vehicles]]\nagent = "{VAN}"\ndepot = "depot"\nshift_from = "07:30"\nshift_to = "18:00"\n'


# The table.


def p99(sample: Sequence[float]) -> float:
    """The value one in a hundred lies above (nearest rank)."""
    ordered = sorted(sample)
    return ordered[min(len(ordered) - 1, int(np.ceil(0.99 * len(ordered))) - 1)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status says whether every figure keeps its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one flat JSON object")
    parser.add_argument("--repeats", type=int, default=REORDERS, help="re-sequences measured")
    parser.add_argument("--only", default="rss,start,reorder,promise", help="which of the four, separated by commas")
    asked = parser.parse_args(arguments)
    wanted = asked.only.split(",")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="waywarden-bench-") as name:
        folder = Path(name)
        for part in ("rss", "start", "reorder", "promise"):
            (folder / part).mkdir()
        if "rss" in wanted:
            print("resident memory by library, MB (each on top of those above it)")
            for library, cost in library_costs():
                print(f"  {library:<40} {cost:6.1f}")
            figures["rss_mb"] = measure_rss(folder / "rss")
        if "start" in wanted:
            starts = measure_start(folder / "start")
            figures["start_ms"] = sorted(starts)[len(starts) // 2]
            figures["start_ms_worst"] = max(starts)
        if "reorder" in wanted:
            whole, kernels, stayed = measure_reorder(folder / "reorder", asked.repeats)
            figures["reorder_ms_p99"] = p99(whole)
            figures["reorder_ms_median"] = sorted(whole)[len(whole) // 2]
            figures["reorder_kernel_job_ms_p99"] = p99(kernels)
            figures["reorder_measured"] = len(whole)
            figures["reorder_stayed"] = stayed
        if "promise" in wanted:
            moves = measure_promise(folder / "promise")
            figures["promise_ms_p99"] = p99(moves)
            figures["promise_ms_median"] = sorted(moves)[len(moves) // 2]
            figures["promise_measured"] = len(moves)
    print(f"{'':<26}{'measured':>10}{'limit':>10}")
    for name, figure in figures.items():
        limit = LIMITS.get(name)
        print(f"{name:<26}{figure:>10.1f}{'' if limit is None else f'{limit:>10.0f}'}")
    if asked.json:
        print(msgspec.json.encode({name: round(figure, 2) for name, figure in figures.items()}).decode())
    return int(any(figures[name] > limit for name, limit in LIMITS.items() if name in figures))


if __name__ == "__main__":
    sys.exit(main())
