"""The shell around a core: gathers what waits, takes a step, then sends, starts jobs and answers who asked.

One thread takes the steps. Links, devices, pages and jobs only post
events; a job runs on a worker thread and its answer is an event too. If a
commit fails the process dies and wakes from disk.
"""

import os
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from shared.clock import Clock
from shared.logs import log, told
from shared.steps import ClockFound, Core, Envelope, Job, JobFailed, Now, Point, Store, nothing, step

__all__ = ["JobFailed", "Runner"]

MOST_EVENTS = 256
"""A step takes everything that waits, up to this many: one commit serves them all."""

LONGEST_NAP_S = 5.0

LAST_STEPS = 4
"""Steps that take what waits when the end has come; devices would go on speaking for ever."""


class Runner:
    """Drives one core with one store and one clock."""

    def __init__(
        self,
        core: Core,
        store: Store,
        clock: Clock,
        send: Callable[[Envelope], bool],
        work: Callable[[Job], Any],
        *,
        workers: int = 2,
        at: Point = nothing,
    ) -> None:
        """`work` does a job and returns its answer as an event; it runs on one of `workers` threads. `at` hears the
        named points of every step.
        """
        self._core = core
        self._store = store
        self._clock = clock
        self._send = send
        self._work = work
        self._at = at
        self._inbox: queue.SimpleQueue[tuple[Any, Future[Any] | None] | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="job")
        self._is_stopping = False

    def post(self, event: Any) -> None:
        """Put an event before the core. From any thread."""
        self._inbox.put((event, None))

    def ask(self, event: Any) -> "Future[Any]":
        """Put an event before the core and get its answer, which comes after the commit. From any thread."""
        answer: Future[Any] = Future()
        self._inbox.put((event, answer))
        return answer

    def stop(self) -> None:
        """Let `run` return once what waits now is taken."""
        self._is_stopping = True
        self._inbox.put(None)

    def run(self) -> None:
        """Take steps until stopped. The first has no events: it is how a core recovers."""
        try:
            self._step([])
            while not self._is_stopping:
                self._step(self._gather())
            for _ in range(LAST_STEPS):
                last = self._gather(waits=False)
                if last:
                    self._step(last)
        except BaseException as broken:
            log("step_failed", error=told(broken), then="the process ends and wakes from disk")
            raise
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def run_or_die(self) -> None:
        """`run` for a thread: when it breaks, the whole process ends."""
        try:
            self.run()
        except BaseException:  # noqa: BLE001 - nothing may be caught and lived with here.
            os._exit(70)  # EX_SOFTWARE of sysexits.h.

    def _gather(self, waits: bool = True) -> list[tuple[Any, Future[Any] | None]]:
        batch = []
        try:
            waiting = self._inbox.get(timeout=self._nap_s()) if waits else self._inbox.get_nowait()
            while True:
                if waiting is not None:
                    batch.append(waiting)
                if len(batch) >= MOST_EVENTS:
                    break
                waiting = self._inbox.get_nowait()
        except queue.Empty:
            pass
        return batch

    def _nap_s(self) -> float:
        now = self._now()
        wake = self._core.wake(now)
        nap = LONGEST_NAP_S
        if wake.domain_ms is not None:
            nap = min(nap, self._clock.real_seconds(wake.domain_ms - now.domain_ms))
        if wake.real_ms is not None:
            nap = min(nap, (wake.real_ms - now.real_ms) / 1000)
        return max(0.0005, nap)

    def _now(self) -> Now:
        return Now(self._clock.now_ms(), time.monotonic_ns() // 1_000_000)

    def _step(self, batch: list[tuple[Any, Future[Any] | None]]) -> None:
        batch = self._put_right(batch)
        consequences, envelopes = step(self._core, self._store, [event for event, _ in batch], self._now(), self._at)
        for envelope in envelopes:
            self._send(envelope)
            self._at("sent")
        for job in consequences.jobs:
            self._pool.submit(self._do, job)
        for place, (_, asker) in enumerate(batch):
            if asker is not None:
                asker.set_result(consequences.answers.get(place))

    def _put_right(self, batch: list[tuple[Any, Future[Any] | None]]) -> list[tuple[Any, Future[Any] | None]]:
        """The batch with the time's being found before all else, and the clock put right by it, once."""
        found = [waiting for waiting in batch if isinstance(waiting[0], ClockFound)]
        if not found:
            return batch
        others = [waiting for waiting in batch if not isinstance(waiting[0], ClockFound)]
        if self._clock.is_dated:
            return others
        self._clock.find(found[0][0].shift_ms)
        log("clock_found", shift_ms=found[0][0].shift_ms, by=found[0][0].by)
        return [found[0], *others]

    def _do(self, job: Job) -> None:
        try:
            self.post(self._work(job))
        except Exception as failed:  # noqa: BLE001 - the outermost loop of a job: whatever failed, the core hears of it.
            log("job_failed", job=type(job).__name__, need=job.need, error=told(failed))
            self.post(JobFailed(job, told(failed)))
