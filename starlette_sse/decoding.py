"""Bytes to events, as a browser reads them: the HTML standard's interpretation of an event stream, 9.2.6."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["EventDecoder", "MessageEvent"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: The fields that count at the blank line behind them.
OF_AN_EVENT = frozenset({b"data", b"event", b"id"})


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """An event as the client's listener gets it."""

    type: str = "message"
    """The event's name."""
    data: str = ""
    """The payload, its lines separated by LF."""
    last_event_id: str = ""
    """The last id that the stream gave, in this event or before it."""


class EventDecoder:
    """Makes events of a stream's bytes, which may come in chunks cut anywhere.

    :param on_comment: called with the text of each comment line.
    :param last_event_id: the id that the client had when it connected; browsers keep it until the stream gives one.
    """

    def __init__(self, on_comment: Callable[[str], object] | None = None, *, last_event_id: str = "") -> None:
        self.last_event_id: str = last_event_id
        """What a client would send as ``Last-Event-ID`` now: the last id that a blank line has confirmed."""
        self.retry: int | None = None
        """The last reconnection time that the stream gave, in milliseconds."""
        self._on_comment = on_comment
        self._line = bytearray()
        self._first = True
        self._after_cr = False
        self._open = False
        self._id = last_event_id
        self._type = b""
        self._data: list[bytes] = []

    @property
    def pending(self) -> bool:
        """Whether the bytes so far end inside an event, or a line; what the stream's end cuts there is never delivered.

        A comment and ``retry`` count at the end of their line.
        """
        return self._open or bool(self._line)

    def feed(self, chunk: bytes) -> list[MessageEvent]:
        """Take the stream's next bytes and return the events that they complete."""
        if self._after_cr and chunk:
            # CR LF is one line end, even if it was cut in two.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\n" not in chunk and b"\r" not in chunk:
            self._line += chunk
            return []
        # Lines of bytes, unlike those of str, end with CR LF, LF and CR only.
        lines = (bytes(self._line) + chunk).splitlines()
        self._after_cr = chunk.endswith(b"\r")
        self._line = bytearray(b"" if chunk.endswith((b"\r", b"\n")) else lines.pop())
        if self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
        return [event for line in lines if (event := self._interpret(line))]

    def _interpret(self, line: bytes) -> MessageEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        self._open = self._open or name in OF_AN_EVENT
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
            case b"event":
                self._type = value
            case b"id" if b"\0" not in value:
                self._id = text(value)
            case b"retry" if value.isdigit():
                # int() refuses thousands of digits; browsers ignore such a time too.
                with contextlib.suppress(ValueError):
                    self.retry = int(value)
            case b"" if self._on_comment is not None:
                self._on_comment(text(value))
        return None

    def _dispatch(self) -> MessageEvent | None:
        self._open = False
        self.last_event_id = self._id
        data, kind = self._data, self._type
        self._data, self._type = [], b""
        if not data:
            return None
        return MessageEvent(text(kind) or "message", text(b"\n".join(data)), self._id)


def text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
