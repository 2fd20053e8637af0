"""Litestar's events over its channels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, get
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.base import ChannelsBackend
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.response import ServerSentEvent, ServerSentEventMessage

from benchmarks.contestants.contestant import Contestant, Terms
from benchmarks.payload import CHANNEL, HELLO, NAME, Published

__all__ = ["channels"]


def backend(terms: Terms) -> ChannelsBackend:
    if not terms.redis:
        return MemoryChannelsBackend()
    from litestar.channels.backends.redis import RedisChannelsPubSubBackend
    from redis.asyncio import Redis

    return RedisChannelsPubSubBackend(redis=Redis.from_url(terms.redis))


def channels(terms: Terms) -> Contestant:
    """Stream what a subscriber of the plugin gets."""
    plugin = ChannelsPlugin(backend=backend(terms), channels=[CHANNEL])

    async def stream() -> AsyncIterator[ServerSentEventMessage]:
        async with plugin.start_subscription([CHANNEL]) as subscriber:
            yield ServerSentEventMessage(data=HELLO)
            async for item in subscriber.iter_events():
                yield ServerSentEventMessage(data=item.decode(), event=NAME)

    @get("/")
    async def endpoint() -> ServerSentEvent:
        return ServerSentEvent(stream())

    async def publish(events: Published) -> None:
        for _, data in events:
            plugin.publish(data.encode(), [CHANNEL])

    app: Any = Litestar([endpoint], plugins=[plugin])
    return Contestant(app=app, publish=publish)
