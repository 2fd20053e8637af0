"""Frames that pass by uvicorn's ``send``: only where it would do nothing else, and never other bytes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import AsyncIterator, Callable
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import h11
import pytest
import wrapt
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from uvicorn.protocols.http import h11_impl, httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl

from starlette_sse import Broker, ChannelEndpoint, CloseReason, ServerSentEvent, SSEEndpoint
from starlette_sse.eventloop import current_event_loop
from starlette_sse.streams.chunks import chunk, only_writes_chunks, passable_exchange
from starlette_sse.streams.servers import plain_send
from starlette_sse.streams.writers import FrameWriter
from tests.loopback import Reader, puts_past_send, serving

pytestmark = pytest.mark.anyio

Sent = Callable[[Any, dict[str, Any]], Any]


@pytest.fixture
def anyio_backend(asyncio_or_uvloop: tuple[str, dict[str, bool]]) -> tuple[str, dict[str, bool]]:
    return asyncio_or_uvloop


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    return puts_past_send(monkeypatch)


def cycle_class(protocol: str) -> Any:
    return {"h11": h11_impl, "httptools": httptools_impl}[protocol].RequestResponseCycle


# What is found out about a class


def test_uvicorn_s_own_only_write_chunks(protocol: str) -> None:
    """Or every delivery would take longer, and nothing else would show it."""
    assert only_writes_chunks(cycle_class(protocol).send)


async def plain(self: Any, message: dict[str, Any]) -> None:
    if not self.disconnected:
        self.transport.write(chunk(message["body"]))


async def noting(self: Any, message: dict[str, Any]) -> None:
    await plain(self, message)
    self.sent_at = 1.0


async def counting(self: Any, message: dict[str, Any]) -> None:
    await plain(self, message)
    self.bytes_sent += len(message["body"])


async def noting_deeper(self: Any, message: dict[str, Any]) -> None:
    await plain(self, message)
    self.flow.written = True


async def waiting(self: Any, message: dict[str, Any]) -> None:
    await plain(self, message)
    await asyncio.sleep(0)


async def framing_otherwise(self: Any, message: dict[str, Any]) -> None:
    self.transport.write(chunk(b"\0" + message["body"]))


async def writing_in_parts(self: Any, message: dict[str, Any]) -> None:
    self.transport.write(b"%x\r\n" % len(message["body"]))
    self.transport.write(message["body"] + b"\r\n")


async def framing_the_first_only(self: Any, message: dict[str, Any]) -> None:
    first = message["body"] == b": a\r\n\r\n"
    self.transport.write(chunk(message["body"]) if first else message["body"])


async def asking_more(self: Any, message: dict[str, Any]) -> None:
    if not self.stream.closed:
        await plain(self, message)


async def holding_back(self: Any, message: dict[str, Any]) -> None:
    """Nothing is written."""


async def refusing(self: Any, message: dict[str, Any]) -> None:
    raise RuntimeError("not now")


def no_coroutine(self: Any, message: dict[str, Any]) -> None:
    """Nothing is awaited."""


def test_what_writes_chunks_and_nothing_else_is_told_from_what_does_more() -> None:
    """The control for those below."""
    assert only_writes_chunks(plain)


@pytest.mark.parametrize(
    "send",
    [
        noting,
        counting,
        noting_deeper,
        waiting,
        framing_otherwise,
        writing_in_parts,
        framing_the_first_only,
        asking_more,
        holding_back,
        refusing,
        no_coroutine,
    ],
    ids=lambda send: send.__name__,
)
def test_a_send_that_does_more_or_less_is_not_passed_by(send: Sent) -> None:
    """Whatever a later uvicorn does for each part of a body goes on being done."""
    assert not only_writes_chunks(send)


# What is found out about an exchange


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        self.written += data


def asked(protocol: str, request: bytes) -> Any:
    """Return uvicorn's exchange for a request."""
    method, _, version = request.split()
    more: dict[str, Any] = {}
    if protocol == "h11":
        connection = more["conn"] = h11.Connection(h11.SERVER)
        connection.receive_data(request + b"\r\nhost: test\r\n\r\n")
        connection.next_event()
    else:
        more |= {"expect_100_continue": False, "keep_alive": True}
    return cycle_class(protocol)(
        scope={"method": method.decode(), "http_version": version[-3:].decode(), "headers": []},
        transport=Transport(),
        flow=SimpleNamespace(write_paused=False),
        logger=logging.getLogger("test"),
        access_logger=logging.getLogger("test"),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        on_response=lambda: None,
        **more,
    )


def started(protocol: str, request: bytes, **headers: str) -> Any:
    """Return the exchange after its response has started."""
    cycle = asked(protocol, request)
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    starting = cycle.send({"type": "http.response.start", "status": 200, "headers": fields})
    with pytest.raises(StopIteration):
        starting.send(None)
    return cycle


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_body_in_chunks_may_pass_by(protocol: str) -> None:
    """As HTTP/1.1 sends a body of unknown length."""
    cycle = started(protocol, b"GET / HTTP/1.1")
    assert passable_exchange(cycle.send) is cycle


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("request_line", [b"HEAD / HTTP/1.1", b"GET / HTTP/1.0"])
async def test_a_body_that_is_not_sent_in_chunks_goes_through_send(protocol: str, request_line: bytes) -> None:
    """HTTP/1.0 does not know them, though uvicorn with httptools does not mind, and HEAD has no body."""
    cycle = started(protocol, request_line)
    assert (passable_exchange(cycle.send) is cycle) is (protocol == "httptools" and request_line.startswith(b"GET"))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_head_of_a_body_in_chunks_goes_through_send(protocol: str) -> None:
    """Which sends no body for it."""
    cycle = started(protocol, b"HEAD / HTTP/1.1", transfer_encoding="chunked")
    assert passable_exchange(cycle.send) is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("send", "passed_by"), [(plain, True), (noting, False)], ids=["plain", "noting"])
async def test_an_exchange_of_another_kind_is_tried(send: Sent, passed_by: bool) -> None:
    """One that frames its body in chunks may still do something else in its ``send``."""
    fields = {"scope": {"method": "GET"}, "chunked_encoding": True, "send": send}
    exchange = type("Exchange", (), {**fields, "__module__": __name__})()
    assert (passable_exchange(exchange.send) is exchange) is passed_by


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_that_has_gone_or_stalls_is_left_to_send(protocol: str) -> None:
    """Which knows whether to wait or to drop what comes."""
    cycle = asked(protocol, b"GET / HTTP/1.1")
    writer = FrameWriter(current_event_loop(), cycle.send, lambda error: None)
    await writer.open({"type": "http.response.start", "status": 200, "headers": []}, b"")
    cycle.transport.written = b""
    assert writer.try_put(b": a\r\n\r\n")
    cycle.flow.write_paused = True
    assert not writer.try_put(b": b\r\n\r\n")
    cycle.flow.write_paused, cycle.disconnected = False, True
    assert not writer.try_put(b": c\r\n\r\n")
    assert not writer.offer(b": c\r\n\r\n")
    cycle.disconnected, cycle.response_complete = False, True
    assert not writer.try_put(b": c\r\n\r\n")
    assert not writer.offer(b": c\r\n\r\n")
    cycle.response_complete = False
    assert cycle.transport.written == b"7\r\n: a\r\n\r\n\r\n"
    await writer.take_turn()
    assert not writer.offer(b": d\r\n\r\n")
    writer.end_turn()
    assert writer.offer(b": e\r\n\r\n")
    assert cycle.transport.written == b"7\r\n: a\r\n\r\n\r\n7\r\n: e\r\n\r\n\r\n"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("frame", [b": a\r\n\r\n", b""], ids=["some", "empty"])
@pytest.mark.parametrize("state", [*itertools.product([False, True], repeat=3)], ids=str)
async def test_both_ways_past_send_agree(protocol: str, frame: bytes, state: tuple[bool, bool, bool]) -> None:
    """On whether they are open, and on what is written then, in every state of the exchange."""
    cycle = asked(protocol, b"GET / HTTP/1.1")
    writer = FrameWriter(current_event_loop(), cycle.send, lambda error: None)
    await writer.open({"type": "http.response.start", "status": 200, "headers": []}, b"")
    cycle.disconnected, cycle.response_complete, cycle.flow.write_paused = state
    outcomes = []
    for pass_by in (writer.try_put, writer.offer):
        cycle.transport.written = b""
        outcomes.append((pass_by(frame), cycle.transport.written))
    passable = bool(frame) and not any(state)
    assert outcomes == [(passable, chunk(frame) if passable else b"")] * 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_body_of_known_length_goes_through_send(protocol: str) -> None:
    """Whose server counts its bytes."""
    cycle = started(protocol, b"GET / HTTP/1.1", content_length="100")
    assert passable_exchange(cycle.send) is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_another_has_put_in_place_of_send_is_not_passed_by(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who watches a server from inside, for a trace, goes on seeing what is sent."""
    original = cycle_class(protocol).send

    async def traced(self: Any, message: dict[str, Any]) -> None:
        await original(self, message)

    traced.__module__ = original.__module__
    monkeypatch.setattr(cycle_class(protocol), "send", traced)
    cycle = started(protocol, b"GET / HTTP/1.1")
    assert plain_send(cycle.send) is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_patched_in_place_is_not_passed_by(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As debuggers' probes do it: the function is the same, and its code another."""
    send = cycle_class(protocol).send
    assert only_writes_chunks(send)
    other = compile("async def send(self, message):\n    raise AssertionError", "<probe>", "exec").co_consts[0]
    cycle = started(protocol, b"GET / HTTP/1.1")
    monkeypatch.setattr(send, "__code__", other)
    assert plain_send(cycle.send) is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_proxy_of_send_is_not_passed_by(protocol: str) -> None:
    """One that passes for what it wraps, whatever it is asked, as tracing makes them."""
    seen: list[str] = []

    def trace(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append(args[0]["type"])
        return wrapped(*args, **kwargs)

    cycle = asked(protocol, b"GET / HTTP/1.1")
    writer = FrameWriter(current_event_loop(), wrapt.FunctionWrapper(cycle.send, trace), lambda error: None)
    await writer.open({"type": "http.response.start", "status": 200, "headers": []}, b": open\r\n\r\n")
    assert writer.shortcut is None
    assert not writer.sends_now
    assert seen == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_connection_that_counts_what_it_sends_goes_on_counting() -> None:
    """As a server's own subclass of h11's may do it."""

    class Counting(h11.Connection):
        pass

    cycle = started("h11", b"GET / HTTP/1.1")
    assert passable_exchange(cycle.send) is not None
    cycle.conn.__class__ = Counting
    assert passable_exchange(cycle.send) is None


def test_an_h11_that_is_of_no_use_harms_nobody(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames go through ``send`` then, of httptools as well."""
    only_writes_chunks.cache_clear()
    try:
        monkeypatch.setitem(sys.modules, "h11", ModuleType("h11"))
        assert not only_writes_chunks(cycle_class(protocol).send)
    finally:
        only_writes_chunks.cache_clear()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_connection_that_is_closed_is_not_written_to(protocol: str) -> None:
    """Asyncio would log each of a generator's events, or of a channel's, until the server says so."""
    told: list[BaseException] = []
    cycle = asked(protocol, b"GET / HTTP/1.1")
    writer = FrameWriter(current_event_loop(), cycle.send, told.append)
    await writer.open({"type": "http.response.start", "status": 200, "headers": []}, b"")
    cycle.transport.written, cycle.transport.closed = b"", True
    with pytest.raises(ConnectionResetError):
        writer.try_put(b": a\r\n\r\n")
    assert writer.send_now(b": b\r\n\r\n")
    assert not writer.offer(b": c\r\n\r\n")
    assert [type(error) for error in told] == [ConnectionResetError] * 2
    assert cycle.transport.written == b""


def slow_cycle(protocol: str) -> Any:
    """Return an exchange whose client does not keep up until it is let."""
    cycle, reads_on = asked(protocol, b"GET / HTTP/1.1"), asyncio.Event()
    cycle.flow = SimpleNamespace(write_paused=False, drain=reads_on.wait, reads_on=reads_on)
    return cycle


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_frame_that_a_callback_has_begun_leaves_before_the_next(protocol: str) -> None:
    """Whoever wants to write finishes it."""
    cycle = slow_cycle(protocol)
    writer = FrameWriter(current_event_loop(), cycle.send, lambda error: None)
    await writer.open({"type": "http.response.start", "status": 200, "headers": []}, b"")
    cycle.flow.write_paused, cycle.transport.written = True, b""
    assert not writer.send_now(b": a\r\n\r\n")
    asyncio.get_running_loop().call_soon(cycle.flow.reads_on.set)
    async with asyncio.timeout(10):
        await writer.take_turn()
    assert cycle.transport.written == chunk(b": a\r\n\r\n")
    await writer.write(b": b\r\n\r\n")
    assert cycle.transport.written == chunk(b": a\r\n\r\n") + chunk(b": b\r\n\r\n")
    assert writer.sending_since is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_frame_that_was_abandoned_never_leaves(protocol: str) -> None:
    """Though its client reads on."""
    cycle = slow_cycle(protocol)
    writer = FrameWriter(current_event_loop(), cycle.send, lambda error: None)
    await writer.open({"type": "http.response.start", "status": 200, "headers": []}, b"")
    cycle.flow.write_paused, cycle.transport.written = True, b""
    assert not writer.send_now(b": a\r\n\r\n")
    writer.abandon()
    cycle.flow.reads_on.set()
    await writer.finish()
    assert cycle.transport.written == b""


def test_httptools_does_without_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may have imported it."""
    only_writes_chunks.cache_clear()
    monkeypatch.delitem(sys.modules, "h11")
    assert only_writes_chunks(cycle_class("httptools").send)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("error", [ValueError("broken"), OSError("gone")], ids=["any", "os"])
async def test_what_the_transport_raises_is_told_and_leaves_nobody_sending(
    protocol: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each of the ways from a callback to it."""
    told: list[BaseException] = []
    cycle = asked(protocol, b"GET / HTTP/1.1")
    writer = FrameWriter(current_event_loop(), cycle.send, told.append)
    await writer.open({"type": "http.response.start", "status": 200, "headers": []}, b"")

    def fail(data: bytes) -> None:
        raise error

    monkeypatch.setattr(cycle.transport, "write", fail)
    assert writer.send_now(b": a\r\n\r\n")
    assert (told, writer.sending_since, writer.bytes_sent) == ([error], None, 0)
    assert not writer.offer(b": b\r\n\r\n")
    assert (told, writer.sending_since, writer.bytes_sent) == ([error, error], None, 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nothing_is_written_behind_what_could_not_be(protocol: str) -> None:
    """A client would take the next event's id for the proof that it has those before."""
    sources = Broker(observers=())

    class Feed(ChannelEndpoint):
        broker = sources
        channels = ("a",)
        observers = ()

    async def settled() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def fail_once(data: bytes) -> None:
        cycle.transport.write = written.append
        raise OSError("gone")

    written: list[bytes] = []
    cycle = asked(protocol, b"GET / HTTP/1.1")
    cycle.flow = FlowControl(cycle.transport)
    cycle.more_body = False
    cycle.scope |= {"type": "http", "path": "/", "query_string": b""}

    async def run() -> None:
        await Feed(cycle.scope, cycle.receive, cycle.send)

    stream = asyncio.create_task(run())
    await settled()
    cycle.flow.pause_writing()
    for data in ("0", "1"):
        await sources.publish("a", data)
        await settled()
    cycle.transport.write = fail_once
    cycle.flow.resume_writing()
    await stream
    assert written == []


# What a client gets


class Counted(SSEEndpoint):
    """Yields to others between the events, one of which is nothing at all."""

    observers = ()

    async def events(self, request: Request) -> AsyncIterator[Any]:
        for number in range(600):
            await asyncio.sleep(0)
            yield b"" if number == 300 else ServerSentEvent(f"{number} " + "x" * (number % 50))


EVENTS = [f"{number} " + "x" * (number % 50) for number in range(600) if number != 300]


async def test_a_generator_s_events_come_whole(protocol: str, put: list[bool]) -> None:
    """The client checks every chunk, and the body that ends as a body does."""
    async with serving(Counted, protocol) as port, Reader(port) as reader:
        assert await reader.read(len(EVENTS)) == EVENTS
        await reader.finish()
    # Those before the response has started, and since the producer has last looked whether it may, go through send.
    assert put.count(True) >= len(EVENTS) - 300
    # An empty chunk would end the body, so that one goes through send, which drops it.
    assert put.count(False) <= 1


async def test_a_channel_s_events_pass_by_send(protocol: str, put: list[bool]) -> None:
    """All of them, to each reader."""

    class News(ChannelEndpoint):
        broker = Broker(observers=())
        channels = ("news",)
        observers = ()

    async with serving(News, protocol) as port, Reader(port) as one, Reader(port) as other:
        for number in range(50):
            await News.broker.publish("news", str(number))
            for reader in (one, other):
                assert (await reader.read(number + 1))[-1] == str(number)
    assert put == [True] * 100


async def test_behind_a_middleware_that_wraps_send_nothing_passes_by(protocol: str, put: list[bool]) -> None:
    """It may compress what it sends, or count it."""
    gzip = [Middleware(GZipMiddleware)]
    async with serving(Counted, protocol, middleware=gzip) as port, Reader(port) as reader:
        assert await reader.read(len(EVENTS)) == EVENTS
    assert put == []


async def test_a_traced_server_sees_all_that_is_sent(
    protocol: str, put: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every event is a message to the function that was put in place of ``send``."""
    bodies: list[bytes] = []
    original = cycle_class(protocol).send

    async def traced(self: Any, message: dict[str, Any]) -> None:
        bodies.append(message.get("body", b""))
        await original(self, message)

    monkeypatch.setattr(cycle_class(protocol), "send", traced)
    async with serving(Counted, protocol) as port, Reader(port) as reader:
        assert await reader.read(len(EVENTS)) == EVENTS
    assert not any(put)
    assert b"".join(bodies).count(b"data: ") == len(EVENTS)


@pytest.mark.parametrize("disguised", [True, False], ids=["wraps", "plain"])
async def test_a_function_around_send_sees_all_that_is_sent(protocol: str, put: list[bool], disguised: bool) -> None:
    """Even one that takes over the name of what it wraps, as functools.wraps does and OpenTelemetry by it."""
    bodies: list[bytes] = []

    def middleware(app: Any) -> Any:
        async def watching(scope: Any, receive: Any, send: Any) -> None:
            async def seen(message: Any) -> None:
                bodies.append(message.get("body", b""))
                await send(message)

            await app(scope, receive, wraps(send)(seen) if disguised else seen)

        return watching

    async with serving(Counted, protocol, middleware=[Middleware(middleware)]) as port, Reader(port) as reader:
        assert await reader.read(len(EVENTS)) == EVENTS
        await reader.finish()
    assert b"".join(bodies).count(b"data: ") == len(EVENTS)
    assert put == []


class Impatient:
    """Ends the response itself when it has had enough while the app goes on, and leaves ``send`` as it is."""

    def __init__(self, app: Any, enough: asyncio.Event) -> None:
        self._app = app
        self._enough = enough

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or self._enough.is_set():
            await self._app(scope, receive, send)
            return

        async def end() -> None:
            await self._enough.wait()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await self._app(scope, receive, send)


async def test_nothing_is_written_behind_the_end_of_a_body(protocol: str) -> None:
    """It would be read as the start of the connection's next response."""
    ended: list[CloseReason] = []
    enough, over = asyncio.Event(), asyncio.Event()

    class Fast(SSEEndpoint):
        observers = ()

        async def events(self, request: Request) -> AsyncIterator[Any]:
            for number in itertools.count():
                await asyncio.sleep(0.001)
                yield "x"
                if number == 20:
                    enough.set()

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            ended.append(reason)
            over.set()

    async with serving(Fast, protocol, middleware=[Middleware(Impatient, enough=enough)]) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        body = await reader.readuntil(b"\r\n0\r\n\r\n")
        await asyncio.wait_for(over.wait(), 20)
        writer.write(b"GET /none HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        rest = await reader.read()
        writer.close()
    assert body.count(b"data: x") > 20
    assert ended == [CloseReason.CLIENT_GONE]
    assert rest.startswith(b"HTTP/1.1 404")


async def test_http_1_0_gets_its_events_as_before(protocol: str) -> None:
    """Under h11 without chunks, to the end of the connection."""
    async with serving(Counted, protocol) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\nhost: test\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert body.count(b"data: ") == len(EVENTS)
    assert (b"transfer-encoding: chunked" in head) is (protocol == "httptools")
