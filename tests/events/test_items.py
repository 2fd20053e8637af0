"""What a stream may yield, and what becomes of it."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from sse_starlette.event import ensure_bytes

from starlette_sse.events import JSONServerSentEvent, ServerSentEvent, as_event, as_frame
from starlette_sse.exceptions import InvalidEventError


@dataclass
class Point:
    x: int


class Word(StrEnum):
    YES = "yes"


EVENT = ServerSentEvent("x", event="tick")
ITEMS = [
    ("x", ServerSentEvent("x")),
    ("", ServerSentEvent("")),
    (Word.YES, ServerSentEvent("yes")),
    (0, ServerSentEvent("0")),
    (1.5, ServerSentEvent("1.5")),
    (False, ServerSentEvent("false")),
    ([], ServerSentEvent("[]")),
    ([{"data": 1}], ServerSentEvent('[{"data":1}]')),
    (Point(1), ServerSentEvent('{"x":1}')),
    ({"data": "x"}, ServerSentEvent("x")),
    ({"data": {"a": 1}}, ServerSentEvent('{"a":1}')),
    ({"data": "x", "event": None, "id": None}, ServerSentEvent("x")),
    ({"comment": "c"}, ServerSentEvent(comment="c")),
    (
        {"data": "x", "event": "tick", "id": 7, "retry": 5, "comment": "c", "sep": "\n"},
        ServerSentEvent("x", event="tick", id="7", retry=5, comment="c", sep="\n"),
    ),
    (UserDict(data="x", id="1"), ServerSentEvent("x", id="1")),
    (MappingProxyType({"data": "x", "event": "tick"}), EVENT),
]


@pytest.mark.parametrize(("item", "event"), ITEMS)
def test_an_item_means_this_event(item: Any, event: ServerSentEvent) -> None:
    """A mapping is the fields of an event, anything else is its data, and the bytes follow from the event."""
    assert as_event(item) == event
    assert as_frame(item) == event.encode()
    assert as_frame(item, "\n") == event.encode("\n")


def test_an_event_is_itself() -> None:
    """Also where another class makes the events."""
    assert as_event(EVENT) is EVENT
    assert as_event(EVENT, JSONServerSentEvent) is EVENT
    assert as_frame(EVENT, "\r", JSONServerSentEvent) == EVENT.encode("\r")


@pytest.mark.parametrize("item", ["x", {"data": "x"}, MappingProxyType({"data": "x"})], ids=str)
def test_an_event_class_may_have_an_encode_without_parameters(item: Any) -> None:
    """As one that was written for another library has, as long as the line end is the usual one."""

    class Old(ServerSentEvent):
        def encode(self) -> bytes:  # type: ignore[override]
            return b"data: old\r\n\r\n"

    assert as_frame(item, event_class=Old) == b"data: old\r\n\r\n"


def test_the_event_class_makes_the_event() -> None:
    """So one class attribute of an endpoint swaps the encoder for all that it yields."""
    for item in ("x", {"data": "x"}):
        event = as_event(item, JSONServerSentEvent)
        assert (type(event), event.data) == (JSONServerSentEvent, '"x"')
        assert as_frame(item, event_class=JSONServerSentEvent) == b'data: "x"\r\n\r\n'


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_a_ready_frame(kind: Any) -> None:
    """They are sent as they are, whatever they hold, and are no event that could be given an id."""
    frame = kind(b"anything\n\n")
    assert as_frame(frame, "\r") == b"anything\n\n"
    assert type(as_frame(frame)) is bytes
    with pytest.raises(InvalidEventError, match="bytes are a ready frame, not an event; decode them"):
        as_event(frame)


@pytest.mark.parametrize(
    ("mapping", "key"),
    [
        ({"now": 1.5}, "another key"),
        ({"data": "x", "Event": "y"}, r"'Event' \(did you mean event\?\)"),
        ({"dta": "x"}, r"'dta' \(did you mean data\?\)"),
        ({1: 2}, "another key"),
        ({"": 1, "ann@example.org": 1}, "another key"),
    ],
)
def test_an_unknown_field_is_refused(mapping: dict[Any, Any], key: str) -> None:
    """A mapping that was meant as data is the commonest mistake, so the error says how to send it.

    It is logged, so it tells no key that is not like a field's name.
    """
    for item in (mapping, MappingProxyType(mapping)):
        with pytest.raises(InvalidEventError, match=rf"this one has {key}; .*write ServerSentEvent\(data=\.\.\.\)"):
            as_event(item)
        with pytest.raises(InvalidEventError, match=f"this one has {key};"):
            as_frame(item)


@pytest.mark.parametrize("item", [None, {}, {"data": None}, {"event": "done"}])
def test_an_item_that_says_nothing_is_refused(item: Any) -> None:
    """A generator that yields None has forgotten something; JSON's null is one word away."""
    with pytest.raises(InvalidEventError, match="give data='' for an empty payload, data='null' for JSON's null"):
        as_event(item)


def test_a_mapping_is_left_as_it_was() -> None:
    """The caller may yield the same one again."""
    fields = {"data": {"b": [1]}, "id": 7, "sep": "\n"}
    as_frame(fields, "\r\n")
    assert fields == {"data": {"b": [1]}, "id": 7, "sep": "\n"}


@pytest.mark.parametrize(
    "item",
    [
        "x",
        "a\nb\r\nc\rd",
        b"data: x\r\n\r\n",
        {"data": "x", "event": "tick", "id": "1", "retry": 5, "comment": "a\nb"},
        {"data": 1},
        {"data": ""},
        {"retry": 5},
        {"comment": ""},
        1,
    ],
)
@pytest.mark.parametrize("sep", ["\r\n", "\n", "\r"])
def test_the_bytes_are_those_of_sse_starlette(item: Any, sep: str) -> None:
    """An app that moves over sends the same bytes for all that both can send."""
    assert as_frame(item, sep) == ensure_bytes(item, sep)
