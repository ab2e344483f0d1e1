"""What the hub counts, as Prometheus reads it."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud_hub.authority import Authority
from cloud_hub.certificates import read_certificate
from cloud_hub.fleet import DeadLetter
from cloud_hub.settings import HubSettings, authority_folder
from cloud_hub.storage import HubStore, TelemetryStore
from cloud_hub.telemetry import FastLane
from shared.logs import log, told

LOOK_EVERY_S = 30.0
DAY_S = 86_400

MOST_LETTERS = 10_000
"""Dead letters of telemetry that are counted."""

COMMIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds of the histogram of commits: a local disk takes some milliseconds, a database in another house some tens."""


class Counts(Collector):
    """Counters kept elsewhere as plain Counters, each family with one label, and gauges asked for when read."""

    def __init__(
        self,
        counters: Mapping[str, tuple[str, Counter[str]]],
        gauges: Mapping[str, tuple[str, Callable[[], Mapping[str, float]]]],
    ) -> None:
        """Both map a metric's name to its help text and where its values are, by label value."""
        self._counters = counters
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """The families, freshly read."""
        for name, (help_text, counter) in self._counters.items():
            counted = CounterMetricFamily(f"waywarden_hub_{name}", help_text, labels=["what"])
            for what, count in sorted(counter.copy().items()):
                counted.add_metric([what], count)
            yield counted
        for name, (help_text, ask) in self._gauges.items():
            gauge = GaugeMetricFamily(f"waywarden_hub_{name}", help_text, labels=["what"])
            for what, level in sorted(ask().items()):
                gauge.add_metric([what], level)
            yield gauge


class Looked:
    """Levels that take a look into the database: looked up at most so often, for whoever asks more often."""

    def __init__(self, look: Callable[[], Mapping[str, float]], every_s: float = LOOK_EVERY_S) -> None:
        """What `look` raises leaves the levels as they were last."""
        self._look = look
        self._every_s = every_s
        self._levels: Mapping[str, float] = {}
        self._looked_s = -math.inf
        self._lock = threading.Lock()

    def __call__(self) -> Mapping[str, float]:
        """The levels by label value."""
        with self._lock:
            if time.monotonic() - self._looked_s >= self._every_s:
                self._looked_s = time.monotonic()
                try:
                    self._levels = self._look()
                except Exception as away:  # noqa: BLE001 - a page of figures must not fail with one of them.
                    log("metrics_look_failed", error=told(away), then="the last figures are shown")
            return self._levels


def registry_of(counts: Counts) -> CollectorRegistry:
    """A registry with these counts and nothing else."""
    registry = CollectorRegistry()
    registry.register(counts)
    return registry


def commit_seconds(registry: CollectorRegistry) -> Histogram:
    """A histogram in this registry of how long the core's commits take."""
    return Histogram(
        "waywarden_hub_commit_seconds", "How long commits of the core took.", buckets=COMMIT_S, registry=registry
    )


def metrics_page(registry: CollectorRegistry) -> ASGIApp:
    """A page that shows this registry, for as long as there is no other."""

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)(scope, receive, send)

    return page


def lane_levels(lane: FastLane) -> dict[str, tuple[str, Callable[[], Mapping[str, float]]]]:
    """Gauges of a lane of telemetry, the hub's own or another process's."""
    return {
        "telemetry_waiting_bytes": (
            "What came and waits for its commit.", lambda: {"telemetry": float(lane.waiting_bytes)}
        ),
        "telemetry_lag_seconds": (
            "How old the newest sample of the last commit was.", lambda: {"telemetry": lane.lag_s}
        ),
    }  # fmt: skip


def certificate_days(settings: HubSettings) -> dict[str, float]:
    """Days until certificates end: the hub's own, that of its HTTPS, and, where the authority is, its own and the one
    of an agent that ends first. What is not there is left out.
    """
    ends_s = {}
    for name, path in (("hub", settings.tls.certificate), ("https", settings.http_tls.certificate)):
        if path:
            ends_s[name] = read_certificate(Path(path).read_bytes()).not_valid_after_utc.timestamp()
    folder = authority_folder(settings)
    if (folder / "ca.key").exists():
        authority = Authority(folder)
        ends_s["authority"] = read_certificate(authority.ca_pem.encode()).not_valid_after_utc.timestamp()
        # By agent and age: of each the newest stays.
        newest = {
            one.agent: one.ends_s for one in authority.standings() if one.kind == "agent" and one.revoked_s is None
        }
        if newest:
            ends_s["agents"] = min(newest.values())
    return {name: (end_s - time.time()) / DAY_S for name, end_s in ends_s.items()}


def store_levels(
    store: HubStore, telemetry: TelemetryStore
) -> dict[str, tuple[str, Callable[[], Mapping[str, float]]]]:
    """Gauges of what lies in the stores, each looked up at most every LOOK_EVERY_S."""
    return {
        "dead_letters": (
            "Dead letters by what people made of them; those of telemetry wait for nobody.",
            Looked(lambda: _letters(store, telemetry)),
        ),
        "gaps": (
            "Gaps in the streams of agents, by agent.",
            Looked(lambda: Counter(key.partition("/")[0] for key, _ in store.documents("gaps"))),
        ),
        "store_failures": (
            "Background work of the database that failed.",
            Looked(lambda: dict.fromkeys(telemetry.failures(), 1.0)),
        ),
        "store_notices": ("What the database lacks.", Looked(lambda: dict.fromkeys(telemetry.notices(), 1.0))),
    }


def _letters(store: HubStore, telemetry: TelemetryStore) -> dict[str, float]:
    letters = (msgspec.json.decode(letter, type=DeadLetter) for _, letter in store.documents("dead_letters"))
    levels: dict[str, float] = {"waiting": 0.0, **Counter(letter.state for letter in letters)}
    return levels | {"telemetry": float(len(telemetry.dead_letters(MOST_LETTERS)))}
