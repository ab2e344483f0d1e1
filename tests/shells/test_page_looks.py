"""How the driver's page looks and reads in every state: nothing cut off, nothing too small, nothing a reader misses."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Browser, Playwright, expect
from playwright.sync_api import Page as Tab

from edge_agent.dialogue import ChangeSaid
from edge_agent.page.assets import LANGUAGES, words_of
from edge_agent.reasons import Cause, Effect
from shared.work import OVERRIDE_REASONS, Outcome
from tests.shells.days_shown import CHANGE, DAY, NOW_MS, SHEETS, STATES, STOPS, at
from tests.shells.phones import Stage, a_browser, a_phone, complaints_of

expect.set_options(timeout=15_000)
SIZES = {"phone": (390, 844), "small": (320, 568), "on its side": (740, 360), "handheld": (480, 800)}
PLURALS = ("one", "other")


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Playwright, Browser]]:
    with a_browser() as found:
        yield found


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    shown = Stage(NOW_MS)
    shown.shows(DAY)
    yield shown
    shown.page.stop()


@pytest.fixture(scope="module")
def tab(started: tuple[Playwright, Browser], stage: Stage) -> Iterator[Tab]:
    """One tab for the module: days come to it as they come to a driver, without a reload."""
    phone = a_phone(started[1])
    opened = phone.new_page()
    complaints = complaints_of(opened)
    opened.goto(stage.url)
    yield opened
    phone.close()
    assert complaints == []


# The page's policy forbids what Playwright's own waiting for a function does.
UNTIL_SHOWN = """revision => new Promise(done => {
  const look = () => waywarden.day && waywarden.day.revision === revision ? done() : setTimeout(look, 5);
  look();
})"""


def show(tab: Tab, stage: Stage, *changes: dict[str, Any], size: str = "phone", language: str = "en") -> None:
    """A day comes, and the page has painted it."""
    width, height = SIZES[size]
    tab.set_viewport_size({"width": width, "height": height})
    tab.evaluate("waywarden.closeSheet()")
    revision = stage.shows({**DAY, **{name: told for change in changes for name, told in change.items()}})
    tab.evaluate(UNTIL_SHOWN, revision)
    tab.evaluate(f"waywarden.speak('{language}'); waywarden.render(true)")


CUT_OFF = """() => {
  const wide = document.documentElement.scrollWidth > innerWidth ? ['the page itself'] : [];
  const seen = [...document.querySelectorAll('header *, main *, footer *, dialog *')].filter(e => e.checkVisibility());
  const cut = seen.filter(e => !e.closest('.unseen, .head, canvas, .file') && !['INPUT', 'VIDEO'].includes(e.tagName)
    && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline' && e.clientWidth > 0);
  const beyond = seen.filter(e => e.getBoundingClientRect().right > innerWidth + 1);
  return [...wide, ...cut.concat(beyond).map(e => e.className + ' ' + e.textContent.slice(0, 40))];
}"""
TOO_SMALL = """() => [...document.querySelectorAll('button, a.button, summary, input:not([type=file])')]
  .filter(e => e.checkVisibility()).map(e => [e.textContent, e.getBoundingClientRect()])
  .filter(([, box]) => box.width < 48 || box.height < 48).map(([words]) => words)"""
OVERLAPPING = """() => {
  const boxes = [...document.querySelectorAll('main .card, .sheet-body > *, .actions > *, .pair > *, .choices > *')]
    .filter(e => e.checkVisibility()).map(e => [e, e.getBoundingClientRect()]);
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  return boxes.flatMap(([e, box], k) => boxes.slice(k + 1)
    .filter(([other, its]) => e.parentNode === other.parentNode && meet(box, its)).map(([other]) =>
      e.textContent.slice(0, 30) + ' | ' + other.textContent.slice(0, 30)));
}"""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_cut_off_or_too_small_for_a_thumb(tab: Tab, stage: Stage, language: str, size: str) -> None:
    found: dict[str, list[str]] = {}
    for name, change in STATES.items():
        show(tab, stage, change, size=size, language=language)
        wrong = [*tab.evaluate(CUT_OFF), *tab.evaluate(TOO_SMALL), *tab.evaluate(OVERLAPPING)]
        found |= {name: wrong} if wrong else {}
    assert found == {}


def open_sheet(tab: Tab, stage: Stage, name: str, size: str = "phone") -> None:
    change, presses = SHEETS[name]
    show(tab, stage, change, size=size)
    for words in presses:
        tab.get_by_role("button", name=words).first.click()
    expect(tab.locator("dialog[open]")).to_be_visible()


@pytest.mark.parametrize("size", ["small", "on its side"])
def test_no_sheet_is_cut_off_or_too_small_for_a_thumb(tab: Tab, stage: Stage, size: str) -> None:
    found: dict[str, list[str]] = {}
    for name in SHEETS:
        open_sheet(tab, stage, name, size)
        wrong = [*tab.evaluate(CUT_OFF), *tab.evaluate(TOO_SMALL), *tab.evaluate(OVERLAPPING)]
        found |= {name: wrong} if wrong else {}
    assert found == {}


def violations(tab: Tab) -> list[str]:
    """What axe-core finds wrong, with the element."""
    if not tab.evaluate("'axe' in window"):
        tab.evaluate(Axe().axe_script)
    # A sheet that is still rising is half transparent.
    found = tab.evaluate("""async () => {
      await Promise.all(document.getAnimations().map(each => each.finished));
      return (await axe.run({ resultTypes: ['violations'] })).violations;
    }""")
    return [f"{each['id']}: {node['html'][:120]}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize("theme", ["day", "night"])
def test_axe_finds_nothing_wrong_in_any_state(tab: Tab, stage: Stage, theme: str) -> None:
    tab.evaluate(f"waywarden.paint('{theme}')")
    found: dict[str, list[str]] = {}
    for name, change in STATES.items():
        show(tab, stage, change)
        found |= {name: wrong} if (wrong := violations(tab)) else {}
    for name in SHEETS:
        open_sheet(tab, stage, name)
        found |= {name: wrong} if (wrong := violations(tab)) else {}
    tab.evaluate("waywarden.paint('auto')")
    assert found == {}


def test_axe_finds_nothing_wrong_with_the_gate(started: tuple[Playwright, Browser]) -> None:
    locked = Stage(NOW_MS)
    locked.locks()
    phone = a_phone(started[1])
    tab = phone.new_page()
    tab.goto(locked.url)
    expect(tab.get_by_label("Shift code, 6 digits")).to_be_focused()
    assert violations(tab) == []
    phone.close()
    locked.page.stop()


def test_while_the_van_moves_there_is_one_stop_and_nothing_to_press(tab: Tab, stage: Stage) -> None:
    show(tab, stage, {"is_moving": True, "heading_to": "s1", "change": CHANGE})
    expect(tab.get_by_role("heading", level=1)).to_have_text("Liisankatu 20 B 34")
    assert tab.locator("button:visible, a:visible").count() == 0
    show(tab, stage, {"change": CHANGE})
    expect(tab.get_by_text("New order")).to_be_visible()


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ["Running 9 min late at Mannerheimintie 5", "1 stop moved · 2 customers keep the promise"]),
        ("fi", ["9 min myöhässä: Mannerheimintie 5", "1 pysähdys siirtyi · 2 asiakkaan lupaus pitää"]),
        ("sv", ["9 min sen till Mannerheimintie 5", "1 stopp flyttat · 2 kunder får det i tid"]),
    ],
)
def test_why_the_order_changed_is_said_in_the_drivers_language(
    tab: Tab, stage: Stage, language: str, said: list[str]
) -> None:
    show(tab, stage, {"change": CHANGE}, language=language)
    shown = tab.locator("footer").inner_text()
    assert [words for words in said if words not in shown] == []


def test_a_change_is_taken_or_turned_down_with_a_reason(tab: Tab, stage: Stage) -> None:
    show(tab, stage, {"change": CHANGE})
    tab.get_by_role("button", name="Keep the old order").click()
    with tab.expect_response("**/api/change"):
        tab.get_by_role("button", name="The customer asked me").click()
    assert stage.said[-1] == ChangeSaid("c1", "refused", "the customer asked me")


def test_a_change_that_leaves_the_order_offers_no_other(tab: Tab, stage: Stage) -> None:
    show(tab, stage, {"change": {**CHANGE, "after": CHANGE["before"]}})
    is_same = tab.get_by_role("region", name="Changed, order as before")
    assert is_same.get_by_role("button").all_inner_texts() == ["All right"]
    assert is_same.get_by_role("listitem").count() == 0


def test_work_that_was_added_offers_no_order_without_it(tab: Tab, stage: Stage) -> None:
    show(tab, stage, {"change": {**CHANGE, "before": ["s1", "s2", "s3", "s5", "s6"], "after": CHANGE["before"]}})
    is_more = tab.get_by_role("region", name="New order")
    assert is_more.get_by_role("button").all_inner_texts() == ["All right"]
    assert is_more.get_by_role("listitem").all_inner_texts() == [
        "Mannerheimintie 5",
        "Fredrikinkatu 42",
        "Sturenkatu 8",
    ]


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "3 parcels go back to the depot"),
        ("fi", "3 pakettia palaa terminaaliin"),
        ("sv", "3 paket går tillbaka till depån"),
    ],
)
def test_who_drives_home_is_told_what_goes_back(tab: Tab, stage: Stage, language: str, said: str) -> None:
    show(tab, stage, {"stops": [], "on_board": 3}, language=language)
    expect(tab.get_by_text(said)).to_be_visible()
    show(tab, stage, {"stops": [], "on_board": 0}, language=language)
    expect(tab.get_by_text(said[2:])).to_have_count(0)


COVERED = """() => {
  const word = document.getElementById('word').getBoundingClientRect();
  const lies = box => word.left < box.right && box.left < word.right && word.top < box.bottom && box.top < word.bottom;
  const onScreen = word.left >= 0 && word.right <= innerWidth && word.top >= 0 && word.bottom <= innerHeight;
  return [...document.querySelectorAll('header *, footer, footer *')].filter(e => lies(e.getBoundingClientRect()))
    .map(e => e.textContent).concat(onScreen ? [] : ['beyond the screen']);
}"""


# A question fills so much of the smallest phone that two lines above it reach the head: there the buttons come first.
CARDS = [(size, name) for size in SIZES if size != "small" for name in ("changed", "asked")]


@pytest.mark.parametrize(("size", "name"), [*product(SIZES, ["next", "here, alone", "moving", "all done"]), *CARDS])
def test_a_word_of_thanks_covers_neither_head_nor_buttons(tab: Tab, stage: Stage, size: str, name: str) -> None:
    show(tab, stage, STATES[name], {"link_is_up": False}, size=size)
    tab.evaluate("waywarden.word('Noted here. It is sent when the van is in reach.')")
    assert tab.evaluate(COVERED) == []


def test_a_word_of_thanks_goes_by_itself(tab: Tab, stage: Stage) -> None:
    show(tab, stage)
    tab.evaluate("waywarden.word('Noted')")
    expect(tab.locator("#word")).to_be_visible()
    expect(tab.locator("#word")).to_be_hidden()


def test_at_a_door_a_change_is_one_line_until_it_is_touched(tab: Tab, stage: Stage) -> None:
    show(tab, stage, at(STOPS[0], change=CHANGE))
    expect(tab.get_by_role("button", name="All right")).to_have_count(0)
    tab.get_by_role("button", name="New order Running 9 min late at Mannerheimintie 5").click()
    with tab.expect_response("**/api/change"):
        tab.get_by_role("button", name="All right").click()
    assert stage.said[-1] == ChangeSaid("c1", "seen")
    expect(tab.locator("dialog[open]")).to_have_count(0)


def test_a_reader_hears_of_a_new_order_and_a_new_next_stop(tab: Tab, stage: Stage) -> None:
    show(tab, stage)
    show(tab, stage, {"change": CHANGE | {"change_id": "another"}, "stops": STOPS[1:]})
    expect(tab.locator("#spoken")).to_contain_text("The order has changed. Running 9 min late")
    expect(tab.locator("#spoken")).to_contain_text("Next stop: Pohjoinen Hesperiankatu 15")


def test_what_has_the_focus_keeps_it_when_the_day_changes(tab: Tab, stage: Stage) -> None:
    show(tab, stage)
    tab.get_by_role("button", name="Set off").focus()
    show(tab, stage, {"link_is_up": False})
    assert tab.evaluate("document.activeElement.textContent") == "Set off"


def test_a_sheet_gives_the_focus_back(tab: Tab, stage: Stage) -> None:
    show(tab, stage)
    tab.get_by_role("button", name="Menu").click()
    tab.keyboard.press("Escape")
    expect(tab.locator("dialog[open]")).to_have_count(0)
    assert tab.evaluate("document.activeElement.dataset.at") == "menu"


def test_navigation_is_handed_over_with_a_geo_link(tab: Tab, stage: Stage) -> None:
    show(tab, stage, {"heading_to": "s1"})
    link = tab.get_by_role("link", name="Navigate").get_attribute("href") or ""
    assert link.startswith("geo:60.1706,24.9522?q=60.1706,24.9522(Liisankatu%2020")


def test_what_a_customer_wrote_is_text_and_never_markup(tab: Tab, stage: Stage) -> None:
    nasty = "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'</script>"
    show(tab, stage, at({**STOPS[0], "note": nasty, "address": nasty}))
    assert tab.title() == "Today's stops"
    expect(tab.locator("dl")).to_contain_text("onerror=")
    tab.reload()
    expect(tab.locator("dl")).to_contain_text("onerror=")
    assert tab.title() == "Today's stops"


# Words.


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything_with_the_same_blanks(language: str) -> None:
    english, other = words_of("en"), words_of(language)
    assert other.keys() == english.keys()
    assert [key for key in english if blanks(english[key]) - {"n"} != blanks(other[key]) - {"n"}] == []
    assert [key for key, words in other.items() if not words.strip()] == []


def blanks(words: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", words))


def test_there_are_words_for_everything_the_agent_may_say() -> None:
    english = words_of("en")
    wanted = [f"cause_{cause}" for cause in Cause.__args__]  # type: ignore[attr-defined]  # what a Literal holds
    counted = {"keeps_windows", "waits_less"}
    for effect in set(Effect.__args__) - {"none"}:  # type: ignore[attr-defined]  # as above
        wanted += [f"effect_{effect}_{n}" for n in PLURALS] if effect in counted else [f"effect_{effect}"]
    wanted += [f"override_{reason}" for reason in OVERRIDE_REASONS]
    wanted += [f"outcome_{outcome.value}" for outcome in Outcome]
    assert [key for key in wanted if key not in english] == []
