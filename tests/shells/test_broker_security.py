"""What the production broker lets an agent do, tried by clients who want more: a real Mosquitto, our configuration."""

import os
import queue
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from cloud_hub.authority import Authority, secret_of
from cloud_hub.settings import HubSettings, TlsSetting
from deploy.broker import NotLoopback, serve
from deploy.enrol_commands import SessionLives, end_session
from deploy.mosquitto import MESSAGE_BYTES, BrokerPlan, FolderUnusable, access_list, broker_user, refresh, render
from edge_agent.enrolment import certificate_request
from shared import topics
from shared.mqtt import Heard, Link, LinkDown, LinkEvent, LinkUp
from shared.steps import Envelope
from shared.tls import Tls
from shared.work import AgentId
from tests.shells.production_broker import (
    PATIENCE_S,
    REGION,
    ProductionBroker,
    Rude,
    eventually,
    production_broker,
    rude,
)

OWN = "ww/main/van-1/up/events"
CONNECT = bytes.fromhex("10100004") + b"MQTT" + bytes.fromhex("0502003c00000361626364")


@pytest.fixture(scope="module")
def broker() -> Iterator[ProductionBroker]:
    with production_broker() as running:
        yield running


@pytest.fixture(scope="module")
def van_1(broker: ProductionBroker) -> Tls:
    return broker.device("van-1")


@pytest.fixture(scope="module")
def van_2(broker: ProductionBroker) -> Tls:
    return broker.device("van-2")


@pytest.fixture
def hub(broker: ProductionBroker) -> Iterator[Rude]:
    """The hub's process, which hears every agent."""
    with rude(broker.hub_port, broker.hub(), "hub-main") as listening:
        listening.listen(*topics.heard_by_hub(REGION))
        # Retained presence of former tests comes first.
        while not listening.hears_nothing():
            pass
        yield listening


def handshake(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> str:
    """What comes of a TLS connection and an MQTT CONNECT: "taken", or the alert."""
    try:
        with (
            socket.create_connection(("localhost", port), PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as wire,
        ):
            judged(wire)
            wire.sendall(CONNECT)
            return "taken" if wire.recv(100)[:1] == b" " else "closed"
    except (ssl.SSLError, ConnectionError) as refused:
        return getattr(refused, "reason", None) or type(refused).__name__


def judged(wire: ssl.SSLSocket) -> None:
    """Read what the server made of our certificate: tickets, or the alert. In TLS 1.3 it says so after the handshake,
    and whoever writes before reading may lose the alert with the connection.
    """
    assert select.select([wire], [], [], PATIENCE_S)[0]
    wire.setblocking(False)
    try:
        wire.recv(1)
    except ssl.SSLWantReadError:
        pass
    wire.settimeout(PATIENCE_S)


def nobody(broker: ProductionBroker) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(broker.authority.folder / "ca.crt"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


# Who gets in.


def test_an_enrolled_agent_gets_in(broker: ProductionBroker, van_1: Tls) -> None:
    assert handshake(broker.agents_port, van_1.context()) == "taken"


def test_nobody_gets_in_without_a_certificate(broker: ProductionBroker) -> None:
    refusals = [handshake(port, nobody(broker)) for port in (broker.agents_port, broker.hub_port)]
    assert refusals == ["TLSV13_ALERT_CERTIFICATE_REQUIRED"] * 2


def test_another_authority_opens_nothing(broker: ProductionBroker, tmp_path: Path) -> None:
    stranger = broker.device("van-1", Authority(tmp_path / "foreign"), name="stranger")
    assert handshake(broker.agents_port, stranger.context()) == "TLSV1_ALERT_UNKNOWN_CA"


def test_an_expired_certificate_opens_nothing(broker: ProductionBroker) -> None:
    long_ago = Authority(broker.authority.folder, now_s=lambda: time.time() - 100 * 86_400)
    late = broker.device("van-late", long_ago)
    assert handshake(broker.agents_port, late.context()) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"


def test_an_agents_certificate_does_not_open_the_hubs_listener(broker: ProductionBroker, van_1: Tls) -> None:
    assert handshake(broker.hub_port, van_1.context()) == "TLSV1_ALERT_UNKNOWN_CA"


def test_the_hubs_certificate_does_not_open_the_agents_listener(broker: ProductionBroker) -> None:
    assert handshake(broker.agents_port, broker.hub().context()) == "TLSV1_ALERT_UNKNOWN_CA"


def test_a_servers_certificate_is_no_agents(broker: ProductionBroker) -> None:
    certificate, key = broker.authority.server("broker", ["localhost", "127.0.0.1"])
    posing = Tls(str(broker.authority.folder / "ca.crt"), str(certificate), str(key))
    assert handshake(broker.agents_port, posing.context()) == "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"


def test_plain_bytes_at_the_tls_port_harm_nobody(broker: ProductionBroker, van_1: Tls) -> None:
    with socket.create_connection(("localhost", broker.agents_port), PATIENCE_S) as plain:
        plain.sendall(b"\x10\xff\xff\xff\x7f" + os.urandom(2000))
        plain.settimeout(PATIENCE_S)
        with suppress(ConnectionResetError):
            assert plain.recv(100)[:1] in (b"", b"\x15")
    assert handshake(broker.agents_port, van_1.context()) == "taken"


# What an agent may say and hear.


@pytest.mark.parametrize("carries", topics.UP)
def test_an_agent_speaks_where_it_is_the_sender(broker: ProductionBroker, van_1: Tls, hub: Rude, carries: str) -> None:
    with rude(broker.agents_port, van_1) as agent:
        assert agent.say(f"ww/main/van-1/up/{carries}", b"mine") == "taken"
    assert hub.hears() == (f"ww/main/van-1/up/{carries}", b"mine")


@pytest.mark.parametrize(
    "topic",
    [
        "ww/main/van-2/up/events",
        "ww/main/van-2/up/presence",
        "ww/main/hub/up/presence",
        "ww/main/hub/up/ingest",
        "ww/main/van-1/down/commands",
        "ww/main/van-2/down/commands",
        "ww/main/van-1/up/secrets",
        "ww/main/van-1/up/events/more",
        "ww/other/van-1/up/events",
        "trade/north/van-2/van-1",
        "trade/north/van-1",
        "van-1",
        "$SYS/broker/version",
        "$share/ingest/ww/main/van-1/up/events",
    ],
)
def test_an_agent_speaks_nowhere_else(broker: ProductionBroker, van_1: Tls, hub: Rude, topic: str) -> None:
    with rude(broker.agents_port, van_1) as agent:
        # paho refuses some of these itself; what it lets pass the broker refuses by name.
        try:
            answer = agent.say(topic, is_retained=True)
        except ValueError:
            answer = "refused by the client"
    assert answer in ("Not authorized", "refused by the client")
    assert hub.hears_nothing()


def test_an_agent_hears_only_what_is_for_it(broker: ProductionBroker, van_1: Tls, hub: Rude) -> None:
    with rude(broker.agents_port, van_1) as agent:
        # Mosquitto 2.0 grants every subscription; what is forbidden is never delivered.
        agent.listen("#", "$SYS/#", "$share/ingest/ww/main/+/up/events")
        for topic in ("ww/main/van-2/down/commands", "ww/main/van-2/down/acks"):
            assert hub.say(topic) == "taken"
        with rude(broker.hub_port, broker.hub(), "other") as other:
            assert other.say("ww/main/hub/up/presence", b"here") == "taken"
        assert hub.say("ww/main/van-1/down/commands", b"drive") == "taken"
        heard = [agent.hears(), agent.hears()]
        assert agent.hears_nothing()
    assert heard == [("ww/main/hub/up/presence", b"here"), ("ww/main/van-1/down/commands", b"drive")]


def test_trade_is_written_by_its_sender_and_read_by_its_receiver(
    broker: ProductionBroker, van_1: Tls, van_2: Tls
) -> None:
    van_3 = broker.device("van-3")
    with (
        rude(broker.agents_port, van_1) as first,
        rude(broker.agents_port, van_2) as second,
        rude(broker.agents_port, van_3) as third,
    ):
        for each in (second, third):
            each.listen("trade/#")
        assert first.say("trade/north/van-1/van-2", b"call") == "taken"
        assert first.say("trade/north/van-3/van-2", b"forged") == "Not authorized"
        assert second.hears() == ("trade/north/van-1/van-2", b"call")
        assert second.hears_nothing()
        assert third.hears_nothing()


# Retained messages and wills.


def test_what_an_agent_has_retained_is_told_to_nobody_but_presence(broker: ProductionBroker, van_1: Tls) -> None:
    with rude(broker.agents_port, van_1) as agent:
        assert agent.say(OWN, b"for ever", is_retained=True) == "taken"
        assert agent.say("ww/main/van-1/up/presence", b"here", is_retained=True) == "taken"
        heard: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
        link = Link(broker.hub_url, "late-hub", topics.heard_by_hub(REGION), heard.put, tls=broker.hub())
        link.open()
        try:
            first = [heard.get(timeout=PATIENCE_S), heard.get(timeout=PATIENCE_S)]
            assert agent.say(OWN, b"now") == "taken"
            then = heard.get(timeout=PATIENCE_S)
        finally:
            link.close()
            agent.say(OWN, b"", is_retained=True)
    assert first == [LinkUp(), Heard("ww/main/van-1/up/presence", b"here", None)]
    assert then == Heard(OWN, b"now", None)


def test_an_agent_can_have_no_more_retained_than_it_has_topics(broker: ProductionBroker) -> None:
    said = [line.split()[-1] for line in access_list(REGION).splitlines() if line.startswith("pattern write ww/")]
    assert said == [f"ww/main/%u/up/{carries}" for carries in topics.UP]


def test_a_will_on_somebody_elses_topic_is_never_spoken(broker: ProductionBroker, van_1: Tls, hub: Rude) -> None:
    for topic in ("ww/main/van-2/up/presence", "ww/main/hub/up/presence", "ww/main/van-2/down/commands"):
        mortal = Rude(broker.agents_port, van_1, will=(topic, b"gone", True)).connected()
        mortal.fall()
        assert mortal.closed.get(timeout=PATIENCE_S)
        mortal.close()
    assert hub.hears_nothing()
    with rude(broker.hub_port, broker.hub(), "later") as later:
        later.listen("ww/main/van-2/up/presence")
        assert later.hears_nothing()


def test_an_agents_will_on_its_own_presence_is_spoken(broker: ProductionBroker, van_1: Tls, hub: Rude) -> None:
    mortal = Rude(broker.agents_port, van_1, will=("ww/main/van-1/up/presence", b"gone", False)).connected()
    mortal.fall()
    assert hub.hears() == ("ww/main/van-1/up/presence", b"gone")
    mortal.close()


# Who one is.


def test_a_stolen_client_id_steals_nothing(broker: ProductionBroker, van_1: Tls, van_2: Tls) -> None:
    with rude(broker.agents_port, van_1, "van-1") as owner, rude(broker.agents_port, van_2, "van-1") as thief:
        assert thief.say("ww/main/van-2/up/events") == "taken"
        assert owner.say(OWN) == "taken"
        assert owner.closed.empty()
        assert "as van-2 " in broker.last_log("New client connected")


def test_who_gives_no_client_id_at_the_hubs_listener_is_refused(broker: ProductionBroker) -> None:
    nameless = Rude(broker.hub_port, broker.hub(), "")
    # paho reports the refusal (0x85) twice, the second time without its name.
    assert nameless.answered.get(timeout=PATIENCE_S) != "Success"
    nameless.close()


# Limits.


def test_a_message_larger_than_ours_ends_its_senders_connection_and_no_others(
    broker: ProductionBroker, van_1: Tls, van_2: Tls, hub: Rude
) -> None:
    with rude(broker.agents_port, van_2) as other:
        glutton = Rude(broker.agents_port, van_1).connected()
        glutton.client.publish(OWN, b"x" * (MESSAGE_BYTES + 1), 1)
        assert glutton.closed.get(timeout=PATIENCE_S)
        glutton.close()
        broker.logs("oversize packet")
        assert other.say("ww/main/van-2/up/events", b"still here") == "taken"
    assert hub.hears() == ("ww/main/van-2/up/events", b"still here")


def test_our_link_says_nothing_that_would_throw_it_out(broker: ProductionBroker, van_1: Tls, hub: Rude) -> None:
    heard: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = Link(broker.agents_url, "van-1", [], heard.put, tls=van_1)
    link.open()
    assert heard.get(timeout=PATIENCE_S) == LinkUp()
    assert link.publish(Envelope(OWN, b"x" * (MESSAGE_BYTES + 1)))
    assert link.publish(Envelope(OWN, b"small"))
    assert hub.hears() == (OWN, b"small")
    assert dict(link.refused) == {f"larger than {MESSAGE_BYTES} bytes": 1}
    link.close()


def test_three_thousand_messages_at_once_are_taken(broker: ProductionBroker, van_1: Tls, hub: Rude) -> None:
    hasty = Rude(broker.agents_port, van_1, in_flight=3_000).connected()
    for number in range(3_000):
        hasty.client.publish(OWN, b"%d" % number, 1)
    assert [hub.hears()[1] for _ in range(3_000)] == [b"%d" % number for number in range(3_000)]
    assert hasty.closed.empty()
    hasty.close()


def test_the_second_quality_of_service_is_not_spoken(broker: ProductionBroker, van_1: Tls) -> None:
    picky = Rude(broker.agents_port, van_1).connected()
    picky.client.publish(OWN, b"x", 2)
    assert picky.closed.get(timeout=PATIENCE_S) == "QoS not supported"
    picky.close()


def test_what_a_slow_reader_leaves_waiting_is_dropped_and_counted_beyond_the_limit() -> None:
    with production_broker(
        {"small.conf": "max_inflight_messages 20\nmax_queued_messages 30\nsys_interval 1\n"}
    ) as small:
        van = small.device("van-1")
        with (
            rude(small.hub_port, small.hub(), "watcher") as watcher,
            rude(small.hub_port, small.hub(), "slow", is_slow=True) as slow,
            rude(small.agents_port, van) as agent,
        ):
            slow.listen("ww/main/+/up/events")
            watcher.listen("$SYS/broker/publish/messages/dropped")
            answers = {agent.say(OWN, b"%d" % number) for number in range(60)}
            # The broker tells the sender that all is well; only the counter and the reader's own streams know better.
            assert answers == {"taken"}
            dropped = b"0"
            while dropped == b"0":
                dropped = watcher.hears()[1]
            assert dropped == b"10"


# Revocation.


def revoke(broker: ProductionBroker, agent: str) -> None:
    """As `waywarden revoke` does it."""
    broker.authority.revoke(agent, "a test")
    assert refresh(broker.authority) == []
    end_session(settings_of(broker), agent, quiet_s=1.2)


def settings_of(broker: ProductionBroker) -> HubSettings:
    hub = broker.hub()
    return HubSettings(depots=(), broker=broker.hub_url, tls=TlsSetting(hub.ca, hub.certificate, hub.key))


def test_a_revoked_agents_live_session_ends_and_does_not_come_back(broker: ProductionBroker, van_2: Tls) -> None:
    lost = broker.device("van-lost")
    heard: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = Link(broker.agents_url, "van-lost", [], heard.put, tls=lost)
    link.open()
    assert heard.get(timeout=PATIENCE_S) == LinkUp()
    with rude(broker.agents_port, van_2) as other:
        revoke(broker, "van-lost")
        assert isinstance(heard.get(timeout=PATIENCE_S), LinkDown)
        assert not link.is_up
        assert other.closed.empty()
    assert heard.empty()
    link.close()
    assert handshake(broker.agents_port, lost.context()) == "SSLV3_ALERT_CERTIFICATE_REVOKED"


def test_a_revoked_agent_cannot_go_on_with_its_former_tls_session(broker: ProductionBroker) -> None:
    stolen = broker.device("van-stolen").context()
    with (
        socket.create_connection(("localhost", broker.agents_port), PATIENCE_S) as plain,
        stolen.wrap_socket(plain, server_hostname="localhost") as wire,
    ):
        judged(wire)
        ticket = wire.session
    revoke(broker, "van-stolen")
    assert ticket is not None
    assert handshake(broker.agents_port, stolen, ticket) == "SSLV3_ALERT_CERTIFICATE_REVOKED"


def test_a_machine_enrolled_anew_puts_its_forerunner_out(broker: ProductionBroker) -> None:
    old = broker.device("van-7", name="old-7")
    new = broker.device("van-7", name="new-7")
    assert refresh(broker.authority) == []
    eventually(lambda: handshake(broker.agents_port, old.context()) != "taken", "the old machine is refused")
    assert handshake(broker.agents_port, new.context()) == "taken"


def test_a_session_that_cannot_be_ended_is_said_so(broker: ProductionBroker) -> None:
    alive = broker.device("van-alive")
    link = Link(broker.agents_url, "van-alive", [], lambda _: None, tls=alive)
    link.open()
    eventually(lambda: link.is_up, "the agent is up")
    with pytest.raises(SessionLives, match="systemctl restart mosquitto"):
        end_session(settings_of(broker), "van-alive", quiet_s=2.0, patience_s=2.5)
    link.close()


# Keys, users and restarts.


def test_started_as_root_the_broker_drops_to_its_own_user_and_reads_its_keys(broker: ProductionBroker) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has something to drop")
    pid = broker.stack.ids["mosquitto"]
    user = subprocess.run(["ps", "-o", "user:32=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    assert user.strip() == broker_user() != "root"


def test_keys_are_for_their_owners_eyes(broker: ProductionBroker, van_1: Tls) -> None:
    keys = [
        broker.home / "broker.key",
        *broker.authority.folder.glob("*.key"),
        *broker.authority.folder.glob("*.sqlite"),
    ]
    assert {path.name for path in keys if path.stat().st_mode & 0o777 == 0o600} == {
        "broker.key", "ca.key", "hub-ca.key", "hub.key", "register.sqlite"
    }  # fmt: skip


def test_a_broker_certificate_made_anew_is_served_without_a_restart(van_1: Tls) -> None:
    with production_broker() as young:
        van = young.device("van-1")
        before = served(young.agents_port, van)
        future = Authority(young.authority.folder, now_s=lambda: time.time() + 300 * 86_400)
        assert [path.name for path in future.renew_own()] == ["broker.crt", "hub.crt"]
        assert refresh(young.authority) == []
        eventually(lambda: served(young.agents_port, van) != before, "the new certificate is served")


def served(port: int, tls: Tls) -> bytes | None:
    context = tls.context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("localhost", port), PATIENCE_S) as plain,
        context.wrap_socket(plain) as wire,
    ):
        return wire.getpeercert(binary_form=True)


def test_retained_presence_survives_the_brokers_death() -> None:
    with production_broker() as mortal:
        van = mortal.device("van-1")
        with rude(mortal.agents_port, van) as agent:
            agent.say("ww/main/van-1/up/presence", b"here", is_retained=True)
        os.kill(mortal.stack.ids["mosquitto"], signal.SIGUSR1)  # As its autosave does every minute.
        eventually((mortal.home / "data" / "mosquitto.db").exists, "the broker has saved")
        mortal.stack.kill("mosquitto")
        mortal.stack.start_again("mosquitto")
        mortal.stack.wait_for_port("mosquitto", mortal.hub_port)
        with rude(mortal.hub_port, mortal.hub(), "hub") as hub:
            hub.listen("ww/main/+/up/presence")
            assert hub.hears() == ("ww/main/van-1/up/presence", b"here")


def test_a_folder_mosquitto_cannot_name_is_refused(broker: ProductionBroker, tmp_path: Path) -> None:
    with pytest.raises(FolderUnusable, match="space"):
        render(tmp_path / "a b", BrokerPlan(REGION, ("localhost",)), broker.authority)


# Our side.


@pytest.fixture
def expired_server(broker: ProductionBroker, tmp_path: Path) -> Iterator[int]:
    """A broker's port behind a certificate that has ended."""
    past = Authority(broker.authority.folder, now_s=lambda: time.time() - 500 * 86_400)
    certificate, key = past.server("past", ["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening = socket.create_server(("localhost", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as wire:
                    wire.recv(1)
            except (ssl.SSLError, OSError):
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def shaken(port: int, tls: Tls) -> str:
    try:
        with (
            socket.create_connection(("localhost", port), PATIENCE_S) as plain,
            tls.context().wrap_socket(plain, server_hostname="localhost") as wire,
        ):
            return str(wire.version())
    except ssl.SSLCertVerificationError as wrong:
        return str(wrong.verify_message)


def test_dates_are_judged_on_a_known_clock_and_never_on_an_unknown_one(
    expired_server: int, van_1: Tls, tmp_path: Path
) -> None:
    lost_in_time = Tls(van_1.ca, van_1.certificate, van_1.key, is_time_known=lambda: False)
    assert shaken(expired_server, van_1) == "certificate has expired"
    assert shaken(expired_server, lost_in_time) == "TLSv1.3"
    foreign = Authority(tmp_path / "foreign").folder / "ca.crt"
    believing_others = Tls(str(foreign), van_1.certificate, van_1.key, is_time_known=lambda: False)
    assert "self" in shaken(expired_server, believing_others) or "unable" in shaken(expired_server, believing_others)


def test_a_broker_under_another_name_is_not_believed(van_1: Tls) -> None:
    with production_broker(names=("broker.example",)) as elsewhere:
        van = elsewhere.device("van-1")
        assert "Hostname mismatch" in shaken(elsewhere.agents_port, van)


def test_an_agent_cannot_pose_as_the_broker(broker: ProductionBroker, tmp_path: Path) -> None:
    key = SigningKey.generate()
    made = broker.authority.enrol(secret_of(broker.authority.invite("localhost").token), certificate_request(key))
    posing = broker.files("localhost", made.certificate.encode(), key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(posing.certificate, posing.key)
    with socket.create_server(("localhost", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            try:
                context.wrap_socket(plain, server_side=True).close()
            except (ssl.SSLError, OSError):
                plain.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert "unsuitable certificate purpose" in shaken(listening.getsockname()[1], posing)
        thread.join(PATIENCE_S)


def test_a_certificate_renewed_in_its_place_is_used_at_the_next_connection(broker: ProductionBroker) -> None:
    van = broker.device("van-9")
    heard: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    link = Link(broker.agents_url, "van-9", [], heard.put, tls=van)
    link.open()
    assert heard.get(timeout=PATIENCE_S) == LinkUp()
    broker.device("van-9")  # Another key, in the same files; the first certificate is revoked.
    assert refresh(broker.authority) == []
    link.return_anew()
    assert isinstance(heard.get(timeout=PATIENCE_S), LinkDown)
    assert heard.get(timeout=PATIENCE_S) == LinkUp()
    link.close()


def test_ingest_workers_share_what_agents_say(broker: ProductionBroker, van_1: Tls) -> None:
    shared = "$share/ingest/ww/main/+/up/telemetry"
    with (
        rude(broker.hub_port, broker.hub(), "ingest-1") as first,
        rude(broker.hub_port, broker.hub(), "ingest-2") as second,
        rude(broker.agents_port, van_1) as agent,
    ):
        first.listen(shared)
        second.listen(shared)
        for number in range(10):
            assert agent.say("ww/main/van-1/up/telemetry", b"%d" % number) == "taken"
        heard = [each.hears()[1] for each in (first, second) for _ in range(5)]
    assert sorted(heard) == [b"%d" % number for number in range(10)]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_the_embedded_broker_refuses_to_listen_beyond_the_loopback(host: str) -> None:
    with pytest.raises(NotLoopback, match="use Mosquitto"):
        serve(1883, host)


def test_every_pattern_of_the_access_list_names_its_agent_or_the_hub() -> None:
    patterns = [line for line in access_list("north").splitlines() if line.startswith("pattern")]
    assert [line for line in patterns if "%u" not in line] == [
        f"pattern read {topics.hub_presence('north')}", f"pattern read {topics.ingest_presence('north')}"
    ]  # fmt: skip
    assert f"pattern read {topics.down('north', AgentId('%u'), 'commands')}" in patterns
