"""A Redis of a contestant's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

from benchmarks.launchers.programs import find, free_port, serving

__all__ = ["binary", "serving_redis"]


def binary() -> str:
    return find("redis-server", "redis-server")


@asynccontextmanager
async def serving_redis() -> AsyncIterator[tuple[str, int]]:
    """Run one that keeps nothing on disk; gives its URL and its process's number."""
    port = free_port()
    with TemporaryDirectory() as directory:
        command = [binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""]
        async with serving("redis-server", port, command) as pid:
            yield f"redis://127.0.0.1:{port}/0", pid
