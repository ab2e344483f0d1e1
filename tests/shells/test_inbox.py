"""The test inbox as a hub meets it: real SMTP, an SMS gateway's HTTP, and a page that shows what customers read."""

import json
import smtplib
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest

from tests.shells.test_firmware_sim import running

HTML = '<p>Tervetuloa <b>Aino</b></p><script>steal()</script>"'


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    with running("inbox") as (_, ports):
        yield ports


def got(ports: dict[str, int], path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{ports['port']}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def posted(ports: dict[str, int], path: str, body: bytes = b"") -> tuple[int, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{ports['port']}{path}", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())


def a_mail(message_id: str, subject: str = "Lähetys 10:00-11:00") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Puoti <delivery@shop.example>"
    mail["To"] = "Aino Virtanen <aino@example.org>"
    mail["Subject"] = subject
    mail["Message-ID"] = f"<{message_id}@shop.example>"
    mail.set_content("Pakettisi tulee klo 10:00-11:00. http://127.0.0.1:1/t/abc.")
    mail.add_alternative(HTML, subtype="html")
    return mail


def sent(ports: dict[str, int], mail: EmailMessage) -> None:
    with smtplib.SMTP("127.0.0.1", ports["smtp_port"], timeout=10) as server:
        server.send_message(mail)


def test_a_mail_is_kept_once_with_both_of_its_bodies(ports: dict[str, int]) -> None:
    sent(ports, a_mail("m1"))
    sent(ports, a_mail("m1"))
    mail = next(mail for mail in json.loads(got(ports, "/mails")) if mail["message_id"] == "<m1@shop.example>")
    assert mail["times"] == 2
    assert mail["to"] == "aino@example.org"
    assert mail["name"] == "Aino Virtanen"
    assert mail["subject"] == "Lähetys 10:00-11:00"
    assert "klo 10:00-11:00" in mail["text"]
    assert "<b>Aino</b>" in mail["html"]


def test_a_channel_told_to_fail_says_come_again_and_the_others_go_on(ports: dict[str, int]) -> None:
    assert posted(ports, "/fail?channel=email&n=1")[0] == 200
    with pytest.raises(smtplib.SMTPDataError, match="451"):
        sent(ports, a_mail("m2"))
    assert posted(ports, "/sms", b'{"to":"+358401234567","text":"hei","id":"t0"}')[0] == 200
    sent(ports, a_mail("m2"))
    assert posted(ports, "/fail?channel=sms&n=1")[0] == 200
    assert posted(ports, "/sms", b'{"to":"+358401234567","text":"hei","id":"t1"}')[0] == 503
    assert posted(ports, "/fail?channel=pigeon")[0] == 422


def test_an_sms_is_kept_once_and_gets_a_number(ports: dict[str, int]) -> None:
    first = posted(ports, "/sms", b'{"to":"+358401234567","text":"Pakettisi tulee","id":"t9"}')
    again = posted(ports, "/sms", b'{"to":"+358401234567","text":"Pakettisi tulee","id":"t9"}')
    assert first[1]["id"] == again[1]["id"]
    assert again[1]["repeated"]
    assert posted(ports, "/sms", b"pakettisi")[0] == 400
    text = next(text for text in json.loads(got(ports, "/texts")) if text["id"] == "t9")
    assert (text["to"], text["times"]) == ("+358401234567", 2)


def test_the_page_shows_what_customers_read_and_runs_none_of_it(ports: dict[str, int]) -> None:
    sent(ports, a_mail("m3", subject="<i>Kello</i> 12"))
    shown = got(ports, "/")
    assert "&lt;i&gt;Kello&lt;/i&gt; 12" in shown
    assert '<iframe sandbox=""' in shown
    assert "<script>" not in shown
    assert "Aino Virtanen (aino@example.org)" in shown
    assert '<a href="http://127.0.0.1:1/t/abc"' in shown


def test_whatever_is_said_by_smtp_the_inbox_goes_on(ports: dict[str, int]) -> None:
    with smtplib.SMTP("127.0.0.1", ports["smtp_port"], timeout=10) as server:
        server.ehlo()
        server.mail("a@example.org")
        server.rcpt("b@example.org")
        code, _ = server.data(
            b"Subject: =?utf-8?q?=ff=00?=\r\nContent-Type: text/plain; charset=no-such\r\n\r\n\xff\xfe"
        )
        assert code in (250, 554)
        assert server.noop()[0] == 250
    sent(ports, a_mail("m4"))
