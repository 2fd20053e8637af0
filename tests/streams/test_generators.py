"""Generators that are hard to stop, and what they may rely on."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from starlette_sse import CloseReason, SSEEndpoint
from starlette_sse.observers import Observer
from starlette_sse.testing import Ending, capture_logs
from tests.streams.apps import Noting, serve
from tests.visits import scope_of

pytestmark = pytest.mark.anyio


async def test_cleanup_may_take_the_whole_cleanup_timeout() -> None:
    """``finally`` and ``on_disconnect`` each get ``cleanup_timeout`` seconds in which they may await."""

    class Slow(Noting):
        cleanup_timeout = 100.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                await anyio.sleep(99)
                self.notes.append("cleaned up")

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            await anyio.sleep(99)
            self.notes.append(reason)

    async with serve(Slow) as client, client.stream("/") as stream:
        await stream.expect("first")
    assert Slow.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE]


async def test_cleanup_is_cut_at_its_deadline() -> None:
    """Cleanup that hangs is cut, told to the observers, and ``on_disconnect`` still runs."""
    told = []

    class Watching(Observer):
        def failed(self, stream: Any, error: BaseException, *, during: str, propagates: bool) -> None:
            told.append((during, str(error), propagates))

    class Hanging(Noting):
        cleanup_timeout = 10.0
        observers = (Watching(),)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                await anyio.sleep_forever()
                self.notes.append("never")

    async with serve(Hanging) as client, client.stream("/") as stream:
        await stream.expect("first")
        start = anyio.current_time()
        stream.disconnect()
        await stream.closed()
        assert anyio.current_time() - start == pytest.approx(11)
    assert Hanging.notes == ["connected", CloseReason.CLIENT_GONE]
    assert told == [("events", "events was cut by its time limit", False)]


async def test_an_on_disconnect_that_hangs_is_cut() -> None:
    """No hook can hold a connection for ever."""

    class Hanging(Noting):
        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            self.notes.append(reason)
            await anyio.sleep_forever()

    async with serve(Hanging) as client, client.stream("/") as stream:
        await stream.expect("first")
        start = anyio.current_time()
        stream.disconnect()
        await stream.closed()
        assert anyio.current_time() - start == pytest.approx(11)
    assert Hanging.notes[-1] is CloseReason.CLIENT_GONE


async def test_a_generator_may_swallow_its_interruption() -> None:
    """One that goes on after it is closed at its next ``yield``."""

    class Stubborn(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                while True:
                    try:
                        yield "again"
                        await anyio.sleep_forever()
                    except anyio.get_cancelled_exc_class():
                        self.notes.append("swallowed")
            finally:
                await anyio.sleep(1)
                self.notes.append("cleaned up")

    async with serve(Stubborn) as client, client.stream("/") as stream:
        await stream.expect("again")
        await anyio.sleep(1)
        stream.disconnect()
        await stream.closed()
    assert Stubborn.notes == ["connected", "swallowed", "cleaned up", CloseReason.CLIENT_GONE]


async def test_a_generator_that_ignores_its_close_is_an_error_in_the_log_only() -> None:
    """``on_disconnect`` runs although ``aclose()`` fails."""

    class Deaf(Noting):
        observers = SSEEndpoint.observers

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                yield "second"
            finally:
                yield "too late"

    with capture_logs() as logs:
        async with serve(Deaf) as client, client.stream("/") as stream:
            await stream.expect("first")
            stream.disconnect()
            await stream.closed()
    assert Deaf.notes == ["connected", CloseReason.CLIENT_GONE]
    (failed,) = logs.named("stream.failed")
    assert failed["during"] == "events"
    assert "async generator ignored GeneratorExit" in failed["error"]


async def test_a_generator_may_raise_in_its_finally() -> None:
    """The reason stays what it was."""

    class Clumsy(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                raise ValueError("in finally")

    async with serve(Clumsy) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.disconnect()
        await stream.closed()
    assert Clumsy.notes == ["connected", CloseReason.CLIENT_GONE]


@pytest.mark.parametrize("where", ["waiting", "at the yield"])
async def test_a_task_group_may_stay_open_across_a_yield(where: str) -> None:
    """Its tasks end with the generator, their cleanup completes, and nothing is corrupted."""

    class Grouped(Noting):
        async def child(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.notes.append("child ended")

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self.child)
                    await anyio.sleep(1)
                    yield "first"
                    if where == "waiting":
                        await anyio.sleep_forever()
                    yield "second"
            finally:
                await anyio.sleep(1)
                self.notes.append("cleaned up")

    async with serve(Grouped) as client, client.stream("/") as stream:
        await stream.expect("first")
        await anyio.sleep(1)
        stream.disconnect()
        await stream.closed()
    assert Grouped.notes == ["connected", "child ended", "cleaned up", CloseReason.CLIENT_GONE]


async def test_a_task_of_the_generators_group_that_fails_ends_the_stream() -> None:
    """The error reaches the client as any other."""

    class Grouped(Noting):
        async def child(self) -> None:
            await anyio.sleep(5)
            raise ValueError("child")

        async def events(self, request: Request) -> AsyncIterator[Any]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.child)
                yield "first"
                await anyio.sleep_forever()

    async with serve(Grouped) as client, client.stream("/") as stream:
        await stream.expect("first", {"event": "stream-error"})
        await stream.closed()
    assert Grouped.notes == ["connected", CloseReason.ERROR]


async def test_a_timeout_of_the_generators_does_not_reach_the_driver() -> None:
    """A scope that is open across a ``yield`` cancels the generator, not the sends."""

    class Timed(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            with anyio.move_on_after(5):
                yield "first"
                await anyio.sleep_forever()
            yield "after"

    async with serve(Timed) as client, client.stream("/") as stream:
        await stream.expect("first", "after")
        await stream.closed()
    assert Timed.notes == ["connected", CloseReason.FINISHED]


async def test_a_users_shield_is_respected() -> None:
    """What the generator shields completes before it is interrupted."""

    class Careful(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
                self.notes.append("committed")
            await anyio.sleep_forever()

    async with serve(Careful) as client, client.stream("/") as stream:
        await stream.expect("first")
        await anyio.sleep(1)
        stream.disconnect()
        await stream.closed()
    assert Careful.notes == ["connected", "committed", CloseReason.CLIENT_GONE]


async def test_a_shield_across_a_yield_holds_no_stream_whose_client_never_was() -> None:
    """The event that the generator has ready will never have its turn, and no cancellation tells it so."""

    class Shielding(Noting):
        max_connections = 1

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                with anyio.CancelScope(shield=True):
                    yield "first"
            finally:
                self.notes.append("cleaned up")

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await anyio.sleep(1)

    scope = scope_of()
    for shielded in (False, True):
        # As by a server that cancels what it has begun, and then by a client that has gone.
        with anyio.fail_after(60, shield=True):
            with anyio.CancelScope() as request:
                if shielded:
                    request.cancel()
                await Shielding(scope, receive, send)
        assert Shielding.notes[0] == "connected"
        assert Shielding.notes[-1] in (CloseReason.CLIENT_GONE, CloseReason.CANCELLED)
        Shielding.notes.clear()


async def test_an_iterator_without_aclose_will_do() -> None:
    """Any async iterator can be a stream."""

    class Counter:
        count = 0

        def __aiter__(self) -> Counter:
            return self

        async def __anext__(self) -> int:
            self.count += 1
            if self.count == 3:
                raise StopAsyncIteration
            return self.count

    class Counting(Noting):
        def events(self, request: Request) -> AsyncIterator[Any]:
            return Counter()

    async with serve(Counting) as client, client.stream("/") as stream:
        await stream.expect("1", "2")
        assert await stream.closed() is Ending.FINISHED
    assert Counting.notes == ["connected", CloseReason.FINISHED]


async def test_a_generator_is_never_ahead_of_the_wire() -> None:
    """The next event is pulled when the one before has been sent."""
    pulled = []

    class Counting(Noting):
        send_timeout = None
        ping_interval = None

        async def events(self, request: Request) -> AsyncIterator[Any]:
            for number in range(10):
                pulled.append(number)
                yield str(number)

    async with serve(Counting) as client, client.stream("/") as stream:
        await stream.expect("0", "1")
        await anyio.sleep(1000)
        assert pulled == [0, 1, 2]


async def test_a_stream_that_waits_does_not_hold_what_it_sent() -> None:
    """An event of megabytes is gone once it is sent, however long the next one takes."""

    class Large(dict[str, str]):
        """Can be watched."""

    sent: list[weakref.ref[Large]] = []

    def large() -> Large:
        event = Large(data="x" * 1000)
        sent.append(weakref.ref(event))
        return event

    class Feed(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield large()
            await anyio.sleep_forever()

    async with serve(Feed) as client, client.stream("/") as stream:
        await stream.expect("x" * 1000)
        await anyio.sleep(1)
        gc.collect()
        assert [ref() for ref in sent] == [None]


async def test_the_cleanup_of_a_cancelled_stream_is_cut_at_its_deadline_too() -> None:
    """A server that cancels waits for the cleanup, but not for ever."""

    class Hanging(Noting):
        cleanup_timeout = 10.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                await anyio.sleep_forever()

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            self.notes.append(reason)

    opened = anyio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            opened.set()

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def run() -> None:
        scope = scope_of()
        await Hanging(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await opened.wait()
        start = anyio.current_time()
        tasks.cancel_scope.cancel()
    assert anyio.current_time() - start == pytest.approx(10)
    assert Hanging.notes == ["connected", CloseReason.CANCELLED]


async def test_an_iterator_that_fails_and_hangs_while_it_closes() -> None:
    """The client is told at once, and the closing gets ``cleanup_timeout`` like any other."""

    class Hanging:
        sent = False

        def __aiter__(self) -> Hanging:
            return self

        async def __anext__(self) -> str:
            if self.sent:
                raise ValueError("failed")
            self.sent = True
            return "first"

        async def aclose(self) -> None:
            await anyio.sleep_forever()

    class Failing(Noting):
        cleanup_timeout = 7.0
        pause = 0.0

        def events(self, request: Request) -> AsyncIterator[Any]:
            return Hanging()

    async with serve(Failing) as client, client.stream("/") as stream:
        await stream.expect("first", {"event": "stream-error"})
        started = anyio.current_time()
        await stream.closed()
        assert anyio.current_time() - started < 8
    assert Failing.notes == ["connected", CloseReason.ERROR]


async def test_a_delivery_is_interrupted_once() -> None:
    """A middleware's ``send`` that is stopped may clean up as well."""
    notes: list[str] = []
    stuck, gone = anyio.Event(), anyio.Event()
    sent = 0

    class Quick(Noting):
        pause = 0.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            yield "second"

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 3:
            try:
                stuck.set()
                await anyio.sleep_forever()
            finally:
                await anyio.sleep(1)
                notes.append("cleaned up")

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def visit() -> None:
        scope = scope_of()
        await Quick(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit)
        await stuck.wait()
        gone.set()
    assert notes == ["cleaned up"]


async def test_what_is_yielded_after_an_interruption_is_not_sent() -> None:
    """A generator that swallows it and yields once more does not wait for a client that has gone."""
    stuck, gone = anyio.Event(), anyio.Event()
    sent = 0

    class Stubborn(Noting):
        cleanup_timeout = 100.0
        pause = 0.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                yield "once more"

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 2:
            stuck.set()
        if sent > 2:
            await anyio.sleep_forever()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def visit() -> None:
        scope = scope_of()
        await Stubborn(scope, receive, send)

    started = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit)
        await stuck.wait()
        await anyio.sleep(1)
        gone.set()
    assert sent == 2
    assert anyio.current_time() - started < 50


class Held(Noting):
    """Sends for ten seconds, however fast its client reads."""

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "first"
        with anyio.move_on_after(10):
            while True:
                yield "x" * 100_000
        yield "the rest"


class Strict(Noting):
    """Has failed if it is not done in ten seconds."""

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "first"
        with anyio.fail_after(10):
            while True:
                yield "x" * 100_000


@pytest.mark.parametrize(
    ("endpoint", "last", "reason"),
    [(Held, "message", CloseReason.FINISHED), (Strict, "stream-error", CloseReason.ERROR)],
)
async def test_a_timeout_that_is_held_open_across_a_yield_passes_while_a_client_stalls(
    endpoint: type[Noting], last: str, reason: CloseReason
) -> None:
    """It is raised at the ``yield``: the code behind its block runs, and its error is told, as if the client read."""
    endpoint.notes.clear()
    async with serve(endpoint) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.stall()
        await anyio.sleep(20)
        stream.resume()
        while not (event := await stream.next_event()).data.startswith(("the rest", "{")):
            assert event.data == "x" * 100_000
        assert event.event == last
        assert await stream.closed() is Ending.FINISHED
    assert endpoint.notes == ["connected", reason]


async def test_a_stream_that_waits_does_not_hold_a_delivery_that_was_broken_off() -> None:
    """The timeout that has done it brings a traceback, which reaches into the server's ``send``."""

    class Buffer:
        """Can be watched."""

    buffers: list[weakref.ref[Buffer]] = []
    bodies, gone = [], anyio.Event()

    class Moving(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            with anyio.move_on_after(10):
                yield "never taken"
            yield "the rest"
            await anyio.sleep_forever()

    async def send(message: Any) -> None:
        if b"never taken" in message.get("body", b""):
            buffer = Buffer()
            buffers.append(weakref.ref(buffer))
            await anyio.sleep_forever()
        bodies.append(message.get("body"))

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def visit() -> None:
        scope = scope_of()
        await Moving(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit)
        await anyio.sleep(20)
        gc.collect()
        held = [ref() for ref in buffers]
        gone.set()
    assert bodies[1:2] == [b"data: the rest\r\n\r\n"]
    assert held == [None]


async def test_a_generator_whose_closing_is_cut_may_still_end_before_on_disconnect() -> None:
    """It has another second for what it does when it is cut."""

    class Slow(Noting):
        pause = 0.0
        cleanup_timeout = 2.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(2.5)
                self.notes.append("cleaned up")

    async with serve(Slow) as client, client.stream("/") as stream:
        await stream.expect("first")
    assert Slow.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE]
