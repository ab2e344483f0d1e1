"""docs/metrics.md names what a running hub and an ingest process answer, and nothing else."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
from nacl.signing import SigningKey
from prometheus_client.parser import text_string_to_metric_families

from cloud_hub.authority import Authority, secret_of
from cloud_hub.ingest import Worker
from cloud_hub.metrics import certificate_days
from cloud_hub.settings import AuthoritySetting, HttpTlsSetting, HubSettings, TlsSetting
from deploy.stack import Stack
from edge_agent.enrolment import certificate_request
from shared.clock import Clock
from tests.shells.hub_parts import HubProcess

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
ROWS = dict(re.findall(r"^\| `(waywarden_\w+)`( i)? \|", PAGE, re.MULTILINE))


def test_every_metric_of_a_running_hub_is_on_the_page_and_every_one_of_the_page_there(
    stack: Stack, broker_port: int, tmp_path: Path
) -> None:
    hub = HubProcess(stack, broker_port, tmp_path)
    answer = hub.http.get("/metrics").text
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name: {
            label for sample in family.samples for label in sample.labels
        }
        for family in text_string_to_metric_families(answer)
        if not family.name.endswith("_created")  # When counting began, which the library adds.
    }
    assert sorted(families) == sorted(ROWS)
    assert set().union(*families.values()) == {"what", "le"}
    watched = re.findall(r"waywarden_\w+", PAGE.partition("## What to be woken for")[2])
    assert set(watched) <= set(families)
    assert 'waywarden_hub_acting{what="main"} 1.0' in answer


def test_those_marked_are_an_ingest_process_s_too(fresh_store: Callable[[], str]) -> None:
    worker = Worker(HubSettings(depots=(), store=fresh_store()), Clock.from_setting(None))
    try:
        families = list(worker.counts().collect())
    finally:
        worker._telemetry.close()
        worker._hub_store.close()
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert names == {name for name, mark in ROWS.items() if mark}


def test_certificates_are_counted_in_days_and_of_agents_the_one_that_ends_first(tmp_path: Path) -> None:
    settings = HubSettings(depots=(), key_file=str(tmp_path / "hub.key"))
    assert certificate_days(settings) == {}
    authority = Authority(tmp_path / "authority")
    for agent in ("van-1", "van-2"):
        authority.enrol(secret_of(authority.invite(agent).token), certificate_request(SigningKey.generate()))
    (certificate, key), (served, served_key) = authority.process(), authority.server("http", ["hub.example"])
    settings = msgspec.structs.replace(
        settings,
        tls=TlsSetting(str(tmp_path / "authority" / "ca.crt"), str(certificate), str(key)),
        http_tls=HttpTlsSetting(str(served), str(served_key)),
        authority=AuthoritySetting(),
    )
    days = {name: round(left) for name, left in certificate_days(settings).items()}
    assert days == {"hub": 397, "https": 397, "authority": 7300, "agents": 90}
    authority.revoke("van-1", "a test")
    assert round(certificate_days(settings)["agents"]) == 90
