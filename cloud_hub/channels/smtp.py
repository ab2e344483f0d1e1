"""One e-mail, handed to the mail server the settings name (SMTP, RFC 5321)."""

import re
import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec

from cloud_hub.channels import secret_of
from cloud_hub.contact_rows import email_in
from cloud_hub.events import NoticeDelivered, NoticeFailed

_ENHANCED = re.compile(r"\b[245]\.[0-9]{1,3}\.[0-9]{1,3}\b")
"""An enhanced status code (RFC 3463): all that is kept of a server's words, which may quote the address."""

_QUEUED_AS = re.compile(r"(?:queued as|queued with id|\bid[= ])\s*<?([A-Za-z0-9._:-]{4,80})", re.IGNORECASE)


UNFOLDED = SMTP.clone(max_line_length=400)
"""A link is longer than 78 signs and must not be folded away from its header's name (RFC 5322, 2.1.1, allows 998)."""


class HeaderWrong(ValueError):
    """A header of the mail would have more than one line, or an address in it is none."""


class EmailSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mail server. `security` is how the connection is protected; `sender` is what stands in From, such as
    `Shop <delivery@shop.example>`. The password stands in the environment (`password_env`) or a file (`password_file`).
    """

    is_on: bool = False
    host: str = "localhost"
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: str = ""
    user: str = ""
    password_env: str = ""
    password_file: str = ""
    sender: str = ""
    reply_to: str = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=120)] = 20.0


@dataclass(frozen=True, slots=True)
class Letter:
    """What the customer reads: the subject and the text, plain and as HTML, with the link that ends such mails."""

    language: str
    subject: str
    text: str
    html: str
    unsubscribe_url: str = ""


class MailServer:
    """Hands mails to one server, each over a connection of its own. Safe from several threads."""

    def __init__(self, setting: EmailSetting) -> None:
        """Raises SecretMissing, and HeaderWrong when the sender is no address."""
        self._setting = setting
        self._password = secret_of(setting.password_env, setting.password_file, "[notices.email]")
        self._name, address = parseaddr(setting.sender)
        if email_in(address) is None:
            raise HeaderWrong(f"sender is '{setting.sender}', expected an address like Shop <delivery@shop.example>")
        self._sender = address

    def send(self, need: str, to: tuple[str, str], letter: Letter, now_ms: int) -> NoticeDelivered | NoticeFailed:
        """One attempt; `to` is (name, address). Being out of reach is an ordinary answer, never an exception."""
        try:
            mail = self.mail(need, to, letter, now_ms)
        except HeaderWrong as wrong:
            return NoticeFailed(need, str(wrong), is_final=True)
        try:
            code, said = self._hand_over(mail, to[1])
        except smtplib.SMTPAuthenticationError as refused:
            return NoticeFailed(need, f"the mail server refused our login ({refused.smtp_code})", is_final=False)
        except smtplib.SMTPResponseException as refused:
            return _refused(need, refused.smtp_code, refused.smtp_error)
        except (smtplib.SMTPException, OSError) as away:
            return NoticeFailed(need, type(away).__name__, is_final=False)
        if code != 250:
            return _refused(need, code, said)
        queued = _QUEUED_AS.search(said.decode("ascii", "replace"))
        return NoticeDelivered(need, f"250 {_status(said)}".strip(), queued[1] if queued else "")

    def mail(self, need: str, to: tuple[str, str], letter: Letter, now_ms: int) -> EmailMessage:
        """The whole message. A repeat has the same Message-ID (RFC 5322, 3.6.4). Raises HeaderWrong."""
        name, address = to
        if email_in(address) != address:
            raise HeaderWrong("the customer's e-mail address is none")
        for what, value in (("subject", letter.subject), ("name", name), ("link", letter.unsubscribe_url)):
            if not value.isprintable():
                raise HeaderWrong(f"the {what} has a line break or another control character")
        mail = EmailMessage(policy=UNFOLDED)
        mail["From"] = Address(self._name, addr_spec=self._sender)
        mail["To"] = Address(name, addr_spec=address)
        if self._setting.reply_to:
            mail["Reply-To"] = self._setting.reply_to
        mail["Subject"] = letter.subject
        mail["Date"] = format_datetime(datetime.fromtimestamp(now_ms / 1000, UTC))
        mail["Message-ID"] = f"<{quote(need, safe='.-_')}@{self._sender.rpartition('@')[2]}>"
        mail["Content-Language"] = letter.language
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday answers this.
        if letter.unsubscribe_url:
            mail["List-Unsubscribe"] = f"<{letter.unsubscribe_url}>"
            mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058.
        mail.set_content(letter.text)
        mail.add_alternative(letter.html, subtype="html")
        return mail

    def _hand_over(self, mail: EmailMessage, address: str) -> tuple[int, bytes]:
        """The server's answer to the whole mail, or the first one that refused a part of it."""
        setting = self._setting
        server = self._connection()
        try:
            if setting.security == "starttls":
                server.starttls(context=self._trust())
            if setting.user:
                server.login(setting.user, self._password)
            server.ehlo_or_helo_if_needed()
            code, said = server.mail(self._sender)
            if code == 250:
                code, said = server.rcpt(address)
            return server.data(mail.as_bytes()) if code in (250, 251) else (code, said)
        finally:
            # The mail is taken or not by now, however the server likes our goodbye.
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
            server.close()

    def _connection(self) -> smtplib.SMTP:
        setting = self._setting
        if setting.security == "tls":
            return smtplib.SMTP_SSL(setting.host, setting.port, timeout=setting.timeout_s, context=self._trust())
        return smtplib.SMTP(setting.host, setting.port, timeout=setting.timeout_s)

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._setting.ca_file or None)


def _refused(need: str, code: int, said: bytes | str) -> NoticeFailed:
    """A reply that begins with 5 will not change by asking again, one with 4 may (RFC 5321, 4.2.1)."""
    return NoticeFailed(need, f"{code} {_status(said)}".strip(), is_final=500 <= code < 600)


def _status(said: bytes | str) -> str:
    text = said.decode("ascii", "replace") if isinstance(said, bytes) else said
    found = _ENHANCED.search(text)
    return found[0] if found else ""
