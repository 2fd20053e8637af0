"""A real Redis server for a test: its own port, directory and life."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import require
from tests.servers.processes import free_port

__all__ = ["RedisServer", "running"]

#: Seconds that a server gets to start.
PATIENCE = 20.0


class RedisServer:
    """A redis-server that can be killed and started again on the same port."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            *(require("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)),
            *("--save", "", "--enable-debug-command", "local", *options),
        ]
        self._log = directory / "redis.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it, and return when it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*self._command, *options], stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.command("PING")
            except redis.RedisError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise RuntimeError(self._log.read_text()) from None
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def written(self) -> dict[Path, int]:
        """Return how much is in its append-only files."""
        return {path: path.stat().st_size for path in self._directory.glob("appendonlydir/*.incr.aof")}

    def lose_power(self, written: dict[Path, int]) -> None:
        """End it as a power failure does: what was written since is lost."""
        self.kill()
        for path, size in written.items():
            os.truncate(path, size)

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Let it stand still until :meth:`resume`: its connections stay, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def command(self, *args: Any) -> Any:
        """Send one command over a connection of its own and return the reply."""
        with contextlib.closing(
            redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0), socket_timeout=PATIENCE)
        ) as client:
            return client.execute_command(*args)  # type: ignore[no-untyped-call]  # as redis-py has it

    def names(self, *endings: str) -> list[str]:
        """Return the names of all keys, or of those with an ending."""
        return sorted(name for key in self.command("KEYS", "*") if (name := key.decode()).endswith(endings or ("",)))

    def evict(self, *endings: str) -> None:
        """Delete keys by their names' endings, as a server does that is short of memory."""
        names = self.names(*endings)
        if names:
            self.command("DEL", *names)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.kill(process.pid, how)
            process.wait(PATIENCE)


@contextlib.contextmanager
def running(directory: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(directory, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
