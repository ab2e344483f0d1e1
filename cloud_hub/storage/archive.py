"""A whole store in one file: taken while a hub works on it, checked part by part, and brought back into an empty store.

The archive knows nothing of the kind of store: rows are rows, telemetry is the batches as agents sent them. So it is
also the way from one kind of store to another. It is a zip file, so that people can look into it: one part for each
room, three for telemetry, the hub's key files when they are asked for, and a manifest that counts and hashes them all.

A restored hub is a new one with an old memory. Agents have heard more from the lost one than it remembers: at its next
start it takes a new boot, under which its streams of commands begin anew with what still waits (see `post`), and an
epoch above any the lost one can have had, so that the lost one is refused should it ever come back.
"""

import hashlib
import os
import sqlite3
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import msgspec

from cloud_hub.certificates import give_to_owner
from cloud_hub.memory import Self
from cloud_hub.post import restored
from cloud_hub.storage import (
    ARCHIVES,
    HALF_RESTORED,
    LEASE_S,
    ROOMS,
    HubStore,
    LedgerRow,
    Segment,
    StoreUnreadable,
    TelemetryLetter,
    TelemetryStore,
    file_of,
    is_postgres,
    open_stores,
    shown_url,
)
from shared.steps import Row

FORMAT = 1
"""Grows when an older release could not read it."""

EPOCH_FROM_S = 1_577_836_800
"""2020-01-01: a hub's epoch after a restore is the seconds since then. Counted by starts alone, one a second since 2020
would be needed to pass it.
"""

UNFINISHED = Row("restores", "unfinished", b"{}")
"""In a store while it is being restored: no hub may work on it."""

GROWING = (".sqlite", ".crl")
"""Files of an authority to which is only ever added."""

ALL_LETTERS = 1_000_000_000

ROWS_AT_ONCE, BYTES_AT_ONCE = 1_000, 8_000_000
"""One commit of a restore."""

Tell = Callable[[str, int], None]
"""Hears which part is worked on, and how many of its rows are done."""

_LENGTH = struct.Struct("<I")
_LETTERS, _LEDGER, _SEGMENTS = "telemetry/letters", "telemetry/ledger", "telemetry/segments"
_TELEMETRY: dict[str, type[Any]] = {_LEDGER: LedgerRow, _SEGMENTS: Segment, _LETTERS: TelemetryLetter}


class ArchiveDamaged(ValueError):
    """The archive is not what was written."""


class ArchiveForeign(ValueError):
    """The file is no archive this release can read."""


class NotRestored(RuntimeError):
    """Nothing was restored, for a reason that can be put right."""


class Part(msgspec.Struct, frozen=True):
    """One part of an archive: its name, how many rows it has, how many bytes, and their SHA-256."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What an archive holds. `boot` and `epoch` are those of the hub it was taken from; "" and 0 when it never ran."""

    format: int
    release: str
    made_ms: int
    store: str
    boot: str
    epoch: int
    parts: tuple[Part, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the key files it holds: with one, who has the archive can give orders to agents."""
        return tuple(part.name.removeprefix("files/") for part in self.parts if part.name.startswith("files/"))

    def rows(self, of: str = "") -> int:
        """How many rows the parts have whose names begin so."""
        return sum(part.rows for part in self.parts if part.name.startswith(of))


def back_up(url: str, file: Path, now_ms: int, files: Mapping[str, Path], tell: Tell) -> Manifest:
    """Write everything a store holds into one file, which only its owner may read; a hub may work on meanwhile. The
    file has its name only once it is whole and on disk.

    Raises StoreUnknown, StoreUnreadable, StoreAway, or OSError when the file cannot be written.
    """
    if not is_postgres(url) and not file_of(url).exists():
        raise StoreUnreadable(f"store {file_of(url)} does not exist, expected a hub's store")
    unfinished = file.with_name(f"{file.name}.unfinished")
    store, telemetry = open_stores(url, 0.0)
    try:
        # A link somebody laid there must not lead what we write, nor a file of somebody else's keep it.
        unfinished.unlink(missing_ok=True)
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                manifest = _written(archive, url, store, telemetry, now_ms, files, tell)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        store.close()
        telemetry.close()
    return manifest


def examine(file: Path, tell: Tell) -> Manifest:
    """Read a whole archive and compare it with its manifest. Raises ArchiveForeign when it is none of ours,
    ArchiveDamaged, which names every part that is not what it was.
    """
    with _opened(file) as archive:
        manifest = _manifest(file, archive)
        bad = {part.name: wrong for part in manifest.parts if (wrong := _wrong(archive, part, tell))}
    if bad:
        named = "; ".join(f"{name}: {wrong}" for name, wrong in bad.items())
        whole = len(manifest.parts) - len(bad)
        raise ArchiveDamaged(
            f"archive {file} is damaged in {len(bad)} of {len(manifest.parts)} parts ({named}); {whole} parts are "
            "whole. Nothing was restored: take another copy of it, or an older one"
        )
    return manifest


def restore(file: Path, url: str, now_ms: int, tell: Tell) -> Manifest:
    """Bring an archive back into an empty store of any kind. Nothing is written before the whole archive has been
    checked; a store in which this was begun and did not end is used by no hub.

    Raises as `examine` and `open_stores` do, and NotRestored when the store is not empty, a hub acts on it, or this
    machine's clock is wrong.
    """
    manifest = examine(file, tell)
    if now_ms < manifest.made_ms:
        raise NotRestored(
            "this machine's clock is behind the archive, which is from its future: set the clock. The restored hub's "
            "epoch is made from it, and must be higher than the lost hub's"
        )
    store, telemetry = open_stores(url, 0.0)
    try:
        _must_be_empty(url, store, telemetry)
        _act(url, store, f"restore of {file.name}")
        _must_be_empty(url, store, telemetry)
        with _opened(file) as archive:
            _bring_back(archive, manifest, store, telemetry, now_ms, tell)
    finally:
        store.close()
        telemetry.close()
    return manifest


def restored_files(file: Path, wanted: Mapping[str, Path]) -> list[Path]:
    """Write the key files of an archive to where they belong, each readable for its owner alone; those written. A
    register or a list of revocations that is there already is kept: it knows what the backup cannot.

    Raises NotRestored, before anything is written, when a key or certificate is there and differs.
    """
    with _opened(file) as archive:
        held = {name: archive.read(f"files/{name}") for name in _manifest(file, archive).files}
    missing = {path: held[name] for name, path in wanted.items() if name in held}
    for path, content in list(missing.items()):
        if path.exists():
            if path.suffix not in GROWING and path.read_bytes() != content:
                raise NotRestored(f"{path} is there already and differs from the archive's: move it away")
            del missing[path]
    for path, content in missing.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        give_to_owner(path)
    return list(missing)


# Writing.


def _written(
    archive: zipfile.ZipFile,
    url: str,
    store: HubStore,
    telemetry: TelemetryStore,
    now_ms: int,
    files: Mapping[str, Path],
    tell: Tell,
) -> Manifest:
    parts = [
        _write_bytes(archive, f"files/{name}", _content(path)) for name, path in sorted(files.items())
    ]  # fmt: skip
    if store.documents(UNFINISHED.room):
        raise StoreUnreadable(f"store {shown_url(url)} {HALF_RESTORED}")
    itself = Self("", 0)
    with closing(_generator(store.dump())) as dump:
        for room, rows in _by_room(dump):
            kept = list(rows) if room == "hub" else rows
            if room == "hub":
                itself = next((_self.decode(row.value) for row in kept if row.value), itself)
            parts.append(_write(archive, f"rows/{room}", ((row.key, row.value) for row in kept), tell))
    # The ledger first: what is taken between the two is a batch without a row, and gets its row with the batch. The
    # other way round it would be a row without its batch, and the readings were never asked for again.
    parts.append(_write(archive, _LEDGER, telemetry.ledger(), tell))
    parts.append(_write(archive, _SEGMENTS, telemetry.dump(), tell))
    parts.append(_write(archive, _LETTERS, telemetry.dead_letters(ALL_LETTERS), tell))
    kind = "postgresql" if is_postgres(url) else "sqlite"
    manifest = Manifest(FORMAT, version("waywarden"), now_ms, kind, itself.boot, itself.epoch, tuple(parts))
    archive.writestr("manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return manifest


def _by_room(rows: Iterable[Row]) -> Iterator[tuple[str, Iterator[Row]]]:
    """Rows as they come, cut where the room changes."""
    ahead = iter(rows)
    held = next(ahead, None)

    def of(room: str) -> Iterator[Row]:
        nonlocal held
        while held is not None and held.room == room:
            yield held
            held = next(ahead, None)

    while held is not None:
        yield held.room, of(held.room)


def _write(archive: zipfile.ZipFile, name: str, rows: Iterable[Any], tell: Tell) -> Part:
    digest, count, size = hashlib.sha256(), 0, 0
    with archive.open(name, "w", force_zip64=True) as out:
        for row in rows:
            record = _msgpack.encode(row)
            for piece in (_LENGTH.pack(len(record)), record):
                out.write(piece)
                digest.update(piece)
                size += len(piece)
            count += 1
            if count % ROWS_AT_ONCE == 0:
                tell(name, count)
    tell(name, count)
    return Part(name, count, size, digest.hexdigest())


def _write_bytes(archive: zipfile.ZipFile, name: str, content: bytes) -> Part:
    archive.writestr(name, content)
    return Part(name, 1, len(content), hashlib.sha256(content).hexdigest())


def _content(file: Path) -> bytes:
    """A file's bytes; of a database somebody may be writing to, those of one instant."""
    if file.suffix != ".sqlite":
        return file.read_bytes()
    source = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
    copy = sqlite3.connect(":memory:")
    try:
        source.backup(copy)
        return copy.serialize()
    finally:
        source.close()
        copy.close()


# Checking.


_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, OverflowError)
"""What a zip whose bytes were changed makes the library raise."""


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    if not file.exists():
        raise ArchiveForeign(f"archive {file} does not exist")
    with file.open("rb") as content:
        try:
            archive = zipfile.ZipFile(content)
        except _UNREADABLE:
            raise ArchiveForeign(
                f"{file} is no whole archive: it was cut off while it was made or copied, or is another kind of file; "
                "expected what `waywarden backup` wrote"
            ) from None
        with archive:
            yield archive


def _manifest(file: Path, archive: zipfile.ZipFile) -> Manifest:
    try:
        said = archive.read("manifest.json")
        found = msgspec.json.decode(said, type=_Format).format
        manifest = msgspec.json.decode(said, type=Manifest) if found <= FORMAT else None
    except (KeyError, msgspec.MsgspecError):
        raise ArchiveForeign(f"{file} is no archive of a hub: expected what `waywarden backup` wrote") from None
    except _UNREADABLE as wrong:
        raise ArchiveDamaged(f"archive {file} is damaged in manifest.json ({wrong}): take another copy") from None
    if manifest is None:
        raise ArchiveForeign(f"archive {file} has format {found}, expected up to {FORMAT}: install a newer release")
    known = {f"rows/{room}" for room in (*ROOMS, *ARCHIVES)} | set(_TELEMETRY)
    strange = [part.name for part in manifest.parts if part.name not in known and not part.name.startswith("files/")]
    if strange:
        raise ArchiveForeign(
            f"archive {file} holds {', '.join(strange)}, which this release does not know: install newer"
        )
    return manifest


def _wrong(archive: zipfile.ZipFile, part: Part, tell: Tell) -> str:
    """What is wrong with a part; "" when it is what was written."""
    digest, size = hashlib.sha256(), 0
    try:
        with archive.open(part.name) as content:
            while block := content.read(1 << 20):
                digest.update(block)
                size += len(block)
    except KeyError:
        return "it is missing"
    except _UNREADABLE as wrong:
        return f"it cannot be read: {wrong}"
    tell(part.name, part.rows)
    if size != part.bytes:
        return f"it has {size} bytes, expected {part.bytes}"
    return "" if digest.hexdigest() == part.sha256 else "its bytes are not those that were written"


# Restoring.


def _act(url: str, store: HubStore, holder: str) -> None:
    """Keep every hub away. A lease that nobody prolongs is waited for."""
    deadline = time.monotonic() + LEASE_S + 0.5
    while not store.act("", holder):
        if time.monotonic() > deadline:
            raise NotRestored(f"a hub acts on store {shown_url(url)}: stop it, or give an empty store")
        time.sleep(0.1)


def _must_be_empty(url: str, store: HubStore, telemetry: TelemetryStore) -> None:
    with closing(_generator(store.dump())) as dump:
        found = next(dump, None)
    if found is None and not telemetry.totals()["messages"]:
        return
    why = "readings" if found is None else f"something in '{found.room}'"
    if store.documents(UNFINISHED.room):
        why = "half a restore"
    raise NotRestored(
        f"store {shown_url(url)} holds {why}; expected an empty store: give another one, or move this one away"
    )


def _bring_back(
    archive: zipfile.ZipFile, manifest: Manifest, store: HubStore, telemetry: TelemetryStore, now_ms: int, tell: Tell
) -> None:
    store.commit([UNFINISHED])
    for part in manifest.parts:
        room = part.name.removeprefix("rows/")
        if part.name.startswith("rows/") and room != "hub":
            read = _read(archive, part, tuple[str, bytes])
            for done, some in _in_slices(read, lambda row: len(row[1])):
                store.commit([Row(room, key, value) for key, value in some])
                store.renew()
                tell(part.name, done)
    parts = {part.name: part for part in manifest.parts}
    if _SEGMENTS in parts:
        for done, segments in _in_slices(_read(archive, parts[_SEGMENTS], Segment), lambda one: len(one.payload)):
            telemetry.commit(segments)
            store.renew()
            tell(_SEGMENTS, done)
    if _LETTERS in parts:
        for done, letters in _in_slices(_read(archive, parts[_LETTERS], TelemetryLetter), lambda one: len(one.payload)):
            telemetry.bury(letters)
            tell(_LETTERS, done)
    if _LEDGER in parts:
        for done, rows in _in_slices(_read(archive, parts[_LEDGER], LedgerRow), lambda _: 64):
            telemetry.restore_ledger(rows)
            store.renew()
            tell(_LEDGER, done)
    epoch = now_ms // 1000 - EPOCH_FROM_S
    hub = _read(archive, parts["rows/hub"], tuple[str, bytes]) if "rows/hub" in parts else iter(())
    itself = [Row("hub", key, restored(value, epoch)) for key, value in hub]
    store.commit([*itself, UNFINISHED._replace(value=None)])


def _read(archive: zipfile.ZipFile, part: Part, kind: Any) -> Iterator[Any]:
    decoder = msgspec.msgpack.Decoder(kind)
    with archive.open(part.name) as content:
        for _ in range(part.rows):
            (length,) = _LENGTH.unpack(_exactly(content, _LENGTH.size))
            yield decoder.decode(_exactly(content, length))


def _exactly(content: IO[bytes], size: int) -> bytes:
    found = content.read(size)
    while len(found) < size:
        more = content.read(size - len(found))
        if not more:
            raise ArchiveDamaged("a part ends in the middle of a row")
        found += more
    return found


def _in_slices(rows: Iterable[Any], size_of: Callable[[Any], int]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Rows for one commit after the other, and how many there were with it."""
    some: list[Any] = []
    size = done = 0
    for row in rows:
        some.append(row)
        size += size_of(row)
        done += 1
        if len(some) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield done, some
            some, size = [], 0
    if some:
        yield done, some


class _Format(msgspec.Struct, frozen=True):
    format: int


def _generator(rows: Iterator[Row]) -> Any:
    """The iterator as what it is, so that it can be closed before its end, and its snapshot with it."""
    return rows


_msgpack = msgspec.msgpack.Encoder()
_self = msgspec.json.Decoder(Self)
