"""What people use today, each as its own documentation shows it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.contestants.contestant import Contestant, Queues
from benchmarks.payload import CHANNEL, HELLO, NAME, text

__all__ = ["fastapi", "litestar", "sse_starlette", "streaming"]


async def items(queues: Queues, hello: Any) -> AsyncIterator[Any]:
    """The generator of one connection: a greeting, then what its queue gets."""
    queue = queues.join()
    try:
        yield hello
        while True:
            yield await queue.get()
    finally:
        queues.leave(queue)


def sse_starlette(ping: float) -> Contestant:
    """sse-starlette with a queue for each client."""
    from sse_starlette import EventSourceResponse, ServerSentEvent

    queues = Queues()

    async def endpoint(request: Request) -> EventSourceResponse:
        return EventSourceResponse(items(queues, {"data": HELLO}), ping=ping)

    async def publish(numbers: Sequence[int]) -> None:
        for number in numbers:
            queues.put(ServerSentEvent(data=text(number), event=NAME, id=str(number)))

    return Contestant(app=Starlette(routes=[Route("/", endpoint)]), publish=publish)


def streaming(ping: float) -> Contestant:
    """Starlette's StreamingResponse; the frames are written by hand."""
    queues = Queues()

    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(items(queues, f"data: {HELLO}\r\n\r\n".encode()), media_type="text/event-stream")

    async def publish(numbers: Sequence[int]) -> None:
        for number in numbers:
            queues.put(f"id: {number}\r\nevent: {NAME}\r\ndata: {text(number)}\r\n\r\n".encode())

    return Contestant(app=Starlette(routes=[Route("/", endpoint)]), publish=publish)


def fastapi(ping: float) -> Contestant:
    """FastAPI's own events with a queue for each client; its pings come every 15 seconds."""
    import fastapi.routing
    from fastapi import FastAPI
    from fastapi.sse import EventSourceResponse, ServerSentEvent

    fastapi.routing._PING_INTERVAL = ping  # type: ignore[attr-defined]  # noqa: SLF001 - no public setting
    queues = Queues()
    app = FastAPI()

    @app.get("/", response_class=EventSourceResponse)
    async def endpoint() -> AsyncIterable[ServerSentEvent]:
        async for item in items(queues, ServerSentEvent(raw_data=HELLO)):
            yield item

    async def publish(numbers: Sequence[int]) -> None:
        for number in numbers:
            queues.put(ServerSentEvent(raw_data=text(number), event=NAME, id=str(number)))

    return Contestant(app=app, publish=publish)


def litestar(ping: float) -> Contestant:
    """Litestar's events over its channels."""
    from litestar import Litestar, get
    from litestar.channels import ChannelsPlugin
    from litestar.channels.backends.memory import MemoryChannelsBackend
    from litestar.response import ServerSentEvent, ServerSentEventMessage

    channels = ChannelsPlugin(backend=MemoryChannelsBackend(), channels=[CHANNEL])

    async def events() -> AsyncIterator[ServerSentEventMessage]:
        async with channels.start_subscription([CHANNEL]) as subscriber:
            yield ServerSentEventMessage(data=HELLO)
            async for item in subscriber.iter_events():
                yield ServerSentEventMessage(data=item.decode(), event=NAME)

    @get("/")
    async def endpoint() -> ServerSentEvent:
        return ServerSentEvent(events())

    async def publish(numbers: Sequence[int]) -> None:
        for number in numbers:
            channels.publish(text(number).encode(), [CHANNEL])

    app: Any = Litestar([endpoint], plugins=[channels])
    return Contestant(app=app, publish=publish)
