"""The whole interface, asked of a real hub process as its own description says: `make fuzz` asks for longer."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.stack import Stack
from tests.fuzz.openapi import a_closed_hub, ask_everything
from tests.shells.hub_parts import HubProcess


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubProcess, str, Path]]:
    """A hub that asks everybody who they are, and its first admin's key."""
    folder = tmp_path_factory.mktemp("closed")
    with Stack(folder / "logs", {}) as stack:
        hub, key = a_closed_hub(stack, folder)
        yield hub, key, folder


def test_every_answer_is_as_the_interface_describes_it(closed: tuple[HubProcess, str, Path]) -> None:
    hub, key, folder = closed
    found = ask_everything(
        hub,
        key,
        folder,
        "--phases",
        "examples,fuzzing",
        "--max-examples",
        "2",
        "--generation-deterministic",
        "--no-shrink",
    )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-1000:]
    assert hub.get("/healthz") == {"status": "live"}


def test_a_hub_process_asks_even_its_own_machine_who_is_there(closed: tuple[HubProcess, str, Path]) -> None:
    hub, _, _ = closed
    assert httpx.get(f"{hub.http.base_url}/api/orders").status_code == 401
    assert httpx.get(f"{hub.http.base_url}/healthz").status_code == 200
    assert hub.get("/api/me")["role"] == "admin"


def test_the_first_key_is_shown_once_and_not_at_the_next_start(closed: tuple[HubProcess, str, Path]) -> None:
    hub, key, folder = closed
    hub.kill()
    hub.start_again()
    assert hub.get("/api/me")["name"] == "the first admin"
    log = "".join(file.read_text() for file in (folder / "logs").glob("hub*"))
    assert log.count(key) == 1
    assert log.count("The first admin key") == 1
