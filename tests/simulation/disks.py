"""The real stores on a disk whose plug can be pulled: at any statement of a commit; what is left is opened again.

A copy of the store's files is what a process killed at that instant would have left behind. Beside each store stands
what its commits have promised to keep, row by row, so that every word said can be held against it at once.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloud_hub.storage import ROOMS, Fenced
from cloud_hub.storage.embedded import EmbeddedStore
from cloud_hub.storage.embedded_telemetry import EmbeddedTelemetry
from edge_agent.store import SqliteStore
from shared.steps import Envelope, Row, Saved
from tests.rooms import keep

ENDS = ("", "-wal")
"""The files of a SQLite store that outlive a process; the third, -shm, is made anew."""


class PlugPulled(BaseException):
    """The process is gone."""


class Kept:
    """What a store has promised to keep: rooms of rows."""

    def __init__(self) -> None:
        self.rooms: dict[str, dict[str, bytes]] = {}

    def keep(self, rows: Sequence[Row]) -> None:
        """These rows are committed."""
        keep(self.rooms, rows)

    def room(self, name: str) -> Mapping[str, bytes]:
        """The rows of a room by key."""
        return self.rooms.get(name, {})


class Disk:
    """Files that survive a process, and the way to open them again."""

    def __init__(self, folder: Path, names: Sequence[str], templates: Path) -> None:
        self._folder = folder
        self._names = names
        self._life = 0
        self._images: list[Path] = []
        self.at = folder / "0"
        self.at.mkdir(parents=True)
        for name in names:
            shutil.copyfile(templates / name, self.at / name)

    def image(self) -> Path:
        """What a process killed now would leave."""
        self._life += 1
        there = self._folder / str(self._life)
        there.mkdir()
        for name in self._names:
            for end in ENDS:
                file = self.at / (name + end)
                if file.exists():
                    shutil.copyfile(file, there / file.name)
        return there

    def goes_on_from(self, image: Path) -> None:
        """The next process opens this."""
        former, self.at = self.at, image
        shutil.rmtree(former)

    def files(self) -> Iterator[Path]:
        """Everything that is on the disk."""
        yield from sorted(self.at.iterdir())


class Cut:
    """A plug pulled when a connection is about to run its so-manieth statement; behind the last one when it runs fewer.

    `was_committed` says whether the transaction was on the disk by then.
    """

    def __init__(self, connection: sqlite3.Connection, number: int, pull: Callable[[], None]) -> None:
        self._connection = connection
        self._number = number
        self._pull = pull
        self._seen = 0
        self._is_over = False
        self.was_committed = False

    def __enter__(self) -> "Cut":
        self._connection.set_trace_callback(self._about_to_run)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.set_trace_callback(None)
        if not self._is_over:
            self._pull()

    def _about_to_run(self, statement: str) -> None:
        self._seen += 1
        if self._is_over:
            return
        if self._seen == self._number:
            self._is_over = True
            self._pull()
        elif statement == "COMMIT":
            self.was_committed = True


class Room:
    """How much room the agent's disk has, and the ballast that is let go when it has none.

    The disk is full when the store may not get another page; letting the ballast go gives it some, and it is the
    store's own to take them.
    """

    PAGES_HELD_BACK = 3_000

    def __init__(self) -> None:
        self.is_full = False
        self.is_held = True
        self._store: SqliteStore | None = None

    def of(self, store: SqliteStore | None) -> None:
        """Bound what this store may take; None when nobody has it open."""
        self._store = store
        self._bound()

    def fill(self) -> None:
        """Somebody else takes all room there is."""
        self.is_full = True
        self._bound()

    def clear(self) -> None:
        """There is room again."""
        self.is_full = False
        self._bound()

    def make(self) -> bool:
        """Hold room back when there is any."""
        self.is_held = self.is_held or not self.is_full
        return self.is_held

    def let_go(self) -> bool:
        """Let the store have it; whether there was any."""
        was_held, self.is_held = self.is_held, False
        self._bound(self.PAGES_HELD_BACK if was_held else 0)
        return was_held

    def _bound(self, more: int = 0) -> None:
        if self._store is None:
            return
        db = self._store._db
        pages = db.execute("PRAGMA page_count").fetchone()[0] + more if self.is_full else 1_000_000_000
        if self.is_full and not self.is_held and not more:
            return  # What it has it keeps.
        db.execute(f"PRAGMA max_page_count = {pages}")


class AgentStore:
    """The agent's own store, and what it has promised."""

    def __init__(self, path: Path, room: Room, kept: Kept, committed: Callable[[Sequence[Row]], None]) -> None:
        self.real = SqliteStore(path, room)  # type: ignore[arg-type]  # the room of this universe
        self._room = room
        room.of(self.real)
        self._kept = kept
        self._committed = committed
        self.cut: tuple[int, Callable[[], None]] | None = None
        self.send: Callable[[Envelope], None] = lambda _: None
        """How to speak at once: for planted faults that speak too early."""

    @property
    def boot(self) -> str:
        """The life of the store."""
        return self.real.boot

    def saved(self) -> Saved:
        """Everything that is on the disk."""
        return self.real.saved()

    def commit(self, rows: Sequence[Row]) -> None:
        """Keep the rows; a plug may be pulled in the middle."""
        self.real._look_again_s = 0.0  # Its patience is by the real clock; this universe has none.
        if self.cut is not None:
            number, cut = self.cut
            self.cut = None
            with Cut(self.real._db, _place_in(rows, number), cut) as the_cut:
                self.real.commit(rows)
            if the_cut.was_committed:
                self._kept.keep(rows)
                self._committed(rows)
            raise PlugPulled
        self.real.commit(rows)
        self._kept.keep(rows)
        self._committed(rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def close(self) -> None:
        """Let go of the file."""
        self._room.of(None)
        self.real.close()


def _place_in(rows: Sequence[Row], number: int) -> int:
    """One of the statements of a commit of these rows, or just behind them."""
    return 1 + number % (len(rows) + 3)


class Acting:
    """Which hub acts for the region, as PostgreSQL's row says it."""

    def __init__(self) -> None:
        self.fence = 0


class HubStoreOnDisk:
    """The hub's own store, fenced as PostgreSQL fences it, and what it has promised."""

    def __init__(self, path: Path, kept: Kept, acting: Acting, committed: Callable[[Sequence[Row]], None]) -> None:
        self.real = EmbeddedStore(path)
        self._kept = kept
        self._acting = acting
        acting.fence += 1
        self._fence = acting.fence
        self._committed = committed
        self.cut: tuple[int, Callable[[], None]] | None = None
        self.send: Callable[[Envelope], None] = lambda _: None
        """How to speak at once: for planted faults that speak too early."""

    def saved(self) -> Saved:
        """Every room."""
        return self.real.saved()

    def checks_fence(self) -> None:
        """Raises Fenced when another hub acts."""
        if self._acting.fence != self._fence:
            raise Fenced(Fenced.__doc__)

    def commit(self, rows: Sequence[Row]) -> None:
        """Keep the rows unless another hub acts; a plug may be pulled in the middle."""
        self.checks_fence()
        if self.cut is not None:
            number, cut = self.cut
            self.cut = None
            with Cut(self.real._file._writer, _place_in(rows, number), cut) as the_cut:
                self.real.commit(rows)
            if the_cut.was_committed:
                self._kept.keep([row for row in rows if row.room in ROOMS])
                self._committed(rows)
            raise PlugPulled
        self.real.commit(rows)
        self._kept.keep([row for row in rows if row.room in ROOMS])
        self._committed(rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def close(self) -> None:
        """Let go of the file."""
        self.real.close()


def make_templates(folder: Path) -> None:
    """Empty stores, made once and copied for every seed: to make one takes longer than a day lasts."""
    folder.mkdir(parents=True)
    SqliteStore(folder / "agent.db", Room()).close()  # type: ignore[arg-type]  # as below
    (folder / "agent.db.lock").unlink(missing_ok=True)
    EmbeddedStore(folder / "hub.db").close()
    EmbeddedTelemetry(folder / "telemetry.db").close()
    for name in ("agent.db", "hub.db", "telemetry.db"):
        connection = sqlite3.connect(folder / name)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        for end in ("-wal", "-shm"):
            (folder / (name + end)).unlink(missing_ok=True)


def name_boot(path: Path, boot: str) -> None:
    """Give an agent's store the life of this seed instead of random bits."""
    connection = sqlite3.connect(path)
    connection.execute("UPDATE rooms SET value = ? WHERE room = 'store' AND key = 'boot'", (boot.encode(),))
    connection.commit()
    connection.close()
