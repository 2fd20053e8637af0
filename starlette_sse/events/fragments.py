"""Bytes that are sent as they are: whole frames, or parts of them as another server's stream comes in."""

from __future__ import annotations

__all__ = ["FRAME", "Fragment", "ready"]

#: What is a frame already.
FRAME = (bytes, bytearray, memoryview)

#: How an event ends: with an empty line, by any of the standard's line ends.
ENDS = (b"\n\n", b"\n\r\n", b"\r\r")

#: The longest part of it that may come apart from the rest.
TAIL = 3


class Fragment(bytes):
    """Bytes at whose end an event is not over."""

    __slots__ = ()

    def behind(self, before: bytes) -> bytes:
        """Return what is left open behind another fragment, or the first; empty if it is over after all."""
        tail = before[-TAIL:] + self[-TAIL:]
        return b"" if tail.endswith(ENDS) else tail


def ready(item: bytes | bytearray | memoryview) -> bytes:
    """Return what is sent for bytes, a :class:`Fragment` if an event is not over at their end."""
    frame = bytes(item)
    return frame if not frame or frame.endswith(ENDS) else Fragment(frame)
