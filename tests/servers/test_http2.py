"""Over HTTP/2, which forbids headers that concern one connection: clients take a message that has one for broken."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h2.connection
import httpx
import pytest

from starlette_sse.decoding import EventDecoder, MessageEvent
from tests.servers.processes import PATIENCE, ROOT, eventually, running

#: RFC 9113, 8.2.2.
OF_ONE_CONNECTION = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def hypercorn(app: str, loop: str, folder: Path) -> Iterator[int]:
    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "hypercorn", app, "-k", loop, "-w", "0", "--bind", f"127.0.0.1:{port}"]

    with running(command, folder, environ={"PYTHONPATH": str(ROOT)}) as program:
        yield program.port


@pytest.fixture
def port(loop: str, tmp_path: Path) -> Iterator[int]:
    with hypercorn("tests.limits.crowded:app", loop, tmp_path) as port:
        yield port


@contextmanager
def client(port: int) -> Iterator[httpx.Client]:
    """A client that speaks HTTP/2 from its first byte, as a proxy does that knows its server."""
    with httpx.Client(http1=False, http2=True, base_url=f"http://127.0.0.1:{port}", timeout=10) as speaking:
        yield speaking


def first_event(response: httpx.Response) -> MessageEvent:
    decoder = EventDecoder()
    for chunk in response.iter_bytes():
        if events := decoder.feed(chunk):
            return events[0]
    raise AssertionError("the stream ended without an event")


def check(response: httpx.Response) -> None:
    assert response.http_version == "HTTP/2"
    assert not OF_ONE_CONNECTION & response.headers.keys()


def test_neither_a_stream_nor_a_refusal_has_hop_by_hop_headers(port: int) -> None:
    """Events come as they do over HTTP/1, and many requests share one connection."""
    with client(port) as one:
        with one.stream("GET", "/client?name=two") as held:
            check(held)
            assert held.status_code == 200
            assert held.headers["x-accel-buffering"] == "no"
            event = first_event(held)
            assert (event.type, event.data) == ("hello", "two")
            refused = one.get("/client")
            check(refused)
            assert refused.status_code == 429
            assert "retry-after" in refused.headers
            again = one.get("/client", headers={"accept": "text/event-stream"})
            check(again)
            assert again.status_code == 200
            assert "stream-rejected" in again.text


def ask_without_reading(port: int) -> socket.socket:
    """Return a connection that has asked for a body, and gives no window beyond the first 64 KiB."""
    speaking = h2.connection.H2Connection()
    speaking.initiate_connection()
    where = [(":scheme", "http"), (":authority", "127.0.0.1"), (":path", "/large")]
    speaking.send_headers(1, [(":method", "GET"), *where], end_stream=True)
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.sendall(speaking.data_to_send())
    return connection


def test_a_client_that_leaves_with_its_window_closed_leaves_nothing_behind(loop: str, tmp_path: Path) -> None:
    """The end of the body waits for a window that never opens again, and a response has no timeout of its own."""
    with hypercorn("tests.servers.large:app", loop, tmp_path) as port, client(port) as other:

        def states() -> list[str]:
            return list(other.get("/states").json())

        with ask_without_reading(port):
            assert eventually(lambda: states() == ["ending"])
        assert eventually(lambda: states() == [])
