"""The response under the frameworks and middleware that carry it, on the real clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

import starlette_sse
from starlette_sse import EventSourceResponse
from starlette_sse.testing import Ending, SSETestClient, nothing_left_running
from tests.responses.exchanges import answer

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Worker threads don't wait for a virtual clock."""
    backend: str = request.param
    return backend


class Endless:
    """One event, and then nothing until the client goes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def content(self) -> AsyncIterator[Any]:
        try:
            yield "first"
            await anyio.sleep_forever()
        finally:
            await anyio.lowlevel.checkpoint()
            self.notes.append("closed")

    async def respond(self, request: Request) -> Response:
        return EventSourceResponse(self.content(), client_close_handler_callable=self.gone)

    async def gone(self, message: Any) -> None:
        self.notes.append(message["type"])


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["X-Passed"] = "1"
        return response


MIDDLEWARE = {
    "none": [],
    "BaseHTTPMiddleware": [Middleware(Passing)],
    "two of them": [Middleware(Passing), Middleware(Passing)],
    "GZip": [Middleware(GZipMiddleware, minimum_size=1)],
    "CORS": [Middleware(CORSMiddleware, allow_origins=["*"])],
    "all": [Middleware(CORSMiddleware, allow_origins=["*"]), Middleware(GZipMiddleware), Middleware(Passing)],
}


@pytest.mark.parametrize("middleware", MIDDLEWARE.values(), ids=MIDDLEWARE)
async def test_middleware_lets_events_through_as_they_come(middleware: list[Middleware]) -> None:
    """And the disconnect back, after which the content is closed and the handler called once."""
    endless = Endless()
    app = Starlette(routes=[Route("/", endless.respond)], middleware=middleware)
    headers = {"Accept-Encoding": "gzip", "Origin": "https://example.org"}
    async with nothing_left_running(), SSETestClient(app) as client, client.stream("/", headers=headers) as stream:
        await stream.expect("first")
        assert "content-encoding" not in stream.response.headers
        stream.disconnect()
    assert endless.notes == ["closed", "http.disconnect"]


@pytest.mark.parametrize("middleware", MIDDLEWARE.values(), ids=MIDDLEWARE)
async def test_middleware_lets_errors_through_bare(middleware: list[Middleware]) -> None:
    """What ends the stream is the content's own exception."""

    async def content() -> AsyncIterator[Any]:
        yield "first"
        raise LookupError("gone")

    async def respond(request: Request) -> Response:
        return EventSourceResponse(content())

    app = Starlette(routes=[Route("/", respond)], middleware=middleware)
    async with SSETestClient(app) as client:
        with pytest.raises(LookupError, match="gone"):
            async with client.stream("/") as stream:
                await stream.expect("first")
                await stream.closed()


@pytest.mark.parametrize("debug", [False, True])
async def test_an_exception_handler_answers_for_content_that_refuses(debug: bool) -> None:
    """An exception of the first step comes before the response, so the client gets its real status."""

    async def refuse() -> str:
        raise HTTPException(418, "no coffee")

    async def content() -> AsyncIterator[Any]:
        yield await refuse()

    async def respond(request: Request) -> Response:
        return EventSourceResponse(content())

    async with SSETestClient(Starlette(debug, routes=[Route("/", respond)])) as client:
        response = await client.request("GET", "/")
        assert (response.status_code, response.text) == (418, "no coffee")


async def test_an_app_shuts_its_responses_down_without_a_lifespan() -> None:
    """A function's stream needs no set-up to be drained."""
    endless = Endless()
    app = Starlette(routes=[Route("/", endless.respond)])
    async with SSETestClient(app) as client, client.stream("/") as stream:
        await stream.expect("first")
        client.drain()
        assert await stream.closed() is Ending.FINISHED
    assert endless.notes == ["closed", "http.disconnect"]


async def test_a_sync_function_may_return_the_response(package: ModuleType) -> None:
    """Starlette calls it in a worker thread, where there is no event loop."""

    async def content() -> AsyncIterator[Any]:
        yield "async"

    def respond(request: Request) -> Response:
        mode = request.query_params["mode"]
        response: Response = package.EventSourceResponse(content() if mode == "async" else ["sync"])
        return response

    async with SSETestClient(Starlette(routes=[Route("/", respond)])) as client:
        for mode in ("async", "sync"):
            response = await client.request("GET", f"/?mode={mode}")
            assert response.body == f"data: {mode}\r\n\r\n".encode()


async def test_starlettes_head_route_is_answered_by_the_headers(package: ModuleType) -> None:
    """Starlette adds HEAD to every GET route, and an endless body would never end."""

    async def respond(request: Request) -> Response:
        response: Response = package.EventSourceResponse(Endless().content())
        return response

    async with SSETestClient(Starlette(routes=[Route("/", respond)])) as client:
        response = await client.request("HEAD", "/")
        assert (response.status_code, response.body) == (200, b"")
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_starlettes_test_client_reads_a_finite_stream(package: ModuleType) -> None:
    """So tests that an app has go on working."""

    async def respond(request: Request) -> Response:
        response: Response = package.EventSourceResponse([1, 2])
        return response

    with TestClient(Starlette(routes=[Route("/", respond)])) as client:
        assert client.get("/").text == "data: 1\r\n\r\ndata: 2\r\n\r\n"


def test_a_websockets_handshake_is_denied(package: ModuleType) -> None:
    """The response is what the client gets instead of a websocket."""

    async def refuse(websocket: WebSocket) -> None:
        await websocket.send_denial_response(package.EventSourceResponse(["denied"], status_code=403))

    with TestClient(Starlette(routes=[WebSocketRoute("/", refuse)])) as client:
        with pytest.raises(WebSocketDenialResponse) as denial, client.websocket_connect("/"):
            raise AssertionError
    assert denial.value.status_code == 403
    assert denial.value.text == "data: denied\r\n\r\n"


async def test_the_connection_header_is_for_http_1_1_only() -> None:
    """HTTP/2 and 3 forbid it (RFC 9113, 8.2.2), and a body in HTTP/1.0 ends with the connection, as servers say."""
    for version, expected in (("1.0", False), ("1.1", True), ("2", False), ("3", False)):
        response = EventSourceResponse([], ping=0)
        exchange = await answer(response, http_version=version)
        assert ((b"connection", b"keep-alive") in exchange.headers) is expected
    response = EventSourceResponse([], ping=0, headers={"X-A": "1"})
    response.raw_headers.append((b"Connection", b"close"))
    exchange = await answer(response, http_version="2")
    assert {name.lower() for name, _ in exchange.headers} >= {b"x-a"}
    assert b"connection" not in {name.lower() for name, _ in exchange.headers}


async def test_a_connection_that_its_client_closes_is_not_said_to_stay() -> None:
    """The server says that it closes it, and one response must not say both."""
    exchange = await answer(EventSourceResponse([], ping=0), headers=[(b"connection", b"close")])
    assert b"connection" not in {name.lower() for name, _ in exchange.headers}


async def test_middleware_that_changes_the_start_message_does_not_change_the_response() -> None:
    """The list of headers is the message's own."""
    response = EventSourceResponse([], ping=0)
    exchange = await answer(response)
    exchange.messages[0]["headers"].append((b"x-added", b"1"))
    assert (b"x-added", b"1") not in response.raw_headers


class FastAPIApp:
    """One route for each way in which FastAPI makes a response."""

    def __init__(self, package: ModuleType) -> None:
        self.notes: list[str] = []
        self.app = app = FastAPI()
        response_class = package.EventSourceResponse

        async def session() -> AsyncIterator[str]:
            self.notes.append("session opened")
            yield "session"
            self.notes.append("session closed")

        async def content(name: str) -> AsyncIterator[dict[str, Any]]:
            for number in range(2):
                self.notes.append(f"event {number}")
                yield {"data": number, "event": name}

        @app.get("/returned", status_code=201)
        async def returned(tasks: BackgroundTasks, name: str = Depends(session)) -> Any:
            tasks.add_task(self.notes.append, "background")
            return response_class(content(name), ping=0)

        @app.get("/declared", response_class=response_class)
        async def declared(name: str = Depends(session)) -> AsyncIterator[Any]:
            async for event in content(name):
                yield event

        @app.get("/sync", response_class=response_class)
        def sync() -> Iterator[Any]:
            yield from ({"data": number} for number in range(2))

        @app.get("/list", response_class=response_class)
        async def items() -> Any:
            return [{"data": 0}, {"data": 1}]


BODY = b"event: session\r\ndata: 0\r\n\r\nevent: session\r\ndata: 1\r\n\r\n"


async def test_fastapi_returns_it(package: ModuleType) -> None:
    """Dependencies stay open for the stream, and background tasks run after it."""
    sample = FastAPIApp(package)
    async with SSETestClient(sample.app) as client:
        response = await client.request("GET", "/returned")
        assert (response.status_code, response.body) == (200, BODY)
    assert sample.notes == ["session opened", "event 0", "event 1", "background", "session closed"]


async def test_fastapi_makes_it_of_a_generator(package: ModuleType) -> None:
    """With ``response_class``, and dependencies stay open here too."""
    sample = FastAPIApp(package)
    async with SSETestClient(sample.app) as client:
        assert (await client.request("GET", "/declared")).body == BODY
        assert (await client.request("GET", "/sync")).body == b"data: 0\r\n\r\ndata: 1\r\n\r\n"
        assert (await client.request("GET", "/list")).body == b"data: 0\r\n\r\ndata: 1\r\n\r\n"
    assert sample.notes == ["session opened", "event 0", "event 1", "session closed"]


async def test_fastapi_documents_it_as_an_event_stream() -> None:
    """The class says its media type, so the schema of the API is right."""
    schema = FastAPIApp(starlette_sse).app.openapi()
    assert list(schema["paths"]["/declared"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]


async def test_a_subclass_may_wrap_the_call(package: ModuleType) -> None:
    """As any ASGI app can be wrapped."""
    calls: list[str] = []

    class Counted(package.EventSourceResponse):  # type: ignore[name-defined,misc]
        def __init__(self, name: str, **options: Any) -> None:
            super().__init__([name], ping=0, **options)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            calls.append("before")
            await super().__call__(scope, receive, send)
            calls.append("after")

    exchange = await answer(Counted("x", status_code=202))
    assert (exchange.status, exchange.body) == (202, b"data: x\r\n\r\n")
    assert calls == ["before", "after"]
