"""Starting a contestant's process, telling it what to do, and measuring it from outside."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestants import USUAL, Terms

__all__ = ["Server", "ServerError", "ServerOptions", "cpu_seconds", "resident_bytes", "running"]

ROOT = Path(__file__).parent.parent

#: Seconds for a server to start, and to answer.
PATIENCE = 60.0


class ServerError(Exception):
    """Raised when a contestant's process does not start or dies; its own words are on the standard error."""


@dataclass(frozen=True)
class ServerOptions:
    """How every contestant is served."""

    loop: str = "asyncio"
    http: str = "httptools"


class Server:
    """A contestant that is running."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, port: int) -> None:
        self.name = name
        self.port = port
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used, user and system."""
        return cpu_seconds(self.pid)

    def resident(self) -> int:
        """Return the bytes of memory that it holds."""
        return resident_bytes(self.pid)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def tell(self, do: str, **arguments: Any) -> Any:
        """Have it do something and return the result.

        :raises ServerError: it has died.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return (await read_answer(self.name, self._process)).get("result")


@asynccontextmanager
async def running(name: str, options: ServerOptions, terms: Terms = USUAL) -> AsyncIterator[Server]:
    """Run the contestant of that name in a process of its own.

    :raises ServerError: it does not start.
    """
    settings = {"contestant": name, "loop": options.loop, "http": options.http, "terms": asdict(terms)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.serve",
        json.dumps(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        port = (await read_answer(name, process))["port"]
        yield Server(name, process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def read_answer(name: str, process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
    if not line:
        raise ServerError(f"{name} has died; what it wrote to the standard error says why")
    answer: dict[str, Any] = json.loads(line)
    return answer


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a whole process by its own clock (see clock_getcpuclockid), to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process that is its own: what libraries share is left out."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Anonymous:\s+(\d+) kB$", rollup, re.MULTILINE)
    if found is None:
        raise ServerError("this kernel tells no anonymous memory in smaps_rollup; use Linux 4.14 or newer")
    return int(found[1]) * 1024
