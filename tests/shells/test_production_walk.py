"""docs/production.md is true: its commands are run in their order, against real parts, as far as one machine allows.

What a test cannot do is in `CHECKED`: installing packages, becoming another user, talking to systemd, Docker or another
machine. Those commands are held to what they name. Every command of the page is one or the other.
"""

import itertools
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import yaml  # type: ignore[import-untyped]  # Its types are another package.
from psycopg import sql

from cloud_hub.__main__ import app as hub_app
from deploy.__main__ import app as front_door
from deploy.mosquitto import program
from deploy.stack import Stack, free_ports
from firmware_sim.devices import VanTruth
from firmware_sim.devices.gnss import GnssFaults, GnssReceiver
from shared.clock import SETTING, Clock
from shared.quantities import EpochMs, Position
from tests.needs import needs
from tests.postgres import PostgresServer, programs
from tests.shells.hub_parts import EIGHT_MS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "production.md"
BIN = Path(sys.executable).parent
PATIENCE_S = 40.0
DEPOT = Position(60.18, 24.945)
FOLDERS = ("/etc/", "/usr/lib/sysusers.d", "/usr/local/share", "/usr/local/bin/", "/var/lib/waywarden", "/var/backups")


class Command(NamedTuple):
    """A command of the page, the step it stands in, and the machine it is typed on."""

    step: str
    machine: str
    text: str


def commands(page: str) -> list[Command]:
    """Every command of the page's blocks for the shell, in order; one with a here-document is one."""
    found: list[Command] = []
    step, machine, lines, end = "", "hub", list[str](), ""
    is_shell = False
    for line in page.splitlines():
        if line.startswith("```"):
            is_shell = line == "```sh"
        elif not is_shell and line.startswith("## "):
            step, machine = line.removeprefix("## "), "hub"
        elif not is_shell and line.startswith("### "):
            machine = {"On the van": "van", "On the second machine": "second"}.get(line.removeprefix("### "), "hub")
        elif is_shell:
            lines.append(line)
            here = re.search(r"<<'(\w+)'", line)
            end = here[1] if here else "" if line == end else end
            if not end:
                found.append(Command(step, machine, "\n".join(lines)))
                lines = []
    return found


WALKED = [one for one in commands(PAGE.read_text()) if one.step != "With Docker Compose"]
COMPOSED = [one for one in commands(PAGE.read_text()) if one.step == "With Docker Compose"]


class Walk:
    """An operator who types what the page says, on machines that are folders."""

    def __init__(self, folder: Path, stack: Stack, postgres: PostgresServer, clock: Clock, gnss: str) -> None:
        self.folder, self.stack, self.postgres = folder, stack, postgres
        self.role, self.token = f"walk_{secrets.token_hex(4)}", ""
        self.http, self.second_http, self.agents, self.hub, self.page = map(str, free_ports(5))
        self.gnss = gnss
        self.environments: dict[str, dict[str, str]] = {}
        for machine in ("hub", "van", "second"):
            root = self.root(machine)
            for place in ("etc/apt/sources.list.d", "usr/lib/sysusers.d", "usr/local/share/ca-certificates",
                          "usr/local/bin", "var/lib", "var/backups", "etc/systemd/system"):  # fmt: skip
                (root / place).mkdir(parents=True)
            self.environments[machine] = {
                **os.environ, SETTING: clock.setting(), "PATH": f"{folder}/bin:{BIN}:{programs()}:{os.environ['PATH']}",
                "PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "waywarden", "COLUMNS": "250",
            }  # fmt: skip
        (folder / "bin").mkdir()
        journal = folder / "bin" / "journalctl"
        journal.write_text(f'#!/bin/sh\ncat "{stack.folder}/hub.$2.log"\n')
        journal.chmod(0o755)

    def root(self, machine: str) -> Path:
        """The folder that stands for a machine's /."""
        return self.folder / machine

    def install_second(self) -> None:
        """Step 1 on the second machine has left there what it has left here."""
        for place in ("etc/systemd", "etc/waywarden", "var/lib/waywarden"):
            here, there = self.root("hub") / place, self.root("second") / place
            there.mkdir(parents=True, exist_ok=True)
            if place == "etc/systemd":
                shutil.copytree(here, there, dirs_exist_ok=True)

    def put(self, text: str, machine: str) -> str:
        """A text of the page, or of a file it installs, as it is for this machine."""
        left, mark, right = text.partition("| ssh standby.example.org sudo ")
        if mark:
            self.install_second()
            return f"{self.put(left, machine)}| {self.put(right, 'second')}"
        for found, put in (
            ("sudo -u waywarden ", ""), ("sudo -u postgres ", ""), ("sudo ", ""), ("-o waywarden -g waywarden ", ""),
            ("/opt/waywarden/bin/", f"{BIN}/"), ("/usr/sbin/mosquitto", str(program())),
            ("postgresql:///waywarden", f"postgresql://{self.role}@127.0.0.1:{self.postgres.port}/{self.role}"),
            ("postgresql://waywarden@hub.example.org/waywarden",
             f"postgresql://{self.role}@127.0.0.1:{self.postgres.port}/{self.role}"),
            ("hub.example.org:8080", f"localhost:{self.http}"), ("http_port = 8080", f"http_port = {self.http}"),
            ("hub.example.org", "localhost"), ("broker.example.org", "localhost"),
            ("8883", self.agents), ("8884", self.hub), ("page_port = 8001", f"page_port = {self.page}"),
            ("serial:///dev/ttyUSB0?baud=9600", self.gnss),
        ):  # fmt: skip
            text = text.replace(found, put)
        for place in FOLDERS:
            text = re.sub(rf"(?<![\w/.]){re.escape(place)}", f"{self.root(machine)}{place}", text)
        if "waywarden mosquitto " in text:
            text += f" --agents-port {self.agents} --hub-port {self.hub}"
        if re.match(r"createuser|createdb|psql", text):
            text = re.sub(r"\bwaywarden(_restored)?\b", rf"{self.role}\1", text)
        return text

    def type(self, command: Command) -> str:
        """Run one command, and what it printed; it must succeed."""
        text = self.put(command.text, command.machine)
        kept = self.folder / "environment"
        environment = self.environments[command.machine]
        said = f"{self.token}\n" if "token" in command.text else "\n"
        done = subprocess.run(
            # Read from the terminal or not, and kept for the next command, as in the operator's own shell.
            ["bash", "-o", "pipefail", "-c", f"set -a\n{text}\nstatus=$?; env -0 > {kept}; exit $status"],
            cwd=ROOT, input=said, capture_output=True, text=True, timeout=60, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}{self.stack.fallen()}"
        pairs = (one.partition("=") for one in kept.read_text().split("\0") if one)
        self.environments[command.machine] = {name: value for name, _, value in pairs}
        return done.stdout + done.stderr

    # systemd.

    def systemctl(self, command: Command) -> None:
        """Do with the installed unit files what systemd would."""
        words = [word for word in shlex.split(command.text) if word not in ("sudo", "systemctl", "--now")]
        verb, *units = words
        for unit in units:
            if unit == "postgresql" or (verb == "enable" and "--now" not in command.text):
                continue  # The tests' own server; and a unit that is to start with the machine.
            if unit.endswith(".timer"):
                assert (self.root(command.machine) / "etc/systemd/system" / unit).exists()
                continue
            name = f"{command.machine}.{unit}"
            if verb in ("stop", "restart") and name in self.stack.ids:
                os.kill(self.stack.ids[name], signal.SIGTERM)
                self.stack._processes[name].wait(20)
            if verb in ("start", "restart", "enable"):
                self.start(name, unit, command.machine)

    def start(self, name: str, unit: str, machine: str) -> None:
        """Start a unit by the file that was installed for it."""
        file = self.root(machine) / "etc/systemd/system" / f"{re.sub('@.*', '@', unit)}.service"
        if unit == "mosquitto":
            file = file.with_name("mosquitto.service.d") / "waywarden.conf"
        lines = [line.partition("=") for line in file.read_text().splitlines()]
        settings = {key: value for key, _, value in lines if value}
        if settings.get("Type") == "oneshot":
            for key in ("ExecStart", "ExecStartPost"):
                self.type(Command("", machine, settings[key].replace("%%", "%")))
            return
        self.stack.start_program(name, *shlex.split(self.put(settings["ExecStart"], machine)))
        port = {"mosquitto": self.hub, "waywarden-agent": self.page}.get(unit)
        if port:
            self.stack.wait_for_port(name, int(port))


# What is held to what it names instead of being run: a pattern, and what must be true.

Check = Callable[[Walk, "re.Match[str]", Command], None]


def packages(_: Walk, match: "re.Match[str]", __: Command) -> None:
    """Each package is one that CI or the image installs too, or belongs to every Debian."""
    known = (ROOT / ".ci" / "run").read_text() + (ROOT / "deploy" / "compose" / "Dockerfile").read_text()
    everywhere = {"gnupg", "curl", "ca-certificates", "timescaledb-tools"}
    for package in shlex.split(match[1]):
        assert package in everywhere or package in known or package.startswith("timescaledb-2-postgresql-"), package


def extra(_: Walk, match: "re.Match[str]", __: Command) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(match[1].split(",")) <= set(declared)


def scripts(_: Walk, match: "re.Match[str]", __: Command) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {Path(one).name for one in match[1].split()} <= set(declared)


def has_user(walk: Walk, _: "re.Match[str]", command: Command) -> None:
    written = (walk.root(command.machine) / "usr/lib/sysusers.d/waywarden.conf").read_text()
    assert "\nu waywarden - " in written


def believed(walk: Walk, _: "re.Match[str]", command: Command) -> None:
    """From here on this machine believes the authority that was just put there."""
    put = walk.root(command.machine) / "usr/local/share/ca-certificates/waywarden.crt"
    assert "BEGIN CERTIFICATE" in put.read_text()
    for machine in walk.environments.values():
        machine.update(SSL_CERT_FILE=str(put), CURL_CA_BUNDLE=str(put))


def is_setting(walk: Walk, match: "re.Match[str]", _: Command) -> None:
    with psycopg.connect(walk.postgres.url) as connection:
        assert connection.execute("SELECT 1 FROM pg_settings WHERE name = %s", (match[1],)).fetchone() == (1,)


def extension(walk: Walk, match: "re.Match[str]", command: Command) -> None:
    """Run where the server has TimescaleDB."""
    with psycopg.connect(walk.postgres.url) as connection:
        found = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = %s", (match[1],)).fetchone()
    if found:
        walk.type(command)


def systemctl(walk: Walk, _: "re.Match[str]", command: Command) -> None:
    walk.systemctl(command)
    if command.machine == "second":
        log = walk.stack.folder / "second.waywarden-hub.log"
        eventually(lambda: "hub_stands_by" in log.read_text(), "the second hub stands by")
        walk.stack.kill("second.waywarden-hub")


def nothing(_: Walk, __: "re.Match[str]", ___: Command) -> None:
    """Another user's, another machine's or a network's business."""


CHECKED: list[tuple[str, Check]] = [
    (r"sudo apt-get update", nothing),
    (r"sudo apt-get install -y (.+)", packages),
    (r"sudo python3 -m venv /opt/waywarden", nothing),
    (r'sudo /opt/waywarden/bin/pip install (?:--upgrade )?"\.\[([\w,]+)\]"', extra),
    (r"sudo ln -sf (.+) /usr/local/bin/", scripts),
    (r"sudo systemd-sysusers", has_user),
    (r"sudo systemctl .+", systemctl),
    (r"sudo timescaledb-tune --quiet --yes", nothing),
    (r"sudo update-ca-certificates", believed),
    (r'sudo -u postgres psql -d \w+ -c "CREATE EXTENSION IF NOT EXISTS (\w+)"', extension),
    (r'sudo -u postgres psql -d waywarden -c "ALTER SYSTEM SET (\w+) = .+"', is_setting),
    (
        r'echo "hostssl waywarden_restored waywarden samenet scram-sha-256" \| sudo tee -a .*SHOW (hba_file).+',
        is_setting,
    ),
    (r'sudo -u postgres psql -c "\\password waywarden"', nothing),
    (r"sudo chown -R waywarden: /var/lib/waywarden", nothing),
    (r"git pull --ff-only", nothing),
]

SEEN: list[tuple[str, str]] = [
    (r"^waywarden doctor$", "well"),
    (r"waywarden mosquitto ", "knows it all already"),
    (r"waywarden certify ", "knows it already"),
    (r"/readyz$", '"status":"ready"'),
    (r"^waywarden keys list$", "Anna, operations"),
    (r"waywarden enrol ", "ww1"),
    (r"edge-agent enrol ", "enrolled: van-1 in main"),
    (r"edge-agent check ", "ready: van-1 in main"),
    (r"/api/fleet$", '"is_there":true'),
    (r"/api/telemetry/van-1", '"at_ms":[1'),
    (r"waywarden agents ", "van-1"),
    (r"doctor --settings ", "ready"),
    (r"doctor --agent-settings ", "outbox"),
    (r"/metrics$", "waywarden_hub_acting"),
    (r"waywarden backup ", "written"),
    (r"--check$", "whole"),
    (r"waywarden restore \S+ --settings", "restored"),
    (r"waywarden verify", "holds"),
    (r"waywarden revoke ", "gone: van-1 has no session and did not come back"),
    (r"waywarden renew ", "nothing is near its end"),
]
"""What one sees, as the page says; the last two words of it may take the agent some seconds."""


def eventually(claim: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, f"in vain for {PATIENCE_S} s: {what}"
        time.sleep(0.2)


@pytest.fixture
def walk(postgres: PostgresServer) -> Iterator[Walk]:
    needs(program(), "mosquitto: apt install mosquitto")
    needs(shutil.which("curl"), "curl: apt install curl")
    needs((programs() / "createdb").exists(), "PostgreSQL's own commands: apt install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="waywarden-walk-"))
    folder.chmod(0o755)
    clock = Clock.starting(EIGHT_MS, 300.0)  # A batch of readings every three seconds.
    gnss = GnssReceiver(lambda: VanTruth(EpochMs(clock.now_ms()), DEPOT, 0.0), 10.0, 1, GnssFaults())
    gnss.start()
    try:
        with Stack(folder / "logs", {SETTING: clock.setting()}) as stack:
            made = Walk(folder, stack, postgres, clock, gnss.url)
            yield made
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            for name in (made.role, f"{made.role}_restored"):
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                )  # fmt: skip
    finally:
        gnss.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_an_operator_gets_from_nothing_to_production_by_the_page_alone(walk: Walk) -> None:
    done = []
    for command in WALKED:
        checks = [(re.fullmatch(pattern, command.text), check) for pattern, check in CHECKED]
        matched = [(match, check) for match, check in checks if match is not None]
        assert len(matched) <= 1, command.text
        for match, check in matched:
            check(walk, match, command)
        if not matched:
            typed(walk, command)
        done.append(command)
        if command.machine == "second" and "sed -i 's|^broker" in command.text:
            # The second machine is a folder of the first: another port, and its own paths.
            file = walk.root("second") / "etc/waywarden/hub.toml"
            text = file.read_text().replace(str(walk.root("hub")), str(walk.root("second")))
            file.write_text(text.replace(f"http_port = {walk.http}", f"http_port = {walk.second_http}"))
    assert done == WALKED
    assert [line for line in walk.stack.fallen() if "second" not in line and "-15" not in line] == []


def typed(walk: Walk, command: Command) -> None:
    """Run it, and see what the page says is seen."""
    wanted = [words for pattern, words in SEEN if re.search(pattern, command.text)]
    output = walk.type(command)
    deadline = time.monotonic() + PATIENCE_S
    while not all(words in output for words in wanted):
        assert time.monotonic() < deadline, f"{command.text}\n{output}\nexpected {wanted}"
        time.sleep(0.3)
        output = walk.type(command)
    if "waywarden enrol " in command.text:
        walk.token = next(line for line in output.splitlines() if line.startswith("ww1"))


def test_nothing_is_checked_or_expected_that_the_page_does_not_say() -> None:
    texts = [command.text for command in WALKED]
    assert [pattern for pattern, _ in CHECKED if not any(re.fullmatch(pattern, text) for text in texts)] == []
    assert [pattern for pattern, _ in SEEN if not any(re.search(pattern, text) for text in texts)] == []
    assert len(texts) > 60


# Compose.


def words_of(app: Any) -> set[str]:
    return {known.name or known.callback.__name__ for known in app.registered_commands} | {
        group.name for group in app.registered_groups
    }


def test_the_compose_way_names_services_profiles_and_commands_there_are() -> None:
    file = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text())
    profiles = {one for service in file["services"].values() for one in service.get("profiles", ())}
    docker = [shlex.split(part) for one in COMPOSED for part in re.findall(r"docker compose [^|)]+", one.text)]
    plain = [one.text for one in COMPOSED if "docker compose" not in one.text]
    assert [text.split()[0] for text in plain] == ["echo", "sed"]
    for words in docker:
        for flag, value in itertools.pairwise(words):
            assert flag != "--profile" or value in profiles, words
            assert flag != "--scale" or value.partition("=")[0] in file["services"], words
        if {"run", "exec", "build", "logs", "stop", "cp"} & set(words):
            assert any(word.partition(":")[0] in file["services"] for word in words), words
        for named, app in (("waywarden", front_door), ("cloud-hub", hub_app)):
            if named in words and "createdb" not in words:
                assert words[words.index(named) + 1] in words_of(app), words
    assert len(docker) > 15
