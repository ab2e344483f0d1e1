"""Notices leave by real mail servers, gateways and webhooks; being out of reach is an ordinary answer."""

import email.policy
import json
import shutil
import sqlite3
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.parser import BytesParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cloudevents.core.bindings.http import HTTPMessage, from_structured
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.channels import SecretMissing
from cloud_hub.channels.sms import SmsSetting
from cloud_hub.channels.smtp import EmailSetting, HeaderWrong, Letter, MailServer
from cloud_hub.channels.webhook import WebhookSetting, as_cloud_event
from cloud_hub.contacts import Channel, Customer
from cloud_hub.events import Notice, NoticeDelivered, NoticeFailed, NoticeWanted
from cloud_hub.links import Links
from cloud_hub.notices import NoticeSetting, Notifier, notice_objections, refuse_bad_url
from cloud_hub.storage.embedded import EmbeddedStore
from deploy.stack import free_ports
from shared.work import AgentId, OrderId, StopId
from tests.needs import needs
from tests.shells.hub_parts import Inbox
from tests.shells.receivers import Gateway, mail_server
from tests.unit.hub_cases import at, window

NOTICE = Notice(
    "stop-1.2.hub-000007", "changed", OrderId("order-1"), StopId("stop-1"), AgentId("van-1"), window(11, 12.5),
    window(9, 17), at(9.5), "The window moves.", "hub-000007", customer_ref="C-1", why="traffic", sure_pct=90,
)  # fmt: skip
MAIJA = Customer("C-1", "Maija Meikäläinen", "maija@example.fi", "+358401234567", "fi", ("email", "sms"))
LINKS = Links(b"k" * 32, "https://track.example")
PASSWORD = "correct horse"


def wanted(channel: Channel, customer: Customer = MAIJA) -> NoticeWanted:
    return NoticeWanted(NOTICE.notice_id, NOTICE, channel, customer)


@contextmanager
def notifier(setting: NoticeSetting, webhook: str = "") -> Iterator[Notifier]:
    made = Notifier(setting, webhook, "main", "Europe/Helsinki", LINKS, lambda: at(9.6))
    yield made
    made.close()


def send_mail(setting: EmailSetting, customer: Customer = MAIJA) -> NoticeDelivered | NoticeFailed:
    with notifier(NoticeSetting(email=setting, shop="Kauppa")) as made:
        return made.send(wanted("email", customer))


def test_a_real_mail_server_takes_a_notice_that_any_mail_program_reads() -> None:
    with mail_server() as (box, setting):
        assert send_mail(setting) == NoticeDelivered(NOTICE.notice_id, "250 2.0.0", "4bXYZ17")
        (mail,) = box.mails
    link = LINKS.link(NOTICE.order_id, NOTICE.slot.closes_ms + 48 * 3_600_000)
    assert mail["Subject"] == "Kauppa: Toimituksesi uusi aika: tänään klo 11.00-12.30"
    assert (mail["From"], mail["To"]) == (
        "Kauppa Öy <delivery@shop.example>", "Maija Meikäläinen <maija@example.fi>"
    )  # fmt: skip
    assert mail["Message-ID"] == "<stop-1.2.hub-000007@shop.example>"
    assert mail["Date"].datetime == datetime.fromtimestamp(at(9.6) / 1000, UTC)
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["List-Unsubscribe"] == f"<{link}/stop>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert link in plain.get_content()
    assert "liikenne on tavallista hitaampaa" in plain.get_content()
    assert f'href="{link}"' in html.get_content()


def test_a_repeat_is_the_same_mail() -> None:
    with mail_server() as (box, setting):
        send_mail(setting)
        send_mail(setting)
        assert len({mail["Message-ID"] for mail in box.mails}) == 1


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    ("answer", "kept", "is_final"),
    [
        ("550 5.1.1 <maija@example.fi> is unknown here", "550 5.1.1", True),
        ("451 4.7.1 come back later, maija@example.fi", "451 4.7.1", False),
        ("552 mailbox full", "552", True),
    ],
)
def test_a_server_that_refuses_is_believed_and_its_words_are_not_kept(
    step: str, answer: str, kept: str, is_final: bool
) -> None:
    with mail_server() as (box, setting):
        box.answers[step] = answer
        assert send_mail(setting) == NoticeFailed(NOTICE.notice_id, kept, is_final)
        assert box.mails == []


def test_a_mail_server_that_is_away_is_an_ordinary_answer() -> None:
    (port,) = free_ports(1)
    failed = send_mail(EmailSetting(is_on=True, host="127.0.0.1", port=port, security="none", sender="a@b.fi"))
    assert failed == NoticeFailed(NOTICE.notice_id, "ConnectionRefusedError", False)


def test_a_server_without_starttls_gets_no_mail_that_was_to_be_encrypted() -> None:
    with mail_server() as (box, setting):
        failed = send_mail(msgspec.structs.replace(setting, security="starttls"))
        assert (failed, box.mails) == (NoticeFailed(NOTICE.notice_id, "SMTPNotSupportedError", False), [])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    needs(shutil.which("openssl"), "openssl to make a certificate with (Debian: apt install openssl)")
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def trusted_by(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


def check_login(_: SMTP, __: Any, ___: Any, ____: str, data: Any) -> AuthResult:
    is_right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"hub", PASSWORD.encode())
    return AuthResult(success=is_right, handled=False)


def test_with_starttls_and_a_login_the_mail_arrives_and_without_the_password_it_does_not(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "tls_context": trusted_by(certificate), "require_starttls": True, "auth_required": True,
        "authenticator": check_login,
    }  # fmt: skip
    with mail_server(**options) as (box, plain):
        setting = msgspec.structs.replace(
            plain, security="starttls", ca_file=str(certificate[0]), user="hub", password_env="TEST_SMTP_PASSWORD"
        )
        monkeypatch.setenv("TEST_SMTP_PASSWORD", PASSWORD)
        assert isinstance(send_mail(setting), NoticeDelivered)
        monkeypatch.setenv("TEST_SMTP_PASSWORD", "wrong")
        refused = send_mail(setting)
        assert refused == NoticeFailed(NOTICE.notice_id, "the mail server refused our login (535)", False)
        stranger = send_mail(msgspec.structs.replace(setting, ca_file=""))
        assert stranger == NoticeFailed(NOTICE.notice_id, "SSLCertVerificationError", False)
        assert len(box.mails) == 1


def test_a_server_that_speaks_tls_from_the_first_byte_is_spoken_to(certificate: tuple[Path, Path]) -> None:
    with mail_server(ssl_context=trusted_by(certificate)) as (box, plain):
        setting = msgspec.structs.replace(plain, security="tls", ca_file=str(certificate[0]))
        assert isinstance(send_mail(setting), NoticeDelivered)
        assert len(box.mails) == 1


@pytest.mark.parametrize(
    ("to", "letter"),
    [
        (("Maija\r\nBcc: all@example.fi", "a@b.fi"), Letter("en", "s", "t", "h")),
        (("Maija", "a@b.fi\r\nBcc: all@example.fi"), Letter("en", "s", "t", "h")),
        (("Maija", "a@b.fi>,<c@d.fi"), Letter("en", "s", "t", "h")),
        (("Maija", "a@b.fi"), Letter("en", "s\nBcc: all@example.fi", "t", "h")),
        (("Maija", "a@b.fi"), Letter("en", "s", "t", "h", "https://x/\r\nBcc: all@example.fi")),
    ],
)
def test_nothing_that_would_be_another_header_is_sent(to: tuple[str, str], letter: Letter) -> None:
    with mail_server() as (box, setting):
        failed = MailServer(setting).send("n", to, letter, at(9))
        assert isinstance(failed, NoticeFailed)
        assert failed.is_final
        assert box.mails == []


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=100).filter(str.isprintable),
    st.text(max_size=200).filter(str.isprintable),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80),
)
def test_whatever_a_customer_is_called_the_mail_goes_to_them_alone(name: str, subject: str, need: str) -> None:
    server = MailServer(EmailSetting(is_on=True, sender="Kauppa Öy <delivery@shop.example>"))
    letter = Letter("fi", subject, "text", "<p>text</p>", "https://track.example/t/abc/stop")
    raw = server.mail(need, (name, "maija@example.fi"), letter, at(9)).as_bytes()
    mail = BytesParser(policy=email.policy.default).parsebytes(raw)
    assert [address.addr_spec for address in mail["To"].addresses] == ["maija@example.fi"]
    assert (mail["Cc"], mail["Bcc"], len(mail.get_all("From", []))) == (None, None, 1)
    assert all(len(line) < 998 for line in raw.split(b"\r\n"))


def test_a_sender_that_is_no_address_and_a_missing_password_refuse_the_start(tmp_path: Path) -> None:
    with pytest.raises(HeaderWrong, match="expected an address"):
        MailServer(EmailSetting(is_on=True, sender="the shop"))
    with pytest.raises(SecretMissing, match="has no NOT_THERE"):
        MailServer(EmailSetting(is_on=True, sender="a@b.fi", password_env="NOT_THERE"))
    with pytest.raises(SecretMissing, match="cannot be read"):
        MailServer(EmailSetting(is_on=True, sender="a@b.fi", password_file=str(tmp_path / "none")))


# An SMS gateway.


def send_sms(setting: SmsSetting, customer: Customer = MAIJA) -> NoticeDelivered | NoticeFailed:
    with notifier(NoticeSetting(sms=setting, shop="Kauppa")) as made:
        return made.send(wanted("sms", customer))


def test_an_sms_leaves_as_the_gateway_wants_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    with Gateway() as gateway:
        setting = SmsSetting(
            is_on=True, url=gateway.url, headers={"Authorization": "Bearer {secret}", "Idempotency-Key": "{id}"},
            body={"recipients": ["{to}"], "message": {"text": "{text}", "ref": "{id}"}, "flash": False},
            secret_file=str(tmp_path / "key"), id_field="messages.0.id",
        )  # fmt: skip
        assert send_sms(setting) == NoticeDelivered(NOTICE.notice_id, "201 Created", "m-17")
        ((method, _, headers, body),) = gateway.requests
    said = json.loads(body)
    assert (method, headers["Authorization"], headers["Idempotency-Key"]) == (
        "POST", "Bearer s3cret", NOTICE.notice_id
    )  # fmt: skip
    assert (said["recipients"], said["message"]["ref"], said["flash"]) == (["+358401234567"], NOTICE.notice_id, False)
    assert said["message"]["text"].startswith("Kauppa: Toimituksesi order-1 uusi aika: tänään klo 11.00-12.30.")


def test_a_gateway_that_wants_a_form_or_a_query_gets_one() -> None:
    body = {"To": "{to}", "Body": "{text}", "Ref": "{id}"}
    with Gateway() as gateway:
        send_sms(SmsSetting(is_on=True, url=gateway.url, kind="form", body=body))
        send_sms(SmsSetting(is_on=True, url=gateway.url, method="GET", body=body))
        (_, _, headers, form), (_, path, _, _) = gateway.requests
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(form)["To"] == parse_qs(path.partition("?")[2])["To"] == ["+358401234567"]
    assert parse_qs(form)["Ref"] == [NOTICE.notice_id]


def test_what_is_put_into_a_template_is_not_read_as_one() -> None:
    with Gateway() as gateway:
        customer = msgspec.structs.replace(MAIJA, phone="{secret}")
        send_sms(SmsSetting(is_on=True, url=gateway.url), customer)
        assert json.loads(gateway.requests[0][3])["to"] == "{secret}"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((200, '{"id": 17}'), NoticeDelivered(NOTICE.notice_id, "200 Ok", "17")),
        ((200, "OK"), NoticeDelivered(NOTICE.notice_id, "200 Ok", "")),
        ((200, '{"id": "to-358401234567"}'), NoticeDelivered(NOTICE.notice_id, "200 Ok", "")),
        ((400, "+358401234567 is no number"), NoticeFailed(NOTICE.notice_id, "400 Bad Request", True)),
        ((429, "slow down"), NoticeFailed(NOTICE.notice_id, "429 Too Many Requests", False)),
        ((503, ""), NoticeFailed(NOTICE.notice_id, "503 Service Unavailable", False)),
    ],
)
def test_a_gateways_answer_is_kept_without_its_words(answer: tuple[int, str], found: object) -> None:
    with Gateway() as gateway:
        gateway.answer = answer
        assert send_sms(SmsSetting(is_on=True, url=gateway.url)) == found


def test_a_gateway_that_is_away_is_an_ordinary_answer() -> None:
    (port,) = free_ports(1)
    failed = send_sms(SmsSetting(is_on=True, url=f"http://127.0.0.1:{port}/"))
    assert failed == NoticeFailed(NOTICE.notice_id, "ConnectError", False)


# The shop's webhook.


def test_a_notice_arrives_as_a_cloud_event_any_library_reads() -> None:
    with Inbox() as inbox, notifier(NoticeSetting(), inbox.url) as made:
        assert made.send(wanted("webhook")) == NoticeDelivered(NOTICE.notice_id, "204 No Content")
        (event,) = inbox.events
    assert event["specversion"] == "1.0"
    assert (event["id"], event["source"]) == (NOTICE.notice_id, "/waywarden/main/hub")
    assert (event["type"], event["subject"]) == ("dev.waywarden.notice.changed", "order-1")
    assert event["data"]["told"] == {"opens": "2026-03-03T09:00:00Z", "closes": "2026-03-03T10:30:00Z"}
    assert (event["data"]["why"], event["data"]["language"]) == ("traffic", "fi")
    assert event["data"]["tracking_url"] in event["data"]["text"]
    assert inbox.keys == [NOTICE.notice_id]
    assert not any(word in json.dumps(event, ensure_ascii=False) for word in ("Maija", "maija", "4567"))


def test_the_event_reads_back_by_the_library_it_was_written_with() -> None:
    event = as_cloud_event(NOTICE, "/waywarden/main/hub", {"text": "hello"})
    body = JSONFormat().write(event)
    read = from_structured(HTTPMessage({"content-type": "application/cloudevents+json"}, body), JSONFormat())
    assert read.get_id() == NOTICE.notice_id
    assert read.get_data() == event.get_data()


@pytest.mark.parametrize(("status", "is_final"), [(500, False), (503, False), (429, False), (410, True), (422, True)])
def test_an_answer_that_cannot_change_is_final_and_others_are_not(status: int, is_final: bool) -> None:
    with Inbox() as inbox, notifier(NoticeSetting(), inbox.url) as made:
        inbox.answers = [status]
        failed = made.send(wanted("webhook"))
    assert isinstance(failed, NoticeFailed)
    assert failed.is_final == is_final
    assert failed.answer.startswith(str(status))


def test_a_partner_hears_of_its_orders_at_its_own_address_and_nobody_else_does() -> None:
    with Inbox() as everybodys, Inbox() as reds:
        setting = NoticeSetting(webhook=WebhookSetting(partners={"red": reds.url}))
        with notifier(setting, everybodys.url) as made:
            for partner in ("red", "blue", ""):
                made.send(msgspec.structs.replace(wanted("webhook"), partner=partner))
        assert (len(reds.events), len(everybodys.events)) == (1, 2)
    assert notice_objections(NoticeSetting(webhook=WebhookSetting(partners={"red": "nowhere"})), "") != []


def test_a_shop_that_is_away_is_an_ordinary_answer() -> None:
    (port,) = free_ports(1)
    with notifier(NoticeSetting(), f"http://127.0.0.1:{port}/") as made:
        assert made.send(wanted("webhook")) == NoticeFailed(NOTICE.notice_id, "ConnectError", False)


# Switches.


@pytest.mark.parametrize("channel", ["email", "sms", "webhook"])
def test_nothing_leaves_by_a_channel_that_is_not_switched_on(channel: Channel) -> None:
    with Inbox() as inbox, mail_server() as (box, mail):
        off = NoticeSetting(
            email=msgspec.structs.replace(mail, is_on=False), sms=SmsSetting(url=inbox.url),
            webhook=WebhookSetting(url=inbox.url),
        )  # fmt: skip
        with notifier(off) as made:
            failed = made.send(wanted(channel))
        assert failed == NoticeFailed(NOTICE.notice_id, f"{channel} is switched off", True)
        assert (inbox.events, box.mails) == ([], [])
        assert off.rule("").on == ()


def test_the_setting_webhook_alone_switches_the_webhook_on() -> None:
    assert NoticeSetting().rule("http://shop.example/").on == ("webhook",)
    assert NoticeSetting(webhook=WebhookSetting(True, "http://shop.example/")).rule("").on == ("webhook",)


@pytest.mark.parametrize(
    ("setting", "objection"),
    [
        (NoticeSetting(email=EmailSetting(is_on=True)), "is on without a sender"),
        (NoticeSetting(sms=SmsSetting(is_on=True)), "[notices.sms] is on without a url"),
        (NoticeSetting(sms=SmsSetting(is_on=True, url="gateway")), "[notices.sms] url is 'gateway'"),
        (NoticeSetting(webhook=WebhookSetting(True)), "[notices.webhook] is on without a url"),
        (NoticeSetting(tracking_url="track.example"), "tracking_url is 'track.example'"),
        (
            NoticeSetting(email=EmailSetting(True, security="none", user="hub", sender="a@b.fi")),
            "to anybody on the way",
        ),
    ],
)
def test_channels_that_cannot_work_are_named_before_the_start(setting: NoticeSetting, objection: str) -> None:
    (found,) = notice_objections(setting, "")
    assert objection in found


def test_notices_of_the_former_release_are_read_as_what_they_are_called_now(tmp_path: Path) -> None:
    EmbeddedStore(tmp_path / "hub.db").close()
    former = {"first": "day", "moved": "changed", "breach": "changed", "on_its_way": "on_its_way"}
    document = msgspec.to_builtins(NOTICE)
    with closing(sqlite3.connect(tmp_path / "hub.db")) as file, file:
        file.execute("DELETE FROM _sqlite_migrations WHERE name = '0004_notice_kinds'")
        for kind in former:
            row = json.dumps(document | {"notice_id": kind, "kind": kind}).encode()
            file.execute("INSERT INTO room_notices (key, doc) VALUES (?, ?)", (kind, row))
    store = EmbeddedStore(tmp_path / "hub.db")
    read = [msgspec.json.decode(doc, type=Notice) for _, doc in store.documents("notices")]
    store.close()
    assert {notice.notice_id: notice.kind for notice in read} == former
    assert [notice.notice_id for notice in read if notice.is_breach] == ["breach"]


@pytest.mark.parametrize("url", ["", "shop.example", "ftp://shop.example/", "http://", "http://[::1"])
def test_a_webhook_that_is_no_url_is_refused_before_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="expected https://HOST/PATH"):
        refuse_bad_url(url)
