"""The page says everything in every language, and never more of where a van is than it may."""

import re
import string
from datetime import date
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.contacts import LANGUAGES, NextStep, Why
from cloud_hub.promises import Promise, how_sure
from cloud_hub.web.track import view as views
from cloud_hub.web.track.town import HEIGHT, WIDTH, Town
from cloud_hub.web.track.words import Words, chosen, strings
from cloud_hub.workdays import Workdays
from shared.citymap import CityMap, shipped_city
from shared.messages import Estimate
from shared.quantities import EpochMs, Position, TimeWindow, metres_between
from shared.work import AgentId, OrderId, Outcome, StopId
from tests.unit.hub_cases import at, order, window

HELSINKI = ZoneInfo("Europe/Helsinki")
FOLDER = Path(views.__file__).parent
NOON = 1_772_532_000_000  # 2026-03-03T12:00 in Helsinki, a Tuesday.


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_every_string_is_there_in_every_language_with_the_same_blanks() -> None:
    assert [key for key, said in strings().items() if tuple(sorted(said)) != tuple(sorted(LANGUAGES))] == []
    assert [
        key for key, said in strings().items() if len({frozenset(fields(text)) for text in said.values()}) > 1
    ] == []
    assert [key for key, said in strings().items() if not all(text.strip() for text in said.values())] == []


def test_every_string_the_page_asks_for_is_there() -> None:
    sources = [*FOLDER.glob("*.py"), *(FOLDER / "templates").glob("*.html")]
    asked = {
        key
        for path in sources
        for key in re.findall(r"\b(?:w|words|self)\(\"([a-z_.0-9]+[a-z_0-9])\"", path.read_text())
    }
    assert len(asked) > 40
    assert asked - strings().keys() == set()


@pytest.mark.parametrize(
    ("prefix", "codes"),
    [
        ("outcome.", ["not_reached", *(outcome.value for outcome in Outcome)]),
        ("why.", [why for why in get_args(Why) if why] + ["first", "later"]),
        ("next.", [step for step in get_args(NextStep) if step] + ["person", "deciding"]),
        ("said.", ["not_home_until", "safe_place", "neighbour", "other_day", "door_code", "on_its_way.yes"]),
        ("gone.", ["404", "410", "503"]),
    ],
)
def test_every_code_has_its_words(prefix: str, codes: list[str]) -> None:
    assert [code for code in codes if prefix + code not in strings()] == []


def test_every_effect_and_every_refusal_of_a_wish_has_its_words() -> None:
    source = (FOLDER.parents[1] / "wishes.py").read_text()
    refusals = set(re.findall(r'why_not="(\w+)"|: "(\w+)"[,}]', source))
    named = {one for pair in refusals for one in pair if one} - {""}
    effects = set(re.findall(r'Judged\(\s*"(\w+)"', source)) | {"other_day", "if_missed"}
    assert {f"why_not.{name}" for name in named if not name.startswith("needs")} - strings().keys() == set()
    assert {f"effect.{name}" for name in effects} - strings().keys() == set()


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ("Today", "Tomorrow", "Thursday 5 March", "09:05\u201312:00", "at 12:00", "1.4 km")),
        ("fi", ("Tänään", "Huomenna", "Torstai 5. maaliskuuta", "9.05\u201312.00", "klo 12.00", "1,4 km")),
        ("sv", ("I dag", "I morgon", "Torsdag 5 mars", "09.05\u201312.00", "kl. 12.00", "1,4 km")),
    ],
)
def test_days_and_times_are_said_as_in_the_language(language: str, said: tuple[str, ...]) -> None:
    words = Words(language, HELSINKI, NOON)  # type: ignore[arg-type]  # one of LANGUAGES
    five_past_nine = TimeWindow(EpochMs(NOON - 175 * 60_000), EpochMs(NOON))
    days = [words.called(date(2026, 3, day)) for day in (3, 4, 5)]
    assert (*days, words.window(five_past_nine), words.when(NOON), words.metres(1_400)) == said


@pytest.mark.parametrize(
    ("asked", "known", "accepted", "language"),
    [
        ("sv", "fi", "en", "sv"),
        (None, "fi", "en", "fi"),
        ("xx", None, "de-DE, sv-FI;q=0.8, en;q=0.5", "sv"),
        (None, None, "*;q=\x00" * 900, "en"),
    ],
)
def test_the_language_asked_for_comes_before_the_customers_and_the_browsers(
    asked: str | None, known: str | None, accepted: str, language: str
) -> None:
    assert chosen(asked, known, accepted) == language  # type: ignore[arg-type]  # one of LANGUAGES


def test_a_link_with_a_percent_sign_or_a_brace_in_its_words_breaks_nothing() -> None:
    assert Words("en", HELSINKI, NOON)("said.safe_place", words="{0} %s {words}") == "Safe place: {0} %s {words}"


# What is shown of the van.

near_helsinki = st.builds(Position, st.floats(60.0, 60.4), st.floats(24.6, 25.4))


@given(near_helsinki)
def test_the_place_shown_is_on_a_grid_of_some_fifty_metres_and_near_the_true_one(place: Position) -> None:
    shown = views.rounded(place)
    assert metres_between(shown, place) <= 45
    assert views.rounded(shown) == shown


def test_how_sure_counts_a_van_that_is_early_as_waiting_for_the_slot() -> None:
    told, early = window(9, 10), Estimate(StopId("s"), at(8.5), at(8.8), at(9.2))
    promise = Promise(StopId("s"), OrderId("o"), AgentId("van-1"), window(9, 17), told)
    assert how_sure(promise, early) >= 90
    assert how_sure(msgspec.structs.replace(promise, slot=window(8, 17)), early) < 40


@pytest.mark.parametrize(
    ("working_days", "offered"),
    [((1, 2, 3, 4, 5), (4, 5, 6, 9, 10, 11)), ((1, 2, 3, 4, 5, 6), (4, 5, 6, 7, 9, 10)), ((2,), (10,))],
    ids=["no Saturday", "Saturdays too", "Tuesdays"],
)
def test_the_days_offered_are_those_on_which_work_is_done(
    working_days: tuple[int, ...], offered: tuple[int, ...]
) -> None:
    visit = order(1, window(9, 17)).stop
    assert visit is not None
    days = views.days_offered(visit, at(10), Workdays("Europe/Helsinki", working_days))
    assert [day.isoformat() for day in days] == [f"2026-03-{day:02d}" for day in offered]


def test_the_same_hours_are_meant_on_a_day_of_another_clock() -> None:
    sold = TimeWindow(EpochMs(NOON), EpochMs(NOON + 3_600_000))
    summer = views.slot_on(sold, date(2026, 3, 30), HELSINKI)
    assert (summer.opens_ms - NOON) % 86_400_000 == 82_800_000, "an hour earlier in UTC: summer time has begun"
    assert summer.closes_ms - summer.opens_ms == 3_600_000


@pytest.fixture(scope="module")
def town() -> Town:
    return Town(CityMap.load(shipped_city()))


def test_the_map_holds_both_places_streets_and_escaped_names(town: Town) -> None:
    drawn = town.drawing(Position(60.168, 24.941), Position(60.171, 24.945), "<Map>", "You & yours", "Van")
    assert drawn.startswith('<svg class="town"')
    assert "&lt;Map&gt;" in drawn
    assert "You &amp; yours" in drawn
    marks = [tuple(map(int, mark)) for mark in re.findall(r"translate\((\d+) (\d+)\)", drawn)]
    assert len(marks) == 2
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in marks)
    assert drawn.count('class="name"') >= 2


def test_a_van_too_far_off_or_off_the_map_is_not_drawn(town: Town) -> None:
    assert town.drawing(Position(60.168, 24.941), Position(60.2, 24.941), "", "", "") == ""
    assert town.drawing(Position(10.0, 10.0), Position(10.001, 10.0), "", "", "") == ""


@given(
    door=st.builds(Position, st.floats(60.165, 60.178), st.floats(24.937, 24.952)),
    east_m=st.floats(-2_000, 2_000),
    north_m=st.floats(-2_000, 2_000),
)
def test_any_two_places_are_drawn_inside_the_picture_or_not_at_all(
    town: Town, door: Position, east_m: float, north_m: float
) -> None:
    van = Position(door.lat + north_m / 111_195, door.lon + east_m / 55_000)
    drawn = town.drawing(door, van, "t", "d", "v")
    marks = np.array([list(map(int, mark)) for mark in re.findall(r"translate\((-?\d+) (-?\d+)\)", drawn)])
    assert not drawn or ((marks >= 0).all() and (marks <= (WIDTH, HEIGHT)).all())
