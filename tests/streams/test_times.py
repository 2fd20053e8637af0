"""Pings, and the order of what is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from starlette_sse import Broker, ChannelEndpoint, ServerSentEvent
from starlette_sse.streams.deadlines import Deadlines
from starlette_sse.testing import Ending, SSETestClient
from tests.streams.apps import Noting, serve
from tests.visits import Visit, scope_of

pytestmark = pytest.mark.anyio


async def test_an_idle_stream_is_pinged_every_interval_after_a_jittered_first() -> None:
    """The first ping comes after 50 to 100 % of the interval, the others after the whole of it."""

    class Idle(Noting):
        ping_interval = 15.0

    async with serve(Idle) as client, client.stream("/") as stream:
        opened = (await stream.next_comment()).time
        times = [(await stream.next_comment()).time for _ in range(4)]
        assert 7.5 <= times[0] - opened <= 15.0
        assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([15.0] * 3)
        assert {comment.text for comment in stream.comments[1:]} == {"ping"}


class Shouting(ServerSentEvent):
    def encode(self, sep: str | None = None) -> bytes:
        return b"A!"


@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize(
    ("ping", "frame"),
    [
        (ServerSentEvent(comment="a\nb"), ": a\r\n: b\r\n\r\n"),
        ({"comment": "a", "retry": 5}, ": a\r\nretry: 5\r\n\r\n"),
        (ServerSentEvent("", event="ping"), "event: ping\r\ndata: \r\n\r\n"),
        (Shouting(comment="a"), "A!"),
        (b": as it is\n", ": as it is\n"),
    ],
)
async def test_the_opening_and_pings_are_apart_from_events(line_end: str, ping: Any, frame: str) -> None:
    """Some readers split a stream at blank lines, and drop what begins with a comment."""

    class Idle(Noting):
        sep = line_end
        retry = 300
        ping_interval = 15.0

        def ping_message(self, request: Request) -> Any:
            return ping

    opening = ": open\r\nretry: 300\r\n\r\ndata: first\r\n\r\n".replace("\r\n", line_end)
    visit = Visit(Idle)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit.run)
        await anyio.sleep(31)
        visit.left.set()
    assert visit.body.decode() == opening + 2 * frame.replace("\r\n", line_end)


@pytest.mark.parametrize("events", [0, 1, 3])
async def test_streams_that_open_together_do_not_ping_together(events: int) -> None:
    """Ten streams have more than five different first pings, though all have sent the same at the same time."""

    class Idle(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            for number in range(events):
                yield number
                await anyio.sleep(5)
            await anyio.sleep_forever()

    first: set[float] = set()

    async def visit() -> None:
        async with client.stream("/") as stream:
            await stream.next_comment()
            ping = await stream.next_comment()
            quiet = ping.time - max((each.time for each in stream.events), default=0.0)
            assert 7.5 <= quiet <= 15.0
            first.add(round(ping.time, 3))

    async with serve(Idle) as client, anyio.create_task_group() as visits:
        for _ in range(10):
            visits.start_soon(visit)
    assert len(first) > 5


async def test_a_busy_stream_is_not_pinged() -> None:
    """An event resets the time to the next ping, of which the first comes sooner."""

    class Busy(Noting):
        ping_interval = 15.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            for number in range(20):
                yield str(number)
                await anyio.sleep(7.0)
            await anyio.sleep(9.0)

    async with serve(Busy) as client, client.stream("/") as stream:
        await stream.closed()
        assert [comment.text for comment in stream.comments] == ["open", "ping"]
        assert 7.5 <= stream.comments[1].time - stream.events[-1].time <= 15.0


async def test_only_the_first_ping_comes_sooner() -> None:
    """From then on a stream is pinged when it has been quiet for the whole interval."""

    class Busy(Noting):
        ping_interval = 15.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            await anyio.sleep(20)
            yield "first"
            await anyio.sleep_forever()

    async with serve(Busy) as client, client.stream("/") as stream:
        event = await stream.next_event()
        assert [comment.text for comment in stream.comments] == ["open", "ping"]
        await stream.next_comment()
        await stream.next_comment()
        assert (await stream.next_comment()).time - event.time == pytest.approx(15.0)


async def test_pings_can_be_turned_off() -> None:
    """A day passes in silence."""

    class Silent(Noting):
        ping_interval = None
        send_timeout = None

    async with serve(Silent) as client, client.stream("/") as stream:
        await stream.expect("first")
        await stream.expect_silence(86400)
        assert [comment.text for comment in stream.comments] == ["open"]


async def test_a_stalled_reader_is_not_sent_pings_on_top() -> None:
    """While a send blocks no other one begins."""

    class Idle(Noting):
        ping_interval = 5.0
        send_timeout = 60.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            yield "second"
            await anyio.sleep_forever()

    async with serve(Idle) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.stall()
        await anyio.sleep(30)
        stream.resume()
        await stream.expect("second")
        assert [comment.text for comment in stream.comments] == ["open"]


async def test_a_ping_that_blocks_ends_the_stream_by_send_timeout() -> None:
    """The timeout covers pings too."""

    class Idle(Noting):
        ping_interval = 10.0
        send_timeout = 5.0

    async with serve(Idle) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.stall()
        assert await stream.closed() is Ending.CUT
    assert str(Idle.notes[-1]) == "send_timeout"


async def test_an_opening_that_blocks_ends_the_stream_by_send_timeout() -> None:
    """No send is without its limit, and no generator is left behind."""
    ended = anyio.Event()

    class Waiting(Noting):
        send_timeout = 5.0

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    scope = scope_of()
    start = anyio.current_time()
    await Waiting(scope, ended.wait, send)  # type: ignore[arg-type]
    assert anyio.current_time() - start == pytest.approx(7.0)
    assert Waiting.notes[0] == "connected"
    assert str(Waiting.notes[-1]) == "send_timeout"


async def test_the_ping_can_be_chosen() -> None:
    """It may be an event that scripts see."""

    class Visible(Noting):
        def ping_message(self, request: Request) -> ServerSentEvent:
            return ServerSentEvent("still here", event="ping")

    async with serve(Visible) as client, client.stream("/") as stream:
        await stream.expect("first", {"event": "ping", "data": "still here"})


async def test_sends_never_overlap() -> None:
    """Data, pings and the farewell pass one at a time, whole."""
    sending = 0
    bodies = []

    class Busy(Noting):
        ping_interval = 0.5

        async def events(self, request: Request) -> AsyncIterator[Any]:
            for number in range(50):
                yield str(number)
                await anyio.sleep(0.7)

    async def send(message: Any) -> None:
        nonlocal sending
        assert sending == 0
        sending += 1
        await anyio.sleep(0.3)
        sending -= 1
        bodies.append(message.get("body", b""))

    scope = scope_of()
    await Busy(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert b": ping\r\n\r\n" in bodies
    # The first event was ready before the response began, so it left with the opening frame.
    assert bodies[1] == b": open\r\n\r\ndata: 0\r\n\r\n"
    assert [body for body in bodies if body.startswith(b"data")] == [
        f"data: {n}\r\n\r\n".encode() for n in range(1, 50)
    ]


async def test_authorization_is_asked_again_and_again_on_a_silent_stream() -> None:
    """Every interval has its own, also without pings and timeouts to ring for."""
    times = []

    class Guarded(Noting):
        authorize_interval = 60.0
        ping_interval = None
        send_timeout = None

        async def authorize(self, request: Request) -> None:
            times.append(anyio.current_time())

    async with serve(Guarded) as client, client.stream("/") as stream:
        await stream.expect("first")
        await stream.expect_silence(200)
        assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([60.0] * 3)


async def test_one_alarm_watches_all_times_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due often leaves none behind that ring beside it, more and more as the stream goes on."""
    rings: list[Deadlines] = []
    ring = Deadlines._ring

    def ringing(deadlines: Deadlines) -> None:
        rings.append(deadlines)
        ring(deadlines)

    class Guarded(Noting):
        authorize_interval = 20.0
        ping_interval = 15.0

        async def authorize(self, request: Request) -> None: ...

    monkeypatch.setattr(Deadlines, "_ring", ringing)
    async with serve(Guarded) as client, client.stream("/") as stream:
        await stream.expect("first")
        await stream.expect_silence(3600)
    assert 3600 / 15 <= len(rings) <= 3600 / 15 + 2 * 3600 / 20


async def test_nobody_is_asked_for_the_right_of_a_stream_that_ends() -> None:
    """However long its client takes for that."""
    times = []

    class News(ChannelEndpoint):
        authorize_interval = 10.0
        send_timeout = None
        drain_grace = 60.0
        broker = Broker(observers=())
        channels = ("news",)
        observers = ()

        async def authorize(self, request: Request) -> None:
            times.append(anyio.current_time())

    async with SSETestClient(Starlette(routes=[Route("/", News)])) as client, client.stream("/") as stream:
        start = (await stream.next_comment()).time
        stream.stall()
        await News.broker.publish("news", "snow")
        await anyio.sleep(15)
        client.drain()
        assert await stream.closed() is Ending.CUT
        assert anyio.current_time() - start == pytest.approx(15 + 60)
    assert [time - start for time in times] == pytest.approx([0, 10])
