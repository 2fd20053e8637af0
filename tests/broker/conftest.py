"""Brokers on every backend and event loop that they run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from starlette_sse.broker import Broker
from starlette_sse.broker.positions import new_epoch
from starlette_sse.observers import Observer
from tests.broker.redis_server import RedisServer, running

MakeBroker = Callable[..., Broker]


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis server for all tests that leave it alive."""
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Start a Redis server for one test to break; a parameter holds more options for it."""
    with running(tmp_path, *getattr(request, "param", ())) as server:
        yield server


@pytest.fixture(
    params=[
        pytest.param(("memory", "asyncio"), id="memory-asyncio"),
        pytest.param(("memory", "trio"), id="memory-trio"),
        pytest.param(("redis", "asyncio"), id="redis"),
    ]
)
def backend_and_loop(request: pytest.FixtureRequest) -> tuple[str, str]:
    pair: tuple[str, str] = request.param
    return pair


@pytest.fixture
def make_broker(request: pytest.FixtureRequest) -> MakeBroker:
    """Make brokers of the test's backend; those of one test share a log if they can."""
    kind = request.getfixturevalue("backend_and_loop")[0] if "backend_and_loop" in request.fixturenames else "memory"
    prefix = new_epoch()

    def make(**options: Any) -> Broker:
        options.setdefault("observers", ())
        if kind == "memory":
            return Broker(**options)
        server: RedisServer = request.getfixturevalue("shared_redis")
        return Broker(server.url, prefix=prefix, **options)

    return make


class Diary(Observer):
    """Remembers what it was told of a broker."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []

    def published(self, channel: str, event_id: str, size: int) -> None:
        self.entries.append(("published", channel, event_id, size))

    def subscribed(self, channels: Any, position: str) -> None:
        self.entries.append(("subscribed", tuple(channels), position))

    def lagged(self, channels: Any, policy: str) -> None:
        self.entries.append(("lagged", tuple(channels), policy))

    def reset(self, channels: Any, reason: str) -> None:
        self.entries.append(("reset", tuple(channels), reason))

    def backend_lost(self, error: BaseException) -> None:
        self.entries.append(("lost", error))

    def backend_back(self, outage: float) -> None:
        self.entries.append(("back", outage))

    def names(self) -> list[str]:
        return [entry[0] for entry in self.entries]


@pytest.fixture
def diary() -> Diary:
    return Diary()
