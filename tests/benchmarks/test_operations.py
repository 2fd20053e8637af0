"""What a delivery and an open stream take, counted and not timed, on a real uvicorn with real clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.catalogue import running
from benchmarks.clients import Body, Crowd
from benchmarks.loads import SPARE, at_rest, crowd_of, publish, tasks_of
from benchmarks.servers import Server, ServerOptions

pytestmark = pytest.mark.anyio

FEW, MANY = 5, 45


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def counting(contestant: str) -> AsyncIterator[tuple[Server, Crowd]]:
    async with running(contestant, ServerOptions(loop="counting")) as server, crowd_of(server) as crowd:
        await crowd.open(FEW)
        await publish(server, crowd, 1, 2)
        yield server, crowd


async def callbacks(server: Server, crowd: Crowd, batch: int) -> int:
    before: int = (await server.tell("count"))["callbacks"]
    await publish(server, crowd, batch, 1)
    after: int = (await server.tell("count"))["callbacks"]
    return after - before


async def test_an_event_for_more_channel_streams_wakes_nobody_more() -> None:
    """Publishing to a channel's streams takes one callback of the loop for all of them."""
    async with counting("ours: channel") as (server, crowd):
        few = await callbacks(server, crowd, 1)
        await crowd.open(MANY)
        many = await callbacks(server, crowd, 1)
    # The loop has a few of its own; a wake for each stream would be 45 more.
    assert many < few + MANY // 2


@pytest.mark.parametrize("contestant", ["ours: generator", "ours: response"])
async def test_an_event_wakes_a_generator_s_task_once(contestant: str) -> None:
    """From the user's queue to the wire only the task that runs ``events()`` is woken."""
    async with counting(contestant) as (server, crowd):
        few = await callbacks(server, crowd, 1)
        await crowd.open(MANY)
        many = await callbacks(server, crowd, 1)
    assert MANY // 2 < many - few < MANY + MANY // 2


async def test_a_burst_leaves_in_one_send_for_each_stream() -> None:
    """What is published together is sent together: 50 events make one chunk."""
    async with counting("ours: channel") as (server, crowd):
        before = [chunks(client.pieces) for client in crowd.clients]
        await publish(server, crowd, 50, 1)
        after = [chunks(client.pieces) for client in crowd.clients]
        crowd.check(52)
    assert [more - had for had, more in zip(before, after, strict=True)] == [1] * FEW


@pytest.mark.parametrize(("contestant", "tasks"), [("ours: channel", 1), ("ours: generator", 2), ("ours: response", 2)])
async def test_a_stream_has_no_task_more_than_it_needs(contestant: str, tasks: int) -> None:
    """A channel's stream runs in the server's own task; a generator has one of its own besides."""
    async with counting(contestant) as (server, crowd):
        few = await tasks_of(server)
        await crowd.open(MANY)
        many = await tasks_of(server)
    assert many - few == tasks * MANY


@pytest.mark.parametrize(("contestant", "floor"), [("ours: channel", "raw: direct"), ("ours: generator", "starlette")])
async def test_a_visit_wakes_at_most_once_more_than_the_least(contestant: str, floor: str) -> None:
    """A client that comes, gets the first event and goes costs a callback more than a peer that does less."""
    assert await callbacks_of_a_visit(contestant) <= await callbacks_of_a_visit(floor) + 1


async def callbacks_of_a_visit(contestant: str) -> float:
    async with running(contestant, ServerOptions(loop="counting")) as server, crowd_of(server) as crowd:
        tasks = await tasks_of(server)
        await crowd.churn(FEW, 1)
        await at_rest(server, tasks)
        before: int = (await server.tell("count"))["callbacks"]
        await crowd.churn(MANY, 1)
        await at_rest(server, tasks)
        after: int = (await server.tell("count"))["callbacks"]
    return round((after - before) / MANY)


async def test_streams_that_were_left_leave_no_task() -> None:
    """Clients that come and go at once leave the server with the tasks it had."""
    async with counting("ours: channel") as (server, crowd):
        before = await tasks_of(server)
        await crowd.churn(MANY, 10)
        await at_rest(server, before - SPARE)


def chunks(pieces: list[tuple[float, bytes]]) -> int:
    body = Body()
    for _, data in pieces:
        body.feed(data)
    return body.chunks
