"""How open streams end when a server is told to stop: at once, with everything cleaned up, on every server."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from tests.servers.apps import AppServer, serving
from tests.servers.client import EventStream
from tests.servers.kinds import KINDS, Kind

ENDPOINTS = ("/stream", "/base/stream", "/gzip/stream", "/cors/stream", "/fastapi/stream")
RESPONSES = ("/response", "/base/response", "/fastapi/response")


def open_streams(server: AppServer) -> dict[str, EventStream]:
    """Open twenty streams of the endpoint, and a few of the response."""
    paths = [*ENDPOINTS * 4, *RESPONSES]
    return {f"{number}{path}": server.open(f"{number}{path}", path) for number, path in enumerate(paths)}


def ended_whole(stream: EventStream) -> bool:
    """Read a stream to its end and tell whether its body was complete."""
    try:
        stream.rest()
    except (http.client.IncompleteRead, ConnectionError):
        return False
    return True


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_server_with_open_streams_stops_within_two_seconds(kind: Kind, tmp_path: Path) -> None:
    """Every client hears the farewell where the server lets it, and each generator and hook completes."""
    with serving(kind, tmp_path) as server:
        streams = open_streams(server)
        seconds = server.stop(kind.signal)

        whole = {name: ended_whole(stream) for name, stream in streams.items()}
        assert set(whole.values()) == {kind.farewell}, whole
        retries = {stream.retry for name, stream in streams.items() if name.endswith("/stream")}
        assert (None not in retries and len(retries) > 1) if kind.farewell else retries == {None}
        for what in ("finally", "disconnect"):
            assert sorted(entry["name"] for entry in server.notes(what)) == sorted(streams)
        reasons = {entry["reason"] for entry in server.notes("disconnect") if entry["name"].endswith("/stream")}
        assert reasons <= kind.reasons
        assert all(server.control.hung_up(name) for name in streams)
        if kind.lifespan:
            assert [entry["tasks"] for entry in server.notes("stopped")] == [{}] * kind.workers
        assert seconds < 2
