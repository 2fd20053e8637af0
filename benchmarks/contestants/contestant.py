"""What the server's process asks of a contestant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp

from benchmarks.payload import Published

__all__ = ["USUAL", "Contestant", "Queues", "Terms"]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """An app with one endless stream at ``/``."""

    app: ASGIApp
    publish: Callable[[Published], Awaitable[None]]
    """Publishes these events at once: nothing else runs in between that the contestant does not ask for."""
    more: dict[str, Callable[..., Awaitable[Any]]] = field(default_factory=dict)
    """What else it can be told to do."""


@dataclass(frozen=True)
class Terms:
    """What every contestant of a row is asked for."""

    ping: float = 15.0
    """Seconds between pings, of those that send any."""
    silent: bool = False
    """Whether generators only sleep: a queue of their own would be half of what they hold."""
    redis: str = ""
    """The URL of the Redis that they share with other processes; empty for those that are alone."""


USUAL = Terms()


class Silence(asyncio.Queue[Any]):
    """A queue that costs nothing and never brings anything."""

    def __init__(self) -> None:
        """Make none of a queue's parts."""

    async def get(self) -> Any:
        while True:
            await asyncio.sleep(3600)


class Queues:
    """One :class:`asyncio.Queue` for each connection, the usual way to feed a generator."""

    def __init__(self, terms: Terms) -> None:
        self._new: type[asyncio.Queue[Any]] = Silence if terms.silent else asyncio.Queue
        self.queues: set[asyncio.Queue[Any]] = set()

    def join(self) -> asyncio.Queue[Any]:
        """Return a new connection's queue."""
        queue = self._new()
        self.queues.add(queue)
        return queue

    def leave(self, queue: asyncio.Queue[Any]) -> None:
        self.queues.discard(queue)

    def put(self, item: Any) -> None:
        """Give ``item`` to every connection."""
        for queue in self.queues:
            queue.put_nowait(item)
