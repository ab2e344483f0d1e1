"""A customer's phone follows one parcel: Chromium at the size of a phone before a real hub and a van under way."""

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it ships no types
from playwright.sync_api import Browser, Page, expect, sync_playwright

from deploy.stack import Stack
from firmware_sim import inbox_page
from firmware_sim.inbox_page import Shown
from shared import topics
from shared.messages import Arrived, HeadingTo, PlanTaken, ShiftChanged, Visited
from shared.quantities import EpochMs
from shared.wire import TelemetryBatch, encode_telemetry
from shared.work import Outcome, Proof, Visit
from tests.needs import needs
from tests.shells.hub_parts import HubProcess, StandInAgent, some_orders, start_broker

PHONE = {"width": 390, "height": 844}
SMALL = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    found = shutil.which("chromium")
    needs(found, "chromium: apt install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


class Way:
    """A hub, a van under way with six stops, and the links of their customers in the order of the plan."""

    def __init__(self, hub: HubProcess, van: StandInAgent) -> None:
        self.hub, self.van = hub, van
        self.stops = list(van.wait_plan().stops)
        self.urls = [hub.http.post(f"/api/orders/{s.order_id}/link").json()["url"] for s in self.stops]

    def place_van(self) -> None:
        """The van stands some streets from its first stop."""
        near, now_ms = self.stops[0].position, self.hub.clock.now_ms()
        batch = TelemetryBatch(
            self.van.name, "boot-1", 1, (near.lat + 0.0015, near.lon + 0.001), ("lat", "lon"), np.array([now_ms]),
            (np.zeros(1, np.float32), np.zeros(1, np.float32)),
        )  # fmt: skip
        self.van.publish(topics.up("main", self.van.name, "telemetry"), encode_telemetry(batch))
        self.hub.wait(lambda: self.hub.get("/api/fleet")[0]["position"] is not None, "the van's place is known")


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """One day for all tests of this page; they go along the route in the order they stand here."""
    folder = tmp_path_factory.mktemp("follow")
    with Stack(folder / "logs", {}) as stack:
        hub = HubProcess(stack, start_broker(stack), folder)
        with StandInAgent(hub) as van:
            hub.plan_day(some_orders(6))
            plan = van.wait_plan()
            van.say(PlanTaken(plan.plan_version), ShiftChanged("begun"))
            van.wait_acked()
            way = Way(hub, van)
            way.place_van()
            yield way


def shown(browser: Browser, url: str, size: dict[str, int] | None = None, **how: object) -> Page:
    """The page at this address on a phone."""
    context = browser.new_context(viewport=size or PHONE, **how)  # type: ignore[arg-type]  # as Playwright names them
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.goto(url)
    return page


def window_on(page: Page) -> list[str]:
    """The window as the page shows it, large."""
    return page.locator(".window span:not(.dash, .apart)").all_inner_texts()


def test_a_customer_sees_the_window_says_not_home_until_and_the_window_moves(browser: Browser, way: Way) -> None:
    page = shown(browser, way.urls[-1])
    before = window_on(page)
    assert len(before) == 2
    page.get_by_text("I am not at home until").click()
    page.get_by_label("At home from").fill("13:00")
    page.locator("details[open] button").click()
    expect(page.locator("#said")).to_contain_text("Done. We come between")
    after = window_on(page)
    assert before < ["13:00"] <= after
    expect(page.locator(".history li").first).to_contain_text("You asked for it")


def test_the_page_follows_the_parcel_to_the_door_by_itself(browser: Browser, way: Way) -> None:
    page, stop = shown(browser, way.urls[0]), way.stops[0]
    expect(page.locator("#before")).to_have_text("You are next")
    expect(page.locator("svg.town .mark.van")).to_be_visible()
    page.get_by_text("Door code").click()
    page.locator("#door_code").fill("12")
    way.van.say(HeadingTo(stop.stop_id))
    way.van.wait_acked()
    look_again(page)
    expect(page.locator("h1")).to_have_text("On the way to you now")
    expect(page.locator("#news")).to_contain_text("On the way to you now")
    assert page.locator("#door_code").input_value() == "12", "news never touch a form somebody is filling in"
    way.van.say(Arrived(stop.stop_id))
    now_ms = EpochMs(way.hub.clock.now_ms())
    proof = Proof(tuple(parcel.barcode for parcel in stop.parcels), None, now_ms)
    way.van.say(Visited(Visit(stop.stop_id, Outcome.DELIVERED_TO_PERSON, now_ms, now_ms, proof)))
    way.van.wait_acked()
    look_again(page)
    expect(page.locator("h1")).to_have_text("Delivered")
    expect(page.locator(".outcome")).to_have_text("Handed over at the door")


def look_again(page: Page) -> None:
    """What happens when somebody turns back to the page."""
    with page.expect_response(lambda answer: "/state" in answer.url):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_without_a_script_every_form_works_all_the_same(browser: Browser, way: Way) -> None:
    page = shown(browser, way.urls[-2], java_script_enabled=False)
    page.get_by_text("Leave it in a safe place").click()
    page.get_by_label("Where?").fill("in the shed")
    page.locator("details[open] button").click()
    expect(page.locator("#said")).to_contain_text("The driver may leave it there if nobody opens.")


def test_the_link_under_an_e_mail_opens_what_can_be_stopped(browser: Browser, way: Way) -> None:
    page = shown(browser, f"{way.urls[-3]}/stop")
    expect(page.get_by_role("button", name="Send me no messages at all")).to_be_visible()


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("fi", "dark"), ("sv", "light")])
def test_nothing_on_the_page_bars_anybody_or_leaves_a_small_phone(
    browser: Browser, way: Way, language: str, scheme: str
) -> None:
    page = shown(browser, f"{way.urls[1]}?lang={language}", SMALL, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= SMALL["width"]
    found = Axe().run(page).response
    assert len(found["passes"]) > 20
    assert [violation["id"] for violation in found["violations"]] == []
    assert complaints == []


def test_a_closed_link_and_a_refusal_bar_nobody_either(browser: Browser, way: Way) -> None:
    page = shown(browser, way.urls[1] + "x", SMALL, color_scheme="dark")
    assert Axe().run(page).violations_count == 0
    page.goto(way.urls[2])
    page.get_by_text("I am not at home until").click()
    page.get_by_label("At home from").fill("23:00")
    page.locator("details[open] button").click()
    expect(page.locator("#said")).to_contain_text("Not possible.")
    assert Axe().run(page).violations_count == 0


def test_the_demos_inbox_fits_a_telephone_whatever_is_linked(browser: Browser) -> None:
    link = f"http://127.0.0.1:40000/t/{'A' * 60}.{'b' * 22}"
    message = Shown(1_772_532_000_000, "sms", "+358401234567", "", "", f"Follow: {link}", "")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_content(inbox_page.page([message], 7200))
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()
