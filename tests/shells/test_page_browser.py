"""The driver's page in a real browser before a real agent: a whole day, a locked door, and everything optional gone."""

import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zxingcpp
from playwright.sync_api import Browser, Playwright, Request, Route, expect
from playwright.sync_api import Page as Tab

from edge_agent.page.assets import OPTIONAL_SCRIPTS
from shared.contracts import ShiftLock
from shared.messages import OverrideExplained, ShiftChanged
from shared.work import Outcome, Stop
from tests.agents import plan_of, row_of_houses, stop
from tests.shells.phones import Van, a_browser, a_phone, complaints_of, launched, type_like_a_scanner

expect.set_options(timeout=15_000)

SIGNED = (120, 60), (200, 90), (150, 120), (260, 70)


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Playwright, Browser]]:
    with a_browser() as found:
        yield found


@pytest.fixture(scope="module")
def browser(started: tuple[Playwright, Browser]) -> Browser:
    return started[1]


@pytest.fixture
def van(tmp_path: Path) -> Iterator[Van]:
    found = Van(tmp_path)
    yield found
    found.sleeps()


@pytest.fixture
def tab(browser: Browser, van: Van) -> Iterator[Tab]:
    phone = a_phone(browser)
    opened = phone.new_page()
    complaints = complaints_of(opened)
    yield opened
    phone.close()
    assert complaints == []


def press(tab: Tab, words: str) -> None:
    tab.get_by_role("button", name=words, exact=True).click()


def is_shown(tab: Tab, words: str) -> None:
    expect(tab.get_by_text(words).first).to_be_visible()


def arrive_next(tab: Tab, street: str) -> None:
    """Set off to the stop that is shown first."""
    expect(tab.get_by_role("heading", level=1)).to_have_text(street)
    press(tab, "Set off")
    expect(tab.locator(".kicker").first).to_contain_text("On the way")


def sign(tab: Tab, seen: Callable[[], None] = lambda: None) -> None:
    """Draw on the pad with a finger. `seen` is done before it is handed in."""
    pad = tab.locator("canvas.pad")
    box = pad.bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + 40, box["y"] + 60)
    tab.mouse.down()
    for east, north in SIGNED:
        tab.mouse.move(box["x"] + east, box["y"] + north, steps=5)
    tab.mouse.up()
    seen()
    press(tab, "Done")


def a_png(width: int, height: int, grey: np.ndarray | None = None) -> bytes:
    """A picture as a file: grey points, or a noise no encoder likes."""
    points = np.random.default_rng(1).integers(0, 255, (height, width), np.uint8) if grey is None else grey
    rows = b"".join(b"\0" + row.tobytes() for row in points)

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    head = points.shape[1].to_bytes(4, "big") + points.shape[0].to_bytes(4, "big") + b"\x08\0\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def barcode(text: str, width: int = 640, height: int = 480) -> np.ndarray:
    """A real barcode in the middle of a grey wall: uint8 [height, width]."""
    drawn = np.array(zxingcpp.write_barcode_to_image(zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.Code128)))
    drawn = np.kron(drawn, np.ones((3, 3), np.uint8))
    wall = np.full((height, width), 230, np.uint8)
    top, left = (height - drawn.shape[0]) // 2, (width - drawn.shape[1]) // 2
    wall[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return wall


def photograph(tab: Tab, words: str, picture: bytes, kind: str = "image/png") -> None:
    """The phone's camera gives the page a file."""
    tab.get_by_label(words).set_input_files({"name": "p", "mimeType": kind, "buffer": picture})


def described(of: Stop, **more: Any) -> Stop:
    return msgspec.structs.replace(of, **more)


def test_a_driver_ends_every_kind_of_stop_with_one_thumb(tab: Tab, van: Van) -> None:
    van.push(plan_of([
        described(stop("s1", 400, 0, service="signature"), door_code="2468", note="Ring twice"),
        stop("s2", 800, 0, service="leave_safe"),
        stop("s3", 1200, 0, parcels=2),
        stop("s4", 1600, 0),
        stop("s5", 2000, 0, service="age_check"),
        stop("s6", 2400, 0, service="collection"),
        described(stop("s7", 2800, 0), neighbour="Virtanen"),
        stop("s8", 3200, 0),
        stop("s9", 3600, 0),
    ]))  # fmt: skip
    tab.goto(van.url)
    is_shown(tab, "Ready to go")
    press(tab, "Begin the shift")

    arrive_next(tab, "s1 street 1")
    expect(tab.get_by_text("2468")).to_be_visible()
    type_like_a_scanner(tab, "WW:s1/1")
    press(tab, "Sign")
    sign(tab)

    arrive_next(tab, "s2 street 1")
    press(tab, "Scan 1 parcel")
    tab.get_by_label("Or type the number").fill("s2/1")
    press(tab, "Take it")
    press(tab, "In the safe place")
    photograph(tab, "Take a photo", a_png(1800, 1400))
    press(tab, "Use this photo")

    arrive_next(tab, "s3 street 1")
    press(tab, "Other…")
    press(tab, "Only a part")
    tab.get_by_role("button", name="s3/2").click()
    press(tab, "Go on")
    press(tab, "Not found in the load")

    arrive_next(tab, "s4 street 1")
    press(tab, "Other…")
    press(tab, "Nobody there, no way in")
    press(tab, "Another reason")
    tab.get_by_label("In your own words").fill("moved away")
    press(tab, "Send")

    arrive_next(tab, "s5 street 1")
    van.scan("WW:s5/1")
    press(tab, "Check the age")
    press(tab, "Document seen, 18 or older")

    arrive_next(tab, "s6 street 1")
    press(tab, "Collected")

    arrive_next(tab, "s7 street 1")
    type_like_a_scanner(tab, "s7/1")
    is_shown(tab, "Handed over")
    press(tab, "Other…")
    press(tab, "To a neighbour")
    tab.get_by_label("Virtanen").fill("B 12")
    press(tab, "Send")

    arrive_next(tab, "s8 street 1")
    press(tab, "Other…")
    press(tab, "Damaged")
    press(tab, "Wet")
    press(tab, "Without a photo")

    arrive_next(tab, "s9 street 1")
    press(tab, "Other…")
    press(tab, "Not on board")
    press(tab, "Not on board")

    is_shown(tab, "All stops done")
    press(tab, "End the shift")
    is_shown(tab, "Thank you for today.")

    found = {visit.stop_id: visit for visit in van.visits}
    assert [visit.outcome.value for visit in van.visits] == [
        "delivered_to_person", "delivered_to_safe_place", "part", "attempted", "delivered_to_person", "collected",
        "delivered_to_neighbour", "damaged", "missing_from_load",
    ]  # fmt: skip
    assert found["s1"].proof.signature is not None  # type: ignore[index]
    assert found["s2"].proof.photo is not None  # type: ignore[index]
    assert found["s3"].parcels_left == ("WW:s3/2",)  # type: ignore[index]
    assert found["s4"].reason == "moved away"  # type: ignore[index]
    assert found["s5"].proof.age_checked  # type: ignore[index]
    assert found["s7"].reason == "B 12"  # type: ignore[index]
    assert found["s8"].reason == "the parcel is wet"  # type: ignore[index]
    assert [event.now_is for event in van.said if isinstance(event, ShiftChanged)] == ["begun", "ended"]


def test_a_change_is_read_and_answered_and_a_break_taken(tab: Tab, van: Van) -> None:
    houses = row_of_houses(6)
    van.push(plan_of([described(houses[k], told=houses[k].told) for k in range(6)]))
    tab.goto(van.url)
    press(tab, "Begin the shift")
    is_shown(tab, "Set off")
    press(tab, "Menu")
    press(tab, "Take the break")
    is_shown(tab, "On a break")
    press(tab, "Go on")
    arrive_next(tab, "s1 street 1")
    tab.get_by_role("button", name="s3 street 1").click()
    press(tab, "Go here first")
    expect(tab.get_by_role("heading", level=1)).to_have_text("s3 street 1")
    van.scan("WW:s3/1")
    press(tab, "Handed over")
    is_shown(tab, "May we ask why?")
    press(tab, "The customer asked")
    expect(tab.get_by_text("May we ask why?")).to_have_count(0)
    van.until(lambda: any(isinstance(event, OverrideExplained) for event in van.said))
    explained = next(event for event in van.said if isinstance(event, OverrideExplained))
    assert (explained.stop_id, explained.instead_of, explained.reason) == ("s3", "s1", "customer_asked")


LOCK = ShiftLock.of("135790", "salt")


def test_nothing_of_a_locked_day_is_seen_before_the_code(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3), shift_lock=LOCK))
    tab.goto(van.url)
    is_shown(tab, "Type the code of your shift")
    tab.get_by_label("Shift code, 6 digits").fill("000000")
    is_shown(tab, "That is not the code of this van today")
    assert "s1 street" not in tab.content()
    assert tab.request.get(f"{van.url}api/day").status == 401
    assert "s1 street" not in tab.request.get(van.url).text()
    tab.get_by_label("Shift code, 6 digits").fill("135790")
    is_shown(tab, "s1 street 1")
    cookie = tab.context.cookies()[0]
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("shift", True, "Strict")
    van.sleeps()
    van.wakes()
    tab.reload()
    press(tab, "Begin the shift")
    expect(tab.get_by_role("heading", level=1)).to_have_text("s1 street 1")


def test_guessing_the_code_is_made_to_wait(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3), shift_lock=LOCK))
    tab.goto(van.url)
    field = tab.get_by_label("Shift code, 6 digits")
    for guess in range(7):
        if tab.get_by_text("Too many tries").count():
            break
        with tab.expect_response("**/api/session"):
            field.fill(f"00000{guess}")
        expect(field).to_have_value("")
    is_shown(tab, "Too many tries")
    expect(tab.get_by_role("button", name="Open")).to_be_disabled()


BROKEN = """
const broken = () => { throw new Error('broken on purpose'); };
for (const name of ['vibrate', 'wakeLock', 'serviceWorker', 'mediaDevices', 'clipboard', 'languages'])
  Object.defineProperty(Navigator.prototype, name, { get: name === 'languages' ? () => undefined : broken });
Object.defineProperty(window, 'localStorage', { get: broken });
window.matchMedia = broken;
HTMLCanvasElement.prototype.getContext = broken;
"""


def test_the_day_goes_on_when_everything_optional_throws(browser: Browser, van: Van) -> None:
    phone = a_phone(browser)
    tab = phone.new_page()
    complaints = complaints_of(tab)
    tab.add_init_script(BROKEN)
    for name in OPTIONAL_SCRIPTS:
        tab.route(f"**/{name}*", broken_script)
    van.push(plan_of([stop("s1", 400, 0), stop("s2", 800, 0, service="signature"), stop("s3", 1200, 0)]))
    tab.goto(van.url)
    press(tab, "Begin the shift")
    arrive_next(tab, "s1 street 1")
    press(tab, "Scan 1 parcel")
    tab.get_by_label("Or type the number").fill("s1/1")
    press(tab, "Take it")
    press(tab, "Handed over")
    arrive_next(tab, "s2 street 1")
    van.scan("WW:s2/1")
    press(tab, "Sign")
    photograph(tab, "Photograph the signature", a_png(200, 100))
    arrive_next(tab, "s3 street 1")
    press(tab, "Other…")
    press(tab, "Nobody there, no way in")
    press(tab, "Closed")
    is_shown(tab, "All stops done")
    phone.close()
    assert len(complaints) == len(OPTIONAL_SCRIPTS)
    assert [visit.outcome for visit in van.visits] == [
        Outcome.DELIVERED_TO_PERSON, Outcome.DELIVERED_TO_PERSON, Outcome.ATTEMPTED,
    ]  # fmt: skip


def broken_script(route: Route, _: Request) -> None:
    route.fulfill(content_type="text/javascript", body="throw new Error('broken on purpose');")


def test_what_is_said_out_of_reach_is_kept_and_said_once_when_the_van_is_near(tab: Tab, van: Van) -> None:
    van.push(plan_of([stop("s1", 400, 0, service="signature"), stop("s2", 800, 0)]))
    tab.goto(van.url)
    press(tab, "Begin the shift")
    arrive_next(tab, "s1 street 1")
    tab.context.set_offline(True)
    type_like_a_scanner(tab, "s1/1")
    press(tab, "Sign")
    sign(tab)
    is_shown(tab, "3 things are kept here until the van is in reach")
    expect(tab.get_by_role("heading", level=1)).to_have_text("s2 street 1")
    assert van.visits == []
    tab.context.set_offline(False)
    van.until(lambda: len(van.visits) == 1)
    expect(tab.get_by_text("kept here until the van is in reach")).to_have_count(0)
    assert (van.visits[0].stop_id, van.visits[0].proof.scanned) == ("s1", ("WW:s1/1",))
    assert van.visits[0].proof.signature is not None
    assert tab.evaluate("localStorage.getItem('waywarden.outbox')") is None


def test_while_the_van_drives_nothing_can_be_pressed(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3)))
    tab.goto(van.url)
    press(tab, "Begin the shift")
    arrive_next(tab, "s1 street 1")
    expect(tab.locator("button:visible")).not_to_have_count(0)
    van.drives()
    expect(tab.locator("button:visible, a:visible")).to_have_count(0)
    expect(tab.get_by_role("heading", level=1)).to_have_text("s1 street 1")
    van.stands()
    expect(tab.get_by_role("button", name="Scan 1 parcel")).to_be_visible()


def test_the_page_lives_through_a_restart_of_the_agent(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3)))
    tab.goto(van.url)
    press(tab, "Begin the shift")
    arrive_next(tab, "s1 street 1")
    van.sleeps()
    is_shown(tab, "No contact with the van")
    van.wakes()
    expect(tab.get_by_text("No contact with the van")).to_have_count(0)
    van.scan("WW:s1/1")
    press(tab, "Handed over")
    van.until(lambda: len(van.visits) == 1)


def test_a_kept_page_opens_while_the_agent_is_away_and_shows_nothing_of_the_day(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3)))
    tab.goto(van.url)
    is_shown(tab, "Begin the shift")
    tab.evaluate("navigator.serviceWorker.ready.then(() => 0)")
    kept = (
        "caches.keys().then(names => caches.open(names[0])).then(kept => kept.match('/shell')).then(got => got.text())"
    )
    tab.reload()
    van.sleeps()
    tab.reload()
    is_shown(tab, "No contact with the van")
    assert "s1 street" not in tab.content() + tab.evaluate(kept)
    van.wakes()
    is_shown(tab, "Begin the shift")


def test_language_and_screen_are_chosen_once(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3)))
    tab.goto(van.url)
    press(tab, "Menu")
    press(tab, "Suomi")
    press(tab, "Valikko")
    press(tab, "Yö")
    tab.reload()
    is_shown(tab, "Valmiina lähtöön")
    assert tab.evaluate("document.documentElement.lang") == "fi"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(11, 13, 15)"


def test_a_phone_speaks_its_own_language_at_once(browser: Browser, van: Van) -> None:
    phone = a_phone(browser, locale="sv-FI")
    tab = phone.new_page()
    tab.goto(van.url)
    is_shown(tab, "Inget arbete än")
    phone.close()


def test_a_photograph_of_a_barcode_is_read_by_the_agent(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3)))
    tab.goto(van.url)
    press(tab, "Begin the shift")
    arrive_next(tab, "s1 street 1")
    press(tab, "Scan 1 parcel")
    photograph(tab, "Photograph the barcode", a_png(0, 0, barcode("WW:s1/1")))
    is_shown(tab, "Handed over")


def test_the_live_camera_reads_a_barcode(started: tuple[Playwright, Browser], van: Van, tmp_path: Path) -> None:
    film = tmp_path / "label.y4m"
    film.write_bytes(as_film(barcode("WW:s1/1")))
    van.push(plan_of(row_of_houses(3)))
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    browser = launched(started[0], *flags, f"--use-file-for-fake-video-capture={film}")
    tab = a_phone(browser).new_page()
    tab.goto(van.url)
    press(tab, "Begin the shift")
    arrive_next(tab, "s1 street 1")
    press(tab, "Scan 1 parcel")
    is_shown(tab, "Handed over")
    browser.close()


def as_film(grey: np.ndarray, frames: int = 4) -> bytes:
    """A YUV4MPEG2 film that shows one grey picture."""
    height, width = grey.shape
    out = io.BytesIO()
    out.write(f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420jpeg\n".encode())
    for _ in range(frames):
        out.write(b"FRAME\n" + grey.tobytes() + b"\x80" * (width * height // 2))
    return out.getvalue()


def test_a_scanner_that_types_into_a_field_leaves_the_field_as_it_was(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3)))
    tab.goto(van.url)
    press(tab, "Begin the shift")
    arrive_next(tab, "s1 street 1")
    press(tab, "Scan 1 parcel")
    tab.get_by_label("Or type the number").focus()
    type_like_a_scanner(tab, "WW:s1/1")
    is_shown(tab, "Handed over")


@pytest.mark.parametrize(
    ("today", "born"), [("2026-11-23", "23/11/2008"), ("2028-02-29", "28/02/2010"), ("2027-01-01", "01/01/2009")]
)
def test_the_age_check_names_the_birthday_of_who_is_18_today(tab: Tab, van: Van, today: str, born: str) -> None:
    tab.goto(van.url)
    assert tab.evaluate(f"waywarden.bornBy(Date.parse('{today}T12:00:00Z'), 7200)") == born
