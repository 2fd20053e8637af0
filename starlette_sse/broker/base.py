"""What a broker's backend must do: the contract that the shipped conformance check tests.

A backend keeps one totally ordered log. The process reads it through a :class:`~starlette_sse.broker.log.Log`, the part
of it that is held here: the backend feeds that, and is asked for what is older.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from starlette_sse.broker.entries import Gap, Page
from starlette_sse.broker.log import Log
from starlette_sse.broker.positions import Position

__all__ = ["Backend"]


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

        A backend may be opened again after :meth:`close`, in another event loop too. If a server cannot be reached it
        tells the log by :meth:`~starlette_sse.broker.log.Log.lost`, and :meth:`serve` begins the log later.

        :raises BrokerUnavailableError: the server is there and refuses.
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
