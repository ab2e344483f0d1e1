"""Be a hand scanner: say the label a driver points it at, and now and then misread it.

A misread loses letters or swaps one: the reader's checks (check digits, the list of what is on board) must find it.
"""

import random
import threading

from firmware_sim.devices import ByteServer

ENDINGS = {"CR": b"\r", "LF": b"\n", "CRLF": b"\r\n"}


class HandScanner:
    """A scanner on TCP and, when wanted, a serial line; says a label when told to `scan`."""

    def __init__(
        self,
        seed: int = 0,
        misread_share: float = 0.0,
        ending: str = "CR",
        host: str = "127.0.0.1",
        port: int = 0,
        has_serial_line: bool = False,
    ) -> None:
        if ending not in ENDINGS:
            raise ValueError(f"a label cannot end with {ending!r}; expected CR, LF or CRLF")
        self._random = random.Random(f"scanner {seed}")
        self._misread_share = misread_share
        self._ending = ENDINGS[ending]
        self._lock = threading.Lock()
        self._server = ByteServer(host, port, has_serial_line)
        self.url, self.serial_url, self.port = self._server.url, self._server.serial_url, self._server.port

    def start(self) -> None:
        """Nothing to do: a scanner is silent until its trigger is pulled. Here so that all devices start alike."""

    def await_listener(self, timeout_s: float = 10.0) -> bool:
        """Wait until an agent listens; False when none came in time."""
        return self._server.await_listener(timeout_s)

    def scan(self, text: str) -> str:
        """Read a label and say it; returns what was said, which differs from the label when it was misread."""
        with self._lock:
            said = self._misread(text) if self._random.random() < self._misread_share else text
            self._server.say(said.encode("ascii", "replace") + self._ending)
            return said

    def hang_up(self) -> None:
        """Drop the listeners, as a scanner does that goes out of range of its cradle."""
        self._server.hang_up()

    def stop(self) -> None:
        """Close."""
        self._server.stop()

    def _misread(self, text: str) -> str:
        if len(text) < 2:
            return text + "0"
        at = self._random.randrange(len(text))
        if self._random.random() < 0.5:
            return text[:at]
        letter = self._random.choice([other for other in "0123456789" if other != text[at]])
        return text[:at] + letter + text[at + 1 :]
