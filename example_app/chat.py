"""Chat rooms: a channel for each, its history as the snapshot, and who is present."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from example_app.news import ROOMS, News, broker
from example_app.payloads import choice, posted, text
from example_app.registry import Inspected
from starlette_sse import ChannelEndpoint, CloseReason, ServerSentEvent

__all__ = ["Chat", "Presence", "say"]

#: Seconds after which every worker says again who is present, so that a worker that died is noticed.
BEAT = 5.0


class Presence:
    """Who is in which room on this worker."""

    def __init__(self) -> None:
        self._people: dict[str, tuple[str, str]] = {}
        self._changed = anyio.Event()

    def enter(self, connection_id: str, room: str, name: str) -> None:
        self._people[connection_id] = (room, name)
        self._changed.set()

    def leave(self, connection_id: str) -> None:
        if self._people.pop(connection_id, None) is not None:
            self._changed.set()

    def of(self, room: str) -> list[str]:
        """Return the names in a room; the same name twice is two people."""
        return sorted(name for where, name in self._people.values() if where == room)

    async def tell(self, news: News) -> None:
        """Publish who is present, when it changes and once in a while."""
        while True:
            self._changed = anyio.Event()
            for room in ROOMS:
                people = {"room": room, "people": self.of(room)}
                await news.announce(f"chat:{room}", "presence", people, key=news.worker)
            with anyio.move_on_after(BEAT):
                await self._changed.wait()


class Chat(Inspected, ChannelEndpoint):
    """One room. A client that was offline resumes by id; a newcomer gets the history first."""

    broker = broker

    async def authorize(self, request: Request) -> None:
        if room_of(request) not in ROOMS:
            raise HTTPException(404, f"there is no such room; there are {', '.join(ROOMS)}")

    async def on_connect(self, request: Request) -> None:
        name = request.query_params.get("name", "somebody")[:30]
        request.state.presence.enter(self.connection_id, room_of(request), name)

    async def channels(self, request: Request) -> Sequence[str]:
        return [f"chat:{room_of(request)}"]

    async def snapshot(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        news: News = request.state.news
        yield await news.recall(f"chat:{room_of(request)}", "chat-so-far")

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        request.state.presence.leave(self.connection_id)


async def say(request: Request) -> Response:
    """Publish what somebody says in a room."""
    payload = await posted(request)
    said: dict[str, Any] = {"name": text(payload, "name", 30), "text": text(payload, "text", 2000)}
    said |= {"room": choice(payload, "room", ROOMS), "message": secrets.token_hex(8)}
    news: News = request.state.news
    await news.publish(f"chat:{said['room']}", "chat", said)
    return JSONResponse({"message": said["message"]}, 201)


def room_of(request: Request) -> str:
    """Return the room that is asked for, by the path or the query."""
    return str(request.path_params.get("room") or request.query_params.get("room", ROOMS[0]))
