"""What happens to a real Redis server, and what publishers and readers get of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import BusyLoadingError, RedisError

from starlette_sse.broker import Broker, Gap, Page, Position
from starlette_sse.broker.redis import RedisBackend, listener
from starlette_sse.broker.redis.connections import COMMANDS
from starlette_sse.broker.redis.listener import Listener
from starlette_sse.broker.redis.remote import RemoteLog
from starlette_sse.broker.subscription import RETRY
from starlette_sse.decoding import EventDecoder
from starlette_sse.exceptions import BrokerUnavailableError
from starlette_sse.observers import StructlogObserver
from starlette_sse.testing import capture_logs
from tests.broker.clients import Client, Ledger
from tests.broker.conftest import Diary
from tests.broker.reading import settle, take, texts
from tests.broker.redis_server import RedisServer, running
from tests.servers.processes import free_port
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

# With everysec Redis may answer before it has written to the file, while the disk is busy; a crash then loses that.
APPEND_ONLY = ("--appendonly", "yes", "--appendfsync", "always")

CHANNELS = ("a", "b", "c")


class Scene:
    """Two processes at one server: publishers in both, and clients of several kinds that never leave."""

    def __init__(self, brokers: Sequence[Broker], diary: Diary) -> None:
        self.brokers = brokers
        self.diary = diary
        self.ledger = Ledger()
        self.clients = [
            Client(broker, channels) for broker in brokers for channels in [("a",), ("b",), ("a", "b"), CHANNELS]
        ]
        self.published = anyio.Event()
        self.stopped = False
        self.publishing = 0

    async def publish(self, number: int) -> None:
        """Publish until the scene ends."""
        self.publishing += 1
        for n in count():
            if self.stopped:
                self.publishing -= 1
                return
            event_id = await self.ledger.publish(self.brokers[number % 2], CHANNELS[(number + n) % 3])
            if event_id is None:
                await anyio.sleep(0.01)
            elif n % 20 == 19:
                self.published.set()
                await checkpoint()

    async def read(self, client: Client) -> None:
        """Read as a stream does, for as long as it is open."""
        await client.connect()
        assert client.subscription is not None
        while True:
            client.take(await client.subscription.pull())

    async def traffic(self) -> None:
        """Wait until publishing works, and has for a while."""
        for _ in range(5):
            self.published = anyio.Event()
            with anyio.fail_after(15):
                await self.published.wait()

    async def settle(self) -> None:
        """Stop publishing, and let every client have everything."""
        self.stopped = True
        with anyio.fail_after(20):
            while self.publishing:
                await anyio.sleep(0.01)
            for channel in CHANNELS:
                while await self.ledger.publish(self.brokers[0], channel) is None:
                    await anyio.sleep(0.05)
            for client in self.clients:
                last = [position for name, position, _ in self.ledger.events if name in client.channels][-1]
                while Position.parse(client.last_event_id) != last:
                    await anyio.sleep(0.01)

    def check(self) -> None:
        for client in self.clients:
            client.check(self.ledger)

    @property
    def resets(self) -> list[list[str]]:
        return [[reset["reason"] for reset in client.resets] for client in self.clients]


@asynccontextmanager
async def playing(server: RedisServer, diary: Diary) -> AsyncIterator[Scene]:
    """Run a scene: it has traffic when the body begins, and everything has arrived when it ends."""
    options: dict[str, Any] = {"history": 100_000, "max_bytes": 10**8, "timeout": 1.0, "observers": [diary]}
    async with Broker(server.url, **options) as first, Broker(server.url, **options) as second:
        scene = Scene([first, second], diary)
        async with anyio.create_task_group() as readers:
            for client in scene.clients:
                readers.start_soon(scene.read, client)
            async with anyio.create_task_group() as publishers:
                for number in range(4):
                    publishers.start_soon(scene.publish, number)
                await scene.traffic()
                yield scene
                await scene.traffic()
                await scene.settle()
            readers.cancel_scope.cancel()
        for client in scene.clients:
            await client.disconnect()
        scene.check()


async def crash(server: RedisServer) -> None:
    await anyio.to_thread.run_sync(server.kill)


async def restart(server: RedisServer) -> None:
    await anyio.to_thread.run_sync(server.start)


@pytest.mark.parametrize("own_redis", [APPEND_ONLY], indirect=True)
async def test_a_crash_with_an_append_only_file_is_bridged(own_redis: RedisServer, diary: Diary) -> None:
    """The server is killed under load and comes back with its data: streams stay open, miss nothing, get no reset."""
    async with playing(own_redis, diary) as scene:
        await crash(own_redis)
        await until(lambda: not scene.brokers[0].health().ok and not scene.brokers[1].health().ok)
        with pytest.raises(BrokerUnavailableError, match=rf"127\.0\.0\.1:{own_redis.port}"):
            await scene.brokers[0].publish("a", "while it is away")
        await restart(own_redis)
        await until(lambda: scene.brokers[0].health().ok and scene.brokers[1].health().ok)
    assert scene.resets == [[]] * 8
    assert diary.names().count("lost") == diary.names().count("back") == 2
    epochs = {position.epoch for _, position, _ in scene.ledger.events}
    assert len(epochs) == 2, "a number that was lost could be used twice"


async def test_a_crash_without_persistence_is_told(own_redis: RedisServer, diary: Diary) -> None:
    """The server is killed under load and comes back empty: each client gets exactly one reset, and goes on."""
    async with playing(own_redis, diary) as scene:
        await crash(own_redis)
        await until(lambda: not scene.brokers[0].health().ok)
        await restart(own_redis)
        await until(lambda: scene.brokers[0].health().ok and scene.brokers[1].health().ok)
    assert scene.resets == [["lost"]] * 8
    assert diary.names().count("lost") == diary.names().count("back") == 2


async def test_an_outage_is_logged_with_its_cause_and_its_length(own_redis: RedisServer, diary: Diary) -> None:
    """One error when the server is lost, however often it is tried again, and one line when it is back."""
    with capture_logs() as logs:
        async with Broker(own_redis.url, observers=[diary, StructlogObserver()]) as broker:
            await crash(own_redis)
            await until(lambda: not broker.health().ok)
            await restart(own_redis)
            await until(lambda: broker.health().ok)
    (_, error), (_, outage) = diary.entries
    assert str(error)
    assert logs == [
        {"event": "broker.lost", "log_level": "error", "error": f"{type(error).__name__}: {error}"},
        {"event": "broker.recovered", "log_level": "info", "outage": round(outage, 3)},
    ]


async def test_a_listener_without_an_answer_is_logged_with_the_address(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, diary: Diary
) -> None:
    """Though the server answers commands."""
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 0.1)
    async with Broker(own_redis.url, observers=[diary], timeout=0.3):
        monkeypatch.setattr(Listener, "_take_answer", lambda self, number: None)
        await until(lambda: diary.entries)
    name, error = diary.entries[0]
    assert name == "lost"
    assert f"127.0.0.1:{own_redis.port} does not answer its listener within 0.3 s" in str(error)


async def test_a_server_that_is_away_is_asked_less_and_less_often(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pause is up to twice as long as the one before, to 2 s at most; after an outage they begin small again."""
    pauses = Pauses()
    monkeypatch.setattr(listener, "anyio", pauses)
    async with Broker(own_redis.url, observers=()) as broker:
        for _ in range(2):
            await until(lambda: broker.health().ok)
            pauses.seconds.clear()
            await crash(own_redis)
            await until(lambda: len(pauses.seconds) >= 10)
            await restart(own_redis)
            for number, seconds in enumerate(pauses.seconds[:10]):
                longest = min(0.05 * 2**number, 2.0)
                assert longest / 2 <= seconds <= longest


class Pauses:
    """Is anyio to a module, but for its ``sleep``, which notes the seconds and lets none pass."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(anyio, name)

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await checkpoint()


@pytest.mark.parametrize("own_redis", [("--save", "3600 1", "--dbfilename", "old.rdb")], indirect=True)
async def test_a_crash_back_to_an_old_snapshot_is_told(own_redis: RedisServer, diary: Diary) -> None:
    """The server comes back with what it had some time ago: what it lost since is told, no old number is used again."""
    async with playing(own_redis, diary) as scene:
        await anyio.to_thread.run_sync(own_redis.command, "SAVE")
        await scene.traffic()
        await crash(own_redis)
        await restart(own_redis)
        await until(lambda: diary.names().count("back") == 2)
    assert scene.resets == [["lost"]] * 8


@pytest.mark.parametrize("own_redis", [APPEND_ONLY], indirect=True)
async def test_a_client_resumes_over_a_restart_of_everything(own_redis: RedisServer) -> None:
    """Server and app are both started again: with the data there, a client's old id is still good."""
    ledger = Ledger()
    async with Broker(own_redis.url, observers=()) as broker:
        client = Client(broker, ["a"])
        await client.connect()
        await ledger.publish(broker, "a")
        await client.read_up_to(ledger.events[-1][1])
        await client.disconnect()
        await ledger.publish(broker, "a")
    await crash(own_redis)
    await restart(own_redis)
    async with Broker(own_redis.url, observers=()) as broker:
        client.broker = broker
        await client.connect()
        await ledger.publish(broker, "a")
        await client.read_up_to(ledger.events[-1][1])
        await client.disconnect()
    assert client.texts == [text for _, _, text in ledger.events]
    assert client.resets == []


@pytest.mark.parametrize("own_redis", [APPEND_ONLY], indirect=True)
async def test_a_reader_that_lived_through_a_restart_is_at_the_new_epoch(own_redis: RedisServer) -> None:
    """Its place is an id of the log as it is now, also for reading the streams when it lags."""
    ledger = Ledger()
    async with (
        Broker(own_redis.url, observers=(), history=1000) as large,
        Broker(own_redis.url, observers=(), history=5) as small,
    ):
        client = Client(small, ["a"])
        await client.connect()
        await ledger.publish(large, "a")
        await client.read_up_to(ledger.events[-1][1])
        await crash(own_redis)
        await restart(own_redis)
        await until(lambda: large.health().outages and small.health().outages)
        await until(lambda: large.health().ok and small.health().ok)
        for count in (3, 50):
            for _ in range(count):
                await ledger.publish(large, "a")
            await settle(small)
            assert client.subscription is not None
            assert client.subscription.position.startswith(ledger.events[-1][1].epoch)
            await client.read_up_to(ledger.events[-1][1])
        client.check(ledger)
        assert client.resets == []
        await client.disconnect()


async def test_dropped_connections_are_bridged(own_redis: RedisServer, diary: Diary) -> None:
    """Every connection is killed several times under load: nothing is lost, repeated or reset."""
    async with playing(own_redis, diary) as scene:
        for _ in range(5):
            await anyio.to_thread.run_sync(own_redis.command, "CLIENT", "KILL", "TYPE", "pubsub")
            await anyio.to_thread.run_sync(own_redis.command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await scene.traffic()
        await until(lambda: diary.names().count("back") == diary.names().count("lost") >= 2)
    assert scene.resets == [[]] * 8


async def test_a_paused_server_is_waited_for(own_redis: RedisServer, diary: Diary) -> None:
    """The server stands still for 5 s: publishers are told in time what that means, readers miss nothing."""
    async with playing(own_redis, diary) as scene:
        await anyio.to_thread.run_sync(own_redis.command, "CLIENT", "PAUSE", 5000, "ALL")
        with pytest.raises(BrokerUnavailableError, match="cannot be told") as caught:
            with anyio.fail_after(3):
                await scene.brokers[0].publish("z", "while it is paused")
        assert caught.value.in_doubt
    assert scene.resets == [[]] * 8
    assert scene.ledger.doubtful


async def test_a_command_without_an_answer_makes_the_listener_look(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs is known to be away as soon as a publisher has waited for it in vain."""
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 3600.0)
    monkeypatch.setattr(listener, "DOUBT_INTERVAL", 0.0)
    async with Broker(own_redis.url, observers=(), timeout=0.3) as broker:
        async with broker.subscribe("a"):
            own_redis.command("CLIENT", "PAUSE", 60_000, "ALL")
            assert broker.health().ok
            with pytest.raises(BrokerUnavailableError):
                await broker.publish("a", "x")
            await until(lambda: not broker.health().ok)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which listeners have looked whether their server is there."""
    times: list[float] = []
    check = Listener._check

    async def noted(self: Listener, connection: Any) -> None:
        times.append(anyio.current_time())
        await check(self, connection)

    monkeypatch.setattr(Listener, "_check", noted)
    return times


async def test_a_refusal_is_no_reason_to_doubt_the_server(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, checks: list[float]
) -> None:
    """It was an answer."""
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 3600.0)
    monkeypatch.setattr(listener, "DOUBT_INTERVAL", 0.0)
    async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("a"):
        own_redis.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BrokerUnavailableError, match="refused"):
            await broker.publish("a", "x")
        # The listener comes to this wish behind what it doubts.
        async with broker.subscribe("b"):
            assert checks == []


async def test_many_commands_without_an_answer_are_few_looks(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, checks: list[float]
) -> None:
    """A server that answers the listener and no publisher is not asked more for each of them."""
    monkeypatch.setattr(listener, "DOUBT_INTERVAL", 0.2)

    async def unanswered(*args: Any) -> str:
        await checkpoint()
        raise BrokerUnavailableError("no answer", in_doubt=True)

    monkeypatch.setattr(RemoteLog, "append", unanswered)
    async with Broker(own_redis.url, observers=()) as broker:
        await broker.subscribe("a").enter()
        with anyio.fail_after(15):
            while len(checks) < 4:
                with pytest.raises(BrokerUnavailableError):
                    await broker.publish("a", "x")
        assert broker.health().ok
    assert checks[-1] - checks[0] >= 3 * 0.2


@asynccontextmanager
async def all_connections_taken(broker: Broker) -> AsyncIterator[None]:
    """Have as many commands under way as a process may, each over a connection of its own."""
    assert isinstance(broker._backend, RedisBackend)
    connections = broker._backend._connections
    async with AsyncExitStack() as stack:
        for _ in range(COMMANDS):
            await stack.enter_async_context(connections._limiter)
            stack.push_async_callback(connections._pool.release, await connections._pool.get_connection())
        yield


async def test_publishers_that_wait_for_each_other_do_not_hide_the_server(own_redis: RedisServer) -> None:
    """More of them than there are connections: the listener, on which readers depend, does not wait behind them."""
    async with Broker(own_redis.url, observers=(), timeout=1.0) as broker, broker.subscribe("a") as subscription:
        async with anyio.create_task_group() as tasks:
            async with all_connections_taken(broker):
                tasks.start_soon(broker.publish, "a", "waits")
                await anyio.wait_all_tasks_blocked()
                with anyio.fail_after(15):
                    async with broker.subscribe("b"):
                        pass
        assert await texts(subscription, 1) == ["waits"]
        assert broker.health().outages == 0


async def test_a_publisher_whose_turn_comes_when_the_broker_is_closed_is_told(own_redis: RedisServer) -> None:
    """Its event was not sent, and nobody is asked to look for a server that is there."""
    async with Broker(own_redis.url, observers=()) as broker:

        async def publish() -> None:
            with pytest.raises(BrokerUnavailableError, match="the broker is closed") as caught:
                await broker.publish("a", "waits")
            assert not caught.value.in_doubt

        async with anyio.create_task_group() as tasks:
            async with all_connections_taken(broker):
                tasks.start_soon(publish)
                await anyio.wait_all_tasks_blocked()
                await broker.close()
    assert own_redis.command("EXISTS", "{starlette_sse}:log") == 1
    assert own_redis.command("HGET", "{starlette_sse}:log", "seq") == b"0"


async def test_a_blocked_server_is_waited_for(own_redis: RedisServer, diary: Diary) -> None:
    """The server's only thread is busy for 3 s: the same."""
    async with playing(own_redis, diary) as scene:
        await anyio.to_thread.run_sync(own_redis.command, "DEBUG", "SLEEP", 3)
    assert scene.resets == [[]] * 8


async def test_a_flushed_server_is_told(own_redis: RedisServer, diary: Diary) -> None:
    """Somebody empties the database under load: each client gets exactly one reset."""
    async with playing(own_redis, diary) as scene:
        await anyio.to_thread.run_sync(own_redis.command, "FLUSHALL")
        await until(lambda: diary.names().count("back") == 2)
    assert scene.resets == [["lost"]] * 8


async def test_a_flushed_quiet_server_is_told(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody empties the database while nobody publishes: the readers are told at the next look."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.CHECK_INTERVAL", 0.05)
    async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("a") as subscription:
        before = await broker.publish("a", "before")
        await anext(subscription)
        own_redis.command("FLUSHALL")
        with anyio.fail_after(5):
            entry = await anext(subscription)
        assert entry.event is not None
        assert entry.event.type == "stream-reset"
        assert json.loads(entry.event.data)["requested"] == before


async def test_an_evicted_stream_is_told_to_those_who_need_it(own_redis: RedisServer) -> None:
    """One stream is evicted: who has to read it gets one reset; who has everything and other channels' readers none."""
    ledger = Ledger()
    async with Broker(own_redis.url, observers=(), prefix="p") as broker:
        clients = {name: Client(broker, [name]) for name in "ab"}
        for name, client in clients.items():
            await client.connect()
            await ledger.publish(broker, name)
            await client.read_up_to(ledger.events[-1][1])
            await client.disconnect()
        for name in "ab":
            await ledger.publish(broker, name)
    async with Broker(own_redis.url, observers=(), prefix="p") as broker:
        own_redis.evict(":channel:a")
        for client in clients.values():
            client.broker = broker
            await client.connect()
        for name in "ab":
            await ledger.publish(broker, name)
        for place, client in enumerate(clients.values()):
            await client.read_up_to(ledger.events[4 + place][1])
            client.check(ledger)
            await client.disconnect()
        assert [[reset["reason"] for reset in client.resets] for client in clients.values()] == [["evicted"], []]


async def test_an_evicted_stream_does_not_disturb_who_has_everything(own_redis: RedisServer) -> None:
    """A live reader keeps its place when the stream behind it is evicted."""
    ledger = Ledger()
    async with Broker(own_redis.url, observers=()) as broker:
        client = Client(broker, ["a"])
        await client.connect()
        await ledger.publish(broker, "a")
        await client.read_up_to(ledger.events[-1][1])
        own_redis.evict(":channel:a")
        await ledger.publish(broker, "a")
        await client.read_up_to(ledger.events[-1][1])
        client.check(ledger)
        assert client.resets == []
        await client.disconnect()


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("lost", ["log", "tops"])
async def test_an_evicted_index_is_no_silent_loss(own_redis: RedisServer, lost: str, busy: bool) -> None:
    """The keys that hold the log together are evicted: a client that missed something is told."""
    ledger = Ledger()
    async with Broker(own_redis.url, observers=()) as broker:
        client = Client(broker, ["a"])
        await client.connect()
        await ledger.publish(broker, "a")
        await client.read_up_to(ledger.events[0][1])
        await client.disconnect()
        await ledger.publish(broker, "a")
        own_redis.evict(f":{lost}", ":channel:a")
        if busy:
            await ledger.publish(broker, "b")
        await client.connect()
        with anyio.fail_after(5):
            while not client.resets:
                await client.read()
        await ledger.publish(broker, "a")
        await client.read_up_to(ledger.events[-1][1])
        client.check(ledger)
        await client.disconnect()
        assert len(client.resets) == 1


@pytest.mark.parametrize("back_on", ["a", "ab"])
@pytest.mark.parametrize("also", ["", "b"], ids=["alone", "beside"])
async def test_a_loss_is_told_once(own_redis: RedisServer, also: str, back_on: str) -> None:
    """Who was told of it when it came back keeps its place, and gets what follows, when the listener finds it out."""
    async with Broker(own_redis.url, observers=()) as broker, AsyncExitStack() as readers:
        first = await broker.publish("a", "first")
        await broker.publish("a", "second")
        live = await readers.enter_async_context(broker.subscribe("a"))
        for name in also:
            await readers.enter_async_context(broker.subscribe(name))
        await broker.publish("b", "x")
        own_redis.evict(":tops", ":channel:a")
        back = await readers.enter_async_context(broker.subscribe(list(back_on), first))
        assert json.loads((await take(back, 1))[0].data)["reason"] == "evicted"
        await broker.publish("a", "behind it")
        assert await texts(back, 1) == ["behind it"]
        assert json.loads((await take(live, 1))[0].data)["reason"] == "lost"
        await broker.publish("a", "after")
        assert await texts(back, 1) == ["after"]
        assert await texts(live, 1) == ["after"]
        assert broker.health().resets == 2


async def test_who_knows_of_a_new_log_is_not_told_of_the_loss_again(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from another process, where it was told, and this one is about to learn of it."""
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 1.0)
    async with Broker(own_redis.url, observers=()) as here, Broker(own_redis.url, observers=()) as there:
        async with here.subscribe("a") as live:
            await here.publish("a", "before")
            assert await texts(live, 1) == ["before"]
            own_redis.command("FLUSHALL")
            told_there = await there.publish("b", "x")
            async with here.subscribe("a", told_there) as comer:
                assert json.loads((await take(live, 1))[0].data)["reason"] == "lost"
                await there.publish("a", "after")
                assert await texts(comer, 1) == ["after"]
                assert await texts(live, 1) == ["after"]
                assert here.health().resets == 1


async def test_what_is_behind_a_loss_is_read(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was told of a loss gets what was published behind it while nobody listened."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.FIRST_PAUSE", 1.0)
    async with Broker(own_redis.url, observers=()) as broker:
        first = await broker.publish("a", "first")
        await broker.publish("a", "second")
        async with broker.subscribe("a") as live, broker.subscribe("a", first) as back:
            await broker.publish("b", "x")
            own_redis.evict(":tops", ":channel:a")
            assert json.loads((await take(back, 1))[0].data)["reason"] == "evicted"
            own_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            for text in ("missed", "missed too"):
                await broker.publish("a", text)
            assert await texts(back, 2) == ["missed", "missed too"]
            assert json.loads((await take(live, 1))[0].data)["reason"] == "lost"
            await broker.publish("a", "after")
            assert await texts(back, 1) == ["after"]
            assert await texts(live, 1) == ["after"]
            assert broker.health().resets == 2


async def test_a_log_that_vanishes_at_each_look_is_told_of_now_and_then(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that keeps nothing does not make a reader get a reset and a snapshot as fast as it can ask."""
    read = RemoteLog.read

    async def read_nothing(self: RemoteLog, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        own_redis.evict(":log")
        return await read(self, channels, after, limit)

    monkeypatch.setattr(RemoteLog, "read", read_nothing)
    async with Broker(own_redis.url, observers=()) as broker:
        epoch = (await broker.publish("a", "x")).partition("-")[0]
        async with broker.subscribe("a", f"{epoch}-0", snapshot=lambda: "state") as subscription:
            start = anyio.current_time()
            events = await take(subscription, 6)
    assert [event.type for event in events] == ["stream-reset", "message"] * 3
    assert anyio.current_time() - start >= 2 * RETRY


async def test_a_log_that_is_lost_again_and_again_is_told_of_now_and_then(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the listener finds another one."""
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 0.01)

    async def evict() -> None:
        while True:
            await anyio.to_thread.run_sync(own_redis.evict, ":log")

    async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("a") as subscription:
        async with anyio.create_task_group() as tasks:
            start = anyio.current_time()
            tasks.start_soon(evict)
            assert {event.type for event in await take(subscription, 3)} == {"stream-reset"}
            tasks.cancel_scope.cancel()
    assert anyio.current_time() - start >= 2 * RETRY


async def test_a_reset_is_told_at_once_if_events_have_come_since_the_last(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one that directly follows another waits."""
    monkeypatch.setattr("starlette_sse.broker.subscription.RETRY", 3600.0)
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 0.01)
    async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("a") as subscription:
        for number in range(3):
            await broker.publish("a", str(number))
            assert await texts(subscription, 1) == [str(number)]
            own_redis.evict(":log")
            assert [event.type for event in await take(subscription, 1)] == ["stream-reset"]


async def test_a_server_that_keeps_no_log_is_told_to_the_publisher(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It evicts what was just begun: the event is in no log, and the error says what to do."""
    begin = RemoteLog.begin

    async def begin_in_vain(self: RemoteLog) -> tuple[Position, dict[str, int]]:
        if self._spare:
            # What the listener begins would be there for a moment too.
            await anyio.sleep_forever()
        begun = await begin(self)
        own_redis.evict(":log")
        return begun

    monkeypatch.setattr(RemoteLog, "begin", begin_in_vain)
    async with Broker(own_redis.url, observers=()) as broker:
        with pytest.raises(BrokerUnavailableError, match="noeviction") as caught:
            await broker.publish("a", "x")
    assert not caught.value.in_doubt
    assert own_redis.names() == []


async def test_a_message_that_was_not_heard_is_noticed(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one's link tells: it comes too late for its place in the order, so its readers get a reset."""
    dropped: list[bytes] = []
    original = Listener._take

    def lossy(self: Listener, name: str, message: bytes) -> None:
        if b"lost on the way" in message and not dropped:
            dropped.append(message)
        else:
            original(self, name, message)

    monkeypatch.setattr(Listener, "_take", lossy)
    async with Broker(own_redis.url, observers=()) as broker:
        async with broker.subscribe(["a", "b"]) as both, broker.subscribe("a") as other:
            for text in ("a first", "b lost on the way", "a next"):
                await broker.publish(text[0], text)
            assert await texts(both, 2) == ["a first", "a next"]
            assert dropped
            await broker.publish("b", "b last")
            event = (await take(both, 1))[0]
            assert json.loads(event.data)["reason"] == "lost"
            for text in ("b after", "a after"):
                await broker.publish(text[0], text)
            assert await texts(both, 2) == ["b after", "a after"]
            assert await texts(other, 3) == ["a first", "a next", "a after"]
            assert broker.health().resets == 1


async def test_what_is_read_again_overtakes_nothing(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that are published while what was missed is being read come in their order, though not by one way."""
    late: list[tuple[Listener, str, bytes]] = []
    original_take, original_read = Listener._take, RemoteLog.read

    def slow(self: Listener, name: str, message: bytes) -> None:
        if (late or b"on its way" in message) and not released:
            late.append((self, name, message))
        else:
            original_take(self, name, message)

    async def read(self: RemoteLog, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        if not late:
            await other.publish("b", "on its way")
            await other.publish("a", "behind it")
        return await original_read(self, channels, after, limit)

    released: list[bool] = []
    monkeypatch.setattr("starlette_sse.broker.redis.listener.FIRST_PAUSE", 0.5)
    async with (
        Broker(own_redis.url, observers=()) as broker,
        Broker(own_redis.url, observers=()) as other,
        broker.subscribe(["a", "b"]) as subscription,
    ):
        await other.publish("a", "before")
        assert await texts(subscription, 1) == ["before"]
        monkeypatch.setattr(Listener, "_take", slow)
        monkeypatch.setattr(RemoteLog, "read", read)
        own_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await other.publish("a", "missed")
        assert await texts(subscription, 1) == ["missed"]
        await until(lambda: late)
        subscription.wake()
        received = EventDecoder().feed(await subscription.pull())
        released.append(True)
        for listener, name, message in late:
            listener._take(name, message)
        data = [event.data for event in received]
        assert data + await texts(subscription, 2 - len(data)) == ["on its way", "behind it"]


async def test_what_was_missed_and_cannot_be_read_is_told(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event is published and evicted while the listener is away: the channel's readers get a reset, others none."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.FIRST_PAUSE", 1.0)
    async with Broker(own_redis.url, observers=()) as broker:
        async with broker.subscribe("a") as reader, broker.subscribe("b") as other:
            before = await broker.publish("a", "before")
            assert await texts(reader, 1) == ["before"]
            own_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            await broker.publish("a", "missed by all")
            await broker.publish("b", "missed and read")
            own_redis.evict(":channel:a")
            told = json.loads((await take(reader, 1))[0].data)
            assert (told["reason"], told["requested"]) == ("lost", before)
            await broker.publish("a", "after")
            assert await texts(reader, 1) == ["after"]
            assert await texts(other, 1) == ["missed and read"]


async def test_what_was_missed_in_many_channels_comes_in_order(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many commands and pages it takes to ask for all of it."""
    monkeypatch.setattr(listener, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(listener, "BATCH", 2)
    monkeypatch.setattr(listener, "CATCH_UP", 1)
    async with Broker(own_redis.url, observers=()) as broker, broker.subscribe(list("abcde")) as subscription:
        own_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        missed = [f"{name}{n}" for n in range(3) for name in "abcde"]
        for text in missed:
            await broker.publish(text[0], text)
        assert await texts(subscription, len(missed)) == missed
        for name in "abcde":
            await broker.publish(name, name)
        assert await texts(subscription, 5) == list("abcde")
        assert broker.health().resets == 0


async def test_what_an_old_log_has_proven_proves_nothing_of_a_new_one(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads when the log is replaced, and what is missed later has a lower number than the old one's end."""
    monkeypatch.setattr(listener, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 0.05)
    async with Broker(own_redis.url, observers=()) as broker:
        for number in range(20):
            newest = await broker.publish("other", str(number))
        await until(lambda: broker.health().position == newest)
        own_redis.command("FLUSHALL")
        await until(lambda: not broker.health().ok)
        monkeypatch.setattr(listener, "CHECK_INTERVAL", 3600.0)
        await until(lambda: broker.health().ok)
        async with broker.subscribe("a") as subscription:
            own_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            await broker.publish("a", "missed")
            assert await texts(subscription, 1) == ["missed"]


async def test_subscribing_while_it_is_away(own_redis: RedisServer) -> None:
    """A channel that is read already takes more readers during an outage; a new one is refused in time."""
    async with Broker(own_redis.url, observers=(), timeout=0.3) as broker, broker.subscribe("a"):
        await broker.publish("a", "before")
        await crash(own_redis)
        await until(lambda: not broker.health().ok)
        async with broker.subscribe("a") as subscription:
            with anyio.fail_after(2), pytest.raises(BrokerUnavailableError, match="cannot be listened to"):
                async with broker.subscribe("new"):
                    pass
            await restart(own_redis)
            await until(lambda: broker.health().ok)
            await broker.publish("a", "after")
            with anyio.fail_after(5):
                events = [(await anext(subscription)).event for _ in range(2)]
        assert [event and event.type for event in events] == ["stream-reset", "message"]


async def test_a_server_that_is_away_at_the_start_is_named(own_redis: RedisServer) -> None:
    """The broker is entered in time, and tells everybody the address and nobody the password."""
    own_redis.kill()
    url = own_redis.url.replace("//", "//:secret@")
    with anyio.fail_after(5):
        async with Broker(url, observers=(), timeout=0.3) as broker:
            with pytest.raises(BrokerUnavailableError) as unpublished:
                await broker.publish("a", "x")
            with pytest.raises(BrokerUnavailableError, match="cannot be listened to") as unheard:
                await broker.subscribe("a").enter()
            health = broker.health()
    assert not unpublished.value.in_doubt
    for told in (str(unpublished.value), str(unheard.value), str(health.error)):
        assert str(own_redis.port) in told
        assert "secret" not in told
    assert (health.ok, health.position, health.channels, health.outages) == (False, "", 0, 1)


async def test_a_server_that_comes_after_the_start_is_found(own_redis: RedisServer, diary: Diary) -> None:
    """A broker that was entered before is whole then, and who waits to read has missed and is told nothing."""
    own_redis.kill()
    received: list[str] = []

    async def read(broker: Broker) -> None:
        async with broker.subscribe("a") as subscription:
            entered.set()
            received.extend(await texts(subscription, 1))

    entered = anyio.Event()
    async with Broker(own_redis.url, observers=[diary], timeout=15.0) as broker, anyio.create_task_group() as tasks:
        tasks.start_soon(read, broker)
        await anyio.wait_all_tasks_blocked()
        assert broker.health().subscriptions == 1
        await restart(own_redis)
        await entered.wait()
        event_id = await broker.publish("a", "x")
        await settle(broker)
        assert broker.health().ok
        assert broker.health().position.startswith(event_id.partition("-")[0])
    assert received == ["x"]
    assert [name for name in diary.names() if name in {"lost", "back", "reset"}] == ["lost", "back"]


async def test_a_server_that_is_loading_its_data_at_the_start_is_waited_for(own_redis: RedisServer) -> None:
    """It says no, but not for long."""
    slowly = "--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024"
    own_redis.command("CONFIG", "SET", "rdbcompression", "no")
    for number in range(20):
        own_redis.command("SET", f"key {number}", "x" * 2000)
    own_redis.command("SAVE")
    own_redis.kill()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, own_redis.start, *slowly)
        await until(lambda: is_loading(own_redis))
        async with Broker(own_redis.url, observers=()) as broker:
            assert "loading" in str(broker.health().error)
            with pytest.raises(BrokerUnavailableError, match="loading") as caught:
                await broker.publish("a", "x")
            assert not caught.value.in_doubt
            await until(lambda: broker.health().ok)


async def test_a_server_that_runs_somebodys_endless_script_is_away(own_redis: RedisServer) -> None:
    """It answers that it is busy: nothing was done, and when the script is killed the broker is there."""
    own_redis.command("CONFIG", "SET", "busy-reply-threshold", "10")

    def run_endlessly() -> None:
        with pytest.raises(RedisError, match="killed"):
            own_redis.command("EVAL", "while true do end", "0")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, run_endlessly)
        await until(lambda: says(own_redis, "BUSY"))
        async with Broker(own_redis.url, observers=()) as broker:
            assert "BUSY" in str(broker.health().error)
            with pytest.raises(BrokerUnavailableError, match="BUSY") as caught:
                await broker.publish("a", "x")
            assert not caught.value.in_doubt
            own_redis.command("SCRIPT", "KILL")
            await until(lambda: broker.health().ok)
            async with broker.subscribe("a") as subscription:
                await broker.publish("a", "y")
                assert await texts(subscription, 1) == ["y"]


async def test_a_cluster_that_is_not_whole_is_away(tmp_path: Path) -> None:
    """Until somebody serves the log's slot."""
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running(tmp_path, *cluster) as server:
        async with Broker(server.url, observers=()) as broker:
            assert "slot" in str(broker.health().error)
            with pytest.raises(BrokerUnavailableError, match="slot") as caught:
                await broker.publish("a", "x")
            assert not caught.value.in_doubt
            server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            await until(lambda: broker.health().ok)
            async with broker.subscribe("a") as subscription:
                await broker.publish("a", "y")
                assert await texts(subscription, 1) == ["y"]


def says(server: RedisServer, answer: str) -> bool:
    """Tell whether it answers that."""
    try:
        server.command("PING")
    except RedisError as exc:
        return answer in str(exc)
    return False


def is_loading(server: RedisServer) -> bool:
    try:
        server.command("PING")
    except BusyLoadingError:
        return True
    except RedisError:
        return False
    raise AssertionError("it has loaded its data already")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://127.0.0.1:{port}/0", "refused: Authentication required"),
        ("redis://:wrong@127.0.0.1:{port}/0", "refused: invalid username-password pair"),
        ("redis://:right@127.0.0.1:{port}/99", "refused: DB index is out of range"),
        ("redis://poor:right@127.0.0.1:{port}/0", "refused: .*no permissions"),
        ("redis://deaf:right@127.0.0.1:{port}/0", r"refused: .*channels {starlette_sse}:news:0:\*"),
    ],
)
async def test_a_server_that_refuses_at_the_start_ends_it(own_redis: RedisServer, url: str, told: str) -> None:
    """No waiting mends a password, a database that is not there or a permission: an operator has to."""
    own_redis.command("ACL", "SETUSER", "poor", "on", ">right", "~*", "&*", "+@all", "-eval")
    # As a new user has it, who is given all but channels.
    own_redis.command("ACL", "SETUSER", "deaf", "on", ">right", "~*", "+@all", "resetchannels")
    own_redis.command("CONFIG", "SET", "requirepass", "right")
    entered: list[Broker] = []
    with anyio.fail_after(5), pytest.raises(BrokerUnavailableError, match=f"(?i){told}"):
        async with Broker(url.format(port=own_redis.port), observers=()) as broker:
            entered.append(broker)
    assert entered == []


async def test_a_publish_that_was_not_sent_is_not_in_doubt(own_redis: RedisServer) -> None:
    """An error says whether the event may be there: with no connection it cannot."""
    async with Broker(own_redis.url, observers=()) as broker:
        await crash(own_redis)
        await until(lambda: not broker.health().ok)
        with pytest.raises(BrokerUnavailableError) as caught:
            await broker.publish("a", "lost")
        assert not caught.value.in_doubt


async def test_readers_that_come_and_go_do_not_put_off_the_listeners_check(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what is proven would grow old: quiet readers would be reset, and orders to close streams lost."""
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 0.2)
    async with Broker(own_redis.url) as here, Broker(own_redis.url) as there:
        async with here.subscribe("quiet"):
            newest = await there.publish("elsewhere", "x")
            with anyio.fail_after(15):
                while here.health().position != newest:
                    async with here.subscribe("visited"):
                        await anyio.sleep(0.02)


def number_of(event_id: str) -> int:
    return int(event_id.rpartition("-")[2])


class Gate:
    """Where a command to the server waits until it is let through."""

    def __init__(self) -> None:
        self.reached, self.open = anyio.Event(), anyio.Event()


async def test_what_an_old_subscription_hears_proves_nothing_for_a_new_one(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel is left, and subscribed to again before the server has been told: it is heard when it says so."""
    monkeypatch.setattr(listener, "CHECK_INTERVAL", 0.1)
    gates: dict[str, Gate] = {}
    send_command = AbstractConnection.send_command

    async def send_through(self: Any, *args: Any, **kwargs: Any) -> None:
        if gate := gates.get(args[0]):
            gate.reached.set()
            await gate.open.wait()
        await send_command(self, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_command", send_through)
    async with Broker(own_redis.url) as here, Broker(own_redis.url) as there, here.subscribe("other") as other:
        async with here.subscribe("a"):
            gates.update(UNSUBSCRIBE=Gate(), SUBSCRIBE=Gate())
        with anyio.fail_after(15):
            await gates["UNSUBSCRIBE"].reached.wait()
        second = here.subscribe("a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second.enter)
            await anyio.wait_all_tasks_blocked()
            await there.publish("a", "one")
            # Heard behind it, so that has been heard as well.
            await there.publish("other", "x")
            await take(other, 1)
            gates["UNSUBSCRIBE"].open.set()
            with anyio.fail_after(15):
                await gates["SUBSCRIBE"].reached.wait()
            published = [await there.publish("a", "two")]
            gates["SUBSCRIBE"].open.set()
        entered_at = number_of(second.position)
        # The listener's check has proven that all of it was heard.
        await until(lambda: here.health().position == published[0])
        published.append(await there.publish("a", "three"))
        due = [event_id for event_id in published if number_of(event_id) > entered_at]
        assert [event.last_event_id for event in await take(second, len(due))] == due
        second.leave()
