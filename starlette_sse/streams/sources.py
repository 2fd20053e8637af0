"""Where a stream's frames come from, if not from ``events()``: the contract that a subscription meets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette_sse.eventloop import Waiter
from starlette_sse.streams.writers import FrameWriter

__all__ = ["FrameSource", "NoFrames"]


class FrameSource(Protocol):
    """Where frames come from that are not an iterator's, such as a subscription; one task pulls."""

    def pull(self) -> Awaitable[bytes | None]:
        """Wait for frames and return those that are ready, joined; nothing after :meth:`wake` without any."""

    def take(self) -> bytes:
        """Return what a waiting :meth:`pull` would, but leave it waiting; ``b""`` if that must go on by itself."""

    def notify(self, callback: Callable[[], None]) -> None:
        """From now on call ``callback`` when frames are ready, in place of waking :meth:`pull`."""

    def send_by(self, lane: FrameWriter) -> None:
        """Send by ``lane``, where it is free, what :meth:`pull` would wait for."""

    def wake(self) -> None:
        """Make a waiting :meth:`pull` return."""

    @property
    def resting(self) -> bool:
        """Whether a :meth:`pull` waits that :meth:`wake` will make return."""

    @property
    def idle(self) -> bool:
        """Whether a :meth:`pull` waits and there is nothing for it."""

    @property
    def delivered(self) -> int:
        """How many events :meth:`pull` and :meth:`take` have returned."""

    @property
    def resume_id(self) -> str | None:
        """The id that a client may be given now, in an opening frame or a ping, to resume behind it."""

    def leave(self) -> None:
        """Bring no more."""


class NoFrames:
    """The frame source of a stream whose events come from an iterator: it only wakes the server's task."""

    __slots__ = ("_waiter",)

    idle = True
    delivered = 0
    resume_id = None

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter

    def pull(self) -> Awaitable[None]:
        return self._waiter.wait()

    def wake(self) -> None:
        self._waiter.wake()

    @property
    def resting(self) -> bool:
        return self._waiter.waiting

    def take(self) -> bytes:
        return b""

    def notify(self, callback: Callable[[], None]) -> None:
        """There are none."""

    def send_by(self, lane: FrameWriter) -> None:
        """Nor is there anything to send."""

    def leave(self) -> None:
        """There never were."""
