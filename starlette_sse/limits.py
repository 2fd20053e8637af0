"""How many streams may be open, and how fast new ones may come.

Everything here counts in this process alone: with four workers a client may hold four times as many streams, unless
they tell each other by :mod:`~starlette_sse.presence`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Protocol

from starlette_sse.refusals import CLIENT_FULL, FULL, TOO_FAST, StreamRefusedError

__all__ = ["ConnectRate", "Elsewhere", "StreamLimit", "one_client"]

#: Of how many clients a rate remembers when they came; beyond that the one that came least recently is forgotten.
MOST_CLIENTS = 65536

#: IPv4 addresses that are translated to IPv6.
TRANSLATED = IPv6Network("64:ff9b::/96")

#: The longest key that is remembered as it is, in characters.
LONGEST_KEY = 64


def one_client(address: str) -> str:
    """Return what stands for all that one client comes from.

    Of IPv6 that is the network of 64 bits, which is given to each subscriber as a whole (RFC 6177); an IPv4 address
    may come in the clothes of IPv6, as itself or translated (RFC 6052, 2.1).
    """
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address)
    except ValueError:
        return address
    if found.is_link_local:
        return address
    if found in TRANSLATED:
        return str(IPv4Address(int(found) & 0xFFFFFFFF))
    return str(found.ipv4_mapped or IPv6Network((int(found), 64), strict=False))


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
        if len(client) > LONGEST_KEY:
            client = blake2b(client.encode(errors="surrogatepass"), digest_size=16).hexdigest()
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
