"""`cloud-hub ingest`: one more process that takes telemetry into the hub's database, beside the hub or in its place.

It holds no state that another could miss: what it took is in the ledger, and whom it may believe is read from the hub's
rooms. Any number of them share one subscription, and any of them may die at any moment.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import start_http_server

from cloud_hub.enrolment import Enrolment
from cloud_hub.metrics import Counts, lane_levels, registry_of
from cloud_hub.settings import HubSettings, read_hub_settings, tls_of
from cloud_hub.storage import (
    HubStore,
    StoreAway,
    StoreUnknown,
    StoreUnreadable,
    is_postgres,
    open_stores,
    shown_url,
)
from cloud_hub.telemetry import FastLane
from shared.clock import SETTING, Clock, ClockSettingWrong
from shared.logs import log, told
from shared.mqtt import BrokerUrlWrong
from shared.settings import SettingsWrong
from shared.tls import TlsUnusable
from shared.work import AgentId

ASK_AGAIN_S = 2.0
"""How long an agent that was unknown is taken for unknown: it repeats what it said, so a later answer costs nothing."""
MOST_STRANGERS = 10_000
SAY_S = 60.0
"""How often a line says how it goes."""
LOOK_S = 0.2

AGENTS = "agents"


class OneFileOneProcess(ValueError):
    """The store is a file, and a file is for the hub alone."""


class KnownAgents:
    """Whom the hub knows, read from its rooms as they speak; one that enrols later is known within seconds."""

    def __init__(self, store: HubStore, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic_s = monotonic_s
        self._known: set[AgentId] = set()
        self._strangers: dict[AgentId, float] = {}

    def __call__(self, agent: AgentId) -> bool:
        """Whether this agent is ours. While the database is away only those asked for before are."""
        if agent in self._known:
            return True
        now_s = self._monotonic_s()
        if self._strangers.get(agent, 0.0) > now_s:
            return False
        try:
            is_ours = self._store.document(AGENTS, agent) is not None
        except Exception as broken:  # noqa: BLE001 - every kind of database being away; they speak again.
            log("agents_unread", error=told(broken), then="asked again")
            is_ours = False
        if is_ours:
            self._known.add(agent)
            self._strangers.pop(agent, None)
        else:
            if len(self._strangers) >= MOST_STRANGERS:
                self._strangers.clear()
            self._strangers[agent] = now_s + ASK_AGAIN_S
        return is_ours


class Worker:
    """One process's lane, its store and its agents."""

    def __init__(self, settings: HubSettings, clock: Clock) -> None:
        """Raises OneFileOneProcess, StoreUnknown, StoreUnreadable, StoreAway, BrokerUrlWrong or TlsUnusable."""
        if not is_postgres(settings.store):
            raise OneFileOneProcess(
                f"store is '{settings.store}': a file is taken into by the hub alone; cloud-hub ingest needs a "
                "postgresql:// store, the same as the hub's"
            )
        self._hub_store, self._telemetry = open_stores(settings.store)
        known = KnownAgents(self._hub_store)
        # Only where the authority's folder is this machine's too; elsewhere the broker's word must do.
        enrolment = Enrolment(settings, "")
        self.lane = FastLane(
            settings.broker,
            settings.region,
            self._telemetry,
            lambda agent: known(agent) and not enrolment.is_revoked(agent),
            settings.privacy.telemetry_days,
            clock.now_ms,
            is_shared=True,
            tls=tls_of(settings),
        )

    def open(self) -> None:
        """Begin to take telemetry."""
        self.lane.open()

    def close(self) -> None:
        """Commit what waits, and let go of everything."""
        self.lane.close()
        self._telemetry.close()
        self._hub_store.close()

    def counts(self) -> Counts:
        """What it counts, under the same names as the hub's own lane."""
        return Counts(
            {
                "telemetry": ("Telemetry batches taken, repeated and dropped.", self.lane.counts),
                "telemetry_refused": ("Telemetry refused, by name.", self.lane.refused),
            },
            {
                "link_up": ("Whether the broker is within reach.", lambda: {"broker": float(self.lane.is_up)}),
                **lane_levels(self.lane),
            },
        )  # fmt: skip


def ingest(
    settings: Annotated[Path, typer.Option("--settings", help="The hub's settings file (docs/settings.md).")] = Path(
        "hub.toml"
    ),
    metrics_port: Annotated[int, typer.Option(help="Show /metrics on this port of the loopback; 0 for none.")] = 0,
) -> None:
    """Take telemetry into the hub's PostgreSQL beside the hub; run as many as are needed (docs/ingest.md)."""
    try:
        read = read_hub_settings(settings)
        worker = Worker(read, Clock.from_setting(os.environ.get(SETTING)))
        if metrics_port:
            start_http_server(metrics_port, "127.0.0.1", registry_of(worker.counts()))
    except _CANNOT_START as wrong:
        log("ingest_refuses_to_start", why=wrong)
        raise typer.Exit(2) from None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    worker.open()
    log("ingest_up", region=read.region, store=shown_url(read.store), pid=os.getpid())
    said_s = time.monotonic()
    while not stop.wait(LOOK_S) and worker.lane.is_alive:
        if time.monotonic() - said_s >= SAY_S:
            said_s = time.monotonic()
            log("ingest_goes", link_up=worker.lane.is_up, **dict(sorted(worker.lane.counts.copy().items())))
    has_died = not stop.is_set()
    worker.close()
    log("ingest_down", region=read.region, **dict(sorted(worker.lane.counts.items())))
    if has_died:
        raise typer.Exit(70)  # EX_SOFTWARE of sysexits.h: its thread has died of a fault of ours.


_CANNOT_START = (
    SettingsWrong, ClockSettingWrong, OneFileOneProcess, StoreUnknown, StoreUnreadable, StoreAway, BrokerUrlWrong,
    TlsUnusable, OSError,
)  # fmt: skip
