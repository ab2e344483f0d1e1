"""The doctor finds what is wrong with certificates, and says the line that mends it."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from nacl.signing import SigningKey

from cloud_hub.authority import Authority, secret_of
from cloud_hub.settings import AuthoritySetting, HttpTlsSetting, HubSettings, TlsSetting
from deploy.doctor import Finding
from deploy.doctor.certificates import of_agent, of_hub
from deploy.mosquitto import refresh
from edge_agent.enrolment import certificate_request
from edge_agent.settings import AgentSettings
from shared.tls import Tls
from tests.shells.production_broker import ProductionBroker, production_broker

FILE = Path("hub.toml")
DAY_S = 86_400


@pytest.fixture(scope="module")
def broker() -> Iterator[ProductionBroker]:
    with production_broker() as running:
        running.authority.server("http", ["hub.example"])
        yield running


@pytest.fixture
def hub(broker: ProductionBroker) -> HubSettings:
    tls = broker.hub()
    folder = broker.authority.folder
    return HubSettings(
        depots=(),
        broker=broker.hub_url,
        http_names=("hub.example",),
        tls=TlsSetting(tls.ca, tls.certificate, tls.key),
        http_tls=HttpTlsSetting(str(folder / "http.crt"), str(folder / "http.key")),
        authority=AuthoritySetting(str(folder), broker.agents_url),
    )


def agent_of(broker: ProductionBroker, tls: Tls) -> AgentSettings:
    return AgentSettings(
        agent="van-1", broker=broker.agents_url, hub_public_key="ab" * 32, store="x.db", hub="https://hub.example",
        tls_ca=tls.ca, tls_certificate=tls.certificate, tls_key=tls.key,
    )  # fmt: skip


def wrong(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings if not finding.is_well}


def test_where_all_is_well_nothing_is_found(broker: ProductionBroker, hub: HubSettings) -> None:
    assert wrong(of_hub(hub, FILE)) == {}
    assert wrong(of_agent(agent_of(broker, broker.device("van-1")), Path("van-1.toml"))) == {}


def test_an_agent_that_does_not_renew_is_named(broker: ProductionBroker, hub: HubSettings) -> None:
    past = Authority(broker.authority.folder, now_s=lambda: time.time() - 80 * DAY_S)
    past.enrol(secret_of(past.invite("van-silent").token), certificate_request(SigningKey.generate()))
    found = wrong(of_hub(hub, FILE))
    assert list(found) == ["certificate of van-silent"]
    assert "ends in 10 days" in found["certificate of van-silent"].found
    assert "waywarden enrol van-silent --settings hub.toml" in found["certificate of van-silent"].mend
    broker.authority.revoke("van-silent", "a test")
    refresh(broker.authority)


def test_a_key_others_may_read_is_found(broker: ProductionBroker) -> None:
    tls = broker.device("van-2")
    Path(tls.key).chmod(0o644)
    found = wrong(of_agent(agent_of(broker, tls), Path("van-2.toml")))
    assert found["agent's key"].mend == f"chmod 600 {tls.key}"


def test_a_revoked_agent_learns_why_it_is_not_taken(broker: ProductionBroker) -> None:
    tls = broker.device("van-3")
    broker.authority.revoke("van-3", "a test")
    refresh(broker.authority)
    found: dict[str, Finding] = {}
    deadline = time.monotonic() + 5
    while not found:
        assert time.monotonic() < deadline
        found = wrong(of_agent(agent_of(broker, tls), Path("van-3.toml")))
    assert "REVOKED" in found["broker's certificate"].found


def test_a_broker_under_another_name_is_found(hub: HubSettings, broker: ProductionBroker) -> None:
    with production_broker(names=("broker.example",)) as elsewhere:
        found = wrong(of_agent(agent_of(elsewhere, elsewhere.device("van-1")), Path("van-1.toml")))
    assert "Hostname mismatch" in found["broker's certificate"].found


def test_a_list_the_broker_did_not_get_is_found(broker: ProductionBroker, hub: HubSettings) -> None:
    kept = (broker.home / "ca.crl").read_bytes()
    (broker.home / "ca.crl").write_bytes(b"old")
    found = wrong(of_hub(hub, FILE))
    (broker.home / "ca.crl").write_bytes(kept)
    assert [finding.found for finding in found.values()] == [
        "ca.crl is not the authority's: who was revoked may get in"
    ]


def test_a_name_the_https_certificate_lacks_is_found(broker: ProductionBroker, hub: HubSettings) -> None:
    found = wrong(of_hub(msgspec.structs.replace(hub, http_names=("hub.example", "ops.example")), FILE))
    finding = found["HTTPS certificate's names"]
    assert finding.found == "hub.example; not ops.example"
    assert finding.mend == "waywarden certify hub.example ops.example --settings hub.toml"


def test_a_certificate_that_is_not_there_is_found(broker: ProductionBroker, hub: HubSettings, tmp_path: Path) -> None:
    missing = TlsSetting(hub.tls.ca, str(tmp_path / "none.crt"), hub.tls.key)
    found = wrong(of_hub(msgspec.structs.replace(hub, tls=missing), FILE))
    assert "does not exist" in found["hub's certificate"].found
    assert found["hub's certificate"].mend == "waywarden renew --settings hub.toml"
