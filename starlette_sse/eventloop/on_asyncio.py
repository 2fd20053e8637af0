"""The event loop's contract on asyncio, uvloop included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from types import TracebackType
from typing import Any, Self

from anyio import CancelScope

from starlette_sse.eventloop.base import A_MOMENT, Alarm, Cancellable, EventLoop, TaskGroup, Tasks, Waiter

__all__ = ["AsyncioEventLoop"]


class AsyncioWaiter:
    __slots__ = ("_future", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        future = self._future
        if future is None or future.done():
            self._woken = True
        else:
            future.set_result(None)

    def wait(self) -> Awaitable[None]:
        # A coroutine around the future would be held by each stream.
        self._future = future = self._loop.create_future()
        if self._woken:
            self._woken = False
            future.set_result(None)
        return future

    @property
    def waiting(self) -> bool:
        return self._future is not None and not self._future.done()


class AsyncioTasks:
    """Plain asyncio tasks: anyio's cost each stream several KiB and a quarter of its CPU time to connect."""

    __slots__ = ("_loop", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self, function: Callable[[], Coroutine[Any, Any, None]]) -> Alarm:
        task = self._loop.create_task(function())
        self._tasks = (*(each for each in self._tasks if not each.done()), task)
        return task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        cancelled: asyncio.CancelledError | None = None
        for task in self._tasks:
            while not task.done():
                try:
                    await asyncio.wait((task,))
                except asyncio.CancelledError as exc:
                    cancelled = exc
                    break
        if cancelled is None:
            return
        # A scope of anyio's would go on cancelling in each turn of the loop.
        with CancelScope(shield=True):
            while waits_for := [task for task in self._tasks if not task.done()]:
                with suppress(asyncio.CancelledError):
                    await asyncio.wait(waits_for)
        raise cancelled


class AsyncioTaskGroup:
    """Plain tasks, each in a cancel scope of its own: one around them all could be left only where it was entered."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._owner: asyncio.Task[Any] | None = None
        self._owner_cancelled = self._leaving = False
        self._scopes: dict[asyncio.Task[None], CancelScope] = {}
        self._errors: list[BaseException] = []
        self._cancelled: asyncio.CancelledError | None = None

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object, name: str) -> None:
        scope = CancelScope()

        async def run() -> None:
            with scope:
                await function(*args)

        task = self._loop.create_task(run(), name=name)
        self._scopes[task] = scope
        task.add_done_callback(self._note_end)

    def cancel(self) -> None:
        for scope in self._scopes.values():
            scope.cancel()

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving = True
        if self._owner_cancelled and self._owner is not None:
            self._owner.uncancel()
        if exc is not None:
            self.cancel()
        await self._wait()
        if self._errors:
            raise BaseExceptionGroup("unhandled errors in a task group", self._errors)
        if self._cancelled is not None:
            raise self._cancelled

    async def _wait(self) -> None:
        with CancelScope() as scope:
            while self._scopes:
                try:
                    await asyncio.wait(self._scopes)
                except asyncio.CancelledError as error:
                    self._cancelled = error
                    self.cancel()
                    # A scope goes on cancelling, which would not end them sooner.
                    scope.shield = True

    def _note_end(self, task: asyncio.Task[None]) -> None:
        scope = self._scopes.pop(task)
        if not task.cancelled():
            error = task.exception()
            if error is None:
                return
            self._errors.append(error)
        elif not scope.cancel_called:
            self._cancelled = asyncio.CancelledError(f"{task.get_name()} was cancelled by somebody else")
        else:
            return
        self.cancel()
        if self._owner is not None and not (self._leaving or self._owner_cancelled):
            self._owner_cancelled = self._owner.cancel()


class AsyncioCancellable:
    """One native cancellation that is told from others as :class:`asyncio.Timeout` does."""

    __slots__ = ("_asked", "_cancelled", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._asked = self._cancelled = False

    def cancel(self) -> None:
        if not self._asked:
            self._asked = True
            self._cancel_soon()

    def _cancel_soon(self) -> None:
        if self._task is not None and self._task is asyncio.current_task():
            # A task that cancels itself and leaves the block before it waits would be cancelled in what follows.
            self._task.get_loop().call_soon(self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancelled = True
            # Of two that are delivered as one the last message counts, and by its own a scope of anyio's knows its one.
            pending = getattr(self._task, "_must_cancel", False)
            self._task.cancel(getattr(self._task, "_cancel_message", None) if pending else None)

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._asked:
            self._cancel_soon()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if not self._cancelled or task is None:
            return False
        return not task.uncancel() and isinstance(exc, asyncio.CancelledError)


class AsyncioEventLoop(EventLoop):
    """Asyncio's own futures and timer handles."""

    cancelled = asyncio.CancelledError

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._turn: float | None = None
        # Who calls soon is not to lend its context variables to those who are called.
        self._context = Context()
        # Asyncio's own clock is a function around this one, and every send asks.
        plain = type(loop).time is asyncio.BaseEventLoop.time
        self.time = time.monotonic if plain else loop.time

    def call_at(self, when: float, callback: Callable[[], object], context: Context | None = None) -> Alarm:
        return self._loop.call_at(when, callback, context=self._context if context is None else context)

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._loop.call_soon(callback, context=self._context)

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def waiter(self) -> Waiter:
        return AsyncioWaiter(self._loop)

    def tasks(self) -> Tasks:
        return AsyncioTasks(self._loop)

    def task_group(self) -> TaskGroup:
        return AsyncioTaskGroup(self._loop)

    def cancellable(self) -> Cancellable:
        return AsyncioCancellable()

    def turn(self, now: float) -> float:
        turn = self._turn
        if turn is None:
            self._turn = turn = now
            self._loop.call_soon(self._end_turn)
        return turn

    def _end_turn(self) -> None:
        self._turn = None

    def checkpoint(self) -> Awaitable[None]:
        return asyncio.sleep(0)

    def current_task(self) -> object:
        return asyncio.current_task()

    def is_cancelled(self) -> bool:
        task = asyncio.current_task()
        return task is not None and bool(task.cancelling())

    def reaches(self, task: Any, cancel: Callable[[], object]) -> bool:
        before = task.cancelling()
        cancel()
        return bool(task.cancelling() > before)

    def when_moved(self, task: Any, callback: Callable[[], object]) -> None:
        if not hasattr(task, "_fut_waiter"):  # pragma: no cover - another implementation of tasks
            self._loop.call_later(A_MOMENT, callback)
            return
        # What it waits for wakes the task first, which had asked before.
        waits_for = task._fut_waiter  # noqa: SLF001
        if waits_for is None or waits_for.done():
            self._loop.call_soon(callback)
        else:
            waits_for.add_done_callback(lambda _: callback())
