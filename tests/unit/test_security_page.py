"""The page on security claims nothing that no test holds."""

import re
from pathlib import Path

from cloud_hub import door, reports, telemetry
from cloud_hub.storage import telemetry_tables
from shared import streams, wire

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text()


def test_every_test_the_page_names_is_there() -> None:
    there = {
        name for file in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 50
    assert named - there == set()


def test_the_bounds_the_page_tells_are_the_bounds_there_are() -> None:
    told = [
        f"{door.BURST:,} at once, then {door.PER_S:,} a second", f"{door.LONGEST_WORDS:,} signs",
        f"{door.MOST_THINGS:,} things", f"{door.LONGEST_NAME} printed signs", f"{streams.MOST_LIVES} after the first",
        f"visits of one stop | {reports.MOST_VISITS}",
        f"{wire.MOST_SAMPLES:,} samples, {telemetry.MOST_CHANNELS} channels",
        f"{telemetry.FARTHEST_MS // 86_400_000} days from now",
        f"{telemetry_tables.LAYOUTS_OF_ONE} of all {telemetry_tables.MOST_LAYOUTS}",
    ]  # fmt: skip
    assert [words for words in told if words not in PAGE] == []
