"""The observers' tests run on virtual time, on both event loops, and for each library."""

from __future__ import annotations

from typing import Any

import pytest

from starlette_sse.testing import virtual_backend
from tests.observers.sinks import OpenTelemetrySink, PrometheusSink, Sink


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


@pytest.fixture(params=[PrometheusSink, OpenTelemetrySink], ids=["prometheus", "opentelemetry"])
def sink(request: pytest.FixtureRequest) -> Sink:
    """Return an observer and what its library shows of it."""
    made: Sink = request.param()
    return made
