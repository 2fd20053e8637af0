"""What people use today, each as its own documentation shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.contestants.contestant import Contestant, Queues, Terms
from benchmarks.payload import HELLO, NAME, Published

__all__ = ["items", "sse_starlette", "streaming"]


async def items(queues: Queues, hello: Any) -> AsyncIterator[Any]:
    """The generator of one connection: a greeting, then what its queue gets."""
    queue = queues.join()
    try:
        yield hello
        while True:
            yield await queue.get()
    finally:
        queues.leave(queue)


def sse_starlette(terms: Terms) -> Contestant:
    """sse-starlette with a queue for each client."""
    from sse_starlette import EventSourceResponse, ServerSentEvent

    queues = Queues(terms)

    async def endpoint(request: Request) -> EventSourceResponse:
        return EventSourceResponse(items(queues, {"data": HELLO}), ping=terms.ping)

    async def publish(events: Published) -> None:
        for number, data in events:
            queues.put(ServerSentEvent(data=data, event=NAME, id=str(number)))

    return Contestant(app=Starlette(routes=[Route("/", endpoint)]), publish=publish)


def streaming(terms: Terms) -> Contestant:
    """Starlette's StreamingResponse; the frames are written by hand."""
    queues = Queues(terms)

    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(items(queues, f"data: {HELLO}\r\n\r\n".encode()), media_type="text/event-stream")

    async def publish(events: Published) -> None:
        for number, data in events:
            queues.put(f"id: {number}\r\nevent: {NAME}\r\ndata: {data}\r\n\r\n".encode())

    return Contestant(app=Starlette(routes=[Route("/", endpoint)]), publish=publish)
