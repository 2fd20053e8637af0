"""What tasks beside a block promise: who leaves it has waited for them, and nothing else ends them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import anyio
import pytest

from starlette_sse.eventloop import current_event_loop

pytestmark = pytest.mark.anyio


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
