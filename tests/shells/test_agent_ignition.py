"""Ignition off and on again, as processes: no clock, no network, no farewell worth waiting for; and nothing is lost."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.stack import Stack
from shared.clock import Clock
from shared.messages import PlanTaken, TimeFound, TimeTold, Visited
from shared.quantities import EpochMs
from shared.runner import Runner
from shared.steps import ClockFound, Consequences, Envelope, Now, Row, Wake
from tests.agents import plan_of, row_of_houses
from tests.shells.conftest import CableAt
from tests.shells.test_agent_process import PATIENCE_S, VAN, Town

SPEED = 60.0
FARTHEST_MS = round(3_000 * SPEED)
"""Three seconds of this machine, busy as it may be."""


@pytest.fixture
def town(stack: Stack, broker_port: int, cable: CableAt, tmp_path: Path) -> Iterator[Town]:
    town = Town(stack, broker_port, cable.port, tmp_path, SPEED)
    with town.hub:
        yield town
    town.stop()


def switch_off(town: Town) -> None:
    """SIGTERM, as systemd sends it when the ignition goes off."""
    process = town.stack._processes["van-1"]
    began_s = time.monotonic()
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    print(f"ended in {time.monotonic() - began_s:.3f} s")


def counters(town: Town) -> dict[str, int]:
    status, found = town.get("/api/counters")
    assert status == 200
    return dict(found)


def until_counted(town: Town, name: str, value: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while counters(town)[name] != value:
        assert time.monotonic() < deadline, f"{name} is {counters(town)[name]}, expected {value}"
        time.sleep(0.05)


def taken_of(town: Town, stop_id: str) -> Visited:
    found: Visited = next(said for said in town.hub.of(Visited) if said.visit.stop_id == stop_id)
    return found


def test_without_clock_and_network_it_delivers_and_dates_it_when_the_hub_tells_the_time(
    town: Town, cable: CableAt
) -> None:
    town.start_agent()
    town.hub.push(plan_of(row_of_houses()))
    town.hub.wait(lambda: town.hub.of(PlanTaken) != [], "the plan was taken")
    town.deliver("s1")
    town.hub.wait(lambda: town.hub.of(Visited) != [], "the first visit was reported")
    switch_off(town)
    # A board without a battery clock starts in a basement: no satellites, no network.
    cable.tell("pull")
    without_satellites = town.settings.read_text().replace(town.gnss.url, "")
    town.settings.write_text(without_satellites + '\nclock = "unknown_at_start"\n')
    time.sleep(0.5)
    town.stack.start_again("van-1")
    town.stack.wait_for_port("van-1", town.page_port)
    day = town.until("the plan is back", lambda day: day["plan_version"] == 1)
    assert day["is_dated"] is False
    assert day["now_ms"] < town.clock.now_ms() - 0.4 * SPEED * 1000
    town.deliver("s2")
    delivered_ms = town.clock.now_ms()
    known = len(town.hub.events)
    cable.tell("plug")
    town.hub.wait(lambda: bool(town.hub.presences[-1].asks_time), "the agent asks for the time")
    assert (len(town.hub.events), town.hub.presences[-1].is_dated) == (known, False)
    asked = town.hub.presences[-1].asks_time
    town.hub.command(VAN, TimeTold(asked, EpochMs(town.clock.now_ms())))
    town.hub.wait(lambda: len(town.hub.of(Visited)) == 2, "the second visit was reported")
    visit = taken_of(town, "s2").visit
    assert abs(visit.left_ms - delivered_ms) < FARTHEST_MS
    assert abs(visit.proof.at_ms - delivered_ms) < FARTHEST_MS
    assert town.hub.of(TimeFound)[0].by == "hub"
    town.hub.wait(lambda: town.hub.presences[-1].is_dated, "the agent says that it knows the time")
    assert town.hub.numbers == list(range(1, len(town.hub.numbers) + 1))
    assert abs(town.day()["now_ms"] - town.clock.now_ms()) < FARTHEST_MS


def test_satellites_tell_a_board_without_a_clock_what_time_it_is(town: Town, cable: CableAt) -> None:
    cable.tell("pull")
    town.settings.write_text(town.settings.read_text() + '\nclock = "unknown_at_start"\n')
    town.start_agent()
    until_counted(town, "is_dated", 1)
    town.until("the page knows the time", lambda day: day["is_dated"])
    assert abs(town.day()["now_ms"] - town.clock.now_ms()) < FARTHEST_MS


def test_ignition_off_keeps_the_samples_of_the_batch_under_way(town: Town, cable: CableAt) -> None:
    town.start_agent()
    town.hub.wait(lambda: town.hub.presences != [], "the agent is there")
    cable.tell("pull")
    until_counted(town, "link_is_up", 0)
    deadline = time.monotonic() + PATIENCE_S
    while counters(town)["readings_believed"] < 20:
        assert time.monotonic() < deadline, "no readings were believed"
        time.sleep(0.05)
    switch_off(town)
    cable.tell("plug")
    town.stack.start_again("van-1")
    town.hub.wait(lambda: town.hub.batches != {}, "the samples of before arrived")
    batch = next(iter(town.hub.batches.values()))
    assert len(batch.at_ms) >= 2


class Diary:
    """A store that keeps nothing."""

    def saved(self) -> dict[str, dict[str, bytes]]:
        return {}

    def commit(self, rows: list[Row]) -> None:
        pass


class Watching:
    """A core that notes what it hears and by which clock."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, int]] = []

    def handle(self, events: list[Any], now: Now) -> Consequences:
        self.heard += [(event, now.domain_ms) for event in events]
        return Consequences()

    def due(self, now: Now) -> list[Envelope]:
        return []

    def wake(self, now: Now) -> Wake:
        return Wake(None, None)


def test_the_clock_is_put_right_once_and_before_the_step_that_hears_of_it() -> None:

    clock = Clock.real()
    clock.lose(1_000)
    core = Watching()
    runner = Runner(core, Diary(), clock, lambda _: True, lambda _: None)  # type: ignore[arg-type]  # as a core
    for event in ("scan", ClockFound(5_000_000, "gnss"), ClockFound(5_000_100, "hub")):
        runner.post(event)
    runner.stop()
    runner.run()
    events = [event for event, _ in core.heard]
    assert events == [ClockFound(5_000_000, "gnss"), "scan"]
    assert all(5_001_000 <= at_ms < 5_060_000 for _, at_ms in core.heard)
