"""What customers read: strings by language, layouts for all of them, and how a notice becomes a message.

`en.toml`, `fi.toml` and `sv.toml` hold the same keys; `letter.txt` and `letter.html` are the two faces of an e-mail,
rendered by Jinja with autoescape. A customer reads codes turned into words: nothing a van or a person typed gets here
but the order's number, the customer's own name and the place of a locker.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jinja2

from cloud_hub.channels.smtp import Letter
from cloud_hub.contacts import LANGUAGES, Customer, Language
from cloud_hub.events import Notice

FOLDER = Path(__file__).parent
ONE_SMS = 160
ONE_LONG_SMS = 70
LONGEST_ORDER_IN_SMS = 20
ROUND_MS = 5 * 60_000

GSM_7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_7_TWICE = frozenset("^{}\\[~]|€\f")
"""3GPP TS 23.038, 6.2.1: the default alphabet, and the signs that cost two places in it."""

Strings = Mapping[str, Mapping[str, Any]]


@cache
def strings(language: Language) -> Strings:
    """The strings of a language, by section and key."""
    assert language in LANGUAGES
    with (FOLDER / f"{language}.toml").open("rb") as file:
        return tomllib.load(file)


def sms_units(text: str) -> int | None:
    """How much of an SMS a text takes, in septets; None when it needs another alphabet than GSM-7."""
    if any(sign not in GSM_7 and sign not in GSM_7_TWICE for sign in text):
        return None
    return sum(2 if sign in GSM_7_TWICE else 1 for sign in text)


def fits_one_sms(text: str) -> bool:
    """Whether the text is one message: 160 septets, or 70 signs of UCS-2."""
    units = sms_units(text)
    return len(text.encode("utf-16-be")) <= 2 * ONE_LONG_SMS if units is None else units <= ONE_SMS


@dataclass(frozen=True, slots=True)
class _Said:
    """The pieces all channels build from."""

    values: dict[str, str]
    why: str
    strings: Strings

    def line(self, section: str, key: str) -> str:
        return str(self.strings[section][key]).format_map(self.values)


class Words:
    """Writes notices in the customer's language, in the zone's local time. Safe from several threads."""

    def __init__(self, zone: str, shop: str) -> None:
        """`shop` is the name the messages speak in, "" for none."""
        self._zone = ZoneInfo(zone)
        self._shop = " ".join(shop.split())
        # Autoescape by the file's ending, and an unknown name is an error, never a blank.
        self._layouts = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER),
            autoescape=jinja2.select_autoescape(["html"]),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )

    def sms(self, notice: Notice, language: Language, link: str, now_ms: int) -> str:
        """The notice in one SMS when it can be: what matters least is left out first, the link never."""
        order = notice.order_id if len(notice.order_id) <= LONGEST_ORDER_IN_SMS else ""
        named, unnamed = (self._said(notice, language, link, now_ms, each) for each in (order, ""))
        who = f"{self._shop}: " if self._shop else ""
        follow = named.line("sms", "link")
        for said, extras, last in (
            (named, ("why", "sorry", "breach"), follow),
            (named, ("breach",), follow),
            (unnamed, ("breach",), follow),
            (unnamed, (), follow),
            (unnamed, (), link),
        ):
            text = " ".join(
                [who + said.line("sms", _line_for(notice)), *self._extras("sms", said, notice, extras), last]
            )
            if fits_one_sms(text):
                break
        return text

    def letter(self, notice: Notice, customer: Customer, link: str, stop_url: str, now_ms: int) -> Letter:
        """The notice as an e-mail."""
        said = self._said(notice, customer.language, link, now_ms, notice.order_id)
        name = " ".join(customer.name.split())
        said.values["name"] = name
        more = self._extras("letter", said, notice, ("breach", "why", "sorry"))
        if notice.sure_pct is not None and notice.kind in ("day", "changed"):
            more.append(said.line("letter", "sure"))
        subject = " ".join(said.line("subject", _line_for(notice)).split())
        if self._shop:
            subject = f"{self._shop}: {subject}"
        shown = {
            "language": customer.language,
            "subject": subject,
            "hello": said.line("letter", "hello_name" if name else "hello"),
            "lead": _sentence(said.line("letter", _line_for(notice))),
            "more": more,
            "link": link,
            "stop_url": stop_url,
            "shop": self._shop,
            **{key: said.line("letter", key) for key in ("button", "about", "regards", "stop")},
        }
        text, html = (self._layouts.get_template(name).render(shown) for name in ("letter.txt", "letter.html"))
        return Letter(customer.language, subject, text, html, stop_url)

    def when(self, opens_ms: int, closes_ms: int, language: Language, now_ms: int) -> str:
        """A window as people say it: today 10:15-11:45, tomorrow, or with its date."""
        own = strings(language)["time"]
        opens, closes, now = (datetime.fromtimestamp(each / 1000, self._zone) for each in (opens_ms, closes_ms, now_ms))
        days = (opens.date() - now.date()).days
        day = str(own["today"]) if days == 0 else str(own["tomorrow"]) if days == 1 else _date(opens, own)
        ends = _clock(closes, own) if closes.date() == opens.date() else f"{_date(closes, own)} {_clock(closes, own)}"
        return str(own["window"]).format(day=day, opens=_clock(opens, own), closes=ends)

    def _said(self, notice: Notice, language: Language, link: str, now_ms: int, order: str) -> _Said:
        own = strings(language)
        expected_ms = notice.told.opens_ms if notice.expected_ms is None else notice.expected_ms
        at = datetime.fromtimestamp((expected_ms + ROUND_MS // 2) // ROUND_MS * ROUND_MS / 1000, self._zone)
        values = {
            "order": f" {order}" if order else "",
            "when": self.when(notice.told.opens_ms, notice.told.closes_ms, language, now_ms),
            "at": str(own["time"]["at"]).format(clock=_clock(at, own["time"])),
            "why": str(own["why"].get(notice.why, "")),
            "pct": str(notice.sure_pct),
            "place": " ".join(notice.place.split()),
            "link": link,
        }
        step: str = notice.next_step or "none"
        if step in ("locker", "locker_ready") and values["place"]:
            step += "_at"
        values["next"] = str(own["next"][step]).format_map(values)
        return _Said(values, values["why"], own)

    def _extras(self, section: str, said: _Said, notice: Notice, wanted: tuple[str, ...]) -> list[str]:
        is_known = bool(said.why)
        is_there = {
            "why": is_known and notice.kind == "changed",
            "sorry": is_known and notice.kind == "missed",
            "breach": notice.is_breach,
        }
        return [said.line(section, key) for key in wanted if is_there[key]]


def _line_for(notice: Notice) -> str:
    """The line that says it: what waits in a locker was missed before, and is good news now."""
    return "ready" if notice.kind == "missed" and notice.next_step == "locker_ready" else notice.kind


def _clock(moment: datetime, own: Mapping[str, Any]) -> str:
    return str(own["clock"]).format(hour=moment.hour, minute=moment.minute)


def _date(moment: datetime, own: Mapping[str, Any]) -> str:
    weekday, month = own["weekdays"][moment.weekday()], own["months"][moment.month - 1]
    return str(own["date"]).format(weekday=weekday, day=moment.day, month=month)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
