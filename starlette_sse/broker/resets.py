"""What the broker itself tells a reader: resets, and the events of a snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from inspect import isawaitable
from typing import Any

from starlette_sse.broker.entries import Entry, frame_of
from starlette_sse.broker.positions import Position, ResetReason
from starlette_sse.events import FRAME, Fragment, ServerSentEvent, as_event, ready
from starlette_sse.exceptions import InvalidEventError

__all__ = ["RESET_EVENT", "items_of", "reset", "snapshot_of"]

#: The name of the event that tells a client that its events are not complete.
RESET_EVENT = "stream-reset"

#: The longest part of a client's id that a reset repeats.
ECHO = 64


def reset(
    reason: ResetReason, requested: str, oldest: Position | None, newest: Position, *, moves: bool = True
) -> Entry:
    """Return the event that tells a reader that its events are not complete.

    :param moves: whether it brings the id; a client that is cut off before it has that comes back with its old one.
    """
    content = {
        "reason": reason.value,
        "requested": requested[:ECHO],
        "oldest": None if oldest is None else str(oldest),
        "newest": str(newest),
    }
    body = ServerSentEvent(content, event=RESET_EVENT).encode()
    return told(frame_of(str(newest), body), newest) if moves else told(body)


async def snapshot_of(result: Any, position: Position) -> list[Entry]:
    """Return the entries of a snapshot; the last one brings the id, so that no client resumes behind a part of it.

    :param result: what the application's function has returned: one event, none, or some, perhaps to be awaited.
    """
    frames = [frame_without_id(item) for item in await items_of(result)]
    end = ServerSentEvent(id=str(position)).encode()
    frames[-1:] = [b"".join([*frames[-1:], end])]
    return [*map(told, frames[:-1]), told(frames[-1], position)]


def told(frame: bytes, position: Position | None = None) -> Entry:
    """Return what the broker itself tells a reader."""
    epoch, seq = position or ("", 0)
    return Entry(channel="", epoch=epoch, seq=seq, prev=seq, frame=frame)


def frame_without_id(item: Any) -> bytes:
    """Return the frame of an event in a snapshot; the client's id moves when it has all of it."""
    if isinstance(item, FRAME):
        if (frame := ready(item)) and isinstance(frame, Fragment):
            raise InvalidEventError("bytes in a snapshot must be whole frames, with an empty line at the end of each")
        return frame
    event = as_event(item)
    if event.id is not None:
        raise InvalidEventError(
            f"an event in a snapshot has the id {event.id!r}, but ids belong to the log; leave it out"
        )
    return event.encode()


async def items_of(result: Any) -> list[Any]:
    """Return the events that a snapshot has given: one, none, an iterable or an async iterable of them."""
    if isawaitable(result):
        result = await result
    if result is None:
        return []
    if isinstance(result, AsyncIterable):
        return [item async for item in result]
    if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
        return [result]
    return list(result)
