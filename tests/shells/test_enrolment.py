"""A machine becomes an agent over real HTTPS, stays one, and tells nobody its secret who is not its hub."""

import http.server
import json
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import msgspec
import pytest
import uvicorn
from fastapi import FastAPI

from cloud_hub import certificates
from cloud_hub.authority import AGENT_DAYS, DAY_S, Authority, AuthorityUnusable
from cloud_hub.enrolment import Enrolment
from cloud_hub.settings import AuthoritySetting, HubSettings
from cloud_hub.web.desk import Desk
from cloud_hub.web.enrolment import enrolment_pages
from cloud_hub.web.problems import answer_with_problems
from deploy.stack import free_ports
from edge_agent.enrolment import EnrolmentRefused, Files, HubOutOfReach, Renewal, enrol, life_of, renew
from edge_agent.settings import agent_settings, tls_of
from shared.tls import Tls

PUBLIC_KEY = "ab" * 32
BROKER = "mqtts://broker.example:8883"


class HubOverTls:
    """The hub's enrolment pages behind a certificate of its own authority."""

    def __init__(self, folder: Path) -> None:
        settings = HubSettings(depots=(), authority=AuthoritySetting(str(folder / "authority"), BROKER))
        self.enrolment = Enrolment(settings, PUBLIC_KEY)
        self.authority = self.enrolment.authority(may_found=True)
        certificate, key = self.authority.server("http", ["localhost", "127.0.0.1"])
        app = FastAPI()
        answer_with_problems(app)
        desk = cast(Desk, SimpleNamespace(enrolment=self.enrolment))
        app.include_router(enrolment_pages(desk, cast(Any, None)))
        (port,) = free_ports(1)
        self.url = f"https://localhost:{port}"
        self._server = uvicorn.Server(
            uvicorn.Config(app, port=port, log_level="critical", ssl_certfile=certificate, ssl_keyfile=key)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def http(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.authority.folder / "ca.crt"))
        return httpx.Client(base_url=self.url, verify=context, timeout=10)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubOverTls]:
    running = HubOverTls(tmp_path_factory.mktemp("hub"))
    yield running
    running.close()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return tmp_path / "device" / "van.toml"


def test_a_machine_becomes_an_agent_and_its_settings_are_complete(hub: HubOverTls, settings: Path) -> None:
    settings.parent.mkdir()
    settings.write_text('# Van 1, north\ngnss = "tcp://127.0.0.1:9000"\nbroker = "mqtt://old"\n')
    answered = enrol(hub.url, hub.authority.invite("van-1").token, settings)
    read = agent_settings(settings)
    assert (read.agent, read.region, read.broker, read.hub) == ("van-1", "main", BROKER, hub.url)
    assert (read.hub_public_key, read.gnss, answered.agent) == (PUBLIC_KEY, "tcp://127.0.0.1:9000", "van-1")
    assert settings.read_text().startswith("# Van 1, north\n")
    tls = tls_of(read)
    assert tls is not None
    tls.context()


def test_the_key_is_made_here_and_only_its_owner_reads_it(hub: HubOverTls, settings: Path) -> None:
    enrol(hub.url, hub.authority.invite("van-2").token, settings)
    key = Files.beside(settings).key
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in settings.parent.iterdir()) == ["van-ca.crt", "van.crt", "van.key", "van.toml"]


def test_an_enrolment_cut_off_before_the_answer_goes_on_with_the_same_token(hub: HubOverTls, settings: Path) -> None:
    token = hub.authority.invite("van-3").token
    first = enrol(hub.url, token, settings)
    files = Files.beside(settings)
    # As if the plug had been pulled before the answer was written down.
    files.key.rename(files.key.with_name(f"{files.key.name}.new"))
    files.certificate.unlink()
    assert enrol(hub.url, token, settings) == first
    assert files.key.exists()


def test_a_used_token_makes_no_second_machine(hub: HubOverTls, settings: Path, tmp_path: Path) -> None:
    token = hub.authority.invite("van-4").token
    enrol(hub.url, token, settings)
    with pytest.raises(EnrolmentRefused, match="was used"):
        enrol(hub.url, token, tmp_path / "other" / "van.toml")


def test_a_machine_that_is_somebody_already_takes_no_other_name(hub: HubOverTls, settings: Path) -> None:
    settings.parent.mkdir()
    settings.write_text('agent = "van-5"\n')
    token = hub.authority.invite("van-6").token
    with pytest.raises(EnrolmentRefused, match="for 'van-6'"):
        enrol(hub.url, token, settings)
    settings.write_text('agent = "van-6"\n')
    assert enrol(hub.url, token, settings).agent == "van-6"


class Listener(http.server.BaseHTTPRequestHandler):
    """Somebody in between, with another authority's papers."""

    told: list[bytes]
    ca: str

    def do_GET(self) -> None:
        """Answer as a hub would."""
        body = json.dumps({"ca": self.ca}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Remember what was told."""
        self.told.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(500)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def in_between(hub: HubOverTls, tmp_path: Path) -> Iterator[tuple[str, list[bytes], Any]]:
    """A server with a certificate of another authority; what it shows as its authority can be set."""
    foreign = Authority(tmp_path / "foreign")
    certificate, key = foreign.server("http", ["localhost"])
    told: list[bytes] = []
    handler = type("Handler", (Listener,), {"told": told, "ca": foreign.ca_pem})
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_address[1]}", told, handler
    server.shutdown()
    server.server_close()


def test_a_hub_with_another_authority_is_told_nothing(
    hub: HubOverTls, in_between: tuple[str, list[bytes], Any], settings: Path
) -> None:
    url, told, _ = in_between
    with pytest.raises(EnrolmentRefused, match="another authority"):
        enrol(url, hub.authority.invite("van-1").token, settings)
    assert told == []


def test_who_shows_the_right_authority_without_its_key_is_told_nothing(
    hub: HubOverTls, in_between: tuple[str, list[bytes], Any], settings: Path
) -> None:
    url, told, handler = in_between
    handler.ca = hub.authority.ca_pem
    with pytest.raises(EnrolmentRefused, match="nobody we believe"):
        enrol(url, hub.authority.invite("van-1").token, settings)
    assert told == []


@pytest.mark.parametrize("url", ["http://hub.example", "ftp://hub", "hub", "https://"])
def test_a_hub_that_is_not_spoken_to_over_tls_is_refused(hub: HubOverTls, settings: Path, url: str) -> None:
    with pytest.raises(EnrolmentRefused, match="https://"):
        enrol(url, hub.authority.invite("van-1").token, settings)


def test_a_hub_out_of_reach_is_said_so(hub: HubOverTls, settings: Path) -> None:
    (port,) = free_ports(1)
    with pytest.raises(HubOutOfReach, match="does not answer"):
        enrol(f"https://localhost:{port}", hub.authority.invite("van-1").token, settings)


# Staying one.


@pytest.fixture
def tls(hub: HubOverTls, settings: Path) -> Tls:
    enrol(hub.url, hub.authority.invite("van-r").token, settings)
    found = tls_of(agent_settings(settings))
    assert found is not None
    return found


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(hub: HubOverTls, tls: Tls) -> None:
    before = Path(tls.certificate).read_bytes()
    begins_s, ends_s = life_of(before)
    now_s = [ends_s - (ends_s - begins_s) * 0.4]
    came: list[bool] = []
    renewal = Renewal(hub.url, tls, lambda: came.append(True), lambda: now_s[0])
    renewal.look()
    assert Path(tls.certificate).read_bytes() == before
    now_s[0] = ends_s - (ends_s - begins_s) * 0.3
    renewal.look()
    assert Path(tls.certificate).read_bytes() != before
    assert came == [True]
    tls.context()


def test_nothing_is_renewed_on_an_unknown_clock(hub: HubOverTls, tls: Tls) -> None:
    before = Path(tls.certificate).read_bytes()
    Renewal(hub.url, tls, lambda: None, lambda: None).look()
    assert Path(tls.certificate).read_bytes() == before


def test_a_hub_that_is_away_is_asked_again(tls: Tls) -> None:
    (port,) = free_ports(1)
    far_s = time.time() + (AGENT_DAYS + 1) * DAY_S
    renewal = Renewal(f"https://localhost:{port}", tls, lambda: None, lambda: far_s, draw=lambda: 0.5)
    assert renewal.look() == 600.0


def test_a_running_agent_renews_by_itself(hub: HubOverTls, tls: Tls) -> None:
    came = threading.Event()
    _, ends_s = life_of(Path(tls.certificate).read_bytes())
    renewal = Renewal(hub.url, tls, came.set, lambda: ends_s - DAY_S)
    renewal.start()
    assert came.wait(10)
    renewal.stop()


def test_a_renewal_goes_only_to_the_hub(tls: Tls, in_between: tuple[str, list[bytes], Any]) -> None:
    url, told, _ = in_between
    with pytest.raises(EnrolmentRefused, match="nobody we believe"):
        renew(url, tls)
    assert told == []


# What is asked over HTTP.


def test_an_invitation_over_http_makes_a_token_that_is_not_cached(hub: HubOverTls, settings: Path) -> None:
    with hub.http() as http:
        answer = http.post("/api/enrolments", json={"agent": "van-h"})
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        waiting = http.get("/api/enrolments").json()["invited"]
        assert [one["agent"] for one in waiting if one["agent"] == "van-h"] == ["van-h"]
    assert enrol(hub.url, answer.json()["token"], settings).agent == "van-h"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/enrolments", {"agent": "hub"}, 422),
        ("/api/enrolments", {"agent": "a/b"}, 422),
        ("/api/enrolments", {"agent": "van-1", "life_s": 10**9}, 422),
        ("/api/enrol", {"secret": "AAAA", "request": "AAAA"}, 422),
        ("/api/enrol", {"secret": "not base64", "request": "AAAA"}, 422),
        ("/api/enrol", {"secret": "AAAA", "request": "A" * 9000}, 422),
        ("/api/enrol", {}, 422),
        ("/api/renew", {"certificate": "x", "signature": "AAAA"}, 403),
        ("/api/renew", {"certificate": "x", "signature": "?"}, 422),
    ],
)
def test_nonsense_is_refused_by_name(hub: HubOverTls, path: str, body: dict[str, Any], status: int) -> None:
    with hub.http() as http:
        answer = http.post(path, json=body)
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_a_hub_nobody_was_invited_to_makes_no_authority_for_who_asks(tmp_path: Path) -> None:
    unused = Enrolment(HubSettings(depots=(), key_file=str(tmp_path / "hub.key")), PUBLIC_KEY)
    with pytest.raises(AuthorityUnusable, match="waywarden enrol"):
        unused.authority()
    assert not unused.is_revoked("van-1")
    assert list(tmp_path.iterdir()) == []


def test_the_authority_is_shown_to_anybody_by_its_fingerprint(hub: HubOverTls) -> None:
    with hub.http() as http:
        shown = http.get("/api/authority").json()
    read = certificates.read_certificate(shown["ca"].encode())
    assert certificates.fingerprint(read).hex() == shown["fingerprint"] == hub.authority.fingerprint


def test_a_revocation_is_known_at_the_hubs_door_within_a_second(hub: HubOverTls, settings: Path) -> None:
    enrol(hub.url, hub.authority.invite("van-x").token, settings)
    assert not hub.enrolment.is_revoked("van-x")
    hub.authority.revoke("van-x", "a test")
    deadline = time.monotonic() + 1.0
    while not hub.enrolment.is_revoked("van-x"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_answer_is_of_words_a_settings_file_can_hold(hub: HubOverTls, settings: Path) -> None:
    answered = enrol(hub.url, hub.authority.invite("van-w").token, settings)
    assert msgspec.toml.decode(settings.read_bytes())["broker"] == answered.broker


def test_a_register_that_cannot_be_read_does_not_shut_the_hubs_door(tmp_path: Path) -> None:
    broken = Enrolment(HubSettings(depots=(), key_file=str(tmp_path / "hub.key")), PUBLIC_KEY)
    folder = tmp_path / "authority"
    folder.mkdir()
    (folder / "ca.key").write_text("nonsense")
    (folder / "register.sqlite").write_text("nonsense")
    assert not broken.is_revoked("van-1")
