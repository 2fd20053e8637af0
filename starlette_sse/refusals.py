"""How a client that is not let in is told.

An ``EventSource`` of a browser gives up for good on any status but 200, so it is not told 503:

=====================================================  =================================================
who asks                                               answer
=====================================================  =================================================
``Accept`` is exactly ``text/event-stream``            200 with a jittered ``retry``, a
(a browser's ``EventSource``)                          ``stream-rejected`` event and a clean end: it
                                                       comes back by itself
any other client, no place in the process              503 with a jittered ``Retry-After``
any other client, too many streams of its own, or      429 with a jittered ``Retry-After``
too many new ones at once
any other client, while the server shuts down or       503 with a jittered ``Retry-After``
the broker is away
=====================================================  =================================================
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from starlette_sse.events import ServerSentEvent
from starlette_sse.events.fields import LONGEST_RETRY
from starlette_sse.headers import last_event_id

__all__ = [
    "BROKER_AWAY",
    "CLIENT_FULL",
    "DRAINING",
    "FULL",
    "REJECTED_EVENT",
    "TOO_FAST",
    "Refusal",
    "StreamRefusedError",
    "refuse",
]

REJECTED_EVENT = "stream-rejected"

#: When a refused client comes back, in seconds, at random between these.
COME_BACK = (5.0, 15.0)

#: The longest id that a refused client gets back, in characters.
LONGEST_PLACE = 256

#: What an endpoint's headers say of its streams, and not of a refusal.
NOT_FOR_REFUSALS = frozenset({"cache-control", "content-type", "content-length", "retry-after"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a client is refused, and the status for one that is not an ``EventSource``."""

    reason: str
    status: int


DRAINING = Refusal("draining", 503)
BROKER_AWAY = Refusal("broker_unavailable", 503)
FULL = Refusal("max_connections", 503)
CLIENT_FULL = Refusal("max_connections_per_client", 429)
TOO_FAST = Refusal("connect_rate", 429)


class StreamRefusedError(Exception):
    """Raised when a client is not let in.

    :param wait: seconds after which it has a chance, if that is known.
    """

    def __init__(self, refusal: Refusal, wait: float = 0.0) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal
        self.wait = wait


def refuse(
    request: Request, refusal: Refusal, *, wait: float = 0.0, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer for a client that is refused, by the table above.

    :param wait: seconds that the client must wait at least.
    :param headers: the endpoint's own; a browser that misses those for CORS would give up for good.
    """
    seconds = wait + random.uniform(*COME_BACK)  # noqa: S311 - spreads clients, guards nothing
    own = {name: value for name, value in (headers or {}).items() if name.lower() not in NOT_FOR_REFUSALS}
    own["Cache-Control"] = "no-store"
    if request.headers.get("accept") != "text/event-stream":
        own["Retry-After"] = str(math.ceil(seconds))
        return PlainTextResponse(f"refused: {refusal.reason}", refusal.status, headers=own)
    retry = min(round(seconds * 1000), LONGEST_RETRY)
    event = ServerSentEvent({"reason": refusal.reason}, event=REJECTED_EVENT, id=place_of(request), retry=retry)
    return Response(event.encode(), media_type="text/event-stream", headers=own)


def place_of(request: Request) -> str | None:
    """Return the id that the client came with, so that it gets it back; None if that could do harm.

    A library that makes a new ``EventSource`` for each attempt would forget it for an event without one. Who sends it
    by ``fetch`` may have sent it in Latin-1, and a query may hold anything.
    """
    known = last_event_id(request.scope)
    return known if known and len(known) <= LONGEST_PLACE and known.isascii() and known.isprintable() else None
