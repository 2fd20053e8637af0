"""What an event loop must offer: the contract that its two implementations meet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Protocol, Self

from anyio import CancelScope

__all__ = ["A_MOMENT", "Alarm", "Cancellable", "EventLoop", "TaskGroup", "Tasks", "Waiter"]


#: Seconds between attempts where it cannot be known when the next one may succeed.
A_MOMENT = 0.005


class Waiter(Protocol):
    """One task waits, anyone in the same loop wakes it; a wake that nobody waits for is kept."""

    def wake(self) -> None: ...

    def wait(self) -> Awaitable[None]: ...

    @property
    def waiting(self) -> bool:
        """Whether a task waits and was not woken yet."""


class Alarm(Protocol):
    """Something that is going to happen: a callback set for a time, a task's end."""

    def cancel(self) -> object: ...


class Tasks(Protocol):
    """A block whose tasks run beside it; it is left when they have ended, whatever cancels it meanwhile.

    Unlike a task group's they are not cancelled with the block: whoever starts one knows how to end it.
    """

    def start(self, function: Callable[[], Coroutine[Any, Any, None]]) -> Alarm:
        """Run ``function()`` in a task, which what is returned can cancel. It must not raise an :exc:`Exception`."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...


class TaskGroup(Protocol):
    """A block with tasks beside it, as anyio's; on asyncio it may be left in another task than entered it.

    Fixtures of pytest-asyncio and unittest are, and what an ``AsyncExitStack`` holds may be. No cancel scope can be
    open in between, for it belongs to one task. So on asyncio a cancellation from outside reaches the tasks when the
    block is left; and a task that fails, which cancels the others, cancels who entered the block once, as in
    :class:`asyncio.TaskGroup`. If that task has ended, who leaves the block is told.
    """

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object, name: str) -> None:
        """Run ``function(*args)`` in a task."""

    def cancel(self) -> None:
        """Cancel the tasks for good, whatever they catch."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the tasks, which an error of the block cancels; it leaves as it is.

        :raises BaseExceptionGroup: what the tasks have raised.
        """


class Cancellable(Protocol):
    """A block that can be left from outside of its task, as if what it awaits had returned."""

    def cancel(self) -> object:
        """Leave the block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool: ...


class EventLoop(ABC):
    """The running event loop; get it by :func:`current_event_loop`."""

    #: What a cancelled task gets.
    cancelled: type[BaseException]

    #: Returns the loop's monotonic clock in seconds; an attribute, as every send asks.
    time: Callable[[], float]

    def __init__(self) -> None:
        #: What belongs to this run of the loop and ends with it.
        self.locals: dict[str, Any] = {}
        #: Makes anyio's cancel scopes for this loop, without looking each time for which loop it is.
        self.cancel_scope: type[CancelScope] = type(CancelScope())

    @abstractmethod
    def call_at(self, when: float, callback: Callable[[], object], context: Context | None = None) -> Alarm:
        """Call ``callback`` in the loop's thread at ``when`` on the loop's clock.

        :param context: what it runs in, if it is to see context variables.
        """

    @abstractmethod
    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in the loop's next turn, outside of any task of the app's."""

    @abstractmethod
    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in the loop's thread soon, from any thread or signal handler.

        :raises RuntimeError: the loop has ended.
        """

    @property
    def ended(self) -> bool:
        """Whether nothing will run in the loop any more; any thread may ask."""
        try:
            self.call_soon_threadsafe(nothing)
        except RuntimeError:
            return True
        return False

    @abstractmethod
    def waiter(self) -> Waiter:
        """Return a new :class:`Waiter`."""

    @abstractmethod
    def tasks(self) -> Tasks:
        """Return a new block for tasks."""

    @abstractmethod
    def task_group(self) -> TaskGroup:
        """Return a new :class:`TaskGroup`."""

    @abstractmethod
    def cancellable(self) -> Cancellable:
        """Return a new block that can be left from outside."""

    @abstractmethod
    def turn(self, now: float) -> float:
        """Return the time at which this was first called in the loop's present turn.

        A task that gets the same time twice has not waited in between.

        :param now: the loop's time.
        """

    @abstractmethod
    def checkpoint(self) -> Awaitable[None]:
        """Let other tasks run, and be cancelled here if that was asked for."""

    @abstractmethod
    def current_task(self) -> object:
        """Return the running task."""

    @abstractmethod
    def is_cancelled(self) -> bool:
        """Tell whether the running task itself was asked to end, if it gets a cancellation.

        On asyncio awaiting what somebody else has cancelled raises the same exception.
        """

    @abstractmethod
    def reaches(self, task: Any, cancel: Callable[[], object]) -> bool:
        """Call ``cancel()`` and tell whether it raised a cancellation where ``task`` waits."""

    @abstractmethod
    def when_moved(self, task: Any, callback: Callable[[], object]) -> None:
        """Call ``callback`` soon after ``task`` has run again, or in a moment where that cannot be known."""


def nothing() -> None:
    """Be called."""
