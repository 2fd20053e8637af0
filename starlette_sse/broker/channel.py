"""The end of one channel that this process holds, and the readers that wait for its next event."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple, Protocol

from starlette_sse.broker.entries import Entry, Retention
from starlette_sse.broker.keyed import NewestByKey

__all__ = ["PULL_SIZE", "Channel", "Reader", "Stretch"]

#: About how many bytes of frames leave in one send: what fits a server's write buffer.
PULL_SIZE = 65536

#: The most events that leave in one send.
PULL_COUNT = 512

#: Events that have left are cut off the list once they are this many and half of it.
COMPACT = 64

GONE = Entry(channel="", epoch="", seq=0, prev=0, frame=b"")
sequence_number = attrgetter("seq")


class Reader(Protocol):
    """Who waits for a channel's next event."""

    def ready(self) -> None:
        """Take note that there is one; never blocks."""


class Stretch(NamedTuple):
    """Events that follow on each other in a channel."""

    start: int
    """The index of the first."""
    end: int
    """The index after the last."""
    first: int
    """The number of the first."""
    last: int
    """The number of the last."""
    frames: bytes
    """What is sent for them."""


class Follower(Reader, Protocol):
    """Who may be sent a channel's next events without taking them."""

    index: int
    """The index of the next event."""

    def follow(self, stretch: Stretch) -> bool:
        """Send what has come, if all of it is next and that needs no wait; tell whether that was done."""


class Channel:
    """Events in order, each at an index that stays its own while older ones leave.

    :param floor: every event up to this number has left, or was never here; None while that is not known.
    """

    __slots__ = (
        "_base",
        "_memo",
        "_retention",
        "_size",
        "end",
        "entries",
        "first",
        "floor",
        "followers",
        "name",
        "newest",
        "readers",
        "timed",
        "top",
        "waiting",
    )

    def __init__(self, name: str, retention: Retention, floor: int | None) -> None:
        self.name = name
        self._retention = retention
        self._base = self._size = 0
        #: The index of the oldest event, and the index after the newest.
        self.first = self.end = 0
        self.entries: list[Entry] = []
        self.floor = floor
        #: The number of the newest event, or the floor.
        self.top = floor or 0
        self.newest: NewestByKey | None = None
        #: How many subscriptions read the channel.
        self.readers = 0
        #: Whether the log will look at the ages.
        self.timed = False
        #: Those who have read everything; an ordered set.
        self.waiting: dict[Reader, None] = {}
        #: Those who have read everything but what :meth:`sprint` is about to send them; in the order of their indexes.
        self.followers: dict[Follower, None] = {}
        self._memo: tuple[int, bytes, int] | None = None

    def prove(self, floor: int) -> None:
        """Take note that every event behind ``floor`` comes, unless it is known already where they begin."""
        if self.floor is None:
            self.floor = self.top = floor

    @property
    def lost(self) -> int:
        """An event up to this number may be missing that nothing newer of its key stands for."""
        return (self.floor or 0) if self.newest is None else self.newest.lost

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        return self.first == self.end and not (self.newest and self.newest.entries)

    def append(self, entry: Entry) -> bool:
        """Take the next event, evict what retention says, and wake those who wait, each once.

        :returns: whether :meth:`sprint` must be called, in the event loop's next turn.
        """
        if self.floor is None:
            self.floor = entry.prev
        if self.newest is None and entry.key is not None:
            self.newest = NewestByKey(self._retention, self.floor)
        if self.newest is not None:
            self.newest.add(entry, self.floor)
        self.entries.append(entry)
        self.end += 1
        self.top = entry.seq
        self._size += len(entry.frame)
        self._memo = None
        history, max_bytes = self._retention.history, self._retention.max_bytes
        while self.end - self.first > history or (self._size > max_bytes and self.end - self.first > 1):
            self._evict()
        if self.waiting:
            waiting, self.waiting = self.waiting, {}
            for reader in waiting:
                reader.ready()
        return bool(self.followers)

    def sprint(self) -> None:
        """Send to those who follow what has come meanwhile; who can't be sent it at once is woken for it."""
        followers = list(self.followers)
        # The first has waited for longest, and nearly always all of them for the same.
        start = followers[0].index if followers else self.end
        if start >= self.end:
            return
        if start < self.first:
            self._wake(followers)
            return
        frames, end = self.joined(start)
        stretch = Stretch(start, end, self[start].seq, self[end - 1].seq, frames)
        unsent: list[Follower] = []
        others = iter(followers)
        try:
            unsent.extend(follower for follower in others if not follower.follow(stretch))
        finally:
            # Those behind one whose way has failed as well; and there may be more than leaves in one send.
            self._wake([*unsent, *others] if end == self.end else followers)

    def _wake(self, followers: Iterable[Follower]) -> None:
        """Let those come for their events who have any and are still there."""
        for follower in followers:
            if follower.index < self.end and follower in self.followers:
                del self.followers[follower]
                follower.ready()

    def expire(self, before: float) -> float | None:
        """Evict what is from ``before`` or earlier; return the time of the oldest event that is left."""
        while self.first < self.end and self[self.first].time <= before:
            self._evict()
        oldest = [] if self.first == self.end else [self[self.first].time]
        if self.newest is not None and (kept := self.newest.expire(before, self.floor or 0)) is not None:
            oldest.append(kept)
        return min(oldest, default=None)

    def clear(self, floor: int) -> None:
        """Forget everything up to ``floor``; the log goes on behind it. Who waits stays waiting."""
        self.entries.clear()
        self._base = self.first = self.end = self.end + 1
        self._size = 0
        self._memo = self.newest = None
        self.floor = self.top = floor

    def index_after(self, seq: int) -> int:
        """Return the index of the first event that is newer than ``seq``."""
        return self._base + bisect_right(self.entries, seq, lo=self.first - self._base, key=sequence_number)

    def since(self, index: int) -> list[Entry]:
        """Return the events from an index on, which must not have left, :data:`PULL_COUNT` at most."""
        place = index - self._base
        return self.entries[place : place + PULL_COUNT]

    def joined(self, index: int) -> tuple[bytes, int]:
        """Return the frames from an index on, about :data:`PULL_SIZE` of them, and the index after the last.

        Readers at the same place share the bytes.
        """
        if self._memo is None or self._memo[0] != index:
            frames, size = [], 0
            for entry in self.since(index):
                frames.append(entry.frame)
                size += len(entry.frame)
                if size >= PULL_SIZE:
                    break
            self._memo = index, b"".join(frames), index + len(frames)
        return self._memo[1:]

    def current(self, seq: int) -> list[Entry]:
        """Return what matters of the events after ``seq``: the newest of each key, and those without a key."""
        keyed = () if self.newest is None else self.newest.entries.values()
        unkeyed = self.entries[self.index_after(seq) - self._base :]
        return [entry for entry in keyed if entry.seq > seq] + [entry for entry in unkeyed if entry.key is None]

    def __getitem__(self, index: int) -> Entry:
        return self.entries[index - self._base]

    def _evict(self) -> None:
        place = self.first - self._base
        entry, self.entries[place] = self.entries[place], GONE
        self.first += 1
        self._size -= len(entry.frame)
        self._memo = None
        self.floor = entry.seq
        if self.newest is not None:
            self.newest.leave(entry)
        if place + 1 >= COMPACT and 2 * (place + 1) >= len(self.entries):
            del self.entries[: place + 1]
            self._base = self.first
