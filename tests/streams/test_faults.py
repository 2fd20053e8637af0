"""What clients do to a real server, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from starlette_sse import (
    Broker,
    ChannelEndpoint,
    CloseReason,
    EventSourceResponse,
    SSEEndpoint,
    Subscription,
    drain,
    open_streams,
)
from starlette_sse.observers import Observer, StreamFacts
from starlette_sse.streams import Stream
from starlette_sse.streams.producers import Producer
from starlette_sse.streams.writers import FrameWriter
from tests.loopback import Reader, connections_of, serving
from tests.waiting import until

pytestmark = pytest.mark.anyio

CLIENTS = 1000


@pytest.fixture
def anyio_backend() -> str:
    """The server is uvicorn."""
    return "asyncio"


class Endless(SSEEndpoint):
    """Notes how its streams end."""

    observers = ()
    reasons: ClassVar[list[CloseReason]]
    cleaned: ClassVar[list[bool]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.reasons, cls.cleaned = [], []

    async def events(self, request: Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.cleaned.append(True)

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        self.reasons.append(reason)


def alive() -> list[object]:
    """Return what streams are made of that is there; a failed test's traceback keeps its own."""
    kinds = Stream | Producer | FrameWriter | Subscription | Endless
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


class Leftovers:
    """Counts what streams are made of from now on."""

    def __init__(self) -> None:
        gc.collect()
        self._before = alive()

    def found(self) -> list[object]:
        """Return what is alive and was not before."""
        known = set(map(id, self._before))
        return [each for each in alive() if id(each) not in known]


async def leave_at_once(port: int, number: int) -> None:
    """Ask for the stream and go without reading; every other one by a reset."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n")
    if number % 2:
        writer.close()
    else:
        writer.transport.abort()


async def test_a_thousand_clients_that_leave_at_once_leave_nothing() -> None:
    """No task, no stream, nothing of one, and no more objects after the third thousand than after the second."""

    class Brief(Endless): ...

    leftovers = Leftovers()
    async with serving(Brief, "httptools") as port:
        async with Reader(port):
            pass
        await until(lambda: Brief.reasons)
        tasks = len(asyncio.all_tasks())
        counts = []
        for wave in range(3):
            for start in range(0, CLIENTS, 100):
                await asyncio.gather(*(leave_at_once(port, start + number) for number in range(100)))
            # Connections are accepted in turn, so when this one is served all others have been.
            async with Reader(port):
                pass
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            gc.collect()
            assert leftovers.found() == [], wave
            Brief.reasons.clear()
            Brief.cleaned.clear()
            counts.append(len(gc.get_objects()))
        assert counts[2] - counts[1] < 100


async def test_a_reader_that_resets_in_the_middle_of_a_frame_is_gone() -> None:
    """The generator is closed at its ``yield``."""

    class Large(Endless):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "x" * 10_000_000
                yield "never sent whole"
            finally:
                self.cleaned.append(True)

    async with serving(Large, "httptools") as port, Reader(port, receive_buffer=4096) as reader:
        reader.reset()
        await until(lambda: Large.reasons)
    assert Large.reasons == [CloseReason.CLIENT_GONE]
    assert Large.cleaned == [True]


@pytest.mark.parametrize("protocol", ["h11", "httptools"])
async def test_ten_megabytes_arrive_whole(protocol: str) -> None:
    """In one event, in one line or in many."""

    class Large(Endless):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "x" * 10_000_000
            yield "y\n" * 5_000_000

    async with serving(Large, protocol) as port, Reader(port) as reader:
        one_line, many_lines = await reader.read(2)
        assert len(one_line) == 10_000_000
        assert many_lines == "y\n" * 5_000_000


class Wrapping:
    """A middleware as people write them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_look() -> Message:
            return await receive()

        await self.app(scope, receive_and_look, send)


async def pass_on(request: Request, call_next: Any) -> Any:
    return await call_next(request)


@pytest.mark.parametrize(
    "middleware",
    [[], [Middleware(Wrapping)], [Middleware(BaseHTTPMiddleware, dispatch=pass_on), Middleware(Wrapping)]],
    ids=["plain", "wrapped", "BaseHTTPMiddleware"],
)
async def test_a_stalled_reader_is_freed_after_its_send_timeout(middleware: list[Middleware]) -> None:
    """The generator cleans up, and the connection does not hold up the server's end."""

    class Stalled(Endless):
        send_timeout = 0.3

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                while True:
                    yield "x" * 100_000
            finally:
                self.cleaned.append(True)

    leftovers = Leftovers()
    async with (
        serving(Stalled, "httptools", middleware=middleware) as port,
        Reader(port, receive_buffer=4096) as reader,
    ):
        await until(lambda: Stalled.reasons)
        # The client has read nothing, and would not for as long as it likes.
        await until(lambda: not connections_of(port))
        await reader.end()
    assert Stalled.reasons == [CloseReason.SEND_TIMEOUT]
    assert Stalled.cleaned == [True]
    gc.collect()
    assert leftovers.found() == []


async def test_a_stalled_reader_is_freed_when_the_grace_of_a_drain_is_over() -> None:
    """Else the connection would hold up the server's shutdown until its client reads."""

    class Stalled(Endless):
        drain_grace = 0.3

        async def events(self, request: Request) -> AsyncIterator[Any]:
            while True:
                yield "x" * 100_000

    async with serving(Stalled, "httptools") as port, Reader(port, receive_buffer=4096) as reader:
        await until(lambda: open_streams()[0].lag > 0.1)
        drain()
        await until(lambda: not connections_of(port))
        await reader.end()
    assert Stalled.reasons == [CloseReason.DRAINING]


class Ticking(Endless):
    """A stream that is never idle."""

    async def events(self, request: Request) -> AsyncIterator[Any]:
        try:
            while True:
                yield "tick"
                await asyncio.sleep(0.01)
        finally:
            self.cleaned.append(True)


@pytest.mark.parametrize(
    "middleware", [[], [Middleware(BaseHTTPMiddleware, dispatch=pass_on)]], ids=["plain", "wrapped"]
)
@pytest.mark.parametrize("endpoint", [Endless, Ticking])
@pytest.mark.parametrize("times", [{"ping_interval": 0.2}, {"ping_interval": None, "send_timeout": 0.2}], ids=str)
async def test_a_client_that_has_asked_for_more_behind_its_stream_is_noticed(
    endpoint: type[Endless], middleware: list[Middleware], times: dict[str, Any]
) -> None:
    """Uvicorn with httptools tells that a client has gone to its last request alone; each place would be lost."""
    Behind: type[Endless] = type("Behind", (endpoint,), {**times, "max_connections": 1})
    request = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
    async with serving(Behind, "httptools", middleware=middleware) as port:
        for number in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request + request)
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b"first" if endpoint is Endless else b"tick")
            writer.transport.abort()
            await until(lambda: len(Behind.reasons) > number)  # noqa: B023
    assert Behind.reasons == [CloseReason.CLIENT_GONE] * 3
    assert Behind.cleaned == [True] * 3


class Hungry(Endless):
    async def events(self, request: Request) -> AsyncIterator[Any]:
        while True:
            yield "x"


async def test_a_generator_that_never_waits_does_not_keep_others_from_their_streams() -> None:
    """It ends when its client goes."""
    Hungry.reasons.clear()
    async with serving(Hungry, "httptools") as port:
        async with Reader(port) as first, Reader(port) as second:
            await first.read(1000)
            await second.read(1000)
        await until(lambda: len(Hungry.reasons) == 2)
    assert Hungry.reasons == [CloseReason.CLIENT_GONE] * 2


class InThread(Endless):
    def events(self, request: Request) -> Iterator[Any]:  # type: ignore[override]
        try:
            while True:
                yield "from a thread"
        finally:
            self.cleaned.append(True)


async def test_a_sync_generator_is_closed_when_its_client_goes() -> None:
    """Its ``finally`` runs in a worker thread too."""
    async with serving(InThread, "httptools") as port:
        async with Reader(port) as reader:
            await reader.read(3)
        await until(lambda: InThread.reasons)
    assert InThread.cleaned == [True]


class Channelled(ChannelEndpoint):
    broker = Broker(observers=())
    channels = ("news",)
    observers = ()


@pytest.mark.parametrize("endpoint", [Endless, Channelled])
async def test_streams_that_have_ended_are_freed_without_the_collector(endpoint: type[SSEEndpoint]) -> None:
    """Reference cycles would make full collections frequent, which is what connecting then costs most."""

    class Quiet(endpoint):  # type: ignore[valid-type,misc]
        ended: ClassVar[list[CloseReason]] = []

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            self.ended.append(reason)

    Endless.cleaned = []
    async with serving(Quiet, "httptools") as port:
        # The first streams fill caches.
        async with Reader(port):
            pass
        await until(lambda: Quiet.ended)
        leftovers = Leftovers()
        gc.disable()
        try:
            for _ in range(5):
                async with Reader(port):
                    pass
            await until(lambda: len(Quiet.ended) == 6)
            await until(lambda: not leftovers.found())
            found = leftovers.found()
        finally:
            gc.enable()
    assert found == []


@pytest.mark.parametrize("name", ["send", "receive"])
@pytest.mark.parametrize("endpoint", [Ticking, Channelled])
async def test_what_watches_a_server_from_inside_may_need_a_task(
    endpoint: type[SSEEndpoint], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tracing does it: neither may be driven by callbacks then."""
    original = getattr(RequestResponseCycle, name)

    async def traced(self: Any, *message: Any) -> Any:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            return await original(self, *message)

    monkeypatch.setattr(RequestResponseCycle, name, traced)
    async with serving(endpoint, "httptools") as port, Reader(port) as reader:
        async with asyncio.timeout(20):
            for number in range(3):
                await Channelled.broker.publish("news", "x")
                await reader.read(number + 1)


async def test_a_client_that_stalls_is_no_error_of_the_app(caplog: pytest.LogCaptureFixture) -> None:
    """Uvicorn would log one if the app ended before it has heard that the connection is aborted."""

    class Stalled(Endless):
        send_timeout = 0.3

        async def events(self, request: Request) -> AsyncIterator[Any]:
            while True:
                yield "x" * 100_000

    for protocol in ("httptools", "h11"):
        Stalled.reasons.clear()
        async with serving(Stalled, protocol) as port, Reader(port, receive_buffer=4096):
            # It passes nothing on to the root's handlers.
            logging.getLogger("uvicorn.error").addHandler(caplog.handler)
            await until(lambda: Stalled.reasons)
            await until(lambda: not connections_of(port))
    assert caplog.messages == []


@pytest.mark.parametrize("protocol", ["h11", "httptools"])
async def test_a_body_that_comes_while_the_stream_is_open_is_told_of(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And is not taken for the client's end."""
    told = asyncio.Event()

    async def ask(request: Request) -> EventSourceResponse:
        async def content() -> AsyncIterator[str]:
            yield "first"
            await told.wait()
            yield "second"

        return EventSourceResponse(content())

    endpoint: Any = ask
    async with serving(endpoint, protocol) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n")
        async with asyncio.timeout(20):
            await reader.readuntil(b"first")
            for part in (b"bo", b"dy"):
                writer.write(part)
            await until(lambda: caplog.messages)
            told.set()
            await reader.readuntil(b"second")
        writer.close()
    (message,) = caplog.messages
    assert "a part of the request's body came while the stream at / was open" in message


async def test_who_watches_a_stream_sees_its_own_context_and_no_publishers() -> None:
    """What one request has bound for its log is not bound for a stream that it publishes to."""
    bound: ContextVar[str] = ContextVar("bound", default="nothing")
    seen = []

    class Watch(Observer):
        def sent(self, stream: StreamFacts, size: int) -> None:
            seen.append(bound.get())

    class News(ChannelEndpoint):
        broker = Broker(observers=())
        channels = ("news",)
        observers = (Watch(),)

        async def on_connect(self, request: Request) -> None:
            bound.set("the stream's")

    async def publish() -> None:
        bound.set("the publisher's")
        await News.broker.publish("news", "x")

    async with serving(News, "httptools") as port, Reader(port) as reader:
        await asyncio.create_task(publish())
        await reader.read(1)
    assert seen == ["the stream's"]
