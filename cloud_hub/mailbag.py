"""Notices on their way to the shop's receiver: a few at once, each until it is taken or given up."""

from collections.abc import Iterable

import msgspec

from cloud_hub.attempts import Attempts
from cloud_hub.events import Notice, NoticeDelivered, NoticeFailed, NoticeWanted
from cloud_hub.memory import Memory
from cloud_hub.promises import Promise
from shared.steps import JobFailed, Now

AT_ONCE = 4
MOST_ATTEMPTS = 12
"""Twelve attempts that wait twice as long each time span about half an hour: longer than a receiver's restart, shorter
than a window.
"""


class Mailbag:
    """The notices that are due. One that has left the bag stays in the store with what became of it."""

    def __init__(self, memory: Memory, attempts: Attempts, has_receiver: bool) -> None:
        """Without a receiver notices are only kept."""
        self._memory = memory
        self._attempts = attempts
        self._has_receiver = has_receiver

    def put(self, promise: Promise, kind: str, sentence: str, decision_id: str, now: Now) -> None:
        """Have this customer told the window of the promise, in these words."""
        notice = Notice(
            f"{promise.stop_id}.{len(promise.tellings)}.{decision_id}",
            kind,
            promise.order_id,
            promise.stop_id,
            promise.agent,
            promise.told,
            promise.slot,
            now.domain_ms,
            sentence,
            decision_id,
            "due" if self._has_receiver else "kept",
        )
        self._put(notice)

    def jobs(self, real_ms: int) -> Iterable[NoticeWanted]:
        """Notices to send now."""
        if not self._has_receiver:
            return
        running = sum(self._attempts.is_running(key) for key, _ in self._memory.due_notices.items())
        for key, notice in self._memory.due_notices.items():
            if running >= AT_ONCE:
                return
            if self._attempts.may_begin(key, real_ms):
                running += 1
                yield NoticeWanted(key, notice)

    def delivered(self, event: NoticeDelivered, now: Now) -> None:
        """The receiver has taken it."""
        self._attempts.settle(event.need)
        notice = self._memory.due_notices.get(event.need)
        if notice is not None:
            self._end(notice, "delivered", event.answer, now)

    def failed(self, event: NoticeFailed, now: Now) -> None:
        """The receiver did not take it: it stays in the bag, unless it was the last attempt."""
        notice = self._memory.due_notices.get(event.need)
        if notice is None:
            self._attempts.settle(event.need)
            return
        self._attempts.fail(event.need, now.real_ms)
        if event.is_final or notice.attempts + 1 >= MOST_ATTEMPTS:
            self._attempts.settle(event.need)
            self._end(notice, "given_up", event.answer, now)
        else:
            self._put(msgspec.structs.replace(notice, attempts=notice.attempts + 1, last_answer=event.answer))

    def job_failed(self, event: JobFailed, now: Now) -> None:
        """The attempt itself broke: as good as an answer that never came."""
        self.failed(NoticeFailed(event.job.need, event.why, False), now)

    def _end(self, notice: Notice, state: str, answer: str, now: Now) -> None:
        self._memory.counts[f"notices.{state}"] += 1
        self._put(
            msgspec.structs.replace(
                notice, state=state, attempts=notice.attempts + 1, last_answer=answer, settled_ms=now.domain_ms
            )
        )

    def _put(self, notice: Notice) -> None:
        self._memory.note("notices", notice.notice_id, notice)
        if notice.state == "due":
            self._memory.due_notices.put(notice.notice_id, notice)
        else:
            self._memory.due_notices.drop(notice.notice_id)
