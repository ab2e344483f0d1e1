"""Samples on their way: batched, bounded, thinned only before they were sent, and every sample accounted for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.sensing import Belief
from edge_agent.telemetry import CHANNELS, FULL, MOST_WAITING, SAMPLE_EVERY_MS, Collector
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


def test_a_restart_forgets_only_the_batch_not_yet_closed() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    drive(collector, disk, 2 * FULL + 5)
    assert Collector(VAN, "b", disk.rows).backlog == 2


@settings(max_examples=8, deadline=None)
@given(st.integers(MOST_WAITING, MOST_WAITING + 40), st.integers(0, 30))
def test_stored_and_thinned_add_up_to_all_samples(batches: int, handed_first: int) -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    at_ms, handed, declared = 0, 0, 0
    for k in range(batches):
        at_ms = drive(collector, disk, FULL, at_ms)
        if k < handed_first:
            handed += _hand_over(collector, disk)[0]
    assert collector.backlog <= MOST_WAITING
    collector = Collector(VAN, "b", disk.rows)
    while collector.backlog:
        samples, thinned = _hand_over(collector, disk)
        handed, declared = handed + samples, declared + thinned
    assert handed + declared == batches * FULL
    assert declared == collector.thinned


def test_thinning_takes_from_everywhere_and_keeps_the_order_of_time() -> None:
    collector, disk = Collector(VAN, "b", {}), Disk()
    drive(collector, disk, (MOST_WAITING + 60) * FULL)
    sizes, instants = [], []
    while collector.backlog:
        handed = collector.hand_over(1)
        assert handed is not None
        batch = decode_telemetry(handed[0])
        sizes.append(len(batch.at_ms))
        instants += batch.at_ms.tolist()
    assert instants == sorted(instants)
    assert min(sizes) >= FULL // 2


def _hand_over(collector: Collector, disk: Disk) -> tuple[int, int]:
    handed = collector.hand_over(1)
    assert handed is not None
    disk.commit(handed[1])
    batch = decode_telemetry(handed[0])
    return len(batch.at_ms), batch.thinned
