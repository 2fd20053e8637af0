"""Finds the test's own line on the stack."""

from __future__ import annotations

import inspect

__all__ = ["place_in_test"]

#: Whose frames lie between the test and the app.
BETWEEN = frozenset({"starlette_sse", "httpx", "httpx2", "httpx_sse", "contextlib"})


def place_in_test() -> str:
    """Return the place in the test that led here, as ``file:line``."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "an unknown place"
