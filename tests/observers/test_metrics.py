"""What the metrics of streams and brokers show, of each library the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from starlette_sse import Broker, ChannelEndpoint, CloseReason, EventSourceResponse, SSEEndpoint, lifespan
from starlette_sse.broker.log import Log
from starlette_sse.broker.memory import MemoryBackend
from starlette_sse.exceptions import BrokerUnavailableError, SlowReaderError
from starlette_sse.observers import Observer, StreamIdentity
from starlette_sse.streams import Stream
from starlette_sse.testing import SSETestClient
from tests.observers.sinks import NAMES, Sink

pytestmark = pytest.mark.anyio

Endpoint = TypeVar("Endpoint", bound=SSEEndpoint)

HOUR = 3600.0


class Hourly(SSEEndpoint):
    ping_interval: float | None = None

    async def events(self, request: Request) -> AsyncIterator[Any]:
        for hour in range(int(request.query_params.get("hours", 48))):
            yield {"data": {"hour": hour}, "event": "tick"}
            await anyio.sleep(HOUR)


class Other(Hourly): ...


class Pinged(Hourly):
    ping_interval = 20.0


class Full(Hourly):
    max_connections = 1


class Faulty(Hourly):
    async def events(self, request: Request) -> AsyncIterator[Any]:
        if "early" in request.query_params:
            raise RuntimeError("before the first byte")
        yield "first"
        raise RuntimeError("after it")

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        if "late" in request.query_params:
            raise RuntimeError("in the cleanup")


def watched(endpoint: type[Endpoint], observer: Observer, **attributes: Any) -> type[Endpoint]:
    """Return the endpoint as it is, with one observer."""
    return type(endpoint.__name__, (endpoint,), {"observers": (observer,), **attributes})


def serve(*endpoints: type[SSEEndpoint]) -> SSETestClient:
    """Return a client of an app with each endpoint at its name, patient enough for days of virtual time."""
    routes = [Route(f"/{endpoint.__name__.lower()}", endpoint) for endpoint in endpoints]
    return SSETestClient(Starlette(routes=routes, lifespan=lifespan), timeout=100 * HOUR, close_grace=600)


# Streams


async def test_streams_are_counted_by_endpoint_and_end(sink: Sink) -> None:
    """How many are open goes up and down, the others only up; an endpoint without streams is still shown."""
    endpoints = [watched(endpoint, sink.observer) for endpoint in (Hourly, Other)]
    async with serve(*endpoints) as client:
        assert sink.read()["open"] == {}
        async with client.stream("/hourly") as first, client.stream("/hourly?hours=1") as second:
            async with client.stream("/other") as third:
                for stream in (first, second, third):
                    await stream.next_event()
                    await stream.expect_silence(1)
                shown = sink.read()
                assert shown["open"] == shown["opened"] == {("Hourly",): 2, ("Other",): 1}
                assert shown["ended"] == shown["duration"] == {}
                await second.closed()
                third.disconnect()
                await third.closed()
            shown = sink.read()
            assert shown["open"] == {("Hourly",): 1, ("Other",): 0}
            assert shown["opened"] == {("Hourly",): 2, ("Other",): 1}
            assert shown["ended"] == {("Hourly", "finished"): 1, ("Other", "client_gone"): 1}
            client.drain()
            await first.closed()
        shown = sink.read()
        assert shown["open"] == {("Hourly",): 0, ("Other",): 0}
        assert shown["ended"] == {("Hourly", "finished"): 1, ("Hourly", "draining"): 1, ("Other", "client_gone"): 1}


async def test_what_is_sent_grows_while_streams_are_open(sink: Sink) -> None:
    """Events and bytes of a stream count as they are sent, and stay when it has ended and another one begins."""
    totals: list[tuple[float, float]] = []

    def look(*streams: Any) -> None:
        shown = sink.read()
        events, size = shown["events"]["Hourly",], shown["bytes"]["Hourly",]
        assert events == sum(len(stream.events) for stream in streams)
        assert size == sum(len(stream.body) for stream in streams)
        totals.append((events, size))

    async with serve(watched(Hourly, sink.observer)) as client:
        async with client.stream("/hourly?hours=3") as first:
            for _ in range(3):
                await first.next_event()
                # What the client has may not be counted yet: the app's send has to return.
                await first.expect_silence(1)
                look(first)
            await first.closed()
            look(first)
        async with client.stream("/hourly?hours=2") as second:
            for _ in range(2):
                await second.next_event()
                await second.expect_silence(1)
                look(first, second)
            await second.closed()
        look(first, second)
    assert totals == sorted(totals)
    assert len(set(totals)) == 5


async def test_events_of_channels_are_counted_too(sink: Sink) -> None:
    """Those that a broker delivers, while the stream is open."""

    class News(ChannelEndpoint):
        broker = Broker(observers=())
        observers = (sink.observer,)

        async def channels(self, request: Request) -> list[str]:
            return ["news"]

    async with serve(News) as client, client.stream("/news") as stream:
        for count in range(1, 4):
            await News.broker.publish("news", "snow")
            await stream.next_event()
            await stream.expect_silence(1)
            shown = sink.read()
            ((endpoint, events),) = shown["events"].items()
            assert events == count
            assert shown["bytes"] == {endpoint: len(stream.body)}


async def test_streams_of_responses_are_counted(sink: Sink) -> None:
    """By the function that returned the response."""

    class Watched(EventSourceResponse):
        observers = (sink.observer,)

    async def numbers(request: Request) -> EventSourceResponse:
        return Watched(iter("123"))

    app = Starlette(routes=[Route("/numbers", numbers)])
    async with SSETestClient(app) as client, client.stream("/numbers") as stream:
        await stream.closed()
    ((labels, events),) = sink.read()["events"].items()
    assert labels[0].endswith("numbers")
    assert events == 3


async def test_pings_are_counted(sink: Sink) -> None:
    """Each of them, and none as an event."""
    async with serve(watched(Pinged, sink.observer)) as client, client.stream("/pinged") as stream:
        await stream.next_event()
        before = len(stream.comments)
        await stream.expect_silence(10 * 60)
        shown = sink.read()
        assert shown["pings"] == {("Pinged",): len(stream.comments) - before}
        assert shown["pings"]["Pinged",] >= 29
        assert shown["events"] == {("Pinged",): 1}


async def test_refusals_are_counted_by_their_reason(sink: Sink) -> None:
    """They are no streams."""
    async with serve(watched(Full, sink.observer)) as client, client.stream("/full") as stream:
        await stream.next_event()
        for _ in range(2):
            assert (await client.request("GET", "/full")).status_code == 503
        client.drain()
        await client.request("GET", "/full")
    shown = sink.read()
    assert shown["rejected"] == {("Full", "max_connections"): 2, ("Full", "draining"): 1}
    assert shown["opened"] == {("Full",): 1}


async def test_failures_are_counted_by_where_they_happened(sink: Sink) -> None:
    """A stream may have more than one; one whose response has not started has failed, but was never open."""
    async with serve(watched(Faulty, sink.observer)) as client:
        with pytest.raises(RuntimeError, match="before the first byte"):
            await client.request("GET", "/faulty?early")
        shown = sink.read()
        assert shown["failures"] == {("Faulty", "events"): 1}
        assert shown["opened"] == shown["ended"] == shown["open"] == {}
        async with client.stream("/faulty?late") as stream:
            await stream.closed()
    shown = sink.read()
    assert shown["failures"] == {("Faulty", "events"): 2, ("Faulty", "on_disconnect"): 1}
    assert shown["ended"] == {("Faulty", "error"): 1}
    assert shown["open"] == {("Faulty",): 0}


@pytest.mark.parametrize(
    ("hours", "bounds"), [(0, (0, 1)), (1, (900, HOUR)), (13, (12 * HOUR, 24 * HOUR)), (47, (24 * HOUR, 72 * HOUR))]
)
async def test_durations_are_told_apart_from_seconds_to_days(
    sink: Sink, hours: int, bounds: tuple[float, float]
) -> None:
    """A histogram by endpoint, of streams that have ended."""
    async with serve(watched(Hourly, sink.observer)) as client:
        async with client.stream(f"/hourly?hours={hours}") as stream:
            await stream.closed()
    assert sink.read()["duration"] == {("Hourly",): (1, pytest.approx(hours * HOUR, abs=1), *bounds)}


async def test_days_above_the_last_bound_are_counted(sink: Sink) -> None:
    """What is open for longer than a week ends up above it."""

    class Facts(Fact):
        duration = 8 * 24 * HOUR

    stream = Facts()
    sink.observer.opened(stream)
    sink.observer.closed(stream, CloseReason.LIFETIME, None)
    assert sink.read()["duration"] == {("Fact",): (1, 8 * 24 * HOUR, 7 * 24 * HOUR, float("inf"))}


# Brokers


class Away(MemoryBackend):
    """A backend that a test takes away."""

    log: Log

    async def open(self, log: Log) -> None:
        self.log = log
        await super().open(log)


async def test_publications_are_counted_with_their_bytes(sink: Sink) -> None:
    """Zero is shown before the first."""
    assert sink.read()["published"] == sink.read()["published bytes"] == {(): 0}
    async with Broker(observers=[sink.observer]) as broker, broker.subscribe("a") as reader:
        for text in ("snow", "rain and wind"):
            await broker.publish("a", text)
        frames = await reader.pull()
        assert sink.read()["published"] == {(): 2}
        assert sink.read()["published bytes"] == {(): len(frames)}


async def test_subscriptions_are_counted_as_they_begin(sink: Sink) -> None:
    """Those that have ended as well."""
    async with Broker(observers=[sink.observer]) as broker:
        for count in range(3):
            assert sink.read()["subscriptions"] == {(): count}
            async with broker.subscribe(["a", "b"]):
                pass


async def test_lags_are_counted_by_policy_and_resets_by_reason(sink: Sink) -> None:
    """A reader that lags with ``on_lag="reset"`` is both."""
    async with Broker(history=3, observers=[sink.observer]) as broker:
        async with broker.subscribe("a") as first, broker.subscribe("a", on_lag="reset") as second:
            for number in range(10):
                await broker.publish("a", number)
            # Each first gets what it had not read and was still there.
            with pytest.raises(SlowReaderError):
                while True:
                    await first.pull()
            while b"stream-reset" not in await second.pull():
                pass
        async with broker.subscribe("a", "no cursor") as third:
            assert b"stream-reset" in await third.pull()
    shown = sink.read()
    assert shown["lags"] == {("disconnect",): 1, ("reset",): 1}
    assert shown["resets"] == {("lagged",): 1, ("malformed",): 1}


async def test_outages_are_counted_with_their_seconds(sink: Sink) -> None:
    """While one lasts it is shown as such; when it is over its length is added."""
    backends = [Away(), Away()]
    async with Broker(backends[0], observers=[sink.observer]), Broker(backends[1], observers=[sink.observer]):
        assert [sink.read()[name][()] for name in ("down", "outages", "downtime")] == [0, 0, 0]
        for backend in backends:
            backend.log.lost(BrokerUnavailableError("away"))
        assert [sink.read()[name][()] for name in ("down", "outages", "downtime")] == [2, 2, 0]
        await anyio.sleep(90)
        backends[0].log.found()
        assert [sink.read()[name][()] for name in ("down", "outages", "downtime")] == [1, 2, pytest.approx(90)]
        await anyio.sleep(10)
        backends[1].log.found()
        assert [sink.read()[name][()] for name in ("down", "outages", "downtime")] == [0, 2, pytest.approx(190)]


# What must not be


async def test_no_label_names_a_client_a_path_or_a_channel(sink: Sink) -> None:
    """Whatever happens: their number has no bound, and they may be secrets."""

    class Room(ChannelEndpoint):
        broker = Broker(history=3, observers=(sink.observer,))
        observers = (sink.observer,)
        max_connections = 1
        ping_interval = 15.0

        def client_key(self, request: Request) -> str:
            return "secret-key"

        async def channels(self, request: Request) -> list[str]:
            return [f"secret-channel-{request.path_params['token']}"]

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            raise RuntimeError("secret-error")

    Room.__qualname__ = "Room"
    app = Starlette(routes=[Route("/rooms/{token}", Room)])
    async with SSETestClient(app) as client:
        async with client.stream("/rooms/secret-path?token=secret-query", last_event_id="secret-id") as stream:
            await stream.next_event()
            await client.request("GET", "/rooms/secret-path")
            await stream.expect_silence(60)
            for number in range(10):
                await Room.broker.publish("secret-channel-secret-path", number, "secret-key-of-event")
            await stream.closed()
    shown = sink.read()
    assert all(
        shown[name] for name in ("ended", "rejected", "failures", "pings", "events", "lags", "resets", "duration")
    )
    assert sink.label_values() == {
        *("Room", "slow_reader", "max_connections", "on_disconnect", "disconnect", "malformed"),
    }


async def test_nothing_is_kept_of_a_stream_that_has_ended(sink: Sink) -> None:
    """It is freed with its request."""

    class Kept(Hourly): ...

    async with serve(watched(Kept, sink.observer)) as client:
        async with client.stream("/kept?hours=2") as stream:
            await stream.next_event()
            sink.read()
            assert streams_alive("Kept") == 1
            await stream.closed()
    del client, stream
    sink.read()
    assert streams_alive("Kept") == 0


def streams_alive(endpoint: str) -> int:
    gc.collect()
    return sum(isinstance(each, Stream) and each.identity.endpoint == endpoint for each in gc.get_objects())


def test_a_stream_that_has_ended_is_freed_at_once(sink: Sink) -> None:
    """No cycle holds it until the garbage collection."""
    stream = Fact()
    sink.observer.opened(stream)
    sink.read()
    sink.observer.closed(stream, CloseReason.FINISHED, None)
    reference = weakref.ref(stream)
    del stream
    assert reference() is None


def test_a_delivery_costs_nothing(sink: Sink) -> None:
    """The driver asks whether ``sent`` is overridden, and calls nobody if it is not."""
    assert type(sink.observer).sent is Observer.sent


class Fact:
    """A stream as observers see it."""

    duration = 1.0

    def __init__(self) -> None:
        self.identity = StreamIdentity("1", "Fact", "/")
        self.events = self.bytes_sent = 0


def test_the_names_here_are_all_that_there_are(sink: Sink) -> None:
    """A metric that is added gets its tests; each library shows it from the first happening on."""
    stream = Fact()
    observer = sink.observer
    observer.opened(stream)
    observer.pinged(stream)
    observer.failed(stream, RuntimeError(), during="events", propagates=False)
    observer.closed(stream, CloseReason.ERROR, None)
    observer.rejected("Fact", "/", "draining")
    observer.lagged(["a"], "reset")
    observer.reset(["a"], "lagged")
    shown = sink.read()
    assert [name for name in NAMES if not shown[name]] == []


def test_each_endpoint_and_broker_may_share_it(sink: Sink) -> None:
    """It is an observer like any other."""
    observers: Sequence[Observer] = (sink.observer,)
    Broker(observers=observers)
    watched(Hourly, sink.observer)
