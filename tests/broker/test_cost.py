"""What each operation costs does not depend on what others do: counted, not timed."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
import pytest

from starlette_sse.broker import Broker
from starlette_sse.broker.channel import Channel
from starlette_sse.broker.live import Cursor, LiveReader
from tests.broker.reading import texts

pytestmark = pytest.mark.anyio


async def calls_of(function: Callable[[], Any]) -> int:
    """Count the functions that a coroutine function calls; the collector, which calls its callbacks, is off."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    gc.disable()
    sys.setprofile(count)
    try:
        await function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


async def test_publishing_is_flat_in_channels_and_other_readers() -> None:
    """With 5,000 channels and 1,000 readers of others, a publication calls as many functions as with none."""
    counts = []
    for channels, readers in ((0, 0), (5000, 1000)):
        broker = Broker(observers=())
        async with AsyncExitStack() as stack:
            await broker.publish("a", "x")
            for n in range(channels):
                await broker.publish(f"channel {n}", "x")
            for n in range(readers):
                await stack.enter_async_context(broker.subscribe(f"channel {n % 7}"))
            counts.append(await calls_of(partial(broker.publish, "a", "x")))
    assert counts[0] == counts[1]


async def test_subscribing_is_flat_in_channels_and_other_readers() -> None:
    """So does a subscription, of its own channel or of one with many readers."""
    counts = []
    for channels, readers in ((0, 1), (5000, 1000)):
        broker = Broker(observers=())
        async with AsyncExitStack() as stack:
            await broker.publish("a", "x")
            for n in range(channels):
                await broker.publish(f"channel {n}", "x")
            for _ in range(readers):
                await stack.enter_async_context(broker.subscribe("a"))

            async def subscribe(broker: Broker = broker) -> None:
                async with broker.subscribe("a"):
                    pass

            counts.append(await calls_of(subscribe))
    assert counts[0] == counts[1]


async def test_a_publication_wakes_each_waiting_reader_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty publications before the readers run are one wake and one pull each; who lags is not woken again."""
    news: Counter[LiveReader] = Counter()
    original = Cursor.ready

    def counted(self: Cursor) -> None:
        news[self.reader] += 1
        original(self)

    monkeypatch.setattr(Cursor, "ready", counted)
    broker = Broker(observers=())
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(broker.subscribe("a")) for _ in range(20)]
        lagging = await stack.enter_async_context(broker.subscribe("a"))
        for round_ in range(1, 4):
            for n in range(50):
                await broker.publish("a", str(n))
            for reader in readers:
                assert (await reader.pull()).count(b"data: ") == 50
                assert news[reader] == round_
        assert news[lagging] == 1


async def test_a_burst_is_joined_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand readers at one place share the work of joining frames; a replay is no more work than a live burst."""
    joins: list[int] = []
    original = Channel.since

    def counted(self: Channel, index: int) -> Any:
        joins.append(index)
        return original(self, index)

    monkeypatch.setattr(Channel, "since", counted)
    broker = Broker(observers=())
    start = await broker.publish("a", "first")
    for n in range(200):
        await broker.publish("a", str(n))
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(broker.subscribe("a", start)) for _ in range(1000)]
        for reader in readers:
            assert (await reader.pull()).count(b"data: ") == 200
        assert len(joins) == 1
        await broker.publish("a", "last")
        late = await stack.enter_async_context(broker.subscribe("a", start))
        assert (await late.pull()).count(b"data: ") == 201


async def test_a_reader_of_many_channels_pays_for_those_with_news() -> None:
    """A pull of one event calls as many functions with 2 channels as with 500."""
    counts = []
    for channels in (2, 500):
        broker = Broker(observers=())
        async with broker.subscribe([f"channel {n}" for n in range(channels)]) as subscription:
            for n in (0, 1):
                await broker.publish(f"channel {n}", "x")
                with anyio.fail_after(5):
                    counts.append(await calls_of(subscription.pull))
    assert len(set(counts)) == 1


async def test_many_readers_come_and_go() -> None:
    """Ten thousand readers leave a channel in no order without a search through the others."""
    broker = Broker(observers=())
    async with broker.subscribe("a") as stays:
        readers = [broker.subscribe("a") for _ in range(10_000)]
        for reader in readers:
            await reader.__aenter__()
        for reader in readers[::2] + readers[::-2]:
            if broker.health().subscriptions > 1:
                await reader.__aexit__(None, None, None)
        await broker.publish("a", "x")
        assert await texts(stays, 1) == ["x"]
