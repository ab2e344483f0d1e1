"""Find out whether this machine knows the time, and notice when its kernel learns it.

A board without a battery clock starts in the past. Nobody but the kernel knows whether what it shows was told by a time
server since; and even a kernel that was not told may be right, when somebody set it. So the time is taken for unknown
when the kernel says that it is not synchronised and it shows an instant that cannot be: one before the last the store
remembers, or before this program was written. The machine's clock itself is never set here.
"""

import ctypes
import os
import struct
import threading
import time
from collections.abc import Callable

from shared.clock import SETTING, Clock
from shared.steps import ClockFound

WRITTEN_MS = 1_793_491_200_000
"""2026-11-01: no machine has run this release before."""
LOOKS_EVERY_S = 2.0
MOST_OFF_MS = 3_600_000
"""How far the machine's clock may be from the time the agent knows and still judge certificates, which last days."""

_STATUS_AT = 40  # struct timex of <sys/timex.h> on 64-bit Linux: int, padding, four longs, then int status.
_TIMEX_BYTES = 256
_UNSYNCHRONISED = 0x0040  # STA_UNSYNC


def kernel_is_synchronised() -> bool:
    """Whether a time server has told the kernel the time since it started (adjtimex(2)); False where it cannot say."""
    found = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        state = ctypes.CDLL(None).adjtimex(found)
    except (OSError, AttributeError):
        return False
    return state >= 0 and not struct.unpack_from("i", found.raw, _STATUS_AT)[0] & _UNSYNCHRONISED


def lose_if_unknown(clock: Clock, last_ms: int, is_given: bool, is_unknown: bool) -> None:
    """Let a clock whose time cannot be believed go on from the last instant remembered (0 for none).

    `is_given` says that domain time comes from a setting, not from the machine; `is_unknown` that the settings declare
    it unknown.
    """
    earliest_ms = 0 if is_given else WRITTEN_MS
    shows_nonsense = not is_given and clock.now_ms() < max(last_ms, earliest_ms)
    if is_unknown or (shows_nonsense and not kernel_is_synchronised()):
        clock.lose(max(last_ms + 1, earliest_ms))


def is_machine_on_time(clock: Clock) -> bool:
    """Whether the machine's own clock, by which OpenSSL judges certificates, is right as far as we know."""
    if not clock.is_dated:
        return False
    return _is_own_day() or abs(time.time() * 1000 - clock.now_ms()) < MOST_OFF_MS


def known_time_s(clock: Clock) -> float | None:
    """The time certificates are judged by; None while nobody knows it. A day driven at another speed is not it."""
    if not clock.is_dated:
        return None
    return time.time() if _is_own_day() else clock.now_ms() / 1000


def _is_own_day() -> bool:
    """Whether domain time comes from a setting: it says nothing of the machine's clock."""
    return bool(os.environ.get(SETTING))


class KernelWatch:
    """One thread that tells when the kernel has learnt the time; it ends with that."""

    def __init__(self, clock: Clock, post: Callable[[ClockFound], None]) -> None:
        self._clock = clock
        self._post = post
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="kernel's time", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._end.set()

    def _look(self) -> None:
        while not self._clock.is_dated and not self._end.wait(LOOKS_EVERY_S):
            now_ms = time.time_ns() // 1_000_000
            if kernel_is_synchronised() and now_ms >= WRITTEN_MS:
                self._post(ClockFound(now_ms - self._clock.now_ms(), "kernel"))
                return
