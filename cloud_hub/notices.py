"""Notices on their way out: written in the customer's words, and handed to the channel the core has chosen.

Nothing leaves by a channel that is not switched on. When to try again, and by which channel, is the core's business.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from cloud_hub.channels.sms import SmsGateway, SmsSetting
from cloud_hub.channels.smtp import EmailSetting, MailServer
from cloud_hub.channels.webhook import Webhook, WebhookSetting, refuse_bad_url
from cloud_hub.contacts import Channel, Language, NoticeKind
from cloud_hub.events import Notice, NoticeDelivered, NoticeFailed, NoticeWanted
from cloud_hub.links import Links
from cloud_hub.notice_rules import ClockTime, NoticeRule
from cloud_hub.words import Words

__all__ = ["NoticeSetting", "Notifier", "notice_objections", "refuse_bad_url"]

LINK_OUTLASTS_MS = 48 * 3_600_000
"""A link is good until two days after the later of slot and window: long enough to see how it ended."""


class NoticeSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How customers are told; see `cloud_hub.notice_rules.NoticeRule` for what is not said here.

    `shop` is the name the texts speak in. `tracking_url` is the address under which customers' phones reach the hub's
    tracking page, "" for the hub's own. `country_code` is what a phone number with a leading 0 belongs to.
    """

    order: tuple[Channel, ...] = NoticeRule().order
    order_of: dict[NoticeKind, tuple[Channel, ...]] = msgspec.field(default_factory=lambda: dict(NoticeRule().order_of))
    quiet_from: ClockTime = "21:00"
    quiet_to: ClockTime = "07:00"
    on_its_way: Literal["asked", "always", "never"] = "asked"
    on_its_way_stops: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    on_its_way_min: Annotated[int, msgspec.Meta(ge=5, le=120)] = 30
    language: Language = "en"
    country_code: Annotated[str, msgspec.Meta(pattern="^([1-9][0-9]{0,2})?$")] = ""
    shop: Annotated[str, msgspec.Meta(max_length=40)] = ""
    tracking_url: str = ""
    email: EmailSetting = EmailSetting()
    sms: SmsSetting = SmsSetting()
    webhook: WebhookSetting = WebhookSetting()

    def webhook_url(self, former: str) -> str:
        """Where the shop listens, "" for nowhere. `former` is the setting of its own, which needs no switch."""
        return former or (self.webhook.url if self.webhook.is_on else "")

    def rule(self, webhook: str) -> NoticeRule:
        """What the core decides by."""
        listens = bool(self.webhook_url(webhook) or self.webhook.partners)
        is_on: dict[Channel, bool] = {"email": self.email.is_on, "sms": self.sms.is_on, "webhook": listens}
        return NoticeRule(
            on=tuple(channel for channel, is_it in is_on.items() if is_it),
            order=self.order,
            order_of=self.order_of,
            quiet_from=self.quiet_from,
            quiet_to=self.quiet_to,
            on_its_way=self.on_its_way,
            on_its_way_stops=self.on_its_way_stops,
            on_its_way_min=self.on_its_way_min,
            language=self.language,
        )


class Notifier:
    """Sends notices by the channels that are on. Safe from several threads."""

    def __init__(
        self, setting: NoticeSetting, webhook: str, region: str, zone: str, links: Links, now_ms: Callable[[], int]
    ) -> None:
        """`webhook` is the setting of its own, `now_ms` the domain clock. Raises SecretMissing or HeaderWrong."""
        url = setting.webhook_url(webhook)
        self._links = links
        self._now_ms = now_ms
        self._words = Words(zone, setting.shop)
        self._email = MailServer(setting.email) if setting.email.is_on else None
        self._sms = SmsGateway(setting.sms) if setting.sms.is_on else None
        self._webhook = Webhook(url, region) if url else None
        self._partners = {name: Webhook(theirs, region) for name, theirs in setting.webhook.partners.items()}

    def send(self, wanted: NoticeWanted) -> NoticeDelivered | NoticeFailed:
        """One attempt by the channel that is wanted. Being out of reach is an ordinary answer, never an exception."""
        notice, customer = wanted.notice, wanted.customer
        link = self._links.link(notice.order_id, expires_ms(notice))
        now_ms = self._now_ms()
        if wanted.channel == "email" and self._email is not None:
            letter = self._words.letter(notice, customer, link, f"{link}/stop", now_ms)
            return self._email.send(wanted.need, (customer.name, customer.email), letter, now_ms)
        text = self._words.sms(notice, customer.language, link, now_ms)
        if wanted.channel == "sms" and self._sms is not None:
            return self._sms.send(wanted.need, customer.phone, text)
        webhook = self._partners.get(wanted.partner, self._webhook)
        if wanted.channel == "webhook" and webhook is not None:
            said = {"language": customer.language, "text": text, "tracking_url": link}
            return webhook.send(wanted.need, notice, said)
        return NoticeFailed(wanted.need, f"{wanted.channel} is switched off", is_final=True)

    def close(self) -> None:
        """Let go of the connections."""
        for channel in (self._sms, self._webhook, *self._partners.values()):
            if channel is not None:
                channel.close()


def expires_ms(notice: Notice) -> int:
    """Until when the notice's link is good."""
    return max(notice.slot.closes_ms, notice.told.closes_ms) + LINK_OUTLASTS_MS


def notice_objections(setting: NoticeSetting, webhook: str) -> list[str]:
    """What is wrong with how customers are to be told, in words; empty when nothing is."""
    urls: list[tuple[str, Any]] = [
        ("webhook", webhook),
        ("[notices.webhook] url", setting.webhook.url if setting.webhook.is_on else ""),
        ("[notices.sms] url", setting.sms.url if setting.sms.is_on else ""),
        ("[notices] tracking_url", setting.tracking_url),
        *((f"[notices.webhook.partners] {name}", url or "nowhere") for name, url in setting.webhook.partners.items()),
    ]
    found = []
    for what, url in urls:
        if url:
            try:
                refuse_bad_url(url, what)
            except ValueError as wrong:
                found.append(str(wrong))
    for name, is_on, needed in (
        ("webhook", setting.webhook.is_on, setting.webhook.url), ("sms", setting.sms.is_on, setting.sms.url),
        ("email", setting.email.is_on, setting.email.sender),
    ):  # fmt: skip
        if is_on and not needed:
            found.append(f"[notices.{name}] is on without {'a sender' if name == 'email' else 'a url'}")
    if setting.email.is_on and setting.email.security == "none" and setting.email.user:
        found.append(
            "[notices.email] would say its password to anybody on the way: security is none, expected starttls"
        )
    return found
