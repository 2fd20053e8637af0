"""The decoder's reading of streams that the standard and its test suite single out."""

from __future__ import annotations

import time

import pytest

from starlette_sse.decoding import EventDecoder, MessageEvent

from .reference import read_by_the_decoder, read_by_the_standard

BOM = b"\xef\xbb\xbf"
STREAMS: dict[str, tuple[bytes, list[MessageEvent]]] = {
    "nothing": (b"", []),
    "blank lines": (b"\n\r\r\n\n", []),
    "two lines": (b"data: a\ndata: b\n\n", [MessageEvent(data="a\nb")]),
    "mixed line ends": (b"data: a\rdata: b\r\ndata: c\n\r\n", [MessageEvent(data="a\nb\nc")]),
    "CR twice": (b"data: a\r\rdata: b\r\r", [MessageEvent(data="a"), MessageEvent(data="b")]),
    "LF CR": (b"data: a\n\rdata: b\n\n", [MessageEvent(data="a"), MessageEvent(data="b")]),
    "no space": (b"data:a\n\n", [MessageEvent(data="a")]),
    "two spaces": (b"data:  a\n\n", [MessageEvent(data=" a")]),
    "a tab": (b"data:\ta\n\n", [MessageEvent(data="\ta")]),
    "a space before": (b" data: a\n\n", []),
    "no colon": (b"data\n\n", [MessageEvent(data="")]),
    "no colon, twice": (b"data\ndata\n\n", [MessageEvent(data="\n")]),
    "a colon and nothing": (b"data:\n\n", [MessageEvent(data="")]),
    "colons in the value": (b"data: a: b:\n\n", [MessageEvent(data="a: b:")]),
    "another case": (b"Data: a\nDATA: b\n\n", []),
    "an unknown field": (b"date: a\ndata: b\ndata2: c\n\n", [MessageEvent(data="b")]),
    "a NUL in a name": (b"data\0: a\n\n", []),
    "a NUL in data": (b"data: a\0b\n\n", [MessageEvent(data="a\0b")]),
    "a name": (b"event: tick\ndata: a\n\ndata: b\n\n", [MessageEvent("tick", "a"), MessageEvent(data="b")]),
    "a name after the data": (b"data: a\nevent: tick\n\n", [MessageEvent("tick", "a")]),
    "the last name counts": (b"event: a\nevent: b\ndata: x\n\n", [MessageEvent("b", "x")]),
    "an empty name": (b"event: a\nevent\ndata: x\n\n", [MessageEvent("message", "x")]),
    "a name without data": (b"event: a\n\ndata: x\n\n", [MessageEvent("message", "x")]),
    "an id stays": (
        b"id: 1\ndata: a\n\ndata: b\n\n",
        [MessageEvent(data="a", last_event_id="1"), MessageEvent(data="b", last_event_id="1")],
    ),
    "an id without data": (b"id: 1\n\ndata: b\n\n", [MessageEvent(data="b", last_event_id="1")]),
    "an empty id": (
        b"id: 1\ndata: a\n\nid\ndata: b\n\n",
        [MessageEvent(data="a", last_event_id="1"), MessageEvent(data="b")],
    ),
    "an id with NUL": (b"id: 1\nid: 2\0\ndata: a\n\n", [MessageEvent(data="a", last_event_id="1")]),
    "an id after the data": (b"data: a\nid: 1\n\n", [MessageEvent(data="a", last_event_id="1")]),
    "a comment between": (b"data: a\n: c\n:\ndata: b\n\n", [MessageEvent(data="a\nb")]),
    "no blank line at the end": (b"data: a\n\ndata: b\n", [MessageEvent(data="a")]),
    "no line end at the end": (b"data: a\n\ndata: b", [MessageEvent(data="a")]),
    "a byte order mark": (BOM + b"data: a\n\n", [MessageEvent(data="a")]),
    "two byte order marks": (BOM + BOM + b"data: a\n\ndata: b\n\n", [MessageEvent(data="b")]),
    "a late byte order mark": (b"data: a\n\n" + BOM + b"data: b\n\n", [MessageEvent(data="a")]),
    "a byte order mark after a line end": (b"\n" + BOM + b"data: a\n\n", []),
    "half a byte order mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [MessageEvent(data="b")]),
    "broken UTF-8": (b"data: a\xffb\xe2\x82\n\n", [MessageEvent(data="a\ufffdb\ufffd")]),
    "a line end within a code point": (
        b"data: \xf0\x9f\ndata: \x98\x80\n\n",
        [MessageEvent(data="\ufffd\n\ufffd\ufffd")],
    ),
    "an encoded surrogate": (b"data: \xed\xa0\x80\n\n", [MessageEvent(data="\ufffd" * 3)]),
    "what is no line end": (
        "data: a\u2028b\u2029c\u0085d\fe\vf\x1cg\n\n".encode(),
        [MessageEvent(data="a\u2028b\u2029c\u0085d\fe\vf\x1cg")],
    ),
}


@pytest.mark.parametrize(("stream", "events"), [pytest.param(*row, id=name) for name, row in STREAMS.items()])
def test_a_stream_gives_these_events(stream: bytes, events: list[MessageEvent]) -> None:
    """In one chunk, byte by byte, and cut in two anywhere; and the second reader agrees."""
    seen = read_by_the_standard(stream)
    assert seen.events == events
    assert read_by_the_decoder(*(bytes([byte]) for byte in stream)) == seen
    for cut in range(len(stream) + 1):
        assert read_by_the_decoder(stream[:cut], b"", stream[cut:]) == seen


@pytest.mark.parametrize(
    ("value", "retry"),
    [
        ("3000", 3000),
        ("0", 0),
        ("007", 7),
        ("", 1),
        ("-1", 1),
        ("+5", 1),
        ("5.0", 1),
        ("1e3", 1),
        ("0x10", 1),
        ("5 ", 1),
        (" 5", 1),
        ("5_0", 1),
        ("²", 1),
        ("٣", 1),
        ("1000x", 1),
        pytest.param("9" * 5000, 1, id="5000 digits"),
    ],
)
def test_only_ascii_digits_are_a_reconnection_time(value: str, retry: int) -> None:
    """Anything else leaves the time as it was; what is right counts at once, before any blank line."""
    decoder = EventDecoder()
    decoder.feed(f"retry:1\nretry: {value}\n".encode())
    assert decoder.retry == retry


def test_no_reconnection_time_is_known_at_first() -> None:
    """The standard leaves the first one to the client."""
    assert EventDecoder().retry is None


def test_an_id_counts_from_the_blank_line_on() -> None:
    """A connection that breaks within an event must ask for that event again."""
    decoder = EventDecoder()
    decoder.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert decoder.last_event_id == "1"
    decoder.feed(b"\n")
    assert decoder.last_event_id == "2"


def test_an_id_from_before_the_connection_stays() -> None:
    """A client that reconnects keeps the id that it came with until the stream gives one, or takes it away."""
    decoder = EventDecoder(last_event_id="7")
    assert decoder.last_event_id == "7"
    assert decoder.feed(b"data: a\n\n") == [MessageEvent(data="a", last_event_id="7")]
    assert decoder.feed(b"id\ndata: b\n\n") == [MessageEvent(data="b")]
    assert decoder.last_event_id == ""


def test_comments_are_told_line_by_line() -> None:
    """At once, with one leading space taken away as from a value, also within an event that is not complete."""
    comments: list[str] = []
    decoder = EventDecoder(comments.append)
    decoder.feed(b": a\r\n:b\n:\n:  c: d\ndata: x\n: \xe2\x80\xa6\n: unfinished")
    assert comments == ["a", "b", "", " c: d", "…"]


def test_a_stream_cut_within_an_event_is_pending() -> None:
    """So a client can tell a clean end from a torn one."""
    decoder = EventDecoder()
    assert not decoder.pending
    for part in (b"d", b"ata: a", b"\r", b"\n"):
        decoder.feed(part)
        assert decoder.pending
    assert decoder.feed(b"\r") == [MessageEvent(data="a")]
    assert not decoder.pending
    decoder.feed(b"\n")
    assert not decoder.pending
    for part, pending in ((b": ping", True), (b"\nretry: 5\n", False), (b"id: 7\n: ping\n", True)):
        decoder.feed(part)
        assert decoder.pending == pending


def test_an_event_is_delivered_at_its_last_carriage_return() -> None:
    """Waiting for the line feed that may follow would hold the event back until the next one."""
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [MessageEvent(data="a")]
    assert decoder.feed(b"\ndata: b\r\n\r\n") == [MessageEvent(data="b")]


@pytest.mark.parametrize("line", [b"x" * 10_000_000, b"x" * 40 + b"\ndata: "], ids=["one line", "many lines"])
@pytest.mark.parametrize("size", [64, 65_536, 100_000_000])
def test_ten_megabytes_are_read_in_linear_time(line: bytes, size: int) -> None:
    """Small chunks of a large event cost about as much as a large chunk; quadratic work would take minutes."""
    stream = b"data: " + line * (10_000_000 // len(line)) + b"\n\n"
    started = time.monotonic()
    (event,) = read_by_the_decoder(*(stream[at : at + size] for at in range(0, len(stream), size))).events
    assert len(event.data) >= 8_000_000
    assert time.monotonic() - started < 20
