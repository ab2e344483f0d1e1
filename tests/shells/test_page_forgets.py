"""A phone keeps nothing of the day once the day is not its business any more, whatever of its page stays open."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from playwright.sync_api import Page as Tab

from shared.contracts import ShiftLock
from tests.agents import plan_of, row_of_houses
from tests.shells.phones import PATIENCE_S, Van, a_browser, a_phone

CODE = "407133"
LATER = "const now = Date.now; Date.now = () => now() + 3 * 3600 * 1000"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as (_, browser):
        yield browser


@pytest.fixture
def van(tmp_path: Path) -> Iterator[Van]:
    van = Van(tmp_path)
    yield van
    van.sleeps()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    phone = a_phone(browser)
    yield phone.new_page()
    phone.close()


def signed_in(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3), shift_lock=ShiftLock.of(CODE, "salt")))
    tab.goto(van.url)
    tab.locator("#code").press_sequentially(CODE)
    expect(tab.get_by_text("s1 street").first).to_be_visible(timeout=1000 * PATIENCE_S)


def test_when_the_shift_is_over_nothing_of_it_is_left_in_the_page(tab: Tab, van: Van) -> None:
    signed_in(tab, van)
    tab.reload()
    expect(tab.get_by_text("s1 street").first).to_be_visible()
    van.push(plan_of(row_of_houses(3), version=2, day="2026-11-24", shift_lock=ShiftLock.of(CODE, "salt")))
    expect(tab.locator("#code")).to_be_visible()
    assert "street" not in tab.content()


def test_a_page_left_open_far_from_the_van_forgets_the_day_until_it_is_back(tab: Tab, van: Van) -> None:
    signed_in(tab, van)
    tab.reload()
    expect(tab.get_by_text("s1 street").first).to_be_visible()
    van.sleeps()
    expect(tab.get_by_text("No contact with the van")).to_be_visible()
    assert "s1 street" in tab.content()
    tab.evaluate(LATER)
    expect(tab.get_by_text("s1 street")).to_have_count(0)
    assert "street" not in tab.content()
    van.wakes()
    expect(tab.get_by_text("s1 street").first).to_be_visible()


def test_what_was_kept_for_a_van_that_never_came_is_gone_from_the_phone_the_next_day(tab: Tab, van: Van) -> None:
    van.push(plan_of(row_of_houses(3)))
    tab.goto(van.url)
    old = """[{"key":"k","path":"/api/outcome","json":{"stop_id":"s1","reason":"Anna"},"at":1000}]"""
    tab.evaluate("old => localStorage.setItem('waywarden.outbox', old)", old)
    tab.reload()
    expect(tab.get_by_text("s1 street").first).to_be_visible()
    assert tab.evaluate("localStorage.getItem('waywarden.outbox')") is None
