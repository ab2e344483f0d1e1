"""Processes that take telemetry together: real ones, Mosquitto and PostgreSQL, and whoever is killed loses nothing."""

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud_hub.ingest import KnownAgents
from cloud_hub.storage import HubStore, open_hub_store, open_telemetry
from deploy.stack import Stack, free_ports
from shared.steps import Row
from shared.work import AgentId
from tests.bench.fleet import NARROW
from tests.bench.ingest import Generator, Machine, audit, know
from tests.postgres import PostgresServer

AGENTS = 12
BATCHES = 1_200


Machines = Callable[[int], Machine]


@pytest.fixture
def machines(
    stack: Stack, tmp_path: Path, mosquitto_port: int, fresh_database: Callable[[], str]
) -> Iterator[Machines]:
    """So many workers that share what twelve agents say."""

    def started(workers: int) -> Machine:
        url = f"mqtt://127.0.0.1:{mosquitto_port}"
        machine = Machine(stack, tmp_path, fresh_database(), url, AGENTS, workers)
        machine.start_hub()
        return machine

    yield started
    stack.stop()


def fleet(machine: Machine, *more: str) -> Generator:
    """Twelve agents that say 1,200 batches in three seconds."""
    return machine.generator(
        "--agents", str(AGENTS), "--messages", str(BATCHES), "--rate", "40000", "--seconds", "60", *more
    )


def stored(machine: Machine) -> tuple[int, int, int]:
    """Samples of the ledger, samples that are there, and how many of them more than once."""
    store = open_telemetry(machine.store)
    try:
        return (store.totals()["samples"], *audit(store, machine.names, NARROW[0]))
    finally:
        store.close()


def taken_by(machine: Machine, name: str) -> int:
    """Batches a worker says it took, once it has been told to end."""
    line = machine.stack.last_words(name)
    return int(line.split(" taken=")[1].split()[0]) if " taken=" in line else 0


def test_of_three_workers_one_is_killed_and_everything_is_stored_once(machines: Machines) -> None:
    machine = machines(3)
    generator = fleet(machine)
    generator.wait_until(lambda said: said["acked"] > BATCHES // 4)
    machine.stack.kill("ingest-1")
    generator.wait_until(lambda said: said["acked"] > BATCHES // 2)
    machine.stack.start_again("ingest-1")
    done = generator.wait("done")
    machine.stack.stop()
    assert (done["made"], done["acked"]) == (BATCHES, BATCHES)
    assert stored(machine) == (100 * BATCHES, 100 * BATCHES, 0)
    assert min(taken_by(machine, name) for name in ("ingest-0", "ingest-2")) > BATCHES // 8


def test_a_database_that_is_killed_and_comes_back_has_everything_once(
    stack: Stack, tmp_path: Path, mosquitto_port: int
) -> None:
    with PostgresServer() as server:
        machine = Machine(stack, tmp_path, server.fresh_database(), f"mqtt://127.0.0.1:{mosquitto_port}", AGENTS, 2)
        machine.start_hub()
        generator = fleet(machine)
        generator.wait_until(lambda said: said["acked"] > BATCHES // 4)
        server.kill()
        generator.wait_until(lambda said: said["made"] > BATCHES // 2)
        server.start()
        done = generator.wait("done")
        stack.stop()
        assert (done["made"], done["acked"]) == (BATCHES, BATCHES)
        assert stored(machine) == (100 * BATCHES, 100 * BATCHES, 0)


def test_an_agent_that_enrols_later_is_taken_without_a_restart(machines: Machines) -> None:
    machine = machines(1)
    generator = machine.generator("--name", "late", "--agents", "1", "--messages", "5", "--seconds", "60")
    generator.wait_until(lambda said: said["repeated"] > 0)
    assert stored(machine) == (0, 0, 0)
    know(machine.store, ["late-1"])
    assert generator.wait("done")["acked"] == 5


def test_what_a_worker_counts_is_shown_where_it_is_asked_to(
    stack: Stack, tmp_path: Path, mosquitto_port: int, fresh_database: Callable[[], str]
) -> None:
    machine = Machine(stack, tmp_path, fresh_database(), f"mqtt://127.0.0.1:{mosquitto_port}", 1, 1)
    know(machine.store, machine.names)
    (port,) = free_ports(1)
    settings = machine.write_settings(machine.names)
    stack.start("ingest-0", "cloud_hub", "ingest", "--settings", str(settings), "--metrics-port", str(port))
    machine.wait_for_words("ingest-0", "ingest_listens")
    generator = machine.generator("--agents", "1", "--messages", "7", "--seconds", "60")
    generator.wait("done")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        shown = page.read().decode()
    assert 'waywarden_hub_telemetry_total{what="samples"} 700.0' in shown
    assert 'waywarden_hub_link_up{what="broker"} 1.0' in shown


def test_a_worker_refuses_a_file(stack: Stack, tmp_path: Path) -> None:
    machine = Machine(stack, tmp_path, f"sqlite:///{tmp_path / 'hub.db'}", "mqtt://127.0.0.1:1", 1, 1)
    settings = machine.write_settings(["van-1"])
    command = [sys.executable, "-m", "cloud_hub", "ingest", "--settings", str(settings)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert "cloud-hub ingest needs a postgresql:// store" in ended.stderr


@pytest.fixture
def rooms(fresh_database: Callable[[], str]) -> Iterator[HubStore]:
    opened = open_hub_store(fresh_database())
    assert opened.act("main", "test")
    yield opened
    opened.close()


def test_a_stranger_is_asked_for_again_after_two_seconds(rooms: HubStore) -> None:
    now_s = [10.0]
    known = KnownAgents(rooms, lambda: now_s[0])
    assert not known(AgentId("van-9"))
    rooms.commit([Row("agents", "van-9", b"{}")])
    assert not known(AgentId("van-9"))
    now_s[0] = 12.1
    assert known(AgentId("van-9"))
