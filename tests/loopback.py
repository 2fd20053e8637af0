"""A real uvicorn in the test's own event loop, and clients on plain sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import h11
import psutil
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from starlette_sse import SSEEndpoint, lifespan
from starlette_sse.decoding import EventDecoder
from starlette_sse.streams.writers import FrameWriter
from tests.waiting import until

__all__ = ["Reader", "connections_of", "open_stream", "puts_past_send", "sends_from_callbacks", "serving"]


@contextlib.asynccontextmanager
async def serving(
    endpoint: type[SSEEndpoint], protocol: str, *, server_options: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[int]:
    """Run the app, made with ``options``, on a real uvicorn in this loop and give its port."""
    app = Starlette(routes=[Route("/", endpoint)], lifespan=lifespan, **options)
    listener = socket.create_server(("127.0.0.1", 0))
    # The oldest uvicorn would import what websockets has declared old.
    chosen = {"timeout_graceful_shutdown": 5, "ws": "none", **(server_options or {})}
    config = uvicorn.Config(app, http=protocol, log_level="warning", **chosen)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or task.done())
        if task.done():
            task.result()
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


def sends_from_callbacks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return what grows by every send from a callback: whether it was done at once."""
    outcomes: list[bool] = []
    send_now, offer = FrameWriter.send_now, FrameWriter.offer

    def watched(self: FrameWriter, frame: bytes) -> bool:
        outcomes.append(send_now(self, frame))
        return outcomes[-1]

    def offered(self: FrameWriter, frames: bytes) -> bool:
        if done := offer(self, frames):
            outcomes.append(done)
        return done

    monkeypatch.setattr(FrameWriter, "send_now", watched)
    monkeypatch.setattr(FrameWriter, "offer", offered)
    return outcomes


def puts_past_send(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return what grows by every frame that is tried to be put past the server's ``send``: whether that was done."""
    outcomes: list[bool] = []

    def watch(method: Callable[[FrameWriter, bytes], bool]) -> Callable[[FrameWriter, bytes], bool]:
        def watched(self: FrameWriter, frame: bytes) -> bool:
            outcomes.append(method(self, frame))
            return outcomes[-1]

        return watched

    monkeypatch.setattr(FrameWriter, "try_put", watch(FrameWriter.try_put))
    return outcomes


def connections_of(port: int) -> list[Any]:
    """Return the sockets that this process holds open for clients of a port."""
    return [
        each
        for each in psutil.Process().net_connections()
        if each.laddr.port == port and each.status != psutil.CONN_LISTEN
    ]


async def open_stream(
    port: int, target: str, last_event_id: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a stream as a browser does and read the response's head; the body comes without chunk sizes.

    :raises OSError: there is no server, or it answers something else than 200.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    resume = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
    try:
        writer.write(f"GET {target} HTTP/1.0\r\nAccept: text/event-stream\r\n{resume}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise ConnectionRefusedError(head.decode())
    except asyncio.IncompleteReadError as exc:
        writer.transport.abort()
        raise ConnectionResetError("the server has closed the connection") from exc
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


class Reader:
    """A client that reads its stream as events, and is strict about how HTTP frames them."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self._port = port
        self._receive_buffer = receive_buffer
        self._http = h11.Connection(h11.CLIENT)
        self._decoder = EventDecoder()
        self.events: list[str] = []

    async def __aenter__(self) -> Reader:
        client = socket.socket()
        if self._receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self._port))
        self._reader, self._writer = await asyncio.open_connection(sock=client, limit=2**16)
        request = h11.Request(
            method="GET",
            target="/",
            headers=[("host", "test"), ("accept", "text/event-stream"), ("connection", "close")],
        )
        self._writer.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        opening = b""
        while b": open" not in opening:
            body = await self._receive()
            assert body, f"the response ended before the stream was open: {opening!r}"
            opening += body
        self._decoder.feed(opening)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._writer.transport.abort()

    @property
    def last_event_id(self) -> str:
        """The position that the stream has told last."""
        return self._decoder.last_event_id

    async def read(self, count: int) -> list[str]:
        """Read until so many events are there."""
        while len(self.events) < count:
            body = await self._receive()
            assert body, f"the stream ended after {len(self.events)} events"
            self.events += [event.data for event in self._decoder.feed(body)]
        return self.events

    def reset(self) -> None:
        """Go by a reset, as a crashing client does."""
        sock = self._writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def end(self) -> None:
        """Read on until the server ends the connection."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    async def finish(self) -> None:
        """Read on until the response ends, as it has to."""
        while body := await self._receive():
            self.events += [event.data for event in self._decoder.feed(body)]

    async def _receive(self) -> bytes:
        """Return the next part of the body; ``b""`` behind its end.

        :raises ConnectionError: the server has closed the connection instead.
        """
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return b""
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("the server has closed the connection")
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(65536))
