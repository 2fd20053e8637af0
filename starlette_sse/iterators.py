"""What a stream iterates over; sync iterators as async ones, each step in a worker thread of a limiter only theirs."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from starlette.responses import Response

from starlette_sse.eventloop import current_event_loop, running_event_loop
from starlette_sse.eventloop.notices import warn_once
from starlette_sse.eventloop.threads import ThreadCall, threads_of_closing
from starlette_sse.exceptions import ConfigurationError

__all__ = [
    "THREADS",
    "ThreadedIterator",
    "as_async_iterable",
    "as_async_iterator",
    "threads_of_iterators",
]

#: How many steps of sync iterators run at once in one event loop, unless an app sets another number.
THREADS = 40

#: Iterables that are one event, not many.
SINGLE = (str, bytes, bytearray, memoryview, Mapping)

KEY = "starlette_sse_threads_of_iterators"

ALL_AT_WORK = (
    "all %g threads of sync iterators are at work, so further streams wait; write events() as an async generator, or "
    "raise starlette_sse.iterators.threads_of_iterators().total_tokens in the app's lifespan"
)
_END = object()


class ThreadedIterator(AsyncIterator[Any]):
    """Iterates over ``content`` in worker threads; what was never asked for a step is never touched.

    A step that is under way when the stream ends cannot be interrupted: its thread closes the iterator behind it. Else
    closing has a thread without a limit, so that the ``finally`` of a generator runs however many others are stuck.
    All steps and the closing run in one context.
    """

    def __init__(self, content: Iterable[Any]) -> None:
        self._content = content
        self._iterator: Iterator[Any] | None = content if isinstance(content, Iterator) else None
        self._context: Context | None = None
        self._step: ThreadCall | None = None
        self._error: BaseException | None = None

    async def __anext__(self) -> Any:
        limiter = threads_of_iterators()
        if limiter.available_tokens < 1:
            # Nobody would see why streams are silent.
            warn_once(current_event_loop(), ALL_AT_WORK, limiter.total_tokens)
        self._step = ThreadCall(partial(self._run, self._next), limiter)
        item = await self._step.run()
        if item is _END:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Close the iterator once no step runs.

        :raises BaseException: what a step raised that nobody waited for, or the iterator's closing.
        """
        loop, closed = current_event_loop(), anyio.Event()

        def close(error: BaseException | None) -> None:
            try:
                self._error = error
                self._run(self._close)
            except BaseException as exc:  # noqa: BLE001 - raised where the closing is waited for
                self._error = exc
            finally:
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(closed.set)

        if self._step is None or not self._step.follow(close):
            await anyio.to_thread.run_sync(self._run, self._close, abandon_on_cancel=True, limiter=threads_of_closing())
            return
        await closed.wait()
        if self._error is not None:
            raise self._error

    def _run(self, function: Callable[[], Any]) -> Any:
        if self._context is None:
            self._context = copy_context()
        return self._context.run(function)

    def _next(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._content)
        return next(self._iterator, _END)

    def _close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


def threads_of_iterators() -> anyio.CapacityLimiter:
    """Return what limits the steps of sync iterators in this event loop; its ``total_tokens`` may be set.

    :raises ConfigurationError: no event loop runs in this thread.
    """
    if running_event_loop() is None:
        raise ConfigurationError(
            "each event loop has its own threads of iterators, and none runs here; call this in the app's lifespan"
        )
    loop = current_event_loop()
    limiter: anyio.CapacityLimiter | None = loop.locals.get(KEY)
    if limiter is None:
        limiter = loop.locals[KEY] = anyio.CapacityLimiter(THREADS)
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
    if isinstance(content, Response):
        return "to answer without a stream, return it from on_connect or from the route"
    if callable(content):
        return "call it"
    return "write an async generator"
