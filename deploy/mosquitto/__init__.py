"""Write the configuration of a Mosquitto that lets each agent say and hear what is its own, and nothing else.

`render` fills a folder with all that `mosquitto -c FOLDER/mosquitto.conf` needs: configuration, access list,
certificates, lists of revoked ones. `reload` has it read lists and access list again while it runs.
"""

import os
import pwd
import shutil
import signal
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from cloud_hub.authority import Authority
from cloud_hub.certificates import write_file
from shared import topics
from shared.mqtt import MOST_IN_FLIGHT
from shared.wire import MOST_BYTES

USER = "mosquitto"
MESSAGE_BYTES = MOST_BYTES + 4096
"""The largest payload: the largest message of ours, and room for what stands around it."""

IN_FLIGHT = 1000
"""To one reader; the ingest's speed over a line of 50 ms is this many messages in 50 ms."""

QUEUED_MESSAGES = 200_000
QUEUED_BYTES = 256_000_000
AUTOSAVE_S = 60
assert IN_FLIGHT >= MOST_IN_FLIGHT


class BrokerPlan(NamedTuple):
    """Where a broker listens and for whom. `names` are those agents know it by; the first one is in their settings."""

    region: str
    names: tuple[str, ...]
    agents_host: str = "0.0.0.0"
    agents_port: int = 8883
    hub_host: str = "127.0.0.1"
    hub_port: int = 8884
    most_connections: int = 10_000


class FolderUnusable(ValueError):
    """The folder cannot hold a broker's configuration."""


def render(folder: Path, plan: BrokerPlan, authority: Authority) -> list[Path]:
    """Fill the folder, make certificates that are missing or near their end, and say what was written.

    As root everything is given to the user Mosquitto drops to, who could not read root's keys. Raises FolderUnusable.
    """
    folder = folder.resolve()
    if any(sign.isspace() for sign in str(folder)):
        raise FolderUnusable(f"{folder} has a space in it, which Mosquitto does not take; choose another folder")
    try:
        written = _write(folder, plan, authority)
    except OSError as wrong:
        raise FolderUnusable(f"{folder} cannot be written: {wrong.strerror}: {wrong.filename}") from None
    authority.remember_broker(folder)
    return written


def configuration(folder: Path, plan: BrokerPlan) -> str:
    """mosquitto.conf for a folder."""
    return (
        resources.files(__name__)
        .joinpath("mosquitto.conf")
        .read_text()
        .format(
            folder=folder,
            user=broker_user(),
            autosave_s=AUTOSAVE_S,
            message_bytes=MESSAGE_BYTES,
            packet_bytes=4 * MESSAGE_BYTES,
            in_flight=IN_FLIGHT,
            queued_messages=QUEUED_MESSAGES,
            queued_bytes=QUEUED_BYTES,
            agents_host=plan.agents_host,
            agents_port=plan.agents_port,
            hub_host=plan.hub_host,
            hub_port=plan.hub_port,
            most_connections=plan.most_connections,
        )
    )


def access_list(region: str) -> str:
    """The access list: who may write and read which topics. What is not named is forbidden.

    Each topic is named in full where it can be: below a wildcard somebody could have the broker keep any number of
    retained messages.
    """
    said = [f"pattern write ww/{region}/%u/up/{carries}" for carries in topics.UP]
    heard = [f"pattern read ww/{region}/%u/down/{carries}" for carries in topics.DOWN]
    public = [f"pattern read {topic}" for topic in (topics.hub_presence(region), topics.ingest_presence(region))]
    return "\n".join(
        [
            "# Written by `waywarden mosquitto`. %u is the name in the certificate.",
            "# An agent speaks where it is the sender and hears where it is the receiver.",
            *said,
            *heard,
            *public,
            "# Trade between agents: trade/GROUP/FROM/TO.",
            "pattern write trade/+/%u/+",
            "pattern read trade/+/+/%u",
            "# The hub's processes, by certificates of an authority of their own.",
            f"user {topics.HUB}",
            f"topic read ww/{region}/+/up/#",
            f"topic write ww/{region}/+/down/#",
            f"topic readwrite ww/{region}/{topics.HUB}/up/#",
            "topic read $SYS/#",
            "",
        ]
    )


def refresh(authority: Authority) -> list[str]:
    """Copy the lists of revoked certificates and the broker's certificate into every broker's folder on this machine
    and have the brokers read them; what could not be done, in words.
    """
    undone = []
    for folder in authority.brokers():
        try:
            _copy_lists(folder, authority)
            _put(folder / "broker.crt", (authority.folder / "broker.crt").read_bytes(), 0o644)
            _put(folder / "broker.key", (authority.folder / "broker.key").read_bytes(), 0o600)
        except OSError as wrong:
            undone.append(
                f"{folder}: {wrong.strerror}; copy ca.crl, hub-ca.crl, broker.crt and broker.key there from "
                f"{authority.folder}"
            )
            continue
        why_not = reload(folder)
        if why_not:
            undone.append(f"{folder}: {why_not}; run: systemctl reload mosquitto")
    return undone


def reload(folder: Path) -> str:
    """Have the Mosquitto of a folder read access list, certificates and revocation lists again (SIGHUP); why it could
    not be told, "" when it was.
    """
    try:
        pid = int((folder / "mosquitto.pid").read_text())
        is_mosquitto = b"mosquitto" in Path(f"/proc/{pid}/cmdline").read_bytes()
        if not is_mosquitto:
            return f"process {pid} of mosquitto.pid is another program: Mosquitto does not run"
        os.kill(pid, signal.SIGHUP)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return "no Mosquitto runs from here"
    except PermissionError:
        return "this user may not signal Mosquitto"
    return ""


def broker_user() -> str:
    """Whom Mosquitto becomes when it is started as root."""
    try:
        return pwd.getpwnam(USER).pw_name
    except KeyError:
        return "nobody"


def program() -> str | None:
    """Where Mosquitto is; None when it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _write(folder: Path, plan: BrokerPlan, authority: Authority) -> list[Path]:
    for path, mode in ((folder, 0o755), (folder / "data", 0o700), (folder / "conf.d", 0o750)):
        path.mkdir(parents=True, exist_ok=True)
        # The hub's user may look whether the lists of revoked certificates are the authority's; keys are 0600.
        path.chmod(mode)
        _give(path)
    certificate, key = authority.server("broker", plan.names)
    authority.process()
    wanted = {
        "mosquitto.conf": (configuration(folder, plan).encode(), 0o640),
        "acl": (access_list(plan.region).encode(), 0o640),
        "broker.crt": (certificate.read_bytes(), 0o644),
        "broker.key": (key.read_bytes(), 0o600),
        "ca.crt": ((authority.folder / "ca.crt").read_bytes(), 0o644),
        "hub-ca.crt": ((authority.folder / "hub-ca.crt").read_bytes(), 0o644),
    }
    written = []
    for name, (content, mode) in wanted.items():
        _put(folder / name, content, mode)
        written.append(folder / name)
    return [*written, *_copy_lists(folder, authority)]


def _copy_lists(folder: Path, authority: Authority) -> list[Path]:
    lists = [folder / "ca.crl", folder / "hub-ca.crl"]
    for path in lists:
        _put(path, (authority.folder / path.name).read_bytes(), 0o644)
    return lists


def _put(path: Path, content: bytes, mode: int) -> None:
    write_file(path, content, mode)
    _give(path)


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(broker_user())
        os.chown(path, user.pw_uid, user.pw_gid)
