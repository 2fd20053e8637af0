"""The two packages that a test compares."""

from __future__ import annotations

import sse_starlette
import sse_starlette.sse
import uvicorn

import starlette_sse

__all__ = ["BOTH", "sse_starlette", "starlette_sse"]

# Importing sse-starlette patches uvicorn for the whole process, which no other test may meet.
uvicorn.Server.handle_exit = sse_starlette.sse.AppStatus.original_handler  # type: ignore[method-assign,assignment]

BOTH = [sse_starlette, starlette_sse]
