"""Whether this machine knows the time: by its kernel, by what is remembered, by the settings."""

import queue

import pytest

from edge_agent import clockwork
from edge_agent.clockwork import WRITTEN_MS, KernelWatch, kernel_is_synchronised, lose_if_unknown
from shared.clock import Clock
from shared.steps import ClockFound

PATIENCE_S = 10.0
REMEMBERED_MS = WRITTEN_MS + 10_000_000


def begun(
    monkeypatch: pytest.MonkeyPatch,
    shows_ms: int,
    is_told: bool = False,
    is_given: bool = False,
    is_unknown: bool = False,
    last_ms: int = REMEMBERED_MS,
) -> Clock:
    monkeypatch.setattr(clockwork, "kernel_is_synchronised", lambda: is_told)
    clock = Clock.starting(shows_ms, 1.0)
    lose_if_unknown(clock, last_ms, is_given, is_unknown)
    return clock


def test_a_clock_nobody_told_that_shows_less_than_is_remembered_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = begun(monkeypatch, shows_ms=0)
    assert not clock.is_dated
    assert REMEMBERED_MS < clock.now_ms() < REMEMBERED_MS + 60_000


def test_a_clock_nobody_told_that_shows_more_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert begun(monkeypatch, shows_ms=REMEMBERED_MS + 1).is_dated


def test_a_clock_a_time_server_told_is_believed_whatever_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert begun(monkeypatch, shows_ms=REMEMBERED_MS - 1, is_told=True).is_dated


def test_a_first_start_before_this_release_was_written_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = begun(monkeypatch, shows_ms=0, last_ms=0)
    assert not clock.is_dated
    assert clock.now_ms() >= WRITTEN_MS


def test_a_time_given_by_a_setting_is_believed_on_any_day(monkeypatch: pytest.MonkeyPatch) -> None:
    assert begun(monkeypatch, shows_ms=0, is_given=True).is_dated


def test_settings_may_say_that_the_clock_is_not_to_be_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not begun(monkeypatch, shows_ms=REMEMBERED_MS + 1, is_told=True, is_unknown=True).is_dated


def test_the_kernel_says_whether_it_was_told() -> None:
    assert kernel_is_synchronised() in (True, False)


def test_once_the_kernel_was_told_the_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = begun(monkeypatch, shows_ms=0)
    found: queue.Queue[ClockFound] = queue.Queue()
    monkeypatch.setattr(clockwork, "LOOKS_EVERY_S", 0.01)
    watch = KernelWatch(clock, found.put)
    watch.start()
    monkeypatch.setattr(clockwork, "kernel_is_synchronised", lambda: True)
    told = found.get(timeout=PATIENCE_S)
    clock.find(told.shift_ms)
    assert told.by == "kernel"
    assert abs(clock.now_ms() - Clock.real().now_ms()) < 60_000
    watch.stop()
