"""The processes of the soak, each of which can die, stand still and come back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import psutil

from starlette_sse.broker import Position
from tests.servers import processes
from tests.servers.processes import PATIENCE, ROOT, Program, free_port
from tests.soak.broadcast.ledger import Ledger

__all__ = ["PublisherProcess", "Worker"]


class Worker:
    """A uvicorn that serves streams, on the same port each time."""

    def __init__(self, directory: Path, url: str) -> None:
        self.port = free_port()
        self._directory = directory
        self._url = url
        self._program: Program | None = None

    def start(self) -> None:
        """Start it, and return when it serves; a server that refuses for now ends the start, which is tried again."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self._start()
            except RuntimeError as exc:
                if "RefusedError" not in str(exc) or time.monotonic() > end:
                    raise

    def _start(self) -> None:
        command = (sys.executable, "-m", "uvicorn", "tests.soak.broadcast.app:app", "--no-access-log")
        options = ("--port", str(self.port), "--app-dir", str(ROOT), "--timeout-graceful-shutdown", "5")
        environ = {"BROKER": self._url, "PYTHONPATH": str(ROOT)}
        self._program = processes.start(
            lambda port: [*command, *options], self._directory, processes.accepts, environ, self.port
        )

    def kill(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.kill()

    def stop(self) -> None:
        """End it as an operator does, within bounds."""
        if self._program is not None:
            self._program.stop()
            self.kill()

    def suspend(self) -> None:
        if self._program is not None:
            self._program.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._program is not None:
            self._program.process.send_signal(signal.SIGCONT)

    async def health(self) -> dict[str, Any]:
        """Return what it tells of itself; an error of its own if it doesn't."""
        try:
            async with httpx.AsyncClient(timeout=2) as client:
                found = (await client.get(f"http://127.0.0.1:{self.port}/health")).json()
        except httpx.HTTPError as exc:
            return {"error": repr(exc)}
        return {**found, "files": 0 if self._program is None else psutil.Process(self._program.process.pid).num_fds()}


class PublisherProcess:
    """Publishers in a process, whose words go to the ledger."""

    def __init__(self, ledger: Ledger, url: str, name: str, seed: str) -> None:
        self._ledger = ledger
        self._url = url
        self.name = name
        self._seed = seed
        self._lives = count()
        self._process: asyncio.subprocess.Process | None = None
        self._newest: Position | None = None
        self.published = 0
        self.error: str | None = "not asked yet"
        self.paused = False

    async def run(self) -> None:
        """Keep it running until cancelled, each time under another name."""
        while True:
            life = f"{self.name}.{next(self._lives)}"
            command = ("-m", "tests.soak.broadcast.publishers", self._url, life, f"{self._seed} {life}")
            pipes: dict[str, Any] = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
            process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, **pipes)
            self._process, self._newest, self.paused = process, None, False
            try:
                await self._listen(process, life)
            finally:
                await self._end(process)
            if process.returncode != -signal.SIGKILL:
                self._ledger.accuse(f"the publishers {life} ended with {process.returncode}")
                await anyio.sleep(1)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Close its pipe, which tells it to end, and wait for that."""
        with anyio.CancelScope(shield=True):
            assert process.stdin is not None
            process.stdin.close()
            try:
                with anyio.fail_after(PATIENCE):
                    await process.wait()
            except TimeoutError:
                self._ledger.accuse(f"the publishers {self.name} did not end within {PATIENCE} s")
                process.kill()
                await process.wait()

    def tell(self, *words: str) -> None:
        if words[0] in {"pause", "go"}:
            self.paused = False
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(" ".join(words).encode() + b"\n")

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _listen(self, process: asyncio.subprocess.Process, life: str) -> None:
        assert process.stdout is not None
        while (line := await process.stdout.readline()).endswith(b"\n"):
            match line.decode().split():
                case ["try", number, channel, key]:
                    self._ledger.tried(f"{life}:{number}", channel, None if key == "-" else key, self._newest)
                case ["ok", number, event_id]:
                    position = self._ledger.published(f"{life}:{number}", event_id)
                    if self._newest is None or position.epoch != self._newest.epoch or position.seq > self._newest.seq:
                        self._newest = position
                    self.published += 1
                case ["no" | "doubt" as outcome, number]:
                    self._ledger.failed(f"{life}:{number}", in_doubt=outcome == "doubt")
                case ["paused"]:
                    self.paused = True
                case ["health", *words]:
                    self.error = None if words == ["ok"] else " ".join(words)
