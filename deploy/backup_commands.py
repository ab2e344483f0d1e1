"""`waywarden backup` and `waywarden restore`: everything a hub knows in one file, and back into an empty store."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from cloud_hub.settings import HubSettings
    from cloud_hub.storage.archive import Manifest, Tell

console = Console()
trouble_console = Console(stderr=True)

StoreUrl = Annotated[str, typer.Option("--store", help="The store: sqlite:///PATH or postgresql://USER@HOST/DB.")]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="A hub's settings: its store, and the key files that belong to it."),
]


def backup(
    file: Annotated[Path, typer.Argument(help="The archive to write.")],
    store: StoreUrl = "",
    settings: SettingsFile = None,
) -> None:
    """Write everything a hub knows into one file, while it works; with --settings its keys too."""
    from cloud_hub.storage.archive import back_up

    hub = _read(settings)
    files = {} if hub is None else {name: path for name, path in _key_files(hub).items() if path.exists()}
    url = _store(store, hub)
    with _refusals(), _progress() as tell:
        manifest = back_up(url, file, _now_ms(), files, tell)
    size_mb = file.stat().st_size / 1e6
    console.print(f"[green]written[/] {escape(str(file))}: {_words(manifest)}, {size_mb:.1f} MB", highlight=False)
    _warn(manifest)


def restore(
    file: Annotated[Path, typer.Argument(help="An archive that `waywarden backup` wrote.")],
    store: StoreUrl = "",
    settings: SettingsFile = None,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the archive is whole.")] = False,
) -> None:
    """Bring an archive back into an empty store of any kind; with --settings its keys too. No hub may run on it."""
    from cloud_hub.storage.archive import examine, restored_files
    from cloud_hub.storage.archive import restore as bring_back

    with _refusals(), _progress() as tell:
        if check:
            manifest = examine(file, tell)
            console.print(f"[green]whole[/]: {_words(manifest)}", highlight=False)
            return
        hub = _read(settings)
        url = _store(store, hub)
        if hub is not None:
            # Before the store: a key that differs is found while nothing has been done.
            for path in restored_files(file, _key_files(hub)):
                console.print(f"[green]written[/] {escape(str(path))}", highlight=False)
        manifest = bring_back(file, url, _now_ms(), tell)
    console.print(f"[green]restored[/] {_words(manifest)}", highlight=False)
    if manifest.files and hub is None:
        console.print(
            f"not restored: {len(manifest.files)} key files; without them agents refuse this hub: give --settings",
            highlight=False,
        )
    console.print(
        "What the lost hub heard after this archive was made is missing; agents say it again as far as they keep it, "
        "and every gap is put on record (docs/storage.md).",
        highlight=False,
    )


def _words(manifest: "Manifest") -> str:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(manifest.made_ms / 1000))
    return (
        f"{manifest.rows('rows/'):,} rows and {manifest.rows('telemetry/segments'):,} batches of readings, "
        f"as of {made} UTC"
    )


def _warn(manifest: "Manifest") -> None:
    holds = "people's names and addresses"
    if manifest.files:
        holds += f", and secrets ({', '.join(manifest.files)}): who has it can give orders to every agent"
    console.print(f"[yellow]It holds {holds}. Keep it as you keep the hub itself.[/]", highlight=False)


def _key_files(hub: "HubSettings") -> dict[str, Path]:
    """The files a hub's identity and its agents' trust rest on, by the name each has in an archive; those that an
    archive may bring, too, whether they are there or not.
    """
    from cloud_hub.settings import authority_folder

    named = {
        "hub.key": hub.key_file,
        "tls/ca": hub.tls.ca,
        "tls/certificate": hub.tls.certificate,
        "tls/key": hub.tls.key,
        "http/certificate": hub.http_tls.certificate,
        "http/key": hub.http_tls.key,
    }
    authority = authority_folder(hub)
    kept = ("ca.crt", "ca.key", "ca.crl", "hub-ca.crt", "hub-ca.key", "hub-ca.crl", "register.sqlite")
    return {name: Path(path) for name, path in named.items() if path} | {
        f"authority/{name}": authority / name for name in kept
    }


def _read(settings: Path | None) -> "HubSettings | None":
    from cloud_hub.channels import SecretMissing
    from cloud_hub.settings import read_hub_settings
    from shared.settings import SettingsWrong

    if settings is None:
        return None
    try:
        return read_hub_settings(settings)
    except (SettingsWrong, SecretMissing) as wrong:
        raise _refusal(wrong) from None


def _store(store: str, hub: "HubSettings | None") -> str:
    if not store and hub is None:
        raise _refusal("which store? give --store URL, or --settings hub.toml")
    return store or str(hub.store if hub is not None else "")


@contextmanager
def _progress() -> "Iterator[Tell]":
    """Says on standard error which part is worked on; nothing stays of it."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,.0f}"))
    with Progress(*columns, TimeElapsedColumn(), console=trouble_console, transient=True) as progress:
        task = progress.add_task("opening the store", total=None)

        def tell(part: str, done: int) -> None:
            progress.update(task, description=part, completed=done)

        yield tell


@contextmanager
def _refusals() -> Iterator[None]:
    """What cannot be done is said in a sentence; exit 2, and exit 1 for a damaged archive."""
    from cloud_hub.storage import Fenced, StoreAway, StoreUnknown, StoreUnreadable
    from cloud_hub.storage.archive import ArchiveDamaged, ArchiveForeign, NotRestored

    try:
        yield
    except ArchiveDamaged as damaged:
        raise _refusal(damaged, 1) from None
    except (StoreUnknown, StoreUnreadable, StoreAway, Fenced, ArchiveForeign, NotRestored) as wrong:
        raise _refusal(wrong) from None
    except OSError as wrong:
        named = wrong.filename or "the archive"
        raise _refusal(f"{named}: {wrong.strerror}; give another place, or make room there") from None


def _refusal(why: object, code: int = 2) -> typer.Exit:
    trouble_console.print(f"[red]{escape(str(why))}[/]", soft_wrap=True, highlight=False)
    return typer.Exit(code)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
