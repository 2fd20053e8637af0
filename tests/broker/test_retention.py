"""What is kept, for how long, and that nothing else is."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starlette_sse.broker import Broker
from starlette_sse.broker.entries import Entry, Retention
from starlette_sse.broker.log import Log
from starlette_sse.broker.positions import Position
from starlette_sse.broker.tally import Tally
from starlette_sse.eventloop import EventLoop
from starlette_sse.testing import virtual_backend
from tests.broker.conftest import Diary
from tests.broker.reading import take, texts

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


class Clock:
    """An event loop's clock and its one alarm, which rings at just the time that it was set for."""

    def __init__(self, time: float) -> None:
        self.now = time
        self._alarm: tuple[float, Callable[[], object]] | None = None
        self.rings = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Clock:
        self._alarm = when, callback
        return self

    def cancel(self) -> None:
        self._alarm = None

    def ring(self) -> bool:
        """Let the time of the alarm come; False if there is none."""
        if self._alarm is None:
            return False
        (self.now, callback), self._alarm = self._alarm, None
        self.rings += 1
        callback()
        return True


seconds = st.floats(min_value=0.001, max_value=1e6)


@given(start=seconds, gaps=st.lists(seconds, min_size=1, max_size=4), max_age=seconds)
def test_events_expire_whatever_the_rounding(start: float, gaps: list[float], max_age: float) -> None:
    """However the sums of times and ages are rounded, one look at each event is enough."""
    clock = Clock(start)
    log = Log(Retention(history=100, max_age=max_age, max_bytes=100_000), Tally(()))
    log.bind(cast("EventLoop", clock))
    log.begin(Position("e", 0))
    channel = log.channel("a", 0)
    for seq, gap in enumerate(gaps, 1):
        key = "k" if seq % 2 else None
        log.append(Entry(channel="a", epoch="e", seq=seq, prev=seq - 1, frame=b"x", key=key, time=log.now()))
        clock.now += gap
    while clock.rings <= len(gaps) and clock.ring():
        pass
    assert channel.empty
    assert log.channels == {}
    assert clock.rings <= len(gaps)


async def resumes(broker: Broker, channel: str, event_id: str) -> bool:
    """Tell whether a client that comes back with an id gets no reset."""
    async with broker.subscribe(channel, event_id) as subscription:
        subscription.wake()
        return b"stream-reset" not in await subscription.pull()


async def test_an_event_is_kept_for_max_age_and_no_longer() -> None:
    """To the second, without another event and without anybody asking."""
    broker = Broker(max_age=100, observers=())
    start = (await broker.publish("z", "x")).rsplit("-", 1)[0] + "-0"
    await broker.publish("a", "x")
    await anyio.sleep(99)
    assert await resumes(broker, "a", start)
    await anyio.sleep(2)
    assert not await resumes(broker, "a", start)


async def test_each_event_has_its_own_age() -> None:
    """The younger ones stay when the older ones go."""
    broker = Broker(max_age=100, observers=())
    ids = []
    for _ in range(5):
        ids.append(await broker.publish("a", "x"))
        await anyio.sleep(30)
    # The first is 150 s old, the second 120 s, the third 90 s.
    assert [await resumes(broker, "a", event_id) for event_id in ids] == [False, True, True, True, True]


async def test_a_channel_without_readers_and_events_costs_nothing() -> None:
    """A hundred thousand channels that were used once leave nothing when their events have expired."""
    broker = Broker(max_age=100, observers=())
    for n in range(2000):
        await broker.publish(f"channel {n}", "x")
        if n % 100 == 0:
            await anyio.sleep(1)
    assert broker.health().channels == 2000
    await anyio.sleep(101)
    assert broker.health().channels == 0
    assert broker._log._oldest == []
    assert broker._log._alarm is None


async def test_reading_a_channel_leaves_nothing() -> None:
    """Subscribing to a channel where nothing happens, and leaving it, has no trace."""
    broker = Broker(observers=())
    for n in range(100):
        async with broker.subscribe([f"channel {n}", "other"]):
            assert broker.health().channels == 2
            assert broker.health().subscriptions == 1
    assert broker.health().channels == 0
    assert broker.health().subscriptions == 0


async def test_a_channel_with_readers_stays_when_its_events_have_gone() -> None:
    """Its readers miss nothing and are told nothing, however long it was silent."""
    broker = Broker(max_age=100, observers=())
    async with broker.subscribe("a") as subscription:
        for n in range(3):
            await broker.publish("a", str(n))
            assert await texts(subscription, 1) == [str(n)]
            await anyio.sleep(10_000)
            assert broker.health().channels == 1
    assert broker.health().channels == 0
    assert broker.health().resets == 0


async def test_a_reader_that_was_never_behind_resumes_for_max_age() -> None:
    """A client of a silent channel whose id is kept fresh comes back without a reset, whatever other channels did."""
    broker = Broker(max_age=100, observers=())
    async with broker.subscribe("quiet") as subscription:
        for n in range(10):
            await broker.publish(f"busy {n}", "x")
            await anyio.sleep(50)
        resume_id = subscription.resume_id
    assert resume_id is not None
    await broker.publish("busy", "x")
    await anyio.sleep(99)
    assert await resumes(broker, "quiet", resume_id)


async def test_an_event_expires_under_a_slow_reader() -> None:
    """A reader that has not read an event before it expired is slow, and is told."""
    broker = Broker(max_age=100, observers=())
    async with broker.subscribe("a", on_lag="reset") as subscription:
        await broker.publish("a", "old")
        await anyio.sleep(101)
        await broker.publish("a", "new")
        event = (await take(subscription, 1))[0]
        assert event.type == "stream-reset"
        assert '"reason":"lagged"' in event.data


async def test_the_newest_of_a_key_expires_too() -> None:
    """What is kept for readers of the latest is not kept longer than an event."""
    broker = Broker(max_age=100, history=2, observers=())
    async with broker.subscribe("a", on_lag="latest") as subscription:
        for n in range(5):
            await broker.publish("a", str(n), f"key {n % 4}")
        await anyio.sleep(101)
        held = broker._log.channels["a"]
        assert held.empty
        assert held.newest is not None
        assert (held.newest._count, held.newest._bytes) == (0, 0)
        await broker.publish("a", "new", "key 0")
        assert '"reason":"lagged"' in (await take(subscription, 1))[0].data


async def test_the_newest_of_each_key_has_its_own_age() -> None:
    """It goes in its time, though the history behind it is younger."""
    broker = Broker(max_age=100, history=1, observers=())
    for key in ("first", "second", "third"):
        await broker.publish("a", "x", key)
        await anyio.sleep(40)
    held = broker._log.channels["a"].newest
    assert held is not None
    left = []
    for _ in range(3):
        left.append(list(held.entries))
        await anyio.sleep(40)
    # At 120, 160 and 200 seconds, of events of 0, 40 and 80.
    assert left == [["second", "third"], ["third"], []]


async def test_the_newest_of_keys_are_bounded_by_bytes() -> None:
    """Many large keyed events do not grow past the bound beside the history."""
    broker = Broker(history=2, max_bytes=10_000, observers=())
    for n in range(100):
        await broker.publish("a", "x" * 900, f"key {n}")
        held = broker._log.channels["a"]
        assert held.newest is not None
        assert held.newest._bytes <= 10_000
        assert held.newest._count <= 2
        assert len(held.newest.entries) <= 4


async def test_a_channel_never_holds_more_than_its_count_or_its_bytes() -> None:
    """Neither count nor bytes are ever exceeded, and what has left is let go."""
    broker = Broker(history=10, max_bytes=5_000, observers=())
    for n in range(1000):
        await broker.publish("a", "x" * (n * 37 % 2000))
        held = broker._log.channels["a"]
        kept = held.since(held.first)
        assert 1 <= len(kept) <= 10
        assert sum(len(entry.frame) for entry in kept) == held._size <= 5_000
        assert len(held.entries) <= 64 + 20


async def test_memory_is_the_logs_and_a_cursor_per_reader() -> None:
    """A subscription that waits, or that has fallen far behind, holds no events of its own."""
    broker = Broker(history=100, observers=())
    async with broker.subscribe("a") as subscription:
        for n in range(1000):
            await broker.publish("a", str(n))
        own = sum(sys.getsizeof(part) for part in gc.get_referents(subscription) if isinstance(part, list))
        assert sys.getsizeof(subscription) + own < 1200


async def test_health_counts_what_is_there(diary: Diary) -> None:
    """Position, channels, subscriptions and counters, without asking the backend."""
    broker = Broker(observers=[diary])
    health = broker.health()
    assert (health.ok, health.backend, health.position, health.error, health.outage) == (True, "memory", "", None, 0.0)
    async with broker.subscribe(["a", "b"]):
        event_id = await broker.publish("c", "x")
        health = broker.health()
        assert (health.position, health.channels, health.subscriptions, health.published) == (event_id, 3, 1, 1)
    await broker.close()
    assert not broker.health().ok
