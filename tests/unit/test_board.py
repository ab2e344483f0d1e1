"""Shift codes: the same all day, another for every van and day, and unknown to who lacks the hub's secret."""

from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.board import shift_code, shift_lock
from shared.work import AgentId

SECRET = bytes(range(32))
VAN = AgentId("van-1")


def test_a_van_has_one_code_all_day_and_another_tomorrow() -> None:
    today = shift_code(SECRET, VAN, "2026-03-03")
    assert shift_code(SECRET, VAN, "2026-03-03") == today
    assert shift_code(SECRET, VAN, "2026-03-04") != today
    assert shift_code(SECRET, AgentId("van-2"), "2026-03-03") != today
    assert shift_code(bytes(32), VAN, "2026-03-03") != today


def test_the_lock_opens_with_the_code_of_its_own_van_and_day_alone() -> None:
    lock = shift_lock(SECRET, VAN, "2026-03-03")
    assert lock is not None
    assert lock.opens_with(shift_code(SECRET, VAN, "2026-03-03"))
    assert not lock.opens_with(shift_code(SECRET, VAN, "2026-03-04"))
    assert shift_lock(SECRET, VAN, "2026-03-03") == lock


def test_a_hub_without_a_secret_locks_no_page() -> None:
    assert shift_lock(b"", VAN, "2026-03-03") is None


@given(st.binary(min_size=1, max_size=64), st.text(max_size=70), st.text(max_size=12))
def test_a_code_is_always_six_digits(secret: bytes, agent: str, day: str) -> None:
    code = shift_code(secret, AgentId(agent), day)
    assert len(code) == 6
    assert code.isascii()
    assert code.isdigit()
