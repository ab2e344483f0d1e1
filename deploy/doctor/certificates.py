"""Look at the certificates a hub or an agent stands on, and name for each that is wrong the line that mends it."""

import os
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.doctor.findings import Finding, unseen
from shared.mqtt import broker_address
from shared.tls import Tls, TlsUnusable

if TYPE_CHECKING:
    from cloud_hub.authority import Authority
    from cloud_hub.settings import HubSettings
    from edge_agent.settings import AgentSettings

DAY_S = 86_400
SOON_DAYS = 14
"""An agent renews a month before the end; one that is so near it has tried in vain for two weeks."""

PATIENCE_S = 5.0


def of_hub(settings: "HubSettings", file: Path) -> Iterator[Finding]:
    """What a hub's certificates are like: its own, the broker's, HTTPS, revocation lists, its agents'."""
    from cloud_hub.authority import Authority, AuthorityUnusable
    from cloud_hub.settings import authority_folder, tls_of

    at = f"--settings {file}"
    folder = authority_folder(settings)
    if (folder / "ca.key").exists():
        try:
            yield from _authority(Authority(folder), at)
        except AuthorityUnusable as wrong:
            yield Finding("authority", False, str(wrong), f"waywarden restore puts {folder} back from a backup")
    elif settings.broker.startswith("mqtts:"):
        yield Finding(
            "authority", True, f"{folder} is not here: it is on another machine, where agents are enrolled and revoked"
        )
    tls = tls_of(settings)
    if tls is not None:
        yield from _files("hub's certificate", tls, f"waywarden renew {at}", time.time())
        yield broker(settings.broker, tls, f"waywarden mosquitto FOLDER --name NAME {at}")
    if settings.http_tls.certificate:
        certificate, key = settings.http_tls.certificate, settings.http_tls.key
        names = " ".join(settings.http_names or (settings.http_host,))
        yield _life("HTTPS certificate", certificate, f"waywarden certify {names} {at}", time.time())
        yield _names("HTTPS certificate's names", certificate, settings.http_names, f"waywarden certify {names} {at}")
        yield _privacy("HTTPS key", key)


def of_agent(settings: "AgentSettings", file: Path) -> Iterator[Finding]:
    """What an agent's certificates are like: its own, and the broker's."""
    from edge_agent.settings import tls_of

    tls = tls_of(settings)
    if tls is None:
        return
    mend = f"edge-agent enrol --hub {settings.hub or 'https://HUB'} --token TOKEN --settings {file}"
    yield from _files("agent's certificate", tls, mend, time.time())
    yield broker(settings.broker, tls, "waywarden mosquitto FOLDER --name NAME, at the hub")
    if not settings.hub:
        yield Finding(
            "renewal", False, "hub is not set: the certificate ends one day", f'set hub = "https://HUB" in {file}'
        )


def broker(url: str, tls: Tls, mend: str) -> Finding:
    """Whether the broker proves itself under the name we call it by, and until when."""
    what = "broker's certificate"
    host, port, is_tls = broker_address(url)
    if not is_tls:
        return Finding(what, False, f"{url} is spoken to without TLS", "give broker = mqtts://HOST:8883")
    try:
        context = tls.context()
        with (
            socket.create_connection((host, port), PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as wire,
        ):
            wire.settimeout(0.5)
            shown = wire.getpeercert() or {}
            refused = _refused(wire)
    except ssl.SSLCertVerificationError as wrong:
        return Finding(what, False, f"{url}: {wrong.verify_message}", mend)
    except TlsUnusable as wrong:
        return Finding(what, False, str(wrong), mend)
    except (OSError, ssl.SSLError) as away:
        return Finding(what, False, f"{url} does not answer: {away}", "systemctl restart mosquitto")
    if refused:
        return Finding(what, False, f"{url} does not take ours: {refused}", "waywarden agents tells; enrol it anew")
    ends_s = ssl.cert_time_to_seconds(str(shown["notAfter"]))
    days = (ends_s - time.time()) / DAY_S
    return Finding(what, days > SOON_DAYS, f"{url}: good, {days:.0f} days left", mend)


def _authority(authority: "Authority", at: str) -> Iterator[Finding]:
    from cloud_hub import certificates

    ca = certificates.read_certificate(authority.ca_pem.encode())
    days = (ca.not_valid_after_utc.timestamp() - time.time()) / DAY_S
    yield Finding("authority", days > 365, f"{days:.0f} days left", "found a new one and enrol every agent anew")
    for name in ("ca.key", "hub-ca.key", "register.sqlite"):
        yield _privacy(f"authority's {name}", str(authority.folder / name))
    for folder in authority.brokers():
        yield _lists(authority, folder, at)
    newest = {one.agent: one for one in authority.standings() if one.kind == "agent" and one.revoked_s is None}
    ending = {agent: (one.ends_s - time.time()) / DAY_S for agent, one in newest.items()}
    late = {agent: days for agent, days in sorted(ending.items()) if days < SOON_DAYS}
    if not late:
        yield Finding("agents' certificates", True, f"{len(newest)} hold")
    for agent, days in late.items():
        found = f"ends in {days:.0f} days and was not renewed" if days > 0 else f"ended {-days:.0f} days ago"
        mend = f"look why {agent} does not reach the hub, or: waywarden enrol {agent} {at}"
        yield Finding(f"certificate of {agent}", False, found, mend)


def _lists(authority: "Authority", folder: Path, at: str) -> Finding:
    what = f"revocation lists in {folder}"
    mend = f"waywarden mosquitto {folder} --name NAME {at}"
    for name in ("ca.crl", "hub-ca.crl"):
        try:
            if (folder / name).read_bytes() != (authority.folder / name).read_bytes():
                return Finding(what, False, f"{name} is not the authority's: who was revoked may get in", mend)
        except PermissionError:
            return unseen(what, f"this user may not read {folder}", f"sudo waywarden doctor {at}")
        except OSError as wrong:
            return Finding(what, False, f"{name}: {wrong.strerror}", mend)
    return Finding(what, True, "as the authority wrote them")


def _files(what: str, tls: Tls, mend: str, now_s: float) -> Iterator[Finding]:
    try:
        tls.context()
    except TlsUnusable as wrong:
        yield Finding(what, False, str(wrong), mend)
        return
    yield _life(what, tls.certificate, mend, now_s)
    yield _privacy(f"{what.partition(' ')[0]} key", tls.key)


def _life(what: str, path: str, mend: str, now_s: float) -> Finding:
    try:
        begins_s, ends_s = span(Path(path).read_bytes())
    except (OSError, ValueError) as wrong:
        return Finding(what, False, f"{path}: {wrong}", mend)
    if begins_s > now_s:
        return Finding(what, False, f"begins in {(begins_s - now_s) / DAY_S:.0f} days", "set this machine's clock")
    days = (ends_s - now_s) / DAY_S
    return Finding(what, days > SOON_DAYS, f"{days:.0f} days left" if days > 0 else f"ended {-days:.0f} days ago", mend)


def span(pem: bytes) -> tuple[float, float]:
    """When a certificate begins and ends, in seconds since 1970. Raises ValueError when it is none."""
    try:
        from edge_agent.enrolment import life_of
    except ImportError:  # A hub's machine has another library for this than an agent's.
        from cloud_hub.certificates import read_certificate

        read = read_certificate(pem)
        return read.not_valid_before_utc.timestamp(), read.not_valid_after_utc.timestamp()
    return life_of(pem)


def _names(what: str, path: str, wanted: tuple[str, ...], mend: str) -> Finding:
    from cloud_hub import certificates

    try:
        names = certificates.alternative_names(certificates.read_certificate(Path(path).read_bytes()))
    except (OSError, certificates.CertificateWrong) as wrong:
        return Finding(what, False, f"{path}: {wrong}", mend)
    missing = [name for name in wanted if name not in names]
    found = ", ".join(names) + (f"; not {', '.join(missing)}" if missing else "")
    return Finding(what, not missing, found, mend)


def _privacy(what: str, path: str) -> Finding:
    try:
        found = os.stat(path)
    except OSError as wrong:
        return Finding(what, False, f"{path}: {wrong.strerror}", "give the right path")
    mode = stat.S_IMODE(found.st_mode)
    return Finding(what, not mode & 0o077, f"{path} is {mode:03o}", f"chmod 600 {path}")


def _refused(wire: ssl.SSLSocket) -> str:
    """Why the broker does not take our certificate, which in TLS 1.3 it says after the handshake; "" when it does."""
    try:
        wire.recv(1)
    except TimeoutError:
        return ""
    except (ssl.SSLError, OSError) as wrong:
        return str(getattr(wrong, "reason", None) or wrong)
    return "it ended the connection"
