"""The streams of one worker process; run by ``uvicorn tests.soak.broadcast.app:app``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import starlette_sse
from starlette_sse import ChannelEndpoint
from tests.soak.broadcast.brokers import broker_at

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))

broker = broker_at(os.environ["BROKER"])


class Disconnected(ChannelEndpoint):
    broker = broker
    ping_interval = 1.0
    observers = ()

    async def channels(self, request: Request) -> Sequence[str]:
        return request.query_params["channels"].split(",")


class Reset(Disconnected):
    on_lag = "reset"


class Latest(Disconnected):
    on_lag = "latest"


async def health(request: Request) -> Response:
    health = broker.health()
    return JSONResponse(
        {"error": health.error, "subscriptions": health.subscriptions, "tasks": len(asyncio.all_tasks())}
    )


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with broker, starlette_sse.lifespan(app) as state:
        yield state


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/disconnect", Disconnected),
        Route("/reset", Reset),
        Route("/latest", Latest),
    ],
    lifespan=lifespan,
)
