"""The inspector: every open stream, why the last ones ended, and the log as it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio
from starlette.requests import Request

from example_app.news import News, broker
from example_app.registry import REGISTRY, Inspected
from starlette_sse import ChannelEndpoint, ServerSentEvent

__all__ = ["Inspector", "tell_log", "tell_streams"]

#: Seconds between two looks at the open streams.
LOOK_INTERVAL = 1.0


class Inspector(Inspected, ChannelEndpoint):
    """The open streams and the log of all workers, as they change."""

    broker = broker

    async def channels(self, request: Request) -> Sequence[str]:
        return ["streams", "log", "flood"]

    async def snapshot(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        news: News = request.state.news
        for channel in ("streams", "log", "flood"):
            yield await news.recall(channel, f"{channel}-so-far")


async def tell_log(news: News) -> None:
    """Publish the log as it grows."""
    while True:
        if await news.announce("log", "log", await REGISTRY.line()):
            REGISTRY.done_with_line()
        else:
            await anyio.sleep(LOOK_INTERVAL)


async def tell_streams(news: News) -> None:
    """Publish this worker's open streams and last ends, again and again."""
    while True:
        await news.announce("streams", "streams", REGISTRY.report(), key=news.worker)
        await anyio.sleep(LOOK_INTERVAL)
