"""The broker's tasks: what becomes of them, and of who entered the broker, whoever leaves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from starlette_sse import SSEEndpoint, lifespan
from starlette_sse.broker import Broker
from starlette_sse.broker.memory import MemoryBackend
from starlette_sse.closing import follow_closes
from starlette_sse.exceptions import BrokerError
from starlette_sse.presence import count_together
from starlette_sse.testing import nothing_left_running
from tests.broker.conftest import MakeBroker
from tests.broker.reading import texts
from tests.waiting import until

pytestmark = pytest.mark.anyio


class BackendError(Exception):
    pass


class Failing(MemoryBackend):
    """Its serving fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.told = anyio.Event()
        self.closed = False

    async def serve(self) -> None:
        await self.told.wait()
        raise BackendError

    async def close(self) -> None:
        self.closed = True


class Slow(MemoryBackend):
    """It takes its time for each event."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.begun = threading.Event()

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        self.begun.set()
        await anyio.sleep(self.seconds)
        return await super().append(channel, body, key)


class Limited(SSEEndpoint):
    max_connections = 1


def in_a_thread(function: Callable[[], object]) -> list[Any]:
    """Start a thread that is none of anyio's, and return the list that it puts its result or error into."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    threading.Thread(target=run).start()
    return results


async def result_of(results: list[Any]) -> Any:
    """Wait for the thread."""
    await until(lambda: results)
    return results[0]


async def test_a_backend_that_fails_cancels_who_has_entered_the_broker() -> None:
    """The app does not go on as if nothing were; the error comes out, and the backend is closed."""
    backend = Failing()
    with pytest.raises(ExceptionGroup) as raised:
        async with Broker(backend, observers=()):
            backend.told.set()
            await anyio.sleep_forever()
    assert raised.value.subgroup(BackendError) is not None
    assert backend.closed
    await anyio.sleep(0.01)


async def test_a_cancelled_lifespan_closes_the_backend_to_the_end() -> None:
    """What it has to await for that is not cancelled as well."""
    closed: list[bool] = []

    class Thorough(MemoryBackend):
        async def close(self) -> None:
            await checkpoint()
            closed.append(True)

    with anyio.CancelScope() as scope:
        async with Broker(Thorough(), observers=()):
            scope.cancel()
            await anyio.sleep_forever()
    assert closed == [True]


async def test_what_threads_are_publishing_is_published_before_the_end() -> None:
    """The broker waits for those that have begun."""
    backend = Slow(0.1)
    async with nothing_left_running():
        async with Broker(backend, observers=()) as broker:
            results = in_a_thread(lambda: broker.publish_from_thread("a", "x"))
            await until(backend.begun.is_set)
        assert isinstance(await result_of(results), str)


async def test_a_cancelled_lifespan_does_not_wait_for_what_threads_are_publishing() -> None:
    """Their calls are cancelled, and the broker is closed."""
    backend = Slow(3600)
    with anyio.fail_after(5):
        with anyio.CancelScope() as scope:
            async with Broker(backend, observers=()) as broker:
                results = in_a_thread(lambda: broker.publish_from_thread("a", "x"))
                await until(backend.begun.is_set)
                scope.cancel()
                await anyio.sleep_forever()
        assert isinstance(await result_of(results), CancelledError)
    assert not broker.health().ok


@pytest.mark.parametrize("used", [True, False])
async def test_a_cancelled_start_closes_the_backend(used: bool) -> None:
    """The broker is opened again by who enters or uses it next."""
    opened = 0

    class Opening(Failing):
        async def open(self, log: Any) -> None:
            nonlocal opened
            opened += 1
            await super().open(log)

    backend = Opening()
    broker = Broker(backend, observers=())
    if used:
        await broker.publish("a", "x")
    async with nothing_left_running():
        with anyio.CancelScope() as scope:
            scope.cancel()
            await broker.__aenter__()
        assert scope.cancelled_caught
    assert (backend.closed, opened) == (True, 1)
    await broker.publish("a", "x")
    assert opened == 2
    async with broker:
        await broker.publish("a", "x")


async def test_of_two_that_enter_at_once_one_is_refused(make_broker: MakeBroker) -> None:
    """As when two apps that share a broker start together."""
    broker = make_broker()
    entered: list[bool] = []

    async def enter() -> None:
        try:
            async with broker:
                entered.append(True)
                await anyio.wait_all_tasks_blocked()
        except BrokerError:
            entered.append(False)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
        tasks.start_soon(enter)
    assert sorted(entered) == [False, True]
    async with broker:
        await broker.publish("a", "x")


#: For the fixtures that make brokers.
ON_ASYNCIO = pytest.mark.parametrize("backend_and_loop", [("memory", "asyncio"), ("redis", "asyncio")], ids=str)


class TestOnAsyncio:
    """It may be left in another task than it was entered in, as fixtures are."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.mark.usefixtures("backend_and_loop")
    @ON_ASYNCIO
    async def test_a_broker_works_between_two_tasks(self, make_broker: MakeBroker) -> None:
        """Coroutines and threads publish, readers read, and no task is left."""
        broker = make_broker()
        async with nothing_left_running(broker):
            await asyncio.create_task(broker.__aenter__())
            async with broker.subscribe("a") as subscription:
                await broker.publish("a", "x")
                results = in_a_thread(lambda: broker.publish_from_thread("a", "y"))
                assert await texts(subscription, 2) == ["x", "y"]
            await asyncio.create_task(broker.__aexit__(None, None, None))
        assert isinstance(await result_of(results), str)
        assert not broker.health().ok

    @pytest.mark.usefixtures("backend_and_loop")
    @ON_ASYNCIO
    async def test_so_do_all_that_a_lifespan_enters(self, make_broker: MakeBroker) -> None:
        """An exit stack is filled in one task and emptied in another, whatever is in it."""
        broker = make_broker()
        stack = AsyncExitStack()
        managers: list[AbstractAsyncContextManager[Any]] = [
            broker,
            follow_closes(broker),
            count_together(broker, Limited),
            lifespan(),
        ]

        async def fill() -> None:
            for manager in managers:
                await stack.enter_async_context(manager)

        async with nothing_left_running():
            await asyncio.create_task(fill())
            assert broker.health().subscriptions == 2
            await asyncio.create_task(stack.aclose())
            assert broker.health().subscriptions == 0

    async def test_who_leaves_is_told_that_the_backend_failed(self) -> None:
        """Nobody is left to be cancelled."""
        backend = Failing()
        broker = Broker(backend, observers=())
        await asyncio.create_task(broker.__aenter__())
        backend.told.set()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ExceptionGroup) as raised:
            await asyncio.create_task(broker.__aexit__(None, None, None))
        assert raised.value.subgroup(BackendError) is not None
        assert backend.closed

    async def test_a_timeout_around_the_leaving_holds(self) -> None:
        """It ends what threads wait for."""
        backend = Slow(3600)
        broker = Broker(backend, observers=())
        await asyncio.create_task(broker.__aenter__())
        results = in_a_thread(lambda: broker.publish_from_thread("a", "x"))
        await until(backend.begun.is_set)
        with anyio.move_on_after(0.05) as scope:
            await broker.__aexit__(None, None, None)
        assert scope.cancelled_caught
        assert isinstance(await result_of(results), CancelledError)


def test_a_loop_that_ends_takes_the_broker_along() -> None:
    """A fixture that nobody tears down, as after an interrupt, keeps no event loop from ending."""
    asyncio.run(Broker(observers=()).__aenter__())
