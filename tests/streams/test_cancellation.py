"""What a server's own cancellation does while a stream ends, and that no task outlives its stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from starlette_sse import CloseReason
from starlette_sse.eventloop import current_event_loop
from tests.streams.apps import Noting
from tests.visits import scope_of

pytestmark = pytest.mark.anyio


async def test_tasks_have_ended_when_their_block_is_left() -> None:
    """Whoever leaves it need not know them."""
    ended = []

    async def work() -> None:
        await anyio.sleep(5)
        ended.append(anyio.current_time())

    async with current_event_loop().tasks() as tasks:
        tasks.start(work)
        tasks.start(work)
    assert len(ended) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_during_the_cleanup_is_cancelled_after_it(anyio_backend: str) -> None:
    """The cleanup runs to its end, and the cancellation is not lost."""
    gone, cleaning, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                cleaning.set()
                await go_on.wait()
                self.notes.append("cleaned up")

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            self.notes.append(reason)

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            gone.set()

    async def run() -> None:
        await Slow(scope_of(), receive, send)

    task = asyncio.ensure_future(run())
    await cleaning.wait()
    # The stream's task comes to wait for the cleanup.
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert Slow.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE]
