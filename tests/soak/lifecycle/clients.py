"""Clients on plain sockets: those that read strictly to the end, and those that leave, stall or send what they like."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import h11

from tests.soak.lifecycle.plans import Visit

__all__ = ["Seen", "pay"]

#: Seconds without a byte after which a reader gives up: streams ping ten times a second.
PATIENCE = 4.0

#: Seconds that a reader reads at the most.
LONGEST = 20.0

#: What is sent in place of a request; the braces are for a stream's address.
NONSENSE = (
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "GET\r\n\r\n",
    f"GET {{}} HTTP/1.1\r\nHost: x\r\nX: {'y' * 100_000}",
    "POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET {} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "GET {} HTTP/1.1\r\nHost: x\r\n\r\nand more\r\n\r\n",
)


@dataclass(slots=True)
class Seen:
    """What a reader got as the answer to one request."""

    asked_at: float = field(default_factory=time.monotonic)
    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    ill_formed: str = ""
    hung: bool = False


class Wire:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, content: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._loop.sock_sendall(self.sock, content)

    async def receive(self, size: int = 65536) -> bytes:
        """Return what has come; ``b""`` at the end."""
        async with asyncio.timeout(PATIENCE):
            return await self._loop.sock_recv(self.sock, size)

    async def take(self, size: int, pause: float = 0.0) -> None:
        """Read on and on, so much at once."""
        while await self.receive(size):
            await asyncio.sleep(pause)


@asynccontextmanager
async def connected(port: int, visit: Visit) -> AsyncIterator[Wire]:
    sock = socket.socket()
    try:
        if visit.way == "stall":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        yield Wire(sock)
        if visit.abrupt:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        sock.close()


def request(visit: Visit, name: str, method: str = "GET", *headers: str, body: bytes = b"") -> bytes:
    head = (f"{method} {visit.target(name)} HTTP/1.1", "Host: soak", "Accept: text/event-stream", *headers, "", "")
    return "\r\n".join(head).encode() + body


async def answer(wire: Wire, client: h11.Connection, seen: Seen, method: str = "GET") -> None:
    """Read one response to its end, as strictly as h11 does."""
    client.send(h11.Request(method=method, target="/", headers=[("host", "soak")]))
    client.send(h11.EndOfMessage())
    ended = False
    try:
        while not seen.whole:
            event = client.next_event()
            if isinstance(event, h11.Response):
                seen.status = event.status_code
            elif isinstance(event, h11.Data):
                seen.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                seen.whole = True
            elif isinstance(event, h11.ConnectionClosed):
                return
            elif event is h11.NEED_DATA:
                received = await wire.receive()
                ended = not received
                client.receive_data(received)
    except h11.RemoteProtocolError as exc:
        # A body that is cut short is not ill-formed.
        seen.ill_formed = "" if ended else str(exc)
    except ConnectionError:
        pass


def answers(visit: Visit) -> Iterator[tuple[str, str, bytes]]:
    """Tell what a reader asks for, one after the other on its connection: the stream's name, the method, the bytes."""
    first, second = visit.names
    if visit.way == "post":
        body = b"x" * visit.size
        yield first, "POST", request(visit, first, "POST", f"Content-Length: {len(body)}", body=body)
    elif visit.way == "chunked":
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (visit.size, b"x" * visit.size)
        yield first, "POST", request(visit, first, "POST", "Transfer-Encoding: chunked", body=body)
    else:
        method = "HEAD" if visit.way == "head" else "GET"
        yield first, method, request(visit, first, method)
    if visit.way in ("reuse", "head"):
        yield second, "GET", request(visit, second)


async def read(port: int, visit: Visit, seen: dict[str, Seen]) -> None:
    async with connected(port, visit) as wire:
        client = h11.Connection(h11.CLIENT)
        for name, method, content in answers(visit):
            seen[name] = Seen()
            try:
                async with asyncio.timeout(LONGEST):
                    with suppress(ConnectionError):
                        await wire.send(content)
                    await answer(wire, client, seen[name], method)
            except TimeoutError:
                seen[name].hung = True
            if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
                break
            client.start_next_cycle()


async def leave(wire: Wire, visit: Visit) -> None:
    await wire.send(request(visit, visit.names[0]))
    async with asyncio.timeout(visit.hold):
        await wire.take(65536)


async def before(wire: Wire, visit: Visit) -> None:
    """Go before the headers come, or before the request is complete."""
    await wire.send(request(visit, visit.names[0])[: visit.size if visit.hold else None])


async def inside(wire: Wire, visit: Visit) -> None:
    """Go after so many bytes, wherever they end."""
    await wire.send(request(visit, visit.names[0]))
    left = visit.size
    async with asyncio.timeout(PATIENCE):
        while left and (received := await wire.receive(left)):
            left -= len(received)


async def half(wire: Wire, visit: Visit) -> None:
    await wire.send(request(visit, visit.names[0]))
    wire.sock.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(visit.hold):
        await wire.take(65536)


async def stall(wire: Wire, visit: Visit) -> None:
    await wire.send(request(visit, visit.names[0]))
    await asyncio.sleep(visit.hold)


async def slow(wire: Wire, visit: Visit) -> None:
    await wire.send(request(visit, visit.names[0]))
    async with asyncio.timeout(visit.hold):
        await wire.take(visit.size, 0.02)


async def pipeline(wire: Wire, visit: Visit) -> None:
    first, second = visit.names
    await wire.send(request(visit, first) + request(visit, second))
    async with asyncio.timeout(visit.hold):
        await wire.take(65536)


async def nonsense(wire: Wire, visit: Visit) -> None:
    nonsense = NONSENSE[visit.number % len(NONSENSE)].replace("{}", visit.target(visit.names[0]))
    await wire.send(nonsense.encode("latin-1"))
    async with asyncio.timeout(visit.hold):
        await wire.take(65536)


async def partial(wire: Wire, visit: Visit) -> None:
    """Never send all of the body."""
    await wire.send(request(visit, visit.names[0], "POST", f"Content-Length: {visit.size + 1}", body=b"x" * visit.size))
    async with asyncio.timeout(visit.hold):
        await wire.take(65536)


LEAVE: Mapping[str, Callable[[Wire, Visit], Awaitable[None]]] = {
    function.__name__: function for function in (leave, before, inside, half, stall, slow, pipeline, nonsense, partial)
}


async def pay(port: int, visit: Visit) -> dict[str, Seen]:
    """Pay a visit, and return what was seen of it if it was read to the end, for each stream's name."""
    seen: dict[str, Seen] = {}
    await asyncio.sleep(visit.at)
    with suppress(ConnectionError, TimeoutError):
        if visit.way in LEAVE:
            async with connected(port, visit) as wire:
                with suppress(ConnectionError, TimeoutError):
                    await LEAVE[visit.way](wire, visit)
        else:
            await read(port, visit, seen)
    return seen
