"""The steps of a stream's end: each is taken whatever has happened before it, and in its own time."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import anyio

from starlette_sse.eventloop import EventLoop
from starlette_sse.streams.producers import Producer
from starlette_sse.streams.sources import FrameSource

__all__ = ["Steps"]

#: Seconds between cutting a generator that swallows the cut and giving up on it.
CUT_MARGIN = 1.0


class Steps:
    """Takes steps one after the other. What goes wrong in one is reported, and the next can be taken.

    :param report: called with an exception and the step that it comes from.
    """

    __slots__ = ("_loop", "_report", "interrupted")

    def __init__(self, loop: EventLoop, report: Callable[[BaseException, str], None]) -> None:
        self._loop = loop
        self._report = report
        #: What wanted to end the steps themselves, such as the server's cancellation; to be raised after the last.
        self.interrupted: BaseException | None = None

    def deadline(self, seconds: float | None) -> float:
        """Return when so many seconds are over; None: never."""
        return math.inf if seconds is None else self._loop.time() + seconds

    async def take(self, during: str, step: Callable[[], Awaitable[None]], deadline: float) -> bool:
        """Take a step that outer cancellation does not reach, and tell whether it was cut at its deadline."""
        cut = await self.take_in(self._loop.cancel_scope(deadline=deadline, shield=True), during, step)
        if cut:
            self.report_cut(during)
        return cut

    async def take_in(self, scope: anyio.CancelScope, during: str, step: Callable[[], Awaitable[None]]) -> bool:
        """Take a step in a cancel scope, and tell whether that has cut it."""
        try:
            with scope:
                await step()
        except Exception as exc:  # noqa: BLE001 - reported
            self._report(exc, during)
        except BaseException as exc:  # noqa: BLE001 - raised later
            self.interrupted = self.interrupted or exc
        return scope.cancelled_caught

    async def take_apart(self, during: str, step: Callable[[], Awaitable[None]], deadline: float) -> None:
        """Take a step as :meth:`take` does, but in a task of its own: asyncio's cancellation knows no shield."""
        begun = False

        async def run() -> None:
            nonlocal begun
            begun = True
            await self.take(during, step, deadline)

        try:
            async with self._loop.tasks() as tasks:
                tasks.start(run)
        except BaseException as exc:  # noqa: BLE001 - raised later
            self.interrupted = self.interrupted or exc
        if not begun:
            # Its task was cancelled before its first step, as at the end of an event loop.
            await run()

    async def close(self, producer: Producer, source: FrameSource, seconds: float | None) -> None:
        """Wait until a producer that was stopped is closed, and cut it when its time is over.

        :param source: the stream's, which the producer wakes when it is closed.
        """
        if not producer.begun:
            await self.take("events", producer.first_step, math.inf)
        if producer.unused:
            await self.take("events", producer.close_unused, self.deadline(seconds))
        if producer.done:
            return
        producer.pass_turn()
        producer.stop_delivery()
        if await self._outlasts(self.deadline(seconds), producer, source):
            producer.cut()
            await self._outlasts(self.deadline(CUT_MARGIN), producer, source)

    async def _outlasts(self, deadline: float, producer: Producer, source: FrameSource) -> bool:
        over = False

        def ring() -> None:
            nonlocal over
            over = True
            source.wake()

        async def closed() -> None:
            while not (producer.done or over):
                await source.pull()

        alarm = self._loop.call_at(deadline, ring) if deadline < math.inf else None
        try:
            await closed()
        except BaseException as exc:  # noqa: BLE001 - raised later
            self.interrupted = self.interrupted or exc
            # A shield costs more than all the rest of the wait, so it is raised for those that are cancelled. It keeps
            # scopes away, but not asyncio's own cancellation, which may come more than once.
            while not (producer.done or over):
                await self.take("events", closed, math.inf)
        finally:
            if alarm is not None:
                alarm.cancel()
        if over:
            self.report_cut("events")
        return over

    def report_cut(self, during: str) -> None:
        """Report that a step has taken too long."""
        self._report(TimeoutError(f"{during} was cut by its time limit"), during)
