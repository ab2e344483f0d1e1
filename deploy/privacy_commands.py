"""`waywarden verify` and `waywarden forget`: are the records what they were, and let a person go."""

from typing import Annotated, Any
from urllib.parse import quote

import httpx
import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from deploy.asking import HUB, HubUrl, ask

console = Console()


def verify(
    hub: HubUrl = HUB,
    store: Annotated[
        str,
        typer.Option(
            help="A hub's store instead, sqlite:///PATH or postgresql://USER@HOST/DB; no hub need run, and nothing is "
            "written."
        ),
    ] = "",
) -> None:
    """Say whether every chain of decisions holds; exit 1 and name the first bad record of one that does not."""
    verdict = ask(httpx.Request("GET", f"{hub}/api/ledger/verify")) if not store else _verify_store(store)
    for chain in verdict["chains"]:
        mark = "[red]broken[/]" if chain["wrong"] else "[green]holds[/]"
        lives = f", {chain['lives']} lives of its store" if chain["lives"] > 1 else ""
        gaps = f", {chain['gaps']} gaps on record" if chain.get("gaps") else ""
        counts = f"{chain['holds']} of {chain['records']} records hold{lives}{gaps}"
        console.print(f"{mark:>16}  {escape(chain['node'])}: {counts}", highlight=False)
        if chain["wrong"]:
            found = f"{chain['first_bad']}: {chain['wrong']}"
            console.print(f"         first bad record {escape(found)}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if verdict["holds"] else 1)


def forget(
    customer: Annotated[str, typer.Argument(help="The customer's reference, as the shop gave it with the orders.")],
    hub: HubUrl = HUB,
    by: Annotated[str, typer.Option(help="Who asks; kept beside the record, not in it.")] = "the command line",
    even_open: Annotated[
        bool, typer.Option("--even-open", help="Also when something is still to be delivered: withdraw that first.")
    ] = False,
) -> None:
    """Erase everything personal of a customer, at the hub and in the vans; records and figures stay."""
    url = f"{hub}/api/customers/{quote(customer, safe='')}/forget"
    done = ask(httpx.Request("POST", url, json={"by": by, "even_open": even_open}))
    console.print(f"[green]forgotten[/], with {len(done['orders'])} orders; on record as {done['decision_id']}")


def _verify_store(store: str) -> Any:
    from cloud_hub.ledgers import verified
    from cloud_hub.storage import StoreAway, StoreUnknown, StoreUnreadable, read_chains

    try:
        return msgspec.to_builtins(verified(*read_chains(store)))
    except (StoreUnknown, StoreUnreadable, StoreAway) as wrong:
        raise _refusal(str(wrong)) from None


def _refusal(why: str) -> typer.Exit:
    console.print(f"[red]{escape(why)}[/]", soft_wrap=True)
    return typer.Exit(2)
