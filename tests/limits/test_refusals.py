"""How a client that is not let in is told: an ``EventSource`` so that it comes back, any other by its status."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from starlette_sse import BrokerUnavailableError, SSEEndpoint, lifespan
from starlette_sse.decoding import EventDecoder
from starlette_sse.observers import Observer
from starlette_sse.refusals import FULL, TOO_FAST, refuse
from tests.visits import Visit

pytestmark = pytest.mark.anyio

EVENT_SOURCE = {"accept": "text/event-stream"}


class Closed(SSEEndpoint):
    """Its one place is taken, or its one token, as the subclass says."""

    observers: Sequence[Observer] = ()
    headers: Mapping[str, str] = {
        "Access-Control-Allow-Origin": "https://example.org",
        "Cache-Control": "max-age=1",
        "X-Own": "yes",
    }

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "in"
        await anyio.sleep_forever()


class Full(Closed):
    max_connections = 1


class FullForClient(Closed):
    max_connections_per_client = 1


class TooFast(Closed):
    connect_rate = 0.01
    connect_burst = 1


REASONS = [
    (Full, "max_connections", 503, 5, 15),
    (FullForClient, "max_connections_per_client", 429, 5, 15),
    (TooFast, "connect_rate", 429, 100, 115),
]


async def refused(
    endpoint: type[SSEEndpoint], times: int = 1, headers: dict[str, str] | None = None, query: bytes = b""
) -> list[Visit]:
    """Return visits that came while the endpoint's one stream was open."""
    visits = [Visit(endpoint, headers=headers, query_string=query) for _ in range(times)]
    # A rate remembers the visitors of the test's other parameters.
    first = Visit(endpoint)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.run)
        await anyio.sleep(1.0)
        for visit in visits:
            await visit.run()
        first.left.set()
    return visits


@pytest.mark.parametrize(("endpoint", "reason", "status", "least", "most"), REASONS)
@pytest.mark.parametrize("accept", [None, "*/*", "text/html, text/event-stream", "text/event-stream, */*"])
async def test_a_client_that_is_no_event_source_gets_the_status(
    endpoint: type[Closed], reason: str, status: int, least: int, most: int, accept: str | None
) -> None:
    """503 where the server has no place, 429 where the client has too much of it; both say when to come back."""
    (visit,) = await refused(endpoint, headers={} if accept is None else {"accept": accept})
    assert visit.status == status
    assert visit.body.decode() == f"refused: {reason}"
    assert visit.headers["content-type"].startswith("text/plain")
    assert visit.headers["cache-control"] == "no-store"
    assert least - 1 <= int(visit.headers["retry-after"]) <= most + 1


@pytest.mark.parametrize(("endpoint", "reason", "status", "least", "most"), REASONS)
async def test_an_event_source_gets_a_stream_that_ends_with_a_retry(
    endpoint: type[Closed], reason: str, status: int, least: int, most: int
) -> None:
    """Any status but 200 would make it give up for good."""
    (visit,) = await refused(endpoint, headers=EVENT_SOURCE)
    assert visit.status == 200
    assert visit.headers["content-type"].startswith("text/event-stream")
    assert visit.headers["cache-control"] == "no-store"
    assert "retry-after" not in visit.headers
    decoder = EventDecoder()
    (event,) = decoder.feed(visit.body)
    assert (event.type, event.data) == ("stream-rejected", f'{{"reason":"{reason}"}}')
    assert decoder.retry is not None
    assert (least - 1) * 1000 <= decoder.retry <= (most + 1) * 1000


@pytest.mark.parametrize(
    ("headers", "query", "told"),
    [
        ({"last-event-id": "7"}, b"", "7"),
        ({}, b"lastEventId=7", "7"),
        ({}, b"lastEventId=7%0Adata:%20forged", ""),
        ({}, b"lastEventId=%00", ""),
        ({}, b"lastEventId=", ""),
        ({}, b"", ""),
        # Not every client could send back what it is told.
        ({"last-event-id": "\xe9"}, b"", ""),
        ({}, b"lastEventId=" + 256 * b"x", 256 * "x"),
        ({}, b"lastEventId=" + 257 * b"x", ""),
    ],
)
async def test_a_refusal_leaves_an_event_source_its_place(headers: dict[str, str], query: bytes, told: str) -> None:
    """A library that makes a new one for each attempt goes by the id of its last event."""
    (visit,) = await refused(Full, headers={**EVENT_SOURCE, **headers}, query=query)
    (event,) = EventDecoder().feed(visit.body)
    assert (event.type, event.last_event_id) == ("stream-rejected", told)


async def test_a_refusal_needs_nothing_of_the_endpoints_own() -> None:
    """What the app has made of the id is no id any more."""

    class Counting(Closed):
        last_event_id: Any

        async def on_connect(self, request: Request) -> None:
            self.last_event_id = int(self.last_event_id)
            raise BrokerUnavailableError("away")

    visit = Visit(Counting, headers={**EVENT_SOURCE, "last-event-id": "7"})
    await visit.run()
    (event,) = EventDecoder().feed(visit.body)
    assert (visit.status, event.type, event.last_event_id) == (200, "stream-rejected", "7")


async def test_refused_clients_come_back_spread_out() -> None:
    """A thousand clients that are refused in the same moment do not return in the same moment."""
    decoders = []
    for visit in await refused(Full, 1000, EVENT_SOURCE):
        decoder = EventDecoder()
        decoder.feed(visit.body)
        decoders.append(decoder.retry or 0)
    assert all(5000 <= retry <= 15000 for retry in decoders)
    assert max(Counter(retry // 1000 for retry in decoders).values()) < 200
    times = {visit.headers["retry-after"] for visit in await refused(Full, 100)}
    assert len(times) > 5


@pytest.mark.parametrize("headers", [{}, EVENT_SOURCE])
async def test_a_refusal_has_the_endpoints_own_headers(headers: dict[str, str]) -> None:
    """A browser that misses those for CORS would give up for good, too; what caches may keep is never a refusal."""
    (visit,) = await refused(Full, headers=headers)
    assert visit.headers["access-control-allow-origin"] == "https://example.org"
    assert visit.headers["x-own"] == "yes"
    assert visit.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_a_refusal_says_nothing_that_is_said_of_the_streams(accept: str) -> None:
    """However that is written, each header is there once, and is the refusal's own."""
    of_streams = {"content-type": "text/event-stream; charset=x", "CACHE-CONTROL": "max-age=1", "retry-after": "1"}
    request = Request({"type": "http", "headers": [(b"accept", accept.encode())]})
    response = refuse(request, FULL, headers={**of_streams, "x-own": "yes"})
    plain = accept == "*/*"
    assert sorted(name for name, _ in response.raw_headers) == sorted(
        [b"cache-control", b"content-length", b"content-type", *([b"retry-after"] if plain else []), b"x-own"]
    )
    assert response.headers["cache-control"] == "no-store"
    media_type = "text/plain" if plain else "text/event-stream"
    assert response.headers["content-type"] == f"{media_type}; charset=utf-8"
    assert response.headers["x-own"] == "yes"


def test_no_wait_is_longer_than_a_browser_takes() -> None:
    """One stream a month is a rate as well; who comes back earlier is refused again."""
    request = Request({"type": "http", "headers": [(b"accept", b"text/event-stream")]})
    response = refuse(request, TOO_FAST, wait=30 * 86400.0)
    assert b"retry: 2147483647\r\n" in bytes(response.body)


@pytest.mark.parametrize(("chosen", "told"), [(5.0, "12"), (5.1, "13"), (5.9, "13")])
def test_who_comes_back_when_it_was_told_to_is_not_early(
    chosen: float, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole seconds are rounded up."""
    monkeypatch.setattr("starlette_sse.refusals.random.uniform", lambda *bounds: chosen)
    response = refuse(Request({"type": "http", "headers": []}), FULL, wait=7.0)
    assert response.headers["retry-after"] == told


async def test_a_refusal_runs_no_hook_and_is_observed() -> None:
    """Nobody is authorized, connected or disconnected who was not let in."""
    called: list[str] = []

    class Watching(Observer):
        def rejected(self, endpoint: str, path: str, reason: str) -> None:
            called.append(f"{endpoint} {path} {reason}")

    class Silent(Full):
        observers = (Watching(),)

        async def authorize(self, request: Request) -> None:
            called.append("authorize")

        async def on_connect(self, request: Request) -> None:
            called.append("on_connect")

        async def on_disconnect(self, request: Request, reason: Any) -> None:
            called.append("on_disconnect")

    await refused(Silent, 2)
    rejected = f"{Silent.__qualname__} / max_connections"
    assert called == ["authorize", "on_connect", rejected, rejected, "on_disconnect"]


async def test_a_server_that_drains_lets_nobody_in() -> None:
    """Whoever comes while it shuts down is sent elsewhere, without a place being taken."""
    async with lifespan() as state:
        state["starlette_sse"].drain()
        for headers, status in (({}, 503), (EVENT_SOURCE, 200)):
            visit = Visit(Full, headers=headers)
            visit.scope["state"] = state
            await visit.run()
            assert visit.status == status
            assert b"draining" in visit.body
