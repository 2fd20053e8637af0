"""A server's half of one request: it records what a response sends, when, and whether two sends overlap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import anyio
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Message

from tests.visits import scope_of

__all__ = ["Exchange", "answer"]

#: What a response's headers hold, as a server sends them.
Header = tuple[bytes, bytes]


class Exchange:
    """Runs one app for one request.

    :param leaves_after: seconds until the client disconnects.
    :param takes: how long the send of a message takes, in seconds.
    """

    #: As the server gives it to the app.
    DISCONNECT: ClassVar[Message] = {"type": "http.disconnect", "seen": "by the server"}

    def __init__(
        self,
        *,
        leaves_after: float = math.inf,
        takes: Callable[[Message], float] = lambda _: 0.0,
        **scope: Any,
    ) -> None:
        self.scope = scope_of(**scope)
        self.error: Exception | None = None
        self.messages: list[Message] = []
        self.sent_at: list[float] = []
        self.overlapped = False
        self.sending = False
        self._leaves_after = leaves_after
        self._takes = takes
        self._asked = False
        self._left = anyio.Event()

    async def run(self, app: ASGIApp) -> Exchange:
        self._started_at = anyio.current_time()
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as exc:
            self.error = exc
        self.took = anyio.current_time() - self._started_at
        return self

    async def receive(self) -> Message:
        await checkpoint()
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        with anyio.move_on_after(self._leaves_after):
            await self._left.wait()
        return self.DISCONNECT

    def leave(self) -> None:
        """Let the client disconnect."""
        self._left.set()

    async def send(self, message: Message) -> None:
        self.overlapped = self.overlapped or self.sending
        self.sending = True
        try:
            await anyio.sleep(self._takes(message))
            self.messages.append(message)
            self.sent_at.append(anyio.current_time() - self._started_at)
        finally:
            self.sending = False

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> list[Header]:
        return list(self.messages[0]["headers"])

    @property
    def chunks(self) -> list[bytes]:
        return [message["body"] for message in self.messages[1:]]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def complete(self) -> bool:
        """Whether the body ended as it should, and was not cut."""
        return bool(self.messages) and self.messages[-1].get("more_body") is False

    def times(self, part: bytes) -> list[float]:
        """When each chunk that holds ``part`` had been sent."""
        return [
            round(time, 6)
            for message, time in zip(self.messages, self.sent_at, strict=True)
            if part in message.get("body", b"")
        ]


async def answer(app: ASGIApp, **options: Any) -> Exchange:
    """Let ``app`` answer one request."""
    return await Exchange(**options).run(app)
