"""Structlog's events as a test reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.typing import EventDict

__all__ = ["CapturedLogs", "capture_logs"]


class CapturedLogs(list[EventDict]):
    """Every structlog event so far, in order: what was logged as a mapping, with its ``log_level``."""

    def named(self, event: str) -> list[EventDict]:
        """Return the events of this name, such as ``stream.closed``."""
        return [entry for entry in self if entry["event"] == event]


@contextmanager
def capture_logs() -> Iterator[CapturedLogs]:
    """Keep what is logged by structlog instead of printing it, whatever levels and processors are configured.

    Structlog's configuration is the process's, so one test at a time can do this; afterwards it is as before.
    """
    captured = CapturedLogs()

    def keep(logger: Any, method: str, event: EventDict) -> EventDict:
        captured.append({**event, "log_level": method})
        raise structlog.DropEvent

    configured, before = structlog.is_configured(), structlog.get_config()
    processors = before["processors"]
    # Loggers bound or cached before hold this very list, so it is changed in place.
    shared = processors if isinstance(processors, list) else []
    kept = list(shared)
    shared[:] = [keep]
    structlog.configure(processors=shared, wrapper_class=unfiltered(before["wrapper_class"]))
    try:
        yield captured
    finally:
        shared[:] = kept
        if configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()


def unfiltered(wrapper_class: type[Any]) -> type[Any]:
    """Return the class of loggers that let every level through, if it is structlog's own that may not."""
    if wrapper_class.__name__.startswith("BoundLoggerFilteringAt"):
        return structlog.make_filtering_bound_logger(0)
    return wrapper_class
