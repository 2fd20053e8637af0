"""Raw ASGI apps, so that the kit is proven without the package's own streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starlette_sse.events import ServerSentEvent

EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Connection:
    """An ASGI app's view of one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send

    async def start(self, status: int = 200, headers: list[tuple[bytes, bytes]] = EVENT_STREAM) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def event(self, data: object = None, **fields: object) -> None:
        await self.write(ServerSentEvent(data, **fields).encode())  # type: ignore[arg-type]  # tests pass what fits

    async def finish(self) -> None:
        await self.write(b"", more=False)

    async def gone(self) -> None:
        """Wait until the client has gone."""
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await self.receive()


def app(body: Callable[[Connection], Awaitable[None]]) -> ASGIApp:
    """Return an app without a lifespan that answers each request by ``body``."""

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await body(Connection(scope, receive, send))

    return asgi


def until_gone(body: Callable[[Connection], Awaitable[None]]) -> ASGIApp:
    """Return an app that is cancelled when its client goes, as a stream's driver does."""

    async def listening(connection: Connection) -> None:
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                await connection.gone()
                tasks.cancel_scope.cancel()

            tasks.start_soon(listen)
            await connection.start()
            await body(connection)
            await connection.finish()
            tasks.cancel_scope.cancel()

    return app(listening)


async def tick(connection: Connection, interval: float = 1.0) -> None:
    """Send a counter for ever."""
    count = 0
    while True:
        count += 1
        await connection.event({"n": count}, event="tick", id=str(count))
        await anyio.sleep(interval)


clock = until_gone(tick)
