"""Endpoints that note what happens to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from starlette_sse import CloseReason, SSEEndpoint, lifespan
from starlette_sse.observers import Observer
from starlette_sse.testing import SSETestClient

__all__ = ["Noting", "app_of", "serve"]


class Noting(SSEEndpoint):
    """Sends one event, waits for ever, and notes each step of its life on its class."""

    notes: ClassVar[list[Any]]
    pause: ClassVar[float] = 1.0
    observers: Sequence[Observer] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.notes = []

    async def on_connect(self, request: Request) -> Response | None:
        self.notes.append("connected")
        return None

    async def events(self, request: Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(self.pause)
            self.notes.append("cleaned up")

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        await anyio.sleep(self.pause)
        self.notes.append(reason)


def serve(endpoint: type[SSEEndpoint], **options: Any) -> SSETestClient:
    """Return a client of an app with the endpoint at ``/``, patient enough for hours of virtual time."""
    return SSETestClient(app_of(endpoint), timeout=4 * 3600, close_grace=600, **options)


def app_of(endpoint: type[SSEEndpoint], **options: Any) -> Starlette:
    """Return an app with the endpoint at ``/``."""
    return Starlette(routes=[Route("/", endpoint)], lifespan=lifespan, **options)
