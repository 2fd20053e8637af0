"""Several servers in one process, and one in a thread: each drains its streams, and signals stay whose they were."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.servers.apps import AppServer, environment
from tests.servers.control import Control
from tests.servers.processes import accepts, eventually, free_port, running


@contextmanager
def two_servers(way: str, directory: Path) -> Iterator[tuple[AppServer, AppServer]]:
    """Run both in a process of their own; the first is ready when the block starts."""
    second = free_port()
    journal = directory / "journal"
    journal.touch()

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "tests.servers.two_servers", way, str(port), str(second)]

    with Control() as control:
        with running(command, directory, environ=environment(control, journal)) as program:
            server = AppServer(program, program.port, control, journal)
            yield server, replace(server, port=second)


def test_a_server_after_another_drains_as_well(tmp_path: Path) -> None:
    """The first server's end leaves nothing in place that the second would miss or trip over."""
    with two_servers("sequence", tmp_path) as (first, second):
        with first.open("first") as stream:
            first.program.process.send_signal(signal.SIGTERM)
            assert stream.rest() == []
            assert stream.retry is not None
        assert eventually(lambda: accepts(second.port))
        with second.open("second") as stream:
            second.stop()
            assert stream.rest() == []
            assert stream.retry is not None
        ended_well(first, ["first", "second"])


def test_two_servers_in_one_loop_drain_together(tmp_path: Path) -> None:
    """One signal reaches the streams of both, whichever took the signal over last."""
    with two_servers("together", tmp_path) as (first, second):
        assert eventually(lambda: accepts(second.port))
        with first.open("first") as one, second.open("second") as other:
            first.stop()
            for stream in (one, other):
                assert stream.rest() == []
                assert stream.retry is not None
        ended_well(first, ["first", "second"])


def test_a_server_in_a_thread_drains_when_told(tmp_path: Path) -> None:
    """drain() works from another thread than the event loop's, where no signal arrives."""
    with two_servers("thread", tmp_path) as (server, _):
        with server.open("first") as stream:
            assert server.program.process.stdin is not None
            server.program.process.stdin.write(b"drain\n")
            server.program.process.stdin.flush()
            assert stream.rest() == []
            assert stream.retry is not None
        assert server.program.process.wait(10) == 0
        ended_well(server, ["first"])


def ended_well(server: AppServer, names: list[str]) -> None:
    """Check that the streams cleaned up, and that the process has its own signal handler back."""
    for name in names:
        server.note("finally", name)
        assert server.note("disconnect", name)["reason"] == "draining"
    assert eventually(lambda: server.notes("ended"))[0]["restored"]
