"""The panels in one stream: browsers open six connections to a host over HTTP/1.1, and the page leaves some for others.

One id resumes any set of channels, so nothing is lost by joining them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request

from example_app.chat import Chat
from example_app.inspector import Inspector
from example_app.jobs import Jobs
from example_app.metrics import Metrics
from starlette_sse import ServerSentEvent

__all__ = ["Live"]

PANELS = (Chat, Jobs, Metrics, Inspector)


class Live(Chat, Jobs, Metrics, Inspector):
    """A room, the jobs, the metrics and the inspector; its presence and its hooks are the room's."""

    async def channels(self, request: Request) -> Sequence[str]:
        return [channel for panel in PANELS for channel in await panel.channels(self, request)]

    async def snapshot(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        for panel in PANELS:
            async for event in panel.snapshot(self, request):
                yield event
