"""What a server's own cancellation does while a stream ends, and that no task outlives its stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from starlette_sse import CloseReason
from starlette_sse.eventloop import current_event_loop
from tests.streams.apps import Noting
from tests.visits import Visit, scope_of
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_tasks_have_ended_when_their_block_is_left() -> None:
    """Whoever leaves it need not know them."""
    ended = []

    async def work() -> None:
        await anyio.sleep(5)
        ended.append(anyio.current_time())

    async with current_event_loop().tasks() as tasks:
        tasks.start(work)
        tasks.start(work)
    assert len(ended) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_task_that_is_cancelled_during_the_cleanup_is_cancelled_after_it() -> None:
    """The cleanup runs to its end, and the cancellation is not lost."""
    gone, cleaning, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                cleaning.set()
                await go_on.wait()
                self.notes.append("cleaned up")

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            self.notes.append(reason)

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            gone.set()

    async def run() -> None:
        await Slow(scope_of(), receive, send)

    task = asyncio.ensure_future(run())
    await cleaning.wait()
    # The stream's task comes to wait for the cleanup.
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert Slow.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("times", [2, 3, 5])
async def test_cancellations_that_come_one_after_the_other_cut_no_step_of_the_cleanup(
    times: int,
) -> None:
    """As by a time limit, a server's end and that of the event loop together; asyncio's own know no shield."""

    class Slow(Noting):
        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            self.notes.append("disconnecting")
            await super().on_disconnect(request, reason)

    opened = asyncio.Event()

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            opened.set()

    async def run() -> None:
        scope = scope_of()
        await Slow(scope, receive, send)

    for moment in ("opened", "cleaned up", "disconnecting"):
        Slow.notes.clear()
        opened.clear()
        task = asyncio.ensure_future(run())
        await opened.wait()
        if moment != "opened":
            task.cancel()
            await until(lambda: moment in Slow.notes)  # noqa: B023 - it is asked at once
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert Slow.notes == ["connected", "cleaned up", "disconnecting", CloseReason.CANCELLED], moment


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_client_that_goes_as_a_scope_is_cancelled_leaves_the_scope_its_own() -> None:
    """Both are delivered as one, which anyio has to know for its scope's."""

    class Brief(Noting):
        pause = 0.0

    for turns in range(6):
        gone = asyncio.Event()

        async def receive(gone: asyncio.Event = gone) -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)

        async def run(request: anyio.CancelScope, receive: Any = receive) -> None:
            scope = scope_of()
            with request:
                await Brief(scope, receive, send)

        gone.set()
        request = anyio.CancelScope()
        task = asyncio.ensure_future(run(request))
        for _ in range(turns):
            await asyncio.sleep(0)
        request.cancel()
        await task


async def test_on_disconnect_sees_the_context_variables_of_on_connect_as_a_copy() -> None:
    """It has a task of its own, where a token of another cannot be reset."""
    user = ContextVar("user", default="nobody")

    class Own(Noting):
        async def on_connect(self, request: Request) -> None:
            self.token = user.set("ann")

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            self.notes.append(user.get())
            with pytest.raises(ValueError, match="different Context"):
                user.reset(self.token)
            user.set("bob")

    visit = Visit(Own)
    visit.left.set()
    await visit.run()
    assert "ann" in Own.notes
    assert user.get() == "ann"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_the_end_of_everything_leaves_no_hook_out() -> None:
    """The end of an event loop cancels all tasks, and among them one that was to call the hook and has not begun."""

    class Brief(Noting):
        pause = 0.0

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            self.notes.append(reason)

    for turns in range(12):
        Brief.notes.clear()
        visit = Visit(Brief)
        others = asyncio.all_tasks()
        task = asyncio.ensure_future(visit.run())
        await anyio.wait_all_tasks_blocked()
        visit.left.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        for each in asyncio.all_tasks() - others:
            each.cancel()
        await asyncio.wait([task])
        assert [isinstance(note, CloseReason) for note in Brief.notes].count(True) == 1, turns
