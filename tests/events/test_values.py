"""An event is a value: equality, hash, copies, pickles, replacement, repr."""

from __future__ import annotations

import copy
import pickle

import pytest

from starlette_sse.events import JSONServerSentEvent, ServerSentEvent

FULL = ServerSentEvent("a\nb", event="tick", id="1", retry=5, comment="c", sep="\n")
EVENTS = [ServerSentEvent("x"), ServerSentEvent(id=""), FULL, JSONServerSentEvent("x", id="1")]


def test_events_are_equal_by_their_fields() -> None:
    """How a field was given does not matter, each of its values does."""
    assert ServerSentEvent({"a": 1}, id=7) == ServerSentEvent('{"a":1}', id="7") == JSONServerSentEvent({"a": 1}, id=7)
    assert ServerSentEvent("a\r\nb") == ServerSentEvent("a\nb")
    for name, other in {"data": "x", "event": "x", "id": "2", "retry": 6, "comment": "x", "sep": None}.items():
        assert FULL.replace(**{name: other}) != FULL
    assert ServerSentEvent("x") != "x"
    assert ServerSentEvent("x") != ServerSentEvent("x", id="")


def test_equal_events_hash_alike() -> None:
    """Events can be members of sets and keys."""
    assert {ServerSentEvent({"a": 1}), ServerSentEvent('{"a":1}'), FULL, copy.copy(FULL)} == {
        ServerSentEvent('{"a":1}'),
        FULL,
    }


@pytest.mark.parametrize("event", EVENTS)
def test_copies_and_pickles_are_equal(event: ServerSentEvent) -> None:
    """An event can go through a queue between processes."""
    pickled = [pickle.loads(pickle.dumps(event, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for twin in (copy.copy(event), copy.deepcopy(event), *pickled, event.replace()):
        assert twin == event
        assert type(twin) is type(event)
        assert twin.encode() == event.encode()


def test_replace_gives_another_event() -> None:
    """The broker gives an event its id this way; the event itself stays."""
    event = ServerSentEvent("x", event="tick")
    assert event.replace(id="7") == ServerSentEvent("x", event="tick", id="7")
    assert FULL.replace(event=None, retry=None, data={"a": 1}) == ServerSentEvent(
        {"a": 1}, id="1", comment="c", sep="\n"
    )
    assert event == ServerSentEvent("x", event="tick")


def test_replace_does_not_make_json_of_json() -> None:
    """The data of a JSON event is text by now, and stays it."""
    assert JSONServerSentEvent("x").replace(id="7").encode() == b'id: 7\r\ndata: "x"\r\n\r\n'


def test_what_replaces_the_data_of_a_json_event_becomes_json() -> None:
    """As in its constructor."""
    event = JSONServerSentEvent("x", event="tick")
    assert event.replace(data="y") == JSONServerSentEvent("y", event="tick")
    assert event.__replace__(data=["y"]) == JSONServerSentEvent(["y"], event="tick")
    assert JSONServerSentEvent("x", id="7").replace(data=None) == JSONServerSentEvent(id="7")


class Tick(ServerSentEvent):
    def __init__(self, now: float) -> None:
        super().__init__({"now": now}, event="tick")
        self.now = now


def test_replace_works_for_a_class_with_its_own_constructor() -> None:
    """A subclass is free in what it takes, and keeps what it holds."""
    tick = Tick(1.5).replace(id="7")
    assert type(tick) is Tick
    assert (tick.now, tick.encode()) == (1.5, b'id: 7\r\nevent: tick\r\ndata: {"now":1.5}\r\n\r\n')


def test_copy_replace_works() -> None:
    """Python's own function for values, new in 3.13, knows events by this method."""
    assert FULL.__replace__(id="7") == FULL.replace(id="7")


def test_an_event_shows_the_fields_that_it_has() -> None:
    """And reads as the call that makes it."""
    assert repr(ServerSentEvent("x", id=1)) == "ServerSentEvent(data='x', id='1')"
    assert eval(repr(FULL)) == FULL
    assert repr(JSONServerSentEvent(1)) == "JSONServerSentEvent(data='1')"


def test_an_event_has_no_dictionary() -> None:
    """A stream may hold thousands of them."""
    assert not hasattr(ServerSentEvent("x"), "__dict__")
    assert not hasattr(JSONServerSentEvent("x"), "__dict__")
