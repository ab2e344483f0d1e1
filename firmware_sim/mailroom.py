"""A mail server that keeps what it is handed: real SMTP (RFC 5321) on a port of its own, on a thread of its own."""

import asyncio
import threading
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session

LARGEST_MAIL = 2_000_000


class Mail(msgspec.Struct, frozen=True):
    """One mail as it came: who it is for, and both of its bodies; "" for a body it lacks."""

    message_id: str
    sender: str
    to: str
    name: str
    subject: str
    text: str
    html: str
    headers: dict[str, str]


class MailRoom:
    """Listens on loopback. `take` gets each mail and answers with the SMTP reply."""

    def __init__(self, port: int, take: Callable[[Mail], str]) -> None:
        """Port 0 takes any free one: see `port`. Raises OSError when the port is taken."""
        self._take = take
        self._loop = asyncio.new_event_loop()
        try:
            self._server = self._loop.run_until_complete(
                self._loop.create_server(self._conversation, "127.0.0.1", port)
            )
        except OSError:
            self._loop.close()
            raise
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _conversation(self) -> SMTP:
        return SMTP(self, hostname="inbox.example", data_size_limit=LARGEST_MAIL, enable_SMTPUTF8=True, loop=self._loop)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """A whole mail has come: named by aiosmtpd."""
        content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        try:
            mail = read_mail(content, str(envelope.mail_from or ""), [str(to) for to in envelope.rcpt_tos])
        except (ValueError, LookupError, AttributeError) as wrong:
            return f"554 5.6.0 the mail cannot be read: {type(wrong).__name__}"
        return self._take(mail)


def read_mail(content: bytes, sender: str, recipients: list[str]) -> Mail:
    """The mail of these bytes. Raises ValueError, LookupError or AttributeError when it is none."""
    message = message_from_bytes(content, policy=default)
    to = message["To"]
    addresses = getattr(to, "addresses", ())
    return Mail(
        message_id=str(message["Message-ID"] or ""),
        sender=sender,
        to=", ".join(recipients),
        name=addresses[0].display_name if addresses else "",
        subject=str(message["Subject"] or ""),
        text=_body(message, "plain"),
        html=_body(message, "html"),
        headers={name: str(value) for name, value in message.items()},
    )


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return str(part.get_content()).replace("\r\n", "\n") if part is not None else ""
