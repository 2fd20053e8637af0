"""A reader's cursor in the log: live delivery, replay, lag and reset are the same thing at different distances."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from types import TracebackType
from typing import Any, Literal, Self

from starlette_sse.broker.base import Backend, Entry, Gap, frame_of
from starlette_sse.broker.channel import PULL_SIZE, Channel
from starlette_sse.broker.cursor import Position, ResetReason
from starlette_sse.broker.log import Log, merged
from starlette_sse.eventloop import EventLoop, Waiter
from starlette_sse.events import ServerSentEvent, as_event
from starlette_sse.exceptions import BrokerError, BrokerUnavailableError, InvalidEventError, SlowReaderError

__all__ = ["RESET_EVENT", "OnLag", "Snapshot", "Subscription"]

#: The name of the event that tells a client that its events are not complete.
RESET_EVENT = "stream-reset"

#: Seconds until a page that could not be read is asked for again, while the backend does not say that it is away.
RETRY = 0.5

#: The longest part of a client's id that a reset repeats.
ECHO = 64

OnLag = Literal["disconnect", "reset", "latest"]
Snapshot = Callable[[], Any]


class Cursor:
    """Where one subscription stands in one channel; it is ready, or it waits in the channel, or neither."""

    __slots__ = ("channel", "index", "subscription")

    def __init__(self, subscription: Subscription, channel: Channel) -> None:
        self.subscription = subscription
        self.channel = channel
        self.index = 0

    def ready(self) -> None:
        self.subscription.has_news(self)


class Subscription(AsyncIterator[Entry]):
    """What one reader gets of some channels: every event, in order, each once.

    Made by :meth:`Broker.subscribe <starlette_sse.Broker.subscribe>`; enter it, and let one task read it, either by
    ``async for entry in subscription`` or by :meth:`pull`. It holds a cursor and no queue.
    """

    __slots__ = (
        "_admit",
        "_after",
        "_aside",
        "_at",
        "_backend",
        "_backlog",
        "_cursors",
        "_epoch",
        "_errand",
        "_failure",
        "_idle",
        "_interrupted",
        "_log",
        "_loop",
        "_notify",
        "_on_lag",
        "_owing",
        "_ready",
        "_resting",
        "_seq",
        "_served",
        "_snapshot",
        "_snapshot_due",
        "_waiter",
        "channels",
        "delivered",
    )

    _loop: EventLoop
    _waiter: Waiter
    _notify: Callable[[], None]

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
        #: The channels' names.
        self.channels = channels
        #: How many events were read.
        self.delivered = 0
        self._log = log
        self._backend = backend
        self._admit = admit
        self._after = after
        self._on_lag = on_lag
        self._snapshot = snapshot
        self._cursors: list[Cursor] = []
        self._ready: list[Cursor] = []
        # Everything up to here was taken off the log; what of it waits in the backlog was not delivered yet.
        self._epoch, self._seq = "", 0
        self._backlog: list[Entry] = []
        self._at = Position("", 0)
        # Off the live path: something waits that comes before the log's next events.
        self._aside = True
        self._errand: Callable[[], Awaitable[None]] | None = None
        self._interrupted: ResetReason | None = None
        self._failure: Exception | None = BrokerError("enter the subscription first: async with subscription: ...")
        self._snapshot_due = False
        # A reset or a snapshot that the reader does not have yet.
        self._owing = False
        # A page or a live event was had: what is missed from now on is the reader's own slowness.
        self._served = False
        # Whether a reader waits, and nobody has told it yet that there is something.
        self._resting = self._idle = False

    # Its life

    async def __aenter__(self) -> Self:
        if self._cursors:
            raise BrokerError("a subscription is entered once; subscribe again for another reader")
        self._loop = await self._admit()
        self._waiter = self._loop.waiter()
        self._notify = self._waiter.wake
        self._cursors = [Cursor(self, self._log.channel(name, None)) for name in self.channels]
        for cursor in self._cursors:
            cursor.channel.readers += 1
        self._log.subscribers[self] = None
        try:
            await self._backend.listen(self.channels)
        except BaseException:
            self._leave()
            raise
        self._begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def position(self) -> str:
        """The id up to which everything was read: a client that is told it can resume behind it."""
        if self._aside or self._ready:
            return str(self._at if self._aside else Position(self._epoch, self._seq))
        return str(Position(self._log.epoch, max(self._seq, self._log.seen)))

    @property
    def resume_id(self) -> str | None:
        """The id that a client may be given now, in an opening frame or a ping, to resume behind it.

        None while a reset or a snapshot comes first: that brings the id, when the client has it all.
        """
        return None if self._owing or self._interrupted else self.position

    # Reading

    async def pull(self) -> bytes:
        """Wait for frames and return those that are ready, joined, about 64 KiB at most.

        :returns: ``b""`` after :meth:`wake` without any, or when there is something else to look at first.
        :raises SlowReaderError: the reader was slower than retention, with ``on_lag="disconnect"``.
        :raises BrokerClosedError: the broker was closed.
        """
        ready = self._ready
        if not ready and not self._aside:
            await self._rest()
        if self._aside:
            return await self._pull_aside()
        return self._take_ready() if ready else b""

    def take(self) -> bytes:
        """Return the frames that a waiting :meth:`pull` would, and leave it waiting; for who was notified.

        :returns: ``b""`` if nobody waits, or there is something that only :meth:`pull` can do.
        """
        if not self._resting or self._aside or not self._ready:
            return b""
        frame = self._take_ready()
        self._idle = not self.has_more
        return frame

    @property
    def has_more(self) -> bool:
        """Whether :meth:`pull` would not wait."""
        return bool(self._ready) or self._aside

    def notify(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` instead of waking :meth:`pull` when frames are ready; call it once entered."""
        self._notify = callback

    def _take_ready(self) -> bytes:
        ready = self._ready
        if len(ready) == 1:
            cursor = ready[0]
            channel = cursor.channel
            if cursor.index + 1 == channel.end:
                entry = channel.entries[-1]
                if entry.seq > self._seq:
                    cursor.index = channel.end
                    ready.clear()
                    channel.waiting[cursor] = None
                    self._seq = entry.seq
                    self.delivered += 1
                    return entry.frame
            return self._take_joined(cursor)
        return self._join_taken()

    def wake(self) -> None:
        """Make a waiting :meth:`pull` return; call it in the subscription's event loop."""
        self._waiter.wake()

    async def __anext__(self) -> Entry:
        while not self._backlog:
            if not self._ready and not self._aside:
                await self._rest()
            if self._aside:
                await self._step_aside()
            elif self._ready:
                self._at = Position(self._epoch, self._seq)
                self._backlog.extend(self._take_entries())
        entry = self._next_of_backlog()
        self._come_back()
        return entry

    # What the log tells

    def has_news(self, cursor: Cursor) -> None:
        """Take note that a channel has an event; called once until everything was read."""
        self._ready.append(cursor)
        if self._idle:
            self._idle = False
            self._notify()

    def interrupt(self, reason: ResetReason) -> None:
        """Take note that continuity is broken: the reader gets one reset."""
        self._stop_waiting()
        self._interrupted = reason
        self._aside = True
        self.wake()

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
        self._epoch, self._seq = self._at
        after = None if not self._after else Position.parse(self._after)
        if not self._after:
            self._snapshot_due = self._owing = self._snapshot is not None
            self._resume()
        elif after is None:
            self._reset(ResetReason.MALFORMED, self._after)
        else:
            self._at = after
            self._epoch, self._seq = after
            self._resume(proven=False)
        self._log.tally.subscribed(self.channels, self.position)

    def _resume(self, *, proven: bool = True) -> None:
        """Read on from where the subscription is: in the log if that reaches back so far, else in the backend."""
        self._errand = None
        if self._snapshot_due:
            self._errand = self._take_snapshot
        elif self._in_log(proven=proven):
            self._settle(self._seq)
        else:
            self._errand = self._catch_up
        self._aside = bool(self._errand or self._backlog or self._interrupted or self._failure)

    def _in_log(self, *, proven: bool) -> bool:
        position = Position(self._epoch, self._seq)
        floors = [cursor.channel.floor for cursor in self._cursors]
        return (
            self._log.knows(position)
            and (proven or position.seq <= self._log.seen)
            and all(floor is not None and floor <= position.seq for floor in floors)
        )

    def _newest(self) -> Position:
        floors = [cursor.channel.floor or 0 for cursor in self._cursors]
        return Position(self._log.epoch, max(self._log.seen, *floors))

    def _settle(self, seq: int) -> None:
        self._stop_waiting()
        self._epoch, self._seq = self._log.epoch, seq
        for cursor in self._cursors:
            cursor.index = cursor.channel.index_after(seq)
            self._register(cursor)

    def _register(self, cursor: Cursor) -> None:
        if cursor.index < cursor.channel.end:
            self._ready.append(cursor)
        else:
            cursor.channel.waiting[cursor] = None

    def _stop_waiting(self) -> None:
        for cursor in self._cursors:
            cursor.channel.waiting.pop(cursor, None)
        self._ready.clear()

    def _leave(self) -> None:
        self._stop_waiting()
        self._log.subscribers.pop(self, None)
        for cursor in self._cursors:
            cursor.channel.readers -= 1
            if not cursor.channel.readers:
                self._backend.unlisten(cursor.channel.name)
        self._backlog.clear()
        self._failure = BrokerError("the subscription has ended")
        self._aside = True

    # The live path

    async def _rest(self) -> None:
        if self._resting:
            raise BrokerError("two tasks read one subscription; subscribe once for each")
        self._resting = self._idle = True
        try:
            await self._waiter.wait()
        finally:
            self._resting = self._idle = False

    def _take_joined(self, cursor: Cursor) -> bytes:
        """Take what is ready of the only channel that has news."""
        channel, index = cursor.channel, cursor.index
        if index < channel.first:
            self._fall_behind()
            return b""
        if channel[index].seq <= self._seq:
            # Read from the backend before it came here.
            index = channel.index_after(self._seq)
        frames, cursor.index = channel.joined(index)
        if cursor.index > index:
            self._seq = channel[cursor.index - 1].seq
            self.delivered += cursor.index - index
        self._ready.clear()
        self._register(cursor)
        return frames

    def _join_taken(self) -> bytes:
        entries = self._take_entries()
        self.delivered += len(entries)
        return b"".join([entry.frame for entry in entries])

    def _take_entries(self) -> list[Entry]:
        """Take what is ready of all channels, in the log's order."""
        ready = self._ready.copy()
        if any(cursor.index < cursor.channel.first for cursor in ready):
            self._fall_behind()
            return []
        stretches = [cursor.channel.since(cursor.index) for cursor in ready]
        entries, _ = merged(stretches, [cursor.channel.top for cursor in ready], self._log.seen, PULL_SIZE)
        entries = [entry for entry in entries if entry.seq > self._seq]
        self._seq = max(self._seq, entries[-1].seq if entries else 0)
        self._ready.clear()
        for cursor in ready:
            cursor.index = cursor.channel.index_after(self._seq)
            self._register(cursor)
        return entries

    def _fall_behind(self) -> None:
        self._stop_waiting()
        self._at = Position(self._epoch, self._seq)
        self._served = True
        self._errand = self._catch_up
        self._aside = True

    # Aside from it

    async def _pull_aside(self) -> bytes:
        await self._step_aside()
        frames: list[bytes] = []
        size = 0
        while self._backlog and (not frames or size + len(self._backlog[0].frame) <= PULL_SIZE):
            frames.append(self._next_of_backlog().frame)
            size += len(frames[-1])
        self._come_back()
        return b"".join(frames)

    async def _step_aside(self) -> None:
        """Do one thing that comes before the live path; what it brings is in the backlog."""
        if self._failure is not None:
            raise self._failure
        if self._interrupted is not None:
            reason, self._interrupted = self._interrupted, None
            self._reset(reason, str(self._at))
        elif not self._backlog and self._errand is not None:
            await self._errand()

    def _next_of_backlog(self) -> Entry:
        entry = self._backlog.pop(0)
        if entry.epoch:
            self._at = Position(entry.epoch, entry.seq)
            self._owing = False
        self.delivered += 1
        return entry

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
            return self._bridge(page)
        self._served = True
        self._epoch, self._seq = page.upto
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

    def _requested(self) -> str:
        return str(Position(self._epoch, self._seq))

    def _holds_newest(self) -> bool:
        return self._log.knows(Position(self._epoch, self._seq)) and all(
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
        self._epoch, self._seq = newest
        body = ServerSentEvent(
            {
                "reason": reason.value,
                "requested": requested[:ECHO],
                "oldest": None if oldest is None else str(oldest),
                "newest": str(newest),
            },
            event=RESET_EVENT,
        ).encode()
        self._snapshot_due = self._snapshot is not None
        # With a snapshot to come the id follows that: a client that is cut off in between asks for both again.
        self._backlog.append(told(body) if self._snapshot_due else told(frame_of(str(newest), body), newest))
        self._owing = True
        self._log.tally.reset(self.channels, reason.value)
        self._resume()

    async def _take_snapshot(self) -> None:
        if self._snapshot is None:
            return
        frames = [frame_without_id(item) for item in await items_of(self._snapshot())]
        position = Position(self._epoch, self._seq)
        end = ServerSentEvent(id=str(position)).encode()
        frames[-1:] = [b"".join([*frames[-1:], end])]
        self._backlog.extend(map(told, frames[:-1]))
        self._backlog.append(told(frames[-1], position))
        self._snapshot_due = False
        self._resume()


def told(frame: bytes, position: Position | None = None) -> Entry:
    """Return what the broker itself tells a reader."""
    epoch, seq = position or ("", 0)
    return Entry(channel="", epoch=epoch, seq=seq, prev=seq, frame=frame)


def frame_without_id(item: Any) -> bytes:
    """Return the frame of an event in a snapshot; the client's id moves when it has all of it."""
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    event = as_event(item)
    if event.id is not None:
        raise InvalidEventError(f"an event in a snapshot has the id {event.id!r}, but ids belong to the log")
    return event.encode()


async def items_of(result: Any) -> list[Any]:
    """Return the events that a snapshot has given: one, none, an iterable or an async iterable of them."""
    if isawaitable(result):
        result = await result
    if result is None:
        return []
    if isinstance(result, AsyncIterable):
        return [item async for item in result]
    if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
        return [result]
    return list(result)
