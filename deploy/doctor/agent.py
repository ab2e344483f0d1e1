"""Look at an agent by its settings: store, disk, clock, broker, certificates, devices, its page."""

import http.client
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from deploy.doctor import certificates
from deploy.doctor.broker import broker
from deploy.doctor.findings import ASK_AS, Finding, Look, unseen, worth_a_look
from deploy.doctor.machine import agent_looks, attempt, clock, disk, system_looks, versions

if TYPE_CHECKING:
    from edge_agent.settings import AgentSettings

LIBRARIES = ("waywarden", "onnxruntime", "pynmea2", "pyserial", "python-can", "paho-mqtt")
LEAST_MB = 50
TIGHT_MB = 200
ANSWER_S = 3.0
DAY_S = 86_400
SOON_DAYS = 14
SHARED_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "vboxsf")
START = "systemctl start waywarden-agent; its log: journalctl -u waywarden-agent"


def looks(file: Path) -> list[Look]:
    """Everything about the agent of a settings file; only that the file cannot be used, when it cannot."""
    from edge_agent.settings import agent_settings
    from shared.settings import SettingsWrong

    try:
        settings = agent_settings(file)
    except (SettingsWrong, OSError, ValueError) as wrong:
        mend = f"mend {file}, or: edge-agent enrol --hub https://HUB --token TOKEN --settings {file}"
        why = str(wrong)
        return [*system_looks(Path.cwd()), Look("settings", lambda: [unseen("settings", why, mend)])]
    store = Path(settings.store)
    return [
        *system_looks(store.parent),
        *agent_looks(),
        Look("agent's libraries", lambda: versions(LIBRARIES)),
        Look("settings", lambda: [Finding("settings", True, f"{file}: {settings.agent} in {settings.region}")]),
        Look("store", lambda: _store(store)),
        Look("store's disk", lambda: _disk(store)),
        Look("clock", lambda: _clock(settings)),
        Look("broker", lambda: _broker(settings)),
        Look("certificates", lambda: certificates.of_agent(settings, file)),
        *_devices(settings),
        Look("page", lambda: _page(settings, file)),
    ]


def kept_at(file: Path) -> Path | None:
    """What an agent of this settings file keeps for itself: its store; None when the file cannot be used."""
    from edge_agent.settings import agent_settings
    from shared.settings import SettingsWrong

    try:
        return Path(agent_settings(file).store)
    except (SettingsWrong, OSError, ValueError):
        return None


def _store(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield worth_a_look(
            "store", False, f"{path} is not there yet", "start the agent: it makes it at its first start"
        )
        return
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, timeout=2)) as connection:
            (whole,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            rooms = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    except PermissionError as wrong:
        yield unseen("store", f"{path}: {wrong.strerror}", ASK_AS)
        return
    except (sqlite3.Error, OSError) as wrong:
        whole, rooms = str(wrong), []
    mend = f"stop the agent and move {path} away: it begins anew, and what was not sent is lost; look at the card"
    is_whole = whole == "ok" and bool(rooms)
    yield Finding(
        "store", is_whole, f"{path}: {path.stat().st_size / 1e6:.1f} MB" if is_whole else f"{path}: {whole}", mend
    )


def _disk(store: Path) -> Iterator[Finding]:
    yield disk("store's disk", store.parent, LEAST_MB, TIGHT_MB)
    kind, options = _mounted(store.parent)
    if kind in SHARED_FILE_SYSTEMS:
        yield Finding(
            "store's file system", False, f"{kind}: a file there is not safe", f"put {store} on the card itself"
        )
    elif "ro" in options:
        yield Finding(
            "store's file system",
            False,
            f"{kind}, read-only",
            "mount -o remount,rw, and look at dmesg: the card may be dying",
        )
    elif kind == "tmpfs":
        yield Finding(
            "store's file system", False, "tmpfs: all is lost when the power goes", "put the store on the card"
        )
    elif kind:
        yield Finding("store's file system", True, kind)
    with suppress(OSError):
        ballast = store.with_name(f"{store.name}.ballast")
        if store.exists() and not ballast.exists():
            yield worth_a_look(
                "ballast", False, "not held: telemetry is given up to keep events", f"free 20 MB in {store.parent}"
            )


def _mounted(folder: Path) -> tuple[str, list[str]]:
    """The kind and the options of the file system a folder is on, by the kernel's list; "" where there is none."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "", []
    places = [(one[1], one[2], one[3].split(",")) for one in lines if len(one) > 3]
    fitting = [one for one in places if there.resolve().is_relative_to(one[0])]
    if not fitting:
        return "", []
    _, kind, options = max(fitting, key=lambda one: len(one[0]))
    return kind, options


def _clock(settings: "AgentSettings") -> Iterator[Finding]:
    yield clock()
    has_battery = any(Path("/sys/class/rtc").glob("rtc*"))
    if settings.clock == "unknown_at_start":
        yield Finding("battery clock", True, "not believed, as the settings say")
        return
    yield worth_a_look(
        "battery clock", has_battery, "there is one" if has_battery else "none: at a start the time is unknown",
        'nothing needs to be done; clock = "unknown_at_start" says it outright',
    )  # fmt: skip


def _broker(settings: "AgentSettings") -> Iterator[Finding]:
    """A running agent is not disturbed: with its certificate we would end its own session."""
    from edge_agent.settings import tls_of

    if _runs(settings):
        return
    yield from broker(settings.broker, tls_of(settings), f"{settings.region}-{settings.agent}")


def _runs(settings: "AgentSettings") -> bool:
    host = "127.0.0.1" if settings.page_host in ("0.0.0.0", "::", "") else settings.page_host
    try:
        socket.create_connection((host, settings.page_port), ANSWER_S).close()
    except OSError:
        return False
    return settings.page_port != 0


def _devices(settings: "AgentSettings") -> Iterator[Look]:
    for what, url in (("GNSS receiver", settings.gnss), ("vehicle's bus", settings.can), ("scanner", settings.scanner)):
        if url:
            mend = f"plug it in, or mend the setting: {what} is {url}"
            yield attempt(what, lambda url=url: _device(url), mend)  # type: ignore[misc]  # The loop's value of now.


def _device(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        socket.create_connection((str(parts.hostname), parts.port or 0), ANSWER_S).close()
        return f"{url} answers"
    if parts.scheme == "serial":
        device = Path(parts.path)
        if not device.exists():
            raise OSError(f"{device} is not there")
        device.open("rb", buffering=0).close()
        baud = parse_qs(parts.query).get("baud", ["9600"])[0]
        return f"{device} is there, {baud} baud"
    if parts.scheme == "can+socketcan":
        bus = parts.netloc or parts.path.strip("/")
        if not Path("/sys/class/net", bus).exists():
            raise OSError(f"there is no interface {bus}: ip link set {bus} up type can bitrate 500000")
        return f"{bus} is there"
    return f"{url}: not looked at, opening it would be listening"


def _page(settings: "AgentSettings", file: Path) -> Iterator[Finding]:
    where = f"{settings.page_host}:{settings.page_port}"
    if settings.page_certificate:
        yield _page_certificate(settings, file)
    if not _runs(settings):
        yield worth_a_look("page", False, f"nobody listens at {where}: the agent does not run", START)
        return
    try:
        counters = _counters(settings)
    except (OSError, http.client.HTTPException, ValueError) as wrong:
        yield Finding("page", False, f"{where} does not answer as an agent: {wrong}", START)
        return
    refused = {name: count for name, count in counters.items() if name.startswith("refused") and count}
    yield Finding("page", True, f"{where} answers; outbox {counters.get('outbox_bytes', 0) / 1e6:.1f} MB")
    if refused:
        told = ", ".join(f"{name} {count}" for name, count in sorted(refused.items()))
        yield worth_a_look("refused", False, told, "journalctl -u waywarden-agent names each kind once")


def _page_certificate(settings: "AgentSettings", file: Path) -> Finding:
    what = "page's certificate"
    mend = f"docs/driver.md, then page_certificate and page_key in {file}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.page_certificate, settings.page_key or None, password=lambda: b""
        )
        _, ends_s = certificates.span(Path(settings.page_certificate).read_bytes())
    except (OSError, ValueError) as wrong:
        return Finding(what, False, f"{settings.page_certificate}: {wrong}", mend)
    days = (ends_s - time.time()) / DAY_S
    return Finding(what, days > SOON_DAYS, f"{days:.0f} days left", mend)


def _counters(settings: "AgentSettings") -> dict[str, Any]:
    import json

    host = "127.0.0.1" if settings.page_host in ("0.0.0.0", "::", "") else settings.page_host
    connection: http.client.HTTPConnection
    if settings.page_certificate:
        # Its own machine asks; whom it is proven to is for the drivers' phones to judge.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, settings.page_port, timeout=ANSWER_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, settings.page_port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/api/counters")
        found = json.loads(connection.getresponse().read(100_000))
    finally:
        connection.close()
    if not isinstance(found, dict):
        raise ValueError("its counters are no object")
    return {name: count for name, count in found.items() if isinstance(count, int)}
