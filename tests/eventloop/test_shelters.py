"""What a shelter promises, on each event loop and for an asyncio whose scopes anyio keeps elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from starlette_sse.eventloop import Shelter, current_event_loop, on_asyncio, shields
from starlette_sse.eventloop.scoped_shelter import ScopedShelter
from starlette_sse.testing import virtual_backend

pytestmark = pytest.mark.anyio

Body = Callable[[Shelter], Awaitable[None]]


@pytest.fixture(
    autouse=True,
    params=[
        pytest.param(("asyncio", True), id="asyncio"),
        pytest.param(("asyncio", False), id="asyncio-scopes-unknown"),
        pytest.param(("trio", True), id="trio"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    name, known = request.param
    assert shields.SCOPES_ARE_KNOWN, "anyio keeps its scopes elsewhere now: streams of generators are dearer"
    monkeypatch.setattr(on_asyncio, "SCOPES_ARE_KNOWN", known)
    return virtual_backend(name)


async def sheltered(body: Body, meanwhile: Body) -> None:
    """Run ``body`` in a task of its own and in a shelter, and then ``meanwhile`` beside it."""
    loop, begun, left = current_event_loop(), anyio.Event(), anyio.Event()
    shelter = loop.shelter()

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


async def test_a_worker_thread_is_waited_for() -> None:
    """A call that cannot be cancelled is behind a shield of anyio's own."""
    notes: list[str] = []
    may_end = threading.Event()

    def work() -> None:
        may_end.wait(10)
        notes.append("worked")

    async def body(shelter: Shelter) -> None:
        try:
            await anyio.to_thread.run_sync(work)
        finally:
            notes.append("went on")
        await anyio.sleep_forever()

    async def meanwhile(shelter: Shelter) -> None:
        shelter.interrupt(lambda: True)
        may_end.set()

    await sheltered(body, meanwhile)
    assert notes == ["worked", "went on"]


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
    shelter = current_event_loop().shelter()
    with pytest.raises(ValueError, match="mine"), shelter:
        raise ValueError("mine")


async def test_a_task_on_asyncio_holds_no_scopes_for_it(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Two of anyio's are more than a KiB of each stream; they are for where nothing else will do."""
    native = anyio_backend[0] == "asyncio" and on_asyncio.SCOPES_ARE_KNOWN  # type: ignore[attr-defined]
    assert isinstance(current_event_loop().shelter(), on_asyncio.AsyncioShelter if native else ScopedShelter)
