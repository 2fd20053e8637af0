"""The app's startup and shutdown around the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from starlette_sse.testing import (
    ASGIProtocolError,
    SSETestClient,
    StillRunningError,
    StreamForgottenError,
    VirtualClock,
)

from .apps import clock

pytestmark = pytest.mark.anyio


class AppError(Exception):
    pass


class Broken:
    """A lifespan that fails at its startup."""

    def __init__(self, app: Starlette) -> None: ...

    async def __aenter__(self) -> None:
        raise AppError("startup")

    async def __aexit__(self, *exc: object) -> None: ...


@asynccontextmanager
async def pool(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    opened: list[str] = []
    yield {"pool": opened}
    opened.append("closed")


async def test_the_lifespan_runs_and_its_state_reaches_the_requests() -> None:
    """Startup has run before the first request, shutdown when the client has closed; state is shared as on a server."""

    async def endpoint(request: Request) -> JSONResponse:
        request.state.pool.append("used")
        return JSONResponse({})

    async with SSETestClient(Starlette(routes=[Route("/", endpoint)], lifespan=pool)) as client:
        await client.request("GET", "/")
        used = client.state["pool"]
        assert used == ["used"]
    assert used == ["used", "closed"]


async def test_an_exception_at_startup_is_raised_where_the_client_opens() -> None:
    """The test gets the exception itself."""

    with pytest.raises(AppError, match="startup"):
        await SSETestClient(Starlette(lifespan=Broken)).__aenter__()


async def test_an_exception_at_shutdown_is_raised_where_the_client_closes() -> None:
    """The test that caused it fails, not one that comes later."""

    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncIterator[None]:
        yield
        raise AppError("shutdown")

    with pytest.raises(AppError, match="shutdown"):
        async with SSETestClient(Starlette(lifespan=broken)):
            pass

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await (Starlette(lifespan=broken) if scope["type"] == "lifespan" else clock)(scope, receive, send)

    with pytest.raises(ExceptionGroup) as raised:
        async with SSETestClient(asgi) as client:
            await client.stream("/")
    assert [type(error) for error in raised.value.exceptions] == [StreamForgottenError, AppError]


async def test_a_lifespan_can_be_left_out() -> None:
    """For tests that don't need what startup opens."""
    async with SSETestClient(Starlette(lifespan=Broken, routes=[]), lifespan=False) as client:
        assert (await client.request("GET", "/")).status_code == 404


async def test_a_hand_written_lifespan_that_never_returns_is_served(virtual_clock: VirtualClock) -> None:
    """An app may loop over its lifespan's messages for ever; after the last one it gets no more."""
    seen = []

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "lifespan":
            message = await receive()
            seen.append(message["type"])
            await send({"type": message["type"] + ".complete"})

    began = virtual_clock.current_time()
    async with SSETestClient(asgi):
        pass
    assert seen == ["lifespan.startup", "lifespan.shutdown"]
    assert virtual_clock.current_time() == began


@pytest.mark.parametrize(("takes", "raised", "waited"), [(0.5, ["late"], 0.5), (3600.0, [], 1.0)])
async def test_an_app_has_a_second_to_return_after_its_last_message(
    takes: float, raised: list[str], waited: float, virtual_clock: VirtualClock
) -> None:
    """What it raises in it is told, and what does not end is stopped."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            message = await receive()
            await send({"type": message["type"] + ".complete"})
        await anyio.sleep(takes)
        raise AppError("late")

    client = await SSETestClient(asgi).__aenter__()
    began = virtual_clock.current_time()
    told = []
    try:
        await client.__aexit__(None, None, None)
    except AppError as error:
        told.append(str(error))
    assert told == raised
    assert virtual_clock.current_time() - began == pytest.approx(waited)


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("message", [{"message": "no database"}, {}])
async def test_a_startup_that_reports_failure_fails_the_test(
    message: dict[str, str], stays: bool, virtual_clock: VirtualClock
) -> None:
    """The reason that the app gave is in the error, and it comes soon, though the app does not return."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", **message})
        if stays:
            await anyio.sleep_forever()

    began = virtual_clock.current_time()
    with pytest.raises(RuntimeError, match=message.get("message", "it gave no reason")):
        await SSETestClient(asgi).__aenter__()
    assert virtual_clock.current_time() - began < 5


async def test_an_app_that_sends_nonsense_in_its_lifespan_is_told_so() -> None:
    """The remedy for an app without a lifespan is in the note."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start"})

    with pytest.raises(ASGIProtocolError, match="in its lifespan") as raised:
        await SSETestClient(asgi).__aenter__()
    assert "lifespan=False" in raised.value.__notes__[0]


@pytest.mark.parametrize("stuck", ["start", "shut down"])
async def test_a_lifespan_that_does_not_go_on_is_told(stuck: str, virtual_clock: VirtualClock) -> None:
    """No test waits for it for ever, and the app is stopped."""
    stopped = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            if stuck == "start":
                await anyio.sleep_forever()
            yield
            await anyio.sleep_forever()
        finally:
            stopped.append(stuck)

    with pytest.raises(StillRunningError, match=rf"the app's lifespan did not {stuck} within 14400 s"):
        async with SSETestClient(Starlette(lifespan=lifespan)):
            assert stuck == "shut down"
    assert stopped == [stuck]
