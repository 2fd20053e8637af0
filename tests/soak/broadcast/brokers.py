"""The log that is soaked, the same to every process."""

from __future__ import annotations

import anyio

from starlette_sse import Broker, BrokerUnavailableError

__all__ = ["CHANNELS", "HISTORY", "KEYS", "PREFIX", "UNKEYED", "ReopenedBroker", "broker_at"]

CHANNELS = ("a", "b", "c", "d", "e", "f")

KEYS = ("red", "green", "blue")

#: How many of each channel's events have no key. Where that are many, none of those who lag can be given the newest of
#: each key alone.
UNKEYED = {"a": 1.0, "b": 0.5, "c": 0.5, "d": 0.5, "e": 0.05, "f": 0.05}

#: Few enough that a burst outruns who is slow, and more than is published while somebody is away for moments.
HISTORY = 400

PREFIX = "soak"


def broker_at(url: str) -> Broker:
    """Return a broker of the log, that waits for Redis no longer than a second."""
    return Broker(url, history=HISTORY, timeout=1.0, prefix=PREFIX, observers=())


class ReopenedBroker:
    """A broker that is closed and opened anew whenever it is told to, with all that uses it under way."""

    def __init__(self, url: str) -> None:
        self.broker = broker_at(url)
        self._again = anyio.Event()

    def reopen(self) -> None:
        self._again.set()

    async def serve(self) -> None:
        """Keep it open until cancelled."""
        while True:
            try:
                async with self.broker:
                    await self._again.wait()
                    self._again = anyio.Event()
            except BrokerUnavailableError:
                # It refuses for now: its memory is full, or it is a replica.
                await anyio.sleep(0.1)
