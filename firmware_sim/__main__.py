"""The command `firmware-sim`: vans to drive, their twin, days to train on, an inbox that takes what customers get."""

import os
import signal
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import Progress

from firmware_sim.days import BAD_DAYS, drive_days
from shared.citymap import BundleUnreadable, shipped_city
from shared.clock import SETTING, Clock, ClockSettingWrong
from shared.settings import SettingsWrong, read_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

City = Annotated[Path | None, typer.Option("--city", help="Folder of a city bundle; the shipped town when not given.")]


@app.command("van")
def van_command(
    settings: Annotated[Path | None, typer.Option(help="A TOML file; the flags below override what it says.")] = None,
    name: Annotated[str | None, typer.Option(help="The agent's name, as in van-1.")] = None,
    page: Annotated[str | None, typer.Option(help="The agent's page, as in http://127.0.0.1:8001.")] = None,
    city: City = None,
    gnss_port: Annotated[int | None, typer.Option(help="NMEA 0183 by TCP; 0 takes any free port.")] = None,
    scanner_port: Annotated[int | None, typer.Option(help="Labels by TCP; 0 takes any free port.")] = None,
    control_port: Annotated[int | None, typer.Option(help="Bad luck by TCP; 0 takes any free port.")] = None,
    can: Annotated[str | None, typer.Option(help="Bus URL, as in can+udp_multicast://239.74.163.2:43113.")] = None,
    can_profile: Annotated[str | None, typer.Option(help="obd2 or j1939.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which day of the world this is.")] = None,
    number: Annotated[int | None, typer.Option(help="Which van of the day, counted from 0.")] = None,
    day: Annotated[str | None, typer.Option(help=f"What befalls it: {', '.join(BAD_DAYS)}.")] = None,
    clock: Annotated[str | None, typer.Option(help=f"EPOCH_MS,SPEED,ORIGIN_MONOTONIC_NS; else {SETTING}.")] = None,
) -> None:
    """Drive one van: its truth, its driver and its devices, until told to stop.

    The first line on standard output is JSON: the ports that are open.
    """
    # The days above need none of the device libraries, which this import brings.
    from firmware_sim.van import VanProcess, VanSettings, VanSettingsWrong

    flags = {
        "name": name,
        "page": page,
        "city": str(city) if city is not None else None,
        "gnss_port": gnss_port,
        "scanner_port": scanner_port,
        "control_port": control_port,
        "can": can,
        "can_profile": can_profile,
        "seed": seed,
        "number": number,
        "day": day,
    }
    try:
        told: dict[str, Any] = msgspec.structs.asdict(read_settings(settings, VanSettings)) if settings else {}
        told |= {flag: given for flag, given in flags.items() if given is not None}
        process = VanProcess(msgspec.convert(told, VanSettings), Clock.from_setting(clock or os.environ.get(SETTING)))
    except (SettingsWrong, VanSettingsWrong, ClockSettingWrong, BundleUnreadable, ValueError, OSError) as wrong:
        typer.echo(f"firmware-sim van does not start: {wrong}", err=True)
        raise typer.Exit(2) from None
    for told_to_stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told_to_stop, lambda *_: process.stop())
    ports = {
        "gnss_port": process.instruments.gnss.port,
        "scanner_port": process.instruments.scanner.port,
        "control_port": process.control.port,
        "pid": os.getpid(),
    }
    print(msgspec.json.encode(ports).decode(), flush=True)
    process.run()


@app.command("twin")
def twin_command(
    settings: Annotated[Path, typer.Option(help="A TOML file: the hub, the vans, the city and the seed.")],
) -> None:
    """Drive the hub's first plan once more, on fixed routes and without anybody's help, and say what it comes to.

    The first line on standard output is JSON: the ports that are open.
    """
    from firmware_sim.twin_process import TwinProcess, TwinSettings, TwinSettingsWrong

    try:
        told = read_settings(settings, TwinSettings)
        process = TwinProcess(told, Clock.from_setting(os.environ.get(SETTING)))
    except (SettingsWrong, TwinSettingsWrong, ClockSettingWrong, BundleUnreadable, OSError) as wrong:
        typer.echo(f"firmware-sim twin does not start: {wrong}", err=True)
        raise typer.Exit(2) from None
    for told_to_stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told_to_stop, lambda *_: process.stop())
    controls = {name: control.port for name, control in process.controls.items()}
    print(msgspec.json.encode({"port": process.port, "vans": controls, "pid": os.getpid()}).decode(), flush=True)
    process.run()


@app.command("inbox")
def inbox_command(
    port: Annotated[int, typer.Option(help="HTTP on loopback; 0 takes any free port.")] = 0,
    smtp_port: Annotated[int, typer.Option(help="SMTP on loopback; 0 takes any free port.")] = 0,
    utc_offset_s: Annotated[int, typer.Option(help="What the page's clock adds to UTC.")] = 7_200,
) -> None:
    """Take what customers and shops are told, by webhook, e-mail and SMS; show it at GET / and pass nothing on.

    POST /fail?channel=email&n=3 fails the next three. The first line on standard output is JSON: the ports.
    """
    from firmware_sim.inbox import Inbox

    try:
        inbox = Inbox(port, Clock.from_setting(os.environ.get(SETTING)), smtp_port, utc_offset_s)
    except ClockSettingWrong as wrong:
        typer.echo(f"firmware-sim inbox does not start: {wrong}", err=True)
        raise typer.Exit(2) from None
    except OSError as wrong:
        typer.echo(f"firmware-sim inbox does not start: port {port} or {smtp_port}: {wrong.strerror}", err=True)
        raise typer.Exit(2) from None

    def stop(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    ports = {"port": inbox.port, "smtp_port": inbox.smtp_port, "pid": os.getpid()}
    print(msgspec.json.encode(ports).decode(), flush=True)
    try:
        inbox.serve()
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


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
