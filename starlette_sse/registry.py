"""What is open in this process, for an admin page, and ending it from the app's side.

The streams are those that a shutdown would end. Kept here are the requests to endpoints, so that one that is still
being answered is ended as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from starlette_sse.draining import streams_by_loop
from starlette_sse.eventloop import EventLoop
from starlette_sse.exceptions import ConfigurationError
from starlette_sse.observers import CloseReason, StreamIdentity
from starlette_sse.streams import Stream

__all__ = ["ANY", "Closable", "OpenStream", "Selection", "Visitor", "close", "end", "open_streams", "visitors"]

#: What a criterion is that was not given; None is more likely a mistake than a wish to close everything.
ANY: Any = object()


class Closable(Protocol):
    """A stream, or a request that may become one."""

    @property
    def identity(self) -> StreamIdentity:
        """What names it."""

    @property
    def reason(self) -> CloseReason | None:
        """Why it is ending; None if it is not."""

    def end(self, reason: CloseReason) -> None:
        """End it, in its event loop."""


class Visitor(Closable, Protocol):
    """A request to an endpoint."""

    loop: EventLoop
    """The one that answers it."""


#: Who has come to an endpoint of this process and has not left, whether there is a stream already or not. A stream is
#: among those of a shutdown only when it begins: what is ended before would open all the same.
visitors: set[Visitor] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStream:
    """One open stream, as it was when :func:`open_streams` was called."""

    connection_id: str
    """What names it in the log."""
    endpoint: str
    """The qualified name of its endpoint's class, or of the function that returned the response."""
    path: str
    """The path that was asked for, without the query."""
    client_key: str | None
    """What the endpoint's ``client_key`` returned; None for a response's stream."""
    since: datetime
    """When it began, in UTC."""
    events: int
    """How many events were handed to the server, those on which sending failed included."""
    bytes_sent: int
    """How many bytes of body were sent."""
    lag: float
    """For how many seconds the client has not taken what is being sent to it; 0.0 if it keeps up."""
    reason: CloseReason | None
    """Why it is ending; None while it is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which streams are meant."""

    client_key: str = ANY
    endpoint: type[Any] = ANY
    connection_id: str = ANY

    def __post_init__(self) -> None:
        if any(criterion is None for criterion in (self.client_key, self.connection_id)):
            raise ConfigurationError("close() was given None; leave a criterion out to close whatever it may be")
        for name, value in (("client_key", self.client_key), ("connection_id", self.connection_id)):
            if value is not ANY and not isinstance(value, str):
                raise ConfigurationError(f"{name} must be text, as the endpoint tells it; not {value!r:.100}")
        if self.endpoint is not ANY and not isinstance(self.endpoint, type):
            raise ConfigurationError(f"endpoint must be an endpoint's class, not {self.endpoint!r}")

    def holds(self, stream: Closable) -> bool:
        """Tell whether ``stream`` is one of those that are meant."""
        identity = stream.identity
        return (
            (self.client_key is ANY or identity.client_key == self.client_key)
            and (self.connection_id is ANY or identity.connection_id == self.connection_id)
            and (self.endpoint is ANY or (identity.kind is not None and issubclass(identity.kind, self.endpoint)))
        )


def open_streams() -> list[OpenStream]:
    """Return the streams that are open in this process, those of responses included, the oldest first.

    Any thread may call it. It takes some microseconds for each stream, and keeps no reference to any.
    """
    return sorted((described(stream) for _, stream in driven()), key=lambda stream: stream.since)


def close(*, client_key: str = ANY, endpoint: type[Any] = ANY, connection_id: str = ANY) -> int:
    """End streams of this process, with reason ``closed``, and return how many were asked to.

    Those that meet every criterion that is given end; without any, all do. The client sees a clean end and, if it is
    an ``EventSource``, comes back: to keep it away, let ``authorize`` refuse it from now on, and then close. A request
    to an endpoint that is still being answered counts as well, and ends as soon as it is open. Any thread may call
    this; it does not wait for the streams' cleanup. They end in the next turns of their event loop, so what is
    published right after may be the last that they get. Other processes of the app are reached by
    :func:`starlette_sse.closing.close_everywhere`.

    :param client_key: those of one client, as the endpoint's ``client_key`` tells them apart.
    :param endpoint: those of an endpoint class and its subclasses.
    :param connection_id: the one with this id, as :func:`open_streams` and the log tell it.
    :raises ConfigurationError: a criterion is None or no text, or ``endpoint`` is no class.
    """
    return end(Selection(client_key=client_key, endpoint=endpoint, connection_id=connection_id))


class Criterion(Protocol):
    """What tells the streams that are meant."""

    def holds(self, stream: Closable) -> bool:
        """Tell whether ``stream`` is meant."""


def end(selection: Criterion) -> int:
    """End the streams that ``selection`` holds, each in its own event loop."""
    chosen: defaultdict[EventLoop, list[Closable]] = defaultdict(list)
    for loop, stream in closable():
        if stream.reason is None and selection.holds(stream):
            chosen[loop].append(stream)
    asked = 0
    for loop, those in chosen.items():
        try:
            loop.call_soon_threadsafe(partial(end_all, those))
        except RuntimeError:  # the loop was closed with its streams, and nobody leaves there any more
            visitors.difference_update(those)
            continue
        asked += len(those)
    return asked


def end_all(those: list[Closable]) -> None:
    for stream in those:
        stream.end(CloseReason.CLOSED)


def closable() -> Iterator[tuple[EventLoop, Closable]]:
    """Go through the requests to endpoints, and the streams that are of none."""
    for visitor in visitors.copy():
        yield visitor.loop, visitor
    for loop, stream in driven():
        if stream.identity.kind is None:
            yield loop, stream


def driven() -> Iterator[tuple[EventLoop, Stream]]:
    for loop, stream in streams_by_loop():
        if isinstance(stream, Stream):
            yield loop, stream


def described(stream: Stream) -> OpenStream:
    identity = stream.identity
    return OpenStream(
        connection_id=identity.connection_id,
        endpoint=identity.endpoint,
        path=identity.path,
        client_key=identity.client_key,
        since=datetime.fromtimestamp(identity.since, UTC),
        events=stream.events,
        bytes_sent=stream.bytes_sent,
        lag=stream.lag,
        reason=stream.reason,
    )
