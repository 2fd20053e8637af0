# ruff: noqa: ASYNC109 - these timeouts fail with a message that tells what came instead
"""The reading half of a stream: what it brings, at the moment the test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Self, TypeVar

import anyio

from starlette_sse.testing.exceptions import (
    NoEventError,
    NotAnEventStreamError,
    StreamCutError,
    StreamEndedError,
    StreamTestError,
)
from starlette_sse.testing.exchange import Exchange, Head
from starlette_sse.testing.patience import default_timeout, told
from starlette_sse.testing.received import Received, ReceivedComment, ReceivedEvent
from starlette_sse.testing.wire import Chunk

__all__ = ["Ending", "StreamReader"]

Found = TypeVar("Found")


class Ending(StrEnum):
    """How a stream ended, as the client sees it."""

    FINISHED = "finished"
    """The server completed the response."""
    CUT = "cut"
    """The connection broke off before the response was complete."""
    DISCONNECTED = "disconnected"
    """The client went."""


class StreamReader:
    """Reads one response; nothing is read ahead, and one task reads at a time."""

    def __init__(self, name: str, *, last_event_id: str, timeout: float | None) -> None:
        self._name = name
        self._timeout = timeout
        self._received = Received(last_event_id)
        self._exchange: Exchange | None = None
        self._disconnected = False
        self._reading = False

    @property
    def response(self) -> Head:
        """The response's ``status_code`` and ``headers``, there before the first event."""
        head = self._opened.head
        assert head is not None  # noqa: S101 - an exchange is handed out when its response has started
        return head

    @property
    def events(self) -> Sequence[ReceivedEvent]:
        """Every event so far, those that the test has not asked for included."""
        return tuple(self._received.events)

    @property
    def comments(self) -> Sequence[ReceivedComment]:
        """Every comment so far."""
        return tuple(self._received.comments)

    @property
    def body(self) -> bytes:
        """Every byte so far."""
        return bytes(self._received.body)

    @property
    def last_event_id(self) -> str:
        """What a client would send as ``Last-Event-ID`` if it reconnected now."""
        return self._received.decoder.last_event_id

    @property
    def retry(self) -> int | None:
        """The last reconnection time that the stream gave, in milliseconds."""
        return self._received.decoder.retry

    @property
    def ending(self) -> Ending | None:
        """How the stream ended; None while it has not."""
        exchange = self._opened
        if exchange.complete:
            return Ending.FINISHED
        if self._disconnected:
            return Ending.DISCONNECTED
        return Ending.CUT if exchange.ended.is_set() else None

    async def next_event(self, timeout: float | None = None) -> ReceivedEvent:
        """Return the next event, waiting for it.

        :raises NoEventError: it did not come in time.
        :raises StreamEndedError: the stream has ended.
        :raises StreamCutError: the stream broke off.
        :raises NotAnEventStreamError: the response is no event stream.
        """
        return await self._read(self._received.next_event, "event", timeout)

    async def next_comment(self, timeout: float | None = None) -> ReceivedComment:
        """Return the next comment, such as a ping; events that come before it stay for :meth:`next_event`.

        :raises StreamTestError: as :meth:`next_event`.
        """
        return await self._read(self._received.next_comment, "comment", timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedEvent:
        try:
            return await self.next_event()
        except StreamEndedError:
            raise StopAsyncIteration from None

    async def read(self, timeout: float | None = None) -> bytes:
        """Return the whole body of a response that ends.

        :raises NoEventError: it did not end in time.
        :raises StreamCutError: it broke off.
        """
        if await self.closed(timeout) is Ending.CUT:
            raise self._over("the whole body")
        return self.body

    async def closed(self, timeout: float | None = None) -> Ending:
        """Wait until the stream is over and the app has ended, and tell how; what comes until then is kept.

        :raises NoEventError: it did not end in time.
        """
        exchange, seconds = self._opened, self._patience(timeout)
        with anyio.move_on_after(seconds):
            while not self._reading and (chunk := await self._take()) is not None:
                self._received.feed(chunk)
            await exchange.ended.wait()
        if self.ending is None or not exchange.ended.is_set():
            raise NoEventError(f"{self._name} did not end within {told(seconds)}; it brought {self._received}")
        return self.ending

    @property
    def _opened(self) -> Exchange:
        if self._exchange is None:
            raise RuntimeError(f"open {self._name} first: async with client.stream(...) as stream")
        return self._exchange

    def _patience(self, timeout: float | None) -> float:
        for seconds in (timeout, self._timeout):
            if seconds is not None:
                return seconds
        return default_timeout()

    async def _read(self, find: Callable[[], Found | None], what: str, timeout: float | None) -> Found:
        seconds = self._patience(timeout)
        with anyio.move_on_after(seconds):
            while (found := find()) is None:
                self._received.feed(await self._next_chunk(what))
            return found
        raise self._late(what, seconds)

    async def _next_chunk(self, what: str) -> Chunk:
        chunk = await self._take()
        head = self.response
        if not head.is_event_stream:
            raise NotAnEventStreamError(
                f"{self._name} brought no {what}: the response is no event stream, but status {head.status_code}, "
                f"content-type {head.headers.get('content-type')!r}, beginning {chunk.data[:200] if chunk else b''!r}"
            )
        if chunk is None:
            raise self._over(what)
        return chunk

    async def _take(self) -> Chunk | None:
        if self._reading:
            raise RuntimeError(f"two tasks read {self._name} at once; let one read, the others look at stream.events")
        self._reading = True
        try:
            return await self._opened.take()
        finally:
            self._reading = False

    def _late(self, what: str, seconds: float) -> NoEventError:
        return NoEventError(f"{self._name} brought no {what} within {told(seconds)}; it brought {self._received}")

    def _over(self, what: str) -> StreamTestError:
        brought, reason = f"it brought {self._received}", self._opened.domain.close_reason
        why = "" if reason is None else f" (the app closed it: {reason})"
        match self.ending:
            case Ending.CUT:
                error = StreamCutError(f"{self._name} broke off before {what} came{why}; {brought}")
                error.__cause__ = self._opened.error
                return error
            case ending:
                return StreamEndedError(f"{self._name} was {ending} before {what} came{why}; {brought}")
