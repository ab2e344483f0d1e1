"""What is shipped to run the parts for good: systemd units and a compose file, read as their readers read them."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # Its types are another package.

from cloud_hub.__main__ import app as hub_app
from cloud_hub.settings import read_hub_settings
from deploy.__main__ import app as front_door

DEPLOY = Path(__file__).parents[2] / "deploy"
ALL = sorted((DEPLOY / "systemd").glob("*.service"))
UNITS = [unit for unit in ALL if "Type=oneshot" not in unit.read_text()]
JOBS = [unit for unit in ALL if unit not in UNITS]
ALLOWED_EXPOSURE = 30
"""Of 100, in tenths as `systemd-analyze security` counts; an agent that may read serial lines has 28."""


def lines(unit: Path) -> list[tuple[str, str]]:
    found = (line.partition("=") for line in unit.read_text().splitlines() if "=" in line and line[0] not in "#;[")
    return [(name, words) for name, _, words in found]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_there_is_and_always_again(unit: Path) -> None:
    settings = dict(lines(unit))
    assert settings["Restart"] == "always"
    assert settings["RestartPreventExitStatus"] == "2"  # A refusal needs a person.
    program, command, *_ = settings["ExecStart"].removeprefix("/opt/waywarden/bin/").split()
    if program == "cloud-hub":
        assert command in {known.name or known.callback.__name__ for known in hub_app.registered_commands}  # type: ignore[union-attr]
    else:
        helped = subprocess.run(
            [sys.executable, "-m", "edge_agent", command, "--help"], capture_output=True, check=False
        )
        assert (helped.returncode, b"--settings" in helped.stdout) == (0, True)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_gives_away_nothing_it_does_not_need(unit: Path) -> None:
    settings = dict(lines(unit))
    assert settings["CapabilityBoundingSet"] == ""
    assert settings["ProtectSystem"] == "strict"
    assert settings["NoNewPrivileges"] == "yes"
    assert settings["User"] == "waywarden"


@pytest.mark.parametrize("unit", JOBS, ids=lambda unit: unit.stem)
def test_a_job_does_a_command_there_is_once_a_day(unit: Path) -> None:
    command = dict(lines(unit))["ExecStart"].partition("/opt/waywarden/bin/waywarden ")[2].split()[0]
    assert command in {known.name or known.callback.__name__ for known in front_door.registered_commands}  # type: ignore[union-attr]
    timer = dict(lines(unit.with_suffix(".timer")))
    assert timer["OnCalendar"].startswith("*-*-* ")
    assert timer["WantedBy"] == "timers.target"


def test_the_broker_is_started_from_the_folder_that_is_written_for_it() -> None:
    dropped = dict(lines(DEPLOY / "systemd" / "mosquitto.service.d" / "waywarden.conf"))
    assert dropped["ExecStart"] == "/usr/sbin/mosquitto -c /etc/waywarden/broker/mosquitto.conf"
    assert int(dropped["LimitNOFILE"]) > 10_100


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_itself_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here: the tests above have read the unit")
    copy = tmp_path / unit.name.replace("@.", "@1.")
    text = unit.read_text().replace("/opt/waywarden/bin/", f"{Path(sys.executable).parent}/")
    copy.write_text(text.replace("=waywarden\n", "=daemon\n").replace("=dialout", "=daemon"))
    verified = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", f"--threshold={ALLOWED_EXPOSURE}", copy],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout[-500:]


def composed() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    return read


def test_the_compose_file_names_nothing_it_does_not_declare() -> None:
    compose = composed()
    services = compose["services"]
    assert set(services) == {"database", "broker", "hub", "standby", "ingest"}
    for service in services.values():
        assert service["restart"] == "always"
        named = [volume.partition(":")[0] for volume in service.get("volumes", ())]
        assert {name for name in named if not name.startswith(".")} <= set(compose["volumes"])
        assert all((DEPLOY / "compose" / name).exists() for name in named if name.startswith("."))
        assert set(service.get("depends_on", ())) <= set(services)
    for name in ("hub", "standby", "ingest"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]


def test_the_compose_file_starts_commands_there_are_on_settings_that_hold() -> None:
    settings = read_hub_settings(DEPLOY / "compose" / "hub.toml")
    services = composed()["services"]
    assert settings.store.startswith("postgresql://waywarden@database/")
    assert settings.broker == "mqtts://broker:8884"
    assert services["ingest"]["command"] == ["cloud-hub", "ingest", "--settings", "/etc/waywarden/hub.toml"]
    dockerfile = (DEPLOY / "compose" / "Dockerfile").read_text()
    assert 'CMD ["cloud-hub", "run", "--settings", "/etc/waywarden/hub.toml"]' in dockerfile
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == ["8883:8883", "8080:8080"]
