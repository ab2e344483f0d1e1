"""`waywarden keys`: who may ask the hub what; and `waywarden accesses`: who looked at whom."""

from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.asking import HUB, HubUrl, ask

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
console = Console()


@app.command(name="list")
def list_keys(
    hub: HubUrl = HUB,
    sessions: Annotated[bool, typer.Option("--sessions", help="Sign-ins of people and screens too.")] = False,
) -> None:
    """Every key: what it may, until when, and when it was last used."""
    table = Table("id", "name", "role", "bound to", "good until", "last used", box=None)
    for key in ask(httpx.Request("GET", f"{hub}/api/keys")):
        if key["kind"] == "session" and not sessions:
            continue
        bound = key["partner"] or ("all" if key["depots"] is None else " ".join(key["depots"]))
        until = key["why_not"] or _when(key["expires_ms"], "it is revoked")
        table.add_row(*map(escape, (key["key_id"], key["name"], key["role"], bound, until, _when(key["used_ms"], "-"))))
    console.print(table)


@app.command()
def make(
    name: Annotated[str, typer.Argument(help="What the key is for, or who holds it.")],
    role: Annotated[str, typer.Option(help="viewer, operator, approver, admin or partner.")] = "viewer",
    depot: Annotated[list[str] | None, typer.Option(help="Bind it to this depot; may be given again.")] = None,
    partner: Annotated[str, typer.Option(help="The partner whose orders it hands in and sees.")] = "",
    days: Annotated[int | None, typer.Option(help="For how long it is good; until revoked when left out.")] = None,
    by: Annotated[str, typer.Option(help="Who asks; kept beside the record, not in it.")] = "the command line",
    hub: HubUrl = HUB,
) -> None:
    """Make a key and show it, once: the hub keeps only its hash."""
    said: dict[str, Any] = {"name": name, "role": role, "depots": depot or None, "partner": partner, "by": by}
    if days is not None:
        said["days"] = days
    made = ask(httpx.Request("POST", f"{hub}/api/keys", json=said))
    console.print(f"[green]made[/] {made['key_id']}, shown this once:", highlight=False)
    typer.echo(made["key"])


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id: the twelve digits after ww_.")],
    by: Annotated[str, typer.Option(help="Who asks; kept beside the record, not in it.")] = "the command line",
    hub: HubUrl = HUB,
) -> None:
    """End a key or a session from this moment on."""
    ended = ask(httpx.Request("DELETE", f"{hub}/api/keys/{key_id}", params={"by": by}))
    console.print(f"[green]revoked[/] {ended['key_id']}", highlight=False)


def accesses(
    about: Annotated[str, typer.Option(help="Only those about this order, customer or van.")] = "",
    subject: Annotated[str, typer.Option(help="Only those of this key (key:ID) or person (person:SUBJECT).")] = "",
    most: Annotated[int, typer.Option(help="How many, newest first.")] = 50,
    hub: HubUrl = HUB,
) -> None:
    """Who read or changed personal data, newest first."""
    params = {name: text for name, text in (("about", about), ("subject", subject)) if text}
    table = Table("when (UTC)", "who", "what", "about", "answer", "times", box=None)
    for one in ask(httpx.Request("GET", f"{hub}/api/accesses", params={**params, "most": most})):
        words = (_when(one["at_ms"], ""), one["subject"], one["route"], one["about"], one["status"], one["times"])
        table.add_row(*(escape(str(word)) for word in words))
    console.print(table)


def _when(instant_ms: int | None, never: str) -> str:
    if instant_ms is None:
        return never
    return datetime.fromtimestamp(instant_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
