"""The agent's SQLite store: on disk when commit returns, set aside when damaged, dead when the disk is full."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.store import SqliteStore, StoreUnusable
from shared.steps import Row


def test_rows_come_back_in_their_rooms(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "memory.sqlite")
    store.commit([Row("a", "k", b"1"), Row("b", "k", b"2"), Row("a", "gone", b"3")])
    store.commit([Row("a", "k", b"4"), Row("a", "gone", None)])
    store.close()
    assert SqliteStore(tmp_path / "memory.sqlite").saved() == {"a": {"k": b"4"}, "b": {"k": b"2"}}


def test_a_store_keeps_its_boot_and_another_store_has_another(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "one")
    first = store.boot
    store.close()
    assert SqliteStore(tmp_path / "one").boot == first
    assert SqliteStore(tmp_path / "two").boot != first
    assert len(bytes.fromhex(first)) == 8


def test_a_killed_process_has_committed_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    script = (
        "import sys, pathlib\n"
        "from edge_agent.store import SqliteStore\n"
        "from shared.steps import Row\n"
        "store = SqliteStore(pathlib.Path(sys.argv[1]))\n"
        "for n in range(10**9):\n"
        "    store.commit([Row('a', str(k), b'%d' % n) for k in range(20)])\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(30)][-1]
    os.kill(process.pid, signal.SIGKILL)
    said = (process.stdout.readlines() or [said])[-1]
    process.wait()
    kept = {int(value) for value in SqliteStore(path).saved()["a"].values()}
    assert len(kept) == 1
    assert kept.pop() >= int(said)


def test_a_damaged_file_is_set_aside_and_a_new_life_begins(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    store = SqliteStore(path)
    boot = store.boot
    store.commit([Row("a", str(k), os.urandom(500)) for k in range(200)])
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:40960] = os.urandom(36864)
    path.write_bytes(content)
    again = SqliteStore(path)
    assert again.boot != boot
    assert again.saved() == {}
    assert len(list(tmp_path.glob("memory.sqlite.damaged-*"))) >= 1


def test_a_damaged_file_goes_when_somebody_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    path.write_bytes(b"Mannerheimintie 5" * 500)
    store = SqliteStore(path)
    store.commit([Row("a", "k", b"v")])
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    store.commit([Row("forgotten", "stop-1", b"1")])
    assert list(tmp_path.glob("*.damaged-*")) == []


def test_a_damaged_file_goes_after_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "memory.sqlite"
    path.write_bytes(b"Mannerheimintie 5" * 500)
    SqliteStore(path).close()
    SqliteStore(path).close()
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    monkeypatch.setattr("edge_agent.store.SET_ASIDE_FOR_S", float("-inf"))
    SqliteStore(path).close()
    assert list(tmp_path.glob("*.damaged-*")) == []


def test_garbage_in_the_files_place_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    path.write_bytes(b"this is no database" * 500)
    assert SqliteStore(path).saved() == {}


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreUnusable, match="another program's database"):
        SqliteStore(path)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM theirs").fetchone() == (0,)


def test_a_full_disk_is_an_exception_and_keeps_nothing_of_the_step(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "memory.sqlite")
    store.commit([Row("a", "k", b"before")])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.commit([Row("a", "k", b"after"), *(Row("a", f"{k}", os.urandom(4000)) for k in range(20))])
    assert store.saved() == {"a": {"k": b"before"}}


def test_a_second_agent_on_one_store_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "memory.sqlite")
    with pytest.raises(StoreUnusable, match="another agent runs on it"):
        SqliteStore(tmp_path / "memory.sqlite")
    store.close()
    SqliteStore(tmp_path / "memory.sqlite").close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="check the folder"):
        SqliteStore(tmp_path / "file" / "memory.sqlite")
