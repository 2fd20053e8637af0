"""httpx and httpx2, and the libraries built on them, on endless streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import httpx2
import pytest
from httpx_sse import aconnect_sse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from starlette_sse import CloseReason, ServerSentEvent, SSEEndpoint
from starlette_sse.testing import StreamForgottenError, StreamingASGITransport

from .apps import Connection, app, clock, until_gone

pytestmark = pytest.mark.anyio


#: Both libraries leave generators of their own to the garbage collector when a response is not read to its end.
not_exhausted = pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def client_of(library: ModuleType, asgi: Any, **options: Any) -> Any:
    return library.AsyncClient(transport=StreamingASGITransport(asgi, **options), base_url="http://testserver")


class Numbers(SSEEndpoint):
    gone: list[CloseReason]

    async def events(self, request: Request) -> AsyncIterator[Any]:
        number = int(self.last_event_id or 0)
        while True:
            number += 1
            yield ServerSentEvent({"n": number}, id=number, event="number")
            await anyio.lowlevel.checkpoint()

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        self.gone.append(reason)


@not_exhausted
async def test_httpx_sse_reads_an_endless_stream() -> None:
    """The library that httpx users read events with works unchanged, and its end is a disconnect."""
    gone: list[CloseReason] = []
    endpoint = type("Counted", (Numbers,), {"gone": gone})
    async with client_of(httpx, Starlette(routes=[Route("/", endpoint)])) as client:
        async with aconnect_sse(client, "GET", "/", headers={"Last-Event-ID": "6"}) as source:
            events = source.aiter_sse()
            assert [(await anext(events)).id for _ in range(3)] == ["7", "8", "9"]
            await events.aclose()
        assert gone == [CloseReason.CLIENT_GONE]


@not_exhausted
async def test_httpx2_reads_an_endless_stream_by_its_own_means() -> None:
    """Its sse method, too, ends by a disconnect."""
    gone: list[CloseReason] = []
    endpoint = type("Counted", (Numbers,), {"gone": gone})
    async with client_of(httpx2, Starlette(routes=[Route("/", endpoint)])) as client:
        async with client.sse("/") as source:
            events = aiter(source)
            assert [(await anext(events)).json() for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
            await events.aclose()
        assert gone == [CloseReason.CLIENT_GONE]


async def test_chunks_arrive_as_the_app_sends_them(library: ModuleType) -> None:
    """Status and headers first, then each chunk when the test asks for it; nothing is joined or read ahead."""
    sent = []

    async def three(connection: Connection) -> None:
        for number in range(3):
            await connection.event(str(number))
            sent.append(number)

    async with client_of(library, until_gone(three)) as client, client.stream("GET", "/") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (response.http_version, sent) == ("HTTP/1.1", [])
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"data: 0\r\n\r\n"
        await anyio.wait_all_tasks_blocked()
        assert sent == [0]
        assert [chunk async for chunk in chunks] == [b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"]


async def test_requests_arrive_whole(library: ModuleType) -> None:
    """Method, URL, headers and a streamed body are what the app of a real server gets."""

    async def echo(request: Request) -> JSONResponse:
        told = [request.method, str(request.url), request.scope["root_path"], list(request.client or ())]
        return JSONResponse([*told, request.headers["x-key"], (await request.body()).decode()])

    async def body() -> AsyncIterator[bytes]:
        yield b"in "
        yield b"pieces"

    routes = [Route("/a/b c", echo, methods=["POST"])]
    options = {"root_path": "/root", "client": ("10.0.0.1", 9)}
    async with client_of(library, Starlette(routes=routes), **options) as client:
        response = await client.post("/root/a/b%20c?q=%C3%BC", content=body(), headers={"X-Key": "1"})
    assert response.json() == [
        "POST",
        "http://testserver/root/a/b c?q=%C3%BC",
        "/root",
        ["10.0.0.1", 9],
        "1",
        "in pieces",
    ]


async def test_exceptions_of_the_app_surface_where_they_belong(library: ModuleType) -> None:
    """Before the response the request raises the exception, afterwards the stream breaks off and its close raises."""

    async def fail(connection: Connection) -> None:
        if connection.scope["path"] == "/late":
            await connection.start()
            await connection.event("one")
        raise KeyError(connection.scope["path"])

    async with client_of(library, app(fail)) as client:
        with pytest.raises(KeyError, match="/early"):
            await client.get("/early")
        with pytest.raises(KeyError, match="/late"):
            async with client.stream("GET", "/late") as response:
                with pytest.raises(library.RemoteProtocolError, match="GET /late broke off"):
                    await response.aread()
        with pytest.raises(KeyError, match="/late"):
            await client.get("/late")


async def test_without_raising_the_client_sees_what_a_real_one_does(library: ModuleType) -> None:
    """Status 500, or a body that breaks off."""

    async def fail(connection: Connection) -> None:
        if connection.scope["path"] == "/late":
            await connection.start()
        raise KeyError

    async with client_of(library, app(fail), raise_app_exceptions=False) as client:
        assert (await client.get("/early")).status_code == 500
        with pytest.raises(library.RemoteProtocolError) as raised:
            await client.get("/late")
    assert isinstance(raised.value.__cause__, KeyError)


async def test_the_clients_read_timeout_counts_as_on_a_real_connection(library: ModuleType) -> None:
    """A silent stream, or an app that does not respond, times out with the library's own error."""

    async def silent(connection: Connection) -> None:
        if connection.scope["path"] == "/started":
            await connection.start()
        await connection.gone()

    async with client_of(library, app(silent)) as client:
        timeout = library.Timeout(5, read=0.01)
        with pytest.raises(library.ReadTimeout, match=r"GET /mute got no response within 0\.01 s"):
            await client.get("/mute", timeout=timeout)
        with pytest.raises(library.ReadTimeout, match=r"GET /started brought nothing within 0\.01 s"):
            await client.get("/started", timeout=timeout)
        with anyio.move_on_after(0.01) as scope:
            await client.get("/started", timeout=None)
        assert scope.cancelled_caught


async def test_a_drain_ends_the_streams_of_the_app(library: ModuleType) -> None:
    """The transport can shut down what it serves, as the test client does."""
    gone: list[CloseReason] = []
    endpoint = type("Counted", (Numbers,), {"gone": gone})
    transport = StreamingASGITransport(Starlette(routes=[Route("/", endpoint)]), lifespan=True)
    async with library.AsyncClient(transport=transport, base_url="http://testserver") as client:
        async with client.stream("GET", "/") as response:
            transport.drain()
            await response.aread()
    assert gone == [CloseReason.DRAINING]


async def test_a_response_that_is_not_closed_is_named(library: ModuleType) -> None:
    """The failure at the client's end says which request it was and in which line."""
    with pytest.raises(StreamForgottenError, match=r"GET /lost, opened at .*test_transport\.py:\d+, was left open"):
        async with client_of(library, clock) as client:
            await client.send(client.build_request("GET", "/lost"), stream=True)


@not_exhausted
@pytest.mark.parametrize(
    "opened", [lambda client: client.stream("GET", "/lost"), lambda client: aconnect_sse(client, "GET", "/lost")]
)
async def test_whatever_opens_a_response_it_is_named_by_the_line_of_the_test(opened: Any) -> None:
    """And not by one of the libraries in between."""
    with pytest.raises(StreamForgottenError, match=r"opened at .*test_transport\.py:\d+, was left open"):
        async with client_of(httpx, clock) as client:
            response = opened(client)
            await response.__aenter__()
    await response.__aexit__(None, None, None)


async def test_a_failing_test_keeps_its_own_failure(library: ModuleType) -> None:
    """What it has left open is closed without a word."""
    with pytest.raises(ZeroDivisionError) as raised:
        async with client_of(library, clock) as client:
            await client.send(client.build_request("GET", "/lost"), stream=True)
            raise ZeroDivisionError
    assert not hasattr(raised.value, "__notes__")


@pytest.mark.parametrize("runs", [True, False])
async def test_the_app_s_lifespan_runs_if_that_is_asked_for(library: ModuleType, runs: bool) -> None:
    """The libraries' own transports do not run it."""
    steps = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        steps.append("begun")
        yield
        steps.append("ended")

    options = {"lifespan": True} if runs else {}
    async with client_of(library, Starlette(lifespan=lifespan), **options) as client:
        assert (await client.get("/")).status_code == 404
    assert steps == (["begun", "ended"] if runs else [])


async def test_the_client_must_be_opened(library: ModuleType) -> None:
    """The app runs beside the test, which only an open client can see to; the error says how."""
    client = client_of(library, clock)
    with pytest.raises(RuntimeError, match="the client is not open; open it first, by async with"):
        await client.get("/")
    await client.aclose()


async def test_a_request_of_no_known_library_is_refused() -> None:
    """What the response has to be made of is the request's library."""
    async with StreamingASGITransport(clock) as transport:
        with pytest.raises(TypeError, match="neither of httpx nor of httpx2"):
            await transport.handle_async_request(object())
