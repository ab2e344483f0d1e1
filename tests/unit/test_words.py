"""What customers read is whole in every language, short enough for an SMS, and says nothing of anybody else."""

import re
from datetime import datetime
from typing import get_args
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape

from cloud_hub.channels.smtp import Letter
from cloud_hub.contacts import LANGUAGES, NOTICE_KINDS, Customer, Language, NextStep, NoticeKind, Why
from cloud_hub.events import Notice
from cloud_hub.words import Strings, Words, fits_one_sms, sms_units, strings
from shared.quantities import EpochMs, TimeWindow
from shared.work import AgentId, OrderId, StopId

ZONE = ZoneInfo("Europe/Helsinki")
LINK = "https://track.shop.example/t/AGmlxiBBLTEwMDE.abcdefghijklmnopqrstuv"
WORDS = Words("Europe/Helsinki", "Kauppa")


def local_ms(text: str) -> EpochMs:
    return EpochMs(int(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp() * 1000))


NOW_MS = local_ms("2026-11-23T09:30")
TOLD = TimeWindow(local_ms("2026-11-23T10:15"), local_ms("2026-11-23T11:45"))
NOTICE = Notice(
    "stop-A-1001.2.hub-000007", "changed", OrderId("A-1001"), StopId("stop-A-1001"), AgentId("van-1"), TOLD,
    TimeWindow(local_ms("2026-11-23T10:00"), local_ms("2026-11-23T12:00")), NOW_MS,
    "The window of order A-1001 moves: van-1 is late at stop-B-77.", "hub-000007", customer_ref="C-1", why="traffic",
    sure_pct=90, expected_ms=local_ms("2026-11-23T10:52"),
)  # fmt: skip
MAIJA = Customer("C-1", "Maija", "maija@example.fi", "+358401234567")

kinds = st.sampled_from(NOTICE_KINDS)
languages = st.sampled_from(LANGUAGES)
whys = st.sampled_from(get_args(Why))
steps = st.sampled_from(get_args(NextStep))
notices = st.builds(
    lambda kind, why, step, is_breach, place, order_id: msgspec.structs.replace(
        NOTICE, kind=kind, why=why, next_step=step, is_breach=is_breach, place=place, order_id=OrderId(order_id)
    ),
    kinds, whys, steps, st.booleans(), st.sampled_from(["", "Mannerheimintie 5 {place}", "<b>K-Market</b>"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64),
)  # fmt: skip


def keys_of(own: Strings) -> dict[str, set[str]]:
    return {section: set(values) for section, values in own.items()}


def holes(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_key_and_the_same_holes_to_fill(language: Language) -> None:
    own, english = strings(language), strings("en")
    assert keys_of(own) == keys_of(english)
    assert all(str(value).strip() for section in own.values() for value in section.values())
    told = [section for section in own if section != "time"]
    assert {(s, k): holes(own[s][k]) for s in told for k in own[s]} == {
        (s, k): holes(english[s][k]) for s in told for k in english[s]
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_has_words(language: Language) -> None:
    own = strings(language)
    assert set(own["why"]) == set(get_args(Why)) - {""}
    assert set(own["next"]) == (set(get_args(NextStep)) - {""}) | {"none", "locker_at", "locker_ready_at"}
    assert set(NOTICE_KINDS) | {"ready"} == set(own["subject"])
    assert set(NOTICE_KINDS) | {"ready"} <= set(own["sms"]) & set(own["letter"])


@settings(max_examples=150)
@given(notices, languages)
def test_nothing_rendered_holds_a_hole_a_blank_or_what_is_not_the_customers(notice: Notice, language: Language) -> None:
    customer = msgspec.structs.replace(MAIJA, language=language)
    letter = WORDS.letter(notice, customer, LINK, f"{LINK}/stop", NOW_MS)
    sms = WORDS.sms(notice, language, LINK, NOW_MS)
    said_by_us = notice.order_id + notice.place
    for text in (letter.subject, letter.text, letter.html, sms):
        ours = text.replace(notice.order_id, "").replace(str(escape(notice.order_id)), "")
        assert not re.search(r"\{\{|\{%|None|Undefined", ours)
        assert not [hole for hole in re.findall(r"\{\w+\}", text) if hole not in said_by_us]
        assert "stop-B-77" not in text
        assert "van-1" not in ours
    assert letter.subject.isprintable()
    assert LINK in sms
    assert LINK in letter.text
    assert f'href="{LINK}"' in letter.html


@given(kinds, whys, steps, languages, st.booleans())
def test_an_sms_is_one_message_of_gsm_7_with_its_link(
    kind: NoticeKind, why: Why, step: NextStep, language: Language, is_breach: bool
) -> None:
    notice = msgspec.structs.replace(NOTICE, kind=kind, why=why, next_step=step, is_breach=is_breach)
    text = WORDS.sms(notice, language, LINK, NOW_MS)
    units = sms_units(text)
    assert units is not None
    assert units <= 160
    assert text.endswith(LINK)


def test_what_matters_least_is_left_out_of_an_sms_first() -> None:
    near = "http://t.fi/t/AGmlxiBBLTEwMDE.abcdefghijklmnopqrstuv"
    breach = msgspec.structs.replace(NOTICE, is_breach=True)
    assert "traffic is slower" in WORDS.sms(NOTICE, "en", near, NOW_MS)
    assert "Sorry" in WORDS.sms(breach, "en", near, NOW_MS)
    assert "traffic" not in WORDS.sms(breach, "en", LINK, NOW_MS)
    long = msgspec.structs.replace(NOTICE, order_id=OrderId("A" * 30))
    assert "AAA" not in WORDS.sms(long, "en", near, NOW_MS)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", f"Kauppa: New time for your delivery A-1001: today 10:15-11:45. Follow: {LINK}"),
        ("fi", f"Kauppa: Toimituksesi A-1001 uusi aika: tänään klo 10.15-11.45. Seuraa: {LINK}"),
        ("sv", f"Kauppa: Ny tid för din leverans A-1001: i dag kl. 10.15-11.45. Följ: {LINK}"),
    ],
)
def test_the_same_notice_in_three_languages(language: Language, text: str) -> None:
    assert WORDS.sms(msgspec.structs.replace(NOTICE, why=""), language, LINK, NOW_MS) == text


@pytest.mark.parametrize(
    ("opens", "closes", "language", "when"),
    [
        ("2026-11-23T10:15", "2026-11-23T11:45", "en", "today 10:15-11:45"),
        ("2026-11-24T08:00", "2026-11-24T10:00", "fi", "huomenna klo 8.00-10.00"),
        ("2026-11-27T08:00", "2026-11-27T10:00", "fi", "pe 27.11. klo 8.00-10.00"),
        ("2026-12-01T08:00", "2026-12-01T10:00", "sv", "tis 1.12 kl. 8.00-10.00"),
        ("2026-11-23T23:00", "2026-11-24T01:00", "en", "today 23:00-Tue 24 Nov 01:00"),
    ],
)
def test_a_window_is_told_as_people_say_it(opens: str, closes: str, language: Language, when: str) -> None:
    assert WORDS.when(local_ms(opens), local_ms(closes), language, NOW_MS) == when


def test_the_letter_says_when_how_sure_and_why() -> None:
    letter = WORDS.letter(NOTICE, MAIJA, LINK, f"{LINK}/stop", NOW_MS)
    assert letter.subject == "Kauppa: New time for your delivery: today 10:15-11:45"
    for text in (letter.text, letter.html):
        assert "Hello Maija," in text
        assert "in about 90 of 100 cases" in text
        assert "traffic is slower than usual" in text


def test_a_parcel_waits_in_a_locker_only_once_it_is_there() -> None:
    goes = msgspec.structs.replace(NOTICE, kind="missed", why="", next_step="locker", place="Kiosk")
    lies = msgspec.structs.replace(goes, next_step="locker_ready")
    before, after = (WORDS.letter(each, MAIJA, LINK, f"{LINK}/stop", NOW_MS) for each in (goes, lies))
    assert "We take it to a locker today: Kiosk. We tell you when it is there." in before.text
    assert before.subject == "Kauppa: We could not deliver today"
    assert "You can fetch it here: Kiosk." in after.text
    assert after.subject == "Kauppa: Your delivery is in the parcel locker"
    assert "could not" not in after.text
    assert WORDS.sms(lies, "en", "http://t.fi/t/A.b", NOW_MS) == (
        "Kauppa: Your delivery A-1001 is in a locker. You can fetch it here: Kiosk. Follow: http://t.fi/t/A.b"
    )


def test_a_name_made_of_html_is_a_name() -> None:
    letter = letter_to("<script>alert(1)</script>")
    assert "<script>" not in letter.html
    assert "&lt;script&gt;" in letter.html


def test_a_name_with_a_line_break_cannot_begin_a_header() -> None:
    letter = letter_to("Maija\r\nBcc: all@example.fi")
    assert "Hello Maija Bcc: all@example.fi," in letter.text
    assert letter.subject.isprintable()


def letter_to(name: str) -> Letter:
    customer = msgspec.structs.replace(MAIJA, name=name)
    return WORDS.letter(NOTICE, customer, LINK, f"{LINK}/stop", NOW_MS)


@pytest.mark.parametrize(
    ("text", "units"), [("x" * 160, 160), ("ä" * 160, 160), ("€" * 80, 160), ("{" * 81, 162), ("ő", None)]
)
def test_an_sms_is_measured_in_septets(text: str, units: int | None) -> None:
    assert sms_units(text) == units
    assert fits_one_sms(text) == (units is None or units <= 160)
