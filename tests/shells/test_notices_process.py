"""A hub as a process tells customers by real mail and SMS, once, whatever dies in between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

import pytest

from deploy.stack import Stack
from tests.shells.hub_parts import HubProcess, some_orders, start_broker
from tests.shells.receivers import Gateway, MailBox, mail_server


class Told(NamedTuple):
    """A hub, and where its customers read."""

    hub: HubProcess
    box: MailBox
    gateway: Gateway
    folder: Path


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """A hub whose channels are all on."""
    with Stack(tmp_path / "logs", {}) as stack, mail_server() as (box, mail), Gateway() as gateway:
        more = (
            '[notices]\nshop = "Kauppa"\ncountry_code = "358"\n'
            f'[notices.email]\nis_on = true\nhost = "127.0.0.1"\nport = {mail.port}\nsecurity = "none"\n'
            f'sender = "delivery@shop.example"\n[notices.sms]\nis_on = true\nurl = "{gateway.url}"\n'
        )
        yield Told(HubProcess(stack, start_broker(stack), tmp_path, more=more), box, gateway, tmp_path)


def orders_for(count: int) -> list[dict[str, Any]]:
    contact = {"email": "maija@example.fi", "phone": "040 123 4567", "language": "fi", "consent": ["email", "sms"]}
    return [order | contact | {"customer_ref": f"C-{k}"} for k, order in enumerate(some_orders(count))]


def states(hub: HubProcess) -> list[str]:
    return [notice["state"] for notice in hub.get("/api/notices")]


def test_customers_get_mail_read_their_receipts_and_stop_it_with_one_click(told: Told) -> None:
    hub, box = told.hub, told.box
    hub.plan_day(orders_for(2))
    box.wait(lambda: len(box.mails) == 2, "both customers have mail")
    hub.wait(lambda: states(hub) == ["delivered"] * 2, "both notices are delivered")
    mail = box.mails[0]
    assert mail["Subject"].startswith("Kauppa: Toimituksesi saapuu tänään klo ")
    notice = next(n for n in hub.get("/api/notices") if mail["Message-ID"].startswith(f"<{n['notice_id']}@"))
    (receipt,) = hub.get(f"/api/notices/{notice['notice_id']}/receipts")
    assert (receipt["channel"], receipt["is_delivered"], receipt["provider_id"]) == ("email", True, "4bXYZ17")
    stop = mail["List-Unsubscribe"].strip("<>").partition(f":{hub.port}")[2]
    assert hub.http.post(stop).json()["channel"] == "email"
    customer = hub.get(f"/api/customers/{notice['customer_ref']}")
    assert (customer["opted_out_channels"], customer["phone"]) == (["email"], "+358401234567")
    assert urljoin(stop, hub.http.get(stop).headers["location"]) == f"{stop.removesuffix('/stop')}#stop"
    assert hub.http.post(f"{stop[:-6]}x/stop").status_code == 404
    said = {"opens": "2026-03-03T13:00+02:00", "closes": "2026-03-03T14:00+02:00", "by": "anna"}
    assert hub.http.post(f"/api/promises/{notice['order_id']}/window", json=said).status_code == 200
    hub.wait(lambda: len(told.gateway.requests) == 1, "the changed window comes by SMS")
    assert "13.00-14.00" in told.gateway.requests[0][3]
    assert len(box.mails) == 2


def test_a_hub_killed_before_it_hears_the_answer_sends_the_same_mail_again(told: Told) -> None:
    hub, box = told.hub, told.box
    box.before_answering = hub.kill
    taken = hub.http.post("/api/orders", json=orders_for(1)).json()
    assert len(taken["accepted"]) == 1, taken
    assert hub.http.post("/api/day/plan").status_code == 202
    box.wait(lambda: len(box.mails) == 1, "the mail came, and the hub died of it")
    hub.start_again()
    box.wait(lambda: len(box.mails) == 2, "the hub that came back sends it again")
    hub.wait(lambda: states(hub) == ["delivered"], "this time the hub hears that it is taken")
    assert len({mail["Message-ID"] for mail in box.mails}) == 1


def test_a_mail_that_is_refused_becomes_an_sms_and_no_log_knows_the_customer(told: Told) -> None:
    hub = told.hub
    told.box.answers["RCPT"] = "550 5.1.1 maija@example.fi is unknown"
    hub.plan_day(orders_for(1))
    hub.wait(lambda: states(hub) == ["delivered"], "the customer is told in another way")
    (notice,) = hub.get("/api/notices")
    assert notice["channel"] == "sms"
    answers = [(each["channel"], each["answer"]) for each in hub.get(f"/api/notices/{notice['notice_id']}/receipts")]
    assert answers == [("email", "550 5.1.1"), ("sms", "201 Created")]
    logs = b"".join(log.read_bytes() for log in (told.folder / "logs").glob("*.log"))
    assert logs
    assert not [word for word in (b"maija", b"401234567", b"/t/") if word in logs]


def test_a_customer_is_put_right_by_a_person_and_nonsense_is_refused_without_repeating_it(told: Told) -> None:
    http = told.hub.http
    said = {"email": "m@example.fi", "phone": "0401234567", "language": "sv", "consents": ["sms"], "by": "anna"}
    assert http.put("/api/customers/C-9", json=said).status_code == 200
    kept = told.hub.get("/api/customers/C-9")
    assert (kept["phone"], kept["language"], kept["consents"]) == ("+358401234567", "sv", ["sms"])
    assert http.get("/api/customers/C-10").status_code == 404
    for wrong in ({"email": "m@"}, {"phone": "12x"}, {"language": "xx"}, {"name": "a\u0000b"}, {"colour": "red"}):
        refused = http.put("/api/customers/C-9", json=wrong)
        assert refused.status_code == 422
        assert not [value for value in wrong.values() if value in refused.json()["detail"] and value != "xx"]
    assert told.hub.get("/api/customers/C-9") == kept
