"""What a stream iterates over; sync iterators as async ones, each step in a worker thread of a limiter only theirs."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from starlette_sse.exceptions import ConfigurationError

__all__ = ["THREADS", "ThreadedIterator", "as_async_iterable", "as_async_iterator", "threads_of_iterators"]

#: How many steps of sync iterators run at once in one event loop.
THREADS = 40

#: Iterables that are one event, not many.
SINGLE = (str, bytes, bytearray, memoryview, Mapping)

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("starlette_sse_threads")
_END = object()


class ThreadedIterator(AsyncIterator[Any]):
    """Iterates over ``content`` in worker threads; what was never asked for a step is never touched.

    A step that is under way when the stream ends cannot be interrupted: closing waits for it, and then closes the
    iterator in a thread, so that the ``finally`` of a generator runs.
    """

    def __init__(self, content: Iterable[Any]) -> None:
        self._content = content
        self._iterator: Iterator[Any] | None = content if isinstance(content, Iterator) else None
        self._stepping = threading.Lock()

    async def __anext__(self) -> Any:
        item = await anyio.to_thread.run_sync(self._step, abandon_on_cancel=True, limiter=threads_of_iterators())
        if item is _END:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Close the iterator once no step runs."""
        await anyio.to_thread.run_sync(self._close, abandon_on_cancel=True, limiter=threads_of_iterators())

    def _step(self) -> Any:
        with self._stepping:
            if self._iterator is None:
                self._iterator = iter(self._content)
            return next(self._iterator, _END)

    def _close(self) -> None:
        with self._stepping:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                close()


def threads_of_iterators() -> anyio.CapacityLimiter:
    """Return the limiter of this event loop's threads."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
    return limiter


def as_async_iterable(content: Any, name: str) -> AsyncIterable[Any]:
    """Return ``content`` if it is an async iterable, or one over it in worker threads.

    :raises ConfigurationError: it cannot be iterated over event by event.
    """
    if isinstance(content, AsyncIterable):
        return content
    if isinstance(content, Iterable) and not isinstance(content, SINGLE):
        return ThreadedIterator(content)
    if inspect.iscoroutine(content):
        content.close()
    raise ConfigurationError(
        f"{name} must give an async iterator or an iterable of events, not {type(content).__name__}; {remedy(content)}"
    )


def as_async_iterator(content: Any, name: str) -> AsyncIterator[Any]:
    """Return the async iterator that ``content`` is, has, or becomes in worker threads.

    :raises ConfigurationError: it cannot be iterated over event by event.
    """
    return aiter(as_async_iterable(content, name))


def remedy(content: Any) -> str:
    """Return what the author of ``content`` should have written."""
    if isinstance(content, SINGLE):
        return "to send it as the only event, put it in a list"
    if inspect.iscoroutine(content):
        return "an async function that is to stream needs a yield"
    if callable(content):
        return "call it"
    return "write an async generator"
