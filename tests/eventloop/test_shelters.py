"""What a shelter promises, on each event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from starlette_sse.eventloop import Shelter, current_event_loop
from starlette_sse.testing import virtual_backend

pytestmark = pytest.mark.anyio

Body = Callable[[Shelter], Awaitable[None]]


async def sheltered(body: Body, meanwhile: Body) -> None:
    """Run ``body`` in a task of its own and in a shelter, and then ``meanwhile`` beside it."""
    loop, begun, left = current_event_loop(), anyio.Event(), anyio.Event()
    shelter = Shelter(loop)

    async def run() -> None:
        with shelter:
            begun.set()
            await body(shelter)
        left.set()

    async with loop.tasks() as tasks:
        tasks.start(run)
        await begun.wait()
        await meanwhile(shelter)
    assert left.is_set(), "the task was cancelled and not just its block"


async def test_one_cancellation_after_which_the_task_may_await() -> None:
    """An interrupted task cleans up as long as it likes."""
    notes: list[str] = []

    async def body(shelter: Shelter) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            notes.append("interrupted")
            await anyio.sleep(1)
            with anyio.CancelScope():
                await checkpoint()
            notes.append("cleaned up")

    async def meanwhile(shelter: Shelter) -> None:
        shelter.interrupt(lambda: True)

    await sheltered(body, meanwhile)
    assert notes == ["interrupted", "cleaned up"]


async def test_outer_cancellation_does_not_reach_it() -> None:
    """The task goes on to its own end, and the cancellation then goes on its way."""
    notes: list[str] = []
    cancelled = anyio.Event()

    async def body(shelter: Shelter) -> None:
        await cancelled.wait()
        await checkpoint()
        notes.append("completed")

    async def meanwhile(shelter: Shelter) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    with anyio.move_on_after(1) as scope:
        await sheltered(body, meanwhile)
    assert notes == ["completed"]
    assert scope.cancelled_caught


async def test_nothing_happens_that_is_not_wanted_any_more() -> None:
    """Who asks for an interruption says when it is too late for it."""
    notes: list[str] = []

    async def body(shelter: Shelter) -> None:
        await anyio.sleep(1)
        notes.append("completed")

    async def meanwhile(shelter: Shelter) -> None:
        shelter.interrupt(lambda: False)

    await sheltered(body, meanwhile)
    assert notes == ["completed"]


async def test_a_task_that_interrupts_itself_comes_to_where_it_waits() -> None:
    """What is under way completes, as the last statements before an ``await`` do."""
    notes: list[str] = []

    async def body(shelter: Shelter) -> None:
        shelter.interrupt(lambda: True)
        notes.append("went on")
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(1)
            notes.append("cleaned up")

    async def meanwhile(shelter: Shelter) -> None:
        pass

    await sheltered(body, meanwhile)
    assert notes == ["went on", "cleaned up"]


@pytest.mark.parametrize("how", ["interrupt", "cut"])
async def test_a_shield_of_the_task_s_own_is_respected(how: str) -> None:
    """Also one around the scope that it waits in; the cancellation comes when the shield is left."""
    notes: list[str] = []

    async def body(shelter: Shelter) -> None:
        with anyio.CancelScope(shield=True), anyio.CancelScope():
            await anyio.sleep(3)
            notes.append("completed")
        with anyio.CancelScope():
            await anyio.sleep_forever()

    async def meanwhile(shelter: Shelter) -> None:
        if how == "cut":
            shelter.cut()
        else:
            shelter.interrupt(lambda: True)

    await sheltered(body, meanwhile)
    assert notes == ["completed"]


class Worker:
    """Works in threads: the first call takes until it may end, the others no time."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        self.may_end.wait(10)

    async def begun(self) -> None:
        """Wait until the first call is under way."""
        while not self.calls:
            await checkpoint()


@pytest.mark.parametrize("anyio_backend", [virtual_backend("asyncio")])
async def test_a_task_that_is_always_in_a_thread_is_interrupted_between_two_calls() -> None:
    """A call cannot be cancelled, and who polls in threads waits for nothing else."""
    worker = Worker()
    notes: list[str] = []

    async def body(shelter: Shelter) -> None:
        try:
            while worker.calls < 1000:
                await anyio.to_thread.run_sync(worker)
        finally:
            await anyio.sleep(1)
            notes.append("cleaned up")

    async def meanwhile(shelter: Shelter) -> None:
        await worker.begun()
        shelter.interrupt(lambda: True)
        worker.may_end.set()

    await sheltered(body, meanwhile)
    assert (worker.calls, notes) == (1, ["cleaned up"])


async def test_a_cut_reaches_a_task_between_two_calls_in_threads() -> None:
    """As soon as the first of them has returned."""
    worker = Worker()

    async def body(shelter: Shelter) -> None:
        while worker.calls < 1000:
            await anyio.to_thread.run_sync(worker)

    async def meanwhile(shelter: Shelter) -> None:
        await worker.begun()
        shelter.cut()
        worker.may_end.set()

    await sheltered(body, meanwhile)
    assert worker.calls == 1


async def test_a_cut_is_told_to_a_thread_that_asks() -> None:
    """``anyio.from_thread.check_cancelled`` raises in what the sheltered task waits for."""
    told: list[bool] = []
    begun = False

    def work() -> None:
        nonlocal begun
        begun = True
        end = time.monotonic() + 10
        try:
            while time.monotonic() < end:
                anyio.from_thread.check_cancelled()
                time.sleep(0.001)
        except BaseException:
            told.append(True)
            raise

    async def body(shelter: Shelter) -> None:
        await anyio.to_thread.run_sync(work)

    async def meanwhile(shelter: Shelter) -> None:
        while not begun:
            await checkpoint()
        shelter.cut()

    await sheltered(body, meanwhile)
    assert told == [True]


async def test_a_cut_cancels_what_swallows_it_again() -> None:
    """Whoever goes on after a cancellation is cancelled once more."""
    notes: list[str] = []

    async def body(shelter: Shelter) -> None:
        for number in range(3):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                notes.append(str(number))

    async def meanwhile(shelter: Shelter) -> None:
        shelter.cut()

    await sheltered(body, meanwhile)
    assert notes == ["0", "1", "2"]


async def test_a_task_group_inside_ends_with_its_tasks() -> None:
    """An interruption ends the tasks that the sheltered one has started, and they may clean up as well."""
    notes: list[str] = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            notes.append("child")

    async def body(shelter: Shelter) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(child)
                await anyio.sleep_forever()
        finally:
            await checkpoint()
            notes.append("parent")

    async def meanwhile(shelter: Shelter) -> None:
        shelter.interrupt(lambda: True)

    await sheltered(body, meanwhile)
    assert notes == ["child", "parent"]


async def test_an_error_goes_on_its_way() -> None:
    """A shelter swallows nothing but its own cancellation."""
    shelter = Shelter(current_event_loop())
    with pytest.raises(ValueError, match="mine"), shelter:
        raise ValueError("mine")
