"""The part of the log that this process holds: all that live readers need, fed by the backend."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Mapping
from itertools import count
from operator import attrgetter
from typing import Protocol

from starlette_sse.broker.channel import Channel
from starlette_sse.broker.entries import Entry, Gap, Page, Retention
from starlette_sse.broker.positions import Position, ResetReason
from starlette_sse.broker.tally import Tally
from starlette_sse.eventloop import Alarm, EventLoop
from starlette_sse.eventloop.sprints import Sprint

__all__ = ["Log", "Subscriber", "merged"]

#: Seconds after its time that an event is looked at, so that no rounding makes it too young by a hair.
LATE = 0.001


class Subscriber(Protocol):
    """Who reads some channels of the log."""

    @property
    def channels(self) -> Iterable[str]:
        """The channels' names."""

    def interrupt(self, reason: ResetReason) -> None:
        """Take note that continuity is broken; never blocks."""

    def reads_in(self, epoch: str) -> bool:
        """Tell whether it has been told of this epoch already, here or where its id is from."""

    def miss(self, seq: int) -> None:
        """Take note that events up to a number were not heard: it has read them elsewhere, or continuity is broken."""

    def wake(self) -> None:
        """Look again at what can be read."""

    def fail(self, error: Exception) -> None:
        """Raise ``error`` to whoever reads."""

    def leave(self) -> None:
        """Read no more."""


class Log:
    """Channels in one total order, each held as far back as retention says.

    A backend calls :meth:`begin`, :meth:`append`, :meth:`acknowledge`, :meth:`prove`, :meth:`lose`, :meth:`lost` and
    :meth:`found`, and :meth:`drop` or :meth:`tidy` for a channel that nobody reads, all in the event loop that the
    broker runs in.
    """

    def __init__(self, retention: Retention, tally: Tally) -> None:
        self.retention = retention
        self.tally = tally
        #: The log's name; empty until :meth:`begin`, and nobody reads before.
        self.epoch = ""
        #: Earlier epochs of this log, each with the last of its numbers that is still valid here.
        self.ancestors: Mapping[str, int] = {}
        #: Every event up to this number that a live channel has is here.
        self.seen = 0
        #: The newest number that this process knows of.
        self.newest = 0
        #: The newest event of any channel that is no longer held.
        self.floor = 0
        self.channels: dict[str, Channel] = {}
        self.subscribers: dict[Subscriber, None] = {}
        #: Why the backend cannot be reached, if it can't.
        self.error: BaseException | None = None
        self._lost_at = 0.0
        self._loop: EventLoop | None = None
        self._offset = 0.0
        self._alarm: Alarm | None = None
        # The channels whose ages are watched, by the time of what is oldest in each.
        self._oldest: list[tuple[float, int, Channel]] = []
        self._order = count()
        # How many of them were let go.
        self._dropped = 0

    # The event loop and its clock

    def bind(self, loop: EventLoop) -> None:
        """Run in ``loop`` from now on; ages go on counting, though every loop has a clock of its own."""
        self.unbind()
        # A loop on virtual time may have been far ahead, and nothing grows younger by its end.
        now = max(self.now(), time.monotonic())
        self._loop, self._offset = loop, now - loop.time()
        self._set_alarm()

    def unbind(self) -> None:
        """Leave the event loop."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._loop is not None:
            self._offset = self.now() - time.monotonic()
        self._alarm = self._loop = None

    def now(self) -> float:
        """Return the log's clock in seconds."""
        return self._offset + (time.monotonic() if self._loop is None else self._loop.time())

    # What the backend tells

    @property
    def position(self) -> Position:
        """Where the log ends, as far as is proven here."""
        return Position(self.epoch, self.seen)

    def knows(self, epoch: str, seq: int) -> bool:
        """Tell whether a position is one of this log's, as far as is known here."""
        return epoch == self.epoch or seq <= self.ancestors.get(epoch, -1)

    def begin(self, top: Position, ancestors: Mapping[str, int] | None = None, known: int | None = None) -> None:
        """Set the log's end: at first, and when the backend may have lost what it had.

        If the log that ends at ``top`` does not hold all that is known here, it is another one: every reader is told.

        :param ancestors: the log's earlier epochs, each with the last of its numbers that is still valid.
        :param known: what :attr:`newest` was when the backend was asked, if that took time.
        """
        ancestors = ancestors or {}
        valid = top.seq if top.epoch == self.epoch else ancestors.get(self.epoch, -1)
        first, same = not self.epoch, top.epoch == self.epoch
        self.epoch, self.ancestors = top.epoch, ancestors
        if first or valid < (self.newest if known is None else known):
            self._start_over(top.seq)
            for subscriber in () if first else tuple(self.subscribers):
                if same or not subscriber.reads_in(top.epoch):
                    subscriber.interrupt(ResetReason.LOST)
        if not same:
            self._wake_all()

    def append(self, entry: Entry) -> None:
        """Add the next event; one of a channel that nobody holds, or that is here already, is passed over."""
        self.seen = max(self.seen, entry.seq)
        self.newest = max(self.newest, entry.seq)
        channel = self.channels.get(entry.channel)
        if channel is None or entry.seq <= channel.top:
            return
        if channel.append(entry) and self._loop is not None:
            Sprint.of(self._loop).add(channel)
        if not channel.timed:
            self._watch(channel, entry.time)

    def acknowledge(self, position: Position) -> None:
        """Take note that the log reaches up to a position, which is not lost from here on without a word."""
        if position.epoch == self.epoch:
            self.newest = max(self.newest, position.seq)

    def prove(self, seq: int) -> None:
        """Take note that every event up to ``seq`` that a live channel has is here."""
        self.seen = max(self.seen, seq)
        self.newest = max(self.newest, seq)

    def lose(self, channel: Channel, seq: int) -> None:
        """Take note that events of ``channel`` up to ``seq`` may be missing: who relied on it is told."""
        channel.clear(seq)
        for subscriber in tuple(self.subscribers):
            if channel.name in subscriber.channels:
                subscriber.miss(seq)

    def lost(self, error: BaseException) -> None:
        """Take note that the backend cannot be reached."""
        if self.error is None:
            self._lost_at = self.now()
            self.tally.backend_lost(error)
        self.error = error

    def found(self) -> None:
        """Take note that the backend is back, and that the log has what was missed meanwhile."""
        if self.error is not None:
            self.error = None
            self.tally.backend_back(self.outage)
            self._wake_all()

    @property
    def outage(self) -> float:
        """How long the backend has been away, or was the last time, in seconds."""
        return self.now() - self._lost_at

    # Channels

    def channel(self, name: str, floor: int | None) -> Channel:
        """Return a channel; one that is not held begins behind ``floor``."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name, self.retention, floor)
        return channel

    def drop(self, name: str) -> None:
        """Let a channel go with its events; they can be read from the backend."""
        channel = self.channels.pop(name, None)
        if channel is None or not channel.timed:
            return
        channel.clear(channel.top)
        self._dropped += 1
        if 2 * self._dropped > len(self._oldest):
            # Most of those that are watched are not held any more.
            self._oldest = [each for each in self._oldest if self.channels.get(each[2].name) is each[2]]
            heapq.heapify(self._oldest)
            self._dropped = 0

    def tidy(self, channel: Channel) -> None:
        """Let a channel go that has neither readers nor events."""
        if not channel.readers and channel.empty and self.channels.get(channel.name) is channel:
            del self.channels[channel.name]
            self.floor = max(self.floor, channel.top)

    def read(self, names: Iterable[str], after: Position, limit: int) -> Page | Gap:
        """Return what is held of some channels after a position, as :meth:`~starlette_sse.broker.base.Backend.read`."""
        if not self.knows(*after):
            return self.gap(names, ResetReason.EPOCH)
        if after.seq > self.seen:
            return self.gap(names, ResetReason.FUTURE)
        if self._floor(names) > after.seq:
            return self.gap(names, ResetReason.EVICTED)
        return self._page([channel for name in names if (channel := self.channels.get(name))], after.seq, limit)

    def gap(self, names: Iterable[str], reason: ResetReason) -> Gap:
        """Return what to tell a reader who cannot go on from where it was."""
        return Gap(reason, Position(self.epoch, min(self._floor(names), self.seen)), self.position)

    def _floor(self, names: Iterable[str]) -> int:
        return max(
            (self.floor if (channel := self.channels.get(name)) is None else channel.floor or 0 for name in names),
            default=0,
        )

    def _page(self, channels: Iterable[Channel], after: int, limit: int) -> Page:
        stretches = [channel.since(channel.index_after(after)) for channel in channels]
        entries, upto = merged(stretches, [channel.top for channel in channels], self.seen, limit)
        return Page(entries, Position(self.epoch, upto))

    # Ages

    def _start_over(self, seq: int) -> None:
        self.seen = self.newest = self.floor = seq
        self._oldest.clear()
        for name, channel in list(self.channels.items()):
            channel.clear(seq)
            channel.timed = False
            if not channel.readers:
                del self.channels[name]

    def _wake_all(self) -> None:
        for subscriber in tuple(self.subscribers):
            subscriber.wake()

    def _watch(self, channel: Channel, oldest: float) -> None:
        channel.timed = True
        heapq.heappush(self._oldest, (oldest, next(self._order), channel))
        if self._oldest[0][2] is channel:
            self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._oldest and self._loop is not None:
            due = self._oldest[0][0] + self.retention.max_age + LATE
            self._alarm = self._loop.call_at(due - self._offset, self._expire)

    def _expire(self) -> None:
        # Only this is compared, here and in the channel: sums that are rounded apart would never come to an end.
        before = self.now() - self.retention.max_age
        while self._oldest and self._oldest[0][0] <= before:
            channel = heapq.heappop(self._oldest)[2]
            oldest = channel.expire(before)
            channel.timed = oldest is not None
            if oldest is None:
                self.tidy(channel)
            else:
                heapq.heappush(self._oldest, (oldest, next(self._order), channel))
        self._set_alarm()


def merged(stretches: list[list[Entry]], tops: list[int], end: int, limit: int) -> tuple[list[Entry], int]:
    """Return the first entries of several channels in one order, about ``limit`` bytes, and up to where that is all.

    :param stretches: one part of each channel, in order.
    :param tops: the number of each channel's newest event.
    :param end: the number up to which an exhausted channel is known.
    """
    # A channel whose part ends before its top says nothing about what is behind that part.
    cut = [part[-1].seq for part, top in zip(stretches, tops, strict=True) if part and part[-1].seq < top]
    upto = min(cut, default=end)
    entries = sorted((entry for part in stretches for entry in part if entry.seq <= upto), key=attrgetter("seq"))
    size = 0
    for place, entry in enumerate(entries, 1):
        size += len(entry.frame)
        if size >= limit and place < len(entries):
            return entries[:place], entry.seq
    return entries, upto
