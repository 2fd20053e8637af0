"""Driving a coroutine by hand: its steps in callbacks, the rest in a task."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["Resumed"]


class Resumed:
    """Awaits the rest of a coroutine that was begun outside of the task.

    :param waits_for: the future that its last step came to.
    """

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            while True:
                try:
                    yield self._waits_for
                except BaseException as exc:  # noqa: BLE001 - it is the coroutine's
                    self._waits_for = self._coroutine.throw(exc)
                else:
                    self._waits_for = self._coroutine.send(None)
        except StopIteration as done:
            return done.value

    def abandon(self) -> None:
        """Await no more of it."""
        self._coroutine.close()
