"""All that a soak has running: two Redis servers behind one address, workers, publishers, and readers of each kind."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import redis

from starlette_sse.broker import Position
from starlette_sse.exceptions import BrokerError
from tests.broker.redis_server import RedisServer
from tests.broker.relay import Relay, relaying
from tests.soak.broadcast.brokers import CHANNELS, PREFIX, ReopenedBroker
from tests.soak.broadcast.ledger import Ledger, Received
from tests.soak.broadcast.processes import PublisherProcess, Worker
from tests.soak.broadcast.readers import ON_LAG, EndpointReader, Reader, SubscriptionReader

__all__ = ["Scene", "in_thread", "running"]

#: Seconds within which all is well again after a fault.
BOUND = 20.0

#: Seconds between two looks at what log the server has.
LOOK_INTERVAL = 0.1

#: What is answered for is on the disk. A replica is sent everything at once.
OPTIONS = (
    *("--appendonly", "yes", "--appendfsync", "always"),
    *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
)


class Scene:
    def __init__(
        self, seed: int, directory: Path, ledger: Ledger, relay: Relay, servers: Sequence[RedisServer]
    ) -> None:
        self.ledger = ledger
        self.relay = relay
        self.spare = servers[1]
        self.spare_runs = False
        #: Of each server.
        self.directories = {server: directory / f"redis-{place}" for place, server in enumerate(servers)}
        #: Held by whoever does something at a place.
        self.locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self.opened = ReopenedBroker(relay.url)
        self.workers = [Worker(directory, relay.url) for _ in range(2)]
        self.publishers = [PublisherProcess(ledger, relay.url, name, f"{seed}") for name in ("p", "q")]
        self.readers: list[Reader] = []
        self._markers = count()
        source = random.Random(f"{seed} readers")
        ports = [worker.port for worker in self.workers]
        for place in range(12):
            on_lag, slow = ON_LAG[place % 3], source.choice((0.0, 0.2, 0.4))
            own = f"{seed} reader {place}"
            channels = Reader.some_channels(source)
            if place < 6:
                received = Received(ledger, f"client {place}", channels, on_lag)
                self.readers.append(EndpointReader(received, own, ports, slow=slow))
            else:
                received = Received(ledger, f"subscriber {place}", channels, on_lag)
                self.readers.append(SubscriptionReader(received, own, lambda: self.opened.broker, slow=0.5 - slow))

    @property
    def server(self) -> RedisServer:
        """The Redis that the address leads to."""
        return self.relay.server

    @property
    def received(self) -> list[Received]:
        return [reader.received for reader in self.readers]

    # The servers

    async def command(self, *args: Any) -> Any:
        return await in_thread(self.server.command, *args)

    async def look(self) -> None:
        """Tell the ledger which log the server has."""
        epoch, ancestors = await self.command("HMGET", f"{{{PREFIX}}}:log", "epoch", "ancestors")
        if epoch is not None:
            pairs = (pair.split("=") for pair in ancestors.decode().split())
            self.ledger.looked(epoch.decode(), {name: int(last) for name, last in pairs})

    async def keep_looking(self) -> None:
        while True:
            # It may be away.
            with suppress(redis.RedisError):
                await self.look()
            await anyio.sleep(LOOK_INTERVAL)

    async def attach_spare(self) -> None:
        """Let the other server follow, and wait until it has everything, in its append-only file too."""
        if self.spare_runs:
            await in_thread(self.spare.command, "REPLICAOF", "127.0.0.1", self.server.port)
        else:
            await in_thread(self.spare.start, "--replicaof", f"127.0.0.1 {self.server.port}")
            self.spare_runs = True
        await self.until_in_step()

    async def until_in_step(self) -> None:
        async def problem() -> str | None:
            info = await in_thread(self.spare.command, "INFO")
            behind = int((await self.command("INFO"))["master_repl_offset"]) - int(info.get("slave_repl_offset", -1))
            # A little is always under way.
            ready = info.get("master_link_status") == "up" and behind < 10_000
            return None if ready and not await self.rewriting(self.spare) else f"the replica is {behind} bytes behind"

        if (reason := await remains(problem)) is not None:
            raise RuntimeError(reason)

    async def rewriting(self, server: RedisServer) -> bool:
        info = await in_thread(server.command, "INFO", "persistence")
        return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])

    def switch(self) -> None:
        """Let the address lead to the other server."""
        self.relay.server, self.spare = self.spare, self.relay.server

    async def restart(self, *, with_data: bool) -> None:
        """Start a server again that was killed."""
        if not with_data:
            await in_thread(shutil.rmtree, self.directories[self.server] / "appendonlydir")
        await in_thread(self.server.start)

    # Being well

    async def problem(self) -> str | None:
        """Return what is not well, if anything is."""
        for place, worker in enumerate(self.workers):
            if (error := (await worker.health())["error"]) is not None:
                return f"worker {place}: {error}"
        for publisher in self.publishers:
            publisher.tell("health")
            if publisher.error is not None:
                return f"publishers {publisher.name}: {publisher.error}"
        health = self.opened.broker.health()
        return None if health.ok else f"the broker here: {health.error or 'not open'}"

    async def expect(self, problem: Callable[[], Awaitable[str | None]]) -> None:
        """Wait until there is no problem, as promised; for longer than :data:`BOUND` seconds it is a violation."""
        if (reason := await remains(problem)) is not None:
            self.ledger.accuse(f"still after {BOUND} s: {reason}")

    async def publish_markers(self) -> dict[str, Position]:
        """Publish an event in each channel, behind all others, and return where they are."""
        markers: dict[str, Position] = {}

        async def problem() -> str | None:
            # A server that is a replica now says so to the first who asks for something to be written.
            for channel in CHANNELS:
                if channel not in markers:
                    text = f"marker:{next(self._markers)}"
                    self.ledger.tried(text, channel, None, None)
                    try:
                        markers[channel] = self.ledger.published(text, await self.opened.broker.publish(channel, text))
                    except BrokerError as exc:
                        self.ledger.failed(text, in_doubt=getattr(exc, "in_doubt", False))
                        return f"the broker here does not publish: {exc}"
            return None

        await self.expect(problem)
        return markers


@asynccontextmanager
async def running(seed: int, directory: Path, ledger: Ledger) -> AsyncIterator[Scene]:
    """Run a scene; all that it starts has ended behind the block."""
    servers = []
    for place in range(2):
        (directory / f"redis-{place}").mkdir()
        servers.append(RedisServer(directory / f"redis-{place}", *OPTIONS))
    try:
        await in_thread(servers[0].start)
        async with relaying(servers[0]) as relay:
            scene = Scene(seed, directory, ledger, relay, servers)
            try:
                for worker in scene.workers:
                    await in_thread(worker.start)
                yield scene
            finally:
                for worker in scene.workers:
                    worker.kill()
    finally:
        for server in servers:
            server.kill()


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *args)


async def remains(problem: Callable[[], Awaitable[str | None]]) -> str | None:
    """Return what is still wrong when :data:`BOUND` seconds are over; None as soon as nothing is."""
    last: str | None = "nothing was answered"
    with anyio.move_on_after(BOUND):
        while (last := await problem()) is not None:
            await anyio.sleep(0.05)
    return last
