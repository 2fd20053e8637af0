"""What ``open_streams()`` tells of open streams, and whom ``close()`` ends."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

import starlette_sse
from starlette_sse import (
    Broker,
    ChannelEndpoint,
    CloseReason,
    ConfigurationError,
    EventSourceResponse,
    ServerSentEvent,
    SSEEndpoint,
)
from starlette_sse.broker.memory import MemoryBackend
from starlette_sse.eventloop import current_event_loop
from starlette_sse.registry import visitors
from starlette_sse.testing import Ending, SSETestClient, StreamEndedError
from tests.visits import Visit

pytestmark = pytest.mark.anyio


class Ticks(SSEEndpoint):
    """Notes why its streams ended."""

    observers = ()
    reasons: list[CloseReason]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.reasons = []

    def client_key(self, request: Request) -> str:
        return request.query_params.get("user", "nobody")

    async def events(self, request: Request) -> AsyncIterator[Any]:
        for number in range(3):
            yield number
        await anyio.sleep_forever()

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        self.reasons.append(reason)


def serve(*endpoints: type[SSEEndpoint]) -> SSETestClient:
    """Return a client of an app with each endpoint at its name in lower case."""
    return SSETestClient(app_of(*(Route(f"/{each.__name__.lower()}", each) for each in endpoints)), timeout=3600)


def app_of(*routes: Route) -> Starlette:
    return Starlette(routes=list(routes), lifespan=starlette_sse.lifespan)


async def test_an_open_stream_is_listed_with_what_it_has_sent() -> None:
    """Its names, its client, since when, and how much."""

    class News(Ticks):
        pass

    async with serve(News) as client:
        assert starlette_sse.open_streams() == []
        async with client.stream("/news?user=ann&token=secret") as stream:
            await stream.expect("0", "1", "2")
            await anyio.sleep(0.01)
            (listed,) = starlette_sse.open_streams()
            assert listed.endpoint == News.__qualname__
            assert listed.path == "/news"
            assert listed.client_key == "ann"
            assert len(listed.connection_id) == 16
            assert abs(listed.since - datetime.now(UTC)) < timedelta(seconds=10)
            assert (listed.events, listed.bytes_sent) == (3, len(stream.body))
            assert (listed.lag, listed.reason) == (0.0, None)
            assert "secret" not in repr(listed)
        assert starlette_sse.open_streams() == []


async def test_a_listing_can_be_sent_as_it_is() -> None:
    """An admin page is one line."""

    class News(Ticks):
        pass

    async with serve(News) as client, client.stream("/news") as stream:
        await stream.expect("0")
        data = ServerSentEvent(starlette_sse.open_streams()).data
        assert data is not None
        assert '"endpoint":"' in data
        await stream.expect("1", "2")


async def test_the_oldest_stream_is_listed_first() -> None:
    """Whatever order they are kept in."""

    class News(Ticks):
        pass

    left = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(Visit(News, path=f"/{number}", left=left).run)
            await anyio.sleep(0.01)
            # The order is of real time.
            time.sleep(0.0001)
        assert [stream.path for stream in starlette_sse.open_streams()] == [f"/{number}" for number in range(50)]
        left.set()


async def test_the_lag_is_how_long_the_client_has_not_read() -> None:
    """It grows while the client stalls, and is nothing again when it reads."""

    class News(Ticks):
        send_timeout = None

    # The loop's clock tells another time than how long ago something was.
    await anyio.sleep(1000.0)
    async with serve(News) as client, client.stream("/news") as stream:
        await stream.expect("0")
        await anyio.sleep(42.0)
        assert starlette_sse.open_streams()[0].lag == pytest.approx(42.0)
        await stream.expect("1", "2")
        await anyio.sleep(0.1)
        assert starlette_sse.open_streams()[0].lag == 0.0


async def test_the_streams_of_responses_are_listed_too() -> None:
    """By the name of the function that returned the response."""

    async def ticks() -> AsyncIterator[str]:
        yield "tick"
        await anyio.sleep_forever()

    async def clock(request: Request) -> EventSourceResponse:
        return EventSourceResponse(ticks())

    async with SSETestClient(app_of(Route("/clock", clock))) as client, client.stream("/clock") as stream:
        await stream.expect("tick")
        await anyio.sleep(0.1)
        (listed,) = starlette_sse.open_streams()
        assert listed.endpoint.endswith("clock")
        assert (listed.path, listed.client_key, listed.events) == ("/clock", None, 1)
        assert starlette_sse.close(endpoint=SSEEndpoint) == 0
        assert starlette_sse.close() == 1
        with pytest.raises(StreamEndedError):
            await stream.next_event()


async def test_a_stream_that_cleans_up_is_listed_with_its_reason() -> None:
    """So that what hangs after its end can be found."""

    class News(Ticks):
        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            await anyio.sleep(5.0)

    visit = Visit(News)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit.run)
        await anyio.sleep(1.0)
        visit.left.set()
        await anyio.sleep(1.0)
        assert [stream.reason for stream in starlette_sse.open_streams()] == [CloseReason.CLIENT_GONE]
        assert starlette_sse.close() == 0
    assert starlette_sse.open_streams() == []


async def test_nothing_of_a_stream_is_kept_after_its_end() -> None:
    """Neither listing nor closing holds on to an endpoint."""
    endpoints = []

    class News(Ticks):
        async def on_connect(self, request: Request) -> None:
            endpoints.append(weakref.ref(self))

    for close in (False, True):
        visit = Visit(News)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit.run)
            await anyio.sleep(1.0)
            listed = starlette_sse.open_streams()
            if close:
                starlette_sse.close()
            visit.left.set()
        del visit
        await anyio.sleep(1.0)
        gc.collect()
        assert len(listed) == 1
        assert [ref() for ref in endpoints] == [None] * len(endpoints)


async def test_close_ends_the_streams_of_one_client() -> None:
    """Cleanly, with reason ``closed``; the others go on."""

    class News(Ticks):
        pass

    async with serve(News) as client:
        async with client.stream("/news?user=ann") as ann, client.stream("/news?user=bob") as bob:
            await ann.expect("0", "1", "2")
            assert starlette_sse.close(client_key="ann") == 1
            assert await ann.closed() is Ending.FINISHED
            assert starlette_sse.close(client_key="ann") == 0
            await bob.expect("0", "1", "2")
        assert News.reasons == [CloseReason.CLOSED, CloseReason.CLIENT_GONE]


async def test_close_ends_the_streams_of_a_class_and_its_subclasses() -> None:
    """Channel endpoints among them."""

    class Shared(ChannelEndpoint):
        broker = Broker()
        observers = ()

        async def channels(self, request: Request) -> str:
            return "news"

    class Special(Shared):
        pass

    class News(Ticks):
        pass

    async with serve(Shared, Special, News) as client:
        async with client.stream("/shared") as one, client.stream("/special") as two, client.stream("/news") as three:
            await three.expect("0")
            assert starlette_sse.close(endpoint=Shared) == 2
            assert await one.closed() is Ending.FINISHED
            assert await two.closed() is Ending.FINISHED
            await three.expect("1", "2")
            assert starlette_sse.close(endpoint=News, client_key="somebody else") == 0
            assert starlette_sse.close(endpoint=News, client_key="nobody") == 1
            assert await three.closed() is Ending.FINISHED


async def test_close_ends_the_one_stream_that_is_named() -> None:
    """By the id that the listing and the log have."""

    class News(Ticks):
        pass

    left = anyio.Event()
    visits = [Visit(News, path=f"/{number}", left=left) for number in range(5)]
    async with anyio.create_task_group() as tasks:
        for visit in visits:
            tasks.start_soon(visit.run)
        await anyio.sleep(1.0)
        chosen = starlette_sse.open_streams()[2]
        assert starlette_sse.close(connection_id=chosen.connection_id) == 1
        await anyio.sleep(1.0)
        assert News.reasons == [CloseReason.CLOSED]
        assert chosen.path not in {stream.path for stream in starlette_sse.open_streams()}
        left.set()


async def test_close_ends_all_streams_of_the_process_from_any_thread() -> None:
    """And tells how many."""

    class News(Ticks):
        pass

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(Visit(News).run)
        await anyio.sleep(1.0)
        assert len(await anyio.to_thread.run_sync(starlette_sse.open_streams)) == 200
        assert await anyio.to_thread.run_sync(starlette_sse.close) == 200
    assert News.reasons == [CloseReason.CLOSED] * 200


class Answering(Ticks):
    """Whose requests wait in ``on_connect``; a page may ask for something else than a stream."""

    let_in: anyio.Event

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.let_in = anyio.Event()

    async def on_connect(self, request: Request) -> Response | None:
        await self.let_in.wait()
        return Response("page") if "page" in request.url.path else None


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_request_that_is_still_being_answered_ends_as_soon_as_it_is_open(threaded: bool) -> None:
    """Its ``authorize`` may have been asked before the right was taken."""

    class News(Answering):
        pass

    meant, other = Visit(News), Visit(News)
    meant.scope["query_string"] = b"user=ann"
    async with anyio.create_task_group() as tasks:
        for visit in (meant, other):
            tasks.start_soon(visit.run)
        await anyio.sleep(1.0)
        assert starlette_sse.open_streams() == []
        close = partial(starlette_sse.close, client_key="ann", endpoint=Answering)
        assert (await anyio.to_thread.run_sync(close) if threaded else close()) == 1
        await anyio.sleep(1.0)
        assert close() == 0, "it was asked before"
        News.let_in.set()
        await anyio.sleep(1.0)
        assert News.reasons == [CloseReason.CLOSED]
        assert (meant.status, meant.body) == (200, b": open\r\n\r\n")
        other.left.set()
    assert News.reasons == [CloseReason.CLOSED, CloseReason.CLIENT_GONE]
    assert visitors == set()


async def test_a_request_that_waits_for_its_broker_ends_as_soon_as_it_is_open() -> None:
    """As one that its ``on_connect`` holds up."""
    subscribed = anyio.Event()

    class Slow(MemoryBackend):
        async def listen(self, channels: Sequence[str]) -> None:
            await subscribed.wait()
            await super().listen(channels)

    class News(ChannelEndpoint):
        broker = Broker(Slow(), observers=())
        channels = "news"
        observers = ()

    visit = Visit(News)
    async with News.broker, anyio.create_task_group() as tasks:
        tasks.start_soon(visit.run)
        await anyio.sleep(1.0)
        assert starlette_sse.open_streams() == []
        assert starlette_sse.close(endpoint=News) == 1
        subscribed.set()
    assert visit.status == 200


async def test_a_request_that_gets_something_else_is_left_alone() -> None:
    """What ``on_connect`` answers is no stream, however long it takes, and does not count as one."""

    class News(Answering):
        pass

    class Stalled(Visit):
        async def _send(self, message: Message) -> None:
            await sent.wait()
            await super()._send(message)

    visit, sent = Stalled(News, path="/page"), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit.run)
        await anyio.sleep(1.0)
        News.let_in.set()
        await anyio.sleep(1.0)
        assert starlette_sse.close() == 0
        sent.set()
    assert (visit.status, visit.body) == (200, b"page")


async def test_a_request_that_is_refused_does_not_count() -> None:
    """However long its client takes to hear it."""

    class News(Ticks):
        max_connections = 1

    class Stalled(Visit):
        async def _send(self, message: Message) -> None:
            await sent.wait()
            await super()._send(message)

    visit, refused, sent = Visit(News), Stalled(News), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit.run)
        await anyio.sleep(1.0)
        tasks.start_soon(refused.run)
        await anyio.sleep(1.0)
        assert starlette_sse.close() == 1
        sent.set()
    assert (visit.status, refused.status) == (200, 503)


async def test_a_stream_that_waits_for_its_client_can_be_closed() -> None:
    """A client that reads nothing does not keep its stream: it gets ``drain_grace``, and then it is given up."""

    class News(Ticks):
        send_timeout = None

    async with serve(News) as client:
        stream = await client.stream("/news")
        await stream.expect("0")
        assert starlette_sse.close() == 1
        await anyio.sleep(News.drain_grace + 1.0)
        assert starlette_sse.open_streams() == []
        await stream.aclose()
    assert News.reasons == [CloseReason.CLOSED]


@pytest.mark.parametrize(
    "criteria",
    [{"client_key": None}, {"client_key": 7}, {"connection_id": None}, {"endpoint": None}, {"endpoint": "News"}],
)
async def test_a_criterion_that_cannot_be_meant_closes_nothing(criteria: dict[str, Any]) -> None:
    """A user who is not logged in has no key; that must not close everybody's streams."""

    class News(Ticks):
        pass

    visit = Visit(News)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit.run)
        await anyio.sleep(1.0)
        with pytest.raises(ConfigurationError):
            starlette_sse.close(**criteria)
        visit.left.set()
    assert News.reasons == [CloseReason.CLIENT_GONE]


async def test_a_loop_that_has_ended_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in a thread may have gone with its loop; its streams are not counted as asked."""

    class News(Ticks):
        pass

    def ended(self: object, callback: object) -> None:
        raise RuntimeError("the event loop has ended")

    visit = Visit(News)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit.run)
        await anyio.sleep(1.0)
        with monkeypatch.context() as patch:
            patch.setattr(type(current_event_loop()), "call_soon_threadsafe", ended)
            assert starlette_sse.close() == 0
        assert visitors == set(), "nobody leaves there any more"
        visit.left.set()
    assert News.reasons == [CloseReason.CLIENT_GONE]
