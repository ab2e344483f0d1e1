"""A shop's inbox: takes CloudEvents by HTTP, knows a repeated one by its id, and can be told to fail.

CloudEvents 1.0, HTTP protocol binding, binary and structured mode. An event is known by source and id together.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from shared.clock import Clock

LARGEST_EVENT = 262_144
REQUIRED = ("id", "source", "type", "specversion")


class NotAnEvent(ValueError):
    """This request holds no CloudEvent."""


class Inbox:
    """Serves on loopback: POST any path, GET /received, POST /fail?n=N, GET /healthz."""

    def __init__(self, port: int, clock: Clock) -> None:
        """Port 0 takes any free one: see `port`. `clock` dates arrivals. Raises OSError when the port is taken."""
        self._clock = clock
        self._lock = threading.Lock()
        self._events: dict[tuple[str, str], dict[str, Any]] = {}
        self._to_fail = 0
        self.refused = 0
        inbox = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                if path == "/received":
                    self._answer(200, inbox.received())
                elif path == "/healthz":
                    self._answer(200, {"ok": True})
                else:
                    self._answer(404, {"title": "nothing here", "detail": f"{path} is unknown, expected /received"})

            def do_POST(self) -> None:
                try:
                    length = int(self.headers.get("Content-Length", ""))
                except ValueError:
                    length = -1
                if not 0 <= length <= LARGEST_EVENT:
                    self.close_connection = True
                    self._answer(411 if length < 0 else 413, {"title": "Content-Length is missing, wrong or too large"})
                    return
                body = self.rfile.read(length)
                url = urlsplit(self.path)
                if url.path == "/fail":
                    self._answer(*inbox.fail_next(parse_qs(url.query).get("n", ["1"])[0]))
                else:
                    self._answer(*inbox.take({k.lower(): v for k, v in self.headers.items()}, body))

            def _answer(self, status: int, content: Any) -> None:
                text = msgspec.json.encode(content)
                self.send_response(status)
                self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: what came in is at /received."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Request)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def serve(self) -> None:
        """Serve until closed."""
        self._server.serve_forever()

    def close(self) -> None:
        """Let `serve` return."""
        self._server.shutdown()
        self._server.server_close()

    def received(self) -> list[dict[str, Any]]:
        """Every event once, in the order of first arrival: id, source, type, subject, data, received_ms, times."""
        with self._lock:
            return [dict(event) for event in self._events.values()]

    def fail_next(self, text: str) -> tuple[int, dict[str, Any]]:
        """Fail the next so many events with 503."""
        if not (text.isascii() and text.isdigit() and len(text) <= 6):
            return 422, {"title": "n is wrong", "detail": f"n is '{text[:40]}', expected a whole number"}
        with self._lock:
            self._to_fail = int(text)
        return 200, {"will_fail": int(text)}

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        """Keep the event a request holds; status and answer. `headers` by lower-case name."""
        try:
            event = _event(headers, body)
        except NotAnEvent as wrong:
            with self._lock:
                self.refused += 1
            return 400, {"title": "not a CloudEvent", "detail": str(wrong)}
        with self._lock:
            if self._to_fail > 0:
                self._to_fail -= 1
                return 503, {"title": "told to fail", "detail": f"{self._to_fail} more events will fail"}
            key = (event["source"], event["id"])
            known = self._events.get(key)
            if known is not None:
                known["times"] += 1
                return 200, {"ok": True, "repeated": True}
            self._events[key] = {**event, "received_ms": self._clock.now_ms(), "times": 1}
        return 202, {"ok": True, "repeated": False}


def _event(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/cloudevents+json":
        attributes = _json(body)
        if not isinstance(attributes, dict):
            raise NotAnEvent(f"the body is a JSON {type(attributes).__name__}, expected an object")
        content = attributes.get("data")
    else:
        attributes = {name.removeprefix("ce-"): text for name, text in headers.items() if name.startswith("ce-")}
        is_json = kind == "application/json" or kind.endswith("+json")
        content = (_json(body) if is_json else body.decode(errors="replace")) if body else None
    lacking = [name for name in REQUIRED if not isinstance(attributes.get(name), str) or not attributes[name]]
    if lacking:
        raise NotAnEvent(f"the attributes {', '.join(lacking)} are missing; CloudEvents 1.0 requires them")
    if attributes["specversion"] != "1.0":
        raise NotAnEvent(f"specversion is '{attributes['specversion'][:20]}', expected 1.0")
    named = {name: attributes[name] for name in ("id", "source", "type")}
    return {**named, "subject": attributes.get("subject"), "data": content}


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as wrong:
        raise NotAnEvent(f"the body is not JSON: {wrong}") from None
