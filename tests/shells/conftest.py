"""Real parts for the tests of shells: a broker in a process of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy import cable as cables
from deploy.stack import Stack, free_ports
from tests.needs import needs


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
