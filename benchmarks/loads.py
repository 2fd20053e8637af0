"""What is done to a server, and what is measured of it meanwhile. Times are microseconds of the server's CPU, but for
latencies, which are milliseconds on the wall's clock, and memory, which is KiB."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.catalogue import CATALOGUE
from benchmarks.clients import PATIENCE, Crowd, DeliveryError, percentile
from benchmarks.results import Metrics
from benchmarks.servers import Server, ServerError

__all__ = [
    "at_rest",
    "connecting",
    "crowd_of",
    "crowding",
    "delivering",
    "idling",
    "publish",
    "resuming",
    "slowed",
    "tasks_of",
]

#: Seconds for a server to finish what its clients have seen the end of.
SETTLE = 0.1

#: Seconds of CPU below which nobody accepts a connection and answers its request.
LEAST = 2e-6

#: Tasks that a library may start with the first stream, and keep.
SPARE = 2


@asynccontextmanager
async def crowd_of(server: Server) -> AsyncIterator[Crowd]:
    """Give the clients of a server, which leave in the end. The collector of this process does not run meanwhile."""
    crowd = Crowd(server.port, CATALOGUE[server.name].greeting)
    gc.disable()
    try:
        yield crowd
    finally:
        await crowd.close()
        gc.enable()


async def delivering(server: Server, *, connections: int, batch: int, rounds: int, warm_up: int = 2) -> Metrics:
    """Publish ``batch`` events at once, wait until every client has all of them, and again, ``rounds`` times."""
    async with crowd_of(server) as crowd:
        opening = await connect(server, crowd, connections)
        await publish(server, crowd, batch, warm_up)
        crowd_had, cpu, beside, began = crowd.marks, server.cpu(), server.cpu_beside(), time.monotonic()
        await publish(server, crowd, batch, rounds)
        wall = time.monotonic() - began
        await asyncio.sleep(SETTLE)
        cpu, beside_after = server.cpu() - cpu, server.cpu_beside()
        count = crowd.marks - crowd_had
        latencies = crowd.check(batch * (warm_up + rounds), since=batch * warm_up)
    return {
        "cpu": cpu / count * 1e6,
        **{name: (beside_after[name] - used) / count * 1e6 for name, used in beside.items()},
        "wall": wall / count * 1e6,
        "p50": percentile(latencies, 0.50) * 1e3,
        "p99": percentile(latencies, 0.99) * 1e3,
        **opening,
    }


async def connecting(server: Server, *, connections: int, at_a_time: int = 50, warm_up: int = 100) -> Metrics:
    """Have clients come, stay until all are there, and go; then have as many come and go at once."""
    async with crowd_of(server) as crowd:
        tasks = await tasks_of(server)
        await crowd.churn(warm_up, at_a_time)
        await at_rest(server, tasks)
        opening = await connect(server, crowd, connections)
        cpu = server.cpu()
        await crowd.close()
        await at_rest(server, tasks)
        closing = server.cpu() - cpu
        cpu, began = server.cpu(), time.monotonic()
        await crowd.churn(connections, at_a_time)
        wall = time.monotonic() - began
        await at_rest(server, tasks)
        churning = server.cpu() - cpu
    return {
        "cpu": churning / connections * 1e6,
        "wall": wall / connections * 1e6,
        "leave": closing / connections * 1e6,
        **opening,
    }


async def idling(server: Server, *, connections: int, seconds: float, warm_up: int = 100) -> Metrics:
    """Keep clients connected that get nothing but pings."""
    async with crowd_of(server) as crowd:
        tasks = await tasks_of(server)
        await crowd.churn(warm_up, 50)
        await at_rest(server, tasks)
        before = server.resident()
        await crowd.open(connections)
        greeted = sum(len(client.pieces) for client in crowd.clients)
        cpu = server.cpu()
        await asyncio.sleep(seconds)
        cpu = server.cpu() - cpu
        held = server.resident() - before
        pings = sum(len(client.pieces) for client in crowd.clients) - greeted
    return {
        "memory": held / connections / 1024,
        "pings": pings / connections,
        "idle": cpu / connections / seconds * 1e6,
    }


async def resuming(server: Server, *, connections: int, missed: int) -> Metrics:
    """Have clients come back at once that have all missed ``missed`` events."""
    async with crowd_of(server) as first:
        await first.open(1)
        position = first.clients[0].last_event_id()
        await publish(server, first, missed, 1)
    async with crowd_of(server) as crowd:
        cpu, began = server.cpu(), time.monotonic()
        await crowd.open(connections, headers=b"Last-Event-ID: %s\r\n" % position)
        await crowd.wait_for(connections * missed)
        wall = time.monotonic() - began
        await asyncio.sleep(SETTLE)
        cpu = server.cpu() - cpu
        crowd.check(missed)
    return {
        "cpu": cpu / connections / missed * 1e6,
        "wall": wall / connections / missed * 1e6,
        "seconds": wall,
    }


async def slowed(server: Server, *, readers: int, stalled: int, events: int, size: int = 65536) -> Metrics:
    """Publish more than the kernel buffers while some clients have stopped reading."""
    async with crowd_of(server) as crowd:
        await crowd.open(stalled)
        for client in crowd.clients:
            client.stall()
        await crowd.open(readers)
        await publish(server, crowd, 1, 2, readers, size)
        before, cpu, began = server.resident(), server.cpu(), time.monotonic()
        await publish(server, crowd, 1, events, readers, size)
        wall = time.monotonic() - began
        cpu = server.cpu() - cpu
        grown = server.resident() - before
        latencies = crowd.check(events + 2, since=2, skip=stalled)
    return {
        "cpu": cpu / readers / events * 1e6,
        "wall": wall / readers / events * 1e6,
        "p50": percentile(latencies, 0.50) * 1e3,
        "p99": percentile(latencies, 0.99) * 1e3,
        "grown": grown / 2**20,
    }


async def crowding(server: Server, *, connections: int, rounds: int = 3) -> Metrics:
    """Open as many as the process may hold, publish to all of them, and drain."""
    async with crowd_of(server) as crowd:
        opening = await connect(server, crowd, connections)
        await publish(server, crowd, 1, 1)
        cpu, began = server.cpu(), time.monotonic()
        await publish(server, crowd, 1, rounds)
        wall = (time.monotonic() - began) / rounds
        cpu = server.cpu() - cpu
        latencies = crowd.check(rounds + 1, since=1)
        began = time.monotonic()
        await server.tell("drain")
        await crowd.ended()
        drained = time.monotonic() - began
    return {
        "cpu": cpu / connections / rounds * 1e6,
        "seconds": wall,
        "p99": percentile(latencies, 0.99) * 1e3,
        "drained": drained,
        **opening,
    }


async def connect(server: Server, crowd: Crowd, connections: int) -> dict[str, float]:
    """Open connections and return what that takes.

    :raises ServerError: nothing: the processes that are measured are not those that work.
    """
    before, cpu = server.resident(), server.cpu()
    await crowd.open(connections)
    await asyncio.sleep(SETTLE)
    cpu = server.cpu() - cpu
    if cpu < connections * LEAST:
        raise ServerError(f"{server.name} took {cpu:g} s for {connections} clients: another process does its work")
    return {"connect": cpu / connections * 1e6, "memory": (server.resident() - before) / connections / 1024}


async def publish(
    server: Server, crowd: Crowd, batch: int, rounds: int, readers: int | None = None, size: int = 60
) -> None:
    for _ in range(rounds):
        target = crowd.marks + batch * (len(crowd.clients) if readers is None else readers)
        await server.tell("publish", count=batch, size=size)
        await crowd.wait_for(target)


async def tasks_of(server: Server) -> int:
    """Return how many tasks a server has."""
    tasks: int = (await server.tell("count"))["tasks"]
    return tasks


async def at_rest(server: Server, tasks: int) -> None:
    """Wait until a server has no more than ``tasks``, with a few for what a peer has started for good.

    How much CPU it takes would not tell: on a busy machine one that has much to do may get none.

    :raises DeliveryError: it keeps some.
    """
    give_up = time.monotonic() + PATIENCE
    while (left := await tasks_of(server) - tasks) > SPARE:
        if time.monotonic() > give_up:
            raise DeliveryError(f"{server.name} keeps {left} tasks for clients that have left")
        await asyncio.sleep(0.01)
