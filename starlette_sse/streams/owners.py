"""The seam between the driver and what it drives for."""

from __future__ import annotations

from typing import Protocol

from starlette_sse.observers import CloseReason

__all__ = ["StreamOwner"]


class StreamOwner(Protocol):
    """What a stream asks of the endpoint or response that it belongs to."""

    def ping_frame(self) -> bytes:
        """Return the ping."""

    async def last_frame(self, reason: CloseReason, error: BaseException | None) -> bytes | None:
        """Return what the client gets last, ``b""`` for nothing; None: cut the body."""

    async def authorize(self) -> None:
        """Raise :exc:`~starlette.exceptions.HTTPException` if the client may not go on."""

    def drain_begins(self) -> None:
        """Called when the stream is asked to end for a shutdown."""

    @property
    def cleans_up(self) -> bool:
        """Whether :meth:`stream_closed` does anything."""

    async def stream_closed(self, reason: CloseReason) -> None:
        """Called once for every stream that was run."""
