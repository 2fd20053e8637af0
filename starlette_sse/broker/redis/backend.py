"""The log in Redis: a stream per channel, appended to by one script, and one listener connection per process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from starlette_sse.broker.base import Backend
from starlette_sse.broker.entries import Gap, Page
from starlette_sse.broker.log import Log
from starlette_sse.broker.positions import Position
from starlette_sse.broker.redis.connections import Connections, RefusedError
from starlette_sse.broker.redis.listener import Listener
from starlette_sse.broker.redis.remote import RemoteLog
from starlette_sse.exceptions import BrokerUnavailableError

__all__ = ["RedisBackend"]


class RedisBackend(Backend):
    """A log that any number of processes share.

    The server must be Redis 7 or newer, or speak as it does. With an append-only file clients resume over a restart of
    the server; without one, or after a failover, they are told by a reset.
    """

    name = "redis"
    event_loops: ClassVar[frozenset[str]] = frozenset({"asyncio"})

    _log: Log
    _remote: RemoteLog
    _listener: Listener

    def __init__(self, url: str, *, prefix: str, timeout: float) -> None:
        self._connections = Connections(url, timeout)
        self._timeout = timeout
        # In braces: all keys of a log are in one slot of a cluster.
        self._prefix = f"{{{prefix}}}:"

    async def open(self, log: Log) -> None:
        self._log = log
        self._connections.open()
        self._remote = RemoteLog(self._connections, log, self._prefix)
        # However many publishers wait, the listener must see whether the server is there.
        remote = RemoteLog(self._connections, log, self._prefix, spare=True)
        self._listener = Listener(remote, self._connections, log, remote.news, self._timeout)
        try:
            log.begin(*await self._remote.begin())
        except RefusedError:
            raise
        except BrokerUnavailableError as exc:
            # The listener begins the log when the server comes.
            log.lost(exc)
        else:
            log.found()

    async def serve(self) -> None:
        await self._listener.serve()

    async def close(self) -> None:
        await self._connections.close()

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        with self._evidence():
            position = await self._remote.append(channel, body, key)
        self._log.acknowledge(position)
        return str(position)

    async def listen(self, channels: Sequence[str]) -> None:
        await self._listener.listen(channels)

    def unlisten(self, channel: str) -> None:
        self._listener.unlisten(channel)

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        with self._evidence():
            answer = await self._remote.read(channels, after, limit)
        # A reader goes on from there: what is lost of it is not lost without a word.
        self._log.acknowledge(answer.newest if isinstance(answer, Gap) else answer.upto)
        return answer

    async def top(self) -> Position:
        return (await self._remote.begin())[0]

    @contextmanager
    def _evidence(self) -> Iterator[None]:
        """Let the listener find out what a question without an answer means for everybody."""
        try:
            yield
        except RefusedError:
            raise
        except BrokerUnavailableError as exc:
            # What was never sent has only waited behind others.
            if exc.in_doubt:
                self._listener.doubt()
            raise
