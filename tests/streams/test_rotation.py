"""``max_lifetime`` ends streams spread over time, and a client that comes back misses nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from starlette_sse import Broker, ChannelEndpoint, CloseReason, SSEEndpoint, lifespan
from starlette_sse.decoding import EventDecoder
from starlette_sse.eventloop import current_event_loop
from starlette_sse.streams.deadlines import Deadlines, Due, StreamSettings
from starlette_sse.streams.writers import FrameWriter
from starlette_sse.testing import Ending, SSETestClient
from tests.visits import Visit

pytestmark = pytest.mark.anyio

HOUR = 3600.0


async def test_ten_thousand_streams_that_open_at_once_end_spread_over_a_fifth_of_the_lifetime() -> None:
    """After a deploy all clients come at once; an hour later they do not all come back at once."""
    loop = current_event_loop()
    ends: list[float] = []
    settings = StreamSettings(
        max_lifetime=HOUR,
        ping_interval=None,
        send_timeout=None,
        cleanup_timeout=None,
        drain_policy="close",
        drain_grace=0.0,
    )

    async def send(message: Any) -> None:
        """Nothing is sent: only the clock is watched."""

    def on_due(due: Due | None) -> None:
        assert due is Due.LIFETIME
        ends.append(loop.time() - began)

    began = loop.time()
    watched = [Deadlines(loop, settings, FrameWriter(loop, send, print), on_due) for _ in range(10_000)]
    for deadlines in watched:
        deadlines.opening()
        deadlines.opened()
    await anyio.sleep(HOUR + 1.0)
    assert len(ends) == 10_000
    assert min(ends) >= 0.8 * HOUR
    assert max(ends) <= HOUR + 0.1
    # 720 s are 12 minutes, of which each should have its twelfth: 833, give or take five standard deviations.
    minutes = Counter(math.floor(end / 60) for end in ends)
    assert max(minutes.values()) < 833 + 5 * math.sqrt(833)
    assert min(minutes[minute] for minute in range(48, 60)) > 833 - 5 * math.sqrt(833)
    # No second sees a storm: 14 on average.
    assert max(Counter(math.floor(end) for end in ends).values()) < 45


async def test_streams_end_by_their_lifetime_with_a_time_to_come_back() -> None:
    """Each with reason ``lifetime``, cleanly, and with a ``retry`` of its own."""
    loop = current_event_loop()
    ends: list[tuple[float, CloseReason]] = []

    class Rotating(SSEEndpoint):
        max_lifetime = HOUR
        observers = ()

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "in"
            await anyio.sleep_forever()

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            ends.append((loop.time() - began, reason))

    began = loop.time()
    visits = [Visit(Rotating) for _ in range(100)]
    async with anyio.create_task_group() as tasks:
        for visit in visits:
            tasks.start_soon(visit.run)
    assert {reason for _, reason in ends} == {CloseReason.LIFETIME}
    assert 0.8 * HOUR <= min(ends)[0] <= max(ends)[0] <= HOUR + 1.0
    assert max(Counter(math.floor(end / 60) for end, _ in ends).values()) < 30
    retries = set()
    for visit in visits:
        decoder = EventDecoder()
        decoder.feed(visit.body)
        retries.add(decoder.retry)
        assert decoder.retry is not None
        assert 1000 <= decoder.retry < 3000
    assert len(retries) > 50


async def test_rotations_of_a_channel_stream_lose_and_repeat_nothing() -> None:
    """Three clients follow 1,200 events over dozens of rotations, each as an ``EventSource`` does."""

    class Ticker(ChannelEndpoint):
        broker = Broker(observers=())
        observers = ()
        max_lifetime = 30.0

        async def channels(self, request: Request) -> str:
            return "ticks"

    expected = [str(number) for number in range(1200)]
    rotations: list[Ending] = []

    async def follow(client: SSETestClient, received: list[str]) -> None:
        stream = await client.stream("/")
        while True:
            async for event in stream:
                assert event.event == "message"
                received.append(event.data)
                if event.data == expected[-1]:
                    await stream.aclose()
                    return
            rotations.append(await stream.closed())
            await anyio.sleep((stream.retry or 3000) / 1000)
            stream = await client.reconnect(stream).open()

    app = Starlette(routes=[Route("/", Ticker)], lifespan=lifespan)
    all_received: list[list[str]] = [[], [], []]
    async with SSETestClient(app, timeout=4 * HOUR) as client:
        async with anyio.create_task_group() as tasks:
            for received in all_received:
                tasks.start_soon(follow, client, received)
            await anyio.sleep(1.0)
            for number in expected:
                await Ticker.broker.publish("ticks", number)
                await anyio.sleep(0.5)
    assert all_received == [expected] * 3
    assert len(rotations) > 50
    assert set(rotations) == {Ending.FINISHED}
