"""A clock, and a stream that fails half-way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import anyio
from starlette.requests import Request

from starlette_sse import ServerSentEvent, SSEEndpoint

__all__ = ["Clock", "Fails"]


class Clock(SSEEndpoint):
    """Tells the server's time every second, each tick with a number that shows a gap."""

    retry = 1000

    async def events(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        number = 0
        while True:
            number += 1
            yield ServerSentEvent({"now": time.time(), "number": number}, event="tick", id=str(number))
            await anyio.sleep(1)


class Fails(SSEEndpoint):
    """Fails half-way: the client is told by a ``stream-error`` event, the log has the traceback."""

    retry = 1000

    async def events(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        for percent in (25, 50):
            yield ServerSentEvent({"percent": percent}, event="progress")
            await anyio.sleep(0.2)
        raise RuntimeError("this stream fails half-way, to show what its client is told")
