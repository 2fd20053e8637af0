"""Event loops whose clock jumps to the next timer instead of waiting, so that an hour takes no time."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

from trio.testing import MockClock

__all__ = ["virtual_backend"]

A_DAY = 24 * 3600


class JumpingSelector(selectors.DefaultSelector):
    """Passes the time that a loop would wait for at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        # Asyncio asks for a day when no timer is nearer: then a worker thread may be what the loop waits for.
        pause = 0.001 if timeout is not None and timeout >= A_DAY else 0
        ready = super().select(None if timeout is None else pause)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time."""

    def __init__(self) -> None:
        self._clock = JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def virtual_backend(name: str) -> tuple[str, dict[str, Any]]:
    """Return the ``anyio_backend`` for an event loop on virtual time."""
    if name == "trio":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualTimeLoop}
