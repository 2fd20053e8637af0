"""What a client gets of a broker's channels."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from starlette_sse import (
    Broker,
    ChannelEndpoint,
    CloseReason,
    ConfigurationError,
    ServerSentEvent,
    SlowReaderError,
    SSEEndpoint,
)
from starlette_sse.observers import Observer, StreamFacts
from starlette_sse.testing import Ending, SSETestClient, capture_logs
from tests.streams.apps import app_of
from tests.visits import Visit, scope_of
from tests.waiting import until

pytestmark = pytest.mark.anyio


def client_of(endpoint: type[ChannelEndpoint]) -> SSETestClient:
    return SSETestClient(app_of(endpoint), timeout=4 * 3600)


def news(**attributes: Any) -> type[ChannelEndpoint]:
    """Return an endpoint with only ``broker`` and ``channels`` set, and what else a test gives."""
    broker = Broker(observers=(), **attributes.pop("broker_options", {}))
    return type("News", (ChannelEndpoint,), {"broker": broker, "channels": ("news",), "observers": (), **attributes})


async def test_broker_and_channels_are_enough() -> None:
    """What is published reaches every client."""
    endpoint = news()
    async with client_of(endpoint) as client, client.stream("/") as one, client.stream("/") as two:
        await endpoint.broker.publish("news", ServerSentEvent("hello", event="greeting"))
        await endpoint.broker.publish("other", "unseen")
        await endpoint.broker.publish("news", {"data": {"n": 2}})
        for stream in (one, two):
            await stream.expect({"event": "greeting", "data": "hello"}, {"data": {"n": 2}})


async def test_an_observer_hears_what_is_sent() -> None:
    """Each send of a channel's stream with its size, as a generator's."""
    sizes: list[int] = []

    class Weighing(Observer):
        def sent(self, stream: StreamFacts, size: int) -> None:
            sizes.append(size)

    endpoint = news(observers=(Weighing(),))
    async with client_of(endpoint) as client, client.stream("/") as stream:
        event_id = await endpoint.broker.publish("news", "hello")
        await stream.expect("hello")
    assert sizes == [len(f"id: {event_id}\r\ndata: hello\r\n\r\n")]


async def test_channels_may_be_a_hook() -> None:
    """The app decides by request what a client may read; a plain function will do."""

    class Rooms(ChannelEndpoint):
        broker = Broker(observers=())
        observers = ()

        async def channels(self, request: Request) -> list[str]:
            if "room" not in request.query_params:
                raise HTTPException(404, "which room?")
            return [f"room:{request.query_params['room']}", "all"]

    async with client_of(Rooms) as client:
        async with client.stream("/?room=1") as stream:
            await Rooms.broker.publish("room:2", "not for one")
            await Rooms.broker.publish("room:1", "for one")
            await Rooms.broker.publish("all", "for all")
            await stream.expect("for one", "for all")
        assert (await client.request("GET", "/")).status_code == 404


async def test_an_endpoint_is_closed_until_it_names_channels() -> None:
    """A client never names a channel by itself."""

    class Closed(ChannelEndpoint):
        broker = Broker(observers=())
        observers = ()

    async with client_of(Closed) as client:
        assert (await client.request("GET", "/?channels=news")).status_code == 403


async def test_a_client_resumes_without_loss_even_if_it_has_seen_no_event() -> None:
    """The opening frame carries the position."""
    endpoint = news()
    async with client_of(endpoint) as client:
        stream = await client.stream("/")
        await stream.next_comment()
        assert stream.last_event_id
        stream.disconnect()
        await stream.closed()
        await endpoint.broker.publish("news", "missed")
        async with client.reconnect(stream) as again:
            await endpoint.broker.publish("news", "live")
            await again.expect("missed", "live")
        await stream.aclose()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [("never-heard-of", "malformed"), ("zzzzzzzz-1", "epoch"), ("\u20ac", "malformed"), ("-", "malformed")],
)
async def test_an_id_that_is_not_of_this_log_gives_one_reset(asked: str, reason: str) -> None:
    """Neither an error page nor silence."""
    endpoint = news()
    await endpoint.broker.publish("news", "old")
    async with client_of(endpoint) as client, client.stream("/", last_event_id=asked) as stream:
        event = await stream.next_event()
        assert event.event == "stream-reset"
        assert event.json()["requested"] == asked
        await endpoint.broker.publish("news", "new")
        await stream.expect("new")
        assert [each.event for each in stream.events].count("stream-reset") == 1


async def test_the_query_resumes_on_first_load() -> None:
    """A page that was rendered with a position starts there."""
    endpoint = news()
    first = await endpoint.broker.publish("news", "one")
    await endpoint.broker.publish("news", "two")
    async with client_of(endpoint) as client, client.stream(f"/?lastEventId={first}") as stream:
        await stream.expect("two")


async def test_a_snapshot_comes_before_what_follows_it() -> None:
    """Its position is taken first, so that nothing is missed in between."""
    taken = anyio.Event()

    class Board(ChannelEndpoint):
        broker = Broker(observers=())
        channels = ("board",)
        observers = ()

        async def snapshot(self, request: Request) -> AsyncIterator[Any]:
            await self.broker.publish("board", "published during the snapshot")
            taken.set()
            yield ServerSentEvent("the board", event="snapshot")

    async with client_of(Board) as client:
        async with client.stream("/") as stream:
            await stream.expect({"event": "snapshot", "data": "the board"}, "published during the snapshot")
            resume = stream.last_event_id
        async with client.stream("/", last_event_id=resume) as stream:
            await Board.broker.publish("board", "later")
            await stream.expect("later")


async def test_a_slow_reader_is_disconnected_and_resumes() -> None:
    """It falls off the log while it is stalled; it learns of it when it comes back."""
    endpoint = news(broker_options={"history": 5}, send_timeout=None, ping_interval=None)
    ended = []

    class Slow(endpoint):  # type: ignore[valid-type,misc]
        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            ended.append(reason)

    async with client_of(Slow) as client, client.stream("/") as stream:
        await Slow.broker.publish("news", "first")
        await stream.expect("first")
        stream.stall()
        await Slow.broker.publish("news", "second")
        await anyio.sleep(1)
        for number in range(20):
            await Slow.broker.publish("news", str(number))
            await anyio.sleep(0.01)
        stream.resume()
        assert await stream.closed() is Ending.FINISHED
        async with client.reconnect(stream) as again:
            assert (await again.next_event()).event == "stream-reset"
            await Slow.broker.publish("news", "live")
            await again.expect("live")
    assert ended[0] is CloseReason.SLOW_READER


async def test_frames_that_are_ready_together_leave_in_one_send() -> None:
    """Fifty events published at once cost one send."""
    endpoint = news()
    bodies: list[bytes] = []
    got = anyio.Event()

    async def send(message: Any) -> None:
        bodies.append(message.get("body", b""))
        if b"49" in bodies[-1]:
            got.set()

    scope = scope_of()

    async def serve() -> None:
        await endpoint(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await anyio.sleep(1)
        for number in range(50):
            await endpoint.broker.publish("news", str(number))
        await got.wait()
        tasks.cancel_scope.cancel()
    assert [body.count(b"data: ") for body in bodies if b"data: " in body] == [50]


async def test_pings_come_on_a_silent_channel() -> None:
    """They do not disturb the position."""
    endpoint = news()
    async with client_of(endpoint) as client, client.stream("/") as stream:
        await stream.next_comment()
        assert (await stream.next_comment()).text == "ping"
        await endpoint.broker.publish("news", "after the ping")
        await stream.expect("after the ping")


async def test_a_ping_tells_how_far_the_log_has_come() -> None:
    """Else a client of a silent channel would come back with an id that the log has long forgotten."""
    endpoint = news(broker_options={"history": 3})
    async with client_of(endpoint) as client:
        stream = await client.stream("/")
        await stream.next_comment()
        opened_at = stream.last_event_id
        for number in range(20):
            await endpoint.broker.publish("other", str(number))
        await stream.next_comment()
        assert stream.last_event_id != opened_at
        stream.disconnect()
        await stream.closed()
        await endpoint.broker.publish("news", "missed")
        async with client.reconnect(stream) as again:
            await again.expect("missed")
        await stream.aclose()


async def test_a_drained_channel_stream_says_farewell() -> None:
    """Shutdown is the same for every endpoint."""
    endpoint = news()
    async with client_of(endpoint) as client, client.stream("/") as stream:
        await stream.next_comment()
        client.drain()
        assert await stream.closed() is Ending.FINISHED
        assert stream.comments[-1].text == "draining"


async def test_nothing_is_left_of_a_client_that_has_gone() -> None:
    """No subscription and no channel."""
    endpoint = news()
    async with client_of(endpoint) as client:
        for _ in range(10):
            async with client.stream("/") as stream:
                await stream.next_comment()
                assert endpoint.broker.health().subscriptions == 1
    health = endpoint.broker.health()
    assert (health.subscriptions, health.channels) == (0, 0)


async def found_later(self: Any, request: Request) -> Broker:
    return Broker(observers=())


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"events": lambda self, request: iter(())}, "events would never be called"),
        ({"broker": "redis://"}, "broker must be a Broker"),
        ({"on_lag": "drop"}, "on_lag must be one of"),
        ({"on_lags": "reset"}, "on_lags is so like on_lag"),
        ({"chanels": ("news",)}, "chanels is so like channels"),
        ({"sep": "\n"}, "sep must be CR LF"),
        ({"max_event_bytes": 10}, "max_event_bytes would hold nothing back"),
        ({"channels": ("starlette_sse.close",)}, "channels: channel must not begin with 'starlette_sse.'"),
        ({"snapshot": ["a"]}, "snapshot must be a function"),
        ({"snapshot": property(lambda self: ["a"])}, "snapshot must be a function of the request, not <property"),
        ({"find_broker": found_later}, "find_broker must be a plain function"),
        ({"channels": 5}, "channels: channels must be one or more names, not 5"),
        ({"channels": ()}, "channels: a subscription needs at least one channel"),
        ({"channels": ("news", "")}, "channels: channel must be text of 1 to 1024 characters"),
    ],
)
def test_what_cannot_work_is_refused_at_class_creation(attributes: dict[str, Any], message: str) -> None:
    """By the name of the class."""
    with pytest.raises(ConfigurationError, match=f"News.{message}"):
        news(**attributes)


async def test_a_limit_of_events_may_be_a_shared_bases() -> None:
    """It is for the endpoints beside; set for channels alone, on the instance too, it is a mistake."""

    class Limited(SSEEndpoint):
        max_event_bytes = 10

    class Shared(Limited, ChannelEndpoint):
        broker = Broker(observers=())
        channels = ("news",)
        observers = ()

    class Late(Shared):
        async def on_connect(self, request: Request) -> None:
            self.max_event_bytes = 10

    async with client_of(Shared) as client, client.stream("/") as stream:
        await Shared.broker.publish("news", "longer than that")
        await stream.expect("longer than that")
    async with client_of(Late) as client:
        with pytest.raises(ConfigurationError, match=r"Late\(\)\.max_event_bytes would hold nothing back"):
            await client.stream("/")


async def test_a_missing_broker_is_an_error_before_the_response() -> None:
    """``on_disconnect`` is called, as ``on_connect`` succeeded."""
    ended = []

    class Lost(ChannelEndpoint):
        channels = ("news",)
        observers = ()

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            ended.append(reason)

    async with client_of(Lost) as client:
        with pytest.raises(ConfigurationError, match=r"Lost\.broker is not set"):
            await client.stream("/")
    assert ended == [CloseReason.ERROR]


@pytest.mark.parametrize("cleanup", ["fails", "hangs"])
async def test_what_keeps_a_client_out_is_told_whatever_its_cleanup_does(cleanup: str) -> None:
    """A refusal stays one, and what the cleanup has done wrong is in the log."""

    class Closed(ChannelEndpoint):
        broker = Broker(observers=())
        cleanup_timeout = 3.0

        async def channels(self, request: Request) -> list[str]:
            return []

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            if cleanup == "hangs":
                await anyio.sleep_forever()
            raise KeyError(reason)

    with capture_logs() as logs:
        async with client_of(Closed) as client:
            began = anyio.current_time()
            response = await client.request("GET", "/")
            assert response.status_code == 403
            assert anyio.current_time() - began == pytest.approx(3.0 if cleanup == "hangs" else 0.0)
    (failed,) = logs.named("stream.failed")
    assert (failed["during"], failed["endpoint"]) == ("on_disconnect", Closed.__qualname__)
    assert ("TimeoutError" if cleanup == "hangs" else "KeyError") in failed["error"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_request_that_asyncio_cancels_while_it_cleans_up_is_cancelled() -> None:
    """Whatever has kept its client out: who cancels it waits for that, and interrupts nothing."""
    cleaning, cleaned = anyio.Event(), []

    class Closed(ChannelEndpoint):
        broker = Broker(observers=())
        observers = ()

        async def channels(self, request: Request) -> list[str]:
            return []

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            cleaning.set()
            await anyio.sleep(5.0)
            cleaned.append(reason)

    visit = asyncio.ensure_future(Visit(Closed).run())
    await cleaning.wait()
    visit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await visit
    assert cleaned == [CloseReason.ERROR]


@pytest.mark.parametrize("made", [b": beat\r\n\r\n", ServerSentEvent(comment="beat"), {"comment": "beat"}])
async def test_a_ping_of_any_kind_brings_the_position(made: Any) -> None:
    """A client of a silent channel that comes back much later resumes behind it."""
    endpoint = news(ping_message=lambda self, request: made, ping_interval=10.0)
    async with client_of(endpoint) as client, client.stream("/") as stream:
        await stream.next_comment()
        opened_at = stream.last_event_id
        await endpoint.broker.publish("other", "not for it")
        assert (await stream.next_comment()).text == "beat"
        assert stream.last_event_id != opened_at


async def test_one_stalled_client_among_a_thousand_holds_nothing_up() -> None:
    """The others get every event in order, and what the stalled one holds is bounded by the log."""
    endpoint = news(broker_options={"history": 50}, send_timeout=None, ping_interval=None)
    clients, events = 1000, 200
    counts = [0] * clients
    scope = scope_of()
    ended = anyio.Event()

    def receiver(number: int) -> Any:
        async def send(message: Any) -> None:
            body = message.get("body", b"")
            if number == 0 and b"data: " in body:
                await anyio.sleep_forever()
            for line in body.splitlines():
                if line.startswith(b"data: "):
                    assert int(line[6:]) == counts[number]
                    counts[number] += 1

        return send

    async def receive() -> Any:
        await ended.wait()
        return {"type": "http.disconnect"}

    async def serve(number: int) -> None:
        await endpoint(scope, receive, receiver(number))

    async with anyio.create_task_group() as tasks:
        for number in range(clients):
            tasks.start_soon(serve, number)
        await until(lambda: endpoint.broker.health().subscriptions >= clients)
        for event in range(events):
            await endpoint.broker.publish("news", str(event))
            if event % 20 == 19:
                await anyio.sleep(0.01)
        await until(lambda: min(counts[1:]) >= events)
        assert counts == [0, *[events] * (clients - 1)]
        [channel] = endpoint.broker._log.channels.values()
        assert channel.end - channel.first == 50
        ended.set()


async def test_an_event_that_comes_as_the_client_goes_is_not_sent() -> None:
    """A server whose ``send`` never returns once the client has gone cannot hold the stream."""
    ended = []

    async def on_disconnect(self: ChannelEndpoint, request: Request, reason: CloseReason) -> None:
        ended.append(reason)

    endpoint = news(on_disconnect=on_disconnect, send_timeout=None)
    scope = scope_of()
    opened = anyio.Event()

    async def receive() -> Any:
        await opened.wait()
        await endpoint.broker.publish("news", "too late")
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if b"too late" in message.get("body", b""):
            await anyio.sleep_forever()
        if message["type"] == "http.response.body":
            opened.set()

    with anyio.fail_after(60):
        await endpoint(scope, receive, send)
    assert ended == [CloseReason.CLIENT_GONE]


async def test_a_stream_that_has_caught_up_does_not_hold_what_it_missed() -> None:
    """Clients that come back from different places, and so share no page, leave none behind."""
    endpoint = news(ping_interval=None)
    positions = [await endpoint.broker.publish("news", "what they saw") for _ in range(50)]
    for _ in range(50):
        await endpoint.broker.publish("news", "x" * 1000)
    missed = sum(range(50, 100))
    ended, got = anyio.Event(), 0

    async def receive() -> Any:
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal got
        got += message.get("body", b"").count(b"data: ")

    async def serve(position: str) -> None:
        headers = [(b"last-event-id", position.encode())]
        scope = scope_of(headers=headers)
        await endpoint(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        tracemalloc.start()
        try:
            for position in positions:
                tasks.start_soon(serve, position)
            await until(lambda: got >= missed)
            await anyio.sleep(1)
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        ended.set()
    assert got == missed
    # One stream takes about 10 KB on either event loop; what each has missed is 50 KB.
    assert held / len(positions) < 30_000


class Shouted(ServerSentEvent):
    """Encodes in its own way."""

    @staticmethod
    def dumps(value: Any) -> str:
        return str(value).upper()


async def test_a_snapshot_is_made_of_the_endpoints_event_class() -> None:
    """Whether it is a coroutine function or an async generator."""

    async def coroutine(self: Any, request: Request) -> Any:
        return [("a", 1)]

    async def generator(self: Any, request: Request) -> AsyncIterator[Any]:
        yield ("a", 1)

    for function in (coroutine, generator):
        endpoint = news(snapshot=function, event_class=Shouted)
        async with client_of(endpoint) as client, client.stream("/") as stream:
            await stream.expect("('A', 1)")


async def test_a_ping_with_an_id_of_its_own_keeps_it() -> None:
    """Any other brings the position, so that the client of a silent channel can resume."""

    def ping(self: Any, request: Request) -> ServerSentEvent:
        return ServerSentEvent(comment="ping", id=ids.pop(0))

    ids = [None, "own", None]
    endpoint = news(ping_interval=10.0, ping_message=ping)
    async with client_of(endpoint) as client, client.stream("/") as stream:
        await stream.next_comment()
        seen = [stream.last_event_id]
        while ids:
            await stream.next_comment()
            seen.append(stream.last_event_id)
    position = endpoint.broker.health().position
    assert seen == [position, position, "own", position]


async def test_what_was_published_before_the_close_is_sent_before_the_end() -> None:
    """Though the stream had no time to send it in between."""
    opened: list[ChannelEndpoint] = []

    async def on_connect(self: ChannelEndpoint, request: Request) -> None:
        opened.append(self)

    endpoint = news(on_connect=on_connect)
    async with client_of(endpoint) as client, client.stream("/") as stream:
        await stream.next_comment()
        await anyio.sleep(1)
        await endpoint.broker.publish("news", "the last")
        opened[0].close()
        await stream.expect("the last")
        assert await stream.closed() is Ending.FINISHED


@pytest.mark.parametrize("takes", [9, 11])
async def test_a_stream_that_is_cancelled_before_it_opens_cleans_up(takes: float) -> None:
    """``on_connect`` has succeeded, so ``on_disconnect`` gets the reason, and as much time as ever."""
    notes: list[Any] = []
    asked = anyio.Event()

    class Slow(ChannelEndpoint):
        broker = Broker(observers=())
        observers = ()
        cleanup_timeout = 10.0

        async def channels(self, request: Request) -> Any:
            asked.set()
            await anyio.sleep_forever()

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            notes.append(reason)
            await anyio.sleep(takes)
            notes.append("cleaned up")

    async def send(message: Any) -> None:
        notes.append(message)

    async def visit() -> None:
        scope = scope_of()
        await Slow(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit)
        await asked.wait()
        start = anyio.current_time()
        tasks.cancel_scope.cancel()
    assert anyio.current_time() - start == pytest.approx(min(takes, 10))
    assert notes == [CloseReason.CANCELLED, "cleaned up"][: 2 if takes < 10 else 1]


async def test_a_client_without_channels_is_refused() -> None:
    """It may read none, which is not the server's mistake; what is no name is, and says whose."""
    answers: list[Any] = [[], (), ""]

    async def channels(self: Any, request: Request) -> Any:
        return answers[0]

    endpoint = news(channels=channels)
    async with client_of(endpoint) as client:
        while answers:
            assert (await client.request("GET", "/")).status_code == 403
            answers.pop(0)
        for answers[:] in [None], [5], [[7]]:
            with pytest.raises(ConfigurationError, match=r"News\.channels\(\): channel"):
                await client.stream("/")


async def test_a_policy_that_cannot_work_is_not_blamed_on_the_channels() -> None:
    """An attribute of the instance is named by itself."""

    async def channels(self: Any, request: Request) -> list[str]:
        self.on_lag = "drop"
        return ["news"]

    async with client_of(news(channels=channels)) as client:
        with pytest.raises(ConfigurationError, match=r"^on_lag must be one of"):
            await client.stream("/")


@pytest.mark.parametrize("way", ["hook", "property"])
async def test_a_broker_may_be_found_by_request(way: str) -> None:
    """Such as one of the app's state; what is found is checked. A property does it, too."""
    brokers: list[Any] = [Broker(observers=()), "redis://", None]
    endpoint = (
        news(find_broker=lambda self, request: brokers[0])
        if way == "hook"
        else news(broker=property(lambda self: brokers[0]))
    )
    async with client_of(endpoint) as client:
        async with client.stream("/") as stream:
            await brokers[0].publish("news", "hello")
            await stream.expect("hello")
        for message in (r"News\.broker must be a Broker, or find_broker", r"^News has no broker"):
            brokers.pop(0)
            with pytest.raises(ConfigurationError, match=message):
                await client.stream("/")


async def test_what_goes_wrong_in_a_property_is_told() -> None:
    """And not that there is no broker."""

    class Found(ChannelEndpoint):
        channels = ("news",)
        observers = ()

        @property
        def broker(self) -> Broker:  # type: ignore[override]
            return self.scope["app"].state.brokr  # type: ignore[no-any-return]

    async with client_of(Found) as client:
        with pytest.raises(AttributeError, match="brokr"):
            await client.stream("/")


async def test_a_plain_snapshot_runs_in_a_worker_thread() -> None:
    """A generator as well, whose steps would keep all other streams waiting."""
    threads = []

    def snapshot(self: Any, request: Request) -> Iterator[Any]:
        threads.append(threading.current_thread())
        yield "one"
        threads.append(threading.current_thread())
        yield "two"

    async with client_of(news(snapshot=snapshot)) as client, client.stream("/") as stream:
        await stream.expect("one", "two")
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("way", ["async generator", "coroutine of a generator", "function of an async generator"])
async def test_an_asynchronous_snapshot_stays_in_the_event_loop(way: str) -> None:
    """What it iterates over may belong to the loop, and to none of its threads."""
    threads = []

    async def asynchronous(*_: Any) -> AsyncIterator[Any]:
        for item in ("one", "two"):
            threads.append(threading.current_thread())
            yield item

    def plain() -> Iterator[Any]:
        for item in ("one", "two"):
            threads.append(threading.current_thread())
            yield item

    async def coroutine(self: Any, request: Request) -> Any:
        return plain()

    snapshots = {
        "async generator": asynchronous,
        "coroutine of a generator": coroutine,
        "function of an async generator": lambda self, request: asynchronous(),
    }
    async with client_of(news(snapshot=snapshots[way])) as client, client.stream("/") as stream:
        await stream.expect("one", "two")
    assert threads == [threading.current_thread()] * 2


async def test_a_send_that_fails_in_the_streams_own_task_lets_its_cleanup_complete() -> None:
    """The stream ends itself there, and must not cancel what follows."""
    notes: list[Any] = []

    class Careful(ChannelEndpoint):
        broker = Broker(observers=())
        channels = ("news",)
        observers = ()

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            await anyio.sleep(1)
            notes.append(reason)

    opened = anyio.Event()
    sent = 0

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 2:
            opened.set()
        if sent == 3:
            raise OSError("the client has gone")

    scope = scope_of()

    async def serve() -> None:
        await Careful(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
        notes.append("answered")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await opened.wait()
        await Careful.broker.publish("news", "x")
    assert notes == [CloseReason.CLIENT_GONE, "answered"]


async def test_what_a_hook_raises_is_not_taken_for_a_slow_reader() -> None:
    """Only the stream's own subscription tells that its client is slow."""

    class Iterating(SSEEndpoint):
        observers = ()

        def events(self, request: Request) -> Any:
            raise SlowReaderError("another subscription's")

    async with SSETestClient(app_of(Iterating)) as client:
        with pytest.raises(SlowReaderError):
            await client.stream("/")
