"""An app whose responses end with an event that no window of HTTP/2 holds."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from starlette_sse import EventSourceResponse, lifespan, open_streams

__all__ = ["app"]


async def large(request: Request) -> EventSourceResponse:
    async def events() -> AsyncIterator[str]:
        yield "x" * 2**20

    return EventSourceResponse(events())


async def states(request: Request) -> JSONResponse:
    return JSONResponse(["open" if stream.reason is None else "ending" for stream in open_streams()])


app = Starlette(routes=[Route("/large", large), Route("/states", states)], lifespan=lifespan)
