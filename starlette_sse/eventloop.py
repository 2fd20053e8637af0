"""The few things a stream needs of its event loop that anyio does not offer.

A wake-up that costs one future, a timer that costs no task, and one cancellation instead of a lasting one, each
on asyncio and on trio.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    import trio

__all__ = ["Alarm", "EventLoop", "Waiter", "current_event_loop"]


class Waiter(Protocol):
    """One task waits, anyone in the same loop wakes it; a wake that nobody waits for is kept."""

    def wake(self) -> None: ...

    async def wait(self) -> None: ...


class Alarm(Protocol):
    """A callback set for a time."""

    def cancel(self) -> None: ...


class EventLoop(ABC):
    """The running event loop; get it by :func:`current_event_loop`."""

    @abstractmethod
    def time(self) -> float:
        """Return the loop's monotonic clock in seconds."""

    @abstractmethod
    def call_at(self, when: float, callback: Callable[[], object]) -> Alarm:
        """Call ``callback`` in the loop's thread at ``when`` on the loop's clock."""

    @abstractmethod
    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in the loop's thread soon, from any thread or signal handler.

        :raises RuntimeError: the loop has ended.
        """

    @abstractmethod
    def waiter(self) -> Waiter:
        """Return a new :class:`Waiter`."""


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
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.time = loop.time  # type: ignore[method-assign]  # one call less on every send

    def time(self) -> float:  # pragma: no cover - replaced by the loop's own method
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], object]) -> Alarm:
        return self._loop.call_at(when, callback)

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def waiter(self) -> Waiter:
        return AsyncioWaiter(self._loop)


class TrioWaiter:
    __slots__ = ("_task", "_woken")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._woken = False

    def wake(self) -> None:
        import trio

        task, self._task = self._task, None
        if task is None:
            self._woken = True
        else:
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        import trio

        if not self._woken:
            self._task = trio.lowlevel.current_task()

            def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
                self._task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        self._woken = False


class TrioAlarm:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class TrioEventLoop(EventLoop):
    """Trio has no timer callbacks, so one system task serves every alarm of the run and ends with the last."""

    def __init__(self) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()
        self._alarms: list[tuple[float, int, TrioAlarm]] = []
        self._count = itertools.count()
        self._earlier: trio.CancelScope | None = None

    def time(self) -> float:
        import trio

        return trio.current_time()

    def call_at(self, when: float, callback: Callable[[], object]) -> Alarm:
        import trio

        alarm = TrioAlarm(callback)
        heapq.heappush(self._alarms, (when, next(self._count), alarm))
        if self._earlier is None:
            self._earlier = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._serve_alarms)
        elif self._alarms[0][2] is alarm:
            self._earlier.deadline = min(self._earlier.deadline, when)
        return alarm

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        import trio

        try:
            self._token.run_sync_soon(callback)
        except trio.RunFinishedError as exc:
            raise RuntimeError("the event loop has ended") from exc

    def waiter(self) -> Waiter:
        return TrioWaiter()

    async def _serve_alarms(self) -> None:
        import trio

        while self._alarms:
            with trio.CancelScope(deadline=self._alarms[0][0]) as self._earlier:
                await trio.sleep_forever()
            now = trio.current_time()
            while self._alarms and (self._alarms[0][0] <= now or self._alarms[0][2].callback is None):
                callback = heapq.heappop(self._alarms)[2].callback
                if callback is not None:
                    callback()
        self._earlier = None


_current: RunVar[EventLoop] = RunVar("starlette_sse_event_loop")


def current_event_loop() -> EventLoop:
    """Return the running loop's :class:`EventLoop`, one for each run of a loop."""
    loop = _current.get(None)
    if loop is None:
        trio = sys.modules.get("trio")
        if trio is not None and trio.lowlevel.in_trio_run():
            loop = TrioEventLoop()
        else:
            loop = AsyncioEventLoop(asyncio.get_running_loop())
        _current.set(loop)
    return loop
