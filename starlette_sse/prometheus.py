"""What happens, as metrics of prometheus_client."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from starlette_sse.exceptions import ConfigurationError, MissingDependencyError
from starlette_sse.metrics import DURATION, DURATION_BOUNDS, METRICS, Counting, Labels, Metric

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Histogram
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector
except ImportError as exc:  # pragma: no cover - the tests run it in a process that hides the library
    raise MissingDependencyError(
        'PrometheusObserver needs prometheus_client: pip install "starlette_sse[prometheus]"'
    ) from exc

__all__ = ["PrometheusObserver"]

#: What Prometheus writes behind a name for OpenTelemetry's units.
SUFFIXES = {"s": "_seconds", "By": "_bytes"}

#: Either of them switches on prometheus_client's multi-process mode.
MULTIPROCESS = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


class PrometheusObserver(Counting, Collector):
    """Shows what happens in this process at its registry's next scrape.

    Make one, and give it to every endpoint and broker: ``observers = (StructlogObserver(), metrics)``. A scrape may
    come from any thread; it takes less than a microsecond for each open stream, and a delivery takes nothing.

    :param registry: where the metrics are shown; None: prometheus_client's own ``REGISTRY``.
    :param namespace: what the metrics' names begin with.
    :raises ConfigurationError: ``registry`` is not a ``CollectorRegistry``, or has these metrics already;
        ``namespace`` cannot begin a name; or prometheus_client is in its multi-process mode, which leaves out what is
        counted at a scrape, and no registry was given.
    """

    def __init__(self, registry: CollectorRegistry | None = None, namespace: str = "starlette_sse") -> None:
        super().__init__()
        check_namespace(namespace)
        self._names = {metric: name_of(metric, namespace) for metric in METRICS}
        self._durations = Histogram(
            name_of(DURATION, namespace),
            DURATION.description,
            labels_of(DURATION),
            registry=None,
            buckets=DURATION_BOUNDS,
        )
        chosen = default_registry() if registry is None else registry
        if not isinstance(chosen, CollectorRegistry):
            raise ConfigurationError(f"registry must be a prometheus_client.CollectorRegistry or None, not {chosen!r}")
        try:
            chosen.register(self)
        except ValueError as exc:
            raise ConfigurationError(
                f"the registry has metrics of the namespace {namespace!r} already. Make one PrometheusObserver and "
                "share it: it may watch every endpoint and broker. Or give this one a registry or namespace of its own"
            ) from exc

    def collect(self) -> Iterator[Family]:
        """Return the metrics as they are now; the registry calls it for each scrape."""
        values = self.read_all()
        for metric in METRICS:
            family = self._family(metric)
            for labels, value in values[metric].items():
                family.add_metric(labels, value)
            yield family
        yield from self._durations.collect()

    def describe(self) -> Iterator[Family]:
        """Return the metrics without values; the registry calls it to find names that it has already."""
        yield from map(self._family, METRICS)
        yield from self._durations.describe()

    def lasted(self, endpoint: str, seconds: float) -> None:
        self._durations.labels(endpoint).observe(seconds)

    def _family(self, metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
        family = GaugeMetricFamily if metric.falls else CounterMetricFamily
        return family(self._names[metric], metric.description, labels=labels_of(metric))


def name_of(metric: Metric, namespace: str) -> str:
    """Return a metric's name without what its type adds, as OpenTelemetry's exporters for Prometheus would make it."""
    return f"{namespace}_{metric.name.replace('.', '_')}{SUFFIXES.get(metric.unit, '')}"


def labels_of(metric: Metric) -> Labels:
    """Return the names of a metric's labels, which need not be unique beyond it."""
    return tuple(label.rpartition(".")[2] for label in metric.labels)


def check_namespace(namespace: str) -> None:
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", namespace):
        raise ConfigurationError(f"namespace must be of letters, digits and underscores, not {namespace!r}")


def default_registry() -> CollectorRegistry:
    for name in MULTIPROCESS:
        if name in os.environ:
            raise ConfigurationError(
                f"prometheus_client is in its multi-process mode ({name} is set), which shows nothing of "
                "PrometheusObserver. Give it a registry of its own and scrape each process, or use "
                "OpenTelemetryObserver, by which each process exports for itself"
            )
    return REGISTRY
