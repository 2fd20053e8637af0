"""A place where a task can be interrupted and still clean up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType

from starlette_sse.eventloop.base import EventLoop

__all__ = ["Shelter"]


class Shelter:
    """A block that outer cancellation does not reach, but that can be interrupted once, and cut.

    A cancelled scope cancels for good: each ``await`` of a ``finally`` inside it fails as well. An interruption is
    one cancellation, after which the task may await again to clean up. It is made of a cancelled scope and a
    shield raised behind the first delivery. User code's own shields are respected.
    """

    __slots__ = ("_block", "_loop", "_outer", "_task")

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._outer = loop.cancel_scope(shield=True)
        self._block = loop.cancel_scope()
        self._task: object = None

    def __enter__(self) -> Shelter:
        self._task = self._loop.current_task()
        self._outer.__enter__()
        self._block.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._task = None
        if self._block.__exit__(exc_type, exc, traceback):
            exc_type = exc = traceback = None
        return bool(self._outer.__exit__(exc_type, exc, traceback)) or exc is None

    def interrupt(self, wanted: Callable[[], bool]) -> None:
        """Raise one cancellation where the sheltered task now waits, or soon will if ``wanted()`` still holds."""
        if self._loop.current_task() is None:
            self._try_to_interrupt(wanted)
        else:
            # Outside of tasks, because anyio writes the whole canceller into the reason, which takes its time.
            self._loop.call_soon(partial(self._try_to_interrupt, wanted))

    def cut(self) -> None:
        """Cancel the block for good."""
        self._block.cancel()

    def _try_to_interrupt(self, wanted: Callable[[], bool]) -> None:
        if self._task is not None and wanted() and not self._loop.reaches(self._task, self._cancel_once):
            # It is about to run, or behind a shield of its own.
            self._loop.when_moved(self._task, partial(self._try_to_interrupt, wanted))

    def _cancel_once(self) -> None:
        self._outer.cancel()
        self._block.shield = False
        self._block.shield = True
