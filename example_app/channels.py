"""A stream of a broker's channels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

from starlette.requests import Request

from starlette_sse import SSEEndpoint
from starlette_sse.broker import Broker

__all__ = ["ChannelEndpoint"]


class ChannelEndpoint(SSEEndpoint):
    """A stream of a broker's channels."""

    broker: ClassVar[Broker]
    subscription: Any = None

    async def channels(self, request: Request) -> Sequence[str]:
        return []

    def snapshot(self, request: Request) -> Any:
        return None

    async def events(self, request: Request) -> AsyncIterator[Any]:
        channels = await self.channels(request)
        async with self.broker.subscribe(
            channels, after=self.last_event_id, on_lag="reset", snapshot=lambda: self.snapshot(request)
        ) as subscription:
            self.subscription = subscription
            while True:
                frames = await subscription.pull()
                if frames:
                    yield frames
