"""The one way of a stream's bytes to ASGI ``send``: whole frames, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from starlette.types import Message, Send

from starlette_sse.eventloop import EventLoop, Waiter
from starlette_sse.streams.chunks import Exchange, chunk, passable_exchange
from starlette_sse.streams.resumed import Resumed
from starlette_sse.streams.servers import plain_send

__all__ = ["GONE", "FrameWriter"]

#: What servers and middleware raise from ``send`` when the client has gone; uvloop has RuntimeError.
GONE = (OSError, RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError)

#: Why nothing is written to a transport whose end the server has not told yet: asyncio would take it, and log that.
CLOSED = "the connection is closed"


class FrameWriter:
    """Sends frames. Two tasks may write, of which the second waits its turn, and callbacks if nobody else does.

    It sets no timer and enters no cancel scope: whoever watches the clock reads :attr:`sending_since`.

    :param on_gone: called with what ``send`` raised. Servers raise what they like when the client has gone, or nothing.
    """

    __slots__ = (
        "_exchange",
        "_loop",
        "_opening",
        "_time",
        "_unfinished",
        "bytes_sent",
        "last_write",
        "next",
        "on_gone",
        "send",
        "sending_since",
        "sends_now",
    )

    def __init__(self, loop: EventLoop, send: Send, on_gone: Callable[[BaseException], None]) -> None:
        self._loop = loop
        self._time = loop.time
        #: ASGI's ``send``, for who has the turn.
        self.send = send
        self.on_gone = on_gone
        #: Whether :meth:`send_now` may be used, which :meth:`open` finds out.
        self.sends_now = False
        #: Who waits for its turn.
        self.next: Waiter | None = None
        self._exchange: Exchange | None = None
        self._opening = b""
        self._unfinished: Resumed | None = None
        self.bytes_sent = 0
        self.last_write = self._time()
        #: When the send that is under way began; nobody may write before :meth:`open` has ended.
        self.sending_since: float | None = self.last_write

    async def open(self, start: Message, opening: bytes) -> None:
        """Start the response, with the first bytes of its body.

        :raises Exception: the server refuses the response; a client that has gone is told to ``on_gone`` instead.
        """
        self.sending_since = self._time()
        try:
            await self.send(start)
            self._shorten_way()
            self.bytes_sent += len(opening)
            if self.next is not None:
                # A frame is ready already: both leave in one send.
                self._opening = opening
            elif opening:
                await self.send({"type": "http.response.body", "body": opening, "more_body": True})
        except GONE as exc:
            self.on_gone(exc)
        finally:
            self.last_write = self._time()
            self.end_turn()

    def _shorten_way(self) -> None:
        """Pass by what only looks for the start of a response."""
        plain = plain_send(self.send)
        if plain is not None:
            self.send = plain
            self.sends_now = True
            self._exchange = passable_exchange(plain)

    @property
    def shortcut(self) -> Callable[[bytes], bool] | None:
        """:meth:`try_put`, if it is of any use."""
        return None if self._exchange is None else self.try_put

    def try_put(self, frame: bytes) -> bool:
        """Hand ``frame`` to the server's transport, if that is the same as to send it, and tell whether it is.

        For who has the turn.

        :raises Exception: the transport does not take it.
        """
        exchange = self._exchange
        if (
            exchange is None
            or exchange.disconnected
            or exchange.response_complete
            or exchange.flow.write_paused
            or not frame
        ):
            return False
        if exchange.transport.is_closing():
            raise ConnectionResetError(CLOSED)
        exchange.transport.write(chunk(frame))
        return True

    def offer(self, frames: bytes) -> bool:
        """Take the turn if it is free, hand ``frames`` over as :meth:`try_put` does, and tell whether that was done.

        What the transport raises is told to ``on_gone``.
        """
        if self.sending_since is not None:
            return False
        try:
            if not self.try_put(frames):
                return False
        except Exception as exc:  # noqa: BLE001 - told to on_gone
            self.on_gone(exc)
            return False
        self.last_write = self._time()
        self.bytes_sent += len(frames)
        return True

    async def write(self, frame: bytes, *, more: bool = True) -> None:
        """Send ``frame``; the caller has taken its turn by :meth:`take_turn`."""
        body = self.after_opening(frame)
        self.sending_since = self.last_write = self._time()
        try:
            await self.send({"type": "http.response.body", "body": body, "more_body": more})
            self.bytes_sent += len(frame)
        except Exception as exc:  # noqa: BLE001 - told to on_gone
            self.on_gone(exc)
        finally:
            self.end_turn()

    def after_opening(self, frame: bytes) -> bytes:
        """Return what is to be sent for ``frame``: what :meth:`open` has left, and counted, comes first."""
        if self._opening:
            frame, self._opening = self._opening + frame, b""
        return frame

    def end_turn(self) -> None:
        """Let the next one write."""
        if self.next is None:
            self.sending_since = None
        else:
            # Handed over at once: a task that always has a frame ready would take the turn again first.
            waiter, self.next = self.next, None
            self.sending_since = self._time()
            waiter.wake()

    def send_now(self, frame: bytes) -> bool:
        """Send ``frame`` from a callback, and tell whether that is done; if not, :meth:`finish` has to be awaited.

        For a ``send`` that needs no task to run in.
        """
        self.sending_since = self.last_write = self._time()
        try:
            done = self.try_put(frame) or self._begin_send(frame)
        except Exception as exc:  # noqa: BLE001 - told to on_gone
            self.sending_since = None
            self.on_gone(exc)
            return True
        self.bytes_sent += len(frame)
        if done:
            self.sending_since = None
        return done

    def _begin_send(self, frame: bytes) -> bool:
        """Send as far as that goes without waiting, and tell whether that was all."""
        sending: Any = self.send({"type": "http.response.body", "body": frame, "more_body": True})
        try:
            self._unfinished = Resumed(sending, sending.send(None))
        except StopIteration:
            return True
        return False

    async def finish(self) -> None:
        """Await the rest of what :meth:`send_now` has begun, if there is any."""
        if self._unfinished is not None:
            unfinished, self._unfinished = self._unfinished, None
            try:
                await unfinished
            except Exception as exc:  # noqa: BLE001 - told to on_gone
                self.on_gone(exc)
            finally:
                self.end_turn()

    def abandon(self) -> None:
        """Leave a send where it is."""
        if self._unfinished is not None:
            self._unfinished.abandon()
            self._unfinished = None

    async def take_turn(self) -> None:
        """Wait until nobody is writing and take the turn, which a write or :meth:`end_turn` gives back."""
        if self._unfinished is not None:
            await self.finish()
        if self.sending_since is None:
            self.sending_since = self._time()
            return
        self.next = waiter = self._loop.waiter()
        try:
            await waiter.wait()
        except BaseException:
            if self.next is waiter:
                self.next = None
            else:
                self.end_turn()
            raise
