"""For any Unicode in every field: refused at construction, or exactly one equal event on the other side."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from starlette_sse.decoding import EventDecoder, MessageEvent
from starlette_sse.events import ServerSentEvent
from starlette_sse.exceptions import InvalidEventError

from .reference import read_by_the_decoder, read_by_the_standard
from .strategies import any_text, chunked, fields, one_line, separators, streams, text
from .test_wire import meant

patient = settings(deadline=None)


def refused(given: dict[str, Any]) -> bool:
    """Tell from the promise, not from the code, whether an event may be made of these fields."""
    texts = [value for value in given.values() if isinstance(value, str)]
    single = [given[name] for name in ("event", "id") if name in given]
    unseen = "data" not in given and ("event" in given or not given.keys() - {"sep"})
    return (
        unseen
        or any(re.search("[\ud800-\udfff]", value) for value in texts)
        or any(re.search("[\r\n\0]", value) for value in single)
    )


@patient
@given(fields(any_text, any_text), separators)
def test_any_unicode_is_refused_or_arrives_as_one_equal_event(given: dict[str, Any], sep: str) -> None:
    """No string in any field can forge a field or an event, and none that could be carried is refused."""
    try:
        event = ServerSentEvent(**given)
    except InvalidEventError:
        assert refused(given)
        return
    assert not refused(given)
    frame = event.encode(sep)
    assert read_by_the_decoder(frame) == read_by_the_standard(frame) == meant(event)


@patient
@given(fields(text, one_line))
def test_an_event_holds_what_it_was_given(given: dict[str, Any]) -> None:
    """Text comes out of the attributes as it went in, but for the kind of its line ends."""
    assume(not refused(given))
    event = ServerSentEvent(**given)
    for name in ("data", "comment"):
        if name in given:
            assert getattr(event, name) == re.sub("\r\n|\r", "\n", given[name])
    for name in ("event", "id", "retry", "sep"):
        assert getattr(event, name) == given.get(name)


@patient
@given(st.lists(fields(text, one_line).filter(lambda given: not refused(given)), max_size=6), st.data())
def test_a_stream_of_events_arrives_in_any_chunks(given: list[dict[str, Any]], data: st.DataObject) -> None:
    """Events keep their borders and order whatever their separators and however the bytes are cut."""
    events = [ServerSentEvent(**fields) for fields in given]
    stream = b"".join(event.encode(data.draw(separators)) for event in events)
    expected, last_id = [], ""
    for event in events:
        last_id = last_id if event.id is None else event.id
        if event.data is not None:
            expected.append(MessageEvent(event.event or "message", event.data, last_id))
    seen = read_by_the_decoder(*data.draw(chunked(stream)))
    assert (seen.events, seen.last_event_id) == (expected, last_id)


@settings(patient, max_examples=500)
@given(streams, st.data())
def test_the_decoder_reads_any_bytes_as_the_standard_says(stream: bytes, data: st.DataObject) -> None:
    """For any bytes in any chunks, broken UTF-8 included, the decoder agrees with the standard's own steps."""
    assert read_by_the_decoder(*data.draw(chunked(stream))) == read_by_the_standard(stream)


@patient
@given(fields(text, one_line), st.data())
def test_a_cut_frame_is_pending_and_gives_no_event(given: dict[str, Any], data: st.DataObject) -> None:
    """Wherever a frame is cut before the blank line that ends it, nothing of it is delivered and the cut is seen.

    But for one that is cut behind a comment or ``retry``: those count at the end of their line.
    """
    assume(not refused(given))
    # The second half of a CR LF adds nothing, so the event is whole without the last byte of that.
    sep = data.draw(st.sampled_from("\r\n"))
    frame = ServerSentEvent(**given | {"sep": sep}).encode()
    cut = data.draw(st.integers(1, len(frame) - 1))
    *lines, rest = frame[:cut].split(sep.encode())
    decoder = EventDecoder()
    assert decoder.feed(frame[:cut]) == []
    assert decoder.pending == bool(rest or [line for line in lines if not line.startswith((b":", b"retry:"))])
    assert decoder.last_event_id == ""
    decoder.feed(frame[cut:])
    assert not decoder.pending
