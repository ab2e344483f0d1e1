"""Train models from the command line."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cloud_hub.models.calibrate import TooFewToCalibrate
from cloud_hub.models.graph import GraphUnfaithful
from cloud_hub.models.train import TooFewToTrain
from cloud_hub.models.vans import DaysUnreadable, train_vans
from shared.features import TrainedCard

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def models() -> None:
    """Models of how long things take."""


@app.command()
def train(
    days: Annotated[Path, typer.Option(help="Folder with legs.csv and stops.csv, from firmware-sim drive-days.")],
    out: Annotated[Path, typer.Option(help="Folder that gets legs.onnx, stops.onnx and card.json.")],
) -> None:
    """Train, calibrate and test the van models on driven days, and write them with their card."""
    screen = Console()
    try:
        with screen.status("reading days") as status:
            card = train_vans(days, out, told=status.update)
    except (DaysUnreadable, TooFewToTrain, TooFewToCalibrate, GraphUnfaithful) as error:
        Console(stderr=True).print(f"[red]{error}[/red]", soft_wrap=True)
        raise typer.Exit(2) from error
    screen.print(_shown(card))
    shared = card.correlation
    screen.print(
        f"Days {card.train_seeds} trained, {card.calibrate_seeds} calibrated, {card.test_seeds} tested. "
        f"Luck shared: legs {shared.legs:.2f}, dwells {shared.dwells:.2f}, leg and dwell {shared.between:.2f}."
    )
    screen.print(f"Written to {out}")


def _shown(card: TrainedCard) -> Table:
    table = Table(title="Van models on days never seen (seconds)")
    headings = ("model", "rows", "pinball", "plan's pinball", "covers %", "width", "MAE", "ONNX diff", "KB")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for model in (card.legs, card.stops):
        found = model.figures
        table.add_row(
            model.file,
            f"{found.rows:,}",
            f"{found.pinball_s:.2f}",
            f"{found.pinball_plan_s:.2f}",
            f"{found.coverage_percent:.1f}",
            f"{found.width_s:.0f}",
            f"{found.mean_abs_error_s:.1f}",
            f"{found.onnx_max_diff_s:.1e}",
            f"{found.model_kb:.0f}",
        )
    return table


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
