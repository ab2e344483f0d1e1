"""Real parts for the tests of shells: a broker, and a database server, in processes of their own."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy import cable as cables
from deploy.stack import Stack, free_ports
from tests.needs import needs
from tests.postgres import Databases, NoPostgres, PostgresServer, Timescales


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Real processes that end with the test; their logs are in the test's folder."""
    with Stack(tmp_path / "logs", {}) as running:
        yield running


@pytest.fixture
def broker_port(stack: Stack) -> int:
    """The port of an embedded broker started for this test as the process `broker` of `stack`."""
    (port,) = free_ports(1)
    stack.start("broker", "deploy.broker", "--port", str(port))
    stack.wait_for_port("broker", port)
    return port


@pytest.fixture
def mosquitto_port(stack: Stack, tmp_path: Path) -> int:
    """The port of a Mosquitto started for this test, which listens on the loopback and asks nobody who they are."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    needs(program, "mosquitto: apt install mosquitto")
    (port,) = free_ports(1)
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    stack.start_program("broker", str(program), "-c", str(configuration))
    stack.wait_for_port("broker", port)
    return port


class CableAt(NamedTuple):
    """A cable to the broker: the port of its near end, and the one that steers it."""

    port: int
    control: int

    def tell(self, wish: str) -> dict[str, Any]:
        """Pull it, plug it, or ask for its state."""
        return cables.tell(self.control, wish)


@pytest.fixture
def cable(stack: Stack, broker_port: int) -> CableAt:
    """A cable to the broker, in a process of its own."""
    near, control = free_ports(2)
    stack.start("cable", "deploy.cable", str(near), f"127.0.0.1:{broker_port}", str(control))
    stack.wait_for_port("cable", control)
    return CableAt(near, control)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this session. Who stops it must start it again: others use it too."""
    try:
        server = PostgresServer()
    except NoPostgres as missing:
        needs(None, f"PostgreSQL: {missing}")
        raise AssertionError from missing  # `needs` has skipped or failed.
    with server:
        yield server


@pytest.fixture
def fresh_database(postgres: PostgresServer) -> Callable[[], str]:
    """Gives the URL of a new and empty PostgreSQL database at each call; they go with the server, for to drop one
    writes everything of all others to disk.
    """
    return Databases(postgres.url).fresh_database


@pytest.fixture
def fresh_store(postgres: PostgresServer) -> Callable[[], str]:
    """The same of databases that are brought up to this release already: sooner there."""
    return postgres.fresh_store


@pytest.fixture
def fresh_timescale() -> Iterator[Callable[[], str]]:
    """The same on the server that TIMESCALE_URL names, which has the extension."""
    url = os.environ.get("TIMESCALE_URL")
    if not url:
        pytest.skip("no TIMESCALE_URL: give the URL of a TimescaleDB, as a user who may create databases")
    databases = Timescales(url)
    yield databases.fresh_database
    databases.drop_all()
