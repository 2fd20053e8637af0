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

    __slots__ = ("_loop", "_sprinters")

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._sprinters: dict[Sprinter, None] = {}

    @classmethod
    def of(cls, loop: EventLoop) -> Sprint:
        """Return the one of an event loop."""
        sprint: Sprint | None = loop.locals.get(KEY)
        if sprint is None:
            sprint = loop.locals[KEY] = cls(loop)
        return sprint

    def add(self, sprinter: Sprinter) -> None:
        """Let ``sprinter`` send in the next turn, once."""
        if not self._sprinters:
            self._loop.call_soon(self._run)
        self._sprinters[sprinter] = None

    def _run(self) -> None:
        sprinters, self._sprinters = self._sprinters, {}
        for sprinter in sprinters:
            sprinter.sprint()
