"""Pings keep their time, whatever the data does, and never meet it on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import anyio
import pytest
from starlette.types import Message

from starlette_sse import EventSourceResponse, SendTimeoutError, ServerSentEvent
from tests.responses.exchanges import answer

pytestmark = pytest.mark.anyio

PING = b": ping"


async def idle() -> AsyncIterator[Any]:
    await anyio.sleep_forever()
    yield ""


async def every(seconds: float, count: int = 1_000_000) -> AsyncIterator[Any]:
    for number in range(count):
        yield f"number {number}"
        await anyio.sleep(seconds)


async def test_an_idle_stream_is_pinged_every_interval(package: ModuleType) -> None:
    """The first ping comes after one interval."""
    exchange = await answer(package.EventSourceResponse(idle(), ping=10), leaves_after=45)
    assert exchange.times(PING) == [10, 20, 30, 40]


async def test_a_busy_stream_is_pinged_as_often(package: ModuleType) -> None:
    """Data does not put a ping off."""
    exchange = await answer(package.EventSourceResponse(every(0.7), ping=10), leaves_after=35)
    assert exchange.times(PING) == [10, 20, 30]


async def test_the_default_interval_is_15_seconds(package: ModuleType) -> None:
    """Proxies that cut after 30 idle seconds see a ping in time."""
    exchange = await answer(package.EventSourceResponse(idle()), leaves_after=31)
    assert exchange.times(PING) == [15, 30]


async def test_zero_means_no_ping(package: ModuleType) -> None:
    """And no busy loop either."""
    exchange = await answer(package.EventSourceResponse(idle(), ping=0), leaves_after=3600)
    assert exchange.chunks == []


async def test_the_interval_may_be_set_after_construction(package: ModuleType) -> None:
    """As an attribute, before the response is called."""
    response = package.EventSourceResponse(idle())
    response.ping_interval = 4
    exchange = await answer(response, leaves_after=9)
    assert exchange.times(PING) == [4, 8]


async def test_a_factory_makes_each_ping(package: ModuleType) -> None:
    """It may return an event, a mapping or bytes, and its event's own separator counts."""
    pings = iter(
        [
            package.ServerSentEvent("1", event="ping", sep="\n"),
            {"comment": "two"},
            b": three\n\n",
        ]
    )
    response = package.EventSourceResponse(idle(), ping=1, sep="\r", ping_message_factory=lambda: next(pings))
    exchange = await answer(response, leaves_after=3.5)
    assert exchange.chunks == [b"event: ping\ndata: 1\n\n", b": two\r\r", b": three\n\n"]


@pytest.mark.parametrize("sep", ["\r\n", "\n", "\r"])
async def test_the_default_ping_has_the_streams_separator(package: ModuleType, sep: str) -> None:
    """It is a comment with the time in UTC."""
    exchange = await answer(package.EventSourceResponse(idle(), ping=1, sep=sep), leaves_after=1.5)
    assert exchange.body.startswith(b": ping - 20")
    assert exchange.body.endswith(b"+00:00" + 2 * sep.encode())


async def test_an_error_of_the_factory_ends_the_stream(package: ModuleType) -> None:
    """It leaves bare, and the content is closed."""
    closed = []

    async def content() -> AsyncIterator[Any]:
        try:
            await anyio.sleep_forever()
            yield ""
        finally:
            closed.append(True)

    def fail() -> Any:
        raise LookupError("no ping today")

    exchange = await answer(package.EventSourceResponse(content(), ping=5, ping_message_factory=fail))
    assert isinstance(exchange.error, LookupError)
    assert exchange.took == 5
    assert not exchange.complete
    assert closed == [True]


async def test_a_ping_waits_while_data_is_sent() -> None:
    """Two sends never overlap, so no event has a ping in its middle."""

    def takes(message: Message) -> float:
        return 4 if b"number" in message.get("body", b"") else 0

    exchange = await answer(EventSourceResponse(every(3), ping=2), takes=takes, leaves_after=60)
    assert not exchange.overlapped
    assert exchange.times(PING)[:4] == [4, 6, 11, 13]
    assert len(exchange.times(b"number")) == 9


async def test_a_ping_that_waits_when_the_stream_is_ended_is_not_sent() -> None:
    """And holds up the end no longer than the data that it waits for."""
    response = EventSourceResponse(every(100), ping=2)

    async def end() -> None:
        await anyio.sleep(3)
        response.active = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end)
        exchange = await answer(response, takes=lambda message: 4 if b"number" in message.get("body", b"") else 0)
    assert exchange.times(PING) == []
    assert exchange.complete
    assert exchange.took == 4


async def test_data_waits_while_a_ping_is_sent() -> None:
    """The other way round."""

    def takes(message: Message) -> float:
        return 4 if PING in message.get("body", b"") else 0

    exchange = await answer(EventSourceResponse(every(3), ping=5), takes=takes, leaves_after=30)
    assert not exchange.overlapped
    assert exchange.times(PING) == [9, 18, 27]
    assert exchange.times(b"number")[:4] == [0, 3, 9, 12]


async def test_a_ping_that_took_long_is_not_followed_by_another_at_once() -> None:
    """The interval counts from the end of the last ping, so a slow client gets no burst of them."""

    def takes(message: Message) -> float:
        return 25 if PING in message.get("body", b"") else 0

    exchange = await answer(EventSourceResponse(idle(), ping=10), takes=takes, leaves_after=110)
    assert exchange.times(PING) == [35, 70, 105]


async def test_a_ping_gets_through_between_sends_that_never_pause() -> None:
    """A stream that always has an event ready, and a client that takes its time, still sees its pings."""

    async def firehose() -> AsyncIterator[Any]:
        while True:
            yield "number"

    def takes(message: Message) -> float:
        return 0.3 if b"number" in message.get("body", b"") else 0

    exchange = await answer(EventSourceResponse(firehose(), ping=10), takes=takes, leaves_after=45)
    assert not exchange.overlapped
    assert exchange.times(PING) == pytest.approx([10, 20, 30, 40], abs=1.5)


async def test_a_ping_that_is_stuck_times_out(package: ModuleType) -> None:
    """``send_timeout`` covers pings, and the content's ``finally`` runs."""
    closed = []

    async def content() -> AsyncIterator[Any]:
        try:
            await anyio.sleep_forever()
            yield ""
        finally:
            closed.append(True)

    def takes(message: Message) -> float:
        return 3600 if PING in message.get("body", b"") else 0

    response = package.EventSourceResponse(content(), ping=5, send_timeout=7)
    exchange = await answer(response, takes=takes)
    assert isinstance(exchange.error, TimeoutError)
    assert exchange.took == 12
    assert closed == [True]


async def test_an_endless_ping_interval_is_no_ping() -> None:
    """Infinity is a number too."""
    exchange = await answer(EventSourceResponse(idle(), ping=float("inf")), leaves_after=3600)
    assert exchange.chunks == []


def test_a_ping_timeout_is_one_class() -> None:
    """Callers that catch ``TimeoutError`` go on as they did."""
    assert issubclass(SendTimeoutError, TimeoutError)
    assert ServerSentEvent(comment="ping").encode() == b": ping\r\n\r\n"
