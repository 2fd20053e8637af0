"""The event loop's contract on trio; imported only where trio runs."""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self

import anyio
import trio

from starlette_sse.eventloop.base import A_MOMENT, Alarm, Cancellable, EventLoop, TaskGroup, Tasks, Waiter

__all__ = ["TrioEventLoop", "call_protected"]


class TrioWaiter:
    __slots__ = ("_task", "_woken")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._woken = False

    def wake(self) -> None:
        task, self._task = self._task, None
        if task is None:
            self._woken = True
        else:
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        if not self._woken:
            self._task = trio.lowlevel.current_task()

            def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
                self._task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        self._woken = False

    @property
    def waiting(self) -> bool:
        return self._task is not None


class TrioAlarm:
    __slots__ = ("_loop", "callback")

    def __init__(self, loop: TrioEventLoop, callback: Callable[[], object]) -> None:
        self._loop = loop
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._loop.alarm_settled()


class TrioTasks:
    """A nursery whose tasks outer cancellation does not reach."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery | None = None

    def start(self, function: Callable[[], Coroutine[Any, Any, None]]) -> Alarm:
        if self._nursery is None:
            raise RuntimeError("enter the block first")
        scope = trio.CancelScope(shield=True)

        async def run() -> None:
            with scope:
                await function()

        self._nursery.start_soon(run)
        return scope

    async def __aenter__(self) -> Self:
        self._scope.__enter__()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._scope.shield = True
        try:
            await self._manager.__aexit__(None, None, None)
        finally:
            self._scope.__exit__(None, None, None)


class TrioTaskGroup:
    """Anyio's own: to trio, the task that enters a nursery is the one that leaves it."""

    def __init__(self) -> None:
        self._group = anyio.create_task_group()

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object, name: str) -> None:
        self._group.start_soon(function, *args, name=name)

    def cancel(self) -> None:
        self._group.cancel_scope.cancel()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            self.cancel()
        # It would wrap the block's error in a group.
        await self._group.__aexit__(None, None, None)


class ScheduledWatch:
    """Sees whether any task is made ready to run."""

    seen = False

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self.seen = True


class TrioEventLoop(EventLoop):
    """Trio has no timer callbacks, so one system task serves every alarm of the run and ends with the last."""

    cancelled = trio.Cancelled

    def __init__(self) -> None:
        super().__init__()
        self._token = trio.lowlevel.current_trio_token()
        # Unlike trio.current_time, for any thread.
        self.time = trio.lowlevel.current_clock().current_time
        self._alarms: list[tuple[float, int, TrioAlarm]] = []
        self._count = itertools.count()
        self._live = 0
        self._earlier: trio.CancelScope | None = None
        self._turn: float | None = None

    def call_at(self, when: float, callback: Callable[[], object], context: Context | None = None) -> Alarm:
        alarm = TrioAlarm(self, callback if context is None else partial(context.run, callback))
        heapq.heappush(self._alarms, (when, next(self._count), alarm))
        self._live += 1
        if self._earlier is None:
            self._earlier = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._serve_alarms)
        elif self._alarms[0][2] is alarm:
            self._earlier.deadline = min(self._earlier.deadline, when)
        return alarm

    def alarm_settled(self) -> None:
        """Count an alarm out; without any left the system task ends."""
        self._live -= 1
        if not self._live and self._earlier is not None:
            self._alarms.clear()
            self._earlier.cancel()

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._token.run_sync_soon(callback)

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        # What it raises when the run has ended is a RuntimeError.
        self._token.run_sync_soon(callback)

    def waiter(self) -> Waiter:
        return TrioWaiter()

    def tasks(self) -> Tasks:
        return TrioTasks()

    def task_group(self) -> TaskGroup:
        return TrioTaskGroup()

    def cancellable(self) -> Cancellable:
        return trio.CancelScope()

    def turn(self, now: float) -> float:
        turn = self._turn
        if turn is None:
            self._turn = turn = now
            self._token.run_sync_soon(self._end_turn)
        return turn

    def _end_turn(self) -> None:
        self._turn = None

    async def checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    def current_task(self) -> object:
        return trio.lowlevel.current_task()

    def is_cancelled(self) -> bool:
        return True

    def reaches(self, task: Any, cancel: Callable[[], object]) -> bool:
        # A task that waits for the children of its nursery is not woken itself: they are.
        watch = ScheduledWatch()
        trio.lowlevel.add_instrument(watch)  # type: ignore[arg-type]  # all methods are optional
        try:
            cancel()
        finally:
            trio.lowlevel.remove_instrument(watch)  # type: ignore[arg-type]
        return watch.seen

    def when_moved(self, task: Any, callback: Callable[[], object]) -> None:
        self.call_at(self.time() + A_MOMENT, callback)

    async def _serve_alarms(self) -> None:
        while self._alarms:
            with trio.CancelScope(deadline=self._alarms[0][0]) as self._earlier:
                await trio.sleep_forever()
            for alarm in self._take_due(trio.current_time()):
                callback, alarm.callback = alarm.callback, None
                if callback is not None:
                    self._live -= 1
                    callback()
        self._earlier = None

    def _take_due(self, now: float) -> list[TrioAlarm]:
        due = []
        while self._alarms and self._alarms[0][0] <= now:
            due.append(heapq.heappop(self._alarms)[2])
        return due


@trio.lowlevel.enable_ki_protection
def call_protected(handler: Callable[[int, FrameType | None], object], signum: int) -> None:
    """Call a signal handler so that trio raises KeyboardInterrupt in its main task, not in whatever runs now."""
    handler(signum, sys._getframe())  # noqa: SLF001 - trio looks at the frame that a handler is given
