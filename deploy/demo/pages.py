"""A driver's page as somebody reads it who has stood before the depot's screen: signed in by the shift's code."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import httpx

LOCKED = 401
LONG_POLL_S = 25.0


class DriverPage:
    """One van's page. `read_code` reads the depot's screen. Raises httpx errors when the page or the code is away."""

    def __init__(self, url: str, read_code: Callable[[], str]) -> None:
        self._client = httpx.Client(base_url=url, timeout=LONG_POLL_S)
        self._read_code = read_code

    def get(self, path: str, **query: Any) -> Any:
        """What the page answers, as JSON; the code is typed when it asks for it."""
        answer = self._client.get(path, params=query)
        if answer.status_code == LOCKED:
            headers = {"Idempotency-Key": uuid.uuid4().hex}
            said = self._client.post("/api/session", json={"code": self._read_code()}, headers=headers)
            said.raise_for_status()
            answer = self._client.get(path, params=query)
        return answer.raise_for_status().json()

    def close(self) -> None:
        """Leave the page."""
        self._client.close()


class Onlooker:
    """Looks over a driver's shoulder: sees every change the page shows, and what became of it."""

    def __init__(self, van: str, page: DriverPage) -> None:
        self.van = van
        self.turned_down: dict[str, Any] | None = None
        """The first change that was shown and whose former order came back; None so long."""
        self._page = page
        self._change: dict[str, Any] | None = None
        self._is_leaving = threading.Event()
        self._thread = threading.Thread(target=self._look, name=f"onlooker {van}", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Stop looking; the thread ends with its long poll."""
        self._is_leaving.set()

    def _look(self) -> None:
        after = -1
        while not self._is_leaving.is_set() and self.turned_down is None:
            try:
                day = self._page.get("/api/day", after=after)
            except httpx.HTTPError:
                self._is_leaving.wait(0.2)
                continue
            after = day["revision"]
            self._compare(day)

    def _compare(self, day: dict[str, Any]) -> None:
        """The order now, held against the change seen last."""
        shown = [stop["stop_id"] for stop in day["stops"]]
        change, self._change = self._change, day["change"] or self._change
        if change is None or day["change"] is not None:
            return
        self._change = None
        before, after = ([stop for stop in change[order] if stop in shown] for order in ("before", "after"))
        back = [stop for stop in shown if stop in before]
        if before != after and back == before:
            from_here = next((k for k, (a, b) in enumerate(zip(after, back, strict=False)) if a != b), 0)
            self.turned_down = {
                "van": self.van,
                "change": change["change_id"],
                "why_changed": change["why"],
                "order_shown": after[from_here : from_here + 5],
                "former_order_back": back[from_here : from_here + 5],
            }
