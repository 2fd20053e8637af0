"""What a task group promises, on each event loop, and what it adds to anyio's on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from starlette_sse.eventloop import TaskGroup, current_event_loop, running_event_loop

pytestmark = pytest.mark.anyio


class TaskError(Exception):
    pass


async def fail() -> None:
    raise TaskError


async def until_cancelled(notes: list[str]) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        notes.append("cancelled")


async def stubborn(notes: list[str]) -> None:
    """Catch as many cancellations as a task hardly ever does."""
    for _ in range(3):
        try:
            await anyio.sleep_forever()
        except BaseException:
            notes.append("caught")
    await anyio.sleep_forever()


async def check_no_cancellation_is_left() -> None:
    await checkpoint()
    if running_event_loop() == "asyncio":
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


async def in_a_task(function: Callable[[], Coroutine[Any, Any, object]]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function)


async def test_the_block_is_left_when_its_tasks_have_ended() -> None:
    """Nothing cancels them but an error or cancel()."""
    started = anyio.current_time()
    async with current_event_loop().task_group() as tasks:
        tasks.start_soon(anyio.sleep, 1, name="one")
        tasks.start_soon(anyio.sleep, 2, name="two")
        await checkpoint()
        assert {"one", "two"} <= {task.name for task in anyio.get_running_tasks()}
    assert anyio.current_time() - started == pytest.approx(2)


async def test_cancelling_lasts() -> None:
    """A task that catches one cancellation, or several, ends all the same; and one that has not begun."""
    notes: list[str] = []
    async with current_event_loop().task_group() as tasks:
        tasks.start_soon(stubborn, notes, name="stubborn")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(anyio.sleep_forever, name="late")
        tasks.cancel()
    assert notes == ["caught"] * 3


async def test_an_error_of_the_block_leaves_as_it_is() -> None:
    """No group around it, and the tasks are cancelled."""
    notes: list[str] = []
    with pytest.raises(LookupError, match="mine"):
        async with current_event_loop().task_group() as tasks:
            tasks.start_soon(until_cancelled, notes, name="other")
            await anyio.wait_all_tasks_blocked()
            raise LookupError("mine")
    assert notes == ["cancelled"]


async def test_a_task_that_fails_cancels_the_block_and_the_others() -> None:
    """What it raised is raised in a group, as anyio's does, and the cancellation goes no further."""
    notes: list[str] = []
    with pytest.raises(ExceptionGroup) as raised:
        async with current_event_loop().task_group() as tasks:
            tasks.start_soon(until_cancelled, notes, name="other")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(fail, name="failing")
            tasks.start_soon(fail, name="failing too")
            await until_cancelled(notes)
    assert [type(error) for error in raised.value.exceptions] == [TaskError, TaskError]
    assert notes == ["cancelled", "cancelled"]
    await check_no_cancellation_is_left()


async def test_a_task_that_fails_while_the_others_are_awaited_ends_them() -> None:
    """The block is over, so nobody is cancelled but they."""
    notes: list[str] = []

    async def fail_later() -> None:
        await anyio.sleep(1)
        await fail()

    with pytest.raises(ExceptionGroup):
        async with current_event_loop().task_group() as tasks:
            tasks.start_soon(until_cancelled, notes, name="other")
            tasks.start_soon(fail_later, name="failing")
    assert notes == ["cancelled"]
    await check_no_cancellation_is_left()


@pytest.mark.parametrize("where", ["in the block", "at its end"])
async def test_a_cancelled_scope_around_the_block_ends_its_tasks(where: str) -> None:
    """For good, and whoever waits for their cleaning up just waits."""
    notes: list[str] = []

    async def tidy() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            # Virtual time would stand still for ever if anybody were busy meanwhile.
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
            notes.append("tidied")

    started = anyio.current_time()
    with anyio.move_on_after(1) as scope:
        async with current_event_loop().task_group() as tasks:
            tasks.start_soon(stubborn, notes, name="stubborn")
            tasks.start_soon(tidy, name="tidy")
            if where == "in the block":
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert anyio.current_time() - started == pytest.approx(6)
    assert notes == ["caught"] * 3 + ["tidied"]


class TestOnAsyncio:
    """The block may be left in another task."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_it_is_left_in_another_task(self) -> None:
        """The one that entered it may have ended."""
        notes: list[str] = []
        group = current_event_loop().task_group()
        await in_a_task(group.__aenter__)
        group.start_soon(until_cancelled, notes, name="it")
        await anyio.wait_all_tasks_blocked()

        async def leave() -> None:
            group.cancel()
            await group.__aexit__(None, None, None)

        await in_a_task(leave)
        assert notes == ["cancelled"]

    async def test_scopes_between_entering_and_leaving_are_in_order(self) -> None:
        """One of the entering task, and one of the leaving."""
        group = current_event_loop().task_group()

        async def enter() -> None:
            with anyio.CancelScope():
                await group.__aenter__()
            await checkpoint()

        async def leave() -> None:
            with anyio.move_on_after(0.01) as scope:
                group.start_soon(anyio.sleep_forever, name="it")
                await group.__aexit__(None, None, None)
            assert scope.cancelled_caught
            await checkpoint()

        await in_a_task(enter)
        await in_a_task(leave)

    async def test_who_leaves_is_told_what_failed_if_who_entered_has_ended(self) -> None:
        """Nobody else is cancelled for it."""
        group: TaskGroup = current_event_loop().task_group()
        await in_a_task(group.__aenter__)
        group.start_soon(fail, name="it")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ExceptionGroup) as raised:
            await group.__aexit__(None, None, None)
        assert [type(error) for error in raised.value.exceptions] == [TaskError]

    async def test_a_native_cancellation_while_the_tasks_are_awaited_ends_them(self) -> None:
        """It is raised when they have ended."""
        notes: list[str] = []

        async def use() -> None:
            async with current_event_loop().task_group() as tasks:
                tasks.start_soon(stubborn, notes, name="it")

        task = asyncio.ensure_future(use())
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert notes == ["caught"] * 3

    async def test_a_task_that_somebody_else_cancels_cancels_the_block(self) -> None:
        """As one that fails, for it has not done its work."""
        notes: list[str] = []

        async def give_up() -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            async with current_event_loop().task_group() as tasks:
                tasks.start_soon(until_cancelled, notes, name="other")
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(give_up, name="it")
                await until_cancelled(notes)
        assert notes == ["cancelled", "cancelled"]
        group = current_event_loop().task_group()
        await in_a_task(group.__aenter__)
        group.start_soon(give_up, name="it")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(asyncio.CancelledError, match="it was cancelled by somebody else"):
            await group.__aexit__(None, None, None)

    async def test_a_task_that_is_cancelled_may_raise_a_cancellation_of_its_own(self) -> None:
        """Somebody's wrapper around it does; it has ended as it was told."""

        async def give_up() -> None:
            with suppress(asyncio.CancelledError):
                await anyio.sleep_forever()
            raise asyncio.CancelledError

        async with current_event_loop().task_group() as tasks:
            tasks.start_soon(give_up, name="it")
            await anyio.wait_all_tasks_blocked()
            tasks.cancel()
