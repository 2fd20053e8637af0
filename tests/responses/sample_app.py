"""An app as people write them for sse-starlette; the tests run it as it is, and with its import line changed."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import anyio
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, JSONServerSentEvent, ServerSentEvent
from starlette.types import Message

app = FastAPI()
rooms: dict[str, set[asyncio.Queue[Post]]] = defaultdict(set)
ids = itertools.count(1)
diary: list[str] = []


class Post(BaseModel):
    author: str
    text: str


async def current_user(request: Request) -> AsyncIterator[str]:
    name = request.headers.get("x-user")
    if name is None:
        raise HTTPException(401, "who are you?")
    diary.append(f"{name} came")
    yield name
    diary.append(f"{name} was released")


@app.post("/chat/{room}", status_code=202)
async def say(room: str, post: Post) -> dict[str, int]:
    for queue in rooms[room]:
        queue.put_nowait(post)
    return {"listeners": len(rooms[room])}


@app.get("/chat/{room}")
async def listen(room: str, request: Request, user: Annotated[str, Depends(current_user)]) -> EventSourceResponse:
    queue: asyncio.Queue[Post] = asyncio.Queue()
    rooms[room].add(queue)

    async def posts() -> AsyncIterator[dict[str, Any]]:
        try:
            yield {"event": "joined", "data": user, "retry": 3000}
            while True:
                if await request.is_disconnected():
                    break
                post = await queue.get()
                yield {"event": "post", "id": str(next(ids)), "data": post.model_dump_json()}
        except asyncio.CancelledError:
            diary.append(f"{user} was interrupted")
            raise
        finally:
            rooms[room].discard(queue)

    async def left(message: Message) -> None:
        diary.append(f"{user} left by {message['type']}")

    return EventSourceResponse(posts(), 200, {"X-Room": room}, client_close_handler_callable=left, send_timeout=5)


@app.get("/clock")
async def clock(ticks: int = 3) -> EventSourceResponse:
    async def tick() -> AsyncIterator[ServerSentEvent]:
        for number in range(ticks):
            yield ServerSentEvent(f"tick {number}", event="tick", id=str(number))
            await asyncio.sleep(0.05)

    return EventSourceResponse(
        tick(),
        ping=0.02,
        ping_message_factory=lambda: ServerSentEvent(comment="still ticking"),
        headers={"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"},
    )


@app.get("/progress")
async def progress() -> EventSourceResponse:
    writer, reader = anyio.create_memory_object_stream[Any](10)

    async def work() -> None:
        async with writer:
            for percent in (0, 50, 100):
                await writer.send(JSONServerSentEvent({"percent": percent}))
                await anyio.sleep(0.01)

    async def reports() -> AsyncIterator[JSONServerSentEvent]:
        async with reader:
            async for report in reader:
                yield report

    return EventSourceResponse(reports(), data_sender_callable=work)


@app.get("/export")
def export(background: BackgroundTasks) -> EventSourceResponse:
    def rows() -> Iterator[dict[str, Any]]:
        for number in range(3):
            yield {"data": json.dumps({"row": number}), "id": str(number)}
        yield {"event": "end", "data": ""}

    background.add_task(diary.append, "exported")
    return EventSourceResponse(rows(), sep="\n")


@app.get("/failing")
async def failing() -> EventSourceResponse:
    async def content() -> AsyncIterator[str]:
        yield "so far so good"
        raise LookupError("and then it broke")

    return EventSourceResponse(content())


@app.get("/declared", response_class=EventSourceResponse)
async def declared() -> AsyncIterator[dict[str, Any]]:
    for number in range(2):
        yield {"data": number}
