"""A whole route driven by hand on the phone, one parcel followed on the customer's, and no network in the middle."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, TimeoutError, expect
from playwright.sync_api import Page as Tab

from tests.shells.phones import a_browser, a_phone, complaints_of, type_like_a_scanner
from tests.shells.test_page_browser import a_png, is_shown, photograph, press, sign
from tests.shells.whole_route import MAIJA, ORDERS, PATIENCE_S, PEKKA, VAN, Screens, WholeRoute, mail_of

STREETS: dict[str, str] = {order["address"]: order["order_id"] for order in ORDERS}
PATIENCE_MS = 1000 * PATIENCE_S


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as (_, found):
        yield found


@pytest.fixture
def route(tmp_path: Path) -> Iterator[WholeRoute]:
    with WholeRoute(tmp_path) as running:
        yield running


AHEAD = "[...document.querySelectorAll('h1.street, .card.then .name')].map(one => one.firstChild.textContent)"
"""The first lines of all addresses still to come; those folded up too."""


class Driver:
    """A hand on the driver's phone. What is told of the van is read off the page, never out of the agent."""

    def __init__(self, tab: Tab, route: WholeRoute, screens: Screens) -> None:
        self.tab, self._route, self._screens = tab, route, screens
        self.ended: list[str] = []
        self._seen: set[str] = set()

    def signs_in(self, depots_screen: Tab) -> None:
        """Read the code off the depot's screen and type it."""
        depots_screen.goto(f"{self._route.hub_url}/depots/north")
        row = depots_screen.get_by_role("row").filter(has_text=VAN)
        code = row.locator("td.code").inner_text().replace(" ", "")
        self._screens.keep(depots_screen, "depot")
        self.tab.goto(self._route.page_url)
        is_shown(self.tab, "Type the code of your shift")
        self.keep("code")
        self.tab.get_by_label("Shift code, 6 digits").press_sequentially(code)
        is_shown(self.tab, "Ready to go")
        self.keep("ready")

    def keep(self, name: str) -> None:
        self._screens.keep(self.tab, name)

    @property
    def ahead(self) -> list[str]:
        """The orders still to be served, in the order the page shows them."""
        expect(self.tab.get_by_role("button", name="Set off", exact=True)).to_be_visible()
        shown = self.tab.evaluate(AHEAD)
        return [STREETS[street] for street in shown]

    @property
    def has_more(self) -> bool:
        """Whether there is another stop; the page says so one way or the other."""
        set_off, done = (
            self.tab.get_by_role("button", name="Set off", exact=True),
            self.tab.get_by_text("All stops done"),
        )
        expect(set_off.or_(done)).to_be_visible()
        return done.count() == 0

    def answers_what_is_asked(self) -> None:
        """A new order is looked at and taken; a question is answered."""
        while words := self.tab.evaluate("(document.querySelector('.word-card') || {}).innerText"):
            is_question = "May we ask why?" in words
            self.keep("question" if is_question else "change")
            button = self.tab.get_by_role(
                "button", name="The customer asked" if is_question else "All right", exact=True
            )
            try:
                button.click(timeout=2000)
            except TimeoutError:
                continue  # Another change has taken its place.
            expect(self.tab.locator(".word-card", has_text=words.split("\n")[0])).to_have_count(0)

    def drives_to_next(self) -> str:
        """Set off to the stop shown first and stand there; its order."""
        self.answers_what_is_asked()
        order_id = STREETS[self.tab.locator("h1.street").inner_text()]
        press(self.tab, "Set off")
        self._arrives()
        return order_id

    def drives_out_of_order_to(self, street: str) -> str:
        """Go to another stop than the one shown first."""
        self.answers_what_is_asked()
        row = self.tab.locator("button.row", has_text=street)
        if not row.is_visible():
            self.tab.get_by_text(re.compile("more stops?$")).click()
        row.click()
        self.keep("another-stop")
        press(self.tab, "Go here first")
        self._arrives()
        return STREETS[street]

    def _arrives(self) -> None:
        moving = self.tab.locator("body.is-moving")
        expect(moving.or_(self.tab.locator(".kicker.here")).first).to_be_attached(timeout=PATIENCE_MS)
        if "moving" not in self._seen and moving.count():
            self._seen.add("moving")
            self.keep("moving")
        expect(self.tab.locator(".kicker.here")).to_be_visible(timeout=PATIENCE_MS)
        self._route.wait(self._route.does_van_stand, "the van stands at the door")
        if "here" not in self._seen:
            self._seen.add("here")
            self.keep("here")

    def scans(self, order_id: str, count: int = 1) -> None:
        """The wedge scanner types what stands on the labels."""
        for number in range(1, count + 1):
            self._scans_until_it_beeps(f"WW:{order_id}/{number}", number)

    def _scans_until_it_beeps(self, label: str, count: int) -> None:
        """A busy machine types so slowly that it is taken for a hand; a driver scans again."""
        for _ in range(4):
            type_like_a_scanner(self.tab, label)
            try:
                return expect(self.tab.locator(".parcel.is-scanned")).to_have_count(count, timeout=4_000)
            except AssertionError:
                continue
        return expect(self.tab.locator(".parcel.is-scanned")).to_have_count(count)

    def other(self, *words: str) -> None:
        """Through the sheet of everything that may come of a visit."""
        press(self.tab, "Other…")
        for word in words:
            press(self.tab, word)


def customer_sees(tab: Tab, what: Locator, words: str | re.Pattern[str]) -> None:
    """Turn back to the page until it shows this: it asks for news whenever somebody looks."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with tab.expect_response(lambda answer: "/state" in answer.url):
            tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        try:
            return expect(what).to_have_text(words, timeout=400)
        except AssertionError:
            if time.monotonic() > deadline:
                raise


def mail_opened(browser: Browser, route: WholeRoute, order_id: str, subject: str, screens: Screens) -> Tab:
    """The customer opens the mail in the test inbox and follows its link."""
    mails: list[dict[str, Any]] = []

    def has_come() -> bool:
        found = route.hub.get(f"{route.inbox_url}/mails").json()
        mails[:] = [mail for mail in found if mail["to"] == mail_of(order_id) and subject in mail["subject"]]
        return bool(mails)

    route.wait(has_come, f"{order_id} has mail about '{subject}'")
    tab = a_phone(browser).new_page()
    tab.goto(route.inbox_url)
    screens.keep(tab, "inbox")
    section = tab.locator("section", has=tab.get_by_role("heading", name=re.compile(re.escape(mail_of(order_id)))))
    # The mails' frames still fill while the inbox opens: on a busy machine a click has landed beside its link.
    for _ in range(3):
        section.locator("a[href*='/t/']:not([href$='/stop'])").first.click()
        try:
            tab.wait_for_url("**/t/**", timeout=5_000)
            break
        except TimeoutError:
            continue
    expect(tab.locator("#headline")).to_be_visible()
    return tab


class Day:
    """The driver, and how each of the day's visits ends."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.tab = driver, driver.tab
        self._seconds = {PEKKA: self.handed_over_at_last}
        self._ends: dict[str, Callable[[str], None]] = {
            "R-1": self.handed_over, "R-2": self.left_in_its_safe_place, "R-3": self.nobody_answered,
            "R-4": self.age_checked, "R-5": self.signed, "R-6": self.taken_in_part, "R-7": self.taken_by_a_neighbour,
            "R-8": self.refused, "R-9": self.damaged, "R-10": self.not_on_board,
        }  # fmt: skip

    def ends(self, order_id: str) -> None:
        """The visit under way ends as it is to end, and the page goes on to the next."""
        again = order_id in self.driver.ended
        how = self._seconds[order_id] if again else self._ends[order_id]
        how(order_id)
        self.driver.ended.append(order_id)
        expect(self.tab.locator(".kicker.here")).to_have_count(0)

    def handed_over(self, order_id: str) -> None:
        self.driver.scans(order_id)
        press(self.tab, "Handed over")

    def handed_over_at_last(self, order_id: str) -> None:
        is_shown(self.tab, "Attempt 2")
        self.driver.keep("attempt-2")
        self.handed_over(order_id)

    def left_in_its_safe_place(self, order_id: str) -> None:
        self.driver.scans(order_id)
        press(self.tab, "In the safe place")
        photograph(self.tab, "Take a photo", a_png(640, 480))
        expect(self.tab.get_by_alt_text("The photo")).to_be_visible()
        self.driver.keep("photo")
        press(self.tab, "Use this photo")

    def nobody_answered(self, _: str) -> None:
        press(self.tab, "Other…")
        self.driver.keep("other")
        press(self.tab, "Nobody there, no way in")
        press(self.tab, "Nobody answered")

    def age_checked(self, order_id: str) -> None:
        self.driver.scans(order_id)
        press(self.tab, "Check the age")
        self.driver.keep("age")
        press(self.tab, "Document seen, 18 or older")

    def signed(self, order_id: str) -> None:
        self.driver.scans(order_id)
        press(self.tab, "Sign")
        sign(self.tab, lambda: self.driver.keep("sign"))

    def taken_in_part(self, order_id: str) -> None:
        self.driver.other("Only a part")
        self.tab.get_by_role("button", name=f"{order_id}/2").click()
        self.driver.keep("part")
        press(self.tab, "Go on")
        press(self.tab, "The rest was refused")

    def taken_by_a_neighbour(self, order_id: str) -> None:
        self.driver.scans(order_id)
        self.driver.other("To a neighbour")
        self.tab.get_by_label("Virtanen").fill("B 12")
        self.driver.keep("neighbour")
        press(self.tab, "Send")

    def refused(self, _: str) -> None:
        self.driver.other("Refused", "Did not order it")

    def damaged(self, _: str) -> None:
        self.driver.other("Damaged", "Wet", "Without a photo")

    def not_on_board(self, _: str) -> None:
        self.driver.other("Not on board", "Not on board")


OUTCOMES = {
    "R-1": ["delivered_to_person"], "R-2": ["delivered_to_safe_place"], "R-3": ["attempted", "delivered_to_person"],
    "R-4": ["delivered_to_person"], "R-5": ["delivered_to_person"], "R-6": ["part"], "R-7": ["delivered_to_neighbour"],
    "R-8": ["refused"], "R-9": ["damaged"], "R-10": ["missing_from_load"],
}  # fmt: skip


def test_a_route_is_driven_on_the_phone_and_a_parcel_followed_with_the_link_cut_in_the_middle(
    browser: Browser, route: WholeRoute
) -> None:
    screens = Screens()
    phone = a_phone(browser, reduced_motion="reduce").new_page()
    complaints = complaints_of(phone)
    driver = Driver(phone, route, screens)
    day = Day(driver)

    # The morning: mail has come, the code is on the wall.
    maija = mail_opened(browser, route, MAIJA, "comes today", screens)
    told_at_first = maija.locator(".window").inner_text()
    screens.keep(maija, "maija-told")
    driver.signs_in(a_phone(browser, viewport={"width": 1280, "height": 720}, is_mobile=False).new_page())
    press(phone, "Begin the shift")
    driver.keep("next")

    # A stop as planned, then one out of order, which is asked about once; at one of them nobody answers.
    day.ends(driver.drives_to_next())
    elsewhere = next(one for one in driver.ahead[1:] if one != MAIJA)
    if PEKKA in driver.ahead[1:]:
        elsewhere = PEKKA
    day.ends(driver.drives_out_of_order_to(street_of(elsewhere)))
    is_shown(phone, "May we ask why?")
    driver.answers_what_is_asked()
    while PEKKA not in driver.ended:
        day.ends(driver.drives_to_next())
    pekka = mail_opened(browser, route, PEKKA, "could not deliver", screens)
    screens.keep(pekka, "pekka-missed")
    expect(pekka.locator("h1")).to_have_text("We expect to be with you")
    expect(pekka.locator(".earlier")).to_contain_text("First attempt: We rang, and nobody came to the door")

    # Maija is out for a while. She is answered at once, and the driver is shown the new order when he stands.
    until = route.face(30)
    maija.get_by_text("I am not at home until").click()
    maija.get_by_label("At home from").fill(until)
    maija.locator("details[open] button").click()
    expect(maija.locator("#said")).to_contain_text("Done. We come between")
    screens.keep(maija, "maija-answered")
    expect(maija.locator(".window")).not_to_have_text(told_at_first)
    expect(phone.locator(".word-card", has_text="nobody home until")).to_be_visible(timeout=PATIENCE_MS)
    driver.answers_what_is_asked()

    # On to the last stops before Maija, with the break between.
    press(phone, "Menu")
    driver.keep("menu")
    press(phone, "Take the break")
    is_shown(phone, "On a break")
    driver.keep("break")
    press(phone, "Go on")
    while driver.ahead.index(MAIJA) > 2:
        day.ends(driver.drives_to_next())
    customer_sees(maija, maija.locator("#before"), re.compile("before you|You are next"))
    expect(maija.locator("svg.town .mark.van")).to_be_visible()
    screens.keep(maija, "maija-near")

    # The cable is pulled when the hub has heard of everything. The driver goes on; Maija's page says how old it is.
    route.wait(lambda: sum(map(len, outcomes(route).values())) == len(driver.ended), "the hub has heard of every visit")
    known = outcomes(route)
    route.pull_the_cable()
    is_shown(phone, "No network: going on alone")
    driver.keep("alone")
    customer_sees(maija, maija.locator("figcaption span").first, re.compile("Where the van was [0-9]+ min ago"))
    screens.keep(maija, "maija-old")
    before = len(driver.ended)
    while MAIJA not in driver.ended or len(driver.ended) < before + 3:
        day.ends(driver.drives_to_next())
    customer_sees(maija, maija.locator(".silent"), re.compile("The van has been out of reach since 0[89]:"))
    expect(maija.locator("h1")).to_have_text("We expect to be with you")
    screens.keep(maija, "maija-silent")
    driver.keep("alone-later")
    assert outcomes(route) == known

    # It is plugged again: the hub has every visit once, with what was signed, and Maija sees what became of it.
    route.plug_the_cable()
    expect(phone.get_by_text("No network: going on alone")).to_have_count(0, timeout=PATIENCE_MS)
    customer_sees(maija, maija.locator("h1"), "Delivered")
    screens.keep(maija, "maija-delivered")

    # To the end: to Pekka's door once more, wherever in the rest of the day it has been put.
    while driver.has_more:
        day.ends(driver.drives_to_next())
    driver.keep("all-done")
    press(phone, "End the shift")
    is_shown(phone, "Thank you for today.")
    driver.keep("ended")
    customer_sees(pekka, pekka.locator("h1"), "Delivered")
    route.wait(lambda: outcomes(route) == OUTCOMES, "the hub has every visit")
    screens.keep(pekka, "pekka-delivered")
    (signed,) = route.visits()[MAIJA][0]["objects"]
    assert signed["kind"] == "signature"
    route.wait(lambda: route.hub.get(f"/api/objects/{signed['digest']}").status_code == 200, "the signature has come")
    assert hashlib.sha256(route.hub.get(f"/api/objects/{signed['digest']}").content).hexdigest() == signed["digest"]
    assert route.get("/api/dead-letters") == []
    assert complaints == []


def outcomes(route: WholeRoute) -> dict[str, list[str]]:
    """How each order's visits ended, as the hub knows it."""
    return {order_id: [visit["outcome"] for visit in visits] for order_id, visits in route.visits().items()}


def street_of(order_id: str) -> str:
    return next(street for street, named in STREETS.items() if named == order_id)
