"""The client: requests, reading, and what the app's errors do to the test."""

from __future__ import annotations

import json
import math
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from starlette_sse.exceptions import ConfigurationError
from starlette_sse.testing import (
    Ending,
    NoEventError,
    NotAnEventStreamError,
    SSETestClient,
    StreamEndedError,
)

from .apps import Connection, app, clock, tick, until_gone

pytestmark = pytest.mark.anyio


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "raw_path": request["raw_path"].decode(),
            "server": request["server"],
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
    assert (asked["raw_path"], asked["server"]) == ("/echo/caf%C3%A9/na%C3%AFve", ["other", 8080])
    assert (await ask(url="http://café.example/echo/"))["headers"]["host"] == "xn--caf-dma.example"
    assert (await ask(url="https://other/echo/"))["server"] == ["other", 443]


@pytest.mark.parametrize(("name", "value"), [("Host", "example.org"), ("Content-Type", "application/merge-patch+json")])
async def test_what_a_client_would_say_of_a_request_may_be_said_by_the_test(name: str, value: str) -> None:
    """A virtual host, or another kind of JSON."""
    asked = await ask(method="PATCH", json={}, headers={name: value})
    assert asked["headers"][name.lower()] == value


async def test_each_stream_may_come_from_a_client_of_its_own() -> None:
    """The scope can be set for all streams and for one, so that limits per client can be tested."""
    async with SSETestClient(ECHO, scope={"client": ("10.0.0.1", 1)}, headers={"X-All": "yes"}) as client:
        first = await client.request("GET", "/echo/")
        second = await client.request("GET", "/echo/", scope={"client": ("10.0.0.2", 2)})
    assert [first.json()["client"][0], second.json()["client"][0]] == ["10.0.0.1", "10.0.0.2"]
    assert first.json()["headers"]["x-all"] == "yes"
    assert first.json()["headers"]["accept"] == "*/*"


@pytest.mark.parametrize(
    ("own", "accepted"),
    [({}, "text/plain"), ({"accept": "text/html"}, "text/html"), ({"ACCEPT": "text/html"}, "text/html")],
)
async def test_of_headers_that_of_the_request_counts_and_then_that_of_the_client(
    own: dict[str, str], accepted: str
) -> None:
    """By names in any case; what a browser would send is for those who say nothing."""
    async with SSETestClient(ECHO, headers={"Accept": "text/plain"}) as client:
        response = await client.request("GET", "/echo/", headers=own)
        async with client.stream("/echo/", headers=own) as stream:
            await stream.read()
    assert response.json()["headers"]["accept"] == accepted
    assert json.loads(stream.body)["headers"]["accept"] == accepted


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


async def test_what_comes_at_once_is_handed_out_one_by_one() -> None:
    """Events and comments each in their order."""

    async def talk(connection: Connection) -> None:
        await connection.write(b": x\n\ndata: a\n\ndata: b\n\n: y\n\n")

    async with SSETestClient(until_gone(talk)) as client, client.stream("/") as stream:
        assert [(await stream.next_event()).data for _ in range(2)] == ["a", "b"]
        assert [(await stream.next_comment()).text for _ in range(2)] == ["x", "y"]


async def test_a_response_that_is_complete_is_closed_when_its_app_has_ended() -> None:
    """Until then there may be errors to come."""

    async def stays(connection: Connection) -> None:
        await connection.start()
        await connection.finish()
        await released.wait()

    released = anyio.Event()
    async with SSETestClient(app(stays)) as client, client.stream("/") as stream:
        with pytest.raises(NoEventError, match="did not end within 0 s"):
            await stream.closed(timeout=0)
        with pytest.raises(NoEventError, match=r"did not end within 0\.01 s"):
            await stream.closed(timeout=0.01)
        assert stream.ending is Ending.FINISHED
        released.set()
        assert await stream.closed() is Ending.FINISHED


async def test_a_task_may_wait_for_the_end_of_what_another_reads() -> None:
    """It reads nothing itself."""

    async def read() -> None:
        events.extend([event.data async for event in stream])

    async def talk(connection: Connection) -> None:
        await released.wait()
        await connection.event("one")

    events: list[str] = []
    released = anyio.Event()
    async with SSETestClient(until_gone(talk)) as client, client.stream("/") as stream:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(stream.closed)
            await anyio.wait_all_tasks_blocked()
            released.set()
    assert events == ["one"]


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
        async with client.stream("/clock", timeout=0.03) as other:
            await other.next_event()
            with pytest.raises(NoEventError, match=r"within 0\.03 s"):
                await other.next_event()


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
        with pytest.raises(NotAnEventStreamError, match=r"status 404, .*beginning b''"):
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
        ({"url": "/", "content": "", "json": {}}, "give one of them"),
        ({"url": "/", "last_event_id": "a\nb"}, "CR, LF and NUL are not allowed"),
        ({"url": "/", "last_event_id": "a\rb"}, "CR, LF and NUL are not allowed"),
        ({"url": "/", "last_event_id": "a\0b"}, "CR, LF and NUL are not allowed"),
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
