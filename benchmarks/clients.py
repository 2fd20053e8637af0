"""The load: many clients in this process, each keeping what it got until the measurement is over, then checking it."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

from benchmarks.payload import MARK, Told, told
from starlette_sse.decoding import EventDecoder

__all__ = ["PATIENCE", "Body", "Client", "Crowd", "DeliveryError", "deliveries", "percentile"]

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n%s\r\n"

#: Seconds without anything new after which the clients give up.
PATIENCE = 30.0

#: Connections that are being opened at a time.
AT_A_TIME = 64


class DeliveryError(Exception):
    """Raised when a client did not get exactly the events that were published, in order."""


class Client(asyncio.Protocol):
    """One connection. It notes when each piece came and looks at nothing but the marks in it."""

    __slots__ = ("_crowd", "_headers", "_until", "lost", "pieces", "ready", "transport")

    def __init__(self, crowd: Crowd, until: bytes, headers: bytes) -> None:
        self._crowd = crowd
        self._until = until
        self._headers = headers
        self.pieces: list[tuple[float, bytes]] = []
        self.transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(REQUEST % self._headers)

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.monotonic(), data))
        if self._until:
            self._wait_for_greeting()
        else:
            self._crowd.got(data.count(MARK))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("the server closed the connection before it greeted"))
        self.lost.set_result(None)

    @property
    def ended(self) -> bool:
        """Whether the response's last chunk has come, or the connection is gone."""
        return self.lost.done() or self.pieces[-1][1].endswith(b"0\r\n\r\n")

    def stall(self) -> None:
        """Read no more."""
        assert self.transport is not None
        self.transport.pause_reading()

    def last_event_id(self) -> bytes:
        """Return the position that the opening frame has told."""
        body = Body().feed(b"".join(data for _, data in self.pieces))
        found = re.search(rb"^id: ?(\S+)", body, re.MULTILINE)
        if found is None:
            raise DeliveryError(f"the stream does not tell its position: {body!r}")
        return found[1]

    def _wait_for_greeting(self) -> None:
        _, _, body = b"".join(data for _, data in self.pieces).partition(b"\r\n\r\n")
        _, found, rest = body.partition(self._until)
        if found:
            self._until = b""
            self._crowd.got(rest.count(MARK))
            if not self.ready.done():
                self.ready.set_result(None)


class Crowd:
    """All clients of one server."""

    def __init__(self, port: int, until: bytes) -> None:
        self.clients: list[Client] = []
        self.marks = 0
        self._port = port
        self._until = until
        self._target = 0
        self._reached: asyncio.Future[None] | None = None

    async def open(self, count: int, *, headers: bytes = b"") -> None:
        """Connect ``count`` more clients, and wait until each has got the greeting."""
        places = asyncio.Semaphore(AT_A_TIME)
        await asyncio.gather(*(self._open_one(places, headers) for _ in range(count)))

    async def churn(self, count: int, at_a_time: int) -> None:
        """Connect ``count`` clients; each leaves as soon as it has got the greeting."""
        places = asyncio.Semaphore(at_a_time)
        await asyncio.gather(*(self._visit(places) for _ in range(count)))

    async def close(self) -> None:
        """Leave, all of them."""
        for client in self.clients:
            assert client.transport is not None
            client.transport.close()
        await asyncio.gather(*(client.lost for client in self.clients))
        self.clients.clear()

    def got(self, marks: int) -> None:
        self.marks += marks
        if self._reached is not None and self.marks >= self._target and not self._reached.done():
            self._reached.set_result(None)

    async def wait_for(self, marks: int) -> None:
        """Wait until all clients together have got this many events since they were greeted.

        :raises DeliveryError: nothing more comes.
        """
        self._target = marks
        while self.marks < marks:
            before = self.marks
            self._reached = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait_for(self._reached, PATIENCE)
            except TimeoutError:
                if self.marks == before:
                    raise DeliveryError(f"the clients got {self.marks} of {marks} events and no more came") from None

    async def ended(self) -> None:
        """Wait until the server has ended every response; it may keep the connections."""
        give_up = time.monotonic() + PATIENCE
        while not all(client.ended for client in self.clients):
            if time.monotonic() > give_up:
                raise DeliveryError("the server does not end its streams")
            await asyncio.sleep(0.01)

    def check(self, published: int, since: int = 0, skip: int = 0) -> list[float]:
        """Prove that each client got every event once, in order; return the latencies of those from ``since`` on.

        The first ``skip`` clients are left out.

        :raises DeliveryError: a client did not.
        """
        latencies: list[float] = []
        for number, client in enumerate(self.clients[skip:]):
            got = deliveries(client.pieces)
            if [event[0] for event, _ in got] != list(range(published)):
                raise DeliveryError(
                    f"client {number} got {len(got)} events of {published}, or not in order: {gap(got, published)}"
                )
            latencies += [came - sent for (_, sent), came in got[since:]]
        return latencies

    async def _open_one(self, places: asyncio.Semaphore, headers: bytes) -> Client:
        async with places:
            loop = asyncio.get_running_loop()
            _, client = await loop.create_connection(
                lambda: Client(self, self._until, headers), "127.0.0.1", self._port, family=socket.AF_INET
            )
            self.clients.append(client)
            await asyncio.wait_for(client.ready, PATIENCE)
            return client

    async def _visit(self, places: asyncio.Semaphore) -> None:
        client = await self._open_one(places, b"")
        self.clients.remove(client)
        assert client.transport is not None
        client.transport.close()


def deliveries(pieces: Sequence[tuple[float, bytes]]) -> list[tuple[Told, float]]:
    """Return what each event told and when its last byte came."""
    body, decoder = Body(), EventDecoder()
    return [
        (known, came)
        for came, data in pieces
        for message in decoder.feed(body.feed(data))
        if (known := told(message.data)) is not None
    ]


class Body:
    """Takes an HTTP/1.1 response in pieces of any size and gives back its body, chunked or not."""

    def __init__(self) -> None:
        self._rest = b""
        self._in_body = self._chunked = False
        #: How many chunks have begun; a server writes one for each send.
        self.chunks = 0
        self._missing = 0

    def feed(self, data: bytes) -> bytes:
        self._rest += data
        if not self._in_body:
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return b""
            self._in_body, self._rest = True, rest
            self._chunked = b"transfer-encoding: chunked" in head.lower()
        if self._chunked:
            return b"".join(self._chunks())
        body, self._rest = self._rest, b""
        return body

    def _chunks(self) -> Iterator[bytes]:
        while self._rest:
            if not self._missing:
                size, found, rest = self._rest.partition(b"\r\n")
                if not found:
                    return
                self.chunks += 1
                # The line end behind the chunk belongs to it.
                self._missing, self._rest = int(size, 16) + 2, rest
            part = self._rest[: self._missing]
            yield part[: max(0, self._missing - 2)]
            self._missing -= len(part)
            self._rest = self._rest[len(part) :]


def gap(got: Sequence[tuple[Told, float]], published: int) -> str:
    """Tell where the order breaks first."""
    numbers = [-1, *(event[0] for event, _ in got), published]
    for before, after in pairwise(numbers):
        if after != before + 1:
            return f"after {before} came {after}"
    return "the order is right"


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which ``part`` of all lie (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(part * len(ranked)))]
