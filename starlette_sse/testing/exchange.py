"""One request to the app: the ASGI server's half of it, kept to the rules of real servers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from starlette_sse.eventloop import EventLoop, current_event_loop, running_event_loop
from starlette_sse.testing.domain import WatchedDomain
from starlette_sse.testing.exceptions import ASGIProtocolError
from starlette_sse.testing.request import RequestBody
from starlette_sse.testing.wire import Chunk, Wire

__all__ = ["Exchange", "Head", "check_loop"]

#: So many chunks sent after the client has gone, and the app is cancelled: on a virtual clock, an app that sends
#: without a pause would never let the grace pass.
MAX_IGNORED = 1000

#: What asyncio says on trio, and what to do about it.
NO_ASYNCIO = "no running event loop"
NEEDS_ASYNCIO = (
    "The app uses asyncio, and this test runs on trio. With virtual_clock, set sse_virtual_clock = asyncio in pytest's "
    "configuration; else let a fixture anyio_backend return 'asyncio'."
)


@dataclass(frozen=True, slots=True)
class Head:
    """The response's status and headers, before any of its body."""

    status_code: int
    headers: Headers

    @property
    def is_event_stream(self) -> bool:
        """Whether a client may read the body as server-sent events."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


class Exchange:
    """The app's run for one request, with the messages to it and from it.

    The app hears of the client's going by ``http.disconnect``; from then on its ``send`` returns at once and does
    nothing, as on uvicorn. It is cancelled only when it is still there after a grace.
    """

    def __init__(
        self, app: ASGIApp, scope: Scope, body: RequestBody, *, name: str, opened_at: str, domain: WatchedDomain
    ) -> None:
        self.name = name
        self.opened_at = opened_at
        """The place in the test, as ``file:line``."""
        self.domain = domain
        self.head: Head | None = None
        self.error: Exception | None = None
        """What left the app, or should have: a rule of ASGI that it broke."""
        self.complete = False
        """Whether the client has the whole body."""
        self.outlived = False
        """Whether the app had to be cancelled, because it did not end after its client."""
        self.wire = Wire()
        self.responded = anyio.Event()
        """Set by the response's start, and by the app's end."""
        self.ended = anyio.Event()
        """Set when the app has returned or raised."""
        self._loop = current_event_loop()
        self._app = app
        self._scope = scope
        self._body = body
        self._over = anyio.Event()
        self._ahead: deque[Chunk] = deque()
        self._ignored = 0
        self._violation: ASGIProtocolError | None = None
        self._cancel_scope = anyio.CancelScope()

    @property
    def has_client(self) -> bool:
        """Whether the app still works and its client is still there."""
        return not self.ended.is_set() and not self.wire.client_gone

    async def run(self) -> None:
        """Run the app to its end; what it raises is kept in :attr:`error`."""
        try:
            with self._cancel_scope:
                await self._app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the test that asked
            if str(error) == NO_ASYNCIO and running_event_loop() == "trio":
                error.add_note(NEEDS_ASYNCIO)
            self.error = error
        finally:
            self.error = self.error or self._violation
            self._over.set()
            self.wire.end()
            self.ended.set()
            self.responded.set()

    async def take(self) -> Chunk | None:
        """Return the next chunk of the body at the moment the app sends it, or None: no more will come."""
        check_loop(self._loop)
        return self._ahead.popleft() if self._ahead else await self._take()

    async def run_out(self) -> None:
        """Wait until the app has ended, keeping what it sends for :meth:`take`."""
        while (chunk := await self._take()) is not None:
            self._ahead.append(chunk)
        await self.ended.wait()

    def answer(self, head: Head, body: bytes) -> None:
        """Give the response that a server makes up for an app that ended without one."""
        self.head, self.complete = head, True
        self._ahead.append(Chunk(body, last=True, time=anyio.current_time()))

    def disconnect(self) -> None:
        """Let the client go, without waiting for the app."""
        self._over.set()
        self.wire.hang_up()

    async def close(self, grace: float) -> None:
        """Let the client go and wait for the app's end, ``grace`` seconds before it is cancelled."""
        self.disconnect()
        with anyio.move_on_after(grace):
            await self.ended.wait()
        if not self.ended.is_set():
            self._cancel()
            await self.ended.wait()

    async def _take(self) -> Chunk | None:
        chunk = await self.wire.take()
        if chunk is not None and chunk.last:
            self.complete = True
            self._over.set()
        return chunk

    def _cancel(self) -> None:
        self.outlived = True
        self._cancel_scope.cancel()

    async def _receive(self) -> Message:
        if not self._over.is_set() and (message := await self._body.next()):
            return message
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        try:
            await self._carry_out(message)
        except ASGIProtocolError as error:
            # The app may take it for the client's going.
            self._violation = error
            raise

    async def _carry_out(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self._start(message)
                await checkpoint()
            case "http.response.body":
                await self._send_body(body_chunk(message))
            case unknown:
                raise ASGIProtocolError(f"the app sent {unknown!r}, which the scope's extensions do not offer")

    def _start(self, message: Message) -> None:
        if self.head is not None:
            raise ASGIProtocolError("the app sent 'http.response.start' twice")
        self.head = Head(message["status"], Headers(raw=list(message.get("headers", []))))
        self.responded.set()

    async def _send_body(self, chunk: Chunk) -> None:
        if self.head is None:
            raise ASGIProtocolError("the app sent 'http.response.body' before 'http.response.start'")
        if self.wire.client_gone:
            await self._ignore()
        elif self.complete:
            raise ASGIProtocolError("the app sent 'http.response.body' after the body was complete")
        elif chunk.last or (chunk.data and self._scope["method"] != "HEAD"):
            await self.wire.offer(chunk)
        else:
            await checkpoint()

    async def _ignore(self) -> None:
        self._ignored += 1
        if self._ignored > MAX_IGNORED:
            self._cancel()
        await checkpoint()


def check_loop(loop: EventLoop | None) -> None:
    """Check that a test is in the event loop of its app; in another it would wait for ever."""
    if current_event_loop() is not loop:
        raise RuntimeError(
            "the client was opened in another event loop, and the app runs there; open it in this one (with "
            "pytest-asyncio: give fixtures and tests the same loop_scope)"
        )


def body_chunk(message: Mapping[str, Any]) -> Chunk:
    """Return what an ``http.response.body`` message carries."""
    body = message.get("body", b"")
    if not isinstance(body, bytes | bytearray | memoryview):
        raise ASGIProtocolError(f"the app sent a body of type {type(body).__name__}; encode it to bytes")
    return Chunk(bytes(body), not message.get("more_body", False), anyio.current_time())
