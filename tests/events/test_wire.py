"""One table of events and their bytes, read in both directions."""

from __future__ import annotations

import pytest

from starlette_sse.decoding import MessageEvent
from starlette_sse.events import ServerSentEvent
from starlette_sse.exceptions import InvalidEventError

from .reference import Seen, read_by_the_decoder, read_by_the_standard

TABLE = {
    "data": (ServerSentEvent("hello"), b"data: hello\r\n\r\n"),
    "empty data": (ServerSentEvent(""), b"data: \r\n\r\n"),
    "one line end": (ServerSentEvent("\n"), b"data: \r\ndata: \r\n\r\n"),
    "a line end at the end": (ServerSentEvent("a\n"), b"data: a\r\ndata: \r\n\r\n"),
    "a blank line between": (ServerSentEvent("a\n\nb"), b"data: a\r\ndata: \r\ndata: b\r\n\r\n"),
    "every kind of line end": (
        ServerSentEvent("a\r\nb\rc\nd\r\r\ne"),
        b"data: a\r\ndata: b\r\ndata: c\r\ndata: d\r\ndata: \r\ndata: e\r\n\r\n",
    ),
    "a leading space": (ServerSentEvent(" a\n  b"), b"data:  a\r\ndata:   b\r\n\r\n"),
    "data like fields": (ServerSentEvent("id: 1\n:x\nevent"), b"data: id: 1\r\ndata: :x\r\ndata: event\r\n\r\n"),
    "NUL in data": (ServerSentEvent("a\0b"), b"data: a\0b\r\n\r\n"),
    "no line ends": (
        ServerSentEvent("a\u2028b\u2029c\u0085d\fe\vf\x1cg\x1dh\x1ei"),
        "data: a\u2028b\u2029c\u0085d\fe\vf\x1cg\x1dh\x1ei\r\n\r\n".encode(),
    ),
    "a byte order mark in data": (ServerSentEvent("\ufeffa"), b"data: \xef\xbb\xbfa\r\n\r\n"),
    "all of Unicode": (ServerSentEvent("é…𝄞\U0010ffff"), "data: é…𝄞\U0010ffff\r\n\r\n".encode()),
    "a name": (ServerSentEvent("x", event="tick"), b"event: tick\r\ndata: x\r\n\r\n"),
    "a name with spaces": (ServerSentEvent("x", event=" a b "), b"event:  a b \r\ndata: x\r\n\r\n"),
    "an empty name": (ServerSentEvent("x", event=""), b"event: \r\ndata: x\r\n\r\n"),
    "a name beyond ASCII": (
        ServerSentEvent("x", event="\u2028é\x85"),
        b"event: \xe2\x80\xa8\xc3\xa9\xc2\x85\r\ndata: x\r\n\r\n",
    ),
    "an id": (ServerSentEvent("x", id="a-1"), b"id: a-1\r\ndata: x\r\n\r\n"),
    "a number as id": (ServerSentEvent("x", id=7), b"id: 7\r\ndata: x\r\n\r\n"),
    "an empty id": (ServerSentEvent("x", id=""), b"id: \r\ndata: x\r\n\r\n"),
    "an id alone": (ServerSentEvent(id="a-1"), b"id: a-1\r\n\r\n"),
    "retry": (ServerSentEvent("x", retry=0), b"data: x\r\nretry: 0\r\n\r\n"),
    "retry alone": (ServerSentEvent(retry=3000), b"retry: 3000\r\n\r\n"),
    "a comment": (ServerSentEvent(comment="still here"), b": still here\r\n\r\n"),
    "an empty comment": (ServerSentEvent(comment=""), b": \r\n\r\n"),
    "a comment of lines": (ServerSentEvent(comment="a\r\nb\rc\nd"), b": a\r\n: b\r\n: c\r\n: d\r\n\r\n"),
    "everything": (
        ServerSentEvent("a\nb", event="tick", id="1", retry=5, comment="c"),
        b": c\r\nid: 1\r\nevent: tick\r\ndata: a\r\ndata: b\r\nretry: 5\r\n\r\n",
    ),
    "LF": (
        ServerSentEvent("a\r\nb", event="tick", id="1", retry=5, comment="c\nd", sep="\n"),
        b": c\n: d\nid: 1\nevent: tick\ndata: a\ndata: b\nretry: 5\n\n",
    ),
    "CR": (
        ServerSentEvent("a\r\nb", event="tick", id="1", retry=5, comment="c\nd", sep="\r"),
        b": c\r: d\rid: 1\revent: tick\rdata: a\rdata: b\rretry: 5\r\r",
    ),
    "CR LF by itself": (ServerSentEvent("a\nb", sep="\r\n"), b"data: a\r\ndata: b\r\n\r\n"),
}
every_row = pytest.mark.parametrize(("event", "frame"), [pytest.param(*row, id=name) for name, row in TABLE.items()])


def meant(event: ServerSentEvent) -> Seen:
    """Return what a client is meant to see of ``event``."""
    id_ = event.id or ""
    return Seen(
        [] if event.data is None else [MessageEvent(event.event or "message", event.data, id_)],
        [] if event.comment is None else event.comment.split("\n"),
        id_,
        event.retry,
    )


@every_row
def test_an_event_encodes_to_its_bytes(event: ServerSentEvent, frame: bytes) -> None:
    """The bytes are stable: the order of fields, the space after each colon, the blank line at the end."""
    assert event.encode() == frame


@every_row
def test_an_events_bytes_decode_to_it(event: ServerSentEvent, frame: bytes) -> None:
    """What the decoder and the standard's own steps make of the bytes is the event."""
    assert read_by_the_decoder(frame) == read_by_the_standard(frame) == meant(event)


@every_row
def test_an_events_bytes_decode_to_it_one_by_one(event: ServerSentEvent, frame: bytes) -> None:
    """How the bytes are cut into chunks, even within a code point or a CR LF, makes no difference."""
    assert read_by_the_decoder(*(bytes([byte]) for byte in frame)) == meant(event)


@pytest.mark.parametrize(
    ("own", "stream", "used"),
    [
        (None, None, "\r\n"),
        (None, "\r\n", "\r\n"),
        (None, "\n", "\n"),
        (None, "\r", "\r"),
        ("\n", "\r", "\n"),
        ("\r\n", "\n", "\r\n"),
    ],
)
def test_an_events_own_separator_wins_over_the_streams(own: str | None, stream: str | None, used: str) -> None:
    """The stream's separator is the default of each event, CR LF the default of the stream."""
    assert ServerSentEvent("a\nb", sep=own).encode(stream) == f"data: a{used}data: b{used}{used}".encode()


@pytest.mark.parametrize("sep", ["", "\n\n", "\n\r", "\u2028", "x", "\r\n\r\n"])
def test_no_other_separator_is_accepted(sep: str) -> None:
    """A separator that is no line end would run fields together or end events early."""
    with pytest.raises(InvalidEventError, match="sep must be one of"):
        ServerSentEvent("x", sep=sep)
    with pytest.raises(InvalidEventError, match="sep must be one of"):
        ServerSentEvent("x").encode(sep)


def test_ten_megabytes_pass_unchanged() -> None:
    """A large payload, in one line or in many, arrives as it was."""
    for line_length in (10_000_000, 40):
        event = ServerSentEvent("\n".join("é" * line_length for _ in range(10_000_000 // line_length)), id="1")
        frame = event.encode()
        chunks = [frame[at : at + 65_536] for at in range(0, len(frame), 65_536)]
        assert read_by_the_decoder(*chunks) == meant(event)
