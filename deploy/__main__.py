"""`waywarden`, the front door: demo, doctor, map and broker."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deploy import access_commands, backup_commands, enrol_commands, letter_commands, map_command, privacy_commands

if TYPE_CHECKING:
    from deploy.doctor import Finding

app = typer.Typer(
    name="waywarden",
    help="E-commerce logistics that runs itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(map_command.app, name="map", help="Turn OpenStreetMap extracts into city bundles.")
app.add_typer(access_commands.app, name="keys", help="Keys of the hub's HTTP interface.")
app.add_typer(letter_commands.app, name="dead-letters", help="What agents said and came to nothing.")
app.command()(access_commands.accesses)
app.command()(privacy_commands.verify)
app.command()(privacy_commands.forget)
app.command()(backup_commands.backup)
app.command()(backup_commands.restore)
app.command()(enrol_commands.mosquitto)
app.command()(enrol_commands.enrol)
app.command()(enrol_commands.revoke)
app.command()(enrol_commands.agents)
app.command()(enrol_commands.certify)
app.command()(enrol_commands.renew)
console = Console()


@app.command()
def doctor(
    settings: Annotated[Path | None, typer.Option("--settings", help="Look at the hub of this settings file.")] = None,
    agent_settings: Annotated[
        Path | None, typer.Option("--agent-settings", help="Look at the agent of this settings file.")
    ] = None,
    backups: Annotated[Path | None, typer.Option(help="The folder of the hub's backups, to look at too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines for people.")] = False,
    broker_port: Annotated[int | None, typer.Option(help="Look for a broker on this port too.")] = None,
) -> None:
    """Say what is wrong with this machine, a hub or an agent; each finding comes with the line that mends it.

    The exit status is 0 when nothing is wrong, 1 when something is, 2 when something could not be looked at.
    """
    import json

    from deploy.doctor import Look, agent, examined, exit_status, hub, machine

    for kept in (settings and hub.kept_at(settings), agent_settings and agent.kept_at(agent_settings)):
        if kept is not None:
            machine.look_as_owner_of(kept)
    looks: list[Look] = []
    if settings is not None:
        looks += hub.looks(settings, backups)
    if agent_settings is not None:
        looks += agent.looks(agent_settings)
    if not looks:
        looks = machine.looks(Path.cwd(), broker_port)
    findings = []
    for finding in examined(looks):
        findings.append(finding)
        if not as_json:
            _show(finding)
    status = exit_status(findings)
    if as_json:
        told = [{"what": one.what, "severity": one.severity, "found": one.found, "mend": one.mend} for one in findings]
        print(json.dumps({"status": status, "findings": told}))
    # What still hangs in a look must not keep the answer.
    sys.stdout.flush()
    os._exit(status)


MARKS = {"well": "[green]well[/]", "worth a look": "[yellow]worth a look[/]", "wrong": "[red]wrong[/]"}


def _show(finding: "Finding") -> None:
    mark = MARKS.get(finding.severity, "[yellow]not seen[/]")
    width = 12 + len(mark) - len(finding.severity)
    console.print(f"{mark:>{width}}  {finding.what}: {escape(finding.found)}", highlight=False, soft_wrap=True)
    if not finding.is_well:
        console.print(f"{'mend: ':>14}[bold]{escape(finding.mend)}[/]", highlight=False, soft_wrap=True)


@app.command()
def broker(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 1883,
    host: Annotated[str, typer.Option(help="Address to listen on; the loopback only.")] = "127.0.0.1",
) -> None:
    """Run the embedded MQTT 5 broker on the loopback until interrupted."""
    from deploy.broker import NotLoopback, PortTaken, serve

    try:
        serve(port, host)
    except (NotLoopback, PortTaken) as refused:
        console.print(f"[red]{escape(str(refused))}[/]")
        raise typer.Exit(2) from None


@app.command()
def demo(
    check: Annotated[
        bool, typer.Option("--check", help="No screen: run until it is proven, print one JSON object.")
    ] = False,
    pbf: Annotated[Path | None, typer.Option(help="Your own city: an OpenStreetMap extract.")] = None,
    orders: Annotated[Path | None, typer.Option(help="Your own orders: a CSV as docs/orders.md shows.")] = None,
    speed: Annotated[float, typer.Option(help="How much faster than real time the day runs.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Which day: traffic, drivers and customers are drawn from it.")] = 7,
    zone: Annotated[str, typer.Option(help="The city's time zone.")] = "Europe/Helsinki",
    within: Annotated[float, typer.Option(help="Seconds --check may take.")] = 180.0,
    folder: Annotated[Path, typer.Option(help="Where the run's databases and logs go.")] = Path("run/demo"),
) -> None:
    """One day in one city: three vans, real streets, real protocols, every part its own process."""
    from deploy.demo import DemoRefused, Wish, run_check, run_screen

    wish = Wish(folder, pbf, orders, speed, seed, zone)
    try:
        if check:
            raise typer.Exit(run_check(wish, within))
        run_screen(wish)
    except DemoRefused as refused:
        console.print(f"[red]{escape(str(refused))}[/]")
        raise typer.Exit(2) from None


def main() -> None:
    """Entry point of the console script."""
    sys.exit(app())


if __name__ == "__main__":
    main()
