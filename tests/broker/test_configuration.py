"""A broker that cannot work says so, as early as it can be known."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import anyio
import pytest

from starlette_sse.broker import Broker
from starlette_sse.broker.memory import MemoryBackend
from starlette_sse.broker.redis import RedisBackend
from starlette_sse.exceptions import BrokerError, ConfigurationError
from tests.broker.redis_server import RedisServer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "nonsense"}, "memory://, redis://"),
        ({"url": "http://:secret@localhost"}, "not 'http'"),
        ({"url": ""}, "memory://, redis://"),
        ({"url": None}, "memory://, redis://"),
        ({"url": "memory://somewhere"}, "memory://"),
        ({"url": "redis://localhost?db=x"}, "db"),
        ({"url": "redis://localhost:port"}, "Redis"),
        ({"history": 0}, "history must be a whole number"),
        ({"history": -1}, "history must be a whole number"),
        ({"history": 1.5}, "history must be a whole number"),
        ({"history": True}, "history must be a whole number"),
        ({"history": None}, "history must be a whole number from 1"),
        ({"max_bytes": None}, "max_bytes must be a whole number from 1"),
        ({"max_bytes": 0}, "max_bytes must be"),
        ({"max_bytes": 100}, "max_bytes must be at least 1024"),
        ({"max_age": 0}, "max_age must be a positive number of seconds"),
        ({"max_age": None}, "max_age must be a positive number of seconds"),
        ({"max_age": float("inf")}, "max_age must be a positive number of seconds"),
        ({"max_age": float("nan")}, "max_age must be a positive number of seconds"),
        ({"max_age": "5"}, "max_age must be a positive number of seconds"),
        ({"timeout": 0}, "timeout must be a positive number of seconds"),
        ({"prefix": ""}, "prefix must be text"),
        ({"url": MemoryBackend(), "prefix": "mine"}, "prefix and timeout are for backends that a URL names"),
        ({"url": MemoryBackend(), "timeout": 1.0}, "prefix and timeout are for backends that a URL names"),
        ({"observers": [object()]}, "observers must be"),
        ({"observers": 7}, "observers must be"),
    ],
)
def test_a_broker_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    """The error names the parameter and what it may be."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        Broker(**options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([],), {}, "at least one channel"),
        (("",), {}, "channel must be text"),
        (([7],), {}, "channel must be text"),
        (("a", 7), {}, "after must be an event's id"),
        (("a",), {"on_lag": "drop"}, "on_lag must be one of 'disconnect', 'reset', 'latest'"),
        (("a",), {"snapshot": []}, "snapshot must be a function"),
    ],
)
def test_a_subscription_that_cannot_work_is_refused(arguments: Any, options: dict[str, Any], message: str) -> None:
    """Before it is entered, with what is wrong and what may be."""
    with pytest.raises(ConfigurationError, match=message):
        Broker().subscribe(*arguments, **options)


def test_a_redis_broker_needs_the_extra() -> None:
    """Without redis-py the error is an ImportError that names the command."""
    code = (
        "import sys; sys.modules['redis'] = sys.modules['redis.asyncio'] = None\n"
        "from starlette_sse.broker import Broker\n"
        "from starlette_sse.exceptions import MissingDependencyError\n"
        "Broker('memory://')\n"
        "try: Broker('redis://localhost')\n"
        "except MissingDependencyError as exc: print(exc)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert 'pip install "starlette_sse[redis]"' in output


def test_a_memory_broker_needs_no_library() -> None:
    """Importing the broker imports nothing that is not installed with the package."""
    code = "import sys, starlette_sse.broker; print(sorted({'redis', 'trio', 'uvicorn'} & sys.modules.keys()))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert output.strip() == "[]"


def test_redis_on_trio_is_refused() -> None:
    """At construction in a running trio loop, and else when it is entered, before anything is connected."""

    async def construct() -> None:
        Broker("redis://localhost:1")

    async def enter() -> None:
        async with outside:
            pass

    outside = Broker("redis://localhost:1")
    for function in (construct, enter):
        with pytest.raises(ConfigurationError, match="runs on asyncio only, not on trio"):
            anyio.run(function, backend="trio")


def test_redis_must_be_entered(shared_redis: RedisServer) -> None:
    """Used without ``async with``, a Redis broker says how."""

    async def use() -> None:
        broker = Broker(shared_redis.url)
        with pytest.raises(BrokerError, match="async with broker"):
            await broker.publish("a", "x")
        with pytest.raises(BrokerError, match="async with broker"):
            async with broker.subscribe("a"):
                pass
        assert not broker.health().ok

    anyio.run(use)


def test_an_unknown_option_in_the_url_is_named(shared_redis: RedisServer) -> None:
    """A misspelt option is an error at the latest when the broker is entered."""

    async def use() -> None:
        with pytest.raises(ConfigurationError, match="sockettimeout"):
            async with Broker(shared_redis.url + "?sockettimeout=5"):
                pass

    anyio.run(use)


def test_what_a_url_must_not_change(shared_redis: RedisServer) -> None:
    """Options that would decode replies, give up a quiet connection or repeat a command by itself are overruled."""

    async def use() -> None:
        url = shared_redis.url + "?decode_responses=True&retry_on_timeout=True&protocol=3&max_connections=1"
        url += "&socket_timeout=0.1&socket_connect_timeout=60&health_check_interval=1&retry_on_error=any"
        async with Broker(url, timeout=3.0, observers=()) as broker, broker.subscribe("a") as subscription:
            assert isinstance(broker._backend, RedisBackend)
            made = broker._backend._connections._pool.make_connection()
            assert (made.socket_timeout, made.socket_connect_timeout, made.health_check_interval) == (None, 3.0, 0)
            assert made.retry._retries == 0
            event_id = await broker.publish("a", "x")
            with anyio.fail_after(5):
                assert (await anext(subscription)).id == event_id

    anyio.run(use)
