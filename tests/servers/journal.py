"""What an app in a server's process leaves for its test: a file of JSON lines that outlives the process."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import anyio

__all__ = ["entries", "note", "tasks"]


@cache
def journal() -> int:
    return os.open(os.environ["SSE_TEST_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(what: str, **details: Any) -> None:
    """Write a line, whole, by the clock that all processes share."""
    line = json.dumps({"what": what, "pid": os.getpid(), "at": time.monotonic(), **details})
    os.write(journal(), line.encode() + b"\n")


def entries(path: Path) -> list[dict[str, Any]]:
    """Return what was written so far."""
    lines = path.read_text().splitlines(keepends=True)
    # A line that is being written has no end yet.
    return [json.loads(line) for line in lines if line.endswith("\n")]


def tasks() -> Counter[str]:
    """Count the tasks of this event loop by what they run."""
    names = (getattr(task.coro, "__qualname__", str(task.name)) for task in anyio.get_running_tasks())
    # One system task of trio's serves all alarms of the package; it ends with the last, and keeps nothing alive.
    return Counter(name for name in names if name != "TrioEventLoop._serve_alarms")
