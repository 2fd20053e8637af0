"""An app whose server is scraped: ``/metrics`` collects in the event loop, ``/threaded`` in a worker thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from prometheus_client import make_asgi_app
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from starlette_sse import Broker, ChannelEndpoint, SSEEndpoint, lifespan
from starlette_sse.observers import Observer
from starlette_sse.prometheus import PrometheusObserver

__all__ = ["app"]

metrics = PrometheusObserver()


class Busy(SSEEndpoint):
    observers: Sequence[Observer] = (metrics,)

    async def events(self, request: Request) -> AsyncIterator[Any]:
        for number in range(int(request.query_params["events"])):
            yield number
            await checkpoint()
        await anyio.sleep_forever()


class News(ChannelEndpoint):
    broker = Broker(observers=(metrics,))
    observers: Sequence[Observer] = (metrics,)

    async def channels(self, request: Request) -> list[str]:
        return ["news"]


async def announce(request: Request) -> JSONResponse:
    return JSONResponse(await News.broker.publish("news", "snow"))


def threaded(request: Request) -> PlainTextResponse:
    return PlainTextResponse(generate_latest(REGISTRY))


routes = [
    Route("/busy", Busy),
    Route("/news", News),
    Route("/announce", announce),
    Route("/threaded", threaded),
    Mount("/metrics", make_asgi_app()),
]
app = Starlette(routes=routes, lifespan=lifespan)
