"""The app that every server runs here: its streams yield what the test writes, and a journal tells what happened.

A stream named ``name`` connects to the test's :class:`~tests.servers.control.Control` and yields one event for each
line of JSON that it reads there, so the test decides when each event comes and no one sleeps. The journal is a file of
JSON lines, one for each thing the endpoint saw.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from anyio.streams.buffered import BufferedByteReceiveStream
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

import starlette_sse
from starlette_sse import CloseReason, EventSourceResponse, ServerSentEvent, SSEEndpoint
from tests.servers.journal import note, tasks

__all__ = ["app"]

CONTROL_PORT = int(os.environ["SSE_TEST_CONTROL"])


def sockets() -> int:
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.islink(link))


async def told(name: str, cleanup: float, **hello: Any) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield a hello, then what the test writes to the stream ``name``, then end when it says so."""
    try:
        async with await anyio.connect_tcp("127.0.0.1", CONTROL_PORT) as control:
            await control.send(f"{name}\n".encode())
            lines = BufferedByteReceiveStream(control)
            yield ServerSentEvent({"name": name, "pid": os.getpid(), **hello}, event="hello")
            while fields := json.loads(await lines.receive_until(b"\n", 2**20)):
                if "raises" in fields:
                    raise RuntimeError(fields["raises"])
                yield ServerSentEvent(**fields)
    finally:
        # What is awaited here must still complete when the client has gone or the server stops.
        await anyio.sleep(cleanup)
        note("finally", name=name)


class Stream(SSEEndpoint):
    methods = ("GET", "POST")

    async def on_connect(self, request: Request) -> None:
        self.name = request.query_params["name"]
        self.cleanup = float(request.query_params["cleanup"])
        self.body = (await request.body()).decode()
        note("connect", name=self.name)

    def events(self, request: Request) -> AsyncGenerator[ServerSentEvent, None]:
        return told(self.name, self.cleanup, body=self.body, last_event_id=self.last_event_id)

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        await anyio.sleep(self.cleanup)
        note("disconnect", name=self.name, reason=reason.value)


class Cut(Stream):
    """Its error propagates and the body is cut."""

    async def on_error(self, request: Request, error: Exception) -> None:
        return None


class Silent(SSEEndpoint):
    async def events(self, request: Request) -> AsyncGenerator[ServerSentEvent, None]:
        await anyio.sleep_forever()
        yield ServerSentEvent("never")


async def response(request: Request) -> Response:
    return respond(request.query_params["name"], float(request.query_params["cleanup"]))


def respond(name: str, cleanup: float) -> EventSourceResponse:
    async def gone(_: object) -> None:
        await anyio.sleep(cleanup)
        note("disconnect", name=name, reason="close handler")

    note("connect", name=name)
    return EventSourceResponse(told(name, cleanup), client_close_handler_callable=gone)


async def echo(request: Request) -> Response:
    """Stream the request's body, which nobody has read before the content does."""

    async def content() -> AsyncIterator[Any]:
        body = await request.body()
        yield f"{len(body)} {body[:1].decode()}{body[-1:].decode()}"

    return EventSourceResponse(content())


async def vitals(request: Request) -> Response:
    return JSONResponse({"pid": os.getpid(), "tasks": tasks(), "sockets": sockets()})


async def page(request: Request) -> Response:
    return HTMLResponse("<!doctype html><title>A page for EventSource</title>")


api = FastAPI()


@api.get("/response", response_class=EventSourceResponse)
async def fastapi_response(name: str, cleanup: float) -> EventSourceResponse:
    return respond(name, cleanup)


class PassingMiddleware(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        answer = await call_next(request)
        answer.headers["x-passed"] = "yes"
        return answer


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    before = tasks()
    async with starlette_sse.lifespan(app) as state:
        note("started")
        yield dict(state)
    # The middleware around a stream returns a few steps of the loop after it.
    for _ in range(20):
        await checkpoint()
    note("stopped", tasks=Counter(tasks()) - before)


api.router.routes += [Route("/stream", Stream), Route("/cut", Cut)]
routes = [
    Route("/stream", Stream),
    Route("/cut", Cut),
    Route("/silent", Silent),
    Route("/response", response),
    Route("/echo", echo, methods=["POST"]),
    Route("/vitals", vitals),
    Route("/page", page),
]
app = Starlette(
    routes=[
        *routes,
        Mount("/base", routes=routes, middleware=[Middleware(PassingMiddleware)]),
        Mount("/gzip", routes=routes, middleware=[Middleware(GZipMiddleware, minimum_size=1)]),
        Mount("/cors", routes=routes, middleware=[Middleware(CORSMiddleware, allow_origins=["https://example.org"])]),
        Mount("/fastapi", api),
    ],
    lifespan=lifespan,
)
