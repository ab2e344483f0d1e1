"""A whole small day in one thread: the same for the same seed, and told alike by the van, the hub and the truth."""

from functools import cache
from typing import Any

import msgspec
import pytest

from cloud_hub.fleet import StopRecord
from shared.quantities import TimeWindow
from shared.work import StopId
from tests.universe.day import Trace, Universe
from tests.universe.town import Mishap, Town
from tests.universe.twin import drive_twin

SEED = 440


@cache
def town() -> Town:
    """The town is loaded once."""
    return Town()


def small_day() -> Universe:
    """One van with a dozen customers."""
    universe = Universe(town(), SEED, vans=("van-1",), most_orders=12)
    universe.run()
    return universe


@pytest.fixture(scope="module")
def lived() -> Universe:
    """The small day, lived once."""
    return small_day()


def told_of(trace: Trace) -> dict[str, Any]:
    """Everything customers were told."""
    return {stop_id: promise.tellings for stop_id, promise in trace.promises.items()}


def test_a_seed_is_a_day(lived: Universe) -> None:
    again = small_day().trace
    assert again.served == lived.trace.served
    assert again.expected == lived.trace.expected
    assert told_of(again) == told_of(lived.trace)


def test_van_hub_and_truth_tell_one_story_of_every_customer(lived: Universe) -> None:
    records = {key: msgspec.json.decode(row, type=StopRecord) for key, row in lived.hub_store.rooms["stops"].items()}
    truth = {stop_id: (served.outcome, "done") for stop_id, served in lived.trace.served.items()}
    heard = {stop_id: (record.visits[-1].outcome, record.state) for stop_id, record in records.items() if record.visits}
    assert len(truth) == 12
    assert heard == truth


def test_the_hub_dates_an_arrival_within_a_minute_of_the_truth(lived: Universe) -> None:
    off_s = [
        abs(promise.served_ms - lived.trace.served[stop_id].arrived_ms) / 1000
        for stop_id, promise in lived.trace.promises.items()
        if promise.served_ms is not None
    ]
    assert len(off_s) == 12
    assert max(off_s) < 60


def test_the_van_knows_every_window_the_customer_was_told(lived: Universe) -> None:
    cell = lived.cells["van-1"]
    told = {
        StopId(key): msgspec.json.decode(row, type=TimeWindow) for key, row in cell.store.rooms.get("told", {}).items()
    }
    moved = {stop_id: p.told for stop_id, p in lived.trace.promises.items() if len(p.tellings) > 1}
    assert {stop_id: told[StopId(stop_id)] for stop_id in moved} == moved


def test_nothing_waits_when_the_day_is_over(lived: Universe) -> None:
    assert lived.trace.counts["events_waiting"] == 0
    assert lived.hub.backlogs() == {"van-1": 0}


def test_the_twin_meets_the_same_customers_on_its_fixed_route(lived: Universe) -> None:
    twin = drive_twin(town(), SEED, lived.trace.plans, lived.mishaps)
    assert twin.served.keys() == lived.trace.served.keys()
    assert list(twin.served) == [stop.stop_id for stop in lived.trace.plans["van-1"].stops]


def test_a_lorry_and_slow_traffic_befall_the_twin_too(lived: Universe) -> None:
    mishaps = [Mishap(town().at(SEED, 8.5), None, "slow", 1.3), Mishap(town().at(SEED, 9.25), "van-1", "hold", 20)]
    spared = drive_twin(town(), SEED, lived.trace.plans, [])
    struck = drive_twin(town(), SEED, lived.trace.plans, mishaps)
    assert struck.served.keys() == spared.served.keys()
    later_ms = [struck.served[stop_id].arrived_ms - served.arrived_ms for stop_id, served in spared.served.items()]
    assert min(later_ms) >= 0
    assert max(later_ms) > 15 * 60_000
