"""The few things a stream needs of its event loop that anyio does not offer.

A wake-up that costs one future, a timer that costs no task, and one cancellation instead of a lasting one:
:mod:`~starlette_sse.eventloop.base` has the contract, and :mod:`~starlette_sse.eventloop.on_asyncio` and
:mod:`~starlette_sse.eventloop.on_trio` meet it. What is made of that for both: a shelter from cancellation
(:mod:`~starlette_sse.eventloop.shelter`), calls in threads (:mod:`~starlette_sse.eventloop.threads`), many callbacks in
one (:mod:`~starlette_sse.eventloop.sprints`), warnings that are given once
(:mod:`~starlette_sse.eventloop.notices`), and the shutdown signals (:mod:`~starlette_sse.eventloop.signals`).
"""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType

from anyio.lowlevel import RunVar

from starlette_sse.eventloop.base import Alarm, Cancellable, EventLoop, TaskGroup, Tasks, Waiter
from starlette_sse.eventloop.on_asyncio import AsyncioEventLoop
from starlette_sse.eventloop.shelter import Shelter

__all__ = [
    "Alarm",
    "Cancellable",
    "EventLoop",
    "Shelter",
    "TaskGroup",
    "Tasks",
    "Waiter",
    "current_event_loop",
    "running_event_loop",
    "running_trio",
]

_of_trio: RunVar[EventLoop] = RunVar("starlette_sse_event_loop")

#: The attribute of an asyncio loop that holds ours; a mapping would keep each loop alive, as ours refers to it.
_OF_ASYNCIO = "_starlette_sse"


def current_event_loop() -> EventLoop:
    """Return the running loop's :class:`EventLoop`, one for each run of a loop."""
    if _in_trio():
        return _trio_event_loop()
    loop = asyncio.get_running_loop()
    found: EventLoop | None = getattr(loop, _OF_ASYNCIO, None)
    if found is None:
        found = AsyncioEventLoop(loop)
        setattr(loop, _OF_ASYNCIO, found)
    return found


def _trio_event_loop() -> EventLoop:
    loop = _of_trio.get(None)
    if loop is None:
        from starlette_sse.eventloop.on_trio import TrioEventLoop  # noqa: PLC0415 - trio is optional

        loop = TrioEventLoop()
        _of_trio.set(loop)
    return loop


def running_event_loop() -> str | None:
    """Return the name of the event loop that runs in this thread, ``asyncio`` or ``trio``."""
    if _in_trio():
        return "trio"
    return None if asyncio._get_running_loop() is None else "asyncio"  # noqa: SLF001 - get_running_loop raises


def running_trio() -> ModuleType | None:
    """Return trio if this is its event loop."""
    return sys.modules["trio"] if _in_trio() else None


def _in_trio() -> bool:
    # Not there yet while another thread imports it, and then nobody runs in it.
    in_trio_run = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    return in_trio_run is not None and in_trio_run()
