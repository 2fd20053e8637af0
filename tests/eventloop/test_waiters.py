"""What waiters promise: no wake is lost, and none comes twice."""

from __future__ import annotations

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
