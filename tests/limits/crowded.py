"""An app with one place, for real servers and clients; a page at ``/page`` for a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from starlette_sse import SSEEndpoint, lifespan, open_streams, refusals

__all__ = ["app"]

# A browser that is refused comes back in 5 to 15 seconds; the tests would only wait for it.
refusals.COME_BACK = (0.5, 1.5)


class Crowded(SSEEndpoint):
    max_connections = 1

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield {"data": request.query_params.get("name", ""), "event": "hello"}
        await anyio.sleep_forever()


class CrowdedByOne(Crowded):
    max_connections = 100
    max_connections_per_client = 1


class CrowdedByTwenty(Crowded):
    max_connections = 20


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>crowded</title>")


async def listed(request: Request) -> JSONResponse:
    return JSONResponse([stream.connection_id for stream in open_streams() if stream.path == "/twenty"])


routes = [
    Route("/total", Crowded),
    Route("/client", CrowdedByOne),
    Route("/twenty", CrowdedByTwenty),
    Route("/page", page),
    Route("/open", listed),
]
app = Starlette(routes=routes, lifespan=lifespan)
