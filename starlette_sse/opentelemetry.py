"""What happens, as metrics of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar
from weakref import WeakKeyDictionary

from starlette_sse.exceptions import ConfigurationError, MissingDependencyError
from starlette_sse.metrics import DURATION, DURATION_BOUNDS, METRICS, Counting, Labels, Metric

try:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter
except ImportError as exc:  # pragma: no cover - the tests run it in a process that hides the library
    raise MissingDependencyError(
        'OpenTelemetryObserver needs opentelemetry-api: pip install "starlette_sse[opentelemetry]"'
    ) from exc

__all__ = ["OpenTelemetryObserver"]

#: Before the names of metrics and attributes, and the name of the default meter.
NAMESPACE = "starlette_sse"


class OpenTelemetryObserver(Counting):
    """Shows what happens in this process whenever the meter's readers collect.

    Make one, and give it to every endpoint and broker: ``observers = (StructlogObserver(), metrics)``. Readers may
    collect in any thread; it takes less than a microsecond for each open stream, and a delivery takes nothing.

    :param meter: what makes the instruments; None: the one called ``starlette_sse`` of the global provider, which may
        be set later.
    :raises ConfigurationError: ``meter`` is not an OpenTelemetry ``Meter``, or another observer has it already.
    """

    #: The meters that are taken, and whether each is the default. The SDK passes over the second instrument of a name
    #: without a word, so what a second observer counts would be lost.
    _taken: ClassVar[WeakKeyDictionary[Meter, bool]] = WeakKeyDictionary()

    def __init__(self, meter: Meter | None = None) -> None:
        super().__init__()
        chosen = get_meter(NAMESPACE) if meter is None else meter
        if not isinstance(chosen, Meter):
            raise ConfigurationError(f"meter must be an opentelemetry.metrics.Meter or None, not {meter!r}")
        self._take(chosen, is_default=meter is None)
        for metric in METRICS:
            self._show(metric, chosen)
        self._durations = chosen.create_histogram(
            f"{NAMESPACE}.{DURATION.name}",
            DURATION.unit,
            DURATION.description,
            explicit_bucket_boundaries_advisory=DURATION_BOUNDS,
        )

    def lasted(self, endpoint: str, seconds: float) -> None:
        self._durations.record(seconds, attributes_of(DURATION, (endpoint,)))

    def _take(self, meter: Meter, *, is_default: bool) -> None:
        # Until a provider is set, each time that the default meter is asked for it is another one.
        if meter in self._taken or (is_default and any(self._taken.values())):
            raise ConfigurationError(
                "the meter has an OpenTelemetryObserver already. Make one and share it: it may watch every endpoint "
                "and broker. Or give this one a meter of its own"
            )
        self._taken[meter] = is_default

    def _show(self, metric: Metric, meter: Meter) -> None:
        create = meter.create_observable_up_down_counter if metric.falls else meter.create_observable_counter
        create(f"{NAMESPACE}.{metric.name}", [partial(self._values, metric)], metric.unit, metric.description)

    def _values(self, metric: Metric, options: CallbackOptions) -> Iterator[Observation]:
        for labels, value in self.read(metric).items():
            yield Observation(value, attributes_of(metric, labels))


def attributes_of(metric: Metric, labels: Labels) -> dict[str, str]:
    return {f"{NAMESPACE}.{name}": value for name, value in zip(metric.labels, labels, strict=True)}
