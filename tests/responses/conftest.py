"""The response's tests run on virtual time, on both event loops."""

from __future__ import annotations

from types import ModuleType

import pytest

from starlette_sse import EventSourceResponse
from tests.both_loops import anyio_backend
from tests.responses.packages import BOTH

__all__ = ["anyio_backend"]


@pytest.fixture(params=BOTH, ids=lambda package: package.__name__)
def package(request: pytest.FixtureRequest) -> ModuleType:
    """Run the test with sse-starlette and with this package: what it states holds for both."""
    package: ModuleType = request.param
    return package


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log nothing; the log has tests of its own."""
    monkeypatch.setattr(EventSourceResponse, "observers", ())
