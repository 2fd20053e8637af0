"""A Redis that has lost what it had answered for, or has gone back: nobody misses an event in silence."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from redis.asyncio.connection import AbstractConnection

from starlette_sse import Broker, BrokerUnavailableError, SSEEndpoint, Subscription
from starlette_sse.closing import close_everywhere, follow_closes
from starlette_sse.decoding import EventDecoder, MessageEvent
from starlette_sse.presence import count_together
from tests.broker.reading import settle, take, texts
from tests.broker.redis_server import RedisServer, running
from tests.broker.relay import relaying
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

APPEND_ONLY = ("--appendonly", "yes", "--appendfsync", "always")


async def lose_power(server: RedisServer, written: dict[Path, int], *brokers: Broker) -> None:
    """Let the server lose what was written since, and wait until all have noticed that it is back."""
    outages = [broker.health().outages for broker in brokers]
    await anyio.to_thread.run_sync(server.lose_power, written)
    await anyio.to_thread.run_sync(server.start)
    for broker, before in zip(brokers, outages, strict=True):
        await until(lambda: broker.health().outages > before and broker.health().ok)  # noqa: B023


async def up_to(subscription: Subscription, last: str) -> list[MessageEvent]:
    """Pull until an event with this data has come."""
    decoder, events = EventDecoder(), list[MessageEvent]()
    with anyio.fail_after(10):
        while not events or events[-1].data != last:
            events += decoder.feed(await subscription.pull())
    return events


def told(events: Sequence[MessageEvent]) -> list[str]:
    """Return what came, and of a reset its reason."""
    return [json.loads(event.data)["reason"] if event.type == "stream-reset" else event.data for event in events]


@pytest.mark.parametrize("own_redis", [APPEND_ONLY], indirect=True)
async def test_a_reader_of_a_quiet_channel_is_told(own_redis: RedisServer) -> None:
    """It began behind events of other channels, whose numbers are given again to those that it gets."""
    async with Broker(own_redis.url, observers=()) as here, Broker(own_redis.url, observers=()) as there:
        await there.publish("other", "kept")
        written = own_redis.written()
        for number in range(10):
            await there.publish("other", number)
        async with here.subscribe("a") as subscription:
            await lose_power(own_redis, written, here, there)
            assert told(await take(subscription, 1)) == ["lost"]
            for number in range(12):
                await there.publish("a", number)
            assert told(await up_to(subscription, "11")) == list(map(str, range(12)))


@pytest.mark.parametrize("own_redis", [APPEND_ONLY], indirect=True)
async def test_a_reader_that_a_page_has_brought_ahead_is_told(own_redis: RedisServer) -> None:
    """It has read what this process has not heard yet, and nobody will hear."""
    async with Broker(own_redis.url, observers=()) as here, Broker(own_redis.url, observers=()) as there:
        async with here.subscribe("a") as live:
            await there.publish("a", "kept")
            assert await texts(live, 1) == ["kept"]
            written = own_redis.written()
            backend: Any = here._backend
            # The network is slow: nothing is heard for now.
            backend._listener._held = []
            ids = [await there.publish("a", f"lost {number}") for number in range(5)]
            # A client comes from the other process.
            async with here.subscribe("a", ids[0]) as subscription:
                assert await texts(subscription, 4) == [f"lost {number}" for number in range(1, 5)]
                await lose_power(own_redis, written, here, there)
                assert told(await take(subscription, 1)) == ["lost"]
                for number in range(8):
                    await there.publish("a", number)
                assert told(await up_to(subscription, "7")) == list(map(str, range(8)))


@pytest.mark.parametrize("own_redis", [APPEND_ONLY], indirect=True)
async def test_a_page_of_the_new_log_is_no_word_of_what_is_lost(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that is behind goes on in it before its process has learned of the loss, and is told all the same."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.FIRST_PAUSE", 1.0)
    async with Broker(own_redis.url, observers=()) as broker:
        ids = [await broker.publish("a", number) for number in range(7)]
        backend: Any = broker._backend
        read, gate = backend._remote.read, anyio.Event()

        async def read_late(*args: Any) -> Any:
            # As one of many that wait for a connection.
            await gate.wait()
            return await read(*args)

        backend._remote.read = read_late
        backend._listener._pause = 1.0
        async with broker.subscribe("a", ids[4]) as subscription, anyio.create_task_group() as tasks:
            received: list[MessageEvent] = []

            async def follow() -> None:
                received.extend(await up_to(subscription, "after"))

            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            written = own_redis.written()
            for number in range(7, 10):
                await broker.publish("a", f"lost {number}")
            await anyio.to_thread.run_sync(own_redis.lose_power, written)
            await anyio.to_thread.run_sync(own_redis.start)
            gate.set()
            await until(lambda: broker.health().outages and broker.health().ok)
            await broker.publish("a", "after")
        assert told(received) in (["5", "6", "lost", "after"], ["lost", "after"])


@pytest.mark.parametrize("own_redis", [APPEND_ONLY], indirect=True)
@pytest.mark.parametrize("prefixes", [("one", "two"), ("one", "one\nreturn 1")])
async def test_another_log_on_the_server_lets_no_number_be_used_twice(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, prefixes: tuple[str, str]
) -> None:
    """Its broker is the first that comes back, and loads its scripts, before this log has been judged."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.FIRST_PAUSE", 30.0)
    mine, others = prefixes
    async with Broker(own_redis.url, observers=(), prefix=mine) as publisher:
        await publisher.publish("a", "kept")
        written = own_redis.written()
        lost = await publisher.publish("a", "lost")
        await anyio.to_thread.run_sync(own_redis.lose_power, written)
        await anyio.to_thread.run_sync(own_redis.start)
        async with Broker(own_redis.url, observers=(), prefix=others) as other:
            await other.publish("a", "another")
        assert await publisher.publish("a", "new") != lost
    async with Broker(own_redis.url, observers=(), prefix=mine) as later, later.subscribe("a", lost) as subscription:
        assert told(await take(subscription, 1)) == ["lost"]


async def test_a_server_that_has_followed_another_meanwhile_has_another_log(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that lagged took over, and then the same server again: what it had in between is gone, and told."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.CHECK_INTERVAL", 0.2)
    follows = ("--repl-diskless-sync-delay", "0", "--replicaof", f"127.0.0.1 {own_redis.port}")
    own_redis.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with running(tmp_path_factory.mktemp("replica"), *follows) as replica:
        async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("a") as live:
            await broker.publish("a", "kept")
            await until(lambda: replica.names(":channel:a"))
            # The network splits, and the replica takes over.
            replica.command("REPLICAOF", "NO", "ONE")
            seen = [await broker.publish("a", f"lost {number}") for number in range(5)]
            assert await texts(live, 6) == ["kept", *(f"lost {number}" for number in range(5))]
            # It heals: the old master follows the new one, and takes over again.
            own_redis.command("REPLICAOF", "127.0.0.1", replica.port)
            await until(lambda: own_redis.command("INFO", "replication")["master_link_status"] == "up")
            own_redis.command("REPLICAOF", "NO", "ONE")
            assert told(await take(live, 1)) == ["lost"]
            await until(lambda: broker.health().ok)
            for number in range(8):
                await broker.publish("a", number)
            assert told(await up_to(live, "7")) == [str(number) for number in range(8)]
            async with broker.subscribe("a", seen[-1]) as back:
                assert told(await take(back, 1)) == ["epoch"]


async def test_a_server_that_has_followed_another_meanwhile_uses_no_number_twice(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As above, and so much is published before anybody looks that the log is longer than it ever was."""
    follows = ("--repl-diskless-sync-delay", "0", "--replicaof", f"127.0.0.1 {own_redis.port}")
    own_redis.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with running(tmp_path_factory.mktemp("replica"), *follows) as replica:
        async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("quiet") as live:
            await broker.publish("busy", "kept")
            await until(lambda: replica.names(":channel:busy"))
            replica.command("REPLICAOF", "NO", "ONE")
            seen = [await broker.publish("busy", f"lost {number}") for number in range(5)]
            own_redis.command("REPLICAOF", "127.0.0.1", replica.port)
            await until(lambda: own_redis.command("INFO", "replication")["master_link_status"] == "up")
            own_redis.command("REPLICAOF", "NO", "ONE")
            # The scripts are known there still, and no process that listens hears anything of this.
            new = [await broker.publish("busy", number) for number in range(8)]
            assert not set(seen) & set(new)
            async with broker.subscribe("busy", seen[-1]) as back:
                assert told(await take(back, 1)) == ["epoch"]
            await broker.publish("quiet", "told of the other log")
            assert told(await take(live, 1)) == ["lost"]


async def test_a_first_replica_is_no_loss(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that gets one has another replication id, and all that it had."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.CHECK_INTERVAL", 0.1)
    own_redis.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("a") as live:
        before = own_redis.command("INFO", "replication")["master_replid"]
        with running(tmp_path_factory.mktemp("replica"), "--replicaof", f"127.0.0.1 {own_redis.port}") as replica:
            await until(lambda: replica.command("INFO", "replication")["master_link_status"] == "up")
            assert own_redis.command("INFO", "replication")["master_replid"] != before
            await anyio.sleep(0.5)
            await broker.publish("a", "kept")
            assert await texts(live, 1) == ["kept"]
        assert (broker.health().outages, broker.health().resets) == (0, 0)


async def test_a_server_that_is_a_replica_now_is_left_for_the_one_that_its_address_leads_to(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves its connections open, as Redis does: nothing would ever be published on them again."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.CHECK_INTERVAL", 0.2)
    own_redis.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    follows = ("--repl-diskless-sync-delay", "0", "--replicaof", f"127.0.0.1 {own_redis.port}")
    with running(tmp_path_factory.mktemp("replica"), *follows) as replica:
        async with (
            relaying(own_redis) as relay,
            Broker(relay.url, observers=()) as broker,
            broker.subscribe("a") as live,
        ):
            await broker.publish("a", "kept")
            await until(lambda: replica.names(":channel:a"))
            replica.command("REPLICAOF", "NO", "ONE")
            relay.server = replica
            own_redis.command("REPLICAOF", "127.0.0.1", replica.port)
            assert told(await take(live, 2)) == ["kept", "lost"]
            await until(lambda: broker.health().ok)
            await broker.publish("a", "new")
            assert await texts(live, 1) == ["new"]


async def test_a_server_that_stays_a_replica_is_not_connected_to_for_each_refusal(own_redis: RedisServer) -> None:
    """Publishers that try again would use up the ports of their machine, and take all of its time."""

    def received() -> int:
        return int(own_redis.command("INFO", "stats")["total_connections_received"])

    async with Broker(own_redis.url, observers=()) as broker:
        await broker.publish("a", "kept")
        own_redis.command("REPLICAOF", "127.0.0.1", "1")
        before = received()
        for _ in range(200):
            with pytest.raises(BrokerUnavailableError, match="read only"):
                await broker.publish("a", "refused")
        assert received() - before < 20


@asynccontextmanager
async def orders_heard(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Broker, Broker, list[str]]]:
    """Give a broker by which orders are followed, another, and the connections that were to be closed."""
    clients: list[str] = []
    monkeypatch.setattr("starlette_sse.closing.end", lambda order: clients.append(order.criteria["connection_id"]))
    async with Broker(server.url, observers=()) as here, Broker(server.url, observers=()) as there, follow_closes(here):
        yield here, there, clients


async def test_the_first_order_in_another_log_is_followed(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By that alone the others hear that the log was lost, and it is newer than the loss."""
    async with orders_heard(own_redis, monkeypatch) as (_, there, clients):
        for client in ("1", "2", "3"):
            await close_everywhere(there, connection_id=client)
            await until(lambda: client in clients)  # noqa: B023
            own_redis.command("FLUSHALL")
        await close_everywhere(there, connection_id="4")
        await close_everywhere(there, connection_id="5")
        await until(lambda: "5" in clients)
        assert clients == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("own_redis", [APPEND_ONLY], indirect=True)
async def test_an_order_that_a_restart_has_kept_is_not_followed_again(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the end of the log was lost: whoever has come back since must not be closed for an order of before."""
    async with orders_heard(own_redis, monkeypatch) as (here, there, clients):
        for client in ("1", "2", "3", "lost"):
            written = own_redis.written()
            await close_everywhere(there, connection_id=client)
            await until(lambda: client in clients)  # noqa: B023
        await lose_power(own_redis, written, here, there)
        await close_everywhere(there, connection_id="4")
        await until(lambda: "4" in clients)
        assert clients == ["1", "2", "3", "lost", "4"]


async def test_a_server_that_forgets_its_scripts_again_and_again_is_served(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishers and readers notice nothing, and the limits that processes count together end no app."""

    class Limited(SSEEndpoint):
        max_connections = 5

    send = AbstractConnection.send_command

    async def send_command(self: AbstractConnection, *args: Any, **options: Any) -> None:
        if args[0] == "EVALSHA":
            await anyio.to_thread.run_sync(own_redis.command, "SCRIPT", "FLUSH")
        await send(self, *args, **options)

    async with Broker(own_redis.url, observers=()) as broker, count_together(broker, Limited, interval=0.1):
        async with broker.subscribe("a") as subscription:
            monkeypatch.setattr(AbstractConnection, "send_command", send_command)
            for number in range(10):
                await broker.publish("a", number)
            assert await texts(subscription, 10) == [str(number) for number in range(10)]


async def test_one_outage_is_one_reset_whatever_was_lost(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of several channels is told of all at once, and misses nothing of what comes behind that."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.FIRST_PAUSE", 0.5)
    options: dict[str, Any] = {"observers": (), "history": 5}
    async with (
        Broker(own_redis.url, **options) as here,
        Broker(own_redis.url, **options) as there,
        here.subscribe(["a", "b", "c"], on_lag="reset") as subscription,
    ):
        for name in "abc":
            await there.publish(name, "first")
        assert await texts(subscription, 3) == ["first"] * 3
        received: list[MessageEvent] = []

        async def read() -> None:
            received.extend(await up_to(subscription, "c after 9"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            own_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            for number in range(20):
                for name in "abc":
                    await there.publish(name, f"missed {number}")
            await until(lambda: here.health().outages and here.health().ok)
            for number in range(10):
                for name in "abc":
                    await there.publish(name, f"{name} after {number}")
        assert told(received) == ["lost", *(f"{name} after {number}" for number in range(10) for name in "abc")]


async def test_a_client_that_a_page_has_told_of_a_new_log_is_told_once(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process learns of it later, which is news for the others."""
    monkeypatch.setattr("starlette_sse.broker.redis.listener.CHECK_INTERVAL", 1.0)
    async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("a") as live:
        await broker.publish("a", "x")
        old = await broker.publish("b", "y")
        assert await texts(live, 1) == ["x"]
        own_redis.command("FLUSHALL")
        async with broker.subscribe("a", old) as subscription:
            assert told(await take(subscription, 1)) == ["epoch"]
            assert told(await take(live, 1)) == ["lost"]
            await until(lambda: broker.health().ok)
            await broker.publish("a", "z")
            assert told(await up_to(subscription, "z")) == ["z"]


async def test_what_visitors_have_held_is_let_go(shared_redis: RedisServer) -> None:
    """A channel that nobody reads any more is not kept for the age of its events."""
    async with Broker(shared_redis.url, observers=(), prefix="visitors", history=10, max_age=3600.0) as broker:
        for _ in range(40):
            async with broker.subscribe("a") as subscription:
                await broker.publish("a", "x")
                await texts(subscription, 1)
        await settle(broker)
        watched = broker._log._oldest
        assert len(watched) <= 2
        assert [channel.entries for _, _, channel in watched if channel.name == "a"] in ([], [[]])


async def test_a_listener_whose_connection_takes_nothing_more_is_given_up(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path is dead, though commands still get through: somebody has to see it."""
    send, stuck = AbstractConnection.send_command, True

    async def send_command(self: AbstractConnection, *args: Any, **options: Any) -> None:
        if stuck and args[0] == "SUBSCRIBE" and str(args[-1]).endswith("new"):
            await anyio.sleep_forever()
        await send(self, *args, **options)

    monkeypatch.setattr(AbstractConnection, "send_command", send_command)
    async with Broker(own_redis.url, observers=(), timeout=0.5) as broker, broker.subscribe("quiet"):

        async def visit() -> None:
            with suppress(BrokerUnavailableError):
                async with broker.subscribe("new"):
                    await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit)
            await until(lambda: not broker.health().ok)
            assert "takes nothing from its listener" in str(broker.health().error)
            stuck = False
            await until(lambda: broker.health().ok)
            tasks.cancel_scope.cancel()
