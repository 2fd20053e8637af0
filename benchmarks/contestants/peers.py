"""What people use today, each as its own documentation shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.contestants.contestant import Contestant, Queues, Terms
from benchmarks.contestants.raw import START, Sends
from benchmarks.payload import CHANNEL, HELLO, NAME, Published

__all__ = ["endpoint", "items", "sse_starlette", "sse_starlette_redis", "streaming"]


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


def sse_starlette_redis(terms: Terms) -> Contestant:
    """sse-starlette in one of several processes: its one listener to Redis feeds a queue for each client."""
    from redis.asyncio import Redis
    from sse_starlette import EventSourceResponse, ServerSentEvent

    queues = Queues(terms)
    redis = Redis.from_url(terms.redis, decode_responses=True)

    async def listen(pubsub: Any) -> None:
        async for message in pubsub.listen():
            if message["type"] == "message":
                number, _, data = message["data"].partition(" ")
                queues.put(ServerSentEvent(data=data, event=NAME, id=number))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with redis, redis.pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL)
            listener = asyncio.create_task(listen(pubsub))
            yield
            listener.cancel()

    async def endpoint(request: Request) -> EventSourceResponse:
        return EventSourceResponse(items(queues, {"data": HELLO}), ping=terms.ping)

    async def publish(events: Published) -> None:
        for number, data in events:
            await redis.publish(CHANNEL, f"{number} {data}")

    return Contestant(app=Starlette(routes=[Route("/", endpoint)], lifespan=lifespan), publish=publish)


def streaming(terms: Terms) -> Contestant:
    """Starlette's StreamingResponse; the frames are written by hand."""
    queues = Queues(terms)

    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(items(queues, f"data: {HELLO}\r\n\r\n".encode()), media_type="text/event-stream")

    async def publish(events: Published) -> None:
        for number, data in events:
            queues.put(f"id: {number}\r\nevent: {NAME}\r\ndata: {data}\r\n\r\n".encode())

    return Contestant(app=Starlette(routes=[Route("/", endpoint)]), publish=publish)


def endpoint(terms: Terms) -> Contestant:
    """A class endpoint that does by hand what the cheapest ASGI app does: the rest is Starlette's."""
    sends = Sends()

    class Feed(HTTPEndpoint):
        async def dispatch(self) -> None:
            request = Request(self.scope, self.receive)
            await self.send(START)
            await sends.stream(request.receive, self.send)

    return Contestant(app=Starlette(routes=[Route("/", Feed)]), publish=sends.publish)
