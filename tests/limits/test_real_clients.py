"""What real clients make of a refusal: browsers come back by themselves, curl and httpx see the status."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browsers import BROWSERS, Tab, browsing
from tests.conftest import require
from tests.servers.client import EventStream
from tests.servers.processes import ROOT, Program, eventually, running

LISTEN = """
(url) => {
    window.seen = [];
    window.source = new EventSource(url);
    const see = ({type, data}) => seen.push([type, data, source.readyState]);
    for (const type of ["open", "error", "hello", "stream-rejected"]) source.addEventListener(type, see);
}
"""
COUNT = "([type, count]) => seen.filter((event) => event[0] === type).length >= count"


@pytest.fixture
def anyio_backend() -> str:
    """Playwright speaks asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    def uvicorn(port: int) -> list[str]:
        return [sys.executable, "-m", "uvicorn", "tests.limits.crowded:app", "--port", str(port)]

    with running(uvicorn, tmp_path_factory.mktemp("crowded"), environ={"PYTHONPATH": str(ROOT)}) as program:
        yield program


@pytest.fixture
def taken(server: Program) -> Iterator[EventStream]:
    """The one place of each endpoint, taken by somebody who has come before."""
    with let_in(server.port, "/total") as stream, let_in(server.port, "/client"):
        yield stream


def let_in(port: int, path: str) -> EventStream:
    """Return a stream that got the place, once those of the test before have left."""

    def attempt() -> EventStream | None:
        stream = EventStream(port, path)
        if stream.next().type == "hello":
            return stream
        stream.leave()
        return None

    found = eventually(attempt)
    assert found is not None
    return found


async def seen(page: Tab, kind: str, count: int) -> list[list[Any]]:
    """Return what the page has seen once there are so many of one kind."""
    await page.wait_for_function(COUNT, arg=[kind, count], timeout=20_000)
    found: list[list[Any]] = await page.evaluate("seen")
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("browser", BROWSERS)
async def test_a_refused_browser_comes_back_by_itself_and_is_let_in(
    server: Program, taken: EventStream, browser: str, tmp_path: Path
) -> None:
    """It hears why, tries again after the time that it was told, and gets the place that has become free."""
    async with browsing(browser, tmp_path, f"http://127.0.0.1:{server.port}/page") as page:
        await page.evaluate(LISTEN, "/total?name=browser")
        events = await seen(page, "stream-rejected", 2)
        rejected = [event for event in events if event[0] == "stream-rejected"]
        assert rejected[0][1] == '{"reason":"max_connections"}'
        # 0: it is about to connect again; 2 would be that it has given up.
        assert {event[2] for event in events if event[0] == "error"} == {0}
        await asyncio.to_thread(taken.leave)
        events = await seen(page, "hello", 1)
        assert events[-1] == ["hello", "browser", 1]


def test_httpx_sees_the_status_and_when_to_come_back(server: Program, taken: EventStream) -> None:
    """503 for a full process, 429 for a full client."""
    for path, status in (("/total", 503), ("/client", 429)):
        response = httpx.get(f"http://127.0.0.1:{server.port}{path}")
        assert response.status_code == status
        assert 0 <= int(response.headers["retry-after"]) <= 3
        assert response.headers["content-type"].startswith("text/plain")


def test_curl_sees_the_status_and_when_to_come_back(server: Program, taken: EventStream) -> None:
    """By its own ``--retry`` it would wait as it is told."""
    for path, status in (("/total", 503), ("/client", 429)):
        command = [require("curl"), "--silent", "--include", "--max-time", "10"]
        answer = subprocess.run(
            [*command, f"http://127.0.0.1:{server.port}{path}"], capture_output=True, text=True, check=True
        ).stdout.lower()
        assert answer.startswith(f"http/1.1 {status} ")
        assert "\nretry-after: " in answer


def test_two_hundred_connections_at_once_share_twenty_places(server: Program) -> None:
    """Three times over: however those before them have left, the places are free again."""
    for leave in (socket.socket.close, reset, socket.socket.close):
        eventually(lambda: all_free(server.port))
        clients = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(200)]
        for client in clients:
            client.sendall(b"GET /twenty HTTP/1.1\r\nHost: test\r\n\r\n")
        statuses = Counter(client.recv(12) for client in clients)
        assert statuses == {b"HTTP/1.1 200": 20, b"HTTP/1.1 503": 180}
        for client in clients:
            leave(client)


def reset(client: socket.socket) -> None:
    """Leave as a crashing client does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def all_free(port: int) -> bool:
    """Tell whether the server has noticed that everybody has left."""
    listed: list[Any] = httpx.get(f"http://127.0.0.1:{port}/open").json()
    return not listed
