"""The cheapest that can be written by hand, as the floor: ASGI and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Message, Receive, Scope, Send

from benchmarks.contestants.contestant import Contestant, Queues, Terms
from benchmarks.payload import HELLO, NAME, Published

__all__ = ["START", "Sends", "direct", "future", "queue"]

START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")],
}


def frame(data: str, number: int) -> bytes:
    return f"id: {number}\r\nevent: {NAME}\r\ndata: {data}\r\n\r\n".encode()


def body(content: bytes) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": True}


def app_of(stream: Callable[[Receive, Send], Awaitable[None]]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return an app that starts the response and greets, then leaves the connection to ``stream``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("only HTTP")
        await send(START)
        await stream(receive, send)

    return app


GREETING = body(f"data: {HELLO}\r\n\r\n".encode())


class Sends:
    """The connections that are open, each sent to in turn."""

    def __init__(self) -> None:
        self._sends: set[Send] = set()

    async def stream(self, receive: Receive, send: Send) -> None:
        self._sends.add(send)
        try:
            await send(GREETING)
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self._sends.discard(send)

    async def publish(self, events: Published) -> None:
        for number, data in events:
            message = body(frame(data, number))
            for send in tuple(self._sends):
                await send(message)


def direct(terms: Terms) -> Contestant:
    """Send to each connection in turn."""
    sends = Sends()
    return Contestant(app=app_of(sends.stream), publish=sends.publish)


def future(terms: Terms) -> Contestant:
    """Wake each connection's own task."""
    log: list[bytes] = []
    waiting: list[asyncio.Future[None]] = []

    async def stream(receive: Receive, send: Send) -> None:
        new_future = asyncio.get_running_loop().create_future
        position = len(log)
        await send(GREETING)
        while True:
            if position == len(log):
                woken = new_future()
                waiting.append(woken)
                await woken
            frames, position = log[position:], len(log)
            await send(body(frames[0] if len(frames) == 1 else b"".join(frames)))

    async def publish(events: Published) -> None:
        log.extend(frame(data, number) for number, data in events)
        woken = waiting[:]
        waiting.clear()
        for each in woken:
            if not each.done():
                each.set_result(None)

    return Contestant(app=app_of(stream), publish=publish)


def queue(terms: Terms) -> Contestant:
    """Feed a queue of each connection."""
    queues = Queues(terms)

    async def stream(receive: Receive, send: Send) -> None:
        own = queues.join()
        try:
            await send(GREETING)
            while True:
                await send(body(await own.get()))
        finally:
            queues.leave(own)

    async def publish(events: Published) -> None:
        for number, data in events:
            queues.put(frame(data, number))

    return Contestant(app=app_of(stream), publish=publish)
