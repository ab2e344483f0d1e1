"""The driver's telephone: reads the agent's page by long poll and posts reports until the page has taken them.

An agent may be killed and come back at any moment. The page is asked again from the start of its revisions; reports
wait in order and are repeated under the same Idempotency-Key, so that each is done once. When the page is locked the
driver reads the shift's code off the depot's screen and types it, as often as it takes.
"""

import http.client
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import msgspec

from firmware_sim.wheel import Day, Picture, Post
from shared.logs import log

POLL_TIMEOUT_S = 30.0
POST_TIMEOUT_S = 10.0
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 2.0
SCANS_AHEAD_S = 0.15
"""Scans go over a wire of their own; the report that needs them lets them pass."""

RESCANS = 5
LOCKED = 401


class PageLocked(http.client.HTTPException):
    """The page opens to the shift's code alone."""


class PageLink:
    """Talks with one agent's page on two threads. `rescan` scans labels again when a report lacks them."""

    def __init__(
        self,
        url: str,
        rescan: Callable[[tuple[str, ...]], None],
        wake: Callable[[], None],
        read_code: Callable[[], str] = str,
    ) -> None:
        """`url` is the page's, as in http://127.0.0.1:8001. `read_code` reads the shift's code, "" when it cannot.

        Raises ValueError when the URL is no such thing.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the page is '{url}', expected http://HOST:PORT")
        self._read_code = read_code
        self._cookie = ""
        self._signing_in = threading.Lock()
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
                cookie = self._cookie
                connection.request("GET", f"/api/day?after={after}", headers=_with(cookie))
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == LOCKED:
                    raise PageLocked("the page asks for the shift's code")
                if answer.status != 200:
                    raise http.client.HTTPException(f"the page answers {answer.status} {text[:200]!r}")
                day = msgspec.json.decode(text, type=Day)
            except PageLocked:
                after = -1
                if not self._sign_in(cookie):
                    time.sleep(retry_s)
                    retry_s = min(LAST_RETRY_S, retry_s * 2)
                continue
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
        for picture in post.pictures:
            self._show(picture)
        retry_s, rescans = FIRST_RETRY_S, 0
        if post.scans:
            time.sleep(SCANS_AHEAD_S)
        while not self._is_closed:
            status, text = self._said(post.path, key, "application/json", msgspec.json.encode(post.body))
            if status < 300:
                return
            if status == 422 and post.path == "/api/outcome" and rescans < RESCANS:
                # The agent may have been away when the labels were scanned. A new key: this is another report.
                rescans += 1
                key = uuid.uuid4().hex
                self._rescan(post.scans)
                log("rescanned", stop=post.body["stop_id"], because=_spoken(text))
                time.sleep(2 * SCANS_AHEAD_S)
            elif _is_refusal(status):
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

    def _show(self, picture: Picture) -> None:
        """Give the page a signature or photograph, until it has it or does not want it."""
        path = f"/api/objects?kind={picture.kind}&stop_id={quote(picture.stop_id, safe='')}"
        key, retry_s = uuid.uuid4().hex, FIRST_RETRY_S
        while not self._is_closed:
            status, text = self._said(path, key, "image/png", picture.content)
            if status < 300:
                return
            if _is_refusal(status):
                self.refused += 1
                log("picture_refused", kind=picture.kind, status=status, because=_spoken(text))
                return
            time.sleep(retry_s)
            retry_s = min(LAST_RETRY_S, retry_s * 2)

    def _said(self, path: str, key: str, media_type: str, body: bytes) -> tuple[int, bytes]:
        """What the page answers; 503 while it is away or its code cannot be read."""
        try:
            cookie = self._cookie
            status, text = self._send(path, key, media_type, body, cookie)
            if status == LOCKED and self._sign_in(cookie):
                status, text = self._send(path, key, media_type, body, self._cookie)
        except (OSError, http.client.HTTPException):
            return 503, b""
        return (503, text) if status == LOCKED else (status, text)

    def _send(self, path: str, key: str, media_type: str, body: bytes, cookie: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=POST_TIMEOUT_S)
        try:
            headers = {"Content-Type": media_type, "Idempotency-Key": key, **_with(cookie)}
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if path == "/api/session" and answer.status < 300:
                self._cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0].strip()
            return answer.status, text
        finally:
            connection.close()

    def _sign_in(self, refused_cookie: str) -> bool:
        """Type the code; True when the page may be asked again. `refused_cookie` is what the page did not take."""
        with self._signing_in:
            if self._cookie != refused_cookie:
                return True  # The other thread has typed it meanwhile.
            code = self._read_code()
            if not code:
                return False
            try:
                body = msgspec.json.encode({"code": code})
                status, text = self._send("/api/session", uuid.uuid4().hex, "application/json", body, "")
            except (OSError, http.client.HTTPException):
                return False
        log("code_typed", page=f"{self._host}:{self._port}", status=status, **({} if status < 300 else _why(text)))
        return status < 300


def _with(cookie: str) -> dict[str, str]:
    return {"Cookie": cookie} if cookie else {}


def _is_refusal(status: int) -> bool:
    """Whether saying it again would change nothing."""
    return 400 <= status < 500 and status not in (LOCKED, 408, 425, 429)


def _why(text: bytes) -> dict[str, str]:
    return {"because": _spoken(text)}


def _spoken(text: bytes) -> str:
    """What a problem+json answer says."""
    try:
        problem = msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError:
        return text[:200].decode(errors="replace")
    return str(problem.get("detail") or problem.get("title") or problem)[:200]
