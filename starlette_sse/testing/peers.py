"""A process at a broker's log, as the conformance checks play it: a backend, and what it is asked and heard to say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from starlette_sse.broker.base import Backend
from starlette_sse.broker.entries import Entry, Gap, Page, Retention
from starlette_sse.broker.log import Log
from starlette_sse.broker.positions import Position
from starlette_sse.broker.tally import Tally
from starlette_sse.eventloop import current_event_loop
from starlette_sse.exceptions import SSEError

__all__ = ["PATIENCE", "SMALL", "ConformanceError", "Peer", "body_of", "expect", "peer", "text_of"]

#: Seconds that a check waits for what must come soon.
PATIENCE = 10.0

#: Bytes of a page that holds one or two events.
SMALL = 100


class ConformanceError(SSEError, AssertionError):
    """Raised when a backend does not do what its contract says."""


class Peer:
    """One process at a log: a backend, and the part of the log that it feeds."""

    def __init__(self, backend: Backend, log: Log) -> None:
        self.backend = backend
        self.log = log
        self._news = anyio.Event()

    def ready(self) -> None:
        """Take note that a channel has an event."""
        self._news.set()

    async def append(self, channel: str, text: str = "", key: str | None = None) -> Position:
        """Append an event and return its position."""
        event_id = await self.backend.append(channel, body_of(text), key)
        position = Position.parse(event_id)
        if position is None:
            raise ConformanceError(f"append returned {event_id!r}, which is not an id")
        return position

    async def listen(self, *channels: str) -> None:
        """Listen as a subscription does."""
        for name in channels:
            self.log.channel(name, None).readers += 1
        await self.backend.listen(channels)
        for name in channels:
            expect(self.log.channels[name].floor is not None, f"{name!r} has no floor after listen")

    def leave(self, channel: str) -> None:
        """Stop listening."""
        self.log.channels[channel].readers -= 1
        self.backend.unlisten(channel)

    async def heard(self, channel: str, seq: int) -> list[Entry]:
        """Return what the log holds of a channel, once it reaches a number."""
        held = self.log.channels[channel]
        with anyio.move_on_after(PATIENCE):
            while held.top < seq:
                self._news = anyio.Event()
                held.waiting[self] = None
                await self._news.wait()
        expect(held.top >= seq, f"{channel!r} was not heard up to {seq} within {PATIENCE} s; it ends at {held.top}")
        return held.since(held.first)

    async def page(self, channels: Sequence[str], after: Position, limit: int = SMALL) -> Page:
        """Read one page."""
        answer = await self.backend.read(channels, after, limit)
        if isinstance(answer, Gap):
            raise ConformanceError(f"reading {channels} after {after} met a gap: {answer}")
        return answer

    async def gap(self, channels: Sequence[str], after: Position) -> Gap:
        """Read where something is missing."""
        answer = await self.backend.read(channels, after, SMALL)
        if isinstance(answer, Page):
            raise ConformanceError(f"reading {channels} after {after} gave no gap: {answer}")
        return answer

    async def pages(self, channels: Sequence[str], after: Position, limit: int = SMALL) -> list[Entry]:
        """Read to the end, page by page."""
        entries: list[Entry] = []
        end = await self.backend.top()
        while after.seq < end.seq:
            page = await self.page(channels, after, limit)
            expect(page.upto.seq > after.seq, f"a page after {after} ends at {page.upto}: it makes no way")
            expect(all(after.seq < e.seq <= page.upto.seq for e in page.entries), f"a page after {after} is out of it")
            entries += page.entries
            after = page.upto
        return entries


@asynccontextmanager
async def peer(
    backend: Backend, *, history: int = 100, max_age: float = 60.0, max_bytes: int = 100_000
) -> AsyncIterator[Peer]:
    """Open ``backend`` as a broker does."""
    log = Log(Retention(history=history, max_age=max_age, max_bytes=max_bytes), Tally(()))
    log.bind(current_event_loop())
    async with current_event_loop().task_group() as tasks:
        await backend.open(log)
        tasks.start_soon(backend.serve, name="the backend")
        try:
            yield Peer(backend, log)
        finally:
            tasks.cancel()
            with anyio.CancelScope(shield=True):
                await backend.close()
            log.unbind()


def expect(kept: bool, message: str) -> None:
    """Check one clause of the contract.

    :raises ConformanceError: it is not kept.
    """
    if not kept:
        raise ConformanceError(message)


def body_of(text: str) -> bytes:
    """Return what is appended for an event with this data."""
    return f"data: {text}\r\n\r\n".encode()


def text_of(entry: Entry) -> str:
    """Return an entry's data."""
    event = entry.event
    return "" if event is None else event.data
