"""Which worker threads virtual time has to wait for."""

from __future__ import annotations

import anyio
import anyio.to_thread

from starlette_sse.iterators import threads_of_closing, threads_of_iterators

__all__ = ["PATIENCE", "ThreadWatch"]

#: Seconds of real time that threads may take in which nothing else happens; then they are taken to wait for the test.
PATIENCE = 1.0


class ThreadWatch:
    """Counts the threads at work: anyio's that keep to its default limiter or to ours, and asyncio's executors'."""

    def __init__(self) -> None:
        self._limiters: tuple[anyio.CapacityLimiter, ...] = ()
        self._given_up = 0
        #: What executors of asyncio have in hand.
        self.jobs = 0

    def learn(self) -> None:
        """Find the limiters of the event loop; to be called in a task of it."""
        default = anyio.to_thread.current_default_thread_limiter()
        self._limiters = (default, threads_of_iterators(), threads_of_closing())

    def are_awaited(self) -> bool:
        """Tell whether a thread is at work that was not given up."""
        busy = self._busy()
        self._given_up = min(self._given_up, busy)
        return busy > self._given_up

    def give_up(self) -> None:
        """Wait no longer for the threads that are at work."""
        self._given_up = self._busy()

    def _busy(self) -> int:
        return self.jobs + sum(limiter.borrowed_tokens for limiter in self._limiters)
