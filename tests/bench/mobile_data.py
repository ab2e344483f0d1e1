"""Mobile data of one van on one day, over mutual TLS: a recorded day said again through a relay that counts.

Every message of a real simulated day leaves alone, as it does in life, through the agent's own link to a real
Mosquitto; what the hub answers comes back the same way. The relay counts what TLS puts on the wire both ways, and the
kernel how many TCP segments carried it. Keep-alives are measured by themselves and counted for the whole day, as are
reconnections.
"""

import queue
import socket
import struct
import threading
import time
from typing import Any, NamedTuple

from deploy.stack import free_ports
from shared import topics, wire
from shared.mqtt import KEEP_ALIVE_S, Heard, Link, LinkUp
from shared.signing import Signer
from shared.steps import Envelope
from shared.tls import Tls
from shared.work import AgentId
from tests.bench.fleet_day import RecordedDay
from tests.shells.production_broker import ProductionBroker, production_broker

HEADERS = 20 + 32
"""Bytes of IPv4 and of TCP with its time stamps around every segment."""
RECONNECTIONS = 20
"""Of one day: tunnels, garages and dead spots; each costs a handshake and what is said on coming back."""
SAMPLES_A_DAY = 7_200
"""One each five seconds for ten hours; the universe's receiver speaks less often than a real one."""
DAY_S = 36_000
PINGS = 3
PATIENCE_S = 20.0


class Counted(NamedTuple):
    """Bytes of TLS records and segments, both ways."""

    bytes_: int
    segments: int

    @property
    def on_the_wire(self) -> int:
        """Bytes with the headers around them."""
        return self.bytes_ + self.segments * HEADERS


class Meter:
    """A relay to one port that counts what passes, for one connection after the other."""

    def __init__(self, far_port: int) -> None:
        (self.port,) = free_ports(1)
        self._far_port = far_port
        self._bytes = 0
        self._ended_segments = 0
        self._van: socket.socket | None = None
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()

    def counted(self) -> Counted:
        """Everything so far."""
        return Counted(self._bytes, self._ended_segments + (_segments(self._van) if self._van else 0))

    def _serve(self) -> None:
        while True:
            van, _ = self._listening.accept()
            far = socket.create_connection(("127.0.0.1", self._far_port))
            for end in (van, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._van = van
            ways = [threading.Thread(target=self._pass_on, args=pair, daemon=True) for pair in ((van, far), (far, van))]
            for way in ways:
                way.start()
            for way in ways:
                way.join()
            self._ended_segments += _segments(van)
            self._van = None
            van.close()
            far.close()

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        try:
            while block := here.recv(65_536):
                self._bytes += len(block)
                there.sendall(block)
        except OSError:
            pass
        for end in (here, there):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def _segments(end: socket.socket) -> int:
    """Segments sent and received, by the kernel's own count (TCP_INFO of linux/tcp.h)."""
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    return sum(struct.unpack_from("<II", info, 136))


class Sides:
    """The van's link through the meter, and a hub's straight to the broker."""

    def __init__(self, broker: ProductionBroker, van: AgentId) -> None:
        self._van_name = van
        self.meter = Meter(broker.agents_port)
        self.up: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.down: queue.SimpleQueue[Any] = queue.SimpleQueue()
        signer = Signer.from_file(broker.folder / "hub.key")
        self.hub = Link(
            broker.hub_url, "hub-main", topics.heard_by_hub("main"), self.up.put, tls=broker.hub(), sign=signer.sign
        )
        self.van = self._link(broker.device(van))
        self.hub.open()
        _await(self.up, LinkUp)

    def _link(self, tls: Tls) -> Link:
        url = f"mqtts://localhost:{self.meter.port}"
        return Link(url, self._van_name, topics.heard_by_agent("main", self._van_name), self.down.put, tls=tls)

    def arrive(self) -> None:
        """The van's link comes up."""
        self.van.open()
        _await(self.down, LinkUp)

    def say(self, way: str, envelope: Envelope) -> None:
        """Say one message, and wait until it is at the other end."""
        link, ears = (self.van, self.up) if way == "up" else (self.hub, self.down)
        assert link.publish(envelope), "the link is up"
        _await(ears, Heard)

    def close(self) -> None:
        """End both links."""
        self.van.close()
        self.hub.close()


def van_day(day: RecordedDay, van: str) -> dict[str, float]:
    """What one van's day costs in mobile data: MB by kind, and all together."""
    with production_broker() as broker:
        sides = Sides(broker, AgentId(van))
        sides.arrive()
        time.sleep(0.5)
        handshake = sides.meter.counted().on_the_wire
        messages, telemetry = _messages(day, van)
        before = sides.meter.counted()
        for way, envelope in messages:
            sides.say(way, envelope)
        said = sides.meter.counted().on_the_wire - before.on_the_wire
        before = sides.meter.counted()
        for envelope in telemetry:
            sides.say("up", envelope)
        measured = sides.meter.counted().on_the_wire - before.on_the_wire
        samples = sum(len(wire.decode_telemetry(envelope.payload).at_ms) for envelope in telemetry)
        before = sides.meter.counted()
        time.sleep(PINGS * KEEP_ALIVE_S + 1.0)
        pings = (sides.meter.counted().on_the_wire - before.on_the_wire) / PINGS * DAY_S / KEEP_ALIVE_S
        sides.close()
    figures = {
        "events_and_commands": said / 1e6,
        "telemetry": measured * SAMPLES_A_DAY / samples / 1e6,
        "keep_alive": pings / 1e6,
        "reconnections": RECONNECTIONS * handshake / 1e6,
    }
    return {**figures, "van_mb_day": sum(figures.values())}


def _messages(day: RecordedDay, van: str) -> tuple[list[tuple[str, Envelope]], list[Envelope]]:
    """The van's messages in time's order, telemetry apart. The acknowledgements of telemetry are of the hub's lane."""
    said, telemetry = [], []
    for _, whose, way, envelope in day.whole_day:
        carries = topics.read(envelope.topic).carries
        if whose != van or carries == "presence":
            continue
        if carries == "telemetry":
            telemetry.append(envelope)
        else:
            said.append((way, envelope))
    return said, telemetry


def _await(ears: "queue.SimpleQueue[Any]", kind: type) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if isinstance(ears.get(timeout=PATIENCE_S), kind):
                return
        except queue.Empty:
            break
    raise TimeoutError(f"no {kind.__name__} in {PATIENCE_S:.0f} s")
