"""The newest event of each key, which a lagging reader may be given instead of all that it missed."""

from __future__ import annotations

from starlette_sse.broker.entries import Entry, Retention

__all__ = ["NewestByKey"]


class NewestByKey:
    """Remembers a channel's newest event per key, also when it has left the channel's history.

    What it holds beyond the history is bounded as the history is: by count, bytes and age.

    :param lost: the channel's history begins behind this number.
    """

    __slots__ = ("_bytes", "_count", "_retention", "entries", "lost")

    def __init__(self, retention: Retention, lost: int) -> None:
        self._retention = retention
        #: The newest events in the log's order.
        self.entries: dict[str, Entry] = {}
        #: An event up to this number may be missing that nothing newer stands for.
        self.lost = lost
        self._count = self._bytes = 0

    def add(self, entry: Entry, floor: int) -> None:
        """Take the channel's next event, whose history begins behind ``floor``."""
        if entry.key is None:
            return
        older = self.entries.pop(entry.key, None)
        if older is not None and older.seq <= floor:
            self._drop(older)
        self.entries[entry.key] = entry

    def leave(self, entry: Entry) -> None:
        """Take note that ``entry`` has left the history."""
        if entry.key is None:
            self.lost = max(self.lost, entry.seq)
        elif self.entries.get(entry.key) is entry:
            self._count += 1
            self._bytes += len(entry.frame)
            while self._count > self._retention.history or self._bytes > self._retention.max_bytes:
                self._lose_oldest()

    def expire(self, before: float, floor: int) -> float | None:
        """Lose what left the history and is from ``before`` or earlier; return the time of the oldest that left."""
        for entry in list(self.entries.values()):
            if entry.seq > floor:
                break
            if entry.time > before:
                return entry.time
            self._lose_oldest()
        return None

    def _lose_oldest(self) -> None:
        oldest = next(iter(self.entries.values()))
        del self.entries[str(oldest.key)]
        self.lost = max(self.lost, oldest.seq)
        self._drop(oldest)

    def _drop(self, entry: Entry) -> None:
        self._count -= 1
        self._bytes -= len(entry.frame)
