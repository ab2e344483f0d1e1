"""The short part of the simulation: some universes, every planted fault once, and the same trace for the same seed.

The long part is `make simulation` (2,000 seeds, every fault in up to 200); docs/proof.md says what both prove.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import shared.logs
from tests.simulation import planted
from tests.simulation.promises import ALL
from tests.simulation.universe import Stage

ROOT = Path(__file__).parents[2]
PROOF = ROOT / "docs" / "proof.md"
SEEDS = range(1, 7)

CATCHING = {
    "a commit in two halves": 3,
    "the fence is not checked": 4,
    "a repeat is not acknowledged again": 4,
    "thinned samples are not declared": 7,
    "an event is thinned when room is short": 7,
    "the epoch of a command is not looked at": 14,
    "a command of an epoch that is over keeps its number": 14,
    "the start-by time is ignored": 10,
    "a window told is forgotten by a restart": 5,
    "the van is not told the window its customer is told": 11,
    "the will of a life that is over is believed": 11,
    "a re-sequence moves the stop that is under way": 4,
    "what waits keeps the date of a clock that was wrong": 3,
    "visits keep the date of a clock that was wrong": 3,
    "a notice is called delivered when it failed": 8,
    "a breach is told and not called one": 7,
    "a plan's answer is taken though nobody asks any more": 5,
    "a need that is over wakes the hub for ever": 4,
}
"""Where a fault was caught first, so that it need not be looked for; a seed is another day once the code is another."""
AFTER = range(1, 120)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(shared.logs, "log", lambda *_, **__: None)
    monkeypatch.setattr(shared.logs, "print", lambda *_, **__: None, raising=False)
    made = Stage()
    yield made
    made.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds_on_this_day(seed: int, stage: Stage) -> None:
    stage.universe(seed).run()


@pytest.mark.parametrize("fault", planted.FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: planted.Fault, stage: Stage) -> None:
    known = CATCHING.get(fault.name, 1)
    caught = planted.hunt(stage, fault, [known, *(seed for seed in AFTER if seed != known)], 1)
    assert caught.caught, f"no promise saw '{fault.name}' in {caught.seeds} seeds"


def test_a_seed_is_the_same_day_under_any_hash_seed() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "12"]
    traces = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()[0]
        for seed in ("0", "4117")
    }
    assert len(traces) == 1
    assert traces.pop().startswith("trace ")


def test_the_page_of_proof_names_every_promise_and_every_fault() -> None:
    page = " ".join(PROOF.read_text().split())
    missing = [promise.__name__ for promise in ALL if " ".join((promise.__doc__ or "").split()) not in page]
    assert missing + [fault.name for fault in planted.FAULTS if fault.name not in page] == []
