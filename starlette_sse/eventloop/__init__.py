"""The few things a stream needs of its event loop that anyio does not offer.

A wake-up that costs one future, a timer that costs no task, and one cancellation instead of a lasting one, each
on asyncio and on trio.
"""

from __future__ import annotations

import asyncio
import sys

from anyio.lowlevel import RunVar

from starlette_sse.eventloop.base import Alarm, EventLoop, Waiter
from starlette_sse.eventloop.on_asyncio import AsyncioEventLoop
from starlette_sse.eventloop.shelter import Shelter

__all__ = ["Alarm", "EventLoop", "Shelter", "Waiter", "current_event_loop"]

_current: RunVar[EventLoop] = RunVar("starlette_sse_event_loop")


def current_event_loop() -> EventLoop:
    """Return the running loop's :class:`EventLoop`, one for each run of a loop."""
    loop = _current.get(None)
    if loop is None:
        loop = _new_event_loop()
        _current.set(loop)
    return loop


def _new_event_loop() -> EventLoop:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        from starlette_sse.eventloop.on_trio import TrioEventLoop  # noqa: PLC0415 - trio is optional

        return TrioEventLoop()
    return AsyncioEventLoop(asyncio.get_running_loop())
