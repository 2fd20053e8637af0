"""What the Redis backend leaves in a server, and what it makes of what others do there."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from starlette_sse.broker import Broker
from starlette_sse.broker.positions import new_epoch
from starlette_sse.broker.redis import RedisBackend
from starlette_sse.broker.redis.scripts import APPEND, OPEN, READ, STATE
from starlette_sse.exceptions import BrokerUnavailableError
from starlette_sse.testing import conformance
from tests.broker.clients import Client, Ledger
from tests.broker.reading import publish_together, settle, take, texts
from tests.broker.redis_server import RedisServer, running
from tests.servers.processes import ROOT
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_a_process_has_one_listener_whatever_its_readers(own_redis: RedisServer) -> None:
    """Hundreds of readers of dozens of channels are one connection and one subscription per channel; none stays."""
    async with Broker(own_redis.url, observers=()) as broker:
        async with AsyncExitStack() as stack:
            for n in range(300):
                await stack.enter_async_context(broker.subscribe([f"channel {n % 30}", "all"]))
            assert own_redis.command("CLIENT", "LIST", "TYPE", "pubsub").count(b"\n") == 1
            assert len(own_redis.command("PUBSUB", "CHANNELS")) == 31 + 1
        await until(lambda: own_redis.command("PUBSUB", "CHANNELS") == [b"{starlette_sse}:news:0:"])
        assert broker.health().channels == 0


async def test_a_listener_without_channels_is_not_idle(own_redis: RedisServer) -> None:
    """A server that closes connections on which nothing happens leaves it alone."""
    own_redis.command("CONFIG", "SET", "timeout", "1")
    async with Broker(own_redis.url, observers=()) as broker:
        await settle(broker)
        # What is idle for as long as the listener is closed, and then once more, as the server looks now and then.
        for _ in range(2):
            async with await anyio.connect_tcp("127.0.0.1", own_redis.port) as idle:
                with anyio.fail_after(15), pytest.raises(anyio.EndOfStream):
                    await idle.receive()
        await settle(broker)
        assert broker.health().outages == 0


async def test_every_key_goes_by_itself(own_redis: RedisServer) -> None:
    """Streams live about as long as their events, the log's own keys much longer, and nothing for ever."""
    async with Broker(own_redis.url, observers=(), max_age=100, prefix="app") as broker:
        for n in range(5):
            await broker.publish(f"channel {n}", "x")
        names = own_redis.names()
        assert len(names) == 7
        assert all(name.startswith("{app}:") for name in names)
        lives = {name: own_redis.command("PTTL", name) / 1000 for name in names}
        assert all(100 < seconds <= 160 for name, seconds in lives.items() if ":channel:" in name)
        assert all(7 * 86300 < seconds <= 7 * 86400 for name, seconds in lives.items() if ":channel:" not in name)


async def test_dead_channels_vanish(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels that were used once leave nothing, and who was away longer than that is told."""
    monkeypatch.setattr("starlette_sse.broker.redis.remote.REMEMBERED", 0.1)
    async with Broker(own_redis.url, observers=(), max_age=0.1) as broker:
        first = await broker.publish("channel 0", "x")
        for n in range(1, 40):
            last = await broker.publish(f"channel {n}", "x")
        await until(lambda: not own_redis.names(*(f":channel {n}" for n in range(40))))
        # Each takes out two of them at most.
        for _ in range(20):
            newest = await broker.publish("busy", "x")
        tops = own_redis.names(":tops")[0]
        assert own_redis.command("ZCARD", tops) == 1
        async with broker.subscribe("channel 7", first) as subscription:
            assert '"reason":"evicted"' in (await take(subscription, 1))[0].data
        async with broker.subscribe("channel 7", last) as one, broker.subscribe("channel 7", newest) as other:
            await broker.publish("channel 7", "new")
            assert await texts(one, 1) == await texts(other, 1) == ["new"]


async def test_keys_count_for_the_bytes_that_are_kept(own_redis: RedisServer) -> None:
    """And the newest event stays however long its key is."""
    async with Broker(own_redis.url, observers=(), max_bytes=2000) as broker:
        for number in range(5):
            await broker.publish("a", "x", str(number) * 900)
        (stream,) = own_redis.names(":channel:a")
        assert own_redis.command("XLEN", stream) == 2
        await broker.publish("a", "x" * 1800, "k" * 1000)
        assert own_redis.command("XLEN", stream) == 1


async def test_two_logs_on_one_server_do_not_meet(shared_redis: RedisServer) -> None:
    """Each prefix is a log of its own, with its own numbers and channels."""
    async with (
        Broker(shared_redis.url, observers=(), prefix=new_epoch()) as one,
        Broker(shared_redis.url, observers=(), prefix=new_epoch()) as other,
        one.subscribe("a") as reader,
    ):
        foreign = await other.publish("a", "not mine")
        mine = await one.publish("a", "mine")
        assert await texts(reader, 1) == ["mine"]
        assert (foreign.split("-")[1], mine.split("-")[1]) == ("1", "1")


async def test_numbers_stay_exact_as_they_grow(own_redis: RedisServer) -> None:
    """After a million million events the ids are still whole numbers, and proofs still hold."""
    async with Broker(own_redis.url, observers=(), history=3) as broker:
        await broker.publish("a", "x")
        own_redis.command("HSET", own_redis.names("}:log")[0], "seq", 10**13)
        ledger = Ledger()
        client = Client(broker, ["a"])
        await client.connect()
        await ledger.publish(broker, "a")
        assert ledger.events[-1][1].seq == 10**13 + 1
        await client.read_up_to(ledger.events[-1][1])
        await client.disconnect()
        for _ in range(2):
            await ledger.publish(broker, "a")
        await client.connect()
        await client.read_up_to(ledger.events[-1][1])
        client.check(ledger)
        assert client.resets == []
        await client.disconnect()


@pytest.mark.parametrize("place", [1, 2, 4])
async def test_a_hole_in_a_stream_is_told(own_redis: RedisServer, place: int) -> None:
    """Somebody deletes an entry at the beginning, in the middle or at the end: who needs it gets a reset."""
    async with Broker(own_redis.url, observers=()) as broker:
        ids = [await broker.publish("a", str(n)) for n in range(5)]
        own_redis.command("XDEL", own_redis.names(":channel:a")[0], f"{ids[place].split('-')[1]}-0")
        for n, event_id in enumerate(ids):
            async with broker.subscribe("a", event_id) as subscription:
                subscription.wake()
                reset = False
                with anyio.move_on_after(0.2):
                    while not reset:
                        reset = b"stream-reset" in await subscription.pull()
                assert reset == (n < place)


async def test_a_server_that_forgets_its_scripts_goes_on(own_redis: RedisServer) -> None:
    """The scripts are loaded again, and the log is the same."""
    async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("a") as subscription:
        before = await broker.publish("a", "x")
        own_redis.command("SCRIPT", "FLUSH")
        after = await broker.publish("a", "y")
        assert after.split("-")[0] == before.split("-")[0]
        assert await texts(subscription, 2) == ["x", "y"]
        assert broker.health().outages == 0


async def test_a_full_server_refuses_and_nothing_is_in_doubt(own_redis: RedisServer) -> None:
    """Out of memory is an error that says so; readers stay, and afterwards it goes on."""
    async with Broker(own_redis.url, observers=()) as broker, broker.subscribe("a") as subscription:
        await broker.publish("a", "before")
        own_redis.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BrokerUnavailableError, match=r"refused: .*maxmemory") as caught:
            await broker.publish("a", "lost")
        assert not caught.value.in_doubt
        own_redis.command("CONFIG", "SET", "maxmemory", "0")
        await broker.publish("a", "after")
        assert await texts(subscription, 2) == ["before", "after"]


async def test_databases_of_one_server_have_logs_of_their_own(own_redis: RedisServer) -> None:
    """Redis tells what is published in all of them; logs of one name in two of them hear nothing of each other."""
    url = own_redis.url.removesuffix("0")
    async with (
        Broker(f"{url}0", observers=()) as one,
        Broker(f"{url}1", observers=()) as other,
        one.subscribe("a") as here,
        other.subscribe("a") as there,
    ):
        for number in range(3):
            await one.publish("a", f"one {number}")
            await other.publish("a", f"other {number}")
        assert await texts(here, 3) == ["one 0", "one 1", "one 2"]
        assert await texts(there, 3) == ["other 0", "other 1", "other 2"]
        assert [broker.health().outages for broker in (one, other)] == [0, 0]


async def test_the_documented_rights_are_enough(own_redis: RedisServer) -> None:
    """A user that has those, and no others, can do all that every backend must, and is refused nothing."""
    text = (ROOT / "docs" / "broadcast.rst").read_text()
    # A prefix for each check.
    rights = text[text.index("ACL SETUSER") : text.index("What Redis sees:")].replace("{starlette_sse}", "{*}").split()
    own_redis.command(*rights)
    url = f"redis://news:password@127.0.0.1:{own_redis.port}/1"
    for check in [*conformance.CHECKS, *conformance.SHARED_CHECKS]:
        await check(lambda name: RedisBackend(url, prefix=name, timeout=5.0))
    # Redis-py offers its name, which a server may decline.
    assert {entry[b"object"] for entry in own_redis.command("ACL", "LOG")} <= {b"client", b"client|setinfo"}
    asked = {word for script in (APPEND, OPEN, READ, STATE) for word in re.findall(r"redis\.p?call\('(\w+)'", script)}
    connection = {"EVAL", "EVALSHA", "SCRIPT|LOAD", "SUBSCRIBE", "UNSUBSCRIBE", "PING", "SELECT"}
    assert {word[1:].upper() for word in rights if word.startswith("+")} == asked | connection


@pytest.mark.parametrize(
    ("rights", "in_doubt"), [(("resetchannels",), True), (("-xadd",), True), (("-hincrby",), False), (("~x",), False)]
)
async def test_a_publication_that_is_refused_half_done_is_in_doubt(
    own_redis: RedisServer, rights: tuple[str, ...], in_doubt: bool
) -> None:
    """What a script has written before it was stopped stays; what was stopped before that is not there."""
    own_redis.command("ACL", "SETUSER", "poor", "on", ">right", "~*", "&*", "+@all")
    url = own_redis.url.replace("//", "//poor:right@")
    async with Broker(own_redis.url, observers=()) as rich, Broker(url, observers=()) as poor:
        start = await rich.publish("a", "start")
        own_redis.command("ACL", "SETUSER", "poor", *(("resetkeys", "~x") if rights == ("~x",) else rights))
        with pytest.raises(BrokerUnavailableError, match="refused") as caught:
            await poor.publish("a", "x")
        assert caught.value.in_doubt is in_doubt
        assert ("may have been done" in str(caught.value)) is in_doubt
        await rich.publish("a", "end")
        async with rich.subscribe("a", start) as subscription:
            expected = ["x", "end"] if rights == ("resetchannels",) else ["end"]
            assert await texts(subscription, len(expected)) == expected


async def test_a_server_that_lacks_a_replica_refuses_and_nothing_is_in_doubt(own_redis: RedisServer) -> None:
    """Whatever keeps it from the first write keeps it from all."""
    async with Broker(own_redis.url, observers=()) as broker:
        own_redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(BrokerUnavailableError, match=r"refused: .*replicas") as caught:
            await broker.publish("a", "x")
        assert not caught.value.in_doubt


async def test_a_failover_is_told(own_redis: RedisServer, tmp_path: Path) -> None:
    """Another server takes over, which may not have had everything: old ids give a reset, whatever is on its disk."""
    (tmp_path / "replica").mkdir()
    options = ("--replicaof", f"127.0.0.1 {own_redis.port}", "--appendonly", "yes", "--repl-diskless-sync-delay", "0")
    async with Broker(own_redis.url, observers=()) as broker:
        before = await broker.publish("a", "x")
    with running(tmp_path / "replica", *options) as replica:
        await until(lambda: replica.names(":channel:a"))
        own_redis.kill()
        replica.command("REPLICAOF", "NO", "ONE")
        async with Broker(replica.url, observers=()) as broker:
            async with broker.subscribe("a", before) as subscription:
                assert '"reason":"epoch"' in (await take(subscription, 1))[0].data
                await broker.publish("a", "y")
                assert await texts(subscription, 1) == ["y"]


async def test_a_replica_refuses_to_publish(own_redis: RedisServer, tmp_path: Path) -> None:
    """A broker that was pointed at a replica says what is wrong when it is entered."""
    (tmp_path / "replica").mkdir()
    with running(tmp_path / "replica", "--replicaof", f"127.0.0.1 {own_redis.port}") as replica:
        with pytest.raises(BrokerUnavailableError, match=r"refused: .*read only replica"):
            async with Broker(replica.url, observers=()):
                pass


@pytest.mark.parametrize("own_redis", [("--appendonly", "yes")], indirect=True)
async def test_what_a_restart_cut_off_is_told(own_redis: RedisServer) -> None:
    """The append-only file ends before what a client has seen: its id is of no place any more, and never will be."""
    async with Broker(own_redis.url, observers=()) as broker:
        known = await broker.publish("a", "kept")
        epoch, seq = known.split("-")
    await anyio.to_thread.run_sync(own_redis.kill)
    await anyio.to_thread.run_sync(own_redis.start)
    async with Broker(own_redis.url, observers=()) as broker:
        for n in range(5):
            await broker.publish("a", str(n))
        async with broker.subscribe("a", known) as subscription:
            assert await texts(subscription, 5) == ["0", "1", "2", "3", "4"]
        async with broker.subscribe("a", f"{epoch}-{int(seq) + 2}") as subscription:
            assert '"reason":"lost"' in (await take(subscription, 1))[0].data


@pytest.mark.parametrize("own_redis", [("--appendonly", "yes")], indirect=True)
async def test_a_log_knows_its_last_eight_epochs(own_redis: RedisServer) -> None:
    """A client resumes over as many restarts of the server, and is told when it was away for more."""
    ids, resumed = [], []
    for _ in range(11):
        async with Broker(own_redis.url, observers=()) as broker:
            ids.append(await broker.publish("a", "x"))
        # As a restart leaves it.
        own_redis.command("HSET", "{starlette_sse}:log", "run", "another")
    async with Broker(own_redis.url, observers=()) as broker:
        for event_id in ids:
            async with broker.subscribe("a", event_id) as subscription:
                subscription.wake()
                resumed.append(b"stream-reset" not in await subscription.pull())
    assert resumed == [False] * 3 + [True] * 8


async def test_a_busy_listener_joins_what_it_hears(shared_redis: RedisServer) -> None:
    """A flood from another process reaches a reader in few, large pulls, and leaves nobody waiting."""
    prefix = new_epoch()
    async with (
        Broker(shared_redis.url, observers=(), prefix=prefix) as publisher,
        Broker(shared_redis.url, observers=(), prefix=prefix) as broker,
        broker.subscribe("a") as subscription,
    ):
        async with anyio.create_task_group() as tasks:
            for n in range(500):
                tasks.start_soon(publisher.publish, "a", str(n))
        await settle(broker)
        assert sorted(map(int, await texts(subscription, 500))) == list(range(500))


@pytest.mark.parametrize(("history", "count"), [(1, 10), (4, 60), (10, 400)])
async def test_a_short_history_does_not_outrun_its_readers(shared_redis: RedisServer, history: int, count: int) -> None:
    """This process hears no more in one turn than its readers can still be given."""
    prefix = new_epoch()
    brokers = [Broker(shared_redis.url, prefix=prefix, history=history, observers=()) for _ in range(2)]
    async with brokers[0] as here, brokers[1] as there:
        assert sorted(map(int, await publish_together(here, there, count))) == list(range(count))
