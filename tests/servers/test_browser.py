"""A real browser's EventSource on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.browsers import BROWSERS, Tab, browsing
from tests.servers.apps import AppServer, address, serving
from tests.servers.kinds import KINDS
from tests.servers.processes import free_port, running
from tests.servers.proxies import Make, haproxy_that_answers, nginx_that_answers

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("browser", BROWSERS)]

LISTEN = """
([url, types]) => {
    window.seen = [];
    window.source = new EventSource(url);
    const see = ({type, data, lastEventId}) => seen.push({type, data, id: lastEventId});
    for (const type of ["open", "error", "message", ...types]) source.addEventListener(type, see);
}
"""
COUNT = "([type, count]) => seen.filter((event) => event.type === type).length >= count"


@pytest.fixture
def anyio_backend() -> str:
    """Playwright speaks asyncio alone."""
    return "asyncio"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AppServer]:
    with serving(KINDS[0], tmp_path) as running:
        yield running


def page_of(port: int) -> str:
    return f"http://127.0.0.1:{port}/page"


async def listen(page: Tab, name: str, *types: str) -> None:
    await page.evaluate(LISTEN, [address(name), ["hello", *types]])


async def seen(page: Tab, kind: str, count: int) -> list[dict[str, Any]]:
    """Return the page's events of one type once there are so many."""
    await page.wait_for_function(COUNT, arg=[kind, count], timeout=20_000)
    events: list[dict[str, Any]] = await page.evaluate("seen")
    return [event for event in events if event["type"] == kind]


async def test_a_browser_receives_events_of_every_shape(server: AppServer, browser: str, tmp_path: Path) -> None:
    """Unnamed and named events, many lines and any script arrive as they were sent, one by one."""
    async with browsing(browser, tmp_path, page_of(server.port)) as page:
        await listen(page, "shapes", "named")
        assert len(await seen(page, "open", 1)) == 1
        await seen(page, "hello", 1)
        server.control.order("shapes", data="first", id="1")
        assert (await seen(page, "message", 1))[-1] == {"type": "message", "data": "first", "id": "1"}
        server.control.order("shapes", data="one\ntwo\r\nthree\rfour\n", event="named", id="2")
        assert (await seen(page, "named", 1))[-1] == {"type": "named", "data": "one\ntwo\nthree\nfour\n", "id": "2"}
        text = "data: x\u2028\u2029\x85\x0b\x0c\x1c\0\ufeff and \N{CAT FACE} \u05d0\u0644"
        server.control.order("shapes", data=text)
        # Firefox leaves NUL out.
        text = text.replace("\0", "") if browser == "firefox" else text
        assert (await seen(page, "message", 2))[-1] == {"type": "message", "data": text, "id": "2"}
        assert await page.evaluate("source.readyState") == 1


async def test_a_browser_that_closes_its_source_is_noticed(server: AppServer, browser: str, tmp_path: Path) -> None:
    """EventSource.close() ends the stream on the server."""
    async with browsing(browser, tmp_path, page_of(server.port)) as page:
        await listen(page, "closes")
        await seen(page, "hello", 1)
        await page.evaluate("source.close()")
        note = await anyio.to_thread.run_sync(server.note, "disconnect", "closes")
        assert note["reason"] == "client_gone"


async def test_a_browser_comes_back_by_itself_after_a_restart(browser: str, tmp_path: Path) -> None:
    """The farewell makes EventSource reconnect on its own, telling the last event that it saw."""
    port = free_port()
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    with serving(KINDS[0], before, port) as server:
        async with browsing(browser, tmp_path, page_of(port)) as page:
            await listen(page, "returns")
            await seen(page, "hello", 1)
            server.control.order("returns", data="seen", id="id-7")
            await seen(page, "message", 1)
            await anyio.to_thread.run_sync(server.stop)
            await seen(page, "error", 1)
            with serving(KINDS[0], after, port) as restarted:
                hello = (await seen(page, "hello", 2))[-1]
                assert json.loads(hello["data"])["last_event_id"] == "id-7"
                restarted.control.order("returns", data="more", id="id-8")
                assert (await seen(page, "message", 2))[-1] == {"type": "message", "data": "more", "id": "id-8"}


@pytest.mark.parametrize("make", [nginx_that_answers, haproxy_that_answers], ids=lambda made: made.__name__)
async def test_a_browser_comes_back_through_a_proxy_whose_app_was_away(
    browser: str, tmp_path: Path, make: Make
) -> None:
    """A proxy's own 502 or 503 would end its EventSource for good; the answer that the documents give it does not."""
    port = free_port()
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    with serving(KINDS[0], before, port) as server, running(make(tmp_path, port), tmp_path) as proxy:
        async with browsing(browser, tmp_path, page_of(proxy.port)) as page:
            await listen(page, "away")
            await seen(page, "hello", 1)
            server.control.order("away", data="seen", id="id-7")
            await seen(page, "message", 1)
            await anyio.to_thread.run_sync(server.stop)
            # Once for the farewell, and then whenever it has asked in vain.
            await seen(page, "error", 4)
            assert await page.evaluate("source.readyState") != 2
            with serving(KINDS[0], after, port):
                hello = (await seen(page, "hello", 2))[-1]
                assert json.loads(hello["data"])["last_event_id"] == "id-7"
