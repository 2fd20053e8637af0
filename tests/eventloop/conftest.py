"""The event loops' tests run on virtual time, on both."""

from __future__ import annotations

from typing import Any

import pytest

from starlette_sse.testing import virtual_backend


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)
