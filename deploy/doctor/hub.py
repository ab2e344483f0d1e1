"""Look at a hub by its settings: settings, keys, store, broker, clock, disk, certificates, its door, its backups."""

import http.client
import os
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.doctor import certificates
from deploy.doctor.broker import LOOPBACK, broker
from deploy.doctor.findings import ASK_AS, Finding, Look, unseen, worth_a_look
from deploy.doctor.machine import attempt, clock, disk, solver, system_looks, versions

if TYPE_CHECKING:
    from cloud_hub.settings import HubSettings

LIBRARIES = ("waywarden", "fastapi", "uvicorn", "psycopg", "cryptography", "paho-mqtt", "pyvrp")
ANSWER_S = 3.0
DAY_S = 86_400
OLD_DAYS = 2.0
ANY = ("0.0.0.0", "::", "")
START = "systemctl start waywarden-hub; its log: journalctl -u waywarden-hub"


def looks(file: Path, backups: Path | None = None) -> list[Look]:
    """Everything about the hub of a settings file; only that the file cannot be used, when it cannot."""
    from cloud_hub.channels import SecretMissing
    from cloud_hub.settings import read_hub_settings
    from shared.settings import SettingsWrong

    try:
        settings = read_hub_settings(file)
    except (SettingsWrong, SecretMissing, OSError, ValueError) as wrong:
        return [*system_looks(Path.cwd()), Look("settings", lambda wrong=wrong: [_unreadable(file, wrong)])]  # type: ignore[misc]  # A default holds what `except` lets go of.
    return [
        *system_looks(Path(settings.key_file).parent),
        Look("hub's libraries", lambda: versions(LIBRARIES)),
        attempt("fleet solver", solver, "pip install 'waywarden[hub]'"),
        attempt("city bundle", lambda: _city(settings), "waywarden map import FILE.osm.pbf, and the setting `city`"),
        Look("settings", lambda: _settings(settings, file)),
        Look("hub's key", lambda: [_key(settings)]),
        Look("clock", lambda: [clock()]),
        Look("store", lambda: _store(settings)),
        Look("broker", lambda: _broker(settings)),
        Look("certificates", lambda: certificates.of_hub(settings, file)),
        Look("broker's open files", lambda: _broker_files(settings)),
        Look("HTTP", lambda: _door(settings)),
        *([Look("backups", lambda: _backups(backups))] if backups is not None else []),
    ]


def kept_at(file: Path) -> Path | None:
    """What a hub of this settings file keeps for itself: its key; None when the file cannot be used."""
    from cloud_hub.channels import SecretMissing
    from cloud_hub.settings import read_hub_settings
    from shared.settings import SettingsWrong

    try:
        return Path(read_hub_settings(file).key_file)
    except (SettingsWrong, SecretMissing, OSError, ValueError):
        return None


def _unreadable(file: Path, wrong: Exception) -> Finding:
    try:
        file.open("rb").close()
    except PermissionError:
        return unseen(
            "settings", f"{file} may not be read by this user", f"sudo -u waywarden waywarden doctor --settings {file}"
        )
    except OSError:
        pass
    return unseen("settings", str(wrong), f"mend {file}; docs/settings.md lists every setting")


def _settings(settings: "HubSettings", file: Path) -> Iterator[Finding]:
    from cloud_hub.storage import is_postgres

    depots, vehicles = len(settings.depots), len(settings.vehicles)
    yield Finding("settings", True, f"{file}: region {settings.region}, {depots} depots, {vehicles} vehicles")
    is_production = settings.broker.startswith("mqtts:") or is_postgres(settings.store)
    if settings.access.open_on_loopback:
        found = "open_on_loopback: whoever is on this machine is an admin"
        mend = f"open_on_loopback = false in [access] of {file}"
        yield Finding("access", False, found, mend, "wrong" if is_production else "worth a look")
    if settings.http_host not in LOOPBACK and not settings.http_tls.certificate:
        yield worth_a_look(
            "HTTP's wire", False, f"{settings.http_host}:{settings.http_port} is served in clear: keys can be read",
            f"waywarden certify NAME --settings {file}, or http_host = \"127.0.0.1\" behind a proxy with TLS",
        )  # fmt: skip
    if not Path(settings.key_file).is_absolute():
        yield worth_a_look(
            "hub's key's place", False, f"{settings.key_file} lies wherever the hub is started from",
            f'key_file = "{Path(settings.key_file).absolute()}" in {file}',
        )  # fmt: skip


def _key(settings: "HubSettings") -> Finding:
    path = Path(settings.key_file)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return worth_a_look("hub's key", False, f"{path} is not there yet", "start the hub: it makes it")
    except OSError as wrong:
        return unseen("hub's key", f"{path}: {wrong.strerror}", ASK_AS)
    return Finding("hub's key", not mode & 0o077, f"{path} is {mode:03o}", f"chmod 600 {path}")


def _city(settings: "HubSettings") -> str:
    from shared.citymap import CityMap

    city = CityMap.load(settings.city_folder)
    return f"{city.name}: {len(city.edge_from)} directed street edges, {len(city.addresses)} addresses"


def _store(settings: "HubSettings") -> Iterator[Finding]:
    from deploy.doctor.store import store

    yield from store(settings.store)


def _broker(settings: "HubSettings") -> Iterator[Finding]:
    from cloud_hub.settings import tls_of

    yield from broker(settings.broker, tls_of(settings), asks_figures=True)


def _broker_files(settings: "HubSettings") -> Iterator[Finding]:
    """How many connections the kernel lets a Mosquitto of this machine have, against those it may be asked for."""
    from cloud_hub.authority import Authority
    from cloud_hub.settings import authority_folder

    folder = authority_folder(settings)
    if not (folder / "ca.key").exists():
        return
    authority = Authority(folder)
    agents = {one.agent for one in authority.standings() if one.kind == "agent" and one.revoked_s is None}
    for home in authority.brokers():
        try:
            process = int((home / "mosquitto.pid").read_text())
            limits = Path(f"/proc/{process}/limits").read_text()
        except (OSError, ValueError):
            continue
        allowed = next((line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")), "")
        is_enough = allowed == "unlimited" or int(allowed or 0) > len(agents) + 100
        yield Finding(
            "broker's open files", is_enough, f"{allowed} for {len(agents)} agents",
            "LimitNOFILE=65536 for mosquitto.service: deploy/systemd/mosquitto.service.d",
        )  # fmt: skip


def _door(settings: "HubSettings") -> Iterator[Finding]:
    host = "127.0.0.1" if settings.http_host in ANY else settings.http_host
    where = f"{host}:{settings.http_port}"
    try:
        socket.create_connection((host, settings.http_port), ANSWER_S).close()
    except OSError as away:
        yield worth_a_look("HTTP", False, f"nobody listens at {where}: {away}", START)
        return
    try:
        status, said = _asked(settings, host, "/readyz")
    except ssl.SSLCertVerificationError as wrong:
        names = " ".join(settings.http_names) or "NAME"
        yield Finding(
            "HTTP", False, f"{where}: {wrong.verify_message}", f"waywarden certify {names}, and restart the hub"
        )
        return
    except (OSError, http.client.HTTPException, ValueError) as wrong:
        yield Finding("HTTP", False, f"{where} does not answer as a hub: {wrong}", START)
        return
    if status == 200:
        yield Finding("HTTP", True, f"{where}: ready")
    elif "standby" in said:
        yield Finding("HTTP", True, f"{where}: stands by")
    else:
        yield Finding("HTTP", False, f"{where}: {status} {said[:200]}", "journalctl -u waywarden-hub says why")


def _asked(settings: "HubSettings", host: str, path: str) -> tuple[int, str]:
    """The status and the words of an answer, by the name people reach the hub under, wherever that leads."""
    name = settings.http_names[0] if settings.http_names else host
    plain = socket.create_connection((host, settings.http_port), ANSWER_S)
    plain.settimeout(ANSWER_S)
    wire: socket.socket = plain
    if settings.http_tls.certificate:
        wire = _believing(settings).wrap_socket(plain, server_hostname=name)
    connection = http.client.HTTPConnection(name, settings.http_port, timeout=ANSWER_S)
    connection.sock = wire
    try:
        key = os.environ.get("WAYWARDEN_KEY", "").strip()
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        return answer.status, answer.read(10_000).decode(errors="replace")
    finally:
        connection.close()


def _believing(settings: "HubSettings") -> ssl.SSLContext:
    """Believes whom the system believes, and our own authority."""
    from cloud_hub.settings import authority_folder

    context = ssl.create_default_context()
    for path in (settings.tls.ca, authority_folder(settings) / "ca.crt"):
        if path and os.access(path, os.R_OK):
            context.load_verify_locations(str(path))
    return context


def _backups(folder: Path) -> Iterator[Finding]:
    yield disk("backups' disk", folder)
    mend = f"waywarden backup {folder}/NAME --settings hub.toml; daily: systemctl enable --now waywarden-backup.timer"
    try:
        made = [(one.stat().st_mtime, one) for one in folder.iterdir() if one.is_file()]
    except OSError as wrong:
        yield unseen("backups", f"{folder}: {wrong.strerror}", f"mkdir -p {folder}, or give the right folder")
        return
    if not made:
        yield worth_a_look("backups", False, f"none in {folder}", mend)
        return
    at_s, newest = max(made)
    days = (time.time() - at_s) / DAY_S
    yield worth_a_look("backups", days < OLD_DAYS, f"{newest} is {days:.1f} days old", mend)
