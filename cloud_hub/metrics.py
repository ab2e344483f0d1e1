"""What the hub counts, as Prometheus reads it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

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
