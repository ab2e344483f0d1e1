"""One MQTT 5 link: what is heard goes to a queue, what is said leaves only while the link is up.

Nothing is queued here for later. What must not be lost is repeated by its
stream until the other side has committed it, so an outage costs the link
no memory and its end brings no burst of stale messages.
"""

import random
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from shared.steps import Envelope, LinkDown, LinkUp

__all__ = ["BrokerUrlWrong", "Heard", "Link", "LinkDown", "LinkEvent", "LinkUp"]

SIGNATURE = "sig"
"""The MQTT user property that carries a signature."""

KEEP_ALIVE_S = 10


class BrokerUrlWrong(ValueError):
    """Not mqtt://HOST:PORT."""


class Heard(msgspec.Struct, frozen=True):
    """A message from the broker, as bytes."""

    topic: str
    payload: bytes
    signature: str | None


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
    ) -> None:
        """`hear` is called from the network's thread and must only put the event on a queue. Raises BrokerUrlWrong."""
        self._host, self._port = broker_address(url)
        self._subscriptions = [(topic, 0 if topic.endswith("/acks") else 1) for topic in subscriptions]
        self._hear = hear
        self._sign = sign
        self._is_up = False
        self.refused: Counter[str] = Counter()
        """Publishes the broker did not take, by reason. They are undelivered; their stream repeats them."""
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._published
        client.on_socket_open = _at_once
        # paho waits a fixed, doubling time; a draw of our own keeps a fleet from returning in step.
        client.reconnect_delay_set(min_delay=1, max_delay=4 + random.randrange(5))
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.is_retained)
        self._client = client

    def open(self) -> None:
        """Begin to connect, in a thread of its own."""
        self._client.connect_async(self._host, self._port, KEEP_ALIVE_S, clean_start=True)
        self._client.loop_start()

    def close(self) -> None:
        """Say goodbye and stop the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def is_up(self) -> bool:
        """Whether the broker is within reach, as far as we know."""
        return self._is_up

    def publish(self, envelope: Envelope) -> bool:
        """Hand a message to the network; False when there is none and it has to be said again."""
        if not self._is_up:
            return False
        properties = None
        if envelope.is_signed and self._sign is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own gap.
            properties.UserProperty = (SIGNATURE, self._sign(envelope.topic, envelope.payload))
        self._client.publish(
            envelope.topic, envelope.payload, envelope.qos, envelope.is_retained, properties=properties
        )
        return True

    def _connected(self, client: Client, _: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self._hear(LinkDown(f"broker refuses us: {reason}"))
            return
        if self._subscriptions:
            client.subscribe(list(self._subscriptions))
        self._is_up = True
        self._hear(LinkUp())

    def _disconnected(self, _client: Client, _: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if self._is_up:
            self._is_up = False
            self._hear(LinkDown(str(reason)))

    def _received(self, _client: Client, _: Any, message: MQTTMessage) -> None:
        said = getattr(message.properties, "UserProperty", [])
        signature = next((value for name, value in said if name == SIGNATURE), None)
        self._hear(Heard(message.topic, bytes(message.payload), signature))

    def _published(self, _client: Client, _: Any, _mid: int, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self.refused[str(reason)] += 1


def _at_once(_client: Client, _: Any, sock: Any) -> None:
    """Small packets leave at once: waiting for the peer's delayed ack cost 40 ms for each of a message's hops."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def broker_address(url: str) -> tuple[str, int]:
    """Host and port of mqtt://HOST:PORT, port 1883 when none is given. Raises BrokerUrlWrong."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 1883
    except ValueError:
        host, port, parts = None, 0, None
    if parts is None or parts.scheme != "mqtt" or not host:
        raise BrokerUrlWrong(f"broker is '{url}', expected mqtt://HOST:PORT")
    return host, port
