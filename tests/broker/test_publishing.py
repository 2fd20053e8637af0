"""What can be published, from where, and what a publisher is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from starlette_sse import JSONServerSentEvent, ServerSentEvent
from starlette_sse.broker import Broker, Position
from starlette_sse.broker.hub import ID_LINE
from starlette_sse.exceptions import (
    BrokerClosedError,
    BrokerError,
    ConfigurationError,
    InvalidEventError,
)
from tests.broker.conftest import Diary, MakeBroker
from tests.broker.reading import publish_together, take, texts

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(backend_and_loop: tuple[str, str]) -> str:
    return backend_and_loop[1]


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (ServerSentEvent("x"), "x"),
        (JSONServerSentEvent("x"), '"x"'),
        ({"data": {"n": 1}}, '{"n":1}'),
        ("line\r\nline", "line\nline"),
        ([1, 2], "[1,2]"),
        (7, "7"),
        (ServerSentEvent("x", sep="\n"), "x"),
    ],
)
async def test_anything_that_can_be_an_event_is_published(make_broker: MakeBroker, event: Any, data: str) -> None:
    """An event, a mapping of its fields, or its data."""
    async with make_broker() as broker, broker.subscribe("a") as subscription:
        event_id = await broker.publish("a", event)
        received = (await take(subscription, 1))[0]
        assert (received.data, received.last_event_id) == (data, event_id)


@pytest.mark.parametrize(
    ("channel", "event", "key", "error", "message"),
    [
        ("a", ServerSentEvent("x", id="7"), None, InvalidEventError, "ids belong to the log"),
        ("a", {"data": "x", "id": 7}, None, InvalidEventError, "ids belong to the log"),
        ("a", b"data: x\n\n", None, InvalidEventError, "ready frame"),
        ("a", {"n": 1}, None, InvalidEventError, "another key"),
        ("a", object(), None, InvalidEventError, "JSON"),
        ("a", "x" * 1_000_000 * 2, None, InvalidEventError, "publish a reference to it"),
        ("", "x", None, ConfigurationError, "channel must be text"),
        (7, "x", None, ConfigurationError, "channel must be text"),
        ("a" * 1025, "x", None, ConfigurationError, "channel must be text"),
        ("\ud800", "x", None, ConfigurationError, "UTF-8"),
        ("a", "x", "", ConfigurationError, "key must be text"),
        ("a", "x", 7, ConfigurationError, "key must be text"),
    ],
)
async def test_what_cannot_be_published_is_refused(
    make_broker: MakeBroker, channel: Any, event: Any, key: Any, error: type[Exception], message: str
) -> None:
    """The error names what is wrong and the remedy, and nothing was published."""
    async with make_broker() as broker:
        with pytest.raises(error, match=message):
            await broker.publish(channel, event, key)
        event_id = await broker.publish("a", "x")
        assert event_id.endswith("-1")


async def test_ids_count_the_log(make_broker: MakeBroker) -> None:
    """An id is the log's epoch and the event's number in it, whatever its channel."""
    async with make_broker() as broker:
        ids = [Position.parse(await broker.publish(channel, "x")) for channel in "aba"]
        assert [position and position.seq for position in ids] == [1, 2, 3]
        assert len({position and position.epoch for position in ids}) == 1


async def test_observers_are_told_of_each_publication(make_broker: MakeBroker, diary: Diary) -> None:
    """With the channel, the id and the size of the frame; one that raises stops neither publisher nor readers."""

    class Broken(Diary):
        def published(self, channel: str, event_id: str, size: int) -> None:
            raise LookupError("an observer's mistake")

    async with make_broker(observers=[Broken(), diary]) as broker, broker.subscribe("a") as subscription:
        event_id = await broker.publish("a", "x")
        frame = b""
        while not frame:
            frame = await subscription.pull()
        assert diary.entries[-1] == ("published", "a", event_id, len(frame))
        assert ("subscribed", ("a",), f"{event_id.split('-')[0]}-0") in diary.entries
        assert broker.health().published == 1


async def test_publishing_from_a_worker_thread(make_broker: MakeBroker) -> None:
    """Sync code in one of anyio's threads publishes, waits until it is done, and gets the id."""
    async with make_broker() as broker, broker.subscribe("a") as subscription:
        event_id = await anyio.to_thread.run_sync(broker.publish_from_thread, "a", "x", "key")
        assert (await take(subscription, 1))[0].last_event_id == event_id


async def in_a_thread(function: Callable[[], Any]) -> Any:
    """Run a function in a thread that no library knows."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except Exception as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    await anyio.to_thread.run_sync(thread.join)
    return outcome[0]


async def test_publishing_from_any_thread(make_broker: MakeBroker) -> None:
    """A thread that anyio does not know publishes too, once the broker is entered; errors come through."""
    async with make_broker() as broker, broker.subscribe("a") as subscription:
        event_id = await in_a_thread(lambda: broker.publish_from_thread("a", "x"))
        assert (await take(subscription, 1))[0].last_event_id == event_id
        error = await in_a_thread(lambda: broker.publish_from_thread("a", object()))
        assert isinstance(error, InvalidEventError)
    error = await in_a_thread(lambda: broker.publish_from_thread("a", "x"))
    assert isinstance(error, BrokerClosedError)


async def test_publishing_from_a_thread_that_is_the_event_loops(make_broker: MakeBroker) -> None:
    """It would wait for itself for ever, so it says what to write instead."""
    async with make_broker() as broker:
        with pytest.raises(BrokerError, match=r"await broker\.publish"):
            broker.publish_from_thread("a", "x")


async def test_publishing_from_a_foreign_thread_needs_a_loop() -> None:
    """A memory broker that was not entered does not know its event loop: the error says to enter it."""
    broker = Broker(observers=())
    error = await in_a_thread(lambda: broker.publish_from_thread("a", "x"))
    assert isinstance(error, BrokerError)
    assert "async with broker" in str(error)
    assert await anyio.to_thread.run_sync(broker.publish_from_thread, "a", "x")


async def test_a_publisher_that_never_waits_does_not_outrun_its_readers() -> None:
    """A loop of publishing lets readers run before the log forgets what they need, however short it is."""
    for history in (2, 7, 1000):
        broker = Broker(history=history, observers=())
        received: list[str] = []

        async def read(broker: Broker = broker, received: list[str] = received) -> None:
            async with broker.subscribe("a") as subscription:
                received.extend(await texts(subscription, 2000))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            for n in range(2000):
                await broker.publish("a", str(n))
        assert received == [str(n) for n in range(2000)]


@pytest.mark.parametrize(("history", "count"), [(1, 3), (16, 50), (1000, 1300), (1000, 5000)])
async def test_publishers_that_come_together_do_not_outrun_their_readers(history: int, count: int) -> None:
    """However many publish at once, each in a task of its own."""
    broker = Broker(history=history, observers=())
    assert sorted(map(int, await publish_together(broker, broker, count))) == list(range(count))


async def test_a_burst_leaves_in_one_send() -> None:
    """Fifty events published at once reach a waiting reader in one pull."""
    broker = Broker(observers=())
    pulls: list[bytes] = []

    async def read() -> None:
        async with broker.subscribe("a") as subscription:
            pulls.append(await subscription.pull())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        for n in range(50):
            await broker.publish("a", str(n))
    assert pulls[0].count(b"data: ") == 50


async def test_publishing_does_not_wait_for_readers(make_broker: MakeBroker) -> None:
    """With a thousand readers that never read, a publication returns all the same."""
    async with make_broker() as broker:
        subscriptions = [broker.subscribe("a") for _ in range(1000)]
        for subscription in subscriptions:
            await subscription.__aenter__()
        with anyio.fail_after(5):
            for n in range(20):
                await broker.publish("a", str(n))
        for subscription in subscriptions:
            await subscription.__aexit__(None, None, None)


async def test_an_event_is_kept_with_its_id_or_refused(make_broker: MakeBroker) -> None:
    """What it is sent with counts as well, so none is larger than ``max_bytes``."""
    around = len(ServerSentEvent("").encode())
    async with make_broker(max_bytes=2000) as broker, broker.subscribe("a") as subscription:
        await broker.publish("a", "x" * (2000 - ID_LINE - around))
        assert len((await anext(subscription)).frame) <= 2000
        with pytest.raises(InvalidEventError, match="max_bytes=2000"):
            await broker.publish("a", "x" * (2001 - ID_LINE - around))
