"""Event loops on which waiting takes no time: their clock jumps to the next timer when everybody waits."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any, Protocol

from starlette_sse.exceptions import ConfigurationError, MissingDependencyError

__all__ = ["AsyncioVirtualClock", "VirtualClock", "VirtualTimeLoop", "clock_of", "virtual_backend"]


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

    def __call__(self) -> VirtualTimeLoop:
        return VirtualTimeLoop(self)


class JumpingSelector(selectors.DefaultSelector):
    """Lets the time that an event loop would wait pass at once, if no I/O is ready."""

    def __init__(self, clock: AsyncioVirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        # Without a timer there is nothing to jump to, so it is I/O or a thread that the loop waits for.
        ready = super().select(None if timeout is None else 0)
        if timeout and not ready:
            self._clock.jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop on virtual time."""

    def __init__(self, clock: AsyncioVirtualClock) -> None:
        self._clock = clock
        super().__init__(JumpingSelector(clock))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._clock.current_time()


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
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "virtual time on trio needs trio: pip install trio; or set sse_virtual_clock = asyncio for pytest"
        ) from error
    return "trio", {"clock": MockClock(autojump_threshold=0)}


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
