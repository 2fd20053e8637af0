"""What happens to the servers, to the way there, and to the processes: each kind by itself, and several at once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from tests.soak.broadcast.brokers import CHANNELS, PREFIX
from tests.soak.broadcast.scene import Scene, in_thread

__all__ = ["KINDS", "Step", "apply", "plan"]

Apply = Callable[[Scene, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    :param loses: how often a reader may be told that events may be lost.
    :param at: what it happens to, at which nothing else happens meanwhile.
    """

    apply: Apply
    loses: int
    at: str


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a plan."""

    kind: str
    pause: float
    """Seconds before it."""
    seed: str
    """For what it chooses by itself."""


KINDS: dict[str, Kind] = {}


def kind(*, loses: int = 0, at: str = "server") -> Callable[[Apply], Apply]:
    def add(function: Apply) -> Apply:
        KINDS[function.__name__.replace("_", " ")] = Kind(function, loses, at)
        return function

    return add


def plan(seed: int) -> Iterator[list[Step]]:
    """Yield what happens in each round, without an end; every kind has come before one comes again."""
    source = random.Random(f"{seed} faults")
    deck: list[str] = []
    for number in iter(source.random, None):
        steps = []
        for place in range(source.choice((1, 1, 2, 3))):
            deck = deck or source.sample(sorted(KINDS), len(KINDS))
            steps.append(Step(deck.pop(), source.uniform(0.1, 1.0), f"{seed} {number} {place}"))
        yield steps


async def apply(step: Step, scene: Scene) -> None:
    """Let a fault happen; it is over when this returns."""
    await anyio.sleep(step.pause)
    found = KINDS[step.kind]
    async with scene.locks[found.at]:
        if found.loses:
            # What is lost must have been seen.
            await scene.look()
        await found.apply(scene, random.Random(step.seed))


async def killed(scene: Scene, source: random.Random, *, with_data: bool) -> None:
    await in_thread(scene.server.kill)
    await until_known(scene)
    await anyio.sleep(source.uniform(0, 1.5))
    await scene.restart(with_data=with_data)


async def until_known(scene: Scene) -> None:
    """Wait until the broker here knows that the server is away, as it must."""

    async def problem() -> str | None:
        return "the server is away, and a broker does not know it" if scene.opened.broker.health().ok else None

    await scene.expect(problem)


@kind()
async def restart_with_data(scene: Scene, source: random.Random) -> None:
    await killed(scene, source, with_data=True)


@kind(loses=1)
async def restart_without_data(scene: Scene, source: random.Random) -> None:
    await killed(scene, source, with_data=False)


@kind(loses=1)
async def power_failure(scene: Scene, source: random.Random) -> None:
    """What was written last is not on the disk, and not everybody has heard of it."""
    while await scene.rewriting(scene.server):
        await anyio.sleep(0.05)
    written = await in_thread(scene.server.written)
    scene.relay.stall(source.choice((0, 0.3, 0.6)), source)
    await anyio.sleep(source.uniform(0, 0.5))
    await scene.look()
    await in_thread(scene.server.lose_power, written)
    scene.relay.cut()
    scene.relay.flow()
    await until_known(scene)
    await scene.restart(with_data=True)


@kind()
async def server_stands_still(scene: Scene, source: random.Random) -> None:
    scene.server.suspend()
    try:
        await anyio.sleep(source.uniform(0.2, 4))
    finally:
        scene.server.resume()


@kind()
async def clients_paused(scene: Scene, source: random.Random) -> None:
    pause = source.uniform(0.2, 2.5)
    await scene.command("CLIENT", "PAUSE", round(pause * 1000), source.choice(("ALL", "WRITE")))
    await anyio.sleep(pause)


@kind(loses=1)
async def everything_flushed(scene: Scene, source: random.Random) -> None:
    await scene.command(source.choice(("FLUSHALL", "FLUSHDB")))


@kind(loses=1)
async def stream_deleted(scene: Scene, source: random.Random) -> None:
    await in_thread(scene.server.evict, f":channel:{source.choice(CHANNELS)}")


@kind(loses=1)
async def stream_trimmed(scene: Scene, source: random.Random) -> None:
    for name in await in_thread(scene.server.names, f":channel:{source.choice(CHANNELS)}"):
        await scene.command("XTRIM", name, "MAXLEN", source.choice((0, 1, 20)))


@kind(loses=1)
async def log_deleted(scene: Scene, source: random.Random) -> None:
    await scene.command("DEL", f"{{{PREFIX}}}:log")


@kind(loses=2)
async def index_deleted(scene: Scene, source: random.Random) -> None:
    """Who comes back is told at once, the others by the next event, whose link does not fit.

    What comes too late for its order then is told besides.
    """
    await in_thread(scene.server.evict, ":tops", *source.sample([f":channel:{name}" for name in CHANNELS], 3))


@kind()
async def scripts_forgotten(scene: Scene, source: random.Random) -> None:
    for _ in range(source.randint(1, 5)):
        await scene.command("SCRIPT", "FLUSH")
        await anyio.sleep(source.uniform(0, 0.2))


@asynccontextmanager
async def configured(scene: Scene, name: str, value: int) -> AsyncIterator[None]:
    await scene.command("CONFIG", "SET", name, value)
    yield
    await scene.command("CONFIG", "SET", name, 0)


@kind()
async def out_of_memory(scene: Scene, source: random.Random) -> None:
    async with configured(scene, "maxmemory", 1):
        await anyio.sleep(source.uniform(0.1, 2))


@kind()
async def idle_connections_closed(scene: Scene, source: random.Random) -> None:
    async with configured(scene, "timeout", 1):
        await anyio.sleep(source.uniform(1, 3))


@kind()
async def replica_attached(scene: Scene, source: random.Random) -> None:
    await scene.attach_spare()


@kind()
async def replica_killed(scene: Scene, source: random.Random) -> None:
    await in_thread(scene.spare.kill)
    scene.spare_runs = False


async def failed_over(scene: Scene, source: random.Random, *, behind: float) -> None:
    """Let the replica take over; the old master follows it.

    :param behind: for how many seconds the old one still takes what the new one does not get.
    """
    await scene.attach_spare()
    if not behind:
        await scene.command("CLIENT", "PAUSE", 1000, "WRITE")
        await anyio.sleep(0.2)
    await in_thread(scene.spare.command, "REPLICAOF", "NO", "ONE")
    await anyio.sleep(behind)
    await scene.look()
    scene.switch()
    if source.random() < 0.5:
        scene.relay.cut()
    # Its connections stay, as Redis leaves them.
    await scene.attach_spare()


@kind(loses=1)
async def failover_in_step(scene: Scene, source: random.Random) -> None:
    await failed_over(scene, source, behind=0)


@kind(loses=1)
async def failover_behind(scene: Scene, source: random.Random) -> None:
    await failed_over(scene, source, behind=source.uniform(0.1, 1))


@kind()
async def clients_killed(scene: Scene, source: random.Random) -> None:
    for client in source.choice((("pubsub",), ("pubsub", "pubsub"), ("pubsub", "normal"), ("normal", "pubsub"))):
        await scene.command("CLIENT", "KILL", "TYPE", client, "SKIPME", "yes")
        await anyio.sleep(source.uniform(0, 0.5))


@kind(at="way")
async def connections_cut(scene: Scene, source: random.Random) -> None:
    for _ in range(source.randint(1, 5)):
        scene.relay.cut()
        await anyio.sleep(source.uniform(0, 0.2))


@kind(at="way")
async def connections_refused(scene: Scene, source: random.Random) -> None:
    scene.relay.refuse()
    if source.random() < 0.7:
        scene.relay.cut()
    await anyio.sleep(source.uniform(0.1, 2))
    await scene.relay.open()


@kind(at="way")
async def connections_stalled(scene: Scene, source: random.Random) -> None:
    scene.relay.stall(source.choice((0.3, 1.0)), source)
    await anyio.sleep(source.uniform(0.1, 3))
    scene.relay.flow()
    if source.random() < 0.3:
        scene.relay.cut()


@kind(at="worker")
async def worker_killed(scene: Scene, source: random.Random) -> None:
    worker = source.choice(scene.workers)
    await in_thread(worker.kill)
    await in_thread(worker.start)


@kind(at="worker")
async def worker_restarted(scene: Scene, source: random.Random) -> None:
    worker = source.choice(scene.workers)
    await in_thread(worker.stop)
    await in_thread(worker.start)


@kind(at="worker")
async def worker_stands_still(scene: Scene, source: random.Random) -> None:
    worker = source.choice(scene.workers)
    worker.suspend()
    try:
        await anyio.sleep(source.uniform(0.2, 4))
    finally:
        worker.resume()


@kind(at="publisher")
async def publisher_killed(scene: Scene, source: random.Random) -> None:
    source.choice(scene.publishers).kill()


@kind(at="publisher")
async def publisher_reopened(scene: Scene, source: random.Random) -> None:
    source.choice(scene.publishers).tell("reopen")


@kind(at="publisher")
async def broker_reopened(scene: Scene, source: random.Random) -> None:
    scene.opened.reopen()


@kind(at="publisher")
async def burst(scene: Scene, source: random.Random) -> None:
    """More is published to a channel than the log keeps."""
    source.choice(scene.publishers).tell("burst", source.choice(CHANNELS))
    await anyio.sleep(source.uniform(0, 1))
