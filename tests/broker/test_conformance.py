"""Both backends keep the contract that the package ships as a check."""

from __future__ import annotations

import pytest

from starlette_sse.broker.base import Backend
from starlette_sse.broker.memory import MemoryBackend
from starlette_sse.broker.redis import RedisBackend
from starlette_sse.testing import conformance
from tests.broker.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", conformance.CHECKS, ids=conformance.name_of)
async def test_memory_keeps_the_contract(check: conformance.Check) -> None:
    """The backend in memory does all that every backend must, on both event loops."""
    await check(lambda _: MemoryBackend())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("check", [*conformance.CHECKS, *conformance.SHARED_CHECKS], ids=conformance.name_of)
async def test_redis_keeps_the_contract(check: conformance.Check, shared_redis: RedisServer) -> None:
    """The backend in Redis does all that every backend must, and what those for several processes must."""

    def make(name: str) -> Backend:
        return RedisBackend(shared_redis.url, prefix=name, timeout=5.0)

    await check(make)
