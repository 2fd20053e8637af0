"""Readers that come, read at their own pace, vanish at any byte, and come back with their last id."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import anyio

from starlette_sse import Broker
from starlette_sse.exceptions import BrokerError, SlowReaderError
from tests.loopback import open_stream
from tests.soak.broadcast.brokers import CHANNELS
from tests.soak.broadcast.ledger import Received

__all__ = ["ON_LAG", "EndpointReader", "Reader", "SubscriptionReader"]

OnLag = Literal["disconnect", "reset", "latest"]
ON_LAG: tuple[OnLag, ...] = ("disconnect", "reset", "latest")

#: The longest that a slow reader does not read, in seconds.
LONGEST_REST = 2.5


class Reader(ABC):
    """Reads for ever, over one connection after the other.

    :param slow: how likely it rests after each read.
    """

    def __init__(self, received: Received, seed: str, *, slow: float) -> None:
        self.received = received
        self._random = random.Random(seed)
        self._slow = slow
        self._connection = anyio.CancelScope()
        #: Whether it stays and reads all the time.
        self.calm = False
        self.connections = 0

    async def run(self) -> None:
        while True:
            with anyio.CancelScope() as self._connection:
                await self._visit()
            await anyio.sleep(self._random.uniform(0, 0.3))

    def move(self) -> None:
        """Come back for other channels, with the same id."""
        self.received.begin(self.some_channels(self._random))
        self._connection.cancel()

    @staticmethod
    def some_channels(source: random.Random) -> Sequence[str]:
        return source.sample(CHANNELS, source.choice((1, 1, 2, 3, 6)))

    @abstractmethod
    async def _visit(self) -> None:
        """Connect, and read until it is time to leave, or the connection is over."""

    async def _rest(self) -> None:
        if not self.calm and self._random.random() < self._slow:
            await anyio.sleep(self._random.uniform(0, LONGEST_REST))


class EndpointReader(Reader):
    """A client of a worker's stream, of any worker each time it comes."""

    def __init__(self, received: Received, seed: str, ports: Sequence[int], *, slow: float) -> None:
        super().__init__(received, seed, slow=slow)
        self._ports = ports

    async def _visit(self) -> None:
        target = f"/{self.received.on_lag}?channels={','.join(self.received.channels)}"
        try:
            port = self._random.choice(self._ports)
            with anyio.fail_after(5):
                reader, writer = await open_stream(port, target, self.received.last_event_id)
        except OSError:
            # The worker is away, or has refused.
            return
        try:
            self.received.connect()
            self.connections += 1
            # By itself: it tells where the stream begins.
            self.received.take(await reader.readuntil(b"\r\n\r\n"))
            stay = self._random.randint(1, 40_000)
            while (stay > 0 or self.calm) and (chunk := await reader.read(max(1, min(stay, 4096)))):
                stay -= len(chunk)
                self.received.take(chunk)
                await self._rest()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.transport.abort()


class SubscriptionReader(Reader):
    """A reader of a broker's in this process, without a stream: frames at one time, events at another."""

    def __init__(self, received: Received, seed: str, broker: Callable[[], Broker], *, slow: float) -> None:
        super().__init__(received, seed, slow=slow)
        self._broker = broker
        self._on_lag = next(policy for policy in ON_LAG if policy == received.on_lag)

    async def _visit(self) -> None:
        received = self.received
        subscription = self._broker().subscribe(received.channels, received.last_event_id, on_lag=self._on_lag)
        try:
            async with subscription:
                received.connect()
                self.connections += 1
                if (position := subscription.resume_id) is not None:
                    received.take(id_frame(position))
                stay, whole = self._random.randint(1, 200), self._random.random() < 0.5
                while stay > 0 or self.calm:
                    stay -= 1
                    received.take(await subscription.pull() if whole else (await anext(subscription)).frame)
                    await self._rest()
                if (position := subscription.resume_id) is not None:
                    received.take(id_frame(position))
        except (BrokerError, SlowReaderError):
            # It was closed, is away, or has too much to tell.
            return


def id_frame(position: str) -> bytes:
    """Return what a stream tells a client of where it is."""
    return f"id: {position}\r\n\r\n".encode()
