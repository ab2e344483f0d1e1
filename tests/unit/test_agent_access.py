"""Who is let into the driver's page, and who is not."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.access import Access
from edge_agent.dialogue import Entry, SessionSaid, ShiftSaid
from edge_agent.memory import Day
from shared.contracts import Plan, ShiftLock
from shared.quantities import EpochMs
from shared.steps import LinkUp, Now
from tests.agents import MINUTE_MS, Rig, plan_of, row_of_houses

MINE, OTHER = "a" * 64, "b" * 64
CODE = "407133"


def locked_plan(version: int = 1, day: str = "2026-11-23") -> Plan:
    return plan_of(row_of_houses(3), version=version, day=day, shift_lock=ShiftLock.of(CODE, "salt"))


def locked_rig() -> Rig:
    rig = Rig()
    rig.push(locked_plan())
    return rig


def test_a_plan_without_a_lock_is_open_to_all() -> None:
    rig = Rig()
    rig.push(plan_of(row_of_houses(3)))
    assert rig.entry == Entry()
    assert rig.entry.admits("")


def test_a_locked_plan_admits_nobody_before_the_code_was_given() -> None:
    rig = locked_rig()
    assert rig.entry == Entry(True, ())
    assert not rig.entry.admits(MINE)


def test_the_page_hears_who_may_enter_before_it_gets_the_day_of_a_locked_plan() -> None:
    rig = Rig()
    rig.step()
    rig.envelopes.clear()
    rig.push(locked_plan())
    local = [each.topic for each in rig.envelopes if each.topic.startswith("page/")]
    assert local[:2] == ["page/entry", "page/day"]


def test_the_right_code_lets_this_token_in_and_no_other() -> None:
    rig = locked_rig()
    assert rig.driver(SessionSaid(CODE, MINE)).status == 200
    assert rig.entry == Entry(True, (MINE,))
    assert not rig.entry.admits(OTHER)


def test_a_session_survives_a_restart() -> None:
    rig = locked_rig()
    rig.driver(SessionSaid(CODE, MINE))
    again = rig.restarted()
    again.step()
    assert again.entry == Entry(True, (MINE,))


def test_the_same_code_and_token_twice_is_one_session() -> None:
    rig = locked_rig()
    rig.driver(SessionSaid(CODE, MINE))
    rig.driver(SessionSaid(CODE, MINE))
    assert rig.entry.token_digests == (MINE,)


def test_a_wrong_code_is_refused_and_the_sixth_has_to_wait_even_if_right() -> None:
    rig = locked_rig()
    assert [rig.driver(SessionSaid("000000", MINE)).status for _ in range(5)] == [403] * 5
    late = rig.driver(SessionSaid(CODE, MINE))
    assert (late.status, late.title, late.retry_after_s) == (429, "TooManyCodes", 10)
    assert rig.driver(SessionSaid(CODE, MINE), after_s=10).status == 200


def test_each_further_wrong_code_doubles_the_wait() -> None:
    rig = locked_rig()
    for _ in range(5):
        rig.driver(SessionSaid("000000", MINE))
    assert rig.driver(SessionSaid("000001", MINE), after_s=10).status == 403
    assert rig.driver(SessionSaid(CODE, MINE)).retry_after_s == 20


def test_a_restart_does_not_give_a_guesser_five_more() -> None:
    rig = locked_rig()
    for _ in range(5):
        rig.driver(SessionSaid("000000", MINE))
    assert rig.restarted().driver(SessionSaid(CODE, MINE)).status == 429


def test_sessions_end_with_another_day_and_not_with_another_plan_of_the_day() -> None:
    rig = locked_rig()
    rig.driver(SessionSaid(CODE, MINE))
    rig.push(locked_plan(2))
    assert rig.entry.admits(MINE)
    rig.push(locked_plan(3, day="2026-11-24"))
    assert rig.entry == Entry(True, ())


def test_a_session_ends_an_hour_after_the_shift() -> None:
    rig = locked_rig()
    rig.driver(SessionSaid(CODE, MINE))
    rig.begin()
    rig.driver(ShiftSaid("ended"))
    wake = rig.core.wake(Now(EpochMs(rig.now_ms), rig.now_ms)).domain_ms
    assert wake == rig.now_ms + 60 * MINUTE_MS
    rig.step(after_s=3_599)
    assert rig.entry.admits(MINE)
    rig.step(after_s=1)
    assert rig.entry == Entry(True, ())


def test_neither_code_nor_token_is_written_down_or_repeated_from_the_answers() -> None:
    rig = locked_rig()
    rig.driver(SessionSaid(CODE, MINE), key="k")
    assert "k" not in rig.disk.get("answered", {})
    assert not any(CODE.encode() in row for room in rig.disk.values() for row in room.values())
    assert CODE not in repr(SessionSaid(CODE, MINE))


def test_nine_phones_are_one_too_many_and_the_oldest_goes() -> None:
    rig = locked_rig()
    for phone in "0123456789"[:9]:
        assert rig.driver(SessionSaid(CODE, phone * 64)).status == 200
    assert not rig.entry.admits("0" * 64)
    assert rig.entry.admits("8" * 64)


def test_going_on_the_air_says_nothing_about_sessions() -> None:
    rig = locked_rig()
    rig.driver(SessionSaid(CODE, MINE))
    rig.step(LinkUp())
    leaving = [each for each in rig.envelopes if not each.topic.startswith("page/")]
    assert leaving
    assert not any(MINE.encode() in each.payload for each in leaving)


@given(st.lists(st.tuples(st.text(max_size=40), st.integers(0, 4_000_000)), max_size=40))
def test_whatever_is_typed_and_however_patiently_no_wrong_code_opens(guesses: list[tuple[str, int]]) -> None:
    plan, access, real_ms = locked_plan(), Access({}), 0
    for code, pause_ms in guesses:
        real_ms += pause_ms
        reply = access.ask(SessionSaid(code, MINE), plan, Now(plan.depart_ms, real_ms))
        assert (reply.status == 200) == (code == CODE)
        assert reply.status in (200, 403, 429)
        assert code == CODE or not access.entry(plan).admits(MINE)
        assert not access.expire(plan, Day(), plan.depart_ms) or code == CODE
