"""Sees which of the package's streams serve a request, to tell the test why they ended."""

from __future__ import annotations

from collections.abc import Iterator

from starlette_sse.draining import Domain, Drainable
from starlette_sse.observers import CloseReason
from starlette_sse.streams import Stream

__all__ = ["WatchedDomain"]


class WatchedDomain(Domain):
    """Stands in for the app's domain in one request's scope; all but the watching is the app's domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._seen: Stream | None = None

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the request's stream ended; None while it is open, or where it is none of this package's."""
        return None if self._seen is None else self._seen.reason

    @property
    def draining(self) -> bool:  # type: ignore[override]  # only the app's own domain sets it
        return self._domain.draining

    def join(self, stream: Drainable) -> None:
        if isinstance(stream, Stream):
            self._seen = stream
        self._domain.join(stream)

    def leave(self, stream: Drainable) -> None:
        self._domain.leave(stream)

    def dismiss(self) -> None:
        self._domain.dismiss()

    def drain(self) -> None:
        self._domain.drain()

    async def drained(self) -> None:
        await self._domain.drained()

    def __len__(self) -> int:
        return len(self._domain)

    def __iter__(self) -> Iterator[Drainable]:
        return iter(self._domain)
