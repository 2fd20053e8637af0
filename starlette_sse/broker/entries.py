"""What a log is made of, and what it answers: events, stretches of them, and gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette_sse.attributes import check_count, check_seconds
from starlette_sse.broker.positions import Position, ResetReason
from starlette_sse.decoding import EventDecoder, MessageEvent
from starlette_sse.exceptions import ConfigurationError

__all__ = ["Entry", "Gap", "Page", "Retention", "frame_of"]

#: The least that a channel's history takes: one small event.
LEAST_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of each channel is kept: an event leaves when any one bound is reached, the newest by age only.

    :raises ConfigurationError: a bound is not a positive number.
    """

    history: int
    """Events per channel."""
    max_age: float
    """Seconds."""
    max_bytes: int
    """Bytes of frames per channel."""

    def __post_init__(self) -> None:
        for name in ("history", "max_bytes"):
            check_count(name, getattr(self, name), optional=False)
        check_seconds("max_age", self.max_age, optional=False)
        if self.max_bytes < LEAST_BYTES:
            raise ConfigurationError(f"max_bytes must be at least {LEAST_BYTES}; not {self.max_bytes!r}")


class Entry:
    """One event in the log."""

    __slots__ = ("channel", "epoch", "frame", "key", "prev", "seq", "time")

    def __init__(
        self, *, channel: str, epoch: str, seq: int, prev: int, frame: bytes, key: str | None = None, time: float = 0.0
    ) -> None:
        #: The channel; empty for what the broker itself tells a reader, such as a reset.
        self.channel = channel
        self.epoch = epoch
        #: The event's number in the log, of all channels.
        self.seq = seq
        #: The channel has no event between this number and :attr:`seq`.
        self.prev = prev
        #: The bytes that every subscriber is sent.
        self.frame = frame
        #: What the publisher gave as ``key``.
        self.key = key
        #: When it was published, on the clock of the log that holds it.
        self.time = time

    @property
    def id(self) -> str:
        """The event's id."""
        return f"{self.epoch}-{self.seq}"

    @property
    def event(self) -> MessageEvent | None:
        """The event as a client gets it; None if clients' listeners see none, as with a comment."""
        events = EventDecoder().feed(self.frame)
        return events[0] if events else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} in {self.channel!r}>"


def frame_of(event_id: str, body: bytes) -> bytes:
    """Return an event's frame, given the frame without its id."""
    return b"id: %b\r\n%b" % (event_id.encode("ascii"), body)


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of some channels, without a hole."""

    entries: Sequence[Entry]
    """The events in order."""
    upto: Position
    """There is no other event of these channels between the position that was asked for and this one."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The answer to a position that cannot be read on from without missing something."""

    reason: ResetReason
    oldest: Position | None
    """The oldest position that these channels can be read from, if it is known."""
    newest: Position
    """The log's end, from which a reader may go on."""
