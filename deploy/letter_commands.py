"""`waywarden dead-letters`: what agents said and came to nothing, listed, acted upon after all, or settled."""

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from deploy.asking import HUB, HubUrl, ask

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
console = Console()

Key = Annotated[str, typer.Argument(help="The letter's key, as `list` shows it.")]
By = Annotated[str, typer.Option(help="Who asks; kept beside the record, not in it.")]


@app.command(name="list")
def list_letters(
    hub: HubUrl = HUB,
    everything: Annotated[bool, typer.Option("--all", help="Also those somebody has looked at.")] = False,
) -> None:
    """Show every dead letter that waits: its key, when it was heard, and why it came to nothing."""
    letters = ask(httpx.Request("GET", f"{hub}/api/dead-letters", params={} if everything else {"state": "waiting"}))
    for letter in letters:
        heard = datetime.fromtimestamp(letter["heard_ms"] / 1000, UTC).isoformat(timespec="seconds")
        console.print(f"[bold]{escape(letter['key'])}[/]  {heard}  {letter['state']}", highlight=False, soft_wrap=True)
        console.print(f"    {letter['size']} bytes: {escape(letter['why'])}", highlight=False, soft_wrap=True)
    if not letters:
        console.print("[green]none[/]")


@app.command()
def retry(key: Key, hub: HubUrl = HUB, by: By = "the command line") -> None:
    """Have the hub act upon one after all: once it can read it, or knows what it speaks of."""
    done = ask(_post(hub, key, "retry", by))
    console.print(f"[green]acted upon[/]; on record as {done['decision_id']}")


@app.command()
def settle(key: Key, hub: HubUrl = HUB, by: By = "the command line") -> None:
    """Mark one as looked at: nothing more is to come of it."""
    done = ask(_post(hub, key, "settle", by))
    console.print(f"[green]settled[/]; on record as {done['decision_id']}")


def _post(hub: str, key: str, what: str, by: str) -> httpx.Request:
    return httpx.Request("POST", f"{hub}/api/dead-letters/{quote(key)}/{what}", json={"by": by})
