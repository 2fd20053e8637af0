"""Both event loops on virtual time, for the packages whose conftest imports this fixture."""

from __future__ import annotations

from typing import Any

import pytest

from starlette_sse.testing import virtual_backend

__all__ = ["anyio_backend"]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run a test marked ``anyio`` once on each event loop, where hours take no time."""
    return virtual_backend(request.param)
