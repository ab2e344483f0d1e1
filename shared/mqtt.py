"""One MQTT 5 link: what is heard goes to a queue, what is said leaves only while the link is up.

Nothing is queued here for later. What must not be lost is repeated by its
stream until the other side has committed it, so an outage costs the link
no memory and its end brings no burst of stale messages.
"""

import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from shared.brokersocket import BrokerSocket
from shared.logs import log, told
from shared.packets import SIGNATURE, Heard, publish
from shared.steps import Envelope, LinkDown, LinkUp
from shared.tls import Tls, TlsUnusable

__all__ = ["BrokerUrlWrong", "Heard", "Link", "LinkDown", "LinkEvent", "LinkUp", "Tls", "TlsUnusable"]

KEEP_ALIVE_S = 10

MOST_IN_FLIGHT = 20
"""Messages of ours the broker has not acknowledged; deploy/mosquitto grants more. paho does not heed what it grants."""

ROOM_FOR_HEADING = 512
"""Bytes of a packet around its payload: topic, signature and lengths."""

SOON_S = 60.0
"""For so long after a loss the link tries about twice a second, then less and less often."""

LONGEST_PAUSE_S = 30.0
SHORT_LIVED_S = 10.0
"""A connection that ends sooner was none: whoever is thrown out again and again tries less and less often."""


class BrokerUrlWrong(ValueError):
    """Not mqtt://HOST:PORT or mqtts://HOST:PORT."""


class BrokerAddress(NamedTuple):
    """Where the broker is, and whether it is spoken to over TLS."""

    host: str
    port: int
    is_tls: bool


LinkEvent = LinkUp | LinkDown | Heard


class Link:
    """A connection to the broker that comes back by itself."""

    def __init__(
        self,
        url: str,
        client_id: str,
        subscriptions: Sequence[str],
        hear: Callable[[LinkEvent], None],
        *,
        will: Envelope | None = None,
        sign: Callable[[str, bytes], str] | None = None,
        hear_all: Callable[[list[Heard]], None] | None = None,
        gather_s: float = 0.0,
        tls: Tls | None = None,
    ) -> None:
        """`hear` is called from the network's thread and must only put the event on a queue.

        `tls` is what we prove ourselves by at mqtts://; its files are read anew for each connection. Raises
        BrokerUrlWrong, and TlsUnusable when the files cannot be used or are missing at mqtts://.

        `hear_all`, when given, gets messages in its place, as many at once as have come; `gather_s` lets more come at
        once when there are many (see BrokerSocket).
        """
        self._host, self._port, is_tls = broker_address(url)
        self._subscriptions = [(topic, _options(topic)) for topic in subscriptions]
        self._hear = hear
        self._sign = sign
        self._is_up = False
        self._most_bytes = 0
        self._up_s = self._lost_s = time.monotonic()
        self.refused: Counter[str] = Counter()
        """Publishes the broker did not take, by reason. They are undelivered; their stream repeats them."""
        client = _Client(hear_all or self._hear_each, gather_s, client_id)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_publish = self._published
        client.on_socket_open = _at_once
        client.on_connect_fail = self._not_connected
        client.max_inflight_messages_set(MOST_IN_FLIGHT)
        if is_tls:
            if tls is None:
                raise TlsUnusable(f"broker is '{url}', which needs tls_ca, tls_certificate and tls_key")
            context = tls.context()
            client.tls_set_context(context)
            client.on_pre_connect = lambda *_: _refresh(tls, context)
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.is_retained)
        self._client = client

    def open(self) -> None:
        """Begin to connect, in a thread of its own."""
        self._lost_s = time.monotonic()
        self._plan_return()
        self._client.connect_async(self._host, self._port, KEEP_ALIVE_S, clean_start=True)
        self._client.loop_start()

    def return_anew(self) -> None:
        """Break the connection and come back, with whatever the certificate files hold by then."""
        opened = self._client.socket()
        if opened is not None:
            with socket.socket(fileno=os.dup(opened.fileno())) as connection:
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say goodbye and stop the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def is_up(self) -> bool:
        """Whether the broker is within reach, as far as we know."""
        return self._is_up

    def publish(self, envelope: Envelope) -> bool:
        """Hand a message to the network; False when there is none and it has to be said again.

        What is larger than the broker takes is refused here and counted: it would end the connection, again and again.
        """
        if not self._is_up:
            return False
        if self._most_bytes and len(envelope.payload) + ROOM_FOR_HEADING > self._most_bytes:
            self.refused[f"larger than {self._most_bytes} bytes"] += 1
            return True
        properties = None
        if envelope.is_signed and self._sign is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own gap.
            properties.UserProperty = (SIGNATURE, self._sign(envelope.topic, envelope.payload))
        self._client.publish(
            envelope.topic, envelope.payload, envelope.qos, envelope.is_retained, properties=properties
        )
        return True

    def publish_all(self, envelopes: Sequence[Envelope]) -> bool:
        """Hand over messages of QoS 0 that bear no signature, all in one piece, from any thread; False when there is
        no network or it is full.
        """
        assert not any(one.qos or one.is_signed or one.is_retained for one in envelopes), "plain messages only"
        opened = self._client.opened
        if not self._is_up or opened is None:
            return False
        return opened.say(b"".join(publish(one.topic, one.payload) for one in envelopes))

    def _hear_each(self, heard: list[Heard]) -> None:
        for message in heard:
            self._hear(message)

    def _connected(self, client: Client, _: Any, _flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._plan_return()
            self._hear(LinkDown(f"broker refuses us: {reason}"))
            return
        # What was on its way when the link went is repeated by its stream. paho would repeat it too, and a message the
        # broker throws us out for would throw us out for ever.
        client.drop_out_messages()
        self._most_bytes = int(getattr(properties, "MaximumPacketSize", 0))
        if self._subscriptions:
            client.subscribe(list(self._subscriptions))
            self._client.send_waiting()  # Before `publish_all` can say anything: it does not wait in paho's queue.
        self._is_up = True
        self._up_s = time.monotonic()
        self._hear(LinkUp())

    def _disconnected(self, _client: Client, _: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if self._is_up:
            self._is_up = False
            if time.monotonic() - self._up_s > SHORT_LIVED_S:
                self._lost_s = time.monotonic()
            self._hear(LinkDown(str(reason)))
        self._plan_return()

    def _not_connected(self, _client: Client, _: Any) -> None:
        self._plan_return()

    def _plan_return(self) -> None:
        """Have paho wait as long as `pause_s` says: its own wait doubles, and brings a fleet back in step."""
        away_s = time.monotonic() - self._lost_s
        wait_s = pause_s(away_s, random.random())
        self._client.reconnect_delay_set(wait_s, wait_s)  # type: ignore[arg-type]  # It adds and compares, no more.
        # A hop that swallows what is sent must not hold a link up for long, nor may a slow one be given up too soon.
        self._client.patience_s = 3.0 if away_s < SOON_S else 10.0

    def _published(self, _client: Client, _: Any, _mid: int, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self.refused[str(reason)] += 1


class _Client(Client):
    """paho on a socket of ours. `_create_socket` is the one place of paho's inside that we replace; test_mqtt says when
    it is gone.
    """

    opened: BrokerSocket | None = None
    patience_s = 3.0
    """How long connecting and each step of the TLS handshake may take."""

    def __init__(self, hear: Callable[[list[Heard]], None], gather_s: float, client_id: str) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        self._hear_all = hear
        self._gather_s = gather_s

    def _thread_main(self) -> None:
        """Keep the network's thread alive whatever happens in it: paho would let it end without a word."""
        try:
            while True:
                try:
                    self.loop_forever(retry_first_connection=True)
                    return
                except Exception as broken:  # noqa: BLE001 - the outermost loop of a thread.
                    log("link_broken", error=told(broken), then="the connection is made anew")
                    self._sock_close()
                    self._do_on_disconnect(packet_from_broker=False, v1_rc=MQTTErrorCode.MQTT_ERR_UNKNOWN)
        finally:
            self._thread = None

    def send_waiting(self) -> None:
        """Send what was just asked of paho, from one of its callbacks, where its own way would wait for itself."""
        self._packet_write()

    def _create_socket(self) -> Any:
        self._connect_timeout = self.patience_s  # Its public setter is for clients that have never connected.
        self.opened = BrokerSocket(super()._create_socket(), self._hear_all, self._gather_s)
        return self.opened


def _at_once(_client: Client, _: Any, sock: Any) -> None:
    """Small packets leave at once: waiting for the peer's delayed ack cost 40 ms for each of a message's hops."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def pause_s(away_s: float, draw: float) -> float:
    """How long to wait before trying again after so many seconds away; `draw` is uniform over 0 to 1.

    In the first minute 0.1 to 1.1 s, so that 95 of 100 are back within 1.5 s of the broker's return. Then the longest
    pause grows with the time away to half a minute: phones' data and batteries are for those who have a network.
    """
    if away_s < SOON_S:
        return 0.1 + draw
    longest_s = min(LONGEST_PAUSE_S, 1.0 + (away_s - SOON_S) / 10)
    return longest_s * (0.5 + 0.5 * draw)


def _refresh(tls: Tls, context: Any) -> None:
    try:
        tls.refresh(context)
    except TlsUnusable as wrong:
        raise ConnectionError(str(wrong)) from None  # What paho takes for "not now": it tries again.


def _options(topic: str) -> SubscribeOptions:
    """Retained messages are believed of presence only, which is never repeated otherwise."""
    kept = (
        SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
        if topic.endswith("/presence")
        else SubscribeOptions.RETAIN_DO_NOT_SEND
    )
    return SubscribeOptions(qos=0 if topic.endswith("/acks") else 1, retainHandling=kept)


def broker_address(url: str) -> BrokerAddress:
    """Where mqtt://HOST:PORT or mqtts://HOST:PORT is, port 1883 or 8883 when none is given. Raises BrokerUrlWrong."""
    try:
        parts = urlsplit(url)
        is_tls = parts.scheme == "mqtts"
        host, port = parts.hostname, parts.port or (8883 if is_tls else 1883)
    except ValueError:
        raise BrokerUrlWrong(f"broker is '{url}', expected mqtt://HOST:PORT or mqtts://HOST:PORT") from None
    if parts.scheme not in ("mqtt", "mqtts") or not host:
        raise BrokerUrlWrong(f"broker is '{url}', expected mqtt://HOST:PORT or mqtts://HOST:PORT")
    return BrokerAddress(host, port, is_tls)
