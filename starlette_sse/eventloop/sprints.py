"""Delivering to many streams in one go, without waking a task for each."""

from __future__ import annotations

from typing import Protocol

from starlette_sse.eventloop import EventLoop

__all__ = ["Sprint"]

KEY = "starlette_sse_sprint"


class Sprinter(Protocol):
    """Who may have frames ready: a stream, or a channel for all that follow it."""

    def sprint(self) -> None:
        """Send them."""


class Sprint:
    """Those of one event loop who got frames in its present turn; each sends in the next.

    What is published in one turn leaves in one send of each stream.
    """

    __slots__ = ("_due", "_loop", "_queue")

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._queue: list[Sprinter] = []
        self._due: set[Sprinter] = set()

    @classmethod
    def of(cls, loop: EventLoop) -> Sprint:
        """Return the one of an event loop."""
        sprint: Sprint | None = loop.locals.get(KEY)
        if sprint is None:
            sprint = loop.locals[KEY] = cls(loop)
        return sprint

    def add(self, sprinter: Sprinter) -> None:
        """Let ``sprinter`` send in the next turn, once; in this one, if that is when others do."""
        if sprinter not in self._due:
            if not self._queue:
                self._loop.call_soon(self._run)
            self._due.add(sprinter)
            self._queue.append(sprinter)

    def _run(self) -> None:
        done = 0
        try:
            for sprinter in self._queue:
                done += 1
                self._due.discard(sprinter)
                sprinter.sprint()
        finally:
            del self._queue[:done]
            if self._queue:
                # One has failed; the others must not wait for the next event.
                self._loop.call_soon(self._run)
