"""From the backend's pages to the log that is held here, and back: nothing twice, nothing lost in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from starlette_sse.broker import Broker, Gap, Page, Position, ResetReason, Subscription
from starlette_sse.broker.entries import Entry
from starlette_sse.broker.positions import new_epoch
from starlette_sse.broker.redis import RedisBackend
from starlette_sse.broker.subscription import RETRY
from starlette_sse.exceptions import BrokerClosedError, BrokerUnavailableError
from starlette_sse.testing import virtual_backend
from tests.broker.clients import Client, Ledger
from tests.broker.reading import settle, take, texts
from tests.broker.redis_server import RedisServer
from tests.waiting import until

pytestmark = pytest.mark.anyio

on_redis = pytest.mark.parametrize("anyio_backend", ["asyncio"])
on_virtual_time = pytest.mark.parametrize(
    "anyio_backend", [virtual_backend("asyncio"), virtual_backend("trio")], ids=["asyncio", "trio"]
)


class LateNews:
    """Holds back what a Redis broker hears, as a slow network does."""

    def __init__(self, broker: Broker) -> None:
        assert isinstance(broker._backend, RedisBackend)
        self._listener = broker._backend._listener
        self._listener._held = []

    async def arrive(self, count: int) -> None:
        await until(lambda: len(self._listener._held or ()) >= count)
        held, self._listener._held = self._listener._held or [], None
        for name, message in held:
            self._listener._take(name, message)


@on_redis
@pytest.mark.parametrize("channels", [["a"], ["a", "b"]])
async def test_what_a_page_brought_is_not_brought_by_the_news(shared_redis: RedisServer, channels: list[str]) -> None:
    """A client that is ahead of this process reads the streams; the same events, heard later, are passed over."""
    async with Broker(shared_redis.url, prefix=new_epoch(), observers=()) as broker:
        async with broker.subscribe(channels) as live:
            await broker.publish("a", "0")
            await texts(live, 1)
            late = LateNews(broker)
            first, *_ = [await broker.publish(name, "1") for name in channels]
            for name in channels:
                await broker.publish(name, "2")
            async with broker.subscribe(channels, first) as ahead:
                missed = len(channels) * 2 - 1
                assert sorted(await texts(ahead, missed)) == ["1"] * (missed - len(channels)) + ["2"] * len(channels)
                await late.arrive(2 * len(channels))
                await broker.publish(channels[-1], "3")
                assert await texts(ahead, 1) == ["3"]
            assert len(await texts(live, 2 * len(channels) + 1)) == 2 * len(channels) + 1


@on_redis
@pytest.mark.parametrize("channels", [["a"], ["a", "b"]])
async def test_news_of_what_a_client_has_is_passed_over(shared_redis: RedisServer, channels: list[str]) -> None:
    """A client comes from another process with an id that is not yet heard of here: it is not sent that again."""
    async with Broker(shared_redis.url, prefix=new_epoch(), observers=()) as broker:
        async with broker.subscribe(channels):
            await broker.publish("a", "0")
            await settle(broker)
            late = LateNews(broker)
            known = await broker.publish("a", "1")
            async with broker.subscribe(channels, known) as ahead:
                assert await ahead.pull() == b""
                assert ahead.position == known
                await late.arrive(1)
                assert await ahead.pull() == b""
                await broker.publish("a", "2")
                assert await texts(ahead, 1) == ["2"]


@on_redis
async def test_a_late_reader_reads_the_streams_at_its_own_pace(shared_redis: RedisServer) -> None:
    """A process that has just started holds nothing: a client that was away is served by pages, then from the log."""
    prefix = new_epoch()
    ledger = Ledger()
    async with Broker(shared_redis.url, prefix=prefix, observers=()) as old:
        client = Client(old, ["a", "b"])
        await client.connect()
        await client.disconnect()
        for n in range(400):
            await ledger.publish(old, "abc"[n % 3], padding=1000)
    async with Broker(shared_redis.url, prefix=prefix, observers=()) as new:
        client.broker = new
        await client.connect()
        sizes = [await client.read()]
        while client.last_event_id != str([event for event in ledger.events if event[0] != "c"][-1][1]):
            sizes.append(await client.read())
        assert max(sizes) < 65536 + 2000
        assert len(sizes) > 4
        await ledger.publish(new, "b")
        await client.read_up_to(ledger.events[-1][1])
        client.check(ledger)
        assert client.resets == []
        await client.disconnect()


async def test_a_long_replay_of_several_channels_is_merged() -> None:
    """More of each channel than one pull takes, in long runs: every event of both comes, in one order."""
    broker = Broker(history=2000, observers=())
    start = await broker.publish("c", "start")
    sent = [f"{name}{n}" for run in range(4) for name in "ab" for n in range(run * 400, run * 400 + 400)]
    for text in sent:
        await broker.publish(text[0], text)
    async with broker.subscribe(["a", "b"], start) as subscription:
        assert await texts(subscription, len(sent)) == sent
    async with broker.subscribe(["a", "b"], start) as subscription:
        assert [entry.event and entry.event.data for entry in [await anext(subscription) for _ in sent]] == sent


async def test_a_break_during_a_read_is_one_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Continuity is broken while the backend answers that it is: the reader is told once."""
    broker = Broker(observers=())
    await broker.publish("a", "x")

    async def read(channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        monkeypatch.undo()
        for subscriber in broker._log.subscribers:
            subscriber.interrupt(ResetReason.LOST)
        return broker._log.gap(channels, ResetReason.EPOCH)

    monkeypatch.setattr(broker._backend, "read", read)
    async with broker.subscribe("a", "foreign0-1") as subscription:
        await broker.publish("a", "y")
        assert (await take(subscription, 1))[0].type == "stream-reset"
        await broker.publish("a", "z")
        assert await texts(subscription, 1) == ["z"]
    assert broker.health().resets == 1


@pytest.mark.parametrize("answer", ["page", "gap"])
async def test_a_close_during_a_read_is_what_the_reader_is_told(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the backend still answers: no event, no reset and no word of slowness."""
    broker = Broker(observers=())
    await broker.publish("a", "x")
    entry = Entry(channel="a", epoch="another0", seq=1, prev=0, frame=b"data: late\r\n\r\n")

    async def read(channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        gap = broker._log.gap(channels, ResetReason.EVICTED)
        await broker.close()
        return Page([entry], Position("another0", 1)) if answer == "page" else gap

    monkeypatch.setattr(broker._backend, "read", read)
    async with broker.subscribe("a", "another0-0") as subscription:
        assert await subscription.pull() == b""
        with pytest.raises(BrokerClosedError):
            await subscription.pull()
    assert broker.health().resets == 0


async def test_a_page_that_cannot_be_read_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend fails once: the stream stays open, can be woken meanwhile, and goes on."""
    broker = Broker(observers=())
    start = await broker.publish("a", "x")
    await broker.publish("a", "y")
    calls: list[Any] = []

    async def read(channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        calls.append(after)
        if len(calls) < 3:
            raise BrokerUnavailableError("for a moment")
        return broker._log.read(channels, after, limit)

    monkeypatch.setattr(broker._backend, "read", read)
    monkeypatch.setattr("starlette_sse.broker.subscription.RETRY", 0.01)
    async with broker.subscribe("a", "foreign0-1") as subscription:
        subscription.wake()
        assert await subscription.pull() == b""
        assert (await take(subscription, 1))[0].type == "stream-reset"
    assert len(calls) == 3
    assert start


async def pull_for_ever(subscription: Subscription, pulled: list[tuple[float, bytes]]) -> None:
    """Pull as a stream does, and note when what came."""
    while True:
        frames = await subscription.pull()
        pulled.append((anyio.current_time(), frames))


@on_virtual_time
async def test_who_is_behind_rests_while_the_backend_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as that takes: nothing is asked and nobody is woken, until the backend is back."""
    broker = Broker(observers=())
    await broker.publish("a", "x")
    reads: list[Position] = []

    async def read(channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        reads.append(after)
        return broker._log.read(channels, after, limit)

    monkeypatch.setattr(broker._backend, "read", read)
    pulled: list[tuple[float, bytes]] = []
    async with broker.subscribe("a", "foreign0-1") as subscription, anyio.create_task_group() as tasks:
        broker._log.lost(BrokerUnavailableError("away"))
        tasks.start_soon(pull_for_ever, subscription, pulled)
        await anyio.sleep(3600)
        assert (reads, pulled) == ([], [])
        broker._log.found()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert reads == [Position("foreign0", 1)]
    assert b"stream-reset" in pulled[-1][1]


@on_virtual_time
async def test_pages_of_another_log_are_sent_at_once_and_asked_for_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backend's log was replaced and this process has not heard of it yet: what is there comes without a pause."""
    broker = Broker(observers=())
    pages = [Page([], Position("another0", 2))]
    for seq in (2, 1):
        entry = Entry(channel="a", epoch="another0", seq=seq, prev=seq - 1, frame=b"data: %d\r\n\r\n" % seq)
        pages.append(Page([entry], Position("another0", seq)))

    async def read(channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        asked.append(anyio.current_time())
        assert len(asked) < 10
        await anyio.lowlevel.checkpoint()
        return pages.pop() if len(pages) > 1 else pages[0]

    monkeypatch.setattr(broker._backend, "read", read)
    asked: list[float] = []
    pulled: list[tuple[float, bytes]] = []
    async with broker.subscribe("a", "another0-0") as subscription, anyio.create_task_group() as tasks:
        start = anyio.current_time()
        tasks.start_soon(pull_for_ever, subscription, pulled)
        await anyio.sleep(2.5 * RETRY)
        tasks.cancel_scope.cancel()
    assert [(round(time - start, 6), frames) for time, frames in pulled if frames] == [
        (0.0, b"data: 1\r\n\r\n"),
        (0.0, b"data: 2\r\n\r\n"),
    ]
    assert [time - start for time in asked] == pytest.approx([0, 0, 0, RETRY, 2 * RETRY])


@on_redis
async def test_a_reader_that_lags_behind_the_process_reads_the_streams(shared_redis: RedisServer) -> None:
    """What left the log that is held here may still be in the streams, and then nothing is lost."""
    prefix = new_epoch()
    ledger = Ledger()
    async with (
        Broker(shared_redis.url, prefix=prefix, observers=(), history=1000) as large,
        Broker(shared_redis.url, prefix=prefix, observers=(), history=10) as small,
    ):
        client = Client(small, ["a"])
        await client.connect()
        for _ in range(50):
            await ledger.publish(large, "a")
        await settle(small)
        await client.read_up_to(ledger.events[-1][1])
        client.check(ledger)
        assert client.resets == []
        await client.disconnect()
