"""The event loop's contract on asyncio, uvloop included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette_sse.eventloop.base import Alarm, EventLoop, Waiter

__all__ = ["AsyncioEventLoop"]


class AsyncioWaiter:
    __slots__ = ("_future", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        future = self._future
        if future is None:
            self._woken = True
        elif not future.done():
            future.set_result(None)

    async def wait(self) -> None:
        if not self._woken:
            self._future = self._loop.create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._woken = False


class AsyncioEventLoop(EventLoop):
    """Asyncio's own futures and timer handles."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turn: float | None = None
        # Asyncio's own clock is a function around this one, and every send asks.
        plain = type(loop).time is asyncio.BaseEventLoop.time
        self.time = time.monotonic if plain else loop.time  # type: ignore[method-assign]

    def time(self) -> float:  # pragma: no cover - replaced by the loop's own method
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], object]) -> Alarm:
        return self._loop.call_at(when, callback)

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def waiter(self) -> Waiter:
        return AsyncioWaiter(self._loop)

    def turn(self, now: float) -> float:
        turn = self._turn
        if turn is None:
            self._turn = turn = now
            self._loop.call_soon(self._end_turn)
        return turn

    def _end_turn(self) -> None:
        self._turn = None

    def current_task(self) -> object:
        return asyncio.current_task()

    def reaches(self, task: Any, cancel: Callable[[], object]) -> bool:
        before = task.cancelling()
        cancel()
        return bool(task.cancelling() > before)
