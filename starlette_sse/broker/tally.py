"""Counting what happens in a broker, and telling its observers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from starlette_sse.broker.entries import frame_of
from starlette_sse.observers import Observer, overriding, tell

__all__ = ["Tally"]


class Subscribed(Protocol):
    """Who has begun to read."""

    @property
    def channels(self) -> Sequence[str]:
        """The channels' names."""

    @property
    def position(self) -> str:
        """The id up to which everything was read."""


class Tally:
    """Tells every observer; one that raises is logged and stops nothing."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        # Asked for each event and each stream, and hardly ever listened to.
        self._published = overriding(observers, "published")
        self._subscribed = overriding(observers, "subscribed")
        self.publications = self.lags = self.resets = self.outages = 0

    def published(self, channel: str, event_id: str, body: bytes) -> None:
        self.publications += 1
        if self._published:
            tell(self._published, "published", channel, event_id, len(frame_of(event_id, body)))

    def subscribed(self, subscription: Subscribed) -> None:
        if self._subscribed:
            tell(self._subscribed, "subscribed", subscription.channels, subscription.position)

    def lagged(self, channels: Sequence[str], policy: str) -> None:
        self.lags += 1
        tell(self._observers, "lagged", channels, policy)

    def reset(self, channels: Sequence[str], reason: str) -> None:
        self.resets += 1
        tell(self._observers, "reset", channels, reason)

    def backend_lost(self, error: BaseException) -> None:
        self.outages += 1
        tell(self._observers, "backend_lost", error)

    def backend_back(self, outage: float) -> None:
        tell(self._observers, "backend_back", outage)
