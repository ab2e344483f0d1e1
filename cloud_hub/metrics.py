"""What the hub counts, as Prometheus reads it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry


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
