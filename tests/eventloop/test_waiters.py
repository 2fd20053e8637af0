"""What waiters, callbacks, tasks beside a block and interruptions promise: no wake is lost, and none comes twice."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import anyio
import pytest

from starlette_sse.eventloop import current_event_loop, on_trio
from starlette_sse.eventloop.on_trio import ScheduledWatch
from starlette_sse.testing import virtual_backend

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


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_waits_for_tasks_does_so_however_often_it_is_cancelled(anyio_backend: str) -> None:
    """As by a time limit and a server's end together."""
    goes_on = asyncio.Event()
    done: list[bool] = []

    async def stubborn() -> None:
        await goes_on.wait()
        done.append(True)

    async def wait() -> None:
        async with current_event_loop().tasks() as tasks:
            tasks.start(stubborn)

    task = asyncio.ensure_future(wait())
    for _ in range(3):
        await anyio.wait_all_tasks_blocked()
        task.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not task.done()
    goes_on.set()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert done == [True]


async def test_tasks_that_have_ended_are_let_go() -> None:
    """A stream that lasts for days asks for its right again each minute."""
    ended: weakref.WeakSet[Any] = weakref.WeakSet()

    async def ask() -> None: ...

    async with current_event_loop().tasks() as tasks:
        for _ in range(10):
            ended.add(tasks.start(ask))
            await anyio.sleep(60)
        gc.collect()
        assert len(ended) <= 1


async def test_who_asks_for_a_callback_does_not_lend_it_its_context_variables() -> None:
    """What is published by one request is sent to others, whose log must not name it."""
    variable: ContextVar[str] = ContextVar("variable", default="nobody")
    seen: dict[str, str] = {}

    def look(when: str) -> None:
        seen[when] = variable.get()

    loop = current_event_loop()
    variable.set("caller")
    loop.call_soon(partial(look, "soon"))
    loop.call_at(loop.time() + 1, partial(look, "later"))
    loop.call_at(loop.time() + 1, partial(look, "lent"), copy_context())
    await anyio.sleep(2)
    assert seen == {"soon": "nobody", "later": "nobody", "lent": "caller"}


async def test_a_block_that_is_interrupted_twice_is_left_once() -> None:
    """And nothing of it reaches what comes behind."""
    block = current_event_loop().interruption()

    async def interrupt() -> None:
        block.interrupt()
        block.interrupt()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(interrupt)
        with block:
            await anyio.sleep_forever()
        await anyio.sleep(1)


async def test_a_turn_has_one_time() -> None:
    """So a task can tell that it has not waited."""
    loop = current_event_loop()
    assert [loop.turn(1.0), loop.turn(2.0)] == [1.0, 1.0]
    await anyio.sleep(1)
    assert [loop.turn(3.0), loop.turn(4.0)] == [3.0, 3.0]


@pytest.mark.parametrize("woken", ["before", "behind"])
async def test_a_callback_comes_behind_the_next_step_of_a_task(woken: str) -> None:
    """Whether the task was woken before it was asked for or is woken behind that."""
    loop, notes = current_event_loop(), list[str]()
    waiter, waiting = loop.waiter(), list[object]()

    async def wait() -> None:
        waiting.append(loop.current_task())
        await waiter.wait()
        notes.append("moved")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(1)
        if woken == "before":
            waiter.wake()
        loop.when_moved(waiting[0], partial(notes.append, "called"))
        assert notes == []
        if woken == "behind":
            waiter.wake()
    await anyio.sleep(1)
    assert notes == ["moved", "called"]


@pytest.mark.parametrize("where", ["in the block", "at its end"])
async def test_tasks_are_not_cancelled_with_their_block(where: str) -> None:
    """It waits for them, and lets the cancellation pass as what it is: no group."""
    loop = current_event_loop()
    left: list[type[BaseException]] = []
    done: list[bool] = []

    async def work() -> None:
        await anyio.sleep(5)
        done.append(True)

    async def use() -> None:
        async with loop.tasks() as tasks:
            tasks.start(work)
            if where == "in the block":
                await anyio.sleep_forever()

    with anyio.move_on_after(1):
        try:
            await use()
        except BaseException as error:
            left.append(type(error))
            raise
    assert done == [True]
    assert left in ([], [loop.cancelled])


@pytest.mark.parametrize("anyio_backend", [virtual_backend("trio")])
async def test_trio_is_watched_no_longer_than_it_takes_to_cancel(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each step of each task would go through all that was ever left."""
    watches: list[ScheduledWatch] = []

    class Kept(ScheduledWatch):
        def __init__(self) -> None:
            watches.append(self)

    monkeypatch.setattr(on_trio, "ScheduledWatch", Kept)
    loop = current_event_loop()
    assert not loop.reaches(loop.current_task(), lambda: None)
    await anyio.sleep(1)
    assert [watch.seen for watch in watches] == [False]
