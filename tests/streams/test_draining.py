"""Ending streams at shutdown: policies, domains, and the handler that is chained over a server's."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import threading
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

import starlette_sse
from starlette_sse import Broker, ChannelEndpoint, CloseReason, ServerSentEvent, SSEEndpoint
from starlette_sse.decoding import EventDecoder
from starlette_sse.draining import STATE_KEY, Domain, _process, domain_of, streams_by_loop
from starlette_sse.eventloop import EventLoop, current_event_loop
from starlette_sse.eventloop.signals import ChainedHandler, SignalChain
from starlette_sse.testing import Ending, SSETestClient
from tests.streams.apps import Noting, serve
from tests.visits import Visit, scope_of
from tests.waiting import kept_out


@contextmanager
def handling(signum: int) -> Iterator[list[int]]:
    """A server's own handler of a signal, in place; the list has the signals that reached it."""
    caught: list[int] = []
    before = signal.signal(signum, lambda signum, frame: caught.append(signum))
    try:
        yield caught
    finally:
        signal.signal(signum, before)


@pytest.fixture
def server_handler() -> Iterator[list[int]]:
    """A server's own SIGTERM handler, in place; the list has the signals that reached it."""
    with handling(signal.SIGTERM) as caught:
        yield caught


class Endless(Noting):
    pause = 0.0


async def open_stream(scope: dict[str, Any]) -> None:
    """Serve one stream with a client that stays."""

    async def send(message: Any) -> None: ...

    await Endless(scope_of(**scope), anyio.sleep_forever, send)  # type: ignore[arg-type]


async def let_in() -> asyncio.Task[None]:
    """Return the task of a stream that was let in."""
    Endless.notes.clear()
    task = asyncio.create_task(open_stream({}))
    while "connected" not in Endless.notes:
        await asyncio.sleep(0)
    return task


async def noted(what: str) -> None:
    """Wait until a stream has noted it."""
    with anyio.fail_after(60):
        while what not in Endless.notes:
            await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_a_farewell_bids_nobody_wait_for_longer_than_a_browser_takes() -> None:
    """Though the stream's own time is as long as that."""

    class Patient(Noting):
        retry = 2**31 - 1

    async with serve(Patient) as client, client.stream("/") as stream:
        await stream.expect("first")
        starlette_sse.drain()
        await stream.closed()
        assert stream.comments[-1].text == "draining"
        assert stream.retry == 2**31 - 1


@pytest.mark.anyio
async def test_the_farewell_is_the_last_event() -> None:
    """``on_drain`` may send any event."""

    class Polite(Noting):
        async def on_drain(self, request: Request) -> ServerSentEvent:
            return ServerSentEvent("bye", event="farewell")

    async with serve(Polite) as client, client.stream("/") as stream:
        await stream.expect("first")
        client.drain()
        await stream.expect({"event": "farewell", "data": "bye"})
        assert await stream.closed() is Ending.FINISHED


@pytest.mark.anyio
async def test_a_drained_fleet_comes_back_spread_out() -> None:
    """From its own ``retry`` on, over a second for every 200 streams that are open."""

    class Fleet(Noting):
        retry = 7000
        pause = 0.0

    visits = [Visit(Fleet) for _ in range(1000)]
    async with anyio.create_task_group() as tasks, starlette_sse.lifespan() as state:
        for visit in visits:
            visit.scope["state"] = state
            tasks.start_soon(visit.run)
        await anyio.sleep(1)
    seconds = Counter(retry_of(visit) // 1000 for visit in visits)
    assert seconds.keys() == {7, 8, 9, 10, 11}
    # Each should see 200 of them, give or take five standard deviations.
    assert max(seconds.values()) < 200 + 5 * math.sqrt(160)


def retry_of(visit: Visit) -> int:
    """Return the time to come back that a visit was told last, in milliseconds."""
    decoder = EventDecoder()
    decoder.feed(visit.body)
    assert decoder.retry is not None
    return decoder.retry


@pytest.mark.anyio
async def test_a_stream_may_finish_within_its_grace() -> None:
    """With ``drain_policy = "finish"`` events go on to the generator's end."""

    class Answer(Noting):
        drain_policy = "finish"
        drain_grace = 60.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            for number in range(5):
                yield str(number)
                await anyio.sleep(5)

    async with serve(Answer) as client, client.stream("/") as stream:
        await stream.expect("0")
        client.drain()
        await stream.expect("1", "2", "3", "4")
        assert await stream.closed() is Ending.FINISHED
    assert Answer.notes == ["connected", CloseReason.FINISHED]


@pytest.mark.anyio
async def test_a_stream_that_does_not_finish_is_drained_when_the_grace_is_over() -> None:
    """Nothing holds up a shutdown for ever."""

    class Long(Noting):
        drain_policy = "finish"
        drain_grace = 60.0

    async with serve(Long) as client, client.stream("/") as stream:
        await stream.expect("first")
        start = anyio.current_time()
        client.drain()
        assert await stream.closed() is Ending.FINISHED
        assert anyio.current_time() - start == pytest.approx(62)
        assert stream.comments[-1].text == "draining"
    assert Long.notes == ["connected", "cleaned up", CloseReason.DRAINING]


@pytest.mark.anyio
async def test_the_grace_begins_once_however_often_a_stream_is_drained() -> None:
    """By a signal, and at the end of the lifespan that follows on it."""

    class Long(Noting):
        drain_policy = "finish"
        drain_grace = 60.0
        pause = 0.0

    start = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        async with starlette_sse.lifespan():
            # The lifespan's state does not reach it.
            tasks.start_soon(Visit(Long).run)
            await anyio.sleep(10)
            starlette_sse.drain()
            await anyio.sleep(40)
        assert anyio.current_time() - start == pytest.approx(10 + 60)
    assert Long.notes == ["connected", "cleaned up", CloseReason.DRAINING]


@pytest.mark.anyio
@pytest.mark.parametrize("drained", [False, True])
async def test_nothing_is_kept_of_a_stream_that_has_ended(drained: bool) -> None:
    """No time limit of its runs on, also if it was drained when it was cleaning up already."""

    class Slow(Noting):
        pause = 3.0

    async def visit() -> weakref.ref[Visit]:
        domain, visit = Domain(), Visit(Slow)
        visit.scope["state"] = {STATE_KEY: domain}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit.run)
            await anyio.sleep(1)
            visit.left.set()
            await anyio.sleep(1)
            if drained:
                domain.drain()
        assert Slow.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE]
        return weakref.ref(visit)

    ended = await visit()
    gc.collect()
    assert ended() is None


@pytest.mark.anyio
async def test_a_stalled_client_holds_up_a_drain_for_the_grace_only() -> None:
    """The frame on its way is not cut before, and the generator still cleans up."""

    class Stalled(Noting):
        send_timeout = None

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                yield "second"
            finally:
                await anyio.sleep(1)
                self.notes.append("cleaned up")

    async with serve(Stalled) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.stall()
        await anyio.sleep(1)
        start = anyio.current_time()
        client.drain()
        assert await stream.closed() is Ending.CUT
        assert anyio.current_time() - start == pytest.approx(5 + 1 + 1)
    assert Stalled.notes == ["connected", "cleaned up", CloseReason.DRAINING]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["channel", "generator"])
@pytest.mark.parametrize(("drained_after", "ends_after"), [(10, 10 + 5), (28, 30)])
async def test_a_client_that_takes_no_event_holds_up_a_drain_no_longer_than_any_other(
    kind: str, drained_after: float, ends_after: float
) -> None:
    """For the grace, or up to the send's own timeout if that comes first."""
    snow = anyio.Event()

    class News(ChannelEndpoint):
        broker = Broker(observers=())
        channels = ("news",)
        observers = ()
        drain_grace = 5.0
        send_timeout: float | None = 30.0

    class Generated(Noting):
        pause = 0.0
        drain_grace = 5.0
        send_timeout: float | None = 30.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            await snow.wait()
            yield "snow"

    app = Starlette(routes=[Route("/", News if kind == "channel" else Generated)])
    async with SSETestClient(app) as client, client.stream("/") as stream:
        await stream.next_comment()
        stream.stall()
        await News.broker.publish("news", "snow")
        snow.set()
        start = anyio.current_time()
        await anyio.sleep(drained_after)
        client.drain()
        assert await stream.closed() is Ending.CUT
        assert anyio.current_time() - start == pytest.approx(ends_after)
        assert stream.close_reason is CloseReason.DRAINING


@pytest.mark.anyio
async def test_a_client_that_does_not_take_the_end_holds_up_a_drain_for_the_grace_only() -> None:
    """Else it may take as long for the last frame as for any other; and no longer for the drain."""

    class Ended(Noting):
        pause = 0.0
        send_timeout: float | None = 30.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            await anyio.sleep(1)

    for drained_after, ends_after in ((None, 30), (2, 2 + 5), (28, 30)):
        Ended.notes.clear()
        async with serve(Ended) as client, client.stream("/") as stream:
            await stream.expect("first")
            stream.stall()
            await anyio.sleep(1)
            start = anyio.current_time()
            if drained_after is not None:
                await anyio.sleep(drained_after)
                client.drain()
            assert await stream.closed() is Ending.CUT
            assert anyio.current_time() - start == pytest.approx(ends_after)
        assert Ended.notes == ["connected", CloseReason.FINISHED]


@pytest.mark.anyio
async def test_a_client_that_does_not_take_the_end_of_a_stream_that_may_finish_has_the_grace_for_it() -> None:
    """And not as long as before the drain."""

    class Finishing(Noting):
        pause = 0.0
        drain_policy = "finish"
        drain_grace = 5.0
        send_timeout: float | None = 30.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            await anyio.sleep(3)

    async with serve(Finishing) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.stall()
        start = anyio.current_time()
        client.drain()
        assert await stream.closed() is Ending.CUT
        assert anyio.current_time() - start == pytest.approx(3 + 5)
    assert Finishing.notes == ["connected", CloseReason.FINISHED]


@pytest.mark.anyio
async def test_a_stream_that_is_cancelled_in_a_drain_waits_for_the_others() -> None:
    """A server that shuts down by cancelling may drop all other requests when the first one has left."""
    domain = Domain()
    left: list[float] = []

    class Quick(Noting):
        pause = 1.0

    class Slow(Noting):
        pause = 8.0

    async def serve_one(kind: type[Noting], scope: anyio.CancelScope) -> None:
        visit = Visit(kind)
        visit.scope["state"] = {STATE_KEY: domain}
        with scope:
            await visit.run()
        left.append(anyio.current_time() - start)

    cancelled = [anyio.CancelScope(), anyio.CancelScope()]
    async with anyio.create_task_group() as tasks:
        start = anyio.current_time()
        for scope in cancelled:
            tasks.start_soon(serve_one, Quick, scope)
        tasks.start_soon(serve_one, Slow, anyio.CancelScope())
        await anyio.sleep(10)
        domain.drain()
        await anyio.sleep(0.5)
        # In the middle of their cleanup.
        for scope in cancelled:
            scope.cancel()
    assert left == [pytest.approx(10 + 2 * 8)] * 3
    assert all(scope.cancelled_caught for scope in cancelled)


@pytest.mark.anyio
@pytest.mark.parametrize("hook", ["authorize", "on_connect"])
async def test_a_request_that_is_cancelled_in_a_drain_before_its_stream_waits_for_those_that_are_open(
    hook: str,
) -> None:
    """Or it would be the first one to leave."""
    state = {STATE_KEY: Domain()}

    class Open(Noting):
        pause = 8.0

    async def sleep(self: SSEEndpoint, request: Request) -> None:
        await anyio.sleep_forever()

    visits = [Visit(Open), Visit(type("Late", (SSEEndpoint,), {hook: sleep, "events": Noting.events}))]
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as cancelled:
            for group, visit in zip((tasks, cancelled), visits, strict=True):
                visit.scope["state"] = state
                group.start_soon(visit.run)
            await anyio.sleep(10)
            start = anyio.current_time()
            state[STATE_KEY].drain()
            cancelled.cancel_scope.cancel()
        assert anyio.current_time() == pytest.approx(start + 2 * 8)
        assert Open.notes == ["connected", "cleaned up", CloseReason.DRAINING]


@pytest.mark.anyio
async def test_a_stream_that_is_about_to_open_when_the_drain_begins_says_farewell() -> None:
    """It was let in before, and is not left out."""
    state = {STATE_KEY: Domain()}

    class Slow(Noting):
        pause = 0.0

        async def on_connect(self, request: Request) -> None:
            await anyio.sleep(10)

    visit = Visit(Slow)
    visit.scope["state"] = state
    with anyio.fail_after(3600):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit.run)
            await anyio.sleep(5)
            state[STATE_KEY].drain()
    assert visit.status == 200
    assert b": draining" in visit.body
    assert Slow.notes == ["cleaned up", CloseReason.DRAINING]
    assert not len(state[STATE_KEY])


@pytest.mark.anyio
async def test_a_stream_that_comes_while_draining_is_refused() -> None:
    """A browser is told to come back, any other client gets 503."""

    class Waiting(Noting):
        drain_policy = "finish"
        drain_grace = 60.0

    async with serve(Waiting) as client, client.stream("/") as stream:
        await stream.expect("first")
        client.drain()
        async with client.stream("/") as late:
            assert (await late.next_event()).event == "stream-rejected"
            assert await late.closed() is Ending.FINISHED
        response = await client.request("GET", "/")
        assert response.status_code == 503
        assert 5 <= int(response.headers["retry-after"]) <= 15
        assert stream.is_open


@pytest.mark.anyio
async def test_the_end_of_the_lifespan_waits_for_cleanup() -> None:
    """The streams' cleanup is done when the app's other resources are closed."""
    Endless.notes.clear()
    async with anyio.create_task_group() as tasks:
        async with starlette_sse.lifespan() as state:
            tasks.start_soon(open_stream, {"state": state})
            await noted("connected")
            Endless.pause = 3.0
        assert Endless.notes == ["connected", "cleaned up", CloseReason.DRAINING]
        Endless.pause = 0.0


@pytest.mark.anyio
async def test_streams_that_the_end_of_the_lifespan_waits_for_can_still_be_found() -> None:
    """Who may read no more is cut off also while the server shuts down."""

    class Slow(Noting):
        pause = 3.0

    async def look() -> None:
        await anyio.sleep(2)
        found.append([loop for loop, _ in streams_by_loop()])

    found: list[list[EventLoop]] = []
    visit = Visit(Slow)
    async with anyio.create_task_group() as tasks, starlette_sse.lifespan() as state:
        visit.scope["state"] = state
        tasks.start_soon(visit.run)
        tasks.start_soon(look)
        await anyio.sleep(1)
    assert found == [[current_event_loop()]]


def test_streams_may_leave_while_somebody_goes_through_them() -> None:
    """In another thread, or because of what is done to each."""

    class Quick:
        longest_end = 0.0

        def drain(self) -> None:
            domain.leave(self)

    domain = Domain()
    for _ in range(3):
        domain.join(Quick())
    domain.dismiss()
    assert len(domain) == 0


@pytest.mark.anyio
async def test_the_end_of_the_lifespan_does_not_wait_for_ever() -> None:
    """A stream whose cleanup cannot be cut is waited for no longer than its own limits allow."""

    class Stubborn(Endless):
        drain_grace = 3.0
        cleanup_timeout = 4.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(3600)

    visit = Visit(Stubborn)
    async with anyio.create_task_group() as tasks:
        async with starlette_sse.lifespan() as state:
            visit.scope["state"] = state
            tasks.start_soon(visit.run)
            await anyio.sleep(1)
            start = anyio.current_time()
        waited = anyio.current_time() - start
    assert 3.0 + 4.0 < waited < 60
    assert anyio.current_time() - start == pytest.approx(3600)


@pytest.mark.anyio
async def test_the_end_of_the_lifespan_waits_for_a_stream_that_takes_all_its_time() -> None:
    """One that may finish and does not, whose client does not take the end, and whose cleanup uses its limits up."""

    class Slowest(Noting):
        drain_policy = "finish"
        drain_grace = 30.0
        cleanup_timeout = 20.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                # It begins with the last frame, whose time is not counted.
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(30.0 + 20.9)
                self.notes.append("cleaned up")

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            await anyio.sleep(19.9)
            self.notes.append(reason)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message["more_body"]:
            await anyio.sleep_forever()

    visit = Visit(Slowest)
    visit._send = send  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        async with starlette_sse.lifespan() as state:
            visit.scope["state"] = state
            tasks.start_soon(visit.run)
            await anyio.sleep(1)
        assert Slowest.notes == ["connected", "cleaned up", CloseReason.DRAINING]


@pytest.mark.anyio
async def test_the_end_of_the_lifespan_waits_for_the_stream_that_takes_longest() -> None:
    """Each is given what its own limits allow."""

    class Quick(Endless):
        cleanup_timeout = 1.0

    class Slow(Endless):
        cleanup_timeout = 100.0
        pause = 50.0

    visits = [Visit(Quick), Visit(Slow)]
    async with anyio.create_task_group() as tasks:
        async with starlette_sse.lifespan() as state:
            for visit in visits:
                visit.scope["state"] = state
                tasks.start_soon(visit.run)
            await anyio.sleep(1)
        assert Slow.notes == ["connected", "cleaned up", CloseReason.DRAINING]


@pytest.mark.anyio
async def test_the_end_of_a_lifespan_that_is_cancelled_waits_for_cleanup_too() -> None:
    """Some servers stop an app that way."""

    class Slow(Noting):
        pause = 3.0

    visit = Visit(Slow)
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with starlette_sse.lifespan() as state:
                visit.scope["state"] = state
                tasks.start_soon(visit.run)
                await anyio.sleep(1)
                scope.cancel()
                await anyio.sleep(1)
        assert Slow.notes == ["connected", "cleaned up", CloseReason.DRAINING]


@pytest.mark.anyio
async def test_the_end_of_the_lifespan_drains_streams_that_do_not_know_it() -> None:
    """A mounted app may have a state of its own; and one lifespan may follow on another."""

    class Mounted(Noting):
        pause = 3.0

    for _ in range(2):
        Mounted.notes.clear()
        async with anyio.create_task_group() as tasks:
            async with starlette_sse.lifespan():
                tasks.start_soon(Visit(Mounted).run)
                await anyio.sleep(1)
            assert Mounted.notes == ["connected", "cleaned up", CloseReason.DRAINING]


@pytest.mark.anyio
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_shutdown_signal_drains_and_reaches_the_server(signum: signal.Signals) -> None:
    """The handler that was there before does its work too, and is back in its place afterwards."""
    Endless.notes.clear()
    with handling(signum) as caught:
        original = signal.getsignal(signum)
        async with anyio.create_task_group() as tasks, starlette_sse.lifespan() as state:
            tasks.start_soon(open_stream, {"state": state})
            await noted("connected")
            assert isinstance(signal.getsignal(signum), ChainedHandler)
            signal.raise_signal(signum)
            await noted(CloseReason.DRAINING)
        assert caught == [signum]
        assert signal.getsignal(signum) is original


@pytest.mark.anyio
async def test_a_signal_drains_although_the_servers_own_handler_raises(server_handler: list[int]) -> None:
    """As one does that ends its server by an exception."""

    def leave(signum: int, frame: object) -> None:
        raise SystemExit

    Endless.notes.clear()
    signal.signal(signal.SIGTERM, leave)
    async with anyio.create_task_group() as tasks, starlette_sse.lifespan() as state:
        tasks.start_soon(open_stream, {"state": state})
        await noted("connected")
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        await noted(CloseReason.DRAINING)


def test_an_interrupt_on_trio_tears_no_stream_apart() -> None:
    """Its own handler looks at what it interrupts, and raises KeyboardInterrupt where the main task waits."""
    notes: list[str] = []

    async def interrupted() -> None:
        async with starlette_sse.lifespan():
            assert isinstance(signal.getsignal(signal.SIGINT), ChainedHandler)
            signal.raise_signal(signal.SIGINT)
            notes.append("went on")
            await anyio.sleep_forever()

    # Else trio puts no handler in place.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    assert notes == ["went on"]


@pytest.mark.anyio
async def test_a_second_servers_handler_is_chained_as_well(server_handler: list[int]) -> None:
    """Each chain calls the handler that it was put over, whoever restores it."""
    second: list[int] = []
    async with starlette_sse.lifespan():
        first_chain = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda signum, frame: second.append(signum))
        domain_of({})
        second_chain = signal.getsignal(signal.SIGTERM)
        assert isinstance(second_chain, ChainedHandler)
        signal.raise_signal(signal.SIGTERM)
        assert (server_handler, second) == ([], [signal.SIGTERM])
        # As uvicorn does when the second server has ended: what was there before comes back, and is told.
        signal.signal(signal.SIGTERM, first_chain)
        signal.raise_signal(signal.SIGTERM)
        assert (server_handler, second) == ([signal.SIGTERM], [signal.SIGTERM])


@pytest.mark.anyio
async def test_a_stream_that_ends_leaves_the_handler_to_others(server_handler: list[int]) -> None:
    """A lifespan needs it for as long as it lasts, whoever comes and goes beside it."""

    class Other(Noting):
        pause = 0.0

    Endless.notes.clear()
    async with anyio.create_task_group() as tasks, starlette_sse.lifespan() as state:
        tasks.start_soon(open_stream, {"state": state})
        await noted("connected")
        # Such as that of a mounted app, which the lifespan does not reach.
        visit = Visit(Other)
        visit.left.set()
        await visit.run()
        signal.raise_signal(signal.SIGTERM)
        await noted(CloseReason.DRAINING)
    assert server_handler == [signal.SIGTERM]


@pytest.mark.anyio
@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
async def test_a_handler_that_is_not_a_servers_is_left_alone(handler: Any, server_handler: list[int]) -> None:
    """Over the default one, SIGTERM would no longer kill."""
    signal.signal(signal.SIGTERM, handler)
    async with starlette_sse.lifespan():
        assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.anyio
async def test_a_loop_that_has_ended_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in a thread may have gone with its loop, and its streams are still known when the signal comes."""
    Endless.notes.clear()

    def ended(self: object, callback: object) -> None:
        raise RuntimeError("the event loop has ended")

    async with anyio.create_task_group() as tasks, starlette_sse.lifespan() as state:
        tasks.start_soon(open_stream, {"state": state})
        await noted("connected")
        with monkeypatch.context() as patch:
            patch.setattr(type(current_event_loop()), "call_soon_threadsafe", ended)
            starlette_sse.drain()
        await anyio.sleep(1)
        assert Endless.notes == ["connected"]


def test_a_loop_that_was_closed_keeps_no_drain_from_the_others() -> None:
    """Whichever began first."""

    async def enter() -> tuple[Any, Domain]:
        entered = starlette_sse.lifespan()
        return entered, (await entered.__aenter__())[STATE_KEY]

    closed, living = asyncio.new_event_loop(), asyncio.new_event_loop()
    left = closed.run_until_complete(enter())
    entered, domain = living.run_until_complete(enter())
    closed.close()
    starlette_sse.drain()
    living.run_until_complete(asyncio.sleep(0))
    assert domain.draining
    assert not left[1].draining
    living.run_until_complete(entered.__aexit__(None, None, None))
    living.close()


@pytest.mark.anyio
async def test_drain_may_be_called_from_another_thread() -> None:
    """It wakes each event loop."""
    Endless.notes.clear()
    async with anyio.create_task_group() as tasks, starlette_sse.lifespan() as state:
        tasks.start_soon(open_stream, {"state": state})
        await noted("connected")
        thread = threading.Thread(target=starlette_sse.drain)
        thread.start()
        thread.join()
        await noted(CloseReason.DRAINING)


def test_a_loop_after_a_drained_one_is_not_drained() -> None:
    """State is per run of a loop, nothing is latched in the process."""

    async def drained() -> None:
        task = await let_in()
        starlette_sse.drain()
        await task
        assert Endless.notes[-1] is CloseReason.DRAINING
        assert domain_of({}).draining

    async def fresh() -> None:
        assert not domain_of({}).draining

    asyncio.run(drained())
    asyncio.run(fresh())


def test_a_server_after_a_drained_one_in_the_same_loop_is_not_drained(server_handler: list[int]) -> None:
    """Another signal handler in place means another server."""

    async def both() -> None:
        task = await let_in()
        starlette_sse.drain()
        await task
        assert domain_of({}).draining
        signal.signal(signal.SIGTERM, second)
        assert not domain_of({}).draining
        Endless.notes.clear()
        visit = Visit(Endless)
        visit.left.set()
        await visit.run()
        # The first server's streams do not hold on to the second's signals.
        assert signal.getsignal(signal.SIGTERM) is second

    def second(signum: int, frame: object) -> None: ...

    asyncio.run(both())


def test_a_server_whose_streams_still_end_has_not_gone(server_handler: list[int]) -> None:
    """Whoever puts another signal handler in place meanwhile, it lets nobody in."""

    async def drained() -> None:
        task = await let_in()
        starlette_sse.drain()
        while not domain_of({}).draining:
            await asyncio.sleep(0)
        signal.signal(signal.SIGTERM, lambda signum, frame: None)
        assert domain_of({}).draining
        await task
        assert not domain_of({}).draining

    asyncio.run(drained())


def test_a_stream_that_was_let_in_before_the_drain_does_not_keep_a_server_that_has_gone(
    server_handler: list[int],
) -> None:
    """It says farewell after the others, when the next server's handler is in place already."""

    class Late:
        longest_end = 0.0

        def drain(self) -> None:
            drained.append(self)

    async def both() -> None:
        Endless.notes.clear()
        domain, late = domain_of({}), Late()
        task = asyncio.create_task(open_stream({}))
        while "connected" not in Endless.notes:
            await asyncio.sleep(0)
        starlette_sse.drain()
        await task
        signal.signal(signal.SIGTERM, lambda signum, frame: None)
        domain.join(late)
        assert drained == [late]
        domain.leave(late)
        assert not domain_of({}).draining

    drained: list[Late] = []
    asyncio.run(both())


def test_one_thread_at_a_time_tells_what_there_is_to_drain(
    server_handler: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two servers that start or stop at once, no signal would reach one, or its handler would stay for ever."""
    waits: list[tuple[str, bool]] = []

    for name in ("install", "uninstall"):
        method = getattr(SignalChain, name)

        def asked(chain: SignalChain, method: Any = method, name: str = name) -> None:
            waits.append((name, kept_out(_process._lock)))
            method(chain)

        monkeypatch.setattr(SignalChain, name, asked)

    async def serve_and_stop() -> None:
        async with starlette_sse.lifespan():
            signal.signal(signal.SIGTERM, lambda signum, frame: None)
            domain_of({})

    asyncio.run(serve_and_stop())
    assert waits == [("install", True), ("install", True), ("uninstall", True)]


def test_a_stream_may_end_while_its_process_takes_note_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a garbage collection in between, which must not wait for itself."""

    class Entry:
        longest_end = 0.0

        def drain(self) -> None: ...

    async def visits() -> None:
        domain, entry = domain_of({}), Entry()
        domain.join(entry)
        with monkeypatch.context() as patch:
            patch.setattr(SignalChain, "install", lambda chain: domain.leave(entry))
            async with starlette_sse.lifespan():
                left.append(len(domain))

    left: list[int] = []
    thread = threading.Thread(target=asyncio.run, args=(visits(),), daemon=True)
    thread.start()
    thread.join(20)
    assert left == [0]


def test_a_domain_is_found_in_the_state() -> None:
    """Anything else under the key is ignored."""

    async def look() -> None:
        domain = Domain()
        assert domain_of({"state": {STATE_KEY: domain}}) is domain
        assert domain_of({"state": {STATE_KEY: "mine"}}) is not domain
        assert domain_of({"state": None}) is domain_of({})

    asyncio.run(look())


def test_a_drain_refuses_new_streams_although_the_handler_was_taken_off_in_between(server_handler: list[int]) -> None:
    """While no stream was open; that it is put on again does not mean another server."""

    async def visits() -> None:
        for stays in (False, True):
            Endless.notes.clear()
            task = asyncio.create_task(open_stream({}))
            while "connected" not in Endless.notes:
                await asyncio.sleep(0)
            if stays:
                starlette_sse.drain()
            else:
                task.cancel()
            await asyncio.wait([task])
        assert domain_of({}).draining

    asyncio.run(visits())


def test_loops_that_have_ended_are_let_go() -> None:
    """Of a process that runs one after the other, and drains each, as scripts and tests do."""

    async def run_and_drain() -> None:
        loops.add(current_event_loop())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_stream, {})
            await noted("connected")
            starlette_sse.drain()
            await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    loops: weakref.WeakSet[EventLoop] = weakref.WeakSet()
    for _ in range(5):
        Endless.notes.clear()
        asyncio.run(run_and_drain())
        gc.collect()
        assert len(loops) <= 1
