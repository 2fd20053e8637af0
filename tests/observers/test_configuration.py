"""What cannot work is refused when an observer is made, with the remedy."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from starlette_sse import ConfigurationError
from starlette_sse.opentelemetry import OpenTelemetryObserver
from starlette_sse.prometheus import PrometheusObserver
from tests.servers.processes import ROOT


def run(code: str) -> str:
    """Run code in a new interpreter, where warnings are errors, and return what it printed."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "library", "remedy"),
    [
        ("prometheus", "prometheus_client", 'pip install "starlette_sse[prometheus]"'),
        ("opentelemetry", "opentelemetry", 'pip install "starlette_sse[opentelemetry]"'),
    ],
)
def test_an_observer_needs_its_extra(module: str, library: str, remedy: str) -> None:
    """Without the library, importing the observer's module names the command; the rest of the package needs none."""
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "import starlette_sse, starlette_sse.metrics\n"
        f"try: import starlette_sse.{module}\n"
        "except starlette_sse.MissingDependencyError as exc: print(exc)\n"
    )
    assert run(code).endswith(remedy)


def test_opentelemetry_needs_its_api_alone() -> None:
    """Without the SDK everything is told to nobody."""
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from starlette_sse.opentelemetry import OpenTelemetryObserver\n"
        "observer = OpenTelemetryObserver()\n"
        "observer.lasted('Endpoint', 1.0); observer.subscribed(['a'], '')\n"
        "print('fine')\n"
    )
    assert run(code) == "fine"


@pytest.mark.parametrize("registry", ["registry", "", CollectorRegistry, object()])
def test_a_registry_must_be_one(registry: Any) -> None:
    """The error says what it has to be."""
    with pytest.raises(ConfigurationError, match=r"registry must be a prometheus_client\.CollectorRegistry or None"):
        PrometheusObserver(registry)


@pytest.mark.parametrize("namespace", ["", "my-app", "1app", "app\n"])
def test_a_namespace_must_begin_a_name(namespace: str) -> None:
    """Prometheus would refuse the scrape."""
    with pytest.raises(ConfigurationError, match="namespace must be of letters, digits and underscores"):
        PrometheusObserver(CollectorRegistry(), namespace)


def test_a_registry_has_one_observer_of_a_namespace() -> None:
    """The error says to share it; another namespace does as well, and what failed leaves nothing behind."""
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    before = generate_latest(registry)
    with pytest.raises(ConfigurationError, match="Make one PrometheusObserver and share it"):
        PrometheusObserver(registry)
    assert generate_latest(registry) == before
    PrometheusObserver(registry, "shop")
    assert b"shop_broker_events_total 0.0" in generate_latest(registry)


def test_a_metric_of_another_s_is_not_shown_twice() -> None:
    """Nor is the one that is a histogram."""
    registry = CollectorRegistry()
    Histogram("starlette_sse_stream_duration_seconds", "Somebody else's", registry=registry)
    with pytest.raises(ConfigurationError, match="give this one a registry or namespace of its own"):
        PrometheusObserver(registry)


def test_the_default_registry_has_one_observer() -> None:
    """As has any other."""
    code = (
        "from prometheus_client import REGISTRY, generate_latest\n"
        "from starlette_sse import ConfigurationError\n"
        "from starlette_sse.prometheus import PrometheusObserver\n"
        "PrometheusObserver()\n"
        "assert b'starlette_sse_broker_events_total 0.0' in generate_latest(REGISTRY)\n"
        "try: PrometheusObserver()\n"
        "except ConfigurationError as exc: print(exc)\n"
    )
    assert "share it" in run(code)


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_the_multi_process_mode_needs_a_registry(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In that mode what is counted at a scrape would be missing without a word."""
    monkeypatch.setenv(name, "/nowhere")
    with pytest.raises(ConfigurationError, match=f"multi-process mode .{name} is set.*OpenTelemetryObserver"):
        PrometheusObserver()
    PrometheusObserver(CollectorRegistry())


@pytest.mark.parametrize("meter", ["meter", "", MeterProvider(), object()])
def test_a_meter_must_be_one(meter: Any) -> None:
    """A provider is the likely mistake."""
    with pytest.raises(ConfigurationError, match=r"meter must be an opentelemetry\.metrics\.Meter or None"):
        OpenTelemetryObserver(meter)


def test_a_meter_has_one_observer() -> None:
    """The error says to share it; the SDK would lose what a second one counts."""
    provider = MeterProvider()
    OpenTelemetryObserver(provider.get_meter("one"))
    with pytest.raises(ConfigurationError, match="Make one and share it"):
        OpenTelemetryObserver(provider.get_meter("one"))
    OpenTelemetryObserver(provider.get_meter("another"))
    OpenTelemetryObserver(NoOpMeterProvider().get_meter("one"))


def test_a_meter_is_not_kept_alive() -> None:
    """An app that makes one for each of its tests has no more of them than it uses."""
    provider = MeterProvider(shutdown_on_exit=False)
    meter = weakref.ref(provider.get_meter("one"))
    OpenTelemetryObserver(meter())
    del provider
    gc.collect()
    assert meter() is None


def test_the_default_meter_may_have_an_observer_beside_those_of_others() -> None:
    """Which are no default."""
    code = (
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from starlette_sse.opentelemetry import OpenTelemetryObserver\n"
        "provider = MeterProvider()\n"
        "OpenTelemetryObserver(provider.get_meter('one'))\n"
        "OpenTelemetryObserver()\n"
        "OpenTelemetryObserver(provider.get_meter('another'))\n"
    )
    assert run(code) == ""


def test_the_default_meter_is_that_of_a_provider_which_is_set_later() -> None:
    """As apps do: first the modules are imported, then telemetry is set up. It has one observer before and after."""
    code = (
        "from opentelemetry.metrics import set_meter_provider\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
        "from starlette_sse import ConfigurationError\n"
        "from starlette_sse.opentelemetry import OpenTelemetryObserver\n"
        "def again():\n"
        "    try: OpenTelemetryObserver()\n"
        "    except ConfigurationError: return\n"
        "    raise AssertionError\n"
        "observer = OpenTelemetryObserver()\n"
        "again()\n"
        "observer.subscribed(['a'], '')\n"
        "reader = InMemoryMetricReader()\n"
        "set_meter_provider(MeterProvider([reader]))\n"
        "again()\n"
        "observer.lasted('Endpoint', 100.0)\n"
        "(scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics\n"
        "found = {metric.name: metric.data.data_points for metric in scope.metrics}\n"
        "assert scope.scope.name == 'starlette_sse'\n"
        "assert found['starlette_sse.broker.subscriptions'][0].value == 1\n"
        "(duration,) = found['starlette_sse.stream.duration']\n"
        "print(duration.explicit_bounds[0], duration.explicit_bounds[-1])\n"
    )
    assert run(code) == "1.0 604800.0"
