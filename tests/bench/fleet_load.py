"""Say what a recorded fleet said, at its own pace: one process, a real MQTT connection for every agent.

`python -m tests.bench.fleet_load FILE` reads a `Load` and prints one JSON object when all is said and the hub has
acknowledged it. Each message is kept until then, and repeated after five seconds; commands are acknowledged as an
agent does.
"""

import json
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from shared import topics, wire
from shared.clock import Clock
from shared.messages import Ack, Presence
from shared.mqtt import BrokerAddress, broker_address
from shared.wire import TelemetryBatch
from shared.work import AgentId

REGION = "main"
REPEAT_AFTER_S = 5.0
PATIENCE_S = 60.0
SAMPLES = 120


class Meter(msgspec.Struct, frozen=True):
    """Agents that send nothing but telemetry: so many channels, sampled every so many milliseconds of domain time."""

    agent: str
    channels: int
    every_ms: int


class Load(msgspec.Struct, frozen=True):
    """Who says what when: (instant, agent, topic, payload, seconds it is kept as a retained message or not)."""

    broker: str
    clock: str
    to_ms: int
    said: list[tuple[int, str, str, bytes, bool]]
    meters: list[Meter]


class Talker:
    """One agent's connection, and what its hub has not acknowledged."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.waiting: dict[tuple[str, int], tuple[float, str, bytes]] = {}
        self._heard: dict[str, int] = {}
        self.repeats = 0
        self.commands = 0
        client = Client(CallbackAPIVersion.VERSION2, agent, protocol=MQTTProtocolVersion.MQTTv5)
        client.on_message = self._message
        self.client = client

    def connect(self, address: BrokerAddress, sockets: selectors.BaseSelector, serve: Callable[[float], None]) -> None:
        """Connect, listen to its own topics, and say that it is there; `serve` reads what everybody hears meanwhile."""
        self.client.connect(address.host, address.port, 60, clean_start=True)
        # paho's own loop uses select(2), which knows no file beyond the 1,024th; each client has three.
        sockets.register(self.client.socket(), selectors.EVENT_READ, self)
        deadline = time.monotonic() + PATIENCE_S
        while not self.client.is_connected():
            serve(0.05)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.agent} was not let in")
        self.client.subscribe([(topic, 1) for topic in topics.heard_by_agent(REGION, AgentId(self.agent))])
        there = Presence(AgentId(self.agent), True, "life", f"boot-{self.agent}")
        self.client.publish(topics.up(REGION, AgentId(self.agent), "presence"), wire.encode(there), 1, retain=True)

    def say(self, topic: str, payload: bytes, is_retained: bool) -> None:
        """Send a message; a numbered one is kept until it is acknowledged."""
        place = _place(topic, payload)
        if place is not None:
            self.waiting[place] = (time.monotonic(), topic, payload)
        self.client.publish(topic, payload, 0 if topic.endswith("/acks") else 1, retain=is_retained)

    def repeat(self, now_s: float) -> None:
        """Say again what has waited too long."""
        for place, (said_s, topic, payload) in list(self.waiting.items()):
            if now_s - said_s > REPEAT_AFTER_S:
                self.repeats += 1
                self.waiting[place] = (now_s, topic, payload)
                self.client.publish(topic, payload, 1)

    def _message(self, _client: Client, _: Any, message: MQTTMessage) -> None:
        if message.topic.endswith("/down/acks"):
            ack = wire.decode_ack(message.payload)
            for stream, seq in list(self.waiting):
                if stream == ack.stream and (seq <= ack.upto or seq in ack.beyond):
                    del self.waiting[stream, seq]
        elif message.topic.endswith("/down/commands"):
            self.commands += 1
            heading = wire.decode_numbered_heading(message.payload)
            upto = max(self._heard.get(heading.boot, 0), heading.seq)
            self._heard[heading.boot] = upto
            ack = Ack(heading.sender, heading.boot, heading.stream, upto)
            self.client.publish(topics.up(REGION, AgentId(self.agent), "acks"), wire.encode(ack), 0)


def _place(topic: str, payload: bytes) -> tuple[str, int] | None:
    carries = topics.read(topic).carries
    if carries == "telemetry":
        return ("telemetry", wire.decode_telemetry(payload).seq)
    if carries in ("events", "objects"):
        return (carries, wire.decode_numbered_heading(payload).seq)
    return None


class _Batches:
    """A meter's telemetry, batch after batch."""

    def __init__(self, meter: Meter, begins_ms: int) -> None:
        self._meter = meter
        self.next_ms = begins_ms + SAMPLES * meter.every_ms
        self._seq = 0

    def batch(self) -> bytes:
        meter, self._seq = self._meter, self._seq + 1
        at_ms = self.next_ms - np.arange(SAMPLES, 0, -1, dtype=np.int64) * meter.every_ms
        draw = np.random.default_rng(self._seq)
        columns = tuple(draw.normal(size=SAMPLES).astype("<f4") for _ in range(meter.channels))
        names = tuple(f"channel_{k}" for k in range(meter.channels))
        self.next_ms += SAMPLES * meter.every_ms
        agent = AgentId(meter.agent)
        return wire.encode_telemetry(
            TelemetryBatch(agent, f"boot-{agent}", self._seq, (0.0, 0.0), names, at_ms, columns)
        )


def run(load: Load) -> dict[str, float]:
    """Say it all; how it went."""
    clock = Clock.from_setting(load.clock)
    address = broker_address(load.broker)
    talkers = {
        agent: Talker(agent) for agent in sorted({said[1] for said in load.said} | {m.agent for m in load.meters})
    }
    sockets = selectors.DefaultSelector()

    def serve(patience_s: float) -> None:
        for key, _ in sockets.select(patience_s):
            key.data.client.loop_read()
        for talker in talkers.values():
            if talker.client.want_write():
                talker.client.loop_write()

    for talker in talkers.values():
        talker.connect(address, sockets, serve)
    print(json.dumps({"connected": len(talkers)}), flush=True)
    sys.stdin.readline()
    to_come = deque(load.said)
    meters = {meter.agent: _Batches(meter, clock.now_ms()) for meter in load.meters}
    said, late_ms, tended_s = 0, 0, 0.0
    deadline = None
    while True:
        now_ms, now_s = clock.now_ms(), time.monotonic()
        while to_come and to_come[0][0] <= now_ms:
            at_ms, agent, topic, payload, is_retained = to_come.popleft()
            talkers[agent].say(topic, payload, is_retained)
            said, late_ms = said + 1, max(late_ms, now_ms - at_ms)
        for agent, batches in meters.items():
            if batches.next_ms <= min(now_ms, load.to_ms):
                talkers[agent].say(topics.up(REGION, AgentId(agent), "telemetry"), batches.batch(), False)
                said += 1
        if now_s - tended_s > 1.0:
            tended_s = now_s
            for talker in talkers.values():
                talker.client.loop_misc()
                talker.repeat(now_s)
        serve(0.01)
        if now_ms >= load.to_ms and not to_come:
            deadline = deadline or now_s + PATIENCE_S
            if now_s > deadline or not any(talker.waiting for talker in talkers.values()):
                break
    return {
        "said": said,
        "unacknowledged": sum(len(talker.waiting) for talker in talkers.values()),
        "repeats": sum(talker.repeats for talker in talkers.values()),
        "commands": sum(talker.commands for talker in talkers.values()),
        "late_s_most": late_ms / 1000 / clock.speed,
    }


if __name__ == "__main__":
    given = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Load)
    print(json.dumps(run(given)))
