"""One hub acts for a region and another stands by, on a real PostgreSQL: killed, cut off, put to sleep, woken up."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from deploy import cable
from deploy.stack import Stack
from shared.messages import WindowTold
from tests.postgres import Databases, PostgresServer
from tests.shells.region_parts import EX_TEMPFAIL, PATIENCE_S, Region, wait


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Region]:
    folder = tmp_path_factory.mktemp("region")
    databases = Databases(postgres.url)
    with Stack(folder / "logs", {}) as stack:
        region = Region(stack, postgres, databases.fresh_database(), folder)
        with region.van:
            region.van.wait_plan()
            yield region
    databases.drop_all()


def test_a_standby_lives_and_says_who_acts_and_does_nothing(region: Region) -> None:
    standby = region.ready_standby()
    assert standby.http.get("/healthz").status_code == 200
    answer = standby.http.get("/api/fleet")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].endswith(f"/{region.acting.process.pid} acts")
    assert 'waywarden_hub_acting{what="main"} 0.0' in standby.http.get("/metrics").text
    assert 'waywarden_hub_acting{what="main"} 1.0' in region.acting.http.get("/metrics").text


def test_a_standby_takes_over_from_a_hub_that_was_killed(region: Region) -> None:
    region.ready_standby()
    former = region.acting.epoch()
    region.say_something()
    region.acting.move_window("A-000", 12)
    since_s = time.monotonic()
    region.stack.kill(region.acting.name)
    region.say_something()
    hub = region.taken_over(since_s)
    assert hub.epoch() > former
    region.van.wait(lambda: len(region.van.of(WindowTold)) == 1, "the van hears of the window")
    region.assert_nothing_lost_and_nothing_twice(["A-000"])


def test_a_hub_behind_half_open_links_ends_itself_and_is_not_believed_afterwards(region: Region) -> None:
    region.ready_standby()
    old, former = region.acting, region.acting.epoch()
    cable.tell(old.broker_control, "freeze")
    old.move_window("A-001", 12)  # Committed, and said into a link that carries nothing.
    since_s = time.monotonic()
    cable.tell(old.database_control, "freeze")
    region.say_something()
    region.taken_over(since_s)
    assert old.process.wait(1) == EX_TEMPFAIL
    region.van.wait(lambda: len(region.van.of(WindowTold)) == 2, "the van hears of the window from the new hub")
    cable.tell(old.broker_control, "plug")  # What the old hub had said arrives after all.
    region.van.wait(lambda: former in region.van.refused_epochs, "the van hears of it from the old hub, too")
    region.assert_nothing_lost_and_nothing_twice(["A-000", "A-001"])
    wait(lambda: region.acting.why_not_ready() == "", "the new hub goes on")


def test_a_hub_that_was_asleep_wakes_up_and_writes_nothing(region: Region) -> None:
    region.ready_standby()
    old = region.acting
    since_s = time.monotonic()
    os.kill(old.process.pid, signal.SIGSTOP)
    region.say_something()
    hub = region.taken_over(since_s)
    hub.move_window("A-002", 13)
    chain = hub.get("/api/chains")
    os.kill(old.process.pid, signal.SIGCONT)
    assert old.process.wait(PATIENCE_S) == EX_TEMPFAIL
    region.van.wait(lambda: len(region.van.of(WindowTold)) == 3, "the van hears of the window")
    region.assert_nothing_lost_and_nothing_twice(["A-000", "A-001", "A-002"])
    assert hub.get("/api/chains") == chain
