"""A second reader of event streams, written from the HTML standard's text without a thought for speed or chunks.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from starlette_sse.decoding import EventDecoder, MessageEvent


@dataclass
class Seen:
    """All that a client knows after a stream."""

    events: list[MessageEvent] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    last_event_id: str = ""
    retry: int | None = None


def read_by_the_standard(stream: bytes) -> Seen:
    seen = Seen()
    # "Streams must be decoded using the UTF-8 decode algorithm", which strips one leading byte order mark.
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _unfinished = re.split("\r\n|\n|\r", text)
    data, event_type, last_event_id = "", "", ""
    for line in lines:
        # "If the line is empty (a blank line): Dispatch the event, as defined below."
        if line == "":
            seen.last_event_id = last_event_id
            if data != "":
                data = data.removesuffix("\n")
                seen.events.append(MessageEvent(event_type or "message", data, last_event_id))
            data, event_type = "", ""
            continue
        # "If the line starts with a U+003A COLON character (:): Ignore the line."
        if line[0] == ":":
            seen.comments.append(line[1:].removeprefix(" "))
            continue
        name, value = line, ""
        if ":" in line:
            at = line.index(":")
            # "If value starts with a U+0020 SPACE character, remove it from value."
            name, value = line[:at], line[at + 1 :].removeprefix(" ")
        if name == "event":
            event_type = value
        elif name == "data":
            data += value + "\n"
        elif name == "id":
            if "\0" not in value:
                last_event_id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            seen.retry = int(value)
    return seen


def read_by_the_decoder(*chunks: bytes) -> Seen:
    seen = Seen()
    decoder = EventDecoder(seen.comments.append)
    for chunk in chunks:
        seen.events += decoder.feed(chunk)
    seen.last_event_id, seen.retry = decoder.last_event_id, decoder.retry
    return seen
