"""Answer one connection of the driver's page: which path, who may, how large, and what the core says to it."""

import http.server
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from edge_agent.dialogue import Asked, CountersAsked, Reply, Said
from edge_agent.page import hearing
from edge_agent.page.assets import assets, page_html, version
from edge_agent.page.hearing import TAKES, Refused
from edge_agent.page.sessions import digest_of, token_in
from shared.logs import log

if TYPE_CHECKING:
    from edge_agent.page import Page

IDLE_S = 60.0
MOST_READ_AWAY = 16_000_000
READS = ("/", "/shell", "/healthz", "/api/day", "/api/counters")
GUARDED = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(self), microphone=(), geolocation=()"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src blob:;"
        " connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'",
    ),
)
ADMITTED_TO_ALL = ("/api/session",)


class Server(http.server.ThreadingHTTPServer):
    """Listens for the page: one thread for each connection."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], door: type["Door"]) -> None:
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, door)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection while it is open."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection is over."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Hear nothing more from anybody; answers under way are still given."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    # Not the method of a TLS socket: that one would go on in clear.
                    socket.socket.shutdown(connection, socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who hangs up in the middle of a sentence is no news."""


class Door(http.server.BaseHTTPRequestHandler):
    """One connection."""

    page: "Page"
    protocol_version = "HTTP/1.1"
    server_version = "waywarden"
    sys_version = ""
    timeout = IDLE_S
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer what comes, while there is room for one more reader."""
        address = str(self.client_address[0])
        if not self.page.has_room(address):
            self.page.refused["PageFull"] += 1
            self.close_connection = True
            return
        try:
            super().handle()
        finally:
            self.page.leave(address)

    def do_GET(self) -> None:
        """Answer a question."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Hear what somebody says."""
        self._answer(self._post)

    def _answer(self, act: Callable[[str, dict[str, list[str]]], None]) -> None:
        # Who keeps a connection open must find the next life of this agent, not the threads of the last.
        self.close_connection = self.close_connection or self.page.is_closing
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

    # What is asked for.

    def _get(self, path: str, query: dict[str, list[str]]) -> None:
        match path:
            case "/":
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.page.html(self._token()))
            case "/shell":
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", _shell())
            case "/healthz":
                self._send(HTTPStatus.OK, "application/json", b'{"ok":true}')
            case "/api/day":
                day = self.page.day_after(_revision_in(query), self._token())
                self._send(HTTPStatus.OK, "application/json", day)
            case "/api/counters":
                self._send(HTTPStatus.OK, "application/json", msgspec.json.encode(self._counters()))
            case _:
                self._send_asset(path, query)

    def _send_asset(self, path: str, query: dict[str, list[str]]) -> None:
        asset = assets().get(path.removeprefix("/"))
        if asset is None:
            raise _wrong_path(path, "GET")
        # A file asked for by the present version never changes under that name.
        is_named = query.get("v") == [version()]
        caching = "max-age=31536000, immutable" if is_named else "no-cache"
        self._send(HTTPStatus.OK, asset.content_type, asset.content, (("Cache-Control", caching),))

    def _counters(self) -> dict[str, int]:
        found: dict[str, int] = dict(self.page.ask(CountersAsked()))
        found |= {f"refused_page_{name}": count for name, count in sorted(self.page.refused.items())}
        return found | self.page.more_counters()

    # What is said.

    def _post(self, path: str, query: dict[str, list[str]]) -> None:
        body = self._body(hearing.MOST_BYTES.get(path, hearing.MOST_BODY_BYTES))
        if path not in TAKES:
            raise _wrong_path(path, "POST")
        media_type = self._media_type(path)
        key = self._key()
        token = self._token()
        self.page.wait_for_first_step()
        if path not in ADMITTED_TO_ALL and not self.page.admits(token):
            detail = "nothing is taken from who has not typed the code of the shift"
            raise Refused(HTTPStatus.UNAUTHORIZED, "ShiftLocked", detail)
        match path:
            case "/api/session":
                self._open_session(key, body)
            case "/api/scan-image":
                self._scan(key, query, body)
            case "/api/objects":
                self._reply(self._asked(key, hearing.object_in(query, media_type, body)))
            case _:
                self._reply(self._asked(key, hearing.said_in(path, body)))

    def _open_session(self, key: str, body: bytes) -> None:
        token = self.page.sessions.token_for(key)
        reply = self._asked(key, hearing.session_in(body, digest_of(token)))
        self._reply(reply, (("Set-Cookie", self.page.sessions.cookie(token)),) if reply.status < 300 else ())

    def _scan(self, key: str, query: dict[str, list[str]], body: bytes) -> None:
        """Say every barcode of the picture, until one is of a stop to come; a label carries more than one."""
        taken: Reply | None = None
        refused: Reply | None = None
        for number, scan in enumerate(hearing.scans_in(query, body)):
            reply = self._asked(f"{key}/{number}", scan)
            if reply.status < 300 and reply.found.get("stop_id"):
                taken = reply
                break
            if reply.status < 300:
                taken = taken or reply
            else:
                refused = reply
        answer = taken or refused
        assert answer is not None, "a picture without barcodes is refused before"
        self._reply(answer)

    def _asked(self, key: str, said: Said) -> Reply:
        reply = self.page.ask(Asked(key, said))
        assert isinstance(reply, Reply)
        return reply

    def _reply(self, reply: Reply, headers: tuple[tuple[str, str], ...] = ()) -> None:
        if reply.status < 300:
            body = msgspec.json.encode({"ok": True, **reply.found})
            self._send(HTTPStatus.OK, "application/json", body, headers)
        else:
            self._problem(HTTPStatus(reply.status), reply.title, reply.detail, reply.retry_after_s)

    def _media_type(self, path: str) -> str:
        found = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if found in TAKES[path]:
            return found
        name = "NotJson" if TAKES[path] == hearing.JSON else "MediaTypeUnknown"
        detail = f"Content-Type is '{found[:60]}', expected {' or '.join(TAKES[path])}"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, name, detail)

    def _key(self) -> str:
        key = self.headers.get("Idempotency-Key", "").strip()
        if 0 < len(key) <= hearing.LONGEST_KEY and key.isprintable():
            return key
        detail = f"expected a header Idempotency-Key of 1 to {hearing.LONGEST_KEY} printable characters"
        raise Refused(HTTPStatus.BAD_REQUEST, "KeyMissing", detail)

    def _token(self) -> str:
        return token_in(self.headers.get("Cookie"))

    def _body(self, most_bytes: int) -> bytes:
        if self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "LengthMissing", "expected a Content-Length, no chunks")
        length = self.headers.get("Content-Length", "0").strip()
        if not (length.isascii() and length.isdigit() and len(length) < 10):
            self.close_connection = True
            raise Refused(HTTPStatus.BAD_REQUEST, "LengthGarbled", f"Content-Length is '{length[:20]}'")
        if int(length) > most_bytes:
            self.close_connection = True
            self._read_away(int(length))
            detail = f"{length} bytes, expected at most {most_bytes}"
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BodyTooLarge", detail)
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            self.close_connection = True
            raise Refused(HTTPStatus.BAD_REQUEST, "BodyCutShort", f"{len(body)} bytes of {length}")
        return body

    def _read_away(self, length: int) -> None:
        """Who is still speaking does not hear the answer: let them finish, up to a point."""
        left = min(length, MOST_READ_AWAY)
        while left > 0 and (piece := self.rfile.read(min(left, 65_536))):
            left -= len(piece)

    # How it is answered.

    def _refuse(self, refusal: Refused) -> None:
        self.page.refused[refusal.name] += 1
        if self.page.refused[refusal.name] == 1:
            # Never the detail: it repeats what was asked or said, which may be anybody's words.
            log("page_refused", name=refusal.name, status=int(refusal.status), at=self._known_path())
        self._problem(refusal.status, refusal.name, refusal.detail, refusal.retry_after_s)

    def _known_path(self) -> str:
        path: str = getattr(self, "path", "").partition("?")[0]
        return path if path in READS or path in TAKES else "elsewhere"

    def _problem(self, status: HTTPStatus, title: str, detail: str, retry_after_s: int = 0) -> None:
        problem = {"type": "about:blank", "status": int(status), "title": title, "detail": detail}
        headers: tuple[tuple[str, str], ...] = ()
        if retry_after_s > 0:
            problem["retry_after_s"] = retry_after_s
            headers = (("Retry-After", str(retry_after_s)),)
        self._send(status, "application/problem+json", msgspec.json.encode(problem), headers)

    def _send(
        self, status: HTTPStatus, content_type: str, body: bytes, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, told in (dict(GUARDED) | dict(headers)).items():
            self.send_header(name, told)
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


def _shell() -> bytes:
    """The page without a day, which a phone may keep for when the agent is out of reach."""
    return page_html().replace(b"<!--day-->", b"null")


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
    known = {*READS, *TAKES}
    if path in known or path.removeprefix("/") in assets():
        return Refused(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", f"{path} does not answer to {method}")
    return Refused(HTTPStatus.NOT_FOUND, "PathUnknown", f"'{path[:100]}' is not one of {', '.join(sorted(known))}")
