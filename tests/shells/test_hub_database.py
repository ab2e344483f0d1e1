"""A database that goes away, was never there, or is somebody else's file: what the hub process does then."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import cable
from deploy.stack import Stack, free_ports
from shared.clock import SETTING, Clock
from tests.postgres import PostgresServer
from tests.shells.hub_parts import EIGHT_MS, HubProcess, start_broker
from tests.shells.region_parts import EX_TEMPFAIL, OneHub, Region, wait

EX_REFUSED = 2


class Alone(Region):
    """A region of one hub, which is not started yet."""

    def __init__(self, stack: Stack, server: PostgresServer, url: str, folder: Path) -> None:
        self.stack, self.server, self.url, self.folder = stack, server, url, folder
        os.environ[SETTING] = stack._environment[SETTING] = Clock.starting(EIGHT_MS - 3_600_000, 1.0).setting()
        self.broker_port = start_broker(stack)


def log_of(stack: Stack, name: str) -> str:
    return (stack.folder / f"{name}.log").read_text()


def test_a_hub_waits_for_its_database_and_ends_when_it_goes_away(
    stack: Stack, postgres: PostgresServer, fresh_database: Callable[[], str], tmp_path: Path
) -> None:
    region = Alone(stack, postgres, fresh_database(), tmp_path)
    hub = OneHub(region, "hub", is_database_there=False)
    wait(lambda: "database" in hub.why_not_ready(), "it says what it waits for")
    assert hub.http.get("/healthz").status_code == 200
    wait(lambda: "database_away" in log_of(stack, "hub"), "it is in the log")
    cable.tell(hub.database_control, "plug")
    wait(lambda: hub.why_not_ready() == "", "it works as soon as the database is there")
    assert log_of(stack, "hub").count("database_away") == 1
    first = hub.epoch()
    cable.tell(hub.database_control, "pull")
    assert hub.process.wait(10) == EX_TEMPFAIL
    cable.tell(hub.database_control, "plug")
    stack.start_again("hub")  # As a supervisor does.
    stack.wait_for_port("hub", hub.port)
    wait(lambda: hub.why_not_ready() == "", "it wakes up from what the database holds")
    assert hub.epoch() == first + 1


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("postgresql://waywarden@127.0.0.1:{port}/nowhere", "make it with CREATE DATABASE"),
        ("mysql://somewhere/hub", "expected sqlite:///PATH or postgresql://"),
    ],
)
def test_a_store_that_no_waiting_mends_is_refused_with_what_to_do(
    postgres: PostgresServer, tmp_path: Path, store: str, words: str
) -> None:
    (port,) = free_ports(1)
    settings = tmp_path / "hub.toml"
    settings.write_text(
        f'store = "{store.format(port=postgres.port)}"\nkey_file = "{tmp_path / "hub.key"}"\nhttp_port = {port}\n'
        '[[depots]]\nid = "north"\nname = "North"\nposition = [60.18, 24.945]\n'
    )
    told = subprocess.run(
        [sys.executable, "-m", "cloud_hub", "run", "--settings", settings], capture_output=True, timeout=60, check=False
    )
    assert told.returncode == EX_REFUSED
    assert words in told.stderr.decode()


def test_a_second_hub_on_one_file_is_refused_and_the_first_works_on(stack: Stack, tmp_path: Path) -> None:
    first = HubProcess(stack, start_broker(stack), tmp_path)
    (port,) = free_ports(1)
    second = tmp_path / "second.toml"
    second.write_text(first.settings.read_text().replace(f"http_port = {first.port}", f"http_port = {port}"))
    told = subprocess.run(
        [sys.executable, "-m", "cloud_hub", "run", "--settings", second], capture_output=True, timeout=60, check=False
    )
    assert told.returncode == EX_REFUSED
    assert f"another hub works on sqlite:///{tmp_path / 'hub.db'}" in told.stderr.decode()
    assert str(stack.ids["hub"]) in told.stderr.decode()
    assert first.http.get("/readyz").status_code == 200
