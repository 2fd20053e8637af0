"""One generator without a network: CPU time of an event from the generator to a ``send`` that does nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import sse_starlette
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

import starlette_sse
from benchmarks.quiet import quieten
from benchmarks.results import Run

__all__ = ["KINDS", "compare"]

ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]

FIELDS: dict[str, Any] = {"data": "hello world", "event": "tick", "id": "12"}


async def made(event: Callable[..., Any], count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield event(**FIELDS)


async def mapping(event: Callable[..., Any], count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield FIELDS


async def same(event: Callable[..., Any], count: int) -> AsyncIterator[Any]:
    one = event(**FIELDS)
    for _ in range(count):
        yield one


KINDS: dict[str, Callable[..., AsyncIterator[Any]]] = {"made": made, "mapping": mapping, "same": same}
"""What the generator yields: an event that it makes, a mapping, or one event that exists."""


def endpoint(kind: str, count: int) -> ASGI:
    class Feed(starlette_sse.SSEEndpoint):
        def events(self, request: Request) -> AsyncIterator[Any]:
            return KINDS[kind](starlette_sse.ServerSentEvent, count)

    return Feed


def response(kind: str, count: int) -> ASGI:
    return starlette_sse.EventSourceResponse(KINDS[kind](starlette_sse.ServerSentEvent, count))


def theirs(kind: str, count: int) -> ASGI:
    return sse_starlette.EventSourceResponse(KINDS[kind](sse_starlette.ServerSentEvent, count))


def loop(kind: str, count: int) -> ASGI:
    """A loop that encodes and sends, which has no pings, no timeout and no cleanup."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for item in KINDS[kind](starlette_sse.ServerSentEvent, count):
            event = starlette_sse.ServerSentEvent(**item) if kind == "mapping" else item
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})

    return app


SIDES: dict[str, Callable[[str, int], ASGI]] = {
    "ours: generator": endpoint,
    "ours: response": response,
    "sse-starlette": theirs,
    "raw: loop": loop,
}


async def run(make: Callable[[str, int], ASGI], kind: str, count: int) -> float:
    """Return the CPU time of one stream, in seconds, from its first body to its last."""
    cpu, sent, never = 0.0, 0, asyncio.Event()

    async def receive() -> Message:
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal cpu, sent
        if message["type"] == "http.response.body":
            cpu, sent = cpu or time.process_time(), sent + 1

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "query_string": b"",
        "http_version": "1.1",
    }
    await make(kind, count)(scope, receive, send)
    cpu = time.process_time() - cpu
    if sent < count:
        raise RuntimeError(f"{sent} events of {count} were sent")
    return cpu


def compare(contestants: list[str], events: int, turns: int) -> Run:
    """Time all contestants in turns; a contestant's figure is its best turn, in microseconds for each event."""
    quieten()
    best: dict[str, dict[str, float]] = {name: {} for name in contestants}
    for _ in range(turns):
        for name in contestants:
            for kind in KINDS:
                taken = asyncio.run(run(SIDES[name], kind, events)) / events * 1e6
                best[name][kind] = min(taken, best[name].get(kind, taken))
    return best
