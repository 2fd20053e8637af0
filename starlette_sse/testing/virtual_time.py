"""Event loops on which waiting takes no time: their clock jumps to the next timer when everybody waits.

A worker thread takes real time, so the clock stands still while one is at work, up to :data:`~.thread_watch.PATIENCE`.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
from collections.abc import Hashable
from typing import Any, Protocol

from starlette_sse.exceptions import ConfigurationError, MissingDependencyError
from starlette_sse.testing.thread_watch import PATIENCE, ThreadWatch

__all__ = ["AsyncioVirtualClock", "VirtualClock", "VirtualTimeLoop", "clock_of", "virtual_backend"]

#: In seconds: what an event loop adds to the time before it looks which timers are due, or less.
RESOLUTION = 1e-9


class VirtualClock(Protocol):
    """What :class:`trio.testing.MockClock` and :class:`AsyncioVirtualClock` have in common."""

    def current_time(self) -> float:
        """Return the time in seconds, as ``anyio.current_time()`` does."""

    def jump(self, seconds: float) -> None:
        """Let so many seconds pass."""


class AsyncioVirtualClock:
    """A clock for asyncio that jumps to the next timer; called, it makes an event loop that goes by it."""

    def __init__(self) -> None:
        self._now = 0.0

    def current_time(self) -> float:
        """Return the time in seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let so many seconds pass.

        :raises ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError("time can't go backwards")
        self._now += seconds

    def pass_to_timer(self, seconds: float) -> None:
        """Let the time to the next timer pass, which is then due."""
        self.jump(seconds)
        if self._now + RESOLUTION == self._now:
            # The event loop adds this, and would not find it due.
            self._now = math.nextafter(self._now, math.inf)

    def __call__(self) -> VirtualTimeLoop:
        return VirtualTimeLoop(self)


class JumpingSelector(selectors.DefaultSelector):
    """Lets the time that an event loop would wait pass at once, if no I/O is ready and no thread at work."""

    def __init__(self, clock: AsyncioVirtualClock, threads: ThreadWatch) -> None:
        super().__init__()
        self._clock = clock
        self._threads = threads
        #: Waiting takes its time.
        self.in_real_time = False

    def select(self, timeout: float | None = None) -> Any:
        # Without a timer there is nothing to jump to, so it is I/O or a thread that the loop waits for.
        ready = super().select(None if timeout is None else 0)
        if not timeout or ready:
            return ready
        if self.in_real_time:
            ready = super().select(timeout)
        elif self._threads.are_awaited():
            ready = super().select(PATIENCE)
            if not ready:
                self._threads.give_up()
        if not ready:
            self._clock.pass_to_timer(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop on virtual time."""

    def __init__(self, clock: AsyncioVirtualClock) -> None:
        self._clock = clock
        self._jobs: set[asyncio.Future[Any]] = set()
        self._selector_in_use = JumpingSelector(clock, ThreadWatch(self._work_in_threads))
        super().__init__(self._selector_in_use)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._clock.current_time()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """Call ``func`` in a thread of ``executor``; time stands still meanwhile."""
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the default executor's threads in real time, or its limit would be over at once."""
        self._selector_in_use.in_real_time = True
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._selector_in_use.in_real_time = False

    def _work_in_threads(self) -> set[Hashable]:
        return {*self._jobs, *work_of_anyio(self)}


def work_of_anyio(loop: asyncio.AbstractEventLoop) -> set[Hashable]:
    """Return what stands for the work of anyio's threads, whatever limiters they keep to.

    Nothing public tells it: limiters are anybody's, as FastAPI makes one for each dependency that ends.
    """
    threads: list[Any] = threading.enumerate()
    # Others may have a loop as well.
    workers = [each for each in threads if getattr(each, "loop", None) is loop and hasattr(each, "idle_workers")]
    # One that goes from one piece of work to the next was idle in between.
    return {(worker, worker.idle_since) for worker in workers if worker not in worker.idle_workers}


def virtual_backend(name: str) -> tuple[str, dict[str, Any]]:
    """Return the value of anyio's ``anyio_backend`` fixture for an event loop on virtual time.

    :param name: ``trio`` or ``asyncio``.
    :raises ConfigurationError: it is another.
    :raises MissingDependencyError: trio is asked for and not installed.
    """
    if name == "asyncio":
        return "asyncio", {"loop_factory": AsyncioVirtualClock()}
    if name != "trio":
        raise ConfigurationError(f"there is a virtual clock for trio and for asyncio, not for {name!r}")
    try:
        from trio.testing import MockClock  # noqa: PLC0415 - trio is optional

        from starlette_sse.testing.trio_threads import ThreadInstrument  # noqa: PLC0415 - it imports trio
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            'virtual time on trio needs trio: pip install "starlette_sse[testing]"; '
            "or set sse_virtual_clock = asyncio for pytest"
        ) from error
    clock = MockClock(autojump_threshold=0)
    return "trio", {"clock": clock, "instruments": [ThreadInstrument(clock)]}


def clock_of(backend: Any) -> VirtualClock:
    """Return the clock of an ``anyio_backend`` that :func:`virtual_backend` made, or that is like it.

    :raises ConfigurationError: it has none.
    """
    options = backend[1] if isinstance(backend, tuple) else {}
    clock: Any = options.get("clock") or options.get("loop_factory")
    if not hasattr(clock, "jump"):
        raise ConfigurationError(
            f"the test asks for virtual_clock, but runs on the anyio_backend {backend!r}, which has none; leave out "
            "either, or choose starlette_sse.testing.virtual_backend('trio')"
        )
    found: VirtualClock = clock
    return found
