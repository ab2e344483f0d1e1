"""Look at a broker by connecting to it as our links do: whether it lets us in, and grants what we need."""

import queue
import secrets
import time
from collections.abc import Iterator
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from deploy.doctor.findings import Finding, worth_a_look
from shared.mqtt import MOST_IN_FLIGHT, ROOM_FOR_HEADING, BrokerUrlWrong, broker_address
from shared.tls import Tls, TlsUnusable
from shared.wire import MOST_BYTES

PATIENCE_S = 4.0
QUIET_S = 0.5
START = "systemctl restart mosquitto; its log: journalctl -u mosquitto"
ANEW = "waywarden mosquitto /etc/waywarden/broker --name NAME --settings hub.toml, then restart Mosquitto"
VERSION = "$SYS/broker/version"
DROPPED = "$SYS/broker/publish/messages/dropped"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def broker(url: str, tls: Tls | None, client_id: str = "", asks_figures: bool = False) -> Iterator[Finding]:
    """What there is to say of a broker. A `client_id` in use ends the session of whoever uses it; none draws one.

    With `asks_figures` its own figures are asked for, which only the hub may read.
    """
    try:
        host, port, is_tls = broker_address(url)
        context = tls.context() if is_tls and tls is not None else None
    except (BrokerUrlWrong, TlsUnusable) as wrong:
        yield Finding("broker", False, str(wrong), 'broker = "mqtts://HOST:PORT" and the three files of TLS')
        return
    if not is_tls and host not in LOOPBACK:
        yield Finding("broker's wire", False, f"{url} is spoken to in clear, and asks nobody who he is", ANEW)
    heard: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    client = _client(client_id or f"doctor-{secrets.token_hex(4)}", heard)
    if context is not None:
        client.tls_set_context(context)
    try:
        client.connect(host, port, 30, clean_start=True)
    except (OSError, ValueError) as away:
        at_home = f"waywarden broker --port {port}, for demo and tests; or: {START}"
        yield Finding("broker", False, f"{url} does not let us in: {away}", START if is_tls else at_home)
        return
    client.loop_start()
    try:
        yield from _greeted(url, heard)
        if asks_figures:
            client.subscribe([(VERSION, 0), (DROPPED, 0)])
            yield from _figures(heard)
    finally:
        client.disconnect()
        client.loop_stop()


def _client(client_id: str, heard: "queue.SimpleQueue[tuple[str, Any]]") -> Client:
    client = Client(
        CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False
    )
    client.connect_timeout = PATIENCE_S
    client.on_connect = lambda _c, _u, _f, reason, granted: heard.put(("connect", (reason, granted)))
    client.on_disconnect = lambda _c, _u, _f, reason, _p: heard.put(("end", reason))
    client.on_message = lambda _c, _u, message: heard.put((message.topic, bytes(message.payload)))
    return client


def _greeted(url: str, heard: "queue.SimpleQueue[tuple[str, Any]]") -> Iterator[Finding]:
    try:
        kind, said = heard.get(timeout=PATIENCE_S)
    except queue.Empty:
        yield Finding("broker", False, f"{url} takes the connection and says nothing", START)
        return
    if kind != "connect":
        yield Finding("broker", False, f"{url} ends the connection: {said}; it may not take our certificate", START)
        return
    reason, granted = said
    if reason.is_failure:
        yield Finding("broker", False, f"{url} refuses us: {reason}; expected MQTT 5 and to be let in", ANEW)
        return
    yield Finding("broker", True, f"{url}: let in, MQTT 5")
    most_bytes = getattr(granted, "MaximumPacketSize", 0)
    most_held = getattr(granted, "ReceiveMaximum", 65_535)
    needed = MOST_BYTES + ROOM_FOR_HEADING
    yield Finding(
        "broker's limits",
        (not most_bytes or most_bytes >= needed) and most_held >= MOST_IN_FLIGHT,
        f"packets of {most_bytes or 'any number of'} bytes (we need {needed}), {most_held} under way "
        f"(we need {MOST_IN_FLIGHT})",
        ANEW,
    )
    lacks = [
        what
        for what, name in (
            ("retained messages", "RetainAvailable"),
            ("shared subscriptions", "SharedSubscriptionAvailable"),
        )
        if getattr(granted, name, 1) == 0
    ]
    if lacks:
        yield Finding("broker's features", False, f"without {' and '.join(lacks)}", ANEW)


def _figures(heard: "queue.SimpleQueue[tuple[str, Any]]") -> Iterator[Finding]:
    """What Mosquitto says of itself; another broker says nothing, and that is no fault."""
    deadline = time.monotonic() + QUIET_S
    said: dict[str, str] = {}
    while len(said) < 2 and (left_s := deadline - time.monotonic()) > 0:
        try:
            topic, payload = heard.get(timeout=left_s)
        except queue.Empty:
            break
        if topic in (VERSION, DROPPED):
            said[topic] = payload.decode(errors="replace")
    if VERSION in said:
        yield Finding("broker's version", True, said[VERSION])
    if DROPPED in said:
        yield worth_a_look(
            "broker dropped",
            said[DROPPED] == "0",
            f"{said[DROPPED]} messages since its start, each repeated by its sender",
            "look whether a hub or an ingest process was slow or away; docs/broker.md, its limits",
        )
