"""Which backend a broker has, and whether that can run here."""

from __future__ import annotations

from starlette_sse.broker.base import Backend
from starlette_sse.broker.memory import MemoryBackend
from starlette_sse.eventloop import running_event_loop
from starlette_sse.exceptions import ConfigurationError

__all__ = ["backend_of", "check_event_loop"]


def backend_of(url: str, prefix: str, timeout: float) -> Backend:
    """Return the backend that ``url`` names."""
    scheme = str(url).partition(":")[0]
    if url in {"memory://", "memory:"}:
        return MemoryBackend()
    if scheme in {"redis", "rediss", "unix"}:
        from starlette_sse.broker.redis import RedisBackend  # noqa: PLC0415 - redis is an extra

        return RedisBackend(url, prefix=prefix, timeout=timeout)
    raise ConfigurationError(
        f"a broker's url must be memory://, redis://, rediss:// or unix://, or a Backend; not {scheme!r}"
    )


def check_event_loop(backend: Backend) -> None:
    """Check that ``backend`` can run in the event loop that is running, if one is."""
    running = running_event_loop()
    if running is not None and running not in backend.event_loops:
        raise ConfigurationError(
            f"a {backend.name} broker runs on {', '.join(sorted(backend.event_loops))} only, not on {running}: "
            "the client library that it needs is written for that; run the app there, or use memory://"
        )
