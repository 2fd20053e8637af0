"""A reader's cursor in the log: live delivery, replay, lag and reset are the same thing at different distances."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from starlette_sse.broker.base import Backend
from starlette_sse.broker.channel import PULL_SIZE
from starlette_sse.broker.entries import Entry, Gap
from starlette_sse.broker.live import Cursor, LiveReader
from starlette_sse.broker.log import Log, merged
from starlette_sse.broker.positions import Position, ResetReason
from starlette_sse.broker.resets import reset, snapshot_of
from starlette_sse.eventloop import EventLoop
from starlette_sse.exceptions import BrokerError, BrokerUnavailableError, SlowReaderError

__all__ = ["OnLag", "Snapshot", "Subscription"]

#: Seconds until a page that could not be read is asked for again, while the backend does not say that it is away; and
#: from one reset to the next, if nothing could be delivered in between.
RETRY = 0.5

OnLag = Literal["disconnect", "reset", "latest"]
Snapshot = Callable[[], Any]


class Subscription(LiveReader, AsyncIterator[Entry]):
    """What one reader gets of some channels: every event, in order, each once.

    Made by :meth:`Broker.subscribe <starlette_sse.Broker.subscribe>`; enter it, and let one task read it, either by
    ``async for entry in subscription`` or by :meth:`pull`. It holds a cursor and no queue. Besides those an app may ask
    for :attr:`channels`, :attr:`position` and :attr:`delivered`; the rest is for the stream that sends what it brings.
    """

    __slots__ = (
        "_admit",
        "_after",
        "_at",
        "_backend",
        "_backlog",
        "_entered",
        "_errand",
        "_failure",
        "_had",
        "_interrupted",
        "_on_lag",
        "_owing",
        "_reset_at",
        "_reset_to",
        "_served",
        "_snapshot",
        "_snapshot_due",
        "_told_epoch",
        "channels",
    )

    def __init__(
        self,
        log: Log,
        backend: Backend,
        admit: Callable[[], Awaitable[EventLoop]],
        channels: Sequence[str],
        *,
        after: str | None,
        on_lag: OnLag,
        snapshot: Snapshot | None,
    ) -> None:
        super().__init__(log)
        #: The channels' names.
        self.channels = channels
        self._backend = backend
        self._admit = admit
        self._after = after
        self._on_lag = on_lag
        self._snapshot = snapshot
        # Taken off the log or the backend, and not delivered yet.
        self._backlog: list[Entry] = []
        self._at = Position("", 0)
        self._errand: Callable[[], Awaitable[None]] | None = None
        self._interrupted: ResetReason | None = None
        self._failure: Exception | None = BrokerError("enter the subscription first: async with subscription: ...")
        self._snapshot_due = False
        # A reset or a snapshot that the reader does not have yet.
        self._owing = False
        # When the last reset was, and the number that it left the reader at.
        self._reset_at, self._reset_to = 0.0, -1
        # The epoch of that, or of the id that the reader came with: what was lost before is known to it.
        self._told_epoch = ""
        # What was not heard up to here is not missing: it began or was reset there, or has read it from the backend.
        self._had = -1
        # A page or a live event was had: what is missed from now on is the reader's own slowness.
        self._served = False
        self._entered = False

    # Its life

    async def __aenter__(self) -> Self:
        return await self.enter()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    async def enter(self) -> Self:
        """Begin to read, as ``async with`` does; :meth:`leave` must follow."""
        if self._entered:
            raise BrokerError("a subscription is entered once; subscribe again for another reader")
        self._loop = await self._admit()
        self._entered = True
        self._waiter = self._loop.waiter()
        self._notify = self._waiter.wake
        self._cursors = [Cursor(self, self._log.channel(name, None)) for name in self.channels]
        for cursor in self._cursors:
            cursor.channel.readers += 1
        self._log.subscribers[self] = None
        try:
            await self._backend.listen(self.channels)
        except BaseException:
            self.leave()
            raise
        self._begin()
        return self

    def leave(self) -> None:
        """Read no more; what was never entered has nothing to leave."""
        if not self._entered:
            return
        self._stop_waiting()
        self._log.subscribers.pop(self, None)
        for cursor in self._cursors:
            cursor.channel.readers -= 1
            if not cursor.channel.readers:
                self._backend.unlisten(cursor.channel.name)
        # Without cycles all of it is freed at once.
        self._cursors.clear()
        self._notify, self._lane = self._waiter.wake, None
        self._backlog.clear()
        self._failure = self._failure or BrokerError("the subscription has ended")
        self._aside = True

    @property
    def position(self) -> str:
        """The id up to which everything was read: a client that is told it can resume behind it."""
        if self._aside or any(cursor.index < cursor.channel.end for cursor in self._cursors):
            return str(self._at if self._aside else self._live_position)
        # What was said is not taken back when the next event is on its way.
        self._epoch, self._seq = self._log.epoch, max(self._seq, self._log.seen)
        return str(self._live_position)

    def kept_of(self, position: Position) -> int:
        """Return up to which number the log has kept what came before a position in an earlier one."""
        return min(position.seq, self._log.ancestors.get(position.epoch, 0))

    @property
    def _live_position(self) -> Position:
        # The log's epoch may have changed meanwhile, and its numbers go on.
        return Position(self._log.epoch, self._seq)

    @property
    def resume_id(self) -> str | None:
        """The id that a client may be given now, in an opening frame or a ping, to resume behind it.

        None while a reset or a snapshot comes first: that brings the id, when the client has it all.
        """
        return None if self._owing or self._interrupted else self.position

    # Reading

    async def __anext__(self) -> Entry:
        while not self._backlog:
            if not self._ready and not self._aside:
                await self._rest()
            if self._aside:
                await self._step_aside()
            elif self._ready:
                self._at = self._live_position
                self._backlog.extend(self._take_entries())
        return self._take_backlog(0)[0]

    # What the log tells

    def interrupt(self, reason: ResetReason) -> None:
        """Take note that continuity is broken: the reader gets one reset."""
        if not self._aside:
            self._at = Position(self._epoch, self._seq)
        self._stop_waiting()
        self._interrupted = reason
        self._aside = True
        self.wake()

    def miss(self, seq: int) -> None:
        """Take note that events up to a number were not heard: it has read them elsewhere, or continuity is broken."""
        if self._had < seq:
            self.interrupt(ResetReason.LOST)
        elif not self._aside:
            # Its place in the channel was cleared away.
            self._settle(self._seq)
            self.wake()

    def reads_in(self, epoch: str) -> bool:
        """Tell whether it has been told of this epoch already, here or where its id is from."""
        return self._aside and self._interrupted is None and self._told_epoch == epoch

    def fail(self, error: Exception) -> None:
        """Make the reader get ``error``."""
        self._stop_waiting()
        self._failure = error
        self._aside = True
        self.wake()

    # Beginning and going on

    def _begin(self) -> None:
        self._interrupted = self._failure = None
        self._at = self._newest()
        self._stand_at(self._at)
        after = None if not self._after else Position.parse(self._after)
        if not self._after:
            self._snapshot_due = self._owing = self._snapshot is not None
            self._resume()
        elif after is None:
            self._reset(ResetReason.MALFORMED, self._after)
        else:
            self._at = after
            self._epoch, self._seq = after
            self._told_epoch, self._had = after.epoch, -1
            self._resume(proven=False)
        self._log.tally.subscribed(self)

    def _resume(self, *, proven: bool = True) -> None:
        """Read on from where the subscription is: in the log if that reaches back so far, else in the backend."""
        self._errand = None
        if self._snapshot_due:
            self._errand = self._take_snapshot
        elif self._in_log(proven=proven):
            self._settle(self._seq)
        else:
            self._errand = self._catch_up
        self._come_back()

    def _in_log(self, *, proven: bool) -> bool:
        seq = self._seq
        if not self._log.knows(self._epoch, seq) or not (proven or seq <= self._log.seen):
            return False
        return not any(cursor.channel.floor is None or cursor.channel.floor > seq for cursor in self._cursors)

    def _stand_at(self, position: Position) -> None:
        """Go on from a position up to which the reader has, or will be given, all that it is owed."""
        self._epoch, self._seq = position
        self._had = position.seq

    def _newest(self) -> Position:
        floors = [cursor.channel.floor or 0 for cursor in self._cursors]
        return Position(self._log.epoch, max(self._log.seen, *floors))

    def _fall_behind(self) -> None:
        self._stop_waiting()
        self._at = self._live_position
        self._epoch, self._seq = self._at
        self._served = True
        self._errand = self._catch_up
        self._aside = True

    # Aside from it

    async def _pull_aside(self) -> bytes:
        await self._step_aside()
        return b"".join([entry.frame for entry in self._take_backlog(PULL_SIZE)])

    async def _step_aside(self) -> None:
        """Do one thing that comes before the live path; what it brings is in the backlog."""
        if self._failure is not None:
            raise self._failure
        if self._interrupted is not None:
            # What nobody has taken yet is replaced.
            if self._was_just_reset() and not self._backlog:
                return await self._rest_until_retry()
            reason, self._interrupted = self._interrupted, None
            self._reset(reason, str(self._at))
        elif not self._backlog and self._errand is not None:
            await self._errand()
        return None

    def _take_backlog(self, limit: int) -> list[Entry]:
        """Take the entries that come first: one if there is any, and more up to ``limit`` bytes."""
        count = size = 0
        for entry in self._backlog:
            size += len(entry.frame)
            if count and size > limit:
                break
            count += 1
            if entry.epoch:
                self._at = Position(entry.epoch, entry.seq)
                self._owing = False
        taken, self._backlog = self._backlog[:count], self._backlog[count:]
        self.delivered += count
        self._come_back()
        return taken

    def _come_back(self) -> None:
        self._aside = bool(self._backlog or self._errand or self._interrupted or self._failure)

    async def _catch_up(self) -> None:
        """Read one page from the backend, at the pace of the reader."""
        if self._log.error is not None:
            return await self._rest()
        try:
            page = await self._backend.read(self.channels, Position(self._epoch, self._seq), PULL_SIZE)
        except BrokerUnavailableError:
            return await self._rest_until_retry()
        if self._interrupted is not None or self._failure is not None:
            return None
        if isinstance(page, Gap):
            # A log that is lost again and again would be told as fast as it can be asked, each time with a snapshot.
            return await self._rest_until_retry() if self._was_just_reset() else self._bridge(page)
        self._served = True
        self._stand_at(page.upto)
        self._backlog.extend(page.entries)
        self._resume()
        if self._errand is not None and not page.entries:
            # The backend is another log than the one that is held here, which is about to learn that.
            await self._rest_until_retry()
        return None

    async def _rest_until_retry(self) -> None:
        alarm = self._loop.call_at(self._loop.time() + RETRY, self.wake)
        try:
            await self._rest()
        finally:
            alarm.cancel()

    def _bridge(self, gap: Gap) -> None:
        if gap.reason is not ResetReason.EVICTED:
            self._reset(gap.reason, self._requested(), gap)
        elif self._on_lag == "latest" and self._holds_newest():
            self._log.tally.lagged(self.channels, self._on_lag)
            self._errand = self._conflate
        elif not self._served:
            self._reset(gap.reason, self._requested(), gap)
        elif self._on_lag == "disconnect":
            self._log.tally.lagged(self.channels, self._on_lag)
            self._failure = SlowReaderError(
                f"the reader was slower than the broker's retention: what follows {self._requested()} has left the log"
            )
            raise self._failure
        else:
            self._log.tally.lagged(self.channels, self._on_lag)
            self._reset(ResetReason.LAGGED, self._requested(), gap)

    def _was_just_reset(self) -> bool:
        return self._seq == self._reset_to and self._loop.time() < self._reset_at + RETRY

    def _requested(self) -> str:
        return str(Position(self._epoch, self._seq))

    def _holds_newest(self) -> bool:
        return self._log.knows(self._epoch, self._seq) and all(
            cursor.channel.floor is not None and cursor.channel.lost <= self._seq for cursor in self._cursors
        )

    async def _conflate(self) -> None:
        """Take the newest event of each key instead of all of them, until the reader is at the log's end."""
        if not self._holds_newest():
            return self._reset(ResetReason.LAGGED, self._requested())
        stretches = [cursor.channel.current(self._seq) for cursor in self._cursors]
        entries, upto = merged(stretches, [0] * len(stretches), self._log.seen, PULL_SIZE)
        self._backlog.extend(entries)
        self._seq = max(self._seq, upto)
        if upto >= self._log.seen:
            self._resume()
        return None

    def _reset(self, reason: ResetReason, requested: str, gap: Gap | None = None) -> None:
        """Tell the reader that its events are not complete, and go on from the log's end."""
        self._stop_waiting()
        self._backlog.clear()
        newest = self._newest() if gap is None else gap.newest
        oldest = self._log.gap(self.channels, reason).oldest if gap is None else gap.oldest
        self._stand_at(newest)
        self._reset_at, self._reset_to, self._told_epoch = self._loop.time(), newest.seq, newest.epoch
        self._snapshot_due = self._snapshot is not None
        # With a snapshot to come the id follows that: a client that is cut off in between asks for both again.
        self._backlog.append(reset(reason, requested, oldest, newest, moves=not self._snapshot_due))
        self._owing = True
        self._log.tally.reset(self.channels, reason.value)
        self._resume()

    async def _take_snapshot(self) -> None:
        if self._snapshot is None:
            return
        self._backlog.extend(await snapshot_of(self._snapshot(), Position(self._epoch, self._seq)))
        self._snapshot_due = False
        self._resume()
