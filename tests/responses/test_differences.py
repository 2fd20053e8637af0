"""Where this package means to differ from sse-starlette: what docs/moving_from_sse_starlette.rst says."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import AsyncIterator, Callable
from types import MappingProxyType, ModuleType
from typing import Any

import anyio
import pytest
from starlette.types import Message

from starlette_sse import EventSourceResponse, InvalidEventError
from tests.responses.exchanges import Exchange, answer
from tests.responses.packages import sse_starlette, starlette_sse

pytestmark = pytest.mark.anyio

Make = Callable[[ModuleType], Any]


async def sent(package: ModuleType, item: Any, **parameters: Any) -> Exchange:
    async def content() -> AsyncIterator[Any]:
        yield item(package) if callable(item) else item

    return await answer(package.EventSourceResponse(content(), ping=0, **parameters))


WHEN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)

#: What is yielded, the data that sse-starlette's client gets, and ours.
OTHER_DATA: list[tuple[Any, bytes, bytes]] = [
    ({"data": {"a": 1}}, b"{'a': 1}", b'{"a":1}'),
    ({"data": ["x", None]}, b"['x', None]", b'["x",null]'),
    (["x"], b"['x']", b'["x"]'),
    (True, b"True", b"true"),
    (1e100, b"1e+100", b"1e+100"),
    (WHEN, b"2026-01-02 03:04:05+00:00", b'"2026-01-02T03:04:05+00:00"'),
    (uuid.UUID(int=1), b"00000000-0000-0000-0000-000000000001", b'"00000000-0000-0000-0000-000000000001"'),
    (decimal.Decimal("1.50"), b"1.50", b'"1.50"'),
]


@pytest.mark.parametrize(("item", "theirs", "ours"), OTHER_DATA, ids=repr)
async def test_data_that_is_no_str_becomes_json(item: Any, theirs: bytes, ours: bytes) -> None:
    """Python's own notation is nothing that a client can read."""
    assert (await sent(sse_starlette, item)).chunks[0] == b"data: " + theirs + b"\r\n\r\n"
    assert (await sent(starlette_sse, item)).chunks[0] == b"data: " + ours + b"\r\n\r\n"


#: What is yielded, and what sse-starlette sends for it; here it ends the stream.
REFUSED: dict[str, tuple[Any, bytes]] = {
    "line end in an id": ({"data": "x", "id": "1\n2"}, b"id: 12\r\ndata: x\r\n\r\n"),
    "line end in a name": ({"data": "x", "event": "a\r\nb"}, b"event: ab\r\ndata: x\r\n\r\n"),
    "NUL in an id": ({"data": "x", "id": "1\x002"}, b"id: 1\x002\r\ndata: x\r\n\r\n"),
    "no field": ({}, b"\r\n"),
    "None": (None, b"data: None\r\n\r\n"),
    "negative retry": ({"data": "x", "retry": -1}, b"data: x\r\nretry: -1\r\n\r\n"),
    "long retry": ({"data": "x", "retry": 2**31}, b"data: x\r\nretry: 2147483648\r\n\r\n"),
    "bool as retry": ({"data": "x", "retry": True}, b"data: x\r\nretry: True\r\n\r\n"),
    "comment that is no str": ({"comment": 5}, b": 5\r\n\r\n"),
    "bytes as data": ({"data": b"x"}, b"data: b'x'\r\n\r\n"),
    "an object": ({"data": object}, b"data: <class 'object'>\r\n\r\n"),
    "NaN": (float("nan"), b"data: nan\r\n\r\n"),
}


@pytest.mark.parametrize(("item", "theirs"), REFUSED.values(), ids=REFUSED)
async def test_what_would_not_arrive_as_it_was_meant_is_refused(item: Any, theirs: bytes) -> None:
    """By an error that names the field, where sse-starlette sends something else, or what clients drop."""
    assert (await sent(sse_starlette, item)).chunks[0] == theirs
    exchange = await sent(starlette_sse, item)
    assert isinstance(exchange.error, InvalidEventError)
    assert exchange.chunks == []


@pytest.mark.parametrize("item", [{"event": "done"}, {"event": "done", "data": None}], ids=str)
async def test_a_mapping_with_a_name_alone_has_empty_data(item: Any) -> None:
    """Libraries end their streams so, and then browsers see that too."""
    assert (await sent(sse_starlette, item)).chunks[0] == b"event: done\r\n\r\n"
    assert (await sent(starlette_sse, MappingProxyType(item))).chunks[0] == b"event: done\r\ndata: \r\n\r\n"
    assert (await sent(starlette_sse, item)).chunks[0] == b"event: done\r\ndata: \r\n\r\n"


async def test_an_encode_without_a_parameter_is_called() -> None:
    """As a subclass may have that was written for sse-starlette."""

    def event(package: ModuleType) -> Any:
        def encode(self: Any) -> bytes:
            return b"data: custom\r\n\r\n"

        return type("Custom", (package.ServerSentEvent,), {"encode": encode})("x")

    for package in (sse_starlette, starlette_sse):
        assert (await sent(package, event)).chunks[0] == b"data: custom\r\n\r\n"


async def test_a_lone_surrogate_is_refused_when_the_event_is_made() -> None:
    """And not when it is sent."""
    exchange = await sent(sse_starlette, lambda package: package.ServerSentEvent("\ud800"))
    assert isinstance(exchange.error, UnicodeEncodeError)
    with pytest.raises(InvalidEventError, match="lone surrogate"):
        starlette_sse.ServerSentEvent("\ud800")


async def test_an_unknown_field_is_named() -> None:
    """Both refuse it; the message here says what to do about a mapping that is the data."""
    assert isinstance((await sent(sse_starlette, {"now": 1})).error, TypeError)
    error = (await sent(starlette_sse, {"now": 1})).error
    assert isinstance(error, InvalidEventError)
    assert "ServerSentEvent(data=...)" in str(error)


async def test_an_event_has_the_streams_separator() -> None:
    """One stream, one kind of line end, unless the event has a ``sep`` of its own."""

    def event(package: ModuleType) -> Any:
        return package.ServerSentEvent("x")

    assert (await sent(sse_starlette, event, sep="\n")).body == b"data: x\r\n\r\n"
    assert (await sent(starlette_sse, event, sep="\n")).body == b"data: x\n\n"


async def test_a_mappings_own_separator_counts() -> None:
    """As an event's does."""
    item = {"data": "x", "sep": "\n"}
    assert (await sent(sse_starlette, item, sep="\r")).body == b"data: x\r\r"
    assert (await sent(starlette_sse, item, sep="\r")).body == b"data: x\n\n"


async def test_an_event_cannot_be_changed() -> None:
    """It was checked when it was made, so it stays as it was; ``replace`` makes another."""
    event = starlette_sse.ServerSentEvent("x", id="1")
    with pytest.raises(AttributeError):
        event.id = "2"  # type: ignore[misc]
    assert event.replace(id="2").id == "2"
    assert sse_starlette.ServerSentEvent("x").id is None


async def test_content_that_fails_at_once_has_its_real_status() -> None:
    """Nothing was sent yet, so the app's exception handlers can answer."""

    async def content() -> AsyncIterator[Any]:
        yield {"no such field": 1}

    theirs = await answer(sse_starlette.EventSourceResponse(content()))
    ours = await answer(EventSourceResponse(content()))
    assert isinstance(theirs.error, TypeError)
    assert theirs.status == 200
    assert isinstance(ours.error, InvalidEventError)


async def test_a_body_that_nobody_has_read_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Content that waits for it waits for ever, and nobody would see why; once, as some apps mean to ignore bodies."""

    class Posted(Exchange):
        async def receive(self) -> Message:
            return {**await super().receive(), "body": b"{}"}

    async def content() -> AsyncIterator[Any]:
        await anyio.sleep(1)
        yield "late"

    for _ in range(2):
        posted = Posted(method="POST", path="/ask", headers=[(b"content-length", b"2")])
        assert b"late" in (await posted.run(EventSourceResponse(content()))).body
    (told,) = caplog.messages
    assert "at /ask was open" in told
    assert "read the body in the route" in told


async def test_an_interrupted_finally_may_wait() -> None:
    """It is interrupted once; sse-starlette's is cut at each of its own waits."""
    cleaned: list[str] = []

    async def content(name: str) -> AsyncIterator[Any]:
        try:
            yield "x"
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(1)
            cleaned.append(name)

    await answer(sse_starlette.EventSourceResponse(content("theirs")), leaves_after=5)
    await answer(EventSourceResponse(content("ours")), leaves_after=5)
    assert cleaned == ["ours"]


async def test_pings_and_data_do_not_overlap() -> None:
    """Two sends at a time are two frames mixed, on servers that split a send."""

    async def content() -> AsyncIterator[Any]:
        for number in range(5):
            yield f"number {number}"
            await anyio.sleep(2)

    def takes(message: Message) -> float:
        return 4 if message.get("body") else 0

    theirs = await answer(sse_starlette.EventSourceResponse(content(), ping=3), takes=takes)
    ours = await answer(EventSourceResponse(content(), ping=3), takes=takes)
    assert (theirs.overlapped, ours.overlapped) == (True, False)


async def test_the_close_handler_is_called_for_every_ending() -> None:
    """Here for a stream that ran out."""
    calls: list[str] = []

    def handler(name: str) -> Callable[[Message], Any]:
        async def handle(_: Message) -> None:
            calls.append(name)

        return handle

    await answer(sse_starlette.EventSourceResponse(iter([]), ping=0, client_close_handler_callable=handler("theirs")))
    await answer(EventSourceResponse([], ping=0, client_close_handler_callable=handler("ours")))
    assert calls == ["ours"]


async def test_a_close_handlers_error_is_logged_and_not_raised() -> None:
    """The client has gone: nobody is left to be answered, and the background task still runs."""

    async def fail(_: Message) -> None:
        raise LookupError

    async def content() -> AsyncIterator[Any]:
        await anyio.sleep_forever()
        yield ""

    theirs = await answer(
        sse_starlette.EventSourceResponse(content(), client_close_handler_callable=fail), leaves_after=1
    )
    ours = await answer(EventSourceResponse(content(), client_close_handler_callable=fail), leaves_after=1)
    assert isinstance(theirs.error, LookupError)
    assert ours.error is None


async def test_what_send_raises_means_that_the_client_has_gone() -> None:
    """It ends the stream, and is no error of the app."""

    def takes(message: Message) -> float:
        if message.get("body"):
            raise OSError("the transport is closed")
        return 0

    async def content() -> AsyncIterator[Any]:
        yield "x"

    theirs = await answer(sse_starlette.EventSourceResponse(content(), ping=0), takes=takes)
    ours = await answer(EventSourceResponse(content(), ping=0), takes=takes)
    assert isinstance(theirs.error, OSError)
    assert ours.error is None


async def test_the_send_timeout_covers_every_send() -> None:
    """The response's start and its last message too, which a stalled client holds up just as well."""

    async def content() -> AsyncIterator[Any]:
        yield "x"

    def takes(message: Message) -> float:
        return 100 if "status" in message else 0

    theirs = await answer(sse_starlette.EventSourceResponse(content(), ping=0, send_timeout=5), takes=takes)
    ours = await answer(EventSourceResponse(content(), ping=0, send_timeout=5), takes=takes)
    assert theirs.took == pytest.approx(100)
    assert theirs.error is None
    assert ours.took == pytest.approx(5)
    assert isinstance(ours.error, TimeoutError)


async def test_a_response_without_media_type_is_an_event_stream_all_the_same() -> None:
    """A client takes no other content type."""
    assert "content-type" not in sse_starlette.EventSourceResponse(iter([]), media_type=None).headers  # type: ignore[arg-type]
    assert EventSourceResponse([], media_type=None).headers["content-type"] == "text/event-stream; charset=utf-8"
