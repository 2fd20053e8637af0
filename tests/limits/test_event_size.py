"""An event that is larger than its endpoint allows is an error, and never half an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from starlette.requests import Request

from starlette_sse import Broker, InvalidEventError, ServerSentEvent, SSEEndpoint
from starlette_sse.observers import Observer
from starlette_sse.testing import Ending, capture_logs
from tests.streams.apps import serve

pytestmark = pytest.mark.anyio

#: ``data: `` and the two line ends of an event.
AROUND = 10


class Sized(SSEEndpoint):
    max_event_bytes = 100
    observers: Sequence[Observer] = ()
    item: Any = "x" * (100 - AROUND)
    closed: bool

    async def events(self, request: Request) -> AsyncIterator[Any]:
        type(self).closed = False
        try:
            yield "before"
            yield self.item
            yield "after"
        finally:
            type(self).closed = True


async def test_an_event_of_the_largest_size_is_sent() -> None:
    """The limit is what the event takes on the wire, without the server's framing."""
    async with serve(Sized) as client, client.stream("/") as stream:
        await stream.expect("before", Sized.item, "after")
        assert await stream.closed() is Ending.FINISHED


@pytest.mark.parametrize(
    "item",
    [
        "x" * (101 - AROUND),
        "\u20ac" * 31,
        {"data": "x" * 101},
        ServerSentEvent("x", comment="c" * 101),
        ["x"] * 100,
        b"data: " + b"x" * 91 + b"\r\n\r\n",
    ],
    ids=["text", "wide", "fields", "comment", "json", "frame"],
)
async def test_a_larger_event_ends_the_stream_with_an_error_event(item: Any) -> None:
    """Nothing of it is sent, nor anything that was to follow; the generator is closed."""

    class Large(Sized):
        pass

    Large.item = item
    async with serve(Large) as client, client.stream("/") as stream:
        await stream.expect("before")
        error = await stream.next_event()
        assert (error.event, error.json()["status"]) == ("stream-error", 500)
        assert await stream.closed() is Ending.FINISHED
        assert b"xxx" not in stream.body
    assert Large.closed


async def test_the_error_names_the_attribute_the_sizes_and_the_remedy() -> None:
    """``on_error`` is given it, and the log has it; not the event itself."""
    errors: list[BaseException] = []

    class Large(Sized):
        observers = SSEEndpoint.observers
        item = "secret" * 20

        async def on_error(self, request: Request, error: Exception) -> ServerSentEvent | None:
            errors.append(error)
            return ServerSentEvent("told")

    with capture_logs() as logs:
        async with serve(Large) as client, client.stream("/") as stream:
            await stream.expect("before", "told")
            await stream.closed()
    (error,) = errors
    assert isinstance(error, InvalidEventError)
    assert str(error) == (
        f"an event of 130 bytes is more than {Large.__qualname__}.max_event_bytes = 100 allows; "
        "send a reference to what it holds, or allow more"
    )
    assert [entry["event"] for entry in logs] == ["stream.opened", "stream.failed", "stream.closed"]
    assert "secret" not in repr(list(logs))


async def test_a_first_event_that_is_too_large_is_an_error_before_the_response() -> None:
    """The client gets the status of it."""

    class First(Sized):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "x" * 100

    async with serve(First) as client:
        with pytest.raises(InvalidEventError):
            await client.stream("/")


async def test_a_plain_generator_is_limited_too() -> None:
    """Its stream may have begun by the time that its thread has the first event."""

    class Plain(SSEEndpoint):
        max_event_bytes = 100
        observers = ()

        def events(self, request: Request) -> Iterator[Any]:
            yield "x" * 100

    async with serve(Plain) as client, client.stream("/") as stream:
        assert (await stream.next_event()).event == "stream-error"


async def test_an_instance_may_have_a_limit_of_its_own() -> None:
    """Set in ``on_connect``, for its stream alone."""

    class Chosen(Sized):
        async def on_connect(self, request: Request) -> None:
            if request.query_params:
                self.max_event_bytes = 20

    async with serve(Chosen) as client:
        async with client.stream("/?small=1") as stream:
            await stream.expect("before")
            assert (await stream.next_event()).event == "stream-error"
        async with client.stream("/") as stream:
            await stream.expect("before", Chosen.item, "after")


async def test_a_publisher_is_told_of_an_event_that_is_too_large_for_the_broker() -> None:
    """Where it is published, so no subscriber ever meets it."""
    broker = Broker(max_bytes=2000)
    async with broker, broker.subscribe("news") as subscription:
        with pytest.raises(InvalidEventError, match=r"max_bytes=2000"):
            await broker.publish("news", "x" * 2000)
        await broker.publish("news", "small")
        assert b"data: small" in await subscription.pull()
