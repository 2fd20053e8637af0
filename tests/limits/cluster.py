"""An app of several processes, which count their streams together by a broker at the URL in the environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

import starlette_sse
from starlette_sse import Broker, SSEEndpoint
from starlette_sse.presence import count_together

__all__ = ["app"]

broker = Broker(os.environ["SSE_TEST_BROKER"])


class Few(SSEEndpoint):
    max_connections = 2

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "in"
        await anyio.sleep_forever()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with broker, count_together(broker, Few, interval=0.3), starlette_sse.lifespan(app) as state:
        yield state


app = Starlette(routes=[Route("/few", Few)], lifespan=lifespan)
