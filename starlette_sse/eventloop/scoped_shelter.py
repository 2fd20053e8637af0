"""A shelter made of cancel scopes, for any event loop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from starlette_sse.eventloop.base import EventLoop, Shelter

__all__ = ["ScopedShelter"]


class ScopedShelter(Shelter):
    """One cancellation is made of a cancelled scope and a shield that is raised behind the first delivery."""

    __slots__ = ("_block", "_outer")

    def __init__(self, loop: EventLoop) -> None:
        super().__init__(loop)
        self._outer = loop.cancel_scope(shield=True)
        self._block = loop.cancel_scope()

    def __enter__(self) -> Self:
        self._task = self._loop.current_task()
        self._outer.__enter__()
        self._block.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._task = None
        if self._block.__exit__(exc_type, exc, traceback):
            exc_type = exc = traceback = None
        return bool(self._outer.__exit__(exc_type, exc, traceback)) or exc is None

    def cut(self) -> None:
        self._block.cancel()

    def _cancel_once(self) -> bool:
        return self._loop.reaches(self._task, self._cancel_scopes)

    def _cancel_scopes(self) -> None:
        self._outer.cancel()
        self._block.shield = False
        self._block.shield = True
