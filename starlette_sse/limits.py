"""How many streams may be open, and how a client that finds no place is refused.

An ``EventSource`` of a browser gives up for good on any status but 200, so it is not told 503:

=====================================================  =================================================
who asks                                               answer
=====================================================  =================================================
``Accept`` is exactly ``text/event-stream``            200 with a jittered ``retry``, a
(a browser's ``EventSource``)                          ``stream-rejected`` event and a clean end: it
                                                       comes back by itself
any other client, no place in the process              503 with a jittered ``Retry-After``
any other client, too many streams of its own          429 with a jittered ``Retry-After``
any other client, while the server shuts down or       503 with a jittered ``Retry-After``
the broker is away
=====================================================  =================================================
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from starlette_sse.events import ServerSentEvent

__all__ = ["BROKER_AWAY", "DRAINING", "REJECTED_EVENT", "Refusal", "StreamLimit", "StreamRefusedError", "refuse"]

REJECTED_EVENT = "stream-rejected"

#: When a refused client comes back, in seconds, at random between these.
COME_BACK = (5.0, 15.0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a client is refused, and the status for one that is not an ``EventSource``."""

    reason: str
    status: int


DRAINING = Refusal("draining", 503)
BROKER_AWAY = Refusal("broker_unavailable", 503)
FULL = Refusal("max_connections", 503)
CLIENT_FULL = Refusal("max_connections_per_client", 429)


class StreamRefusedError(Exception):
    """Raised when there is no place."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class StreamLimit:
    """Counts the open streams of one endpoint class in this process.

    :param total: how many may be open; None: any number.
    :param per_client: how many of them by one client; None: any number.
    """

    def __init__(self, total: int | None, per_client: int | None) -> None:
        self._total = total
        self._per_client = per_client
        self._lock = threading.Lock()
        self._clients: dict[str, int] = {}
        self._open = 0

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Hold a place for the block.

        :raises StreamRefusedError: there is none.
        """
        self._take(client)
        try:
            yield
        finally:
            self._give_back(client)

    def _take(self, client: str) -> None:
        with self._lock:
            if self._total is not None and self._open >= self._total:
                raise StreamRefusedError(FULL)
            held = self._clients.get(client, 0)
            if self._per_client is not None and held >= self._per_client:
                raise StreamRefusedError(CLIENT_FULL)
            self._open += 1
            self._clients[client] = held + 1

    def _give_back(self, client: str) -> None:
        with self._lock:
            self._open -= 1
            left = self._clients[client] - 1
            if left:
                self._clients[client] = left
            else:
                del self._clients[client]


def refuse(request: Request, refusal: Refusal) -> Response:
    """Return the answer for a client that is refused, by the table above."""
    seconds = random.uniform(*COME_BACK)  # noqa: S311 - spreads clients, guards nothing
    if request.headers.get("accept") != "text/event-stream":
        retry_after = {"Retry-After": str(round(seconds))}
        return PlainTextResponse(f"refused: {refusal.reason}", refusal.status, headers=retry_after)
    retry = round(seconds * 1000)
    event = ServerSentEvent({"reason": refusal.reason}, event=REJECTED_EVENT, retry=retry)
    return Response(event.encode(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
