"""Let nobody hold the hub's connections without asking anything.

A connection costs nothing to open and a file descriptor to keep, and the core's disk, its database and its broker need
descriptors too. So there are only so many at once, of one address fewer, and one that has not asked its whole question
in time is closed. An answer may take as long as it likes: the feed's has no end.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 500
"""Half of what systemd gives a process (1,024)."""

MOST_OF_ONE = 100
"""Of one address, but for this machine's own, where a proxy may stand: a browser opens six."""

HERE = ("127.0.0.1", "::1")


class Patient(H11Protocol):
    """uvicorn's own way of speaking HTTP, within bounds."""

    patience_s = 20.0
    """How long a question may take to arrive; up to twice as long when it comes in pieces."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As uvicorn's own.
        """Keep the connection, or refuse it without a word."""
        super().connection_made(transport)
        others: list[Any] = list(self.connections)
        of_this = sum(1 for one in others if one.client and self.client and one.client[0] == self.client[0])
        is_here = self.client is not None and self.client[0] in HERE
        if len(others) > MOST_CONNECTIONS or (of_this > MOST_OF_ONE and not is_here):
            transport.abort()
            return
        self.loop.call_later(self.patience_s, self._look, None)

    def _look(self, former: Any) -> None:
        """Close when the question is the same as before and still not whole, or there has been none."""
        if self.transport.is_closing():
            return
        asked = self.cycle
        is_waiting = asked is None or asked.response_complete or asked.more_body
        if is_waiting and asked is former:
            self.transport.abort()
            return
        self.loop.call_later(self.patience_s, self._look, asked if is_waiting else self)
