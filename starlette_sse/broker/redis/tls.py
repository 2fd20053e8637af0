"""TLS on the way to a Redis server: its files are read once, before the first connection."""

from __future__ import annotations

import ssl
from typing import Any

from redis.asyncio.connection import ConnectionPool, RedisSSLContext, SSLConnection
from redis.exceptions import RedisError

from starlette_sse.exceptions import ConfigurationError

__all__ = ["prepare", "untrusted"]


class SharingConnection(SSLConnection):
    """A connection that shares its context with the others of a broker, and closes at once where nobody waits.

    To read the system's certificates keeps the event loop for tens of milliseconds, which redis-py has each do.
    """

    def __init__(self, shared: RedisSSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context = shared

    async def disconnect(self, nowait: bool = False, *args: Any, **options: Any) -> None:
        writer = self._writer
        await super().disconnect(nowait, *args, **options)
        if nowait and writer is not None:
            # Or TLS would wait half a minute for the server's answer, and outlive the event loop.
            writer.transport.abort()


def prepare(options: dict[str, Any]) -> dict[str, Any]:
    """Return a pool's options with what its connections share, if they speak TLS.

    :raises ConfigurationError: a certificate or a key cannot be used.
    :raises TypeError: redis-py does not know an option.
    """
    if options.get("connection_class") is not SSLConnection:
        return options
    if options.get("ssl_cert_reqs") != "none":
        # Older versions of redis-py took any host's certificate.
        options = {"ssl_check_hostname": True} | options
    given = ", ".join(f"{name}={options[name]}" for name in options if name.startswith("ssl_") and "pass" not in name)
    try:
        shared = ConnectionPool(**options).make_connection().ssl_context  # type: ignore[no-untyped-call]
        shared.get()
    except (OSError, ValueError, RedisError) as exc:
        raise ConfigurationError(f"the broker's url asks for TLS that cannot be had ({given}): {exc}") from exc
    return options | {"connection_class": SharingConnection, "shared": shared}


def untrusted(error: BaseException | None) -> str | None:
    """Return why a server's certificate is not trusted, if that is what an error comes from."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return None if error is None else error.verify_message
