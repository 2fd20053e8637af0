"""Pages of other origins, with and without credentials, and what stands between them and the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.routing import Route

from starlette_sse import SSEEndpoint, lifespan
from starlette_sse.observers import Observer
from starlette_sse.testing import SSETestClient

pytestmark = pytest.mark.anyio

PAGE = "https://app.example.org"


class News(SSEEndpoint):
    observers: Sequence[Observer] = ()

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield {"data": f"{self.last_event_id} {request.cookies.get('session')}", "id": "7"}
        await anyio.sleep_forever()


class Full(News):
    max_connections = 1


def serve(endpoint: type[SSEEndpoint] = News, **cors: Any) -> SSETestClient:
    options = {"allow_origins": [PAGE], "allow_headers": ["Last-Event-ID"], **cors}
    middleware = [Middleware(CORSMiddleware, **options)]
    return SSETestClient(
        Starlette(routes=[Route("/", endpoint)], middleware=middleware, lifespan=lifespan), headers={"origin": PAGE}
    )


async def preflight(client: SSETestClient, headers: str) -> tuple[int, Mapping[str, str]]:
    asked = {"access-control-request-method": "GET", "access-control-request-headers": headers}
    response = await client.request("OPTIONS", "/", headers=asked)
    return response.status_code, response.headers


async def test_a_page_of_another_origin_may_resume_by_fetch() -> None:
    """``EventSource`` sends its id without asking; a page that uses ``fetch`` asks by a preflight first."""
    async with serve() as client:
        status, headers = await preflight(client, "last-event-id")
        assert status == 200
        assert headers["access-control-allow-origin"] == PAGE
        assert "last-event-id" in headers["access-control-allow-headers"].lower()
        async with client.stream("/", last_event_id="6") as stream:
            assert stream.response.headers["access-control-allow-origin"] == PAGE
            await stream.expect("6 None")


async def test_without_being_allowed_the_id_is_refused_by_the_preflight() -> None:
    """What the documentation asks to set is what makes the difference."""
    async with serve(allow_headers=[]) as client:
        status, _ = await preflight(client, "last-event-id")
        assert status == 400


async def test_credentials_are_for_the_origins_that_are_named() -> None:
    """With cookies the browser wants the origin itself, and the permission."""
    async with serve(allow_credentials=True) as client:
        async with client.stream("/", headers={"cookie": "session=s3"}) as stream:
            assert stream.response.headers["access-control-allow-origin"] == PAGE
            assert stream.response.headers["access-control-allow-credentials"] == "true"
            await stream.expect("None s3")
        async with client.stream("/", headers={"origin": "https://elsewhere.example"}) as stream:
            assert "access-control-allow-origin" not in stream.response.headers
        async with serve(allow_origins=["*"], allow_credentials=True) as anybody:
            async with anybody.stream("/", headers={"cookie": "session=s3"}) as stream:
                assert stream.response.headers["access-control-allow-origin"] == PAGE
                assert "Origin" in stream.response.headers["vary"]


async def test_a_page_of_another_origin_can_read_its_refusal() -> None:
    """Without these headers an ``EventSource`` would see a failed connection and give up for good."""
    async with serve(Full) as client, client.stream("/"):
        async with client.stream("/") as refused:
            assert refused.response.status_code == 200
            assert refused.response.headers["access-control-allow-origin"] == PAGE
            assert (await refused.next_event()).event == "stream-rejected"
        response = await client.request("GET", "/")
        assert response.status_code == 503
        assert response.headers["access-control-allow-origin"] == PAGE


async def test_by_default_nothing_on_the_way_keeps_or_delays_a_stream() -> None:
    """No cache stores it, and nginx does not collect it."""
    async with serve() as client, client.stream("/") as stream:
        assert stream.response.headers["cache-control"] == "no-store"
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "content-length" not in stream.response.headers


async def test_a_proxy_that_fans_out_may_be_allowed_to_share_a_stream() -> None:
    """The endpoint's own headers replace the defaults, whatever their case; but no refusal is ever shared."""

    class Shared(Full):
        headers: Mapping[str, str] = {"cache-control": "public, max-age=1", "X-Accel-Buffering": "yes"}

    async with serve(Shared) as client, client.stream("/") as stream:
        assert stream.response.headers.getlist("cache-control") == ["public, max-age=1"]
        assert stream.response.headers.getlist("x-accel-buffering") == ["yes"]
        for accept in ("text/event-stream", "*/*"):
            refused = await client.request("GET", "/", headers={"accept": accept})
            assert refused.headers.getlist("cache-control") == ["no-store"]
