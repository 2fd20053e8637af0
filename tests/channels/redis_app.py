"""One channel on Redis, for several worker processes; run by ``uvicorn tests.channels.redis_app:app``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import starlette_sse
from starlette_sse import Broker, ChannelEndpoint

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))

broker = Broker(os.environ["BROKER"], history=20_000, max_bytes=16 * 1024 * 1024)


class News(ChannelEndpoint):
    broker = broker
    channels = ("news",)
    retry = 100


async def page(request: Request) -> Response:
    return HTMLResponse("<!doctype html><title>news</title>")


async def process(request: Request) -> Response:
    return JSONResponse({"pid": os.getpid()})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with broker, starlette_sse.lifespan(app) as state:
        yield state


app = Starlette(routes=[Route("/", page), Route("/pid", process), Route("/news", News)], lifespan=lifespan)
