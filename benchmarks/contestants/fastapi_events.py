"""FastAPI's own events with a queue for each client."""

from __future__ import annotations

from collections.abc import AsyncIterable

import fastapi.routing
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

from benchmarks.contestants.contestant import Contestant, Queues, Terms
from benchmarks.contestants.peers import items
from benchmarks.payload import HELLO, NAME, Published

__all__ = ["events"]


def events(terms: Terms) -> Contestant:
    """Stream by FastAPI's response class."""
    fastapi.routing._PING_INTERVAL = terms.ping  # type: ignore[attr-defined]  # noqa: SLF001 - no public setting
    queues = Queues(terms)
    app = FastAPI()

    @app.get("/", response_class=EventSourceResponse)
    async def endpoint() -> AsyncIterable[ServerSentEvent]:
        async for item in items(queues, ServerSentEvent(raw_data=HELLO)):
            yield item

    async def publish(events: Published) -> None:
        for number, data in events:
            queues.put(ServerSentEvent(raw_data=data, event=NAME, id=str(number)))

    return Contestant(app=app, publish=publish)
