"""Bring one agent to life: `edge-agent run --settings FILE`, and `edge-agent check --settings FILE` before that.

This is the only place that knows core and shells alike.
"""

import argparse
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.agent import AgentCore
from edge_agent.clockwork import KernelWatch, is_machine_on_time, known_time_s, lose_if_unknown
from edge_agent.dialogue import DAY_TOPIC, ENTRY_TOPIC
from edge_agent.door import Door
from edge_agent.drivers import DeviceUrlWrong, Driver, open_can, open_gnss, open_scanner
from edge_agent.identity import Identity
from edge_agent.machine import RoomChanged, Stopping
from edge_agent.memory import ClockKept, read_part
from edge_agent.page import CertificateUnusable, Page, PortTaken
from edge_agent.settings import AgentSettings, agent_settings, tls_of, zone_of
from edge_agent.store import SqliteStore, StoreUnusable
from edge_agent.workshop import Workshop
from shared import topics, wire
from shared.clock import SETTING, Clock, ClockSettingWrong
from shared.logs import log
from shared.messages import Presence
from shared.mqtt import BrokerUrlWrong, Link, TlsUnusable
from shared.runner import Runner
from shared.settings import SettingsWrong
from shared.signing import KeyUnreadable, Verifier
from shared.steps import Envelope, Saved
from shared.work import AgentId

if TYPE_CHECKING:
    from edge_agent.enrolment import Renewal

EX_CONFIG = 78
"""The exit status of sysexits.h for settings that cannot be used."""

EX_UNAVAILABLE = 69
"""The exit status of sysexits.h for a hub that does not answer."""

LEAVES_WITHIN_S = 0.6
"""How long devices, link and page may take to close; what they do not manage ends with the process."""

TRAINED = Path(__file__).parent / "trained"


class Agent:
    """One agent's process: core, store, link, devices, page."""

    def __init__(self, settings: AgentSettings, clock: Clock) -> None:
        """Raises what `PROBLEMS` lists when something cannot be used."""
        agent = AgentId(settings.agent)
        verifier = Verifier(settings.hub_public_key)
        self._workshop = Workshop(Path(settings.models) if settings.models else TRAINED)
        self._store = SqliteStore(Path(settings.store))
        saved = self._store.saved()
        _judge(clock, settings, saved)
        identity = Identity(
            agent=agent,
            region=settings.region,
            boot=self._store.boot,
            life=secrets.token_hex(8),
            kind=settings.kind,
            version=_version(),
            zone=zone_of(settings.time_zone),
            clock_speed=clock.speed,
            is_dated=clock.is_dated,
            outbox_bytes=settings.outbox_mb * 1_000_000,
        )
        self.core = AgentCore(identity, saved)
        self.runner = Runner(self.core, self._store, clock, self._send, self._workshop.do)
        self._store.tell_room = lambda is_tight: self.runner.post(RoomChanged(is_tight))
        self._watch = None
        if not clock.is_dated and settings.clock == "auto":
            self._watch = KernelWatch(clock, self.runner.post)
        self._door = Door(settings.region, agent, verifier, self.runner.post)
        gone = Presence(agent, is_there=False, life=identity.life, boot=identity.boot)
        presence = topics.up(settings.region, agent, "presence")
        self._farewell = Envelope(presence, wire.encode(gone), topics.QOS["presence"], is_retained=True)
        self._link = Link(
            settings.broker,
            f"{settings.region}-{agent}",
            topics.heard_by_agent(settings.region, agent),
            self._door.hear,
            will=self._farewell,
            tls=tls_of(settings, partial(is_machine_on_time, clock)),
        )
        self._renewal = _renewal(settings, clock, self._link.return_anew)
        self._drivers = _drivers(settings, clock, self.runner.post)
        self.page = Page(
            settings.page_host,
            settings.page_port,
            self.runner.ask,
            clock.now_ms,
            zone_of(settings.time_zone),
            settings.page_certificate,
            settings.page_key,
        )
        self.page.more_counters = self._counters
        self._model = self._workshop.model

    def run(self) -> None:
        """Work until `stop`, or until a commit fails: then the process ends and wakes from disk."""
        if self._store.is_tight:
            self.runner.post(RoomChanged(is_tight=True))
        self.page.start()
        for driver in self._drivers:
            driver.start()
        self._link.open()
        if self._watch is not None:
            self._watch.start()
        if self._renewal is not None:
            self._renewal.start()
        log(
            "agent_started",
            agent=self.core.identity.agent,
            boot=self.core.identity.boot,
            life=self.core.identity.life,
            page=self.page.port,
            model=self._model,
        )
        try:
            self.runner.run()
        finally:
            self._leave()

    def _leave(self) -> None:
        """What matters first: the store is whole. Then whoever listens is told, and nothing is waited for long: the
        ignition is off and the power may go.
        """
        self._store.close()
        self._link.publish(self._farewell)
        ends: list[Callable[[], None]] = [self._link.close, self.page.stop]
        ends += [driver.stop for driver in self._drivers]
        ends += [part.stop for part in (self._renewal, self._watch) if part is not None]
        threads = [threading.Thread(target=end, name="end", daemon=True) for end in ends]
        for thread in threads:
            thread.start()
        deadline_s = time.monotonic() + LEAVES_WITHIN_S
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        log("agent_stopped", agent=self.core.identity.agent)

    def stop(self) -> None:
        """Let `run` return once what waits is taken and what is worth keeping is written down."""
        self.runner.post(Stopping())
        self.runner.stop()

    def _send(self, envelope: Envelope) -> bool:
        if envelope.topic == DAY_TOPIC:
            self.page.show(envelope.payload)
            return True
        if envelope.topic == ENTRY_TOPIC:
            self.page.admit(envelope.payload)
            return True
        return self._link.publish(envelope)

    def _counters(self) -> dict[str, int]:
        found = {f"refused_{name}": count for name, count in sorted(self._door.refused.items())}
        found |= {f"refused_by_broker_{name}": count for name, count in sorted(self._link.refused.items())}
        for driver in self._drivers:
            health = driver.health()
            name = type(driver).__name__
            found[f"{name}_readings"] = health.readings
            found[f"{name}_is_listening"] = int(health.is_listening)
            found |= {f"refused_{name}_{why}": count for why, count in sorted(health.refused.items())}
        return found


PROBLEMS = (
    SettingsWrong,
    ClockSettingWrong,
    KeyUnreadable,
    BrokerUrlWrong,
    DeviceUrlWrong,
    StoreUnusable,
    PortTaken,
    CertificateUnusable,
    TlsUnusable,
)


def _judge(clock: Clock, settings: AgentSettings, saved: Saved) -> None:
    """Whether the clock is to be believed, by what the store remembers."""
    kept = read_part(saved.get("agent", {}), "clock", ClockKept)
    is_given = bool(os.environ.get(SETTING))
    lose_if_unknown(clock, 0 if kept is None else kept.last_ms, is_given, settings.clock == "unknown_at_start")
    if not clock.is_dated:
        log("clock_unknown", goes_on_from_ms=clock.now_ms(), then="nothing undated leaves until the time is found")


def _renewal(settings: AgentSettings, clock: Clock, renewed: Callable[[], None]) -> "Renewal | None":
    tls = tls_of(settings, partial(is_machine_on_time, clock))
    if tls is None or not settings.hub:
        return None
    from edge_agent.enrolment import Renewal  # Its parts are memory an agent without certificates does not need.

    return Renewal(settings.hub, tls, renewed, partial(known_time_s, clock))


def _drivers(settings: AgentSettings, clock: Clock, post: Callable[[Any], None]) -> list[Driver]:
    found = []
    if settings.gnss:
        found.append(open_gnss(settings.gnss, clock.now_ms, post))
    if settings.can:
        found.append(open_can(settings.can, settings.can_profile, clock.now_ms, post))
    if settings.scanner:
        found.append(open_scanner(settings.scanner, clock.now_ms, post))
    return found


def _version() -> str:
    try:
        return version("waywarden")
    except PackageNotFoundError:
        return "unpackaged"


def run(path: Path) -> int:
    """Run the agent of a settings file until SIGTERM or SIGINT; the exit status."""
    try:
        settings = agent_settings(path)
        agent = Agent(settings, Clock.from_setting(os.environ.get(SETTING)))
    except PROBLEMS as problem:
        log("agent_refused", because=f"{type(problem).__name__}: {problem}")
        return EX_CONFIG
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    threading.current_thread().name = "steps"
    agent.run()
    return 0


def check(path: Path) -> int:
    """Say whether the agent of a settings file could run here, without opening devices or the broker."""
    try:
        settings = agent_settings(path)
        clock = Clock.from_setting(os.environ.get(SETTING))
        Verifier(settings.hub_public_key)
        tls = tls_of(settings)
        if tls is not None:
            tls.context()
        _drivers(settings, clock, lambda _: None)
        workshop = Workshop(Path(settings.models) if settings.models else TRAINED)
        store = SqliteStore(Path(settings.store))
    except PROBLEMS as problem:
        print(f"not ready: {problem}")
        return EX_CONFIG
    waiting = len(store.saved().get("outbox", {}))
    store.close()
    print(f"ready: {settings.agent} in {settings.region}, model {workshop.model}, {waiting} messages wait for the hub")
    return 0


def enrol(hub: str, token: str, path: Path) -> int:
    """Make this machine an agent; the exit status."""
    from edge_agent.enrolment import EnrolmentRefused, HubOutOfReach
    from edge_agent.enrolment import enrol as become

    try:
        answered = become(hub, token, path)
    except (EnrolmentRefused, HubOutOfReach, OSError) as wrong:
        print(f"not enrolled: {wrong}")
        return EX_UNAVAILABLE if isinstance(wrong, HubOutOfReach) else EX_CONFIG
    print(f"enrolled: {answered.agent} in {answered.region}, broker {answered.broker}; settings in {path}")
    return 0


class _Sentences(logging.Handler):
    """What drivers and libraries log, in the form of our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        log(record.getMessage().partition(" ")[0], **{"from": record.name}, said=record.getMessage().partition(" ")[2])


COMMANDS = {
    "run": "run the agent until it is told to stop",
    "check": "say whether it could run",
    "enrol": "make this machine an agent, by a token from the hub",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `edge-agent`."""
    logging.basicConfig(handlers=[_Sentences()], level=logging.WARNING)
    logging.getLogger("edge_agent").setLevel(logging.INFO)
    parser = argparse.ArgumentParser(prog="edge-agent", description="The agent that rides on a van.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in COMMANDS.items():
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("--settings", type=Path, required=True, help="a TOML file; docs/settings.md lists it all")
        if name == "enrol":
            command.add_argument("--hub", required=True, help="where the hub answers: https://HOST")
            command.add_argument("--token", required=True, help="what `waywarden enrol AGENT` printed at the hub")
    asked = parser.parse_args(arguments)
    if asked.command == "enrol":
        return enrol(asked.hub, asked.token, asked.settings)
    return run(asked.settings) if asked.command == "run" else check(asked.settings)


if __name__ == "__main__":
    sys.exit(main())
