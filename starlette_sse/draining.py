"""Ending streams at shutdown: who asks for it, and which streams it concerns.

Three things start a drain: :func:`drain`, a shutdown signal that the server handles in Python, and the end of
:func:`lifespan`. No server is patched: the signal handler is chained over the server's own while streams or
lifespans need it.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio

from starlette_sse.eventloop import EventLoop, current_event_loop
from starlette_sse.eventloop.signals import SignalChain

__all__ = ["STATE_KEY", "Domain", "Drainable", "domain_of", "drain", "lifespan", "streams_by_loop"]

#: Where :func:`lifespan` leaves its :class:`Domain` in the ASGI scope's ``state``.
STATE_KEY = "starlette_sse"


class Drainable(Protocol):
    """What a domain holds."""

    @property
    def longest_end(self) -> float: ...

    def drain(self) -> None: ...


class Domain:
    """The streams that drain together: those of one app between its startup and its shutdown."""

    def __init__(self) -> None:
        self._streams: set[Drainable] = set()
        self._emptied: anyio.Event | None = None
        self.draining = False

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Drainable]:
        """Go through the streams that are open at this moment; any thread may."""
        return iter(self._streams.copy())

    def join(self, stream: Drainable) -> None:
        """Count ``stream`` in; if the domain is draining, the stream is drained at once."""
        self._streams.add(stream)
        if self.draining:
            stream.drain()

    def leave(self, stream: Drainable) -> None:
        """Count ``stream`` out, after its cleanup."""
        self._streams.discard(stream)
        if self._emptied is not None and not self._streams:
            self._emptied.set()
            self._emptied = None

    def dismiss(self) -> None:
        """Ask every open stream to say farewell and end; call it in the event loop of the streams."""
        for stream in self:
            stream.drain()

    def drain(self) -> None:
        """Dismiss every open stream, and from now on each one that joins."""
        if not self.draining:
            self.draining = True
            self.dismiss()

    async def drained(self) -> None:
        """Wait until every stream has cleaned up, at most as long as their own time limits allow."""
        if self._streams:
            self._emptied = self._emptied or anyio.Event()
            with anyio.move_on_after(max(stream.longest_end for stream in self._streams)):
                await self._emptied.wait()


class FallbackDomain(Domain):
    """The domain of the streams of one event loop that no lifespan speaks for."""

    def __init__(self, loop: EventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._installations = _process.installations

    @property
    def outlived(self) -> bool:
        """Whether it was drained for a server that has gone: another has put its signal handler in place since."""
        return self.draining and not self._streams and self._installations != _process.installations

    def join(self, stream: Drainable) -> None:
        if not self._streams:
            _process.add(self._loop, self)
            if not self.draining:
                # The handler was taken off while there was no stream.
                self._installations = _process.installations
        super().join(stream)

    def leave(self, stream: Drainable) -> None:
        super().leave(stream)
        # While draining the handler stays, so that a server on its way out is not taken for a new one.
        if not self._streams and not self.draining:
            _process.remove(self._loop, self)


class Process:
    """The event loops of this process that have something to drain, and the signals that they share.

    Writers replace the mapping under a lock; a signal handler, which may interrupt a writer, only reads it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._domains: Mapping[EventLoop, frozenset[Domain]] = {}
        self._signals = SignalChain(self.drain)

    @property
    def installations(self) -> int:
        return self._signals.installations

    def add(self, loop: EventLoop, domain: Domain) -> None:
        with self._lock:
            # A loop that was closed with its streams, or drained before, takes nobody off.
            living = {other: domains for other, domains in self._domains.items() if not other.ended}
            self._domains = {**living, loop: living.get(loop, frozenset()) | {domain}}
            self._signals.install()

    def remove(self, loop: EventLoop, domain: Domain) -> None:
        with self._lock:
            rest = self._domains.get(loop, frozenset()) - {domain}
            others = {other: domains for other, domains in self._domains.items() if other is not loop}
            self._domains = {**others, loop: rest} if rest else others
            if not self._domains:
                self._signals.uninstall()

    def install(self) -> None:
        """Chain the handler over one that took its place since the last stream began."""
        if self._signals.installed:
            return
        with self._lock:
            self._signals.install()

    def streams(self) -> Iterator[tuple[EventLoop, Drainable]]:
        for loop, domains in self._domains.items():
            for domain in domains:
                for stream in domain:
                    yield loop, stream

    def drain(self) -> None:
        for loop, domains in self._domains.items():
            for domain in domains:
                try:
                    loop.call_soon_threadsafe(domain.drain)
                except RuntimeError:  # the loop was closed with its streams
                    break


_process = Process()


def domain_of(scope: MutableMapping[str, Any]) -> Domain:
    """Return the domain of a request that is about to open a stream, and see that signals reach it."""
    _process.install()
    domain = (scope.get("state") or {}).get(STATE_KEY)
    return domain if isinstance(domain, Domain) else _fallback_domain()


def _fallback_domain() -> FallbackDomain:
    loop = current_event_loop()
    domain: FallbackDomain | None = loop.locals.get(STATE_KEY)
    if domain is None or domain.outlived:
        if domain is not None:
            _process.remove(loop, domain)
        domain = loop.locals[STATE_KEY] = FallbackDomain(loop)
    return domain


def streams_by_loop() -> Iterator[tuple[EventLoop, Drainable]]:
    """Go through the open streams of this process, each with its event loop; any thread may."""
    return _process.streams()


def drain() -> None:
    """End every open stream of this process with its farewell, as its ``drain_policy`` says.

    Call it from any thread or signal handler; it returns at once. A stream that is opened later on the same
    server is refused, so call it only when the server is about to stop. (Without :func:`lifespan` nobody is refused if
    no stream was open.)
    """
    _process.drain()


@asynccontextmanager
async def lifespan(app: object = None) -> AsyncIterator[dict[str, Any]]:
    """Drain the app's streams at shutdown and wait until they have cleaned up.

    Use it as the app's lifespan, ``Starlette(lifespan=starlette_sse.lifespan)``, or enter it innermost in your
    own and yield what it yields, so that it leaves before your pools close::

        @asynccontextmanager
        async def lifespan(app):
            async with open_pool() as pool, starlette_sse.lifespan(app) as state:
                yield {"pool": pool, **state}

    The wait is bounded by the streams' own ``drain_grace`` and ``cleanup_timeout``. Streams that the yielded state
    does not reach, such as those of a mounted app with a state of its own, are drained as well.
    """
    loop = current_event_loop()
    domain = Domain()
    _process.add(loop, domain)
    try:
        yield {STATE_KEY: domain}
    finally:
        domain.drain()
        fallback: FallbackDomain | None = loop.locals.get(STATE_KEY)
        with anyio.CancelScope(shield=True):
            await domain.drained()
            if fallback is not None:
                fallback.dismiss()
                await fallback.drained()
        _process.remove(loop, domain)
