# ruff: noqa: ASYNC109 - these timeouts fail with a message that tells what came instead
"""A stream as the test holds it: opening and closing it, what to expect of it, and what a client can do to it."""

from __future__ import annotations

import math
import re
from collections.abc import Generator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import anyio
from starlette.types import Scope

from starlette_sse.observers import CloseReason
from starlette_sse.testing.assertions import Expectation, assert_events, diff
from starlette_sse.testing.exceptions import (
    NoEventError,
    StreamCutError,
    StreamEndedError,
    UnexpectedEventsError,
)
from starlette_sse.testing.patience import told
from starlette_sse.testing.problems import report
from starlette_sse.testing.reader import StreamReader
from starlette_sse.testing.received import ReceivedEvent
from starlette_sse.testing.request import ClientRequest, RequestBody
from starlette_sse.testing.server import Server

__all__ = ["EventStream"]

DATA_LINE = re.compile(rb"(?:\A|(?<=[\r\n]))data:?[^\r\n]*")


class EventStream(StreamReader):
    """One request whose response is read as it comes; the client's ``stream`` method makes it.

    Open it with ``async with``: at the block's end the client goes, the app gets time to clean up, and what went
    wrong in it is raised. Or open it with ``await`` and end it with :meth:`aclose`.

    The app's ``send`` returns when the test reads what it sent. Nothing is read ahead: while the test does not read,
    the app meets the backpressure of a client that has stalled. One task reads at a time.

    Each ``timeout`` is in seconds of the event loop's clock; if it is not given, the client's counts.
    """

    def __init__(self, server: Server, request: ClientRequest, *, scope: Scope, timeout: float | None) -> None:
        super().__init__(str(request), last_event_id=request.last_event_id, timeout=timeout)
        self.request = request
        """What was sent; ``str()`` of it names the stream in messages."""
        self._server = server
        self._scope = scope

    async def open(self) -> Self:
        """Send the request and wait for the response's start; ``async with`` and ``await`` do it.

        :raises NoEventError: the response did not start in time.
        :raises Exception: what the app raised before its response.
        """
        if self._exchange is None:
            scope = {**self.request.scope(), **self._scope}
            body = RequestBody(self.request.content)
            self._exchange = await self._server.start(
                scope, body, name=self._name, opened_at=self.request.opened_at, timeout=self._patience(None)
            )
        return self

    async def aclose(self) -> None:
        """Let the client go and wait until the app has ended.

        :raises StillRunningError: the app did not end, and had to be cancelled.
        :raises Exception: what left the app.
        """
        await self.__aexit__(None, None, None)

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.open().__await__()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._exchange is None:
            return
        self.disconnect()
        problem = await self._server.settle(self._exchange)
        # What broke the stream off says more than that it broke off.
        told_already = isinstance(exc, StreamCutError) and exc.__cause__ is problem
        report([problem] if problem else [], None if told_already else exc)

    @property
    def is_open(self) -> bool:
        """Whether the client is there and the app serves it."""
        return self._exchange is not None and self._exchange.has_client

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the app ended the stream, if it is one of this package's; None while it is open."""
        return self._opened.domain.close_reason

    def successor(self) -> EventStream:
        """Return the stream of the same client when it reconnects: the same request with its ``Last-Event-ID``."""
        request = self.request.resumed(self.last_event_id)
        return EventStream(self._server, request, scope=self._scope, timeout=self._timeout)

    async def expect(self, *expected: Any, timeout: float | None = None) -> None:
        """Read as many events and compare them with what the test expects.

        :param expected: for each event its payload as a ``str``; or a mapping of the fields that matter (``event``,
            ``data``, ``id``), where ``data`` other than a ``str`` is compared with the payload's JSON; or a
            :class:`~starlette_sse.ServerSentEvent`.
        :param timeout: for each event.
        :raises UnexpectedEventsError: other events came, or fewer; the message is a diff.
        """
        wanted = [Expectation.of(each) for each in expected]
        events: list[ReceivedEvent] = []
        try:
            while len(events) < len(wanted):
                events.append(await self.next_event(timeout))
        except (NoEventError, StreamEndedError, StreamCutError) as error:
            message = f"{len(events)} of {len(wanted)} events came: {error}"
            raise UnexpectedEventsError(f"{message}\n{diff(wanted, events)}") from error
        assert_events(events, wanted, source=self._name)

    async def expect_silence(self, seconds: float) -> None:
        """Check that the stream stays open and brings no event for so long; comments may come.

        :raises UnexpectedEventsError: an event came.
        :raises StreamEndedError: the stream ended.
        :raises StreamCutError: the stream broke off.
        """
        with anyio.move_on_after(seconds):
            event = await self.next_event(math.inf)
            raise UnexpectedEventsError(f"{self._name} brought an event within {told(seconds)}: {event}")

    def stall(self) -> None:
        """Stop reading, whoever asks for events: the app's ``send`` blocks until :meth:`resume`."""
        self._opened.wire.stall()

    def resume(self) -> None:
        """Read on after :meth:`stall`."""
        self._opened.wire.resume()

    def disconnect(self) -> None:
        """Let the client go: the app gets ``http.disconnect``, and what it still sends is lost.

        Wait for the app's end with :meth:`closed`.
        """
        if self.ending is None:
            self._disconnected = True
        self._opened.disconnect()

    async def cut(self, at: int | None = None, timeout: float | None = None) -> None:
        """Let the client go in the middle of a frame.

        The next event arrives only in part, so the client neither sees it nor remembers its id.

        :param at: take so many bytes of what the app sends next; if not given, up to the middle of a ``data`` line.
        :raises StreamTestError: as :meth:`next_event`.
        """
        seconds, what = self._patience(timeout), "data to cut"
        with anyio.move_on_after(seconds):
            place = None
            while place is None:
                chunk = await self._next_chunk(what)
                place = middle_of_data(chunk.data) if at is None else at
                self._received.feed(replace(chunk, data=chunk.data[:place]))
            self.disconnect()
            return
        raise self._late(what, seconds)


def middle_of_data(frames: bytes) -> int | None:
    """Return a place inside the first ``data`` line."""
    line = DATA_LINE.search(frames)
    return None if line is None else (line.start() + line.end()) // 2
