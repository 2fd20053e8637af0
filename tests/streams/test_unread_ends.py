"""What a client does not take of a response's end: it frees the connection, and does not hold up the server's end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from starlette.requests import Request

from starlette_sse import SSEEndpoint, drain
from starlette_sse.streams.servers import transport_of
from tests.certificates import CERTIFICATE, KEY, issue, trusting
from tests.loopback import connections_of, serving
from tests.waiting import until

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
PROTOCOLS = ["h11", "httptools"]


@pytest.fixture
def anyio_backend() -> str:
    """The server is uvicorn."""
    return "asyncio"


class Leaving(SSEEndpoint):
    """Leaves a little in the server's buffer, which holds up no send, and ends when it is told."""

    observers = ()
    ping_interval = None
    ends: ClassVar[asyncio.Event]
    full: ClassVar[asyncio.Event]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.full, cls.ends = asyncio.Event(), asyncio.Event()

    async def events(self, request: Request) -> AsyncIterator[Any]:
        transport = transport_of(request.receive)
        assert transport is not None
        while not transport.get_write_buffer_size():
            yield "x" * 1000
        self.full.set()
        await self.ends.wait()


def client(port: int, tls: ssl.SSLContext | None) -> socket.socket:
    """Return a connection that holds little of what is not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", port))
    return connection if tls is None else tls.wrap_socket(connection, server_hostname="127.0.0.1")


def ask(connection: socket.socket, headers: str = "") -> None:
    """Ask for the stream and read no more than the first bytes of its response."""
    connection.sendall(f"GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n".encode())
    assert connection.recv(9) == b"HTTP/1.1 "


@contextlib.asynccontextmanager
async def unread(port: int, headers: str = "", tls: ssl.SSLContext | None = None) -> AsyncIterator[socket.socket]:
    """Give a client that has asked for the stream and reads nothing of it."""
    connection = await asyncio.to_thread(client, port, tls)
    with contextlib.closing(connection):
        await asyncio.to_thread(ask, connection, headers)
        yield connection


def read_all(connection: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            yield part


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_drain_frees_the_connection_when_its_grace_is_over(protocol: str) -> None:
    """Else uvicorn's shutdown waits until the client reads, or without a bound."""

    class Drained(Leaving):
        drain_grace = 0.3

    async with serving(Drained, protocol) as port, unread(port, "Connection: close\r\n"):
        await Drained.full.wait()
        drain()
        await until(lambda: not connections_of(port))


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_stream_that_has_ended_frees_it_after_its_send_timeout(protocol: str, keep_alive: bool) -> None:
    """Also where uvicorn keeps it a while for another request, and closes it then."""

    class Ended(Leaving):
        send_timeout = 0.3

    headers = "" if keep_alive else "Connection: close\r\n"
    async with serving(Ended, protocol, server_options={"timeout_keep_alive": 1}) as port, unread(port, headers):
        await Ended.full.wait()
        Ended.ends.set()
        await until(lambda: not connections_of(port))


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_client_that_reads_on_in_time_gets_everything(protocol: str) -> None:
    """To the end of the body."""

    class Ended(Leaving):
        send_timeout = PATIENCE

    async with serving(Ended, protocol) as port, unread(port, "Connection: close\r\n") as connection:
        await Ended.full.wait()
        Ended.ends.set()
        received = b"".join(await asyncio.to_thread(list, read_all(connection)))
    assert received.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_another_request_on_the_same_connection_has_its_own_time(protocol: str) -> None:
    """What the first response left is read when the second one ends."""

    class Twice(Leaving):
        async def on_connect(self, request: Request) -> None:
            self.send_timeout = PATIENCE if "close" in request.headers["connection"] else 0.5

    async with serving(Twice, protocol) as port, unread(port, "Connection: keep-alive\r\n") as connection:
        await Twice.full.wait()
        Twice.full.clear()
        Twice.ends.set()

        def read_on() -> None:
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received = received[-100:] + connection.recv(65536)
            ask(connection, "Connection: close\r\n")

        await asyncio.to_thread(read_on)
        await Twice.full.wait()
        # The first one's time is over.
        await asyncio.sleep(1)
        received = b"".join(await asyncio.to_thread(list, read_all(connection)))
    assert received.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_drain_frees_a_connection_whose_client_does_not_end_tls(protocol: str, tmp_path: Path) -> None:
    """The server would wait 30 seconds for its answer."""

    class Quiet(SSEEndpoint):
        observers = ()
        drain_grace = 0.3

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "hello"
            await asyncio.Event().wait()

    issue(tmp_path)
    options = {"ssl_certfile": tmp_path / CERTIFICATE, "ssl_keyfile": tmp_path / KEY}
    async with (
        serving(Quiet, protocol, server_options=options) as port,
        unread(port, "Connection: close\r\n", trusting()) as connection,
    ):
        drain()
        await until(lambda: not connections_of(port))
        received = b"".join(await asyncio.to_thread(list, read_all(connection)))
    assert received.endswith(b"\r\n0\r\n\r\n")
