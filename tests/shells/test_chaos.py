"""Parts killed with SIGKILL lose nothing and repeat nothing; an outbox that believes the broker does lose."""

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.audit import Column, columns, records_of, waits_for_the_hub
from tests.chaos.stage import Stage
from tests.needs import needs

TALKERS = 2


@contextmanager
def staged(folder: Path, store: str, broker: str, trims_on_puback: bool = False) -> Iterator[Stage]:
    """Everything running, for a seed's worth of trouble."""
    folder.chmod(0o711)
    stage = Stage(folder, store, broker, TALKERS, 30.0, trims_on_puback)
    try:
        stage.open()
        stage.tend(0.5)
        yield stage
    finally:
        stage.close()


def audited(stage: Stage) -> dict[str, Column]:
    """What was said against what is stored, once nobody says anything new and all that waited had its time."""
    stores = [stage.folder / f"{name}.db" for name in stage.talkers]
    stage.silence()
    stage.wait_until(lambda: not any(map(waits_for_the_hub, stores)), "empty outboxes")
    stage.stack.stop()
    records = records_of(stage.database.url, stage.talkers)
    return {column.what: column for column in columns(stage.database.url, stores, stage.talkers, records)}


def strike_all(stage: Stage, wounds: Sequence[Sequence[str]]) -> None:
    draw = random.Random(7)
    for number, parts in enumerate(wounds):
        stage.ask_window(number, number)
        stage.strike(parts, 0.4, draw)
        stage.tend(0.4)


def assert_clean(found: dict[str, Column]) -> None:
    assert min(column.said for column in found.values()) > 0
    assert [(column.what, column.lost, column.twice) for column in found.values()] == [
        ("events", 0, 0), ("samples", 0, 0), ("commands", 0, 0)
    ]  # fmt: skip


def test_nothing_is_lost_or_twice_when_hub_broker_and_agents_are_killed(tmp_path: Path) -> None:
    with staged(tmp_path, "embedded", "embedded") as stage:
        strike_all(stage, [("hub", "broker"), ("talker-1", "hub"), ("cut hub",), ("broker",), ("talker-1", "talker-2")])
        assert_clean(audited(stage))


def test_nothing_is_lost_or_twice_when_the_database_is_killed_too(tmp_path: Path) -> None:
    needs(shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin"), "mosquitto: apt install mosquitto")
    with staged(tmp_path, "postgres", "mosquitto") as stage:
        strike_all(stage, [("database",), ("database", "hub", "broker", "talker-1")])
        assert_clean(audited(stage))


def test_an_outbox_that_believes_the_broker_loses_what_the_broker_had(tmp_path: Path) -> None:
    with staged(tmp_path, "embedded", "embedded", trims_on_puback=True) as stage:
        strike_all(stage, [("hub", "broker"), ("cut hub",)])
        stores = [stage.folder / f"{name}.db" for name in stage.talkers]
        stage.silence()
        stage.tend(2.0)
        stage.stack.stop()
        records = records_of(stage.database.url, stage.talkers)
        found = columns(stage.database.url, stores, stage.talkers, records)
        gone = [waits_for_the_hub(store) for store in stores]
    assert found[0].lost > sum(gone), "it should have lost what it trimmed too early"
