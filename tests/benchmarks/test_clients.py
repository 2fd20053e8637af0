"""The clients of the benchmarks count exactly: a delivery that is lost, doubled or out of order is never a figure."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.clients import Body, Crowd, DeliveryError, deliveries, percentile
from benchmarks.payload import MARK, text

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def frame(number: int) -> bytes:
    return f"data: {text(number)}\r\n\r\n".encode()


async def answer(numbers: list[int], *, cut: bool = False) -> tuple[asyncio.Server, int]:
    """Serve a greeting, then events of these numbers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + chunk(b": hello~\r\n\r\n"))
        writer.write(b"".join(chunk(frame(number)) for number in numbers))
        if cut:
            writer.close()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("numbers", [[0, 1, 1], [0, 2, 1], [1, 2, 3], [0, 1, 3]], ids=str)
async def test_what_is_not_every_event_once_in_order_fails_the_measurement(numbers: list[int]) -> None:
    """As many events as were published are not enough: the check after the measurement looks at each."""
    server, port = await answer(numbers)
    async with server:
        crowd = Crowd(port, MARK)
        await crowd.open(3)
        await crowd.wait_for(9)
        with pytest.raises(DeliveryError, match="client 0"):
            crowd.check(3)
        await crowd.close()


async def test_every_delivery_has_its_latency_and_the_greeting_is_none() -> None:
    """Each client's events give one latency each, of what is asked for only."""
    server, port = await answer([0, 1, 2, 3])
    async with server:
        crowd = Crowd(port, MARK)
        await crowd.open(2)
        await crowd.wait_for(8)
        assert crowd.marks == 8
        assert len(crowd.check(4)) == 8
        assert len(crowd.check(4, since=3)) == 2
        assert len(crowd.check(4, skip=1)) == 4
        assert all(0 <= latency < 30 for latency in crowd.check(4))
        await crowd.close()


async def test_a_connection_that_ends_before_the_greeting_is_an_error() -> None:
    """A server that answers with anything but a stream does not leave the clients waiting."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        with pytest.raises(ConnectionError):
            await Crowd(server.sockets[0].getsockname()[1], MARK).open(1)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 7))
def test_a_body_is_the_same_in_pieces_of_any_size(contents: list[bytes], size: int) -> None:
    """However the network cuts a chunked response, its body comes out whole."""
    raw = HEAD + b"".join(map(chunk, contents)) + b"0\r\n\r\n"
    body = Body()
    assert b"".join(body.feed(raw[at : at + size]) for at in range(0, len(raw), size)) == b"".join(contents)


def test_a_body_that_is_not_chunked_is_taken_as_it_is() -> None:
    """Servers other than uvicorn may end the body by closing."""
    body = Body()
    assert body.feed(b"HTTP/1.1 200 OK\r\n\r\nab") + body.feed(b"cd") == b"abcd"


def test_a_delivery_is_dated_by_the_piece_that_completes_it() -> None:
    """An event that comes in two pieces came with the second."""
    whole = HEAD + chunk(frame(7))
    got = deliveries([(1.0, whole[:-10]), (2.0, whole[-10:])])
    assert [(number, came) for (number, _), came in got] == [(7, 2.0)]
    assert got[0][0][1] <= time.monotonic()


@pytest.mark.parametrize(("part", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile_is_the_nearest_rank(part: float, value: int) -> None:
    """A percentile is one of the values, never in between."""
    assert percentile(range(1, 101), part) == value
