"""An app of several processes, which end each other's streams by a broker at the URL in the environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import starlette_sse
from starlette_sse import Broker, SSEEndpoint
from starlette_sse.closing import close_everywhere, follow_closes

__all__ = ["app"]

broker = Broker(os.environ["SSE_TEST_BROKER"])


class Ticks(SSEEndpoint):
    def client_key(self, request: Request) -> str:
        return request.query_params["user"]

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield os.getpid()
        await anyio.sleep_forever()


class Others(Ticks):
    pass


async def close(request: Request) -> Response:
    if "user" in request.query_params:
        await close_everywhere(broker, client_key=request.query_params["user"])
    else:
        await close_everywhere(broker, endpoint=Others)
    return Response(status_code=204)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with broker, follow_closes(broker), starlette_sse.lifespan(app) as state:
        yield state


routes = [Route("/ticks", Ticks), Route("/others", Others), Route("/close", close, methods=["POST"])]
app = Starlette(routes=routes, lifespan=lifespan)
