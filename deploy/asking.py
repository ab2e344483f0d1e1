"""Ask a hub over HTTP for a command: with the key of the environment, and its refusal as a sentence."""

import os
import ssl
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape

HUB = "http://127.0.0.1:8080"
KEY = "WAYWARDEN_KEY"
"""The environment variable that holds the key: a process's arguments can be read by everybody on the machine."""

PATIENCE_S = 120.0

console = Console()

HubUrl = Annotated[str, typer.Option("--hub", envvar="WAYWARDEN_HUB", help="Where the hub listens.")]


def ask(request: httpx.Request) -> Any:
    """The hub's answer as JSON. Ends the command with the hub's own words when it refuses, or when none answers."""
    key = os.environ.get(KEY, "").strip()
    if key:
        request.headers["Authorization"] = f"Bearer {key}"
    try:
        # Whom the system believes, as curl does: an authority of one's own is added there (docs/production.md).
        with httpx.Client(timeout=PATIENCE_S, verify=ssl.create_default_context()) as http:
            answer = http.send(request)
    except httpx.HTTPError as away:
        where = f"{request.url.scheme}://{request.url.netloc.decode()}"
        raise refusal(f"no hub answers at {where}: {away}; start it or give --hub") from None
    if answer.is_success:
        return answer.json()
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"the hub answered {answer.status_code}"
    if answer.status_code == 401 and not key:
        detail = f"the hub asks who is there: put an admin's key into {KEY}"
    raise refusal(str(detail))


def refusal(why: str) -> typer.Exit:
    """Say why not; raise what this returns."""
    console.print(f"[red]{escape(why)}[/]", soft_wrap=True)
    return typer.Exit(2)
