"""What cannot be an event is refused when it is made, by an error that names the field and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from starlette_sse.events import JSONServerSentEvent, ServerSentEvent, as_event
from starlette_sse.exceptions import InvalidEventError

from .reference import read_by_the_decoder

FORGERIES = [
    "x\ndata: forged",
    "x\rdata: forged",
    "x\r\ndata: forged",
    "x\n\nevent: admin\ndata: forged\n\n",
    "x\r\revent: admin\rdata: forged\r\r",
    "x\n",
    "\rx",
    "\n",
    "a\0b",
    "\0",
]


@pytest.mark.parametrize("name", ["event", "id"])
@pytest.mark.parametrize("value", FORGERIES)
@pytest.mark.parametrize("event_class", [ServerSentEvent, JSONServerSentEvent])
def test_a_name_or_id_with_a_line_end_or_nul_is_refused(
    name: str, value: str, event_class: type[ServerSentEvent]
) -> None:
    """Never stripped, which would merge two ids into one, and never sent, which would forge a field."""
    fields: dict[str, Any] = {name: value}
    says = rf"^{name} must be one line without NUL, but has '.*' at position \d+; remove it"
    with pytest.raises(InvalidEventError, match=says):
        event_class("x", **fields)
    with pytest.raises(InvalidEventError, match=f"^{name} must be one line"):
        as_event({"data": "x", name: value}, event_class)
    with pytest.raises(InvalidEventError, match=f"^{name} must be one line"):
        event_class("x").replace(**fields)


@pytest.mark.parametrize("value", FORGERIES)
@pytest.mark.parametrize("sep", ["\r\n", "\n", "\r"])
def test_data_and_comments_cannot_forge_anything(value: str, sep: str) -> None:
    """A forged field inside text stays text: one event, or none for a comment, with the default name and no id."""
    seen = read_by_the_decoder(ServerSentEvent(value).encode(sep))
    assert [(event.type, event.last_event_id) for event in seen.events] == [("message", "")]
    seen = read_by_the_decoder(ServerSentEvent(comment=value).encode(sep))
    assert (seen.events, seen.last_event_id, seen.retry) == ([], "", None)


LIES: dict[str, Any] = {
    "isprintable": lambda _: True,
    "isascii": lambda _: True,
    "__contains__": lambda *_: False,
    "replace": lambda self, *_: self,
    "__str__": lambda _: "innocent",
    "__format__": lambda *_: "innocent\ndata: forged",
}
Hostile: type[str] = type("Hostile", (str,), LIES)
"""A string that says other things than it holds."""


def test_a_subclass_of_str_cannot_forge_anything() -> None:
    """Only the characters that a string really holds count, and all of them."""
    event = ServerSentEvent(Hostile("a\rb"), event=Hostile("x"), id=Hostile("y"), comment=Hostile("c\rd"))
    assert event.encode() == b": c\r\n: d\r\nid: y\r\nevent: x\r\ndata: a\r\ndata: b\r\n\r\n"
    for name in ("event", "id"):
        with pytest.raises(InvalidEventError, match=name):
            as_event({"data": "x", name: Hostile("a\nb")})


@pytest.mark.parametrize("name", ["data", "event", "id", "comment"])
@pytest.mark.parametrize("value", ["\ud800", "é\udfff", "x\udc80y"])
def test_a_lone_surrogate_is_refused_in_every_field(name: str, value: str) -> None:
    """UTF-8 cannot carry it, and the stream must not learn that when it sends."""
    fields: dict[str, Any] = {"data": "x", name: value}
    with pytest.raises(
        InvalidEventError, match=rf"{name} has a lone surrogate at position \d, which UTF-8 cannot carry"
    ):
        ServerSentEvent(**fields)


def test_a_lone_surrogate_within_json_is_refused() -> None:
    """JSON text is checked like any other."""
    with pytest.raises(InvalidEventError, match="data has a lone surrogate"):
        ServerSentEvent({"name": "\ud800"})


@pytest.mark.parametrize("name", ["event", "id", "comment"])
@pytest.mark.parametrize("value", [b"x", 1.5, True, ["x"], object()])
def test_text_of_another_type_is_refused(name: str, value: object) -> None:
    """Its repr, or b'x', would be sent otherwise."""
    with pytest.raises(InvalidEventError, match=f"^{name} must be a str, not {type(value).__name__}; convert it first"):
        ServerSentEvent("x", **{name: value})  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize("value", [True, False, 1.0, "1000", "1\ndata: forged"])
def test_retry_of_another_type_is_refused(value: object) -> None:
    """A bool is an int for Python but never meant as a time."""
    with pytest.raises(InvalidEventError, match=f"retry must be an int in milliseconds, not {type(value).__name__}"):
        ServerSentEvent("x", retry=value)  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize("value", [-1, 2**31, pytest.param(10**5000, id="5001 digits")])
def test_a_retry_that_clients_cannot_keep_is_refused(value: int) -> None:
    """A negative one is ignored by clients, one beyond 31 bits makes many of them reconnect at once."""
    with pytest.raises(InvalidEventError, match="retry must be 0 to 2147483647 milliseconds"):
        ServerSentEvent("x", retry=value)


def test_an_id_number_of_thousands_of_digits_is_refused() -> None:
    """Python does not print it, which must not show as another error later."""
    with pytest.raises(InvalidEventError, match="id is too long"):
        ServerSentEvent("x", id=10**5000)


@pytest.mark.parametrize(
    "fields", [{}, {"sep": "\n"}, {"event": "done"}, {"event": "done", "id": "1"}, {"event": "x", "comment": "y"}]
)
def test_an_event_that_no_client_would_see_is_refused(fields: dict[str, Any]) -> None:
    """The standard drops a name without data, so it is a mistake, and the remedy is empty data."""
    with pytest.raises(InvalidEventError, match=r"an event needs data .* give data='' for an empty payload"):
        ServerSentEvent(**fields)
    with pytest.raises(InvalidEventError, match="an event needs data"):
        as_event(fields)


def test_nothing_can_be_changed_after_the_check() -> None:
    """An event stays as valid as it was born."""
    event = ServerSentEvent("x", event="a", id="1", retry=1, comment="c", sep="\n")
    for name in ("data", "event", "id", "retry", "comment", "sep", "other"):
        with pytest.raises(AttributeError):
            setattr(event, name, "forged\n")
        with pytest.raises(AttributeError):
            delattr(event, name)
