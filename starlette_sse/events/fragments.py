"""Bytes that are sent as they are: whole frames, or parts of them as another server's stream comes in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

__all__ = ["FRAME", "Fragment", "OpenEvent", "ready"]

#: What is a frame already.
FRAME = (bytes, bytearray, memoryview)

#: How an event ends: with an empty line, by any of the standard's line ends.
ENDS = (b"\n\n", b"\n\r\n", b"\r\r")

#: The longest part of an end, or of a line's end and a field's name, that may come apart from the rest.
TAIL = 6

#: Fields that count for the client though nobody listens for the event: it would resume behind what it has not got, or
#: come back after a part of the time.
LASTING = re.compile(rb"[\r\n](?:id|retry)")

#: The last name of an event counts: a listener for the one that was begun does not hear of it.
CUT = b"event: stream-cut\r\n\r\n"


class Fragment(bytes):
    """Bytes at whose end an event is not over, or of which that cannot be told, as they are empty."""

    __slots__ = ()


def ready(item: bytes | bytearray | memoryview) -> bytes:
    """Return what is sent for bytes, a :class:`Fragment` if an event is not over at their end."""
    frame = bytes(item)
    return frame if frame.endswith(ENDS) else Fragment(frame)


@dataclass(frozen=True, slots=True)
class OpenEvent:
    """What is known of an event that is not over, of which some fragments were sent."""

    tail: bytes = b"\n"
    """The end of what was sent."""
    lasting: bool = False
    """Whether it has a field that counts for the client however it ends."""

    def then(self, fragment: bytes) -> Self | None:
        """Return what is known behind one more fragment, which is not empty; None if no event is open there."""
        sent = self.tail + fragment
        begin = max(sent.rfind(end) + len(end) if end in sent else 0 for end in ENDS)
        if begin == len(sent):
            return None
        # The line end before it belongs to the first of its fields.
        part = sent[max(0, begin - 1) :]
        lasting = bool(LASTING.search(part)) or (self.lasting and not begin)
        return type(self)(part[-TAIL:], lasting)

    @property
    def cut(self) -> bytes | None:
        """What ends it as an event that nobody listens for; None if it must not be ended."""
        if self.lasting:
            return None
        return CUT if self.tail.endswith((b"\n", b"\r")) else b"\n" + CUT
