"""`waywarden mosquitto`, `enrol`, `revoke`, `agents`, `certify` and `renew`: who is who, seen from the hub's machine.

They work on the authority's folder, whether the hub runs or not.
"""

import queue
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.mqtt import Link, LinkDown, LinkEvent, LinkUp, TlsUnusable
from shared.settings import SettingsWrong

# The hub's parts are imported where they are used: `waywarden` also runs where only the command line is installed.
if TYPE_CHECKING:
    from cloud_hub.authority import Authority
    from cloud_hub.settings import HubSettings

QUIET_S = 2.5
"""An agent that was thrown out tries again within about a second; whoever is not back by then is kept out."""

PATIENCE_S = 30.0
DAY_S = 86_400

console = Console()

SettingsFile = Annotated[Path, typer.Option("--settings", help="The hub's settings file.")]


class SessionLives(RuntimeError):
    """A revoked agent's session could not be ended."""


def mosquitto(
    folder: Annotated[Path, typer.Argument(help="The folder Mosquitto is to be started from.")],
    name: Annotated[list[str], typer.Option("--name", help="Name or address agents reach the broker by; repeat.")],
    settings: SettingsFile = Path("hub.toml"),
    agents_host: Annotated[str, typer.Option(help="Address to listen on for agents.")] = "0.0.0.0",
    agents_port: Annotated[int, typer.Option(help="Port for agents.")] = 8883,
    hub_host: Annotated[str, typer.Option(help="Address to listen on for the hub's processes.")] = "127.0.0.1",
    hub_port: Annotated[int, typer.Option(help="Port for the hub's processes.")] = 8884,
) -> None:
    """Write the production broker's configuration, access list and certificates; again to renew them."""
    from deploy.mosquitto import BrokerPlan, FolderUnusable, render

    read, authority = _opened(settings)
    names = tuple(dict.fromkeys([*name, "localhost", "127.0.0.1"]))
    plan = BrokerPlan(read.region, names, agents_host, agents_port, hub_host, hub_port)
    try:
        render(folder, plan, authority)
    except FolderUnusable as wrong:
        raise _refusal(str(wrong)) from None
    here = authority.folder.resolve()
    hub_name = "localhost" if hub_host in ("127.0.0.1", "::1") else names[0]
    say = console.print
    say(f"[green]written[/] {escape(str(folder.resolve()))}; start it with", highlight=False, soft_wrap=True)
    say(f"  mosquitto -c {escape(str(folder.resolve()))}/mosquitto.conf", highlight=False, soft_wrap=True)
    known = (read.broker, *map(_full, (read.tls.ca, read.tls.certificate, read.tls.key)), read.authority.broker)
    wanted = (
        f"mqtts://{hub_name}:{hub_port}", *(str(here / name) for name in ("ca.crt", "hub.crt", "hub.key")),
        f"mqtts://{names[0]}:{agents_port}",
    )  # fmt: skip
    if known == wanted:
        say(f"{escape(str(settings))} knows it all already", highlight=False, soft_wrap=True)
        return
    say(f"and {escape(str(settings))} needs", highlight=False, soft_wrap=True)
    for line in (
        f'  broker = "mqtts://{hub_name}:{hub_port}"',
        "  [tls]",
        f'  ca = "{here / "ca.crt"}"',
        f'  certificate = "{here / "hub.crt"}"',
        f'  key = "{here / "hub.key"}"',
        "  [authority]",
        f'  folder = "{here}"',
        f'  broker = "mqtts://{names[0]}:{agents_port}"',
    ):
        say(line, markup=False, highlight=False, soft_wrap=True)


def enrol(
    agent: Annotated[str, typer.Argument(help="The agent's name, as in van-1.")],
    settings: SettingsFile = Path("hub.toml"),
    hours: Annotated[float, typer.Option(help="How long the token is good for.", min=0.02, max=168)] = 24.0,
) -> None:
    """Invite a machine to become an agent: prints a token that is good once, for this name only."""
    from cloud_hub.authority import NameWrong

    read, authority = _opened(settings)
    if not read.authority.broker:
        raise _refusal(f"no agent could be told its broker: set broker in [authority] of {settings}")
    try:
        made = authority.invite(agent, hours * 3600)
    except NameWrong as wrong:
        raise _refusal(str(wrong)) from None
    until = datetime.fromtimestamp(made.ends_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    console.print(f"token for [bold]{escape(agent)}[/], once, until {until}:", highlight=False)
    print(made.token)  # noqa: T201 - bare, so that it can be piped.
    console.print("on the machine:", highlight=False)
    console.print(
        f"  edge-agent enrol --hub {escape(_hub_url(read))} --token TOKEN --settings {escape(agent)}.toml",
        highlight=False,
        soft_wrap=True,
    )


def revoke(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    settings: SettingsFile = Path("hub.toml"),
    why: Annotated[str, typer.Option(help="Kept on record.")] = "by command",
) -> None:
    """Believe an agent no more, at once: its certificates are listed as revoked and its session is ended."""
    from cloud_hub.authority import AgentUnknown
    from deploy.mosquitto import refresh

    read, authority = _opened(settings)
    try:
        count = authority.revoke(agent, why[:200])
    except AgentUnknown as wrong:
        raise _refusal(str(wrong)) from None
    console.print(f"[green]revoked[/] {escape(agent)}: {count} certificates held until now", highlight=False)
    undone = refresh(authority)
    for problem in undone:
        console.print(f"[red]not told[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if not read.broker.startswith("mqtts:"):
        console.print("this hub's broker asks nobody for a certificate: there is no session to end", highlight=False)
        raise typer.Exit(1 if undone else 0)
    try:
        end_session(read, agent)
    except SessionLives as wrong:
        console.print(f"[red]{escape(str(wrong))}[/]", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"[green]gone[/]: {escape(agent)} has no session and did not come back", highlight=False)
    raise typer.Exit(1 if undone else 0)


def agents(settings: SettingsFile = Path("hub.toml")) -> None:
    """List every certificate: whose it is, until when, and whether it still holds."""
    _, authority = _opened(settings)
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "kind", "ends", "days left", "how", "state", "serial"):
        table.add_column(heading, no_wrap=heading != "state")
    now_s = time.time()
    for one in authority.standings():
        left = (one.ends_s - now_s) / DAY_S
        state = "[green]holds[/]" if left > 0 else "[red]ended[/]"
        if one.revoked_s is not None:
            state = f"[red]revoked[/] {_day(one.revoked_s)}: {escape(one.why or '')}"
        table.add_row(escape(one.agent), one.kind, _day(one.ends_s), f"{left:.0f}", one.how, state, one.serial[:12])
    for agent, ends_s in authority.invitations():
        table.add_row(escape(agent), "agent", "", "", "", f"invited until {_day(ends_s)}", "")
    console.print(table)


def certify(
    name: Annotated[list[str], typer.Argument(help="Names and addresses the hub is reached by over HTTPS.")],
    settings: SettingsFile = Path("hub.toml"),
) -> None:
    """Make the certificate by which the hub's own HTTPS is believed."""
    read, authority = _opened(settings)
    certificate, key = authority.server("http", tuple(dict.fromkeys(name)))
    console.print(f"[green]written[/] {escape(str(certificate.resolve()))}", highlight=False, soft_wrap=True)
    if (_full(read.http_tls.certificate), _full(read.http_tls.key)) == (str(certificate.resolve()), str(key.resolve())):
        console.print(f"{escape(str(settings))} knows it already", highlight=False, soft_wrap=True)
        return
    console.print(f"{escape(str(settings))} needs", highlight=False, soft_wrap=True)
    for line in ("[http_tls]", f'certificate = "{certificate.resolve()}"', f'key = "{key.resolve()}"'):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"browsers believe it once {escape(str(authority.folder / 'ca.crt'))} is among their authorities",
        highlight=False,
        soft_wrap=True,
    )


def renew(settings: SettingsFile = Path("hub.toml")) -> None:
    """Make anew the broker's, the hub's and the HTTPS certificate where they near their end; for a daily timer."""
    from cloud_hub.authority import AuthorityUnusable
    from deploy.mosquitto import refresh

    _, authority = _opened(settings)
    try:
        renewed = authority.renew_own()
    except AuthorityUnusable as wrong:
        raise _refusal(str(wrong)) from None
    for path in renewed:
        console.print(f"[green]renewed[/] {escape(str(path))}", highlight=False, soft_wrap=True)
    undone = refresh(authority) if renewed else []
    for problem in undone:
        console.print(f"[red]not told[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if any(path.stem == "http" for path in renewed):
        console.print("the hub serves the new one once it is started again", highlight=False)
    if not renewed:
        console.print("nothing is near its end", highlight=False)
    raise typer.Exit(1 if undone else 0)


def end_session(settings: "HubSettings", agent: str, quiet_s: float = QUIET_S, patience_s: float = PATIENCE_S) -> None:
    """Take an agent's session over until it has stayed away for `quiet_s`.

    MQTT ends a session when somebody else connects under its client id (MQTT 5, 3.1.4). At the hub's listener the
    client id is ours to choose; at the agents' it is the certificate's name. Raises SessionLives.
    """
    from cloud_hub.settings import tls_of

    heard: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    try:
        link = Link(settings.broker, agent, [], heard.put, tls=tls_of(settings))
    except TlsUnusable as wrong:
        raise SessionLives(f"the session of {agent} was not ended: {wrong}") from None
    deadline = time.monotonic() + patience_s
    link.open()
    try:
        is_ours = False
        while time.monotonic() < deadline:
            try:
                event = heard.get(timeout=quiet_s if is_ours else max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                if is_ours:
                    return
                break
            if isinstance(event, LinkUp | LinkDown):
                is_ours = isinstance(event, LinkUp)
    finally:
        link.close()
    raise SessionLives(
        f"the session of {agent} could not be ended in {patience_s:.0f} s at {settings.broker}: the broker is away, or "
        "did not read its list of revoked certificates; run: systemctl restart mosquitto"
    )


def _opened(settings: Path) -> "tuple[HubSettings, Authority]":
    from cloud_hub.authority import Authority, AuthorityUnusable
    from cloud_hub.settings import authority_folder, read_hub_settings

    try:
        read = read_hub_settings(settings)
        return read, Authority(authority_folder(read))
    except (SettingsWrong, AuthorityUnusable) as wrong:
        raise _refusal(str(wrong)) from None


def _full(path: str) -> str:
    return str(Path(path).resolve()) if path else ""


def _hub_url(settings: "HubSettings") -> str:
    scheme = "https" if settings.http_tls.certificate else "http"
    names = (*settings.http_names, settings.http_host)
    return f"{scheme}://{names[0]}:{settings.http_port}"


def _day(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")


def _refusal(why: str) -> typer.Exit:
    console.print(f"[red]{escape(why)}[/]", soft_wrap=True)
    return typer.Exit(2)
