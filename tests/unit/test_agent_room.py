"""What waits on board is bounded: telemetry gives way, then photographs, and stored, thinned and waiting add up."""

import hashlib
from collections.abc import Sequence

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.agent import AgentCore
from edge_agent.dialogue import ObjectSaid, OutcomeSaid
from edge_agent.machine import IngestBegan, RoomChanged, Stopping
from edge_agent.telemetry import FULL, SAMPLE_EVERY_MS, Account
from shared import wire
from shared.messages import Ack, DiskTight, PictureGivenUp, Presence, Visited
from shared.quantities import EpochMs
from shared.steps import Envelope, LinkUp, Now, Row, step
from shared.streams import REPEAT_AFTER_MS
from shared.topics import HUB
from shared.wire import decode_telemetry
from shared.work import AgentId, Outcome
from tests.agents import DEPOT, Rig, identity, plan_of, row_of_houses

VAN = AgentId("van-1")
BATCH_BYTES = 5_000


class Small(Rig):
    """A van with little room for what waits."""

    def __init__(self, outbox_bytes: int, disk: dict[str, dict[str, bytes]] | None = None, now_ms: int = 0) -> None:
        super().__init__(now_ms or 1_795_500_000_000, disk)
        self.core = AgentCore(msgspec.structs.replace(identity(), outbox_bytes=outbox_bytes), self.disk)

    def stands(self, batches: int) -> None:
        """So many batches of samples and the beginning of another."""
        for _ in range(batches * FULL):
            self.step(self.fix(DEPOT.position, 0.0), after_s=SAMPLE_EVERY_MS / 1000)

    def takes_photo(self, stop_id: str, outcome: Outcome) -> None:
        content = b"\xff\xd8\xff" + stop_id.encode() + bytes(200_000)
        self.driver(ObjectSaid("photo", stop_id, "image/jpeg", content))
        digest = hashlib.sha256(content).hexdigest()
        scans = [f"WW:{stop_id}/1"]
        assert self.core._round.work is not None
        for code in scans:
            self.core._round.scan(code)
        assert self.driver(OutcomeSaid(stop_id, outcome, photo=digest)).status == 200

    @property
    def account(self) -> Account:
        return self.core._outbox.samples


def delivered() -> Small:
    van = Small(700_000)
    van.push(plan_of(row_of_houses()))
    van.begin()
    return van


def test_without_a_network_the_outbox_stays_within_its_bytes_and_events_are_kept() -> None:
    van = Small(40_000)
    van.push(plan_of(row_of_houses()))
    van.stands(14)
    assert van.core.counters()["outbox_bytes"] <= 40_000
    assert van.account.ever > 0
    assert van.seqs == list(range(1, len(van.seqs) + 1))


def test_what_the_link_was_handed_becomes_a_tombstone_when_nothing_else_is_left_to_give() -> None:
    van = Small(1_000_000)
    van.step(LinkUp())
    van.stands(4)
    before = van.disk["outbox"]["hub/telemetry/000000000001"]
    poor = Small(1_000, van.disk, van.now_ms)
    poor.step()
    after = decode_telemetry(poor.disk["outbox"]["hub/telemetry/000000000001"])
    assert (after.seq, len(after.at_ms), after.thinned) == (1, 0, len(decode_telemetry(before).at_ms))
    assert poor.restarted().core.durable() == poor.core.durable()


def test_photographs_that_show_nothing_nobody_signed_for_go_before_those_that_do() -> None:
    van = delivered()
    van.takes_photo("s1", Outcome.DELIVERED_TO_SAFE_PLACE)
    van.takes_photo("s2", Outcome.DELIVERED_TO_PERSON)
    van.takes_photo("s3", Outcome.DELIVERED_TO_PERSON)
    van.takes_photo("s4", Outcome.DELIVERED_TO_SAFE_PLACE)
    assert [event.stop_id for event in van.events(PictureGivenUp)] == ["s2"]
    assert sorted(kept.stop_id for kept in van.core._round.proofs.kept.values()) == ["s1", "s3", "s4"]
    assert len(van.events(Visited)) == 4


def test_a_full_disk_is_said_once_to_hub_and_page_and_telemetry_gives_way() -> None:
    van = Small(1_000_000)
    van.push(plan_of(row_of_houses()))
    van.step(RoomChanged(is_tight=True))
    van.step(RoomChanged(is_tight=True))
    van.stands(2)
    assert van.day["is_tight"]
    assert van.events(DiskTight) == [DiskTight(True)]
    assert van.core.counters()["telemetry_waiting"] == 0
    van.step(RoomChanged(is_tight=False))
    assert van.day["is_tight"] is False
    assert van.account.made == van.account.ever == 2 * FULL


def test_the_end_of_a_process_keeps_the_batch_under_way() -> None:
    van = Small(1_000_000)
    for _ in range(7):
        van.step(van.fix(DEPOT.position, 0.0), after_s=5)
    van.step(Stopping())
    woken = van.restarted()
    assert woken.core.counters()["telemetry_made_samples"] == 7
    assert woken.core._sensing.remember().position == DEPOT.position


def telemetry_in(envelopes: Sequence[Envelope]) -> list[int]:
    return [decode_telemetry(e.payload).seq for e in envelopes if e.topic.endswith("/telemetry")]


def test_an_ingest_process_that_begins_hears_the_telemetry_again_at_once_and_no_events() -> None:
    van = Small(1_000_000)
    van.push(plan_of(row_of_houses()))
    van.step(LinkUp())
    van.stands(1)
    van.envelopes.clear()
    van.step(IngestBegan("l9"))
    assert telemetry_in(van.envelopes) == [1]
    assert [e for e in van.envelopes if e.topic.endswith("/events")] == []


def test_a_hub_of_another_epoch_hears_everything_again_at_once_and_how_far_back_we_can_tell() -> None:
    van = Small(1_000_000)
    van.push(plan_of(row_of_houses()))
    van.step(LinkUp())
    van.step(Presence(HUB, True, "life-1", "hub-1", 1))
    said = len(van.seqs)
    van.step(Ack(VAN, "b1", "events", said - 1))
    van.envelopes.clear()
    van.step(Presence(HUB, True, "life-1", "hub-1", 2), after_s=REPEAT_AFTER_MS / 10_000)
    numbers = [wire.decode_numbered(e.payload).seq for e in van.envelopes if e.topic.endswith("/events")]
    assert numbers == [said]
    (greeting,) = [e for e in van.envelopes if e.topic.endswith("/presence")]
    assert wire.decode_presence(greeting.payload).unacked["events"] == said


class Plug(Exception):
    """The plug was pulled."""


class World:
    """A van whose plug may be pulled at any named point, and a hub that takes each telemetry batch once."""

    def __init__(self) -> None:
        self.disk: dict[str, dict[str, bytes]] = {}
        self.now_ms = 1_795_500_000_000
        self.real_ms = 0
        self.hub: dict[int, tuple[int, int]] = {}
        self.is_heard = False
        self.is_up = False
        self.wake_up(100_000)

    def wake_up(self, outbox_bytes: int) -> None:
        self.core = AgentCore(msgspec.structs.replace(identity(), outbox_bytes=outbox_bytes), self.disk)
        self.is_up = False

    def commit(self, rows: Sequence[Row]) -> None:
        for row in rows:
            room = self.disk.setdefault(row.room, {})
            if row.value is None:
                room.pop(row.key, None)
            else:
                room[row.key] = row.value

    def saved(self) -> dict[str, dict[str, bytes]]:
        return self.disk

    def step(self, *events: object, dies_at: str = "") -> None:
        def at(point: str) -> None:
            if point == dies_at:
                raise Plug

        self.real_ms += 1
        _, envelopes = step(self.core, self, events, Now(EpochMs(self.now_ms), self.real_ms), at)
        for envelope in envelopes:
            if self.is_heard and envelope.topic.endswith("/telemetry"):
                batch = decode_telemetry(envelope.payload)
                self.hub.setdefault(batch.seq, (len(batch.at_ms), batch.thinned))
            at("sent")

    def ack(self) -> Ack:
        upto = 0
        while upto + 1 in self.hub:
            upto += 1
        return Ack(VAN, "b1", "telemetry", upto, tuple(seq for seq in self.hub if seq > upto))

    def is_settled(self) -> bool:
        """Whether what was made is stored or thinned at the hub, or waits on board, given up or not yet handed over."""
        account = msgspec.json.decode(self.disk.get("telemetry", {}).get("thinned", b"{}"), type=Account)
        waits = sum(len(decode_telemetry(row).at_ms) for key, row in self._rows("telemetry") if key.isdigit())
        for key, row in self._rows("outbox"):
            if "/telemetry/" in key and int(key.rpartition("/")[2]) not in self.hub:
                batch = decode_telemetry(row)
                waits += len(batch.at_ms) + batch.thinned
        at_hub = sum(stored + thinned for stored, thinned in self.hub.values())
        return account.made == at_hub + waits + account.not_yet_declared

    def _rows(self, room: str) -> list[tuple[str, bytes]]:
        return sorted(self.disk.get(room, {}).items())


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["drive", "drive", "up", "hear", "deaf", "ack", "poor", "rich", "tight", "roomy"]),
        st.sampled_from(["", "", "", "decided", "committed", "sent"]),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MOVES)
def test_stored_thinned_and_waiting_add_up_wherever_the_plug_is_pulled(moves: list[tuple[str, str]]) -> None:
    world = World()
    world.step(LinkUp())
    outbox_bytes = 100_000
    for move, dies_at in moves:
        try:
            if move == "drive":
                for k in range(FULL):
                    world.now_ms += SAMPLE_EVERY_MS
                    fix = Rig(world.now_ms).fix(DEPOT.position, 0.0)
                    world.step(fix, dies_at=dies_at if k == FULL - 1 else "")
            elif move == "up":
                world.step(LinkUp(), dies_at=dies_at)
            elif move in ("hear", "deaf"):
                world.is_heard = move == "hear"
                world.step(IngestBegan("x"), dies_at=dies_at)
            elif move == "ack":
                world.step(world.ack(), dies_at=dies_at)
            elif move in ("poor", "rich"):
                outbox_bytes = BATCH_BYTES if move == "poor" else 100_000
                world.wake_up(outbox_bytes)
                world.step(dies_at=dies_at)
            else:
                world.step(RoomChanged(move == "tight"), dies_at=dies_at)
        except Plug:
            world.wake_up(outbox_bytes)
        assert world.is_settled(), (move, dies_at)
    world.is_heard = True
    world.step(RoomChanged(is_tight=False))
    world.step(LinkUp())
    for _ in range(40):
        world.step(world.ack())
    assert world.core.counters()["telemetry_waiting"] == 0
    assert world.is_settled()
