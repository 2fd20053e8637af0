"""A contestant that is running: telling it what to do, and measuring its processes from outside."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.contestants import Terms

__all__ = [
    "Control",
    "Launcher",
    "MissingPartError",
    "Server",
    "ServerError",
    "ServerOptions",
    "cpu_seconds",
    "resident_bytes",
]


class ServerError(Exception):
    """Raised when a contestant does not start or dies; its own words are on the standard error."""


class MissingPartError(Exception):
    """Raised when something that a contestant runs on is not installed; it says what, and how to install it."""


@dataclass(frozen=True)
class ServerOptions:
    """How every contestant is served that runs under uvicorn."""

    loop: str = "asyncio"
    http: str = "httptools"


class Control(Protocol):
    """What a launcher gives to reach the processes that it has started."""

    @property
    def pids(self) -> Sequence[int]:
        """Return every process that serves."""

    async def tell(self, do: str, **arguments: Any) -> Any:
        """Have it do something and return the result.

        ``publish`` takes ``count`` and ``size``, and returns when the events are on their way. ``count`` tells as
        ``tasks`` how many tasks there are, or how many open streams, of those that have no tasks. What else there is
        differs.

        :raises ServerError: a process has died.
        """


@dataclass(frozen=True)
class Server:
    """A contestant that is running."""

    name: str
    port: int
    control: Control
    beside: Mapping[str, int] = field(default_factory=dict)
    """The processes that it leans on, by name; they are told apart."""

    async def tell(self, do: str, **arguments: Any) -> Any:
        """Have it do something and return the result: see :meth:`Control.tell`."""
        return await self.control.tell(do, **arguments)

    def cpu(self) -> float:
        """Return the seconds of CPU that its processes have used, user and system."""
        return sum(map(cpu_seconds, self.control.pids))

    def cpu_beside(self) -> dict[str, float]:
        """Return the same of each process beside it."""
        return {name: cpu_seconds(pid) for name, pid in self.beside.items()}

    def resident(self) -> int:
        """Return the bytes of memory that its processes hold."""
        return sum(map(resident_bytes, self.control.pids))

    def kill(self) -> None:
        """End it at once."""
        for pid in self.control.pids:
            os.kill(pid, signal.SIGKILL)


class Launcher(Protocol):
    """A way to run contestants."""

    def prepare(self) -> None:
        """See that everything is there; install what belongs to this suite alone.

        :raises MissingPartError: something is missing.
        """

    def versions(self) -> dict[str, str]:
        """Return the version of each part that is none of Python's packages. It is prepared."""

    def launch(self, name: str, options: ServerOptions, terms: Terms) -> AbstractAsyncContextManager[Server]:
        """Run the contestant of that name in processes of its own, which end with the block.

        :raises ServerError: it does not start.
        """


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a whole process by its own clock (see clock_getcpuclockid), to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process that is its own: what libraries share is left out.

    Of memory that it shares with processes of the same server each counts its part.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = dict(re.findall(r"^(Anonymous|Pss_Shmem):\s+(\d+) kB$", rollup, re.MULTILINE))
    if len(found) < 2:
        raise ServerError("this kernel tells no Pss_Shmem in smaps_rollup; use Linux 5.9 or newer")
    return sum(map(int, found.values())) * 1024
