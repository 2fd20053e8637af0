"""The kit on other libraries' streams: it asks nothing of an app but ASGI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Any

import anyio
import fastapi
import fastapi.sse
import litestar
import litestar.response
import pytest
import sse_starlette
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

import starlette_sse
from starlette_sse.testing import Ending, SSETestClient

pytestmark = pytest.mark.anyio


async def ticks(ended: list[bool], error: Exception | None = None) -> AsyncGenerator[dict[str, Any], None]:
    """Count up to three, then do nothing, or fail."""
    try:
        for number in (1, 2, 3):
            yield {"event": "tick", "data": str(number), "id": str(number)}
        if error is not None:
            raise error
        await anyio.sleep_forever()
    finally:
        ended.append(True)


def ours(ended: list[bool], error: Exception | None) -> ASGIApp:
    class Ticks(starlette_sse.SSEEndpoint):
        async def events(self, request: Request) -> AsyncGenerator[Any, None]:
            async for tick in ticks(ended, error):
                yield tick

        async def on_error(self, request: Request, error: Exception) -> None:
            return None

    return Starlette(routes=[Route("/", Ticks)])


def with_sse_starlette(ended: list[bool], error: Exception | None) -> ASGIApp:
    async def endpoint(request: Request) -> sse_starlette.EventSourceResponse:
        return sse_starlette.EventSourceResponse(ticks(ended, error))

    return Starlette(routes=[Route("/", endpoint)])


def with_fastapi(ended: list[bool], error: Exception | None) -> ASGIApp:
    app = fastapi.FastAPI()

    @app.get("/", response_class=fastapi.sse.EventSourceResponse)
    async def endpoint() -> AsyncIterable[fastapi.sse.ServerSentEvent]:
        async for tick in ticks(ended, error):
            yield fastapi.sse.ServerSentEvent(raw_data=tick["data"], event=tick["event"], id=tick["id"])

    return app


def with_litestar(ended: list[bool], error: Exception | None) -> ASGIApp:
    @litestar.get("/", sync_to_thread=False)
    def endpoint() -> litestar.response.ServerSentEvent:
        return litestar.response.ServerSentEvent(ticks(ended, error))

    return litestar.Litestar([endpoint])  # type: ignore[return-value]  # the same ASGI, with types of its own


@pytest.fixture(params=[ours, with_sse_starlette, with_fastapi, with_litestar], ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[..., ASGIApp]:
    function: Callable[..., ASGIApp] = request.param
    return function


async def test_an_endless_stream_is_read_and_left(make: Callable[..., ASGIApp]) -> None:
    """Events come as they are sent, and the generator ends with its client, not with the test."""
    ended: list[bool] = []
    async with SSETestClient(make(ended, None)) as client, client.stream("/") as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        await stream.expect({"event": "tick", "data": "1", "id": "1"}, {"id": "2"}, {"id": "3"})
        await stream.expect_silence(0.01)
        stream.disconnect()
        assert await stream.closed() is Ending.DISCONNECTED
        assert ended == [True]


async def test_an_error_in_the_stream_reaches_the_test(make: Callable[..., ASGIApp]) -> None:
    """What broke the stream off is raised where the stream is closed, wrapped as the framework wraps it."""
    error = ValueError("the app's")
    async with SSETestClient(make([], error)) as client:
        with pytest.raises(Exception) as raised:
            async with client.stream("/") as stream:
                async for _event in stream:
                    pass
    assert innermost(raised.value) is error


def innermost(error: BaseException) -> BaseException:
    """Return the error that others were made of."""
    inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    return error if inner is None else innermost(inner)
