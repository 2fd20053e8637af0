"""The wire between the app and the test: no buffer, so the test sees and makes backpressure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import anyio

__all__ = ["Chunk", "Wire"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one ``send`` of the app carried."""

    data: bytes
    last: bool
    """Whether the body is complete with it."""
    time: float
    """When the app called ``send``, on the event loop's clock."""


@dataclass(slots=True, eq=False)
class Offer:
    chunk: Chunk
    done: anyio.Event = field(default_factory=anyio.Event)


class Wire:
    """Hands chunks from ``send`` to a reader: a chunk leaves the app at the moment the test takes it."""

    def __init__(self) -> None:
        self.client_gone = False
        self._offers: deque[Offer] = deque()
        self._changed = anyio.Event()
        self._stalled = False
        self._ended = False

    def stall(self) -> None:
        """Give the reader nothing until :meth:`resume`."""
        self._stalled = True

    def resume(self) -> None:
        """Give the reader what comes, again."""
        self._stalled = False
        self._notify()

    async def offer(self, chunk: Chunk) -> None:
        """Return when the test has taken the chunk, or the client is gone."""
        offer = Offer(chunk)
        self._offers.append(offer)
        self._notify()
        try:
            await offer.done.wait()
        finally:
            if offer in self._offers:
                self._offers.remove(offer)

    async def take(self) -> Chunk | None:
        """Return the next chunk, waiting while there is none or the wire is stalled; None: no more will come."""
        while not self._ended and (self._stalled or not self._offers):
            await self._changed.wait()
        if self._ended:
            return None
        offer = self._offers.popleft()
        self._ended = offer.chunk.last
        offer.done.set()
        return offer.chunk

    def end(self) -> None:
        """No chunk comes any more: the app has ended."""
        self._ended = True
        self._notify()

    def hang_up(self) -> None:
        """The client is gone: every waiting ``send`` returns, and so does every reader."""
        self.client_gone = True
        for offer in self._offers:
            offer.done.set()
        self._offers.clear()
        self.end()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
