"""The way to a Redis server: bounded in time, never asking twice, and honest about what may have happened."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

import anyio

from starlette_sse.exceptions import BrokerUnavailableError, ConfigurationError, MissingDependencyError

try:
    from redis.asyncio.connection import ConnectionPool, parse_url
    from redis.exceptions import (
        AuthenticationError,
        AuthorizationError,
        BusyLoadingError,
        ClusterDownError,
        NoScriptError,
        ReadOnlyError,
        RedisError,
        ResponseError,
        TryAgainError,
    )
except ImportError as exc:  # pragma: no cover - the tests run it in a process that hides redis
    raise MissingDependencyError('a redis:// broker needs redis-py: pip install "starlette_sse[redis]"') from exc

from starlette_sse.broker.redis.tls import prepare, untrusted

__all__ = ["ERRORS", "Connections", "NoScriptError", "RefusedError"]

#: How a connection fails.
ERRORS = (RedisError, OSError, TimeoutError)

#: What the server says no with.
REFUSALS = (ResponseError, AuthenticationError, AuthorizationError)

#: What it says instead when it has not read its data yet, its cluster is not whole, or it runs the script of somebody
#: else for too long. It has done nothing, and will be there again by itself.
PASSING = (BusyLoadingError, ClusterDownError, TryAgainError)
#: The same where redis-py has no class for it, as it has none for the first, and its older versions for none of them.
PASSING_CODES = ("BUSY ", "CLUSTERDOWN ", "TRYAGAIN ")

#: What the server adds to an error that a script has raised, and not to one that it has returned or that stopped it
#: from being run: the script may have written before.
RAISED = " script: "

#: The most commands under way at once.
COMMANDS = 16

#: Seconds at least from one pool to the next that takes its place.
RENEWAL_PAUSE = 1.0

#: What a URL must not change: commands are never repeated by themselves, and time is kept here.
FIXED: dict[str, Any] = {
    "decode_responses": False,
    "health_check_interval": 0,
    "max_connections": COMMANDS + 1,
    "protocol": 2,
    "retry_on_error": [],
    "retry_on_timeout": False,
    "socket_timeout": None,
}


class RefusedError(BrokerUnavailableError):
    """Raised when the server is there and says no, which an operator must mend."""


class Connections:
    """Connections for commands, kept open, and one of its own for whoever listens.

    :param timeout: the longest that one exchange takes, in seconds.
    :raises ConfigurationError: ``url`` is not one of a Redis server.
    """

    def __init__(self, url: str, timeout: float) -> None:
        try:
            options: dict[str, Any] = dict(parse_url(url))
        except ValueError as exc:
            raise ConfigurationError(f"the broker's url is not one of a Redis server: {exc}") from exc
        options.update(FIXED, socket_connect_timeout=timeout)
        if "path" not in options:
            # Who stands in between may forget a connection that is silent for long.
            options.setdefault("socket_keepalive", True)
        self._options = self._ready = options
        self._timeout = timeout
        # Redis-py's pools are typed in part only.
        self._pool: Any = None
        self._renewable_at = -math.inf
        self._limiter: anyio.Semaphore
        place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        #: Where the server is, without credentials.
        self.address = f"Redis at {place}"
        #: Which of the server's databases is used.
        self.database = options.get("db", 0)

    def open(self) -> None:
        """Belong to the running event loop; connects at the first command.

        :raises ConfigurationError: the URL has an option that is unknown, or a file that cannot be used.
        """
        try:
            self._ready = prepare(self._options)
            self._pool = ConnectionPool(**self._ready)
            self._pool.make_connection()
            self._renewable_at = -math.inf
        except TypeError as exc:
            raise ConfigurationError(f"the broker's url has an option that redis-py does not know: {exc}") from exc
        self._limiter = anyio.Semaphore(COMMANDS)

    async def close(self) -> None:
        """Close every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await pool.disconnect()
            except ERRORS:
                return

    async def listener(self) -> Any:
        """Return a new connection.

        :raises BrokerUnavailableError: the server cannot be reached, or refuses.
        """
        connection = self._opened().make_connection()
        try:
            with anyio.fail_after(self._timeout):
                await connection.connect()
        except BaseException as exc:
            # Redis-py leaves one open whose greeting was cut short.
            with anyio.CancelScope(shield=True):
                await connection.disconnect(nowait=True)
            if isinstance(exc, ERRORS):
                raise self._unavailable(exc) from exc
            raise
        return connection

    async def command(self, *args: Any, spare: bool = False) -> Any:
        """Send one command and return the reply; :meth:`commands` says what it takes and raises."""
        return (await self.commands([args], spare=spare))[0]

    async def commands(self, batch: Sequence[tuple[Any, ...]], *, spare: bool = False) -> list[Any]:
        """Send commands over one connection, each after the reply to the one before, and return the replies.

        :param spare: whether they go past all that wait, over the connection that is kept for one who asks so.
        :raises RefusedError: the server refuses. If its ``in_doubt`` is true, a script had been run in part.
        :raises BrokerUnavailableError: the server cannot be reached. If its ``in_doubt`` is true, the commands had been
            sent.
        :raises NoScriptError: the server does not know a script.
        """
        sent = False
        try:
            with anyio.fail_after(self._timeout):
                async with nullcontext() if spare else self._limiter, self._connection() as connection:
                    replies = []
                    for args in batch:
                        sent = True
                        await connection.send_command(*args)
                        replies.append(await connection.read_response())
                    return replies
        except NoScriptError:
            raise
        except ERRORS as exc:
            raise self._unavailable(exc, in_doubt=sent) from exc

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """Lend a connection; one that was left meanwhile is closed behind the block, however that ends."""
        pool = self._opened()
        try:
            connection = await pool.get_connection()
            try:
                yield connection
            except ReadOnlyError:
                self._renew(pool)
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await pool.release(connection)
                    if pool is not self._pool:
                        # Without waiting for it, as TLS may take long.
                        await connection.disconnect(nowait=True)
        finally:
            if pool is not self._pool:
                await self._let_go(pool)

    def _renew(self, pool: Any) -> None:
        """Leave a server that is a replica now: the address may lead to the new master already.

        Not for each command that it refuses, which would be a connection each as long as the address leads there.
        """
        now = anyio.current_time()
        if pool is self._pool and now >= self._renewable_at:
            self._pool, self._renewable_at = ConnectionPool(**self._ready), now + RENEWAL_PAUSE

    async def _let_go(self, pool: Any) -> None:
        """Close the connections of a pool that was left, but those in use: they follow as they are released."""
        # However they end, what the command came to is told.
        with anyio.CancelScope(shield=True), suppress(*ERRORS):
            await pool.disconnect(inuse_connections=False)

    def _opened(self) -> Any:
        if self._pool is None:
            raise BrokerUnavailableError(f"{self.address} is not connected: the broker is closed")
        return self._pool

    def _unavailable(self, error: BaseException, *, in_doubt: bool = False) -> BrokerUnavailableError:
        passing = isinstance(error, PASSING) or str(error).startswith(PASSING_CODES)
        if isinstance(error, REFUSALS) and not passing:
            in_doubt = RAISED in str(error)
            outcome = "; a part of it may have been done" if in_doubt else ""
            return RefusedError(f"{self.address} refused: {error}{outcome}", in_doubt=in_doubt)
        if why := untrusted(error):
            return RefusedError(
                f"{self.address} is not trusted: {why}; ?ssl_ca_certs=<file> says who may sign its certificate"
            )
        in_doubt = in_doubt and not passing
        what = str(error) or f"no answer within {self._timeout} s"
        outcome = "; whether it was done cannot be told" if in_doubt else ""
        return BrokerUnavailableError(f"{self.address} cannot be reached: {what}{outcome}", in_doubt=in_doubt)
