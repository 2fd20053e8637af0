"""How many streams may be open, how fast new ones may come, and how a client that is not let in is told.

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

Everything here counts in this process alone: with four workers a client may hold four times as many streams, unless
they tell each other by :mod:`~starlette_sse.presence`.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from starlette_sse.events import ServerSentEvent

__all__ = [
    "BROKER_AWAY",
    "DRAINING",
    "REJECTED_EVENT",
    "ConnectRate",
    "Elsewhere",
    "Refusal",
    "StreamLimit",
    "StreamRefusedError",
    "refuse",
]

REJECTED_EVENT = "stream-rejected"

#: When a refused client comes back, in seconds, at random between these.
COME_BACK = (5.0, 15.0)

#: What an endpoint's headers say of its streams, and not of a refusal.
NOT_FOR_REFUSALS = frozenset({"cache-control", "content-type", "content-length", "retry-after"})

#: Of how many clients a rate remembers when they came; beyond that the one that came least recently is forgotten.
MOST_CLIENTS = 65536


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


class ConnectRate:
    """How fast each client may open new streams: a bucket of ``burst`` tokens that is refilled at ``rate``.

    A client's bucket is kept as the time at which it will be full again, so a full one need not be kept at all.

    :param rate: tokens per second.
    :param burst: how many streams a client that comes for the first time may open at once.
    :param clock: gives the time in seconds.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / rate
        self._depth = burst * self._interval
        self._clock = clock
        # In the order in which the clients came last: one that is full is found once those before it are full too.
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, client: str) -> None:
        """Take one token of the client's.

        :raises StreamRefusedError: there is none; nothing is taken then.
        """
        now = self._clock()
        self._forget(now)
        full_at = max(now, self._full_at.get(client, now)) + self._interval
        wait = full_at - self._depth - now
        # A token that a rounding error holds back is there.
        if wait > 1e-6 * self._interval:
            raise StreamRefusedError(TOO_FAST, wait)
        self._full_at.pop(client, None)
        self._full_at[client] = full_at

    def _forget(self, now: float) -> None:
        while self._full_at:
            client, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) < MOST_CLIENTS:
                return
            del self._full_at[client]


class Elsewhere(Protocol):
    """What is open in the other processes, as far as this one knows."""

    @property
    def total(self) -> int:
        """How many streams."""

    def held(self, client: str) -> int:
        """How many by one client."""


class StreamLimit:
    """Counts the open streams of one endpoint class in this process.

    :param total: how many may be open; None: any number.
    :param per_client: how many of them by one client; None: any number.
    :param rate: how fast one client may open new ones; None: as fast as it likes.
    """

    def __init__(self, total: int | None, per_client: int | None, rate: ConnectRate | None = None) -> None:
        self._total = math.inf if total is None else total
        self._per_client = math.inf if per_client is None else per_client
        self._rate = rate
        # Endpoints of one class may be served by several event loops, each in a thread of its own.
        self._lock = threading.Lock()
        self._clients: dict[str, int] = {}
        self._open = 0
        #: What counts besides; None: this process alone.
        self.elsewhere: Elsewhere | None = None
        #: Called in any thread when the number of open streams has changed.
        self.on_change: Callable[[], None] | None = None

    def __len__(self) -> int:
        return self._open

    def by_client(self) -> dict[str, int]:
        """Return how many streams each client has open."""
        with self._lock:
            return self._clients.copy()

    def take(self, client: str) -> None:
        """Take a place, which :meth:`give_back` returns; whatever is raised, none is taken.

        :raises StreamRefusedError: the client is not let in.
        """
        self._count_in(client)
        try:
            self._tell()
        except BaseException:
            self._count_out(client)
            raise

    def give_back(self, client: str) -> None:
        """Return a place."""
        self._count_out(client)
        self._tell()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _count_in(self, client: str) -> None:
        elsewhere = self.elsewhere
        total, by_client = (0, 0) if elsewhere is None else (elsewhere.total, elsewhere.held(client))
        with self._lock:
            if self._open + total >= self._total:
                raise StreamRefusedError(FULL)
            held = self._clients.get(client, 0)
            if held + by_client >= self._per_client:
                raise StreamRefusedError(CLIENT_FULL)
            if self._rate is not None:
                self._rate.take(client)
            self._open += 1
            self._clients[client] = held + 1

    def _count_out(self, client: str) -> None:
        with self._lock:
            self._open -= 1
            left = self._clients[client] - 1
            if left:
                self._clients[client] = left
            else:
                del self._clients[client]


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
    retry = round(seconds * 1000)
    event = ServerSentEvent({"reason": refusal.reason}, event=REJECTED_EVENT, retry=retry)
    return Response(event.encode(), media_type="text/event-stream", headers=own)
