"""A broker outlives event loops, and belongs to one at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import redis
import trio
from redis.asyncio.connection import AbstractConnection
from trio.testing import MockClock

from starlette_sse.broker import Broker, Subscription
from starlette_sse.exceptions import BrokerClosedError, BrokerError
from starlette_sse.testing.virtual_time import AsyncioVirtualClock
from tests.broker.reading import take, texts
from tests.broker.redis_server import RedisServer
from tests.waiting import until

LOOPS = ["asyncio", "trio"]

#: Options that make a run of each on virtual time.
VIRTUAL: dict[str, Callable[[], dict[str, Any]]] = {
    "asyncio": lambda: {"loop_factory": AsyncioVirtualClock()},
    "trio": lambda: {"clock": MockClock(autojump_threshold=0)},
}


@pytest.mark.parametrize("first", LOOPS)
@pytest.mark.parametrize("second", LOOPS)
def test_a_memory_broker_made_at_import_works_in_one_loop_after_another(first: str, second: str) -> None:
    """A broker at module level serves test after test, each with a loop of its own, and keeps its log."""
    broker = Broker(observers=())

    async def publish() -> str:
        async with broker.subscribe("a") as subscription:
            event_id = await broker.publish("a", "x")
            assert await texts(subscription, 1) == ["x"]
            return event_id

    async def resume(event_id: str) -> None:
        async with broker.subscribe("a", event_id) as subscription:
            await broker.publish("a", "y")
            assert await texts(subscription, 1) == ["y"]

    event_id = anyio.run(publish, backend=first)
    anyio.run(resume, event_id, backend=second)


def test_ages_go_on_in_another_event_loop() -> None:
    """Every loop has a clock of its own, and the log's does not jump between them."""
    broker = Broker(observers=())

    async def now() -> float:
        await broker.publish("a", "x")
        return broker._log.now()

    times = [anyio.run(now, backend=loop) for loop in (*LOOPS, *LOOPS)]
    assert times == sorted(times)
    assert times[-1] - times[0] < 60


def run_virtual(function: Callable[[], Coroutine[Any, Any, None]], loop: str) -> None:
    """Run a function on virtual time; the oldest anyio that is allowed passes no options on to trio."""
    if loop == "trio":
        trio.run(function, **VIRTUAL[loop]())
    else:
        anyio.run(function, backend=loop, backend_options=VIRTUAL[loop]())


@pytest.mark.parametrize("first", VIRTUAL)
@pytest.mark.parametrize("second", VIRTUAL)
def test_events_expire_on_virtual_time_in_one_run_after_another(first: str, second: str) -> None:
    """A broker at module level serves test after test, each of which may begin where its clock is at 0 again."""
    broker = Broker(max_age=60.0, observers=())

    async def publish() -> None:
        await anyio.sleep(3600.0)
        await broker.publish("a", "x")
        await anyio.sleep(20.0)

    async def wait() -> None:
        await broker.publish("b", "x")
        for seconds, channels in [(39.0, 2), (2.0, 1), (18.0, 1), (2.0, 0)]:
            await anyio.sleep(seconds)
            assert broker.health().channels == channels

    for function, loop in [(publish, first), (wait, second)]:
        run_virtual(function, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_clock_goes_on_when_the_event_loop_has_ended(loop: str) -> None:
    """How long the backend has been away can be asked afterwards."""
    broker = Broker(observers=())

    async def lose() -> None:
        async with broker:
            broker._log.lost(OSError("away"))
            await anyio.sleep(100.0)

    run_virtual(lose, loop)
    assert 100.0 <= broker.health().outage < 160.0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_memory_broker_can_be_entered_again(loop: str) -> None:
    """Each lifespan has a log of its own: an id of the last one gives a reset, not another's events."""
    broker = Broker(observers=())

    async def live(after: str | None) -> str:
        async with broker:
            async with broker.subscribe("a", after) as subscription:
                if after is not None:
                    assert (await take(subscription, 1))[0].type == "stream-reset"
                event_id = await broker.publish("a", "x")
                assert await texts(subscription, 1) == ["x"]
            assert broker.health().ok
        assert not broker.health().ok
        with pytest.raises(BrokerClosedError):
            await broker.publish("a", "x")
        return event_id

    before = anyio.run(live, None, backend=loop)
    after = anyio.run(live, before, backend=loop)
    assert before != after
    assert broker.health().resets == 1


def test_a_redis_broker_can_be_entered_again(shared_redis: RedisServer) -> None:
    """The log is the server's, so it goes on."""
    broker = Broker(shared_redis.url, prefix="again", observers=())

    async def live(after: str | None) -> str:
        async with broker, broker.subscribe("a", after) as subscription:
            event_id = await broker.publish("a", "x")
            assert await texts(subscription, 1) == ["x"]
            return event_id

    after = None
    for number in range(1, 4):
        after = anyio.run(live, after)
        assert after.endswith(f"-{number}")


@pytest.mark.parametrize(
    "use_of", [lambda broker: broker.subscribe("a"), lambda broker: broker], ids=["read", "entered"]
)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_broker_in_use_refuses_another_loop(loop: str, use_of: Callable[[Broker], Any]) -> None:
    """Two loops at once would corrupt the log; the error says what to do."""
    broker = Broker(observers=())
    ready, done = threading.Event(), threading.Event()

    async def hold() -> None:
        async with use_of(broker):
            ready.set()
            while not done.is_set():
                await anyio.sleep(0.01)

    def run() -> None:
        anyio.run(hold, backend=loop)

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)

    async def use() -> None:
        with pytest.raises(BrokerError, match="publish_from_thread"):
            await broker.publish("a", "x")

    try:
        anyio.run(use, backend=loop)
    finally:
        done.set()
        thread.join(10)

    async def use_again() -> None:
        async with broker:
            await broker.publish("a", "x")

    anyio.run(use_again, backend=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_entering_twice_is_refused(loop: str) -> None:
    """A broker in the lifespans of two apps would be closed by the first; the error says to enter it once."""

    async def use() -> None:
        async with Broker(observers=()) as broker:
            with pytest.raises(BrokerError, match="entered already"):
                await broker.__aenter__()
            assert await broker.publish("a", "x")

    anyio.run(use, backend=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_entering_keeps_what_was_published_before(loop: str) -> None:
    """A memory broker that was used before its lifespan keeps its log."""

    async def use() -> None:
        broker = Broker(observers=())
        event_id = await broker.publish("a", "x")
        await broker.publish("a", "y")
        async with broker, broker.subscribe("a", event_id) as subscription:
            assert await texts(subscription, 1) == ["y"]

    anyio.run(use, backend=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_error_in_the_lifespan_comes_out_as_it_is(loop: str) -> None:
    """The broker wraps nobody's error into a group."""

    async def use() -> None:
        async with Broker(observers=()):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        anyio.run(use, backend=loop)


def test_nothing_is_left_running(shared_redis: RedisServer) -> None:
    """When the broker is closed no task and no connection is left, whatever its subscriptions do."""

    async def use() -> Any:
        before = len(str(shared_redis.command("CLIENT", "LIST")).splitlines())
        async with Broker(shared_redis.url, observers=()) as broker:
            subscription = await broker.subscribe("a").__aenter__()
            await broker.publish("a", "x")
        await subscription.__aexit__(None, None, None)
        await until(lambda: len(shared_redis.command("CLIENT", "LIST").splitlines()) <= before)

    anyio.run(use)


def test_a_connection_that_cannot_be_closed_does_not_hold_up_the_end(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by TLS says farewell, and a server that has gone does not answer that."""
    disconnect = AbstractConnection.disconnect

    async def disconnect_in_vain(self: AbstractConnection, nowait: bool = False, **options: Any) -> None:
        await disconnect(self, nowait=True, **options)
        if not nowait:
            raise redis.TimeoutError("Timed out closing connection")

    async def use() -> None:
        async with Broker(own_redis.url, observers=()) as broker:
            await broker.publish("a", "x")
            monkeypatch.setattr(AbstractConnection, "disconnect", disconnect_in_vain)
        assert not broker.health().ok

    anyio.run(use)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_has_not_looked_yet_hears_that_its_broker_was_closed(loop: str) -> None:
    """Though that was entered again meanwhile."""
    broker = Broker(observers=())

    async def main() -> None:
        async with broker:
            subscription = await broker.subscribe("a").enter()
        async with broker:
            with pytest.raises(BrokerClosedError):
                await subscription.pull()
        subscription.leave()

    anyio.run(main, backend=loop)


@pytest.mark.parametrize("followed", [False, True])
def test_who_waits_in_a_loop_that_is_over_holds_up_nobody(followed: bool) -> None:
    """A loop that was closed without an end of its tasks leaves its readers behind."""
    broker = Broker(observers=())

    class Lane:
        def offer(self, frames: bytes) -> bool:
            raise AssertionError("its loop is over")

    async def begin(subscription: Subscription) -> asyncio.Task[bytes]:
        await subscription.enter()
        if followed:
            subscription.send_by(Lane())
        pulling = asyncio.ensure_future(subscription.pull())
        while not subscription.resting:
            await asyncio.sleep(0)
        return pulling

    async def read() -> None:
        async with broker.subscribe("a") as subscription:
            await broker.publish("a", "x")
            assert await texts(subscription, 1) == ["x"]

    loop, subscription = asyncio.new_event_loop(), broker.subscribe("a")
    pulling = loop.run_until_complete(begin(subscription))
    loop.close()
    anyio.run(read)
    # Else asyncio would complain of it, as it should.
    pulling._log_destroy_pending = False  # type: ignore[attr-defined]
