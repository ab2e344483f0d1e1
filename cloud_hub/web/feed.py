"""What has changed, to whoever watches: each commit's rows as server-sent events.

The core's thread publishes after the commit and never waits: a watcher who reads too slowly loses events and is told
so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from cloud_hub.storage import HubStore, ReadingsCame
from cloud_hub.traces import SWEEP
from shared.steps import Row, Saved

SHOWN = frozenset({"agents", "stops", "estimates", "promises", "notices", "decisions", "roads", "orders"})
READINGS = "readings"
"""The event that says that an agent's readings came; rows of no room."""

GATHER_S = 1.0
"""Readings come in many commits a second; of each agent one event in this time is enough to look again."""

MOST_WAITING = 2_000
QUIET_S = 15.0
"""A comment goes out when nothing else did, so that neither side's network forgets the connection."""


class Feed:
    """Watchers and what they have not been sent yet."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchers: list[asyncio.Queue[Row]] = []
        self._forget: list[Callable[[], None]] = []
        self._came: dict[str, tuple[int, int]] = {}
        self.lost = 0
        self.sequence = 0

    def when_forgotten(self, forget: Callable[[], None]) -> None:
        """Have this called after every commit that forgets somebody, from the thread that committed."""
        self._forget.append(forget)

    def publish(self, rows: Sequence[Row]) -> None:
        """Show these rows. From any thread; does not wait."""
        if any(row.room == SWEEP for row in rows):
            for forget in self._forget:
                forget()
        loop = self._loop
        shown = [row for row in rows if row.room in SHOWN]
        if loop is None or not shown or not self._watchers:
            return
        try:
            loop.call_soon_threadsafe(self._spread, shown)
        except RuntimeError:  # The loop has closed: nobody watches any more.
            self._loop = None

    def hear(self, came: Sequence[ReadingsCame]) -> None:
        """Show that readings came. From any thread; does not wait."""
        loop = self._loop
        if loop is None or not self._watchers:
            return
        try:
            loop.call_soon_threadsafe(self._gather, loop, came)
        except RuntimeError:  # As in `publish`.
            self._loop = None

    async def watch(self, is_shown: Callable[[Row], bool] = lambda _: True) -> AsyncIterator[bytes]:
        """Server-sent events (WHATWG HTML, 9.2) from now on; the event's name is the room, its data the document.

        Only rows for which `is_shown` says so: what this watcher may see.
        """
        self._loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[Row] = asyncio.Queue(MOST_WAITING)
        self._watchers.append(waiting)
        try:
            yield b"retry: 2000\n: the hub's changes, as they are committed\n\n"
            while True:
                try:
                    row = await asyncio.wait_for(waiting.get(), QUIET_S)
                except TimeoutError:
                    yield b": quiet\n\n"
                    continue
                if is_shown(row):
                    yield _sse(row)
        finally:
            self._watchers.remove(waiting)

    def _gather(self, loop: asyncio.AbstractEventLoop, came: Sequence[ReadingsCame]) -> None:
        if came and not self._came:
            loop.call_later(GATHER_S, self._spread_readings)
        for agent, to_ms, samples in came:
            newest_ms, count = self._came.get(agent, (0, 0))
            self._came[agent] = (max(newest_ms, to_ms), count + samples)

    def _spread_readings(self) -> None:
        came, self._came = self._came, {}
        self._spread(
            [
                Row(READINGS, agent, msgspec.json.encode({"agent": agent, "to_ms": to_ms, "samples": samples}))
                for agent, (to_ms, samples) in came.items()
            ]
        )

    def _spread(self, rows: list[Row]) -> None:
        for waiting in self._watchers:
            for row in rows:
                if waiting.full():
                    waiting.get_nowait()
                    self.lost += 1
                waiting.put_nowait(row)


class ShownStore:
    """A store whose commits are shown in a feed once they are on disk."""

    def __init__(self, store: HubStore, feed: Feed) -> None:
        self._store = store
        self._feed = feed

    def saved(self) -> Saved:
        """Everything the store holds."""
        return self._store.saved()

    def commit(self, rows: Sequence[Row]) -> None:
        """Commit, then show."""
        self._store.commit(rows)
        self._feed.publish(rows)


def _sse(row: Row) -> bytes:
    document = b"null" if row.value is None else row.value
    return b'event: %s\ndata: {"key":"%s","doc":%s}\n\n' % (row.room.encode(), _quoted(row.key), document)


def _quoted(key: str) -> bytes:
    return key.replace("\\", "\\\\").replace('"', '\\"').encode()
