"""However a response's stream ends, its content is closed, its handler is called, and what went wrong leaves bare."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from starlette_sse import (
    CloseReason,
    ConfigurationError,
    EventSourceResponse,
    InvalidEventError,
    SendTimeoutError,
    ServerSentEvent,
    SSEEndpoint,
)
from starlette_sse.observers import Observer
from starlette_sse.testing import Ending, SSETestClient, capture_logs
from tests.responses.exchanges import Exchange, answer

pytestmark = pytest.mark.anyio


class Content:
    """Yields events as told and notes its end; async generators are made of it by :meth:`__call__`."""

    def __init__(self, *items: Any, then: BaseException | None = None, pause: float = math.inf) -> None:
        self.items = items
        self.then = then
        self.pause = pause
        self.notes: list[Any] = []

    async def __call__(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                yield item
            if self.then is not None:
                raise self.then
            await anyio.sleep(self.pause)
        finally:
            await anyio.sleep(1)
            self.notes.append("closed")

    async def note(self, message: Message) -> None:
        self.notes.append(message)


class Failures(Observer):
    def __init__(self) -> None:
        self.failures: list[BaseException] = []

    def failed(self, stream: Any, error: BaseException, *, during: str, propagates: bool) -> None:
        self.failures.append(error)


def client_of(response: Any) -> SSETestClient:
    return SSETestClient(response, timeout=4 * 3600, close_grace=600, lifespan=False)


# The client goes


async def test_the_close_handler_gets_the_clients_disconnect(package: ModuleType) -> None:
    """The message is the server's own, with whatever it put in."""
    content = Content("x")
    response = package.EventSourceResponse(content(), client_close_handler_callable=content.note)
    await answer(response, leaves_after=5)
    assert Exchange.DISCONNECT in content.notes
    assert response.active is False


async def test_the_content_is_closed_before_the_close_handler_is_called() -> None:
    """Its ``finally`` may wait, although it was interrupted, so the handler finds all cleaned up."""
    content = Content("x")
    response = EventSourceResponse(content(), client_close_handler_callable=content.note)
    exchange = await answer(response, leaves_after=5)
    assert content.notes == ["closed", Exchange.DISCONNECT]
    assert exchange.error is None
    assert exchange.took == pytest.approx(6)


ENDINGS: dict[str, tuple[Content, dict[str, Any]]] = {
    "finished": (Content("x", pause=0), {}),
    "failed": (Content("x", then=ValueError()), {}),
    "not encodable": (Content(object()), {}),
    "failed before the first byte": (Content(then=ValueError()), {}),
    "send timeout": (Content("x"), {"takes": lambda message: 3600 if message.get("body") else 0}),
    "server error": (Content("x"), {"takes": lambda message: 1 / (message["type"] == "http.response.start")}),
}


@pytest.mark.parametrize(("content", "options"), ENDINGS.values(), ids=ENDINGS)
async def test_the_close_handler_is_called_once_for_every_ending(content: Content, options: dict[str, Any]) -> None:
    """Without a disconnect of the client it gets the plain message for one."""
    content.notes = []
    response = EventSourceResponse(content(), client_close_handler_callable=content.note, send_timeout=10)
    await answer(response, **options)
    assert content.notes == ["closed", {"type": "http.disconnect"}]
    assert response.active is False


LAST: dict[str, tuple[Callable[[Message], bool], float, list[Message], list[type[Exception]]]] = {
    "the last event": (lambda message: b"data" in message.get("body", b""), 601, [Exchange.DISCONNECT], []),
    "a ping": (lambda message: b": ping" in message.get("body", b""), 605, [{"type": "http.disconnect"}], []),
    "the end": (lambda message: message.get("more_body") is False, 605, [{"type": "http.disconnect"}], []),
}


@pytest.mark.parametrize(("waits", "took", "told", "failures"), LAST.values(), ids=LAST)
async def test_a_client_that_leaves_while_its_stream_waits_to_end_is_noticed(
    waits: Callable[[Message], bool], took: float, told: list[Message], failures: list[type[Exception]]
) -> None:
    """Without a send timeout nothing else would end it, as over HTTP/2 with a closed window."""
    content, observer = Content("x", pause=20), Failures()

    class Watched(EventSourceResponse):
        observers = (observer,)

    response = Watched(content(), client_close_handler_callable=content.note)
    exchange = await answer(response, takes=lambda message: 7200 * waits(message), leaves_after=600)
    assert exchange.took == pytest.approx(took, abs=0.1)
    assert content.notes == ["closed", *told]
    assert [type(error) for error in observer.failures] == failures


@pytest.mark.parametrize("seconds", [0.5, 4])
async def test_the_end_is_let_finish_though_the_client_is_said_to_have_left(seconds: float) -> None:
    """Servers say so of a response that is complete, and a middleware may still do something behind it."""
    exchange = Exchange(takes=lambda message: seconds * (message.get("more_body") is False))

    async def content() -> AsyncIterator[Any]:
        yield "x"
        exchange.leave()

    await exchange.run(EventSourceResponse(content()))
    assert exchange.complete


@pytest.mark.parametrize(("seconds", "took"), [(4, 5.5), (20, 6)])
async def test_a_hook_for_the_end_has_time_though_the_client_has_left(seconds: float, took: float) -> None:
    """What it has to tell is not only for the client; one that takes too long is cut, and somebody is told."""
    observer, exchange = Failures(), Exchange(leaves_after=1)

    class Failing(SSEEndpoint):
        observers = (observer,)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "x"
            await anyio.sleep(0.5)
            raise LookupError

        async def on_error(self, request: Request, error: Exception) -> ServerSentEvent:
            await anyio.sleep(seconds)
            return ServerSentEvent("sorry", event="told")

    await exchange.run(Failing)
    assert exchange.took == pytest.approx(min(0.5 + seconds, took), abs=0.1)
    cut = seconds > 5
    assert [type(error) for error in observer.failures] == [TimeoutError] * cut + [LookupError]
    assert exchange.complete is not cut
    assert exchange.body.endswith(b"event: told\r\ndata: sorry\r\n\r\n") is not cut
    assert (exchange.error is None) is not cut


@pytest.mark.parametrize(("send_timeout", "ping_takes", "took"), [(10, 0, 31), (None, 18, 34)])
async def test_who_has_left_gives_the_end_no_more_time(
    send_timeout: float | None, ping_takes: float, took: float
) -> None:
    """Neither than it had left, nor a second time when what holds it up is over."""

    def takes(message: Message) -> float:
        return 7200 * (not message.get("more_body", True)) or ping_takes * (b": ping" in message.get("body", b""))

    response = EventSourceResponse(Content("x", pause=20)(), send_timeout=send_timeout)
    exchange = await answer(response, takes=takes, leaves_after=29)
    assert exchange.took == pytest.approx(took, abs=0.1)


async def test_a_receive_that_fails_at_the_end_is_told() -> None:
    """As one that fails before, whose error the stream's end has."""
    observer, failed = Failures(), OSError("a middleware's")
    exchange = Exchange(takes=lambda message: 1.0 * (message.get("more_body") is False))

    class Watched(EventSourceResponse):
        observers = (observer,)

    async def content() -> AsyncIterator[Any]:
        yield "x"
        exchange.leave()

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_or_fail() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise failed
            return message

        await Watched(content())(scope, receive_or_fail, send)

    await exchange.run(failing)
    assert exchange.complete
    assert observer.failures == [failed]


async def test_the_close_handler_is_called_when_the_server_cancels_the_request() -> None:
    """The cleanup runs under a shield, and the cancellation goes on after it."""
    content = Content("x")
    exchange = Exchange()
    with anyio.move_on_after(5) as scope:
        await exchange.run(EventSourceResponse(content(), client_close_handler_callable=content.note))
    assert scope.cancelled_caught
    assert content.notes == ["closed", {"type": "http.disconnect"}]


async def test_a_close_handler_that_fails_or_hangs_spoils_nothing() -> None:
    """It is told to the observers, and cut after ``cleanup_timeout``."""

    class Watch(Observer):
        def __init__(self) -> None:
            self.failures: list[tuple[str, str]] = []

        def failed(self, stream: Any, error: BaseException, *, during: str, propagates: bool) -> None:
            self.failures.append((during, type(error).__name__))

    class Watched(EventSourceResponse):
        observers = (watch := Watch(),)

    async def fail(_: Message) -> None:
        raise LookupError

    async def hang(_: Message) -> None:
        await anyio.sleep_forever()

    for handler, took in ((fail, 0), (hang, 3)):
        response = Watched(["x"], ping=0, client_close_handler_callable=handler, cleanup_timeout=3)
        exchange = await answer(response)
        assert exchange.error is None
        assert exchange.took == pytest.approx(took, abs=0.5)
    assert [name for _, name in Watched.watch.failures] == ["LookupError", "TimeoutError"]


async def test_content_that_never_started_is_closed() -> None:
    """The client was gone before its first step; a generator's own ``finally`` has nothing to clean up then."""
    closed: list[str] = []

    class Unstarted:
        def __aiter__(self) -> AsyncIterator[Any]:
            return self

        async def __anext__(self) -> Any:
            await anyio.sleep_forever()

        async def aclose(self) -> None:
            closed.append("async")

    class Rows:
        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            return "row"

        def close(self) -> None:
            closed.append("sync")

    for content in (Unstarted(), Rows()):
        await answer(EventSourceResponse(content), leaves_after=0)
    assert closed == ["async", "sync"]


async def test_content_that_ran_out_is_closed() -> None:
    """The receiving end of a channel is freed with its stream; nothing warns of it later."""
    writer, reader = anyio.create_memory_object_stream[str](1)
    writer.send_nowait("x")
    writer.close()
    exchange = await answer(EventSourceResponse(reader, ping=0))
    assert exchange.body == b"data: x\r\n\r\n"
    with pytest.raises(anyio.ClosedResourceError):
        reader.receive_nowait()


async def test_a_sync_generator_is_closed_too() -> None:
    """Its ``finally`` runs in a thread, at the end of the stream and not when it is collected."""
    closed: list[bool] = []

    def content() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    def takes(message: Message) -> float:
        if message.get("body") == b"data: 3\r\n\r\n":
            exchange.leave()
        return 0

    exchange = Exchange(takes=takes)
    await exchange.run(EventSourceResponse(content(), ping=0, cleanup_timeout=None))
    assert exchange.body.startswith(b"data: 0\r\n\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n")
    assert not exchange.complete
    assert closed == [True]


async def test_cleanup_that_hangs_is_cut(package: ModuleType) -> None:
    """After ``cleanup_timeout`` seconds, and the stream's own error leaves all the same."""

    async def content() -> AsyncIterator[Any]:
        try:
            yield {"data": "x", "no such field": 1}
        finally:
            await anyio.sleep_forever()

    exchange = await answer(package.EventSourceResponse(content(), cleanup_timeout=7))
    assert isinstance(exchange.error, TypeError | InvalidEventError)
    assert exchange.took == pytest.approx(7)


async def test_cleanup_may_have_no_limit(package: ModuleType) -> None:
    """``cleanup_timeout=None`` waits for the ``finally``, however long it takes."""
    done = []

    async def content() -> AsyncIterator[Any]:
        try:
            yield {"no such field": 1}
        finally:
            await anyio.sleep(7200)
            done.append(True)

    await answer(package.EventSourceResponse(content(), ping=0, cleanup_timeout=None))
    assert done == [True]


# Something fails


async def test_an_error_of_the_content_leaves_bare(package: ModuleType) -> None:
    """Middleware and exception handlers see its own type, and the body is cut."""
    content = Content("x", then=LookupError("gone"))
    exchange = await answer(package.EventSourceResponse(content()))
    assert isinstance(exchange.error, LookupError)
    assert exchange.chunks == [b"data: x\r\n\r\n"]
    assert content.notes == ["closed"]


async def test_an_error_in_the_contents_own_task_group_leaves_bare(package: ModuleType) -> None:
    """A group of one is no group."""

    async def fail() -> None:
        raise LookupError("gone")

    async def content() -> AsyncIterator[Any]:
        async with anyio.create_task_group() as tasks:
            yield "x"
            tasks.start_soon(fail)
            await anyio.sleep_forever()

    exchange = await answer(package.EventSourceResponse(content()))
    assert isinstance(exchange.error, LookupError)


async def test_a_group_of_several_errors_stays_a_group(package: ModuleType) -> None:
    """None of them is dropped."""
    content = Content("x", then=ExceptionGroup("two", [LookupError(), ValueError()]))
    exchange = await answer(package.EventSourceResponse(content()))
    assert isinstance(exchange.error, ExceptionGroup)
    assert len(exchange.error.exceptions) == 2


async def test_an_error_of_the_sender_leaves_bare(package: ModuleType) -> None:
    """And ends the stream; the content is closed."""
    content = Content("x")

    async def fail() -> None:
        await anyio.sleep(3)
        raise LookupError("no source")

    exchange = await answer(package.EventSourceResponse(content(), data_sender_callable=fail))
    assert isinstance(exchange.error, LookupError)
    assert not exchange.complete


async def test_the_sender_is_cancelled_when_the_stream_ends(package: ModuleType) -> None:
    """At once, so it does not meet the closed other end of its own channel."""
    notes: list[str] = []
    writer, reader = anyio.create_memory_object_stream[int](0)

    async def fill() -> None:
        try:
            for number in range(1_000_000):
                await writer.send(number)
                await anyio.sleep(1)
        except anyio.get_cancelled_exc_class():
            notes.append("cancelled")
            raise

    async with writer, reader:
        await answer(package.EventSourceResponse(reader, data_sender_callable=fill), leaves_after=5.5)
    assert notes == ["cancelled"]


async def test_a_sender_that_returns_leaves_the_stream_open(package: ModuleType) -> None:
    """The content goes on."""

    async def start() -> None:
        await anyio.sleep(1)

    exchange = await answer(package.EventSourceResponse(Content("x", pause=10)(), ping=0, data_sender_callable=start))
    assert exchange.took == pytest.approx(11)
    assert exchange.complete


async def test_a_sender_may_be_a_plain_function_that_gives_a_coroutine(package: ModuleType) -> None:
    """As a lambda does."""
    ran: list[str] = []

    async def run(name: str) -> None:
        ran.append(name)

    await answer(package.EventSourceResponse(Content("x", pause=1)(), data_sender_callable=lambda: run("a")))
    assert ran == ["a"]


async def test_a_sender_that_gives_nothing_to_await_is_an_error_that_says_so() -> None:
    """It is a plain function where a coroutine function was meant."""

    def sender() -> None: ...

    exchange = await answer(EventSourceResponse(Content("x")(), data_sender_callable=sender))  # type: ignore[arg-type]
    assert isinstance(exchange.error, ConfigurationError)
    message = str(exchange.error)
    assert message.startswith("data_sender_callable must be a coroutine function, or return what can be awaited; <func")
    assert message.endswith(" returned NoneType")


async def test_an_error_before_the_first_wait_comes_before_the_response() -> None:
    """So the app's exception handlers still answer with its real status."""

    async def refuse() -> str:
        raise HTTPException(403)

    async def content() -> AsyncIterator[Any]:
        yield await refuse()

    exchange = await answer(EventSourceResponse(content()))
    assert isinstance(exchange.error, HTTPException)
    assert exchange.messages == []


@pytest.mark.parametrize("slow", ["body", "status"])
async def test_a_send_that_takes_too_long_is_a_send_timeout(slow: str) -> None:
    """Any send of the stream counts, and ``SendTimeoutError`` is a ``TimeoutError``."""
    content = Content("x")
    response = EventSourceResponse(content(), send_timeout=20)
    exchange = await answer(response, takes=lambda message: 3600 if slow in message else 0)
    assert isinstance(exchange.error, SendTimeoutError)
    assert "send_timeout = 20 s" in str(exchange.error)
    assert exchange.took == pytest.approx(21)
    assert content.notes == ["closed"]


async def test_head_has_the_send_timeout(package: ModuleType) -> None:
    """Its messages can be stuck as well."""
    response = package.EventSourceResponse([], send_timeout=20)
    exchange = await answer(response, method="HEAD", takes=lambda _: 3600)
    assert type(exchange.error).__name__ == "SendTimeoutError"
    assert isinstance(exchange.error, TimeoutError)


async def test_a_send_that_fails_is_a_client_that_has_gone() -> None:
    """What servers raise then is no error of the app."""
    content = Content("x")

    def takes(message: Message) -> float:
        if message.get("body"):
            raise OSError("the transport is closed")
        return 0

    exchange = await answer(EventSourceResponse(content()), takes=takes)
    assert exchange.error is None
    assert content.notes == ["closed"]


async def test_a_slow_client_gets_the_last_message_too() -> None:
    """Without a ``send_timeout`` the end of the content may take any time: what was sent before is not cut off."""

    def takes(message: Message) -> float:
        return 0 if message.get("more_body", True) else 600

    content = Content("x", pause=0)
    exchange = await answer(EventSourceResponse(content(), ping=0, shutdown_grace_period=0.5), takes=takes)
    assert exchange.complete
    assert exchange.error is None


async def test_the_send_timeout_covers_the_last_message() -> None:
    """Nothing else does, so it is cut when that is over."""

    def takes(message: Message) -> float:
        return 0 if message.get("more_body", True) else 600

    exchange = await answer(EventSourceResponse(Content(pause=0)(), ping=0, send_timeout=30), takes=takes)
    assert not exchange.complete
    assert exchange.took == pytest.approx(30 + 1)


async def test_a_shutdown_does_not_wait_for_a_slow_clients_last_message() -> None:
    """A stream that has ended already is hurried as well."""
    response = EventSourceResponse(Content(pause=0)(), ping=0)
    async with client_of(response) as client, client.stream("/") as stream:
        stream.stall()
        await anyio.sleep(100)
        start = anyio.current_time()
        client.drain()
        assert await stream.closed() is Ending.CUT
        assert anyio.current_time() - start == pytest.approx(5)


# The app or the server ends it


async def test_a_shutdown_ends_the_stream() -> None:
    """The body ends as it should, so the client reconnects without an error."""
    content = Content("x")
    async with client_of(EventSourceResponse(content())) as client, client.stream("/") as stream:
        await stream.expect("x")
        client.drain()
        assert await stream.closed() is Ending.FINISHED
        assert stream.close_reason is CloseReason.DRAINING
    assert content.notes == ["closed"]


async def test_content_that_sees_the_shutdown_event_says_farewell() -> None:
    """It has ``shutdown_grace_period`` seconds to end by itself."""
    event = anyio.Event()

    async def content() -> AsyncIterator[Any]:
        yield "x"
        await event.wait()
        await anyio.sleep(4)
        yield ServerSentEvent("bye", event="shutdown")

    response = EventSourceResponse(content(), shutdown_event=event, shutdown_grace_period=5)
    async with client_of(response) as client, client.stream("/") as stream:
        await stream.expect("x")
        client.drain()
        await stream.expect({"event": "shutdown", "data": "bye"})
        assert await stream.closed() is Ending.FINISHED


async def test_content_that_ignores_the_shutdown_event_is_ended() -> None:
    """When the grace is over."""
    event = anyio.Event()
    content = Content("x")
    response = EventSourceResponse(content(), shutdown_event=event, shutdown_grace_period=5)
    async with client_of(response) as client, client.stream("/") as stream:
        await stream.expect("x")
        start = anyio.current_time()
        client.drain()
        assert await stream.closed() is Ending.FINISHED
        assert anyio.current_time() - start == pytest.approx(5 + 1)
    assert event.is_set()
    assert content.notes == ["closed"]


async def test_without_a_grace_the_shutdown_event_is_set_all_the_same() -> None:
    """The content's ``finally`` can tell why it runs."""
    event = anyio.Event()
    content = Content("x")
    async with client_of(EventSourceResponse(content(), shutdown_event=event)) as client, client.stream("/") as stream:
        await stream.expect("x")
        start = anyio.current_time()
        client.drain()
        await stream.closed()
        assert anyio.current_time() - start == pytest.approx(1)
    assert event.is_set()


async def test_a_stream_is_active_until_it_ends() -> None:
    """Content that looks at the response sees its end before it is closed."""
    seen = []

    async def content() -> AsyncIterator[Any]:
        try:
            seen.append(response.active)
            yield "x"
            await anyio.sleep_forever()
        finally:
            seen.append(response.active)

    response = EventSourceResponse(content())
    before = response.active
    await answer(response, leaves_after=5)
    assert (before, *seen, response.active) == (True, True, False, False)


async def test_setting_active_to_false_ends_the_stream() -> None:
    """Cleanly, from the app's side."""
    content = Content("x")
    response = EventSourceResponse(content())
    async with client_of(response) as client, client.stream("/") as stream:
        await stream.expect("x")
        response.active = False
        assert await stream.closed() is Ending.FINISHED
        assert stream.close_reason is CloseReason.CLOSED
    assert content.notes == ["closed"]


async def test_setting_active_to_true_changes_nothing() -> None:
    """Neither before the stream nor while it is open."""
    response = EventSourceResponse(Content("x")())
    response.active = True
    async with client_of(response) as client, client.stream("/") as stream:
        await stream.expect("x")
        response.active = True
        assert response.active


async def test_a_response_answers_one_request() -> None:
    """Its content is used up: a second client is told nothing at all rather than half a stream."""
    response = EventSourceResponse(["x"], ping=0)
    head = await answer(response, method="HEAD")
    first = await answer(response)
    second = await answer(response)
    assert head.complete
    assert first.complete
    assert isinstance(second.error, ConfigurationError)
    assert "make an EventSourceResponse for each" in str(second.error)
    assert second.messages == []


async def test_a_response_answers_one_request_at_a_time() -> None:
    """Two clients at once cannot share a generator either."""
    response = EventSourceResponse(Content("x")())
    async with client_of(response) as client, client.stream("/") as stream:
        await stream.expect("x")
        second = await answer(response)
        assert isinstance(second.error, ConfigurationError)
        assert stream.is_open


async def test_the_body_iterator_may_be_wrapped(package: ModuleType) -> None:
    """As middleware does with the responses of Starlette."""
    response = package.EventSourceResponse(["a", "b"], ping=0)
    original = response.body_iterator

    async def shouting() -> AsyncIterator[str]:
        async for item in original:
            yield item.upper()

    response.body_iterator = shouting()
    exchange = await answer(response)
    assert exchange.body == b"data: A\r\n\r\ndata: B\r\n\r\n"


async def test_a_close_handler_may_be_a_plain_function() -> None:
    """It has done its work when it returns."""
    called: list[Message] = []
    response = EventSourceResponse(Content()(), client_close_handler_callable=called.append)  # type: ignore[arg-type]
    with capture_logs() as logs:
        async with client_of(response) as client, client.stream("/"):
            pass
    assert called == [{"type": "http.disconnect"}]
    assert logs.named("stream.failed") == []
