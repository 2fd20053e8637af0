"""Tests that are plain functions: the portal client, and Starlette's own where it can do the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient

from starlette_sse import CloseReason, ServerSentEvent, SSEEndpoint
from starlette_sse.decoding import EventDecoder
from starlette_sse.testing import (
    BlockingEventStream,
    BlockingSSETestClient,
    Ending,
    NoEventError,
    SSETestClient,
    StreamForgottenError,
    UnexpectedEventsError,
)

from .apps import Connection, app, until_gone


class Numbers(SSEEndpoint):
    retry = 3000

    async def events(self, request: Request) -> AsyncIterator[Any]:
        number = int(self.last_event_id or 0)
        while number < 1000:
            number += 1
            yield ServerSentEvent(str(number), id=number)
            await anyio.lowlevel.checkpoint()


async def silent(connection: Connection) -> None:
    await anyio.sleep_forever()


NUMBERS = Starlette(routes=[Route("/", Numbers)])


@pytest.fixture(params=["asyncio", "trio"])
def client(request: pytest.FixtureRequest) -> Any:
    with SSETestClient.blocking(NUMBERS, backend=request.param) as client:
        yield client


def test_an_endless_stream_is_read_without_an_event_loop(client: BlockingSSETestClient) -> None:
    """The same methods without await: read, expect, look at what came."""
    with client.stream("/") as stream:
        assert stream.response.status_code == 200
        assert stream.next_comment().text == "open"
        assert stream.next_event().data == "1"
        stream.expect("2", "3")
        for event in stream:
            if event.data == "5":
                break
        assert [event.id for event in stream.events] == ["1", "2", "3", "4", "5"]
        assert (stream.last_event_id, stream.retry, stream.ending) == ("5", 3000, None)
        assert [comment.text for comment in stream.comments] == ["open"]
        assert b"data: 5" in stream.body


def test_what_clients_do_can_be_done_without_an_event_loop(client: BlockingSSETestClient) -> None:
    """Stalling, cutting, reconnecting, disconnecting and a shutdown."""
    with client.stream("/") as stream:
        stream.expect("1")
        stream.stall()
        with pytest.raises(TimeoutError):
            stream.next_event(timeout=0.01)
        stream.resume()
        stream.expect("2")
        stream.cut(at=4)
        assert stream.body.endswith(b"data: 2\r\n\r\nid: ")
        assert stream.closed() is Ending.DISCONNECTED
        with client.reconnect(stream) as again:
            again.expect("3")
            again.disconnect()
            again.closed()
            assert again.close_reason is CloseReason.CLIENT_GONE
    stream = client.stream("/", last_event_id="998")
    with stream:
        assert [event.data for event in stream] == ["999", "1000"]
    with client.stream("/") as stream:
        stream.close()
        assert (stream.ending, stream.close_reason) == (Ending.DISCONNECTED, CloseReason.CLIENT_GONE)
    with client.stream("/") as stream:
        client.drain()
        stream.closed()
        assert stream.close_reason is CloseReason.DRAINING


def test_whole_responses_and_the_apps_state_are_at_hand(client: BlockingSSETestClient) -> None:
    """A request to another endpoint needs no stream; the portal reaches what only the event loop may touch."""
    response = client.request("GET", "/", last_event_id="999")
    assert (response.status_code, response.text.count("data: ")) == (200, 1)
    assert "starlette_sse" in client.state
    assert client.portal.call(anyio.get_current_task).name is not None
    with client.stream("/", last_event_id="999") as stream:
        assert stream.read().endswith(b"data: 1000\r\n\r\n")
    with client.stream("/") as stream, pytest.raises(UnexpectedEventsError, match=r"an event within 0\.5 s"):
        stream.expect_silence(0.5)


@pytest.mark.parametrize(
    "wait",
    [
        lambda stream: stream.next_event(timeout=0.01),
        lambda stream: stream.next_comment(timeout=0.01),
        lambda stream: stream.expect("one", timeout=0.01),
        lambda stream: stream.cut(timeout=0.01),
        lambda stream: stream.read(timeout=0.01),
        lambda stream: stream.closed(timeout=0.01),
    ],
    ids=["next_event", "next_comment", "expect", "cut", "read", "closed"],
)
def test_each_wait_has_its_own_timeout(wait: Callable[[BlockingEventStream], Any]) -> None:
    """Which is told, and counts instead of the client's; silence as long as was asked for is none."""
    with SSETestClient.blocking(until_gone(silent), timeout=20.0) as client, client.stream("/") as stream:
        with pytest.raises((NoEventError, UnexpectedEventsError), match=r"within 0\.01 s"):
            wait(stream)
        began = client.portal.call(anyio.current_time)
        stream.expect_silence(0.05)
        assert client.portal.call(anyio.current_time) - began >= 0.05


def test_the_event_loop_has_the_options_that_it_is_given() -> None:
    """As for ``anyio.run()``."""
    with SSETestClient.blocking(NUMBERS, backend_options={"debug": True}) as client:
        assert client.portal.call(asyncio.get_running_loop).get_debug()


def test_errors_leave_as_they_do_with_an_event_loop() -> None:
    """The app's exception, the test's own, and a forgotten stream that is named."""

    async def fail(connection: Connection) -> None:
        await connection.start()
        raise KeyError("late")

    with SSETestClient.blocking(app(fail)) as client:
        with pytest.raises(KeyError, match="late"):
            with client.stream("/") as stream:
                stream.next_event()
        with pytest.raises(ZeroDivisionError):
            with client.stream("/"):
                raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        with SSETestClient.blocking(NUMBERS) as client:
            client.stream("/").__enter__()
            raise ZeroDivisionError
    with pytest.raises(StreamForgottenError, match=r"opened at .*test_blocking\.py:\d+"):
        with SSETestClient.blocking(NUMBERS) as client:
            client.stream("/").__enter__()
    with pytest.raises(RuntimeError, match=r"with SSETestClient.blocking\(app\) as client"):
        client_not_open = SSETestClient.blocking(NUMBERS)
        client_not_open.drain()


def test_starlettes_own_client_reads_a_stream_that_need_not_end() -> None:
    """From Starlette 1.9 on TestClient streams: the decoder makes events of what it reads, closing cancels the app."""
    with TestClient(NUMBERS) as client, client.stream("GET", "/", headers={"Last-Event-ID": "7"}) as response:
        decoder, events = EventDecoder(), []
        for chunk in response.iter_raw():
            events += decoder.feed(chunk)
            if len(events) >= 3:
                break
        assert [event.data for event in events] == ["8", "9", "10"]
