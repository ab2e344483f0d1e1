"""A closed hub process: its whole interface asked as its own description says (`make fuzz` asks for longer), its keys
made by a command.
"""

import os
import subprocess
import sys
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


def waywarden(hub: HubProcess, key: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, with this key in its environment."""
    known = {**os.environ, "WAYWARDEN_KEY": key, "COLUMNS": "200"}
    command = [sys.executable, "-m", "deploy", *words, "--hub", str(hub.http.base_url).rstrip("/")]
    return subprocess.run(command, env=known, capture_output=True, text=True, check=False)


def test_keys_are_made_listed_and_revoked_by_a_command(closed: tuple[HubProcess, str, Path]) -> None:
    hub, admin, _ = closed
    made = waywarden(hub, admin, "keys", "make", "the screen", "--role", "viewer", "--depot", "north", "--days", "9")
    key = made.stdout.splitlines()[-1]
    me = httpx.get(f"{hub.http.base_url}/api/me", headers={"Authorization": f"Bearer {key}"}).json()
    assert me["depots"] == ["north"]
    listed = waywarden(hub, admin, "keys", "list").stdout
    assert "the screen" in listed
    assert key not in listed
    assert waywarden(hub, admin, "keys", "revoke", key.split("_")[1]).returncode == 0
    refused = waywarden(hub, key, "keys", "list")
    assert refused.returncode == 2
    assert "was revoked" in refused.stdout


def test_a_command_without_a_key_is_told_where_to_put_one(closed: tuple[HubProcess, str, Path]) -> None:
    hub, admin, _ = closed
    nobody = waywarden(hub, "", "verify")
    assert (nobody.returncode, "put an admin's key into WAYWARDEN_KEY" in nobody.stdout) == (2, True)
    assert waywarden(hub, admin, "verify").returncode == 0


def test_the_first_key_is_shown_once_and_not_at_the_next_start(closed: tuple[HubProcess, str, Path]) -> None:
    hub, key, folder = closed
    hub.kill()
    hub.start_again()
    assert hub.get("/api/me")["name"] == "the first admin"
    log = "".join(file.read_text() for file in (folder / "logs").glob("hub*"))
    assert log.count(key) == 1
    assert log.count("The first admin key") == 1
