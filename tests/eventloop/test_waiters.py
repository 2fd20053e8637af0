"""What a waiter promises: one task waits, anyone wakes it, and no wake is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from starlette_sse.eventloop import current_event_loop

pytestmark = pytest.mark.anyio


async def test_a_task_that_waits_is_woken() -> None:
    """By a callback of the event loop as well as by a task."""
    loop = current_event_loop()
    waiter = loop.waiter()
    for number in range(3):
        started = anyio.current_time()
        loop.call_at(loop.time() + 1, waiter.wake)
        await waiter.wait()
        assert anyio.current_time() - started == pytest.approx(1), number


async def test_a_wake_that_nobody_waits_for_is_kept() -> None:
    """Once, however often it came: before the first wait, and between two."""
    waiter = current_event_loop().waiter()
    for _ in range(2):
        waiter.wake()
        waiter.wake()
        await waiter.wait()
        with anyio.move_on_after(1) as scope:
            await waiter.wait()
        assert scope.cancelled_caught


async def test_a_wait_that_was_cancelled_can_be_repeated() -> None:
    """A wake after it is kept for the next one."""
    waiter = current_event_loop().waiter()
    with anyio.move_on_after(1):
        await waiter.wait()
    waiter.wake()
    with anyio.fail_after(1):
        await waiter.wait()


async def test_it_tells_whether_a_task_waits() -> None:
    """From when it waits to when it is woken."""
    waiter = current_event_loop().waiter()
    seen = [waiter.waiting]

    async def wait() -> None:
        await waiter.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(1)
        seen.append(waiter.waiting)
        waiter.wake()
        seen.append(waiter.waiting)
    assert [*seen, waiter.waiting] == [False, True, False, False]


async def test_a_callback_that_is_asked_for_later_may_be_called_earlier() -> None:
    """Each is called in its time, whatever the loop waits for already."""
    loop = current_event_loop()
    called: list[int] = []
    start = loop.time()
    for seconds in (10, 2):
        loop.call_at(start + seconds, lambda: called.append(round(loop.time() - start)))
        await anyio.wait_all_tasks_blocked()
    await anyio.sleep(5)
    assert called == [2]
    await anyio.sleep(10)
    assert called == [2, 10]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_waits_for_tasks_under_a_cancelled_scope_does_not_spin(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scope goes on cancelling, and is told once."""
    waits = []
    wait = asyncio.wait

    async def counted(*args: Any, **kwargs: Any) -> Any:
        waits.append(args)
        return await wait(*args, **kwargs)

    async def stubborn() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        done.append(True)

    done: list[bool] = []
    monkeypatch.setattr(asyncio, "wait", counted)
    with anyio.CancelScope() as scope:
        async with current_event_loop().tasks() as tasks:
            tasks.start(stubborn)
            scope.cancel()
    assert scope.cancelled_caught
    assert done == [True]
    assert len(waits) == 2
