"""What the app's errors do to the test that caused them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from starlette_sse import SSEEndpoint
from starlette_sse.testing import (
    Ending,
    EventStream,
    SSETestClient,
    StreamCutError,
    StreamForgottenError,
)

from .apps import Connection, app, clock, until_gone

pytestmark = pytest.mark.anyio


class AppError(Exception):
    pass


async def test_an_exception_before_the_response_is_raised_where_the_stream_was_asked_for() -> None:
    """The test gets the exception itself, not a status."""

    async def fail(connection: Connection) -> None:
        raise AppError("before")

    async with SSETestClient(app(fail)) as client:
        with pytest.raises(AppError, match="before"):
            await client.stream("/")


async def test_an_exception_that_a_middleware_answers_by_500_is_raised_all_the_same() -> None:
    """Starlette's error middleware sends a response and raises on; the exception is what the test wants to see."""

    async def fail(request: Request) -> JSONResponse:
        raise AppError("in the endpoint")

    async with SSETestClient(Starlette(routes=[Route("/", fail)])) as client:
        with pytest.raises(AppError, match="in the endpoint"):
            await client.stream("/")


async def test_a_500_that_the_app_means_is_a_response() -> None:
    """Only an exception is raised; a status that the app chose is one."""

    async def sorry(request: Request) -> PlainTextResponse:
        return PlainTextResponse("sorry", status_code=500)

    async def sorry_at_length(request: Request) -> StreamingResponse:
        return StreamingResponse(iter(["so", "rr", "y"]), status_code=500)

    async with SSETestClient(Starlette(routes=[Route("/", sorry), Route("/long", sorry_at_length)])) as client:
        for path in ("/", "/long"):
            response = await client.request("GET", path)
            assert (response.status_code, response.text) == (500, "sorry")


async def test_an_exception_after_the_start_cuts_the_stream_and_is_raised_when_it_closes() -> None:
    """The reader sees a stream that breaks off, never a clean end; the block ends with the app's own exception."""

    async def fail(connection: Connection) -> None:
        await connection.start()
        await connection.event("one")
        raise AppError("after")

    async with SSETestClient(app(fail)) as client:
        with pytest.raises(AppError, match="after"):
            async with client.stream("/") as stream:
                await stream.next_event()
                with pytest.raises(StreamCutError, match="GET / broke off before event came") as cut:
                    await stream.next_event()
                assert isinstance(cut.value.__cause__, AppError)
                assert await stream.closed() is Ending.CUT


async def test_a_stream_that_was_let_go_says_why() -> None:
    """A stream that nobody read has stalled, which the test may not have thought of."""

    class Silent(SSEEndpoint):
        send_timeout = 0.1
        ping_interval = 0.1

        async def events(self, request: Request) -> AsyncIterator[str]:
            await anyio.sleep_forever()
            yield ""

    async with SSETestClient(Starlette(routes=[Route("/", Silent)])) as client, client.stream("/") as stream:
        with anyio.fail_after(10):
            while stream.close_reason is None:
                await anyio.sleep(0.05)
        with pytest.raises(StreamCutError, match=r"before event came \(the app closed it: send_timeout\)"):
            await stream.next_event()


async def test_an_app_that_needs_asyncio_is_told_what_to_do(anyio_backend_name: str) -> None:
    """On trio, which the test may have got without having asked for it."""

    async def wait(connection: Connection) -> None:
        asyncio.get_running_loop()
        raise AppError("it ran")

    async with SSETestClient(app(wait)) as client:
        with pytest.raises((AppError, RuntimeError)) as caught:
            await client.request("GET", "/")
    notes = "".join(getattr(caught.value, "__notes__", ()))
    assert ("sse_virtual_clock = asyncio" in notes) is (anyio_backend_name == "trio")


async def test_a_reader_that_meets_the_cut_raises_the_apps_exception() -> None:
    """What broke the stream off says more than that it broke off; its own cause and context survive."""

    async def fail(connection: Connection) -> None:
        await connection.start()
        try:
            raise KeyError("deep")
        except KeyError as error:
            raise AppError("after") from error

    async with SSETestClient(app(fail)) as client:
        with pytest.raises(AppError, match="after") as raised:
            async with client.stream("/") as stream:
                await stream.next_event()
    assert isinstance(raised.value.__cause__, KeyError)
    assert isinstance(raised.value.__context__, KeyError)


async def test_a_failing_test_keeps_its_own_failure_and_notes_the_apps() -> None:
    """The assertion that failed stays the test's failure; the app's exception is told besides."""

    async def fail(connection: Connection) -> None:
        await connection.start()
        raise AppError("after")

    async with SSETestClient(app(fail)) as client:
        with pytest.raises(AssertionError, match="the test's own") as raised:
            async with client.stream("/"):
                raise AssertionError("the test's own")
    assert "AppError: after" in raised.value.__notes__[0]


async def test_a_stream_that_broke_off_tells_nothing_of_another() -> None:
    """What it was broken off by is told once, and what went wrong in the other besides."""

    async def fail(connection: Connection) -> None:
        await connection.start()
        raise AppError(connection.scope["path"])

    async with SSETestClient(app(fail)) as client:
        with pytest.raises(StreamCutError, match="GET /inner broke off") as raised:
            async with client.stream("/outer"):
                inner = await client.stream("/inner")
                await inner.next_event()
        with pytest.raises(AppError, match="/inner"):
            await inner.aclose()
    (note,) = raised.value.__notes__
    assert "AppError: /outer" in note


async def test_without_raising_the_client_sees_what_a_real_one_does() -> None:
    """Before the response an exception is a 500, afterwards a stream that breaks off."""

    async def fail(connection: Connection) -> None:
        if connection.scope["path"] == "/late":
            await connection.start()
        raise AppError

    async with SSETestClient(app(fail), raise_app_exceptions=False) as client:
        assert (await client.request("GET", "/early")).status_code == 500
        async with client.stream("/late") as stream:
            assert await stream.closed() is Ending.CUT
            with pytest.raises(StreamCutError):
                await stream.read()
            with pytest.raises(StreamCutError):
                _ = [event async for event in stream]
        assert stream.ending is Ending.CUT


async def test_an_app_that_returns_without_finishing_its_response_cuts_it() -> None:
    """A body without its end is no clean end, whether the app raised or just returned."""
    async with SSETestClient(app(lambda connection: connection.start())) as client:
        async with client.stream("/") as stream:
            with pytest.raises(StreamCutError):
                await stream.next_event()


async def test_an_app_that_returns_without_a_response_is_an_error() -> None:
    """The test is told, rather than left to wait."""

    async def nothing(connection: Connection) -> None:
        pass

    async with SSETestClient(app(nothing)) as client:
        with pytest.raises(RuntimeError, match="the app ended without a response to GET /"):
            await client.stream("/")


async def test_errors_of_several_streams_leave_together() -> None:
    """No exception is lost when more than one stream that the test did not close has failed."""

    async def fail(connection: Connection) -> None:
        await connection.start()
        raise AppError(connection.scope["path"])

    with pytest.raises(ExceptionGroup) as raised:
        async with SSETestClient(app(fail)) as client:
            await client.stream("/a")
            await client.stream("/b")
            await anyio.wait_all_tasks_blocked()
    assert [str(error) for error in raised.value.exceptions] == ["/a", "/b"]


async def test_a_forgotten_stream_is_closed_and_named() -> None:
    """The failure says which request was left open and in which line of the test."""
    ended = []

    async def body(connection: Connection) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(connection.scope["path"])

    with pytest.raises(StreamForgottenError, match=r"GET /lost, opened at .*test_app_errors\.py:\d+, was left open"):
        async with SSETestClient(until_gone(body)) as client:
            await client.stream("/lost")
    assert ended == ["/lost"]


async def test_a_stream_that_was_awaited_is_ended_by_aclose() -> None:
    """Without async with, aclose is the end, and ending twice is no error."""
    async with SSETestClient(clock) as client:
        stream = await client.stream("/")
        async with await stream as same:
            assert same is stream
        await stream.aclose()
        assert not stream.is_open
        await client.stream("/never-opened").aclose()


async def test_a_stream_that_two_tasks_close_at_once_tells_one_of_them() -> None:
    """Both wait for the app's end."""
    told: list[str] = []

    async def fail(connection: Connection) -> None:
        await connection.start()
        await connection.gone()
        await anyio.sleep(0.01)
        told.append("ended")
        raise AppError("late")

    async def close(stream: EventStream) -> None:
        try:
            await stream.aclose()
        except AppError as error:
            told.append(str(error))
        told.append("closed")

    async with SSETestClient(app(fail)) as client:
        stream = await client.stream("/")
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(close, stream)
    assert sorted(told) == ["closed", "closed", "ended", "late"]
    assert told[0] == "ended"


async def test_a_client_is_opened_once() -> None:
    """Its app's lifespan has run, so the next time needs another one."""
    client = SSETestClient(clock)
    async with client:
        pass
    with pytest.raises(RuntimeError, match="a client is opened once"):
        await client.__aenter__()


async def test_a_test_runners_own_exception_leaves_the_client_in_order() -> None:
    """What pytest.fail and pytest.skip raise is no Exception; the app shuts down all the same."""
    steps = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        steps.append("shut down")

    with pytest.raises(pytest.fail.Exception, match="by the test"):
        async with SSETestClient(Starlette(lifespan=lifespan)):
            pytest.fail("by the test")
    assert steps == ["shut down"]


async def test_a_cancelled_test_cancels_the_app() -> None:
    """A timeout around the whole test ends it, apps and lifespan included, without waiting for them."""
    async with anyio.create_task_group():
        with anyio.move_on_after(0.01) as scope:
            async with SSETestClient(clock) as client, client.stream("/") as stream:
                await stream.closed(timeout=math.inf)
    assert scope.cancelled_caught
