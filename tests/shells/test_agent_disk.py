"""A full disk does not stop a delivery from being recorded: the ballast goes, telemetry gives way, room comes back."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.stack import Stack
from edge_agent.ballast import Ballast
from edge_agent.store import SqliteStore
from shared.messages import DiskTight, PlanTaken, Visited
from shared.steps import Row
from tests.agents import plan_of, row_of_houses
from tests.shells.test_agent_process import PATIENCE_S, Town

TMPFS_MB = 24


class PageLimit(Ballast):
    """A ballast on a disk that ends where SQLite is told that it ends: letting it go moves the end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, size_bytes=1 << 20, spare_bytes=0)
        self.move_end: Callable[[], None] = lambda: None

    def let_go(self) -> bool:
        was_held = super().let_go()
        if was_held:
            self.move_end()
        return was_held


def limited(folder: Path) -> tuple[SqliteStore, PageLimit]:
    ballast = PageLimit(folder / "ballast")
    store = SqliteStore(folder / "memory.sqlite", ballast)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    ballast.move_end = lambda: store._db.execute(f"PRAGMA max_page_count = {pages + 1_000}")
    return store, ballast


def big(k: int) -> list[Row]:
    return [Row("a", f"{k}/{n}", os.urandom(4_000)) for n in range(20)]


def test_a_commit_the_full_disk_refused_is_kept_whole_once_the_ballast_is_gone(tmp_path: Path) -> None:
    store, ballast = limited(tmp_path)
    heard: list[bool] = []
    store.tell_room = heard.append
    rows = big(1)
    assert ballast.is_held
    store.commit(rows)
    assert store.saved() == {"a": {row.key: row.value for row in rows}}
    assert (ballast.is_held, store.is_tight, heard) == (False, True, [True])


def test_what_was_taken_of_the_ballast_serves_the_next_commits(tmp_path: Path) -> None:
    store, _ = limited(tmp_path)
    store.commit(big(1))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    for k in range(2, 12):
        store.commit(big(k))
    assert len(store.saved()["a"]) == 11 * 20


def test_with_no_ballast_left_a_full_disk_ends_the_step_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    store, _ = limited(tmp_path)
    store.commit(big(1))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.commit([Row("a", f"x/{n}", os.urandom(4_000)) for n in range(1_000)])
    assert len(store.saved()["a"]) == 20


def test_the_ballast_is_made_again_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ballast = limited(tmp_path)
    heard: list[bool] = []
    store.tell_room = heard.append
    store.commit(big(1))
    store.commit([Row("a", "k", b"too early to look")])
    assert (ballast.is_held, heard) == (False, [True])
    monkeypatch.setattr(store, "_look_again_s", 0.0)
    store.commit([Row("a", "k", b"v")])
    assert (ballast.is_held, heard) == (True, [True, False])


def test_a_disk_with_no_room_for_ballast_is_tight_from_the_start(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "memory.sqlite", Ballast(tmp_path / "b", spare_bytes=1 << 60))
    assert store.is_tight
    store.commit([Row("a", "k", b"v")])
    assert not (tmp_path / "b").exists()


class TinyDisk:
    """A file system of a few megabytes that only the processes started in it see."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._folder = folder
        mount = f"mount -t tmpfs -o size={TMPFS_MB}m tiny '{folder}' && touch '{folder}/mounted' && exec sleep 600"
        stack.start_program("disk", "unshare", "--mount", "sh", "-c", mount)
        self.holder = stack.ids["disk"]
        self._view = Path(f"/proc/{self.holder}/root") / folder.relative_to("/")
        deadline = time.monotonic() + PATIENCE_S
        while not (self._view / "mounted").exists():
            assert time.monotonic() < deadline, "the file system was not mounted"
            time.sleep(0.02)

    def fill(self) -> None:
        """Write until nothing is free."""
        with (self._view / "runaway.log").open("ab", buffering=0) as log:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):  # ENOSPC is what we are here for.
                    while True:
                        log.write(bytes(size))

    def free(self) -> None:
        (self._view / "runaway.log").unlink()

    @property
    def has_ballast(self) -> bool:
        return (self._view / "memory.sqlite.ballast").exists()


def needs_namespaces() -> None:
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("no unshare and nsenter here (util-linux)")
    with_mount = "mount -t tmpfs -o size=1m x /mnt"
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "sh", "-c", with_mount], check=False).returncode:
        pytest.skip("a file system of one's own takes root and the right to mount, which are not given here")


STARTS_ON_A_FULL_DISK = """
import pathlib, sys
from edge_agent.store import SqliteStore
from shared.steps import Row

def fill():
    with open(folder / "runaway.log", "ab", buffering=0) as log:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    log.write(bytes(size))
            except OSError:
                pass

folder = pathlib.Path(sys.argv[1])
store = SqliteStore(folder / "memory.sqlite")
store.commit([Row("a", "before", b"1")])
store.close()
fill()
store = SqliteStore(folder / "memory.sqlite")
assert store.is_tight and not (folder / "memory.sqlite.ballast").exists()
fill()
for k in range(200):
    store.commit([Row("a", str(k), bytes(5_000))])
print(len(store.saved()["a"]))
"""


def test_a_store_opens_on_a_full_disk_and_has_room_of_its_own_from_then_on(tmp_path: Path) -> None:
    needs_namespaces()
    program = tmp_path / "starts.py"
    program.write_text(STARTS_ON_A_FULL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = f"mount -t tmpfs -o size={TMPFS_MB}m tiny '{disk}' && exec '{sys.executable}' '{program}' '{disk}'"
    command = ["unshare", "--mount", "sh", "-c", mounted]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment)
    assert ended.stdout.split()[-1:] == ["201"], ended.stdout + ended.stderr


def test_on_a_really_full_disk_deliveries_go_on_through_a_kill_and_the_hub_hears_of_everything(
    stack: Stack, broker_port: int, tmp_path: Path
) -> None:
    needs_namespaces()
    town = Town(stack, broker_port, broker_port, tmp_path, speed=60.0)
    town.store.parent.mkdir()
    disk = TinyDisk(stack, town.store.parent)
    inside = ("nsenter", f"--target={disk.holder}", "--mount", f"--wd={Path.cwd()}")
    plan = plan_of(row_of_houses())
    with town.hub:
        stack.start_program(
            "van-1", *inside, sys.executable, "-m", "edge_agent", "run", "--settings", str(town.settings)
        )
        stack.wait_for_port("van-1", town.page_port)
        assert disk.has_ballast
        town.hub.push(plan)
        town.hub.wait(lambda: town.hub.of(PlanTaken) != [], "the plan was taken")
        town.deliver("s1")
        disk.fill()
        town.deliver("s2")
        town.until("the page says that the disk is full", lambda day: day["is_tight"])
        assert not disk.has_ballast
        disk.fill()
        town.deliver("s3")
        stack.kill("van-1")
        stack.start_again("van-1")
        stack.wait_for_port("van-1", town.page_port)
        town.deliver("s4")
        disk.free()
        town.until("the page says that there is room again", lambda day: not day["is_tight"])
        assert disk.has_ballast
        town.hub.wait(lambda: len(town.hub.of(Visited)) == 4, "every visit was reported")
        assert [said.visit.stop_id for said in town.hub.of(Visited)] == ["s1", "s2", "s3", "s4"]
        assert town.hub.numbers == list(range(1, len(town.hub.numbers) + 1))
        town.hub.wait(lambda: town.hub.of(DiskTight)[-1:] == [DiskTight(False)], "the hub heard of the room")
        assert DiskTight(True) in town.hub.of(DiskTight)
    town.stop()
