"""Delivery without waking a task for each stream, which only uvicorn's own ``send`` allows."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request

from starlette_sse import Broker, ChannelEndpoint, CloseReason, close, drain, open_streams
from starlette_sse.broker.live import LiveReader
from starlette_sse.observers import Observer, StreamFacts
from tests.loopback import Reader, sends_from_callbacks, serving
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(asyncio_or_uvloop: tuple[str, dict[str, bool]]) -> tuple[str, dict[str, bool]]:
    return asyncio_or_uvloop


@pytest.fixture
def sent_now(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    return sends_from_callbacks(monkeypatch)


def news(**attributes: Any) -> type[ChannelEndpoint]:
    broker = Broker(observers=(), history=5000, max_bytes=64 * 1024 * 1024)
    return type("News", (ChannelEndpoint,), {"broker": broker, "channels": ("news",), "observers": (), **attributes})


async def test_every_reader_gets_every_event_once_in_order(protocol: str, sent_now: list[bool]) -> None:
    """Whether events come one by one or in bursts, the sends need no task."""
    endpoint = news()
    async with serving(endpoint, protocol) as port, contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(Reader(port)) for _ in range(30)]
        for number in range(200):
            await endpoint.broker.publish("news", str(number))
            if number % 7 == 0:
                await readers[number % 30].read(number)
        for reader in readers:
            assert await reader.read(200) == [str(number) for number in range(200)]
    assert sent_now
    assert all(sent_now)
    # Bursts leave joined: fewer sends than deliveries.
    assert len(sent_now) < 30 * 200 / 2


async def test_an_observer_hears_what_is_sent(protocol: str, sent_now: list[bool]) -> None:
    """Each send with its size, though no task has sent it."""
    sizes: list[int] = []

    class Weighing(Observer):
        def sent(self, stream: StreamFacts, size: int) -> None:
            sizes.append(size)

    endpoint = news(observers=(Weighing(),))
    async with serving(endpoint, protocol) as port, Reader(port) as reader:
        event_id = await endpoint.broker.publish("news", "hello")
        assert await reader.read(1) == ["hello"]
    assert sent_now == [True]
    assert sizes == [len(f"id: {event_id}\r\ndata: hello\r\n\r\n")]


async def test_what_goes_wrong_in_a_callback_ends_the_stream(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that nobody wakes any more would be open and silent for ever."""
    reasons: list[CloseReason] = []

    class Watching(Observer):
        def sent(self, stream: StreamFacts, size: int) -> None: ...

        def closed(self, stream: StreamFacts, reason: CloseReason, error: BaseException | None) -> None:
            reasons.append(reason)

    def fail(reader: LiveReader) -> bytes:
        raise ValueError("a mistake of ours")

    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    endpoint = news(observers=(Watching(),))
    async with serving(endpoint, protocol) as port, Reader(port) as reader:
        monkeypatch.setattr(LiveReader, "_take_ready", fail)
        await endpoint.broker.publish("news", "hello")
        async with asyncio.timeout(10):
            (error,) = await reader.read(1)
        assert "Internal Server Error" in error
    assert reasons == [CloseReason.ERROR]
    assert [str(context["exception"]) for context in told] == ["a mistake of ours"]


async def test_a_reader_that_stalls_gets_everything_when_it_reads_on(protocol: str, sent_now: list[bool]) -> None:
    """A send that blocks is finished by the stream's own task, and the other readers don't notice."""
    endpoint = news()
    filling = "x" * 30_000
    async with serving(endpoint, protocol) as port, Reader(port, receive_buffer=4096) as stalled, Reader(port) as quick:
        for number in range(400):
            await endpoint.broker.publish("news", f"{number} {filling}")
            await quick.read(number + 1)
        assert sent_now.count(False) >= 1
        expected = [f"{number} {filling}" for number in range(400)]
        assert quick.events == expected
        assert await stalled.read(400) == expected


async def test_a_send_that_was_slow_to_leave_is_finished_although_nothing_follows(
    protocol: str, sent_now: list[bool]
) -> None:
    """A client that has read all of it would be given up for what it has."""
    endpoint = news(ping_interval=None)
    published = 0
    async with serving(endpoint, protocol) as port, Reader(port, receive_buffer=4096) as reader:
        while all(sent_now):
            await endpoint.broker.publish("news", "x" * 100_000)
            await asyncio.sleep(0)
            published += 1
        await reader.read(published)
        await until(lambda: not open_streams()[0].lag)


async def test_a_reader_that_stalls_for_good_ends_by_send_timeout(protocol: str, sent_now: list[bool]) -> None:
    """What was begun from a callback is given up, and everything is freed."""
    ended = asyncio.Event()
    reasons = []

    async def on_disconnect(self: Any, request: Request, reason: CloseReason) -> None:
        reasons.append(reason)
        ended.set()

    endpoint = news(send_timeout=0.3, on_disconnect=on_disconnect)
    async with serving(endpoint, protocol) as port, Reader(port, receive_buffer=4096) as stalled:
        while all(sent_now):
            await endpoint.broker.publish("news", "x" * 30_000)
            await asyncio.sleep(0)
        await asyncio.wait_for(ended.wait(), 20)
        await stalled.end()
    assert reasons == [CloseReason.SEND_TIMEOUT]
    assert endpoint.broker.health().subscriptions == 0


async def test_a_reader_that_goes_in_the_middle_of_a_send_is_gone(protocol: str, sent_now: list[bool]) -> None:
    """Nobody waits for the rest of it."""
    ended = asyncio.Event()
    reasons = []

    async def on_disconnect(self: Any, request: Request, reason: CloseReason) -> None:
        reasons.append(reason)
        ended.set()

    endpoint = news(on_disconnect=on_disconnect)
    async with serving(endpoint, protocol) as port:
        async with Reader(port, receive_buffer=4096):
            while all(sent_now):
                await endpoint.broker.publish("news", "x" * 30_000)
                await asyncio.sleep(0)
        await asyncio.wait_for(ended.wait(), 20)
    assert reasons == [CloseReason.CLIENT_GONE]


async def test_a_stalled_reader_holds_up_a_shutdown_for_the_grace_only(protocol: str, sent_now: list[bool]) -> None:
    """The farewell waits for the send that blocks, and then it is given up."""
    endpoint = news(drain_grace=0.3)
    async with serving(endpoint, protocol) as port, Reader(port, receive_buffer=4096):
        while all(sent_now):
            await endpoint.broker.publish("news", "x" * 30_000)
            await asyncio.sleep(0)
        start = asyncio.get_running_loop().time()
        drain()
        await until(lambda: not endpoint.broker.health().subscriptions)
        assert asyncio.get_running_loop().time() - start < 10


@pytest.mark.parametrize("woken", [False, True])
async def test_what_was_published_before_the_end_is_sent_before_it(protocol: str, woken: bool) -> None:
    """An event and the close in the same turn, whether the stream was about to wake or not."""
    sent: list[int] = []

    class Counting(Observer):
        def closed(self, stream: StreamFacts, reason: CloseReason, error: BaseException | None) -> None:
            sent.append(stream.events)

    endpoint = news(observers=(Counting(),))
    async with serving(endpoint, protocol) as port, Reader(port) as reader:
        await endpoint.broker.publish("news", "first")
        await reader.read(1)
        (subscription,) = endpoint.broker._log.subscribers
        if woken:
            subscription.wake()
        await endpoint.broker.publish("news", "last")
        assert close(endpoint=endpoint) == 1
        await reader.finish()
    assert reader.events == ["first", "last"]
    assert sent == [2]


@pytest.mark.parametrize("bounds", [{"history": 1}, {"max_bytes": 1024}], ids=lambda bounds: next(iter(bounds)))
@pytest.mark.parametrize("patched", [False, True], ids=["own", "patched"])
async def test_the_least_retention_is_enough_for_who_keeps_up(
    protocol: str, bounds: dict[str, Any], patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One event fits, and each is sent before the next takes its place; past uvicorn's ``send`` or through it."""
    if patched:
        monkeypatch.setattr("starlette_sse.streams.writers.passable_exchange", lambda send: None)
    broker = Broker(observers=(), **bounds)
    endpoint = news(broker=broker)
    events = [f"{number} " + "x" * 700 for number in range(20)]
    async with serving(endpoint, protocol) as port, Reader(port) as reader:
        # Nobody tries again and again what can't be done.
        assert len(broker._log.channels["news"].followers) == (not patched)
        for event in events:
            await broker.publish("news", event)
        assert await reader.read(20) == events


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


@pytest.mark.parametrize("middleware", [Middleware(Passing), Middleware(GZipMiddleware)])
async def test_behind_a_middleware_that_wraps_send_a_task_sends(
    protocol: str, sent_now: list[bool], middleware: Middleware
) -> None:
    """What such a ``send`` awaits may need a task to run in."""
    endpoint = news()
    async with serving(endpoint, protocol, middleware=[middleware]) as port, Reader(port) as reader:
        for number in range(20):
            await endpoint.broker.publish("news", str(number))
        assert await reader.read(20) == [str(number) for number in range(20)]
    assert sent_now == []
