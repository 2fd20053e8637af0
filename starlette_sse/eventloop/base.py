"""What an event loop must offer: the contract that its two implementations meet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Alarm", "EventLoop", "Waiter"]


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

    @abstractmethod
    def turn(self, now: float) -> float:
        """Return the time at which this was first called in the loop's present turn.

        A task that gets the same time twice has not waited in between.

        :param now: the loop's time.
        """

    @abstractmethod
    def current_task(self) -> object:
        """Return the running task."""

    @abstractmethod
    def reaches(self, task: Any, cancel: Callable[[], object]) -> bool:
        """Call ``cancel()`` and tell whether it raised a cancellation where ``task`` waits."""
