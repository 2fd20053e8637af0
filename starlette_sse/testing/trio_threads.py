"""Keeps trio's virtual time from passing while threads are at work."""

from __future__ import annotations

import time

import trio
from trio.testing import MockClock, active_thread_count

from starlette_sse.testing.thread_watch import PATIENCE, ThreadWatch

__all__ = ["ThreadInstrument"]


class ThreadInstrument(trio.abc.Instrument):
    """Sets how long everybody must have waited before a clock jumps: not at all, or longer if threads are at work."""

    def __init__(self, clock: MockClock) -> None:
        self._clock = clock
        # It only counts them. What a run has given up, the first step of the next one forgets.
        self._threads = ThreadWatch(lambda: range(active_thread_count()))
        self._waits_since = 0.0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See whether the step began or ended work in a thread."""
        self._set(PATIENCE if self._threads.are_awaited() else 0)

    def before_io_wait(self, timeout: float) -> None:
        """See when it is that everybody waits."""
        self._waits_since = time.monotonic()

    def after_io_wait(self, timeout: float) -> None:
        """Give the threads up that let everybody wait for too long; the clock jumps now."""
        if self._clock.autojump_threshold and time.monotonic() - self._waits_since >= PATIENCE:
            self._threads.give_up()

    def _set(self, threshold: float) -> None:
        if self._clock.autojump_threshold != threshold:
            self._clock.autojump_threshold = threshold
