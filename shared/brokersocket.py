"""The socket between paho and the broker: reads much at once, and hands messages over before paho unpacks them.

paho reads a packet's first bytes one system call at a time and answers each message with one more: 45 us of CPU, more
than everything else the hub does for 100 samples. Here a message costs 3.5 us; connecting, subscribing, keeping alive
and publishing stay paho's. It is given this socket in place of its own and sees every packet but a PUBLISH.
"""

import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from shared.packets import Heard, PacketWrong, sort_out

READ_BYTES = 1 << 18
MOST_UNSENT = 1 << 20
"""Bytes that may wait for a broker that does not read; more is refused, and said again by whoever said it."""


class BrokerSocket:
    """A connected, non-blocking socket (plain or TLS) as paho uses it. `recv` and `pending` belong to paho's thread."""

    def __init__(self, sock: Any, hear: Callable[[list[Heard]], None], gather_s: float = 0.0) -> None:
        """`hear` gets messages in the order they came, in paho's thread, before the broker is told that we have them.
        Under load `gather_s` passes between two looks, so that one look finds more than one message.
        """
        self._sock = sock
        self._hear = hear
        self._gather_s = gather_s
        self._looked_at = 0.0
        self._stream = b""
        self._has_more = False
        self._left = b""
        # One for both ways: a TLS connection may not be read and written at the same time.
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self._is_between = True

    def recv(self, size: int) -> bytes:
        """What paho is to see, at most so many bytes; empty at the end. Raises BlockingIOError when there is nothing,
        ConnectionError when the broker does not speak MQTT.
        """
        if not self._left and not self._fill():
            return b""
        piece, self._left = self._left[:size], self._left[size:]
        return piece

    def pending(self) -> int:
        """How many bytes wait here or in the TLS layer, where select() cannot see them."""
        with self._lock:
            self._flush()
            below = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return len(self._left) + int(self._has_more) + int(below)

    def send(self, packets: bytes | bytearray) -> int:
        """Send what paho has, and say how much of it went. Raises BlockingIOError when nothing goes now."""
        with self._lock:
            if not self._flush():
                raise BlockingIOError("the socket is full")
            # paho gives the rest of one packet; only when all of it went may another one follow.
            self._is_between = False
            sent = int(self._sock.send(packets))
            self._is_between = sent == len(packets)
            return sent

    def say(self, packets: bytes) -> bool:
        """Send whole packets from any thread; False when too much waits already."""
        with self._lock:
            if len(self._unsent) + len(packets) > MOST_UNSENT:
                return False
            self._unsent += packets
            if self._is_between:
                self._flush()
            return True

    def fileno(self) -> int:
        """For select()."""
        return int(self._sock.fileno())

    def setblocking(self, flag: bool) -> None:
        """As of a socket."""
        self._sock.setblocking(flag)

    def setsockopt(self, *option: int) -> None:
        """As of a socket."""
        self._sock.setsockopt(*option)

    def close(self) -> None:
        """As of a socket; what was not sent is lost."""
        with self._lock:
            self._is_between = False
            self._sock.close()

    def _fill(self) -> bool:
        """Look for packets until there is one for paho; False at the end of the stream."""
        if not self._has_more:
            self._gather()
            with self._lock:
                came = self._sock.recv(READ_BYTES)
            if not came:
                return False
            self._stream += came
        try:
            heard, answers, self._left, used = sort_out(self._stream)
        except PacketWrong as wrong:
            raise ConnectionError(f"the broker sent what is no MQTT: {wrong}") from None
        # Left over after a CONNACK: paho hears of the connection before anybody hears what comes over it.
        self._has_more = bool(self._left) and used < len(self._stream)
        self._stream = self._stream[used:]
        if heard:
            self._hear(heard)
            if answers:
                self.say(answers)
        if not self._left:
            raise BlockingIOError("nothing for paho")
        return True

    def _gather(self) -> None:
        if self._gather_s and not (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()):
            now_s = time.monotonic()
            if now_s - self._looked_at < 2 * self._gather_s:
                time.sleep(self._gather_s)
                now_s += self._gather_s
            self._looked_at = now_s

    def _flush(self) -> bool:
        """Send what waits, under the lock; whether all of it went."""
        if self._unsent and self._is_between:
            try:
                del self._unsent[: self._sock.send(self._unsent)]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except OSError:
                self._unsent.clear()  # Gone with the connection, which paho finds out about when it reads.
        return not self._unsent
