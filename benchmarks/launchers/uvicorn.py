"""Python's contestants: one uvicorn, or several that share a port and a Redis."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.contestants import Terms
from benchmarks.launchers import redis
from benchmarks.launchers.lines import Child, speaking
from benchmarks.launchers.programs import version_of
from benchmarks.servers import Server, ServerOptions

__all__ = ["Uvicorn"]


@dataclass(frozen=True)
class Uvicorn:
    """Serves an ASGI app by :mod:`benchmarks.serve`."""

    factory: str
    """``module:function`` below :mod:`benchmarks.contestants`."""
    workers: int = 1
    redis: bool = False
    """Whether a Redis is started beside it."""

    def prepare(self) -> None:
        if self.redis:
            redis.binary()

    def versions(self) -> dict[str, str]:
        return {"redis-server": version_of(redis.binary(), "--version")} if self.redis else {}

    @asynccontextmanager
    async def launch(self, name: str, options: ServerOptions, terms: Terms) -> AsyncIterator[Server]:
        async with AsyncExitStack() as stack:
            beside = {}
            if self.redis:
                url, beside["redis"] = await stack.enter_async_context(redis.serving_redis())
                terms = replace(terms, redis=url)
            port = stack.enter_context(shared_port())
            settings = {"factory": self.factory, "port": port, **asdict(options), "terms": asdict(terms)}
            command = [sys.executable, "-m", "benchmarks.serve", json.dumps(settings)]
            workers = [await stack.enter_async_context(speaking(name, *command)) for _ in range(self.workers)]
            await asyncio.gather(*(worker.port() for worker in workers))
            yield Server(name, port, Team(workers), beside)


class Team:
    """Processes that serve together. The first one publishes; everything else is told to all."""

    def __init__(self, workers: Sequence[Child]) -> None:
        self.workers = workers

    @property
    def pids(self) -> Sequence[int]:
        return [pid for worker in self.workers for pid in worker.pids]

    async def tell(self, do: str, **arguments: Any) -> Any:
        """Have it done and return the result; numbers are those of all workers together."""
        if do == "publish":
            return await self.workers[0].tell(do, **arguments)
        results = await asyncio.gather(*(worker.tell(do, **arguments) for worker in self.workers))
        if not isinstance(results[0], dict):
            return results[0]
        return {key: sum(result[key] for result in results) for key in results[0]}


@contextmanager
def shared_port() -> Iterator[int]:
    """Hold a port that any number of this user's processes may listen on; Linux spreads connections evenly."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # It is bound but does not listen, so no connection is given to it.
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
