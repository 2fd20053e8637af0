"""Hooks and generators that are plain functions; worker threads know no virtual time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from starlette_sse import Broker, ChannelEndpoint, CloseReason, ServerSentEvent
from tests.streams.apps import Noting, serve

pytestmark = pytest.mark.anyio

#: Seconds that only a fault takes.
PATIENCE = 10.0


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


class Blocking(Noting):
    """Blocks a thread, in its second step or when it is closed, until the test lets it go on."""

    pause = 0.0
    in_step: bool
    blocks: threading.Event
    goes_on: threading.Event

    @classmethod
    def blocking_in(cls, where: str, **attributes: Any) -> type[Blocking]:
        own = {"in_step": where == "step", "blocks": threading.Event(), "goes_on": threading.Event()}
        return type("Blocking", (cls,), {**own, **attributes})

    def block(self) -> None:
        self.blocks.set()
        self.goes_on.wait()

    def events(self, request: Request) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield "first"
            if self.in_step:
                self.block()
            yield "second"
        finally:
            if not self.in_step:
                self.block()
            self.notes.append("cleaned up")


async def blocked(endpoint: type[Blocking]) -> None:
    """Wait until a thread is blocked."""
    with anyio.fail_after(PATIENCE):
        while not endpoint.blocks.is_set():
            await anyio.sleep(0.01)


@pytest.mark.parametrize("where", ["step", "cleanup"])
async def test_generators_that_block_leave_the_apps_threads_alone(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them wait, plain route functions and hooks still find a thread."""
    endpoint = Blocking.blocking_in(where, cleanup_timeout=None)
    monkeypatch.setattr(anyio.to_thread.current_default_thread_limiter(), "total_tokens", 1)
    async with serve(endpoint) as client, client.stream("/") as stream:
        try:
            await stream.expect("first")
            if where == "cleanup":
                stream.disconnect()
            await blocked(endpoint)
            with anyio.fail_after(PATIENCE):
                assert await run_in_threadpool(threading.current_thread) is not threading.main_thread()
        finally:
            endpoint.goes_on.set()


@pytest.mark.parametrize("where", ["step", "cleanup"])
async def test_a_generator_that_blocks_for_long_does_not_hold_its_streams_end(where: str) -> None:
    """Nothing interrupts a thread, so it is left behind when ``cleanup_timeout`` is over."""
    endpoint = Blocking.blocking_in(where, cleanup_timeout=0.05)
    async with serve(endpoint) as client, client.stream("/") as stream:
        try:
            await stream.expect("first")
            if where == "step":
                await blocked(endpoint)
            stream.disconnect()
            with anyio.fail_after(PATIENCE):
                await stream.closed()
            assert endpoint.notes == ["connected", CloseReason.CLIENT_GONE]
        finally:
            endpoint.goes_on.set()


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
