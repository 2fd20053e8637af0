"""The app under test on one of the servers, with the control of its streams and its journal."""

from __future__ import annotations

import json
import os
import signal
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.certificates import issue, trusting
from tests.servers.client import EventStream, get_json
from tests.servers.control import Control
from tests.servers.journal import entries
from tests.servers.kinds import Kind
from tests.servers.processes import ROOT, Program, eventually, running

__all__ = ["PLANNED", "AppServer", "address", "environment", "serving"]


#: What streams raise that are told to fail; the log must have no other error of a stream.
PLANNED = "a secret"


@dataclass(frozen=True, slots=True)
class AppServer:
    """A running server of :mod:`tests.servers.app`."""

    program: Program
    port: int
    control: Control
    journal: Path
    tls: ssl.SSLContext | None = None

    def open(
        self, name: str, path: str = "/stream", *, port: int | None = None, cleanup: float = 0.02, **options: Any
    ) -> EventStream:
        """Open the stream ``name`` and return it once its hello has come.

        :param port: a proxy's, to go by.
        :param cleanup: how many seconds its generator's ``finally`` takes, and ``on_disconnect`` as well.
        """
        stream = self.request(address(name, path, cleanup), port=port, **options)
        assert stream.status == 200, (stream.status, self.program.output)
        hello = stream.next()
        assert hello.type == "hello", hello
        assert json.loads(hello.data)["name"] == name
        return stream

    def request(self, path: str, *, port: int | None = None, **options: Any) -> EventStream:
        """Return the answer to a request, its body not read yet."""
        return EventStream(port or self.port, path, tls=self.tls, **options)

    def vitals(self) -> dict[str, Any]:
        answer: dict[str, Any] = get_json(self.port, "/vitals", tls=self.tls)
        return answer

    def notes(self, what: str, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the journal's entries of one kind, for these streams or for all."""
        of_kind = [entry for entry in entries(self.journal) if entry["what"] == what]
        return [entry for entry in of_kind if names is None or entry.get("name") in names]

    def note(self, what: str, name: str) -> dict[str, Any]:
        """Return the one entry of a stream, waiting for it to be written."""
        eventually(lambda: self.notes(what, [name]))
        (entry,) = self.notes(what, [name])
        return entry

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Signal the server; return the seconds until every process of it has ended."""
        return self.program.stop(number)


def address(name: str, path: str = "/stream", cleanup: float = 0.02) -> str:
    """Return where the stream ``name`` is opened."""
    return f"{path}?name={name}&cleanup={cleanup}"


def environment(control: Control, journal: Path) -> dict[str, str]:
    """Return what a process needs in its environment to run the app."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return {"PYTHONPATH": path, "SSE_TEST_CONTROL": str(control.port), "SSE_TEST_JOURNAL": str(journal)}


@contextmanager
def serving(kind: Kind, directory: Path, port: int | None = None) -> Iterator[AppServer]:
    """Serve the app; the block starts when every worker is ready to be signalled."""
    journal = directory / "journal"
    journal.touch()
    tls = None
    if kind.tls:
        issue(directory)
        tls = trusting()

    def ready(port: int) -> bool:
        try:
            get_json(port, "/vitals", timeout=5, tls=tls)
        except OSError:
            return False
        return not kind.lifespan or journal.read_text().count('"started"') >= kind.workers

    with Control() as control:
        with running(kind.argv, directory, ready=ready, environ=environment(control, journal), port=port) as program:
            yield AppServer(program, program.port, control, journal, tls)
        failed = [line for line in program.output.splitlines() if "stream.failed" in line and PLANNED not in line]
        assert failed == []
