"""How long a test waits: not for ever, and by the clock that it runs on."""

from __future__ import annotations

import asyncio
import math

from starlette_sse.eventloop import running_trio
from starlette_sse.testing.virtual_time import VirtualTimeLoop

__all__ = ["default_timeout", "told"]

REAL = 5.0
VIRTUAL = 4 * 3600.0


def default_timeout() -> float:
    """Return the seconds that a read waits if the test does not say: 5, or four hours of virtual time."""
    return VIRTUAL if has_virtual_clock() else REAL


def has_virtual_clock() -> bool:
    """Tell whether the running event loop is one of :mod:`~starlette_sse.testing.virtual_time`."""
    trio = running_trio()
    if trio is None:
        return isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    from trio.testing import MockClock  # noqa: PLC0415 - trio is optional

    return isinstance(trio.lowlevel.current_clock(), MockClock)


def told(seconds: float) -> str:
    """Return a time as a message tells it."""
    return "any time" if seconds == math.inf else f"{seconds:g} s"
