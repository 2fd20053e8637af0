"""Programs of the system: finding them, and running one that serves a port."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from benchmarks.servers import MissingPartError, ServerError

__all__ = ["find", "free_port", "serving", "version_of"]

#: Seconds for a program to accept connections, and to end.
PATIENCE = 20.0


def find(program: str, package: str) -> str:
    """Return the path of a program.

    :param package: what Debian calls the package that has it.
    :raises MissingPartError: it is not installed.
    """
    # A user's path leaves out where Debian puts servers.
    found = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    if found is None:
        raise MissingPartError(f"{program} is not installed (Debian: apt-get install {package})")
    return found


def version_of(*command: str) -> str:
    """Return the first number with points that a command prints."""
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", told.stdout + told.stderr)
    return found[0] if found is not None else "unknown"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def serving(name: str, port: int, command: Sequence[str]) -> AsyncIterator[int]:
    """Run a program that serves a port, and give its process's number as soon as it accepts connections.

    :raises ServerError: it does not come to that.
    """
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    try:
        await accepting(name, port, process)
        yield process.pid
    finally:
        await end(process)


async def accepting(name: str, port: int, process: asyncio.subprocess.Process) -> None:
    give_up = time.monotonic() + PATIENCE
    while process.returncode is None and time.monotonic() < give_up:
        with suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.01)
    raise ServerError(f"{name} does not start; what it wrote to the standard error says why")


async def end(process: asyncio.subprocess.Process) -> None:
    """End a program as an operator does, so that it ends its own processes."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), PATIENCE)
    except TimeoutError:
        process.kill()
        await process.wait()
