"""Give readings up when their time is over, coarsen old tracks and fold what is complete: once a day, in slices.

The acting hub does it, whoever takes the readings: an `ingest` process keeps nothing up. Between two slices others may
work, and what fails waits until tomorrow.
"""

import threading
from collections.abc import Callable

from cloud_hub.settings import Privacy
from cloud_hub.storage import Kept, TelemetryStore
from shared.logs import log, told

DAY_MS = 24 * 3_600_000
LOOK_S = 30.0
"""How often it is looked whether a day has passed."""

AT_ONCE = 512
"""Segments' worth in one slice."""

REST_S = 0.02
"""Between two slices, for those who wait."""


class Upkeep:
    """A thread that keeps a store of readings in order until it is closed."""

    def __init__(
        self, store: TelemetryStore, privacy: Privacy, now_ms: Callable[[], int], *, is_real_time: bool
    ) -> None:
        """`is_real_time` says that the hub's days are the calendar's: only then may the database's own jobs, which know
        no other time, erase and compress.
        """
        self._store = store
        self._privacy = privacy
        self._now_ms = now_ms
        self._is_real_time = is_real_time
        self._next_ms = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="upkeep", daemon=True)

    def open(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End after the slice under way."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _keep_up(self) -> None:
        while not self._is_over.is_set():
            try:
                self.look()
            except Exception as broken:  # noqa: BLE001 - the outermost loop of a thread: tomorrow is another day.
                log("readings_upkeep_failed", error=told(broken), then="tried again tomorrow")
            self._is_over.wait(LOOK_S)

    def look(self) -> dict[str, int]:
        """Do what is due today, if it was not done yet: how much of each was done."""
        now_ms = self._now_ms()
        if now_ms < self._next_ms:
            return {}
        self._next_ms = now_ms + DAY_MS
        if self._is_real_time:
            self._store.retain(kept(self._privacy))
        done = {name: self._all_of(slice_) for name, slice_ in self._slices(now_ms).items()}
        if any(done.values()):
            log("readings_kept_up", **{name: count for name, count in done.items() if count})
        return done

    def _slices(self, now_ms: int) -> dict[str, Callable[[], int]]:
        """What is to be repeated until nothing is left of it, in order: what goes anyway is not coarsened first."""
        privacy, store = self._privacy, self._store
        due: dict[str, Callable[[], int]] = {}
        if privacy.telemetry_days:
            due["erased"] = lambda: store.forget(now_ms - privacy.telemetry_days * DAY_MS, AT_ONCE)
        if privacy.minutes_days:
            due["minutes"] = lambda: store.forget(now_ms - privacy.minutes_days * DAY_MS, AT_ONCE, "1min")
        if privacy.hours_days:
            due["hours"] = lambda: store.forget(now_ms - privacy.hours_days * DAY_MS, AT_ONCE, "1h")
        if privacy.tracks_days:
            due["blurred"] = lambda: store.blur(now_ms - privacy.tracks_days * DAY_MS, AT_ONCE)
        due["folded"] = lambda: store.fold(now_ms, AT_ONCE)
        return due

    def _all_of(self, slice_: Callable[[], int]) -> int:
        done = 0
        while not self._is_over.is_set() and (more := slice_()):
            done += more
            self._is_over.wait(REST_S)
        return done


def kept(privacy: Privacy) -> Kept:
    """How long the database itself keeps readings and sums. It turns them into columns later than the longest time an
    agent is offline, and than tracks are coarsened, for both are slow in columns.
    """
    columns = Kept().columns_after_days
    if privacy.tracks_days:
        columns = max(columns, privacy.tracks_days + 2)
    return Kept(privacy.telemetry_days, privacy.minutes_days, privacy.hours_days, columns)
