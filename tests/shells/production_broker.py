"""A production broker for tests: Mosquitto by our own configuration, an authority, enrolled devices, rude clients."""

import queue
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from cloud_hub.authority import Authority, secret_of
from deploy.mosquitto import BrokerPlan, program, render
from deploy.stack import Stack, free_ports
from edge_agent.enrolment import PKCS8_ED25519, certificate_request
from shared.tls import Tls
from tests.needs import needs

PATIENCE_S = 10.0
SILENCE_S = 0.15
REGION = "main"


class ProductionBroker:
    """Mosquitto as `waywarden mosquitto` sets it up, on ports of its own."""

    def __init__(self, folder: Path, stack: Stack, names: tuple[str, ...], more: dict[str, str]) -> None:
        self.folder = folder
        self.stack = stack
        self.authority = Authority(folder / "authority")
        self.agents_port, self.hub_port = free_ports(2)
        self.home = folder / "broker"
        plan = BrokerPlan(REGION, names, "127.0.0.1", self.agents_port, "127.0.0.1", self.hub_port)
        render(self.home, plan, self.authority)
        for name, text in more.items():
            (self.home / "conf.d" / name).write_text(text)
        stack.start_program("mosquitto", str(program()), "-c", str(self.home / "mosquitto.conf"))
        stack.wait_for_port("mosquitto", self.agents_port)

    @property
    def agents_url(self) -> str:
        """Where agents connect."""
        return f"mqtts://localhost:{self.agents_port}"

    @property
    def hub_url(self) -> str:
        """Where the hub's processes connect."""
        return f"mqtts://localhost:{self.hub_port}"

    def device(self, agent: str, authority: Authority | None = None, name: str = "") -> Tls:
        """An enrolled machine's files, of this broker's authority or of another one."""
        by = authority or self.authority
        key = SigningKey.generate()
        made = by.enrol(secret_of(by.invite(agent).token), certificate_request(key))
        return self.files(name or agent, made.certificate.encode(), key, by)

    def files(self, name: str, certificate: bytes, key: SigningKey, by: Authority | None = None) -> Tls:
        """PEM files of a certificate and its key."""
        der = PKCS8_ED25519 + key.encode()
        folder = self.folder / "devices"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.crt").write_bytes(certificate)
        (folder / f"{name}.key").write_text(ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", "PRIVATE KEY"))
        (folder / f"{name}.key").chmod(0o600)
        ca = str(self.authority.folder / "ca.crt")
        return Tls(ca, str(folder / f"{name}.crt"), str(folder / f"{name}.key"))

    def hub(self) -> Tls:
        """What the hub's processes prove themselves by."""
        certificate, key = self.authority.process()
        return Tls(str(self.authority.folder / "ca.crt"), str(certificate), str(key))

    def last_log(self, words: str) -> str:
        """The last line of the broker's log with these words; "" when there is none."""
        lines = (self.stack.folder / "mosquitto.log").read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if words in line), "")

    def logs(self, words: str) -> None:
        """Return when the broker's log has these words."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.last_log(words):
            assert time.monotonic() < deadline, f"the broker never said '{words}'"
            time.sleep(0.02)


@contextmanager
def production_broker(
    more: dict[str, str] | None = None, names: tuple[str, ...] = ("localhost", "127.0.0.1")
) -> Iterator[ProductionBroker]:
    """A broker in a folder of its own that the user it becomes may enter; gone afterwards. `more` is configuration by
    file name.
    """
    needs(program(), "mosquitto: apt install mosquitto")
    folder = Path(tempfile.mkdtemp(prefix="waywarden-broker-"))
    folder.chmod(0o755)
    try:
        with Stack(folder / "logs", {}) as stack:
            yield ProductionBroker(folder, stack, names, more or {})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Rude:
    """A client that tries what ours would not: any topic, any will, retained, out of bounds."""

    def __init__(
        self,
        port: int,
        tls: Tls | ssl.SSLContext,
        client_id: str = "rude",
        *,
        will: tuple[str, bytes, bool] | None = None,
        in_flight: int = 20,
        is_slow: bool = False,
    ) -> None:
        self.heard: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self.answered: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.published: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self.granted: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.closed: queue.SimpleQueue[str] = queue.SimpleQueue()
        client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False
        )
        client.tls_set_context(tls.context() if isinstance(tls, Tls) else tls)
        client.max_inflight_messages_set(in_flight)
        client.on_connect = lambda _c, _u, _f, reason, _p: self.answered.put(str(reason))
        client.on_message = lambda _c, _u, message: self.heard.put((message.topic, bytes(message.payload)))
        client.on_publish = lambda _c, _u, mid, reason, _p: self.published.put(
            (mid, str(reason) if reason.is_failure else "taken")
        )
        client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.granted.put([str(one) for one in reasons])
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self.closed.put(str(reason))
        if will is not None:
            client.will_set(will[0], will[1], 1, will[2])
        client.manual_ack_set(is_slow)
        self.client = client
        client.connect("localhost", port, 30, clean_start=True)
        client.loop_start()

    def connected(self) -> "Rude":
        """Wait until the broker has taken us."""
        assert self.answered.get(timeout=PATIENCE_S) == "Success"
        return self

    def say(self, topic: str, payload: bytes = b"x", qos: int = 1, is_retained: bool = False) -> str:
        """Publish, and what the broker said to it: "taken", or why not."""
        info = self.client.publish(topic, payload, qos, is_retained)
        while True:
            mid, reason = self.published.get(timeout=PATIENCE_S)
            if mid == info.mid:
                return reason

    def listen(self, *topics: str) -> list[str]:
        """Subscribe, and what the broker granted."""
        self.client.subscribe([(topic, 1) for topic in topics])
        return self.granted.get(timeout=PATIENCE_S)

    def hears(self) -> tuple[str, bytes]:
        """The next message."""
        return self.heard.get(timeout=PATIENCE_S)

    def hears_nothing(self) -> bool:
        """Whether nothing comes for a while."""
        try:
            self.heard.get(timeout=SILENCE_S)
        except queue.Empty:
            return True
        return False

    def fall(self) -> None:
        """End without a goodbye."""
        sock = self.client.socket()
        assert sock is not None
        sock.shutdown(2)  # type: ignore[attr-defined]  # paho's protocol of a socket names less than it is.

    def close(self) -> None:
        """Say goodbye."""
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def rude(port: int, tls: Tls | ssl.SSLContext, client_id: str = "rude", **more: Any) -> Iterator[Rude]:
    """A rude client that is connected."""
    client = Rude(port, tls, client_id, **more).connected()
    try:
        yield client
    finally:
        client.close()


def eventually(claim: Callable[[], bool], what: str) -> None:
    """Return when the claim holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, f"in vain for {PATIENCE_S} s: {what}"
        time.sleep(0.02)
