"""A machine that means harm: what it asks the authority to sign, and what it says to a running hub."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_hub.authority import Authority, secret_of
from cloud_hub.certificates import RequestWrong
from deploy.stack import Stack
from shared import topics, wire
from shared.messages import DiskTight, Estimate, EstimatesMoved, Numbered, Presence, ShiftChanged, TimeFound
from shared.quantities import EpochMs
from shared.steps import Envelope
from shared.work import AgentId, StopId
from tests.fuzz.openapi import first_key
from tests.shells.access_house import a_house
from tests.shells.hub_parts import HubProcess, StandInAgent, some_orders, start_broker

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.mark.parametrize("name", ["hub", "van-2", "van-1/up", "+", "#", "", "a\0b", "x" * 64, "CN=hub", "*.example"])
def test_whatever_a_request_asks_for_the_certificate_is_the_tokens_agents_and_no_more(
    name: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    token = authority.invite("van-1").token
    key = ed25519.Ed25519PrivateKey.generate()
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, one) for one in (name, "hub") if one]
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(subject))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hub"), x509.DNSName("broker.example")]), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, None)
    )
    made = authority.enrol(secret_of(token), asked.public_bytes(serialization.Encoding.DER))
    certificate = x509.load_pem_x509_certificate(made.certificate.encode())
    assert [one.value for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["van-1"]
    assert name in ("", "hub") or name not in certificate.subject.rfc4514_string()
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.parametrize("asked", [b"", b"0", b"0" * 4_000, b"\x30\x84\xff\xff\xff\xff" + bytes(50)])
def test_a_request_that_is_none_uses_no_token_up(asked: bytes, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    token = authority.invite("van-1").token
    with pytest.raises(RequestWrong):
        authority.enrol(secret_of(token), asked)
    assert [agent for agent, _ in authority.invitations()] == ["van-1"]


def test_what_a_shop_writes_into_an_order_is_no_code_on_any_page(tmp_path: Path) -> None:
    with a_house(tmp_path) as house:
        admin = house.as_role("admin")
        fields = ("note", "door_code", "safe_place", "neighbour", "address", "name", "order_id")
        orders = [some_orders(1)[0] | {"order_id": f"A-{field}"} | {field: SCRIPT} for field in fields]
        assert {admin.post("/api/orders", json=[order]).status_code for order in orders} == {200}
        link = admin.post("/api/orders/A-note/link").json()
        for path in ("/", "/depots/north", "/docs", "/sign-in", f"/t/{link['token']}", f"/t/{link['token']}/stop"):
            shown = admin.get(path, headers={"accept": "text/html"})
            assert shown.status_code < 500
            assert "<script>alert" not in shown.text
            assert "<img src=x" not in shown.text


def test_an_agent_gone_bad_neither_ends_the_hub_nor_holds_up_another(stack: Stack, tmp_path: Path) -> None:
    hub = HubProcess(stack, start_broker(stack), tmp_path, vans=2, access="requests_per_min = 100000")
    key = first_key(tmp_path / "logs")
    hub.http.headers["Authorization"] = f"Bearer {key}"
    hub.plan_day(some_orders(3))
    bad_name = AgentId("van-1")
    with StandInAgent(hub) as bad, StandInAgent(hub, "van-2") as good:
        absurd = Estimate(StopId("stop-A-000"), EpochMs(10**300), EpochMs(1), EpochMs(1))
        bad.say(TimeFound(10**400, "gnss"), EstimatesMoved((absurd,), "\x1b[2J\nhub_up"))
        bad.wait_acked()
        for number in range(20_000):
            said = Numbered(bad_name, "boot-1", "events", 10**6 + number, EpochMs(1), 0, DiskTight(True))
            bad._link.publish(Envelope(topics.up("main", bad_name, "events"), wire.encode(said), 0))
        good.say(ShiftChanged("begun"))
        good.wait_acked()
        for number in range(300):
            there = Presence(bad_name, True, f"l{number}", f"b{number}", 0, {"events": 5 + number}, False, f"q{number}")
            bad._link.publish(Envelope(topics.up("main", bad_name, "presence"), wire.encode(there), 0))
        good.say(ShiftChanged("ended"))
        good.wait_acked()
        metrics = hub.http.get("/metrics").text
    assert stack.fallen() == []
    assert int(float(re.findall(r'refused_total\{what="TooFast"\} (\S+)', metrics)[0])) > 0
    assert hub.get("/api/ledger/verify")["holds"]
    log = "".join(file.read_text() for file in (tmp_path / "logs").glob("hub*"))
    assert "\x1b" not in log
    assert log.count(key) == 1
    assert hub.key.read_text().strip() not in log
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert key not in listed
    kept = [file for pattern in ("*.key", "*.db*") for file in tmp_path.glob(pattern)]
    assert kept
    assert {os.stat(file).st_mode & 0o777 for file in kept} == {0o600}
