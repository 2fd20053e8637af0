"""Limits that count the streams of all processes, as long as these live."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from starlette.requests import Request

from starlette_sse import (
    Broker,
    BrokerUnavailableError,
    ConfigurationError,
    EventSourceResponse,
    ServerSentEvent,
    SSEEndpoint,
)
from starlette_sse.broker.names import OwnName
from starlette_sse.observers import Observer
from starlette_sse.presence import CHANNEL, Presence, count_together
from tests.broker.redis_server import RedisServer
from tests.broker.redis_server import running as redis_running
from tests.servers.client import EventStream
from tests.servers.processes import ROOT, Program, eventually, running
from tests.visits import Visit

pytestmark = pytest.mark.anyio

INTERVAL = 5.0


def channel_of(endpoint: type[SSEEndpoint]) -> OwnName:
    return OwnName(f"{CHANNEL}{endpoint.__module__}.{endpoint.__qualname__}")


def process(**limits: Any) -> type[SSEEndpoint]:
    """Return the class as another process of the app has it: by the same name, with a count of its own."""

    class News(SSEEndpoint):
        observers = ()
        max_connections = limits.get("total")
        max_connections_per_client = limits.get("per_client")

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "in"
            await anyio.sleep_forever()

    return News


class Crowd:
    """Opens streams that stay until they are told to leave."""

    def __init__(self, tasks: Any) -> None:
        self._tasks = tasks
        self._inside: list[Visit] = []

    async def come(self, endpoint: type[SSEEndpoint], client: str = "a") -> int:
        """Open a stream, let the news of it go round, and return the status."""
        visit = Visit(endpoint, client)
        self._tasks.start_soon(visit.run)
        await anyio.sleep(0.5)
        self._inside.append(visit)
        return visit.status

    async def leave(self) -> None:
        for visit in self._inside:
            visit.left.set()
        self._inside.clear()
        await anyio.sleep(0.5)


@asynccontextmanager
async def crowd() -> AsyncIterator[Crowd]:
    async with anyio.create_task_group() as tasks:
        gathered = Crowd(tasks)
        yield gathered
        await gathered.leave()


async def test_streams_of_other_processes_count() -> None:
    """What is open there takes places here, and gives them back."""
    one, two = process(total=3), process(total=3)
    async with Broker(observers=()) as broker, count_together(broker, one), count_together(broker, two):
        async with crowd() as there, crowd() as here:
            assert [await there.come(one), await there.come(one)] == [200, 200]
            assert [await here.come(two), await here.come(two)] == [200, 503]
            assert await there.come(one) == 503
            await there.leave()
            assert [await here.come(two), await here.come(two), await here.come(two)] == [200, 200, 503]


async def test_streams_of_one_client_count_wherever_they_are() -> None:
    """And only those of that client; its key is not told."""
    one, two = process(per_client=2), process(per_client=2)
    told = []
    async with Broker(observers=()) as broker, count_together(broker, one), count_together(broker, two):
        async with broker.subscribe(channel_of(one)) as subscription:
            async with crowd() as there, crowd() as here:
                assert await there.come(one, "api-key-of-ann") == 200
                assert await here.come(two, "api-key-of-ann") == 200
                assert await here.come(two, "api-key-of-ann") == 429
                assert await here.come(two, "bob") == 200
                told.append(await subscription.pull())
    assert b'"total":1' in told[0]
    assert b"ann" not in told[0]


async def test_a_client_may_be_known_by_any_text() -> None:
    """One that comes by JSON may hold half a character."""
    one, two = process(per_client=1), process(per_client=1)
    async with Broker(observers=()) as broker, count_together(broker, one), count_together(broker, two):
        async with crowd() as there, crowd() as here:
            assert await there.come(one, "\ud83d") == 200
            assert await here.come(two, "\ud83d") == 429
            assert await here.come(two, "\ud83c") == 200


async def test_a_process_that_stays_silent_is_forgotten() -> None:
    """As one that was killed; not one in which nothing happens."""
    one, two = process(total=1), process(total=1)
    async with Broker(observers=()) as broker, count_together(broker, two, interval=INTERVAL):
        async with crowd() as there, crowd() as here:
            async with anyio.create_task_group() as killed:

                async def other() -> None:
                    async with count_together(broker, one, interval=INTERVAL):
                        await anyio.sleep_forever()

                killed.start_soon(other)
                await anyio.sleep(0.5)
                assert await there.come(one) == 200
                await anyio.sleep(20 * INTERVAL)
                assert await here.come(two) == 503
                # It dies without a last word.
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(broker, "publish", unheard)
                    killed.cancel_scope.cancel()
                    await checkpoint()
            assert await here.come(two) == 503
            await anyio.sleep(3 * INTERVAL)
            assert await here.come(two) == 200


async def unheard(*args: Any) -> str:
    raise BrokerUnavailableError("away")


async def test_a_process_that_stops_is_not_waited_for() -> None:
    """Its last word frees what it held."""
    one, two = process(total=1), process(total=1)
    async with Broker(observers=()) as broker, count_together(broker, two):
        async with crowd() as there, crowd() as here:
            async with count_together(broker, one):
                assert await there.come(one) == 200
                assert await here.come(two) == 503
            assert await here.come(two) == 200


async def test_a_process_that_is_cancelled_frees_what_it_held_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last word does not depend on how it is stopped."""
    publish = Broker.publish

    async def over_a_network(*args: Any) -> str:
        await checkpoint()
        return await publish(*args)

    monkeypatch.setattr(Broker, "publish", over_a_network)
    one, two = process(total=1), process(total=1)
    async with Broker(observers=()) as broker, count_together(broker, two, interval=100.0):
        async with crowd() as there, crowd() as here:
            with anyio.CancelScope() as scope:
                async with count_together(broker, one, interval=100.0):
                    assert await there.come(one) == 200
                    assert await here.come(two) == 503
                    scope.cancel()
                    await anyio.sleep(1)
            assert await here.come(two) == 200


async def test_a_process_that_has_stopped_counts_by_itself() -> None:
    """What the others have told is not true for long."""
    one, two = process(total=1), process(total=1)
    async with Broker(observers=()) as broker, count_together(broker, one, interval=100.0):
        async with crowd() as there, crowd() as here:
            async with count_together(broker, two, interval=100.0):
                assert await there.come(one) == 200
                assert await here.come(two) == 503
            assert await here.come(two) == 200


async def test_a_process_is_waited_for_by_its_own_interval() -> None:
    """Those of one app may be set otherwise, such as during its update."""
    one, two = process(total=1), process(total=1)
    async with Broker(observers=()) as broker:
        async with count_together(broker, one, interval=100.0), count_together(broker, two, interval=1.0):
            async with crowd() as there, crowd() as here:
                assert await there.come(one) == 200
                await anyio.sleep(50)
                assert await here.come(two) == 503


async def test_a_broker_that_is_closed_first_is_no_failure() -> None:
    """Nobody is left to be told."""
    broker = Broker(observers=())
    async with broker, count_together(broker, process(total=1)):
        await broker.close()


async def test_processes_that_are_gone_leave_nothing() -> None:
    """Each start of one has another name."""
    own = process(total=1)
    async with Broker(observers=()) as broker, count_together(broker, own, interval=INTERVAL):
        channel = channel_of(own)
        for number in range(100):
            word = {"process": str(number), "interval": 1.0, "total": 0, "clients": {}}
            await broker.publish(channel, {"event": "count", "data": word})
            await anyio.sleep(1)
        limit = own._sse_configuration.limit
        assert limit is not None
        assert isinstance(limit.elsewhere, Presence)
        assert len(limit.elsewhere._others) <= 4


async def test_without_the_broker_each_process_counts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are let in and refused as if there were no other process; when it is back they count together."""
    one, two = process(total=2), process(total=2)
    broker = Broker(observers=())
    async with broker, count_together(broker, one, interval=INTERVAL), count_together(broker, two, interval=INTERVAL):
        async with crowd() as there, crowd() as here:
            with monkeypatch.context() as patch:
                patch.setattr(broker, "publish", unheard)
                assert [await there.come(one) for _ in range(3)] == [200, 200, 503]
                assert [await here.come(two) for _ in range(3)] == [200, 200, 503]
            await here.leave()
            await anyio.sleep(INTERVAL)
            assert await here.come(two) == 503


async def test_too_many_clients_for_one_event_are_told_as_a_number() -> None:
    """The limit of all still holds."""
    one, two = process(total=200, per_client=1), process(total=200, per_client=1)
    async with Broker(observers=(), max_bytes=2048) as broker:
        async with count_together(broker, one), count_together(broker, two):
            async with anyio.create_task_group() as tasks:
                visits = [Visit(one, str(number)) for number in range(200)]
                for visit in visits:
                    tasks.start_soon(visit.run)
                await anyio.sleep(1.0)
                assert {visit.status for visit in visits} == {200}
                refused = Visit(two, "1")
                await refused.run()
                assert refused.body == b"refused: max_connections"
                for visit in visits:
                    visit.left.set()


class Words(Observer):
    """Counts what the processes tell."""

    count = 0

    def published(self, channel: str, event_id: str, size: int) -> None:
        self.count += 1


@asynccontextmanager
async def telling(endpoint: type[SSEEndpoint], clients: int, interval: float = INTERVAL) -> AsyncIterator[Words]:
    """Let a process tell of that many clients, and count its words from then on."""
    words, limit = Words(), endpoint._sse_configuration.limit
    assert limit is not None
    async with Broker(observers=(words,)) as broker, count_together(broker, endpoint, interval=interval):
        for number in range(clients):
            limit.take(str(number))
        await anyio.sleep(1.0)
        words.count = 0
        yield words


async def restless(endpoint: type[SSEEndpoint]) -> None:
    """Come and go for three seconds."""
    limit = endpoint._sse_configuration.limit
    assert limit is not None
    for _ in range(300):
        limit.take("restless")
        await anyio.sleep(0.01)
        limit.give_back("restless")


@pytest.mark.parametrize(("clients", "least", "most"), [(10, 29, 31), (5000, 5, 7)])
async def test_the_more_clients_there_are_the_rarer_they_are_told_of(clients: int, least: int, most: int) -> None:
    """One that comes and goes must not cost the process a word about all the others each time."""
    endpoint = process(per_client=5)
    async with telling(endpoint, clients) as words:
        await restless(endpoint)
        assert least <= words.count <= most


async def test_clients_that_are_not_told_of_make_no_word_rarer() -> None:
    """Where only all streams together are limited, a word is one number."""
    endpoint = process(total=6000)
    async with telling(endpoint, 5000) as words:
        await restless(endpoint)
        assert 29 <= words.count <= 31


async def test_however_many_clients_there_are_a_process_is_heard_of_in_each_interval() -> None:
    """Else the others would take it for dead, and let in what it has no place for."""
    endpoint = process(per_client=5)
    async with telling(endpoint, 5000, interval=0.1) as words:
        await restless(endpoint)
        assert words.count >= 29


async def test_what_else_the_broker_tells_counts_nothing() -> None:
    """Such as that words may have been lost."""
    own = process(total=1)
    async with Broker(observers=()) as broker, count_together(broker, own), crowd() as here:
        await broker.publish(channel_of(own), {"event": "stream-reset", "data": {}})
        assert await here.come(own) == 200


@pytest.mark.parametrize(
    "word", ["garbage", "{}", '{"process": "a"}', '{"process": "a", "total": 1, "clients": [], "interval": 5}']
)
async def test_a_word_that_is_not_understood_counts_nothing(word: str, caplog: pytest.LogCaptureFixture) -> None:
    """Processes of another version may speak otherwise, and that ends no app."""
    own = process(total=200)
    async with Broker(observers=()) as broker, count_together(broker, own), crowd() as here:
        for _ in range(3):
            await broker.publish(channel_of(own), ServerSentEvent(word, event="count"))
        await anyio.sleep(1.0)
        assert await here.come(own) == 200
    assert len([record for record in caplog.records if "is not understood" in record.getMessage()]) == 1


async def test_a_process_counts_a_class_together_once() -> None:
    """Its limit counts all of the process's streams already, which would take their places twice."""
    endpoint = process(total=2)
    async with Broker(observers=()) as broker:
        async with count_together(broker, endpoint):
            with pytest.raises(ConfigurationError, match=r"News is counted together in this process already"):
                async with count_together(broker, endpoint):
                    pass
            async with crowd() as here:
                assert [await here.come(endpoint) for _ in range(3)] == [200, 200, 503]
        async with count_together(broker, endpoint), crowd() as here:
            assert await here.come(endpoint) == 200


async def test_what_cannot_be_counted_together_is_refused() -> None:
    """A class without a limit, what is no class of an endpoint or no broker, or an interval that is none."""
    broker = Broker(observers=())
    together: Any = count_together
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: count_together(broker, process()), "News has no limit"),
        (lambda: count_together(broker, process(total=1), interval=0), "interval must be"),
        (lambda: together(broker, process(total=1), interval=None), "interval must be"),
        (lambda: together(broker, EventSourceResponse), r"subclasses of SSEEndpoint, not <.*Response'>"),
        (lambda: together(broker, "News"), "subclasses of SSEEndpoint, not 'News'"),
        (lambda: together(process(total=1)), r"broker must be a Broker, not <.*News'>"),
        (lambda: together("memory://", process(total=1)), "broker must be a Broker, not 'memory://'"),
    ]
    for make, message in cases:
        with pytest.raises(ConfigurationError, match=message):
            async with make():
                pass


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as redis:
        yield redis


def test_a_killed_process_gives_its_places_back(redis_server: RedisServer, tmp_path: Path) -> None:
    """Two real processes: one fills the app, the other refuses; the first dies, and the other lets in."""
    environ = {"PYTHONPATH": str(ROOT), "SSE_TEST_BROKER": redis_server.url}

    def uvicorn(port: int) -> list[str]:
        return [sys.executable, "-m", "uvicorn", "tests.limits.cluster:app", "--port", str(port)]

    def status(server: Program) -> int:
        with httpx.stream("GET", f"http://127.0.0.1:{server.port}/few") as response:
            return response.status_code

    with ExitStack() as stack:
        first, second = (stack.enter_context(running(uvicorn, tmp_path, environ=environ)) for _ in range(2))
        streams = [stack.enter_context(EventStream(first.port, "/few")) for _ in range(2)]
        assert [stream.next().type for stream in streams] == ["message"] * 2
        assert eventually(lambda: status(second) == 503)
        first.process.kill()
        assert eventually(lambda: status(second) == 200)
