"""How open streams end when a server is told to stop: at once, with everything cleaned up, on every server."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.servers.apps import AppServer, serving
from tests.servers.client import EventStream
from tests.servers.kinds import KINDS, Kind
from tests.servers.processes import eventually

ENDPOINTS = ("/stream", "/base/stream", "/gzip/stream", "/cors/stream", "/fastapi/stream")
RESPONSES = ("/response", "/base/response", "/fastapi/response")


@contextmanager
def open_streams(server: AppServer, kind: Kind) -> Iterator[dict[str, EventStream]]:
    """Open twenty streams of the endpoint and a few of the response, by every middleware that the server may have."""
    if kind.waits_for_middleware:
        paths = [*ENDPOINTS * 4, *RESPONSES]
    else:
        paths = [path for path in [*ENDPOINTS * 5, *RESPONSES] if "/base/" not in path]
    with ExitStack() as stack:
        names = {f"{number}{path}": path for number, path in enumerate(paths)}
        yield {name: stack.enter_context(server.open(name, path)) for name, path in names.items()}


def ended_whole(stream: EventStream) -> bool:
    """Read a stream to its end and tell whether its body was complete."""
    try:
        assert stream.rest() == []
    except (http.client.IncompleteRead, ConnectionError):
        return False
    return True


def at_rest(server: AppServer) -> bool:
    """Wait until the server's main process waits for input or output."""
    process = psutil.Process(server.program.process.pid)
    return eventually(lambda: process.status() == psutil.STATUS_SLEEPING)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_server_with_open_streams_stops_within_two_seconds(kind: Kind, tmp_path: Path) -> None:
    """Every client hears the farewell where the server lets it, and each generator and hook completes."""
    with serving(kind, tmp_path) as server, open_streams(server, kind) as streams:
        # Trio's KeyboardInterrupt may strike any task that runs.
        assert at_rest(server)
        seconds = server.stop(kind.signal)

        whole = {name: ended_whole(stream) for name, stream in streams.items()}
        assert set(whole.values()) == {kind.farewell}, whole
        retries = {stream.retry for name, stream in streams.items() if name.endswith("/stream")}
        assert (None not in retries and len(retries) > 1) if kind.farewell else retries == {None}
        for what in ("finally", "disconnect"):
            assert sorted(entry["name"] for entry in server.notes(what)) == sorted(streams)
        reasons = {entry["reason"] for entry in server.notes("disconnect") if entry["name"].endswith("/stream")}
        assert reasons == {kind.reason}
        assert all(server.control.hung_up(name) for name in streams)
        if kind.lifespan:
            left = [set(entry["tasks"]) - kind.own_tasks for entry in server.notes("stopped")]
            assert left == [set()] * kind.workers
        assert seconds < 2
