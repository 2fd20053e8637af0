"""The app: the page, its files, a route for each panel, and what runs beside the requests."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import starlette_sse
from example_app.answers import Answer
from example_app.chaos import Chaos, flood, order
from example_app.chat import Chat, Presence, say
from example_app.clock import Clock, Fails
from example_app.inspector import Inspector, tell_log, tell_streams
from example_app.jobs import JobBoard, Jobs, start_job
from example_app.live import Live
from example_app.metrics import Metrics, Sampler
from example_app.news import News, broker
from starlette_sse import BrokerUnavailableError

__all__ = ["app"]

STATIC = Path(__file__).parent / "static"
SOURCES = {endpoint.__name__: endpoint for endpoint in (Answer, Chat, Clock, Fails, Inspector, Jobs, Live, Metrics)}

#: Nothing but the app's own files runs or loads in the page, whatever somebody says in a room.
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Open the broker, run what publishes, and drain the streams before any of it closes."""
    news, presence = News(), Presence()
    async with broker, anyio.create_task_group() as tasks:
        jobs = JobBoard(news, tasks)
        async with starlette_sse.lifespan(app) as state:
            chaos = Chaos(state["starlette_sse"], jobs)
            for task in (news.remember, chaos.obey):
                tasks.start_soon(task)
            for teller in (tell_log, tell_streams, presence.tell, Sampler().run):
                tasks.start_soon(teller, news)
            yield {"news": news, "presence": presence, "jobs": jobs, **state}
        tasks.cancel_scope.cancel()


async def page(request: Request) -> Response:
    """Answer with the one page."""
    return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)


async def broker_is_away(request: Request, error: Exception) -> Response:
    """Answer what would have been published while the broker cannot be reached."""
    return PlainTextResponse("The broker cannot be reached now. Try again in a moment.", 503)


async def source(request: Request) -> Response:
    """Answer with the module that a panel's endpoint is written in."""
    endpoint = SOURCES.get(request.path_params["name"])
    if endpoint is None:
        raise HTTPException(404, f"there is no such endpoint; there are {', '.join(SOURCES)}")
    return PlainTextResponse(inspect.getsource(inspect.getmodule(endpoint) or endpoint), headers=PAGE_HEADERS)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/clock", Clock),
        Route("/fails", Fails),
        Route("/chat/{room}", Chat),
        Route("/jobs", Jobs),
        Route("/answer", Answer),
        Route("/metrics", Metrics),
        Route("/inspector", Inspector),
        Route("/live", Live),
        Route("/say", say, methods=["POST"]),
        Route("/job", start_job, methods=["POST"]),
        Route("/chaos/order", order, methods=["POST"]),
        Route("/chaos/flood", flood, methods=["POST"]),
        Route("/source/{name}", source),
        Mount("/static", StaticFiles(directory=STATIC)),
    ],
    exception_handlers={BrokerUnavailableError: broker_is_away},
    lifespan=lifespan,
)
