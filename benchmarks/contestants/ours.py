"""starlette_sse, as a user would write it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

import starlette_sse
from benchmarks.contestants.contestant import Contestant, Queues, Terms
from benchmarks.contestants.peers import items
from benchmarks.payload import CHANNEL, HELLO, NAME, Published
from benchmarks.quiet import quieten
from starlette_sse import Broker, ChannelEndpoint, EventSourceResponse, ServerSentEvent, SSEEndpoint

__all__ = ["channel", "generator", "response"]

quieten(for_good=True)


def event(number: int, data: str) -> ServerSentEvent:
    return ServerSentEvent(data=data, event=NAME, id=str(number))


def app_of(endpoint: Any, lifespan: Any = starlette_sse.lifespan) -> Starlette:
    return Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)


async def drain() -> None:
    starlette_sse.drain()


def generator(terms: Terms) -> Contestant:
    """A class whose generator takes from the connection's queue."""
    queues = Queues(terms)

    class Feed(SSEEndpoint):
        ping_interval = terms.ping

        async def events(self, request: Request) -> AsyncIterator[Any]:
            queue = queues.join()
            try:
                yield {"data": HELLO}
                while True:
                    yield await queue.get()
            finally:
                queues.leave(queue)

    async def publish(events: Published) -> None:
        for number, data in events:
            queues.put(event(number, data))

    return Contestant(app=app_of(Feed), publish=publish, more={"drain": drain})


def response(terms: Terms) -> Contestant:
    """The drop-in for sse-starlette's response."""
    queues = Queues(terms)

    async def endpoint(request: Request) -> EventSourceResponse:
        return EventSourceResponse(items(queues, {"data": HELLO}), ping=terms.ping)

    async def publish(events: Published) -> None:
        for number, data in events:
            queues.put(event(number, data))

    return Contestant(app=app_of(endpoint), publish=publish)


def channel(terms: Terms) -> Contestant:
    """A broadcast over the broker: in memory, or in a Redis."""
    made = Broker(terms.redis or "memory://")

    class Feed(ChannelEndpoint):
        broker = made
        ping_interval = terms.ping

        async def channels(self, request: Request) -> list[str]:
            return [CHANNEL]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[Any]:
        async with made, starlette_sse.lifespan(app) as state:
            yield state

    async def publish(events: Published) -> None:
        for _, data in events:
            await made.publish(CHANNEL, ServerSentEvent(data=data, event=NAME))

    return Contestant(app=app_of(Feed, lifespan), publish=publish, more={"drain": drain})
