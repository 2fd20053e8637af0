"""What a client does not take of a response's end: it frees the connection, and does not hold up the server's end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from starlette.requests import Request

from starlette_sse import CloseReason, SSEEndpoint, close, drain
from starlette_sse.streams.servers import exchange_of, transport_of
from tests.certificates import CERTIFICATE, KEY, issue, trusting
from tests.loopback import connections_of, serving
from tests.waiting import until

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
#: Of a body in chunks that is whole.
END = b"\r\n0\r\n\r\n"


@pytest.fixture
def anyio_backend(asyncio_or_uvloop: tuple[str, dict[str, bool]]) -> tuple[str, dict[str, bool]]:
    return asyncio_or_uvloop


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


def request(headers: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n".encode()


def ask(connection: socket.socket, headers: str = "") -> None:
    """Ask for the stream and read no more than the first bytes of its response."""
    connection.sendall(request(headers))
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


async def test_a_drain_frees_the_connection_when_its_grace_is_over(protocol: str) -> None:
    """Else uvicorn's shutdown waits until the client reads, or without a bound."""

    class Drained(Leaving):
        drain_grace = 0.3

    async with serving(Drained, protocol) as port, unread(port, "Connection: close\r\n"):
        await Drained.full.wait()
        drain()
        await until(lambda: not connections_of(port))


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_stream_that_has_ended_frees_it_after_its_send_timeout(protocol: str, keep_alive: bool) -> None:
    """Also where uvicorn keeps it a while for another request, and closes it then."""

    class Ended(Leaving):
        send_timeout = 0.3

    headers = "" if keep_alive else "Connection: close\r\n"
    async with serving(Ended, protocol, server_options={"timeout_keep_alive": 1}) as port, unread(port, headers):
        await Ended.full.wait()
        Ended.ends.set()
        await until(lambda: not connections_of(port))


@pytest.mark.parametrize("patience", [PATIENCE, None])
@pytest.mark.parametrize("way", ["by itself", "closed"])
async def test_a_client_that_reads_on_in_time_gets_everything(protocol: str, way: str, patience: float | None) -> None:
    """To the end of the body; the grace of a drain is for drains."""

    class Ended(Leaving):
        send_timeout = patience
        drain_grace = 0.2

    async with serving(Ended, protocol) as port, unread(port, "Connection: close\r\n") as connection:
        await Ended.full.wait()
        if way == "closed":
            close()
        Ended.ends.set()
        await asyncio.sleep(1)
        received = b"".join(await asyncio.to_thread(list, read_all(connection)))
    assert received.endswith(END)


@pytest.mark.parametrize("pipelined", [False, True])
async def test_another_request_on_the_same_connection_has_its_own_time(protocol: str, pipelined: bool) -> None:
    """Whether it comes before or after the first response has ended."""

    class Twice(Leaving):
        async def on_connect(self, request: Request) -> None:
            self.send_timeout = PATIENCE if "close" in request.headers["connection"] else 0.5

    second = "Connection: close\r\n"
    async with serving(Twice, protocol) as port, unread(port, "Connection: keep-alive\r\n") as connection:
        if pipelined:
            await asyncio.to_thread(connection.sendall, request(second))
        await Twice.full.wait()
        Twice.full.clear()
        Twice.ends.set()

        def read_on() -> None:
            received = b""
            while not received.endswith(END):
                received = received[-100:] + connection.recv(65536)
            ask(connection, second)

        if not pipelined:
            await asyncio.to_thread(read_on)
        await Twice.full.wait()
        # The first one's time is over.
        await asyncio.sleep(1)
        received = b"".join(await asyncio.to_thread(list, read_all(connection)))
    assert received.endswith(END)


@pytest.fixture
def certified(tmp_path: Path) -> dict[str, Any]:
    """What uvicorn needs to speak TLS."""
    issue(tmp_path)
    return {"ssl_certfile": tmp_path / CERTIFICATE, "ssl_keyfile": tmp_path / KEY}


class Quiet(SSEEndpoint):
    """Says hello and waits."""

    observers = ()
    drain_grace = 0.3
    reasons: ClassVar[list[CloseReason]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.reasons = []

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "hello"
        await asyncio.Event().wait()

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        self.reasons.append(reason)


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"], ids=["keep-alive", "close"])
async def test_a_server_stops_though_a_client_does_not_end_tls(
    protocol: str, headers: str, certified: dict[str, Any]
) -> None:
    """It would wait 30 seconds for its answer."""

    class Open(Quiet): ...

    options = {"timeout_graceful_shutdown": None, **certified}
    async with contextlib.AsyncExitStack() as clients:
        with anyio.fail_after(PATIENCE):
            async with serving(Open, protocol, server_options=options) as port:
                connection = await clients.enter_async_context(unread(port, headers, trusting()))
                drain()
        received = b"".join(await asyncio.to_thread(list, read_all(connection)))
    assert received.endswith(END)
    assert Open.reasons == [CloseReason.DRAINING]


async def test_a_client_that_ends_tls_as_its_stream_ends_is_cleaned_up_after(
    protocol: str, certified: dict[str, Any]
) -> None:
    """Its transport, which uvicorn has closed again, tells nothing any more."""
    gone = asyncio.Event()

    class Leaves(Quiet):
        drain_grace = PATIENCE

        async def on_drain(self, request: Request) -> None:
            gone.set()
            exchange = exchange_of(request.receive)
            await until(lambda: exchange.disconnected)

    async with serving(Leaves, protocol, server_options=certified) as port:
        async with unread(port, "Connection: close\r\n", trusting()):
            drain()
            await gone.wait()
        await until(lambda: Leaves.reasons)
    assert Leaves.reasons == [CloseReason.DRAINING]
