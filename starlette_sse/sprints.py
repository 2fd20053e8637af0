"""Delivering to many streams in one go, without waking a task for each."""

from __future__ import annotations

from typing import Protocol

from starlette_sse.eventloop import EventLoop

__all__ = ["Sprint"]

KEY = "starlette_sse_sprint"


class Sprinter(Protocol):
    """A stream that may have frames ready."""

    def sprint(self) -> None:
        """Send them."""


class Sprint:
    """The streams of one event loop that got frames in its present turn; each sends in the next.

    What is published in one turn leaves in one send of each stream.
    """

    __slots__ = ("_loop", "_streams")

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._streams: list[Sprinter] = []

    @classmethod
    def of(cls, loop: EventLoop) -> Sprint:
        """Return the one of an event loop."""
        sprint: Sprint | None = loop.locals.get(KEY)
        if sprint is None:
            sprint = loop.locals[KEY] = cls(loop)
        return sprint

    def add(self, stream: Sprinter) -> None:
        """Let ``stream`` send in the next turn."""
        if not self._streams:
            self._loop.call_soon(self._run)
        self._streams.append(stream)

    def _run(self) -> None:
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.sprint()
