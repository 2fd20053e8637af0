"""What callbacks promise: when they come, and in which context."""

from __future__ import annotations

import sys
from contextvars import ContextVar, copy_context
from functools import partial
from types import ModuleType

import anyio
import pytest

from starlette_sse.eventloop import current_event_loop, running_event_loop

pytestmark = pytest.mark.anyio


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


async def test_a_trio_that_another_thread_is_importing_is_not_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody runs in it yet, and half of it is there."""
    monkeypatch.setitem(sys.modules, "trio", ModuleType("trio"))
    monkeypatch.setitem(sys.modules, "trio.lowlevel", ModuleType("trio.lowlevel"))
    assert running_event_loop() in ("asyncio", None)
