"""An event loop that counts, for asserting what no clock can: how much is done, not how fast."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple, Unpack

__all__ = ["CountingLoop", "count"]

Arguments = TypeVarTuple("Arguments")


class CountingLoop(asyncio.SelectorEventLoop):
    """Asyncio's own loop; it counts the callbacks that are called soon, of which waking a task is one."""

    callbacks = 0

    def call_soon(
        self, callback: Callable[[Unpack[Arguments]], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        self.callbacks += 1
        return super().call_soon(callback, *args, context=context)


def count() -> dict[str, int]:
    """Return how many tasks the running loop has, and what it has counted if it is one that counts."""
    loop = asyncio.get_running_loop()
    return {"callbacks": getattr(loop, "callbacks", 0), "tasks": len(asyncio.all_tasks())}
