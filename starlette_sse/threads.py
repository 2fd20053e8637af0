"""Sync iterators as async ones: each step in a worker thread of a limiter that is only theirs."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from starlette_sse.exceptions import ConfigurationError

__all__ = ["THREADS", "ThreadedIterator", "as_async_iterator"]

#: How many steps of sync iterators run at once in one event loop.
THREADS = 40

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("starlette_sse_threads")
_END = object()


class ThreadedIterator(AsyncIterator[Any]):
    """Iterates over ``content`` in worker threads.

    A step that is under way when the stream ends cannot be interrupted: closing waits for it, and then closes the
    iterator in a thread, so that the ``finally`` of a generator runs.
    """

    def __init__(self, content: Iterable[Any]) -> None:
        self._iterator: Iterator[Any] = iter(content)
        self._stepping = threading.Lock()

    async def __anext__(self) -> Any:
        item = await anyio.to_thread.run_sync(self._step, abandon_on_cancel=True, limiter=_threads())
        if item is _END:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Close the iterator once no step runs."""
        await anyio.to_thread.run_sync(self._close, abandon_on_cancel=True, limiter=_threads())

    def _step(self) -> Any:
        with self._stepping:
            return next(self._iterator, _END)

    def _close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            with self._stepping:
                close()


def _threads() -> anyio.CapacityLimiter:
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
    return limiter


def as_async_iterator(content: Any, name: str) -> AsyncIterator[Any]:
    """Return the async iterator that ``content`` is, has, or becomes in worker threads.

    :raises ConfigurationError: it cannot be iterated over.
    """
    if isinstance(content, AsyncIterator):
        return content
    if isinstance(content, AsyncIterable):
        return aiter(content)
    if isinstance(content, Iterable) and not isinstance(content, str | bytes | bytearray | memoryview | Mapping):
        return ThreadedIterator(content)
    if inspect.iscoroutine(content):
        content.close()
    raise ConfigurationError(f"{name} must give an async iterator or an iterable of events, not {content!r}")
