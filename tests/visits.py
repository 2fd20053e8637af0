"""Requests at an endpoint itself, without anything in between, so that thousands of them take seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
from starlette.types import Message

from starlette_sse import SSEEndpoint

__all__ = ["Visit", "held", "scope_of"]


def scope_of(path: str = "/", **more: Any) -> dict[str, Any]:
    """Return the scope of a request with the least that a server gives; ``more`` is put over it."""
    return {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", **more}


class Visit:
    """One client's request; :attr:`left` is set when the client is to go, and may be shared by many."""

    def __init__(
        self,
        endpoint: type[SSEEndpoint],
        client: str = "10.0.0.1",
        *,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        query_string: bytes = b"",
        left: anyio.Event | None = None,
    ) -> None:
        self._endpoint = endpoint
        sent = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
        self.scope = scope_of(path, client=(client, 1234), headers=sent, query_string=query_string)
        self.left = left or anyio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def run(self) -> None:
        """Send the request and read all of the response."""
        await self._endpoint(self.scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {key.decode(): value.decode() for key, value in message["headers"]}
        else:
            self.body += message["body"]


def held(endpoint: type[SSEEndpoint]) -> tuple[int, dict[str, int]]:
    """Return how many places of an endpoint are taken, and by whom."""
    limit = endpoint._sse_configuration.limit
    assert limit is not None
    return len(limit), limit.by_client()
