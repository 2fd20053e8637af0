"""Hearing that the client has gone, by one uninterrupted ``receive()`` at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Protocol

from starlette.types import Message, Receive

from starlette_sse.eventloop import Alarm, EventLoop, Tasks
from starlette_sse.streams.servers import is_uvicorns

__all__ = ["listen"]

DISCONNECTS = frozenset({"http.disconnect", "websocket.disconnect"})

KEY = "starlette_sse_listeners"


class Listening(Protocol):
    """Who wants to know that the client has gone."""

    def client_left(self, message: Message | None, error: BaseException | None) -> None:
        """Called once, with the disconnect message or with what ``receive`` raised."""

    def body_came(self) -> None:
        """Called when a part of the request's body was received."""


def listen(receive: Receive, loop: EventLoop, tasks: Tasks, listening: Listening) -> Alarm:
    """Listen until the client has gone, and return what ends the listening."""
    if is_uvicorns(receive):
        # One for all: a callback of its own context would be held for each stream, and nobody's code runs in it.
        return CallbackListener(receive, listening, loop.locals.setdefault(KEY, Context()))

    async def run() -> None:
        try:
            while (message := await receive())["type"] not in DISCONNECTS:
                if message.get("body"):
                    listening.body_came()
        except Exception as exc:  # noqa: BLE001 - told to who listens
            listening.client_left(None, exc)
        else:
            listening.client_left(message, None)

    return tasks.start(run)


class CallbackListener:
    """Drives ``receive()`` by the callbacks of the futures that it waits for.

    A task that only waits in ``receive()`` costs each stream 4 KiB and its connection a tenth of its CPU time.
    """

    __slots__ = ("_context", "_coroutine", "_listening", "_receive", "_waits_for")

    def __init__(self, receive: Receive, listening: Listening, context: Context) -> None:
        self._receive = receive
        self._listening = listening
        self._context = context
        self._waits_for: asyncio.Future[Any] | None = None
        self._coroutine: Coroutine[Any, Any, Message] = receive()  # type: ignore[assignment]
        self._step()

    def cancel(self) -> None:
        if self._waits_for is not None:
            self._waits_for.remove_done_callback(self._resume)
            self._waits_for = None
        self._coroutine.close()

    def _resume(self, future: asyncio.Future[Any]) -> None:
        # One that was done before cancel() calls all the same.
        if future is self._waits_for:
            self._step()

    def _step(self) -> None:
        self._waits_for = None
        try:
            while (message := self._advance()) is not None:
                if message["type"] in DISCONNECTS:
                    self._listening.client_left(message, None)
                    return
                if message.get("body"):
                    self._listening.body_came()
                self._coroutine = self._receive()  # type: ignore[assignment]
        except Exception as exc:  # noqa: BLE001 - told to who listens
            self._listening.client_left(None, exc)

    def _advance(self) -> Message | None:
        """Return the message, or None to wait for a future."""
        try:
            future = self._coroutine.send(None)
        except StopIteration as done:
            message: Message = done.value
            return message
        # As a task does with the future that it takes over.
        future._asyncio_future_blocking = False  # noqa: SLF001
        future.add_done_callback(self._resume, context=self._context)
        self._waits_for = future
        return None
