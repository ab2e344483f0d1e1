"""A notice is one CloudEvent, and being out of reach is an ordinary answer."""

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured
from cloudevents.core.formats.json import JSONFormat

from cloud_hub.contacts import Customer
from cloud_hub.events import Notice, NoticeDelivered, NoticeFailed, NoticeWanted
from cloud_hub.notices import Notifier, as_cloud_event, refuse_bad_url
from deploy.stack import free_ports
from shared.work import AgentId, OrderId, StopId
from tests.shells.hub_parts import Inbox
from tests.unit.hub_cases import at, window

NOTICE = Notice(
    "stop-1.2.hub-000007", "changed", OrderId("order-1"), StopId("stop-1"), AgentId("van-1"), window(11, 12.5),
    window(9, 17), at(9.5), "The window moves.", "hub-000007",
)  # fmt: skip
WANTED = NoticeWanted(NOTICE.notice_id, NOTICE, "webhook", Customer("order-1"))


def test_a_notice_arrives_as_a_cloud_event_any_library_reads() -> None:
    with Inbox() as inbox:
        notifier = Notifier(inbox.url, "main")
        assert notifier.send(WANTED) == NoticeDelivered(NOTICE.notice_id, "204 No Content")
        notifier.close()
        (event,) = inbox.events
    assert event["specversion"] == "1.0"
    assert (event["id"], event["source"]) == (NOTICE.notice_id, "/waywarden/main/hub")
    assert (event["type"], event["subject"]) == ("dev.waywarden.notice.changed", "order-1")
    assert event["data"]["told"] == {"opens": "2026-03-03T09:00:00Z", "closes": "2026-03-03T10:30:00Z"}
    assert inbox.keys == [NOTICE.notice_id]


def test_the_event_reads_back_by_the_library_it_was_written_with() -> None:
    event = as_cloud_event(NOTICE, "/waywarden/main/hub")
    body = JSONFormat().write(event)
    read = from_structured(HTTPMessage({"content-type": "application/cloudevents+json"}, body), JSONFormat())
    assert read.get_id() == NOTICE.notice_id
    assert read.get_data() == event.get_data()


@pytest.mark.parametrize(("status", "is_final"), [(500, False), (503, False), (429, False), (410, True), (422, True)])
def test_an_answer_that_cannot_change_is_final_and_others_are_not(status: int, is_final: bool) -> None:
    with Inbox() as inbox:
        inbox.answers = [status]
        notifier = Notifier(inbox.url, "main")
        failed = notifier.send(WANTED)
        notifier.close()
    assert isinstance(failed, NoticeFailed)
    assert failed.is_final == is_final
    assert failed.answer.startswith(str(status))


def test_a_shop_that_is_away_is_an_ordinary_answer() -> None:
    (port,) = free_ports(1)
    notifier = Notifier(f"http://127.0.0.1:{port}/", "main")
    failed = notifier.send(WANTED)
    notifier.close()
    assert isinstance(failed, NoticeFailed)
    assert not failed.is_final
    assert "ConnectError" in failed.answer


@pytest.mark.parametrize("url", ["", "shop.example", "ftp://shop.example/", "http://", "http://[::1"])
def test_a_webhook_that_is_no_url_is_refused_before_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="expected https://HOST/PATH"):
        refuse_bad_url(url)
