"""One day in one city on one machine, to be watched, disturbed, or proven."""

import json
import time

import httpx
from rich.console import Console
from rich.markup import escape

from deploy.demo.check import Check
from deploy.demo.luck import Luck
from deploy.demo.screen import Screen
from deploy.demo.stage import DemoRefused, Stage, Wish
from deploy.stack import DidNotStart

__all__ = ["DemoRefused", "Wish", "run_check", "run_screen"]

EX_FAILED = 1


def run_screen(wish: Wish) -> None:
    """Show the day until the visitor quits. Raises DemoRefused."""
    console = Console()
    stage = Stage(wish, lambda words: console.print(f"[dim]{escape(words)}[/]"))
    try:
        stage.rise()
        Screen(stage, Luck(stage), console).show()
    except (DidNotStart, httpx.HTTPError) as fallen:
        raise DemoRefused(str(fallen)) from None
    finally:
        stage.stop()
    console.print(f"Logs and databases of this day: {wish.folder}")


def run_check(wish: Wish, within_s: float) -> int:
    """Prove the main job, print one JSON object, and return the exit status: 0 when all of it happened in time."""
    begun_s = time.monotonic()
    console = Console(stderr=True)
    report: dict[str, object] = {"ok": False, "speed": wish.speed, "seed": wish.seed}
    stage: Stage | None = None
    check: Check | None = None
    try:
        stage = Stage(wish, lambda words: console.print(f"[dim]{escape(words)}[/]"))
        stage.rise()
        report["started_s"] = round(time.monotonic() - begun_s, 1)
        check = Check(stage, Luck(stage))
        report["ok"] = check.run(begun_s, within_s)
    except (DemoRefused, DidNotStart, OSError, httpx.HTTPError) as fallen:
        report["failed"] = str(fallen)
    finally:
        if stage is not None:
            report["processes"] = stage.stack.ids
            stage.stop()
    if check is not None:
        report |= {"story": check.story, **check.proven}
        if figures := check.proven.get("figures"):
            due = figures["due"]
            console.print(f"[dim]at {figures['at']}, with {due['ours']} windows due (twin {due['twin']}):[/]")
            for line in figures["headline"]:
                console.print(f"[dim]{escape(line)}[/]")
    report["seconds"] = round(time.monotonic() - begun_s, 1)
    print(json.dumps(report, ensure_ascii=False))  # noqa: T201 - the one object the command promises.
    return 0 if report["ok"] else EX_FAILED
