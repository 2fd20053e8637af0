"""What watches the streams: the seam for logs and metrics, and the structured log.

Only observers log what happens to streams. They are called synchronously in the event loop, so they must not block;
what one raises goes to the standard library's logging and reaches nobody else.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import quote

import structlog

from starlette_sse.exceptions import ConfigurationError

__all__ = [
    "CloseReason",
    "Observer",
    "StreamFacts",
    "StreamIdentity",
    "StructlogObserver",
    "check_observers",
    "overriding",
    "printable",
    "tell",
]


class CloseReason(StrEnum):
    """Why a stream ended."""

    FINISHED = "finished"
    """``events()`` ran out."""
    CLIENT_GONE = "client_gone"
    """The client disconnected, or sending to it failed."""
    SEND_TIMEOUT = "send_timeout"
    """One send took longer than ``send_timeout``: the client read nothing, or too slowly for what was sent at once."""
    DRAINING = "draining"
    """The server shuts down."""
    LIFETIME = "lifetime"
    """``max_lifetime`` was reached."""
    UNAUTHORIZED = "unauthorized"
    """``authorize`` refused a stream that was open."""
    SLOW_READER = "slow_reader"
    """The client fell off the broker's log."""
    ERROR = "error"
    """``events()``, or a hook that the stream needs, raised."""
    CANCELLED = "cancelled"
    """The server cancelled the request, or somebody the task that ran ``events()``."""
    CLOSED = "closed"
    """The app closed the stream."""


@dataclass(frozen=True, slots=True)
class StreamIdentity:
    """What names a stream in logs, and finds it in :func:`~starlette_sse.open_streams`."""

    connection_id: str
    endpoint: str
    path: str
    client_key: str | None = field(default=None, repr=False)
    """What the endpoint's ``client_key`` returned. It may be a secret, so it is never logged."""
    kind: type[object] | None = None
    """The endpoint's class."""
    since: float = field(default_factory=time.time, compare=False)
    """When the stream began, in seconds of Unix time."""


class StreamFacts(Protocol):
    """What an observer may read of a stream, as it is at the moment."""

    @property
    def identity(self) -> StreamIdentity:
        """What names it."""

    @property
    def duration(self) -> float:
        """How long it has been open, in seconds."""

    @property
    def events(self) -> int:
        """How many events were handed to the server, those on which sending failed included."""

    @property
    def bytes_sent(self) -> int:
        """How many bytes of body were sent."""


class Observer:
    """Override what you want to hear of; every method does nothing here.

    Give observers to an endpoint as ``observers = (MyObserver(),)``, or to a broker as ``Broker(observers=...)``.
    """

    def opened(self, stream: StreamFacts) -> None:
        """Called when the response has started."""

    def sent(self, stream: StreamFacts, size: int) -> None:
        """Called after each send of events, even a failed one, with its size in bytes; costs time where it is used."""

    def pinged(self, stream: StreamFacts) -> None:
        """Called after each ping."""

    def rejected(self, endpoint: str, path: str, reason: str) -> None:
        """Called when a request is refused because of a limit, a drain or a broker that is away."""

    def failed(self, stream: StreamFacts, error: BaseException, *, during: str, propagates: bool) -> None:
        """Called once for each exception; ``propagates`` tells that the server will see and log it too."""

    def closed(self, stream: StreamFacts, reason: CloseReason, error: BaseException | None) -> None:
        """Called once for each stream, after its cleanup."""

    def published(self, channel: str, event_id: str, size: int) -> None:
        """Called when an event was published from this process; ``size`` is its frame's in bytes."""

    def subscribed(self, channels: Sequence[str], position: str) -> None:
        """Called when a subscription begins."""

    def lagged(self, channels: Sequence[str], policy: str) -> None:
        """Called when a reader fell off the log."""

    def reset(self, channels: Sequence[str], reason: str) -> None:
        """Called when a reader is told that continuity is broken."""

    def backend_lost(self, error: BaseException) -> None:
        """Called when the broker's backend cannot be reached."""

    def backend_back(self, outage: float) -> None:
        """Called when the backend is back, with the outage in seconds."""


class StructlogObserver(Observer):
    """Writes each happening as one structlog event with constant names; payloads and tokens are never logged."""

    def __init__(self, logger_name: str = "starlette_sse") -> None:
        self._log: Any = structlog.get_logger(logger_name)

    @property
    def _bound(self) -> Any:
        logger = self._log.bind()
        # Its own methods have to be awaited; this is its half for those who cannot.
        return logger.sync_bl if isinstance(logger, structlog.stdlib.AsyncBoundLogger) else logger

    def opened(self, stream: StreamFacts) -> None:
        self._bound.info("stream.opened", **_identity(stream))

    def rejected(self, endpoint: str, path: str, reason: str) -> None:
        self._bound.warning("stream.rejected", endpoint=endpoint, path=printable(path), reason=reason)

    def failed(self, stream: StreamFacts, error: BaseException, *, during: str, propagates: bool) -> None:
        # A propagating error is logged with its traceback by the server; the log has it once.
        details = {} if propagates else _traceback(error)
        self._bound.error("stream.failed", during=during, error=repr(error), **_identity(stream), **details)

    def closed(self, stream: StreamFacts, reason: CloseReason, error: BaseException | None) -> None:
        self._bound.info(
            "stream.closed",
            reason=reason.value,
            duration=round(stream.duration, 6),
            events=stream.events,
            bytes=stream.bytes_sent,
            **_identity(stream),
        )

    def lagged(self, channels: Sequence[str], policy: str) -> None:
        self._bound.warning("subscription.lagged", channels=list(channels), policy=policy)

    def reset(self, channels: Sequence[str], reason: str) -> None:
        self._bound.info("subscription.reset", channels=list(channels), reason=reason)

    def backend_lost(self, error: BaseException) -> None:
        # What repr() tells is up to the backend's library, and may be the type alone.
        self._bound.error("broker.lost", error=f"{type(error).__name__}: {error}")

    def backend_back(self, outage: float) -> None:
        self._bound.info("broker.recovered", outage=round(outage, 3))


def tell(observers: Sequence[Observer], happening: str, *facts: Any, **details: Any) -> None:
    """Call each observer's method ``happening``; an observer's mistake costs nobody a stream or an event."""
    for observer in observers:
        try:
            getattr(observer, happening)(*facts, **details)
        except Exception:  # logged
            logging.getLogger("starlette_sse").exception("%r failed in %s", observer, happening)


def overriding(observers: Sequence[Observer], happening: str) -> list[Observer]:
    """Return the observers that do something when told of ``happening``."""
    nobody = getattr(Observer, happening)
    return [observer for observer in observers if getattr(type(observer), happening) is not nobody]


def check_observers(name: str, value: Any) -> None:
    """Check who wants to be told."""
    if not isinstance(value, Sequence) or not all(isinstance(observer, Observer) for observer in value):
        raise ConfigurationError(f"{name} must be a sequence of Observer instances; not {value!r:.200}")


def printable(path: str) -> str:
    """Return a path as it may be logged: percent-encoded if any of it could forge a line or steer a terminal."""
    return path if path.isprintable() else quote(path, errors="replace")


def _identity(stream: StreamFacts) -> dict[str, str]:
    identity = stream.identity
    return {"connection_id": identity.connection_id, "endpoint": identity.endpoint, "path": printable(identity.path)}


def _traceback(error: BaseException) -> dict[str, Any]:
    """Return what makes structlog log the traceback.

    Structlog's default prints the local variables of each frame if rich is installed, payloads and tokens among them.
    """
    if structlog.is_configured():
        return {"exc_info": error}
    return {"exception": "".join(traceback.format_exception(error)).rstrip()}
