"""What a writer notes of its sends, for who watches the clock, and who has the turn behind each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from starlette_sse.eventloop import current_event_loop
from starlette_sse.streams.writers import FrameWriter

pytestmark = pytest.mark.anyio

FRAME = b": ping\r\n\r\n"


class Client:
    """What ``send`` leads to: it takes everything, unless a test lets it wait or fail."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.gone: list[BaseException] = []
        self.error: Exception | None = None
        self.reads = anyio.Event()
        self.reads.set()

    async def send(self, message: Any) -> None:
        if not self.reads.is_set():
            await self.reads.wait()
        if self.error is not None:
            raise self.error
        self.bodies.append(message.get("body", b""))

    def stall(self) -> None:
        self.reads = anyio.Event()


@pytest.fixture
async def client() -> Client:
    return Client()


async def opened(client: Client) -> FrameWriter:
    """Return a writer whose response has started, at once."""
    writer = FrameWriter(current_event_loop(), client.send, client.gone.append)
    await writer.open({"type": "http.response.start"}, b"")
    return writer


async def write(writer: FrameWriter, client: Client) -> None:
    await writer.take_turn()
    await writer.write(FRAME)


async def send_now(writer: FrameWriter, client: Client) -> None:
    assert writer.send_now(FRAME)


async def offer(writer: FrameWriter, client: Client) -> None:
    writer._exchange = SimpleNamespace(
        disconnected=False,
        response_complete=False,
        flow=SimpleNamespace(write_paused=False),
        transport=SimpleNamespace(is_closing=lambda: False, write=client.bodies.append),
    )
    assert writer.offer(FRAME)


@pytest.mark.parametrize("way", [write, send_now, offer])
async def test_each_way_to_send_is_counted_and_leaves_the_turn_free(
    client: Client, way: Callable[[FrameWriter, Client], Awaitable[None]]
) -> None:
    """The next ping is due an interval behind it."""
    writer = await opened(client)
    await anyio.sleep(10)
    await way(writer, client)
    assert writer.last_write == anyio.current_time()
    assert writer.sending_since is None
    assert writer.bytes_sent == len(FRAME)
    assert any(FRAME in body for body in client.bodies)


@pytest.mark.parametrize("way", [write, send_now])
async def test_a_send_that_fails_is_told_and_leaves_the_turn_free(
    client: Client, way: Callable[[FrameWriter, Client], Awaitable[None]]
) -> None:
    """It has sent nothing."""
    writer = await opened(client)
    client.error = ConnectionResetError()
    await way(writer, client)
    assert client.gone == [client.error]
    assert writer.sending_since is None
    assert writer.bytes_sent == 0


async def test_an_opening_that_takes_long_is_no_silence(client: Client) -> None:
    """The first ping is counted from its end."""
    client.stall()
    writer = FrameWriter(current_event_loop(), client.send, client.gone.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.open, {"type": "http.response.start"}, FRAME)
        await anyio.sleep(10)
        client.reads.set()
    assert writer.last_write == anyio.current_time()
    assert writer.sending_since is None


async def test_who_waits_for_the_turn_has_the_whole_of_its_own_time(client: Client) -> None:
    """What the one before has taken does not count for its timeout."""
    writer = await opened(client)
    start = anyio.current_time()
    client.stall()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, writer, client)
        await anyio.sleep(10)
        assert writer.sending_since == start
        tasks.start_soon(write, writer, client)
        await anyio.sleep(10)
        client.reads.set()
        client.stall()
        await anyio.wait_all_tasks_blocked()
        assert writer.sending_since == start + 20
        client.reads.set()
    assert writer.sending_since is None


@pytest.mark.parametrize("got_it", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_is_cancelled_while_it_waits_for_the_turn_does_not_keep_it(
    client: Client, got_it: bool, anyio_backend: str
) -> None:
    """Whether the turn was given to it already or not."""
    writer = await opened(client)
    await writer.take_turn()
    waiting = asyncio.ensure_future(writer.take_turn())
    await anyio.wait_all_tasks_blocked()
    if got_it:
        writer.end_turn()
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert waiting.cancelled()
    assert writer.next is None
    assert (writer.sending_since is None) is got_it


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_send_that_a_callback_could_not_finish_is_finished_by_who_writes_next(
    client: Client, error: Exception | None, anyio_backend: str
) -> None:
    """What it raises is told, and frames leave one at a time."""
    writer = await opened(client)
    client.stall()
    client.error = error
    assert not writer.send_now(FRAME)
    assert writer.sending_since is not None
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, writer, client)
            await anyio.wait_all_tasks_blocked()
            assert client.bodies == [b""]
            client.reads.set()
    assert client.bodies[1:] == ([] if error else [FRAME] * 2)
    assert client.gone == ([error] * 2 if error else [])
    assert writer.sending_since is None
