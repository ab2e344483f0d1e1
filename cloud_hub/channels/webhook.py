"""One notice to the shop's own machine, as a CloudEvent over HTTP; it may hear one twice and must act once.

CloudEvents 1.0, structured JSON mode (the whole event is the body, `application/cloudevents+json`). The event's id
never changes between attempts and also travels as `Idempotency-Key`, so a receiver that answered and was not heard
can tell the repeat. When to try again is the core's business, not ours.
"""

from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from cloudevents.core.bindings.http import to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from cloud_hub.events import Notice, NoticeDelivered, NoticeFailed

PATIENCE_S = 5.0

NEVER_AGAIN = frozenset({400, 401, 403, 404, 405, 410, 413, 415, 422})
"""Answers that will not change by asking again (RFC 9110); all others but 2xx are tried again."""


class WebhookSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the shop's messaging listens, and where each partner's does, by its name: a partner with an address of its
    own hears of its orders there, and nobody else does.
    """

    is_on: bool = False
    url: str = ""
    partners: dict[str, str] = {}


class Webhook:
    """Sends notices to one webhook. Safe from several threads."""

    def __init__(self, url: str, region: str) -> None:
        """`url` is where the shop's messaging listens; `region` names this hub in the event's source."""
        self._url = url
        self._source = f"/waywarden/{region}/hub"
        self._client = httpx.Client(timeout=PATIENCE_S)

    def send(self, need: str, notice: Notice, said: dict[str, str]) -> NoticeDelivered | NoticeFailed:
        """One attempt; `said` is what the customer is to read. Being out of reach is an ordinary answer."""
        message = to_structured(as_cloud_event(notice, self._source, said), JSONFormat())
        headers = {**message.headers, "Idempotency-Key": notice.notice_id}
        try:
            response = self._client.post(self._url, content=message.body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as away:
            return NoticeFailed(need, type(away).__name__, is_final=False)
        if response.is_success:
            return NoticeDelivered(need, answered(response))
        return NoticeFailed(need, answered(response), is_final=response.status_code in NEVER_AGAIN)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def answered(response: httpx.Response) -> str:
    """The answer in words that are the standard's and not the sender's: those may quote the customer."""
    try:
        return f"{response.status_code} {httpx.codes(response.status_code).name.replace('_', ' ').title()}"
    except ValueError:
        return str(response.status_code)


def as_cloud_event(notice: Notice, source: str, said: dict[str, str]) -> CloudEvent:
    """The notice as a CloudEvent. The shop knows whose order it is: neither name nor address travels."""
    data: dict[str, Any] = {
        "order_id": notice.order_id,
        "stop_id": notice.stop_id,
        "customer_ref": notice.customer_ref,
        "kind": notice.kind,
        "told": _window(notice.told.opens_ms, notice.told.closes_ms),
        "slot": _window(notice.slot.opens_ms, notice.slot.closes_ms),
        "why": notice.why,
        "is_breach": notice.is_breach,
        "sure_pct": notice.sure_pct,
        "next_step": notice.next_step,
        "sentence": notice.sentence,
        "decision_id": notice.decision_id,
        **said,
    }
    attributes = {
        "id": notice.notice_id,
        "source": source,
        "type": f"dev.waywarden.notice.{notice.kind}",
        "subject": notice.order_id,
        "time": datetime.fromtimestamp(notice.at_ms / 1000, UTC),
        "datacontenttype": "application/json",
    }
    return CloudEvent(attributes, data)


def refuse_bad_url(url: str, what: str = "webhook") -> None:
    """Raises ValueError unless this is http(s)://HOST/..."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as wrong:
        raise ValueError(f"{what} is '{url}': {wrong}; expected https://HOST/PATH") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{what} is '{url}', expected https://HOST/PATH")


def _window(opens_ms: int, closes_ms: int) -> dict[str, str]:
    return {"opens": _iso(opens_ms), "closes": _iso(closes_ms)}


def _iso(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
