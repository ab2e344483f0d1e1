"""Real parts around a hub process for its tests: settings, a shop's inbox, an agent of a few lines on the real wire."""

import http.server
import json
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from deploy.stack import Stack, free_ports
from shared import topics, wire
from shared.clock import SETTING, Clock
from shared.contracts import Plan
from shared.messages import (
    Ack,
    AgentEvent,
    AgentStarted,
    Estimate,
    EstimatesMoved,
    Numbered,
    PlanPushed,
    PlanTaken,
    Presence,
    RoadsChanged,
    WindowTold,
)
from shared.mqtt import Heard, Link, LinkUp
from shared.quantities import EpochMs
from shared.signing import Signer, Verifier
from shared.steps import Envelope
from shared.streams import Receiver, Sender, Take
from shared.work import AgentId

PATIENCE_S = 30.0
DAY = "2026-03-03"
ZONE = "Europe/Helsinki"
EIGHT_MS = int(datetime(2026, 3, 3, 8, 0, tzinfo=ZoneInfo(ZONE)).timestamp() * 1000)


class HubProcess:
    """A hub in a process of its own, with real settings, that can be killed and started again."""

    def __init__(
        self,
        stack: Stack,
        broker_port: int,
        folder: Path,
        webhook: str = "",
        vans: int = 1,
        more: str = "",
        access: str = "open_on_loopback = true",
    ) -> None:
        """`more` are tables of the settings file; `access` what its table of that name says."""
        (self.port,) = free_ports(1)
        self.broker = f"mqtt://127.0.0.1:{broker_port}"
        self.clock = Clock.starting(EIGHT_MS - 3_600_000, 1.0)
        os.environ[SETTING] = self.clock.setting()
        self.key = folder / "hub.key"
        self.public_key = Signer.from_file(self.key).public_hex()
        self.settings = folder / "hub.toml"
        self.settings.write_text(self._toml(folder, webhook, vans, access) + more)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        self._stack = stack
        stack._environment[SETTING] = self.clock.setting()
        stack.start("hub", "cloud_hub", "run", "--settings", str(self.settings))
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL."""
        self._stack.kill("hub")

    def start_again(self) -> None:
        """Start it once more with the same settings and store."""
        self._stack.start_again("hub")
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return when the hub can do its work."""
        self._stack.wait_for_port("hub", self.port)
        self.wait(lambda: self.http.get("/readyz").status_code == 200, "the hub is ready")

    def wait(self, claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Return when the claim holds, asking again and again: a process has no event we could await."""
        deadline = time.monotonic() + patience_s
        while not claim():
            assert time.monotonic() < deadline, f"in vain for {patience_s} s: {what}"
            time.sleep(0.02)

    def get(self, path: str, **params: Any) -> Any:
        """What the hub answers, as JSON."""
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def plan_day(self, orders: list[dict[str, Any]]) -> None:
        """Hand in the orders and have the day planned."""
        taken = self.http.post("/api/orders", json=orders).json()
        assert len(taken["accepted"]) == len(orders), taken
        planned = self.http.post("/api/day/plan")
        assert planned.status_code == 202, planned.text
        self.wait(lambda: not self.get("/api/day")["is_planning"], "the day is planned")

    def _toml(self, folder: Path, webhook: str, vans: int, access: str) -> str:
        vehicles = "".join(f'[[vehicles]]\nagent = "van-{k + 1}"\ndepot = "north"\n' for k in range(vans))
        return (
            f'broker = "{self.broker}"\nstore = "sqlite:///{folder / "hub.db"}"\nhttp_port = {self.port}\n'
            f'day = "{DAY}"\nzone = "{ZONE}"\nkey_file = "{self.key}"\nwebhook = "{webhook}"\nsolver_s = 0.3\n'
            'most_body_bytes = 200000\nhttp_names = ["ops.example"]\n'
            f"[access]\n{access}\n"
            '[[depots]]\nid = "north"\nname = "North"\nposition = [60.29, 25.03]\n'
            "gateway = [60.18, 24.945]\nstem_s = 900\n"
            f"{vehicles}"
        )


def start_broker(stack: Stack) -> int:
    """The port of a broker started in this stack."""
    (port,) = free_ports(1)
    stack.start("broker", "deploy.broker", "--port", str(port))
    stack.wait_for_port("broker", port)
    return port


def some_orders(count: int, slot: tuple[str, str] = ("09:00", "15:00")) -> list[dict[str, Any]]:
    """Orders at addresses of the shipped city, by position, so that nothing is doubtful."""
    return [
        {
            "order_id": f"A-{k:03d}",
            "lat": 60.165 + 0.0012 * (k % 9),
            "lon": 24.939 + 0.0017 * (k // 9) + 0.0004 * (k % 4),
            "slot_from": slot[0],
            "slot_to": slot[1],
        }
        for k in range(count)
    ]


class StandInAgent:
    """An agent of a few lines: takes signed commands in order, acknowledges them, and says what the test wants said."""

    def __init__(self, hub: HubProcess, name: str = "van-1", boot: str = "boot-1") -> None:
        self.name = AgentId(name)
        self.plan: Plan | None = None
        self.commands: list[Any] = []
        self.epochs: list[int] = []
        self.refused_epochs: list[int] = []
        """Of commands that were signed by the hub and said under an epoch that is over."""
        self.batches_acked: Ack | None = None
        self.batches_taken: set[int] = set()
        """Every batch of telemetry acknowledged so far; one acknowledgement names what one commit took."""
        self._hub = hub
        self._boot = boot
        self._verifier = Verifier(hub.public_key)
        self._receiver = Receiver({})
        self._sender = Sender(topics.HUB, boot, "events", {}, {})
        self._changed = threading.Condition()
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._link = Link(hub.broker, name, topics.heard_by_agent("main", self.name), self._heard.put)
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> "StandInAgent":
        self._thread.start()
        self._link.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()
        self._heard.put(None)
        self._thread.join()

    def say(self, *events: AgentEvent) -> None:
        """Take events into the stream; they are repeated until the hub acknowledges them."""
        with self._changed:
            for event in events:
                self._sender.say(partial(self.bytes_of, event))
        self._heard.put("say")

    def bytes_of(self, event: AgentEvent, seq: int) -> bytes:
        """The wire's bytes of an event."""
        now_ms = EpochMs(self._hub.clock.now_ms())
        return wire.encode(Numbered(self.name, self._boot, "events", seq, now_ms, 0, event))

    def publish(self, topic: str, payload: bytes) -> None:
        """Put bytes on a topic, as they are."""
        assert self._link.publish(Envelope(topic, payload))

    def expect_late(self, late_min: float, why: str = "held up") -> None:
        """Say that everything still to come is this much later than the middle of its told window."""
        assert self.plan is not None
        shift_ms = round(late_min * 60_000)
        self.say(EstimatesMoved(tuple(_later(stop, shift_ms) for stop in self.plan.stops), why))

    def wait(self, claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Return when the claim holds; it is looked at whenever something was heard."""
        with self._changed:
            assert self._changed.wait_for(claim, patience_s), f"in vain for {patience_s} s: {what}"

    def wait_plan(self) -> Plan:
        """The plan, once it has come."""
        self.wait(lambda: self.plan is not None, "a plan is pushed")
        assert self.plan is not None
        return self.plan

    def wait_acked(self) -> None:
        """Return when the hub has acknowledged everything said."""
        self.wait(lambda: self._sender.backlog == 0, "everything said is acknowledged")

    def of(self, kind: type[Any]) -> list[Any]:
        """The commands taken of one kind."""
        return [command for command in self.commands if isinstance(command, kind)]

    def _live(self) -> None:
        while True:
            try:
                event = self._heard.get(timeout=0.05)
            except queue.Empty:
                event = "tick"
            if event is None:
                return
            with self._changed:
                if isinstance(event, LinkUp):
                    self._say_presence()
                    self._sender.repeat_all()
                elif isinstance(event, Heard):
                    self._take(event)
                for payload in self._sender.due(time.monotonic_ns() // 1_000_000):
                    self._link.publish(Envelope(topics.up("main", self.name, "events"), payload))
                self._changed.notify_all()

    def _say_presence(self) -> None:
        presence = Presence(self.name, True, "life-1", self._boot, unacked={"events": self._sender.unacked})
        self._link.publish(Envelope(topics.up("main", self.name, "presence"), wire.encode(presence), 1, True))

    def _take(self, heard: Heard) -> None:
        if heard.topic.endswith(("/presence", "/ingest")):
            self._say_presence()
            self._sender.repeat_all()
        elif heard.topic.endswith("/acks"):
            ack = wire.decode_ack(heard.payload)
            self._sender.acked(ack)
            if ack.stream == "telemetry":
                self.batches_acked = ack
                self.batches_taken |= {*range(1, ack.upto + 1), *ack.beyond}
        else:
            self._verifier.check(heard.topic, heard.payload, heard.signature)
            numbered = wire.decode_numbered(heard.payload)
            if numbered.epoch < max(self.epochs, default=0):
                self.refused_epochs.append(numbered.epoch)
                return
            if self._receiver.take(numbered)[0] is Take.NEW:
                self._obey(numbered)
            own = self._receiver.ack(topics.HUB, "commands")
            if own is not None:
                self._link.publish(Envelope(topics.up("main", self.name, "acks"), wire.encode(own), 0))

    def _obey(self, numbered: Numbered) -> None:
        self.commands.append(numbered.message)
        self.epochs.append(numbered.epoch)
        if isinstance(numbered.message, PlanPushed):
            self.plan = numbered.message.plan
            taken = PlanTaken(self.plan.plan_version)
            self._sender.say(lambda seq: self.bytes_of(taken, seq))


def _later(stop: Any, shift_ms: int) -> Estimate:
    middle = (stop.told.opens_ms + stop.told.closes_ms) // 2 + shift_ms
    return Estimate(stop.stop_id, EpochMs(middle - 300_000), EpochMs(middle), EpochMs(middle + 480_000))


class Inbox:
    """A shop's webhook: keeps every event, and answers as it is told to."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.answers: list[int] = []
        """Status codes to answer with, in order; 204 when it is empty."""
        inbox = self

        class Receiving(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with inbox._changed:
                    status = inbox.answers.pop(0) if inbox.answers else 204
                    inbox.keys.append(self.headers["Idempotency-Key"])
                    inbox.events.append(
                        json.loads(body) | {"content_type": self.headers["Content-Type"], "answered": status}
                    )
                    inbox._changed.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._changed = threading.Condition()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiving)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/notices"

    def __enter__(self) -> "Inbox":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Return when the claim holds; it is looked at whenever something came."""
        with self._changed:
            assert self._changed.wait_for(claim, patience_s), f"in vain for {patience_s} s: {what}"


__all__ = [
    "AgentStarted",
    "HubProcess",
    "Inbox",
    "RoadsChanged",
    "StandInAgent",
    "WindowTold",
    "some_orders",
    "start_broker",
]
