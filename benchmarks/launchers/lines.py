"""Children that are told what to do by lines of JSON on their standard input, and answer each with one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.servers import ServerError

__all__ = ["Child", "speaking"]

ROOT = Path(__file__).parent.parent.parent

#: Seconds for a child to start, and to answer.
PATIENCE = 60.0


class Child:
    """A process that serves alone."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process

    @property
    def pids(self) -> Sequence[int]:
        return [self._process.pid]

    async def tell(self, do: str, **arguments: Any) -> Any:
        """Have it do something and return the result.

        :raises ServerError: it has died.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return (await self._answer()).get("result")

    async def port(self) -> int:
        """Wait until it accepts connections, and return where.

        :raises ServerError: it has died.
        """
        port: int = (await self._answer())["port"]
        return port

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        if not line:
            raise ServerError(f"{self._name} has died; what it wrote to the standard error says why")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def speaking(name: str, *command: str) -> AsyncIterator[Child]:
    """Start a child. Its first answer is the port, as soon as it accepts connections."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        yield Child(name, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
