"""Waiting for what another task, thread or process brings about."""

from __future__ import annotations

from collections.abc import Callable

import anyio

__all__ = ["until"]


async def until(reached: Callable[[], object]) -> None:
    """Wait until a condition holds, with a deadline that only a fault meets."""
    with anyio.fail_after(20):
        while not reached():
            await anyio.sleep(0.005)
