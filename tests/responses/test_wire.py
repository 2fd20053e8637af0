"""The same content gives the same bytes, chunk by chunk, as sse-starlette's response gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import anyio
import pytest
from starlette.background import BackgroundTask

from tests.responses.exchanges import Exchange, answer
from tests.responses.packages import BOTH

pytestmark = pytest.mark.anyio

Content = Callable[[ModuleType], Any]


async def both(content: Content, scope: dict[str, Any] | None = None, **parameters: Any) -> tuple[Exchange, Exchange]:
    """Serve the content by each package."""
    exchanges = []
    for package in BOTH:
        response = package.EventSourceResponse(content(package), **{"ping": 0, **parameters})
        exchanges.append(await answer(response, **(scope or {})))
    theirs, ours = exchanges
    return theirs, ours


#: What content may yield, as both packages understand it; those that depend on the separator are not built yet.
ITEMS: dict[str, Any] = {
    "a string": "hello",
    "an empty string": "",
    "a leading space": " hello",
    "a colon": "a: b",
    "lines": "one\ntwo\r\nthree\rfour\n",
    "blank lines": "\n\n",
    "unusual line ends that are none": "a\u2028b\x0bc\x0cd\x85e",
    "unicode": "żółw 🐢 \ufeff",
    "NUL": "a\0b",
    "a long string": "x" * 100_000,
    "an int": 42,
    "a float": 1.5,
    "bytes": b"data: ready\n\n",
    "half a frame": b"data: rea",
    "no bytes": b"",
    "a view": memoryview(b"data: viewed\n\n"),
    "a mapping": {"data": "x"},
    "a mapping of all fields": {"data": "x\ny", "event": "e", "id": "1", "retry": 5, "comment": "c\nd"},
    "a mapping with an int": {"data": 3},
    "an id alone": {"id": "7"},
    "an empty id": {"data": "x", "id": ""},
    "an empty name": {"data": "x", "event": ""},
    "a retry alone": {"retry": 0},
    "a comment alone": {"comment": "still here"},
    "an empty comment": {"comment": ""},
    "no field is needed": {"data": "x", "event": None, "id": None, "retry": None, "comment": None},
}


def every_item(package: ModuleType) -> Iterator[Any]:
    yield from ITEMS.values()


async def every_item_async(package: ModuleType) -> AsyncIterator[Any]:
    for item in ITEMS.values():
        yield item


class Reiterable:
    """An async iterable that is not an iterator."""

    def __init__(self, package: ModuleType) -> None:
        self._package = package

    def __aiter__(self) -> AsyncIterator[Any]:
        return every_item_async(self._package)


class Countdown:
    """An async iterator without ``aclose``."""

    def __init__(self, package: ModuleType) -> None:
        self.left = 3

    def __aiter__(self) -> Countdown:
        return self

    async def __anext__(self) -> int:
        await anyio.sleep(1)
        self.left -= 1
        if self.left < 0:
            raise StopAsyncIteration
        return self.left


CONTENTS: dict[str, Content] = {
    "async generator": every_item_async,
    "async iterable": Reiterable,
    "async iterator": Countdown,
    "list": lambda package: list(every_item(package)),
    "tuple": lambda package: tuple(every_item(package)),
    "generator": every_item,
    "range": lambda _: range(5),
    "nothing": lambda _: [],
    "iterator": lambda _: iter(["a", "b"]),
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize("sep", [None, "\r\n", "\n", "\r"])
async def test_an_item_has_the_same_bytes(item: Any, sep: str | None) -> None:
    """Whatever the stream's separator."""

    async def content(_: ModuleType) -> AsyncIterator[Any]:
        yield item

    theirs, ours = await both(content, sep=sep)
    assert ours.chunks == theirs.chunks


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
async def test_content_gives_the_same_messages(content: Content) -> None:
    """One message for the start, one for each item, and an empty last one."""
    theirs, ours = await both(content)
    assert ours.messages == theirs.messages
    assert ours.complete
    assert not ours.error


EVENTS: dict[str, dict[str, Any]] = {
    "data": {"data": "x"},
    "all": {"data": "x\ny", "event": "e", "id": "1", "retry": 5, "comment": "c"},
    "own separator": {"data": "x\ny", "sep": "\n"},
    "comment": {"comment": "still\nhere"},
}


@pytest.mark.parametrize("name", ["ServerSentEvent", "JSONServerSentEvent"])
@pytest.mark.parametrize("fields", EVENTS.values(), ids=EVENTS)
async def test_an_event_has_the_same_bytes(name: str, fields: dict[str, Any]) -> None:
    """Made by each package's own class."""
    theirs, ours = await both(lambda package: [getattr(package, name)(**fields)])
    assert ours.messages == theirs.messages


@pytest.mark.parametrize("data", ["text", {"a": [1, 2.5, True, None, "ż"]}, [], 0, False, ""], ids=repr)
async def test_json_has_the_same_bytes(data: Any) -> None:
    """``JSONServerSentEvent`` makes the same compact text."""
    theirs, ours = await both(lambda package: [package.JSONServerSentEvent(data, event="json")])
    assert ours.messages == theirs.messages


@pytest.mark.parametrize(
    "parameters",
    [
        {"status_code": 201},
        {"headers": {"X-One": "1", "Cache-Control": "no-cache", "Connection": "close"}},
        {"media_type": "text/plain"},
        {"status_code": 500, "media_type": "application/json"},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "head"])
async def test_the_status_and_headers_are_the_same(parameters: dict[str, Any], method: str) -> None:
    """For each method, HEAD included, which has no body."""
    theirs, ours = await both(lambda _: ["x"], {"method": method}, **parameters)
    assert (ours.status, ours.headers) == (theirs.status, theirs.headers)
    assert ours.messages == theirs.messages


async def test_a_websocket_is_denied_by_the_same_messages() -> None:
    """A response that answers a websocket's handshake is its denial."""
    scope = {"type": "websocket", "extensions": {"websocket.http.response": {}}}
    theirs, ours = await both(lambda _: ["denied", b"more"], scope, status_code=403)
    assert ours.messages == theirs.messages
    assert [message["type"] for message in ours.messages] == [
        "websocket.http.response.start",
        *["websocket.http.response.body"] * 3,
    ]


async def test_head_touches_nothing(package: ModuleType) -> None:
    """Neither the content nor the callables; the background task runs."""
    ran: list[str] = []

    class Untouched:
        def __aiter__(self) -> AsyncIterator[Any]:
            ran.append("content")
            raise AssertionError

    class UntouchedToo:
        def __iter__(self) -> Iterator[Any]:
            ran.append("sync content")
            raise AssertionError

    async def run(name: str) -> None:
        ran.append(name)

    for content in (Untouched(), UntouchedToo()):
        response = package.EventSourceResponse(
            content,
            background=BackgroundTask(run, "background"),
            data_sender_callable=lambda: run("sender"),
            client_close_handler_callable=lambda _: run("close handler"),
        )
        exchange = await answer(response, method="HEAD")
        assert exchange.chunks == [b""]
        assert exchange.complete
    assert ran == ["background", "background"]


async def test_data_passes_beside_a_sender(package: ModuleType) -> None:
    """A memory stream that ``data_sender_callable`` fills is content."""
    writer, reader = anyio.create_memory_object_stream[Any](2)

    async def fill() -> None:
        async with writer:
            for number in range(4):
                await anyio.sleep(1)
                await writer.send({"data": number, "event": "number"})

    async with reader:
        exchange = await answer(package.EventSourceResponse(reader, data_sender_callable=fill, ping=0))
    assert exchange.chunks == [b"event: number\r\ndata: %d\r\n\r\n" % number for number in range(4)] + [b""]
    assert exchange.took == pytest.approx(4)


async def test_the_background_task_runs_after_a_stream(package: ModuleType) -> None:
    """Whether it ran out or the client went."""
    ran: list[str] = []

    async def note(why: str) -> None:
        ran.append(why)

    async def endless() -> AsyncIterator[Any]:
        while True:
            yield "x"
            await anyio.sleep(1)

    await answer(package.EventSourceResponse(["x"], ping=0, background=BackgroundTask(note, "finished")))
    response = package.EventSourceResponse(endless(), background=BackgroundTask(note, "gone"))
    await answer(response, leaves_after=3.5)
    assert ran == ["finished", "gone"]
