"""What a stream waits for may be cancelled by somebody else, which asyncio tells by the exception of its own end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from starlette_sse import CloseReason, EventSourceResponse, SSEEndpoint
from starlette_sse.testing import Ending, SSETestClient, capture_logs, virtual_backend
from tests.streams.apps import Noting, serve
from tests.visits import scope_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend("asyncio")


async def wait_in_vain() -> None:
    """Await a task that somebody cancels."""
    task = asyncio.create_task(asyncio.sleep(100))
    asyncio.get_running_loop().call_later(1, task.cancel)
    await task


async def test_a_generator_that_it_breaks_off_has_failed() -> None:
    """The client gets the error event, and the log the reason: nothing looks like the end of the events."""

    class Broken(Noting):
        observers = SSEEndpoint.observers

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "one"
            await wait_in_vain()
            yield "two"

    with capture_logs() as logs:
        async with serve(Broken) as client, client.stream("/") as stream:
            await stream.expect("one")
            assert (await stream.next_event()).event == "stream-error"
            await stream.closed()
    assert Broken.notes[-1] is CloseReason.ERROR
    assert "what events waited for was cancelled" in logs.named("stream.failed")[0]["error"]


async def test_a_generator_that_awaits_what_it_has_cancelled_has_not_failed() -> None:
    """As many do in their ``finally``, when the stream ends where they yield."""

    class Helped(Noting):
        observers = SSEEndpoint.observers

        async def events(self, request: Request) -> AsyncIterator[Any]:
            helper = asyncio.create_task(asyncio.sleep(1000))
            try:
                yield "one"
                self.close()
                while True:
                    yield "never waits"
            finally:
                helper.cancel()
                await helper

    with capture_logs() as logs:
        async with serve(Helped) as client, client.stream("/") as stream:
            assert await stream.closed() is Ending.FINISHED
    assert Helped.notes[-1] is CloseReason.CLOSED
    assert logs.named("stream.failed") == []


async def test_a_response_that_it_breaks_off_is_cut() -> None:
    """Whoever awaits it gets the error."""

    async def content() -> AsyncIterator[str]:
        yield "one"
        await wait_in_vain()

    async def endpoint(request: Request) -> EventSourceResponse:
        return EventSourceResponse(content())

    app = Starlette(routes=[Route("/", endpoint)])
    with pytest.raises(RuntimeError, match="what events waited for was cancelled"):
        async with SSETestClient(app) as client, client.stream("/") as stream:
            await stream.expect("one")
            assert await stream.closed() is Ending.CUT


class Stoppable(Noting):
    """Its task can be cancelled, as by a button that stops an answer."""

    observers = SSEEndpoint.observers
    task: asyncio.Task[None]

    async def events(self, request: Request) -> AsyncIterator[Any]:
        type(self).task = asyncio.current_task()  # type: ignore[assignment]
        yield "one"
        await anyio.sleep_forever()


async def test_a_stream_whose_task_somebody_cancels_is_cut() -> None:
    """It has not come to its end, and its client must not take it for that."""

    class Own(Stoppable): ...

    with capture_logs() as logs, pytest.raises(RuntimeError, match="the task of events was cancelled"):
        async with serve(Own) as client, client.stream("/") as stream:
            await stream.expect("one")
            Own.task.cancel()
            assert await stream.closed() is Ending.CUT
    assert Own.notes[-1] is CloseReason.CANCELLED
    assert [entry["reason"] for entry in logs.named("stream.closed")] == ["cancelled"]
    assert len(logs.named("stream.failed")) == 1


@pytest.mark.parametrize("together", [True, False], ids=["with all others", "alone"])
async def test_a_stream_whose_task_is_cancelled_before_it_begins(together: bool) -> None:
    """As when the event loop ends in the turn in which it is opened: nobody waits for what will never run."""

    class Own(Noting):
        pause = 0.0

    def made(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if coroutine.__qualname__ == "Producer.run":
            task.cancel()
            if together:
                request.cancel()
        return task

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    scope = scope_of()
    loop = asyncio.get_running_loop()
    request = asyncio.create_task(Own(scope, anyio.sleep_forever, send).dispatch())  # type: ignore[arg-type]
    loop.set_task_factory(made)
    began = loop.time()
    try:
        with pytest.raises(asyncio.CancelledError if together else RuntimeError):
            await request
    finally:
        loop.set_task_factory(None)
    assert loop.time() == began
    assert sent == []
    assert Own.notes == ["connected", CloseReason.CANCELLED]


class Holding:
    """An iterator that holds a task group from its first step to its closing; what it runs there fails."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None

    async def _fails(self) -> None:
        await asyncio.sleep(1)
        raise ValueError("bad")

    def __aiter__(self) -> Holding:
        return self

    async def __anext__(self) -> str:
        if self._group is not None:
            await anyio.sleep_forever()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._group.create_task(self._fails())
        return "one"

    async def aclose(self) -> None:
        if self._group is not None:
            await self._group.__aexit__(None, None, None)


async def test_a_cancellation_by_the_iterators_own_task_group_is_its_error() -> None:
    """Only its closing tells what has gone wrong, and that is what the client and the log are told."""

    class Own(Noting):
        observers = SSEEndpoint.observers

        def events(self, request: Request) -> Any:
            return Holding()

    with capture_logs() as logs:
        async with serve(Own) as client, client.stream("/") as stream:
            await stream.expect("one")
            assert (await stream.next_event()).event == "stream-error"
            await stream.closed()
    assert Own.notes[-1] is CloseReason.ERROR
    assert [entry["error"] for entry in logs.named("stream.failed")] == ["ValueError('bad')"]


class Slow:
    """An iterator whose closing takes longer than it may, and that closes what was never used, too."""

    def __init__(self) -> None:
        self.closed = False

    def __aiter__(self) -> Slow:
        return self

    async def __anext__(self) -> str:
        await anyio.sleep(1)
        return "one"

    async def aclose(self) -> None:
        await anyio.sleep(20)
        self.closed = True


async def test_a_cancelled_task_whose_closing_takes_long_is_cut_in_time() -> None:
    """Nobody waits for what it may tell longer than ``cleanup_timeout``, and its client least of all."""

    class Own(Noting):
        cleanup_timeout = 3.0
        pause = 0.0

        def events(self, request: Request) -> Any:
            return Noticed()

    class Noticed(Slow):
        async def __anext__(self) -> str:
            Own.producing = asyncio.current_task()  # type: ignore[attr-defined]
            return await super().__anext__()

    with pytest.raises(RuntimeError, match="the task of events was cancelled"):
        async with serve(Own) as client, client.stream("/") as stream:
            await stream.expect("one")
            began = anyio.current_time()
            Own.producing.cancel()  # type: ignore[attr-defined]
            assert await stream.closed() is Ending.CUT
            assert anyio.current_time() - began <= 2 * 3.0 + 1.0
    assert Own.notes[-1] is CloseReason.CANCELLED


async def test_content_that_was_never_used_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be connected to something already."""
    content = Slow()

    def made(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if coroutine.__qualname__ == "Producer.run":
            task.cancel()
        return task

    async def send(message: Any) -> None: ...

    scope = scope_of()
    loop = asyncio.get_running_loop()
    loop.set_task_factory(made)
    try:
        with pytest.raises(RuntimeError, match="the task of events was cancelled"):
            await EventSourceResponse(content)(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    finally:
        loop.set_task_factory(None)
    assert content.closed


@pytest.mark.parametrize("first", ["sender", "request"])
async def test_a_response_whose_event_loop_ends_is_cancelled(first: str) -> None:
    """Whichever task Python cancels first, its data sender has not failed."""
    senders: list[Any] = []

    async def sender() -> None:
        senders.append(asyncio.current_task())
        await anyio.sleep_forever()

    async def content() -> AsyncIterator[str]:
        yield "one"
        await anyio.sleep_forever()

    async def send(message: Any) -> None: ...

    scope = scope_of()
    with capture_logs() as logs:
        response = EventSourceResponse(content(), data_sender_callable=sender)
        request = asyncio.create_task(response(scope, anyio.sleep_forever, send))  # type: ignore[arg-type]
        await asyncio.sleep(1)
        for task in (senders[0], request) if first == "sender" else (request, senders[0]):
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert [entry["reason"] for entry in logs.named("stream.closed")] == ["cancelled"]
    assert logs.named("stream.failed") == []


async def test_a_stream_whose_event_loop_ends_is_cancelled() -> None:
    """Python cancels all tasks then, in any order; the server's own tells that its request is cancelled."""

    class Own(Stoppable): ...

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    scope = scope_of()
    request = asyncio.create_task(Own(scope, anyio.sleep_forever, send).dispatch())  # type: ignore[arg-type]
    await asyncio.sleep(1)
    for task in (Own.task, request):
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert Own.notes[-1] is CloseReason.CANCELLED
    assert sent[-1]["more_body"]


async def test_a_data_sender_that_it_breaks_off_ends_the_stream() -> None:
    """Else the stream would wait for ever for what nobody sends."""

    async def content() -> AsyncIterator[str]:
        yield "one"
        await anyio.sleep_forever()

    async def endpoint(request: Request) -> EventSourceResponse:
        return EventSourceResponse(content(), data_sender_callable=wait_in_vain)

    app = Starlette(routes=[Route("/", endpoint)])
    with pytest.raises(RuntimeError, match="what data_sender_callable waited for was cancelled"):
        async with SSETestClient(app) as client, client.stream("/") as stream:
            await stream.expect("one")
            await stream.closed()


class Guarded(Noting):
    """Lets everybody in, and asks again in five seconds."""

    authorize_interval = 5.0
    asked = False

    async def authorize(self, request: Request) -> None:
        if self.asked:
            await self.ask_again()
        self.asked = True

    async def ask_again(self) -> None:
        raise NotImplementedError


async def test_an_authorization_that_it_breaks_off_ends_the_stream() -> None:
    """Whoever cannot be asked is not let in."""

    class Own(Guarded):
        async def ask_again(self) -> None:
            await wait_in_vain()
            raise HTTPException(401)

    async with serve(Own) as client, client.stream("/") as stream:
        await stream.expect("first")
        assert (await stream.next_event()).event == "stream-error"
    assert CloseReason.ERROR in Own.notes


@pytest.mark.parametrize("by", ["itself", "another"])
async def test_an_authorization_whose_task_is_cancelled_ends_the_stream(by: str) -> None:
    """It has given no answer, and nobody may be let in by that."""

    class Own(Guarded):
        async def ask_again(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            if by == "itself":
                task.cancel()
            else:
                asyncio.get_running_loop().call_later(1, task.cancel)
            await asyncio.sleep(2)

    async with serve(Own) as client, client.stream("/") as stream:
        await stream.expect("first")
        assert (await stream.next_event()).event == "stream-error"
    assert CloseReason.ERROR in Own.notes


async def test_a_server_that_cancels_is_no_failure() -> None:
    """The same exception then means what it says."""

    class Endless(Noting): ...

    async with serve(Endless) as client:
        scope = scope_of()

        async def send(message: Any) -> None: ...

        task = asyncio.create_task(Endless(scope, anyio.sleep_forever, send).dispatch())  # type: ignore[arg-type]
        await asyncio.sleep(10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.state
    assert Endless.notes[-1] is CloseReason.CANCELLED
