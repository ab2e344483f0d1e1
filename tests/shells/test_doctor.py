"""The doctor says what is wrong with a hub or an agent, and the line that mends it, whatever state they are in."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_hub.authority import Authority
from cloud_hub.settings import DepotSetting, HttpTlsSetting, HubSettings, TlsSetting
from cloud_hub.storage import open_stores
from cloud_hub.storage.telemetry_tables import Features
from deploy.doctor import Finding, Look, agent, certificates, examined, exit_status, hub, machine
from deploy.doctor.broker import broker
from deploy.doctor.store import job_failures, store
from deploy.stack import Stack, free_ports
from tests.postgres import PostgresServer
from tests.shells.production_broker import ProductionBroker, production_broker

LEAST = '[[depots]]\nid = "north"\nname = "North"\nposition = [60.18, 24.945]\n'
DEPOT = DepotSetting("north", "North", (60.18, 24.945))


@pytest.fixture(scope="module")
def production() -> Iterator[ProductionBroker]:
    with production_broker() as running:
        yield running


def of(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def doctor(*words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit status and the findings of the command itself."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy", "doctor", "--json", *words], capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["status"] == done.returncode
    return done.returncode, {finding["what"]: finding for finding in said["findings"]}


# Looking.


def test_what_hangs_or_breaks_is_a_finding_and_the_rest_is_told() -> None:
    stuck = threading.Event()

    def hang() -> Iterator[Finding]:
        yield Finding("first half", True, "seen")
        stuck.wait()

    def break_down() -> Iterator[Finding]:
        raise RuntimeError("no such thing")
        yield

    found = of(examined([Look("disk", hang), Look("name", break_down)], limit_s=0.2))
    stuck.set()
    assert {what: one.severity for what, one in found.items()} == {
        "first half": "well", "disk": "not seen", "name": "not seen",
    }  # fmt: skip
    assert "no answer within" in found["disk"].found


def test_the_status_tells_wrong_from_unseen() -> None:
    well, odd = Finding("a", True, ""), Finding("b", False, "", "", "worth a look")
    unseen, wrong = Finding("c", False, "", "", "not seen"), Finding("d", False, "")
    assert exit_status([well, odd]) == 0
    assert exit_status([well, odd, unseen]) == 2
    assert exit_status([unseen, wrong]) == 1


def test_a_disk_that_fills_is_first_worth_a_look_and_then_wrong(tmp_path: Path) -> None:
    assert machine.disk("disk", tmp_path, 0, 0).severity == "well"
    assert machine.disk("disk", tmp_path, 0, 1 << 40).severity == "worth a look"
    full = machine.disk("disk", tmp_path / "not" / "made" / "yet", 1 << 40, 1 << 40)
    assert (full.severity, full.mend) == ("wrong", f"free {1 << 40} MB in {tmp_path}")


def test_a_clock_before_this_release_is_wrong_and_one_nobody_set_worth_a_look() -> None:
    assert machine.clock(86_400.0 * 365, True).severity == "wrong"
    assert machine.clock(4e9, False).severity == "worth a look"
    assert machine.clock(4e9, True).severity == "well"


# Settings.


def test_settings_that_cannot_be_used_say_which_and_why(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(LEAST + 'color = "blue"\n')
    status, found = doctor("--settings", str(file))
    assert status == 2
    assert "color" in found["settings"]["found"]
    status, found = doctor("--agent-settings", str(tmp_path))
    assert status == 2
    assert found["settings"]["severity"] == "not seen"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_content_of_a_settings_file_breaks_the_doctor(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "any.toml"
    file.write_bytes(content)
    for looks in (hub.looks(file), agent.looks(file)):
        (last,) = looks[-1].see()
        assert last.severity == "not seen"


def test_an_open_door_is_wrong_in_production_and_worth_a_look_at_home(tmp_path: Path) -> None:
    home = tmp_path / "home.toml"
    home.write_text("[access]\nopen_on_loopback = true\n" + LEAST)
    production = tmp_path / "production.toml"
    production.write_text('store = "postgresql://nobody@127.0.0.1:1/none"\n' + home.read_text())
    severities = [of(_look(hub.looks(file), "settings"))["access"].severity for file in (home, production)]
    assert severities == ["worth a look", "wrong"]


def _look(looks: list[Look], what: str) -> Iterable[Finding]:
    return next(look for look in looks if look.what == what).see()


# The store.


def test_a_postgres_that_serves_a_hub_is_well_and_nothing_is_made_by_looking(
    postgres: PostgresServer, fresh_database: Callable[[], str]
) -> None:
    url = fresh_database()
    empty = of(store(url))
    assert empty["tables of hub"].found == "none yet"
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    url = postgres.fresh_store()
    found = of(store(url))
    assert [one for one in found.values() if one.severity not in ("well", "worth a look")] == []
    assert found["tables of hub"].severity == "well"
    assert found["commits are on disk"].severity == "well"
    assert found["clocks agree"].severity == "well"
    assert found["who acts"].found == "no hub has ever acted"
    assert "no TimescaleDB" in found["TimescaleDB"].found
    hub_store, telemetry = open_stores(url)
    try:
        assert hub_store.act("main", "here/1")
        assert of(store(url))["who acts"].found == "here/1 for main"
    finally:
        hub_store.close()
        telemetry.close()
    assert "here/1 was the last" in of(store(url))["who acts"].found


def test_a_schema_of_a_newer_release_and_an_older_one_are_told_apart(postgres: PostgresServer) -> None:
    url = postgres.fresh_store()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO waywarden_migrations (house, name) VALUES ('hub', '9999_tomorrow')")
        connection.execute("DELETE FROM waywarden_migrations WHERE house = 'telemetry'")
        connection.execute("INSERT INTO waywarden_migrations (house, name) VALUES ('telemetry', '0001_readings')")
    found = of(store(url))
    assert (found["tables of hub"].severity, "9999_tomorrow" in found["tables of hub"].found) == ("wrong", True)
    assert found["tables of telemetry"].severity == "worth a look" or len(_steps()) == 1


def _steps() -> tuple[object, ...]:
    from cloud_hub.storage.telemetry_tables import SCHEMA

    return SCHEMA


def test_a_database_that_is_away_or_lets_nobody_in_is_wrong(postgres: PostgresServer) -> None:
    (port,) = free_ports(1)
    away = of(store(f"postgresql://ww:hidden@127.0.0.1:{port}/ww"))["store"]
    assert (away.severity, "out of reach" in away.found, "hidden" in away.found) == ("wrong", True, False)
    unknown = of(store(postgres.url.replace("/postgres", "/nowhere")))["store"]
    assert unknown.severity == "wrong"
    assert "CREATE DATABASE" in unknown.mend


def test_a_database_that_trades_safety_for_speed_is_wrong(postgres: PostgresServer) -> None:
    url = postgres.fresh_store()
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")  # type: ignore[arg-type]  # Our own.
    found = of(store(url))["commits are on disk"]
    assert found.severity == "wrong"
    assert "synchronous_commit" in found.found


def test_a_job_of_the_database_that_failed_is_wrong(fresh_database: Callable[[], str]) -> None:
    with psycopg.connect(fresh_database(), autocommit=True) as connection:
        for made in (
            "CREATE SCHEMA timescaledb_information",
            "CREATE TABLE timescaledb_information.jobs (job_id int, proc_name text, hypertable_name text)",
            "CREATE TABLE timescaledb_information.job_stats (job_id int, last_run_status text, total_failures int8)",
            "CREATE TABLE timescaledb_information.job_errors (job_id int, start_time timestamptz, err_message text)",
            "INSERT INTO timescaledb_information.jobs VALUES (1007, 'policy_compression', 'readings_1')",
            "INSERT INTO timescaledb_information.job_stats VALUES (1007, 'Failed', 3)",
        ):
            connection.execute(made)  # type: ignore[arg-type]  # Plain texts of this test.
        (failed,) = job_failures(connection, Features((2, 22, 0), True))
    assert failed.severity == "wrong"
    assert "job 1007" in failed.found
    assert failed.mend.startswith("CALL run_job(1007)")


def test_files_are_read_and_not_touched_and_a_broken_one_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    url = f"sqlite:///{file}"
    assert of(store(url))["store"].found.endswith("is not there yet")
    assert list(tmp_path.iterdir()) == []
    for opened in open_stores(url):
        opened.close()
    before = {one.name: one.stat().st_mtime_ns for one in tmp_path.iterdir()}
    found = of(store(url))
    assert {one.name: one.stat().st_mtime_ns for one in tmp_path.iterdir()} == before
    assert found["tables of hub"].severity == found["tables of telemetry"].severity == "well"
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('hub', '9', '')")
    assert of(store(url))["tables of hub"].severity == "wrong"
    file.write_bytes(os.urandom(20_000))
    broken = of(store(url))["store"]
    assert (broken.severity, "waywarden restore" in broken.mend) == ("wrong", True)


def test_who_acts_on_a_file_is_seen_without_its_lock(tmp_path: Path) -> None:
    opened, telemetry = open_stores(f"sqlite:///{tmp_path}/hub.db")
    assert opened.act("main", "here/4711")
    assert of(store(f"sqlite:///{tmp_path}/hub.db"))["who acts"].found == "main here/4711"
    opened.close()
    telemetry.close()


# The broker.


def test_a_broker_that_grants_what_we_need_is_well(production: ProductionBroker) -> None:
    found = of(broker(production.hub_url, production.hub(), asks_figures=True))
    assert {one.severity for one in found.values()} == {"well"}
    assert found["broker"].found.endswith("let in, MQTT 5")
    assert found["broker's version"].found.startswith("mosquitto")


def test_a_broker_that_is_away_or_speaks_something_else_is_wrong(production: ProductionBroker) -> None:
    (port,) = free_ports(1)
    away = of(broker(f"mqtt://127.0.0.1:{port}", None))["broker"]
    assert (away.severity, "systemctl restart mosquitto" in away.mend) == ("wrong", True)
    begun_s = time.monotonic()
    clear = of(broker(production.hub_url.replace("mqtts", "mqtt"), None))["broker"]
    assert clear.severity == "wrong"
    assert time.monotonic() - begun_s < 6


def test_a_broker_of_small_packets_is_wrong(tmp_path: Path) -> None:
    with production_broker({"small.conf": "max_packet_size 20000\n"}) as small:
        limits = of(broker(small.hub_url, small.hub()))["broker's limits"]
    assert limits.severity == "wrong"
    assert "packets of 20000 bytes" in limits.found


def test_a_broker_elsewhere_in_clear_is_wrong() -> None:
    assert of(broker("mqtt://broker.invalid:1883", None))["broker's wire"].severity == "wrong"


# All of it.


def test_a_hub_that_runs_is_well_and_one_without_its_database_is_not(tmp_path: Path, postgres: PostgresServer) -> None:
    mqtt, http = free_ports(2)
    file = tmp_path / "hub.toml"
    own = f'broker = "mqtt://127.0.0.1:{mqtt}"\nhttp_port = {http}\nkey_file = "{tmp_path}/hub.key"\n'
    file.write_text(f'{own}store = "{postgres.fresh_store()}"\n{LEAST}')
    (tmp_path / "backups").mkdir()
    with Stack(tmp_path / "logs", {}) as stack:
        stack.start("broker", "deploy", "broker", "--port", str(mqtt))
        stack.wait_for_port("broker", mqtt)
        stack.start("hub", "cloud_hub", "run", "--settings", str(file))
        deadline = time.monotonic() + 30
        while "hub_up" not in (tmp_path / "logs" / "hub.log").read_text():
            assert time.monotonic() < deadline, stack.fallen()
            time.sleep(0.05)
        status, found = doctor("--settings", str(file), "--backups", str(tmp_path / "backups"))
        assert (status, [one for one in found.values() if one["severity"] in ("wrong", "not seen")]) == (0, [])
        assert found["HTTP"]["found"].endswith("ready")
        assert found["who acts"]["severity"] == "well"
        assert found["backups"]["severity"] == "worth a look"
    file.write_text(f'{own}store = "postgresql://ww@127.0.0.1:{mqtt}/ww"\n{LEAST}')
    status, found = doctor("--settings", str(file))
    assert status == 1
    assert {what for what, one in found.items() if one["severity"] == "wrong"} == {"store", "broker"}
    assert all(one["mend"] for one in found.values() if one["severity"] != "well")


def test_nothing_that_takes_a_call_and_says_nothing_keeps_the_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        port = silent.getsockname()[1]
        file = tmp_path / "hub.toml"
        file.write_text(
            f'broker = "mqtt://127.0.0.1:{port}"\nstore = "postgresql://ww@127.0.0.1:{port}/ww"\nhttp_port = {port}\n'
            f'key_file = "{tmp_path}/hub.key"\n{LEAST}'
        )
        begun_s = time.monotonic()
        status, found = doctor("--settings", str(file))
        assert (status, time.monotonic() - begun_s < 15) == (1, True)
    assert {what for what, one in found.items() if one["severity"] == "wrong"} == {"store", "broker", "HTTP"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_looks_with_the_eyes_of_whom_the_hub_runs_as() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        file = folder / "hub.toml"
        file.write_text(f'key_file = "{folder}/hub.key"\nstore = "sqlite:///{folder}/closed/hub.db"\n{LEAST}')
        (folder / "hub.key").touch(0o600)
        os.chown(folder / "hub.key", 65_534, 65_534)
        (folder / "closed").mkdir(0o700)
        (folder / "closed" / "hub.db").touch()
        _, found = doctor("--settings", str(file))
    assert found["store"]["severity"] == "not seen"
    assert "sudo -u waywarden" in found["store"]["mend"]


def test_an_agent_s_devices_store_and_broker_are_looked_at(tmp_path: Path, production: ProductionBroker) -> None:
    tls = production.device("van-9")
    file = tmp_path / "van-9.toml"
    file.write_text(
        f'agent = "van-9"\nbroker = "{production.agents_url}"\nhub = "https://hub.example"\n'
        f'hub_public_key = "{"ab" * 32}"\n'
        f'store = "{tmp_path}/van-9.db"\ntls_ca = "{tls.ca}"\ntls_certificate = "{tls.certificate}"\n'
        f'tls_key = "{tls.key}"\ngnss = "serial:///dev/nowhere?baud=9600"\ncan = "can+socketcan://can77"\n'
        f"page_port = {free_ports(1)[0]}\n"
    )
    found = of(examined(agent.looks(file)))
    wrong = {what for what, one in found.items() if one.severity in ("wrong", "not seen")}
    assert wrong == {"GNSS receiver", "vehicle's bus"}
    assert found["broker"].found.endswith("let in, MQTT 5")
    assert found["agent's certificate"].found == "90 days left"
    assert found["store"].found.endswith("is not there yet")
    (tmp_path / "van-9.db").write_bytes(b"not a store" * 1000)
    assert of(examined(agent.looks(file)))["store"].severity == "wrong"


def test_certificates_that_have_ended_are_wrong_and_renewed_by_the_line_beside_them(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    past = Authority(tmp_path / "authority", now_s=lambda: time.time() - 500 * 86_400)
    (own, key), (served, served_key) = past.process(), past.server("http", ["hub.example"])
    read = HubSettings(
        depots=(DEPOT,), broker=f"mqtts://127.0.0.1:{port}", key_file=str(tmp_path / "hub.key"),
        tls=TlsSetting(str(tmp_path / "authority" / "ca.crt"), str(own), str(key)),
        http_tls=HttpTlsSetting(str(served), str(served_key)),
    )  # fmt: skip
    ended = of(certificates.of_hub(read, Path("hub.toml")))
    assert {ended[what].found for what in ("hub's certificate", "HTTPS certificate")} == {"ended 103 days ago"}
    assert ended["hub's certificate"].mend == "waywarden renew --settings hub.toml"
    Authority(tmp_path / "authority").renew_own()
    mended = of(certificates.of_hub(read, Path("hub.toml")))
    assert {mended[what].severity for what in ("hub's certificate", "HTTPS certificate")} == {"well"}


def test_a_relative_place_is_worth_a_look() -> None:
    read = msgspec.structs.replace(HubSettings(depots=(DEPOT,)), store="sqlite:///hub.db")
    found = of(hub._settings(read, Path("hub.toml")))
    assert found["hub's key's place"].severity == "worth a look"
