"""What is kept of an event in Redis, read back."""

from __future__ import annotations

from starlette_sse.broker.entries import Entry, frame_of

__all__ = ["entry_of", "milliseconds"]


def entry_of(channel: str, epoch: str, seq: int, record: bytes, now: float, clock: int | None = None) -> Entry:
    """Return the entry that a record holds, whose form :mod:`~starlette_sse.broker.redis.scripts` describes.

    :param now: what the log's clock says.
    :param clock: what the server's clock said at that time, in milliseconds; None: the event is new.
    """
    head, _, rest = record.partition(b"\n")
    prev, ms, _, _, length = map(int, head.split())
    return Entry(
        channel=channel,
        epoch=epoch,
        seq=seq,
        prev=prev,
        frame=frame_of(f"{epoch}-{seq}", rest[max(length, 0) :]),
        key=None if length < 0 else str(rest[:length], "utf-8"),
        time=now if clock is None else now - (clock - ms) / 1000,
    )


def milliseconds(seconds: float) -> int:
    """Return a time as Redis counts it."""
    return max(1, round(seconds * 1000))
