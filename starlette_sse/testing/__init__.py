"""Tests for endless streams: an in-process client that reads as the test asks, vanishes, stalls and comes back.

General layout: :class:`SSETestClient` (client) runs an app on a ``Server`` (server, lifespan) and hands out an
:class:`EventStream` (stream, over reader); below it an ``Exchange`` (exchange) is the server's half of one request
(request), and a ``Wire`` (wire) carries its body without a buffer. What comes is kept decoded (received) and compared
(assertions). :class:`StreamingASGITransport` (transport) gives the same exchange to httpx and httpx2, and
:class:`BlockingSSETestClient` (blocking) to tests without an event loop. Hours take no time on the event loops of
virtual_time, which knows what threads are at work (thread_watch, trio_threads); else a test waits for so long
(patience). Pytest's fixtures are in plugin, and the log in logs.

What goes wrong is told to the test (exceptions, problems) by the line of its own that it comes from (caller), with why
its stream has ended (domain) and what was left running (leaks). A broker's backend of one's own is checked by
conformance, which plays processes at its log (peers).

Nothing of it is imported before it is used: pytest loads the plugin in every run, of whoever has the package installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette_sse.testing.assertions import assert_events, assert_gaps
    from starlette_sse.testing.blocking import BlockingEventStream, BlockingSSETestClient
    from starlette_sse.testing.client import Response, SSETestClient
    from starlette_sse.testing.exceptions import (
        ASGIProtocolError,
        NoEventError,
        NotAnEventStreamError,
        StillRunningError,
        StreamCutError,
        StreamEndedError,
        StreamForgottenError,
        StreamTestError,
        UnexpectedEventsError,
    )
    from starlette_sse.testing.leaks import nothing_left_running
    from starlette_sse.testing.logs import CapturedLogs, capture_logs
    from starlette_sse.testing.reader import Ending
    from starlette_sse.testing.received import ReceivedComment, ReceivedEvent
    from starlette_sse.testing.stream import EventStream
    from starlette_sse.testing.transport import StreamingASGITransport
    from starlette_sse.testing.virtual_time import VirtualClock, virtual_backend

__all__ = [
    "ASGIProtocolError",
    "BlockingEventStream",
    "BlockingSSETestClient",
    "CapturedLogs",
    "Ending",
    "EventStream",
    "NoEventError",
    "NotAnEventStreamError",
    "ReceivedComment",
    "ReceivedEvent",
    "Response",
    "SSETestClient",
    "StillRunningError",
    "StreamCutError",
    "StreamEndedError",
    "StreamForgottenError",
    "StreamTestError",
    "StreamingASGITransport",
    "UnexpectedEventsError",
    "VirtualClock",
    "assert_events",
    "assert_gaps",
    "capture_logs",
    "nothing_left_running",
    "virtual_backend",
]

HOMES = {
    "BlockingEventStream": "blocking",
    "BlockingSSETestClient": "blocking",
    "CapturedLogs": "logs",
    "Ending": "reader",
    "EventStream": "stream",
    "ReceivedComment": "received",
    "ReceivedEvent": "received",
    "Response": "client",
    "SSETestClient": "client",
    "StreamingASGITransport": "transport",
    "VirtualClock": "virtual_time",
    "assert_events": "assertions",
    "assert_gaps": "assertions",
    "capture_logs": "logs",
    "nothing_left_running": "leaks",
    "virtual_backend": "virtual_time",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES.get(name, 'exceptions')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
