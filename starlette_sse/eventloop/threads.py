"""Calls in worker threads, which nobody can interrupt: what becomes of one whose caller is cancelled."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from starlette_sse.eventloop import current_event_loop

__all__ = ["ThreadCall", "threads_of_closing"]

KEY = "starlette_sse_threads_of_closing"


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

    async def ended(self) -> BaseException | None:
        """Wait until no thread runs the function any more, whatever cancels who waits.

        :returns: what it raised, if nobody was there to get it.
        """
        loop, over, raised = self._loop, anyio.Event(), []

        def tell(error: BaseException | None) -> None:
            raised.append(error)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(over.set)

        if not self.follow(tell):
            return None
        while not over.is_set():
            with suppress(loop.cancelled), loop.cancel_scope(shield=True):
                await over.wait()
        return raised[0]

    def _work(self) -> tuple[Any]:
        # In a tuple, as trio takes a coroutine that comes from a thread for a mistake.
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


def threads_of_closing() -> anyio.CapacityLimiter:
    """Return what counts the threads that have to be there when a stream ends, and limits nothing."""
    loop = current_event_loop()
    limiter: anyio.CapacityLimiter | None = loop.locals.get(KEY)
    if limiter is None:
        limiter = loop.locals[KEY] = anyio.CapacityLimiter(math.inf)
    return limiter
