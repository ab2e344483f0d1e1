"""A fleet of agents in one process, as lean as a load has to be: numbered batches, repeated until the hub acknowledges.

Each agent has a connection of its own (MQTT 5, QoS 1), a bounded window of batches it has said, repeats what is not
acknowledged by the hub itself, and forgets a batch only then. What is left out is what costs a generator most: the
columns are drawn once, and only heading and instants differ from batch to batch.
"""

import argparse
import json
import secrets
import selectors
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared import topics, wire
from shared.messages import Ack, AgentStarted, Numbered, Presence
from shared.packets import sort_out
from shared.quantities import EpochMs
from shared.work import AgentId

NARROW = ("speed_mps",)
VAN = ("lat", "lon", "speed_mps", "engine_rpm", "vehicle_speed_mps", "fuel_percent", "coolant_c", "load_percent")
"""What a van measures: its place and speed, and five signals of its bus."""

SAMPLES = 100
BODIES = 16
REPEAT_AFTER_S = 2.0
BEGINS_MS = 1_795_500_000_000
MOST_AT_ONCE = 16
SAY_S = 0.25


class Agent:
    """One agent's connection, stream and window."""

    def __init__(self, name: str, address: tuple[str, int], region: str, fleet: "Fleet") -> None:
        self.name = AgentId(name)
        self.fleet = fleet
        self.region = region
        self.address = address
        self.boot = secrets.token_hex(8)
        self.next_seq = 1
        self.waiting: dict[int, float] = {}
        """When each unacknowledged batch was first said."""
        self.again: deque[tuple[float, int]] = deque()
        self.pubacks = 0
        self.most_unanswered = 20
        self.mid = 0
        self.out = bytearray()
        self.part = b""
        self.is_up = False
        self.sock: socket.socket | None = None
        self.topic = topics.up(region, self.name, "telemetry").encode()
        channels = json.dumps(fleet.channels)
        self.heading = (
            f'{{"sender":"{name}","boot":"{self.boot}","seq":%d,"origin":[60.17,24.94],'
            f'"channels":{channels},"samples":{SAMPLES}}}'
        )

    def connect(self) -> None:
        """Connect, and subscribe to the acknowledgements and to who takes telemetry."""
        self.sock = socket.create_connection(self.address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.part, self.out, self.pubacks, self.is_up = b"", bytearray(), 0, False
        will = wire.encode(Presence(self.name, False, self.boot, self.boot))
        presence = topics.up(self.region, self.name, "presence")
        # Clean start, a retained will of QoS 1; 60 s to be kept alive.
        body = b"\x00\x04MQTT\x05\x2e\x00\x3c\x00" + _text(f"bench-{self.name}-{secrets.token_hex(2)}") + b"\x00"
        body += _text(presence) + len(will).to_bytes(2, "big") + will
        self.out += _packet(0x10, body)
        wanted = (topics.down(self.region, self.name, "acks"), topics.ingest_presence(self.region))
        self.out += _packet(0x82, b"\x00\x01\x00" + b"".join(_text(topic) + b"\x00" for topic in wanted))
        self.fleet.selector.register(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def introduce(self) -> None:
        """Say that it is there, and that it has begun."""
        now_ms = EpochMs(int(time.time() * 1000))
        presence = wire.encode(Presence(self.name, True, self.boot, self.boot))
        self.say_once(topics.up(self.region, self.name, "presence").encode(), presence, is_retained=True)
        began = Numbered(self.name, self.boot, "events", 1, now_ms, 1, AgentStarted("vehicle", "bench", 0))
        self.say_once(topics.up(self.region, self.name, "events").encode(), wire.encode(began))

    def say_once(self, topic: bytes, payload: bytes, is_retained: bool = False) -> None:
        """Publish at QoS 1."""
        self.mid = self.mid % 65_000 + 1
        name = len(topic).to_bytes(2, "big") + topic
        self.out += _packet(0x33 if is_retained else 0x32, name + self.mid.to_bytes(2, "big") + b"\x00" + payload)
        self.pubacks += 1

    def say(self, seq: int, now_s: float) -> None:
        """Say a batch, for the first time or again."""
        fleet = self.fleet
        heading = (self.heading % seq).encode()
        at_ms = (fleet.offsets + seq * fleet.batch_ms).tobytes()
        body = fleet.bodies[seq % BODIES]
        self.say_once(self.topic, b"".join((len(heading).to_bytes(4, "little"), heading, at_ms, body)))
        self.again.append((now_s + REPEAT_AFTER_S, seq))

    def say_next(self, now_s: float) -> None:
        """Make and say the next batch."""
        seq = self.next_seq
        self.next_seq = seq + 1
        self.waiting[seq] = now_s
        self.fleet.made += 1
        self.say(seq, now_s)

    @property
    def has_room(self) -> bool:
        """Whether the window and the broker take another one."""
        return self.is_up and self.pubacks < self.most_unanswered and len(self.waiting) < self.fleet.window

    def repeat(self, now_s: float) -> None:
        """Say again what has waited too long."""
        while self.again and self.again[0][0] <= now_s and self.is_up and self.pubacks < self.most_unanswered:
            _, seq = self.again.popleft()
            if seq in self.waiting:
                self.fleet.repeated += 1
                self.say(seq, now_s)

    def read(self, now_s: float) -> None:
        """Take what the broker says."""
        assert self.sock is not None
        try:
            came = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            came = b""
        if not came:
            self.fall(now_s)
            return
        stream = self.part + came
        while stream:
            heard, answers, others, used = sort_out(stream)
            self.out += answers
            for one in heard:
                if one.topic.endswith("/acks"):
                    self.hear(wire.decode_ack(one.payload), now_s)
                else:
                    self.again = deque((now_s, seq) for seq in self.waiting)
            self._others(others)
            stream = stream[used:]
            if not used:
                break
        self.part = stream

    def hear(self, ack: Ack, now_s: float) -> None:
        """Forget what the hub has committed."""
        if ack.stream != "telemetry" or ack.boot != self.boot:
            return
        waiting = self.waiting
        done = [seq for seq in ack.beyond if seq in waiting]
        if ack.upto:
            done += [seq for seq in waiting if seq <= ack.upto]
        for seq in done:
            said_s = waiting.pop(seq, None)
            if said_s is not None:
                self.fleet.acked += 1
                self.fleet.latencies.append(now_s - said_s)

    def flush(self) -> None:
        """Send what is to be sent."""
        if self.out and self.sock is not None:
            try:
                del self.out[: self.sock.send(self.out)]
            except (BlockingIOError, OSError):
                pass
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)
            self.fleet.selector.modify(self.sock, wanted, self)

    def fall(self, now_s: float) -> None:
        """The connection is gone: come back, and say everything again."""
        assert self.sock is not None
        self.fleet.selector.unregister(self.sock)
        self.sock.close()
        self.sock, self.is_up = None, False
        self.fleet.falls += 1
        self.fleet.fallen.append((now_s + 0.3, self))

    def _others(self, packets: bytes) -> None:
        at = 0
        while at < len(packets):
            kind, size = packets[at], packets[at + 1]
            if kind == 0x40:
                self.pubacks -= 1
                if self.fleet.does_trust_puback and self.waiting:
                    self.waiting.pop(next(iter(self.waiting)))
                    self.fleet.acked += 1
                self.fleet.refused += size > 2 and packets[at + 4] >= 0x80
            elif kind == 0x20:
                assert packets[at + 3] == 0, f"the broker refuses {self.name}: {packets[at + 3]}"
                place = packets.find(b"\x21", at + 5, at + 2 + size)  # Receive Maximum; other values seldom hold it.
                self.most_unanswered = int.from_bytes(packets[place + 1 : place + 3], "big") if place > 0 else 1_000
                self.is_up = True
                self.introduce()
                self.again = deque((0.0, seq) for seq in self.waiting)
            at += 2 + size


class Fleet:
    """All agents of this process, and what they count."""

    def __init__(self, channels: Sequence[str], window: int, interval_ms: int, from_ms: int) -> None:
        self.channels = list(channels)
        self.window = window
        self.selector = selectors.DefaultSelector()
        self.offsets = np.arange(SAMPLES, dtype="<i8") * interval_ms + from_ms
        self.batch_ms = SAMPLES * interval_ms
        draw = np.random.default_rng(1)
        self.bodies = [draw.normal(size=SAMPLES * len(channels)).astype("<f4").tobytes() for _ in range(BODIES)]
        self.made = self.acked = self.repeated = self.falls = self.refused = 0
        self.latencies: array[float] = array("d")
        self.fallen: list[tuple[float, Agent]] = []
        self.does_trust_puback = False

    def turn(self, patience_s: float) -> float:
        """Take what came and send what waits; the instant."""
        ready = self.selector.select(patience_s)
        now_s = time.monotonic()
        for key, _ in ready:
            agent: Agent = key.data
            if _ & selectors.EVENT_READ:
                agent.read(now_s)
        back = [agent for at_s, agent in self.fallen if at_s <= now_s]
        self.fallen = [(at_s, agent) for at_s, agent in self.fallen if at_s > now_s]
        for agent in back:
            try:
                agent.connect()
            except OSError:
                self.fallen.append((now_s + 0.3, agent))
        return now_s


def run(asked: argparse.Namespace) -> None:
    """Connect, speak for so many seconds, and wait until everything is acknowledged."""
    channels = NARROW if asked.channels == 1 else VAN[: asked.channels]
    fleet = Fleet(channels, asked.window, asked.interval_ms, asked.from_ms)
    fleet.does_trust_puback = asked.trust_puback
    address = (asked.host, asked.port)
    agents = [Agent(f"{asked.name}-{k + asked.first}", address, asked.region, fleet) for k in range(asked.agents)]
    for k, agent in enumerate(agents):
        agent.connect()
        if k % 50 == 49:
            fleet.turn(0.0)
            for one in agents[: k + 1]:
                one.flush()
    while not all(agent.is_up for agent in agents):
        fleet.turn(0.1)
        for agent in agents:
            agent.flush()
    _say(fleet, "up")
    began_s = now_s = time.monotonic()
    said_s = again_s = 0.0
    turns = 0
    ends_s = began_s + asked.seconds
    drained_by_s = ends_s + asked.drain_s
    gap_s = SAMPLES / asked.rate if asked.rate else 0.0
    next_s = began_s
    while now_s < drained_by_s:
        is_over = now_s >= ends_s or fleet.made == asked.messages > 0
        if is_over and not any(agent.waiting for agent in agents):
            break
        if not is_over and asked.rate:
            while next_s <= now_s and not fleet.made == asked.messages > 0:
                agents[turns % len(agents)].say_next(now_s)
                turns += 1
                next_s += gap_s
        elif not is_over:
            for agent in agents:
                for _ in range(MOST_AT_ONCE):
                    if not agent.has_room or fleet.made == asked.messages > 0:
                        break
                    agent.say_next(now_s)
        if now_s - again_s > 0.05:
            again_s = now_s
            for agent in agents:
                agent.repeat(now_s)
        for agent in agents:
            if agent.out:
                agent.flush()
        if now_s - said_s > SAY_S:
            said_s = now_s
            _say(fleet, "goes")
        wait_s = min(0.05, max(0.0, next_s - time.monotonic())) if asked.rate and not is_over else 0.02
        now_s = fleet.turn(wait_s)
    if asked.latencies:
        np.save(asked.latencies, np.array(fleet.latencies))
    _say(fleet, "done")


def _say(fleet: Fleet, what: str) -> None:
    print(
        json.dumps(
            {
                "what": what, "at_s": time.monotonic(), "made": fleet.made, "acked": fleet.acked,
                "repeated": fleet.repeated, "falls": fleet.falls, "refused": fleet.refused,
                "latencies": len(fleet.latencies),
            }
        ),
        flush=True,
    )  # fmt: skip


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def _packet(kind: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while length > 127:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return b"".join((bytes([kind]), digits, body))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--region", default="main")
    parser.add_argument("--name", default="van", help="agents are called NAME-K")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--agents", type=int, default=40)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--window", type=int, default=64, help="batches an agent may have unacknowledged")
    parser.add_argument("--rate", type=float, default=0.0, help="samples offered a second by all; 0: as many as go")
    parser.add_argument("--interval-ms", type=int, default=100, help="between two samples, in the data")
    parser.add_argument("--from-ms", type=int, default=BEGINS_MS, help="when the samples begin")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--messages", type=int, default=0, help="end after so many batches")
    parser.add_argument("--drain-s", type=float, default=30.0)
    parser.add_argument("--trust-puback", action="store_true", help="forget a batch when the broker has it")
    parser.add_argument("--latencies", type=Path, help="a .npy file for the seconds from said to acknowledged")
    run(parser.parse_args(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
