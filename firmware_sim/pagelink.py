"""The driver's telephone: reads the agent's page by long poll and posts reports until the page has taken them.

An agent may be killed and come back at any moment. The page is asked again from the start of its revisions; reports
wait in order and are repeated under the same Idempotency-Key, so that each is done once.
"""

import http.client
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from firmware_sim.wheel import Day, Post
from shared.logs import log

POLL_TIMEOUT_S = 30.0
POST_TIMEOUT_S = 10.0
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 2.0
SCANS_AHEAD_S = 0.15
"""Scans go over a wire of their own; the report that needs them lets them pass."""

RESCANS = 5


class PageLink:
    """Talks with one agent's page on two threads. `rescan` scans labels again when a report lacks them."""

    def __init__(self, url: str, rescan: Callable[[tuple[str, ...]], None], wake: Callable[[], None]) -> None:
        """`url` is the page's, as in http://127.0.0.1:8001. Raises ValueError when it is no such thing."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the page is '{url}', expected http://HOST:PORT")
        self._host, self._port = parts.hostname, parts.port or 80
        self._rescan, self._wake = rescan, wake
        self._day: Day | None = None
        self._outbox: deque[tuple[str, Post]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self.refused = 0
        self._threads = [
            threading.Thread(target=self._poll, name="page", daemon=True),
            threading.Thread(target=self._post_all, name="reports", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def day(self) -> Day | None:
        """The page as last seen; None before the first answer."""
        return self._day

    @property
    def waiting(self) -> int:
        """How many reports the page has not yet taken."""
        return len(self._outbox)

    def post(self, post: Post) -> None:
        """Report something; it goes out after everything reported before."""
        with self._changed:
            self._outbox.append((uuid.uuid4().hex, post))
            self._changed.notify()

    def close(self) -> None:
        """Stop talking. Reports still waiting are dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _poll(self) -> None:
        """Keep the page in view."""
        after, retry_s, is_there = -1, FIRST_RETRY_S, True
        connection: http.client.HTTPConnection | None = None
        while not self._is_closed:
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(self._host, self._port, timeout=POLL_TIMEOUT_S)
                connection.request("GET", f"/api/day?after={after}")
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise http.client.HTTPException(f"the page answers {answer.status} {text[:200]!r}")
                day = msgspec.json.decode(text, type=Day)
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as away:
                if is_there:
                    log("page_away", page=f"{self._host}:{self._port}", error=str(away))
                is_there, after = False, -1
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(retry_s)
                retry_s = min(LAST_RETRY_S, retry_s * 2)
                continue
            if not is_there:
                log("page_back", page=f"{self._host}:{self._port}", revision=day.revision)
            is_there, retry_s, after = True, FIRST_RETRY_S, day.revision
            self._day = day
            self._wake()

    def _post_all(self) -> None:
        """Deliver the reports in order."""
        while True:
            with self._changed:
                while not self._outbox and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                key, post = self._outbox[0]
            self._deliver(key, post)
            with self._changed:
                self._outbox.popleft()

    def _deliver(self, key: str, post: Post) -> None:
        retry_s, rescans = FIRST_RETRY_S, 0
        if post.scans:
            time.sleep(SCANS_AHEAD_S)
        while not self._is_closed:
            try:
                status, text = self._send(key, post)
            except (OSError, http.client.HTTPException):
                status, text = 503, b""
            if status < 300:
                return
            if status == 422 and post.path == "/api/outcome" and rescans < RESCANS:
                # The agent may have been away when the labels were scanned. A new key: this is another report.
                rescans += 1
                key = uuid.uuid4().hex
                self._rescan(post.scans)
                log("rescanned", stop=post.body["stop_id"], because=_spoken(text))
                time.sleep(2 * SCANS_AHEAD_S)
            elif 400 <= status < 500 and status not in (408, 425, 429):
                self.refused += 1
                log("report_refused", path=post.path, status=status, because=_spoken(text))
                if status != 422 or post.path != "/api/outcome" or post.body["outcome"] == "attempted":
                    return
                # What cannot be proven was not delivered: the parcels stay on board.
                why = f"the page refused the proof: {_spoken(text)}"[:200]
                post = Post(post.path, {**post.body, "outcome": "attempted", "reason": why})
                key = uuid.uuid4().hex
            else:
                time.sleep(retry_s)
                retry_s = min(LAST_RETRY_S, retry_s * 2)

    def _send(self, key: str, post: Post) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=POST_TIMEOUT_S)
        try:
            headers = {"Content-Type": "application/json", "Idempotency-Key": key}
            connection.request("POST", post.path, msgspec.json.encode(post.body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def _spoken(text: bytes) -> str:
    """What a problem+json answer says."""
    try:
        problem = msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError:
        return text[:200].decode(errors="replace")
    return str(problem.get("detail") or problem.get("title") or problem)[:200]
