"""One SMS, through whichever HTTP gateway the settings describe."""

import re
from typing import Annotated, Any, Literal

import httpx
import msgspec

from cloud_hub.channels import secret_of
from cloud_hub.channels.webhook import NEVER_AGAIN, answered
from cloud_hub.events import NoticeDelivered, NoticeFailed

_SIGNS_OF_ANOTHER_ID = re.compile(r"[^\w.:=@/+-]")
LONGEST_ID = 80


class SmsSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A gateway: where it listens and what it wants to be told.

    In `headers` and `body`, at any depth, {to} becomes the number, {text} the message, {id} the notice's own number
    (the same at every attempt) and {secret} what `secret_env` or `secret_file` hold. `id_field` is where the gateway's
    own number stands in its JSON answer, by names and places: "messages.0.id".
    """

    is_on: bool = False
    url: str = ""
    method: Literal["POST", "PUT", "GET"] = "POST"
    kind: Literal["json", "form"] = "json"
    headers: dict[str, str] = {}
    body: dict[str, Any] = msgspec.field(default_factory=lambda: {"to": "{to}", "text": "{text}", "id": "{id}"})
    secret_env: str = ""
    secret_file: str = ""
    id_field: str = "id"
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=120)] = 10.0


class SmsGateway:
    """Sends by one gateway. Safe from several threads."""

    def __init__(self, setting: SmsSetting) -> None:
        """Raises SecretMissing."""
        self._setting = setting
        self._secret = secret_of(setting.secret_env, setting.secret_file, "[notices.sms]")
        self._client = httpx.Client(timeout=setting.timeout_s)

    def send(self, need: str, to: str, text: str) -> NoticeDelivered | NoticeFailed:
        """One attempt. Being out of reach is an ordinary answer, never an exception."""
        setting = self._setting
        values = {"{to}": to, "{text}": text, "{id}": need, "{secret}": self._secret}
        body = _filled(setting.body, values)
        carried: dict[str, Any] = (
            {"params": body}
            if setting.method == "GET"
            else {"json": body}
            if setting.kind == "json"
            else {"data": body}
        )
        headers = {name: _in_one_line(_filled(value, values)) for name, value in setting.headers.items()}
        try:
            response = self._client.request(setting.method, setting.url, headers=headers, **carried)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError) as away:
            # The exception's own words may quote the request, hence the customer.
            return NoticeFailed(need, type(away).__name__, is_final=False)
        if response.is_success:
            return NoticeDelivered(need, answered(response), _id_in(response, setting.id_field, (to, text)))
        return NoticeFailed(need, answered(response), is_final=response.status_code in NEVER_AGAIN)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def _filled(template: Any, values: dict[str, str]) -> Any:
    """The template with every placeholder of every string filled, each once: what is put in is not read again."""
    if isinstance(template, str):
        return re.sub(r"\{(?:to|text|id|secret)\}", lambda found: values[found[0]], template)
    if isinstance(template, dict):
        return {name: _filled(value, values) for name, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, values) for value in template]
    return template


def _in_one_line(value: str) -> str:
    return re.sub(r"[\r\n\0]+", " ", value).encode("ascii", "replace").decode()


def _id_in(response: httpx.Response, field: str, personal: tuple[str, ...]) -> str:
    """The gateway's own number for the message; "" when it gave none that may be kept."""
    try:
        found: Any = response.json()
        for step in field.split("."):
            found = found[int(step)] if isinstance(found, list) else found[step]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
    number = _SIGNS_OF_ANOTHER_ID.sub("", str(found))[:LONGEST_ID] if isinstance(found, str | int) else ""
    return "" if any(each and each.lstrip("+") in number for each in personal) else number
