"""Real programs as processes on loopback: known to be ready, stopped by a signal, never left behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

__all__ = ["PATIENCE", "ROOT", "Program", "accepts", "eventually", "free_port", "heed_interrupts", "running"]

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0
PATIENCE_TO_START = 30.0
POLL = 0.01

T = TypeVar("T")


def heed_interrupts() -> None:
    """Let the servers that are started be stopped by SIGINT: a shell ignores it for what it runs in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def eventually(check: Callable[[], T], patience: float = PATIENCE, poll: float = POLL) -> T:
    """Return what ``check`` returns as soon as that is true, and what it returned last when patience ends."""
    deadline = time.monotonic() + patience
    while not (found := check()) and time.monotonic() < deadline:
        time.sleep(poll)
    return found


def free_port() -> int:
    """Return a port of loopback that nothing uses now.

    It is below those that Linux gives to clients, so that no connection takes it before the server does.
    """
    while True:
        port = random.randrange(16_384, 32_768)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def accepts(port: int) -> bool:
    """Tell whether something accepts connections on a port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def runs(process: psutil.Process) -> bool:
    """Tell whether a process has not ended; one that ended stays as a zombie until its parent has asked for it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@dataclass(frozen=True, slots=True)
class Program:
    """A started process, the port it serves, and the file that has what it printed."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Signal the process as a process manager does; return the seconds until it and its children have ended."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        started = time.monotonic()
        self.process.send_signal(number)
        ended = eventually(lambda: not any(map(runs, family)))
        seconds = time.monotonic() - started
        assert ended, f"still running {seconds} s after {number.name}: {[each for each in family if runs(each)]}"
        return seconds

    def kill(self) -> None:
        """End the process and everything that it started, whatever state they are in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        assert self.process.stdin is not None
        self.process.stdin.close()


@contextmanager
def running(
    command: Callable[[int], Sequence[str]],
    directory: Path,
    *,
    ready: Callable[[int], bool] = accepts,
    environ: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[Program]:
    """Run ``command(port)`` until the block ends; a failure in the block carries what the program printed."""
    program = start(command, directory, ready, environ or {}, port)
    try:
        yield program
    except BaseException as exc:
        exc.add_note(f"{program.process.args!r} printed:\n{program.output}")
        raise
    finally:
        program.kill()


def start(
    command: Callable[[int], Sequence[str]],
    directory: Path,
    ready: Callable[[int], bool],
    environ: Mapping[str, str],
    port: int | None,
) -> Program:
    for _ in range(3):
        program = launch(command, directory, environ, port or free_port())
        try:
            eventually(lambda: program.process.poll() is not None or ready(program.port), PATIENCE_TO_START)  # noqa: B023
            if program.process.poll() is None and ready(program.port):
                return program
        except BaseException:
            program.kill()
            raise
        program.kill()
        # Another program may have taken the port between its choice and its use.
        if "in use" not in program.output:
            break
    raise RuntimeError(f"{program.process.args!r} did not get ready and printed:\n{program.output}")


def launch(command: Callable[[int], Sequence[str]], directory: Path, environ: Mapping[str, str], port: int) -> Program:
    arguments = list(command(port))
    log = directory / f"{Path(arguments[0]).name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            cwd=directory,
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Program(process, port, log)
