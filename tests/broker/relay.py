"""An address of a Redis server that is not the server's own, so that it can lead elsewhere, or break."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.broker.redis_server import RedisServer

__all__ = ["Relay", "relaying"]


class Relay:
    """Passes on what comes to its port to a server, which another may replace; connections stay where they have led."""

    def __init__(self, server: RedisServer) -> None:
        #: Where new connections lead.
        self.server = server
        self.port = 0
        self._listener: asyncio.Server | None = None
        #: Of each connection: whether what comes is passed on.
        self._gates: set[asyncio.Event] = set()
        self._stalled = False
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def open(self) -> None:
        """Accept connections, at the same port each time."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Accept no more connections until :meth:`open`; those that are there stay."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def stall(self, share: float = 1.0, source: random.Random | None = None) -> None:
        """Pass on nothing more, in either direction, until :meth:`flow`; or a share of the connections alone."""
        self._stalled = share >= 1
        for gate in self._gates:
            if self._stalled or (source or random).random() < share:
                gate.clear()

    def flow(self) -> None:
        """Pass on again what comes, and what has come."""
        self._stalled = False
        for gate in self._gates:
            gate.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        gate = asyncio.Event()
        self._gates.add(gate)
        if not self._stalled:
            gate.set()
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            self._writers.add(to_writer)
            try:
                await asyncio.gather(self._pass_on(reader, to_writer, gate), self._pass_on(to_reader, writer, gate))
            finally:
                self._writers.discard(to_writer)
                to_writer.close()
        except OSError:
            # As the server would be seen without a relay: as one that is not there.
            writer.transport.abort()
        finally:
            self._gates.discard(gate)
            self._writers.discard(writer)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await gate.wait()
                writer.write(data)
        writer.close()


@asynccontextmanager
async def relaying(server: RedisServer) -> AsyncIterator[Relay]:
    """Run a relay to a server."""
    relay = Relay(server)
    await relay.open()
    try:
        yield relay
    finally:
        relay.refuse()
        relay.cut()
