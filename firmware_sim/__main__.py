"""The command `firmware-sim`: vans to drive, days to train on, a shop's inbox to notify."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from firmware_sim.days import drive_days
from shared.citymap import BundleUnreadable, shipped_city

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

City = Annotated[Path | None, typer.Option("--city", help="Folder of a city bundle; the shipped town when not given.")]


@app.command("drive-days")
def drive_days_command(
    seeds: Annotated[str, typer.Option(help="Which days, as FIRST:END; END is not driven.")],
    out: Annotated[Path, typer.Option(help="Folder that gets legs.csv and stops.csv.")],
    city: City = None,
) -> None:
    """Drive whole days without agents, as fast as they go, and write what took how long: training data."""
    days = _days(seeds)
    with Progress(transient=True) as progress:
        task = progress.add_task("driving days", total=len(days))
        try:
            legs, stops = drive_days(days, city or shipped_city(), out, progress=lambda _: progress.advance(task))
        except BundleUnreadable as wrong:
            raise typer.BadParameter(str(wrong)) from None
    typer.echo(f"{len(days)} days driven: {legs} legs in {out / 'legs.csv'}, {stops} stops in {out / 'stops.csv'}")


def _days(text: str) -> range:
    first, _, end = text.partition(":")
    try:
        days = range(int(first), int(end))
    except ValueError:
        raise typer.BadParameter(f"--seeds is '{text}', expected FIRST:END, as in 0:200") from None
    if not days or days[0] < 0:
        raise typer.BadParameter(f"--seeds is '{text}', which holds no day: expected 0 <= FIRST < END")
    return days


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
