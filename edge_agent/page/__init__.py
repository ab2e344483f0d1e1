"""Show the driver the day, and put what the driver says before the agent: HTTP on the machine itself.

The day arrives as bytes after each commit that changed it; waiting readers are woken (long poll). What is posted is
checked for its form here and decided by the core; nonsense gets a problem+json answer, is counted by name, and the
process lives. When the plan is locked, nothing of the day leaves without the token of the shift.

    door      one connection: paths, limits, problems      sessions  the token of a shift in a cookie
    hearing   bodies as what somebody said                 barcodes  barcodes in pictures
    assets    the files of the page (index.html, page.css, page.js and its optional scripts, words/)
"""

import ssl
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as AnswerLate
from datetime import UTC, datetime, timedelta, tzinfo
from http import HTTPStatus
from typing import Any

import msgspec

from edge_agent.dialogue import Entry
from edge_agent.page.assets import page_html
from edge_agent.page.door import Door, Server
from edge_agent.page.hearing import Refused
from edge_agent.page.sessions import Sessions, digest_of

__all__ = ["CertificateUnusable", "Page", "PortTaken", "Refused"]

LONG_POLL_S = 20.0
ANSWER_WITHIN_S = 10.0
LOOK_UP_S = 0.1
"""How often the listener looks whether it should stop."""
MOST_READERS = 64
"""Connections at once: a driver, a few technicians, and room for browsers that keep several open."""
MOST_OF_ONE = 24
"""Of them from one address: whoever holds connections open keeps out himself, not the driver."""


class PortTaken(OSError):
    """The page's port cannot be listened on."""


class CertificateUnusable(ValueError):
    """The page's certificate or key cannot be read, or they do not belong together."""


class Page:
    """The page of one agent, on threads of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        ask: Callable[[Any], "Future[Any]"],
        now_ms: Callable[[], int],
        zone: tzinfo = UTC,
        certificate: str = "",
        key: str = "",
    ) -> None:
        """`ask` puts an event before the core and promises its answer; `zone` is where the driver's clock hangs.

        With the files of a PEM certificate and its key the page is served over TLS. Port 0 takes any free one. Raises
        PortTaken and CertificateUnusable.
        """
        self.refused: Counter[str] = Counter()
        self.more_counters: Callable[[], dict[str, int]] = dict
        """Counters of others on this machine, shown beside the core's own."""
        self.first_step_within_s = ANSWER_WITHIN_S
        self.sessions = Sessions(is_secure=bool(certificate))
        self._ask = ask
        self._now_ms = now_ms
        self._zone = zone
        self._day: bytes | None = None
        self._revision = -1
        self._entry = Entry()
        self._changed = threading.Condition()
        self.is_closing = False
        self._readers: Counter[str] = Counter()
        self._doorway = threading.Lock()
        tls = _tls(certificate, key) if certificate else None
        page = self

        class OwnDoor(Door):
            pass

        OwnDoor.page = page
        try:
            self._server = Server((host, port), OwnDoor)
        except (OSError, OverflowError) as taken:
            raise PortTaken(f"the page cannot listen on {host}:{port}: {taken}; set page_port to another one") from None
        if tls is not None:
            # The handshake belongs to the connection's own thread: a client that never shakes hands stops nobody.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(LOOK_UP_S,), name="page", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Wake who waits and stop answering."""
        with self._changed:
            self.is_closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()

    def show(self, day: bytes) -> None:
        """The day as it is from now on: a JSON object that opens with its `revision`."""
        revision = int(day[len(b'{"revision":') : day.index(b",")])
        with self._changed:
            self._day, self._revision = day, revision
            self._changed.notify_all()

    def admit(self, entry: bytes) -> None:
        """Who may come in from now on: an `Entry`. Who waits for a day and may no more is told so at once."""
        known = msgspec.json.decode(entry, type=Entry)
        with self._changed:
            self._entry = known
            self._changed.notify_all()

    def admits(self, token: str) -> bool:
        """Whether the phone with this token may see the day and speak."""
        return self._entry.admits(digest_of(token) if token else "")

    def wait_for_first_step(self) -> None:
        """Return once the core has said who may enter: what is said before would come in unasked. Raises Refused."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_closing or self._day is not None, self.first_step_within_s)
            if self._day is None:
                raise _not_ready("ending" if self.is_closing else "starting")

    def day_after(self, revision: int | None, token: str = "", patience_s: float = LONG_POLL_S) -> bytes:
        """The day, at once when it is another than that revision, else when it changes or patience ends.

        Raises Refused while the agent has not taken its first step, and ShiftLocked by name for who may not see it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self.is_closing or not self.admits(token) or (self._day is not None and self._revision != revision)
                ),
                patience_s,
            )
            day, is_admitted = self._day, self.admits(token)
        if not is_admitted:
            detail = "the day is shown to who has typed the code of the shift"
            raise Refused(HTTPStatus.UNAUTHORIZED, "ShiftLocked", detail)
        if day is None or self.is_closing:
            raise _not_ready("ending" if self.is_closing else "starting")
        now_ms = self._now_ms()
        offset = datetime.fromtimestamp(now_ms / 1000, self._zone).utcoffset() or timedelta()
        return b'{"now_ms":%d,"utc_offset_s":%d,' % (now_ms, offset.total_seconds()) + day[1:]

    def html(self, token: str = "") -> bytes:
        """The page with the day already in it, so that the first paint waits for nothing."""
        if not self.admits(token):
            known = b'{"is_locked":true}'
        else:
            known = b"null" if self._day is None or self.is_closing else self.day_after(None, token, 0)
        return page_html().replace(b"<!--day-->", _inside_script(known))

    def ask(self, event: Any) -> Any:
        """The core's answer; raises Refused when it does not come."""
        try:
            return self._ask(event).result(ANSWER_WITHIN_S)
        except AnswerLate:
            detail = f"the agent did not answer within {ANSWER_WITHIN_S:.0f} s; say it again with the same key"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "AnswerLate", detail) from None

    def has_room(self, address: str) -> bool:
        """Take one of the places for readers, if there is one left for this address."""
        with self._doorway:
            if self._readers.total() >= MOST_READERS or self._readers[address] >= MOST_OF_ONE:
                return False
            self._readers[address] += 1
            return True

    def leave(self, address: str) -> None:
        """Give the place back."""
        with self._doorway:
            self._readers[address] -= 1
            self._readers += Counter()  # Without those who have left.


def _not_ready(state: str) -> Refused:
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "NotReady", f"the agent is {state}; ask again")


def _tls(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key or None)
    except (OSError, ssl.SSLError) as wrong:
        raise CertificateUnusable(
            f"page_certificate '{certificate}' with page_key '{key}': {wrong}; expected PEM files that belong together"
        ) from None
    return context


def _inside_script(json: bytes) -> bytes:
    """JSON that may stand inside a script element, whatever texts it holds (HTML standard, 4.12.1.3)."""
    return json.replace(b"<", b"\\u003c")
