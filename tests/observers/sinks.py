"""What users see of an observer, read from the real libraries, with one name for each metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric, Sum
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from starlette_sse.metrics import Counting
from starlette_sse.opentelemetry import OpenTelemetryObserver
from starlette_sse.prometheus import PrometheusObserver

__all__ = ["NAMES", "OpenTelemetrySink", "PrometheusSink", "Sink", "samples"]

#: How a metric is called here: its names in Prometheus and OpenTelemetry, and the latter's unit and attributes.
NAMES: Mapping[str, tuple[str, str, str, tuple[str, ...]]] = {
    "open": ("starlette_sse_stream_open", "starlette_sse.stream.open", "{stream}", ("endpoint",)),
    "opened": ("starlette_sse_stream_opened_total", "starlette_sse.stream.opened", "{stream}", ("endpoint",)),
    "ended": ("starlette_sse_stream_ended_total", "starlette_sse.stream.ended", "{stream}", ("endpoint", "end.reason")),
    "events": ("starlette_sse_stream_events_total", "starlette_sse.stream.events", "{event}", ("endpoint",)),
    "bytes": ("starlette_sse_stream_sent_bytes_total", "starlette_sse.stream.sent", "By", ("endpoint",)),
    "pings": ("starlette_sse_stream_pings_total", "starlette_sse.stream.pings", "{ping}", ("endpoint",)),
    "rejected": (
        *("starlette_sse_stream_rejected_total", "starlette_sse.stream.rejected", "{request}"),
        ("endpoint", "rejection.reason"),
    ),
    "failures": (
        *("starlette_sse_stream_failures_total", "starlette_sse.stream.failures", "{failure}"),
        ("endpoint", "failure.during"),
    ),
    "duration": ("starlette_sse_stream_duration_seconds", "starlette_sse.stream.duration", "s", ("endpoint",)),
    "published": ("starlette_sse_broker_events_total", "starlette_sse.broker.events", "{event}", ()),
    "published bytes": ("starlette_sse_broker_published_bytes_total", "starlette_sse.broker.published", "By", ()),
    "subscriptions": (
        *("starlette_sse_broker_subscriptions_total", "starlette_sse.broker.subscriptions", "{subscription}"),
        (),
    ),
    "lags": ("starlette_sse_broker_lags_total", "starlette_sse.broker.lags", "{lag}", ("lag.policy",)),
    "resets": ("starlette_sse_broker_resets_total", "starlette_sse.broker.resets", "{reset}", ("reset.reason",)),
    "down": ("starlette_sse_broker_backend_down", "starlette_sse.broker.backend.down", "{backend}", ()),
    "outages": ("starlette_sse_broker_backend_outages_total", "starlette_sse.broker.backend.outages", "{outage}", ()),
    "downtime": (
        *("starlette_sse_broker_backend_downtime_seconds_total", "starlette_sse.broker.backend.downtime", "s"),
        (),
    ),
}

#: The values of one metric by those of its labels: a number, or of a histogram the count, the sum and the bounds
#: between which there is something.
Values: TypeAlias = dict[tuple[str, ...], Any]


class Sink(ABC):
    """An observer, and what its library shows of it."""

    observer: Counting

    @abstractmethod
    def read(self) -> dict[str, Values]:
        """Collect, and return every metric by its name here; one without values is empty."""

    @abstractmethod
    def label_values(self) -> set[str]:
        """Collect, and return what stands in whatever label."""


class PrometheusSink(Sink):
    """A registry of its own, read as Prometheus does."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.observer = PrometheusObserver(self.registry)

    def read(self) -> dict[str, Values]:
        found = samples(generate_latest(self.registry).decode())
        return {short: self._values(found, name, labels) for short, (name, _, _, labels) in NAMES.items()}

    def label_values(self) -> set[str]:
        found = samples(generate_latest(self.registry).decode())
        return {
            value for values in found.values() for labels, _ in values for key, value in labels.items() if key != "le"
        }

    def _values(self, found: Mapping[str, Any], name: str, labels: tuple[str, ...]) -> Values:
        names = [label.rpartition(".")[2] for label in labels]
        if not name.endswith("_duration_seconds"):
            return {values_of(sample, names): value for sample, value in found.get(name, ())}
        shown: Values = {}
        for sample, count in found.get(f"{name}_count", ()):
            (total,) = [value for other, value in found[f"{name}_sum"] if other == sample]
            bounds = [
                (float(other["le"]), value)
                for other, value in found[f"{name}_bucket"]
                if sample.items() <= other.items()
            ]
            lower = max([bound for bound, value in bounds if not value], default=0.0)
            upper = min(bound for bound, value in bounds if value == count)
            shown[values_of(sample, names)] = (count, total, lower, upper)
        return shown


class OpenTelemetrySink(Sink):
    """A meter of the SDK with a reader of its own."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meter = MeterProvider([self.reader]).get_meter("test")
        self.observer = OpenTelemetryObserver(self.meter)

    def read(self) -> dict[str, Values]:
        found = {metric.name: metric for metric in self._metrics()}
        assert found.keys() <= {name for _, name, _, _ in NAMES.values()}
        return {
            short: self._values(found[name], short, unit, labels) if name in found else {}
            for short, (_, name, unit, labels) in NAMES.items()
        }

    def label_values(self) -> set[str]:
        points = [point for metric in self._metrics() for point in metric.data.data_points]
        return {str(value) for point in points for value in (point.attributes or {}).values()}

    def _values(self, metric: Metric, short: str, unit: str, labels: tuple[str, ...]) -> Values:
        assert metric.unit == unit
        assert metric.description
        if isinstance(metric.data, Sum):
            assert metric.data.is_monotonic is (short not in {"open", "down"})
        names = [f"starlette_sse.{label}" for label in labels]
        return {values_of(point.attributes or {}, names): value_of(point) for point in metric.data.data_points}

    def _metrics(self) -> Iterator[Metric]:
        data = self.reader.get_metrics_data()
        assert data is not None
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                yield from scope.metrics


def values_of(labels: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return the labels' values in the order of their names, which must be all that there are."""
    assert set(labels) == set(names)
    return tuple(labels[name] for name in names)


def value_of(point: Any) -> Any:
    if not isinstance(point, HistogramDataPoint):
        return point.value
    filled = [index for index, count in enumerate(point.bucket_counts) if count]
    bounds = [0.0, *point.explicit_bounds, float("inf")]
    return point.count, point.sum, bounds[filled[0]], bounds[filled[-1] + 1]


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return what a scrape has brought: by name, the labels and values."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found
