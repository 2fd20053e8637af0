"""What an event loop must offer: the contract that its two implementations meet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from anyio import CancelScope

__all__ = ["Alarm", "EventLoop", "Interruption", "Shelter", "Tasks", "Waiter"]


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


class Interruption(Protocol):
    """A block that can be left from outside of its task, as if what it awaits had returned."""

    def interrupt(self) -> None:
        """Leave the block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool: ...


class Shelter(ABC):
    """A block of a task of :class:`Tasks` that can be interrupted and still clean up, and that can be cut.

    A cancelled scope cancels for good: each ``await`` of a ``finally`` inside it fails as well. An interruption is
    one cancellation, after which the task may await again. User code's own shields are respected.
    """

    __slots__ = ("_loop", "_task")

    #: Seconds between attempts while the task cannot be cancelled, as behind a shield of its own.
    RETRY = 0.005

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._task: Any = None

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool: ...

    def interrupt(self, wanted: Callable[[], bool]) -> None:
        """Raise one cancellation where the sheltered task now waits, or soon will if ``wanted()`` still holds."""
        attempt = partial(self._attempt, wanted)
        if self._loop.current_task() is None:
            attempt()
        else:
            # The task may be the sheltered one, and has to come to where it waits.
            self._loop.call_soon(attempt)

    @abstractmethod
    def cut(self) -> None:
        """Cancel the block for good."""

    @abstractmethod
    def _cancel_once(self) -> bool:
        """Raise one cancellation where the task waits, and tell whether that was possible."""

    def _attempt(self, wanted: Callable[[], bool]) -> None:
        if self._task is not None and wanted() and not self._cancel_once():
            self._loop.call_at(self._loop.time() + self.RETRY, partial(self._attempt, wanted))


class EventLoop(ABC):
    """The running event loop; get it by :func:`current_event_loop`."""

    #: What a cancelled task gets.
    cancelled: type[BaseException]

    def __init__(self) -> None:
        #: What belongs to this run of the loop and ends with it.
        self.locals: dict[str, Any] = {}
        #: Makes anyio's cancel scopes for this loop, without looking each time for which loop it is.
        self.cancel_scope: type[CancelScope] = type(CancelScope())

    @abstractmethod
    def time(self) -> float:
        """Return the loop's monotonic clock in seconds."""

    @abstractmethod
    def call_at(self, when: float, callback: Callable[[], object]) -> Alarm:
        """Call ``callback`` in the loop's thread at ``when`` on the loop's clock."""

    @abstractmethod
    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in the loop's next turn, outside of any task of the app's."""

    @abstractmethod
    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in the loop's thread soon, from any thread or signal handler.

        :raises RuntimeError: the loop has ended.
        """

    @abstractmethod
    def waiter(self) -> Waiter:
        """Return a new :class:`Waiter`."""

    @abstractmethod
    def tasks(self) -> Tasks:
        """Return a new block for tasks."""

    @abstractmethod
    def interruption(self) -> Interruption:
        """Return a new block that can be interrupted."""

    @abstractmethod
    def shelter(self) -> Shelter:
        """Return a new block that shelters what cleans up."""

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
    def reaches(self, task: Any, cancel: Callable[[], object]) -> bool:
        """Call ``cancel()`` and tell whether it raised a cancellation where ``task`` waits."""
