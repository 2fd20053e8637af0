"""How open streams end when a server is told to stop: at once, with everything cleaned up, on every server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.servers.apps import AppServer, serving
from tests.servers.client import EventStream, ended_whole
from tests.servers.kinds import KINDS, Kind
from tests.servers.processes import eventually

ENDPOINTS = ("/stream", "/base/stream", "/gzip/stream", "/cors/stream", "/fastapi/stream")
RESPONSES = ("/response", "/base/response", "/fastapi/response")


@contextmanager
def open_streams(server: AppServer) -> Iterator[dict[str, EventStream]]:
    """Open twenty streams of the endpoint and a few of the response, whose cleanups take their different times."""
    with ExitStack() as stack:
        streams = {}
        for number, path in enumerate([*ENDPOINTS * 4, *RESPONSES]):
            name = f"{number}{path}"
            streams[name] = stack.enter_context(server.open(name, path, cleanup=number / 200))
        yield streams


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_server_with_open_streams_stops_at_once_and_clean(kind: Kind, tmp_path: Path) -> None:
    """Every client hears the farewell where the server lets it, and each generator and hook completes."""
    # A busy machine only ever adds to the time, so the best of a few counts.
    attempts = (stop_with_open_streams(kind, tmp_path / str(number)) for number in range(3))
    assert any(seconds < kind.longest_stop for seconds in attempts)


def stop_with_open_streams(kind: Kind, directory: Path) -> float:
    """Check all that is promised of a stop but its time, and return the seconds that it took."""
    directory.mkdir()
    with serving(kind, directory) as server, open_streams(server) as streams:
        if kind.waits_for_clients:
            server.program.process.send_signal(kind.signal)
            assert not eventually(lambda: server.program.process.poll() is not None, kind.longest_stop)
            for stream in streams.values():
                stream.leave()
        seconds = server.stop(kind.signal)

        for name, stream in streams.items() if not kind.waits_for_clients else ():
            told = kind.farewell and (kind.farewell_behind_middleware or "/base/" not in name)
            assert ended_whole(stream) == told, name
            assert (stream.retry is not None) == (told and name.endswith("/stream")), name
        retries = [stream.retry for stream in streams.values() if stream.retry is not None]
        # Clients that were told come back at different times.
        assert len(set(retries)) >= len(retries) / 2
        for what in ("finally", "disconnect"):
            assert sorted(entry["name"] for entry in server.notes(what)) == sorted(streams)
        reasons = {entry["reason"] for entry in server.notes("disconnect") if entry["name"].endswith("/stream")}
        assert reasons == {kind.reason}
        assert all(server.control.hung_up(name) for name in streams)
        if kind.lifespan:
            left = [set(entry["tasks"]) - kind.own_tasks for entry in server.notes("stopped")]
            assert left == [set()] * kind.workers
    return seconds
