"""Limits that hold for all processes of an app together: each tells the others what it has open, by the broker."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio

from starlette_sse.attributes import check_seconds
from starlette_sse.broker import Broker
from starlette_sse.broker.names import OwnName
from starlette_sse.decoding import MessageEvent
from starlette_sse.endpoints import SSEEndpoint
from starlette_sse.eventloop import EventLoop, current_event_loop
from starlette_sse.events import ServerSentEvent
from starlette_sse.exceptions import BrokerClosedError, BrokerUnavailableError, ConfigurationError, InvalidEventError
from starlette_sse.following import check_broker, following, pseudonym
from starlette_sse.limits import StreamLimit

__all__ = ["count_together"]

#: What the names of the channels begin with.
CHANNEL = "starlette_sse.count."

COUNT = "count"

#: After how many intervals without a word a process is taken for dead.
PATIENCE = 3

#: Seconds between two words of a process at least, and for each thousand clients that a word tells of.
PAUSE = 0.1


@asynccontextmanager
async def count_together(broker: Broker, *endpoints: type[SSEEndpoint], interval: float = 5.0) -> AsyncIterator[None]:
    """Let the limits of endpoint classes count the streams of every process that enters this; do so in the lifespan::

        async with broker, count_together(broker, News), starlette_sse.lifespan(app) as state:
            yield state

    ``max_connections`` and ``max_connections_per_client`` are then the app's; ``connect_rate`` stays the process's.
    Each process tells the others what it has open when that changes, at most ten times a second, and of at most ten
    thousand clients a second; streams that open in between may exceed the limit. A process that dies is counted for
    three intervals more. While the broker is away each counts what it knew for as long, and then by itself.

    Client keys are told as hashes. Each word of a process takes some 16 bytes for each of its clients, if
    ``max_connections_per_client`` is set; where the broker's ``max_bytes`` does not allow that, only how many streams
    there are is told, and each process counts its clients by itself.

    :param interval: seconds between words of a process in which nothing changes.
    :raises ConfigurationError: a class has no limit or is no endpoint's, or the broker or the interval cannot work; or
        the class is counted together in this process already, of which a limit counts all event loops.
    :raises BrokerClosedError: the broker was closed.
    """
    check_broker(broker)
    check_seconds("interval", interval, optional=False)
    async with AsyncExitStack() as stack:
        for endpoint in endpoints:
            check_endpoint(endpoint)
            limit = endpoint._sse_configuration.limit  # noqa: SLF001 - the limit is no part of what users see
            if limit is None:
                raise ConfigurationError(f"{endpoint.__qualname__} has no limit; set max_connections or the like")
            if limit.elsewhere is not None:
                raise ConfigurationError(
                    f"{endpoint.__qualname__} is counted together in this process already, in all of its event loops; "
                    "enter count_together once"
                )
            per_client = endpoint.max_connections_per_client is not None
            channel = OwnName(f"{CHANNEL}{endpoint.__module__}.{endpoint.__qualname__}")
            presence = Presence(broker, channel, limit, interval, per_client=per_client)
            await stack.enter_async_context(presence.shared())
        yield


def check_endpoint(value: object) -> None:
    """Check what has limits."""
    if not (isinstance(value, type) and issubclass(value, SSEEndpoint)):
        raise ConfigurationError(f"what is counted together must be subclasses of SSEEndpoint, not {value!r:.200}")


@dataclass(frozen=True, slots=True)
class Word:
    """What a process has told last."""

    total: int
    clients: dict[str, int]
    until: float

    @classmethod
    def parse(cls, text: str, now: float) -> tuple[str, Word]:
        """Return a process and its word, which holds from ``now`` on.

        :raises Exception: it is none.
        """
        told = json.loads(text)
        clients = {str(client): int(held) for client, held in told["clients"].items()}
        return str(told["process"]), cls(int(told["total"]), clients, now + PATIENCE * float(told["interval"]))


class Presence:
    """One endpoint class's streams in the other processes, and telling them of those here."""

    def __init__(self, broker: Broker, channel: str, limit: StreamLimit, interval: float, *, per_client: bool) -> None:
        self._broker = broker
        self._channel = channel
        self._limit = limit
        self._interval = interval
        self._per_client = per_client
        self._process = secrets.token_hex(8)
        self._loop: EventLoop = current_event_loop()
        self._others: dict[str, Word] = {}
        self._changed = anyio.Event()

    @property
    def total(self) -> int:
        """How many streams are open elsewhere."""
        return sum(word.total for word in self._alive())

    def held(self, client: str) -> int:
        """How many of them a client has."""
        name = pseudonym(client)
        return sum(word.clients.get(name, 0) for word in self._alive())

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Count together with the others for the block."""
        # At once, so that nobody else comes in between.
        self._limit.elsewhere, self._limit.on_change = self, self._note_change
        try:
            async with following(self._broker, self._channel, self._hear, self._speak):
                try:
                    yield
                finally:
                    # Nothing is told behind that.
                    self._limit.elsewhere = self._limit.on_change = None
                    with anyio.move_on_after(1.0, shield=True):
                        await self._tell(0, {})
        finally:
            self._limit.elsewhere = self._limit.on_change = None

    def _alive(self) -> list[Word]:
        now = self._loop.time()
        return [word for word in tuple(self._others.values()) if word.until > now]

    def _hear(self, event: MessageEvent) -> None:
        if event.type != COUNT:
            return
        now = self._loop.time()
        self._others = {process: word for process, word in self._others.items() if word.until > now}
        process, word = Word.parse(event.data, now)
        if process != self._process:
            self._others[process] = word

    def _note_change(self) -> None:
        if not self._changed.is_set():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _speak(self) -> None:
        while True:
            # Before the count: a change in between is told next.
            self._changed = anyio.Event()
            clients = self._limit.by_client()
            await self._tell(sum(clients.values()), clients)
            told = len(clients) if self._per_client else 0
            # Never so long that the others take this process for dead.
            await anyio.sleep(min(PAUSE * max(1.0, told / 1000), self._interval))
            with anyio.move_on_after(self._interval):
                await self._changed.wait()

    async def _tell(self, total: int, clients: dict[str, int]) -> None:
        word: dict[str, Any] = {"process": self._process, "interval": self._interval, "total": total, "clients": {}}
        named = {pseudonym(client): held for client, held in clients.items()} if self._per_client else {}
        # The others count what they knew if the broker is away, and then without this process.
        with suppress(BrokerUnavailableError, BrokerClosedError):
            try:
                await self._broker.publish(self._channel, ServerSentEvent(word | {"clients": named}, event=COUNT))
            except InvalidEventError:
                await self._broker.publish(self._channel, ServerSentEvent(word, event=COUNT))
