"""What a stream iterates over; sync iterators as async ones, each step in a worker thread of a limiter only theirs."""

from __future__ import annotations

import inspect
import logging
import math
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from enum import Enum, auto
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from starlette.responses import Response

from starlette_sse.eventloop import current_event_loop, running_event_loop
from starlette_sse.exceptions import ConfigurationError

__all__ = [
    "THREADS",
    "ThreadedIterator",
    "as_async_iterable",
    "as_async_iterator",
    "threads_of_closing",
    "threads_of_iterators",
]

#: How many steps of sync iterators run at once in one event loop, unless an app sets another number.
THREADS = 40

#: Iterables that are one event, not many.
SINGLE = (str, bytes, bytearray, memoryview, Mapping)

KEY = "starlette_sse_threads"
_END = object()


class State(Enum):
    """Where a call in a thread is."""

    WAITING = auto()
    RUNNING = auto()
    LEFT = auto()
    """It runs, and nobody waits for it any more."""
    OVER = auto()
    """It has ended, or will never begin."""


class ThreadCall:
    """One call in a worker thread, which counts for ``limiter`` until the thread has ended it, waited for or not."""

    def __init__(self, function: Callable[[], Any], limiter: anyio.CapacityLimiter) -> None:
        self._function = function
        self._limiter = limiter
        self._loop = current_event_loop()
        self._lock = threading.Lock()
        self._state = State.WAITING
        self._then: Callable[[BaseException | None], None] | None = None

    async def run(self) -> Any:
        """Return what the function returns; who is cancelled here leaves it to its thread."""
        if self._limiter.available_tokens < 1:
            warn(self._limiter)
        await self._limiter.acquire_on_behalf_of(self)
        try:
            (result,) = await anyio.to_thread.run_sync(self._work, abandon_on_cancel=True, limiter=threads_of_closing())
            return result
        finally:
            if self._change({State.RUNNING: State.LEFT}, State.OVER) is not State.LEFT:
                self._limiter.release_on_behalf_of(self)

    def follow(self, function: Callable[[BaseException | None], None]) -> bool:
        """If the call was left to its thread, call ``function`` there behind it, with what it raised."""
        with self._lock:
            if self._state is State.LEFT:
                self._then = function
                return True
            return False

    def _work(self) -> tuple[Any]:
        # In a tuple, as trio takes a coroutine that comes from a thread for a mistake, and would not name the event.
        if self._change({State.WAITING: State.RUNNING}, State.OVER) is State.OVER:
            return (None,)
        error: BaseException | None = None
        try:
            return (self._function(),)
        except BaseException as exc:
            error = exc
            raise
        finally:
            if self._ends_alone():
                if self._then is not None:
                    self._then(error)
                with suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(partial(self._limiter.release_on_behalf_of, self))

    def _change(self, following: Mapping[State, State], otherwise: State) -> State:
        with self._lock:
            self._state = following.get(self._state, otherwise)
            return self._state

    def _ends_alone(self) -> bool:
        with self._lock:
            left = self._state is State.LEFT
            self._state = State.OVER
            return left


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
        self._step = ThreadCall(partial(self._run, self._next), threads_of_iterators())
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
    limiter: anyio.CapacityLimiter = limiters()[0]
    return limiter


def threads_of_closing() -> anyio.CapacityLimiter:
    """Return what counts the threads that have to be there when a stream ends, and limits nothing."""
    return limiters()[1]


def limiters() -> tuple[anyio.CapacityLimiter, anyio.CapacityLimiter]:
    found: tuple[anyio.CapacityLimiter, anyio.CapacityLimiter] | None = current_event_loop().locals.get(KEY)
    if found is None:
        found = current_event_loop().locals[KEY] = anyio.CapacityLimiter(THREADS), anyio.CapacityLimiter(math.inf)
    return found


def warn(limiter: anyio.CapacityLimiter) -> None:
    """Tell, once in each event loop, that streams wait for a thread: nobody would see why they are silent."""
    told = current_event_loop().locals.setdefault(f"{KEY}_told", [])
    if not told:
        told.append(True)
        logging.getLogger("starlette_sse").warning(
            "all %g threads of sync iterators are at work, so further streams wait; write events() as an async "
            "generator, or raise starlette_sse.iterators.threads_of_iterators().total_tokens in the app's lifespan",
            limiter.total_tokens,
        )


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
