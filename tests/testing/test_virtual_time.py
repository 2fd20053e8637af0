"""Virtual time and threads: it stands still while one is at work, and not for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from starlette_sse import SSEEndpoint
from starlette_sse.testing import SSETestClient, VirtualClock, virtual_backend
from starlette_sse.testing.thread_watch import ThreadWatch
from starlette_sse.testing.virtual_time import AsyncioVirtualClock, clock_of
from tests.streams.apps import app_of

pytestmark = pytest.mark.anyio

#: Seconds that a thread works: far longer than a clock that does not wait for it takes to jump.
WORK = 0.2


def pool() -> Iterator[int]:
    """Give a dependency whose end takes its time."""
    yield 1
    time.sleep(WORK)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


@pytest.fixture
def clock(anyio_backend: Any) -> VirtualClock:
    return clock_of(anyio_backend)


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the patience that was lost with threads."""
    give_up, times = ThreadWatch.give_up, []

    def noted(threads: ThreadWatch) -> None:
        times.append(time.monotonic())
        give_up(threads)

    monkeypatch.setattr(ThreadWatch, "give_up", noted)
    return times


async def test_time_stands_still_while_a_thread_works(clock: VirtualClock) -> None:
    """Whoever waits for it has not waited at all, as the clock has it."""
    limited = partial(anyio.to_thread.run_sync, limiter=anyio.CapacityLimiter(1))
    for call in (anyio.to_thread.run_sync, run_in_threadpool, limited):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            with anyio.fail_after(60):
                before = clock.current_time()
                await call(time.sleep, WORK)
                assert clock.current_time() == before
            group.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_every_run_of_a_test_with_parameters_is_watched(name: str) -> None:
    """They have one clock."""
    backend, options = virtual_backend(name)

    async def work() -> float:
        before = anyio.current_time()
        with anyio.move_on_after(60):
            await anyio.to_thread.run_sync(time.sleep, WORK / 4)
        return anyio.current_time() - before

    assert [anyio.run(work, backend=backend, backend_options=options) for _ in range(3)] == [0, 0, 0]


async def test_time_stands_still_while_a_dependency_ends(clock: VirtualClock, given_up: list[float]) -> None:
    """FastAPI leaves it in a thread with a limiter of its own."""

    app = FastAPI()

    @app.get("/")
    def endpoint(number: Annotated[int, Depends(pool)]) -> int:
        return number

    async with SSETestClient(app) as client:
        assert (await client.request("GET", "/")).json() == 1
    assert (clock.current_time(), given_up) == (0, [])


@pytest.mark.parametrize("anyio_backend", [virtual_backend("asyncio")], ids=["virtual"])
async def test_a_thread_of_the_test_s_own_may_know_the_loop(clock: VirtualClock) -> None:
    """It is none of anyio's, though it has their attribute."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
    thread.start()
    try:
        await anyio.sleep(3600)
        assert clock.current_time() == 3600
    finally:
        done.set()
        thread.join()


async def test_a_thread_behind_one_that_was_given_up_is_waited_for(
    clock: VirtualClock, given_up: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the loop has not waited in between, and the log says what was given up."""
    monkeypatch.setattr("starlette_sse.testing.virtual_time.PATIENCE", WORK)
    monkeypatch.setattr("starlette_sse.testing.trio_threads.PATIENCE", WORK)

    async def tick() -> None:
        while True:
            await anyio.sleep(15)

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await anyio.to_thread.run_sync(time.sleep, 2 * WORK)
        before = clock.current_time()
        await anyio.to_thread.run_sync(time.sleep, WORK / 2)
        assert clock.current_time() == before > 0
        group.cancel_scope.cancel()
    assert len(given_up) == 1
    assert "virtual time goes on without 1 threads" in caplog.text


async def test_time_passes_however_much_has_passed(clock: VirtualClock) -> None:
    """After half a year an event loop's clock has no digits left for what it adds to the time."""
    for _ in range(3):
        await anyio.sleep(365 * 86400)
        before = clock.current_time()
        await anyio.sleep(1)
        assert clock.current_time() - before == pytest.approx(1)


async def test_a_plain_generator_streams_on_virtual_time(clock: VirtualClock, given_up: list[float]) -> None:
    """No ping comes while its thread works, and nobody is waited for once it is done."""

    class Slow(SSEEndpoint):
        observers = ()

        def events(self, request: Request) -> Iterator[Any]:
            for number in range(3):
                time.sleep(WORK)
                yield number

    async with SSETestClient(app_of(Slow)) as client, client.stream("/") as stream:
        await stream.expect("0", "1", "2")
        assert clock.current_time() == 0
        assert [comment.text for comment in stream.comments] == ["open"]
    await anyio.sleep(24 * 3600)
    assert clock.current_time() == 24 * 3600
    assert given_up == []


async def test_a_thread_that_waits_for_time_gets_it(
    clock: VirtualClock, given_up: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up once, after the patience; from then on time passes at once, but for other threads."""
    monkeypatch.setattr("starlette_sse.testing.virtual_time.PATIENCE", 2 * WORK)
    monkeypatch.setattr("starlette_sse.testing.trio_threads.PATIENCE", 2 * WORK)

    def waits() -> None:
        for _ in range(100):
            anyio.from_thread.run(anyio.sleep, 3600)

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, waits)
        await anyio.sleep(50 * 3600 + 1)
        before = clock.current_time()
        await anyio.to_thread.run_sync(time.sleep, WORK / 10)
        assert clock.current_time() == before
    assert clock.current_time() >= 100 * 3600
    assert len(given_up) == 1


@pytest.mark.parametrize("anyio_backend", [virtual_backend("asyncio")], ids=["virtual"])
async def test_time_stands_still_while_an_executor_works(clock: VirtualClock) -> None:
    """asyncio has threads of its own."""
    before = clock.current_time()
    async with asyncio.timeout(60):
        await asyncio.to_thread(time.sleep, WORK)
        assert clock.current_time() == before


def test_time_stands_still_while_an_executor_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on asyncio gives its threads five minutes, which would be over before they had begun to end."""

    monkeypatch.setattr("starlette_sse.testing.virtual_time.PATIENCE", WORK / 4)

    class Unhurried(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            time.sleep(WORK)
            super().shutdown(wait, cancel_futures=cancel_futures)

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(Unhurried())
        await asyncio.to_thread(int)

    clock = AsyncioVirtualClock()
    with asyncio.Runner(loop_factory=clock) as runner:
        runner.run(work())
    assert clock.current_time() == 0
