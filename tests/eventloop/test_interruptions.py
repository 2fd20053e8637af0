"""What an interruption promises: it cancels once, and lasts no longer."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from starlette_sse.eventloop import current_event_loop, on_trio
from starlette_sse.eventloop.on_trio import ScheduledWatch
from starlette_sse.testing import virtual_backend

pytestmark = pytest.mark.anyio


async def test_a_block_that_is_interrupted_twice_is_left_once() -> None:
    """And nothing of it reaches what comes behind."""
    block = current_event_loop().cancellable()

    async def interrupt() -> None:
        block.cancel()
        block.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(interrupt)
        with block:
            await anyio.sleep_forever()
        await anyio.sleep(1)


@pytest.mark.parametrize("anyio_backend", [virtual_backend("trio")])
async def test_trio_is_watched_no_longer_than_it_takes_to_cancel(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each step of each task would go through all that was ever left."""
    watches: list[ScheduledWatch] = []

    class Kept(ScheduledWatch):
        def __init__(self) -> None:
            watches.append(self)

    monkeypatch.setattr(on_trio, "ScheduledWatch", Kept)
    loop = current_event_loop()
    assert not loop.reaches(loop.current_task(), lambda: None)
    await anyio.sleep(1)
    assert [watch.seen for watch in watches] == [False]
