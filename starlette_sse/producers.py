"""Running a user's iterator: alone in a task of its own, and closed however its stream ends.

The framework enters and leaves no cancel scope between an async generator's steps and its ``aclose()``, so a
generator may hold a task group or a timeout open across a ``yield``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum, auto
from typing import Any

import anyio

from starlette_sse.eventloop import EventLoop, Shelter

__all__ = ["Producer"]


class Phase(Enum):
    """Where a producer is."""

    NEW = auto()
    PULLING = auto()
    DELIVERING = auto()
    CLOSING = auto()
    DONE = auto()


class Producer:
    """Pulls events one at a time, each delivered before the next is pulled.

    :param iterator: the user's; it is closed when the producer ends, if it has an ``aclose``.
    :param deliver: called with each item in the producer's task.
    :param on_moved: called with the producer when the iterator has failed, and when nothing is left to clean up.
    """

    __slots__ = ("_deliver", "_iterator", "_on_moved", "_phase", "_shelter", "_stopping", "error")

    def __init__(
        self,
        loop: EventLoop,
        iterator: AsyncIterator[Any],
        deliver: Callable[[Any], Awaitable[None]],
        on_moved: Callable[[Producer], None],
    ) -> None:
        self._iterator = iterator
        self._deliver = deliver
        self._on_moved = on_moved
        self._shelter = Shelter(loop)
        self._phase = Phase.NEW
        self._stopping = False
        #: What ended the iterator, or its cleanup, other than being stopped.
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the iterator is closed."""
        return self._phase is Phase.DONE

    @property
    def cut(self) -> bool:
        """Whether its cleanup ran out of time."""
        return self._shelter.cut

    async def run(self) -> None:
        """Run the iterator to its end; never raises an error of the user's, which is left in :attr:`error`."""
        try:
            with self._shelter:
                try:
                    exhausted = await self._pull_all()
                except BaseException as exc:  # noqa: BLE001 - sorted out by what it holds
                    exhausted = False
                    self.error = genuine(exc)
                if not exhausted:
                    self._phase = Phase.CLOSING
                    self._on_moved(self)
                    await self._close()
        finally:
            self._phase = Phase.DONE
            self._on_moved(self)

    def stop(self) -> None:
        """Pull no more: interrupt the iterator where it waits, or close it once its item is delivered."""
        if not self._stopping:
            self._stopping = True
            self._shelter.interrupt(lambda: self._phase is Phase.PULLING)

    def stop_delivery(self) -> None:
        """Interrupt the delivery of an item as well."""
        self._shelter.interrupt(lambda: self._phase is Phase.DELIVERING)

    def cut_at(self, deadline: float) -> None:
        """Cancel whatever still runs at ``deadline`` on the event loop's clock."""
        self._shelter.cut_at(deadline)

    async def _pull_all(self) -> bool:
        advance, deliver = self._iterator.__anext__, self._deliver
        while not self._stopping:
            self._phase = Phase.PULLING
            try:
                item = await advance()
            except StopAsyncIteration:
                return True
            self._phase = Phase.DELIVERING
            await deliver(item)
        return False

    async def _close(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except BaseException as exc:  # noqa: BLE001 - sorted out by what it holds
            self.error = self.error or genuine(exc)


def genuine(error: BaseException) -> BaseException | None:
    """Return what is left of ``error`` without being stopped: cancellation, and ``GeneratorExit`` in a group.

    An async generator that holds a task group open across a ``yield`` answers ``aclose()`` with a group of its
    ``GeneratorExit`` and what its tasks raised.
    """
    stopped = (GeneratorExit, anyio.get_cancelled_exc_class())
    if isinstance(error, BaseExceptionGroup):
        return error.split(stopped)[1]
    return None if isinstance(error, stopped) else error
