"""The app of the soak: every kind of stream, each doing what its request's script says, and a journal of its life."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import anyio
from anyio import get_cancelled_exc_class, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import starlette_sse
from starlette_sse import (
    Broker,
    ChannelEndpoint,
    CloseReason,
    EndpointResponse,
    EventSourceResponse,
    ServerSentEvent,
    SSEEndpoint,
)
from starlette_sse.closing import close_everywhere, follow_closes
from starlette_sse.eventloop.threads import threads_of_closing
from starlette_sse.iterators import threads_of_iterators
from starlette_sse.observers import Observer, StreamFacts
from starlette_sse.registry import visitors
from tests.servers.journal import note, tasks
from tests.soak.lifecycle.plans import CLEANUP_TIMEOUT, DRAIN_GRACE, MOST_OPEN, PLANNED, SEND_TIMEOUT, Script

__all__ = ["app"]

#: Seconds that a slow hook takes, and that a stubborn generator does not listen.
SLOW = 0.15

broker = Broker(observers=())
published = count()
publishing = anyio.Lock()


def script_of(request: Request) -> Script:
    return Script.parse(request.query_params["script"])


def name_of(request: Request) -> str:
    name: str = request.path_params["name"]
    return name


def misfortune(script: Script, moment: str) -> None:
    """Raise what is planned for this moment, if anything is."""
    if script.raises == moment:
        raise HTTPException(418, f"{PLANNED} {moment}") if script.http else RuntimeError(f"{PLANNED} {moment}")


async def trouble(request: Request, moment: str) -> None:
    script = script_of(request)
    if script.slow == moment:
        await anyio.sleep(SLOW)
    misfortune(script, moment)


def trouble_in_thread(request: Request, moment: str) -> None:
    script = script_of(request)
    if script.slow == moment:
        time.sleep(SLOW)
    misfortune(script, moment)


def stopped() -> bool:
    """Tell in a ``finally`` whether it was not come to by the generator itself."""
    error = sys.exc_info()[1]
    return error is not None and not isinstance(error, Exception)


def told(number: int, size: int) -> Mapping[str, str]:
    return {"event": "told", "data": f"{number} {'x' * size}"}


async def rest(script: Script) -> None:
    """Wait between two events; who is stubborn goes on for a while when interrupted, and the deaf one hears nothing."""
    try:
        if script.shape != "busy":
            await anyio.sleep(script.pause)
    except get_cancelled_exc_class():
        if script.shape == "stubborn":
            with anyio.CancelScope(shield=True):
                await anyio.sleep(SLOW)
        if script.shape != "deaf":
            raise


async def tell(script: Script, name: str) -> AsyncGenerator[Any, None]:
    note("begun", name=name)
    try:
        misfortune(script, "at first")
        async with AsyncExitStack() as held:
            if script.shape == "group":
                beside = await held.enter_async_context(anyio.create_task_group())
                beside.start_soon(anyio.sleep_forever)
                held.callback(beside.cancel_scope.cancel)
            elif script.shape == "shield":
                held.enter_context(anyio.CancelScope(shield=True))
            elif script.shape == "silent":
                await anyio.sleep_forever()
            await rest(script)
            misfortune(script, "late")
            for number in range(script.events):
                yield told(number, script.size)
                await rest(script)
            misfortune(script, "after")
    finally:
        note("finally", name=name, stopped=stopped())
        await anyio.sleep(script.cleanup)
        misfortune(script, "finally")
        note("cleaned", name=name)


def tell_in_threads(script: Script, name: str) -> Iterator[Any]:
    note("begun", name=name)
    try:
        misfortune(script, "at first")
        time.sleep(script.pause)
        misfortune(script, "late")
        for number in range(script.events):
            yield told(number, script.size)
            if script.shape != "busy":
                time.sleep(script.pause)
        misfortune(script, "after")
    finally:
        note("finally", name=name, stopped=stopped())
        time.sleep(script.cleanup)
        misfortune(script, "finally")
        note("cleaned", name=name)


class Journalist(Observer):
    """Writes what observers are told."""

    def opened(self, stream: StreamFacts) -> None:
        self.note(stream, "opened")

    def failed(self, stream: StreamFacts, error: BaseException, *, during: str, propagates: bool) -> None:
        self.note(stream, "failed", error=repr(error)[:200], during=during, propagates=propagates)

    def closed(self, stream: StreamFacts, reason: CloseReason, error: BaseException | None) -> None:
        self.note(stream, "closed", reason=reason.value, events=stream.events)

    def rejected(self, endpoint: str, path: str, reason: str) -> None:
        note("rejected", name=path.rpartition("/")[2], reason=reason)

    def note(self, stream: StreamFacts, what: str, **details: Any) -> None:
        note(what, name=stream.identity.path.rpartition("/")[2], **details)


class Soaked(SSEEndpoint):
    """What all endpoints of the soak have in common."""

    methods = ("GET", "POST")
    ping_interval = 0.1
    send_timeout = SEND_TIMEOUT
    cleanup_timeout = CLEANUP_TIMEOUT
    drain_grace = DRAIN_GRACE
    authorize_interval = 0.5
    observers = (Journalist(),)
    let_in = False

    def client_key(self, request: Request) -> str:
        misfortune(script_of(request), "client_key")
        return name_of(request)[-1]

    def ping_message(self, request: Request) -> ServerSentEvent:
        misfortune(script_of(request), "ping_message")
        return super().ping_message(request)

    def arrange(self, request: Request) -> None:
        script, self.let_in = script_of(request), True
        self.max_lifetime = script.lifetime
        self.drain_policy = "finish" if script.policy == "finish" else "close"
        note("connected", name=name_of(request))


class Awaited(Soaked):
    async def authorize(self, request: Request) -> None:
        await trouble(request, "reauthorize" if self.let_in else "authorize")

    async def on_connect(self, request: Request) -> None:
        await trouble(request, "on_connect")
        self.arrange(request)

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        note("disconnected", name=name_of(request), reason=reason.value)
        await trouble(request, "on_disconnect")
        note("left", name=name_of(request))

    async def on_error(self, request: Request, error: Exception) -> ServerSentEvent | None:
        await trouble(request, "on_error")
        event: ServerSentEvent | None = await super().on_error(request, error)
        return event

    async def on_drain(self, request: Request) -> ServerSentEvent | None:
        await trouble(request, "on_drain")
        event: ServerSentEvent | None = await super().on_drain(request)
        return event


class Told(Awaited):
    def events(self, request: Request) -> AsyncIterator[Any]:
        return tell(script_of(request), name_of(request))


class Crowded(Told):
    max_connections = MOST_OPEN
    max_connections_per_client = 2


class Cut(Told):
    async def on_error(self, request: Request, error: Exception) -> None:
        await trouble(request, "on_error")


class News(Awaited, ChannelEndpoint):
    broker = broker

    async def channels(self, request: Request) -> list[str]:
        return ["news"]


class Plain(Soaked):
    """All of its hooks are plain functions, and run in worker threads."""

    def authorize(self, request: Request) -> None:
        trouble_in_thread(request, "reauthorize" if self.let_in else "authorize")

    def on_connect(self, request: Request) -> None:
        trouble_in_thread(request, "on_connect")
        self.arrange(request)

    def events(self, request: Request) -> Iterator[Any]:
        return tell_in_threads(script_of(request), name_of(request))

    def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        note("disconnected", name=name_of(request), reason=reason.value)
        trouble_in_thread(request, "on_disconnect")
        note("left", name=name_of(request))

    def on_error(self, request: Request, error: Exception) -> Any:
        trouble_in_thread(request, "on_error")
        return super().on_error(request, error)

    def on_drain(self, request: Request) -> Any:
        trouble_in_thread(request, "on_drain")
        return super().on_drain(request)


class WatchedResponse(EventSourceResponse):
    observers = (Journalist(),)


async def response(request: Request) -> Response:
    script, name = script_of(request), name_of(request)

    async def gone(_: object) -> None:
        note("disconnected", name=name)
        await trouble(request, "on_disconnect")
        note("left", name=name)

    if request.method != "HEAD":
        note("connected", name=name)
    return WatchedResponse(
        tell(script, name),
        ping=0.1,
        send_timeout=SEND_TIMEOUT,
        cleanup_timeout=CLEANUP_TIMEOUT,
        shutdown_grace_period=DRAIN_GRACE if script.policy == "finish" else 0,
        client_close_handler_callable=gone,
    )


async def given(request: Request) -> Response:
    return EndpointResponse(Told)


async def publish(request: Request) -> Response:
    async with publishing:
        for _ in range(int(request.query_params["count"])):
            await broker.publish("news", told(next(published), int(request.query_params["size"])))
    return JSONResponse({})


async def upset(request: Request) -> Response:
    what = request.path_params["what"]
    note("upset", to=what)
    if what == "drain":
        starlette_sse.drain()
    elif what == "close":
        starlette_sse.close()
    else:
        await close_everywhere(broker)
    return JSONResponse({})


async def vitals(request: Request) -> Response:
    limit = Crowded._sse_configuration.limit
    limiters = (threads_of_iterators(), threads_of_closing(), to_thread.current_default_thread_limiter())
    held = {
        "files": len(os.listdir("/proc/self/fd")),
        "places": 0 if limit is None else len(limit),
        "streams": len(starlette_sse.open_streams()),
        "threads": sum(limiter.borrowed_tokens for limiter in limiters),
        "visitors": len(visitors),
    }
    return JSONResponse({**held, **{f"task {name}": number for name, number in tasks().items()}})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with broker, follow_closes(broker), starlette_sse.lifespan(app) as state:
        yield dict(state)
    note("stopped")


app = Starlette(
    routes=[
        *(Route(f"/{kind.__name__.lower()}/{{name}}", kind) for kind in (Told, Plain, Crowded, Cut, News)),
        Route("/response/{name}", response, methods=["GET", "POST"]),
        Route("/given/{name}", given, methods=["GET", "POST"]),
        Route("/publish", publish),
        Route("/upset/{what}", upset),
        Route("/vitals", vitals),
    ],
    lifespan=lifespan,
)
