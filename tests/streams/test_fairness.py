"""A generator that never waits shares its event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from starlette_sse import CloseReason
from starlette_sse.testing import virtual_backend
from tests.streams.apps import Noting
from tests.visits import scope_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest, clock: str) -> Any:
    return request.param if clock == "real" else virtual_backend(request.param)


@pytest.mark.parametrize("clock", ["real", "virtual"])
async def test_a_generator_that_never_waits_leaves_the_loop_to_others() -> None:
    """Another task keeps running, and the stream ends soon after its client has gone."""
    turns = 0
    others: list[int] = []

    class Endless(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            while True:
                yield "x"

    async def receive() -> Any:
        while len(others) < 20:
            await anyio.lowlevel.checkpoint()
            others.append(turns)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal turns
        turns += 1
        time.sleep(0.0001)

    scope = scope_of()
    await Endless(scope, receive, send)
    assert len(others) == 20
    assert Endless.notes == ["connected", CloseReason.CLIENT_GONE]
