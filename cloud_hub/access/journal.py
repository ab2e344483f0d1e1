"""Keep who read or changed personal data: gathered for a moment, then committed by the core in one go.

Reading must not wait for a disk, so an access is noted in memory and committed within a second; a process killed in
between loses that second's notes, and nothing else. The same said twice within the second is one entry that counts.
Entries older than the settings' days are forgotten when the hub starts and once a day.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cloud_hub.access.asked import Access, AccessesOld, AccessesSeen, KeysUsed
from cloud_hub.storage import HubStore

GATHER_S = 1.0
MOST_WAITING = 5_000
"""Different entries a second; what comes beyond counts for the caller and route, about "more"."""

COARSE_MS = 5 * 60_000
"""A key's last use is known to five minutes: more would be a commit for every request."""

DAY_S = 86_400
LOOK_BACK_DAYS = 400
FORGET_AT_ONCE = 500


class Journal:
    """Entries that wait for their commit. Any thread notes; one thread of its own hands them to the core."""

    def __init__(self, tell: Callable[[Any], Any], store: HubStore, record_days: int, life: str) -> None:
        """`tell` puts an event before the core. `life` keeps the keys of two processes apart."""
        self._tell = tell
        self._store = store
        self._record_days = record_days
        self._life = life
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._waiting: dict[tuple[str, str, str, int], tuple[int, int]] = {}
        self._used: dict[str, int] = {}
        self._used_told: dict[str, int] = {}
        self._count = 0
        self._next_look_s = 0.0
        self._thread = threading.Thread(target=self._run, name="accesses", daemon=True)
        self._thread.start()

    def note(self, subject: str, route: str, about: str, status: int) -> None:
        """Somebody has asked something personal."""
        at_ms = time.time_ns() // 1_000_000
        with self._lock:
            entry = (subject, route, about[:200], status)
            if entry not in self._waiting and len(self._waiting) >= MOST_WAITING:
                entry = (subject, route, "more", status)
            first_ms, times = self._waiting.get(entry, (at_ms, 0))
            self._waiting[entry] = (first_ms, times + 1)
        self._wake.set()

    def used(self, key_id: str) -> None:
        """A key has opened something."""
        at_ms = time.time_ns() // 1_000_000
        if at_ms - self._used_told.get(key_id, 0) >= COARSE_MS:
            with self._lock:
                self._used_told[key_id] = self._used[key_id] = at_ms
            self._wake.set()

    def flush(self) -> Any:
        """Hand everything that waits to the core; what the core answers, None when nothing waited."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            used, self._used = self._used, {}
        if used:
            self._tell(KeysUsed(used))
        if not waiting:
            return None
        kept = [
            (self._key(at_ms), Access(subject, at_ms, route, about, status, times))
            for (subject, route, about, status), (at_ms, times) in waiting.items()
        ]
        return self._tell(AccessesSeen(tuple(kept)))

    def close(self) -> None:
        """Hand over what waits, while the core still takes it."""
        self._closed.set()
        self._wake.set()
        self._thread.join(timeout=5)
        self.flush()

    def _key(self, at_ms: int) -> str:
        self._count += 1
        return f"{_day(at_ms / 1000)}/{at_ms:013d}-{self._life}-{self._count:06d}"

    def _run(self) -> None:
        while not self._closed.is_set():
            self._forget()
            self._wake.wait(DAY_S / 24)
            if self._closed.wait(GATHER_S):
                return
            self._wake.clear()
            self.flush()

    def _forget(self) -> None:
        now_s = time.time()
        if not self._record_days or now_s < self._next_look_s:
            return
        is_first = not self._next_look_s
        self._next_look_s = now_s + DAY_S
        for days in range(1, LOOK_BACK_DAYS if is_first else 8):
            day = _day(now_s - (self._record_days + days) * DAY_S)
            keys = [key for key, _ in self._store.documents("accesses", f"{day}/")]
            for start in range(0, len(keys), FORGET_AT_ONCE):
                self._tell(AccessesOld(tuple(keys[start : start + FORGET_AT_ONCE])))


def _day(instant_s: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=instant_s)).date().isoformat()
