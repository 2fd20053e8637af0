"""Hooks and generators that are plain functions; worker threads know no virtual time."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from typing import Any, ClassVar

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from starlette_sse import Broker, ChannelEndpoint, CloseReason, ConfigurationError, ServerSentEvent, SSEEndpoint
from starlette_sse.eventloop.threads import ThreadCall
from starlette_sse.iterators import threads_of_iterators
from starlette_sse.testing import SSETestClient, capture_logs
from tests.streams.apps import Noting, serve
from tests.visits import scope_of
from tests.waiting import until

pytestmark = pytest.mark.anyio

#: Seconds that only a fault takes.
PATIENCE = 10.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_hooks_may_be_plain_functions() -> None:
    """They run in worker threads, as Starlette's handlers do."""

    class Sync(Noting):
        pause = 0.0

        def authorize(self, request: Request) -> None:
            self.notes.append("authorized")

        def on_connect(self, request: Request) -> None:  # type: ignore[override]
            self.notes.append("connected")

        def on_disconnect(self, request: Request, reason: CloseReason) -> None:  # type: ignore[override]
            self.notes.append(reason)

    async with serve(Sync) as client, client.stream("/") as stream:
        await stream.expect("first")
    assert Sync.notes == ["authorized", "connected", "cleaned up", CloseReason.CLIENT_GONE]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_plain_on_disconnect_is_called_though_its_request_is_cancelled_before_its_thread_begins() -> None:
    """It frees what the stream holds, and asyncio's cancellation may come at any turn."""

    class Sync(Noting):
        pause = 0.0

        def on_disconnect(self, request: Request, reason: CloseReason) -> None:  # type: ignore[override]
            self.notes.append(reason)

    scope = scope_of()
    for turns in range(25):
        Sync.notes.clear()
        gone = asyncio.Event()

        async def receive(gone: asyncio.Event = gone) -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            """Take it at once."""

        async def run(receive: Any = receive) -> None:
            await Sync(scope, receive, send)

        task = asyncio.ensure_future(run())
        await anyio.wait_all_tasks_blocked()
        gone.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert Sync.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE], turns


class Connecting(Noting):
    """Its plain ``on_connect`` takes until the test lets it go on."""

    pause = 0.0
    answer: Response | Exception | None
    blocks: threading.Event
    goes_on: threading.Event

    @classmethod
    def to(cls, answer: Response | Exception | None) -> type[Connecting]:
        return type("Answering", (cls,), {"answer": answer, "blocks": threading.Event(), "goes_on": threading.Event()})

    def on_connect(self, request: Request) -> Response | None:  # type: ignore[override]
        self.blocks.set()
        self.goes_on.wait(PATIENCE)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def connect(endpoint: type[Connecting]) -> None:
    scope = scope_of()

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        """Take what a request that was cancelled sends before it notices."""

    await endpoint(scope, receive, send)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize(
    ("answer", "notes"),
    [(None, [CloseReason.CANCELLED]), (Response(), []), (ValueError("no"), [])],
    ids=["succeeds", "answers", "fails"],
)
async def test_a_plain_on_connect_whose_request_is_cancelled_by_asyncio(
    answer: Response | Exception | None, notes: list[Any]
) -> None:
    """It cannot be interrupted, and what it has taken if it succeeds has to be freed."""
    endpoint = Connecting.to(answer)
    task = asyncio.ensure_future(connect(endpoint))
    await anyio.to_thread.run_sync(endpoint.blocks.wait)
    for _ in range(2):
        # Twice, as a time limit and a server's end together.
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not task.done()
    endpoint.goes_on.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert endpoint.notes == notes
    assert caught.value.__cause__ is (answer if isinstance(answer, Exception) else None)


async def test_a_coroutine_of_a_plain_on_connect_whose_request_is_cancelled_is_closed() -> None:
    """It will not be awaited, and Python would say so."""

    async def wanted() -> None: ...

    endpoint: Any = Connecting.to(None)
    endpoint.answer = coroutine = wanted()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect, endpoint)
        await anyio.to_thread.run_sync(endpoint.blocks.wait)
        tasks.cancel_scope.cancel()
        endpoint.goes_on.set()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert endpoint.notes == []


@pytest.mark.parametrize("answer", [None, Response()], ids=["succeeds", "answers"])
async def test_a_plain_on_connect_whose_request_is_cancelled_by_a_scope(answer: Response | None) -> None:
    """What was cancelled waits for it, as for every call in a thread."""
    endpoint = Connecting.to(answer)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect, endpoint)
        await anyio.to_thread.run_sync(endpoint.blocks.wait)
        tasks.cancel_scope.cancel()
        endpoint.goes_on.set()
    assert endpoint.notes[-1:] == ([] if answer else [CloseReason.CANCELLED])
    assert endpoint.notes.count(CloseReason.CANCELLED) == len(endpoint.notes[-1:])


async def test_a_plain_on_connect_that_waits_for_a_thread_is_not_called_once_its_request_is_cancelled() -> None:
    """Nothing was begun that would have to be waited for."""
    endpoint = Connecting.to(None)
    limiter = anyio.to_thread.current_default_thread_limiter()
    holders = [object() for _ in range(int(limiter.total_tokens))]
    for holder in holders:
        limiter.acquire_on_behalf_of_nowait(holder)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect, endpoint)
            await anyio.wait_all_tasks_blocked()
            assert limiter.statistics().tasks_waiting == 1
            tasks.cancel_scope.cancel()
    finally:
        for holder in holders:
            limiter.release_on_behalf_of(holder)
    assert not endpoint.blocks.is_set()
    assert endpoint.notes == []


@pytest.mark.parametrize("reason", [CloseReason.ERROR, CloseReason.DRAINING])
async def test_plain_hooks_that_end_a_stream_have_threads_though_all_others_are_busy(reason: CloseReason) -> None:
    """``on_disconnect`` frees what the stream holds: routes that are slow must not keep it from that."""
    release = threading.Event()

    class Sync(Noting):
        pause = 0.0
        cleanup_timeout = 5.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            if reason is CloseReason.DRAINING:
                await anyio.sleep_forever()
            raise ValueError

        def on_error(self, request: Request, error: Exception) -> ServerSentEvent:
            return ServerSentEvent("told")

        def on_drain(self, request: Request) -> ServerSentEvent:
            return ServerSentEvent("told")

        def on_disconnect(self, request: Request, reason: CloseReason) -> None:  # type: ignore[override]
            self.notes.append(reason)

    limiter = anyio.to_thread.current_default_thread_limiter()
    async with anyio.create_task_group() as tasks:
        for _ in range(int(limiter.total_tokens)):
            tasks.start_soon(run_in_threadpool, release.wait)
        await anyio.wait_all_tasks_blocked()
        try:
            with anyio.fail_after(PATIENCE):
                async with serve(Sync) as client, client.stream("/") as stream:
                    await stream.expect("first")
                    if reason is CloseReason.DRAINING:
                        client.drain()
                    await stream.expect("told")
        finally:
            release.set()
    assert Sync.notes == ["connected", reason]


async def test_a_sync_generator_is_a_stream() -> None:
    """Its steps and its ``finally`` run in worker threads."""

    class Sync(Noting):
        pause = 0.0

        def events(self, request: Request) -> Iterator[Any]:  # type: ignore[override]
            try:
                yield 1
                yield 2
                while True:
                    yield "more"
            finally:
                self.notes.append("cleaned up")

    async with serve(Sync) as client, client.stream("/") as stream:
        await stream.expect("1", "2", "more")
    assert Sync.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE]


async def test_a_coroutine_that_a_plain_generator_yields_is_told() -> None:
    """With the remedy, on each event loop."""

    async def forgotten() -> None: ...

    class Forgetful(SSEEndpoint):
        def events(self, request: Request) -> Iterator[Any]:
            yield "first"
            yield forgotten()

    with capture_logs() as logs:
        async with serve(Forgetful) as client, client.stream("/") as stream:
            await stream.expect("first")
            assert (await stream.next_event()).event == "stream-error"
    (failure,) = logs.named("stream.failed")
    assert "it has to be awaited first" in failure["error"]


class Blocking(Noting):
    """Blocks a thread, in its second step or when it is closed, until the test lets it go on."""

    pause = 0.0
    in_step: bool
    blocks: threading.Event
    goes_on: threading.Event

    @classmethod
    def blocking_in(cls, where: str, **attributes: Any) -> type[Blocking]:
        own = {"in_step": where == "step", "blocks": threading.Event(), "goes_on": threading.Event()}
        return type("Blocking", (cls,), {**own, **attributes})

    def block(self) -> None:
        self.blocks.set()
        self.goes_on.wait()

    def events(self, request: Request) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield "first"
            if self.in_step:
                self.block()
            yield "second"
        finally:
            if not self.in_step:
                self.block()
            self.notes.append("cleaned up")


async def blocked(endpoint: type[Blocking]) -> None:
    """Wait until a thread is blocked."""
    with anyio.fail_after(PATIENCE):
        while not endpoint.blocks.is_set():
            await anyio.sleep(0.01)


@pytest.mark.parametrize("where", ["step", "cleanup"])
async def test_generators_that_block_leave_the_apps_threads_alone(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them wait, plain route functions and hooks still find a thread."""
    endpoint = Blocking.blocking_in(where, cleanup_timeout=None)
    monkeypatch.setattr(anyio.to_thread.current_default_thread_limiter(), "total_tokens", 1)
    async with serve(endpoint) as client, client.stream("/") as stream:
        try:
            await stream.expect("first")
            if where == "cleanup":
                stream.disconnect()
            await blocked(endpoint)
            with anyio.fail_after(PATIENCE):
                assert await run_in_threadpool(threading.current_thread) is not threading.main_thread()
        finally:
            endpoint.goes_on.set()


@pytest.mark.parametrize("where", ["step", "cleanup"])
async def test_a_generator_that_blocks_for_long_does_not_hold_its_streams_end(where: str) -> None:
    """Nothing interrupts a thread, so it is left behind when ``cleanup_timeout`` is over."""
    endpoint = Blocking.blocking_in(where, cleanup_timeout=0.05)
    async with serve(endpoint) as client, client.stream("/") as stream:
        try:
            await stream.expect("first")
            if where == "step":
                await blocked(endpoint)
            stream.disconnect()
            with anyio.fail_after(PATIENCE):
                await stream.closed()
            assert endpoint.notes == ["connected", CloseReason.CLIENT_GONE]
        finally:
            endpoint.goes_on.set()


async def test_an_authorize_that_blocks_for_long_does_not_hold_its_streams_end() -> None:
    """Whoever cannot be asked is not let in, and its thread is left behind."""
    goes_on = threading.Event()

    class Asking(Noting):
        pause = 0.0
        authorize_interval = 0.05
        asked = 0

        def authorize(self, request: Request) -> None:
            type(self).asked += 1
            if self.asked > 1:
                goes_on.wait(30)

    async with serve(Asking) as client, client.stream("/") as stream:
        try:
            await stream.expect("first")
            with anyio.fail_after(PATIENCE):
                await stream.closed()
            assert Asking.notes == ["connected", "cleaned up", CloseReason.ERROR]
        finally:
            goes_on.set()


async def test_a_snapshot_may_be_a_plain_function() -> None:
    """It runs in a worker thread like any other hook, and what it returns becomes the endpoint's events."""
    threads = []

    class Shouted(ServerSentEvent):
        @staticmethod
        def dumps(value: Any) -> str:
            return str(value).upper()

    class News(ChannelEndpoint):
        broker = Broker(observers=())
        channels = ("news",)
        observers = ()
        event_class = Shouted

        def snapshot(self, request: Request) -> Any:
            threads.append(threading.current_thread())
            return [("a", 1)]

    async with serve(News) as client, client.stream("/") as stream:
        await stream.expect("('A', 1)")
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_a_hook_may_be_a_plain_function_around_a_coroutine_function() -> None:
    """A decorator as people write them; its coroutine runs in the event loop."""
    threads = []

    def checked(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any) -> Any:
            return function(*args)

        return call

    class Guarded(Noting):
        @checked
        async def authorize(self, request: Request) -> None:
            threads.append(threading.current_thread())
            if "token" not in request.query_params:
                raise HTTPException(403)

    async with serve(Guarded) as client:
        assert (await client.request("GET", "/")).status_code == 403
        async with client.stream("/?token=x") as stream:
            await stream.expect("first")
    assert threads == [threading.current_thread()] * 2


class Blocked(SSEEndpoint):
    """Each of its generators keeps its thread until it is released."""

    observers = ()
    cleanup_timeout = 0.05
    released: ClassVar[threading.Event]
    entered: ClassVar[list[threading.Thread]]
    closed: ClassVar[list[threading.Thread]]

    def events(self, request: Request) -> Iterator[Any]:
        try:
            yield "first"
            self.entered.append(threading.current_thread())
            self.released.wait(30)
            yield "second"
        finally:
            self.closed.append(threading.current_thread())


async def test_a_thread_that_is_stuck_counts_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Who leaves does not free it, so there are never more than the limit; that streams wait is logged, once."""

    class Stuck(Blocked):
        released, entered, closed = threading.Event(), [], []

    async with serve(Stuck) as client:
        limiter = threads_of_iterators()
        limiter.total_tokens = 3
        try:
            for number in range(3):
                async with client.stream("/") as stream:
                    await stream.expect("first")
                    await until(lambda: len(Stuck.entered) == number + 1)  # noqa: B023
            assert limiter.borrowed_tokens == 3
            assert not caplog.records
            async with client.stream("/") as stream:
                assert (await stream.next_comment()).text == "open"
            async with client.stream("/") as stream:
                assert (await stream.next_comment()).text == "open"
            assert limiter.borrowed_tokens == 3
            assert len([record for record in caplog.records if "further streams wait" in record.getMessage()]) == 1
        finally:
            Stuck.released.set()
        await until(lambda: len(Stuck.closed) == 3)
        # The thread that was stuck has closed its iterator itself.
        assert set(Stuck.closed) == set(Stuck.entered)
        await until(lambda: limiter.borrowed_tokens == 0)
        async with client.stream("/") as stream:
            await stream.expect("first", "second")


async def test_the_number_of_threads_is_set_in_an_event_loop() -> None:
    """Each has its own, so at the import of the app, or in a thread, there is none to set."""
    assert threads_of_iterators().total_tokens == 40
    threads_of_iterators().total_tokens = 200
    assert threads_of_iterators().total_tokens == 200
    with pytest.raises(ConfigurationError, match="none runs here; call this in the app's lifespan"):
        await anyio.to_thread.run_sync(threads_of_iterators)


async def test_a_stream_is_closed_though_all_threads_are_stuck() -> None:
    """The ``finally`` of a generator does not wait for those of others."""

    class Stuck(Blocked):
        released, entered, closed = threading.Event(), [], []

    class Polite(Blocked):
        released, entered, closed = threading.Event(), [], []
        cleanup_timeout = 20.0

        def events(self, request: Request) -> Iterator[Any]:
            try:
                for _ in range(1000):
                    yield "x" * 100_000
            finally:
                self.closed.append(threading.current_thread())

    routes = [Route("/stuck", Stuck), Route("/polite", Polite)]
    async with SSETestClient(Starlette(routes=routes)) as client:
        limiter = threads_of_iterators()
        limiter.total_tokens = 1
        try:
            async with client.stream("/polite") as polite:
                # The client reads no further, so that the generator is between two steps.
                await polite.next_event()
                async with client.stream("/stuck") as stream:
                    await stream.expect("first")
                    await until(lambda: len(Stuck.entered) == 1)
            assert len(Polite.closed) == 1
        finally:
            Stuck.released.set()
        await until(lambda: limiter.borrowed_tokens == 0)


async def test_what_a_step_raises_that_was_left_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it, and somebody has to know."""
    follow, left = ThreadCall.follow, []

    def followed(call: ThreadCall, function: Callable[[BaseException | None], None]) -> bool:
        left.append(follow(call, function))
        released.set()
        return left[-1]

    monkeypatch.setattr(ThreadCall, "follow", followed)
    released = threading.Event()
    entered = threading.Event()

    class Late(SSEEndpoint):
        cleanup_timeout = 20.0

        def events(self, request: Request) -> Iterator[Any]:
            yield "first"
            entered.set()
            released.wait(30)
            raise ValueError("too late")

    with capture_logs() as logs:
        async with serve(Late) as client:
            async with client.stream("/") as stream:
                await stream.expect("first")
                await until(entered.is_set)
    assert left == [True]
    assert [entry["error"] for entry in logs.named("stream.failed")] == ["ValueError('too late')"]


async def test_what_the_closing_behind_a_step_raises_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread closes the generator when nobody waits for the step any more."""
    follow, left = ThreadCall.follow, []
    released, entered = threading.Event(), threading.Event()

    def followed(call: ThreadCall, function: Callable[[BaseException | None], None]) -> bool:
        left.append(follow(call, function))
        released.set()
        return left[-1]

    monkeypatch.setattr(ThreadCall, "follow", followed)

    class Careless(SSEEndpoint):
        cleanup_timeout = 20.0

        def events(self, request: Request) -> Iterator[Any]:
            yield "first"
            try:
                entered.set()
                released.wait(30)
                yield "second"
            finally:
                raise ValueError("not closed")

    with capture_logs() as logs:
        async with serve(Careless) as client:
            async with client.stream("/") as stream:
                await stream.expect("first")
                await until(entered.is_set)
    assert left == [True]
    assert [entry["error"] for entry in logs.named("stream.failed")] == ["ValueError('not closed')"]


@pytest.mark.parametrize("left", ["at the end", "between two steps", "within a step"])
async def test_a_plain_generator_has_one_context(left: str) -> None:
    """What one step has set is there in the next, and can be reset in its ``finally``, whatever ends the stream."""
    variable: ContextVar[str] = ContextVar("variable", default="none")
    notes = []
    entered, released = threading.Event(), threading.Event()

    class Bound(SSEEndpoint):
        observers = ()

        def events(self, request: Request) -> Iterator[Any]:
            token = variable.set("mine")
            try:
                yield variable.get()
                yield variable.get()
                entered.set()
                if left == "within a step":
                    released.wait(30)
                while left != "at the end":
                    yield "x" * 100_000
            finally:
                variable.reset(token)
                notes.append(variable.get())

    async with serve(Bound) as client, client.stream("/") as stream:
        await stream.expect("mine", "mine")
        if left == "at the end":
            await stream.closed()
        else:
            await until(entered.is_set)
        stream.disconnect()
        await anyio.wait_all_tasks_blocked()
        released.set()
    assert notes == ["none"]
    assert variable.get() == "none"


@pytest.mark.parametrize("hook", ["on_error", "on_drain"])
async def test_a_plain_hook_that_chooses_the_last_event_is_cut_by_its_time_limit(hook: str) -> None:
    """The stream ends without that event, and not when the thread does."""
    released, over = threading.Event(), threading.Event()

    def choose(*facts: object) -> None:
        released.wait(PATIENCE)
        over.set()

    class Slow(Noting):
        pause = 0.0
        send_timeout = drain_grace = 0.05

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            if hook == "on_drain":
                await anyio.sleep_forever()
            raise ValueError("its own")

        def on_disconnect(self, request: Request, reason: CloseReason) -> None:  # type: ignore[override]
            self.notes.append(over.is_set())

    setattr(Slow, hook, choose)

    class Late(Slow): ...

    try:
        # The client was not told of the error, so it goes on its way.
        with suppress(ValueError):
            async with serve(Late) as client, client.stream("/") as stream:
                await stream.expect("first")
                if hook == "on_drain":
                    client.drain()
                await stream.closed()
    finally:
        released.set()
    assert Late.notes == ["connected", False]


async def test_a_plain_on_disconnect_is_cut_by_its_time_limit() -> None:
    """Its thread goes on, and holds no place and no shutdown."""
    released, begun = threading.Event(), threading.Event()

    class Slow(SSEEndpoint):
        cleanup_timeout = 0.05
        max_connections = 1

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"

        def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            begun.set()
            released.wait(30)

    with capture_logs() as logs:
        async with serve(Slow) as client:
            try:
                for _ in range(2):
                    async with client.stream("/") as stream:
                        await stream.expect("first")
                        await stream.closed()
            finally:
                released.set()
    assert begun.is_set()
    assert [entry["during"] for entry in logs.named("stream.failed")] == ["on_disconnect"] * 2
