"""The live path of a reader: what it takes from the channels that are held here, as cheaply as can be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from starlette_sse.broker.channel import PULL_SIZE, Channel, Stretch
from starlette_sse.broker.entries import Entry
from starlette_sse.broker.log import Log, merged
from starlette_sse.eventloop import EventLoop, Waiter
from starlette_sse.exceptions import BrokerError

__all__ = ["Cursor", "LiveReader"]

#: The most channels whose reader is sent to without waking it: each event asks all of them what else is due.
MOST_FOLLOWED = 8


class Cursor:
    """Where one reader stands in one channel; it is ready, or it waits in the channel, or neither."""

    __slots__ = ("channel", "index", "reader")

    def __init__(self, reader: LiveReader, channel: Channel) -> None:
        self.reader = reader
        self.channel = channel
        self.index = 0

    def ready(self) -> None:
        """Take note that the channel has an event; called once until everything was read."""
        reader = self.reader
        # In place of a method of the reader's: it is done for each delivery.
        reader._ready.append(self)  # noqa: SLF001
        if reader.idle:
            reader.idle = False
            reader._notify()  # noqa: SLF001

    def follow(self, stretch: Stretch) -> bool:
        """Send what has come, if the reader waits for just that."""
        reader = self.reader
        start, end, first, last, frames = stretch
        lane, idle, seq = reader._lane, reader.idle, reader._seq  # noqa: SLF001
        # What was read from the backend may come here later.
        if lane is None or not idle or self.index != start or seq >= first:
            return False
        for other in reader._cursors:  # noqa: SLF001
            if other.index < other.channel.end and other is not self:
                # What is due from two channels has to be put in order.
                return False
        if not lane.offer(frames):
            return False
        reader._seq = last  # noqa: SLF001
        reader.delivered += end - start
        self.index = end
        return True


class Lane(Protocol):
    """A way to a reader's client that is often free."""

    def offer(self, frames: bytes) -> bool:
        """Send ``frames`` at once, or do nothing; tell which."""


class LiveReader(ABC):
    """A cursor in each of some channels, and one task that waits for news of any.

    What is not on the live path is up to the subclass: it sets ``_aside`` as long as something comes before that.
    """

    __slots__ = (
        "_aside",
        "_cursors",
        "_epoch",
        "_lane",
        "_log",
        "_loop",
        "_notify",
        "_ready",
        "_seq",
        "_waiter",
        "delivered",
        "idle",
        "resting",
    )

    _loop: EventLoop
    _waiter: Waiter
    _notify: Callable[[], None]

    def __init__(self, log: Log) -> None:
        #: How many events were read.
        self.delivered = 0
        self._log = log
        self._cursors: list[Cursor] = []
        # Those of them that have something.
        self._ready: list[Cursor] = []
        # Everything up to here was taken off the log.
        self._epoch, self._seq = "", 0
        # Off the live path: something waits that comes before the log's next events.
        self._aside = True
        self._lane: Lane | None = None
        #: Whether a reader waits that :meth:`wake` will make return.
        self.resting = False
        #: Whether it waits, and nobody has told it yet that there is something.
        self.idle = False

    async def pull(self) -> bytes:
        """Wait for frames and return those that are ready, joined, about 64 KiB at most.

        :returns: ``b""`` after :meth:`wake` without any, or when there is something else to look at first.
        :raises SlowReaderError: the reader was slower than retention, with ``on_lag="disconnect"``.
        :raises BrokerClosedError: the broker was closed.
        """
        ready = self._ready
        if not ready and not self._aside:
            # As _rest does, whose coroutine every stream would hold.
            self._begin_rest()
            try:
                await self._waiter.wait()
            finally:
                self.resting = self.idle = False
            if self._lane is not None and not self._aside:
                self._stop_following()
        if self._aside:
            return await self._pull_aside()
        return self._take_ready() if ready else b""

    def take(self) -> bytes:
        """Return the frames that a waiting :meth:`pull` would, and leave it waiting; for who was notified.

        :returns: ``b""`` if nobody waits, or there is something that only :meth:`pull` can do.
        """
        if not self.resting or self._aside or not self._ready:
            return b""
        frame = self._take_ready()
        self.idle = not self._ready and not self._aside
        return frame

    def notify(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` instead of waking :meth:`pull` when frames are ready; call it once entered."""
        self._notify = callback

    def send_by(self, lane: Lane) -> None:
        """Send by ``lane``, where it is free, what :meth:`pull` would wait for; call it once entered."""
        if len(self._cursors) > MOST_FOLLOWED:
            return
        self._lane = lane
        for cursor in self._cursors:
            if cursor in cursor.channel.waiting:
                del cursor.channel.waiting[cursor]
                self._await_more(cursor)

    def _take_ready(self) -> bytes:
        ready = self._ready
        if self._lane is not None and len(self._cursors) > 1:
            # What is about to be sent from other channels may be older.
            self._stop_following()
        if len(ready) == 1:
            cursor = ready[0]
            channel = cursor.channel
            if cursor.index + 1 == channel.end > channel.first:
                entry = channel.entries[-1]
                if entry.seq > self._seq:
                    cursor.index = channel.end
                    ready.clear()
                    self._await_more(cursor)
                    self._seq = entry.seq
                    self.delivered += 1
                    return entry.frame
            return self._take_joined(cursor)
        return self._join_taken()

    def wake(self) -> None:
        """Make a waiting :meth:`pull` return; call it in the subscription's event loop."""
        self._waiter.wake()

    @abstractmethod
    async def _pull_aside(self) -> bytes:
        """Do one thing that comes before the live path, and return what it brings."""

    @abstractmethod
    def _fall_behind(self) -> None:
        """Take note that events have left the log before they were read."""

    async def _rest(self) -> None:
        self._begin_rest()
        try:
            await self._waiter.wait()
        finally:
            self.resting = self.idle = False

    def _begin_rest(self) -> None:
        if self.resting:
            raise BrokerError("two tasks read one subscription; subscribe once for each")
        self.resting = self.idle = True

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
            self._await_more(cursor)

    def _await_more(self, cursor: Cursor) -> None:
        if self._lane is None:
            cursor.channel.waiting[cursor] = None
        else:
            cursor.channel.followers[cursor] = None

    def _stop_following(self) -> None:
        """Take what is about to be sent, as the reader is awake already."""
        for cursor in self._cursors:
            if cursor.index < cursor.channel.end and cursor in cursor.channel.followers:
                del cursor.channel.followers[cursor]
                self._ready.append(cursor)

    def _stop_waiting(self) -> None:
        for cursor in self._cursors:
            cursor.channel.waiting.pop(cursor, None)
            cursor.channel.followers.pop(cursor, None)
        self._ready.clear()
