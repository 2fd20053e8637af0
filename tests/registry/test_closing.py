"""Streams are ended in every process of the app by way of its broker."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.requests import Request

from starlette_sse import (
    Broker,
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    CloseReason,
    ConfigurationError,
    EventSourceResponse,
    ServerSentEvent,
    SSEEndpoint,
)
from starlette_sse.broker.log import Log
from starlette_sse.broker.memory import MemoryBackend
from starlette_sse.closing import CHANNEL, close_everywhere, follow_closes
from tests.broker.redis_server import running as redis_running
from tests.responses.exchanges import Exchange
from tests.servers.client import EventStream
from tests.servers.processes import ROOT, running
from tests.visits import Visit

pytestmark = pytest.mark.anyio


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The ports of two processes that share a Redis."""

    def uvicorn(port: int) -> list[str]:
        return [sys.executable, "-m", "uvicorn", "tests.registry.cluster:app", "--port", str(port)]

    with redis_running(tmp_path) as redis, ExitStack() as stack:
        environ = {"PYTHONPATH": str(ROOT), "SSE_TEST_BROKER": redis.url}
        first, second = (stack.enter_context(running(uvicorn, tmp_path, environ=environ)) for _ in range(2))
        yield first.port, second.port


def test_an_order_reaches_the_other_process(two: tuple[int, int]) -> None:
    """The streams that it means end, cleanly, wherever they are; the others stay."""
    with ExitStack() as stack:

        def opened(path: str) -> list[EventStream]:
            return [stack.enter_context(EventStream(port, path)) for port in two]

        ann, bob, others = opened("/ticks?user=ann"), opened("/ticks?user=bob"), opened("/others?user=cid")
        processes = {stream.next().data for stream in (*ann, *bob, *others)}
        assert len(processes) == 2
        assert httpx.post(f"http://127.0.0.1:{two[0]}/close?user=ann").status_code == 204
        assert [stream.rest() for stream in ann] == [[], []]
        assert httpx.post(f"http://127.0.0.1:{two[1]}/close").status_code == 204
        assert [stream.rest() for stream in others] == [[], []]
        # What ends the others must not have ended these: they end by their own order.
        assert httpx.post(f"http://127.0.0.1:{two[1]}/close?user=bob").status_code == 204
        assert [stream.rest() for stream in bob] == [[], []]


class Ticks(SSEEndpoint):
    observers = ()
    reasons: list[CloseReason]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.reasons = []

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "in"
        await anyio.sleep_forever()

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        self.reasons.append(reason)


async def test_an_order_names_a_client_a_class_a_stream_or_all() -> None:
    """By the same criteria as in one process."""

    class One(Ticks):
        pass

    class Two(One):
        pass

    class Else(Ticks):
        pass

    async with Broker(observers=()) as broker, follow_closes(broker):
        visits = [Visit(kind, client) for kind in (One, Two, Else) for client in ("a", "b")]
        async with anyio.create_task_group() as tasks:
            for visit in visits:
                tasks.start_soon(visit.run)
            await anyio.sleep(1.0)
            await close_everywhere(broker, client_key="a", endpoint=One)
            await anyio.sleep(1.0)
            assert [len(kind.reasons) for kind in (One, Two, Else)] == [1, 1, 0]
            await close_everywhere(broker, endpoint=One)
            await anyio.sleep(1.0)
            assert [len(kind.reasons) for kind in (One, Two, Else)] == [2, 2, 0]
            await close_everywhere(broker, connection_id="nobody's")
            await anyio.sleep(1.0)
            assert len(Else.reasons) == 0
            await close_everywhere(broker)
        assert {*One.reasons, *Two.reasons, *Else.reasons} == {CloseReason.CLOSED}


async def test_an_order_reaches_a_request_that_is_still_being_answered() -> None:
    """It ends as soon as it is open."""
    let_in = anyio.Event()

    class Own(Ticks):
        async def on_connect(self, request: Request) -> None:
            await let_in.wait()

    async with Broker(observers=()) as broker, follow_closes(broker), anyio.create_task_group() as tasks:
        tasks.start_soon(Visit(Own).run)
        await anyio.sleep(1.0)
        await close_everywhere(broker, endpoint=Own)
        await anyio.sleep(1.0)
        let_in.set()
    assert Own.reasons == [CloseReason.CLOSED]


@pytest.mark.parametrize("criteria", [{"client_key": None}, {"connection_id": None}, {"endpoint": "Ticks"}])
async def test_an_order_that_cannot_be_meant_is_not_published(criteria: dict[str, Any]) -> None:
    """As in one process."""
    broker = Broker(observers=())
    with pytest.raises(ConfigurationError):
        await close_everywhere(broker, **criteria)
    assert broker.health().published == 0


async def test_what_is_no_broker_is_refused() -> None:
    """By name, and not by what it lacks."""
    url: Any = "memory://"
    with pytest.raises(ConfigurationError, match="broker must be a Broker, not 'memory://'"):
        await close_everywhere(url)
    with pytest.raises(ConfigurationError, match="broker must be a Broker, not 'memory://'"):
        async with follow_closes(url):
            pass


async def test_an_order_for_a_class_leaves_the_streams_of_responses_alone() -> None:
    """They are of none; and the next order is followed as well."""

    async def idle() -> AsyncIterator[str]:
        await anyio.sleep_forever()
        yield ""

    exchange = Exchange(leaves_after=100)
    async with Broker(observers=()) as broker, follow_closes(broker), anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.run, EventSourceResponse(idle(), ping=0))
        await anyio.sleep(1)
        await close_everywhere(broker, endpoint=SSEEndpoint)
        await anyio.sleep(1)
        assert not exchange.complete
        await close_everywhere(broker)
        await anyio.sleep(1)
        assert exchange.complete


async def test_what_else_the_broker_tells_closes_nothing() -> None:
    """Such as that orders may have been lost."""

    class Own(Ticks):
        pass

    visit = Visit(Own)
    async with Broker(observers=()) as broker, follow_closes(broker):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit.run)
            await anyio.sleep(1.0)
            await broker.publish(CHANNEL, {"event": "stream-reset", "data": {}})
            await anyio.sleep(1.0)
            assert Own.reasons == []
            visit.left.set()


@pytest.mark.parametrize(
    "order",
    ["garbage", "[]", '"client"', '{"tenant": "x"}', '{"endpoint": ["a"]}', '{"connection_id": "x", "tenant": "y"}'],
)
async def test_an_order_that_is_not_understood_ends_nothing(order: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not its streams, and not the app, which logs the first of them and follows the next that it understands."""

    class Own(Ticks):
        pass

    visit = Visit(Own)
    async with Broker(observers=()) as broker, follow_closes(broker):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit.run)
            await anyio.sleep(1.0)
            for _ in range(3):
                await broker.publish(CHANNEL, ServerSentEvent(order, event="close"))
            await anyio.sleep(1.0)
            assert Own.reasons == []
            await close_everywhere(broker, endpoint=Own)
    assert Own.reasons == [CloseReason.CLOSED]
    assert len([record for record in caplog.records if "is not understood" in record.getMessage()]) == (
        0 if order == '{"endpoint": ["a"]}' else 1
    )


async def test_a_process_that_has_fallen_behind_follows_the_next_order() -> None:
    """What the log no longer has cannot be followed, and that ends no app."""

    class Own(Ticks):
        pass

    class Unfair(MemoryBackend):
        """Lets nobody read while there is something to write."""

        async def _take_turn(self, size: int) -> None: ...

    async with Broker(Unfair(), history=2, observers=()) as broker, follow_closes(broker):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Visit(Own).run)
            await anyio.sleep(1.0)
            async with anyio.create_task_group() as orders:
                for _ in range(50):
                    orders.start_soon(partial(close_everywhere, broker, connection_id="nobody's"))
            await anyio.sleep(1.0)
            await close_everywhere(broker, endpoint=Own)
    assert Own.reasons == [CloseReason.CLOSED]


async def test_an_order_does_not_tell_client_keys() -> None:
    """They may be secrets, and an order lies in the log for as long as that keeps it."""

    class Own(Ticks):
        def client_key(self, request: Request) -> str:
            return "s3cret"

    visit = Visit(Own)
    async with Broker(observers=()) as broker, follow_closes(broker), broker.subscribe(CHANNEL) as orders:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit.run)
            await anyio.sleep(1.0)
            await close_everywhere(broker, client_key="another")
            await anyio.sleep(1.0)
            assert Own.reasons == []
            await close_everywhere(broker, client_key="s3cret")
        assert b"another" not in await orders.pull()
    assert Own.reasons == [CloseReason.CLOSED]


async def test_the_channels_of_the_package_are_nobody_elses() -> None:
    """A client that may name a channel reads no orders there, and an app gives none by mistake."""
    async with Broker(observers=()) as broker:
        with pytest.raises(ConfigurationError, match=r"channel must not begin with 'starlette_sse\.'"):
            await broker.publish(str(CHANNEL), "x")
        with pytest.raises(ConfigurationError, match=r"channel must not begin with 'starlette_sse\.'"):
            broker.subscribe(["news", str(CHANNEL)])
        await broker.publish("starlette_sse", "x")


async def test_the_app_starts_and_stops_without_its_broker() -> None:
    """Orders are followed as soon as it is there; until then the publisher is told."""

    class Own(Ticks):
        pass

    class Away(Broker):
        away = True

        def subscribe(self, *args: Any, **kwargs: Any) -> Any:
            if self.away:
                raise BrokerUnavailableError("away")
            return super().subscribe(*args, **kwargs)

    visit = Visit(Own)
    async with Away(observers=()) as broker, follow_closes(broker):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit.run)
            await anyio.sleep(30.0)
            broker.away = False
            await anyio.sleep(2.0)
            await close_everywhere(broker)
    assert Own.reasons == [CloseReason.CLOSED]
    async with Away(observers=()) as broker, follow_closes(broker):
        pass


async def test_an_error_of_the_app_leaves_as_it_is() -> None:
    """Not in a group."""
    broker = Broker(observers=())
    with pytest.raises(LookupError):
        async with broker, follow_closes(broker):
            raise LookupError


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_broker_that_was_not_entered_is_told_as_it_is() -> None:
    """Not in a group."""
    with pytest.raises(BrokerError, match="must be entered"):
        async with follow_closes(Broker("redis://127.0.0.1:1", observers=())):
            raise AssertionError("it follows nothing")


async def test_a_broker_that_is_closed_early_ends_the_following() -> None:
    """Quietly: there is nothing more to follow."""
    async with Broker(observers=()) as broker:
        async with follow_closes(broker):
            await broker.close()
            await anyio.sleep(1.0)


async def test_a_backend_that_is_away_does_not_hold_up_the_start() -> None:
    """The app is there at once, and all the time somebody tries to listen."""
    began: list[float] = []

    class Away(MemoryBackend):
        async def open(self, log: Log) -> None:
            await super().open(log)
            log.lost(OSError("away"))

        async def listen(self, channels: Sequence[str]) -> None:
            began.append(anyio.current_time())
            await anyio.sleep(5.0)
            raise BrokerUnavailableError("away")

    start = anyio.current_time()
    async with Broker(Away(), observers=()) as broker, follow_closes(broker):
        assert anyio.current_time() == start
        await anyio.sleep(12.0)
    assert [round(at - start, 3) for at in began] == [0.0, 5.0, 10.0]


async def test_a_broker_that_was_closed_is_not_followed() -> None:
    """As one of a module is that an earlier lifespan has ended: told at once, and not waited for."""
    broker = Broker(observers=())
    async with broker:
        pass
    with anyio.fail_after(60), pytest.raises(BrokerClosedError):
        async with follow_closes(broker):
            raise AssertionError("it was entered")
