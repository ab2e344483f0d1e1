"""What one agent is told when it is installed: who it is, whom it talks to, which devices it reads."""

import re
from collections.abc import Callable
from datetime import UTC, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from shared.mqtt import BrokerUrlWrong, broker_address
from shared.settings import SettingsWrong, read_settings
from shared.tls import Tls, TlsUnusable, known, tls_from
from shared.topics import HUB

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class AgentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent's settings. A device left empty is a device the machine does not have.

    `hub_public_key` is the hub's Ed25519 key in hexadecimal: commands signed by anybody else are refused. `store` is
    the file the agent remembers everything in. `models` names another folder of trained models than the one shipped.
    `outbox_mb` is how much may wait for the hub, in memory too; `clock` is "unknown_at_start" on a machine whose clock
    is not to be believed before somebody tells it the time. `time_zone` is an IANA name or an offset such as +02:00;
    models read the local hour. `page_host` opens the page to others than this machine; the plan's shift code then keeps
    out who merely has the van's Wi-Fi in reach.
    `tls_ca`, `tls_certificate` and `tls_key` are PEM files by which this agent and its broker know each other, `hub` is
    where the certificate is renewed; `edge-agent enrol` sets all four. `page_certificate` and `page_key` are PEM files:
    with them the page is served over TLS, which phones want before they lend it their camera or keep it like an app.
    """

    agent: Name
    broker: str
    hub_public_key: Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]
    store: str
    region: Name = "main"
    kind: Literal["vehicle"] = "vehicle"
    page_host: str = "127.0.0.1"
    page_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8001
    page_certificate: str = ""
    page_key: str = ""
    hub: str = ""
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    gnss: str = ""
    can: str = ""
    can_profile: Literal["obd2", "j1939"] = "obd2"
    scanner: str = ""
    models: str = ""
    time_zone: str = "UTC"
    outbox_mb: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 5
    clock: Literal["auto", "unknown_at_start"] = "auto"


def agent_settings(path: Path) -> AgentSettings:
    """The settings of a file, checked as far as reading them can. Raises SettingsWrong naming what is wrong."""
    settings = read_settings(path, AgentSettings)
    if settings.agent == HUB:
        raise SettingsWrong(f"{path}: agent is '{HUB}', which is the hub's own name; expected another, as in van-1")
    if settings.page_key and not settings.page_certificate:
        raise SettingsWrong(f"{path}: page_key is set and page_certificate is not; expected both, or neither")
    try:
        zone_of(settings.time_zone)
    except ValueError as wrong:
        raise SettingsWrong(f"{path}: {wrong}") from None
    try:
        if broker_address(settings.broker).is_tls and tls_of(settings) is None:
            raise TlsUnusable(f"broker is '{settings.broker}', expected tls_ca, tls_certificate and tls_key")
    except (BrokerUrlWrong, TlsUnusable) as wrong:
        raise SettingsWrong(f"{path}: {wrong}; edge-agent enrol writes them") from None
    if settings.hub and not re.match(r"https?://[^/]", settings.hub):
        raise SettingsWrong(f"{path}: hub is '{settings.hub}', expected https://HOST")
    return settings


def tls_of(settings: AgentSettings, is_time_known: Callable[[], bool] = known) -> Tls | None:
    """What the link proves itself by; None when the settings name nothing. Raises TlsUnusable."""
    return tls_from(settings.tls_ca, settings.tls_certificate, settings.tls_key, is_time_known)


def zone_of(text: str) -> tzinfo:
    """The time zone of an IANA name or of an offset such as +02:00; raises ValueError saying what was expected."""
    if text == "UTC":
        return UTC
    offset = re.fullmatch(r"([+-])(\d\d):(\d\d)", text)
    if offset is not None and int(offset[2]) <= 14 and int(offset[3]) < 60:
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(ahead if offset[1] == "+" else -ahead)
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"time_zone is '{text}', expected a name such as Europe/Helsinki or an offset such as +02:00"
        ) from None
