"""A store taken into one file comes back whole into any kind of store; what is damaged is named and not restored."""

import os
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cloud_hub.fleet import KeptDecision
from cloud_hub.memory import Self
from cloud_hub.storage import (
    ARCHIVES,
    ROOMS,
    DecisionsAsked,
    Segment,
    StoreUnreadable,
    TelemetryLetter,
    open_hub_store,
    open_stores,
)
from cloud_hub.storage.archive import (
    EPOCH_FROM_S,
    UNFINISHED,
    ArchiveDamaged,
    ArchiveForeign,
    Manifest,
    NotRestored,
    back_up,
    examine,
    restore,
)
from deploy.__main__ import app
from shared import wire
from shared.ledger import Decision
from shared.quantities import EpochMs
from shared.steps import Row
from shared.work import AgentId

VAN = AgentId("van-1")
NOW_MS = 1_790_000_000_000
KINDS = ("embedded", "postgres", *(["timescale"] if os.environ.get("TIMESCALE_URL") else []))


class Stores:
    """New stores of any kind, by URL."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self._made = 0

    def new(self, kind: str = "embedded") -> str:
        """The URL of a store that is not there yet."""
        self._made += 1
        if kind == "embedded":
            return f"sqlite:///{self._folder / f'store-{self._made}' / 'hub.db'}"
        fresh = {"postgres": "fresh_store", "timescale": "fresh_timescale"}[kind]
        return str(self._request.getfixturevalue(fresh)())

    def filled(self, kind: str = "embedded") -> str:
        """The URL of a store that has something of everything."""
        url = self.new(kind)
        store, telemetry = open_stores(url)
        rooms = [room for room in (*ROOMS, *ARCHIVES) if room not in ("decisions", "hub", "restores")]
        store.commit([Row(room, f"{room}/ä\x00{n}", bytes([n])) for room in rooms for n in range(3)])
        store.commit([decision(2), decision(1), decision(3)])
        store.commit([Row("hub", "self", msgspec.json.encode(Self("boot-of-the-lost", 41)))])
        telemetry.commit([segment(1), segment(2, 10), segment(4, 1_000)])
        telemetry.bury([TelemetryLetter(VAN, "b", 5, EpochMs(2_000), "nobody can read it", b"\x00junk")])
        telemetry.forget(5, 10)
        store.close()
        telemetry.close()
        return url


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Stores of the test's own."""
    return Stores(request, tmp_path)


def decision(number: int) -> Row:
    made = Decision(
        f"hub-{number}",
        AgentId("hub"),
        "planned",
        EpochMs(number),
        "Words.",
        "why",
        (),
        (),
        0,
        "",
        "",
        (f"o-{number}",),
    )
    kept = KeptDecision(msgspec.Raw(msgspec.json.encode(made)), AgentId("hub"), number, True, EpochMs(number))
    return Row("decisions", f"hub/{number:09d}", msgspec.json.encode(kept))


def segment(seq: int, first_ms: int = 0) -> Segment:
    at_ms = np.arange(first_ms, first_ms + 5, dtype=np.int64)
    column = np.arange(5, dtype=np.float32)
    batch = wire.TelemetryBatch(VAN, "b", seq, (60.0, 24.0), ("speed_mps", "lat"), at_ms, (column, column), thinned=2)
    return Segment(VAN, "b", seq, EpochMs(first_ms), EpochMs(first_ms + 4), 5, 2, wire.encode_telemetry(batch))


def silent(_: str, __: int) -> None:
    """Hears how far it is."""


def told(url: str) -> dict[str, object]:
    """Everything a store answers, except what a restore makes anew."""
    store, telemetry = open_stores(url)
    read = telemetry.read(VAN, "speed_mps", 0, 10_000)
    answers: dict[str, object] = {
        "rows": {row for row in store.dump() if row.room not in ("hub", "decisions")},
        "decisions": [row for row in store.dump() if row.room == "decisions"],
        "by word": [row.doc for row in store.decisions(DecisionsAsked(about="o-1"))],
        "read": (read.at_ms.tolist(), read.values.tolist()),
        "latest": telemetry.latest(VAN),
        "taken": telemetry.taken(VAN, "b"),
        "totals": telemetry.totals(),
        "ledger": sorted(telemetry.ledger()),
        "letters": telemetry.dead_letters(),
    }
    store.close()
    telemetry.close()
    return answers


@pytest.mark.parametrize("into", KINDS)
@pytest.mark.parametrize("of", KINDS)
def test_a_store_comes_back_whole_into_any_kind_of_store(of: str, into: str, stores: Stores, tmp_path: Path) -> None:
    lost, found = stores.filled(of), stores.new(into)
    manifest = back_up(lost, tmp_path / "archive", NOW_MS, {}, silent)
    assert restore(tmp_path / "archive", found, NOW_MS, silent) == manifest
    assert told(found) == told(lost)


def test_a_restored_hub_has_an_epoch_the_lost_one_never_had_and_begins_a_new_life(
    stores: Stores, tmp_path: Path
) -> None:
    manifest = back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    assert (manifest.boot, manifest.epoch) == ("boot-of-the-lost", 41)
    found = stores.new()
    restore(tmp_path / "archive", found, NOW_MS + 60_000, silent)
    store = open_hub_store(found)
    itself = msgspec.json.decode(store.document("hub", "self") or b"", type=Self)
    assert itself.is_restored
    assert itself.epoch == NOW_MS // 1000 + 60 - EPOCH_FROM_S
    assert store.documents("restores") == []
    assert store.act("main", "the restored hub")
    store.close()


def test_a_clock_that_is_behind_the_archive_makes_no_epoch(stores: Stores, tmp_path: Path) -> None:
    back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    found = stores.new()
    with pytest.raises(NotRestored, match="clock is behind the archive"):
        restore(tmp_path / "archive", found, NOW_MS - 1, silent)
    assert next(open_hub_store(found).dump(), None) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_of_one_instant_while_a_hub_works_on_the_store(kind: str, stores: Stores, tmp_path: Path) -> None:
    url, found = stores.filled(kind), stores.new()
    hub = open_hub_store(url)
    assert hub.act("main", "the hub")
    is_over, is_at_work = threading.Event(), threading.Event()

    def work() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            # The first and the last room that are read.
            hub.commit([Row("hub", "self", msgspec.json.encode(Self("b", number))), Row("gaps", "n", b"%d" % number)])
            is_at_work.set()

    working = threading.Thread(target=work)
    working.start()
    is_at_work.wait()
    manifest = back_up(url, tmp_path / "archive", NOW_MS, {}, silent)
    is_over.set()
    working.join()
    hub.close()
    restore(tmp_path / "archive", found, NOW_MS, silent)
    store = open_hub_store(found)
    assert store.document("gaps", "n") == b"%d" % manifest.epoch
    store.close()


def test_an_archive_is_for_its_owner_alone_and_has_its_name_only_when_it_is_whole(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    back_up(stores.filled(), archive, NOW_MS, {}, silent)
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    before = archive.read_bytes()

    def fails(_: str, __: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        back_up(stores.filled(), archive, NOW_MS, {}, fails)
    assert archive.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []


# Damage.


def spoiled(archive: Path, part: str) -> None:
    """Change one byte in the middle of a part as it lies in the file."""
    with zipfile.ZipFile(archive) as opened:
        found = opened.getinfo(part)
        opened.fp.seek(found.header_offset + 26)  # type: ignore[union-attr]  # It is open.
        name, extra = np.frombuffer(opened.fp.read(4), "<u2")  # type: ignore[union-attr]  # It is open.
        place = found.header_offset + 30 + int(name) + int(extra) + found.compress_size // 2
    content = bytearray(archive.read_bytes())
    content[place] ^= 0x55
    archive.write_bytes(content)


@pytest.mark.parametrize(
    "part", ["rows/orders", "rows/decisions", "rows/hub", "telemetry/segments", "telemetry/ledger"]
)
def test_a_damaged_part_is_named_and_nothing_is_restored(part: str, stores: Stores, tmp_path: Path) -> None:
    back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    spoiled(tmp_path / "archive", part)
    found = stores.new()
    with pytest.raises(ArchiveDamaged, match=rf"damaged in 1 of \d+ parts \({part}: .*parts are whole"):
        restore(tmp_path / "archive", found, NOW_MS, silent)
    assert not Path(found.removeprefix("sqlite:///")).exists()


def test_every_damaged_part_is_named(stores: Stores, tmp_path: Path) -> None:
    back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    spoiled(tmp_path / "archive", "rows/orders")
    spoiled(tmp_path / "archive", "telemetry/segments")
    with pytest.raises(ArchiveDamaged, match=r"2 of .*rows/orders: .*telemetry/segments: "):
        examine(tmp_path / "archive", silent)


def test_a_part_that_was_exchanged_for_another_is_found(stores: Stores, tmp_path: Path) -> None:
    back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    with zipfile.ZipFile(tmp_path / "archive") as whole, zipfile.ZipFile(tmp_path / "forged", "w") as forged:
        for name in whole.namelist():
            if name != "rows/stops":
                forged.writestr(name, whole.read("rows/plans" if name == "rows/orders" else name))
    with pytest.raises(ArchiveDamaged, match=r"rows/orders: .*rows/stops: it is missing"):
        examine(tmp_path / "forged", silent)


def test_a_file_that_is_no_archive_is_refused_by_name(stores: Stores, tmp_path: Path) -> None:
    back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    content = (tmp_path / "archive").read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    (tmp_path / "letter").write_bytes(b"this is a letter")
    with zipfile.ZipFile(tmp_path / "pictures", "w") as pictures:
        pictures.writestr("door.png", b"png")
    with zipfile.ZipFile(tmp_path / "newer", "w") as newer:
        newer.writestr("manifest.json", b'{"format": 99}')
    for name, why in (
        ("cut", "no whole archive: it was cut off"),
        ("letter", "no whole archive"),
        ("pictures", "no archive of a hub"),
        ("newer", "format 99, expected up to 1: install a newer release"),
        ("nobody", "does not exist"),
    ):
        with pytest.raises(ArchiveForeign, match=why):
            examine(tmp_path / name, silent)


def test_a_part_of_a_newer_release_is_not_left_out_silently(stores: Stores, tmp_path: Path) -> None:
    back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    with zipfile.ZipFile(tmp_path / "archive") as whole:
        manifest = msgspec.json.decode(whole.read("manifest.json"), type=Manifest)
    strange = msgspec.structs.replace(manifest.parts[0], name="rows/dreams")
    with zipfile.ZipFile(tmp_path / "newer", "w") as newer:
        said = msgspec.structs.replace(manifest, parts=(*manifest.parts, strange))
        newer.writestr("manifest.json", msgspec.json.encode(said))
    with pytest.raises(ArchiveForeign, match="holds rows/dreams, which this release does not know"):
        examine(tmp_path / "newer", silent)


# Where it may go.


@pytest.mark.parametrize("kind", KINDS)
def test_only_an_empty_store_is_restored_into(kind: str, stores: Stores, tmp_path: Path) -> None:
    back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    full, with_readings = stores.filled(kind), stores.new(kind)
    before = told(full)
    with pytest.raises(NotRestored, match="expected an empty store"):
        restore(tmp_path / "archive", full, NOW_MS, silent)
    assert told(full) == before
    store, telemetry = open_stores(with_readings)
    telemetry.commit([segment(1)])
    with pytest.raises(NotRestored, match="holds readings"):
        restore(tmp_path / "archive", with_readings, NOW_MS, silent)
    store.close()
    telemetry.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_a_hub_acts_on_is_not_restored_into(kind: str, stores: Stores, tmp_path: Path) -> None:
    back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    url = stores.new(kind)
    hub = open_hub_store(url)
    assert hub.act("main", "the hub")
    is_over = threading.Event()

    def live() -> None:
        while not is_over.wait(0.5):
            assert hub.renew()

    living = threading.Thread(target=live)
    living.start()
    with pytest.raises(NotRestored, match="a hub acts on store"):
        restore(tmp_path / "archive", url, NOW_MS, silent)
    is_over.set()
    living.join()
    hub.close()


@pytest.mark.parametrize("kind", KINDS)
def test_no_hub_works_on_a_store_that_was_restored_by_half(kind: str, stores: Stores, tmp_path: Path) -> None:
    back_up(stores.filled(), tmp_path / "archive", NOW_MS, {}, silent)
    url = stores.new(kind)
    script = (
        "import os; from pathlib import Path; from cloud_hub.storage.archive import restore\n"
        "def die(part, _):\n"
        "    if part == 'rows/stops' and dying.append(1) is None and len(dying) == 2: os.kill(os.getpid(), 9)\n"
        f"dying = []\nrestore(Path({str(tmp_path / 'archive')!r}), {url!r}, {NOW_MS}, die)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    store = open_hub_store(url)
    assert store.documents("orders") != []
    assert store.document(UNFINISHED.room, UNFINISHED.key) is not None
    with pytest.raises(StoreUnreadable, match="a restore of it did not end"):
        until_answered(lambda: store.act("main", "the hub"))
    with pytest.raises(NotRestored, match="half a restore"):
        restore(tmp_path / "archive", url, NOW_MS, silent)
    with pytest.raises(StoreUnreadable, match="a restore of it did not end"):
        back_up(url, tmp_path / "of half a restore", NOW_MS, {}, silent)
    store.close()


def until_answered(act: Callable[[], bool]) -> None:
    """Ask until it is granted."""
    while not act():
        pass


# The commands.


def run(*words: str) -> tuple[int, str]:
    """What `waywarden` with these words answers: exit code, and everything it printed."""
    done = CliRunner().invoke(app, words, env={"COLUMNS": "400"})
    return done.exit_code, done.output


@pytest.fixture
def hub_toml(tmp_path: Path, stores: Stores) -> Path:
    """The settings of a hub with a store and keys."""
    for name in ("hub.key", "authority/ca.key", "authority/ca.crl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"secret of {name}")
    file = tmp_path / "hub.toml"
    file.write_text(
        f'store = "{stores.filled()}"\nkey_file = "{tmp_path / "hub.key"}"\n[authority]\n'
        f'folder = "{tmp_path / "authority"}"\n'
        '[[depots]]\nid = "n"\nname = "N"\nposition = [60.29, 25.03]\ngateway = [60.18, 24.945]\nstem_s = 900\n'
    )
    return file


def test_the_commands_take_a_hub_with_its_keys_to_another_machine(
    hub_toml: Path, stores: Stores, tmp_path: Path
) -> None:
    code, said = run("backup", str(tmp_path / "a"), "--settings", str(hub_toml))
    assert code == 0, said
    assert "secrets (authority/ca.crl, authority/ca.key, hub.key): who has it can give orders" in " ".join(said.split())
    assert run("restore", str(tmp_path / "a"), "--check")[0] == 0
    for name in ("hub.key", "authority/ca.key"):
        (tmp_path / name).unlink()
    found = stores.new()
    code, said = run("restore", str(tmp_path / "a"), "--settings", str(hub_toml), "--store", found)
    assert code == 0, said
    assert (tmp_path / "hub.key").read_text() == "secret of hub.key"
    assert stat.S_IMODE((tmp_path / "authority" / "ca.key").stat().st_mode) == 0o600
    (tmp_path / "authority" / "ca.crl").write_text("a later one")
    assert run("restore", str(tmp_path / "a"), "--settings", str(hub_toml), "--store", stores.new())[0] == 0
    assert (tmp_path / "authority" / "ca.crl").read_text() == "a later one"
    (tmp_path / "hub.key").write_text("another")
    code, said = run("restore", str(tmp_path / "a"), "--settings", str(hub_toml), "--store", stores.new())
    assert code == 2
    assert "hub.key is there already and differs" in said


def test_what_cannot_be_done_is_said_in_a_sentence(hub_toml: Path, stores: Stores, tmp_path: Path) -> None:
    assert run("backup", str(tmp_path / "a")) == (2, "which store? give --store URL, or --settings hub.toml\n")
    assert "does not exist, expected a hub's store" in run("backup", str(tmp_path / "a"), "--store", stores.new())[1]
    assert run("backup", str(tmp_path / "no" / "a"), "--settings", str(hub_toml))[0] == 2
    assert run("backup", str(tmp_path / "a"), "--settings", str(hub_toml))[0] == 0
    spoiled(tmp_path / "a", "rows/orders")
    code, said = run("restore", str(tmp_path / "a"), "--check")
    assert code == 1
    assert "damaged in 1 of" in said
    code, said = run("restore", str(tmp_path / "a"), "--store", "mysql://me:secret@db/x")
    assert (code, "secret" in said) == (1, False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_bytes_changed_anywhere_are_refused_by_name_or_change_nothing(whole: Path, data: st.DataObject) -> None:
    content = bytearray(whole.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] ^= data.draw(st.integers(1, 255))
    changed = whole.with_name("changed")
    changed.write_bytes(content)
    try:
        found = examine(changed, silent)
    except (ArchiveDamaged, ArchiveForeign):
        return
    assert found == examine(whole, silent)


@pytest.fixture
def whole(stores: Stores, tmp_path: Path) -> Path:
    """An archive of a filled store."""
    back_up(stores.filled(), tmp_path / "whole", NOW_MS, {}, silent)
    return tmp_path / "whole"


def test_a_link_laid_where_the_archive_is_made_leads_nothing_astray(stores: Stores, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("somebody else's")
    (tmp_path / "monday").symlink_to(victim)
    (tmp_path / "monday.unfinished").symlink_to(victim)
    back_up(stores.filled(), tmp_path / "monday", 1, {}, silent)
    assert victim.read_text() == "somebody else's"
    assert not (tmp_path / "monday").is_symlink()
