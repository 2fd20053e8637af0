"""What a subscription gets while it keeps up, and where it says that it is."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from starlette_sse import ServerSentEvent
from starlette_sse.broker import Broker, Entry, Position
from starlette_sse.decoding import EventDecoder
from starlette_sse.exceptions import BrokerError
from tests.broker.conftest import MakeBroker
from tests.broker.reading import settle, texts

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(backend_and_loop: tuple[str, str]) -> str:
    return backend_and_loop[1]


def data_of(frames: bytes) -> list[str]:
    return [event.data for event in EventDecoder().feed(frames)]


async def test_every_subscriber_gets_the_same_bytes(make_broker: MakeBroker) -> None:
    """An event is encoded once, id included, and each subscriber is handed that object."""
    async with make_broker() as broker, broker.subscribe("a") as one, broker.subscribe(["a", "b"]) as other:
        event_id = await broker.publish("a", ServerSentEvent({"n": 1}, event="tick", retry=5, comment="c"))
        with anyio.fail_after(5):
            frame = await one.pull() or await one.pull()
            assert (await other.pull() or await other.pull()) is frame
        assert frame == f'id: {event_id}\r\n: c\r\nevent: tick\r\ndata: {{"n":1}}\r\nretry: 5\r\n\r\n'.encode()


async def test_channels_are_merged_in_the_order_of_publishing(make_broker: MakeBroker) -> None:
    """A subscription to several channels gets one order: the log's."""
    async with make_broker() as broker, broker.subscribe(["a", "b", "c"]) as subscription:
        sent = [f"{channel}{n}" for n, channel in enumerate("abcbacabbc")]
        for text in sent:
            await broker.publish(text[0], text)
        assert await texts(subscription, 10) == sent
        assert subscription.delivered == 10


async def test_what_is_ready_together_leaves_together(make_broker: MakeBroker) -> None:
    """Events that were published before the reader looks come in one pull, to single and merged readers alike."""
    async with make_broker() as broker, broker.subscribe("a") as one, broker.subscribe(["a", "b"]) as both:
        for n in range(50):
            await broker.publish("ab"[n % 2], str(n))
        await settle(broker)
        assert data_of(await one.pull()) == [str(n) for n in range(0, 50, 2)]
        assert data_of(await both.pull()) == [str(n) for n in range(50)]


async def test_nothing_is_taken_from_a_reader_that_does_not_wait(make_broker: MakeBroker) -> None:
    """What is there, its own task is about to take."""
    async with make_broker() as broker, broker.subscribe("a") as subscription:
        await broker.publish("a", "x")
        await settle(broker)
        assert subscription.take() == b""
        assert await texts(subscription, 1) == ["x"]


async def test_a_pull_is_bounded(make_broker: MakeBroker) -> None:
    """However much is ready, one pull returns about 64 KiB, and the next ones the rest."""
    async with make_broker() as broker, broker.subscribe("a") as one, broker.subscribe(["a", "b"]) as both:
        for n in range(40):
            await broker.publish("a", f"{n} " + "x" * 10_000)
        for subscription in (one, both):
            received: list[str] = []
            with anyio.fail_after(5):
                while len(received) < 40:
                    frames = await subscription.pull()
                    assert len(frames) < 65536 + 10_100
                    received += data_of(frames)
            assert [text.split()[0] for text in received] == [str(n) for n in range(40)]


async def test_wake_makes_a_waiting_pull_return(make_broker: MakeBroker) -> None:
    """Woken with nothing ready, a pull returns nothing; a wake before the pull counts too."""
    async with make_broker() as broker, broker.subscribe("a") as subscription:
        subscription.wake()
        assert await subscription.pull() == b""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wake_later, subscription)
            with anyio.fail_after(5):
                assert await subscription.pull() == b""
        await broker.publish("a", "x")
        assert await texts(subscription, 1) == ["x"]


async def wake_later(subscription: Any) -> None:
    await anyio.wait_all_tasks_blocked()
    subscription.wake()


async def test_a_cancelled_pull_loses_nothing(make_broker: MakeBroker) -> None:
    """A pull that is cancelled while it waits, or just when an event comes, returns that or leaves it for the next."""
    received: list[str] = []

    async def pull() -> None:
        received.extend(data_of(await subscription.pull()))

    async with make_broker() as broker, broker.subscribe("a") as subscription:
        for n in range(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pull)
                await anyio.wait_all_tasks_blocked()
                if n % 2:
                    await broker.publish("a", str(n))
                tasks.cancel_scope.cancel()
        if len(received) < 10:
            received += await texts(subscription, 10 - len(received))
    assert received == [str(n) for n in range(1, 20, 2)]


async def test_iterating_gives_entries(make_broker: MakeBroker) -> None:
    """``async for`` gives each event with its channel, id, key, frame and content, one at a time, in order."""
    async with make_broker() as broker, broker.subscribe(["a", "b"]) as subscription:
        ids = [await broker.publish("ab"[n % 2], ServerSentEvent(str(n), event="tick"), f"k{n}") for n in range(6)]
        entries: list[Entry] = []
        with anyio.fail_after(5):
            async for entry in subscription:
                entries.append(entry)
                assert subscription.position == entry.id
                if len(entries) == 6:
                    break
        assert [entry.id for entry in entries] == ids
        assert [entry.channel for entry in entries] == list("ababab")
        assert [entry.key for entry in entries] == [f"k{n}" for n in range(6)]
        assert [entry.event and (entry.event.type, entry.event.data) for entry in entries] == [
            ("tick", str(n)) for n in range(6)
        ]
        assert subscription.delivered == 6


async def test_an_event_without_data_has_no_event(make_broker: MakeBroker) -> None:
    """A comment is delivered, though no listener of a client's would see it."""
    async with make_broker() as broker, broker.subscribe("a") as subscription:
        await broker.publish("a", ServerSentEvent(comment="hello"))
        with anyio.fail_after(5):
            entry = await anext(subscription)
        assert entry.event is None
        assert b": hello\r\n" in entry.frame


async def test_the_position_moves_with_the_log(make_broker: MakeBroker) -> None:
    """A reader that has everything of its channels may resume behind other channels' events too."""
    async with make_broker() as broker, broker.subscribe("a") as subscription, broker.subscribe("b") as other:
        assert subscription.resume_id == subscription.position
        event_id = await broker.publish("b", "not for a")
        await texts(other, 1)
        assert subscription.position == event_id == other.position
        mine = await broker.publish("a", "for a")
        await texts(subscription, 1)
        assert subscription.position == mine


async def test_a_reader_with_something_ready_is_before_it(make_broker: MakeBroker) -> None:
    """Before an event was pulled, the position is not behind it."""
    async with make_broker() as broker, broker.subscribe("a") as subscription, broker.subscribe("a") as other:
        before = subscription.position
        await broker.publish("a", "x")
        await texts(other, 1)
        assert subscription.position == before
        assert await texts(subscription, 1) == ["x"]
        assert subscription.position == other.position


async def test_it_begins_where_it_subscribed(make_broker: MakeBroker) -> None:
    """Without an id a reader gets what is published from now on, and its position is there at once."""
    async with make_broker() as broker, broker.subscribe("a"):
        event_id = await broker.publish("a", "before")
        await settle(broker)
        async with broker.subscribe("a") as subscription:
            position, published = Position.parse(subscription.position), Position.parse(event_id)
            assert position is not None
            assert published is not None
            assert position >= published
            await broker.publish("a", "after")
            assert await texts(subscription, 1) == ["after"]


async def test_one_channel_may_be_given_as_text(make_broker: MakeBroker) -> None:
    """A name alone is one channel, not its letters; a name given twice is read once."""
    async with make_broker() as broker, broker.subscribe("news") as one, broker.subscribe(["news", "news"]) as two:
        await broker.publish("news", "x")
        assert one.channels == two.channels == ("news",)
        assert await texts(one, 1) == await texts(two, 1) == ["x"]


async def test_two_tasks_cannot_read_one_subscription(make_broker: MakeBroker) -> None:
    """Two readers of one cursor would each get half; the second is told so."""
    async with make_broker() as broker, broker.subscribe("a") as subscription:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscription.pull)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(BrokerError, match="subscribe once for each"):
                await subscription.pull()
            tasks.cancel_scope.cancel()


async def test_a_subscription_is_entered_once(make_broker: MakeBroker) -> None:
    """It cannot be read before it is entered, nor after it has ended, nor entered twice: each says so.

    To leave what was never entered is nothing.
    """
    async with make_broker() as broker:
        subscription = broker.subscribe("a")
        with pytest.raises(BrokerError, match="enter the subscription first"):
            await subscription.pull()
        subscription.leave()
        async with subscription:
            with pytest.raises(BrokerError, match="entered once"):
                await subscription.__aenter__()
        with pytest.raises(BrokerError, match="has ended"):
            await subscription.pull()
        with pytest.raises(BrokerError, match="has ended"):
            await anext(subscription)


async def test_a_thousand_readers_of_one_place_share_the_joined_bytes() -> None:
    """Readers that lag together are handed one object, so a burst is joined once."""
    broker = Broker(observers=())
    async with broker.subscribe("a") as one, broker.subscribe("a") as other:
        for n in range(5):
            await broker.publish("a", str(n))
        assert await one.pull() is await other.pull()
