"""The client: requests, reading, and what the app's errors do to the test."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from starlette_sse.exceptions import ConfigurationError
from starlette_sse.testing import (
    ASGIProtocolError,
    Ending,
    NoEventError,
    NotAnEventStreamError,
    SSETestClient,
    StillRunningError,
    StreamCutError,
    StreamEndedError,
    StreamForgottenError,
)

from .apps import Connection, app, clock, tick, until_gone

pytestmark = pytest.mark.anyio


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "headers": dict(request.headers),
            "body": body.decode(),
            "client": request.client and list(request.client),
        }
    )


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
ECHO = Starlette(routes=[Route("/echo/{rest:path}", echo, methods=METHODS)])


async def ask(**options: Any) -> Any:
    url = options.pop("url", "/echo/")
    async with SSETestClient(ECHO) as client, client.stream(url, **options) as stream:
        await stream.read()
        return json.loads(stream.body)


async def test_a_stream_asks_as_a_browsers_eventsource_does() -> None:
    """The headers are EventSource's: the exact Accept, no store, and no Last-Event-ID before the first event."""
    headers = (await ask())["headers"]
    assert headers == {"host": "testserver", "accept": "text/event-stream", "cache-control": "no-store"}


async def test_a_stream_can_be_asked_for_by_any_method_with_a_body() -> None:
    """POST streams, as of language models, get their JSON or raw body whole."""
    asked = await ask(method="post", json={"prompt": "hi"}, headers={"X-Key": "1"}, params={"a": ["1", "2"]})
    assert (asked["method"], asked["body"], asked["query"]) == ("POST", '{"prompt": "hi"}', "a=1&a=2")
    assert asked["headers"]["content-type"] == "application/json"
    assert asked["headers"]["content-length"] == "16"
    assert asked["headers"]["x-key"] == "1"
    assert (await ask(method="PUT", content="täxt"))["body"] == "täxt"


async def test_paths_and_whole_urls_reach_the_app_decoded() -> None:
    """What a browser would encode is encoded, and the app gets it decoded; a fragment stays with the client."""
    asked = await ask(url="http://other:8080/echo/caf%C3%A9/naïve?q=ü#part", params={"p": 1}, headers={"X-Name": "ü"})
    assert (asked["path"], asked["headers"]["host"]) == ("/echo/café/naïve", "other:8080")
    assert (asked["query"], asked["headers"]["x-name"]) == ("q=%C3%BC&p=1", "ü")


async def test_each_stream_may_come_from_a_client_of_its_own() -> None:
    """The scope can be set for all streams and for one, so that limits per client can be tested."""
    async with SSETestClient(ECHO, scope={"client": ("10.0.0.1", 1)}, headers={"X-All": "yes"}) as client:
        first = await client.request("GET", "/echo/")
        second = await client.request("GET", "/echo/", scope={"client": ("10.0.0.2", 2)})
    assert [first.json()["client"][0], second.json()["client"][0]] == ["10.0.0.1", "10.0.0.2"]
    assert first.json()["headers"]["x-all"] == "yes"
    assert first.json()["headers"]["accept"] == "*/*"


async def test_the_response_is_there_before_the_first_event() -> None:
    """Status and headers can be checked while the app has not sent any of its body."""

    async def silent(connection: Connection) -> None:
        await connection.start()
        await connection.gone()

    async with SSETestClient(app(silent)) as client, client.stream("/") as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.ending is None


async def test_events_come_one_by_one_from_an_endless_stream() -> None:
    """An endless stream is read as far as the test asks, by next_event or in a loop."""
    endless = until_gone(lambda connection: tick(connection, 0))
    async with SSETestClient(endless) as client, client.stream("/") as stream:
        first = await stream.next_event()
        assert (first.event, first.id, first.json()) == ("tick", "1", {"n": 1})
        async for event in stream:
            if event.json()["n"] == 5:
                break
        assert [event.id for event in stream.events] == ["1", "2", "3", "4", "5"]
        assert stream.last_event_id == "5"


async def test_a_loop_over_a_finished_stream_ends_and_reading_on_says_so() -> None:
    """A clean end is the end of the loop; a test that wants more is told what came."""

    async def two(connection: Connection) -> None:
        await connection.event("one", retry=250)
        await connection.event("two")

    async with SSETestClient(until_gone(two)) as client, client.stream("/two?a=b") as stream:
        assert [event.data async for event in stream] == ["one", "two"]
        assert await stream.closed() is Ending.FINISHED
        assert stream.retry == 250
        with pytest.raises(
            StreamEndedError, match=r"GET /two\?a=b was finished .* 2 events, the last one message: two"
        ):
            await stream.next_event()


async def test_nothing_is_read_ahead_of_the_test() -> None:
    """The app's send returns when the test has asked for what was sent, not before: faithful backpressure."""
    sent = []

    async def count(connection: Connection) -> None:
        for number in range(100):
            await connection.event(str(number))
            sent.append(number)

    async with SSETestClient(until_gone(count)) as client, client.stream("/") as stream:
        await anyio.wait_all_tasks_blocked()
        assert sent == []
        await stream.next_event()
        await stream.next_event()
        await anyio.wait_all_tasks_blocked()
        assert sent == [0, 1]


async def test_comments_are_kept_and_can_be_waited_for() -> None:
    """A ping can be awaited; the events that come before it are still there to be read."""

    async def talk(connection: Connection) -> None:
        await connection.write(b": hello\n\n")
        await connection.event("one")
        await connection.write(b": ping\n\n")

    async with SSETestClient(until_gone(talk)) as client, client.stream("/") as stream:
        assert (await stream.next_comment()).text == "hello"
        assert (await stream.next_comment()).text == "ping"
        assert (await stream.next_event()).data == "one"
        assert [comment.text for comment in stream.comments] == ["hello", "ping"]
        assert stream.body == b": hello\n\ndata: one\r\n\r\n: ping\n\n"


async def test_waiting_too_long_fails_with_what_came_instead() -> None:
    """A test of a silent stream does not hang: it fails by its timeout and tells what it has seen."""
    async with SSETestClient(clock, timeout=0.01) as client, client.stream("/clock") as stream:
        await stream.next_event()
        expected = (
            r"GET /clock brought no event within 0.01 s; it brought no comments and 1 event, the last one tick #1"
        )
        with pytest.raises(NoEventError, match=expected):
            await stream.next_event()
        with pytest.raises(TimeoutError, match=r"did not end within 0\.02 s"):
            await stream.closed(timeout=0.02)


async def test_an_app_that_does_not_respond_fails_the_request() -> None:
    """A request that gets no response is named, and its app is told that the client has gone."""
    told = []

    async def mute(connection: Connection) -> None:
        await connection.gone()
        told.append("gone")

    async with SSETestClient(app(mute)) as client:
        with pytest.raises(NoEventError, match=r"GET /mute got no response within 0\.01 s"):
            await client.stream("/mute", timeout=0.01)
        assert told == ["gone"]


async def test_a_request_that_the_test_gives_up_leaves_nothing_behind() -> None:
    """A cancelled request hangs up on the app, so that the client can close."""
    told = []

    async def mute(connection: Connection) -> None:
        await connection.gone()
        told.append("gone")

    async with SSETestClient(app(mute)) as client:
        with anyio.move_on_after(0.01):
            await client.stream("/mute", timeout=math.inf)
        await anyio.wait_all_tasks_blocked()
        assert told == ["gone"]


async def test_reading_events_of_another_response_shows_that_response() -> None:
    """A refusal is seen as what it is: its status, its type and how its body begins."""
    async with SSETestClient(ECHO) as client, client.stream("/nowhere") as stream:
        with pytest.raises(
            NotAnEventStreamError, match=r"status 404, content-type 'text/plain.*beginning b'Not Found'"
        ):
            await stream.next_event()


async def test_head_is_answered_without_a_body() -> None:
    """What an app sends as the body of a HEAD response does not reach the client."""

    async def body(connection: Connection) -> None:
        await connection.start()
        await connection.event("unseen")
        await connection.finish()

    async with SSETestClient(app(body)) as client, client.stream("/", method="HEAD") as stream:
        assert await stream.closed() is Ending.FINISHED
        assert stream.body == b""


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"url": "clock://x"}, "begin it with '/'"),
        ({"url": "/", "content": b"x", "json": 1}, "give one of them"),
        ({"url": "/", "last_event_id": "a\nb"}, "CR, LF and NUL are not allowed"),
    ],
)
async def test_a_request_that_cannot_be_sent_is_refused_at_once(options: dict[str, Any], remedy: str) -> None:
    """The mistake is told where it is made, with the remedy."""
    async with SSETestClient(clock) as client:
        with pytest.raises(ConfigurationError, match=remedy):
            client.stream(**options)


async def test_a_stream_must_be_opened_in_a_client_that_is_open() -> None:
    """Using what is not open says how to open it."""
    client = SSETestClient(clock)
    with pytest.raises(RuntimeError, match="open it first, by async with"):
        await client.stream("/")
    async with client:
        with pytest.raises(RuntimeError, match=r"async with client.stream\(...\) as stream"):
            await client.stream("/").next_event()


async def test_two_tasks_cannot_read_one_stream() -> None:
    """Each would get half of the events, so the second is told so."""

    async def never(connection: Connection) -> None:
        await anyio.sleep_forever()

    async with SSETestClient(until_gone(never)) as client, client.stream("/") as stream:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.closed)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="two tasks read GET / at once"):
                await stream.next_event()
            stream.disconnect()


# Errors of the app.


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

    async with SSETestClient(Starlette(routes=[Route("/", sorry)])) as client:
        response = await client.request("GET", "/")
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

    with pytest.raises(StreamForgottenError, match=r"GET /lost, opened at .*test_client\.py:\d+, was left open"):
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


# Rules of ASGI.


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([{"type": "http.response.body", "body": b""}], "'http.response.body' before 'http.response.start'"),
        ([{"type": "http.response.start", "status": 200}] * 2, "'http.response.start' twice"),
        ([{"type": "http.response.push"}], "'http.response.push', which the scope's extensions do not offer"),
        (
            [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": "text"}],
            "a body of type str; encode it to bytes",
        ),
        (
            [{"type": "http.response.start", "status": 200}, *[{"type": "http.response.body"}] * 2],
            "'http.response.body' after the body was complete",
        ),
    ],
)
async def test_an_app_that_breaks_asgi_is_told_so(messages: list[dict[str, Any]], complaint: str) -> None:
    """What a real server refuses is refused here, inside the app's send."""

    async def wrong(connection: Connection) -> None:
        for message in messages:
            await connection.send(message)

    async with SSETestClient(app(wrong)) as client:
        with pytest.raises(ASGIProtocolError, match=complaint):
            async with client.stream("/") as stream:
                await stream.closed()


async def test_an_app_that_swallows_the_complaint_fails_the_test_all_the_same() -> None:
    """Streams take an error of send for the client's going; the mistake must not pass for that."""

    async def deaf(connection: Connection) -> None:
        await connection.start()
        with contextlib.suppress(RuntimeError):
            await connection.write("text")  # type: ignore[arg-type]  # the mistake

    async with SSETestClient(app(deaf)) as client:
        with pytest.raises(ASGIProtocolError, match="a body of type str"):
            async with client.stream("/") as stream:
                await stream.next_event()


async def test_an_app_that_ignores_the_disconnect_is_cancelled_after_the_grace() -> None:
    """It would live on for ever on a real server, so the test fails and names it."""
    ended = []

    async def deaf(connection: Connection) -> None:
        await connection.start()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    async with SSETestClient(app(deaf), close_grace=0.01) as client:
        with pytest.raises(StillRunningError, match=r"GET /deaf had to be cancelled.*0.01 s after its client had gone"):
            async with client.stream("/deaf"):
                pass
    assert ended == [True]


async def test_an_app_that_sends_on_without_end_is_cancelled() -> None:
    """A loop of sends that nobody hears would never let virtual time pass; it is ended by count."""

    async def deaf(connection: Connection) -> None:
        await connection.start()
        while True:
            await connection.event("anyone?")

    async with SSETestClient(app(deaf), close_grace=math.inf) as client:
        with pytest.raises(StillRunningError, match="or went on sending"):
            async with client.stream("/"):
                pass


async def test_the_app_gets_time_to_clean_up_after_the_disconnect() -> None:
    """http.disconnect comes first and the app is not cancelled within the grace, so its cleanup completes."""
    steps = []

    async def tidy(connection: Connection) -> None:
        await connection.start()
        await connection.gone()
        await anyio.sleep(0.01)
        steps.append("cleaned up")

    async with SSETestClient(app(tidy)) as client:
        async with client.stream("/"):
            pass
        assert steps == ["cleaned up"]
        async with client.stream("/") as stream:
            stream.disconnect()
            assert steps == ["cleaned up"]
            assert await stream.closed() is Ending.DISCONNECTED
            assert steps == ["cleaned up"] * 2


async def test_a_send_that_waits_for_the_client_returns_when_it_goes() -> None:
    """On real servers the app hears nothing of it from send, before or after; it has to receive."""
    sent = []

    async def talk(connection: Connection) -> None:
        await connection.start()
        for number in range(3):
            await connection.event(str(number))
            sent.append(number)

    async with SSETestClient(app(talk)) as client, client.stream("/") as stream:
        await stream.next_event()
        stream.disconnect()
        assert await stream.closed() is Ending.DISCONNECTED
    assert sent == [0, 1, 2]


async def test_the_request_is_over_for_the_app_when_its_response_is() -> None:
    """receive() gives the request, then blocks, then tells the end, as on a real server."""
    got = []

    async def listen(connection: Connection) -> None:
        got.append(await connection.receive())
        await connection.start()
        await connection.finish()
        got.extend([await connection.receive(), await connection.receive()])

    async with SSETestClient(app(listen)) as client, client.stream("/", method="POST", content=b"x") as stream:
        await stream.read()
    gone = {"type": "http.disconnect"}
    assert got == [{"type": "http.request", "body": b"x", "more_body": False}, gone, gone]


async def test_starlettes_own_streams_work() -> None:
    """StreamingResponse on an endless generator: read in part, its generator is ended by the disconnect."""
    ended = []

    async def numbers() -> AsyncIterator[str]:
        try:
            for number in range(10**9):
                yield f"data: {number}\n\n"
                await checkpoint()
        finally:
            ended.append(True)

    async def endpoint(request: Request) -> StreamingResponse:
        if request.query_params.get("refuse"):
            raise HTTPException(403, "no")
        return StreamingResponse(numbers(), media_type="text/event-stream")

    async with SSETestClient(Starlette(routes=[Route("/", endpoint)])) as client:
        async with client.stream("/") as stream:
            await stream.expect("0", "1", "2")
        assert ended == [True]
        assert (await client.request("GET", "/?refuse=1")).status_code == 403


# The lifespan.


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


async def test_a_lifespan_can_be_left_out() -> None:
    """For tests that don't need what startup opens."""
    async with SSETestClient(Starlette(lifespan=Broken, routes=ECHO.routes), lifespan=False) as client:
        assert (await client.request("GET", "/echo/")).status_code == 200


async def test_a_hand_written_lifespan_that_never_returns_is_served() -> None:
    """An app may loop over its lifespan's messages for ever; after the last one it gets no more."""
    seen = []

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "lifespan":
            message = await receive()
            seen.append(message["type"])
            await send({"type": message["type"] + ".complete"})

    async with SSETestClient(asgi):
        pass
    assert seen == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("message", [{"message": "no database"}, {}])
async def test_a_startup_that_reports_failure_fails_the_test(message: dict[str, str]) -> None:
    """The reason that the app gave is in the error."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", **message})

    with pytest.raises(RuntimeError, match=message.get("message", "it gave no reason")):
        await SSETestClient(asgi).__aenter__()


async def test_an_app_that_sends_nonsense_in_its_lifespan_is_told_so() -> None:
    """The remedy for an app without a lifespan is in the note."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start"})

    with pytest.raises(ASGIProtocolError, match="in its lifespan") as raised:
        await SSETestClient(asgi).__aenter__()
    assert "lifespan=False" in raised.value.__notes__[0]
