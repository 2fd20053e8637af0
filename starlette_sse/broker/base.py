"""What a broker's backend must do: the contract that the shipped conformance check tests.

A backend keeps one totally ordered log. The process reads it through a :class:`~starlette_sse.broker.log.Log`, the part
of it that is held here: the backend feeds that, and is asked for what is older.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from starlette_sse.attributes import check_count, check_seconds
from starlette_sse.broker.cursor import Position, ResetReason
from starlette_sse.decoding import EventDecoder, MessageEvent
from starlette_sse.exceptions import ConfigurationError

if TYPE_CHECKING:
    from starlette_sse.broker.log import Log

__all__ = ["Backend", "Entry", "Gap", "Page", "Retention", "frame_of"]


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


class Backend(ABC):
    """Keeps the log. The methods are called in one event loop, and several may be under way at once.

    Errors of the backend's own library never leave it: what cannot be done because a server is away raises
    :exc:`~starlette_sse.BrokerUnavailableError` within a bounded time.
    """

    name: ClassVar[str]
    """What ``health()`` calls it."""
    needs_lifespan: ClassVar[bool] = True
    """Whether the broker must be entered before it can be used."""
    event_loops: ClassVar[frozenset[str]] = frozenset({"asyncio", "trio"})
    """Which event loops it can run on."""

    @abstractmethod
    async def open(self, log: Log) -> None:
        """Be ready to feed ``log``, and :meth:`~starlette_sse.broker.log.Log.begin` it with the log's present end.

        A backend may be opened again after :meth:`close`, in another event loop too.

        :raises BrokerUnavailableError: there is no log to be had.
        """

    async def serve(self) -> None:  # noqa: B027 - most have nothing to do
        """Do what must be done all the time while the broker is open: a task, cancelled before :meth:`close`.

        It must not raise when a server goes away: it tells the log by :meth:`~starlette_sse.broker.log.Log.lost` and
        :meth:`~starlette_sse.broker.log.Log.found`, and tries again with growing pauses.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give back what the backend holds; never raises."""

    @abstractmethod
    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        """Add an event at the log's end and return its id.

        Order: an event whose ``append`` has returned comes before every event whose ``append`` is called later, from
        any process. The number, the link to the predecessor, the trimming and the news to every listener are one
        atomic step. ``body`` is a whole frame without its id line.

        :raises BrokerUnavailableError: the event is not in the log; or, with ``in_doubt``, nobody can tell. It is never
            appended twice.
        """

    @abstractmethod
    async def listen(self, channels: Sequence[str]) -> None:
        """From now on feed every event of ``channels`` to the log, in order, each until :meth:`unlisten`.

        The log has the channels already. When it returns, each has a ``floor``: every event behind it will come.
        Several calls for one channel may wait at once, and a channel that is listened to already is no error.

        :raises BrokerUnavailableError: it could not begin.
        """

    @abstractmethod
    def unlisten(self, channel: str) -> None:
        """Nobody reads ``channel`` any more: take it out of the log; never blocks, never raises."""

    @abstractmethod
    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        """Return what ``channels`` hold after a position, the oldest first.

        :param limit: about how many bytes of frames to return; at least one event is, if there is one.
        :returns: a :class:`Page` that is proven complete, or the :class:`Gap` that prevents it.
        :raises BrokerUnavailableError: the log cannot be read now.
        """

    @abstractmethod
    async def top(self) -> Position:
        """Return the log's end.

        :raises BrokerUnavailableError: the log cannot be read now.
        """
