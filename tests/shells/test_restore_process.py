"""A hub lost with its machine goes on from a backup with its agents: on another kind of store, by real processes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloud_hub.storage.archive import EPOCH_FROM_S
from deploy.stack import Stack
from shared.messages import AgentStarted, PlanPushed, WindowTold
from tests.shells.hub_parts import DAY, HubProcess, StandInAgent, some_orders


def waywarden(*words: str) -> str:
    """What the command prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def move_window(hub: HubProcess, order_id: str, hour: int) -> None:
    """Tell a customer another window, by hand."""
    said = {"opens": f"{DAY}T{hour}:00+02:00", "closes": f"{DAY}T{hour + 1}:00+02:00", "by": "anna"}
    answer = hub.http.post(f"/api/promises/{order_id}/window", json=said)
    assert answer.status_code == 200, answer.text


def test_a_hub_that_was_lost_goes_on_from_a_backup_with_its_agents(
    stack: Stack, broker_port: int, tmp_path: Path, fresh_store: Callable[[], str]
) -> None:
    lost = tmp_path / "lost"
    lost.mkdir()
    authority = f'[authority]\nfolder = "{lost / "authority"}"\n'
    hub = HubProcess(stack, broker_port, lost, vans=2, more=authority)
    with StandInAgent(hub, "van-1") as van:
        hub.plan_day(some_orders(12))
        mine = [stop.order_id for stop in van.wait_plan().stops]
        theirs = {f"A-{number:03d}" for number in range(12)} - set(mine)
        assert theirs
        van.wait_acked()
        # Of the second van nothing was heard yet: its plan waits for it. The hub works on during the backup.
        waywarden("backup", str(tmp_path / "archive"), "--settings", str(hub.settings))
        # What the lost hub heard and said afterwards is in no backup.
        move_window(hub, mine[0], 12)
        van.wait(lambda: len(van.of(WindowTold)) == 1, "the window of the lost hub came")
        for _ in range(3):
            van.say(AgentStarted("van", "1", 1))
        van.wait_acked()
        hub.kill()
        for file in lost.iterdir():
            if file.name.startswith("hub") and file.name != "hub.toml":
                file.unlink()
        found = fresh_store()
        hub.settings.write_text(hub.settings.read_text().replace(f"sqlite:///{lost / 'hub.db'}", found))
        waywarden("restore", str(tmp_path / "archive"), "--settings", str(hub.settings))
        hub.start_again()

        van.say(AgentStarted("van", "1", 1))
        van.wait_acked()
        gaps: Any = hub.get("/api/decisions", kind="gap_found")
        assert [(row["about"], row["sentence"].split(" ")[0]) for row in gaps] == [(["van-1"], "3")]
        move_window(hub, mine[1], 13)
        van.wait(lambda: len(van.of(WindowTold)) == 2, "a window of the restored hub comes")
        assert van.epochs[-1] > EPOCH_FROM_S // 100
        with StandInAgent(hub, "van-2", "boot-2") as other:
            assert {stop.order_id for stop in other.wait_plan().stops} == theirs
            assert len(other.of(PlanPushed)) == 1
        assert "holds" in waywarden("verify", "--store", found)
