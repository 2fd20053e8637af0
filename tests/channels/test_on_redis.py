"""Channels on a real Redis: many worker processes, and a browser whose server goes away."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from starlette_sse import Broker, ChannelEndpoint
from starlette_sse.decoding import EventDecoder
from tests.broker import redis_server
from tests.broker.redis_server import RedisServer
from tests.browsers import BROWSERS, browsing
from tests.loopback import open_stream
from tests.servers.processes import ROOT, free_port, running

pytestmark = pytest.mark.anyio

CLIENTS, PUBLISHERS, EVENTS = 400, 4, 260


@pytest.fixture
def anyio_backend() -> str:
    """Redis-py and Playwright speak asyncio alone."""
    return "asyncio"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server.running(tmp_path) as server:
        yield server


def uvicorn(*options: str) -> Any:
    """Return the command of a server for a port."""
    command = (sys.executable, "-m", "uvicorn", "tests.channels.redis_app:app", "--no-access-log", *options)
    return lambda port: [*command, "--port", str(port), "--app-dir", str(ROOT)]


def environment(redis: RedisServer) -> Mapping[str, str]:
    return {"BROKER": redis.url, "PYTHONPATH": str(ROOT)}


class Wanderer:
    """A client that leaves at random moments, in the middle of frames too, and comes back with its last id."""

    def __init__(self, port: int, seed: int, total: int) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._total = total
        self._last_event_id = ""
        self.received: list[str] = []
        self.connections = 0

    async def open(self) -> None:
        """Connect, and remember the position that the opening frame tells."""
        await self._connect()

    async def run(self) -> None:
        """Read until everything is here."""
        while len(self.received) < self._total:
            await self._read_some()
            if len(self.received) < self._total:
                await self._leave()
                await self._connect()
        await self._leave()

    async def _connect(self) -> None:
        self._decoder = EventDecoder(last_event_id=self._last_event_id)
        self._reader, self._writer = await open_stream(self._port, "/news", self._last_event_id)
        self._take(await self._reader.readuntil(b"\r\n\r\n"))
        self.connections += 1

    async def _read_some(self) -> None:
        stay = self._random.randint(1, 40_000)
        while stay > 0 and len(self.received) < self._total:
            chunk = await self._reader.read(min(stay, 4096))
            assert chunk, "the server ended the stream"
            stay -= len(chunk)
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        for event in self._decoder.feed(chunk):
            assert event.type == "message", f"a {event.type}: {event.data}"
            self.received.append(event.data)
        self._last_event_id = self._decoder.last_event_id

    async def _leave(self) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(self._random.random() * 0.05)


async def publish(broker: Broker, name: int) -> list[str]:
    """Publish one publisher's events and return them."""
    mine = [f"{name}:{number}" for number in range(EVENTS // PUBLISHERS)]
    for event in mine:
        await broker.publish("news", event)
    return mine


async def test_four_workers_lose_double_and_disorder_nothing(redis: RedisServer, tmp_path: Path) -> None:
    """400 wandering clients over four worker processes get over 100,000 events, each once and in one order."""
    with running(uvicorn("--workers", "4"), tmp_path, environ=environment(redis)) as server:
        clients = [Wanderer(server.port, seed, EVENTS) for seed in range(CLIENTS)]
        for start in range(0, CLIENTS, 50):
            await asyncio.gather(*(client.open() for client in clients[start : start + 50]))
        async with Broker(redis.url, history=20_000, max_bytes=16 * 1024 * 1024, observers=()) as broker:
            reading = [asyncio.create_task(client.run()) for client in clients]
            published = await asyncio.gather(*(publish(broker, name) for name in range(PUBLISHERS)))
            await asyncio.wait_for(asyncio.gather(*reading), 180)
    order = clients[0].received
    assert sorted(order) == sorted(event for events in published for event in events)
    for events in published:
        assert [event for event in order if event in set(events)] == events
    assert all(client.received == order for client in clients)
    assert sum(len(client.received) for client in clients) > 100_000
    assert sum(client.connections for client in clients) > CLIENTS


LISTEN = """
() => {
    window.seen = [];
    window.source = new EventSource("/news");
    source.addEventListener("open", () => { window.opened = (window.opened || 0) + 1; });
    source.addEventListener("message", (event) => seen.push(event.data));
    source.addEventListener("stream-reset", (event) => seen.push("reset " + event.data));
}
"""


@pytest.mark.parametrize("browser", BROWSERS)
async def test_a_page_shows_every_message_once_although_its_server_was_away(
    redis: RedisServer, browser: str, tmp_path: Path
) -> None:
    """What was published meanwhile, by another process through Redis, comes when the server is back."""
    port = free_port()
    async with Broker(redis.url, observers=()) as broker, AsyncExitStack() as open_until_the_end:
        with running(uvicorn(), tmp_path, environ=environment(redis), port=port) as server:
            page = await open_until_the_end.enter_async_context(
                browsing(browser, tmp_path, f"http://127.0.0.1:{port}/")
            )
            await page.evaluate(LISTEN)
            await page.wait_for_function("window.opened === 1", timeout=20_000)
            await broker.publish("news", "before")
            await page.wait_for_function("seen.length === 1", timeout=20_000)
            server.kill()
            for number in range(5):
                await broker.publish("news", f"away {number}")
        with running(uvicorn(), tmp_path, environ=environment(redis), port=port):
            await page.wait_for_function("seen.length >= 6", timeout=60_000)
            await broker.publish("news", "after")
            await page.wait_for_function("seen.length >= 7", timeout=20_000)
            assert await page.evaluate("seen") == ["before", *(f"away {number}" for number in range(5)), "after"]


async def test_clients_are_refused_kindly_while_redis_is_away(redis: RedisServer) -> None:
    """For a channel that nobody reads yet, and if a hook finds it away; a browser gets a stream, and comes back."""

    class News(ChannelEndpoint):
        observers = ()
        broker = Broker(redis.url, observers=(), timeout=0.3)
        channels = ("news",)

    class Greeting(News):
        async def on_connect(self, request: Request) -> None:
            await self.broker.publish("news", "somebody has come")

    app = Starlette(routes=[Route("/news", News), Route("/greeting", Greeting)])
    transport = httpx.ASGITransport(app)
    async with News.broker, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await asyncio.to_thread(redis.kill)
        for path in ("/news", "/greeting"):
            plain = await client.get(path)
            assert (plain.status_code, plain.text) == (503, "refused: broker_unavailable")
            assert int(plain.headers["retry-after"]) > 0
            page = await client.get(path, headers={"accept": "text/event-stream"})
            assert page.status_code == 200
            (event,) = EventDecoder().feed(page.content)
            assert (event.type, event.data) == ("stream-rejected", '{"reason":"broker_unavailable"}')
