"""What runs beside a stream in tasks of its own: what the app has given it, and the asking for its right again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette_sse.eventloop import Alarm, EventLoop, Tasks
from starlette_sse.streams.causes import bare, foreign_cancellation

__all__ = ["Companions"]

#: Of the event loop, in which a cancellation of all tasks, as at the end of the loop, reaches the stream.
CANCELLATION_TURNS = 3


class Companions:
    """The tasks beside a stream, each known by what it does.

    :param on_error: called with what one of them raised, and what that does.
    """

    __slots__ = ("_loop", "_on_error", "_running", "_stopped", "_tasks")

    def __init__(self, loop: EventLoop, tasks: Tasks, on_error: Callable[[BaseException, str], None]) -> None:
        self._loop = loop
        self._tasks = tasks
        self._on_error = on_error
        self._stopped = False
        self._running: dict[str, Alarm | None] = {}

    def start(self, doing: str, companion: Callable[[], Awaitable[object]]) -> None:
        """Run ``companion()`` until it ends or :meth:`cancel` is called."""
        # Noted before: an eager task may be over when it is started.
        self._running[doing] = None
        task = self._tasks.start(partial(self._run, doing, companion))
        if doing in self._running:
            self._running[doing] = task

    def runs(self, doing: str) -> bool:
        """Tell whether one has not ended."""
        return doing in self._running

    def cancel(self) -> None:
        """Cancel those that run."""
        self._stopped = True
        for task in self._running.values():
            if task is not None:
                task.cancel()

    async def _run(self, doing: str, companion: Callable[[], Awaitable[object]]) -> None:
        try:
            await companion()
        except Exception as exc:  # noqa: BLE001 - told to on_error
            self._on_error(bare(exc) or exc, doing)
        except self._loop.cancelled as exc:
            # Where all tasks are cancelled, the stream's own may come later.
            for _ in range(CANCELLATION_TURNS if self._loop.is_cancelled() and not self._stopped else 0):
                await self._loop.checkpoint()
            if self._stopped:
                raise
            what = f"the task of {doing}" if self._loop.is_cancelled() else f"what {doing} waited for"
            self._on_error(foreign_cancellation(what, exc), doing)
        finally:
            del self._running[doing]
