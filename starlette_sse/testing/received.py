"""What a stream has brought to the client, decoded as a browser does."""

from __future__ import annotations

import json
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

from starlette_sse.decoding import EventDecoder
from starlette_sse.testing.wire import Chunk

__all__ = ["Received", "ReceivedComment", "ReceivedEvent", "line"]


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event as a browser's listener gets it."""

    event: str
    """The name; ``message`` if the event has none."""
    data: str
    """The payload, its lines separated by LF."""
    id: str
    """The last id that the stream gave, in this event or before it."""
    time: float
    """When the app sent it, on the event loop's clock in seconds."""

    def json(self) -> Any:
        """Return the value of the payload.

        :raises ValueError: the payload is no JSON.
        """
        return json.loads(self.data)

    def __str__(self) -> str:
        return line(self.event, self.id, self.data)


@dataclass(frozen=True, slots=True)
class ReceivedComment:
    """A comment, which a browser ignores; pings are comments."""

    text: str
    time: float
    """When the app sent it, on the event loop's clock in seconds."""


class Received:
    """Takes the stream's chunks and keeps what they hold."""

    def __init__(self, last_event_id: str = "") -> None:
        self.body = bytearray()
        self.events: list[ReceivedEvent] = []
        self.comments: list[ReceivedComment] = []
        self.decoder = EventDecoder(self._add_comment, last_event_id=last_event_id)
        self._now = 0.0
        self._next_event = 0
        self._next_comment = 0

    def feed(self, chunk: Chunk) -> None:
        """Take the next chunk."""
        self.body += chunk.data
        self._now = chunk.time
        for event in self.decoder.feed(chunk.data):
            self.events.append(ReceivedEvent(event.type, event.data, event.last_event_id, chunk.time))

    def next_event(self) -> ReceivedEvent | None:
        """Return the first event not returned yet."""
        if self._next_event == len(self.events):
            return None
        self._next_event += 1
        return self.events[self._next_event - 1]

    def next_comment(self) -> ReceivedComment | None:
        """Return the first comment not returned yet."""
        if self._next_comment == len(self.comments):
            return None
        self._next_comment += 1
        return self.comments[self._next_comment - 1]

    def __str__(self) -> str:
        last = f", the last one {self.events[-1]}" if self.events else ""
        return f"{count(self.comments, 'comment')} and {count(self.events, 'event')}{last}"

    def _add_comment(self, text: str) -> None:
        self.comments.append(ReceivedComment(text, self._now))


def count(items: Sized, noun: str) -> str:
    number = len(items)
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def line(event: str, id: str, data: str) -> str:
    """Return an event on one line, for a message."""
    number = f" #{id}" if id else ""
    return f"{event}{number}: {data if data.isprintable() else repr(data)}"
