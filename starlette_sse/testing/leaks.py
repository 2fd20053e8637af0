"""Finds what a test left running."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio import TaskInfo

from starlette_sse.eventloop import running_trio
from starlette_sse.testing.exceptions import StillRunningError

if TYPE_CHECKING:
    from starlette_sse.broker import Broker

__all__ = ["nothing_left_running"]


@asynccontextmanager
async def nothing_left_running(*brokers: Broker) -> AsyncIterator[None]:
    """Check that a block leaves no task behind, and no subscription to the brokers::

        async with nothing_left_running(broker), SSETestClient(app) as client:
            ...

    Streams that stay registered need no check of their own: the client looks for them when it closes. Trio's system
    tasks, which end with the run, do not count.

    :raises StillRunningError: something is left; the message names it.
    """
    before = {task.id for task in tasks()}
    subscriptions = [broker.health().subscriptions for broker in brokers]
    yield
    await anyio.wait_all_tasks_blocked()
    # Fixtures may be set up and torn down in different tasks.
    before.add(anyio.get_current_task().id)
    left = [f"the task {named(task)}" for task in tasks() if task.id not in before]
    for broker, count in zip(brokers, subscriptions, strict=True):
        more = broker.health().subscriptions - count
        if more > 0:
            left.append(f"{more} subscriptions to {broker!r}")
    if left:
        raise StillRunningError("left running: " + ", ".join(left))


def tasks() -> list[TaskInfo]:
    """Return the running tasks but trio's system tasks, which are children of its root."""
    trio = running_trio()
    root = id(trio.lowlevel.current_root_task()) if trio is not None else None
    return [task for task in anyio.get_running_tasks() if root is None or task.parent_id != root]


def named(task: TaskInfo) -> str:
    """Return a task's name, and what it runs: asyncio only numbers tasks."""
    runs = getattr(task.coro, "__qualname__", "")
    return f"{task.name} ({runs})" if runs and runs not in (task.name or "") else str(task.name)
