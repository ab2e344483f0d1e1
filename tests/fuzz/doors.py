"""Say hostile things at every door a broker leads to, for minutes: `python -m tests.fuzz.doors`.

The same claims as `tests/shells/test_hostile_payloads.py` holds with a few examples each, with as many as the time
allows. What breaks a claim is made as small as it can be and printed.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from datetime import datetime
from functools import cache
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from cloud_hub.door import Door
from cloud_hub.events import VehiclesSaid
from cloud_hub.fleet import AgentRecord, DeadLetter
from cloud_hub.hub import HubCore, HubIdentity
from cloud_hub.storage import Segment, TelemetryLetter
from cloud_hub.telemetry import _Door as TelemetryDoor
from edge_agent.door import Door as AgentDoor
from shared import topics, wire
from shared.messages import AgentStarted
from shared.mqtt import Heard
from shared.quantities import EpochMs
from shared.signing import Signer, Verifier
from shared.steps import LinkUp, Now
from shared.work import AgentId
from tests.fuzz.payloads import AT_MS, OWN, Spoilt, batches, heard_by_agent, said_by
from tests.unit.hub_cases import Driven, order, vehicle

ZONE = "Europe/Helsinki"
OTHER = AgentId("van-s")
SIGNER = Signer(SigningKey(bytes(range(32))))


@cache
def a_planned_day() -> dict[str, dict[str, bytes]]:
    """Every row of a hub whose agent van-n drives three stops, and van-s none yet."""
    hub = Driven()
    hub.plan([order(1), order(2), order(3)], [10.0, 11.0, 12.0], OWN)
    hub.take(VehiclesSaid((vehicle(OTHER),)))
    return hub.rooms


def _clock_face(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1000, ZoneInfo(ZONE)).strftime("%H:%M")


class Siege(Driven):
    """A hub's door and core on a planned day, for one example."""

    def __init__(self) -> None:
        self.rooms = copy.deepcopy(a_planned_day())
        self.hour, self.real_ms, self.seqs, self.envelopes = 9.0, 0, {}, []
        self.door = Door("main")
        self.core = self._core()
        self.take(LinkUp())
        self._next = {"events": 1, "objects": 1}

    def _core(self) -> HubCore:
        return HubCore(HubIdentity("main", "life", "boot", ZONE, _clock_face, secret=b"s" * 32), self.rooms)

    def hear(self, said: Spoilt) -> None:
        """What the attacker says, numbered as its stream goes on: else nothing after the first would be news."""
        stream = said.topic.rpartition("/")[2]
        payload = said.payload
        if stream in self._next:
            payload = payload.replace(b'"seq": 1,', b'"seq": %d,' % self._next[stream], 1)
        event = self.door.read(Heard(said.topic, payload, None))
        if event is not None:
            before = self.core.counts["taken.new"]
            self.take(event)
            if stream in self._next and self.core.counts["taken.new"] > before:
                self._next[stream] += 1


def the_hub_outlives(said: Sequence[Spoilt]) -> None:
    """Whatever an agent says, no exception leaves door or core; what is kept can be read again and makes the same hub;
    and another agent's stream goes on as if nothing had been said.
    """
    hub = Siege()
    for one in said:
        hub.hear(one)
        hub.hour += 0.01
    started = AgentStarted("van", "1", 0)
    hub.take(hub.spoken(started, OTHER))
    acks = [wire.decode_ack(one.payload) for one in hub.envelopes if one.topic == topics.down("main", OTHER, "acks")]
    assert [ack.upto for ack in acks] == [1], "the other agent was not heard"
    assert all(isinstance(value, int) for value in hub.door.refused.values())
    again = hub._core()
    again.handle([LinkUp()], Now(EpochMs(AT_MS), 0))
    for key, record in hub.documents("agents", AgentRecord).items():
        assert key == record.agent
    hub.documents("dead_letters", DeadLetter)
    for room, kept in hub.rooms.items():
        for key in kept:
            assert len(key) <= 400, f"a key of {len(key)} signs in {room}"
            key.encode()  # Half of a surrogate pair is no text any store takes.


def the_fast_lane_outlives(payloads: Sequence[bytes]) -> tuple[list[Segment], list[TelemetryLetter]]:
    """Whatever comes as telemetry is taken, buried or refused by name, and the honest batch among it is taken."""
    honest = honest_batch()
    door = TelemetryDoor("main", lambda _: True)
    own = topics.up("main", OWN, "telemetry")
    heard = [Heard(own, payload, None) for payload in payloads]
    heard.insert(len(heard) // 2, Heard(topics.up("main", OTHER, "telemetry"), honest, None))
    segments, letters = door.read_all(heard, AT_MS)
    assert [one.payload for one in segments if one.sender == OTHER] == [honest]
    assert len(segments) + len(letters) + sum(door.refused.values()) >= 1
    for sender, boot in [(one.sender, one.boot) for one in segments] + [(one.sender, one.boot) for one in letters]:
        assert sender in (OWN, OTHER)
        assert len(boot.encode()) <= 4 * 64
    return segments, letters


def honest_batch(seq: int = 1, agent: AgentId = OTHER) -> bytes:
    """A batch with nothing wrong about it."""
    at_ms = np.arange(3, dtype=np.int64) + AT_MS
    columns = (np.ones(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32))
    batch = wire.TelemetryBatch(
        agent, f"{agent}-boot", seq, (60.17, 24.94), ("speed_mps", "lat", "lon"), at_ms, columns
    )  # fmt: skip
    return wire.encode_telemetry(batch)


def the_agents_door_outlives(heard: tuple[str, bytes]) -> None:
    """Whatever comes from the broker is one event for the core, or one refusal with a name."""
    carries, payload = heard
    posted: list[Any] = []
    door = AgentDoor("main", OWN, Verifier(SIGNER.public_hex()), posted.append)
    topic = {
        "commands": topics.down("main", OWN, "commands"),
        "acks": topics.down("main", OWN, "acks"),
        "presence": topics.hub_presence("main"),
        "ingest": topics.ingest_presence("main"),
    }[carries]
    with redirect_stderr(StringIO()):  # It logs the first of each kind, which here is every one.
        door.hear(Heard(topic, payload, SIGNER.sign(topic, payload)))
    assert len(posted) + sum(door.refused.values()) == 1


CLAIMS: tuple[tuple[Callable[[Any], Any], st.SearchStrategy[Any]], ...] = (
    (the_hub_outlives, st.lists(said_by(), min_size=1, max_size=6)),
    (the_fast_lane_outlives, st.lists(batches(), min_size=1, max_size=4)),
    (the_agents_door_outlives, heard_by_agent()),
)


def held(
    claim: Callable[[Any], Any], examples: st.SearchStrategy[Any], count: int, is_the_same_each_time: bool = False
) -> None:
    """Hold a claim against so many examples; raises what broke it, with the smallest example that does."""
    phases = [Phase.generate, Phase.shrink]

    @settings(
        max_examples=count, deadline=None, database=None, phases=phases, derandomize=is_the_same_each_time,
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(examples)
    def holds(example: Any) -> None:
        claim(example)

    holds()


def main(arguments: Sequence[str] | None = None) -> int:
    """Go round the claims until the time is over; the exit code says whether all held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="how long")
    wanted = parser.parse_args(arguments)
    ends_s = time.monotonic() + wanted.seconds
    rounds = 0
    while time.monotonic() < ends_s:
        for claim, examples in CLAIMS:
            held(claim, examples, 300)
            rounds += 300
    print(f"{rounds} examples at three doors, and every claim held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
