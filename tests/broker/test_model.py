"""Whatever happens in whatever order, a client gets what was promised: a model against the real thing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from starlette_sse.broker import Broker, Position
from starlette_sse.broker.positions import new_epoch
from starlette_sse.exceptions import SlowReaderError
from tests.broker.clients import Client, Ledger
from tests.broker.redis_server import RedisServer

pytestmark = pytest.mark.anyio

CHANNELS = "abc"
SETS = ["a", "b", "ab", "bc", "abc"]

names = st.sampled_from(CHANNELS)
clients = st.integers(0, 3)
step = st.one_of(
    *(
        st.tuples(st.just("publish"), names, st.integers(1, 6)),
        st.tuples(st.just("publish"), names, st.just(1)),
        st.tuples(st.just("connect"), clients, st.booleans()),
        st.tuples(st.just("read"), clients),
        st.tuples(st.just("cut"), clients, st.floats(0, 1)),
        st.tuples(st.just("disconnect"), clients),
        st.tuples(st.just("settle")),
        st.tuples(st.just("evict"), names),
        st.tuples(st.just("read"), clients),
        st.tuples(st.just("meddle"), clients, st.sampled_from(["nonsense", "Foreign0-7", "future"])),
    )
)
# Long stories too: a reader that lags, is told, comes back and lags again takes its time.
steps = st.one_of(st.lists(step, max_size=10), st.lists(step, min_size=40, max_size=100))


@dataclass
class World:
    """A broker, its clients, and what may have left the log."""

    broker: Broker
    history: int
    ledger: Ledger = field(default_factory=Ledger)
    clients: list[Client] = field(default_factory=list)
    gone: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHANNELS, 0))
    server: RedisServer | None = None

    async def publish(self, channel: str, count: int) -> None:
        for _ in range(count):
            assert await self.ledger.publish(self.broker, channel)
        numbers = [position.seq for name, position, _ in self.ledger.events if name == channel]
        if len(numbers) > self.history:
            self.gone[channel] = max(self.gone[channel], numbers[-self.history - 1])

    async def settle(self) -> None:
        """Wait until everything that was published has come to this process."""
        if self.server is not None:
            async with self.broker.subscribe("settled") as subscription:
                await self.broker.publish("settled", "now")
                with anyio.fail_after(5):
                    await anext(subscription)

    async def connect(self, number: int, opening: bool) -> None:
        client = self.clients[number]
        if client.subscription is None:
            await client.connect(opening=opening)

    async def read(self, number: int, fraction: float = 1.0) -> None:
        client = self.clients[number]
        if client.subscription is None:
            return
        before = len(client.resets)
        position = Position.parse(client.last_event_id)
        try:
            await client.read(fraction)
        except SlowReaderError:
            assert self.may_reset(position), (position, self.gone)
            await client.disconnect()
        if len(client.resets) > before and client.resets[-1]["reason"] in {"evicted", "lagged"}:
            assert self.may_reset(position), (position, self.gone, client.resets)
        assert len(client.resets) <= before + 1

    async def cut(self, number: int, fraction: float) -> None:
        await self.read(number, fraction)
        await self.clients[number].disconnect()

    async def disconnect(self, number: int) -> None:
        await self.clients[number].disconnect()

    async def evict(self, channel: str) -> None:
        """Let a channel's events go, as their age does, or a server that is short of memory."""
        numbers = [position.seq for name, position, _ in self.ledger.events if name == channel]
        self.gone[channel] = max(numbers, default=0)
        if self.server is not None:
            self.server.evict(f":channel:{channel}")
        elif channel in self.broker._log.channels:
            held = self.broker._log.channels[channel]
            held.expire(float("inf"))
            self.broker._log.tidy(held)

    async def meddle(self, number: int, event_id: str) -> None:
        """Come back with an id that was never given to anybody, and be told so once."""
        if not self.broker._log.epoch:
            return
        event_id = f"{self.broker._log.epoch}-999999" if event_id == "future" else event_id
        client = Client(self.broker, self.clients[number].channels)
        client.pretend(event_id)
        await client.connect()
        with anyio.fail_after(5):
            while not client.resets:
                await client.read()
        assert len(client.resets) == 1
        assert client.resets[0]["requested"] == event_id
        await client.disconnect()

    def may_reset(self, position: Position | None) -> bool:
        return position is None or any(position.seq < number for number in self.gone.values())

    async def finish(self) -> None:
        """Bring every client to the log's end, and hold it to the promise."""
        for client in self.clients:
            if client.subscription is None:
                await client.connect()
        for channel in CHANNELS:
            await self.publish(channel, 1)
        for client in self.clients:
            last = [position for name, position, _ in self.ledger.events if name in client.channels][-1]
            with anyio.fail_after(5):
                await self.bring(client, last)
            client.check(self.ledger)
            await client.disconnect()

    async def bring(self, client: Client, end: Position) -> None:
        while True:
            try:
                return await client.read_up_to(end)
            except SlowReaderError:
                await client.disconnect()
                await client.connect()


async def play(world: World, script: list[tuple[Any, ...]], policies: list[Any]) -> None:
    world.clients += [Client(world.broker, tuple(SETS[n]), on_lag=policies[n]) for n in range(4)]
    for name, *args in script:
        await getattr(world, name)(*args)
    await world.finish()


policies = st.lists(st.sampled_from(["disconnect", "reset"]), min_size=4, max_size=4)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(script=steps, history=st.integers(1, 6), policies=policies)
async def test_a_client_gets_every_event_or_one_reset(
    script: list[tuple[Any, ...]], history: int, policies: list[Any]
) -> None:
    """Publishing, coming, going at any byte, resuming, trimming and lagging never lose, repeat or reorder an event."""
    await play(World(Broker(history=history, observers=()), history), script, policies)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(script=steps, history=st.integers(1, 6), policies=policies)
async def test_a_client_gets_every_event_or_one_reset_from_redis(
    script: list[tuple[Any, ...]], history: int, policies: list[Any], shared_redis: RedisServer
) -> None:
    """The promise is the same when the log is in Redis, where a stream may be evicted behind everybody's back."""
    shared_redis.command("FLUSHALL")
    async with Broker(shared_redis.url, prefix=new_epoch(), history=history, observers=()) as broker:
        await play(World(broker, history, server=shared_redis), script, policies)
