"""Warnings that each run of an event loop gives once: what goes wrong for one stream goes wrong for many."""

from __future__ import annotations

import logging

from starlette_sse.eventloop import EventLoop

__all__ = ["warn_once"]

KEY = "starlette_sse_notices"


def warn_once(loop: EventLoop, warning: str, *args: object) -> None:
    """Log ``warning % args`` by the standard library's logging, unless that text has been logged in this loop."""
    given: set[str] = loop.locals.setdefault(KEY, set())
    if warning not in given:
        given.add(warning)
        logging.getLogger("starlette_sse").warning(warning, *args)
