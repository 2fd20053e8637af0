"""Over HTTP/2, which forbids headers that concern one connection: clients take a message that has one for broken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from starlette_sse.decoding import EventDecoder, MessageEvent
from tests.servers.processes import ROOT, running

#: RFC 9113, 8.2.2.
OF_ONE_CONNECTION = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    def hypercorn(port: int) -> list[str]:
        command = [sys.executable, "-m", "hypercorn", "tests.limits.crowded:app", "-k", request.param, "-w", "0"]
        return [*command, "--bind", f"127.0.0.1:{port}"]

    with running(hypercorn, tmp_path_factory.mktemp("http2"), environ={"PYTHONPATH": str(ROOT)}) as program:
        yield program.port


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
