"""Samples on their way: batched, bounded, thinned only before they were sent, and every sample accounted for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.sensing import Belief
from edge_agent.telemetry import (
    CHANNELS,
    FULL,
    NEAR_AN_EVENT_MS,
    SAMPLE_EVERY_MS,
    Account,
    Collector,
    tombstone,
)
from shared.quantities import Position
from shared.steps import Row
from shared.wire import decode_telemetry
from shared.work import AgentId

VAN = AgentId("van-1")


def belief(north_m: float = 0.0) -> Belief:
    return Belief(Position(60.17 + north_m / 111_195, 24.94), 0.0, 8.0, False, None, 100.0 + north_m, "gnss")


class Disk:
    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    def commit(self, rows: list[Row]) -> None:
        for row in rows:
            if row.value is None:
                self.rows.pop(row.key, None)
            else:
                self.rows[row.key] = row.value


def drive(collector: Collector, disk: Disk, samples: int, from_ms: int = 0) -> int:
    """So many samples, and the instant after them."""
    for k in range(samples):
        disk.commit(collector.sample(belief(float(k)), from_ms + k * SAMPLE_EVERY_MS))
    return from_ms + samples * SAMPLE_EVERY_MS


def test_a_full_batch_closes_and_reads_back_to_the_centimetre() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    drive(collector, disk, FULL)
    handed = collector.hand_over(7)
    assert handed is not None
    batch = decode_telemetry(handed[0])
    assert (batch.seq, len(batch.at_ms), batch.channels) == (7, FULL, CHANNELS)
    north = batch.origin[0] + batch.columns[0].astype(np.float64)
    expected = 60.17 + np.arange(FULL) / 111_195
    assert float(np.abs(north - expected).max()) * 111_195 < 0.01


def test_samples_come_no_faster_than_their_cadence() -> None:
    collector = Collector(VAN, "b", {})
    for at_ms in range(0, FULL * SAMPLE_EVERY_MS, 1_000):
        collector.sample(belief(), at_ms)
    assert collector.backlog == 1


def test_a_batch_that_closes_does_not_begin_the_cadence_anew() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    last_ms = drive(collector, disk, FULL) - SAMPLE_EVERY_MS
    assert collector.backlog == 1
    assert collector.sample(belief(), last_ms) == []
    collector.sample(belief(), last_ms + SAMPLE_EVERY_MS - 1)
    assert collector.close() == []
    assert collector.account.made == FULL


def test_a_restart_forgets_only_the_batch_not_yet_closed() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    drive(collector, disk, 2 * FULL + 5)
    assert Collector(VAN, "b", disk.rows).backlog == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["drive", "thin", "hand over", "kill", "tight", "room"]), max_size=60))
def test_made_is_what_is_on_board_and_given_up_and_handed_over(moves: list[str]) -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    at_ms, handed, declared = 0, 0, 0
    for move in moves:
        if move == "drive":
            at_ms = drive(collector, disk, FULL, at_ms)
        elif move == "thin":
            disk.commit(collector.thin())
        elif move == "hand over" and collector.backlog:
            samples, thinned = _hand_over(collector, disk)
            handed, declared = handed + samples, declared + thinned
        elif move == "kill":
            collector = Collector(VAN, "b", disk.rows)
        elif move in ("tight", "room"):
            disk.commit(collector.tighten() if move == "tight" else collector.loosen())
        account, woken = collector.account, Collector(VAN, "b", disk.rows)
        assert woken.account == account
        assert woken.bytes_waiting == collector.bytes_waiting
        on_board = sum(len(decode_telemetry(row).at_ms) for key, row in disk.rows.items() if key.isdigit())
        assert account.made == on_board + account.ever + handed
        assert account.ever == declared + account.not_yet_declared


def test_thinning_takes_from_everywhere_and_keeps_the_order_of_time() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    drive(collector, disk, 64 * FULL)
    for _ in range(60):
        disk.commit(collector.thin())
    sizes, instants = [], []
    while collector.backlog:
        handed = collector.hand_over(1)
        assert handed is not None
        batch = decode_telemetry(handed[0])
        assert batch.channels == CHANNELS
        sizes.append(len(batch.at_ms))
        instants += batch.at_ms.tolist()
    assert instants == sorted(instants)
    gaps = np.diff(instants)
    assert int(gaps.max()) <= 64 * int(gaps.min())


def test_samples_around_an_event_outlive_those_of_an_empty_road() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    at_ms = drive(collector, disk, FULL)
    collector.mark(at_ms + 60 * SAMPLE_EVERY_MS)
    drive(collector, disk, 3 * FULL, at_ms)
    for _ in range(2):
        disk.commit(collector.thin())
    kept = np.concatenate([decode_telemetry(row).at_ms for key, row in disk.rows.items() if key.isdigit()])
    near = np.abs(kept - (at_ms + 60 * SAMPLE_EVERY_MS)) <= NEAR_AN_EVENT_MS
    assert near.sum() == 2 * NEAR_AN_EVENT_MS // SAMPLE_EVERY_MS + 1
    assert len(kept) == 2 * FULL


def test_everything_can_be_given_up_and_is_counted() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    drive(collector, disk, 3 * FULL)
    while rows := collector.thin():
        disk.commit(rows)
    assert (collector.backlog, collector.bytes_waiting) == (0, 0)
    assert collector.account == Account(3 * FULL, 3 * FULL, 3 * FULL)


def test_on_a_full_disk_samples_are_counted_at_their_cadence_and_not_kept() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    at_ms = drive(collector, disk, 5)
    disk.commit(collector.tighten())
    at_ms = drive(collector, disk, 2 * FULL + 3, at_ms)
    disk.commit(collector.loosen())
    drive(collector, disk, FULL, at_ms)
    handed = collector.hand_over(1)
    assert handed is not None
    batch = decode_telemetry(handed[0])
    assert (len(batch.at_ms), batch.thinned) == (FULL, 5 + 2 * FULL + 3)


def test_a_tombstone_has_the_number_of_its_batch_and_declares_its_samples() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    drive(collector, disk, 2 * FULL)
    disk.commit(collector.thin())
    handed = collector.hand_over(9)
    assert handed is not None
    fallen, given_up = tombstone(handed[0])
    stone = decode_telemetry(fallen)
    assert (stone.seq, len(stone.at_ms), stone.thinned, given_up) == (9, 0, 2 * FULL, FULL)
    assert tombstone(fallen) == (fallen, 0)


def test_a_store_from_before_samples_had_a_worth_is_read_and_thinned() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    drive(collector, disk, FULL)
    handed = collector.hand_over(0)
    assert handed is not None
    former = Collector(VAN, "b", {"000000000001": handed[0], "000000000002": handed[0], "thinned": b'{"ever":7}'})
    assert former.thin()
    assert former.account == Account(FULL, 7 + FULL, 0)


def _hand_over(collector: Collector, disk: Disk) -> tuple[int, int]:
    handed = collector.hand_over(1)
    assert handed is not None
    disk.commit(handed[1])
    batch = decode_telemetry(handed[0])
    return len(batch.at_ms), batch.thinned
