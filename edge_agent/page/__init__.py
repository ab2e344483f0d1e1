"""Show the driver the day, and put what the driver says before the agent: HTTP on the machine itself.

The day arrives as bytes after each commit that changed it; waiting readers are woken (long poll). What is posted is
checked for its form here and decided by the core; nonsense gets a problem+json answer, is counted by name, and the
process lives.
"""

import http.server
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as AnswerLate
from datetime import UTC, datetime, timedelta, tzinfo
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from edge_agent.dialogue import (
    Asked,
    ChangeSaid,
    CountersAsked,
    HeadingSaid,
    OutcomeSaid,
    Reply,
    Said,
    ShiftSaid,
)
from shared.logs import log

LONG_POLL_S = 20.0
ANSWER_WITHIN_S = 10.0
MOST_BODY_BYTES = 65_536
MOST_READERS = 64
"""Connections at once: a driver, a few technicians, and room for browsers that keep several open."""
IDLE_S = 60.0
LONGEST_KEY = 200

_SAYS: dict[str, type[Said]] = {
    "/api/shift": ShiftSaid,
    "/api/heading": HeadingSaid,
    "/api/change": ChangeSaid,
    "/api/outcome": OutcomeSaid,
}
_KNOWN = {"/", "/healthz", "/api/day", "/api/counters", *_SAYS}


class PortTaken(OSError):
    """The page's port cannot be listened on."""


class Refused(Exception):
    """What came is no request the page knows."""

    def __init__(self, status: HTTPStatus, name: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.name, self.detail = status, name, detail


class Page:
    """The page of one agent, on threads of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        ask: Callable[[Any], "Future[Any]"],
        now_ms: Callable[[], int],
        zone: tzinfo = UTC,
    ) -> None:
        """`ask` puts an event before the core and promises its answer; `zone` is where the driver's clock hangs.

        Port 0 takes any free one. Raises PortTaken.
        """
        self.refused: Counter[str] = Counter()
        self.more_counters: Callable[[], dict[str, int]] = dict
        """Counters of others on this machine, shown beside the core's own."""
        self._ask = ask
        self._now_ms = now_ms
        self._zone = zone
        self._day: bytes | None = None
        self._revision = -1
        self._changed = threading.Condition()
        self._is_closing = False
        self._readers = threading.Semaphore(MOST_READERS)
        page = self

        class Door(_Door):
            pass

        Door.page = page
        try:
            self._server = _Server((host, port), Door)
        except (OSError, OverflowError) as taken:
            raise PortTaken(f"the page cannot listen on {host}:{port}: {taken}; set page_port to another one") from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="page", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Wake who waits and stop answering."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def show(self, day: bytes) -> None:
        """The day as it is from now on: a JSON object that opens with its `revision`."""
        revision = int(day[len(b'{"revision":') : day.index(b",")])
        with self._changed:
            self._day, self._revision = day, revision
            self._changed.notify_all()

    def day_after(self, revision: int | None, patience_s: float = LONG_POLL_S) -> bytes:
        """The day, at once when it is another than that revision, else when it changes or patience ends.

        Raises Refused while the agent has not taken its first step.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closing or (self._day is not None and self._revision != revision), patience_s
            )
            day = self._day
        if day is None:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "NotReady", "the agent is starting; ask again")
        now_ms = self._now_ms()
        offset = datetime.fromtimestamp(now_ms / 1000, self._zone).utcoffset() or timedelta()
        return b'{"now_ms":%d,"utc_offset_s":%d,' % (now_ms, offset.total_seconds()) + day[1:]

    def html(self) -> bytes:
        """The page with the day already in it, so that the first paint waits for nothing."""
        day = b"null" if self._day is None else self.day_after(None, 0)
        return _html().replace(b"<!--day-->", _inside_script(day))

    def ask(self, event: Any) -> Any:
        """The core's answer; raises Refused when it does not come."""
        try:
            return self._ask(event).result(ANSWER_WITHIN_S)
        except AnswerLate:
            detail = f"the agent did not answer within {ANSWER_WITHIN_S:.0f} s; say it again with the same key"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "AnswerLate", detail) from None

    def has_room(self) -> bool:
        """Take one of the places for readers, if there is one left."""
        return self._readers.acquire(blocking=False)

    def leave(self) -> None:
        """Give the place back."""
        self._readers.release()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who hangs up in the middle of a sentence is no news."""


class _Door(http.server.BaseHTTPRequestHandler):
    """One connection."""

    page: Page
    protocol_version = "HTTP/1.1"
    server_version = "waywarden"
    sys_version = ""
    timeout = IDLE_S
    disable_nagle_algorithm = True

    def handle(self) -> None:
        if not self.page.has_room():
            self.page.refused["PageFull"] += 1
            self.close_connection = True
            return
        try:
            super().handle()
        finally:
            self.page.leave()

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, act: Callable[[str, dict[str, list[str]]], None]) -> None:
        try:
            try:
                parts = urlsplit(self.path)
                query = parse_qs(parts.query, max_num_fields=8)
            except ValueError as wrong:
                raise Refused(HTTPStatus.BAD_REQUEST, "PathGarbled", f"the path cannot be read: {wrong}") from None
            act(parts.path, query)
        except Refused as refusal:
            self._refuse(refusal)
        except (OSError, TimeoutError):
            self.close_connection = True

    def _get(self, path: str, query: dict[str, list[str]]) -> None:
        match path:
            case "/":
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.page.html())
            case "/healthz":
                self._send(HTTPStatus.OK, "application/json", b'{"ok":true}')
            case "/api/day":
                self._send(HTTPStatus.OK, "application/json", self.page.day_after(_revision_in(query)))
            case "/api/counters":
                self._send(HTTPStatus.OK, "application/json", msgspec.json.encode(self._counters()))
            case _:
                raise _wrong_path(path, "GET")

    def _counters(self) -> dict[str, int]:
        found: dict[str, int] = dict(self.page.ask(CountersAsked()))
        found |= {f"refused_page_{name}": count for name, count in sorted(self.page.refused.items())}
        return found | self.page.more_counters()

    def _post(self, path: str, _query: dict[str, list[str]]) -> None:
        kind = _SAYS.get(path)
        body = self._body()
        if kind is None:
            raise _wrong_path(path, "POST")
        content_type = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            # A form on a foreign web site can post to the loopback, but not as JSON without being asked first.
            detail = f"Content-Type is '{content_type[:60]}', expected application/json"
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "NotJson", detail)
        key = self.headers.get("Idempotency-Key", "").strip()
        if not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
            detail = f"expected a header Idempotency-Key of 1 to {LONGEST_KEY} printable characters"
            raise Refused(HTTPStatus.BAD_REQUEST, "KeyMissing", detail)
        try:
            said = msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            raise Refused(HTTPStatus.BAD_REQUEST, "BodyGarbled", f"{path}: {wrong}") from None
        reply = self.page.ask(Asked(key, said))
        assert isinstance(reply, Reply)
        if reply.status < 300:
            self._send(HTTPStatus.OK, "application/json", b'{"ok":true}')
        else:
            self._problem(HTTPStatus(reply.status), reply.title, reply.detail)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "LengthMissing", "expected a Content-Length, no chunks")
        length = self.headers.get("Content-Length", "0").strip()
        if not (length.isascii() and length.isdigit() and len(length) < 10):
            self.close_connection = True
            raise Refused(HTTPStatus.BAD_REQUEST, "LengthGarbled", f"Content-Length is '{length[:20]}'")
        if int(length) > MOST_BODY_BYTES:
            self.close_connection = True
            detail = f"{length} bytes, expected at most {MOST_BODY_BYTES}"
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BodyTooLarge", detail)
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            self.close_connection = True
            raise Refused(HTTPStatus.BAD_REQUEST, "BodyCutShort", f"{len(body)} bytes of {length}")
        return body

    def _refuse(self, refusal: Refused) -> None:
        self.page.refused[refusal.name] += 1
        if self.page.refused[refusal.name] == 1:
            log("page_refused", name=refusal.name, status=int(refusal.status), detail=refusal.detail)
        self._problem(refusal.status, refusal.name, refusal.detail)

    def _problem(self, status: HTTPStatus, title: str, detail: str) -> None:
        body = msgspec.json.encode({"type": "about:blank", "status": int(status), "title": title, "detail": detail})
        self._send(status, "application/problem+json", body)

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
        )
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself, such as a request line that is none."""
        self.close_connection = True
        try:
            status = HTTPStatus(code)
        except ValueError:
            status = HTTPStatus.BAD_REQUEST
        if not hasattr(self, "command") or self.command is None:
            self.command = ""
        if not hasattr(self, "request_version"):
            self.request_version = "HTTP/1.1"
        self._refuse(Refused(status, "RequestGarbled", message or explain or status.phrase))

    def log_message(self, format: str, *args: Any) -> None:
        """The page keeps no log of who looked."""


def _revision_in(query: dict[str, list[str]]) -> int | None:
    after = query.get("after", [""])[-1]
    if not after:
        return None
    digits = after.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        detail = f"after is '{after[:40]}', expected the revision last seen"
        raise Refused(HTTPStatus.BAD_REQUEST, "RevisionGarbled", detail)
    return int(after)


def _wrong_path(path: str, method: str) -> Refused:
    if path in _KNOWN:
        return Refused(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", f"{path} does not answer to {method}")
    return Refused(HTTPStatus.NOT_FOUND, "PathUnknown", f"'{path[:100]}' is not one of {', '.join(sorted(_KNOWN))}")


def _html() -> bytes:
    return files("edge_agent.page").joinpath("index.html").read_bytes()


def _inside_script(json: bytes) -> bytes:
    """JSON that may stand inside a script element, whatever texts it holds (HTML standard, 4.12.1.3)."""
    return json.replace(b"<", b"\\u003c")
