"""Running a user's iterator: alone in a task of its own, and closed however its stream ends.

The framework enters and leaves no cancel scope between an async generator's steps and its ``aclose()``, so a
generator may hold a task group or a timeout open across a ``yield``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from enum import Enum, auto
from typing import Any

from starlette_sse.eventloop import EventLoop, Shelter
from starlette_sse.events import Fragment, OpenEvent
from starlette_sse.streams.causes import foreign_cancellation, genuine
from starlette_sse.streams.writers import FrameWriter

__all__ = ["Producer", "forget"]

#: Seconds that one iterator may keep the event loop to itself by never waiting.
LONGEST_TURN = 0.002

#: The same as a number of events, for a clock that stands still; a mask.
MOST_EVENTS = 0xFF

#: An event loop runs a new task in its next turn, or the one after; one that has not begun by then never will.
BEGINNING_TURNS = 10


class Phase(Enum):
    """Where a producer is."""

    NEW = auto()
    PULLING = auto()
    DELIVERING = auto()
    CLOSING = auto()
    DONE = auto()


class Producer:
    """Pulls events one at a time, each sent before the next is pulled.

    :param iterator: the user's; it is closed when the producer ends, if it has an ``aclose``.
    :param encode: makes a frame of what the iterator yields.
    :param on_moved: called with the producer when the iterator has failed, and when nothing is left to clean up.
    :param on_sent: called with the size of each frame after it was sent, if anybody wants to know.
    """

    __slots__ = (
        "_encode",
        "_fragments",
        "_iterator",
        "_loop",
        "_on_moved",
        "_on_sent",
        "_open_before",
        "_open_event",
        "_phase",
        "_shelter",
        "_stopping",
        "_turn",
        "_undeliverable",
        "_writer",
        "cancelled",
        "error",
        "produced",
        "unused",
    )

    def __init__(
        self,
        loop: EventLoop,
        iterator: AsyncIterator[Any],
        encode: Callable[[Any], bytes],
        writer: FrameWriter,
        on_moved: Callable[[Producer], None],
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
        self._loop = loop
        self._iterator = iterator
        self._encode = encode
        self._writer = writer
        self._on_moved = on_moved
        self._on_sent = on_sent
        self._shelter = Shelter(loop)
        self._phase = Phase.NEW
        self._stopping = False
        self._turn = -1.0
        self._undeliverable = False
        # The events that the last fragment leaves open, and left open before, and how many items are sent with it.
        self._open_event: OpenEvent | None = None
        self._open_before: OpenEvent | None = None
        self._fragments = 0
        #: How many events were sent.
        self.produced = 0
        #: What ended the iterator, and then its cleanup, other than being stopped.
        self.error: BaseException | None = None
        #: Whether that was somebody who cancelled the task.
        self.cancelled = False
        #: Whether the task never ran.
        self.unused = False

    @property
    def begun(self) -> bool:
        """Whether the iterator has taken its first step, up to where it waits or fails."""
        return self._phase is not Phase.NEW

    @property
    def done(self) -> bool:
        """Whether the iterator is closed."""
        return self._phase is Phase.DONE

    async def run(self) -> None:  # noqa: C901, PLR0912, PLR0915 - one coroutine, as it says
        """Run the iterator to its end; an error of the user's is left in :attr:`error`.

        All of it is one coroutine, as each stream holds it and each event passes it.
        """
        advance, encode, writer, on_sent = self._iterator.__anext__, self._encode, self._writer, self._on_sent
        pulling, delivering = Phase.PULLING, Phase.DELIVERING
        send, put, time = writer.send, writer.shortcut, self._loop.time
        check_at, produced = time() + LONGEST_TURN, 0
        interrupted: BaseException | None = None
        with self._shelter:
            while True:
                try:
                    while not self._stopping:
                        self._phase = pulling
                        if interrupted is None:
                            item = await advance()
                        else:
                            thrown, interrupted = interrupted, None
                            try:
                                item = await self._iterator.athrow(thrown)  # type: ignore[attr-defined]
                            finally:
                                # Its traceback holds what was being sent.
                                del thrown
                        self._phase = delivering
                        frame = encode(item)
                        if type(frame) is Fragment:
                            self._note_fragment(frame)
                        size = len(frame)
                        if self._undeliverable or writer.sending_since is not None:
                            if not await self._gets_turn():
                                break
                            frame = writer.after_opening(frame)
                        # What writer.write() does, in place: the calls would be a tenth of what an event takes.
                        writer.sending_since = writer.last_write = now = time()
                        try:
                            if put is None or not put(frame):
                                await send({"type": "http.response.body", "body": frame, "more_body": True})
                            writer.bytes_sent += size
                        except Exception as exc:  # noqa: BLE001 - told to on_gone
                            writer.on_gone(exc)
                        finally:
                            if writer.next is None:
                                writer.sending_since = None
                            else:
                                writer.end_turn()
                        produced += 1
                        self.produced = produced
                        if on_sent is not None:
                            on_sent(size)
                        if now >= check_at or not produced & MOST_EVENTS:
                            check_at, send, put = now + LONGEST_TURN, writer.send, writer.shortcut
                            await self._let_others_run(now)
                        # Or a stream that waits would hold what it sent last.
                        del item, frame
                except BaseException as exc:  # noqa: BLE001 - sorted out by what it holds
                    if self._is_the_iterators(exc):
                        # It is raised at the yield, as it would be where the iterator waits.
                        interrupted = exc
                        # A fragment may have been sent.
                        self._fragments = min(self._fragments, produced)
                        continue
                    self._note(exc)
                break
            await self._end()

    async def first_step(self) -> None:
        """Wait until the iterator has taken its first step, unless the task was cancelled before."""
        turns = 0
        while not self.begun and turns < BEGINNING_TURNS:
            turns += 1
            await self._loop.checkpoint()
        if not self.begun:
            self._never_ran()

    def _never_ran(self) -> None:
        """Take note that the task was cancelled before its first step; :meth:`close_unused` is left to do."""
        self._phase, self.cancelled, self.unused = Phase.DONE, True, True
        self.error = foreign_cancellation("the task of events")
        self._on_moved(self)
        self._on_moved = forget

    async def close_unused(self) -> None:
        """Close the iterator of a task that never ran."""
        close = getattr(self._iterator, "aclose", None)
        if self.unused and close is not None:
            await close()

    def stop(self) -> None:
        """Pull no more: interrupt the iterator where it waits, or close it once its item is delivered."""
        if not self._stopping:
            self._stopping = True
            self._shelter.interrupt(lambda: self._phase is Phase.PULLING)

    def stop_delivery(self) -> None:
        """Interrupt the delivery of an item as well, and deliver no more."""
        if not self._undeliverable:
            self._undeliverable = True
            self._shelter.interrupt(lambda: self._phase is Phase.DELIVERING)

    def pass_turn(self) -> None:
        """Let go on what waits for its turn, when nobody else writes any more; :meth:`stop` was called before.

        Behind a shield that the iterator holds open across its ``yield`` it hears of nothing else.
        """
        if self._writer.next is not None:
            self._writer.end_turn()

    def cut(self) -> None:
        """Cancel whatever still runs, for good."""
        self._shelter.cut()

    @property
    def open_event(self) -> OpenEvent | None:
        """The event that what was sent last leaves open, so that nothing else may come behind it."""
        if self._fragments > self.produced:
            # It waits for its turn.
            return self._open_before
        return self._open_event if self._fragments == self.produced else None

    def _note_fragment(self, fragment: Fragment) -> None:
        self._open_event = self._open_before = self.open_event
        if fragment:
            self._open_event = (self._open_before or OpenEvent()).then(fragment)
        self._fragments = self.produced + 1

    def _is_the_iterators(self, error: BaseException) -> bool:
        """Tell whether a cancellation met a delivery that is of a timeout held open across the ``yield``."""
        wanted = self._stopping or self._undeliverable
        cancelled = self._phase is Phase.DELIVERING and isinstance(error, self._loop.cancelled)
        return cancelled and not wanted and hasattr(self._iterator, "athrow")

    async def _let_others_run(self, now: float) -> None:
        """Wait for a turn of the event loop, unless that has turned since this was called before."""
        last_turn, self._turn = self._turn, self._loop.turn(now)
        if self._turn == last_turn:
            await self._loop.checkpoint()

    async def _gets_turn(self) -> bool:
        if self._undeliverable:
            return False
        await self._writer.take_turn()
        if self._stopping:
            self._writer.end_turn()
        return not self._stopping

    def _note(self, error: BaseException) -> None:
        ran_out = isinstance(error, StopAsyncIteration) and self._phase is Phase.PULLING
        frame = getattr(self._iterator, "ag_frame", None)
        if self._phase is Phase.DELIVERING and frame is not None and isinstance(error, Exception):
            # The traceback of what cannot be encoded begins behind the generator.
            error.add_note(f'The yield of it: File "{frame.f_code.co_filename}", line {frame.f_lineno}')
        if isinstance(error, self._loop.cancelled) and not self._stopping:
            # Else a stream that broke off would look like one that has come to its end.
            self.cancelled = self._loop.is_cancelled()
            error = foreign_cancellation("the task of events" if self.cancelled else "what events waited for", error)
        if not ran_out:
            found = genuine(error, self._loop.cancelled)
            if found is not None and self._phase is Phase.CLOSING and not isinstance(error, self._loop.cancelled):
                self.cancelled = False
            self.error = found or self.error

    async def _end(self) -> None:
        try:
            self._phase = Phase.CLOSING
            if self.error is not None:
                self._on_moved(self)
            # An iterator that ran out may hold something too, as a channel's end does.
            close = getattr(self._iterator, "aclose", None)
            if close is not None:
                await close()
        except BaseException as exc:  # noqa: BLE001 - sorted out by what it holds
            self._note(exc)
        finally:
            self._phase = Phase.DONE
            self._on_moved(self)
            self._on_moved = forget


def forget(_: object) -> None:
    """Take the place of a callback into an object that ends: without cycles both are freed at once."""
