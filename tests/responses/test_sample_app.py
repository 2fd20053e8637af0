"""An app written for sse-starlette runs on this package with one line changed: its import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from starlette_sse.testing import Ending, SSETestClient

pytestmark = pytest.mark.anyio

SOURCE = Path(__file__).with_name("sample_app.py").read_text()
IMPORT = "from sse_starlette import"


@pytest.fixture
def anyio_backend() -> str:
    """The app uses asyncio by itself."""
    return "asyncio"


@pytest.fixture
def sample(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The app's module, imported from ``package``."""
    assert SOURCE.count(IMPORT) == 1
    module = ModuleType("sample_app")
    monkeypatch.setitem(sys.modules, "sample_app", module)
    exec(SOURCE.replace(IMPORT, f"from {package.__name__} import"), vars(module))
    assert module.EventSourceResponse is package.EventSourceResponse
    return module


async def test_a_chat(sample: Any) -> None:
    """Two listeners get every post of their room, and leave nothing behind."""
    async with SSETestClient(sample.app) as client:
        async with client.stream("/chat/tea", headers={"X-User": "ann"}) as ann:
            assert ann.response.headers["x-room"] == "tea"
            await ann.expect({"event": "joined", "data": "ann"})
            assert ann.retry == 3000
            async with client.stream("/chat/tea", headers={"X-User": "bob"}) as bob:
                await bob.expect({"event": "joined"})
                answer = await client.request("POST", "/chat/tea", json={"author": "bob", "text": "milk?\nsugar?"})
                assert (answer.status_code, answer.json()) == (202, {"listeners": 2})
                heard = [await listener.next_event() for listener in (ann, bob)]
                assert [event.json()["text"] for event in heard] == ["milk?\nsugar?"] * 2
                assert {event.id for event in heard} == {"1", "2"}
            await anyio.wait_all_tasks_blocked()
            assert (await client.request("POST", "/chat/tea", json={"author": "ann", "text": "no"})).json() == {
                "listeners": 1
            }
            assert (await ann.next_event()).json()["text"] == "no"
        assert not sample.rooms["tea"]
    assert sample.diary.count("ann left by http.disconnect") == 1
    assert sample.diary.count("bob left by http.disconnect") == 1
    assert [note for note in sample.diary if note.startswith("ann")][0::3] == ["ann came", "ann was released"]
    assert "ann was interrupted" in sample.diary


async def test_a_dependency_refuses(sample: Any) -> None:
    """Before there is a stream."""
    async with SSETestClient(sample.app) as client:
        response = await client.request("GET", "/chat/tea")
        assert (response.status_code, response.json()) == (401, {"detail": "who are you?"})


async def test_a_clock(sample: Any) -> None:
    """Named events with ids, pings beside them, and the headers as given."""
    async with SSETestClient(sample.app) as client, client.stream("/clock") as stream:
        assert stream.response.headers["cache-control"] == "no-cache"
        assert stream.response.headers["access-control-allow-origin"] == "*"
        assert stream.response.headers["x-accel-buffering"] == "no"
        for number in range(3):
            await stream.expect({"event": "tick", "data": f"tick {number}", "id": str(number)})
        assert await stream.closed() is Ending.FINISHED
        assert {comment.text for comment in stream.comments} == {"still ticking"}


async def test_progress(sample: Any) -> None:
    """A task feeds a channel, and the stream ends with it."""
    async with SSETestClient(sample.app) as client:
        response = await client.request("GET", "/progress")
        assert response.body == b"".join(b'data: {"percent":%d}\r\n\r\n' % percent for percent in (0, 50, 100))


async def test_an_export(sample: Any) -> None:
    """A sync generator, a separator of its own, and a background task."""
    async with SSETestClient(sample.app) as client:
        response = await client.request("GET", "/export")
        assert response.body == (
            b'id: 0\ndata: {"row": 0}\n\nid: 1\ndata: {"row": 1}\n\nid: 2\ndata: {"row": 2}\n\nevent: end\ndata: \n\n'
        )
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert sample.diary == ["exported"]


async def test_a_failure(sample: Any) -> None:
    """The app's own exception reaches the server, and the client sees the body cut."""
    async with SSETestClient(sample.app) as client:
        with pytest.raises(LookupError, match="and then it broke"):
            async with client.stream("/failing") as stream:
                await stream.expect("so far so good")
                assert await stream.closed() is Ending.CUT


async def test_the_response_as_a_declared_class(sample: Any) -> None:
    """FastAPI makes the response of what a generator function yields."""
    async with SSETestClient(sample.app) as client:
        response = await client.request("GET", "/declared")
        assert response.body == b"data: 0\r\n\r\ndata: 1\r\n\r\n"


async def test_a_head_request_is_not_allowed_by_fastapis_own_routes(sample: Any) -> None:
    """Starlette's own routes answer it; FastAPI's say that it is not allowed."""
    async with SSETestClient(sample.app) as client:
        assert (await client.request("HEAD", "/clock")).status_code == 405
