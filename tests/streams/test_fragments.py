"""Bytes that come in parts, as another server's stream does: nothing of the framework's own falls into an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import pytest
from starlette.requests import Request

import starlette_sse
from starlette_sse import Broker, EventSourceResponse, InvalidEventError, ServerSentEvent
from starlette_sse.testing import Ending, SSETestClient
from tests.streams.apps import Noting, app_of, serve

pytestmark = pytest.mark.anyio


def passing(parts: Sequence[Any], *, fails: bool = False, waits: float = 0.0) -> type[Noting]:
    """Return an endpoint that sends parts, waits behind each but the last, and stays or fails."""

    class Passing(Noting):
        ping_interval = 1.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            for part in parts[:-1]:
                yield part
                await anyio.sleep(waits)
            yield parts[-1]
            if fails:
                raise RuntimeError("upstream broke")
            await anyio.sleep_forever()

    return Passing


@pytest.mark.parametrize("part", [b"data: 1\n\nda", b"data: 1\r\n\r\ndata: t", b"id: 5\n", bytearray(b": x\r")])
async def test_no_ping_comes_within_an_event(part: Any) -> None:
    """However long the rest of it takes; behind it pings come again."""
    endpoint = passing([b"data: two", b" halves\n\n"], waits=100.0)
    async with serve(endpoint) as client, client.stream("/") as stream:
        await stream.expect("two halves")
        assert [comment.text for comment in stream.comments] == ["open"]
        await stream.next_comment()
    endpoint = passing([part])
    async with serve(endpoint) as client, client.stream("/") as stream:
        with anyio.move_on_after(100):
            while (await stream.next_comment()).text != "ping":
                pass
            raise AssertionError("a ping came")


async def test_empty_bytes_end_no_event() -> None:
    """As some clients of other servers give them."""
    async with serve(passing([b"data: two", b"", b" halves\n\n"], waits=100.0)) as client, client.stream("/") as stream:
        await stream.expect("two halves")
        assert [comment.text for comment in stream.comments] == ["open"]


@pytest.mark.parametrize(
    "parts",
    [
        [b"data: one\n\n"],
        [b"data: one\r\n\r\n"],
        [b"data: one\r\r"],
        [b"data: one\n", b"\n"],
        [b"data: one\r\n\r", b"\n"],
        [b"da", b"ta: one", b"\r", b"\r"],
        [b"data: cut", ServerSentEvent("off")],
        [b"data: one\n\n", b"\n"],
        [b"data: one\n\n", b"\r\n"],
        [b"data: one\n\n", b""],
        [b""],
    ],
    ids=repr,
)
async def test_a_whole_event_keeps_no_ping_off(parts: list[Any]) -> None:
    """Whatever its line ends, and however it was cut."""
    async with serve(passing(parts)) as client, client.stream("/") as stream:
        while (await stream.next_comment()).text != "ping":
            pass


@pytest.mark.parametrize("part", [b'data: {"t', b'data: {"t\r\n', b'event: token\ndata: {"t\n', b"event: tok"])
async def test_an_error_within_an_event_is_told_and_the_event_is_not(part: bytes) -> None:
    """It ends under a name that nobody listens to, and the error comes behind it."""
    async with serve(passing([part], fails=True)) as client, client.stream("/") as stream:
        events = [event async for event in stream]
    assert [event.event for event in events if event.event != "stream-cut"] == ["stream-error"]
    assert events[-1].json()["status"] == 500


@pytest.mark.parametrize(
    "parts",
    [
        [b"id: 42\ndata: hel"],
        [b"data: whole\n\nid: 42\r\nda"],
        [b"data: whole\r\ri", b"d: 42\rdata: hel"],
        [b"data: hel\nret", b"ry: 1"],
        [b"data: whole\n\nretry: 1"],
        [b"id"],
    ],
    ids=repr,
)
async def test_an_error_within_an_event_that_would_count_cuts_the_body(parts: list[bytes]) -> None:
    """Else a client would resume behind an event that it has half of, or come back after a part of the time."""
    async with serve(passing(parts, fails=True), raise_app_exceptions=False) as client, client.stream("/") as stream:
        assert await stream.closed() is Ending.CUT
    assert {event.event for event in stream.events} <= {"message"}
    assert stream.last_event_id == ""
    assert stream.retry is None


async def test_what_counts_in_an_event_before_is_no_matter() -> None:
    """It was whole."""
    parts = [b"id: 41\nretry: 3000\nda", b"ta: whole\n\nda", b"ta: hel"]
    async with serve(passing(parts, fails=True)) as client, client.stream("/") as stream:
        assert [event.event async for event in stream] == ["message", "stream-cut", "stream-error"]
    assert stream.last_event_id == "41"


async def test_a_farewell_within_an_event_is_left_out() -> None:
    """The body ends, and the client forgets what it has of the event."""
    async with serve(passing([b"data: whole\n\ndata: {"])) as client, client.stream("/") as stream:
        await stream.expect("whole")
        starlette_sse.drain()
        assert [event async for event in stream] == []
        assert [comment.text for comment in stream.comments] == ["open"]


async def test_a_response_keeps_its_pings_off_as_well() -> None:
    """An app that passes on what comes from another server has no whole frames."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"data: two"
        await anyio.sleep(100)
        yield b" halves\n\n"
        await anyio.sleep_forever()

    async def route(request: Request) -> EventSourceResponse:
        return EventSourceResponse(parts(), ping=1)

    async with SSETestClient(app_of(route), timeout=3600) as client, client.stream("/") as stream:  # type: ignore[arg-type]
        await stream.expect("two halves")
        assert stream.comments == ()
        await stream.next_comment()


async def endless_parts() -> AsyncIterator[bytes]:
    while True:
        for part in (b"data: a", b"b", b"c\n\n"):
            yield part


async def test_a_ping_that_gets_its_turn_within_an_event_is_left_out() -> None:
    """A client that reads slowly keeps each send waiting, and the next part is ready before the ping's turn."""

    async def route(request: Request) -> EventSourceResponse:
        return EventSourceResponse(endless_parts(), ping=1)

    async with SSETestClient(app_of(route), timeout=3600) as client, client.stream("/") as stream:  # type: ignore[arg-type]
        for _ in range(30):
            await anyio.sleep(2)
            assert (await stream.next_event()).data == "abc"


async def test_a_part_that_was_given_up_is_forgotten_with_the_next_event() -> None:
    """A timeout that the generator holds across its ``yield`` has met the send; nobody knows how far that got."""

    class Passing(Noting):
        ping_interval = 1.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                with anyio.fail_after(5):
                    yield b"data: one"
            except TimeoutError:
                yield b"\n\n"
            await anyio.sleep_forever()

    async with serve(Passing) as client, client.stream("/") as stream:
        await anyio.sleep(10)
        while (await stream.next_comment()).text != "ping":
            pass


async def test_a_snapshot_of_parts_is_refused() -> None:
    """The log's id, or an event, would become a part of what is open."""
    async with Broker(observers=()) as broker, broker.subscribe("a", snapshot=lambda: b"data: x") as reader:
        with pytest.raises(InvalidEventError, match="whole frames"):
            await reader.pull()
