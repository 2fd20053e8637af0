"""Hooks and generators that are plain functions; worker threads know no virtual time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request

from starlette_sse import Broker, ChannelEndpoint, CloseReason, ServerSentEvent
from tests.streams.apps import Noting, serve

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_hooks_may_be_plain_functions() -> None:
    """They run in worker threads, as Starlette's handlers do."""

    class Sync(Noting):
        pause = 0.0

        def authorize(self, request: Request) -> None:
            self.notes.append("authorized")

        def on_connect(self, request: Request) -> None:  # type: ignore[override]
            self.notes.append("connected")

        def on_disconnect(self, request: Request, reason: CloseReason) -> None:  # type: ignore[override]
            self.notes.append(reason)

    async with serve(Sync) as client, client.stream("/") as stream:
        await stream.expect("first")
    assert Sync.notes == ["authorized", "connected", "cleaned up", CloseReason.CLIENT_GONE]


async def test_a_sync_generator_is_a_stream() -> None:
    """Its steps and its ``finally`` run in worker threads."""

    class Sync(Noting):
        pause = 0.0

        def events(self, request: Request) -> Iterator[Any]:  # type: ignore[override]
            try:
                yield 1
                yield 2
                while True:
                    yield "more"
            finally:
                self.notes.append("cleaned up")

    async with serve(Sync) as client, client.stream("/") as stream:
        await stream.expect("1", "2", "more")
    assert Sync.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE]


async def test_a_snapshot_may_be_a_plain_function() -> None:
    """It runs in a worker thread like any other hook, and what it returns becomes the endpoint's events."""
    threads = []

    class Shouted(ServerSentEvent):
        @staticmethod
        def dumps(value: Any) -> str:
            return str(value).upper()

    class News(ChannelEndpoint):
        broker = Broker(observers=())
        channels = ("news",)
        observers = ()
        event_class = Shouted

        def snapshot(self, request: Request) -> Any:
            threads.append(threading.current_thread())
            return [("a", 1)]

    async with serve(News) as client, client.stream("/") as stream:
        await stream.expect("('A', 1)")
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
