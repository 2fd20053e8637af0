"""The clock: a generator of ticks, and pings in the silence between them; and a stream that fails half-way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import anyio
from starlette.requests import Request

from example_app.registry import Inspected
from starlette_sse import ServerSentEvent

__all__ = ["Clock", "Fails"]

#: Seconds of ticks that a client is given again which was away.
REPLAYED = 300


class Clock(Inspected):
    """Ticks every second. A tick's id is its second, so a client that comes back gets the seconds it missed."""

    ping_interval = 0.5

    async def events(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        second = first_second(self.last_event_id, int(time.time()))
        while True:
            await anyio.sleep(max(0, second - time.time()))
            yield ServerSentEvent({"second": second, "late": round(time.time() - second, 3)}, event="tick", id=second)
            second += 1

    def ping_message(self, request: Request) -> ServerSentEvent:
        # A ping is a comment if nobody says otherwise; scripts don't see those, and this page wants to show it.
        return ServerSentEvent("", event="ping")


class Fails(Inspected):
    """Fails half-way: its client is told by a ``stream-error`` event, the log has the traceback."""

    async def events(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        for percent in (20, 40, 60):
            yield ServerSentEvent({"percent": percent}, event="progress")
            await anyio.sleep(0.3)
        raise RuntimeError("this stream fails half-way, to show what its client is told")


def first_second(last_event_id: str | None, now: int) -> int:
    """Return the second to begin with for a client that has seen ``last_event_id``."""
    if last_event_id is None or not last_event_id.isascii() or not last_event_id.isdigit():
        return now
    return min(max(int(last_event_id[:15]) + 1, now - REPLAYED), now + 1)
