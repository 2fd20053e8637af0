"""Waiting for what another task, thread or process brings about, and seeing who would have to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio

__all__ = ["kept_out", "until"]


async def until(reached: Callable[[], object]) -> None:
    """Wait until a condition holds, with a deadline that only a fault meets."""
    with anyio.fail_after(20):
        while not reached():
            await anyio.sleep(0.005)


def kept_out(lock: Any) -> bool:
    """Tell whether another thread would have to wait for a lock now."""
    entered: list[bool] = []

    def knock() -> None:
        entered.append(lock.acquire(blocking=False))
        if entered[0]:
            lock.release()

    thread = threading.Thread(target=knock)
    thread.start()
    thread.join()
    return not entered[0]
