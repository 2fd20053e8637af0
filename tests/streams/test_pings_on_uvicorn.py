"""Pings that are sent from the alarm's callback, which only uvicorn's own ``send`` allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request

import starlette_sse
from starlette_sse import Broker, ChannelEndpoint, CloseReason, ServerSentEvent, SSEEndpoint
from starlette_sse.observers import Observer
from starlette_sse.streams import Stream
from tests.loopback import Reader, sends_from_callbacks, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def in_tasks(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """Every ping for which a stream's task was woken."""
    woken: list[Stream] = []
    ping = Stream._ping

    async def watched(self: Stream) -> None:
        woken.append(self)
        await ping(self)

    monkeypatch.setattr(Stream, "_ping", watched)
    return woken


class Counting(Observer):
    def __init__(self) -> None:
        self.pings = 0
        self.closed_as: list[tuple[CloseReason, str]] = []

    def pinged(self, stream: Any) -> None:
        self.pings += 1

    def closed(self, stream: Any, reason: CloseReason, error: BaseException | None) -> None:
        self.closed_as.append((reason, repr(error)))


class Silent(SSEEndpoint):
    """Sends nothing but pings, which are events so that a reader can count them."""

    ping_interval = 0.05

    async def events(self, request: Request) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    def ping_message(self, request: Request) -> ServerSentEvent:
        return ServerSentEvent("ping")


async def test_a_ping_wakes_no_task(protocol: str, in_tasks: list[Stream]) -> None:
    """A generator's stream is pinged between its events, and the observers hear of each."""
    counting = Counting()

    class Feed(Silent):
        observers = (counting,)

    async with serving(Feed, protocol) as port, Reader(port) as reader:
        assert (await reader.read(3))[:3] == ["ping"] * 3
    assert counting.pings >= 3
    assert in_tasks == []
    assert [reason for reason, _ in counting.closed_as] == [CloseReason.CLIENT_GONE]


async def test_a_channel_s_ping_carries_its_position(protocol: str, in_tasks: list[Stream]) -> None:
    """Also one that no task has sent."""
    positions = []

    class News(ChannelEndpoint):
        broker = Broker(observers=())
        channels = ("news",)
        observers = ()
        ping_interval = 0.05
        ping_message = Silent.ping_message

    async with serving(News, protocol) as port, Reader(port) as reader:
        await reader.read(1)
        positions.append(reader.last_event_id)
        published = await News.broker.publish("other", "unseen")
        await reader.read(len(reader.events) + 2)
        positions.append(reader.last_event_id)
    assert positions[0] != positions[1] == published
    assert in_tasks == []


async def test_behind_a_middleware_that_wraps_send_a_task_pings(protocol: str, in_tasks: list[Stream]) -> None:
    """Whatever it does with ``send``, it may have to wait."""

    class Feed(Silent):
        observers = ()

    async with serving(Feed, protocol, middleware=[Middleware(GZipMiddleware)]) as port, Reader(port) as reader:
        assert (await reader.read(3))[:3] == ["ping"] * 3
    assert len(in_tasks) >= 3


async def test_a_ping_message_that_fails_ends_the_stream(protocol: str) -> None:
    """The client is told by an error event, as of any hook that fails."""
    counting = Counting()

    class Broken(Silent):
        observers = (counting,)

        def ping_message(self, request: Request) -> ServerSentEvent:
            raise ValueError("no ping")

    async with serving(Broken, protocol) as port, Reader(port) as reader:
        [told] = await reader.read(1)
        assert '"status":500' in told
        await reader.end()
    assert counting.closed_as == [(CloseReason.ERROR, "ValueError('no ping')")]


async def test_pings_to_a_reader_that_stalls_end_the_stream_in_time(protocol: str) -> None:
    """One that blocks is finished or given up by the stream's task; the generator's own event waits its turn."""
    counting = Counting()

    class Large(Silent):
        observers = (counting,)
        ping_interval = 0.005
        send_timeout = 0.5

        def ping_message(self, request: Request) -> ServerSentEvent:
            return ServerSentEvent("x" * 100_000)

    async with serving(Large, protocol) as port, Reader(port, receive_buffer=4096) as reader:
        async with asyncio.timeout(60):
            while not counting.closed_as:
                await asyncio.sleep(0.01)
        await reader.end()
    assert [reason for reason, _ in counting.closed_as] == [CloseReason.SEND_TIMEOUT]


async def test_a_reader_that_stalls_for_a_while_gets_pings_and_events_whole(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pings from callbacks and events from the generator's task pass one at a time, in one order."""
    sent_now = sends_from_callbacks(monkeypatch)
    stalled = asyncio.Event()

    class Mixed(Silent):
        observers = ()
        ping_interval = 0.002
        send_timeout = None

        async def events(self, request: Request) -> AsyncIterator[Any]:
            await stalled.wait()
            for number in range(300):
                yield f"{number} " + "x" * 5_000

        def ping_message(self, request: Request) -> ServerSentEvent:
            return ServerSentEvent("ping " + "y" * 20_000)

    async with serving(Mixed, protocol) as port, Reader(port, receive_buffer=4096) as reader:
        async with asyncio.timeout(60):
            while all(sent_now):
                await asyncio.sleep(0.001)
        # A ping waits for the reader, and now the generator's first event waits for the ping.
        stalled.set()
        while len([event for event in reader.events if event[0] != "p"]) < 300:
            await reader.read(len(reader.events) + 1)
    own = [event for event in reader.events if event[0] != "p"]
    assert own == [f"{number} " + "x" * 5_000 for number in range(300)]
    assert {event for event in reader.events if event[0] == "p"} == {"ping " + "y" * 20_000}


async def test_a_ping_that_was_slow_to_leave_is_finished_by_the_task(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that has read it is not given up, although nothing else is sent until the next."""
    sent_now = sends_from_callbacks(monkeypatch)
    counting = Counting()

    class Large(Silent):
        observers = (counting,)
        ping_interval = 1.5
        send_timeout = 1.2

        def ping_message(self, request: Request) -> ServerSentEvent:
            return ServerSentEvent("x" * 8_000_000)

    async with serving(Large, protocol) as port, Reader(port, receive_buffer=4096) as reader:
        async with asyncio.timeout(60):
            while all(sent_now):
                await asyncio.sleep(0.001)
        await reader.read(3)
    assert sent_now[:2] == [True, False]
    assert [reason for reason, _ in counting.closed_as] == [CloseReason.CLIENT_GONE]


async def test_a_ping_runs_in_its_requests_context(protocol: str) -> None:
    """Also when somebody else has begun a drain, whose variables are none of this client's business."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    class Patient(Silent):
        drain_policy = "finish"
        drain_grace = 30.0

        async def on_connect(self, request: Request) -> None:
            tenant.set("mine")

        def ping_message(self, request: Request) -> ServerSentEvent:
            return ServerSentEvent(tenant.get())

    async with serving(Patient, protocol) as port, Reader(port) as reader:
        await reader.read(1)
        tenant.set("the admin's")
        starlette_sse.drain()
        await reader.read(5)
        assert set(reader.events) == {"mine"}
