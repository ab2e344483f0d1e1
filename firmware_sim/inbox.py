"""Whatever a hub tells customers and shops ends here: webhook, SMTP and SMS, kept, shown, and failed when told to.

Nothing is passed on. CloudEvents 1.0 come by HTTP in binary or structured mode and are known by source and id; mails
come by SMTP and are known by Message-ID; an SMS comes as a gateway would be handed it, by HTTP, and is known by its id.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from firmware_sim.inbox_page import Shown, page
from firmware_sim.mailroom import Mail, MailRoom
from shared.clock import Clock

LARGEST_EVENT = 262_144
REQUIRED = ("id", "source", "type", "specversion")
CHANNELS = ("webhook", "email", "sms")
Channel = Literal["webhook", "email", "sms"]


class NotAnEvent(ValueError):
    """This request holds no CloudEvent."""


class Inbox:
    """Serves on loopback.

    HTTP: `POST /sms` takes an SMS, `POST` to any other path an event; `GET /` is the page people read, `/received`,
    `/mails` and `/texts` what came as JSON; `POST /fail?channel=email&n=3` fails the next three of a channel (webhook
    when none is named). SMTP: any mail for anybody.
    """

    def __init__(self, port: int, clock: Clock, smtp_port: int = 0, utc_offset_s: int = 7_200) -> None:
        """Port 0 takes any free one: see `port` and `smtp_port`. `clock` dates arrivals. Raises OSError when a port is
        taken.
        """
        self._clock = clock
        self._utc_offset_s = utc_offset_s
        self._lock = threading.Lock()
        self._events: dict[tuple[str, str], dict[str, Any]] = {}
        self._mails: dict[str, dict[str, Any]] = {}
        self._texts: dict[str, dict[str, Any]] = {}
        self._to_fail: dict[str, int] = dict.fromkeys(CHANNELS, 0)
        self.refused = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _door(self))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        try:
            self._mailroom = MailRoom(smtp_port, self.take_mail)
        except OSError:
            self._server.server_close()
            raise
        self.smtp_port: int = self._mailroom.port

    def serve(self) -> None:
        """Serve until closed."""
        self._server.serve_forever()

    def close(self) -> None:
        """Let `serve` return."""
        self._server.shutdown()
        self._server.server_close()
        self._mailroom.close()

    # What came.

    def received(self) -> list[dict[str, Any]]:
        """Every event once, in the order of first arrival: id, source, type, subject, data, received_ms, times."""
        return self._listed(self._events)

    def mails(self) -> list[dict[str, Any]]:
        """Every mail once, in the order of first arrival: the fields of `Mail`, received_ms, times."""
        return self._listed(self._mails)

    def texts(self) -> list[dict[str, Any]]:
        """Every SMS once, in the order of first arrival: id, to, text, received_ms, times."""
        return self._listed(self._texts)

    def html(self) -> str:
        """Everything customers got, to be read: newest first, by customer."""
        shown = [
            *(Shown(m["received_ms"], "email", m["to"], m["name"], m["subject"], m["text"], m["html"])
              for m in self.mails()),
            *(Shown(t["received_ms"], "sms", t["to"], "", "", t["text"], "") for t in self.texts()),
            *(Shown(e["received_ms"], "webhook", "the shop", "", f"{e['type']} {e['subject'] or ''}", _text_of(e), "")
              for e in self.received()),
        ]  # fmt: skip
        return page(shown, self._utc_offset_s)

    # How it comes.

    def fail_next(self, text: str, channel: str = "webhook") -> tuple[int, dict[str, Any]]:
        """Fail the next so many of a channel with a reply that says to come again."""
        if not (text.isascii() and text.isdigit() and len(text) <= 6):
            return 422, {"title": "n is wrong", "detail": f"n is '{text[:40]}', expected a whole number"}
        if channel not in CHANNELS:
            detail = f"channel is '{channel[:40]}', expected one of {', '.join(CHANNELS)}"
            return 422, {"title": "channel is wrong", "detail": detail}
        with self._lock:
            self._to_fail[channel] = int(text)
        return 200, {"will_fail": int(text), "channel": channel}

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        """Keep the event a request holds; status and answer. `headers` by lower-case name."""
        try:
            event = _event(headers, body)
        except NotAnEvent as wrong:
            with self._lock:
                self.refused += 1
            return 400, {"title": "not a CloudEvent", "detail": str(wrong)}
        with self._lock:
            if self._fails("webhook"):
                return 503, {"title": "told to fail", "detail": f"{self._to_fail['webhook']} more events will fail"}
            is_new = self._keep(self._events, (event["source"], event["id"]), event)
        return (202 if is_new else 200), {"ok": True, "repeated": not is_new}

    def take_sms(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Keep the SMS a request holds: JSON with `to`, `text` and `id`; status and answer, with the number given."""
        try:
            said = msgspec.json.decode(body, type=_Sms)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as wrong:
            with self._lock:
                self.refused += 1
            return 400, {"title": "not an SMS", "detail": f'{wrong}; expected {{"to": ..., "text": ..., "id": ...}}'}
        with self._lock:
            if self._fails("sms"):
                return 503, {"title": "told to fail", "detail": f"{self._to_fail['sms']} more texts will fail"}
            key = said.id or f"unnamed {len(self._texts)}"
            is_new = self._keep(self._texts, key, {"to": said.to, "text": said.text, "id": said.id})
            number = list(self._texts).index(key) + 1
        return 200, {"ok": True, "id": f"sms-{number}", "repeated": not is_new}

    def take_mail(self, mail: Mail) -> str:
        """Keep a mail; the SMTP reply."""
        with self._lock:
            if self._fails("email"):
                return f"451 4.3.0 told to fail, {self._to_fail['email']} more will"
            key = mail.message_id or f"unnamed {len(self._mails)}"
            self._keep(self._mails, key, msgspec.to_builtins(mail))
            return f"250 2.0.0 Ok: queued as mail-{list(self._mails).index(key) + 1}"

    def _fails(self, channel: Channel) -> bool:
        """Whether this one is to fail; the lock is held."""
        if self._to_fail[channel] <= 0:
            return False
        self._to_fail[channel] -= 1
        return True

    def _keep(self, kept: dict[Any, dict[str, Any]], key: Any, what: dict[str, Any]) -> bool:
        """Whether it is new; the lock is held."""
        if key in kept:
            kept[key]["times"] += 1
            return False
        kept[key] = {**what, "received_ms": self._clock.now_ms(), "times": 1}
        return True

    def _listed(self, kept: dict[Any, dict[str, Any]]) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(one) for one in kept.values()]


class _Sms(msgspec.Struct, frozen=True):
    to: str
    text: str
    id: str = ""


def _text_of(event: dict[str, Any]) -> str:
    """What a webhook's event says in words, or all of it."""
    said = event["data"]
    words = said.get("text") or said.get("sentence") if isinstance(said, dict) else None
    return str(words or msgspec.json.encode(said).decode())


def _door(inbox: Inbox) -> type[BaseHTTPRequestHandler]:
    class Request(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/":
                self._send(200, "text/html; charset=utf-8", inbox.html().encode())
            elif path == "/received":
                self._answer(200, inbox.received())
            elif path == "/mails":
                self._answer(200, inbox.mails())
            elif path == "/texts":
                self._answer(200, inbox.texts())
            elif path == "/healthz":
                self._answer(200, {"ok": True})
            else:
                detail = f"{path[:80]} is unknown, expected /, /received, /mails or /texts"
                self._answer(404, {"title": "nothing here", "detail": detail})

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
            asked = parse_qs(url.query)
            if url.path == "/fail":
                self._answer(*inbox.fail_next(asked.get("n", ["1"])[0], asked.get("channel", ["webhook"])[0]))
            elif url.path == "/sms":
                self._answer(*inbox.take_sms(body))
            else:
                self._answer(*inbox.take({k.lower(): v for k, v in self.headers.items()}, body))

        def _answer(self, status: int, content: Any) -> None:
            media_type = "application/json" if status < 400 else "application/problem+json"
            self._send(status, media_type, msgspec.json.encode(content))

        def _send(self, status: int, media_type: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: what came in is on the page."""

    return Request


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
