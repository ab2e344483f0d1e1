"""`waywarden map`: turn OpenStreetMap extracts into city bundles, and say what is in one."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
console = Console()
trouble_console = Console(stderr=True)


@app.command(name="import")
def import_map(
    file: Annotated[Path, typer.Argument(help="An OpenStreetMap extract: .osm.pbf, .osm or .opl.")],
    name: Annotated[str, typer.Option(help="The town's name; by default the file's.")] = "",
    out: Annotated[Path | None, typer.Option(help="The bundle's folder; by default run/cities/NAME.")] = None,
    left_hand_traffic: Annotated[
        bool, typer.Option("--left-hand-traffic", help="Its traffic keeps to the left.")
    ] = False,
) -> None:
    """Make a city bundle: drivable streets, addresses and shops, and the layers of a basemap."""
    from cloud_hub.mapmaking import MapUnreadable, NothingToDriveOn, import_city

    town = name or file.name.split(".")[0]
    folder = out or Path("run") / "cities" / "-".join(town.lower().replace("/", " ").split())
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=trouble_console, transient=True) as progress:
            task = progress.add_task("opening the extract", total=None)
            import_city(
                file,
                folder,
                town,
                drives_on_left=left_hand_traffic,
                progress=lambda stage, done: progress.update(task, description=stage, completed=done),
            )
    except (MapUnreadable, NothingToDriveOn) as trouble:
        _give_up(trouble)
    except OSError as trouble:
        _give_up(f"the bundle cannot be written into {folder} ({trouble.strerror}): give another folder with --out")
    _describe(folder)


@app.command()
def show(
    folder: Annotated[Path | None, typer.Argument(help="A city bundle; by default the one that is shipped.")] = None,
) -> None:
    """Say what is in a city bundle, after checking that it is whole."""
    from shared.citymap import BundleUnreadable, CityMap, shipped_city

    folder = folder or shipped_city()
    try:
        _ = CityMap.load(folder).basemap
    except BundleUnreadable as trouble:
        _give_up(trouble)
    _describe(folder)


def _describe(folder: Path) -> None:
    from shared.citymap import read_manifest

    manifest = read_manifest(folder)
    south, west, north, east = manifest.bounds
    counts = defaultdict(int, manifest.counts)
    table = Table(title=escape(manifest.name), show_header=False, title_justify="left")
    table.add_row("folder", escape(str(folder)))
    table.add_row("from south, west to north, east", f"{south:.4f}, {west:.4f} to {north:.4f}, {east:.4f}")
    table.add_row("ways a van may drive", f"{counts['ways']:,}")
    table.add_row("pieces of street, connected", f"{counts['edges']:,}, {counts['core_edges']:,}")
    table.add_row("addresses, shops", f"{counts['addresses']:,}, {counts['shops']:,}")
    layers = ", ".join(f"{counts[layer]:,} {layer}" for layer in ("roads", "buildings", "water", "parks"))
    table.add_row("basemap", layers)
    table.add_row("source", escape(f"{manifest.source.file} {manifest.source.timestamp}".strip()))
    table.add_row("thanks to", escape(f"{manifest.source.attribution} ({manifest.source.licence})"))
    console.print(table)


def _give_up(trouble: object) -> None:
    trouble_console.print(f"[red]refused[/]: {escape(str(trouble))}", highlight=False)
    raise typer.Exit(1)
