"""The response's tests run on virtual time, on both event loops."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from starlette_sse import EventSourceResponse
from starlette_sse.testing import virtual_backend
from tests.responses.packages import BOTH


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


@pytest.fixture(params=BOTH, ids=lambda package: package.__name__)
def package(request: pytest.FixtureRequest) -> ModuleType:
    """Run the test with sse-starlette and with this package: what it states holds for both."""
    package: ModuleType = request.param
    return package


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log nothing; the log has tests of its own."""
    monkeypatch.setattr(EventSourceResponse, "observers", ())
