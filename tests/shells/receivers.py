"""Real receivers of notices: a mail server and an HTTP gateway that keep what they take and refuse what they must."""

import email.policy
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

from aiosmtpd.controller import Controller

from cloud_hub.channels.smtp import EmailSetting
from deploy.stack import free_ports

PATIENCE_S = 30.0


class MailBox:
    """What aiosmtpd hands over, and what it answers."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.answers: dict[str, str] = {}
        self.before_answering: Callable[[], None] = lambda: None
        """Done once with a mail in hand, before the sender hears that it is taken."""
        self._changed = threading.Condition()

    def wait(self, claim: Callable[[], bool], what: str) -> None:
        """Return when the claim holds; it is looked at whenever a mail came."""
        with self._changed:
            assert self._changed.wait_for(claim, PATIENCE_S), f"in vain for {PATIENCE_S} s: {what}"

    async def handle_MAIL(self, _: Any, __: Any, envelope: Any, address: str, options: Any) -> str:
        envelope.mail_from = address
        return self.answers.get("MAIL", "250 OK")

    async def handle_RCPT(self, _: Any, __: Any, envelope: Any, address: str, options: Any) -> str:
        envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 OK")

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:
        if "DATA" not in self.answers:
            mail = BytesParser(policy=email.policy.default).parsebytes(envelope.content)
            assert isinstance(mail, EmailMessage)
            once, self.before_answering = self.before_answering, lambda: None
            once()
            with self._changed:
                self.mails.append(mail)
                self._changed.notify_all()
        return self.answers.get("DATA", "250 2.0.0 Ok: queued as 4bXYZ17")


@contextmanager
def mail_server(**options: Any) -> Iterator[tuple[MailBox, EmailSetting]]:
    """A server on a port of its own, and the settings that lead there without encryption."""
    box = MailBox()
    (port,) = free_ports(1)
    controller = Controller(box, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield box, EmailSetting(
            is_on=True, host="127.0.0.1", port=port, security="none", sender="Kauppa Öy <delivery@shop.example>"
        )  # fmt: skip
    finally:
        controller.stop()


class Gateway:
    """Any HTTP gateway: keeps every request, and answers as it is told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], str]] = []
        self.answer: tuple[int, str] = (201, '{"messages": [{"id": "m-17"}]}')
        gateway = self

        class Receiving(http.server.BaseHTTPRequestHandler):
            def take(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                gateway.requests.append((self.command, self.path, dict(self.headers), body))
                status, text = gateway.answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = take

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiving)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/messages"

    def __enter__(self) -> "Gateway":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
