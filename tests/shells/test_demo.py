"""The front door as a new user meets it: the demo proves itself, and says clearly what it cannot do."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def waywarden(*words: str, patience_s: float = 60) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "deploy", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=patience_s,
        check=False,
    )


def test_the_demo_proves_the_main_job(tmp_path: Path) -> None:
    done = waywarden("demo", "--check", "--folder", str(tmp_path / "day"), patience_s=240)
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, report
    assert report["resequenced"]["sentence"]
    assert report["window_moved"]["order"]
    assert report["cut_off"]["van"] == "van-2"
    assert report["turned_down"]["former_order_back"]
    assert report["not_home"]["told_now"][0] > report["not_home"]["told_before"][0]
    assert report["notice"]["window"]
    assert report["figures"]["ours"]["visits"] > 0
    assert report["figures"]["twin"]["visits"] > 0
    assert min(report["figures"]["due"].values()) >= 3
    assert any("twin" in line for line in report["figures"]["headline"])
    assert len(set(report["processes"].values())) == 13


def test_a_demo_of_no_map_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "town.osm.pbf").write_bytes(b"not a map")
    done = waywarden("demo", "--check", "--pbf", str(tmp_path / "town.osm.pbf"), "--folder", str(tmp_path / "day"))
    assert done.returncode == 1
    assert "town.osm.pbf" in json.loads(done.stdout.splitlines()[-1])["failed"]


def test_a_demo_does_not_empty_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = waywarden("demo", "--check", "--folder", str(tmp_path))
    assert done.returncode == 1
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_doctor_finds_this_machine_well(tmp_path: Path) -> None:
    done = waywarden("doctor")
    assert done.returncode == 0, done.stdout


def test_doctor_says_how_to_mend_a_missing_broker() -> None:
    done = waywarden("doctor", "--broker-port", "1")
    assert done.returncode == 1
    assert "waywarden broker --port 1" in done.stdout


def test_the_embedded_broker_refuses_the_open_network() -> None:
    done = waywarden("broker", "--host", "0.0.0.0", "--port", "18999")
    assert done.returncode == 2
    assert "Mosquitto" in done.stdout
